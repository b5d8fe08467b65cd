"""Every claim that evidence supports about a ticket, and nothing about whether they suffice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

from certify.base.errors import InvalidInputError
from certify.claims.agreement import agreement_rate, token_agreement
from certify.claims.corpus import corpus_claims
from certify.claims.exact import non_interference, opportunity, termination
from certify.claims.loss import unrelated_loss
from certify.claims.promise import guarantee_claims
from certify.claims.quality import COMPARATORS, better_than_nulls, gain, non_inferiority
from certify.evidence.load import Evidence, Subject, check_binding, settings
from certify.evidence.split import check_split
from certify.stats.claim import DELTA, RULES, Claim, Finding, missing

TEMPLATE_KINDS: Final = {"agreement-rate": "template-agreement", "gain": "template-gain"}
"""Claims that are made again under another template, and what they are called there."""


@dataclass(frozen=True, slots=True)
class EvidenceReport:
    """The claims that one evidence supports.

    Attributes:
        text: name of the evaluated text.
        sha256: file digest of the manifest.
        claims: the claims; no two have the same name.
    """

    text: str
    sha256: str
    claims: tuple[Claim, ...]


def report(
    evidence: Sequence[Evidence], subject: Subject, *, delta: Fraction = DELTA
) -> tuple[EvidenceReport, ...]:
    """Everything that each evidence shows about the ticket, in the order given.

    Evidence of kind ``loss`` supports the claim about unrelated text; translations with the ticket's template
    all others; translations with another template those of template robustness. Every evidence supports the
    claim that its sentences are new.

    Args:
        evidence: loaded evidence.
        subject: the ticket.
        delta: error probability of each limit; splitting a budget over claims is the caller's.

    Raises:
        InvalidInputError: evidence about another model, tokenizer or template, or on sentences that were used
            before (:func:`certify.evidence.load.check_binding`,
            :func:`certify.evidence.split.check_split`); two that were made with different models around the
            table (``EVIDENCE_MODEL``), or the same one given twice (``EVIDENCE_TWICE``).
    """
    models = {one.manifest.base.model_sha256 for one in evidence}
    if len(models) > 1:
        raise InvalidInputError(
            "the evidence was made with different models around the same table", code="EVIDENCE_MODEL"
        )
    if len({one.manifest.records.sha256 for one in evidence}) != len(evidence):
        raise InvalidInputError("the same records are given twice as evidence", code="EVIDENCE_TWICE")
    return tuple(
        EvidenceReport(one.manifest.text.name, one.sha256, _claims(one, subject, delta)) for one in evidence
    )


def split_claim(evidence: Evidence, subject: Subject) -> Claim:
    """No evaluated sentence or line was used for tuning, scan, choice or order, and none occurs twice; exact.

    Used for choice is what the evidence lists, and what the record that the ticket binds lists.

    Raises:
        InvalidInputError: one was, or does; see :func:`certify.evidence.split.check_split`.
    """
    used = dict(evidence.used)
    if subject.chosen_on:
        used["choice"] = subject.chosen_on | used.get("choice", frozenset())
    found = check_split(evidence.records, used)
    if found is None:
        text = "nothing says which sentences were used for tuning"
        return missing("data-split", "USED_NOT_LISTED", text, evidence=(evidence.sha256,))
    listed = ", ".join(f"{count} for {role}" for role, count in found.used.items())
    what = "pairs, distinct" if evidence.manifest.kind == "translation" else "lines, each in one unit"
    return Claim(
        kind="data-split",
        comparator=None,
        extraction=None,
        finding=Finding.MEASURED,
        code="DISJOINT",
        text=f"{found.sentences} evaluated {what}, none of them among the sentences used: {listed}",
        n=found.sentences,
        unit="sentence",
        procedure="exact",
        assumptions=("A-EVIDENCE",),
        signature=settings("data-split", evidence),
        evidence=(evidence.sha256,),
        detail={"used": dict(found.used), "seen_in_pretraining": found.pretraining},
    )


def check_splits(evidence: Sequence[Evidence]) -> None:
    """Refuse sentences that any evidence lists as used: what one text was tuned on is no news in another.

    Raises:
        InvalidInputError: see :func:`certify.evidence.split.check_split`.
    """
    used: dict[str, frozenset[str]] = {}
    for one in evidence:
        for role, digests in one.used.items():
            used[role] = used.get(role, frozenset()) | digests
    for one in evidence:
        check_split(one.records, used)


def under_other_template(evidence: Evidence, subject: Subject) -> bool:
    """The evidence was made with another template than the one that the ticket binds."""
    ours, theirs = subject.ticket.template, evidence.manifest.template
    return ours is not None and theirs is not None and ours.sha256 != theirs.sha256


def template_robustness(
    evidence: Evidence, subject: Subject, *, delta: Fraction = DELTA
) -> tuple[Claim, ...]:
    """Agreement and gain under another template than the ticket's (theory §6.2); comparator: its name."""
    template = evidence.manifest.template
    name = template.name if template else None
    found = (
        agreement_rate(evidence, subject, delta=delta),
        *(gain(evidence, subject, rule=rule, delta=delta) for rule in RULES),
    )
    return tuple(replace(claim, kind=TEMPLATE_KINDS[claim.kind], comparator=name) for claim in found)


def _claims(evidence: Evidence, subject: Subject, delta: Fraction) -> tuple[Claim, ...]:
    if evidence.manifest.kind == "loss":
        check_binding(evidence, subject)
        return (split_claim(evidence, subject), unrelated_loss(evidence, subject, delta=delta))
    other = under_other_template(evidence, subject)
    check_binding(evidence, subject, other_template=other)
    split = split_claim(evidence, subject)
    if other:
        return (split, *template_robustness(evidence, subject, delta=delta))
    return (
        split,
        agreement_rate(evidence, subject, delta=delta),
        token_agreement(evidence, subject, delta=delta),
        *guarantee_claims(evidence, subject, delta=delta),
        *(
            non_inferiority(evidence, subject, comparator, rule=rule, delta=delta)
            for comparator in COMPARATORS
            for rule in RULES
        ),
        *(gain(evidence, subject, rule=rule, delta=delta) for rule in RULES),
        *(better_than_nulls(evidence, subject, rule=rule, delta=delta) for rule in RULES),
        *corpus_claims(evidence, subject, delta=delta),
        termination(evidence, subject),
        opportunity(evidence, subject),
        non_interference(evidence, subject),
    )
