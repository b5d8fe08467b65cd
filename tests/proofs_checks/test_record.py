"""The record of a run: what it must say, and that it adds up.

Records are built, and their sums worked out once more, by :mod:`proof_files`.
"""

from __future__ import annotations

from typing import Any

import proof_files
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from profiles import examples
from proof_files import OUTCOMES, outcome_of, record, records
from ticket_strategies import damages

from certify.base.errors import InvalidInputError
from certify.base.model import json_schema
from proofs_checks.check import Budget, CheckResult
from proofs_checks.run import prove
from proofs_checks.run.record import ProofRecord, clause_outcome, parse_record

Json = Any


@given(records())
def test_an_honest_record_is_read(value: Json) -> None:
    assert parse_record(value).model_dump(mode="json", by_alias=True) == value


@given(st.lists(st.sampled_from(OUTCOMES), min_size=1))
def test_a_clause_passes_only_with_all_its_checks(outcomes: list[Any]) -> None:
    names = [str(i) for i in range(len(outcomes))]
    assert clause_outcome(outcomes) == outcome_of(names, dict(zip(names, outcomes, strict=True)))
    assert (clause_outcome(outcomes) == "passed") == (set(outcomes) == {"passed"})


def test_a_clause_without_checks_has_no_outcome() -> None:
    with pytest.raises(ValueError, match="without a check"):
        clause_outcome([])


def adds_up(value: Json) -> bool:
    """Whether the sums of a record follow from its checks."""
    ended = {one["name"]: one["outcome"] for one in value["checks"]}
    again = proof_files.assemble(value["checks"], {one["clause"]: one["checks"] for one in value["clauses"]})
    known = {name for one in value["clauses"] for name in one["checks"]}
    return (
        len(ended) == len(value["checks"])
        and (value["counts"], value["clauses"]) == (again["counts"], again["clauses"])
        and (ended.keys() == known or (value["selected"] and ended.keys() < known))
    )


@settings(max_examples=examples(200), suppress_health_check=[HealthCheck.too_slow])
@given(records(), st.data())
def test_a_damaged_record_is_refused_or_adds_up(value: Json, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(1, 2))):
        value = data.draw(damages(value)).apply(value)
    try:
        read = parse_record(value)
    except InvalidInputError as error:
        refusal = error
    else:
        assert adds_up(read.model_dump(mode="json", by_alias=True))
        return
    assert refusal.code == "PROOFS_MALFORMED"
    assert str(refusal).isprintable()


def _at(value: Json, *path: Any) -> Json:
    for step in path:
        value = value[step]
    return value


BROKEN: dict[str, tuple[tuple[Any, ...], str, Any]] = {
    "no format": ((), "format", None),
    "another format": ((), "format", "certify.certificate"),
    "a number": ((), "format", 1),
    "newer": ((), "format", "certify-proofs/2"),
    "format zero": ((), "format", "certify-proofs/0"),
    "no version of the format": ((), "format", "certify-proofs/"),
    "an absurd version of the format": ((), "format", "certify-proofs/" + "9" * 5000),
    "an unknown field": ((), "verdict", "CERTIFIED"),
    "another tier": ((), "tier", "deep"),
    "a seed that is true": ((), "seed", True),
    "selected as a number": ((), "selected", 0),
    "no checks": ((), "checks", []),
    "no clauses": ((), "clauses", []),
    "another outcome": (("checks", 0), "outcome", "skipped"),
    "a pass without a case": (("checks", 0), "cases", 0),
    "cases below zero": (("checks", 0), "cases", -1),
    "cases as a float": (("checks", 0), "cases", 7.0),
    "a negative time": (("checks", 0), "seconds", -1.0),
    "a name that drives a terminal": (("checks", 0), "name", "\x1b[2J"),
    "a witness as long as a book": (("checks", 0), "witness", "x" * (1 << 17)),
    "a clause without checks": (("clauses", 1), "checks", []),
    "a count too many": (("counts",), "passed", 4),
    "a clause that is better than its checks": (("clauses", 2), "outcome", "passed"),
    "a clause that is worse than its checks": (("clauses", 0), "outcome", "timeout"),
    "a clause twice": (("clauses", 1), "clause", "§5 exact limits"),
    "a check twice": (("checks", 0), "name", "smt.labels"),
    "a check of no clause": (("checks", 0), "name", "exact.other"),
    "a check outside its clause": (("clauses", 2), "checks", ["smt.labels"]),
    "a check that was left out": (
        ("clauses", 0),
        "checks",
        ["exact.strings", "smt.labels", "smt.more"],
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_record_is_refused_in_one_line(name: str) -> None:
    value = record(tails="not run")
    parse_record(value)
    path, key, wrong = BROKEN[name]
    _at(value, *path)[key] = wrong
    with pytest.raises(InvalidInputError) as caught:
        parse_record(value)
    assert caught.value.code == "PROOFS_MALFORMED"
    assert str(caught.value).isprintable()


def test_no_check_can_be_left_out_of_a_whole_record() -> None:
    value = record(tails=None, selected=False)
    with pytest.raises(InvalidInputError, match=r"laws\.tails is left out"):
        parse_record(value)
    assert parse_record(value | {"selected": True}).selected


def test_what_certify_prove_writes_is_read() -> None:
    ends = ["passed", "failed", "not run", "timeout"]
    results = tuple(
        CheckResult(one.name, one.clause, one.assumptions, ends[i % 4], 1, 0.1234567, "why", None)  # type: ignore[arg-type]
        for i, one in enumerate(prove.checks())
    )
    for found, selected in ((results, False), (results[5:9], True)):
        made = prove.record(Budget("full", seed=5), found, selected=selected)
        written = made.model_dump(mode="json", by_alias=True)
        assert adds_up(written)
        assert parse_record(written) == made


def test_the_schema_takes_what_is_written() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(json_schema(ProofRecord))
    validator = jsonschema.Draft202012Validator(json_schema(ProofRecord))
    assert list(validator.iter_errors(record("failed", "timeout", None))) == []
    assert list(validator.iter_errors(record() | {"tier": "deep"}))
