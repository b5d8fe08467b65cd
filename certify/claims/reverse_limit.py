"""The limit on the other side of a claim: what shows that a claim is false (rule 7 of a requirement).

At the claim's own ``delta``, for the same units in the same order:

* ``agreement-rate``: the upper Clopper-Pearson limit; for a sequential design the upper betting limit.
* ``token-agreement``: :func:`certify.stats.betting.betting_upper` of the shares.
* ``non-inferiority``, ``gain``: minus :func:`certify.stats.betting.difference_lower` of the negated
  differences; with several arms of kind ``full`` the smallest of these at ``delta / m``, m the number of
  arms compared.
* ``better-than-nulls``: likewise, the smallest over the m null tickets compared, each at ``delta / m``: one
  null ticket that is shown to be as good refutes the claim.
* ``unrelated-loss``: :func:`certify.stats.betting.difference_lower` of the rises, those above the cap
  counted as the cap; none if a unit falls by more than the cap, because its fall cannot be counted in full.
"""

from __future__ import annotations

from fractions import Fraction

from certify.claims.loss import CAP
from certify.claims.quality import unit_scores
from certify.evidence.load import Evidence, Subject, arms_of_kind, ticket_arm
from certify.evidence.null_labels import NULLS, null_arms
from certify.evidence.read import BASE_ARM, UNIT, Arm
from certify.stats.betting import betting_upper, difference_lower
from certify.stats.claim import Claim
from certify.stats.rates import rate_limit


def opposite_limit(claim: Claim, evidence: Evidence, subject: Subject) -> Fraction | None:
    """The opposite limit of a claim with one limit that was computed from ``evidence``; None if none exists.

    Raises:
        ValueError: a kind of claim without one.
    """
    arm = ticket_arm(evidence, subject)
    if arm is None:
        return None
    if claim.kind == "agreement-rate":
        return _agreement(claim, evidence, arm)
    if claim.kind == "token-agreement":
        return betting_upper(_shares(evidence, arm), claim.delta, evidence.design).value
    if claim.kind == "unrelated-loss":
        return _loss(claim, evidence, arm)
    if claim.kind == "better-than-nulls":
        arms = evidence.manifest.arms
        others = tuple(other for control in NULLS for other in null_arms(arms, subject.ticket, control))
    elif claim.kind in ("non-inferiority", "gain") and claim.comparator is not None:
        others = arms_of_kind(evidence, claim.comparator)
    else:
        raise ValueError(f"no opposite limit of {claim.name}")
    return min(_difference(claim, evidence, arm, other, claim.delta / len(others)) for other in others)


def _agreement(claim: Claim, evidence: Evidence, arm: Arm) -> Fraction:
    equal = [int(share == 1) for share in _shares(evidence, arm)]
    if evidence.design == "fixed":
        return rate_limit(sum(equal), len(equal), claim.delta, "upper").value
    return betting_upper(equal, claim.delta, evidence.design).value


def _shares(evidence: Evidence, arm: Arm) -> list[Fraction]:
    shares = []
    for records in evidence.units.values():
        steps = sum(len(record.reference.tokens) for record in records)
        wrong = sum(len(record.arms[arm.name].differs) for record in records)
        shares.append(1 - Fraction(wrong, steps))
    return shares


def _difference(claim: Claim, evidence: Evidence, arm: Arm, other: Arm, delta: Fraction) -> Fraction:
    if claim.extraction is None:
        raise ValueError(f"{claim.name} names no extraction rule")
    ours = unit_scores(evidence, arm.name, claim.extraction)
    theirs = unit_scores(evidence, other.name, claim.extraction)
    negated = [its - mine for mine, its in zip(ours, theirs, strict=True)]
    return -difference_lower(negated, delta, evidence.design).value


def _loss(claim: Claim, evidence: Evidence, arm: Arm) -> Fraction | None:
    cap = Fraction(CAP)
    rises = []
    for records in evidence.windows.values():
        nats = sum(record.nats[arm.name] - record.nats[BASE_ARM] for record in records)
        rises.append(Fraction(nats, UNIT * sum(record.tokens for record in records)))
    if min(rises) < -cap:
        return None
    capped = [min(cap, rise) for rise in rises]
    return difference_lower(capped, claim.delta, evidence.design, scale=2 * CAP).value
