"""Verify what a checkpoint serves, row by row: the certified rows in the ticket, the base's everywhere else.

Equality is bit for bit in the served dtype. torch is not needed. Only the input embedding table is read; the
claim does not cover any other tensor of the checkpoint.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from certify.base.errors import ExitCode
from certify.base.records import Dtype
from certify.tables.dtypes import storage_bits
from certify.tables.rowfile import Rows
from certify.tables.table import BLOCK_BYTES, Table, open_table
from certify.ticket.released import Source, open_base, open_reference, open_rows, shown

SERVED_SCHEMA: Final = "certify.served"
SERVED_SCHEMA_VERSION: Final = 1
FindingCode = Literal[
    "ADAPTER_IN_FOLDER",
    "ALTERED",
    "DTYPE",
    "EXTRA_ROWS",
    "FOREIGN",
    "MISSING_ROWS",
    "NOT_SERVED",
    "TIED",
    "WIDTH",
]


@dataclass(frozen=True, slots=True)
class RowComparison:
    """Comparison of a table with a base and the certified rows. All tuples contain increasing ids.

    Attributes:
        rows: number of compared rows, which base and served table both have.
        served: ticket rows with the certified bits.
        not_served: ticket rows that still have the base's bits, although the certified ones differ.
        altered: ticket rows with neither.
        foreign: rows outside the ticket that differ from the base's.
        inert: ticket rows whose certified bits equal the base's, so serving them has no effect.
    """

    rows: int
    served: tuple[int, ...]
    not_served: tuple[int, ...]
    altered: tuple[int, ...]
    foreign: tuple[int, ...]
    inert: tuple[int, ...]

    @property
    def faithful(self) -> bool:
        """Whether every ticket row is the certified one and every other row is the base's."""
        return not (self.not_served or self.altered or self.foreign)


@dataclass(frozen=True, slots=True)
class ServingFinding:
    """One reason why a checkpoint does not serve the ticket: stable code, one line, affected rows."""

    code: FindingCode
    message: str
    ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ServedReport:
    """Result of :func:`verify`.

    Attributes:
        ticket: id of the ticket.
        ticket_sha256: digest of what the ticket asserts.
        object: what the ticket releases, ``transfer`` or ``tuned``.
        served: path of the checkpoint, as the caller named it.
        tensor: name of the table inside it.
        dtype: dtype in which the checkpoint stores the table.
        shape: ``(rows, width)`` of the served table.
        tied: whether the output head is tied to the table; None if unknown.
        base_sha256: tensor digest of the base in the served dtype.
        rows_sha256: tensor digest of the certified rows in the served dtype, as the ticket records it.
        served_sha256: tensor digest of the served table.
        comparison: comparison of rows; None if dtype or width already differ.
        findings: reasons for refuting; empty exactly if the checkpoint serves the ticket.
        notes: further remarks for the reader; they do not decide.
    """

    ticket: str
    ticket_sha256: str
    object: str
    served: str
    tensor: str
    dtype: Dtype
    shape: tuple[int, int]
    tied: bool | None
    base_sha256: str
    rows_sha256: str | None
    served_sha256: str
    comparison: RowComparison | None
    findings: tuple[ServingFinding, ...] = field(default=())
    notes: tuple[str, ...] = field(default=())

    @property
    def verified(self) -> bool:
        """Whether the checkpoint serves the certified rows, and the base's rows everywhere else."""
        return not self.findings and self.comparison is not None and self.comparison.faithful

    @property
    def exit_code(self) -> ExitCode:
        """0 if verified, 1 otherwise."""
        return ExitCode.CERTIFIED if self.verified else ExitCode.REFUTED

    def to_json(self) -> dict[str, Any]:
        """Convert the report to plain JSON values, with schema, version and status."""
        head = {"schema": SERVED_SCHEMA, "schema_version": SERVED_SCHEMA_VERSION}
        return {**head, "status": "verified" if self.verified else "refuted", **asdict(self)}


