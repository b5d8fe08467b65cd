"""From claims to what a certificate states: pure, so that whoever checks a certificate builds it again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from certify.base.assumptions import ASSUMPTIONS
from certify.base.enclosure import rational
from certify.base.errors import InvalidInputError
from certify.base.version import __version__
from certify.certificate.schema import (
    NON_CLAIMS,
    SCHEMA_VERSION,
    AssumptionRef,
    Certificate,
    EvidenceRef,
    Parameters,
    StatedClaim,
    SubjectRef,
    TicketRef,
    is_stated,
    share,
    state,
)
from certify.claims.claim import Claim
from certify.claims.every import choices, report, role_of
from certify.claims.kind import Role
from certify.evidence.load import Evidence, Subject
from certify.stats.theorem import DEFAULT_VARIATION
from certify.ticket.schema import Ticket


@dataclass(frozen=True)
class TextClaims:
    """One manifest of a ticket's evidence, and every claim that it supports.

    Attributes:
        path: of the manifest, relative to the ticket's folder.
        evidence: what was loaded from there.
        role: what it is evidence of.
        delta: error probability of each limit.
        claims: the claims, stated in a certificate or not.
    """

    path: str
    evidence: Evidence
    role: Role
    delta: Fraction
    claims: tuple[Claim, ...]

    @property
    def name(self) -> str:
        """Name of the text."""
        return self.evidence.manifest.text.name


def check_together(evidence: Sequence[Evidence]) -> None:
    """Refuse manifests that cannot be evidence of one ticket together.

    Raises:
        InvalidInputError: different models around the same table (``EVIDENCE_MODEL``), or the same records
            twice (``EVIDENCE_TWICE``).
    """
    if len({one.manifest.base.model_sha256 for one in evidence}) > 1:
        raise InvalidInputError(
            "the evidence was made with different models around the same table", code="EVIDENCE_MODEL"
        )
    if len({one.manifest.records.sha256 for one in evidence}) != len(evidence):
        raise InvalidInputError("the same records are given twice as evidence", code="EVIDENCE_TWICE")


def evaluated(evidence: Evidence) -> tuple[str, str | None]:
    """What a manifest evaluates: the name of the text and the digest of the template, if there is one."""
    template = evidence.manifest.template
    return evidence.manifest.text.name, template.sha256 if template else None


def claims_of(
    found: Sequence[tuple[str, Evidence]], subject: Subject, delta: str, looks: int = 1
) -> tuple[TextClaims, ...]:
    """Every claim of every manifest, at its share of ``delta``; in the order given.

    Args:
        found: (path relative to the ticket's folder, evidence).
        subject: the ticket.
        delta: error probability of a claim over all its texts, as a decimal.
        looks: how often the texts were looked at, this time included.

    Raises:
        InvalidInputError: see :func:`certify.claims.every.report`, or two manifests of one role evaluate
            the same text with the same template (``EVIDENCE_TEXT_TWICE``).
    """
    roles = [role_of(evidence, subject.ticket) for _, evidence in found]
    named = Counter((role, evaluated(evidence)) for role, (_, evidence) in zip(roles, found, strict=True))
    twice = [name for (_, (name, _)), count in named.items() if count > 1]
    if twice:
        raise InvalidInputError(f"two manifests evaluate the text {twice[0]}", code="EVIDENCE_TEXT_TWICE")
    counts = Counter(roles)
    texts = []
    for role, (path, evidence) in zip(roles, found, strict=True):
        part = share(delta, counts[role], choices(evidence, subject), looks)
        (made,) = report((evidence,), subject, delta=part)
        texts.append(TextClaims(path, evidence, role, part, made.claims))
    return tuple(texts)


def build(
    texts: Sequence[TextClaims],
    subject: Subject,
    *,
    delta: str,
    created_by: str | None = None,
    earlier: Sequence[str] = (),
) -> Certificate:
    """The certificate that these claims make; pure.

    Args:
        texts: from :func:`claims_of` with the same ``delta``.
        subject: the ticket.
        delta: error probability of a claim over all its texts.
        created_by: name and version of the program; this one by default.
        earlier: file digests of the certificates that looked at these texts before.
    """
    ticket = subject.ticket
    created_by = created_by or f"certify {__version__}"
    claims = tuple(stated_claims(texts).values())
    named = {name for claim in claims for name in claim.assumptions}
    return Certificate(
        created_by=created_by,
        ticket=TicketRef(id=ticket.id, sha256=ticket.digest()),
        subjects=_subjects(texts, subject),
        parameters=Parameters(
            rule=ticket.selection.rule[:4096],
            alpha=ticket.selection.alpha,
            correction=ticket.selection.correction,
            method=ticket.selection.method,
            object=ticket.released.object,
            n=ticket.selection.n,
            dtype=ticket.base.dtype,
            delta=delta,
        ),
        evidence=tuple(evidence_ref(text) for text in texts),
        earlier=tuple(earlier),
        claims=claims,
        assumptions=tuple(
            AssumptionRef(id=entry.id, statement=entry.statement, status=entry.status)
            for entry in ASSUMPTIONS.values()
            if entry.id in named
        ),
        non_claims=NON_CLAIMS,
        signature=_signature(ticket, delta, created_by),
    )


def evidence_ref(text: TextClaims) -> EvidenceRef:
    """How a certificate names a manifest."""
    return EvidenceRef(
        path=text.path,
        sha256=text.evidence.sha256,
        text=text.name,
        role=text.role,
        delta=rational(text.delta) or "",
    )


def stated_claims(texts: Sequence[TextClaims]) -> dict[tuple[str, str], StatedClaim]:
    """What a certificate states about these texts, by digest of the manifest and name of the claim."""
    found = (
        state(claim, text.evidence.sha256)
        for text in texts
        for claim in text.claims
        if is_stated(claim, text.role)
    )
    return {(claim.evidence, claim.name): claim for claim in found}


def _subjects(texts: Sequence[TextClaims], subject: Subject) -> tuple[SubjectRef, ...]:
    ticket = subject.ticket
    digests = {
        "base": ticket.base.tensor_sha256,
        "reference": ticket.reference.tensor_sha256,
        "table": subject.table_sha256,
        "rows": ticket.released.rows.served_sha256 if ticket.released.rows else None,
        "tokenizer": ticket.tokenizer.sha256 if ticket.tokenizer else None,
        "template": ticket.template.sha256 if ticket.template else None,
        "model": texts[0].evidence.manifest.base.model_sha256 if texts else None,
    }
    return tuple(
        SubjectRef.model_validate({"name": name, "sha256": digest})
        for name, digest in digests.items()
        if digest is not None
    )


def _signature(ticket: Ticket, delta: str, created_by: str) -> str:
    fields = {
        "ks": ticket.selection.method,
        "n": ticket.selection.n,
        "dtype": ticket.base.dtype,
        "agg": "sum",
        "V": DEFAULT_VARIATION,
        "alpha": ticket.selection.alpha,
        "correction": ticket.selection.correction,
        "object": ticket.released.object,
        "delta": delta,
        "schema": SCHEMA_VERSION,
        "tool": created_by.removeprefix("certify "),
    }
    return "|".join(f"{key}:{value}" for key, value in fields.items())
