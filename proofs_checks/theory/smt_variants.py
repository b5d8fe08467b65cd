"""Criteria that are too weak, refuted by an SMT solver: the other half of :mod:`proofs_checks.theory.smt`.

Each must be satisfiable, that is, laws must exist that meet it and after which A has lost its lead. The model
is turned into rational laws and judged again by :mod:`proofs_checks.theory.finite`, which knows nothing of
the solver.
"""

from __future__ import annotations

from dataclasses import dataclass

from proofs_checks.check import Budget, Check, CheckFinding, check
from proofs_checks.theory.exact import ROW_LAW
from proofs_checks.theory.finite import Change, Combine, expectation, in_words, law, rivals, score
from proofs_checks.theory.symbolic import (
    Clock,
    SolverStatus,
    SymbolicLaws,
    expected,
    fraction_of,
    solve,
)


@dataclass(frozen=True, slots=True)
class WeakCriterion:
    """A criterion that is too weak: ``r > multiplier * combine(D_j)`` on a grid with these labels.

    ``shape`` has the atoms per coordinate. With ``strict`` False it is ``>=``; then a tie refutes it,
    otherwise only a strict loss does.
    """

    labels: str
    shape: tuple[int, ...]
    multiplier: int
    combine: Combine = "sum"
    strict: bool = True


def find(variant: WeakCriterion, clock: Clock) -> tuple[SolverStatus, Change | None]:
    """Ask for laws that meet the criterion of ``variant`` and after which A no longer leads.

    The change, built from the model with its distances computed anew, is not yet judged.
    """
    import z3

    laws = SymbolicLaws(variant.shape)
    bounds = [variant.multiplier * d for d in laws.distances]
    if variant.combine == "sum":
        bounds = [z3.Sum(bounds)]
    before, after = (
        [expected(score(variant.labels, c), variant.shape, cdfs) for c in rivals(variant.labels)]
        for cdfs in (laws.before, laws.after)
    )
    solver = z3.Solver() if len(variant.shape) == 1 else z3.SolverFor("QF_NRA")
    solver.add(laws.constraints)
    if variant.strict:
        solver.add([lead > bound for lead in before for bound in bounds])
        solver.add(z3.Or([lead < 0 for lead in after]))
    else:
        solver.add([lead >= bound for lead in before for bound in bounds])
        # Without a lead to begin with, >= would be met by doing nothing.
        solver.add([lead > 0 for lead in before])
        solver.add(z3.Or([lead <= 0 for lead in after]))
    answer = solve(solver, clock)
    if answer.status != "sat":
        return answer.status, None
    return "sat", Change(variant.labels, *laws.rational(answer.model))


def refutes(change: Change, variant: WeakCriterion) -> bool:
    """Whether the exact change meets the criterion of ``variant`` and takes A's lead away."""
    slack = change.slack(combine=variant.combine, multiplier=variant.multiplier)
    if variant.strict:
        return slack > 0 and change.lead_after < 0
    return slack >= 0 and change.lead_before > 0 and change.lead_after <= 0


def finding(status: SolverStatus, words: str | None, *, survives: bool) -> CheckFinding:
    """Passed if the solver found a model, which is told in words, and exact arithmetic confirms it."""
    if status == "timeout":
        return CheckFinding("timeout", 1, "undecided: the solver ran out of time")
    if status == "unsat":
        return CheckFinding("failed", 1, "unsatisfiable: the wrong variant went unpunished")
    if not survives:
        return CheckFinding("failed", 1, "the solver's model does not survive exact arithmetic", words)
    return CheckFinding("passed", 1, "satisfiable, model verified in exact arithmetic", words)


def refute(variant: WeakCriterion, clock: Clock) -> CheckFinding:
    """Passed if laws exist that meet the criterion of ``variant`` and take A's lead away."""
    status, change = find(variant, clock)
    return finding(status, str(change), survives=change is not None and refutes(change, variant))


def _wrong(name: str, clause: str, variant: WeakCriterion) -> Check:
    def run(budget: Budget) -> CheckFinding:
        return refute(variant, Clock(budget.seconds))

    return check(f"smt.wrong.{name}", clause, ROW_LAW, needs=("z3",))(run)


WRONG: dict[str, tuple[str, WeakCriterion]] = {
    "d-for-2d": ("§4 table, row 1: D is not enough for half-lines", WeakCriterion("AB", (2,), 1)),
    "2d-interval": (
        "§4, C4: 2D is not enough for an interval between pieces of B",
        WeakCriterion("BAB", (3,), 2),
    ),
    "2d-three-classes": ("§4, C8: 2D is not enough for A C B", WeakCriterion("ACB", (3,), 2)),
    "3d-intervals": ("§4 table, row 3: 3D is not enough for intervals", WeakCriterion("CABD", (4,), 3)),
    "4d-nested": ("§4 table, row 5: 4D is not enough for C B A B C", WeakCriterion("CBABC", (5,), 4)),
    "not-strict": ("§4, C6: with >= there is a tie", WeakCriterion("AB", (2,), 2, strict=False)),
    "maximum": ("§4, C5: the maximum over coordinates is wrong", WeakCriterion("ABBB", (2, 2), 2, "max")),
    "maximum-three": (
        "§4, C5: and more so over three coordinates",
        WeakCriterion("ABBBBBBB", (2, 2, 2), 2, "max"),
    ),
}
"""Wrong variants of the criterion: name, clause that calls it wrong, and the criterion."""


@check("smt.wrong.dependent", "§4 theorem: independence is essential", needs=("z3",))
def dependent(budget: Budget) -> CheckFinding:
    """Equal marginals, D = 0 in each coordinate, and yet E s changes, if the coordinates depend."""
    import z3

    values = (1, -1, -1, -1)
    before, after = ([z3.Real(f"{name}{i}") for i in range(4)] for name in "pq")
    solver = z3.Solver()
    for cells in (before, after):
        solver.add(z3.Sum(cells) == 1, *(mass >= 0 for mass in cells))
    solver.add(before[0] + before[1] == after[0] + after[1], before[0] + before[2] == after[0] + after[2])
    solver.add(z3.Sum([v * (p - q) for v, p, q in zip(values, before, after, strict=True)]) > 0)
    answer = solve(solver, Clock(budget.seconds))
    if answer.status != "sat":
        return finding(answer.status, None, survives=False)
    p, q = (law([fraction_of(answer.model, mass) for mass in cells]) for cells in (before, after))
    words = f"cells of values {values}: masses {in_words((p,))} to {in_words((q,))}"
    # The mass of the first row and of the first column: the marginals.
    same = p[0] + p[1] == q[0] + q[1] and p[0] + p[2] == q[0] + q[2]
    return finding("sat", words, survives=same and expectation(values, p) > expectation(values, q))


CHECKS: tuple[Check, ...] = (
    *(_wrong(name, clause, variant) for name, (clause, variant) in WRONG.items()),
    dependent,
)
