"""Scan engine compiled by numba (extra ``fast``): histogram, prefix sums, refinement where it can matter.

Sorting 2n values is what a textbook implementation spends its time on, and it is not needed:

1. Values fall into a few thousand *buckets*; any monotone map will do. The one used here is a table over the
   upper bits of order-preserving integer keys, fitted to a sample of the two tables so that buckets are
   evenly filled.
2. One pass counts both rows per bucket. Prefix sums give the difference of the CDFs exactly at every end of
   a bucket; the largest is a lower bound M of h.
3. Inside a bucket with ``a`` values of x and ``b`` of y the difference climbs by at most ``a`` and falls by
   at most ``b``. Only buckets that could exceed M are sorted and walked: one or two of thousands, or none.

The map decides speed, never results.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from certify.base.records import Dtype
from certify.scan.columns import LANES, Columns
from certify.tables.dtypes import finite_mask, ordered_keys, storage_bits

_INSERTION = 24  # up to this many values insertion sort is the fastest
_CHUNK = 64  # keys tested together for falling into open buckets


class Buckets(NamedTuple):
    """A monotone map of keys (``certify.tables.dtypes.ordered_keys``) to buckets ``0..size-1``.

    Key k goes to bucket ``of[k >> low_bits]``; bucket b is the ``capacity[b]`` keys ``first[b]..last[b]``.
    """

    of: NDArray[np.uint16]
    first: NDArray[np.uint32]
    last: NDArray[np.uint32]
    capacity: NDArray[np.int32]
    low_bits: int


# Few enough table entries to stay in the innermost cache, many enough to tell values apart.
_LOW_BITS: dict[Dtype, int] = {"F32": 16, "F16": 2, "BF16": 0}


def bytes_per_row(n: int) -> int:
    """Memory that :func:`compare` needs per row of ``n`` entries beyond its arguments, in bytes."""
    del n  # buffers are per call, not per row
    return 64


def fit_buckets(samples: Iterable[NDArray[Any]], dtype: Dtype, n: int) -> Buckets:
    """Fit a map to the values of some rows (storage arrays of any shape; an empty list is accepted).

    Args:
        samples: what the values look like; NaN and infinities are left out.
        dtype: element type of the tables.
        n: entries per row, which sets the number of buckets.
    """
    low_bits = _LOW_BITS[dtype]
    size = 1 << ((32 if dtype == "F32" else 16) - low_bits)
    weight = np.zeros(size)
    for sample in samples:
        keys = ordered_keys(sample, dtype)[finite_mask(sample, dtype)]
        weight += np.bincount(keys >> keys.dtype.type(low_bits), minlength=size)
    # A tenth of the buckets is spread evenly, so that no row is lost in the gaps of the sample.
    weight = 0.9 * weight / max(weight.sum(), 1.0) + 0.1 / size
    target = min(4096, max(64, 1 << (n - 1).bit_length()))
    step = ((np.cumsum(weight) - 0.5 * weight) * target).astype(np.int64)
    starts = np.diff(step, prepend=-1) > 0
    first = np.append(np.flatnonzero(starts), size) << low_bits
    capacity = np.minimum(np.diff(first), np.iinfo(np.int32).max)
    return Buckets(
        (np.cumsum(starts) - 1).astype(np.uint16),
        first[:-1].astype(np.uint32),
        (first[1:] - 1).astype(np.uint32),
        capacity.astype(np.int32),
        low_bits,
    )


def compare(
    x: NDArray[Any], y: NDArray[Any], dtype: Dtype, out: Columns, buckets: Buckets | None = None
) -> None:
    """Compare row i of ``x`` with row i of ``y``; same contract as :func:`certify.scan.engine_numpy.compare`.

    Args:
        x: storage array ``[rows, n]`` of the base table, ``n < 2**15``.
        y: storage array of the same shape and type of the reference table.
        dtype: element type of both.
        out: columns of ``rows`` rows, zero on entry.
        buckets: map to use; by default one is fitted to the first rows.
    """
    if buckets is None:
        buckets = fit_buckets((x[:64], y[:64]), dtype, x.shape[1])
    _compare_rows(_argument(x), _argument(y), _KINDS[dtype], buckets, out)


def _argument(raw: NDArray[Any]) -> NDArray[Any]:
    # numba compiles once per combination of layout and writability; memory maps are read-only, so all are.
    bits = np.ascontiguousarray(storage_bits(raw)).view()
    bits.flags.writeable = False
    return bits


_KINDS: dict[Dtype, int] = {"F32": 0, "F16": 1, "BF16": 2}


class _Work(NamedTuple):
    """Buffers of one call: per bucket, then per value."""

    counts: NDArray[np.uint32]  # of x in the lower half, of y in the upper
    before: NDArray[np.int32]  # difference of the counts below the bucket
    is_open: NDArray[np.uint8]
    opened: NDArray[np.int32]  # the open buckets, in order
    slot: NDArray[np.int32]  # where the next value of an open bucket goes
    x: NDArray[np.uint32]  # keys
    y: NDArray[np.uint32]
    pool: NDArray[np.uint64]  # keys in open buckets, bucket by bucket, with the side in the last bit
    seen: NDArray[np.uint32]  # hash set of keys, at least twice as large as what it holds


def _compare_rows_kernel(x: Any, y: Any, kind: Any, buckets: Any, out: Any) -> None:
    rows, n = x.shape
    size = buckets.capacity.size
    seen_size = 1
    while seen_size < 4 * n:
        seen_size *= 2
    work = _Work(
        np.empty(size, np.uint32),
        np.empty(size, np.int32),
        np.empty(size, np.uint8),
        np.empty(size, np.int32),
        np.empty(size, np.int32),
        np.empty(n, np.uint32),
        np.empty(n, np.uint32),
        np.empty(2 * n, np.uint64),
        np.empty(seen_size, np.uint32),
    )
    x_words, y_words = np.empty(n, np.uint32), np.empty(n, np.uint32)
    x_floats, y_floats = x_words.view(np.float32), y_words.view(np.float32)
    sums = (np.empty(LANES), np.empty(LANES), np.empty(LANES), np.empty(LANES), np.empty(LANES))
    for row in range(rows):
        out.equal[row], out.finite[row] = _look(x[row], y[row], kind)
        if out.equal[row]:
            out.ties[row] = True
        elif out.finite[row]:
            _keys(x[row], kind, work.x)
            _keys(y[row], kind, work.y)
            out.h[row], out.ties[row] = _distance(buckets, work)
            _widen(x[row], kind, x_words, x_floats)
            _widen(y[row], kind, y_words, y_floats)
            _sums(x_floats, y_floats, sums)
            out.squared_shift[row] = sums[0][0]
            out.squared_base[row] = sums[1][0]
            out.squared_reference[row] = sums[2][0]
            out.product[row] = sums[3][0]
            out.max_abs[row] = sums[4][0]


def _look_kernel(x: Any, y: Any, kind: Any) -> Any:
    """Return (bitwise equal, all finite)."""
    exponent = 0x7F800000 if kind == 0 else 0x7C00 if kind == 1 else 0x7F80
    different = 0
    non_finite = False
    for i in range(x.size):
        different |= x[i] ^ y[i]
        non_finite |= (x[i] & exponent) == exponent
    if different != 0:
        for i in range(y.size):
            non_finite |= (y[i] & exponent) == exponent
    return different == 0, not non_finite


def _keys_kernel(bits: Any, kind: Any, keys: Any) -> None:
    """Order-preserving keys of finite patterns, as certify.tables.dtypes.ordered_keys: never 0, -0 as +0."""
    middle = 1 << (31 if kind == 0 else 15)
    for i in range(bits.size):
        word = np.int64(bits[i])
        keys[i] = 2 * middle - word if word >= middle else middle + word


def _distance_kernel(buckets: Any, work: Any) -> Any:
    """Return ``(h, ties)`` of the two rows whose keys are in ``work``."""
    of, low_bits = buckets.of, buckets.low_bits
    size = buckets.capacity.size
    work.counts[:] = 0
    for key in work.x:
        work.counts[of[key >> low_bits]] += np.uint32(1)
    for key in work.y:
        work.counts[of[key >> low_bits]] += np.uint32(1 << 16)
    best = np.int32(0)
    level = np.int32(0)
    ties = False
    for b in range(size):
        work.before[b] = level
        left, right = np.int32(work.counts[b] & 0xFFFF), np.int32(work.counts[b] >> 16)
        level += left - right
        best = max(best, abs(level))
        ties |= left + right > buckets.capacity[b]  # more values than room: some are equal
    for b in range(size):
        left, right = np.int32(work.counts[b] & 0xFFFF), np.int32(work.counts[b] >> 16)
        peak = max(work.before[b] + left, right - work.before[b])
        opens = (buckets.capacity[b] > 1) & (left > 0) & (right > 0) & (peak > best)
        work.is_open[b] = opens
    opened = 0
    for b in range(size):
        if work.is_open[b]:
            work.opened[opened] = b
            opened += 1
    ties = ties or _has_ties(work)
    if opened == 0:
        return best, ties
    slots = np.int32(0)
    for b in work.opened[:opened]:
        work.slot[b] = slots
        slots += np.int32(work.counts[b] & 0xFFFF) + np.int32(work.counts[b] >> 16)
    low = buckets.first[work.opened[0]]
    last = buckets.last[work.opened[opened - 1]]
    _collect(work.x, 0, low, last, buckets, work)
    _collect(work.y, 1, low, last, buckets, work)
    for b in work.opened[:opened]:
        length = np.int32(work.counts[b] & 0xFFFF) + np.int32(work.counts[b] >> 16)
        values = work.pool[work.slot[b] - length : work.slot[b]]
        _sort(values)
        level = work.before[b]
        for i in range(length):
            level += np.int32(1) - np.int32(2) * np.int32(values[i] & np.uint64(1))
            # The CDFs may be compared only where a run of equal values has ended on both sides.
            if i + 1 == length or (values[i] >> np.uint64(1)) != (values[i + 1] >> np.uint64(1)):
                best = max(best, abs(level))
    return best, ties


def _collect_kernel(keys: Any, side: Any, low: Any, last: Any, buckets: Any, work: Any) -> None:
    """Put the keys that lie in open buckets, all of them in ``low..last``, into ``work.pool``."""
    whole = keys.size - keys.size % _CHUNK
    for start in range(0, whole, _CHUNK):
        chunk = keys[start : start + _CHUNK]
        hit = False
        for i in range(_CHUNK):  # a constant trip count vectorises; most chunks hold nothing of interest
            hit |= (chunk[i] >= low) & (chunk[i] <= last)
        if hit:
            _put(chunk, side, buckets, work)
    _put(keys[whole:], side, buckets, work)


def _put_kernel(keys: Any, side: Any, buckets: Any, work: Any) -> None:
    for key in keys:
        b = buckets.of[key >> buckets.low_bits]
        if work.is_open[b]:
            work.pool[work.slot[b]] = (np.uint64(key) << np.uint64(1)) | np.uint64(side)
            work.slot[b] += 1


def _has_ties_kernel(work: Any) -> Any:
    """Whether the pooled values are not all distinct, by open addressing (0 is no key and marks a gap)."""
    seen = work.seen
    seen[:] = 0
    mask = np.uint64(seen.size - 1)
    for keys in (work.x, work.y):
        for key in keys:
            place = ((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)) & mask
            while seen[place] != 0:
                if seen[place] == key:
                    return True
                place = (place + np.uint64(1)) & mask
            seen[place] = key
    return False


def _sort_kernel(values: Any) -> None:
    if values.size > _INSERTION:
        values.sort()
        return
    for i in range(1, values.size):
        value = values[i]
        j = i - 1
        while j >= 0 and values[j] > value:
            values[j + 1] = values[j]
            j -= 1
        values[j + 1] = value


def _widen_kernel(bits: Any, kind: Any, words: Any, floats: Any) -> None:
    """Write the values of ``bits`` to ``floats``, which shares its memory with ``words``."""
    if kind == 0:
        for i in range(bits.size):
            words[i] = bits[i]
    elif kind == 1:
        # Sign, exponent and fraction moved into place leave the exponent 112 too small, subnormals included.
        for i in range(bits.size):
            pattern = np.uint32(bits[i])
            words[i] = ((pattern & np.uint32(0x8000)) << np.uint32(16)) | (
                (pattern & np.uint32(0x7FFF)) << np.uint32(13)
            )
        for i in range(bits.size):
            floats[i] *= np.float32(2.0**112)
    else:
        for i in range(bits.size):
            words[i] = np.uint32(bits[i]) << np.uint32(16)


def _sums_kernel(x: Any, y: Any, sums: Any) -> None:
    """Sums of one row pair, left in lane 0 of ``sums``, in the order of certify.scan.columns.LANES."""
    shift2, base2, reference2, product, largest = sums
    for lanes in sums:
        lanes[:] = 0.0
    n = x.size
    # Whole stretches first: a constant trip count is what the compiler needs to vectorise.
    for start in range(0, n - n % LANES, LANES):
        a, b = x[start : start + LANES], y[start : start + LANES]
        for lane in range(LANES):
            left, right = np.float64(a[lane]), np.float64(b[lane])
            shift = right - left
            shift2[lane] += shift * shift
            base2[lane] += left * left
            reference2[lane] += right * right
            product[lane] += left * right
            largest[lane] = abs(shift) if abs(shift) > largest[lane] else largest[lane]
    for i in range(n - n % LANES, n):
        lane = i % LANES
        left, right = np.float64(x[i]), np.float64(y[i])
        shift = right - left
        shift2[lane] += shift * shift
        base2[lane] += left * left
        reference2[lane] += right * right
        product[lane] += left * right
        largest[lane] = max(largest[lane], abs(shift))
    width = LANES
    while width > 1:
        width //= 2
        for lane in range(width):
            shift2[lane] += shift2[lane + width]
            base2[lane] += base2[lane + width]
            reference2[lane] += reference2[lane + width]
            product[lane] += product[lane + width]
            largest[lane] = max(largest[lane], largest[lane + width])


def _jit(function: Any) -> Any:
    try:
        return numba.njit(function, cache=True, nogil=True)
    except RuntimeError:  # no writable place for the cache (read-only install): compile in every process
        return numba.njit(function, nogil=True)


_look = _jit(_look_kernel)
_keys = _jit(_keys_kernel)
_sort = _jit(_sort_kernel)
_has_ties = _jit(_has_ties_kernel)
_put = _jit(_put_kernel)
_collect = _jit(_collect_kernel)
_distance = _jit(_distance_kernel)
_widen = _jit(_widen_kernel)
_sums = _jit(_sums_kernel)
_compare_rows = _jit(_compare_rows_kernel)
