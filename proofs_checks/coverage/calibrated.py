"""``certify.claims.calibrated`` on models of known disagreement: wrong findings, and power.

The populations are those of :mod:`proofs_checks.coverage.guarantee`, each arm followed along its own output,
which is that of E*: what a unit counts is the share of its sure steps that disagree, the mean of which is the
rate at which a step drawn in it does. Steps taken together, and units without a sure step, would show what is
false.
"""

from __future__ import annotations

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
from proofs_checks.worlds.populations import Population, follow

T: Final = "0.5"
"""The declared margin: those of certified steps are above it, the others below."""


def declares(alpha: str = ALPHA) -> Subject:
    """The subject of a ticket that declares the margin."""
    digest = synthetic.digest("record")
    record = {"path": "calibrations/t.json", "sha256": digest}
    found = Calibration.model_validate({"t": T, "alpha": alpha, "text_sha256": digest, "record": record})
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


def _finding(module: Any, evidence: Evidence, about: Subject, delta: Fraction, design: str) -> str:
    manifest = evidence.manifest.model_copy(update={"design": design})
    return str(module.calibrated(replace(evidence, manifest=manifest), about, delta).finding)
