"""``certify verify``: check that a checkpoint serves the certified rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from certify.cli import options
from certify.cli.use import interop

if TYPE_CHECKING:
    from certify.ticket.schema import Ticket
    from certify.ticket.serving import ServedReport

_SHOWN_PIECES = 10


def verify(
    ticket: interop.TicketSpec,
    served: Annotated[Path, typer.Option("--served", help="Checkpoint folder or table that is served.")],
    base: interop.TravellingBase = None,
    tensor: options.Tensor = None,
    allow_extra_rows: Annotated[
        bool, typer.Option("--allow-extra-rows", help="Accept rows beyond the base model's vocabulary.")
    ] = False,
    report_format: options.Format = "terminal",
) -> int:
    """Verify that a checkpoint holds the ticket's rows, and the base's rows everywhere else.

    Runs without torch. The exit code is 0 if it does, 1 if it does not (the rows
    that differ are listed) and 4 if a file cannot be read.
    """
    from certify.ticket.released import open_source
    from certify.ticket.serving import verify as run_verify

    source = open_source(ticket)
    report = run_verify(source, served, base=base, tensor=tensor, allow_extra_rows=allow_extra_rows)
    interop.show(_lines(report, source.ticket), report.to_json(), report_format)
    return int(report.exit_code)


def _lines(report: ServedReport, ticket: Ticket) -> list[str]:
    verdict = "VERIFIED" if report.verified else "REFUTED"
    count, width = report.shape
    lines = [
        f"{verdict}: {report.served}, ticket {report.ticket} ({report.object} rows)",
        f"table {report.tensor}, {count} x {width}, {report.dtype}",
    ]
    if report.comparison is not None:
        served, k = len(report.comparison.served), len(ticket.ids)
        others = report.comparison.rows - k
        lines.append(
            f"ticket rows served: {served} of {k}; other rows equal to the base's:"
            f" {others - len(report.comparison.foreign)} of {others}"
        )
    pieces = {token.id: token.piece for token in ticket.tokens if token.piece is not None}
    for finding in report.findings:
        lines.append(f"  {finding.code}: {finding.message}")
        named = [f"{i} {pieces[i]!r}" for i in finding.ids if i in pieces][:_SHOWN_PIECES]
        if named:
            lines.append(f"    pieces: {', '.join(named)}")
    return [*lines, *(f"  note: {note}" for note in report.notes), f"table sha256 {report.served_sha256}"]
