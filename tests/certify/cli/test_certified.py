"""``certify apply`` and ``certify export``: only what ``certify check`` certifies is put to use unseen."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from command import in_process
from evidence_folders import make_bundle
from ticket_folders import edit, make_ticket

Capture = pytest.CaptureFixture[str]


def words_of(command: str, ticket: Path) -> list[Any]:
    """The command with all that it needs; its output is ``out`` beside the ticket's folder."""
    root = ticket.parent.parent
    words = [*command.split(), "--ticket", ticket, "--out", root / "out"]
    checkpoint = ["--base", root / "sources" / "checkpoint", "--format", "json"]
    return words + (checkpoint if command == "apply" else [])


def record(printed: str, ticket: Path) -> dict[str, str]:
    """What the output says about the check: the report of apply, the metadata of an adapter."""
    if printed.startswith("{"):
        found: dict[str, str] = json.loads(printed)["certified"]
        return found
    data = (ticket.parent.parent / "out" / "adapter_model.safetensors").read_bytes()
    metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    keys = ("certified_under", "policy_sha256", "report_sha256", "uncertified")
    return {key: metadata[f"certify.{key}"] for key in keys if f"certify.{key}" in metadata}


@pytest.mark.parametrize("command", ["apply", "export", "export --format lora"])
def test_nothing_is_written_unless_the_check_certifies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, command: str
) -> None:
    ticket, out = make_ticket(tmp_path, template="alpaca"), tmp_path / "out"
    words = words_of(command, ticket)
    monkeypatch.chdir(ticket.parent)
    ran = in_process(words, capsys)
    said = ran.one_line()
    assert (ran.code, ran.out, out.exists()) == (3, "", False), "without a certificate nothing is shown"
    assert re.search(
        r"'tiny' is INCONCLUSIVE under release: .* --uncertified .*\[TICKET_UNCERTIFIED\]$", said
    )
    assert in_process(shlex.split(re.findall("certify (check .*) says more", said)[0]), capsys).code == 3
    assert in_process([*words, "--uncertified", "--policy", "selection"], capsys).code == 2

    honest = ticket.read_bytes()
    edit(ticket, lambda t: t["tokens"][0].update(h=1))
    ran = in_process([*words, "--policy", "selection"], capsys)
    assert (ran.code, "REFUTED under selection: TOKEN_FIGURES" in ran.err, out.exists()) == (1, True, False)

    ticket.write_bytes(honest)
    (ticket.parent / "certify.toml").write_text('policy = "selection"')
    checked = json.loads(in_process(["check", "--format", "json"], capsys).out)
    ran = in_process(words, capsys)
    assert (ran.code, ran.err) == (0, "")
    assert record(ran.out, ticket) == {
        "certified_under": "selection",
        "policy_sha256": checked["policy_sha256"],
        "report_sha256": checked["digest"],
    }
    out.rename(out.with_name("certified"))
    ran = in_process([*words, "--uncertified"], capsys)
    assert (ran.code, ran.one_line().endswith("[TICKET_UNCERTIFIED]")) == (0, True)
    assert record(ran.out, ticket) == {"uncertified": "no check was made"}


@pytest.mark.parametrize(("folder", "option"), [("reference", "--tuned"), ("base", "--base")])
def test_a_missing_table_is_named_with_the_option_that_helps(
    tmp_path: Path, capsys: Capture, folder: str, option: str
) -> None:
    ticket, out = make_ticket(tmp_path), tmp_path / "out"
    words = [*words_of("export", ticket), "--policy", "selection"]
    (lost,) = (ticket.parent / folder).glob("*.safetensors")
    lost.rename(tmp_path / lost.name)
    ran = in_process(words, capsys)
    assert (ran.code, out.exists(), "[FILE_MISSING]" in ran.one_line()) == (4, False, True)
    assert f"or name the {folder} table with {option}" in ran.err
    assert in_process([*words, option, tmp_path / lost.name], capsys).code == 0, "certified with it"


def test_evidence_is_examined_again(tmp_path: Path, capsys: Capture) -> None:
    bundle = make_bundle(tmp_path)
    words = words_of("export", bundle.path)
    ran = in_process(words, capsys)
    assert (ran.code, ran.err, record(ran.out, bundle.path)["certified_under"]) == (0, "", "release")
    (tmp_path / "out").rename(tmp_path / "certified")
    (records,) = bundle.path.parent.glob("evidence/translated*.jsonl*")
    records.write_bytes(records.read_bytes()[:-1])
    ran = in_process(words, capsys)
    assert (ran.code, (tmp_path / "out").exists()) == (4, False), ran
