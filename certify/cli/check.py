"""``certify check``: the gate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from certify.cli import options


def check(
    ticket: Annotated[Path, typer.Option("--ticket", help="Ticket file to check.")] = Path("tickets.json"),
    policy: Annotated[str, typer.Option("--policy", help="release (default) or selection.")] = "release",
    only: Annotated[
        list[str] | None, typer.Option("--id", help="Check only this ticket; repeatable.")
    ] = None,
    base: Annotated[
        Path | None, typer.Option("--base", help="Base table, if it does not travel with the ticket.")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option("--reference", "--tuned", help="Reference table, likewise.")
    ] = None,
    tokenizer: Annotated[Path | None, typer.Option("--tokenizer", help="tokenizer.json, likewise.")] = None,
    report_format: options.Format = options.FormatName.terminal,
    out: Annotated[Path | None, typer.Option("--out", help="Write the report to a file instead.")] = None,
    engine: options.Engine = options.EngineName.auto,
    workers: options.Workers = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="List every token of a ticket.")] = False,
) -> int:
    """Re-verify a ticket and decide: verdict first, then why. The exit code is the verdict."""
    from certify.cli.shell import emit, progress_bar
    from certify.gate import check as run_check
    from reports.view import view

    with progress_bar("scanning") as progress:
        report = run_check(
            ticket,
            policy=policy,
            ids=only or (),
            base=base,
            reference=reference,
            tokenizer=tokenizer,
            engine=engine.value,
            workers=workers,
            progress=progress,
        )
    if report_format is options.FormatName.json:
        from certify.schema import pretty_json

        emit(pretty_json(view(report)), out)
    else:
        _terminal(view(report), out, verbose)
    return int(report.exit_code)


def _terminal(data: dict[str, object], out: Path | None, verbose: bool) -> None:
    from io import StringIO

    from rich.console import Console

    from certify.cli.shell import console, emit, surviving_closed_pipe
    from reports.terminal import render

    if out is None:
        with surviving_closed_pipe():
            render(data, console(), verbose=verbose)
        return
    buffer = StringIO()
    plain = Console(
        file=buffer,
        width=80,
        markup=False,
        highlight=False,
        emoji=False,
        color_system=None,
        force_terminal=False,
    )
    render(data, plain, verbose=verbose)
    emit(buffer.getvalue(), out)
