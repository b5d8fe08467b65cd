"""Estimates of what an experiment costs: trained parameters, memory and time by step.

Time is a fixed cost of the step plus its work times the seconds per unit of work. A unit is one weight times
one position. Weights of the layers act on every position that is fed, those of the head only where a token is
predicted. A backward pass costs as much as a forward pass through frozen weights, twice as much through
trained ones. Where the model is at hand, rates are measured with it (:mod:`lottery.experiment.engine.speed`);
otherwise they are assumed. Where steps of the same kind are finished, the estimate is multiplied by how much
longer they took.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from statistics import median
from typing import Any, Literal

from certify.base.errors import UsageError
from certify.base.jsonio import read_json
from certify.selection.rules import published
from certify.tables.modelconfig import read_config
from certify.tables.safefile import read_header
from lottery.evaluation.forced_decoding import LOGITS
from lottery.experiment.plan.fields import GeometryPlan, rows_of_share

Kind = Literal["tune", "decode", "loss", "scan", "other"]

Operation = Literal["train", "read", "decode", "step", "scan"]
"""What takes time: training; reading many positions at a time; decoding, by positions that are fed one at a
time, and by steps whatever their batch, per weight; a scan, per entry of both tables."""

Processor = Literal["cpu", "gpu"]

Basis = Literal["finished", "measured", "assumed"]

ASSUMED: Mapping[Processor, Mapping[Operation, float]] = {
    "cpu": {"train": 2.2e-11, "read": 2e-11, "decode": 2e-11, "step": 4e-10, "scan": 4e-9},
    "gpu": {"train": 2e-14, "read": 2e-14, "decode": 2e-14, "step": 1e-12, "scan": 4e-9},
}
"""Rough seconds per unit of each operation.

``cpu``: two processor cores in fp32, with models of 13 and 163 million weights. ``gpu``: one data-centre GPU
in 16 bits at 100 TFLOP/s, a third of its peak, and 2 TB/s; not measured. A scan runs on the processor."""

FIXED: Mapping[Kind, float] = {"tune": 0.5, "decode": 0.2, "loss": 0.1, "scan": 0.1, "other": 0.3}
"""Rough fixed cost of a step in seconds: digests, files, set-up; measured with tiny models."""

PROCESS = 600_000_000
"""Bytes of memory that Python and its libraries take on the processor."""

LOADING = 5e-9
"""Seconds per byte to load and digest a model, once per tuning."""

STARTING = 10.0
"""Seconds before the first step, to load libraries and digest the base; once per experiment."""


@dataclass(frozen=True, slots=True)
class Passes:
    """Positions that are fed through the layers, and those at which the head predicts a token."""

    layers: int = 0
    head: int = 0


@dataclass(frozen=True, slots=True)
class Amount:
    """Work of one step.

    Attributes:
        train: what training feeds, forward and backward.
        read: what is fed without a gradient, many positions at a time.
        decode: what decoding feeds, one position of each sequence at a time.
        steps: steps of decoding, each for a batch.
        method: ``rows`` (all rows), ``partial``, ``lora``, ``prefix``, ``full``; for kind ``tune``.
        rows: number of trained rows, if known beforehand.
        share: trained rows as a share of the table (``81/32000``), or empty.
        size: rank or prefix length.
        checkpointing: whether training computes activations twice, to save memory.
        micro_batch: number of sequences in memory at a time.
        length: longest sequence in tokens.
        bytes_per_weight: bytes per weight of the backbone in memory.
        along_path: whether decisions are measured along the path from one table to another.
    """

    kind: Kind
    train: Passes = Passes()
    read: Passes = Passes()
    decode: Passes = Passes()
    steps: int = 0
    method: str = ""
    rows: int | None = None
    share: str = ""
    size: int = 0
    checkpointing: bool = False
    micro_batch: int = 1
    length: int = 0
    bytes_per_weight: int = 4
    along_path: bool = False


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Size of a model: number of weights, and shape. Rows are tuned on models whose head is not tied."""

    parameters: int
    shape: GeometryPlan

    @property
    def head(self) -> int:
        """Number of weights of the output head, and of the input table."""
        return self.shape.vocabulary * self.shape.width

    def units(self, passes: Passes) -> float:
        """Units of work of a forward pass."""
        layers = max(self.parameters - 2 * self.head, 0)
        return float(passes.layers * layers + passes.head * self.head)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Rough cost of one step: memory in bytes, and seconds.

    Attributes:
        trained: number of trained parameters; None if it depends on rows that are not chosen yet.
        basis: where the time is from: finished steps of the same kind, rates measured with the model, or
            rates assumed for ``processor``.
    """

    trained: int | None
    memory: int
    seconds: float
    basis: Basis
    processor: Processor


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a machine is.

    Attributes:
        rates: seconds per unit of each operation.
        measured: whether they were measured, with the model.
        factors: how much longer finished steps of a kind took than these rates say.
    """

    processor: Processor
    rates: Mapping[Operation, float]
    measured: bool = False
    factors: Mapping[Kind, float] = field(default_factory=dict)


