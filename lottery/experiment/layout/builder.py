"""The builder of steps, for every part of a layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from certify.base.records import Dtype
from certify.tables.dtypes import parse_dtype
from certify.ticket.templates import load_template
from lottery.experiment.engine.context import BASE, RunContext
from lottery.experiment.engine.graph import GraphStep, Result, Work
from lottery.experiment.engine.inputs import InputDigests
from lottery.experiment.plan.estimate import Amount
from lottery.experiment.plan.fields import PairPlan
from lottery.experiment.plan.plan import SYNTHETIC, ExperimentPlan

Action = Callable[[RunContext, Work], Result]

SYNTHETIC_SIZES = {"train": 160, "choice": 12, "test": 24, "unrelated": 30}
"""Number of sentences of each synthetic text."""


class Builder:
    """Builds the steps of one plan and adds the dependencies that all steps share.

    Attributes:
        made: whether the step ``base`` makes the base.
    """

    def __init__(self, plan: ExperimentPlan, context: RunContext, input_digests: InputDigests) -> None:
        """Set the attributes."""
        self.plan, self.context, self.input_digests = plan, context, input_digests
        self.made = plan.base == SYNTHETIC
        self.served: Dtype = parse_dtype(plan.served_dtype)

    def step(
        self,
        name: str,
        kind: str,
        action: Action,
        version: int,
        parameters: Mapping[str, Any],
        needs: Mapping[str, str] | None = None,
        *,
        after: tuple[str, ...] = (),
        collects: bool = False,
        work: Amount | None = None,
        free: bool = False,
    ) -> GraphStep:
        """Build a step; it depends on the base model unless ``free``."""
        inputs = dict(needs or {})
        decisive = dict(parameters)
        if self.made and not free:
            inputs[BASE] = BASE
        elif not free:
            decisive["base_sha256"] = self.input_digests.base
        return GraphStep(
            name=name,
            kind=kind,
            version=version,
            parameters=decisive,
            action=partial(action, self.context),
            needs=inputs,
            after=after,
            collects=collects,
            work=work or Amount("other"),
        )

    def texts(self, pair: PairPlan) -> dict[str, Any]:
        """Digests of a pair's tuning text and template, for the parameters of a tuning."""
        names = [*pair.data, *([pair.choice] if pair.choice else [])]
        return {
            "texts_sha256": [self.input_digests.pairs(name, pair.languages) for name in names],
            "template_sha256": load_template(self.plan.template).digest(),
        }
