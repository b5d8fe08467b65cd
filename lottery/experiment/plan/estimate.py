"""Estimates of what an experiment costs: trained parameters, memory and time by step.

Time is a fixed cost of the step plus a rate times the work. One parameter times one token of a forward pass
is one unit of work. A backward pass through a frozen backbone adds two units, through trained weights three.
Fixed cost and rate are measured on this machine if steps of the same kind are finished; otherwise they are
defaults for two processor cores or for a GPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from statistics import median
from typing import Any, Literal

from certify.base.errors import UsageError
from certify.base.jsonio import read_json
from certify.selection.rules import published
from certify.tables.modelconfig import read_config
from certify.tables.safefile import read_header
from lottery.experiment.plan.fields import GeometryPlan, rows_of_share

Kind = Literal["tune", "decode", "loss", "scan", "other"]

Processor = Literal["cpu", "gpu"]

DEFAULT_RATES: Mapping[Processor, Mapping[Kind, float]] = {
    "cpu": {"tune": 1.8e-11, "decode": 1.1e-10, "loss": 1e-11, "scan": 4e-9, "other": 0.0},
    "gpu": {"tune": 2e-14, "decode": 3e-13, "loss": 2e-14, "scan": 4e-9, "other": 0.0},
}
"""Rough seconds per unit of work (for a scan, per entry of both tables).

``cpu``: two processor cores in fp32, measured with small models on a shared machine. ``gpu``: one data-centre
GPU in 16 bits at 100 TFLOP/s, a third of its peak; assumed, not measured. Decoding feeds one token at a time
and costs far more per unit than training. A scan always runs on the processor."""

FIXED: Mapping[Kind, float] = {"tune": 0.5, "decode": 0.2, "loss": 0.1, "scan": 0.1, "other": 0.3}
"""Rough fixed cost of a step in seconds: digests, files, set-up; measured with tiny models."""

LOADING = 5e-9
"""Seconds per byte to load and digest a model, once per tuning."""

STARTING = 10.0
"""Seconds before the first step, to load libraries and digest the base; once per experiment."""

READING = 0.1
"""Cost of a token that is read, relative to one that is generated: many are read at a time."""


@dataclass(frozen=True, slots=True)
class Amount:
    """Work of one step.

    Attributes:
        tokens: upper limit on tokens fed (tune, loss) or generated (decode).
        read: tokens that decoding reads: prompts, and the reference's outputs with their prompts.
        method: ``rows`` (all rows), ``partial``, ``lora``, ``prefix``, ``full``; for kind ``tune``.
        rows: number of trained rows, if known beforehand.
        share: trained rows as a share of the table (``81/32000``), or empty.
        size: rank or prefix length.
        micro_batch: number of sequences in memory at a time.
        length: longest sequence in tokens.
        bytes_per_weight: bytes per weight of the backbone in memory.
    """

    kind: Kind
    tokens: int = 0
    read: int = 0
    method: str = ""
    rows: int | None = None
    share: str = ""
    size: int = 0
    micro_batch: int = 1
    length: int = 0
    bytes_per_weight: int = 4


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Size of a model: number of weights, and shape."""

    parameters: int
    shape: GeometryPlan


@dataclass(frozen=True, slots=True)
class Estimate:
    """Rough cost of one step: memory in bytes, and seconds.

    Attributes:
        trained: number of trained parameters; None if it depends on rows that are not chosen yet.
        measured: whether the rate was measured on this machine.
    """

    trained: int | None
    memory: int
    seconds: float
    measured: bool
    processor: Processor


@dataclass(frozen=True, slots=True)
class Rate:
    """Seconds per unit of work, and fixed seconds per step."""

    unit: float
    fixed: float


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
    keys = d * shape.kv_heads // shape.heads
    layer = 2 * d * d + 2 * d * keys + 3 * d * wide + 2 * d
    return 2 * shape.vocabulary * d + shape.layers * layer + d


def work_of(amount: Amount, model: ModelSize) -> float:
    """Compute the units of work; see the module's docstring."""
    if amount.kind == "scan":
        return 2.0 * model.shape.vocabulary * model.shape.width
    passes = {"tune": 4.0 if amount.method == "full" else 3.0}.get(amount.kind, 1.0)
    return passes * (amount.tokens + READING * amount.read) * model.parameters


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
    keys = shape.width * shape.kv_heads // shape.heads
    if amount.method == "rows":
        return shape.vocabulary * shape.width
    if amount.method == "full":
        return model.parameters
    if amount.method == "lora":  # queries and values, peft's default for LLaMA
        return shape.layers * amount.size * (2 * shape.width + shape.width + keys)
    if amount.method == "prefix":
        return shape.layers * amount.size * 2 * keys
    rows = rows_of_share(shape.vocabulary, amount.share) if amount.share else amount.rows
    return None if rows is None else rows * shape.width


def memory_of(amount: Amount, model: ModelSize) -> int:
    """Estimate bytes of memory: weights, AdamW's fp32 state of trained parameters, fp32 activations."""
    shape = model.shape
    if amount.kind in ("scan", "other"):
        return 64 << 20
    weights = model.parameters * amount.bytes_per_weight
    if amount.kind != "tune":
        cache = 2 * shape.layers * shape.width * 4
        return weights + amount.micro_batch * amount.length * cache
    trained = trained_of(amount, model) or 0
    positions = amount.micro_batch * amount.length
    hidden = shape.layers * (10 * shape.width + 4 * shape.intermediate)
    return weights + 16 * trained + 4 * positions * (hidden + shape.vocabulary // 4)


def estimate(
    amount: Amount, model: ModelSize, rates: Mapping[Kind, Rate], processor: Processor = "cpu"
) -> Estimate:
    """Estimate the cost of one step, from measured ``rates`` if any, otherwise for ``processor``."""
    rate = rates.get(amount.kind) or Rate(DEFAULT_RATES[processor][amount.kind], _fixed(amount, model))
    seconds = rate.fixed + rate.unit * work_of(amount, model)
    measured = amount.kind in rates
    return Estimate(trained_of(amount, model), memory_of(amount, model), seconds, measured, processor)


def _fixed(amount: Amount, model: ModelSize) -> float:
    loading = LOADING * model.parameters * amount.bytes_per_weight if amount.kind == "tune" else 0.0
    return FIXED[amount.kind] + loading


def measured_rates(finished: Iterable[tuple[Amount, float]], model: ModelSize) -> dict[Kind, Rate]:
    """Compute the median rate of each kind from finished steps, given as ``(amount, seconds)``.

    The fixed cost is the default, or the time of the shortest step if that is less.
    """
    found: dict[Kind, list[tuple[float, float]]] = {}
    fixed: dict[Kind, float] = {}
    for amount, seconds in finished:
        work = work_of(amount, model)
        if work > 0 and seconds > 0:
            found.setdefault(amount.kind, []).append((work, seconds))
            fixed[amount.kind] = min(fixed.get(amount.kind, _fixed(amount, model)), seconds)
    return {
        kind: Rate(median((seconds - fixed[kind]) / work for work, seconds in steps), fixed[kind])
        for kind, steps in found.items()
    }


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
    keys = config.get("num_key_value_heads")
    return GeometryPlan(**values, kv_heads=keys if type(keys) is int and keys > 0 else values["heads"])
