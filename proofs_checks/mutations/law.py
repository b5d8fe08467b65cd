"""The law of the distance, and corrections for many tests."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import takewhile
from operator import itemgetter
from typing import Any, Final

import numpy as np

from certify.base.enclosure import exceeds_log
from certify.scan import multiplicity, smirnov
from proofs_checks.check import Fact
from proofs_checks.mutations.bug import Judged
from proofs_checks.numbers import laws
from proofs_checks.theory.finite import smirnov as p_value

F = Fraction
LEVEL: Final = F(1, 20)

LAW: Final = Judged("law", "the law of the distance and its critical counts")


@LAW.bug("certify.scan.smirnov:p_exact")
def _one_sided(_: Any, h: int, n: int) -> Fraction:
    """Tables of the one-sided statistic: a distance in both directions has about twice the p-value."""
    return F(math.comb(2 * n, n - h), math.comb(2 * n, n))


@LAW.bug("certify.scan.smirnov:p_exact")
def _first_term(_: Any, h: int, n: int) -> Fraction:
    """The tail bound taken for the law: the exact law alternates, and where h is small it matters."""
    return min(F(1), F(2 * math.comb(2 * n, n - h), math.comb(2 * n, n)))


@LAW.bug("certify.scan.smirnov:p_values")
def _fallback(original: Any, n: int, _: str = "exact") -> Any:
    """``ks_2samp`` of scipy, which falls back to the limit law: a law is what its label says, or an error."""
    return original(n, "asymptotic")


@LAW.bug("certify.scan.smirnov:rejects")
def _one_sample(original: Any, h: int, n: int, level: Fraction, method: str = "exact") -> bool:
    """Critical values of the one-sample test, 1.36 / sqrt(n): two samples of n are worth n / 2."""
    if method == "exact" or not 0 < level < 1:
        return bool(original(h, n, level, method))
    return exceeds_log(F(2 * h * h, n), 2 / level)


@LAW.judge
def judge_law() -> Iterator[Fact]:
    """The exact law on every path, the tables, and levels that are met exactly."""
    yield laws.compare_with_paths(range(1, 6), smirnov.p_exact).fact
    yield laws.judge_table(64, smirnov.p_values(64)[0].tolist(), p_value).fact
    for n in (5, 12):
        for h in range(1, n + 1):
            p = p_value(h, n)
            met, missed = smirnov.rejects(h, n, p), smirnov.rejects(h, n, p * F(999, 1000))
            yield f"p = level at {h} of {n}", met and not missed
    for method, counts in (("exact", (123, 48)), ("asymptotic", (123, 56))):
        found = tuple(smirnov.critical_count(level, 4096, method) for level in ("0.05", "0.95"))  # type: ignore[arg-type]
        yield f"critical counts, {method}", found == counts
    tau = smirnov.threshold("0.05", 4096)
    yield "tau", math.isclose(tau, math.sqrt(math.log(40) / 4096), rel_tol=1e-14)
    table = smirnov.p_values(64, "asymptotic")[0]
    yield "asymptotic table", math.isclose(table[20], 2 * math.exp(-400 / 64), rel_tol=1e-12)


CORRECTIONS: Final = Judged("corrections", "which of many tests are rejected")


@CORRECTIONS.bug("certify.scan.multiplicity:rejected")
def _other_law(original: Any, h: Any, n: int, alpha: Any, kind: str = "none", method: str = "exact") -> Any:
    """Lived through our first set of judges: a corrected test keeps the law that it is labelled with."""
    return original(h, n, alpha, kind, method if kind == "none" else "exact")


@CORRECTIONS.bug("certify.scan.multiplicity:rejected")
def _no_harmonic(original: Any, h: Any, n: int, alpha: Any, correction: str = "none", *law: str) -> Any:
    """Benjamini and Hochberg on dependent tests: without independence the harmonic number is the price."""
    return original(h, n, alpha, "bh" if correction == "by" else correction, *law)


def _ranked(h: Any, n: int, level: Fraction, factor: Any, method: str) -> Iterator[tuple[int, bool]]:
    """Distinct counts from the largest down, and whether each is rejected at ``level * factor(above, m)``."""
    for value in sorted(set(h.tolist()), reverse=True):
        above = int((h > value).sum()), int((h >= value).sum())
        yield value, smirnov.rejects(value, n, level * factor(*above), method)  # type: ignore[arg-type]


@CORRECTIONS.bug("certify.scan.multiplicity:rejected")
def _hochberg(original: Any, h: Any, n: int, alpha: Any, kind: str = "none", method: str = "exact") -> Any:
    """Hochberg's step-up procedure under Holm's name: stepping down stops at the first failure."""
    if kind != "holm":
        return original(h, n, alpha, kind, method)
    level = smirnov.parse_alpha(alpha)
    kept = [v for v, good in _ranked(h, n, level, lambda above, _: F(1, h.size - above), method) if good]
    return h >= min(kept, default=n + 1)


@CORRECTIONS.bug("certify.scan.multiplicity:rejected")
def _step_down(original: Any, h: Any, n: int, alpha: Any, kind: str = "none", method: str = "exact") -> Any:
    """Hand-written BH that stops at the first failure: stepping up looks for the last good p-value."""
    if kind != "bh":
        return original(h, n, alpha, kind, method)
    ranked = _ranked(h, n, smirnov.parse_alpha(alpha), lambda _, to: F(to, h.size), method)
    return h >= min((value for value, _ in takewhile(itemgetter(1), ranked)), default=n + 1)


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


@CORRECTIONS.judge
def judge_corrections() -> Iterator[Fact]:
    """Every correction under both laws on small families of counts, levels met exactly included."""
    random = np.random.Generator(np.random.PCG64(11))
    n = 20
    families = [random.integers(0, n + 1, size=size) for size in (1, 2, 3, 5, 8, 8, 12, 12)]
    families += [random.integers(6, 12, size=size) for size in (4, 6, 6, 9, 9, 12)]
    families += [np.full(3, 9), np.full(4, 10)]
    for h in families:
        p = [p_value(int(count), n) for count in h]
        size = len(p)
        exact = [value * factor for value in p[:3] for factor in (1, size, F(size, 2)) if value * factor < 1]
        # No p-value of the limit law equals a rational level: floats decide these as they should.
        limit = [F(min(1.0, 2 * math.exp(-(int(count) ** 2) / n))) for count in h]
        # Between the two laws, where equal counts are rejected together: the levels tell which one decides.
        factors = (1, size, sum(F(1, i + 1) for i in range(size)))
        between = [(p[0] + limit[0]) / 2 * factor for factor in factors]
        levels = (LEVEL, F(1, 5), *(level for level in between if level < 1))
        for method, values, tried in (("exact", p, (*levels, *exact)), ("asymptotic", limit, levels)):
            for level in tried:
                for correction in ("none", "bonferroni", "holm", "bh", "by"):
                    found = multiplicity.rejected(h, n, level, correction, method).tolist()  # type: ignore[arg-type]
                    what = f"{correction}, {method}, of {h.tolist()} at {level}"
                    yield what, found == textbook(values, level, correction)
