"""PEFT adapters, out and in: what is written, what peft makes of it, and what is refused."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_checkpoint import (
    HEAD,
    IDS,
    Release,
    digests,
    expected_transfer,
    make_ticket,
    random_bits,
    read_bits,
    write_checkpoint,
    write_file,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from profiles import examples

from certify.base.errors import CertifyError
from certify.tables.rowfile import read_rows
from certify.tables.table import open_table
from certify.ticket.adapters.imported import ImportedAdapter, import_folder, import_peft
from certify.ticket.adapters.rows import CONFIG, WEIGHTS, export_peft
from certify.ticket.merge import apply
from certify.ticket.released import open_source
from certify.ticket.transfer import open_parts, transfer

ROWS = "base_model.model.model.embed_tokens.trainable_tokens_delta"
WHOLE = "base_model.model.model.embed_tokens.base_layer.weight"


class Case(Release):
    @property
    def adapter(self) -> Path:
        return self.folder / "adapter"

    def export(self) -> Path:
        return export_peft(open_parts(open_source(self.spec), self.base), self.adapter)

    def read(self) -> ImportedAdapter:
        return import_peft(self.adapter, open_table(self.base))


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def write_adapter(folder: Path, indices: object, rows: dict[str, tuple[str, Any]], **config: object) -> Path:
    """An adapter as another program might write it."""
    folder.mkdir(exist_ok=True)
    content = {"peft_type": "TRAINABLE_TOKENS", "token_indices": indices} | config
    (folder / CONFIG).write_text(json.dumps(content))
    write_file(folder / WEIGHTS, rows)
    return folder


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_adapter_holds_absolute_rows_in_the_served_dtype(tmp_path: Path, dtype: str) -> None:
    case = Case(tmp_path, dtype)
    case.export()
    np.testing.assert_array_equal(read_bits(case.adapter / WEIGHTS, ROWS), case.tuned_bits[list(IDS)])
    config = json.loads((case.adapter / CONFIG).read_text())
    assert config["peft_type"] == "TRAINABLE_TOKENS"
    assert config["token_indices"] == list(IDS)
    assert config["target_modules"] == ["model.embed_tokens"]
    assert sorted(path.name for path in case.adapter.iterdir()) == [CONFIG, WEIGHTS]


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_round_trip(tmp_path: Path, dtype: str) -> None:
    case = Case(tmp_path, dtype)
    case.export()
    imported = case.read()
    assert imported.rows.ids.tolist() == list(IDS)
    assert imported.rows.served.tobytes() == case.tuned_bits[list(IDS)].tobytes()
    assert imported.fingerprint
    assert imported.inert == ()


def test_export_is_whole_or_not_at_all(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    from certify.ticket.adapters import rows as adapters

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(adapters, "write_bytes", full)
    with pytest.raises(CertifyError) as error:
        case.export()
    assert error.value.code == "FILE_UNWRITABLE"
    assert not case.adapter.exists()
    assert not list(case.folder.glob(".adapter*"))


def test_a_full_disk_is_told_of_the_folder_that_was_asked_for(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    case.export()
    parts = open_parts(open_source(case.spec), case.base)
    monkeypatch.setattr("certify.base.jsonio.os.fsync", full)
    for out, work in (
        (case.folder / "again", lambda: export_peft(parts, case.folder / "again")),
        (case.folder / "rows", lambda: import_folder(case.adapter, case.base, case.folder / "rows")),
    ):
        with pytest.raises(CertifyError) as error:
            work()
        assert error.value.code == "FILE_UNWRITABLE"
        assert str(error.value) == f"cannot make {out}: No space left on device; nothing was written"


def test_indices_in_any_order(case: Case) -> None:
    order = [17, 0, 39, 3]
    write_adapter(case.adapter, order, {ROWS: ("F16", case.tuned_bits[order])})
    imported = case.read()
    assert imported.rows.ids.tolist() == list(IDS)
    assert imported.rows.served.tobytes() == case.tuned_bits[list(IDS)].tobytes()
    assert not imported.fingerprint


def test_fp32_rows_are_kept_and_served_rounded(tmp_path: Path) -> None:
    case = Case(tmp_path, "BF16")
    wide = np.random.default_rng(0).normal(size=(2, 16)).astype("<f4")
    write_adapter(case.adapter, [3, 17], {ROWS: ("F32", wide.view("<u4"))})
    rows = case.read().rows
    assert rows.fp32.tobytes() == wide.tobytes()
    # To nearest even by integer arithmetic on each number.
    words = [int(word) for word in wide.view("<u4").ravel()]
    rounded = [(word + 0x7FFF + ((word >> 16) & 1)) >> 16 for word in words]
    assert rows.served.ravel().tolist() == rounded


def test_rows_that_did_not_move_are_named(case: Case) -> None:
    rows = case.tuned_bits[list(IDS)].copy()
    rows[1] = case.base_bits[3]
    write_adapter(case.adapter, list(IDS), {ROWS: ("F16", rows)})
    assert case.read().inert == (3,)


GOOD = random_bits("F16", 2)[[3, 17]]


def with_value(bits: int) -> Any:
    rows = GOOD.copy()
    rows[1, 5] = bits
    return rows


@pytest.mark.parametrize(
    ("code", "indices", "rows", "config"),
    [
        ("ADAPTER_INDICES", [-1, 3], {ROWS: ("F16", GOOD)}, {}),
        ("ADAPTER_INDICES", [3, 40], {ROWS: ("F16", GOOD)}, {}),
        ("ADAPTER_INDICES", [10**4000, -(10**4000)], {ROWS: ("F16", GOOD)}, {}),
        ("ADAPTER_INDICES", [3, 3], {ROWS: ("F16", GOOD)}, {}),
        ("ADAPTER_MALFORMED", [3, True], {ROWS: ("F16", GOOD)}, {}),
        ("ADAPTER_MALFORMED", [3, 17.0], {ROWS: ("F16", GOOD)}, {}),
        ("ADAPTER_MALFORMED", {"3": 17}, {ROWS: ("F16", GOOD)}, {}),
        ("ADAPTER_MALFORMED", None, {ROWS: ("F16", GOOD)}, {}),
        ("ADAPTER_MALFORMED", [3, 17, 18], {ROWS: ("F16", GOOD)}, {}),
        ("ADAPTER_MALFORMED", [3, 17], {ROWS: ("F16", GOOD.reshape(2, 2, 8))}, {}),
        ("ADAPTER_MALFORMED", [3, 17], {ROWS: ("I16", GOOD)}, {}),
        ("ADAPTER_WIDTH", [3, 17], {ROWS: ("F16", GOOD[:, :8])}, {}),
        ("NON_FINITE", [3, 17], {ROWS: ("F16", with_value(0x7E00))}, {}),
        ("NON_FINITE", [3, 17], {ROWS: ("F16", with_value(0xFC00))}, {}),
        ("ADAPTER_UNSUPPORTED", [3, 17], {ROWS: ("F16", GOOD)}, {"peft_type": "LORA"}),
        ("ADAPTER_UNSUPPORTED", [3, 17], {ROWS: ("F16", GOOD)}, {"peft_type": None}),
        ("ADAPTER_UNSUPPORTED", [3, 17], {ROWS: ("F16", GOOD)}, {"target_modules": ["lm_head"]}),
        ("ADAPTER_UNSUPPORTED", [3, 17], {ROWS: ("F16", GOOD)}, {"target_modules": ["embed_tokens", "q"]}),
        ("ADAPTER_UNSUPPORTED", [3, 17], {ROWS: ("F16", GOOD)}, {"scale": 2}),
        ("ADAPTER_UNSUPPORTED", [3, 17], {ROWS: ("F16", GOOD), WHOLE: ("F16", random_bits("F16", 5))}, {}),
        ("ADAPTER_UNSUPPORTED", [3, 17], {HEAD: ("F16", GOOD)}, {}),
        ("ADAPTER_UNSUPPORTED", [3, 17], {}, {}),
        (
            "ADAPTER_UNSUPPORTED",
            [3, 17],
            {ROWS: ("F16", GOOD), "base_model.model.lm_head.trainable_tokens_delta": ("F16", GOOD)},
            {},
        ),
        (
            "ADAPTER_UNSUPPORTED",
            [3, 17],
            {"base_model.model.lm_head.trainable_tokens_delta": ("F16", GOOD)},
            {},
        ),
        ("NOTHING_MOVES", [], {ROWS: ("F16", GOOD[:0])}, {}),
        ("NOTHING_MOVES", [3, 17], {ROWS: ("F16", random_bits("F16", 1)[[3, 17]])}, {}),
    ],
)
def test_hostile_adapters(
    case: Case, code: str, indices: object, rows: dict[str, tuple[str, Any]], config: dict[str, object]
) -> None:
    write_adapter(case.adapter, indices, rows, **config)
    with pytest.raises(CertifyError) as error:
        case.read()
    assert error.value.code == code
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


def test_values_too_large_for_the_served_dtype(case: Case) -> None:
    wide = np.full((2, 16), 1e6, "<f4")
    write_adapter(case.adapter, [3, 17], {ROWS: ("F32", wide.view("<u4"))})
    with pytest.raises(CertifyError) as error:
        case.read()
    assert error.value.code == "NON_FINITE"


def test_pickled_weights_are_never_opened(case: Case) -> None:
    case.export()
    (case.adapter / WEIGHTS).rename(case.adapter / "adapter_model.bin")
    with pytest.raises(CertifyError) as error:
        case.read()
    assert error.value.code == "PICKLE_REFUSED"


def test_adapter_for_another_base(case: Case) -> None:
    case.export()
    other = case.base_bits.copy()
    other[30, 0] ^= 1
    base = write_checkpoint(case.folder / "other", other, "F16")
    with pytest.raises(CertifyError) as error:
        import_peft(case.adapter, open_table(base))
    assert error.value.code == "WRONG_BASE"


@pytest.mark.parametrize("content", ["", "[]", "{", '{"peft_type": NaN}', "\ufeff{}", "[" * 100_000])
def test_broken_config(case: Case, content: str) -> None:
    case.export()
    (case.adapter / CONFIG).write_text(content)
    with pytest.raises(CertifyError) as error:
        case.read()
    assert error.value.exit_code == 4


@settings(max_examples=examples(200), deadline=None)
@given(data=st.data())
def test_changed_bytes_never_crash(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    case = _shared_case(tmp_path_factory)
    name = data.draw(st.sampled_from([CONFIG, WEIGHTS]))
    content = bytearray((case.adapter / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, min(len(content), 600) - 1))] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.mktemp("mutant")
    for other in (CONFIG, WEIGHTS):
        (folder / other).write_bytes((case.adapter / other).read_bytes())
    (folder / name).write_bytes(content)
    outcome = attempt(folder, case.base)
    if isinstance(outcome, CertifyError):
        assert outcome.exit_code in {2, 4, 5}
        assert "\n" not in str(outcome)
        assert len(str(outcome)) < 600
    else:
        assert outcome.rows.served.shape == (outcome.rows.ids.size, 16)
        assert np.isfinite(outcome.rows.fp32).all()


def attempt(folder: Path, base: Path) -> ImportedAdapter | CertifyError:
    try:
        return import_peft(folder, open_table(base))
    except CertifyError as error:
        return error


_cases: dict[int, Case] = {}


def _shared_case(factory: pytest.TempPathFactory) -> Case:
    if not _cases:
        _cases[0] = Case(factory.mktemp("case"))
        _cases[0].export()
    return _cases[0]


def test_import_makes_a_rows_file_and_a_ticket(case: Case) -> None:
    case.export()
    out = case.folder / "imported"
    import_folder(case.adapter, case.base, out, ticket_id="from-peft")
    assert digests(out).keys() == {
        "rows.safetensors",
        "tickets.json",
        "reference/embed_tokens.safetensors",
        "rows/from-peft.safetensors",
    }
    assert read_rows(out / "rows.safetensors").served.tobytes() == case.tuned_bits[list(IDS)].tobytes()
    source = open_source(str(out / "tickets.json"))
    assert source.ticket.ids == IDS
    table = out / "table.safetensors"
    transfer(open_parts(source, case.base), table)
    expected = expected_transfer(case.base_bits, case.tuned_bits, IDS)
    np.testing.assert_array_equal(read_bits(table), expected)


def test_failed_import_leaves_nothing(case: Case) -> None:
    case.export()
    out = case.folder / "imported"
    with pytest.raises(CertifyError):
        import_folder(case.adapter, case.base, out, ticket_id="not a slug")
    assert not out.exists()
    assert not list(case.folder.glob(".imported*"))


# With the real peft.


def peft_and_llama() -> tuple[Any, Any, Any]:
    torch = pytest.importorskip("torch", reason="needs the extra tune")
    pytest.importorskip("transformers", reason="needs the extra tune")
    peft = pytest.importorskip("peft", reason="needs the extra tune")
    import tiny_llama

    return torch, peft, tiny_llama


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft calls a deprecated name of transformers
@pytest.mark.parametrize(
    ("stored", "loaded", "scaled"),
    [
        ("bfloat16", "bfloat16", False),
        ("bfloat16", "bfloat16", True),
        pytest.param("bfloat16", "float32", False, marks=pytest.mark.slow),
        pytest.param("float16", "float16", False, marks=pytest.mark.slow),
        pytest.param("float32", "float32", False, marks=pytest.mark.slow),
    ],
)
def test_peft_computes_what_the_merged_checkpoint_computes(
    tmp_path: Path, stored: str, loaded: str, scaled: bool
) -> None:
    torch, peft, tiny_llama = peft_and_llama()
    from tiny_gemma import tiny_gemma3
    from transformers import AutoModelForCausalLM

    dtype = getattr(torch, stored)
    model = (
        tiny_gemma3(dtype=dtype, tie_word_embeddings=False) if scaled else tiny_llama.tiny_llama(dtype=dtype)
    )
    model.save_pretrained(tmp_path / "base")
    moved = [0, 3, 57, 72, 90]
    with torch.no_grad():
        model.get_input_embeddings().weight[moved] += 0.5
    model.save_pretrained(tmp_path / "tuned")
    spec = make_ticket(
        tmp_path / "release" / "tickets.json", tmp_path / "base", tmp_path / "tuned", (3, 57, 72)
    )
    parts = open_parts(open_source(spec), tmp_path / "base")
    export_peft(parts, tmp_path / "adapter")
    apply(parts, tmp_path / "merged")

    in_dtype = getattr(torch, loaded)
    base, merged = (
        AutoModelForCausalLM.from_pretrained(tmp_path / name, dtype=in_dtype).eval()
        for name in ("base", "merged")
    )
    ids = tiny_llama.batch_of(0)["input_ids"]
    with torch.no_grad():
        before = base(ids).logits
        adapted = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
        assert torch.equal(adapted(ids).logits, merged(ids).logits)
        assert not torch.equal(adapted(ids).logits, before)
        unloaded = adapted.merge_and_unload()
    assert torch.equal(unloaded.get_input_embeddings().weight, merged.get_input_embeddings().weight)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
@pytest.mark.parametrize("target", [None, ["embed_tokens"]])
def test_adapters_that_peft_saves_are_read(tmp_path: Path, stored: str, target: list[str] | None) -> None:
    torch, peft, tiny_llama = peft_and_llama()
    model = tiny_llama.tiny_llama(dtype=getattr(torch, stored))
    model.save_pretrained(tmp_path / "base")
    adapted = peft.get_peft_model(
        model, peft.TrainableTokensConfig(token_indices=[57, 3, 72], target_modules=target)
    )
    with torch.no_grad():
        (rows,) = (
            parameter for name, parameter in adapted.named_parameters() if "trainable_tokens_delta" in name
        )
        rows += torch.linspace(0, 1, rows.numel()).reshape(rows.shape)
    adapted.save_pretrained(tmp_path / "adapter")
    imported = import_folder(tmp_path / "adapter", tmp_path / "base", tmp_path / "imported")
    assert imported.rows.ids.tolist() == [3, 57, 72]
    served = adapted.merge_and_unload().get_input_embeddings().weight.detach()[[3, 57, 72]]
    integers = torch.int32 if stored == "float32" else torch.int16
    assert imported.rows.served.tobytes() == served.view(integers).numpy().tobytes()


def test_the_name_of_the_tensor_is_pefts_own(case: Case) -> None:
    # Guards the constant in this file: eight bytes of length, then a header that names exactly one tensor.
    case.export()
    data = (case.adapter / WEIGHTS).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    assert set(json.loads(data[8 : 8 + length])) == {"__metadata__", ROWS}
