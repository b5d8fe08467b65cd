"""The record of a tuning run in its folder: settings, inputs, outcome.

``run.json`` holds settings, digests of every input, versions and outcome; ``metrics.jsonl`` has one line per
optimiser step. A resumed run must have the same *identity*, that is everything that determines the weights;
it is compared field by field.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import Field

from certify.base.errors import InvalidInputError, NothingToDoError, UsageError
from certify.base.jsonio import pretty_json, read_bytes, sha256_file, write_bytes
from certify.base.model import Document, Refusal, read
from certify.base.version import __version__
from lottery.text.usedtext import USED_FILE

if TYPE_CHECKING:
    from lottery.tuning.trainer import StepReport

RUN_FILE, METRICS_FILE, STATES_FOLDER = "run.json", "metrics.jsonl", "states"
SCHEMA: Final = "lottery.tune"
SCHEMA_VERSION: Final = 1

_METRICS_LIMIT = 1 << 30
_SHA256 = re.compile("[0-9a-f]{64}", re.ASCII)
_PACKAGES = ("torch", "transformers", "accelerate", "peft", "tokenizers", "numpy")


_REFUSAL: Final = Refusal("RUN_MALFORMED")

Status = Literal["running", "complete", "failed"]
"""State of a run."""


class RunRecord(Document):
    """The content of ``run.json``."""

    schema_: Literal["lottery.tune"] = Field(alias="schema", default=SCHEMA)
    schema_version: Literal[1] = SCHEMA_VERSION
    created_by: str
    status: Status
    identity: dict[str, Any]
    details: dict[str, Any]
    versions: dict[str, str]
    outcome: dict[str, Any]


def served_tables(used: Path) -> frozenset[str]:
    """Read which table the run made that wrote a list of used sentences, from the record beside the list.

    Returns:
        Tensor digests of the input table that its result serves, one per dtype that a ticket can serve; none
        if no run beside the list made a table, or one of before this was recorded.

    Raises:
        InvalidInputError: the record is malformed, or is that of a run that wrote another list
            (``USED_OTHER_RUN``).
    """
    path = used.parent / RUN_FILE
    if used.name != USED_FILE or not path.is_file():
        return frozenset()
    record, _ = read(RunRecord, path, what="record of a run", refusal=_REFUSAL)
    tables, listed = record.outcome.get("table_sha256"), record.outcome.get("used")
    stated = listed.get("sha256") if isinstance(listed, dict) else None
    if stated != sha256_file(used):
        raise InvalidInputError(f"{used} is not the list that the run beside it wrote", code="USED_OTHER_RUN")
    # Runs of before had one digest, in the dtype of the base.
    found = list(tables.values()) if isinstance(tables, dict) else [] if tables is None else [tables]
    if not all(isinstance(one, str) and _SHA256.fullmatch(one) for one in found):
        raise InvalidInputError(f"{path}: outcome.table_sha256 has no digests", code="RUN_MALFORMED")
    return frozenset(found)


class Journal:
    """The record of one run; only the main process may write."""

    def __init__(self, out: Path, identity: Mapping[str, Any], details: Mapping[str, Any]) -> None:
        """Describe a run in folder ``out``.

        Args:
            identity: everything that determines the weights, as JSON; a resumed run must have the same.
        """
        self._out, self._identity, self._details = out, dict(identity), dict(details)

    def check_free(self, *, resume: bool) -> None:
        """Refuse to mix two runs in one folder. Call this before anything is written.

        Raises:
            UsageError: the folder is not empty and ``resume`` is false, or there is no run to resume, or
                its run is another one (``RESUME_MISMATCH``, naming what differs).
            NothingToDoError: the run is complete.
            InvalidInputError: its record is malformed, or says that the run failed (``RUN_FAILED``), which
                it would do again.
        """
        if not _occupied(self._out):
            return
        if not resume:
            raise UsageError(
                f"{self._out} is not empty: choose another --out, or --resume the run in it",
                code="OUT_EXISTS",
            )
        record, _ = read(
            RunRecord, self._out / RUN_FILE, what="record of the run to resume", refusal=_REFUSAL
        )
        # Through JSON, so that tuples and lists compare equal.
        recorded, present = record.identity, json.loads(json.dumps(self._identity))
        if recorded != present:
            listed = ", ".join(_differences(recorded, present)) or "the record"
            raise UsageError(
                f"{self._out} contains another run: {listed} differ; use the settings that it was started"
                " with, or another --out",
                code="RESUME_MISMATCH",
            )
        if record.status == "complete":
            raise NothingToDoError(f"the run in {self._out} is complete", code="RUN_COMPLETE")
        if record.status == "failed":
            reason = str(record.outcome.get("reason"))[:300]
            raise InvalidInputError(
                f"the run in {self._out} failed and would fail again: {reason}; choose another --out",
                code="RUN_FAILED",
            )

    def write(self, status: Status, outcome: Mapping[str, Any]) -> None:
        """Write ``run.json`` with a status: ``running``, ``complete`` or ``failed``.

        Raises:
            UsageError: the file cannot be written.
        """
        installed = {}
        for package in _PACKAGES:
            with suppress(PackageNotFoundError):
                installed[package] = version(package)
        record = RunRecord(
            created_by=f"certify {__version__}",
            status=status,
            identity=self._identity,
            details=self._details,
            versions={"python": platform.python_version()} | installed,
            outcome=dict(outcome),
        )
        text = pretty_json(record.model_dump(mode="json", by_alias=True))
        write_bytes(self._out / RUN_FILE, text.encode("utf-8"))

    def rewind(self, step: int) -> None:
        """Drop the metrics of steps after ``step``, which a resumed run repeats.

        Raises:
            UsageError: the file cannot be read or written.
        """
        path = self._out / METRICS_FILE
        if not path.exists():
            return
        lines = read_bytes(path, what="metrics", limit=_METRICS_LIMIT).decode("utf-8", "replace").splitlines()
        kept = [line for line in lines if 0 < _step_of(line) <= step]
        write_bytes(path, "".join(line + "\n" for line in kept).encode("utf-8"))

    def append(self, step: StepReport) -> None:
        """Add a step to the metrics.

        Raises:
            UsageError: the disk is full, or the file cannot be written.
        """
        values = {key: value for key, value in asdict(step).items() if value is not None}
        append_json(self._out / METRICS_FILE, values)


def append_json(path: Path, value: Mapping[str, Any]) -> None:
    """Add a line to a file of JSON lines.

    Raises:
        UsageError: the disk is full, or the file cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(value, allow_nan=False) + "\n")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}", code="FILE_UNWRITABLE") from error


def _occupied(folder: Path) -> bool:
    if not folder.is_dir():
        return folder.exists()
    # A process that is killed while writing leaves a temporary file, which does not count.
    return any(not (p.name.startswith(".") and p.name.endswith(".part")) for p in folder.iterdir())


def _differences(recorded: Any, present: Mapping[str, Any], prefix: str = "") -> list[str]:
    if not isinstance(recorded, dict):
        return []
    names: list[str] = []
    for key in sorted(recorded.keys() | present.keys()):
        before, now = recorded.get(key), present.get(key)
        if isinstance(before, dict) and isinstance(now, dict):
            names += _differences(before, now, f"{prefix}{key}.")
        elif before != now:
            names.append(prefix + key)
    return names


def _step_of(line: str) -> int:
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return 0  # the last line of a killed run may be incomplete
    return step if type(step) is int else 0
