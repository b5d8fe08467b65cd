"""The report on a terminal and in a log: verdict first, 80 columns, plain where asked, nothing hostile."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Sequence
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
from certify.base.verdict import gravest
from certify.policy.codes import codes, explain
from certify.policy.policy import POLICIES
from proofs_checks.worlds import synthetic
from reports.details import p_text
from reports.scan import render as render_scan
from reports.terminal import render
from reports.view import together, view

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
LONG = re.compile(r"^(ks:|(ticket|certificate) [0-9a-f]{64}$|next: )|/tickets\.json\b")


def run_of(*paths: Path, policy: str = "selection", errors: Sequence[dict[str, str]] = ()) -> dict[str, Any]:
    """The data of a run on some files."""
    reports = [certify.check(path, policy=policy, engine="numpy", workers=1) for path in paths]
    code = gravest(report.exit_code for report in reports)
    return together(code, [view(report) for report in reports], errors)


def printed(run: dict[str, Any], width: int = 80, **settings: Any) -> str:
    out = StringIO()
    render(run, Console(file=out, width=width, markup=False, highlight=False, emoji=False), **settings)
    return out.getvalue()


def shown(path: Path, policy: str = "selection", **settings: Any) -> str:
    return printed(run_of(path, policy=policy), **settings)


def assert_readable(text: str) -> None:
    for line in text.splitlines():
        word = len(line.split()) == 1 and cell_len(line) < 180  # such as a path
        assert cell_len(line) <= 80 or LONG.search(line) or word, line
        assert line == line.rstrip()
    assert not HIDDEN.search(text)
    assert not re.search(r"(?<![\d.,:/])1 (rows|checks|claims|tickets|things|units|assumptions)\b", text)


def allowed(run: dict[str, Any]) -> int:
    """Lines that a report may have."""
    tickets = sum(len(report["tickets"]) for report in run["reports"])
    return 40 + 12 * (tickets - 1)


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
    for settings in ({}, {"verbose": True}, {"quiet": True}):
        assert_readable(shown(ticket_path, policy, **settings))


def test_verdict_first_then_why(ticket_path: Path) -> None:
    assert shown(ticket_path).split()[0] == "CERTIFIED"
    edit(ticket_path, lambda t: t["tokens"][0].update(h=1))
    text = shown(ticket_path)
    assert text.split()[0] == "REFUTED"
    assert re.search(r"TOKEN_FIGURES +selection\.figures\n +piece, .*\n.*→", text, re.DOTALL)
    assert "  pass           11 checks\n" in text, "one line for all that passed"
    full = shown(ticket_path, verbose=True)
    assert full.index("TOKEN_FIGURES") < full.index("integrity.base"), "what stands in the way comes first"


def test_it_ends_with_what_it_comes_to(tmp_path: Path) -> None:
    path = make_ticket(tmp_path, ticket_id="good")
    make_ticket(tmp_path, ticket_id="empty", exclude=MOVED)
    gone = {"file": "gone.json", "code": "FILE_UNREADABLE", "text": "cannot read it"}
    run = run_of(path, errors=[gone])
    (quiet, *others) = (printed(run, **settings) for settings in ({"quiet": True}, {}, {"verbose": True}))
    assert all(text.endswith(f"\n\n{quiet}") for text in others)
    lines = quiet.splitlines()
    assert lines[0] == f"report sha256 {run['digest']}"
    assert [line.split("  ")[0] for line in lines[1:-1] if line[0] != " "] == [
        *("NOT JUDGED", "VACUOUS", "CERTIFIED")
    ]
    assert re.match(r"NOT JUDGED +gone.json  FILE_UNREADABLE cannot read it$", lines[1])
    assert lines[3].startswith("VACUOUS       empty  EMPTY_TICKET selection.content: ")
    assert lines[4] == f"      → {codes()['EMPTY_TICKET'].remedy}"
    assert lines[-1] == "1 not judged, 1 vacuous, 1 certified: exit code 3"


def test_everything_that_must_be_there_is_there(ticket_path: Path) -> None:
    text = " ".join(shown(ticket_path, verbose=True).split())
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
    run = run_of(bundle.path, policy="strict")
    full, short = printed(run, verbose=True), printed(run)
    assert_readable(full)
    assert_readable(short)
    assert full.split()[0] == short.split()[0] == "CERTIFIED"
    assert "Claims on unrelated (loss, each limit at 1/20)" in full
    assert "Taken as given by the policy" in full
    (table,) = re.findall(r"Corpus scores on\s.*?\n\n(?=\w)", full, re.DOTALL)
    assert "asymptotic, each limit at 1/20: decides nothing" in " ".join(table.split())
    figures = re.findall(
        r"(BLEU|chrF\+\+) +(base|reference) +(whole|first-line|cut) +[\d.]+ +[+-][\d.]+"
        r" +[+-][\d.]+…[+-][\d.]+ +0\.\d{3}",
        table,
    )
    assert len(figures) == 12
    assert "corpus" not in full.replace(table, ""), "never among the claims that a policy can ask for"
    (ticket,) = run["reports"][0]["tickets"]
    asked = [claim for claim in ticket["claims"] if claim["asked"]]
    assert len(asked) >= 7
    for claim in asked:
        limit = rf"[≥≤] {(claim['lower'] or claim['upper'])['decimal']:.4f}|\d\.\d+…\d\.\d+"
        (line,) = re.findall(rf"^  pass +{re.escape(claim['name'])} +.*$", short, re.MULTILINE)
        assert re.search(rf"({limit}) +asked {re.escape(claim['asked'])}$", line), line
    assert "Taken as given: A-UNITS, A-EVIDENCE. Each limit is at 1/20." in short
    assert len(short.splitlines()) <= allowed(run)


def test_release_says_what_is_missing_and_how_to_get_it(ticket_path: Path) -> None:
    text = shown(ticket_path, "release")
    assert text.split()[0] == "INCONCLUSIVE"
    assert "NO_CERTIFICATE" in text
    assert "claim.gain.base.declared" in shown(ticket_path, "release", verbose=True)
    assert "→" in text


def test_hostile_pieces_are_shown_and_do_nothing(hostile_ticket: Path) -> None:
    text = shown(hostile_ticket, verbose=True)
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


@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
def test_no_word_of_a_file_can_do_anything(ticket_path: Path, hostile: str) -> None:
    """Every text that a ticket, its evidence or a path brings, one after the other and all together."""
    edit(ticket_path, lambda t: t["tokens"][0].update(h=1))
    run = run_of(ticket_path, errors=[{"file": hostile, "code": "FILE_UNREADABLE", "text": hostile}])
    (report,) = run["reports"]
    (ticket,) = report["tickets"]
    report |= {"policy_file": hostile, "policy_set_by": hostile, "question": hostile}
    report |= {"policy_loosens": [hostile]}
    ticket["selection"] |= {"rule": hostile}
    ticket["selection"]["excluded"][0]["reason"] = hostile
    ticket["engines"] = [{"text": hostile, "engine": hostile}]
    for item in ticket["items"]:
        item |= {"text": hostile, "remedy": hostile}
    for settings in ({}, {"verbose": True}, {"quiet": True}):
        text = printed(run, notes=[hostile[:40]], **settings)
        assert not HIDDEN.search(text)
        assert all(cell_len(line) <= 300 for line in text.splitlines() if not line.startswith("ks:"))
        assert "markup" not in hostile or "[bold red]markup[/]" in text


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
    for settings in ({}, {"verbose": True}):
        text = shown(ticket_path, str(own), width=400, **settings)
        assert not HIDDEN.search(text)
        lines = [line for line in text.splitlines() if line.lstrip().startswith("CERTIFIED")]
        assert len(lines) == 2, "the verdict, and what it comes to"


def test_whose_word_is_taken_stands_before_the_reasons(tmp_path: Path) -> None:
    run = run_of(make_bundle(tmp_path).path, policy="release")
    run["reports"][0]["tickets"][0]["chosen_among"] = 8
    for settings in ({}, {"verbose": True}):
        first = printed(run, width=400, **settings).partition("\n\n")[0]
        assert "chosen among 8" in first
        assert "The records are the word of whoever evaluated" in first


def test_verbose_lists_every_row(tmp_path: Path) -> None:
    path = make_ticket(tmp_path, rule="ids:" + ",".join(str(i) for i in range(3, 53)))
    text = shown(path, verbose=True)
    assert_readable(text)
    assert set(range(3, 53)) <= {int(one) for one in re.findall(r" (\d+) ", text)}


def test_what_is_said_of_all_tickets_is_said_once(tmp_path: Path) -> None:
    path = make_ticket(tmp_path, ticket_id="one")
    make_ticket(tmp_path, ticket_id="two", exclude=MOVED)
    run = run_of(path)
    text = printed(run)
    assert re.search(r"CERTIFIED\s+one", text)
    assert re.search(r"VACUOUS\s+two", text)
    assert_readable(text)
    assert len(text.splitlines()) <= allowed(run)
    assert text.count("The independent checker agrees") == text.count(run["reports"][0]["question"][:40]) == 1
    assert text.count("Rows that the author left out of the selection: 5.") == 1, "said of one of them"


def test_a_short_report_stays_short_whatever_fails(tmp_path: Path) -> None:
    """Many tickets with every item failing, in as many words as an item can have."""
    path = make_ticket(tmp_path)
    run = run_of(path, policy="release")
    (ticket,) = run["reports"][0]["tickets"]
    ticket["verdict"] = "REFUTED"
    for item in ticket["items"]:
        item |= {"outcome": "fail", "code": "TOKEN_FIGURES", "text": f"{item['name']} is wrong " * 60}
    for number in (1, 2, 9, 40):
        run["reports"][0]["tickets"] = [ticket | {"id": f"t{i}"} for i in range(number)]
        text = printed(run)
        assert len(text.splitlines()) <= allowed(run)
        assert_readable(text)
    assert "more with --verbose" in text


def test_what_all_tickets_lack_is_said_once(tmp_path: Path) -> None:
    path = make_ticket(tmp_path, ticket_id="one")
    make_ticket(tmp_path, ticket_id="two")
    (found,) = (Path(path).parent).rglob("tokenizer.json")
    found.unlink()
    text = shown(path)
    assert re.search(
        r"^FILE_MISSING  integrity\.tokenizer, of all\n +\S+tokenizer\.json is named", text, re.MULTILINE
    )
    body = text[: text.index("report sha256")]
    assert body.count("integrity.tokenizer") == 1
    assert {line.split()[1] for line in body.splitlines() if line.startswith("INCONCLUSIVE")} == {
        "one",
        "two",
    }


def names_of(run: dict[str, Any]) -> set[str]:
    """Every name that the data of a run hold."""
    found = {"τ", "D", "h", "α", "p", "n", "NOT JUDGED"}
    for report in run["reports"]:
        found |= {report["policy"]}
        for ticket in report["tickets"]:
            found |= {ticket["verdict"], *(entry["id"] for entry in ticket["assumptions"] + ticket["taken"])}
            for item in ticket["items"]:
                found |= {item["name"], item["outcome"], item["code"]}
            for claim in ticket["claims"]:
                found |= {claim["name"], claim["finding"], claim["code"], *claim["assumptions"]}
                found |= {claim["role"], claim["procedure"].partition(",")[0], claim["unit"]} - {""}
            found |= {ticket["released"], ticket["selection"]["rule"]}
    return found


def test_every_name_is_whole_and_can_be_explained(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    run = run_of(bundle.path, policy="strict")
    names = names_of(run)
    assert {"gain:base:whole", "claim.token-agreement.reference", "CHECKER_AGREES", "A-UNITS"} <= names
    for name in names:
        assert len(explain(name)) > 1
    text = printed(run, verbose=True)
    (ticket,) = run["reports"][0]["tickets"]
    shown_names = [one["name"] for one in ticket["items"] + ticket["claims"] if not one.get("asymptotic")]
    assert [name for name in shown_names if not re.search(rf"(^| ){re.escape(name)}($| )", text, re.M)] == []
    words = set(re.findall(r"\b[A-Z][A-Z]+(?:_[A-Z]+)+\b|\bA-[A-Z]+(?:\(V\))?", text + printed(run)))
    assert words
    assert [word for word in words if len(explain(word)) < 2] == []


def test_the_longest_names_are_whole(tmp_path: Path) -> None:
    run = run_of(make_bundle(tmp_path).path, policy="strict")
    (ticket,) = run["reports"][0]["tickets"]
    long = f"template-gain:{'n' * 64}:first-line"
    asked = [claim for claim in ticket["claims"] if claim["asked"]]
    old, asked[0]["name"], ticket["id"] = asked[0]["name"], long, "i" * 64
    for item in ticket["items"]:
        item["text"] = f"{item['text']} {'w' * 100} {long}"
        if item["name"] in asked[0]["items"]:
            item |= {"outcome": "fail", "code": "ASSUMPTION_NOT_ACCEPTED"}
    ticket["verdict"] = "REFUTED"
    run["reports"][0]["tickets"] = [ticket, ticket | {"id": "j" * 64}]
    for settings in ({}, {"verbose": True}, {"quiet": True}):
        text = printed(run, **settings)
        words = set(text.split())
        assert {"i" * 64, "j" * 64, "ASSUMPTION_NOT_ACCEPTED"} <= words
        assert settings.get("quiet") or (long in words and old not in words)
        for cut in re.findall(r"\S+(?=…)", text):
            assert not long.startswith(cut.strip()) or cut == long, "a name is whole or not there"
        wide = [line for line in text.splitlines() if cell_len(line) > 80 and not line.startswith("ks:")]
        assert [line for line in wide if long not in line and "w" * 100 not in line] == []


PUBLISHED = Path(__file__).parents[2] / "reports" / "published"


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        pytest.param(name, policy, marks=[] if (name, policy) == quick else pytest.mark.slow)
        for quick in [("en-ca-second", "selection")]
        for name in ("en-ca-experiment", "en-ca-second")
        for policy in POLICIES
    ],
)
def test_reports_on_what_is_published_are_short_and_readable(name: str, policy: str) -> None:
    run = run_of(PUBLISHED / name / "tickets" / "tickets.json", policy=policy)
    (report,) = run["reports"]
    for tickets in ([one] for one in report["tickets"]), [report["tickets"]]:
        for some in tickets:
            one = run | {"reports": [report | {"tickets": some}]}
            text = printed(one)
            assert len(text.splitlines()) <= allowed(one)
            assert_readable(text)
            asked = {claim["name"] for ticket in some for claim in ticket["claims"] if claim["asked"]}
            assert [name for name in asked if not re.search(rf" {re.escape(name)}( |$)", text, re.M)] == []
    assert_readable(printed(run, verbose=True))
    assert [one for one in names_of(run) if len(explain(one)) < 2] == []


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
    run = run_of(ticket_path)
    token = run["reports"][0]["tickets"][0]["tokens"][0]
    token |= {
        "id": 16_000_000,
        "h": 20_000,
        "log10_p": -12041.7,
        "shift_norm": 1.4013e-45,
        "piece": "界" * 50,
    }
    text = printed(run, verbose=True)
    assert_readable(text)
    assert "16000000" in text
    assert tuned_table().shape == (64, 32)
