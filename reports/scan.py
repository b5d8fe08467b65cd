"""The output of ``certify scan``: how many rows moved, and the rows that moved most."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from certify.base.records import KSResult
from certify.base.text import counted, escape
from certify.tables.vocabulary import Vocabulary
from reports.terminal import p_text


def render(
    result: KSResult, vocabulary: Vocabulary | None, console: Console, *, top: int, out: Path | None
) -> None:
    """Print a summary of a scan and its ``top`` rows by h; among ties the smaller id comes first."""
    moved = int(np.count_nonzero(~result.equal))
    console.print(
        f"{result.rows} rows of width {result.n}, {result.dtype}, {result.method} law, engine {result.engine}"
    )
    console.print(f"{counted(moved, 'row')} moved, {result.rows - moved} bit-identical")
    permuted = np.flatnonzero(result.permuted)
    if permuted.size:
        console.print(
            f"{counted(permuted.size, 'row')} only permuted (D = 0, KS is blind): ids {permuted[:8].tolist()}"
        )
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    if vocabulary is not None:
        table.add_column("piece", no_wrap=True, max_width=24)
    for name in ("id", "h", "D", "p", "shift", "cosine", "max abs"):
        table.add_column(name, justify="right", no_wrap=True)
    for i in np.lexsort((np.arange(result.rows), -result.h))[:top]:
        cells = [
            str(i),
            str(result.h[i]),
            f"{result.h[i] / result.n:.4f}",
            p_text(float(result.log10_p[i])),
            f"{result.shift_norm[i]:.4g}",
            f"{result.cosine[i]:.4f}",
            f"{result.max_abs[i]:.3g}",
        ]
        if vocabulary is None:
            table.add_row(*cells)
        else:
            piece = vocabulary.piece(int(i))
            table.add_row(Text("?" if piece is None else escape(piece, limit=24)), *cells)
    if top:
        console.print(table)
    console.print("p is a screening score: before and after are the same row, not independent samples")
    if out is not None:
        console.print(f"all rows: {escape(str(out))}", soft_wrap=True)
