"""What one record of evidence says step by step."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import chain, groupby
from operator import add, sub

from .tables import Json, increasing, level, naturals, need


def nanos(text: str) -> int:
    """A margin in (0, 1) as evidence counts probabilities, in units of 1e-9; it has no finer digits."""
    value = level(text) * 10**9
    need(value.denominator == 1 and len(text.partition(".")[2]) <= 9, "LEVEL")
    return int(value)


def changed(pairs: Sequence[Sequence[int]], against: Sequence[int]) -> bool:
    """Whether steps increase, and each names a token that is not the one ``against`` has there."""
    naturals([*chain(*pairs)], 1 << 24)
    told = increasing([t for t, _ in pairs]) and (not pairs or pairs[-1][0] < len(against))
    return told and all(against[t] != i for t, i in pairs)


def decisions(e: Json, length: int) -> list[int]:
    """The most probable token at each of ``length`` steps of an output, which its probabilities fit."""
    tokens, (p_a, p_b) = naturals(e["tokens"], 1 << 24), (naturals(e[key]) for key in ("p_a", "p_b"))
    need(0 < len(tokens) == len(p_a) == len(p_b) == length and changed(e["top"], tokens))
    need(max(p_a) <= 10**9 and max(map(sub, p_b, p_a)) <= 2 and max(map(add, p_b, p_a)) <= 10**9 + 1)
    top = dict(e["top"])
    return [top.get(t, token) for t, token in enumerate(tokens)]


def law(one: Json) -> tuple[int, int]:
    """n and g of the strengths along a path."""
    n, g = naturals([one["n"], one["g"]])
    need(len(one) == 2 and 1 <= g <= n <= 256 and n % 2 == 0)
    return n, g


@lru_cache(maxsize=1 << 16)
def along(text: str, n: int, g: int) -> tuple[list[int], bool, bool]:
    """Labels at the n + g + 1 strengths; whether the path theorem certifies the step, and is violated."""
    runs = [(label, int(count)) for label, count in (run.split("*") for run in text.split(","))]
    need(all(count > 0 for _, count in runs) and sum(count for _, count in runs) == n + g + 1)
    labels = naturals([int(label) for label, count in runs for _ in range(count)])
    need(text == ",".join(f"{label}*{len([*run])}" for label, run in groupby(labels)))
    row = [math.comb(n, k) for k in range(n + 1)]
    q0, q1, released, tuned = [*row, *[0] * g], [*[0] * g, *row], Counter[int](), Counter[int]()
    for label, p, q in zip(labels, q0, q1, strict=True):
        released[label] += p
        tuned[label] += q

    def most(mass: int) -> Fraction:
        found = Fraction(0)
        for p, q in zip(q0, q1, strict=True):  # by increasing q / p: what costs nothing comes first
            part = min(mass, q)
            found, mass = found + (p if part == q else Fraction(p * part, q)), mass - part
        return found

    winner = min(tuned, key=lambda label: (-tuned[label], label))
    rival = max((q for label, q in tuned.items() if label != winner), default=0)
    certified = 2**n - most(2**n - tuned[winner]) > most(rival)
    kept = all(released[winner] > p for label, p in released.items() if label != winner)
    return labels, certified, certified and not kept
