"""Batches of examples of similar length, in an order that is a pure function of seed and epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from certify.base.errors import InvalidInputError, UsageError
from certify.ticket.templates import IGNORED, Example

_POOL = 64
"""Number of batches whose examples are sorted by length together: little padding, much of the randomness."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples padded on the right to the length of the longest.

    Attributes:
        ids: token ids ``[B, T]`` (int64); padding has ``pad_id`` and is masked.
        mask: attention mask ``[B, T]`` (int64), 1 on real tokens, 0 on padding.
        labels: ``[B, T]`` (int64), −100 outside responses and on padding.
    """

    ids: NDArray[np.int64]
    mask: NDArray[np.int64]
    labels: NDArray[np.int64]


def plan_batches(
    lengths: Sequence[int],
    *,
    seed: int,
    epoch: int,
    max_examples: int | None = None,
    max_tokens: int | None = None,
) -> list[list[int]]:
    """Group examples into shuffled batches of similar lengths, each index exactly once.

    Args:
        lengths: number of tokens of each example.
        seed: seed of the order.
        epoch: number of the pass over the data; each has its own order.
        max_examples: largest number of examples per batch.
        max_tokens: largest number of tokens per batch, with padding (examples times longest).

    Returns:
        Lists of indices into ``lengths``. All but a few have the full size; none is empty.

    Raises:
        UsageError: no limit is given, or one below 1.
        InvalidInputError: a single example exceeds ``max_tokens``.
    """
    if max_examples is None and max_tokens is None:
        raise UsageError("a batch needs a limit in examples or in tokens", code="LIMITS")
    if any(limit is not None and limit < 1 for limit in (max_examples, max_tokens)):
        raise UsageError("the limit of a batch must be at least 1", code="LIMITS")
    if max_tokens is not None and max(lengths, default=0) > max_tokens:
        longest = max(range(len(lengths)), key=lengths.__getitem__)
        raise InvalidInputError(
            f"example {longest} has {lengths[longest]} tokens, but a batch holds at most {max_tokens}",
            code="EXAMPLE_TOO_LONG",
        )
    order = _shuffled(len(lengths), seed, epoch, "examples")
    batches: list[list[int]] = []
    pool = _pool_size(lengths, max_examples, max_tokens)
    for start in range(0, len(order), pool):
        # The sort is stable: examples of equal length stay shuffled.
        batches += _cut(
            sorted(order[start : start + pool], key=lengths.__getitem__), lengths, max_examples, max_tokens
        )
    return [batches[index] for index in _shuffled(len(batches), seed, epoch, "batches")]


def collate(examples: Sequence[Example], *, pad_id: int = 0) -> Batch:
    """Pad examples on the right; see :class:`Batch`.

    Raises:
        UsageError: there are no examples.
    """
    if not examples:
        raise UsageError("a batch needs at least one example", code="LIMITS")
    shape = (len(examples), max(len(example) for example in examples))
    ids = np.full(shape, pad_id, dtype=np.int64)
    mask = np.zeros(shape, dtype=np.int64)
    labels = np.full(shape, IGNORED, dtype=np.int64)
    for row, example in enumerate(examples):
        size = len(example)
        ids[row, :size] = example.ids
        mask[row, :size] = 1
        labels[row, :size] = example.labels
    return Batch(ids, mask, labels)


def _pool_size(lengths: Sequence[int], max_examples: int | None, max_tokens: int | None) -> int:
    sizes = [] if max_examples is None else [max_examples]
    if max_tokens is not None and lengths:
        sizes.append(max(1, max_tokens * len(lengths) // max(1, sum(lengths))))
    return _POOL * min(sizes, default=1)


def _cut(
    indices: list[int], lengths: Sequence[int], max_examples: int | None, max_tokens: int | None
) -> list[list[int]]:
    batches: list[list[int]] = []
    current: list[int] = []
    for index in indices:
        # Lengths ascend here: the new example is the longest of its batch.
        full = max_examples is not None and len(current) == max_examples
        full |= max_tokens is not None and (len(current) + 1) * lengths[index] > max_tokens
        if current and full:
            batches.append(current)
            current = []
        current.append(index)
    return [*batches, current] if current else batches


def _shuffled(count: int, seed: int, epoch: int, what: str) -> list[int]:
    def rank(index: int) -> bytes:
        return hashlib.sha256(f"{what} {seed} {epoch} {index}".encode()).digest()

    return sorted(range(count), key=rank)
