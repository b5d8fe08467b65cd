"""Judges of the scan and the selection; see :mod:`proofs_checks.mutations.judges`."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from certify.base.errors import CertifyError
from certify.base.records import Excluded, KSResult
from certify.scan.columns import Columns
from certify.tables.table import Table
from proofs_checks.coverage.selection import smirnov
from proofs_checks.numbers import laws
from proofs_checks.theory.finite import sample_distance

Fact = tuple[str, bool]
F = Fraction
LEVEL = Fraction(1, 20)


def judge_law(m: Any) -> Iterator[Fact]:
    """The exact law on every path, the tables, and levels that are met exactly."""
    for finding in (
        laws.compare_with_paths(range(1, 6), m.p_exact),
        laws.judge_table(64, m.p_values(64)[0].tolist(), smirnov),
    ):
        yield finding.detail, finding.outcome == "passed"
    for n in (5, 12):
        for h in range(1, n + 1):
            p = smirnov(h, n)
            yield f"p = level at {h} of {n}", m.rejects(h, n, p) and not m.rejects(h, n, p * F(999, 1000))
    found = m.critical_count("0.05", 4096), m.critical_count("0.95", 4096)
    yield "critical counts of the exact law", found == (123, 48)
    found = m.critical_count("0.05", 4096, "asymptotic"), m.critical_count("0.95", 4096, "asymptotic")
    yield "critical counts of the published threshold", found == (123, 56)
    yield "tau", math.isclose(m.threshold("0.05", 4096), math.sqrt(math.log(40) / 4096), rel_tol=1e-14)
    table = m.p_values(64, "asymptotic")[0]
    yield "asymptotic table", math.isclose(table[20], 2 * math.exp(-400 / 64), rel_tol=1e-12)


def textbook(p: Sequence[Fraction], level: Fraction, correction: str) -> list[bool]:
    """The procedures by their definitions, on p-values."""
    m = len(p)
    if correction == "none":
        return [value <= level for value in p]
    if correction == "bonferroni":
        return [value * m <= level for value in p]
    order = sorted(range(m), key=lambda i: p[i])
    if correction == "holm":
        passed = [p[i] * (m - rank) <= level for rank, i in enumerate(order)]
        kept = passed.index(False) if False in passed else m
    else:
        level = level / sum(F(1, i) for i in range(1, m + 1)) if correction == "by" else level
        kept = max((rank + 1 for rank, i in enumerate(order) if p[i] * m <= level * (rank + 1)), default=0)
    # Equal p-values stand or fall together.
    limit = p[order[kept - 1]] if kept else F(-1)
    return [value <= limit for value in p]


def judge_corrections(m: Any) -> Iterator[Fact]:
    """Every correction under both laws on small families of counts, levels met exactly included."""
    random = np.random.Generator(np.random.PCG64(11))
    n = 20
    families = [random.integers(0, n + 1, size=size) for size in (1, 2, 3, 5, 8, 8, 12, 12)]
    families += [random.integers(6, 12, size=size) for size in (4, 6, 6, 9, 9, 12)]
    families += [np.full(3, 9), np.full(4, 10)]
    for h in families:
        p = [smirnov(int(count), n) for count in h]
        size = len(p)
        exact = [value * factor for value in p[:3] for factor in (1, size, F(size, 2)) if value * factor < 1]
        # No p-value of the limit law equals a rational level: floats decide these as they should.
        limit = [F(min(1.0, 2 * math.exp(-(int(count) ** 2) / n))) for count in h]
        # Between the two laws, where equal counts are rejected together: the levels tell which one decides.
        factors = (1, size, sum(F(1, i + 1) for i in range(size)))
        between = [(p[0] + limit[0]) / 2 * factor for factor in factors]
        levels = (LEVEL, F(1, 5), *(level for level in between if level < 1))
        laws_ = {"exact": (p, (*levels, *exact)), "asymptotic": (limit, levels)}
        for method, (values, tried) in laws_.items():
            for level, correction in product(tried, ("none", "bonferroni", "holm", "bh", "by")):
                found = m.rejected(h, n, level, correction, method).tolist()
                what = f"{correction}, {method}, of {h.tolist()} at {level}"
                yield what, found == textbook(values, level, correction)


def judge_engine(m: Any) -> Iterator[Fact]:
    """Counts of rows with ties by the definition of D; rows with NaN or infinity are marked."""
    random = np.random.Generator(np.random.PCG64(12))
    x, y = random.integers(-3, 4, size=(2, 24, 9)).astype(np.float32)
    y[:8] = x[:8, ::-1]
    y[8:12] = np.abs(x[8:12]) + 5
    y[12:16] = x[12:16] - 4
    x[16, 3], y[17, 4], y[18, 0] = np.nan, np.nan, np.inf
    columns = Columns.zeros(len(x))
    m.compare(x, y, "F32", columns)
    yield "rows with NaN or infinity", np.flatnonzero(~columns.finite).tolist() == [16, 17, 18]
    for i in (i for i in range(len(x)) if i not in (16, 17, 18)):
        samples = [[F(float(v)) for v in row] for row in (x[i], y[i])]
        expected = 9 * sample_distance(*samples)
        yield f"h of row {i}", int(columns.h[i]) == expected
        distinct = len(set(samples[0] + samples[1])) == 18
        yield f"ties of row {i}", bool(columns.ties[i]) != distinct


def _table(rows: Any) -> Table:
    path = Path("table")
    return Table(path, "table", "F32", "F32", rows.shape, False, (path,), rows)


def judge_scan(m: Any) -> Iterator[Fact]:
    """Labels of a scan, and that no number comes out of a table with NaN."""
    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    y = x.copy()
    y[1], y[2] = x[1, ::-1], x[2] + 100
    for method in ("exact", "asymptotic"):
        found = m.scan(_table(x), _table(y), method=method, engine="numpy", workers=1)
        yield f"labelled {method}", found.method == method
        yield "counts", found.h.tolist() == [0, 0, 6, 0]
        yield "permuted", found.permuted.tolist() == [False, True, False, False]
        p = float(smirnov(6, 6)) if method == "exact" else 2 * math.exp(-6)
        yield "p-values", math.isclose(found.p[2], p, rel_tol=1e-12) and found.p[0] == 1
    y[3, 3] = np.nan
    for pair in ((x, y), (y, x)):
        try:
            m.scan(_table(pair[0]), _table(pair[1]), engine="numpy", workers=1)
            refused = False
        except CertifyError:
            refused = True
        yield "a table with NaN is refused", refused


def judge_dtypes(m: Any) -> Iterator[Fact]:
    """Rounding to bf16 by hand, order of signed zeros, finite patterns."""
    step = 2.0**-7  # of bf16 above 1
    values = np.array([1, 1 + step / 2, 1 + 3 * step / 2, 1 + 0.6 * step, -(1 + step / 2)], dtype=np.float32)
    rounded = m.to_float32(m.cast(values, "F32", "BF16"), "BF16").tolist()
    yield "to nearest, ties to even", rounded == [1, 1, 1 + 2 * step, 1 + step, -1]
    keys = m.ordered_keys(np.array([-1.0, -0.0, 0.0, 1.0], dtype=np.float32), "F32").astype(np.int64)
    yield "-0 = +0", keys[1] == keys[2] and keys[0] < keys[1] < keys[3]
    finite = m.finite_mask(np.array([0.0, np.inf, -np.inf, np.nan], dtype=np.float32), "F32")
    yield "finite", finite.tolist() == [True, False, False, False]


def judge_selection(m: Any) -> Iterator[Fact]:
    """Seeds, exclusions and labels of a selection from a small scan."""
    n, h = 64, np.array([64, 22, 21, 20, 19, 0, 30, 30], dtype=np.int32)
    p = np.array([float(smirnov(int(count), n)) for count in h])
    moved = h > 0
    columns = {"equal": ~moved, "permuted": ~moved & False, "ties": ~moved & False}
    norms = np.array([1.0, 8, 3, 4, 5, 0, 7, 6])

    def result(method: str) -> Any:
        return KSResult(
            n=n, h=h, p=p, log10_p=np.log10(p), method=method, dtype="F32", **columns,  # type: ignore[arg-type]
            shift_norm=norms, cosine=norms, max_abs=norms, engine="numpy",
        )  # fmt: skip

    exact = result("exact")
    for seed in (0, 0, 1, 2, 3):
        order = sorted(range(8), key=lambda i: hashlib.sha256(f"{seed}:{i}".encode()).digest())
        found = m.select(exact, rule="random:3", seed=seed)
        yield f"seed {seed} is a seed", (found.ids, found.seed) == (tuple(sorted(order[:3])), seed)
    yield "largest shifts", m.select(exact, rule="norm:2").ids == (1, 6)
    without = [Excluded("special", (0, 6, 7))]
    yield (
        "excluded rows are not selected",
        m.select(exact, alpha="0.05", exclude=without).ids
        == (1, 2, 3, 4)[: sum(smirnov(int(c), n) <= LEVEL for c in (22, 21, 20, 19))],
    )
    family = m.select(exact, alpha="0.005", correction="bonferroni", exclude=without)
    expected = tuple(i for i in (1, 2, 3, 4) if smirnov(int(h[i]), n) * 5 <= F(1, 200))
    yield "nor do they count as tests", (family.ids, family.tests) == (expected, 5)
    for method in ("exact", "asymptotic"):
        found = m.select(result(method), alpha="0.95")
        rejected = [
            i for i, c in enumerate(h.tolist())
            if (smirnov(c, n) <= F(19, 20) if method == "exact" else c * c > n * math.log(2 / 0.95))
        ]  # fmt: skip
        yield f"decided by the {method} law", (found.method, found.ids) == (method, tuple(rejected))


def judge_transfer(m: Any) -> Iterator[Fact]:
    """The bytes of a transferred table, over several blocks."""
    base = np.arange(40, dtype=np.float32).reshape(10, 4)
    untouched = base.copy()
    ids = np.array([1, 4, 9])
    served = np.full((3, 4), -1, dtype=np.float32) * np.array([[1], [2], [3]], dtype=np.float32)
    blocks = [(start, base[start : start + 4]) for start in (0, 4, 8)]
    table = SimpleNamespace(blocks=lambda: iter(blocks))
    data = b"".join(
        bytes(block) for block in m.transferred_blocks(table, SimpleNamespace(ids=ids, served=served))
    )
    written = np.frombuffer(data, dtype=np.float32).reshape(10, 4)
    yield "ticket rows", bool((written[ids] == served).all())
    others = [i for i in range(10) if i not in ids]
    yield "other rows", bool((written[others] == untouched[others]).all())
    yield "the base stays as it is", bool((base == untouched).all())


LOTTERY_JUDGES: Mapping[str, tuple[Callable[[Any], Iterator[Fact]], ...]] = {
    "certify.scan.smirnov": (judge_law,),
    "certify.scan.multiplicity": (judge_corrections,),
    "certify.scan.engine_numpy": (judge_engine,),
    "certify.scan.scan": (judge_scan,),
    "certify.tables.dtypes": (judge_dtypes,),
    "certify.selection.rules": (judge_selection,),
    "certify.ticket.transfer": (judge_transfer,),
}
"""Judges of each module."""
