"""Corpus BLEU and chrF++ from sums of statistics, many sums at once; and one evidence resampled, arm by arm.

A corpus score is a function of sums over sentences (:mod:`lottery.text.score` says of what), so that a
resample of units is scored from the sum of its units' statistics alone. Both scores are sacreBLEU's: BLEU
over four orders with exponential smoothing and one reference, chrF with character order 6, word order 2 and
beta 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from certify.base.errors import InvalidInputError
from certify.evidence.record import STATISTICS, TranslationRecord
from certify.stats.resampling import Counts, Statistic, SwapSums, bootstrap_sums, swap_sums

DRAWS: Final = 999
"""Bootstrap samples and random exchanges; fixed, so that nobody chooses them after a look."""

_RULES: Final = 3
_ORDERS: Final = 4
_BLEU, _CHRF = slice(0, 10), slice(10, STATISTICS)
_BETA2: Final = 4


def corpus_bleu(sums: Counts) -> NDArray[np.float64]:
    """BLEU, 0 to 100, of each row of summed statistics, shape ``[m, 10]``: lengths, matches, n-grams.

    The brevity penalty times the geometric mean of the precisions of orders 1 to 4, in percent. The k-th
    order without a match has precision ``1 / (2**k * n-grams)``; without any match, or with an order without
    n-grams, the score is 0.
    """
    ours, theirs = sums[:, 0].astype(np.float64), sums[:, 1].astype(np.float64)
    matches, totals = sums[:, 2 : 2 + _ORDERS], sums[:, 2 + _ORDERS : 2 + 2 * _ORDERS]
    empty = matches == 0
    smoothed = np.where(empty, 0.5 ** np.cumsum(empty, axis=1), matches)
    alive = ~empty.all(axis=1) & (totals > 0).all(axis=1)
    logs = np.log(smoothed) - np.log(np.maximum(totals, 1))
    penalty = np.minimum(0.0, 1.0 - theirs / np.maximum(ours, 1.0))
    return np.where(alive, 100.0 * np.exp(penalty + logs.sum(axis=1) / _ORDERS), 0.0)


def corpus_chrf(sums: Counts) -> NDArray[np.float64]:
    """chrF++, 0 to 100, of each row of summed statistics, shape ``[m, 24]``: 8 orders of three counts.

    Precision and recall are averaged over the orders with n-grams on both sides and combined with beta 2; 0
    where nothing matches.
    """
    hypothesis, reference, match = (sums[:, place::3].astype(np.float64) for place in range(3))
    counted = (hypothesis > 0) & (reference > 0)
    orders = np.maximum(counted.sum(axis=1), 1)
    match = np.where(counted, match, 0.0)
    precision = (match / np.maximum(hypothesis, 1.0)).sum(axis=1) / orders
    recall = (match / np.maximum(reference, 1.0)).sum(axis=1) / orders
    below = _BETA2 * precision + recall
    above = 100.0 * (1 + _BETA2) * precision * recall
    found: NDArray[np.float64] = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    return found


@dataclass(frozen=True, slots=True)
class Metric:
    """A corpus score.

    Attributes:
        name: what people call it.
        score: name of the definition, for signatures.
        signature: key of a manifest's ``signatures`` under which the evaluation says how it counted.
        columns: the part of a statistics vector that the score is a function of.
        statistic: from sums of that part to scores.
    """

    name: str
    score: str
    signature: str
    columns: slice
    statistic: Statistic


BLEU: Final = Metric("BLEU", "corpus-BLEU/n4-exp", "bleu", _BLEU, corpus_bleu)
CHRF: Final = Metric("chrF++", "corpus-chrF/c6w2b2", "chrf", _CHRF, corpus_chrf)


@dataclass(frozen=True, slots=True)
class ArmSums:
    """One arm under one rule and one metric.

    Attributes:
        score: the corpus score of the text.
        resampled: its score on each bootstrap sample, shape ``[DRAWS]``.
        swaps: sums for exchanges with another arm.
    """

    score: float
    resampled: NDArray[np.float64]
    swaps: SwapSums


class CorpusSums:
    """Units of one evidence, resampled once for each arm: units are drawn whole, the same for every arm.

    The seed is the evidence's ``order_seed``, which was recorded with it: nothing is left to choose.
    """

    def __init__(self, units: Mapping[str, Sequence[TranslationRecord]], seed: int) -> None:
        """Over ``units`` in their order; sums are made when an arm is asked for."""
        self._units, self._seed = units, seed
        self._sums: dict[str, tuple[Counts, SwapSums, Counts]] = {}
        self._known: dict[tuple[str, int, str], ArmSums] = {}

    def arm(self, name: str, rule: int, metric: Metric) -> ArmSums:
        """The arm of that name under the rule of that index.

        Raises:
            InvalidInputError: counts too large to add exactly (``UNIT_RANGE``).
        """
        key = (name, rule, metric.score)
        if key not in self._known:
            self._known[key] = self._scored(name, rule, metric)
        return self._known[key]

    def _scored(self, name: str, rule: int, metric: Metric) -> ArmSums:
        if name not in self._sums:
            counts = _by_unit(self._units.values(), name)
            self._sums[name] = (
                bootstrap_sums(counts, self._seed, DRAWS),
                swap_sums(counts, self._seed, DRAWS),
                counts.sum(axis=0),
            )
        drawn, swaps, total = self._sums[name]
        here = slice(rule * STATISTICS + metric.columns.start, rule * STATISTICS + metric.columns.stop)
        return ArmSums(
            float(metric.statistic(total[None, here])[0]),
            metric.statistic(drawn[:, here]),
            SwapSums(total[here], swaps.exchanged[:, here], swaps.n, swaps.seed),
        )


def _by_unit(units: Iterable[Sequence[TranslationRecord]], name: str) -> Counts:
    """Statistics of one arm summed within units: ``[units, 3 * STATISTICS]``, rule after rule."""
    vectors: list[list[tuple[int, ...]]] = []
    starts: list[int] = []
    for records in units:
        starts.append(len(vectors))
        for record in records:
            answer = record.arms[name]
            vectors.append([answer.stats[index] for index in answer.rules])
    counts = np.array(vectors, dtype=np.int64).reshape(len(vectors), _RULES * STATISTICS)
    # What resampling asks of sums of units, asked before units are summed.
    if 4 * int(counts.max()) * len(vectors) >= 2**63:
        raise InvalidInputError("the statistics are too large to be added exactly", code="UNIT_RANGE")
    return np.add.reduceat(counts, starts, axis=0)
