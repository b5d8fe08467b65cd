"""Known truth for everything from records to the verdict: the guarantee, each claim, several texts, tickets.

The bounds behind have checks of their own (:mod:`proofs_checks.coverage.means`); here the program is run as
it ships, on predictors whose truth is known as a fraction (:mod:`proofs_checks.worlds.populations`). False
findings and false certificates are accepted up to what the promised error probability explains
(:mod:`proofs_checks.coverage.trials`), and clear truths must be found out with a stated power, because a
judge that never certifies is never wrong.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np

from certify.claims import calibrated, criteria, registry
from certify.claims.promise import GUARANTEE
from certify.gate import calibrate
from proofs_checks.check import Budget, Check, CheckFinding, check
from proofs_checks.coverage.calibrated import try_calibrated, try_choice
from proofs_checks.coverage.claims import CASES, try_claim, try_edges, try_stopping
from proofs_checks.coverage.guarantee import UNITS, try_guarantee, try_power
from proofs_checks.coverage.informing import KNOWN, try_known
from proofs_checks.coverage.trials import Trial, generator, judge
from proofs_checks.coverage.verdict import PLOTS, pooled, try_plot, try_texts
from proofs_checks.worlds.testbed import make_stage

MOST: Final = 100
"""Comparisons of this module at most, of all those of a run."""

FULL: Final = 25
"""How many times the draws of a fast run a full one has."""

FULL_VERDICTS: Final = 12
"""The same for verdicts, which take the longest."""


def guarantee_trials(scale: int, random: np.random.Generator) -> list[Trial]:
    """Criteria and calibrated margins, with ``scale`` times the draws of a fast run."""
    return [
        *try_guarantee(criteria, UNITS, 80 * scale, random),
        *try_power(criteria, UNITS, 20 * scale, random),
        *try_calibrated(calibrated, UNITS, 80 * scale, random),
        *try_choice(calibrated, calibrate, UNITS, 80 * scale, random),
    ]


def claim_trials(scale: int, random: np.random.Generator) -> list[Trial]:
    """:mod:`proofs_checks.coverage.claims` and :mod:`proofs_checks.coverage.informing`, likewise."""
    trials = try_edges(random)
    trials += [try_known(case, 20 * scale, random) for case in KNOWN]
    for case in CASES:
        # Ten null tickets take ten times as long.
        trials += try_claim(case, (14 if "nulls" in case.claim else 40) * scale, random)
    return [*trials, *try_stopping(14 * scale, random)]


def untried() -> list[str]:
    """Kinds of claims that have no case here; empty if everything is as it should be."""
    tried = {*(case.kind for case in CASES), *(case.kind for case in KNOWN), GUARANTEE.name}
    return [name for name in registry.KINDS if name not in tried]


def verdict_trials(scale: int, random: np.random.Generator, folder: Path) -> tuple[list[Trial], list[str]]:
    """:mod:`proofs_checks.coverage.verdict`, likewise; and where files and memory differ, in words.

    So many of each ticket go through files as ``scale`` says, in a fast run one of every twelfth ticket.
    ``folder`` is empty.
    """
    stage = make_stage(folder)
    trials, differences = [], []
    for place, plot in enumerate(PLOTS):
        # Ten of what is right: one that never certifies misses them all, which chance does not explain.
        draws = 10 if plot.right else {"release": 2, "strict": 2, "paper": 6}[plot.policy]
        files = scale if scale > 1 or place % 12 == 0 else 0
        trial, difference = try_plot(plot, stage, draws * scale, random, files)
        trials.append(trial)
        differences += [difference] if difference else []
    return [*trials, pooled(trials)], differences


@check("coverage.guarantee", "§5: the guarantee, from steps to the finding", ("A-UNITS",))
def guarantee_holds(budget: Budget) -> CheckFinding:
    """Units that differ in rate and number of certified steps; fixed, and looked at as they come."""
    return judge(guarantee_trials(FULL if budget.full else 1, generator(budget, 11)))


@check("coverage.claims", "§5: each claim, from records to the answer", ("A-UNITS",))
def claims(budget: Budget) -> CheckFinding:
    """Claims at the thresholds of the shipped policies, at the ends of the scale, until decided; others."""
    lacking = untried()
    if lacking:
        return CheckFinding("failed", 0, f"no case for the claim {lacking[0]}")
    return judge(claim_trials(FULL if budget.full else 1, generator(budget, 12)))


@check("coverage.texts", "§5: one claim on several texts shares its error", ("A-UNITS",))
def texts(budget: Budget) -> CheckFinding:
    """Eight texts, all of them false, or all of them true, by a hair."""
    return judge(try_texts(1000 if budget.full else 40, generator(budget, 13)))


@check(
    "coverage.verdict",
    "§7: a false ticket is certified with probability delta at most, a good one mostly",
    ("A-UNITS", "A-EVIDENCE"),
)
def verdicts(budget: Budget) -> CheckFinding:
    """Tickets under release, strict and paper; some draws through files, gate and independent checker."""
    scale = FULL_VERDICTS if budget.full else 1
    with TemporaryDirectory() as folder:
        trials, differences = verdict_trials(scale, generator(budget, 14), Path(folder))
    found = judge(trials)
    return CheckFinding("failed", found.cases, "; ".join(differences)) if differences else found


CHECKS: tuple[Check, ...] = (guarantee_holds, claims, texts, verdicts)
