"""Defaults of a project: they hold unless the command line says otherwise, and a report says who chose."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import in_process
from ticket_folders import edit

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def project(ticket_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the ticket, in which commands run."""
    monkeypatch.chdir(ticket_path.parent)
    return ticket_path.parent


WRITTEN = {
    "certify.toml": 'policy = "selection"\n',
    "pyproject.toml": '[tool.other]\nx = 1\n[tool.certify]\npolicy = "selection"\n',
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_file_chooses_and_the_command_line_wins(project: Path, capsys: Capture, name: str) -> None:
    plain = in_process(["check"], capsys)
    assert (plain.code, "under policy release\n" in plain.out) == (3, True)
    (project / name).write_text(WRITTEN[name])
    chosen = in_process(["check"], capsys)
    assert (chosen.code, chosen.err) == (0, "")
    assert f"under policy selection, set by {name}\n" in chosen.out, "the file decides a verdict"
    given = in_process(["check", "--policy", "release"], capsys)
    assert (given.code, given.out) == (3, plain.out)
    data = json.loads(in_process(["check", "--format", "json"], capsys).out)
    assert (data["policy"], data["policy_set_by"]) == ("selection", name)
    explicit = json.loads(in_process(["check", "--policy", "selection", "--format", "json"], capsys).out)
    assert explicit["policy_set_by"] is None
    assert explicit["digest"] == data["digest"], "who chose the policy changes nothing that was found"


def test_files_and_formats_have_defaults(project: Path, capsys: Capture) -> None:
    (project / "tickets.json").rename(project / "mine.json")
    text = 'files = ["mine.json#tiny"]\nformat = ["json=out.json"]\npolicy = "selection"\nquiet = true\n'
    (project / "certify.toml").write_text(text)
    ran = in_process(["check"], capsys)
    assert (ran.code, ran.out.split()[0]) == (0, "report")
    assert json.loads((project / "out.json").read_text())["file"] == "mine.json"
    edit(project / "mine.json", lambda t: t["tokens"][0].update(h=1))
    assert in_process(["check", "--ticket", "gone.json"], capsys).code == 2, "tickets that are named, alone"
    assert in_process(["check", "--id", "tiny"], capsys).code == 2


REFUSED = {
    "unknown field": ('polcy = "release"', "DEFAULTS_MALFORMED"),
    "of another command": ("alpha = 0.05", "DEFAULTS_MALFORMED"),
    "type": ("policy = 1", "DEFAULTS_MALFORMED"),
    "list": ('files = "tickets.json"', "DEFAULTS_MALFORMED"),
    "not TOML": ("policy = ", "DEFAULTS_MALFORMED"),
    "escapes": ('"\\u001b[31m" = 1', "DEFAULTS_MALFORMED"),
    "policy": ('policy = "none"', "POLICY_UNKNOWN"),
    "workers": ("workers = 0", "DEFAULTS_MALFORMED"),
}


@pytest.mark.parametrize(("text", "code"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("name", WRITTEN)
def test_what_cannot_be_meant_is_refused(
    project: Path, capsys: Capture, name: str, text: str, code: str
) -> None:
    (project / name).write_text(text if name == "certify.toml" else f"[tool.certify]\n{text}\n")
    ran = in_process(["check"], capsys)
    assert (ran.code, ran.out) == (2, "")
    assert ran.one_line().endswith(f"[{code}]")
    assert in_process(["check", "-h"], capsys).code == 0, "help is there all the same"
    ran = in_process(["table", "apply", "gone", "gone", "--out", "x.safetensors"], capsys)
    assert ran.one_line().endswith("[FILE_UNREADABLE]"), "apply has defaults, a command of its name has not"


def test_two_files_that_set_defaults_are_refused(project: Path, capsys: Capture) -> None:
    for name, text in WRITTEN.items():
        (project / name).write_text(text)
    assert in_process(["check"], capsys).one_line().endswith("[DEFAULTS_TWICE]")


def test_a_file_further_up_is_not_read(project: Path, capsys: Capture) -> None:
    (project.parent / "certify.toml").write_text("nonsense")
    (project / "pyproject.toml").write_text("tool = 1\n")
    assert in_process(["check", "--policy", "selection"], capsys).code == 0
