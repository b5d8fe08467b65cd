"""``certify calibrate`` as a function: from evidence on choice data to a declared margin (theory §5).

Margins t of a fixed grid (:data:`GRID`) are tested from the highest to the lowest; each null hypothesis
"where the served model's own margin is at least t, it disagrees with E* at a mean unit rate above alpha" is
tested at the full ``delta``, by betting, and testing stops at the first that is not rejected
(:func:`certify.stats.budget.fixed_sequence`). The lowest before that is chosen. The claim itself is tested on
other text, by whoever checks the ticket (:mod:`certify.claims.calibrated`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from certify.base.enclosure import rational
from certify.base.errors import InvalidInputError, UsageError
from certify.base.jsonio import pretty_json, sha256_bytes, write_bytes
from certify.base.model import BoundFile
from certify.base.records import Engine
from certify.base.staging import changing
from certify.base.version import __version__
from certify.claims.calibrated import disagreement_shares, own_steps, sure_steps
from certify.claims.subject import check_transfers
from certify.evidence.choice_record import CALIBRATION_NAME
from certify.evidence.load import Evidence, check_binding, load, ticket_arm
from certify.evidence.split import check_choice_data, chosen_on
from certify.gate.choose import PROCEDURE
from certify.gate.issue import check_delta, one_ticket, verified_subject
from certify.gate.recheck import Inputs, recheck
from certify.gate.session import Session
from certify.stats.betting import betting_exceeds
from certify.stats.budget import fixed_sequence
from certify.ticket.declared import Calibration, DeclaredClaim
from certify.ticket.schema import Ticket, read_ticket_file

GRID: Final = tuple(f"0.{hundredths:02d}" for hundredths in range(99, 0, -1))
"""Margins in the order of testing."""


@dataclass(frozen=True, slots=True)
class TestedMargin:
    """One margin that was tested.

    Attributes:
        t: the margin.
        n: units with a step at or above it.
        estimate: mean of their shares that disagree; None without such a unit.
        good: the test at the full ``delta`` shows that the mean is at most alpha.
    """

    t: str
    n: int
    estimate: Fraction | None
    good: bool


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What :func:`calibrate` did.

    Attributes:
        ticket_id: name of the ticket.
        tested: the margins that were tested: all but the last are good.
        chosen: the lowest good one; None if there is none, and then nothing is written.
        record: where the record is.
    """

    ticket_id: str
    tested: tuple[TestedMargin, ...]
    chosen: str | None
    record: Path


