"""Oracles of decoding: one sentence, no cache, no padding, the whole sequence fed anew for every token."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

Logits = Callable[[Sequence[int]], Tensor]
"""Token ids so far to the logits ``[V]`` of the next one."""


def plainly(model: PreTrainedModel) -> Logits:
    """Logits of a model as it is."""

    def logits(ids: Sequence[int]) -> Tensor:
        with torch.no_grad():
            return model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0, -1]

    return logits


def by_position(
    model: PreTrainedModel, inside: Tensor, outside: Tensor, active: Callable[[int], bool]
) -> Logits:
    """Logits where position p looks its token up in ``inside`` if it is active, otherwise in ``outside``."""

    def logits(ids: Sequence[int]) -> Tensor:
        looked_up = [(inside if active(place) else outside)[token] for place, token in enumerate(ids)]
        with torch.no_grad():
            return model(inputs_embeds=torch.stack(looked_up)[None], use_cache=False).logits[0, -1]

    return logits


def greedy(logits: Logits, prompt: Sequence[int], most: int, end: int) -> list[int]:
    """The answer, the end of sentence included if it comes."""
    answer: list[int] = []
    while len(answer) < most and end not in answer:
        answer.append(int(logits([*prompt, *answer]).argmax()))
    return answer


def forced(logits: Logits, prompt: Sequence[int], answer: Sequence[int]) -> list[Tensor]:
    """Logits at every step of a given answer."""
    return [logits([*prompt, *answer[:step]]) for step in range(len(answer))]


def segment(place: int, source: Collection[int], prompt_length: int) -> str:
    """The segment of a position: source, target after the prompt, instruction everywhere else."""
    if place >= prompt_length:
        return "target"
    return "source" if place in source else "instruction"
