"""The training loop, with results that do not depend on how the work is split.

Learning rate, order of the data and random numbers are functions of settings and step number. Hence a saved
state consists of parameters, moments and the step, and a resumed run on the same CPU reproduces the weights
of an uninterrupted one bit for bit. The loss of a step is summed over tokens. Its gradient is divided by the
number of target tokens in the whole batch, over all parts and processes, so neither gradient accumulation nor
the number of processes changes it.
"""

from __future__ import annotations

import hashlib
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from certify.base.errors import InvalidInputError, UsageError
from certify.ticket.templates import IGNORED, Example
from lottery.model.loss import target_loss
from lottery.tuning.batching import collate, plan_batches
from lottery.tuning.recipe import Recipe, learning_rate

if TYPE_CHECKING:
    from accelerate import Accelerator

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one forward pass. They affect memory and speed, and the result only by rounding.

    Attributes:
        micro_batch: largest number of examples in one forward pass of one process.
    """

    micro_batch: int
    autocast: bool = False


@dataclass(frozen=True, slots=True)
class StepReport:
    """Report of one optimiser step.

    Attributes:
        step: optimiser steps taken, including this one.
        epoch: pass over the data, from 1.
        loss: mean cross-entropy over the batch's target tokens before the step, nats per token.
        gradient_norm: norm of the gradient before clipping.
        tokens: tokens fed so far, without padding, over all processes.
        speed: tokens per second in this step, over all processes.
        held_out: mean cross-entropy on the held-out examples after the step, if measured.
    """

    step: int
    steps: int
    epoch: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int
    speed: float
    held_out: float | None = None


class Trainer:
    """AdamW on the trainable parameters of a model, one global batch at a time.

    Attributes:
        optimiser: AdamW over exactly these.
    """

    def __init__(
        self,
        model: nn.Module,
        head: nn.Module,
        examples: Sequence[Example],
        *,
        recipe: Recipe,
        limits: Limits,
        seed: int,
        accelerator: Accelerator,
        held_out: Sequence[Example] = (),
    ) -> None:
        """Prepare ``model`` (on the accelerator's device) for training on ``examples``.

        Args:
            model: causal language model whose parameters with ``requires_grad`` are trained.
            examples: training examples, each with at least one target.
            seed: seed for the order of the data and every random number.
            held_out: examples on which the loss is measured after each epoch.

        Raises:
            UsageError: there are no examples, one has no target, or no fp32 parameter is trainable.
        """
        if not all(_targets(example) for example in (*examples, *held_out)):
            raise UsageError("an example has no target token to predict", code="NO_TARGETS")
        if not examples:
            raise UsageError("there is nothing to train on: no examples are left", code="NO_EXAMPLES")
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        narrow = [name for name, p in self.parameters.items() if p.dtype != torch.float32]
        if not self.parameters or narrow:
            what = f"{narrow[0]} is not fp32" if narrow else "no parameter is trainable"
            raise UsageError(f"cannot train: {what}; load the backbone in fp32", code="NOT_TRAINABLE")
        self._recipe, self._limits, self._seed, self.accelerator = recipe, limits, seed, accelerator
        self._examples, self._held_out, self._head = examples, held_out, head
        self._per_epoch = math.ceil(len(examples) / recipe.batch_size)
        self._plan: tuple[int, list[list[int]]] = (-1, [])
        self.steps = self._per_epoch * recipe.epochs
        self.step = 0
        self.tokens = 0
        with warnings.catch_warnings(action="ignore", category=FutureWarning):
            # PyTorch 2.13 renames broadcast_buffers, which accelerate passes on; older versions only have it.
            self._model = accelerator.prepare_model(model)
        self.optimiser = torch.optim.AdamW(
            list(self.parameters.values()),
            lr=recipe.learning_rate,
            betas=(recipe.beta1, recipe.beta2),
            eps=recipe.epsilon,
            weight_decay=recipe.weight_decay,
        )

    def run(self, after: Callable[[StepReport], None]) -> None:
        """Train from the current step to the end; ``after`` is called after each step.

        Raises:
            InvalidInputError: the loss or the gradient is not finite. The parameters are as before the step.
        """
        device = self.accelerator.device
        with torch.random.fork_rng([device.index or 0] if device.type == "cuda" else []):
            while self.step < self.steps:
                after(self._advance())

    def held_out_loss(self) -> float | None:
        """Measure the mean cross-entropy on held-out targets, in nats per token; None without examples."""
        if not self._held_out:
            return None
        self._model.eval()
        with torch.no_grad():
            total, count = self._summed(self._held_out, train=False)
        return total / count

    def _advance(self) -> StepReport:
        start = time.perf_counter()
        epoch, index = divmod(self.step, self._per_epoch)
        batch = [self._examples[i] for i in self._batches(epoch)[index]]
        torch.manual_seed(_number(self._seed, "step", self.step, self.accelerator.process_index))
        rate = learning_rate(self._recipe, self.step, self.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self._model.train()
        self.optimiser.zero_grad(set_to_none=True)
        total, targets = self._summed(batch, train=True)
        loss = total / targets
        limit = math.inf if self._recipe.clip is None else self._recipe.clip
        norm = float(nn.utils.clip_grad_norm_(self.parameters.values(), limit))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            what = "gradient" if math.isfinite(loss) else "loss"
            raise InvalidInputError(
                f"the {what} is not finite at step {self.step + 1} of {self.steps}, learning rate {rate:.3g}:"
                " lower the rate, or compute in fp32 or bf16 instead of fp16",
                code="LOSS_NOT_FINITE",
            )
        self.optimiser.step()
        self.step += 1
        fed = sum(len(example) for example in batch)
        self.tokens += fed
        return StepReport(
            step=self.step,
            steps=self.steps,
            epoch=epoch + 1,
            loss=loss,
            learning_rate=rate,
            gradient_norm=norm,
            tokens=self.tokens,
            speed=fed / (time.perf_counter() - start),
            held_out=self.held_out_loss() if index + 1 == self._per_epoch else None,
        )

    def _batches(self, epoch: int) -> list[list[int]]:
        if self._plan[0] != epoch:
            lengths = [len(example) for example in self._examples]
            size = self._recipe.batch_size
            self._plan = (epoch, plan_batches(lengths, seed=self._seed, epoch=epoch, size=size))
        return self._plan[1]

    def _summed(self, batch: Sequence[Example], *, train: bool) -> tuple[float, int]:
        """Sum loss and targets of ``batch`` over all processes; in training, also compute gradients."""
        processes, rank = self.accelerator.num_processes, self.accelerator.process_index
        device = self.accelerator.device
        targets = sum(_targets(example) for example in batch)
        # Sorted by length: every process gets its share of long examples, every part little padding.
        batch = sorted(batch, key=len, reverse=True)
        # A process without a share still takes part in the reduction, with an example of weight zero.
        share, weight = (batch[rank::processes], 1.0) if rank < len(batch) else (batch[:1], 0.0)
        most = self._limits.micro_batch
        parts = [share[start : start + most] for start in range(0, len(share), most)]
        total = torch.zeros((), dtype=torch.float64, device=device)
        for number, part in enumerate(parts):
            inputs = collate(part, device)
            last = number == len(parts) - 1
            with nullcontext() if last or not train else self.accelerator.no_sync(self._model):
                with torch.autocast(device.type, torch.bfloat16, enabled=self._limits.autocast):
                    loss = target_loss(self._model, self._head, inputs) * weight
                if train:
                    loss.backward()
            total += loss.detach()
        if train:
            # Divided only now: the gradient of a sum is of order one, which fp16 can represent. The processes
            # have averaged theirs.
            for parameter in self.parameters.values():
                if parameter.grad is not None:
                    parameter.grad.mul_(processes / targets)
        return float(self.accelerator.reduce(total, reduction="sum")), targets


def _targets(example: Example) -> int:
    # Nothing predicts the first token.
    return sum(label != IGNORED for label in example.labels[1:])


def _number(*parts: object) -> int:
    text = ":".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode("ascii")).digest()[:7], "big")


@contextmanager
def one_line_memory(limits: Limits) -> Iterator[None]:
    """Turn an out-of-memory error into one line that says what to lower.

    Raises:
        UsageError: the device ran out of memory.
    """
    try:
        yield
    except RuntimeError as error:  # base of torch.OutOfMemoryError; the CPU allocator raises it directly
        if not any(text in str(error) for text in _OUT_OF_MEMORY):
            raise
        raise UsageError(
            f"out of memory: lower --micro-batch (now {limits.micro_batch}) or --max-length, use"
            " --gradient-checkpointing, or load the backbone with --dtype bf16",
            code="OUT_OF_MEMORY",
        ) from error