def calibrate(
    ticket_file: Path,
    data: Path,
    *,
    alpha: str,
    delta: str = "0.05",
    ticket_id: str | None = None,
    replace: bool = False,
    base: Path | None = None,
    reference: Path | None = None,
    tokenizer: Path | None = None,
    engine: Engine = "auto",
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Calibrated:
    """Choose the lowest margin that choice data support, and write it into the ticket as a declared claim.

    The record of the choice goes to ``calibrations/ID.json`` beside the ticket file. It lists the digests of
    the sentences: evidence for the ticket may hold none of them.

    Args:
        ticket_file: ``tickets.json``.
        data: manifest of evidence with margins, made on choice data (``certify evaluate --margins``).
        alpha: rate of disagreement to allow, a decimal between 0 and 1.
        delta: error probability of the choice, and the one that the claim declares.
        ticket_id: which ticket of the file; None if it holds one.
        replace: declare it instead of another margin, or for a ticket that was evaluated before.

    Arguments that are not listed are those of :func:`certify.gate.issue.issue`.

    Raises:
        UsageError: a number out of range; a file cannot be read, or must be named by an option; the ticket
            declares another margin, or was evaluated (``CALIBRATION_LATE``).
        InvalidInputError: the ticket is not what it says, or the evidence is refused: it is about other
            tables, no arm of it serves the ticket (``ARM_NOT_EVALUATED``), or it holds no margins
            (``MARGINS_NOT_EVALUATED``), or nothing says what was used for tuning (``USED_NOT_LISTED``).
    """
    check_delta(delta)
    check_delta(alpha, "--alpha")
    ticket = one_ticket(read_ticket_file(ticket_file), ticket_id)
    _check_early(ticket, ticket_file, replace)
    folder, session = ticket_file.parent, Session(engine, workers, progress)
    checked = recheck(ticket, Inputs(folder, base, reference, tokenizer, session))
    subject, evidence = verified_subject(ticket, checked, session), load(data)
    check_binding(evidence, subject)
    if checked.base is not None and checked.reference is not None:
        check_transfers([evidence], checked.base, checked.reference, session.table_digest)
    arm = ticket_arm(evidence, subject)
    if arm is None:
        text = f"evidence {evidence.manifest.text.name}: no arm served the ticket's table"
        raise InvalidInputError(text, code="ARM_NOT_EVALUATED")
    check_choice_data(evidence)
    tested = tested_margins(evidence, arm.name, Fraction(alpha), Fraction(delta))
    chosen = next((one.t for one in reversed(tested) if one.good), None)
    relative = f"calibrations/{ticket.id}.json"
    if chosen is not None:
        text = evidence.manifest.text.sha256
        about = {"t": chosen, "alpha": alpha, "text_sha256": text}
        record = pretty_json(_record(evidence, about, delta, tested)).encode("utf-8")
        bound = BoundFile(path=relative, sha256=sha256_bytes(record))
        calibration = Calibration(t=chosen, alpha=alpha, text_sha256=text, record=bound)
        _declare(ticket_file, ticket, calibration, delta, record)
    return Calibrated(ticket.id, tested, chosen, folder / relative)


def _check_early(ticket: Ticket, path: Path, replace: bool) -> None:
    """Refuse a ticket that declares a margin or was evaluated: what is declared later is no promise."""
    late = "declares a margin" if ticket.calibration else "was evaluated"
    if (ticket.calibration or ticket.evidence or ticket.certificate) and not replace:
        raise UsageError(
            f"{path}: ticket {ticket.id!r} {late} already; use --replace to declare a new margin, and"
            " must be evaluated on new text",
            code="CALIBRATION_LATE",
        )


def tested_margins(
    evidence: Evidence, arm: str, alpha: Fraction, delta: Fraction
) -> tuple[TestedMargin, ...]:
    """Margins of the grid from the highest to the first that is not shown to be good; see the module."""
    units, tested = own_steps(evidence, arm), list[TestedMargin]()

    def rejections() -> Iterator[bool]:
        for t in GRID:
            shares = disagreement_shares(sure_steps(units, t))
            agreeing = [1 - share for share in shares]
            good = bool(shares) and betting_exceeds(agreeing, 1 - alpha, delta, evidence.design)
            mean = sum(shares, Fraction(0)) / len(shares) if shares else None
            tested.append(TestedMargin(t, len(shares), mean, good))
            yield good

    fixed_sequence(rejections())
    return tuple(tested)


def _record(
    evidence: Evidence, about: dict[str, str], delta: str, tested: tuple[TestedMargin, ...]
) -> dict[str, Any]:
    """The record as plain JSON values, without floats; same evidence, same record."""
    return {
        "schema": CALIBRATION_NAME,
        "schema_version": 1,
        "created_by": f"certify {__version__}",
        "procedure": PROCEDURE,
        **about,
        "delta": delta,
        "evidence": evidence.sha256,
        "tested": [
            {"t": one.t, "n": one.n, "estimate": rational(one.estimate), "good": one.good} for one in tested
        ],
        "sentences": chosen_on(evidence),
    }


def _declare(path: Path, ticket: Ticket, calibration: Calibration, delta: str, record: bytes) -> None:
    claim = DeclaredClaim(kind="guarantee", comparator="calibrated", delta=delta, calibration=calibration)
    others = tuple(one for one in ticket.declared if one.calibration is None)
    changed = ticket.model_copy(update={"declared": (*others, claim)})
    with changing(path) as write:
        content = read_ticket_file(path)
        if one_ticket(content, ticket.id) != ticket:  # it may have been evaluated meanwhile
            raise UsageError(f"{path}: ticket {ticket.id!r} was changed meanwhile", code="FILE_CHANGED")
        write_bytes(path.parent / calibration.record.path, record)
        tickets = tuple(changed if one.id == ticket.id else one for one in content.tickets)
        write(content.model_copy(update={"tickets": tickets}).to_json().encode("utf-8"))
