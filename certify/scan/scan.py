"""The Kolmogorov-Smirnov scan: every row of one table against the same row of another (theory §2).

The shell around the engines: blocks, threads, progress, p-values. The engines
(:mod:`certify.scan.engine_numpy`, :mod:`certify.scan.engine_numba`) compute by different algorithms and agree
bit for bit.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from certify.base.errors import InternalError, UsageError
from certify.base.records import Dtype, Engine, KSResult, Method
from certify.scan import engine_numpy
from certify.scan.columns import Columns
from certify.scan.smirnov import p_values
from certify.tables.dtypes import storage_bits
from certify.tables.table import Reader, Table, check_compatible, check_finite, note_finite

BUDGET = 128 * 1024 * 1024
"""Bytes that all blocks in progress may take together, beyond the memory maps."""

AUTO_BYTES = 30_000_000
"""From this many bytes of moved rows (of one table, per thread) on, ``auto`` chooses numba.

Measured in fresh processes, first call, at width 4096: loading numba and its compiled kernels took as long as
numpy needs for 30 MB of moved rows on one thread, whether F16 or F32. Equal rows cost both engines the same.
"""

_SAMPLED_ROWS = 64
_JUDGED_ROWS, _JUDGED_ENTRIES = 256, 1 << 22
_BLOCK_ENTRIES = 1 << 19  # blocks larger than this gain nothing and make progress coarse

_Compare = Callable[[NDArray[Any], NDArray[Any], Dtype, Columns], None]


def scan(
    base: Table,
    reference: Table,
    *,
    method: Method = "exact",
    engine: Engine = "auto",
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    digests: bool = False,
) -> KSResult:
    """Scan all rows of two tables.

    Rows are compared in the dtype that the tables hand out. Rows that are equal bit for bit cost one
    comparison. Sums behind ``shift_norm`` and ``cosine`` run in float64 over exact float32 values, in an
    order fixed by :data:`certify.scan.columns.LANES`: results depend neither on engine, threads nor block
    size. ``permuted`` means the same multiset of values (-0 = +0) in another order; a row in which only
    signs of zeros changed is neither ``equal`` nor ``permuted``.

    Args:
        base: E⁰, ``[V, d]``.
        reference: E*, of the same shape and dtype.
        method: law of the p-values.
        engine: implementation; ``auto`` takes numba where it is installed and enough rows moved to be worth
            loading it (:data:`AUTO_BYTES`, estimated from a sample of the rows).
        workers: threads, by default one for each processor that this process may use.
        progress: called in the calling thread with (rows done, rows in all), first with (0, V).
        digests: hash both tables and their files in the same pass, where a table does not know its digests.

    Returns:
        Columns over all rows. Memory beyond the maps: :data:`BUDGET` for the blocks, a few bytes per row for
        the columns, and what p-values of one n cost.

    Raises:
        InvalidInputError: shapes or dtypes differ, or an entry is NaN or infinite (``NON_FINITE``).
        UsageError: unknown engine or method, numba asked for and not installed, a row width outside the
            range of the law, or ``workers`` below 1.
    """
    check_compatible(base, reference)
    rows, n = base.shape
    p, log10_p = p_values(n, method)
    threads = _threads(workers)
    name = _choose(engine, _moved_bytes(base, reference) // threads if engine == "auto" else 0)
    compare, extra = _load(name, base, reference)
    height = block_rows(n, extra, threads)
    columns = Columns.zeros(rows)
    readers = [Reader(one) if digests and not one.known else None for one in (base, reference)]
    for block in _blocks(base, reference, compare, columns, height, threads, progress, readers):
        if not block.finite.all():
            check_finite(base)
            check_finite(reference)
            raise InternalError("the scan met a non-finite entry that the tables do not hold", code="ENGINE")
    note_finite(base)
    note_finite(reference)
    return KSResult(
        n=n,
        h=columns.h,
        p=p[columns.h],
        log10_p=log10_p[columns.h],
        method=method,
        dtype=base.dtype,
        equal=columns.equal,
        permuted=(columns.h == 0) & (columns.max_abs > 0),
        ties=columns.ties,
        shift_norm=columns.shift_norm(),
        cosine=columns.cosine(),
        max_abs=columns.max_abs,
        engine=name,
    )


def under(result: KSResult, method: Method) -> KSResult:
    """The same scan with the p-values of another law."""
    p, log10_p = p_values(result.n, method)
    return replace(result, method=method, p=p[result.h], log10_p=log10_p[result.h])


def block_rows(n: int, extra: int, threads: int) -> int:
    """Rows per block, so that all blocks in progress stay within :data:`BUDGET` (one row at least).

    Args:
        n: entries per row.
        extra: bytes per row that the engine needs beyond its arguments.
        threads: number of blocks in work at a time.
    """
    # Two storage rows and, for tables seen through a cast, one float32 row beside each while casting. One
    # block more than there are threads waits for its turn.
    per_row = 2 * (4 + 4) * n + extra
    return max(1, min(BUDGET // ((threads + 1) * per_row), _BLOCK_ENTRIES // n))


def _moved_bytes(base: Table, reference: Table) -> int:
    """About how many bytes of a table are in rows that differ, estimated from evenly spaced rows."""
    rows, n = base.shape
    first, second = (
        storage_bits(one.take(_picks(rows, min(_JUDGED_ROWS, _JUDGED_ENTRIES // n))))
        for one in (base, reference)
    )
    return int((first != second).any(axis=1).mean() * rows * n * first.itemsize)


def _picks(rows: int, count: int) -> list[int]:
    """At most ``count`` evenly spaced ids, the first and the last row among them."""
    picks: list[int] = np.unique(np.linspace(0, rows - 1, max(2, count)).astype(np.int64)).tolist()
    return picks


def _choose(engine: Engine, moved: int) -> Literal["numba", "numpy"]:
    if engine == "numpy":
        return "numpy"
    if engine not in ("auto", "numba"):
        raise UsageError(f"unknown engine {engine!r}: choose auto, numba or numpy", code="ENGINE_UNKNOWN")
    installed = find_spec("numba") is not None
    if engine == "auto":
        return "numba" if installed and moved >= AUTO_BYTES else "numpy"
    if not installed:
        raise UsageError(
            "engine numba needs the extra 'fast': python -m pip install -e '.[fast]'", code="EXTRA_MISSING"
        )
    return "numba"


def _threads(workers: int | None) -> int:
    if workers is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if workers < 1:
        raise UsageError(f"workers must be at least 1, not {workers}", code="WORKERS")
    return workers


def _load(name: Literal["numba", "numpy"], base: Table, reference: Table) -> tuple[_Compare, int]:
    """The comparing function of an engine and the bytes per row that it needs."""
    rows, n = base.shape
    if name == "numpy":
        return engine_numpy.compare, engine_numpy.bytes_per_row(n)
    from certify.scan import engine_numba  # loading numba takes longer than many a scan

    picks = _picks(rows, _SAMPLED_ROWS)
    buckets = engine_numba.fit_buckets((base.take(picks), reference.take(picks)), base.dtype, n)
    return partial(engine_numba.compare, buckets=buckets), engine_numba.bytes_per_row(n)


def _blocks(
    base: Table,
    reference: Table,
    compare: _Compare,
    columns: Columns,
    height: int,
    threads: int,
    progress: Callable[[int, int], None] | None,
    readers: Sequence[Reader | None],
) -> Iterator[Columns]:
    """Fill ``columns`` block by block on ``threads`` threads; yield each block, in order, when it is done.

    Each reader has a thread of its own, because hashing goes in order while comparing does not.
    """
    rows = base.shape[0]
    done = 0
    running: deque[tuple[Columns, list[Future[None]]]] = deque()

    def finished() -> Columns:
        nonlocal done
        part, futures = running.popleft()
        for future in futures:
            future.result()
        done += part.h.size
        if progress is not None:
            progress(done, rows)
        return part

    if progress is not None:
        progress(0, rows)
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(threads))
        lanes = [stack.enter_context(ThreadPoolExecutor(1)) for reader in readers]
        for start in range(0, rows, height):
            stop = min(start + height, rows)
            part, pair = columns.part(start, stop), (base.rows(start, stop), reference.rows(start, stop))
            futures = [pool.submit(compare, *pair, base.dtype, part)]
            for reader, lane, block in zip(readers, lanes, pair, strict=True):
                if reader is not None:
                    futures.append(lane.submit(reader.feed, start, block))
            running.append((part, futures))
            if len(running) > threads:
                yield finished()
        while running:
            yield finished()
