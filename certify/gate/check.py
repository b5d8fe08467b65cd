"""The gate: ``certify check`` as a function. Ticket file in, verdicts out; nothing is printed here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import certify.checker
from certify.base.errors import ExitCode, NothingToDoError, UsageError
from certify.base.records import Engine, KSResult
from certify.base.verdict import Item, Outcome, Status, decide, exit_code
from certify.checker import Given, Opinion
from certify.gate.examination import Examined, Sources, examine
from certify.gate.recheck import Inputs, Premise, recheck
from certify.gate.session import Session
from certify.policy.outcomes import required
from certify.policy.policy import CHECKER, DEFAULT_POLICY, Policy, get_policy
from certify.tables.table import Table
from certify.ticket.schema import Ticket, choose, read_ticket_bytes, ticket_lines
from certify.ticket.templates import Fed


@dataclass(frozen=True, slots=True, repr=False)
class TicketReport:
    """Everything found out about one ticket.

    Attributes:
        ticket: the ticket as read.
        digest: digest of what it asserts.
        status: the verdict under the policy.
        items: every check that was made or is missing, required or not.
        result: the scan, or None if the inputs were missing or invalid.
        premise: the published premise, or None likewise.
        examined: the certificate and the claims from evidence; None under a policy that reads none.
        base: the base's table, verified; None like the scan.
    """

    ticket: Ticket
    digest: str
    status: Status
    items: tuple[Item, ...]
    result: KSResult | None
    premise: Premise | None
    examined: Examined | None = None
    base: Table | None = None

    def __repr__(self) -> str:
        """Id and verdict."""
        return f"TicketReport({self.ticket.id}: {self.status.value})"

    def to_dict(self) -> dict[str, Any]:
        """Id, digest, verdict and items as JSON values; ``certify check --format json`` has all else."""
        items = [asdict(item) | {"outcome": item.outcome.value, "ids": [*item.ids]} for item in self.items]
        return {"id": self.ticket.id, "digest": self.digest, "verdict": self.status.value, "items": items}


@dataclass(frozen=True, slots=True, repr=False)
class CheckReport:
    """Verdicts on the tickets of one file under one policy; ``lines``: where each stands in the file."""

    path: Path
    policy: Policy
    tickets: tuple[TicketReport, ...]
    lines: Mapping[str, int]

    @property
    def exit_code(self) -> ExitCode:
        """Exit code of the run: the gravest verdict decides (70 > 4 > 1 > 2 > 3 > 5 > 0)."""
        return exit_code(report.status for report in self.tickets)

    def __repr__(self) -> str:
        """File, policy and verdicts."""
        found = ", ".join(f"{one.ticket.id}: {one.status.value}" for one in self.tickets)
        return f"CheckReport({self.path}, {self.policy.name}; {found})"

    def to_dict(self) -> dict[str, Any]:
        """File, policy, exit code and the tickets' :meth:`TicketReport.to_dict`, as JSON values."""
        tickets = [one.to_dict() for one in self.tickets]
        code = int(self.exit_code)
        return {"file": str(self.path), "policy": self.policy.name, "exit_code": code, "tickets": tickets}


