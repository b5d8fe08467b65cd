"""Frozen records that the packages share: columns and facts, no logic.

Arrays are read-only by convention and one-dimensional over the rows of the table (length ``V``), unless a
docstring says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from certify.base.errors import UsageError

Dtype = Literal["F32", "F16", "BF16"]
"""Names of element types, as safetensors spells them."""

Method = Literal["exact", "asymptotic"]
"""Distribution of p-values: Smirnov's exact one, or its limit ``2 exp(-n D^2)``."""

Correction = Literal["none", "bonferroni", "holm", "bh", "by"]
"""Correction for testing V rows at once; the paper uses ``none``."""

Engine = Literal["auto", "numba", "numpy"]
"""Implementation of the scan; ``auto`` takes numba for large tables if installed."""

Rule = Literal["whole", "first-line", "cut"]
"""Extraction rule: which part of a model's output is scored; in the order of ``rules`` of a record."""

RULES: Final[tuple[Rule, ...]] = ("whole", "first-line", "cut")

IntColumn = NDArray[np.int32]
FloatColumn = NDArray[np.float64]
BoolColumn = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class KSResult:
    """Two-sample KS scan of every row of a table against the same row of another (theory §2).

    Attributes:
        n: entries per row, the sample size on both sides.
        h: ``h[i] = n * D_i``, an exact integer in ``0..n``.
        p: two-sided p-value of ``h[i]``, rounded up: never below the smallest positive float.
        log10_p: base-10 logarithm of the p-value, finite even if ``p`` would underflow.
        method: distribution behind ``p``.
        dtype: element type that the rows were compared in.
        equal: the rows are identical bit for bit.
        permuted: the rows have the same multiset of values in another order (h = 0, KS is blind).
        ties: the 2n pooled values are not all distinct, so ``p`` is conservative.
        shift_norm: Euclidean norm of the difference of the rows (units of the table's entries).
        cosine: cosine of the angle between the rows, in [-1, 1]; 1 if both are zero, 0 if one is.
        max_abs: largest absolute difference of corresponding entries.
        engine: implementation that ran (``numba`` or ``numpy``); it does not affect results.
    """

    n: int
    h: IntColumn
    p: FloatColumn
    log10_p: FloatColumn
    method: Method
    dtype: Dtype
    equal: BoolColumn
    permuted: BoolColumn
    ties: BoolColumn
    shift_norm: FloatColumn
    cosine: FloatColumn
    max_abs: FloatColumn
    engine: str

    def __post_init__(self) -> None:
        shapes = {self.h.shape, self.p.shape, self.log10_p.shape, self.equal.shape, self.permuted.shape}
        shapes |= {self.ties.shape, self.shift_norm.shape, self.cosine.shape, self.max_abs.shape}
        if len(shapes) != 1 or self.h.ndim != 1:
            raise ValueError("the columns of a scan have different lengths")
        if self.n < 1 or (self.h.size and (int(self.h.min()) < 0 or int(self.h.max()) > self.n)):
            raise ValueError("h must lie in 0..n with n >= 1")

    @property
    def rows(self) -> int:
        """Number of rows V."""
        return int(self.h.size)

    def columns(self) -> dict[str, NDArray[Any]]:
        """Everything about each row, ``[V]`` each: id, h, n, D = h/n, and the columns above."""
        first: dict[str, NDArray[Any]] = {"id": np.arange(self.rows, dtype=np.int64), "h": self.h}
        first |= {"n": np.full(self.rows, self.n, np.int32), "D": self.h / self.n}
        named = ("p", "log10_p", "equal", "permuted", "ties", "shift_norm", "cosine", "max_abs")
        return first | {name: getattr(self, name) for name in named}

    def to_frame(self) -> Any:
        """:meth:`columns` as a ``pandas.DataFrame``, indexed by id.

        Raises:
            UsageError: pandas is not installed (``EXTRA_MISSING``).
        """
        try:
            pandas = import_module("pandas")
        except ImportError as error:
            raise UsageError(
                "a data frame needs pandas: python -m pip install pandas", code="EXTRA_MISSING"
            ) from error
        return pandas.DataFrame(self.columns()).set_index("id")


@dataclass(frozen=True, slots=True)
class Excluded:
    """Ids that selection never considers, with the reason in words."""

    reason: str
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """The chosen rows, their rule, and everything needed to choose them again.

    Attributes:
        ids: chosen token ids, strictly increasing.
        rule: ``ks``, ``distance:k``, ``norm:k``, ``frequency:k``, ``template:PAIR``, ``random:k``,
            ``ids:...`` or ``published:PAIR``.
        alpha: level of the test as a decimal string (``0.05``), so that it is exact.
        correction: correction for multiplicity (rule ``ks``).
        method: distribution behind the p-values.
        n: entries per row.
        tests: number of tested rows: V minus the excluded ones.
        h_alpha: smallest count rejected at ``alpha`` for a single row, under ``method``; ``n + 1`` if there
            is none.
        tau: published asymptotic threshold ``sqrt(ln(2/alpha) / n)`` on D (theory §2).
        excluded: groups of ids left out beforehand.
        seed: seed of rule ``random``; None for other rules.
    """

    ids: tuple[int, ...]
    rule: str
    alpha: str
    correction: Correction
    method: Method
    n: int
    tests: int
    h_alpha: int
    tau: float
    excluded: tuple[Excluded, ...] = field(default=())
    seed: int | None = None
