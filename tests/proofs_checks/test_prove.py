"""``certify prove``: the run, its record, its exit codes; clauses of the theory and their checks."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import proof_files
import pytest
from command import Ran, following, in_process
from rich.cells import cell_len
from rich.console import Console

from certify.base.errors import ExitCode, UsageError
from proofs_checks.check import OUTCOMES, Budget, Check, CheckFinding, CheckResult, check, execute
from proofs_checks.run import clauses, prove, workers
from proofs_checks.run.record import ProofRecord, parse_record
from reports import proofs

ONLY = ("--only", "counterexamples.C[2-6]", "--only", "exact.runs")


def planted(*kinds: str) -> Sequence[Check]:
    """Checks that end in every way; importable, so that a process of its own can run them."""

    def one(kind: str) -> Check:
        @check(
            f"planted.{kind}",
            f"clause of {kind}",
            ("A-ONE",),
            needs=("no_such_package",) * (kind == "absent"),
        )
        def run(budget: Budget) -> CheckFinding:
            if kind == "dies":
                os._exit(7)
            if kind.startswith("hangs"):
                time.sleep(600)
            if kind == "crashes":
                raise RuntimeError("as planned")
            if kind == "threads":
                return CheckFinding("passed", 1, str(sorted(os.environ[name] for name in workers._THREADS)))
            if kind == "fails":
                return CheckFinding("failed", 3, "false", "a witness")
            return CheckFinding("passed", budget.seed + 1, f"{budget.tier} in {os.getpid()}")

        return run

    return [one(kind) for kind in kinds]


def run(*kinds: str, limit: float = 120.0, processes: int = 2, seed: int = 0) -> dict[str, CheckResult]:
    source = partial(planted, *kinds)
    names = [item.name for item in source()]
    budget = Budget("fast", 10, seed)
    found = list(workers.run(source, names, budget, workers=processes, limit=limit))
    assert sorted(result.name for result in found) == sorted(names)
    return {result.name.removeprefix("planted."): result for result in found}


# --- processes ----------------------------------------------------------------------------------------------


def test_checks_run_in_processes_of_their_own_and_hide_nothing() -> None:
    found = run("passes", "fails", "crashes", "dies", "absent", "also", seed=4)
    assert {kind: result.outcome for kind, result in found.items()} == {
        "passes": "passed",
        "fails": "failed",
        "crashes": "failed",
        "dies": "failed",
        "absent": "not run",
        "also": "passed",
    }
    assert "exit code 7" in found["dies"].detail
    assert "as planned" in found["crashes"].detail
    assert "no_such_package" in found["absent"].detail
    assert found["passes"].cases == 5
    pids = {found[kind].detail.split()[-1] for kind in ("passes", "also")}
    assert str(os.getpid()) not in pids


def test_every_process_computes_with_one_thread_and_ours_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given, *others = workers._THREADS
    monkeypatch.setenv(given, "7")
    for name in others:
        monkeypatch.delenv(name, raising=False)
    assert run("threads")["threads"].detail == "['1', '1', '1']"
    assert [os.environ.get(name) for name in workers._THREADS] == ["7", None, None]


def test_a_check_that_hangs_is_stopped_and_is_no_pass() -> None:
    found = run("hangs", "hangs-too", limit=1.0, processes=1)
    assert [result.outcome for result in found.values()] == ["timeout", "timeout"]
    assert all(result.detail.startswith("stopped after") and not result.cases for result in found.values())


def test_no_process_is_left_behind() -> None:
    results = workers.run(partial(planted, "passes", "hangs"), ["planted.passes", "planted.hangs"],
                          Budget(), workers=2, limit=60)  # fmt: skip
    pid = int(next(iter(results)).detail.split()[-1])
    results.close()  # type: ignore[attr-defined]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


PARENT = """
import sys
from functools import partial

sys.path[:0] = sys.argv[2:]

from proofs_checks.run import workers
from proofs_checks.check import Budget
from test_prove import noting

if __name__ == "__main__":
    list(workers.run(partial(noting, sys.argv[1]), ["planted.noting"], Budget(), workers=1, limit=600))
