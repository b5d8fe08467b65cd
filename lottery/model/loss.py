"""Cross-entropy on target positions only: the head runs only where there is a label.

In a translation prompt more than half of the positions have no label. Their logits (V numbers each, in fp32)
would be the largest tensors of a training step and contribute nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.nn.functional as F
from torch import Tensor, nn

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
def only_at(head: nn.Module, positions: Tensor) -> Iterator[None]:
    """Pass the head only the hidden states ``[1, M, d]`` at the flat positions ``[M]`` of ``[B * T]``."""

    def keep(_module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        (hidden,) = inputs
        return hidden.flatten(0, 1).index_select(0, positions)[None]

    handle = head.register_forward_pre_hook(keep)
    try:
        yield
    finally:
        handle.remove()
