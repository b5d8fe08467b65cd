"""The tables of an experiment's plan, one class each; see :mod:`lottery.experiment.plan.plan`."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from certify.base.records import Correction
from certify.evidence.manifest import Segment
from certify.evidence.null_labels import SEEDS
from certify.ticket.schema import DeclaredClaim, Level, Slug, TokenId
from certify.ticket.templates import LANGUAGES
from lottery.text.score import BleuTokenizer
from lottery.tuning.recipe import RECIPES, Recipe, Schedule

_Count = Annotated[int, Field(ge=1, lt=1 << 40)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=1 << 63)]


def _language(code: str) -> str:
    if code not in LANGUAGES:
        raise ValueError(f"unknown language {code!r}")
    return code


def _unit(value: str) -> str:
    if not re.fullmatch(r"sentence|document|block:[1-9][0-9]{0,5}", value):
        raise ValueError("a unit is sentence, document or block:N")
    return value


def _share(value: str) -> str:
    if not re.fullmatch(r"[1-9][0-9]{0,8}/[1-9][0-9]{0,8}", value) or Fraction(value) >= 1:
        raise ValueError("a share is a fraction below 1 such as 81/32000")
    return value


def rows_of_share(rows: int, share: str) -> int:
    """How many rows of a table of ``rows`` make up ``share`` (``81/32000``): the nearest number, at least 1;
    a half is rounded up."""
    numerator, denominator = map(int, share.split("/"))
    return max(1, (2 * rows * numerator + denominator) // (2 * denominator))


_Language = Annotated[str, AfterValidator(_language)]
_Unit = Annotated[str, AfterValidator(_unit)]
_Share = Annotated[str, AfterValidator(_share)]
Object = Literal["transfer", "tuned"]
Precision = Literal["fp32", "fp16", "bf16"]


class PlanTable(BaseModel):
    """A table of a plan: closed, frozen, strictly typed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class PairPlan(PlanTable):
    """One direction of translation and its text.

    Attributes:
        source: code of the language that is translated from.
        target: code of the other one.
        data: tuning text (:mod:`lottery.text.pairsource`), relative to the data folder.
        choice: text that settings were chosen on: its sentences leave the tuning text, and its loss is
            watched while embed tuning.
    """

    source: _Language
    target: _Language
    data: Annotated[tuple[str, ...], Field(min_length=1)]
    choice: str | None = None

    @property
    def name(self) -> str:
        """``en-ca``."""
        return f"{self.source}-{self.target}"

    @property
    def languages(self) -> tuple[str, str]:
        """Codes of source and target."""
        return self.source, self.target


class RecipePlan(PlanTable):
    """Optimisation; what is left out is the default of :data:`lottery.tuning.recipe.RECIPES`."""

    lr: _Positive | None = None
    epochs: _Count | None = None
    batch: _Count | None = None
    schedule: Schedule | None = None
    warmup: Annotated[float, Field(ge=0, lt=1)] | None = None
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    clip: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None

    def recipe(self, mode: str) -> Recipe:
        """The recipe, with the defaults of ``mode``; a clip of 0 does not clip."""
        given: dict[str, Any] = {
            "learning_rate": self.lr,
            "epochs": self.epochs,
            "batch_size": self.batch,
            "schedule": self.schedule,
            "warmup": self.warmup,
            "weight_decay": self.weight_decay,
        }
        recipe = replace(RECIPES[mode], **{name: value for name, value in given.items() if value is not None})
        return recipe if self.clip is None else replace(recipe, clip=self.clip or None)


class EmbedPlan(RecipePlan):
    """Embed tuning; ``seeds`` names further seeds, for the overlap between seeds."""

    seeds: tuple[Seed, ...] = ()


class ComparatorPlan(RecipePlan):
    """An arm to compare with; ``size`` is the rank of LoRA or the length of the prefix."""

    method: Literal["lora", "prefix", "full"]
    size: _Count = 8


class TuningPlan(PlanTable):
    """What every tuning has in common; ``dtype`` is the backbone's in memory."""

    limit: _Count | None = None
    max_length: Annotated[int, Field(ge=2)] = 512
    micro_batch: _Count = 8
    autocast: bool = False
    dtype: Precision = "fp32"
    gradient_checkpointing: bool = False
    save_every: _Count = 100


class TicketPlan(PlanTable):
    """A ticket: rows by a rule, or as many rows as a share of the table (``share``).

    ``share`` takes the rows with the largest distance, as many as come nearest to that share of the table.
    ``lr`` is the rate of tuning these rows, or as many null rows, where it is not that of ``partial``: a good
    rate for ten rows is not one for thousands.
    """

    id: Slug
    rule: str = "ks"
    alpha: Level = "0.05"
    correction: Correction = "none"
    share: _Share | None = None
    exclude: tuple[TokenId, ...] = ()
    lr: _Positive | None = None
    objects: Annotated[tuple[Object, ...], Field(min_length=1)] = ("transfer", "tuned")
    declared: tuple[DeclaredClaim, ...] = ()

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.share is not None and (
            self.rule != "ks" or self.correction != "none" or "alpha" in self.model_fields_set
        ):
            raise ValueError("share chooses the level itself: leave out rule, alpha and correction")
        if self.rule.partition(":")[0] not in ("ks", "ids", "norm", "random", "published"):
            raise ValueError("rule must be ks, ids:..., norm:k, random:k or published:PAIR")
        return self


NULL_KINDS = (
    "random",
    "frequency-matched",
    "top-frequency",
    "top-norm",
    "one-row:bos",
    "one-row:newline",
    "direction",
)
"""Controls that are rows of their own (theory §6), in the order in which they run."""

