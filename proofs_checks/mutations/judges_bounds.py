"""Judges of limits, tests and the arithmetic below them; see :mod:`proofs_checks.mutations.judges`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np

from proofs_checks.check import Finding
from proofs_checks.coverage import exact as coverage_exact
from proofs_checks.coverage import plans

Fact = tuple[str, bool]
F = Fraction


def fact(finding: Finding) -> Fact:
    """A finding as a fact."""
    return finding.detail, finding.outcome == "passed"


def judge_bounds(m: Any) -> Iterator[Fact]:
    """Exact coverage of limits and decisions."""
    yield fact(coverage_exact.judge_counts(m, (1, 3, 8)))
    yield fact(coverage_exact.judge_decisions(m, (1, 3, 8)))
    yield (
        "59 clean units",
        m.rate_at_most(0, 59, F(1, 20), F(1, 20)) and not m.rate_at_most(0, 58, F(1, 20), F(1, 20)),
    )


def wealth_by_the_book(
    sample: Sequence[Fraction], m: Fraction, delta: Fraction, design: str
) -> Iterator[Fraction]:
    """Wealth after each unit as :mod:`certify.stats.betting` describes it, in fractions."""

    def plog(x: Fraction) -> Fraction:
        exponent, power = 0, 1
        while x >= 2 * power:
            exponent, power = exponent + 1, 2 * power
        return exponent + x / power - 1

    wealth, seen = F(1), [F(0), F(1)]  # two half units beforehand
    for i, x in enumerate((F(math.floor(x * 2**32), 2**32) for x in sample), 1):
        total = sum(seen[2:], F(1, 2))
        variance = (i * sum((u * u for u in seen[2:]), F(1, 2)) - total**2) / i**2
        if design == "fixed":
            squared = 2 * F(45426, 65536) * plog(1 / delta) / len(sample) / variance
        else:
            squared = 2 * plog(1 / delta) / (i * plog(F(i + 1))) / variance
        bet = F(math.isqrt(math.floor(squared * 2**40)), 2**20)
        wealth *= 1 + min(bet, F(3, 4) / m) * (x - m)
        yield wealth
        seen.append(x)


def judge_betting(m: Any) -> Iterator[Fact]:
    """Wealth by the book, exact coverage of the p-values, and limits of samples that leave no doubt."""
    delta = F(1, 20)
    random = np.random.Generator(np.random.PCG64(4))
    for mean, design in product((F(1, 3), F(19, 20)), ("fixed", "sequential")):
        for length in (1, 5, 40):
            sample = [F(k, 10) for k in random.integers(0, 11, size=length).tolist()]
            best = max(F(1), *wealth_by_the_book(sample, mean, delta, design))
            p = m.betting_p_value(sample, mean, delta, design)
            # The judged code rounds wealth down to multiples of 2**-512 after each unit.
            yield f"the p-value of {length} units by the book", 1 / best <= p < 1 / best + F(1, 2**400)
    yield fact(coverage_exact.judge_betting(m, 6))
    yield "sixty ones", m.betting_lower([1] * 60, delta, "fixed").value > F(4, 5)
    yield "sixty zeros", m.betting_upper([0] * 60, delta, "fixed").value < F(1, 5)
    yield "sixty zeros from below", m.betting_lower([0] * 60, delta, "fixed").value == 0
    same = [F(0)] * 200
    yield "equal systems are not worse by 20", m.noninferior(same, F(20), delta, "fixed")
    yield "nor better by 20", not m.noninferior(same, F(-20), delta, "fixed")
    margin = m.smallest_margin(same, delta, "fixed")
    yield (
        "the smallest margin is one that holds",
        2 < margin < 20 and m.noninferior(same, margin, delta, "fixed"),
    )
    for scale, margin, shown in (
        (4, F(1, 2), True),
        (4, F(1, 20), False),
        (400, F(40), True),
        (400, F(5), False),
    ):
        found = m.noninferior([F(0)] * 100, margin, delta, "fixed", scale)
        yield f"equal systems, not worse by {margin} in a range of {scale}: {shown}", found == shown
    yield "a loss of 50 is not within 20", not m.noninferior([F(-50)] * 200, F(20), delta, "fixed")


def judge_resampling(m: Any) -> Iterator[Fact]:
    """Ties, seeds, and limits of a sample whose normal limits are known."""

    def total(sums: Any) -> Any:
        return sums[:, 0].astype(np.float64)

    zeros = np.zeros((10, 1), dtype=np.int64)
    delta = F(1, 20)
    yield "identical outputs have p = 1", m.sign_flip([0] * 10, 3, 99).p_value == 1
    yield "so for exchanges", m.paired_swap(zeros, zeros, total, 3, 99).p_value == 1
    ones = np.ones((40, 1), dtype=np.int64)
    found = (
        m.paired_swap(ones, 0 * ones, total, 3, 99).p_value,
        m.paired_swap(0 * ones, ones, total, 3, 99).p_value,
    )
    yield "forty times better, and forty times worse", found == (F(1, 100), 1)
    pairs = np.array([[1, 1]] * 10), np.array([[0, 1]] * 10)
    share = m.paired_swap(*pairs, lambda sums: sums[:, 0] / sums[:, 1], 3, 99).p_value
    yield "several statistics", share == F(1, 100)
    yield "no p-value is 0", m.sign_flip([1] * 40, 3, 99).p_value == F(1, 100)
    yield "seed 0 is a seed", len({m.sign_flip([1, 2, 3, -3, 1], 0, 99).p_value for _ in range(6)}) == 1
    # Two units, one statistic that counts and one that does not: exchanging either unit leaves the score.
    a, b = np.array([[1, 0], [1, 5]]), np.array([[1, 5], [1, 0]])
    yield "equal scores are ties", m.paired_swap(a, b, total, 3, 99).p_value == 1
    one = m.sign_flip([1], 3, 3999).p_value
    yield "a single difference is flipped half of the time", F(9, 20) < one < F(11, 20)
    random = np.random.Generator(np.random.PCG64(5))
    n = 400
    common = random.integers(0, 10_000, size=(n, 1))
    x = common + random.integers(0, 101, size=(n, 1))
    gaps = (x - common)[:, 0]
    mean, error = float(gaps.sum()), float(gaps.std() * math.sqrt(n))
    for side, sign in (("lower", -1), ("upper", 1)):
        limit = m.paired_bootstrap(x, common, total, delta, 7, side, 999).value
        yield (
            f"{side} bootstrap limit is near the normal one",
            abs(float(limit) - mean - sign * 1.645 * error) < 0.2 * error,
        )
    sizes, successes = [1, 2, 3, 4] * 10, [1, 0, 3, 1] * 10
    # Rate 1/2; residuals 1/2, -1, 3/2, -1: sum of squares 45 over 100 steps, Student's .95 quantile 1.684875.
    width = 1.6848751 * math.sqrt(40 / 39 * 45) / 100
    for side, sign in (("lower", -1), ("upper", 1)):
        limit = m.cluster_rate(successes, sizes, delta, side).value
        yield f"{side} limit over clusters by hand", abs(float(limit) - 0.5 - sign * width) < 1e-6


def judge_budget(m: Any) -> Iterator[Fact]:
    """Family-wise errors, counted."""
    yield fact(plans.judge_budget(m, 12))


def judge_power(m: Any) -> Iterator[Fact]:
    """Smallest numbers of units."""
    yield fact(plans.judge_power(m))


def judge_exactmath(m: Any) -> Iterator[Fact]:
    """Roundings by their definition, logarithms against the decimal module."""
    for x in (F(1, 3), F(-1, 3), F(7, 5), F(2), F(9, 4)):
        down, up = m.round_down(x, 4), m.round_up(x, 4)
        yield f"{x} rounded down", down <= x < down + F(1, 16) and (16 * down).denominator == 1
        yield f"{x} rounded up", up - F(1, 16) < x <= up and (16 * up).denominator == 1
        if x > 0:
            low, high = m.sqrt_down(x, 8), m.sqrt_up(x, 8)
            yield f"root of {x}", low**2 <= x <= high**2 and x < (low + F(1, 256)) ** 2
    with localcontext() as context:
        context.prec = 60
        for x in (F(2), F(40), F(5, 4), F(1, 7), F(101, 100)):
            true = F((Decimal(x.numerator) / Decimal(x.denominator)).ln())
            for bits in (2, 4, 8, 16, 64):
                low, high = m.log_enclosure(x, bits)
                yield f"ln {x} to {bits} bits", low < true < high and high - low < F(12, 2**bits)
            for exponent in (3, 9, 18, 19, 20, 24, 40):
                yield f"just below ln {x}", not m.exceeds_log(true - F(1, 10**exponent), x)
                yield f"just above ln {x}", m.exceeds_log(true + F(1, 10**exponent), x)


BOUND_JUDGES: Mapping[str, tuple[Callable[[Any], Iterator[Fact]], ...]] = {
    "certify.stats.rates": (judge_bounds,),
    "certify.stats.betting": (judge_betting,),
    "certify.stats.resampling": (judge_resampling,),
    "certify.stats.budget": (judge_budget,),
    "certify.stats.power": (judge_power,),
    "certify.base.exact": (judge_exactmath,),
}
"""Judges of each module."""