def check(
    ticket: Path | str,
    *,
    policy: str = DEFAULT_POLICY,
    ids: Sequence[str] = (),
    certificate: Path | None = None,
    base: Path | None = None,
    reference: Path | None = None,
    tokenizer: Path | None = None,
    engine: Engine = "auto",
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    fed: Fed | None = None,
    judged: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Re-verify a ticket file and decide under a policy.

    Every digest is recomputed, the tables are scanned again, the selection is made again and compared id by
    id, and the published premise and the blind spots of the KS test are examined over all rows. Under a
    policy that asks for evidence, every claim of the certificate is computed again from it. Last, the
    independent checker (:mod:`certify.checker`) has to come to the same verdict.

    Args:
        ticket: path of ``tickets.json``.
        policy: name of a shipped policy, see :data:`certify.policy.policy.POLICIES`, or path of a ``.toml``
            file.
        ids: check only the tickets of these names; all of them if empty.
        certificate: certificate of the one ticket that is checked, instead of the one that it names.
        base: table E⁰, if it does not travel with the ticket; any location, its digest decides.
        reference: table E*, likewise.
        tokenizer: ``tokenizer.json``, likewise.
        engine: implementation of the scan.
        workers: threads of the scan; None means all cores.
        progress: called with (rows done, rows in all) during scans.
        fed: what a tokenizer makes of a template, to make the counts of rule ``template:PAIR`` again; None
            takes those that the ticket binds.
        judged: called with (tickets judged, tickets in all) after each ticket.

    Returns:
        Verdicts with their reasons; ``report.exit_code`` is what the command line exits with.

    Raises:
        UsageError: unknown policy, a path given by the caller does not exist or cannot be read, or one
            certificate for several tickets.
        InvalidInputError: the ticket file or the policy is refused.
        NothingToDoError: the file holds no ticket.
    """
    path = Path(ticket)
    chosen_policy = get_policy(policy)
    for option, given in (
        ("--certificate", certificate),
        ("--base", base),
        ("--reference", reference),
        ("--tokenizer", tokenizer),
    ):
        if given is not None and not given.exists():
            raise UsageError(f"{option} {given} does not exist", code="FILE_UNREADABLE")
    content, data = read_ticket_bytes(path)
    tickets = choose(content, ids)
    if not tickets:
        raise NothingToDoError(f"{path} holds no ticket: nothing to check", code="NO_TICKETS")
    if certificate is not None and len(tickets) > 1:
        raise UsageError("--certificate is about one ticket: choose it with --id", code="TICKET_UNKNOWN")
    session = Session(engine, workers, progress)
    inputs = Inputs(path.parent, base, reference, tokenizer, session, fed)
    sources = Sources(path.parent, certificate, session)
    reports = []
    for one in tickets:
        reports.append(_report(one, chosen_policy, inputs, sources))
        if judged is not None:
            judged(len(reports), len(tickets))
    elsewhere = bool(base or reference or tokenizer)
    confirmed = _confirm(path, chosen_policy, policy, reports, certificate, elsewhere=elsewhere)
    return CheckReport(path, chosen_policy, tuple(confirmed), ticket_lines(data))


def _report(ticket: Ticket, policy: Policy, inputs: Inputs, sources: Sources) -> TicketReport:
    checked = recheck(ticket, inputs)
    examined = examine(ticket, checked, policy, sources) if policy.reads_evidence else None
    items = (*checked.items, *(examined.items if examined else ()))
    status = decide([name for name in required(ticket, policy) if name != CHECKER], items)
    digest, result, premise = ticket.digest(), checked.result, checked.premise
    return TicketReport(ticket, digest, status, items, result, premise, examined, checked.base)


# --- the independent checker -------------------------------------------------------------------------------

_REPORT = "this is a defect of one of the two programs: report it, and do not rely on either"

_STATUS: Final = {
    Outcome.PASS: "",
    Outcome.UNBOUND: "",
    Outcome.FAIL: Status.REFUTED.value,
    Outcome.VACUOUS: Status.VACUOUS.value,
    Outcome.INVALID: Status.INVALID.value,
    Outcome.ERROR: Status.INVALID.value,
}
"""What the independent checker calls an outcome; every other one is inconclusive."""


def _confirm(
    path: Path,
    policy: Policy,
    name: str,
    reports: Sequence[TicketReport],
    certificate: Path | None,
    *,
    elsewhere: bool,
) -> list[TicketReport]:
    """Add the item of the independent checker to every report; a difference closes the gate."""
    found: Mapping[str, Mapping[str, Opinion]] = {}
    broken = "it does not know the ticket"
    try:
        answers = certify.checker.verify(
            path.parent,
            path.name,
            (name,),
            ids=[report.ticket.id for report in reports],
            given={report.ticket.id: _given(report, elsewhere) for report in reports},
            certificate=certificate,
        )
        found = dict(answers)
    except Exception as error:  # a checker that fails for any reason confirms nothing
        broken = f"it broke: {type(error).__name__}: {error}"
    return [_compared(report, policy, found.get(report.ticket.id), broken) for report in reports]


def _given(report: TicketReport, elsewhere: bool) -> Given:
    """What the checker takes from this program: whatever needs whole tables."""
    items = {item.name: (_STATUS.get(item.outcome, "INCONCLUSIVE"), item.code) for item in report.items}
    subject = report.examined.subject if report.examined else None
    if subject is None:
        return Given(items, {}, "", elsewhere)
    return Given(items, subject.distances.h, subject.table_sha256, elsewhere)


def _compared(
    report: TicketReport, policy: Policy, found: Mapping[str, Opinion] | None, broken: str
) -> TicketReport:
    opinion = None if found is None else found[policy.name]
    invalid = Status.INVALID.value
    if report.status is Status.INVALID and (opinion is None or opinion.status != invalid):
        text = "not compared: the independent checker reads less strictly, and what is refused stays refused"
        item = Item(CHECKER, Outcome.NOT_RUN, "CHECKER_NOT_RUN", text)
    elif opinion is None:
        item = Item(CHECKER, Outcome.ERROR, "CHECKER_DIFFERS", f"the independent checker: {broken}", _REPORT)
    elif opinion.status != report.status.value:
        text = (
            f"the independent checker says {opinion.status} ({', '.join(opinion.codes)}), this program"
            f" {report.status.value}"
        )
        item = Item(CHECKER, Outcome.ERROR, "CHECKER_DIFFERS", text, _REPORT)
    else:
        text = "the independent checker comes to the same verdict"
        if opinion.left:
            text += f"; it took from this program: {', '.join(opinion.left)}"
        item = Item(CHECKER, Outcome.PASS, "CHECKER_AGREES", text)
    items = (*report.items, item)
    status = Status.ERROR if item.outcome is Outcome.ERROR else decide(required(report.ticket, policy), items)
    return replace(report, status=status, items=items)
