"""Running the command: in process, and as a process of its own."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

from certify.cli.main import app, run

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str

    def one_line(self) -> str:
        """The one line on standard error that every failure has, and nothing that drives a terminal."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("certify: "), self.err
        assert lines[0].isprintable(), self.err
        return lines[0]


def following(printed: str) -> list[str]:
    """Words of the command that the last line names, ``certify`` left out; the real one takes them."""
    first, name, *words = shlex.split(printed.splitlines()[-1].removeprefix("next: "))
    assert first == "certify", printed
    group: Any = typer.main.get_command(app)
    group.get_command(None, name).make_context(name, [*words])
    return [name, *words]


def in_process(arguments: Sequence[object], capsys: pytest.CaptureFixture[str]) -> Ran:
    """``certify ARGUMENTS`` in this process."""
    capsys.readouterr()
    code = run([str(word) for word in arguments])
    captured = capsys.readouterr()
    return Ran(code, captured.out, captured.err)


def environment(**changes: str) -> dict[str, str]:
    """The environment of a command: this one, able to import the packages, without settings for terminals."""
    clean = {
        k: v
        for k, v in os.environ.items()
        if k not in {"COLUMNS", "FORCE_COLOR", "NO_COLOR", "PYTHONIOENCODING"}
    }
    return clean | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"} | changes


def as_process(arguments: Sequence[object], **changes: str) -> Ran:
    """``python -m certify ARGUMENTS`` as a process of its own."""
    command = [sys.executable, "-m", "certify", *(str(word) for word in arguments)]
    done = subprocess.run(command, capture_output=True, env=environment(**changes), timeout=120, check=False)
    return Ran(done.returncode, done.stdout.decode("utf-8"), done.stderr.decode("utf-8"))
