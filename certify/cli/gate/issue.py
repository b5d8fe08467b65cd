"""``certify issue``: make a certificate from a ticket and its evidence."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from certify.cli import options
from certify.cli.use import interop


def issue(
    ticket: interop.TicketSpec,
    evidence: Annotated[
        list[Path],
        typer.Option("--evidence", help="Evidence manifest, in the ticket's folder; repeatable."),
    ],
    out: Annotated[Path, typer.Option("--out", help="Certificate file to write.")],
    delta: Annotated[
        str, typer.Option("--delta", help="Error probability of each claim, over all its texts together.")
    ] = "0.05",
    attach: Annotated[
        bool,
        typer.Option("--attach", help="Record the paths of certificate and evidence in the ticket file."),
    ] = False,
    base: options.BesideBase = None,
    reference: options.BesideReference = None,
    tokenizer: options.BesideTokenizer = None,
    engine: options.Engine = "auto",
    workers: options.Workers = None,
) -> None:
    """Compute every claim that the evidence supports and write them to a certificate.

    A certificate holds no verdict: certify check decides.
    """
    from certify.base.text import counted, escape
    from certify.cli.shell import console, next_line, progress_bar
    from certify.gate.issue import issue as run_issue
    from certify.ticket.released import split_spec

    path, name = split_spec(ticket)
    with progress_bar("scanning") as progress:
        certificate = run_issue(
            path,
            evidence,
            out=out,
            ticket_id=name or None,
            delta=delta,
            attach=attach,
            base=base,
            reference=reference,
            tokenizer=tokenizer,
            engine=engine,
            workers=workers,
            progress=progress,
        )
    texts = ", ".join(f"{one.text} ({one.role})" for one in certificate.evidence)
    shown = console()
    claims = counted(len(certificate.claims), "claim")
    shown.print(f"{claims} about {certificate.ticket.id} on {escape(texts)} → {out}")
    shown.print(escape(certificate.signature), soft_wrap=True)
    if attach:
        named = options.beside(base, reference, tokenizer)
        shown.print(next_line("certify", "check", f"{path}#{certificate.ticket.id}", *named), soft_wrap=True)
