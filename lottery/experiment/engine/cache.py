"""Cache of steps, by digests: nothing runs twice, and nothing stale is used.

A step has a folder ``steps/NAME`` under the experiment's. Its *key* is the SHA-256 of everything that
determines its outcome: kind and version of its procedure, parameters, and digests of the outputs of earlier
steps. A step is finished if ``done.json`` has its current key and every output has the recorded digest.

``started.json`` has the key of an attempt in progress. If an attempt was killed and the key is still the
same, the next attempt continues in its folder, so a procedure that saves states can resume. Otherwise the
folder is emptied first. Nothing here reads a clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from certify.base.jsonio import canonical_json, pretty_json, read_json, sha256_bytes, sha256_file, write_bytes
from certify.base.model import SLUG, Model, Refusal, RelativePath, Sha256, read
from lottery.tuning.runstate import remove_folder

STEPS: Final = "steps"
DONE, STARTED = "done.json", "started.json"

_REFUSAL: Final = Refusal("STEP_MALFORMED")
_WORD = re.compile(SLUG, re.ASCII)


class Done(Model):
    """Record of a finished step.

    Attributes:
        key: key of the step; see :func:`step_key`.
        outputs: relative path -> file digest of every output file.
        void: why there was nothing to do, such as a ticket without rows; empty for an ordinary step. A void
            step has no outputs.
        facts: figures about the outcome, for people and estimates; nothing depends on them.
    """

    key: str
    outputs: dict[RelativePath, Sha256]
    void: str
    facts: dict[str, Any]


def step_key(
    kind: str, version: int, parameters: Mapping[str, Any], inputs: Mapping[str, Mapping[str, str]]
) -> str:
    """Compute the key of a step: SHA-256 of the canonical JSON of all that determines its outcome.

    Args:
        version: its version, which increases when the procedure changes its results.
        inputs: role of an input -> its outputs (relative path -> digest).

    Raises:
        TypeError: a parameter is not JSON.
        ValueError: a parameter is NaN or infinite.
    """
    content = {
        "kind": kind,
        "version": version,
        "parameters": dict(parameters),
        "inputs": {role: dict(outputs) for role, outputs in inputs.items()},
    }
    return sha256_bytes(canonical_json(content))


class Cache:
    """The steps of an experiment on disk."""

    def __init__(self, root: Path) -> None:
        """Look at the experiment in ``root``; nothing is read or written yet."""
        self.root = root

    def folder(self, name: str) -> Path:
        """Folder of the step ``name`` (words of letters and digits, separated by ``/``).

        Raises:
            ValueError: the name has another form.
        """
        words = name.split("/")
        if not all(_WORD.fullmatch(word) for word in words):
            raise ValueError(f"{name!r} is not the name of a step")
        # Folders of steps are never nested, because a step may empty its own.
        return self.root / STEPS / "+".join(words)

    def done(self, name: str) -> Done | None:
        """Read the record of a finished step with any key; None if there is none.

        Raises:
            InvalidInputError: the record is malformed (``STEP_MALFORMED``).
        """
        path = self.folder(name) / DONE
        return read(Done, path, what="record of a step", refusal=_REFUSAL)[0] if path.exists() else None

    def damage(self, name: str, done: Done) -> str:
        """Relative path of the first output that is missing or differs from the record; empty if none."""
        folder = self.folder(name)
        for path, digest in done.outputs.items():
            target = folder / path
            if not target.is_file() or sha256_file(target) != digest:
                return path
        return ""

    def started(self, name: str) -> str:
        """Key of an unfinished attempt; empty if there is none."""
        path = self.folder(name) / STARTED
        if not path.exists():
            return ""
        value = read_json(path, what="record of a step")
        return str(value.get("key", "")) if isinstance(value, dict) else ""

    def begin(self, name: str, key: str) -> Path:
        """Prepare the folder of a step for an attempt and return it.

        The files of a killed attempt with the same key are kept; all others are removed.

        Raises:
            UsageError: the folder cannot be written.
        """
        folder = self.folder(name)
        # A finished step only starts again because its result is damaged or stale.
        if self.started(name) != key or (folder / DONE).exists():
            if folder.exists():
                remove_folder(folder)
            write_bytes(folder / STARTED, pretty_json({"key": key}).encode("utf-8"))
        return folder

    def finish(
        self, name: str, key: str, outputs: Iterable[str], *, void: str = "", facts: Mapping[str, Any]
    ) -> Done:
        """Record that an attempt succeeded.

        Args:
            outputs: relative paths of files, or of folders with all their files.

        Raises:
            UsageError: an output is missing, or the record cannot be written.
        """
        folder = self.folder(name)
        digests = {path: sha256_file(folder / path) for path in sorted(_files(folder, outputs))}
        done = Done(key=key, outputs=digests, void=void, facts=dict(facts))
        write_bytes(folder / DONE, pretty_json(done.model_dump()).encode("utf-8"))
        (folder / STARTED).unlink(missing_ok=True)
        return done


def _files(folder: Path, outputs: Iterable[str]) -> set[str]:
    files: set[str] = set()
    for output in outputs:
        target = folder / output
        if target.is_dir():
            files |= {path.relative_to(folder).as_posix() for path in target.rglob("*") if path.is_file()}
        else:
            files.add(output)
    return files
