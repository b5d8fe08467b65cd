"""Certificates of every schema version since the first are still read and verified."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import certify
from certify.base.errors import InvalidInputError
from certify.certificate.schema import SCHEMA_VERSION, read_certificate

ROOT = Path(__file__).resolve().parents[3]
FIXTURES = ROOT / "tests" / "fixtures" / "certificates"
PUBLISHED = ROOT / "reports" / "published"
OLD = sorted(FIXTURES.glob("*/*.json"))


def test_there_are_old_certificates() -> None:
    assert len(OLD) == 13
    assert {json.loads(path.read_bytes())["schema_version"] for path in OLD} == {1}


@pytest.mark.parametrize("path", OLD, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_an_old_certificate_is_read(path: Path) -> None:
    certificate, data = read_certificate(path)
    assert data == path.read_bytes()
    assert certificate.schema_version == SCHEMA_VERSION
    assert all(claim.witness is None and claim.critical is None for claim in certificate.claims)
    now, _ = read_certificate(PUBLISHED / path.parent.name / "tickets" / "certificates" / path.name)
    assert [claim.figures for claim in certificate.claims] == [
        {name: value for name, value in claim.figures.items() if name not in ("witness", "critical")}
        for claim in now.claims
    ]
    assert certificate.signature == now.signature


FEW = ("en-ca-experiment/a05-limited.json", "en-ca-second/share.json")
CHECKED = [
    pytest.param(path, marks=[] if f"{path.parent.name}/{path.name}" in FEW else pytest.mark.slow)
    for path in OLD
]


@pytest.mark.parametrize("path", CHECKED)
def test_an_old_certificate_is_verified(path: Path) -> None:
    tickets = PUBLISHED / path.parent.name / "tickets" / "tickets.json"
    (old,) = certify.check(tickets, ids=[path.stem], certificate=path).tickets
    items = {item.name: item for item in old.items}
    for name in ("certificate.present", "certificate.content", "certificate.claims", "checker.agrees"):
        assert items[name].outcome == "pass", items[name].text
    (new,) = certify.check(tickets, ids=[path.stem]).tickets
    assert old.status == new.status


def test_an_old_certificate_that_was_edited_is_refused(tmp_path: Path) -> None:
    value = json.loads(OLD[0].read_bytes())
    value["claims"][0]["n"] += 1
    path = tmp_path / "edited.json"
    path.write_bytes(
        json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
    )
    tickets = PUBLISHED / OLD[0].parent.name / "tickets" / "tickets.json"
    (ticket,) = certify.check(tickets, ids=[OLD[0].stem], certificate=path).tickets
    assert ticket.status == "REFUTED"
    shutil.copy(OLD[0], path)
    path.write_bytes(path.read_bytes().replace(b'"schema_version":1', b'"schema_version":3'))
    with pytest.raises(InvalidInputError, match="newer"):
        read_certificate(path)
