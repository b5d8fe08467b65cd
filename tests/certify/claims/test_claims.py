"""Claims from evidence, one kind after another: units, estimates, limits worked out from plain records."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import pytest
from claims_world import evidence_of, subject_of
from evidence_truth import Truth, worlds
from hypothesis import given, settings
from hypothesis import strategies as st
from profiles import examples
from sacrebleu.metrics.chrf import CHRF
from scipy import stats

from certify.base.assumptions import ASSUMPTIONS
from certify.base.enclosure import rational
from certify.base.records import RULES
from certify.claims.agreement import agreement_rate, token_agreement
from certify.claims.claim import Claim, Finding, signature
from certify.claims.counts import non_interference, opportunity, split_claim, termination
from certify.claims.every import report
from certify.claims.loss import unrelated_excess, unrelated_loss
from certify.claims.quality import better_than_nulls, gain, non_inferiority, retention
from certify.evidence.load import Evidence, Subject
from certify.evidence.null_labels import GROUPS, NULLS
from certify.evidence.sentence_scores import POINT, mean_score, sentence_chrf
from certify.stats.betting import betting_lower, difference_lower
from certify.stats.rates import clopper_pearson
from proofs_checks.worlds.synthetic import (
    BASE_TABLE,
    FULL,
    TICKET_IDS,
    TICKET_TABLE,
    UNIT,
    Behaviour,
    arm,
    digest,
    null_arms,
    plain_arms,
    sentence,
    text_of,
    vector,
    window,
)

DELTA = Fraction(1, 20)
SUBJECT = subject_of({20: 1})


def order_of(records: Sequence[Any], seed: int | None = None) -> list[str]:
    """Units ascending by the SHA-256 of what they are made of; with a seed, of seed and name."""
    made: dict[str, list[str]] = {}
    for record in records:
        about = record.get("source") or record["window"]
        made.setdefault(record["unit"], []).append(about)
    keys = {unit: digest(",".join(sorted(content))) for unit, content in made.items()}
    return sorted(made, key=lambda unit: keys[unit] if seed is None else digest(f"{seed}:{unit}"))


def per_unit(records: Sequence[Any], value: Callable[[list[Any]], Any], seed: int | None = None) -> list[Any]:
    return [value([one for one in records if one["unit"] == unit]) for unit in order_of(records, seed)]


def chrf(record: Any, name: str, rule: int) -> Fraction:
    """By the number of matches that :func:`vector` put in: 5 points each."""
    answer = record["arms"][name]
    return Fraction(100 * answer["stats"][answer["rules"][rule]][-1], FULL)


# --- the record --------------------------------------------------------------------------------------------


def floats_in(value: Any) -> bool:
    if isinstance(value, dict):
        return any(floats_in(one) for one in value.values())
    if isinstance(value, list):
        return any(floats_in(one) for one in value)
    return not (value is None or isinstance(value, (str, bool, int)))


def everything() -> tuple[Claim, ...]:
    arms = [*plain_arms(), *null_arms(), arm("full", "full", table_sha256=None, model_sha256=digest("w"))]
    records, arms = Truth(disagreement=0.1).world(5, 8, arms)
    evidence = evidence_of(records, arms, used={"tuning": []})
    loss = evidence_of([window(i, {"base": 100, "t": 90 + i}) for i in range(4)], two_arms())
    return tuple(claim for one in report([evidence, loss], SUBJECT) for claim in one.claims)


def two_arms() -> list[Any]:
    return [plain_arms()[0], plain_arms()[2]]


def test_claims_are_plain_data_without_floats_and_have_names_of_their_own() -> None:
    claims = everything()
    for claim in claims:
        assert not floats_in(claim.to_json())
        assert set(claim.assumptions) <= set(ASSUMPTIONS)
        assert claim.finding is Finding.MISSING or claim.evidence
        assert "\n" not in claim.signature
    assert len({(claim.evidence, claim.name) for claim in claims}) == len(claims) > 20
    assert {claim.kind for claim in claims} >= {"agreement-rate", "guarantee", "gain", "unrelated-loss"}


def test_a_value_cannot_add_a_setting_to_a_signature() -> None:
    assert signature(a="x|delta:1", b_c=None, d_e=Fraction(1, 2)) == "a:x delta:1|d-e:1/2|schema:1"
    assert rational(Fraction(3)) == "3/1"
    assert rational(None) is None


# --- agreement ---------------------------------------------------------------------------------------------


@settings(max_examples=examples(40))
@given(worlds())
def test_agreement_counts_whole_units(records: list[Any]) -> None:
    found = agreement_rate(evidence_of(records), SUBJECT)
    equal = sum(per_unit(records, lambda unit: not any(one["arms"]["t"]["differs"] for one in unit)))
    n = len(order_of(records))
    lower = 0.0 if equal == 0 else float(stats.beta.ppf(0.05, equal, n - equal + 1))
    assert (found.estimate, found.n) == (Fraction(equal, n), n)
    assert found.lower is not None
    assert lower - 1e-9 < float(found.lower) < lower + 1e-8
    assert found.lower <= Fraction(equal, n)


@settings(max_examples=examples(40))
@given(worlds(), st.sampled_from(["fixed", "sequential"]))
def test_mean_agreement_weighs_units_equally(records: list[Any], design: str) -> None:
    def share(unit: list[Any]) -> Fraction:
        steps = sum(len(one["reference"]["tokens"]) for one in unit)
        return 1 - Fraction(sum(len(one["arms"]["t"]["differs"]) for one in unit), steps)

    shares = per_unit(records, share, 0 if design == "sequential" else None)
    found = token_agreement(evidence_of(records, design=design), SUBJECT)
    assert found.lower == betting_lower(shares, DELTA, design).value  # type: ignore[arg-type]
    assert found.estimate is not None
    assert abs(found.estimate - sum(shares, Fraction(0)) / len(shares)) < Fraction(1, 2**31)


def test_a_sequential_design_has_no_fixed_sample_limit() -> None:
    records, _ = Truth().world(0, 30)
    claim = agreement_rate(evidence_of(records, design="sequential"), SUBJECT)
    assert claim.procedure == "betting/2"
    assert "design:sequential" in claim.signature


@settings(max_examples=examples(20))
@given(worlds(), st.randoms(use_true_random=False))
def test_the_order_of_the_file_changes_nothing(records: list[Any], shuffler: random.Random) -> None:
    shuffled = list(records)
    shuffler.shuffle(shuffled)
    for make in (agreement_rate, token_agreement, opportunity, non_interference, termination):
        one, two = (make(evidence_of(some), SUBJECT) for some in (records, shuffled))
        assert (one.estimate, one.lower, one.detail) == (two.estimate, two.lower, two.detail)


def test_a_seed_orders_the_units_of_a_sequential_design_alone() -> None:
    records, _ = Truth(disagreement=0.3).world(2, 40)
    one, two = (evidence_of(records, order_seed=seed, design="sequential") for seed in (0, 1))
    assert list(one.units) == order_of(records, 0) != list(two.units)
    assert token_agreement(one, SUBJECT).estimate == token_agreement(two, SUBJECT).estimate
    same = [token_agreement(evidence_of(records, order_seed=seed), SUBJECT) for seed in (0, 1)]
    assert same[0].lower == same[1].lower


def test_blocks_are_assumed_independent_and_say_so() -> None:
    records, _ = Truth(per_unit=3).world(0, 5)
    assert "A-BLOCKS" in agreement_rate(evidence_of(records), SUBJECT).assumptions
    text = {"name": "x", "sha256": digest("x"), "attribution": "", "sentences": 5, "unit": "sentence"}
    single = evidence_of(Truth().world(0, 5)[0], text=text)
    assert "A-UNITS" in agreement_rate(single, SUBJECT).assumptions


def test_documents_are_the_independent_draws_that_theory_asks_for() -> None:
    """Sentences of a document are one draw, whatever it is called and wherever its lines stand."""
    truth = Truth(disagreement=0.5, per_unit=3, quality={"t": 60})
    records = [one for one in truth.world(0, 30)[0] if one["id"] != "text:0"]
    for record in records:
        record["unit"] = f"news/{record['unit']}"
    records = records[::2] + records[1::2]
    text = {"name": "x", "attribution": "", "unit": "document"} | text_of(records)
    evidence = evidence_of(records, text=text, used={"tuning": []})
    made = [claim for claim in report([evidence], SUBJECT)[0].claims if claim.lower is not None]
    assert {"gain", "agreement-rate", "guarantee"} <= {claim.kind for claim in made}
    for claim in made:
        assert "A-DOCUMENTS" in claim.assumptions, claim.name
        assert not {"A-UNITS", "A-BLOCKS"} & set(claim.assumptions)
        assert claim.unit == "document"
        assert "|unit:document|" in claim.signature
    gained = next(claim for claim in made if claim.kind == "gain")
    index = RULES.index(gained.extraction)
    rises = [
        sentence_chrf(ours.stats[ours.rules[index]]) - sentence_chrf(its.stats[its.rules[index]])
        for ours, its in ((record.arms["t"], record.arms["base"]) for record in evidence.records)
    ]
    assert abs(Fraction(gained.detail["by_sentence"]) - Fraction(sum(rises), 89 * POINT)) < Fraction(1, POINT)


# --- quality -----------------------------------------------------------------------------------------------


@st.composite
def statistics(draw: st.DrawFn) -> list[int]:
    """BLEU's ten counts, unused here, and eight orders of (hypothesis, reference, matches)."""
    orders = []
    for _ in range(8):
        hypothesis, reference = draw(st.integers(0, 200)), draw(st.integers(0, 200))
        orders += [hypothesis, reference, draw(st.integers(0, min(hypothesis, reference)))]
    return [0] * 10 + orders


