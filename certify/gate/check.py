"""The gate: ``certify check`` as a function. Ticket file in, verdicts out; nothing is printed here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from certify.base.errors import ExitCode, NothingToDoError, UsageError
from certify.base.records import Engine, KSResult
from certify.base.verdict import Item, Outcome, Status, decide, exit_code
from certify.gate.evidence import Examined, Sources, examine
from certify.gate.recheck import Inputs, Premise, recheck
from certify.policy.policy import DEFAULT_POLICY, Policy, get_policy
from certify.ticket.schema import Ticket, choose, read_ticket_file

CHECKER = "checker.agrees"
"""Item of the independent checker, of every ticket under every policy; a difference makes an ERROR."""


@dataclass(frozen=True, slots=True)
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
    """

    ticket: Ticket
    digest: str
    status: Status
    items: tuple[Item, ...]
    result: KSResult | None
    premise: Premise | None
    examined: Examined | None = None


@dataclass(frozen=True, slots=True)
class CheckReport:
    """Verdicts on the tickets of one file under one policy."""

    path: Path
    policy: Policy
    tickets: tuple[TicketReport, ...]

    @property
    def exit_code(self) -> ExitCode:
        """Exit code of the run: the gravest verdict decides (70 > 4 > 1 > 3 > 5 > 0)."""
        return exit_code(report.status for report in self.tickets)


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

    Returns:
        Verdicts with their reasons; ``report.exit_code`` is what the command line exits with.

    Raises:
        UsageError: unknown policy, a path given by the caller does not exist, or one certificate for several
            tickets.
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
    tickets = choose(read_ticket_file(path), ids)
    if not tickets:
        raise NothingToDoError(f"{path} holds no ticket: nothing to check", code="NO_TICKETS")
    if certificate is not None and len(tickets) > 1:
        raise UsageError("--certificate is about one ticket: choose it with --id", code="TICKET_UNKNOWN")
    inputs = Inputs(path.parent, base, reference, tokenizer, engine, workers, progress)
    sources = Sources(path.parent, certificate)
    reports = [_report(one, chosen_policy, inputs, sources) for one in tickets]
    given = certificate or base or reference or tokenizer
    return CheckReport(
        path, chosen_policy, tuple(_confirm(path, chosen_policy, reports, elsewhere=bool(given)))
    )


def _report(ticket: Ticket, policy: Policy, inputs: Inputs, sources: Sources) -> TicketReport:
    checked = recheck(ticket, inputs)
    examined = examine(ticket, checked, policy, sources) if policy.reads_evidence else None
    items = (*checked.items, *(examined.items if examined else ()))
    status = decide(policy.requires, items)
    return TicketReport(ticket, ticket.digest(), status, items, checked.result, checked.premise, examined)


# --- the independent checker -------------------------------------------------------------------------------

_ABSTAINS = "NOT_RECOMPUTED"

_REPORT = "this is a defect of one of the two programs: report it, and do not rely on either"


def _confirm(
    path: Path, policy: Policy, reports: Sequence[TicketReport], *, elsewhere: bool
) -> list[TicketReport]:
    """Add the item of the independent checker to every report; a difference closes the gate."""
    if not policy.shipped or elsewhere:
        why = "inputs are named by options" if elsewhere else "it knows the policies of the package only"
        item = Item(
            CHECKER, Outcome.NOT_RUN, "CHECKER_NOT_RUN", f"the independent checker was not run: {why}"
        )
        return [replace(report, items=(*report.items, item)) for report in reports]
    found: Mapping[str, Mapping[str, tuple[str, tuple[str, ...]]]] = {}
    broken = "it does not know the ticket"
    try:
        from certify.checker import verify

        found = dict(verify(path.parent, path.name, (policy.name,)))
    except Exception as error:  # a checker that breaks, however, confirms nothing
        broken = f"it broke: {type(error).__name__}: {error}"
    return [_compared(report, policy, found.get(report.ticket.id), broken) for report in reports]


def _compared(
    report: TicketReport,
    policy: Policy,
    found: Mapping[str, tuple[str, tuple[str, ...]]] | None,
    broken: str,
) -> TicketReport:
    if report.status is Status.INVALID and (found is None or found[policy.name][0] != Status.INVALID.value):
        text = "not compared: the independent checker reads less strictly, and what is refused stays refused"
        item = Item(CHECKER, Outcome.NOT_RUN, "CHECKER_NOT_RUN", text)
    elif found is None:
        item = Item(CHECKER, Outcome.ERROR, "CHECKER_DIFFERS", f"the independent checker: {broken}", _REPORT)
    elif found[policy.name][0] == Status.INCONCLUSIVE.value and _ABSTAINS in found[policy.name][1]:
        # What it does not compute again it neither confirms nor contradicts.
        text = "the independent checker does not compute all of this again: it knows fewer formats and rules"
        item = Item(CHECKER, Outcome.NOT_RUN, _ABSTAINS, text)
    elif found[policy.name][0] != report.status.value:
        status, codes = found[policy.name]
        text = (
            f"the independent checker says {status} ({', '.join(codes)}), this program {report.status.value}"
        )
        item = Item(CHECKER, Outcome.ERROR, "CHECKER_DIFFERS", text, _REPORT)
    else:
        item = Item(
            CHECKER, Outcome.PASS, "CHECKER_AGREES", "the independent checker comes to the same verdict"
        )
    status = Status.ERROR if item.outcome is Outcome.ERROR else report.status
    return replace(report, status=status, items=(*report.items, item))
