"""On which sentences were the rows of a ticket, and its margin, chosen? (theory §5)

``certify find --guarantee`` chooses among tickets by their evaluation (:mod:`certify.gate.choose`).
Evidence on the same sentences shows nothing about the choice: it was the best of several there. The record
of the choice therefore travels with the ticket, bound by its file digest in ``ticket.choice``, and lists
the digests of both sides of every sentence that it was made on; no evidence for the ticket may share one.

The same holds of the margin that ``certify calibrate`` chose (:mod:`certify.gate.calibrate`): its record is
bound by the declared claim.

A ticket without such a record states no choice. Whoever takes rows from one and names them by rule ``ids:``
instead cannot be found out from files.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Final, Literal, Self, TypeVar

from pydantic import ConfigDict, Field, model_validator

from certify.base.errors import InvalidInputError
from certify.base.files import inside
from certify.base.jsonio import MAX_JSON_BYTES, parse_json, read_bytes, sha256_bytes
from certify.base.model import BoundFile, Document, Level, Model, Refusal, Sha256, TokenId, validate
from certify.ticket.declared import MarginLevel
from certify.ticket.schema import Ticket

SCHEMA_NAME: Final = "certify.choice"
CALIBRATION_NAME: Final = "certify.calibration"
SCHEMA_VERSION: Final = 1

_REFUSAL: Final = Refusal("CHOICE_MALFORMED")


class Candidate(Model):
    """A ticket that could have been chosen: the name of its arm, and its rows."""

    model_config = ConfigDict(extra="ignore")

    arm: str
    ids: tuple[TokenId, ...]


class _Sentences(Document):
    """The part of a record that decisions use; the rest is informative.

    Attributes:
        sentences: digests (16 hexadecimal digits) of both sides of the sentences that it was made on.
    """

    model_config = ConfigDict(extra="ignore")

    sentences: Annotated[tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")], ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _sorted(self) -> Self:
        if any(later <= earlier for earlier, later in pairwise(self.sentences)):
            raise ValueError("sentences must be sorted and distinct")
        return self


class ChoiceRecord(_Sentences):
    """The record of choosing rows; :mod:`certify.gate.choose` writes it."""

    schema_: Literal["certify.choice"] = Field(alias="schema", default=SCHEMA_NAME)
    schema_version: Literal[1] = SCHEMA_VERSION
    candidates: tuple[Candidate, ...]
    chosen: str | None


class CalibrationRecord(_Sentences):
    """The record of choosing a margin; :mod:`certify.gate.calibrate` writes it."""

    schema_: Literal["certify.calibration"] = Field(alias="schema", default=CALIBRATION_NAME)
    schema_version: Literal[1] = SCHEMA_VERSION
    t: MarginLevel
    alpha: Level
    text_sha256: Sha256


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
    what = f"record of the choice {ticket.choice.path}"
    record = _read(ChoiceRecord, ticket.choice, folder, what)
    if [one.ids for one in record.candidates if one.arm == record.chosen] != [ticket.ids]:
        raise _REFUSAL(f"{what} is not about the rows of the ticket")
    return record


def read_calibration(ticket: Ticket, folder: Path) -> frozenset[str]:
    """Digests of the sentences on which the declared margin was chosen; none if the ticket declares none.

    Raises:
        InvalidInputError, UsageError: as for :func:`read_choice`; the record is about another margin, level
            or text than the ticket declares (``CALIBRATION_DIFFERS``).
    """
    declared = ticket.calibration
    if declared is None:
        return frozenset()
    what = f"record of the calibration {declared.record.path}"
    record = _read(CalibrationRecord, declared.record, folder, what)
    if (record.t, record.alpha, record.text_sha256) != (declared.t, declared.alpha, declared.text_sha256):
        raise _REFUSAL(
            f"{what} is about a margin other than the one that the ticket declares", "CALIBRATION_DIFFERS"
        )
    return frozenset(record.sentences)


_R = TypeVar("_R", ChoiceRecord, CalibrationRecord)


def _read(model: type[_R], bound: BoundFile, folder: Path, what: str) -> _R:
    path = inside(folder, bound.path, bound.sha256)
    if not path.exists():
        raise InvalidInputError(f"the {what} is not there", code="FILE_MISSING")
    data = read_bytes(path, what=what, limit=MAX_JSON_BYTES)
    if sha256_bytes(data) != bound.sha256:
        raise InvalidInputError(f"the {what} is not the bound one: its digest differs", code="FILE_DIGEST")
    return validate(model, parse_json(data, what=what), what=what, refusal=_REFUSAL)
