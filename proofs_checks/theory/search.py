"""Searches for new counterexamples: the theorem with one assumption dropped, smallest models first.

Each search walks through models in a fixed order (or, where there are too many, a seeded one) until the
weaker statement breaks, and keeps the simplest violation. The violation is then rebuilt and judged by the
definitions of :mod:`proofs_checks.theory.finite`. "Passed" means that one was found: the assumption is
needed. A search that ends without one has ``failed``; one that runs out of time says ``timeout``.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from fractions import Fraction
from itertools import product
from math import prod

from certify.base.errors import InternalError
from proofs_checks.check import Budget, Check, CheckFinding, check
from proofs_checks.theory.enumeration import Tally, compositions, scan_line, scan_product
from proofs_checks.theory.finite import (
    CERTIFIED,
    Change,
    Law,
    distance,
    expectation,
    intervals,
    joint,
    law,
    lead,
    restricted_strings,
    rivals,
    sample_distance,
    score,
    total_variation,
    variation,
    variations,
)


def first(tallies: Iterator[tuple[str, Tally]], budget: Budget, *, loses: bool = True) -> CheckFinding:
    """Run scans from small to large until one has a violation (after which A has lost, not only tied).

    Args:
        tallies: (what was scanned, its counts), smallest first.
        budget: time allowed.
        loses: prefer a change after which a rival is strictly ahead; a tie is enough with False.
    """
    deadline = time.monotonic() + budget.seconds
    cases = 0
    tie: tuple[str, Tally] | None = None
    for where, tally in tallies:
        cases += tally.cases
        if tally.witness is not None:
            tie = tie or (where, tally)
            if not loses or tally.witness.lead_after < 0:
                detail = f"{where}: {tally.violations:,} violations in {tally.cases:,} cases"
                return CheckFinding("passed", cases, detail, str(tally.witness))
        if time.monotonic() > deadline:
            return CheckFinding("timeout", cases, f"no violation within {budget.seconds:g} s, up to {where}")
    if tie is not None:
        return CheckFinding("passed", cases, f"{tie[0]}: ties only", str(tie[1].witness))
    return CheckFinding("failed", cases, "no violation: the assumption would not be needed")


@check("search.A-ONE", "§4: with two changed rows, the largest deviation is not enough", ("A-ONE",))
def without_a_one(budget: Budget) -> CheckFinding:
    """The maximum in place of the sum, all labellings of grids, smallest first."""
    shapes: tuple[tuple[int, ...], ...] = ((2, 2), (2, 3), (3, 3))
    return first(
        (
            (
                f"{labels} on {'x'.join(map(str, shape))}, n = {n}",
                scan_product(shape, labels, n, combine="max"),
            )
            for n in range(2, 7)
            for shape in shapes
            for labels in restricted_strings(prod(shape), 2)
        ),
        budget,
    )


@check("search.A-ORDER", "§3: the published 2D fails with three classes in a row", ("A-ORDER",))
def without_a_order(budget: Budget) -> CheckFinding:
    """2D with three classes, each an interval and A at an end."""
    strings = [
        s
        for s in restricted_strings(3, 3)
        if intervals(s) and CERTIFIED in (s[0], s[-1]) and len(rivals(s)) == 2
    ]
    return first(
        ((f"{labels}, n = {n}", scan_line(labels, n, 2)) for n in range(2, 20) for labels in strings), budget
    )


@check("search.interval", "§4: the published 2D fails for two classes if A is an interval", ("A-ORDER",))
def on_an_interval(budget: Budget) -> CheckFinding:
    """2D with two classes on three atoms."""
    return first(((f"BAB, n = {n}", scan_line("BAB", n, 2)) for n in range(2, 20)), budget)


@check("search.strictness", "§4 corollary: >= in place of >", ())
def without_strictness(budget: Budget) -> CheckFinding:
    """V D attained: a tie is the worst that can happen, and it happens."""
    strings = [s for length in (2, 3, 4) for s in restricted_strings(length, length)]
    return first(
        (
            (f"{labels}, n = {n}", scan_line(labels, n, variation(labels), strict=False))
            for n in range(2, 12)
            for labels in strings
        ),
        budget,
        loses=False,
    )


@check("search.A-SCALAR", "§3 A-SCALAR: d iid draws from one row are d coordinates, not one", ("A-SCALAR",))
def without_a_scalar(budget: Budget) -> CheckFinding:
    """A predictor of two or three draws from the same row law, D counted once."""

    def scans() -> Iterator[tuple[str, Tally]]:
        for n in range(2, 9):
            for draws, atoms in ((2, 2), (2, 3), (3, 2)):
                for labels in restricted_strings(atoms**draws, 2):
                    yield f"{draws} draws, {labels}, n = {n}", scan_draws(labels, atoms, draws, n)

    return first(scans(), budget)


def scan_draws(labels: str, atoms: int, draws: int, n: int) -> Tally:
    """Try ``E s > max V_j * D`` on pairs of row laws of which ``draws`` iid draws are seen (one rival, B)."""
    values = score(labels, "B")
    factor = max(variations(values, (atoms,) * draws))
    laws = [law(counts) for counts in compositions(n, atoms)]
    means = [expectation(values, joint((p,) * draws)) for p in laws]
    met = [
        (i, j)
        for i, j in product(range(len(laws)), repeat=2)
        if i != j and means[i] > 0 and means[i] > factor * distance(laws[i], laws[j])
    ]
    lost = [(i, j) for i, j in met if means[j] <= 0]
    change = None
    if lost:
        i, j = min(lost, key=lambda pair: means[pair[1]])
        change = Change(labels, (laws[i],) * draws, (laws[j],) * draws)
        # Counting the common D once is what the maximum does when all coordinates are alike.
        if not (change.slack(combine="max") > 0 >= change.lead_after and change.slack() <= 0):
            raise InternalError(
                f"the search and the definitions disagree on {change}", code="WITNESS_REFUTED"
            )
    return Tally(len(met), len(lost), 0, change)


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


@check("search.A-LAW", "§3 A-LAW: a predictor that sees the order of a row's entries", ("A-LAW",))
def without_a_law(budget: Budget) -> CheckFinding:
    """Random linear three-class rules on integer rows; a random permutation of the row, D = 0 and p = 1."""
    draw = random.Random(budget.seed)
    found = 0
    witness = None
    tries = 4000 if budget.full else 500
    for _ in range(tries):
        width = draw.randint(2, 8)
        row = [draw.randint(-9, 9) for _ in range(width)]
        weights = [[draw.randint(-3, 3) for _ in range(width)] for _ in range(3)]
        moved = row[:]
        draw.shuffle(moved)
        logits = [[sum(w * x for w, x in zip(ws, r, strict=True)) for ws in weights] for r in (row, moved)]
        winners = [[c for c, z in enumerate(zs) if z == max(zs)] for zs in logits]
        if len(winners[0]) == 1 and winners[0][0] not in winners[1]:
            gap = sample_distance([Fraction(x) for x in row], [Fraction(x) for x in moved])
            if gap != 0:
                return CheckFinding("failed", tries, "a permutation moved the distribution", f"{row} {moved}")
            found += 1
            if witness is None or width < len(witness[0]):
                witness = (row, moved, logits)
    if witness is None:
        return CheckFinding("failed", tries, "no violation: the order of the entries would not matter")
    text = f"row {witness[0]} becomes {witness[1]}, D = 0: logits {witness[2][0]} become {witness[2][1]}"
    return CheckFinding("passed", tries, f"{found:,} of {tries:,} permuted rows change the winner", text)


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
                        f"s = {', '.join(map(str, gaps))}, law ({', '.join(map(str, p))}) becomes"
                        f" ({', '.join(map(str, q))}): gap at a point {seen} > V D = {bound}, but the mean"
                        f" goes from {before} to {after}"
                    )
                    honest = before <= bound
                    return CheckFinding(
                        "passed" if honest else "failed", cases, f"{atoms} atoms, n = {n}", text
                    )
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
    detail = (
        f"{tries:,} models: the additive criterion met {sound:,} times, never violated;"
        f" r > 2 max D met {claimed:,} times, violated {broken:,} times"
    )
    return CheckFinding("passed" if sound and broken else "failed", tries, detail, str(worst))


CHECKS: tuple[Check, ...] = (
    random_models,
    without_a_one,
    without_a_order,
    on_an_interval,
    without_strictness,
    without_a_scalar,
    without_independence,
    without_a_law,
    without_a_point,
)
