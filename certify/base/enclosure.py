"""Rational enclosures of logarithms and square roots, for decisions without floats.

Every result is a ``Fraction`` on the stated side of the real number. A comparison with a logarithm is decided
exactly. The arithmetic uses integers only, so results are the same on every machine.
"""

from __future__ import annotations

import math
from fractions import Fraction

BITS = 64
"""Default number of fractional bits of an enclosure."""


def rational(value: Fraction | None) -> str | None:
    """A rational number as ``p/q`` in lowest terms with q > 0 (``p/1`` for integers); None stays None."""
    return None if value is None else f"{value.numerator}/{value.denominator}"


def round_down(x: Fraction, bits: int) -> Fraction:
    """Largest multiple of ``2**-bits`` at or below ``x``."""
    return Fraction((x.numerator << bits) // x.denominator, 1 << bits)


def round_up(x: Fraction, bits: int) -> Fraction:
    """Smallest multiple of ``2**-bits`` at or above ``x``."""
    return Fraction(-((-x.numerator << bits) // x.denominator), 1 << bits)


def sqrt_down(x: Fraction, bits: int = BITS) -> Fraction:
    """Largest multiple of ``2**-bits`` at or below the square root of ``x >= 0``."""
    # floor(sqrt(y)) = isqrt(floor(y)) for real y >= 0.
    return Fraction(math.isqrt((x.numerator << 2 * bits) // x.denominator), 1 << bits)


def sqrt_up(x: Fraction, bits: int = BITS) -> Fraction:
    """Smallest multiple of ``2**-bits`` at or above the square root of ``x >= 0``."""
    ceiling = -((-x.numerator << 2 * bits) // x.denominator)
    root = math.isqrt(ceiling)
    return Fraction(root + (root * root < ceiling), 1 << bits)


def log_enclosure(x: Fraction, bits: int = BITS) -> tuple[Fraction, Fraction]:
    """Enclose ``ln(x)``: rational ``low <= ln(x) <= high``.

    They are about ``(1 + abs(ln x)) * 2**-bits`` apart, and equal for ``x = 1``.

    ``x = 2^e * y`` with ``y`` in [1, 2) and ``ln(x) = e * 2 atanh(1/3) + 2 atanh((y-1)/(y+1))``.

    Raises:
        ValueError: ``x`` is not positive.
    """
    if x <= 0:
        raise ValueError("the logarithm needs a positive number")
    if x < 1:
        low, high = log_enclosure(1 / x, bits)
        return -high, -low
    if x == 1:
        return Fraction(0), Fraction(0)
    doublings = x.numerator.bit_length() - x.denominator.bit_length()
    if x < 2**doublings:
        doublings -= 1
    reduced = x / 2**doublings
    low_two, high_two = _twice_atanh(Fraction(1, 3), bits)
    low_rest, high_rest = _twice_atanh((reduced - 1) / (reduced + 1), bits)
    scale = 1 << bits
    return (
        Fraction(doublings * low_two + low_rest, scale),
        Fraction(doublings * high_two + high_rest, scale),
    )


def exceeds_log(value: Fraction, x: Fraction) -> bool:
    """Decide ``value > ln(x)`` for rational ``x > 0`` without rounding.

    Terminates, because the logarithm of a positive rational other than 1 is irrational (Lindemann), so some
    enclosure excludes ``value``.

    Raises:
        ValueError: ``x`` is not positive.
    """
    bits = BITS
    while True:
        low, high = log_enclosure(x, bits)
        if value > high:
            return True
        if value < low or low == high:
            return False
        bits *= 2


def _twice_atanh(u: Fraction, bits: int) -> tuple[int, int]:
    """Enclose ``2**bits * 2 * atanh(u)`` for ``0 <= u <= 1/3`` by integers, with the series of odd powers.

    Fixed point with 16 guard bits; terms of ``low`` are rounded down, terms of ``high`` up. The rest of the
    series after the last term is below ``2 * power / (1 - u^2)``, less than ``4 * power``.
    """
    guard = bits + 16
    u_low = (u.numerator << guard) // u.denominator
    u_high = u_low + 1
    low = high = 0
    power_low, power_high, odd = u_low, u_high, 1
    while power_high > 1:
        low += 2 * power_low // odd
        high += 2 * power_high // odd + 1
        power_low = (power_low * u_low * u_low) >> (2 * guard)
        power_high = ((power_high * u_high * u_high) >> (2 * guard)) + 1
        odd += 2
    high += 4 * power_high
    return low >> 16, (high >> 16) + 1
