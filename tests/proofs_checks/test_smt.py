"""The solver's checks: false clauses are caught, open queries are no passes, models are judged exactly."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise, product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proofs_checks import check as records
from proofs_checks.check import Budget
from proofs_checks.theory import smt, smt_variants, symbolic
from proofs_checks.theory.finite import Change, expectation, joint, law
from proofs_checks.theory.smt_variants import WRONG, WeakCriterion, find, refute, refutes
from proofs_checks.theory.symbolic import Clock, SymbolicLaws, expected, solve

z3 = pytest.importorskip("z3", reason="needs the extra proofs")


def clock() -> Clock:
    return Clock(60.0)


@pytest.mark.parametrize("item", smt.CHECKS, ids=lambda item: item.name)
def test_every_check_passes(item: records.Check) -> None:
    result = item.run(Budget())
    assert result.passed, result
    assert result.cases >= 1
    assert bool(result.witness) == item.name.startswith("smt.wrong.")


def test_names_are_unique_and_wrong_variants_are_all_registered() -> None:
    names = [item.name for item in smt.CHECKS]
    assert len(set(names)) == len(names)
    assert {f"smt.wrong.{name}" for name in WRONG} < set(names)
    assert all(item.needs == ("z3",) for item in smt.CHECKS)


# --- planted faults: a false clause is reported, with a witness ---------------------------------------------


@pytest.mark.parametrize("values", [(1, -1), (1, -1, 1), (0, -1, 1, -1, 0), (-1, 0, 1)])
def test_lowered_constant_on_a_line_is_caught(values: tuple[int, ...]) -> None:
    assert smt.prove_lines([values], clock()).finding("line").outcome == "passed"
    finding = smt.prove_lines([values], clock(), lower_by=1).finding("line")
    assert finding.outcome == "failed"
    assert str(values) in str(finding.witness)


@pytest.mark.parametrize(("values", "shape"), [((1, -1, -1, -1), (2, 2)), ((1, 0, 0, 0, 0, -1), (2, 3))])
def test_lowered_constant_on_a_grid_is_caught(values: tuple[int, ...], shape: tuple[int, int]) -> None:
    assert smt.prove_grids([values], shape, clock()).finding("grid").outcome == "passed"
    assert smt.prove_grids([values], shape, clock(), lower_by=1).finding("grid").outcome == "failed"


def test_lowered_constant_of_symbolic_scores_is_caught() -> None:
    finding = smt.prove_any_scores(3, clock(), lower_by=Fraction(1, 100)).finding("scores")
    assert finding.outcome == "failed"
    assert "values (" in str(finding.witness)


def test_whole_and_split_query_agree() -> None:
    tables = smt.representatives((2, 2))
    assert smt.prove_whole(tables, (2, 2), clock()).finding("whole").outcome == "passed"
    assert smt.prove_grids(tables, (2, 2), clock()).finding("split").outcome == "passed"


def test_a_loss_that_is_not_the_sum_of_its_steps_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_mixing(values: symbolic.Values, laws: SymbolicLaws, axis: int) -> Any:
        # Every step with the laws *before*: the classical slip in a telescoping argument.
        kept = SymbolicLaws(laws.shape)
        kept.after = kept.before
        return _step(values, kept, axis)

    _step = symbolic.step_loss
    monkeypatch.setattr(symbolic, "step_loss", without_mixing)
    finding = smt.prove_grids([(1, -1, -1, -1)], (2, 2), clock()).finding("grid")
    assert finding.outcome == "failed"
    assert "do not sum" in str(finding.witness)


def test_no_queries_are_no_pass() -> None:
    assert smt.prove_lines([], clock()).finding("nothing").outcome == "failed"


# --- a query that is not decided is never a pass ------------------------------------------------------------


def hard() -> Any:
    """x^3 + y^3 + z^3 = 114 in integers: no solver settles that in a moment."""
    x, y, z = z3.Ints("x y z")
    solver = z3.Solver()
    solver.add(x * x * x + y * y * y + z * z * z == 114)
    return solver


def test_solver_timeout_is_a_timeout() -> None:
    answer = solve(hard(), Clock(60.0, query_seconds=0.05))
    assert answer.status == "timeout"
    assert answer.model is None
    proof = smt.Proof()
    proof.add(answer, lambda _: pytest.fail("there is no model to show"))
    assert proof.finding("hard").outcome == "timeout"


def test_one_timeout_among_decided_queries_is_a_timeout() -> None:
    proof = smt.prove_lines([(1, -1)], clock())
    proof.add(symbolic.SolverAnswer("timeout"), str)
    assert proof.finding("mixed").outcome == "timeout"


def test_a_violation_outweighs_a_timeout() -> None:
    proof = smt.prove_lines([(1, -1)], clock(), lower_by=1)
    proof.add(symbolic.SolverAnswer("timeout"), str)
    assert proof.finding("mixed").outcome == "failed"


@pytest.mark.parametrize("item", smt.CHECKS, ids=lambda item: item.name)
def test_no_check_passes_without_time(item: records.Check) -> None:
    assert item.run(Budget(seconds=1e-9)).outcome == "timeout"


@pytest.mark.parametrize("item", smt.CHECKS, ids=lambda item: item.name)
def test_no_check_passes_without_the_solver(item: records.Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "missing", lambda modules: modules)
    result = item.run(Budget())
    assert result.outcome == "not run"
    assert "z3" in result.detail


# --- wrong variants -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "variant",
    [
        WeakCriterion("AB", (2,), 2),
        WeakCriterion("ACB", (3,), 3),
        WeakCriterion("BAB", (3,), 4),
        WeakCriterion("CABD", (4,), 4),
        WeakCriterion("CBABC", (5,), 6),
        WeakCriterion("ABBB", (2, 2), 2),
    ],
)
def test_the_true_criterion_cannot_be_refuted(variant: WeakCriterion) -> None:
    status, change = find(variant, clock())
    assert (status, change) == ("unsat", None)
    finding = refute(variant, clock())
    assert finding.outcome == "failed"
    assert "unpunished" in finding.detail


def test_a_model_that_does_not_hold_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    still = Change("AB", (law((3, 1)),), (law((3, 1)),))
    monkeypatch.setattr(smt_variants, "find", lambda *_: ("sat", still))
    finding = refute(WeakCriterion("AB", (2,), 1), clock())
    assert finding.outcome == "failed"
    assert "exact arithmetic" in finding.detail


def test_pinned_counterexamples_refute_their_variants() -> None:
    c4 = Change("BAB", (law((1, 6, 1)),), (law((2, 4, 2)),))
    assert c4.distances == (Fraction(1, 8),)
    assert refutes(c4, WeakCriterion("BAB", (3,), 2, strict=False))
    assert refutes(c4, WeakCriterion("BAB", (3,), 4, strict=False))  # r = 4D exactly: a tie
    assert not refutes(c4, WeakCriterion("BAB", (3,), 4))
    c8 = Change("ACB", (law((7, 2, 2)),), (law((5, 6, 0)),))
    assert refutes(c8, WeakCriterion("ACB", (3,), 2))
    assert not refutes(c8, WeakCriterion("ACB", (3,), 3))
    c5 = Change("ABBB", (law((1, 0)),) * 2, (law((2, 1)),) * 2)
    assert refutes(c5, WeakCriterion("ABBB", (2, 2), 2, "max"))
    assert not refutes(c5, WeakCriterion("ABBB", (2, 2), 2, "sum"))


def test_algebraic_models_become_exact_laws() -> None:
    laws = SymbolicLaws((2,))
    solver = z3.Solver()
    f, g = laws.before[0][0], laws.shift[0][0]
    solver.add(*laws.constraints, 2 * f * f == 1, g == -f)
    answer = solve(solver, clock())
    assert answer.status == "sat"
    before, after = laws.rational(answer.model)
    assert sum(before[0]) == 1
    assert abs(before[0][0] ** 2 - Fraction(1, 2)) < Fraction(1, 10**9)
    assert after == ((0, 1),)


# --- the polynomials and the list of tables, against plain sums ---------------------------------------------

MASSES = st.lists(st.integers(0, 5), min_size=2, max_size=3).filter(any).map(law)


@given(st.lists(MASSES, min_size=1, max_size=3), st.data())
def test_expectation_is_the_sum_over_cells(laws: list[tuple[Fraction, ...]], data: st.DataObject) -> None:
    shape = [len(masses) for masses in laws]
    cells = joint(laws)
    values = data.draw(st.lists(st.integers(-2, 2), min_size=len(cells), max_size=len(cells)))
    cdfs = [[sum(masses[: i + 1]) for i in range(len(masses) - 1)] for masses in laws]
    assert expected(values, shape, cdfs) == expectation(values, cells)


@pytest.mark.parametrize(("shape", "cells"), [((2, 2), 4), ((2, 3), 6), ((5,), 5)])
def test_every_table_has_its_representative(shape: tuple[int, ...], cells: int) -> None:
    def spread(table: tuple[int, ...]) -> object:
        """What no symmetry changes: the rows' and columns' variations, as multisets, per coordinate."""
        if len(shape) == 1:
            return sorted(abs(a - b) for a, b in pairwise(table))
        rows, columns = shape
        across = sorted(
            tuple(sorted(abs(table[i * columns + j] - table[i * columns + j + 1]) for i in range(rows)))
            for j in range(columns - 1)
        )
        down = sorted(
            tuple(sorted(abs(table[i * columns + j] - table[(i + 1) * columns + j]) for j in range(columns)))
            for i in range(rows - 1)
        )
        return sorted([across, down]) if rows == columns else (across, down)

    chosen = smt.representatives(shape)
    everything = [t for t in product((-1, 0, 1), repeat=cells) if len(set(t)) > 1]
    assert len(chosen) < len(everything) / 2
    assert {str(spread(t)) for t in chosen} == {str(spread(t)) for t in everything}
