"""Open what a ticket binds: base, reference, released rows. Digests decide, not names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from certify.base.errors import CertifyError, InvalidInputError, NothingToDoError, UsageError
from certify.base.files import check_endings, inside
from certify.base.jsonio import sha256_file
from certify.base.model import BoundFile
from certify.tables.checkpoint import CONFIG, INDEX
from certify.tables.dtypes import storage_bits
from certify.tables.rowfile import Rows, open_rows_file, transferred_rows
from certify.tables.table import BLOCK_BYTES, Table, open_table
from certify.ticket.schema import Ticket, choose, read_ticket_file

Role = Literal["base", "reference"]
"""The two tables of a ticket: E⁰ and E*."""

_OPTIONS: Final[Mapping[Role, str]] = {"base": "--base", "reference": "--tuned"}


class OpenTable(Protocol):
    """:func:`certify.tables.table.open_table`, or one that remembers what it opened."""

    def __call__(
        self, path: Path, *, tensor: str | None = None, allow_tied: bool = False, base: Table | None = None
    ) -> Table:
        """The table at ``path``; ``base`` is what moved rows differ from."""


@dataclass(frozen=True, slots=True)
class Source:
    """One ticket and the folder that its paths are relative to."""

    ticket: Ticket
    folder: Path


def open_source(spec: str) -> Source:
    """Read the ticket named by ``FILE`` or ``FILE#ID``.

    Raises:
        UsageError: the file cannot be read, or has several tickets and no id is given.
        InvalidInputError: the content is malformed, or no ticket has that id.
        NothingToDoError: the file has no tickets, or the ticket has no rows.
    """
    path, name = split_spec(spec)
    tickets = choose(read_ticket_file(path), [name] if name else [])
    if not tickets:
        raise NothingToDoError(f"{path} has no tickets", code="NO_TICKETS")
    if len(tickets) > 1:
        listed = ", ".join(ticket.id for ticket in tickets)
        raise UsageError(
            f"{path} has several tickets: write {path}#ID with one of {listed}", code="TICKET_AMBIGUOUS"
        )
    if not tickets[0].tokens:
        raise NothingToDoError(f"ticket {tickets[0].id!r} has no rows", code="TICKET_EMPTY")
    return Source(tickets[0], path.parent)


def split_spec(spec: str) -> tuple[Path, str]:
    """Split ``FILE`` or ``FILE#ID`` into the file and the id, which is empty if none is named.

    Raises:
        UsageError: there is nothing behind the ``#`` (``TICKET_UNKNOWN``): a variable was empty, perhaps.
    """
    file, _, name = spec.rpartition("#")
    if not file or Path(spec).is_file():
        return Path(spec), ""
    if not name:
        raise UsageError(f"{spec} names no ticket: write {file}#ID, or {file}", code="TICKET_UNKNOWN")
    return Path(file), name


def open_base(source: Source, path: Path | None, *, tensor: str | None = None) -> Table:
    """Open the ticket's base table E⁰; see :func:`open_role`."""
    return open_role(source, "base", path, tensor=tensor)


def open_reference(source: Source, path: Path | None, base: Table) -> Table | None:
    """Open the ticket's reference table E*; None if it is not available. See :func:`open_role`."""
    if path is None and source.ticket.reference.path is None:
        return None
    return open_role(source, "reference", path, base=base)


def find_role(
    source: Source,
    role: Role,
    path: Path | None,
    *,
    tensor: str | None = None,
    opened: OpenTable = open_table,
    base: Table | None = None,
) -> Table:
    """Open a table of the ticket in the served dtype, without comparing it; see :func:`open_role`."""
    ref = source.ticket.base if role == "base" else source.ticket.reference
    if path is None:
        if ref.path is None:
            raise UsageError(
                f"the {role} table does not lie beside the ticket: name it with {_OPTIONS[role]}",
                code=f"{role.upper()}_NEEDED",
            )
        stated = next((file.sha256 for file in ref.files if file.path == ref.path), None)
        path, tensor = inside(source.folder, ref.path, stated, endings=False), ref.tensor or None
    return opened(path, tensor=tensor, allow_tied=ref.tied is True, base=base).as_dtype(ref.dtype)


