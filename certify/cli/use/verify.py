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
    served: Annotated[
        Path, typer.Option("--served", help="Checkpoint folder, table or PEFT adapter that is served.")
    ],
    base: interop.TravellingBase = None,
    tensor: options.Tensor = None,
    allow_extra_rows: Annotated[
        bool, typer.Option("--allow-extra-rows", help="Accept rows beyond the base model's vocabulary.")
    ] = False,
    rows_only: Annotated[
        bool, typer.Option("--rows-only", help="Compare the input table alone, not the rest of the model.")
    ] = False,
    report_format: options.Format = "terminal",
) -> int:
    """Verify that a checkpoint holds the ticket's rows, and the base everywhere else.

    Every tensor is compared with the base checkpoint's (--base). Of an adapter,
    the table that base and adapter serve together is computed. Runs without
    torch. The exit code is 0 if all is as it must be, 1 if it is not (rows,
    tensors and files are named) and 4 if a file is malformed.
    """
    from certify.ticket.released import open_source
    from certify.ticket.serving import verify as run_verify

    source = open_source(ticket)
    report = run_verify(
        source,
        served,
        base=base,
        tensor=tensor,
        allow_extra_rows=allow_extra_rows,
        rows_only=rows_only,
    )
    interop.show(_lines(report, source.ticket), report.to_json(), report_format)
    return int(report.exit_code)


def _headline(report: ServedReport) -> str:
    many = f"{report.tensors} tensors" if report.tensors > 1 else "the only tensor"
    verdict, compared = {
        "model": ("VERIFIED", f"{many} compared with the base checkpoint's"),
        "adapter": ("VERIFIED", "the table of base and adapter compared; no other module may be adapted"),
        "rows": ("ROWS VERIFIED", "the rest of the model was not compared"),
    }[report.compared]
    return f"{verdict if report.verified else 'REFUTED'}; {compared}"


def _lines(report: ServedReport, ticket: Ticket) -> list[str]:
    count, width = report.shape
    lines = [
        _headline(report),
        f"{report.served}, ticket {report.ticket} ({report.object} rows)",
        f"table {report.tensor}, {count} x {width}, {report.dtype}",
    ]
    if report.comparison is not None:
        served, k = len(report.comparison.served), len(ticket.ids)
        others = report.comparison.rows - sum(i < report.comparison.rows for i in ticket.ids)
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
