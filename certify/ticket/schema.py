"""The ticket file ``tickets.json``, schema version 2: typed, closed, bound by digests.

The models below are the schema: ``certify schema`` prints the JSON Schema derived from them. Parsing is
strict (no coercion, no unknown field, no duplicate key, no newer version), because a ticket file comes from
someone who wants the gate to open.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import Field, model_validator

from certify.base.errors import UsageError
from certify.base.jsonio import canonical_json, pretty_json, sha256_bytes, write_bytes
from certify.base.model import (
    MAX_ROWS,
    BoundFile,
    Document,
    Finite,
    Level,
    Migration,
    Model,
    Refusal,
    RelativePath,
    Sha256,
    Slug,
    Text,
    TokenId,
    read,
    unless_given,
    validate,
)
from certify.base.records import Correction, Dtype, Excluded, Method, Rule
from certify.ticket.declared import Calibration, DeclaredClaim

SCHEMA_NAME: Final = "certify.tickets"
SCHEMA_VERSION: Final = 2

LONG_RUN: Final = 8
"""From this many consecutive ids on, a list of them has one entry for all, such as ``"3-258"``."""

_ID: Final = re.compile(rb'"id"\s*:\s*"([\w.-]+)"')
_REFUSAL: Final = Refusal("TICKET_MALFORMED", schema="TICKET_SCHEMA", newer="TICKET_NEWER")


class SourceRef(Model):
    """The record of where a model came from (:mod:`certify.models.record`): its file digest and its line."""

    sha256: Sha256
    line: Text


class TableRef(Model):
    """An input embedding table ``[V, d]``, bound by the tensor digest of its rows in the served dtype.

    ``path`` (a file or a checkpoint folder) and ``files`` are present if the table lies beside the ticket.
    Otherwise the caller names the table, and the tensor digest decides whether it is the right one.
    """

    path: RelativePath | None
    files: Annotated[tuple[BoundFile, ...], Field(max_length=16)]
    tensor: Text
    dtype: Dtype
    shape: tuple[Annotated[int, Field(ge=1, lt=MAX_ROWS)], Annotated[int, Field(ge=1, lt=1 << 20)]]
    tensor_sha256: Sha256
    tied: bool | None = Field(description="output head tied to this table; null when the source does not say")
    source: SourceRef | None = Field(
        default=None, description="what was done to the model before, such as dequantising; not re-checked"
    )

    _as_given = unless_given("source")

    @model_validator(mode="after")
    def _path_means_files(self) -> TableRef:
        if (self.path is None) == bool(self.files):
            raise ValueError("a table either has a path and its files or neither")
        return self


class TokenizerRef(Model):
    """The tokenizer that names the pieces and the special ids."""

    path: RelativePath | None
    files: Annotated[tuple[BoundFile, ...], Field(max_length=16)]
    sha256: Sha256 = Field(description="file digest of tokenizer.json")
    size: Annotated[int, Field(ge=1, lt=MAX_ROWS)]
    probe_sha256: Sha256 | None = Field(
        default=None,
        description="digest of the ids that it makes of fixed texts (certify.tables.tokenisation)",
    )

    _as_given = unless_given("probe_sha256")

    @model_validator(mode="after")
    def _path_means_files(self) -> TokenizerRef:
        if (self.path is None) == bool(self.files):
            raise ValueError("a tokenizer either has a path and its files or neither")
        return self


class TemplateRef(Model):
    """The prompt template that tuning used, bound by the digest of its content (not of its file).

    ``path`` is a ``.toml`` file beside the ticket; None means a template of the package.
    """

    name: Slug
    sha256: Sha256
    path: RelativePath | None = None


class RowsRef(Model):
    """The released rows file (:mod:`certify.tables.rowfile`): ids ``[k]``, rows ``[k, d]`` in fp32 and as
    served."""

    path: RelativePath
    sha256: Sha256
    fp32_sha256: Sha256
    served_sha256: Sha256


class Released(Model):
    """What a consumer of the ticket puts into the base."""

    object: Literal["transfer", "tuned"] = Field(
        description="transfer: rows copied from the reference; tuned: rows trained from the base on their own"
    )
    rows: RowsRef | None


def ends(entry: int | str) -> tuple[int, int]:
    """First and last id of an entry of a list of ids, which is an id or a run such as ``"3-258"``."""
    first, _, last = str(entry).partition("-")
    return int(first), int(last or first)


class ExcludedRef(Model):
    """Ids left out of the selection, with the reason; long runs are one entry each (:data:`LONG_RUN`)."""

    # A reason may quote a piece, and a piece may be as long as any text.
    reason: Annotated[str, Field(max_length=2 * 4096)]
    ids: Annotated[
        tuple[TokenId | Annotated[str, Field(pattern="^(0|[1-9][0-9]{0,7})-[1-9][0-9]{0,7}$")], ...],
        Field(min_length=1),
    ]

    @model_validator(mode="after")
    def _increasing(self) -> Self:
        runs = [ends(entry) for entry in self.ids]
        if any(later[0] <= earlier[1] for earlier, later in pairwise(runs)) or any(a > b for a, b in runs):
            raise ValueError("excluded ids must be strictly increasing, without duplicates")
        return self

    @classmethod
    def of(cls, group: Excluded) -> Self:
        """Write a group down."""
        entries: list[int | str] = []
        for _, run in groupby(enumerate(group.ids), key=lambda pair: pair[1] - pair[0]):
            ids = [i for _, i in run]
            entries += ids if len(ids) < LONG_RUN else [f"{ids[0]}-{ids[-1]}"]
        return cls(reason=group.reason, ids=tuple(entries))


class SelectionRef(Model):
    """How the ids were chosen, so that anyone can choose them again."""

    # ids:... may name every row of a table.
    rule: Annotated[str, Field(max_length=1 << 24)]
    alpha: Level
    correction: Correction
    method: Method
    n: Annotated[int, Field(ge=1, lt=1 << 20)]
    tests: Annotated[int, Field(ge=0, lt=MAX_ROWS)]
    h_alpha: Annotated[int, Field(ge=0, le=1 << 20)]
    tau: Annotated[Finite, Field(gt=0)]
    seed: int | None
    counts: BoundFile | None = Field(description="token counts behind frequency:k or template:PAIR")
    excluded: Annotated[tuple[ExcludedRef, ...], Field(max_length=MAX_ROWS)]

    @property
    def groups(self) -> tuple[Excluded, ...]:
        """Excluded ids one by one, however they are written."""
        return tuple(
            Excluded(group.reason, tuple(i for a, b in map(ends, group.ids) for i in range(a, b + 1)))
            for group in self.excluded
        )


class Token(Model):
    """One row of the ticket with its figures at selection time."""

    id: TokenId
    piece: Text | None
    h: Annotated[int, Field(ge=0, lt=1 << 20)]
    p: Annotated[Finite, Field(gt=0, le=1)]
    log10_p: Annotated[Finite, Field(le=0)]
    shift_norm: Annotated[Finite, Field(ge=0)]


class Located(Model):
    """Where evidence or a certificate lies; bound by digest when that is possible."""

    path: RelativePath
    sha256: Sha256 | None = None


class Ticket(Model):
    """A set of token rows, where they come from, how they were chosen, and what is released."""

    id: Slug
    base: TableRef
    reference: TableRef
    tokenizer: TokenizerRef | None
    template: TemplateRef | None
    selection: SelectionRef
    released: Released
    tokens: Annotated[tuple[Token, ...], Field(max_length=MAX_ROWS)]
    declared: Annotated[tuple[DeclaredClaim, ...], Field(max_length=64)] = ()
    evidence: Annotated[tuple[Located, ...], Field(max_length=64)] = ()
    certificate: Located | None = None
    choice: BoundFile | None = Field(
        default=None,
        description="record of choosing these rows by their evaluation (certify.evidence.choice_record)",
    )

    extraction: Rule | None = Field(
        default=None,
        description="rule under which the outputs are used, and quality is judged; whole unless given",
    )

    _as_given = unless_given("choice", "extraction")

    @model_validator(mode="after")
    def _consistent(self) -> Ticket:
        ids = self.ids
        if any(later <= earlier for earlier, later in pairwise(ids)):
            raise ValueError("token ids must be strictly increasing, without duplicates")
        if ids and ids[-1] >= self.base.shape[0]:
            raise ValueError(f"token id {ids[-1]} is beyond the table of {self.base.shape[0]} rows")
        if self.base.shape != self.reference.shape or self.base.dtype != self.reference.dtype:
            raise ValueError("base and reference must have the same shape and dtype")
        entries = [entry for group in self.selection.excluded for entry in group.ids]
        runs = [ends(entry) for entry in entries if isinstance(entry, str)]
        if sum(b + 1 - a for a, b in runs) > 2 * self.base.shape[0]:
            raise ValueError("more ids are excluded than the table has, even if each had two reasons")
        if self.selection.rule.startswith("template:") and self.template is None:
            raise ValueError("rule template needs a template")
        if self.selection.n != self.base.shape[1]:
            raise ValueError("selection.n must be the width of the table")
        if any(token.h > self.selection.n for token in self.tokens):
            raise ValueError("a count h cannot exceed n")
        if sum(one.calibration is not None for one in self.declared) > 1:
            raise ValueError("a ticket declares one calibrated margin")
        return self

    @property
    def ids(self) -> tuple[int, ...]:
        """Token ids of the ticket, strictly increasing."""
        return tuple(token.id for token in self.tokens)

    @property
    def rule(self) -> Rule:
        """Extraction rule under which quality is judged: the declared one, else what users get."""
        return self.extraction or "whole"

    @property
    def calibration(self) -> Calibration | None:
        """The calibrated margin that the ticket declares, if any."""
        return next((one.calibration for one in self.declared if one.calibration), None)

    @property
    def probe_sha256(self) -> str | None:
        """What the ticket states of its tokenisation; None if it binds none."""
        return None if self.tokenizer is None else self.tokenizer.probe_sha256

    def digest(self) -> str:
        """Digest of what the ticket asserts: canonical JSON without where evidence and certificate lie."""
        content = self.model_dump(mode="json", exclude={"evidence", "certificate"})
        return sha256_bytes(canonical_json(content))


class TicketFile(Document):
    """The whole file: one or more tickets.

    Version 1 has no runs of ids. Its tickets stay as they are, because certificates bind their digests.
    """

    migrations: ClassVar[Mapping[int, Migration]] = {1: dict}

    schema_: Literal["certify.tickets"] = Field(alias="schema", default=SCHEMA_NAME)
    schema_version: Literal[1, 2] = SCHEMA_VERSION
    created_by: Text
    tickets: Annotated[tuple[Ticket, ...], Field(max_length=1024)]

    @model_validator(mode="after")
    def _unique_ids(self) -> TicketFile:
        names = [ticket.id for ticket in self.tickets]
        if len(set(names)) != len(names):
            raise ValueError("two tickets have the same id")
        return self

    def to_json(self) -> str:
        """The file's text: indented JSON with a trailing newline."""
        return pretty_json(self.model_dump(mode="json", by_alias=True))