def chrf_by_definition(counts: list[int]) -> Fraction:
    """100 (1 + β²) P R / (β² P + R) with β = 2, P and R averaged over the orders of both sides."""
    orders = [
        order for order in zip(counts[10::3], counts[11::3], counts[12::3], strict=True) if all(order[:2])
    ]
    precision = sum(Fraction(match, hypothesis) for hypothesis, _, match in orders) / max(1, len(orders))
    recall = sum(Fraction(match, reference) for _, reference, match in orders) / max(1, len(orders))
    return 500 * precision * recall / (4 * precision + recall) if precision + recall else Fraction(0)


@given(statistics())
def test_sentence_chrf_is_sacrebleus(counts: list[int]) -> None:
    # Its only way from statistics to a score; sentence_score takes text.
    expected = CHRF(word_order=2)._compute_f_score(counts[10:])
    assert sentence_chrf(counts) / POINT == pytest.approx(expected, abs=1e-9)
    assert 0 <= sentence_chrf(counts) <= 100 * POINT
    assert sentence_chrf(counts) == chrf_by_definition(counts) * POINT // 1


def test_sentence_chrf_of_whole_numbers() -> None:
    assert [sentence_chrf(vector(m)) for m in (0, 7, FULL)] == [0, 35 * POINT, 100 * POINT]
    assert sentence_chrf([0] * 34) == 0


