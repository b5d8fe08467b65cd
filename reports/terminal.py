"""The check report for a terminal: what stands in the way, what was shown, and last what it comes to.

It reads well at 80 columns, without colour and in a log. Every string from a file goes through
:func:`certify.base.text.escape` and is never parsed as markup. Names are never broken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import groupby
from typing import Any, Final

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from certify.base.text import counted, escape
from reports.details import details, levels, limits
from reports.layout import LONGEST, STYLES, clip, columns, wrap
from reports.summary import Summary, answer, caveats, denying, gravity, policy, remedy_of, tally, worst_first

_FIRST: Final = 40
_FURTHER: Final = 12
"""Lines of a report on one ticket, and how many each further one may add."""

_LEAST = 3
_SHARED: Final = 3
"""Reasons that several tickets have in common and that are said once."""
_DEEP = " " * 6

Ticket = Mapping[str, Any]


def render(
    run: Mapping[str, Any],
    console: Console,
    *,
    verbose: bool = False,
    quiet: bool = False,
    notes: Sequence[str] = (),
) -> None:
    """Print the data of a run: its reasons, then its summary.

    Args:
        run: ``certify.reports``, see :mod:`reports.schema`.
        console: where to print; its width counts.
        verbose: everything that was found out, instead of what stands in the way.
        quiet: the summary alone.
        notes: lines about a replay, which go before the summary.
    """
    width = console.width
    end = [*(Text(escape(note)) for note in notes), *_summary(run, width)]
    body = list(_everything(run, width)) if verbose else [] if quiet else _short(run, width, len(end))
    for line in (*body, *([Text()] if body else []), *end):
        console.print(line, soft_wrap=True)


def _everything(run: Mapping[str, Any], width: int) -> Iterator[Text]:
    for report in run["reports"]:
        for ticket in report["tickets"]:
            yield from (Text(), Text(escape(report["file"]), "bold")) if len(run["reports"]) > 1 else ()
            yield from _opening(report, ticket, width)
            yield from details(ticket, width)


def _opening(report: Mapping[str, Any], ticket: Ticket, width: int) -> Iterator[Text]:
    """The verdict, the question that it answers, and whose word it takes."""
    verdict = f" {ticket['verdict']} "
    first = f"{verdict}  {ticket['id']}  "
    for line in wrap(f"under {escape(policy(report))}", width, first=first, indent="  ", most=3):
        text = Text(line)
        if line.startswith(first.rstrip()):
            text.stylize(f"reverse {STYLES[ticket['verdict']]}", 0, len(verdict))
            text.stylize("bold", len(verdict), len(first))
        yield text
    for said in (f"{report['question']} {answer(ticket)}", *caveats(ticket)):
        yield from _said(said, width, most=3)


def _said(text: str, width: int, indent: str = "  ", most: int | None = None) -> list[Text]:
    return [Text(line) for line in wrap(escape(text), width, first=indent, indent=indent, most=most)]


# --- the short form ----------------------------------------------------------------------------------------


def _short(run: Mapping[str, Any], width: int, taken: int) -> list[Text]:
    """Reasons in so many lines that the report stays short, ``taken`` lines of its end included."""
    pairs = [(report, ticket) for report in run["reports"] for ticket in report["tickets"]]
    if not pairs:
        return []
    shared = [said for said in caveats(pairs[0][1]) if all(said in caveats(ticket) for _, ticket in pairs)]
    told: set[str] = set()
    common = _common([ticket for _, ticket in pairs]) if len(pairs) > 1 else []
    head = list(_opening(*pairs[0], width)) if len(pairs) == 1 else _together(run, shared, width)
    for item in common:
        head += [Text(f"{item['code']}  {escape(item['name'])}, of all"), *_reason(item, width, told)]
        told.add(remedy_of(item) or "")
    tail = _tail(pairs, width)
    own = [[] if len(pairs) == 1 else list(_own(run, *pair, shared, width)) for pair in pairs]
    fixed = len(head) + len(tail) + taken + sum(len(lines) + 1 for lines in own) + 2
    room = max(_LEAST, (_FIRST + _FURTHER * (len(pairs) - 1) - fixed) // len(pairs))
    said_of_all = {item["name"] for item in common}
    for lines, (_, ticket) in zip(own, pairs, strict=True):
        head += [Text(), *lines, *_reasons(ticket, width, room, told, said_of_all)]
    return [*head, Text(), *tail]


def _together(run: Mapping[str, Any], shared: Sequence[str], width: int) -> list[Text]:
    """What is said of several tickets once."""
    verdicts = tally(worst_first(run)).lower()
    report, number = run["reports"][0], sum(len(one["tickets"]) for one in run["reports"])
    head = _said(f"{counted(number, 'ticket')} under {policy(report)}: {verdicts}", width, "", most=3)
    head[0].stylize("bold")
    return head + [line for said in (report["question"], *shared) for line in _said(said, width, most=3)]


def _own(
    run: Mapping[str, Any], report: Mapping[str, Any], ticket: Ticket, shared: Sequence[str], width: int
) -> Iterator[Text]:
    """One of several tickets: its verdict, and what is said of it alone."""
    selection, rows = ticket["selection"], ticket["table"]["shape"][0]
    about = f"{len(ticket['tokens'])} of {counted(rows, 'row')}, rule {selection['rule']}"
    about += f", α = {selection['alpha']}"
    where = _where(run, report["file"], ticket["id"])
    line = Text.assemble((f"{ticket['verdict']:<12}", STYLES[ticket["verdict"]]), "  ", (where, "bold"))
    room = width - line.cell_len - 2
    yield line.append(f"  {clip(escape(about), room)}") if room > len(about) // 2 else line
    for said in caveats(ticket):
        if said not in shared:
            yield from _said(said, width, most=3)


def _where(run: Mapping[str, Any], file: str, name: str) -> str:
    """How to name a ticket of a run: by its id, and its file where several are reported."""
    several = len(run["reports"]) > 1
    path = clip(escape(file), LONGEST)
    return f"{path}{'#' * bool(name)}{name}" if several or not name else name


def _common(tickets: Sequence[Ticket]) -> list[dict[str, Any]]:
    """The first of what denies every ticket for the same reason, such as a file that all of them name."""
    first, *others = map(denying, tickets)
    of_claims = {name for claim in tickets[0]["claims"] for name in claim["items"]}

    def reason(item: Mapping[str, Any]) -> tuple[str, ...]:
        return item["name"], item["code"], item["text"]

    theirs = [set(map(reason, one)) for one in others]
    found = [
        item
        for item in first
        if item["outcome"] != "not run"
        and item["name"] not in of_claims
        and all(reason(item) in one for one in theirs)
    ]
    return found[:_SHARED]


def _reasons(ticket: Ticket, width: int, room: int, told: set[str], apart: AbstractSet[str]) -> list[Text]:
    """What is required, without ``apart``, what denies first; why, as far as there is room; remedies once."""
    found: dict[str, tuple[list[str], Mapping[str, Any] | None]] = {}
    for item in denying(ticket):
        if item["outcome"] != "not run" and item["name"] not in apart:
            row = _row(ticket, item)
            found.setdefault(row[1], (row, item))
    others: dict[str, list[str]] = {"not bound": [], "not run": [], "pass": []}
    for item in ticket["items"]:
        if item["required"] and item["outcome"] in others:
            row = _row(ticket, item)
            if len(row) > 2:
                found.setdefault(row[1], (row, None))
            else:
                others[item["outcome"]].append(row[1])
    for outcome, names in others.items():
        if names:
            named = names[0] if len(names) == 1 else counted(len(names), "check")
            found[outcome] = [outcome, named], None
    rows = [row for row, _ in found.values()]
    if len(rows) > room:
        rows[room - 1 :] = [["…", f"{len(rows) - room + 1} more with --verbose"]]
    lines: list[Text] = []
    made = columns(rows, width)
    spare = room - sum(map(len, made))
    for shown, (_, why) in zip(made, found.values(), strict=False):
        lines += shown
        reason = _reason(why, width, told) if why else []
        if why and len(reason) <= spare:
            spare -= len(reason)
            lines += reason
            told.add(remedy_of(why) or "")
    return lines


def _row(ticket: Ticket, item: Mapping[str, Any]) -> list[str]:
    """An item by its code, or by "pass"; one about claims with the limit of the text that decides it."""
    word = item["code"] if gravity(item["outcome"]) else item["outcome"]
    claims = [claim for claim in ticket["claims"] if item["name"] in claim["items"]]
    if not claims:
        return [word, escape(item["name"])]
    claim = max(claims, key=lambda claim: gravity(claim["outcome"]))
    return [word, escape(claim["name"]), limits(claim), f"asked {claim['asked']}"]


def _reason(item: Mapping[str, Any], width: int, told: set[str]) -> list[Text]:
    remedy = remedy_of(item)
    lines = _said(item["text"], width, _DEEP, most=3)
    return lines if remedy is None or remedy in told else lines + _said(f"→ {remedy}", width, _DEEP, most=2)


def _tail(pairs: Sequence[tuple[Mapping[str, Any], Ticket]], width: int) -> list[Text]:
    """What the verdicts rest on, and how much more there is to read."""
    tickets = [ticket for _, ticket in pairs]
    claims = [claim for ticket in tickets for claim in ticket["claims"]]
    lines = []
    if claims:
        taken = (
            ", ".join(dict.fromkeys(one["id"] for ticket in tickets for one in ticket["taken"])) or "nothing"
        )
        level = levels([claim for claim in claims if claim["asked"]])
        said = f"Taken as given: {taken}." + (f" Each limit is at {level}." if level else "")
        lines += _said(said, width, "", most=2)
    informing = [item for ticket in tickets for item in ticket["items"] if not item["required"]]
    failed = dict.fromkeys(item["name"] for item in informing if gravity(item["outcome"]))
    more = [
        f"{counted(len(tickets[0]['non_claims']), 'thing')} not claimed",
        f"{counted(len(tickets[0]['assumptions']), 'assumption')} of the published theorem",
        f"{counted(len(informing), 'check')} for information"
        + (f" (not passed: {', '.join(failed)})" if failed else ""),
    ]
    if claims:
        more.append(f"{counted(sum(not claim['asked'] for claim in claims), 'claim')} that nobody asks")
    lines += _said(f"certify check --verbose lists {'; '.join(more)}.", width, "", most=3)
    return [*lines, Text("certify explain NAME says what any name here means.")]


# --- the summary -------------------------------------------------------------------------------------------


def _summary(run: Mapping[str, Any], width: int) -> list[Text]:
    """Digest, verdicts with the first reason of each, worst first, and the exit code."""
    found = worst_first(run)
    most = 1 if len(found) > 1 else 3
    lines = [Text(f"report sha256 {run['digest']}", "dim")]
    # A remedy stands once, below all that share it.
    for (_, remedy), group in groupby(found, key=lambda one: (one.verdict, one.remedy)):
        for one in group:
            lines += _verdict(one, _where(run, one.file, one.id), width, most)
        lines += _said(f"→ {remedy}", width, _DEEP, most=2) if remedy else []
    return [*lines, Text(f"{tally(found).lower()}: exit code {run['exit_code']}", "bold")]


def _verdict(one: Summary, where: str, width: int, most: int) -> list[Text]:
    start = f"{one.verdict:<12}  {where}"
    said = f"{one.code} {one.item}{': ' * bool(one.item)}{escape(one.reason)}"
    if one.verdict == one.code:
        said = one.reason if most > 1 else ""
    if cell_len(start) > width // 2:
        lines = [start, *wrap(said, width, first=_DEEP, indent=_DEEP, most=most)]
    else:
        lines = wrap(said, width, first=f"{start}  ", indent=_DEEP, most=most)
    made = [Text(line.rstrip()) for line in lines if line.strip()]
    made[0].stylize(STYLES[one.verdict], 0, len(one.verdict))
    return made
