"""Evidence that grows: read in pieces it is what it is read at once, and each byte is read once."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from claims_world import subject_of
from evidence_truth import Truth
from hypothesis import given, settings
from hypothesis import strategies as st
from profiles import examples

from certify.base.errors import InvalidInputError
from certify.evidence import sentence_scores
from certify.evidence.growing import Growing
from certify.evidence.load import Evidence, load
from certify.evidence.parser import RecordParser
from certify.evidence.sentence_scores import unit_scores
from certify.gate.watch import Watch
from certify.policy.policy import parse_policy
from proofs_checks.worlds import synthetic

UNITS, SIZE = 24, 2
RECORDS, ARMS = Truth(disagreement=0.1, per_unit=SIZE, quality={"t": 60.0}).world(5, UNITS)
ORDER = sorted(range(UNITS), key=lambda unit: synthetic.digest(f"0:{unit}"))
USED = {"tuning": ["0" * 16]}


def write(folder: Path, records: list[Any], **fields: Any) -> Path:
    text = {"name": "synthetic", "attribution": "", "unit": f"block:{SIZE}"} | synthetic.text_of(RECORDS)
    return synthetic.write(folder, records, ARMS, used=USED, text=text, **{"design": "sequential"} | fields)


def drawn(units: int) -> list[Any]:
    """The records of the first units of the order, as they were appended."""
    return [record for unit in ORDER[:units] for record in RECORDS[unit * SIZE : (unit + 1) * SIZE]]


POLICY = b"""
schema = "certify.policy"
schema_version = 1
name = "mine"
question = "?"
delta = "0.05"
items = [
    "integrity.base", "integrity.reference", "integrity.tokenizer", "integrity.template", "integrity.rows",
    "released.rows", "certificate.present", "certificate.content", "certificate.claims",
    "evidence.integrity", "evidence.split",
]
design = ["A-UNITS", "A-BLOCKS", "A-EVIDENCE"]
[[claim]]
name = "token-agreement:reference"
at_least = "0.95"
[[claim]]
name = "gain:base:first-line"
above = "0"
[[claim]]
name = "non-inferiority:reference:cut"
at_least = "-1"
"""


def watch() -> Watch:
    return Watch(parse_policy(POLICY), [subject_of()])


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The lines that were parsed, one after the other."""
    lines: list[bytes] = []
    real = RecordParser.read

    def counted(self: RecordParser, line: bytes, what: str) -> Any:
        lines.append(line)
        return real(self, line, what)

    monkeypatch.setattr(RecordParser, "read", counted)
    return lines


def contents(evidence: Evidence) -> tuple[Any, ...]:
    return evidence.manifest, evidence.sha256, evidence.records, dict(evidence.used)


@settings(max_examples=examples(30), deadline=None)
@given(st.sets(st.integers(1, UNITS), min_size=1))
def test_what_is_read_in_pieces_is_what_is_read_at_once(splits: set[int]) -> None:
    with tempfile.TemporaryDirectory() as name:
        growing, watching = Growing(Path(name) / "synthetic.json"), watch()
        for units in sorted(splits):
            path = write(Path(name), drawn(units))
            found, whole = growing.read(), load(path)
            assert contents(found) == contents(whole)
            for arm in ("base", "reference", "t"):
                assert unit_scores(found, arm, "cut") == unit_scores(whole, arm, "cut")
            watching(path)
            assert watching.looks[-1] == watch().look(whole)


def test_each_byte_is_parsed_once(tmp_path: Path, parsed: list[bytes]) -> None:
    growing, watching = Growing(tmp_path / "synthetic.json"), watch()
    for units in range(1, UNITS + 1):
        path = write(tmp_path, drawn(units))
        growing.read()
    lines = path.with_suffix(".records.jsonl").read_bytes().splitlines()
    assert parsed == lines
    del parsed[:]
    for units in range(1, UNITS + 1):
        watching(write(tmp_path, drawn(units)))
    assert parsed == lines, "a watch reads through the same door"
    assert len(watching.looks) == UNITS
    del parsed[:]
    for units in (1, 2):
        load(write(tmp_path, drawn(units)))
    assert len(parsed) == 3 * SIZE, "the count sees what is read again"


def test_scores_of_units_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = sentence_scores.sentence_chrf
    monkeypatch.setattr(sentence_scores, "sentence_chrf", lambda vector: calls.append(1) or real(vector))
    watching = watch()
    for units in range(1, UNITS + 1):
        watching(write(tmp_path, drawn(units)))
    # Two rules of the ticket's arm, one each of base and reference.
    assert len(calls) == 4 * len(RECORDS)


@pytest.mark.parametrize(
    "changed",
    [
        {"order_seed": 1},
        {"signatures": {"bleu": "another"}},
    ],
)
def test_another_manifest_is_read_from_the_start(
    tmp_path: Path, parsed: list[bytes], changed: dict[str, Any]
) -> None:
    growing = Growing(write(tmp_path, drawn(UNITS - 1)))
    growing.read()
    path = write(tmp_path, drawn(UNITS), **changed)
    assert contents(growing.read()) == contents(load(path))
    assert len(parsed) == (UNITS - 1 + UNITS + UNITS) * SIZE


def test_records_that_were_changed_are_read_from_the_start(tmp_path: Path) -> None:
    growing = Growing(write(tmp_path, drawn(4)))
    growing.read()
    # Rewritten in another order, and fewer than before.
    for records in (drawn(5)[::-1], drawn(3)):
        path = write(tmp_path, records)
        assert contents(growing.read()) == contents(load(path))


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda data: data[:-1], "EVIDENCE_TRUNCATED"),
        (lambda data: data + data[-300:], "EVIDENCE_TRUNCATED"),
        (lambda data: data.replace(b"output of t", b"output of x"), "EVIDENCE_DIGEST"),
        (lambda data: data[:-2] + b"]\n", "JSON_MALFORMED"),
    ],
)
def test_what_load_refuses_is_refused_and_afterwards_read_again(
    tmp_path: Path, spoil: Callable[[bytes], bytes], code: str
) -> None:
    growing = Growing(write(tmp_path, drawn(2)))
    growing.read()
    path = write(tmp_path, drawn(4))
    records = path.with_suffix(".records.jsonl")
    good = records.read_bytes()
    records.write_bytes(spoil(good))
    for reads in (growing.read, lambda: load(path)):
        with pytest.raises(InvalidInputError) as error:
            reads()
        assert error.value.code == code
    records.write_bytes(good)
    assert contents(growing.read()) == contents(load(path))


def test_units_that_were_picked_are_refused_at_the_look_that_shows_it(tmp_path: Path) -> None:
    growing = Growing(write(tmp_path, drawn(4)))
    growing.read()
    write(tmp_path, [*drawn(4), *drawn(6)[-SIZE:]])
    with pytest.raises(InvalidInputError) as error:
        growing.read()
    assert error.value.code == "EVIDENCE_DRAWN"


def test_a_fixed_design_keeps_no_scores(tmp_path: Path) -> None:
    """Its units are in the order of their content: those of another look may stand elsewhere."""
    growing = Growing(write(tmp_path, RECORDS, design="fixed"))
    unit_scores(growing.read(), "t", "cut")
    assert growing.read().scores == {}
