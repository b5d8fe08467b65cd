"""Formats on the command line: one exit code, files that are whole, what GitHub Actions is told."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from command import as_process, environment, in_process
from ticket_folders import edit

from certify.cli.registry import FORMATS

Capture = pytest.CaptureFixture[str]
CODES = {"certified": 0, "refuted": 1, "malformed": 4}


def spoil(path: Path, kind: str) -> Path:
    if kind == "refuted":
        edit(path, lambda ticket: ticket["tokens"][0].update(h=1))
    if kind == "malformed":
        path.write_text("{")
    return path


@pytest.mark.parametrize("kind", CODES)
def test_every_format_has_the_same_exit_code_and_digest(
    ticket_path: Path, tmp_path: Path, capsys: Capture, kind: str
) -> None:
    words = ["check", spoil(ticket_path, kind), "--policy", "selection"]
    alone = {name: in_process([*words, "--format", name], capsys) for name in FORMATS}
    assert {name: ran.code for name, ran in alone.items()} == dict.fromkeys(FORMATS, CODES[kind])
    files = {name: tmp_path / f"report.{name}" for name in FORMATS}
    together = in_process([*words, *(f"--format={name}={path}" for name, path in files.items())], capsys)
    assert together.code == CODES[kind]
    digest = json.loads(files["json"].read_text())["digest"]
    left_out = {"terminal"} if kind == "malformed" else {"gitlab"} if kind == "certified" else set()
    for name in FORMATS.keys() - left_out:
        assert digest in files[name].read_text(), name
        assert digest in alone[name].out, name
    if kind == "malformed":  # a program that reads one of them learns of it all the same
        (error,) = json.loads(files["json"].read_text())["errors"]
        assert (error["file"], error["code"]) == (str(ticket_path), "JSON_MALFORMED")
        assert "JSON_MALFORMED" in alone["json"].one_line()


def test_a_pipe_does_not_hide_the_verdict(ticket_path: Path) -> None:
    spoil(ticket_path, "refuted")
    certify = f"{sys.executable} -m certify check {ticket_path} --policy selection"
    for name in ("terminal", "markdown"):
        script = f"set -o pipefail; {certify} --format {name} | head -c 1 > /dev/null"
        assert (
            subprocess.run(["bash", "-c", script], env=environment(), check=False, timeout=120).returncode
            == 1
        )


def test_two_runs_in_one_folder_leave_whole_files(ticket_path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(ticket_path.parent, other)
    kinds = {ticket_path: 0, spoil(other / ticket_path.name, "refuted"): 1}
    out = tmp_path / "out"
    out.mkdir()
    formats = [f"--format={name}={out / name}" for name in ("json", "junit", "sarif")]
    command = [sys.executable, "-m", "certify", "check", "--policy", "selection", *formats]
    runs = {
        path: subprocess.Popen([*command, str(path)], env=environment(), stdout=subprocess.DEVNULL)
        for path in (*kinds,)
    }
    assert {path: run.wait(timeout=120) for path, run in runs.items()} == kinds
    assert sorted(path.name for path in out.iterdir()) == ["json", "junit", "sarif"]
    said = json.loads((out / "json").read_text())["exit_code"]
    assert said in (0, 1)
    assert int(ET.fromstring((out / "junit").read_text()).attrib["failures"]) in (0, 1)
    assert len(json.loads((out / "sarif").read_text())["runs"][0]["results"]) in (0, 1)


@pytest.mark.parametrize("kind", CODES)
def test_github_actions_is_told_in_its_own_words(ticket_path: Path, tmp_path: Path, kind: str) -> None:
    files = {"GITHUB_STEP_SUMMARY": str(tmp_path / "summary"), "GITHUB_OUTPUT": str(tmp_path / "outputs")}
    (tmp_path / "summary").write_text("# before\n")
    words = ["check", spoil(ticket_path, kind), "--policy", "selection"]
    ran = as_process(words, GITHUB_ACTIONS="true", **files)
    assert ran.code == CODES[kind]
    told, _, shown = ran.out.partition("::stop-commands::")
    assert "exit code" in shown
    assert all(line.startswith(("::error ", "::notice ")) for line in told.splitlines())
    assert (tmp_path / "summary").read_text().startswith("# before\n# Lottery tickets")
    assert f"exit-code={CODES[kind]}\n" in (tmp_path / "outputs").read_text()
    assert ran.err.count("certify: ") == (kind == "malformed")
    named = as_process([*words, "--format", "json"], GITHUB_ACTIONS="true", **files)
    assert json.loads(named.out)["exit_code"] == CODES[kind]
    assert (tmp_path / "outputs").read_text().count("exit-code=") == 1, "only the format github speaks to it"


def test_words_on_the_terminal_of_an_action_are_no_commands(ticket_path: Path) -> None:
    edit(ticket_path, lambda ticket: ticket["tokens"][0].update(piece="::error::x"))
    words = ["check", ticket_path, "--policy", "selection", "--format", "terminal", "--verbose"]
    first, *lines, last = as_process(words, GITHUB_ACTIONS="true").out.splitlines()
    assert any(line.strip().startswith("::error::x") for line in lines), "the control: it would be one"
    token = first.removeprefix("::stop-commands::")
    assert len(token) == 64
    assert last == f"::{token}::"
    assert not any(line.strip() == last for line in lines)


def test_what_comes_next_is_to_sign_what_was_certified(
    ticket_path: Path, tmp_path: Path, capsys: Capture
) -> None:
    for name in ("intoto", "svr"):
        place = tmp_path / f"{name}.json"
        words = ["check", ticket_path, "--policy", "selection", f"--format={name}={place}"]
        *_, last = in_process(words, capsys).out.splitlines()
        assert (
            last == f"next: cosign attest-blob --statement {place} --bundle {tmp_path / name}.sigstore.json"
        )
