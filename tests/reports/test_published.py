"""What is published is what its manifest lists, byte for byte."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from certify.base.jsonio import sha256_file

PUBLISHED = Path(__file__).parents[2] / "reports" / "published"
RUNS = sorted(path.parent for path in PUBLISHED.glob("*/manifest.json"))


def test_there_are_published_runs() -> None:
    assert {run.name for run in RUNS} == {
        "en-ca-experiment",
        "en-ca-second",
        "en-ca-whole",
        "gemma3-en-ca",
        "gemma3-en-es",
        "smollm2-es-en",
        "three-pairs",
    }


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_every_file_that_travels_is_the_one_of_the_manifest(run: Path) -> None:
    listed = json.loads((run / "manifest.json").read_text(encoding="utf-8"))["files"]
    files = {path for path in run.rglob("*") if path.is_file()}
    travels = {path.relative_to(run).as_posix(): path for path in files}
    assert travels.keys() - {"README.md", "manifest.json"} <= listed.keys()
    wrong = [name for name in travels.keys() & listed.keys() if listed[name] != sha256_file(travels[name])]
    assert wrong == []
