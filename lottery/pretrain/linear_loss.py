"""Cross-entropy of a linear head, computed block by block: the full logits never exist in memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_ROWS = 256
"""Number of positions per block of logits: small enough to stay in the cache between the passes."""


class _LinearCrossEntropy(torch.autograd.Function):  # type: ignore[misc]
    """Compute the gradients together with the loss, while a block of logits is in memory."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        rows = hidden.reshape(-1, hidden.shape[-1])
        count = rows.shape[0]
        hidden_gradient = torch.empty_like(rows)
        weight_gradient = torch.zeros_like(weight, dtype=torch.float32)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for start in range(0, count, _ROWS):
            block, wanted = rows[start : start + _ROWS], targets[start : start + _ROWS, None]
            logs = torch.log_softmax((block @ weight.T).float(), dim=-1)
            total -= logs.gather(1, wanted).sum()
            # d loss / d logits = softmax - one-hot, stored in place of the log-probabilities.
            gradient = logs.exp_()
            gradient.scatter_add_(1, wanted, torch.full(wanted.shape, -1.0, device=hidden.device))
            gradient = (gradient / count).to(weight.dtype)
            hidden_gradient[start : start + _ROWS] = gradient @ weight
            weight_gradient += gradient.T @ block
        ctx.save_for_backward(hidden_gradient.view_as(hidden), weight_gradient.to(weight.dtype))
        return total / count

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, Tensor, None]:
        hidden_gradient, weight_gradient = ctx.saved_tensors
        return hidden_gradient * outer, weight_gradient * outer, None


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Compute the mean cross-entropy of the logits ``hidden @ weight.T``: nats per position, fp32 scalar.

    Args:
        hidden: hidden states ``[..., d]``; the product with the head is in their dtype, the softmax in fp32.
        weight: output head ``[V, d]``.
        targets: token ids ``[M]``, one per position of ``hidden``.
    """
    loss: Tensor = _LinearCrossEntropy.apply(hidden, weight, targets)
    return loss
