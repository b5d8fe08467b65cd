"""GitHub Actions: annotations on standard output, and the files through which a step speaks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from certify.base.text import escape
from reports.formats import markdown
from reports.formats.findings import suites
from reports.summary import tally

MOST: Final = 10
"""Annotations of one kind that a step can make."""
LARGEST: Final = 1_000_000
"""Bytes of a step summary, a little less than GitHub takes."""

_DATA: Final = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
_PROPERTY: Final = _DATA | str.maketrans({":": "%3A", ",": "%2C"})


def render(run: Mapping[str, Any]) -> str:
    """Write a workflow command per ticket that is not CERTIFIED, worst first, and one that counts all.

    Nothing but workflow commands is printed, and nothing that comes from a file can begin one.
    """
    every = suites(run)
    denied = [one for one in every if one.denied]
    said = [
        _command(
            "error",
            f"{one.denied[0].item or one.denied[0].code}: {one.denied[0].message} [{one.denied[0].code}]",
            file=escape(one.summary.file),
            line=str(one.line),
            title=f"{one.summary.verdict} {one.name}",
        )
        for one in denied[: MOST - 1]
    ]
    if more := len(denied) - len(said):
        said.append(_command("error", f"{more} more: the step summary lists them", title="certify check"))
    verdicts = tally(one.summary for one in every)
    said.append(
        _command("notice", f"{verdicts}; digest of the report: {run['digest']}", title="certify check")
    )
    return "".join(said)


def summary(run: Mapping[str, Any]) -> str:
    """Write the step summary: the report as Markdown, without the tickets that would make it too long."""
    return markdown.render(run, limit=LARGEST - 1)


def outputs(run: Mapping[str, Any]) -> str:
    """Write the outputs of a step: the gravest verdict, the exit code, the digest of the report."""
    verdict = suites(run)[0].summary.verdict.replace(" ", "_")
    return f"verdict={verdict}\nexit-code={run['exit_code']}\ndigest={run['digest']}\n"


FILES: Final = {"GITHUB_STEP_SUMMARY": summary, "GITHUB_OUTPUT": outputs}
"""What is appended to the files that these variables name."""


def _command(name: str, text: str, **properties: str) -> str:
    given = ",".join(f"{key}={value.translate(_PROPERTY)}" for key, value in properties.items())
    return f"::{name} {given}::{text.translate(_DATA)}\n"
