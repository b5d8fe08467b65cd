"""What a report comes to: the gravest item first, whose word is taken; against planted faults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from evidence_folders import make_bundle
from ticket_folders import MOVED, edit, make_ticket

import certify
from certify.base.verdict import Outcome, Status
from reports.summary import NOT_JUDGED, caveats, denying, summarise, worst_first
from reports.view import view


def report_of(path: Path, policy: str = "selection") -> dict[str, Any]:
    return view(certify.check(path, policy=policy, engine="numpy", workers=1))


FAULTS: dict[str, tuple[Callable[[dict[str, Any]], None], str, str, str, str]] = {
    "none": (lambda _: None, "selection", "CERTIFIED", "CERTIFIED", ""),
    "figure": (
        *(lambda t: t["tokens"][0].update(h=1), "selection", "REFUTED"),
        *("TOKEN_FIGURES", "selection.figures"),
    ),
    "digest": (
        *(lambda t: t["base"].update(tensor_sha256="0" * 64), "selection", "INVALID"),
        *("WRONG_BASE", "integrity.base"),
    ),
    "nothing shown": (lambda _: None, "release", "INCONCLUSIVE", "NO_CERTIFICATE", "certificate.present"),
}


@pytest.mark.parametrize(("change", "policy", "verdict", "code", "item"), FAULTS.values(), ids=FAULTS)
def test_the_first_reason_is_the_fault(
    ticket_path: Path, change: Any, policy: str, verdict: str, code: str, item: str
) -> None:
    edit(ticket_path, change)
    report = report_of(ticket_path, policy)
    (ticket,) = report["tickets"]
    found = summarise(report, ticket)
    assert (found.verdict, found.code, found.item) == (verdict, code, item)
    assert (found.id, found.file) == ("tiny", str(ticket_path))
    assert (found.remedy is None) == (verdict == "CERTIFIED"), "every failure says what to do"
    assert all(one["outcome"] == "not run" for one in denying(ticket)[1:]) or verdict == "REFUTED"


def test_the_worst_comes_first_whatever_the_order(tmp_path: Path) -> None:
    path = make_ticket(tmp_path, ticket_id="one")
    make_ticket(tmp_path, ticket_id="two", exclude=MOVED)
    report = report_of(path)
    run = {"reports": [report], "errors": [{"file": "gone", "code": "FILE_UNREADABLE", "text": "no"}]}
    found = worst_first(run)
    assert [one.verdict for one in found] == [NOT_JUDGED, "VACUOUS", "CERTIFIED"]
    verdicts = [NOT_JUDGED, "ERROR", "INVALID", "REFUTED", "INCONCLUSIVE", "VACUOUS", "CERTIFIED"]
    assert set(verdicts[1:]) == {status.value for status in Status}
    for status in verdicts[1:]:
        report["tickets"][0]["verdict"] = status
        order = [verdicts.index(one.verdict) for one in worst_first(run)]
        assert order == sorted(order)
    assert {outcome.value for outcome in Outcome} - {"pass", "not bound"} == set(_denied(report)), (
        "no outcome"
    )


def _denied(report: dict[str, Any]) -> list[str]:
    """Outcomes that deny, of a ticket with one item of each."""
    item = report["tickets"][0]["items"][0]
    items = [item | {"required": True, "outcome": outcome.value} for outcome in Outcome]
    return [one["outcome"] for one in denying({"items": items})]


def test_a_checker_that_differs_is_the_reason_though_no_policy_asks(ticket_path: Path) -> None:
    report = report_of(ticket_path)
    (ticket,) = report["tickets"]
    ticket["verdict"] = "ERROR"
    ticket["items"][-1] |= {"outcome": "error", "code": "CHECKER_DIFFERS", "text": "it says REFUTED"}
    assert summarise(report, ticket).code == "CHECKER_DIFFERS"
    assert "Independent checker: it says REFUTED." in caveats(ticket)


def test_whose_word_is_taken_is_said(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    checked = certify.check(bundle.path, policy="release", engine="numpy")
    (one,) = checked.tickets
    (ticket,) = view(checked)["tickets"]
    assert len(caveats(ticket)) == 2
    assert "The records are the word of whoever evaluated" in caveats(ticket)[1]
    assert one.examined is not None
    assert one.examined.subject is not None
    subject = replace(one.examined.subject, choice=SimpleNamespace(candidates=(1, 2, 3)))
    chosen = replace(checked, tickets=(replace(one, examined=replace(one.examined, subject=subject)),))
    (ticket,) = view(chosen)["tickets"]
    ticket["engines"] = [{"text": text, "engine": "other 1"} for text in ("a", "b")]
    ticket["selection"]["excluded"].append({"reason": "named by the author", "ids": [1, 2]})
    said = " ".join(caveats(ticket))
    for part in ("author left out of the selection: 2.", "chosen among 3", "on a, b were made by other 1"):
        assert part in said


def test_what_the_ticket_declares_is_asked_like_what_the_policy_asks(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    declared = [
        {"kind": "gain", "comparator": "base", "margin": "0.25", "delta": None, "extraction": "whole"}
    ]
    bundle.edit_ticket(lambda ticket: ticket.update(declared=declared))
    bundle.issue()
    (ticket,) = report_of(bundle.path, "release")["tickets"]
    asked = {claim["name"]: claim["asked"] for claim in ticket["claims"] if claim["asked"]}
    assert asked["gain:base:whole"] == "> 0, >= 0.25"
