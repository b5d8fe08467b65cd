"""What every part of a layout builds steps with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from certify.base.records import Dtype
from certify.tables.dtypes import parse_dtype
from certify.ticket.templates import load_template
from lottery.experiment.engine.graph import Result, Step, Work
from lottery.experiment.engine.inputs import Materials
from lottery.experiment.engine.timing import BASE, Bench
from lottery.experiment.plan.estimate import Amount
from lottery.experiment.plan.fields import PairPlan
from lottery.experiment.plan.plan import SYNTHETIC, ExperimentPlan

Action = Callable[[Bench, Work], Result]

SYNTHETIC_SIZES = {"train": 160, "choice": 12, "test": 24, "unrelated": 30}
"""Sentences of the texts that the package makes."""


class Builder:
    """Makes steps of one plan: what each depends on, beside what it is given, is added here.

    Attributes:
        plan: the plan.
        bench: handed to every action.
        materials: digests of base and texts.
        made: the base is made by the step ``base``.
        served: the served dtype.
    """

    def __init__(self, plan: ExperimentPlan, bench: Bench, materials: Materials) -> None:
        """See the attributes."""
        self.plan, self.bench, self.materials = plan, bench, materials
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
    ) -> Step:
        """A step of the graph; it depends on the base model unless it is ``free`` of it."""
        inputs = dict(needs or {})
        decisive = dict(parameters)
        if self.made and not free:
            inputs[BASE] = BASE
        elif not free:
            decisive["base_sha256"] = self.materials.base
        return Step(
            name=name,
            kind=kind,
            version=version,
            parameters=decisive,
            action=partial(action, self.bench),
            needs=inputs,
            after=after,
            collects=collects,
            work=work or Amount("other"),
        )

    def texts(self, pair: PairPlan) -> dict[str, Any]:
        """Digests of a pair's tuning text and template, for the parameters of a tuning."""
        names = [*pair.data, *([pair.choice] if pair.choice else [])]
        return {
            "texts_sha256": [self.materials.pairs(name, pair.languages) for name in names],
            "template_sha256": load_template(self.plan.template).digest(),
        }
