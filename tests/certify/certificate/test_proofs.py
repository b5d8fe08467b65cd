"""The record of the theory's checks in a certificate: hostile input, restated, never a reason to pass.

Records are built, and what a certificate must say of them is worked out, by :mod:`proof_files`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import proof_files
import pytest
from command import in_process
from evidence_folders import Bundle, make_bundle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from profiles import examples
from proof_files import OUTCOMES, outcome_of, record, records, restated, sha256_of, write
from ticket_strategies import damages

import certify
from certify import checker
from certify.base.errors import CertifyError, InvalidInputError, UsageError
from certify.base.jsonio import canonical_json
from certify.base.model import json_schema
from certify.base.verdict import Item, Outcome
from certify.certificate.proofs import (
    MAX_BYTES,
    ProofRecord,
    clause_outcome,
    parse_record,
    read_record,
    restate,
)
from certify.certificate.schema import Certificate, parse_certificate, read_certificate
from certify.policy.codes import codes
from certify.policy.policy import POLICIES
from proofs_checks.check import Budget, CheckResult
from proofs_checks.run import prove

Json = Any
Capture = pytest.CaptureFixture[str]
PUBLISHED = Path(certify.__file__).resolve().parents[1] / "reports" / "published"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def bundle(pristine: Bundle, tmp_path: Path) -> Bundle:
    return pristine.copy(tmp_path / "bundle")


def name_record(bundle: Bundle, value: Json) -> Path:
    """Put the record into the ticket's folder and issue a certificate that names it."""
    path = write(bundle.folder / "prove.json", value)
    bundle.issue([bundle.translated, bundle.unrelated], proofs=path)
    return path


def items_of(bundle: Bundle, policy: str = "release") -> tuple[int, dict[str, Item]]:
    report = certify.check(bundle.path, policy=policy, engine="numpy", workers=1)
    return int(report.exit_code), {item.name: item for item in report.tickets[0].items}


# --- the record --------------------------------------------------------------------------------------------


@given(records())
def test_an_honest_record_is_read_and_restated(value: Json) -> None:
    read = parse_record(value)
    assert read.model_dump(mode="json", by_alias=True) == value
    said = restate(read, "a/prove.json", "0" * 64).model_dump(mode="json", by_alias=True)
    assert said == restated(value, "a/prove.json", "0" * 64)


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
    assert refusal.code in {"PROOFS_FORMAT", "PROOFS_NEWER", "PROOFS_MALFORMED", "PROOFS_INCONSISTENT"}
    assert str(refusal).isprintable()


def _at(value: Json, *path: Any) -> Json:
    for step in path:
        value = value[step]
    return value


