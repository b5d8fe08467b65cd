"""Several claims, one error probability: explicit split, Holm, and testing in a fixed sequence.

All three keep the probability of any wrong claim at most ``delta``, however the claims depend on each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction

from certify.base.errors import InvalidInputError, NothingToDoError, UsageError
from certify.stats.limits import check_level


def split_budget(delta: Fraction, weights: Sequence[Fraction | int]) -> tuple[Fraction, ...]:
    """Split ``delta`` in proportion to ``weights``: ``delta * w_i / sum w``.

    The shares are exact and sum to ``delta``; that no claim is wrong then has probability at least
    ``1 - delta`` (Bonferroni).

    Args:
        delta: error probability of all claims together.
        weights: one positive exact number for each claim, fixed beforehand.

    Raises:
        UsageError: ``delta`` out of range, or a weight that is not a positive exact number.
        NothingToDoError: no weights.
    """
    check_level(delta)
    if not weights:
        raise NothingToDoError("there is no claim to give an error probability to", code="NO_CLAIMS")
    for weight in weights:
        if isinstance(weight, bool) or not isinstance(weight, (int, Fraction)) or weight <= 0:
            raise UsageError("a weight is a positive exact number", code="WEIGHT_RANGE")
    total = sum(weights)
    return tuple(delta * weight / total for weight in weights)


def holm(p_values: Sequence[Fraction], delta: Fraction) -> tuple[bool, ...]:
    """Which hypotheses Holm's step-down procedure rejects (Holm 1979), in the order given.

    With the p-values in ascending order, ``p_(1) <= ... <= p_(m)``, the j-th is rejected if
    ``p_(i) <= delta / (m - i + 1)`` for every ``i <= j``.

    Args:
        p_values: exact, in [0, 1].
        delta: error probability of all rejections together.

    Raises:
        UsageError: ``delta`` out of range.
        InvalidInputError: a p-value that is not exact or outside [0, 1].
        NothingToDoError: no p-values.
    """
    check_level(delta)
    if not p_values:
        raise NothingToDoError("there are no p-values", code="NO_CLAIMS")
    for p in p_values:
        if not isinstance(p, Fraction) or not 0 <= p <= 1:
            raise InvalidInputError("a p-value is a Fraction in [0, 1]", code="P_VALUE_RANGE")
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    count = fixed_sequence(p_values[index] * (len(order) - rank) <= delta for rank, index in enumerate(order))
    rejected = set(order[:count])
    return tuple(index in rejected for index in range(len(order)))


def fixed_sequence(rejections: Iterable[bool]) -> int:
    """Learn then Test in a fixed sequence: how many hypotheses, from the first on, are rejected.

    Each hypothesis is tested at the full ``delta``, in an order fixed before the data were seen, and
    testing ends at the first that is not rejected (Angelopoulos, Bates, Candès, Jordan and Lei 2021, "Learn
    then Test"). To choose the size of a ticket, H_k is "ticket k is not good enough", ordered from large
    tickets to small ones; the last accepted is the smallest shown to be good enough. The data must be
    disjoint from those that ordered them.

    Args:
        rejections: for each hypothesis, in order, whether its own test at level ``delta`` rejects it.
            Consumed lazily: nothing after the first False is computed.
    """
    count = 0
    for rejected in rejections:
        if not rejected:
            break
        count += 1
    return count
