"""Resampling and clusters: against full enumeration, textbook formulas and planted ties."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import t as student

from certify.base.errors import CertifyError, InvalidInputError, NothingToDoError, UsageError
from certify.stats import resampling
from certify.stats.resampling import cluster_rate, paired_bootstrap, paired_swap

DELTA = Fraction(1, 20)
Array = NDArray[np.int64]
Scores = NDArray[np.float64]


def numbers(seed: int, *shape: int, low: int = 0, high: int = 20) -> Array:
    return np.random.default_rng(seed).integers(low, high, size=shape)


def total(sums: Array) -> Scores:
    return sums[:, :1].astype(np.float64)


def ratio(sums: Array) -> Scores:
    return sums[:, :1] / (1.0 + sums[:, 1:2])


def both(sums: Array) -> Scores:
    return np.hstack([ratio(sums), total(sums)])


# --- exchanges ---------------------------------------------------------------------------------------------


def share(a: Array, b: Array, statistic: Callable[[Array], Scores]) -> Fraction:
    """The share of all exchanges of units whose difference is at least the observed one."""
    observed, extreme = statistic(a.sum(0)[None]) - statistic(b.sum(0)[None]), 0
    for mask in itertools.product((False, True), repeat=len(a)):
        kept = np.array(mask)[:, None]
        ours, theirs = (np.where(kept, x, y).sum(0)[None] for x, y in ((b, a), (a, b)))
        extreme += int((statistic(ours) - statistic(theirs) >= observed - 1e-12)[0, 0])
    return Fraction(extreme, 2 ** len(a))


@pytest.mark.parametrize("n", [1, 2, 5, 8])
@pytest.mark.parametrize("statistic", [total, ratio])
def test_few_units_are_exchanged_in_every_way(n: int, statistic: Callable[[Array], Scores]) -> None:
    a, b = numbers(n, n, 2), numbers(n + 1, n, 2)
    assert paired_swap(a, b, statistic, seed=0) == (share(a, b, statistic),)


@pytest.mark.parametrize("statistic", [total, ratio])
def test_many_units_against_all_exchanges(statistic: Callable[[Array], Scores]) -> None:
    a, b = numbers(3, 12, 2), numbers(4, 12, 2)
    (p,) = paired_swap(a, b, statistic, seed=7, draws=3000)
    # Five standard deviations of a share of 3,000 draws.
    assert abs(float(p) - float(share(a, b, statistic))) <= 5 * math.sqrt(0.25 / 3000)


def test_identical_outputs_have_p_one() -> None:
    for seed, n in itertools.product((0, 1), (1, 4, 30)):
        same = numbers(1, n, 2)
        assert paired_swap(same, same.copy(), both, seed=seed, draws=99) == (1, 1)


def test_a_p_value_is_never_zero() -> None:
    a, b = np.full((200, 1), 9), np.full((200, 1), 2)
    assert paired_swap(a, b, total, seed=0, draws=99) == (Fraction(1, 100),)
    assert paired_swap(b, a, total, seed=0, draws=99) == (1,)


def test_ties_count_whatever_the_floats_say() -> None:
    def noisy(sums: Array) -> Scores:
        # The same sums score a little lower in every later row, as a vectorised function may by rounding.
        return (sums[:, 0] * (1 - 1e-13 * np.arange(len(sums))))[:, None]

    a, b = numbers(4, 10, 1) + 50, numbers(4, 10, 1) + 50
    b[0] -= 3  # only one unit differs: half of the draws tie with the data
    (p,) = paired_swap(a, b, noisy, seed=0, draws=400)
    assert abs(float(p) - 0.5) < 0.15


def test_equal_scores_of_other_sums_are_ties() -> None:
    a, b = numbers(4, 30, 2), numbers(5, 30, 2)
    a[:, 0] = b[:, 0]  # what counts is equal, what does not is not
    assert paired_swap(a, b, total, seed=0, draws=400) == (1,)


def test_the_seed_decides_and_zero_is_a_seed() -> None:
    a, b = numbers(2, 25, 2), numbers(3, 25, 2)
    p = [paired_swap(a, b, ratio, seed=seed) for seed in (0, 0, 1, 2)]
    assert p[0] == p[1]
    assert len(set(p)) == 3
    limits = [float(paired_bootstrap(a, b, ratio, DELTA, seed=seed)[0][0]) for seed in (0, 0, 1, 2)]
    assert limits[0] == limits[1]
    assert len(set(limits)) == 3


def test_results_do_not_depend_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = numbers(2, 25, 2), numbers(3, 25, 2)

    def results() -> list[object]:
        limits = paired_bootstrap(a, b, both, DELTA, seed=0)
        return [paired_swap(a, b, both, seed=0), *(one.tolist() for one in limits)]

    whole = results()
    monkeypatch.setattr(resampling, "_BLOCK", 1000)
    assert results() == whole


def test_global_generator_is_neither_read_nor_moved() -> None:
    a, b = numbers(2, 25, 1), numbers(3, 25, 1)
    state = np.random.get_state()  # noqa: NPY002
    try:
        np.random.seed(1)  # noqa: NPY002
        p, limits = paired_swap(a, b, total, 0), paired_bootstrap(a, b, total, DELTA, 0)
        drawn = np.random.random()  # noqa: NPY002
        np.random.seed(1)  # noqa: NPY002
        assert np.random.random() == drawn  # noqa: NPY002
        assert (paired_swap(a, b, total, 0), paired_bootstrap(a, b, total, DELTA, 0)) == (p, limits)
    finally:
        np.random.set_state(state)  # noqa: NPY002


# --- bootstrap -------------------------------------------------------------------------------------------


def test_bootstrap_draws_units_in_pairs() -> None:
    # b = a + 1 in every unit: any paired resample has the same difference; unpaired ones would scatter.
    a = numbers(5, 40, 1)
    assert paired_bootstrap(a + 1, a, total, DELTA, seed=0, draws=200) == (40, 40)


def test_bootstrap_is_near_the_normal_limits() -> None:
    a, b = numbers(8, 600, 1), numbers(9, 600, 1)
    gap = (a - b)[:, 0]
    spread = gap.std() * math.sqrt(600)
    lower, upper = paired_bootstrap(a, b, total, DELTA, seed=0, draws=2000)
    for limit, sign in ((lower, -1), (upper, 1)):
        assert float(limit[0]) == pytest.approx(gap.sum() + sign * 1.645 * spread, abs=0.15 * spread)


def test_scores_are_resampled_together() -> None:
    a, b = numbers(6, 15, 2), numbers(7, 15, 2)
    together = paired_bootstrap(a, b, both, DELTA, seed=3)
    for k, statistic in enumerate((ratio, total)):
        alone = paired_bootstrap(a, b, statistic, DELTA, seed=3)
        assert [one[k] for one in together] == [one[0] for one in alone]
        assert paired_swap(a, b, both, seed=3)[k] == paired_swap(a, b, statistic, seed=3)[0]


# --- clusters --------------------------------------------------------------------------------------------


def textbook(successes: list[int], sizes: list[int]) -> tuple[float, float]:
    """Rate and half-width by Cochran's formula, in floats."""
    n, rate = len(sizes), sum(successes) / sum(sizes)
    variance = sum((y - rate * m) ** 2 for y, m in zip(successes, sizes, strict=True)) / (n - 1)
    mean_size = sum(sizes) / n
    return rate, float(student.ppf(0.95, n - 1)) * math.sqrt(variance / n) / mean_size


