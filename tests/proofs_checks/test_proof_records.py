"""The records of the checks: nothing that did not run may look like a pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from proofs_checks.check import Budget, CheckFinding, CheckResult, Fact, Facts, check, decided, execute


def result(**changes: object) -> CheckResult:
    facts: dict[str, object] = {
        "name": "a.check",
        "clause": "§4",
        "assumptions": (),
        "outcome": "passed",
        "cases": 1,
        "seconds": 0.0,
        "detail": "",
    }
    return CheckResult(**(facts | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"outcome": "ok"},
        {"outcome": True},
        {"cases": 0},
        {"cases": -1, "outcome": "failed", "detail": "why"},
        {"outcome": "failed"},
        {"outcome": "not run"},
        {"outcome": "timeout"},
    ],
)
def test_a_result_that_makes_no_sense_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"outcome|cases|case|reason"):
        result(**changes)


@pytest.mark.parametrize("outcome", ["failed", "not run", "timeout"])
def test_only_passed_has_passed(outcome: str) -> None:
    assert result().passed
    assert not result(outcome=outcome, detail="why").passed


def test_a_check_stamps_its_finding() -> None:
    @check("a.check", "§4, some clause", ("A-ONE",))
    def run(budget: Budget) -> CheckFinding:
        return CheckFinding("passed", 3 + budget.full, "found", "x = 1")

    for tier, cases in (("fast", 3), ("full", 4)):
        found = execute(run, Budget(tier))  # type: ignore[arg-type]
        assert (found.name, found.clause, found.assumptions) == ("a.check", "§4, some clause", ("A-ONE",))
        assert (found.outcome, found.cases, found.detail, found.witness) == (
            "passed",
            cases,
            "found",
            "x = 1",
        )
        assert found.seconds >= 0


@pytest.mark.parametrize(
    ("facts", "outcome", "cases", "detail"),
    [
        ([("a", True), ("b", True)], "passed", 2, "both"),
        ([("a", True), ("b", False), ("c", True)], "failed", 2, "b"),
        ([], "failed", 0, "crashed: ValueError: a.check: a check that tried no case has not passed"),
    ],
)
def test_facts_are_cases_and_the_first_false_one_is_named(
    facts: list[Fact], outcome: str, cases: int, detail: str
) -> None:
    @check("a.check", "§4")
    def run(_: Budget) -> Facts:
        yield from facts
        return "both"

    found = execute(run, Budget())
    assert (found.outcome, found.cases, found.detail) == (outcome, cases, detail)


def test_facts_may_end_in_a_finding_of_their_own() -> None:
    @decided
    def judge(size: int) -> Facts:
        yield "it is small", size < 5
        return CheckFinding("passed", size, "small", "a witness")

    assert judge(4) == CheckFinding("passed", 4, "small", "a witness")
    assert judge(6) == CheckFinding("failed", 1, "it is small")
    assert (judge(4).fact, judge(6).fact) == (("small", True), ("it is small", False))


def test_a_missing_module_is_not_run_and_is_named() -> None:
    @check("a.check", "§4", needs=("math", "no_such_module_anywhere"))
    def run(_: Budget) -> CheckFinding:
        return CheckFinding("passed", 1, "")

    found = execute(run, Budget())
    assert (found.outcome, found.cases) == ("not run", 0)
    assert "no_such_module_anywhere" in found.detail
    assert "math" not in found.detail


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise ImportError('libbroken.so: cannot open shared object file')", "libbroken.so"),
        ("raise OSError('libbroken.so: invalid ELF header')", "invalid ELF header"),
        ("class BrokenException(Exception): ...\nraise BrokenException('no\\nlibrary')", "no library"),
        ("import no_such_module_anywhere", "installed without no_such_module_anywhere"),
    ],
)
def test_an_installed_module_that_cannot_be_imported_is_not_run(
    source: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_extra.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)

    @check("a.check", "§4", needs=("math", "broken_extra"))
    def run(_: Budget) -> CheckFinding:
        import broken_extra  # type: ignore[import-not-found]  # noqa: F401

        return CheckFinding("passed", 1, "")

    found = execute(run, Budget())
    assert (found.outcome, found.cases) == ("not run", 0)
    assert "needs broken_extra" in found.detail
    assert reason in found.detail
    assert "\n" not in found.detail


def test_a_crash_fails_and_says_what_happened() -> None:
    @check("a.check", "§4")
    def run(_: Budget) -> CheckFinding:
        raise ZeroDivisionError("by\nnothing")

    found = execute(run, Budget())
    assert found.outcome == "failed"
    assert found.detail == "crashed: ZeroDivisionError: by nothing"


def test_a_pass_without_a_case_is_a_crash_not_a_pass() -> None:
    @check("a.check", "§4")
    def run(_: Budget) -> CheckFinding:
        return CheckFinding("passed", 0, "")

    assert execute(run, Budget()).outcome == "failed"


@pytest.mark.parametrize("wrong", [{"tier": "slow"}, {"seconds": 0.0}, {"seconds": float("nan")}])
def test_a_budget_must_be_one(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"tier|seconds"):
        Budget(**wrong)  # type: ignore[arg-type]
