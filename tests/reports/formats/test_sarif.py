"""SARIF against the schema of the standard, in the version that code scanning reads.

``tests/fixtures/sarif-2.1.0-rtm.5.json.xz`` is from the npm package @microsoft/jest-sarif 1.0.0-beta.0 (MIT).
"""

from __future__ import annotations

import json
import lzma
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from formats_world import denied_run, hostile_text, run_of, with_text
from hypothesis import given
from ticket_folders import edit

from certify.policy.codes import codes
from reports.formats import sarif

FIXTURE = Path(__file__).parents[2] / "fixtures" / "sarif-2.1.0-rtm.5.json.xz"
VALIDATOR = jsonschema.Draft4Validator(
    json.loads(lzma.decompress(FIXTURE.read_bytes())),
    format_checker=jsonschema.Draft4Validator.FORMAT_CHECKER,
)


def results(run: Any) -> list[Any]:
    document = json.loads(sarif.render(run))
    assert list(VALIDATOR.iter_errors(document)) == []
    (one,) = document["runs"]
    rules = one["tool"]["driver"]["rules"]
    for result in one["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
    assert len({rule["id"] for rule in rules}) == len(rules)
    return list(one["results"])


def test_a_result_stands_on_the_line_of_its_ticket(ticket_path: Path) -> None:
    edit(ticket_path, lambda t: t["tokens"][0].update(h=1))
    ticket_path.write_text(json.dumps(json.loads(ticket_path.read_text()), indent=1))
    (result,) = results(run_of(ticket_path))
    (location,) = result["locations"]
    place = location["physicalLocation"]
    assert place["artifactLocation"]["uri"] == ticket_path.as_uri()
    line = ticket_path.read_text().splitlines()[place["region"]["startLine"] - 1]
    assert line.strip() == '"id": "tiny",'
    (rule,) = json.loads(sarif.render(run_of(ticket_path)))["runs"][0]["tool"]["driver"]["rules"]
    assert rule["help"]["text"] == codes()[result["ruleId"]].remedy


def test_relative_paths_stay_relative_and_are_encoded() -> None:
    run = denied_run(1)
    run["reports"][0]["file"] = os.fsdecode(b"my tickets/\xff#1.json")
    uris = {one["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for one in results(run)}
    assert uris == {"my%20tickets/%FF%231.json"}


@given(hostile_text)
def test_messages_have_no_placeholders_and_no_links(text: str) -> None:
    for result in results(with_text(text)):
        message = result["message"]["text"].replace("{{", "").replace("}}", "")
        assert "{" not in message
        assert "}" not in message
        assert "](" not in message


def test_rules_are_explained_even_if_there_are_no_results(ticket_path: Path) -> None:
    assert results(run_of(ticket_path)) == []


@pytest.mark.parametrize("fault", [{"version": "2"}, {"runs": [{"results": []}]}])
def test_the_schema_refuses_faults(fault: Any) -> None:
    assert not VALIDATOR.is_valid(json.loads(sarif.render(denied_run(1))) | fault)
