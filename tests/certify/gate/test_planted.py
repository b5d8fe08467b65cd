"""Tickets that must not pass: each a fault or a fraud planted in a bundle that every policy certifies.

Each plant names the verdict and the reason code that it must be met with, so that it is stopped by the check
that is there for it and not by accident. The adversary has the tools of the package and more: after a change
it makes digests true again (``forge``), or issues a new certificate (``issue``), as far as that helps.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evidence_folders import TICKET_ARM, Bundle, fill, make_bundle, null_arm, own_steps, sentences
from ticket_folders import MOVED, PIECES, base_table, rebind, rewrite_rows, tuned_table

import certify
from certify import checker
from certify.base.errors import InvalidInputError
from certify.checker import units
from certify.claims import criteria
from certify.policy.policy import SHIPPED
from certify.ticket.declared import DeclaredClaim
from certify.ticket.schema import read_ticket_file
from proofs_checks.worlds import synthetic

Json = Any
HALF = 10**9 // 2


@dataclass(frozen=True)
class Plant:
    """What is done to a bundle, and what must come of it."""

    act: Callable[..., Bundle | None]
    status: str
    code: str
    policy: str
    fresh: bool


PLANTS: dict[str, Plant] = {}


def plant(status: str, code: str, policy: str = "release", *, fresh: bool = False) -> Callable[..., Any]:
    """Register a plant. It changes the bundle that it is given, or makes one in a folder (``fresh``)."""

    def register(act: Callable[..., Bundle | None]) -> Callable[..., Bundle | None]:
        PLANTS[act.__name__] = Plant(act, status, code, policy, fresh)
        return act

    return register


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle"))


def check(bundle: Bundle, policy: str) -> certify.CheckReport:
    return certify.check(bundle.path, policy=policy, engine="numpy", workers=1)


@pytest.mark.parametrize("policy", SHIPPED)
def test_the_bundle_itself_is_certified_under_every_policy(pristine: Bundle, policy: str) -> None:
    report = check(pristine, policy)
    assert {item.name: item.code for item in report.tickets[0].items if item.outcome != "pass"} == {}
    assert int(report.exit_code) == 0


def test_the_tools_of_the_adversary_change_nothing_by_themselves(pristine: Bundle, tmp_path: Path) -> None:
    bundle = pristine.copy(tmp_path / "copy")
    bundle.forge()
    bundle.edit_certificate(lambda _: None)
    assert bundle.certificate.read_bytes() == pristine.certificate.read_bytes()
    assert int(check(bundle, "strict").exit_code) == 0


def run(name: str, pristine: Bundle, folder: Path) -> Bundle:
    """The bundle with the plant in it."""
    planted = PLANTS[name]
    if planted.fresh:
        made = planted.act(folder)
        assert made is not None
        return made
    bundle = pristine.copy(folder / "bundle")
    return planted.act(bundle) or bundle


# --- rows and selection ------------------------------------------------------------------------------------


@plant("INVALID", "FILE_DIGEST")
def a_row_of_the_reference_is_overwritten(bundle: Bundle) -> None:
    (file,) = (bundle.folder / "reference").glob("*.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


@plant("REFUTED", "PERMUTED_ROW", fresh=True)
def a_row_outside_the_ticket_is_permuted(folder: Path) -> Bundle:
    tuned = tuned_table()
    tuned[20] = np.roll(tuned[20], 1)
    return make_bundle(folder, tuned=tuned)


@plant("REFUTED", "ROTATED_ROW", fresh=True)
def a_row_outside_the_ticket_is_replaced_by_one_of_like_scale(folder: Path) -> Bundle:
    tuned = tuned_table()
    tuned[20] = base_table()[21]
    return make_bundle(folder, tuned=tuned)


def _with_ids(folder: Path, ids: tuple[int, ...]) -> Bundle:
    """A bundle whose ticket file claims the KS rule for other rows than the rule selects."""
    bundle = make_bundle(folder, rule="ids:" + ",".join(map(str, ids)), issued=False)
    honest = make_bundle(folder / "honest", issued=False)

    def change(ticket: Json) -> None:
        ticket["selection"] = honest.ticket()["selection"]

    bundle.edit_ticket(change)
    fill(bundle).issue()
    return bundle


@plant("REFUTED", "SELECTION_IDS", fresh=True)
def a_row_too_many_is_in_the_ticket(folder: Path) -> Bundle:
    return _with_ids(folder, (*MOVED, 50))


@plant("REFUTED", "SELECTION_IDS", fresh=True)
def a_row_is_left_out_of_the_ticket(folder: Path) -> Bundle:
    return _with_ids(folder, MOVED[:-1])


@plant("REFUTED", "ROWS_NOT_REFERENCE")
def a_released_row_is_changed_and_everything_bound_again(bundle: Bundle) -> None:
    def change(tensors: dict[str, Any]) -> None:
        tensors["rows.fp32"][0, 0] += 1
        tensors["rows.served"][0, 0] = tensors["rows.fp32"][0, 0].astype(np.float16)

    rewrite_rows(bundle.path, change)
    rebind(bundle.path)
    bundle.adopt(read_ticket_file(bundle.path).tickets[0].digest())


@plant("REFUTED", "DIRECTION_INVERTED")
def the_transfer_ran_in_the_wrong_direction(bundle: Bundle) -> None:
    def change(tensors: dict[str, Any]) -> None:
        tensors["rows.served"] = bundle.base[list(MOVED)]
        tensors["rows.fp32"] = tensors["rows.served"].astype(np.float32)

    rewrite_rows(bundle.path, change)
    rebind(bundle.path)
    bundle.adopt(read_ticket_file(bundle.path).tickets[0].digest())


@plant("INVALID", "CERTIFICATE_OTHER_TICKET")
def alpha_is_swapped_in_the_ticket(bundle: Bundle) -> None:
    bundle.edit_ticket(lambda ticket: ticket["selection"].update(alpha="0.5"))


@plant("REFUTED", "SELECTION_PARAMETERS", "selection")
def alpha_is_swapped_where_only_the_selection_is_asked(bundle: Bundle) -> None:
    bundle.edit_ticket(lambda ticket: ticket["selection"].update(alpha="0.5"))


@plant("INVALID", "CERTIFICATE_CONTENT")
def alpha_is_swapped_and_the_certificate_told_so(bundle: Bundle) -> None:
    bundle.edit_ticket(lambda ticket: ticket["selection"].update(alpha="0.5"))
    bundle.adopt(read_ticket_file(bundle.path).tickets[0].digest())


@plant("INVALID", "FILE_DIGEST")
def the_tokenizer_is_changed(bundle: Bundle) -> None:
    file = bundle.folder / bundle.ticket()["tokenizer"]["path"]
    file = file / "tokenizer.json" if file.is_dir() else file
    file.write_text(file.read_text(encoding="utf-8").replace("w10", "w1O"), encoding="utf-8")


@plant("INVALID", "TEMPLATE_DIGEST")
def the_template_of_the_ticket_is_changed(bundle: Bundle) -> None:
    bundle.edit_ticket(lambda ticket: ticket["template"].update(sha256="0" * 64))


@plant("VACUOUS", "EMPTY_TICKET", "selection", fresh=True)
def the_ticket_is_empty(folder: Path) -> Bundle:
    bundle = make_bundle(folder, exclude=MOVED, issued=False)
    assert not bundle.ids
    return bundle


# --- which models, which text ------------------------------------------------------------------------------


@plant("INVALID", "EVIDENCE_BASE")
def the_evidence_is_about_another_base(bundle: Bundle) -> None:
    other = synthetic.digest("another table")
    bundle.arm("base")["table_sha256"] = other
    bundle.fields["base"] = {"tensor_sha256": other, "model_sha256": synthetic.digest("model")}
    bundle.loss_fields["base"] = bundle.fields["base"]
    bundle.forge()


@plant("INVALID", "EVIDENCE_REFERENCE")
def the_evidence_is_about_another_reference(bundle: Bundle) -> None:
    other = synthetic.digest("another table")
    bundle.arm("reference")["table_sha256"] = other
    bundle.fields["reference"] = bundle.loss_fields["reference"] = {"tensor_sha256": other}
    bundle.forge()


@plant("INVALID", "EVIDENCE_TOKENIZER")
def the_evidence_was_made_with_another_tokenizer(bundle: Bundle) -> None:
    bundle.fields["tokenizer_sha256"] = synthetic.digest("another tokenizer")
    bundle.forge()


def _probed(bundle: Bundle, of_ticket: str, of_texts: tuple[str | None, str | None]) -> None:
    """Let ticket and evidence state their tokenisation, with every digest true and the claims as they are."""
    bundle.edit_ticket(lambda ticket: ticket["tokenizer"].update(probe_sha256=synthetic.digest(of_ticket)))
    bundle.issue()
    about = (bundle.fields, bundle.other_fields, bundle.loss_fields)
    for fields, made in zip(about, (of_texts[0], *of_texts), strict=True):
        if made is not None:
            fields["tokenizer_probe_sha256"] = synthetic.digest(made)
    bundle.forge()


@plant("INVALID", "TOKENISATION_DIFFERS")
def the_evaluation_tokenised_otherwise_than_the_ticket_says(bundle: Bundle) -> None:
    _probed(bundle, "one", ("another", "one"))


@plant("INVALID", "TOKENISATION_DIFFERS")
def the_unrelated_text_was_tokenised_otherwise(bundle: Bundle) -> None:
    _probed(bundle, "one", (None, "another"))


@plant("INVALID", "EVIDENCE_MALFORMED")
def the_tokenisation_of_the_evidence_is_no_digest(bundle: Bundle) -> None:
    bundle.fields["tokenizer_probe_sha256"] = "F" * 64
    bundle.forge()


@pytest.mark.parametrize(("of_texts", "bound"), [(("one", "one"), True), (("one", None), False)])
def test_what_is_not_said_of_tokenisation_is_told_and_decides_nothing(
    of_texts: tuple[str | None, str | None], bound: bool, pristine: Bundle, tmp_path: Path
) -> None:
    bundle = pristine.copy(tmp_path / "copy")
    _probed(bundle, "one", of_texts)
    report = check(bundle, "strict")
    assert int(report.exit_code) == 0
    told = {item.name for item in report.tickets[0].items if "not bound" in item.text}
    assert told == ({"evidence.split"} if bound else {"evidence.integrity", "evidence.split"})
    told = {item.name for item in check(pristine, "strict").tickets[0].items if "not bound" in item.text}
    assert told == {"integrity.tokenizer", "evidence.integrity", "evidence.split"}


@plant("INVALID", "EVIDENCE_MODEL")
def the_two_texts_were_evaluated_on_different_models(bundle: Bundle) -> None:
    table = bundle.arm("base")["table_sha256"]
    bundle.loss_fields["base"] = {"tensor_sha256": table, "model_sha256": synthetic.digest("other model")}
    bundle.forge()


@plant("INVALID", "CERTIFICATE_CONTENT")
def both_texts_were_evaluated_on_another_model(bundle: Bundle) -> None:
    table = bundle.arm("base")["table_sha256"]
    other = {"tensor_sha256": table, "model_sha256": synthetic.digest("other model")}
    bundle.fields["base"] = bundle.loss_fields["base"] = bundle.other_fields["base"] = other
    bundle.forge()


@plant("INCONCLUSIVE", "NO_TEXT")
def the_text_was_translated_with_another_template_only(bundle: Bundle) -> None:
    bundle.fields["template"] = {"name": "another", "sha256": synthetic.digest("another")}
    bundle.issue()


@plant("INCONCLUSIVE", "NO_TEXT")
def nothing_is_shown_about_unrelated_text(bundle: Bundle) -> None:
    bundle.issue(bundle.write_evidence()[:1])


@plant("INCONCLUSIVE", "EVIDENCE_LEFT_OUT")
def the_certificate_leaves_out_a_text_that_the_ticket_lists(bundle: Bundle) -> None:
    listed = bundle.ticket()["evidence"]
    bundle.issue([bundle.translated])
    bundle.edit_ticket(lambda ticket: ticket.update(evidence=listed))


@plant("INVALID", "EVIDENCE_TEXT_TWICE")
def the_same_text_is_given_twice_to_halve_the_chance_of_failing(bundle: Bundle) -> None:
    copy = bundle.translated.with_name("again.json")
    value = json.loads(bundle.translated.read_text(encoding="utf-8"))
    records = bundle.translated.with_name("again.records.jsonl")
    lines = bundle.translated.with_name("translated.records.jsonl").read_bytes().splitlines(keepends=True)
    records.write_bytes(b"".join(reversed(lines)))
    value["text"] |= synthetic.text_of(bundle.records[::-1])
    value["records"] |= {"path": records.name, "sha256": synthetic.digest("")}
    value["records"]["sha256"] = synthetic.hashlib.sha256(records.read_bytes()).hexdigest()
    copy.write_text(json.dumps(value), encoding="utf-8")
    digest = synthetic.hashlib.sha256(copy.read_bytes()).hexdigest()

    def change(certificate: Json) -> None:
        (first,) = (one for one in certificate["evidence"] if one["role"] == "evaluation")
        again = first | {"path": "evidence/again.json", "sha256": digest, "text": "once more"}
        certificate["evidence"].append(again)

    bundle.edit_certificate(change)


# --- how the ticket was chosen -----------------------------------------------------------------------------


def _chosen(bundle: Bundle, sentences: list[str], **fields: Json) -> Path:
    """Let the ticket bind the record of a choice made on these sentences; the certificate is about it."""
    record = {
        "schema": "certify.choice",
        "schema_version": 1,
        "candidates": [{"arm": "small", "ids": [5]}, {"arm": "large", "ids": list(bundle.ids)}],
        "chosen": "large",
        "sentences": sorted(sentences),
    }
    path = bundle.folder / "choices" / "tiny.json"
    path.parent.mkdir()
    path.write_bytes(synthetic.canonical(record | fields))
    bound = {"path": "choices/tiny.json", "sha256": synthetic.hashlib.sha256(path.read_bytes()).hexdigest()}
    bundle.edit_ticket(lambda ticket: ticket.update(choice=bound))
    bundle.adopt(read_ticket_file(bundle.path).tickets[0].digest())
    return path


ELSEWHERE = [synthetic.digest(f"chosen on {number}")[:16] for number in range(9)]


def test_a_ticket_that_was_chosen_on_other_sentences_is_certified(pristine: Bundle, tmp_path: Path) -> None:
    bundle = pristine.copy(tmp_path / "copy")
    _chosen(bundle, ELSEWHERE)
    bundle.issue()
    assert int(check(bundle, "strict").exit_code) == 0


@plant("INVALID", "DATA_OVERLAP")
def the_ticket_was_chosen_on_the_evidence_itself(bundle: Bundle) -> None:
    _chosen(bundle, [record[side] for record in bundle.records for side in ("source", "target")])


@plant("INVALID", "DATA_OVERLAP")
def the_ticket_was_chosen_on_the_source_of_one_sentence(bundle: Bundle) -> None:
    _chosen(bundle, [*ELSEWHERE, bundle.records[7]["source"]])


@plant("INVALID", "DATA_OVERLAP")
def the_ticket_was_chosen_on_the_translation_of_one_sentence(bundle: Bundle) -> None:
    _chosen(bundle, [*ELSEWHERE, bundle.records[7]["target"]])


@plant("INVALID", "DATA_OVERLAP")
def the_ticket_was_chosen_on_a_line_of_the_unrelated_text(bundle: Bundle) -> None:
    _chosen(bundle, [*ELSEWHERE, *bundle.losses[7]["lines"]])


@plant("INCONCLUSIVE", "FILE_MISSING")
def the_record_of_the_choice_is_taken_away(bundle: Bundle) -> None:
    _chosen(bundle, ELSEWHERE).unlink()


@plant("INVALID", "FILE_DIGEST")
def the_record_of_the_choice_is_another(bundle: Bundle) -> None:
    path = _chosen(bundle, [*ELSEWHERE, bundle.records[7]["source"]])
    path.write_text(path.read_text(encoding="utf-8").replace(bundle.records[7]["source"], "0" * 16))


@plant("INVALID", "CHOICE_MALFORMED")
def the_record_of_the_choice_names_no_sentence(bundle: Bundle) -> None:
    _chosen(bundle, [])


@plant("INVALID", "CHOICE_MALFORMED")
def the_record_is_of_the_choice_of_other_rows(bundle: Bundle) -> None:
    _chosen(bundle, ELSEWHERE, chosen="small")


@plant("INVALID", "CHOICE_MALFORMED")
def the_record_of_the_choice_lists_something_else(bundle: Bundle) -> None:
    _chosen(bundle, ["a sentence in words"])


@pytest.mark.parametrize(
    "fields",
    [
        {"schema_version": True},
        {"candidates": [{"arm": 5, "ids": list(MOVED)}], "chosen": 5},
        {"candidates": [{"arm": "large", "ids": list(MOVED)}, {"arm": "small", "ids": [1 << 24]}]},
    ],
)
def test_both_programs_read_the_record_of_a_choice_strictly(
    fields: Json, pristine: Bundle, tmp_path: Path
) -> None:
    bundle = pristine.copy(tmp_path / "bundle")
    _chosen(bundle, ELSEWHERE, **fields)
    assert check(bundle, "release").tickets[0].status.value == "INVALID"
    assert checker.verify(bundle.folder, policies=["release"])["tiny"]["release"].status == "INVALID"


@plant("INVALID", "CERTIFICATE_OTHER_TICKET")
def the_choice_is_no_longer_mentioned(bundle: Bundle) -> None:
    _chosen(bundle, ELSEWHERE)
    bundle.issue()
    bundle.edit_ticket(lambda ticket: ticket.pop("choice"))


# --- evidence that is cut or edited ------------------------------------------------------------------------


@plant("INCONCLUSIVE", "FILE_MISSING")
def the_rows_are_taken_away(bundle: Bundle) -> None:
    (bundle.folder / "rows" / "tiny.safetensors").unlink()


@plant("INCONCLUSIVE", "FILE_MISSING")
def the_tuned_table_is_taken_away(bundle: Bundle) -> None:
    (bundle.folder / "reference" / "embed_tokens.safetensors").unlink()


@plant("INCONCLUSIVE", "FILE_MISSING")
def the_manifest_is_taken_away(bundle: Bundle) -> None:
    bundle.translated.unlink()


@plant("INCONCLUSIVE", "FILE_MISSING")
def the_records_are_taken_away(bundle: Bundle) -> None:
    bundle.translated.with_name("translated.records.jsonl").unlink()


@plant("INCONCLUSIVE", "FILE_MISSING")
def the_list_of_used_sentences_is_taken_away(bundle: Bundle) -> None:
    bundle.translated.with_name("translated.tuning.txt").unlink()


@plant("INVALID", "EVIDENCE_TRUNCATED")
def the_last_record_is_cut_off(bundle: Bundle) -> None:
    file = bundle.translated.with_name("translated.records.jsonl")
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-1]))


@plant("INVALID", "EVIDENCE_DIGEST")
def a_record_is_edited(bundle: Bundle) -> None:
    file = bundle.translated.with_name("translated.records.jsonl")
    file.write_bytes(file.read_bytes().replace(b'"ended":true', b'"ended":false', 1))


@plant("INVALID", "EVIDENCE_DIGEST")
def records_and_manifest_are_cut_together(bundle: Bundle) -> None:
    bundle.records.pop()
    bundle.write_evidence()


@plant("REFUTED", "CLAIM_DIFFERS")
def records_manifest_and_digests_are_cut_together(bundle: Bundle) -> None:
    bundle.records.pop()
    bundle.forge()


@plant("REFUTED", "CLAIM_DIFFERS")
def matches_of_the_ticket_are_edited(bundle: Bundle) -> None:
    bundle.records = sentences(bundle.names, len(bundle.records), **{TICKET_ARM: 17})
    bundle.forge()


@plant("REFUTED", "CLAIM_DIFFERS")
def disagreements_are_edited_away(bundle: Bundle) -> None:
    # As issued, one unit disagreed; the certificate still knows.
    bundle.records[3]["arms"][TICKET_ARM]["differs"] = [[0, 99]]
    bundle.issue()
    bundle.records[3]["arms"][TICKET_ARM]["differs"] = []
    bundle.forge()


@plant("INVALID", "EVIDENCE_DUPLICATE")
def a_record_is_repeated(bundle: Bundle) -> None:
    bundle.records[1] = bundle.records[0] | {"unit": "1"}
    bundle.forge()


@plant("INVALID", "EVALUATION_DUPLICATES")
def a_sentence_is_evaluated_twice(bundle: Bundle) -> None:
    bundle.records[1]["source"] = bundle.records[0]["source"]
    bundle.forge()


@plant("INVALID", "EVALUATION_DUPLICATES")
def a_translation_is_evaluated_twice(bundle: Bundle) -> None:
    bundle.records[1]["target"] = bundle.records[0]["target"]
    bundle.forge()


@plant("INVALID", "DATA_OVERLAP")
def an_evaluated_sentence_was_tuned_on(bundle: Bundle) -> None:
    bundle.used = {"tuning": [bundle.records[5]["source"]]}
    bundle.forge()


@plant("INVALID", "DATA_OVERLAP")
def an_evaluated_translation_was_tuned_on(bundle: Bundle) -> None:
    bundle.used = {"tuning": [bundle.records[5]["target"]]}
    bundle.forge()


@plant("INVALID", "EVIDENCE_MALFORMED")
def the_list_of_used_sentences_is_that_of_another_run(bundle: Bundle) -> None:
    bundle.fields["used_table"] = synthetic.digest("another table")
    bundle.forge()


def test_a_list_of_used_sentences_may_name_the_table_of_its_run(pristine: Bundle, tmp_path: Path) -> None:
    bundle = pristine.copy(tmp_path / "copy")
    bundle.fields["used_table"] = bundle.arm("reference")["table_sha256"]
    bundle.issue()
    report = check(bundle, "strict")
    assert int(report.exit_code) == 0
    (split,) = (item for item in report.tickets[0].items if item.name == "evidence.split")
    assert "not bound" not in split.text


@plant("INVALID", "DATA_OVERLAP")
def the_ticket_was_chosen_on_an_evaluated_sentence(bundle: Bundle) -> None:
    bundle.used = {"tuning": [], "choice": [record["source"] for record in bundle.records]}
    bundle.forge()


@plant("INVALID", "DATA_OVERLAP")
def the_scan_used_an_evaluated_sentence(bundle: Bundle) -> None:
    bundle.used = {"tuning": [], "scan": [bundle.records[0]["target"]]}
    bundle.forge()


@plant("INCONCLUSIVE", "USED_NOT_LISTED")
def nothing_says_what_was_tuned_on(bundle: Bundle) -> None:
    bundle.used = {"scan": []}
    bundle.issue()


# --- unrelated text ----------------------------------------------------------------------------------------


@plant("INVALID", "EVIDENCE_DUPLICATE")
def a_window_of_unrelated_text_is_copied(bundle: Bundle) -> None:
    first = bundle.losses[0]
    bundle.losses += [
        first | {"id": f"copy:{i}", "unit": f"copy {i}", "lines": [synthetic.digest(f"copy {i}")[:16]]}
        for i in range(60)
    ]
    bundle.forge()


@plant("INVALID", "EVIDENCE_DUPLICATE")
def two_windows_of_a_unit_are_the_same(bundle: Bundle) -> None:
    bundle.losses[1] |= {key: bundle.losses[0][key] for key in ("unit", "window", "lines")}
    bundle.forge()


@plant("INVALID", "EVALUATION_DUPLICATES")
def windows_of_one_passage_count_as_units(bundle: Bundle) -> None:
    for window in bundle.losses:
        window["lines"] = bundle.losses[0]["lines"]
    bundle.forge()


@plant("INVALID", "EVALUATION_DUPLICATES")
def a_line_of_unrelated_text_stands_in_a_second_unit(bundle: Bundle) -> None:
    bundle.losses[5]["lines"] = bundle.losses[2]["lines"]
    bundle.forge()


@plant("INVALID", "DATA_OVERLAP")
def unrelated_text_was_tuned_on(bundle: Bundle) -> None:
    bundle.loss_used = {"tuning": bundle.losses[5]["lines"]}
    bundle.forge()


@plant("INVALID", "DATA_OVERLAP")
def unrelated_text_was_tuned_on_and_only_the_other_text_says_so(bundle: Bundle) -> None:
    bundle.used = {"tuning": bundle.losses[5]["lines"]}
    bundle.forge()


@plant("INVALID", "DATA_OVERLAP")
def unrelated_text_was_used_for_the_order(bundle: Bundle) -> None:
    bundle.loss_used = {
        "tuning": [synthetic.digest("tuned on this")[:16]],
        "order": bundle.losses[0]["lines"],
    }
    bundle.forge()


@plant("INVALID", "DATA_OVERLAP")
def unrelated_text_says_that_the_translated_one_was_tuned_on(bundle: Bundle) -> None:
    bundle.loss_used = {"tuning": [bundle.records[5]["source"]]}
    bundle.forge()


@plant("INCONCLUSIVE", "USED_NOT_LISTED")
def unrelated_text_does_not_say_what_was_tuned_on(bundle: Bundle) -> None:
    bundle.loss_used = None
    bundle.issue()


@plant("INCONCLUSIVE", "USED_NOT_LISTED", "paper")
def unrelated_text_lists_no_sentence_of_tuning(bundle: Bundle) -> None:
    bundle.loss_used = {"tuning": [], "scan": [synthetic.digest("scanned")[:16]]}
    bundle.issue()


@plant("INVALID", "EVIDENCE_DIGEST")
def a_window_of_unrelated_text_is_edited(bundle: Bundle) -> None:
    file = bundle.unrelated.with_name("unrelated.records.jsonl")
    window = bundle.losses[0]["window"].encode()
    file.write_bytes(file.read_bytes().replace(window, window[::-1]))


@plant("REFUTED", "CLAIM_DIFFERS")
def windows_are_renamed_until_the_order_is_a_good_one(bundle: Bundle) -> None:
    for number, window in enumerate(bundle.losses):
        window["nats"][TICKET_ARM] += (number % 7 - 3) * 10**10
    bundle.issue()
    for number, window in enumerate(bundle.losses):
        window["window"] = synthetic.digest(f"another {number}")[:16]
    bundle.forge()


@plant("INVALID", "EVIDENCE_MALFORMED")
def a_window_does_not_say_what_it_is(bundle: Bundle) -> None:
    del bundle.losses[3]["window"]
    bundle.forge()


@plant("INVALID", "EVIDENCE_MALFORMED")
def a_window_is_named_in_words(bundle: Bundle) -> None:
    bundle.losses[3]["window"] = "In the beginning"
    bundle.forge()


@plant("INVALID", "EVIDENCE_MALFORMED")
def a_window_was_cut_from_nothing(bundle: Bundle) -> None:
    bundle.losses[3]["lines"] = []
    bundle.forge()


@plant("INVALID", "EVIDENCE_MALFORMED")
def lines_of_a_window_are_no_digests(bundle: Bundle) -> None:
    bundle.losses[3]["lines"] = ["In the beginning"]
    bundle.forge()


@plant("INVALID", "EVIDENCE_MALFORMED")
def a_line_of_a_window_is_listed_twice(bundle: Bundle) -> None:
    bundle.losses[3]["lines"] *= 2
    bundle.forge()


@plant("INVALID", "EVIDENCE_MALFORMED")
def unrelated_text_is_in_the_form_that_does_not_say_what_it_is(bundle: Bundle) -> None:
    bundle.loss_fields["procedure"] = "loss/1"
    bundle.forge()


# --- figures that cannot be --------------------------------------------------------------------------------


@plant("INVALID", "EVIDENCE_MALFORMED")
def a_margin_is_negative(bundle: Bundle) -> None:
    bundle.records[0]["reference"]["p_b"][0] = -1
    bundle.forge()


@plant("INVALID", "EVIDENCE_MALFORMED")
def a_probability_is_above_one(bundle: Bundle) -> None:
    bundle.records[0]["reference"]["p_a"][0] = 2 * 10**9
    bundle.forge()


@plant("INVALID", "EVIDENCE_MALFORMED")
def a_margin_is_a_float(bundle: Bundle) -> None:
    bundle.records[0]["reference"]["p_a"][0] = 0.9
    bundle.forge()


@plant("INVALID", "JSON_MALFORMED")
def a_margin_is_not_a_number(bundle: Bundle) -> None:
    bundle.records[0]["reference"]["p_a"][0] = float("nan")
    bundle.forge()


@plant("INVALID", "EVIDENCE_MALFORMED")
def more_matches_than_there_are_ngrams(bundle: Bundle) -> None:
    bundle.records[0]["arms"][TICKET_ARM]["stats"][0][12] = 21
    bundle.forge()


@plant("INVALID", "EVIDENCE_MALFORMED")
def the_ticket_is_scored_against_an_easier_translation(bundle: Bundle) -> None:
    bundle.records[0]["arms"][TICKET_ARM]["stats"][0][1] = 5
    bundle.forge()


@plant("INVALID", "EVIDENCE_MALFORMED")
def a_record_lacks_an_arm(bundle: Bundle) -> None:
    del bundle.records[0]["arms"]["random-0"]
    bundle.forge()


@plant("INVALID", "EVIDENCE_DRAWN")
def the_units_of_a_sequential_evaluation_were_picked(bundle: Bundle) -> None:
    text = synthetic.manifest(bundle.records, bundle.arms)["text"]
    bundle.fields |= {"design": "sequential", "text": text | {"sentences": 10 * len(bundle.records)}}
    bundle.forge()


# --- arms --------------------------------------------------------------------------------------------------


def _without(bundle: Bundle, *names: str) -> None:
    bundle.arms = [arm for arm in bundle.arms if arm["name"] not in names]
    bundle.records = sentences(bundle.names, len(bundle.records))
    for window in bundle.losses:
        window["nats"] = {name: nats for name, nats in window["nats"].items() if name not in names}


@plant("INCONCLUSIVE", "ARM_NOT_EVALUATED")
def the_ticket_was_not_evaluated(bundle: Bundle) -> None:
    _without(bundle, TICKET_ARM)
    bundle.issue()


@plant("INCONCLUSIVE", "ARM_NOT_EVALUATED")
def the_ticket_was_active_in_the_source_only(bundle: Bundle) -> None:
    bundle.arm(TICKET_ARM)["gate"] = ["source"]
    bundle.issue()


@plant("INCONCLUSIVE", "ARM_NOT_EVALUATED")
def the_arm_of_the_ticket_was_tuned_not_transferred(bundle: Bundle) -> None:
    bundle.arm(TICKET_ARM)["kind"] = "tuned"
    bundle.issue()


@plant("INVALID", "ARM_TABLE")
def the_arm_of_the_ticket_has_another_table(bundle: Bundle) -> None:
    bundle.arm(TICKET_ARM)["table_sha256"] = synthetic.digest("any table")
    bundle.forge()


@plant("INVALID", "ARM_TABLE")
def a_null_ticket_is_passed_off_as_the_ticket(bundle: Bundle) -> None:
    ours, other = bundle.arm(TICKET_ARM), bundle.arm("random-0")
    ours["table_sha256"], other["table_sha256"] = other["table_sha256"], ours["table_sha256"]
    bundle.forge()


@plant("INVALID", "ARM_TABLE")
def a_null_ticket_was_spoilt(bundle: Bundle) -> None:
    bundle.arm("top-norm")["table_sha256"] = synthetic.digest("rows of noise")
    bundle.forge()


@plant("INVALID", "EVIDENCE_ARMS")
def two_arms_serve_the_table_of_the_ticket(bundle: Bundle) -> None:
    bundle.arm("random-0").update(bundle.arm(TICKET_ARM) | {"name": "random-0"})
    bundle.forge()


@plant("INVALID", "EVIDENCE_IDS")
def an_arm_has_ids_beyond_the_table(bundle: Bundle) -> None:
    bundle.arm("random-0")["ids"] = [1, 2, 3, 4, 64]
    bundle.forge()


@plant("INCONCLUSIVE", "NULLS_MISSING", "science")
def the_null_ticket_by_norm_is_missing(bundle: Bundle) -> None:
    _without(bundle, "top-norm")
    bundle.issue()


@plant("INCONCLUSIVE", "NULLS_MISSING", "science")
def there_is_one_random_draw_only(bundle: Bundle) -> None:
    _without(bundle, "random-1", "random-2")
    bundle.issue()


def _null(bundle: Bundle, name: str, *ids: int) -> None:
    """Let a null ticket hold other rows than its label says, everything else as it must be."""
    bundle.arm(name).update(ids=list(ids), table_sha256=bundle.table_of(ids))
    bundle.forge()


@plant("INVALID", "NULL_LABEL")
def a_null_ticket_is_smaller(bundle: Bundle) -> None:
    _null(bundle, "top-norm", *bundle.null_ids("top-norm")[:4])


@plant("INVALID", "NULL_LABEL")
def the_null_ticket_by_norm_holds_rows_that_never_moved(bundle: Bundle) -> None:
    _null(bundle, "top-norm", 20, 21, 22, 23, 24)


@plant("INVALID", "NULL_LABEL")
def the_null_ticket_by_norm_leaves_out_the_row_that_moved_most(bundle: Bundle) -> None:
    _null(bundle, "top-norm", *sorted((*bundle.null_ids("top-norm")[1:], 50)))


@plant("INVALID", "NULL_LABEL")
def another_row_is_passed_off_as_that_of_bos(bundle: Bundle) -> None:
    _null(bundle, "bos", 21)


@plant("INVALID", "NULL_LABEL")
def another_special_row_is_passed_off_as_that_of_bos(bundle: Bundle) -> None:
    _null(bundle, "bos", 2)


@plant("INVALID", "NULL_LABEL")
def another_row_is_passed_off_as_that_of_the_newline(bundle: Bundle) -> None:
    _null(bundle, "newline", 4)


@plant("INVALID", "NULL_LABEL")
def a_random_draw_was_picked(bundle: Bundle) -> None:
    _null(bundle, "random-1", 20, 21, 22, 23, 24)


@plant("INVALID", "NULL_LABEL")
def a_random_draw_is_that_of_another_seed(bundle: Bundle) -> None:
    _null(bundle, "random-1", *bundle.null_ids("random-7"))


@plant("INVALID", "NULL_LABEL")
def a_random_draw_names_no_seed(bundle: Bundle) -> None:
    bundle.arm("random-1")["seed"] = None
    bundle.forge()


@plant("INVALID", "NULL_LABEL")
def a_draw_is_there_twice(bundle: Bundle) -> None:
    bundle.arm("matched-2")["seed"] = 1
    bundle.forge()


@plant("INVALID", "NULL_LABEL")
def a_matched_draw_holds_rows_of_the_ticket(bundle: Bundle) -> None:
    _null(bundle, "matched-1", *sorted((bundle.ids[0], 20, 21, 22, 23)))


@plant("INVALID", "NULL_LABEL")
def the_frequent_rows_hold_a_special_one(bundle: Bundle) -> None:
    _null(bundle, "top-frequency", 2, 4, 5, 6, 7)


@plant("INVALID", "NULL_LABEL")
def the_frequent_rows_have_no_token(bundle: Bundle) -> None:
    _null(bundle, "top-frequency", 4, 5, 6, 7, 63)


@plant("INVALID", "NULL_LABEL")
def a_draw_that_the_claim_does_not_rest_on_is_mislabelled(bundle: Bundle) -> None:
    _further(bundle, 6)
    _null(bundle, "random-3", 20, 21, 22, 23, 24)


def _further(bundle: Bundle, matches: int) -> None:
    """A further random draw, that matches so many n-grams."""
    bundle.arms.append(null_arm(bundle, "random-3"))
    bundle.records = sentences(bundle.names, len(bundle.records), **{"random-3": matches})
    for window in bundle.losses:
        window["nats"]["random-3"] = 250 * HALF
    bundle.issue()


@plant("INCONCLUSIVE", "NULLS_MISSING", "science")
def a_null_ticket_is_of_another_ticket(bundle: Bundle) -> None:
    bundle.arm("top-norm")["of"] = "other"
    bundle.issue()


@plant("INCONCLUSIVE", "NULLS_MISSING", "science")
def a_null_ticket_is_of_another_kind(bundle: Bundle) -> None:
    bundle.arm("top-norm")["kind"] = "tuned"
    bundle.issue()


@plant("INCONCLUSIVE", "NULLS_MISSING", "science")
def a_null_ticket_was_active_in_the_source_only(bundle: Bundle) -> None:
    bundle.arm("top-norm")["gate"] = ["source"]
    bundle.issue()


@plant("INCONCLUSIVE", "NULLS_MISSING", "science")
def the_matched_draws_are_all_the_base(bundle: Bundle) -> None:
    for i in range(3):
        ids = (20 + i, 53, 54, 55, 56)
        bundle.arm(f"matched-{i}").update(ids=list(ids), table_sha256=bundle.table_of(ids))
    bundle.issue()


@plant("INCONCLUSIVE", "NULLS_MISSING", "science")
def another_draw_stands_in_for_one_that_is_as_good_as_the_ticket(bundle: Bundle) -> None:
    _further(bundle, 6)
    bundle.records = sentences(bundle.names, len(bundle.records), **{"random-1": 18})
    bundle.arm("random-1").update(null_arm(bundle, "random-7") | {"name": "random-1"})
    bundle.issue()


# --- what the evidence shows -------------------------------------------------------------------------------


def _scores(bundle: Bundle, **matches: int) -> None:
    bundle.records = sentences(bundle.names, len(bundle.records), **matches)


@plant("REFUTED", "CLAIM_REFUTED", "drop-in")
def the_ticket_is_worse_than_embed_tuning(bundle: Bundle) -> None:
    _scores(bundle, **{TICKET_ARM: 10})
    bundle.issue()


@plant("REFUTED", "CLAIM_REFUTED")
def base_and_ticket_are_exchanged(bundle: Bundle) -> None:
    _scores(bundle, **{TICKET_ARM: 4, "base": 18})
    bundle.issue()


@plant("INCONCLUSIVE", "NOT_SHOWN", "science")
def any_rows_would_have_done(bundle: Bundle) -> None:
    _scores(bundle, **{"random-1": 18})
    bundle.issue()


@plant("REFUTED", "CLAIM_REFUTED", "science")
def one_row_does_better_than_the_ticket(bundle: Bundle) -> None:
    _scores(bundle, **{"newline": 20, TICKET_ARM: 14})
    bundle.issue()


@plant("INCONCLUSIVE", "NOT_SHOWN")
def the_whole_gain_is_learning_to_stop(bundle: Bundle) -> None:
    arms = {name: synthetic.Behaviour((4, 18, 18)) for name in bundle.names}
    arms[TICKET_ARM] = synthetic.Behaviour((18, 18, 18))
    bundle.records = [synthetic.sentence(i, arms) for i in range(len(bundle.records))]
    bundle.edit_ticket(lambda ticket: ticket.update(extraction="first-line"))
    bundle.issue()


@plant("INVALID", "CERTIFICATE_OTHER_TICKET")
def the_rule_is_changed_after_the_certificate(bundle: Bundle) -> None:
    bundle.edit_ticket(lambda ticket: ticket.update(extraction="cut"))


@plant("REFUTED", "CLAIM_REFUTED", fresh=True)
def nine_tenths_of_the_gain_are_declared_and_six_are_kept(folder: Path) -> Bundle:
    declared = [DeclaredClaim(kind="retention", comparator="0.9")]
    bundle = make_bundle(folder, declared=declared, issued=False)
    _scores(bundle, **{"base": 5, "reference": 20, TICKET_ARM: 14})
    bundle.issue()
    return bundle


@plant("REFUTED", "CLAIM_REFUTED")
def the_ticket_keeps_a_third_of_the_gain(bundle: Bundle) -> None:
    _scores(bundle, **{"base": 5, "reference": 20, TICKET_ARM: 10})
    bundle.issue()


@plant("INCONCLUSIVE", "NOT_SHOWN")
def there_are_too_few_sentences(bundle: Bundle) -> None:
    fill(bundle, units=5).issue()


@plant("REFUTED", "CLAIM_REFUTED")
def unrelated_text_suffers(bundle: Bundle) -> None:
    for window in bundle.losses:
        window["nats"][TICKET_ARM] += 100 * HALF
    bundle.issue()


@plant("INCONCLUSIVE", "NOT_SHOWN")
def one_unrelated_line_suffers_beyond_the_cap(bundle: Bundle) -> None:
    bundle.losses[0]["nats"][TICKET_ARM] += 100 * 3 * 10**9
    bundle.issue()


@plant("REFUTED", "CLAIM_REFUTED")
def unrelated_lines_suffer_beyond_the_cap_and_others_pay_for_it(bundle: Bundle) -> None:
    for i, window in enumerate(bundle.losses):
        window["nats"][TICKET_ARM] += 100 * 10**9 * (40 if i % 8 == 0 else -1)
    bundle.issue()


@plant("INVALID", "EVIDENCE_UNITS")
def windows_that_suffer_are_labelled_as_one_unit(bundle: Bundle) -> None:
    bad = [synthetic.window(1000 + i, dict.fromkeys(bundle.names, 250 * 10**9)) for i in range(2000)]
    for window in bad:
        window["unit"] = "bad"
        window["nats"] = window["nats"] | {TICKET_ARM: 440 * 10**9}
    bundle.losses += bad
    bundle.forge()


@plant("REFUTED", "PERMUTED_ROW", fresh=True)
def a_permuted_row_has_one_entry_nudged(folder: Path) -> Bundle:
    tuned = tuned_table()
    tuned[20] = np.sort(base_table()[20])[[*range(16, 32), *range(16)]]
    tuned[20][0] = np.nextafter(tuned[20][0], np.float16(1))
    return make_bundle(folder, tuned=tuned)


@plant("INVALID", "RULE_OPTION")
def a_level_of_the_authors_choice_goes_with_named_rows(bundle: Bundle) -> None:
    def change(ticket: Json) -> None:
        ids = ",".join(str(token["id"]) for token in ticket["tokens"])
        ticket["selection"].update(rule=f"ids:{ids}", alpha="0.5")

    bundle.edit_ticket(change)
    bundle.adopt(read_ticket_file(bundle.path).tickets[0].digest())


@plant("REFUTED", "ROTATED_ROW", fresh=True)
def a_row_outside_points_elsewhere_and_the_test_sees_it(folder: Path) -> Bundle:
    tuned = tuned_table()
    tuned[20] = -8 * base_table()[20]
    return make_bundle(folder, tuned=tuned, rule=f"ids:{','.join(map(str, MOVED))}")


def _null_tables(bundle: Bundle, digest: str) -> None:
    """The ticket is of tuned rows, and so are its null tickets, which nobody can derive."""
    table = bundle.arm(TICKET_ARM)["table_sha256"]
    for number, arm in enumerate(bundle.arms):
        if arm.get("of") == "tiny":
            arm |= {"kind": "tuned", "table_sha256": synthetic.digest(f"tuned {number}")}
    bundle.arm("random-1")["table_sha256"] = {"ticket": table}.get(digest) or bundle.arm(digest)[
        "table_sha256"
    ]
    bundle.forge()


@plant("INVALID", "NULL_TABLE")
def a_null_ticket_of_tuned_rows_has_the_table_of_the_base(bundle: Bundle) -> None:
    _null_tables(bundle, "base")


@plant("INVALID", "NULL_TABLE")
def a_null_ticket_of_tuned_rows_has_the_table_of_another(bundle: Bundle) -> None:
    _null_tables(bundle, "random-0")


@plant("INVALID", "NULL_TABLE")
def a_null_ticket_of_tuned_rows_has_the_table_of_the_ticket(bundle: Bundle) -> None:
    _null_tables(bundle, "ticket")


def _documents(bundle: Bundle, size: int) -> None:
    """Where the ticket is worse, sentences are put together into documents after the fact."""
    worse = sentences(bundle.names, 315, **{TICKET_ARM: 8})
    better = sentences(bundle.names, 315 + 135, **{TICKET_ARM: 20})[315:]
    for i, record in enumerate(worse):
        record["unit"] = f"document {i // size}"
    bundle.records = worse + better
    text = synthetic.manifest(bundle.records, bundle.arms)["text"]
    bundle.fields["text"] = text | {"unit": "document"}
    bundle.issue()


@plant("INCONCLUSIVE", "UNIT_TOO_LARGE")
def worse_sentences_are_one_document(bundle: Bundle) -> None:
    _documents(bundle, 315)


@plant("INCONCLUSIVE", "ASSUMPTION_NOT_ACCEPTED")
def worse_sentences_are_grouped_into_small_documents(bundle: Bundle) -> None:
    _documents(bundle, 21)


@plant("INVALID", "EVIDENCE_UNITS")
def blocks_follow_labels_and_not_the_text(bundle: Bundle) -> None:
    text = synthetic.manifest(bundle.records, bundle.arms)["text"]
    bundle.fields["text"] = text | {"unit": "block:2"}
    half = len(bundle.records) // 2
    for i, record in enumerate(bundle.records):
        record["unit"] = str(i % half)
    bundle.forge()


@plant("INVALID", "EVIDENCE_TEXT")
def a_sentence_is_dropped_where_the_ticket_is_worse(bundle: Bundle) -> None:
    text = synthetic.manifest(bundle.records, bundle.arms)["text"]
    del bundle.records[7]
    bundle.fields["text"] = text | {"sentences": len(bundle.records)}
    bundle.forge()


@plant("INVALID", "EVIDENCE_TEXT")
def sentences_change_places(bundle: Bundle) -> None:
    bundle.fields["text"] = synthetic.manifest(bundle.records, bundle.arms)["text"]
    bundle.records[3], bundle.records[4] = bundle.records[4], bundle.records[3]
    bundle.forge()


@plant("INVALID", "EVIDENCE_TEXT")
def a_line_of_unrelated_text_is_left_out(bundle: Bundle) -> None:
    text = synthetic.manifest(bundle.losses, bundle.arms)["text"]
    del bundle.losses[7]
    bundle.loss_fields["text"] = text | {"name": "unrelated"}
    bundle.forge()


def _declares(folder: Path, **fields: Any) -> Bundle:
    return make_bundle(folder, declared=[DeclaredClaim(**fields)])


@plant("INCONCLUSIVE", "NOT_SHOWN", fresh=True)
def a_margin_is_declared_that_was_not_shown(folder: Path) -> Bundle:
    bundle = make_bundle(
        folder,
        declared=[DeclaredClaim(kind="non-inferiority", comparator="reference", margin="0.1")],
        issued=False,
    )
    bundle.records = sentences(bundle.names, 400, **{TICKET_ARM: 14})
    bundle.losses = [synthetic.window(i, dict.fromkeys(bundle.names, 250 * 10**9)) for i in range(400)]
    flip = iter(range(400))
    for record in bundle.records:  # as good as embed tuning on average, and never equal
        sign = 1 if next(flip) % 2 else -1
        arm = synthetic.sentence(
            0,
            {TICKET_ARM: synthetic.Behaviour((14 + sign,) * 3)}
            | dict.fromkeys(("base", "reference"), synthetic.Behaviour((14,) * 3)),
        )["arms"][TICKET_ARM]
        record["arms"][TICKET_ARM]["stats"] = arm["stats"]
    bundle.issue()
    return bundle


@plant("REFUTED", "CLAIM_REFUTED", fresh=True)
def a_gain_is_declared_that_is_smaller(folder: Path) -> Bundle:
    return _declares(folder, kind="gain", comparator="base", margin="90")


def _promises(folder: Path, units: int) -> Bundle:
    """The ticket declares a guarantee, of which only the first so many units have certified steps."""
    declared = [DeclaredClaim(kind="guarantee", comparator="measured-max")]
    bundle = make_bundle(folder, declared=declared, issued=False)
    for record in bundle.records[units:]:
        record["reference"]["p_b"] = record["reference"]["p_a"] = [4 * 10**8] * len(
            record["reference"]["p_a"]
        )
    bundle.issue()
    return bundle


@plant("VACUOUS", "GUARANTEE_VACUOUS", fresh=True)
def a_guarantee_is_declared_that_says_nothing(folder: Path) -> Bundle:
    return _promises(folder, 0)


@plant("INCONCLUSIVE", "GUARANTEE_INCONCLUSIVE", fresh=True)
def a_guarantee_is_declared_that_too_few_units_show(folder: Path) -> Bundle:
    return _promises(folder, 30)


@plant("INCONCLUSIVE", "NOT_BOUND", fresh=True)
def the_ticket_binds_no_template(folder: Path) -> Bundle:
    bundle = make_bundle(folder, issued=False)
    bundle.issue()
    bundle.edit_ticket(lambda ticket: ticket.update(template=None))
    bundle.adopt(read_ticket_file(bundle.path).tickets[0].digest())
    return bundle


@plant("INCONCLUSIVE", "DELTA_TOO_LARGE", fresh=True)
def a_claim_is_declared_at_a_smaller_error(folder: Path) -> Bundle:
    return _declares(folder, kind="gain", comparator="base", delta="0.001")


@plant("INCONCLUSIVE", "NO_TEXT", fresh=True)
def a_claim_is_declared_on_another_text(folder: Path) -> Bundle:
    return _declares(folder, kind="gain", comparator="base", texts=("elsewhere",))


@plant("INCONCLUSIVE", "DECLARED_UNTESTABLE", fresh=True)
def a_claim_is_declared_that_nothing_can_test(folder: Path) -> Bundle:
    return _declares(folder, kind="beauty")


@plant("REFUTED", "CLAIM_REFUTED", fresh=True)
def a_gain_is_declared_twice_and_once_too_large(folder: Path) -> Bundle:
    declared = [DeclaredClaim(kind="gain", comparator="base", margin=margin) for margin in ("1", "90", "1")]
    return make_bundle(folder, declared=declared)


@plant("INCONCLUSIVE", "DECLARED_UNTESTABLE", fresh=True)
def a_margin_is_left_out(folder: Path) -> Bundle:
    return _declares(folder, kind="unrelated-loss")


OUTSIDE = [i for i in range(4, PIECES) if i not in MOVED]


def _best_of_eight(bundle: Bundle, kind: str = "transfer", **label: Any) -> None:
    """Seven more tickets with as many rows, which no text was bought for; callables give each its value."""
    for i in range(7):
        ids = bundle.ids if kind == "direction" else tuple(OUTSIDE[i::7][: len(bundle.ids)])
        fields = {key: value(i) if callable(value) else value for key, value in label.items()}
        table = bundle.table_of(ids) if kind == "transfer" else synthetic.digest(f"table {i}")
        bundle.arms.append(synthetic.arm(f"other-{i}", kind, ids, table_sha256=table, **fields))
    bundle.records = sentences(bundle.names, len(bundle.records), **{TICKET_ARM: 18})
    bundle.losses = [
        synthetic.window(i, dict.fromkeys(bundle.names, 250 * 10**9)) for i in range(len(bundle.losses))
    ]


# Seven losers under every label that might excuse them.
LABELS: dict[str, tuple[dict[str, Any], str]] = {
    "none": ({}, "NOT_SHOWN"),
    "a gate": ({"kind": "tuned", "gate": ["source"]}, "NOT_SHOWN"),
    "a variant": ({"control": "seed", "of": "tiny"}, "NOT_SHOWN"),
    "a direction of other rows": ({"control": "direction", "of": "tiny", "seed": lambda i: i}, "NOT_SHOWN"),
    "directions": (
        {"kind": "direction", "control": "direction", "of": "tiny", "seed": lambda i: i},
        "NOT_SHOWN",
    ),
    "one direction": ({"kind": "direction", "control": "direction", "of": "tiny", "seed": 0}, "NULL_LABEL"),
    "random": ({"control": "random", "of": "tiny", "seed": lambda i: 3 + i}, "NULL_LABEL"),
    "random under its other name": ({"control": "random", "of": "tiny-tuned", "seed": 0}, "NULL_LABEL"),
    "further matched draws": (
        {"control": "frequency-matched", "of": "tiny", "seed": lambda i: 3 + i},
        "NOT_SHOWN",
    ),
    "gated draws": ({"control": "top-frequency", "of": "tiny", "gate": ["source"]}, "NULL_LABEL"),
    "frequent rows": ({"control": "top-frequency", "of": "tiny-tuned"}, "NULL_LABEL"),
    "nulls of nothing": ({"control": "top-frequency", "of": "ghost"}, "NOT_SHOWN"),
}


@pytest.mark.parametrize("label", LABELS)
def test_the_best_of_eight_pays_for_seven_whatever_they_are_called(
    label: str, pristine: Bundle, tmp_path: Path
) -> None:
    bundle = pristine.copy(tmp_path / "bundle")
    fields, code = LABELS[label]
    _best_of_eight(bundle, **fields)
    bundle.forge() if code == "NULL_LABEL" else bundle.issue()
    (ticket,) = check(bundle, "release").tickets
    assert code in {item.code for item in ticket.items if item.outcome != "pass"}
    assert ticket.status.value == ("INVALID" if code == "NULL_LABEL" else "INCONCLUSIVE")
    alone = checker.verify(bundle.folder, policies=["release"])["tiny"]["release"]
    assert alone.status == ticket.status.value


def test_a_null_with_a_gate_has_the_table_of_its_null(pristine: Bundle, tmp_path: Path) -> None:
    bundle = pristine.copy(tmp_path / "bundle")
    for number, arm in enumerate(bundle.arms):
        if arm.get("of") == "tiny":
            arm |= {"kind": "tuned", "table_sha256": synthetic.digest(f"tuned {number}")}
    bundle.arms.append(bundle.arm("random-0") | {"name": "gated", "gate": ["source"]})
    bundle.records = sentences(bundle.names, len(bundle.records))
    for window in bundle.losses:
        window["nats"]["gated"] = window["nats"]["random-0"]
    bundle.issue()
    assert int(check(bundle, "paper").exit_code) == 3


@plant("REFUTED", "GUARANTEE_REFUTED", fresh=True)
def the_guarantee_is_claimed_and_does_not_hold(folder: Path) -> Bundle:
    declared = [DeclaredClaim(kind="guarantee", comparator="published")]
    bundle = make_bundle(folder, declared=declared, issued=False)
    for record in bundle.records[:60]:
        record["arms"][TICKET_ARM]["differs"] = [[t, 99] for t in range(3)]
    bundle.issue()
    return bundle


@plant("REFUTED", "GUARANTEE_REFUTED", "paper")
def the_guarantee_does_not_hold(bundle: Bundle) -> None:
    for record in bundle.records[:60]:
        record["arms"][TICKET_ARM]["differs"] = [[t, 99] for t in range(3)]
    bundle.issue()


@plant("VACUOUS", "GUARANTEE_VACUOUS", "paper")
def no_step_is_certified(bundle: Bundle) -> None:
    for record in bundle.records:
        record["reference"] |= {"p_a": [HALF] * 3, "p_b": [HALF] * 3}
    bundle.issue()


@plant("INCONCLUSIVE", "GUARANTEE_INCONCLUSIVE", "paper")
def there_are_too_few_units_for_the_guarantee(bundle: Bundle) -> None:
    fill(bundle, units=58).issue()


@plant("REFUTED", "PREMISE_FAILED", "paper", fresh=True)
def a_row_that_moved_is_outside_the_ticket(folder: Path) -> Bundle:
    return make_bundle(folder, exclude=(40,))


@plant("INCONCLUSIVE", "GUARANTEE_DESCRIPTIVE", "paper", fresh=True)
def the_level_is_so_large_that_the_promise_says_nothing(folder: Path) -> Bundle:
    return make_bundle(folder, alpha="0.5")


@plant("REFUTED", "CLAIM_REFUTED", "strict")
def a_third_of_the_decisions_differ(bundle: Bundle) -> None:
    for record in bundle.records:
        record["arms"][TICKET_ARM]["differs"] = [[0, 99]]
    bundle.issue()


@plant("INCONCLUSIVE", "ASSUMPTION_NOT_ACCEPTED", "strict")
def the_units_are_blocks_of_lines(bundle: Bundle) -> None:
    text = synthetic.manifest(bundle.records, bundle.arms)["text"]
    bundle.fields["text"] = text | {"unit": "block:1"}
    bundle.issue()


# --- the certificate ---------------------------------------------------------------------------------------


def _claim(certificate: Json, kind: str = "gain", extraction: str | None = "first-line") -> Json:
    found = [one for one in certificate["claims"] if (one["kind"], one["extraction"]) == (kind, extraction)]
    return found[0]


@plant("INCONCLUSIVE", "NO_CERTIFICATE")
def there_is_no_certificate(bundle: Bundle) -> None:
    bundle.edit_ticket(lambda ticket: ticket.update(certificate=None))


@plant("INCONCLUSIVE", "FILE_MISSING")
def the_certificate_is_taken_away(bundle: Bundle) -> None:
    bundle.certificate.unlink()


@plant("INVALID", "CERTIFICATE_DIGEST")
def the_certificate_is_another_file(bundle: Bundle) -> None:
    bundle.edit_ticket(lambda ticket: ticket["certificate"].update(sha256="0" * 64))


@plant("INVALID", "CERTIFICATE_NOT_CANONICAL")
def the_certificate_is_indented(bundle: Bundle) -> None:
    bundle.edit_certificate(lambda _: None, canonical=False)


@plant("INVALID", "CERTIFICATE_MALFORMED")
def the_certificate_holds_a_verdict(bundle: Bundle) -> None:
    bundle.edit_certificate(lambda value: value.update(verdict="CERTIFIED"))


@plant("INVALID", "CERTIFICATE_NEWER")
def the_certificate_is_of_a_newer_schema(bundle: Bundle) -> None:
    bundle.edit_certificate(lambda value: value.update(schema_version=4))


@plant("INVALID", "CERTIFICATE_MALFORMED")
def the_evidence_lies_outside_the_folder(bundle: Bundle) -> None:
    bundle.edit_certificate(lambda value: value["evidence"][0].update(path="../evidence/translated.json"))


@plant("INVALID", "CERTIFICATE_OTHER_TICKET", fresh=True)
def the_certificate_is_that_of_another_ticket(folder: Path) -> Bundle:
    other = make_bundle(folder / "other", alpha="0.01")
    bundle = make_bundle(folder / "own")
    bundle.certificate.write_bytes(other.certificate.read_bytes())
    bundle.point()
    return bundle


@plant("INVALID", "CERTIFICATE_OTHER_TICKET")
def the_margin_is_loosened_after_the_evaluation(bundle: Bundle) -> None:
    declared = {"kind": "non-inferiority", "comparator": "reference", "margin": "9", "delta": None}
    bundle.edit_ticket(lambda ticket: ticket.update(declared=[declared | {"extraction": None}]))


@plant("REFUTED", "CLAIM_DIFFERS")
def a_limit_is_edited(bundle: Bundle) -> None:
    bundle.edit_certificate(
        lambda value: _claim(value).update(lower={"exact": "69/1", "decimal": "69.000000"})
    )


@plant("INVALID", "CERTIFICATE_MALFORMED")
def a_decimal_is_edited(bundle: Bundle) -> None:
    bundle.edit_certificate(lambda value: _claim(value)["lower"].update(decimal="69.000000"))


@plant("REFUTED", "CLAIM_DIFFERS")
def an_estimate_is_edited(bundle: Bundle) -> None:
    bundle.edit_certificate(
        lambda value: _claim(value).update(estimate={"exact": "99/1", "decimal": "99.000000"})
    )


@plant("REFUTED", "CLAIM_DIFFERS")
def the_number_of_units_is_edited(bundle: Bundle) -> None:
    bundle.edit_certificate(lambda value: _claim(value).update(n=900))


@plant("REFUTED", "CLAIM_DIFFERS")
def the_error_probability_of_a_claim_is_edited(bundle: Bundle) -> None:
    bundle.edit_certificate(lambda value: _claim(value).update(delta="1/1000"))


@plant("REFUTED", "CLAIM_DIFFERS")
def the_procedure_of_a_claim_is_edited(bundle: Bundle) -> None:
    bundle.edit_certificate(lambda value: _claim(value).update(procedure="clopper-pearson/1"))


@plant("REFUTED", "CLAIM_DIFFERS")
def the_finding_of_a_guarantee_is_edited(bundle: Bundle) -> None:
    bundle.edit_certificate(lambda value: _claim(value, "guarantee", None).update(finding="refuted"))


@plant("REFUTED", "CLAIM_DIFFERS")
def the_share_of_a_text_is_edited(bundle: Bundle) -> None:
    bundle.edit_certificate(lambda value: value["evidence"][0].update(delta="1/2"))


@plant("REFUTED", "CLAIM_DIFFERS")
def the_role_of_a_text_is_edited(bundle: Bundle) -> None:
    bundle.edit_certificate(lambda value: value["evidence"][0].update(role="other-template"))


@plant("REFUTED", "CLAIM_DIFFERS")
def a_claim_is_invented(bundle: Bundle) -> None:
    def change(value: Json) -> None:
        value["claims"].append(_claim(value, "non-inferiority") | {"comparator": "full"})

    bundle.edit_certificate(change)


@plant("INCONCLUSIVE", "CLAIM_NOT_STATED")
def a_claim_is_taken_out(bundle: Bundle) -> None:
    bundle.edit_certificate(lambda value: value["claims"].remove(_claim(value, "gain", "whole")))


@plant("INCONCLUSIVE", "DELTA_TOO_LARGE")
def the_certificate_is_made_at_a_larger_error_probability(bundle: Bundle) -> None:
    bundle.issue(delta="0.5")


@plant("INCONCLUSIVE", "NO_EVIDENCE")
def the_certificate_names_no_evidence(bundle: Bundle) -> None:
    bundle.edit_certificate(lambda value: value.update(evidence=[], claims=[]))


@plant("INVALID", "CERTIFICATE_CONTENT")
def a_subject_is_edited(bundle: Bundle) -> None:
    bundle.edit_certificate(lambda value: value["subjects"][2].update(sha256="0" * 64))


@plant("INVALID", "CERTIFICATE_CONTENT")
def what_is_not_claimed_is_taken_out(bundle: Bundle) -> None:
    bundle.edit_certificate(lambda value: value["non_claims"].pop())


@plant("INVALID", "CERTIFICATE_CONTENT")
def an_assumption_is_played_down(bundle: Bundle) -> None:
    bundle.edit_certificate(lambda value: value["assumptions"][0].update(status="checked"))


@plant("INVALID", "CERTIFICATE_CONTENT")
def an_assumption_is_taken_out(bundle: Bundle) -> None:
    bundle.edit_certificate(lambda value: value["assumptions"].pop())


@plant("INVALID", "CERTIFICATE_CONTENT")
def the_signature_of_a_claim_is_edited(bundle: Bundle) -> None:
    def change(value: Json) -> None:
        claim = _claim(value)
        claim["signature"] = claim["signature"].replace("first-line", "whole")

    bundle.edit_certificate(change)


# --- witnesses ---------------------------------------------------------------------------------------------


def _witnessed(bundle: Bundle, change: Callable[[Json], object], name: str = "gain") -> None:
    def edit_one(value: Json) -> None:
        change(next(claim for claim in value["claims"] if claim["kind"] == name))

    bundle.edit_certificate(edit_one)


@plant("REFUTED", "CLAIM_DIFFERS")
def a_witness_names_other_units(bundle: Bundle) -> None:
    _witnessed(bundle, lambda claim: claim["witness"][0].update(units="0" * 64))


@plant("REFUTED", "CLAIM_DIFFERS", "strict")
def a_lower_limit_is_stated_one_grid_point_higher(bundle: Bundle) -> None:
    _witnessed(bundle, lambda claim: claim["witness"][0].update(lower=claim["witness"][0]["lower"] + 1))


@plant("REFUTED", "CLAIM_DIFFERS")
def an_upper_limit_is_stated_one_grid_point_higher(bundle: Bundle) -> None:
    _witnessed(bundle, lambda claim: claim["witness"][0].update(upper=claim["witness"][0]["upper"] + 1))


@plant("REFUTED", "CLAIM_DIFFERS")
def an_upper_limit_is_left_out(bundle: Bundle) -> None:
    _witnessed(bundle, lambda claim: claim["witness"][0].update(upper=None))


@plant("REFUTED", "CLAIM_DIFFERS")
def a_comparison_with_a_null_ticket_is_left_out(bundle: Bundle) -> None:
    _witnessed(bundle, lambda claim: claim["witness"].pop(), "better-than-nulls")


@plant("REFUTED", "CLAIM_DIFFERS", "paper")
def more_decisions_may_be_wrong_than_the_level_allows(bundle: Bundle) -> None:
    _witnessed(
        bundle, lambda claim: claim["critical"].update(held=claim["critical"]["held"] + 1), "guarantee"
    )


@plant("REFUTED", "CLAIM_DIFFERS", "paper")
def critical_counts_are_stated_without_a_witness(bundle: Bundle) -> None:
    _witnessed(
        bundle, lambda claim: claim.update(witness=None, critical={"held": 9, "refuted": 10}), "guarantee"
    )


# --- the path ----------------------------------------------------------------------------------------------


def along(folder: Path, labels: str = "{0}*19", path: Json = None, **declared: Any) -> Bundle:
    """A bundle that declares ``guarantee:path``; ``labels`` at every step, ``{0}`` being what both say."""
    path = path or {"n": 16, "g": 2}
    claim = DeclaredClaim(kind="guarantee", comparator="path", **declared)
    bundle = make_bundle(folder, declared=[claim], issued=False)
    bundle.fields = {"path": path}
    for record in bundle.records:
        steps = [labels.format(token) for token in record["reference"]["tokens"]]
        record["arms"][TICKET_ARM]["path"] = steps
    bundle.issue()
    return bundle


def test_a_guarantee_along_the_path_is_held(tmp_path: Path) -> None:
    report = check(along(tmp_path, labels="5*4,{0}*14,5*1"), "strict")
    assert int(report.exit_code) == 0
    (claim,) = (one for one in report.tickets[0].examined.texts[0].claims if one.name == "guarantee:path")
    assert (claim.finding, claim.detail["certified"], claim.detail["path"]["violations"]) == ("held", 198, 0)


def test_a_violated_theorem_is_never_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No labels can violate it; so gate and checker are both made to err, and say so."""
    decision, seen = criteria.decision, units.along
    monkeypatch.setattr(criteria, "decision", lambda *step: replace(decision(*step), kept=False))
    monkeypatch.setattr(units, "along", lambda *step: (*seen(*step)[:2], seen(*step)[1]))
    (ticket,) = check(along(tmp_path), "release").tickets
    wrong = {item.name: item.code for item in ticket.items if item.outcome != "pass"}
    assert (ticket.status.value, wrong) == ("INVALID", {"declared.1.guarantee.path": "GUARANTEE_VIOLATED"})


