"""Confidence limits of a mean by betting, valid at every stopping time (Waudby-Smith and Ramdas 2024).

Under the hypothesis that the mean of units in [0, 1] is at most ``m``, a gambler who bets the fraction
``lambda_i >= 0``, chosen before unit ``i`` is seen, on unit ``i`` being above ``m`` has the wealth

    K_t(m) = prod_{i<=t} (1 + lambda_i(m) (x_i - m)),

which is a non-negative supermartingale, so it ever reaches ``1/delta`` with probability at most ``delta``
(Ville). The only requirement on the units is that each has the same mean given the units before it. The
caller chooses their order, which must not depend on their values.

The algorithm, version ``betting/2``, uses integers only: ``//`` rounds down, ``isqrt`` is the integer square
root, ``e = floor(log2 x)``. Every correct implementation gets the same integers.

1. Units. ``X_i = floor(2^32 x_i)``. Rounding down can only lower the mean that is bounded from below.
2. Logarithms. ``plog(x) = e + x / 2^e - 1``, exact, for rational ``x >= 1``: the binary logarithm,
   interpolated linearly between powers of two. It only tunes the bets; validity does not depend on it.
3. Bets. For unit ``i = 1, 2, ...`` let, over the k = i - 1 units *before* it, ``B = sum X_j``,
   ``A = sum X_j^2`` and ``S = k A - B^2``. Their variance, with w units of variance c beside them, is
   ``v_i = (w c + S / (k 2^64)) / (w + k)``, without the second term for k = 0: w = 5 and c = 1/100 for a
   *fixed* number of units, w = 1 and c = 1/4 for a *sequential* design, whose first bets decide more. The bet
   ``l_i`` is an integer in units of ``2^-20``:

       l_i = isqrt(2^40 2 R_i / v_i).

   *Sequential* design: ``R_i = (45426 / 65536) plog(1/delta) / (i plog(i + 1))`` with 45426/65536 for ln 2,
   bets that suit every stopping time. *Fixed* number of units n: bets toward the deadline, at one threshold,
   the *aim*, that was set beforehand: ``R_i = (45426 / 65536) plog(G / W) / (n - i + 1)``, where W is the
   wealth before the unit in the game at the aim (step 4) and ``G`` the least wealth that decides (step 5):
   what is still to be won, over the units that are left. Unless ``0 < W < G``: then ``plog(1/delta) / n``.
4. Wealth. At the threshold ``m = a/b`` in lowest terms, ``0 < m < 1``, start with ``W = 2^512``. Each unit:

       W = W (19 b X_i + 2^32 a) // (20 2^32 a)                   if 20 a l_i >= 19 b 2^20
       W = W (2^52 b + l_i (b X_i - 2^32 a)) // (2^52 b)          otherwise.

   The first line is ``lambda = (19/20)/m``, the largest bet allowed: no unit takes more than 19 twentieths of
   the wealth. Rounding wealth down is conservative.
5. Decision. The mean exceeds ``m``, with error probability ``delta``, if ``W delta >= 2^512`` after any unit.
6. Limit. The largest ``j / 2^20``, ``0 < j < 2^20``, that the mean exceeds in the sense of 5; 0 if none.

*The same bets at every threshold.* Any bets that units not seen yet cannot influence are valid, so those
tuned to the aim serve every other threshold too. At the aim the decision is the one that the deadline bets
are made for; elsewhere it is valid, and less sharp.

*The bisection for 6 is exact.* The factor of every unit, and so W after every unit, never rises with m. For
the bet ``lambda`` it is ``1 + lambda (x - m)``, for the largest bet ``1/20 + (19/20) x / m``; neither rises
with m, and both are 1 at ``m = x``. The smaller bet is used, so the factor is the minimum of the two where
``x >= m`` and their maximum where ``x <= m``; minima and maxima of expressions that do not rise do not rise
either. Products of non-negative factors and rounding down keep the order. Hence the rejected thresholds are
an initial piece of the grid. At ``m = 1`` no factor exceeds 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from certify.base.errors import InvalidInputError, NothingToDoError, UsageError
from certify.stats.limits import GRID_BITS, Limit, Side, check_level, exact_units
from certify.stats.witness import Witness, hint, largest, units_digest

PROCEDURE = "betting/2"
"""Name and version of the algorithm in the docstring of this module."""

Design = Literal["fixed", "sequential"]
"""``fixed``: the number of units was set beforehand; ``sequential``: units are inspected as they arrive."""

LIMIT_GRID = 1 << 20
"""Limits are multiples of ``1 / LIMIT_GRID``."""

_WEALTH_BITS = 512
_BET_BITS = 20
_LN2 = Fraction(45426, 65536)
_HALF = Fraction(1, 2)

_STEP_ERROR: Final = 2.0**-40
"""More than the logarithm of a factor, between -3.0 and 13.9, is off by in binary floats (about 2**-45)."""

_FLOOR: Final = -200.0
"""Logarithm of a wealth in which rounding down to multiples of 2**-512 is lost far below ``_STEP_ERROR``."""


def betting_exceeds(values: Sequence[Fraction | int], m0: Fraction, delta: Fraction, design: Design) -> bool:
    """Decide "the mean exceeds ``m0``" with error probability ``delta`` (steps 1 to 5).

    Args:
        values: units in [0, 1], in the order in which they are bet on.
        m0: threshold strictly between 0 and 1.
        delta: error probability.
        design: ``fixed`` if ``values`` are all the units and their number was set beforehand;
            ``sequential`` if they come one at a time and the decision may be taken after any of them.

    Raises:
        UsageError: ``m0`` or ``delta`` is out of range, or the design is unknown.
        InvalidInputError: a unit is not exact or outside [0, 1].
        NothingToDoError: no units.
    """
    return decided_after(values, m0, delta, design) is not None


def decided_after(
    values: Sequence[Fraction | int], m0: Fraction, delta: Fraction, design: Design
) -> int | None:
    """Count the units after which "the mean exceeds ``m0``" was first decided; None if it never was.

    Arguments and errors as for :func:`betting_exceeds`.
    """
    return _decided_after(exact_units(values), m0, delta, design)


def betting_p_value(
    values: Sequence[Fraction | int], m0: Fraction, delta: Fraction, design: Design
) -> Fraction:
    """Compute ``min(1, 1 / max_t K_t(m0))``, a p-value for "the mean is at most ``m0``", rounded up.

    The bets are tuned to ``delta``. The p-value is at most ``delta`` exactly if :func:`betting_exceeds`
    holds. Arguments and errors as there.
    """
    _check_threshold(m0)
    units = exact_units(values)
    bets = _bets(units, delta, design, m0)
    return Fraction(1 << _WEALTH_BITS, max(1 << _WEALTH_BITS, *_wealth(units, bets, m0)))


def betting_lower(
    values: Sequence[Fraction | int], delta: Fraction, design: Design, *, aim: Fraction = _HALF
) -> Limit:
    """Compute the lower limit of the mean, a multiple of ``2**-20`` (steps 1 to 6), with its witness.

    The mean exceeds every positive threshold up to ``value``; a limit of 0 says nothing. The estimate is the
    mean of the rounded units, less than ``2**-32`` too low. Arguments and errors as for
    :func:`betting_exceeds`, and:

    Args:
        aim: threshold in (0, 1), set beforehand, at which the limit of a fixed design is to be sharp.
    """
    return _lower(exact_units(values), delta, design, aim)


def betting_upper(
    values: Sequence[Fraction | int], delta: Fraction, design: Design, *, aim: Fraction = _HALF
) -> Limit:
    """Compute the upper confidence limit of the mean: one minus the lower limit of all ``1 - x_i``.

    Arguments and errors as for :func:`betting_lower`.
    """
    exact_units(values)
    mirrored = betting_lower([1 - value for value in values], delta, design, aim=1 - aim)
    return _limit(1 - mirrored.value, "upper", 1 - mirrored.estimate, mirrored.n, delta)


# --- paired differences ------------------------------------------------------------------------------------


def noninferior(
    differences: Sequence[Fraction | int],
    margin: Fraction,
    delta: Fraction,
    design: Design,
    scale: int = 200,
    *,
    grid: int = 1,
) -> bool:
    """Decide "the mean difference exceeds ``-margin``" with error probability ``delta``.

    A difference ``d = candidate - comparator`` in ``[-scale/2, scale/2]`` becomes the unit ``1/2 + d/scale``,
    and the mean of the units is compared with ``1/2 - margin/scale``. A margin of 0 requires a gain, a
    negative one a gain above ``-margin``. The margin must be fixed before the differences are known.

    Args:
        differences: exact paired differences; larger is better for the candidate.
        margin: tolerated loss, strictly between ``-scale/2`` and ``scale/2``.
        delta: error probability.
        design: as for :func:`betting_exceeds`.
        scale: width of the range of a difference; 200 for scores in [0, 100].
        grid: differences are given in multiples of ``1/grid``.

    Raises:
        UsageError: ``margin``, ``delta``, ``scale`` or ``design`` is out of range.
        InvalidInputError: a difference is not exact or out of range.
        NothingToDoError: there are no differences.
    """
    units = _rescaled(differences, scale, grid)
    return _decided_after(units, _HALF - margin / scale, delta, design) is not None


def difference_lower(
    differences: Sequence[Fraction | int],
    delta: Fraction,
    design: Design,
    scale: int = 200,
    *,
    grid: int = 1,
    aim: Fraction = Fraction(0),
    comparisons: int = 1,
    bounded: bool = True,
) -> Limit:
    """Compute the lower limit of the mean difference, on a grid of ``scale * 2**-20``, with its witness.

    Arguments and errors as for :func:`noninferior`, and:

    Args:
        aim: difference, set beforehand, at which the limits of a fixed design are to be sharp.
        comparisons: the upper limit of the witness has error probability ``delta / comparisons``.
        bounded: false if a difference was clipped from above, so there is no upper limit.
    """
    units = _rescaled(differences, scale, grid)
    limit = _lower(units, delta, design, _HALF + aim / scale, comparisons, bounded=bounded)
    return replace(limit, value=(limit.value - _HALF) * scale, estimate=(limit.estimate - _HALF) * scale)


# --- inside ------------------------------------------------------------------------------------------------


def plog(x: Fraction) -> Fraction:
    """Piecewise linear binary logarithm of ``x >= 1`` (step 2): at most ``log2(x)``, at least 0.087 less."""
    exponent = (x.numerator // x.denominator).bit_length() - 1
    return x / (1 << exponent) + exponent - 1


def _decided_after(units: Sequence[int], m0: Fraction, delta: Fraction, design: Design) -> int | None:
    _check_threshold(m0)
    return _first_win(units, _bets(units, delta, design, m0), m0, _goal(delta))


def _lower(
    units: list[int],
    delta: Fraction,
    design: Design,
    aim: Fraction,
    comparisons: int = 1,
    *,
    bounded: bool = True,
) -> Limit:
    def upper() -> int:
        # Of the complements rounded down once more, so that it follows from the units alone.
        mirrored = [max(0, (1 << GRID_BITS) - 1 - unit) for unit in units]
        share = delta / comparisons
        known = hint(lambda: units_digest(units), share, "upper")
        return LIMIT_GRID - _lower_index(
            mirrored, share, design, 1 - aim, None if known is None else LIMIT_GRID - known
        )

    index = _lower_index(units, delta, design, aim, hint(lambda: units_digest(units), delta, "lower"))
    estimate = Fraction(sum(units), len(units) << GRID_BITS)
    limit = _limit(Fraction(index, LIMIT_GRID), "lower", estimate, len(units), delta)
    return replace(limit, witness=Witness(tuple(units), index, LIMIT_GRID, upper if bounded else None))


def _lower_index(
    units: Sequence[int], delta: Fraction, design: Design, aim: Fraction, known: int | None
) -> int:
    """Step 6: index of the limit on its grid; ``known`` is where it may be."""
    bets, goal = _bets(units, delta, design, aim), _goal(delta)
    sketch = _Sketch(units, bets, goal)

    def exceeds(j: int) -> bool:
        m = Fraction(j, LIMIT_GRID)
        told = sketch.wins(m)
        return _first_win(units, bets, m, goal) is not None if told is None else told

    return largest(exceeds, LIMIT_GRID, known)


def _bets(units: Sequence[int], delta: Fraction, design: Design, aim: Fraction) -> list[int]:
    """Step 3: compute the bets in units of ``2**-20``; each depends only on earlier units."""
    check_level(delta)
    _check_threshold(aim)
    if design not in ("fixed", "sequential"):
        raise UsageError(f"unknown design {design!r}: choose fixed or sequential", code="DESIGN_UNKNOWN")
    (over, under), n = plog(1 / delta).as_integer_ratio(), len(units)
    goal, play, (factor, divisor) = _goal(delta), _player(aim), _LN2.as_integer_ratio()
    fixed = design == "fixed"
    weight, scale = (5, 20) if fixed else (1, 4)  # w and 1 / (w c)
    total, squares, wealth = 0, 0, 1 << _WEALTH_BITS
    bets = []
    for k, unit in enumerate(units):
        # Not in lowest terms: the floor of a quotient is the same.
        if not fixed:
            # plog(k + 2) = (k + 2 + (e - 1) 2^e) / 2^e
            e = (k + 2).bit_length() - 1
            above, below = over << e, under * (k + 1) * (k + 2 + (e - 1 << e))
        elif 0 < wealth < goal:
            # plog(goal / W) = (goal + (e - 1) W 2^e) / (W 2^e)
            e = (goal // wealth).bit_length() - 1
            above, below = goal + (e - 1) * (wealth << e), (wealth << e) * (n - k)
        else:
            above, below = over, under * n
        # v = (2^64 k w c + S) / (2^64 k (w + k)), and for k = 0 as if k = 1 and S = 0
        some = k or 1
        spread = (some << 64) + scale * (k * squares - total * total)
        above *= factor * scale * some * (k + weight)
        bets.append(math.isqrt((above << 105) // (below * divisor * spread)))
        if fixed:
            wealth = play(wealth, unit, bets[-1])
        total += unit
        squares += unit * unit
    return bets


def _player(m: Fraction) -> Callable[[int, int, int], int]:
    """Step 4 at the threshold ``m``: from wealth (in ``2**-512``), unit and bet to the next wealth."""
    a, b = m.numerator, m.denominator
    unit_a, full = a << GRID_BITS, b << (GRID_BITS + _BET_BITS)
    cap = -(-(19 * b << _BET_BITS) // (20 * a))
    power = full.bit_length() - 1 if full.bit_count() == 1 else None  # a shift is three times as fast

    def play(wealth: int, unit: int, bet: int) -> int:
        if bet >= cap:
            return wealth * (19 * b * unit + unit_a) // (20 * unit_a)
        grown = wealth * (full + bet * (b * unit - unit_a))
        return grown // full if power is None else grown >> power

    return play


def _wealth(units: Sequence[int], bets: Sequence[int], m: Fraction) -> Iterator[int]:
    """Step 4: yield the wealth after each unit, in units of ``2**-512``."""
    play, wealth = _player(m), 1 << _WEALTH_BITS
    for unit, bet in zip(units, bets, strict=True):
        wealth = play(wealth, unit, bet)
        yield wealth


def _first_win(units: Sequence[int], bets: Sequence[int], m: Fraction, goal: int) -> int | None:
    return next((count for count, wealth in enumerate(_wealth(units, bets, m), 1) if wealth >= goal), None)


class _Sketch:
    """The game of steps 4 and 5 in binary floats: it tells most thresholds apart, and says where it cannot.

    With ``P_t`` the product of the first t factors, step 4 rounds down at most 1 in each step, so that
    ``2^512 P_t (1 - sum_{s<=t} 2^-512 / P_s) <= W_t <= 2^512 P_t``. While ``ln P_s`` stays above ``_FLOOR``,
    the sum is below ``t 2^-223``. What remains is the error of a sum of logarithms in floats.
    """

    def __init__(self, units: Sequence[int], bets: Sequence[int], goal: int) -> None:
        self._units = np.array(units, dtype=np.float64) / 2**GRID_BITS
        self._bets = np.array([float(bet) for bet in bets]) / 2**_BET_BITS
        self._goal = math.log(goal) - _WEALTH_BITS * math.log(2)

    def wins(self, m: Fraction) -> bool | None:
        """Whether the wealth at the threshold ``m`` ever reaches the goal; None: too close to tell."""
        threshold = float(m)
        bets = np.minimum(self._bets, 0.95 / threshold)
        logs: NDArray[np.float64] = np.cumsum(np.log1p(bets * (self._units - threshold)))
        most = float(np.abs(logs).max())
        # Of every logarithm, of every sum, and of the goal's logarithm.
        error = len(logs) * (_STEP_ERROR + 2.0**-52 * most) + 2.0**-48 * (1 + abs(self._goal))
        if logs.max() < self._goal - error:
            return False
        reached = np.flatnonzero(logs > self._goal + error)[:1]
        if reached.size and logs[: reached[0]].min(initial=0.0) > _FLOOR + error:
            return True
        return None


def _goal(delta: Fraction) -> int:
    """Smallest wealth that decides: ``W * delta >= 2^512``."""
    return -(-(delta.denominator << _WEALTH_BITS) // delta.numerator)


def _check_threshold(m0: Fraction) -> None:
    if not isinstance(m0, Fraction) or not 0 < m0 < 1:
        raise UsageError(
            "the threshold of a mean must be a Fraction strictly between 0 and 1", code="MEAN_RANGE"
        )


def _rescaled(differences: Sequence[Fraction | int], scale: int, grid: int) -> list[int]:
    """Compute the units ``1/2 + d/(grid scale)``, rounded down to multiples of ``2**-32``, as integers."""
    if scale < 1:
        raise UsageError("the range of a difference must be at least 1 wide", code="SCALE_RANGE")
    if not differences:
        raise NothingToDoError("there are no units to draw a conclusion from", code="NO_UNITS")
    units = []
    for index, value in enumerate(differences):
        if isinstance(value, bool) or not isinstance(value, (int, Fraction)):
            kind = type(value).__name__
            raise InvalidInputError(
                f"difference {index} is of type {kind}, not an exact number", code="UNIT_TYPE"
            )
        denominator = 2 * scale * grid * value.denominator
        numerator = 2 * value.numerator + denominator // 2
        if not 0 <= numerator <= denominator:
            half = Fraction(scale, 2)
            raise InvalidInputError(f"difference {index} lies outside ±{half}", code="UNIT_RANGE")
        units.append((numerator << GRID_BITS) // denominator)
    return units


def _limit(value: Fraction, side: Side, estimate: Fraction, n: int, delta: Fraction) -> Limit:
    return Limit(value, side, estimate, n, delta, PROCEDURE, ("constant-conditional-mean",))
