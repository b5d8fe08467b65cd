"""The context of running steps: places and devices, none of which determines an outcome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from certify.base.errors import UsageError
from certify.tables.table import Table
from certify.tables.vocabulary import Vocabulary, open_vocabulary
from certify.ticket.make import open_pair
from lottery.experiment.engine.graph import Input, Result, Work
from lottery.experiment.plan.plan import SYNTHETIC
from lottery.model.device import Device

SELECTION, ROWS = "selection.json", "rows.safetensors"
"""Output of a step that chooses rows: ids and how they were chosen, and the rows to put in."""

RESULT = "result.json"
"""Record of a tuning: the path of its result, and the number of trained parameters."""

BASE = "base"
"""Role of a base model made by a step of the experiment."""


@dataclass(slots=True)
class RunContext:
    """Places and devices that running steps share.

    Attributes:
        base: checkpoint folder of the base; None if a step makes it.
        data: folder that the plan's paths are relative to; None if there is none.
        progress: called with (done, all) of the running step.
        loaded: models in memory, by origin; kept from step to step.
    """

    base: Path | None
    data: Path | None
    device: Device = "auto"
    save_every: int = 100
    progress: Callable[[int, int], None] | None = None
    loaded: dict[tuple[Path, str], Any] = field(default_factory=dict)

    def base_folder(self, work: Work) -> Path:
        """Checkpoint folder of the base model for ``work``."""
        if BASE in work.inputs:
            return work.inputs[BASE].path(BASE)
        if self.base is None:
            raise UsageError("no base model: name it with --base", code="MODEL_UNKNOWN")
        return self.base

    def text(self, work: Work, name: str) -> str:
        """Location of the text ``name`` of a plan: an absolute path, or a hub name."""
        return resolve(name, self.data, made=work.inputs[BASE].folder if BASE in work.inputs else None)

    def tables(self, work: Work) -> tuple[Table, Table, Vocabulary]:
        """Open E⁰ and E* in the served dtype (parameter ``served_dtype``), and the vocabulary.

        ``work`` must have the embed tuning as input ``embed``.
        """
        folder = self.base_folder(work)
        base, reference = open_pair(
            folder, reference_file(work), dtype=work.parameters["served_dtype"], allow_tied=False
        )
        return base, reference, open_vocabulary(folder)


@dataclass(frozen=True, slots=True)
class Procedure:
    """What one kind of step does; see :class:`lottery.experiment.engine.graph.GraphStep` for the fields."""

    action: Callable[[RunContext, Work], Result]
    kind: str
    version: int
    collects: bool

    def __call__(self, context: RunContext, work: Work) -> Result:
        """Do the work."""
        return self.action(context, work)


def procedure(
    kind: str, version: int = 1, *, collects: bool = False
) -> Callable[[Callable[[RunContext, Work], Result]], Procedure]:
    """Declare that a function does the work of a kind of step."""
    return lambda action: Procedure(action, kind, version, collects)


def resolve(name: str, data: Path | None, *, made: Path | None = None) -> str:
    """Find the text ``name`` of a plan.

    Args:
        name: ``hub:...``, ``synthetic:NAME``, or a path that may be relative to the data folder.
        made: folder of the step that made the synthetic text.

    Raises:
        UsageError: the path is relative and there is no data folder.
    """
    if name.startswith("hub:"):
        return name
    if name.startswith(f"{SYNTHETIC}:"):
        if made is None:
            raise UsageError(
                f"text {name} requires the base {SYNTHETIC!r}, which makes it", code="PLAN_INVALID"
            )
        return str(made / "text" / name.removeprefix(f"{SYNTHETIC}:"))
    if Path(name).is_absolute():
        return name
    if data is None:
        raise UsageError(
            f"no data folder for {name}: set CERTIFY_DATA to the folder that contains data/, or use --data",
            code="DATA_MISSING",
        )
    return str(data / name)


def tuned_result(given: Input) -> tuple[Path, int]:
    """File or folder made by a tuning, and the number of trained parameters."""
    result = given.json(RESULT)
    return given.path(result["path"]), int(result["trained"])


def reference_file(work: Work) -> Path:
    """The fp32 table of the embed tuning among the inputs."""
    return tuned_result(work.inputs["embed"])[0]
