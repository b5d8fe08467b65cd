"""Mechanism: why these rows? How far each row moved, what feeds it, and the attention its positions get.

Attention mass. A model with L layers of attention, H heads each, reads a sequence of T tokens. ``A_lh(q, p)``
is the attention probability that the query at position q gives to the key at position p, 0 <= p <= q < T. The
mass of a position p < T - 1 is what later positions give to it, on average:

    m(p) = sum over l, h and q > p of A_lh(q, p) / (L H (T - 1 - p)), in [0, 1].

The mass of a row is the mean of m over all positions of the text that feed it and have a later one. Early
positions have fewer rivals: were all positions up to q given 1 / (q + 1), m(p) would be the mean of
1 / (q + 1) over q > p, the *uniform* mass. A row far above it is an attention sink. The notion is that of
Xiao et al. 2023, "Efficient Streaming Language Models with Attention Sinks" (arXiv 2309.17453); the figure is
ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from certify.base.errors import InvalidInputError, UsageError
from certify.base.records import KSResult
from certify.tables.dtypes import to_float32
from certify.tables.table import Table
from lottery.model.backbone import output_head
from lottery.model.loss import only_at, padded

PROBABILITIES: Final = 1 << 26
"""Attention probabilities of a batch, over all layers and heads: 256 MB in fp32."""

Column = NDArray[np.float64]


def attention_mass(
    model: PreTrainedModel,
    sequences: Sequence[Sequence[int]],
    *,
    probabilities: int = PROBABILITIES,
    progress: Callable[[int, int], None] | None = None,
) -> list[Column]:
    """Measure m(p) of every position that has a later one, ``[T - 1]`` per sequence, in order.

    Attention is computed by the eager implementation, and the model's own is put back.

    Args:
        model: a causal language model in eval mode.
        sequences: token ids as fed, each at least one.
        probabilities: bound on the attention probabilities of a batch; one sequence may exceed it.
        progress: called with (sequences done, sequences in all).

    Raises:
        UsageError: a sequence needs more positions than the model has (``MAX_LENGTH``).
        InvalidInputError: the model has no attention (``NO_ATTENTION``), or it is not finite
            (``NON_FINITE``).
    """
    config = model.config.get_text_config()
    longest = max(map(len, sequences), default=0)
    positions = getattr(config, "max_position_embeddings", longest)
    if longest > positions:
        raise UsageError(
            f"the longest sequence has {longest} tokens, but the model has {positions} positions",
            code="MAX_LENGTH",
        )
    heads = config.num_hidden_layers * getattr(config, "num_attention_heads", 1)
    found: dict[int, Column] = {}
    with _eager(model), torch.inference_mode():
        for chosen in _batches(list(map(len, sequences)), probabilities // heads):
            ids = padded([sequences[i] for i in chosen]).to(model.device)
            mask = padded([[1] * len(sequences[i]) for i in chosen]).to(model.device)
            with only_at(output_head(model), torch.tensor([0], device=model.device)):
                output = model(input_ids=ids, attention_mask=mask, use_cache=False, output_attentions=True)
            layers = getattr(output, "attentions", None)  # of layers with attention alone
            if not layers:
                raise InvalidInputError("the model has no attention to measure", code="NO_ATTENTION")
            shares = torch.stack([layer.mean(1, dtype=torch.float64) for layer in layers]).mean(0)
            received = (shares * mask[:, :, None]).tril(-1).sum(1)
            for index, row in zip(chosen, received.cpu().numpy(), strict=True):
                later = np.arange(len(sequences[index]) - 1, 0, -1)
                found[index] = row[: later.size] / later
            if not all(np.isfinite(found[index]).all() for index in chosen):
                raise InvalidInputError("the model's attention is not finite", code="NON_FINITE")
            if progress is not None:
                progress(len(found), len(sequences))
    return [found[index] for index in range(len(sequences))]


def uniform_mass(length: int) -> Column:
    """The uniform mass of every position that has a later one, ``[length - 1]``."""
    sums: Column = np.cumsum(1 / np.arange(length, 1, -1))
    return (sums / np.arange(1, length))[::-1]


def mean_by_row(sequences: Sequence[Sequence[int]], masses: Sequence[Column], rows: int) -> Column:
    """Mean over the positions that feed a row and have a later one, ``[V]``; NaN where there are none."""
    ids = np.array([i for ids in sequences for i in ids[:-1]], np.int64)
    sums = np.bincount(ids, np.concatenate(masses), rows)
    counts = np.bincount(ids, minlength=rows)
    means: Column = np.divide(sums, counts, out=np.full(rows, np.nan), where=counts > 0)
    return means


def mean_known(values: Column) -> float | None:
    """Mean of the values that are not NaN; None if there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else None


def distances(scan: KSResult, base: Table) -> dict[str, Column]:
    """How far each row moved, ``[V]`` per name.

    ``D`` and ``cosine`` are those of the scan. ``rank`` is one more than the number of rows with a larger D.
    ``shift`` is the norm of E* - E⁰ over that of E⁰; NaN where the row of the base is zero.
    """
    wide = (to_float32(block, base.dtype).astype(np.float64) for _, block in base.blocks())
    norms = np.concatenate([np.linalg.norm(block, axis=1) for block in wide])
    shift = np.divide(scan.shift_norm, norms, out=np.full(scan.rows, np.nan), where=norms > 0)
    rank = 1.0 + scan.rows - np.searchsorted(np.sort(scan.h), scan.h, side="right")
    return {"D": scan.h / scan.n, "rank": rank, "shift": shift, "cosine": scan.cosine}


def comparison(
    ids: Sequence[int], fed: NDArray[np.int64], template: NDArray[np.int64], special: NDArray[np.bool_]
) -> dict[str, NDArray[np.bool_]]:
    """Rows outside the ticket that the text feeds, in groups that do not overlap, bool ``[V]`` each.

    Args:
        ids: the ticket's.
        fed: how often the text feeds each row, ``[V]``.
        template: how often the template itself does (:func:`certify.ticket.templates.fed_counts`).
        special: which rows are those of special tokens.
    """
    others = fed > 0
    others[list(ids)] = False
    return {
        "other special tokens": others & special,
        "others of the template": others & ~special & (template > 0),
        "others of the text": others & ~special & (template == 0),
    }


def _batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Group indices by similar length, longest last; a batch holds ``budget`` pairs of positions, or one."""
    group: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if group and (len(group) + 1) * lengths[index] ** 2 > budget:
            yield group
            group = []
        group.append(index)
    if group:
        yield group


@contextmanager
def _eager(model: PreTrainedModel) -> Iterator[None]:
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
