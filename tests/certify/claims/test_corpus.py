"""Claims about corpus scores: sacreBLEU on the very texts, resampling written out, what they may decide."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from claims_world import evidence_of, subject_of
from evidence_truth import Truth
from hypothesis import given, settings
from hypothesis import strategies as st
from profiles import examples
from sacrebleu.metrics.bleu import BLEU as SacreBLEU
from sacrebleu.metrics.chrf import CHRF as SacreCHRF

from certify.base.enclosure import rational
from certify.base.errors import InvalidInputError
from certify.base.records import RULES
from certify.certificate.schema import is_stated
from certify.claims.claim import Claim, Finding
from certify.claims.corpus import METRICS, corpus_difference, resampled
from certify.claims.every import report
from certify.claims.quality import COMPARATORS
from certify.claims.registry import KINDS
from certify.evidence.corpus_scores import DRAWS, corpus_bleu, corpus_chrf
from certify.evidence.load import Evidence, Subject
from certify.policy.policy import parse_policy
from certify.policy.requirement import TESTS
from certify.stats.resampling import Counts, Scores, paired_bootstrap, paired_swap
from lottery.text.score import Scorer
from proofs_checks.worlds.synthetic import Behaviour, arm, digest, null_arms, plain_arms, sentence, vector

SUBJECT = subject_of({20: 1})
DELTA = Fraction(1, 20)
GRID = 2.0**-31


# --- scores against sacreBLEU -----------------------------------------------------------------------------

WORDS = st.sampled_from(["the", "cat", "sat", "mat", "on", "a", "gat", "sobre", "l'estora", "!", "Σ"])
SENTENCES = st.lists(WORDS, max_size=9).map(" ".join)


def summed(pairs: list[tuple[str, str]]) -> Counts:
    scorer = Scorer()
    vectors = [scorer.statistics(ours, theirs) for ours, theirs in pairs]
    return np.array(vectors, dtype=np.int64).sum(axis=0, keepdims=True)


@settings(max_examples=examples(150))
@given(st.lists(st.tuples(SENTENCES, SENTENCES.filter(bool)), min_size=1, max_size=4))
def test_scores_of_sums_are_sacrebleus_corpus_scores(pairs: list[tuple[str, str]]) -> None:
    """Short sentences: orders without matches, which are smoothed, and orders without n-grams."""
    ours, theirs = map(list, zip(*pairs, strict=True))
    sums = summed(pairs)
    bleu = SacreBLEU().corpus_score(ours, [theirs]).score
    chrf = SacreCHRF(word_order=2).corpus_score(ours, [theirs]).score
    assert float(corpus_bleu(sums[:, :10])[0]) == pytest.approx(bleu, abs=1e-9)
    assert float(corpus_chrf(sums[:, 10:])[0]) == pytest.approx(chrf, abs=1e-9)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("", "the cat sat on the mat"),  # no output
        ("dog", "the cat sat on the mat"),  # nothing matches
        ("the cat sat on the mat", "the cat sat on the mat"),
        ("the dog sat by the wall today", "the cat sat on the mat"),  # unigrams only: orders 2 to 4 smoothed
        ("the cat", "the cat sat on the mat"),  # no 3-grams at all; short
        ("the cat sat on the mat and on the cat", "the cat sat on"),  # long: no penalty
        ("x", "x"),
    ],
)
def test_corners_of_bleu_and_chrf(ours: str, theirs: str) -> None:
    sums = summed([(ours, theirs)])
    bleu = SacreBLEU().corpus_score([ours], [[theirs]]).score
    chrf = SacreCHRF(word_order=2).corpus_score([ours], [[theirs]]).score
    assert float(corpus_bleu(sums[:, :10])[0]) == pytest.approx(bleu, abs=1e-9)
    assert float(corpus_chrf(sums[:, 10:])[0]) == pytest.approx(chrf, abs=1e-9)
    assert math.isfinite(bleu)
    assert math.isfinite(chrf)


def test_many_sums_are_scored_as_one_by_one() -> None:
    rows = np.array([vector(m) for m in (0, 1, 7, 20)], dtype=np.int64)
    for statistic, columns in ((corpus_bleu, slice(0, 10)), (corpus_chrf, slice(10, 34))):
        together = statistic(rows[:, columns])
        assert together.tolist() == pytest.approx([float(statistic(row[None, columns])[0]) for row in rows])
        assert together[0] == 0
        assert together[-1] == pytest.approx(100)


# --- claims ------------------------------------------------------------------------------------------------


def of_arm(evidence: Evidence, name: str, rule: int) -> Counts:
    """Sums by unit in the order of ranks, written out."""
    rows = []
    for records in evidence.units.values():
        chosen = [record.arms[name].stats[record.arms[name].rules[rule]] for record in records]
        rows.append([sum(column) for column in zip(*chosen, strict=True)])
    return np.array(rows, dtype=np.int64)


FULL = arm("full", "full", table_sha256=None, model_sha256=digest("weights"))


def world(seed: int = 3, units: int = 40, **fields: Any) -> Evidence:
    quality = {"t": 60.0, "base": 40.0, "reference": 58.0, "full": 62.0}
    records, arms = Truth(quality=quality, per_unit=3).world(seed, units, [*plain_arms(), FULL])
    return evidence_of(records, arms, **fields)


def corpus_claims(evidence: Evidence, subject: Subject) -> list[Claim]:
    return [
        resampled(claim, evidence)
        for kind in METRICS
        for claim in KINDS[kind].claims(evidence, subject, DELTA)
    ]


@pytest.mark.parametrize("kind", METRICS)
@pytest.mark.parametrize("comparator", COMPARATORS)
def test_a_claim_is_the_paired_bootstrap_and_the_swap_of_whole_units(kind: str, comparator: str) -> None:
    """Shared draws give what the functions for one pair give, with the evidence's own seed."""
    evidence = world(order_seed=17)
    metric = METRICS[kind]
    a, b = (of_arm(evidence, name, 1)[:, metric.columns] for name in ("t", comparator))
    plain = corpus_difference(evidence, SUBJECT, kind, comparator, rule="first-line", delta=DELTA)
    assert (plain.lower, plain.upper, plain.detail["p_value"]) == (None, None, None)
    found = resampled(plain, evidence)
    assert (found.name, found.estimate, found.signature) == (plain.name, plain.estimate, plain.signature)

    def statistic(sums: Counts) -> Scores:
        return metric.statistic(sums)[:, None]

    limits = [float(one[0]) for one in paired_bootstrap(a, b, statistic, DELTA, 17, DRAWS)]
    assert found.lower is not None
    assert found.upper is not None
    assert found.estimate is not None
    assert [float(found.lower), float(found.upper)] == pytest.approx(limits, abs=GRID)
    assert found.lower <= limits[0]
    assert limits[1] <= found.upper
    (p,) = paired_swap(a, b, statistic, 17, DRAWS)
    assert found.detail["p_value"] == rational(p)
    ours, theirs = (float(metric.statistic(counts.sum(axis=0)[None])[0]) for counts in (a, b))
    assert float(Fraction(found.detail["ticket"])) == pytest.approx(ours, abs=GRID)
    assert float(Fraction(found.detail["other"])) == pytest.approx(theirs, abs=GRID)
    assert float(found.estimate) == pytest.approx(ours - theirs, abs=GRID)
    assert found.lower < found.estimate < found.upper
    assert (found.n, found.finding, found.code) == (40, Finding.MEASURED, "ASYMPTOTIC")


