"""Where reports go, what comes next, and what is said while one waits."""

from __future__ import annotations

import json
import re
import shlex
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from command import in_process
from ticket_folders import edit, make_ticket

from certify.cli import shell
from certify.cli.main import Commands, run
from certify.cli.registry import FORMATS

Capture = pytest.CaptureFixture[str]
NOW = r"\d{4}-\d\d-\d\dT[\d:.]+Z"


def test_every_format_in_one_run(ticket_path: Path, tmp_path: Path, capsys: Capture) -> None:
    edit(ticket_path, lambda t: t["tokens"][0].update(h=1))
    base = ["check", ticket_path, "--policy", "selection"]
    words = [word for name in FORMATS for word in ("--format", f"{name}={tmp_path / name}")]
    ran = in_process([*base, *words], capsys)
    assert (ran.code, ran.err) == (1, "")
    assert "REFUTED" in ran.out
    assert len(ran.out.splitlines()) < 8, "the summary alone"
    for name in FORMATS:
        alone = in_process([*base, "--format", name], capsys)
        assert alone.code == 1
        text = alone.out.partition("next: ")[0] if name == "terminal" else alone.out
        written = (tmp_path / name).read_text(encoding="utf-8")
        assert re.sub(NOW, "", written) == re.sub(NOW, "", text)


def test_github_gets_annotations_without_being_asked(
    ticket_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    edit(ticket_path, lambda t: t["tokens"][0].update(h=1))
    words = ["check", ticket_path, "--policy", "selection"]
    plain = in_process(words, capsys)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    for variable in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT"):
        (tmp_path / variable).write_text("before\n")
        monkeypatch.setenv(variable, str(tmp_path / variable))
    ran = in_process(words, capsys)
    annotations = [line for line in ran.out.splitlines() if line.startswith("::")]
    assert (ran.code, len(annotations)) == (1, 4)  # two, and what keeps the rest from being commands
    assert "\n".join(line for line in ran.out.splitlines() if line not in annotations) + "\n" == plain.out
    assert (tmp_path / "GITHUB_OUTPUT").read_text().startswith("before\nverdict=REFUTED\nexit-code=1\n")
    assert "REFUTED" in (tmp_path / "GITHUB_STEP_SUMMARY").read_text()
    chosen = in_process([*words, "--format", "terminal"], capsys)
    assert chosen.out.splitlines()[1:-1] == plain.out.splitlines(), "what is named is what is printed"
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path))
    ran = in_process(words, capsys)
    assert (ran.code, ran.one_line().endswith("[FILE_UNWRITABLE]")) == (2, True)


WRONG: dict[str, list[str]] = {
    "unknown": ["--format", "yaml"],
    "no file": ["--format", "json="],
    "two on standard output": ["--format", "json", "--format", "terminal"],
    "two in one file": ["--format", "json=x", "--format", "terminal=x"],
    "out of none": ["--format", "json=x", "--out", "y"],
    "a folder": ["--format", "json=."],
    "loud and quiet": ["-q", "-v"],
}


@pytest.mark.parametrize("words", WRONG.values(), ids=WRONG)
def test_what_cannot_be_written_is_refused_before_the_work(
    ticket_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, words: list[str]
) -> None:
    monkeypatch.chdir(ticket_path.parent)
    monkeypatch.setattr("certify.gate.check.check", lambda *_, **__: pytest.fail("the work has begun"))
    ran = in_process(["check", *words], capsys)
    assert (ran.code, ran.out) == (2, "")
    ran.one_line()


@pytest.mark.parametrize("fault", [True, False])
def test_what_comes_next_can_be_run(ticket_path: Path, capsys: Capture, fault: bool) -> None:
    if fault:
        edit(ticket_path, lambda t: t["tokens"][0].update(h=1))
    ran = in_process(["check", ticket_path, "--policy", "selection"], capsys)
    words = shlex.split(ran.out.splitlines()[-1].removeprefix("next: "))
    assert words[:2] == (["certify", "explain"] if fault else ["certify", "apply"])
    assert not fault or in_process(words[1:], capsys).out.startswith("TOKEN_FIGURES\n")
    data = in_process(["check", ticket_path, "--policy", "selection", "--format", "json"], capsys).out
    assert json.loads(data)["exit_code"] == int(fault), "nothing beside JSON"


