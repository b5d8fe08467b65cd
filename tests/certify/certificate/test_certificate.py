"""The certificate: its numbers, its bytes, and what it refuses. Oracles are ``decimal`` and plain JSON."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evidence_folders import Bundle, make_bundle
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from certify.base.errors import InvalidInputError
from certify.base.model import json_schema
from certify.base.records import RULES
from certify.certificate.schema import (
    SCHEMA_VERSION,
    UNSTATED,
    Certificate,
    decimal,
    is_stated,
    number,
    parse_certificate,
    read_certificate,
    share,
    state,
)
from certify.claims.claim import Claim, Finding
from certify.claims.registry import KINDS
from certify.stats.betting import betting_exceeds

Json = Any
FRACTIONS = st.fractions(min_value=-1000, max_value=1000)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def value(bundle: Bundle) -> Json:
    return json.loads(bundle.certificate.read_bytes())


# --- numbers -----------------------------------------------------------------------------------------------


@given(FRACTIONS, st.booleans())
def test_decimals_are_rounded_toward_the_weaker_claim(fraction: Fraction, up: bool) -> None:
    context = Context(prec=60, rounding=ROUND_CEILING if up else ROUND_FLOOR)
    expected = context.divide(Decimal(fraction.numerator), Decimal(fraction.denominator))
    expected = expected.quantize(Decimal("0.000001"), rounding=ROUND_CEILING if up else ROUND_FLOOR)
    text = decimal(fraction, up=up)
    assert Decimal(text) == expected
    assert (Fraction(text) >= fraction) if up else (Fraction(text) <= fraction)
    assert text != "-0.000000"


@given(FRACTIONS)
def test_a_number_holds_the_exact_fraction(fraction: Fraction) -> None:
    made = number(fraction)
    assert made is not None
    assert made.value == fraction
    assert number(None) is None


@given(st.integers(1, 20))
def test_shares_of_the_error_probability_add_up_exactly(texts: int) -> None:
    assert share("0.05", texts) * texts == Fraction(1, 20)


def test_the_best_of_eight_tickets_without_a_gain_passes_as_seldom_as_promised() -> None:
    """Eight tickets on one text, none of them any good: that one passes has probability delta at most."""
    random, draws, units = np.random.default_rng(7), 200, 80
    passed = Counter[int]()
    for values in random.integers(0, 2, size=(draws, 8, units)).tolist():
        for choices in (1, 8):
            part = share("0.05", 1, choices)
            passed[choices] += any(betting_exceeds(one, Fraction(1, 2), part, "fixed") for one in values)
    assert binom.sf(passed[8] - 1, draws, 0.05) > 1e-3
    assert binom.sf(passed[1] - 1, draws, 0.05) < 1e-6, "unpaid, the best of eight passes far too often"


# --- content -----------------------------------------------------------------------------------------------


def test_what_it_states_and_what_it_does_not(value: Json) -> None:
    assert (value["schema"], value["schema_version"]) == ("certify.certificate", 3)
    kinds = {claim["kind"] for claim in value["claims"]}
    assert kinds == {kind.name for kind in KINDS.values() if kind.tests}
    names = {(claim["kind"], claim["comparator"], claim["extraction"]) for claim in value["claims"]}
    assert {("gain", "base", rule) for rule in RULES} <= names
    # No arm is of kind full, so nothing is said about it.
    assert not any(comparator == "full" for _, comparator, _ in names)
    for word in ("verdict", "status", "time", "date", "host", "machine"):
        assert word not in value


def test_every_assumption_of_a_claim_is_listed_with_its_status(value: Json) -> None:
    named = {name for claim in value["claims"] for name in claim["assumptions"]}
    assert {entry["id"] for entry in value["assumptions"]} == named == {"A-UNITS", "A-EVIDENCE"}
    assert all(entry["statement"] and entry["status"] for entry in value["assumptions"])


def test_subjects_are_the_digests_of_the_ticket_and_of_the_evidence(bundle: Bundle, value: Json) -> None:
    ticket = bundle.ticket()
    manifest = json.loads(bundle.translated.read_text(encoding="utf-8"))
    assert {one["name"]: one["sha256"] for one in value["subjects"]} == {
        "base": ticket["base"]["tensor_sha256"],
        "reference": ticket["reference"]["tensor_sha256"],
        "table": bundle.table_of(bundle.ids),
        "rows": ticket["released"]["rows"]["served_sha256"],
        "tokenizer": ticket["tokenizer"]["sha256"],
        "template": ticket["template"]["sha256"],
        "model": manifest["base"]["model_sha256"],
    }


def test_the_signature_names_the_settings(value: Json) -> None:
    fields = dict(part.split(":", 1) for part in value["signature"].split("|"))
    tool = fields.pop("tool")
    assert value["created_by"] == f"certify {tool}"
    assert fields == {
        "ks": "exact",
        "n": "32",
        "dtype": "F16",
        "agg": "sum",
        "V": "4",
        "alpha": "0.05",
        "correction": "none",
        "object": "transfer",
        "delta": "0.05",
        "schema": "3",
    }


RANGES = {"token-agreement": (0, 1), "unrelated-loss": (-2, 2)}


def test_limits_are_the_grid_points_that_their_witnesses_name(value: Json) -> None:
    for claim in value["claims"]:
        if claim["comparator"] == "calibrated":
            (one,) = claim["witness"]
            assert [Fraction(claim[side]["exact"]) for side in ("lower", "upper")] == [
                Fraction(one[side], 1 << 20) for side in ("lower", "upper")
            ]
            continue
        if claim["kind"] == "guarantee":
            assert claim["finding"] == "vacuous" or claim["critical"]["held"] < claim["critical"]["refuted"]
            continue
        low, high = RANGES.get(claim["kind"], (-100, 100))
        grid = 1 << 20
        if claim["kind"] == "unrelated-excess":  # of a rate both limits are of one and the same quantity
            assert Fraction(claim["upper"]["exact"]) == Fraction(claim["witness"][0]["upper"], 1 << 32)
            continue
        if claim["procedure"].startswith("clopper-pearson"):
            low, high, grid = 0, 1, 1 << 32
        lowest = min(one["lower"] for one in claim["witness"])
        limit = low + Fraction(lowest, grid) * (high - low)
        stated = claim["upper"] or claim["lower"]
        assert Fraction(stated["exact"]) == (-limit if claim["upper"] else limit)
        assert all(one["lower"] <= one["upper"] <= grid for one in claim["witness"])
        assert len(claim["witness"]) == {"chance": 6, "rivals": 2, "one-row": 2}.get(claim["comparator"], 1)


def test_a_witness_names_its_units_by_digest(value: Json) -> None:
    (claim,) = (one for one in value["claims"] if one["kind"] == "agreement-rate")
    units = json.dumps([1] * claim["n"], separators=(",", ":")).encode()
    assert Fraction(claim["estimate"]["exact"]) == 1, "every decision of the bundle agrees"
    assert claim["witness"][0]["units"] == hashlib.sha256(units).hexdigest()


def test_no_number_is_a_float(bundle: Bundle) -> None:
    def refuse(text: str) -> None:
        raise AssertionError(text)

    json.loads(bundle.certificate.read_bytes(), parse_float=refuse)


def test_equal_inputs_give_equal_bytes(bundle: Bundle, tmp_path: Path) -> None:
    other = bundle.copy(tmp_path / "elsewhere")
    other.certificate.unlink()
    other.issue([other.translated, other.unrelated, other.paraphrased])
    data = other.certificate.read_bytes()
    assert data == bundle.certificate.read_bytes()
    canonical = json.dumps(json.loads(data), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    assert data == canonical.encode() + b"\n"


def _claim(**fields: Any) -> Claim:
    given = {"finding": Finding.MEASURED, "code": "X", "text": "t", "lower": Fraction(-1, 3), "n": 3}
    return Claim(**{"kind": "gain", "comparator": "base", "extraction": "whole", **given, **fields})


@pytest.mark.parametrize("finding", Finding)
def test_what_evidence_does_not_support_is_not_stated(finding: Finding) -> None:
    assert is_stated(_claim(finding=finding), "evaluation") == (finding not in UNSTATED)
    assert not is_stated(_claim(finding=finding), "loss")
    assert not is_stated(_claim(finding=finding), "other-template")


def test_a_stated_claim_is_the_claim_without_prose() -> None:
    stated = state(_claim(upper=Fraction(1, 3), estimate=Fraction(1, 7)), "0" * 64)
    assert stated.lower is not None
    assert stated.upper is not None
    assert (stated.lower.exact, stated.lower.decimal) == ("-1/3", "-0.333334")
    assert (stated.upper.exact, stated.upper.decimal) == ("1/3", "0.333334")
    assert (stated.name, stated.delta, stated.n) == ("gain:base:whole", "1/20", 3)
    assert "signature" not in stated.figures
    assert "text" not in stated.model_dump()


# --- what is refused ---------------------------------------------------------------------------------------


def test_the_json_schema_takes_what_is_written(value: Json) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json_schema(Certificate)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert list(validator.iter_errors(value)) == []
    assert list(validator.iter_errors(value | {"verdict": "CERTIFIED"}))
    del value["schema_version"]
    assert list(validator.iter_errors(value))


def _at(value: Json, *path: str | int) -> Json:
    for step in path:
        value = value[step]
    return value


BROKEN: dict[str, tuple[tuple[str | int, ...], str | int, Any, str]] = {
    "another schema": ((), "schema", "certify.tickets", "CERTIFICATE_SCHEMA"),
    "version as true": ((), "schema_version", True, "CERTIFICATE_SCHEMA"),
    "newer version": ((), "schema_version", 4, "CERTIFICATE_NEWER"),
    "version zero": ((), "schema_version", 0, "CERTIFICATE_MALFORMED"),
    "a verdict": ((), "verdict", "CERTIFIED", "CERTIFICATE_MALFORMED"),
    "not in lowest terms": (("claims", 0), "delta", "2/40", "CERTIFICATE_MALFORMED"),
    "a denominator of zero": (("claims", 0), "delta", "1/0", "CERTIFICATE_MALFORMED"),
    "a plain integer": (("claims", 0, "lower"), "exact", "1", "CERTIFICATE_MALFORMED"),
    "minus zero": (("claims", 0, "lower"), "exact", "-0/1", "CERTIFICATE_MALFORMED"),
    "another decimal": (("claims", 0, "lower"), "decimal", "0.999999", "CERTIFICATE_MALFORMED"),
    "a float": (("claims", 0), "n", 90.0, "CERTIFICATE_MALFORMED"),
    "a kind that is not stated": (("claims", 0), "kind", "opportunity", "CERTIFICATE_MALFORMED"),
    "an unsupported finding": (("claims", 0), "finding", "missing", "CERTIFICATE_MALFORMED"),
    "another V": (("parameters",), "variation", 2, "CERTIFICATE_MALFORMED"),
    "delta of one": (("parameters",), "delta", "1.0", "CERTIFICATE_MALFORMED"),
    "an absolute path": (("evidence", 0), "path", "/etc/passwd", "CERTIFICATE_MALFORMED"),
    "a path upward": (("evidence", 0), "path", "a/../../b", "CERTIFICATE_MALFORMED"),
    "an unknown subject": (("subjects", 0), "name", "author", "CERTIFICATE_MALFORMED"),
    "a digest in capitals": (("subjects", 0), "sha256", "A" * 64, "CERTIFICATE_MALFORMED"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_certificate_is_refused(value: Json, name: str) -> None:
    path, key, wrong, code = BROKEN[name]
    _at(value, *path)[key] = wrong
    with pytest.raises(InvalidInputError) as caught:
        parse_certificate(value)
    assert caught.value.code == code
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("part", ["claims", "evidence"])
def test_nothing_is_stated_twice(value: Json, part: str) -> None:
    value[part].append(value[part][0])
    with pytest.raises(InvalidInputError, match="are the same"):
        parse_certificate(value)


@pytest.mark.parametrize("junk", [None, [], "x", 1, {}, {"schema": "certify.certificate"}])
def test_what_is_no_certificate_is_refused(junk: Any) -> None:
    with pytest.raises(InvalidInputError):
        parse_certificate(junk)


def test_only_canonical_bytes_are_read(bundle: Bundle, value: Json, tmp_path: Path) -> None:
    path = tmp_path / "certificate.json"
    data = bundle.certificate.read_bytes()
    path.write_bytes(data)
    certificate, read, version = read_certificate(path)
    assert version == SCHEMA_VERSION
    assert read == data == certificate.to_bytes()
    for other in (data + b"\n", data[:-1], b" " + data, json.dumps(value, indent=1).encode() + b"\n"):
        path.write_bytes(other)
        with pytest.raises(InvalidInputError) as caught:
            read_certificate(path)
        assert caught.value.code == "CERTIFICATE_NOT_CANONICAL"


def test_the_parsed_certificate_is_what_was_written(value: Json) -> None:
    certificate = parse_certificate(value)
    assert isinstance(certificate, Certificate)
    assert certificate.model_dump(mode="json", by_alias=True) == value
