"""Claims about agreement with embed tuning: whole units, and single decisions."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Final

from certify.claims.claim import DELTA, Claim, Finding, not_evaluated, settings, unit_assumptions
from certify.claims.kind import LOWER, Kind, Variant, one_by_one, under_template
from certify.evidence.load import Evidence, Subject, ticket_arm
from certify.evidence.read import TranslationRecord
from certify.stats.betting import betting_lower
from certify.stats.limits import witnesses
from certify.stats.rates import rate_limits
from certify.stats.witness import upper_value

AIM: Final = Fraction(19, 20)
"""Mean token agreement at which limits are sharp (:mod:`certify.stats.betting`, step 3)."""


def agreement_rate(evidence: Evidence, subject: Subject, *, delta: Fraction = DELTA) -> Claim:
    """Share of units in which every decision equals E*'s, teacher-forced on E*'s output (theory §5).

    A unit counts 1 if ``differs`` is empty in all its records, else 0. Lower limit: Clopper-Pearson; betting
    for a sequential design.
    """
    kind = "agreement-rate"
    arm = ticket_arm(evidence, subject)
    if arm is None:
        return not_evaluated(kind, evidence, comparator="reference")
    equal = [
        int(not any(record.arms[arm.name].differs for record in records))
        for records in evidence.units.values()
    ]
    limit, _, witness = rate_limits(equal, delta, evidence.design)
    return Claim(
        kind=kind,
        comparator="reference",
        extraction=None,
        finding=Finding.MEASURED,
        code="MEASURED",
        text=f"all decisions equal in {sum(equal)} of {len(equal)} units",
        estimate=Fraction(sum(equal), len(equal)),
        lower=limit.value,
        delta=delta,
        n=len(equal),
        unit=evidence.manifest.text.unit,
        procedure=limit.procedure,
        assumptions=unit_assumptions(evidence),
        signature=settings(kind, evidence, arm=arm, procedure=limit.procedure, delta=delta),
        evidence=(evidence.sha256,),
        detail={"equal": sum(equal)},
        witness=(witness,),
    )


def token_agreement(evidence: Evidence, subject: Subject, *, delta: Fraction = DELTA) -> Claim:
    """Mean over units of the share of decisions that equal E*'s; units have equal weight (theory §5).

    The share of a unit is over all steps of its records together. Lower limit: betting, in the order of
    units.
    """
    kind = "token-agreement"
    arm = ticket_arm(evidence, subject)
    if arm is None:
        return not_evaluated(kind, evidence, comparator="reference")
    shares = equal_shares(evidence, arm.name)
    limit = betting_lower(shares, delta, evidence.design, aim=AIM)
    return Claim(
        kind=kind,
        comparator="reference",
        extraction=None,
        finding=Finding.MEASURED,
        code="MEASURED",
        text=f"mean share of equal decisions {float(limit.estimate):.4f} over {len(shares)} units",
        estimate=limit.estimate,
        lower=limit.value,
        delta=delta,
        n=len(shares),
        unit=evidence.manifest.text.unit,
        procedure=limit.procedure,
        assumptions=unit_assumptions(evidence),
        signature=settings(kind, evidence, arm=arm, procedure=limit.procedure, delta=delta, aim=AIM),
        evidence=(evidence.sha256,),
        witness=witnesses(limit),
    )


def upper_rate(claim: Claim) -> Fraction | None:
    """The opposite limit: the upper one for the same units."""
    return upper_value(claim.witness)


def equal_shares(evidence: Evidence, arm: str) -> list[Fraction]:
    """Share of decisions of each unit that equal E*'s, over all its records; in the order of units."""
    return [_share(records, arm) for records in evidence.units.values()]


def template_agreement(evidence: Evidence, subject: Subject, *, delta: Fraction = DELTA) -> Claim:
    """:func:`agreement_rate` under a template other than the ticket's (theory §6.2)."""
    return under_template(agreement_rate(evidence, subject, delta=delta), "template-agreement", evidence)


def _share(records: Sequence[TranslationRecord], arm: str) -> Fraction:
    steps = sum(len(record.reference.tokens) for record in records)
    return 1 - Fraction(sum(len(record.arms[arm].differs) for record in records), steps)


AGREEMENT_RATE: Final = Kind(
    name="agreement-rate",
    meaning="share of units in which every decision is E*'s; lower limit",
    roles=("evaluation",),
    steps=True,
    variants=(Variant("reference"),),
    compute=one_by_one(
        lambda evidence, subject, _variant, delta: agreement_rate(evidence, subject, delta=delta)
    ),
    tests=LOWER,
    reverse=upper_rate,
)
TOKEN_AGREEMENT: Final = Kind(
    name="token-agreement",
    meaning="mean over units of the share of decisions that are E*'s; lower limit",
    roles=("evaluation",),
    steps=True,
    variants=(Variant("reference"),),
    compute=one_by_one(
        lambda evidence, subject, _variant, delta: token_agreement(evidence, subject, delta=delta)
    ),
    tests=LOWER,
    reverse=upper_rate,
)
TEMPLATE_AGREEMENT: Final = Kind(
    name="template-agreement",
    meaning="agreement-rate under another template; lower limit",
    roles=("other-template",),
    steps=True,
    variants=(Variant("reference"),),
    compute=one_by_one(
        lambda evidence, subject, _variant, delta: template_agreement(evidence, subject, delta=delta)
    ),
)
