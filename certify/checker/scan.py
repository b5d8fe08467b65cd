"""The two-sample KS scan, its exact law, and the selection of rows (theory §2)."""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate
from typing import Any

from .tables import UNKNOWN, Json, Moved, Table, canonical, increasing, level, need, numbers, sha
from .vocabulary import Vocabulary


@lru_cache(maxsize=1 << 17)
def compare(before: bytes, after: bytes, dtype: str) -> tuple[int, float, float]:
    """KS count h, norm of the difference, cosine. Both CDFs advance past equal values; -0 is +0."""
    x, y = numbers(before, dtype), numbers(after, dtype)
    counts = Counter(x)
    counts.subtract(y)
    h = max(map(abs, accumulate(counts[value] for value in sorted(counts))))
    xx, yy, xy = (math.fsum(a * b for a, b in zip(u, v, strict=True)) for u, v in ((x, x), (y, y), (x, y)))
    scale = math.sqrt(xx) * math.sqrt(yy)
    return h, math.dist(x, y), xy / scale if scale else float(xx == yy == 0)


@lru_cache(maxsize=1)
def binomials(n: int) -> list[int]:
    """``C(2n, n - j)`` for j = 0..n."""
    start = math.comb(2 * n, n)
    return [*accumulate(range(n), lambda value, j: value * (n - j) // (n + j + 1), initial=start)]


@lru_cache(maxsize=1 << 17)
def p_exact(h: int, n: int) -> Fraction:
    """Smirnov's exact law of the two-sample distance with n entries on both sides."""
    terms = binomials(n)
    alternating = sum(terms[h :: 2 * h]) - sum(terms[2 * h :: 2 * h]) if h else 0
    return Fraction(2 * alternating, terms[0]) if h else Fraction(1)


@lru_cache(maxsize=1 << 17)
def exceeds_log(value: Fraction, x: Fraction) -> bool:
    """Decide ``value > ln(x)`` for a rational ``x`` other than 1, whose logarithm is irrational."""
    digits = 40
    while True:
        with localcontext(prec=digits):  # Decimal.ln is correctly rounded
            gap = value - Fraction(Decimal(x.numerator).ln()) + Fraction(Decimal(x.denominator).ln())
        if abs(gap) > Fraction(1, 10 ** (digits - 10)):
            return gap > 0
        digits *= 2


def rejects(h: int, n: int, level: Fraction, method: str) -> bool:
    """``p(h) <= level``; in the limit ``h^2/n > ln(2/level)``."""
    if method == "exact" or level >= 1:
        return p_exact(h, n) <= level
    return h > 0 and exceeds_log(Fraction(h * h, n), 2 / level)


def critical(n: int, level: Fraction, method: str) -> int:
    """Smallest count that is rejected; n + 1 if none is."""
    return bisect_left(range(n + 1), True, key=lambda h: rejects(h, n, level, method))


def spelled(groups: Sequence[Json], count: int) -> list[Json]:
    """Groups of ids below ``count``, of which an entry such as "3-258" is a run; none has three reasons."""
    found, left = list[Json](), 2 * count
    for one in groups:
        entries = one["ids"]
        need(isinstance(entries, list) and entries and {*map(type, entries)} <= {int, str})
        need(all(re.fullmatch("(0|[1-9][0-9]{0,7})(-[1-9][0-9]{0,7})?", f"{entry}") for entry in entries))
        need(all(isinstance(entry, int) or "-" in entry for entry in entries))
        ends = [[*map(int, f"{entry}".split("-"))] for entry in entries]
        need(increasing([i for pair in ends for i in dict.fromkeys(pair)]) and ends[-1][-1] < count)
        left -= sum(1 + pair[1] - pair[0] for pair in ends if len(pair) > 1)
        need(left >= 0)
        found.append(one | {"ids": [i for pair in ends for i in range(pair[0], pair[-1] + 1)]})
    return found


def excluded(stated: Sequence[Json], vocabulary: Vocabulary, count: int, named: Sequence[int]) -> list[Json]:
    """Ids that no rule sees: those that the author names, special ones, and rows without a token."""
    pieces, special, size = vocabulary
    of_role = Counter(text.partition(" ")[0] for text in special.values())
    together = any(one["reason"].startswith("special tokens") for one in stated)
    many = [role for role, number in of_role.items() if together and number > 8]
    roles = {i: text.partition(" ")[0] for i, text in special.items()}
    groups = [
        (f"special: {text.removeprefix('special ')}", [i])
        for i, text in special.items()
        if roles[i] not in many
    ]
    for role in many:
        reason = f"special tokens: {role}".removesuffix(": special")
        groups.append((reason, [i for i in special if roles[i] == role]))
    if size is not None:
        need(size <= count, "TOKENIZER_TABLE_SIZE")
        groups.append(("no piece in the tokenizer", [i for i in range(size) if i not in pieces]))
        groups.append(("beyond the tokenizer", [*range(size, count)]))
    left = [{"reason": reason, "ids": [i for i in ids if i not in named]} for reason, ids in groups]
    author = [one for one in stated if one["reason"] == "named by the author"]
    return [*author, *(one for one in left if one["ids"])]


def rejected(ranked: list[int], n: int, alpha: Fraction, correction: str, method: str) -> int:
    """How many of the counts, the largest first, the corrected test rejects."""
    m, up = len(ranked), correction in ("bh", "by")
    common = math.lcm(*range(1, m + 1)) if correction == "by" else 1
    harmonic = Fraction(sum(common // i for i in range(1, m + 1)), common) if correction == "by" else 1
    levels: dict[str, Callable[[int], Fraction]] = {
        "none": lambda _: alpha,
        "bonferroni": lambda _: alpha / m,
        "holm": lambda j: alpha / (m - j),
        "bh": lambda j: alpha * (j + 1) / m,
        "by": lambda j: alpha * (j + 1) / m / harmonic,
    }
    level = levels[correction]
    passes = [rejects(h, n, level(j), method) for j, h in enumerate(ranked)]
    return m - [*passes[::-1], True].index(True) if up else [*passes, False].index(False)


def select(ticket: Json, moved: Moved, vocabulary: Vocabulary, counts: Sequence[int] | None) -> list[int]:
    """The ids that the rule selects; what else the ticket states of the selection must be so."""
    stated, (rows, n) = ticket["selection"], ticket["base"]["shape"]
    (rule, _, argument), alpha = stated["rule"].partition(":"), level(stated["alpha"])
    correction, method, seed = stated["correction"], stated["method"], stated["seed"]
    need(rule == "ks" or alpha == Fraction(1, 20), "RULE_OPTION")
    named = [int(i) for i in argument.split(",")] if rule == "ids" else []
    told = spelled(stated["excluded"], rows)
    groups = excluded(told, vocabulary, rows, named)
    out = {i for group in groups for i in group["ids"]}
    pool: list[int] = [i for i in range(rows) if i not in out]
    counted = rule in ("frequency", "template")
    need(rule != "template" or (ticket["template"] and re.fullmatch("[a-z]{2,3}-[a-z]{2,3}", argument)))
    uses = [rule == "random", counted, rule == "ks" or correction == "none"]
    need(uses == [seed is not None, counts is not None, True], "RULE_OPTION")
    weight: dict[int, Any] = {i: norm if rule == "norm" else h for i, (h, norm, _) in moved.items()}
    if rule == "random":
        weight = {i: 2**256 - int(sha(f"{seed}:{i}".encode()), 16) for i in pool}
    elif counts is not None:
        need(len(counts) == rows, "COUNTS_MALFORMED")
        weight = dict(enumerate(counts))
    ranked = sorted(pool, key=lambda i: -weight.get(i, 0))
    if stated["rule"] == "ks":
        ranked = ranked[: rejected([weight.get(i, 0) for i in ranked], n, alpha, correction, method)]
    elif rule == "ids":
        need(set(named) <= set(pool) and len(set(named)) == len(named), "ID_RANGE")
        ranked, argument = named, ",".join(map(str, sorted(named)))
    else:
        need(rule in ("distance", "norm", "random") or counted, *UNKNOWN)
        ranked = [i for i in ranked if weight.get(i, 0) > 0]
    if rule not in ("ks", "ids", "template"):
        need(re.fullmatch("[1-9][0-9]{0,8}", argument) and int(argument) <= len(ranked), "RULE_SIZE")
        ranked = ranked[: int(argument)]
    again = {"n": n, "tests": len(pool), "h_alpha": critical(n, alpha, method)}
    again["rule"] = f"{rule}:{argument}" if argument else rule
    sound = math.isclose(stated["tau"], math.sqrt(math.log(2 / alpha) / n), rel_tol=1e-9)
    same = canonical({key: stated[key] for key in again}) == canonical(again)
    need(sound and same and canonical(told) == canonical(groups), "SELECTION_PARAMETERS", "REFUTED")
    return sorted(ranked)


def moved(base: Table, reference: Table) -> Moved:
    """How far the rows that differ have moved."""
    pairs = enumerate(zip(base, reference, strict=True))
    return {i: compare(a, b, base.served) for i, (a, b) in pairs if a != b}
