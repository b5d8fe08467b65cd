"""Compare the overlap of tickets with chance and, across languages, with that of seeds (theory §6.7).

There are two references. *Chance*: random sets of the same sizes, drawn from the rows that could have been
chosen; the number of shared rows is hypergeometric. Tickets prefer frequent tokens, so plain chance is a weak
opponent. Within *strata* of similar frequency the distribution is the convolution of one hypergeometric
distribution per stratum. *Seeds*: tickets of one language that differ only in the seed of tuning. No claim
about overlap between languages can exceed that ceiling.

The p-values are descriptive. No decision depends on them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from certify.base.errors import NothingToDoError, UsageError

_LEAST = float(np.nextafter(0.0, 1.0))


@dataclass(frozen=True, slots=True)
class TicketOverlap:
    """Overlap of two tickets.

    Attributes:
        sizes: number of rows of the first and of the second ticket, both at least 1.
        candidates: number of rows that could have been chosen.
        expected: mean of ``shared`` for random sets of these sizes (within each stratum, if there are any).
        p: probability that such sets share at least ``shared`` rows, rounded up: never below the smallest
            positive float.
    """

    sizes: tuple[int, int]
    shared: int
    candidates: int
    expected: Fraction
    p: float

    @property
    def jaccard(self) -> Fraction:
        """Shared rows over rows in either, in [0, 1]."""
        return Fraction(self.shared, sum(self.sizes) - self.shared)

    @property
    def coefficient(self) -> Fraction:
        """Overlap coefficient: shared rows over rows of the smaller ticket, in [0, 1]."""
        return Fraction(self.shared, min(self.sizes))


def compare(
    first: Collection[int],
    second: Collection[int],
    candidates: Collection[int],
    *,
    strata: Sequence[int] | NDArray[np.int64] | None = None,
) -> TicketOverlap:
    """Compare two tickets with each other and with random sets.

    Args:
        candidates: distinct ids that both could have been chosen from
            (:func:`certify.selection.rules.candidates`).
        strata: stratum of every candidate, indexed by id (:func:`certify.selection.nulls.frequency_strata`);
            None for a single stratum.

    Raises:
        UsageError: a ticket is empty, an id occurs twice, or an id is not a candidate.
    """
    from scipy.stats import hypergeom  # takes half a second to load

    pool = _distinct(candidates, "the candidates")
    left, right = _distinct(first, "the first ticket"), _distinct(second, "the second ticket")
    strange = (left | right) - pool
    if strange:
        raise UsageError(f"id {min(strange)} of a ticket is not among the candidates", code="ID_EXCLUDED")
    of = {i: 0 if strata is None else int(strata[i]) for i in pool}
    in_pool, in_left, in_right = (Counter(of[i] for i in ids) for ids in (pool, left, right))
    expected = Fraction(0)
    law = np.ones(1)
    for stratum, size in sorted(in_pool.items()):
        a, b = in_left[stratum], in_right[stratum]
        expected += Fraction(a * b, size)
        # Probabilities that random sets of a and b of these rows share 0, 1, … min(a, b) rows.
        law = np.convolve(law, hypergeom.pmf(np.arange(min(a, b) + 1), size, a, b))
    shared = len(left & right)
    tail = float(np.sum(law[shared:][::-1]))  # small terms first
    p = min(1.0, max(tail, _LEAST))
    return TicketOverlap((len(left), len(right)), shared, len(pool), expected, p)


@dataclass(frozen=True, slots=True)
class TicketPair:
    """Two tickets of a study: (language, seed) of each, and their overlap."""

    first: tuple[str, int]
    second: tuple[str, int]
    overlap: TicketOverlap


@dataclass(frozen=True, slots=True)
class Study:
    """Overlap between seeds of one language, and between languages.

    Attributes:
        within: all pairs of seeds of the same language.
        across: all pairs of tickets of different languages.
    """

    within: tuple[TicketPair, ...]
    across: tuple[TicketPair, ...]

    @property
    def ceiling(self) -> Fraction | None:
        """Mean Jaccard index between seeds; languages count equally. None if no language has two seeds."""
        return _mean(self.within)

    @property
    def agreement(self) -> Fraction | None:
        """Mean Jaccard index between languages; pairs of languages count equally. None for one language."""
        return _mean(self.across)

    @property
    def ratio(self) -> Fraction | None:
        """Agreement over ceiling: 1 means that languages agree as well as seeds. None if either is None."""
        ceiling, agreement = self.ceiling, self.agreement
        return None if not ceiling or agreement is None else agreement / ceiling


def study(
    tickets: Mapping[str, Mapping[int, Collection[int]]],
    candidates: Collection[int],
    *,
    strata: Sequence[int] | NDArray[np.int64] | None = None,
) -> Study:
    """Compare all tickets of several languages and seeds.

    Args:
        tickets: language -> seed -> ids.

    Raises:
        NothingToDoError: there are fewer than two tickets.
    """
    named = [(language, seed) for language in sorted(tickets) for seed in sorted(tickets[language])]
    if len(named) < 2:
        raise NothingToDoError("overlap needs two tickets", code="NO_TICKETS")
    within: list[TicketPair] = []
    across: list[TicketPair] = []
    for first, second in combinations(named, 2):
        left, right = tickets[first[0]][first[1]], tickets[second[0]][second[1]]
        found = TicketPair(first, second, compare(left, right, candidates, strata=strata))
        (within if first[0] == second[0] else across).append(found)
    return Study(tuple(within), tuple(across))


def _mean(comparisons: Iterable[TicketPair]) -> Fraction | None:
    groups: dict[tuple[str, str], list[Fraction]] = {}
    for comparison in comparisons:
        key = (comparison.first[0], comparison.second[0])
        groups.setdefault(key, []).append(comparison.overlap.jaccard)
    means = [sum(group, Fraction(0)) / len(group) for group in groups.values()]
    return sum(means, Fraction(0)) / len(means) if means else None


def _distinct(ids: Collection[int], what: str) -> frozenset[int]:
    found = frozenset(int(i) for i in ids)
    if not found:
        raise UsageError(f"{what}: no ids", code="TICKET_EMPTY")
    if len(found) != len(ids):
        raise UsageError(f"{what}: an id is named twice", code="ID_DUPLICATE")
    return found
