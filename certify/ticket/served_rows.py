"""Compare a served input table with the base and the certified rows, bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from certify.base.records import Dtype
from certify.tables.dtypes import storage_bits
from certify.tables.rowfile import Rows
from certify.tables.table import BLOCK_BYTES, Table


class ServedTable(Protocol):
    """The input table that is served, as far as comparing it needs."""

    @property
    def tensor(self) -> str:
        """Name of the table."""

    @property
    def dtype(self) -> Dtype:
        """Element type in which it is served."""

    @property
    def shape(self) -> tuple[int, int]:
        """``(V', d)``."""

    @property
    def tied(self) -> bool | None:
        """Whether the output head shares it; None if unknown."""

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """Rows ``start`` to ``stop`` (exclusive), in the storage of ``dtype``."""

    def digest(self) -> str:
        """Tensor digest."""


@dataclass(frozen=True, slots=True)
class RowComparison:
    """Comparison of a table with a base and the certified rows. All tuples contain increasing ids.

    Attributes:
        rows: number of compared rows, which base and served table both have.
        served: ticket rows with the certified bits.
        not_served: ticket rows that still have the base's bits, although the certified ones differ.
        altered: ticket rows with neither.
        foreign: rows outside the ticket that differ from the base's.
        inert: ticket rows whose certified bits equal the base's, so serving them has no effect.
    """

    rows: int
    served: tuple[int, ...]
    not_served: tuple[int, ...]
    altered: tuple[int, ...]
    foreign: tuple[int, ...]
    inert: tuple[int, ...]

    @property
    def faithful(self) -> bool:
        """Whether every ticket row is the certified one and every other row is the base's."""
        return not (self.not_served or self.altered or self.foreign)


def compare(base: Table, served: ServedTable, rows: Rows) -> RowComparison:
    """Compare ``served`` bit for bit with ``base`` in which the ticket's rows are replaced by ``rows``.

    Args:
        base: E⁰ ``[V, d]``, in the dtype of ``rows``.
        served: ``[V', d]`` in the same dtype; the first ``min(V, V')`` rows are compared.
        rows: certified rows ``[k, d]``.

    Raises:
        ValueError: widths or dtypes differ. The caller checks them, because they have their own messages.
    """
    if (
        not base.dtype == served.dtype == rows.dtype
        or not base.shape[1] == served.shape[1] == rows.served.shape[1]
    ):
        raise ValueError("tables of different dtype or width cannot be compared row by row")
    common = min(base.shape[0], served.shape[0])
    ids = rows.ids[rows.ids < common]
    certified = storage_bits(rows.served)
    step = max(1, BLOCK_BYTES // (base.shape[1] * rows.served.dtype.itemsize))
    inert: list[int] = []
    not_served: list[int] = []
    altered: list[int] = []
    foreign: list[int] = []
    for start in range(0, common, step):
        stop = min(start + step, common)
        original, found = storage_bits(base.rows(start, stop)), storage_bits(served.rows(start, stop))
        first, last = np.searchsorted(ids, (start, stop))
        inside = ids[first:last] - start
        moves = (certified[first:last] != original[inside]).any(axis=1)
        wrong = (certified[first:last] != found[inside]).any(axis=1)
        left = (original[inside] == found[inside]).all(axis=1)
        inert += (start + inside[~moves]).tolist()
        not_served += (start + inside[wrong & left]).tolist()
        altered += (start + inside[wrong & ~left]).tolist()
        differs = (original != found).any(axis=1)
        differs[inside] = False
        foreign += (start + np.flatnonzero(differs)).tolist()
    bad = {*not_served, *altered}
    good = tuple(i for i in ids.tolist() if i not in bad)
    return RowComparison(common, good, tuple(not_served), tuple(altered), tuple(foreign), tuple(inert))
