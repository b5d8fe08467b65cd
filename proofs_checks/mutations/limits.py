"""Limits, bets, plans, and the arithmetic below them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

from certify.base import exact
from certify.stats import betting, power, rates
from proofs_checks.check import CheckFinding
from proofs_checks.coverage import exact as coverage
from proofs_checks.coverage import plans
from proofs_checks.mutations.bug import Fact, Judged, bug

F = Fraction
Values = Sequence[Fraction | int]

# --- rates -------------------------------------------------------------------------------------------------


@bug(
    "certify.stats.rates:clopper_pearson",
    origin="two one-sided limits, printed beside each other as an interval",
    lesson="two sides share the error",
)
def _two_sides(original: Any, k: int, n: int, delta: Fraction, side: str = "two-sided") -> Any:
    if side != "two-sided":
        return original(k, n, delta, side)
    return original(k, n, delta, "lower")[0], original(k, n, delta, "upper")[1]


@bug(
    "certify.stats.rates:binomial_tail_at_least",
    origin="scipy.stats.binom.sf(k), which is P(X > k), used for P(X >= k)",
    lesson="a tail contains the count that was seen",
)
def _survival(original: Any, k: int, n: int, p: Fraction) -> Any:
    return original(k + 1, n, p)


@bug(
    "certify.stats.rates:rate_at_most",
    origin="the Wald interval p ± z sqrt(p (1 - p) / n) of most evaluation tables",
    lesson="no error in few units does not mean a rate of 0, plus or minus 0",
)
def _wald(_: Any, k: int, n: int, alpha: Fraction, delta: Fraction) -> bool:
    from scipy.special import ndtri

    rate = k / n
    return bool(rate + float(ndtri(1 - float(delta))) * math.sqrt(rate * (1 - rate) / n) <= alpha)


def fact(finding: CheckFinding) -> Fact:
    """A finding as a fact."""
    return finding.detail, finding.outcome == "passed"


def judge_rates() -> Iterator[Fact]:
    """Exact coverage of limits and decisions."""
    yield fact(coverage.judge_counts(rates, (1, 3, 8)))
    yield fact(coverage.judge_decisions(rates, (1, 3, 8)))
    clean = [rates.rate_at_most(0, n, F(1, 20), F(1, 20)) for n in (58, 59)]
    yield "59 clean units are needed", clean == [False, True]


# --- betting -----------------------------------------------------------------------------------------------


@bug(
    "certify.stats.betting:betting_p_value",
    origin="ours, before units stood in an order that their author cannot choose",
    lesson="the order of bets must not depend on the values",
)
def _by_value(original: Any, values: Values, m0: Fraction, delta: Fraction, design: str) -> Any:
    return original(sorted(values, reverse=True), m0, delta, design)


@bug(
    "certify.stats.betting:betting_p_value",
    origin="dashboards of A/B tests (Johari, Pekelis and Walsh 2015)",
    lesson="a limit for a fixed number of units does not hold at every look",
)
def _peeking(original: Any, values: Values, m0: Fraction, delta: Fraction, _: str) -> Any:
    return min(original(values[: n + 1], m0, delta, "fixed") for n in range(len(values)))


@bug(
    "certify.stats.betting:noninferior",
    origin="trials of non-inferiority, which write their margin with either sign",
    lesson="a margin is what may be lost, not what must be won",
)
def _margin_sign(original: Any, values: Values, margin: Fraction, *rest: Any, **more: Any) -> Any:
    return original(values, -margin, *rest, **more)


def judge_betting() -> Iterator[Fact]:
    """Exact coverage of the p-values, and limits of samples that leave no doubt."""
    delta = F(1, 20)
    yield fact(coverage.judge_betting(betting, 6))
    yield "sixty ones", betting.betting_lower([1] * 60, delta, "fixed").value > F(4, 5)
    yield "sixty zeros", betting.betting_upper([0] * 60, delta, "fixed").value < F(1, 5)
    yield "sixty zeros from below", betting.betting_lower([0] * 60, delta, "fixed").value == 0
    same = [F(0)] * 200
    margin = betting.smallest_margin(same, delta, "fixed")
    yield "the smallest margin is of use", 2 < margin < 20
    yield "and holds", betting.noninferior(same, margin, delta, "fixed")
    for shift, margin, scale, shown in (
        *((0, F(20), 200, True), (0, F(-20), 200, False), (-50, F(20), 200, False)),
        *((0, F(1, 2), 4, True), (0, F(1, 20), 4, False)),
    ):
        found = betting.noninferior([F(shift)] * 100, margin, delta, "fixed", scale)
        yield f"{shift} is within {margin} in a range of {scale}: {shown}", found == shown


# --- plans and arithmetic ----------------------------------------------------------------------------------


@bug(
    "certify.stats.power:units_for_mean",
    origin="sample sizes from the width of an interval alone",
    lesson="a plan without power succeeds every other time",
)
def _even_odds(
    original: Any, margin: Fraction, sd: Fraction, delta: Fraction, _: Fraction, **more: Any
) -> Any:
    return original(margin, sd, delta, F(1, 2), **more)


def judge_power() -> Iterator[Fact]:
    """Smallest numbers of units."""
    yield fact(plans.judge_power(power))


@bug(
    "certify.base.exact:round_down",
    origin="round() and format(), which round to nearest",
    lesson="a limit is rounded toward the weaker claim",
)
def _nearest(_: Any, x: Fraction, bits: int) -> Fraction:
    return Fraction(round(x * (1 << bits)), 1 << bits)


@bug(
    "certify.base.exact:exceeds_log",
    origin="math.log and a comparison of floats",
    lesson="a comparison with a logarithm is decided by enclosures, not by the nearest float",
)
def _floats(_: Any, value: Fraction, x: Fraction) -> bool:
    return float(value) > math.log(x)


def judge_exact() -> Iterator[Fact]:
    """Roundings by their definition, logarithms against the decimal module."""
    for x in (F(1, 3), F(-1, 3), F(7, 5), F(2), F(9, 4)):
        down, up = exact.round_down(x, 4), exact.round_up(x, 4)
        yield f"{x} rounded down", down <= x < down + F(1, 16) and (16 * down).denominator == 1
        yield f"{x} rounded up", up - F(1, 16) < x <= up and (16 * up).denominator == 1
        if x > 0:
            low, high = exact.sqrt_down(x, 8), exact.sqrt_up(x, 8)
            yield f"root of {x}", low**2 <= x <= high**2 and x < (low + F(1, 256)) ** 2
    with localcontext() as context:
        context.prec = 60
        for x in (F(2), F(40), F(5, 4), F(1, 7), F(101, 100)):
            true = F((Decimal(x.numerator) / Decimal(x.denominator)).ln())
            for bits in (2, 4, 8, 16, 64):
                low, high = exact.log_enclosure(x, bits)
                yield f"ln {x} to {bits} bits", low < true < high and high - low < F(12, 2**bits)
            for exponent in (3, 9, 18, 19, 20, 24, 40):
                yield f"just below ln {x}", not exact.exceeds_log(true - F(1, 10**exponent), x)
                yield f"just above ln {x}", exact.exceeds_log(true + F(1, 10**exponent), x)


SUBJECTS = (
    Judged("rates", "limits of rates and decisions on them", (judge_rates,), (_two_sides, _survival, _wald)),
    Judged(
        "betting",
        "limits of means by betting",
        (judge_betting,),
        (_by_value, _peeking, _margin_sign),
    ),
    Judged("planning", "numbers of units that a claim needs", (judge_power,), (_even_odds,)),
    Judged("rounding", "roundings, roots and logarithms", (judge_exact,), (_nearest, _floats)),
)
"""What limits rest on."""
