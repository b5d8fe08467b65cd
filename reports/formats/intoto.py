"""Unsigned in-toto statements (v1) about tickets, by the digest of each ticket and of its rows file.

Whoever runs the gate signs them, with the tools that they trust: ``docs/ci.md`` has the commands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from certify.base.jsonio import pretty_json
from certify.base.text import escape
from certify.base.version import __version__
from reports.formats.findings import Suite, suites


def render(run: Mapping[str, Any]) -> str:
    """Write a statement with the predicate test-result v0.1: PASSED only if every ticket is CERTIFIED."""
    every = suites(run)
    tests: dict[str, list[str]] = {"passedTests": [], "warnedTests": [], "failedTests": []}
    for one in every:
        for finding in one.findings:
            kind = "failedTests" if finding.denies else "passedTests" if finding.passed else "warnedTests"
            tests[kind].append(f"{one.name} {finding.item or finding.code}")
    result = "PASSED" if _certified(every) else "FAILED"
    configuration = [_policy(every), {"name": "report", "digest": {"sha256": run["digest"]}}]
    predicate = {"result": result, "configuration": [one for one in configuration if one], **tests}
    return _statement(every, "https://in-toto.io/attestation/test-result/v0.1", predicate)


def svr(run: Mapping[str, Any], *, now: datetime | None = None) -> str:
    """Write a statement with the predicate svr v0.1: properties that hold of every ticket.

    Args:
        run: the data.
        now: when it was verified; None takes the clock.
    """
    every = suites(run)
    shared = [{finding.item for finding in one.findings if finding.passed} for one in every]
    properties = [f"CERTIFY_{name}" for name in sorted(set.intersection(*shared))] if shared else []
    if _certified(every):
        properties.insert(0, f"CERTIFY_CERTIFIED_{escape(every[0].report['policy'])}")
    verifier = {"id": f"pkg:pypi/certify-lottery@{__version__}", "policy": _policy(every)}
    predicate = {
        "verifier": {key: value for key, value in verifier.items() if value},
        "timeCreated": (now or datetime.now(UTC)).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "properties": properties,
        "certify_report": {"digest": {"sha256": run["digest"]}},
    }
    return _statement(every, "https://in-toto.io/attestation/svr/v0.1", predicate)


def _certified(every: Sequence[Suite]) -> bool:
    return bool(every) and all(one.summary.verdict == "CERTIFIED" for one in every)


def _policy(every: Sequence[Suite]) -> dict[str, Any] | None:
    report = next((one.report for one in every if one.report), None)
    if report is None:
        return None
    return {"name": escape(report["policy"]), "digest": {"sha256": report["policy_sha256"]}}


def _statement(every: Sequence[Suite], kind: str, predicate: Mapping[str, Any]) -> str:
    subjects = [(one.name, one.ticket["digest"]) for one in every if one.ticket]
    subjects += [
        (f"{one.name} {escape(rows['path'])}", rows["sha256"])
        for one in every
        if (rows := one.ticket.get("rows"))
    ]
    content = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": value}} for name, value in subjects],
        "predicateType": kind,
        "predicate": predicate,
    }
    return pretty_json(content)
