"""Teacher forcing against full forward passes one step at a time; probabilities rounded the right way."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the extra tune")
pytest.importorskip("transformers", reason="needs the extra tune")

from slow_decoding import forced, plainly  # noqa: E402
from tiny_llama import VOCABULARY, tiny_llama  # noqa: E402

import lottery.evaluation.forced_decoding  # noqa: E402
from certify.base.errors import InvalidInputError, UsageError  # noqa: E402
from certify.evidence.read import Arm, BaseModelRef, TextRef  # noqa: E402
from certify.ticket.templates import Example, Span  # noqa: E402
from lottery.evaluation.assemble import LossTask  # noqa: E402
from lottery.evaluation.forced_decoding import argmaxes, certainties, log_likelihoods  # noqa: E402
from lottery.evaluation.measure import measure_loss  # noqa: E402
from lottery.model.row_swap import Placed, Placement  # noqa: E402
from lottery.text.unrelated import Window  # noqa: E402

EMPTY = Span(0, 0)
# fp32 logits of a batch and of a single sequence agree to about 1e-6, probabilities with them.
CLOSE = 20_000


def draw(count: int, seed: int = 0) -> tuple[list[Example], list[list[int]]]:
    """Prompts and answers of varied length, random ids."""
    generator = torch.Generator().manual_seed(seed)

    def ids(length: int) -> list[int]:
        return torch.randint(0, VOCABULARY, (length,), generator=generator).tolist()

    prompts = [
        Example(f"p:{i}", (1, *ids(1 + i * 5 % 9)), 2 + i * 5 % 9, EMPTY, EMPTY, EMPTY) for i in range(count)
    ]
    return prompts, [ids(1 + i * 3 % 7) for i in range(count)]


@pytest.mark.parametrize("budget", [1, 900, 1 << 24])
def test_every_step_is_that_of_the_whole_sequence(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the number of logits held together: one sequence at a time, some, all."""
    monkeypatch.setattr(lottery.evaluation.forced_decoding, "LOGITS", budget)
    model = tiny_llama().eval()
    prompts, answers = draw(9)
    tokens = argmaxes(Placed(model), prompts, answers)
    found = certainties(Placed(model), prompts, answers)
    losses = log_likelihoods(Placed(model), prompts, answers)
    for prompt, answer, said, sure, loss in zip(prompts, answers, tokens, found, losses, strict=True):
        slow = forced(plainly(model), prompt.ids, answer)
        assert list(said) == list(sure.argmax) == [int(logits.argmax()) for logits in slow]
        probabilities = [_softmax(logits) for logits in slow]
        tops = [sorted(each, reverse=True) for each in probabilities]
        for p_a, p_b, (first, second, *_) in zip(sure.p_a, sure.p_b, tops, strict=True):
            assert abs(p_a - first * 1e9) < CLOSE
            assert abs(p_b - second * 1e9) < CLOSE
        wanted = sum(math.log(each[token]) for each, token in zip(probabilities, answer, strict=True))
        assert loss == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("shared", [0, 1, 7])
def test_what_all_prompts_begin_with_is_fed_once(shared: int) -> None:
    model = tiny_llama().eval()
    prompts, answers = draw(9)
    ids = [(*range(shared), 7 + i, *prompt.ids[1:]) for i, prompt in enumerate(prompts)]
    prompts = [
        Example(one.id, new, len(new), EMPTY, EMPTY, EMPTY) for one, new in zip(prompts, ids, strict=True)
    ]
    fed: list[int] = []
    model.register_forward_pre_hook(
        lambda _, __, more: fed.append(more["input_ids"].numel()), with_kwargs=True
    )
    found = argmaxes(Placed(model), prompts, answers)
    longest = max(len(one) + len(answer) - 1 for one, answer in zip(prompts, answers, strict=True))
    assert sum(fed) == shared + len(prompts) * (longest - shared)
    for prompt, answer, said in zip(prompts, answers, found, strict=True):
        assert list(said) == [int(logits.argmax()) for logits in forced(plainly(model), prompt.ids, answer)]


def test_what_is_not_an_answer_decides_nothing() -> None:
    """Padding and the company in the batch leave argmax and probabilities alone."""
    model = tiny_llama().eval()
    prompts, answers = draw(6)
    together = certainties(Placed(model), prompts, answers)
    for index, sure in enumerate(together):
        (alone,) = certainties(Placed(model), [prompts[index]], [answers[index]])
        assert alone.argmax == sure.argmax
        assert max(abs(a - b) for a, b in zip(alone.p_a, sure.p_a, strict=True)) < CLOSE


