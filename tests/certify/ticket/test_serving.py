"""Which rows a checkpoint serves: every row that is not as it must be is named, and nothing else is.

What else it serves is judged in ``test_served_model.py``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fake_checkpoint import (
    EMBED,
    PATTERNS,
    Bits,
    expected_transfer,
    make_ticket,
    random_bits,
    tuned_bits,
    write_checkpoint,
    write_file,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from certify.base.errors import CertifyError, ExitCode, InvalidInputError, UsageError
from certify.base.records import Dtype
from certify.tables.dtypes import DTYPES
from certify.tables.rowfile import Rows
from certify.tables.table import Table
from certify.ticket import served_rows
from certify.ticket.released import open_source
from certify.ticket.served_rows import compare
from certify.ticket.serving import ServedReport, verify

IDS = (0, 3, 17, 39)
MOVED = (0, 3, 5, 17, 20, 39)


class Release:
    """A ticket with its base, and checkpoints that serve it well or badly."""

    def __init__(self, folder: Path, dtype: str = "F16", *, tied: bool = False) -> None:
        self.folder, self.dtype = folder, dtype
        self.base_bits = random_bits(dtype, 1)
        self.tuned = tuned_bits(self.base_bits, dtype, MOVED, 2)
        self.base = write_checkpoint(folder / "base", self.base_bits, dtype, tied=tied, head=not tied)
        tuned = write_file(folder / "tuned.safetensors", {EMBED: (dtype, self.tuned)})
        spec = make_ticket(folder / "release" / "tickets.json", self.base, tuned, IDS, allow_tied=tied)
        self.source = open_source(spec)
        self.good = expected_transfer(self.base_bits, self.tuned, IDS)

    def serve(
        self, table: Bits, dtype: str | None = None, *, tied: bool = False, sharded: bool = True
    ) -> Path:
        return write_checkpoint(
            self.folder / "served", table, dtype or self.dtype, sharded=sharded, tied=tied, head=not tied
        )

    def verify(
        self, served: Path, *, allow_extra_rows: bool = False, rows_only: bool = False
    ) -> ServedReport:
        return verify(
            self.source, served, base=self.base, allow_extra_rows=allow_extra_rows, rows_only=rows_only
        )


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return Release(tmp_path)


def findings(report: ServedReport) -> dict[str, tuple[int, ...]]:
    assert report.verified == (not report.findings)
    assert report.exit_code is (ExitCode.REFUTED if report.findings else ExitCode.CERTIFIED)
    assert all("\n" not in finding.message for finding in report.findings)
    return {finding.code: finding.ids for finding in report.findings}


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("sharded", [True, False])
def test_faithful_checkpoint_is_verified(tmp_path: Path, dtype: str, sharded: bool) -> None:
    release = Release(tmp_path, dtype)
    report = release.verify(release.serve(release.good, sharded=sharded))
    assert findings(report) == {}
    assert report.comparison is not None
    assert report.comparison.served == IDS
    assert json.loads(json.dumps(report.to_json()))["status"] == "verified"


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("row", [1, 5, 38])
@pytest.mark.parametrize("byte", [0, -1])
def test_one_flipped_bit_in_another_row_is_named(tmp_path: Path, dtype: str, row: int, byte: int) -> None:
    release = Release(tmp_path, dtype)
    table = release.good.copy()
    table[row].view(np.uint8)[byte] ^= 1 if byte == 0 else 0x80
    report = release.verify(release.serve(table))
    assert findings(report) == {"FOREIGN": (row,)}
    assert json.loads(json.dumps(report.to_json()))["status"] == "refuted"


def test_negative_zero_is_not_zero(tmp_path: Path) -> None:
    release = Release(tmp_path)
    release.base_bits[7, 0] = 0
    release.good[7, 0] = 0x8000
    tuned = release.base_bits.copy()
    tuned[list(IDS)] = release.tuned[list(IDS)]
    base = write_file(tmp_path / "zero.safetensors", {EMBED: ("F16", release.base_bits)})
    reference = write_file(tmp_path / "zero-tuned.safetensors", {EMBED: ("F16", tuned)})
    source = open_source(make_ticket(tmp_path / "zero.json", base, reference, IDS))
    report = verify(source, release.serve(release.good), base=base, rows_only=True)
    assert findings(report) == {"FOREIGN": (7,)}


def test_not_a_number_is_named(release: Release) -> None:
    table = release.good.copy()
    table[7] = 0x7E00
    table[17] = 0x7E00
    assert findings(release.verify(release.serve(table))) == {"ALTERED": (17,), "FOREIGN": (7,)}


def test_base_checkpoint_does_not_act(release: Release) -> None:
    report = release.verify(release.base)
    assert findings(report) == {"NOT_SERVED": IDS}
    assert "no row of the ticket has an effect" in report.findings[0].message


def test_inverted_transfer(release: Release) -> None:
    others = [i for i in range(len(release.good)) if i not in IDS]
    inverted = expected_transfer(release.base_bits, release.tuned, others)
    report = release.verify(release.serve(inverted))
    assert findings(report) == {"NOT_SERVED": IDS, "FOREIGN": (5, 20)}
    assert "inverted" in report.findings[0].message


def test_whole_reference_served_instead_of_the_ticket(release: Release) -> None:
    assert findings(release.verify(release.serve(release.tuned))) == {"FOREIGN": (5, 20)}


def test_two_ticket_rows_exchanged(release: Release) -> None:
    table = release.good.copy()
    table[[3, 17]] = table[[17, 3]]
    assert findings(release.verify(release.serve(table))) == {"ALTERED": (3, 17)}


def test_resized_vocabulary(release: Release) -> None:
    served = release.serve(np.concatenate([release.good, random_bits("F16", 7, rows=3)]))
    report = release.verify(served, rows_only=True)
    assert findings(report) == {"EXTRA_ROWS": (40, 41, 42)}
    assert "--allow-extra-rows" in report.findings[0].message
    report = release.verify(served, allow_extra_rows=True, rows_only=True)
    assert findings(report) == {}
    assert any("40..42" in note for note in report.notes)


def test_extra_rows_do_not_hide_a_changed_row(release: Release) -> None:
    table = np.concatenate([release.good, random_bits("F16", 7, rows=3)])
    table[1, 1] ^= 1
    assert findings(release.verify(release.serve(table), allow_extra_rows=True, rows_only=True)) == {
        "FOREIGN": (1,)
    }


def test_shorter_table(release: Release) -> None:
    report = release.verify(release.serve(release.good[:30]), allow_extra_rows=True, rows_only=True)
    assert findings(report) == {"MISSING_ROWS": ()}


def test_other_width(release: Release) -> None:
    report = release.verify(release.serve(random_bits("F16", 3, width=8)), rows_only=True)
    assert findings(report) == {"WIDTH": ()}
    assert report.comparison is None


def test_other_dtype_of_the_same_size(release: Release) -> None:
    # The very same bytes, read as another type: nothing but the declared dtype tells.
    report = release.verify(release.serve(release.good, "BF16"), rows_only=True)
    assert findings(report) == {"DTYPE": ()}


def test_tied_head(release: Release) -> None:
    report = release.verify(release.serve(release.good, tied=True), rows_only=True)
    assert set(findings(report)) == {"TIED"}


def test_tied_ticket(tmp_path: Path) -> None:
    release = Release(tmp_path, tied=True)
    assert findings(release.verify(release.serve(release.good, tied=True))) == {}
    other = write_checkpoint(tmp_path / "untied", release.good, "F16")
    assert set(findings(release.verify(other, rows_only=True))) == {"TIED"}


def test_adapter_beside_the_rows(release: Release) -> None:
    served = release.serve(release.good)
    (served / "adapter_config.json").write_text("{}")
    assert set(findings(release.verify(served))) == {"ADAPTER_IN_FOLDER"}


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _lie(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"shape": [40, 16]', b'"shape": [16, 40]', 1)[:-2])


@pytest.mark.parametrize("damage", [_truncate, _lie])
def test_unreadable_checkpoint_is_an_error_never_a_verdict(
    release: Release, damage: Callable[[Path], None]
) -> None:
    served = release.serve(release.good)
    damage(served / "model-00002-of-00003.safetensors")
    with pytest.raises(InvalidInputError):
        release.verify(served)


def test_pickled_checkpoint(release: Release, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "config.json").write_text("{}")
    (tmp_path / "p" / "pytorch_model.bin").write_bytes(b"\x80\x02")
    with pytest.raises(InvalidInputError) as error:
        release.verify(tmp_path / "p")
    assert error.value.code == "PICKLE_REFUSED"


def test_wrong_base(release: Release) -> None:
    with pytest.raises(InvalidInputError) as error:
        verify(release.source, release.base, base=release.serve(release.good))
    assert error.value.code == "WRONG_BASE"


def test_base_needed(release: Release) -> None:
    with pytest.raises(UsageError) as error:
        verify(release.source, release.base)
    assert error.value.code == "BASE_NEEDED"


def test_bundled_base(tmp_path: Path) -> None:
    release = Release(tmp_path)
    tuned = tmp_path / "tuned.safetensors"
    source = open_source(make_ticket(tmp_path / "b" / "t.json", release.base, tuned, IDS, bundle=True))
    served = release.serve(release.good)
    assert verify(source, served, rows_only=True).verified
    with pytest.raises(UsageError) as error:
        verify(source, served)
    assert error.value.code == "MODEL_NEEDED"
    assert verify(source, served, base=release.base).verified


def test_missing_checkpoint(release: Release) -> None:
    with pytest.raises(CertifyError) as error:
        release.verify(release.folder / "nowhere")
    assert error.value.exit_code is ExitCode.USAGE


# The comparison alone, on arrays, against a judgement row by row in plain Python.


def in_memory(bits: Bits, dtype: Dtype) -> Table:
    stored: NDArray[np.generic] = bits.view(DTYPES[dtype])
    return Table(Path("memory"), "t", dtype, dtype, stored.shape, None, (Path("memory"),), stored)


@settings(deadline=None)
@given(data=st.data(), dtype=st.sampled_from(["F32", "F16", "BF16"]), block=st.sampled_from([1, 24, 8 << 20]))
def test_every_row_gets_its_one_name(data: st.DataObject, dtype: Dtype, block: int) -> None:
    rows, width = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 3))
    cells = st.lists(st.integers(0, 3), min_size=width, max_size=width)
    table = st.lists(cells, min_size=rows, max_size=rows)
    base, found = (np.array(data.draw(table), PATTERNS[dtype]) for _ in range(2))
    ids = sorted(data.draw(st.sets(st.integers(0, rows - 1), min_size=1)))
    certified = np.array(data.draw(st.lists(cells, min_size=len(ids), max_size=len(ids))), PATTERNS[dtype])
    taken = Rows(
        np.array(ids, np.int64),
        np.zeros(certified.shape, np.float32),
        certified.view(DTYPES[dtype]),
        dtype,
    )
    expected: dict[str, list[int]] = {
        name: [] for name in ("served", "not_served", "altered", "foreign", "inert")
    }
    for i in range(rows):
        before, after = base[i].tolist(), found[i].tolist()
        if i not in ids:
            if after != before:
                expected["foreign"].append(i)
            continue
        wanted = certified[ids.index(i)].tolist()
        name = "served" if after == wanted else "not_served" if after == before else "altered"
        expected[name].append(i)
        if wanted == before:
            expected["inert"].append(i)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(served_rows, "BLOCK_BYTES", block)
        result = compare(in_memory(base, dtype), in_memory(found, dtype), taken)
    assert {name: list(getattr(result, name)) for name in expected} == expected
    assert result.rows == rows
    assert result.faithful == (not (expected["not_served"] or expected["altered"] or expected["foreign"]))
