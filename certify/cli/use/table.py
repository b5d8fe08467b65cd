"""``certify table``: a tuned table as the rows that moved from its base, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from certify.cli import options
from certify.cli.use import interop

BaseTable = Annotated[Path, typer.Argument(help="Table before tuning: a file or a checkpoint folder.")]


def diff(
    base: BaseTable,
    tuned: Annotated[Path, typer.Argument(help="Table after tuning: a file or a checkpoint folder.")],
    out: Annotated[Path, typer.Option("--out", help="Safetensors file to write.")],
    served_dtype: options.ServedDtype = None,
    tensor: options.Tensor = None,
    tuned_tensor: options.TunedTensor = None,
    allow_tied: options.AllowTied = False,
) -> None:
    """Write the rows that differ and the digest of the base.

    The file is read wherever a tuned table is, where the base is named as well.
    """
    from certify.tables.dtypes import parse_dtype
    from certify.tables.movedrows import write_moved
    from certify.ticket.make import open_pair
    from certify.ticket.transfer import check_out

    dtype = None if served_dtype is None else parse_dtype(served_dtype)
    before, after = open_pair(
        base, tuned, dtype=dtype, tensor=tensor, tuned_tensor=tuned_tensor, allow_tied=allow_tied
    )
    check_out(out, before)
    count = write_moved(out, before, after)
    size = out.stat().st_size
    lines = [f"wrote {out}: {count} of {before.shape[0]} rows differ, {after.dtype}, {size:,} bytes"]
    interop.show(
        [*lines, f"table sha256 {after.digest()}"],
        {},
        "terminal",
        "certify",
        "scan",
        "--base",
        base,
        "--tuned",
        out,
    )


def apply(
    base: BaseTable,
    rows: Annotated[Path, typer.Argument(help="File of certify table diff.")],
    out: Annotated[Path, typer.Option("--out", help="Safetensors file to write.")],
    tensor: options.Tensor = None,
    allow_tied: options.AllowTied = False,
) -> None:
    """Write the whole tuned table, from its base and the rows that moved."""
    from certify.base.errors import InvalidInputError
    from certify.tables.movedrows import is_moved
    from certify.tables.safefile import map_file
    from certify.tables.table import check_finite, open_table, write_table
    from certify.ticket.transfer import check_out

    if not is_moved(map_file(rows)):
        raise InvalidInputError(
            f"{rows} holds no moved rows of a base: name a file of certify table diff", code="MOVED_MALFORMED"
        )
    before = open_table(base, tensor=tensor, allow_tied=allow_tied)
    after = open_table(rows, allow_tied=allow_tied, base=before)
    check_finite(after)
    check_out(out, before)
    write_table(out, after)
    lines = [f"wrote {out}: {after.shape[0]} x {after.shape[1]} in {after.dtype}"]
    interop.show([*lines, f"table sha256 {after.digest()}"], {}, "terminal")
