"""Were units drawn, or chosen? What can be told from the records alone.

A fixed design takes all sentences of its text, in units of the stated size; only one may be smaller.
Limits that hold at every stopping time hold for the *first* units of the seeded order, however many, and not
for units picked afterwards. A manifest says how many sentences the text has and what a unit is, so that the
units of the whole text, and their order, are known: unit ``u`` of ``block:N`` holds the sentences ``u N`` to
``u N + N - 1`` (``sentence`` is N = 1), spelled in decimal. The records must be exactly those of the first
units of that order, each of them complete.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable

from certify.base.errors import InvalidInputError
from certify.evidence.read import Manifest, Record, unit_rank


def check_drawn(manifest: Manifest, records: Iterable[Record]) -> None:
    """Refuse units that are not those of the text, or not the first ones of the seeded order.

    Args:
        manifest: the manifest. Of a fixed design nothing is known of documents and of windows of a loss.
        records: all its records.

    Raises:
        InvalidInputError: ``EVIDENCE_UNITS``: units of another size than stated. ``EVIDENCE_DRAWN``, naming
            the first unit that should be there and is not, or not completely; or units that are not known
            beforehand (documents, windows of a loss).
    """
    text = manifest.text
    kind, _, size = text.unit.partition(":")
    if manifest.design == "fixed":
        if manifest.kind == "translation" and kind != "document":
            _check_sizes(text.name, int(size or 1), Counter(record.unit for record in records))
        return
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


def _check_sizes(name: str, block: int, found: Counter[str]) -> None:
    total = sum(found.values())
    wanted = [block] * (total // block) + ([total % block] if total % block else [])
    if sorted(found.values(), reverse=True) != wanted:
        raise InvalidInputError(
            f"evidence {name}: {total} sentences in {len(found)} units are not units of {block}",
            code="EVIDENCE_UNITS",
        )
