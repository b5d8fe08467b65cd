"""Claims that are computed again where the rows are missing: told, and never enough."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from evidence_folders import Bundle, make_bundle

import certify
from certify import checker
from certify.base.verdict import Item, Outcome
from certify.policy.policy import SHIPPED


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def bundle(pristine: Bundle, tmp_path: Path) -> Bundle:
    """A bundle that every policy certifies, but for its rows."""
    found = pristine.copy(tmp_path / "bundle")
    (found.folder / "rows" / "tiny.safetensors").unlink()
    return found


def claims_item(bundle: Bundle, policy: str = "release") -> Item:
    (report,) = certify.check(bundle.path, policy=policy, engine="numpy", workers=1).tickets
    assert report.status.value == "INCONCLUSIVE"
    return next(item for item in report.items if item.name == "certificate.claims")


def test_all_but_promises_are_computed_again(bundle: Bundle) -> None:
    stated = json.loads(bundle.certificate.read_bytes())["claims"]
    able = [claim for claim in stated if claim["kind"] != "guarantee"]
    assert 0 < len(able) < len(stated)
    item = claims_item(bundle)
    assert (item.outcome, item.code) == (Outcome.MISSING, "CLAIMS_IN_PART")
    assert f"{len(able)} of {len(stated)} stated claims" in item.text
    assert "as stated; that they are about the ticket's rows is not shown" in item.text


def test_other_figures_are_told(bundle: Bundle) -> None:
    def change(certificate: Any) -> None:
        claim = next(one for one in certificate["claims"] if one["kind"] == "gain")
        claim["n"] += 1

    bundle.edit_certificate(change)
    item = claims_item(bundle)
    assert "other figures than are stated: gain:" in item.text
    assert item.outcome is Outcome.MISSING


def test_a_certificate_that_names_no_table_is_about_none(bundle: Bundle) -> None:
    def change(certificate: Any) -> None:
        certificate["subjects"] = [one for one in certificate["subjects"] if one["name"] != "table"]

    bundle.edit_certificate(change)
    text = claims_item(bundle).text
    assert "other figures than are stated: " in text or "no claim could be computed again: " in text


def test_evidence_that_is_refused_is_told(bundle: Bundle) -> None:
    path = bundle.translated.with_name("translated.records.jsonl")
    path.write_bytes(path.read_bytes().replace(b'"ended":true', b'"ended":null', 1))
    assert "no claim could be computed again: " in claims_item(bundle).text


@pytest.mark.parametrize("policy", SHIPPED)
def test_no_policy_certifies_without_rows(bundle: Bundle, policy: str) -> None:
    assert {one.status.value for one in certify.check(bundle.path, policy=policy).tickets} == {"INCONCLUSIVE"}


OWN = """
schema = "certify.policy"
schema_version = 1
name = "own"
question = "Does it help?"
delta = "0.05"
items = ["certificate.present", "certificate.claims"]
non_claims = ["that these are the rows"]
"""


def test_nor_does_one_that_forgets_the_rows(bundle: Bundle, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(OWN, encoding="utf-8")
    assert claims_item(bundle, str(own)).outcome is Outcome.MISSING
    (found,) = checker.verify(bundle.folder, policies=[str(own)])["tiny"].values()
    assert found.status == "INCONCLUSIVE"
