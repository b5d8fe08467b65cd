"""One run reads a table once and opens no file more than twice; what it remembers is what was there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from ticket_folders import TENSOR, base_table, edit, file_sha256, make_ticket, tuned_table

import certify
from certify.base.errors import InvalidInputError, UsageError
from certify.base.jsonio import sha256_file, tensor_digest
from certify.base.verdict import Status
from certify.gate.recheck import Inputs, recheck
from certify.gate.session import Session
from certify.scan.scan import scan
from certify.tables.table import Table, check_finite, open_table, read_whole
from certify.ticket.schema import read_ticket_file

ROOT = Path(__file__).resolve().parents[3]

# Runs the words after the folder, and prints how often each file below the folder was opened.
COUNTING = """
import collections, json, os, runpy, sys
folder, opened = os.path.realpath(sys.argv[1]), collections.Counter()
def hook(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, os.PathLike)):
        path = os.path.realpath(arguments[0])
        if path.startswith(folder) and os.path.isfile(path):
            opened[os.path.relpath(path, folder)] += 1
sys.addaudithook(hook)
sys.argv = ["certify", *sys.argv[2:]]
try:
    runpy.run_module("certify", run_name="__main__")
except SystemExit as end:
    code = end.code
print(json.dumps({"code": code, "opened": opened}))
"""


def opened_by(folder: Path, *words: str, code: str = COUNTING) -> tuple[int, Counter[str]]:
    """Exit code of a command, and how often it opened each file in ``folder``."""
    run = subprocess.run(
        [sys.executable, "-c", code, str(folder), *words],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=300,
    )
    found = json.loads(run.stdout.splitlines()[-1])
    return found["code"], Counter(found["opened"])


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Rows of whole-table reading, by file, while the test runs."""
    read: Counter[str] = Counter()
    rows = Table.rows

    def counted(self: Table, start: int, stop: int) -> Any:
        read[self.file.parent.name] += stop - start
        return rows(self, start, stop)

    monkeypatch.setattr(Table, "rows", counted)
    return read


@pytest.fixture
def two_tickets(tmp_path: Path) -> Path:
    """Two tickets over one pair of tables, with the p-values of either law."""
    make_ticket(tmp_path)
    return make_ticket(tmp_path, ticket_id="other", method="asymptotic")


def test_a_check_opens_no_file_more_than_twice(two_tickets: Path) -> None:
    words = ("check", "--ticket", str(two_tickets), "--policy", "selection", "--format", "json")
    code, opened = opened_by(two_tickets.parent, *words)
    assert code == 0
    assert {"base/embed_tokens.safetensors", "base/tokenizer.json", "rows/tiny.safetensors"} <= set(opened)
    assert max(opened.values()) <= 2, opened


def test_the_counter_sees_what_is_opened_more_often(two_tickets: Path) -> None:
    words = ("check", "--ticket", str(two_tickets), "--policy", "selection", "--format", "json")
    forgetful = "import certify.gate.session as s\ns.Session.once = lambda self, key, make: make()\n"
    _, opened = opened_by(two_tickets.parent, *words, code=forgetful + COUNTING)
    assert opened["base/config.json"] > 2


def test_a_check_passes_over_a_table_once(two_tickets: Path, passes: Counter[str]) -> None:
    report = certify.check(two_tickets, policy="selection")
    assert [one.status for one in report.tickets] == [Status.CERTIFIED] * 2
    assert passes == {"base": 64, "reference": 64}


def test_a_table_alone_is_passed_over_once(ticket_path: Path, passes: Counter[str]) -> None:
    edit(ticket_path, lambda ticket: ticket["reference"].update(path=None, files=[]))
    report = certify.check(ticket_path, policy="selection")
    assert report.tickets[0].status is Status.INCONCLUSIVE
    assert passes == {"base": 64}


def test_the_counter_of_passes_sees_a_second_one(ticket_path: Path, passes: Counter[str]) -> None:
    (ticket,) = read_ticket_file(ticket_path).tickets
    checked = recheck(ticket, Inputs(ticket_path.parent))
    assert checked.base is not None
    read_whole(checked.base)
    assert passes == {"base": 128, "reference": 64}


