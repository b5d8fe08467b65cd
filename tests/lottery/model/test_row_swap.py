"""Arms put into one model: each decodes as a model made by hand would, and leaves the base as it was."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra tune")
pytest.importorskip("transformers", reason="needs the extra tune")

from safetensors.torch import load_file, save_file  # noqa: E402
from slow_decoding import Logits, by_position, forced, greedy, plainly, segment  # noqa: E402
from tiny_gemma import tiny_gemma3  # noqa: E402
from tiny_llama import VOCABULARY, WIDTH, save_checkpoint, tiny_llama, write_pairs  # noqa: E402

from certify.base.errors import CertifyError, InvalidInputError, UsageError  # noqa: E402
from certify.base.jsonio import tensor_digest  # noqa: E402
from certify.evidence.manifest import ArmKind  # noqa: E402
from certify.tables.modeldigest import adapter_digest  # noqa: E402
from certify.tables.rowfile import Rows, make_rows  # noqa: E402
from certify.tables.safefile import write_tensors  # noqa: E402
from certify.tables.table import Table, open_table  # noqa: E402
from certify.ticket.templates import Example, encode, load_template  # noqa: E402
from lottery.evaluation.forced_decoding import argmaxes  # noqa: E402
from lottery.evaluation.generate import generate  # noqa: E402
from lottery.model.backbone import load_backbone  # noqa: E402
from lottery.model.row_swap import (  # noqa: E402
    Placement,
    base_placement,
    placed,
    reference_placement,
    rows_placement,
    serve_base,
    weights_placement,
)
from lottery.model.tokenizer import load_tokenizer  # noqa: E402
from lottery.text.pairsource import read_pairs  # noqa: E402

LANGUAGES = ("en", "ca")
TABLE = "model.embed_tokens.weight"
NEW, END = 7, 2
IDS = [1, 3, 14, 40, 66, 78]  # beginning of sentence, newline, letters, the space


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def base(folder: Path) -> Table:
    return open_table(folder)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def prompts(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    pairs = read_pairs(write_pairs(tmp_path_factory.mktemp("text") / "dev", 5), *LANGUAGES)
    made = encode(load_template("explicit"), pairs, tokenizer, *LANGUAGES, response=False)
    assert len({len(prompt) for prompt in made}) > 2, "padding must take part"
    return made


@pytest.fixture
def model(folder: Path) -> Any:
    return load_backbone(folder, "F32").eval()


@pytest.fixture(scope="module")
def rows() -> Rows:
    values = np.random.default_rng(3).standard_normal((len(IDS), WIDTH)).astype(np.float32)
    return make_rows(np.array(IDS), values, "F32")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Table:
    values = np.random.default_rng(5).standard_normal((VOCABULARY, WIDTH)).astype(np.float32)
    path = tmp_path_factory.mktemp("tuned") / "table.safetensors"
    write_tensors(path, {TABLE: ("F32", values)}, None)
    return open_table(path)


def weights(model: Any) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


@contextmanager
def left_as_it_was(model: Any) -> Iterator[None]:
    before = weights(model)
    modules = [type(module) for module in model.modules()]
    yield
    assert weights(model) == before
    assert [type(module) for module in model.modules()] == modules


def check(
    model: Any, tokenizer: Any, prompts: list[Example], placement: Placement, slow: list[Logits]
) -> None:
    """Batched decoding and teacher forcing with an arm give what the slow loops give, prompt by prompt."""
    with left_as_it_was(model), placed(model, placement, "F32") as ready:
        outputs = generate(ready, tokenizer, prompts, max_new_tokens=NEW, batch_size=3)
        # Along an answer that is not the arm's own, too.
        answers = [(7, 8, 9, 3, 2)[: 1 + number] for number in range(len(prompts))]
        said = argmaxes(ready, prompts, answers)
    for prompt, output, answer, steps, logits in zip(prompts, outputs, answers, said, slow, strict=True):
        assert list(output.tokens) == greedy(logits, prompt.ids, NEW, END)
        assert list(steps) == [int(each.argmax()) for each in forced(logits, prompt.ids, answer)]


def with_table(model: Any, values: np.ndarray) -> Any:
    """A copy of the model with another table, made the simplest way."""
    other = tiny_llama()
    other.load_state_dict(model.state_dict())
    other.model.embed_tokens.weight.data = torch.from_numpy(values.copy())
    return other.eval()


def test_the_base_and_the_reference(
    model: Any, tokenizer: Any, prompts: list[Example], base: Table, reference: Table
) -> None:
    check(model, tokenizer, prompts, base_placement(base), [plainly(model)] * len(prompts))
    tuned = plainly(with_table(model, reference.rows(0, VOCABULARY)))
    check(model, tokenizer, prompts, reference_placement(reference), [tuned] * len(prompts))


def test_rows_go_where_they_belong(
    model: Any, tokenizer: Any, prompts: list[Example], base: Table, rows: Rows
) -> None:
    placement = rows_placement("t.transfer", "transfer", base, rows)
    table = np.array(base.rows(0, VOCABULARY))
    table[IDS] = rows.fp32
    assert placement.arm.ids == tuple(IDS)
    assert placement.arm.table_sha256 == tensor_digest("F32", table.shape, [table.tobytes()])
    assert placement.arm.parameters == len(IDS) * WIDTH
    check(model, tokenizer, prompts, placement, [plainly(with_table(model, table))] * len(prompts))


@pytest.mark.parametrize(
    "gate",
    [("instruction",), ("source",), ("target",), ("source", "target"), ("instruction", "source", "target")],
)
def test_gated_rows_act_in_their_segments_only(
    model: Any, tokenizer: Any, prompts: list[Example], base: Table, rows: Rows, gate: tuple[str, ...]
) -> None:
    outside = torch.from_numpy(np.array(base.rows(0, VOCABULARY)))
    inside = outside.clone()
    inside[IDS] = torch.from_numpy(rows.fp32)

    def slow(prompt: Example) -> Logits:
        source = range(prompt.source.start, prompt.source.stop)
        return by_position(model, inside, outside, lambda p: segment(p, source, len(prompt)) in gate)

    placement = rows_placement("t.gate", "transfer", base, rows, gate=gate, control="gate")
    assert placement.arm.gate == gate
    check(model, tokenizer, prompts, placement, [slow(prompt) for prompt in prompts])


def test_a_gate_open_everywhere_is_no_gate_and_segments_matter(
    model: Any, tokenizer: Any, prompts: list[Example], base: Table, rows: Rows
) -> None:
    def said(gate: tuple[str, ...] | None) -> list[tuple[int, ...]]:
        with placed(model, rows_placement("t", "transfer", base, rows, gate=gate), "F32") as ready:
            return [
                output.tokens
                for output in generate(ready, tokenizer, prompts, max_new_tokens=NEW, batch_size=5)
            ]

    everywhere = said(None)
    assert said(("target", "source", "instruction")) == everywhere
    assert (
        len({tuple(said((name,))) for name in ("instruction", "source", "target")} | {tuple(everywhere)}) > 2
    )


def test_a_gate_multiplies_what_it_looks_up_as_the_model_does(rows: Rows, tmp_path: Path) -> None:
    model = tiny_gemma3(vocab_size=VOCABULARY, hidden_size=WIDTH, tie_word_embeddings=False)
    model.save_pretrained(tmp_path)
    base, ids = open_table(tmp_path), torch.tensor([[*IDS, 7, 8]])

    def logits(gate: tuple[str, ...] | None) -> Any:
        placement = rows_placement("t", "transfer", base, rows, gate=gate)
        with placed(model, placement, "F32") as ready, torch.inference_mode():
            return ready.model(**ready.inputs(ids, torch.zeros_like(ids))).logits

    assert torch.equal(logits(("instruction", "source", "target")), logits(None))
    with torch.inference_mode():
        assert torch.equal(logits(("target",)), model(ids).logits)
    assert not torch.equal(logits(None), logits(("target",)))


def test_a_served_dtype_is_what_the_model_sees(folder: Path, base: Table, rows: Rows) -> None:
    model = load_backbone(folder, "F32").eval()
    narrow = base.as_dtype("BF16")
    serve_base(model, narrow)
    seen = model.model.embed_tokens.weight.detach()
    assert torch.equal(seen, torch.from_numpy(np.array(base.rows(0, VOCABULARY))).bfloat16().float())
    cast = make_rows(rows.ids, rows.fp32, "BF16")
    with placed(model, rows_placement("t", "tuned", narrow, cast), "F32") as ready:
        there = ready.model.model.embed_tokens.weight.detach()[IDS]
        assert torch.equal(there, torch.from_numpy(rows.fp32).bfloat16().float())


# --- other weights ---------------------------------------------------------------------------------------


def adapter(folder: Path, kind: str, seed: int = 0) -> Path:
    """An adapter that was trained on nothing but acts: its numbers are random and not small."""
    from peft import LoraConfig, PrefixTuningConfig, TaskType, get_peft_model

    config = (
        LoraConfig(task_type=TaskType.CAUSAL_LM, r=2, lora_alpha=4)
        if kind == "lora"
        else PrefixTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=4)
    )
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.manual_seed(seed)
        adapted = get_peft_model(tiny_llama(), config)
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.5)
        adapted.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["lora", "prefix"])
def test_an_adapter_acts_and_goes(
    model: Any, tokenizer: Any, prompts: list[Example], folder: Path, kind: str, tmp_path: Path
) -> None:
    from peft import PeftModel

    saved = adapter(tmp_path / kind, kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        oracle = PeftModel.from_pretrained(load_backbone(folder, "F32"), saved).eval()

    def logits(ids: Any) -> Any:
        with torch.no_grad():
            return oracle(input_ids=torch.tensor([list(ids)])).logits[0, -1]

    placement = weights_placement(kind, kind, saved, parameters=10)
    assert placement.arm.table_sha256 is None
    for _ in range(2):  # a second time on the same model, as when arms follow one another
        check(model, tokenizer, prompts, placement, [logits] * len(prompts))
    assert [greedy(logits, prompt.ids, NEW, END) for prompt in prompts] != [
        greedy(plainly(model), prompt.ids, NEW, END) for prompt in prompts
    ]


@pytest.mark.parametrize(
    ("kind", "fault"), [("lora", "missing"), ("lora", "unexpected"), ("prefix", "unexpected")]
)
def test_an_adapter_with_other_weights_is_refused(
    model: Any, kind: ArmKind, fault: str, tmp_path: Path
) -> None:
    saved = adapter(tmp_path / kind, kind)
    file = saved / "adapter_model.safetensors"
    tensors = load_file(file)
    name = sorted(tensors)[0]
    first = tensors[name] if fault == "unexpected" else tensors.pop(name)
    save_file(tensors | ({f"{name}.old": first.clone()} if fault == "unexpected" else {}), file)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    placement = weights_placement(kind, kind, saved, parameters=10)
    with pytest.raises(InvalidInputError, match=f"1 {fault} ") as caught, placed(model, placement, "F32"):
        pass
    assert caught.value.code == "MODEL_WEIGHTS"
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items())


def test_full_tuning_is_a_model_of_its_own(
    model: Any, tokenizer: Any, prompts: list[Example], tmp_path: Path
) -> None:
    saved = save_checkpoint(tmp_path / "full", seed=9)
    placement = weights_placement("full", "full", saved, parameters=1)
    check(model, tokenizer, prompts, placement, [plainly(load_backbone(saved, "F32"))] * len(prompts))


def test_digests_of_weights_say_which_weights(tmp_path: Path) -> None:
    first, again = (save_checkpoint(tmp_path / name) for name in ("a", "b"))
    other = save_checkpoint(tmp_path / "c", seed=1)
    digests = [
        weights_placement("f", "full", path, parameters=1).arm.model_sha256 for path in (first, again, other)
    ]
    assert digests[0] == digests[1] != digests[2]
    one, two = adapter(tmp_path / "x", "lora"), adapter(tmp_path / "y", "lora", seed=1)
    assert (
        weights_placement("l", "lora", one, parameters=1).arm.model_sha256
        != weights_placement("l", "lora", two, parameters=1).arm.model_sha256
    )


@pytest.mark.parametrize("kind", ["lora", "prefix"])
def test_the_digest_of_an_adapter_is_of_weights_and_settings_only(kind: str, tmp_path: Path) -> None:
    saved = adapter(tmp_path / kind, kind)
    path = saved / "adapter_config.json"
    config = json.loads(path.read_text())
    before = adapter_digest(saved)

    def with_changes(**changes: object) -> str:
        path.write_text(json.dumps(config | changes))
        return adapter_digest(saved)

    assert with_changes(base_model_name_or_path="/elsewhere/base", peft_version="99") == before
    if kind == "lora":  # a set in PEFT: its order depends on PYTHONHASHSEED
        for names in (["q_proj", "v_proj"], ["v_proj", "q_proj"]):
            assert with_changes(target_modules=names) == before
        assert with_changes(target_modules=["q_proj"]) != before
        assert with_changes(lora_alpha=5) != before
    else:
        assert with_changes(num_virtual_tokens=5) != before


# --- what is refused -------------------------------------------------------------------------------------


def test_the_base_comes_back_after_an_error(model: Any, base: Table, rows: Rows, tmp_path: Path) -> None:
    placements = [
        rows_placement("t", "transfer", base, rows),
        weights_placement("lora", "lora", adapter(tmp_path / "lora", "lora"), parameters=1),
    ]
    for placement in placements:
        with left_as_it_was(model), pytest.raises(ZeroDivisionError), placed(model, placement, "F32"):
            raise ZeroDivisionError


@pytest.mark.parametrize("fault", ["dtype", "width", "beyond", "none"])
def test_rows_that_do_not_fit_are_refused(base: Table, fault: str) -> None:
    ids = {"beyond": [VOCABULARY], "none": []}.get(fault, [5])
    width = WIDTH + (fault == "width")
    wrong = make_rows(
        np.array(ids, np.int64), np.ones((len(ids), width), np.float32), "F16" if fault == "dtype" else "F32"
    )
    with pytest.raises(InvalidInputError) as error:
        rows_placement("t", "transfer", base, wrong)
    assert error.value.code == "ROWS_DISAGREE"


def test_a_gate_on_a_tied_head_is_refused(base: Table, rows: Rows) -> None:
    tied = tiny_llama(tie_word_embeddings=True).eval()
    placement = rows_placement("t", "transfer", base, rows, gate=("source",))
    with pytest.raises(UsageError) as error, placed(tied, placement, "F32"):
        pass
    assert error.value.code == "GATE_TIED"


def test_adapters_of_another_kind_and_pickles_are_refused(tmp_path: Path) -> None:
    saved = adapter(tmp_path / "lora", "lora")
    with pytest.raises(InvalidInputError) as error:
        weights_placement("prefix", "prefix", saved, parameters=1)
    assert error.value.code == "ADAPTER_UNSUPPORTED"
    (saved / "adapter_model.safetensors").rename(saved / "adapter_model.bin")
    with pytest.raises(InvalidInputError) as error:
        weights_placement("lora", "lora", saved, parameters=1)
    assert error.value.code == "PICKLE_REFUSED"
    (saved / "adapter_config.json").write_text(json.dumps(["LORA"]))
    with pytest.raises(InvalidInputError):
        weights_placement("lora", "lora", saved, parameters=1)
    with pytest.raises(CertifyError):
        weights_placement("full", "full", tmp_path / "nowhere", parameters=1)


def test_beams_refuse_what_they_cannot_decode(
    model: Any, tokenizer: Any, prompts: list[Example], base: Table, rows: Rows
) -> None:
    placement = rows_placement("t", "transfer", base, rows, gate=("source",))
    with placed(model, placement, "F32") as ready, pytest.raises(UsageError) as error:
        generate(ready, tokenizer, prompts, max_new_tokens=3, batch_size=2, beams=2)
    assert error.value.code == "BEAMS_UNSUPPORTED"
