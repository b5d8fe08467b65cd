"""Smirnov's law of the two-sample distance for equal sample sizes, exact and asymptotic (theory §2).

With ``h = n * D`` an integer in ``0..n``, two independent continuous samples of size ``n`` satisfy

    P(D >= h/n) = 2 * sum_{k=1}^{floor(n/h)} (-1)^(k+1) * C(2n, n - k h) / C(2n, n),    h >= 1,

and probability 1 at ``h = 0``. Everything is computed with integers; a float appears only as the last
step, rounded upward, so that no p-value is ever reported smaller than it is. Decisions never use floats:
``p <= level`` is a comparison of integers (exact law) or of ``h*h`` with a rational enclosure of
``n * ln(2/level)`` (asymptotic law).
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from certify.base.enclosure import exceeds_log
from certify.base.errors import UsageError
from certify.base.records import Method

MAX_N = 20_000
"""Largest sample size supported: wider than any released embedding table, and below a second to tabulate."""

_SMALLEST_EXPONENT = -1074  # 2**-1074 is the smallest positive float
_DECIMAL = re.compile(r"(\d{1,40}(\.\d{0,60})?|\.\d{1,60})([eE][+-]?\d{1,3})?", re.ASCII)


def parse_alpha(alpha: Fraction | str) -> Fraction:
    """Read a level as an exact rational number.

    Args:
        alpha: a Fraction, or a decimal string such as ``0.05``, ``.05`` or ``5e-2``. Binary floats are not
            taken: ``0.05`` as a float is a different number.

    Raises:
        UsageError: not a decimal number, or not strictly between 0 and 1.
    """
    if isinstance(alpha, Fraction):
        level = alpha
    elif isinstance(alpha, str) and _DECIMAL.fullmatch(alpha):
        level = Fraction(alpha)
    else:
        given = f"{type(alpha).__name__} {repr(alpha)[:60]}"
        raise UsageError(
            f'alpha must be a decimal number as text, such as "0.05", or a Fraction, not {given}',
            code="ALPHA_MALFORMED",
        )
    if not 0 < level < 1:
        raise UsageError(
            f"alpha must lie strictly between 0 and 1, not at {str(alpha)[:60]}", code="ALPHA_RANGE"
        )
    return level


def p_exact(h: int, n: int) -> Fraction:
    """``P(D >= h/n)`` under the exact law, as a rational number (equation in the module docstring).

    Args:
        h: distance count, ``0..n``.
        n: sample size on each side, ``1..MAX_N``.

    Raises:
        UsageError: ``n`` outside its range.
        ValueError: ``h`` outside its range.
    """
    _check_n(n)
    _check_h(h, n)
    numerators = _tail_numerators(n)
    return Fraction(numerators[h], numerators[0])


def p_values(n: int, method: Method = "exact") -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Tabulate the p-values of every possible count.

    Args:
        n: sample size on each side, ``1..MAX_N``.
        method: ``exact`` for the law above, ``asymptotic`` for ``min(1, 2 exp(-h^2/n))``.

    Returns:
        ``(p, log10_p)``, read-only float64 arrays of shape ``[n+1]`` indexed by ``h``. ``p`` never rises,
        lies in ``(0, 1]`` and is rounded upward (exact law: to the next float; asymptotic law:
        by a few units in the last place), so that it stays at the smallest positive float where the true
        value is below it. ``log10_p`` is finite everywhere, with an absolute error below 1e-12 * (1 + abs).

    Raises:
        UsageError: ``n`` outside its range, or an unknown method.
    """
    _check_n(n)
    if method == "exact":
        return _exact_table(n)
    if method == "asymptotic":
        return _asymptotic_table(n)
    raise UsageError(f"unknown method {method!r}: choose exact or asymptotic", code="METHOD_UNKNOWN")


def rejects(h: int, n: int, level: Fraction, method: Method = "exact") -> bool:
    """Decide ``p(h) <= level`` without rounding.

    Under the asymptotic law this is ``h*h > n * ln(2/level)``; equality cannot occur, because the logarithm
    of a rational number other than 1 is irrational.

    Args:
        h: distance count, ``0..n``.
        n: sample size on each side, ``1..MAX_N``.
        level: any rational number; nothing is rejected at a level of 0 or below.
        method: law behind the p-value.

    Raises:
        UsageError: ``n`` outside its range.
        ValueError: ``h`` outside its range.
    """
    _check_n(n)
    _check_h(h, n)
    if level <= 0:
        return False
    if level >= 1:
        return True
    if method == "exact":
        numerators = _tail_numerators(n)
        return numerators[h] * level.denominator <= level.numerator * numerators[0]
    return exceeds_log(Fraction(h * h, n), 2 / level)


