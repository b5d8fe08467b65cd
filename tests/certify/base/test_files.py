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


# What of certify reads files by a way other than the door, and why it may.
ELSEWHERE = {
    "certify/base/locks.py": "folders and temporary files, to hold them",
    "certify/base/staging.py": "what it wrote itself",
    "certify/cli/archive.py": "files of the package",
    "certify/cli/shell.py": "the summary of a pipeline, to append to it",
    "certify/models/archive.py": "members of an archive that the door opened",
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


def named(word: str, path: Path, ticket: Path, folder: Path) -> list[object]:
    """A command with one of its options, as "check --base", that names ``path``; all else is right."""
    command, option = word.split()
    base, tuned = ticket.parent / "base" / "embed_tokens.safetensors", ticket.parent / "reference"
    pair = {"--base": base, "--tuned": tuned / "embed_tokens.safetensors"}
    manifest, out = ticket.parent / "evidence" / "translated.json", folder / "out"
    text = {"--data": folder / "none", "--source": "en", "--target": "ca"}
    settings: dict[str, dict[str, object]] = {
        "check": {"FILE": ticket},
        "checker": {"FILE": ticket.parent},
        "scan": pair,
        "find": pair | {"--id": "x", "--out": out / "tickets.json"},
        "issue": {"--ticket": ticket, "--evidence": manifest, "--out": ticket.parent / "c.json"},
        "transfer": {"--ticket": ticket, "--out": out / "t.safetensors"},
        "apply": {"--ticket": ticket, "--base": base, "--out": out},
        "export": {"--ticket": ticket, "--out": out},
        "verify": {"--ticket": ticket, "--served": base},
        "import": {"FILE": tuned, "--base": base, "--out": out},
        "count": {"FILE": base, "--base": base, "--tokenizer": base.parent, "--out": out / "n.npy"},
        "tune": text | {"--base": base.parent, "--out": out},
        "evaluate": text | {"--base": base.parent},
        "power": {"FILE": "gain"},
    }
    given = settings.get(command, {"--out": out}) | {option: path}
    if option == "--counts":
        given["--rule"] = "frequency:3"
    if option == "--evidence" and command == "find":
        given["--guarantee"] = "agreement:.1"
    if option == "--tuned-rows":
        given["--rule"] = "ids:9"
    return [command, *(w for name, value in given.items() for w in (name, value) if w != "FILE")]


OPTIONS = """
    check FILE, check --policy, check --certificate, check --base, check --reference, check --tokenizer,
    checker --policy, scan --base, scan --tuned, scan --tokenizer, find --base, find --tuned, find --template,
    find --tokenizer, find --counts, find --tuned-rows, find --evidence, find --out, issue --ticket,
    issue --evidence, issue --base, issue --reference, issue --tokenizer, transfer --ticket, transfer --base,
    transfer --tuned, apply --ticket, apply --base, export --ticket, export --base, verify --ticket,
    verify --served, verify --base, import FILE, count FILE, count --base, count --tokenizer, tune --base,
    tune --data, tune --template, evaluate --base, evaluate --data, evaluate --ticket, evaluate --table,
    power --pilot, experiment FILE, pretrain FILE
"""


@pytest.mark.parametrize("kind", ["a pipe", "a device", "a folder"])
def test_what_is_no_file_in_place_of_any_option_is_wrong_use(
    honest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    for word in OPTIONS.replace("\n", "").split(","):
        end = {"--base": ".safetensors", "--counts": ".npy"}.get(word.split()[1], ".toml")
        path = tmp_path / f"it{end}"
        if not os.path.lexists(path):
            {"a pipe": os.mkfifo, "a folder": os.mkdir, "a device": lambda p: p.symlink_to("/dev/zero")}[
                kind
            ](path)
        ran = in_process(named(word, path, honest / "tickets.json", tmp_path), capsys)
        assert ran.code == 2, f"{word}: {ran}"
        assert word.startswith("checker ") or len(ran.err.splitlines()) == 1, f"{word}: {ran}"
    assert not (tmp_path / "out").exists()