BROKEN: dict[str, tuple[tuple[Any, ...], Any, Any, str]] = {
    "no format": ((), "format", None, "PROOFS_FORMAT"),
    "another format": ((), "format", "certify.certificate", "PROOFS_FORMAT"),
    "a number": ((), "format", 1, "PROOFS_FORMAT"),
    "newer": ((), "format", "certify-proofs/2", "PROOFS_NEWER"),
    "format zero": ((), "format", "certify-proofs/0", "PROOFS_MALFORMED"),
    "no version of the format": ((), "format", "certify-proofs/", "PROOFS_MALFORMED"),
    "an absurd version of the format": ((), "format", "certify-proofs/" + "9" * 5000, "PROOFS_MALFORMED"),
    "an unknown field": ((), "verdict", "CERTIFIED", "PROOFS_MALFORMED"),
    "another tier": ((), "tier", "deep", "PROOFS_MALFORMED"),
    "a seed that is true": ((), "seed", True, "PROOFS_MALFORMED"),
    "selected as a number": ((), "selected", 0, "PROOFS_MALFORMED"),
    "no checks": ((), "checks", [], "PROOFS_MALFORMED"),
    "no clauses": ((), "clauses", [], "PROOFS_MALFORMED"),
    "another outcome": (("checks", 0), "outcome", "skipped", "PROOFS_MALFORMED"),
    "a pass without a case": (("checks", 0), "cases", 0, "PROOFS_MALFORMED"),
    "cases below zero": (("checks", 0), "cases", -1, "PROOFS_MALFORMED"),
    "cases as a float": (("checks", 0), "cases", 7.0, "PROOFS_MALFORMED"),
    "a negative time": (("checks", 0), "seconds", -1.0, "PROOFS_MALFORMED"),
    "a name that drives a terminal": (("checks", 0), "name", "\x1b[2J", "PROOFS_MALFORMED"),
    "a witness as long as a book": (("checks", 0), "witness", "x" * (1 << 17), "PROOFS_MALFORMED"),
    "a clause without checks": (("clauses", 1), "checks", [], "PROOFS_MALFORMED"),
    "a count too many": (("counts",), "passed", 4, "PROOFS_INCONSISTENT"),
    "a clause that is better than its checks": (("clauses", 2), "outcome", "passed", "PROOFS_INCONSISTENT"),
    "a clause that is worse than its checks": (("clauses", 0), "outcome", "timeout", "PROOFS_INCONSISTENT"),
    "a clause twice": (("clauses", 1), "clause", "§5 exact limits", "PROOFS_INCONSISTENT"),
    "a check twice": (("checks", 0), "name", "smt.labels", "PROOFS_INCONSISTENT"),
    "a check of no clause": (("checks", 0), "name", "exact.other", "PROOFS_INCONSISTENT"),
    "a check outside its clause": (("clauses", 2), "checks", ["smt.labels"], "PROOFS_INCONSISTENT"),
    "a check that was left out": (
        ("clauses", 0),
        "checks",
        ["exact.strings", "smt.labels", "smt.more"],
        "PROOFS_INCONSISTENT",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_record_is_refused_in_one_line(name: str) -> None:
    value = record(tails="not run")
    parse_record(value)
    path, key, wrong, code = BROKEN[name]
    _at(value, *path)[key] = wrong
    with pytest.raises(InvalidInputError) as caught:
        parse_record(value)
    assert caught.value.code == code
    assert str(caught.value).isprintable()


def test_no_check_can_be_left_out_of_a_whole_record() -> None:
    value = record(tails=None, selected=False)
    with pytest.raises(InvalidInputError, match=r"laws\.tails is left out"):
        parse_record(value)
    assert parse_record(value | {"selected": True}).selected


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "JSON_MALFORMED"),
        (b"\xff\xfe", "JSON_MALFORMED"),
        (b'{"format":"certify-proofs/1","format":"certify-proofs/1"}', "JSON_MALFORMED"),
        (b'{"seconds":NaN}', "JSON_MALFORMED"),
        (b"[" * 5000, "JSON_TOO_DEEP"),
        (b"[]", "PROOFS_FORMAT"),
        (b" " * (MAX_BYTES + 1), "FILE_TOO_LARGE"),
    ],
)
def test_hostile_bytes_are_refused_in_one_line(tmp_path: Path, data: bytes, code: str) -> None:
    path = tmp_path / "prove.json"
    path.write_bytes(data)
    with pytest.raises(InvalidInputError) as caught:
        read_record(path)
    assert caught.value.code == code
    assert str(caught.value).isprintable()
    with pytest.raises(UsageError):
        read_record(tmp_path)


def test_what_certify_prove_writes_is_read(tmp_path: Path) -> None:
    ends = ["passed", "failed", "not run", "timeout"]
    results = tuple(
        CheckResult(one.name, one.clause, one.assumptions, ends[i % 4], 1, 0.1234567, "why", None)  # type: ignore[arg-type]
        for i, one in enumerate(prove.checks())
    )
    for found, selected in ((results, False), (results[5:9], True)):
        written = prove.Record(Budget("full", seed=5), found, selected).to_json()
        assert adds_up(written)
        path = write(tmp_path / "prove.json", written)
        read, sha256 = read_record(path)
        assert sha256 == sha256_of(path)
        assert read.model_dump(mode="json", by_alias=True) == written


def test_the_schema_takes_what_is_written() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(json_schema(ProofRecord))
    validator = jsonschema.Draft202012Validator(json_schema(ProofRecord))
    assert list(validator.iter_errors(record("failed", "timeout", None))) == []
    assert list(validator.iter_errors(record() | {"tier": "deep"}))


# --- the certificate ---------------------------------------------------------------------------------------


def test_a_certificate_without_a_record_has_the_bytes_it_always_had(pristine: Bundle) -> None:
    assert b'"proofs"' not in pristine.certificate.read_bytes()
    shipped = [*PUBLISHED.glob("*/tickets/certificates/*.json")]
    assert shipped
    for path in shipped:  # reading insists on canonical bytes: what is read is what would be written
        certificate, data = read_certificate(path)
        assert certificate.to_bytes() == data
        assert certificate.proofs is None


