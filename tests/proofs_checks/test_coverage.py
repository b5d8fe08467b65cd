"""The simulations and enumerations of coverage: right code passes, planted faults do not, alarms are rare."""

from __future__ import annotations

import ast
import functools
import itertools
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from certify.gate import choose as ltt
from certify.scan import multiplicity
from certify.stats import betting, budget, power, rates, resampling
from proofs_checks.check import Budget, Check, CheckFinding, CheckResult
from proofs_checks.coverage import entries, means, pipeline, selection
from proofs_checks.coverage import exact as coverage_exact
from proofs_checks.coverage import ltt as coverage_ltt
from proofs_checks.coverage import trials as coverage_trials
from proofs_checks.coverage.exact import HARD, Units, tail, two_point
from proofs_checks.coverage.trials import ALARM, COMPARISONS, Trial, judge
from proofs_checks.worlds import outlines

F = Fraction


def changed(module: ModuleType, **names: Any) -> Any:
    """The public functions of ``module``, some of them replaced."""
    public = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    return SimpleNamespace(**(public | names))


@dataclass
class Runs:
    """A fast run of every check, and all trials that it judged."""

    results: dict[str, CheckResult]
    trials: list[Trial]


@pytest.fixture(scope="module")
def runs() -> Iterator[Runs]:
    trials: list[Trial] = []

    def count(found: Sequence[Trial]) -> CheckFinding:
        trials.extend(found)
        return judge(found)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(means, "judge", count)
        patch.setattr(selection, "judge", count)
        patch.setattr(coverage_ltt, "judge", count)
        yield Runs({item.name: item.run(Budget()) for item in means.CHECKS}, trials)


@pytest.mark.parametrize("name", [item.name for item in means.CHECKS])
def test_every_check_passes(name: str, runs: Runs) -> None:
    result = runs.results[name]
    assert result.passed, result


@pytest.mark.slow
@pytest.mark.parametrize("item", means.CHECKS, ids=lambda item: item.name)
def test_every_check_passes_in_full(item: Check) -> None:
    result = item.run(Budget("full", 600))
    assert result.passed, result


# --- the acceptance of counts -------------------------------------------------------------------------------


def test_alarms_of_a_whole_run_are_rarer_than_stated(runs: Runs) -> None:
    """Every trial of a fast run, with the probability that a right procedure falls outside its limits."""
    assert 80 < len(runs.trials) <= COMPARISONS - pipeline.MOST
    alarm = 0.0
    for trial in runs.trials:
        lowest, highest = trial.accepted
        alarm += binom.sf(highest, trial.draws, trial.most)
        alarm += binom.cdf(lowest - 1, trial.draws, trial.least) if trial.least else 0.0
    assert 0 < alarm < ALARM


@pytest.mark.parametrize(("most", "least"), [(0.05, 0.0), (0.05, 0.05), (0.5, 0.4)])
def test_the_smallest_defect_is_seen_and_a_smaller_one_often_not(most: float, least: float) -> None:
    trial = Trial("it", 0, 2000, most, least)
    highest = trial.accepted[1]
    assert binom.sf(highest, 2000, trial.defect) >= 0.998
    assert binom.sf(highest, 2000, trial.defect - 0.01) < 0.999


def test_counts_beyond_either_limit_fail() -> None:
    for misses, outcome in ((100, "passed"), (180, "failed"), (40, "failed")):
        assert judge([Trial("it", misses, 2000, 0.05, 0.05)]).outcome == outcome
    assert judge([Trial("it", 0, 2000, 0.05)]).outcome == "passed"
    assert judge([]).outcome == "failed"


# --- exact rates --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("units", HARD, ids=lambda units: units.name)
def test_sequences_are_all_there(units: Units) -> None:
    assert sum(p for _, p in units.sequences(4)) == 1
    assert sum(p * sum(values) / 4 for values, p in units.sequences(4)) == units.mean


def test_the_tail_is_the_binomial_one() -> None:
    assert math.isclose(float(tail(9, F(1, 3), range(4))), binom.cdf(3, 9, 1 / 3), rel_tol=1e-12)


