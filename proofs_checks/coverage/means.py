"""How often limits and tests are wrong, and how often they are of use, by simulation with known truth.

Misses are accepted between two binomial limits (:mod:`proofs_checks.coverage.trials`). What can be
enumerated is in :mod:`proofs_checks.coverage.exact`, selection in :mod:`proofs_checks.coverage.selection`,
the choice of a ticket in :mod:`proofs_checks.coverage.ltt`; that nothing is left out, in
:mod:`proofs_checks.coverage.entries`.
"""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import product
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from certify.claims import criteria
from certify.stats import betting, resampling
from proofs_checks.check import Budget, Check, CheckFinding, check
from proofs_checks.coverage import entries, ltt, selection
from proofs_checks.coverage import exact as coverage_exact
from proofs_checks.coverage.exact import HARD, Units, tail
from proofs_checks.coverage.trials import DELTA, Trial, generator, judge


def draw(units: Units, n: int, random: np.random.Generator) -> list[Fraction]:
    """``n`` independent units."""
    edges = np.cumsum(units.weights)
    places = np.searchsorted(edges, random.integers(0, units.total, size=n), side="right")
    return [units.values[i] for i in places.tolist()]


def draw_adversary(n: int, random: np.random.Generator) -> list[Fraction]:
    """Units of conditional mean 1/2 from an adversary: after a 1 nearly constant, else all or nothing."""
    half, found = Fraction(1, 2), [Fraction(0)]
    for coin in random.integers(0, 2, size=n).tolist():
        found.append(half + Fraction(2 * coin - 1, 100) if found[-1] == 1 else Fraction(coin))
    return found[1:]


# --- procedures --------------------------------------------------------------------------------------------


def reach(units: Units | None, n: int, delta: Fraction) -> Fraction:
    """How far from the mean a betting limit may lie: within it at least four times out of five.

    ``1.2 s (sqrt(2 L) + 1.3) / sqrt(n) + 2 L / n`` with ``L = ln(1/delta)``, s the standard deviation of a
    unit (1/2 where None): what the growth of wealth gives for the best bet, a fifth more, and an allowance
    for the first units, from which the bets learn the spread. Both designs keep to it for the n tried here.
    """
    sd = 0.5 if units is None else math.sqrt(units.variance)
    log = math.log(1 / delta)
    return Fraction(1.2 * sd * (math.sqrt(2 * log) + 1.3) / math.sqrt(n) + 2 * log / n)


WITHIN: Final = 0.8
"""Probability of a limit within :func:`reach`; a limit that says nothing never is."""


