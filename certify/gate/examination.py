"""Examining the certificate of one ticket and the evidence behind it: items, and what claims came out.

Nothing in a certificate is believed: the evidence is read, bound to the ticket's tables, and every claim is
computed again. The items, in order; each is NOT_RUN where one that it needs did not pass:

``certificate.present``
    The ticket (or the caller) names a certificate, and it is one, about this very ticket. MISSING:
    NO_CERTIFICATE, FILE_MISSING, CERTIFICATE_OLDER (made under rules that asked less). INVALID:
    CERTIFICATE_DIGEST (a file other than the ticket says), CERTIFICATE_OTHER_TICKET, and what
    :func:`certify.certificate.schema.read_certificate` raises.
``evidence.integrity``
    Needs ``certificate.present``, and of the ticket ``integrity.base``, ``.reference``, ``.tokenizer``,
    ``.rows`` and ``released.rows`` passed, and a selection that can be made again. Every manifest of the
    certificate lies in the ticket's folder, has the stated digest, is whole, and is about the ticket's
    tables, tokenizer and template; arms of kind ``transfer`` are the base with the reference's rows, and
    null tickets of this ticket are what their labels say (:mod:`certify.evidence.null_labels`). All
    manifests are examined, the gravest finding counts. MISSING: NO_EVIDENCE (none is named), FILE_MISSING,
    EVIDENCE_LEFT_OUT (the ticket lists evidence that the certificate does not name), NOT_BOUND (the ticket
    binds no tokenizer or no template). INVALID: everything else.
``evidence.split``
    Needs the former. No evaluated sentence occurs twice, no line of unrelated text stands in two units, none
    was used for scan, tuning, choice or order, and the records of choosing the ticket and its margin, if it
    binds them, are there (:mod:`certify.evidence.choice_record`): else INVALID. MISSING, USED_NOT_LISTED: a
    manifest does not say what was used for tuning.
``evidence.texts``
    Under a policy that pins texts: each of them was evaluated, and is the text of that digest, else FAIL,
    TEXT_DIFFERS. MISSING, NO_TEXT: it was not evaluated, or was drawn unit by unit, so its digest cannot be
    recomputed.
``certificate.content``
    As all that follow, needs ``evidence.integrity`` passed and ``evidence.split`` not INVALID. Subjects,
    parameters, assumptions, non-claims and signatures are those of the certificate built again, else INVALID,
    CERTIFICATE_CONTENT.
``certificate.claims``
    Its evidence has the texts, roles and shares that it states, and every claim it states is computed again
    with the same figures, else FAIL, CLAIM_DIFFERS. MISSING, CLAIMS_IN_PART: tables or rows are missing, and
    some claims were computed again without them (:func:`certify.gate.stated.in_part`).
``claim.*`` and ``guarantee.*``
    One for each requirement of the policy (:mod:`certify.policy.requirement`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from certify.base.errors import CertifyError, InvalidInputError, NothingToDoError, UsageError
from certify.base.files import inside
from certify.base.jsonio import sha256_bytes
from certify.base.text import counted
from certify.base.verdict import Item, Outcome
from certify.certificate.build import (
    TextClaims,
    check_together,
    claims_of,
    evaluated,
)
from certify.certificate.schema import SCHEMA_VERSION, Certificate, EvidenceRef, read_certificate
from certify.claims.every import role_of
from certify.claims.subject import check_transfers, make_labels, make_subject, with_records
from certify.evidence.load import Evidence, Subject, check_binding, load, ticket_arm
from certify.gate import stated
from certify.gate.integrity import outcome, refused
from certify.gate.recheck import Rechecked
from certify.gate.session import Session
from certify.gate.texts import pinned_texts, split
from certify.policy import outcomes
from certify.policy.policy import Policy
from certify.policy.requirement import RequirementAnswer
from certify.stats.witness import hints
from certify.ticket.schema import Ticket


@dataclass(frozen=True)
class Examined:
    """What came of a ticket's certificate and evidence.

    Attributes:
        items: one for each check and each requirement.
        certificate: the certificate, or None if there is no valid one.
        sha256: file digest of the certificate, or None.
        texts: claims by text, as computed; empty where the evidence was not usable.
        answers: by requirement's claim and path of the manifest: what the text made of it.
        subject: what the claims are about; None where the tables were not usable.
    """

    items: tuple[Item, ...]
    certificate: Certificate | None = None
    sha256: str | None = None
    texts: tuple[TextClaims, ...] = ()
    answers: Mapping[tuple[str, str], RequirementAnswer] = field(default_factory=dict)
    subject: Subject | None = None


@dataclass(frozen=True, slots=True)
class Sources:
    """Where to read, and what was read already in this run: several tickets often share their evidence."""

    folder: Path
    certificate: Path | None = None
    session: Session = field(default_factory=Session)

    def load(self, ref: EvidenceRef) -> Evidence:
        """The evidence of that manifest, whole and with the stated digest; its path is in every message.

        Raises:
            InvalidInputError: ``FILE_MISSING``, ``EVIDENCE_DIGEST``, or the evidence is refused.
            UsageError: a file cannot be read.
        """
        path = inside(self.folder, ref.path, ref.sha256)
        if not path.exists():
            raise InvalidInputError(
                f"{ref.path} is named by the certificate, but is not there", code="FILE_MISSING"
            )
        try:
            evidence = self.session.once(("evidence", path), lambda: load(path))
        except (InvalidInputError, UsageError) as error:
            if ref.path in str(error):
                raise
            raise type(error)(f"{ref.path}: {error}", code=error.code) from error
        if evidence.sha256 != ref.sha256:
            raise InvalidInputError(
                f"{ref.path} is not the evidence of the certificate", code="EVIDENCE_DIGEST"
            )
        return evidence

    def check_transfers(self, evidence: Evidence, checked: Rechecked) -> None:
        """Once per manifest and pair of tables, see :func:`certify.claims.subject.check_transfers`."""
        if checked.base is None or checked.reference is None:
            raise InvalidInputError("the tables of the ticket are not verified", code="NOT_RUN")
        base, reference, digest = checked.base, checked.reference, self.session.table_digest
        key = ("transfers", evidence.sha256, base.digest(), reference.digest())
        self.session.once(key, lambda: check_transfers((evidence,), base, reference, digest))


def examine(ticket: Ticket, checked: Rechecked, policy: Policy, sources: Sources) -> Examined:
    """Every item about certificate, evidence and claims that ``policy`` can ask for.

    Args:
        ticket: the ticket.
        checked: what its tables said.
        policy: the policy.
        sources: where certificate and evidence lie.
    """
    certificate, sha256, present = _present(ticket, sources)
    if certificate is None:
        why = (
            "there is no certificate" if present.outcome is Outcome.MISSING else "the certificate is invalid"
        )
        return Examined((present, *_rest(ticket, policy, why)))
    with hints(certificate.hints()):
        found = _examine(ticket, checked, policy, sources, certificate)
    return replace(found, items=(present, *found.items), certificate=certificate, sha256=sha256)


def _examine(
    ticket: Ticket,
    checked: Rechecked,
    policy: Policy,
    sources: Sources,
    certificate: Certificate,
) -> Examined:
    """The items about evidence, content and claims."""
    rows_pass = any(item.name == "released.rows" and item.outcome is Outcome.PASS for item in checked.items)
    if (
        checked.result is None
        or checked.rows is None
        or checked.base is None
        or checked.reference is None
        or not rows_pass
    ):
        why = "tables, tokenizer or rows are missing, or not what they must be"
        rest = _rest(ticket, policy, why)
        inputs = {item.outcome for item in checked.items if item.name.startswith("integrity.")}
        if Outcome.MISSING in inputs and Outcome.INVALID not in inputs:
            part = stated.in_part(ticket, certificate, sources.folder, sources.load)
            rest = [part if item.name == part.name else item for item in rest]
        return Examined(tuple(rest))
    labels = make_labels(checked.result, checked.vocabulary)
    subject = make_subject(
        ticket,
        checked.base,
        checked.reference,
        checked.rows,
        checked.result,
        labels,
        sources.session.table_digest,
    )
    unread = None
    try:
        subject = with_records(subject, sources.folder)
    except CertifyError as error:
        unread = refused("evidence.split", error)
    found, integrity = _integrity(ticket, certificate, subject, checked, sources)
    if integrity.outcome is not Outcome.PASS:
        rest = _rest(ticket, policy, "the evidence is missing or invalid", skip=2)
        return Examined((integrity, *rest), subject=subject)
    disjoint = unread or split([evidence for _, evidence in found], subject)
    if unread or disjoint.outcome is Outcome.INVALID:
        rest = _rest(ticket, policy, "the evidence is missing or invalid", skip=3)
        return Examined((integrity, disjoint, *rest), subject=subject)
    texts = claims_of(found, subject, certificate.parameters.delta, 1 + len(certificate.earlier))
    found_answers = outcomes.answer_all(policy, certificate, subject, texts)
    items = (
        *(integrity, disjoint),
        *pinned_texts(policy, [evidence for _, evidence in found], subject),
        *(stated.content(certificate, texts, subject), stated.claims(certificate, texts)),
        *outcomes.items(ticket, policy, texts, found_answers),
    )
    return Examined(items, texts=texts, answers=found_answers, subject=subject)


_NAMES = (
    *("certificate.present", "evidence.integrity", "evidence.split"),
    *("certificate.content", "certificate.claims"),
)


def _rest(ticket: Ticket, policy: Policy, why: str, *, skip: int = 1) -> list[Item]:
    items = [Item(name, Outcome.NOT_RUN, "NOT_RUN", f"not run: {why}") for name in _NAMES[skip:]]
    return items + outcomes.not_run(ticket, policy, why)


def bound_certificate(ticket: Ticket, folder: Path, path: Path | None = None) -> tuple[Certificate, str, int]:
    """Read the certificate that ``ticket`` names in its folder, or the one at ``path``, and see whose it is.

    Returns:
        The certificate, its file digest, and the schema version that it was written in.

    Raises:
        NothingToDoError: none is named (``NO_CERTIFICATE``), or it is not there (``FILE_MISSING``).
        InvalidInputError: it is not the named file (``CERTIFICATE_DIGEST``), is about another ticket
            (``CERTIFICATE_OTHER_TICKET``), or is refused by
            :func:`certify.certificate.schema.read_certificate`.
        UsageError: it cannot be read.
    """
    stated, named = None, str(path)
    if path is None and ticket.certificate is not None:
        stated, named = ticket.certificate.sha256, ticket.certificate.path
        path = inside(folder, named, stated)
    if path is None:
        raise NothingToDoError(
            "the ticket names no certificate: nothing is shown about what a model does with it",
            code="NO_CERTIFICATE",
        )
    if not path.exists():
        raise NothingToDoError(f"the certificate {named} is not there", code="FILE_MISSING")
    certificate, data, version = read_certificate(path)
    sha256 = sha256_bytes(data)
    if stated not in (None, sha256):
        raise InvalidInputError(
            "the certificate is not the file that the ticket names", code="CERTIFICATE_DIGEST"
        )
    if (certificate.ticket.id, certificate.ticket.sha256) != (ticket.id, ticket.digest()):
        raise InvalidInputError(
            f"the certificate is about another ticket: {certificate.ticket.id}, digest"
            f" {certificate.ticket.sha256[:12]}",
            code="CERTIFICATE_OTHER_TICKET",
        )
    return certificate, sha256, version


def _present(ticket: Ticket, sources: Sources) -> tuple[Certificate | None, str | None, Item]:
    name = "certificate.present"
    try:
        certificate, sha256, version = bound_certificate(ticket, sources.folder, sources.certificate)
    except NothingToDoError as error:
        return None, None, Item(name, Outcome.MISSING, error.code, str(error))
    except CertifyError as error:
        return None, None, refused(name, error, sources.certificate)
    if version < SCHEMA_VERSION:
        text = (
            f"the certificate has schema version {version}: its limits do not pay for the choice of a ticket"
        )
        return None, None, Item(name, Outcome.MISSING, "CERTIFICATE_OLDER", text, "issue it again")
    text = (
        f"{counted(len(certificate.claims), 'claim')} from {counted(len(certificate.evidence), 'manifest')},"
        " about this ticket"
    )
    return certificate, sha256, Item(name, Outcome.PASS, "CERTIFICATE_READ", text)


def _integrity(
    ticket: Ticket, certificate: Certificate, subject: Subject, checked: Rechecked, sources: Sources
) -> tuple[list[tuple[str, Evidence]], Item]:
    name = "evidence.integrity"
    problems = _listed(ticket, certificate)
    found: list[tuple[str, Evidence]] = []
    for ref in certificate.evidence:
        try:
            evidence = sources.load(ref)
            check_binding(
                evidence, subject, other_template=role_of(evidence, subject.ticket) == "other-template"
            )
            ticket_arm(evidence, subject)
            sources.check_transfers(evidence, checked)
        except CertifyError as error:
            problems.append((outcome(error), error.code, str(error)))
        else:
            found.append((ref.path, evidence))
    if not problems:
        try:
            check_together([evidence for _, evidence in found])
            shown = [(role_of(evidence, subject.ticket), evaluated(evidence)) for _, evidence in found]
            if len(set(shown)) != len(shown):
                raise InvalidInputError("two manifests evaluate the same text", code="EVIDENCE_TEXT_TWICE")
        except CertifyError as error:
            problems.append((Outcome.INVALID, error.code, str(error)))
    if problems:
        gravest = min(problems, key=lambda problem: problem[0] is not Outcome.INVALID)
        return found, Item(name, *gravest)
    records = sum(len(evidence.records) for _, evidence in found)
    texts = ", ".join(evidence.manifest.text.name for _, evidence in found)
    text = f"{records} records, about these tables: {texts}"
    if any(None in (ticket.probe_sha256, one.manifest.tokenizer_probe_sha256) for _, one in found):
        text += "; the tokenisation is not bound"
    return found, Item(name, Outcome.PASS, "EVIDENCE_READ", text)


def _listed(ticket: Ticket, certificate: Certificate) -> list[tuple[Outcome, str, str]]:
    """Problems in what ticket and certificate list: nothing bound, evidence left out, different digests."""
    unbound = [part for part in ("tokenizer", "template") if getattr(ticket, part) is None]
    if unbound:
        text = f"the ticket binds no {' and no '.join(unbound)}: what was evaluated is not what it releases"
        return [(Outcome.MISSING, "NOT_BOUND", text)]
    if not certificate.evidence:
        return [(Outcome.MISSING, "NO_EVIDENCE", "the certificate names no evidence")]
    named = {ref.path: ref.sha256 for ref in certificate.evidence}
    problems = []
    for located in ticket.evidence:
        if located.path not in named:
            text = f"the ticket lists {located.path}, which the certificate leaves out"
            problems.append((Outcome.MISSING, "EVIDENCE_LEFT_OUT", text))
        elif located.sha256 not in (None, named[located.path]):
            text = f"ticket and certificate mean different files by {located.path}"
            problems.append((Outcome.INVALID, "EVIDENCE_DIGEST", text))
    return problems
