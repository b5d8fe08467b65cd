"""Scores of sentences: sacreBLEU's sentence chrF with character order 6, word order 2 and beta 2.

Computed from the statistics of the records and rounded down to multiples of ``2**-32`` points, in integers;
the score of a unit is the mean over its records, rounded down again.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import islice
from typing import Final

from certify.base.records import RULES, Rule
from certify.evidence.load import Evidence
from certify.stats.limits import GRID_BITS

SCORE: Final = "sentence-chrF/c6w2b2r32"
"""Name of the score in signatures: character order 6, word order 2, beta 2, rounded down to 32 bits."""

POINT: Final = 1 << GRID_BITS
"""One chrF point: scores are integers, in multiples of ``2**-32`` points."""

LEAST_GAIN: Final = Fraction(1, 10)
"""Points of chrF that a gain must have for a share of it to be given."""

_CHRF = slice(10, 34)


def sentence_chrf(vector: Sequence[int]) -> int:
    """Sentence chrF in multiples of ``2**-32`` points, rounded down, from 0 to ``100 * POINT``.

    ``vector[10:34]`` holds (hypothesis n-grams, reference n-grams, matches) for each of the 8 orders. Over
    the k orders with n-grams on both sides, precision and recall are averaged, then
    ``F = 5 P R / (4 P + R)``; 0 if k = 0 or nothing matches.
    """
    # P = p/(k h) and R = q/(k r), with h and r the products of all counts: one division at the end.
    p = q = 0
    h = r = 1
    k = 0
    counts = vector[_CHRF]
    for hypothesis, reference, match in zip(counts[::3], counts[1::3], counts[2::3], strict=True):
        if hypothesis and reference:
            p, h = p * hypothesis + match * h, h * hypothesis
            q, r = q * reference + match * r, r * reference
            k += 1
    if not p or not q:
        return 0
    return (500 * p * q << GRID_BITS) // (k * (4 * p * r + q * h))


def unit_scores(evidence: Evidence, arm: str, rule: Rule) -> tuple[int, ...]:
    """Mean sentence chrF of one arm under one rule over the records of each unit, in their order.

    In multiples of ``2**-32`` points, rounded down.
    """
    known = evidence.scores.get((arm, rule), ())
    if len(known) == len(evidence.units):
        return known
    index = RULES.index(rule)
    found = []
    for records in islice(evidence.units.values(), len(known), None):
        answers = [record.arms[arm] for record in records]
        found.append(sum(sentence_chrf(one.stats[one.rules[index]]) for one in answers) // len(answers))
    evidence.scores[arm, rule] = (*known, *found)
    return evidence.scores[arm, rule]


def mean_score(evidence: Evidence, arm: str, rule: Rule) -> Fraction:
    """Unweighted mean over units of their scores, in [0, 100]."""
    scores = unit_scores(evidence, arm, rule)
    return Fraction(sum(scores), len(scores) * POINT)


def share_gone(gain: Fraction, whole: Fraction) -> Fraction | None:
    """The part of a gain on whole outputs that is gone under another rule, ``1 - gain / whole``.

    None unless ``whole`` is at least :data:`LEAST_GAIN`: the ratio to next to nothing says nothing.
    """
    return 1 - gain / whole if whole >= LEAST_GAIN else None
