"""Historic bugs: every one is noticed; and the machine that plants them fails in every way it should."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import pytest

from certify.claims import criteria
from certify.evidence import distances
from certify.gate import choose, watch
from certify.scan import smirnov
from certify.stats import budget, theorem
from proofs_checks.check import Budget, Fact
from proofs_checks.mutations import bug as machine
from proofs_checks.mutations import mutations
from proofs_checks.mutations.bug import Bug, Judged, Stale, fate, hunt, look, planted
from proofs_checks.mutations.law import textbook
from proofs_checks.mutations.mutations import SUBJECTS

EVERY = [(subject, one) for subject in SUBJECTS for one in subject.bugs]


def loosely(original: Any, r: Any, h: Any, d: int) -> Any:
    """Equality is a tie."""
    return original(r + Fraction(1, 1000), h, d)


loose = Bug("certify.stats.theorem:measured_max", loosely)


def judge() -> Iterator[Fact]:
    yield "a margin of 1/4 against 2/8", not theorem.measured_max(Fraction(1, 4), [1], 8)


def subject(one: Bug = loose, *judges: machine.Judge) -> Judged:
    return Judged("planted", "it", judges or (judge,), (one,))


def needs(one: Judged) -> None:
    for extra in one.needs:
        pytest.importorskip(extra)


@pytest.mark.parametrize("one", SUBJECTS, ids=lambda one: one.name)
def test_the_judges_accept_the_program(one: Judged) -> None:
    needs(one)
    assert look(one.judges) == (None, False)


@pytest.mark.parametrize(("one", "which"), EVERY, ids=lambda one: one.name)
def test_every_bug_is_noticed(one: Judged, which: Bug) -> None:
    needs(one)
    noticed, text = fate(which, one.judges)
    assert noticed, text


def test_there_are_enough_of_them_and_each_teaches_something() -> None:
    assert len(EVERY) >= 80
    names = [(one.name, which.name) for one, which in EVERY]
    assert len(set(names)) == len(names)
    assert len({which.lesson for _, which in EVERY}) == len(EVERY)
    assert all(re.fullmatch(r".{10,}: .{10,}\.", which.lesson) for _, which in EVERY)


def test_every_room_that_decides_has_bugs() -> None:
    rooms = {".".join(which.target.partition(":")[0].split(".")[:2]) for _, which in EVERY}
    decide = ("base", "scan", "selection", "ticket", "stats", "evidence", "claims", "certificate", "policy")
    assert {f"certify.{room}" for room in (*decide, "gate", "checker", "tables")} <= rooms


# --- the machine -------------------------------------------------------------------------------------------


def state() -> dict[str, Any]:
    """Everything in which a bug could be left behind."""
    held = (theorem, criteria, distances, budget, choose, watch, smirnov, watch.Look, distances.Distances)
    return {f"{one.__name__}.{name}": value for one in held for name, value in vars(one).items()}


@pytest.mark.parametrize(
    ("target", "holders"),
    [
        ("certify.stats.theorem:measured_max", [(theorem, "measured_max")]),
        ("certify.stats.budget:fixed_sequence", [(budget, "fixed_sequence"), (choose, "fixed_sequence")]),
        ("certify.gate.watch:Look.decided", [(watch.Look, "decided")]),
        (
            "certify.evidence.distances:violation",
            [(distances, "violation"), (criteria, "violation")],
        ),
    ],
)
def test_every_holder_gets_the_bug_and_nothing_stays(target: str, holders: list[tuple[Any, str]]) -> None:
    before = state()
    one = Bug(target, lambda original, *rest, **more: original(*rest, **more))
    with planted(one):
        for holder, name in holders:
            assert vars(holder)[name] is not before[f"{holder.__name__}.{name}"]
        assert len({id(vars(holder)[name]) for holder, name in holders}) == 1
    assert state() == before


def test_a_bug_goes_away_when_a_judge_breaks_off() -> None:
    before = state()
    with pytest.raises(ZeroDivisionError), planted(loose):
        raise ZeroDivisionError(theorem.measured_max(Fraction(1, 4), [1], 8))
    assert state() == before
    assert not theorem.measured_max(Fraction(1, 4), [1], 8)


def test_judges_and_oracles_keep_the_original(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "ours", theorem.measured_max, raising=False)
    with planted(loose):
        assert machine.ours is not theorem.measured_max  # type: ignore[attr-defined]


def test_what_was_imported_meanwhile_is_put_right(monkeypatch: pytest.MonkeyPatch) -> None:
    original = theorem.measured_max
    with planted(loose):
        monkeypatch.setattr(machine, "ours", theorem.measured_max, raising=False)
        monkeypatch.setattr(criteria, "theirs", theorem.measured_max, raising=False)
    assert machine.ours is criteria.theirs is original  # type: ignore[attr-defined]


def test_nothing_computed_before_or_under_a_bug_is_remembered() -> None:
    def flat(_: Any, n: int) -> tuple[int, ...]:
        return (1,) * (n + 1)

    exact = smirnov.p_exact(3, 7)
    table = smirnov.p_values(7)[0].tolist()
    with planted(Bug("certify.scan.smirnov:_tail_numerators", flat)):
        assert smirnov.p_exact(3, 7) == 1
        assert smirnov.p_values(7)[0].tolist() == [1.0] * 8
    assert smirnov.p_exact(3, 7) == exact
    assert smirnov.p_values(7)[0].tolist() == table


@pytest.mark.parametrize(
    "target",
    ["certify.no_such_module:f", "certify.stats.theorem:no_such", "certify.gate.watch:Look.none", "certify"],
)
def test_a_function_that_is_gone_is_never_skipped(target: str) -> None:
    one = Bug(target, loosely)
    with pytest.raises(Stale), planted(one):
        pass
    finding = hunt(subject(one))
    assert finding.outcome == "failed"
    assert "cannot be planted" in finding.detail


def test_a_bug_that_is_noticed_passes_and_says_by_what() -> None:
    finding = hunt(subject())
    assert (finding.outcome, finding.cases) == ("passed", 1)
    assert finding.witness == "loosely (Equality is a tie.): judge: a margin of 1/4 against 2/8"


def test_a_survivor_fails_and_is_named() -> None:
    def blind() -> Iterator[Fact]:
        yield "anything goes", True

    finding = hunt(subject(loose, blind))
    assert finding.outcome == "failed"
    assert "loosely survives (Equality is a tie.)" in finding.detail


def test_a_bug_that_dies_of_an_exception_fails() -> None:
    def raising() -> Iterator[Fact]:
        if theorem.measured_max(Fraction(1, 4), [1], 8):
            raise ZeroDivisionError("by accident")
        yield "a tie does not certify", True

    finding = hunt(subject(loose, raising))
    assert finding.outcome == "failed"
    assert "dies of an exception: raising: ZeroDivisionError: by accident" in finding.detail


def test_a_judge_that_refuses_the_program_fails() -> None:
    def grumpy() -> Iterator[Fact]:
        yield "nothing is right", False

    finding = hunt(subject(loose, grumpy))
    assert finding.outcome == "failed"
    assert "without any bug" in finding.detail


@pytest.mark.parametrize("item", mutations.CHECKS[:2], ids=lambda item: item.name)
def test_the_checks_report_what_was_noticed(item: Any) -> None:
    result = item.run(Budget())
    assert result.passed, result
    assert re.fullmatch(rf"{result.cases} of {result.cases} bugs are noticed", result.detail)


def test_the_textbook_procedures_on_a_worked_example() -> None:
    """Benjamini and Hochberg 1995, section 3: 15 p-values at .05; 4 rejected by BH, 3 by Bonferroni."""
    texts = ".0001 .0004 .0019 .0095 .0201 .0278 .0298 .0344 .0459 .3240 .4262 .5719 .6528 .7590 1.000"
    p = [Fraction(text) for text in texts.split()]
    found = {name: sum(textbook(p, Fraction(1, 20), name)) for name in ("none", "bonferroni", "holm", "bh")}
    assert found == {"none": 9, "bonferroni": 3, "holm": 3, "bh": 4}
