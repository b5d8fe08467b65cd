"""Batches of examples of similar length, in an order that is a pure function of seed and epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from certify.base.errors import UsageError
from certify.ticket.templates import IGNORED, Example

_POOL = 64
"""Number of batches whose examples are sorted by length together: little padding, much of the randomness."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples padded on the right to the length of the longest.

    Attributes:
        ids: token ids ``[B, T]`` (int64); padding has id 0 and is masked.
        mask: attention mask ``[B, T]`` (int64), 1 on real tokens, 0 on padding.
        labels: ``[B, T]`` (int64), −100 outside responses and on padding.
    """

    ids: NDArray[np.int64]
    mask: NDArray[np.int64]
    labels: NDArray[np.int64]


def plan_batches(lengths: Sequence[int], *, seed: int, epoch: int, size: int) -> list[list[int]]:
    """Group examples into shuffled batches of similar lengths, each index exactly once.

    Args:
        lengths: number of tokens of each example.
        epoch: number of the pass over the data; each has its own order.

    Returns:
        Lists of indices into ``lengths``. All but one have the full size; none is empty.

    Raises:
        UsageError: the size is below 1.
    """
    if size < 1:
        raise UsageError("the size of a batch must be at least 1", code="LIMITS")
    order = _shuffled(len(lengths), seed, epoch, "examples")
    batches: list[list[int]] = []
    for start in range(0, len(order), _POOL * size):
        # The sort is stable: examples of equal length stay shuffled.
        pool = sorted(order[start : start + _POOL * size], key=lengths.__getitem__)
        batches += [pool[first : first + size] for first in range(0, len(pool), size)]
    return [batches[index] for index in _shuffled(len(batches), seed, epoch, "batches")]


def collate(examples: Sequence[Example]) -> Batch:
    """Pad examples on the right; see :class:`Batch`.

    Raises:
        UsageError: there are no examples.
    """
    if not examples:
        raise UsageError("a batch needs at least one example", code="LIMITS")
    shape = (len(examples), max(len(example) for example in examples))
    ids = np.zeros(shape, dtype=np.int64)
    mask = np.zeros(shape, dtype=np.int64)
    labels = np.full(shape, IGNORED, dtype=np.int64)
    for row, example in enumerate(examples):
        size = len(example)
        ids[row, :size] = example.ids
        mask[row, :size] = 1
        labels[row, :size] = example.labels
    return Batch(ids, mask, labels)


def _shuffled(count: int, seed: int, epoch: int, what: str) -> list[int]:
    def rank(index: int) -> bytes:
        return hashlib.sha256(f"{what} {seed} {epoch} {index}".encode()).digest()

    return sorted(range(count), key=rank)
