"""Every claim that evidence supports about a ticket, and nothing about whether they suffice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from certify.base.errors import InvalidInputError
from certify.claims.claim import DELTA, Claim
from certify.claims.kind import Kind, Role
from certify.claims.registry import KINDS
from certify.evidence.load import Evidence, Subject, check_binding
from certify.evidence.null_labels import NULLS, stands_beside
from certify.evidence.read import ROW_KINDS
from certify.evidence.sampling import LARGEST_SHARE, largest_share
from certify.evidence.split import check_split
from certify.ticket.schema import Ticket


@dataclass(frozen=True, slots=True)
class EvidenceReport:
    """The claims that one set of evidence supports.

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
        delta: error probability of each limit; the caller splits a budget over claims.

    Raises:
        InvalidInputError: evidence about another model, tokenizer or template, or on sentences that were used
            before (:func:`certify.evidence.load.check_binding`,
            :func:`certify.evidence.split.check_split`); evidence from models that differ outside the table
            (``EVIDENCE_MODEL``), or the same one given twice (``EVIDENCE_TWICE``).
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


def check_splits(evidence: Sequence[Evidence]) -> None:
    """Refuse sentences that any evidence lists as used: used for one text, they are used for every one.

    Raises:
        InvalidInputError: see :func:`certify.evidence.split.check_split`.
    """
    used: dict[str, frozenset[str]] = {}
    for one in evidence:
        for role, digests in one.used.items():
            used[role] = used.get(role, frozenset()) | digests
    for one in evidence:
        check_split(one.records, used)


def role_of(evidence: Evidence, ticket: Ticket | None) -> Role:
    """What ``evidence`` is evidence of: losses; the task under the ticket's template, or another."""
    if evidence.manifest.kind == "loss":
        return "loss"
    ours, theirs = ticket and ticket.template, evidence.manifest.template
    return "other-template" if ours and theirs and ours.sha256 != theirs.sha256 else "evaluation"


def choices(evidence: Evidence, subject: Subject) -> int:
    """How many tickets could have been compared on this text; they share its error probability.

    Counts arms of rows, except nulls and random directions that stand beside a ticket of the text
    (:func:`certify.evidence.null_labels.stands_beside`), and gated copies of another arm. A gate without its
    ungated copy still counts, because any ticket could be labelled so. If the ticket binds a record that it
    was chosen on other text, the candidates listed there count as one (theory §5, "Choice is paid for").
    """
    rows = [arm for arm in evidence.manifest.arms if arm.kind in ROW_KINDS]
    plain = {(arm.kind, arm.table_sha256) for arm in rows if arm.gate is None}
    rows = [arm for arm in rows if arm.gate is None or (arm.kind, arm.table_sha256) not in plain]
    nulls = [arm for arm in rows if arm.control in (*NULLS, "direction")]
    paid = [arm for arm in rows if arm not in nulls or not stands_beside(arm, rows, subject.ticket)]
    listed = set() if subject.choice is None else {one.ids for one in subject.choice.candidates}
    return max(1, sum(arm.ids not in listed for arm in paid) + bool(listed))


def _claims(evidence: Evidence, subject: Subject, delta: Fraction) -> tuple[Claim, ...]:
    role = role_of(evidence, subject.ticket)
    check_binding(evidence, subject, other_template=role == "other-template")
    grouped = evidence.manifest.text.unit == "document"
    units = evidence.windows if role == "loss" else evidence.units
    largest = largest_share(units.values()) if grouped else Fraction(0)
    return tuple(
        claim
        for kind in KINDS.values()
        if role in kind.roles
        for claim in (
            _too_large(kind, evidence, largest)
            if kind.tests and largest > LARGEST_SHARE
            else kind.claims(evidence, subject, delta)
        )
    )


def _too_large(kind: Kind, evidence: Evidence, largest: Fraction) -> tuple[Claim, ...]:
    text = f"the largest document holds {float(largest):.1%} of the text: its unit decides too much"
    return kind.lacking(evidence, "UNIT_TOO_LARGE", text, kind.variants)
