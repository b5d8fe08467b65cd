"""Help, completion and the reference: of every command, in 80 columns, and as the commands are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command import ROOT, as_process, in_process

from certify.base.records import Correction, Engine, Method
from certify.cli.options import POLICIES
from certify.cli.reference import page
from certify.cli.registry import COMMANDS, FORMATS, GROUPS
from certify.policy.policy import SHIPPED

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize("name", ["", *GROUPS, *COMMANDS])
def test_help_reads_well_at_80_columns(name: str, capsys: Capture) -> None:
    long = in_process([*name.split(), "--help"], capsys)
    assert (long.code, long.err) == (0, "")
    assert in_process([*name.split(), "-h"], capsys) == long
    lines = long.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert not re.search(r"[│╭╰─<]|\w\.\.\.$", long.out, re.MULTILINE), "no boxes, no types, nothing cut off"
    assert not name or len(max(lines, key=len)) > 60, "lines are used"


def test_options_say_what_the_library_takes(capsys: Capture) -> None:
    assert POLICIES == SHIPPED
    text = " ".join(in_process(["find", "-h"], capsys).out.split())
    for values in (Engine, Correction, Method):
        assert "|".join(values.__args__) in text
    text = " ".join(in_process(["check", "-h"], capsys).out.split())
    assert all(name in text for name in (*SHIPPED, *FORMATS))


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("certify che", {"check", "checker"}),
        ("certify check --pol", {"--policy"}),
        ("certify check --policy dr", {"drop-in"}),
        ("certify check --policy paper --policy dr", {"drop-in"}),
        ("certify check --format js", {"json"}),
        ("certify explain CLAIM_R", {"CLAIM_REFUTED"}),
        ("certify scan --engine num", {"numba", "numpy"}),
    ],
)
def test_a_shell_completes_commands_options_and_names(words: str, offered: set[str]) -> None:
    asked = {"_CERTIFY_COMPLETE": "complete_bash", "COMP_WORDS": words}
    ran = as_process([], **asked, COMP_CWORD=str(len(words.split()) - 1))
    assert (ran.code, ran.err, set(ran.out.split())) == (0, "", offered)


def test_completion_is_shown_for_a_shell() -> None:
    # Which shell runs the tests is no matter: without detection the option takes its name.
    ran = as_process(["--show-completion", "bash"], _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert (ran.code, ran.err) == (0, "")
    assert "_CERTIFY_COMPLETE=complete_bash" in ran.out


def test_the_reference_is_fresh() -> None:
    written = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert written == page(), "python -m certify.cli.reference > docs/commands.md"
    assert re.findall("^## certify (.+)$", written, re.MULTILINE) == list(COMMANDS)
    assert Path("docs/commands.md").name in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
