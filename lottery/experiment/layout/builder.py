"""The builder of steps, for every part of a layout."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from certify.tables.dtypes import parse_dtype
from certify.ticket.templates import load_template
from lottery.experiment.engine.context import BASE, Procedure, RunContext
from lottery.experiment.engine.graph import GraphStep
from lottery.experiment.engine.inputs import InputDigests
from lottery.experiment.plan.estimate import Amount
from lottery.experiment.plan.fields import PairPlan
from lottery.experiment.plan.plan import SYNTHETIC, ExperimentPlan

SYNTHETIC_SIZES = {"train": 160, "choice": 12, "test": 24, "unrelated": 30}
"""Number of sentences of each synthetic text."""


class Builder:
    """Builds the steps of one plan and adds the dependencies that all steps share.

    Attributes:
        made: whether the step ``base`` makes the base.
    """

    def __init__(self, plan: ExperimentPlan, context: RunContext, input_digests: InputDigests) -> None:
        """Set the attributes; ``context`` is passed to every action."""
        self.plan, self.context, self.input_digests = plan, context, input_digests
        self.made = plan.base == SYNTHETIC
        self.served = parse_dtype(plan.served_dtype)

    def step(
        self,
        name: str,
        procedure: Procedure,
        parameters: Mapping[str, Any],
        needs: Mapping[str, str] | None = None,
        *,
        after: tuple[str, ...] = (),
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
            kind=procedure.kind,
            version=procedure.version,
            parameters=decisive,
            action=partial(procedure.action, self.context),
            needs=inputs,
            after=after,
            collects=procedure.collects,
            work=work or Amount("other"),
        )

    def declaring(self, pair: PairPlan, text: str | None = None) -> str:
        """The step after which no ticket of a pair declares any more, before that text is evaluated."""
        asked = self.plan.calibration
        chosen = [one for one in self.plan.text if asked and one.name == asked.text]
        late = any(pair in self.plan.pairs_of(one) and one.name != text for one in chosen)
        return f"{pair.name}/{'calibrate' if late else 'tickets'}"

    def texts(self, pair: PairPlan) -> dict[str, Any]:
        """Digests of a pair's tuning text and template, for the parameters of a tuning."""
        names = [*pair.data, *([pair.choice] if pair.choice else [])]
        digests = [self.input_digests.pairs(name, pair.languages) for name in names]
        return {"texts_sha256": digests, "template_sha256": load_template(self.plan.template).digest()}
