"""The tables of an experiment plan, one class per table; see :mod:`lottery.experiment.plan.plan`."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated, Literal, Self, get_args

from pydantic import AfterValidator, Field, model_validator

from certify.base.model import Level, Model, Slug, TokenId, unless_given
from certify.base.records import Correction, Rule
from certify.evidence.manifest import Control, Segment, Unit
from certify.evidence.null_labels import SEEDS
from certify.selection.rules import RULE_NAMES, RULES
from certify.ticket.declared import DeclaredClaim, StrengthLaw
from certify.ticket.templates import LANGUAGES
from lottery.text.score import BleuTokenizer
from lottery.tuning.recipe import RECIPES, Recipe, Schedule, adjusted

_Count = Annotated[int, Field(ge=1, lt=1 << 40)]
_Positive = Annotated[float, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=1 << 63)]


def _language(code: str) -> str:
    if code not in LANGUAGES:
        raise ValueError(f"unknown language {code!r}")
    return code


def _share(value: str) -> str:
    if not re.fullmatch(r"[1-9][0-9]{0,8}/[1-9][0-9]{0,8}", value) or Fraction(value) >= 1:
        raise ValueError("expected a fraction below 1, such as 81/32000")
    return value


def rows_of_share(rows: int, share: str) -> int:
    """Number of rows nearest to ``share`` (``81/32000``) of ``rows``: at least 1, halves round up."""
    numerator, denominator = map(int, share.split("/"))
    return max(1, (2 * rows * numerator + denominator) // (2 * denominator))


_Language = Annotated[str, AfterValidator(_language)]
_Share = Annotated[str, AfterValidator(_share)]
Object = Literal["transfer", "tuned"]
Precision = Literal["fp32", "fp16", "bf16"]


class PairPlan(Model):
    """One direction of translation and its text.

    Attributes:
        data: tuning text (:mod:`lottery.text.pairsource`), relative to the data folder.
        choice: text that settings were chosen on. Its sentences are left out of the tuning text, and its loss
            is measured during embed tuning.
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


class RecipePlan(Model):
    """Optimiser settings; missing ones take the defaults of :data:`lottery.tuning.recipe.RECIPES`."""

    lr: _Positive | None = None
    epochs: _Count | None = None
    batch: _Count | None = None
    schedule: Schedule | None = None
    warmup: Annotated[float, Field(ge=0, lt=1)] | None = None
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    clip: Annotated[float, Field(ge=0)] | None = None

    def recipe(self, mode: str) -> Recipe:
        """Build the recipe, with the defaults of ``mode``; a clip of 0 disables clipping."""
        asked = {name: getattr(self, name) for name in RecipePlan.model_fields}
        rate, batch = asked.pop("lr"), asked.pop("batch")
        return adjusted(RECIPES[mode], learning_rate=rate, batch_size=batch, **asked)


class EmbedPlan(RecipePlan):
    """Embed tuning; ``seeds`` lists further seeds, for the overlap between seeds."""

    seeds: Annotated[tuple[Seed, ...], Field(max_length=64)] = ()


class ComparatorPlan(RecipePlan):
    """A comparison arm; ``size`` is the rank of LoRA or the length of the prefix."""

    method: Literal["lora", "prefix", "full"]
    size: _Count = 8


class TuningPlan(Model):
    """Settings of every tuning; ``dtype`` is that of the backbone in memory."""

    limit: _Count | None = None
    max_length: Annotated[int, Field(ge=2, lt=1 << 40)] = 512
    micro_batch: _Count = 8
    autocast: bool = False
    dtype: Precision = "fp32"
    gradient_checkpointing: bool = False
    save_every: _Count = 100


class TicketPlan(Model):
    """A ticket: rows by a rule, or a share of the table (``share``).

    ``share`` takes the rows with the largest distance; their number is nearest to that share of the table.
    ``lr`` is the learning rate for these rows and equally many null rows, if different from that of
    ``partial``: a good rate for ten rows does not suit thousands. The ticket declares the rule
    ``extraction``. The rule ``template`` is short for that of the pair's own languages.
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
    extraction: Rule | None = None

    _as_given = unless_given("extraction")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.share is not None and (
            self.rule != "ks" or self.correction != "none" or "alpha" in self.model_fields_set
        ):
            raise ValueError("share determines the level itself: leave out rule, alpha and correction")
        if self.rule.partition(":")[0] not in RULE_NAMES:
            raise ValueError(f"rule must be one of {RULES}")
        return self


NULL_KINDS = tuple(kind for kind in get_args(Control) if kind not in ("gate", "seed"))
"""Controls with their own rows (theory §6), in the order in which they run."""

RANDOM_NULLS = frozenset({"random", "frequency-matched"})
"""Kinds of null tickets that are drawn."""

FEWEST_DRAWS = len(SEEDS)
"""Smallest number of draws of null tickets that supports a claim (theory §6)."""


class ControlsPlan(Model):
    """Null tickets and probes of one ticket; a plan has one such table per ticket with controls.

    Attributes:
        draws: number of draws of each random kind, and of random directions. Fewer than
            :data:`FEWEST_DRAWS` are for trials only, and reported as such.
        kinds: kinds from :data:`NULL_KINDS`.
        objects: ``transfer`` puts in rows of the reference; ``tuned`` trains the rows.
        limit: largest number of tuning pairs for tuned controls. For a fair comparison, the ticket is then
            also trained with that limit, under the id ``TICKET-limited``.
        gates: sets of segments; for each, an arm in which the ticket's rows act only there.
        paraphrases: further templates to evaluate base, reference and ticket under.
        seed: seed of the first draw; the following draws count up.
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
            raise ValueError(f"kinds must be distinct and from {', '.join(NULL_KINDS)}")
        if any(not gate or len(set(gate)) != len(gate) for gate in self.gates):
            raise ValueError("a gate must name at least one segment, and none twice")
        return self


