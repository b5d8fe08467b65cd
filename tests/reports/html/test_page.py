"""The page of a report: whole, inert, well-formed, and saying what the report says."""

from __future__ import annotations

import hashlib
import html
import re
import xml.etree.ElementTree as ET
from collections import Counter
from fractions import Fraction
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from command import in_process
from evidence_folders import TICKET_ARM, Bundle, make_bundle
from scipy.stats import beta
from ticket_folders import MOVED, edit, pieces

import certify
from certify.base.text import escape
from proofs_checks.worlds import synthetic
from reports.html.markup import Markup, join, tag
from reports.html.page import page
from reports.html.plots.overlap import jaccard
from reports.html.plots.promise import shown_from
from reports.view import together, view

VOID = {"meta", "br", "input"}
HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onload='alert(1)",
    "<svg onload=alert(1)>",
    "]]><!--",
    "&lt;b&gt;&#60;",
    "javascript:alert(1)",
    "a\u202eb\u2066c",
    "\x1b[31mred\x00\x07",
    "line\nbreak\u2028",
)
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


class Outline(HTMLParser):
    """Elements, attributes and text of a page; raises where elements do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute twice: {tag} {attrs}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["script"], ["style"]):
            self.text.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def words(self) -> str:
        return " ".join("".join(self.text).split())


def made(bundle: Bundle | Path, policy: str = "strict") -> tuple[Any, str]:
    path = bundle if isinstance(bundle, Path) else bundle.path
    report = certify.check(path, policy=policy, engine="numpy", workers=1)
    return report, page([report])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, str]:
    """A ticket with evidence of every kind that a page can show, drawn unit by unit."""
    bundle = make_bundle(tmp_path_factory.mktemp("whole"), issued=False)
    bundle.fields = {"design": "sequential", "path": {"n": 16, "g": 2}}
    for i, ids in enumerate((bundle.ids[:2], bundle.ids[:3]), 1):
        known = {"ids": list(ids), "table_sha256": bundle.table_of(ids)}
        bundle.arms.append(
            bundle.arm(TICKET_ARM) | known | {"name": f"seed-{i}", "control": "seed", "of": "tiny"}
        )
        for record in bundle.records:
            record["arms"][f"seed-{i}"] = dict(record["arms"]["random-0"])
        for record in bundle.losses:
            record["nats"][f"seed-{i}"] = 250 * 10**9
    for record in bundle.records:
        record["arms"][TICKET_ARM]["path"] = [
            f"5*4,{token}*14,5*1" for token in record["reference"]["tokens"]
        ]
    bundle.issue()
    return made(bundle)


def test_the_page_is_whole_and_inert(whole: tuple[Any, str]) -> None:
    _, text = whole
    outline = Outline(text)
    ids = [attributes["id"] for _, attributes in outline.elements if "id" in attributes]
    assert not [name for name, n in Counter(ids).items() if n > 1]
    for tag_, attributes in outline.elements:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "src")], tag_
        for name in ("href", "aria-describedby"):
            if value := attributes.get(name):
                assert value.removeprefix("#") in ids, f"{tag_} points at {value}"
    (rule,) = [one["content"] for one in outline.named("meta") if one.get("http-equiv")]
    assert rule is not None
    assert rule.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in rule
    assert "://" not in text
    assert text == page([whole[0]]), "the same report gives the same page"


def test_every_drawing_is_xml_with_a_name_and_its_numbers(whole: tuple[Any, str]) -> None:
    _, text = whole
    drawings = re.findall(r"<svg\b.*?</svg>", text, re.DOTALL)
    for one in drawings:
        ET.fromstring(one)
    outline = Outline(text)
    shown = [one for one in outline.named("svg") if one.get("aria-hidden") != "true"]
    assert all(one.get("role") == "img" and one.get("aria-label") for one in shown)
    figures = re.findall(r"<figure\b.*?</figure>", text, re.DOTALL)
    assert len(figures) >= 8
    for one in figures:
        parsed = Outline(one)
        assert parsed.named("h4")
        assert parsed.named("figcaption")
        (key,) = (attributes["id"] for attributes in parsed.named("figure"))
        assert rows_of(text, str(key)), "the numbers behind it"


def test_headings_descend_one_step_at_a_time(whole: tuple[Any, str]) -> None:
    levels = [int(name[1]) for name, _ in Outline(whole[1]).elements if re.fullmatch(r"h[1-6]", name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))


def test_it_says_what_the_report_says(whole: tuple[Any, str]) -> None:
    report, text = whole
    data = view(report, resample=False)
    (ticket,) = data["tickets"]
    outline = Outline(text)
    words = outline.words
    assert words.index(ticket["verdict"]) < words.index(data["question"])
    for item in ticket["items"]:
        assert item["name"] in words
    for claim in ticket["claims"]:
        assert claim["name"] in words
    for line in (*ticket["non_claims"], *(one["id"] for one in (*ticket["taken"], *ticket["assumptions"]))):
        assert line in words
    run = together(report.exit_code, [data])
    for value in (ticket["digest"], ticket["certificate"]["sha256"], run["digest"]):
        assert value in words


def test_every_plot_is_drawn_or_left_out_with_a_reason(whole: tuple[Any, str], ticket_path: Path) -> None:
    figures = re.compile(r'<figure id="r0(?:t0)?-([a-z]+)')
    every = {"limits", "violations", "rule", "rows", "sequence", "frequency", "ranks", "shift", "overlap"}
    assert set(figures.findall(whole[1])) == every
    _, text = made(ticket_path, "selection")
    assert set(figures.findall(text)) == {"ranks", "shift"}
    reasons = re.findall(r'<p class="left-out"><strong>[^<]+</strong>([^<]+)</p>', text)
    assert len(reasons) == 8, "seven plots and the sentences"
    assert all(reason.strip().endswith(".") for reason in reasons)


def test_figures_are_those_of_the_claims(whole: tuple[Any, str]) -> None:
    """Read back from the page: limits, rates and gains are what claims and records say."""
    report, text = whole
    (examined,) = (one.examined for one in report.tickets)
    limits = rows_of(text, "r0t0-limits")
    for answered in examined.answers:
        assert any(
            name.replace(":", ".") in answered[0] or answered[0].endswith(".declared") for name, *_ in limits
        )
    (translated,) = (one for one in examined.texts if one.role == "evaluation")
    for name, _, estimate, lower, *_ in limits:
        claim = next(one for one in (c for t in examined.texts for c in t.claims) if one.name == name)
        assert float(estimate.replace("−", "-")) == pytest.approx(float(claim.estimate), abs=1e-3, rel=1e-3)
        if claim.lower is not None:
            assert float(lower.replace("−", "-")) == pytest.approx(float(claim.lower), abs=1e-3, rel=1e-3)
    units = list(translated.evidence.units.values())
    whose, least, drawn, differ, *_ = rows_of(text, "r0t0-violations")[0]
    assert (whose, least, int(drawn), int(differ)) == ("embed tuning", "0", len(units), 0)
    sequence = rows_of(text, "r0t0-sequence-0")
    assert int(sequence[-1][0]) == len(units)
    bounds = [float(row[2].replace("−", "-")) for row in sequence]
    assert bounds == sorted(bounds), "a limit that was reached is never lost"
    assert rows_of(text, "r0-overlap") == [["1 tiny", "1", f"{(2 / 5 + 3 / 5) / 2:.4g}"]]


def test_rates_by_margin_are_recounted_from_the_records(tmp_path: Path) -> None:
    """Every threshold by plain loops over the records, limits by the beta quantiles of scipy."""
    bundle = make_bundle(tmp_path, issued=False)
    for i, record in enumerate(bundle.records):
        gaps = [(37 * (3 * i + t) % 100) * 10**7 for t in range(3)]
        record["reference"] |= {
            f"p_{a}": [5 * 10**8 + sign * gap // 2 for gap in gaps] for a, sign in (("a", 1), ("b", -1))
        }
        record["arms"][TICKET_ARM]["differs"] = [[t, 99] for t in range(3) if gaps[t] < 10**7 * (i % 60)]
    bundle.issue()
    report, text = made(bundle)
    (found,) = (one for one in report.tickets[0].examined.texts if one.role == "evaluation")
    by_threshold = {}
    for t in (i / 20 for i in range(20)):
        drawn = []
        for name, records in found.evidence.units.items():
            (own,) = (one for one in bundle.records if one["id"] == records[0].id)
            wrong = dict(own["arms"][TICKET_ARM]["differs"])
            gaps = [a - b for a, b in zip(own["reference"]["p_a"], own["reference"]["p_b"], strict=True)]
            sure = [step in wrong for step in range(3) if gaps[step] >= round(t * 10**9)]
            if sure:
                drawn.append(sure[int(hashlib.sha256(f"drawn:{name}".encode()).hexdigest(), 16) % len(sure)])
        k, n, delta = sum(drawn), len(drawn), float(found.delta)
        low = beta.ppf(delta, k, n - k + 1) if k else 0
        by_threshold[t] = (n, k, k / n, low, beta.ppf(1 - delta, k + 1, n - k) if k < n else 1)
    rows = [row[1:] for row in rows_of(text, "r0t0-violations") if row[0] == "embed tuning"]
    assert len(rows) == 20
    assert any(0 < float(row[3]) < 1 for row in rows)
    for t, *figures in rows:
        assert [float(one) for one in figures] == pytest.approx(by_threshold[float(t)], rel=1e-3, abs=1e-6)


def test_a_margin_is_shown_from_the_largest_down() -> None:
    """A threshold that was picked from the curve would be shown too often: one failure above it ends all."""
    limits = [(Fraction(t, 10), Fraction(upper, 100)) for t, upper in ((0, 9), (3, 4), (6, 4), (9, 4))]
    assert shown_from(limits, Fraction(5, 100)) == Fraction(3, 10)
    assert shown_from(limits, Fraction(9, 100)) == 0
    assert shown_from([*limits, (Fraction(95, 100), Fraction(6, 100))], Fraction(5, 100)) is None


def rows_of(page: str, figure: str) -> list[list[str]]:
    """Cells of the table behind a figure; limits stand in a table of their own."""
    (found,) = re.findall(rf'<figure id="{figure}".*?</figure>', page, re.DOTALL)
    if figure.endswith("-limits"):
        found = page[page.index("<caption>What is asked</caption>") :]
    body = found.partition("<tbody>")[2].partition("</tbody>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", body)
    return [[html.unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)] for row in rows]


# --- attacks -----------------------------------------------------------------------------------------------


def test_nothing_from_a_file_becomes_markup(tmp_path: Path) -> None:
    """Pieces, sentences, their names, names of texts and of files: all of them hostile."""
    bundle = make_bundle(tmp_path / "<img src=x onerror=alert(1)>", vocab=hostile_pieces(), issued=False)
    name = " ".join(HOSTILE)
    bundle.fields = {"text": synthetic.manifest(bundle.records, bundle.arms)["text"] | {"name": name}}
    for record, said in zip(bundle.records, HOSTILE * 9, strict=False):
        record["id"] = f"{record['id']} {said}"
        record["arms"][TICKET_ARM]["text"] = said
        record.pop("witness", None)
    for record, said in zip(bundle.records[:50], HOSTILE * 5, strict=True):
        record["witness"] = {"source": said, "target": said}
    bundle.issue()
    report, text = made(bundle)
    assert_inert(text)
    for said in HOSTILE:
        assert html.escape(escape(said)) in text
    assert_inert(page([report], poisoned(together(0, [view(report)]))))


def hostile_pieces() -> dict[str, int]:
    """The small vocabulary with hostile pieces in the place of the ticket's."""
    taken = dict(zip(MOVED, HOSTILE, strict=False))
    return {taken.get(i, piece): i for piece, i in pieces().items()}


