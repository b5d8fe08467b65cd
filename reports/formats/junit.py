"""JUnit XML: a suite per ticket, a case per check; what denies is a failure, whatever the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree as ET

from certify.base.text import escape
from reports.formats.findings import CheckCase, Suite, suites


def render(run: Mapping[str, Any]) -> str:
    """Write the run as JUnit XML; the type of a failure is its reason code."""
    root = ET.Element("testsuites", name="certify check")
    every = suites(run)
    for one in every:
        _suite(root, one, run["digest"])
    _count(root, [finding for one in every for finding in one.findings])
    ET.indent(root)
    # Escaped text has no character that XML 1.0 forbids.
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _suite(root: ET.Element, one: Suite, report_digest: str) -> None:
    suite = ET.SubElement(root, "testsuite", name=one.name)
    _count(suite, one.findings)
    properties = ET.SubElement(suite, "properties")
    facts = {"verdict": one.summary.verdict, "report-digest": report_digest}
    for name, value in (facts | {"policy": one.report.get("policy", "")}).items():
        ET.SubElement(properties, "property", name=name, value=escape(value))
    for finding in one.findings:
        place = {"file": escape(one.summary.file), "line": str(one.line)}
        case = ET.SubElement(suite, "testcase", place, classname=one.name, name=finding.item or finding.code)
        if finding.denies:
            failure = ET.SubElement(case, "failure", type=finding.code, message=finding.text)
            failure.text = finding.message
        elif not finding.passed:
            ET.SubElement(case, "skipped", message=f"{finding.outcome}: {finding.text}")


def _count(element: ET.Element, findings: tuple[CheckCase, ...] | list[CheckCase]) -> None:
    skipped = [one for one in findings if not one.denies and not one.passed]
    failures = [one for one in findings if one.denies]
    counts = {"tests": findings, "failures": failures, "skipped": skipped}
    element.attrib |= {name: str(len(counted)) for name, counted in counts.items()} | {"errors": "0"}
