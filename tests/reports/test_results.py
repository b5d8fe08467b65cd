"""Tables of results: every cell against the verdicts and claims that ``certify check`` gives for itself."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import pytest
from evidence_folders import make_bundle

from certify.gate import check
from certify.policy import POLICIES
from reports.results import main


def rows(text: str, title: str) -> list[list[str]]:
    part = text.split(f"### {title}\n")[1].split("###")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    assert re.fullmatch(r"\|(---\|)+", lines[1])
    cells = [[cell.strip() for cell in line[1:-1].split(" | ")] for line in (lines[0], *lines[2:])]
    assert all(len(row) == len(cells[0]) for row in cells)
    return cells


def test_the_tables_say_what_the_gate_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_bundle(tmp_path).path
    assert main([str(path)]) == 0
    printed = capsys.readouterr().out

    head, one = rows(printed, "Verdicts")
    assert head[3:] == list(POLICIES)
    assert one[3:] == [check(path, policy=name).tickets[0].status.value for name in POLICIES]

    report = check(path).tickets[0]
    assert one[:2] == [report.ticket.id, str(len(report.ticket.ids))]
    asked = rows(printed, "What the policy `release` asks")[1:]
    outcomes = {item.name: item.outcome.value for item in report.items}
    assert len(asked) >= 4
    for row in asked:
        assert outcomes["claim." + row[1].replace(":", ".")] == row[-1]
    assert len(rows(printed, "Does the guarantee hold?")) == 1 + 3

    (margins,) = rows(printed, "How the margins compare")[1:]
    assert report.examined is not None
    claims = {claim.name: claim for text in report.examined.texts for claim in text.claims}
    detail = claims["guarantee:additive"].detail
    assert margins[0] == report.ticket.id
    assert float(margins[2]) == pytest.approx(2 * report.ticket.selection.tau, rel=1e-3)
    assert margins[-1] == f"{detail['vacuous_steps']} of {detail['steps']}"
    assert float(margins[4]) == pytest.approx(float(Fraction(detail["least_loss"])), rel=1e-3)


def test_it_takes_one_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err
