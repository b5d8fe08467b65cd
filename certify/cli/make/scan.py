"""``certify scan``: the KS distance of every row of two tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from certify.cli import options
from certify.cli.registry import RENDERERS, load


def scan(
    base: options.Base,
    tuned: options.Tuned,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write every row to this .csv, .parquet or .npz file.")
    ] = None,
    served_dtype: options.ServedDtype = None,
    tensor: options.Tensor = None,
    tuned_tensor: options.TunedTensor = None,
    tokenizer: options.Tokenizer = None,
    method: options.Method = "exact",
    allow_tied: options.AllowTied = False,
    engine: options.Engine = "auto",
    workers: options.Workers = None,
    top: Annotated[int, typer.Option("--top", min=0, help="Number of rows to print.")] = 15,
) -> None:
    """Measure how far every row moved: exact two-sample KS distance, p-value, shift, cosine."""
    from certify.cli.shell import console, next_line, progress_bar, surviving_closed_pipe
    from certify.scan.scan import scan as run_scan
    from certify.scan.scanfile import check_scan_path, write_scan
    from certify.tables.dtypes import parse_dtype
    from certify.ticket.make import find_vocabulary, open_pair

    render = load(RENDERERS["scan"])

    if out is not None:
        check_scan_path(out)
    dtype = None if served_dtype is None else parse_dtype(served_dtype)
    pair = open_pair(
        base, tuned, dtype=dtype, tensor=tensor, tuned_tensor=tuned_tensor, allow_tied=allow_tied
    )
    vocabulary = find_vocabulary(tokenizer, base, tuned)
    with progress_bar("scanning") as progress:
        result = run_scan(*pair, method=method, engine=engine, workers=workers, progress=progress)
    if out is not None:
        write_scan(out, result, vocabulary, digests=(pair[0].digest(), pair[1].digest()))
    with surviving_closed_pipe():
        render(result, vocabulary, console(), top=top, out=out)
        print(next_line("certify", "find", "--base", base, "--tuned", tuned, "--id", "NAME"))
