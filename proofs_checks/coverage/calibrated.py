"""``certify.claims.calibrated`` on models of known disagreement: wrong findings, and power.

The populations are those of :mod:`proofs_checks.coverage.guarantee`, each arm followed along its own output,
which is that of E*: what a unit counts is the share of its sure steps that disagree, the mean of which is the
rate at which a step drawn in it does. Steps taken together, and units without a sure step, would show what is
false.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, Final

import numpy as np

from certify.evidence.load import Evidence, Subject
from certify.ticket.declared import Calibration, DeclaredClaim
from proofs_checks.coverage.claims import subject
from proofs_checks.coverage.guarantee import ABOVE, ALPHA, AT, BAD, GOOD, IDLE
from proofs_checks.coverage.trials import DELTA, Trial, clear
from proofs_checks.worlds import synthetic
from proofs_checks.worlds.populations import Population, UnitKind, follow

T: Final = "0.5"
"""The declared margin: those of certified steps are above it, the others below."""


def declares(alpha: str = ALPHA, t: str = T) -> Subject:
    """The subject of a ticket that declares the margin."""
    digest = synthetic.digest("record")
    record = {"path": "calibrations/t.json", "sha256": digest}
    found = Calibration.model_validate({"t": t, "alpha": alpha, "text_sha256": digest, "record": record})
    claim = DeclaredClaim(kind="guarantee", comparator="calibrated", calibration=found)
    plain = subject()
    return replace(plain, ticket=plain.ticket.model_copy(update={"declared": (claim,)}))


def try_calibrated(
    module: Any, n: int, draws: int, random: np.random.Generator, delta: Fraction = DELTA
) -> list[Trial]:
    """False HELD just above ``alpha``, false REFUTED at it; HELD where nothing is sure; clear truths."""
    few = max(20, draws // 4)
    trials = []
    for design in ("fixed", "sequential"):
        for population, finding in ((ABOVE, "held"), (AT, "refuted"), (IDLE, "held")):
            some = 12 if population is IDLE else draws
            found = _count(module, population, n, some, random, delta, design, finding)
            what = f"calibrated {finding}, {design}, {population.name}"
            trials.append(Trial(what, found, some, float(delta)))
        for population, finding in ((GOOD, "held"), (BAD, "refuted")):
            found = _count(module, population, n, few, random, delta, design, finding)
            trials.append(clear(f"not calibrated {finding}, {design}, {population.name}", found, few))
    return trials


def graded(name: str, *kinds: tuple[int, int, bool]) -> Population:
    """Units of one step: weight, own margin in thousandths, and whether E* disagrees there."""
    found = []
    for weight, margin, wrong in kinds:
        arms = dict.fromkeys(("base", "reference"), synthetic.Behaviour())
        arms["t"] = synthetic.Behaviour(differs=((0, 99),) if wrong else ())
        record = synthetic.sentence(0, arms, tokens=[30], margins=[margin * 10**6])
        found.append(UnitKind(weight, (record,)))
    return follow(Population(name, tuple(found)), T)


STAIRS: Final = graded(
    "sure steps agree, the others disagree", (7000, 995, False), (1999, 500, False), (1001, 500, True)
)
"""The rate at which sure steps disagree is 0 above a margin of .5, and a hair above ``alpha`` from there."""

GRADES: Final = (995, 900, 800, 700, 600, 500, 400, 300)
FLAT: Final = graded(
    "a hair above alpha at every margin",
    *((weight, grade, wrong) for grade in GRADES for weight, wrong in ((8999, False), (1001, True))),
)


def try_choice(
    module: Any, choosing: Any, n: int, draws: int, random: np.random.Generator, delta: Fraction = DELTA
) -> list[Trial]:
    """t chosen on one text, and the claim made on another.

    *Learn then Test* must choose a t that is not good with probability ``delta`` at most. However it is
    chosen, the claim must be HELD of one that is not good as seldom: here of
    the t that looks best on the first text.
    """
    alpha, wrong, held, idle = Fraction(ALPHA), 0, 0, 0
    for evidence in STAIRS.samples(n, draws, random):
        good = [one.t for one in choosing.tested_margins(evidence, "t", alpha, delta) if one.good]
        wrong += bool(good) and Fraction(good[-1]) <= Fraction(1, 2)
        idle += not good
    for choice, evaluation in zip(
        FLAT.samples(n, draws, random), FLAT.samples(n, draws, random), strict=True
    ):
        steps = module.own_steps(choice, "t")
        means = {
            f"0.{grade}": _mean(module.disagreement_shares(module.sure_steps(steps, f"0.{grade}")))
            for grade in GRADES
        }
        t = min(means, key=lambda one: means[one])
        held += _finding(module, evaluation, declares(t=t), delta, "fixed", t) == "held"
    return [
        Trial(f"a margin is chosen, {STAIRS.name}", wrong, draws, float(delta)),
        Trial(f"held at the margin that looked best, {FLAT.name}", held, draws, float(delta)),
        clear(f"no margin is chosen, {STAIRS.name}", draws - idle, draws),
    ]


def _mean(shares: Sequence[Fraction]) -> Fraction:
    return sum(shares, Fraction(0)) / len(shares) if shares else Fraction(1)


def _count(
    module: Any,
    population: Population,
    n: int,
    draws: int,
    random: np.random.Generator,
    delta: Fraction,
    design: str,
    finding: str,
) -> int:
    about, samples = declares(), follow(population, T).samples(n, draws, random)
    return sum(_finding(module, one, about, delta, design) == finding for one in samples)


def _finding(
    module: Any, evidence: Evidence, about: Subject, delta: Fraction, design: str, t: str = T
) -> str:
    manifest = evidence.manifest.model_copy(update={"design": design, "margins": {"t": t}})
    return str(module.calibrated(replace(evidence, manifest=manifest), about, delta).finding)
