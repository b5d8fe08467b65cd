"""The schema of a report describes what a check of the shipped tickets prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest

import certify
from certify.base.errors import InvalidInputError
from certify.base.model import Refusal, json_schema, validate
from reports.schema import Report
from reports.view import view

PUBLISHED = Path(__file__).parents[2] / "reports" / "published"
TICKETS = sorted(PUBLISHED.glob("*/tickets/tickets.json"))
WHOLE = [path for path in TICKETS if [*path.parent.glob("base/*.safetensors")]]  # with all their tables
REFUSAL = Refusal("REFUSED")


def test_tickets_ship() -> None:
    assert (len(TICKETS), len(WHOLE)) == (6, 3)


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[pytest.mark.slow] if "en-ca-whole" in path.parts else []) for path in WHOLE],
    ids=lambda path: path.parents[1].name,
)
@pytest.mark.parametrize("ids", [["a05"], pytest.param([], marks=pytest.mark.slow)], ids=["one", "all"])
def test_the_report_on_shipped_tickets_conforms(path: Path, ids: list[str]) -> None:
    data = view(certify.check(path, policy="release", ids=ids))
    report = validate(Report, data, what="report", refusal=REFUSAL)
    assert [one.id for one in report.tickets] == [one["id"] for one in data["tickets"]]
    assert all(one.certificate and one.claims and one.histogram and one.premise for one in report.tickets)
    again = report.model_dump(mode="json", by_alias=True, exclude={"replay", "digest"})
    assert again == data
    validator = jsonschema.Draft202012Validator(json_schema(Report))
    assert list(validator.iter_errors(data)) == []
    assert not validator.is_valid(data | {"replay": None}), "absent, never null"
    for wrong in faults(data):
        assert not validator.is_valid(wrong)
        with pytest.raises(InvalidInputError):
            validate(Report, wrong, what="report", refusal=REFUSAL)


def faults(data: dict[str, Any]) -> list[dict[str, Any]]:
    """The report with one fault each."""
    ticket = data["tickets"][0]

    def other(**fields: Any) -> dict[str, Any]:
        return data | {"tickets": [ticket | fields]}

    return [
        data | {"schema_version": 2},
        data | {"exit_code": 99},
        data | {"replay": [{"ticket": "a", "evidence": "e", "results": [{"record": "1"}]}]},
        other(verdict="certified"),
        other(items=[ticket["items"][0] | {"outcome": "passed"}]),
        other(claims=[{key: value for key, value in ticket["claims"][0].items() if key != "stated"}]),
        other(histogram=ticket["histogram"] | {"bars": []}),
    ]