def test_a_certificate_restates_the_record_and_disclaims_it(bundle: Bundle) -> None:
    before = json.loads(bundle.certificate.read_bytes())
    value = record("failed", "timeout")
    path = name_record(bundle, value)
    data = bundle.certificate.read_bytes()
    after = json.loads(data)
    assert after["proofs"] == restated(value, "prove.json", sha256_of(path))
    assert after["non_claims"][:-1] == before["non_claims"]
    assert "certify prove" in after["non_claims"][-1]
    rest = {"proofs", "non_claims"}
    assert {k: v for k, v in after.items() if k not in rest} == {
        k: v for k, v in before.items() if k not in rest
    }
    assert data == canonical_json(after) + b"\n"
    name_record(bundle, value)
    assert bundle.certificate.read_bytes() == data, "equal inputs give equal bytes"


def test_absent_and_null_are_not_the_same(pristine: Bundle) -> None:
    value = json.loads(pristine.certificate.read_bytes())
    parse_certificate(value)
    with pytest.raises(InvalidInputError) as caught:
        parse_certificate(value | {"proofs": None})
    assert caught.value.code == "CERTIFICATE_MALFORMED"


def test_the_schema_of_certificates_includes_it(bundle: Bundle, capsys: Capture) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json_schema(Certificate))
    plain = json.loads(bundle.certificate.read_bytes())
    name_record(bundle, record(tails="timeout"))
    named = json.loads(bundle.certificate.read_bytes())
    for value in (plain, named):
        assert list(validator.iter_errors(value)) == []
    for wrong in (None, named["proofs"] | {"partial": 0}, named["proofs"] | {"verdict": "CERTIFIED"}):
        assert list(validator.iter_errors(named | {"proofs": wrong}))
    ran = in_process(["schema", "certificate"], capsys)
    assert "ProofsRef" in json.loads(ran.out)["$defs"]
    assert json.loads(in_process(["schema", "proofs"], capsys).out) == json_schema(ProofRecord)


# --- certify issue -----------------------------------------------------------------------------------------


def test_the_command_issues_with_a_record_and_says_what_is_in_it(bundle: Bundle, capsys: Capture) -> None:
    words: list[object] = ["issue", "--ticket", bundle.path, "--out", bundle.certificate, "--attach"]
    words += ["--evidence", bundle.translated, "--evidence", bundle.unrelated]
    path = write(bundle.folder / "prove.json", record("failed", tails=None))
    ran = in_process([*words, "--proofs", path], capsys)
    assert (ran.code, ran.err) == (0, "")
    assert "fast, seed 3, SELECTED CHECKS ONLY: 1 passed, 1 FAILED" in ran.out
    assert json.loads(bundle.certificate.read_bytes())["proofs"]["path"] == "prove.json"
    assert in_process(["check", "--ticket", bundle.path], capsys).code == 0


def test_a_record_travels_with_the_ticket(bundle: Bundle, tmp_path: Path) -> None:
    before = bundle.certificate.read_bytes()
    outside = write(tmp_path / "prove.json", record())
    for path, code in ((outside, "OUTSIDE_FOLDER"), (bundle.folder / "none.json", "FILE_UNREADABLE")):
        with pytest.raises(UsageError) as caught:
            bundle.issue([bundle.translated], proofs=path)
        assert caught.value.code == code
    assert bundle.certificate.read_bytes() == before


def test_no_certificate_is_issued_on_a_record_that_does_not_add_up(bundle: Bundle) -> None:
    before = bundle.certificate.read_bytes()
    value = record("failed")
    value["counts"] |= {"failed": 0, "passed": 3}
    with pytest.raises(InvalidInputError) as caught:
        name_record(bundle, value)
    assert caught.value.code == "PROOFS_INCONSISTENT"
    assert bundle.certificate.read_bytes() == before


# --- certify check -----------------------------------------------------------------------------------------