def poisoned(value: Any) -> Any:
    """Data in which every string but verdicts, outcomes and numbers carries an attack."""
    kept = {"verdict", "outcome", "exact", "delta", "alpha", "rule", "gain", "share", "sha256", "digest"}
    if isinstance(value, dict):
        return {key: one if key in kept else poisoned(one) for key, one in value.items()}
    if isinstance(value, list):
        return [poisoned(one) for one in value]
    if not isinstance(value, str) or value == "checker.agrees":  # the one item that a renderer looks for
        return value
    return f"{value}{HOSTILE[0]}{HOSTILE[1]}\u202e"


def assert_inert(text: str) -> None:
    outline = Outline(text)
    assert not UNSEEN.search(text)
    names = {name for name, _ in outline.elements}
    assert names <= {
        *("html", "head", "meta", "title", "style", "script", "body", "header", "main", "footer", "article"),
        *(
            "section",
            "h1",
            "h2",
            "h3",
            "h4",
            "p",
            "ul",
            "li",
            "dl",
            "dt",
            "dd",
            "div",
            "span",
            "strong",
            "em",
        ),
        *("code", "a", "i", "br", "details", "summary", "figure", "figcaption", "table", "caption", "thead"),
        *("tbody", "tr", "th", "td", "svg", "g", "defs", "path", "rect", "text", "title", "use"),
    }
    scripts = [one.get("type") for one in outline.named("script")]
    assert scripts == ["application/octet-stream"] * (len(scripts) - 1) + [None]
    for tag_, attributes in outline.elements:
        known = {
            "id",
            "class",
            "href",
            "d",
            "role",
            "lang",
            "open",
            "scope",
            "name",
            "content",
            "charset",
            "type",
        }
        known |= {
            "tabindex",
            "x",
            "y",
            "width",
            "height",
            "transform",
            "text-anchor",
            "viewbox",
            "http-equiv",
        }
        other = {name for name in attributes if not name.startswith(("aria-", "data-"))} - known
        assert not other, f"{tag_} has {other}"
        assert (attributes.get("href") or "#").startswith("#")