def assumed(processor: Processor) -> Speed:
    """The speed of a machine on which nothing was measured."""
    return Speed(processor, ASSUMED[processor])


def model_of(base: Path | None, stated: GeometryPlan | None) -> ModelSize:
    """Find the size of the base model, from its folder or from the plan.

    Raises:
        UsageError: there is neither (``GEOMETRY_UNKNOWN``).
        InvalidInputError: the checkpoint is malformed.
    """
    if base is not None:
        shape = _shape(base)
        headers = (read_header(path).values() for path in base.glob("*.safetensors"))
        count = sum(prod(info.shape) for header in headers for info in header)
        return ModelSize(count or parameters_of(shape), shape)
    if stated is None:
        raise UsageError(
            "the size of the model is unknown: name the model with --base, or add [geometry] to the plan",
            code="GEOMETRY_UNKNOWN",
        )
    return ModelSize(parameters_of(stated), stated)


def parameters_of(shape: GeometryPlan) -> int:
    """Count the weights of a LLaMA with an untied output head."""
    d, wide = shape.width, shape.intermediate
    layer = 2 * d * shape.queries + 2 * d * shape.keys + 3 * d * wide + 2 * d
    return 2 * shape.vocabulary * d + shape.layers * layer + d


def work_of(amount: Amount, model: ModelSize) -> dict[Operation, float]:
    """Compute the units of work of each operation; see the module's docstring."""
    if amount.kind == "scan":
        return {"scan": 2.0 * model.head}
    passes = (3 if amount.method == "full" else 2) + amount.checkpointing
    return {
        "train": passes * model.units(amount.train),
        "read": model.units(amount.read),
        "decode": model.units(amount.decode),
        "step": float(amount.steps * model.parameters),
    }


def rows_of_rule(rule: str) -> int | None:
    """Number of rows that a rule always selects; None if it depends on the tables."""
    name, _, argument = rule.partition(":")
    if name == "published":
        ids = published().tickets.get(argument)
        return None if ids is None else len(ids)
    if name == "ids":
        return len(set(argument.split(",")))
    # No table has more than nine digits of rows, and Python refuses to read thousands of digits.
    return int(argument) if argument.isascii() and argument.isdigit() and len(argument) < 10 else None


def trained_of(amount: Amount, model: ModelSize) -> int | None:
    """Count the trained parameters of a tuning; 0 for any other step, None if the rows are not known yet."""
    if amount.kind != "tune":
        return 0
    shape = model.shape
    if amount.method == "rows":
        return shape.vocabulary * shape.width
    if amount.method == "full":
        return model.parameters
    if amount.method == "lora":  # queries and values, peft's default for LLaMA
        return shape.layers * amount.size * (2 * shape.width + shape.queries + shape.keys)
    if amount.method == "prefix":
        return shape.layers * amount.size * 2 * shape.keys
    rows = rows_of_share(shape.vocabulary, amount.share) if amount.share else amount.rows
    return None if rows is None else rows * shape.width


