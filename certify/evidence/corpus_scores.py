"""Corpus BLEU and chrF++ from sums of statistics, many sums at once; and arms of one evidence compared.

A corpus score is a function of sums over sentences (:mod:`lottery.text.score` says of what), so that a
resample of units is scored from the sum of its units' statistics alone. Both scores are sacreBLEU's: BLEU
over four orders with exponential smoothing and one reference, chrF with character order 6, word order 2 and
beta 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np

from certify.base.errors import InvalidInputError
from certify.evidence.record import STATISTICS, TranslationRecord
from certify.stats.resampling import Counts, Scores, paired_bootstrap, paired_swap

DRAWS: Final = 999
"""Bootstrap samples and random exchanges; fixed, so that nobody chooses them after a look."""

_RULES: Final = 3
_ORDERS: Final = 4
_BLEU, _CHRF = slice(0, 10), slice(10, STATISTICS)
_BETA2: Final = 4


def corpus_bleu(sums: Counts) -> Scores:
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


def corpus_chrf(sums: Counts) -> Scores:
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
    found: Scores = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
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
    statistic: Callable[[Counts], Scores]


BLEU: Final = Metric("BLEU", "corpus-BLEU/n4-exp", "bleu", _BLEU, corpus_bleu)
CHRF: Final = Metric("chrF++", "corpus-chrF/c6w2b2", "chrf", _CHRF, corpus_chrf)
_METRICS: Final = (BLEU, CHRF)


class CorpusSums:
    """Sums of statistics of one evidence by unit, for all tickets that share it; units are drawn whole.

    The seed is the evidence's ``order_seed``, which was recorded with it: nothing is left to choose. Scores
    come for every metric under every rule together, in the order of :func:`place`.
    """

    def __init__(self, units: Mapping[str, Sequence[TranslationRecord]], seed: int) -> None:
        """Over ``units`` in their order; sums are made when an arm is asked for."""
        self._units, self._seed = units, seed
        self._counts: dict[str, Counts] = {}
        self._limits: dict[tuple[str, str, Fraction], tuple[Scores, Scores]] = {}
        self._p_values: dict[tuple[str, str], tuple[Fraction, ...]] = {}

    def scores(self, name: str) -> Scores:
        """Corpus scores of one arm, shape ``[6]``.

        Raises:
            InvalidInputError: counts too large to add exactly (``UNIT_RANGE``), as below.
        """
        found: Scores = _scores(self._by_unit(name).sum(axis=0)[None])[0]
        return found

    def limits(self, ours: str, theirs: str, delta: Fraction) -> tuple[Scores, Scores]:
        """Limits of the differences of two arms, each at ``delta``, by the bootstrap; shape ``[6]`` each."""
        key = (ours, theirs, delta)
        if key not in self._limits:
            a, b = self._by_unit(ours), self._by_unit(theirs)
            self._limits[key] = paired_bootstrap(a, b, _scores, delta, self._seed, DRAWS)
        return self._limits[key]

    def p_values(self, ours: str, theirs: str) -> tuple[Fraction, ...]:
        """One-sided p-values of "``ours`` is no better", by random exchanges of units."""
        if (ours, theirs) not in self._p_values:
            a, b = self._by_unit(ours), self._by_unit(theirs)
            self._p_values[ours, theirs] = paired_swap(a, b, _scores, self._seed, DRAWS)
        return self._p_values[ours, theirs]

    def _by_unit(self, name: str) -> Counts:
        if name not in self._counts:
            self._counts[name] = _by_unit(self._units.values(), name)
        return self._counts[name]


def place(metric: Metric, rule: int) -> int:
    """Where the score of a metric under the rule of that index stands among all scores."""
    return _RULES * _METRICS.index(metric) + rule


def _scores(sums: Counts) -> Scores:
    """From sums over all rules, ``[m, 3 * STATISTICS]``, to the scores in the order of :func:`place`."""
    by_rule = np.hsplit(sums, _RULES)
    return np.stack([one.statistic(part[:, one.columns]) for one in _METRICS for part in by_rule], axis=1)


def _by_unit(units: Iterable[Sequence[TranslationRecord]], name: str) -> Counts:
    """Statistics of one arm summed within units: ``[units, 3 * STATISTICS]``, rule after rule."""
    vectors: list[list[tuple[int, ...]]] = []
    starts: list[int] = []
    largest = 0
    for records in units:
        starts.append(len(vectors))
        largest = max(largest, len(records))
        for record in records:
            answer = record.arms[name]
            vectors.append([answer.stats[index] for index in answer.rules])
    counts = np.array(vectors, dtype=np.int64).reshape(len(vectors), _RULES * STATISTICS)
    # Asked before units are summed: any unit may be drawn every time.
    if 4 * int(counts.max()) * largest * len(starts) >= 2**53:
        raise InvalidInputError("the statistics are too large to be added exactly", code="UNIT_RANGE")
    return np.add.reduceat(counts, starts, axis=0)