def first_step(bundle: Bundle, labels: str) -> None:
    bundle.records[0]["arms"][TICKET_ARM]["path"][0] = labels
    bundle.forge()


@plant("VACUOUS", "GUARANTEE_VACUOUS", fresh=True)
def the_labels_change_too_often(folder: Path) -> Bundle:
    return along(folder, labels="5*7,{0}*4,5*8")


@plant("REFUTED", "GUARANTEE_REFUTED", fresh=True)
def certified_labels_are_not_kept_at_strength_0(folder: Path) -> Bundle:
    bundle = along(folder)
    for record in bundle.records:
        record["arms"][TICKET_ARM] |= {
            "differs": [[t, 5] for t in range(3)],
            "path": [f"{token}*8,5*1,{token}*10" for token in record["reference"]["tokens"]],
        }
    bundle.issue()
    return bundle


@plant("INCONCLUSIVE", "PATH_NOT_EVALUATED", fresh=True)
def a_path_is_declared_and_not_evaluated(folder: Path) -> Bundle:
    return _declares(folder, kind="guarantee", comparator="path")


@plant("INCONCLUSIVE", "PATH_DIFFERS", fresh=True)
def another_path_is_evaluated_than_is_declared(folder: Path) -> Bundle:
    return along(folder, path={"n": 14, "g": 4})


