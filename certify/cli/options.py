"""Options that several commands share, each declared once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class MethodName(StrEnum):
    """Law of the p-values."""

    exact = "exact"
    asymptotic = "asymptotic"


class CorrectionName(StrEnum):
    """Correction for testing many rows."""

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


Base = Annotated[Path, typer.Option("--base", help="Table before tuning: file or checkpoint folder.")]
Tuned = Annotated[
    Path, typer.Option("--tuned", "--reference", help="Table after embed tuning: file or checkpoint folder.")
]
ServedDtype = Annotated[
    str | None,
    typer.Option("--served-dtype", help="Compare and serve in fp32, fp16 or bf16; default: as stored."),
]
Tensor = Annotated[
    str | None,
    typer.Option("--tensor", help="Name of the table's tensor, if the architecture does not tell."),
]
Tokenizer = Annotated[
    Path | None, typer.Option("--tokenizer", help="tokenizer.json or its folder; default: beside the base.")
]
AllowTied = Annotated[bool, typer.Option("--allow-tied", help="Accept a table tied to the output head.")]
Method = Annotated[MethodName, typer.Option("--method", help="Law of the p-values.")]
Engine = Annotated[
    EngineName, typer.Option("--engine", help="Implementation of the scan; results are equal.")
]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Threads; default: all cores.")]
Format = Annotated[FormatName, typer.Option("--format", help="What to print.")]
