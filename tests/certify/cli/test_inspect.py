"""``certify inspect``: what ships is known by its schema, what is malformed or unknown is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from command import ROOT, in_process
from proof_files import record
from ticket_folders import edit, file_sha256

from certify.cli.registry import READ, SCHEMAS
from certify.cli.use.inspect import SUMMARIES

Capture = pytest.CaptureFixture[str]


def test_every_kind_has_a_summary() -> None:
    assert SUMMARIES.keys() == (SCHEMAS.keys() | READ.keys()) - {"defaults"}


@pytest.mark.parametrize(
    ("pattern", "kind"),
    [
        ("reports/published/*/tickets/tickets.json", "ticket"),
        ("reports/published/*/tickets/certificates/a05.json", "certificate"),
        ("reports/published/*/tickets/evidence/tatoeba.json", "evidence"),
        ("reports/published/*/tickets/rows/a05.safetensors", "rows of a ticket"),
        ("certify/policy/release.toml", "policy"),
        ("lottery/plans/smoke.toml", "plan"),
    ],
)
def test_what_ships_is_known(pattern: str, kind: str, capsys: Capture) -> None:
    files = sorted(ROOT.glob(pattern))
    assert files
    for path in files:
        ran = in_process(["inspect", path, "--format", "json"], capsys)
        assert (ran.code, ran.err) == (0, ""), path
        found = json.loads(ran.out)
        assert found["kind"].startswith(kind)
        assert found["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert found["facts"]


def test_facts_and_the_next_command(ticket_path: Path, capsys: Capture) -> None:
    tokens = json.loads(ticket_path.read_bytes())["tickets"][0]["tokens"]
    ran = in_process(["inspect", ticket_path], capsys)
    lines = ran.out.splitlines()
    assert lines[0] == f"{ticket_path}: ticket (certify.tickets version 2), reads strictly"
    assert lines[1] == f"sha256 {file_sha256(ticket_path)}"
    assert f": {len(tokens)} of " in lines[2]
    assert lines[-1] == f"next: certify check {ticket_path}"


def test_checks_of_the_theory_and_reports_are_known(
    ticket_path: Path, tmp_path: Path, capsys: Capture
) -> None:
    proofs = tmp_path / "proofs.json"
    proofs.write_text(json.dumps(record()), encoding="utf-8")
    assert ": proofs " in in_process(["inspect", proofs], capsys).out
    report = tmp_path / "report.json"
    in_process(["check", ticket_path, "--policy", "paper", "--format", f"json={report}"], capsys)
    assert ": report (certify.report version 1)" in in_process(["inspect", report], capsys).out


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("a.json", b"[1]", "INSPECT_UNKNOWN"),
        ("a.json", b'{"schema": "other"}', "INSPECT_UNKNOWN"),
        ("a.json", b'{"schema": ["certify.tickets"]}', "INSPECT_UNKNOWN"),
        ("a.json", b'{"schema": "certify.tickets", "schema": "x"}', "JSON_MALFORMED"),
        ("a.json", b'{"schema": "certify.tickets", "schema_version": 99}', "INSPECT_MALFORMED"),
        ("a.bin", b"\x80\x04\x95\x00\x00", "PICKLE_REFUSED"),
        ("a.csv", b"a,b\n1,2\n", "INSPECT_UNKNOWN"),
        ("a.toml", b"x = ", "INSPECT_MALFORMED"),
        ("a.jsonl", b'{"id": "x"}\n', "INSPECT_UNKNOWN"),
        ("a.safetensors", b"\xff" * 40, "SAFETENSORS_TRUNCATED"),
    ],
)
def test_a_file_that_is_not_of_ours_has_one_line(
    name: str, data: bytes, code: str, tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    ran = in_process(["inspect", path], capsys)
    assert ran.code == 4
    assert code in ran.one_line()


def test_an_unknown_field_is_a_problem_in_one_line(ticket_path: Path, capsys: Capture) -> None:
    edit(ticket_path, lambda content: content.update(verdict="CERTIFIED"))
    ran = in_process(["inspect", ticket_path], capsys)
    assert ran.code == 4
    assert "unknown field tickets[0].verdict" in ran.one_line()
