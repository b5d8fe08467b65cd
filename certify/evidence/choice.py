"""On which sentences were the rows of a ticket chosen? (theory §5)

``certify find --guarantee`` chooses among tickets by their evaluation (:mod:`certify.gate.choose`).
Evidence on the same sentences shows nothing about the choice: it was the best of several there. The record
of the choice therefore travels with the ticket, bound by its file digest in ``ticket.choice``, and lists
the digests of both sides of every sentence that it was made on; no evidence for the ticket may share one.

A ticket without such a record states no choice. Whoever takes rows from one and names them by rule ``ids:``
instead cannot be found out from files.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from certify.base.errors import InvalidInputError
from certify.base.files import inside
from certify.base.jsonio import MAX_JSON_BYTES, parse_json, read_bytes, sha256_bytes
from certify.base.model import Document, Model, Refusal, TokenId, validate
from certify.ticket.schema import Ticket

SCHEMA_NAME: Final = "certify.choice"
SCHEMA_VERSION: Final = 1

_REFUSAL: Final = Refusal("CHOICE_MALFORMED")


class Candidate(Model):
    """A ticket that could have been chosen: the name of its arm, and its rows."""

    model_config = ConfigDict(extra="ignore")

    arm: str
    ids: tuple[TokenId, ...]


class ChoiceRecord(Document):
    """What decides anything of the record; the rest is for people (:mod:`certify.gate.choose` writes it).

    Attributes:
        sentences: digests (16 hexadecimal digits) of both sides of the sentences that it was made on.
    """

    model_config = ConfigDict(extra="ignore")

    schema_: Literal["certify.choice"] = Field(alias="schema", default=SCHEMA_NAME)
    schema_version: Literal[1] = SCHEMA_VERSION
    candidates: tuple[Candidate, ...]
    chosen: str | None
    sentences: Annotated[tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")], ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _sorted(self) -> Self:
        if any(later <= earlier for earlier, later in pairwise(self.sentences)):
            raise ValueError("sentences must be sorted and distinct")
        return self


def read_choice(ticket: Ticket, folder: Path) -> ChoiceRecord | None:
    """Read the record of how the ticket was chosen; None if it binds none.

    Args:
        ticket: the ticket.
        folder: the folder of its ticket file.

    Raises:
        InvalidInputError: the record is missing (``FILE_MISSING``) or another file (``FILE_DIGEST``), or it
            is no record of choosing these very rows on listed sentences (``CHOICE_MALFORMED``).
        UsageError: it cannot be read.
    """
    if ticket.choice is None:
        return None
    path = inside(folder, ticket.choice.path, ticket.choice.sha256)
    if not path.is_file():
        raise InvalidInputError(
            f"{ticket.choice.path}, the record of how the ticket was chosen, is not there",
            code="FILE_MISSING",
        )
    data = read_bytes(path, what="record of the choice", limit=MAX_JSON_BYTES)
    if sha256_bytes(data) != ticket.choice.sha256:
        raise InvalidInputError(
            f"{ticket.choice.path} is not the record of the ticket: its digest differs", code="FILE_DIGEST"
        )
    what = f"record of the choice {ticket.choice.path}"
    record = validate(ChoiceRecord, parse_json(data, what=what), what=what, refusal=_REFUSAL)
    if [one.ids for one in record.candidates if one.arm == record.chosen] != [ticket.ids]:
        raise _REFUSAL(f"{what} is not about the rows of the ticket")
    return record