@plant("INCONCLUSIVE", "PATH_DIFFERS", fresh=True)
def two_paths_are_declared(folder: Path) -> Bundle:
    bundle = along(folder)
    other = {"kind": "guarantee", "comparator": "path", "path": {"n": 4, "g": 1}}
    bundle.edit_ticket(lambda ticket: ticket["declared"].append(other))
    bundle.issue()
    return bundle


@plant("INVALID", "CERTIFICATE_OTHER_TICKET", fresh=True)
def the_declared_path_is_changed_afterwards(folder: Path) -> Bundle:
    bundle = along(folder)
    bundle.edit_ticket(lambda ticket: ticket["declared"][0].update(path={"n": 14, "g": 4}))
    return bundle


@plant("INVALID", "EVIDENCE_MALFORMED", fresh=True)
def the_path_of_the_manifest_is_changed(folder: Path) -> Bundle:
    bundle = along(folder)
    bundle.fields = {"path": {"n": 14, "g": 2}}
    bundle.forge()
    return bundle


@plant("REFUTED", "CLAIM_DIFFERS", fresh=True)
def labels_between_are_changed(folder: Path) -> Bundle:
    bundle = along(folder)
    labels = [f"5*7,{token}*4,5*8" for token in (30, 31, 2)]
    bundle.records[0]["arms"][TICKET_ARM]["path"] = labels
    bundle.forge()
    return bundle


