"""The path theorem of theory §4b: every label string, the bounds by duality, the laws by an SMT solver.

Laws are counted over the outcomes of n coins and bounds are filled cell by cell, so that nothing here is
taken from :mod:`certify.stats.path`, which is compared. Masses are in units of ``1 / 2^n``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import accumulate, product
from typing import Any, NamedTuple

from certify.stats import path
from proofs_checks.check import Budget, Check, CheckFinding, Fact, Facts, check
from proofs_checks.theory.counterexamples import reproduce
from proofs_checks.theory.finite import restricted_strings
from proofs_checks.theory.smt import Proof
from proofs_checks.theory.symbolic import Clock, solve

Weights = Sequence[int]
"""Masses of a law at the points of the lattice."""

_FAST = ((2, 1), (2, 2), (3, 1), (3, 2), (4, 1), (4, 2))
_FULL = (*_FAST, (3, 3), (5, 1), (4, 3), (5, 2), (6, 1), (5, 3), (6, 2))


class Reading(NamedTuple):
    """What labels show under two laws; the criteria are that ``margin`` and ``slack`` are above 0."""

    label: int
    margin: int
    slack: Fraction
    kept: bool
    interval: bool


def laws(n: int, g: int) -> tuple[Weights, Weights]:
    """Q0 and Q1."""
    heads = Counter(map(sum, product((0, 1), repeat=n)))
    row = [heads[k] for k in range(n + 1)]
    return [*row, *[0] * g], [*[0] * g, *row]


def greatest(mass: int, q0: Weights, q1: Weights) -> Fraction:
    """The greatest Q0-mass of a fractional set of this Q1-mass: a knapsack, cheapest cells first."""
    found = Fraction(0)
    cells = [(p, q) for p, q in zip(q0, q1, strict=True) if p]
    for p, q in sorted(cells, key=lambda cell: Fraction(cell[1], cell[0])):
        part = min(mass, q)
        found, mass = found + (Fraction(p * part, q) if q else p), mass - part
    return found


def dual(mass: int, q0: Weights, q1: Weights) -> Fraction:
    """The dual of that linear programme: no fractional set has more."""
    cells = list(zip(q0, q1, strict=True))
    prices = {Fraction(p, q) for p, q in cells if q}
    gains = {price: sum((max(p - price * q, Fraction(0)) for p, q in cells), Fraction(0)) for price in prices}
    return min(mass * price + gain for price, gain in gains.items())


def read(labels: Sequence[int], q0: Weights, q1: Weights) -> Reading:
    """Read labels by the definitions of theory §4b."""
    before, after = Counter[int](), Counter[int]()
    for label, p, q in zip(labels, q0, q1, strict=True):
        before[label] += p
        after[label] += q
    winner = min(after, key=lambda label: (-after[label], label))
    rivals, total = [0, *(after[c] for c in after if c != winner)], sum(q0)
    distance = max(abs(a - b) for a, b in zip(accumulate(q0), accumulate(q1), strict=True))
    places = [place for place, label in enumerate(labels) if label == winner]
    return Reading(
        label=winner,
        margin=after[winner] - max(rivals) - 2 * distance,
        slack=total - greatest(total - after[winner], q0, q1) - max(greatest(m, q0, q1) for m in rivals),
        kept=all(before[c] < before[winner] for c in before if c != winner),
        interval=places[-1] - places[0] + 1 == len(places),
    )


def facts_of(n: int, g: int) -> Iterator[Fact]:
    """What the theorem says of every partition of the lattice into decision regions, and of the program."""
    q0, q1 = laws(n, g)
    for string in restricted_strings(n + g + 1, n + g + 1):
        labels, about = [ord(c) - ord("A") for c in string], f"{string} at n = {n}, g = {g}"
        seen, found = read(labels, q0, q1), path.decide(labels, n, g)
        yield f"{about}: certified and lost", seen.kept or (seen.margin <= 0 and seen.slack <= 0)
        yield f"{about}: published and not certified", seen.slack > 0 or seen.margin <= 0
        said = (found.label, found.published, found.certified, found.kept, found.interval)
        expected = (seen.label, seen.margin > 0, seen.slack > 0, seen.kept, seen.interval)
        yield f"{about}: decided otherwise", said == expected


@check("path.every-string", "§4b: a certified label is the unique argmax at strength 0")
def every_string(budget: Budget) -> Facts:
    """Every decision region on small lattices, by the definitions and by the program."""
    cases, certified = 0, 0
    for n, g in _FULL if budget.full else _FAST:
        yield from facts_of(n, g)
        for string in restricted_strings(n + g + 1, n + g + 1):
            cases, certified = cases + 1, certified + path.decide([*map(ord, string)], n, g).certified
    yield "no string is certified, so nothing was tried", certified > 0
    return CheckFinding("passed", cases, f"{cases:,} label strings, {certified:,} certified, none lost")


@check("path.bounds", "§4b: L and U are attained, and no weaker criterion serves two labels")
def bounds(budget: Budget) -> Facts:
    """Linear programmes, primal and dual, at every mass; half-lines that are not certified are lost."""
    cases = 0
    for n, g in _FULL if budget.full else _FAST:
        (q0, q1), law = laws(n, g), path.PathLaw(n, g)
        for mass in range(law.total + 1):
            most, cases = greatest(mass, q0, q1), cases + 1
            yield f"U({mass}) at n = {n}, g = {g}", law.greatest(mass) == most == dual(mass, q0, q1)
            yield f"L({mass}) at n = {n}, g = {g}", law.least(law.total - mass) == law.total - most
        for size in range(g, n + g + 1):  # of these masses, half-lines are the extreme sets
            found = law.decide([1] * size + [0] * (n + g + 1 - size))
            unlike = found.label == 0 and found.certified != found.kept
            yield f"{size} points of a rival at n = {n}, g = {g}: certified or lost", not unlike
    return CheckFinding("passed", cases, f"{cases:,} masses: primal, dual and program agree")


@check("path.kolmogorov", "§4b: D is the total variation: shifted log-concave laws cross once", needs=("z3",))
def kolmogorov(budget: Budget) -> CheckFinding:
    """No positive log-concave weights on up to 5 points (7 in a full run), shifted, cross twice."""
    proof, clock = Proof(), Clock(budget.seconds)
    for size in range(2, 8 if budget.full else 6):
        for shift in range(1, size + 1):
            for solver in crossings(size, shift, log_concave=True):
                proof.add(solve(solver, clock), str)
    return proof.finding("single crossing of shifted laws")


def crossings(size: int, shift: int, *, log_concave: bool) -> Iterator[Any]:
    """Solvers: weights with Q1 above Q0 at a point, and Q0 above Q1 at a later one."""
    import z3

    weights = [z3.Real(f"w{k}") for k in range(size)]
    q0, q1 = [*weights, *[0] * shift], [*[0] * shift, *weights]
    for early in range(size + shift):
        for late in range(early + 1, size):
            solver = z3.SolverFor("QF_NRA")
            solver.add(*(weight > 0 for weight in weights), q1[early] > q0[early], q0[late] > q1[late])
            if log_concave:
                solver.add(*(weights[k] ** 2 >= weights[k - 1] * weights[k + 1] for k in range(1, size - 1)))
            yield solver


@check("path.counterexamples", "§4b: strictly greater, and only for laws with a monotone ratio")
def counterexamples(_: Budget) -> CheckFinding:
    """A tie at n = 3, g = 1; a law with gaps, whose Kolmogorov distance is below its total variation."""
    tie = read([1, 1, 0, 0, 0], *laws(3, 1))
    row, odd = [3, 1, 3, 1, 3], [1, 0, 1, 0, 1, 0]
    gaps = read(odd, [*row, 0], [0, *row])
    facts = [
        ("n = 3, g = 1: both criteria hold with equality", tie.margin == tie.slack == 0),
        ("with >= A would be certified, and there is a tie", (tie.label, tie.kept) == (0, False)),
        ("weights 3 1 3 1 3 with g = 1: the first criterion holds", gaps.margin > 0),
        ("and the label is lost", gaps.label == 0 and not gaps.kept),
    ]
    return reproduce(facts, "BBAAA at n = 3, g = 1; BABABA under the weights 3 1 3 1 3")


CHECKS: tuple[Check, ...] = (every_string, bounds, kolmogorov, counterexamples)