@settings(max_examples=examples(40))
@given(worlds(), st.sampled_from([0, 1, 2]))
def test_quality_compares_units_sentence_by_sentence(records: list[Any], index: int) -> None:
    rule = RULES[index]

    def difference(other: str) -> list[Fraction]:
        def score(unit: list[Any], name: str) -> int:
            return math.floor(sum(chrf(one, name, index) for one in unit) * POINT / len(unit))

        return per_unit(records, lambda unit: Fraction(score(unit, "t") - score(unit, other), POINT))

    evidence = evidence_of(records)
    over_base = gain(evidence, SUBJECT, rule=rule)
    assert over_base.lower == difference_lower(difference("base"), DELTA, "fixed").value
    behind = non_inferiority(evidence, SUBJECT, "reference", rule=rule)
    assert behind.lower == difference_lower(difference("reference"), DELTA, "fixed").value
    kept = retention(evidence, SUBJECT, "0.75", rule=rule)
    to_both = zip(difference("reference"), difference("base"), strict=True)
    mixed = [3 * to_tuned / 4 + to_base / 4 for to_tuned, to_base in to_both]
    assert kept.lower == difference_lower(mixed, DELTA, "fixed").value
    assert behind.estimate is not None
    true_mean = sum(difference("reference"), Fraction(0)) / len(difference("reference"))
    assert abs(behind.estimate - true_mean) < Fraction(1, 10**6)
    assert behind.detail["smallest_margin"] == rational(max(Fraction(0), -behind.lower))


