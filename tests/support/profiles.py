"""How many examples a property test draws: a pinned number, and many times that in the profile ``long``."""

from __future__ import annotations

import os

DEEPER = 30
"""How many times more the profile ``long`` draws, about as its default number does."""


def examples(count: int) -> int:
    """``count`` examples in the profile ``ci``, :data:`DEEPER` times as many in ``long``.

    For tests that pin a number of their own, so that a search goes deeper everywhere.
    """
    return count * DEEPER if os.environ.get("HYPOTHESIS_PROFILE") == "long" else count
