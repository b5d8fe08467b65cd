"""Exhaustive search through laws with masses in multiples of 1/n, in integers.

Two tools: :func:`scan_line` for one coordinate, where the pairs that meet a criterion are a box around
each law in CDF coordinates, and :func:`scan_product` for several. Both count the *non-vacuous* cases: pairs
of different laws that meet the criterion. A violation is one where A is not the only winner afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, combinations, pairwise, product
from math import prod
from operator import itemgetter

from certify.base.errors import InternalError
from proofs_checks.theory.finite import CERTIFIED, Change, Combine, joined, law, rivals, score, variations


@dataclass(frozen=True, slots=True)
class Tally:
    """What an exhaustive search met.

    ``cases`` are pairs of different laws that meet the criterion (or, for the inequality, all of them),
    ``violations`` those where the conclusion is false, the first being the ``witness``, and ``attained``
    those where the inequality holds with equality.
    """

    cases: int = 0
    violations: int = 0
    attained: int = 0
    witness: Change | None = None

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.cases + other.cases,
            self.violations + other.violations,
            self.attained + other.attained,
            self.witness or other.witness,
        )


def compositions(n: int, parts: int) -> Iterator[tuple[int, ...]]:
    """All ways to place ``n`` samples on ``parts`` ordered atoms; C(n + parts - 1, parts - 1) of them."""
    end = n + parts - 1
    for bars in combinations(range(end), parts - 1):
        yield tuple(right - left - 1 for left, right in pairwise((-1, *bars, end)))


def scan_line(labels: str, n: int, multiplier: int, *, strict: bool = True) -> Tally:
    """Try the criterion ``r > multiplier * D`` on every pair of laws with masses in multiples of 1/n.

    ``labels`` has the winning class of each atom; A and a rival must occur. With ``strict`` False the
    criterion is ``r >= multiplier * D`` (and r > 0). Counted are ordered pairs.
    """
    if multiplier < 1 or n < 1 or not rivals(labels) or CERTIFIED not in labels:
        raise ValueError("the scan needs A, a rival, samples and a positive multiplier")
    parts = len(labels)
    # A law is its CDF (F_1, ..., F_{m-1}) in 0..n; h(P, Q) is the largest |difference|, so that the laws
    # within h of P are a cube. Digits are padded by the largest reach: a step never carries.
    reach = n // multiplier
    base = n + 1 + 2 * reach
    strides = [base**i for i in range(parts - 2, -1, -1)]
    kind = bytearray(base ** (parts - 1))
    places: dict[int, tuple[int, ...]] = {}
    leading: list[tuple[int, int]] = []
    columns = [[i for i, label in enumerate(labels) if label == c] for c in (CERTIFIED, *rivals(labels))]
    for counts in compositions(n, parts):
        own, *theirs = (sum(counts[i] for i in column) for column in columns)
        margin = own - max(theirs)
        cdf = list(accumulate(counts))[:-1]
        code = sum((f + reach) * stride for f, stride in zip(cdf, strides, strict=True))
        places[code] = counts
        kind[code] = 1 if margin > 0 else 2
        if margin > 0:
            leading.append((code, margin))
    starts = {
        radius: [
            sum(d * stride for d, stride in zip(step, strides[:-1], strict=True)) - radius
            for step in product(range(-radius, radius + 1), repeat=parts - 2)
        ]
        for radius in range(1, reach + 1)
    }
    kept = lost = 0
    witness = None
    for code, margin in leading:
        radius = (margin - strict) // multiplier
        width = 2 * radius + 1
        for start in starts.get(radius, ()):
            row = kind[code + start : code + start + width]
            kept += row.count(1)
            found = row.count(2)
            if found and witness is None:
                other = places[code + start + row.index(2)]
                witness = Change(labels, (law(places[code]),), (law(other),))
            lost += found
        kept -= radius > 0  # the law itself
    _confirm(witness, strict, multiplier=multiplier)
    return Tally(kept + lost, lost, witness=witness)


def _confirm(
    change: Change | None, strict: bool = True, *, combine: Combine = "sum", multiplier: int | None = None
) -> None:
    """Judge a violation by the definitions, in Fractions: integers and definitions must tell the same."""
    if change is None:
        return
    slack = change.slack(combine=combine, multiplier=multiplier)
    met = slack > 0 if strict else slack >= 0
    if not (met and change.lead_before > 0 >= change.lead_after):
        raise InternalError(f"the search and the definitions disagree on {change}", code="WITNESS_REFUTED")


@dataclass(frozen=True, slots=True)
class _Products:
    """All product laws on a grid with masses in multiples of 1/n per coordinate.

    Attributes:
        laws: counts per coordinate, for each state.
        weights: n^k times the mass of each cell, for each state.
        shells: for each state, the other states grouped by their distances (h_1, ..., h_k).
        gaps: all such distances.
        scale: what turns sums of V_j h_j into the unit of the weights, n^(k-1).
    """

    laws: tuple[tuple[tuple[int, ...], ...], ...]
    weights: tuple[tuple[int, ...], ...]
    shells: tuple[dict[tuple[int, ...], tuple[int, ...]], ...]
    gaps: frozenset[tuple[int, ...]]
    scale: int

    def bounds(self, factors: tuple[int, ...], combine: Combine) -> dict[tuple[int, ...], int]:
        """The joined V_j D_j at each distance, in the unit of the weights."""
        return {
            gap: self.scale * joined([v * h for v, h in zip(factors, gap, strict=True)], combine)
            for gap in self.gaps
        }


@lru_cache(maxsize=16)
def _products(shape: tuple[int, ...], n: int) -> _Products:
    axes = [list(compositions(n, size)) for size in shape]
    gaps = [
        [
            [max(abs(a - b) for a, b in zip(accumulate(p), accumulate(q), strict=True)) for q in axis]
            for p in axis
        ]
        for axis in axes
    ]
    states = list(product(*(range(len(axis)) for axis in axes)))
    shells = []
    for state in states:
        shell: dict[tuple[int, ...], list[int]] = {}
        for number, other in enumerate(states):
            key = tuple(gap[i][j] for gap, i, j in zip(gaps, state, other, strict=True))
            shell.setdefault(key, []).append(number)
        shells.append({key: tuple(members) for key, members in shell.items() if any(key)})
    laws = tuple(tuple(axis[i] for axis, i in zip(axes, state, strict=True)) for state in states)
    weights = tuple(tuple(prod(cell) for cell in product(*counts)) for counts in laws)
    return _Products(laws, weights, tuple(shells), frozenset().union(*shells), n ** (len(shape) - 1))


def scan_product(shape: tuple[int, ...], labels: str, n: int, *, combine: Combine = "sum") -> Tally:
    """Try the corollary of theory §4 on every pair of product laws with ``n`` samples per coordinate.

    ``shape`` has the atoms per coordinate, ``labels`` the winning class of each cell, last coordinate
    fastest.
    """
    space = _products(shape, n)
    scores = [score(labels, c) for c in rivals(labels)]
    bounds = [space.bounds(variations(values, shape), combine) for values in scores]
    margins = [
        [sum(w * v for w, v in zip(weights, values, strict=True)) for values in scores]
        for weights in space.weights
    ]
    behind = bytes(min(margin) <= 0 for margin in margins)
    cases = violations = 0
    witness = None
    for state, margin in enumerate(margins):
        if behind[state]:
            continue
        for gap, others in space.shells[state].items():
            if any(own <= bound[gap] for own, bound in zip(margin, bounds, strict=True)):
                continue
            cases += len(others)
            lost = sum(itemgetter(*others)(behind)) if len(others) > 1 else behind[others[0]]
            violations += lost
            if lost and witness is None:
                other = next(i for i in others if behind[i])
                before, after = (tuple(map(law, space.laws[place])) for place in (state, other))
                witness = Change(labels, before, after)
    _confirm(witness, combine=combine)
    return Tally(cases, violations, witness=witness)


def scan_inequality(
    shape: tuple[int, ...], n: int, values: tuple[int, ...], *, combine: Combine = "sum"
) -> tuple[Tally, tuple[int, ...] | None]:
    """Try ``|E s(X) - E s(Y)| <= sum_j V_j D_j`` for every function s on a grid and every pair of laws.

    s takes these ``values``. Returns counts (``attained``: equality with every D_j > 0), and the first s that
    violates it.
    """
    space = _products(shape, n)
    cases = violations = attained = 0
    guilty = None
    for function in product(values, repeat=prod(shape)):
        bounds = space.bounds(variations(function, shape), combine)
        means = [sum(w * v for w, v in zip(weights, function, strict=True)) for weights in space.weights]
        for mean, shell in zip(means, space.shells, strict=True):
            for gap, others in shell.items():
                bound = bounds[gap]
                # Every pair comes up in both orders: one direction of the inequality is enough.
                losses = [mean - means[i] for i in others]
                cases += len(losses)
                if max(losses) >= bound:
                    above = sum(loss > bound for loss in losses)
                    violations += above
                    if above and guilty is None:
                        guilty = function
                    if bound and all(gap):
                        attained += losses.count(bound)
    return Tally(cases, violations, attained), guilty
