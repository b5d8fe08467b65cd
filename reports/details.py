"""Everything that a check found out about one ticket, for ``certify check --verbose``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import chain
from typing import Any, Final

from rich.text import Text

from certify.base.text import counted, escape
from certify.claims.registry import KINDS
from reports.layout import STYLES, clip, columns, wrap

_BAR = 30
PIECE: Final = 24
"""Cells of a piece in a table."""

_LAST = {"not run": 1, "not bound": 2, "pass": 3}


def details(ticket: Mapping[str, Any], width: int) -> Iterator[Text]:
    """Yield the lines about one ticket after its verdict; of ``width`` cells, unless one name is longer."""
    yield from _items("Decides", [item for item in ticket["items"] if item["required"]], width)
    yield from _items("For information", [item for item in ticket["items"] if not item["required"]], width)
    for text, role in dict.fromkeys((claim["text"], claim["role"]) for claim in ticket["claims"]):
        found = [claim for claim in ticket["claims"] if (claim["text"], claim["role"]) == (text, role)]
        yield from _claims(f"{text} ({role}", [claim for claim in found if not claim["asymptotic"]], width)
        yield from _corpus(
            text, [claim for claim in found if claim["asymptotic"] and claim["estimate"]], width
        )
    yield from _tokens(ticket, width)
    yield from _histogram(ticket, width)
    if ticket["claims"]:
        yield from _assumptions("Taken as given by the policy", ticket["taken"], width)
    title = "Merely assumed by the published theorem (not used for this verdict)"
    yield from _assumptions(title, ticket["assumptions"], width)
    yield from _heading("Not claimed", width)
    for line in ticket["non_claims"]:
        yield from _said(f"- {line}", width)
    yield Text()
    yield Text(escape(ticket["signature"]), "dim")
    yield Text(f"ticket {ticket['digest']}", "dim")
    if ticket["certificate"]:
        yield Text(f"certificate {ticket['certificate']['sha256']}", "dim")


def _heading(title: str, width: int) -> Iterator[Text]:
    yield Text()
    yield from _said(title, width, "", "bold")


def _said(text: str, width: int, indent: str = "  ", style: str = "") -> Iterator[Text]:
    for line in wrap(escape(text), width, first=indent, indent=indent):
        yield Text(line, style)


def _items(title: str, items: Sequence[Mapping[str, Any]], width: int) -> Iterator[Text]:
    if not items:
        return
    yield from _heading(title, width)
    # Items that block the verdict come first, then those they kept from running, then the passes.
    for item in sorted(items, key=lambda item: _LAST.get(item["outcome"], 0)):
        outcome = item["outcome"]
        yield Text.assemble("  ", (f"{outcome:<12}", STYLES[outcome]), "  ", (escape(item["name"]), "bold"))
        code = "" if outcome == "pass" else f"{item['code']}: "
        yield from _said(code + item["text"], width, " " * 16)
        if item["remedy"]:
            yield from _said(f"→ {item['remedy']}", width, " " * 16, "italic")


def _claims(where: str, claims: Sequence[Mapping[str, Any]], width: int) -> Iterator[Text]:
    """Claims on one text, required ones first."""
    yield from _heading(f"Claims on {where}{_level(claims)})", width)
    rows = [["outcome", "claim", "estimate", "limit", "asked", "n"]]
    for claim in sorted(claims, key=lambda claim: claim["asked"] is None):
        row = [claim["outcome"] or claim["finding"], escape(claim["name"]), figure(claim["estimate"])]
        rows.append([*row, limits(claim), claim["asked"] or "", str(claim["n"] or "")])
    yield from chain.from_iterable(columns(rows, width, right=(2, 3, 4, 5)))


def _corpus(text: str, claims: Sequence[Mapping[str, Any]], width: int) -> Iterator[Text]:
    """Corpus scores, labelled as deciding nothing."""
    if not claims:
        return
    yield from _heading(f"Corpus scores on {text} (asymptotic{_level(claims)}: decides nothing)", width)
    rows = [["score", "against", "rule", "ticket", "difference", "limits", "p"]]
    for claim in claims:
        kind, against, rule = claim["name"].split(":")
        both = "…".join(f"{claim[side]['decimal']:+.2f}" for side in ("lower", "upper") if claim[side])
        ours = f"{float(Fraction(claim['detail']['ticket'])):.2f}"
        row = [KINDS[kind].label, against, rule, ours, f"{claim['estimate']['decimal']:+.2f}", both]
        rows.append([*row, p_value_text(claim["detail"]["p_value"])])
    yield from chain.from_iterable(columns(rows, width, right=(3, 4, 5, 6)))


def _level(claims: Sequence[Mapping[str, Any]]) -> str:
    found = levels(claims)
    return f", each limit at {found}" if found else ""


def levels(claims: Sequence[Mapping[str, Any]]) -> str:
    """Error probabilities of the limits of some claims; empty if none has limits."""
    return " and ".join(sorted({claim["delta"] for claim in claims if claim["lower"] or claim["upper"]}))


def p_value_text(exact: str | None) -> str:
    """Format a randomisation p-value ``p/q`` with three decimals, rounded up; empty for None."""
    return "" if exact is None else f"{math.ceil(1000 * Fraction(exact)) / 1000:.3f}"


def figure(value: Mapping[str, Any] | None) -> str:
    """Format an estimate or a limit; empty for None."""
    return "" if value is None else f"{value['decimal']:.4f}"


def limits(claim: Mapping[str, Any]) -> str:
    """Format the limits of a claim; empty if it has none."""
    lower, upper = figure(claim["lower"]), figure(claim["upper"])
    if lower and upper:
        return f"{lower}…{upper}"
    return f"≥ {lower}" if lower else f"≤ {upper}" if upper else ""


def _tokens(ticket: Mapping[str, Any], width: int) -> Iterator[Text]:
    selection, tokens = ticket["selection"], ticket["tokens"]
    count, size = ticket["table"]["shape"]
    yield from _heading(
        f"Ticket: {len(tokens)} of {count} rows of width {size}, {ticket['table']['dtype']}", width
    )
    yield from _said(
        f"rule {selection['rule']}, α = {selection['alpha']}, correction {selection['correction']},"
        f" {selection['method']} law; rejects at h ≥ {selection['h_alpha']},"
        f" published τ = {selection['tau']:.5f}",
        width,
    )
    if ticket["table"]["source"] is not None:
        yield from _said(f"base, as stated: {ticket['table']['source']}", width)
    for group in selection["excluded"]:
        ids = group["ids"]
        listed = ", ".join(map(str, ids[:6])) + (" …" if len(ids) > 6 else "")
        yield from _said(f"left out, {group['reason']}: {listed}", width)
    rows = [["piece", "id", "h", "D", "p", "shift"]]
    for token in sorted(tokens, key=lambda token: (-token["h"], token["id"])):
        piece = "?" if token["piece"] is None else clip(escape(token["piece"]), PIECE)
        row = [piece, str(token["id"]), str(token["h"]), f"{token['D']:.4f}", p_text(token["log10_p"])]
        rows.append([*row, f"{token['shift_norm']:.4g}"])
    if tokens:
        yield Text()
        yield from chain.from_iterable(columns(rows, width, right=(1, 2, 3, 4, 5)))


def p_text(log10_p: float) -> str:
    """Format a p-value, given its base-10 logarithm, in at most eight characters."""
    # The logarithm distinguishes values below the smallest float. Rounded up, like every p-value here.
    if log10_p > -3:
        return f"{math.ceil(1e4 * 10**log10_p - 1e-9) / 1e4:.4f}"
    exponent = math.floor(log10_p)
    tenths = math.ceil(10 * 10 ** (log10_p - exponent) - 1e-9)
    if tenths == 100:
        tenths, exponent = 10, exponent + 1
    return f"{tenths / 10:.1f}e{exponent}"


def _histogram(ticket: Mapping[str, Any], width: int) -> Iterator[Text]:
    data = ticket["histogram"]
    if data is None:
        return
    n, tau = ticket["selection"]["n"], ticket["selection"]["tau"]
    yield from _heading("Distance D of the rows that moved", width)
    if not data["bins"] or not any(entry["rows"] for entry in data["bins"]):
        yield Text(f"  none moved; {counted(data['equal'], 'row')}: bit-identical")
        return
    largest = max(entry["rows"] for entry in data["bins"])
    marked = False
    for entry in data["bins"]:
        if not marked and entry["h_first"] >= data["h_tau"]:
            yield Text(f"{'':>18}── τ = {tau:.4f} (published) ──", "dim")
            marked = True
        bar = max(1, round(_BAR * entry["rows"] / largest)) if entry["rows"] else 0
        label = f"{entry['h_first'] / n:.4f}–{entry['h_last'] / n:.4f}"
        line = Text(f"  {label:>15} {'█' * bar} {entry['rows']}")
        if entry["in_ticket"]:
            line.append(f"  ({entry['in_ticket']} in the ticket)", style="bold")
        yield line
    yield Text(f"{'':>18}{counted(data['equal'], 'further row')}: bit-identical")
    if data["ties"]:
        yield Text(f"{'':>18}{counted(data['ties'], 'moved row')} with ties: p is conservative there")


def _assumptions(title: str, entries: Sequence[Mapping[str, Any]], width: int) -> Iterator[Text]:
    yield from _heading(title, width)
    for entry in entries:
        said = f"{entry['statement']}: {entry['status']}"
        first, *rest = wrap(escape(said), width, first=f"  {entry['id']:<11}  ", indent=" " * 15)
        yield from (Text(first), *map(Text, rest))