def parse_ticket_file(value: Any, *, what: str = "ticket file") -> TicketFile:
    """Validate parsed JSON as a ticket file.

    Raises:
        InvalidInputError: the schema is wrong, the version is newer, or a field violates the schema; the code
            says which.
    """
    return validate(TicketFile, value, what=what, refusal=_REFUSAL)


def read_ticket_file(path: Path) -> TicketFile:
    """Read ``tickets.json``.

    Raises:
        UsageError: the file cannot be read.
        InvalidInputError: the content is refused; see :func:`parse_ticket_file`.
    """
    return read_ticket_bytes(path)[0]


def read_ticket_bytes(path: Path) -> tuple[TicketFile, bytes]:
    """:func:`read_ticket_file`, and what was read."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder: name tickets.json in it", code="FILE_UNREADABLE")
    content, data = read(TicketFile, path, what="ticket file", refusal=_REFUSAL)
    return content, data


def ticket_lines(data: bytes) -> dict[str, int]:
    """Line of a ticket file on which the id of each ticket first stands, from one."""
    found: dict[str, int] = {}
    line, position = 1, 0
    for match in _ID.finditer(data):
        line, position = line + data.count(b"\n", position, match.start()), match.start()
        found.setdefault(match[1].decode("ascii"), line)
    return found


def write_ticket_file(path: Path, content: TicketFile) -> None:
    """Write ``tickets.json`` atomically; to change one, see :func:`certify.base.staging.changing`."""
    write_bytes(path, content.to_json().encode("utf-8"))


def choose(content: TicketFile, ids: Sequence[str]) -> tuple[Ticket, ...]:
    """The tickets named by ``ids`` in file order; all of them if ``ids`` is empty.

    Raises:
        UsageError: an id is not in the file.
    """
    known = {ticket.id for ticket in content.tickets}
    for name in ids:
        if name not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise UsageError(f"no ticket {name!r} in the file; it holds: {listed}", code="TICKET_UNKNOWN")
    return tuple(ticket for ticket in content.tickets if not ids or ticket.id in ids)
