"""Trainable rows: a ``[k, d]`` fp32 parameter that stands in for ``k`` rows of a frozen embedding table.

Embed tuning trains all V rows, partial tuning the k rows of a ticket (theory §1). Both freeze every other
tensor of the model and keep the trained rows as an fp32 master, whatever the dtype of the backbone. bf16
updates would lose most of a small displacement. A masked full table would let weight decay and Adam's
momentum move rows that no gradient reached; here those rows are not parameters, so nothing moves them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from certify.base.errors import InternalError, InvalidInputError, UsageError
from lottery.model.backbone import TORCH_DTYPES

_SHOWN = 8  # ids named in one error line
_PROBED = 256  # rows on which a subclass of nn.Embedding is compared


class TrainableRows(nn.Module):
    """Embedding look-up in which the rows ``ids`` come from a trainable fp32 table.

    The look-up has static shapes and does not synchronise with the device: every position reads both
    tables and a mask decides. The output has the dtype of the frozen table. A trained row is rounded to it
    (nearest, ties to even) *after* the look-up: the backbone sees bit for bit the released rows, while
    gradients of repeated tokens are summed in fp32. Where the frozen embedding multiplies what it looks up
    (``embed_scale`` of Gemma), so does this one: rows are always those of the table, before that factor.

    A row is trained wherever its token is fed. This includes the ``padding_idx`` of the frozen embedding,
    to which PyTorch would give no gradient: right padding under an attention mask contributes exactly zero.

    Attributes:
        base: the frozen embedding ``[V, d]``.
        trained: the parameter, ``trained.weight`` ``[k, d]`` fp32 (``[V, d]`` if all rows are trained).
        ids: the trained rows, strictly increasing; None means all V of them.
        slot: ``[V]`` int64, position of a row in ``trained`` or -1; None if all rows are trained.
        scale: factor of what is looked up, in the dtype of the frozen table; None if there is none.
    """

    slot: Tensor | None
    scale: Tensor | None

    def __init__(self, base: nn.Embedding, ids: Sequence[int] | None) -> None:
        """Wrap ``base``; ``ids`` are strictly increasing and inside the table, as :func:`install` checks."""
        super().__init__()
        # `base` is registered first: transformers takes a model's dtype from its first parameter.
        self.base = base.requires_grad_(False)
        self.ids = None if ids is None else tuple(ids)
        device = base.weight.device
        if self.ids is None:
            self.register_buffer("slot", None, persistent=False)
            start = base.weight.detach().to(torch.float32, copy=True)
        else:
            index = torch.tensor(self.ids, dtype=torch.long, device=device)
            slot = torch.full((base.num_embeddings,), -1, dtype=torch.long, device=device)
            slot[index] = torch.arange(len(self.ids), device=device)
            self.register_buffer("slot", slot, persistent=False)
            start = base.weight.detach()[index].float()
        self.trained = nn.Embedding(*start.shape, _weight=start)
        self.register_buffer("scale", scale_of(base), persistent=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Look up ``input_ids`` (integer, any shape ``S``): ``[*S, d]`` in the dtype of the frozen table."""
        dtype = self.base.weight.dtype
        if self.slot is None:
            found = F.embedding(input_ids, self.trained.weight).to(dtype)
        else:
            slot = self.slot[input_ids]
            rows = F.embedding(slot.clamp(min=0), self.trained.weight).to(dtype)
            found = torch.where((slot >= 0).unsqueeze(-1), rows, F.embedding(input_ids, self.base.weight))
        return found if self.scale is None else found * self.scale

    def extra_repr(self) -> str:
        """Sizes for ``print(model)``."""
        return f"rows={self.trained.num_embeddings} of {self.base.num_embeddings}"


def install(
    model: PreTrainedModel,
    ids: Sequence[int] | None,
    *,
    init: NDArray[np.float32] | None = None,
    tokens: int | None = None,
    allow_beyond: bool = False,
) -> TrainableRows:
    """Freeze ``model`` and replace its input embedding by :class:`TrainableRows`, its only trainable part.

    Args:
        model: a causal language model with an untied, unquantised ``nn.Embedding`` at the input, also scaled.
        ids: rows to train, strictly increasing; None trains all rows (embed tuning).
        init: starting values ``[k, d]`` in the order of ``ids``; None takes the base's own rows.
        tokens: number of ids that the tokenizer can produce, to refuse rows that no text can feed.
        allow_beyond: accept ids of rows beyond ``tokens``.

    Raises:
        UsageError: there are no ids, or an id lies beyond the tokenizer and this is not allowed.
        InvalidInputError: ids are duplicate, unsorted, negative or out of range; the head is tied; the table
            is quantised, resized or of an unknown kind; ``init`` has another shape or is not finite.
    """
    base = _plain_embedding(model)
    rows = base.num_embeddings
    _check_untied(model, base)
    if ids is not None:
        _check_ids(ids, rows=rows, tokens=tokens, allow_beyond=allow_beyond)
    module = TrainableRows(base, ids)
    if init is not None:
        weight = module.trained.weight
        if init.shape != tuple(weight.shape) or init.dtype != np.float32:
            raise InvalidInputError(
                f"starting rows are {init.dtype} {init.shape}; expected float32 {tuple(weight.shape)}",
                code="INIT_SHAPE",
            )
        _check_finite(init, module.ids)
        with torch.no_grad():
            weight.copy_(torch.from_numpy(init))
    model.requires_grad_(False)
    module.trained.weight.requires_grad_(True)
    model.set_input_embeddings(module)
    check_trainable(model, module)
    return module