def open_role(
    source: Source,
    role: Role,
    path: Path | None,
    *,
    tensor: str | None = None,
    opened: OpenTable = open_table,
    digest: Callable[[Path], str] = sha256_file,
    base: Table | None = None,
) -> Table:
    """Open a table of the ticket in the served dtype: the one at ``path``, or the one beside the ticket.

    A table stored in another dtype is cast, so that one digest decides. For a table beside the ticket, every
    file that determines it must be bound as well.

    Args:
        source: the ticket.
        role: which table.
        path: where it lies; None means beside the ticket.
        tensor: its name in the file at ``path``, where that is not plain.
        opened: opens tables.
        digest: computes file digests.
        base: what the reference differs from, if it comes as moved rows.

    Raises:
        UsageError: no path is given and the table does not lie beside the ticket (``BASE_NEEDED``,
            ``REFERENCE_NEEDED``), moved rows lack their base (``BASE_NEEDED``), or a file cannot be read.
        InvalidInputError: the table is malformed or is not the ticket's (``WRONG_BASE``,
            ``WRONG_REFERENCE``); a file beside the ticket is missing (``FILE_MISSING``), has another digest
            (``FILE_DIGEST``) or is not bound (``FILE_UNBOUND``); table and ticket disagree about whether the
            head is tied (``TABLE_TIED``).
    """
    ref = source.ticket.base if role == "base" else source.ticket.reference
    travels = path is None and ref.path is not None
    bound = frozenset[Path]()
    if travels:
        remedy = f"put it back, or name the {role} table with {_OPTIONS[role]}"
        bound = check_files(source.folder, ref.files, digest, remedy)
        refuse_links(source.folder, ref.path or "", (CONFIG, INDEX), bound)
    table = find_role(source, role, path, tensor=tensor, opened=opened, base=base)
    if travels:
        check_bound(table.files, bound, f"{role} table")
    if table.shape != ref.shape or table.digest() != ref.tensor_sha256:
        raise InvalidInputError(
            f"the table in {table.path} ({table.shape[0]} x {table.shape[1]}, seen as {ref.dtype}) is not the"
            f" {role} of ticket {source.ticket.id!r}: shape or tensor digest differ",
            code=f"WRONG_{role.upper()}",
        )
    # A bare file may not say whether the head is tied; if it does, it must agree with the ticket.
    if table.tied != ref.tied and not (path is not None and table.tied is None):
        raise InvalidInputError(
            f"the {role} table is tied to the output head: {table.tied}; the ticket says {ref.tied}",
            code="TABLE_TIED",
        )
    return table


def check_files(
    folder: Path,
    files: Sequence[BoundFile],
    digest: Callable[[Path], str] = sha256_file,
    remedy: str = "put it back",
) -> frozenset[Path]:
    """Verify the file digests of files beside a ticket, as ``digest`` computes them.

    ``remedy`` is what to do about one that is missing.

    Returns:
        The files, with links followed.

    Raises:
        InvalidInputError: a file is missing (``FILE_MISSING``), is not a regular one (``FILE_UNREADABLE``),
            lies outside the folder (``PATH_ESCAPES``), or has another digest (``FILE_DIGEST``).
        UsageError: a file cannot be read.
    """
    bound = set()
    for file in files:
        target = inside(folder, file.path, file.sha256, endings=False)
        if not target.exists():
            raise InvalidInputError(
                f"{file.path} is named by the ticket but missing: {remedy}", code="FILE_MISSING"
            )
        if not target.is_file():
            raise InvalidInputError(f"{file.path} is not a regular file", code="FILE_UNREADABLE")
        if digest(target) != file.sha256:
            check_endings(target, file.path, file.sha256)
            raise InvalidInputError(
                f"{file.path} is not the file of the ticket: its digest differs", code="FILE_DIGEST"
            )
        bound.add(target.resolve())
    return frozenset(bound)


def refuse_links(folder: Path, relative: str, names: Sequence[str], bound: frozenset[Path]) -> None:
    """Refuse what would be read along with ``relative``, is a link out of the folder, and is not bound.

    Raises:
        InvalidInputError: ``FILE_UNBOUND``.
    """
    path = folder / relative
    beside = path if path.is_dir() else path.parent
    root = folder.resolve()
    for name in names:
        target = (beside / name).resolve()
        if not target.is_relative_to(root) and target not in bound:
            raise InvalidInputError(
                f"{beside / name} leads out of the folder, and the ticket does not bind it",
                code="FILE_UNBOUND",
            )


