"""Partial transfer Eᵀ: put the ticket's rows into the base table and leave every other row (theory §1).

Rows are copied in the served dtype. The result is read back from disk and compared bit for bit with base and
rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certify.base.errors import InternalError, NothingToDoError, UsageError
from certify.base.files import check_output
from certify.base.jsonio import sha256_file, tensor_digest
from certify.base.records import Dtype
from certify.base.staging import staged_file
from certify.tables.rowfile import Rows
from certify.tables.safefile import is_file, is_folder
from certify.tables.table import DEFAULT_TENSOR, Table, open_table, write_table
from certify.tables.tokenisation import Probe, Tokenisation, compare_tokenizer
from certify.ticket.released import Source, equal_rows, open_base, open_reference, open_rows, shown
from certify.ticket.served_rows import RowComparison, compare


@dataclass(frozen=True, slots=True)
class TransferReport:
    """Result of a transfer, as read back from the written file.

    Attributes:
        ticket: id of the ticket.
        ticket_sha256: digest of what the ticket asserts.
        object: what the ticket releases, ``transfer`` or ``tuned``.
        out: path of the written file or folder.
        dtype: served dtype.
        shape: ``(V, d)``.
        transferred: ticket rows that now have the certified bits.
        inert: those of them whose certified bits equal the base's.
        untouched: number of rows outside the ticket, all equal to the base's bit for bit.
        reference_checked: whether the rows were also compared with the reference table, bit for bit.
        tokenisation: how the base's tokenizer compares with the ticket's.
        base_sha256: tensor digest of the base in the served dtype.
        table_sha256: tensor digest of the written table.
        file_sha256: file digest of the file with the written table.
    """

    ticket: str
    ticket_sha256: str
    object: str
    out: str
    dtype: Dtype
    shape: tuple[int, int]
    transferred: tuple[int, ...]
    inert: tuple[int, ...]
    untouched: int
    reference_checked: bool
    tokenisation: Tokenisation
    base_sha256: str
    table_sha256: str
    file_sha256: str

    def to_json(self) -> dict[str, Any]:
        """Convert the report to plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Parts:
    """The inputs of a transfer, opened and verified against the ticket's digests.

    ``certified`` is for the record of what is written: the policy under which a check certified the ticket
    (``certified_under``), ``policy_sha256`` and ``report_sha256``; or that none was made (``uncertified``).
    """

    source: Source
    base: Table
    rows: Rows
    reference_checked: bool
    tokenisation: Tokenisation
    certified: Mapping[str, str] = field(default_factory=lambda: {"uncertified": "no check was made"})


def open_parts(
    source: Source,
    base: Path | None,
    tuned: Path | None = None,
    *,
    tensor: str | None = None,
    probe: Probe | None = None,
) -> Parts:
    """Open base and rows of a ticket for a transfer.

    Args:
        source: the ticket.
        base: E⁰; its tensor digest in the served dtype must be the ticket's. None takes the one beside the
            ticket.
        tuned: E*, to compare the rows with, or to take them from if the ticket has no rows file. A reference
            beside the ticket is always compared.
        tensor: name of the table's tensor in ``base``, if the architecture does not imply it.
        probe: what compares the tokenizer in a ``base`` folder with the ticket's; None compares none.

    Raises:
        UsageError: a file is missing.
        InvalidInputError: a file is malformed or is not the ticket's; see :mod:`certify.ticket.released`. The
            tokenizer makes other ids (``TOKENISATION_DIFFERS``).
        NothingToDoError: no ticket row differs from the base (``NOTHING_MOVES``).
    """
    e0 = open_base(source, base, tensor=tensor)
    reference = open_reference(source, tuned, e0)
    rows = open_rows(source, reference)
    if equal_rows(rows, e0).all():
        raise NothingToDoError(
            f"every row of ticket {source.ticket.id!r} already equals the base's row: nothing would change",
            code="NOTHING_MOVES",
        )
    checked = reference is not None and source.ticket.released.object == "transfer"
    return Parts(source, e0, rows, checked, compare_tokenizer(source.ticket.probe_sha256, e0.path, probe))


