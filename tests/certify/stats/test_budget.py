"""One error probability for several claims: textbook procedures and the family-wise rate by enumeration."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certify.base.errors import InvalidInputError, NothingToDoError, UsageError
from certify.stats.budget import fixed_sequence, holm, split_budget

DELTA = Fraction(1, 20)
DELTAS = st.fractions(min_value=Fraction(1, 1000), max_value=Fraction(9, 10))
P_VALUES = st.lists(
    st.one_of(st.sampled_from([Fraction(0), DELTA, DELTA / 2, DELTA / 3, Fraction(1)]), st.fractions(0, 1)),
    min_size=1,
    max_size=8,
)


@given(
    delta=DELTAS,
    weights=st.lists(st.fractions(min_value=Fraction(1, 100), max_value=100), min_size=1, max_size=9),
)
def test_shares_are_in_proportion_and_sum_exactly(delta: Fraction, weights: list[Fraction]) -> None:
    shares = split_budget(delta, weights)
    assert sum(shares) == delta
    assert [share * weights[0] for share in shares] == [shares[0] * weight for weight in weights]


@given(p_values=P_VALUES, delta=DELTAS)
def test_holm_against_its_adjusted_p_values(p_values: list[Fraction], delta: Fraction) -> None:
    # Adjusted p: the largest of (number of p-values at or after the place) * p over the places up to its own.
    m, running, expected = len(p_values), Fraction(0), [False] * len(p_values)
    for rank, (p, index) in enumerate(sorted((p, i) for i, p in enumerate(p_values))):
        running = max(running, (m - rank) * p)
        expected[index] = running <= delta
    assert holm(p_values, delta) == tuple(expected)


@given(p_values=P_VALUES)
def test_holm_lies_between_bonferroni_and_nothing(p_values: list[Fraction]) -> None:
    for p, rejected in zip(p_values, holm(p_values, DELTA), strict=True):
        assert rejected or p * len(p_values) > DELTA
        assert not rejected or p <= DELTA


def test_holm_at_equality() -> None:
    assert holm([DELTA, DELTA / 2], DELTA) == (True, True)
    assert holm([DELTA, DELTA / 2 + Fraction(1, 10**12)], DELTA) == (False, False)


def test_the_sequence_stops_at_the_first_that_is_not_rejected() -> None:
    for outcome in itertools.product((False, True), repeat=5):
        expected = next((i for i, rejected in enumerate(outcome) if not rejected), 5)
        assert fixed_sequence(outcome) == expected
    assert fixed_sequence([]) == 0


def test_nothing_is_computed_after_the_stop() -> None:
    def tests() -> Iterator[bool]:
        yield True
        yield False
        raise AssertionError("tested beyond the stop")

    assert fixed_sequence(tests()) == 1


def test_the_sequence_keeps_the_family_wise_rate_at_full_delta() -> None:
    # Independent uniform p-values on the grid 1/10..1, every hypothesis true from place `first` on: an error
    # needs that one to be rejected, which alone has probability delta. Dropping the stop breaks the rate.
    delta, grid = Fraction(1, 10), [Fraction(i, 10) for i in range(1, 11)]
    wrong = without_stop = 0
    for draw in itertools.product(grid, repeat=3):
        wrong += fixed_sequence(p <= delta for p in draw) >= 1
        without_stop += any(p <= delta for p in draw)
    assert Fraction(wrong, 1000) == delta
    assert Fraction(without_stop, 1000) > delta


@pytest.mark.parametrize("weights", [[0], [1, -1], [0.5], [True]])
def test_weights_that_are_refused(weights: list[int]) -> None:
    with pytest.raises(UsageError):
        split_budget(DELTA, weights)


@pytest.mark.parametrize("p_values", [[Fraction(-1)], [Fraction(3, 2)], [0.01], [float("nan")]])
def test_p_values_that_are_refused(p_values: list[Fraction]) -> None:
    with pytest.raises(InvalidInputError):
        holm(p_values, DELTA)


def test_no_claims_are_refused() -> None:
    with pytest.raises(NothingToDoError):
        split_budget(DELTA, [])
    with pytest.raises(NothingToDoError):
        holm([], DELTA)
    with pytest.raises(UsageError):
        split_budget(Fraction(1), [1])
