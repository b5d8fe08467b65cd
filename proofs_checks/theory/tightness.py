"""Is each constant of theory §4 the smallest that works? Linear programmes, re-verified exactly.

For a label string, the *worst ratio* is the largest t for which there are laws P and Q at distance D such
that A leads by t D against **every** rival under P and has lost its lead under Q. In units of D this is a
linear programme: masses p, q >= 0 with equal but free totals, CDFs within 1 of each other, one inequality per
rival. The theorem says t <= V; the constant is tight if t = V. The optimum of the solver is floating point,
so its basic solution is rounded to rationals and judged by the definitions of
:mod:`proofs_checks.theory.finite`. That no t above V is possible is the theorem itself, enumerated by
:mod:`proofs_checks.theory.exact`.

Needs scipy (loaded on use).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from proofs_checks.check import Budget, Check, CheckFinding, Facts, check, decided
from proofs_checks.theory.exact import strings_of
from proofs_checks.theory.finite import CERTIFIED, Change, law, rivals, runs, score, variation

# Vertices of these programmes are quotients of small determinants of 0, +1, -1: far below this.
_DENOMINATOR = 10_000


@dataclass(frozen=True, slots=True)
class Worst:
    """Solution of the programme of one label string.

    ``optimum`` is the largest ratio according to the solver (floating point), ``ratio`` the one that the
    exact ``change`` attains; None if rounding gave none.
    """

    labels: str
    optimum: float
    ratio: Fraction | None
    change: Change | None


def worst_ratio(labels: str) -> Worst:
    """Maximise the lead, in units of D, that a change of size D can take away from ``A``.

    One programme per rival that could catch up; the largest optimum is returned.

    Raises:
        ValueError: ``A`` or a rival is missing from ``labels``.
        RuntimeError: the solver found no optimum.
    """
    if CERTIFIED not in labels or not rivals(labels):
        raise ValueError("the programme needs A and a rival")
    return max((_solve(labels, rival) for rival in rivals(labels)), key=lambda worst: worst.optimum)


def _solve(labels: str, winner: str) -> Worst:
    from scipy.optimize import linprog

    m, others = len(labels), rivals(labels)
    # Unknowns: p_1..p_m, q_1..q_m, t. Rows: coefficients @ unknowns <= bound.
    sums = [[int(i < end) for i in range(m)] for end in range(1, m)]
    rows = [[*(sign * x for x in one), *(-sign * x for x in one), 0] for one in sums for sign in (1, -1)]
    rows += [[*(-x for x in score(labels, rival)), *[0] * m, 1] for rival in others]
    rows.append([*[0] * m, *score(labels, winner), 0])
    solution = linprog(
        [0] * (2 * m) + [-1],
        A_ub=rows,
        b_ub=[1] * (2 * m - 2) + [0] * (len(others) + 1),
        A_eq=[[1] * m + [-1] * m + [0]],
        b_eq=[0],
        bounds=[(0, None)] * (2 * m) + [(None, None)],
        method="highs-ds",
    )
    if solution.x is None:
        raise RuntimeError(f"no optimum for {labels}: {solution.message}")
    masses = [Fraction(float(x)).limit_denominator(_DENOMINATOR) for x in solution.x[: 2 * m]]
    change, ratio = _rational(labels, masses[:m], masses[m:])
    return Worst(labels, float(solution.x[-1]), ratio, change)


def _rational(
    labels: str, before: list[Fraction], after: list[Fraction]
) -> tuple[Change | None, Fraction | None]:
    """The exact change with these masses and the ratio it attains, if it takes A's lead away."""
    if sum(before) != sum(after) or min(*before, *after) < 0 or not sum(before):
        return None, None
    change = Change(labels, (law(before),), (law(after),))
    if change.distances[0] == 0 or change.lead_after > 0:
        return None, None
    return change, change.lead_before / change.distances[0]


@check("tightness.constants", "§4: V D is the smallest sufficient margin", ("A-ORDER",), needs=("scipy",))
def constants(budget: Budget) -> CheckFinding:
    """Every label string without equal neighbours: the worst ratio is V, attained by rational laws."""
    strings = [s for s in strings_of(range(2, 8 if budget.full else 6)) if runs(s) == s]
    strings += [word for word in ("CBABC", "BABABAB", "DCABE") if word not in strings]
    return judge_strings(strings)


@decided
def judge_strings(strings: Sequence[str], *, constant: int | None = None) -> Facts:
    """Passed if the worst ratio of every string is V (or ``constant``), and an exact change attains it."""
    found = []
    for labels in strings:
        worst = worst_ratio(labels)
        expected = variation(labels) if constant is None else constant
        above = worst.optimum > expected + 1e-6 or (worst.ratio is not None and worst.ratio > expected)
        yield (
            f"{labels}: a lead of {worst.optimum:g} D is lost, above {expected} D: {worst.change}",
            not above,
        )
        attained = worst.ratio == expected
        yield f"{labels}: {worst.optimum:g} D found, {expected} D not attained exactly", attained
        found.append((worst.ratio or 0, f"V = {worst.ratio} attained: {worst.change}"))
    if not found:
        return CheckFinding("not run", 0, "no label string was given")
    detail = f"worst ratio of {len(strings):,} label strings is exactly V, re-verified in Fractions"
    largest = max(found, key=lambda one: one[0])[1]
    return CheckFinding("passed", len(strings), detail, largest)


def attained_sum(deviation: Fraction) -> Change:
    """Two coordinates that meet the additive criterion with equality and end in a tie (theory §4, C5).

    A is "both positive", B "both negative"; of the mixed cells each is a class of its own, so that none of
    them matters. s_B = (sign x_1 + sign x_2) / 2 has variation 1 along each coordinate; the deviation of each
    is at most 1/40.
    """
    # Cells on two signs each: A, B, or one of C to J.
    labels = "BBCDBBEFGHAAIJAA"
    high, low = Fraction(1, 4) + deviation / 2, Fraction(1, 4) - deviation / 2
    before = (low, low, high, high)
    even = (Fraction(1, 4),) * 4
    return Change(labels, (before, before), (even, even))


@check("tightness.sum", "§4: the sum of V_j D_j is the smallest sufficient margin", ("independence",))
def additive(budget: Budget) -> Facts:
    """Two changed rows: equality in the sum ends in a tie, so no smaller combination of D_1, D_2 suffices."""
    sizes = range(40, 200 if budget.full else 100)
    for size in sizes:
        change = attained_sum(Fraction(1, size))
        tie = change.slack() == 0 and change.lead_before > 0 == change.lead_after
        yield f"not attained for D = 1/{size}: {change}", tie
    detail = "E s_B = V_1 D_1 + V_2 D_2 exactly, and A and B end equal"
    return CheckFinding("passed", len(sizes), detail, str(attained_sum(Fraction(1, sizes[0]))))


CHECKS: tuple[Check, ...] = (constants, additive)