def try_betting(module: Any, n: int, draws: int, random: np.random.Generator) -> list[Trial]:
    """Decisions of the betting bound at the true mean, both designs, and an adversary with a memory.

    For a fair coin the fixed design is nearly a Brownian motion that may reach ln(1/delta): its miss rate is
    about .03 for delta = .05, from which the lower limit of acceptance follows. A threshold that is
    :func:`reach` below the mean must be exceeded; that is tried on a sixth of the draws.
    """
    trials = []
    for units, design in product((*HARD, None), ("fixed", "sequential")):
        mean = Fraction(1, 2) if units is None else units.mean
        name = "an adversary with a memory" if units is None else units.name
        coin = units is not None and set(units.values) <= {0, 1} and mean == Fraction(1, 2)
        least = 0.015 if coin and design == "fixed" else 0.0
        clear = mean - reach(units, n, DELTA)
        misses = silent = 0
        tried = max(1, draws // 6)
        for number in range(draws):
            sample = draw_adversary(n, random) if units is None else draw(units, n, random)
            misses += module.betting_exceeds(sample, mean, DELTA, design)
            if number < tried and clear > 0:
                silent += not module.betting_exceeds(sample, clear, DELTA, design)
        trials.append(Trial(f"betting, {design}, {name}", misses, draws, float(DELTA), least))
        if clear > 0:
            trials.append(Trial(f"not shown: betting, {design}, {name}", silent, tried, 1 - WITHIN))
    return trials


LIMIT_LAWS: Final = (HARD[1], HARD[2], HARD[5])
"""Laws for limits as limits: near 1, a fair coin, a rare extreme."""


def try_limits(module: Any, n: int, draws: int, random: np.random.Generator) -> list[Trial]:
    """Betting limits of means, both sides, and of paired differences on the scale of scores, both designs.

    Two trials for each: the truth is missed seldom, and the limit is within :func:`reach` of it often.
    """
    names = ("betting_lower", "betting_upper", "difference_lower", "noninferior")
    delta, half = Fraction(1, 4), Fraction(1, 2)
    trials = []
    for units, design in product(LIMIT_LAWS, ("fixed", "sequential")):
        misses, silent = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
        truth, width = (units.mean - half) * 200, reach(units, n, delta)
        for _ in range(draws):
            sample = draw(units, n, random)
            differences = [(value - half) * 200 for value in sample]
            # How far each goes beyond the truth, on the scale of units: above 0 it is wrong.
            beyond = {
                "betting_lower": module.betting_lower(sample, delta, design).value - units.mean,
                "betting_upper": units.mean - module.betting_upper(sample, delta, design).value,
                "difference_lower": (module.difference_lower(differences, delta, design).value - truth) / 200,
            }
            for name, excess in beyond.items():
                misses[name] += excess > 0
                silent[name] += excess < -width
            misses["noninferior"] += module.noninferior(differences, -truth, delta, design)
            silent["noninferior"] += not module.noninferior(differences, 200 * width - truth, delta, design)
        where = f"{design}, {units.name}"
        trials += [Trial(f"{name}, {where}", misses[name], draws, float(delta)) for name in names]
        trials += [Trial(f"far off: {name}, {where}", silent[name], draws, 1 - WITHIN) for name in names]
    return trials


def try_randomisation(module: Any, n: int, draws: int, random: np.random.Generator) -> list[Trial]:
    """Randomisation tests at 1/20 with 19 draws: for continuous data 1/20 exactly, with ties at most."""
    plain = tied = 0
    for seed in range(draws):
        a, b = random.integers(0, 10**6, size=(2, n, 1))
        plain += module.paired_swap(a, b, _total, seed, 19)[0] <= DELTA
        tied += module.paired_swap(a % 2, b % 2, _total, seed, 19)[0] <= DELTA
    delta = float(DELTA)
    return [Trial("paired swap", plain, draws, delta, delta), Trial("paired swap, ties", tied, draws, delta)]


def _total(sums: NDArray[np.int64]) -> NDArray[np.float64]:
    return sums[:, :1].astype(np.float64)


def try_asymptotic(module: Any, n: int, draws: int, random: np.random.Generator) -> list[Trial]:
    """Bootstrap and cluster limits, which promise their level for many units only: within .03 of it."""
    found = dict.fromkeys(product(("bootstrap", "clusters"), ("lower", "upper")), 0)
    for seed in range(draws):
        # A difference of 3 on average, spread over both systems and larger than it.
        a, b = random.integers(0, 1000, size=(2, n, 1))
        a += 3
        # Clusters of 1 to 5 equal steps, 1 with rate .3 in small and .6 in large ones: 27/50 overall.
        sizes = random.integers(1, 6, size=n)
        rates = np.where(sizes <= 2, 0.3, 0.6)
        successes = np.where(random.random(n) < rates, sizes, 0)
        limits = module.paired_bootstrap(a, b, _total, DELTA, seed, 99)
        for side, sign, (bootstrapped,) in (("lower", 1, limits[0]), ("upper", -1, limits[1])):
            found["bootstrap", side] += int(sign * (bootstrapped - 3 * n) > 0)
            limit = module.cluster_rate(successes.tolist(), sizes.tolist(), DELTA, side).value
            found["clusters", side] += sign * (limit - Fraction(27, 50)) > 0
    return [
        Trial(f"{name}, {side}", count, draws, float(DELTA) + 0.03, float(DELTA) - 0.03)
        for (name, side), count in found.items()
    ]


# --- checks ------------------------------------------------------------------------------------------------


@check("coverage.betting-many", "§5: betting limits, many units, any stopping time", ("iid",))
def betting_many(budget: Budget) -> CheckFinding:
    """60 units (150 in a full run) of hard laws and of an adversary."""
    n, draws = (150, 5000) if budget.full else (60, 400)
    return judge(try_betting(betting, n, draws, generator(budget, 1)))


@check("coverage.betting-limits", "§5: betting limits as limits, and of paired differences", ("iid",))
def betting_limits(budget: Budget) -> CheckFinding:
    """25 units of three laws, both designs; on the right side of the truth, and near it."""
    return judge(try_limits(betting, 25, 1500 if budget.full else 80, generator(budget, 2)))


@check("coverage.randomisation", "§5: randomisation p-values, ties counted", ("sign-symmetric",))
def randomisation(budget: Budget) -> CheckFinding:
    """24 units under exchangeability."""
    return judge(try_randomisation(resampling, 24, 40_000 if budget.full else 3000, generator(budget, 3)))


@check("coverage.asymptotic", "§5: bootstrap and clustered rates, asymptotic", ("iid", "asymptotic"))
def asymptotic(budget: Budget) -> CheckFinding:
    """60 units or clusters."""
    return judge(try_asymptotic(resampling, 60, 10_000 if budget.full else 1500, generator(budget, 4)))


@check("coverage.drawn-steps", "§5: one certified step for each unit, drawn evenly", ("A-EVIDENCE",))
def drawn_steps(budget: Budget) -> CheckFinding:
    """Shares of the drawn steps, and the number of clean steps that are needed."""
    draws = 60_000 if budget.full else 6000
    trials = []
    for steps in (2, 3, 7):
        for name in ("s", "t"):
            hits = [0] * steps
            for unit in range(draws):
                hits[criteria.drawn_index(f"{name}{unit}", steps)] += 1
            even = 1 / steps
            trials += [Trial(f"step {i} of {steps}", hit, draws, even, even) for i, hit in enumerate(hits)]
    for wrong, alpha in product((0, 2), (Fraction(1, 20), Fraction(1, 3))):
        needed = criteria.units_needed(wrong, wrong + 1, alpha, DELTA)
        smallest = next(n for n in range(wrong + 1, 400) if tail(n, alpha, range(wrong + 1)) <= DELTA)
        if needed != smallest:
            detail = f"{needed} drawn steps are not the smallest number, {smallest} is"
            return CheckFinding("failed", draws, detail)
    return judge(trials)


# --- all of them -------------------------------------------------------------------------------------------

CHECKS: tuple[Check, ...] = (
    *entries.CHECKS,
    *coverage_exact.CHECKS,
    *(betting_many, betting_limits, randomisation, asymptotic, drawn_steps),
    *selection.CHECKS,
    *ltt.CHECKS,
)
