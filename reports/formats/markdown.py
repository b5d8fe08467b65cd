"""GitHub-flavoured Markdown, for summaries, comments and pages. Nothing from a file can be markup there.

Words from files stand as they are, but for punctuation with a meaning, which becomes character references.
A zero-width space keeps what follows a sign such as ``@`` from being a mention, a reference or a link, which
GitHub and GitLab find in the finished page.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from certify.base.text import counted, escape
from reports.formats.findings import CheckCase, Suite, suites
from reports.summary import answer, caveats, policy, tally

_MARKUP: Final = re.compile(r"^-|^\d(?=\d*[.)])|[!-&*+:<-@\[-`{-~]")
_LINKED: Final = re.compile(r"([@#!~$%&^:*])(?=\w|[/\"'+-])|(?<=\bwww)(?=\.)", re.IGNORECASE)
_PLAIN: Final = re.compile(r"[\w .:/#>=+*-]+")
_CUT: Final = 2_000
"""Bytes that stay free for what is said at the end."""


def prose(text: str) -> str:
    """Write a sentence that contains words from files, which stay words."""
    broken = _LINKED.sub(lambda found: f"{found[0]}\u200b", escape(text).strip())
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", broken).replace("\u200b", "&#8203;")


def code(text: str) -> str:
    """Write a name as code, where there are no mentions and no links."""
    shown = escape(text)
    return f"`{shown}`" if _PLAIN.fullmatch(shown) and shown.strip() else f"<code>{prose(text)}</code>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Lay out a table; cells are Markdown in one line."""
    yield from (_row(head), _row(["---"] * len(head)))
    yield from map(_row, rows)


def render(run: Mapping[str, Any], *, limit: int | None = None) -> str:
    """Write the report: verdicts, then the reasons, worst first.

    Args:
        run: the data.
        limit: bytes at most; whole tickets are left out at the end, and the last lines say how many.
    """
    every = suites(run)
    budget = float("inf") if limit is None else limit - _CUT
    lines = [f"# Lottery tickets: {tally(one.summary for one in every)}", ""]
    rows = table(("verdict", "ticket", "reason", "what to do"), map(_verdict, every))
    listed = _fill(lines, ([row] for row in rows), budget / 2) - 2
    explained = _fill(lines, map(_ticket, every[: max(listed, 0)]), budget)
    if explained < len(every):
        left = counted(len(every) - explained, "more ticket")
        lines += ["", f"{left} explained in the other formats, which have no limit."]
    lines += ["", *_shared(every)] if explained else [""]
    return "\n".join([*lines, f"Digest of the report: `{run['digest']}`", ""])


def _fill(lines: list[str], blocks: Iterable[Sequence[str]], budget: float) -> int:
    """Append whole blocks while they fit into ``budget`` bytes; returns how many did."""
    used = sum(len(line.encode("utf-8")) + 1 for line in lines)
    count = 0
    for block in blocks:
        used += sum(len(line.encode("utf-8")) + 1 for line in block)
        if used > budget:
            break
        lines += block
        count += 1
    return count


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _verdict(one: Suite) -> list[str]:
    first = one.denied[0] if one.denied else None
    reason = (
        ""
        if first is None
        else f"{code(first.code)} {code(first.item) if first.item else ''} {prose(first.text)}"
    )
    return [f"**{one.summary.verdict}**", code(one.name), reason, prose(first.remedy) if first else ""]


def _ticket(one: Suite) -> list[str]:
    lines = ["", f"## {one.summary.verdict} {code(one.name)}", ""]
    if not one.ticket:
        return [*lines, *map(_item, one.findings)]
    asked = f"Under {prose(policy(one.report))}: {prose(one.report['question'])}"
    lines += [f"{asked} **{answer(one.ticket)}**", ""]
    lines += [" ".join(map(prose, caveats(one.ticket))), ""]
    lines += map(_item, one.denied)
    others = [finding for finding in one.findings if not finding.denies]
    head = ("outcome", "check", "found")
    rows = ((finding.outcome, code(finding.item), prose(finding.text)) for finding in others)
    folded = f"<details><summary>{counted(len(others), 'other check')}</summary>"
    lines += ["", folded, "", *table(head, rows), "", "</details>", ""]
    certificate = one.ticket["certificate"]
    about = f"ticket `{one.ticket['digest']}`" + (
        f", certificate `{certificate['sha256']}`" if certificate else ""
    )
    return [*lines, f"{code(one.ticket['signature'])}, {about}"]


def _item(finding: CheckCase) -> str:
    name = f"{code(finding.item)}: " if finding.item else ""
    remedy = f" → *{prose(finding.remedy)}*" if finding.remedy else ""
    return f"- **{finding.outcome}** {name}{code(finding.code)} {prose(finding.text)}{remedy}"


def _shared(every: Sequence[Suite]) -> Iterator[str]:
    """What is the same for every ticket: assumptions and what is not claimed; a run has one policy."""
    tickets = [one.ticket for one in every if one.ticket]
    if not tickets:
        return
    titles = {
        "taken": "Taken as given by the policy",
        "assumptions": "Merely assumed by the published theorem (not used for this verdict)",
    }
    for key, title in titles.items():
        entries = {entry["id"]: entry for ticket in tickets for entry in ticket[key]}.values()
        if entries:
            yield from (f"<details><summary>{title}</summary>", "")
            yield from (f"- {code(a['id'])} {prose(a['statement'])}: *{prose(a['status'])}*" for a in entries)
            yield from ("", "</details>", "")
    yield from ("Not claimed:", "", *(f"- {prose(line)}" for line in tickets[0]["non_claims"]), "")
