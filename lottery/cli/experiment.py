"""``certify experiment``: run a plan from a base model to tickets and evidence."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certify.cli import options
from lottery.cli.options import DeviceName

if TYPE_CHECKING:
    from lottery.experiment.driver import Row
    from lottery.experiment.engine.journal import Line
    from lottery.experiment.plan.plan import ExperimentPlan


def experiment(
    plan: Annotated[
        str,
        typer.Argument(
            metavar="PLAN", help="Plan: a TOML file or a shipped name, such as smoke or en-ca-small."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the experiment; continues a run found there.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Base model instead of the plan's: checkpoint folder or hub name.")
    ] = None,
    data: options.DataFolder = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print the steps with parameters, memory and time; run nothing, download nothing.",
        ),
    ] = False,
    measure: Annotated[
        bool,
        typer.Option(help="In a dry run, time the model if it is at hand and fits (up to a minute)."),
    ] = True,
    status: Annotated[
        bool, typer.Option("--status", help="Print the state of each step; run nothing.")
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="Run only these steps and what they need; * matches anything.")
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads", "--workers", min=1, help="Number of threads; default: the plan's, or all cores."
        ),
    ] = None,
    device: Annotated[
        DeviceName, typer.Option(help="Where to compute; auto takes a GPU if there is one.")
    ] = "auto",
) -> None:
    """Run a whole experiment: tune, find, transfer, controls, evaluate (needs the extra tune).

    The same command continues a run that was stopped or whose plan was changed.
    Finished steps run again only if something they depend on has changed.
    """
    from certify.base.errors import UsageError
    from certify.base.text import counted
    from certify.cli.shell import needs_extra, next_line, progress_bar

    if dry_run and status:
        raise UsageError("--dry-run and --status exclude each other", code="USAGE")
    if out is None and not dry_run:
        raise UsageError("name the folder of the experiment with --out", code="USAGE")
    with needs_extra("an experiment"):
        import torch

        from lottery.experiment import driver as library
        from lottery.experiment.plan.plan import read_experiment
    wanted = read_experiment(plan)
    if threads or wanted.threads:
        torch.set_num_threads(threads or wanted.threads)
    if dry_run:
        rows = library.dry_run(wanted, out, base=base, data=data, device=device, measure=measure)
        _show_dry_run(wanted, rows)
        return
    assert out is not None
    if status:
        _show_status(library.status(wanted, out, base=base, data=data), running=library.is_running(out))
        return
    with progress_bar(wanted.name, "") as progress:
        finished = library.run(
            wanted, out, base=base, data=data, device=device, only=only or [], report=_line, progress=progress
        )
    typer.echo(f"{counted(len(finished), 'step')} finished; results in {out}")
    typer.echo(next_line("certify", "check", out / "tickets" / "tickets.json"))


def _line(line: Line) -> None:
    if line.event == "skipped":
        text = "finished before" + (f": nothing to do, {line.text}" if line.text else "")
    elif line.event == "started":
        text = "started" + (f": {line.text}" if line.text else "")
    else:
        text = f"{line.event} in {line.seconds:.1f} s" + (f": {line.text}" if line.text else "")
    typer.echo(f"[{line.number}/{line.steps}] {line.step} {text}", err=True)


def _show_dry_run(plan: ExperimentPlan, rows: list[Row]) -> None:
    from lottery.experiment.plan.estimate import STARTING

    table = _table("step", "trained", "memory", "time")
    total = STARTING
    processor = "cpu"
    for row in rows:
        cost = row.estimate
        assert cost is not None
        total += cost.seconds
        processor = cost.processor
        trained = "by selection" if cost.trained is None else f"{cost.trained:,}" if cost.trained else ""
        table.add_row(row.step, trained, _bytes(cost.memory), _duration(cost.seconds) if cost.seconds else "")
    found = {row.estimate.basis for row in rows if row.estimate is not None}
    what = "one data-centre GPU in 16 bits" if processor == "gpu" else "two processor cores in fp32"
    basis = f"assumed rough rates for {what}"
    if "measured" in found:
        basis = "rates measured here with the model"
    if "finished" in found:
        basis = f"finished steps of the same kind, otherwise {basis}"
    _print(table)
    for notice in plan.notices:
        typer.echo(f"Note: {notice}")
    typer.echo(f"{plan.name}: {len(rows)} steps, about {_duration(total)} in all. Estimates, from {basis}.")


def _show_status(rows: list[Row], *, running: bool) -> None:
    table = _table("step", "state", "time", "")
    counts: dict[str, int] = {}
    for row in rows:
        state = str(row.state)
        if state == "started":
            state = "running" if running else "interrupted"
        counts[state] = counts.get(state, 0) + 1
        table.add_row(row.step, state, "" if row.seconds is None else _duration(row.seconds), row.reason)
    _print(table)
    typer.echo(", ".join(f"{count} {state}" for state, count in counts.items()))


def _table(*columns: str) -> Any:
    from rich.table import Table

    return Table(*columns, box=None, pad_edge=False)


def _print(table: Any) -> None:
    """Print a line for each row: where the terminal is too narrow, it breaks them, and no name is cut."""
    from rich.measure import Measurement

    from certify.cli.shell import console, surviving_closed_pipe

    on = console()
    on.width = max(on.width, Measurement.get(on, on.options.update(width=1000), table).maximum)
    with surviving_closed_pipe():
        on.print(table)


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"