@plant("INVALID", "EVIDENCE_MALFORMED", fresh=True)
def a_label_of_the_released_table_is_changed(folder: Path) -> Bundle:
    first_step(bundle := along(folder), "30*8,5*1,30*10")
    return bundle


@plant("INVALID", "EVIDENCE_MALFORMED", fresh=True)
def a_string_of_labels_is_too_short(folder: Path) -> Bundle:
    first_step(bundle := along(folder), "30*18")
    return bundle


@plant("INVALID", "EVIDENCE_MALFORMED", fresh=True)
def counts_of_labels_cancel_out(folder: Path) -> Bundle:
    first_step(bundle := along(folder), "30*20,5*-1")
    return bundle


@plant("INVALID", "EVIDENCE_IDS", fresh=True)
def a_label_is_outside_the_table(folder: Path) -> Bundle:
    first_step(bundle := along(folder), "64*1,30*18")
    return bundle


@plant("INVALID", "EVIDENCE_MALFORMED", fresh=True)
def the_labels_of_a_step_are_left_out(folder: Path) -> Bundle:
    bundle = along(folder)
    bundle.records[0]["arms"][TICKET_ARM]["path"].pop()
    bundle.forge()
    return bundle


# --- the calibrated margin ---------------------------------------------------------------------------------


