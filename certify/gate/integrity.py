"""Checks that the files a ticket binds are the ones it states.

Each function checks one thing and returns one :class:`~certify.base.verdict.Item`.

The object itself is handed back where the answer is yes, so that later checks work on what was verified.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from certify.base.errors import CertifyError, InvalidInputError, UsageError
from certify.base.files import inside
from certify.base.verdict import Item, Outcome
from certify.gate.session import Session
from certify.tables.rowfile import Rows
from certify.tables.table import Table, check_finite
from certify.tables.vocabulary import TOKENIZER_FILES, Vocabulary
from certify.ticket.released import (
    Role,
    Source,
    check_bound,
    check_files,
    find_role,
    open_rows,
    refuse_links,
)
from certify.ticket.templates import template_names


def outcome(error: CertifyError) -> Outcome:
    """What a refusal makes of an item: a file that is not there leaves open what it would have shown."""
    return Outcome.MISSING if error.code == "FILE_MISSING" else Outcome.INVALID


def refused(name: str, error: CertifyError, given: Path | None = None) -> Item:
    """What was refused, as an item.

    Raises:
        UsageError: it was ``given`` by the caller and cannot be read at all.
    """
    if given is not None and isinstance(error, UsageError):
        raise error
    return Item(name, outcome(error), error.code, str(error))


def read_ahead(source: Source, base: Path | None, reference: Path | None, session: Session) -> None:
    """Read both tables in one pass, wherever they lie; problems are reported by :func:`table`."""
    found: dict[Role, Table] = {}
    given: dict[Role, Path | None] = {"base": base, "reference": reference}
    for role, path in given.items():
        tensor = source.ticket.base.tensor if role == "base" else source.ticket.reference.tensor
        with suppress(CertifyError):
            found[role] = find_role(
                source, role, path, tensor=tensor or None, opened=session.table, base=found.get("base")
            )
    session.read_ahead(found.get("base"), found.get("reference"), source.ticket.selection.method)


def table(
    source: Source, role: Role, given: Path | None, session: Session, base: Table | None = None
) -> tuple[Table | None, Item]:
    """The base or reference table: the one ``given``, or the one that travels, maybe as rows of ``base``."""
    name, ref = f"integrity.{role}", source.ticket.base if role == "base" else source.ticket.reference
    if given is None and ref.path is None:
        return None, Item(
            name,
            Outcome.MISSING,
            "TABLE_NOT_GIVEN",
            f"the {role} table does not travel with the ticket",
            f"name it with --{role} PATH; its digest decides whether it is the right one",
        )
    try:
        opened = session.role(source, role, given, base)
        check_finite(opened)
    except CertifyError as error:
        if error.code == "BASE_NEEDED":
            text = f"the {role} table comes as rows that differ from a base, which is not at hand"
            return None, Item(name, Outcome.MISSING, error.code, text, "name the base with --base PATH")
        return None, refused(name, error, given)
    count, width = opened.shape
    text = f"{role} table {count} x {width} {opened.dtype}, digest as stated"
    return opened, Item(name, Outcome.PASS, "DIGEST_MATCHES", text)


def tokenizer(source: Source, given: Path | None, session: Session) -> tuple[Vocabulary | None, Item]:
    """The tokenizer: the one ``given``, or the one that travels with the ticket; None if it binds none."""
    name, ref = "integrity.tokenizer", source.ticket.tokenizer
    if ref is None:
        text = "the ticket binds no tokenizer: pieces and special ids are unknown"
        return None, Item(name, Outcome.UNBOUND, "NO_TOKENIZER", text)
    if given is None and ref.path is None:
        return None, Item(
            name,
            Outcome.MISSING,
            "TOKENIZER_NOT_GIVEN",
            "the tokenizer does not travel with the ticket",
            "name it with --tokenizer PATH; its digest decides whether it is the right one",
        )
    try:
        if given is None:
            bound = check_files(source.folder, ref.files, session.file_digest)
            refuse_links(source.folder, ref.path or "", TOKENIZER_FILES, bound)
            vocabulary = session.vocabulary(inside(source.folder, ref.path or "", ref.sha256, endings=False))
            check_bound(vocabulary.files, bound, "tokenizer")
        else:
            vocabulary = session.vocabulary(given)
        if session.file_digest(vocabulary.path) != ref.sha256 or vocabulary.size != ref.size:
            raise InvalidInputError("the tokenizer is not the one of the ticket", code="TOKENIZER_DIGEST")
    except CertifyError as error:
        return None, refused(name, error, given)
    text = f"tokenizer of {vocabulary.size} pieces, digest as stated"
    if ref.probe_sha256 is None:
        text += "; its tokenisation is not bound"
    return vocabulary, Item(name, Outcome.PASS, "DIGEST_MATCHES", text)


def template(source: Source, session: Session) -> Item:
    """The prompt template: one of the package by name, or the file that travels with the ticket."""
    name, ref = "integrity.template", source.ticket.template
    if ref is None:
        return Item(name, Outcome.UNBOUND, "NO_TEMPLATE", "the ticket binds no prompt template")
    try:
        if ref.path is None and ref.name not in template_names():
            raise InvalidInputError(
                f"the template {ref.name!r} neither ships with the package nor travels with the ticket",
                code="TEMPLATE_UNKNOWN",
            )
        where: str | Path = ref.name
        if ref.path is not None:
            same = ref.sha256
            where = inside(source.folder, ref.path, like=lambda path: session.template(path).digest() == same)
        if session.template(where).digest() != ref.sha256:
            raise InvalidInputError(
                f"the template {ref.name!r} is not the one of the ticket: its digest differs",
                code="TEMPLATE_DIGEST",
            )
    except CertifyError as error:
        return refused(name, error)
    return Item(name, Outcome.PASS, "DIGEST_MATCHES", f"prompt template {ref.name}, digest as stated")


def rows(source: Source) -> tuple[Rows | None, Item]:
    """The released rows, which always travel with the ticket."""
    name = "integrity.rows"
    if source.ticket.released.rows is None:
        return None, Item(
            name, Outcome.MISSING, "NO_ROWS", "the ticket releases no rows", "make it again with certify find"
        )
    try:
        released = open_rows(source)
    except CertifyError as error:
        return None, refused(name, error)
    text = f"{released.ids.size} released rows in fp32 and {released.dtype}, digests as stated"
    return released, Item(name, Outcome.PASS, "DIGEST_MATCHES", text)
