"""On the light core, what needs an extra says in one line how to install it, and is no internal error."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from command import Ran, environment

from certify.cli.shell import EXTRAS

ROOT = Path(__file__).resolve().parents[3]

# Python as if none of the extras were installed.
LIGHT = """
import sys
from importlib.machinery import PathFinder
from certify.cli.shell import EXTRAS
found = PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in EXTRAS else found(name, path, target)
PathFinder.find_spec = staticmethod(find_spec)
from certify.cli.main import main
main()
"""


def light(*words: object) -> Ran:
    command = [sys.executable, "-c", LIGHT, *map(str, words)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(), timeout=120, check=False
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def test_every_package_of_an_extra_is_known() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    imported = {"z3-solver": "z3", "python-flint": "flint"}
    listed = {
        imported.get(package, package): extra
        for extra in ("fast", "tune", "proofs", "spbleu", "gguf", "parquet")
        for package in (re.split("[><=]", line)[0] for line in extras[extra])
    }
    assert listed == EXTRAS


COMMANDS = {
    "proofs": ["prove", "--fast"],
    "tune": [
        *("tune", "--base", "b", "--data", "d", "--source", "en", "--target", "ca", "--seed", "0"),
        *("--out", "run"),
    ],
    "parquet": ["scan", "--base", "b", "--tuned", "t", "--out", "x.parquet"],
}


@pytest.mark.parametrize("extra", COMMANDS)
def test_a_command_without_its_extra_says_how_to_install_it(extra: str) -> None:
    ran = light(*COMMANDS[extra])
    assert ran.code == 2
    line = ran.one_line()
    assert f"python -m pip install -e '.[{extra}]'" in line
    assert line.endswith("[EXTRA_MISSING]")


@pytest.mark.parametrize("words", [["experiment", "smoke", "--out"], ["evaluate", "--base"]])
def test_no_command_of_models_breaks(words: list[str], tmp_path: Path) -> None:
    assert light(*words, tmp_path / "x").code == 2


@pytest.mark.parametrize("words", [["--help"], ["prove", "--list"], ["tune", "--help"], ["explain"]])
def test_what_needs_no_extra_works(words: list[str]) -> None:
    assert light(*words).code == 0
