"""Searches for new counterexamples: the theorem on random models, and with an assumption dropped.

The assumptions of which :mod:`proofs_checks.theory.counterexamples` has the smallest violation (C1 to C8) are
not searched again. "Passed" means that the theorem held, or that without the assumption a violation was
found: it is needed. A search that ends without one has ``failed``.
"""

from __future__ import annotations

import random
from fractions import Fraction
from itertools import product
from math import prod

from proofs_checks.check import Budget, Check, CheckFinding, Outcome, check
from proofs_checks.theory.enumeration import compositions
from proofs_checks.theory.finite import (
    CERTIFIED,
    Change,
    Law,
    distance,
    in_words,
    law,
    lead,
    restricted_strings,
    rivals,
    total_variation,
)


def marginals(shape: tuple[int, int], cells: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Counts of each coordinate of a joint sample on a grid of two coordinates."""
    rows, columns = shape
    table = [cells[i * columns : (i + 1) * columns] for i in range(rows)]
    return tuple(map(sum, table)), tuple(map(sum, zip(*table, strict=True)))


@check("search.independence", "§4: independence is essential: (U, U) against (U, 1 - U)", ("independence",))
def without_independence(budget: Budget) -> CheckFinding:
    """Joint laws with the same marginals, so that D_1 = D_2 = 0, and different winners."""
    plan = [((2, 2), n, labels) for n in (2, 3, 4) for labels in restricted_strings(4, 3)]
    plan += [((3, 3), n, "ABBBABBBA") for n in ((3, 4, 5) if budget.full else (3,))]
    cases = found = 0
    witness = None
    for shape, n, labels in plan:
        groups: dict[object, list[tuple[int, ...]]] = {}
        for cells in compositions(n, prod(shape)):
            groups.setdefault(marginals(shape, cells), []).append(cells)
        for group in groups.values():
            leads = [(lead(labels, law(cells)), cells) for cells in group]
            ahead = [pair for pair in leads if pair[0] > 0]
            behind = [pair for pair in leads if pair[0] < 0]
            cases += len(ahead) * (len(group) - 1)
            found += len(ahead) * len(behind)
            if ahead and behind and witness is None:
                (before, cells), (after, others) = ahead[0], behind[0]
                witness = (
                    f"labels {labels} on {shape[0]}x{shape[1]}: joint counts {cells} become {others},"
                    f" marginals {marginals(shape, cells)} unchanged: lead {before} becomes {after}"
                )
    if witness is None:
        return CheckFinding("failed", cases, "no violation: independence would not be needed")
    return CheckFinding("passed", cases, f"{found:,} violations of r > 0 with all D = 0", witness)


@check("search.A-POINT", "§3 A-POINT: the gap at one point is not the expected gap", ("A-POINT",))
def without_a_point(_: Budget) -> CheckFinding:
    """A gap function s of which one value, not the mean, is compared with V D; A leads on average before."""
    values = [Fraction(k, 4) for k in range(-4, 5, 2)]
    cases = 0
    for n, atoms in ((3, 2), (4, 2), (4, 3), (6, 3)):
        laws: list[Law] = [law(counts) for counts in compositions(n, atoms)]
        for gaps in product(values, repeat=atoms):
            scaled = [int(4 * value) for value in gaps]
            factor = Fraction(total_variation(scaled), 4)
            means = [sum((g * mass for g, mass in zip(gaps, p, strict=True)), Fraction(0)) for p in laws]
            for (p, before), (q, after) in product(zip(laws, means, strict=True), repeat=2):
                bound = factor * distance(p, q)
                seen = max(g for g, mass in zip(gaps, p, strict=True) if mass)
                if before <= 0 or seen <= bound or p == q:
                    continue
                cases += 1
                if after < 0:
                    text = (
                        f"s = {', '.join(map(str, gaps))}, law {in_words((p,))} becomes {in_words((q,))}: gap"
                        f" at a point {seen} > V D = {bound}, but the mean goes from {before} to {after}"
                    )
                    outcome: Outcome = "passed" if before <= bound else "failed"
                    return CheckFinding(outcome, cases, f"{atoms} atoms, n = {n}", text)
    return CheckFinding("failed", cases, "no violation: the assumption would not be needed")


def random_change(draw: random.Random) -> Change:
    """One or two coordinates with laws of different denominators, close enough to each other to matter.

    Each law after is the law before with up to three pieces of mass moved to a neighbouring atom, so that D
    is often attained at several atoms at once.
    """
    shape = draw.choice([(3,), (4,), (5,), (6,), (2, 2), (2, 3), (3, 3)])
    rest = "ABCD"[: draw.randint(2, 4)]
    labels = "".join(draw.choices(rest, k=prod(shape)))
    labels = labels if CERTIFIED in labels and rivals(labels) else "A" + "B" * (prod(shape) - 1)
    before, after = [], []
    for size in shape:
        total = draw.randint(5, 30)
        # In one dimension half of the mass starts on A, where a lead is likely.
        homes = [i for i in range(size) if len(shape) > 1 or labels[i] == CERTIFIED]
        counts = [Fraction(0)] * size
        for i in range(total):
            counts[draw.choice(homes) if i % 2 else draw.randrange(size)] += 1
        moved = counts[:]
        step = Fraction(draw.randint(1, 4), draw.randint(1, 3))
        for _ in range(draw.randint(1, 3)):
            source = draw.choice([i for i, count in enumerate(moved) if count])
            target = min(max(source + draw.choice((-1, 1)), 0), size - 1)
            mass = min(step, moved[source])
            moved[source] -= mass
            moved[target] += mass
        before.append(law(counts))
        after.append(law(moved))
    return Change(labels, tuple(before), tuple(after))


@check(
    "search.random",
    "§4 corollary on random models: V and the sum hold, 2 max D does not",
    ("A-ONE", "A-ORDER"),
)
def random_models(budget: Budget) -> CheckFinding:
    """Random models judged by the definitions: the theorem and the published constant side by side."""
    draw = random.Random(budget.seed)
    tries = 30_000 if budget.full else 3_000
    sound = claimed = broken = 0
    worst: Change | None = None
    for _ in range(tries):
        change = random_change(draw)
        if max(change.distances) == 0 or change.lead_before <= 0:
            continue
        holds = change.lead_after > 0
        if change.slack() > 0:
            sound += 1
            if not holds:
                return CheckFinding("failed", tries, "the theorem is violated", str(change))
        if change.slack(combine="max", multiplier=2) > 0:
            claimed += 1
            if not holds:
                broken += 1
                if worst is None or change.lead_before > worst.lead_before:
                    worst = change
    detail = f"{tries:,} models: the additive criterion met {sound:,} times, never violated;"
    detail += f" r > 2 max D met {claimed:,} times, violated {broken:,} times"
    return CheckFinding("passed" if sound and broken else "failed", tries, detail, str(worst))


CHECKS: tuple[Check, ...] = (random_models, without_independence, without_a_point)
