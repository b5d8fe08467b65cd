"""The theory in one file: margins, distances, three criteria, the variation of a decision (theory §3, §4).

Symbols are those of the theory. ``d``: entries per row; ``h``: the integer with D = h/d; ``r = p_A - p_B``:
the gap between the two largest next-token probabilities of E* at a step; ``N``: the fed ids whose rows differ
between the certified table and E*; ``alpha``: the level; ``tau(alpha) = sqrt(ln(2/alpha) / d)``.

====================  ==============================  ======================================================
criterion             certifies a step where          status
====================  ==============================  ======================================================
:func:`published`     r > 2 tau, if all D <= tau      as published; implemented and tested, not vouched for
:func:`measured_max`  r > 2 max_N D_i                 necessary for both others, sufficient for nothing
:func:`additive`      r > V sum_N D_i                 sound for the row-law predictor (the theorem below)
====================  ==============================  ======================================================

**Theorem.** X and Y have independent coordinates with laws P_j and Q_j, D_j = sup abs(F_Pj - F_Qj), and s has
total variation at most V_j along coordinate j, whatever the others are. Then
``abs(E s(X) - E s(Y)) <= sum_j V_j D_j``.

1. One coordinate, by parts: ``E s(X) - E s(Y) = - integral (F_P - F_Q) ds``.
2. ``abs(integral (F_P - F_Q) ds) <= sup abs(F_P - F_Q) * V = D V``; left limits obey the same supremum.
3. Replace coordinate j of X by that of Y, given all others (independence): the mean moves by <= V_j D_j.
4. Sum over j.  ∎

**Corollary.** With ``s_c = 1{f = A} - 1{f = c}``: if ``E s_c(X) > sum_j V_j(s_c) D_j`` for every c, then
``E s_c(Y) > 0`` for every c, so that A stays the argmax of the class probabilities. Equality leaves a tie.

Everything is decided in integers and rationals; this module has no floats. The logarithm of a rational number
other than 1 is irrational, so comparisons with it have no boundary case and are decided exactly.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Final, Literal, get_args

from certify.base.enclosure import exceeds_log

Criterion = Literal["published", "measured-max", "additive", "path"]
"""Names of the criteria, as in certificates; ``path`` is in :mod:`certify.stats.path`."""

CRITERIA: Final[tuple[Criterion, ...]] = get_args(Criterion)[:3]
"""The criteria of margins and distances."""

DEFAULT_VARIATION: Final = 4
"""V for decisions in which every class is an interval along each coordinate (theory §4)."""


def published(r: Fraction, d: int, alpha: Fraction) -> bool:
    """``r > 2 tau(alpha)``, that is ``r > 0`` and ``d r^2 > 4 ln(2/alpha)``.

    The premise is decided separately, by :func:`premise_holds`.

    Args:
        r: gap of the two largest probabilities, at most 1.
        d: entries per row, at least 1.
        alpha: level, strictly between 0 and 1.

    Raises:
        ValueError: ``d`` or ``alpha`` out of range.
    """
    _check(d, alpha)
    return r > 0 and exceeds_log(d * r * r / 4, 2 / alpha)


def premise_holds(h: Iterable[int], d: int, alpha: Fraction) -> bool:
    """Decide the published premise: ``D_i <= tau(alpha)`` for all rows outside the ticket, also special ones.

    Args:
        h: counts of all rows that differ between the certified table and E*; equal rows have count 0.
        d: entries per row.
        alpha: level, strictly between 0 and 1.

    Raises:
        ValueError: a count outside ``0..d``, or ``d`` or ``alpha`` out of range.
    """
    return not above_tau(_checked_max(h, d), d, alpha)


def above_tau(h: int, d: int, alpha: Fraction) -> bool:
    """``D > tau(alpha)``, that is ``d D^2 = h^2/d > ln(2/alpha)``."""
    _check(d, alpha)
    return h > 0 and exceeds_log(Fraction(h * h, d), 2 / alpha)


def measured_max(r: Fraction, h: Collection[int], d: int) -> bool:
    """``r > 2 max_N D_i``; with N empty ``r > 0``.

    Args:
        r: gap of the two largest probabilities.
        h: counts of the rows in N, each in ``0..d``.
        d: entries per row.

    Raises:
        ValueError: a count outside ``0..d``, or ``d`` below 1.
    """
    return r > Fraction(2 * _checked_max(h, d), d)


def additive(r: Fraction, h: Collection[int], d: int, v: int = DEFAULT_VARIATION) -> bool:
    """``r > V sum_N D_i``; with N empty ``r > 0``.

    Sound for the row-law predictor under A-SCALAR, A-POINT and A-ORDER(V); see the module docstring.

    Args:
        r: gap of the two largest probabilities.
        h: counts of the rows in N, each in ``0..d``; equal counts of different rows all count.
        d: entries per row.
        v: bound V on the variation of ``1_A - 1_c`` along each coordinate, at least 2.

    Raises:
        ValueError: a count outside ``0..d``, ``d`` below 1, or ``v`` below 2.
    """
    return remaining_margin(r, h, d, v) > 0


def remaining_margin(r: Fraction, h: Collection[int], d: int, v: int = DEFAULT_VARIATION) -> Fraction:
    """Compute ``r - V sum_N D_i``, the margin left by the theorem; raises as :func:`additive`."""
    return r - loss(h, d, v)


def loss(h: Collection[int], d: int, v: int = DEFAULT_VARIATION) -> Fraction:
    """Compute ``V sum_N D_i``, the largest loss of margin by the theorem; raises as :func:`additive`.

    From 1 on the criterion is vacuous at this step, because no margin exceeds 1 (:func:`is_vacuous`).
    """
    if v < 2:
        raise ValueError(f"a decision that can change has variation at least 2, not {v}")
    _checked_max(h, d)
    return Fraction(v * sum(h), d)


def is_vacuous(h: Collection[int], d: int, v: int = DEFAULT_VARIATION) -> bool:
    """Whether ``V sum_N D_i >= 1``, so no margin passes :func:`additive`; raises as that does."""
    return loss(h, d, v) >= 1


def variation(labels: Sequence[str], winner: str) -> int:
    """Compute V along a line with these winning labels in order (theory §4).

    ``V = max over c != A of sum_t abs(s_c(t+1) - s_c(t))`` with ``s_c = +1`` on A, ``-1`` on c, 0 elsewhere.

    Args:
        labels: the labels from one end of the line to the other; repeated neighbours have no effect.
        winner: the label A.

    Returns:
        V; 0 if only one label occurs and it is A, or if A does not occur and fewer than two others do.
    """
    others = set(labels) - {winner} or {""}
    return max(
        sum(abs(_sign(after, winner, c) - _sign(before, winner, c)) for before, after in pairwise(labels))
        for c in others
    )


def critical_margin(d: int, alpha: Fraction, scale: int) -> int:
    """Find the smallest integer R for which ``R / scale`` passes :func:`published`, for a whole text at once.

    Args:
        d: entries per row, at least 1.
        alpha: level, strictly between 0 and 1.
        scale: denominator of margins, at least 1. A result above ``scale`` means that no margin passes.
    """
    low, high = 0, scale
    while not published(Fraction(high, scale), d, alpha):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if published(Fraction(middle, scale), d, alpha):
            high = middle
        else:
            low = middle
    return high


def _sign(label: str, winner: str, other: str) -> int:
    return 1 if label == winner else -1 if label == other else 0


def _checked_max(h: Iterable[int], d: int) -> int:
    if d < 1:
        raise ValueError("a row has at least one entry")
    counts = list(h)
    if counts and not 0 <= min(counts) <= max(counts) <= d:
        raise ValueError(f"counts must lie in 0..{d}")
    return max(counts, default=0)


def _check(d: int, alpha: Fraction) -> None:
    if d < 1:
        raise ValueError("a row has at least one entry")
    if not 0 < alpha < 1:
        raise ValueError("a level must lie strictly between 0 and 1")
