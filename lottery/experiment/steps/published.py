"""What an experiment hands on beside its tickets, as it is read: ``manifest.json`` and ``summary.json``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from certify.base.model import Document, Sha256


class ExperimentManifest(Document):
    """The content of ``manifest.json``."""

    schema_: Literal["lottery.experiment"] = Field(alias="schema", default="lottery.experiment")
    schema_version: Literal[1] = 1
    created_by: str
    plan: dict[str, Any]
    plan_sha256: Sha256
    started_from: dict[str, Any]
    steps: dict[str, Any]
    files: dict[str, Sha256]


class ExperimentSummary(Document):
    """The content of ``summary.json``: counts as integers, scores as decimal strings."""

    schema_: Literal["lottery.experiment.summary"] = Field(
        alias="schema", default="lottery.experiment.summary"
    )
    schema_version: Literal[1] = 1
    plan: str
    notices: tuple[str, ...] = ()
    cuts: dict[str, Any]
    texts: dict[str, Any]
    opportunity: dict[str, Any]
    overlap: Any
    void: dict[str, Any]