def test_rules_are_not_mixed_up() -> None:
    behaviours = {
        "base": Behaviour(matches=(2, 4, 6)),
        "reference": Behaviour(),
        "t": Behaviour(matches=(10, 5, 6)),
    }
    evidence = evidence_of([sentence(i, behaviours) for i in range(4)])
    found = {rule: gain(evidence, SUBJECT, rule=rule).estimate for rule in RULES}
    assert {rule: round(float(value or 0)) for rule, value in found.items()} == {
        "whole": 40,
        "first-line": 5,
        "cut": 0,
    }


def test_the_margin_is_the_one_declared_for_this_comparator() -> None:
    declared = [
        {"kind": "non-inferiority", "comparator": "full", "margin": "2", "delta": None, "extraction": None},
        {
            "kind": "non-inferiority",
            "comparator": "reference",
            "margin": "1.5",
            "delta": None,
            "extraction": None,
        },
    ]
    subject = subject_of(declared=declared)
    evidence = evidence_of(Truth().world(1, 20)[0])
    assert non_inferiority(evidence, subject, "reference").detail["declared_margin"] == "3/2"
    assert non_inferiority(evidence, SUBJECT, "reference").detail["declared_margin"] is None


def full(number: int) -> dict[str, Any]:
    return arm(f"full-{number}", "full", table_sha256=None, model_sha256=digest(f"weights {number}"))


def test_of_several_full_models_the_best_is_the_bar() -> None:
    quality = {"t": 50.0, "full-0": 20.0, "full-1": 80.0}
    records, arms = Truth(quality=quality).world(3, 60, [*plain_arms(), full(0), full(1)])
    claim = non_inferiority(evidence_of(records, arms), SUBJECT, "full")
    lowers = [Fraction(one["lower"]) for one in claim.detail["compared"]]
    assert claim.lower == min(lowers) == lowers[1] < 0 < lowers[0]
    assert digest("weights 1")[:12] in claim.signature


def test_comparators_that_were_not_evaluated_are_missing() -> None:
    evidence = evidence_of(Truth().world(1, 5)[0])
    claim = non_inferiority(evidence, SUBJECT, "full")
    assert (claim.finding, claim.code, claim.lower) == (Finding.MISSING, "COMPARATOR_NOT_EVALUATED", None)
    with pytest.raises(ValueError, match="compared with"):
        non_inferiority(evidence, SUBJECT, "lora")


# --- null tickets ------------------------------------------------------------------------------------------


def nulls(
    quality: float = 30.0,
    change: Callable[[list[Any]], None] = lambda _: None,
    units: int = 80,
    group: str = "chance",
) -> Claim:
    arms = [*plain_arms(), *null_arms()]
    change(arms)
    truth = Truth(quality={"t": 60.0} | {one["name"]: quality for one in arms[3:]})
    records, arms = truth.world(7, units, arms)
    return better_than_nulls(evidence_of(records, arms), SUBJECT, group)


@pytest.mark.parametrize("group", GROUPS)
def test_a_ticket_beats_nulls_that_are_worse(group: str) -> None:
    claim = nulls(group=group)
    assert claim.lower is not None
    assert claim.lower > 0
    assert len(claim.detail["compared"]) == sum(NULLS[control] for control in GROUPS[group])
    assert claim.lower == min(Fraction(one["lower"]) for one in claim.detail["compared"])


def test_one_null_as_good_as_the_ticket_is_enough_to_deny() -> None:
    truth = {"t": 60.0, "null-4": 60.0} | {f"null-{i}": 30.0 for i in range(10) if i != 4}
    records, arms = Truth(quality=truth).world(7, 80, [*plain_arms(), *null_arms()])
    found = {group: better_than_nulls(evidence_of(records, arms), SUBJECT, group) for group in GROUPS}
    assert {group: (claim.lower or 0) > 0 for group, claim in found.items()} == {
        "chance": False,
        "rivals": True,
        "one-row": True,
    }
    assert found["chance"].detail["weakest"] == "null-4"


def test_a_further_draw_is_named_and_not_compared() -> None:
    claim = nulls(change=lambda arms: arms.append(arms[3] | {"name": "fourth", "seed": 3}))
    assert claim.detail["further"] == ["fourth"]
    assert len(claim.detail["compared"]) == 6