def decided(bundle: Bundle, wrong: int, margin: int = 950_000_000) -> Bundle:
    """E* differs at the first own step of so many sentences; the others have that margin there."""
    for number, record in enumerate(bundle.records):
        p_a = [(10**9 + margin) // 2, 975_000_000, 975_000_000]
        p_b = [(10**9 - margin) // 2, 25_000_000, 25_000_000]
        own = own_steps([50, 51, 52], p_a=p_a, p_b=p_b, differs=[[0, 7]] if number < wrong else [])
        record["arms"][TICKET_ARM] |= {"own": own, "length": 3}
    return bundle


def calibrated_claim(bundle: Bundle) -> Any:
    texts = check(bundle, "release").tickets[0].examined.texts  # type: ignore[union-attr]
    (found,) = (one for text in texts for one in text.claims if one.name == "guarantee:calibrated")
    return found


@pytest.mark.parametrize(("margin", "sure"), [(900_000_000, 198), (899_999_999, 132)])
def test_a_margin_of_t_is_sure_and_one_below_is_not(tmp_path: Path, margin: int, sure: int) -> None:
    bundle = decided(make_bundle(tmp_path, issued=False), 0, margin)
    bundle.issue()
    found = calibrated_claim(bundle)
    assert (found.detail["sure"], found.detail["steps"], found.n) == (sure, 198, 66)
    assert (found.finding, found.upper < Fraction(1, 10)) == ("held", True)


def test_units_weigh_equally_and_unsure_steps_do_not_count(tmp_path: Path) -> None:
    bundle = decided(make_bundle(tmp_path, issued=False), 10)
    own = bundle.records[0]["arms"][TICKET_ARM]["own"]
    own.update(p_a=[975_000_000, 6 * 10**8, 6 * 10**8], p_b=[25_000_000, 10**8, 10**8])
    bundle.records[1]["arms"][TICKET_ARM]["own"].update(p_a=[6 * 10**8] * 3, p_b=[10**8] * 3)
    bundle.issue()
    found = calibrated_claim(bundle)
    assert found.n == 65
    # One unit of one sure step that is wrong, eight of one in three, the others of none.
    assert abs(found.estimate - (1 + Fraction(8, 3)) / 65) < Fraction(1, 2**31)


@plant("REFUTED", "GUARANTEE_REFUTED", fresh=True)
def sure_decisions_disagree(folder: Path) -> Bundle:
    bundle = decided(make_bundle(folder, issued=False), 66)
    bundle.issue()
    return bundle


@plant("INCONCLUSIVE", "GUARANTEE_INCONCLUSIVE", fresh=True)
def some_sure_decisions_disagree(folder: Path) -> Bundle:
    bundle = decided(make_bundle(folder, issued=False), 18)
    bundle.issue()
    return bundle


@plant("VACUOUS", "GUARANTEE_VACUOUS", fresh=True)
def no_decision_is_sure(folder: Path) -> Bundle:
    bundle = decided(make_bundle(folder, issued=False), 0)
    for record in bundle.records:
        record["arms"][TICKET_ARM]["own"].update(p_a=[6 * 10**8] * 3, p_b=[10**8] * 3)
    bundle.issue()
    return bundle


@plant("INCONCLUSIVE", "GUARANTEE_DESCRIPTIVE", fresh=True)
def a_margin_is_declared_at_a_large_level(folder: Path) -> Bundle:
    bundle = make_bundle(folder, issued=False)
    bundle.calibrate(alpha="0.2")
    bundle.issue()
    return bundle


@plant("INCONCLUSIVE", "MARGINS_NOT_EVALUATED", fresh=True)
def a_margin_is_declared_and_margins_are_not_recorded(folder: Path) -> Bundle:
    bundle = make_bundle(folder, issued=False)
    bundle.margin = None
    bundle.issue()
    return bundle


@plant("INCONCLUSIVE", "CALIBRATION_NOT_DECLARED", fresh=True)
def a_calibrated_margin_is_declared_without_t(folder: Path) -> Bundle:
    bundle = make_bundle(folder, issued=False)
    bundle.edit_ticket(lambda ticket: ticket["declared"][0].pop("calibration"))
    bundle.issue()
    return bundle


@plant("INCONCLUSIVE", "CALIBRATION_DIFFERS", fresh=True)
def the_margin_is_moved_after_the_evaluation(folder: Path) -> Bundle:
    bundle = make_bundle(folder, issued=False)
    bundle.calibrate("0.8")
    bundle.margin = "0.9"
    bundle.issue()
    return bundle


@plant("INCONCLUSIVE", "CALIBRATION_DIFFERS", fresh=True)
def the_margin_is_declared_after_the_evaluation(folder: Path) -> Bundle:
    bundle = make_bundle(folder, issued=False)
    bundle.fields = {"margins": {TICKET_ARM: None}}
    bundle.issue()
    return bundle


@plant("INVALID", "CERTIFICATE_OTHER_TICKET")
def the_margin_is_moved_after_the_certificate(bundle: Bundle) -> None:
    bundle.calibrate("0.8")


@plant("INVALID", "CALIBRATION_DIFFERS")
def the_margin_is_moved_and_its_record_is_not(bundle: Bundle) -> None:
    bundle.edit_ticket(lambda ticket: ticket["declared"][0]["calibration"].update(t="0.8"))
    bundle.adopt(read_ticket_file(bundle.path).tickets[0].digest())


@plant("INVALID", "FILE_DIGEST")
def the_record_of_the_margin_is_changed(bundle: Bundle) -> None:
    path = bundle.folder / "calibrations" / "tiny.json"
    path.write_bytes(path.read_bytes() + b"\n")


@plant("INCONCLUSIVE", "FILE_MISSING")
def the_record_of_the_margin_is_gone(bundle: Bundle) -> None:
    (bundle.folder / "calibrations" / "tiny.json").unlink()


@plant("INVALID", "DATA_OVERLAP", fresh=True)
def the_margin_is_chosen_on_an_evaluated_sentence(folder: Path) -> Bundle:
    bundle = make_bundle(folder)
    bundle.calibrate(sentences=[bundle.records[5]["target"]])
    bundle.adopt(read_ticket_file(bundle.path).tickets[0].digest())
    return bundle


@plant("INVALID", "DATA_OVERLAP", fresh=True)
def the_margin_is_chosen_on_the_evaluated_text(folder: Path) -> Bundle:
    bundle = make_bundle(folder)
    text = json.loads(bundle.translated.read_text(encoding="utf-8"))["text"]["sha256"]
    bundle.calibrate(text_sha256=text)
    bundle.edit_ticket(lambda ticket: ticket["declared"][-1]["calibration"].update(text_sha256=text))
    bundle.adopt(read_ticket_file(bundle.path).tickets[0].digest())
    return bundle


def test_two_margins_cannot_be_declared(pristine: Bundle, tmp_path: Path) -> None:
    bundle = pristine.copy(tmp_path / "bundle")
    bundle.edit_ticket(lambda ticket: ticket["declared"].append(ticket["declared"][0]))
    with pytest.raises(InvalidInputError, match="one calibrated margin") as error:
        check(bundle, "release")
    assert error.value.code == "TICKET_MALFORMED"


@plant("REFUTED", "CLAIM_DIFFERS")
def a_disagreement_of_e_star_is_hidden(bundle: Bundle) -> None:
    decided(bundle, 3)
    bundle.forge()


@plant("REFUTED", "CLAIM_DIFFERS", fresh=True)
def an_own_margin_is_made_smaller(folder: Path) -> Bundle:
    bundle = decided(make_bundle(folder, issued=False), 3)
    bundle.issue()
    bundle.records[0]["arms"][TICKET_ARM]["own"]["p_b"][0] += 10**8
    bundle.records[0]["arms"][TICKET_ARM]["own"]["p_a"][0] -= 10**8
    bundle.forge()
    return bundle


@plant("INVALID", "EVIDENCE_MALFORMED")
def margins_are_of_an_arm_that_serves_no_ticket(bundle: Bundle) -> None:
    bundle.fields = {"margins": {TICKET_ARM: "0.9", "base": "0.9"}}
    bundle.forge()


@plant("INVALID", "EVIDENCE_MALFORMED")
def a_declared_margin_is_finer_than_probabilities(bundle: Bundle) -> None:
    bundle.fields = {"margins": {TICKET_ARM: "0.9000000001"}}
    bundle.forge()


@plant("INVALID", "EVIDENCE_MALFORMED")
def an_own_step_has_no_second_probability(bundle: Bundle) -> None:
    decided(bundle, 0)
    bundle.records[0]["arms"][TICKET_ARM]["own"]["p_b"].pop()
    bundle.forge()


@plant("INVALID", "CERTIFICATE_MALFORMED")
def a_record_of_checks_is_named(bundle: Bundle) -> None:
    bundle.edit_certificate(lambda value: value.update(proofs={"counts": {"passed": 1}}))


# --- the tests ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_ticket_does_not_pass(name: str, pristine: Bundle, tmp_path: Path) -> None:
    planted = PLANTS[name]
    report = check(run(name, pristine, tmp_path), planted.policy)
    (ticket,) = report.tickets
    decisive = {item.code for item in ticket.items if item.outcome != "pass"}
    assert (ticket.status.value, planted.code in decisive) == (planted.status, True), decisive
    assert int(report.exit_code) != 0


@pytest.mark.parametrize(
    "name",
    [
        *("an_evaluated_sentence_was_tuned_on", "the_arm_of_the_ticket_has_another_table"),
        *("a_record_is_repeated", "a_random_draw_was_picked"),
        *("a_window_of_unrelated_text_is_copied", "a_line_of_unrelated_text_stands_in_a_second_unit"),
        *("unrelated_text_was_tuned_on", "unrelated_text_was_tuned_on_and_only_the_other_text_says_so"),
        "the_ticket_was_chosen_on_a_line_of_the_unrelated_text",
        *("the_ticket_was_chosen_on_the_evidence_itself", "the_record_of_the_choice_is_taken_away"),
    ],
)
def test_no_certificate_is_issued_on_invalid_evidence(name: str, pristine: Bundle, tmp_path: Path) -> None:
    planted = PLANTS[name]
    bundle = run(name, pristine, tmp_path)
    before = bundle.certificate.read_bytes()
    with pytest.raises(InvalidInputError) as caught:
        bundle.issue()
    assert caught.value.code == planted.code
    assert bundle.certificate.read_bytes() == before


def test_there_are_plants_enough() -> None:
    assert len(PLANTS) >= 40
    assert {planted.status for planted in PLANTS.values()} == {
        "REFUTED",
        "INVALID",
        "INCONCLUSIVE",
        "VACUOUS",
    }
