"""Many tickets in one check, options given twice: nothing is left unjudged because something came later."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from command import in_process
from ticket_folders import edit

from certify.base.errors import ExitCode
from certify.base.model import json_schema
from certify.base.verdict import gravest
from certify.cli.main import Commands, app
from certify.cli.registry import COMMANDS
from reports.schema import Reports

Capture = pytest.CaptureFixture[str]
Change = Callable[[dict[str, Any]], None]

SPOILED: dict[str, Change] = {
    "good": lambda _: None,
    "refuted": lambda t: t["tokens"][0].update(h=1),
    "invalid": lambda t: t["base"].update(tensor_sha256="0" * 64),
}
CODES = {"good": 0, "refuted": 1, "invalid": 4, "malformed": 4, "gone": 2}


@pytest.fixture
def tickets(ticket_path: Path, tmp_path: Path) -> dict[str, Path]:
    """One ticket file of each kind."""
    found = {"gone": tmp_path / "gone" / "tickets.json"}
    for name, change in SPOILED.items():
        shutil.copytree(ticket_path.parent, tmp_path / name)
        found[name] = tmp_path / name / "tickets.json"
        edit(found[name], change)
    shutil.copytree(ticket_path.parent, tmp_path / "malformed")
    found["malformed"] = tmp_path / "malformed" / "tickets.json"
    found["malformed"].write_text("{")
    return found


def as_options(paths: list[Path]) -> list[object]:
    return [word for path in paths for word in ("--ticket", path)]


def as_arguments(paths: list[Path]) -> list[object]:
    return list(paths)


@pytest.mark.parametrize("spelled", [as_options, as_arguments])
@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(CODES, 2)))
def test_every_file_is_judged_and_the_gravest_counts(
    tickets: dict[str, Path], capsys: Capture, first: str, second: str, spelled: Any
) -> None:
    words = ["check", *spelled([tickets[first], tickets[second]]), "--policy", "selection"]
    ran = in_process([*words, "--format", "json"], capsys)
    expected = next(code for code in (4, 1, 2, 0) if code in (CODES[first], CODES[second]))
    assert ran.code == expected
    data = json.loads(ran.out)
    jsonschema.Draft202012Validator(json_schema(Reports)).validate(data)
    assert data["exit_code"] == expected
    readable = [name for name in (first, second) if name in SPOILED]
    assert [report["file"] for report in data["reports"]] == [str(tickets[name]) for name in readable]
    failed = [name for name in (first, second) if name not in SPOILED]
    assert [error["file"] for error in data["errors"]] == [str(tickets[name]) for name in failed]
    assert len(ran.err.splitlines()) == len(failed)


def test_the_terminal_names_each_file(tickets: dict[str, Path], tmp_path: Path, capsys: Capture) -> None:
    words = ["check", tickets["good"], "--ticket", tickets["refuted"], "--policy", "selection"]
    ran = in_process(words, capsys)
    assert ran.code == 1
    assert [ran.out.count(f"{tickets[name]}#tiny\n") for name in ("good", "refuted")] == [2, 2], ran.out
    assert ran.out.startswith("2 tickets under policy selection: 1 refuted, 1 certified\n")
    assert in_process([*words, "--out", tmp_path / "report.txt"], capsys).code == 1
    assert "REFUTED" in (tmp_path / "report.txt").read_text()


def test_ids_choose_within_their_file(ticket_path: Path, capsys: Capture) -> None:
    content = json.loads(ticket_path.read_text())
    good = content["tickets"][0]
    bad = json.loads(json.dumps(good)) | {"id": "bad"}
    bad["tokens"][0]["h"] = 1
    ticket_path.write_text(json.dumps(content | {"tickets": [good, bad]}))
    policy = ["--policy", "selection"]
    codes = {
        (f"{ticket_path}#{good['id']}",): 0,
        (f"{ticket_path}#bad",): 1,
        (f"{ticket_path}#{good['id']}", f"{ticket_path}#bad"): 1,
        (f"{ticket_path}#{good['id']}", ticket_path): 1,
        (ticket_path, "--id", good["id"]): 0,
        ("--ticket", ticket_path, "--id", good["id"]): 0,
        ("--ticket", ticket_path, "--id", good["id"], "--id", "bad"): 1,
        (f"{ticket_path}#nobody",): 2,
        (f"{ticket_path}#bad", "--id", "bad"): 2,
        (ticket_path, ticket_path.parent / "other.json", "--id", "bad"): 2,
    }
    for words, code in codes.items():
        assert in_process(["check", *words, *policy], capsys).code == code, words


def test_a_policy_that_is_wrong_is_said_once(tickets: dict[str, Path], capsys: Capture) -> None:
    ran = in_process(["check", tickets["good"], tickets["refuted"], "--policy", "nope"], capsys)
    assert ran.code == 2
    assert "POLICY_UNKNOWN" in ran.one_line()


def test_one_certificate_is_about_one_ticket(tickets: dict[str, Path], capsys: Capture) -> None:
    words = ["check", tickets["good"], tickets["refuted"], "--certificate", tickets["good"]]
    assert in_process(words, capsys).code == 2


def test_gravity() -> None:
    order = [70, 4, 1, 2, 3, 5, 0]
    for codes in itertools.combinations(order, 2):
        assert gravest(map(ExitCode, codes)) == codes[0]
        assert gravest(map(ExitCode, reversed(codes))) == codes[0]
    assert gravest([]) is ExitCode.NOTHING


def single_options() -> list[tuple[str, str, bool]]:
    """Every option of every command that has one value: command, spelling, whether it is a flag."""
    found = []
    for name in COMMANDS:
        command = Commands().get_command(None, name)
        for one in command.params:
            if one.param_type_name == "option" and not one.multiple and "--help" not in one.opts:
                found += [(name, spelling, one.is_flag) for spelling in one.opts]
    return found


def test_there_are_options() -> None:
    options = single_options()
    assert {name for name, _, _ in options} >= COMMANDS.keys() - {"explain"}
    assert ("check", "--policy", False) in options
    assert ("check", "--ticket", False) not in options
    assert app.info.cls is Commands


@pytest.mark.parametrize("name", COMMANDS)
def test_no_single_option_is_taken_twice(name: str, capsys: Capture) -> None:
    for command, spelling, flag in single_options():
        if command != name:
            continue
        for words in ([spelling], [f"{spelling}=x"]) if not flag else ([spelling],):
            value = [] if flag or "=" in words[0] else ["x"]
            ran = in_process([*name.split(), *words, *value, *words, *value], capsys)
            assert ran.code == 2, spelling
            assert "[OPTION_TWICE]" in ran.one_line()
            assert spelling in ran.err


def test_two_spellings_of_one_option_are_the_same(capsys: Capture) -> None:
    ran = in_process(["scan", "--base", "a", "--tuned", "b", "--reference", "c"], capsys)
    assert ran.code == 2
    assert "--tuned / --reference is given twice" in ran.one_line()


def test_commands_of_two_words_are_a_group(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    commands = Commands()
    before = commands.list_commands(None)
    for name, target in (("a scan", "scan"), ("a check", "check")):
        monkeypatch.setitem(COMMANDS, name, COMMANDS[target])
    listed = commands.list_commands(None)
    assert listed == [*before, "a"]
    assert list(commands.get_command(None, "a").commands) == ["scan", "check"]
    ran = in_process(["a", "scan", "--base", "x", "--base", "y", "--tuned", "z"], capsys)
    assert "[OPTION_TWICE]" in ran.one_line()
    assert in_process(["a", "find"], capsys).code == 2
    for words in ([], ["a"]):
        ran = in_process(words, capsys)
        assert (ran.code, ran.err, len(ran.out.splitlines()) > 5) == (2, "", True)
        assert "scan" in ran.out
    assert commands.get_command(None, "s") is None
