"""Batches of examples of similar length, in an order that is a pure function of seed and epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from certify.base.errors import UsageError
from certify.ticket.templates import IGNORED, Example
from lottery.model.loss import padded, target_positions

_POOL = 64
"""Number of batches whose examples are sorted by length together: little padding, much of the randomness."""


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


def collate(examples: Sequence[Example], device: torch.device) -> dict[str, Tensor]:
    """Build a batch on ``device`` for :func:`lottery.model.loss.target_loss`, padded on the right.

    Padding has id 0, is masked, and has no label.
    """
    labels = padded([example.labels for example in examples], IGNORED)
    made = {
        "input_ids": padded([example.ids for example in examples]),
        "attention_mask": padded([[1] * len(example) for example in examples]),
        "labels": labels,
        "positions": target_positions(labels),
    }
    return {name: value.to(device) for name, value in made.items()}


def _shuffled(count: int, seed: int, epoch: int, what: str) -> list[int]:
    def rank(index: int) -> bytes:
        return hashlib.sha256(f"{what} {seed} {epoch} {index}".encode()).digest()

    return sorted(range(count), key=rank)
