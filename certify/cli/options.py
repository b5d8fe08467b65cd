"""Options that several commands share, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from certify.cli.registry import FORMATS

# What :mod:`certify.base.records` and :mod:`certify.policy.policy` have, but without loading numpy; a test
# compares them.
POLICIES = ("selection", "paper", "release", "drop-in", "science", "strict")
Method = Annotated[
    Literal["exact", "asymptotic"], typer.Option("--method", help="Distribution for the p-values.")
]
Correction = Annotated[
    Literal["none", "bonferroni", "holm", "bh", "by"],
    typer.Option("--correction", help="Correction for testing many rows at once."),
]
Engine = Annotated[
    Literal["auto", "numba", "numpy"],
    typer.Option("--engine", help="Implementation of the scan; all give the same result."),
]
FormatName = Literal["terminal", "json"]
Format = Annotated[FormatName, typer.Option("--format", help="Output format.")]
Formats = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        metavar="NAME[=FILE]",
        help=f"Report to print, or to write to FILE: {', '.join(FORMATS)}. Repeatable.",
        autocompletion=lambda: [*FORMATS],
    ),
]
_policy = typer.Option(
    "--policy",
    metavar="NAME|FILE.toml",
    help=f"{', '.join(POLICIES)}, or a file of your own.",
    autocompletion=lambda: [*POLICIES],
)
Policy = Annotated[str, _policy]
OnePolicy = Annotated[str | None, _policy]

Base = Annotated[Path, typer.Option("--base", help="Table before tuning: a file or a checkpoint folder.")]
Tuned = Annotated[
    Path,
    typer.Option("--tuned", "--reference", help="Table after embed tuning: a file or a checkpoint folder."),
]
ServedDtype = Annotated[
    str | None,
    typer.Option(
        "--served-dtype", help="Dtype to compare and serve in: fp32, fp16 or bf16; default: as stored."
    ),
]
Tensor = Annotated[
    str | None,
    typer.Option("--tensor", help="Name of the embedding tensor, if the architecture does not imply it."),
]
TunedTensor = Annotated[
    str | None,
    typer.Option("--tuned-tensor", help="Name of the embedding tensor in the tuned table, where another."),
]
Tokenizer = Annotated[
    Path | None,
    typer.Option("--tokenizer", help="tokenizer.json or its folder; default: the one beside the base."),
]
AllowTied = Annotated[
    bool, typer.Option("--allow-tied", help="Accept a table that is tied to the output head.")
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="Number of threads; default: all cores.")
]

# Options of commands that read a ticket with everything beside it.
BesideBase = Annotated[
    Path | None, typer.Option("--base", help="Base table, if it does not lie beside the ticket.")
]
BesideReference = Annotated[
    Path | None,
    typer.Option("--reference", "--tuned", help="Tuned table, if it does not lie beside the ticket."),
]
BesideTokenizer = Annotated[
    Path | None,
    typer.Option("--tokenizer", help="tokenizer.json, if it does not lie beside the ticket."),
]


def beside(base: object, reference: object, tokenizer: object) -> list[str]:
    """The options that name what does not lie beside a ticket, for the command that helps on."""
    given = {"--base": base, "--reference": reference, "--tokenizer": tokenizer}
    return [word for option, path in given.items() if path for word in (option, str(path))]


DataFolder = Annotated[
    Path | None,
    typer.Option("--data", help="Folder that the plan's paths are relative to; default: CERTIFY_DATA/data."),
]
