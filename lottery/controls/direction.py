"""Move the same rows equally far in a random direction (theory §6.4).

A ticket's rows may help because of where tuning moved them, or just because they moved. This control
separates the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from certify.base.errors import InvalidInputError, UsageError
from certify.tables.dtypes import to_float32
from certify.tables.rowfile import Rows, make_rows
from certify.tables.table import Table, check_compatible


@dataclass(frozen=True, slots=True, eq=False)
class Direction:
    """Rows of a table shifted in a random direction.

    Attributes:
        rows: rows to serve, ``[k, d]``.
        wanted: Euclidean norm of each row's shift in E*, float64 ``[k]``.
        achieved: the norm after rounding to the served dtype, float64 ``[k]``.
    """

    rows: Rows
    wanted: NDArray[np.float64]
    achieved: NDArray[np.float64]
    seed: int

    @property
    def deviation(self) -> float:
        """Largest relative difference between achieved and wanted norm over the rows that moved; 0 for none.

        It comes from rounding alone: about the spacing of the served dtype at the row's entries, relative to
        the shift. A shift below that spacing cannot be matched in that dtype.
        """
        moved = self.wanted > 0
        relative = np.abs(self.achieved[moved] / self.wanted[moved] - 1.0)
        return float(relative.max(initial=0.0))


def random_direction(ids: Sequence[int], base: Table, reference: Table, *, seed: int) -> Direction:
    """Shift each row of ``ids`` from its base by the norm of its shift in E*, in a random direction.

    The direction of a row is ``Generator(PCG64([seed, id])).standard_normal(d)``, normalised. It depends on
    seed and id alone, so nested tickets share directions. Norms are measured and matched in float64. Then the
    row is rounded to fp32 and from there to the served dtype, as released rows are. A row that did not move
    keeps the bits of the base.

    Args:
        ids: distinct token ids, in any order.
        base: E⁰ ``[V, d]``.
        reference: E* in the same dtype.

    Raises:
        UsageError: the seed is negative, or an id is not a row or is named twice.
        InvalidInputError: the tables do not belong together, or a row is not finite (``NON_FINITE``).
    """
    if isinstance(seed, bool) or seed < 0:
        raise UsageError(f"the seed must be a non-negative integer, not {seed!r}", code="SEED")
    check_compatible(base, reference)
    chosen = sorted(ids)
    if len(set(chosen)) != len(chosen):
        raise UsageError("an id is named twice", code="ID_DUPLICATE")
    start, end = (to_float32(table.take(chosen), table.dtype) for table in (base, reference))
    wanted = shift_norms(start, end)
    if not np.isfinite(wanted).all():
        bad = chosen[int(np.argmin(np.isfinite(wanted)))]
        raise InvalidInputError(f"values of row {bad} are not finite", code="NON_FINITE")
    shifted = start.copy()
    for row, (token_id, norm) in enumerate(zip(chosen, wanted.tolist(), strict=True)):
        if norm > 0:
            generator = np.random.Generator(np.random.PCG64([seed, token_id]))
            direction = generator.standard_normal(base.shape[1])
            moved = start[row].astype(np.float64) + direction * (norm / np.linalg.norm(direction))
            with np.errstate(over="ignore"):  # an overflow gives infinity, which make_rows refuses
                shifted[row] = moved
    rows = make_rows(np.array(chosen, np.int64), shifted, base.dtype)
    achieved = shift_norms(start, to_float32(rows.served, rows.dtype))
    return Direction(rows=rows, wanted=wanted, achieved=achieved, seed=seed)


def shift_norms(start: NDArray[np.float32], end: NDArray[np.float32]) -> NDArray[np.float64]:
    """Compute the Euclidean norms of ``end - start`` by row, in float64: ``[k]``."""
    norms: NDArray[np.float64] = np.linalg.norm(end.astype(np.float64) - start.astype(np.float64), axis=1)
    return norms
