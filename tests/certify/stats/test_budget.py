"""One error probability for several hypotheses: the family-wise rate by enumeration."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction

from certify.stats.budget import fixed_sequence


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
