"""Partial transfer: which bytes it writes, what it refuses, and that nothing half-written is left."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_checkpoint import (
    EMBED,
    IDS,
    Release,
    digests,
    expected_transfer,
    make_ticket,
    random_bits,
    read_bits,
    tuned_bits,
    write_checkpoint,
    write_file,
)

from certify.base.errors import CertifyError, InternalError, InvalidInputError, NothingToDoError, UsageError
from certify.tables.rowfile import make_rows, write_rows
from certify.tables.table import open_table
from certify.ticket import transfer as transfer_module
from certify.ticket.released import open_source
from certify.ticket.serving import compare
from certify.ticket.transfer import open_parts, transfer, write_transferred

MOVED = (0, 3, 5, 17, 20, 39)  # embed tuning moves more rows than the ticket has


class Case(Release):
    def __init__(self, folder: Path, dtype: str = "F16", **ticket: bool) -> None:
        super().__init__(folder, dtype, moved=MOVED, ticket=ticket)
        self.out = folder / "out" / "table.safetensors"

    def run(self, *, base: Path | None = None, tuned: Path | None = None) -> transfer_module.TransferReport:
        return transfer(open_parts(open_source(self.spec), base or self.base, tuned), self.out)

    def left(self) -> list[str]:
        return sorted(path.name for path in self.out.parent.iterdir()) if self.out.parent.exists() else []


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def code_of(error: pytest.ExceptionInfo[CertifyError]) -> str:
    assert "\n" not in str(error.value)
    return error.value.code


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_only_ticket_rows_change(tmp_path: Path, dtype: str) -> None:
    case = Case(tmp_path, dtype)
    before = digests(case.base)
    report = case.run(tuned=case.tuned)
    written = read_bits(case.out)
    np.testing.assert_array_equal(written, case.expected)
    assert digests(case.base) == before
    assert report.transferred == IDS
    assert report.untouched == len(case.base_bits) - len(IDS)
    assert report.reference_checked
    header = (
        json.dumps({"dtype": dtype, "shape": list(written.shape)}, separators=(",", ":")).encode() + b"\n"
    )
    assert report.table_sha256 == hashlib.sha256(header + case.expected.tobytes()).hexdigest()
    assert report.file_sha256 == hashlib.sha256(case.out.read_bytes()).hexdigest()
    assert case.left() == ["table.safetensors"]


def test_written_file_is_read_by_the_safetensors_library(case: Case) -> None:
    from safetensors.numpy import load_file

    case.run()
    tensors = load_file(case.out)
    assert list(tensors) == [EMBED]
    np.testing.assert_array_equal(tensors[EMBED].view("<u2"), case.expected)


def test_equal_inputs_give_equal_bytes(case: Case) -> None:
    case.run()
    first = case.out.read_bytes()
    case.run()
    assert case.out.read_bytes() == first


def test_base_is_cast_to_the_served_dtype(tmp_path: Path) -> None:
    base_bits = random_bits("F32", 1)
    tuned = tuned_bits(base_bits, "F32", MOVED, 2)
    base = write_checkpoint(tmp_path / "base", base_bits, "F32")
    reference = write_file(tmp_path / "tuned.safetensors", {EMBED: ("F32", tuned)})
    spec = make_ticket(tmp_path / "tickets.json", base, reference, IDS, dtype="F16")
    out = tmp_path / "out.safetensors"
    transfer(open_parts(open_source(spec), base, reference), out)
    expected = expected_transfer(base_bits, tuned, IDS).view("<f4").astype("<f2").view("<u2")
    np.testing.assert_array_equal(read_bits(out), expected)


def test_npy_base_gets_the_usual_tensor_name(tmp_path: Path) -> None:
    base_bits = random_bits("F32", 1)
    tuned = tuned_bits(base_bits, "F32", MOVED, 2)
    np.save(tmp_path / "base.npy", base_bits.view("<f4"))
    np.save(tmp_path / "tuned.npy", tuned.view("<f4"))
    spec = make_ticket(tmp_path / "r" / "tickets.json", tmp_path / "base.npy", tmp_path / "tuned.npy", IDS)
    out = tmp_path / "out.safetensors"
    transfer(open_parts(open_source(spec), tmp_path / "base.npy"), out)
    np.testing.assert_array_equal(read_bits(out, EMBED), expected_transfer(base_bits, tuned, IDS))


def test_bundled_base_and_reference_are_found(tmp_path: Path) -> None:
    case = Case(tmp_path, bundle=True)
    report = transfer(open_parts(open_source(case.spec), None), case.out)
    np.testing.assert_array_equal(read_bits(case.out), case.expected)
    assert report.reference_checked


def test_changed_bundled_file_is_refused(tmp_path: Path) -> None:
    case = Case(tmp_path, bundle=True)
    config = case.tickets.parent / "base" / "config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(InvalidInputError) as error:
        open_parts(open_source(case.spec), None)
    assert code_of(error) == "FILE_DIGEST"


def test_unbound_file_that_would_decide_is_refused(tmp_path: Path) -> None:
    case = Case(tmp_path, bundle=True)
    content = json.loads(case.tickets.read_text())
    files = content["tickets"][0]["base"]["files"]
    content["tickets"][0]["base"]["files"] = [
        file for file in files if not file["path"].endswith("config.json")
    ]
    case.tickets.write_text(json.dumps(content))
    with pytest.raises(InvalidInputError) as error:
        open_parts(open_source(case.spec), None)
    assert code_of(error) == "FILE_UNBOUND"


def test_base_and_tuned_exchanged(case: Case) -> None:
    with pytest.raises(InvalidInputError) as error:
        case.run(base=case.tuned, tuned=case.tuned)
    assert code_of(error) == "WRONG_BASE"
    with pytest.raises(InvalidInputError) as error:
        case.run(tuned=case.base)
    assert code_of(error) == "WRONG_REFERENCE"
    assert case.left() == []


def test_one_flipped_bit_makes_another_base(case: Case) -> None:
    flipped = case.base_bits.copy()
    flipped[30, 7] ^= 1
    other = write_file(case.folder / "other.safetensors", {EMBED: ("F16", flipped)})
    with pytest.raises(InvalidInputError) as error:
        case.run(base=other)
    assert code_of(error) == "WRONG_BASE"


def invert(case: Case) -> None:
    """Plant the fault that prior code had: rows taken from the base, every digest consistent with them."""
    content = json.loads(case.tickets.read_text())
    ref = content["tickets"][0]["released"]["rows"]
    values = case.base_bits.view("<f2")[list(IDS)].astype("<f4")
    recorded = write_rows(case.tickets.parent / ref["path"], make_rows(np.array(IDS), values, "F16"))
    ref |= {
        "sha256": recorded.sha256,
        "fp32_sha256": recorded.fp32_sha256,
        "served_sha256": recorded.served_sha256,
    }
    case.tickets.write_text(json.dumps(content))


def test_inverted_rows_are_caught_with_the_reference(case: Case) -> None:
    invert(case)
    with pytest.raises(InvalidInputError) as error:
        case.run(tuned=case.tuned)
    assert code_of(error) == "ROWS_NOT_REFERENCE"


def test_inverted_rows_are_caught_without_the_reference(case: Case) -> None:
    invert(case)
    with pytest.raises(NothingToDoError) as error:
        case.run()
    assert code_of(error) == "NOTHING_MOVES"


def test_a_changed_rows_file_is_refused(case: Case) -> None:
    rows = case.tickets.parent / "rows" / "t.safetensors"
    data = bytearray(rows.read_bytes())
    data[-1] ^= 1
    rows.write_bytes(data)
    with pytest.raises(InvalidInputError) as error:
        case.run()
    assert code_of(error) == "FILE_DIGEST"


def test_a_missing_rows_file_is_named(case: Case) -> None:
    (case.tickets.parent / "rows" / "t.safetensors").unlink()
    with pytest.raises(InvalidInputError, match=r"rows/t\.safetensors") as error:
        case.run()
    assert code_of(error) == "FILE_MISSING"


@pytest.mark.parametrize("path", ["../base/config.json", "/etc/hostname", "link/t.safetensors"])
def test_paths_in_a_ticket_stay_inside_its_folder(case: Case, path: str) -> None:
    (case.folder / "elsewhere").mkdir()
    rows = case.tickets.parent / "rows" / "t.safetensors"
    (case.folder / "elsewhere" / "t.safetensors").write_bytes(rows.read_bytes() + b"x")
    (case.tickets.parent / "link").symlink_to(case.folder / "elsewhere")
    content = json.loads(case.tickets.read_text())
    content["tickets"][0]["released"]["rows"]["path"] = path
    case.tickets.write_text(json.dumps(content))
    with pytest.raises(InvalidInputError) as error:
        case.run()
    assert code_of(error) in {"PATH_ESCAPES", "TICKET_MALFORMED"}


def test_rows_of_another_ticket_are_refused(case: Case) -> None:
    make_ticket(case.tickets, case.base, case.tuned, (5, 20), name="u")
    content = json.loads(case.tickets.read_text())
    first, second = content["tickets"]
    first["released"]["rows"] = second["released"]["rows"]
    case.tickets.write_text(json.dumps(content))
    with pytest.raises(InvalidInputError) as error:
        case.run()
    assert code_of(error) == "ROWS_DISAGREE"


def test_ticket_without_rows_takes_them_from_the_reference(case: Case) -> None:
    content = json.loads(case.tickets.read_text())
    content["tickets"][0]["released"]["rows"] = None
    case.tickets.write_text(json.dumps(content))
    with pytest.raises(UsageError) as error:
        case.run()
    assert code_of(error) == "ROWS_NEEDED"
    case.run(tuned=case.tuned)
    np.testing.assert_array_equal(read_bits(case.out), case.expected)


def test_tuned_rows_need_not_be_the_reference(case: Case) -> None:
    content = json.loads(case.tickets.read_text())
    released = content["tickets"][0]["released"]
    values = (case.tuned_bits.view("<f2")[list(IDS)].astype("<f4")) * np.float32(0.5)
    recorded = write_rows(
        case.tickets.parent / released["rows"]["path"], make_rows(np.array(IDS), values, "F16")
    )
    released["object"] = "tuned"
    released["rows"] |= {
        "sha256": recorded.sha256,
        "fp32_sha256": recorded.fp32_sha256,
        "served_sha256": recorded.served_sha256,
    }
    case.tickets.write_text(json.dumps(content))
    report = case.run(tuned=case.tuned)
    assert report.object == "tuned"
    assert not report.reference_checked
    np.testing.assert_array_equal(read_bits(case.out)[list(IDS)], values.astype("<f2").view("<u2"))


@pytest.mark.parametrize("row", [0, 1, 39])
def test_damage_while_writing_is_caught_and_leaves_nothing(
    case: Case, row: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = transfer_module.transferred_blocks

    def damaged(*arguments: object):  # type: ignore[no-untyped-def]
        for block in real(*arguments):  # type: ignore[arg-type]
            data = bytearray(block)
            data[row * 32] ^= 1
            yield data

    monkeypatch.setattr(transfer_module, "transferred_blocks", damaged)
    with pytest.raises(InternalError) as error:
        case.run()
    assert code_of(error) == "WRITE_DAMAGED"
    assert f"rows {row} " in str(error.value)
    assert case.left() == []


def test_full_disk_leaves_the_former_file(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    case.run()
    former = case.out.read_bytes()

    def full(*_: object):  # type: ignore[no-untyped-def]
        yield b"\0" * 8
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(transfer_module, "transferred_blocks", full)
    with pytest.raises(UsageError, match="No space left") as error:
        case.run()
    assert code_of(error) == "FILE_UNWRITABLE"
    assert str(error.value) == f"cannot make {case.out}: No space left on device; nothing was written"
    assert case.left() == ["table.safetensors"]
    assert case.out.read_bytes() == former


def test_a_pipe_is_not_replaced(case: Case) -> None:
    case.out.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(case.out)
    with pytest.raises(UsageError, match="is a pipe, not a file") as error:
        case.run()
    assert (code_of(error), case.out.is_fifo()) == ("FILE_UNWRITABLE", True)


def test_the_base_is_never_written_to(tmp_path: Path) -> None:
    case = Case(tmp_path)
    base = write_file(tmp_path / "bare.safetensors", {EMBED: ("F16", case.base_bits)})
    before = base.read_bytes()
    link = tmp_path / "link.safetensors"
    link.symlink_to(base)
    for out in (base, link):
        with pytest.raises(UsageError) as error:
            transfer(open_parts(open_source(case.spec), base), out)
        assert code_of(error) == "OUT_IS_BASE"
    assert base.read_bytes() == before


def test_name_that_could_not_be_read_back(case: Case) -> None:
    with pytest.raises(UsageError) as error:
        transfer(open_parts(open_source(case.spec), case.base), case.folder / "table.bin")
    assert code_of(error) == "OUT_SUFFIX"


def test_which_ticket_is_meant(case: Case) -> None:
    assert open_source(str(case.tickets)).ticket.id == "t"
    make_ticket(case.tickets, case.base, case.tuned, (5, 20), name="u")
    assert open_source(f"{case.tickets}#u").ticket.ids == (5, 20)
    with pytest.raises(UsageError, match="t, u") as ambiguous:
        open_source(str(case.tickets))
    assert code_of(ambiguous) == "TICKET_AMBIGUOUS"
    with pytest.raises(UsageError) as unknown:
        open_source(f"{case.tickets}#v")
    assert code_of(unknown) == "TICKET_UNKNOWN"
    odd = case.tickets.with_name("a#t.json")
    odd.write_bytes(case.tickets.read_bytes())
    with pytest.raises(UsageError) as ambiguous:
        open_source(str(odd))
    assert code_of(ambiguous) == "TICKET_AMBIGUOUS"


def test_empty_ticket_file(tmp_path: Path) -> None:
    path = tmp_path / "tickets.json"
    path.write_text('{"schema":"certify.tickets","schema_version":1,"created_by":"x","tickets":[]}')
    with pytest.raises(NothingToDoError) as error:
        open_source(str(path))
    assert code_of(error) == "NO_TICKETS"


def test_missing_base_says_which_option(case: Case) -> None:
    with pytest.raises(UsageError, match="--base") as error:
        open_parts(open_source(case.spec), None)
    assert code_of(error) == "BASE_NEEDED"


def test_memory_stays_within_blocks(tmp_path: Path) -> None:
    # 64 MB of table: holding it even once would break the bound, five blocks of 8 MB.
    shape = (8_192, 2_048)
    base_bits = np.full(shape, 0x3E00_0000, "<u4")
    base = open_table(write_file(tmp_path / "base.safetensors", {EMBED: ("F32", base_bits)}))
    del base_bits
    rows = make_rows(np.array([0, 4_096, 8_191]), np.ones((3, 2_048), np.float32), "F32")
    tracemalloc.start()
    try:
        write_transferred(tmp_path / "out.safetensors", base, rows)
        compare(base, open_table(tmp_path / "out.safetensors"), rows)
        assert tracemalloc.get_traced_memory()[1] < 40 * 2**20
    finally:
        tracemalloc.stop()


def test_real_tables(real_tables: Any, tmp_path: Path) -> None:
    base = real_tables.base
    tuned = base.parent / "embed-tuned" / "embed_tokens.safetensors"
    ids = (13, 198, 7_999)
    spec = make_ticket(tmp_path / "tickets.json", base, tuned, ids)
    parts = open_parts(open_source(spec), base, tuned)
    out = tmp_path / "table.safetensors"
    report = transfer(parts, out)
    name = parts.base.tensor
    tables = read_bits(base / "model.safetensors", name), read_bits(tuned, open_table(tuned).tensor)
    np.testing.assert_array_equal(read_bits(out, name), expected_transfer(*tables, ids))
    assert report.untouched == 8_000 - len(ids)
