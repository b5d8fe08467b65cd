"""What commands write: a failed one leaves nothing, and nothing else is written over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command import environment, in_process
from disks import full_disk
from evidence_folders import Bundle, make_bundle
from ticket_folders import base_table, pieces, tuned_table, write_sources

import certify.gate.issue

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    base, tuned, *_ = write_sources(tmp_path_factory.mktemp("sources"), base_table(), tuned_table(), pieces())
    return ["--base", base, "--tuned", tuned, "--engine", "numpy"]


@pytest.mark.parametrize("size", [0, 400, 1500, 9000])
def test_a_full_disk_leaves_nothing(
    bundle: Bundle, pair: list[object], tmp_path: Path, capsys: Capture, size: int
) -> None:
    new = tmp_path / "new"
    ticket = ["--ticket", bundle.path]
    for words, least in (
        (["find", *pair, "--id", "x", "--bundle", "--out", new / "deep" / "tickets.json"], 1500),
        (["scan", *pair, "--out", new / "deep" / "scan.csv"], 400),
        (["transfer", *ticket, "--out", new / "deep" / "t.safetensors"], 400),
        (["export", *ticket, "--out", new / "deep" / "adapter"], 0),
        (["check", *ticket, "--format", "json", "--out", new / "deep" / "report.json"], 9000),
        (["schema", "ticket", "--out", new / "deep" / "schema.json"], 9000),
        (["checker", "--write", new / "deep" / "checker.pyz"], 9000),
    ):
        if size > least:
            continue
        with full_disk(size):
            ran = in_process(words, capsys)
        assert ran.code == 2, f"{words}: {ran}"
        assert ran.one_line().endswith("[FILE_UNWRITABLE]"), words
        assert not new.exists(), f"{words}: {[*new.rglob('*')]}"


def test_a_full_disk_leaves_what_was_there(pair: list[object], tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "tickets.json"
    assert in_process(["find", *pair, "--id", "one", "--bundle", "--out", out], capsys).code == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with full_disk(1500):  # enough for the rows, not for the ticket file
        assert in_process(["find", *pair, "--id", "two", "--out", out], capsys).code == 2
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_no_folder_for_temporary_files_is_one_line(pair: list[object], tmp_path: Path) -> None:
    source = (
        "import tempfile; tempfile._candidate_tempdir_list = lambda: []\n"
        "from certify.cli.main import main; main()"
    )
    words = ["find", *pair, "--id", "x", "--out", tmp_path / "tickets.json"]
    done = subprocess.run(
        [sys.executable, "-c", source, *map(str, words)],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
        timeout=120,
    )
    # What the library of models does at its import is its own affair: done, or said what is missing.
    assert done.returncode in (0, 2), done.stderr
    assert done.returncode == 0 or done.stderr.strip().endswith("[NO_TEMPORARY_FILES]")
    assert len(done.stderr.splitlines()) <= 1


# --- what lies there already -------------------------------------------------------------------------------

WRITERS = {
    "schema": ["schema", "ticket", "--out"],
    "checker": ["checker", "--write"],
    "prove": ["prove", "--fast", "--only", "no such check", "--out"],
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("content", [b"", b"my notes\n", b'{"title": "Mine", "schema": "x"}', b"PK\x03\x04"])
def test_another_kind_of_file_is_not_written_over(
    tmp_path: Path, capsys: Capture, name: str, content: bytes
) -> None:
    out = tmp_path / "mine"
    out.write_bytes(content)
    ran = in_process([*WRITERS[name], out], capsys)
    assert (ran.code, out.read_bytes()) == (2, content)
    assert ran.one_line().endswith("[OUT_EXISTS]")


@pytest.mark.parametrize("words", [WRITERS["schema"], WRITERS["checker"]])
def test_what_the_command_wrote_before_is_written_again(
    tmp_path: Path, capsys: Capture, words: list[object]
) -> None:
    out = tmp_path / "new" / "it"
    assert in_process([*words, out], capsys).code == 0
    written = out.read_bytes()
    out.write_bytes(written + b" ")  # as of another version
    assert in_process([*words, out], capsys).code == 0
    assert out.read_bytes() == written


@pytest.mark.parametrize("kind", ["folder", "pipe", "device"])
def test_no_file_takes_the_place_of_something_else(tmp_path: Path, capsys: Capture, kind: str) -> None:
    out = tmp_path / "out"
    {"folder": os.mkdir, "pipe": os.mkfifo, "device": lambda path: path.symlink_to("/dev/zero")}[kind](out)
    before = out.lstat().st_mode
    for words in WRITERS.values():
        ran = in_process([*words, out], capsys)
        assert (ran.code, out.lstat().st_mode) == (2, before), words
        assert ran.one_line().endswith("[FILE_UNWRITABLE]")


def test_issue_looks_at_its_output_before_the_work(
    bundle: Bundle, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(*_: object) -> None:
        raise AssertionError("the work has begun")

    monkeypatch.setattr(certify.gate.issue, "recheck", work)
    out = bundle.folder / "notes.json"
    out.write_text(json.dumps({"mine": 1}), encoding="utf-8")
    words = ["issue", "--ticket", bundle.path, "--evidence", bundle.translated, "--out", out]
    ran = in_process(words, capsys)
    assert (ran.code, json.loads(out.read_text(encoding="utf-8"))) == (2, {"mine": 1})
    assert ran.one_line().endswith("[OUT_EXISTS]")
    out.unlink()