@pytest.mark.parametrize("rows", [64, 97])
def test_probabilities_are_rounded_down_and_up(rows: int) -> None:
    """All logits equal: 1/64 lies on the grid of 1e-9 and 1/97 does not; the one must be left, too."""
    model = tiny_llama(vocab_size=rows).eval()
    torch.nn.init.zeros_(model.lm_head.weight)
    prompt = Example("p", (1, 5), 2, EMPTY, EMPTY, EMPTY)
    (sure,) = certainties(Placed(model), [prompt], [[3, 4]])
    exact = Fraction(10**9, rows)
    assert sure.argmax == (0, 0)
    for p_a, p_b in zip(sure.p_a, sure.p_b, strict=True):
        assert exact - 1 <= p_a < exact < p_b <= exact + 1


def test_certainty_saturates_within_bounds() -> None:
    model = tiny_llama().eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(1e4)
    prompts, answers = draw(3)
    for sure in certainties(Placed(model), prompts, answers):
        assert all(10**9 - 1 <= p_a <= 10**9 for p_a in sure.p_a)
        assert all(1 <= p_b <= 2 for p_b in sure.p_b)


@pytest.mark.parametrize("measure", [argmaxes, certainties, log_likelihoods])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_an_error(measure: Any, value: float) -> None:
    model = tiny_llama().eval()
    with torch.no_grad():
        model.lm_head.weight[90, 3] = value
    with pytest.raises(InvalidInputError) as error:
        measure(Placed(model), *draw(3))
    assert error.value.code == "NON_FINITE"


# --- loss on windows -------------------------------------------------------------------------------------

TEXT = TextRef(name="t", sha256="a" * 64, sentences=1, unit="sentence", attribution="")
MODEL = BaseModelRef(tensor_sha256="b" * 64, model_sha256="c" * 64)
BASE = Placement(Arm(name="base", kind="base", table_sha256="a" * 64, parameters=0))


def windows(count: int) -> LossTask:
    generator = torch.Generator().manual_seed(1)
    lengths = [2 + i * 7 % 11 for i in range(count)]
    made = [
        Window(
            f"w:{i}",
            str(i // 2),
            (1, *torch.randint(0, VOCABULARY, (n - 1,), generator=generator).tolist()),
            ("0" * 16,),
        )
        for i, n in enumerate(lengths)
    ]
    return LossTask(made, TEXT, MODEL, "d" * 64, "e" * 64)


def test_the_loss_of_a_window_is_the_sum_over_its_tokens(tmp_path: Path) -> None:
    model = tiny_llama().eval()
    chosen = windows(7)
    part = measure_loss(model, chosen, BASE, tmp_path / "base.jsonl", batch_size=3, resume=False)
    for index, window in enumerate(chosen.windows):
        steps = forced(plainly(model), window.ids[:1], window.ids[1:])
        nats = -sum(
            math.log(_softmax(logits)[token]) for logits, token in zip(steps, window.ids[1:], strict=True)
        )
        assert part.read(index)["nats"] == pytest.approx(nats * 1e9, abs=1e5)
    with torch.no_grad():
        model.lm_head.weight.zero_()
    again = measure_loss(model, chosen, BASE, tmp_path / "base.jsonl", resume=True)
    assert again.read(0) == part.read(0), "a finished part is not computed again"
    flat = measure_loss(model, chosen, BASE, tmp_path / "flat.jsonl", resume=True)
    assert flat.read(3)["nats"] == round((len(chosen.windows[3].ids) - 1) * math.log(VOCABULARY) * 1e9)


def test_other_windows_are_another_part(tmp_path: Path) -> None:
    model = tiny_llama().eval()
    measure_loss(model, windows(3), BASE, tmp_path / "part.jsonl", resume=True)
    with pytest.raises(UsageError) as error:
        measure_loss(model, windows(4), BASE, tmp_path / "part.jsonl", resume=True)
    assert error.value.code == "PART_MISMATCH"
    assert "windows" in str(error.value)


def _softmax(logits: Any) -> list[float]:
    values = logits.double().tolist()
    top = max(values)
    weights = [math.exp(value - top) for value in values]
    total = math.fsum(weights)
    return [weight / total for weight in weights]