def test_a_session_scans_once_and_restates_for_the_other_law(ticket_path: Path) -> None:
    folder = ticket_path.parent
    base, tuned = (open_table(folder / role / "embed_tokens.safetensors") for role in ("base", "reference"))
    session = Session("numpy", 1)
    exact = session.scan(base, tuned, "exact")
    assert session.scan(base, tuned, "exact") is exact
    other = session.scan(base, tuned, "asymptotic")
    assert session.scan(base, tuned, "asymptotic") is other
    again = scan(base, tuned, method="asymptotic", engine="numpy")
    for column in fields(again):
        np.testing.assert_array_equal(getattr(other, column.name), getattr(again, column.name))


@pytest.mark.parametrize("served", ["F16", "F32", "BF16"])
@pytest.mark.parametrize("name", ["t.safetensors", "t.npy", "odd.safetensors"])
def test_digests_of_the_pass_are_those_of_the_files(tmp_path: Path, name: str, served: Any) -> None:
    path, array = tmp_path / name, base_table()
    if name == "t.npy":
        np.save(path, array)
    else:
        around = {"a": np.ones(3, np.uint8), "z": np.ones(5, np.float64)} if name.startswith("odd") else {}
        save_file({TENSOR: array, **around}, path)
    table = open_table(path, tensor=None if name == "t.npy" else TENSOR).as_dtype(served)
    read_whole(table)
    assert table.known
    assert table.file_digest() == sha256_file(path) == file_sha256(path)
    blocks = [table.rows(0, 64).tobytes()]
    assert table.digest() == tensor_digest(served, table.shape, blocks)
    # Computed one by one they are the same, and a view knows the file that it shares.
    fresh = open_table(path, tensor=None if name == "t.npy" else TENSOR)
    assert not fresh.known
    assert (fresh.file_digest(), fresh.as_dtype(served).digest()) == (table.file_digest(), table.digest())
    assert fresh.as_dtype(served).known


def test_a_scan_leaves_digests_only_where_it_was_asked(ticket_path: Path) -> None:
    folder = ticket_path.parent
    base, tuned = (open_table(folder / role / "embed_tokens.safetensors") for role in ("base", "reference"))
    scan(base, tuned)
    assert not base.known
    scan(base, tuned, digests=True)
    assert base.known
    assert base.file_digest() == sha256_file(base.file)
    assert tuned.digest() == open_table(tuned.path).digest()


def test_a_table_with_nan_is_refused_however_it_is_read(tmp_path: Path) -> None:
    array = tuned_table()
    array[7, 3] = np.nan
    save_file({TENSOR: array}, tmp_path / "nan.safetensors")
    save_file({TENSOR: base_table()}, tmp_path / "base.safetensors")
    base, bad = open_table(tmp_path / "base.safetensors"), open_table(tmp_path / "nan.safetensors")
    Session().read_ahead(base, bad, "exact")
    assert bad.known
    for _ in range(2):
        with pytest.raises(InvalidInputError, match="1 row: 7") as caught:
            check_finite(bad)
        assert caught.value.code == "NON_FINITE"


def test_tables_that_do_not_fit_are_each_read_once(tmp_path: Path, passes: Counter[str]) -> None:
    save_file({TENSOR: base_table()}, tmp_path / "base.safetensors")
    save_file({TENSOR: tuned_table()[:32]}, tmp_path / "short.safetensors")
    base, short = open_table(tmp_path / "base.safetensors"), open_table(tmp_path / "short.safetensors")
    Session().read_ahead(base, short, "exact")
    assert base.known
    assert short.known
    assert passes == {tmp_path.name: 96}


def test_a_failure_is_not_remembered(tmp_path: Path) -> None:
    session = Session()
    with pytest.raises(UsageError):
        session.table(tmp_path / "later.safetensors")
    save_file({TENSOR: base_table()}, tmp_path / "later.safetensors")
    assert session.table(tmp_path / "later.safetensors").shape == (64, 32)
