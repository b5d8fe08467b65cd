"""The path theorem in integers: one strength for the whole table (theory §4b).

``E(t) = R + t (E* - R)``: the released table at t = 0, embed tuning at t = 1. On the lattice
``t_j = (j - n/2)/g``, ``j = 0..n+g``, the law Q0 has the weights ``C(n, j) / 2^n`` and Q1 the weights
``C(n, j - g) / 2^n``. Labels are argmax ids at these n + g + 1 strengths, in this order; only those of
``j >= g`` bear on the decision.

**Theorem.** If ``Q1(A) - max Q1(c) > 2 D``, or ``L(Q1(A)) > max U(Q1(c))``, A is the unique argmax of Q0.

1. ``Q1/Q0 = C(n, j - g) / C(n, j)`` increases in j, from 0 where j < g to infinity where j > n.
2. So ``{j : Q0 > Q1}`` is a lower half-line. Its masses differ by the total variation, which is hence D,
   the Kolmogorov distance.
3. No set's masses differ by more, so ``Q0(A) - Q0(c) >= Q1(A) - Q1(c) - 2 D > 0`` for every c.
4. Of all fractional sets of Q1-mass p, one filled from above has the least Q0-mass L(p), and one filled from
   below the greatest, U(p) (Neyman and Pearson). So ``Q0(A) >= L(Q1(A)) > U(Q1(c)) >= Q0(c)``.
5. U increases, so the heaviest rival decides. A label never seen has at most ``U(0) = Q0(j < g)``.  ∎

The first criterion implies the second, as ``L(p) >= p - D`` and ``U(p) <= p + D``. All masses are in units
of ``1 / 2^n``.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate, groupby
from math import comb
from typing import Final

from certify.base.errors import InvalidInputError, UsageError

MAX_DRAWS: Final = 256
"""Largest n: a step costs n + g + 1 forward passes."""

_RUN: Final = re.compile(r"(0|[1-9][0-9]{0,9})\*([1-9][0-9]{0,2})", re.ASCII)
_LONGEST_RUN: Final = len("1234567890*123,")


@dataclass(frozen=True, slots=True)
class PathDecision:
    """What the labels of one step show.

    Attributes:
        label: A, the argmax of Q1; the lowest id of several.
        published: whether ``Q1(A) - max Q1(c) > 2 D``.
        certified: whether ``L(Q1(A)) > max U(Q1(c))``; implied by ``published``.
        kept: whether A is the unique argmax of Q0.
        interval: whether the strengths of A have no gap.
    """

    label: int
    published: bool
    certified: bool
    kept: bool
    interval: bool

    @property
    def violation(self) -> bool:
        """Certified and not kept: by the theorem a bug."""
        return self.certified and not self.kept


class PathLaw:
    """Both strength laws of (n, g); :func:`path_law` keeps the ones in use.

    Args:
        n: draws of the binomial law, ``1..256``.
        g: lattice points from strength 0 to strength 1, ``1..n``.

    Raises:
        UsageError: ``n`` or ``g`` out of range (``PATH_LAW``).
    """

    def __init__(self, n: int, g: int) -> None:
        if not 1 <= g <= n <= MAX_DRAWS:
            raise UsageError(
                f"a path needs 1 <= g <= n <= {MAX_DRAWS}, not n = {n}, g = {g}", code="PATH_LAW"
            )
        row = [comb(n, k) for k in range(n + 1)]
        self.total = 1 << n
        self.strengths = tuple(Fraction(2 * j - n, 2 * g) for j in range(n + g + 1))
        self.q0 = (*row, *[0] * g)
        self.q1 = (*[0] * g, *row)
        self.distance = sum(max(p - q, 0) for p, q in zip(self.q0, self.q1, strict=True))
        self._below0 = (0, *accumulate(self.q0))
        self._below1 = (0, *accumulate(self.q1))
        self._shift = g

    def greatest(self, mass: int) -> Fraction:
        """U, in units of ``1 / 2^n``: the greatest Q0-mass of a fractional set of this Q1-mass."""
        if not 0 <= mass <= self.total:
            raise ValueError(f"a mass lies in 0..{self.total}")
        j = max(bisect_left(self._below1, mass), self._shift + 1) - 1
        return self._below0[j] + Fraction((mass - self._below1[j]) * self.q0[j], self.q1[j])

    def least(self, mass: int) -> Fraction:
        """L, in units of ``1 / 2^n``: what the complement leaves at most, ``2^n - U(2^n - mass)``."""
        return self.total - self.greatest(self.total - mass)

    def decide(self, labels: Sequence[int]) -> PathDecision:
        """Decide one step.

        Args:
            labels: argmax ids at the n + g + 1 strengths, in their order.

        Raises:
            InvalidInputError: another number of labels (``PATH_LABELS``).
        """
        if len(labels) != len(self.strengths):
            raise _malformed(f"{len(labels)} labels, expected {len(self.strengths)}")
        before, after = Counter[int](), Counter[int]()
        for label, p, q in zip(labels, self.q1, self.q0, strict=True):
            before[label] += p
            after[label] += q
        winner = min(before, key=lambda label: (-before[label], label))
        lead, rival = before[winner], max((p for c, p in before.items() if c != winner), default=0)
        return PathDecision(
            label=winner,
            published=lead - rival > 2 * self.distance,
            certified=self.least(lead) > self.greatest(rival),
            kept=all(after[winner] > q for c, q in after.items() if c != winner),
            interval=sum(label == winner for label, _ in groupby(labels)) == 1,
        )


path_law = lru_cache(maxsize=16)(PathLaw)


def decide(labels: Sequence[int], n: int, g: int) -> PathDecision:
    """Decide one step under (n, g); raises as :class:`PathLaw` and :meth:`PathLaw.decide`."""
    return path_law(n, g).decide(labels)


@lru_cache(maxsize=1 << 16)
def decision(text: str, n: int, g: int) -> PathDecision:
    """Decide one step from its labels as :func:`encode` wrote them; raises as :func:`decode`."""
    return decide(decode(text, n, g), n, g)


def encode(labels: Sequence[int]) -> str:
    """Write labels as runs: ``17*9,4*3`` is nine times 17, then three times 4."""
    return ",".join(f"{label}*{sum(1 for _ in run)}" for label, run in groupby(labels))


@lru_cache(maxsize=1 << 16)
def decode(text: str, n: int, g: int) -> tuple[int, ...]:
    """Read the n + g + 1 labels that :func:`encode` wrote, in its only spelling.

    Raises:
        UsageError: ``n`` or ``g`` out of range (``PATH_LAW``).
        InvalidInputError: malformed, not in longest runs, or another number of labels (``PATH_LABELS``).
    """
    points = len(path_law(n, g).strengths)
    if len(text) > points * _LONGEST_RUN:
        raise _malformed(f"{len(text)} characters for {points} labels")
    runs = [_RUN.fullmatch(run) for run in text.split(",")]
    labels = tuple(label for run in runs if run for label in [int(run[1])] * int(run[2]))
    if None in runs or encode(labels) != text:
        raise _malformed("expected runs such as 17*9,4*3, neighbours with different labels")
    if len(labels) != points:
        raise _malformed(f"{len(labels)} labels, expected {points}")
    return labels


def _malformed(reason: str) -> InvalidInputError:
    return InvalidInputError(f"labels of a path: {reason}", code="PATH_LABELS")
