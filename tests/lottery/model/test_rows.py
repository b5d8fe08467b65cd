"""Trainable rows against plain PyTorch written out here, and against what must not move."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra tune")
pytest.importorskip("transformers", reason="needs the extra tune")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from profiles import examples  # noqa: E402
from tiny_gemma import tiny_gemma3  # noqa: E402
from tiny_llama import VOCABULARY, WIDTH, batch_of, tiny_llama  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from transformers import LlamaForCausalLM  # noqa: E402

from certify.base.errors import CertifyError, InternalError, InvalidInputError, UsageError  # noqa: E402
from certify.tables.rowfile import make_rows  # noqa: E402
from lottery.model.rows import TrainableRows, check_trainable, extract, install  # noqa: E402
from lottery.tuning.arms import checkpoint_activations  # noqa: E402

IDS = (0, 5, 13, 40, 96)
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
Optimiser = Callable[[list[Tensor]], torch.optim.Optimizer]
OPTIMISERS: dict[str, Optimiser] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.9),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.0),
}


def scaled(dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    """A model that multiplies what it looks up by the root of its width, of the same size."""
    # Deep and steep, it would tell no error from chaos; of a padding row, plain PyTorch takes no gradient.
    return tiny_gemma3(
        dtype=dtype,
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        tie_word_embeddings=False,
        num_hidden_layers=2,
        initializer_range=0.05,
        pad_token_id=None,
    )


MODELS = pytest.mark.parametrize("make", [tiny_llama, scaled], ids=["plain", "scaled"])


def bits(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().view(torch.uint8).numpy().tobytes()


def snapshot(model: nn.Module) -> dict[str, bytes]:
    return {name: bits(value) for name, value in model.state_dict().items()}


def merge(model: LlamaForCausalLM) -> nn.Embedding:
    """Write the trained rows into the table, rounded to its dtype, and put the ordinary embedding back."""
    module = model.get_input_embeddings()
    rows = module.trained.weight.detach().to(module.base.weight.dtype)
    with torch.no_grad():
        module.base.weight[slice(None) if module.ids is None else list(module.ids)] = rows
    model.set_input_embeddings(module.base)
    return module.base


def train(model: LlamaForCausalLM, optimiser: torch.optim.Optimizer, steps: int, **options: object) -> None:
    for step in range(steps):
        model(**batch_of(step), **options).loss.backward()
        optimiser.step()
        optimiser.zero_grad()


def plain_loop(
    model: LlamaForCausalLM, ids: tuple[int, ...] | None, optimiser: Optimiser, steps: int
) -> Tensor:
    """The reference: a full table as the parameter, gradients of other rows zeroed by a mask."""
    model.requires_grad_(False)
    table = model.model.embed_tokens.weight.requires_grad_(True)
    mask = torch.ones(table.shape[0], 1)
    if ids is not None:
        mask = torch.zeros(table.shape[0], 1)
        mask[list(ids)] = 1
    table.register_hook(lambda gradient: gradient * mask)
    train(model, optimiser([table]), steps)
    return table.detach()


@MODELS
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ids", [IDS, None], ids=["partial", "embed"])
def test_untrained_rows_change_nothing(
    make: Callable[..., LlamaForCausalLM], dtype: torch.dtype, ids: tuple[int, ...] | None
) -> None:
    model = make(dtype=dtype)
    before, prompt = snapshot(model), torch.tensor([[1, 5, 13, 40, 7]])
    original = model.generate(prompt, max_new_tokens=12, do_sample=False, pad_token_id=0)
    logits = model(prompt).logits
    install(model, ids)
    assert bits(model(prompt).logits) == bits(logits)
    assert model.dtype == dtype
    again = model.generate(prompt, max_new_tokens=12, do_sample=False, pad_token_id=0)
    assert again.tolist() == original.tolist()
    merge(model)
    assert snapshot(model) == before


@MODELS
@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize("ids", [IDS, None], ids=["partial", "embed"])
def test_equals_plain_pytorch_loop(
    make: Callable[..., LlamaForCausalLM], name: str, ids: tuple[int, ...] | None
) -> None:
    expected = plain_loop(make(), ids, OPTIMISERS[name], steps=12)
    model = make()
    rows = install(model, ids)
    start = extract(rows)
    train(model, OPTIMISERS[name]([rows.trained.weight]), steps=12)
    moved = extract(rows)
    assert np.abs(moved - start).max() > 1e-2  # the comparison below is not about standing still
    merge(model)
    torch.testing.assert_close(model.model.embed_tokens.weight, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_other_rows_and_backbone_keep_their_bits(dtype: torch.dtype) -> None:
    model = tiny_llama(dtype=dtype)
    before = snapshot(model)
    rows = install(model, IDS)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1, amsgrad=True)
    train(model, optimiser, steps=8)
    merge(model)
    after = snapshot(model)
    table = "model.embed_tokens.weight"
    assert {name for name in after if after[name] != before[name]} == {table}
    width = len(before[table]) // VOCABULARY
    moved = [
        i
        for i in range(VOCABULARY)
        if before[table][i * width :][:width] != after[table][i * width :][:width]
    ]
    assert tuple(moved) == IDS
    assert rows.trained.weight.dtype == torch.float32


def test_the_check_above_catches_a_masked_full_table() -> None:
    """Planted fault: the usual way of masking gradients of a full table moves rows that it should not."""
    model = tiny_llama()
    before = model.model.embed_tokens.weight.detach().clone()
    after = plain_loop(model, IDS, lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1), steps=8)
    moved = (after != before).any(dim=1).nonzero().squeeze(1).tolist()
    assert set(moved) > set(IDS)


@pytest.mark.parametrize(("ids", "expected"), [(IDS, len(IDS) * WIDTH), (None, VOCABULARY * WIDTH)])
def test_parameter_and_optimiser_counts(ids: tuple[int, ...] | None, expected: int) -> None:
    model = tiny_llama()
    install(model, ids)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == expected
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    train(model, optimiser, steps=1)
    moments = [v.numel() for s in optimiser.state.values() for k, v in s.items() if k != "step"]
    assert moments == [expected, expected]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_backbone_sees_the_rounded_row_that_merge_writes(dtype: torch.dtype) -> None:
    model = tiny_llama(dtype=dtype)
    values = np.random.default_rng(3).normal(size=(len(IDS), WIDTH)).astype(np.float32)
    rows = install(model, IDS, init=values)
    prompt = torch.tensor([[1, 5, 13, 40, 7, 96]])
    seen, logits = rows(prompt), model(prompt).logits
    assert seen.dtype == dtype
    table = merge(model).weight
    assert bits(table[list(IDS)]) == bits(torch.from_numpy(values).to(dtype))
    assert bits(table[prompt]) == bits(seen)
    assert bits(model(prompt).logits) == bits(logits)


def test_small_updates_survive_a_bf16_backbone() -> None:
    model = tiny_llama(dtype=torch.bfloat16)
    rows = install(model, IDS)
    start = extract(rows)
    for _ in range(10):  # each step is far below half a bf16 ulp of a typical entry
        with torch.no_grad():
            rows.trained.weight.add_(1e-5)
    np.testing.assert_allclose(extract(rows) - start, 1e-4, rtol=0.02)


@pytest.mark.parametrize("ask_input_grads", [False, True])
@pytest.mark.parametrize("ids", [IDS, None], ids=["partial", "embed"])
def test_gradient_checkpointing_gives_the_same_gradient(
    ask_input_grads: bool, ids: tuple[int, ...] | None
) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = tiny_llama().train()
        rows = install(model, ids)
        if checkpointing:
            checkpoint_activations(model)
            if ask_input_grads:
                model.enable_input_require_grads()
        model(**batch_of(0), use_cache=False).loss.backward()
        gradients.append(rows.trained.weight.grad)
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=1e-6)


def test_a_batch_without_any_trained_token_has_zero_gradient() -> None:
    model = tiny_llama()
    rows = install(model, (7,))
    inputs = torch.tensor([[1, 3, 4, 5]])
    model(input_ids=inputs, labels=inputs).loss.backward()
    assert torch.count_nonzero(rows.trained.weight.grad) == 0


@pytest.mark.parametrize("ids", [(2, 4), None], ids=["partial", "embed"])
def test_padding_row_is_trained_where_fed_and_untouched_by_masked_padding(
    ids: tuple[int, ...] | None,
) -> None:
    model = tiny_llama(pad_token_id=2)
    assert model.model.embed_tokens.padding_idx == 2
    rows = install(model, ids)
    row = 0 if ids else 2

    def gradient(inputs: list[int], mask: list[int]) -> Tensor:
        rows.trained.weight.grad = None
        labels = torch.tensor([[-100, -100, inputs[2], -100, -100]])
        model(
            input_ids=torch.tensor([inputs]), attention_mask=torch.tensor([mask]), labels=labels
        ).loss.backward()
        return rows.trained.weight.grad[row]

    assert torch.count_nonzero(gradient([1, 4, 7, 2, 2], [1, 1, 1, 0, 0])) == 0
    assert torch.count_nonzero(gradient([1, 2, 7, 8, 9], [1, 1, 1, 1, 1])) > 0


@settings(deadline=None, max_examples=examples(60))
@given(
    ids=st.sets(st.integers(0, 11), min_size=1),
    fed=st.lists(st.integers(0, 11), min_size=1, max_size=9),
    seed=st.integers(0, 2**16),
)
def test_look_up_and_gradient_equal_index_arithmetic(ids: set[int], fed: list[int], seed: int) -> None:
    draw = np.random.default_rng(seed)
    table, new = (
        draw.normal(size=(12, 3)).astype(np.float32),
        draw.normal(size=(len(ids), 3)).astype(np.float32),
    )
    upstream = draw.normal(size=(1, len(fed), 3)).astype(np.float32)
    order = sorted(ids)
    rows = TrainableRows(nn.Embedding.from_pretrained(torch.from_numpy(table.copy())), order)
    with torch.no_grad():
        rows.trained.weight.copy_(torch.from_numpy(new))
    out = rows(torch.tensor([fed]))
    out.backward(torch.from_numpy(upstream))
    expected_out = [new[order.index(i)] if i in ids else table[i] for i in fed]
    np.testing.assert_array_equal(out.detach().numpy()[0], np.array(expected_out))
    expected_gradient = np.zeros((len(ids), 3))
    for position, i in enumerate(fed):
        if i in ids:
            expected_gradient[order.index(i)] += upstream[0, position]
    np.testing.assert_allclose(rows.trained.weight.grad, expected_gradient, rtol=1e-5, atol=1e-6)
    assert rows.base.weight.grad is None


def refusals() -> Iterator[tuple[str, type[CertifyError], Callable[[], object]]]:
    def install_on(change: Callable[[LlamaForCausalLM], object], **options: object) -> Callable[[], object]:
        def run() -> object:
            model = tiny_llama()
            change(model)
            return install(model, (1, 2), **options)

        return run

    def set_flag(model: LlamaForCausalLM) -> None:
        model.config.tie_word_embeddings = True

    def share(model: LlamaForCausalLM) -> None:
        model.lm_head.weight = model.model.embed_tokens.weight

    def quantise(model: LlamaForCausalLM) -> None:
        model.config.quantization_config = {"quant_method": "gptq"}

    def as_int8(model: LlamaForCausalLM) -> None:
        weight = model.model.embed_tokens.weight
        model.model.embed_tokens.weight = nn.Parameter(weight.to(torch.int8), requires_grad=False)

    class Normalised(nn.Embedding):
        embed_scale = 2.0

        def forward(self, ids: Tensor) -> Tensor:
            return self.embed_scale * nn.functional.normalize(super().forward(ids), dim=-1)

    def subclass(model: LlamaForCausalLM) -> None:
        model.model.embed_tokens = Normalised(VOCABULARY, WIDTH)

    def grow(model: LlamaForCausalLM) -> None:
        model.model.embed_tokens = nn.Embedding(VOCABULARY + 3, WIDTH)

    def nothing(_model: LlamaForCausalLM) -> None:
        del _model

    yield "TIED_HEAD", InvalidInputError, install_on(set_flag)
    yield "TIED_HEAD", InvalidInputError, install_on(share)
    yield "TIED_HEAD", InvalidInputError, lambda: install(tiny_llama(tie_word_embeddings=True), None)
    yield "QUANTISED_TABLE", InvalidInputError, install_on(quantise)
    yield "QUANTISED_TABLE", InvalidInputError, install_on(as_int8)
    yield "EMBEDDING_UNSUPPORTED", InvalidInputError, install_on(subclass)
    yield "TABLE_RESIZED", InvalidInputError, install_on(grow)
    yield "EMBEDDING_UNSUPPORTED", InvalidInputError, install_on(lambda model: install(model, (3,)))
    yield "NO_ROWS", UsageError, lambda: install(tiny_llama(), ())
    yield "ID_DUPLICATE", InvalidInputError, lambda: install(tiny_llama(), (1, 4, 4))
    yield "ID_DUPLICATE", InvalidInputError, lambda: install(tiny_llama(), (4, 1))
    yield "ID_RANGE", InvalidInputError, lambda: install(tiny_llama(), (-1, 4))
    yield "ID_RANGE", InvalidInputError, lambda: install(tiny_llama(), (4, VOCABULARY))
    yield "ID_BEYOND_TOKENIZER", UsageError, lambda: install(tiny_llama(), (4, 95), tokens=95)
    yield "INIT_SHAPE", InvalidInputError, install_on(nothing, init=np.zeros((3, WIDTH), np.float32))
    yield "INIT_SHAPE", InvalidInputError, install_on(nothing, init=np.zeros((2, WIDTH), np.float64))
    yield "NON_FINITE", InvalidInputError, install_on(nothing, init=np.full((2, WIDTH), np.nan, np.float32))


@pytest.mark.parametrize(("code", "kind", "attempt"), list(refusals()))
def test_refused_with_one_line(code: str, kind: type[CertifyError], attempt: Callable[[], object]) -> None:
    with pytest.raises(kind) as caught:
        attempt()
    assert caught.value.code == code
    assert "\n" not in str(caught.value)


def test_rows_beyond_the_tokenizer_can_be_allowed() -> None:
    assert install(tiny_llama(), (4, 96), tokens=95, allow_beyond=True).ids == (4, 96)


def test_non_finite_and_overflowing_rows_never_leave() -> None:
    model = tiny_llama(dtype=torch.float16)
    rows = install(model, IDS)
    with torch.no_grad():
        rows.trained.weight[1, 3] = 1e6  # finite in fp32, infinite in fp16
    values = extract(rows)
    assert np.isfinite(values).all()
    with pytest.raises(InvalidInputError) as caught:
        make_rows(np.asarray(IDS, np.int64), values, "F16")
    assert caught.value.code in ("NON_FINITE", "OVERFLOW")
    with torch.no_grad():
        rows.trained.weight[2, 3] = float("nan")
    with pytest.raises(InvalidInputError, match="rows 13") as caught:
        extract(rows)
    assert caught.value.code == "NON_FINITE"


def test_re_enabled_gradients_are_noticed() -> None:
    model = tiny_llama()
    rows = install(model, IDS)
    model.lm_head.weight.requires_grad_(True)
    with pytest.raises(InternalError) as caught:
        check_trainable(model, rows)
    assert caught.value.code == "NOT_FROZEN"
    assert model.get_input_embeddings() is rows
