"""Independent answers for the scan, its p-values and its corrections. Imports nothing of the project.

Slow and plain on purpose: fractions, explicit loops, textbook definitions. ``FAULTS`` holds wrong versions of
the distance; a test that cannot tell them from the right one is no test.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import combinations
from math import comb


def values(row: bytes, dtype: str) -> list[Fraction]:
    """Decode little-endian storage bytes to exact numbers; both zeros are 0."""
    if dtype == "F32":
        return [Fraction(v) for (v,) in struct.iter_unpack("<f", row)]
    if dtype == "F16":
        return [Fraction(v) for (v,) in struct.iter_unpack("<e", row)]
    patterns = (pattern for (pattern,) in struct.iter_unpack("<H", row))
    return [Fraction(struct.unpack("<f", struct.pack("<I", pattern << 16))[0]) for pattern in patterns]


def distance(x: Sequence[Fraction], y: Sequence[Fraction]) -> int:
    """h = max over t of abs(#{x <= t} - #{y <= t}), by definition."""
    return max(abs(sum(a <= t for a in x) - sum(b <= t for b in y)) for t in {*x, *y})


def has_ties(x: Sequence[Fraction], y: Sequence[Fraction]) -> bool:
    return len({*x, *y}) < len(x) + len(y)


def same_multiset(x: Sequence[Fraction], y: Sequence[Fraction]) -> bool:
    return Counter(x) == Counter(y)


def _advance_one_side(x: Sequence[Fraction], y: Sequence[Fraction]) -> int:
    """Compares after every single step: inside a run of equal values the CDFs are not both there yet."""
    best = level = 0
    for _, step in sorted([(v, 1) for v in x] + [(v, -1) for v in y]):
        level += step
        best = max(best, abs(level))
    return best


def _one_sided(x: Sequence[Fraction], y: Sequence[Fraction]) -> int:
    return max(0, *(sum(a <= t for a in x) - sum(b <= t for b in y) for t in {*x, *y}))


def _mean_shift(x: Sequence[Fraction], y: Sequence[Fraction]) -> int:
    """Compares place by place instead of as samples: sees a permutation."""
    return sum(a != b for a, b in zip(x, y, strict=True))


def _forget_last(x: Sequence[Fraction], y: Sequence[Fraction]) -> int:
    """Loses the last value of y, as a loop that ends one short does."""
    pooled = {*x, *y}
    return max(abs(sum(a <= t for a in x) - sum(b <= t for b in y[:-1])) for t in pooled)


def _x_places_only(x: Sequence[Fraction], y: Sequence[Fraction]) -> int:
    return max(abs(sum(a <= t for a in x) - sum(b <= t for b in y)) for t in set(x))


FAULTS: dict[str, Callable[[Sequence[Fraction], Sequence[Fraction]], int]] = {
    "advances one side through ties": _advance_one_side,
    "one-sided": _one_sided,
    "paired": _mean_shift,
    "ends one short": _forget_last,
    "looks only where x has values": _x_places_only,
}


def p_by_paths(n: int) -> list[Fraction]:
    """P(D >= h/n) for h = 0..n by listing every interleaving of two samples; n up to about 6."""
    counts = [0] * (n + 1)
    for ups in combinations(range(2 * n), n):
        chosen = set(ups)
        level = best = 0
        for place in range(2 * n):
            level += 1 if place in chosen else -1
            best = max(best, abs(level))
        counts[best] += 1
    total = comb(2 * n, n)
    return [Fraction(sum(counts[h:]), total) for h in range(n + 1)]


def p_by_formula(h: int, n: int) -> Fraction:
    """The closed form of theory §2, one binomial at a time."""
    if h == 0:
        return Fraction(1)
    terms = ((-1) ** (k + 1) * comb(2 * n, n - k * h) for k in range(1, n // h + 1))
    return Fraction(2 * sum(terms), comb(2 * n, n))


def p_asymptotic(h: int, n: int, digits: int = 60) -> Fraction:
    """min(1, 2 exp(-h^2/n)) to ``digits`` digits."""
    with localcontext() as context:
        context.prec = digits
        return min(Fraction(1), Fraction(2 * (Decimal(-h * h) / Decimal(n)).exp()))


def log10(p: Fraction, digits: int = 60) -> Fraction:
    with localcontext() as context:
        context.prec = digits
        return Fraction((Decimal(p.numerator) / Decimal(p.denominator)).log10())


def natural_log(x: Fraction, digits: int = 80) -> Fraction:
    with localcontext() as context:
        context.prec = digits
        return Fraction((Decimal(x.numerator) / Decimal(x.denominator)).ln())


def rejections(p: Sequence[Fraction], alpha: Fraction, correction: str) -> list[bool]:
    """The procedures as textbooks state them, on ordered p-values."""
    m = len(p)
    order = sorted(range(m), key=lambda i: p[i])
    rejected = [False] * m
    if correction == "none":
        return [value <= alpha for value in p]
    if correction == "bonferroni":
        return [value * m <= alpha for value in p]
    if correction == "holm":
        for j, i in enumerate(order):
            if p[i] > alpha / (m - j):
                break
            rejected[i] = True
        return rejected
    penalty = (
        sum((Fraction(1, i) for i in range(1, m + 1)), Fraction(0)) if correction == "by" else Fraction(1)
    )
    last = 0
    for k, i in enumerate(order, start=1):
        if p[i] <= alpha * k / (m * penalty):
            last = k
    for i in order[:last]:
        rejected[i] = True
    return rejected
