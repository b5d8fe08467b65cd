"""Lists of used sentences as files: one 16-digit sentence digest per line, sorted, without duplicates.

A digest is the start of :func:`certify.ticket.corpus.sentence_digest`. A list does not contain the sentences,
so it can be shared where the text cannot.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from certify.base.errors import InvalidInputError
from certify.base.jsonio import read_bytes, sha256_bytes, write_bytes
from certify.ticket.corpus import Pair, pair_digests, sentence_digest

USED_FILE: Final = "used.txt"
"""Name of the list beside the result of a tuning run."""

DIGITS = 16
"""Hexadecimal digits of a sentence digest that evidence keeps."""

UsedRole = Literal["tuning", "scan", "choice", "order", "pretraining"]

_LIMIT = 1 << 30
_LINE = re.compile(r"[0-9a-f]{16}", re.ASCII)


def used_bytes(digests: Iterable[str]) -> bytes:
    """Encode a list."""
    return "".join(f"{digest}\n" for digest in sorted(set(digests))).encode("ascii")


def write_used_list(path: Path, digests: Iterable[str]) -> str:
    """Write a list atomically and return its file digest.

    Raises:
        UsageError: the file cannot be written.
    """
    data = used_bytes(digests)
    write_bytes(path, data)
    return sha256_bytes(data)


def read_used_list(path: Path) -> frozenset[str]:
    """Read the digests in a list from an untrusted source.

    Raises:
        UsageError: the file cannot be read.
        InvalidInputError: it is not such a list, or it is empty (``EVIDENCE_MALFORMED``).
    """
    data = read_bytes(path, what="list of used sentences", limit=_LIMIT)
    lines = data.decode("ascii", "replace").splitlines()
    if not lines or not all(map(_LINE.fullmatch, lines)) or used_bytes(lines) != data:
        raise InvalidInputError(
            f"{path} is not a list of used sentences: expected sorted, distinct lines of 16 hex digits",
            code="EVIDENCE_MALFORMED",
        )
    return frozenset(lines)


@dataclass(frozen=True, slots=True)
class UsedText:
    """Sentences that were used for some purpose; see :func:`used_pairs`.

    Attributes:
        digests: 16-digit sentence digests.
        tables: tensor digests of the table that the tuning run made which used them, in each dtype that it
            may be served in; none if no run says so.
    """

    role: UsedRole
    digests: frozenset[str]
    tables: frozenset[str] = frozenset()


def used_pairs(role: UsedRole, pairs: Iterable[Pair]) -> UsedText:
    """Collect both sides of used pairs."""
    return used_sentences(role, (side for pair in pairs for side in (pair.source, pair.target)))


def used_sentences(role: UsedRole, sentences: Iterable[str]) -> UsedText:
    """Collect used sentences."""
    return UsedText(role, frozenset(sentence_digest(sentence)[:DIGITS] for sentence in sentences))


def unused(pairs: Iterable[Pair], texts: Iterable[UsedText]) -> list[Pair]:
    """The pairs with no sentence, on either side, that one of ``texts`` lists; order kept."""
    banned = frozenset().union(*(text.digests for text in texts))
    return [pair for pair in pairs if banned.isdisjoint(digest[:DIGITS] for digest in pair_digests(pair))]
