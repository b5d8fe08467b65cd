"""GitLab's code quality report: one issue per finding that denies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from certify.base.jsonio import pretty_json
from certify.base.text import escape
from reports.formats.findings import suites

_SEVERITIES: Final = {"INCONCLUSIVE": "major", "VACUOUS": "major"}


def render(run: Mapping[str, Any]) -> str:
    """Write the list of issues; each names the digest of the report, which GitLab ignores."""
    found = [
        {
            "description": f"{one.summary.verdict} {one.name}: {finding.message}",
            "check_name": finding.code,
            "fingerprint": finding.fingerprint,
            "severity": _SEVERITIES.get(one.summary.verdict, "blocker"),
            "location": {
                "path": escape(Path(one.summary.file).as_posix()),
                "lines": {"begin": one.line},
            },
            "report_digest": run["digest"],
        }
        for one in suites(run)
        for finding in one.denied
    ]
    return pretty_json(found)