NULL_FAULTS: dict[str, tuple[Callable[[list[Any]], None], str]] = {
    "a draw less": (lambda arms: arms.pop(5), "chance"),
    "another kind twice": (lambda arms: arms[3].update(control="top-norm"), "chance"),
    "two matched draws with the same table": (
        lambda arms: arms[6].update(table_sha256=arms[7]["table_sha256"]),
        "chance",
    ),
    "the null of another ticket": (lambda arms: arms[9].update(of="other"), "rivals"),
    "fewer rows than the ticket": (lambda arms: arms[3].update(ids=arms[3]["ids"][:-1]), "chance"),
    "more than one row for one-row": (lambda arms: arms[-1].update(ids=[1, 2, 3]), "one-row"),
    "another seed": (lambda arms: arms[3].update(seed=3), "chance"),
    "another object": (lambda arms: arms[10].update(kind="tuned"), "rivals"),
    "gated": (lambda arms: arms[3].update(gate=["source"]), "chance"),
    "not a control": (lambda arms: arms[11].update(control=None), "one-row"),
}


@pytest.mark.parametrize("fault", NULL_FAULTS)
def test_a_null_that_does_not_count_is_missing(fault: str) -> None:
    change, group = NULL_FAULTS[fault]
    claim = nulls(change=change, units=3, group=group)
    assert (claim.finding, claim.code) == (Finding.MISSING, "NULLS_MISSING")
    assert claim.detail["lacking"]


# --- unrelated text ----------------------------------------------------------------------------------------


def losses(
    rises: Sequence[float], *, tokens: int = 100, claim: Callable[..., Claim] = unrelated_loss, **fields: Any
) -> Claim:
    """Windows of ``tokens`` tokens whose loss per token rises by so many nats."""
    records = [
        window(i, {"base": 5 * UNIT * tokens, "t": round((5 + rise) * UNIT * tokens)}, tokens=tokens)
        for i, rise in enumerate(rises)
    ]
    return claim(evidence_of(records, two_arms(), **fields), SUBJECT)


def test_the_rise_of_the_loss_is_bounded_from_above() -> None:
    claim = losses([0.01, 0.03] * 150)
    assert claim.upper is not None
    assert claim.estimate is not None
    assert abs(claim.estimate - Fraction(2, 100)) < Fraction(1, 10**6)
    assert Fraction(2, 100) < claim.upper < Fraction(1, 10)
    assert claim.assumptions == ("A-BLOCKS", "A-EVIDENCE"), "a mean of capped values assumes no cap"


def test_units_of_a_loss_stand_in_the_order_of_their_content() -> None:
    rises = [(i * 7 % 11) / 100 for i in range(60)]
    records = [
        window(i, {"base": (5 * UNIT + i) * 100, "t": round((5 + rise) * UNIT * 100)})
        for i, rise in enumerate(rises)
    ]
    claim = unrelated_loss(evidence_of(records, two_arms()), SUBJECT)
    exact = {one["unit"]: Fraction(one["nats"]["t"] - one["nats"]["base"], 100 * UNIT) for one in records}
    falls = [-exact[unit] for unit in order_of(records)]
    assert claim.upper == -difference_lower(falls, DELTA, "fixed", scale=4).value


def test_a_rise_counts_up_to_the_cap_and_what_is_above_is_counted() -> None:
    assert losses([0.05] * 40 + [40.0]).upper == losses([0.05] * 40 + [2.0]).upper
    assert losses([0.05] * 40 + [2.0]).estimate > losses([0.05] * 40 + [1.9]).estimate
    assert losses([0.0] * 300 + [2.001]).detail["worst_unit"] == "300"
    for rises, above in (([2.0] * 200, 0), ([0.0] * 199 + [2.001], 1)):
        excess = losses(rises, claim=unrelated_excess)
        assert excess.estimate == Fraction(above, 200)
        assert excess.upper == clopper_pearson(above, 200, DELTA, "upper")[1]
    assert losses([0.0] * 200, claim=unrelated_excess).upper < Fraction(15, 1000)


def test_a_unit_that_falls_too_far_cannot_pay_for_others() -> None:
    assert losses([0.05] * 100 + [-4.9]).upper == losses([0.05] * 100 + [-2.0]).upper
    assert losses([0.05] * 100 + [-2.0]).upper != losses([0.05] * 100 + [-1.9]).upper


