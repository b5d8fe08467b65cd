"""The simulations of the pipeline: their truths, that honest code passes and that planted faults are seen."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from certify import checker
from certify.base import verdict
from certify.base.records import RULES
from certify.base.verdict import Status
from certify.certificate import build
from certify.claims import agreement as claims_agreement
from certify.claims import calibrated, criteria, loss, quality, registry
from certify.claims.claim import Claim
from certify.evidence import sentence_scores
from certify.evidence.load import Evidence, load
from certify.evidence.read import Record
from certify.gate import calibrate
from certify.gate import check as gate
from certify.policy import outcomes, requirement
from certify.policy.policy import POLICIES
from certify.policy.requirement import Requirement
from certify.stats import rates
from proofs_checks.check import Budget, Check
from proofs_checks.coverage import claims, informing, pipeline
from proofs_checks.coverage import guarantee as coverage_guarantee
from proofs_checks.coverage import verdict as coverage_verdict
from proofs_checks.coverage.calibrated import STAIRS, T, try_calibrated, try_choice
from proofs_checks.coverage.claims import (
    CASES,
    EDGES,
    PLAIN,
    REQUIRED,
    Case,
    answer,
    count,
    meets,
    subject,
)
from proofs_checks.coverage.guarantee import ABOVE, ALPHA, AT, BAD, GOOD, attained
from proofs_checks.coverage.informing import KNOWN, Known, try_known
from proofs_checks.coverage.trials import ALARM, COMPARISONS, DELTA, POWER, Trial, judge
from proofs_checks.coverage.verdict import NULLS, PLOTS, Plot, try_plot, try_texts
from proofs_checks.worlds.populations import (
    Population,
    advantage,
    agreement,
    drawn_rate,
    excess,
    follow,
    loss_rise,
    scored,
    steps,
    windows,
)
from proofs_checks.worlds.testbed import SampledText, Stage, make_stage

F = Fraction


def random(seed: int = 9) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def failed(trials: list[Trial]) -> bool:
    return judge(trials).outcome == "failed"


def planted(module: str, function: str, old: str, new: str) -> Any:
    """A copy of a module with a fault in one function; no other module sees it."""
    real = import_module(module)
    text = inspect.getsource(getattr(real, function))
    assert text.count(old) == 1, "the fault has to be put where the code went"
    copy = ModuleType(module)
    source = inspect.getsource(real).replace(text, text.replace(old, new))
    exec(compile(source, f"<{module}, faulty>", "exec", dont_inherit=True), copy.__dict__)
    return copy


def case_of(claim: str) -> Case:
    return next(case for case in CASES if case.claim.startswith(claim))


def plot_of(name: str, policy: str = "release") -> Plot:
    return next(plot for plot in PLOTS if (plot.name, plot.policy) == (name, policy))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return make_stage(tmp_path_factory.mktemp("stage"))


# --- the calibrated margin ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "old", "new"),
    [
        ("disagreement_shares", "Fraction(sum(steps), len(steps))", "Fraction(0)"),
        ("sure_steps", "if margin >= least", "if True"),
        ("sure_steps", "for steps in sure if steps", "for steps in [sum(sure, [])] * 120 if steps"),
        ("disagreement_shares", "Fraction(sum(steps), len(steps))", "Fraction(steps[0])"),
        ("calibrated", "upper <= alpha", "limit.estimate <= alpha"),
        ("calibrated", "lower > alpha", "limit.estimate > alpha"),
    ],
)
def test_a_faulty_claim_about_margins_is_seen(function: str, old: str, new: str) -> None:
    faulty = planted("certify.claims.calibrated", function, old, new)
    assert failed(try_calibrated(faulty, 120, 240, random()))


def test_the_claim_about_margins_is_right_where_it_is_judged() -> None:
    assert not failed(try_calibrated(calibrated, 120, 240, random()))
    assert drawn_rate(follow(AT, T)) == drawn_rate(AT)


def test_a_margin_is_chosen_and_held_as_seldom_as_it_must() -> None:
    assert not failed(try_choice(calibrated, calibrate, 120, 80, random()))
    wrong = [F(bool(kind.records[0]["arms"]["t"]["differs"])) for kind in STAIRS.kinds]
    assert STAIRS.mean(wrong) == F(ALPHA) + F(1, 10_000)

    rash = planted("certify.claims.calibrated", "calibrated", "upper <= alpha", "limit.estimate <= alpha")
    assert failed(try_choice(rash, calibrate, 120, 80, random())[1:2])
    greedy = planted("certify.gate.calibrate", "tested_margins", "bool(shares) and", "bool(shares) or")
    assert failed(try_choice(calibrated, greedy, 120, 80, random())[:1])


# --- populations -------------------------------------------------------------------------------------------


def test_the_truth_of_steps_counted_by_hand() -> None:
    population = Population("it", (steps(3, "aDu|xa"), steps(1, "u"), steps(2, "DD|D")))
    assert drawn_rate(population) == (F(5, 6), (3 * F(1, 3) + 2 * 1) / 5)
    assert agreement(population) == (F(1, 6), (3 * F(3, 5) + 1) / 6)


def test_the_truth_of_scores_and_losses_counted_by_hand() -> None:
    names = ["base", "reference", "t"]
    kinds = (
        scored(1, {"t": 10}, {"t": 2, "base": 20}, names=names),
        scored(3, {"t": 3, "base": 1}, names=names),
    )
    population = Population("it", kinds)
    assert advantage(population, "base") == (F(50 - 90, 2) + 3 * 10) / 4
    assert advantage(population, "base", "whole") == 100
    assert advantage(population, "base", "cut") == -100
    up, down = case_of("unrelated-loss").right.kinds
    assert loss_rise(Population("it", (up,))) == F(3, 2)
    assert loss_rise(Population("it", (down,))) == F(-13, 10)


def test_every_claim_that_a_policy_can_require_has_a_case() -> None:
    """Under some comparator and the rule of the shipped policies; the guarantee has a module of its own."""
    kinds = {claim.partition(":")[0] for claim in requirement.TESTS} - {"guarantee"}
    assert {case.kind for case in CASES} == kinds
    shipped = {
        one.claim for policy in POLICIES.values() for one in policy.claims if one.threshold is not None
    }
    assert shipped <= {case.claim for case in CASES}


def test_a_kind_without_a_case_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pipeline.untried() == []
    added = replace(registry.KINDS["opportunity"], name="added")
    monkeypatch.setattr(registry, "KINDS", {**registry.KINDS, "added": added})
    found = pipeline.claims.run(Budget())
    assert (found.outcome, found.detail) == ("failed", "no case for the claim added")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.claim)
def test_samples_have_the_means_of_their_populations(case: Case) -> None:
    """Without the claims: kinds come up as often as their weights say."""
    for population in (case.wrong, case.right, case.good, case.bad):
        drawn = population.draw(4000, random())
        counts = np.bincount(drawn, minlength=len(population.kinds))
        for kind, found in zip(population.kinds, counts, strict=True):
            rate = kind.weight / population.total
            assert abs(found / 4000 - rate) <= 5 * (rate * (1 - rate) / 4000) ** 0.5


def facts(plot: Plot) -> list[bool]:
    """What the policy of a plot asks for, text by text, by the truth of its populations."""
    found = []
    for text in plot.texts:
        if "nats" in text.kinds[0].records[0]:
            found.append(loss_rise(text) <= Fraction(1, 10))
        elif plot.policy == "paper":
            found.append(drawn_rate(text)[1] <= Fraction(1, 20))
        else:
            found.append(advantage(text, "reference") >= -1)
            found.append(advantage(text, "base") > 0)
            found.append(min(advantage(text, arm) for arm in NULLS) > 0)
            found.append(plot.policy == "release" or agreement(text)[1] >= Fraction(19, 20))
            found.append(plot.policy == "release" or drawn_rate(text)[1] <= Fraction(1, 10))
    return found


def test_a_case_on_the_wrong_side_is_refused() -> None:
    case = case_of("gain")
    with pytest.raises(ValueError, match="not on their sides"):
        replace(case, wrong=case.right)
    for plot in PLOTS:
        assert all(facts(plot)) == (plot.right or plot.expected is Status.REFUTED), plot.name


def test_evidence_in_memory_is_what_files_hold(stage: Stage, tmp_path: Path) -> None:
    for plot in (plot_of("false in every respect"), plot_of("a rate of .0501", "paper")):
        for text in plot.texts:
            population = stage.bound(text, None if plot.policy == "release" else 3)
            places = population.draw(7, random())
            read = load(population.write(tmp_path, places, "some"))
            memory = population.evidence(places, "some")
            found: tuple[tuple[Record, ...], Mapping[str, Any]] = (memory.records, memory.used)
            assert read.records == found[0]
            assert read.used == found[1]
            other = population.evidence(places, "other")
            assert {one.unit for one in other.records}.isdisjoint(one.unit for one in memory.records)


# --- the guarantee -----------------------------------------------------------------------------------------


def tried(module: Any, draws: int = 40, delta: Fraction = DELTA) -> list[Trial]:
    return coverage_guarantee.try_guarantee(module, 120, draws, random(), delta)


def power(module: Any) -> list[Trial]:
    return coverage_guarantee.try_power(module, 120, 16, random())


def test_the_populations_tell_drawn_steps_from_others() -> None:
    alpha = F(ALPHA)
    for population, hair in ((ABOVE, F(1, 5000)), (AT, F(0))):
        assert drawn_rate(population)[1] == alpha + hair
    together = {}
    for population in (ABOVE, AT):
        found = [
            (kind.weight, letter == "D")
            for kind in population.kinds
            for record in kind.records
            for letter in _letters(record)
            if letter in "aD"
        ]
        together[population.name] = F(
            sum(weight for weight, wrong in found if wrong), sum(weight for weight, _ in found)
        )
    assert together[ABOVE.name] < alpha / 2
    assert together[AT.name] == F(3, 8)


def _letters(record: Any) -> str:
    inner = record["reference"]
    wrong = {t for t, _ in record["arms"]["t"]["differs"]}
    sure = [a - b > 500_000_000 for a, b in zip(inner["p_a"], inner["p_b"], strict=True)]
    return "".join(("D" if t in wrong else "a") if one else "u" for t, one in enumerate(sure))


def test_the_law_of_counts_by_simulation() -> None:
    certified, rate = map(float, drawn_rate(ABOVE))
    draws = random()
    drawn = draws.binomial(40, certified, 20_000)
    wrong = draws.binomial(drawn, rate)
    held = (binom.cdf(wrong, np.maximum(drawn, 1), 0.1) <= 0.2) & (drawn > 0)
    assert abs(held.mean() - attained(ABOVE, 40, F(1, 10), F(1, 5), "held")) < 0.015
    for population, finding in ((GOOD, "held"), (BAD, "refuted")):
        assert attained(population, 120, F(1, 10), DELTA, finding) > POWER


def test_the_guarantee_passes() -> None:
    assert not failed([*tried(criteria, 24), *power(criteria)])


PICKS = "steps[drawn_index(unit, len(steps))].disagrees"
JUDGED = "_judge(drawn, level, delta, design)"


FOUND = "Finding.HELD if held else Finding.REFUTED if refuted"

FAULTS = {
    "the first step of each unit": ("drawn_index", "% certified", "% 1"),
    "any step of each unit": ("guarantee", PICKS, "any(step.disagrees for step in steps)"),
    "idle units are clean": (
        "guarantee",
        JUDGED,
        "_judge(drawn + [False] * (len(units) - len(drawn)), level, delta, design)",
    ),
    "all certified steps together": (
        "guarantee",
        JUDGED,
        "_judge([step.disagrees for one in certified.values() for step in one], level, delta, design)",
    ),
    "agreements for disagreements": (
        "guarantee",
        JUDGED,
        "_judge([not wrong for wrong in drawn], level, delta, design)",
    ),
    "not refuted is held": (
        "_judge",
        "refuted = rate_at_most(k, n, alpha, delta)",
        "refuted = not rate_above(k, n, alpha, delta)",
    ),
    "the limit of the other side": ("_judge", "upper.value <= alpha", "lower.value <= alpha"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_the_guarantee_are_seen(fault: str) -> None:
    assert failed(tried(planted("certify.claims.criteria", *FAULTS[fault])))


def test_alpha_for_delta_is_seen() -> None:
    fault = planted("certify.claims.criteria", "guarantee", JUDGED, "_judge(drawn, level, level, design)")
    assert failed(tried(fault, 160, F(1, 1000)))
    assert not failed(tried(criteria, 24, F(1, 1000)))


def test_a_guarantee_that_decides_nothing_is_seen() -> None:
    fault = planted(
        "certify.claims.criteria", "_judge", "HELD if held else Finding.REFUTED if refuted", "HELD if 0"
    )
    assert not failed([trial for trial in tried(fault, 24) if not trial.least])
    assert failed(power(fault))


# --- claims ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.claim)
def test_claims_pass(case: Case) -> None:
    assert not failed(claims.try_claim(case, 20, random()))


def wrong_answers(case: Case, draws: int = 20, code: str = "SHOWN", delta: Fraction = DELTA) -> Trial:
    population = case.wrong if code == "SHOWN" else case.right
    found = count(REQUIRED[case.claim], population, case.n, draws, random(), delta, code)
    return Trial(case.claim, found, draws, float(delta))


def estimates(limit: Callable[..., Any]) -> Callable[..., Any]:
    def estimate(*arguments: Any, **more: Any) -> Any:
        found = limit(*arguments, **more)
        return replace(found, value=found.estimate)

    return estimate


def records_as_units(evidence: Evidence) -> dict[str, Any]:
    return {record.id: (record,) for record in evidence.sentences}


def test_limits_on_the_wrong_side_and_estimates_for_limits_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = rates.rate_limits

    def upper_for_lower(hits: Any, delta: Any, design: Any) -> Any:
        lower, upper, witness = honest(hits, delta, design)
        return upper, lower, witness

    def lower_for_upper(hits: Any, delta: Any, design: Any) -> Any:
        lower, upper, witness = honest(hits, delta, design)
        return lower, upper, replace(witness, find_upper=lambda: witness.lower)

    with monkeypatch.context() as patch:
        patch.setattr(claims_agreement, "rate_limits", upper_for_lower)
        assert failed([wrong_answers(case_of("agreement-rate"))])
    with monkeypatch.context() as patch:
        patch.setattr(claims_agreement, "rate_limits", lower_for_upper)
        assert failed([wrong_answers(case_of("agreement-rate"), code="CLAIM_REFUTED")])
    monkeypatch.setattr(quality, "difference_lower", estimates(quality.difference_lower))
    assert failed([wrong_answers(case_of("gain"), 40)])


@pytest.mark.parametrize("claim", ["agreement-rate", "token-agreement", "non-inferiority", "gain"])
def test_sentences_for_units_are_seen(claim: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Evidence, "units", property(records_as_units))
    assert failed([wrong_answers(case_of(claim), 24)])


def test_another_rule_than_the_one_asked_for_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentence_scores, "RULES", ("first-line", "whole", "cut"))
    assert failed([wrong_answers(case_of("gain"))])


def test_beating_one_null_ticket_is_not_beating_all(monkeypatch: pytest.MonkeyPatch) -> None:
    fault = planted("certify.claims.quality", "_claim", "least = min(found", "least = max(found")
    monkeypatch.setattr(quality, "_claim", fault._claim)
    assert failed([wrong_answers(case_of("better-than-nulls"))])


def test_the_fall_for_the_rise_of_a_loss_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    fault = planted("certify.claims.loss", "unrelated_loss", "upper=-limit", "upper=limit")
    monkeypatch.setattr(loss, "unrelated_loss", fault.unrelated_loss)
    case = case_of("unrelated-loss")
    assert failed([t for t in claims.try_claim(case, 20, random()) if t.silent])


LIES: dict[str, Callable[[Claim], Claim]] = {
    "data-split": lambda claim: replace(claim, n=claim.n - 1),
    "opportunity": lambda claim: replace(claim, estimate=F(1, 2)),
    "non-interference": lambda claim: replace(claim, estimate=1 - (claim.estimate or F(0))),
    "interval-share": lambda claim: replace(claim, estimate=F(1)),
    "termination": lambda claim: replace(claim, detail={"gain": dict.fromkeys(RULES, "1/1")}),
    "corpus-bleu": lambda claim: replace(claim, lower=claim.upper),
    "corpus-chrf": lambda claim: replace(claim, lower=claim.upper),
    "template-agreement": lambda claim: replace(claim, lower=(claim.estimate or F(0)) + F(1, 20)),
}


@pytest.mark.parametrize("case", KNOWN, ids=lambda case: case.kind)
def test_a_claim_that_only_informs_passes_and_its_lies_are_seen(
    case: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not failed([try_known(case, 20, random())])
    honest = registry.KINDS[case.kind]

    def compute(*arguments: Any) -> list[Claim]:
        return [LIES[case.kind](claim) for claim in honest.compute(*arguments)]

    if honest.asymptotic:  # the limits are added later
        true = informing.resampled
        lie = LIES[case.kind]
        monkeypatch.setattr(informing, "resampled", lambda claim, evidence: lie(true(claim, evidence)))
    else:
        lying = {**registry.KINDS, case.kind: replace(honest, compute=compute)}
        monkeypatch.setattr(registry, "KINDS", lying)
    assert failed([try_known(case, 20, random())])


def test_what_the_cap_assumes() -> None:
    """A mean of capped rises says nothing of what lies above: it is counted, and 90 units show too little."""
    rare = (windows(89, (100, F(0)), names=PLAIN), windows(1, (100, F(10)), names=PLAIN))
    population = Population("one unit in 90 up by ten nats", rare, claims.ARMS[:3])
    asked = REQUIRED["unrelated-loss:base"]
    assert not meets(asked, loss_rise(population))
    assert excess(population) == F(1, 90)
    unseen, seen = (population.evidence(places, "some") for places in ([0] * 90, [0] * 89 + [1]))
    assert answer(asked, unseen, subject(), DELTA).code == "SHOWN"
    rare_enough = Requirement("unrelated-excess:base", "at_most", F(1, 90))
    assert {answer(rare_enough, one, subject(), DELTA).code for one in (unseen, seen)} == {"NOT_SHOWN"}
    assert F(89, 90) ** 90 > F(36, 100)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("(limit == threshold and not strict)", "limit == threshold"),
        ("(strict and sign * other == threshold)", "sign * other == threshold"),
    ],
)
def test_not_strict_for_strict_is_seen(old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not failed(claims.try_edges(random()))
    fault = planted("certify.policy.requirement", "_threshold", old, new)
    monkeypatch.setattr(claims, "requirement", fault)
    assert failed(claims.try_edges(random()))


def test_a_judge_that_never_decides_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(asked: Any, claim: Any, **more: Any) -> Any:
        found = requirement.judge(asked, claim, **more)
        return replace(found, code="NOT_SHOWN") if found.code in ("SHOWN", "CLAIM_REFUTED") else found

    class Silent:
        judge = staticmethod(never)

    monkeypatch.setattr(claims, "requirement", Silent)
    trials = claims.try_claim(case_of("agreement-rate"), 20, random())
    assert failed(trials)
    assert not failed([trial for trial in trials if not trial.silent])


def test_drawing_until_decided_passes() -> None:
    assert not failed(claims.try_stopping(8, random()))


def test_edges_are_where_limits_equal_thresholds() -> None:
    for asked, population, _ in EDGES:
        evidence = population.evidence(population.draw(20, random()), "some")
        assert answer(asked, evidence, subject(), DELTA).code in ("NOT_SHOWN", "CLAIM_REFUTED")


# --- verdicts ----------------------------------------------------------------------------------------------


FALSE_PLOTS = [plot for plot in PLOTS if not all(facts(plot)) and plot.policy == "release"]


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: f"{plot.policy}: {plot.name}")
def test_memory_files_and_the_independent_checker_agree(plot: Plot, stage: Stage) -> None:
    trial, difference = try_plot(plot, stage, 1, random(), files=1)
    assert difference is None
    assert not failed([trial, Trial("it", 0, 1, 0.5)])


def test_a_clear_ticket_is_certified_by_the_simulation_too(stage: Stage) -> None:
    assert try_plot(plot_of("good"), stage, 3, random())[0].misses == 0


def test_differences_between_memory_and_files_are_told(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    plot = plot_of("a rate of .0501", "paper")
    with monkeypatch.context() as patch:
        patch.setattr(gate, "decide", lambda *_: Status.INVALID)
        difference = try_plot(plot, stage, 1, random(), files=1)[1]
        assert difference is not None
        assert "INVALID" in difference
    honest = checker.verify

    def blind(*arguments: Any) -> Any:
        return {name: dict.fromkeys(found, ("CERTIFIED", ())) for name, found in honest(*arguments).items()}

    monkeypatch.setattr(checker, "verify", blind)
    difference = try_plot(plot, stage, 1, random(), files=1)[1]
    assert difference is not None


def certified(plot: Plot, stage: Stage, draws: int = 7) -> bool:
    """Whether the simulation sees that a false ticket is certified too often."""
    return failed([try_plot(plot, stage, draws, random())[0]])


@pytest.mark.parametrize("plot", FALSE_PLOTS, ids=lambda plot: plot.name)
def test_a_requirement_that_asks_for_nothing_is_seen(
    plot: Plot, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = planted(
        "certify.policy.outcomes", "_item", "Item(name, gravest.outcome,", "Item(name, Outcome.PASS,"
    )
    monkeypatch.setattr(coverage_verdict, "outcomes", fault)
    monkeypatch.setattr("proofs_checks.worlds.testbed.outcomes", fault)
    assert certified(plot, stage)


def test_one_text_of_several_that_shows_a_claim_is_not_enough(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcomes, "GRAVEST", outcomes.GRAVEST[::-1])
    assert certified(plot_of("no gain on one text"), stage)


def test_a_verdict_that_never_certifies_is_seen(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict, "decide", lambda *_: Status.INCONCLUSIVE)
    assert failed([try_plot(plot_of("held", "paper"), stage, 16, random())[0]])


def test_error_that_is_not_split_over_texts_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not failed(try_texts(8, random()))
    monkeypatch.setattr(build, "share", lambda delta, *_: F(delta))
    assert failed(try_texts(60, random()))


def test_samples_are_drawn_anew_and_by_seed() -> None:
    population = case_of("gain").wrong
    assert population.draw(50, random()) == population.draw(50, random())
    assert population.draw(50, random()) != population.draw(50, random(8))
    assert (
        SampledText(population, (0,), "a").evidence.sha256
        != SampledText(population, (0,), "b").evidence.sha256
    )


def test_one_that_never_certifies_fails_even_a_fast_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def never(plot: Plot, _: Stage, draws: int, *__: Any) -> tuple[Trial, None]:
        return coverage_verdict._trial(plot, 0, draws), None

    monkeypatch.setattr(pipeline, "try_plot", never)
    trials, _ = pipeline.verdict_trials(1, random(), tmp_path)
    right = [trial for trial, plot in zip(trials, PLOTS, strict=False) if plot.right]
    assert len(right) == 3
    assert all(failed([trial]) for trial in right)
    assert not failed([trial for trial in trials if trial not in right])


# --- deeper ------------------------------------------------------------------------------------------------


@pytest.mark.statistical
@pytest.mark.parametrize("item", pipeline.CHECKS, ids=lambda item: item.name)
def test_every_check_passes_and_alarms_are_rare(item: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``certify prove --fast`` runs it, with the probability that a right program falls outside."""
    trials: list[Trial] = []
    monkeypatch.setattr(pipeline, "judge", lambda found: (trials.extend(found), judge(found))[1])
    result = item.run(Budget())
    assert result.passed, result
    assert "would have been seen" in result.detail
    alarm = sum(binom.sf(trial.accepted[1], trial.draws, trial.most) for trial in trials)
    alarm += sum(binom.cdf(t.accepted[0] - 1, t.draws, t.least) for t in trials if t.least)
    assert alarm < ALARM * len(trials) / COMPARISONS


