"""The distances of two tables, row by row: element types, and both engines."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, Final
from unittest.mock import patch

import numpy as np

from certify.scan import engine_numpy, scan
from certify.scan.columns import LANES, Columns
from certify.tables import dtypes
from certify.tables.table import open_table
from proofs_checks.check import Fact
from proofs_checks.mutations.bug import Judged
from proofs_checks.mutations.evidence import code_of
from proofs_checks.theory.finite import sample_distance
from proofs_checks.theory.finite import smirnov as p_value

DISTANCES: Final = Judged("distances", "distances of rows, and what a scan says of them")


def _walked(x: Any, y: Any, *, ends: bool, both: bool) -> int:
    """A count h of two rows by a walk along the sorted pool.

    It compares at ``ends`` of runs of equal values only, and takes differences of ``both`` signs.
    """
    pool = np.concatenate([x, y])
    order = np.argsort(pool, kind="stable")
    path = np.cumsum(np.where(order < len(x), 1, -1))
    if ends:
        path[:-1] *= pool[order][1:] != pool[order][:-1]
    return int((np.abs(path) if both else path).max())


@DISTANCES.bug("certify.scan.engine_numpy:compare")
def _ties(original: Any, x: Any, y: Any, dtype: Any, out: Columns) -> None:
    """The merge loop of many textbooks: both CDFs advance past all equal values before they are compared."""
    original(x, y, dtype, out)
    for i in np.flatnonzero(out.finite & ~out.equal):
        out.h[i] = _walked(x[i], y[i], ends=False, both=True)


@DISTANCES.bug("certify.scan.engine_numpy:compare")
def _upward(original: Any, x: Any, y: Any, dtype: Any, out: Columns) -> None:
    """``max(F - G)``, which is the one-sided statistic: a row may move down as well as up."""
    original(x, y, dtype, out)
    for i in np.flatnonzero(out.finite & ~out.equal):
        out.h[i] = _walked(x[i], y[i], ends=True, both=False)


@DISTANCES.bug("certify.scan.engine_numpy:compare")
def _nan_after(original: Any, x: Any, y: Any, dtype: Any, out: Columns) -> None:
    """Checkpoints of diverged runs, scanned after a look at the base: NaN is an error, never a number."""
    original(x, y, dtype, out)
    out.finite[:] = np.isfinite(x).all(axis=1)


@DISTANCES.bug("certify.scan.scan:scan")
def _permuted(original: Any, *tables: Any, **more: Any) -> Any:
    """The published method, equal distributions, so nothing moved (C1): a permuted row is another row."""
    found = original(*tables, **more)
    return replace(found, permuted=np.zeros_like(found.permuted))


def _distances(engine: Any) -> Iterator[Fact]:
    """Counts of rows with ties by the definition of D; rows with NaN or infinity are marked."""
    random = np.random.Generator(np.random.PCG64(12))
    x, y = random.integers(-3, 4, size=(2, 24, 9)).astype(np.float32)
    y[:8] = x[:8, ::-1]
    y[8:12] = np.abs(x[8:12]) + 5
    y[12:16] = x[12:16] - 4
    x[16, 3], y[17, 4], y[18, 0] = np.nan, np.nan, np.inf
    columns = Columns.zeros(len(x))
    engine.compare(x, y, "F32", columns)
    yield "rows with NaN or infinity", np.flatnonzero(~columns.finite).tolist() == [16, 17, 18]
    for i in (i for i in range(len(x)) if i not in (16, 17, 18)):
        samples = x[i].tolist(), y[i].tolist()
        yield f"h of row {i}", int(columns.h[i]) == 9 * sample_distance(*samples)
        yield f"ties of row {i}", bool(columns.ties[i]) == (len(set(samples[0] + samples[1])) < 18)


@DISTANCES.judge
def judge_engine() -> Iterator[Fact]:
    """The engine that needs no extra."""
    yield from _distances(engine_numpy)


@DISTANCES.judge
def judge_scan() -> Iterator[Fact]:
    """Labels of a scan, and that no number comes out of a table with NaN."""
    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    y = x.copy()
    y[1], y[2] = x[1, ::-1], x[2] + 100
    broken = y.copy()
    broken[3, 3] = np.nan
    with TemporaryDirectory() as folder:

        def run(*tables: Any, **more: Any) -> Any:
            paths = [Path(folder, f"{i}.npy") for i in range(2)]
            for path, table in zip(paths, tables, strict=True):
                np.save(path, table)
            return scan.scan(*map(open_table, paths), engine="numpy", workers=1, **more)

        for method in ("exact", "asymptotic"):
            found = run(x, y, method=method)
            yield f"labelled {method}", found.method == method
            yield "counts", found.h.tolist() == [0, 0, 6, 0]
            yield "permuted", found.permuted.tolist() == [False, True, False, False]
            p = float(p_value(6, 6)) if method == "exact" else 2 * math.exp(-6)
            yield "p-values", math.isclose(found.p[2], p, rel_tol=1e-12) and found.p[0] == 1
        for tables in ((x, broken), (broken, x)):
            yield "a table with NaN is refused", code_of(partial(run, *tables)) == "NON_FINITE"


COMPILED: Final = Judged("compiled", "the compiled engine", needs=("numba",))


@COMPILED.bug("certify.scan.engine_numba:_distance_kernel")
def _shut(original: Any, buckets: Any, work: Any) -> Any:
    """Pruning by a bound on differences of one sign: what is skipped must be bounded on both sides."""
    pool = sorted([*((int(k), 0) for k in work.x), *((int(k), 1) for k in work.y)])
    best = level = 0
    for (key, side), (after, _) in zip(pool, [*pool[1:], (-1, 0)], strict=True):
        level += 1 - 2 * side
        if key != after:
            last = after < 0 or buckets.of[key >> buckets.low_bits] != buckets.of[after >> buckets.low_bits]
            best = max(best, abs(level) if last else level)
    return best, original(buckets, work)[1]


@COMPILED.bug("certify.scan.engine_numba:_sums_kernel")
def _rest(original: Any, x: Any, y: Any, sums: Any) -> None:
    """Loops unrolled for the compiler, whose rest is forgotten: rows have any length."""
    whole = x.size - x.size % LANES
    original(x[:whole], y[:whole], sums)


@COMPILED.judge
def judge_compiled() -> Iterator[Fact]:
    """The compiled engine as plain Python, kernel by kernel: facts of the other engine, zeros, long rows."""
    from certify.scan import engine_numba

    with patch.multiple(engine_numba, **_plain(engine_numba)), np.errstate(over="ignore"):  # hashes wrap
        yield from _distances(engine_numba)
        zeros = np.array([[0.0, 0.0, 1.0, -1.0]], dtype=np.float32)
        columns = Columns.zeros(1)
        signs = np.copysign(zeros, [[-1, -1, 1, -1]]).astype(np.float32)
        engine_numba.compare(zeros, signs, "F32", columns)
        yield "-0 = +0", (columns.h.tolist(), columns.equal.tolist()) == ([0], [False])
        random = np.random.Generator(np.random.PCG64(14))
        # Moved up, the largest difference is one that x has over y; moved down, the other way round.
        for rows, n, moved in ((6, 150, 0.5), (32, 40, -0.5)):
            x, y = random.standard_normal((2, rows, n), dtype=np.float32)
            y[rows // 2 if moved > 0 else 0 :] += np.float32(moved)
            columns = Columns.zeros(rows)
            engine_numba.compare(x, y, "F32", columns)
            for i in range(rows):
                h = n * sample_distance(x[i].tolist(), y[i].tolist())
                yield f"h of row {i} of {n} entries", int(columns.h[i]) == h
                shift = np.asarray(y[i], dtype=np.float64) - x[i]
                close = np.isclose(columns.squared_shift[i], shift @ shift, rtol=1e-12)
                yield f"norm of row {i} of {n} entries", bool(close)
                yield f"no ties in row {i} of {n} entries", not columns.ties[i]


def _plain(engine: ModuleType) -> dict[str, Any]:
    ending = "_kernel"
    return {name.removesuffix(ending): one for name, one in vars(engine).items() if name.endswith(ending)}


DTYPES: Final = Judged("dtypes", "element types")


@DTYPES.bug("certify.tables.dtypes:cast")
def _truncated(original: Any, raw: Any, source: str, target: str) -> Any:
    """TensorFlow's first bfloat16, which dropped the lower half: a served row is rounded to nearest."""
    if (source, target) != ("F32", "BF16"):
        return original(raw, source, target)
    return (raw.view("<u4") >> np.uint32(16)).astype("<u2")


