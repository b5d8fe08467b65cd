"""The whole page: one self-contained file that asks for nothing, reads without scripts and prints."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from certify.base.verdict import gravest
from certify.base.version import __version__
from certify.gate.check import CheckReport
from reports.html.figure import table
from reports.html.markup import Markup, join, tag
from reports.html.material import Material, Sheet
from reports.html.plots.overlap import overlap
from reports.html.ticket import chip, section
from reports.summary import tally, worst_first
from reports.view import together, view


def page(reports: Sequence[CheckReport], run: Mapping[str, Any] | None = None) -> str:
    """The reports of one run as HTML.

    The same reports give the same bytes. Every string from a file is escaped; the page's policy forbids every
    request, and every script and style but its own.

    Args:
        reports: what was found, file by file.
        run: the same as data, schema ``certify.reports``, with the files that could not be judged; None
            makes it of ``reports``.
    """
    run = run or together(
        gravest(one.exit_code for one in reports), [view(one, resample=False) for one in reports]
    )
    sheet = Sheet()
    parts = [
        _report(sheet, i, one, data)
        for i, (one, data) in enumerate(zip(reports, run["reports"], strict=True))
    ]
    style, script = (Markup(files("reports.html").joinpath(name).read_text("utf-8")) for name in _PARTS)
    allowed = f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}"
    html = tag(
        "html",
        tag(
            "head",
            tag("meta", charset="utf-8"),
            tag(
                "meta",
                http_equiv="Content-Security-Policy",
                content=Markup(f"{allowed}; base-uri 'none'; form-action 'none'"),
            ),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name="color-scheme", content="light dark"),
            tag("title", _title(run)),
            tag("style", style),
        ),
        tag(
            "body",
            tag("header", tag("h1", _heading(run)), _summary(run, reports), class_="page"),
            tag("main", parts),
            tag(
                "footer",
                tag("p", f"certify {__version__} · report ", tag("code", run["digest"])),
                class_="page",
            ),
            *sheet.definitions.values(),
            tag("script", script),
        ),
        lang="en",
    )
    return f"<!doctype html>\n{html}\n"


_PARTS = ("style.css", "page.js")


def _heading(run: Mapping[str, Any]) -> str:
    found = worst_first(run)
    return "Ticket report" if len(found) == 1 and not run["errors"] else tally(found).lower()


def _title(run: Mapping[str, Any]) -> str:
    return ", ".join(f"{one.id or one.file}: {one.verdict}" for one in worst_first(run)[:3])


def _summary(run: Mapping[str, Any], reports: Sequence[CheckReport]) -> Markup:
    """Verdict, id, first reason and remedy of each ticket, worst first, each with a link to its section.

    Nothing for a single ticket, whose section says it all.
    """
    keys = {
        (data["file"], ticket["id"]): f"r{i}t{j}"
        for i, data in enumerate(run["reports"])
        for j, ticket in enumerate(data["tickets"])
    }
    several = len(run["reports"]) + len(run["errors"]) > 1
    rows = [
        (
            chip(one.verdict),
            tag("a", one.id, href=f"#{keys[one.file, one.id]}") if one.id else one.file,
            join(
                tag("code", one.code),
                " ",
                one.reason,
                tag("span", " → ", one.remedy, class_="remedy") if one.remedy else None,
            ),
            *([one.file] if several else []),
        )
        for one in worst_first(run)
    ]
    if len(rows) == 1 and reports:
        return join()
    head = ("verdict", "ticket", "first reason", *(["file"] if several else []))
    asked = {report.policy.question for report in reports}
    return join(
        (tag("p", question, class_="question") for question in sorted(asked)),
        table("Verdicts, worst first", head, rows, "verdicts"),
    )


def _report(sheet: Sheet, number: int, report: CheckReport, data: Mapping[str, Any]) -> Markup:
    shown = [Material(f"r{number}t{i}", report, one, sheet) for i, one in enumerate(report.tickets)]
    sections = (section(given, data, ticket) for given, ticket in zip(shown, data["tickets"], strict=True))
    shared = tag("div", overlap(shown, f"r{number}-overlap"), class_="figures")
    return join(*sections, tag("section", tag("h2", "Tickets side by side"), tag("h3", "Overlap"), shared))


def _hash(text: str) -> str:
    """A source expression that allows exactly this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
