"""``certify check``: the gate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certify.base.errors import ExitCode
from certify.cli import options
from certify.cli.registry import FED, RENDERERS, load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console


def check(
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE[#ID] ...]", help="Tickets to check; default: tickets.json."),
    ] = None,
    ticket: Annotated[
        list[str] | None,
        typer.Option("--ticket", metavar="FILE[#ID]", help="The same as an option; repeatable."),
    ] = None,
    policy: Annotated[
        str,
        typer.Option(
            "--policy",
            help="selection, paper, release, drop-in, science, strict, or a .toml file of your own.",
        ),
    ] = "release",
    only: Annotated[
        list[str] | None, typer.Option("--id", help="Check only this ticket of the file; repeatable.")
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
    """Verify tickets from scratch and decide. Prints verdicts first, then the reasons.

    The exit code is the gravest verdict.
    """
    from certify.base.errors import CertifyError, InternalError, UsageError
    from certify.base.verdict import gravest
    from certify.cli.shell import complain, emit, progress_bar
    from certify.gate.check import check as run_check
    from certify.policy.policy import get_policy

    chosen = chosen_tickets([*(files or ()), *(ticket or ())] or ["tickets.json"], only or ())
    if text and replay is None:
        raise UsageError("--text requires --replay", code="USAGE")
    if certificate is not None and len(chosen) > 1:
        raise UsageError("--certificate is about one ticket: name one", code="TICKET_UNKNOWN")
    get_policy(policy)  # wrong for one file is wrong for all
    shown: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    lines: list[list[str]] = []
    codes = []
    for path, ids in chosen.items():
        try:
            with progress_bar("scanning") as progress:
                report = run_check(
                    path,
                    policy=policy,
                    ids=ids,
                    certificate=certificate,
                    base=base,
                    reference=reference,
                    tokenizer=tokenizer,
                    engine=engine,
                    workers=workers,
                    progress=progress,
                    fed=load(FED),
                )
            data = load(RENDERERS["check.view"])(report, resample=report_format == "json" or verbose)
            lines.append([])
            if replay is not None:
                replaying = load(RENDERERS["replay"])
                reruns = replaying.run_again(report, model=replay, texts=text or (), reference=reference)
                lines[-1] = replaying.lines(reruns)
                code = replaying.exit_code(int(report.exit_code), reruns)
                data |= {"exit_code": code, "replay": replaying.data(reruns)}
        except Exception as error:  # a fault of this program with one file is no reason to hide the others
            if len(chosen) == 1:
                raise
            if not isinstance(error, CertifyError):
                what = f"{path}: internal error: {type(error).__name__}: {error}"
                error = InternalError(what, code="INTERNAL")
            complain(str(error), error.code)
            codes.append(error.exit_code)
            failed.append({"file": str(path), "code": error.code, "text": str(error)})
        else:
            shown.append(data)
            codes.append(ExitCode(data["exit_code"]))
    result = int(gravest(codes))
    if report_format == "terminal":
        _terminal(shown, out, verbose, lines)
    else:
        from certify.base.jsonio import pretty_json

        several = {
            "schema": "certify.reports",
            "schema_version": 1,
            "exit_code": result,
            "reports": shown,
            "errors": failed,
        }
        emit(pretty_json(shown[0] if len(chosen) == 1 else several, flat=True), out)
    return result


def chosen_tickets(specs: Sequence[str], only: Sequence[str] = ()) -> dict[Path, list[str]]:
    """Ids to check by file, in the order in which the files were named; no ids: all tickets of the file."""
    from certify.base.errors import UsageError
    from certify.ticket.released import split_spec

    split = [split_spec(spec) for spec in specs]
    if only and (len(split) > 1 or split[0][1]):
        raise UsageError("--id chooses from one ticket file: write FILE#ID", code="TICKET_UNKNOWN")
    found: dict[Path, list[str]] = {}
    for path, _ in split:
        ids = [*only, *(name for other, name in split if other == path)]
        found[path] = list(dict.fromkeys(ids)) if all(ids) else list(only)
    return found


def _terminal(
    shown: Sequence[dict[str, Any]], out: Path | None, verbose: bool, more: Sequence[Sequence[str]]
) -> None:
    from io import StringIO

    from rich.console import Console

    from certify.cli.shell import console, emit, surviving_closed_pipe

    if out is None:
        with surviving_closed_pipe():
            _render(shown, console(), verbose, more)
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
    _render(shown, plain, verbose, more)
    emit(buffer.getvalue(), out)


def _render(
    shown: Sequence[dict[str, Any]], to: Console, verbose: bool, more: Sequence[Sequence[str]]
) -> None:
    from certify.base.text import escape

    for data, lines in zip(shown, more, strict=True):
        if len(shown) > 1:
            to.print()
            to.print(escape(data["file"]), style="bold", soft_wrap=True)
        load(RENDERERS["check"])(data, to, verbose=verbose)
        for line in lines:
            to.print(escape(line), soft_wrap=True)
