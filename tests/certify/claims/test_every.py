"""Evidence and ticket belong together or are refused: planted faults, disjointness, routing."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from claims_world import evidence_of, subject_of
from evidence_truth import Truth, worlds
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from profiles import examples

from certify.base.errors import InvalidInputError
from certify.claims.claim import Claim, Finding
from certify.claims.every import check_splits, choices, report
from certify.evidence.choice_record import ChoiceRecord
from certify.evidence.load import Evidence, load
from certify.evidence.read import LossRecord
from certify.evidence.split import check_split
from proofs_checks.worlds.synthetic import arm, digest, null_arms, plain_arms, ticket, window, write

SUBJECT = subject_of({20: 1})
OTHER = digest("something else")


def world(units: int = 6, **truth: Any) -> tuple[list[Any], list[Any]]:
    return Truth(**truth).world(11, units, [*plain_arms(), *null_arms()])


def by_name(claims: tuple[Claim, ...]) -> dict[str, Claim]:
    return {claim.name: claim for claim in claims}


# --- what an evidence supports -----------------------------------------------------------------------------


def test_translations_loss_and_paraphrases_support_different_claims() -> None:
    records, arms = world()
    main = evidence_of(records, arms, used={"tuning": []})
    paraphrase = evidence_of(
        world(7)[0], arms, used={"tuning": []}, template={"name": "reworded", "sha256": OTHER}
    )
    windows = [window(i, {"base": 9, "t": 9}) for i in range(3)]
    loss = evidence_of(windows, [plain_arms()[0], plain_arms()[2]], used={"tuning": []})
    found = report([main, paraphrase, loss], SUBJECT)
    names = [{claim.kind for claim in one.claims} for one in found]
    assert names[0] >= {"agreement-rate", "token-agreement", "guarantee", "gain", "non-inferiority"}
    assert names[0] >= {"better-than-nulls", "termination", "opportunity", "non-interference", "data-split"}
    assert names[1] == {"data-split", "template-agreement", "template-gain"}
    assert names[2] == {"data-split", "unrelated-loss", "unrelated-excess"}
    assert {claim.comparator for claim in found[1].claims} == {None, "reference", "base"}
    assert [one.sha256 for one in found] == [main.sha256, paraphrase.sha256, loss.sha256]


def test_a_paraphrase_never_answers_for_the_template_of_the_ticket() -> None:
    records, arms = world()
    (found,) = report([evidence_of(records, arms, template={"name": "explicit", "sha256": OTHER})], SUBJECT)
    assert not {"agreement-rate", "gain", "guarantee"} & {claim.kind for claim in found.claims}


def test_delta_reaches_every_limit() -> None:
    records, arms = world(40, disagreement=0.1)
    evidence = evidence_of(records, arms, used={"tuning": []})
    loose, tight = (
        by_name(report([evidence], SUBJECT, delta=Fraction(1, delta))[0].claims) for delta in (10, 1000)
    )
    for name, claim in loose.items():
        if claim.lower is not None:
            other = tight[name].lower
            assert other is not None
            assert other < claim.lower or claim.lower == 0, name
            assert f"delta:{claim.delta}" in claim.signature


# --- evidence about something else -------------------------------------------------------------------------

BASE = {"tensor_sha256": OTHER, "model_sha256": digest("model")}


def another_base(fields: dict[str, Any]) -> None:
    fields["base"] = BASE
    fields["arms"] = [
        arms | ({"table_sha256": OTHER} if arms["name"] == "base" else {}) for arms in plain_arms()
    ]


def another_reference(fields: dict[str, Any]) -> None:
    fields["reference"] = {"tensor_sha256": OTHER}
    fields["arms"] = [
        arms | ({"table_sha256": OTHER} if arms["name"] == "reference" else {}) for arms in plain_arms()
    ]


def ids_beyond(fields: dict[str, Any]) -> None:
    fields["arms"] = [*plain_arms()[:2], plain_arms()[2] | {"ids": [1000]}]


BINDING: dict[str, Callable[[dict[str, Any]], None]] = {
    "EVIDENCE_BASE": another_base,
    "EVIDENCE_REFERENCE": another_reference,
    "EVIDENCE_TOKENIZER": lambda fields: fields.update(tokenizer_sha256=OTHER),
    "EVIDENCE_IDS": ids_beyond,
}


@pytest.mark.parametrize("code", BINDING)
def test_evidence_of_another_model_is_refused(code: str) -> None:
    fields: dict[str, Any] = {}
    BINDING[code](fields)
    records, _ = Truth().world(0, 4)
    with pytest.raises(InvalidInputError) as caught:
        report([evidence_of(records, fields.pop("arms", None), **fields)], SUBJECT)
    assert caught.value.code == code


def test_two_models_around_one_table_are_refused() -> None:
    one = evidence_of(Truth().world(0, 4)[0])
    base = {"tensor_sha256": ticket()["base"]["tensor_sha256"], "model_sha256": OTHER}
    two = evidence_of(Truth().world(1, 4)[0], base=base)
    with pytest.raises(InvalidInputError) as caught:
        report([one, two], SUBJECT)
    assert caught.value.code == "EVIDENCE_MODEL"


def test_evidence_counts_once() -> None:
    one = evidence_of(Truth().world(0, 4)[0])
    with pytest.raises(InvalidInputError) as caught:
        report([one, one], SUBJECT)
    assert caught.value.code == "EVIDENCE_TWICE"


def test_two_arms_that_both_are_the_ticket_are_refused() -> None:
    arms = [*plain_arms(), plain_arms()[2] | {"name": "again"}]
    records, arms = Truth().world(0, 4, arms)
    with pytest.raises(InvalidInputError) as caught:
        report([evidence_of(records, arms)], SUBJECT)
    assert caught.value.code == "EVIDENCE_ARMS"


def test_a_null_that_holds_the_same_rows_is_not_taken_for_the_ticket() -> None:
    same = plain_arms()[2] | {"name": "null", "control": "top-norm", "of": "t"}
    records, arms = Truth(quality={"t": 90.0, "null": 10.0}).world(0, 30, [*plain_arms(), same])
    found = by_name(report([evidence_of(records, arms)], SUBJECT)[0].claims)
    gain = found["gain:base:whole"].lower
    assert gain is not None
    assert gain > 0


def test_tickets_on_a_text_are_choices_whatever_they_are_called() -> None:
    """A null is no choice if it is one of this ticket, or of another with as many rows."""
    first, ours = plain_arms()[1:3]
    size = len(ours["ids"])

    def paid(*arms: dict[str, Any], listed: Sequence[Sequence[int]] = ()) -> int:
        records, made = Truth().world(0, 2, [*plain_arms(), *arms])
        record = None
        if listed:
            candidates = [{"arm": "x", "ids": list(ids)} for ids in listed]
            record = ChoiceRecord.model_validate(
                {"candidates": candidates, "chosen": "x", "sentences": ["0" * 16]}, strict=False
            )
        return choices(evidence_of(records, made), replace(SUBJECT, choice=record))

    def rows(name: str, ids: Sequence[int], **fields: Any) -> dict[str, Any]:
        return ours | {"name": name, "ids": list(ids), "table_sha256": digest(name)} | fields

    rivals = [rows(f"r{k}.transfer", range(10, 11 + k)) for k in range(3)]
    assert first["kind"] == "reference"
    assert paid() == 1
    assert paid(*rivals) == 4
    label = {"control": "top-frequency", "of": SUBJECT.ticket.id}
    assert paid(rows("null", range(10, 10 + size), **label)) == 1
    for hidden in ({"of": "ghost"}, {"of": None}, {"of": "r2"}):
        assert paid(*(one | label | hidden for one in rivals[:2]), rivals[2]) == 4
    assert paid(rows("null", range(20, 23), **label | {"of": "r2"}), *rivals) == 4
    assert paid(rows("null", [3], **label | {"of": "r2", "control": "one-row:newline"}), *rivals) == 4
    assert paid(*rivals, listed=[ours["ids"]]) == 4, "a record excuses those that it lists"
    assert paid(*rivals, listed=[ours["ids"], rivals[0]["ids"]]) == 3


def test_a_ticket_without_tokenizer_or_template_takes_what_the_evidence_says() -> None:
    records, _ = Truth().world(0, 4)
    (found,) = report([evidence_of(records)], subject_of(tokenizer=None, template=None))
    assert "agreement-rate" in {claim.kind for claim in found.claims}


# --- disjoint data -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["tuning", "scan", "choice", "order"])
@pytest.mark.parametrize("side", ["source", "target"])
def test_a_sentence_that_was_used_before_is_found(role: str, side: str) -> None:
    records, _ = Truth().world(0, 9)
    used = {"tuning": [], role: [digest("nothing")[:16], records[4][side]]}
    with pytest.raises(InvalidInputError, match="the first is text:4") as caught:
        report([evidence_of(records, used=used)], SUBJECT)
    assert caught.value.code == "DATA_OVERLAP"


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_sentence_that_occurs_twice_is_found(side: str) -> None:
    records, _ = Truth().world(0, 9)
    records[7][side] = records[2][side]
    with pytest.raises(InvalidInputError, match="text:2 and text:7") as caught:
        report([evidence_of(records, used={"tuning": []})], SUBJECT)
    assert caught.value.code == "EVALUATION_DUPLICATES"


def test_a_duplicated_record_under_another_id_is_found() -> None:
    """Sixty clean sentences from one."""
    records, _ = Truth().world(0, 1)
    copies = [{**records[0], "id": f"text:{i}", "unit": str(i)} for i in range(60)]
    with pytest.raises(InvalidInputError) as caught:
        report([evidence_of(copies)], SUBJECT)
    assert caught.value.code == "EVALUATION_DUPLICATES"


def test_a_source_that_equals_another_target_is_no_duplicate() -> None:
    records, _ = Truth().world(0, 3)
    records[0]["target"] = records[1]["source"]
    assert check_split(evidence_of(records).sentences, {"tuning": frozenset({"0" * 16})}) is not None


def test_pretraining_is_counted_not_refused_and_silence_is_no_proof() -> None:
    records, _ = Truth().world(0, 5)
    found = check_split(
        evidence_of(records).sentences,
        {
            "tuning": frozenset({"0" * 16}),
            "pretraining": frozenset({records[0]["source"], records[0]["target"]}),
        },
    )
    assert found is not None
    assert found.pretraining == 1
    for silent in ({"scan": frozenset({"0" * 16})}, {"tuning": frozenset[str]()}, {}):
        assert check_split(evidence_of(records).sentences, silent) is None
    claims = by_name(report([evidence_of(records)], SUBJECT)[0].claims)
    assert (claims["data-split"].finding, claims["data-split"].code) == (Finding.MISSING, "USED_NOT_LISTED")


@settings(max_examples=examples(40))
@given(st.lists(st.integers(0, 9), min_size=1, max_size=6, unique=True), st.sets(st.integers(0, 19)))
def test_disjointness_by_sets(numbers: list[int], banned: set[int]) -> None:
    """Sentence i has source digest of 2 i and target digest of 2 i + 1."""
    records, _ = Truth().world(0, len(numbers))
    for record, number in zip(records, numbers, strict=True):
        record["source"], record["target"] = (digest(str(2 * number + j))[:16] for j in (0, 1))
    used = {"tuning": frozenset({"other", *(digest(str(number))[:16] for number in banned)})}
    shared = {n for n in numbers if {2 * n, 2 * n + 1} & banned}
    if not shared:
        assert check_split(evidence_of(records).sentences, used) is not None
        return
    with pytest.raises(InvalidInputError, match=f"^{len(shared)} of {len(numbers)} "):
        check_split(evidence_of(records).sentences, used)


def losses(units: int = 4, **fields: Any) -> Evidence:
    """Unrelated text: units of two windows cut from the same two lines."""
    records = [
        window(i, {"base": 9, "t": 9}, unit=str(i // 2))
        | {"lines": sorted(digest(f"line {i // 2}.{j}")[:16] for j in range(2))}
        for i in range(2 * units)
    ]
    return evidence_of(records, [plain_arms()[0], plain_arms()[2]], **fields)


@pytest.mark.parametrize("role", ["tuning", "scan", "choice", "order"])
def test_a_line_that_was_used_before_is_found(role: str) -> None:
    used = {"tuning": [digest("nothing")[:16]], role: [digest("line 2.1")[:16]]}
    with pytest.raises(InvalidInputError, match=r"^2 of 8 evaluated windows .* is window:4:") as caught:
        report([losses(used=used)], SUBJECT)
    assert caught.value.code == "DATA_OVERLAP"
    with pytest.raises(InvalidInputError) as caught:
        check_splits([losses(used={"tuning": ["0" * 16]}), evidence_of(world(2)[0], world(2)[1], used=used)])
    assert caught.value.code == "DATA_OVERLAP"


def test_a_line_on_which_the_ticket_was_chosen_is_found() -> None:
    record = ChoiceRecord(candidates=(), chosen=None, sentences=(digest("line 0.0")[:16],))
    chosen = replace(SUBJECT, choice=record)
    with pytest.raises(InvalidInputError, match="used for choice") as caught:
        report([losses(used={"tuning": ["0" * 16]})], chosen)
    assert caught.value.code == "DATA_OVERLAP"


def test_windows_of_a_unit_share_lines_and_units_do_not() -> None:
    good = losses(used={"tuning": ["0" * 16], "pretraining": [digest("line 3.0")[:16]]})
    (claims,) = report([good], SUBJECT)
    claim = by_name(claims.claims)["data-split"]
    assert (claim.finding, claim.n) == (Finding.MEASURED, 8)
    assert claim.detail == {"used": {"pretraining": 1, "tuning": 1}, "seen_in_pretraining": 1}
    assert claim.text.startswith("8 evaluated lines, each in one unit, ")
    last = good.records[-1]
    assert isinstance(last, LossRecord)
    stray = structs.replace(last, lines=tuple(sorted({*last.lines, digest("line 1.0")[:16]})))
    with pytest.raises(InvalidInputError, match=r"^1 lines .* window:2 and window:7") as caught:
        report([replace(good, records=(*good.records[:-1], stray))], SUBJECT)
    assert caught.value.code == "EVALUATION_DUPLICATES"


def test_losses_that_list_nothing_used_show_no_split() -> None:
    for silent in ({"scan": ["0" * 16]}, {"tuning": list[str]()}, None):
        (found,) = report([losses(used=silent)], SUBJECT)
        claim = by_name(found.claims)["data-split"]
        assert (claim.finding, claim.code) == (Finding.MISSING, "USED_NOT_LISTED")


# --- from files --------------------------------------------------------------------------------------------


def test_evidence_is_loaded_from_its_folder(tmp_path: Path) -> None:
    records, arms = world(5)
    path = write(tmp_path, records, arms, used={"tuning": [digest("x")[:16]], "scan": [digest("y")[:16]]})
    evidence = load(path)
    assert evidence.sha256 == digest(path.read_text(encoding="utf-8"))
    assert {role: len(digests) for role, digests in evidence.used.items()} == {"tuning": 1, "scan": 1}
    (found,) = report([evidence], SUBJECT)
    assert all(claim.evidence == (evidence.sha256,) for claim in found.claims)


def test_lists_of_one_role_are_joined(tmp_path: Path) -> None:
    records, arms = world(5)
    path = write(tmp_path, records, arms, used={"tuning": [digest("x")[:16]], "scan": [digest("y")[:16]]})
    value = json.loads(path.read_text(encoding="utf-8"))
    for entry in value["used"]:
        entry["role"] = "tuning"
    path.write_text(json.dumps(value), encoding="utf-8")
    assert load(path).used == {"tuning": {digest("x")[:16], digest("y")[:16]}}


FILE_FAULTS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "a record less": (lambda data: b"".join(data.splitlines(keepends=True)[:-1]), "EVIDENCE_TRUNCATED"),
    "cut within a record": (lambda data: data[:-40], "EVIDENCE_TRUNCATED"),
    "a count edited": (
        lambda data: data.replace(b'"differs":[[1,99]]', b'"differs":[[2,99]]'),
        "EVIDENCE_DIGEST",
    ),
    "a margin that is no number": (
        lambda data: data.replace(b'"p_a":[', b'"p_a":[NaN,', 1),
        "JSON_MALFORMED",
    ),
}


@pytest.mark.parametrize("fault", FILE_FAULTS)
def test_evidence_that_was_tampered_with_is_refused(tmp_path: Path, fault: str) -> None:
    records, arms = world(30, disagreement=0.2)
    path = write(tmp_path, records, arms)
    file = tmp_path / "synthetic.records.jsonl"
    change, code = FILE_FAULTS[fault]
    damaged = change(file.read_bytes())
    assert damaged != file.read_bytes()
    file.write_bytes(damaged)
    with pytest.raises(InvalidInputError) as caught:
        load(path)
    assert caught.value.code == code


def test_kinds_of_evidence_do_not_pass_for_each_other() -> None:
    loss = evidence_of([window(0, {"base": 1, "t": 1})], [plain_arms()[0], plain_arms()[2]])
    with pytest.raises(InvalidInputError, match="no translations"):
        _ = loss.units
    with pytest.raises(InvalidInputError, match="no losses"):
        _ = evidence_of(Truth().world(0, 2)[0]).windows


# --- less evidence never shows more ------------------------------------------------------------------------


def shown(claims: tuple[Claim, ...]) -> set[str]:
    return {claim.name for claim in claims if claim.finding not in (Finding.MISSING, Finding.NOT_APPLICABLE)}


@settings(max_examples=examples(25))
@given(st.sets(st.integers(0, 12)))
def test_fewer_arms_never_support_more_claims(kept: set[int]) -> None:
    records, arms = world(4)
    chosen = [one for number, one in enumerate(arms) if number < 2 or number in kept]
    names = {one["name"] for one in chosen}
    fewer = [
        record | {"arms": {name: one for name, one in record["arms"].items() if name in names}}
        for record in records
    ]
    all_of_them = report([evidence_of(records, arms)], SUBJECT)[0].claims
    some = report([evidence_of(fewer, chosen)], SUBJECT)[0].claims
    assert shown(some) <= shown(all_of_them)
    assert {claim.name for claim in some} == {claim.name for claim in all_of_them}


@settings(max_examples=examples(25))
@given(worlds(), st.data())
def test_a_worse_output_never_raises_a_limit(records: list[Any], data: st.DataObject) -> None:
    before = by_name(report([evidence_of(records)], SUBJECT)[0].claims)
    answer = data.draw(st.sampled_from(records))["arms"]["t"]
    worst = min(answer["stats"], key=lambda vector: vector[-1])
    answer["stats"], answer["rules"] = [[*worst[:-24], *([20, 20, 0] * 8)]], [0, 0, 0]
    after = by_name(report([evidence_of(records)], SUBJECT)[0].claims)
    for name in before:
        one, two = before[name], after[name]
        if one.kind in ("gain", "non-inferiority") and one.estimate is not None and two.estimate is not None:
            assert two.estimate <= one.estimate


def test_the_arm_full_is_recognised_by_its_kind() -> None:
    weights = arm("anything", "full", table_sha256=None, model_sha256=digest("weights"))
    records, arms = Truth().world(0, 5, [*plain_arms(), weights])
    found = by_name(report([evidence_of(records, arms)], SUBJECT)[0].claims)
    assert found["non-inferiority:full:first-line"].finding is Finding.MEASURED
