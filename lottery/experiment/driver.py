"""Run a whole experiment from a plan and a base model to tickets and evidence, resumable at any moment.

:func:`run` finishes every step of the plan. Called again, it runs only steps that are missing or depend on
something that changed. Only one run at a time may use a folder.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from certify.base.errors import UsageError
from certify.base.jsonio import pretty_json, write_bytes
from lottery.experiment.engine.cache import Cache
from lottery.experiment.engine.context import RunContext
from lottery.experiment.engine.graph import State, StepStanding
from lottery.experiment.engine.inputs import UNKNOWN, InputDigests, base_digest
from lottery.experiment.engine.journal import ExperimentJournal, Line, recorded_seconds
from lottery.experiment.engine.speed import machine_memory, measure_speed
from lottery.experiment.layout.layout import layout
from lottery.experiment.plan.estimate import (
    Amount,
    Estimate,
    Processor,
    assumed,
    estimate,
    factors_of,
    memory_of,
    model_of,
)
from lottery.experiment.plan.plan import BESIDE_DATA, PUBLISHED, SYNTHETIC, ExperimentPlan
from lottery.experiment.steps.publish import deliver
from lottery.model.backbone import find_base
from lottery.model.device import Device
from lottery.pretrain.plan import data_folder
from lottery.text.score import require_tokenizer

JOURNAL, LOCK, PLAN = "journal.jsonl", "lock", "plan.json"

_PUBLISHED = Path(__file__).resolve().parents[2] / "reports" / "published"


@dataclass(frozen=True, slots=True)
class Row:
    """One step in a dry run or a status.

    Attributes:
        state: state of the step; None in a dry run without a folder.
        seconds: wall seconds of its last finished attempt; None if there is none.
    """

    step: str
    state: State | None
    reason: str
    seconds: float | None
    estimate: Estimate | None


def run(
    plan: ExperimentPlan,
    out: Path,
    *,
    base: str | None = None,
    data: Path | None = None,
    device: Device = "auto",
    only: Sequence[str] = (),
    report: Callable[[Line], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[StepStanding]:
    """Run an experiment to its end, from the start or from where it stopped.

    Args:
        base: checkpoint folder or hub name, instead of the plan's.
        data: folder that the plan's paths are relative to; default ``data`` under ``CERTIFY_DATA``.
        only: patterns of step names; runs these and what they need.
        progress: called with (done, all) within a step.

    Raises:
        UsageError: a named file does not exist, or another run uses ``out`` (``EXPERIMENT_LOCKED``).
        CertifyError: a step failed. Steps finished before stay finished.
    """
    context, input_digests = _start(plan, base, data, required=True)
    context.device, context.progress, context.save_every = device, progress, plan.tuning.save_every
    graph = layout(plan, context, input_digests)
    chosen = graph.chosen(only) if only else {step.name for step in graph.steps}
    if any(step.kind == "measure" and step.name in chosen for step in graph.steps):
        require_tokenizer(plan.evaluation.bleu_tokenizer)  # fail now rather than after hours of tuning
    with _locked(out):
        write_bytes(out / PLAN, pretty_json(plan.model_dump(mode="json")).encode("utf-8"))
        journal = ExperimentJournal(out / JOURNAL, len(graph.steps), report)
        journal.begin(plan)
        cache = Cache(out)
        finished = graph.run(cache, only=only, watch=journal.watch)
        for standing in finished:
            if standing.step.kind == "publish" and standing.done is not None:
                deliver(cache.folder(standing.step.name), standing.done.outputs, out)
        return finished


def dry_run(
    plan: ExperimentPlan,
    out: Path | None = None,
    *,
    base: str | None = None,
    data: Path | None = None,
    device: Device = "auto",
    measure: bool = False,
) -> list[Row]:
    """List what :func:`run` would do and cost. Model and text need not be available, and none is fetched.

    Args:
        out: a folder whose finished steps are taken into account.
        measure: time the model on this machine, if it is at hand and the plan can run here.

    Raises:
        UsageError: the size of the model is neither known nor stated in the plan.
    """
    context, input_digests = _start(plan, base, data, required=False)
    graph = layout(plan, context, input_digests)
    model = model_of(context.base, plan.geometry)
    seconds = {} if out is None else recorded_seconds(out / JOURNAL)
    done = [(step.work, seconds[step.name]) for step in graph.steps if step.name in seconds]
    # As asked, as in the plan, or as on this machine.
    here: Processor = "gpu" if device != "cpu" and torch.cuda.is_available() else "cpu"
    processor = "cpu" if device == "cpu" else plan.estimate.device
    speed = assumed(here if processor == "auto" else processor)
    needed = max(memory_of(step.work, model, here) for step in graph.steps)
    folder = context.base if measure and speed.processor == here else None
    if folder is not None and needed <= machine_memory(here):
        speed = measure_speed(plan, folder, model, device)
    finished = [(amount, time) for amount, time in done if isinstance(amount, Amount)]
    speed = replace(speed, factors=factors_of(finished, model, speed))
    return [
        Row(step.name, None, "", seconds.get(step.name), estimate(step.work, model, speed))
        for step in graph.steps
    ]


def status(
    plan: ExperimentPlan, out: Path, *, base: str | None = None, data: Path | None = None
) -> list[Row]:
    """Report the state of each step in ``out``. Outputs are digested; nothing is run or written.

    Raises:
        UsageError: ``out`` does not exist, or base or texts are not available.
    """
    if not out.is_dir():
        raise UsageError(f"no folder {out}: nothing was run there", code="FILE_UNREADABLE")
    context, input_digests = _start(plan, base, data, required=True)
    seconds = recorded_seconds(out / JOURNAL)
    return [
        Row(found.step.name, found.state, found.reason, seconds.get(found.step.name), None)
        for found in layout(plan, context, input_digests).standings(Cache(out))
    ]


def is_running(out: Path) -> bool:
    """Whether a run is using ``out`` now."""
    path = out / LOCK
    if not path.exists():
        return False
    with path.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _start(
    plan: ExperimentPlan, base: str | None, data: Path | None, *, required: bool
) -> tuple[RunContext, InputDigests]:
    """Find base and texts and compute the base's digest; fetch nothing unless ``required``."""
    if plan.base == SYNTHETIC:
        if base is not None or data is not None:
            raise UsageError(f"plan {plan.name} makes its own base and text", code="USAGE")
        return RunContext(None, None), InputDigests("", None)
    try:
        folder = find_base(base or _located(plan.base), download=required)
        digest = base_digest(folder) if required else UNKNOWN
    except UsageError:
        if required:
            raise
        folder, digest = None, UNKNOWN
    root = None
    if required or data is not None:
        root = data_folder(data)
    return RunContext(folder, root), InputDigests(digest, root, required)


def _located(name: str) -> str:
    if name.startswith(PUBLISHED):
        return str(_PUBLISHED / name.removeprefix(PUBLISHED))
    if not name.startswith(BESIDE_DATA):
        return name
    root = os.environ.get("CERTIFY_DATA")
    if not root:
        raise UsageError(
            f"base {name} is relative to CERTIFY_DATA, which is unset: set it, or use --base",
            code="DATA_MISSING",
        )
    return str(Path(root) / name.removeprefix(BESIDE_DATA))


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Lock ``out`` for this process. The system releases the lock however the process ends."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        stream = (out / LOCK).open("ab")
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror}", code="FILE_UNWRITABLE") from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(
                f"another run is using {out}: wait for it, or choose another --out", code="EXPERIMENT_LOCKED"
            ) from error
        yield
