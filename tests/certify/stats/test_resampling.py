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
from certify.stats.resampling import cluster_rate, paired_bootstrap, paired_swap, sign_flip

DELTA = Fraction(1, 20)
Array = NDArray[np.int64]


def numbers(seed: int, *shape: int, low: int = 0, high: int = 20) -> Array:
    return np.random.default_rng(seed).integers(low, high, size=shape)


def total(sums: Array) -> NDArray[np.float64]:
    return sums[:, 0].astype(np.float64)


def ratio(sums: Array) -> NDArray[np.float64]:
    return sums[:, 0] / (1.0 + sums[:, 1])


# --- sign flips and swaps --------------------------------------------------------------------------------


@pytest.mark.parametrize("differences", [[3, -1, 4, 1, -5, 9, 2], [1, 1, 1, 0, 0, -1], [0, 5], [-2, -2, 1]])
def test_sign_flips_against_all_of_them(differences: list[int]) -> None:
    flips = list(itertools.product((-1, 1), repeat=len(differences)))
    observed = sum(differences)
    share = sum(np.dot(signs, differences) >= observed for signs in flips) / len(flips)
    p = float(sign_flip(differences, seed=7, draws=20_000).p_value)
    # Five standard deviations of a share of 20,000 draws.
    assert abs(p - share) <= 5 * math.sqrt(0.25 / 20_000)


def test_identical_outputs_have_p_one() -> None:
    for seed in (0, 1):
        assert sign_flip([0] * 30, seed=seed, draws=99).p_value == 1
        same = numbers(1, 30, 2)
        assert paired_swap(same, same.copy(), ratio, seed=seed, draws=99).p_value == 1


def test_a_p_value_is_never_zero() -> None:
    assert sign_flip([5] * 200, seed=0, draws=99).p_value == Fraction(1, 100)
    a, b = np.full((200, 1), 9), np.full((200, 1), 2)
    assert paired_swap(a, b, total, seed=0, draws=99).p_value == Fraction(1, 100)


def test_swapping_sums_is_flipping_signs() -> None:
    # One generator, one order of draws: a swap is the sign -1, drawn as 1 there and as 0 here.
    a, b = numbers(2, 12, 1), numbers(3, 12, 1)
    swaps = np.random.Generator(np.random.PCG64(5)).integers(0, 2, size=(500, 12), dtype=np.int8)
    gap = (a - b)[:, 0]
    extreme = sum(int(np.dot(1 - 2 * row.astype(int), gap)) >= int(gap.sum()) for row in swaps)
    assert paired_swap(a, b, total, seed=5, draws=500).p_value == Fraction(1 + extreme, 501)


def test_ties_count_whatever_the_floats_say() -> None:
    def noisy(sums: Array) -> NDArray[np.float64]:
        # The same sums score a little lower in every later row, as a vectorised function may by rounding.
        return sums[:, 0] * (1 - 1e-13 * np.arange(len(sums)))

    a, b = numbers(4, 10, 1) + 50, numbers(4, 10, 1) + 50
    b[0] -= 3  # only one unit differs: half of the draws tie with the data
    p = paired_swap(a, b, noisy, seed=0, draws=400).p_value
    assert abs(float(p) - 0.5) < 0.15


def test_the_seed_decides_and_zero_is_a_seed() -> None:
    differences = [3, -1, 4, 1, -5, 9, 2, -6, 5]
    p = [sign_flip(differences, seed=seed).p_value for seed in (0, 0, 1, 2)]
    assert p[0] == p[1]
    assert len(set(p)) == 3
    a, b = numbers(2, 25, 2), numbers(3, 25, 2)
    limits = [paired_bootstrap(a, b, ratio, DELTA, seed=seed).value for seed in (0, 0, 1, 2)]
    assert limits[0] == limits[1]
    assert len(set(limits)) == 3


def test_results_do_not_depend_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = numbers(2, 25, 2), numbers(3, 25, 2)

    def results() -> tuple[Fraction, ...]:
        return (
            sign_flip((a - b)[:, 0], seed=0, draws=999).p_value,
            paired_swap(a, b, ratio, seed=0).p_value,
            paired_bootstrap(a, b, ratio, DELTA, seed=0).value,
        )

    whole = results()
    monkeypatch.setattr(resampling, "_BLOCK", 1000)
    assert results() == whole


