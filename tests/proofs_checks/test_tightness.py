"""Tightness: the programmes find exactly V, a wrong V is caught, and what is attained is attained exactly."""

from __future__ import annotations

from fractions import Fraction

import pytest

from proofs_checks.check import Budget, execute
from proofs_checks.theory import tightness
from proofs_checks.theory.finite import restricted_strings, runs, variation
from proofs_checks.theory.tightness import Worst, attained_sum, judge_strings, worst_ratio


@pytest.mark.parametrize("item", tightness.CHECKS, ids=lambda item: item.name)
def test_the_constants_are_tight(item: tightness.Check) -> None:
    found = execute(item, Budget())
    assert found.outcome == "passed", found.detail
    assert found.cases >= 20
    assert found.witness


@pytest.mark.parametrize("labels", ["AB", "ACB", "BAB", "DCAB", "BABAB", "CBABC"])
def test_the_worst_change_is_judged_by_its_samples(labels: str) -> None:
    """Numbers recomputed here from the masses alone."""
    worst = worst_ratio(labels)
    assert worst.change is not None
    (p,), (q,) = worst.change.before, worst.change.after

    def mass(law: tuple[Fraction, ...], label: str) -> Fraction:
        return sum((m for m, own in zip(law, labels, strict=True) if own == label), Fraction(0))

    d = max(abs(sum(p[: i + 1]) - sum(q[: i + 1])) for i in range(len(labels)))
    others = set(labels) - {"A"}
    assert min(mass(p, "A") - mass(p, c) for c in others) == variation(labels) * d > 0
    assert min(mass(q, "A") - mass(q, c) for c in others) <= 0


@pytest.mark.parametrize("wrong", [-1, 1])
def test_a_wrong_constant_is_caught(wrong: int) -> None:
    strings = ["AB", "BAB", "CBABC"]
    assert judge_strings(strings).outcome == "passed"
    for labels in strings:
        assert judge_strings([labels], constant=variation(labels) + wrong).outcome == "failed"


def test_no_string_is_not_a_pass() -> None:
    assert judge_strings([]).outcome == "not run"


def test_a_solution_that_does_not_survive_rounding_is_no_witness(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = worst_ratio("BAB")
    monkeypatch.setattr(tightness, "worst_ratio", lambda labels: Worst(labels, honest.optimum, None, None))
    assert judge_strings(["BAB"]).outcome == "failed"


def test_rounding_never_repairs_a_solution() -> None:
    one, half = Fraction(1), Fraction(1, 2)
    assert tightness._rational("AB", [one, one], [one, half]) == (None, None)
    assert tightness._rational("AB", [one, -one], [half, -half]) == (None, None)
    assert tightness._rational("AB", [one, half], [one, half]) == (None, None)
    assert tightness._rational("AB", [one * 3, one], [one * 3 - half, one + half]) == (None, None)
    change, ratio = tightness._rational("AB", [one * 3, one], [one * 2, one * 2])
    assert change is not None
    assert ratio == 2


@pytest.mark.parametrize("labels", ["AA", "BC", "A"])
def test_a_string_without_a_question_is_refused(labels: str) -> None:
    with pytest.raises(ValueError, match="needs A and a rival"):
        worst_ratio(labels)


def test_the_sum_is_attained_and_the_maximum_is_below_it() -> None:
    change = attained_sum(Fraction(1, 50))
    assert change.slack() == 0
    assert change.lead_after == 0
    assert change.slack(combine="max") > 0
    assert min(change.distances) == max(change.distances) == Fraction(1, 50)


@pytest.mark.slow
def test_every_string_of_six_runs_is_tight() -> None:
    strings = [s for s in restricted_strings(6, 6) if runs(s) == s]
    assert judge_strings(strings).cases == len(strings) > 200
