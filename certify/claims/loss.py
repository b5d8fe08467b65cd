"""Claims about unrelated text: what a ticket costs outside its task (theory §5, §6.6).

A mean of losses has no limit without a bound on them, and a clean sample proves no bound. So two claims stand
side by side: the mean of the rises, each counted up to :data:`CAP`, and how often a rise lies above it.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Final

from certify.base.enclosure import rational
from certify.claims.claim import DELTA, Claim, Finding, not_evaluated, settings, unit_assumptions
from certify.claims.kind import UPPER, Kind, Variant, one_by_one
from certify.evidence.load import Evidence, Subject, ticket_arm
from certify.evidence.read import BASE_ARM, UNIT, Arm
from certify.stats.betting import difference_lower
from certify.stats.limits import witnesses
from certify.stats.rates import rate_limits
from certify.stats.witness import upper_value

CAP: Final = 2
"""Nats per token up to which the rise of a unit counts in the mean."""

AIM: Final = Fraction(1, 10)
"""Rise, in nats per token, at which limits are sharp (:mod:`certify.stats.betting`, step 3)."""


def unrelated_loss(evidence: Evidence, subject: Subject, *, delta: Fraction = DELTA) -> Claim:
    """Mean of min(rise, :data:`CAP`) of the loss per token on unrelated text: upper limit, in nats.

    The rise of a unit is ``(nats of the ticket - nats of the base) / tokens``, sums over its windows; units
    weigh equally, in their order. One below ``-CAP`` counts as ``-CAP``, which can only raise the mean. The
    upper limit is minus :func:`certify.stats.betting.difference_lower` of the falls, with scale ``2 CAP``.
    The claim "up by at most eps" is shown if ``upper <= eps``; what lies above the cap is covered by
    :func:`unrelated_excess`.

    Nats are rounded to 1e-9 for each window; per token that moves a unit by at most 1e-9.
    """
    kind = "unrelated-loss"
    arm = ticket_arm(evidence, subject)
    if arm is None:
        return not_evaluated(kind, evidence, comparator="base")
    rises = unit_rises(evidence, arm)
    n = len(rises)
    worst = max(rises, key=lambda unit: rises[unit])
    falls = [max(-Fraction(CAP), min(Fraction(CAP), -rise)) for rise in rises.values()]
    bounded = min(rises.values()) >= -CAP
    limit = difference_lower(falls, delta, evidence.design, scale=2 * CAP, aim=-AIM, bounded=bounded)
    return Claim(
        kind=kind,
        comparator="base",
        extraction=None,
        finding=Finding.MEASURED,
        code="MEASURED",
        text=f"loss per token up by {float(-limit.estimate):+.4f} nats on average, at most"
        f" {float(-limit.value):+.4f}, rises counted up to {CAP} ({n} units)",
        estimate=-limit.estimate,
        upper=-limit.value,
        delta=delta,
        n=n,
        unit=evidence.manifest.text.unit,
        procedure=limit.procedure,
        assumptions=unit_assumptions(evidence),
        signature=settings(kind, evidence, arm=arm, procedure=limit.procedure, delta=delta, cap=CAP, aim=AIM),
        evidence=(evidence.sha256,),
        detail={"worst_unit": evidence.windows[worst][0].unit, "worst": rational(rises[worst])},
        witness=witnesses(limit),
    )


def unrelated_loss_lower(claim: Claim) -> Fraction | None:
    """The opposite limit: minus the upper limit of the falls.

    None if a unit falls by more than the cap: its fall cannot be counted in full.
    """
    upper = upper_value(claim.witness, -CAP, CAP)
    return None if upper is None else -upper


def unrelated_excess(evidence: Evidence, subject: Subject, *, delta: Fraction = DELTA) -> Claim:
    """Share of units of unrelated text whose loss per token rises by more than :data:`CAP`: upper limit.

    Clopper-Pearson; betting for a sequential design. If none of 200 units does, the limit is .0149 at delta
    = .05.
    """
    kind = "unrelated-excess"
    arm = ticket_arm(evidence, subject)
    if arm is None:
        return not_evaluated(kind, evidence, comparator="base")
    above = [int(rise > CAP) for rise in unit_rises(evidence, arm).values()]
    _, limit, witness = rate_limits(above, delta, evidence.design)
    return Claim(
        kind=kind,
        comparator="base",
        extraction=None,
        finding=Finding.MEASURED,
        code="MEASURED",
        text=f"loss per token up by more than {CAP} nats in {sum(above)} of {len(above)} units, in at most"
        f" {float(limit.value):.2%}",
        estimate=Fraction(sum(above), len(above)),
        upper=limit.value,
        delta=delta,
        n=len(above),
        unit=evidence.manifest.text.unit,
        procedure=limit.procedure,
        assumptions=unit_assumptions(evidence),
        signature=settings(kind, evidence, arm=arm, procedure=limit.procedure, delta=delta, cap=CAP, aim=AIM),
        evidence=(evidence.sha256,),
        detail={"above": sum(above)},
        witness=(witness,),
    )


def unrelated_excess_lower(claim: Claim) -> Fraction | None:
    """The opposite limit: the lower one for the same units."""
    (witness,) = claim.witness
    return Fraction(witness.lower, witness.grid)


def unit_rises(evidence: Evidence, arm: Arm) -> dict[str, Fraction]:
    """Rise of the loss per token of each unit, in nats, in the order of units."""
    return {
        unit: Fraction(
            sum(record.nats[arm.name] - record.nats[BASE_ARM] for record in records),
            UNIT * sum(record.tokens for record in records),
        )
        for unit, records in evidence.windows.items()
    }


UNRELATED_LOSS: Final = Kind(
    name="unrelated-loss",
    meaning="mean rise of the loss per token on unrelated text, rises counted up to 2; upper limit, in nats",
    roles=("loss",),
    variants=(Variant("base"),),
    compute=one_by_one(
        lambda evidence, subject, _variant, delta: unrelated_loss(evidence, subject, delta=delta)
    ),
    tests=UPPER,
    reverse=unrelated_loss_lower,
)
UNRELATED_EXCESS: Final = Kind(
    name="unrelated-excess",
    meaning="share of units of unrelated text whose loss per token rises by more than 2 nats; upper limit",
    roles=("loss",),
    variants=(Variant("base"),),
    compute=one_by_one(
        lambda evidence, subject, _variant, delta: unrelated_excess(evidence, subject, delta=delta)
    ),
    tests=UPPER,
    reverse=unrelated_excess_lower,
)