SAID: dict[str, tuple[Json, Outcome, str]] = {
    "all passed": (record(), Outcome.PASS, "PROOFS_PASSED"),
    "one failed": (record(labels="failed"), Outcome.FAIL, "PROOFS_FAILED"),
    "one failed among selected ones": (record("failed", tails=None), Outcome.FAIL, "PROOFS_FAILED"),
    "one failed and one did not run": (record("failed", "not run"), Outcome.FAIL, "PROOFS_FAILED"),
    "one did not run": (record(tails="not run"), Outcome.INCONCLUSIVE, "PROOFS_NOT_RUN"),
    "one ran out of time": (record(strings="timeout"), Outcome.INCONCLUSIVE, "PROOFS_NOT_RUN"),
    "selected ones passed": (record(tails=None), Outcome.INCONCLUSIVE, "PROOFS_PARTIAL"),
    "all passed and were selected": (record(selected=True), Outcome.INCONCLUSIVE, "PROOFS_PARTIAL"),
    "none ran": (record("not run", "timeout", "not run"), Outcome.INCONCLUSIVE, "PROOFS_NOT_RUN"),
}
STATUS = {Outcome.PASS: 0, Outcome.FAIL: 1, Outcome.INCONCLUSIVE: 3}
OWN = """
schema = "certify.policy"
schema_version = 1
name = "own"
question = "Did all checks pass?"
items = ["{item}"]
"""


