"""The check report for a terminal: verdict first, then the reasons.

It reads well at 80 columns, without colour and in a log. Every string from a file goes through
:func:`certify.base.text.escape` and is never parsed as markup.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from certify.base.text import escape
from certify.claims.registry import KINDS
from reports.summary import answer, caveats, policy

_STYLES = {
    "CERTIFIED": "bold green",
    "REFUTED": "bold red",
    "INVALID": "bold red",
    "ERROR": "bold red",
    "INCONCLUSIVE": "bold yellow",
    "VACUOUS": "bold yellow",
    "pass": "green",
    "not bound": "yellow",
    "fail": "red",
    "invalid": "red",
    "error": "red",
    "missing": "yellow",
    "inconclusive": "yellow",
    "vacuous": "yellow",
    "not run": "yellow",
}
_SHOWN_TOKENS = 20
_BAR = 30
_NAME = 28
_LAST = {"not run": 1, "not bound": 2, "pass": 3}


def render(view: dict[str, Any], console: Console, *, verbose: bool = False) -> None:
    """Print the data of :func:`reports.view.view`.

    Args:
        view: the report.
        console: where to print.
        verbose: list every token of each ticket instead of the first twenty.
    """
    if len(view["tickets"]) > 1:
        _summary(view, console)
    for ticket in view["tickets"]:
        _ticket(view, ticket, console, verbose)
    console.print(Text("certify explain NAME says what any name above means", style="dim"))


def _ticket(view: dict[str, Any], ticket: dict[str, Any], console: Console, verbose: bool) -> None:
    console.print()
    verdict = ticket["verdict"]
    console.print(
        Text.assemble(
            (f" {verdict} ", f"reverse {_STYLES[verdict]}"),
            "  ",
            (ticket["id"], "bold"),
            f"  under {escape(policy(view))}",
        )
    )
    for said in (f"{view['question']} {answer(ticket)}", *caveats(ticket)):
        console.print(_indent(Text(escape(said))))
    _items("Decides", [item for item in ticket["items"] if item["required"]], console)
    _items("For information", [item for item in ticket["items"] if not item["required"]], console)
    _claims(ticket, console, verbose)
    _tokens(ticket, console, verbose)
    _histogram(ticket, console)
    if ticket["claims"]:
        _assumptions("Taken as given by the policy", ticket["taken"], console)
    _assumptions(
        "Merely assumed by the published theorem (not used for this verdict)", ticket["assumptions"], console
    )
    _heading("Not claimed", console)
    for line in ticket["non_claims"]:
        console.print(_indent(Text(escape(f"- {line}"))))
    console.print()
    console.print(Text(escape(ticket["signature"]), style="dim"), soft_wrap=True)
    console.print(Text(f"ticket {ticket['digest']}", style="dim"), soft_wrap=True)
    if ticket["certificate"]:
        console.print(Text(f"certificate {ticket['certificate']['sha256']}", style="dim"), soft_wrap=True)


def _items(title: str, items: list[dict[str, Any]], console: Console) -> None:
    if not items:
        return
    _heading(title, console)
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    # Items that block the verdict come first, then those they kept from running, then the passes.
    for item in sorted(items, key=lambda item: _LAST.get(item["outcome"], 0)):
        text = Text(escape(item["text"]))
        if item["outcome"] != "pass":
            text = Text.assemble((item["code"], "bold"), ": ", text)
        if item["remedy"]:
            text.append(f"\n→ {escape(item['remedy'])}", style="italic")
        name = Text.assemble((escape(item["name"]), "bold"), "\n", text)
        grid.add_row(Text(item["outcome"], _STYLES[item["outcome"]]), name)
    console.print(_indent(grid))


def _claims(ticket: dict[str, Any], console: Console, verbose: bool) -> None:
    """Claims by text, required ones first; the others of the default extraction only, unless ``verbose``."""
    texts = dict.fromkeys((claim["text"], claim["role"]) for claim in ticket["claims"])
    for text, role in texts:
        every = [claim for claim in ticket["claims"] if (claim["text"], claim["role"]) == (text, role)]
        found = [claim for claim in every if not claim["asymptotic"]]
        shown = [claim for claim in found if verbose or claim["asked"] or _in_short(claim)]
        deltas = sorted({claim["delta"] for claim in shown if claim["lower"] or claim["upper"]})
        level = f", each limit at {' and '.join(deltas)}" if deltas else ""
        _heading(f"Claims on {text} ({role}{level})", console)
        table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column("claim", overflow="fold", max_width=_NAME)
        for column in ("estimate", "limit", "asked"):
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("n", justify="right", no_wrap=True)
        table.add_column("outcome", no_wrap=True)
        for claim in sorted(shown, key=lambda claim: claim["asked"] is None):
            outcome = claim["outcome"] or claim["finding"]
            table.add_row(
                # Spaces allow line breaks; policies spell the name with colons.
                Text(escape(claim["name"].replace(":", " ")), "bold" if claim["asked"] else ""),
                _figure(claim["estimate"]),
                _limits(claim),
                claim["asked"] or "",
                str(claim["n"] or ""),
                Text(outcome, _STYLES.get(outcome, "dim")),
            )
        console.print(_indent(table))
        if len(shown) < len(found):
            console.print(_indent(Text(f"{len(found) - len(shown)} more with --verbose", style="dim")))
        _corpus(text, [claim for claim in every if claim["asymptotic"]], console, verbose)


def _corpus(text: str, claims: list[dict[str, Any]], console: Console, verbose: bool) -> None:
    """Corpus scores, labelled as deciding nothing; of the default extraction only, unless ``verbose``."""
    measured = [claim for claim in claims if claim["estimate"]]
    shown = [claim for claim in measured if verbose or _in_short(claim)]
    if not shown:
        return
    level = " and ".join(sorted({claim["delta"] for claim in shown if claim["lower"]}))
    asymptotic = f"asymptotic{f', each limit at {level}' if level else ''}: decides nothing"
    _heading(f"Corpus scores on {text} ({asymptotic})", console)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("score", "against", "rule"):
        table.add_column(column, no_wrap=True)
    for column in ("ticket", "difference", "limits", "p"):
        table.add_column(column, justify="right", no_wrap=True)
    for claim in shown:
        kind, against, rule = claim["name"].split(":")
        limits = [f"{claim[side]['decimal']:+.2f}" for side in ("lower", "upper") if claim[side]]
        table.add_row(
            KINDS[kind].label,
            against,
            rule,
            f"{float(Fraction(claim['detail']['ticket'])):.2f}",
            f"{claim['estimate']['decimal']:+.2f}",
            "…".join(limits),
            p_value_text(claim["detail"]["p_value"]),
        )
    console.print(_indent(table))
    more = [f"{len(measured) - len(shown)} more"] if len(shown) < len(measured) else []
    more += [] if level else ["limits and p-values"]
    if more and not verbose:
        console.print(_indent(Text(f"{', '.join(more)} with --verbose", style="dim")))


def p_value_text(exact: str | None) -> str:
    """Format a randomisation p-value ``p/q`` with three decimals, rounded up; empty for None."""
    return "" if exact is None else f"{math.ceil(1000 * Fraction(exact)) / 1000:.3f}"


def _in_short(claim: dict[str, Any]) -> bool:
    return not claim["name"].endswith((":whole", ":cut")) and claim["finding"] not in (
        "missing",
        "not applicable",
    )


def _figure(value: dict[str, Any] | None) -> str:
    return "" if value is None else f"{value['decimal']:.4f}"


def _limits(claim: dict[str, Any]) -> str:
    lower, upper = _figure(claim["lower"]), _figure(claim["upper"])
    if lower and upper:
        return f"{lower}…{upper}"
    return f"≥ {lower}" if lower else f"≤ {upper}" if upper else ""


def _tokens(ticket: dict[str, Any], console: Console, verbose: bool) -> None:
    selection, tokens = ticket["selection"], ticket["tokens"]
    rows, width = ticket["table"]["shape"]
    _heading(f"Ticket: {len(tokens)} of {rows} rows of width {width}, {ticket['table']['dtype']}", console)
    about = (
        f"rule {selection['rule']}, α = {selection['alpha']}, correction {selection['correction']},"
        f" {selection['method']} law; rejects at h ≥ {selection['h_alpha']},"
        f" published τ = {selection['tau']:.5f}"
    )
    console.print(_indent(Text(escape(about))))
    if ticket["table"]["source"] is not None:
        console.print(_indent(Text(f"base, as stated: {escape(ticket['table']['source'])}")))
    for group in selection["excluded"]:
        ids = group["ids"]
        listed = ", ".join(map(str, ids[:6])) + (" …" if len(ids) > 6 else "")
        console.print(_indent(Text(f"left out, {escape(group['reason'])}: {listed}")))
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("piece", no_wrap=True, max_width=24)
    for name in ("id", "h", "D", "p", "shift"):
        table.add_column(name, justify="right", no_wrap=True)
    strongest = sorted(tokens, key=lambda token: (-token["h"], token["id"]))
    shown = strongest if verbose else strongest[:_SHOWN_TOKENS]
    for token in shown:
        piece = "?" if token["piece"] is None else escape(token["piece"], limit=24)
        table.add_row(
            Text(piece),
            str(token["id"]),
            str(token["h"]),
            f"{token['D']:.4f}",
            p_text(token["log10_p"]),
            f"{token['shift_norm']:.4g}",
        )
    if shown:
        console.print(_indent(table))
    if len(shown) < len(tokens):
        console.print(_indent(Text(f"… and {len(tokens) - len(shown)} more (--verbose lists all)")))


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


def _histogram(ticket: dict[str, Any], console: Console) -> None:
    data = ticket["histogram"]
    if data is None:
        return
    n, tau = ticket["selection"]["n"], ticket["selection"]["tau"]
    _heading("Distance D of the rows that moved", console)
    if not data["bins"] or not any(entry["rows"] for entry in data["bins"]):
        console.print(_indent(Text(f"none moved; {data['equal']} rows are bit-identical")))
        return
    largest = max(entry["rows"] for entry in data["bins"])
    marked = False
    for entry in data["bins"]:
        if not marked and entry["h_first"] >= data["h_tau"]:
            console.print(_indent(Text(f"{'':>15} ── τ = {tau:.4f} (published) ──", style="dim")))
            marked = True
        bar = max(1, round(_BAR * entry["rows"] / largest)) if entry["rows"] else 0
        label = f"{entry['h_first'] / n:.4f}–{entry['h_last'] / n:.4f}"
        line = Text(f"{label:>15} {'█' * bar} {entry['rows']}")
        if entry["in_ticket"]:
            line.append(f"  ({entry['in_ticket']} in the ticket)", style="bold")
        console.print(_indent(line))
    console.print(_indent(Text(f"{'':>15} {data['equal']} further rows are bit-identical")))
    if data["ties"]:
        console.print(_indent(Text(f"{'':>15} {data['ties']} moved rows have ties: p is conservative there")))


def _assumptions(title: str, entries: list[dict[str, Any]], console: Console) -> None:
    _heading(title, console)
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for entry in entries:
        statement = Text(f"{entry['statement']}: ").append(entry["status"], style="italic")
        grid.add_row(Text(entry["id"], "bold"), statement)
    console.print(_indent(grid))


def _summary(view: dict[str, Any], console: Console) -> None:
    _heading(f"{len(view['tickets'])} tickets under {policy(view)}", console)
    for ticket in view["tickets"]:
        verdict = ticket["verdict"]
        console.print(_indent(Text.assemble((f"{verdict:<13}", _STYLES[verdict]), f" {ticket['id']}")))


def _heading(title: str, console: Console) -> None:
    console.print()
    console.print(Text(escape(title), style="bold"))


def _indent(content: RenderableType, left: int = 2) -> Padding:
    return Padding(content, (0, 0, 0, left))
