"""Were units drawn, or chosen? What can be told from the records alone.

A unit holds what its design says: one sentence; N consecutive sentences (``block:N``, of which only the last
unit may hold fewer); or the sentences of a document, wherever they stand. Units of unrelated text
are counted in distinct lines, because windows of one passage share them.

A fixed design takes all sentences of its text, in the order of the text, so that the digest of the text
follows from the records: a sentence that was dropped, or moved to another block, changes it.
Limits that hold at every stopping time hold for the *first* units of the seeded order, however many, and not
for units picked afterwards. A manifest says how many sentences the text has and what a unit is, so that the
units of the whole text, and their order, are known: unit ``u`` of ``block:N`` holds the sentences ``u N`` to
``u N + N - 1`` (``sentence`` is N = 1), spelled in decimal. The records must be exactly those of the first
units of that order, each of them complete.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import chain, groupby
from typing import Final

from certify.base.errors import InvalidInputError
from certify.evidence.read import LossRecord, Manifest, Record, unit_rank
from certify.ticket.corpus import lines_digest

MOST_DRAWN: Final = 1 << 18
"""Largest number of sentences of a text from which units are drawn; the order of all of them is computed."""

LARGEST_SHARE: Final = Fraction(1, 20)
"""Share of a text beyond which one document decides too much for any claim about units (theory §5)."""


def check_drawn(manifest: Manifest, records: Sequence[Record]) -> None:
    """Refuse units that are not those of the text, or not the first ones of the seeded order.

    Args:
        manifest: the manifest.
        records: all its records.

    Raises:
        InvalidInputError: ``EVIDENCE_UNITS``: a unit is no run of records, or of a size other than stated.
            ``EVIDENCE_TEXT``: a fixed design does not hold the text of the digest. ``EVIDENCE_DRAWN``, naming
            the first unit that should be there and is not, or not completely; or units that are not known
            beforehand (documents, windows of a loss).
    """
    units: dict[str, list[Record]] = {}
    for record in records:
        units.setdefault(record.unit, []).append(record)
    lines = [_lines(unit) for unit in units.values()]
    kind, _, size = manifest.text.unit.partition(":")
    runs = sum(1 for _ in groupby(record.unit for record in records))
    if kind != "document" and runs > len(units):
        raise _refused(manifest, "a unit is no run of consecutive records", "EVIDENCE_UNITS")
    if manifest.design == "fixed":
        if kind != "document":
            _check_sizes(manifest, int(size or 1), list(map(len, lines)))
        total = sum(map(len, lines))
        whole = chain.from_iterable(lines) if manifest.kind == "loss" else _lines(records)
        if total != manifest.text.sentences or lines_digest(whole) != manifest.text.sha256:
            text = f"its {total} sentences are not the {manifest.text.sentences} of the text that it names"
            raise _refused(manifest, text, "EVIDENCE_TEXT")
        return
    if manifest.kind != "translation" or kind == "document":
        text = "only sentences and blocks of a translated text can be drawn one by one"
        raise _refused(manifest, text, "EVIDENCE_DRAWN")
    if manifest.text.sentences > MOST_DRAWN:
        raise _refused(manifest, f"its text has more than {MOST_DRAWN} sentences", "EVIDENCE_DRAWN")
    _check_first(manifest, int(size or 1), {name: len(unit) for name, unit in units.items()})


def largest_share(units: Iterable[Sequence[Record]]) -> Fraction:
    """Share of the largest unit in all sentences, or lines of unrelated text."""
    sizes = [len(_lines(unit)) for unit in units]
    return Fraction(max(sizes), sum(sizes))


def _lines(unit: Sequence[Record]) -> tuple[str, ...]:
    """What a unit holds: pairs in their order, or the distinct lines of its windows."""
    losses = [record.lines for record in unit if isinstance(record, LossRecord)]
    if losses:
        return tuple(sorted(frozenset().union(*losses)))
    return tuple(f"{record.source} {record.target}" for record in unit if not isinstance(record, LossRecord))


def _check_sizes(manifest: Manifest, block: int, sizes: Sequence[int]) -> None:
    if any(size != block for size in sizes[:-1]) or max(sizes, default=0) > block:
        text = f"{sum(sizes)} sentences in {len(sizes)} units are not units of {block}"
        raise _refused(manifest, text, "EVIDENCE_UNITS")


def _check_first(manifest: Manifest, block: int, found: dict[str, int]) -> None:
    total, seed = manifest.text.sentences, manifest.order_seed
    # Not sorted as a whole: the number of sentences is only what the manifest says.
    first = heapq.nsmallest(
        len(found), map(str, range(-(-total // block))), key=lambda unit: unit_rank(seed, unit)
    )
    for unit in first:
        complete = min(block, total - int(unit) * block)
        if found.get(unit, 0) != complete:
            text = (
                f"{found.get(unit, 0)} of {complete} sentences of unit {unit} are there, which is among the"
                f" first {len(found)} in the order of seed {seed}: units were picked or left out"
            )
            raise _refused(manifest, text, "EVIDENCE_DRAWN")


def _refused(manifest: Manifest, text: str, code: str) -> InvalidInputError:
    return InvalidInputError(f"evidence {manifest.text.name}: {text}", code=code)
