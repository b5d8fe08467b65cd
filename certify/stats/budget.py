"""Several hypotheses, one error probability: testing in a fixed sequence.

The probability of any wrong rejection is at most ``delta``, however the tests depend on each other.
"""

from __future__ import annotations

from collections.abc import Iterable


def fixed_sequence(rejections: Iterable[bool]) -> int:
    """Count the hypotheses that Learn then Test rejects in a fixed sequence, from the first on.

    Each hypothesis is tested at the full ``delta``, in an order fixed before the data were seen. Testing ends
    at the first that is not rejected (Angelopoulos, Bates, Candès, Jordan and Lei 2021, "Learn then Test").
    To choose the size of a ticket, H_k is "ticket k is not good enough", ordered from large
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
