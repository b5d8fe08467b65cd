"""Verdicts on what is published are those of the first release, unless a change says why they are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import certify
from certify import checker
from certify.policy.policy import SHIPPED

ROOT = Path(__file__).resolve().parents[2]
EXPECTED = json.loads((ROOT / "tests" / "fixtures" / "verdicts.json").read_text(encoding="utf-8"))
POLICIES = SHIPPED


def cases() -> list[object]:
    """Every run under every policy; the default policy on the smaller run is quick enough for every day."""
    quick = {("en-ca-second", "release"), ("en-ca-experiment", "selection"), ("en-ca-whole", "selection")}
    return [
        pytest.param(run, policy, marks=[] if (run, policy) in quick else pytest.mark.slow)
        for run in EXPECTED
        for policy in POLICIES
    ]


@pytest.mark.parametrize(("run", "policy"), cases())
def test_the_gate_comes_to_the_frozen_verdicts(run: str, policy: str) -> None:
    path = ROOT / "reports" / "published" / run / "tickets" / "tickets.json"
    report = certify.check(path, policy=policy)
    assert {one.ticket.id: one.status.value for one in report.tickets} == {
        name: verdicts[policy][0] for name, verdicts in EXPECTED[run].items()
    }
    assert {item.code for one in report.tickets for item in one.items if item.name == "checker.agrees"} == {
        "CHECKER_AGREES"
    }


@pytest.mark.slow
@pytest.mark.parametrize("run", EXPECTED)
def test_the_checker_alone_comes_to_the_frozen_verdicts(run: str) -> None:
    found = checker.verify(ROOT / "reports" / "published" / run / "tickets", policies=POLICIES)
    assert {
        name: {policy: [one.status, *one.codes] for policy, one in verdicts.items()}
        for name, verdicts in found.items()
    } == EXPECTED[run]
