"""Finite laws, label strings and what the theory says about them, in exact arithmetic.

A *law* is a tuple of masses (Fractions that sum to 1) on ordered atoms; a *label string* names the winning
class of each atom, ``A`` being the class that is to be certified. Several coordinates make a grid of cells
in row-major order (last coordinate fastest). Standard library only; nothing of the judged code is imported.
Everything here is the slow and obvious way; :mod:`proofs_checks.theory.enumeration` is the fast one, and each
counterexample that it finds is judged again here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, pairwise, product
from math import comb, prod
from typing import Literal, TypeVar

Law = tuple[Fraction, ...]
Combine = Literal["sum", "max"]
"""How the deviations of several coordinates join: ``sum`` as the theorem does, or ``max``, which is wrong."""

Number = TypeVar("Number", int, Fraction)

CERTIFIED = "A"
"""Label of the class whose lead is to be certified."""


def law(counts: Sequence[int | Fraction]) -> Law:
    """The law with masses proportional to ``counts``.

    Raises:
        ValueError: a count is negative, or all are zero.
    """
    total = Fraction(sum(counts))
    if total <= 0 or min(counts) < 0:
        raise ValueError("counts must be non-negative and not all zero")
    return tuple(Fraction(count) / total for count in counts)


def distance(p: Law, q: Law) -> Fraction:
    """Kolmogorov-Smirnov distance of two laws on the same ordered atoms (theory §1)."""
    if len(p) != len(q):
        raise ValueError("the laws live on different atoms")
    return max(abs(a - b) for a, b in zip(accumulate(p), accumulate(q), strict=True))


def sample_distance(x: Sequence[float | Fraction], y: Sequence[float | Fraction]) -> Fraction:
    """Kolmogorov-Smirnov distance of two samples, ties advanced on both sides before comparing."""
    return max(
        abs(Fraction(sum(v <= t for v in x), len(x)) - Fraction(sum(v <= t for v in y), len(y)))
        for t in (*x, *y)
    )


def smirnov(h: int, n: int) -> Fraction:
    """P(D >= h/n) of two independent continuous samples of size n (theory §2)."""
    terms = ((-1) ** (k + 1) * comb(2 * n, n - k * h) for k in range(1, n // max(h, 1) + 1))
    return Fraction(2 * sum(terms), comb(2 * n, n)) if h > 0 else Fraction(1)


def rivals(labels: str) -> tuple[str, ...]:
    """The classes other than ``A`` that occur, in alphabetical order."""
    return tuple(sorted(set(labels) - {CERTIFIED}))


def score(labels: str, rival: str) -> tuple[int, ...]:
    """``s_c = 1{A} - 1{c}`` on each atom or cell (theory §4, corollary)."""
    return tuple((label == CERTIFIED) - (label == rival) for label in labels)


def total_variation(values: Sequence[int]) -> int:
    """Total variation of a function that is constant between the atoms of a line."""
    return sum(abs(b - a) for a, b in pairwise(values))


def variation(labels: str) -> int:
    """V of a label string (theory §4): the largest variation of ``s_c`` over the rivals; 0 without one."""
    return max((total_variation(score(labels, c)) for c in rivals(labels)), default=0)


def lines(shape: Sequence[int], axis: int) -> Iterator[tuple[int, ...]]:
    """Cell numbers of each line along ``axis`` of a grid, the other coordinates held fixed."""
    strides = [prod(shape[i + 1 :]) for i in range(len(shape))]
    others = [range(size) if i != axis else range(1) for i, size in enumerate(shape)]
    for corner in product(*others):
        start = sum(i * stride for i, stride in zip(corner, strides, strict=True))
        yield tuple(start + t * strides[axis] for t in range(shape[axis]))


def variations(values: Sequence[int], shape: Sequence[int]) -> tuple[int, ...]:
    """V_j of a function on a grid, for each coordinate j: worst over the other coordinates (theory §4)."""
    return tuple(
        max(total_variation([values[cell] for cell in line]) for line in lines(shape, axis))
        for axis in range(len(shape))
    )


def joint(laws: Sequence[Law]) -> Law:
    """Law of independent coordinates on the cells of their grid."""
    return tuple(prod(masses, start=Fraction(1)) for masses in product(*laws))


def expectation(values: Sequence[int], masses: Law) -> Fraction:
    """E s under a law on the same atoms or cells."""
    return sum((v * mass for v, mass in zip(values, masses, strict=True)), Fraction(0))


def probabilities(labels: str, masses: Law) -> dict[str, Fraction]:
    """Probability of each class that occurs, and of ``A``."""
    found = {CERTIFIED: Fraction(0)}
    for label, mass in zip(labels, masses, strict=True):
        found[label] = found.get(label, Fraction(0)) + mass
    return found


def lead(labels: str, masses: Law) -> Fraction:
    """r = p_A - max over the rivals: negative if A does not win, 0 for a tie."""
    p = probabilities(labels, masses)
    return p[CERTIFIED] - max((p[c] for c in rivals(labels)), default=Fraction(0))


def joined(deviations: Sequence[Number], combine: Combine) -> Number:
    """The bound for several coordinates from the ``V_j D_j`` of each (at least one)."""
    if combine == "max":
        return max(deviations)
    return sum(deviations[1:], deviations[0])


def in_words(laws: Sequence[Law]) -> str:
    """The laws of a product, for a witness."""
    return " x ".join(f"({', '.join(map(str, masses))})" for masses in laws)


@dataclass(frozen=True, slots=True)
class Change:
    """Independent coordinates before and after, on the same atoms: one case of the corollary.

    ``labels`` has the label of each cell of their grid, last coordinate fastest.
    """

    labels: str
    before: tuple[Law, ...]
    after: tuple[Law, ...]

    def __post_init__(self) -> None:
        if [len(p) for p in self.before] != [len(q) for q in self.after]:
            raise ValueError("the laws before and after live on different atoms")
        if prod(self.shape) != len(self.labels):
            raise ValueError("one label per cell is needed")
        if any(sum(masses) != 1 or min(masses) < 0 for masses in (*self.before, *self.after)):
            raise ValueError("masses must be non-negative and sum to 1")

    @property
    def shape(self) -> tuple[int, ...]:
        """Atoms per coordinate."""
        return tuple(len(p) for p in self.before)

    @property
    def distances(self) -> tuple[Fraction, ...]:
        """D_j of each coordinate."""
        return tuple(distance(p, q) for p, q in zip(self.before, self.after, strict=True))

    @property
    def lead_before(self) -> Fraction:
        """r before the change."""
        return lead(self.labels, joint(self.before))

    @property
    def lead_after(self) -> Fraction:
        """r after it."""
        return lead(self.labels, joint(self.after))

    def slack(self, *, combine: Combine = "sum", multiplier: int | None = None) -> Fraction:
        """Least of ``E s_c - bound`` over the rivals c: the criterion is met if this is positive.

        ``multiplier`` stands in place of every V_j(s_c); None takes the true ones.
        """
        masses = joint(self.before)
        least = []
        for rival in rivals(self.labels):
            values = score(self.labels, rival)
            own = variations(values, self.shape)
            factors = own if multiplier is None else (multiplier,) * len(own)
            bound = joined([v * d for v, d in zip(factors, self.distances, strict=True)], combine)
            least.append(expectation(values, masses) - bound)
        return min(least)

    def __str__(self) -> str:
        ticks = "; ".join(
            f"{in_words((p,))} to {in_words((q,))}, D = {d}"
            for p, q, d in zip(self.before, self.after, self.distances, strict=True)
        )
        shape = "" if len(self.shape) == 1 else f" on {'x'.join(map(str, self.shape))}"
        return f"labels {self.labels}{shape}: {ticks}: lead {self.lead_before} becomes {self.lead_after}"


def alternating(n: int) -> Change:
    """C2: even atoms become odd ones, so that D = 1/n, and a rule of parity goes from A to B."""
    return Change((CERTIFIED + "B") * n, (law([1, 0] * n),), (law([0, 1] * n),))


def restricted_strings(length: int, classes: int) -> Iterator[str]:
    """Label strings with ``A`` and a rival, up to renaming the rivals, with at most ``classes`` classes.

    The rivals appear in the order B, C, D, ...: every other string is one of these with other names.
    """

    def extend(prefix: str, used: int) -> Iterator[str]:
        if len(prefix) == length:
            if CERTIFIED in prefix and used:
                yield prefix
            return
        for k in range(min(used + 1, classes - 1) + 1):
            yield from extend(prefix + chr(ord(CERTIFIED) + k), max(used, k))

    yield from extend("", 0)


def runs(labels: str) -> str:
    """The string with equal neighbours merged: ``AABBA`` gives ``ABA``."""
    return "".join(c for i, c in enumerate(labels) if i == 0 or c != labels[i - 1])


def intervals(labels: str) -> bool:
    """Whether every class is an interval of the line."""
    merged = runs(labels)
    return len(set(merged)) == len(merged)
