"""Take adapters in: rows of trainable tokens as a rows file or a ticket, whole tables as moved rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from certify.base.errors import InvalidInputError, NothingToDoError
from certify.base.records import Dtype
from certify.base.staging import staged_folder
from certify.tables.dtypes import storage_bits, to_float32
from certify.tables.movedrows import BASE_KEY, write_moved
from certify.tables.rowfile import Rows, make_rows, write_rows
from certify.tables.safefile import quote, read_metadata
from certify.tables.table import Table, check_finite, open_table
from certify.tables.tokenisation import Probe, Tokenisation, compare_tokenizer
from certify.ticket.adapters.adapted import open_adapted
from certify.ticket.adapters.rows import CONFIG, PEFT_TYPE, PROBE_KEY, WEIGHTS, read_config
from certify.ticket.transfer import write_transferred


@dataclass(frozen=True, slots=True)
class ImportedAdapter:
    """Rows of an adapter, read for a base.

    Attributes:
        rows: absolute rows; fp32 from the adapter, served in the base's dtype.
        stored_dtype: dtype of the adapter's tensor.
        inert: ids whose rows in the served dtype equal the base's, whether trained or not.
        fingerprint: whether the adapter names its base by tensor digest, and it is this base.
        tokenisation: how the base's tokenizer compares with the one that the adapter states.
    """

    rows: Rows
    stored_dtype: Dtype
    inert: tuple[int, ...]
    fingerprint: bool
    tokenisation: Tokenisation


def import_peft(folder: Path, base: Table, probe: Probe | None = None) -> ImportedAdapter:
    """Read the rows of an adapter folder from an untrusted source, for ``base``.

    Args:
        folder: adapter folder with ``adapter_config.json`` and ``adapter_model.safetensors``.
        base: the table that the adapter was trained on, in the dtype to serve it in.
        probe: what compares the tokenizer in the base's folder with the adapter's; None compares none.

    Returns:
        The rows, sorted by id.

    Raises:
        UsageError: a file is missing or cannot be read.
        InvalidInputError: see :func:`certify.ticket.adapters.adapted.open_adapted`; the adapter is of another
            kind or changes more than rows of the table (``ADAPTER_UNSUPPORTED``); values are not finite
            (``NON_FINITE``); the adapter was made for another tokenisation (``TOKENISATION_DIFFERS``).
        NothingToDoError: no row differs from the base's (``NOTHING_MOVES``).
    """
    kind = read_config(folder).get("peft_type")
    if kind != PEFT_TYPE:
        raise InvalidInputError(
            f"{folder / CONFIG}: peft_type is {quote(str(kind))}; only {PEFT_TYPE}"
            " adapters are rows of the input table",
            code="ADAPTER_UNSUPPORTED",
        )
    found = open_adapted(folder, base)
    more = [*found.others, *(["the whole table"] if found.table.whole else [])]
    if more:
        raise InvalidInputError(
            f"{folder} adapts more than rows of the base's input table: {quote(', '.join(more))}",
            code="ADAPTER_UNSUPPORTED",
        )
    metadata = read_metadata(folder / WEIGHTS)
    tokenisation = compare_tokenizer(metadata.get(PROBE_KEY), base.path, probe)
    stored, dtype = found.table.tokens
    rows = make_rows(found.table.ids, to_float32(stored, dtype), base.dtype, what=str(folder))
    original = base.take(rows.ids.tolist())
    inert = rows.ids[(storage_bits(original) == storage_bits(rows.served)).all(axis=1)]
    if inert.size == rows.ids.size:
        raise NothingToDoError(
            f"every row of the adapter {folder} equals the base's row, so it has no effect",
            code="NOTHING_MOVES",
        )
    return ImportedAdapter(rows, dtype, tuple(inert.tolist()), BASE_KEY in metadata, tokenisation)


def import_folder(
    adapter: Path,
    base: Path,
    out: Path,
    *,
    ticket_id: str | None = None,
    dtype: Dtype | None = None,
    tensor: str | None = None,
    allow_tied: bool = False,
    probe: Probe | None = None,
) -> ImportedAdapter:
    """Read an adapter and write the folder ``out`` from it, completely or not at all.

    ``out/rows.safetensors`` contains the rows (:mod:`certify.tables.rowfile`). With a ``ticket_id``, ``out``
    also contains ``tickets.json`` with a ticket of rule ``ids:…``, and ``reference/`` with its reference: the
    base with the adapter's rows. Such a reference was not embed-tuned as a whole, so the ticket can show what
    moved, but not agreement with embed tuning.

    Args:
        adapter: the adapter folder.
        base: E⁰, file or checkpoint folder.
        out: a new or empty folder.
        ticket_id: name of the ticket to make; None makes none.
        dtype: served dtype; None means the base's.
        tensor: name of the table's tensor in ``base``, if the architecture does not imply it.
        allow_tied: accept a base whose head is tied to the table.
        probe: see :func:`import_peft`; the ticket states the same.

    Raises:
        UsageError, InvalidInputError, NothingToDoError: see :func:`import_peft`, and
            :func:`certify.ticket.make.find` with a ``ticket_id``.
    """
    table = open_table(base, tensor=tensor, allow_tied=allow_tied)
    table = table.as_dtype(dtype or table.dtype)
    imported = import_peft(adapter, table, probe)
    with staged_folder(out) as staged:
        write_rows(staged / "rows.safetensors", imported.rows)
        if ticket_id is not None:
            from certify.ticket.make import find  # only a ticket needs the scan

            reference = staged / "reference" / "embed_tokens.safetensors"
            write_transferred(reference, table, imported.rows)
            find(
                base,
                reference,
                out=staged / "tickets.json",
                ticket_id=ticket_id,
                rule="ids:" + ",".join(str(i) for i in imported.rows.ids.tolist()),
                dtype=table.dtype,
                tensor=tensor,
                allow_tied=allow_tied,
                probe=probe,
            )
    return imported


def import_table(
    adapter: Path,
    base: Path,
    out: Path,
    *,
    dtype: Dtype | None = None,
    tensor: str | None = None,
    allow_tied: bool = False,
) -> tuple[int, tuple[str, ...]]:
    """Write the table that a base and an adapter serve together as moved rows, to a new folder.

    For adapters that change all rows or name none: LoRA on the embedding, ``modules_to_save``. The file
    ``out/moved_rows.safetensors`` then is a tuned table like any other.

    Args:
        adapter: the adapter folder.
        base: E⁰, file or checkpoint folder.
        out: a new or empty folder.
        dtype: served dtype; None means the base's.
        tensor: name of the table's tensor in ``base``, if the architecture does not imply it.
        allow_tied: accept a base whose head is tied to the table.

    Returns:
        The number of rows that differ, and names of what else the adapter changes, which stays behind.

    Raises:
        UsageError, InvalidInputError: see :func:`open_adapted`; the adapter has another number of rows
            (``SHAPE_MISMATCH``), or makes values that are not finite (``NON_FINITE``).
        NothingToDoError: no row differs (``NOTHING_MOVES``).
    """
    table = open_table(base, tensor=tensor, allow_tied=allow_tied)
    table = table.as_dtype(dtype or table.dtype)
    found = open_adapted(adapter, table)
    if found.table.shape != table.shape:
        raise InvalidInputError(
            f"{adapter} has {found.table.shape[0]} rows, {base} has {table.shape[0]}", code="SHAPE_MISMATCH"
        )
    with staged_folder(out) as staged:
        file = staged / "moved_rows.safetensors"
        count = write_moved(file, table, found.table)
        written = open_table(file, base=table, allow_tied=allow_tied)
        check_finite(replace(written, path=adapter))  # the file has no name yet that anyone knows
    return count, found.others
