"""Paired resampling of sums of statistics, by scipy; and rates over clusters.

No finite-sample limit is known for corpus scores, which are functions of sums over units. The bootstrap and
the linearised variance here hold only for many units, and are labelled so. The randomisation test holds for
any number of units under its hypothesis: the two systems are exchangeable within each unit.

Units are never copied. A draw is a row of weights (how often each unit was drawn) or of signs (which units
were exchanged); its sums are one matrix product, for all scores together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certify.base.enclosure import round_down, round_up, sqrt_up
from certify.base.errors import InvalidInputError, NothingToDoError, UsageError
from certify.stats.limits import GRID_BITS, Limit, Side, check_level

Counts = NDArray[np.int64]
Scores = NDArray[np.float64]
Statistic = Callable[[Counts], Scores]
"""Map sums of sufficient statistics, shape ``[m, s]``, to ``k`` scores each: shape ``[m, k]``."""

BOOTSTRAP, SWAP = "paired-bootstrap/2", "paired-swap/2"
"""Names and versions of the two procedures."""

_BLOCK = 1 << 22  # random numbers in memory at once


def paired_swap(
    a: Counts, b: Counts, statistic: Statistic, seed: int, draws: int = 999
) -> tuple[Fraction, ...]:
    """Approximate randomisation of two systems on sums of sufficient statistics (Noreen 1989).

    The hypothesis is that a is no better than b. Every draw exchanges the two systems' rows in each unit with
    probability 1/2; the p-value is ``(1 + #{draws at least as large as observed}) / (draws + 1)``. If there
    are no more ways to exchange than draws, each is taken once and the share is exact. A draw that leaves the
    sums unchanged counts as a tie, and differences of scores are compared in steps of 1e-9, so identical
    outputs have p = 1.

    Args:
        a: statistics of the first system, integers of shape ``[n, s]``, one row for each unit.
        b: statistics of the second, same shape and order of units.
        statistic: scores of sums of statistics, see :data:`Statistic`; larger is better.
        seed: seed of the draws.
        draws: number of random exchanges.

    Returns:
        The one-sided p-value of each score.

    Raises:
        InvalidInputError: shapes or types do not fit, or counts are too large to add exactly.
        NothingToDoError: there are no units.
    """
    from scipy.stats import permutation_test  # takes half a second to load

    n = _check_pair(a, b)
    if n == 1:  # scipy requires two units; an additional one that is empty for both has no effect
        return paired_swap(np.vstack([a, 0 * a]), np.vstack([b, 0 * b]), statistic, seed, draws)
    ours, theirs, gap = a.sum(axis=0), b.sum(axis=0), (b - a).astype(np.float64)

    def difference(first: NDArray[np.int64], _: NDArray[np.int64], axis: int) -> Scores:
        assert axis == -1
        moved = (np.atleast_2d(first >= n) @ gap).astype(np.int64)
        found = _difference(statistic, ours + moved, theirs - moved)
        unmoved = (moved == 0).all(axis=1, keepdims=True)
        rounded = np.where(unmoved, observed, found).round(9)
        return rounded if first.ndim > 1 else rounded[0]

    observed = _difference(statistic, ours[None], theirs[None])
    units = np.arange(n)
    found = permutation_test(
        (units, units + n),
        difference,
        permutation_type="samples",
        vectorized=True,
        n_resamples=draws,
        batch=_batch(n),
        alternative="greater",
        rng=seed,
    )
    return tuple(Fraction(float(p)).limit_denominator(draws + 1) for p in found.pvalue)


def paired_bootstrap(
    a: Counts, b: Counts, statistic: Statistic, delta: Fraction, seed: int, draws: int = 999
) -> tuple[Scores, Scores]:
    """Compute percentile limits of ``statistic(sum a) - statistic(sum b)`` by paired bootstrap. Asymptotic.

    Units are drawn n times with replacement, the same for both systems (Koehn 2004; Efron and Tibshirani
    1993).

    Args:
        a: statistics of the first system, integers of shape ``[n, s]``, one row for each unit.
        b: statistics of the second, same shape and order of units.
        statistic: scores of sums of statistics, see :data:`Statistic`.
        delta: error probability of each limit, below 1/2.
        seed: seed of the draws.
        draws: number of bootstrap samples, at least ``1/delta - 1``.

    Returns:
        Lower and upper limit of each score, shape ``[k]``.

    Raises:
        UsageError: ``delta`` or draws is out of range.
        InvalidInputError: shapes or types do not fit, counts are too large to add exactly, or there is only
            one unit.
        NothingToDoError: there are no units.
    """
    from scipy.stats import bootstrap  # takes half a second to load

    n = _check_pair(a, b)
    check_level(delta)
    if 2 * delta >= 1 or delta * (draws + 1) < 1:
        raise UsageError(f"{draws} draws do not fit the error probability {delta}", code="DRAWS_RANGE")
    if n < 2:
        raise InvalidInputError("a bootstrap needs at least two units", code="TOO_FEW_UNITS")
    both = np.concatenate([a, b], axis=1).astype(np.float64)

    def difference(drawn: NDArray[np.int64], axis: int) -> Scores:
        assert axis == -1
        cells = drawn + n * np.arange(len(drawn))[:, None]
        weights = np.bincount(cells.ravel(), minlength=drawn.size).reshape(drawn.shape)
        sums = (weights @ both).astype(np.int64)
        return _difference(statistic, *np.hsplit(sums, 2)).T

    found: Any = bootstrap(
        (np.arange(n),),
        difference,
        vectorized=True,
        n_resamples=draws,
        batch=_batch(n),
        confidence_level=float(1 - 2 * delta),
        method="percentile",
        rng=seed,
    )
    return found.confidence_interval.low, found.confidence_interval.high


def cluster_rate(successes: Sequence[int], sizes: Sequence[int], delta: Fraction, side: Side) -> Limit:
    """Compute a limit of a rate over steps in clusters, by linearised variance. Asymptotic.

    The ratio estimator ``r = sum Y_i / sum M_i`` over n clusters with ``Y_i`` successes in ``M_i`` steps
    has the variance estimate ``n/(n-1) * sum (Y_i - r M_i)^2 / (sum M_i)^2`` (Cochran 1977, §6.3); the
    limit is r minus or plus Student's quantile with n - 1 degrees of freedom times its root. If all clusters
    have the same rate, the data contain no estimate of the variance, and the limit is the trivial 0 or 1.

    Args:
        successes: Y, one per cluster.
        sizes: M, one per cluster, at least 1 each.
        delta: error probability.
        side: the limit to compute.

    Raises:
        UsageError: ``delta`` or side is out of range.
        InvalidInputError: counts are impossible, or there are fewer than two clusters.
        NothingToDoError: there are no clusters.
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
    right = sum(successes)
    rate = Fraction(right, total)
    # In integers, because a Fraction per cluster would be reduced every time.
    squares = Fraction(
        sum((y * total - right * m) ** 2 for y, m in zip(successes, sizes, strict=True)), total**2
    )
    if squares == 0:
        value = Fraction(0 if side == "lower" else 1)
    else:
        from scipy.special import stdtrit  # takes a third of a second to load, and most runs need none

        quantile = Fraction(float(-stdtrit(n - 1, float(delta))))
        width = quantile * sqrt_up(Fraction(n, n - 1) * squares / total**2)
        value = (
            max(Fraction(0), round_down(rate - width, GRID_BITS))
            if side == "lower"
            else min(Fraction(1), round_up(rate + width, GRID_BITS))
        )
    return Limit(value, side, rate, n, delta, "cluster-ratio/1", ("iid", "asymptotic"), asymptotic=True)


def _difference(statistic: Statistic, ours: Counts, theirs: Counts) -> Scores:
    return statistic(ours) - statistic(theirs)


def _batch(n: int) -> int:
    return max(1, _BLOCK // n)


def _check_side(side: str) -> None:
    if side not in ("lower", "upper"):
        raise UsageError(f"unknown side {side!r}: choose lower or upper", code="SIDE_UNKNOWN")


def _check_pair(a: Counts, b: Counts) -> int:
    """Check that two systems fit together and return the number of units."""
    if a.shape != b.shape or a.ndim != 2 or a.dtype.kind not in "iu" or b.dtype.kind not in "iu":
        raise InvalidInputError("statistics are two integer arrays of one shape [n, s]", code="UNIT_TYPE")
    if a.size == 0:
        raise NothingToDoError("there are no units to draw a conclusion from", code="NO_UNITS")
    # Floats multiply many times faster, and are exact as long as no sum needs more than 53 bits.
    if 4 * max(abs(int(end)) for one in (a, b) for end in (one.max(), one.min())) * len(a) >= 2**53:
        raise InvalidInputError("the statistics are too large to be added exactly", code="UNIT_RANGE")
    return len(a)
