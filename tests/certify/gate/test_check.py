"""The gate as a function: policies, inputs that do not travel, several tickets, and the real tables."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from evidence_folders import TICKET_ARM, Bundle, followed, make_bundle, sentences
from real_tables import RealTables
from safetensors.numpy import load_file
from ticket_folders import base_table, edit, make_ticket, rebind, tuned_table, write_json

import certify
import certify.gate.check
import certify.gate.examination
import lottery
from certify.base.errors import InvalidInputError, NothingToDoError, UsageError
from certify.base.verdict import Item, Outcome, Status
from certify.checker import Opinion
from certify.gate.check import CheckReport
from certify.policy.codes import codes
from proofs_checks.worlds import synthetic


def check(path: Path, policy: str = "selection", **options: object) -> CheckReport:
    return certify.check(path, policy=policy, engine="numpy", workers=1, **options)


def items_of(report: CheckReport) -> dict[str, Item]:
    (ticket,) = report.tickets
    return {item.name: item for item in ticket.items}


# --- policies --------------------------------------------------------------------------------------------


def test_release_is_inconclusive_until_there_is_evidence(ticket_path: Path) -> None:
    report = certify.check(ticket_path, engine="numpy")
    (ticket,) = report.tickets
    assert (ticket.status, int(report.exit_code)) == (Status.INCONCLUSIVE, 3)
    missing = {item.name: item for item in ticket.items if item.outcome is Outcome.MISSING}
    assert {name: item.code for name, item in missing.items()} == {"certificate.present": "NO_CERTIFICATE"}
    assert all(codes()[item.code].remedy for item in missing.values())
    waiting = {item.name for item in ticket.items if item.outcome is Outcome.NOT_RUN}
    assert {"evidence.integrity", "claim.gain.base.declared"} <= waiting


def test_no_claim_in_the_ticket_stands_for_evidence(ticket_path: Path) -> None:
    edit(ticket_path, lambda t: t.update(evidence=[{"path": "evidence.json", "sha256": "0" * 64}]))
    edit(ticket_path, lambda t: t.update(certificate={"path": "certificate.json", "sha256": None}))
    assert int(certify.check(ticket_path, engine="numpy").exit_code) == 3


def test_a_refuted_selection_is_refuted_for_release_too(ticket_path: Path) -> None:
    edit(ticket_path, lambda t: t["tokens"][0].update(h=1))
    assert int(certify.check(ticket_path, engine="numpy").exit_code) == 1


def test_an_empty_ticket_is_denied_under_both_policies(tmp_path: Path) -> None:
    path = make_ticket(tmp_path, tuned=base_table())
    assert int(check(path).exit_code) == 3
    assert int(certify.check(path, engine="numpy").exit_code) == 3


def test_what_is_not_there_is_named_as_ticket_and_manifest_name_it(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    bundle.translated.with_name("translated.records.jsonl").unlink()
    said = items_of(check(bundle.path, "release"))["evidence.integrity"]
    expected = "neither translated.records.jsonl nor translated.records.jsonl.xz is there"
    assert (said.code, said.text) == ("FILE_MISSING", f"evidence/translated.json: {expected}")
    edit(bundle.path, lambda t: t.update(certificate={"path": "certificates/a.json", "sha256": None}))
    said = items_of(check(bundle.path, "release"))["certificate.present"]
    assert (said.code, said.text) == ("FILE_MISSING", "the certificate certificates/a.json is not there")


def test_a_file_without_tickets_has_nothing_to_check(tmp_path: Path) -> None:
    path = write_json(
        tmp_path / "t.json",
        {"schema": "certify.tickets", "schema_version": 1, "created_by": "x", "tickets": []},
    )
    with pytest.raises(NothingToDoError) as caught:
        check(path)
    assert int(caught.value.exit_code) == 5


def test_every_ticket_reports_every_check_once(ticket_path: Path) -> None:
    for path in (ticket_path, ticket_path.with_name("broken.json")):
        if not path.exists():
            shutil.copy(ticket_path, path)
            edit(path, lambda t: t["base"].update(tensor_sha256="0" * 64))
        (ticket,) = check(path, "release").tickets
        names = [item.name for item in ticket.items]
        assert len(set(names)) == len(names)
        assert set(certify.gate.check.get_policy("release").requires) <= set(names)
        assert "checker.agrees" in names
        assert "premise.published" in names


# --- inputs that the caller names ------------------------------------------------------------------------


@pytest.fixture
def bare_ticket(tmp_path: Path) -> Path:
    """A ticket whose tables and tokenizer lie elsewhere (``sources`` beside the ticket's folder)."""
    return make_ticket(tmp_path, bundle=False)


def test_missing_inputs_are_inconclusive_and_named(bare_ticket: Path) -> None:
    report = check(bare_ticket)
    items = items_of(report)
    assert int(report.exit_code) == 3
    for name, option in (("base", "--base"), ("reference", "--reference"), ("tokenizer", "--tokenizer")):
        item = items[f"integrity.{name}"]
        assert item.outcome is Outcome.MISSING
        assert item.remedy is not None
        assert option in item.remedy


def test_the_right_tables_certify_wherever_they_lie(bare_ticket: Path) -> None:
    sources = bare_ticket.parent.parent / "sources"
    given = {"base": sources / "checkpoint", "reference": sources / "tuned.safetensors"}
    assert int(check(bare_ticket, **given).exit_code) == 3
    given["tokenizer"] = sources / "checkpoint" / "tokenizer.json"
    assert int(check(bare_ticket, **given).exit_code) == 0
    given["base"] = sources / "checkpoint" / "model.safetensors"
    assert int(check(bare_ticket, **given).exit_code) == 0


def test_the_wrong_table_is_invalid_however_it_is_named(bare_ticket: Path, ticket_path: Path) -> None:
    sources = bare_ticket.parent.parent / "sources"
    given = {"base": sources / "checkpoint", "tokenizer": sources / "checkpoint"}
    report = check(bare_ticket, reference=sources / "checkpoint", **given)
    assert (int(report.exit_code), items_of(report)["integrity.reference"].code) == (4, "WRONG_REFERENCE")
    # What the caller names is used even where the ticket carries its own.
    report = check(ticket_path, base=sources / "tuned.safetensors")
    assert (int(report.exit_code), items_of(report)["integrity.base"].code) == (4, "WRONG_BASE")
    assert int(check(ticket_path, base=sources / "checkpoint").exit_code) == 0


def test_tables_stored_in_another_dtype_are_seen_through_the_cast(tmp_path: Path) -> None:
    wide = tuned_table().astype(np.float32) + np.float32(1e-7)
    path = make_ticket(tmp_path, base=base_table().astype(np.float32), tuned=wide, bundle=False, dtype="BF16")
    sources = tmp_path / "sources"
    given = {"base": sources / "checkpoint", "reference": sources / "tuned.safetensors"}
    assert int(check(path, tokenizer=sources / "checkpoint", **given).exit_code) == 0


@pytest.mark.parametrize("option", ["base", "reference", "tokenizer"])
def test_a_path_that_does_not_exist_is_a_usage_error(ticket_path: Path, option: str) -> None:
    with pytest.raises(UsageError, match=f"--{option}"):
        check(ticket_path, **{option: ticket_path.parent / "none"})


def test_an_unknown_policy_is_a_usage_error_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no policy"):
        check(tmp_path / "none.json", policy="stricter")


# --- several tickets -------------------------------------------------------------------------------------


def _several(root: Path) -> Path:
    """One file with four tickets: good, refuted, vacuous and invalid."""
    path = make_ticket(root, ticket_id="good")
    for name in ("refuted", "invalid"):
        make_ticket(root, ticket_id=name)
    make_ticket(root, ticket_id="vacuous", exclude=(5, 9, 17, 33, 40))
    content = json.loads(path.read_text(encoding="utf-8"))
    by_id = {ticket["id"]: ticket for ticket in content["tickets"]}
    by_id["refuted"]["tokens"][0]["h"] -= 1
    by_id["invalid"]["released"]["rows"]["served_sha256"] = "0" * 64
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_the_gravest_ticket_decides(tmp_path: Path) -> None:
    path = _several(tmp_path)
    report = check(path)
    assert {t.ticket.id: t.status.value for t in report.tickets} == {
        "good": "CERTIFIED",
        "refuted": "REFUTED",
        "vacuous": "VACUOUS",
        "invalid": "INVALID",
    }
    assert int(report.exit_code) == 4
    for names, code in {
        ("good",): 0,
        ("good", "vacuous"): 3,
        ("good", "vacuous", "refuted"): 1,
        ("invalid", "refuted"): 4,
    }.items():
        assert int(check(path, ids=names).exit_code) == code, names


def test_an_unknown_ticket_is_refused(ticket_path: Path) -> None:
    with pytest.raises((UsageError, InvalidInputError), match="no ticket 'zz'"):
        check(ticket_path, ids=["zz"])


def test_a_second_find_keeps_the_first_ticket(tmp_path: Path) -> None:
    path = make_ticket(tmp_path, ticket_id="one")
    make_ticket(tmp_path, ticket_id="two", alpha="0.5")
    report = check(path)
    assert [t.ticket.id for t in report.tickets] == ["one", "two"]
    assert int(report.exit_code) == 0


def _distance(a: np.ndarray, b: np.ndarray) -> int:
    pooled = np.concatenate((a, b))
    return int(np.abs(a.searchsorted(pooled, "right") - b.searchsorted(pooled, "right")).max())


# --- certificate and evidence ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle"))


def test_a_certificate_elsewhere_can_be_named(pristine: Bundle, tmp_path: Path) -> None:
    bundle = pristine.copy(tmp_path / "bundle")
    elsewhere = bundle.certificate.rename(tmp_path / "elsewhere.json")
    report = check(bundle.path, "release", certificate=elsewhere)
    assert int(report.exit_code) == 0
    assert items_of(report)["checker.agrees"].code == "CHECKER_AGREES"
    assert int(check(bundle.path, "release").exit_code) == 3
    with pytest.raises(UsageError, match="--certificate"):
        check(bundle.path, "release", certificate=tmp_path / "none.json")


def test_one_certificate_for_several_tickets_is_a_usage_error(tmp_path: Path) -> None:
    path = make_ticket(tmp_path, ticket_id="one")
    make_ticket(tmp_path, ticket_id="two", alpha="0.5")
    with pytest.raises(UsageError, match="--id"):
        check(path, certificate=path)


def test_a_policy_of_ones_own_decides_on_named_texts(pristine: Bundle, tmp_path: Path) -> None:
    shipped = (Path(certify.gate.check.__file__).parents[1] / "policy" / "release.toml").read_text(
        encoding="utf-8"
    )
    own = tmp_path / "own.toml"
    for texts, code in (("synthetic", 0), ("newstest", 3)):
        text = shipped.replace('name = "release"', 'name = "own"').replace(
            'above = "0"', f'above = "0"\ntexts = ["{texts}"]'
        )
        own.write_text(text, encoding="utf-8")
        report = check(pristine.path, str(own))
        assert int(report.exit_code) == code
        assert items_of(report)["checker.agrees"].code == "CHECKER_AGREES"
    assert items_of(report)["claim.gain.base.declared"].code == "NO_TEXT"


def other_text(bundle: Bundle, better: int) -> Path:
    """Evidence on a second text, of other sentences, under the name ``second``."""
    records = sentences(bundle.names, 90, **{TICKET_ARM: better})
    for number, record in enumerate(records):
        record |= {"source": f"{number:016x}", "target": f"{number + 500:016x}"}
    fields = json.loads(bundle.translated.read_text(encoding="utf-8"))
    return synthetic.write(
        bundle.translated.parent,
        list(map(followed, records)),
        bundle.arms,
        used=bundle.used,
        name="second",
        margins={TICKET_ARM: bundle.margin},
        **{key: fields[key] for key in ("base", "reference", "tokenizer_sha256")},
        template={key: bundle.ticket()["template"][key] for key in ("name", "sha256")},
        text=fields["text"] | {"name": "second"} | synthetic.text_of(records),
    )


def test_a_pinned_text_is_the_one_that_claims_are_asked_on(pristine: Bundle, tmp_path: Path) -> None:
    """Beside it no other text is accepted, and it does not count under another template."""
    shipped = (Path(certify.gate.check.__file__).parents[1] / "policy" / "release.toml").read_text("utf-8")
    digest = json.loads(pristine.translated.read_text(encoding="utf-8"))["text"]["sha256"]
    own = tmp_path / "own.toml"
    pin = f'[texts]\nsynthetic = "{digest}"\n\n[[claim]]'
    own.write_text(shipped.replace('"release"', '"own"').replace("[[claim]]", pin, 1), encoding="utf-8")

    def decided(bundle: Bundle) -> tuple[int, str]:
        report = check(bundle.path, str(own))
        assert items_of(report)["checker.agrees"].code == "CHECKER_AGREES"
        return int(report.exit_code), items_of(report)["evidence.texts"].code

    assert decided(pristine) == (0, "DIGEST_MATCHES")
    bundle = pristine.copy(tmp_path / "bundle")
    bundle.issue([*bundle.write_evidence(), other_text(bundle, 18)])
    assert decided(bundle) == (1, "TEXT_DIFFERS")
    bundle.fields["template"] = {"name": "another", "sha256": synthetic.digest("another")}
    bundle.issue([*bundle.write_evidence(), other_text(bundle, 18)])
    assert decided(bundle) == (1, "TEXT_DIFFERS")
    bundle.issue(bundle.write_evidence())
    assert decided(bundle) == (3, "NO_TEXT")


def test_every_text_must_show_it_at_its_share_of_the_error_probability(
    pristine: Bundle, tmp_path: Path
) -> None:
    bundle = pristine.copy(tmp_path / "bundle")
    paths = bundle.write_evidence()
    # A second text of other sentences: as good, then worse than the base.
    for better, status in ((18, "CERTIFIED"), (2, "REFUTED")):
        second = other_text(bundle, better)
        bundle.issue([*paths, second])
        certificate = json.loads(bundle.certificate.read_bytes())
        shares = {(one["text"], one["role"]): one["delta"] for one in certificate["evidence"]}
        alone = {("unrelated", "loss"): "1/20", ("synthetic", "other-template"): "1/20"}
        assert (
            shares
            == dict.fromkeys([(name, "evaluation") for name in ("synthetic", "second")], "1/40") | alone
        )
        assert {claim["delta"] for claim in certificate["claims"] if claim["kind"] == "gain"} == {"1/40"}
        report = check(bundle.path, "release")
        assert report.tickets[0].status.value == status
        item = items_of(report)["claim.gain.base.declared"]
        assert "synthetic: " in item.text
        assert "second: " in item.text


def test_tickets_that_share_evidence_read_it_once(
    pristine: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = pristine.copy(tmp_path / "bundle")
    content = json.loads(bundle.path.read_text(encoding="utf-8"))
    read: list[Path] = []
    load = certify.gate.examination.load
    monkeypatch.setattr(certify.gate.examination, "load", lambda path: read.append(path) or load(path))
    assert int(check(bundle.path, "strict").exit_code) == 0
    assert len(read) == 3
    twin = json.loads(json.dumps(content["tickets"][0])) | {"id": "twin"}
    bundle.path.write_text(json.dumps(content | {"tickets": [*content["tickets"], twin]}), encoding="utf-8")
    # The twin's certificate is the other's: what is refused early reads nothing.
    assert int(check(bundle.path, "strict").exit_code) == 4
    assert len(read) == 6


# --- the independent checker -----------------------------------------------------------------------------

CERTIFIED = Opinion("CERTIFIED", ())


@pytest.mark.parametrize(("policy", "says"), [("selection", "REFUTED"), ("strict", "INCONCLUSIVE")])
def test_a_checker_that_differs_closes_the_gate(
    pristine: Bundle, monkeypatch: pytest.MonkeyPatch, policy: str, says: str
) -> None:
    monkeypatch.setattr(
        "certify.checker.verify",
        lambda *_, **__: {"tiny": {policy: Opinion(says, ("SOME_REASON",))}},
        raising=True,
    )
    report = check(pristine.path, policy)
    item = items_of(report)["checker.agrees"]
    assert (int(report.exit_code), item.code, item.outcome) == (70, "CHECKER_DIFFERS", Outcome.ERROR)
    assert says in item.text
    assert "SOME_REASON" in item.text


def test_a_checker_that_certifies_what_is_refused_closes_the_gate(
    ticket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(ticket_path, lambda t: t["tokens"][0].update(h=1))
    monkeypatch.setattr(
        "certify.checker.verify", lambda *_, **__: {"tiny": {"selection": Opinion("CERTIFIED", ())}}
    )
    assert int(check(ticket_path).exit_code) == 70


@pytest.mark.parametrize("found", [{}, {"other": {"selection": CERTIFIED}}, KeyError("broken"), None])
def test_a_checker_that_breaks_confirms_nothing(
    ticket_path: Path, monkeypatch: pytest.MonkeyPatch, found: object
) -> None:
    def verify(*_: object, **__: object) -> object:
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr("certify.checker.verify", verify)
    report = check(ticket_path)
    assert (int(report.exit_code), items_of(report)["checker.agrees"].code) == (70, "CHECKER_DIFFERS")


def test_what_is_refused_stays_refused_whatever_the_checker_reads(
    ticket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(ticket_path, lambda t: t["released"]["rows"].update(served_sha256="0" * 64))
    for status, code in (("INVALID", "CHECKER_AGREES"), ("CERTIFIED", "CHECKER_NOT_RUN")):
        found = {"tiny": {"selection": Opinion(status, ())}}
        monkeypatch.setattr("certify.checker.verify", lambda *_, found=found, **__: found)
        report = check(ticket_path)
        assert (int(report.exit_code), items_of(report)["checker.agrees"].code) == (4, code)


def test_what_the_checker_takes_from_this_program_is_named(pristine: Bundle, tmp_path: Path) -> None:
    whole = ("integrity.base", "integrity.reference", "selection.parameters", "selection.ids")
    text = items_of(check(pristine.path, "release"))["checker.agrees"].text
    assert all(name in text for name in whole)
    assert "selection.figures" not in text, "the ticket's own rows are derived again"
    bundle = pristine.copy(tmp_path / "moved")
    elsewhere = tmp_path / "elsewhere.safetensors"
    shutil.copy(bundle.folder / "base" / "embed_tokens.safetensors", elsewhere)
    item = items_of(check(bundle.path, "release", base=elsewhere))["checker.agrees"]
    assert (item.code, "selection.figures" in item.text) == ("CHECKER_AGREES", True)


def test_a_policy_can_require_that_the_checker_agrees(
    pristine: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(certify.gate.check.__file__).parents[1] / "policy"
    text = (
        (folder / "selection.toml").read_text(encoding="utf-8").replace('name = "selection"', 'name = "own"')
    )
    own = tmp_path / "own.toml"
    own.write_text(text.replace("items = [", 'items = [\n    "checker.agrees",'), encoding="utf-8")
    assert int(check(pristine.path, str(own)).exit_code) == 0
    monkeypatch.setattr("certify.checker.verify", lambda *_, **__: {})
    assert int(check(pristine.path, str(own)).exit_code) == 70


# --- real tables -----------------------------------------------------------------------------------------


def test_real_tables_from_find_to_verdict(real_tables: RealTables, tmp_path: Path) -> None:
    out = tmp_path / "ticket" / "tickets.json"
    reference = real_tables.reference / "embed_tokens.safetensors"
    found = lottery.find(real_tables.base, reference, out=out, ticket_id="en-ca", engine="numpy")
    assert found.selection.h_alpha == 31, "with 256 samples the test rejects from h = 31 on"
    assert 0 < len(found.ticket.ids) < 5321
    report = check(out, base=real_tables.base, reference=reference, tokenizer=real_tables.base)
    assert int(report.exit_code) == 0
    result = report.tickets[0].result
    assert result is not None
    before = np.sort(load_file(real_tables.base / "model.safetensors")["model.embed_tokens.weight"], axis=1)
    (after,) = (np.sort(table, axis=1) for table in load_file(reference).values())
    assert int((~result.equal).sum()) == 5321
    # An oracle for the selection: distribution functions compared at every pooled value.
    expected = [i for i in range(3, 8000) if _distance(before[i], after[i]) >= 31]
    assert list(found.ticket.ids) == expected
    # The same ticket with one id less is refuted.
    edit(out, lambda t: t["tokens"].pop(0))
    assert int(
        check(out, base=real_tables.base, reference=reference, tokenizer=real_tables.base).exit_code
    ) in {1, 4}


def test_rebinding_an_honest_ticket_changes_nothing(ticket_path: Path) -> None:
    # The adversary's tool itself must be right, or the planted faults prove nothing.
    before = json.loads(ticket_path.read_text(encoding="utf-8"))
    rebind(ticket_path)
    assert json.loads(ticket_path.read_text(encoding="utf-8")) == before


def test_a_report_is_short_to_look_at_and_plain_data(ticket_path: Path) -> None:
    report = check(ticket_path, policy="paper")
    (one,) = report.tickets
    assert repr(report) == f"CheckReport({ticket_path}, paper; {one.ticket.id}: {one.status.value})"
    data = report.to_dict()
    assert json.loads(json.dumps(data)) == data
    assert (data["exit_code"], data["tickets"][0]["digest"]) == (int(report.exit_code), one.digest)
    items = data["tickets"][0]["items"]
    assert [(item["name"], item["code"]) for item in items] == [(item.name, item.code) for item in one.items]
