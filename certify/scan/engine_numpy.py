"""Scan engine in plain numpy: pool, radix sort, walk both CDFs (theory §2). Needs no extra."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from certify.base.records import Dtype
from certify.scan.columns import LANES, Columns
from certify.tables.dtypes import finite_mask, ordered_keys, storage_bits, to_float32

# Intermediate arrays of more rows than this many entries leave the cache, and cost page faults.
_CHUNK_ENTRIES = 1 << 17


def bytes_per_row(n: int) -> int:
    """Memory that :func:`compare` needs per row of ``n`` entries beyond its arguments, in bytes."""
    return 120 * n + 1024


def compare(x: NDArray[Any], y: NDArray[Any], dtype: Dtype, out: Columns) -> None:
    """Compare row i of ``x`` with row i of ``y``.

    Args:
        x: storage array ``[rows, n]`` of the base table (see :data:`certify.tables.dtypes.DTYPES`).
        y: storage array of the same shape and type of the reference table.
        dtype: element type of both.
        out: columns of ``rows`` rows, zero on entry. Only ``finite`` is meaningful for rows that hold a
            NaN or an infinity.
    """
    np.all(storage_bits(x) == storage_bits(y), axis=1, out=out.equal)
    np.all(finite_mask(x, dtype), axis=1, out=out.finite)
    out.ties[out.equal] = True  # every value of the row occurs on both sides
    moved = np.flatnonzero(~out.equal)
    step = max(1, _CHUNK_ENTRIES // x.shape[1])
    for start in range(0, moved.size, step):
        _compare_moved(x, y, dtype, out, moved[start : start + step])


def _compare_moved(
    x: NDArray[Any], y: NDArray[Any], dtype: Dtype, out: Columns, rows: NDArray[np.intp]
) -> None:
    x, y = x[rows], y[rows]
    finite = out.finite[rows] & np.all(finite_mask(y, dtype), axis=1)
    out.finite[rows] = finite
    if not finite.all():
        rows, x, y = rows[finite], x[finite], y[finite]
    if rows.size:
        out.h[rows], out.ties[rows] = _distance(ordered_keys(x, dtype), ordered_keys(y, dtype))
        _sums(to_float32(x, dtype), to_float32(y, dtype), rows, out)


def _distance(x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Counts h and ties flags of ``[rows, n]`` ordered keys."""
    n = x.shape[1]
    pooled = np.concatenate((x, y), axis=1)
    order = _radix_order(pooled)
    steps = (order < n).view(np.int8) * np.int8(2) - np.int8(1)  # up at a value of x, down at one of y
    path = np.cumsum(steps, axis=1, dtype=np.int16)
    values = _along_rows(pooled, order)
    # The CDFs may be compared only where a run of equal values has ended on both sides.
    run_ends = values[:, 1:] != values[:, :-1]
    path[:, :-1] *= run_ends
    return np.abs(path, out=path).max(axis=1).astype(np.int64), ~run_ends.all(axis=1)


def _radix_order(keys: NDArray[Any]) -> NDArray[np.intp]:
    """Stable sorting order of each row. numpy sorts 16-bit integers by radix, wider ones by comparison."""
    if keys.dtype.itemsize == 2:
        return np.argsort(keys, axis=1, kind="stable")
    low = keys.astype(np.uint16)  # the cast drops the high digit
    order = np.argsort(low, axis=1, kind="stable")
    high = _along_rows((keys >> np.uint32(16)).astype(np.uint16), order)
    return _along_rows(order, np.argsort(high, axis=1, kind="stable"))


def _along_rows(values: NDArray[Any], order: NDArray[np.intp]) -> NDArray[Any]:
    """``values[i, order[i, j]]``, several times faster than ``np.take_along_axis``."""
    offsets = np.arange(0, values.size, values.shape[1])[:, np.newaxis]
    return values.reshape(-1).take(order + offsets)


def _sums(x: NDArray[np.float32], y: NDArray[np.float32], rows: NDArray[np.intp], out: Columns) -> None:
    """Fill the sums of ``rows`` in the order that :data:`certify.scan.columns.LANES` fixes."""
    lanes = np.zeros((4, rows.size, LANES))
    largest = np.zeros((rows.size, LANES))
    buffers = np.empty((4, rows.size, LANES))
    for start in range(0, x.shape[1], LANES):
        width = min(LANES, x.shape[1] - start)
        left, right, shift, term = buffers[:, :, :width]
        left[:] = x[:, start : start + width]
        right[:] = y[:, start : start + width]
        np.subtract(right, left, out=shift)
        for lane, (a, b) in zip(
            lanes, ((shift, shift), (left, left), (right, right), (left, right)), strict=True
        ):
            lane[:, :width] += np.multiply(a, b, out=term)
        np.maximum(largest[:, :width], np.abs(shift, out=term), out=largest[:, :width])
    width = LANES
    while width > 1:
        width //= 2
        lanes[:, :, :width] += lanes[:, :, width : 2 * width]
    sums = (out.squared_shift, out.squared_base, out.squared_reference, out.product)
    for column, total in zip(sums, lanes[:, :, 0], strict=True):
        column[rows] = total
    out.max_abs[rows] = largest.max(axis=1)
