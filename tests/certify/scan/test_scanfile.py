"""A scan written to CSV, npz and Parquet holds the scan: read back by other readers and compared."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from certify.base.errors import UsageError
from certify.base.records import KSResult
from certify.scan.scanfile import check_scan_path, write_scan
from certify.tables.vocabulary import Vocabulary

COLUMNS = ("h", "p", "log10_p", "equal", "permuted", "ties", "shift_norm", "cosine", "max_abs")
PIECES = {0: "▁the", 1: 'say "a, b"', 2: "line\nbreak", 3: "\x1b[31m", 4: "=1+1"}


def result() -> KSResult:
    rng = np.random.default_rng(11)
    v = 6
    flags = rng.random((3, v)) < 0.5
    return KSResult(
        n=32,
        h=rng.integers(0, 33, v).astype(np.int32),
        p=np.array([1.0, 0.1, 1 / 3, 5e-324, 1e-300, 0.049758]),
        log10_p=np.array([0.0, -1.0, -0.4771, -400.5, -300.0, -1.3]),
        method="exact",
        dtype="F16",
        equal=flags[0],
        permuted=flags[1],
        ties=flags[2],
        shift_norm=rng.random(v) * 1e-7,
        cosine=rng.random(v) * 2 - 1,
        max_abs=rng.random(v),
        engine="numpy",
    )


def vocabulary() -> Vocabulary:
    return Vocabulary(Path("tokenizer.json"), 5, MappingProxyType(PIECES), MappingProxyType({}), ())


FACTS = {"method": "exact", "dtype": "F16", "base_sha256": "b" * 64, "reference_sha256": "e" * 64}


def written(path: Path, words: Vocabulary | None) -> Path:
    write_scan(path, result(), words, digests=("b" * 64, "e" * 64))
    return path


@pytest.mark.parametrize("named", [True, False])
def test_csv(tmp_path: Path, named: bool) -> None:
    path = written(tmp_path / "s.csv", vocabulary() if named else None)
    with path.open(encoding="utf-8", newline="") as stream:
        first = stream.readline()
        rows = list(csv.DictReader(stream))
    assert first.startswith("# ")
    for key, value in FACTS.items():
        assert f"{key}:{value}" in first
    expected = result()
    assert [int(row["id"]) for row in rows] == list(range(6))
    assert {row["n"] for row in rows} == {"32"}
    for name in COLUMNS:
        column = getattr(expected, name)
        parse: Any = {"b": lambda text: text == "True", "i": int}.get(column.dtype.kind, float)
        assert [parse(row[name]) for row in rows] == column.tolist(), name
    assert [float(row["D"]) for row in rows] == (expected.h / 32).tolist()
    if named:
        shown = ["▁the", 'say "a, b"', "line\\nbreak", "\\x1b[31m", "'=1+1", ""]
        assert [row["piece"] for row in rows] == shown
    else:
        assert "piece" not in rows[0]


@pytest.mark.parametrize(
    "piece",
    ["=1+1", "+1", "-1", "-2e5", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1", "－1", "\u200f=1", "x\u202e=1"],
)
def test_no_piece_is_a_formula_or_hides(tmp_path: Path, piece: str) -> None:
    words = Vocabulary(Path("t"), 1, MappingProxyType({0: piece}), MappingProxyType({}), ())
    text = written(tmp_path / "s.csv", words).read_text(encoding="utf-8")
    cell = text.splitlines()[2].split(",")[1]
    assert cell[0] == cell[-1] == '"'
    assert cell.isascii() or cell[2:-1] == piece
    assert cell[1] not in "=+-@ ＝－"
    assert cell.isprintable()
    assert len(text.splitlines()) == 2 + 6


def test_negative_numbers_stay_numbers(tmp_path: Path) -> None:
    text = written(tmp_path / "s.csv", vocabulary()).read_text(encoding="utf-8")
    assert "-400.5" in text
    assert "'-400.5" not in text
    assert '"-400.5' not in text


@pytest.mark.parametrize("named", [True, False])
def test_npz(tmp_path: Path, named: bool) -> None:
    path = written(tmp_path / "s.npz", vocabulary() if named else None)
    expected = result()
    with np.load(path, allow_pickle=False) as data:
        assert "allow_pickle" not in data
        for name in COLUMNS:
            assert data[name].dtype == getattr(expected, name).dtype, name
            assert data[name].tolist() == getattr(expected, name).tolist(), name
        assert data["id"].tolist() == list(range(6))
        assert data["n"].tolist() == [32] * 6
        assert data["D"].tolist() == (expected.h / 32).tolist()
        assert {key: str(data[key]) for key in FACTS} == FACTS
        assert ("piece" in data) == named
        if named:
            assert data["piece"].tolist() == [*PIECES.values(), ""]


@pytest.mark.parametrize("named", [True, False])
def test_parquet(tmp_path: Path, named: bool) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    path = written(tmp_path / "s.parquet", vocabulary() if named else None)
    table = parquet.read_table(path)
    expected = result()
    for name in COLUMNS:
        assert table[name].to_pylist() == getattr(expected, name).tolist(), name
    assert table["n"].to_pylist() == [32] * 6
    facts = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    assert {f"certify.{key}": value for key, value in FACTS.items()}.items() <= facts.items()
    assert ("piece" in table.column_names) == named


@pytest.mark.parametrize("name", ["s.txt", "s", "s.csv.gz", ".csv", "s.PICKLE", "s.pkl"])
def test_other_formats_are_refused_before_the_scan(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"must end in \.csv, \.parquet, \.npz"):
        check_scan_path(tmp_path / name)


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UsageError, match="No space left"):
        written(tmp_path / "s.csv", None)
    assert not list(tmp_path.iterdir())


def test_equal_scans_give_equal_csv(tmp_path: Path) -> None:
    assert (
        written(tmp_path / "a.csv", vocabulary()).read_bytes()
        == written(tmp_path / "b.csv", vocabulary()).read_bytes()
    )
    assert json.dumps(sorted(p.name for p in tmp_path.iterdir())) == '["a.csv", "b.csv"]'


def test_a_scan_is_a_data_frame_where_pandas_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    scanned = result()
    frame = scanned.to_frame()
    assert (frame.index.name, frame.index.tolist()) == ("id", [*range(scanned.rows)])
    assert frame["D"].tolist() == [int(h) / scanned.n for h in scanned.h]
    for name in COLUMNS:
        assert frame[name].tolist() == getattr(scanned, name).tolist()
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match="needs pandas") as refused:
        scanned.to_frame()
    assert refused.value.code == "EXTRA_MISSING"
