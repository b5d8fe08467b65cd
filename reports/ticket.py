"""The output of ``certify find``: the ticket that it made and the next command."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from certify.base.text import counted, escape
from certify.cli.shell import next_line
from certify.scan.smirnov import critical_count
from certify.ticket.make import Found
from certify.ticket.released import shown as listed


def render(found: Found, console: Console, *, inputs: Sequence[str]) -> None:
    """Print the size of the ticket, its strongest pieces, what was left out and how to check it.

    A row without a known piece is shown by its id.

    Args:
        inputs: options that name the tables for a check, used if they do not lie beside the ticket.
    """
    ticket, chosen = found.ticket, found.selection
    rows = ticket.base.shape[0]
    console.print(
        f"ticket {ticket.id}: {len(chosen.ids)} of {rows} rows ({len(chosen.ids) / rows:.2%})"
        f" by rule {escape(chosen.rule)}, alpha {chosen.alpha}, correction {chosen.correction}",
        soft_wrap=True,
    )
    strongest = sorted(ticket.tokens, key=lambda token: (-token.h, token.id))[:12]
    if strongest:
        shown = "  ".join(
            str(token.id) if token.piece is None else escape(token.piece, limit=16) for token in strongest
        )
        console.print(f"  strongest: {shown}", soft_wrap=True)
    for group in chosen.excluded:
        console.print(f"  left out, {escape(group.reason)}: {counted(len(group.ids), 'id')}")
    if ticket.base.source is not None:
        console.print(f"  base: {escape(ticket.base.source.line)}", soft_wrap=True)
    h_tau = critical_count(chosen.alpha, chosen.n, "asymptotic")
    for group in chosen.excluded:
        moved = [i for i in group.ids if found.result.h[i] >= h_tau]
        if moved:
            console.print(
                f"  left out although D > tau, {escape(group.reason)}: {listed(moved)}"
                " (the published premise fails; --rule ids:… can include it)",
                soft_wrap=True,
            )
    if ticket.tokenizer is None:
        console.print("  no tokenizer.json: special ids were not left out (name one with --tokenizer)")
    console.print(f"written to {escape(str(found.path))}", soft_wrap=True)
    command = ["certify", "check", f"{found.path}#{ticket.id}", "--policy", "selection"]
    if ticket.base.path is None or ticket.reference.path is None:
        command += inputs
    console.print(next_line(*command), soft_wrap=True)
