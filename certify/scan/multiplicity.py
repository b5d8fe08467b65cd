"""Which rows are rejected when many are tested at once; every decision is exact.

A p-value depends on the row only through the integer h and falls with h, so each procedure reduces to one
count: the smallest h that it rejects. Ranks and thresholds are integers and rationals; no float takes part.
With m tests and the p-values in increasing order ``p_(1) <= .. <= p_(m)``:

==========  ==================================================================  =====================
correction  rejects                                                             controls
==========  ==================================================================  =====================
none        ``p_i <= alpha`` (published)                                        each test by itself
bonferroni  ``p_i <= alpha / m``                                                family-wise error
holm        ``p_(k)`` while ``p_(j) <= alpha / (m - j + 1)`` for all j <= k     family-wise error
bh          ``p_(1..k)`` for the largest k with ``p_(k) <= alpha k / m``        false discovery rate
by          as bh with ``alpha / (1 + 1/2 + .. + 1/m)``                         the same, any dependence
==========  ==================================================================  =====================
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from certify.base.errors import UsageError
from certify.base.records import BoolColumn, Correction, Method
from certify.scan.smirnov import critical_count, parse_alpha, rejects

_HARMONIC_BITS = 128


def rejected(
    h: NDArray[Any],
    n: int,
    alpha: Fraction | str,
    correction: Correction = "none",
    method: Method = "exact",
) -> BoolColumn:
    """Decide each of ``m`` tests at level ``alpha``.

    Args:
        h: distance counts, integers ``[m]`` in ``0..n``.
        n: entries per row.
        alpha: level in (0, 1): a decimal string or a Fraction.
        correction: procedure, see the module docstring.
        method: law behind the p-values.

    Returns:
        Booleans ``[m]``, True where the test is rejected.

    Raises:
        UsageError: malformed level, unknown correction or method, or n out of range.
        ValueError: ``h`` is not a one-dimensional integer array in ``0..n``.
    """
    level = parse_alpha(alpha)
    if correction not in get_args(Correction):
        known = ", ".join(get_args(Correction))
        raise UsageError(f"unknown correction {correction!r}: choose {known}", code="CORRECTION_UNKNOWN")
    if h.ndim != 1 or h.dtype.kind not in "iu":
        raise ValueError("h must be a one-dimensional array of integers")
    if h.size and (int(h.min()) < 0 or int(h.max()) > n):
        raise ValueError(f"h must lie in 0..{n}")
    smallest = critical_count(level, n, method)
    if correction == "bonferroni" and h.size:
        smallest = critical_count(level / h.size, n, method)
    elif correction == "holm":
        smallest = _holm(h, n, level, method)
    elif correction == "bh":
        smallest = _step_up(h, n, level, method)
    elif correction == "by":
        smallest = _benjamini_yekutieli(h, n, level, method)
    result: BoolColumn = h >= smallest
    return result


def _groups(h: NDArray[Any]) -> Iterator[tuple[int, int, int]]:
    """Distinct counts from the largest down: (count, tests above it, tests at or above it)."""
    values, sizes = np.unique(h, return_counts=True)
    above = 0
    for value, size in zip(values[::-1].tolist(), sizes[::-1].tolist(), strict=True):
        yield value, above, above + size
        above += size


def _holm(h: NDArray[Any], n: int, level: Fraction, method: Method) -> int:
    smallest = n + 1
    for value, above, _ in _groups(h):
        # Among equal p-values the first rank has the strictest threshold: it passes with all or with none.
        if not rejects(value, n, level / (h.size - above), method):
            break
        smallest = value
    return smallest


def _step_up(h: NDArray[Any], n: int, level: Fraction, method: Method) -> int:
    """Benjamini and Hochberg at ``level``; among equal p-values the last rank has the mildest threshold."""
    smallest = n + 1
    for value, _, reached in _groups(h):
        if rejects(value, n, level * reached / h.size, method):
            smallest = value
    return smallest


def _benjamini_yekutieli(h: NDArray[Any], n: int, level: Fraction, method: Method) -> int:
    # The harmonic number as a fraction has about 1.4 m bits; 128 bits around it decide all but exact ties.
    m = h.size
    if m == 0:
        return n + 1
    scale = 1 << _HARMONIC_BITS
    low = sum(scale // i for i in range(1, m + 1))
    strict = _step_up(h, n, level * scale / (low + m), method)
    mild = _step_up(h, n, level * scale / low, method)
    if strict == mild:
        return strict
    return _step_up(h, n, level / harmonic(m), method)


def harmonic(m: int) -> Fraction:
    """``1 + 1/2 + .. + 1/m`` exactly, by binary splitting."""

    def between(start: int, stop: int) -> tuple[int, int]:
        if stop - start == 1:
            return 1, start
        middle = (start + stop) // 2
        a, b = between(start, middle)
        c, d = between(middle, stop)
        return a * d + c * b, b * d

    return Fraction(*between(1, m + 1))
