"""Where drawing would have stopped: against looks written out here, and the limits of the whole text."""

from __future__ import annotations

from pathlib import Path

import pytest
from evidence_folders import UNITS, make_bundle

from certify.base.verdict import Outcome
from certify.gate.watch import Look, Standing
from certify.policy.policy import POLICIES
from certify.policy.requirement import RequirementAnswer
from reports.rehearsal import main, rehearsed, stops

REQUIREMENTS = [one for one in POLICIES["release"].claims if one.role == "evaluation"]


def look(units: int, *outcomes: tuple[Outcome, bool]) -> Look:
    pairs = zip(REQUIREMENTS, outcomes, strict=False)
    return Look(
        units,
        tuple(
            Standing("t", asked, RequirementAnswer(out, "", "", is_open)) for asked, (out, is_open) in pairs
        ),
    )


def test_a_claim_stops_at_the_first_look_that_decides_it() -> None:
    undecided, shown = (Outcome.INCONCLUSIVE, True), (Outcome.PASS, False)
    looks = [look(30, undecided, shown), look(60, shown, shown), look(90, shown, shown)]
    first, second = stops("t", looks, 100)
    assert (first.claim, first.units, first.outcome, first.decided) == (
        REQUIREMENTS[0].claim,
        60,
        "pass",
        True,
    )
    assert (second.units, second.saved) == (30, pytest.approx(0.7))


def test_what_stays_open_took_everything() -> None:
    undecided = (Outcome.INCONCLUSIVE, True)
    (one,) = stops("t", [look(30, undecided), look(50, undecided)], 50)
    assert (one.units, one.saved, one.outcome, one.decided) == (50, 0, "inconclusive", False)


def test_a_real_folder_with_a_clear_case_stops_early(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_bundle(tmp_path).path
    found = list(rehearsed(path, "release", 10))
    declared = ["guarantee:calibrated"]
    assert [one.claim for one in found] == [*(one.claim for one in REQUIREMENTS), *declared]
    assert {one.total for one in found} == {UNITS}
    assert all(one.outcome == "pass" for one in found)
    assert any(one.units < UNITS for one in found)
    assert main([str(path), "--look", "10"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(found)
    assert f"| {found[0].units} | {UNITS} |" in lines[2]


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none.json")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
