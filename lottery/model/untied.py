"""Whether a model with an output head of its own computes what the tied model does, bit for bit."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from certify.base.errors import InvalidInputError
from lottery.model.backbone import load_backbone, output_head

_POSITIONS = 32


def check_untied(tied: Path, untied: Path) -> None:
    """Compare the logits of two checkpoints in fp32 on ids spread over the whole vocabulary.

    Args:
        tied: the model whose head is its input table, whether or not it is loaded with another one.
        untied: the model with a head of its own.

    Raises:
        InvalidInputError: a logit differs (``HEAD_DIFFERS``), ``untied`` shares its head
            (``TIED_HEAD``), or one of them is not a model (:func:`lottery.model.backbone.load_backbone`).
    """
    if not torch.equal(_logits(tied, tie=True), _logits(untied, tie=False)):
        raise InvalidInputError(
            "the untied model does not compute the logits of the tied one, bit for bit", code="HEAD_DIFFERS"
        )


def _logits(folder: Path, *, tie: bool) -> Tensor:
    model = load_backbone(folder, "F32").eval()
    head, table = output_head(model), model.get_input_embeddings()
    if tie:
        head.weight = table.weight
    elif head.weight is table.weight:
        raise InvalidInputError(f"{folder}: the head is still tied to the input table", code="TIED_HEAD")
    ids = torch.linspace(0, table.num_embeddings - 1, _POSITIONS).long()[None]
    with torch.inference_mode():
        logits: Tensor = model(input_ids=ids).logits
    return logits