def test_limits_on_the_wrong_side_are_caught() -> None:
    step = F(1, 2**32)

    def closer(k: int, n: int, delta: Fraction, side: Any) -> Any:
        limit = rates.rate_limit(k, n, delta, side).value
        inside = 0 < limit < 1
        return SimpleNamespace(value=limit + (0 if not inside else step if side == "lower" else -step))

    def farther(k: int, n: int, delta: Fraction, side: Any) -> Any:
        limit = rates.rate_limit(k, n, delta, side).value
        return SimpleNamespace(value=limit - 9 * step if 9 * step < limit < 1 and side == "lower" else limit)

    for fault, words in ((closer, "is missed with rate"), (farther, "weaker than needed")):
        found = coverage_exact.judge_counts(changed(rates, rate_limit=fault), (3, 5))
        assert found.outcome == "failed"
        assert words in found.detail
    one_sided = changed(rates, clopper_pearson=lambda k, n, d: rates.clopper_pearson(k, n, 2 * d / (1 + d)))
    assert coverage_exact.judge_counts(one_sided, (12, 20, 30)).outcome == "failed"


def test_bets_that_know_too_much_are_caught() -> None:
    def sorted_first(values: Any, m: Fraction, delta: Fraction, design: Any) -> Any:
        return betting.betting_p_value(sorted(values, reverse=True), m, delta, design)

    fault = changed(betting, betting_p_value=sorted_first)
    found = coverage_exact.judge_betting(fault, 6)
    assert found.outcome == "failed"


def test_budgets_that_are_overspent_are_caught() -> None:
    faults: dict[str, Any] = {
        "goes on": sum,
        "to the last": lambda rejections: max((i + 1 for i, one in enumerate(rejections) if one), default=0),
    }
    for name, fault in faults.items():
        assert coverage_exact.judge_budget(changed(budget, fixed_sequence=fault), 12).outcome == "failed", (
            name
        )


def test_planning_for_too_few_units_is_caught() -> None:
    for name in (
        "clean_units_needed",
        "units_for_agreement",
        "units_for_rate",
        "units_for_mean",
        "units_for_share",
    ):

        def fewer(*arguments: Any, name: str = name) -> int:
            return int(getattr(power, name)(*arguments)) * 3 // 5

        assert coverage_exact.judge_power(changed(power, **{name: fewer})).outcome == "failed", name


def test_cluster_misses_by_simulation() -> None:
    """The exact rate of a miss with clusters ignored, against drawing clusters."""
    groups, p, delta = 8, F(4, 5), F(1, 20)
    limits = [rates.rate_limit(k, 7 * groups, delta, "lower").value for k in range(7 * groups + 1)]
    exact = coverage_exact.cluster_misses(limits, groups, p)
    random = np.random.Generator(np.random.PCG64(3))
    ones = random.random((4000, 2 * groups)) < float(p)
    totals = ones @ np.array([3, 4] * groups)
    missed = sum(limits[k] > p for k in totals.tolist())
    assert abs(missed / 4000 - float(exact)) < 0.03
    assert coverage_exact.cluster_misses([F(0)] * len(limits), groups, p) == 0


# --- simulations --------------------------------------------------------------------------------------------


def random() -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(9))


def failed(trials: list[Trial]) -> bool:
    return judge(trials).outcome == "failed"


def test_planted_faults_in_tests_and_limits_are_seen() -> None:
    def too_small(*given: Any) -> Any:
        return [p - F(1, 10) for p in resampling.paired_swap(*given)]

    assert failed(means.try_randomisation(changed(resampling, paired_swap=too_small), 24, 900, random()))

    def narrow(a: Any, b: Any, statistic: Any, delta: Fraction, seed: int, draws: int) -> Any:
        return resampling.paired_bootstrap(a, b, statistic, 4 * delta, seed, draws)

    assert failed(means.try_asymptotic(changed(resampling, paired_bootstrap=narrow), 40, 300, random()))

    def steps_as_units(successes: Any, sizes: Any, delta: Fraction, side: Any) -> Any:
        return rates.rate_limit(sum(successes), sum(sizes), delta, side)

    assert failed(means.try_asymptotic(changed(resampling, cluster_rate=steps_as_units), 40, 300, random()))

    def mean_itself(values: Any, m: Fraction, *_: Any) -> bool:
        return bool(sum(values) / len(values) > m)

    assert failed(means.try_betting(changed(betting, betting_exceeds=mean_itself), 20, 60, random()))
    for name in ("betting_lower", "difference_lower"):
        fault = {name: lambda values, *_: SimpleNamespace(value=sum(values) / len(values))}
        assert failed(means.try_limits(changed(betting, **fault), 25, 60, random())), name


