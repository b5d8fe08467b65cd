"""The released rows of a ticket: a safetensors file with absolute rows, in fp32 and in the served dtype.

Tensors: ``ids`` I64 ``[k]``, ``rows.fp32`` F32 ``[k, d]``, ``rows.served`` ``[k, d]`` in the served dtype.
The rows are absolute, not differences, because bf16(base + shift) differs from bf16(base) + bf16(shift), and
the digest must be of the rows that are served.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from certify.base.errors import InvalidInputError
from certify.base.jsonio import sha256_file, tensor_digest
from certify.base.records import Dtype
from certify.tables.dtypes import DTYPES, cast, finite_mask, to_float32
from certify.tables.safefile import TensorInfo, open_tensor, read_header, write_tensors
from certify.tables.table import Table

IDS, FP32, SERVED = "ids", "rows.fp32", "rows.served"


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


def make_rows(ids: NDArray[np.int64], fp32: NDArray[np.float32], dtype: Dtype) -> Rows:
    """Make rows whose served copy is ``fp32`` rounded to nearest even in ``dtype``.

    Raises:
        InvalidInputError: ids are not strictly increasing, shapes are wrong, or values are not finite in
            ``dtype``.
    """
    rows = Rows(np.asarray(ids, np.int64), np.asarray(fp32, np.float32), cast(fp32, "F32", dtype), dtype)
    _check(rows, "rows")
    return rows


def transferred_rows(ids: Sequence[int], reference: Table) -> Rows:
    """Copy the reference's rows ``ids`` as released rows in its served dtype.

    The fp32 copy comes from the stored table, so it keeps the precision of tuning.
    """
    stored = reference.as_dtype(reference.stored_dtype)
    wide = to_float32(stored.take(ids), stored.dtype)
    return make_rows(np.asarray(ids, np.int64), wide, reference.dtype)


def rows_digests(path: Path, rows: Rows) -> RowsDigests:
    """Compute the digests of ``rows`` as stored at ``path``."""
    return RowsDigests(sha256_file(path), _digest("F32", rows.fp32), _digest(rows.dtype, rows.served))


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
    return rows_digests(path, rows)


def read_rows(path: Path) -> Rows:
    """Read and verify a rows file from an untrusted source.

    Raises:
        UsageError: the file cannot be read.
        InvalidInputError: it is not a rows file, ids are not strictly increasing, shapes disagree, values
            are not finite, or the served copy differs from the fp32 rows rounded to the served dtype.
    """
    header = read_header(path)
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
    # Copies, so that the result does not change with the file; a rows file is small.
    rows = Rows(
        np.array(open_tensor(path, IDS), dtype=np.int64),
        np.array(open_tensor(path, FP32), dtype=np.float32),
        np.array(open_tensor(path, SERVED)),
        served_dtype,
    )
    _check(rows, str(path))
    return rows


def _served_dtype(info: TensorInfo, path: Path) -> Dtype:
    for name in DTYPES:
        if info.dtype == name:
            return name
    raise InvalidInputError(
        f"{path}: {SERVED} has dtype {info.dtype}, not one of F32, F16, BF16", code="ROWS_MALFORMED"
    )


def _digest(dtype: str, array: NDArray[np.generic]) -> str:
    return tensor_digest(dtype, array.shape, [np.ascontiguousarray(array).tobytes()])


def _check(rows: Rows, what: str) -> None:
    ids, fp32 = rows.ids, rows.fp32
    if ids.ndim != 1 or fp32.ndim != 2 or fp32.shape[0] != ids.size or rows.served.shape != fp32.shape:
        raise InvalidInputError(f"{what}: ids must be [k] and rows [k, d]", code="ROWS_MALFORMED")
    if ids.size and (int(ids[0]) < 0 or bool(np.any(ids[1:] <= ids[:-1]))):
        raise InvalidInputError(
            f"{what}: ids must be non-negative and strictly increasing", code="ROWS_MALFORMED"
        )
    if not bool(finite_mask(fp32, "F32").all() and finite_mask(rows.served, rows.dtype).all()):
        bad = ids[~(finite_mask(fp32, "F32") & finite_mask(rows.served, rows.dtype)).all(axis=1)]
        raise InvalidInputError(f"{what}: values of row {int(bad[0])} are not finite", code="NON_FINITE")
    rounded = cast(fp32, "F32", rows.dtype)
    if rounded.tobytes() != np.ascontiguousarray(rows.served).tobytes():
        raise InvalidInputError(
            f"{what}: the {rows.dtype} rows are not the fp32 rows rounded to {rows.dtype}",
            code="ROWS_DISAGREE",
        )