def test_claims_say_that_they_are_asymptotic_and_name_every_setting() -> None:
    evidence = world(order_seed=5, signatures={"bleu": "tok:13a|smooth:exp", "chrf": "nc:6|nw:2"})
    claims = corpus_claims(evidence, SUBJECT)
    assert len({claim.name for claim in claims}) == len(claims) == 2 * 3 * 3
    for claim in claims:
        assert KINDS[claim.kind].asymptotic
        assert "asymptotic" in claim.procedure
        assert claim.assumptions == ("A-BLOCKS", "A-EVIDENCE", "A-ASYMPTOTIC")
        fields = dict(field.split(":", 1) for field in claim.signature.split("|"))
        assert (fields["seed"], fields["draws"], fields["rule"]) == ("5", str(DRAWS), claim.extraction)
        assert fields["counted"] in ("tok:13a smooth:exp", "nc:6 nw:2")
        assert (claim.detail["seed"], claim.detail["draws"]) == (5, DRAWS)
    others = [one for one in report([evidence], SUBJECT)[0].claims if one.kind not in METRICS]
    assert not any(KINDS[claim.kind].asymptotic or "A-ASYMPTOTIC" in claim.assumptions for claim in others)


def test_the_recorded_seed_decides_and_nothing_else() -> None:
    def figures(evidence: Evidence) -> list[Any]:
        return [claim.to_json() | {"evidence": None} for claim in corpus_claims(evidence, SUBJECT)]

    assert figures(world(order_seed=1)) == figures(world(order_seed=1))
    one, two = (corpus_claims(world(order_seed=seed), SUBJECT)[0] for seed in (1, 2))
    assert one.estimate == two.estimate
    assert (one.lower, one.upper) != (two.lower, two.upper)


