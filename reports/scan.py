"""The output of ``certify scan``: how many rows moved, and the rows that moved most."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
from rich.console import Console

from certify.base.records import KSResult
from certify.base.text import counted, escape
from certify.tables.vocabulary import Vocabulary
from reports.details import PIECE, p_text
from reports.layout import clip, columns, wrap


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
    names = ["id", "h", "D", "p", "shift", "cosine", "max abs"]
    rows = [names if vocabulary is None else ["piece", *names]]
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
        piece = None if vocabulary is None else vocabulary.piece(int(i))
        rows.append(cells if vocabulary is None else [clip(escape(piece or "?"), PIECE), *cells])
    right = range(vocabulary is not None, len(rows[0]))
    for line in chain.from_iterable(columns(rows, console.width, right)) if top else ():
        console.print(line, soft_wrap=True)
    note = "p is a screening score: before and after are the same row, not independent samples"
    console.print("\n".join(wrap(note, console.width)), soft_wrap=True)
    if out is not None:
        console.print(f"all rows: {escape(str(out))}", soft_wrap=True)
