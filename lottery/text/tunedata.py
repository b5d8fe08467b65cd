"""What tuning is shown: parallel text under a template, split from the held-out text, as token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certify.base.errors import NothingToDoError
from certify.base.jsonio import canonical_json, sha256_bytes
from certify.ticket.corpus import Pair, corpus_digest, deduplicate, exclude
from certify.ticket.templates import Example, Template, encode, load_template
from lottery.text.pairsource import read_pairs
from lottery.text.usedtext import used_pairs

MAX_LENGTH = 512
"""Longest example in tokens where nothing else is asked for and the model has the positions."""


@dataclass(frozen=True, slots=True)
class Data:
    """Parallel text and how it is shown to the model.

    Attributes:
        sources: training text, see :mod:`lottery.text.pairsource`.
        source_language: code of the language that is translated from.
        target_language: code of the language that is translated into.
        template: a shipped template by name, or a ``.toml`` file.
        held_out: text on which the loss is measured after each epoch; its sentences leave the training text.
        limit: most training pairs, from the start of the sources; None takes all.
        max_length: longest example in tokens; longer ones are left out and counted. None means 512, or as
            many as the model has positions if these are fewer.
    """

    sources: tuple[str, ...]
    source_language: str
    target_language: str
    template: str = "alpaca"
    held_out: str | None = None
    limit: int | None = None
    max_length: int | None = None


def feed_counts(examples: Sequence[Example], rows: int) -> NDArray[np.int64]:
    """How often each id is fed in ``examples``, int64 ``[V]``: beginning of sequence, template and all."""
    fed = np.fromiter((i for example in examples for i in example.ids), np.int64)
    return np.bincount(fed, minlength=rows).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Prepared:
    """Data that is ready to be fed.

    Attributes:
        train: training examples.
        held_out: held-out examples.
        digests: digests of ``train``, ``held_out`` (None without such text) and ``template``, and of the ids
            that they become (``encoded``): special tokens are not in ``tokenizer.json`` alone.
        left_out: training pairs left out: repeated sentences, held-out sentences, too long.
        used: digests (16 hexadecimal digits) of both sides of the pairs behind ``train``.
    """

    train: list[Example]
    held_out: list[Example]
    digests: dict[str, str | None]
    left_out: int
    used: frozenset[str]


def prepare(data: Data, tokenizer: Any) -> Prepared:
    """Read, clean and encode ``data`` with a fast tokenizer of ``transformers``.

    Raises:
        UsageError: a source, template or tokenizer does not exist, or an extra is missing.
        InvalidInputError: one of them is refused.
        NothingToDoError: no training example is left.
    """
    template = load_template(data.template)
    languages = (data.source_language, data.target_language)
    held_out = [] if data.held_out is None else read_pairs(data.held_out, *languages)
    read: list[Pair] = []
    for source in data.sources:
        left = None if data.limit is None else data.limit - len(read)
        if left != 0:
            read += read_pairs(source, *languages, limit=left)
    pairs = exclude(deduplicate(read), held_out)
    trained, train = _encoded(template, pairs, tokenizer, data)
    _, shown = _encoded(template, held_out, tokenizer, data)
    if not train:
        raise NothingToDoError(
            f"no training example is left of {len(read)} pairs: see --max-length and the held-out text",
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
    return Prepared(train, shown, digests, len(read) - len(train), used)


def _encoded(
    template: Template, pairs: Sequence[Pair], tokenizer: Any, data: Data
) -> tuple[list[Pair], list[Example]]:
    """The pairs that are short enough, and their examples."""
    languages = (data.source_language, data.target_language)
    examples = encode(template, pairs, tokenizer, *languages)
    limit = data.max_length
    kept = [(p, e) for p, e in zip(pairs, examples, strict=True) if limit is None or len(e) <= limit]
    return [pair for pair, _ in kept], [example for _, example in kept]
