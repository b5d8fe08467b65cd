"""The released rows of a ticket: a safetensors file with absolute rows, in fp32 and in the served dtype.

Tensors: ``ids`` I64 ``[k]``, ``rows.fp32`` F32 ``[k, d]``, ``rows.served`` ``[k, d]`` in the served dtype.
The rows are absolute, not differences, because bf16(base + shift) differs from bf16(base) + bf16(shift), and
the digest must be of the rows that are served.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from certify.base.errors import InvalidInputError
from certify.base.jsonio import sha256_bytes, tensor_digest
from certify.base.records import Dtype
from certify.tables.dtypes import DTYPES, cast, finite_mask, storage_bits, to_float32
from certify.tables.safefile import MappedFile, TensorInfo, map_file, write_tensors
from certify.tables.table import Table

IDS, FP32, SERVED = "ids", "rows.fp32", "rows.served"

_BLOCK_BYTES = 8 * 1024 * 1024
_KEPT_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a ticket.

    Attributes:
        ids: token ids ``[k]``, strictly increasing.
        fp32: absolute rows ``[k, d]`` in fp32.
        served: the same rows ``[k, d]`` rounded to ``dtype`` (storage array, see
            :mod:`certify.tables.dtypes`).
        dtype: the served dtype.
    """

    ids: NDArray[np.int64]
    fp32: NDArray[np.float32]
    served: NDArray[np.generic]
    dtype: Dtype


@dataclass(frozen=True, slots=True)
class RowsDigests:
    """Digests that bind a rows file: of the file, and of its two row tensors."""

    sha256: str
    fp32_sha256: str
    served_sha256: str


def make_rows(ids: NDArray[np.int64], fp32: NDArray[np.float32], dtype: Dtype, *, what: str = "rows") -> Rows:
    """Make rows whose served copy is ``fp32`` rounded to nearest even in ``dtype``.

    Messages begin with ``what``.

    Raises:
        InvalidInputError: ids are not strictly increasing, shapes are wrong, or values are not finite in
            ``dtype``.
    """
    rows = Rows(np.asarray(ids, np.int64), np.asarray(fp32, np.float32), cast(fp32, "F32", dtype), dtype)
    _check(rows, what)
    return rows


def transferred_rows(ids: Sequence[int], reference: Table) -> Rows:
    """Copy the reference's rows ``ids`` as released rows in its served dtype.

    The fp32 copy comes from the stored table, so it keeps the precision of tuning.
    """
    stored = reference.as_dtype(reference.stored_dtype)
    wide = to_float32(stored.take(ids), stored.dtype)
    return make_rows(np.asarray(ids, np.int64), wide, reference.dtype)


def write_rows(path: Path, rows: Rows) -> RowsDigests:
    """Write ``rows`` atomically and return the digests that a ticket records.

    Raises:
        InvalidInputError: see :func:`make_rows`.
        UsageError: the file cannot be written.
    """
    _check(rows, "rows")
    tensors: Mapping[str, tuple[str, NDArray[np.generic]]] = {
        IDS: ("I64", rows.ids),
        FP32: ("F32", rows.fp32),
        SERVED: (rows.dtype, rows.served),
    }
    write_tensors(path, tensors, None)
    return _digests(map_file(path))


def read_rows(path: Path) -> Rows:
    """Read and verify a rows file from an untrusted source; see :func:`open_rows_file`."""
    return open_rows_file(path)[0]


def open_rows_file(path: Path) -> tuple[Rows, RowsDigests]:
    """Open a rows file from an untrusted source, once, for its verified rows and its digests.

    Raises:
        UsageError: the file cannot be read.
        InvalidInputError: it is not a rows file, ids are not strictly increasing, shapes disagree, values
            are not finite, or the served copy differs from the fp32 rows rounded to the served dtype.
    """
    file = map_file(path)
    # A result must not change with the file under it. Larger files stay a map, as tables do.
    if file.bytes.size <= _KEPT_BYTES:
        file = replace(file, bytes=np.array(file.bytes))
    header = file.header
    if set(header) != {IDS, FP32, SERVED}:
        raise InvalidInputError(
            f"{path} is not a rows file: expected exactly {IDS}, {FP32} and {SERVED}",
            code="ROWS_MALFORMED",
        )
    served_dtype = _served_dtype(header[SERVED], path)
    if header[IDS].dtype != "I64" or header[FP32].dtype != "F32":
        raise InvalidInputError(f"{path}: {IDS} must be I64 and {FP32} F32", code="ROWS_MALFORMED")
    count = header[IDS].shape
    if len(count) != 1 or len(header[FP32].shape) != 2 or header[FP32].shape[0] != count[0]:
        raise InvalidInputError(f"{path}: {IDS} must be [k] and the rows [k, d]", code="ROWS_MALFORMED")
    if header[SERVED].shape != header[FP32].shape:
        raise InvalidInputError(f"{path}: {SERVED} and {FP32} have different shapes", code="ROWS_MALFORMED")
    rows = Rows(
        np.array(file.tensor(IDS), dtype=np.int64),
        np.require(file.tensor(FP32), requirements="A"),
        np.require(file.tensor(SERVED), requirements="A"),
        served_dtype,
    )
    _check(rows, str(path))
    return rows, _digests(file)


def _served_dtype(info: TensorInfo, path: Path) -> Dtype:
    for name in DTYPES:
        if info.dtype == name:
            return name
    raise InvalidInputError(
        f"{path}: {SERVED} has dtype {info.dtype}, not one of F32, F16, BF16", code="ROWS_MALFORMED"
    )


def _digests(file: MappedFile) -> RowsDigests:
    def of(name: str) -> str:
        info = file.header[name]
        return tensor_digest(info.dtype, info.shape, [file.bytes[info.start : info.stop].data])

    # Hashing is the larger part of opening many rows, and leaves the interpreter's lock alone.
    with ThreadPoolExecutor(2) as pool:
        fp32, served = pool.submit(of, FP32), pool.submit(of, SERVED)
        return RowsDigests(sha256_bytes(file.bytes.data), fp32.result(), served.result())


def _check(rows: Rows, what: str) -> None:
    ids, fp32 = rows.ids, rows.fp32
    if ids.ndim != 1 or fp32.ndim != 2 or fp32.shape[0] != ids.size or rows.served.shape != fp32.shape:
        raise InvalidInputError(f"{what}: ids must be [k] and rows [k, d]", code="ROWS_MALFORMED")
    if ids.size and (int(ids[0]) < 0 or bool(np.any(ids[1:] <= ids[:-1]))):
        raise InvalidInputError(
            f"{what}: ids must be non-negative and strictly increasing", code="ROWS_MALFORMED"
        )
    same = True
    step = max(1, _BLOCK_BYTES // (4 * max(1, fp32.shape[1])))
    for start in range(0, ids.size, step):
        wide, served = fp32[start : start + step], rows.served[start : start + step]
        finite = (finite_mask(wide, "F32") & finite_mask(served, rows.dtype)).all(axis=1)
        if not finite.all():
            bad = int(ids[start + int(np.argmin(finite))])
            raise InvalidInputError(f"{what}: values of row {bad} are not finite", code="NON_FINITE")
        same = same and np.array_equal(storage_bits(cast(wide, "F32", rows.dtype)), storage_bits(served))
    if not same:
        raise InvalidInputError(
            f"{what}: the {rows.dtype} rows are not the fp32 rows rounded to {rows.dtype}",
            code="ROWS_DISAGREE",
        )
