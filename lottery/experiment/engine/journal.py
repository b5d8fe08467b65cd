"""The journal of an experiment, ``journal.jsonl``: the only file that records times and the machine."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from certify.base.version import __version__
from lottery.experiment.engine.graph import GraphStep, StepStanding
from lottery.experiment.plan.plan import ExperimentPlan
from lottery.tuning.journal import append_json


@dataclass(frozen=True, slots=True)
class Line:
    """An entry about one step.

    Attributes:
        event: ``skipped``, ``started``, ``finished`` or ``failed``.
        seconds: wall seconds of a finished or failed step.
        text: why it runs, or its result.
    """

    event: str
    step: str
    number: int
    steps: int
    seconds: float | None
    text: str


class ExperimentJournal:
    """Appends lines to ``journal.jsonl`` and reports them."""

    def __init__(self, path: Path, steps: int, report: Callable[[Line], None] | None) -> None:
        """Continue the journal at ``path``; ``report`` is called with every line about a step."""
        self._path, self._steps, self._report = path, steps, report
        self._number = 0
        self._begun = 0.0

    def begin(self, plan: ExperimentPlan) -> None:
        """Record that a run of ``plan`` begins, with machine and versions."""
        self._append(
            {
                "event": "run",
                "plan": plan.name,
                "plan_sha256": plan.digest(),
                "created_by": f"certify {__version__}",
                "python": platform.python_version(),
                "torch": torch.__version__,
                "machine": platform.machine(),
                "threads": torch.get_num_threads(),
                "cores": len(os.sched_getaffinity(0)),
            }
        )

    def watch(self, event: str, step: GraphStep, standing: StepStanding | None) -> None:
        """Record and report an event of :meth:`lottery.experiment.engine.graph.Graph.run`."""
        now = time.monotonic()
        seconds = None
        if event in ("started", "skipped"):
            self._number += 1
            self._begun = now
        else:
            seconds = now - self._begun
        text = "" if standing is None else standing.reason
        if event == "finished" and standing is not None and standing.done is not None:
            facts = {name: value for name, value in standing.done.facts.items() if value is not None}
            shown = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in facts.items())
            text = standing.done.void or ", ".join(shown)
        if event != "skipped":
            entry: dict[str, Any] = {"event": event, "step": step.name}
            self._append(entry | ({} if seconds is None else {"seconds": round(seconds, 3)}))
        if self._report is not None:
            self._report(Line(event, step.name, self._number, self._steps, seconds, text))

    def _append(self, entry: dict[str, Any]) -> None:
        stamped = {"time": datetime.now(UTC).isoformat(timespec="seconds")} | entry
        append_json(self._path, stamped)


def recorded_seconds(path: Path) -> dict[str, float]:
    """Read the seconds of the last finished attempt of every step; an incomplete last line is ignored."""
    seconds: dict[str, float] = {}
    if not path.exists():
        return seconds
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("event") == "finished":
            seconds[str(entry.get("step"))] = float(entry.get("seconds", 0.0))
    return seconds