def test_global_generator_is_neither_read_nor_moved() -> None:
    state = np.random.get_state()  # noqa: NPY002
    try:
        np.random.seed(1)  # noqa: NPY002
        p = sign_flip([1, 2, -4, 3], seed=0).p_value
        drawn = np.random.random()  # noqa: NPY002
        np.random.seed(1)  # noqa: NPY002
        assert np.random.random() == drawn  # noqa: NPY002
        assert sign_flip([1, 2, -4, 3], seed=0).p_value == p
    finally:
        np.random.set_state(state)  # noqa: NPY002


# --- bootstrap -------------------------------------------------------------------------------------------


def test_bootstrap_draws_units_in_pairs() -> None:
    # b = a + 1 in every unit: any paired resample has the same difference; unpaired ones would scatter.
    a = numbers(5, 40, 1)
    for side in ("lower", "upper"):
        limit = paired_bootstrap(a + 1, a, total, DELTA, seed=0, side=side, draws=200)
        assert limit.value == limit.estimate == 40


def test_bootstrap_takes_the_order_statistic() -> None:
    a, b, draws = numbers(6, 15, 1), numbers(7, 15, 1), 199
    gap = (a - b)[:, 0]
    chosen = np.random.Generator(np.random.PCG64(3)).integers(0, 15, size=(draws, 15))
    ordered = sorted(int(gap[row].sum()) for row in chosen)
    assert paired_bootstrap(a, b, total, DELTA, seed=3, draws=draws).value == ordered[9]
    assert paired_bootstrap(a, b, total, DELTA, seed=3, side="upper", draws=draws).value == ordered[-10]


def test_bootstrap_is_near_the_normal_limit_and_says_what_it_is() -> None:
    a, b = numbers(8, 600, 1), numbers(9, 600, 1)
    gap = (a - b)[:, 0]
    expected = gap.sum() - 1.645 * gap.std() * math.sqrt(600)
    limit = paired_bootstrap(a, b, total, DELTA, seed=0, draws=2000)
    assert float(limit.value) == pytest.approx(expected, abs=0.15 * gap.std() * math.sqrt(600))
    assert limit.estimate == int(gap.sum())
    assert limit.asymptotic
    assert limit.assumptions == ("iid", "asymptotic")


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
        (lambda: sign_flip([], 0), NothingToDoError, "NO_UNITS"),
        (lambda: sign_flip([0.5], 0), InvalidInputError, "UNIT_TYPE"),
        (lambda: sign_flip([True], 0), InvalidInputError, "UNIT_TYPE"),
        (lambda: sign_flip([[1]], 0), InvalidInputError, "UNIT_TYPE"),
        (lambda: sign_flip([2**62, 2**62], 0), InvalidInputError, "UNIT_RANGE"),
        (lambda: sign_flip([-(2**63), 0], 0), InvalidInputError, "UNIT_RANGE"),
        (lambda: sign_flip([1], -1), UsageError, "SEED_RANGE"),
        (lambda: sign_flip([1], None), UsageError, "SEED_RANGE"),
        (lambda: sign_flip([1], 0, draws=0), UsageError, "DRAWS_RANGE"),
        (lambda: paired_swap(ONE[:0], ONE[:0], total, 0), NothingToDoError, "NO_UNITS"),
        (lambda: paired_swap(ONE, ONE[:2], total, 0), InvalidInputError, "UNIT_TYPE"),
        (lambda: paired_swap(ONE * 0.5, ONE, total, 0), InvalidInputError, "UNIT_TYPE"),
        (lambda: paired_swap(ONE * 2**61, ONE, total, 0), InvalidInputError, "UNIT_RANGE"),
        (lambda: paired_swap(ONE, ONE, lambda s: s[:, 0] * math.nan, 0), InvalidInputError, "SCORE_RANGE"),
        (lambda: paired_swap(ONE, ONE, lambda s: s[0], 0), InvalidInputError, "SCORE_RANGE"),
        (lambda: paired_bootstrap(ONE, ONE, total, DELTA, 0, draws=18), UsageError, "DRAWS_RANGE"),
        (lambda: paired_bootstrap(ONE, ONE, total, DELTA, 0, side="both"), UsageError, "SIDE_UNKNOWN"),
        (lambda: paired_bootstrap(ONE, ONE, total, Fraction(1), 0), UsageError, "DELTA_RANGE"),
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