def test_blocks_are_resampled_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine equal sentences a block: as if there were one of it, not nine."""
    # Units stand in an order that follows from their content, which differs here.
    monkeypatch.setattr("certify.evidence.load.unit_key", lambda records: records[0].unit)
    records, _ = Truth(quality={"t": 70.0}).world(0, 25)
    many = [
        {**record, "id": f"text:{9 * i + j}", "source": digest(f"s{i}.{j}")[:16]}
        for i, record in enumerate(records)
        for j in range(9)
    ]
    few, repeated = (corpus_claims(evidence_of(some), SUBJECT)[0] for some in (records, many))
    assert repeated.n == few.n == 25
    for limit in ("estimate", "lower", "upper"):
        assert float(getattr(repeated, limit)) == pytest.approx(float(getattr(few, limit)), abs=1e-6)
    assert repeated.detail["p_value"] == few.detail["p_value"]


def test_the_same_outputs_differ_by_nothing_and_have_p_one() -> None:
    same = dict.fromkeys(("base", "reference", "t"), Behaviour(matches=(3, 9, 9)))
    for claim in corpus_claims(evidence_of([sentence(i, same) for i in range(12)]), SUBJECT):
        if claim.comparator == "full":
            assert (claim.finding, claim.code) == (Finding.MISSING, "COMPARATOR_NOT_EVALUATED")
        else:
            assert (claim.estimate, claim.lower, claim.upper) == (0, 0, 0)
            assert claim.detail["p_value"] == "1/1"


def test_rules_are_not_mixed_up() -> None:
    behaviours = {
        "base": Behaviour(matches=(0, 4, 6)),
        "reference": Behaviour(),
        "t": Behaviour(matches=(10, 5, 6)),
    }
    evidence = evidence_of([sentence(i, behaviours) for i in range(5)])
    found = {
        rule: corpus_difference(evidence, SUBJECT, "corpus-chrf", "base", rule=rule).estimate
        for rule in RULES
    }
    assert {rule: round(float(value or 0)) for rule, value in found.items()} == {
        "whole": 50,
        "first-line": 5,
        "cut": 0,
    }
    bleu = corpus_difference(evidence, SUBJECT, "corpus-bleu", "base", rule="whole")
    assert Fraction(bleu.detail["other"]) == 0, "nothing matches"
    assert Fraction(bleu.detail["ticket"]) > 0


def test_of_several_full_models_the_best_is_the_bar() -> None:
    arms = [arm(name, "full", table_sha256=None, model_sha256=digest(name)) for name in ("weak", "strong")]
    truth = Truth(quality={"t": 50.0, "weak": 20.0, "strong": 90.0})
    records, arms = truth.world(0, 30, [*plain_arms(), *arms])
    claim = corpus_difference(evidence_of(records, arms), SUBJECT, "corpus-bleu", "full", rule="cut")
    assert claim.detail["arm"] == "strong"
    assert [one["arm"] for one in claim.detail["compared"]] == ["weak", "strong"]


# --- what cannot be said ----------------------------------------------------------------------------------


def figures_of(claim: Claim) -> tuple[bool, bool, bool, bool]:
    p = claim.detail["p_value"]
    return claim.estimate is not None, claim.lower is not None, claim.upper is not None, p is not None


def test_a_sequential_design_has_estimates_only() -> None:
    for claim in corpus_claims(world(design="sequential"), SUBJECT):
        assert figures_of(claim) == (True, False, False, False)


def test_one_unit_or_too_small_an_error_probability_has_no_limits() -> None:
    one = evidence_of(Truth(per_unit=5).world(0, 1)[0])

    def figures(evidence: Evidence, delta: Fraction) -> tuple[bool, bool, bool, bool]:
        claim = corpus_difference(evidence, SUBJECT, "corpus-bleu", "base", rule="whole", delta=delta)
        return figures_of(resampled(claim, evidence))

    assert figures(one, DELTA) == (True, False, False, True)
    assert figures(world(), Fraction(1, DRAWS + 2)) == (True, False, False, True)
    assert figures(world(), Fraction(1, DRAWS + 1)) == (True, True, True, True)
    assert figures(world(), Fraction(1, 2)) == (True, False, False, True)


def test_counts_beyond_64_bits_stop_nothing() -> None:
    records, _ = Truth().world(0, 3)
    huge = (1 << 53) - 1
    for record in records:
        for answer in record["arms"].values():
            answer["stats"], answer["rules"] = [[huge] * 10 + [huge] * 24], [0, 0, 0]
    many = [
        {**records[0], "id": f"text:{i}", "unit": str(i), "source": digest(f"s{i}")[:16]} for i in range(300)
    ]
    for claim in corpus_claims(evidence_of(many), SUBJECT):
        if claim.comparator != "full":
            assert (claim.finding, claim.code) == (Finding.NOT_APPLICABLE, "UNIT_RANGE")


def test_without_the_tickets_arm_nothing_is_said() -> None:
    other = subject_of(table=digest("another table"))
    for claim in corpus_claims(world(), other):
        assert (claim.finding, claim.code) == (Finding.MISSING, "ARM_NOT_EVALUATED")


# --- what they may decide ---------------------------------------------------------------------------------


def test_no_certificate_states_them_and_no_policy_asks_for_them() -> None:
    for claim in corpus_claims(world(), SUBJECT):
        assert claim.name not in TESTS
        assert not any(is_stated(claim, role) for role in ("evaluation", "other-template", "loss"))


POLICY = """
schema = "certify.policy"
schema_version = 1
name = "mine"
question = "Is it better?"
delta = "0.05"
items = [
  "integrity.base", "integrity.reference", "integrity.tokenizer", "integrity.template", "integrity.rows",
  "released.rows", "certificate.present", "certificate.content", "certificate.claims", "evidence.integrity",
  "evidence.split",
]
design = ["A-UNITS", "A-EVIDENCE"]
accept = [{accept}]
[[claim]]
name = "{name}"
above = "0"
"""


def test_a_policy_that_names_one_is_refused_in_one_clear_line() -> None:
    assert parse_policy(POLICY.format(accept="", name="gain:base:first-line").encode()).claims
    for name in ("corpus-bleu:base:first-line", "corpus-chrf:full:whole"):
        with pytest.raises(InvalidInputError, match=f"{name}.* is asymptotic: it informs") as caught:
            parse_policy(POLICY.format(accept="", name=name).encode())
        assert caught.value.code == "POLICY_ASYMPTOTIC"
        assert "\n" not in str(caught.value)


def test_no_policy_can_accept_that_units_are_enough() -> None:
    with pytest.raises(InvalidInputError, match="A-ASYMPTOTIC") as caught:
        parse_policy(POLICY.format(accept='"A-ASYMPTOTIC"', name="gain:base:first-line").encode())
    assert caught.value.code == "POLICY_MALFORMED"


def test_tickets_of_one_evidence_share_the_draws() -> None:
    """Whatever was asked before, the answer is the same."""
    arms = [*plain_arms(), *null_arms()]
    records, arms = Truth().world(0, 20, arms)
    evidence = evidence_of(records, arms)
    first = corpus_claims(evidence, SUBJECT)
    assert evidence.corpus is evidence.corpus
    assert corpus_claims(evidence, SUBJECT) == first
    assert corpus_claims(evidence_of(records, arms), SUBJECT) == first
