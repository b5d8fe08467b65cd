"""Claims about agreement with embed tuning: whole units, and single decisions."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from certify.evidence.load import (
    Evidence,
    Subject,
    not_evaluated,
    settings,
    ticket_arm,
    unit_assumptions,
)
from certify.evidence.read import TranslationRecord
from certify.stats.betting import betting_lower
from certify.stats.claim import DELTA, Claim, Finding
from certify.stats.rates import rate_limit


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
    if evidence.design == "fixed":
        limit = rate_limit(sum(equal), len(equal), delta, "lower")
    else:
        limit = betting_lower(equal, delta, evidence.design)
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
    )


def token_agreement(evidence: Evidence, subject: Subject, *, delta: Fraction = DELTA) -> Claim:
    """Mean over units of the share of decisions that equal E*'s; units weigh equally (theory §5).

    The share of a unit is over all steps of its records together. Lower limit: betting, in the order of
    ranks.
    """
    kind = "token-agreement"
    arm = ticket_arm(evidence, subject)
    if arm is None:
        return not_evaluated(kind, evidence, comparator="reference")
    shares = [_share(records, arm.name) for records in evidence.units.values()]
    limit = betting_lower(shares, delta, evidence.design)
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
        signature=settings(kind, evidence, arm=arm, procedure=limit.procedure, delta=delta),
        evidence=(evidence.sha256,),
    )


def _share(records: Sequence[TranslationRecord], arm: str) -> Fraction:
    steps = sum(len(record.reference.tokens) for record in records)
    return 1 - Fraction(sum(len(record.arms[arm].differs) for record in records), steps)
