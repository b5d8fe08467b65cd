"""Where a ticket is served: whether its rows are there and act, and which decisions are sure (theory §5).

A ticket that declares ``guarantee:calibrated`` promises about the decisions whose own margin is at least t.
An application marks the others, and defers to embed tuning there or flags the sentence. Margins are counted
as evidence counts them: softmax in fp64 of the raw logits at temperature 1, the largest probability rounded
down and the second rounded up, in units of 1e-9 (:func:`lottery.evaluation.forced_decoding.two_largest`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor

from certify.base.errors import InvalidInputError, UsageError
from certify.evidence.read import UNIT
from certify.tables.dtypes import to_float32
from certify.ticket.released import open_source, shown
from certify.ticket.transfer import open_parts
from lottery.evaluation.forced_decoding import SLACK, two_largest
from lottery.evaluation.generate import check_finite
from lottery.model.rows import scale_of

_PROBE, _BLOCK = 32, 4096  # rows of the ticket in the probe, rows compared at a time


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


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """What :func:`self_check` found: the certified rows are served, and they act.

    Attributes:
        ticket: digest of the ticket.
        table: tensor digest of the base, as the ticket binds it; all other rows are its rows.
        rows: number of the ticket's rows, all served bit for bit.
        others: number of the other rows.
        effect: largest absolute change of a logit of the probe by the ticket's rows; above 0.
    """

    ticket: str
    table: str
    rows: int
    others: int
    effect: float


@torch.no_grad()  # type: ignore[untyped-decorator]
def self_check(model: Any, ticket: str, *, base: Path | None = None) -> SelfCheck:
    """Compare what a model in this process looks up with a ticket, and see whether the ticket's rows act.

    The model is asked, not its weights, so that adapters count; nothing in it is changed. The probe is the
    ticket's own ids as a prompt: its logits must differ from those with the base's rows by more than from
    those of a second run.

    Args:
        model: of transformers, or wrapped by PEFT; in eval mode.
        ticket: ``FILE`` or ``FILE#ID``.
        base: the base's table or checkpoint; None takes the one beside the ticket.

    Raises:
        InvalidInputError: the table has another shape (``SHAPE_MISMATCH``), a ticket row is not served
            (``NOT_SERVED``), another row is not the base's (``FOREIGN``), the rows do not act
            (``NO_EFFECT``), or files are not the ticket's (:func:`certify.ticket.transfer.open_parts`).
        UsageError: a file cannot be read.
    """
    parts = open_parts(open_source(ticket), base)
    look_up = model.get_input_embeddings()
    inner = getattr(look_up, "base_layer", look_up)
    count, width = parts.base.shape
    if tuple(inner.weight.shape) != (count, width):
        raise InvalidInputError(
            f"the model has a table of {tuple(inner.weight.shape)}, the ticket's is {count} x {width}",
            code="SHAPE_MISMATCH",
        )
    device, scale = inner.weight.device, scale_of(inner)

    def expected(table: np.ndarray[Any, Any]) -> tuple[Tensor, Tensor]:
        """Rows as they are looked up ``[k, d]``, and which of them the model's dtype can hold ``[k]``."""
        wide = torch.from_numpy(np.array(to_float32(table, parts.base.dtype))).to(device)
        held = wide.to(inner.weight.dtype)
        return held if scale is None else held * scale, (_bits(held) == _bits(wide)).all(dim=1)

    ids, wrong = torch.from_numpy(np.array(parts.rows.ids)).to(device), []
    certified = expected(parts.rows.served)
    for start in range(0, count, _BLOCK):
        block = torch.arange(start, min(start + _BLOCK, count), device=device)
        should, held = expected(parts.base.rows(start, start + len(block)))
        here = (ids >= start) & (ids < start + len(block))
        should[ids[here] - start], held[ids[here] - start] = certified[0][here], certified[1][here]
        same = held & (_bits(look_up(block[None])[0]) == _bits(should)).all(dim=1)
        wrong += block[~same].tolist()
    own = set(ids.tolist())
    for code, what, found in (
        ("NOT_SERVED", "rows of the ticket are not served", [i for i in wrong if i in own]),
        ("FOREIGN", "rows outside the ticket are not the base's", [i for i in wrong if i not in own]),
    ):
        if found:
            raise InvalidInputError(f"{what}: {shown(found)}", code=code)
    moved = ids[(certified[0] != expected(parts.base.take(ids.tolist()))[0]).any(dim=1)][:_PROBE].tolist()
    before = expected(parts.base.take(moved))[0]
    probe = torch.tensor([moved], device=device)
    served = model(input_ids=probe).logits.double()
    again = model(inputs_embeds=look_up(probe)).logits.double()
    without = model(inputs_embeds=before[None]).logits.double()
    effect, noise = float((served - without).abs().max()), float((served - again).abs().max())
    if not effect > noise:
        raise InvalidInputError(
            f"the rows of ticket {parts.source.ticket.id!r} do not act: with the base's rows, the logits of"
            f" the probe differ by {effect:.3g}, and without a change by {noise:.3g}",
            code="NO_EFFECT",
        )
    digest, table = parts.source.ticket.digest(), parts.source.ticket.base.tensor_sha256
    return SelfCheck(digest, table, len(own), count - len(own), effect)


def _bits(values: Tensor) -> Tensor:
    """Bits in fp32, where each value of a narrower dtype has its own."""
    return values.float().contiguous().view(torch.int32)
