"""Decoding: prompts in, texts out, many at a time, the same as one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from certify.errors import UsageError
from lottery.templates import Example


@dataclass(frozen=True, slots=True)
class Output:
    """What a model answered to one prompt.

    Attributes:
        id: id of the pair that the prompt was made from.
        text: the answer up to the end of sentence, as the tokenizer spells it.
        ended: the model produced the end-of-sentence token; otherwise it was cut off.
        tokens: generated tokens, the end of sentence included.
    """

    id: str
    text: str
    ended: bool
    tokens: int


def generate(
    model: PreTrainedModel,
    tokenizer: Any,
    prompts: Sequence[Example],
    *,
    max_new_tokens: int,
    batch_size: int,
    beams: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[Output]:
    """Decode every prompt, greedily or by beam search, without sampling.

    Prompts of like length are decoded together, padded on the left under an attention mask.

    Args:
        model: a causal language model; runs where its parameters are.
        tokenizer: its tokenizer.
        prompts: bare prompts (:func:`lottery.templates.encode` with ``response=False``).
        max_new_tokens: longest answer.
        batch_size: prompts decoded together.
        beams: hypotheses kept; 1 is greedy.
        progress: called with (prompts done, prompts in all).

    Returns:
        Outputs in the order of ``prompts``.

    Raises:
        UsageError: prompt and answer would not fit into the positions of the model.
    """
    longest = max((len(prompt) for prompt in prompts), default=0) + max_new_tokens
    positions = getattr(model.config, "max_position_embeddings", longest)
    if longest > positions:
        raise UsageError(
            f"the longest prompt with {max_new_tokens} new tokens needs {longest} positions, the model has"
            f" {positions}: lower --max-new-tokens",
            code="MAX_LENGTH",
        )
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    outputs: dict[int, Output] = {}
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = [prompts[i] for i in chosen]
        for i, output in zip(chosen, _decode(model, tokenizer, batch, max_new_tokens, beams), strict=True):
            outputs[i] = output
        if progress is not None:
            progress(len(outputs), len(prompts))
    return [outputs[i] for i in range(len(prompts))]


def _decode(
    model: PreTrainedModel, tokenizer: Any, batch: Sequence[Example], max_new_tokens: int, beams: int
) -> list[Output]:
    width = max(len(prompt) for prompt in batch)
    end = int(tokenizer.eos_token_id)
    ids = torch.full((len(batch), width), end)
    mask = torch.zeros((len(batch), width), dtype=torch.long)
    for row, prompt in enumerate(batch):
        ids[row, width - len(prompt) :] = torch.tensor(prompt.ids)
        mask[row, width - len(prompt) :] = 1
    with torch.inference_mode():
        produced = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=beams,
            eos_token_id=end,
            pad_token_id=end,
        )
    outputs = []
    for prompt, row in zip(batch, produced[:, width:].tolist(), strict=True):
        ended = end in row
        answer = row[: row.index(end)] if ended else row
        # Some tokenizers flag line breaks as special: nothing but the end of sentence is dropped here.
        text = tokenizer.decode(answer, skip_special_tokens=False)
        outputs.append(Output(prompt.id, text, ended, len(answer) + ended))
    return outputs
