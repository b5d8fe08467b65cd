"""The gate: ``certify check`` as a function. Ticket file in, verdicts out; nothing is printed here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from certify.errors import ExitCode, NothingToDoError, UsageError
from certify.policy import DEFAULT_POLICY, Policy, get_policy
from certify.recheck import Inputs, Premise, recheck
from certify.records import Engine, KSResult
from certify.tickets import Ticket, choose, read_ticket_file
from certify.verdict import Item, Outcome, Status, decide, exit_code


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
    """

    ticket: Ticket
    digest: str
    status: Status
    items: tuple[Item, ...]
    result: KSResult | None
    premise: Premise | None


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
    base: Path | None = None,
    reference: Path | None = None,
    tokenizer: Path | None = None,
    engine: Engine = "auto",
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Re-verify a ticket file and decide under a policy.

    Every digest is recomputed, the tables are scanned again, the selection is made again and compared id by
    id, and the published premise and the blind spots of the KS test are examined over all rows.

    Args:
        ticket: path of ``tickets.json``.
        policy: name of a shipped policy, see :data:`certify.policy.POLICIES`.
        ids: check only the tickets of these names; all of them if empty.
        base: table E⁰, if it does not travel with the ticket; any location, its digest decides.
        reference: table E*, likewise.
        tokenizer: ``tokenizer.json``, likewise.
        engine: implementation of the scan.
        workers: threads of the scan; None means all cores.
        progress: called with (rows done, rows in all) during scans.

    Returns:
        Verdicts with their reasons; ``report.exit_code`` is what the command line exits with.

    Raises:
        UsageError: unknown policy, or a path given by the caller does not exist.
        InvalidInputError: the ticket file is refused.
        NothingToDoError: the file holds no ticket.
    """
    path = Path(ticket)
    chosen_policy = get_policy(policy)
    for option, given in (("--base", base), ("--reference", reference), ("--tokenizer", tokenizer)):
        if given is not None and not given.exists():
            raise UsageError(f"{option} {given} does not exist", code="FILE_UNREADABLE")
    tickets = choose(read_ticket_file(path), ids)
    if not tickets:
        raise NothingToDoError(f"{path} holds no ticket: nothing to check", code="NO_TICKETS")
    inputs = Inputs(path.parent, base, reference, tokenizer, engine, workers, progress)
    return CheckReport(path, chosen_policy, tuple(_report(one, chosen_policy, inputs) for one in tickets))


def _report(ticket: Ticket, policy: Policy, inputs: Inputs) -> TicketReport:
    checked = recheck(ticket, inputs)
    items = (*checked.items, *_evidence())
    status = decide(policy.requires, items)
    return TicketReport(ticket, ticket.digest(), status, items, checked.result, checked.premise)


def _evidence() -> tuple[Item, ...]:
    # No version of this program reads evidence yet, so no ticket can have shown either of these.
    remedy = "evaluate the ticket on held-out text; this version does not read evidence yet"
    return (
        Item(
            "evidence.quality",
            Outcome.MISSING,
            "NO_EVIDENCE",
            "no evidence that quality is kept: outputs of base, reference and ticket on held-out text",
            remedy,
        ),
        Item(
            "evidence.agreement",
            Outcome.MISSING,
            "NO_EVIDENCE",
            "no evidence of agreement with embed tuning: decisions of both models on the same prefixes",
            remedy,
        ),
    )
