"""A certificate as part of a model card: a section in Markdown, and ``model-index`` in the YAML front matter.

Both are blocks of lines between two markers, made of the certificate alone: nothing in them is measured here.
What else the card says is not looked at, but for a second ``model-index``, which would be read instead.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any, Final

from certify.base.errors import InvalidInputError
from certify.base.text import escape
from certify.certificate.schema import Certificate, EvidenceRef
from reports.formats.markdown import code, prose, table

_INDEX: Final = ("# certify card: begin", "# certify card: end")
_SECTION: Final = ("<!-- certify card: begin -->", "<!-- certify card: end -->")
_OTHER: Final = re.compile(r"""["']?model-index["']?\s*:""")
_TASKS: Final = {"evaluation": "translation", "other-template": "translation", "loss": "text-generation"}


def put(card: str, certificate: Certificate, sha256: str) -> str:
    """Put both blocks into a card, in place of earlier ones; every other character stays.

    Args:
        card: the card's text, or nothing.
        certificate: what to state.
        sha256: its file digest.

    Raises:
        InvalidInputError: the card has a marker without its other one, a ``model-index`` of its own, or front
            matter without an end (``CARD_MALFORMED``).
    """
    head, body = _split(card)
    end = "\r" if "\r\n" in card else ""
    if body[-1].strip():
        body[-1] += end
        body.append("")
    for lines, marks, made in ((head, _INDEX, _index), (body, _SECTION, _section)):
        place = _find(lines, marks)
        new = [line + end for line in (marks[0], *made(certificate, sha256), marks[1])]
        if place is None and lines is body:
            lines[-1] += end  # a line between the text and the section
            new.append("")
        lines[place or slice(len(lines), None)] = new
    return "\n".join([*head, *body])


def difference(card: str, certificate: Certificate, sha256: str) -> str | None:
    """The first line in which a card says something else than :func:`put` writes; None if there is none.

    Raises:
        InvalidInputError: as :func:`put`.
    """
    head, body = _split(card)
    for lines, before, marks, made in ((head, 0, _INDEX, _index), (body, len(head), _SECTION, _section)):
        place = _find(lines, marks)
        if place is None:
            return f"no lines between {marks[0]!r} and {marks[1]!r}"
        found = (line.rstrip("\r") for line in lines[place][1:-1])
        for i, (is_, should) in enumerate(zip_longest(found, made(certificate, sha256), fillvalue="")):
            if is_ != should:
                at = next((k for k, (a, b) in enumerate(zip(is_, should, strict=False)) if a != b), 0)
                there, here = (escape(text[max(0, at - 40) :], limit=80) for text in (is_, should))
                line = before + place.start + i + 2
                return f"line {line}: the card says {there!r}, the certificate {here!r}"
    return None


def _split(card: str) -> tuple[list[str], list[str]]:
    """Lines up to the end of the front matter, made where there is none, and from there on."""
    lines = card.split("\n")
    first = next((i for i, line in enumerate(lines) if line.strip()), 0)
    if lines[first].strip() != "---":
        end = "\r" if "\r\n" in card else ""
        return ["---" + end], ["---" + end, *([end, *lines] if card else [""])]
    last = next((i for i in range(first + 1, len(lines)) if lines[i].rstrip() == "---"), None)
    if last is None:
        raise _malformed("front matter begins with --- and does not end")
    return lines[:last], lines[last:]


def _find(lines: list[str], marks: tuple[str, str]) -> slice | None:
    """Where the lines from one marker to the other are."""
    at = [[i for i, line in enumerate(lines) if line.strip() == mark] for mark in marks]
    if list(map(len, at)) not in ([0, 0], [1, 1]) or (at[0] and at[0] > at[1]):
        raise _malformed(f"the markers {marks[0]!r} and {marks[1]!r} do not stand there once each, in order")
    place = slice(at[0][0], at[1][0] + 1) if at[0] else None
    others = lines if place is None else lines[: place.start] + lines[place.stop :]
    if marks is _INDEX and any(map(_OTHER.match, others)):
        raise _malformed("front matter has another model-index: remove it")
    return place


def _malformed(what: str) -> InvalidInputError:
    return InvalidInputError(f"the card is malformed: {what}", code="CARD_MALFORMED")


def _index(certificate: Certificate, sha256: str) -> Iterator[str]:
    """One result for each text, one metric for each limit; values are JSON, which is YAML."""
    results = [lines for one in certificate.evidence if (lines := [*_result(certificate, one)])]
    yield from ("model-index:", f"- name: {_json(certificate.ticket.id)}")
    yield f"  results:{'' if results else ' []'}  # of certificate {sha256}"
    for lines in results:
        yield from lines


def _result(certificate: Certificate, evidence: EvidenceRef) -> Iterator[str]:
    metrics = [
        f'{{"type": {_json(claim.kind)}, "name": {_json(f"{claim.name} ({side} limit)")},'
        f' "value": {limit.decimal}, "args": {_json({"delta": claim.delta, "finding": claim.finding})}}}'
        for claim in certificate.claims
        if claim.evidence == evidence.sha256
        for side, limit in (("lower", claim.lower), ("upper", claim.upper))
        if limit is not None
    ]
    if not metrics:
        return
    text = {"name": escape(evidence.text), "type": "certify.evidence", "config": evidence.role}
    yield f"  - task: {_json({'type': _TASKS[evidence.role]})}"
    yield f"    dataset: {_json(text | {'revision': evidence.sha256})}"
    yield "    metrics:"
    yield from (f"    - {metric}" for metric in metrics)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _section(certificate: Certificate, sha256: str) -> Iterator[str]:
    chosen, name = certificate.parameters, certificate.ticket.id
    texts = {one.sha256: one for one in certificate.evidence}
    yield from (f"## What a certificate states of the lottery ticket {code(name)}", "")
    yield (
        f"Rows selected by {code(chosen.rule)} (α = {chosen.alpha}, correction {chosen.correction}) in"
        f" {chosen.dtype}, released as {chosen.object}. A certificate holds no verdict: `certify check`"
        " decides, under a policy."
    )
    yield from ("", f"Error probability δ = {chosen.delta} of each claim over all its texts together;")
    yield from ("of each limit by itself as in the last column.", "")
    yield from table(
        ("claim", "text", "finding", "estimate", "lower limit", "upper limit", "units", "δ"),
        (
            (
                code(claim.name),
                f"{prose(texts[claim.evidence].text)}, {texts[claim.evidence].role}"
                if claim.evidence in texts
                else code(claim.evidence),
                claim.finding,
                *("" if one is None else one.decimal for one in (claim.estimate, claim.lower, claim.upper)),
                f"{claim.n} × {prose(claim.unit)}" if claim.n else "",
                claim.delta,
            )
            for claim in certificate.claims
        ),
    )
    yield from ("", "Bound by SHA-256:", "")
    digests = {"ticket": certificate.ticket.sha256, "certificate": sha256}
    digests |= {one.name: one.sha256 for one in certificate.subjects}
    rows = [(what, f"`{digest}`") for what, digest in digests.items()]
    rows += [(f"evidence {code(one.path)}", f"`{one.sha256}`") for one in certificate.evidence]
    yield from table(("what", "digest"), rows)
    yield from ("", "Assumed:", "")
    yield from (
        f"- {code(one.id)} {prose(one.statement)}: *{prose(one.status)}*" for one in certificate.assumptions
    )
    yield from ("", "Not claimed:", "", *(f"- {prose(one)}" for one in certificate.non_claims))
    yield from ("", "To check again, with the ticket file:", "", "```sh")
    yield from (f"certify check tickets.json#{name}", f"certify card --check README.md tickets.json#{name}")
    yield "```"
