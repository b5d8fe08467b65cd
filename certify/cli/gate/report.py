"""``certify report``: what ``certify check`` finds, as one page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from certify.cli import options
from certify.cli.registry import RENDERERS, load


def report(
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
    from certify.base.errors import CertifyError, ExitCode
    from certify.base.files import check_output
    from certify.base.jsonio import write_bytes
    from certify.base.verdict import gravest
    from certify.cli.gate.check import chosen_tickets
    from certify.cli.shell import complain, emit, progress_bar
    from certify.gate.check import CheckReport, check

    check_output(out, like=_is_page)
    chosen = chosen_tickets(files or ["tickets.json"])
    reports: list[CheckReport] = []
    failed: list[dict[str, Any]] = []
    codes: list[ExitCode] = []
    for path, ids in chosen.items():
        try:
            with progress_bar("scanning") as progress:
                found = check(
                    path,
                    policy=policy,
                    ids=ids,
                    base=base,
                    reference=reference,
                    tokenizer=tokenizer,
                    engine=engine,
                    workers=workers,
                    progress=progress,
                )
        except CertifyError as error:
            if len(chosen) == 1:
                raise
            complain(str(error), error.code)
            failed.append({"file": str(path), "code": error.code, "text": str(error)})
            codes.append(error.exit_code)
        else:
            reports.append(found)
            codes.append(found.exit_code)
    view = load(RENDERERS["check.view"])
    run = {
        "exit_code": int(gravest(codes)),
        "reports": [view(one, resample=False) for one in reports],
        "errors": failed,
    }
    write_bytes(out, load(RENDERERS["report"])(reports, run).encode("utf-8"))
    lines = [f"{one.status.value:<13} {one.ticket.id}\n" for found in reports for one in found.tickets]
    emit("".join([*lines, f"written to {out}\n"]), None)
    return int(gravest(codes))


def _is_page(data: bytes) -> bool:
    return data.startswith(b"<!doctype html>")
