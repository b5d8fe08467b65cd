"""The manifest of evidence, schema ``certify.evidence`` version 1: what was run, on what, bound by
digests.

Evidence is what an evaluation leaves behind: this manifest (``NAME.json``), a file beside it with one
record per line (``NAME.records.jsonl``, :mod:`certify.evidence.read`), and lists of the sentences that were
used to scan, tune and choose (``used/*.txt``). Paths are relative to the manifest's own folder and never
leave it. Parsing is as strict as for ticket files: whoever wants a gate to open may have written it.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from certify.base.jsonio import pretty_json
from certify.base.model import (
    Document,
    Model,
    Refusal,
    RelativePath,
    Sha256,
    Slug,
    Text,
    TokenId,
    unless_given,
    validate,
)
from certify.base.records import Dtype
from certify.ticket.declared import MarginLevel, StrengthLaw

SCHEMA_NAME: Final = "certify.evidence"
SCHEMA_VERSION: Final = 1

_REFUSAL: Final = Refusal("EVIDENCE_MALFORMED", schema="EVIDENCE_SCHEMA", newer="EVIDENCE_NEWER")

PROCEDURES: Final = {"translation": "translation/1", "loss": "loss/2"}
"""The only procedure of each kind. Records of ``loss/1`` did not say what their text is."""

BASE_ARM, REFERENCE_ARM = "base", "reference"
"""Names reserved for the base model and the embed-tuned one."""

Segment = Literal["instruction", "source", "target"]
"""Where the rows of a gated arm are active; the beginning of sentence counts as instruction."""

ArmKind = Literal["base", "reference", "transfer", "tuned", "direction", "full", "lora", "prefix"]
"""What was put into the base: nothing; the whole reference; rows; or other weights."""

Control = Literal[
    "random",
    "frequency-matched",
    "top-frequency",
    "top-norm",
    "one-row:bos",
    "one-row:newline",
    "direction",
    "gate",
    "seed",
]
"""Null tickets and variants (theory §6)."""

ROW_KINDS: Final = frozenset({"transfer", "tuned", "direction"})

_MAX_RECORDS = 1 << 22
_UNIT = re.compile(r"sentence|document|block:[1-9][0-9]{0,6}")


def _unit(value: str) -> str:
    if not _UNIT.fullmatch(value):
        raise ValueError("expected sentence, document or block:N")
    return value


# Long enough for a ticket id and a suffix such as ``.transfer``.
ArmName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$")]
Count = Annotated[int, Field(ge=0, lt=1 << 53)]
Unit = Annotated[str, AfterValidator(_unit)]


class BaseModelRef(Model):
    """The base model: its input table E⁰ in the served dtype, and everything else of the checkpoint."""

    tensor_sha256: Sha256
    model_sha256: Sha256


class ReferenceRef(Model):
    """The table E* after embed tuning, in the served dtype."""

    tensor_sha256: Sha256


class EvidenceTemplateRef(Model):
    """The prompt template, bound by the digest of its content."""

    name: Slug
    sha256: Sha256


class TextRef(Model):
    """The text that was evaluated.

    ``unit`` says what counts as one independent draw: each sentence, blocks of N consecutive ones, or
    documents. ``sha256`` is :func:`certify.ticket.corpus.corpus_digest` for pairs.
    """

    name: Text
    sha256: Sha256
    sentences: Annotated[int, Field(ge=1, le=_MAX_RECORDS)]
    unit: Unit
    attribution: Text


class Decoding(Model):
    """What determines an output besides the model; ``max_new_tokens`` is 0 where nothing is decoded."""

    beams: Annotated[int, Field(ge=1, le=1 << 10)]
    max_new_tokens: Annotated[int, Field(ge=0, le=1 << 17)]
    dtype: Dtype


class Producer(Model):
    """The engine that made the outputs, where it was not this program: its author's word.

    Attributes:
        engine: its name, such as ``vllm`` or ``llama.cpp``.
        version: its version.
        settings: all else that determines an output, in words; empty if nothing does.
        weights: SHA-256 of the weights that it served, by arm, where known.
    """

    engine: Annotated[Slug, Field(description="name of the engine, such as vllm or llama.cpp")]
    version: Annotated[Text, Field(min_length=1)]
    settings: Text = ""
    weights: Annotated[dict[ArmName, Sha256], Field(default_factory=dict, max_length=512)]

    def __str__(self) -> str:
        """Name and version."""
        return f"{self.engine} {self.version}"


class Arm(Model):
    """One model that was evaluated: the base with something put in.

    Attributes:
        name: what records call it.
        kind: what was put in.
        ids: rows that differ from the base by construction (row kinds).
        table_sha256: tensor digest of the whole served input table; identifies an arm of rows completely.
        model_sha256: digest of the weights of kinds full, lora and prefix.
        parameters: how many numbers were trained (or moved, for a transfer).
        control: null ticket or variant that this arm stands for.
        of: id of the ticket whose control this is.
        seed: seed behind the arm, where there is one.
        gate: rows are active at positions of these segments only.
        note: anything worth knowing.
    """

    name: ArmName
    kind: ArmKind
    ids: Annotated[tuple[TokenId, ...], Field(min_length=1)] | None = None
    table_sha256: Sha256 | None = None
    model_sha256: Sha256 | None = None
    parameters: Count
    control: Control | None = None
    of: Slug | None = None
    seed: Annotated[int, Field(ge=0, lt=1 << 64)] | None = None
    gate: Annotated[tuple[Segment, ...], Field(min_length=1, max_length=3)] | None = None
    note: Text = ""

    @model_validator(mode="after")
    def _consistent(self) -> Arm:
        if (self.name == BASE_ARM) != (self.kind == "base") or (self.name == REFERENCE_ARM) != (
            self.kind == "reference"
        ):
            raise ValueError(f"{self.name}: the names base and reference belong to these kinds")
        if (self.ids is not None) != (self.kind in ROW_KINDS):
            raise ValueError(f"{self.name}: ids are for arms of rows, and each of these has some")
        if self.ids is not None and any(later <= earlier for earlier, later in pairwise(self.ids)):
            raise ValueError(f"{self.name}: ids must be strictly increasing")
        weights = self.kind in {"full", "lora", "prefix"}
        if (self.model_sha256 is not None) != weights or (self.table_sha256 is None and not weights):
            raise ValueError(f"{self.name}: rows are bound by table_sha256, other weights by model_sha256")
        if self.gate is not None and (self.kind not in ROW_KINDS or len(set(self.gate)) != len(self.gate)):
            raise ValueError(f"{self.name}: a gate names different segments, and only rows have one")
        return self

    @property
    def released(self) -> bool:
        """It serves a ticket, as released: labels along a path and margins are recorded of such arms."""
        return self.kind in ROW_KINDS and self.control is None and self.gate is None


class Used(Model):
    """Sentences that were used for something: a file of sorted distinct 16-digit sentence digests."""

    role: Literal["tuning", "scan", "choice", "order", "pretraining"]
    path: RelativePath
    sha256: Sha256
    count: Annotated[int, Field(ge=0, le=_MAX_RECORDS * 4)]
    table_sha256: Sha256 | None = Field(
        default=None,
        description="tensor digest of the table made by the tuning run that used these sentences",
    )

    _as_given = unless_given("table_sha256")


class RecordsRef(Model):
    """The file of records."""

    path: RelativePath
    sha256: Sha256
    count: Annotated[int, Field(ge=1, le=_MAX_RECORDS)]


class Manifest(Document):
    """The whole manifest; see the module's text."""

    schema_: Literal["certify.evidence"] = Field(alias="schema", default=SCHEMA_NAME)
    schema_version: Literal[1] = SCHEMA_VERSION
    kind: Literal["translation", "loss"]
    created_by: Text
    procedure: Literal["translation/1", "loss/2"]
    base: BaseModelRef
    reference: ReferenceRef | None
    tokenizer_sha256: Sha256
    tokenizer_probe_sha256: Sha256 | None = Field(
        default=None,
        description="digest of the ids that the tokenizer made of fixed texts (certify.tables.tokenisation)",
    )
    template: EvidenceTemplateRef | None
    languages: tuple[Slug, Slug] | None
    text: TextRef
    decoding: Decoding
    order_seed: Annotated[int, Field(ge=0, lt=1 << 64)]
    design: Literal["fixed", "sequential"]
    signatures: Annotated[dict[Slug, Text], Field(max_length=16)]
    arms: Annotated[tuple[Arm, ...], Field(min_length=1, max_length=512)]
    used: Annotated[tuple[Used, ...], Field(max_length=64)]
    records: RecordsRef
    path: StrengthLaw | None = Field(
        default=None,
        description="strengths between the released table and E* at which labels were recorded (theory §4b)",
    )

    margins: dict[ArmName, MarginLevel | None] | None = Field(
        default=None,
        description="arms whose margins along their own outputs were recorded, and the t that the ticket of"
        " each had declared by then (theory §5)",
    )
    produced_by: Producer | None = Field(
        default=None, description="another engine that made the outputs: no step of them was recorded"
    )

    _as_given = unless_given("tokenizer_probe_sha256", "path", "margins", "produced_by")

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        names = [arm.name for arm in self.arms]
        if len(set(names)) != len(names):
            raise ValueError("two arms have the same name")
        if self.procedure != PROCEDURES[self.kind]:
            raise ValueError("the procedure does not belong to the kind")
        if BASE_ARM not in names:
            raise ValueError("the arm base is missing")
        if self.arm(BASE_ARM).table_sha256 != self.base.tensor_sha256:
            raise ValueError("the arm base has a table other than the base model's")
        if REFERENCE_ARM in names and (
            self.reference is None or self.arm(REFERENCE_ARM).table_sha256 != self.reference.tensor_sha256
        ):
            raise ValueError("the arm reference has a table other than the reference's")
        made, followed = self.produced_by, (self.path, self.margins) != (None, None)
        if (followed or made is not None) and self.kind != "translation":
            raise ValueError("only translations have a path or margins, or are made by another engine")
        if not {*(self.margins or ())} <= {arm.name for arm in self.arms if arm.released}:
            raise ValueError("margins are of arms that serve a ticket")
        if made is not None and (followed or not made.weights.keys() <= {*names}):
            raise ValueError("another engine served the arms, and records neither path nor margins")
        if self.kind == "translation":
            if REFERENCE_ARM not in names:
                raise ValueError("the arm reference is missing")
            if self.template is None or self.languages is None or not self.decoding.max_new_tokens:
                raise ValueError("translation needs template, languages and max_new_tokens")
            if self.records.count > self.text.sentences or (
                self.design == "fixed" and self.records.count != self.text.sentences
            ):
                raise ValueError("a fixed design has one record for every sentence of the text")
        tables = {None, *(arm.table_sha256 for arm in self.arms)}
        if not {entry.table_sha256 for entry in self.used} <= tables:
            raise ValueError("a list of used sentences names a table that no arm has")
        if len({entry.path for entry in self.used} | {self.records.path}) != len(self.used) + 1:
            raise ValueError("two files of the evidence have the same path")
        return self

    def arm(self, name: str) -> Arm:
        """The arm of that name.

        Raises:
            KeyError: there is none.
        """
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise KeyError(name)

    def to_json(self) -> str:
        """The file's text: indented JSON with a trailing newline."""
        return pretty_json(self.model_dump(mode="json", by_alias=True))


def parse_manifest(value: Any, *, what: str = "evidence manifest") -> Manifest:
    """Validate parsed JSON as a manifest.

    Raises:
        InvalidInputError: wrong schema (``EVIDENCE_SCHEMA``), newer version (``EVIDENCE_NEWER``), or a field
            that breaks a rule (``EVIDENCE_MALFORMED``).
    """
    return validate(Manifest, value, what=what, refusal=_REFUSAL)
