"""From a ticket and its verified tables to the subject of claims: its table, and the distances to E*.

Claims compare digests only. Here they are computed, from base, reference and released rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from certify.base.errors import InvalidInputError
from certify.base.records import KSResult
from certify.evidence.choice_record import read_calibration, read_choice
from certify.evidence.distances import Distances
from certify.evidence.load import Evidence, Subject
from certify.evidence.null_labels import Labels
from certify.scan import engine_numpy
from certify.scan.columns import Columns
from certify.selection.nulls import bos_ids, newline_ids
from certify.selection.rules import candidates
from certify.tables.rowfile import Rows, transferred_rows
from certify.tables.table import Table
from certify.tables.vocabulary import Vocabulary
from certify.ticket.schema import Ticket
from certify.ticket.transfer import table_digest


def make_subject(
    ticket: Ticket,
    base: Table,
    reference: Table,
    rows: Rows,
    result: KSResult,
    labels: Labels | None = None,
    digest: Callable[[Table, Rows], str] = table_digest,
) -> Subject:
    """The subject of claims about ``ticket``; every argument verified against it beforehand.

    Distances are between the ticket's table and E*: outside the ticket those of the scan of E⁰ and E*, inside
    those of the released rows, so that rows of a faithful transfer drop out and tuned rows stay.

    Args:
        ticket: the ticket.
        base: E⁰ in the served dtype.
        reference: E*, likewise.
        rows: the released rows.
        result: scan of ``base`` and ``reference``.
        labels: see :func:`make_labels`; whoever decides anything about null tickets must give them.
        digest: :func:`certify.ticket.transfer.table_digest`, or one that remembers.
    """
    inside = Columns.zeros(len(ticket.ids))
    if ticket.ids:
        engine_numpy.compare(rows.served, reference.take(ticket.ids), base.dtype, inside)
    differing = np.flatnonzero(~result.equal)
    counts = {int(token): int(result.h[token]) for token in differing}
    for token, equal, h in zip(ticket.ids, inside.equal, inside.h, strict=True):
        counts.pop(token, None)
        if not equal:
            counts[token] = int(h)
    return Subject(
        ticket=ticket,
        table_sha256=digest(base, rows),
        distances=Distances(result.n, dict(sorted(counts.items()))),
        labels=labels,
    )


def with_records(subject: Subject, folder: Path) -> Subject:
    """The subject with the records of choosing its ticket and its margin, if the ticket binds them.

    Args:
        subject: the subject.
        folder: the folder of its ticket file.

    Raises:
        InvalidInputError, UsageError: see :func:`certify.evidence.choice_record.read_choice` and
            :func:`certify.evidence.choice_record.read_calibration`.
    """
    choice, on = read_choice(subject.ticket, folder), read_calibration(subject.ticket, folder)
    return replace(subject, choice=choice, calibrated_on=on)


def make_labels(result: KSResult, vocabulary: Vocabulary | None) -> Labels:
    """What labels of null tickets are judged by: the scan of all rows and the ticket's tokenizer.

    Without a tokenizer no id begins a sequence or spells a line break: those null tickets are refused.

    Raises:
        InvalidInputError: the tokenizer is larger than the table (``TOKENIZER_TABLE_SIZE``).
    """
    return Labels(
        pool=frozenset(np.flatnonzero(candidates(result.rows, vocabulary)).tolist()),
        norms={int(i): float(result.shift_norm[i]) for i in np.flatnonzero(~result.equal)},
        bos=bos_ids(vocabulary) if vocabulary else (),
        newline=newline_ids(vocabulary) if vocabulary else (),
    )


def check_transfers(
    evidence: Sequence[Evidence],
    base: Table,
    reference: Table,
    digest: Callable[[Table, Rows], str] = table_digest,
) -> int:
    """Recompute the table of every arm of kind ``transfer`` from base, reference and its ids.

    So a null ticket cannot be made worse than it is: its rows are E*'s or the evidence is refused.

    Returns:
        The number of arms.

    Raises:
        InvalidInputError: an arm's table is not the base with these rows of the reference (``ARM_TABLE``).
    """
    known: dict[tuple[int, ...], str] = {}
    checked = 0
    for one in evidence:
        for arm in one.manifest.arms:
            if arm.kind != "transfer" or arm.ids is None:
                continue
            if arm.ids not in known:
                known[arm.ids] = digest(base, transferred_rows(arm.ids, reference))
            if known[arm.ids] != arm.table_sha256:
                raise InvalidInputError(
                    f"evidence {one.manifest.text.name}: the table of arm {arm.name} is not the base with the"
                    " reference's rows put in",
                    code="ARM_TABLE",
                )
            checked += 1
    return checked
