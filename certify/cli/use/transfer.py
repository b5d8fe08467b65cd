"""``certify transfer``: write the base table with the ticket's rows in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from certify.cli import options
from certify.cli.registry import PROBE, load
from certify.cli.use import interop

if TYPE_CHECKING:
    from certify.ticket.transfer import TransferReport


def transfer(
    ticket: interop.TicketSpec,
    out: Annotated[Path, typer.Option("--out", help="Safetensors file to write.")],
    base: interop.TravellingBase = None,
    tuned: interop.ComparedTable = None,
    tensor: options.Tensor = None,
    report_format: options.Format = "terminal",
) -> None:
    """Write the base table with the ticket's rows in it and verify that no other row changed."""
    from certify.ticket.released import open_source
    from certify.ticket.transfer import open_parts
    from certify.ticket.transfer import transfer as run_transfer

    parts = open_parts(open_source(ticket), base, tuned, tensor=tensor, probe=load(PROBE))
    report = run_transfer(parts, out)
    following = ("certify", "verify", "--ticket", ticket, *(("--base", base) if base else ()))
    interop.show(lines(report), report.to_json(), report_format, *following, "--served", out, "--rows-only")


def lines(report: TransferReport) -> list[str]:
    """Format the report for people."""
    count, width = report.shape
    if report.reference_checked:
        against = "equal to the reference's"
    elif report.object == "tuned":
        against = "trained separately, bound by digest"
    else:
        against = "bound by digest; no reference table given to compare with"
    result = [
        f"wrote {report.out}: ticket {report.ticket} ({report.object}), {count} x {width} in {report.dtype}",
        f"rows transferred: {len(report.transferred)} ({against})",
        f"rows untouched:   {report.untouched}, bit for bit the base's, as read back from disk",
    ]
    if report.inert:
        result.append(f"{len(report.inert)} of the transferred rows equal the base's and have no effect")
    result.append(interop.TOKENISATION[report.tokenisation])
    return [*result, f"table sha256 {report.table_sha256}", f"file sha256  {report.file_sha256}"]
