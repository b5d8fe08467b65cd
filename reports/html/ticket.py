"""One ticket of the page: verdict and reasons, claims, plots, assumptions, what is not claimed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reports.html.figure import many, table
from reports.html.markup import Markup, join, tag
from reports.html.material import Material
from reports.html.plots.limits import forest
from reports.html.plots.promise import violations
from reports.html.plots.quality import by_rows, by_rule
from reports.html.plots.scanned import frequency, ranks, shifts
from reports.html.plots.sequence import sequences
from reports.html.sentences import sentences
from reports.html.svg import short
from reports.summary import answer, caveats, denying, policy, remedy_of

Data = Mapping[str, Any]

TONES = {"CERTIFIED": "good", "REFUTED": "bad", "INVALID": "bad", "ERROR": "bad", "NOT JUDGED": "bad"}
"""How a verdict is coloured; one that is not here is open. The word says it, too."""


def section(given: Material, report: Data, ticket: Data) -> Markup:
    """Everything about one ticket.

    Args:
        given: the ticket.
        report: data of its report (:func:`reports.view.view`).
        ticket: its part about the ticket.
    """
    limits, numbers = forest(given)
    return tag(
        "article",
        tag("header", tag("h2", chip(ticket["verdict"]), " ", ticket["id"]), _lead(report, ticket)),
        _reasons(ticket),
        tag("h3", "Claims"),
        _figures(limits, violations(given), by_rule(given), by_rows(given), sequences(given)),
        numbers,
        _informing([claim for claim in ticket["claims"] if not claim["asked"]]),
        tag("h3", "Rows"),
        tag("p", _selection(ticket)),
        tag("ul", (tag("li", said) for said in _beside(ticket)), class_="caveats"),
        _figures(frequency(given), ranks(given), shifts(given)),
        tag("h3", "Sentences where the arms differ"),
        sentences(given),
        tag("h3", "Assumptions"),
        _assumptions("Taken as given by the policy", ticket["taken"]) if ticket["claims"] else None,
        _assumptions(
            "Merely assumed by the published theorem; not used for this verdict", ticket["assumptions"]
        ),
        tag("h3", "Not claimed"),
        tag("ul", (tag("li", line) for line in ticket["non_claims"])),
        _identity(ticket),
        id=given.key,
        class_="ticket",
    )


def chip(verdict: str) -> Markup:
    """A verdict as a word on its colour."""
    return tag("span", verdict, class_=f"chip {TONES.get(verdict, 'open')}")


def _lead(report: Data, ticket: Data) -> Markup:
    return join(
        tag("p", report["question"], " ", tag("strong", answer(ticket)), class_="question"),
        tag("p", f"Under {policy(report)}."),
        tag("ul", (tag("li", said) for said in caveats(ticket)), class_="caveats"),
    )


def _reasons(ticket: Data) -> Markup:
    """What stands in the way, and then, folded, everything else that was checked."""
    against = denying(ticket)
    rest = [item for item in ticket["items"] if item not in against]

    def reason(item: Data) -> Markup:
        remedy = remedy_of(item)
        return tag(
            "li",
            tag("p", tag("code", item["name"]), f" {item['outcome']} ", tag("code", item["code"])),
            tag("p", item["text"]),
            tag("p", "→ ", remedy, class_="remedy") if remedy else None,
            class_="bad" if item["outcome"] in ("fail", "invalid", "error") else None,
        )

    rows = [
        (item["name"], item["outcome"], "yes" if item["required"] else "no", item["code"], item["text"])
        for item in rest
    ]
    head = ("item", "outcome", "required", "code", "found")
    return join(
        tag("h3", "Why" if against else "Nothing stands in the way"),
        tag("ul", map(reason, against), class_="reasons") if against else None,
        tag(
            "details",
            tag("summary", f"{many(len(rest), 'other item')} checked"),
            table("Other items", head, rows),
        ),
    )


def _figures(*figures: Markup) -> Markup:
    return tag("div", figures, class_="figures")


def _informing(claims: Sequence[Data]) -> Markup | None:
    if not claims:
        return None
    said = f"{many(len(claims), 'claim')} for information"
    head = ("claim", "text", "estimate", "lower", "upper", "finding", "n", "δ", "found")

    def row(claim: Data) -> tuple[object, ...]:
        figures = (claim[name] and claim[name]["decimal"] for name in ("estimate", "lower", "upper"))
        return (
            claim["name"],
            claim["text"],
            *figures,
            claim["finding"],
            claim["n"] or None,
            claim["delta"],
            claim["said"],
        )

    return tag(
        "details", tag("summary", said), table("Claims that decide nothing here", head, map(row, claims))
    )


def _selection(ticket: Data) -> str:
    chosen, (rows, width) = ticket["selection"], ticket["table"]["shape"]
    source = f"; base, as stated: {ticket['table']['source']}" if ticket["table"]["source"] else ""
    rule = chosen["rule"] if len(chosen["rule"]) <= 80 else chosen["rule"][:79] + "…"
    return (
        f"{many(len(ticket['tokens']), 'row')} of {short(rows)}, width {width},"
        f" {ticket['table']['dtype']}; rule {rule}, α = {chosen['alpha']}, correction"
        f" {chosen['correction']}, {chosen['method']} law; rejects at h ≥ {chosen['h_alpha']}, published τ ="
        f" {chosen['tau']:.5f}; released: {ticket['released']}{source}."
    )


def _beside(ticket: Data) -> Iterator[str]:
    """Rows that were not chosen from, that did not move, or on which the test is weaker."""
    for group in ticket["selection"]["excluded"]:
        ids = ", ".join(map(str, group["ids"][:6])) + (" …" if len(group["ids"]) > 6 else "")
        yield f"left out, {group['reason']}: {ids}"
    if (counts := ticket["histogram"]) is not None:
        yield f"{many(counts['equal'], 'row')} bit-identical before and after"
        if counts["ties"]:
            yield f"{many(counts['ties'], 'moved row')} with ties: p is conservative there"


def _assumptions(title: str, entries: Sequence[Data]) -> Markup:
    listed = (
        (tag("dt", entry["id"]), tag("dd", entry["statement"], ": ", tag("em", entry["status"])))
        for entry in entries
    )
    return join(tag("h4", title), tag("dl", listed))


def _identity(ticket: Data) -> Markup:
    digests = [("ticket", ticket["digest"])]
    if ticket["certificate"]:
        digests.append(("certificate", ticket["certificate"]["sha256"]))
    return tag(
        "footer",
        tag("p", tag("code", ticket["signature"])),
        (tag("p", name, " ", tag("code", digest)) for name, digest in digests),
    )