def memory_of(amount: Amount, model: ModelSize, processor: Processor) -> int:
    """Estimate bytes of memory of the process at its peak, or of the GPU.

    Training holds weights, AdamW's fp32 state of trained parameters, activations of the longest micro-batch,
    and fp32 logits. Evaluation holds weights, a table of embed tuning in fp32 and the rows that it replaces,
    a cache, and activations of one layer; along the path, two tables in fp32 and one as served besides.
    """
    shape = model.shape
    taken = 0 if processor == "gpu" else PROCESS
    if amount.kind in ("scan", "other"):
        return PROCESS
    taken += model.parameters * amount.bytes_per_weight
    positions = amount.micro_batch * amount.length
    if amount.kind == "tune":
        trained = trained_of(amount, model) or 0
        layers = 1 if amount.checkpointing else shape.layers
        hidden = layers * (10 * shape.width + 4 * shape.intermediate)
        return taken + 16 * trained + positions * (amount.bytes_per_weight * hidden + 4 * shape.vocabulary)
    hidden = 2 * shape.layers * shape.keys + 6 * shape.width + 4 * shape.intermediate
    logits = min(positions * shape.vocabulary, LOGITS)
    tables = 4 + amount.bytes_per_weight
    if amount.along_path:
        tables += 8 + amount.bytes_per_weight
    return taken + tables * model.head + amount.bytes_per_weight * positions * hidden + 8 * logits


def estimate(amount: Amount, model: ModelSize, speed: Speed) -> Estimate:
    """Estimate the cost of one step."""
    timed = speed.measured and amount.kind not in ("scan", "other")
    basis: Basis = "finished" if amount.kind in speed.factors else "measured" if timed else "assumed"
    seconds = _seconds(amount, model, speed) * speed.factors.get(amount.kind, 1.0)
    return Estimate(
        trained_of(amount, model), memory_of(amount, model, speed.processor), seconds, basis, speed.processor
    )


def factors_of(finished: Iterable[tuple[Amount, float]], model: ModelSize, speed: Speed) -> dict[Kind, float]:
    """Compute how much longer finished steps took than ``speed`` says, by kind: the median.

    Args:
        finished: work and seconds of each step.
    """
    found: dict[Kind, list[float]] = {}
    for amount, seconds in finished:
        if amount.kind != "other" and seconds > 0:
            found.setdefault(amount.kind, []).append(seconds / _seconds(amount, model, speed))
    return {kind: median(ratios) for kind, ratios in found.items()}


def _seconds(amount: Amount, model: ModelSize, speed: Speed) -> float:
    loading = LOADING * model.parameters * amount.bytes_per_weight if amount.kind == "tune" else 0.0
    work = sum(speed.rates[operation] * units for operation, units in work_of(amount, model).items())
    return FIXED[amount.kind] + loading + work


def _shape(base: Path) -> GeometryPlan:
    read_config(base / "config.json")  # refuses a malformed file
    config: Any = read_json(base / "config.json", what="configuration of the model")
    names = {
        "vocabulary": "vocab_size",
        "width": "hidden_size",
        "layers": "num_hidden_layers",
        "intermediate": "intermediate_size",
        "heads": "num_attention_heads",
    }
    missing = [key for key in names.values() if type(config.get(key)) is not int or config[key] < 1]
    if missing:
        raise UsageError(
            f"{base / 'config.json'}: missing field {missing[0]}; add [geometry] to the plan",
            code="GEOMETRY_UNKNOWN",
        )
    values = {name: config[key] for name, key in names.items()}
    keys, one = (config.get(key) for key in ("num_key_value_heads", "head_dim"))
    values["kv_heads"] = keys if type(keys) is int and keys > 0 else values["heads"]
    return GeometryPlan(**values, head_width=one if type(one) is int and one > 0 else None)
