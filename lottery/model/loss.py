"""Padded batches, and cross-entropy on target positions only: the head runs only where there is a label.

In a translation prompt more than half of the positions have no label. Their logits (V numbers each, in fp32)
would be the largest tensors of a training step and contribute nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from certify.ticket.templates import IGNORED


def target_positions(labels: Tensor) -> Tensor:
    """Find the flat positions ``[M]`` (int64) in ``[B * T]`` whose *next* token is a target.

    Labels ``[B, T]`` are aligned with the input ids: position t of the model predicts the label at t + 1.
    """
    following = F.pad(labels[:, 1:], (0, 1), value=IGNORED)
    return (following.reshape(-1) != IGNORED).nonzero().squeeze(1)


def target_loss(model: nn.Module, head: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Sum the cross-entropy (nats, fp32 scalar) over the target tokens of ``batch``.

    Args:
        head: its output head; it receives only the hidden states of the positions that predict a target.
        batch: ``input_ids``, ``attention_mask`` and ``labels`` ``[B, T]``, and ``positions`` ``[M]`` from
            :func:`target_positions`, computed with the batch so that no device has to wait.
    """
    positions, labels = batch["positions"], batch["labels"]
    with only_at(head, positions):
        output = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)
    targets = labels.reshape(-1)[positions + 1]
    return F.cross_entropy(output.logits[0].float(), targets, reduction="sum")


@contextmanager
def head_input(head: nn.Module, keep: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Pass the head ``keep(hidden)`` instead of all hidden states ``[B, T, d]``."""
    handle = head.register_forward_pre_hook(lambda _module, inputs: keep(inputs[0]))
    try:
        yield
    finally:
        handle.remove()


def only_at(head: nn.Module, positions: Tensor) -> AbstractContextManager[None]:
    """Pass the head only the hidden states ``[1, M, d]`` at the flat positions ``[M]`` of ``[B * T]``."""
    return head_input(head, lambda hidden: hidden.flatten(0, 1).index_select(0, positions)[None])


def padded(rows: Sequence[Sequence[int]], value: int = 0, *, left: bool = False) -> Tensor:
    """Make an int64 tensor ``[B, T]`` of rows of different lengths, filled up with ``value``."""
    turned = [torch.tensor(row[::-1] if left else row, dtype=torch.int64) for row in rows]
    filled = pad_sequence(turned, batch_first=True, padding_value=value)
    return filled.flip(1) if left else filled