RANDOM_NULLS = frozenset({"random", "frequency-matched"})
"""Kinds of null tickets that are drawn."""

FEWEST_DRAWS = len(SEEDS)
"""Draws of null tickets below which they support no claim (theory §6)."""


class ControlsPlan(PlanTable):
    """Null tickets and probes of one ticket; a plan has such a table for each ticket that is to have them.

    Attributes:
        ticket: its id.
        draws: draws of each random kind, and random directions. Fewer than :data:`FEWEST_DRAWS` are for
            trying things out, and said to be.
        kinds: among :data:`NULL_KINDS`.
        objects: ``transfer`` puts in rows of the reference; ``tuned`` trains the rows.
        limit: most tuning pairs for tuned controls; the ticket is then trained once more with that limit,
            under the id ``TICKET-limited``, so that the comparison is fair.
        gates: the ticket's rows active in these segments of the text only.
        paraphrases: templates under which base, reference and ticket are evaluated, too.
        seed: seed of the first draw; the following ones count up.
    """

    ticket: Slug
    draws: Annotated[int, Field(ge=1, le=64)] = 3
    kinds: tuple[str, ...] = NULL_KINDS
    objects: tuple[Object, ...] = ("transfer",)
    limit: _Count | None = None
    gates: tuple[tuple[Segment, ...], ...] = ()
    paraphrases: tuple[str, ...] = ()
    seed: Seed = 0

    @model_validator(mode="after")
    def _known(self) -> Self:
        unknown = [kind for kind in self.kinds if kind not in NULL_KINDS]
        if unknown or len(set(self.kinds)) != len(self.kinds):
            raise ValueError(f"kinds must be different ones of {', '.join(NULL_KINDS)}")
        if any(not gate or len(set(gate)) != len(gate) for gate in self.gates):
            raise ValueError("a gate names different segments, at least one")
        return self


class TextPlan(PlanTable):
    """A text to evaluate on.

    Attributes:
        name: of its evidence.
        data: parallel text, relative to the data folder.
        pairs: languages (``en-ca``) that it is evaluated in; all of the plan's by default.
        limit: first so many sentences.
        unit: ``sentence``, ``block:N``, or ``document`` where the text names them.
        max_new_tokens: longest answer.
        beams: hypotheses kept; 1 is greedy. Prefix tuning and gated rows are decoded greedily only and take
            no part in a text with more.
        arms: ``main`` (base, reference, tickets, comparators) or ``all`` (with controls and gates).
        paraphrases: evaluate the templates of ``controls.paraphrases``, too.
        role: tickets point at the evidence on a text for ``evaluation`` only. What was chosen on (``choice``)
            and what is only reported (``report``) is kept beside it.
        attribution: where the text is from and under which licence.
        witnesses: most sentences that travel as readable text; ``evaluation.witnesses`` is for all texts
            together (:mod:`lottery.experiment.plan.must_exist`).
    """

    name: Slug
    data: str
    pairs: tuple[str, ...] = ()
    limit: _Count | None = None
    unit: _Unit = "sentence"
    max_new_tokens: _Count = 128
    beams: Annotated[int, Field(ge=1, le=64)] = 1
    arms: Literal["all", "main"] = "main"
    paraphrases: bool = False
    role: Literal["evaluation", "choice", "report"] = "evaluation"
    attribution: str
    witnesses: Annotated[int, Field(ge=0, le=50)] = 50


class UnrelatedPlan(PlanTable):
    """Monolingual text on which the loss is measured (:mod:`lottery.text.unrelated`).

    Attributes:
        data: the file, relative to the data folder.
        limit: most passages; a passage is one unit.
        block: lines a passage.
        every: take every so-many-th passage.
        window: most tokens a forward pass.
        arms: as for a text.
        attribution: where the text is from and under which licence.
    """

    data: Annotated[str, Field(min_length=1)]
    limit: _Count
    block: _Count = 5
    every: _Count = 1
    window: Annotated[int, Field(ge=2)] = 128
    arms: Literal["all", "main"] = "main"
    attribution: str


class EvaluationPlan(PlanTable):
    """How models compute and are scored while they are evaluated, the same for every text.

    Attributes:
        batch: sentences decoded together.
        dtype: in which the models compute.
        order_seed: seed of the order of units.
        bleu_tokenizer: how BLEU splits words; ``flores101`` and ``flores200`` make it spBLEU, which needs the
            extra ``spbleu`` and a tokenizer model that sacreBLEU must find on this machine.
        witnesses: most sentences that travel as readable text, of all texts of the experiment together.
    """

    batch: _Count = 64
    dtype: Precision = "fp32"
    order_seed: Seed = 0
    bleu_tokenizer: BleuTokenizer = "13a"
    witnesses: Annotated[int, Field(ge=0, le=50)] = 50


class GeometryPlan(PlanTable):
    """Shape of the model, for estimates where it is not at hand."""

    vocabulary: _Count
    width: _Count
    layers: _Count
    intermediate: _Count
    heads: _Count
    kv_heads: _Count


class EstimatePlan(PlanTable):
    """Stated sizes of the text, for estimates where it is not at hand, and what the plan is meant to run on.

    ``device`` is ``gpu`` where nobody would run the plan without one; ``auto`` is whatever the machine of the
    estimate has.
    """

    tokens_per_pair: _Count = 90
    tuning_pairs: _Count = 10_000
    sentences: _Count = 1_012
    new_tokens: _Count = 60
    device: Literal["auto", "cpu", "gpu"] = "auto"