def test_windows_of_a_unit_are_pooled_by_their_tokens() -> None:
    records = [
        window(0, {"base": 0, "t": 30 * UNIT}, tokens=30, unit="a"),
        window(1, {"base": 0, "t": 0}, tokens=270, unit="a"),
    ]
    claim = unrelated_loss(evidence_of(records, two_arms()), SUBJECT)
    assert claim.n == 1
    assert claim.detail["worst"] == "1/10"


# --- exact counts ------------------------------------------------------------------------------------------


@settings(max_examples=examples(40))
@given(worlds(), st.sets(st.integers(3, 15), min_size=1, max_size=4))
def test_opportunity_and_non_interference_by_plain_loops(records: list[Any], ids: set[int]) -> None:
    subject = subject_of(ids=sorted(ids))
    evidence = evidence_of(records)
    fed = [set(one["prompt"]) | set(one["arms"]["base"]["tokens"][:-1]) for one in records]
    chances = opportunity(evidence, subject)
    for token, prompts, runs in chances.detail["ids"]:
        assert prompts == sum(token in one["prompt"] for one in records)
        assert runs == sum(token in run for run in fed)
    assert chances.detail["never"] == [i for i in sorted(ids) if not any(i in run for run in fed)]
    free = non_interference(evidence, subject)
    assert free.detail["free"] == sum(not ids & run for run in fed)
    same = [
        [one["arms"]["base"][key] for key in ("text", "ended", "length")]
        == [one["arms"]["t"][key] for key in ("text", "ended", "length")]
        for one in records
    ]
    assert free.detail["contradictions"] == sum(
        not ids & run and not equal for run, equal in zip(fed, same, strict=True)
    )


def test_the_last_generated_token_is_not_fed() -> None:
    record = sentence(0, {name: Behaviour() for name in ("base", "reference", "t")}, base_tokens=[40, 5])
    assert non_interference(evidence_of([record]), SUBJECT).estimate == 1
    record = sentence(0, {name: Behaviour() for name in ("base", "reference", "t")}, base_tokens=[5, 40])
    assert non_interference(evidence_of([record]), SUBJECT).estimate == 0


@pytest.mark.parametrize("tied", [True, None])
def test_nothing_is_structural_where_the_head_may_be_tied(tied: bool | None) -> None:
    base = {**subject_of().ticket.model_dump(mode="json")["base"], "tied": tied}
    claim = non_interference(evidence_of(Truth().world(0, 3)[0]), subject_of(base=base))
    assert (claim.finding, claim.code) == (Finding.NOT_APPLICABLE, "HEAD_NOT_UNTIED")


def test_nothing_is_structural_under_beam_search() -> None:
    decoding = {"beams": 4, "max_new_tokens": 96, "dtype": "F32"}
    claim = non_interference(evidence_of(Truth().world(0, 3)[0], decoding=decoding), SUBJECT)
    assert (claim.finding, claim.code) == (Finding.NOT_APPLICABLE, "BEAM_SEARCH")


def test_an_empty_ticket_has_no_opportunity() -> None:
    claim = opportunity(evidence_of(Truth().world(0, 3)[0]), subject_of(ids=[]))
    assert claim.finding is Finding.VACUOUS


def test_termination_shares_and_endings() -> None:
    behaviours = {
        "base": Behaviour(matches=(0, 10, 4), ended=False, length=2),
        "reference": Behaviour(matches=(20, 20, 20)),
        "t": Behaviour(matches=(16, 16, 16), length=9),
    }
    claim = termination(evidence_of([sentence(i, behaviours) for i in range(5)]), SUBJECT)
    gains = {rule: Fraction(value) for rule, value in claim.detail["gain"].items()}
    assert gains == {"whole": 80, "first-line": 30, "cut": 60}
    assert claim.detail["share"] == {"first-line": "5/8", "cut": "1/4"}
    assert claim.detail["arms"]["base"]["ended"] == "0/1"
    assert claim.detail["arms"]["ticket"] == {
        "whole": "80/1",
        "first-line": "80/1",
        "cut": "80/1",
        "ended": "1/1",
        "length_ratio": "3/1",
    }


