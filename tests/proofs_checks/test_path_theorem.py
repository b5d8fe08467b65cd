"""The attacks on the path theorem pass, and each of them sees what it is there for."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from certify.stats import path as program
from proofs_checks.check import Budget, execute
from proofs_checks.theory import path
from proofs_checks.theory.symbolic import Clock, solve


@pytest.mark.parametrize("item", path.CHECKS, ids=lambda item: item.name)
def test_the_theorem_stands(item: Any) -> None:
    found = execute(item, Budget())
    assert found.outcome == "passed", found.detail


def test_a_wrong_bound_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    true = program.PathLaw.greatest
    monkeypatch.setattr(program.PathLaw, "greatest", lambda law, mass: true(law, mass) - Fraction(1, 100))
    assert execute(path.bounds, Budget()).outcome == "failed"
    assert execute(path.every_string, Budget()).outcome == "failed"


def test_without_log_concavity_laws_cross_twice() -> None:
    pytest.importorskip("z3", reason="needs the extra proofs")
    answers = {solve(solver, Clock(20)).status for solver in path.crossings(3, 1, log_concave=False)}
    assert "sat" in answers