"""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="processes are looked up in /proc")
def test_no_process_outlives_one_that_is_killed(tmp_path: Path) -> None:
    """The parent is killed while its check hangs; the check's process must notice by itself."""
    note, script = tmp_path / "pid", tmp_path / "parent.py"
    script.write_text(PARENT, encoding="utf-8")
    paths = [Path(__file__).parent, *sys.path]
    parent = subprocess.Popen([sys.executable, script, note, *paths])
    while not (note.is_file() and note.read_text(encoding="utf-8")):
        assert parent.poll() is None
        time.sleep(0.05)
    orphan = Path("/proc", note.read_text(encoding="utf-8"))
    assert orphan.exists()
    parent.kill()
    parent.wait()
    assert any(not orphan.exists() or time.sleep(0.05) for _ in range(2400)), "the check still runs"


def noting(note: str) -> Sequence[Check]:
    """One check that writes down its process and hangs."""

    @check("planted.noting", "clause")
    def run(_: Budget) -> CheckFinding:
        Path(note).write_text(str(os.getpid()), encoding="utf-8")
        time.sleep(600)
        return CheckFinding("passed", 1, "it was not stopped")

    return [run]


@pytest.mark.parametrize(("processes", "limit"), [(0, 1.0), (1, 0.0), (1, float("nan"))])
def test_impossible_settings_are_refused(processes: int, limit: float) -> None:
    with pytest.raises(ValueError, match="at least one process"):
        list(workers.run(partial(planted, "passes"), [], Budget(), workers=processes, limit=limit))


# --- the record ---------------------------------------------------------------------------------------------


def as_json(record: ProofRecord) -> dict[str, Any]:
    return record.model_dump(mode="json", by_alias=True)


def recorded(ends: Mapping[str, str], *, selected: bool = True) -> ProofRecord:
    """The record of a run whose checks ended so."""
    results = [
        CheckResult(one.name, one.clause, one.assumptions, ends[one.name], 1, 0.1, "why")  # type: ignore[arg-type]
        for one in prove.checks()
        if one.name in ends
    ]
    return prove.record(Budget(), results, selected=selected)


@pytest.mark.parametrize(
    ("outcomes", "plain", "strict"),
    [
        (["passed"], 0, 0),
        (["passed", "not run"], 0, 3),
        (["passed", "timeout"], 0, 3),
        (["not run"], 3, 3),
        (["timeout", "not run"], 3, 3),
        (["passed", "failed"], 1, 1),
        (["failed", "timeout"], 1, 1),
    ],
)
def test_exit_codes(outcomes: list[str], plain: int, strict: int) -> None:
    found = recorded(dict(zip(("exact.runs", "exact.pieces"), outcomes, strict=False)))
    assert found.exit_code() == plain
    assert found.exit_code(require_all=True) == strict


def test_a_clause_passes_only_with_all_its_checks() -> None:
    passed = dict.fromkeys((item.name for item in prove.checks()), "passed")

    def outcome(**others: str) -> str:
        changed = {name.replace("_", "."): word for name, word in others.items()}
        found = recorded(passed | changed, selected=False).clauses
        return next(one.outcome for one in found if one.clause == "§4 table: A in k pieces, 4kD")

    assert outcome() == "passed"
    for word in ("failed", "timeout", "not run"):
        assert outcome(exact_pieces=word) == word
    assert outcome(exact_runs="failed") == "passed"


def test_names_are_unique_and_patterns_choose() -> None:
    names = [item.name for item in prove.checks()]
    assert len(set(names)) == len(names) > 80
    assert prove.chosen(names, []) == names
    assert prove.chosen(names, ["laws.*", "exact.runs"])[0] == "exact.runs"
    with pytest.raises(UsageError) as caught:
        prove.chosen(names, ["exact.runs", "no.such"])
    assert caught.value.exit_code is ExitCode.USAGE


# --- clauses of the theory ----------------------------------------------------------------------------------


def test_every_clause_has_a_check_and_every_check_a_clause() -> None:
    names = [item.name for item in prove.checks()]
    assert clauses.gaps(names) == []


def test_gaps_are_found() -> None:
    names = [item.name for item in prove.checks()]
    without = [name for name in names if name != "exact.pieces"]
    assert "no check for: §4 table: A in k pieces, 4kD" in clauses.gaps(without)
    assert "the table lists exact.pieces, but there is no such check" in clauses.gaps(without)
    assert clauses.gaps([*names, "exact.new"]) == ["exact.new is a check of no clause"]


