"""``certify apply``: write a merged checkpoint that any engine loads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from certify.cli import options
from certify.cli.registry import PROBE, load
from certify.cli.use import interop
from certify.cli.use.transfer import lines


def apply(
    ticket: interop.TicketSpec,
    base: Annotated[Path, typer.Option("--base", help="Checkpoint folder of the base model; read only.")],
    out: Annotated[Path, typer.Option("--out", help="Checkpoint folder to create.")],
    tuned: interop.ComparedTable = None,
    link: Annotated[
        bool,
        typer.Option(
            "--link", help="Hard-link untouched shards instead of copying; never edit them in place."
        ),
    ] = False,
    tensor: options.Tensor = None,
    report_format: options.Format = "terminal",
) -> None:
    """Write a copy of the base checkpoint that holds the ticket's rows. Only one shard is rewritten."""
    from certify.ticket.merge import apply as run_apply
    from certify.ticket.released import open_source
    from certify.ticket.transfer import open_parts

    parts = open_parts(open_source(ticket), base, tuned, tensor=tensor, probe=load(PROBE))
    report = run_apply(parts, out, link=link)
    text = [*lines(report.transfer), f"rewritten: {report.rewritten}"]
    for title, names in (("copied", report.copied), ("linked", report.linked), ("left out", report.left_out)):
        if names:
            text.append(f"{title}: {', '.join(names)}")
    following = ("certify", "verify", "--ticket", ticket, "--base", base, "--served", out)
    interop.show(text, report.to_json(), report_format, *following)
