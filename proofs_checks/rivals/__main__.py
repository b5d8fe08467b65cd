"""``python -m proofs_checks.rivals --draws 400 --seed 0``: the table of :mod:`proofs_checks.rivals`."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from proofs_checks.rivals.gates import GATES
from proofs_checks.rivals.table import releases, table


def main(
    draws: Annotated[int, typer.Option(min=1, help="Attempts in each situation.")] = 400,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Print how often each gate releases, as Markdown."""
    gates = dict(GATES)
    try:
        gates[f"statgate {version('statgate')}"] = gates.pop("statgate")
    except PackageNotFoundError:
        del gates["statgate"]
        typer.echo("statgate: NOT RUN, because it is not installed", err=True)
    typer.echo(table(releases(gates, draws, seed), draws))


typer.run(main)
