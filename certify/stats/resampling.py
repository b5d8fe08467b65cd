"""Paired resampling on sufficient statistics, and rates over clusters.

For corpus scores, which are functions of sums over units, no finite-sample limit is known; the bootstrap
and the linearised variance here hold for many units only and say so. The randomisation tests hold for any
number of units under their own hypothesis, which is that the two systems are exchangeable within each unit.

Both kinds come in two halves: sums over the units of every random draw (:func:`bootstrap_sums`,
:func:`swap_sums`), of one system at a time, and what a pair of them says (:func:`bootstrap_limit`,
:func:`swap_p_value`). Draws depend on the seed, the number of units and of draws alone, so that systems whose
sums are made apart are resampled together, and a system that is compared often is resampled once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from certify.base.errors import InvalidInputError, NothingToDoError, UsageError
from certify.base.exact import round_down, round_up, sqrt_up
from certify.stats.limits import GRID_BITS, Limit, Side, check_level

Counts = NDArray[np.int64]
Statistic = Callable[[Counts], NDArray[np.float64]]
"""Maps sums of sufficient statistics, shape ``[m, s]``, to ``m`` scores."""

_BLOCK = 1 << 22  # random numbers held at once


@dataclass(frozen=True, slots=True)
class Randomisation:
    """Outcome of a one-sided randomisation test of "a is no better than b".

    Attributes:
        p_value: ``(1 + number of draws at least as large as observed) / (draws + 1)``.
        n: number of units.
        draws: number of random draws.
        seed: seed of the draws.
        procedure: name and version.
        assumptions: what the p-value rests on.
    """

    p_value: Fraction
    n: int
    draws: int
    seed: int
    procedure: str
    assumptions: tuple[str, ...] = ("sign-symmetric",)


def sign_flip(differences: Sequence[int] | Counts, seed: int, draws: int = 9999) -> Randomisation:
    """Sign-flip test of paired differences: is their sum larger than random signs make it (Fisher 1935)?

    Draw r gives every difference a fair random sign; ``p = (1 + #{sum_r >= sum}) / (draws + 1)``, compared
    as integers, so that ties count and identical outputs have p = 1. Exact for any n if, under the
    hypothesis, every difference is symmetric about 0.

    Args:
        differences: integers, one for each unit (scale rational differences to a common denominator first);
            the sum of their absolute values must be below ``2**63``.
        seed: seed of PCG64; 0 is a seed like any other.
        draws: number of random sign vectors, at least 1.

    Raises:
        UsageError: seed or draws out of range.
        InvalidInputError: differences that are not integers, or too large to add exactly.
        NothingToDoError: no differences.
    """
    generator = _generator(seed, draws)
    values = np.asarray(differences)
    if values.size == 0:
        raise NothingToDoError("there are no units to draw a conclusion from", code="NO_UNITS")
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise InvalidInputError("differences are one row of 64-bit integers", code="UNIT_TYPE")
    if sum(abs(int(value)) for value in values) >= 2**63:
        raise InvalidInputError("the differences are too large to be added exactly", code="UNIT_RANGE")
    exact = values.astype(np.int64)
    observed = int(exact.sum())
    extreme = 0
    for rows in _blocks(draws, exact.size):
        signs = 2 * generator.integers(0, 2, size=(rows, exact.size), dtype=np.int8) - 1
        extreme += int(np.count_nonzero(signs.astype(np.int64) @ exact >= observed))
    return Randomisation(Fraction(1 + extreme, 1 + draws), exact.size, draws, seed, "sign-flip/1")


@dataclass(frozen=True, slots=True)
class SwapSums:
    """One system's statistics: over all units, and over those that each random draw exchanges.

    Attributes:
        total: sums over all units, shape ``[s]``.
        exchanged: sums over the exchanged units of every draw, shape ``[draws, s]``.
        n: number of units.
        seed: seed of the draws.
    """

    total: Counts
    exchanged: Counts
    n: int
    seed: int


def swap_sums(counts: Counts, seed: int, draws: int = 999) -> SwapSums:
    """Sums of statistics over random halves: every draw takes each unit with probability 1/2.

    Args:
        counts: statistics of one system, integers of shape ``[n, s]``, one row for each unit.
        seed: seed of PCG64.
        draws: number of random draws, at least 1.

    Raises:
        UsageError: seed or draws out of range.
        InvalidInputError: shapes or types that do not fit, or counts too large to add exactly.
        NothingToDoError: no units.
    """
    generator = _generator(seed, draws)
    _check_counts(counts)
    n = counts.shape[0]
    parts = [
        _weighted(generator.integers(0, 2, size=(rows, n), dtype=np.int8), counts)
        for rows in _blocks(draws, n)
    ]
    return SwapSums(counts.sum(axis=0, dtype=np.int64), np.concatenate(parts), n, seed)


def swap_p_value(a: SwapSums, b: SwapSums, statistic: Statistic) -> Randomisation:
    """The test of :func:`paired_swap` from the sums of both systems, made with one seed.

    Raises:
        InvalidInputError: the sums are of different draws or units, or a score is not finite.
    """
    draws = a.exchanged.shape[0]
    if (a.n, a.seed, a.exchanged.shape) != (b.n, b.seed, b.exchanged.shape):
        raise InvalidInputError("the two systems were resampled apart", code="UNIT_TYPE")
    observed = _scores(statistic, a.total[None]) - _scores(statistic, b.total[None])
    moved = b.exchanged - a.exchanged
    difference = _scores(statistic, a.total + moved) - _scores(statistic, b.total - moved)
    tie = (moved == 0).all(axis=1)
    extreme = int(np.count_nonzero((difference >= observed) | tie))
    return Randomisation(Fraction(1 + extreme, 1 + draws), a.n, draws, a.seed, "paired-swap/1")


def paired_swap(a: Counts, b: Counts, statistic: Statistic, seed: int, draws: int = 999) -> Randomisation:
    """Approximate randomisation of two systems on sums of sufficient statistics (Noreen 1989).

    Every draw exchanges the two systems' rows in each unit with probability 1/2 and compares
    ``statistic(sum a) - statistic(sum b)`` with the observed difference. A draw counts if its difference is
    at least the observed one, or if its sums are the observed sums: a tie is found in integers, whatever the
    floats say.

    Args:
        a: statistics of the first system, integers of shape ``[n, s]``.
        b: statistics of the second, same shape and order of units.
        statistic: score of sums of statistics, see :data:`Statistic`; larger is better.
        seed: seed of PCG64.
        draws: number of random exchanges, at least 1.

    Raises:
        UsageError: seed or draws out of range.
        InvalidInputError: shapes or types that do not fit, or a score that is not finite.
        NothingToDoError: no units.
    """
    _check_pair(a, b)
    return swap_p_value(swap_sums(a, seed, draws), swap_sums(b, seed, draws), statistic)


def bootstrap_sums(counts: Counts, seed: int, draws: int = 999) -> Counts:
    """Sums of statistics over units drawn n times with replacement, shape ``[draws, s]``.

    Args:
        counts: statistics, integers of shape ``[n, s]``, one row for each unit.
        seed: seed of PCG64.
        draws: number of bootstrap samples, at least 1.

    Raises:
        UsageError: seed or draws out of range.
        InvalidInputError: shapes or types that do not fit, or counts too large to add exactly.
        NothingToDoError: no units.
    """
    generator = _generator(seed, draws)
    _check_counts(counts)
    n = counts.shape[0]
    parts = []
    for rows in _blocks(draws, n):
        chosen = generator.integers(0, n, size=(rows, n))
        cells = chosen + n * np.arange(rows)[:, None]
        parts.append(_weighted(np.bincount(cells.ravel(), minlength=rows * n).reshape(rows, n), counts))
    return np.concatenate(parts)


def bootstrap_limit(
    differences: NDArray[np.float64], observed: float, n: int, delta: Fraction, side: Side = "lower"
) -> Limit:
    """Percentile limit of a difference of scores from bootstrap samples. Asymptotic.

    With the differences of all draws in ascending order, the lower limit is the one of rank
    ``floor(delta * (draws + 1))``, the upper limit the one of the same rank from above (Efron and Tibshirani
    1993).

    Args:
        differences: one difference for each bootstrap sample, at least ``1/delta - 1`` of them.
        observed: the difference of the sample itself.
        n: number of units.
        delta: error probability.
        side: which limit.

    Raises:
        UsageError: ``delta`` or side out of range, or too few draws.
    """
    check_level(delta)
    _check_side(side)
    draws = differences.size
    rank = int(delta * (draws + 1))
    if rank < 1:
        raise UsageError(f"{draws} draws are too few for this error probability", code="DRAWS_RANGE")
    ordered = np.sort(differences)
    value = ordered[rank - 1] if side == "lower" else ordered[-rank]
    return Limit(
        Fraction(float(value)),
        side,
        Fraction(float(observed)),
        n,
        delta,
        "paired-bootstrap/1",
        ("iid", "asymptotic"),
        asymptotic=True,
    )


def paired_bootstrap(
    a: Counts,
    b: Counts,
    statistic: Statistic,
    delta: Fraction,
    seed: int,
    side: Side = "lower",
    draws: int = 1000,
) -> Limit:
    """Percentile limit of ``statistic(sum a) - statistic(sum b)`` by the paired bootstrap. Asymptotic.

    Units are drawn n times with replacement, the same for both systems (Koehn 2004); the limit is that of
    :func:`bootstrap_limit`.

    Args:
        a: statistics of the first system, integers of shape ``[n, s]``, one row for each unit.
        b: statistics of the second, same shape and order of units.
        statistic: score of sums of statistics, see :data:`Statistic`.
        delta: error probability.
        seed: seed of PCG64.
        side: which limit.
        draws: number of bootstrap samples, at least ``1/delta - 1``.

    Raises:
        UsageError: ``delta``, seed, side or draws out of range.
        InvalidInputError: shapes or types that do not fit, or a score that is not finite.
        NothingToDoError: no units.
    """
    _check_pair(a, b)
    width = a.shape[1]
    sums = bootstrap_sums(np.concatenate([a, b], axis=1), seed, draws)
    differences = _scores(statistic, sums[:, :width]) - _scores(statistic, sums[:, width:])
    observed = _scores(statistic, a.sum(axis=0)[None]) - _scores(statistic, b.sum(axis=0)[None])
    return bootstrap_limit(differences, float(observed[0]), a.shape[0], delta, side)


def cluster_rate(successes: Sequence[int], sizes: Sequence[int], delta: Fraction, side: Side) -> Limit:
    """Limit of a rate over steps when the steps come in clusters, by linearised variance. Asymptotic.

    The ratio estimator ``r = sum Y_i / sum M_i`` over n clusters with ``Y_i`` successes in ``M_i`` steps
    has the variance estimate ``n/(n-1) * sum (Y_i - r M_i)^2 / (sum M_i)^2`` (Cochran 1977, §6.3); the
    limit is r minus or plus Student's quantile with n - 1 degrees of freedom times its root. Where all
    clusters have the same rate, the data hold no estimate of the variance, and the limit is the trivial 0
    or 1.

    Args:
        successes: Y, one for each cluster.
        sizes: M, at least 1 each, as many.
        delta: error probability.
        side: which limit.

    Raises:
        UsageError: ``delta`` or side out of range.
        InvalidInputError: impossible counts, or fewer than two clusters.
        NothingToDoError: no clusters.
    """
    check_level(delta)
    _check_side(side)
    n, total = len(sizes), sum(sizes)
    if n == 0:
        raise NothingToDoError("there are no units to draw a conclusion from", code="NO_UNITS")
    if n != len(successes) or any(not 0 <= y <= m or m < 1 for y, m in zip(successes, sizes, strict=False)):
        raise InvalidInputError("the counts of the clusters are impossible", code="COUNT_RANGE")
    if n < 2:
        raise InvalidInputError("a variance between clusters needs at least two", code="TOO_FEW_UNITS")
    rate = Fraction(sum(successes), total)
    squares = sum((y - rate * m) ** 2 for y, m in zip(successes, sizes, strict=True))
    if squares == 0:
        value = Fraction(0 if side == "lower" else 1)
    else:
        quantile = Fraction(float(stdtrit(n - 1, float(1 - delta))))
        width = quantile * sqrt_up(Fraction(n, n - 1) * squares / total**2)
        value = (
            max(Fraction(0), round_down(rate - width, GRID_BITS))
            if side == "lower"
            else min(Fraction(1), round_up(rate + width, GRID_BITS))
        )
    return Limit(value, side, rate, n, delta, "cluster-ratio/1", ("iid", "asymptotic"), asymptotic=True)


# --- inside ------------------------------------------------------------------------------------------------


def _generator(seed: int, draws: int) -> np.random.Generator:
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise UsageError("a seed is an integer of 0 or more", code="SEED_RANGE")
    if draws < 1:
        raise UsageError("at least one random draw is needed", code="DRAWS_RANGE")
    return np.random.Generator(np.random.PCG64(seed))


def _blocks(draws: int, n: int) -> Iterator[int]:
    """Split the draws so that a block of random numbers stays small; the stream does not depend on it.

    Blocks of whole fours: numbers of one byte are taken four from a word, and what a call leaves over of the
    last word is lost.
    """
    rows = max(4, _BLOCK // n // 4 * 4)
    for start in range(0, draws, rows):
        yield min(rows, draws - start)


def _check_side(side: str) -> None:
    if side not in ("lower", "upper"):
        raise UsageError(f"unknown side {side!r}: choose lower or upper", code="SIDE_UNKNOWN")


def _check_pair(a: Counts, b: Counts) -> None:
    if a.size and a.shape != b.shape:
        raise InvalidInputError("statistics are two integer arrays of one shape [n, s]", code="UNIT_TYPE")
    _check_counts(a)
    _check_counts(b)


def _check_counts(counts: Counts) -> None:
    if counts.size == 0:
        raise NothingToDoError("there are no units to draw a conclusion from", code="NO_UNITS")
    if counts.ndim != 2 or counts.dtype.kind not in "iu":
        raise InvalidInputError("statistics are an integer array of shape [n, s]", code="UNIT_TYPE")
    if 4 * _largest(counts) * counts.shape[0] >= 2**63:
        raise InvalidInputError("the statistics are too large to be added exactly", code="UNIT_RANGE")


def _largest(counts: Counts) -> int:
    return max(abs(int(counts.max())), abs(int(counts.min())))


def _weighted(weights: NDArray[np.integer[Any]], counts: Counts) -> Counts:
    """``weights @ counts``, exactly; rows of weights add up to no more than the number of units."""
    # Floats multiply many times faster, and are exact as long as no sum needs more than 53 bits.
    if _largest(counts) * counts.shape[0] < 2**53:
        return (weights.astype(np.float64) @ counts.astype(np.float64)).astype(np.int64)
    return weights.astype(np.int64) @ counts.astype(np.int64)


def _scores(statistic: Statistic, sums: Counts) -> NDArray[np.float64]:
    scores = np.asarray(statistic(sums), dtype=np.float64)
    if scores.shape != (sums.shape[0],) or not np.isfinite(scores).all():
        raise InvalidInputError("the statistic gave no finite score for each row of sums", code="SCORE_RANGE")
    return scores
