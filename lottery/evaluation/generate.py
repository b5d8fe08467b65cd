"""Decode prompts in batches, with the same result as one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from certify.base.errors import InvalidInputError, UsageError
from certify.ticket.templates import Example
from lottery.model.backbone import output_head
from lottery.model.loss import head_input, padded
from lottery.model.row_swap import Placed
from lottery.model.tokenizer import decode as to_text
from lottery.text.segments import TARGET, segments_of


@dataclass(frozen=True, slots=True)
class Output:
    """A model's answer to one prompt.

    Attributes:
        text: the answer up to the end of sentence, decoded by the tokenizer.
        ended: whether the model produced the end-of-sentence token; otherwise the answer was cut off.
    """

    id: str
    text: str
    ended: bool
    tokens: tuple[int, ...]


def generate(
    placed: Placed,
    tokenizer: Any,
    prompts: Sequence[Example],
    *,
    max_new_tokens: int,
    batch_size: int,
    beams: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[Output]:
    """Decode every prompt, greedily or by beam search, without sampling; outputs in the same order.

    Prompts of similar length are decoded together, padded on the left under an attention mask. A checkpoint's
    ``generation_config.json`` is ignored: no penalties, no processors.

    Args:
        prompts: bare prompts (:func:`certify.ticket.templates.encode` with ``response=False``).
        beams: hypotheses kept; 1 is greedy.
        progress: called with (prompts done, prompts in all).

    Raises:
        UsageError: prompt and answer do not fit the model's positions, or beam search is requested with a
            prefix or gated rows.
        InvalidInputError: the model's logits are not finite (``NON_FINITE``).
    """
    check_fits(placed, prompts, max_new_tokens)
    outputs: dict[int, Output] = {}
    for chosen in batches(prompts, batch_size):
        batch = [prompts[i] for i in chosen]
        made = decode(placed, tokenizer, batch, max_new_tokens=max_new_tokens, beams=beams)
        outputs.update(zip(chosen, made, strict=True))
        if progress is not None:
            progress(len(outputs), len(prompts))
    return [outputs[i] for i in range(len(prompts))]


def batches(prompts: Sequence[Example], batch_size: int) -> Iterator[list[int]]:
    """Group the indices of prompts of similar length, shortest first."""
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def check_fits(placed: Placed, prompts: Sequence[Example], max_new_tokens: int) -> None:
    """Refuse prompts that do not fit the model, before any is decoded.

    Raises:
        UsageError: ``MAX_LENGTH``.
    """
    longest = max((len(prompt) for prompt in prompts), default=0) + max_new_tokens + placed.prefix_length
    positions = getattr(placed.model.config, "max_position_embeddings", longest)
    if longest > positions:
        raise UsageError(
            f"the longest prompt with {max_new_tokens} new tokens needs {longest} positions, but the model"
            f" has {positions}: lower --max-new-tokens",
            code="MAX_LENGTH",
        )


def decode(
    placed: Placed,
    tokenizer: Any,
    batch: Sequence[Example],
    *,
    max_new_tokens: int,
    beams: int = 1,
    begun: Sequence[Sequence[int]] | None = None,
) -> list[Output]:
    """Decode one batch of prompts together; see :func:`generate`.

    Args:
        begun: how each answer begins, where greedy decoding need not find out again.
    """
    end = tokenizer.eos_token_id
    if end is None:
        raise UsageError("the tokenizer has no end-of-sentence token", code="TOKENIZER_NO_EOS")
    with torch.inference_mode():
        if beams == 1:
            answers = greedy(placed, batch, max_new_tokens, int(end), begun)
        else:
            answers = _beam_search(placed, batch, max_new_tokens, int(end), beams)
    outputs = []
    for prompt, answer in zip(batch, answers, strict=True):
        ended = answer[-1] == end
        text = to_text(tokenizer, answer[:-1] if ended else answer)
        outputs.append(Output(prompt.id, text, ended, tuple(answer)))
    return outputs


def greedy(
    placed: Placed,
    batch: Sequence[Example],
    max_new_tokens: int,
    end: int,
    begun: Sequence[Sequence[int]] | None = None,
) -> list[list[int]]:
    """Decode greedily, up to and including the token ``end``; finished sequences leave the batch.

    Args:
        begun: how each answer begins, where it is known; default: with nothing.
    """
    model = placed.model
    answers = [list(answer) for answer in begun] if begun else [[] for _ in batch]

    def unfinished(rows: Sequence[int]) -> list[int]:
        """Places in ``rows`` of the sequences that go on."""
        return [
            place
            for place, row in enumerate(rows)
            if len(answers[row]) < max_new_tokens and answers[row][-1:] != [end]
        ]

    rows = unfinished(range(len(batch)))  # original row of each sequence that is still decoded
    if not rows:
        return answers
    going = list(range(len(rows)))  # places in ``rows`` of those that are not finished
    fed = [(*batch[row].ids, *answers[row]) for row in rows]
    codes = [[*segments_of(batch[row]), *[TARGET] * len(answers[row])] for row in rows]
    ids, mask = _left_padded(fed, end, model.device)
    mask = torch.cat([mask.new_ones(len(rows), placed.prefix_length), mask], dim=1)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, placed.prefix_length :]
    inputs = placed.inputs(ids, padded(codes, left=True).to(model.device))
    cache = placed.cache(len(rows))
    # Only the last position: the logits of a whole prompt are large and not needed. Contiguous, because torch
    # copies a frozen head once for every sequence of a strided input.
    with head_input(output_head(model), lambda hidden: hidden[:, -1:].contiguous()):
        while True:
            output = model(
                **inputs, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
            )
            cache = output.past_key_values
            best, tokens = output.logits[:, -1].max(dim=-1)
            check_finite(best)
            said = tokens.tolist()
            for place in going:
                answers[rows[place]].append(said[place])
            going = unfinished(rows)
            if not going:
                return answers
            positions = positions[:, -1:] + 1
            # Dropping sequences copies the cache, which pays only for several at once.
            if (len(rows) - len(going)) * 8 >= len(rows):
                kept = torch.tensor(going, device=model.device)
                cache.reorder_cache(kept)
                tokens, positions, mask = tokens[kept], positions[kept], mask[kept]
                rows = [rows[place] for place in going]
                going = list(range(len(rows)))
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            tokens = tokens[:, None]
            inputs = placed.inputs(tokens, torch.full_like(tokens, TARGET))


def _beam_search(
    placed: Placed, batch: Sequence[Example], max_new_tokens: int, end: int, beams: int
) -> list[list[int]]:
    model = placed.model
    if placed.gated or placed.prefix_length:
        raise UsageError("beam search does not support gated rows or prefixes", code="BEAMS_UNSUPPORTED")
    ids, mask = _left_padded([prompt.ids for prompt in batch], end, model.device)
    with _neutral_settings(model):
        produced = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=beams,
            eos_token_id=end,
            pad_token_id=end,
        )
    answers = []
    for answer in produced[:, ids.shape[1] :].tolist():
        answers.append(answer[: answer.index(end) + 1] if end in answer else answer)
    return answers


def _left_padded(fed: Sequence[Sequence[int]], end: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Build token ids and attention mask ``[B, T]``, padded on the left."""
    ids = padded(fed, end, left=True)
    return ids.to(device), padded([[1] * len(one) for one in fed], left=True).to(device)


def check_finite(best: Tensor) -> None:
    """Refuse largest logits ``[...]`` that are NaN or infinite. A NaN anywhere makes the largest one NaN.

    Raises:
        InvalidInputError: ``NON_FINITE``.
    """
    if not bool(best.isfinite().all()):
        raise InvalidInputError("the model's logits are not finite", code="NON_FINITE")


@contextmanager
def _neutral_settings(model: PreTrainedModel) -> Iterator[None]:
    """Ignore the checkpoint's generation settings, which may set penalties, forced tokens or other ends."""
    own = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own
