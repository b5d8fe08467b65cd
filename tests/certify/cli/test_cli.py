"""The command line: one exit code in every format, one line for every error, nothing heavy."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Ran, as_process, environment, in_process
from evidence_folders import make_bundle
from ticket_folders import MOVED, base_table, edit, make_ticket, tuned_table, write_json

import certify.gate.check
from certify import __version__

COMMANDS = ("check", "find", "scan", "schema", "count")
Capture = pytest.CaptureFixture[str]


def leave(_: Path) -> None:
    """The honest ticket."""


def refute(path: Path) -> None:
    edit(path, lambda t: t["tokens"][0].update(h=1))


def invalidate(path: Path) -> None:
    edit(path, lambda t: t["base"].update(tensor_sha256="0" * 64))


def empty(path: Path) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, content | {"tickets": []})


# --- check -----------------------------------------------------------------------------------------------

OUTCOMES: dict[str, tuple[Any, str, int]] = {
    "certified": (leave, "selection", 0),
    "refuted": (refute, "selection", 1),
    "inconclusive": (leave, "release", 3),
    "invalid": (invalidate, "selection", 4),
    "nothing": (empty, "selection", 5),
    "malformed": (lambda path: path.write_text("{"), "selection", 4),
    "gone": (lambda path: path.unlink(), "selection", 2),
}


@pytest.mark.parametrize(("change", "policy", "code"), OUTCOMES.values(), ids=OUTCOMES.keys())
def test_the_exit_code_is_the_same_in_every_format(
    ticket_path: Path, tmp_path: Path, capsys: Capture, change: Any, policy: str, code: int
) -> None:
    change(ticket_path)
    base = ["check", "--ticket", ticket_path, "--policy", policy]
    for extra in (
        [],
        ["--verbose"],
        ["--format", "json"],
        ["--out", tmp_path / "report.txt"],
        ["--format", "json", "--out", tmp_path / "report.json"],
        ["--engine", "numpy", "--workers", "1"],
    ):
        ran = in_process([*base, *extra], capsys)
        assert ran.code == code, extra
        if code in {2, 5} or change is OUTCOMES["malformed"][0]:
            ran.one_line()
            assert bool(ran.out) == ("--format" in extra), "what reads a format learns of it there"
        else:
            assert ran.err == ""
            verdict = {0: "CERTIFIED", 1: "REFUTED", 3: "INCONCLUSIVE", 4: "INVALID"}[code]
            assert verdict in ran.out, "wherever the report goes, the verdict is printed"
            assert ran.out.endswith("}\n") or ran.out.splitlines()[-1].startswith("next: certify ")


def test_formats_say_the_same(ticket_path: Path, tmp_path: Path, capsys: Capture) -> None:
    refute(ticket_path)
    base = ["check", "--ticket", ticket_path, "--policy", "selection"]
    text = in_process(base, capsys).out
    data = json.loads(in_process([*base, "--format", "json"], capsys).out)
    in_process([*base, "--out", tmp_path / "r.txt"], capsys)
    in_process([*base, "--format", "json", "--out", tmp_path / "r.json"], capsys)
    assert data["tickets"][0]["verdict"] == "REFUTED"
    assert data["exit_code"] == 1
    assert text.split()[0] == "REFUTED"
    report, _, following = text.rpartition("next: ")
    assert (tmp_path / "r.txt").read_text(encoding="utf-8") == report
    assert following == "certify explain TOKEN_FIGURES\n"
    assert json.loads((tmp_path / "r.json").read_text(encoding="utf-8")) == data


def test_one_ticket_of_several(tmp_path: Path, capsys: Capture) -> None:
    path = make_ticket(tmp_path, ticket_id="one")
    make_ticket(tmp_path, ticket_id="two", exclude=MOVED)
    base = ["check", "--ticket", path, "--policy", "selection", "--format", "json"]
    ran = in_process(base, capsys)
    assert (ran.code, [t["id"] for t in json.loads(ran.out)["tickets"]]) == (3, ["one", "two"])
    ran = in_process([*base, "--id", "one"], capsys)
    assert (ran.code, [t["id"] for t in json.loads(ran.out)["tickets"]]) == (0, ["one"])
    ran = in_process([*base, "--id", "none"], capsys)
    assert ran.code in {2, 4}
    ran.one_line()


def test_inputs_elsewhere_are_named_by_option(tmp_path: Path, capsys: Capture) -> None:
    path = make_ticket(tmp_path, bundle=False)
    sources = tmp_path / "sources"
    base = ["check", "--ticket", path, "--policy", "selection"]
    assert in_process(base, capsys).code == 3
    given = ["--base", sources / "checkpoint", "--tokenizer", sources / "checkpoint"]
    assert in_process([*base, *given, "--reference", sources / "tuned.safetensors"], capsys).code == 0
    assert in_process([*base, *given, "--tuned", sources / "tuned.safetensors"], capsys).code == 0
    assert in_process([*base, *given, "--reference", sources / "checkpoint"], capsys).code == 4
    assert in_process([*base, *given, "--reference", tmp_path / "none"], capsys).code == 2


def test_an_unwritable_report_is_an_error_and_keeps_what_was_there(
    ticket_path: Path, capsys: Capture
) -> None:
    for out in (ticket_path.parent, ticket_path / "x"):
        ran = in_process(["check", "--ticket", ticket_path, "--policy", "selection", "--out", out], capsys)
        assert ran.code == 2
        ran.one_line()


# --- usage -----------------------------------------------------------------------------------------------

WRONG = {
    "unknown option": ["check", "--force"],
    "unknown command": ["chek"],
    "unknown format": ["check", "--format", "yaml"],
    "unknown policy": ["check", "--policy", "none"],
    "option without value": ["check", "--ticket"],
    "stray argument": ["check", "tickets.json"],
    "workers below one": ["check", "--workers", "0"],
    "missing options": ["find", "--base", "x"],
    "missing table": ["scan", "--base", "x", "--tuned", "y"],
    "negative top": ["scan", "--base", "x", "--tuned", "y", "--top", "-1"],
    "no ticket file": ["check"],
    "hostile text": ["check", "--ticket", "a\x1b[31m\nb\u202e"],
    "exclude ids": ["find", "--base", "x", "--tuned", "y", "--id", "z", "--exclude-ids", "1,x"],
    "scan format": ["scan", "--base", "x", "--tuned", "y", "--out", "z.xls"],
    "dtype": ["scan", "--base", "x", "--tuned", "y", "--served-dtype", "int8"],
}


@pytest.mark.parametrize("arguments", WRONG.values(), ids=WRONG.keys())
def test_wrong_use_is_one_line_and_exit_2(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = in_process(arguments, capsys)
    assert ran.code == 2
    ran.one_line()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [["check"], ["report"], ["verify", "--served", "x", "--ticket"]])
def test_a_folder_is_told_the_name_of_its_ticket_file(
    command: list[str], tmp_path: Path, capsys: Capture
) -> None:
    ran = in_process([*command, tmp_path], capsys)
    assert ran.code == 2
    assert f"{tmp_path} is a folder: name tickets.json in it [FILE_UNREADABLE]" in ran.one_line()


@pytest.mark.parametrize("arguments", [["--help"], *([command, "--help"] for command in COMMANDS)])
def test_help_works(arguments: list[str], capsys: Capture) -> None:
    ran = in_process(arguments, capsys)
    assert (ran.code, ran.err) == (0, "")
    assert "Usage" in ran.out


def test_no_arguments_show_the_help_and_are_wrong_use(capsys: Capture) -> None:
    ran = in_process([], capsys)
    assert ran.code == 2
    assert "Usage" in ran.out + ran.err


def test_the_help_states_the_exit_codes(capsys: Capture) -> None:
    text = " ".join(in_process(["--help"], capsys).out.replace("│", " ").split())
    for part in (
        "0 certified",
        "1 refuted",
        "2 usage",
        "3 inconclusive",
        "4 invalid",
        "5 nothing",
        "70 internal",
        "130",
    ):
        assert part in text


def test_version(capsys: Capture) -> None:
    assert in_process(["--version"], capsys) == Ran(0, f"certify {__version__}\n", "")


# --- what goes wrong inside ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("two\nlines \x1b[31m"), 70),
        (ValueError(), 70),
        (KeyError("x"), 70),
        (EOFError("x"), 70),
        (RecursionError("x"), 70),
        (AssertionError(), 70),
        (MemoryError(), 70),
        (OSError(5, "Input/output error"), 70),
        (SystemExit(0), 70),
        (SystemExit(1), 70),
        (KeyboardInterrupt(), 130),
    ],
    ids=repr,
)
@pytest.mark.parametrize("report_format", ["terminal", "json"])
def test_whatever_breaks_closes_the_gate_in_one_line(
    ticket_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    error: BaseException,
    code: int,
    report_format: str,
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(certify.gate.check, "recheck", broken)
    ran = in_process(["check", "--ticket", ticket_path, "--format", report_format], capsys)
    assert ran.code == code
    assert bool(ran.out) == (report_format == "json" and isinstance(error, Exception))
    ran.one_line()


def test_an_interrupt_of_a_real_process_is_130(ticket_path: Path) -> None:
    code = (
        "import os, signal, certify.gate.check\n"
        # A background job of a shell is started with interrupts ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "certify.gate.check.recheck = lambda *a: os.kill(os.getpid(), signal.SIGINT)\n"
        "from certify.cli.main import main\n"
        f"import sys; sys.argv = ['certify', 'check', '--ticket', {str(ticket_path)!r}]\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
        timeout=60,
    )
    assert done.returncode == 130
    Ran(130, done.stdout, done.stderr).one_line()
    assert signal.SIGINT == 2


# --- output that goes nowhere ----------------------------------------------------------------------------


def _with_stdout(arguments: list[object], stdout: Any, **changes: str) -> Ran:
    command = [sys.executable, "-m", "certify", *map(str, arguments)]
    done = subprocess.run(
        command, stdout=stdout, stderr=subprocess.PIPE, env=environment(**changes), check=False, timeout=60
    )
    return Ran(done.returncode, "", done.stderr.decode())


@pytest.mark.parametrize("report_format", ["terminal", "json"])
@pytest.mark.parametrize(("change", "code"), [(leave, 0), (refute, 1)])
def test_a_reader_that_went_away_does_not_change_the_verdict(
    ticket_path: Path, report_format: str, change: Any, code: int
) -> None:
    change(ticket_path)
    reading, writing = os.pipe()
    os.close(reading)
    try:
        arguments = ["check", "--ticket", ticket_path, "--policy", "selection", "--format", report_format]
        ran = _with_stdout(arguments, writing)
    finally:
        os.close(writing)
    assert (ran.code, ran.err) == (code, "")


def test_help_into_a_closed_pipe_is_no_refutation() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ran = _with_stdout(["--help"], writing)
    finally:
        os.close(writing)
    assert ran.code in {0, 70}
    assert "Traceback" not in ran.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("report_format", ["terminal", "json"])
def test_a_report_that_cannot_be_written_is_an_error(ticket_path: Path, report_format: str) -> None:
    with Path("/dev/full").open("wb") as full:
        arguments = ["check", "--ticket", ticket_path, "--policy", "selection", "--format", report_format]
        ran = _with_stdout(arguments, full)
    assert ran.code == 2
    ran.one_line()


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_closed_streams_keep_the_code(ticket_path: Path, closed: str) -> None:
    redirect = {"stdout": ">&-", "stderr": "2>&-"}[closed]
    command = f'"$0" -m certify check --ticket "$1" --policy selection {redirect}'
    for change, code in ((refute, 1), (lambda path: path.unlink(), 2)):
        change(ticket_path)
        done = subprocess.run(
            ["sh", "-c", command, sys.executable, str(ticket_path)],
            capture_output=True,
            env=environment(),
            check=False,
            timeout=60,
        )
        assert done.returncode == code
        assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("encoding", "report_format"), [("ascii", "terminal"), ("ascii", "json"), ("cp1252", "terminal")]
)
def test_an_output_without_greek_letters_still_reports(
    ticket_path: Path, encoding: str, report_format: str
) -> None:
    arguments = ["check", "--ticket", ticket_path, "--policy", "selection", "--format", report_format]
    done = subprocess.run(
        [sys.executable, "-m", "certify", *map(str, arguments)],
        capture_output=True,
        env=environment(PYTHONIOENCODING=encoding, PYTHONUTF8="0"),
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"CERTIFIED" in done.stdout


def test_a_path_that_is_no_utf8_is_reported(ticket_path: Path) -> None:
    odd = os.fsencode(ticket_path.parent) + b"/t\xff.json"
    ticket_path.rename(os.fsdecode(odd))
    for report_format in ("terminal", "json"):
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "certify",
                "check",
                "--ticket",
                odd,
                "--policy",
                "selection",
                "--format",
                report_format,
            ],
            capture_output=True,
            env=environment(),
            check=False,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, b"")


# --- what a gate loads -----------------------------------------------------------------------------------


def test_a_check_loads_nothing_for_training(ticket_path: Path) -> None:
    code = (
        "import sys\n"
        "from certify.cli.main import run\n"
        f"words = ['check', '--ticket', {str(ticket_path)!r}, '--policy', 'selection']\n"
        "code = run([*words, '--format', 'json'])\n"
        "print('LOADED', code, *sorted({m.split('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment(),
        check=True,
        timeout=60,
    )
    loaded = done.stdout.rpartition("LOADED ")[2].split()
    assert loaded[0] == "0"
    assert "numpy" in loaded, "the control: a check does load numpy"
    assert not {
        "torch",
        "transformers",
        "datasets",
        "accelerate",
        "peft",
        "numba",
        "pandas",
        "matplotlib",
    } & set(loaded)


def test_only_reports_that_show_resampled_limits_load_what_resamples(tmp_path: Path) -> None:
    """scipy.stats takes a second to load; a check by itself needs none of it."""
    bundle = make_bundle(tmp_path)
    code = (
        "import sys\n"
        "from certify.cli.main import run\n"
        f"run(['check', '--ticket', {str(bundle.path)!r}, '--policy', 'release', *sys.argv[1:]])\n"
        "print('LOADED', 'scipy.stats' in sys.modules)"
    )
    for words, loads in (([], "False"), (["--verbose"], "True"), (["--format", "json"], "True")):
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            capture_output=True,
            text=True,
            env=environment(),
            check=True,
            timeout=120,
        )
        assert "CERTIFIED" in done.stdout
        assert ("corpus-bleu" in done.stdout or "Corpus scores" in done.stdout) == (words != [])
        assert done.stdout.rpartition("LOADED ")[2].split() == [loads], words


# --- scan, find, schema, count ----------------------------------------------------------------------------


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    make_ticket(tmp_path)
    return tmp_path / "sources"


def test_find_names_a_special_row_that_moved_and_is_left_out(tmp_path: Path, capsys: Capture) -> None:
    table = tuned_table()
    table[1] += np.float16(0.06)
    make_ticket(tmp_path, tuned=table)
    words = ["find", "--base", tmp_path / "sources" / "checkpoint", "--tuned"]
    words += [tmp_path / "sources" / "tuned.safetensors", "--id", "a", "--out", tmp_path / "made" / "t.json"]
    ran = in_process(words, capsys)
    assert ran.code == 0
    (line,) = [line for line in ran.out.splitlines() if "although" in line]
    assert "bos <s>: 1 " in line
    quiet = in_process([*words, "--rule", "ids:1", "--replace"], capsys)
    assert quiet.code == 0
    assert "although" not in quiet.out, "a row that is in the ticket is not left out"


def test_scan_prints_and_writes(sources: Path, tmp_path: Path, capsys: Capture) -> None:
    base = ["scan", "--base", sources / "checkpoint", "--tuned", sources / "tuned.safetensors"]
    ran = in_process([*base, "--out", tmp_path / "scan.csv", "--top", "3"], capsys)
    assert (ran.code, ran.err) == (0, "")
    assert "8 rows moved, 56 bit-identical" in ran.out
    with (tmp_path / "scan.csv").open(encoding="utf-8", newline="") as stream:
        stream.readline()
        rows = list(csv.DictReader(stream))
    assert [int(row["id"]) for row in rows if row["equal"] == "False"] == [*MOVED, 50, 51, 52]


def test_scan_of_tables_that_do_not_match(sources: Path, tmp_path: Path, capsys: Capture) -> None:
    np.save(tmp_path / "short.npy", base_table()[:-1])
    np.save(tmp_path / "wide.npy", base_table().astype(np.float32))
    table = tuned_table()
    table[7, 7] = np.nan
    np.save(tmp_path / "nan.npy", table)
    for name, code in (("short", 4), ("wide", 2), ("nan", 4)):
        ran = in_process(
            [
                "scan",
                "--base",
                sources / "checkpoint",
                "--tuned",
                tmp_path / f"{name}.npy",
                "--out",
                tmp_path / "x.csv",
            ],
            capsys,
        )
        assert ran.code == code
        ran.one_line()
        assert not (tmp_path / "x.csv").exists()


def test_find_makes_what_check_accepts(sources: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "made" / "tickets.json"
    base = ["find", "--base", sources / "checkpoint", "--tuned", sources / "tuned.safetensors", "--out", out]
    ran = in_process([*base, "--id", "a", "--bundle"], capsys)
    assert (ran.code, ran.err) == (0, "")
    assert "5 of 64 rows" in ran.out
    assert in_process(["check", "--ticket", out, "--policy", "selection"], capsys).code == 0
    ran = in_process([*base, "--id", "a", "--bundle"], capsys)
    assert ran.code == 2
    assert "--replace" in ran.one_line()
    assert in_process([*base, "--id", "a", "--bundle", "--replace", "--alpha", "0.5"], capsys).code == 0
    assert in_process(["check", "--ticket", out, "--policy", "selection"], capsys).code == 0


def test_rows_without_pieces_are_shown_by_their_ids(sources: Path, tmp_path: Path, capsys: Capture) -> None:
    shutil.copy(sources / "checkpoint" / "model.safetensors", tmp_path / "base.safetensors")
    words = ["--base", tmp_path / "base.safetensors", "--tuned", sources / "tuned.safetensors", "--id", "a"]
    ran = in_process(["find", *words, "--out", tmp_path / "tickets.json"], capsys)
    assert ran.code == 0
    (shown,) = re.findall("strongest: (.*)", ran.out)
    tokens = json.loads((tmp_path / "tickets.json").read_text())["tickets"][0]["tokens"]
    assert sorted(map(int, shown.split())) == [token["id"] for token in tokens]


FIND_WRONG = {
    "alpha": ["--alpha", "1.5"],
    "alpha word": ["--alpha", "five"],
    "rule": ["--rule", "best"],
    "seed missing": ["--rule", "random:3"],
    "seed unused": ["--seed", "1"],
    "counts missing": ["--rule", "frequency:3"],
    "published": ["--rule", "published:en-ca"],
    "excluded id": ["--rule", "ids:9", "--exclude-ids", "9"],
    "id out of range": ["--rule", "ids:64"],
    "duplicate id": ["--rule", "ids:3,3"],
    "too many": ["--rule", "norm:100"],
    "name": ["--id", "../../evil"],
    "tensor": ["--tensor", "nope"],
    "exclude out of range": ["--exclude-ids", "99"],
}


@pytest.mark.parametrize("options", FIND_WRONG.values(), ids=FIND_WRONG.keys())
def test_find_refuses_before_it_writes(
    sources: Path, tmp_path: Path, capsys: Capture, options: list[str]
) -> None:
    out = tmp_path / "a" / "b" / "made" / "tickets.json"
    base = ["find", "--base", sources / "checkpoint", "--tuned", sources / "tuned.safetensors", "--out", out]
    name = [] if "--id" in options else ["--id", "a"]
    ran = in_process([*base, *name, *options], capsys)
    assert ran.code == 2
    ran.one_line()
    assert not (tmp_path / "a").exists()


def test_schema_is_printed(tmp_path: Path, capsys: Capture) -> None:
    ran = in_process(["schema"], capsys)
    assert ran.code == 0
    assert json.loads(ran.out)["title"] == "TicketFile"
    assert in_process(["schema", "--out", tmp_path / "s.json"], capsys).code == 0
    assert (tmp_path / "s.json").read_text(encoding="utf-8") == ran.out


def test_count_says_what_is_missing(sources: Path, tmp_path: Path, capsys: Capture) -> None:
    text = tmp_path / "none.txt"
    ran = in_process(["count", text, "--base", sources / "checkpoint", "--out", tmp_path / "c.npy"], capsys)
    assert ran.code == 2
    ran.one_line()
    assert not (tmp_path / "c.npy").exists()


# --- as a process ----------------------------------------------------------------------------------------


def test_the_module_is_the_command(ticket_path: Path) -> None:
    ran = as_process(["check", "--ticket", ticket_path, "--policy", "selection"])
    assert (ran.code, ran.err) == (0, "")
    assert "CERTIFIED" in ran.out
    assert "\x1b" not in ran.out
    ticket_path.write_text("[" * 100_000)
    ran = as_process(["check", "--ticket", ticket_path])
    assert ran.code == 4
    ran.one_line()


@pytest.mark.parametrize("rank", [None, "0", "1"])
def test_launched_beside_a_first_process_it_lets_that_one_speak_first(
    rank: str | None, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("certify.cli.main.time.sleep", waited.append)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    ran = in_process(["explain", "NO_SUCH_THING"], capsys)
    assert (ran.code, ran.err.count("[CODE_UNKNOWN]")) == (2, 1)  # the first one may not fail at all
    assert len(waited) == (rank == "1")
