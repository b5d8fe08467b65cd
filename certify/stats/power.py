"""Compute beforehand how many units a claim needs (theory §5). This is for planning and decides nothing.

The numbers for rates are exact. Those for means come from games simulated in floats, which
:func:`simulated_power` checks with the procedure itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import binom

from certify.base.enclosure import log_enclosure
from certify.base.errors import UsageError
from certify.stats.betting import Design, noninferior
from certify.stats.limits import check_level
from certify.stats.rates import binomial_tail_at_least, rate_at_least

MAX_UNITS = 1_000_000
"""Larger numbers are an error: no evaluation has so many units."""

_BLOCK = 4096
_GAMES, _SIMULATED = 1000, 5000

_Draw = Callable[[np.random.Generator], NDArray[np.float64]]
"""One unit in [0, 1] of each game."""


def clean_units_needed(alpha: Fraction, delta: Fraction) -> int:
    """Find the smallest n for which n units without a violation show a rate of at most ``alpha``.

    That is ``(1 - alpha)^n <= delta``: 59 for ``alpha = delta = 1/20``; 2,995 for ``alpha = 1/1000``.

    Raises:
        UsageError: ``alpha`` or ``delta`` out of range, or more than :data:`MAX_UNITS`.
    """
    check_level(delta)
    _check_probability(alpha, "alpha")
    low_need, high_need = log_enclosure(1 / delta)
    low_gain, high_gain = log_enclosure(1 / (1 - alpha))
    if low_gain <= 0 or low_need / high_gain > MAX_UNITS:
        raise _too_many()
    first, last = math.ceil(low_need / high_gain), math.ceil(high_need / low_gain)
    while first < last and (1 - alpha) ** first > delta:
        first += 1
    return first


def units_for_agreement(target: Fraction, truth: Fraction, delta: Fraction, power: Fraction) -> int:
    """Find the smallest n at which the Clopper-Pearson lower limit reaches ``target`` with ``power``.

    ``P(B(n, truth) >= k) >= power`` where k is the smallest count with ``P(B(n, target) >= k) <= delta``;
    found in floating point, then verified in exact arithmetic. The power is a saw-tooth in n: somewhat
    larger n can miss it.

    Args:
        target: rate to show.
        truth: assumed true rate, above ``target`` (1 is allowed).
        delta: error probability of the limit.
        power: desired probability of success, strictly between 0 and 1.

    Raises:
        UsageError: a number out of range, or more than :data:`MAX_UNITS` needed.
    """
    check_level(delta)
    _check_probability(target, "the target")
    _check_probability(power, "the power")
    if not target < truth <= 1:
        raise UsageError("only a rate below the true one can be shown", code="EFFECT_RANGE")
    for start in range(1, MAX_UNITS, _BLOCK):
        n = np.arange(start, start + _BLOCK)
        # Slightly too favourable on purpose: candidates of the floats are verified, missed ones are lost.
        counts = np.asarray(binom.isf(float(delta) * (1 + 1e-9), n, float(target))) + 1
        reached = np.asarray(binom.sf(counts - 1, n, float(truth))) >= float(power) - 1e-9
        for index in np.flatnonzero(reached & (counts <= n)):
            units, count = int(n[index]), int(counts[index])
            while count <= units and not rate_at_least(count, units, target, delta):
                count += 1
            if binomial_tail_at_least(count, units, truth) >= power:
                return units
    raise _too_many()


def units_for_rate(alpha: Fraction, truth: Fraction, delta: Fraction, power: Fraction) -> int:
    """Find the smallest n at which the upper limit of a rate is at most ``alpha`` with probability ``power``.

    :func:`units_for_agreement` of the complements; ``truth`` is the assumed rate, below ``alpha`` (0 is
    allowed).
    """
    return units_for_agreement(1 - alpha, 1 - truth, delta, power)


def units_for_mean(
    margin: Fraction,
    sd: Fraction,
    delta: Fraction,
    power: Fraction,
    truth: Fraction = Fraction(0),
    scale: int = 200,
) -> int:
    """Estimate how many units :func:`certify.stats.betting.noninferior` needs, by playing its game in floats.

    :data:`_GAMES` games with normal differences (seed 0, the same for every n); n is the smallest number, to
    within a hundredth, of which a share ``power`` is won. Above :data:`_SIMULATED` units, where bets toward
    the deadline are nearly as sharp as the test with known standard deviation, 1.12 times what that needs.

    Args:
        margin: the margin, in units of the differences.
        sd: standard deviation of a difference, positive.
        delta: error probability.
        power: desired probability of success.
        truth: true mean difference, above ``-margin``.
        scale: width of the range of a difference.

    Raises:
        UsageError: a number out of range, or more than :data:`MAX_UNITS` needed.
    """
    check_level(delta)
    _check_probability(power, "the power")
    threshold = Fraction(1, 2) - margin / scale
    if not 0 < threshold < 1 or sd <= 0 or not -margin < truth <= Fraction(scale, 2):
        raise UsageError(
            "margin, standard deviation and true difference leave no effect to show", code="EFFECT_RANGE"
        )
    mean, spread = float(Fraction(1, 2) + truth / scale), float(sd / scale)

    def draw(generator: np.random.Generator) -> NDArray[np.float64]:
        return generator.normal(mean, spread, _GAMES).clip(0, 1)

    return _fewest(float(threshold), mean, spread, float(delta), float(power), draw)


def units_for_share(
    least: Fraction, law: Mapping[Fraction, Fraction], delta: Fraction, power: Fraction
) -> int:
    """Estimate how many units betting needs to show that a mean is at least ``least``, as
    :func:`units_for_mean` does, with units of a given law instead of normal ones.

    Args:
        least: what is to be shown, strictly between 0 and 1.
        law: probability of each value of a unit in [0, 1].
        delta: error probability.
        power: desired probability of success.

    Raises:
        UsageError: a number out of range, ``law`` has no mean above ``least``, or more than
            :data:`MAX_UNITS` are needed.
    """
    check_level(delta)
    _check_probability(least, "what is to be shown")
    _check_probability(power, "the power")
    mean = sum((value * weight for value, weight in law.items()), Fraction(0))
    if sum(law.values()) != 1 or not least < mean <= 1 or not 0 <= min(law) <= max(law) <= 1:
        raise UsageError("only a mean below the true one can be shown", code="EFFECT_RANGE")
    spread = sum(weight * (value - mean) ** 2 for value, weight in law.items())
    values, weights = np.array([*map(float, law)]), np.array([*map(float, law.values())])

    def draw(generator: np.random.Generator) -> NDArray[np.float64]:
        return generator.choice(values, _GAMES, p=weights / weights.sum())

    return _fewest(float(least), float(mean), float(spread) ** 0.5, float(delta), float(power), draw)


def _fewest(m: float, mean: float, sd: float, delta: float, power: float, draw: _Draw) -> int:
    """Fewest units of which the game at the threshold ``m`` is won often enough; see the callers."""
    units = math.ceil(1.12 * (float(ndtri(power) - ndtri(delta)) * sd / (mean - m)) ** 2)
    if units > MAX_UNITS:
        raise _too_many()
    if units > _SIMULATED:
        return units

    def enough(n: int) -> bool:
        return _won(n, m, delta, draw) >= power

    low, high = 0, max(1, units)
    while not enough(high):
        low, high = high, 2 * high
        if high > MAX_UNITS:
            raise _too_many()
    while high - low > max(1, high // 100):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _won(n: int, m: float, delta: float, draw: _Draw) -> float:
    """Share of games of design ``fixed`` (:mod:`certify.stats.betting`) won at the threshold ``m``."""
    generator = np.random.Generator(np.random.PCG64(0))
    need = np.full(_GAMES, -math.log(delta))
    total, squares = np.zeros(_GAMES), np.zeros(_GAMES)
    won = np.zeros(_GAMES, np.bool_)
    for k in range(n):
        spread = squares - total * total / max(k, 1)
        bets = np.sqrt(2 * np.maximum(need, 0) * (k + 5) / ((0.05 + spread.clip(0)) * (n - k)))
        units = draw(generator)
        need -= np.log1p(np.minimum(bets, 0.95 / m) * (units - m))
        won |= need <= 0
        total += units
        squares += units * units
    return float(won.mean())


def simulated_power(
    n: int,
    margin: Fraction,
    sd: Fraction,
    delta: Fraction,
    seed: int,
    draws: int = 200,
    truth: Fraction = Fraction(0),
    scale: int = 200,
    design: Design = "fixed",
) -> Fraction:
    """Simulate the share of evaluations that :func:`certify.stats.betting.noninferior` decides.

    Differences are normal with mean ``truth`` and standard deviation ``sd``, cut to their range.

    Args:
        n: units in each evaluation, at least 1.
        margin, sd, delta, truth, scale: as for :func:`units_for_mean`.
        seed: seed of PCG64.
        draws: number of simulated evaluations, at least 1.
        design: as for :func:`certify.stats.betting.betting_exceeds`.

    Raises:
        UsageError: a number out of range.
    """
    if n < 1 or draws < 1 or seed < 0:
        raise UsageError("a simulation needs units, draws and a non-negative seed", code="DRAWS_RANGE")
    generator = np.random.Generator(np.random.PCG64(seed))
    wins = 0
    for _ in range(draws):
        sample = generator.normal(float(truth), float(sd), size=n).clip(-scale / 2, scale / 2)
        wins += noninferior([Fraction(float(d)) for d in sample], margin, delta, design, scale)
    return Fraction(wins, draws)


def _check_probability(value: Fraction, name: str) -> None:
    if not isinstance(value, Fraction) or not 0 < value < 1:
        raise UsageError(f"{name} must be a Fraction strictly between 0 and 1", code="RATE_RANGE")


def _too_many() -> UsageError:
    return UsageError(f"more than {MAX_UNITS} units would be needed", code="TOO_MANY_UNITS")
