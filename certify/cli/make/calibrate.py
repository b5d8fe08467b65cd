"""``certify calibrate``: choose the margin that a ticket declares, on choice data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from certify.cli import options
from certify.cli.use import interop


def calibrate(
    ticket: interop.TicketSpec,
    data: Annotated[
        Path,
        typer.Option(
            "--data", metavar="CHOICE.json", help="Evidence on choice data (certify evaluate --margins)."
        ),
    ],
    alpha: Annotated[
        str, typer.Option("--alpha", help="Rate of disagreement with embed tuning to allow.")
    ] = "0.05",
    delta: Annotated[str, typer.Option("--delta", help="Error probability of the choice.")] = "0.05",
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the margin that the ticket declares.")
    ] = False,
    base: options.BesideBase = None,
    reference: options.BesideReference = None,
    tokenizer: options.BesideTokenizer = None,
    engine: options.Engine = "auto",
    workers: options.Workers = None,
    report_format: options.Format = "terminal",
) -> int:
    """Choose the lowest margin t at which the ticket's model decides as embed tuning.

    Margins are tested from .99 down, each at the full error probability, until
    one fails (Learn then Test). The ticket then declares: where its model's own
    margin is at least t, it disagrees with embed tuning at a mean unit rate of at
    most alpha. Evaluate the ticket afterwards, on other text. The exit code is 3
    if no margin is shown to be good enough.
    """
    from certify.base.enclosure import rational
    from certify.base.errors import ExitCode
    from certify.cli.shell import progress_bar
    from certify.gate.calibrate import calibrate as run_calibrate
    from certify.ticket.released import split_spec

    path, name = split_spec(ticket)
    with progress_bar("scanning") as progress:
        result = run_calibrate(
            path,
            data,
            alpha=alpha,
            delta=delta,
            ticket_id=name or None,
            replace=replace,
            base=base,
            reference=reference,
            tokenizer=tokenizer,
            engine=engine,
            workers=workers,
            progress=progress,
        )
    lines = [
        f"t = {one.t}: {one.n} units are sure somewhere"
        + ("" if one.estimate is None else f", there {float(one.estimate):.4f} disagree")
        + ("" if one.good else ": not shown to be good enough, testing stops here")
        for one in result.tested
    ]
    if result.chosen is None:
        lines.append("no margin is shown to be good enough; the ticket is as it was")
    else:
        lines += [
            f"{result.ticket_id} declares t = {result.chosen} at alpha = {alpha}: evaluate it on other text",
            f"record of the choice: {result.record}",
        ]
    summary = {
        "ticket": result.ticket_id,
        "t": result.chosen,
        "alpha": alpha,
        "delta": delta,
        "tested": [
            {"t": one.t, "n": one.n, "estimate": rational(one.estimate), "good": one.good}
            for one in result.tested
        ],
    }
    following = interop.evaluation(f"{path}#{result.ticket_id}") if result.chosen else ()
    interop.show(lines, summary, report_format, *following)
    return int(ExitCode.CERTIFIED if result.chosen else ExitCode.INCONCLUSIVE)
