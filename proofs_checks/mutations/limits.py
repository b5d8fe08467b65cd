"""Limits, bets, plans, and the arithmetic below them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any, Final

from certify.base import enclosure
from certify.stats import betting, power, rates
from proofs_checks.check import Fact
from proofs_checks.coverage import exact as coverage
from proofs_checks.mutations.bug import Judged

F = Fraction
Values = Sequence[Fraction | int]

RATES: Final = Judged("rates", "limits of rates and decisions on them")


@RATES.bug("certify.stats.rates:clopper_pearson")
def _two_sides(original: Any, k: int, n: int, delta: Fraction, side: str = "two-sided") -> Any:
    """Two one-sided limits, printed beside each other as an interval: two sides share the error."""
    if side != "two-sided":
        return original(k, n, delta, side)
    return original(k, n, delta, "lower")[0], original(k, n, delta, "upper")[1]


@RATES.bug("certify.stats.rates:binomial_tail_at_least")
def _survival(original: Any, k: int, n: int, p: Fraction) -> Any:
    """``binom.sf(k)`` of scipy, used for P(X >= k): a tail contains the count that was seen."""
    return original(k + 1, n, p)


@RATES.bug("certify.stats.rates:rate_at_most")
def _wald(_: Any, k: int, n: int, alpha: Fraction, delta: Fraction) -> bool:
    """The Wald interval of most evaluation tables: no error in few units is no rate of 0, plus or minus 0."""
    from scipy.special import ndtri

    rate = k / n
    return bool(rate + float(ndtri(1 - float(delta))) * math.sqrt(rate * (1 - rate) / n) <= alpha)


@RATES.judge
def judge_rates() -> Iterator[Fact]:
    """Exact coverage of limits and decisions."""
    yield coverage.judge_counts(rates, (1, 3, 8)).fact
    yield coverage.judge_decisions(rates, (1, 3, 8)).fact
    clean = [rates.rate_at_most(0, n, F(1, 20), F(1, 20)) for n in (58, 59)]
    yield "59 clean units are needed", clean == [False, True]


BETTING: Final = Judged("betting", "limits of means by betting")


@BETTING.bug("certify.stats.betting:betting_p_value")
def _by_value(original: Any, values: Values, m0: Fraction, delta: Fraction, design: str) -> Any:
    """Ours, with units in an order of their author's: the order of bets must not depend on the values."""
    return original(sorted(values, reverse=True), m0, delta, design)


@BETTING.bug("certify.stats.betting:betting_p_value")
def _peeking(original: Any, values: Values, m0: Fraction, delta: Fraction, _: str) -> Any:
    """Dashboards of A/B tests (Johari et al. 2015): a limit for fixed n does not hold at every look."""
    return min(original(values[: n + 1], m0, delta, "fixed") for n in range(len(values)))


@BETTING.bug("certify.stats.betting:noninferior")
def _margin_sign(original: Any, values: Values, margin: Fraction, *rest: Any, **more: Any) -> Any:
    """Margins of non-inferiority with either sign: a margin is what may be lost, not what must be won."""
    return original(values, -margin, *rest, **more)


@BETTING.judge
def judge_betting() -> Iterator[Fact]:
    """Exact coverage of the p-values, and limits of samples that leave no doubt."""
    delta = F(1, 20)
    yield coverage.judge_betting(betting, 6).fact
    yield "sixty ones", betting.betting_lower([1] * 60, delta, "fixed").value > F(4, 5)
    yield "sixty zeros", betting.betting_upper([0] * 60, delta, "fixed").value < F(1, 5)
    yield "sixty zeros from below", betting.betting_lower([0] * 60, delta, "fixed").value == 0
    same = [F(0)] * 200
    lower = betting.difference_lower(same, delta, "fixed").value
    yield "a limit of equal scores is of use", -20 < lower < 0
    for shift, margin, scale, shown in (
        *((0, F(20), 200, True), (0, F(-20), 200, False), (-50, F(20), 200, False)),
        *((0, F(1, 2), 4, True), (0, F(1, 20), 4, False)),
    ):
        found = betting.noninferior([F(shift)] * 100, margin, delta, "fixed", scale)
        yield f"{shift} is within {margin} in a range of {scale}: {shown}", found == shown


PLANNING: Final = Judged("planning", "numbers of units that a claim needs")


@PLANNING.bug("certify.stats.power:units_for_mean")
def _even_odds(
    original: Any, margin: Fraction, sd: Fraction, delta: Fraction, _: Fraction, **more: Any
) -> Any:
    """Sample sizes from the width of an interval alone: a plan without power succeeds every other time."""
    return original(margin, sd, delta, F(1, 2), **more)


@PLANNING.judge
def judge_power() -> Iterator[Fact]:
    """Smallest numbers of units."""
    yield coverage.judge_power(power).fact


ROUNDING: Final = Judged("rounding", "roundings, roots and logarithms")


@ROUNDING.bug("certify.base.enclosure:round_down")
def _nearest(_: Any, x: Fraction, bits: int) -> Fraction:
    """round() and format(), which round to nearest: a limit is rounded toward the weaker claim."""
    return Fraction(round(x * (1 << bits)), 1 << bits)


@ROUNDING.bug("certify.base.enclosure:exceeds_log")
def _floats(_: Any, value: Fraction, x: Fraction) -> bool:
    """math.log and a comparison of floats: enclosures decide comparisons with a logarithm."""
    return float(value) > math.log(x)


@ROUNDING.judge
def judge_exact() -> Iterator[Fact]:
    """Roundings by their definition, logarithms against the decimal module."""
    for x in (F(1, 3), F(-1, 3), F(7, 5), F(2), F(9, 4)):
        down, up = enclosure.round_down(x, 4), enclosure.round_up(x, 4)
        yield f"{x} rounded down", down <= x < down + F(1, 16) and (16 * down).denominator == 1
        yield f"{x} rounded up", up - F(1, 16) < x <= up and (16 * up).denominator == 1
        if x > 0:
            low, high = enclosure.sqrt_down(x, 8), enclosure.sqrt_up(x, 8)
            yield f"root of {x}", low**2 <= x <= high**2 and x < (low + F(1, 256)) ** 2
    with localcontext() as context:
        context.prec = 60
        for x in (F(2), F(40), F(5, 4), F(1, 7), F(101, 100)):
            true = F((Decimal(x.numerator) / Decimal(x.denominator)).ln())
            for bits in (2, 4, 8, 16, 64):
                low, high = enclosure.log_enclosure(x, bits)
                yield f"ln {x} to {bits} bits", low < true < high and high - low < F(12, 2**bits)
            for exponent in (3, 9, 18, 19, 20, 24, 40):
                yield f"just below ln {x}", not enclosure.exceeds_log(true - F(1, 10**exponent), x)
                yield f"just above ln {x}", enclosure.exceeds_log(true + F(1, 10**exponent), x)
