"""The theorem of theory §4 put to an SMT solver: laws with *symbolic* masses instead of enumerated ones.

Each true clause is negated, and the negation must be unsatisfiable: no pair of laws on that many atoms breaks
the clause, whatever their masses. A query that the solver does not decide is a ``timeout``, and so is the
check; it is never a pass.

Scores ``s_c`` are +1 on A, -1 on the rival c and 0 on every other class: strings over -1, 0, 1 stand for
every label string, with any number of classes. How laws become symbols is told in
:mod:`proofs_checks.theory.symbolic`; the wrong variants are in :mod:`proofs_checks.theory.smt_variants`.

Needs the extra ``proofs`` (z3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import pairwise, permutations, product
from typing import Any

from proofs_checks.check import Budget, Check, CheckFinding, check
from proofs_checks.theory import smt_variants
from proofs_checks.theory.exact import ROW_LAW
from proofs_checks.theory.finite import in_words, total_variation, variations
from proofs_checks.theory.symbolic import (
    Clock,
    SolverAnswer,
    SymbolicLaws,
    Values,
    expected,
    fraction_of,
    solve,
    step_loss,
    telescopes,
)

# --- True clauses: the negation must be unsatisfiable -------------------------------------------------------


@dataclass(slots=True)
class Proof:
    """Queries of one clause so far: how many, how many undecided, and the first that broke it."""

    cases: int = 0
    undecided: int = 0
    broken: str | None = None

    def add(self, answer: SolverAnswer, witness: Callable[[Any], str]) -> None:
        """Count one query; ``witness`` words a model that should not exist."""
        self.cases += 1
        self.undecided += answer.status == "timeout"
        if answer.status == "sat" and self.broken is None:
            self.broken = witness(answer.model)

    def finding(self, what: str) -> CheckFinding:
        """Passed only if there were queries, every one was decided, and none was satisfiable."""
        text = f"{what}: {self.cases:,} queries"
        if self.broken is not None:
            return CheckFinding("failed", self.cases, f"{text}; the clause is violated", self.broken)
        if self.undecided:
            return CheckFinding("timeout", self.cases, f"{text}, {self.undecided:,} of them undecided")
        if not self.cases:
            return CheckFinding("failed", 0, f"{text}: nothing was tried")
        return CheckFinding("passed", self.cases, f"{text}, all negations unsatisfiable")


Query = tuple[Sequence[Any], list[Any]]
"""Values of s on the cells, and the negation of the clause for them."""


def proof_of(queries: Iterable[Query], laws: SymbolicLaws, clock: Clock) -> Proof:
    """Ask for laws that break the clause, until it is broken or the time is up."""
    import z3

    proof = Proof()
    solver = z3.Solver() if len(laws.shape) == 1 else z3.SolverFor("QF_NRA")
    solver.add(laws.constraints)
    for values, negation in queries:
        solver.push()
        solver.add(negation)
        proof.add(solve(solver, clock), partial(_in_words, laws, values))
        solver.pop()
        if proof.broken is not None or (proof.undecided and clock.limit() <= 0):
            break
    return proof


def prove_lines(strings: Sequence[Values], clock: Clock, *, lower_by: int = 0) -> Proof:
    """One coordinate, fixed scores: ``E s - E' s <= V D``, and ``E s > V D`` keeps ``E' s > 0``.

    The strings have one length. ``lower_by`` is subtracted from V; with 1 the clause is false, which a test
    of this function wants to see.
    """
    laws = SymbolicLaws((len(strings[0]) if strings else 2,))

    def queries() -> Iterator[Query]:
        for values in strings:
            bound = (total_variation(values) - lower_by) * laws.distances[0]
            before, after = (expected(values, laws.shape, cdfs) for cdfs in (laws.before, laws.after))
            yield values, [before - after > bound]
            yield values, [before > bound, after <= 0]

    return proof_of(queries(), laws, clock)


def prove_any_scores(atoms: int, clock: Clock, *, lower_by: Fraction = Fraction(0)) -> Proof:
    """One coordinate, symbolic real scores too: ``E s - E' s <= V D`` with V the variation of the scores.

    One query per pattern of rises and falls, which makes V a linear expression. V is multiplied by
    ``1 - lower_by``.
    """
    import z3

    laws = SymbolicLaws((atoms,))
    scores = [z3.Real(f"s{i}") for i in range(atoms)]
    loss = expected(scores, laws.shape, laws.before) - expected(scores, laws.shape, laws.after)
    factor = 1 - lower_by

    def queries() -> Iterator[Query]:
        for signs in product((1, -1), repeat=atoms - 1):
            rises = [sign * (b - a) for sign, (a, b) in zip(signs, pairwise(scores), strict=True)]
            bound = factor.numerator * z3.Sum(rises) * laws.distances[0]
            yield scores, [*(rise >= 0 for rise in rises), factor.denominator * loss > bound]

    return proof_of(queries(), laws, clock)


def prove_grids(tables: Iterable[Values], shape: Sequence[int], clock: Clock, *, lower_by: int = 0) -> Proof:
    """Independent coordinates: ``E s(X) - E s(Y) <= sum of V_j D_j``.

    The losses of the single steps add up to the whole (verified as polynomials), and a sum exceeds a sum only
    if one of its terms exceeds its counterpart: so the negation splits into one query per coordinate, each
    with symbolic laws of all the others. ``lower_by`` is subtracted from every V_j.
    """
    laws = SymbolicLaws(shape)
    torn = None

    def queries() -> Iterator[Query]:
        nonlocal torn
        for values in tables:
            if not telescopes(values, laws):
                torn = f"the steps do not sum to the whole for {values}"
                return
            for axis, factor in enumerate(variations(values, shape)):
                yield values, [step_loss(values, laws, axis) > (factor - lower_by) * laws.distances[axis]]

    proof = proof_of(queries(), laws, clock)
    proof.broken = proof.broken or torn
    return proof


def prove_whole(tables: Iterable[Values], shape: Sequence[int], clock: Clock) -> Proof:
    """The sum bound in one query per table, without the split of :func:`prove_grids`; for small grids."""
    laws = SymbolicLaws(shape)

    def queries() -> Iterator[Query]:
        for values in tables:
            bound = sum(v * d for v, d in zip(variations(values, shape), laws.distances, strict=True))
            yield values, [expected(values, shape, laws.before) - expected(values, shape, laws.after) > bound]

    return proof_of(queries(), laws, clock)


def representatives(shape: Sequence[int], alphabet: Sequence[int] = (-1, 0, 1)) -> list[Values]:
    """All tables that are not constant, one of each kind.

    Reversing a coordinate, exchanging two coordinates of equal size, or changing the sign of s (which
    exchanges the laws before and after) gives the same case of the inequality.
    """
    cells = list(product(*(range(size) for size in shape)))
    number = {cell: i for i, cell in enumerate(cells)}
    moves = [
        [
            number[
                tuple(
                    shape[j] - 1 - cell[j] if back else cell[j] for j, back in zip(order, turns, strict=True)
                )
            ]
            for cell in cells
        ]
        for order in permutations(range(len(shape)))
        if [shape[j] for j in order] == list(shape)
        for turns in product((False, True), repeat=len(shape))
    ]
    return [
        table
        for table in product(sorted(alphabet), repeat=len(cells))
        if len(set(table)) > 1
        and all(table <= tuple(sign * table[i] for i in move) for move in moves for sign in (1, -1))
    ]


def _in_words(laws: SymbolicLaws, values: Sequence[Any], model: Any) -> str:
    before, after = laws.rational(model)
    numbers = ", ".join(str(v if isinstance(v, int) else fraction_of(model, v)) for v in values)
    return f"values ({numbers}): {in_words(before)} to {in_words(after)}"


# --- The checks ---------------------------------------------------------------------------------------------

_PRODUCT = (*ROW_LAW, "independence")
_Z3 = ("z3",)


@check("smt.one-coordinate", "§4 theorem and corollary, m = 1, labels", ROW_LAW, needs=_Z3)
def one_coordinate(budget: Budget) -> CheckFinding:
    """Every score string on up to 6 atoms (7 in a full run), symbolic masses."""
    atoms = 7 if budget.full else 6
    proof = prove_lines(list(product((-1, 0, 1), repeat=atoms)), Clock(budget.seconds))
    return proof.finding(f"every string of -1, 0, 1 on {atoms} atoms")


@check("smt.any-scores", "§4 theorem, m = 1, real scores such as p_A - p_c", ROW_LAW, needs=_Z3)
def any_scores(budget: Budget) -> CheckFinding:
    """Scores as symbolic as the masses, on up to 4 atoms (6 in a full run)."""
    atoms = 6 if budget.full else 4
    return prove_any_scores(atoms, Clock(budget.seconds)).finding(f"symbolic scores on {atoms} atoms")


@check("smt.two-coordinates", "§4 theorem, m = 2: deviations add", _PRODUCT, needs=_Z3)
def two_coordinates(budget: Budget) -> CheckFinding:
    """Every table on 2x2 (in one piece, and split) and 2x3 atoms, up to symmetry; more in a full run."""
    clock = Clock(budget.seconds)
    proofs = [
        prove_whole(representatives((2, 2)), (2, 2), clock),
        prove_grids(representatives((2, 2)), (2, 2), clock),
        prove_grids(representatives((2, 3)), (2, 3), clock),
    ]
    what = "every table on 2x2 and 2x3 atoms, up to symmetry"
    if budget.full:
        proofs.append(prove_grids(representatives((3, 3), (-1, 1)), (3, 3), clock))
        what += ", 3x3 with two classes"
    broken = next((proof.broken for proof in proofs if proof.broken is not None), None)
    cases, undecided = (sum(getattr(one, name) for one in proofs) for name in ("cases", "undecided"))
    return Proof(cases, undecided, broken).finding(what)


@check("smt.three-coordinates", "§4 theorem, m = 3: deviations add", _PRODUCT, needs=_Z3)
def three_coordinates(budget: Budget) -> CheckFinding:
    """Every table of two classes on 2x2x2 atoms, up to symmetry; of more classes in a full run."""
    tables = representatives((2, 2, 2), (-1, 1))
    what = "every table of two classes on 2x2x2 atoms, up to symmetry"
    if budget.full:
        tables, what = representatives((2, 2, 2)), "every table on 2x2x2 atoms, up to symmetry"
    return prove_grids(tables, (2, 2, 2), Clock(budget.seconds)).finding(what)


CHECKS: tuple[Check, ...] = (
    *(one_coordinate, any_scores, two_coordinates, three_coordinates),
    *smt_variants.CHECKS,
)
