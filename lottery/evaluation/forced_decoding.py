"""Forced decoding: what a model would have said at every step of an answer that another model gave.

What all prompts begin with is fed once. Logits are computed only at the positions of the answer, in groups of
sequences that fit a fixed budget. They are reduced at once and not kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final

import torch
from torch import Tensor

from certify.evidence.read import UNIT
from certify.ticket.templates import Example
from lottery.evaluation.generate import check_finite
from lottery.model.backbone import output_head
from lottery.model.loss import only_at, padded
from lottery.model.row_swap import Placed
from lottery.text.segments import TARGET, segments_of

LOGITS: Final = 1 << 24
"""Number of logits held at the same time: about 64 MB in fp32."""

WIDE: Final = 1 << 19
"""Number of logits held in fp64: 4 MB, which a cache keeps from one step of a sum to the next."""

SLACK: Final = 1e-3
"""In units of 1e-9. A softmax in fp64 is off by less than 1e-12. With this margin, "rounded down" and
"rounded up" hold for the exact probabilities of the logits."""


@dataclass(frozen=True, slots=True)
class Certainty:
    """Decisions and probabilities of a model at each step of an answer.

    Attributes:
        p_a: its probability in units of 1e-9, rounded down.
        p_b: the second largest probability in units of 1e-9, rounded up.
    """

    argmax: tuple[int, ...]
    p_a: tuple[int, ...]
    p_b: tuple[int, ...]


def argmaxes(
    placed: Placed, prompts: Sequence[Example], answers: Sequence[Sequence[int]]
) -> list[tuple[int, ...]]:
    """Find the most probable token at every step of every answer.

    Raises:
        InvalidInputError: logits are not finite.
    """
    found: dict[int, tuple[int, ...]] = {}
    for chosen, logits in _forced(placed, prompts, answers):
        best, tokens = logits.max(dim=-1)
        check_finite(best)
        for index, part in zip(chosen, _split(tokens, chosen, answers), strict=True):
            found[index] = tuple(part)
    return [found[index] for index in range(len(prompts))]


def certainties(
    placed: Placed, prompts: Sequence[Example], answers: Sequence[Sequence[int]]
) -> list[Certainty]:
    """Compute the two largest probabilities at every step: fp64 softmax of raw logits at temperature 1.

    Raises:
        InvalidInputError: logits are not finite.
    """
    found: dict[int, Certainty] = {}
    for chosen, logits in _forced(placed, prompts, answers):
        # topk does not define which of two equal logits comes first; max, which decoding uses, does.
        best, tokens = logits.max(dim=-1)
        check_finite(best)
        parts = [_split(column, chosen, answers) for column in (tokens, *two_largest(logits))]
        for index, token, p_a, p_b in zip(chosen, *parts, strict=True):
            found[index] = Certainty(tuple(token), tuple(p_a), tuple(p_b))
    return [found[index] for index in range(len(prompts))]


def two_largest(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The two largest probabilities of each row of raw logits ``[M, V]``, at temperature 1, in fp64.

    Returns:
        ``[M]`` each, in units of 1e-9: the largest, rounded down, and the second, rounded up.
    """
    units = (logits.topk(2, dim=-1).values.double() - _log_sum_exp(logits)).exp() * UNIT
    down = (units[:, 0] - SLACK).floor().clamp(0, UNIT).long()
    return down, (units[:, 1] + SLACK).ceil().clamp(0, UNIT).long()


def log_likelihoods(
    placed: Placed, prompts: Sequence[Example], answers: Sequence[Sequence[int]]
) -> list[float]:
    """Compute the log-likelihood (nats, fp64) of every answer after its prompt.

    Raises:
        InvalidInputError: logits are not finite.
    """
    found: dict[int, float] = {}
    for chosen, logits in _forced(placed, prompts, answers):
        check_finite(logits.amax(dim=-1))
        wanted = torch.tensor([token for index in chosen for token in answers[index]], device=logits.device)
        each = (logits.gather(1, wanted[:, None]).double() - _log_sum_exp(logits)).squeeze(1)
        check_finite(each)
        for index, part in zip(chosen, each.split([len(answers[index]) for index in chosen]), strict=True):
            found[index] = float(part.sum())
    return [found[index] for index in range(len(prompts))]