@DTYPES.bug("certify.tables.dtypes:ordered_keys")
def _signed_zero(original: Any, raw: Any, dtype: Any) -> Any:
    """Sorting floats by their bit patterns: -0 and +0 are one value."""
    keys = original(raw, dtype)
    values = dtypes.to_float32(raw, dtype)
    return keys - ((values == 0) & np.signbit(values)).astype(keys.dtype)


@DTYPES.bug("certify.tables.dtypes:finite_mask")
def _not_nan(_: Any, raw: Any, dtype: Any) -> Any:
    """isnan where isfinite is meant: infinity is no entry either, its shift is NaN."""
    return ~np.isnan(dtypes.to_float32(raw, dtype))


@DTYPES.judge
def judge_dtypes() -> Iterator[Fact]:
    """Rounding to bf16 by hand, order of signed zeros, finite patterns."""
    step = 2.0**-7  # of bf16 above 1
    values = np.array([1, 1 + step / 2, 1 + 3 * step / 2, 1 + 0.6 * step, -(1 + step / 2)], dtype=np.float32)
    rounded = dtypes.to_float32(dtypes.cast(values, "F32", "BF16"), "BF16").tolist()
    yield "to nearest, ties to even", rounded == [1, 1, 1 + 2 * step, 1 + step, -1]
    signed = np.array([-1.0, -0.0, 0.0, 1.0], dtype=np.float32)
    keys = dtypes.ordered_keys(signed, "F32").astype(np.int64)
    yield "-0 = +0", bool(keys[1] == keys[2] and keys[0] < keys[1] < keys[3])
    finite = dtypes.finite_mask(np.array([0.0, np.inf, -np.inf, np.nan], dtype=np.float32), "F32")
    yield "finite", finite.tolist() == [True, False, False, False]
