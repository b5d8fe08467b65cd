"""Tables of results: every cell against the verdicts and claims that ``certify check`` gives for itself."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import pytest
from evidence_folders import make_bundle
from ticket_folders import make_ticket

from certify.base.records import RULES
from certify.claims.corpus import resampled
from certify.gate.check import check
from certify.policy.policy import POLICIES
from reports import results
from reports.results import main


def rows(text: str, title: str) -> list[list[str]]:
    part = text.split(f"### {title}\n")[1].split("###")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    assert re.fullmatch(r"\|(---\|)+", lines[1])
    cells = [[cell.strip() for cell in line[1:-1].split(" | ")] for line in (lines[0], *lines[2:])]
    assert all(len(row) == len(cells[0]) for row in cells)
    return cells


def test_the_tables_say_what_the_gate_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_bundle(tmp_path).path
    assert main([str(path)]) == 0
    printed = capsys.readouterr().out

    head, one = rows(printed, "Verdicts")
    assert head[3:] == list(POLICIES)
    assert one[3:] == [check(path, policy=name).tickets[0].status.value for name in POLICIES]

    report = check(path).tickets[0]
    assert one[:2] == [report.ticket.id, str(len(report.ticket.ids))]
    asked = rows(printed, "What the policy `release` asks")[1:]
    outcomes = {item.name: item.outcome.value for item in report.items}
    assert len(asked) >= 4
    for row in asked:
        name = "claim." + row[1].replace(":", ".")
        names = name, name.removesuffix(".whole") + ".declared", name.replace("claim", "declared.1")
        assert [outcomes[one] for one in names if one in outcomes] == [row[-1]]
    assert len(rows(printed, "Does the guarantee hold?")) == 1 + 3

    corpus = rows(printed, "Corpus scores (asymptotic: they decide nothing)")
    assert corpus[0] == ["ticket", "text", "against", "score", *RULES]
    (text,) = (one for one in report.examined.texts if one.role == "evaluation")
    by_name = {claim.name: resampled(claim, text.evidence) for claim in text.claims}
    assert [tuple(row[2:4]) for row in corpus[1:]] == [
        *(("base", "BLEU"), ("base", "chrF++"), ("reference", "BLEU"), ("reference", "chrF++"))
    ]
    for row in corpus[1:]:
        kind = {"BLEU": "corpus-bleu", "chrF++": "corpus-chrf"}[row[3]]
        for rule, cell in zip(RULES, row[4:], strict=True):
            claim = by_name[f"{kind}:{row[2]}:{rule}"]
            said = re.fullmatch(r"(\S+), (\S+) \((\S+) to (\S+)\), p (\S+)", cell)
            assert said is not None
            exact = [
                *(Fraction(claim.detail["ticket"]), claim.estimate, claim.lower, claim.upper),
                Fraction(claim.detail["p_value"]),
            ]
            for shown, figure, slack in zip(said.groups(), exact, [0.006] * 4 + [0.001], strict=True):
                assert abs(float(shown) - float(figure)) <= slack

    (margins,) = rows(printed, "How the margins compare")[1:]
    assert report.examined is not None
    claims = {claim.name: claim for text in report.examined.texts for claim in text.claims}
    detail = claims["guarantee:additive"].detail
    assert margins[0] == report.ticket.id
    assert float(margins[2]) == pytest.approx(2 * report.ticket.selection.tau, rel=1e-3)
    assert margins[-1] == f"{detail['vacuous_steps']} of {detail['steps']}"
    assert float(margins[4]) == pytest.approx(float(Fraction(detail["least_loss"])), rel=1e-3)


def test_what_is_missing_is_one_line_and_no_empty_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_ticket(tmp_path, bundle=False)
    looked = []
    monkeypatch.setattr(results, "check", lambda *a, **k: looked.append(k["policy"]) or check(*a, **k))
    assert main([str(path)]) == int(check(path).exit_code) == 3
    printed = capsys.readouterr()
    assert (printed.out, looked) == ("", ["release"])
    assert re.fullmatch(r"certify: no claim to show: \S+: .* \[TABLE_NOT_GIVEN\]\n", printed.err)
    assert main([str(tmp_path / "none.json")]) == 2
    assert capsys.readouterr().err.endswith(" [FILE_UNREADABLE]\n")


def test_it_takes_one_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err
