"""Certified steps, drawn steps and limits, counted again from the plain records; and known truth."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import pytest
from claims_world import evidence_of, subject_of
from evidence_truth import Truth, worlds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from profiles import examples
from scipy import stats

from certify.claims.claim import Finding
from certify.claims.criteria import (
    MAX_WITNESSES,
    Guarantee,
    drawn_index,
    guarantee,
    units_needed,
)
from certify.claims.promise import guarantee_claims, plain_rate
from certify.evidence.distances import Distances, Step, margins, measure
from certify.evidence.read import UNIT
from certify.stats.power import clean_units_needed
from certify.stats.theorem import CRITERIA, Criterion, additive, measured_max, published
from proofs_checks.worlds.synthetic import Behaviour, sentence

DELTA = Fraction(1, 20)
D = 64
HEIGHTS = st.dictionaries(st.integers(3, 15), st.integers(0, 12), max_size=10)
ALPHAS = st.sampled_from(["0.05", ".5", "0.95", "0.001"])


@st.composite
def edges(draw: st.DrawFn) -> tuple[list[Any], dict[int, int]]:
    """Records and the h of the rows that differ, with many margins at the thresholds that these make."""
    h = draw(HEIGHTS)
    return draw(worlds(heights=h, width=D)), h


def judge(
    records: list[Any],
    h: Mapping[int, int],
    criterion: Criterion = "additive",
    alpha: str = "0.05",
    **more: Any,
) -> Guarantee:
    units = measure(evidence_of(records).units, "t", Distances(D, h))
    return guarantee(units, Distances(D, h), alpha=alpha, criterion=criterion, **more)


# --- an independent count ----------------------------------------------------------------------------------


def steps_again(record: Any, h: Mapping[int, int]) -> Iterator[tuple[float, list[int], bool]]:
    """(r, counts over N, disagreement) of every step of a plain record, each set built from scratch."""
    inner = record["reference"]
    wrong = {t for t, _ in record["arms"]["t"]["differs"]}
    for t in range(len(inner["tokens"])):
        fed = set(record["prompt"]) | set(inner["tokens"][:t])
        r = (inner["p_a"][t] - inner["p_b"][t]) / 1e9
        yield max(0.0, r), [h[i] for i in fed if i in h], t in wrong


def certified_again(r: float, found: list[int], criterion: str, alpha: str) -> bool:
    if criterion == "published":
        return r > 2 * math.sqrt(math.log(2 / float(alpha)) / D)
    if criterion == "measured-max":
        return r > 2 * max(found, default=0) / D
    return r > 4 * sum(found) / D


def count_again(records: list[Any], h: Mapping[int, int], criterion: str, alpha: str) -> tuple[int, ...]:
    """(steps, certified, violations, units, drawn, disagreements)."""
    units: dict[str, list[bool]] = {}
    sources: dict[str, list[str]] = {}
    steps = 0
    for record in sorted(records, key=lambda record: record["source"]):
        found = units.setdefault(record["unit"], [])
        sources.setdefault(record["unit"], []).append(record["source"])
        for r, counts, wrong in steps_again(record, h):
            steps += 1
            if certified_again(r, counts, criterion, alpha):
                found.append(wrong)
    draws = []
    for unit, found in units.items():
        if found:
            name = hashlib.sha256(",".join(sources[unit]).encode()).hexdigest()
            draws.append(found[int(hashlib.sha256(f"drawn:{name}".encode()).hexdigest(), 16) % len(found)])
    certified = [wrong for found in units.values() for wrong in found]
    return steps, len(certified), sum(certified), len(units), len(draws), sum(draws)


@settings(max_examples=examples(40))
@given(edges(), st.sampled_from(CRITERIA), ALPHAS)
def test_every_count_by_an_independent_one(
    world: tuple[list[Any], dict[int, int]], criterion: Criterion, alpha: str
) -> None:
    records, h = world
    found = judge(records, h, criterion, alpha)
    counts = found.steps, found.certified, found.violations, found.units, found.drawn, found.disagreements
    assert counts == count_again(records, h, criterion, alpha)
    assert found.descriptive == (float(alpha) > 0.1)
    assert len(found.by_unit) == found.drawn
    assert tuple(map(sum, zip(*found.by_unit, strict=True))) in {(), (found.certified, found.violations)}


@settings(max_examples=examples(30))
@given(edges(), ALPHAS)
def test_the_shortcut_certifies_what_the_theorem_certifies(
    world: tuple[list[Any], dict[int, int]], alpha: str
) -> None:
    records, h = world
    units = measure(evidence_of(records).units, "t", Distances(D, h))
    total = dict.fromkeys(CRITERIA, 0)
    for record in records:
        for t in range(len(record["reference"]["tokens"])):
            fed = set(record["prompt"]) | set(record["reference"]["tokens"][:t])
            counts = [h[token] for token in sorted(fed) if token in h]
            r = Fraction(record["reference"]["p_a"][t] - record["reference"]["p_b"][t], UNIT)
            total["published"] += published(r, D, Fraction(alpha))
            total["measured-max"] += measured_max(r, counts, D)
            total["additive"] += additive(r, counts, D)
    for criterion in CRITERIA:
        found = guarantee(units, Distances(D, h), alpha=alpha, criterion=criterion)
        assert found.certified == total[criterion]


def test_the_drawn_margins_meet_every_threshold_and_its_neighbours() -> None:
    """A strategy that stays away from the edges would let criteria differ there."""
    met: set[tuple[str, int]] = set()

    @settings(
        max_examples=examples(150), database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(edges())
    def collect(world: tuple[list[Any], dict[int, int]]) -> None:
        records, h = world
        for record in records:
            for r, found, _ in steps_again(record, h):
                margin = round(r * 1e9)
                thresholds = {
                    "measured-max": 2 * max(found, default=0) * UNIT // D,
                    "additive": 4 * sum(found) * UNIT // D,
                    "published": int(UNIT * 2 * math.sqrt(math.log(40) / D)),
                }
                met.update((name, margin - at) for name, at in thresholds.items() if at > 0)

    collect()
    assert {(name, beside) for name in CRITERIA for beside in (-1, 0, 1)} <= met


def test_v_sum_d_of_exactly_one_counts_as_vacuous() -> None:
    for h, vacuous in ((15, 0), (16, 80), (17, 80)):  # V = 4, d = 64
        assert judge(sentences(80, 0), {20: h}, "additive").vacuous == vacuous


@pytest.mark.parametrize(("alpha", "descriptive"), [("0.1", False), (".10", False), ("0.1001", True)])
def test_a_tenth_itself_is_not_descriptive(alpha: str, descriptive: bool) -> None:
    assert judge(sentences(5, 0), {}, alpha=alpha).descriptive == descriptive


def test_a_sequential_limit_at_alpha_itself_refutes_nothing_and_holds() -> None:
    """Limits by betting are multiples of 2^-20, which a decimal level can spell exactly."""
    for wrong, side, at_it in ((90, "lower", Finding.INCONCLUSIVE), (2, "upper", Finding.HELD)):
        limit = getattr(judge(sentences(100, wrong), {}, design="sequential"), side)
        alpha = f"0.{int(limit.value * 10**20):020d}"
        assert Fraction(alpha) == limit.value
        assert judge(sentences(100, wrong), {}, alpha=alpha, design="sequential").finding is at_it


def test_n_grows_with_the_prefix_and_counts_each_row_once() -> None:
    h = {5: 3, 7: 2, 30: 6}
    record = sentence(0, arms(), prompt=[1, 5, 7], tokens=[30, 5, 30, 2])
    (steps,) = measure(evidence_of([record]).units, "t", Distances(D, h)).values()
    assert [(step.total, step.largest, step.changed) for step in steps] == [
        (5, 3, 2),
        (11, 6, 3),
        (11, 6, 3),
        (11, 6, 3),
    ]


def test_a_permuted_row_is_in_n_though_its_distance_is_zero() -> None:
    (steps,) = measure(
        evidence_of([sentence(0, arms(), prompt=[9])]).units, "t", Distances(D, {9: 0})
    ).values()
    assert (steps[0].changed, steps[0].total) == (1, 0)


def test_the_reference_decides_by_its_argmax_not_by_its_token() -> None:
    record = sentence(0, arms(differs=((1, 8),)), tokens=[30, 31, 2])
    record["reference"]["top"] = [[1, 77]]
    (steps,) = measure(evidence_of([record]).units, "t", Distances(D, {})).values()
    assert [(step.expected, step.actual, step.disagrees) for step in steps] == [
        (30, 30, False),
        (77, 8, True),
        (2, 2, False),
    ]


def test_rounded_probabilities_in_the_wrong_order_give_no_margin() -> None:
    record = sentence(0, arms(), tokens=[30], margins=[0])
    record["reference"]["p_a"], record["reference"]["p_b"] = [333], [334]
    (steps,) = measure(evidence_of([record]).units, "t", Distances(D, {})).values()
    assert steps[0].margin == 0
    assert judge([record], {}, "additive").finding is Finding.VACUOUS


# --- findings ----------------------------------------------------------------------------------------------


def arms(*, differs: tuple[tuple[int, int], ...] = ()) -> dict[str, Behaviour]:
    return {"base": Behaviour(), "reference": Behaviour(), "t": Behaviour(differs=differs)}


def sentences(n: int, wrong: int, *, steps: int = 1, margin: int = 900_000_000) -> list[Any]:
    """n sentences, a unit each, the first ``wrong`` of which disagree at every step."""
    differs = tuple((t, 99) for t in range(steps))
    return [
        sentence(
            number,
            arms(differs=differs if number < wrong else ()),
            tokens=list(range(30, 30 + steps)),
            margins=[margin] * steps,
        )
        for number in range(n)
    ]


def finding_again(k: int, n: int, alpha: float) -> Finding:
    """By quantiles of the beta law, another way to the same limits."""
    upper = 1.0 if k == n else float(stats.beta.ppf(0.95, k + 1, n - k))
    lower = 0.0 if k == 0 else float(stats.beta.ppf(0.05, k, n - k + 1))
    return Finding.HELD if upper <= alpha else Finding.REFUTED if lower > alpha else Finding.INCONCLUSIVE


@pytest.mark.parametrize(
    ("n", "wrong"),
    [
        (1, 0),
        (1, 1),
        (10, 3),
        (10, 10),
        (58, 0),
        (59, 0),
        (60, 8),
        (100, 1),
        (100, 8),
        (100, 30),
        (200, 3),
        (200, 8),
    ],
)
def test_findings_by_another_way_to_the_limits(n: int, wrong: int) -> None:
    found = judge(sentences(n, wrong), {})
    assert (found.drawn, found.disagreements) == (n, wrong)
    assert found.finding is finding_again(wrong, n, 0.05)
    assert found.lower is not None
    assert found.upper is not None
    assert found.lower.value <= Fraction(wrong, n) <= found.upper.value


def test_fifty_nine_clean_units_are_needed() -> None:
    assert judge(sentences(58, 0), {}).finding is Finding.INCONCLUSIVE
    assert judge(sentences(58, 0), {}).needed == 59
    assert judge(sentences(59, 0), {}).finding is Finding.HELD
    assert judge(sentences(59, 0), {}).needed is None
    assert judge(sentences(59, 0), {}, alpha="0.001").needed == 2995


@pytest.mark.parametrize(("alpha", "k"), [("0.05", 0), ("0.001", 0), ("0.5", 4), ("0.05", 3)])
def test_units_needed_by_stepping(alpha: str, k: int) -> None:
    level = Fraction(alpha)
    found = units_needed(k, 0, level, DELTA)
    assert found is not None
    assert stats.binom.cdf(k, found, float(level)) <= 0.05 < stats.binom.cdf(k, found - 1, float(level))
    if k == 0:
        assert found == clean_units_needed(level, DELTA)
    assert units_needed(k, found + 5, level, DELTA) == found + 5
    assert units_needed(0, 0, Fraction(1, 10**30), DELTA) is None


def test_nothing_certified_is_vacuous_and_says_by_how_much() -> None:
    found = judge(sentences(80, 0), {20: 20}, "additive")
    assert found.finding is Finding.VACUOUS
    assert (found.vacuous, found.least_loss) == (80, Fraction(4 * 20, D))
    assert found.lower is None
    barely = judge(sentences(80, 0, margin=400_000_000), {20: 8}, "additive")
    assert (barely.finding, barely.vacuous) == (Finding.VACUOUS, 0)


def test_the_premise_comes_before_everything_and_only_for_published() -> None:
    h = {500: 30}  # never fed, far above tau
    assert judge(sentences(80, 0), h, "published").finding is Finding.PREMISE_FAILED
    assert judge(sentences(80, 0), h, "published").above == (500,)
    assert judge(sentences(80, 80), h, "published").finding is Finding.PREMISE_FAILED
    assert judge(sentences(80, 0), h, "additive").finding is Finding.HELD
    assert judge(sentences(80, 0), {500: 15}, "published").finding is Finding.HELD
    assert judge(sentences(80, 0), {500: 16}, "published").finding is Finding.PREMISE_FAILED  # tau = 15.4/64


def test_the_premise_comes_before_the_lack_of_certified_steps() -> None:
    assert judge(sentences(80, 0, margin=0), {500: 30}, "published").finding is Finding.PREMISE_FAILED
    assert judge(sentences(80, 0, margin=0), {500: 3}, "published").finding is Finding.VACUOUS


@pytest.mark.parametrize(
    ("criterion", "largest_refused"),
    [("published", 480_161_395), ("measured-max", 2 * 5 * UNIT // D), ("additive", 4 * 5 * UNIT // D)],
)
def test_the_smallest_margin_that_certifies(criterion: Criterion, largest_refused: int) -> None:
    """2 sqrt(ln(40) / 64) = .4801613956...; 2 D and 4 D for a row with h = 5 of 64."""
    for margin, certified in ((largest_refused, 0), (largest_refused + 1, 1)):
        assert judge(sentences(1, 0, margin=margin), {20: 5}, criterion).certified == certified


def test_a_looser_level_fails_the_premise_that_a_stricter_one_meets() -> None:
    """Alpha swapped: the same rows at .5 instead of .05."""
    h = {500: 12}
    assert judge(sentences(80, 0), h, "published", "0.05").finding is Finding.HELD
    assert judge(sentences(80, 0), h, "published", "0.5").finding is Finding.PREMISE_FAILED


@pytest.mark.parametrize("v", [2, 4, 8])
def test_v_scales_the_sum(v: int) -> None:
    record = sentences(60, 0, margin=300_000_000)
    assert (judge(record, {20: 4}, "additive", v=v).certified == 60) == (v * 4 / D < 0.3)
    with pytest.raises(ValueError, match="variation"):
        judge(record, {20: 4}, "additive", v=1)


def test_a_sequential_design_gets_anytime_limits() -> None:
    fixed = judge(sentences(200, 2), {})
    sequential = judge(sentences(200, 2), {}, design="sequential")
    assert fixed.upper is not None
    assert sequential.upper is not None
    assert (fixed.upper.procedure, sequential.upper.procedure) == ("clopper-pearson/1", "betting/2")
    assert sequential.lower is not None
    assert sequential.lower.value < Fraction(1, 100) < sequential.upper.value
    assert judge(sentences(400, 0), {}, design="sequential").finding is Finding.HELD
    assert judge(sentences(100, 60), {}, design="sequential").finding is Finding.REFUTED


# --- drawn steps -------------------------------------------------------------------------------------------


def test_the_draw_depends_on_the_unit_alone() -> None:
    draws = [drawn_index(unit, 1000) for unit in map(str, range(5))]
    assert len(set(draws)) == 5
    assert drawn_index("3", 7) == int(hashlib.sha256(b"drawn:3").hexdigest(), 16) % 7


@pytest.mark.parametrize("criterion", ["published", "measured-max", "additive"])
def test_neither_names_nor_seed_nor_order_nor_spelling_change_the_finding(criterion: Criterion) -> None:
    # Two steps of three agree: which one is drawn decides the count.
    records = [sentence(i, arms(differs=[(i % 3, 99)]), tokens=[5, 6, 7]) for i in range(40)]
    told = set()
    for change in range(4):
        changed = [dict(record) for record in records]
        if change == 1:
            changed = [
                record | {"unit": f"n{record['unit']}", "id": f"n{record['id']}"} for record in changed
            ]
        if change == 2:
            changed.reverse()
        evidence = evidence_of(changed, order_seed=7 if change == 3 else 0)
        units = measure(evidence.units, "t", Distances(D, {}))
        for alpha in ("0.05", ".05", "0.0500"):
            found = guarantee(units, Distances(D, {}), alpha=alpha, criterion=criterion)
            told.add((found.drawn, found.disagreements, found.certified))
    assert len(told) == 1


def test_one_step_is_drawn_from_a_unit_however_many_it_has() -> None:
    found = judge(sentences(70, 10, steps=20), {})
    assert (found.certified, found.violations) == (1400, 200)
    assert (found.drawn, found.disagreements) == (70, 10)


@settings(max_examples=examples(30))
@given(worlds(), HEIGHTS, st.sampled_from(CRITERIA), st.data())
def test_one_more_disagreement_never_helps(
    records: list[Any], h: dict[int, int], criterion: Criterion, data: st.DataObject
) -> None:
    before = judge(records, h, criterion)
    chosen = data.draw(st.sampled_from(records))
    answer = chosen["arms"]["t"]
    places = {pair[0]: pair[1] for pair in answer["differs"]}
    places[data.draw(st.integers(0, len(chosen["reference"]["tokens"]) - 1))] = 99
    answer["differs"] = [list(pair) for pair in sorted(places.items())]
    after = judge(records, h, criterion)
    assert after.disagreements >= before.disagreements
    assert after.certified == before.certified
    if after.finding is Finding.HELD:
        assert before.finding is Finding.HELD
    if before.finding is Finding.REFUTED:
        assert after.finding is Finding.REFUTED


@settings(max_examples=examples(30))
@given(worlds(), HEIGHTS, st.integers(3, 15), st.integers(0, 12))
def test_larger_distances_never_certify_more(
    records: list[Any], h: dict[int, int], token: int, height: int
) -> None:
    larger = h | {token: max(h.get(token, 0), height)}
    for criterion in CRITERIA:
        assert judge(records, larger, criterion).certified <= judge(records, h, criterion).certified


# --- witnesses, rates, margins -----------------------------------------------------------------------------


def test_witnesses_tell_the_case_and_the_rows_that_moved_most() -> None:
    h = {20: 1, 21: 3, 22: 2, 23: 3, 24: 1, 25: 2, 30: 1}
    record = sentence(3, arms(differs=((1, 99),)), prompt=[1, *range(20, 26)], tokens=[30, 31, 2])
    found = judge([record], h, "measured-max")
    (case,) = found.witnesses
    assert (case.step.record.id, case.step.t, case.step.expected, case.step.actual) == ("text:3", 1, 31, 99)
    assert case.rows == ((21, 3), (23, 3), (22, 2), (25, 2), (20, 1))
    assert case.step.changed == 7


def test_all_violations_are_counted_and_some_are_listed() -> None:
    found = judge(sentences(80, 80), {})
    assert (found.violations, len(found.witnesses)) == (80, MAX_WITNESSES)


def test_the_plain_rate_has_units_as_clusters() -> None:
    wrong = ((0, 99),)
    found = judge([sentence(i, arms(differs=wrong if i % 5 == 0 else ())) for i in range(100)], {})
    limits = plain_rate(found)
    assert limits is not None
    lower, upper = limits
    assert lower.estimate == Fraction(found.violations, found.certified) == Fraction(20, 300)
    assert lower.value < lower.estimate < upper.value
    assert lower.asymptotic
    assert plain_rate(judge(sentences(1, 0), {})) is None


def test_margins_are_described_by_percentiles() -> None:
    records = [sentence(i, arms(), prompt=[20], tokens=[30], margins=[2 * i]) for i in range(100)]
    found = margins(measure(evidence_of(records).units, "t", Distances(D, {20: 4})), D)
    assert found.steps == 100
    assert found.r == (0, 18, 48, 98, 148, 178, 198)
    assert set(found.twice_largest) == {Fraction(8, D)}
    assert set(found.v_total) == {Fraction(16, D)}
    assert set(found.changed) == {1}
    assert margins({}, D).r == ()


# --- known truth -------------------------------------------------------------------------------------------


def findings(rate: float, units: int, seeds: int) -> list[Finding]:
    found = []
    for seed in range(seeds):
        records, _ = Truth(disagreement=rate, steps=2).world(seed, units)
        found.append(judge(records, {}).finding)
    return found


def test_known_truth_is_found_out() -> None:
    assert findings(0.0, 60, 1) == [Finding.HELD]
    assert findings(0.005, 250, 3) == [Finding.HELD] * 3
    assert findings(0.25, 120, 3) == [Finding.REFUTED] * 3


def test_at_the_boundary_it_rarely_errs_either_way() -> None:
    """At a rate of exactly alpha either error has probability 5 % at most; 10 of 60 have less than 1e-3."""
    found = findings(0.05, 60, 60)
    assert found.count(Finding.HELD) < 10
    assert found.count(Finding.REFUTED) < 10
    assert found.count(Finding.INCONCLUSIVE) > 30


# --- as claims ---------------------------------------------------------------------------------------------


def test_claims_carry_the_counts_and_the_limits() -> None:
    subject = subject_of({20: 4}, d=D)
    evidence = evidence_of(sentences(70, 1))
    claims = {claim.comparator: claim for claim in guarantee_claims(evidence, subject)}
    assert set(claims) == set(CRITERIA)
    for claim in claims.values():
        assert (claim.n, claim.detail["disagreements"], claim.estimate) == (70, 1, Fraction(1, 70))
        assert claim.finding is Finding.INCONCLUSIVE
        assert claim.detail["needed"] == 93
        assert claim.detail["witnesses"][0]["rows"] == [[20, 4]]
    assert "|V:4|" in claims["additive"].signature
    assert "V:" not in claims["published"].signature


def test_the_table_that_was_not_evaluated_has_no_guarantee() -> None:
    subject = subject_of({20: 4}, d=D, table="0" * 64)
    for claim in guarantee_claims(evidence_of(sentences(70, 0)), subject):
        assert (claim.finding, claim.code) == (Finding.MISSING, "ARM_NOT_EVALUATED")


def test_a_step_is_small_and_says_whether_it_disagrees() -> None:
    record = evidence_of(sentences(1, 1)).sentences[0]
    assert Step(record, 0, 1, 0, 0, 0, 5, 6).disagrees
    assert "record" not in repr(Step(record, 0, 1, 0, 0, 0, 5, 6))
