"""``certify issue`` as a function: the certificate of one ticket, from files to a file.

Issuing decides nothing: a certificate can state claims that every policy finds wanting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from certify.base.errors import CertifyError, InvalidInputError, UsageError
from certify.base.files import inside
from certify.base.jsonio import sha256_bytes, write_bytes
from certify.base.locks import locked
from certify.base.model import Refusal, level
from certify.base.records import Engine
from certify.base.staging import changing
from certify.base.verdict import Outcome
from certify.certificate.build import build, check_together, claims_of
from certify.certificate.schema import SCHEMA_VERSION, Certificate, read_certificate
from certify.claims.claim import SHORT, text_of
from certify.claims.every import check_splits, role_of
from certify.claims.subject import check_transfers, make_labels, make_subject, with_records
from certify.evidence.load import Evidence, Subject, load
from certify.gate.recheck import Inputs, Rechecked, recheck
from certify.gate.session import Session
from certify.ticket.schema import Located, Ticket, TicketFile, choose, read_ticket_file

DEFAULT_DELTA: Final = "0.05"

_REFUSAL: Final = Refusal("CERTIFICATE_EARLIER")
_EARLIER: Final = "how often these texts were looked at before is not known"

_BASIS: Final = (
    *("integrity.base", "integrity.reference", "integrity.tokenizer", "integrity.template"),
    *("integrity.rows", "released.rows"),
)


def issue(
    ticket_file: Path,
    evidence: Sequence[Path],
    *,
    out: Path,
    ticket_id: str | None = None,
    delta: str = DEFAULT_DELTA,
    attach: bool = False,
    base: Path | None = None,
    reference: Path | None = None,
    tokenizer: Path | None = None,
    engine: Engine = "auto",
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Certificate:
    """Write the certificate of one ticket.

    Args:
        ticket_file: ``tickets.json``.
        evidence: manifests; they lie in the ticket's folder.
        out: where to write the certificate.
        ticket_id: which ticket of the file; None if it holds one.
        delta: error probability of a claim over all its texts, a decimal between 0 and 1.
        attach: also write into the ticket file where the certificate and the evidence lie.
        base: table E⁰, if it does not travel with the ticket.
        reference: table E*, likewise.
        tokenizer: ``tokenizer.json``, likewise.
        engine: implementation of the scan.
        workers: threads of the scan.
        progress: called with (rows done, rows in all).

    Raises:
        UsageError: a file cannot be read, lies outside the ticket's folder, or must be named by an option; no
            evidence; ``delta`` out of range.
        InvalidInputError: the ticket is not what it says, or the evidence is refused.
    """
    content = read_ticket_file(ticket_file)
    ticket = one_ticket(content, ticket_id)
    folder = ticket_file.parent
    if not evidence:
        raise UsageError(
            "a certificate rests on evidence: name a manifest with --evidence", code="NO_EVIDENCE"
        )
    located = [(within(folder, path, "evidence"), path) for path in evidence]
    _check_out(out, ticket)
    target = within(folder, out, "the certificate") if attach else None
    check_delta(delta)
    session = Session(engine, workers, progress)
    checked = recheck(ticket, Inputs(folder, base, reference, tokenizer, session))
    subject = with_records(verified_subject(ticket, checked, session), folder)
    loaded = [(relative, load(path)) for relative, path in located]
    check_together([one for _, one in loaded])
    check_splits([one for _, one in loaded])
    if checked.base is not None and checked.reference is not None:
        named = [one for _, one in loaded]
        check_transfers(named, checked.base, checked.reference, session.table_digest)
    earlier = _earlier(subject, folder, [one for _, one in loaded])
    claims = claims_of(loaded, subject, delta, 1 + len(earlier))
    certificate = build(claims, subject, delta=delta, earlier=earlier)
    with locked(folder if attach else out.parent):
        _check_out(out, ticket)
        data = certificate.to_bytes()
        write_bytes(out, data)
        if target is not None:
            _attach(ticket_file, ticket, certificate, target, sha256_bytes(data))
    return certificate


def _check_out(out: Path, ticket: Ticket) -> None:
    """Refuse to replace anything but a certificate of the same ticket.

    Raises:
        UsageError: something else lies there (``OUT_EXISTS``).
    """
    if not out.exists():
        return
    try:
        before, _, _ = read_certificate(out)
        what = f"the certificate of ticket {before.ticket.id!r}" if before.ticket.id != ticket.id else ""
    except CertifyError:
        what = "something other than a certificate that this program reads"
    if what:
        raise UsageError(f"{out} holds {what}: choose another --out, or remove it", code="OUT_EXISTS")


def _earlier(subject: Subject, folder: Path, evidence: Sequence[Evidence]) -> tuple[str, ...]:
    """Digests of earlier certificates on these texts, for other records or another version of the ticket.

    Follows the chain from the certificate that the ticket names. A text is the same if its name or its digest
    is. Issuing the same again is not a new look, nor is the first evidence of a text in another role: its
    claims are others.

    Raises:
        InvalidInputError: the certificate that the ticket names is gone, unreadable or another
            (``CERTIFICATE_EARLIER``): how often the texts were looked at is not known.
    """
    ticket = subject.ticket
    stated = ticket.certificate
    if stated is None:
        return ()
    try:
        before, data, version = read_certificate(inside(folder, stated.path, stated.sha256))
    except CertifyError as error:
        raise _REFUSAL(f"{_EARLIER}: {error}") from error
    if stated.sha256 not in (None, sha256_bytes(data)):
        raise _REFUSAL(f"{_EARLIER}: {stated.path} has another digest")
    digits = {claim.evidence: text_of(claim.signature) for claim in before.claims}
    seen = {(word, one.role) for one in before.evidence for word in (one.text, digits.get(one.sha256))}
    now = [(one, role_of(one, subject.ticket), one.manifest.text) for one in evidence]
    again = {one.sha256 for one, role, text in now if {(text.name, role), (text.sha256[:SHORT], role)} & seen}
    same = before.ticket.sha256 == ticket.digest() and again <= {one.sha256 for one in before.evidence}
    if version < SCHEMA_VERSION or not again or same:
        return before.earlier
    return (*before.earlier, sha256_bytes(data))


def verified_subject(ticket: Ticket, checked: Rechecked, session: Session) -> Subject:
    """The subject of claims about a ticket whose tables and rows are what it says.

    Raises:
        UsageError: something does not travel with the ticket and was not named.
        InvalidInputError: something is not what the ticket says.
    """
    for item in checked.items:
        if item.name in _BASIS and item.outcome not in (Outcome.PASS, Outcome.UNBOUND):
            text = f"{item.name}: {item.text}" + (f"; {item.remedy}" if item.remedy else "")
            if item.outcome is Outcome.MISSING:
                raise UsageError(text, code=item.code)
            raise InvalidInputError(text, code=item.code)
    if checked.base is None or checked.reference is None or checked.rows is None or checked.result is None:
        raise InvalidInputError("the selection of the ticket cannot be made again", code="NOT_RUN")
    labels = make_labels(checked.result, checked.vocabulary)
    return make_subject(
        ticket,
        checked.base,
        checked.reference,
        checked.rows,
        checked.result,
        labels,
        session.table_digest,
    )


def within(folder: Path, path: Path, what: str) -> str:
    """``path`` relative to the ticket's folder, as a ticket spells it.

    Raises:
        UsageError: it lies elsewhere (``OUTSIDE_FOLDER``).
    """
    try:
        relative = (path.parent.resolve() / path.name).relative_to(folder.resolve())
    except ValueError as error:
        raise UsageError(
            f"{what} {path} lies outside the ticket's folder {folder}: put it there, both travel together",
            code="OUTSIDE_FOLDER",
        ) from error
    return str(PurePosixPath(relative))


def one_ticket(content: TicketFile, ticket_id: str | None) -> Ticket:
    """The ticket of that id; None: the only one.

    Raises:
        UsageError: there is no such one (``TICKET_UNKNOWN``).
    """
    chosen = choose(content, () if ticket_id is None else (ticket_id,))
    if len(chosen) != 1:
        names = ", ".join(ticket.id for ticket in content.tickets) or "none"
        raise UsageError(f"name one ticket as FILE#ID; the file holds: {names}", code="TICKET_UNKNOWN")
    return chosen[0]


def check_delta(value: str, option: str = "--delta") -> None:
    """Refuse what is no level (``DELTA_RANGE``)."""
    try:
        level(value)
    except ValueError as error:
        text = f"{option} {value} is no decimal strictly between 0 and 1, such as 0.05"
        raise UsageError(text, code="DELTA_RANGE") from error


def _attach(path: Path, ticket: Ticket, certificate: Certificate, target: str, sha256: str) -> None:
    changed = ticket.model_copy(
        update={
            "evidence": tuple(Located(path=one.path, sha256=one.sha256) for one in certificate.evidence),
            "certificate": Located(path=target, sha256=sha256),
        }
    )
    with changing(path) as write:
        content = read_ticket_file(path)  # others may have attached something meanwhile
        if one_ticket(content, ticket.id) != ticket:  # another look at the texts would go untold
            raise UsageError(f"{path}: ticket {ticket.id!r} was changed meanwhile", code="FILE_CHANGED")
        tickets = tuple(changed if one.id == ticket.id else one for one in content.tickets)
        write(content.model_copy(update={"tickets": tickets}).to_json().encode("utf-8"))
