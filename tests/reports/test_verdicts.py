"""Verdicts on what is published are those of the first release, unless a change says why they are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import certify
from certify import checker
from certify.base.errors import UsageError
from certify.cli.use.model import fetch
from certify.policy.policy import SHIPPED

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "fixtures"
EXPECTED = json.loads((FIXTURES / "verdicts.json").read_text(encoding="utf-8"))
FETCHED = json.loads((FIXTURES / "verdicts_fetched.json").read_text(encoding="utf-8"))
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


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "smollm2-135m"
    try:
        fetch("smollm2-135m", folder)
    except UsageError as error:
        if error.code != "DOWNLOAD_FAILED":
            raise
        pytest.skip(f"NOT RUN: {error}")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
def test_with_the_model_at_hand_everything_is_judged(policy: str, smollm2: Path) -> None:
    path = ROOT / "reports" / "published" / "smollm2-es-en" / "tickets" / "tickets.json"
    report = certify.check(path, policy=policy, base=smollm2)
    assert {one.ticket.id: one.status.value for one in report.tickets} == {
        name: verdicts[policy] for name, verdicts in FETCHED["smollm2-es-en"].items()
    }
