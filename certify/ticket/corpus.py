"""Parallel text as pairs with an id: cleaning, digests, removal of overlap with other texts.

Two sentences count as the same when their *normalised* forms are equal (:func:`normalise`); the SHA-256 of
that form is the sentence's digest. Scan, tuning, choice and evaluation data must share no digest (theory §7).
Reading files is in :mod:`lottery.text.pairsource`.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

from certify.base.errors import UsageError
from certify.base.jsonio import canonical_json

Side = Literal["source", "target"]
Take = Literal["sample", "first"]
"""Which of a text a limit takes: a sample (:func:`drawn`), or those that are read first."""

_Item = TypeVar("_Item")

DIGEST_DIGITS: Final = 16
"""Hexadecimal digits of a sentence's digest that evidence and lists of used sentences keep."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One sentence and its translation.

    Attributes:
        source: sentence in the source language, stripped, not empty.
        target: sentence in the target language, stripped, not empty.
        id: origin, unique within a text, such as ``gv.train10k:17`` (one-based line).
        document: document that it is from; None if unknown or not read.
    """

    source: str
    target: str
    id: str
    document: str | None = None


def normalise(sentence: str) -> str:
    """Normalise a sentence for comparison: NFKC, case folded, letters and digits only.

    Punctuation, symbols, white space and combining marks that NFKC does not compose are removed. The result
    is empty for sentences of punctuation only, which therefore are all equal.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", sentence).casefold())
    return "".join(character for character in folded if character.isalnum())


def sentence_digest(sentence: str) -> str:
    """Compute the SHA-256 of the normalised sentence, hexadecimal."""
    return hashlib.sha256(normalise(sentence).encode("utf-8")).hexdigest()


def lines_digest(lines: Iterable[str]) -> str:
    """Compute the SHA-256 of a text from the digests of its sentences, in order.

    Args:
        lines: of each pair the first :data:`DIGEST_DIGITS` digits of the digests of source and target, with a
            blank between them; of each line of other text those of its digest.
    """
    state = hashlib.sha256()
    for line in lines:
        state.update(line.encode("ascii") + b"\n")
    return state.hexdigest()


def text_digest(pairs: Iterable[Pair]) -> str:
    """Compute :func:`lines_digest` of a parallel text, as evidence binds it."""
    sides = map(pair_digests, pairs)
    return lines_digest(" ".join(digest[:DIGEST_DIGITS] for digest in digests) for digests in sides)


def corpus_digest(pairs: Iterable[Pair]) -> str:
    """Compute the SHA-256 over the pairs in order, without ids: equal digests mean equal training."""
    state = hashlib.sha256()
    for pair in pairs:
        state.update(canonical_json([pair.source, pair.target]) + b"\n")
    return state.hexdigest()


def deduplicate(pairs: Iterable[Pair]) -> list[Pair]:
    """Drop each pair whose normalised source *or* target occurred before. The order is kept.

    Afterwards no sentence occurs twice on either side, so disjoint sets of pairs are also disjoint by
    sentence.
    """
    seen: dict[Side, set[str]] = {"source": set(), "target": set()}
    kept: list[Pair] = []
    for pair in pairs:
        source, target = normalise(pair.source), normalise(pair.target)
        if source in seen["source"] or target in seen["target"]:
            continue
        seen["source"].add(source)
        seen["target"].add(target)
        kept.append(pair)
    return kept


def pair_digests(pair: Pair) -> tuple[str, ...]:
    """The digests of source and target."""
    return sentence_digest(pair.source), sentence_digest(pair.target)


def drawn(
    items: Sequence[_Item],
    count: int | None,
    digests: Callable[[_Item], tuple[str, ...]],
    take: Take = "sample",
) -> list[_Item]:
    """Draw so many parts of a text, those whose digests come first; order kept, None takes all.

    A digest says nothing about a sentence, so this is a sample, and one that anybody can draw again: it
    depends neither on the order of the file nor on a seed.

    Args:
        items: pairs or passages.
        count: number to draw.
        digests: digests of the sentences of one of them, such as :func:`pair_digests`.
        take: ``first`` takes the first of ``items`` instead.

    Raises:
        UsageError: ``count`` below 1 (``LIMITS``).
    """
    if count is not None and count < 1:
        raise UsageError("the limit on pairs or passages must be at least 1", code="LIMITS")
    if count is None or count >= len(items) or take == "first":
        return list(items[:count])
    keys = [digests(item) for item in items]
    kept = sorted(range(len(items)), key=keys.__getitem__)[:count]
    return [items[index] for index in sorted(kept)]


def part(pairs: Iterable[Pair], first: int, last: int) -> list[Pair]:
    """Cut one part out of a text that has no split of its own: ranks ``first`` to ``last - 1`` by digest.

    Pairs are ranked after :func:`deduplicate`, by the digests of both sides in either direction, so parts of
    different ranks share no sentence, and ``en``-``es`` has the same parts as ``es``-``en``. The order of the
    text is kept.
    """
    distinct = deduplicate(pairs)
    ranked = sorted(range(len(distinct)), key=lambda index: sorted(pair_digests(distinct[index])))
    return [distinct[index] for index in sorted(ranked[first:last])]


def exclude(pairs: Iterable[Pair], *others: Iterable[Pair]) -> list[Pair]:
    """The pairs that share no sentence, on the same side, with any pair of ``others``; order kept."""
    banned: dict[Side, set[str]] = {"source": set(), "target": set()}
    for other in others:
        for pair in other:
            banned["source"].add(normalise(pair.source))
            banned["target"].add(normalise(pair.target))
    return [
        pair
        for pair in pairs
        if normalise(pair.source) not in banned["source"] and normalise(pair.target) not in banned["target"]
    ]