def critical_count(alpha: Fraction | str, n: int, method: Method = "exact") -> int:
    """Smallest count ``h`` that is rejected at ``alpha``; ``n + 1`` if none is.

    Args:
        alpha: level in (0, 1), see :func:`parse_alpha`.
        n: sample size on each side, ``1..MAX_N``.
        method: ``exact``: ``p(h) <= alpha``; ``asymptotic``: ``h/n > tau(alpha)``.

    Raises:
        UsageError: malformed level, unknown method or ``n`` outside its range.
    """
    level = parse_alpha(alpha)
    _check_n(n)
    if method not in ("exact", "asymptotic"):
        raise UsageError(f"unknown method {method!r}: choose exact or asymptotic", code="METHOD_UNKNOWN")
    low, high = 0, n + 1  # p(0) = 1 > alpha is never rejected; n + 1 stands for "none"
    while high - low > 1:
        middle = (low + high) // 2
        if rejects(middle, n, level, method):
            high = middle
        else:
            low = middle
    return high


def threshold(alpha: Fraction | str, n: int) -> float:
    """Published asymptotic threshold ``tau = sqrt(ln(2/alpha) / n)`` on D (theory §2), nearest float.

    For display. Decisions against tau go through :func:`critical_count` with ``method="asymptotic"``:
    ``D > tau`` holds exactly for the counts from there on.

    Raises:
        UsageError: malformed level or ``n`` outside its range.
    """
    level = parse_alpha(alpha)
    _check_n(n)
    return math.sqrt((math.log(2 * level.denominator) - math.log(level.numerator)) / n)


def _check_n(n: int) -> None:
    if not 1 <= n <= MAX_N:
        raise UsageError(
            f"rows of {n} entries are outside the supported sample sizes 1..{MAX_N}", code="SAMPLE_SIZE"
        )


def _check_h(h: int, n: int) -> None:
    if not 0 <= h <= n:
        raise ValueError(f"h = {h} lies outside 0..{n}")


@lru_cache(maxsize=2)
def _tail_numerators(n: int) -> tuple[int, ...]:
    """``C(2n, n) * P(D >= h/n)`` for h = 0..n, integers; the first is the common denominator itself."""
    binomials = [0] * (n + 1)  # binomials[j] = C(2n, n - j)
    current = 1
    for j in range(n, -1, -1):
        binomials[j] = current
        current = current * (n + j) // (n - j + 1)
    numerators = [binomials[0]]
    for h in range(1, n + 1):
        numerators.append(2 * (sum(binomials[h :: 2 * h]) - sum(binomials[2 * h :: 2 * h])))
    return tuple(numerators)


@lru_cache(maxsize=2)
def _exact_table(n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    numerators = _tail_numerators(n)
    p = np.empty(n + 1)
    log10_p = np.empty(n + 1)
    for h, numerator in enumerate(numerators):
        p[h], log10_p[h] = _ratio_upward(numerator, numerators[0])
    return _frozen(p, log10_p)


def _ratio_upward(numerator: int, denominator: int) -> tuple[float, float]:
    """Smallest float at or above ``numerator / denominator`` in (0, 1], and the base-10 logarithm."""
    shift = 64 + denominator.bit_length() - numerator.bit_length()
    scaled = -((-numerator << shift) // denominator)  # ceiling, 64 to 66 bits
    log10 = math.log10(scaled) - shift * math.log10(2.0)
    # Both roundings go up, and the ceiling of a ceiling is the ceiling; subnormals have a coarser grid.
    excess = max(scaled.bit_length() - 53, _SMALLEST_EXPONENT + shift)
    return math.ldexp(-(-scaled >> excess), excess - shift), min(log10, 0.0)


@lru_cache(maxsize=2)
def _asymptotic_table(n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    h = np.arange(n + 1, dtype=np.float64)
    exponent = -h * h / n
    # exp and the quotient err by a few units in the last place, magnified by the size of the exponent.
    slack = 1.0 + 2.0**-50 * (1.0 - exponent)
    # The step to the next float covers the coarse grid of subnormals, and zero.
    p = np.minimum(1.0, np.nextafter(2.0 * np.exp(exponent) * slack, 2.0))
    log10_p = np.minimum(0.0, (exponent + math.log(2.0)) / math.log(10.0))
    return _frozen(p, log10_p)


def _frozen(*arrays: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    for array in arrays:
        array.flags.writeable = False
    return arrays[0], arrays[1]
