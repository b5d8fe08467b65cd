"""The simulations and enumerations of coverage: right code passes, planted faults do not, alarms are rare."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from certify import betting, bounds, budget, power, resampling
from lottery import multiplicity
from proofs_checks import (
    coverage,
    coverage_exact,
    coverage_pipeline,
    coverage_plans,
    coverage_selection,
    coverage_trials,
)
from proofs_checks.coverage_exact import HARD, Units, tail, two_point
from proofs_checks.coverage_trials import ALARM, COMPARISONS, Trial, judge
from proofs_checks.records import Budget, Check, CheckResult, Finding

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

    def count(found: Sequence[Trial]) -> Finding:
        trials.extend(found)
        return judge(found)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coverage, "judge", count)
        patch.setattr(coverage_selection, "judge", count)
        yield Runs({item.name: item.run(Budget()) for item in coverage.CHECKS}, trials)


@pytest.mark.parametrize("name", [item.name for item in coverage.CHECKS])
def test_every_check_passes(name: str, runs: Runs) -> None:
    result = runs.results[name]
    assert result.passed, result


@pytest.mark.slow
@pytest.mark.parametrize("item", coverage.CHECKS, ids=lambda item: item.name)
def test_every_check_passes_in_full(item: Check) -> None:
    result = item.run(Budget("full", 600))
    assert result.passed, result


# --- the acceptance of counts -------------------------------------------------------------------------------


def test_alarms_of_a_whole_run_are_rarer_than_stated(runs: Runs) -> None:
    """Every trial of a fast run, with the probability that a right procedure falls outside its limits."""
    assert 80 < len(runs.trials) <= COMPARISONS - coverage_pipeline.MOST
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
def test_samples_and_sequences_are_all_there(units: Units) -> None:
    assert sum(p for _, p in units.samples(4)) == 1 == sum(p for _, p in units.sequences(4))
    for sample in (units.samples, units.sequences):
        assert sum(p * sum(values) / 4 for values, p in sample(4)) == units.mean


def test_the_tail_is_the_binomial_one() -> None:
    assert math.isclose(float(tail(9, F(1, 3), range(4))), binom.cdf(3, 9, 1 / 3), rel_tol=1e-12)


def test_limits_on_the_wrong_side_are_caught() -> None:
    step = F(1, 2**32)

    def closer(k: int, n: int, delta: Fraction, side: Any) -> Any:
        limit = bounds.rate_limit(k, n, delta, side).value
        inside = 0 < limit < 1
        return SimpleNamespace(value=limit + (0 if not inside else step if side == "lower" else -step))

    def farther(k: int, n: int, delta: Fraction, side: Any) -> Any:
        limit = bounds.rate_limit(k, n, delta, side).value
        return SimpleNamespace(value=limit - 9 * step if 9 * step < limit < 1 and side == "lower" else limit)

    for fault, words in ((closer, "is missed with rate"), (farther, "weaker than needed")):
        found = coverage_exact.judge_counts(changed(bounds, rate_limit=fault), (3, 5))
        assert found.outcome == "failed"
        assert words in found.detail
    one_sided = changed(bounds, clopper_pearson=lambda k, n, d: bounds.clopper_pearson(k, n, 2 * d / (1 + d)))
    assert coverage_exact.judge_counts(one_sided, (12, 20, 30)).outcome == "failed"


def test_normal_limits_of_means_are_caught() -> None:
    def wald(mean: Fraction, n: int, _: Fraction) -> Any:
        return SimpleNamespace(value=max(F(0), mean - F(1.645) * F(math.sqrt(mean * (1 - mean) / n))))

    assert coverage_exact.judge_means(changed(bounds, hoeffding_lower=wald), (12,)).outcome == "failed"


def test_bets_that_know_too_much_are_caught() -> None:
    def sorted_first(values: Any, m: Fraction, delta: Fraction, design: Any) -> Any:
        return betting.betting_p_value(sorted(values, reverse=True), m, delta, design)

    fault = changed(betting, betting_p_value=sorted_first)
    found = coverage_exact.judge_betting(fault, 6)
    assert found.outcome == "failed"


def test_budgets_that_are_overspent_are_caught() -> None:
    faults: dict[str, Any] = {
        "holm": lambda p, delta: tuple(value <= delta for value in p),
        "fixed_sequence": sum,
        "split_budget": lambda delta, weights: (delta,) * len(weights),
    }
    for name, fault in faults.items():
        assert coverage_plans.judge_budget(changed(budget, **{name: fault}), 12).outcome == "failed", name


def test_planning_for_too_few_units_is_caught() -> None:
    for name in ("clean_units_needed", "units_for_agreement", "units_for_rate", "units_for_mean"):

        def fewer(*arguments: Any, name: str = name) -> int:
            return int(getattr(power, name)(*arguments)) * 3 // 5

        assert coverage_plans.judge_power(changed(power, **{name: fewer})).outcome == "failed", name


def test_cluster_misses_by_simulation() -> None:
    """The exact rate of a miss with clusters ignored, against drawing clusters."""
    groups, p, delta = 8, F(4, 5), F(1, 20)
    limits = [bounds.rate_limit(k, 7 * groups, delta, "lower").value for k in range(7 * groups + 1)]
    exact = coverage_plans.cluster_misses(limits, groups, p)
    random = np.random.Generator(np.random.PCG64(3))
    ones = random.random((4000, 2 * groups)) < float(p)
    totals = ones @ np.array([3, 4] * groups)
    missed = sum(limits[k] > p for k in totals.tolist())
    assert abs(missed / 4000 - float(exact)) < 0.03
    assert coverage_plans.cluster_misses([F(0)] * len(limits), groups, p) == 0


# --- simulations --------------------------------------------------------------------------------------------


def random() -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(9))


def failed(trials: list[Trial]) -> bool:
    return judge(trials).outcome == "failed"


def test_planted_faults_in_tests_and_limits_are_seen() -> None:
    def too_small(differences: Any, seed: int, draws: int) -> Any:
        return SimpleNamespace(p_value=resampling.sign_flip(differences, seed, draws).p_value - F(1, 10))

    assert failed(coverage.try_randomisation(changed(resampling, sign_flip=too_small), 24, 600, random()))

    def narrow(a: Any, b: Any, statistic: Any, delta: Fraction, seed: int, side: Any, draws: int) -> Any:
        return resampling.paired_bootstrap(a, b, statistic, 4 * delta, seed, side, draws)

    assert failed(coverage.try_asymptotic(changed(resampling, paired_bootstrap=narrow), 40, 300, random()))

    def steps_as_units(successes: Any, sizes: Any, delta: Fraction, side: Any) -> Any:
        return bounds.rate_limit(sum(successes), sum(sizes), delta, side)

    assert failed(
        coverage.try_asymptotic(changed(resampling, cluster_rate=steps_as_units), 40, 300, random())
    )

    def mean_itself(values: Any, m: Fraction, *_: Any) -> bool:
        return bool(sum(values) / len(values) > m)

    assert failed(coverage.try_betting(changed(betting, betting_exceeds=mean_itself), 20, 60, random()))
    for name in ("betting_lower", "difference_lower"):
        fault = {name: lambda values, *_: SimpleNamespace(value=sum(values) / len(values))}
        assert failed(coverage.try_limits(changed(betting, **fault), 10, 80, random())), name


def test_a_limit_that_says_nothing_is_seen_where_more_is_known() -> None:
    silent = changed(betting, betting_exceeds=lambda *_: False)
    assert failed(coverage.try_betting(silent, 2, 2000, random()))


def test_planted_faults_in_selection_are_seen() -> None:
    def twice(h: Any, n: int, alpha: Fraction, correction: Any = "none", method: Any = "exact") -> Any:
        return multiplicity.rejected(h, n, 2 * alpha, correction, method)

    def uncorrected(h: Any, n: int, alpha: Fraction, _: Any = "none", method: Any = "exact") -> Any:
        return multiplicity.rejected(h, n, alpha, "none", method)

    def never(h: Any, n: int, alpha: Fraction, correction: Any = "none", method: Any = "exact") -> Any:
        return multiplicity.rejected(h, n, alpha / 10**9, correction, method)

    for fault in (twice, uncorrected, never):
        module = SimpleNamespace(rejected=fault)
        assert failed(coverage_selection.try_nulls(module, 300, random())), fault
        assert failed(coverage_selection.try_mixtures(module, 900, random())), fault


def test_the_known_rates_of_selection() -> None:
    assert coverage_selection.smirnov(0, 5) == 1
    paths = [
        sum(steps[:i]) for steps in itertools.product((1, -1), repeat=6) if not sum(steps) for i in range(7)
    ]
    runs = [paths[start : start + 7] for start in range(0, len(paths), 7)]
    for h in range(1, 4):
        share = F(sum(max(map(abs, run)) >= h for run in runs), len(runs))
        assert coverage_selection.smirnov(h, 3) == share
    assert coverage_selection.attained(F(1, 10), 3) == 0.1
    assert coverage_selection.attained(F(1, 100), 3) == 0


# --- nothing goes untested ----------------------------------------------------------------------------------


def test_entries_name_checks_that_exist_and_miss_no_function(monkeypatch: pytest.MonkeyPatch) -> None:
    from proofs_checks.prove import checks

    known = {item.name for item in checks()}
    assert {name for names in coverage.ENTRIES.values() for name in names} <= known
    assert "bounds.clopper_pearson" in coverage.public_functions(coverage.MODULES)
    monkeypatch.setattr(bounds, "new_bound", two_point_like(bounds), raising=False)
    result = coverage.entries.run(Budget())
    assert result.outcome == "failed"
    assert "bounds.new_bound" in result.detail


def two_point_like(module: ModuleType) -> Any:
    """A public function that claims to be defined in ``module``."""

    def new_bound() -> None: ...

    new_bound.__module__ = module.__name__
    return new_bound


def test_laws_are_what_they_are_called() -> None:
    assert two_point(F(1, 50)).mean == F(1, 50)
    assert two_point(F(9, 10), F(1, 5), F(2, 5)).mean == F(19, 50)
    draws = coverage.draw(HARD[2], 2000, random())
    assert abs(sum(draws) / 2000 - F(1, 2)) < F(1, 20)
    adversary = coverage.draw_adversary(4000, random())
    after_one = [b for a, b in itertools.pairwise(adversary) if a == 1]
    assert set(after_one) == {F(49, 100), F(51, 100)}
    assert abs(sum(adversary) / 4000 - F(1, 2)) < F(1, 20)
    assert (
        coverage_trials.generator(Budget(seed=1), 2).random()
        != coverage_trials.generator(Budget(), 2).random()
    )
