"""Render the checks of the theory for a terminal: theorem clause ↔ check ↔ assumptions ↔ result.

The input is the plain JSON of a record (:mod:`proofs_checks.run.record`), from ``certify prove`` or from
an untrusted file. Every string goes through :func:`certify.base.text.escape` and is never parsed as markup.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from certify.base.text import escape

_STYLES: Final = {"passed": "green", "failed": "bold red", "not run": "yellow", "timeout": "bold yellow"}
_LINE: Final = 600
"""Longest detail or witness shown, in characters; the record holds all of it."""


def table(record: Mapping[str, Any]) -> Table:
    """Tabulate every clause that has a check in the record: its outcome, and below it its checks.

    A check may belong to several clauses. Its cases and seconds are shown where it comes first. If only some
    checks were selected, clauses without any are left out.
    """
    found = {check["name"]: check for check in record["checks"]}
    shown: set[str] = set()
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), expand=False)
    heading = "clause of the theory\n  check\n    what it says ← assumptions\n    what it found"
    made.add_column(heading, overflow="fold")
    made.add_column("result", no_wrap=True, vertical="top")
    made.add_column("cases", justify="right", no_wrap=True)
    made.add_column("seconds", justify="right", no_wrap=True)
    for clause in record["clauses"]:
        if not any(name in found for name in clause["checks"]):
            continue
        made.add_row(Text(escape(clause["clause"]), "bold"), _word(clause["outcome"]), "", "")
        for name in clause["checks"]:
            made.add_row(*_row(name, found.get(name), again=name in shown))
            shown.add(name)
    return made


def not_passed(record: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Say why checks did not pass, failed ones first."""
    for outcome in ("failed", "timeout", "not run"):
        for check in record["checks"]:
            if check["outcome"] == outcome:
                detail = escape(check["detail"], limit=_LINE)
                yield Text.assemble(_word(outcome), f" {escape(check['name'])}: {detail}")
                if check["witness"]:
                    yield Padding(Text(escape(check["witness"], limit=_LINE)), (0, 0, 0, 4))


def summary(record: Mapping[str, Any]) -> list[Text]:
    """State how many checks and clauses passed, and what ran."""
    counts, clauses = record["counts"], record["clauses"]
    said = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
    cases = sum(check["cases"] for check in record["checks"])
    passed = sum(clause["outcome"] == "passed" for clause in clauses)
    lines = [
        f"{len(record['checks'])} checks: {said}; {cases:,} cases",
        f"{passed} of {len(clauses)} clauses of the theory passed every check",
        f"certify {record['version']}, {record['tier']}, seed {record['seed']}",
    ]
    if record["selected"]:
        lines[-1] += "; only some checks were requested"
    return [Text(escape(line)) for line in lines]


def _row(
    name: str, check: Mapping[str, Any] | None, *, again: bool
) -> tuple[RenderableType, RenderableType, str, str]:
    title = Padding(Text(escape(name)), (0, 0, 0, 2))
    if check is None:
        return title, Text("not requested", "dim"), "", ""
    if again:
        return title, _word(check["outcome"]), "above", "above"
    needs = f" ← {', '.join(check['assumptions'])}" if check["assumptions"] else ""
    says = Padding(Text(escape(check["clause"] + needs), "dim"), (0, 0, 0, 4))
    lines = [title, says]
    if check["outcome"] == "passed" and check["detail"]:  # not_passed explains the others
        lines.append(Padding(Text(escape(check["detail"], limit=_LINE), "dim italic"), (0, 0, 0, 4)))
    return Group(*lines), _word(check["outcome"]), f"{check['cases']:,}", f"{check['seconds']:.1f}"


def _word(outcome: str) -> Text:
    """Style an outcome; all but passes are in capitals."""
    return Text(outcome if outcome == "passed" else outcome.upper(), _STYLES[outcome])
