"""Partial transfer Eᵀ: the ticket's rows put into the base table, every other row left as it is (theory §1).

Nothing is trained and nothing is computed: rows are copied in the served dtype, the result is read back from
disk, and the proof of what was written is a bit-for-bit comparison of the file with base and rows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from certify.base.errors import InternalError, NothingToDoError, UsageError
from certify.base.jsonio import sha256_file
from certify.base.records import Dtype
from certify.tables.rowfile import Rows
from certify.tables.table import DEFAULT_TENSOR, Table, open_table, write_table
from certify.ticket.released import Source, bits, open_base, open_reference, open_rows, shown
from certify.ticket.serving import Comparison, compare


@dataclass(frozen=True, slots=True)
class TransferReport:
    """What a transfer did, as read back from the written file.

    Attributes:
        ticket: id of the ticket.
        ticket_sha256: digest of what the ticket asserts.
        object: what the ticket releases, ``transfer`` or ``tuned``.
        out: path of the written file or folder.
        dtype: served dtype.
        shape: ``(V, d)``.
        transferred: ticket rows that now hold the certified bits.
        inert: those of them whose certified bits are the base's, so that nothing moved there.
        untouched: rows outside the ticket, all of them bit for bit the base's.
        reference_checked: the rows were also compared with the reference table, bit for bit.
        base_sha256: tensor digest of the base in the served dtype.
        table_sha256: tensor digest of the written table.
        file_sha256: file digest of the file that holds the written table.
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
    base_sha256: str
    table_sha256: str
    file_sha256: str

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that a transfer puts together, opened and verified against the ticket's digests."""

    source: Source
    base: Table
    rows: Rows
    reference_checked: bool


def open_parts(
    source: Source, base: Path | None, tuned: Path | None = None, *, tensor: str | None = None
) -> Parts:
    """Open base and rows of a ticket for a transfer.

    Args:
        source: the ticket.
        base: E⁰; its tensor digest in the served dtype must be the ticket's. None means the one that travels
            with the ticket.
        tuned: E*, if the rows are to be compared with it (or taken from it: a ticket without a rows file).
            A reference that travels with the ticket is always compared.
        tensor: name of the table's tensor in ``base``, when the architecture does not tell.

    Raises:
        UsageError: a file is missing.
        InvalidInputError: a file is refused or is not the ticket's; see :mod:`certify.ticket.released`.
        NothingToDoError: no ticket row differs from the base (``NOTHING_MOVES``).
    """
    e0 = open_base(source, base, tensor=tensor)
    reference = open_reference(source, tuned)
    rows = open_rows(source, reference)
    if np.array_equal(bits(e0.take(source.ticket.ids)), bits(rows.served)):
        raise NothingToDoError(
            f"every row of ticket {source.ticket.id!r} is the base's row already: nothing would move",
            code="NOTHING_MOVES",
        )
    return Parts(source, e0, rows, reference is not None and source.ticket.released.object == "transfer")


def transfer(parts: Parts, out: Path) -> TransferReport:
    """Write Eᵀ to the safetensors file ``out``, atomically, and prove it by reading it back.

    Memory stays within a few blocks of 8 MB; the table itself is only mapped.

    Raises:
        UsageError: ``out`` is no name for a table, is a file of the base, or cannot be written.
        InternalError: what was read back is not what was to be written (``WRITE_DAMAGED``).
    """
    check_out(out, parts.base)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # Written and read back in a folder of its own: a file that fails the proof never gets the name that
        # was asked for, and no configuration that happens to lie beside it has a say in how it is read.
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", suffix=".part", dir=out.parent) as folder:
            file = Path(folder) / out.name
            try:
                write_transferred(file, parts.base, parts.rows)
            except UsageError as error:
                # It names the temporary file; below, the same is said about the file that was asked for.
                if isinstance(error.__cause__, OSError):
                    raise error.__cause__ from None
                raise
            written = open_table(file, tensor=parts.base.tensor or DEFAULT_TENSOR)
            result = report(parts, written, out, file)
            file.replace(out)
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror or error}", code="FILE_UNWRITABLE") from error
    return result


def check_out(out: Path, base: Table) -> None:
    """Refuse a name that no table can be read back from, and any file of the base.

    Raises:
        UsageError: ``OUT_SUFFIX`` or ``OUT_IS_BASE``.
    """
    if out.suffix.lower() != ".safetensors" or out.is_dir():
        raise UsageError(f"{out}: name a .safetensors file to write", code="OUT_SUFFIX")
    if out.exists() and any(out.samefile(path) for path in base.files):
        raise UsageError(f"{out} is the base: the base is never written to", code="OUT_IS_BASE")


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


def transferred_blocks(base: Table, rows: Rows) -> Iterator[memoryview]:
    """The bytes of Eᵀ in order: the base's, with the ticket's rows in their places."""
    for start, rows_of_base in base.blocks():
        block = np.array(rows_of_base)  # a copy: the map must not change
        first, last = np.searchsorted(rows.ids, (start, start + len(block)))
        block[rows.ids[first:last] - start] = rows.served[first:last]
        yield block.reshape(-1).view(np.uint8).data


def report(parts: Parts, written: Table, out: Path, file: Path) -> TransferReport:
    """Compare ``written`` with base and rows, bit for bit, and say what it holds.

    Args:
        parts: what was put together.
        written: the table, opened anew from disk.
        out: what the caller asked for, for the record.
        file: the file that holds the table.

    Raises:
        InternalError: a ticket row is not the certified one, or another row is not the base's.
    """
    base, ticket = parts.base, parts.source.ticket
    if written.shape != base.shape or written.dtype != base.dtype:
        raise InternalError(f"{file}: the written table has another shape or dtype", code="WRITE_DAMAGED")
    found: Comparison = compare(base, written, parts.rows)
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
        base_sha256=base.digest(),
        table_sha256=written.digest(),
        file_sha256=sha256_file(file),
    )
