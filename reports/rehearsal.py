"""Show where a sequential design would have stopped on real tickets: ``python -m reports.rehearsal TICKETS``.

For information only: it does not change what evidence of a fixed design shows. The units are looked at in
their seeded order, as if drawn in batches, with the anytime-valid limits of
``certify evaluate --until-decided``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from certify.base.errors import CertifyError
from certify.claims.every import role_of
from certify.evidence.load import Evidence, load
from certify.gate.watch import Look, Watch, open_subjects, rehearse
from certify.policy.policy import POLICIES
from certify.ticket.schema import read_ticket_file

_LOOK = 30


@dataclass(frozen=True, slots=True)
class Stop:
    """Where one claim about one ticket would have been decided.

    Attributes:
        units: number of units at the first look that decided the claim; all units if none did.
        decided: whether more units could no longer have changed the outcome.
    """

    ticket: str
    claim: str
    units: int
    total: int
    outcome: str
    decided: bool

    @property
    def saved(self) -> float:
        """Share of the units that this claim did not need."""
        return 1 - self.units / self.total


def stops(ticket: str, looks: Sequence[Look], total: int) -> list[Stop]:
    """Find the stop of each claim in the looks at one ticket's evidence."""
    found = []
    for position, last in enumerate(looks[-1].standings):
        ends = [look for look in looks if not look.standings[position].open]
        # A decision never changes afterwards (certify.stats.betting): the first deciding look is the stop.
        at = ends[0] if ends else looks[-1]
        outcome = at.standings[position].answer.outcome.value
        found.append(Stop(ticket, last.requirement.claim, at.units, total, outcome, bool(ends)))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and return 0."""
    about = "Show where a sequential design would have stopped on real tickets."
    parser = argparse.ArgumentParser(prog="python -m reports.rehearsal", description=about)
    parser.add_argument("tickets", type=Path, help="ticket file, with tables and evidence beside it")
    parser.add_argument("--policy", default="release", choices=list(POLICIES))
    parser.add_argument("--look", type=int, default=_LOOK, help="units between looks")
    options = parser.parse_args(arguments)
    try:
        print("\n".join(table(rehearsed(options.tickets, options.policy, options.look))))
    except CertifyError as error:
        print(f"{error} [{error.code}]", file=sys.stderr)
        return int(error.exit_code)
    return 0


def rehearsed(path: Path, policy: str, look: int) -> Iterator[Stop]:
    """Yield the stops of every ticket of a file, on every translated text that decides."""
    folder = path.parent
    loaded: dict[str, Evidence] = {}
    for ticket in read_ticket_file(path).tickets:
        (subject,) = open_subjects([f"{path}#{ticket.id}"], None, None)
        for located in ticket.evidence:
            if located.path not in loaded:
                loaded[located.path] = load(folder / located.path)
            evidence = loaded[located.path]
            if role_of(evidence, subject.ticket) == "evaluation":
                looks = rehearse(Watch(POLICIES[policy], [subject]), evidence, look)
                yield from stops(ticket.id, looks, len(evidence.units))


def table(found: Iterator[Stop]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    yield "| ticket | claim | units | of | saved | there |"
    yield "|---|---|---|---|---|---|"
    for one in found:
        outcome = one.outcome if one.decided else f"{one.outcome}, open"
        yield f"| {one.ticket} | {one.claim} | {one.units} | {one.total} | {one.saved:.0%} | {outcome} |"


if __name__ == "__main__":
    sys.exit(main())
