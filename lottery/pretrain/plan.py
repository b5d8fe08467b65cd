"""Pretraining plans: everything that determines the weights of a base model, as validated TOML."""

from __future__ import annotations

import os
import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final, Self, TypeVar

from pydantic import Field, model_validator

from certify.base.errors import UsageError
from certify.base.jsonio import canonical_json, read_bytes, sha256_bytes
from certify.base.model import Model, Refusal, validate_toml
from certify.ticket.templates import LANGUAGES

_REFUSAL: Final = Refusal("PLAN_INVALID", error=UsageError)

_Plan = TypeVar("_Plan", bound=Model)
_Count = Annotated[int, Field(ge=1)]
_Positive = Annotated[float, Field(gt=0)]
_NotNegative = Annotated[float, Field(ge=0)]


class TextSource(Model):
    """One stream of documents of a plan.

    Attributes:
        path: file of monolingual text, or the prefix of two aligned files (``PREFIX.LANG``), relative to the
            data folder, without ``.xz`` or ``.gz``.
        languages: one code (monolingual) or two (source language, target language).
        share: relative share of the training tokens.
        skip: number of lines to skip at the start of the file(s).
        lines: largest number of documents, chosen by hash; 0 for all.
        watch: whether held-out documents of this source contribute to the ``watch`` loss.
    """

    path: Annotated[str, Field(min_length=1)]
    languages: Annotated[tuple[str, ...], Field(min_length=1, max_length=2)]
    share: _Positive
    skip: Annotated[int, Field(ge=0)] = 0
    lines: Annotated[int, Field(ge=0)] = 0
    watch: bool = False

    @model_validator(mode="after")
    def _known(self) -> Self:
        unknown = [code for code in self.languages if code not in LANGUAGES]
        if unknown:
            raise ValueError(f"unknown language {unknown[0]}")
        return self


class ModelPlan(Model):
    """Geometry of the LLaMA, with shortened names of ``transformers.LlamaConfig``."""

    vocab_size: Annotated[int, Field(ge=300, le=65536)]
    hidden_size: _Count
    intermediate_size: _Count
    layers: _Count
    heads: _Count
    kv_heads: _Count
    max_position: _Count
    rope_theta: _Positive

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.hidden_size % (2 * self.heads) or self.heads % self.kv_heads:
            raise ValueError("hidden_size must be a multiple of 2 * heads, and heads of kv_heads")
        return self


class TrainPlan(Model):
    """Optimiser settings; ``steps`` and ``decay_from`` may change when a run is resumed.

    Attributes:
        decay_from: first step of the linear decay to zero; equal to ``steps`` for no decay.
        slice: number of windows whose gradient is computed at once; fixes the order of additions, hence the
            bits.
        length: number of tokens per window, including ``<s>``; ``length - 1`` of them are predicted.
        muon_lr: peak rate of Muon, for hidden matrices.
        adam_lr: peak rate of AdamW, for the table, the head and the norms.
        weight_decay: decoupled weight decay of the hidden matrices; nothing else decays.
    """

    steps: _Count
    decay_from: Annotated[int, Field(ge=0)]
    warmup: _Count
    windows: _Count
    slice: _Count
    length: Annotated[int, Field(ge=2)]
    muon_lr: _Positive
    adam_lr: _Positive
    weight_decay: _NotNegative
    momentum: Annotated[float, Field(ge=0, lt=1)]
    clip: _Positive

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.decay_from > self.steps:
            raise ValueError("decay_from must not exceed steps")
        if self.windows % self.slice:
            raise ValueError("windows must be a multiple of slice")
        return self

    def rate(self, step: int) -> float:
        """Compute the factor in [0, 1] of the peak rates at ``step`` (from 0): warm-up, constant, decay."""
        factor = min(1.0, (step + 1) / self.warmup)
        if step >= self.decay_from:
            factor *= (self.steps - step) / (self.steps - self.decay_from)
        return factor


class PretrainPlan(Model):
    """Everything that determines the weights, and further facts for the model card.

    Attributes:
        exclude: files (as in ``TextSource.path``) whose normalised sentences must not occur in training.
        licences: licence by corpus, the first word of a file's name (``gv`` for ``en-ca/gv.train_all``).
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    seed: Annotated[int, Field(ge=0, lt=1 << 63)]
    model: ModelPlan
    train: TrainPlan
    source: Annotated[tuple[TextSource, ...], Field(min_length=1)]
    exclude: tuple[str, ...] = ()
    licences: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.train.length > self.model.max_position:
            raise ValueError("train.length must not exceed model.max_position")
        return self

    def digest(self) -> str:
        """SHA-256 of the canonical JSON of everything that determines the weights."""
        return sha256_bytes(canonical_json(self._decisive()))

    def stable_digest(self) -> str:
        """Like :meth:`digest`, without ``steps`` and ``decay_from``, which a resumed run may change."""
        state = self._decisive()
        del state["train"]["steps"], state["train"]["decay_from"]
        return sha256_bytes(canonical_json(state))

    def _decisive(self) -> dict[str, Any]:
        state = self.model_dump(mode="json")
        del state["name"], state["licences"]
        for source in state["source"]:
            del source["watch"]
        return state


def shipped_plans(table: str) -> list[str]:
    """List the plans that ship with the package and have the top-level ``table``, which tells kinds apart."""
    files = (item for item in (resources.files("lottery") / "plans").iterdir() if item.name.endswith(".toml"))
    return sorted(
        item.name.removesuffix(".toml") for item in files if table in tomllib.loads(item.read_text("utf-8"))
    )


def read_plan_file(model: type[_Plan], table: str, name: str | Path) -> _Plan:
    """Read a plan of :func:`shipped_plans` by its name, or any other by the path of its ``.toml`` file.

    Raises:
        UsageError: there is no such plan or file (``PLAN_UNKNOWN``), or it is not TOML, a field is unknown
            or missing, or a value is out of range (``PLAN_INVALID``).
    """
    if isinstance(name, Path) or name.endswith(".toml"):
        data = read_bytes(Path(name), what="plan", limit=1 << 20)
    elif name in (known := shipped_plans(table)):
        data = (resources.files("lottery") / "plans" / f"{name}.toml").read_bytes()
    else:
        raise UsageError(
            f"unknown plan {name[:60]!r}: expected {', '.join(known)} or the path of a .toml file",
            code="PLAN_UNKNOWN",
        )
    return validate_toml(model, data, what=f"plan {name}", refusal=_REFUSAL)


def read_plan(name: str | Path) -> PretrainPlan:
    """Read a pretraining plan; see :func:`read_plan_file`."""
    return read_plan_file(PretrainPlan, "model", name)


def data_folder(named: Path | None) -> Path:
    """Find the folder that a plan's paths are relative to: ``named``, or ``data`` under ``CERTIFY_DATA``.

    Raises:
        UsageError: no folder is named and the variable is unset, or the folder does not exist.
    """
    if named is None:
        root = os.environ.get("CERTIFY_DATA")
        if not root:
            raise UsageError(
                "no text to train on: set CERTIFY_DATA to the folder that contains data/, or use --data",
                code="DATA_MISSING",
            )
        named = Path(root) / "data"
    if not named.is_dir():
        raise UsageError(f"no folder {named}", code="DATA_MISSING")
    return named
