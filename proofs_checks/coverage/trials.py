"""When a simulated miss rate is accepted, what a run of the suite risks, and what it would have seen.

The number of misses in independent draws is binomial. It is accepted between two limits: above, the promised
error probability must explain it; below, so must the rate that is known or that theory gives, or else the
procedure is weaker than it claims to be, or the simulation is blind. *False alarms:* each of at most
:data:`COMPARISONS` comparisons has a share of :data:`ALARM`, so that a correct program fails anywhere in a
run with probability below :data:`ALARM`. The price is a smallest defect that is seen: every check prints it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from scipy.stats import binom

from proofs_checks.check import Budget, CheckFinding

ALARM: Final = 1e-6
"""Probability that any comparison of a run fails although everything is right."""

COMPARISONS: Final = 400
"""Most comparisons of a run."""

SEEN: Final = 0.999
"""Probability with which the smallest defect that is reported would be seen."""

POWER: Final = 0.9
"""How often a clear truth must be found out, at least."""

DELTA: Final = Fraction(1, 20)


@dataclass(frozen=True, slots=True)
class Trial:
    """Misses of one procedure on one law, in independent draws.

    The miss rate must not be above ``most``, nor below ``least``; 0 if nothing is known. With ``silent`` a
    miss is a clear truth that was not found out; the power is what is left.
    """

    what: str
    misses: int
    draws: int
    most: float
    least: float = 0.0
    silent: bool = False

    @property
    def accepted(self) -> tuple[int, int]:
        """Fewest and most misses that are accepted, each with a share of the false alarms."""
        share = ALARM / COMPARISONS / 2
        highest = int(binom.isf(share, self.draws, self.most))
        lowest = int(binom.ppf(share, self.draws, self.least)) if self.least > 0 else 0
        return lowest, highest

    @property
    def defect(self) -> float:
        """Smallest miss rate above ``most`` that is seen with probability :data:`SEEN`."""
        highest = self.accepted[1]
        low, high = self.most, 1.0
        while high - low > 1e-4:
            middle = (low + high) / 2
            low, high = (low, middle) if binom.sf(highest, self.draws, middle) >= SEEN else (middle, high)
        return high


def clear(what: str, found: int, draws: int) -> Trial:
    """A clear truth, and how often it was found out."""
    return Trial(what, draws - found, draws, 1 - POWER, silent=True)


def judge(trials: Sequence[Trial]) -> CheckFinding:
    """Passed if every trial is within its limits; the detail says what would have been seen."""
    cases = sum(trial.draws for trial in trials)
    if not trials:
        return CheckFinding("failed", 0, "nothing was tried")
    for trial in trials:
        lowest, highest = trial.accepted
        if not lowest <= trial.misses <= highest:
            detail = f"{trial.what}: {trial.misses} misses of {trial.draws:,}, accepted {lowest} to {highest}"
            return CheckFinding("failed", cases, detail)
    errors = [trial for trial in trials if not trial.silent]
    rates = [trial.misses / trial.draws for trial in errors]
    powers = [1 - trial.misses / trial.draws for trial in trials if trial.silent]
    hardest = max(errors, key=lambda trial: trial.defect - trial.most)
    return CheckFinding(
        "passed",
        cases,
        f"{len(trials)} comparisons, false alarms below {ALARM:g} a run;"
        f" miss rates {min(rates):.4f} to {max(rates):.4f};"
        f" a rate of {hardest.defect:.3f} for {hardest.most:.3f} would have been seen"
        + (f"; power {min(powers):.2f} or more" if powers else ""),
    )


def generator(budget: Budget, stream: int) -> np.random.Generator:
    """Random numbers of one check: the seed of the run, and a stream of its own."""
    return np.random.Generator(np.random.PCG64([budget.seed, stream]))
