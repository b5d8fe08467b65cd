"""How fast this machine is with a model: a few operations of the kinds that a plan needs, timed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from certify.tables.dtypes import parse_dtype
from certify.ticket.templates import Example, Span
from lottery.evaluation.forced_decoding import certainties
from lottery.evaluation.generate import greedy
from lottery.experiment.plan.estimate import (
    ASSUMED,
    Amount,
    ModelSize,
    Operation,
    Passes,
    Processor,
    Speed,
    work_of,
)
from lottery.experiment.plan.plan import ExperimentPlan
from lottery.model.backbone import load_backbone, output_head
from lottery.model.device import Device
from lottery.model.loss import target_loss
from lottery.model.row_swap import Placed
from lottery.model.rows import install
from lottery.tuning.arms import checkpoint_activations
from lottery.tuning.batching import collate

_STEPS = 6
"""Steps of decoding."""

_FEW = 8
"""Sequences that are read together."""

_NO_END = -1
"""A token that no model predicts: decoding goes on."""

_ENOUGH = 1.0
"""Seconds after which an operation is not repeated."""

_REPETITIONS = 5


def machine_memory(processor: Processor) -> int:
    """Bytes of memory of this machine, or of its GPU."""
    if processor == "gpu":
        return int(torch.cuda.get_device_properties(0).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def measure_speed(plan: ExperimentPlan, folder: Path, model: ModelSize, device: Device) -> Speed:
    """Load the model in ``folder`` and time it with the batches, lengths and dtypes of ``plan``.

    Takes about as long as twenty steps of decoding and two micro-batches of training. What else the machine
    does counts. Token ids are arbitrary: what a position costs does not depend on its token.
    """
    processor: Processor = "gpu" if device != "cpu" and torch.cuda.is_available() else "cpu"
    where = torch.device("cuda" if processor == "gpu" else "cpu")
    rates = {**ASSUMED[processor], **_evaluation(plan, folder, model, where)}
    rates["train"] = _training(plan, folder, model, where)
    return Speed(processor, rates, measured=True)


def _evaluation(
    plan: ExperimentPlan, folder: Path, model: ModelSize, where: torch.device
) -> dict[Operation, float]:
    sizes, batch, rows = plan.estimate, max(plan.evaluation.batch, 2), model.shape.vocabulary
    backbone = load_backbone(folder, parse_dtype(plan.evaluation.dtype)).eval().to(where)
    ready = Placed(backbone)
    prompts = [_example(number, sizes.prompt_tokens, rows) for number in range(batch)]

    def step(count: int) -> float:
        """Seconds of a step of decoding ``count`` sequences."""
        short = _seconds(where, lambda: greedy(ready, prompts[:count], 1, _NO_END))
        return (_seconds(where, lambda: greedy(ready, prompts[:count], 1 + _STEPS, _NO_END)) - short) / _STEPS

    step(1)  # the first passes set up libraries
    one, many = step(1), step(batch)
    each = max(many - one, 0.0) / (batch - 1)
    answer = _example(0, sizes.new_tokens, rows).ids
    few = prompts[:_FEW]
    read = Passes(len(few) * (sizes.prompt_tokens + len(answer) - 1), len(few) * len(answer))
    seconds = _seconds(where, lambda: certainties(ready, few, [answer] * len(few)))
    return {
        "decode": each / model.units(Passes(1, 1)),
        "step": max(one - each, 0.0) / model.parameters,
        "read": seconds / model.units(read),
    }


def _training(plan: ExperimentPlan, folder: Path, model: ModelSize, where: torch.device) -> float:
    """Seconds per unit of work of training."""
    tuning = plan.tuning
    backbone = load_backbone(folder, parse_dtype(tuning.dtype)).train().to(where)
    if tuning.gradient_checkpointing:
        checkpoint_activations(backbone)
    install(backbone, None)
    length = min(plan.estimate.tokens_per_pair, tuning.max_length)
    examples = [_example(number, length, model.shape.vocabulary) for number in range(tuning.micro_batch)]
    inputs, head = collate(examples, where), output_head(backbone)

    def train() -> None:
        with torch.autocast(where.type, torch.bfloat16, enabled=tuning.autocast):
            loss = target_loss(backbone, head, inputs)
        loss.backward()

    train()
    fed = Passes(tuning.micro_batch * length, tuning.micro_batch * (length // 3))
    amount = Amount("tune", train=fed, checkpointing=tuning.gradient_checkpointing)
    return _seconds(where, train) / work_of(amount, model)["train"]


def _example(number: int, length: int, vocabulary: int) -> Example:
    """An example of ``length`` tokens, the last third of which is its response."""
    ids = tuple((7 * number + place) % vocabulary for place in range(length))
    prompt, empty = length - length // 3, Span(0, 0)
    return Example(str(number), ids, prompt, empty, empty, empty)


def _seconds(where: torch.device, action: Callable[[], object]) -> float:
    """Seconds that an action takes: the median of a few repetitions, or of one if it takes long."""
    found: list[float] = []
    while sum(found) < _ENOUGH and len(found) < _REPETITIONS:
        began = time.perf_counter()
        action()
        if where.type == "cuda":
            torch.cuda.synchronize(where)
        found.append(time.perf_counter() - began)
    return median(found)