def test_a_limit_that_says_nothing_is_seen_where_more_is_known() -> None:
    silent = changed(betting, betting_exceeds=lambda *_: False)
    assert failed(means.try_betting(silent, 2, 2000, random()))


def test_planted_faults_in_selection_are_seen() -> None:
    def twice(h: Any, n: int, alpha: Fraction, correction: Any = "none", method: Any = "exact") -> Any:
        return multiplicity.rejected(h, n, 2 * alpha, correction, method)

    def uncorrected(h: Any, n: int, alpha: Fraction, _: Any = "none", method: Any = "exact") -> Any:
        return multiplicity.rejected(h, n, alpha, "none", method)

    def never(h: Any, n: int, alpha: Fraction, correction: Any = "none", method: Any = "exact") -> Any:
        return multiplicity.rejected(h, n, alpha / 10**9, correction, method)

    for fault in (twice, uncorrected, never):
        module = SimpleNamespace(rejected=fault)
        assert failed(selection.try_nulls(module, 300, random())), fault
        assert failed(selection.try_mixtures(module, 900, random())), fault


def test_the_known_rates_of_selection() -> None:
    assert selection.smirnov(0, 5) == 1
    paths = [
        sum(steps[:i]) for steps in itertools.product((1, -1), repeat=6) if not sum(steps) for i in range(7)
    ]
    runs = [paths[start : start + 7] for start in range(0, len(paths), 7)]
    for h in range(1, 4):
        share = F(sum(max(map(abs, run)) >= h for run in runs), len(runs))
        assert selection.smirnov(h, 3) == share
    assert selection.attained(F(1, 10), 3) == 0.1
    assert selection.attained(F(1, 100), 3) == 0


# --- bounds that say nothing are no bounds ------------------------------------------------------------------


def limit(value: int | Fraction) -> Any:
    return lambda *_: SimpleNamespace(value=Fraction(value))


def never(*_: Any) -> bool:
    return False


SILENT: dict[str, Any] = {
    "rates.binomial_tail_at_least": lambda *_: F(1),
    "rates.binomial_tail_at_most": lambda *_: F(1),
    "rates.clopper_pearson": lambda *_: (F(0), F(1)),
    "rates.rate_above": never,
    "rates.rate_at_least": never,
    "rates.rate_at_most": never,
    "rates.rate_limit": lambda *a: SimpleNamespace(value=F(a[3] == "upper")),
    "betting.betting_exceeds": never,
    "betting.betting_lower": limit(0),
    "betting.betting_p_value": lambda *_: F(1),
    "betting.betting_upper": limit(1),
    "betting.decided_after": lambda *_: None,
    "betting.difference_lower": limit(-100),
    "betting.noninferior": never,
    "betting.plog": lambda _: F(0),
    "resampling.cluster_rate": lambda *a: SimpleNamespace(value=F(a[3] == "upper")),
    "resampling.paired_bootstrap": lambda *_: ([-1e6], [1e6]),
    "resampling.paired_swap": lambda *_: (F(1),),
    "budget.fixed_sequence": lambda _: 0,
    "power.clean_units_needed": lambda *_: 10_000,
    "power.simulated_power": lambda *_, **__: F(0),
    "power.units_for_agreement": lambda *_: 10_000,
    "power.units_for_mean": lambda *_: 700,
    "power.units_for_rate": lambda *_: 10_000,
    "power.units_for_share": lambda *_: 100,
    "choose.choose": lambda *_: SimpleNamespace(chosen=None),
}
"""For each bound one that is never wrong, because it never says anything."""

RECORDS = {
    *("choose.Choice", "choose.Goal", "choose.Tested"),
    *("choose.candidates", "choose.parse_goal", "rates.rate_limits"),
}
"""Entries that are no bounds: records, what reads a goal or the evidence, what chooses between bounds."""