def test_a_planted_attack_is_seen() -> None:
    """The judges above must fail where something is not escaped."""
    for attack in (*HOSTILE[:4], "a\u202eb"):
        broken = join(Markup(f"<p id='{attack}'>{attack}</p>"), tag("script", Markup("")))
        with pytest.raises(AssertionError):
            assert_inert(broken)


def test_text_and_attributes_are_escaped_by_construction() -> None:
    for said in HOSTILE:
        parsed = Outline(tag("p", said, ["a", (said,)], None, title=said))
        assert [name for name, _ in parsed.elements] == ["p"]
        assert parsed.elements[0][1]["title"] == escape(said)
        assert "".join(parsed.text) == f"{escape(said)}a{escape(said)}"


def test_the_jaccard_index() -> None:
    assert [jaccard(a, b) for a, b in (((1, 2), (2, 3)), ((1,), (2,)), ((1,), (1,)), ((), ()))] == [
        1 / 3,
        0,
        1,
        1,
    ]


# --- the command -------------------------------------------------------------------------------------------


def test_the_command_writes_the_page_with_the_code_of_check(
    ticket_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    words = ["report", ticket_path, "--policy", "selection", "--out", out]
    ran = in_process(words, capsys)
    assert (ran.code, ran.err) == (0, "")
    assert "CERTIFIED" in ran.out
    assert str(out) in ran.out
    Outline(out.read_text(encoding="utf-8"))
    edit(ticket_path, lambda ticket: ticket["tokens"][0].update(h=1))
    assert in_process(words, capsys).code == 1, "its own page is written over"
    assert "TOKEN_FIGURES" in out.read_text(encoding="utf-8")
    other = in_process([*words[:-1], ticket_path], capsys)
    assert (other.code, "OUT_EXISTS" in other.one_line()) == (2, True)


def test_defaults_of_a_project_choose_as_for_check(
    ticket_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ticket_path.parent)
    Path("certify.toml").write_text('policy = "selection"\n', encoding="utf-8")
    assert in_process(["report"], capsys).code == 0
    assert "policy selection, set by certify.toml" in Outline(Path("report.html").read_text("utf-8")).words
    assert in_process(["report", "--policy", "release"], capsys).code == 3


def test_a_file_that_cannot_be_judged_is_on_the_page(
    ticket_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "<b>bad.json"
    bad.write_text("{", encoding="utf-8")
    out = tmp_path / "page.html"
    ran = in_process(["report", ticket_path, bad, "--policy", "selection", "--out", out], capsys)
    assert ran.code == 4
    assert "NOT JUDGED" in out.read_text(encoding="utf-8")
    assert "<h1>1 not judged, 1 certified</h1>" in out.read_text(encoding="utf-8")
    assert_inert(out.read_text(encoding="utf-8"))
