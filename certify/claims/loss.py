"""The claim about unrelated text: what a ticket costs outside its task (theory §6.6)."""

from __future__ import annotations

from fractions import Fraction
from typing import Final

from certify.base.exact import rational
from certify.claims.claim import DELTA, Claim, Finding, not_evaluated, settings, unit_assumptions
from certify.claims.kind import UPPER, Kind, Variant, one_by_one
from certify.evidence.load import Evidence, Subject, ticket_arm
from certify.evidence.read import BASE_ARM, UNIT, Arm
from certify.stats.betting import difference_lower
from certify.stats.limits import witnesses
from certify.stats.witness import upper_value

CAP: Final = 2
"""Nats by which no unit may change: outside, the claim fails (assumption A-CAP)."""


def unrelated_loss(evidence: Evidence, subject: Subject, *, delta: Fraction = DELTA) -> Claim:
    """Mean rise of the loss per token on unrelated text: upper limit, in nats.

    The value of a unit is ``(nats of the ticket - nats of the base) / tokens``, sums over its windows; units
    weigh equally, in their order. A mean needs bounded values: a unit above :data:`CAP` makes the
    claim FAILED, one below ``-CAP`` counts as ``-CAP``, which can only raise the mean. Then the upper limit
    is minus :func:`certify.stats.betting.difference_lower` of the falls, with scale ``2 CAP``. The claim
    "up by at most eps" is shown if ``upper <= eps``.

    Nats are rounded to 1e-9 for each window; per token that moves a unit by at most 1e-9.
    """
    kind = "unrelated-loss"
    arm = ticket_arm(evidence, subject)
    if arm is None:
        return not_evaluated(kind, evidence, comparator="base")
    rises = _rises(evidence, arm)
    n = len(rises)
    worst = max(rises, key=lambda unit: rises[unit])
    beyond = [unit for unit, rise in rises.items() if rise > CAP]
    # Above the cap a unit has failed the claim already; clipped it only serves the estimate.
    falls = [max(-Fraction(CAP), min(Fraction(CAP), -rise)) for rise in rises.values()]
    bounded = min(rises.values()) >= -CAP
    limit = difference_lower(falls, delta, evidence.design, scale=2 * CAP, bounded=bounded)
    shown = f"no limit: {len(beyond)} units rise by more than {CAP}"
    if not beyond:
        shown = f"at most {float(-limit.value):+.4f}"
    return Claim(
        kind=kind,
        comparator="base",
        extraction=None,
        finding=Finding.FAILED if beyond else Finding.MEASURED,
        code="LOSS_BEYOND_CAP" if beyond else "MEASURED",
        text=f"loss per token up by {float(-limit.estimate):+.4f} nats on average, {shown} ({n} units)",
        estimate=-limit.estimate,
        upper=None if beyond else -limit.value,
        delta=delta,
        n=n,
        unit=evidence.manifest.text.unit,
        procedure=limit.procedure,
        assumptions=(*unit_assumptions(evidence), "A-CAP"),
        signature=settings(kind, evidence, arm=arm, procedure=limit.procedure, delta=delta, cap=CAP),
        evidence=(evidence.sha256,),
        detail={
            "worst_unit": evidence.windows[worst][0].unit,
            "worst": rational(rises[worst]),
            "beyond_cap": len(beyond),
        },
        witness=witnesses(limit),
    )


def unrelated_loss_lower(claim: Claim) -> Fraction | None:
    """The opposite limit: minus the upper limit of the falls.

    Rises above the cap count as the cap. None if a unit falls by more than the cap: its fall cannot be
    counted in full.
    """
    upper = upper_value(claim.witness, -CAP, CAP)
    return None if upper is None else -upper


def _rises(evidence: Evidence, arm: Arm) -> dict[str, Fraction]:
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
    meaning="mean rise of the loss per token on unrelated text; upper limit, in nats",
    roles=("loss",),
    variants=(Variant("base"),),
    compute=one_by_one(
        lambda evidence, subject, _variant, delta: unrelated_loss(evidence, subject, delta=delta)
    ),
    tests=UPPER,
    reverse=unrelated_loss_lower,
    checks=frozenset({"A-CAP"}),
)