def judged(module: str, fault: Any) -> Iterator[CheckFinding]:
    """What the checks of a module find about a changed copy of it, the quickest first."""
    if module == "rates":
        yield coverage_exact.judge_counts(fault, (1, 3, 8))
        yield coverage_exact.judge_decisions(fault, (1, 3, 8))
    elif module == "betting":
        yield coverage_exact.judge_betting(fault, 5)
        yield judge(means.try_limits(fault, 25, 30, random()))
        yield judge(means.try_betting(fault, 60, 150, random()))
    elif module == "resampling":
        yield judge(means.try_randomisation(fault, 24, 600, random()))
        yield judge(means.try_asymptotic(fault, 60, 1500, random()))
    elif module == "budget":
        yield coverage_exact.judge_budget(fault, 12)
    elif module == "power":
        yield coverage_exact.judge_power(fault)
    else:
        yield judge(coverage_ltt.try_agreement(fault, 60, random()))


def test_every_entry_has_a_silent_counterpart_or_is_no_bound() -> None:
    assert SILENT.keys() | RECORDS == entries.ENTRIES.keys()
    assert not SILENT.keys() & RECORDS


@pytest.mark.parametrize("name", sorted(SILENT))
def test_a_bound_that_says_nothing_is_seen(name: str) -> None:
    module, _, function = name.partition(".")
    real = {"rates": rates, "betting": betting, "resampling": resampling}
    real |= {"budget": budget, "power": power, "choose": ltt}
    fault = changed(real[module], **{function: SILENT[name]})
    assert any(found.outcome == "failed" for found in judged(module, fault))


def test_all_betting_bounds_silent_at_once_are_seen_by_their_own_check() -> None:
    names = ("betting_lower", "betting_upper", "difference_lower", "noninferior")
    fault = changed(betting, **{name: SILENT[f"betting.{name}"] for name in names})
    found = judge(means.try_limits(fault, 25, 30, random()))
    assert found.outcome == "failed"
    assert "far off" in found.detail
    hopeless = changed(betting, betting_p_value=lambda *_: F(1), betting_exceeds=never)
    assert coverage_exact.judge_betting(hopeless, 5).outcome == "failed"


@pytest.mark.parametrize(("n", "delta"), [(25, F(1, 4)), (60, F(1, 20))])
def test_a_limit_within_reach_is_one_that_says_something(n: int, delta: Fraction) -> None:
    for units in means.LIMIT_LAWS:
        assert 0 < means.reach(units, n, delta) < units.mean
    assert means.reach(None, n, delta) < F(1, 2)


def test_a_limit_twice_as_far_as_need_be_is_seen() -> None:
    def timid(values: Any, delta: Fraction, design: Any) -> Any:
        return betting.betting_lower(values, delta**16, design)

    assert failed(means.try_limits(changed(betting, betting_lower=timid), 25, 60, random()))


# --- the choice of a ticket ---------------------------------------------------------------------------------


def untimely(stop: bool, last: bool, flip: bool = False) -> Any:
    """A choice that does not stop, takes the largest ticket shown, or tests the smallest first."""

    def choose(evidence: Any, goal: Any, delta: Fraction) -> Any:
        arms = ltt.candidates(evidence)
        good = []
        for one in reversed(arms) if flip else arms:
            answers = [record.arms[one.name] for (record,) in evidence.units.values()]
            alone = outlines.evidence([one], {one.name: answers})
            shown = ltt.choose(alone, goal, delta).chosen
            if shown is not None:
                good.append(shown)
            elif stop:
                break
        return SimpleNamespace(chosen=good[-1 if last else 0] if good else None)

    return choose


@pytest.mark.parametrize(
    ("choose", "draws"),
    [
        (untimely(stop=False, last=True), 400),
        (untimely(stop=True, last=False), 200),
        (untimely(stop=True, last=True, flip=True), 200),
        (lambda evidence, goal, delta: ltt.choose(evidence, goal, 4 * delta), 200),
        (lambda evidence, goal, delta: ltt.choose(evidence, goal, delta / 10), 200),
    ],
    ids=["goes on", "the largest", "from the smallest", "4 delta", "timid"],
)
def test_faulty_choices_are_seen(choose: Any, draws: int) -> None:
    assert failed(coverage_ltt.try_agreement(changed(ltt, choose=choose), draws, random()))


