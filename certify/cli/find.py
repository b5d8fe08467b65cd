"""``certify find``: select rows and write a ticket."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from certify.cli import options


def find(
    base: options.Base,
    tuned: options.Tuned,
    ticket_id: Annotated[str, typer.Option("--id", help="Name of the ticket in the file.")],
    out: Annotated[
        Path, typer.Option("--out", help="Ticket file to make or to add to; rows are written beside it.")
    ] = Path("tickets.json"),
    rule: Annotated[
        str,
        typer.Option(
            "--rule",
            help="ks, distance:K, norm:K, frequency:K, random:K, ids:1,2,3 or published:PAIR (en-ca …).",
        ),
    ] = "ks",
    alpha: Annotated[str, typer.Option("--alpha", help="Level of the test, a decimal.")] = "0.05",
    correction: Annotated[
        options.CorrectionName, typer.Option("--correction", help="Correction for testing many rows.")
    ] = options.CorrectionName.none,
    method: options.Method = options.MethodName.exact,
    served_dtype: options.ServedDtype = None,
    tensor: options.Tensor = None,
    tokenizer: options.Tokenizer = None,
    exclude_ids: Annotated[
        str, typer.Option("--exclude-ids", help="Ids never to select, comma-separated; reported as yours.")
    ] = "",
    counts: Annotated[
        Path | None, typer.Option("--counts", help="Token counts (.npy, see certify count) for frequency:K.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of random:K.")] = None,
    template: Annotated[
        str | None,
        typer.Option("--template", help="Prompt template that tuning used: a shipped name or a .toml file."),
    ] = None,
    tuned_rows: Annotated[
        Path | None,
        typer.Option(
            "--tuned-rows", help="Release these rows (partial tuning) instead of the tuned table's."
        ),
    ] = None,
    bundle: Annotated[
        bool, typer.Option("--bundle", help="Copy tables and tokenizer beside the ticket: self-contained.")
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite a ticket of the same id.")] = False,
    allow_tied: options.AllowTied = False,
    engine: options.Engine = options.EngineName.auto,
    workers: options.Workers = None,
) -> None:
    """Select the rows that moved and write them as a ticket that anyone can check."""
    from certify.cli.shell import console, progress_bar, surviving_closed_pipe
    from certify.errors import UsageError
    from lottery.dtypes import parse_dtype
    from lottery.ticketing import find as run_find
    from reports.ticket import render

    try:
        exclude = [int(word) for word in exclude_ids.split(",") if word.strip()]
    except ValueError as error:
        raise UsageError(f"--exclude-ids takes integers, not {exclude_ids!r}") from error
    with progress_bar("scanning") as progress:
        found = run_find(
            base,
            tuned,
            out=out,
            ticket_id=ticket_id,
            rule=rule,
            alpha=alpha,
            correction=correction.value,
            method=method.value,
            dtype=None if served_dtype is None else parse_dtype(served_dtype),
            tensor=tensor,
            tokenizer=tokenizer,
            exclude=exclude,
            counts=counts,
            seed=seed,
            template=template,
            tuned_rows=tuned_rows,
            bundle=bundle,
            replace=replace,
            allow_tied=allow_tied,
            engine=engine.value,
            workers=workers,
            progress=progress,
        )
    with surviving_closed_pipe():
        inputs = ["--base", str(base), "--reference", str(tuned)]
        inputs += ["--tokenizer", str(tokenizer or base)] if found.ticket.tokenizer else []
        render(found, console(), inputs=inputs)