def test_the_table_names_every_section_assumption_and_counterexample() -> None:
    text = "\n".join(clauses.CLAUSES)
    assert {clause.split()[0] for clause in clauses.CLAUSES} == {"§2", "§3", "§4", "§4b", "§5", "§6", "§7"}
    for name in (
        "A-LAW",
        "A-SCALAR",
        "A-POINT",
        "A-ORDER",
        "A-ONE",
        "A-NULL",
        *(f"C{i}" for i in range(1, 9)),
    ):
        assert re.search(rf"{name}\b", text), name


# --- the command --------------------------------------------------------------------------------------------

Certify = Callable[..., Ran]


@pytest.fixture
def certify(capsys: pytest.CaptureFixture[str]) -> Certify:
    return lambda *arguments: in_process(arguments, capsys)


def test_the_command_prints_the_table_and_writes_the_record(certify: Certify, tmp_path: Path) -> None:
    out = tmp_path / "prove.json"
    ran = certify("prove", "--fast", *ONLY, "--out", out)
    assert ran.code == 0
    assert following(ran.out) == ["prove", *ONLY], "the same without --fast, and deeper"
    assert [line for line in ran.out.splitlines() if line.endswith(" ")] == []
    text = " ".join(ran.out.split())
    assert "counterexamples.C3" in text
    assert "6 checks: 6 passed" in text
    assert "A-ORDER" in text
    value = json.loads(out.read_text(encoding="utf-8"))
    assert value["format"] == "certify-proofs/1"
    assert value["tier"] == "fast"
    assert value["selected"] is True
    assert value["counts"] == {"passed": 6, "failed": 0, "not run": 0, "timeout": 0}
    assert [one["name"] for one in value["checks"]] == [
        "exact.runs",
        *(f"counterexamples.C{i}" for i in range(2, 7)),
    ]
    for one in value["checks"]:
        assert one["outcome"] in OUTCOMES
        assert one["cases"] > 0
        assert 0 <= one["seconds"] < 600
    states = {one["clause"]: one["outcome"] for one in value["clauses"]}
    assert states["§4 C2"] == "passed"
    assert states["§4 C8"] == "not run"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks run in this process: what a process costs to start is not what these tests are about."""

    def run(source: workers.Source, names: Sequence[str], budget: Budget, **_: Any) -> list[CheckResult]:
        known = {one.name: one for one in source()}
        return [execute(known[name], budget) for name in names]

    monkeypatch.setattr(workers, "run", run)


@pytest.mark.usefixtures("here")
def test_json_on_standard_output(certify: Certify) -> None:
    for form in (("--json",), ("--format", "json")):
        ran = certify("prove", "--fast", "--only", "exact.runs", *form)
        assert ran.code == 0
        assert json.loads(ran.out)["counts"]["passed"] == 1


@pytest.mark.usefixtures("here")
def test_what_did_not_run_denies_only_if_all_are_required(certify: Certify, tmp_path: Path) -> None:
    missing = ("--only", "counterexamples.C1-llama", "--only", "exact.runs", "--model", tmp_path / "nothing")
    ran = certify("prove", "--fast", *missing)
    assert ran.code == 0
    assert "NOT RUN counterexamples.C1-llama: no checkpoint" in " ".join(ran.out.split())
    assert "1 passed, 1 not run" in " ".join(ran.out.split())
    assert certify("prove", "--fast", *missing, "--require", "all").code == 3
    alone = certify("prove", "--fast", *missing[:2], *missing[4:])
    assert alone.code == 3


def test_a_missing_extra_is_not_run_and_never_passed(
    certify: Certify, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Python runs this when it starts; a module that is None there counts as not installed.
    absent = "import sys\nsys.modules['z3'] = None\n"
    (tmp_path / "sitecustomize.py").write_text(absent, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    words = ("prove", "--fast", "--only", "smt.*", "--only", "exact.runs", "--out", tmp_path / "prove.json")
    ran = certify(*words, "--processes", 1, "--require", "all")
    text = " ".join(ran.out.split())
    assert ran.code == 3
    assert "NOT RUN smt.one-coordinate: needs z3" in text
    assert "1 passed, 13 not run" in text
    read = parse_record(json.loads((tmp_path / "prove.json").read_text(encoding="utf-8")))
    assert [one.name for one in read.checks if one.outcome == "passed"] == ["exact.runs"]
    assert not any(one.outcome == "passed" for one in read.clauses if "smt." in " ".join(one.checks))


# A z3 that is there and never answers.
HANGING = """
import sys, time
from importlib.machinery import ModuleSpec
from types import ModuleType


