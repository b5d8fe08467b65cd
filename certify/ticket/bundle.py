"""Bundle a ticket: tables, tokenizer and counts beside it, and references that bind them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from certify.base.errors import InvalidInputError, UsageError
from certify.base.jsonio import read_bytes, sha256_bytes, sha256_file, write_bytes
from certify.base.model import SLUG, BoundFile
from certify.models.record import RECORD, read_record
from certify.tables.checkpoint import CONFIG
from certify.tables.dtypes import DTYPES
from certify.tables.movedrows import write_moved
from certify.tables.table import Table, open_table, write_table
from certify.tables.vocabulary import Vocabulary, open_vocabulary
from certify.ticket.schema import SourceRef, TableRef, TemplateRef, TokenizerRef
from certify.ticket.templates import load_template

_COPY_LIMIT = 256 * 1024 * 1024
_WORTH = 1 << 20  # bytes that moved rows must save: any tool opens a whole table, and it needs no base


def source_ref(table: Table) -> SourceRef | None:
    """Refer to the record of where the model came from that lies beside a table; None if there is none.

    Raises:
        InvalidInputError: the record is malformed, or of another table (``SOURCE_DIFFERS``).
    """
    if (found := read_record(table.path)) is None:
        return None
    record, data = found
    stated = record.tensors.get(table.tensor)
    if stated is None or stated.sha256 != table.as_dtype(table.stored_dtype).digest():
        raise InvalidInputError(
            f"{table.path / RECORD} does not describe the table beside it: the model was changed since",
            code="SOURCE_DIFFERS",
        )
    return SourceRef(sha256=sha256_bytes(data), line=record.line())


def table_ref(table: Table, folder: Path, source: SourceRef | None = None) -> TableRef:
    """Make a reference to a table in its served dtype, with path and files if all lie in ``folder``."""
    files = _bound(table.files, folder)
    return TableRef(
        path=_relative(table.path, folder) if files else None,
        files=files or (),
        tensor=table.tensor,
        dtype=table.dtype,
        shape=table.shape,
        tensor_sha256=table.digest(),
        tied=table.tied,
        **({} if source is None else {"source": source}),
    )


def tokenizer_ref(vocabulary: Vocabulary, folder: Path, probe_sha256: str | None = None) -> TokenizerRef:
    """Make a reference to a tokenizer, with path and files if all lie in ``folder``."""
    files = _bound(vocabulary.files, folder)
    return TokenizerRef(
        path=_relative(vocabulary.path, folder) if files else None,
        files=files or (),
        sha256=sha256_file(vocabulary.path),
        size=vocabulary.size,
        **({} if probe_sha256 is None else {"probe_sha256": probe_sha256}),
    )


def template_ref(template: str, folder: Path) -> TemplateRef:
    """Make a reference to a prompt template; a file is copied to ``templates/`` in ``folder``.

    Raises:
        UsageError: there is no such template or file, or another file is in its place.
        InvalidInputError: the file is not a template.
    """
    loaded = load_template(template)
    if not template.endswith(".toml"):
        return TemplateRef(name=loaded.name, sha256=loaded.digest())
    if not re.fullmatch(SLUG, loaded.name):
        raise UsageError(
            f"{template}: the file's name must be plain letters and digits", code="TEMPLATE_NAME"
        )
    _bundle_files([Path(template)], folder / "templates")
    return TemplateRef(name=loaded.name, sha256=loaded.digest(), path=f"templates/{Path(template).name}")


def bundle_tables(
    base: Table,
    reference: Table,
    vocabulary: Vocabulary | None,
    folder: Path,
    *,
    moved: int,
    base_elsewhere: bool = False,
) -> tuple[Table, Table, Vocabulary | None]:
    """Copy both tables, in the served dtype, and the tokenizer into ``folder``, and open the copies.

    The reference is copied as moved rows where that saves a megabyte, or where the base stays elsewhere.

    Args:
        base: E⁰.
        reference: E*.
        vocabulary: the tokenizer, if any.
        folder: the ticket's folder.
        moved: number of rows in which they differ.
        base_elsewhere: do not copy the base.

    Raises:
        UsageError: ``folder`` has another table or tokenizer (``BUNDLE_TAKEN``), a copy would not show that
            its table is tied (``BUNDLE_TIED``), or writing failed.
    """
    own = folder / "base" / "embed_tokens.safetensors"
    if not base_elsewhere:
        _bundle_table(base, own)
    if vocabulary is not None:
        vocabulary = open_vocabulary(_bundle_files(vocabulary.files, folder / "base"))
    # Only now: the config that a tokenizer brings says of the base whether it is tied.
    first = base if base_elsewhere else _reopen(own, base)
    whole, rows = (folder / "reference" / f"{name}.safetensors" for name in ("embed_tokens", "moved_rows"))
    saved = (base.shape[0] - moved) * base.shape[1] * DTYPES[base.dtype].itemsize
    if moved and not whole.exists() and (base_elsewhere or saved >= _WORTH):
        _bundle_table(reference, rows, first)
        return first, _reopen(rows, reference, first), vocabulary
    _bundle_table(reference, whole)
    return first, _reopen(whole, reference), vocabulary


def bundle_counts(counts: Path, folder: Path, ticket_id: str) -> BoundFile:
    """Copy token counts into ``folder``, unless they are there already, and bind them."""
    relative = _relative(counts, folder)
    if relative is None:
        relative = f"counts/{ticket_id}{counts.suffix}"
        write_bytes(folder / relative, read_bytes(counts, what="token counts", limit=_COPY_LIMIT))
    return BoundFile(path=relative, sha256=sha256_file(folder / relative))


def _reopen(path: Path, table: Table, base: Table | None = None) -> Table:
    copy = open_table(path, tensor=table.tensor or None, allow_tied=table.tied is True, base=base)
    if table.tied and not copy.tied:
        # A copy of the table does not show that the checkpoint has no head.
        raise UsageError(
            f"{table.path} is tied but its {CONFIG} does not say so: set tie_word_embeddings to true there",
            code="BUNDLE_TIED",
        )
    return copy


def _bundle_table(table: Table, target: Path, base: Table | None = None) -> None:
    """Write the table alone, with the config that says whether it is tied, or what moved from a base."""
    if target.exists():
        present = open_table(target, tensor=table.tensor or None, allow_tied=True, base=base)
        if (present.dtype, present.digest()) != (table.dtype, table.digest()):
            raise UsageError(
                f"{target} already contains another table: choose another folder for --out",
                code="BUNDLE_TAKEN",
            )
    elif base is None:
        write_table(target, table)
    else:
        write_moved(target, base, table)
    if base is None:
        _bundle_files([path for path in table.files if path.name == CONFIG], target.parent)


def _bundle_files(files: Sequence[Path], folder: Path) -> Path:
    for path in files:
        data = read_bytes(path, what="file to bundle", limit=_COPY_LIMIT)
        target = folder / path.name
        if target.exists() and read_bytes(target, what="bundled file", limit=_COPY_LIMIT) != data:
            raise UsageError(
                f"{target} already exists with other content: choose another folder for --out",
                code="BUNDLE_TAKEN",
            )
        write_bytes(target, data)
    return folder


def _relative(path: Path, folder: Path) -> str | None:
    root = folder.resolve()
    target = path.resolve()
    return target.relative_to(root).as_posix() if target.is_relative_to(root) else None


def _bound(files: Sequence[Path], folder: Path) -> tuple[BoundFile, ...] | None:
    bound = []
    for path in files:
        relative = _relative(path, folder)
        if relative is None:
            return None
        bound.append(BoundFile(path=relative, sha256=sha256_file(path)))
    return tuple(bound)
