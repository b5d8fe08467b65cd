"""Were the units of a sequential design drawn, or chosen? What can be told from the records alone.

Limits that hold at every stopping time hold for the *first* units of the seeded order, however many; not for
units picked afterwards. A manifest says how many sentences the text has and what a unit is, so that the units
of the whole text, and their order, are known: unit ``u`` of ``block:N`` holds the sentences ``u N`` to
``u N + N - 1`` (``sentence`` is N = 1), spelled in decimal. The records must be exactly those of the first
units of that order, each of them complete.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable

from certify.errors import InvalidInputError
from certify.evidence import Manifest, Record, unit_rank


def check_drawn(manifest: Manifest, records: Iterable[Record]) -> None:
    """Refuse a sequential design whose units are not the first ones of the seeded order.

    Args:
        manifest: the manifest; a fixed design is always accepted.
        records: all its records.

    Raises:
        InvalidInputError: ``EVIDENCE_DRAWN``, naming the first unit that should be there and is not, or not
            completely; or units that are not known beforehand (documents, windows of a loss).
    """
    if manifest.design == "fixed":
        return
    text = manifest.text
    kind, _, size = text.unit.partition(":")
    if manifest.kind != "translation" or kind == "document":
        raise InvalidInputError(
            f"evidence {text.name}: only sentences and blocks of a translated text can be drawn one by one",
            code="EVIDENCE_DRAWN",
        )
    block = int(size or 1)
    found = Counter(record.unit for record in records)
    # Not sorted as a whole: the number of sentences is only what the manifest says.
    first = heapq.nsmallest(
        len(found),
        map(str, range(-(-text.sentences // block))),
        key=lambda unit: unit_rank(manifest.order_seed, unit),
    )
    for unit in first:
        complete = min(block, text.sentences - int(unit) * block)
        if found[unit] != complete:
            raise InvalidInputError(
                f"evidence {text.name}: {found[unit]} of {complete} sentences of unit {unit} are there, which"
                f" is among the first {len(found)} in the order of seed {manifest.order_seed}: units were"
                " picked or left out",
                code="EVIDENCE_DRAWN",
            )