class TextPlan(Model):
    """A text to evaluate on.

    Attributes:
        pairs: language pairs (``en-ca``) to evaluate it in; default: all of the plan.
        limit: largest number of sentences; ``take`` of the plan says which.
        unit: ``sentence``, ``block:N``, or ``document`` if the text names its documents.
        beams: hypotheses kept; 1 is greedy. Arms of prefix tuning and gated rows support only greedy decoding
            and are left out of a text with more beams.
        arms: ``main`` (base, reference, tickets, comparators) or ``all`` (also controls and gates).
        role: ``evaluation`` for texts whose evidence the tickets refer to. Evidence on texts that were chosen
            on (``choice``) or are only reported (``report``) is kept beside it.
        attribution: source and licence of the text.
        witnesses: largest number of sentences to include as readable text; ``evaluation.witnesses`` limits
            all texts together (:mod:`lottery.experiment.plan.witness_shares`).
    """

    name: Slug
    data: str
    pairs: tuple[str, ...] = ()
    limit: _Count | None = None
    unit: Unit = "sentence"
    max_new_tokens: _Count = 128
    beams: Annotated[int, Field(ge=1, le=64)] = 1
    arms: Literal["all", "main"] = "main"
    paraphrases: bool = False
    role: Literal["evaluation", "choice", "report"] = "evaluation"
    attribution: str
    witnesses: Annotated[int, Field(ge=0, le=50)] = 50


class CalibrationPlan(Model):
    """Every ticket declares a calibrated margin, chosen on a text of role ``choice`` before any other text is
    evaluated (:mod:`certify.gate.calibrate`).

    Attributes:
        text: name of the text; its data are the ``choice`` of its pairs, so that no evaluated text has any of
            its sentences.
        alpha: rate of disagreement to allow.
        delta: error probability of the choice, and of the claim.
    """

    text: Slug
    alpha: Level
    delta: Level = "0.05"


class UnrelatedPlan(Model):
    """Monolingual text to measure the loss on (:mod:`lottery.text.unrelated`).

    Attributes:
        limit: largest number of passages; a passage is one unit.
        block: number of lines per passage.
        every: stride; 2 takes every second passage.
        window: largest number of tokens per forward pass.
    """

    data: Annotated[str, Field(min_length=1)]
    limit: _Count
    block: _Count = 5
    every: _Count = 1
    window: Annotated[int, Field(ge=2, lt=1 << 40)] = 128
    arms: Literal["all", "main"] = "main"
    attribution: str


class EvaluationPlan(Model):
    """Settings of decoding and scoring, the same for every text.

    Attributes:
        bleu_tokenizer: how BLEU splits words. ``flores101`` and ``flores200`` give spBLEU, which needs the
            extra ``spbleu`` and a tokenizer model that sacreBLEU finds on this machine.
        witnesses: largest number of sentences to include as readable text, over all texts together.
        path: strengths at which the arms of tickets are asked, too; default: those of a declared guarantee.
        margins: follow the arms of tickets along their own outputs, too.
    """

    batch: _Count = 64
    dtype: Precision = "fp32"
    order_seed: Seed = 0
    bleu_tokenizer: BleuTokenizer = "13a"
    witnesses: Annotated[int, Field(ge=0, le=50)] = 50
    path: StrengthLaw | None = None
    margins: bool = False

    _as_given = unless_given("path", "margins")


class GeometryPlan(Model):
    """Shape of the model, for estimates without the model; ``head_width`` is by default width / heads."""

    vocabulary: _Count
    width: _Count
    layers: _Count
    intermediate: _Count
    heads: _Count
    kv_heads: _Count
    head_width: _Count | None = None

    @property
    def queries(self) -> int:
        """Width of a layer's queries."""
        return self.heads * self.head_width if self.head_width else self.width

    @property
    def keys(self) -> int:
        """Width of a layer's keys, and of its values."""
        return self.queries * self.kv_heads // self.heads


class EstimatePlan(Model):
    """Sizes of the text, for estimates without the text, and the device that the plan is meant for.

    ``device`` is ``gpu`` for a plan that is impractical without one; ``auto`` is the device of the machine
    that makes the estimate.
    """

    tokens_per_pair: _Count = 90
    tuning_pairs: _Count = 10_000
    choice_pairs: _Count = 500
    sentences: _Count = 1_012
    prompt_tokens: _Count = 60
    new_tokens: _Count = 60
    line_tokens: _Count = 30
    device: Literal["auto", "cpu", "gpu"] = "auto"
