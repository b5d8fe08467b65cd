"""The calibrated margin: where the served model is sure of itself, does it decide as E* does? (theory §5)

Definitions, exact to the last digit:

* *Own steps* of a record: the positions of ``own.tokens`` of the ticket's arm, the output that it generated.
* *Own margin* at one: ``max(0, p_a - p_b)`` of the arm itself, in units of 1e-9. A step is *sure* if that
is at
  least ``t``, which is a whole number of these units.
* *Disagrees*: the step occurs in ``own.differs``: at this prefix the argmax of E* differs from the arm's.
* *Unit*: the share of its sure steps that disagree; a unit without a sure step is left out.
* *Limits* of the mean of these shares, both by betting, each with error ``delta``, aimed at ``alpha``.
* *Finding*: VACUOUS if no unit has a sure step; HELD if upper <= alpha, REFUTED if lower > alpha, else
  INCONCLUSIVE. ``t`` and ``alpha`` are those that the ticket declares; what was chosen on the evaluated text
  is no promise about it (:mod:`certify.evidence.choice_record`).
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Final

from certify.base.errors import InvalidInputError
from certify.claims.claim import Claim, Finding, missing, not_evaluated, settings, unit_assumptions
from certify.evidence.load import Evidence, Subject, ticket_arm
from certify.evidence.read import UNIT, Arm
from certify.stats.betting import betting_lower
from certify.stats.limits import witnesses
from certify.stats.witness import upper_value

COMMAND: Final = "certify calibrate --ticket FILE#ID --data CHOICE.json"
"""How a ticket comes to declare a margin."""

Steps = tuple[tuple[int, bool], ...]
"""Own margin, in units of 1e-9, and whether E* disagrees, of each own step of a unit."""


def own_steps(evidence: Evidence, arm: str) -> tuple[Steps, ...]:
    """The own steps of an arm by unit, in the order of units.

    Raises:
        InvalidInputError: the evidence does not follow this arm along its own output
            (``MARGINS_NOT_EVALUATED``).
    """
    found = []
    for records in evidence.units.values():
        steps: list[tuple[int, bool]] = []
        for record in records:
            own = record.arms[arm].own
            if own is None:
                name = evidence.manifest.text.name
                text = f"evidence {name} holds no margins of {arm}: certify evaluate --evidence ... --margins"
                raise InvalidInputError(text, code="MARGINS_NOT_EVALUATED")
            wrong = {t for t, _ in own.differs}
            steps += ((own.margin(t), t in wrong) for t in range(len(own.tokens)))
        found.append(tuple(steps))
    return tuple(found)


def sure_steps(units: Sequence[Steps], t: str) -> list[list[bool]]:
    """Of each unit with a sure step: whether each of these disagrees; ``t`` as a ticket has it."""
    least = Fraction(t) * UNIT
    sure = [[wrong for margin, wrong in steps if margin >= least] for steps in units]
    return [steps for steps in sure if steps]


def disagreement_shares(sure: Sequence[Sequence[bool]]) -> list[Fraction]:
    """Of each unit: the share of its sure steps that disagree."""
    return [Fraction(sum(steps), len(steps)) for steps in sure]


def calibrated(evidence: Evidence, subject: Subject, delta: Fraction) -> Claim:
    """Do decisions with an own margin of at least t disagree with E* at a mean unit rate of at most alpha?"""
    declared, arm = subject.ticket.calibration, ticket_arm(evidence, subject)
    if declared is None:
        return _lacking(evidence, "CALIBRATION_NOT_DECLARED", f"the ticket declares no margin t: {COMMAND}")
    if arm is None:
        return not_evaluated("guarantee", evidence, comparator="calibrated")
    if (lacking := _margins_lacking(evidence, arm, declared.t)) is not None:
        return lacking
    units, alpha = own_steps(evidence, arm.name), Fraction(declared.alpha)
    sure = sure_steps(units, declared.t)
    shares = disagreement_shares(sure)
    counts = {
        "steps": sum(map(len, units)),
        "sure": sum(map(len, sure)),
        "disagreements": sum(map(sum, sure)),
    }
    said = (
        f"{counts['sure']} of {counts['steps']} own steps have a margin of at least {declared.t},"
        f" {counts['disagreements']} of them disagree"
    )
    figures: dict[str, Any] = {}
    finding = Finding.VACUOUS
    if shares:
        limit = betting_lower(shares, delta, evidence.design, aim=alpha)
        lower, upper = limit.value, upper_value(witnesses(limit))
        finding = Finding.REFUTED if lower > alpha else Finding.INCONCLUSIVE
        if upper is not None and upper <= alpha:
            finding = Finding.HELD
        figures = {"estimate": limit.estimate, "lower": lower, "upper": upper, "procedure": limit.procedure}
        figures["witness"] = witnesses(limit)
        said += (
            f"; mean unit rate {float(limit.estimate):.4f} over {len(shares)} units, between"
            f" {float(lower):.4f} and {float(1 if upper is None else upper):.4f}, alpha = {declared.alpha}"
        )
    else:
        said += ": nothing is promised"
    return Claim(
        kind="guarantee",
        comparator="calibrated",
        extraction=None,
        finding=finding,
        code=f"GUARANTEE_{finding.name}",
        text=said,
        delta=delta,
        n=len(shares),
        unit=evidence.manifest.text.unit,
        assumptions=unit_assumptions(evidence),
        signature=settings(
            "guarantee:calibrated",
            evidence,
            arm=arm,
            procedure=figures.get("procedure"),
            delta=delta,
            t=declared.t,
            alpha=declared.alpha,
            object=subject.ticket.released.object,
        ),
        evidence=(evidence.sha256,),
        detail={"t": declared.t, "alpha": declared.alpha, **counts, "units": len(units)},
        **figures,
    )


def _margins_lacking(evidence: Evidence, arm: Arm, t: str) -> Claim | None:
    """The claim that cannot be made for want of margins that were recorded under this t; None if it can."""
    margins = evidence.manifest.margins or {}
    if arm.name not in margins:
        text = "the evidence does not follow the ticket along its own output: certify evaluate --evidence ..."
        return _lacking(evidence, "MARGINS_NOT_EVALUATED", f"{text} --margins")
    known = margins[arm.name]
    if known is None or Fraction(known) != Fraction(t):
        before = "no margin" if known is None else f"the margin {known}"
        text = f"the ticket declared {before} when it was evaluated, and now {t}: evaluate it on new text"
        return _lacking(evidence, "CALIBRATION_DIFFERS", text)
    return None


def _lacking(evidence: Evidence, code: str, text: str) -> Claim:
    return missing("guarantee", code, text, comparator="calibrated", evidence=(evidence.sha256,))
