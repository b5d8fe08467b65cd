"""Every format says what the verdict is, with the same digest, whatever stands in the files."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from formats_world import HOSTILE, denied_run, hostile_text, run_of, with_text
from hypothesis import given
from ticket_folders import edit

from certify.base.text import escape
from certify.cli.registry import FORMATS, load
from reports.formats import github, gitlab, intoto, junit, sarif

Json = Any
RENDERERS = {name: load(target) for name, target in FORMATS.items() if name != "terminal"}

SPOILED: dict[str, Callable[[Json], None]] = {
    "CERTIFIED": lambda _: None,
    "REFUTED": lambda t: t["tokens"][0].update(h=1),
    "INVALID": lambda t: t["base"].update(tensor_sha256="0" * 64),
    "INCONCLUSIVE": lambda t: t["released"].update(rows=None),
}


def denials(run: Json) -> dict[str, int]:
    """How often each format says that something denies, by its own reading."""
    statement = json.loads(intoto.render(run))["predicate"]
    assert (statement["result"] == "PASSED") == (statement["failedTests"] == [])
    suite = ET.fromstring(junit.render(run))
    assert int(suite.attrib["failures"]) == len(suite.findall(".//failure"))
    assert int(suite.attrib["tests"]) == len(suite.findall(".//testcase"))
    return {
        "junit": len(suite.findall(".//failure")),
        "sarif": len(json.loads(sarif.render(run))["runs"][0]["results"]),
        "gitlab": len(json.loads(gitlab.render(run))),
        "intoto": len(statement["failedTests"]),
    }


@pytest.mark.parametrize("verdict", SPOILED)
def test_something_denies_in_every_format_unless_certified(ticket_path: Path, verdict: str) -> None:
    edit(ticket_path, SPOILED[verdict])
    run = run_of(ticket_path)
    assert run["reports"][0]["tickets"][0]["verdict"] == verdict
    counts = denials(run)
    assert len(set(counts.values())) == 1
    assert (set(counts.values()) == {0}) == (run["exit_code"] == 0) == (verdict == "CERTIFIED")
    assert (github.render(run).count("::error ") == 0) == (verdict == "CERTIFIED")
    properties = json.loads(intoto.svr(run))["predicate"]["properties"]
    assert ("CERTIFY_CERTIFIED_selection" in properties) == (verdict == "CERTIFIED")
    assert f"verdict={verdict}\nexit-code={run['exit_code']}\n" in github.outputs(run)
    for name, render in RENDERERS.items():
        if name != "gitlab" or verdict != "CERTIFIED":  # an empty list has no place for it
            assert run["digest"] in render(run)


def test_a_verdict_without_an_item_against_it_denies(ticket_path: Path) -> None:
    """The gate counts an item that is absent as missing; so does every format."""
    run = run_of(ticket_path)
    run["reports"][0]["tickets"][0]["verdict"] = "INCONCLUSIVE"
    assert set(denials(run).values()) == {1}


def test_a_file_that_cannot_be_judged_denies(ticket_path: Path) -> None:
    error = {"file": "gone/tickets.json", "code": "FILE_UNREADABLE", "text": "cannot read it"}
    run = run_of(ticket_path) | {"errors": [error], "exit_code": 2}
    assert set(denials(run).values()) == {1}
    assert json.loads(intoto.svr(run))["predicate"]["properties"] == []
    assert f"::1 NOT JUDGED, 1 CERTIFIED; digest of the report: {run['digest']}\n" in github.render(run)
    for one in (run, run | {"reports": []}):
        assert "verdict=NOT_JUDGED\n" in github.outputs(one)
        assert all("gone/tickets.json" in render(one) for name, render in RENDERERS.items() if name != "svr")


@given(hostile_text)
def test_nothing_in_a_file_begins_a_workflow_command(text: str) -> None:
    run = with_text(text)
    said = github.render(run)
    commands = [
        re.fullmatch(r"::(error|notice) ((?:[^:,\n]+,)*[^:,\n]+)::(.*)", line)
        for line in said.split("\n")[:-1]
    ]
    assert [found[1] for found in commands if found] == ["error", "error", "notice"]
    assert len(commands) == 3
    unescaped = [found[3].replace("%0A", "\n").replace("%25", "%") for found in commands if found]
    assert all(escape(text) in message for message in unescaped[:2])


@given(hostile_text)
def test_xml_is_well_formed_and_shows_what_was_there(text: str) -> None:
    root = ET.fromstring(junit.render(with_text(text)).encode("utf-8"))
    assert [one.attrib["message"] for one in root.iter("failure")].count(escape(text)) == 2
    assert {one.tag for one in root.iter()} <= {
        *("testsuites", "testsuite", "properties", "property", "testcase", "failure", "skipped")
    }


@given(hostile_text)
def test_json_formats_are_text(text: str) -> None:
    for name in ("sarif", "gitlab", "intoto", "svr"):
        written = RENDERERS[name](with_text(text))
        written.encode("utf-8")
        json.dumps(json.loads(written), ensure_ascii=False).encode("utf-8")


def test_thousands_of_tickets_stay_within_what_services_take() -> None:
    run = denied_run(tickets=4_000)
    lines = github.render(run).splitlines()
    assert [line.startswith("::error ") for line in lines] == [True] * 10 + [False]
    assert "3991 more" in lines[9]
    summary = github.summary(run)
    assert len(summary.encode("utf-8")) < 1_000_000
    explained = len(re.findall(r"^## ", summary, re.MULTILINE))
    assert 0 < explained < 4_000
    assert f"{4_000 - explained} more tickets" in summary
    assert run["digest"] in summary
    (one,) = json.loads(sarif.render(run))["runs"]
    assert len(one["results"]) == sarif.MOST
    (note,) = one["invocations"][0]["toolExecutionNotifications"]
    assert note["message"]["text"].startswith(f"{4_000 * 2 - sarif.MOST} more results")
    prints = [entry["fingerprint"] for entry in json.loads(gitlab.render(run))]
    assert len(set(prints)) == len(prints) == 8_000


def test_exactly_ten_denied_tickets_are_ten_annotations() -> None:
    lines = github.render(denied_run(tickets=10)).splitlines()
    assert len(lines) == 11
    assert "1 more" in lines[9]
    assert len(github.render(denied_run(tickets=9)).splitlines()) == 10


def test_fingerprints_stay_when_only_figures_change(ticket_path: Path) -> None:
    edit(ticket_path, SPOILED["REFUTED"])
    run = run_of(ticket_path)
    other = copy.deepcopy(run)
    other["reports"][0]["tickets"][0]["line"] += 7
    for item in other["reports"][0]["tickets"][0]["items"]:
        item["text"] += " changed"
    first, second = (json.loads(gitlab.render(one)) for one in (run, other))
    assert [one["fingerprint"] for one in first] == [one["fingerprint"] for one in second]
    assert first[0]["description"] != second[0]["description"]


def test_statements_are_about_the_ticket_and_its_rows(ticket_path: Path) -> None:
    run = run_of(ticket_path)
    ticket = json.loads(ticket_path.read_text())["tickets"][0]
    rows = (ticket_path.parent / ticket["released"]["rows"]["path"]).read_bytes()
    stated = {key: value for key, value in ticket.items() if key not in ("evidence", "certificate")}
    canonical = json.dumps(stated, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    digests = [hashlib.sha256(data).hexdigest() for data in (canonical.encode(), rows)]
    now = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    for text, kind in ((intoto.render(run), "test-result"), (intoto.svr(run, now=now), "svr")):
        statement = json.loads(text)
        assert statement["_type"] == "https://in-toto.io/Statement/v1"
        assert statement["predicateType"] == f"https://in-toto.io/attestation/{kind}/v0.1"
        assert [one["digest"] for one in statement["subject"]] == [{"sha256": value} for value in digests]
        assert len({one["name"] for one in statement["subject"]}) == 2
    assert json.loads(intoto.svr(run, now=now))["predicate"]["timeCreated"] == "2026-01-02T03:04:05Z"


def test_the_hostile_texts_are_hostile() -> None:
    """The control: written as they are, they would do what the tests above look for."""
    assert any(line.startswith("::") for text in HOSTILE for line in text.splitlines())
    with pytest.raises((ET.ParseError, UnicodeEncodeError)):
        ET.fromstring(f"<a>{HOSTILE[0]}</a>")
