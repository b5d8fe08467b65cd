"""Gates that lie: this project's gate keeps its promise where usual ones do not, on scores and on files."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from command import in_process
from documents import PAGES
from evidence_folders import TICKET_ARM, make_bundle
from fake_checkpoint import digests
from safetensors.numpy import load_file, save_file
from scipy import stats
from ticket_folders import TENSOR, base_table, tuned_table

from certify.evidence.load import load
from certify.evidence.sentence_scores import POINT, unit_scores
from proofs_checks.rivals.gates import DELTA, GATES
from proofs_checks.rivals.situations import MARGIN, SITUATIONS, Attempt
from proofs_checks.rivals.table import releases, table

DRAWS = 60
OURS, USUAL = "certify", "paired t limit"


@pytest.fixture(scope="module")
def found():
    return releases({name: GATES[name] for name in (OURS, USUAL)}, DRAWS, seed=1)


def test_wrong_releases_are_within_the_promise(found):
    for situation in SITUATIONS[:-1]:
        wrong = found[situation.name][OURS]
        assert stats.binom.sf(wrong - 1, DRAWS, float(DELTA)) > 1e-4, situation.name


def test_every_situation_deceives_the_usual_limit(found):
    """Else the situation is no attack, and the gate's success in it says nothing."""
    for situation in SITUATIONS[:-1]:
        wrong = found[situation.name][USUAL]
        assert stats.binom.sf(wrong - 1, DRAWS, float(DELTA)) < 0.01, situation.name


def test_an_equal_candidate_is_released(found):
    """A gate that releases nothing would pass the first test."""
    assert found["an equal one"][OURS] >= 0.6 * DRAWS


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda one: one.name)
def test_the_truth_is_what_the_name_says(situation):
    random = np.random.default_rng(0)
    drawn = [situation.draw(random).candidates.mean(1).mean() for _ in range(600)]
    low, high = stats.norm.interval(0.9999, np.mean(drawn), stats.sem(drawn))
    assert low < situation.truth < high
    assert (situation.truth < -MARGIN) == (situation is not SITUATIONS[-1])


def test_twenty_equal_pairs_show_nothing():
    """Another gate ships here: a sample without variance has a standard error of zero."""
    attempt = Attempt(np.zeros((1, 20), dtype=np.int64), (20,))
    assert not GATES[OURS](attempt)
    assert GATES["percentile bootstrap limit"](attempt)


def test_the_table_has_a_row_for_each_situation(found):
    lines = table(found, DRAWS).splitlines()
    assert len(lines) == 2 + len(SITUATIONS)
    assert all(situation.name in line for situation, line in zip(SITUATIONS, lines[2:], strict=True))


# --- files that are not what was evaluated, while every score stays as it was ---------------------------


def with_row(row):
    """A bundle whose row 20, outside the ticket, is another one in the tuned table; all else is honest."""

    def plant(_, folder):
        tuned = tuned_table()
        tuned[20] = row
        return make_bundle(folder, tuned=tuned)

    return plant


def changed(change):
    """The certified bundle after a change."""

    def plant(honest, folder):
        bundle = honest.copy(folder / "copy")
        change(bundle)
        return bundle

    return plant


def flip_table(bundle):
    (file,) = (bundle.folder / "reference").glob("*.safetensors")
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def other_tokenizer(bundle):
    bundle.fields["tokenizer_sha256"] = "0" * 64
    bundle.forge()


def tuned_on(bundle):
    bundle.used = {"tuning": [bundle.records[5]["source"]]}
    bundle.forge()


def served_weights(change):
    def plant(merged):
        file = merged / "model.safetensors"
        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file)

    return plant


def served_tokenizer(merged):
    file = merged / "tokenizer.json"
    file.write_text(file.read_text().replace("w10", "w1O"))


CHECKED = {
    "one row of the table permuted: the KS distance is zero": (
        with_row(np.roll(base_table()[20], 1)),
        ("REFUTED", "PERMUTED_ROW"),
    ),
    "a row replaced by another one of the same scale": (
        with_row(base_table()[21]),
        ("REFUTED", "ROTATED_ROW"),
    ),
    "one byte of a table changed after certification": (changed(flip_table), ("INVALID", "FILE_DIGEST")),
    "evaluated with another tokenizer than the ticket's": (
        changed(other_tokenizer),
        ("INVALID", "EVIDENCE_TOKENIZER"),
    ),
    "an evaluated sentence was tuned on": (changed(tuned_on), ("INVALID", "DATA_OVERLAP")),
}
SERVED = {
    "served: a row of the ticket changed after certification": (
        served_weights(lambda tensors: tensors[TENSOR][5].sort()),
        "ALTERED",
    ),
    "served: another row permuted": (
        served_weights(lambda tensors: tensors[TENSOR].__setitem__(20, np.roll(tensors[TENSOR][20], 1))),
        "FOREIGN",
    ),
    "served: weights missing, which loaders fill at random": (
        served_weights(lambda tensors: tensors.pop("lm_head.weight")),
        "MISSING_TENSORS",
    ),
    "served: another tokenizer": (served_tokenizer, "TOKENIZER_DIFFERS"),
}


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("honest"))


def assert_scores_release(bundle):
    """Every gate that looks at the scores alone lets the ticket through."""
    evidence = load(bundle.translated)
    ours, base = (np.array(unit_scores(evidence, arm, "whole")) for arm in (TICKET_ARM, "base"))
    points = np.rint((ours - base) / POINT).astype(np.int64)
    for name in GATES.keys() - {"statgate"}:
        assert GATES[name](Attempt(points[None], (len(points),))), name


@pytest.mark.parametrize("case", CHECKED)
def test_the_check_denies_what_scores_cannot_show(case, honest, tmp_path, capsys):
    plant, wanted = CHECKED[case]
    bundle = plant(honest, tmp_path)
    assert_scores_release(bundle)
    (found,) = json.loads(in_process(["check", bundle.path, "--format", "json"], capsys).out)["tickets"]
    assert (found["verdict"], wanted[1] in {item["code"] for item in found["items"]}) == (wanted[0], True)


def test_what_is_served_is_denied_unless_it_is_what_was_certified(honest, tmp_path, capsys):
    ticket = ["--ticket", honest.path, "--base", honest.folder.parent / "sources" / "checkpoint"]
    for number, (case, (plant, code)) in enumerate({"honest": (None, None), **SERVED}.items()):
        merged = tmp_path / str(number)
        assert in_process(["apply", *ticket, "--out", merged], capsys).code == 0
        before = digests(merged)
        if plant:
            plant(merged)
        assert (digests(merged) == before) == (plant is None)
        ran = in_process(["verify", *ticket, "--served", merged, "--format", "json"], capsys)
        codes = [finding["code"] for finding in json.loads(ran.out)["findings"]]
        assert (ran.code, codes) == ((1, [code]) if code else (0, [])), case


def test_the_comparison_lists_these_cases():
    listed = re.findall(r"^\| (.+) \| ([A-Z]+) \| `([A-Z_]+)` \|$", PAGES["docs/comparison.md"], re.MULTILINE)
    ours = {name: verdict for name, (_, verdict) in CHECKED.items()}
    ours |= {name: ("REFUTED", code) for name, (_, code) in SERVED.items()}
    assert {name: (verdict, code) for name, verdict, code in listed} == ours
