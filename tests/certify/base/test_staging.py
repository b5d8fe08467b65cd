"""Writers at the same time and writers that are killed: nothing is lost, and nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command import Ran, environment
from evidence_folders import make_bundle
from ticket_folders import base_table, pieces, tuned_table, write_sources

from certify.base import locks
from certify.base.errors import InvalidInputError, UsageError
from certify.base.jsonio import atomic_writer, write_bytes
from certify.base.staging import changing, staged_folder


def start(*words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "certify", *map(str, words)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )


def end(process: subprocess.Popen[str]) -> Ran:
    out, err = process.communicate(timeout=120)
    return Ran(process.returncode, out, err)


def script(source: str, *words: object) -> subprocess.Popen[str]:
    """A Python process that runs ``source`` and has said "ready"."""
    process = subprocess.Popen(
        [sys.executable, "-c", source, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.communicate()
    return process


# --- at the same time ------------------------------------------------------------------------------------


def test_finds_at_once_each_leave_their_ticket(tmp_path: Path) -> None:
    sources = write_sources(tmp_path / "sources", base_table(), tuned_table(), pieces())
    out = tmp_path / "one" / "tickets.json"
    running = [
        start("find", "--base", sources[0], "--tuned", sources[1], "--id", f"t{i}", "--bundle", "--out", out)
        for i in range(3)
    ]
    ended = [end(process) for process in running]
    assert [ran.code for ran in ended] == [0] * 3, [ran.err for ran in ended]
    assert sorted(one["id"] for one in json.loads(out.read_text())["tickets"]) == ["t0", "t1", "t2"]
    assert not list(out.parent.rglob(".*"))


def test_certificates_attached_at_once_are_all_there(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    content = json.loads(bundle.path.read_text())
    (ticket,) = content["tickets"]
    ticket |= {"certificate": None, "evidence": []}
    content["tickets"] = [ticket | {"id": f"t{i}"} for i in range(3)]
    bundle.path.write_text(json.dumps(content))
    evidence = [word for path in (bundle.translated, bundle.unrelated) for word in ("--evidence", path)]
    running = [
        start(
            "issue",
            *("--ticket", f"{bundle.path}#t{i}", *evidence),
            *("--out", bundle.folder / f"c{i}.json", "--attach"),
        )
        for i in range(3)
    ]
    ended = [end(process) for process in running]
    assert [ran.code for ran in ended] == [0] * 3, [ran.err for ran in ended]
    attached = json.loads(bundle.path.read_text())["tickets"]
    assert [one["certificate"]["path"] for one in attached] == ["c0.json", "c1.json", "c2.json"]


def test_what_another_program_wrote_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for first in (None, b"one"):
        if first is not None:
            path.write_bytes(first)
        with changing(path) as write:
            path.write_bytes(b"theirs")  # it asks nobody
            with pytest.raises(UsageError) as error:
                write(b"ours")
        assert error.value.code == "FILE_CHANGED"
        assert path.read_bytes() == b"theirs"
    with changing(path) as write:
        write(b"ours")
    assert path.read_bytes() == b"ours"


def test_a_system_without_locks_refuses_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "fcntl", None)
    test_what_another_program_wrote_is_not_replaced(tmp_path)
    leftover = tmp_path / ".file.abcdefgh.part"
    leftover.write_bytes(b"perhaps somebody still writes it")
    write_bytes(tmp_path / "file", b"x")
    assert leftover.exists()


def test_a_process_does_not_wait_for_itself(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "out") as staged, changing(staged / "a") as first:
        with changing(staged / "b") as second:
            second(b"b")
        first(b"a")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "b"]
    assert not locks._HELD


# --- killed ----------------------------------------------------------------------------------------------

WRITING = {
    "file": """
import sys, time
from pathlib import Path
from certify.base.jsonio import atomic_writer
with atomic_writer(Path(sys.argv[1])) as stream:
    stream.write(b"half"); stream.flush(); print("ready", flush=True); time.sleep(600)
""",
    "folder": """
import sys, time
from pathlib import Path
from certify.base.staging import staged_folder
with staged_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_bytes(b"x"); print("ready", flush=True); time.sleep(600)
""",
}


def write_file(path: Path) -> None:
    with atomic_writer(path) as stream:
        stream.write(b"whole")


def write_folder(path: Path) -> None:
    with staged_folder(path) as folder:
        (folder / "whole").write_bytes(b"x")


@pytest.mark.parametrize(("kind", "again"), [("file", write_file), ("folder", write_folder)])
def test_the_next_writer_removes_what_a_killed_one_left(
    tmp_path: Path, kind: str, again: Callable[[Path], None]
) -> None:
    process = script(WRITING[kind], tmp_path / "out")
    other = script(WRITING[kind], tmp_path / "out")
    process.kill()
    end(process)
    assert len(list(tmp_path.glob(".out.*.part"))) == 2
    again(tmp_path / "out")
    # The one that is alive keeps what it writes.
    assert len(list(tmp_path.glob(".out.*.part"))) == 1
    other.kill()
    end(other)
    if kind == "file":
        again(tmp_path / "out")
        assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_only_what_has_our_names_is_removed(tmp_path: Path) -> None:
    others = [".out.part", ".out.1.part", ".out.ABCDEFGH.part", ".output.abcdefgh.part", "out.abcdefgh.part"]
    for name in others:
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / ".out.linked12.part").symlink_to(others[0])
    os.mkfifo(tmp_path / ".out.pipe1234.part")
    (tmp_path / ".out.abcdefgh.part").write_bytes(b"x")
    write_file(tmp_path / "out")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"out", *others, ".out.linked12.part", ".out.pipe1234.part"}


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGTERM, 143, "TERMINATED"), (signal.SIGINT, 130, "INTERRUPTED")]
)
def test_a_run_that_is_ended_cleans_up(tmp_path: Path, number: int, code: int, word: str) -> None:
    source = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored by background jobs of a shell
        "from pathlib import Path\n"
        "import certify.gate.check\n"
        "from certify.base.jsonio import atomic_writer\n"
        "out = Path(sys.argv[1])\n"
        "def check(*_, **__):\n"
        "    with atomic_writer(out):\n"
        "        print('ready', flush=True)\n"
        "        time.sleep(600)\n"
        "certify.gate.check.check = check\n"
        "sys.argv = ['certify', 'check']\n"
        "from certify.cli.main import main\n"
        "main()\n"
    )
    process = script(source, tmp_path / "out")
    assert len(list(tmp_path.iterdir())) == 1
    process.send_signal(number)
    ran = end(process)
    assert ran.code == code
    assert word in ran.one_line()
    assert list(tmp_path.iterdir()) == []


# --- what is said ------------------------------------------------------------------------------------------


def test_an_error_names_the_folder_that_was_asked_for(tmp_path: Path) -> None:
    def failing(folder: Path) -> None:
        raise InvalidInputError(f"{folder / 'x'} is no such thing", code="SOME_CODE")

    with pytest.raises(InvalidInputError) as caught, staged_folder(tmp_path / "out") as staged:
        failing(staged)
    assert (str(caught.value), caught.value.code) == (
        f"{tmp_path / 'out' / 'x'} is no such thing",
        "SOME_CODE",
    )


def test_a_name_that_no_file_system_takes_is_an_error_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="File name too long"), staged_folder(tmp_path / ("n" * 300)):
        pass
