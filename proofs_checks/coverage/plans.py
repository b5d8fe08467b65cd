"""Several claims at once, units needed, and what clusters cost: exact rates, by enumeration.

See :mod:`proofs_checks.coverage.exact`, to which this belongs.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import product
from typing import Any

from certify.stats import budget as sharing
from certify.stats import power
from certify.stats import rates as bounds
from proofs_checks.check import Budget, Check, CheckFinding, Facts, check, decided
from proofs_checks.coverage.exact import LEVELS, tail

# --- several claims, planning ------------------------------------------------------------------------------


@decided
def judge_budget(module: Any, grid: int) -> Facts:
    """The fixed sequence: all p-values on a grid; it stops where it must, and errs as often as one test."""
    delta = Fraction(1, 4)
    values = [Fraction(i, grid) for i in range(1, grid + 1)]
    wrong = 0
    for p in product(values, repeat=3):  # all three hypotheses are true
        rejected = module.fixed_sequence(value <= delta for value in p)
        wrong += rejected > 0
        stop = next((i for i, value in enumerate(p) if value > delta), 3)
        yield f"the fixed sequence went on after {p}", rejected == stop
    rate = Fraction(wrong, grid**3)
    yield f"a true hypothesis is rejected with rate {rate}", rate == Fraction(int(delta * grid), grid)
    return "exactly the family-wise error of one test"


@decided
def judge_power(module: Any) -> Facts:
    """Numbers of units for rates are the smallest ones, by trying every smaller one."""
    for alpha, delta in product((Fraction(1, 20), Fraction(1, 7), Fraction(1, 2)), LEVELS):
        n = module.clean_units_needed(alpha, delta)
        smallest = (1 - alpha) ** n <= delta < (1 - alpha) ** (n - 1)
        yield f"{n} clean units are not the smallest number for {alpha}", smallest
    delta, power_ = Fraction(1, 20), Fraction(4, 5)
    for target, truth in ((Fraction(1, 2), Fraction(3, 4)), (Fraction(9, 10), Fraction(1))):
        found = module.units_for_agreement(target, truth, delta, power_)
        mirrored = module.units_for_rate(1 - target, 1 - truth, delta, power_)
        least = next(n for n in range(1, 200) if _power(n, target, truth, delta) >= power_)
        yield f"{found} or {mirrored} units for {target}, not {least}", found == mirrored == least
    margin, sd = Fraction(2), Fraction(8)
    n = module.units_for_mean(margin, sd, delta, power_)
    reached = module.simulated_power(n, margin, sd, delta, seed=0, draws=200)
    # A normal approximation, checked by simulation: five standard errors of 200 draws around 0.8.
    near = Fraction(13, 20) <= reached <= Fraction(19, 20)
    yield f"{n} units reach a power of {reached}, not about {power_}", near
    return f"smallest numbers; {n} units for a mean reach {float(reached):.2f} of 0.8"


def _power(n: int, target: Fraction, truth: Fraction, delta: Fraction) -> Fraction:
    enough = [k for k in range(n + 1) if tail(n, target, range(k, n + 1)) <= delta]
    return tail(n, truth, enough)


# --- clusters ----------------------------------------------------------------------------------------------


def cluster_misses(limits: Sequence[Fraction], groups: int, p: Fraction) -> Fraction:
    """How often a lower limit that takes each unit of a cluster for an independent one is wrong.

    There are ``groups`` clusters of 3 units and as many of 4; all units of a cluster are equal, 1 with rate
    ``p``. ``limits`` has the lower limit for k of the ``7 groups`` units, for each k.
    """
    weights = [tail(groups, p, [i]) for i in range(groups + 1)]
    pairs = product(range(groups + 1), repeat=2)
    return sum((weights[i] * weights[j] for i, j in pairs if limits[3 * i + 4 * j] > p), Fraction(0))


@check("coverage.budget", "§5: several claims share the error budget")
def families(budget: Budget) -> CheckFinding:
    """All p-values on a grid of 12 (24 in a full run)."""
    return judge_budget(sharing, 24 if budget.full else 12)


@check("coverage.planning", "§5: units needed", ("iid",))
def planning(_: Budget) -> CheckFinding:
    """Every smaller number of units."""
    return judge_power(power)


@check("coverage.clusters", "§5: ignoring clusters of 3-4 equal sentences: a nominal 5 % misses about 20 %")
def clusters(budget: Budget) -> CheckFinding:
    """Exact miss rates with clusters ignored, and with one unit for each cluster."""
    delta = Fraction(1, 20)
    rates, honest = [], []
    cases = 0
    for groups in (20, 40, 60) if budget.full else (20, 40):
        known = [bounds.rate_limit(k, 7 * groups, delta, "lower").value for k in range(7 * groups + 1)]
        alone = [bounds.rate_limit(k, 2 * groups, delta, "lower").value for k in range(2 * groups + 1)]
        for p in (Fraction(7, 10), Fraction(4, 5), Fraction(9, 10)):
            cases += (groups + 1) ** 2 + 2 * groups + 1
            rates.append(cluster_misses(known, groups, p))
            honest.append(tail(2 * groups, p, [k for k, limit in enumerate(alone) if limit > p]))
    shown = ", ".join(f"{float(rate):.1%}" for rate in rates)
    detail = f"clusters ignored: {shown}; one unit for each: at most {float(max(honest)):.1%}"
    right = all(Fraction(3, 20) < rate < Fraction(1, 4) for rate in rates) and max(honest) <= delta
    return CheckFinding("passed" if right else "failed", cases, detail)


CHECKS: tuple[Check, ...] = (families, planning, clusters)
