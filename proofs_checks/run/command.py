"""``certify prove``: try to break the theory, and say what was tried."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from certify.cli import options


class Required(StrEnum):
    """Which checks must have passed."""

    run = "run"
    all = "all"


def prove(
    fast: Annotated[
        bool, typer.Option("--fast", help="A minute at most; without it up to twenty, and deeper.")
    ] = False,
    require: Annotated[
        Required,
        typer.Option("--require", help="all: a check that did not run, or timed out, denies (exit code 3)."),
    ] = Required.run,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Only these checks; * stands for anything.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the record as JSON.")] = None,
    report_format: options.Format = "terminal",
    as_json: Annotated[bool, typer.Option("--json", help="Short for --format json.")] = False,
    model: Annotated[
        Path | None,
        typer.Option("--model", help="LLaMA checkpoint for C1 on a real model; default: the published base."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the checks that draw at random.")] = 0,
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=0.1, help="Time for one check; default: 120, or 600.")
    ] = None,
    processes: Annotated[
        int, typer.Option("--processes", "--workers", min=1, help="Checks that run at a time.")
    ] = 2,
    list_only: Annotated[bool, typer.Option("--list", help="Print the checks; run nothing.")] = False,
) -> int:
    """Why believe the bounds? Run every check of the theory and print what it found (extra proofs).

    Exit code 0 if nothing failed, 1 if a check failed, 3 if --require all and one did not run.
    """
    from certify.base.files import check_output
    from certify.base.jsonio import pretty_json, states, write_bytes
    from certify.cli.shell import needs_extra, progress_bar
    from proofs_checks.check import Budget, Tier
    from proofs_checks.run.prove import SECONDS, checks
    from proofs_checks.run.prove import prove as run
    from proofs_checks.run.record import FORMAT

    if list_only:
        _show_list([(check.name, check.clause, check.assumptions) for check in checks(model)])
        return 0
    if out is not None:  # before the work, not after it
        check_output(out, like=states("format", FORMAT))
    tier: Tier = "fast" if fast else "full"
    budget = Budget(tier, SECONDS[tier] if seconds is None else seconds, seed)
    with needs_extra("proving", "z3", "flint"), progress_bar("checks", "checks") as progress:
        record = run(
            budget,
            only=only or [],
            model=model,
            processes=processes,
            report=lambda _, done, total: progress(done, total),
        )
    found = record.model_dump(mode="json", by_alias=True)
    if out is not None:
        write_bytes(out, pretty_json(found).encode())
    code = int(record.exit_code(require_all=require is Required.all))
    deeper = ("certify", "prove", *(word for name in only or () for word in ("--only", name)))
    _show(found, deeper if fast and not code else (), json=as_json or report_format == "json")
    return code


def _show(found: dict[str, Any], following: tuple[str, ...], *, json: bool) -> None:
    from certify.base.jsonio import pretty_json
    from certify.cli.shell import console, emit, next_line, surviving_closed_pipe

    if json:
        emit(pretty_json(found), None)
        return
    from reports import proofs

    with surviving_closed_pipe():
        screen = console()
        screen.print(proofs.table(found))
        for line in (*proofs.not_passed(found), *proofs.summary(found)):
            screen.print(line)
        if following:
            print(next_line(*following))


def _show_list(found: list[tuple[str, str, tuple[str, ...]]]) -> None:
    from certify.cli.shell import surviving_closed_pipe

    with surviving_closed_pipe():
        for name, clause, assumptions in found:
            needs = f" ← {', '.join(assumptions)}" if assumptions else ""
            typer.echo(f"{name}: {clause}{needs}")