@pytest.mark.parametrize(
    ("successes", "sizes"),
    [([1, 0, 2, 0, 3], [10, 10, 10, 4, 9]), ([5, 5, 1, 2], [5, 9, 30, 8]), ([0, 1] * 40, [1] * 80)],
)
def test_cluster_rate_against_the_textbook(successes: list[int], sizes: list[int]) -> None:
    rate, width = textbook(successes, sizes)
    upper, lower = (cluster_rate(successes, sizes, DELTA, side) for side in ("upper", "lower"))
    assert float(upper.value) == pytest.approx(min(1.0, rate + width), abs=1e-9)
    assert float(lower.value) == pytest.approx(max(0.0, rate - width), abs=1e-9)
    assert upper.estimate == Fraction(sum(successes), sum(sizes))
    assert (upper.n, upper.asymptotic) == (len(sizes), True)


def test_clusters_are_not_taken_for_independent_steps() -> None:
    # Steps of one cluster all agree: a hundred times more steps say nothing more.
    successes, sizes = [0, 1, 0, 0, 1, 0, 0, 0], [1] * 8
    small = cluster_rate(successes, sizes, DELTA, "upper")
    large = cluster_rate([100 * y for y in successes], [100] * 8, DELTA, "upper")
    assert abs(small.value - large.value) < Fraction(1, 10**9)