def transfer(parts: Parts, out: Path) -> TransferReport:
    """Write Eᵀ to the safetensors file ``out``, atomically, and verify it by reading it back.

    Memory stays within a few blocks of 8 MB; the table itself is only mapped.

    Raises:
        UsageError: ``out`` is not a .safetensors path, is a file of the base, or cannot be written.
        InternalError: the file read back differs from what should have been written (``WRITE_DAMAGED``).
    """
    check_out(out, parts.base)
    # Written and read back in a separate folder: a file that fails verification never gets the requested
    # name, and no configuration beside that name affects how the file is read.
    with staged_file(out) as file:
        write_transferred(file, parts.base, parts.rows)
        written = open_table(file, tensor=parts.base.tensor or DEFAULT_TENSOR)
        return report(parts, written, out, file)


def check_out(out: Path, base: Table, suffix: str = ".safetensors") -> None:
    """Refuse a path that a file of this kind cannot be read back from, and any file of the base.

    Raises:
        UsageError: ``OUT_SUFFIX``, ``OUT_IS_BASE``, or ``OUT_IS_INPUT``.
    """
    if out.suffix.lower() != suffix or is_folder(out):
        raise UsageError(f"{out}: expected the path of a {suffix} file to write", code="OUT_SUFFIX")
    if is_file(out) and any(out.samefile(path) for path in base.files):
        raise UsageError(f"{out} is the base: the base is never written to", code="OUT_IS_BASE")
    check_output(out)


def write_transferred(out: Path, base: Table, rows: Rows) -> None:
    """Write Eᵀ as the only tensor of a safetensors file, atomically; equal content gives equal bytes.

    Args:
        out: the file to write or replace.
        base: E⁰ in the dtype of ``rows``.
        rows: the ticket's rows; ids below V.

    Raises:
        UsageError: ``out`` cannot be written.
    """
    write_table(out, base, transferred_blocks(base, rows))


Blocks = Iterable[tuple[int, NDArray[Any]]]
"""All rows of a table in order, as :meth:`certify.tables.table.Table.blocks` yields them."""


def transferred_blocks(base: Table, rows: Rows, blocks: Blocks | None = None) -> Iterator[memoryview]:
    """The bytes of Eᵀ in order: the base's (``blocks``, where they are at hand), with the ticket's rows."""
    for start, rows_of_base in base.blocks() if blocks is None else blocks:
        block = np.array(rows_of_base)  # a copy, so that the map does not change
        first, last = np.searchsorted(rows.ids, (start, start + len(block)))
        block[rows.ids[first:last] - start] = rows.served[first:last]
        yield block.reshape(-1).view(np.uint8).data


def table_digest(base: Table, rows: Rows, blocks: Blocks | None = None) -> str:
    """Tensor digest of ``base`` with ``rows`` put in, in the served dtype: what identifies an arm of rows."""
    return tensor_digest(base.dtype, base.shape, transferred_blocks(base, rows, blocks))


def report(parts: Parts, written: Table, out: Path, file: Path) -> TransferReport:
    """Compare ``written`` with base and rows, bit for bit, and report on it.

    Args:
        parts: the inputs of the transfer.
        written: the table, reopened from disk.
        out: the requested path, for the report.
        file: the file with the table.

    Raises:
        InternalError: a ticket row differs from the certified one, or another row from the base's.
    """
    base, ticket = parts.base, parts.source.ticket
    if written.shape != base.shape or written.dtype != base.dtype:
        raise InternalError(f"{file}: the written table has another shape or dtype", code="WRITE_DAMAGED")
    found: RowComparison = compare(base, written, parts.rows)
    if not found.faithful:
        wrong = sorted((*found.not_served, *found.altered, *found.foreign))
        raise InternalError(
            f"{file}: rows {shown(wrong)} are not what was written; the disk or the base changed meanwhile",
            code="WRITE_DAMAGED",
        )
    return TransferReport(
        ticket=ticket.id,
        ticket_sha256=ticket.digest(),
        object=ticket.released.object,
        out=str(out),
        dtype=base.dtype,
        shape=base.shape,
        transferred=found.served,
        inert=found.inert,
        untouched=base.shape[0] - len(found.served),
        reference_checked=parts.reference_checked,
        tokenisation=parts.tokenisation,
        base_sha256=base.digest(),
        table_sha256=written.digest(),
        file_sha256=sha256_file(file),
    )