def check_bound(used: Sequence[Path], bound: frozenset[Path], what: str) -> None:
    """Refuse a file that determines part of a ticket but is not bound by it.

    Raises:
        InvalidInputError: ``FILE_UNBOUND``.
    """
    for path in used:
        if path.resolve() not in bound:
            raise InvalidInputError(
                f"{path} determines the {what}, but the ticket does not bind it", code="FILE_UNBOUND"
            )


def open_rows(source: Source, reference: Table | None = None) -> Rows:
    """Read the released rows of the ticket and verify them against every digest in the ticket.

    Args:
        source: the ticket.
        reference: E* in the served dtype. If given, rows released as a *transfer* must equal its rows bit for
            bit. A ticket without a rows file takes its rows from here.

    Raises:
        UsageError: the ticket has no rows file and no reference is given (``ROWS_NEEDED``).
        InvalidInputError: the file is malformed (also ``FILE_MISSING``, ``FILE_DIGEST``), or its tensors do
            not have the recorded digests (``ROWS_DIGEST``), are not the ticket's rows (``ROWS_DISAGREE``) or
            not the reference's (``ROWS_NOT_REFERENCE``).
    """
    ticket = source.ticket
    released = ticket.released
    if released.rows is None:
        return _rows_from(reference, ticket)
    bound = BoundFile(path=released.rows.path, sha256=released.rows.sha256)
    path = inside(source.folder, bound.path, bound.sha256, endings=False)
    try:
        rows, digests = open_rows_file(path)
    except CertifyError:
        check_files(source.folder, (bound,))  # refuses another file of that name
        raise
    check_files(source.folder, (bound,), lambda _: digests.sha256)
    recorded = (released.rows.sha256, released.rows.fp32_sha256, released.rows.served_sha256)
    if (digests.sha256, digests.fp32_sha256, digests.served_sha256) != recorded:
        raise InvalidInputError(
            f"the rows in {path} do not have the digests in the ticket", code="ROWS_DIGEST"
        )
    shape = (len(ticket.ids), ticket.base.shape[1])
    if (
        tuple(rows.ids.tolist()) != ticket.ids
        or rows.dtype != ticket.base.dtype
        or rows.served.shape != shape
    ):
        raise InvalidInputError(
            f"{path} does not have the ticket's {shape[0]} rows of width {shape[1]} in {ticket.base.dtype}",
            code="ROWS_DISAGREE",
        )
    if reference is not None and released.object == "transfer":
        wrong = rows.ids[~equal_rows(rows, reference)]
        if wrong.size:
            raise InvalidInputError(
                f"released rows {shown(wrong.tolist())} are not the reference's: wrong rows or inverted",
                code="ROWS_NOT_REFERENCE",
            )
    return rows


def _rows_from(reference: Table | None, ticket: Ticket) -> Rows:
    if reference is None:
        raise UsageError(
            f"ticket {ticket.id!r} has no rows file: name the reference table (certify transfer --tuned)",
            code="ROWS_NEEDED",
        )
    if ticket.released.object != "transfer":
        raise InvalidInputError(
            f"ticket {ticket.id!r} releases tuned rows, which are in no table, but has no rows file",
            code="ROWS_NEEDED",
        )
    return transferred_rows(ticket.ids, reference)


def equal_rows(rows: Rows, table: Table) -> NDArray[np.bool_]:
    """Say which of ``rows`` are, bit for bit, those of ``table`` (in the same dtype): bool ``[k]``."""
    equal = np.zeros(rows.ids.size, np.bool_)
    step = max(1, BLOCK_BYTES // (rows.served.shape[1] * rows.served.dtype.itemsize))
    for start in range(0, rows.ids.size, step):
        part = slice(start, start + step)
        there = table.take(rows.ids[part].tolist())
        np.all(storage_bits(rows.served[part]) == storage_bits(there), axis=1, out=equal[part])
    return equal


def shown(ids: list[int] | tuple[int, ...], limit: int = 10) -> str:
    """Format ids for a message: the first few, and the number of further ones."""
    text = ", ".join(str(i) for i in ids[:limit])
    return text if len(ids) <= limit else f"{text} and {len(ids) - limit} more"
