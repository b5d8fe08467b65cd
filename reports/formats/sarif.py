"""SARIF 2.1.0: a rule per reason code, a result per finding that denies, on the line of its ticket."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from certify.base.jsonio import pretty_json
from certify.base.version import __version__
from certify.policy.codes import codes
from reports.formats.findings import CheckCase, Suite, suites

MOST: Final = 5_000
"""Results of a run that code scanning shows; it refuses a file with more than 25,000."""
_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0-rtm.5.json"


def render(run: Mapping[str, Any]) -> str:
    """Write the run; what is left out beyond :data:`MOST` results is counted in a notification."""
    found = [(one, finding) for one in suites(run) for finding in one.denied]
    kept = found[:MOST]
    rules = list(dict.fromkeys(finding.code for _, finding in kept))
    invocation: dict[str, Any] = {"executionSuccessful": not run["errors"], "exitCode": run["exit_code"]}
    if left := len(found) - len(kept):
        text = f"{left} more results are left out: code scanning shows no more than {MOST}"
        note = {"level": "warning", "message": {"text": text}}
        invocation["toolExecutionNotifications"] = [note]
    driver = {"name": "certify", "semanticVersion": __version__, "rules": [_rule(code) for code in rules]}
    one_run = {
        "tool": {"driver": driver},
        "invocations": [invocation],
        "results": [_result(one, finding, rules.index(finding.code)) for one, finding in kept],
        "columnKind": "unicodeCodePoints",
        "properties": {"reportDigest": run["digest"]},
    }
    return pretty_json({"$schema": _SCHEMA, "version": "2.1.0", "runs": [one_run]})


def _rule(name: str) -> dict[str, Any]:
    known = codes()[name]
    return {
        "id": name,
        "shortDescription": {"text": _text(known.meaning)},
        "fullDescription": {"text": _text(known.meaning)},
        "help": {"text": _text(known.remedy)},
        "defaultConfiguration": {"level": "error"},
        "properties": {"tags": [known.topic]},
    }


def _result(one: Suite, finding: CheckCase, rule: int) -> dict[str, Any]:
    where = {"artifactLocation": {"uri": _uri(one.summary.file)}, "region": {"startLine": one.line}}
    item = f"{finding.item}: " if finding.item else ""
    return {
        "ruleId": finding.code,
        "ruleIndex": rule,
        "level": "error",
        "message": {"text": _text(f"{one.summary.verdict} {one.name}: {item}{finding.message}")},
        "locations": [{"physicalLocation": where}],
        # Code scanning tells alerts apart by this; a hash of the line would be that of many tickets.
        "partialFingerprints": {"primaryLocationLineHash": finding.fingerprint},
    }


def _uri(file: str) -> str:
    path = Path(file)
    return path.as_uri() if path.is_absolute() else quote(os.fsencode(path.as_posix()))


def _text(text: str) -> str:
    """Plain text of a message: no placeholders (SARIF §3.11.5), no embedded links (§3.11.6)."""
    return re.sub(r"[{}]", lambda found: 2 * found[0], text).replace("](", "] (")
