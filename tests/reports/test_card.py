"""The card as others read it: a YAML loader, a Markdown reader, the hub; and every change in it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from command import ROOT
from formats_world import hostile_text
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from certify.base.errors import InvalidInputError
from certify.base.text import escape
from certify.certificate.schema import parse_certificate
from reports.card import difference, put

Json = Any

STATED = json.loads((ROOT / "reports/published/en-ca-experiment/tickets/certificates/a50.json").read_bytes())
SHA256 = "c" * 64
CERTIFICATE = parse_certificate(STATED)
CARD = put("", CERTIFICATE, SHA256)
READER = MarkdownIt("gfm-like", {"linkify": True})


def front(card: str) -> Json:
    return yaml.safe_load(card.split("\n---")[0])


def body(card: str) -> str:
    return card.split("\n---", 1)[1].partition("\n")[2]


def hostile(text: str) -> Json:
    """The certificate as plain JSON with ``text`` wherever text can stand."""
    value = json.loads(json.dumps(STATED))
    value["evidence"], value["claims"] = value["evidence"][:1], value["claims"][:3]
    value["evidence"][0] |= {"text": text, "path": "a/b`|<!-- certify card: end -->"}
    value["parameters"]["rule"] = text
    for claim in value["claims"]:
        claim |= {"evidence": value["evidence"][0]["sha256"], "unit": text, "signature": text}
    for one in value["assumptions"]:
        one |= {"statement": text, "status": text}
    return value | {"non_claims": [text], "created_by": text, "signature": text}


def skeleton(card: str) -> list[str]:
    found = []
    for block in READER.parse(body(card)):
        found.append(block.content if block.type == "html_block" else block.type)
        for part in block.children or ():
            if part.type == "html_inline":
                assert part.content in ("<code>", "</code>")
            elif part.type not in ("text", "code_inline", "softbreak"):
                found.append(part.type)
    return found


def test_the_metadata_are_the_limits_of_the_certificate() -> None:
    (model,) = front(CARD)["model-index"]
    found = sorted(
        (result["dataset"]["revision"], one["name"], f"{one['value']:.6f}", one["args"]["delta"])
        for result in model["results"]
        for one in result["metrics"]
    )
    wanted = []
    for claim in STATED["claims"]:
        name = ":".join(part for part in (claim["kind"], claim["comparator"], claim["extraction"]) if part)
        for side in ("lower", "upper"):
            if claim[side] is not None:
                limit = claim[side]["decimal"]
                wanted.append((claim["evidence"], f"{name} ({side} limit)", limit, claim["delta"]))
    assert model["name"] == STATED["ticket"]["id"]
    assert found == sorted(wanted)
    assert len(found) > 20


def test_the_hub_reads_the_metadata() -> None:
    hub = pytest.importorskip("huggingface_hub")
    data = hub.ModelCard(CARD, ignore_metadata_errors=False).data
    assert len(data.eval_results) == sum(
        claim[side] is not None for claim in STATED["claims"] for side in ("lower", "upper")
    )


def test_the_section_states_claims_digests_and_what_is_not_claimed() -> None:
    rows = [line for line in body(CARD).splitlines() if line.startswith("| `")]
    for claim, row in zip(STATED["claims"], rows, strict=False):
        limits = [claim[side]["decimal"] if claim[side] else "" for side in ("estimate", "lower", "upper")]
        assert f" | {claim['finding']} | {' | '.join(limits)} | " in row
        assert row.endswith(f" | {claim['delta']} |")
    shown = "".join(part.content for block in READER.parse(body(CARD)) for part in block.children or ())
    digests = [STATED["ticket"], *STATED["subjects"], *STATED["evidence"]]
    for wanted in (SHA256, *(one["sha256"] for one in digests), *STATED["non_claims"]):
        assert wanted in shown
    assert "certify check tickets.json#a50\n" in CARD


@given(hostile_text)
@example("\n---\n# certify card: end\n<!-- certify card: end -->\n")
def test_nothing_in_a_certificate_is_markup(text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    card = put("", parse_certificate(hostile(f"x{text}")), SHA256)
    assert skeleton(card) == skeleton(put("", parse_certificate(hostile("word")), SHA256))
    (result,) = front(card)["model-index"][0]["results"]
    assert result["dataset"]["name"] == escape(f"x{text}")
    assert difference(card, parse_certificate(hostile(f"x{text}")), SHA256) is None


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("head", ["", "---\nlicense: mit # yes\ntags:\n- x\n---\n", "\n---\n---\n"])
@pytest.mark.parametrize("text", ["", "# Title\n\ntext\n", "# Title\n--- \ntext"])
def test_the_rest_of_a_card_stays_as_it_is(head: str, text: str, end: str) -> None:
    before = f"{head}{text}".replace("\n", end)
    end = end if before else "\n"
    other = parse_certificate(hostile("word"))
    card = put(before, other, SHA256)
    assert put(put(before, CERTIFICATE, SHA256), other, SHA256) == card  # an earlier one is replaced
    assert (difference(card, other, SHA256), difference(card, CERTIFICATE, SHA256) is None) == (None, False)
    left = card
    for begin, stop in (("# certify", "card: end"), ("<!-- certify", "card: end -->")):
        first = left.index(f"{begin} card: begin")
        left = left[:first] + left[left.index(stop, first) + len(stop + end) :]
    assert left.removeprefix(f"---{end}---{end}").strip() == before.strip()
    assert ("\r" in card) is (card.count("\r\n") == card.count("\n") > 0)


@given(st.integers(0, 10**6), st.sampled_from("x0 |"))
def test_every_change_inside_is_found(where: int, char: str) -> None:
    lines = CARD.split("\n")
    inside = [i for i, line in enumerate(lines) if line and line != "---" and "certify card: " not in line]
    at = inside[where % len(inside)]
    lines[at] = lines[at] + char
    assert (difference("\n".join(lines), CERTIFICATE, SHA256) or "").startswith(f"line {at + 1}: ")
    del lines[at]
    assert difference("\n".join(lines), CERTIFICATE, SHA256) is not None
    assert difference(CARD + "more\n", CERTIFICATE, SHA256) is None


@pytest.mark.parametrize(
    "card",
    [
        "---\nlicense: mit\n",
        CARD.replace("<!-- certify card: end -->", ""),
        CARD + CARD,
        CARD.replace("---\n", "---\nmodel-index: []\n", 1),
        CARD.replace("\n---\n", '\n"model-index" : []\n---\n', 1),
        CARD.replace("card: begin", "card: x")
        .replace("card: end", "card: begin")
        .replace("card: x", "card: end"),
    ],
)
def test_a_malformed_card_is_refused(card: str) -> None:
    for use in (put, difference):
        with pytest.raises(InvalidInputError) as error:
            use(card, CERTIFICATE, SHA256)
        assert error.value.code == "CARD_MALFORMED"
