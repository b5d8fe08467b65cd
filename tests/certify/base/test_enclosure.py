"""Enclosures of logarithms and roots: against the decimal module at 120 digits."""

from __future__ import annotations

import decimal
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certify.base.enclosure import exceeds_log, log_enclosure, round_down, round_up, sqrt_down, sqrt_up

CONTEXT = decimal.Context(prec=120)
POSITIVE = st.fractions(min_value=Fraction(1, 10**12), max_value=10**12).filter(lambda x: x > 0)


def as_decimal(x: Fraction) -> Decimal:
    return CONTEXT.divide(Decimal(x.numerator), Decimal(x.denominator))


def decimal_log(x: Fraction) -> Decimal:
    return CONTEXT.subtract(CONTEXT.ln(Decimal(x.numerator)), CONTEXT.ln(Decimal(x.denominator)))


@given(x=POSITIVE, bits=st.sampled_from([8, 32, 64, 200]))
def test_the_logarithm_lies_between(x: Fraction, bits: int) -> None:
    low, high = log_enclosure(x, bits)
    slack = Decimal(10) ** -100  # the oracle's own rounding, far below 2**-200
    assert CONTEXT.subtract(as_decimal(low), slack) <= decimal_log(x)
    assert decimal_log(x) <= CONTEXT.add(as_decimal(high), slack)
    assert high - low <= Fraction(
        4 + 3 * abs(x.numerator.bit_length() - x.denominator.bit_length()), 1 << bits
    )
    assert low < high or x == 1


@given(x=POSITIVE, exponent=st.integers(2, 60), up=st.booleans())
def test_comparison_with_a_logarithm_near_the_boundary(x: Fraction, exponent: int, up: bool) -> None:
    # A number 10**-exponent away from the logarithm, on a known side: 53 bits cannot tell from 16 digits on.
    near = Fraction(decimal_log(x)) + Fraction(1 if up else -1, 10**exponent)
    assert exceeds_log(near, x) is up


@pytest.mark.parametrize(
    ("value", "x", "expected"),
    [
        (Fraction(0), Fraction(1), False),
        (Fraction(1, 10**9), Fraction(1), True),
        (Fraction(-1), Fraction(1), False),
        (Fraction(3), Fraction(20), True),
        (Fraction(-3), Fraction(1, 20), False),
    ],
)
def test_comparison_at_plain_points(value: Fraction, x: Fraction, expected: bool) -> None:
    assert exceeds_log(value, x) is expected


@pytest.mark.parametrize("x", [Fraction(0), Fraction(-1)])
def test_no_logarithm_of_what_is_not_positive(x: Fraction) -> None:
    with pytest.raises(ValueError, match="positive"):
        log_enclosure(x)


@given(x=st.fractions(min_value=0, max_value=10**9), bits=st.integers(0, 80))
def test_roots_and_roundings_are_the_nearest_grid_points(x: Fraction, bits: int) -> None:
    step = Fraction(1, 1 << bits)
    low, high = sqrt_down(x, bits), sqrt_up(x, bits)
    assert low * low <= x < (low + step) ** 2
    assert high * high >= x
    assert high == 0 or (high - step) ** 2 < x
    assert round_down(x, bits) <= x < round_down(x, bits) + step
    assert round_up(x, bits) - step < x <= round_up(x, bits)
    assert round_down(-x, bits) == -round_up(x, bits)
