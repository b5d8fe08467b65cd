"""Situations in which gates are asked to release something that is worse than they tolerate.

Scores are whole points. In every situation but the last one the mean difference of each candidate is below
``-MARGIN``, so that every release is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

MARGIN: Final = 1
"""Points that a candidate may lose on average."""

_WORSE: Final = -MARGIN - 0.01


@dataclass(frozen=True)
class Attempt:
    """One attempt at a release.

    Attributes:
        candidates: whole differences of scores, candidate minus comparator, in [-100, 100], shape
            (candidates, pairs). The release is wrong if any candidate is released.
        looks: numbers of pairs after which the gate is run; its author stops at the first release.
        document: neighbouring pairs that are one draw.
    """

    candidates: NDArray[np.int64]
    looks: tuple[int, ...]
    document: int = 1


@dataclass(frozen=True)
class Situation:
    """A way to be wrong: its ``name``, one sentence, the true mean difference, and what draws an attempt."""

    name: str
    says: str
    truth: float
    draw: Callable[[np.random.Generator], Attempt]


def _rare(pairs: int, share: float, loss: int) -> Callable[[np.random.Generator], Attempt]:
    def draw(random: np.random.Generator) -> Attempt:
        return Attempt(-loss * (random.random((1, pairs)) < share).astype(np.int64), (pairs,))

    return draw


def _spread(
    mean: float, pairs: int, *, candidates: int = 1, every: int | None = None
) -> Callable[[np.random.Generator], Attempt]:
    def draw(random: np.random.Generator) -> Attempt:
        drawn = np.rint(random.normal(mean, 15, (candidates, pairs))).clip(-100, 100).astype(np.int64)
        return Attempt(drawn, (pairs,) if every is None else tuple(range(every, pairs + 1, every)))

    return draw


def _documents(random: np.random.Generator) -> Attempt:
    shared = np.repeat(random.normal(_WORSE, 12, 30), 10)
    return Attempt(np.rint(shared + random.normal(0, 9, 300)).astype(np.int64)[None], (300,), document=10)


SITUATIONS: Final = (
    Situation(
        "nothing varies",
        "20 pairs; 6 % lose 20 points, and many samples show none",
        -1.2,
        _rare(20, 0.06, 20),
    ),
    Situation("rare harm", "100 pairs; 1.3 % lose 80 points", -1.04, _rare(100, 0.013, 80)),
    Situation("peeking", "the gate runs after every 25 of 500 pairs", _WORSE, _spread(_WORSE, 500, every=25)),
    Situation(
        "best of eight", "eight candidates, 300 pairs each", _WORSE, _spread(_WORSE, 300, candidates=8)
    ),
    Situation("documents", "30 documents of ten sentences that are alike", _WORSE, _documents),
    Situation("an equal one", "1,450 pairs: releases are right here", 0.0, _spread(0.0, 1450)),
)
"""The last one is there so that no gate looks good that releases nothing."""
