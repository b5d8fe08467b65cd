"""The table that every format lays out: tickets, worst first, and what was found about each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from certify.base.jsonio import canonical_json, sha256_bytes
from certify.base.text import escape
from reports.summary import Summary, denying, remedy_of, worst_first


@dataclass(frozen=True, slots=True)
class CheckCase:
    """One check of a ticket, or a file that could not be judged. Every string can be shown.

    Attributes:
        item: name of the check; empty for a file.
        outcome: its outcome.
        denies: it stands in the way of CERTIFIED.
        code: its reason code.
        text: what was found.
        remedy: what to do about it; empty if nothing.
        fingerprint: 64 hexadecimal digits, unique in a run and the same in the next one.
    """

    item: str
    outcome: str
    denies: bool
    code: str
    text: str
    remedy: str
    fingerprint: str

    @property
    def passed(self) -> bool:
        """Whether it was shown."""
        return self.outcome == "pass"

    @property
    def message(self) -> str:
        """What was found and what to do about it, in one line."""
        return self.text + (f" → {self.remedy}" if self.remedy else "")


@dataclass(frozen=True, slots=True)
class Suite:
    """A ticket, or a file that could not be judged; ``report`` and ``ticket`` are empty for a file.

    Attributes:
        summary: its verdict and first reason; not escaped.
        line: where it stands in its file.
        report: what was found about the file.
        ticket: what was found about the ticket.
        findings: what denies first; something denies unless the verdict is CERTIFIED.
    """

    summary: Summary
    line: int
    report: Mapping[str, Any]
    ticket: Mapping[str, Any]
    findings: tuple[CheckCase, ...]

    @property
    def name(self) -> str:
        """The words with which ``certify check`` names it; escaped."""
        return escape(self.summary.file + (f"#{self.summary.id}" if self.summary.id else ""))

    @property
    def denied(self) -> list[CheckCase]:
        """The findings that deny."""
        return [one for one in self.findings if one.denies]


def suites(run: Mapping[str, Any]) -> list[Suite]:
    """Make the table of a run, in the order of :func:`reports.summary.worst_first`."""
    known = {
        (one["file"], ticket["id"]): (one, ticket) for one in run["reports"] for ticket in one["tickets"]
    }
    return [_suite(summary, *known.get((summary.file, summary.id), ({}, {}))) for summary in worst_first(run)]


def _suite(summary: Summary, report: Mapping[str, Any], ticket: Mapping[str, Any]) -> Suite:
    def finding(item: Mapping[str, Any], denies: bool) -> CheckCase:
        about = [
            summary.file.encode("utf-8", "backslashreplace").decode(),
            summary.id,
            item["name"],
            item["code"],
        ]
        return CheckCase(
            escape(item["name"]),
            item["outcome"],
            denies,
            item["code"],
            escape(item["text"]),
            escape((remedy_of(item) if denies else item["remedy"]) or ""),
            sha256_bytes(canonical_json(about)),
        )

    def found() -> Iterator[CheckCase]:
        against = denying(ticket) if ticket else []
        yield from (finding(item, True) for item in against)
        if not against and summary.verdict != "CERTIFIED":  # the verdict says it all
            item = {"name": summary.item, "outcome": summary.verdict.lower(), "code": summary.code}
            yield finding(item | {"text": summary.reason, "remedy": summary.remedy}, True)
        yield from (finding(item, False) for item in ticket.get("items", ()) if item not in against)

    return Suite(summary, ticket.get("line", 1), report, ticket, tuple(found()))