def test_the_known_rates_of_the_choice() -> None:
    rightly = binom.sf(95, 100, 0.97)
    assert math.isclose(float(coverage_ltt.shown_with(F(97, 100), F(9, 10))), rightly, rel_tol=1e-9)
    assert coverage_ltt.shown_with(F(9, 10), F(9, 10)) <= coverage_trials.DELTA


def test_controls_are_no_candidates_of_the_simulation() -> None:
    def everything(evidence: Any, goal: Any, delta: Fraction) -> Any:
        for one in evidence.manifest.arms:
            one.control = None
        return ltt.choose(evidence, goal, delta)

    assert failed(coverage_ltt.try_agreement(changed(ltt, choose=everything), 60, random()))


# --- nothing goes untested ----------------------------------------------------------------------------------


def test_entries_name_checks_that_exist() -> None:
    from proofs_checks.run.prove import checks

    known = {item.name for item in checks()}
    for table in (entries.ENTRIES, entries.ELSEWHERE):
        assert {name for names in table.values() for name in names} <= known


class NewBound:
    """A class is public too."""


@pytest.mark.parametrize(
    "bound",
    [
        lambda: None,
        NewBound,
        functools.lru_cache(lambda: None),
        functools.partial(rates.rate_limit, 1),
        functools.cache(lambda: None),
    ],
    ids=["function", "class", "cached", "partial", "cache"],
)
def test_whatever_can_be_called_needs_an_entry(bound: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "new_bound", bound, raising=False)
    result = entries.entries.run(Budget())
    assert result.outcome == "failed"
    assert "rates.new_bound" in result.detail


def test_types_and_imports_are_not_public_functions() -> None:
    found = entries.public_names(resampling)
    assert "Statistic" not in found
    assert "Limit" not in found
    assert "check_level" not in found
    assert found == ["cluster_rate", "paired_bootstrap", "paired_swap"]


@pytest.mark.parametrize(
    ("source", "handles"),
    [
        ("from certify.stats.limits import Limit\ndef bound(k):\n    return Limit()", True),
        ("from certify.stats import limits", True),
        ("import certify.stats.betting as b", True),
        ("def bound(k: int, *, delta: float) -> float: ...", True),
        ("class A:\n    def bound(self, delta): ...", True),
        ("def _inside(delta): ...", False),
        ("from certify.base.errors import UsageError\ndef f(alpha): ...", False),
    ],
)
def test_a_module_that_handles_error_probabilities_is_found(source: str, handles: bool) -> None:
    assert entries.handles_errors(source) == handles


def test_a_new_module_needs_an_entry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shutil.copytree(entries.folder(), tmp_path / "certify")
    tmp_path /= "certify"
    monkeypatch.setattr(entries, "folder", lambda: tmp_path)
    assert entries.entries.run(Budget()).passed
    (tmp_path / "gate" / "newbounds.py").write_text("from certify.stats.limits import Limit")
    result = entries.entries.run(Budget())
    assert result.outcome == "failed"
    assert "gate.newbounds" in result.detail


def test_every_function_that_returns_a_limit_is_in_a_listed_module() -> None:
    """The rule of the entries against the annotations: whoever returns limits is found by it."""
    listed = {module.__name__.removeprefix("certify.") for module in entries.MODULES}
    listed |= entries.ELSEWHERE.keys()
    for name, source in entries.named(entries.folder()).items():
        tree = ast.parse(source)
        returns = [
            node.name
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef) and node.returns and "Limit" in ast.unparse(node.returns)
        ]
        assert not returns or name in listed, (name, returns)


def test_laws_are_what_they_are_called() -> None:
    assert two_point(F(1, 50)).mean == F(1, 50)
    assert two_point(F(9, 10), F(1, 5), F(2, 5)).mean == F(19, 50)
    draws = means.draw(HARD[2], 2000, random())
    assert abs(sum(draws) / 2000 - F(1, 2)) < F(1, 20)
    adversary = means.draw_adversary(4000, random())
    after_one = [b for a, b in itertools.pairwise(adversary) if a == 1]
    assert set(after_one) == {F(49, 100), F(51, 100)}
    assert abs(sum(adversary) / 4000 - F(1, 2)) < F(1, 20)
    assert (
        coverage_trials.generator(Budget(seed=1), 2).random()
        != coverage_trials.generator(Budget(), 2).random()
    )
