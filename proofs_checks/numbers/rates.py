"""Clopper-Pearson limits and decisions on rates against rigorous enclosures of the binomial tail (theory §5).

``P(B(n, p) >= k)`` is the regularised incomplete beta function at p with parameters k and n - k + 1, which
python-flint encloses. The judged code in :mod:`certify.stats.rates` sums binomial terms in integers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from itertools import product
from typing import Any

from certify.stats.rates import clopper_pearson, rate_at_least, rate_at_most
from proofs_checks.check import Budget, Check, CheckFinding, Facts, check, decided

_BITS = 192
_GRID = Fraction(1, 2**32)  # the limits are multiples of this

RateCase = tuple[int, int]
"""Successes, trials."""


def upper_tail(k: int, n: int, p: Fraction) -> Any:
    """Enclosure of ``P(B(n, p) >= k)`` for ``1 <= k <= n``: the incomplete beta function at p."""
    from flint import arb, fmpq

    return arb(fmpq(p.numerator, p.denominator)).beta_lower(k, n - k + 1, regularized=True)


@decided
def judge_limits(
    counts: Iterable[RateCase],
    levels: Sequence[Fraction],
    limits: Callable[[int, int, Fraction], tuple[Fraction, Fraction]],
) -> Facts:
    """Limits on the safe side of the exact ones, and at most one grid step away from them.

    ``counts`` are successes and trials, ``limits`` gives lower and upper limit for them and a two-sided
    level. No level is dyadic, so that no tail at a grid point can equal half of one.
    """
    from flint import arb, ctx, fmpq

    with ctx.workprec(_BITS):
        for (k, n), level in product(counts, levels):
            delta = arb(fmpq(level.numerator, 2 * level.denominator))
            lower, upper = limits(k, n, level)
            # The upper limit for k successes is 1 - the lower one for n - k.
            for side, successes, limit in (("lower", k, lower), ("upper", n - k, 1 - upper)):
                where = f"{side} limit of {k}/{n} at {level}: {limit}"
                if successes == 0:
                    yield f"{where}: claims more than nothing", limit == 0
                    continue
                safe = limit <= 0 or upper_tail(successes, n, limit) < delta
                sharp = upper_tail(successes, n, limit + _GRID) > delta
                yield (
                    f"{where} is {'weaker than the grid demands' if safe else 'on the wrong side'}",
                    safe and sharp,
                )
    return "on the safe side, and one step further is not"


@decided
def judge_rates(cases: Sequence[tuple[int, int, Fraction, Fraction, bool]]) -> Facts:
    """Exact decisions on rates against enclosures of the tail, and their mirror image.

    Args:
        cases: failures, trials, threshold, delta and the decision "the rate is at most the threshold".
    """
    from flint import arb, ctx, fmpq

    with ctx.workprec(_BITS):
        for k, n, alpha, delta, expected in cases:
            tail = upper_tail(n - k, n, 1 - alpha)
            level = arb(fmpq(delta.numerator, delta.denominator))
            decision = bool(tail < level) if tail < level or tail > level else None
            found = rate_at_most(k, n, alpha, delta), rate_at_least(n - k, n, 1 - alpha, delta)
            same = decision == expected == found[0] == found[1]
            yield f"{k} of {n} against {alpha}: {found}, not {decision}", same
    return "all decided as the enclosures decide"


@check("laws.clopper-pearson", "§5: Clopper-Pearson by exact binomial tails", ("iid",), needs=("flint",))
def rate_limits(budget: Budget) -> CheckFinding:
    """All counts with n up to 60 (100 in a full run), and some large ones."""
    largest = 100 if budget.full else 60
    counts = [(k, n) for n in range(1, largest + 1) for k in range(n + 1)]
    counts += [(k, n) for n in (500, 2995) for k in (0, 1, 7, n // 2, n - 1, n)]
    levels = (Fraction(1, 10), Fraction(1, 1000)) if budget.full else (Fraction(1, 10),)
    return judge_limits(counts, levels, clopper_pearson)


@check("laws.clean-units", "§5: 59 clean units for alpha = .05, 2,995 for .001", ("iid",), needs=("flint",))
def clean_units(_: Budget) -> CheckFinding:
    """The decision at and just below the number of units that suffice at delta = .05."""
    delta = Fraction(1, 20)
    cases = [
        (0, units - short, alpha, delta, not short)
        for units, alpha in ((59, Fraction(1, 20)), (2995, Fraction(1, 1000)))
        for short in (0, 1)
    ]
    return judge_rates(cases)


CHECKS: tuple[Check, ...] = (rate_limits, clean_units)
