"""What an experiment will cost: trained parameters, memory and time by step. Estimates, and called so.

Time is a fixed cost of the step plus a rate times the work: one parameter and one token of a forward pass are
one unit, and a backward pass through a frozen backbone costs another two, through trained weights three. Both
are measured on this machine where steps of the same kind are finished, otherwise stated defaults for two
processor cores or for a GPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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
"""Seconds per unit of work (per entry of both tables for a scan), rough.

``cpu``: two processor cores in fp32, as small models showed it where others worked, too. ``gpu``: one
data-centre GPU in 16 bits at 100 TFLOP/s, a third of its peak; stated, not measured. Decoding feeds one token
at a time and costs far more a unit than training does. A scan always runs on the processor."""

FIXED: Mapping[Kind, float] = {"tune": 0.5, "decode": 0.2, "loss": 0.1, "scan": 0.1, "other": 0.3}
"""Seconds of a step beside its work: digests, files, setting up. Rough, as tiny models show it."""

LOADING = 5e-9
"""Seconds a byte of a model that is loaded and digested, once a tuning."""

STARTING = 10.0
"""Seconds until the first step begins: libraries are loaded, the base is digested. Once an experiment."""

READING = 0.1
"""What a token that is read costs beside one that is generated: many are read at a time."""


@dataclass(frozen=True, slots=True)
class Amount:
    """Work of one step.

    Attributes:
        kind: what is done.
        tokens: tokens fed (tune, loss) or generated (decode); an upper end.
        read: tokens that decoding reads: prompts, and the reference's outputs with theirs.
        method: ``rows`` (all rows), ``partial``, ``lora``, ``prefix``, ``full``; for kind ``tune``.
        rows: trained rows where they are known beforehand.
        share: the same as a share of the table (``81/32000``), or the empty string.
        size: rank or prefix length.
        micro_batch: sequences in memory at a time.
        length: longest sequence in tokens.
        bytes_per_weight: of the backbone in memory.
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
class Model:
    """Size of a model: numbers of its weights, and its shape."""

    parameters: int
    shape: GeometryPlan


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of one step.

    Attributes:
        trained: trained parameters; None where rows decide that are not chosen yet.
        memory: bytes, roughly.
        seconds: roughly.
        measured: the rate was measured on this machine.
        processor: what the rate is for.
    """

    trained: int | None
    memory: int
    seconds: float
    measured: bool
    processor: Processor


@dataclass(frozen=True, slots=True)
class Rate:
    """Seconds a unit of work, and seconds of a step beside it."""

    unit: float
    fixed: float


def model_of(base: Path | None, stated: GeometryPlan | None) -> Model:
    """Size of the base model: read from its folder, or as the plan states it.

    Raises:
        UsageError: neither is there (``GEOMETRY_UNKNOWN``).
        InvalidInputError: the checkpoint is refused.
    """
    if base is not None:
        shape = _shape(base)
        count = 0
        for path in sorted(base.glob("*.safetensors")):
            for info in read_header(path).values():
                size = 1
                for extent in info.shape:
                    size *= extent
                count += size
        return Model(count or parameters_of(shape), shape)
    if stated is None:
        raise UsageError(
            "the size of the model is unknown: name it with --base, or state [geometry] in the plan",
            code="GEOMETRY_UNKNOWN",
        )
    return Model(parameters_of(stated), stated)


def parameters_of(shape: GeometryPlan) -> int:
    """Number of weights of a LLaMA with an output head of its own."""
    d, wide = shape.width, shape.intermediate
    keys = d * shape.kv_heads // shape.heads
    layer = 2 * d * d + 2 * d * keys + 3 * d * wide + 2 * d
    return 2 * shape.vocabulary * d + shape.layers * layer + d


def work_of(amount: Amount, model: Model) -> float:
    """Units of work; see the module's text."""
    if amount.kind == "scan":
        return 2.0 * model.shape.vocabulary * model.shape.width
    passes = {"tune": 4.0 if amount.method == "full" else 3.0}.get(amount.kind, 1.0)
    return passes * (amount.tokens + READING * amount.read) * model.parameters


def rows_of_rule(rule: str) -> int | None:
    """Number of rows that a rule of a ticket gives whatever the tables are; None where they decide."""
    name, _, argument = rule.partition(":")
    if name == "published":
        ids = published().tickets.get(argument)
        return None if ids is None else len(ids)
    if name == "ids":
        return len(set(argument.split(",")))
    return int(argument) if argument.isascii() and argument.isdigit() else None


def trained_of(amount: Amount, model: Model) -> int | None:
    """Trained parameters of a tuning; 0 for any other step, None where the rows are not known yet."""
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


def memory_of(amount: Amount, model: Model) -> int:
    """Bytes: weights, AdamW's fp32 state of what is trained, and activations in fp32."""
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
    amount: Amount, model: Model, rates: Mapping[Kind, Rate], processor: Processor = "cpu"
) -> Estimate:
    """Cost of one step, with the measured ``rates`` where there are any, otherwise those of ``processor``."""
    measured = amount.kind in rates
    rate = Rate(DEFAULT_RATES[processor][amount.kind], _fixed(amount, model))
    if measured:
        rate = rates[amount.kind]
    seconds = rate.fixed + rate.unit * work_of(amount, model)
    return Estimate(trained_of(amount, model), memory_of(amount, model), seconds, measured, processor)


def _fixed(amount: Amount, model: Model) -> float:
    loading = LOADING * model.parameters * amount.bytes_per_weight if amount.kind == "tune" else 0.0
    return FIXED[amount.kind] + loading


def measured_rates(finished: Iterable[tuple[Amount, float]], model: Model) -> dict[Kind, Rate]:
    """Rates by kind, from finished steps as ``(amount, seconds)``: the median over them.

    The fixed cost is the stated one, or that of the shortest step if that took less.
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
    read_config(base / "config.json")  # refuses what is malformed
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
            f"{base / 'config.json'} does not say {missing[0]}: state [geometry] in the plan",
            code="GEOMETRY_UNKNOWN",
        )
    values = {name: config[key] for name, key in names.items()}
    keys = config.get("num_key_value_heads")
    return GeometryPlan(**values, kv_heads=keys if type(keys) is int and keys > 0 else values["heads"])
