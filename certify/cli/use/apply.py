"""``certify apply``: write a merged checkpoint that any engine loads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from certify.cli import options
from certify.cli.use import interop
from certify.cli.use.certified import Uncertified, open_certified, tell
from certify.cli.use.transfer import lines


def apply(
    context: typer.Context,
    ticket: interop.TicketSpec,
    base: Annotated[Path, typer.Option("--base", help="Checkpoint folder of the base model; read only.")],
    out: Annotated[Path, typer.Option("--out", help="Checkpoint folder to create.")],
    reference: interop.ComparedTable = None,
    link: Annotated[
        bool,
        typer.Option(
            "--link", help="Hard-link untouched shards instead of copying; never edit them in place."
        ),
    ] = False,
    tensor: options.Tensor = None,
    policy: options.Policy = "release",
    uncertified: Uncertified = False,
    report_format: options.Format = "terminal",
) -> None:
    """Write a copy of the base checkpoint that holds the ticket's rows. Only one shard is rewritten.

    The ticket must be CERTIFIED: certify check is run first. If it is not, nothing is written, and the exit
    code is that of its verdict.
    """
    from certify.ticket.merge import apply as run_apply

    parts = open_certified(
        context, ticket, base, reference, tensor=tensor, policy=policy, uncertified=uncertified
    )
    report = run_apply(parts, out, link=link)
    text = [*lines(report.transfer), tell(parts), f"rewritten: {report.rewritten}"]
    for title, names in (("copied", report.copied), ("linked", report.linked), ("left out", report.left_out)):
        if names:
            text.append(f"{title}: {', '.join(names)}")
    following = ("certify", "verify", "--ticket", ticket, "--base", base, "--served", out)
    interop.show(text, report.to_json(), report_format, *following)