def check_trainable(model: nn.Module, module: TrainableRows) -> None:
    """Assert that the trainable parameters of ``model`` are exactly the ``k * d`` numbers of ``module``.

    Raises:
        InternalError: something else is trainable, for example because ``resize_token_embeddings``
            re-enabled gradients.
    """
    trainable = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    expected = module.trained.weight.numel()
    if not module.trained.weight.requires_grad or sum(trainable.values()) != expected or len(trainable) != 1:
        raise InternalError(
            f"{sum(trainable.values())} parameters of {len(trainable)} tensors are trainable; expected the"
            f" {expected} of the trained rows",
            code="NOT_FROZEN",
        )


def extract(module: TrainableRows) -> NDArray[np.float32]:
    """Copy the trained rows: ``[k, d]`` fp32, in the order of ``module.ids`` (``[V, d]`` if all).

    Raises:
        InvalidInputError: a value is not finite.
    """
    values: NDArray[np.float32] = module.trained.weight.detach().cpu().numpy().copy()
    _check_finite(values, module.ids)
    return values


def _plain_embedding(model: PreTrainedModel) -> nn.Embedding:
    config = model.config
    embedding = model.get_input_embeddings()
    weight = getattr(embedding, "weight", None)
    quantised = bool(getattr(config, "quantization_config", None)) or getattr(model, "is_quantized", False)
    if quantised or (isinstance(weight, Tensor) and weight.dtype not in TORCH_DTYPES.values()):
        raise InvalidInputError(
            "the model is quantised: rows can only be trained on an fp32, fp16 or bf16 checkpoint",
            code="QUANTISED_TABLE",
        )
    if isinstance(weight, Tensor) and weight.is_meta:
        raise InvalidInputError(
            "the embedding table is not loaded (meta tensor)", code="EMBEDDING_UNSUPPORTED"
        )
    plain = isinstance(embedding, nn.Embedding) and embedding.max_norm is None
    if not plain or embedding.scale_grad_by_freq or not _only_scales(embedding):
        raise InvalidInputError(
            f"the input embedding is a {type(embedding).__name__}, which does more with a row than look it up"
            " and multiply it by embed_scale",
            code="EMBEDDING_UNSUPPORTED",
        )
    declared = getattr(config, "vocab_size", embedding.num_embeddings)
    if tuple(embedding.weight.shape) != (embedding.num_embeddings, embedding.embedding_dim) or (
        declared != embedding.num_embeddings
    ):
        raise InvalidInputError(
            f"the embedding table has shape {tuple(embedding.weight.shape)} but the model declares {declared}"
            " rows, because it was resized; save the resized model and start from that checkpoint",
            code="TABLE_RESIZED",
        )
    return embedding


def scale_of(embedding: nn.Embedding) -> Tensor | None:
    """The factor of an embedding, as it is applied: rounded to the dtype of its table."""
    scale = getattr(embedding, "embed_scale", None)
    return None if scale is None else torch.as_tensor(scale).to(embedding.weight)


def _only_scales(embedding: nn.Embedding) -> bool:
    """Whether a subclass computes, bit for bit, what :class:`TrainableRows` would; asked of rows all over."""
    if type(embedding) is nn.Embedding:
        return True
    ids = torch.linspace(0, embedding.num_embeddings - 1, _PROBED, device=embedding.weight.device).long()
    with torch.no_grad():
        rows, scale = F.embedding(ids, embedding.weight), scale_of(embedding)
        return bool(torch.equal(embedding(ids), rows if scale is None else rows * scale))


def _check_untied(model: PreTrainedModel, base: nn.Embedding) -> None:
    head: nn.Module | None = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    weight = getattr(head, "weight", None)
    shared = isinstance(weight, Tensor) and weight.data_ptr() == base.weight.data_ptr()
    # The flag alone suffices: a merged checkpoint of a tied model would change the head on loading.
    if shared or getattr(model.config, "tie_word_embeddings", False):
        raise InvalidInputError(
            "the output head is tied to the input table: training a row would change that token's logits in"
            " every context; use a copy with a head of its own (certify model untie)",
            code="TIED_HEAD",
        )


def _check_ids(ids: Sequence[int], *, rows: int, tokens: int | None, allow_beyond: bool) -> None:
    if not ids:
        raise UsageError("no rows to train: the set of ids is empty", code="NO_ROWS")
    outside = [i for i in ids if not 0 <= i < rows]
    if outside:
        raise InvalidInputError(
            f"ids outside the table of {rows} rows (0 to {rows - 1}): {_named(outside)}", code="ID_RANGE"
        )
    wrong = [later for earlier, later in pairwise(ids) if later <= earlier]
    if wrong:
        raise InvalidInputError(
            f"ids must be strictly increasing, without duplicates; wrong at {_named(wrong)}",
            code="ID_DUPLICATE",
        )
    beyond = [i for i in ids if tokens is not None and i >= tokens]
    if beyond and not allow_beyond:
        raise UsageError(
            f"rows beyond the tokenizer's {tokens} tokens, which no text can feed: {_named(beyond)};"
            " allow them explicitly if this is intended",
            code="ID_BEYOND_TOKENIZER",
        )


def _check_finite(values: NDArray[np.float32], ids: Sequence[int] | None) -> None:
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if bad.size:
        names = [int(i) if ids is None else ids[int(i)] for i in bad]
        raise InvalidInputError(f"non-finite values in rows {_named(names)}", code="NON_FINITE")


def _named(ids: Sequence[int]) -> str:
    shown = ", ".join(str(i) for i in ids[:_SHOWN])
    return shown + (f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else "")