def test_no_variation_is_no_knowledge() -> None:
    assert cluster_rate([0] * 50, [3] * 50, DELTA, "upper").value == 1
    assert cluster_rate([3] * 50, [3] * 50, DELTA, "lower").value == 0
    assert cluster_rate([1] * 50, [3] * 50, DELTA, "upper").value == 1


# --- refusals --------------------------------------------------------------------------------------------

ONE = np.ones((3, 1), dtype=np.int64)


@pytest.mark.parametrize(
    ("call", "error", "code"),
    [
        (lambda: paired_swap(ONE[:0], ONE[:0], total, 0), NothingToDoError, "NO_UNITS"),
        (lambda: paired_swap(ONE, ONE[:2], total, 0), InvalidInputError, "UNIT_TYPE"),
        (lambda: paired_swap(ONE * 0.5, ONE, total, 0), InvalidInputError, "UNIT_TYPE"),
        (lambda: paired_swap(ONE[:, 0], ONE[:, 0], total, 0), InvalidInputError, "UNIT_TYPE"),
        (lambda: paired_swap(ONE * 2**51, ONE, total, 0), InvalidInputError, "UNIT_RANGE"),
        (lambda: paired_swap(ONE, ONE * -(2**51), total, 0), InvalidInputError, "UNIT_RANGE"),
        (lambda: paired_bootstrap(ONE, ONE * 2**62, total, DELTA, 0), InvalidInputError, "UNIT_RANGE"),
        (lambda: paired_bootstrap(ONE, ONE, total, DELTA, 0, draws=18), UsageError, "DRAWS_RANGE"),
        (lambda: paired_bootstrap(ONE, ONE, total, Fraction(1, 2), 0), UsageError, "DRAWS_RANGE"),
        (lambda: paired_bootstrap(ONE, ONE, total, Fraction(1), 0), UsageError, "DELTA_RANGE"),
        (lambda: paired_bootstrap(ONE[:1], ONE[:1], total, DELTA, 0), InvalidInputError, "TOO_FEW_UNITS"),
        (lambda: cluster_rate([], [], DELTA, "upper"), NothingToDoError, "NO_UNITS"),
        (lambda: cluster_rate([1], [2], DELTA, "upper"), InvalidInputError, "TOO_FEW_UNITS"),
        (lambda: cluster_rate([1, 3], [2, 2], DELTA, "upper"), InvalidInputError, "COUNT_RANGE"),
        (lambda: cluster_rate([0, 0], [2, 0], DELTA, "upper"), InvalidInputError, "COUNT_RANGE"),
        (lambda: cluster_rate([0], [2, 2], DELTA, "upper"), InvalidInputError, "COUNT_RANGE"),
        (lambda: cluster_rate([0, 1], [2, 2], DELTA, "both"), UsageError, "SIDE_UNKNOWN"),
    ],
)
def test_refusals(call: Callable[[], object], error: type[CertifyError], code: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert caught.value.code == code
