"""Confidence limits from counts: one inequality per function (theory §5).

Counts are exact integers. Every limit is a multiple of ``2**-32``, rounded toward the weaker claim to *the
nearest grid point on the safe side*, so every correct implementation gets the same limit. Comparisons of a
rate with a threshold are decided without rounding.

Notation: ``B(n, p)`` is a binomial variable; ``delta`` is the error probability of a limit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Literal

from certify.base.errors import InvalidInputError, NothingToDoError, UsageError
from certify.stats.betting import LIMIT_GRID, Design, betting_lower, betting_upper
from certify.stats.limits import GRID_BITS, Limit, Side, check_level
from certify.stats.witness import Witness

_GRID = 1 << GRID_BITS
_BITS = 128  # of enclosures


# --- counts: exact binomial tails --------------------------------------------------------------------------


def binomial_tail_at_most(k: int, n: int, p: Fraction) -> Fraction:
    """``P(B(n, p) <= k) = sum_{i<=k} C(n, i) p^i (1-p)^(n-i)``, exactly.

    Args:
        k: any integer.
        n: number of trials, at least 1.
        p: probability of success in [0, 1].

    Raises:
        ValueError: ``n`` or ``p`` is out of range.
    """
    if n < 1 or not 0 <= p <= 1:
        raise ValueError("a binomial distribution needs n >= 1 and p in [0, 1]")
    return Fraction(_tail(k, n, p.numerator, p.denominator), p.denominator**n)


def binomial_tail_at_least(k: int, n: int, p: Fraction) -> Fraction:
    """``P(B(n, p) >= k)``, exactly; arguments as for :func:`binomial_tail_at_most`."""
    return binomial_tail_at_most(n - k, n, 1 - p)


def rate_at_most(successes: int, n: int, alpha: Fraction, delta: Fraction) -> bool:
    """Decide whether the Clopper-Pearson upper limit is at most ``alpha``.

    That is ``P(B(n, alpha) <= k) <= delta``, decided in integers.

    Args:
        successes: the count k, ``0..n``.
        n: number of iid trials, at least 1.
        alpha: threshold strictly between 0 and 1.
        delta: error probability.

    Raises:
        UsageError: ``alpha`` or ``delta`` is out of range.
        InvalidInputError: a count is out of range.
        NothingToDoError: ``n`` is 0.
    """
    _check_counts(successes, n)
    check_level(delta)
    _check_threshold(alpha)
    return _tail_at_most(successes, n, alpha.numerator, alpha.denominator, delta)


def rate_at_least(successes: int, n: int, target: Fraction, delta: Fraction) -> bool:
    """Decide whether the Clopper-Pearson lower limit is at least ``target``.

    That is ``P(B(n, target) >= k) <= delta``. Arguments and errors as for :func:`rate_at_most`.
    """
    _check_counts(successes, n)
    return rate_at_most(n - successes, n, 1 - target, delta)


def rate_above(successes: int, n: int, alpha: Fraction, delta: Fraction) -> bool:
    """Decide whether the Clopper-Pearson lower limit exceeds ``alpha``.

    That is ``P(B(n, alpha) >= k) < delta``. Arguments and errors as for :func:`rate_at_most`.
    """
    _check_counts(successes, n)
    check_level(delta)
    _check_threshold(alpha)
    a, b = alpha.denominator - alpha.numerator, alpha.denominator
    below = _below(n - successes, n, a, b, delta)
    if below is not None:
        return below
    return _tail(n - successes, n, a, b) * delta.denominator < delta.numerator * int(b**n)


def clopper_pearson(
    successes: int,
    n: int,
    delta: Fraction,
    side: Literal["lower", "upper", "two-sided"] = "two-sided",
) -> tuple[Fraction, Fraction]:
    """Compute the Clopper-Pearson limits ``(lower, upper)`` of a success probability (Clopper, Pearson 1934).

    The exact upper limit solves ``P(B(n, p) <= k) = delta`` (1 if k = n), the lower one
    ``P(B(n, p) >= k) = delta`` (0 if k = 0). If two-sided, each has ``delta/2``. The result is the smallest
    grid point at or above the upper limit and the largest at or below the lower one; a side that was not
    requested is 0 or 1. Finite-sample, for iid trials.

    Args:
        successes: ``0..n``.
        n: number of trials, at least 1.
        delta: error probability.
        side: the limit to compute; for both, each gets half of the error probability.

    Raises:
        UsageError: the side is unknown, or ``delta`` is out of range.
        InvalidInputError: a count is out of range.
        NothingToDoError: ``n`` is 0.
    """
    _check_counts(successes, n)
    check_level(delta)
    if side == "upper":
        return Fraction(0), _upper(successes, n, delta)
    if side == "lower":
        return 1 - _upper(n - successes, n, delta), Fraction(1)
    if side == "two-sided":
        return 1 - _upper(n - successes, n, delta / 2), _upper(successes, n, delta / 2)
    raise UsageError(f"unknown side {side!r}: choose lower, upper or two-sided", code="SIDE_UNKNOWN")


def rate_limits(hits: Sequence[int], delta: Fraction, design: Design) -> tuple[Limit, Limit, Witness]:
    """Lower and upper limit of a rate and their witness: Clopper-Pearson, or betting in a sequential design.

    Args:
        hits: 0 or 1 a unit, in the order of units.
        delta: error probability of each limit.
        design: of the evidence.

    Raises:
        UsageError: ``delta`` or ``design`` out of range.
        NothingToDoError: no units.
    """
    if design == "fixed":
        k, n = sum(hits), len(hits)
        lower, upper, grid = rate_limit(k, n, delta, "lower"), rate_limit(k, n, delta, "upper"), _GRID
    else:
        lower, upper = betting_lower(hits, delta, design), betting_upper(hits, delta, design)
        grid = LIMIT_GRID
    last = int(upper.value * grid)
    return lower, upper, Witness(tuple(hits), int(lower.value * grid), grid, lambda: last)


def rate_limit(successes: int, n: int, delta: Fraction, side: Side) -> Limit:
    """Return one side of :func:`clopper_pearson` as a record; for decisions, use :func:`rate_at_most` etc."""
    lower, upper = clopper_pearson(successes, n, delta, side)
    return Limit(
        value=lower if side == "lower" else upper,
        side=side,
        estimate=Fraction(successes, n),
        n=n,
        delta=delta,
        procedure="clopper-pearson/1",
        assumptions=("iid",),
    )


# --- inside ------------------------------------------------------------------------------------------------


def _check_counts(successes: int, n: int) -> None:
    if n == 0:
        raise NothingToDoError("there are no units to draw a conclusion from", code="NO_UNITS")
    if not 0 <= successes <= n:
        raise InvalidInputError(f"a count of {successes} of {n} is impossible", code="COUNT_RANGE")


def _check_threshold(alpha: Fraction) -> None:
    if not isinstance(alpha, Fraction) or not 0 < alpha < 1:
        raise UsageError(
            "the threshold of a rate must be a Fraction strictly between 0 and 1", code="RATE_RANGE"
        )


def _tail(k: int, n: int, a: int, b: int) -> int:
    """``b^n P(B(n, a/b) <= k)``, an integer."""
    if k < 0:
        return 0
    if 2 * k >= n:  # the complement has fewer terms
        return int(b**n) - (_tail(n - k - 1, n, b - a, b) if k < n else 0)
    # Horner's scheme in c keeps the numbers short.
    c, term, total = b - a, 1, 1
    for i in range(1, k + 1):
        term = term * (n - i + 1) * a // i  # C(n, i) a^i
        total = total * c + term  # sum_{j<=i} C(n, j) a^j c^(i-j)
    return int(total * c ** (n - k))


def _tail_at_most(k: int, n: int, a: int, b: int, delta: Fraction) -> bool:
    below = _below(k, n, a, b, delta)
    if below is not None:
        return below
    return _tail(k, n, a, b) * delta.denominator <= delta.numerator * int(b**n)


def _below(k: int, n: int, a: int, b: int, delta: Fraction) -> bool | None:
    """Whether ``P(B(n, a/b) <= k)`` is below ``delta`` (True) or above it (False); None: too close to tell.

    The exact tail takes time that grows with the square of n, and is needed for ties only. This one encloses
    the tail in integers: about ``sqrt(n)`` terms of some 128 bits.
    """
    if not 0 <= k < n or not 0 < a < b:
        return None
    if k * b <= n * a:
        low, high = _enclosed(k, n, a, b)
        return True if high < delta else False if low > delta else None
    # Above the mean the complement has the terms that fall.
    low, high = _enclosed(n - k - 1, n, b - a, b)
    return True if 1 - low < delta else False if 1 - high > delta else None


def _enclosed(k: int, n: int, a: int, b: int) -> tuple[Fraction, Fraction]:
    """Bounds of ``P(B(n, a/b) <= k)`` for ``k b <= n a``: the largest term times the sum of ratios to it."""
    c = b - a
    low = high = math.comb(n, k), 0
    for base, power in ((a, k), (c, n - k)):
        low = _product(low, _power((base, 0), power, 0), 0)
        high = _product(high, _power((base, 0), power, 1), 1)
    low, high = (_quotient(low, _power((b, 0), n, 1), 0), _quotient(high, _power((b, 0), n, 0), 1))
    # Ratios fall and are below 1. Rounding down takes less than i from the i-th, and what follows the first
    # that rounds to 0 is less than i + 1 each.
    ratio = total = 1 << _BITS
    i = 0
    while ratio and i < k:
        i += 1
        ratio = ratio * (k - i + 1) * c // ((n - k + i) * a)
        total += ratio
    above = total + i * i + k * (i + 1)
    return _fraction(_product(low, (total, -_BITS), 0)), _fraction(_product(high, (above, -_BITS), 1))


def _product(x: tuple[int, int], y: tuple[int, int], up: int) -> tuple[int, int]:
    """``m 2^e`` of two such numbers, cut to 128 bits: down, or up if ``up`` is 1."""
    mantissa, exponent = x[0] * y[0], x[1] + y[1]
    extra = mantissa.bit_length() - _BITS
    if extra <= 0:
        return mantissa, exponent
    return (mantissa >> extra) + up, exponent + extra


def _quotient(x: tuple[int, int], y: tuple[int, int], up: int) -> tuple[int, int]:
    shift = _BITS + y[0].bit_length()
    return (x[0] << shift) // y[0] + up, x[1] - y[1] - shift


def _power(x: tuple[int, int], exponent: int, up: int) -> tuple[int, int]:
    found = (1, 0)
    while exponent:
        if exponent & 1:
            found = _product(found, x, up)
        x = _product(x, x, up)
        exponent >>= 1
    return found


def _fraction(x: tuple[int, int]) -> Fraction:
    return Fraction(x[0] << max(x[1], 0), 1 << max(-x[1], 0))


def _upper(k: int, n: int, delta: Fraction) -> Fraction:
    """Find the smallest grid point ``p`` with ``P(B(n, p) <= k) <= delta``; 1 if ``k = n``.

    The tail falls strictly from 1 to 0 as ``p`` rises from 0 to 1, so the points that satisfy it are an upper
    part of the grid. The floating-point guess only determines where to look first.
    """
    if k == n:
        return Fraction(1)
    from scipy.special import betaincinv  # takes a quarter of a second to load

    guess = float(betaincinv(k + 1, n - k, float(1 - delta)))
    start = round(guess * _GRID) if math.isfinite(guess) else _GRID // 2
    return Fraction(_first(lambda j: _tail_at_most(k, n, j, _GRID, delta), start, _GRID), _GRID)


def _first(holds: Callable[[int], bool], start: int, last: int) -> int:
    """Find the smallest ``j`` in ``1..last`` with ``holds(j)``, which is monotone and true at ``last``."""
    start = min(max(start, 1), last)
    step = 1
    if holds(start):
        low, high = start - 1, start
        while low > 0 and holds(low):
            low, high, step = max(0, low - 2 * step), low, 2 * step
    else:
        low, high = start, min(last, start + 1)
        while not holds(high):
            low, high, step = high, min(last, high + 2 * step), 2 * step
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high
