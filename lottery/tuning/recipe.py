"""Optimiser settings for each kind of tuning, and the learning rate as a function of the step.

Embed and partial tuning use the values reported in the paper, which does not report clipping. The schedule,
batch and clipping of partial tuning come from a replication with the paper's learning rate. Full tuning, LoRA
and prefix tuning are comparison arms; their values are customary, not the paper's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal, get_args

from certify.base.errors import UsageError

Method = Literal["rows", "full", "lora", "prefix"]
"""What is trained: embedding rows, all weights, LoRA matrices, or a prefix of keys and values."""

LARGEST_RATE = 1e30
"""Largest learning rate: AdamW divides it by 1 - beta1, and the step must be finite in fp32."""

LARGEST_DECAY = 1e6
"""Largest weight decay; its product with the largest learning rate must be finite in fp32."""

Schedule = Literal["cosine", "linear", "constant"]
"""Shape of the learning rate after warm-up; cosine and linear end at zero."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings of AdamW and of the passes over the data.

    Attributes:
        batch_size: examples per optimiser step, over all processes and accumulated parts.
        warmup: fraction of all steps over which the rate rises linearly from zero, in [0, 1).
        weight_decay: decoupled decay of the trained parameters per unit of learning rate.
        clip: largest norm of the gradient; None disables clipping.
        beta1: decay of Adam's first moment.
        beta2: decay of Adam's second moment.
        epsilon: added to the root of the second moment.
    """

    learning_rate: float
    epochs: int
    batch_size: int
    schedule: Schedule = "cosine"
    warmup: float = 0.03
    weight_decay: float = 0.0
    clip: float | None = 1.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        """Validate the values.

        Raises:
            UsageError: a value is out of range.
        """
        ranges = {
            f"learning rate above 0 and at most {LARGEST_RATE:g}": 0 < self.learning_rate <= LARGEST_RATE,
            "at least one epoch": self.epochs >= 1,
            "batch size of at least 1": self.batch_size >= 1,
            f"schedule among {', '.join(get_args(Schedule))}": self.schedule in get_args(Schedule),
            "warm-up fraction in [0, 1)": 0 <= self.warmup < 1,
            f"weight decay from 0 to {LARGEST_DECAY:g}": 0 <= self.weight_decay <= LARGEST_DECAY,
            f"clipping norm above 0 and at most {LARGEST_RATE:g}": self.clip is None
            or 0 < self.clip <= LARGEST_RATE,
            "betas in [0, 1)": 0 <= self.beta1 < 1 and 0 <= self.beta2 < 1,
            f"epsilon above 0 and at most {LARGEST_RATE:g}": 0 < self.epsilon <= LARGEST_RATE,
        }
        for demand, met in ranges.items():
            if not met:
                raise UsageError(f"value out of range: expected {demand}", code="RECIPE_RANGE")


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "embed": Recipe(learning_rate=2e-5, epochs=3, batch_size=128),
        "partial": Recipe(learning_rate=1e-2, epochs=5, batch_size=64, schedule="constant", warmup=0.0),
        "full": Recipe(learning_rate=2e-5, epochs=3, batch_size=128),
        "lora": Recipe(learning_rate=2e-4, epochs=3, batch_size=128),
        "prefix": Recipe(learning_rate=1e-2, epochs=5, batch_size=128),
    }
)
"""Default recipe by mode; see :func:`mode`."""


def adjusted(recipe: Recipe, **values: Any) -> Recipe:
    """Replace the values that are not None; a clip of 0 disables clipping.

    Raises:
        UsageError: a value is out of range.
    """
    given = {name: value for name, value in values.items() if value is not None}
    if given.get("clip") == 0:
        given["clip"] = None
    return replace(recipe, **given)


def mode(method: Method, *, all_rows: bool) -> str:
    """Name the default recipe: ``embed`` or ``partial`` for rows, otherwise the method itself."""
    if method == "rows":
        return "embed" if all_rows else "partial"
    return method


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Compute the learning rate of optimiser step ``step`` (from 0) of ``steps``.

    It rises linearly over the first ``ceil(warmup * steps)`` steps, the last of which has the peak rate, and
    then follows the schedule. Cosine and linear would reach zero at the step after the last.
    """
    warm = math.ceil(recipe.warmup * steps)
    if step < warm:
        return recipe.learning_rate * (step + 1) / warm
    done = (step - warm) / max(1, steps - warm)
    factor = {"cosine": (1 + math.cos(math.pi * done)) / 2, "linear": 1 - done, "constant": 1.0}
    return recipe.learning_rate * factor[recipe.schedule]