def compare(base: Table, served: Table, rows: Rows) -> RowComparison:
    """Compare ``served`` bit for bit with ``base`` in which the ticket's rows are replaced by ``rows``.

    Args:
        base: E⁰ ``[V, d]``, in the dtype of ``rows``.
        served: ``[V', d]`` in the same dtype; the first ``min(V, V')`` rows are compared.
        rows: certified rows ``[k, d]``.

    Raises:
        ValueError: widths or dtypes differ. The caller checks them, because they have their own messages.
    """
    if (
        not base.dtype == served.dtype == rows.dtype
        or not base.shape[1] == served.shape[1] == rows.served.shape[1]
    ):
        raise ValueError("tables of different dtype or width cannot be compared row by row")
    common = min(base.shape[0], served.shape[0])
    ids = rows.ids[rows.ids < common]
    certified = storage_bits(rows.served)
    step = max(1, BLOCK_BYTES // (base.shape[1] * rows.served.dtype.itemsize))
    inert: list[int] = []
    not_served: list[int] = []
    altered: list[int] = []
    foreign: list[int] = []
    for start in range(0, common, step):
        stop = min(start + step, common)
        original, found = storage_bits(base.rows(start, stop)), storage_bits(served.rows(start, stop))
        first, last = np.searchsorted(ids, (start, stop))
        inside = ids[first:last] - start
        moves = (certified[first:last] != original[inside]).any(axis=1)
        wrong = (certified[first:last] != found[inside]).any(axis=1)
        left = (original[inside] == found[inside]).all(axis=1)
        inert += (start + inside[~moves]).tolist()
        not_served += (start + inside[wrong & left]).tolist()
        altered += (start + inside[wrong & ~left]).tolist()
        differs = (original != found).any(axis=1)
        differs[inside] = False
        foreign += (start + np.flatnonzero(differs)).tolist()
    bad = {*not_served, *altered}
    good = tuple(i for i in ids.tolist() if i not in bad)
    return RowComparison(common, good, tuple(not_served), tuple(altered), tuple(foreign), tuple(inert))


def verify(
    source: Source,
    served: Path,
    *,
    base: Path | None = None,
    tensor: str | None = None,
    allow_extra_rows: bool = False,
) -> ServedReport:
    """Decide whether the checkpoint ``served`` has the ticket's rows, and the base's rows everywhere else.

    Args:
        source: the ticket.
        served: checkpoint folder or file.
        base: E⁰, if it does not lie beside the ticket.
        tensor: name of the table's tensor in ``served``, if the architecture does not imply it.
        allow_extra_rows: accept rows beyond the base's V (a padded or resized vocabulary).

    Raises:
        UsageError: a file is missing, or the base is neither given nor bundled.
        InvalidInputError: checkpoint, base, rows or ticket is malformed or does not match the ticket.
    """
    ticket = source.ticket
    e0 = open_base(source, base)
    rows = open_rows(source, open_reference(source, None))
    # A tied head is a finding here, not a reason to stop reading.
    table = open_table(served, tensor=tensor, allow_tied=True)
    table = table.as_dtype(table.stored_dtype)
    findings = [*_form_findings(table, e0, ticket.base.tied, allow_extra_rows)]
    if served.is_dir() and (served / "adapter_config.json").exists():
        findings.append(
            ServingFinding(
                "ADAPTER_IN_FOLDER",
                "the folder has an adapter_config.json: loaders apply that adapter on top of these rows",
            )
        )
    comparison = None
    if table.dtype == e0.dtype and table.shape[1] == e0.shape[1]:
        comparison = compare(e0, table, rows)
        findings += _row_findings(comparison, len(ticket.ids))
    return ServedReport(
        ticket=ticket.id,
        ticket_sha256=ticket.digest(),
        object=ticket.released.object,
        served=str(served),
        tensor=table.tensor,
        dtype=table.dtype,
        shape=table.shape,
        tied=table.tied,
        base_sha256=e0.digest(),
        rows_sha256=ticket.released.rows.served_sha256 if ticket.released.rows else None,
        served_sha256=table.digest(),
        comparison=comparison,
        findings=tuple(findings),
        notes=_notes(table, e0, comparison),
    )


def _form_findings(
    table: Table, base: Table, tied: bool | None, allow_extra_rows: bool
) -> list[ServingFinding]:
    findings = []
    (count, width), (expected, expected_width) = table.shape, base.shape
    if table.dtype != base.dtype:
        findings.append(
            ServingFinding(
                "DTYPE", f"the checkpoint stores {table.dtype}, but the ticket certifies rows in {base.dtype}"
            )
        )
    if width != expected_width:
        findings.append(
            ServingFinding("WIDTH", f"the served rows have width {width}, the base's {expected_width}")
        )
    if count < expected:
        findings.append(
            ServingFinding(
                "MISSING_ROWS", f"the served table ends at row {count - 1}, the base at row {expected - 1}"
            )
        )
    if count > expected and not allow_extra_rows:
        extra = tuple(range(expected, count))
        findings.append(
            ServingFinding(
                "EXTRA_ROWS",
                f"rows {expected}..{count - 1} are beyond the base's {expected} rows (resized or padded"
                " vocabulary): nothing certifies them; --allow-extra-rows accepts them",
                extra,
            )
        )
    if table.tied and not tied:
        findings.append(
            ServingFinding(
                "TIED", "the output head is tied to the table: the certified rows also change every logit"
            )
        )
    if tied and table.tied is False:
        findings.append(
            ServingFinding("TIED", "the ticket is for a tied head, but this checkpoint has a separate head")
        )
    return findings


def _row_findings(comparison: RowComparison, k: int) -> list[ServingFinding]:
    findings = []
    if comparison.not_served:
        count = len(comparison.not_served)
        message = f"{count} of {k} ticket rows still hold the base's values: {shown(comparison.not_served)}"
        if count == k - len(comparison.inert):
            message += "; no row of the ticket has an effect" + (
                ", but other rows changed: was the transfer inverted?" if comparison.foreign else ""
            )
        findings.append(ServingFinding("NOT_SERVED", message, comparison.not_served))
    if comparison.altered:
        message = (
            f"{len(comparison.altered)} of {k} ticket rows are neither the certified ones nor the base's:"
            f" {shown(comparison.altered)}"
        )
        findings.append(ServingFinding("ALTERED", message, comparison.altered))
    if comparison.foreign:
        count = len(comparison.foreign)
        message = f"{count} rows outside the ticket are not the base's: {shown(comparison.foreign)}"
        findings.append(ServingFinding("FOREIGN", message, comparison.foreign))
    return findings


def _notes(table: Table, base: Table, comparison: RowComparison | None) -> tuple[str, ...]:
    notes = []
    if table.shape[0] > base.shape[0]:
        notes.append(f"rows {base.shape[0]}..{table.shape[0] - 1} have no counterpart in the base")
    if comparison is not None and comparison.inert:
        notes.append(f"certified rows equal to the base's, without effect: {shown(comparison.inert)}")
    if table.tied is None:
        notes.append("the source does not say whether the output head is tied to this table")
    notes.append("only the input embedding table was compared; no other tensor, no code, no tokenizer")
    return tuple(notes)
