"""The loss on target positions against the model's own loss and against sums written out."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs the extra tune")
pytest.importorskip("transformers", reason="needs the extra tune")

from tiny_llama import batch_of, tiny_llama  # noqa: E402

from lottery.model.loss import target_loss, target_positions  # noqa: E402
from lottery.model.rows import install  # noqa: E402


def test_positions_are_those_before_a_target() -> None:
    labels = torch.tensor([[7, -100, 5, 6], [-100, -100, -100, -100], [-100, 3, -100, 9]])
    expected = [
        row * 4 + column
        for row, values in enumerate(labels.tolist())
        for column in range(3)
        if values[column + 1] != -100
    ]
    assert target_positions(labels).tolist() == expected


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_sum_of_the_models_own_loss(seed: int) -> None:
    model = tiny_llama()
    rows = install(model, None)
    batch = batch_of(seed)
    count = int((batch["labels"][:, 1:] != -100).sum())
    model(**batch).loss.backward()
    expected = rows.trained.weight.grad.clone()
    rows.trained.weight.grad = None
    loss = target_loss(model, model.lm_head, batch | {"positions": target_positions(batch["labels"])})
    loss.backward()
    torch.testing.assert_close(loss.detach() / count, model(**batch).loss.detach())
    torch.testing.assert_close(rows.trained.weight.grad / count, expected, rtol=0, atol=1e-6)


def test_equals_log_probabilities_written_out() -> None:
    model = tiny_llama()
    batch = batch_of(1)
    logs = torch.log_softmax(model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits, -1)
    expected = -sum(
        logs[row, column - 1, label].item()
        for row, labels in enumerate(batch["labels"].tolist())
        for column, label in enumerate(labels)
        if label != -100 and column > 0
    )
    loss = target_loss(model, model.lm_head, batch | {"positions": target_positions(batch["labels"])})
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_the_head_runs_on_targets_only_and_is_whole_again_afterwards() -> None:
    model = tiny_llama()
    batch = batch_of(2)
    positions = target_positions(batch["labels"])
    seen: list[tuple[int, ...]] = []
    handle = model.lm_head.register_forward_hook(lambda _m, _i, output: seen.append(tuple(output.shape)))
    target_loss(model, model.lm_head, batch | {"positions": positions})
    handle.remove()
    assert seen == [(1, positions.numel(), 97)]
    assert model(batch["input_ids"]).logits.shape == (*batch["input_ids"].shape, 97)
