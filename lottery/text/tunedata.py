"""Training data for tuning: parallel text under a template, kept apart from held-out text, as token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certify.base.errors import NothingToDoError
from certify.base.jsonio import canonical_json, sha256_bytes
from certify.ticket.corpus import Pair, Take, corpus_digest, deduplicate, drawn, exclude, pair_digests
from certify.ticket.templates import Example, Template, encodable, encode, load_template
from lottery.text.pairsource import read_pairs
from lottery.text.usedtext import used_pairs

COUNTS_FILE = "counts.npy"
"""Name of the file beside the result of a tuning run that holds :func:`feed_counts`."""

MAX_LENGTH = 512
"""Default for the longest example, in tokens, if the model has that many positions."""


@dataclass(frozen=True, slots=True)
class Data:
    """Parallel text and how the model gets to see it.

    Attributes:
        held_out: text to measure the loss on after each epoch; its sentences are left out of training.
        limit: largest number of training pairs; None takes all.
        take: ``sample`` draws them from all that are left (:func:`certify.ticket.corpus.drawn`), ``first``
            takes the first that are read, before any is left out.
        max_length: longest example in tokens; longer ones are left out and counted. None means 512, or the
            model's number of positions if smaller.
    """

    sources: tuple[str, ...]
    source_language: str
    target_language: str
    template: str = "alpaca"
    held_out: str | None = None
    limit: int | None = None
    take: Take = "sample"
    max_length: int | None = None


def feed_counts(examples: Sequence[Example], rows: int) -> NDArray[np.int64]:
    """Count how often ``examples`` feed each id, template and special tokens included: int64 ``[V]``."""
    fed = np.fromiter((i for example in examples for i in example.ids), np.int64)
    return np.bincount(fed, minlength=rows).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Prepared:
    """Encoded data, ready to be fed.

    Attributes:
        digests: digests of ``train``, ``held_out`` (None without held-out text) and ``template``, and of the
            resulting ids (``encoded``), because ``tokenizer.json`` alone does not determine special tokens.
        left_out: numbers of pairs left out, by reason; reasons without pairs are not listed.
        used: digests (16 hexadecimal digits) of both sides of the pairs behind ``train``.
    """

    train: list[Example]
    held_out: list[Example]
    digests: dict[str, str | None]
    left_out: dict[str, int]
    used: frozenset[str]


def told(left_out: Mapping[str, int]) -> str:
    """Say what was left out, such as ``3 repeated, 1 held out``; ``none`` if nothing was."""
    return ", ".join(f"{count} {reason}" for reason, count in left_out.items()) or "none"


def prepare(data: Data, tokenizer: Any) -> Prepared:
    """Read, clean and encode ``data`` with a fast tokenizer of ``transformers``.

    Raises:
        UsageError: a limit below 1 (``LIMITS``), a source, template or tokenizer that does not exist, or an
            extra is missing.
        InvalidInputError: a source, template or tokenizer is malformed.
        NothingToDoError: no training example is left.
    """
    template = load_template(data.template)
    languages = (data.source_language, data.target_language)
    held_out = [] if data.held_out is None else read_pairs(data.held_out, *languages)
    read: list[Pair] = []
    for source in data.sources:
        read += read_pairs(source, *languages)
    if data.take == "first":
        read = read[: data.limit]
    distinct = deduplicate(read)
    fresh = exclude(distinct, held_out)
    plain, asked = encodable(fresh, tokenizer), encodable(held_out, tokenizer)
    pairs = drawn(plain, data.limit, pair_digests)
    trained, train = _encoded(template, pairs, tokenizer, data)
    _, shown = _encoded(template, asked, tokenizer, data)
    counts = {
        "repeated": len(read) - len(distinct),
        "held out": len(distinct) - len(fresh),
        "holding a control token": len(fresh) - len(plain),
        "not drawn": len(plain) - len(pairs),
        "longer than --max-length": len(pairs) - len(train),
        "held-out and holding a control token": len(held_out) - len(asked),
        "held-out and longer than --max-length": len(asked) - len(shown),
    }
    left_out = {reason: count for reason, count in counts.items() if count}
    if not train:
        raise NothingToDoError(
            f"no training example is left of {len(read)} pairs: {told(left_out)}",
            code="NO_EXAMPLES",
        )
    digests = {
        "train": corpus_digest(pairs),
        "held_out": corpus_digest(held_out) if held_out else None,
        "template": template.digest(),
        "encoded": sha256_bytes(
            canonical_json([[list(example.ids) for example in part] for part in (train, shown)])
        ),
    }
    used = used_pairs("tuning", trained).digests
    return Prepared(train, shown, digests, left_out, used)


def _encoded(
    template: Template, pairs: Sequence[Pair], tokenizer: Any, data: Data
) -> tuple[list[Pair], list[Example]]:
    """Select the pairs that are short enough and encode them as examples."""
    languages = (data.source_language, data.target_language)
    examples = encode(template, pairs, tokenizer, *languages)
    limit = data.max_length
    kept = [(p, e) for p, e in zip(pairs, examples, strict=True) if limit is None or len(e) <= limit]
    return [pair for pair, _ in kept], [example for _, example in kept]