def _log_sum_exp(logits: Tensor) -> Tensor:
    """Over the rows of ``logits`` ``[M, V]``, in fp64: ``[M, 1]``."""
    largest = logits.amax(dim=-1, keepdim=True).double()
    sums = torch.empty_like(largest)
    rows = max(1, WIDE // logits.shape[-1])
    wide = logits.new_empty(rows, logits.shape[-1], dtype=torch.float64)
    for part, top, total in zip(logits.split(rows), largest.split(rows), sums.split(rows), strict=True):
        torch.sum(wide[: len(part)].copy_(part).sub_(top).exp_(), dim=-1, keepdim=True, out=total)
    return largest + sums.log()


def _forced(
    placed: Placed, prompts: Sequence[Example], answers: Sequence[Sequence[int]]
) -> Iterator[tuple[list[int], Tensor]]:
    """Yield indices of sequences and the logits ``[M, V]`` at all steps of their answers, concatenated."""
    model = placed.model
    head = output_head(model)
    begun = _begin(placed, prompts) if placed.prefix_length == 0 else None
    fed = 0 if begun is None else begun.get_seq_length()
    cached = placed.prefix_length + fed
    budget = max(1, LOGITS // int(model.config.get_text_config().vocab_size))
    with torch.inference_mode():
        for chosen in _chunks(prompts, answers, budget):
            ids, mask, segments, steps = _right_padded(
                [prompts[i] for i in chosen], [answers[i] for i in chosen], model.device, fed
            )
            whole = torch.cat([mask.new_ones(len(chosen), cached), mask], dim=1)
            positions = torch.arange(ids.shape[1], device=ids.device) + cached
            cache = placed.cache(len(chosen))
            if begun is not None:
                cache = deepcopy(begun)
                cache.batch_repeat_interleave(len(chosen))
            with only_at(head, steps):
                output = model(
                    **placed.inputs(ids, segments),
                    attention_mask=whole,
                    position_ids=positions.expand(len(chosen), -1),
                    past_key_values=cache,
                    use_cache=cached > 0,
                )
            yield chosen, output.logits.reshape(-1, output.logits.shape[-1])


def _begin(placed: Placed, prompts: Sequence[Example]) -> Any:
    """A cache of one sequence with what all prompts begin with, without a last token; None if nothing."""
    shortest = min((len(prompt) for prompt in prompts), default=1) - 1
    columns = zip(*(prompt.ids[:shortest] for prompt in prompts), strict=True)
    same = sum(1 for _ in takewhile(lambda column: len({*column}) == 1, columns))
    if same == 0:
        return None
    model, device = placed.model, placed.model.device
    ids = torch.tensor([prompts[0].ids[:same]], device=device)
    segments = torch.tensor([segments_of(prompts[0])[:same]], device=device)
    with torch.inference_mode(), only_at(output_head(model), torch.tensor([0], device=device)):
        return model(**placed.inputs(ids, segments), use_cache=True).past_key_values


def _chunks(prompts: Sequence[Example], answers: Sequence[Sequence[int]], budget: int) -> Iterator[list[int]]:
    """Group indices by similar length, with at most ``budget`` steps or one sequence per group."""
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]) + len(answers[i]), i))
    group: list[int] = []
    steps = 0
    for index in order:
        if group and steps + len(answers[index]) > budget:
            yield group
            group, steps = [], 0
        group.append(index)
        steps += len(answers[index])
    if group:
        yield group


def _right_padded(
    prompts: Sequence[Example], answers: Sequence[Sequence[int]], device: torch.device, fed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Build ids, mask and segment codes ``[B, T]``, and the flat positions that predict the answers.

    The last token of an answer is predicted but not fed; the first ``fed`` of each prompt were fed before.
    """
    pairs = list(zip(prompts, answers, strict=True))
    ids = padded([(*prompt.ids[fed:], *answer[:-1]) for prompt, answer in pairs])
    mask = padded([[1] * (len(prompt) - fed + len(answer) - 1) for prompt, answer in pairs])
    segments = padded([segments_of(prompt)[fed:] + [TARGET] * (len(answer) - 1) for prompt, answer in pairs])
    steps: list[int] = []
    for row, (prompt, answer) in enumerate(pairs):
        first = row * ids.shape[1] + len(prompt) - fed - 1
        steps += range(first, first + len(answer))
    return ids.to(device), mask.to(device), segments.to(device), torch.tensor(steps, device=device)


def _split(column: Tensor, chosen: list[int], answers: Sequence[Sequence[int]]) -> list[list[int]]:
    return [part.tolist() for part in column.split([len(answers[index]) for index in chosen])]
