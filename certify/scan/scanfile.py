"""A scan as a file: CSV to read, Parquet for data frames, npz for numpy. One line per row of the table."""

from __future__ import annotations

import csv
import io
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np

from certify.base.errors import UsageError
from certify.base.files import check_output
from certify.base.jsonio import atomic_writer
from certify.base.records import KSResult
from certify.base.text import escape
from certify.tables.vocabulary import Vocabulary

_FORMULA = tuple("=+-@\t\r")
SUFFIXES = (".csv", ".parquet", ".npz")


def check_scan_path(path: Path) -> None:
    """Refuse a path whose suffix names no format, before a long scan runs.

    Raises:
        UsageError: the suffix is none of ``.csv``, ``.parquet``, ``.npz``, or pyarrow is missing.
    """
    if path.suffix not in SUFFIXES:
        raise UsageError(f"--out must end in {', '.join(SUFFIXES)}, not {path.name!r}", code="SCAN_FORMAT")
    if path.suffix == ".parquet":
        try:
            import pyarrow  # noqa: F401  (presence is the question)
        except ImportError as error:
            raise UsageError(
                "Parquet needs pyarrow: python -m pip install -e '.[parquet]', or choose .csv or .npz",
                code="EXTRA_MISSING",
            ) from error


def write_scan(
    path: Path, result: KSResult, vocabulary: Vocabulary | None, *, digests: tuple[str, str]
) -> None:
    """Write every row of a scan atomically.

    Columns: id, piece (if a tokenizer is known), h, n, D = h/n, p, log10_p, equal, permuted, ties,
    shift_norm, cosine, max_abs. Parquet and npz also carry method, dtype and the tensor digests of the two
    tables; CSV carries them in its first line, after ``#``. In CSV, pieces are quoted and escaped
    (:func:`certify.base.text.escape`), and one that a spreadsheet would take for a formula begins with an
    apostrophe.

    Args:
        path: ends in ``.csv``, ``.parquet`` or ``.npz``.
        result: the scan.
        vocabulary: names the pieces, or None.
        digests: tensor digests of base and reference.

    Raises:
        UsageError: see :func:`check_scan_path`, or the file cannot be written.
    """
    check_scan_path(path)
    columns = _columns(result, vocabulary)
    facts = {
        "method": result.method,
        "dtype": result.dtype,
        "base_sha256": digests[0],
        "reference_sha256": digests[1],
    }
    if path.suffix == ".csv":
        data = _csv(columns, facts)
    elif path.suffix == ".npz":
        data = _npz(columns, facts)
    else:
        data = _parquet(columns, facts)
    check_output(path)
    with atomic_writer(path) as stream:
        stream.write(data)


def _columns(result: KSResult, vocabulary: Vocabulary | None) -> dict[str, Any]:
    columns: dict[str, Any] = result.columns()
    if vocabulary is None:
        return columns
    pieces = [vocabulary.piece(i) or "" for i in range(result.rows)]
    return {"id": columns["id"], "piece": pieces} | columns


def _csv(columns: dict[str, Any], facts: dict[str, str]) -> bytes:
    buffer = io.StringIO(newline="")
    buffer.write("# " + "|".join(f"{key}:{value}" for key, value in facts.items()) + "\n")
    csv.writer(buffer, lineterminator="\n").writerow(columns)
    writer = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    lists = [
        column.tolist() if isinstance(column, np.ndarray) else [cell(text) for text in column]
        for column in columns.values()
    ]
    writer.writerows(zip(*lists, strict=True))
    return buffer.getvalue().encode("utf-8", errors="backslashreplace")


def cell(text: str) -> str:
    """A piece as a cell that no spreadsheet takes for a formula, without characters that do not show.

    What would begin a formula, also in full width or after spaces, gets an apostrophe.
    """
    shown = escape(text)
    start = unicodedata.normalize("NFKC", shown).strip()[:1]
    return f"'{shown}" if start in _FORMULA or text[:1] in _FORMULA else shown


def _npz(columns: dict[str, Any], facts: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {key: np.asarray(value) for key, value in (columns | facts).items()}
    # Nothing here is an object; and NumPy before 2.0 would store an option allow_pickle as an array.
    save: Any = np.savez_compressed
    save(buffer, **arrays)
    return buffer.getvalue()


def _parquet(columns: dict[str, Any], facts: dict[str, str]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    table = pa.table(columns).replace_schema_metadata(
        {f"certify.{key}": value for key, value in facts.items()}
    )
    pq.write_table(table, buffer)
    return buffer.getvalue()