@pytest.mark.statistical
def test_the_guarantee_in_depth() -> None:
    assert not failed(pipeline.guarantee_trials(4, random(21)))


@pytest.mark.statistical
def test_every_claim_in_depth() -> None:
    assert not failed(pipeline.claim_trials(4, random(22)))


@pytest.mark.statistical
def test_every_verdict_in_depth(tmp_path: Path) -> None:
    trials, differences = pipeline.verdict_trials(3, random(23), tmp_path)
    assert differences == []
    assert not failed(trials)


@pytest.mark.statistical
def test_several_texts_in_depth() -> None:
    assert not failed(try_texts(400, random(24)))


@pytest.mark.statistical
def test_looking_often_at_evidence_of_a_fixed_design_is_seen() -> None:
    """Limits for a fixed number of units, asked after every few of them, promise too much."""
    fault = planted("certify.claims.criteria", "guarantee", JUDGED, '_judge(drawn, level, delta, "fixed")')
    monitored = coverage_guarantee.try_guarantee(fault, 240, 1200, random(), F(1, 4), looks=40)
    assert failed([trial for trial in monitored if "sequential" in trial.what])
    honest = coverage_guarantee.try_guarantee(criteria, 240, 160, random(), F(1, 4), looks=40)
    assert not failed(honest)


@pytest.mark.statistical
def test_error_that_is_not_split_over_null_tickets_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of ten null tickets refutes the claim: together they have the error of one."""
    case = case_of("better-than-nulls")
    assert not failed([wrong_answers(case, 60, "CLAIM_REFUTED", F(1, 5))])
    fault = planted("certify.stats.betting", "_lower", "delta / comparisons", "delta")
    monkeypatch.setattr(quality, "difference_lower", fault.difference_lower)
    assert failed([wrong_answers(case, 100, "CLAIM_REFUTED", F(1, 5))])


def test_comparisons_of_a_run_leave_room() -> None:
    """The shares of false alarms are for all comparisons of a run together."""
    own = 10 + 10 + 3 + 4 * len(CASES) + len(KNOWN) + len(EDGES) + 2 + 2 + len(PLOTS) + 1
    assert own <= pipeline.MOST < COMPARISONS
