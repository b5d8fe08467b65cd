"""Planning: golden values, brute force, and the planned numbers tried out."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from certify.base.errors import UsageError
from certify.stats.power import (
    clean_units_needed,
    simulated_power,
    units_for_agreement,
    units_for_mean,
    units_for_rate,
)

DELTA = Fraction(1, 20)
HALF = Fraction(1, 2)


def at_least(k: int, n: int, p: Fraction) -> Fraction:
    return sum((math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1)), Fraction(0))


def units_by_brute_force(target: Fraction, truth: Fraction, delta: Fraction, power: Fraction) -> int:
    n = 0
    while True:
        n += 1
        enough = [k for k in range(n + 1) if at_least(k, n, target) <= delta]
        if enough and at_least(enough[0], n, truth) >= power:
            return n


def test_golden_values() -> None:
    assert clean_units_needed(DELTA, DELTA) == 59
    assert clean_units_needed(Fraction(1, 1000), DELTA) == 2995


@given(
    alpha=st.fractions(min_value=Fraction(1, 60), max_value=Fraction(99, 100)),
    delta=st.fractions(min_value=Fraction(1, 500), max_value=Fraction(99, 100)),
)
def test_clean_units_are_the_fewest(alpha: Fraction, delta: Fraction) -> None:
    n = clean_units_needed(alpha, delta)
    assert (1 - alpha) ** n <= delta < (1 - alpha) ** (n - 1)


@pytest.mark.parametrize("exponent", [1, 2, 5, 30])
def test_clean_units_where_the_power_is_met_exactly(exponent: int) -> None:
    for alpha in (HALF, Fraction(1, 3), Fraction(1, 20)):
        assert clean_units_needed(alpha, (1 - alpha) ** exponent) == exponent
        assert clean_units_needed(alpha, (1 - alpha) ** exponent - Fraction(1, 10**40)) == exponent + 1


@pytest.mark.parametrize(
    ("target", "truth", "delta", "power"),
    [
        (Fraction(19, 20), Fraction(1), DELTA, Fraction(4, 5)),
        (Fraction(3, 4), Fraction(9, 10), DELTA, Fraction(4, 5)),
        (HALF, Fraction(4, 5), Fraction(1, 8), HALF),
        (HALF, Fraction(1), Fraction(1, 8), HALF),  # 1/2^3 = delta: equality counts
        (HALF, Fraction(3, 4), Fraction(1, 10), Fraction(27, 64)),
    ],
)
def test_units_for_agreement_against_brute_force(
    target: Fraction, truth: Fraction, delta: Fraction, power: Fraction
) -> None:
    expected = units_by_brute_force(target, truth, delta, power)
    assert units_for_agreement(target, truth, delta, power) == expected
    assert units_for_rate(1 - target, 1 - truth, delta, power) == expected


def test_a_flawless_predictor_needs_the_clean_units() -> None:
    for alpha in (DELTA, Fraction(1, 100), Fraction(1, 1000)):
        assert units_for_rate(alpha, Fraction(0), DELTA, Fraction(9, 10)) == clean_units_needed(alpha, DELTA)


def test_units_for_mean_move_the_right_way() -> None:
    needed = units_for_mean(Fraction(1), Fraction(5), DELTA, Fraction(4, 5))
    assert units_for_mean(Fraction(2), Fraction(5), DELTA, Fraction(4, 5)) < needed
    assert units_for_mean(Fraction(1), Fraction(8), DELTA, Fraction(4, 5)) > needed
    assert units_for_mean(Fraction(1), Fraction(5), DELTA, Fraction(19, 20)) > needed
    assert units_for_mean(Fraction(1), Fraction(5), DELTA / 10, Fraction(4, 5)) > needed
    assert units_for_mean(Fraction(1), Fraction(5), DELTA, Fraction(4, 5), truth=Fraction(1)) < needed


def test_planned_numbers_are_about_right() -> None:
    margin, sd, power = Fraction(2), Fraction(8), Fraction(4, 5)
    n = units_for_mean(margin, sd, DELTA, power)
    # 80 % is planned; the approximation and 150 draws are good to 12 points, half and double the units not.
    assert abs(simulated_power(n, margin, sd, DELTA, seed=0, draws=150) - power) < Fraction(12, 100)
    assert simulated_power(n // 2, margin, sd, DELTA, seed=0, draws=150) < Fraction(3, 5)
    assert simulated_power(2 * n, margin, sd, DELTA, seed=0, draws=150) > Fraction(19, 20)


def test_a_false_claim_is_rarely_shown() -> None:
    # The truth is exactly the margin below: at most 5 % of evaluations may decide; 14 of 150 has p = .02.
    wrong = simulated_power(
        200, Fraction(1), Fraction(5), DELTA, seed=0, draws=150, truth=Fraction(-1), design="sequential"
    )
    assert wrong <= Fraction(13, 150)


def test_simulation_repeats() -> None:
    shares = [
        simulated_power(60, Fraction(10), Fraction(30), DELTA, seed=seed, draws=40)
        for seed in (0, 0, 1, 2, 3, 4)
    ]
    assert shares[0] == shares[1]
    assert len(set(shares)) > 1


@pytest.mark.parametrize(
    "call",
    [
        lambda: clean_units_needed(Fraction(0), DELTA),
        lambda: clean_units_needed(Fraction(1), DELTA),
        lambda: clean_units_needed(DELTA, Fraction(0)),
        lambda: clean_units_needed(Fraction(1, 10**9), DELTA),
        lambda: units_for_agreement(HALF, HALF, DELTA, HALF),
        lambda: units_for_agreement(HALF, Fraction(1, 4), DELTA, HALF),
        lambda: units_for_agreement(HALF, Fraction(3, 4), DELTA, Fraction(1)),
        lambda: units_for_mean(Fraction(0), Fraction(1), DELTA, HALF),
        lambda: units_for_mean(Fraction(1), Fraction(0), DELTA, HALF),
        lambda: units_for_mean(Fraction(100), Fraction(1), DELTA, HALF),
        lambda: units_for_mean(Fraction(1, 1000), Fraction(10), DELTA, HALF),
        lambda: simulated_power(0, Fraction(1), Fraction(1), DELTA, seed=0),
        lambda: simulated_power(5, Fraction(1), Fraction(1), DELTA, seed=-1),
    ],
)
def test_settings_that_are_refused(call: Callable[[], object]) -> None:
    with pytest.raises(UsageError):
        call()


@pytest.mark.statistical
def test_a_margin_of_one_point_is_shown_by_1450_units_three_times_in_four() -> None:
    shown = {
        design: int(300 * simulated_power(1450, Fraction(1), Fraction(15), DELTA, 5, 300, design=design))
        for design in ("fixed", "sequential")
    }
    assert binom.cdf(shown["fixed"], 300, 0.75) > 1e-4
    assert binom.cdf(shown["sequential"], 300, 0.75) < 1e-4, "control: bets without a deadline"
