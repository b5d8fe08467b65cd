"""Parallel text as pairs with an identity: cleaning, deterministic order and parts, proofs of disjointness.

Two sentences count as the same when their *normalised* forms are equal (:func:`normalise`); the SHA-256 of
that form is the sentence's digest. Scan, tuning, choice and evaluation data must share no digest (theory §7).
Nothing here reads a random generator: an order is a ranking by SHA-256 of seed and text, so that it depends
neither on the order of the file nor on the version of a library. Reading files is in
:mod:`lottery.text.pairsource`.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from certify.base.errors import InvalidInputError, UsageError
from certify.base.jsonio import canonical_json

Side = Literal["source", "target"]


@dataclass(frozen=True, slots=True)
class Pair:
    """One sentence and its translation.

    Attributes:
        source: sentence in the source language, stripped, not empty.
        target: sentence in the target language, stripped, not empty.
        id: where it comes from, unique within what was read (``gv.train10k:17``, one-based line).
        document: which document it is from; None where nobody asked, or nobody knows.
    """

    source: str
    target: str
    id: str
    document: str | None = None


def normalise(sentence: str) -> str:
    """Form under which two sentences count as the same: NFKC, case folded, letters and digits only.

    Punctuation, symbols, white space and combining marks that NFKC does not compose are removed. The result
    is empty for a sentence of punctuation only; such a sentence equals every other of its kind.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", sentence).casefold())
    return "".join(character for character in folded if character.isalnum())


def sentence_digest(sentence: str) -> str:
    """SHA-256 of the normalised sentence, hexadecimal."""
    return hashlib.sha256(normalise(sentence).encode("utf-8")).hexdigest()


def sentence_digests(pairs: Iterable[Pair], side: Side) -> list[str]:
    """Sorted distinct digests of the sentences on one side: what a record of the data keeps."""
    return sorted({sentence_digest(_of(pair, side)) for pair in pairs})


def corpus_digest(pairs: Iterable[Pair]) -> str:
    """SHA-256 over the pairs in their order, ids left out: two corpora with equal digests train the same."""
    state = hashlib.sha256()
    for pair in pairs:
        state.update(canonical_json([pair.source, pair.target]) + b"\n")
    return state.hexdigest()


def deduplicate(pairs: Iterable[Pair]) -> list[Pair]:
    """Drop each pair whose source *or* target occurred before, normalised; order kept, the first one stays.

    Afterwards no sentence occurs twice on either side, so that disjoint sets of pairs are disjoint per
    sentence too.
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


def within_length(
    pairs: Iterable[Pair], *, max_characters: int, min_characters: int = 1, max_ratio: float | None = None
) -> list[Pair]:
    """Keep the pairs both of whose sides have ``min_characters`` to ``max_characters`` characters.

    Args:
        pairs: the pairs; order kept.
        max_characters: largest length of a side, in Unicode code points.
        min_characters: smallest length of a side.
        max_ratio: largest ratio of the longer side to the shorter one; None for no bound. Limits in tokens
            belong to :func:`certify.ticket.templates.encode`.

    Raises:
        UsageError: the limits exclude everything by themselves.
    """
    if not 1 <= min_characters <= max_characters or (max_ratio is not None and max_ratio < 1):
        raise UsageError(
            "length limits must satisfy 1 <= min <= max, and the ratio must be at least 1", code="LIMITS"
        )
    kept: list[Pair] = []
    for pair in pairs:
        short, long = sorted((len(pair.source), len(pair.target)))
        if (
            min_characters <= short
            and long <= max_characters
            and (max_ratio is None or long <= max_ratio * short)
        ):
            kept.append(pair)
    return kept


def shuffle(pairs: Iterable[Pair], *, seed: int) -> list[Pair]:
    """The pairs in an order that depends on the seed and on their text alone, not on the order given."""
    return sorted(pairs, key=lambda pair: (_rank(pair, seed), pair.id))


def split(pairs: Sequence[Pair], sizes: Mapping[str, int], *, seed: int) -> dict[str, list[Pair]]:
    """Disjoint random parts of given sizes; pairs left over belong to none.

    Args:
        pairs: pairs without repeated sentences (see :func:`deduplicate`).
        sizes: name and number of pairs of each part, filled in this order.
        seed: seed of the order.

    Raises:
        InvalidInputError: a sentence occurs twice, or there are fewer pairs than asked for.
    """
    if len(deduplicate(pairs)) != len(pairs):
        raise InvalidInputError(
            "a sentence occurs twice, so that parts could share it: deduplicate first", code="DUPLICATES"
        )
    wanted = sum(sizes.values())
    if any(size < 0 for size in sizes.values()) or wanted > len(pairs):
        raise InvalidInputError(f"{wanted} pairs are asked for, there are {len(pairs)}", code="TOO_FEW_PAIRS")
    order = iter(shuffle(pairs, seed=seed))
    return {name: [next(order) for _ in range(size)] for name, size in sizes.items()}


@dataclass(frozen=True, slots=True)
class Overlap:
    """Sentences that two corpora share.

    Attributes:
        source: ids of pairs (first corpus, second corpus) with the same normalised source, one example per
            sentence.
        target: the same for the target side.
    """

    source: tuple[tuple[str, str], ...]
    target: tuple[tuple[str, str], ...]

    def __bool__(self) -> bool:
        return bool(self.source or self.target)


def overlap(first: Iterable[Pair], second: Iterable[Pair]) -> Overlap:
    """Find every normalised sentence that occurs in both corpora, side by side; empty means disjoint."""
    left, right = list(first), list(second)
    return Overlap(_shared(left, right, "source"), _shared(left, right, "target"))


def require_disjoint(corpora: Mapping[str, Iterable[Pair]]) -> None:
    """Check that no two of the named corpora share a sentence.

    Raises:
        InvalidInputError: two do; names them, and the first witness.
    """
    named = [(name, list(pairs)) for name, pairs in corpora.items()]
    for index, (name, pairs) in enumerate(named):
        for other, others in named[index + 1 :]:
            found = overlap(pairs, others)
            if found:
                count = len(found.source) + len(found.target)
                left, right = (found.source + found.target)[0]
                raise InvalidInputError(
                    f"{name} and {other} share {count} sentence(s), the first {left} = {right}: "
                    f"the data must be disjoint",
                    code="DATA_OVERLAP",
                )


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


def _shared(first: list[Pair], second: list[Pair], side: Side) -> tuple[tuple[str, str], ...]:
    index: dict[str, str] = {}
    for pair in first:
        index.setdefault(normalise(_of(pair, side)), pair.id)
    found: dict[str, tuple[str, str]] = {}
    for pair in second:
        key = normalise(_of(pair, side))
        if key in index:
            found.setdefault(key, (index[key], pair.id))
    return tuple(found.values())


def _of(pair: Pair, side: Side) -> str:
    return pair.source if side == "source" else pair.target


def _rank(pair: Pair, seed: int) -> bytes:
    return hashlib.sha256(canonical_json([seed, pair.source, pair.target])).digest()
