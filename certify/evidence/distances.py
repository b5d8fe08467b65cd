"""Decisions of E* along its own output, each with what a criterion sees of it and what the arm decides.

Definitions, exact to the last digit:

* *Distances* of a table to E*: the rows that differ from E*'s row bit for bit, with ``h``, and ``d``.
* ``N`` at step t of a record: the ids of ``prompt`` and ``reference.tokens[:t]`` that are among these rows.
* *Margin* at a step: ``max(0, p_a - p_b)`` in units of 1e-9.
* *Disagrees*: the step occurs in the arm's ``differs``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, NamedTuple

from certify.evidence.read import TranslationRecord
from certify.stats.theorem import DEFAULT_VARIATION, above_tau

QUANTILES: Final = (0, 10, 25, 50, 75, 90, 100)
"""Percentiles that describe how margins compare with what the criteria ask for."""

_SHOWN_ROWS = 5


@dataclass(frozen=True, slots=True)
class Distances:
    """KS distances of a table to E*, of the rows that differ from E*'s bit for bit.

    Attributes:
        d: entries per row.
        h: count ``h`` in ``0..d`` by id; a row may differ and have h = 0 (a permuted row).
    """

    d: int
    h: Mapping[int, int]

    def __post_init__(self) -> None:
        if self.d < 1 or any(not 0 <= count <= self.d for count in self.h.values()):
            raise ValueError("counts must lie in 0..d with d >= 1")

    def premise(self, alpha: Fraction) -> tuple[int, ...]:
        """Ids of the rows with D > tau(alpha), increasing; the published premise holds if there are none."""
        above = {count for count in set(self.h.values()) if above_tau(count, self.d, alpha)}
        return tuple(sorted(token for token, count in self.h.items() if count in above))


class Step(NamedTuple):
    """One decision of E* and what a criterion sees of it.

    Attributes:
        record: the record.
        t: the position in ``reference.tokens``.
        margin: ``max(0, p_a - p_b)`` in units of 1e-9.
        largest: largest h over N; 0 if N is empty.
        total: sum of h over N.
        changed: number of ids in N.
        expected: the argmax of E*.
        actual: the argmax of the arm.
        labels: of the arm along the path (:func:`certify.stats.path.encode`); None without one.
    """

    record: TranslationRecord
    t: int
    margin: int
    largest: int
    total: int
    changed: int
    expected: int
    actual: int
    labels: str | None = None

    def __repr__(self) -> str:
        return f"Step{self[1:]}"  # a record fills a page

    @property
    def disagrees(self) -> bool:
        """The arm decides differently from E*."""
        return self.expected != self.actual


@dataclass(frozen=True, slots=True)
class Violation:
    """A certified step at which the arm disagrees: what a replay on the model re-executes.

    Attributes:
        step: the step.
        rows: the (id, h) of N with the largest h, at most five; ties by id.
    """

    step: Step
    rows: tuple[tuple[int, int], ...]


Units = Mapping[str, tuple[Step, ...]]
"""Steps by unit, units and the records within them in the order of the evidence."""


def measure(
    units: Mapping[str, Sequence[TranslationRecord]], arm: str, distances: Distances
) -> dict[str, tuple[Step, ...]]:
    """Every step of every record under one arm.

    Args:
        units: records by unit, in record order within a unit; the order of units is kept.
        arm: name of the arm that is compared with the reference.
        distances: of the arm's table to E*.
    """
    return {
        unit: tuple(step for record in records for step in _steps(record, arm, distances))
        for unit, records in units.items()
    }


def _steps(record: TranslationRecord, arm: str, distances: Distances) -> Iterator[Step]:
    reference = record.reference
    expected = reference.argmaxes()
    actual, path = dict(record.arms[arm].differs), record.arms[arm].path
    fed: set[int] = set()
    largest = total = changed = 0
    new: Iterable[int] = record.prompt
    for t, token in enumerate(reference.tokens):
        for other in new:
            if other not in fed:
                fed.add(other)
                if other in distances.h:
                    h = distances.h[other]
                    largest, total, changed = max(largest, h), total + h, changed + 1
        said, labels = actual.get(t, expected[t]), None if path is None else path[t]
        yield Step(record, t, reference.margin(t), largest, total, changed, expected[t], said, labels)
        new = (token,)


def violation(step: Step, distances: Distances) -> Violation:
    """A disagreeing step with the rows of N that moved most."""
    fed = {*step.record.prompt, *step.record.reference.tokens[: step.t]}
    rows = sorted((-distances.h[token], token) for token in fed if token in distances.h)
    return Violation(step, tuple((token, -h) for h, token in rows[:_SHOWN_ROWS]))


@dataclass(frozen=True, slots=True)
class Margins:
    """How margins compare with thresholds: percentiles :data:`QUANTILES` over all steps.

    The percentile q of n sorted values is the one in place ``max(1, ceil(q n / 100))``, counted from 1.

    Attributes:
        steps: number of steps.
        r: margins, in units of 1e-9.
        twice_largest: ``2 max_N D``, the threshold of ``measured-max``.
        v_total: ``V sum_N D``, the threshold of ``additive``.
        changed: number of ids in N.
    """

    steps: int
    r: tuple[int, ...]
    twice_largest: tuple[Fraction, ...]
    v_total: tuple[Fraction, ...]
    changed: tuple[int, ...]


def margins(units: Units, d: int, *, v: int = DEFAULT_VARIATION) -> Margins:
    """Percentiles of margins and thresholds over all steps; d entries per row."""
    steps = [step for unit in units.values() for step in unit]
    return Margins(
        steps=len(steps),
        r=_percentiles([step.margin for step in steps]),
        twice_largest=tuple(Fraction(2 * h, d) for h in _percentiles([step.largest for step in steps])),
        v_total=tuple(Fraction(v * h, d) for h in _percentiles([step.total for step in steps])),
        changed=_percentiles([step.changed for step in steps]),
    )


def _percentiles(values: list[int]) -> tuple[int, ...]:
    values = sorted(values)
    return tuple(values[max(1, -(-q * len(values) // 100)) - 1] for q in QUANTILES) if values else ()