def test_no_share_of_a_gain_that_is_none() -> None:
    behaviours = {name: Behaviour() for name in ("base", "reference", "t")}
    claim = termination(evidence_of([sentence(0, behaviours)]), SUBJECT)
    assert claim.detail["share"] == {"first-line": None, "cut": None}


@pytest.mark.parametrize(("sentences", "share"), [(50, "1/1"), (51, None)])
def test_no_share_of_a_gain_below_a_tenth_of_a_point(sentences: int, share: str | None) -> None:
    others = {name: Behaviour(matches=(20, 20, 20)) for name in ("base", "reference", "t")}
    gaining = others | {"base": Behaviour(matches=(19, 20, 20))}
    records = [sentence(i, others if i else gaining) for i in range(sentences)]
    claim = termination(evidence_of(records), SUBJECT)
    assert Fraction(claim.detail["gain"]["whole"]) == Fraction(5, sentences)
    assert claim.detail["share"] == {"first-line": share, "cut": share}


def test_means_of_scores_are_rounded_down_to_the_grid() -> None:
    third = sentence(0, {"base": Behaviour(), "reference": Behaviour(), "t": Behaviour()})
    third["arms"]["t"]["stats"] = [[20, 20, *[0] * 4, 20, 19, 18, 17, *([3, 3, 1] * 8)]]
    for name in ("base", "reference"):
        third["arms"][name]["stats"] = [[20, 20, *[0] * 4, 20, 19, 18, 17, *([3, 3, 3] * 8)]]
    found = mean_score(evidence_of([third]), "t", "whole")
    assert 0 < Fraction(100, 3) - found < Fraction(1, 2**32)


# --- the arm of the ticket ---------------------------------------------------------------------------------

MAKERS: dict[str, Callable[[Evidence, Subject], Claim]] = {
    "agreement-rate": agreement_rate,
    "token-agreement": token_agreement,
    "gain": lambda evidence, subject: gain(evidence, subject, rule="whole"),
    "non-inferiority": lambda evidence, subject: non_inferiority(evidence, subject, "reference"),
    "retention": lambda evidence, subject: retention(evidence, subject, "0.5", rule="whole"),
    "better-than-nulls": lambda evidence, subject: better_than_nulls(evidence, subject, "chance"),
    "termination": termination,
}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize(
    "change",
    [{"table_sha256": digest("another")}, {"kind": "tuned"}, {"gate": ["source"]}],
    ids=["table", "object", "gate"],
)
def test_an_arm_that_is_not_the_ticket_shows_nothing(kind: str, change: dict[str, Any]) -> None:
    arms = plain_arms()
    arms[2].update(change)
    evidence = evidence_of(Truth().world(0, 3)[0], arms)
    claim = MAKERS[kind](evidence, SUBJECT)
    assert (claim.finding, claim.code, claim.lower) == (Finding.MISSING, "ARM_NOT_EVALUATED", None)


def test_names_decide_nothing() -> None:
    arms = [*plain_arms()[:2], arm("impostor", "transfer", TICKET_IDS, table_sha256=TICKET_TABLE)]
    arms.append(arm("t", "transfer", (8, 9, 10)))
    records, arms = Truth(quality={"impostor": 100.0, "t": 0.0}).world(0, 10, arms)
    assert gain(evidence_of(records, arms), SUBJECT, rule="whole").estimate > 0  # type: ignore[operator]


def test_a_transfer_that_equals_the_base_is_not_the_arm_base() -> None:
    arms = plain_arms()
    arms[2].update(table_sha256=BASE_TABLE)
    subject = subject_of(table=BASE_TABLE)
    records, arms = Truth().world(0, 5, arms)
    assert agreement_rate(evidence_of(records, arms), subject).finding is Finding.MEASURED


def test_split_claim_counts_what_is_listed() -> None:
    records, _ = Truth().world(0, 5)
    seen = records[3]["target"]
    claim = split_claim(
        evidence_of(records, used={"tuning": [digest("x")[:16]], "pretraining": [seen]}), SUBJECT
    )
    assert claim.detail == {"used": {"pretraining": 1, "tuning": 1}, "seen_in_pretraining": 1}
    assert split_claim(evidence_of(records, used={"scan": []}), SUBJECT).code == "USED_NOT_LISTED"
