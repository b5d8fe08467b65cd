"""``certify check``: the gate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from certify.cli import options
from certify.cli.registry import RENDERERS, load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console


def check(
    ticket: Annotated[Path, typer.Option("--ticket", help="Ticket file to check.")] = Path("tickets.json"),
    policy: Annotated[
        str, typer.Option("--policy", help="selection, paper, release, strict, or a .toml file of your own.")
    ] = "release",
    only: Annotated[
        list[str] | None, typer.Option("--id", help="Check only this ticket; repeatable.")
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option("--certificate", help="Certificate, if not the one named in the ticket.")
    ] = None,
    base: options.BesideBase = None,
    reference: options.BesideReference = None,
    tokenizer: options.BesideTokenizer = None,
    report_format: options.Format = "terminal",
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the report to a file instead of printing it.")
    ] = None,
    engine: options.Engine = "auto",
    workers: options.Workers = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="List every token of each ticket.")] = False,
    replay: Annotated[
        str | None,
        typer.Option("--replay", metavar="MODEL", help="Rerun every listed violation on this base model."),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option("--text", metavar="DATA", help="With --replay: a text that was evaluated; repeatable."),
    ] = None,
) -> int:
    """Verify a ticket from scratch and decide. Prints the verdict, then the reasons.

    The exit code is the verdict.
    """
    from certify.base.errors import UsageError
    from certify.cli.shell import emit, progress_bar
    from certify.gate.check import check as run_check

    if text and replay is None:
        raise UsageError("--text requires --replay", code="USAGE")
    with progress_bar("scanning") as progress:
        report = run_check(
            ticket,
            policy=policy,
            ids=only or (),
            certificate=certificate,
            base=base,
            reference=reference,
            tokenizer=tokenizer,
            engine=engine,
            workers=workers,
            progress=progress,
        )
    as_json = report_format == "json"
    shown, lines = load(RENDERERS["check.view"])(report, resample=as_json or verbose), []
    if replay is not None:
        replaying = load(RENDERERS["replay"])
        reruns = replaying.run_again(report, model=replay, texts=text or (), reference=reference)
        lines = replaying.lines(reruns)
        code = replaying.exit_code(int(report.exit_code), reruns)
        shown |= {"exit_code": code, "replay": replaying.data(reruns)}
    if as_json:
        from certify.base.jsonio import pretty_json

        emit(pretty_json(shown), out)
    else:
        _terminal(shown, out, verbose, lines)
    return int(shown["exit_code"])


def _terminal(data: dict[str, object], out: Path | None, verbose: bool, more: Sequence[str]) -> None:
    from io import StringIO

    from rich.console import Console

    from certify.cli.shell import console, emit, surviving_closed_pipe

    if out is None:
        with surviving_closed_pipe():
            _render(data, console(), verbose, more)
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
    _render(data, plain, verbose, more)
    emit(buffer.getvalue(), out)


def _render(data: dict[str, object], to: Console, verbose: bool, more: Sequence[str]) -> None:
    from certify.base.text import escape

    load(RENDERERS["check"])(data, to, verbose=verbose)
    for line in more:
        to.print(escape(line), soft_wrap=True)
