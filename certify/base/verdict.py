"""Outcomes, verdicts and exit codes: from checked items to a verdict.

A verdict is always recomputed, never stored. Unless everything that the policy requires was shown, it denies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from certify.base.errors import ExitCode, InternalError


class Outcome(StrEnum):
    """Result of one check."""

    PASS = "pass"
    UNBOUND = "not bound"  # the ticket binds nothing here: nothing is wrong, and nothing was shown
    FAIL = "fail"  # a claim of the ticket is false, and the item says where
    MISSING = "missing"  # evidence that would decide is missing
    INCONCLUSIVE = "inconclusive"  # there is evidence, but it does not decide
    VACUOUS = "vacuous"  # nothing is claimed
    INVALID = "invalid"  # the inputs are not what the ticket says they are
    ERROR = "error"  # the check itself failed
    NOT_RUN = "not run"  # an earlier item left nothing to run it on


class Status(StrEnum):
    """The verdict on one ticket. Only CERTIFIED opens a gate (theory §7)."""

    CERTIFIED = "CERTIFIED"
    REFUTED = "REFUTED"
    INCONCLUSIVE = "INCONCLUSIVE"
    VACUOUS = "VACUOUS"
    INVALID = "INVALID"
    ERROR = "ERROR"


@dataclass(frozen=True, slots=True)
class Item:
    """One checked statement.

    Attributes:
        name: name of the check, such as ``selection.ids``; unique per ticket.
        outcome: result of the check.
        code: stable reason code.
        text: one sentence with the figures.
        remedy: what to do about it; None if nothing.
        ids: token ids that show it.
    """

    name: str
    outcome: Outcome
    code: str
    text: str
    remedy: str | None = None
    ids: tuple[int, ...] = field(default=())


SEVERITY: Final[tuple[tuple[Outcome, Status], ...]] = (
    (Outcome.ERROR, Status.ERROR),
    (Outcome.INVALID, Status.INVALID),
    (Outcome.FAIL, Status.REFUTED),
    (Outcome.MISSING, Status.INCONCLUSIVE),
    (Outcome.INCONCLUSIVE, Status.INCONCLUSIVE),
    (Outcome.NOT_RUN, Status.INCONCLUSIVE),
    (Outcome.VACUOUS, Status.VACUOUS),
)
"""Outcomes that deny, worst first, and the verdict that each makes.

NOT_RUN always has a cause among the other items; alone it denies like MISSING.
"""

_EXIT: Mapping[Status, ExitCode] = {
    Status.CERTIFIED: ExitCode.CERTIFIED,
    Status.REFUTED: ExitCode.REFUTED,
    Status.INCONCLUSIVE: ExitCode.INCONCLUSIVE,
    Status.VACUOUS: ExitCode.INCONCLUSIVE,
    Status.INVALID: ExitCode.INVALID,
    Status.ERROR: ExitCode.INTERNAL,
}

# For several tickets, the first of these that occurs determines the exit code.
_PRECEDENCE = (
    ExitCode.INTERNAL,
    ExitCode.INVALID,
    ExitCode.REFUTED,
    ExitCode.USAGE,
    ExitCode.INCONCLUSIVE,
    ExitCode.NOTHING,
    ExitCode.CERTIFIED,
)


def decide(requires: Iterable[str], items: Iterable[Item]) -> Status:
    """Decide under a policy that requires the items named ``requires``.

    Monotone: an absent item counts as MISSING, so removing evidence never certifies.

    Raises:
        InternalError: two items have the same name, or nothing is required.
    """
    found: dict[str, Item] = {}
    for item in items:
        if item.name in found:
            raise InternalError(f"the check {item.name} reported twice", code="ITEM_TWICE")
        found[item.name] = item
    outcomes = {found[name].outcome if name in found else Outcome.MISSING for name in requires}
    if not outcomes:
        raise InternalError("a policy must require something", code="POLICY_EMPTY")
    for outcome, status in SEVERITY:
        if outcome in outcomes:
            return status
    return Status.CERTIFIED


def exit_code(statuses: Iterable[Status]) -> ExitCode:
    """Determine the exit code for the verdicts of one run; NOTHING if there are none."""
    return gravest(_EXIT[status] for status in statuses)


def gravest(codes: Iterable[ExitCode]) -> ExitCode:
    """The exit code of a run whose parts have these; NOTHING if there are none.

    A file that could not be judged at all (USAGE) counts more than one that was not shown.
    """
    found = {*codes} or {ExitCode.NOTHING}
    return next(code for code in _PRECEDENCE if code in found)
