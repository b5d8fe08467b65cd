"""``certify prove``: try to break the theory, and say what was tried."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from certify.cli import options

if TYPE_CHECKING:
    from proofs_checks.prove import Record
    from proofs_checks.records import CheckResult

_STYLES = {"passed": "green", "failed": "bold red", "not run": "yellow", "timeout": "yellow"}


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
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the record as JSON, for a certificate.")
    ] = None,
    report_format: options.Format = options.FormatName.terminal,
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
    from certify.cli.shell import progress_bar
    from proofs_checks.prove import SECONDS, checks
    from proofs_checks.prove import prove as run
    from proofs_checks.records import Budget, Tier

    if list_only:
        _show_list([(check.name, check.clause, check.assumptions) for check in checks(model)])
        return 0
    tier: Tier = "fast" if fast else "full"
    budget = Budget(tier, SECONDS[tier] if seconds is None else seconds, seed)
    with progress_bar("checks", "checks") as progress:
        record = run(
            budget,
            only=only or [],
            model=model,
            processes=processes,
            report=None if progress is None else lambda _, done, total: progress(done, total),
        )
    if out is not None:
        from certify.schema import pretty_json, write_bytes

        write_bytes(out, pretty_json(record.to_json()).encode())
    _show(record, json=as_json or report_format is options.FormatName.json)
    return int(record.exit_code(require_all=require is Required.all))


def _show(record: Record, *, json: bool) -> None:
    from certify.cli.shell import console, emit, surviving_closed_pipe
    from certify.schema import pretty_json

    if json:
        emit(pretty_json(record.to_json()), None)
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("check", overflow="fold")
    table.add_column("clause ← assumptions", overflow="fold", ratio=1)
    table.add_column("result", no_wrap=True)
    table.add_column("cases", justify="right", no_wrap=True)
    table.add_column("seconds", justify="right", no_wrap=True)
    for result in record.results:
        needs = f" ← {', '.join(result.assumptions)}" if result.assumptions else ""
        table.add_row(
            result.name,
            f"{result.clause}{needs}",
            Text(_word(result), style=_STYLES[result.outcome]),
            f"{result.cases:,}",
            f"{result.seconds:.1f}",
        )
    with surviving_closed_pipe():
        screen = console()
        screen.print(table)
        for result in record.results:
            if not result.passed:
                screen.print(f"{_word(result)} {result.name}: {result.detail}")
                if result.witness:
                    screen.print(f"    {result.witness}")
        counts = ", ".join(f"{count} {outcome}" for outcome, count in record.counts.items() if count)
        cases = sum(result.cases for result in record.results)
        screen.print(f"{len(record.results)} checks: {counts}; {cases:,} cases")
        clauses = record.clauses
        passed = sum(clause.outcome == "passed" for clause in clauses)
        screen.print(f"{passed} of {len(clauses)} clauses of the theory passed every check")


def _word(result: CheckResult) -> str:
    return result.outcome if result.passed else result.outcome.upper()


def _show_list(found: list[tuple[str, str, tuple[str, ...]]]) -> None:
    from certify.cli.shell import surviving_closed_pipe

    with surviving_closed_pipe():
        for name, clause, assumptions in found:
            needs = f" ← {', '.join(assumptions)}" if assumptions else ""
            typer.echo(f"{name}: {clause}{needs}")
