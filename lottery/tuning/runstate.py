"""Saved states of a training run: trained parameters, optimiser moments, and the step they belong to.

A state is a folder that appears completely or not at all, so a run killed at any moment finds the last
complete one. Tensors are stored in a safetensors file, never in a pickle, and bound by digest. Schedule, data
order and random numbers are not saved: all three are functions of the settings and the step.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from certify.base.errors import InvalidInputError
from certify.base.jsonio import canonical_json, read_json, sha256_file, write_bytes
from certify.base.staging import staged_folder, written_by_safetensors

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

_TENSORS, _STATE = "tensors.safetensors", "state.json"
_NAME = re.compile(r"step-(\d{8})", re.ASCII)
_PARAMETER = "parameter"


@dataclass(frozen=True, slots=True)
class Saved:
    """A complete state on disk."""

    folder: Path
    step: int
    tokens: int


def save_state(
    root: Path, parameters: Mapping[str, Tensor], optimiser: Optimizer, *, step: int, tokens: int, keep: int
) -> Saved:
    """Write the state after ``step`` steps under ``root`` and drop all but the newest ``keep``.

    Args:
        parameters: the trained parameters by name, those that ``optimiser`` steps.
        optimiser: optimiser whose state consists of tensors, like AdamW's.
        step: optimiser steps taken, 0 to 99,999,999.
        keep: number of states to keep, at least 1.

    Raises:
        UsageError: the folder cannot be written, or the disk is full. Older states are untouched.
    """
    from safetensors.torch import save_file

    tensors = {f"{_PARAMETER}:{name}": value.detach() for name, value in parameters.items()}
    for name, value in parameters.items():
        tensors |= {f"{slot}:{name}": moment for slot, moment in optimiser.state[value].items()}
    folder = root / f"step-{step:08d}"
    with staged_folder(folder) as temporary:
        with written_by_safetensors(temporary):
            stored = {name: value.contiguous().cpu() for name, value in tensors.items()}
            save_file(stored, temporary / _TENSORS)
        record = {"sha256": sha256_file(temporary / _TENSORS), "step": step, "tokens": tokens}
        write_bytes(temporary / _STATE, canonical_json(record))
    for old in _complete(root)[:-keep]:
        remove_folder(old)
    for left_behind in root.glob(".step-*.part"):
        shutil.rmtree(left_behind)
    return Saved(folder, step, tokens)


def latest_state(root: Path) -> Saved | None:
    """Find the newest complete state under ``root``; None if there is none.

    Raises:
        InvalidInputError: its record is malformed.
    """
    folders = _complete(root)
    if not folders:
        return None
    record = _record(folders[-1])
    return Saved(folders[-1], record["step"], record["tokens"])


def load_state(saved: Saved, parameters: Mapping[str, Tensor], optimiser: Optimizer) -> None:
    """Restore a state into ``parameters`` and ``optimiser``, bit for bit.

    Raises:
        InvalidInputError: the file does not match its record (``STATE_CORRUPT``), or has other parameters
            or shapes (``STATE_MISMATCH``).
    """
    import torch
    from safetensors.torch import load_file

    path = saved.folder / _TENSORS
    if sha256_file(path) != _record(saved.folder)["sha256"]:
        raise InvalidInputError(
            f"{path} is damaged: its digest does not match the record; remove {saved.folder} to fall back on"
            " the state before it",
            code="STATE_CORRUPT",
        )
    tensors = load_file(path)
    moments: dict[str, dict[str, Tensor]] = {name: {} for name in parameters}
    values: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        slot, _, name = key.partition(":")
        if name not in parameters:
            raise InvalidInputError(
                f"{path} contains {name}, which is not trained here", code="STATE_MISMATCH"
            )
        (values if slot == _PARAMETER else moments[name])[name if slot == _PARAMETER else slot] = tensor
    for name, parameter in parameters.items():
        if name not in values or values[name].shape != parameter.shape:
            raise InvalidInputError(
                f"{path} does not contain {name} in the shape trained here", code="STATE_MISMATCH"
            )
        with torch.no_grad():
            parameter.copy_(values[name])
        # AdamW keeps its step counter on the CPU and its moments on the parameter's device.
        optimiser.state[parameter] = {
            slot: moment if slot == "step" else moment.to(parameter.device)
            for slot, moment in moments[name].items()
        }


def clear_states(root: Path) -> None:
    """Remove every state under ``root``, and the remains of killed runs."""
    if root.is_dir():
        remove_folder(root)


def _complete(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("step-*") if _NAME.fullmatch(path.name) and path.is_dir())


def _record(folder: Path) -> dict[str, Any]:
    record = read_json(folder / _STATE, what="state of a run")
    kinds = {"sha256": str, "step": int, "tokens": int}
    if not isinstance(record, dict) or any(type(record.get(key)) is not kind for key, kind in kinds.items()):
        raise InvalidInputError(f"{folder / _STATE} is not the record of a state", code="STATE_CORRUPT")
    return record


def remove_folder(folder: Path) -> None:
    """Remove a folder, renamed first, so that a half-removed one never looks complete."""
    doomed = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.replace(doomed)
    shutil.rmtree(doomed)
