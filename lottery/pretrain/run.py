"""Pretrain a small LLaMA from scratch by a plan: the base model that tickets are found in.

The learning rate warms up, stays constant and falls linearly to zero. While it is constant, a run can be
shortened or prolonged: ``steps`` and ``decay_from`` of the plan may change on resumption. The result is the
same as from a run with the changed plan from the start.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from certify.base.errors import InvalidInputError, UsageError
from certify.base.jsonio import canonical_json, parse_json, read_bytes, write_bytes
from lottery.pretrain.data import PretrainText, prepare_text
from lottery.pretrain.plan import PretrainPlan
from lottery.pretrain.step import PretrainState
from lottery.pretrain.windows import Windows

CHECKPOINT = "checkpoint.safetensors"
LOG = "log.jsonl"


@dataclass(frozen=True, slots=True)
class Progress:
    """State of a run at a report.

    Attributes:
        loss: mean training loss since the last report, nats per token.
        held_out: loss on held-out windows of all sources; None if the text is too small for any.
        watch: loss on held-out windows of the watched sources; None if there are none.
        rate: factor of the peak learning rates, in [0, 1].
        tokens: tokens predicted since the start of the run.
        tokens_per_second: speed since the last report.
    """

    step: int
    steps: int
    loss: float
    held_out: float | None
    watch: float | None
    rate: float
    tokens: int
    tokens_per_second: float


def pretrain(
    plan: PretrainPlan,
    data: Path,
    out: Path,
    *,
    resume: bool = False,
    device: str = "cpu",
    workers: int = 1,
    report: Callable[[Progress], None] = lambda _: None,
    report_every: int = 50,
    save_every: int = 100,
) -> PretrainState:
    """Train by ``plan`` on the text in ``data``.

    ``out`` contains the tokenizer, the log of reports and the checkpoint, which is replaced atomically every
    ``save_every`` steps and at the end. On a CPU, a run that was killed and resumed ends with the same bits
    as an uninterrupted one. A finished run is only loaded.

    Args:
        device: ``cpu``, or another PyTorch device.
        report_every: number of steps between reports; each computes the held-out losses.

    Raises:
        UsageError: a file is missing; ``out`` contains a run and ``resume`` is false; the run in ``out``
            belongs to another plan, or the plan was changed in a field that must not change.
        InvalidInputError: a file does not match the plan, or the loss is not finite.
    """
    path = out / CHECKPOINT
    if path.exists() and not resume:
        raise UsageError(
            f"{out} already contains a run: resume it, or choose another folder", code="OUT_EXISTS"
        )
    with PretrainState(plan, device=device, workers=workers) as run:
        if path.exists():
            load_checkpoint(run, path)
        if run.step == plan.train.steps:
            return run
        text = prepare_text(plan, data, out)
        _train(run, text, out, report, report_every, save_every)
    return run


def _train(
    run: PretrainState,
    text: PretrainText,
    out: Path,
    report: Callable[[Progress], None],
    report_every: int,
    save_every: int,
) -> None:
    train = run.plan.train
    shares = [source.share for source in run.plan.source]
    windows = Windows(text.training, shares, length=train.length, seed=run.plan.seed)
    windows.skip(run.step * train.windows)
    per_step = train.windows * (train.length - 1)
    # After a kill the log may be ahead of the checkpoint; repeated steps are reported again.
    log = [entry for entry in read_log(out) if entry["step"] <= run.step]
    losses: list[float] = []
    clock = time.monotonic()
    while run.step < train.steps:
        rate = train.rate(run.step)
        losses.append(run.advance(windows.batch(train.windows)))
        last = run.step == train.steps
        if run.step % save_every == 0 or last:
            save_checkpoint(run, out / CHECKPOINT)
        if run.step % report_every == 0 or last:
            seconds = time.monotonic() - clock
            progress = Progress(
                step=run.step,
                steps=train.steps,
                loss=float(np.mean(losses)),
                held_out=run.evaluate(text.held_out),
                watch=run.evaluate(text.watch),
                rate=rate,
                tokens=run.step * per_step,
                tokens_per_second=len(losses) * per_step / max(seconds, 1e-9),
            )
            log.append(asdict(progress))
            write_bytes(out / LOG, b"".join(canonical_json(entry) + b"\n" for entry in log))
            report(progress)
            losses, clock = [], time.monotonic()


def read_log(out: Path) -> list[dict[str, Any]]:
    """Read the reports of the run in ``out``, oldest first, as fields of :class:`Progress`.

    Raises:
        InvalidInputError: the log is damaged.
    """
    path = out / LOG
    if not path.exists():
        return []
    lines = read_bytes(path, what="log", limit=1 << 26).splitlines()
    entries = [parse_json(line, what=f"{path}, line {number}") for number, line in enumerate(lines, start=1)]
    if not all(isinstance(entry, dict) and isinstance(entry.get("step"), int) for entry in entries):
        raise InvalidInputError(f"{path} is not a pretraining log", code="LOG_MALFORMED")
    return entries


def save_checkpoint(run: PretrainState, path: Path) -> None:
    """Write the state of a run atomically: safetensors, with step and plan in the metadata."""
    from safetensors.torch import save

    metadata = {
        "step": str(run.step),
        "plan": run.plan.stable_digest(),
        "steps": str(run.plan.train.steps),
        "decay_from": str(run.plan.train.decay_from),
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in run.state().items()}
    write_bytes(path, save(tensors, metadata))


def load_checkpoint(run: PretrainState, path: Path) -> None:
    """Restore what :func:`save_checkpoint` wrote.

    Raises:
        UsageError: the checkpoint belongs to another plan, or to a step before which the schedules of the
            two plans differ.
        InvalidInputError: the file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    train = run.plan.train
    try:
        with safe_open(path, framework="pt") as stream:
            metadata = stream.metadata() or {}
            step, plan = int(metadata["step"]), metadata["plan"]
            schedule = (int(metadata["steps"]), int(metadata["decay_from"]))
            if plan != run.plan.stable_digest():
                raise UsageError(f"{path} belongs to another plan", code="PLAN_MISMATCH")
            if schedule != (train.steps, train.decay_from) and step > min(schedule[1], train.decay_from):
                raise UsageError(
                    f"{path} is at step {step}, within or after a decay: steps and decay_from can no longer"
                    " change",
                    code="PLAN_MISMATCH",
                )
            run.restore({name: stream.get_tensor(name) for name in stream.keys()}, step=step)  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise InvalidInputError(
            f"{path} is not a checkpoint of pretraining: {error}", code="CHECKPOINT_MALFORMED"
        ) from error
