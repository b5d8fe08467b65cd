"""The pinned counterexamples C1-C8 of theory §4, each reproduced exactly (standard library only).

"Passed" means: the case was rebuilt from its samples, every number that the theory states came out, and the
criterion that it refutes was met while its conclusion was false. C1 on a real model is
:mod:`proofs_checks.theory.llama`; new cases are looked for by :mod:`proofs_checks.theory.search`.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import permutations
from math import comb

from proofs_checks.check import Budget, Check, CheckFinding, Fact, Facts, check
from proofs_checks.theory.finite import (
    CERTIFIED,
    Change,
    alternating,
    expectation,
    joint,
    law,
    probabilities,
    sample_distance,
    score,
    smirnov,
    variations,
)

HALF = Fraction(1, 2)


def reproduce(facts: Sequence[Fact], witness: str) -> CheckFinding:
    """Passed if every fact of a counterexample holds; the first that does not is named."""
    for text, holds in facts:
        if not holds:
            return CheckFinding("failed", len(facts), f"not reproduced: {text}", witness)
    return CheckFinding("passed", len(facts), "; ".join(text for text, _ in facts), witness)


@check("counterexamples.C1", "§4 C1: a permuted row has D = 0 and changes the prediction", ("A-LAW",))
def c1(_: Budget) -> CheckFinding:
    """A linear two-class rule on a row of four entries, all 24 orders of the same entries."""
    row, weights = (3, -1, 2, 0), (2, -1, 0, 1)

    def logit(entries: Sequence[int]) -> int:
        return sum(w * x for w, x in zip(weights, entries, strict=True))

    orders = list(permutations(row))
    flipped = [order for order in orders if logit(order) < 0]
    same = all(sample_distance(row, order) == 0 for order in orders)
    facts = [
        ("the row is given to A", logit(row) > 0),
        ("all 24 orders have D = 0 and p = 1", same),
        (f"{len(flipped)} of them are given to B", bool(flipped)),
    ]
    witness = f"row {row} becomes {flipped[0]}: logit {logit(row)} becomes {logit(flipped[0])}"
    finding = reproduce(facts, witness)
    return CheckFinding(finding.outcome, len(orders), finding.detail, finding.witness)


@check(
    "counterexamples.C2", "§4 C2: even against odd atoms, D = 1/n, p = 1, a parity rule flips", ("A-ORDER",)
)
def c2(budget: Budget) -> Facts:
    """Samples 0, 2, .., 2n-2 against 1, 3, .., 2n-1, for every n up to a bound."""
    largest = 64 if budget.full else 24
    for n in range(2, largest + 1):
        change = alternating(n)
        distance = sample_distance(range(0, 2 * n, 2), range(1, 2 * n, 2))
        yield f"not reproduced: D = 1/{n}", distance == Fraction(1, n) == change.distances[0]
        yield "not reproduced: p = 1", smirnov(1, n) == 1
        before, after = (probabilities(change.labels, joint(laws)) for laws in (change.before, change.after))
        yield "not reproduced: probability 1 becomes 0", before[CERTIFIED] == 1 and after[CERTIFIED] == 0
    text = f"n = 2..{largest}: D = 1/n, p = 1, probability of A from 1 to 0"
    return CheckFinding("passed", largest - 1, text, "0, 2, 4, ... against 1, 3, 5, ...")


@check("counterexamples.C3", "§4 C3: {0, 0, 2} against {0, 1, 1}, region {0, 2}", ("A-ORDER",))
def c3(_: Budget) -> CheckFinding:
    """The smallest: D = 1/3, probability 1 becomes 1/3, so r = 1 > 2/3 protects nothing."""
    change = Change("ABA", (law([2, 0, 1]),), (law([1, 2, 0]),))
    after = probabilities(change.labels, joint(change.after))
    return reproduce(
        [
            ("D = 1/3", sample_distance((0, 0, 2), (0, 1, 1)) == Fraction(1, 3) == change.distances[0]),
            ("r = 1 > 2D", change.lead_before == 1 and change.slack(multiplier=2) > 0),
            ("P(A) becomes 1/3", after[CERTIFIED] == Fraction(1, 3)),
            ("B wins", change.lead_after < 0),
            ("4D is not met", change.slack() <= 0),
        ],
        str(change),
    )


def interval_tie(others: int, missing: Fraction = Fraction(0)) -> tuple[Change, Fraction]:
    """C4 with the half of the mass outside A and B spread over many classes on each side.

    Of the ``others`` on each side, 1 to 12, none matters once there are several; r is below 1/2 by
    ``missing``. Returns the change, labels like ``C D B A B E F``, and the mass of A against B before it.
    """
    names = [chr(ord("C") + i) for i in range(2 * others)]
    labels = "".join([*names[:others], "B", CERTIFIED, "B", *names[others:]])
    share = (HALF + missing) / (2 * others)
    tails = (share,) * others
    before = (*tails, Fraction(0), HALF - missing, Fraction(0), *tails)
    # 1/8 crosses each end of A; the CDFs part by exactly that, whatever the width of A.
    eighth = Fraction(1, 8)
    after = (*tails, eighth, HALF - missing - 2 * eighth, eighth, *tails)
    change = Change(labels, (before,), (after,))
    return change, expectation(score(labels, "B"), before)


@check(
    "counterexamples.C4", "§4 C4: an interval with p_A = 1/2, p_B = 0, D = 1/8 ends in a tie", ("A-ORDER",)
)
def c4(_: Budget) -> CheckFinding:
    """2D is met twice over and the lead over B is gone; for any smaller r it is lost."""
    change, gap = interval_tie(6)
    eighth = Fraction(1, 8)
    after = probabilities(change.labels, joint(change.after))
    smaller = [interval_tie(6, Fraction(1, size))[0] for size in (1000, 100, 20)]
    lost = all(
        case.distances == (eighth,)
        and case.slack(multiplier=2) > 0
        and expectation(score(case.labels, "B"), joint(case.after)) < 0
        for case in smaller
    )
    return reproduce(
        [
            ("D = 1/8", change.distances == (eighth,)),
            ("p_A - p_B = 1/2 > 2D", gap == HALF > 2 * eighth and change.slack(multiplier=2) > 0),
            ("p_A = p_B = 1/4 afterwards", after[CERTIFIED] == after["B"] == Fraction(1, 4)),
            ("a smaller r above 2D is lost outright", lost),
            ("4D is not met", change.slack() <= 0),
        ],
        str(change),
    )


@check("counterexamples.C5", "§4 C5: deviations of two rows add, and the sum is attained", ("A-ONE",))
def c5(_: Budget) -> CheckFinding:
    """A = {x1 <= 0 and x2 <= 0}, D = 1/3 each: 1 becomes 4/9. A ++, B --, C mixed: equality."""
    third = Fraction(1, 3)
    certain, moved = law([1, 0]), law([2, 1])
    corner = Change("ABBB", (certain, certain), (moved, moved))
    after = probabilities(corner.labels, joint(corner.after))
    diagonal = Change("BCCA", (law([1, 5]), law([1, 3])), (law([2, 4]), law([1, 1])))
    values = score(diagonal.labels, "B")
    lost = expectation(values, joint(diagonal.before)) - expectation(values, joint(diagonal.after))
    factors = variations(values, diagonal.shape)
    bound = sum((v * d for v, d in zip(factors, diagonal.distances, strict=True)), Fraction(0))
    return reproduce(
        [
            ("D = 1/3 each", corner.distances == (third, third)),
            ("r = 1 > 2 max D = 2/3", corner.lead_before == 1 and corner.slack(combine="max") > 0),
            ("4/9 against 5/9", (after[CERTIFIED], after["B"]) == (Fraction(4, 9), Fraction(5, 9))),
            ("the sum does not certify it", corner.slack() <= 0),
            ("A ++, B --, C mixed: loss = V_1 D_1 + V_2 D_2", lost == bound and min(diagonal.distances) > 0),
        ],
        str(corner),
    )


@check("counterexamples.C6", "§4 C6: the criterion must be strict")
def c6(_: Budget) -> CheckFinding:
    """r = 2D exactly on a half-line, and A and B end equal."""
    change = Change("AB", (law([3, 1]),), (law([1, 1]),))
    return reproduce(
        [
            ("D = 1/4, r = 1/2 = 2D", change.distances == (Fraction(1, 4),) and change.slack() == 0),
            ("a tie afterwards", change.lead_after == 0),
            ("strictly, it is not certified", not change.slack() > 0),
        ],
        str(change),
    )


@check("counterexamples.C7", "§4 C7: d iid draws from one row, h = 1: 1 becomes (1 - 1/d)^d", ("A-SCALAR",))
def c7(budget: Budget) -> Facts:
    """One of d entries crosses t; A = "all draws are <= t". The bound for d draws, V d D >= 1, is vacuous."""
    widths = [*range(3, 9), *((16, 64, 256, 1024, 4096) if budget.full else (16, 64, 256))]
    for d in widths:
        before, after = law([d, 0]), law([d - 1, 1])
        kept = after[0] ** d
        where = f"not reproduced at d = {d}:"
        yield f"{where} h = 1", Change("AB", (before,), (after,)).distances == (Fraction(1, d),)
        yield f"{where} r = 1 > 2D", Fraction(2, d) < 1
        yield f"{where} A loses", kept < HALF
        yield f"{where} (1 - 1/d)^d grows to exp(-1) from below", kept < Fraction(36788, 100000)
        yield (
            f"{where} the honest bound d V D is vacuous",
            d * 2 * Fraction(1, d) >= 1 and 2 * (1 - kept) <= 2,
        )
        if d <= 3:
            cube = Change("A" + "B" * (2**d - 1), (before,) * d, (after,) * d)
            yield f"{where} enumerated over the d draws", cube.lead_after == 2 * kept - 1
    near = f"{round((1 - Fraction(1, widths[-1])) ** widths[-1] * 1000)}/1000"
    text = f"d in {widths}: r = 1 > 2/d, P(A) becomes (1 - 1/d)^d, about {near} at d = {widths[-1]}"
    return CheckFinding("passed", len(widths), text, "d entries <= t, one of them moved above t")


@check("counterexamples.C8", "§4 C8: three classes in a row refute 2D", ("A-ORDER",))
def c8(_: Budget) -> CheckFinding:
    """A C B, counts (7, 2, 2) of 11 become (5, 6, 0): D = 2/11, r = 5/11 > 4/11, C wins."""
    change = Change("ACB", (law([7, 2, 2]),), (law([5, 6, 0]),))
    x, y = (0,) * 7 + (1,) * 2 + (2,) * 2, (0,) * 5 + (1,) * 6
    after = probabilities(change.labels, joint(change.after))
    return reproduce(
        [
            ("D = 2/11", sample_distance(x, y) == Fraction(2, 11) == change.distances[0]),
            ("r = 5/11 > 4/11", change.lead_before == Fraction(5, 11) and change.slack(multiplier=2) > 0),
            ("C wins with 6/11", after["C"] == Fraction(6, 11) and change.lead_after < 0),
            ("3D is not met", change.slack() <= 0),
        ],
        str(change),
    )


@check("counterexamples.A-NULL", "§3 A-NULL: not rejecting does not mean D <= tau", ("A-NULL",))
def not_rejecting(_: Budget) -> CheckFinding:
    """n = 64 at level .05: the population D is above tau, 2 tau is met, A is lost, yet the test is silent.

    tau^2 = ln(40)/64, and 3.6888 < ln 40 < 3.6889; the chance of silence is an exact sum of binomials.
    """
    n, low, high = 64, Fraction(36888, 10000), Fraction(36889, 10000)
    change = Change("AB", (law([3, 1]),), (law([1, 1]),))
    d, r = change.distances[0], change.lead_before
    # Samples of two-point laws differ in the number of zeros only, so h is the difference of two binomials.
    x = [comb(n, i) * 3**i for i in range(n + 1)]
    y = [comb(n, j) for j in range(n + 1)]
    silent = sum(x[i] * y[j] for i in range(n + 1) for j in range(n + 1) if (i - j) ** 2 <= n * low)
    chance = Fraction(silent, 4**n * 2**n)
    often = f"D of the samples stays below tau with probability {round(chance * 1000)}/1000 > .05"
    return reproduce(
        [
            ("population D = 1/4 > tau", n * d**2 > high),
            ("r = 1/2 > 2 tau", n * r**2 > 4 * high),
            ("A ends in a tie", change.lead_after == 0),
            (often, chance > Fraction(1, 20)),
        ],
        str(change),
    )


CHECKS: tuple[Check, ...] = (c1, c2, c3, c4, c5, c6, c7, c8, not_rejecting)
