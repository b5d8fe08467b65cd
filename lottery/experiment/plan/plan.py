"""Experiment plans, from a base model to evidence, as strictly validated TOML.

A plan contains the settings of an experiment; the command line names the places of base and data. To make an
experiment smaller, lower ``tuning.limit``, ``controls.limit`` or the ``limit`` of a text. The shipped plans
(``lottery/plans``) show the form.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from certify.base.jsonio import canonical_json, sha256_bytes
from certify.base.model import Model, Slug, unless_given
from certify.ticket.corpus import Take
from certify.ticket.declared import DeclaredClaim, StrengthLaw, common_law
from lottery.experiment.plan import fields
from lottery.pretrain.plan import read_plan_file

SYNTHETIC = "synthetic"
"""Base and text that an experiment makes itself."""

PUBLISHED = "published:"
"""A base that ships in ``reports/published``."""

BESIDE_DATA = "data:"
"""A base in the folder that CERTIFY_DATA names, such as ``data:models/NAME``."""


class ExperimentPlan(Model):
    """A whole experiment; see the module's docstring and the shipped plans.

    ``threads`` limits PyTorch's threads unless the caller does: a tiny model runs best on one. It does not
    affect results. ``take`` says which pairs, sentences and passages a limit takes: a sample by digest
    (:func:`certify.ticket.corpus.drawn`), or the first of a text, as all experiments did once.
    """

    name: Slug
    seed: fields.Seed
    base: Annotated[str, Field(min_length=1)]
    template: str = "alpaca"
    served_dtype: fields.Precision
    bundle: bool | Literal["base-elsewhere"] = True
    threads: Annotated[int, Field(ge=1, le=4096)] | None = None
    take: Take = "sample"
    pair: Annotated[tuple[fields.PairPlan, ...], Field(min_length=1, max_length=64)]
    tuning: fields.TuningPlan = fields.TuningPlan()
    embed: fields.EmbedPlan = fields.EmbedPlan()
    partial: fields.RecipePlan = fields.RecipePlan()
    ticket: Annotated[tuple[fields.TicketPlan, ...], Field(min_length=1, max_length=64)]
    comparator: tuple[fields.ComparatorPlan, ...] = ()
    controls: tuple[fields.ControlsPlan, ...] = ()
    text: Annotated[tuple[fields.TextPlan, ...], Field(max_length=64)] = ()
    unrelated: fields.UnrelatedPlan | None = None
    evaluation: fields.EvaluationPlan = fields.EvaluationPlan()
    calibration: fields.CalibrationPlan | None = None
    declared: tuple[DeclaredClaim, ...] = ()
    geometry: fields.GeometryPlan | None = None
    estimate: fields.EstimatePlan = fields.EstimatePlan()

    _as_given = unless_given("calibration")

    @model_validator(mode="after")
    def _calibrated(self) -> Self:
        if self.calibration is None:
            return self
        found = [text for text in self.text if text.name == self.calibration.text and text.role == "choice"]
        if not found or any(pair.choice != found[0].data for pair in self.pairs_of(found[0])):
            raise ValueError("calibration.text must name a text of role choice, the choice text of its pairs")
        claims = (*self.declared, *(claim for ticket in self.ticket for claim in ticket.declared))
        if any(claim.calibration for claim in claims):
            raise ValueError("calibration chooses the margin: no declared claim may have one")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        named: dict[str, Sequence[str]] = {
            "pair": [pair.name for pair in self.pair],
            "ticket": [ticket.id for ticket in self.ticket],
            "text": [text.name for text in self.text],
            "comparator": [comparator.method for comparator in self.comparator],
            "controls": [controls.ticket for controls in self.controls],
            "embed.seeds": [str(seed) for seed in (self.seed, *self.embed.seeds)],
        }
        for what, names in named.items():
            if len(set(names)) != len(names):
                raise ValueError(f"two entries of {what} are the same")
        pairs = {pair.name for pair in self.pair}
        for text in self.text:
            if not set(text.pairs) <= pairs:
                raise ValueError(f"text {text.name} names a pair that is not in the plan")
        known = {ticket.id: ticket for ticket in self.ticket}
        for controls in self.controls:
            if controls.ticket not in known:
                raise ValueError(f"controls.ticket {controls.ticket} is not a ticket of the plan")
            if not set(controls.objects) <= set(known[controls.ticket].objects):
                raise ValueError(f"controls.objects of {controls.ticket} must be among the ticket's objects")
        return self

    @property
    def paraphrases(self) -> tuple[str, ...]:
        """Distinct templates of all controls."""
        return tuple(dict.fromkeys(name for controls in self.controls for name in controls.paraphrases))

    def controls_of(self, ticket: str) -> fields.ControlsPlan | None:
        """Controls of the ticket with that id; None if there are none."""
        return next((controls for controls in self.controls if controls.ticket == ticket), None)

    def limited(self, limit: int | None) -> dict[str, Any]:
        """A limit as parameters of a step; ``first`` is not named, so that older results keep their keys."""
        sample = limit is not None and self.take == "sample"
        return {"limit": limit} | ({"take": "sample"} if sample else {})

    @property
    def notices(self) -> tuple[str, ...]:
        """Warnings for readers of the plan or its results, one line each."""
        return tuple(
            f"controls of {controls.ticket}: draws = {controls.draws}; with fewer than three draws of random"
            " null tickets no claim against nulls can be made"
            for controls in self.controls
            if controls.draws < fields.FEWEST_DRAWS and fields.RANDOM_NULLS & set(controls.kinds)
        )

    @property
    def path(self) -> StrengthLaw | None:
        """Strengths at which the arms of tickets are asked, too; raises as :func:`common_law`."""
        claims = (*self.declared, *(claim for ticket in self.ticket for claim in ticket.declared))
        return common_law(claims, self.evaluation.path)

    def digest(self) -> str:
        """SHA-256 of the canonical JSON of the plan."""
        return sha256_bytes(canonical_json(self.model_dump(mode="json")))

    def pairs_of(self, text: fields.TextPlan) -> tuple[fields.PairPlan, ...]:
        """Language pairs to evaluate a text in, in the order of the plan."""
        return tuple(pair for pair in self.pair if not text.pairs or pair.name in text.pairs)


def read_experiment(name: str | Path) -> ExperimentPlan:
    """Read an experiment plan; see :func:`lottery.pretrain.plan.read_plan_file`."""
    return read_plan_file(ExperimentPlan, "pair", name)
