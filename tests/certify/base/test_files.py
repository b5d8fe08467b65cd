"""One door for reading: regular files pass; pipes, devices, sockets and folders are refused, at once."""

from __future__ import annotations

import ast
import os
import shutil
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from command import in_process
from evidence_folders import make_bundle

import certify
import certify.checker
from certify.base.errors import UsageError
from certify.base.files import opened
from certify.base.jsonio import read_bytes, sha256_file

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def _nothing_hangs() -> Iterator[None]:
    def late(*_: object) -> None:
        raise AssertionError("it waits for a pipe")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def put(folder: Path, kind: str) -> Path:
    path = folder / "thing"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(path))
        server.close()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    return path


@pytest.mark.parametrize("kind", ["pipe", "folder", "socket", "device", "nothing"])
def test_only_files_are_read(tmp_path: Path, kind: str) -> None:
    path = put(tmp_path, kind)
    for read in (
        lambda: read_bytes(path, what="policy", limit=10),
        lambda: sha256_file(path),
        lambda: opened(path).__enter__(),
    ):
        with pytest.raises(UsageError) as error:
            read()
        assert error.value.code == "FILE_UNREADABLE"
        assert f"is a {kind}" in str(error.value) or kind == "nothing"


def test_what_becomes_a_pipe_between_asking_and_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path, "pipe")
    monkeypatch.setattr(Path, "stat", lambda *_, **__: SimpleNamespace(st_mode=stat.S_IFREG))
    with pytest.raises(UsageError, match="is a pipe"), opened(path):
        pass


def test_a_link_to_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"x")
    (tmp_path / "link").symlink_to("real")
    assert read_bytes(tmp_path / "link", what="file", limit=1) == b"x"


# What of certify reads files by another way than the door, and why it may.
ELSEWHERE = {
    "certify/base/locks.py": "folders and temporary files, to hold them",
    "certify/base/staging.py": "what it wrote itself",
    "certify/cli/archive.py": "files of the package",
    "certify/policy/codes.py": "a file of the package",
    "certify/selection/rules.py": "a file of the package",
    "certify/ticket/templates.py": "files of the package",
    "certify/ticket/merge.py": "the staged copy, to patch it",
}
READS = {"open", "read_bytes", "read_text", "memmap", "fromfile", "load_file", "safe_open"}
DOORS = {"certify/base/files.py", "certify/base/jsonio.py", "certify/checker/tables.py"}


def reads(path: Path) -> list[int]:
    """Lines that open files other than through the door; ``lzma.open(raw)`` takes what is open already."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            first = ast.unparse(node.args[0]) if node.args else ""
            opens = name.rpartition(".")[2] in READS and first not in {"raw", "stream", "os.devnull"}
            if opens and name != "read_bytes":  # our own
                found.append(node.lineno)
    return found


def test_there_is_no_other_door() -> None:
    others = {}
    for path in sorted((ROOT / "certify").rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if name not in DOORS and reads(path):
            others[name] = reads(path)
    assert others.keys() == ELSEWHERE.keys(), others


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle")).path.parent


def test_a_pipe_in_place_of_any_file_is_refused_by_both_programs(honest: Path, tmp_path: Path) -> None:
    names = sorted(path.relative_to(honest) for path in honest.rglob("*") if path.is_file())
    assert len(names) > 8
    for number, name in enumerate(names):
        folder = tmp_path / str(number)
        shutil.copytree(honest, folder)
        (folder / name).unlink()
        os.mkfifo(folder / name)
        if name.name == "tickets.json":
            with pytest.raises(UsageError, match="is a pipe"):
                certify.check(folder / name, engine="numpy")
            with pytest.raises(certify.checker.tables.Stop):
                certify.checker.verify(folder)
            continue
        code = int(certify.check(folder / "tickets.json", engine="numpy").exit_code)
        verdicts = certify.checker.verify(folder)["tiny"]
        assert (code, verdicts["release"].status) == (4, "INVALID"), name


def test_a_pipe_in_place_of_any_option_is_one_line(
    ticket_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = tmp_path / "pipe.toml"
    os.mkfifo(pipe)
    pair = ["--base", pipe, "--tuned", pipe]
    good = ["--base", ticket_path.parent / "base" / "embed_tokens.safetensors"]
    good += ["--tuned", ticket_path.parent / "reference" / "embed_tokens.safetensors", "--id", "x"]
    good += ["--out", tmp_path / "out" / "tickets.json"]
    for words in (
        ["check", pipe],
        ["check", ticket_path, "--policy", pipe],
        ["check", ticket_path, "--policy", "release", "--certificate", pipe],
        ["check", ticket_path, "--policy", "selection", "--base", pipe],
        ["check", ticket_path, "--policy", "selection", "--tokenizer", pipe],
        ["scan", *pair],
        ["find", *good, "--template", pipe],
        ["find", *good, "--rule", "frequency:3", "--counts", pipe],
        ["find", *good, "--tokenizer", pipe],
        ["find", *good, "--tuned-rows", pipe],
        ["issue", "--ticket", ticket_path, "--evidence", pipe, "--out", tmp_path / "c.json"],
        ["transfer", "--ticket", ticket_path, "--base", pipe, "--out", tmp_path / "t.safetensors"],
        ["verify", "--ticket", ticket_path, "--served", pipe],
        ["import", pipe, *pair[:2], "--out", tmp_path / "i"],
        ["count", pipe, "--tokenizer", ticket_path.parent / "base", "--out", tmp_path / "n.npy"],
        ["experiment", pipe, "--out", tmp_path / "run"],
        ["pretrain", pipe, "--out", tmp_path / "run"],
        ["checker", ticket_path.parent, "--policy", pipe],
    ):
        ran = in_process(words, capsys)
        assert ran.code in {2, 3, 4}, words
        assert "internal" not in ran.err, words
        assert len(ran.err.splitlines()) <= 1 or words[0] == "checker", words
