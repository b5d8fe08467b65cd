"""What a scan engine fills in, and the summation order that makes every engine give the same bits."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LANES = 64
"""Sums over a row run in this many interleaved partial sums, which are then halved pairwise (64, 32, .. 1).

A fixed order is what lets two engines agree bit for bit; it is also several times more accurate than one
running sum, and both numpy and a vectorising compiler can do it at full speed.
"""


class Columns(NamedTuple):
    """Raw results for some rows, arrays of shape ``[rows]``.

    ``squared_shift``, ``squared_base``, ``squared_reference`` and ``product`` are the sums of ``(y-x)^2``,
    ``x^2``, ``y^2`` and ``x*y``. Engines leave them, ``h`` and ``max_abs`` at zero where ``equal`` holds.
    """

    h: NDArray[np.int32]
    equal: NDArray[np.bool_]
    finite: NDArray[np.bool_]
    ties: NDArray[np.bool_]
    squared_shift: NDArray[np.float64]
    squared_base: NDArray[np.float64]
    squared_reference: NDArray[np.float64]
    product: NDArray[np.float64]
    max_abs: NDArray[np.float64]

    @classmethod
    def zeros(cls, rows: int) -> Columns:
        """Columns for ``rows`` rows, zero and false throughout."""
        equal, finite, ties = np.zeros((3, rows), dtype=np.bool_)
        h = np.zeros(rows, dtype=np.int32)
        return cls(h, equal, finite, ties, *np.zeros((5, rows)))

    def part(self, start: int, stop: int) -> Columns:
        """Views of the rows ``start..stop-1``: writing to them writes to these columns."""
        return Columns._make(column[start:stop] for column in self)

    def shift_norm(self) -> NDArray[np.float64]:
        """Euclidean norm of ``y - x`` per row."""
        return np.sqrt(self.squared_shift)

    def cosine(self) -> NDArray[np.float64]:
        """Cosine per row in [-1, 1]; 1 for bitwise equal rows and for two zero rows, 0 if one row is zero."""
        norms = np.sqrt(self.squared_base) * np.sqrt(self.squared_reference)
        quotient = np.divide(self.product, norms, out=np.zeros_like(norms), where=norms > 0)
        both_zero = (self.squared_base == 0) & (self.squared_reference == 0)
        return np.where(self.equal | both_zero, 1.0, np.clip(quotient, -1.0, 1.0))
