"""Options that several commands share, each declared once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class MethodName(StrEnum):
    """Distribution that the p-values come from."""

    exact = "exact"
    asymptotic = "asymptotic"


class CorrectionName(StrEnum):
    """Correction for testing many rows at once."""

    none = "none"
    bonferroni = "bonferroni"
    holm = "holm"
    bh = "bh"
    by = "by"


class EngineName(StrEnum):
    """Implementation of the scan."""

    auto = "auto"
    numba = "numba"
    numpy = "numpy"


class FormatName(StrEnum):
    """Format of a report."""

    terminal = "terminal"
    json = "json"


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
Tokenizer = Annotated[
    Path | None,
    typer.Option("--tokenizer", help="tokenizer.json or its folder; default: the one beside the base."),
]
AllowTied = Annotated[
    bool, typer.Option("--allow-tied", help="Accept a table that is tied to the output head.")
]
Method = Annotated[MethodName, typer.Option("--method", help="Distribution for the p-values.")]
Engine = Annotated[
    EngineName, typer.Option("--engine", help="Implementation of the scan; all give the same result.")
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="Number of threads; default: all cores.")
]
Format = Annotated[FormatName, typer.Option("--format", help="Output format.")]