def own(folder: Path, item: str = "proofs.passed") -> str:
    path = folder / "own.toml"
    path.write_text(OWN.format(item=item), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", SAID)
def test_a_record_is_information_for_the_package_and_decides_where_it_is_asked_for(
    name: str, bundle: Bundle, tmp_path: Path
) -> None:
    value, outcome, code = SAID[name]
    name_record(bundle, value)
    status, items = items_of(bundle)
    assert status == 0, "no policy of the package asks for it"
    assert items["checker.agrees"].code == "CHECKER_AGREES"
    for text in ("as run by whoever issued", "not run again here", "certify 0.1.0, fast, seed 3"):
        assert text in items["proofs.record"].text
    assert ("FAILED" in items["proofs.record"].text) == (outcome is Outcome.FAIL)
    assert (items["proofs.record"].outcome, items["proofs.record"].code) == (Outcome.PASS, "PROOFS_READ")
    assert (items["proofs.passed"].outcome, items["proofs.passed"].code) == (outcome, code)
    assert items_of(bundle, own(tmp_path))[0] == STATUS[outcome]
    assert items_of(bundle, own(tmp_path, "proofs.record"))[0] == 0


@pytest.mark.parametrize("item", ["proofs.passed", "proofs.record"])
def test_a_policy_that_asks_denies_without_a_record_or_certificate(
    item: str, bundle: Bundle, tmp_path: Path
) -> None:
    assert not {"proofs.record", "proofs.passed"} & items_of(bundle)[1].keys(), "nobody asks"
    policy = own(tmp_path, item)
    status, items = items_of(bundle, policy)
    assert (status, items["proofs.record"].code) == (3, "NO_PROOFS")
    assert items["proofs.record"].remedy is not None
    bundle.certificate.unlink()
    status, items = items_of(bundle, policy)
    assert (status, items[item].outcome) == (3, Outcome.NOT_RUN)


def test_no_policy_of_the_package_asks_for_it() -> None:
    for policy in POLICIES.values():
        assert not any(name.startswith("proofs.") for name in policy.requires)


def _gone(bundle: Bundle) -> None:
    (bundle.folder / "prove.json").unlink()


def _other(bundle: Bundle) -> None:
    write(bundle.folder / "prove.json", record(seed=4))


def _restated(**fields: Json) -> Callable[[Bundle], None]:
    return lambda bundle: bundle.edit_certificate(lambda value: value["proofs"].update(fields))


FAULTS: dict[str, tuple[Callable[[Bundle], None], Outcome, str]] = {
    "gone": (_gone, Outcome.MISSING, "FILE_MISSING"),
    "another file": (_other, Outcome.INVALID, "PROOFS_DIGEST"),
    "another version": (_restated(version="9.9"), Outcome.INVALID, "PROOFS_DIFFER"),
    "another tier": (_restated(tier="full"), Outcome.INVALID, "PROOFS_DIFFER"),
    "another seed": (_restated(seed=0), Outcome.INVALID, "PROOFS_DIFFER"),
    "called partial": (_restated(partial=True), Outcome.INVALID, "PROOFS_DIFFER"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_with_a_record_denies_wherever_the_certificate_counts(
    fault: str, bundle: Bundle, tmp_path: Path
) -> None:
    name_record(bundle, record())
    act, outcome, code = FAULTS[fault]
    act(bundle)
    wanted = 3 if outcome is Outcome.MISSING else 4
    for policy in ("release", own(tmp_path), own(tmp_path, "proofs.record")):
        status, items = items_of(bundle, policy)
        assert (items["proofs.record"].outcome, items["proofs.record"].code) == (outcome, code)
        assert items["proofs.passed"].outcome is Outcome.NOT_RUN
        # Where nothing but proofs.passed is asked for, it was not shown.
        assert status == wanted or (policy.endswith(".toml") and status == 3)
        if not policy.endswith(".toml"):
            assert (items["certificate.content"].outcome, items["certificate.content"].code) == (
                outcome,
                code,
            )
            assert items["checker.agrees"].code == "CHECKER_AGREES"
    assert items_of(bundle, "selection")[0] == 0, "no certificate is read"


@settings(max_examples=examples(10), suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_gate_and_checker_agree_on_damaged_statements(
    pristine: Bundle, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    bundle = pristine.copy(tmp_path_factory.mktemp("damaged") / "bundle")
    name_record(bundle, record(data.draw(st.sampled_from(OUTCOMES)), tails=None))
    stated = json.loads(bundle.certificate.read_bytes())["proofs"]
    try:
        damaged = data.draw(damages(stated)).apply(stated)
        bundle.edit_certificate(lambda value: value.update(proofs=damaged))
    except UnicodeEncodeError:
        return
    status, items = items_of(bundle)
    assert items["checker.agrees"].outcome is not Outcome.ERROR, items["checker.agrees"].text
    assert (status == 0) == (damaged == stated)


def test_the_checker_alone_verifies_digest_and_restated_figures(bundle: Bundle) -> None:
    name_record(bundle, record("failed", "timeout", "not run"))
    (verdicts,) = checker.verify(bundle.folder).values()
    assert {status for status, _ in verdicts.values()} == {"CERTIFIED"}
    bundle.edit_certificate(lambda value: value["proofs"]["clauses"][0].update(outcome="passed"))
    (verdicts,) = checker.verify(bundle.folder).values()
    assert verdicts["release"] == ("INVALID", ("PROOFS_DIFFER",))
    _gone(bundle)
    (verdicts,) = checker.verify(bundle.folder).values()
    assert verdicts["release"] == ("INCONCLUSIVE", ("FILE_MISSING",))


# --- what people see ---------------------------------------------------------------------------------------


def test_the_reports_show_it(bundle: Bundle, capsys: Capture) -> None:
    value = record("failed", "not run")
    name_record(bundle, value)
    words: list[object] = ["check", "--ticket", bundle.path]
    data = json.loads(in_process([*words, "--format", "json"], capsys).out)
    shown = data["tickets"][0]["certificate"]["proofs"]
    assert shown.pop("record") == value
    assert shown == json.loads(bundle.certificate.read_bytes())["proofs"]
    short, long = (in_process([*words, *more], capsys).out for more in ([], ["--verbose"]))
    for text in (short, long):
        assert "Checks of the theory, as run by whoever issued (not run again here)" in text
        assert "FAILED exact.strings: why it is failed" in text
        assert "x = 1/3" in text
        assert "NOT RUN smt.labels" in text
        assert text.index("PROOFS_FAILED") < text.index("proofs.record"), "what is no pass comes first"
        assert max(map(len, text.replace(f"{bundle.path}", "").splitlines())) < 200
    assert "what exact.strings says" not in short
    assert "what exact.strings says ← A-LAW, A-ONE" in " ".join(long.split())
    (bundle.folder / "prove.json").unlink()
    data = json.loads(in_process([*words, "--format", "json"], capsys).out)
    assert data["tickets"][0]["certificate"]["proofs"]["record"] is None


def test_without_a_record_nothing_is_said(pristine: Bundle, capsys: Capture) -> None:
    ran = in_process(["check", "--ticket", pristine.path, "--format", "json"], capsys)
    assert json.loads(ran.out)["tickets"][0]["certificate"]["proofs"] is None
    assert "theory" not in in_process(["check", "--ticket", pristine.path], capsys).out.replace("theorem", "")


def test_every_code_of_a_record_is_explained() -> None:
    for _, _, code in (*SAID.values(), *FAULTS.values()):
        assert code in codes()
    with pytest.raises(CertifyError):
        parse_record({})
