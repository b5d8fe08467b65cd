"""On which sentences were the rows of a ticket chosen? (theory §5)

``certify find --guarantee`` chooses among tickets by their evaluation (:mod:`certify.gate.choose`).
Evidence on the same sentences shows nothing about the choice: it was the best of several there. The record
of the choice therefore travels with the ticket, bound by its file digest in ``ticket.choice``, and lists
the digests of both sides of every sentence that it was made on; no evidence for the ticket may share one.

A ticket without such a record states no choice. Whoever takes rows from one and names them by rule ``ids:``
instead cannot be found out from files.
"""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

from certify.base.errors import InvalidInputError
from certify.base.jsonio import MAX_JSON_BYTES, parse_json, read_bytes, sha256_bytes
from certify.ticket.schema import Ticket, inside

SCHEMA_NAME = "certify.choice"
SCHEMA_VERSION = 1

_DIGEST16 = re.compile(r"[0-9a-f]{16}")


def read_choice(ticket: Ticket, folder: Path) -> frozenset[str]:
    """Digests (16 hexadecimal digits) of the sentences on which the ticket was chosen; none without a record.

    Args:
        ticket: the ticket.
        folder: the folder of its ticket file.

    Raises:
        InvalidInputError: the record is missing (``FILE_MISSING``) or another file (``FILE_DIGEST``), or it
            is no record of choosing these very rows on listed sentences (``CHOICE_MALFORMED``).
        UsageError: it cannot be read.
    """
    if ticket.choice is None:
        return frozenset()
    path = inside(folder, ticket.choice.path)
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
    record = parse_json(data, what=f"record of the choice {ticket.choice.path}")
    try:
        same = (record["schema"], record["schema_version"]) == (SCHEMA_NAME, SCHEMA_VERSION)
        rows = [one["ids"] for one in record["candidates"] if one["arm"] == record["chosen"]]
        sentences = record["sentences"]
    except (KeyError, TypeError) as error:
        raise _malformed(ticket.choice.path, "a field is missing") from error
    if not same or rows != [list(ticket.ids)]:
        raise _malformed(ticket.choice.path, "it is not about the rows of the ticket")
    return _sentences(sentences, ticket.choice.path)


def _sentences(value: Any, path: str) -> frozenset[str]:
    if (
        not isinstance(value, list)
        or not value
        or not all(isinstance(one, str) and _DIGEST16.fullmatch(one) for one in value)
        or any(later <= earlier for earlier, later in pairwise(value))
    ):
        raise _malformed(path, "its sentences are no sorted, distinct digests")
    return frozenset(value)


def _malformed(path: str, why: str) -> InvalidInputError:
    return InvalidInputError(f"{path} is no record of a choice: {why}", code="CHOICE_MALFORMED")
