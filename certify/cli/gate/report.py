"""``certify report``: what ``certify check`` finds, as one page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certify.cli import options
from certify.cli.gate.run import chosen_tickets, from_defaults, judge_files
from certify.cli.registry import FORMATS, RENDERERS, load

if TYPE_CHECKING:
    from certify.gate.check import CheckReport


def report(
    context: typer.Context,
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE[#ID]", help="Tickets to report on; default: tickets.json."),
    ] = None,
    policy: options.Policy = "release",
    out: Annotated[Path, typer.Option("--out", help="Where to write the page.")] = Path("report.html"),
    base: options.BesideBase = None,
    reference: options.BesideReference = None,
    tokenizer: options.BesideTokenizer = None,
    engine: options.Engine = "auto",
    workers: options.Workers = None,
) -> int:
    """Check tickets and write what was found as one HTML page with plots.

    The page is self-contained, asks for nothing and reads without scripts. The exit code is that of check.
    """
    from certify.base.files import check_output, check_target
    from certify.base.jsonio import write_bytes
    from certify.cli.shell import console, next_line, surviving_closed_pipe
    from certify.policy.policy import get_policy

    check_output(out, like=lambda data: data.startswith(b"<!doctype html>"))
    check_target(out)
    get_policy(policy)  # wrong for one file is wrong for all
    reports: list[CheckReport] = []
    set_by = from_defaults(context, "policy")

    def look(found: CheckReport) -> dict[str, Any]:
        data: dict[str, Any] = load(RENDERERS["check.view"])(found, resample=False, set_by=set_by)
        reports.append(found)
        return data

    run = judge_files(
        chosen_tickets(files or ["tickets.json"]),
        look,
        policy=policy,
        base=base,
        reference=reference,
        tokenizer=tokenizer,
        engine=engine,
        workers=workers,
    )
    write_bytes(out, load(RENDERERS["report"])(reports, run).encode("utf-8"))
    with surviving_closed_pipe():
        load(FORMATS["terminal"])(run, console(), quiet=True)
        print(next_line("python3", "-m", "webbrowser", out))
    return int(run["exit_code"])
