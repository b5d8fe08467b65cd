"""A certificate beside what the evidence shows: content and claims, or some claims without the rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from certify.base.errors import CertifyError
from certify.base.text import counted
from certify.base.verdict import Item, Outcome
from certify.certificate.build import (
    TextClaims,
    build,
    check_together,
    claims_of,
    evidence_ref,
    stated_claims,
)
from certify.certificate.schema import Certificate, EvidenceRef, StatedClaim
from certify.claims.every import check_splits
from certify.claims.registry import KINDS
from certify.claims.subject import with_records
from certify.evidence.distances import Distances
from certify.evidence.load import Evidence, Subject
from certify.ticket.schema import Ticket


def content(certificate: Certificate, texts: Sequence[TextClaims], subject: Subject) -> Item:
    """The item ``certificate.content``: what it says beside its claims, built again."""
    name = "certificate.content"
    again = build(
        texts,
        subject,
        delta=certificate.parameters.delta,
        created_by=certificate.created_by,
        earlier=certificate.earlier,
    )
    built = {(claim.evidence, claim.name): claim for claim in again.claims}
    wrong = [
        part
        for part in ("subjects", "parameters", "non_claims", "signature")
        if getattr(certificate, part) != getattr(again, part)
    ]
    used = {one for claim in certificate.claims for one in claim.assumptions}
    known = {entry.id: entry for entry in again.assumptions}
    if any(known.get(entry.id, entry) != entry for entry in certificate.assumptions) or used != {
        entry.id for entry in certificate.assumptions
    }:
        wrong.append("assumptions")
    # Where figures differ, certificate.claims says so, and the signature may differ for the same reason.
    if any(
        _agree(claim, other) and claim.signature != other.signature
        for claim in certificate.claims
        if (other := built.get((claim.evidence, claim.name))) is not None
    ):
        wrong.append("signatures of claims")
    if wrong:
        text = f"built again from the ticket and the evidence, it has other {', '.join(wrong)}"
        return Item(name, Outcome.INVALID, "CERTIFICATE_CONTENT", text)
    return Item(
        name, Outcome.PASS, "RECOMPUTED", "subjects, parameters, assumptions and signatures as built again"
    )


def claims(certificate: Certificate, texts: Sequence[TextClaims]) -> Item:
    """The item ``certificate.claims``: every figure that it states, computed again from the evidence."""
    name = "certificate.claims"
    if certificate.evidence != tuple(evidence_ref(text) for text in texts):
        text = "texts, roles or shares of the error probability are not those of the evidence"
        return Item(name, Outcome.FAIL, "CLAIM_DIFFERS", text)
    wrong = _differing(certificate.claims, texts)
    if wrong:
        text = f"the evidence shows other figures than the certificate states: {wrong}"
        return Item(name, Outcome.FAIL, "CLAIM_DIFFERS", text)
    return Item(name, Outcome.PASS, "RECOMPUTED", f"all {len(certificate.claims)} claims as computed again")


def in_part(
    ticket: Ticket, certificate: Certificate, folder: Path, load: Callable[[EvidenceRef], Evidence]
) -> Item:
    """The item ``certificate.claims`` where tables or rows are missing: never a pass.

    What the evidence says of the table that the certificate names does not need the rows, except for
    promises, which rest on their distances. That the ticket's rows make this table stays open.
    """
    name, code = "certificate.claims", "CLAIMS_IN_PART"
    able = [claim for claim in certificate.claims if not KINDS[claim.kind].by_finding]
    table = next((one.sha256 for one in certificate.subjects if one.name == "table"), "")
    try:
        subject = with_records(Subject(ticket, table, Distances(ticket.base.shape[1], {})), folder)
        found = [(ref.path, load(ref)) for ref in certificate.evidence]
        check_together([evidence for _, evidence in found])
        check_splits([evidence for _, evidence in found])
        texts = claims_of(found, subject, certificate.parameters.delta, 1 + len(certificate.earlier))
    except CertifyError as error:
        return Item(name, Outcome.MISSING, code, f"no claim could be computed again: {error}")
    wrong = _differing(able, texts)
    said = f"the evidence shows other figures than are stated: {wrong}" if wrong else "as stated"
    text = (
        f"{len(able)} of {counted(len(certificate.claims), 'stated claim')} computed again from the evidence:"
        f" {said}; that they are about the ticket's rows is not shown"
    )
    return Item(name, Outcome.MISSING, code, text)


def _differing(stated: Sequence[StatedClaim], texts: Sequence[TextClaims]) -> str:
    """Claims of which the evidence shows other figures than are stated; the first ones by name."""
    again, paths = stated_claims(texts), {text.evidence.sha256: text.path for text in texts}
    wrong = [
        f"{claim.name} ({paths.get(claim.evidence, 'no evidence')})"
        for claim in stated
        if (other := again.get((claim.evidence, claim.name))) is None or not _agree(claim, other)
    ]
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    return ", ".join(wrong[:3]) + more


def _agree(stated: StatedClaim, again: StatedClaim) -> bool:
    """Whether the claim computed again has every figure that is stated."""
    figures = again.figures
    return all(figures[name] == value for name, value in stated.figures.items())