def test_commands_that_make_something_name_the_next_one(tmp_path: Path, capsys: Capture) -> None:
    """From two tables to a served model, each command found in what the one before printed."""
    make_ticket(tmp_path)
    sources, made = tmp_path / "sources", tmp_path / "made"
    pair = ["--base", sources / "checkpoint", "--tuned", sources / "tuned.safetensors"]
    stand_ins = {"NAME": "again", "BASE": sources / "checkpoint", "MERGED": tmp_path / "merged"}
    words: list[Any] = ["scan", *pair]
    seen = []
    while words:
        if words[0] == "find":
            words += ["--bundle", "--out", made / "tickets.json"]
        ran = in_process(words, capsys)
        assert (ran.code, ran.err) == (0, ""), ran
        seen.append(words[0])
        last = ran.out.splitlines()[-1]
        following = shlex.split(last.removeprefix("next: "))[1:] if last.startswith("next: ") else []
        words = [stand_ins.get(word, word) for word in following]
        assert not words or Commands().get_command(None, words[0]) is not None
    assert seen == ["scan", "find", "check", "apply", "verify"]


def test_a_base_without_its_model_is_not_merged_next(tmp_path: Path, capsys: Capture) -> None:
    path = make_ticket(tmp_path)
    table = tmp_path / "sources" / "checkpoint" / "model.safetensors"
    words, seen = ["check", path, "--policy", "selection", "--base", table], []
    while words:
        ran = in_process(words, capsys)
        assert ran.code == 0, ran
        seen.append(words[0])
        last = ran.out.splitlines()[-1]
        following = shlex.split(last.removeprefix("next: certify ")) if last.startswith("next: ") else []
        words = [{"TABLE.safetensors": tmp_path / "table.safetensors"}.get(word, word) for word in following]
    assert seen == ["check", "transfer", "verify"]


def test_a_table_in_a_whole_checkpoint_is_verified_by_its_rows(tmp_path: Path, capsys: Capture) -> None:
    path, checkpoint = make_ticket(tmp_path), tmp_path / "sources" / "checkpoint"
    out = tmp_path / "table.safetensors"
    ran = in_process(["transfer", "--ticket", path, "--base", checkpoint, "--out", out], capsys)
    words = shlex.split(ran.out.splitlines()[-1].removeprefix("next: certify "))
    assert (words[0], in_process(words, capsys).code) == ("verify", 0)


def test_a_base_in_another_dtype_is_converted_before_rows_go_into_it(tmp_path: Path, capsys: Capture) -> None:
    path, checkpoint = make_ticket(tmp_path, dtype="BF16"), tmp_path / "sources" / "checkpoint"
    ran = in_process(["check", path, "--policy", "selection", "--base", checkpoint], capsys)
    words = shlex.split(ran.out.splitlines()[-1].removeprefix("next: certify "))
    assert words == ["model", "import", str(checkpoint), "--dtype", "bf16", "--out", "MODEL"]


@pytest.mark.parametrize("command", ["check", "inspect", "issue --evidence x --out y --ticket"])
def test_an_empty_id_is_not_all_tickets(ticket_path: Path, capsys: Capture, command: str) -> None:
    ran = in_process([*command.split(), f"{ticket_path}#"], capsys)
    assert (ran.code, "names no ticket" in ran.one_line()) == (2, True)


def test_progress_without_a_terminal_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, stream = [100.0], StringIO()
    monkeypatch.setattr(shell.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(sys, "stderr", stream)
    with shell.progress_bar("checking a\x1b[31m") as advance:
        for second in range(12):
            clock[0] = 100.0 + second
            advance(second, 12)
        clock[0] += shell.EVERY
        advance(1, 2, of="tickets")
    assert stream.getvalue().splitlines() == [
        *(f"checking a\\x1b[31m: {done}/12 rows" for done in (5, 10)),
        "checking a\\x1b[31m: 1/2 tickets",
    ]


def test_a_check_reports_progress_by_ticket(
    ticket_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(shell, "EVERY", 0.0)
    assert run(["check", str(ticket_path), "--policy", "selection"]) == 0
    assert f"checking {ticket_path}: 1/1 tickets\n" in capsys.readouterr().err
