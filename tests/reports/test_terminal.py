"""The report on a terminal and in a log: verdict first, 80 columns, plain where asked, nothing hostile."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import as_process, environment, in_process
from evidence_folders import make_bundle
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from ticket_folders import MOVED, base_table, edit, make_ticket, pieces, tuned_table

import certify
from proofs_checks.worlds import synthetic
from reports.scan import render as render_scan
from reports.terminal import p_text, render
from reports.view import view

HOSTILE = (
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "\x9b2J",
    "a\u202eb\u2066c",
    "zero\u200bwidth\ufeff\ufe0f",
    "line\nbreak\r\x08\x08",
    "[bold red]markup[/]",
    ":smile: [link=http://x]y[/link]",
    "x" * 4096,
    "日本語" * 400,
    "e\u0301\u0301\u0301",
    "\u2028para\u2029",
)
HIDDEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufe00-\ufe0f]")
LONG = re.compile(r"^(ks:|(ticket|certificate) [0-9a-f]{64}$)")


def shown(path: Path, policy: str = "selection", *, verbose: bool = False, width: int = 80) -> str:
    out = StringIO()
    report = certify.check(path, policy=policy, engine="numpy", workers=1)
    render(
        view(report),
        Console(file=out, width=width, markup=False, highlight=False, emoji=False),
        verbose=verbose,
    )
    return out.getvalue()


def assert_readable(text: str) -> None:
    for line in text.splitlines():
        assert cell_len(line.rstrip()) <= 80 or LONG.match(line), line
    assert not HIDDEN.search(text)


@pytest.fixture
def hostile_ticket(tmp_path: Path) -> Path:
    """A ticket whose every selected piece is hostile."""
    tuned, ids = base_table(), range(3, 3 + len(HOSTILE))
    for i in ids:
        tuned[i] += np.float16(0.06)
    names = {piece: i for piece, i in pieces().items() if i not in ids}
    return make_ticket(tmp_path, tuned=tuned, vocab=names | dict(zip(HOSTILE, ids, strict=True)))


@pytest.mark.parametrize("policy", ["selection", "release"])
def test_the_report_fits_80_columns(ticket_path: Path, policy: str) -> None:
    assert_readable(shown(ticket_path, policy))
    edit(ticket_path, lambda t: t["tokens"][0].update(h=1))
    assert_readable(shown(ticket_path, policy))
    edit(ticket_path, lambda t: t["base"].update(tensor_sha256="0" * 64))
    assert_readable(shown(ticket_path, policy))


def test_verdict_first_then_why(ticket_path: Path) -> None:
    assert shown(ticket_path).split()[0] == "CERTIFIED"
    edit(ticket_path, lambda t: t["tokens"][0].update(h=1))
    text = shown(ticket_path)
    assert text.split()[0] == "REFUTED"
    assert text.index("TOKEN_FIGURES") < text.index("integrity.base"), "what stands in the way comes first"


def test_everything_that_must_be_there_is_there(ticket_path: Path) -> None:
    text = " ".join(shown(ticket_path).split())
    for part in (
        "under policy selection",
        "5 of 64 rows",
        "special: bos <s>",
        "beyond the tokenizer",
        "A-LAW",
        "A-NULL",
        "premise.published",
        "Not claimed",
        "τ",
        "56 further rows",
        "ks:exact|n:32|dtype:F16",
    ):
        assert part in text
    for i in MOVED:
        assert re.search(rf"\b{i}\b", text)


def test_claims_are_shown_text_by_text(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    # The name of a text is not ours either.
    bundle.fields["text"] = {
        "name": "\x1b[31m[bold]" + "x" * 300,
        **synthetic.text_of(bundle.records),
        "unit": "sentence",
        "attribution": "",
    }
    bundle.issue()
    short, full = shown(bundle.path, "strict"), shown(bundle.path, "strict", verbose=True)
    for text in (short, full):
        assert_readable(text)
        assert text.split()[0] == "CERTIFIED"
        assert "Claims on unrelated (loss, each limit at 1/20)" in text
        assert "token-agreement" in text
        assert "Taken as given by the policy" in text
        (table,) = re.findall(r"Corpus scores on .*?\n\n(?=\w)", text, re.DOTALL)
        assert "asymptotic, each limit at 1/20: decides nothing" in " ".join(table.split())
        figures = re.findall(
            r"(BLEU|chrF\+\+) +(base|reference) +(whole|first-line|cut) +[\d.]+ +[+-][\d.]+"
            r" +[+-][\d.]+…[+-][\d.]+ +0\.\d{3}",
            table,
        )
        assert len(figures) == (12 if text is full else 4)
        assert "corpus" not in text.replace(table, ""), "never among the claims that a policy can ask for"
    assert "more with --verbose" in short
    assert len(full.splitlines()) > len(short.splitlines())


def test_release_says_what_is_missing_and_how_to_get_it(ticket_path: Path) -> None:
    text = shown(ticket_path, "release")
    assert text.split()[0] == "INCONCLUSIVE"
    assert "NO_CERTIFICATE" in text
    assert "claim.gain.base.declared" in text
    assert "→" in text


@pytest.mark.parametrize("verbose", [True, False])
def test_hostile_pieces_are_shown_and_do_nothing(hostile_ticket: Path, verbose: bool) -> None:
    text = shown(hostile_ticket, verbose=verbose)
    assert_readable(text)
    for part in (
        "\\x1b[31mred",
        "\\x9b2J",
        "\\u202e",
        "\\u200b",
        "line\\nbreak",
        "[bold red]markup[/]",
        ":smile:",
    ):
        assert part in text, part
    assert "xxx…" in text
    assert "x" * 100 not in text


def test_hostile_pieces_in_every_output(
    hostile_ticket: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["check", "--ticket", hostile_ticket, "--policy", "selection"]
    for extra in ([], ["--verbose"], ["--format", "json"]):
        ran = in_process([*words, *extra], capsys)
        assert (ran.code, ran.err) == (0, "")
        assert not HIDDEN.search(ran.out)
    data = json.loads(ran.out)
    assert {token["piece"] for token in data["tickets"][0]["tokens"]} == set(HOSTILE)
    sources = hostile_ticket.parent.parent / "sources"
    pair = ["--base", sources / "checkpoint", "--tuned", sources / "tuned.safetensors"]
    for arguments in (
        ["scan", *pair, "--top", "64"],
        ["find", *pair, "--out", tmp_path / "again" / "tickets.json", "--id", "again"],
    ):
        ran = in_process(arguments, capsys)
        assert (ran.code, ran.err) == (0, "")
        assert not HIDDEN.search(ran.out), arguments[0]
    assert not HIDDEN.search((tmp_path / "again" / "tickets.json").read_text(encoding="utf-8"))


def test_hostile_fields_of_the_ticket_do_nothing(ticket_path: Path) -> None:
    edit(ticket_path, lambda t: t["selection"].update(rule="ks\x1b[2J\u202e[red]"))
    edit(ticket_path, lambda t: t["selection"]["excluded"][0].update(reason="\x9b31m\n" + "y" * 4000))
    edit(ticket_path, lambda t: t["tokens"][0].update(piece="\x1b]0;x\x07"))
    edit(ticket_path, lambda t: t["base"].update(tensor="\x1b[31m"))
    assert_readable(shown(ticket_path))
    edit(ticket_path, lambda t: t["base"].update(tensor="model.embed_tokens.weight"))
    assert_readable(shown(ticket_path))


def test_the_prose_of_a_policy_does_nothing(ticket_path: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        'schema = "certify.policy"\nschema_version = 1\nname = "own"\nextends = "selection"\n'
        'question = "Is it?\\n\\n CERTIFIED  tiny  under policy release\\u001b[2J"\n'
        'non_claims = ["\\u001b[31mnothing\\u202e"]\n',
        encoding="utf-8",
    )
    text = shown(ticket_path, str(own), width=400)
    assert not HIDDEN.search(text)
    assert sum(line.lstrip().startswith("CERTIFIED") for line in text.splitlines()) == 1


def test_whose_word_is_taken_stands_before_the_reasons(tmp_path: Path) -> None:
    data = view(certify.check(make_bundle(tmp_path).path, policy="release", engine="numpy", workers=1))
    data["tickets"][0]["chosen_among"] = 8
    out = StringIO()
    render(data, Console(file=out, width=400))
    first = out.getvalue().partition("Decides")[0]
    assert "chosen among 8" in first
    assert "The records are the word of whoever evaluated" in first


def test_many_tokens_are_cut_and_verbose_lists_all(tmp_path: Path) -> None:
    path = make_ticket(tmp_path, rule="ids:" + ",".join(str(i) for i in range(3, 53)))
    short, long = shown(path), shown(path, verbose=True)
    assert "and 30 more" in short
    assert "more (--verbose" not in long
    assert_readable(short)
    assert_readable(long)


def test_several_tickets_are_summed_up(tmp_path: Path) -> None:
    path = make_ticket(tmp_path, ticket_id="one")
    make_ticket(tmp_path, ticket_id="two", exclude=MOVED)
    text = shown(path)
    assert re.search(r"CERTIFIED\s+one", text)
    assert re.search(r"VACUOUS\s+two", text)
    assert_readable(text)


@pytest.mark.parametrize(
    ("log10_p", "text"),
    [
        (0.0, "1.0000"),
        (-0.3010299956639812, "0.5000"),
        (-3.5, "3.2e-4"),
        (-11.08, "8.4e-12"),
        (-400.5, "3.2e-401"),
    ],
)
def test_p_is_written_from_its_logarithm(log10_p: float, text: str) -> None:
    assert p_text(log10_p) == text


@given(st.floats(-5000, 0))
@example(-9.9999999)
@example(-10.0)
@example(-299.99999999)
def test_p_is_rounded_to_the_weaker_claim(log10_p: float) -> None:
    mantissa, _, exponent = p_text(log10_p).partition("e")
    excess = float(mantissa) * 10 ** (int(exponent or 0) - log10_p)
    assert 1 - 1e-9 <= excess <= 1.101
    assert not exponent or 1 <= float(mantissa) < 10
    assert len(p_text(log10_p)) <= 9
    if log10_p > -3:
        assert len(p_text(log10_p)) == 6


def test_the_scan_report_fits_80_columns(ticket_path: Path) -> None:
    result = certify.check(ticket_path, policy="selection", engine="numpy").tickets[0].result
    assert result is not None
    out = StringIO()
    render_scan(result, None, Console(file=out, width=80, markup=False), top=20, out=Path("scan.csv"))
    assert_readable(out.getvalue())
    assert "8 rows moved" in out.getvalue()


# --- colour ----------------------------------------------------------------------------------------------


def on_a_terminal(arguments: list[Any], **changes: str) -> tuple[int, str]:
    """Run the command with a pseudo-terminal as standard output."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "certify", *map(str, arguments)]
    with subprocess.Popen(
        command, stdout=slave, stderr=subprocess.PIPE, env=environment(TERM="xterm", **changes)
    ) as run:
        os.close(slave)
        chunks = []
        while True:
            try:
                chunk = os.read(master, 65536)
            except OSError:  # how Linux reports the end of a pseudo-terminal
                break
            if not chunk:
                break
            chunks.append(chunk)
        code = run.wait(timeout=60)
    os.close(master)
    return code, b"".join(chunks).decode("utf-8")


