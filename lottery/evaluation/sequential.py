"""Evaluate until everything is decided: units in a seeded order, one batch at a time (theory §5).

Units are drawn in ascending order of :func:`certify.evidence.read.unit_rank`, the order in which bounds by
betting count them. After every batch all arms have the same units, and evidence of design ``sequential``
about exactly these is written. The stopping rule reads the same file as everyone else. The evidence is valid
wherever the run ends, because the limits used for decisions hold at every stopping time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from certify.base.errors import UsageError
from certify.evidence.read import Manifest, unit_rank
from lottery.evaluation.assemble import Assembly
from lottery.evaluation.prompts import Task
from lottery.evaluation.shards import Part

Decided = Callable[[Path], bool]
"""Stopping rule: given the path of the evidence, whether everything is decided."""


def looks(
    units: Sequence[str], *, order_seed: int, batch: int, max_units: int | None = None
) -> Iterator[list[int]]:
    """Yield the sentences known after each batch of units: growing lists of increasing indices.

    Args:
        batch: smallest number of sentences in a batch of whole units, except at the end of the text.

    Raises:
        UsageError: ``batch`` or ``max_units`` is below 1 (``UNITS_RANGE``).
    """
    if batch < 1 or (max_units is not None and max_units < 1):
        raise UsageError("the batch and the number of units must be at least 1", code="UNITS_RANGE")
    members: dict[str, list[int]] = {}
    for index, unit in enumerate(units):
        members.setdefault(unit, []).append(index)
    order = sorted(members, key=lambda unit: unit_rank(order_seed, unit))[:max_units]
    known: list[int] = []
    shown = 0
    for number, unit in enumerate(order, 1):
        known += members[unit]
        if len(known) - shown >= batch or number == len(order):
            shown = len(known)
            yield sorted(known)


def evaluate_until(
    task: Task,
    evidence: Assembly,
    out: Path,
    measured: Callable[[Mapping[str, Part], Sequence[int]], dict[str, Part]],
    *,
    decided: Decided,
    order_seed: int,
    max_units: int | None,
    progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Measure all arms on more and more units, until ``decided`` returns True or the units end.

    The last manifest is returned.

    Args:
        evidence: writes ``out`` anew after every batch.
        measured: measures all arms on some sentences, given the open parts of the batch before.
        progress: called with (sentences known, sentences of the text) after every batch.

    Raises:
        UsageError, InvalidInputError: see :func:`lottery.evaluation.measure.measure` and
            :meth:`lottery.evaluation.assemble.Assembly.add`. Errors of ``decided`` pass through.
    """
    manifest: Manifest | None = None
    parts: dict[str, Part] = {}
    written: set[int] = set()
    for known in looks(task.units, order_seed=order_seed, batch=task.batch_size, max_units=max_units):
        parts = measured(parts, known)
        manifest = evidence.add(parts, [index for index in known if index not in written])
        written.update(known)
        if progress is not None:
            progress(len(known), len(task.pairs))
        if decided(out):
            break
    if manifest is None:
        raise UsageError("there are no units to draw", code="UNITS_RANGE")
    return manifest
