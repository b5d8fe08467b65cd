"""How often limits and tests are wrong, by simulation with known truth; and that no bound goes untested.

Misses are accepted between two binomial limits (:mod:`proofs_checks.coverage_trials`). What can be enumerated
is in :mod:`proofs_checks.coverage_exact`, selection in :mod:`proofs_checks.coverage_selection`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import product
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from certify import betting, bounds, guarantee, power, resampling
from certify import budget as sharing
from proofs_checks import coverage_exact, coverage_plans, coverage_selection
from proofs_checks.coverage_exact import HARD, Units, tail
from proofs_checks.coverage_trials import DELTA, Trial, generator, judge
from proofs_checks.records import Budget, Check, Finding, check


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


def try_betting(module: Any, n: int, draws: int, random: np.random.Generator) -> list[Trial]:
    """Decisions of the betting bound at the true mean, both designs, and an adversary with a memory.

    For a fair coin the fixed design is nearly a Brownian motion that may reach ln(1/delta): its miss rate is
    about .03 for delta = .05, from which the lower limit of acceptance follows.
    """
    trials = []
    for units, design in product((*HARD, None), ("fixed", "sequential")):
        mean = Fraction(1, 2) if units is None else units.mean
        name = "an adversary with a memory" if units is None else units.name
        fair = (
            units is not None and set(units.values) <= {0, 1} and mean == Fraction(1, 2) and design == "fixed"
        )
        misses = 0
        for _ in range(draws):
            sample = draw_adversary(n, random) if units is None else draw(units, n, random)
            misses += module.betting_exceeds(sample, mean, DELTA, design)
        trials.append(
            Trial(f"betting, {design}, {name}", misses, draws, float(DELTA), 0.015 if fair else 0.0)
        )
    return trials


def try_limits(module: Any, n: int, draws: int, random: np.random.Generator) -> list[Trial]:
    """Betting limits of means, both sides, and of paired differences on the scale of scores."""
    units = HARD[5]
    names = ("betting_lower", "betting_upper", "difference_lower", "noninferior", "smallest_margin")
    misses = dict.fromkeys(names, 0)
    delta = Fraction(1, 4)
    truth = (units.mean - Fraction(1, 2)) * 200
    for _ in range(draws):
        sample = draw(units, n, random)
        differences = [(value - Fraction(1, 2)) * 200 for value in sample]
        limit = module.difference_lower(differences, delta, "fixed").value
        misses["betting_lower"] += module.betting_lower(sample, delta, "fixed").value > units.mean
        misses["betting_upper"] += module.betting_upper(sample, delta, "fixed").value < units.mean
        misses["difference_lower"] += limit > truth
        misses["noninferior"] += module.noninferior(differences, -truth, delta, "fixed")
        misses["smallest_margin"] += module.smallest_margin(differences, delta, "fixed") < -truth
    return [Trial(f"{name}, {units.name}", misses[name], draws, float(delta)) for name in names]


def try_randomisation(module: Any, n: int, draws: int, random: np.random.Generator) -> list[Trial]:
    """Randomisation tests at 1/20 with 19 draws: for continuous data 1/20 exactly, with ties at most."""

    def total(sums: NDArray[np.int64]) -> NDArray[np.float64]:
        return sums[:, 0].astype(np.float64)

    found = dict.fromkeys(("sign flip", "sign flip, ties", "paired swap", "paired swap, ties"), 0)
    for seed in range(draws):
        wide, ties = random.integers(-(10**6), 10**6, size=n), random.integers(-1, 2, size=n)
        pair = random.integers(0, 10**6, size=(2, n, 1))
        found["sign flip"] += module.sign_flip(wide, seed, 19).p_value <= DELTA
        found["sign flip, ties"] += module.sign_flip(ties, seed, 19).p_value <= DELTA
        found["paired swap"] += module.paired_swap(pair[0], pair[1], total, seed, 19).p_value <= DELTA
        found["paired swap, ties"] += (
            module.paired_swap(pair[0] % 2, pair[1] % 2, total, seed, 19).p_value <= DELTA
        )
    return [
        Trial(name, count, draws, float(DELTA), 0.0 if "ties" in name else float(DELTA))
        for name, count in found.items()
    ]


def try_asymptotic(module: Any, n: int, draws: int, random: np.random.Generator) -> list[Trial]:
    """Bootstrap and cluster limits, which promise their level for many units only: within .03 of it."""

    def total(sums: NDArray[np.int64]) -> NDArray[np.float64]:
        return sums[:, 0].astype(np.float64)

    found = dict.fromkeys(product(("bootstrap", "clusters"), ("lower", "upper")), 0)
    for seed in range(draws):
        # A difference of 3 on average, spread over both systems and larger than it.
        a, b = random.integers(0, 1000, size=(2, n, 1))
        a += 3
        # Clusters of 1 to 5 equal steps, 1 with rate .3 in small and .6 in large ones: 27/50 overall.
        sizes = random.integers(1, 6, size=n)
        rates = np.where(sizes <= 2, 0.3, 0.6)
        successes = np.where(random.random(n) < rates, sizes, 0)
        for side, sign in (("lower", 1), ("upper", -1)):
            limit = module.paired_bootstrap(a, b, total, DELTA, seed, side, 99).value
            found["bootstrap", side] += sign * (limit - 3 * n) > 0
            limit = module.cluster_rate(successes.tolist(), sizes.tolist(), DELTA, side).value
            found["clusters", side] += sign * (limit - Fraction(27, 50)) > 0
    return [
        Trial(f"{name}, {side}", count, draws, float(DELTA) + 0.03, float(DELTA) - 0.03)
        for (name, side), count in found.items()
    ]


# --- checks ------------------------------------------------------------------------------------------------


@check("coverage.betting-many", "§5: betting limits, many units, any stopping time", ("iid",))
def betting_many(budget: Budget) -> Finding:
    """60 units (150 in a full run) of hard laws and of an adversary."""
    n, draws = (150, 5000) if budget.full else (60, 600)
    return judge(try_betting(betting, n, draws, generator(budget, 1)))


@check("coverage.betting-limits", "§5: betting limits as limits, and of paired differences", ("iid",))
def betting_limits(budget: Budget) -> Finding:
    """25 units with a rare extreme."""
    return judge(try_limits(betting, 25, 3000 if budget.full else 150, generator(budget, 2)))


@check("coverage.randomisation", "§5: randomisation p-values, ties counted", ("sign-symmetric",))
def randomisation(budget: Budget) -> Finding:
    """24 units under exchangeability."""
    return judge(try_randomisation(resampling, 24, 40_000 if budget.full else 3000, generator(budget, 3)))


@check("coverage.asymptotic", "§5: bootstrap and clustered rates, asymptotic", ("iid", "asymptotic"))
def asymptotic(budget: Budget) -> Finding:
    """60 units or clusters."""
    return judge(try_asymptotic(resampling, 60, 10_000 if budget.full else 1500, generator(budget, 4)))


@check("coverage.drawn-steps", "§5: one certified step for each unit, drawn evenly", ("A-EVIDENCE",))
def drawn_steps(budget: Budget) -> Finding:
    """Shares of the drawn steps, and the number of clean steps that are needed."""
    draws = 60_000 if budget.full else 6000
    trials = []
    for steps in (2, 3, 7):
        for name in ("s", "t"):
            hits = [0] * steps
            for unit in range(draws):
                hits[guarantee.drawn_index(f"{name}{unit}", steps)] += 1
            trials += [
                Trial(f"step {i} of {steps}", hit, draws, 1 / steps, 1 / steps) for i, hit in enumerate(hits)
            ]
    for wrong, alpha in product((0, 2), (Fraction(1, 20), Fraction(1, 3))):
        needed = guarantee.units_needed(wrong, wrong + 1, alpha, DELTA)
        smallest = next(n for n in range(wrong + 1, 400) if tail(n, alpha, range(wrong + 1)) <= DELTA)
        if needed != smallest:
            return Finding(
                "failed", draws, f"{needed} drawn steps are not the smallest number, {smallest} is"
            )
    return judge(trials)


# --- nothing goes untested ---------------------------------------------------------------------------------

MODULES: Final[tuple[ModuleType, ...]] = (bounds, betting, resampling, sharing, power)
"""Modules whose public functions are bounds or decide with them."""

_COUNTS, _MEANS = ("coverage.counts", "laws.clopper-pearson"), ("coverage.means",)
_BETS = ("coverage.betting", "coverage.betting-many")
_LIMITS = ("coverage.betting-limits",)
_PLAN = ("coverage.planning",)

ENTRIES: Final[Mapping[str, tuple[str, ...]]] = {
    "bounds.binomial_tail_at_least": _COUNTS,
    "bounds.binomial_tail_at_most": _COUNTS,
    "bounds.clopper_pearson": _COUNTS,
    "bounds.empirical_bernstein_lower": _MEANS,
    "bounds.hoeffding_lower": _MEANS,
    "bounds.rate_above": _COUNTS,
    "bounds.rate_at_least": _COUNTS,
    "bounds.rate_at_most": _COUNTS,
    "bounds.rate_limit": (*_COUNTS, "coverage.clusters"),
    "betting.betting_exceeds": _BETS,
    "betting.betting_lower": _LIMITS,
    "betting.betting_p_value": _BETS,
    "betting.betting_upper": _LIMITS,
    "betting.decided_after": _BETS,  # what betting_exceeds asks
    "betting.difference_lower": _LIMITS,
    "betting.noninferior": _LIMITS,
    "betting.plog": _BETS,  # tunes the bets, and validity must not depend on it
    "betting.smallest_margin": _LIMITS,
    "resampling.bootstrap_limit": ("coverage.asymptotic",),  # what paired_bootstrap is made of
    "resampling.bootstrap_sums": ("coverage.asymptotic",),
    "resampling.cluster_rate": ("coverage.asymptotic",),
    "resampling.paired_bootstrap": ("coverage.asymptotic",),
    "resampling.paired_swap": ("coverage.randomisation",),
    "resampling.sign_flip": ("coverage.randomisation",),
    "resampling.swap_p_value": ("coverage.randomisation",),  # what paired_swap is made of
    "resampling.swap_sums": ("coverage.randomisation",),
    "budget.fixed_sequence": ("coverage.budget",),
    "budget.holm": ("coverage.budget",),
    "budget.split_budget": ("coverage.budget",),
    "power.clean_units_needed": (*_PLAN, "laws.clean-units"),
    "power.simulated_power": _PLAN,
    "power.units_for_agreement": _PLAN,
    "power.units_for_mean": _PLAN,
    "power.units_for_rate": _PLAN,
}
"""Checks of each public function of :data:`MODULES`, by module and name."""


def public_functions(modules: Sequence[ModuleType]) -> list[str]:
    """Public functions that the modules define, as ``module.name``, sorted."""
    return sorted(
        f"{module.__name__.rpartition('.')[2]}.{name}"
        for module in modules
        for name, value in inspect.getmembers(module, inspect.isfunction)
        if value.__module__ == module.__name__ and not name.startswith("_")
    )


@check("coverage.entries", "§5: no bound without a check", ())
def entries(_: Budget) -> Finding:
    """The table of entries against the modules."""
    found = public_functions(MODULES)
    difference = sorted(set(found) ^ set(ENTRIES))
    if difference:
        return Finding(
            "failed", len(found), f"functions and table of entries differ: {', '.join(difference)}"
        )
    return Finding("passed", len(found), "every public function has an entry")


CHECKS: tuple[Check, ...] = (
    entries,
    *coverage_exact.CHECKS,
    *coverage_plans.CHECKS,
    *(betting_many, betting_limits, randomisation, asymptotic, drawn_steps),
    *coverage_selection.CHECKS,
)
"""Checks of this module, of those with exact rates, and of the one about selection."""