def test_no_color_means_no_escape_sequences(ticket_path: Path) -> None:
    words = ["check", "--ticket", ticket_path, "--policy", "selection"]
    code, coloured = on_a_terminal(words)
    assert (code, "\x1b[" in coloured) == (0, True), "the control: a terminal gets colours"
    code, plain = on_a_terminal(words, NO_COLOR="1")
    assert (code, "\x1b" in plain) == (0, False)


def test_a_log_has_no_escape_sequences(ticket_path: Path, tmp_path: Path) -> None:
    words = ["check", "--ticket", ticket_path, "--policy", "selection"]
    ran = as_process(words, TERM="xterm")
    assert "\x1b" not in ran.out
    # A file is no terminal, even where the log is told to be coloured.
    ran = as_process([*words, "--out", tmp_path / "report.txt"], FORCE_COLOR="1")
    assert ran.code == 0
    assert "\x1b" not in (tmp_path / "report.txt").read_text(encoding="utf-8")


def test_tables_of_wide_rows_and_large_ids_fit(ticket_path: Path) -> None:
    report = view(certify.check(ticket_path, policy="selection", engine="numpy"))
    token = report["tickets"][0]["tokens"][0]
    token |= {
        "id": 16_000_000,
        "h": 20_000,
        "log10_p": -12041.7,
        "shift_norm": 1.4013e-45,
        "piece": "界" * 50,
    }
    out = StringIO()
    render(report, Console(file=out, width=80, markup=False))
    assert_readable(out.getvalue())
    assert "16000000" in out.getvalue()
    assert tuned_table().shape == (64, 32)
