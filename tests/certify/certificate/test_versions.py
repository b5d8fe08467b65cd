"""Certificates of every schema version since the first are still read and verified."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import certify
from certify.base.errors import InvalidInputError
from certify.base.records import RULES
from certify.certificate.schema import SCHEMA_VERSION, read_certificate
from certify.evidence.null_labels import GROUPS

ROOT = Path(__file__).resolve().parents[3]
FIXTURES = ROOT / "tests" / "fixtures" / "certificates"
PUBLISHED = ROOT / "reports" / "published"
OLD = sorted(FIXTURES.glob("*/*.json"))


def test_there_are_old_certificates() -> None:
    assert len(OLD) == 13
    assert {json.loads(path.read_bytes())["schema_version"] for path in OLD} == {1}


@pytest.mark.parametrize("path", OLD, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_an_old_certificate_is_read(path: Path) -> None:
    certificate, data, version = read_certificate(path)
    assert data == path.read_bytes()
    assert (version, certificate.schema_version) == (1, SCHEMA_VERSION)
    assert all(claim.witness is None and claim.critical is None for claim in certificate.claims)
    now, *_ = read_certificate(PUBLISHED / path.parent.name / "tickets" / "certificates" / path.name)
    estimates = [
        {claim.name: None if claim.estimate is None else float(claim.estimate.value) for claim in one.claims}
        for one in (certificate, now)
    ]
    for rule in RULES:  # null tickets made one claim then, with the figures of the weakest group
        old = estimates[0].pop(f"better-than-nulls:nulls:{rule}", None)
        groups = [estimates[1].get(f"better-than-nulls:{group}:{rule}") for group in GROUPS]
        assert old is None or any(one == pytest.approx(old, abs=1e-8) for one in groups)
    # Scores are rounded to 32 bits since.
    known = {name: estimates[1][name] for name in estimates[0]}
    assert estimates[0] == pytest.approx(known, abs=1e-8), "the limits have moved, the figures have not"
    assert certificate.signature == now.signature


@pytest.mark.parametrize("path", OLD[:1] + OLD[-1:], ids=lambda path: path.stem)
def test_an_old_certificate_decides_nothing(path: Path) -> None:
    """Its limits pay neither for the choice among tickets nor for what lies above the cap of a loss."""
    tickets = PUBLISHED / path.parent.name / "tickets" / "tickets.json"
    (old,) = certify.check(tickets, ids=[path.stem], certificate=path).tickets
    items = {item.name: item for item in old.items}
    assert (old.status, items["certificate.present"].code) == ("INCONCLUSIVE", "CERTIFICATE_OLDER")
    assert items["checker.agrees"].outcome == "pass"


def test_a_newer_certificate_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "newer.json"
    path.write_bytes(OLD[0].read_bytes().replace(b'"schema_version":1', b'"schema_version":4'))
    with pytest.raises(InvalidInputError, match="newer"):
        read_certificate(path)