class Hanging(ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        time.sleep(600)


sys.modules["z3"] = Hanging("z3")
sys.modules["z3"].__spec__ = ModuleSpec("z3", None)
"""


def test_a_check_that_runs_out_of_time_is_a_timeout_and_never_passed(
    certify: Certify, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(HANGING, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    words = ("prove", "--fast", "--only", "smt.two*", "--only", "counterexamples.C6", "--processes", 1)
    words = (*words, "--seconds", 4, "--out", tmp_path / "prove.json")
    ran = certify(*words, "--require", "all")
    assert ran.code == 3
    assert "TIMEOUT smt.two-coordinates: stopped after" in " ".join(ran.out.split())
    read = parse_record(json.loads((tmp_path / "prove.json").read_text(encoding="utf-8")))
    assert (read.counts.passed, read.counts.timeout) == (1, 1)
    states = {one.clause: one.outcome for one in read.clauses}
    assert states["§4 theorem, several coordinates: deviations add"] == "timeout"


@pytest.mark.parametrize("width", [80, 100, 120])
def test_the_table_shows_clause_check_assumptions_result_cases_and_time(width: int) -> None:
    results = tuple(
        CheckResult(one.name, one.clause, one.assumptions, "passed", 1_234_567, 1234.56, "nothing was wrong")
        for one in prove.checks()
    )
    out = StringIO()
    Console(file=out, width=width).print(
        proofs.table(as_json(prove.record(Budget(), results, selected=False)))
    )
    lines = out.getvalue().splitlines()
    assert max(cell_len(line.rstrip()) for line in lines) <= width
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.startswith("  ") and line[2] != " "}
    names = {one.name for one in prove.checks()}
    assert names <= rows.keys(), "a name is never broken over two lines"
    assert all(row in (["passed", "1,234,567", "1234.6"], ["passed", "above", "above"])
               for name, row in rows.items() if name in names)  # fmt: skip
    text = " ".join(out.getvalue().split())
    assert all(sum(line.split()[:1] == [name] for line in lines) >= 1 for name in names)
    for clause in clauses.CLAUSES:
        assert " ".join(clause.split()[:3]) in text
    assert text.count("1,234,567") == len(names), "cases are shown once"
    assert text.count("nothing was wrong") == len(names), "what a check found, too"
    if width == 120:
        for one in prove.checks():
            assert f"{one.clause} ← {', '.join(one.assumptions)}".removesuffix(" ← ") in text


def test_of_selected_checks_the_table_says_what_was_not_asked_for() -> None:
    results = tuple(
        CheckResult(one.name, one.clause, (), "passed", 1, 0.0, "", None)
        for one in prove.checks()
        if one.name == "exact.runs"
    )
    out = StringIO()
    found = as_json(prove.record(Budget(), results, selected=True))
    screen = Console(file=out, width=100)
    for line in (proofs.table(found), *proofs.summary(found)):
        screen.print(line)
    assert "not requested" in out.getvalue()
    assert "only some checks were requested" in out.getvalue()
    assert "laws." not in out.getvalue()
    assert "§4 V from the label string" in out.getvalue()


def test_what_a_record_holds_cannot_drive_the_terminal() -> None:
    value = proof_files.record("failed", "timeout")
    value["checks"][0] |= {"detail": "\x1b[31m" + "d" * 5000, "witness": "w\nw\u202e", "clause": "[bold]c"}
    value["clauses"][0]["clause"] = "\x9b2J" + "c" * 4000
    out = StringIO()
    screen = Console(file=out, width=80, markup=False)
    for line in (proofs.table(value), *proofs.not_passed(value), *proofs.summary(value)):
        screen.print(line)
    assert all(line.isprintable() for line in out.getvalue().splitlines())
    assert max(cell_len(line.rstrip()) for line in out.getvalue().splitlines()) <= 80
    assert "[bold]c" in out.getvalue()
    assert "d" * 700 not in out.getvalue().replace("\n", "")


def test_an_unknown_check_is_a_usage_error(certify: Certify) -> None:
    ran = certify("prove", "--only", "no.such")
    assert ran.code == 2
    assert "no check is called" in ran.one_line()


def test_the_list_names_every_check(certify: Certify) -> None:
    ran = certify("prove", "--list")
    assert ran.code == 0
    assert len(ran.out.splitlines()) == len(prove.checks())
