"""Serving with a calibrated margin: which decisions of a ticket's model are sure (theory §5).

A ticket that declares ``guarantee:calibrated`` promises about the decisions whose own margin is at least t.
An application marks the others, and defers to embed tuning there or flags the sentence. Margins are counted
as evidence counts them: softmax in fp64 of the raw logits at temperature 1, the largest probability rounded
down and the second rounded up, in units of 1e-9 (:func:`lottery.evaluation.forced_decoding.two_largest`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction

import torch
from torch import Tensor
from transformers import LogitsProcessor

from certify.base.errors import UsageError
from certify.evidence.read import UNIT
from lottery.evaluation.forced_decoding import SLACK, two_largest
from lottery.evaluation.generate import check_finite


class MarginGate(LogitsProcessor):  # type: ignore[misc]
    """Marks the steps of greedy generation whose own margin is below t; it changes no logit.

    One gate serves one call of ``generate``, batched or not:

        gate = MarginGate(ticket.calibration.t, end=tokenizer.eos_token_id)
        model.generate(..., do_sample=False, logits_processor=LogitsProcessorList([gate]))
        unsure = gate.unsure()  # by sequence: the steps to defer or to flag

    Prompts may be padded on the left. Steps of a sequence after its end token do not count. Beams, sampling
    and processors behind the gate are refused where they first show. Penalties come before it: set none.
    """

    def __init__(self, t: str, *, end: int | Sequence[int]) -> None:
        """Mark margins below ``t``, as a ticket declares it; ``end``: ids that end a sequence."""
        self._least = least(t)
        self._end = torch.tensor([end] if isinstance(end, int) else list(end))
        self._below: list[Tensor] = []  # by step [B]
        self._open: list[Tensor] = []  # by step [B]: the sequence had not ended before it
        self._fed = torch.empty(0, 0, dtype=torch.long)
        self._said = torch.empty(0, dtype=torch.long)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Mark one step.

        Args:
            input_ids: ids fed so far ``[B, T]``.
            scores: logits of the next token ``[B, V]``, returned as they are.

        Raises:
            UsageError: the tokens fed are not the most probable ones of the step before (``GREEDY_ONLY``).
            InvalidInputError: logits are not finite.
        """
        best, said = scores.max(dim=-1)
        check_finite(best)
        unended = torch.ones(len(said), dtype=torch.bool, device=said.device)
        if self._open:
            unended = self._open[-1] & ~torch.isin(self._said, self._end.to(said.device))
            fed = torch.cat([self._fed, self._said[:, None]], dim=1)
            if fed.shape != input_ids.shape or not bool((fed == input_ids)[unended].all()):
                raise UsageError(
                    "margins are marked of one greedy generation: without beams or sampling, as the last"
                    " processor, and with a new gate for each call",
                    code="GREEDY_ONLY",
                )
        p_a, p_b = two_largest(scores)
        self._below.append((p_a - p_b).clamp(min=0) < self._least)
        self._open.append(unended)
        self._fed, self._said = input_ids, said
        return scores

    def unsure(self) -> list[list[int]]:
        """By sequence: its steps below t, counted from 0, up to and including its end token."""
        if not self._below:
            return []
        marked = torch.stack(self._below, dim=1) & torch.stack(self._open, dim=1)
        return [row.nonzero().flatten().tolist() for row in marked]


def unsure(t: str, top: Iterable[tuple[float, float]]) -> list[int]:
    """Steps below t of one sequence, from another engine: counted from 0.

    Args:
        t: the margin, as a ticket declares it.
        top: by step, the natural logarithms of the two largest probabilities at temperature 1, without
            penalties (vLLM: ``logprobs=2``). Evidence has fp64; with fp32, margins are off by up to 1e-6.

    Raises:
        UsageError: a step does not have two finite logarithms, the larger one first (``LOGPROBS``).
    """
    margin, found = least(t), []
    for step, (first, second) in enumerate(top):
        if not second <= first <= 1e-6 or math.isnan(first):
            text = f"step {step}: expected the two largest logarithms of probabilities, not {first}, {second}"
            raise UsageError(text, code="LOGPROBS")
        p_a = max(0, min(UNIT, math.floor(math.exp(first) * UNIT - SLACK)))
        p_b = max(0, min(UNIT, math.ceil(math.exp(second) * UNIT + SLACK)))
        if max(0, p_a - p_b) < margin:
            found.append(step)
    return found


def least(t: str) -> int:
    """The margin t in units of 1e-9.

    Raises:
        UsageError: it is no decimal in (0, 1) of at most nine digits (``MARGIN_RANGE``).
    """
    try:
        value = Fraction(t) * UNIT
    except ValueError:
        value = Fraction(0)
    if value.denominator != 1 or not 0 < value < UNIT:
        raise UsageError(
            f"a margin is a decimal in (0, 1) of at most nine digits, not {t!r}", code="MARGIN_RANGE"
        )
    return int(value)
