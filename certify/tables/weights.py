"""All tensors of a checkpoint, compared with those of another one, and weight files that no index names.

Tensors are compared block by block from memory maps, so memory does not grow with the model.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from certify.base.errors import InvalidInputError
from certify.base.jsonio import JsonReader, read_json
from certify.base.records import Dtype
from certify.tables.checkpoint import INDEX, PICKLE_SUFFIXES, SINGLE, read_index
from certify.tables.dtypes import DTYPES, cast
from certify.tables.movedrows import is_moved
from certify.tables.safefile import MappedFile, TensorInfo, is_file, is_folder, map_file, quote

WEIGHT_SUFFIXES: Final = PICKLE_SUFFIXES | {
    *(".safetensors", ".gguf", ".ggml", ".npz", ".npy", ".h5", ".msgpack", ".onnx", ".ot"),
}
"""Endings of files that some loader takes for weights."""

_BLOCK_BYTES: Final = 8 << 20


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor and the opened file that it lies in."""

    file: MappedFile
    info: TensorInfo


@dataclass(frozen=True, slots=True)
class Differences:
    """Names of tensors in which a checkpoint differs from another one, sorted.

    Attributes:
        compared: number of tensors that both have.
        missing: only the other one has them.
        extra: only this one has them.
        dtypes: stored in another type; as ``(name, found, expected)``.
        shapes: of another shape; as ``(name, found, expected)``.
        changed: same type and shape, other bytes.
    """

    compared: int
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    dtypes: tuple[tuple[str, str, str], ...]
    shapes: tuple[tuple[str, str, str], ...]
    changed: tuple[str, ...]


def open_weights(path: Path, read: JsonReader = read_json) -> dict[str, Stored]:
    """Open every tensor that a loader takes from a checkpoint folder or a safetensors file.

    Returns:
        Name -> tensor. An ``.npy`` file has no names and gives none, nor do moved rows.

    Raises:
        UsageError: a file cannot be read.
        InvalidInputError: a shard is missing (``SHARD_MISSING``), lacks a tensor that the index puts there
            (``TENSOR_MISSING``), or a tensor lies in two shards (``CHECKPOINT_AMBIGUOUS``); or a file is
            malformed.
    """
    if not is_folder(path):
        return _collect([path] if path.suffix.lower() == ".safetensors" else [])
    if not is_file(path / INDEX):
        return _collect([path / SINGLE])
    shards = read_index(path / INDEX, read)
    for shard in sorted(set(shards.values())):
        if not is_file(path / shard):
            raise InvalidInputError(
                f"{path / INDEX} names {quote(shard)}, which is missing", code="SHARD_MISSING"
            )
    found = _collect(path / shard for shard in sorted(set(shards.values())))
    for name, shard in shards.items():
        if name not in found or found[name].file.path.name != shard:
            raise InvalidInputError(
                f"{path / shard} lacks {quote(name)}, which the index puts there", code="TENSOR_MISSING"
            )
    return found


def is_weights(name: str) -> bool:
    """Whether some loader takes a file of this name for weights, or for an index of them."""
    return Path(name.lower().removesuffix(".index.json")).suffix in WEIGHT_SUFFIXES


def stray_weights(folder: Path, loaded: Iterable[Path]) -> tuple[str, ...]:
    """Name the files below ``folder`` that some loader may take for weights, other than those ``loaded``.

    Another loader may prefer them to the ones that were compared. Links are not followed into folders.
    """
    known = {os.path.normpath(path) for path in loaded}
    found = []
    for root, folders, names in os.walk(folder):
        linked = [name for name in folders if (Path(root) / name).is_symlink()]
        for name in {*names, *linked} - {INDEX}:
            path = os.path.normpath(Path(root) / name)
            if is_weights(name) and path not in known:
                found.append(Path(path).relative_to(os.path.normpath(folder)).as_posix())
    return tuple(sorted(found))


def compare_weights(
    base: Mapping[str, Stored],
    served: Mapping[str, Stored],
    *,
    apart: str,
    cast_from: Dtype,
    cast_to: Dtype,
    longer: tuple[int, int] | None = None,
) -> Differences:
    """Compare every tensor of ``served`` with the one of that name in ``base``, bit for bit.

    Args:
        base: what is expected.
        served: what is there.
        apart: name of the one tensor whose content is not compared here.
        cast_from: tensors of this type in ``base`` ...
        cast_to: ... are expected in this one, each value rounded once. Others keep their type.
        longer: ``(V, V')``: a tensor of V rows may have V' rows, of which the first V are compared.
    """
    common = sorted(base.keys() & served.keys() - {apart})
    dtypes: list[tuple[str, str, str]] = []
    shapes: list[tuple[str, str, str]] = []
    changed: list[str] = []
    for name in common:
        before, after = base[name], served[name]
        expected = cast_to if before.info.dtype == cast_from else before.info.dtype
        if after.info.dtype != expected:
            dtypes.append((name, after.info.dtype, expected))
        elif after.info.shape != before.info.shape and not _is_longer(before.info, after.info, longer):
            shapes.append((name, str(list(after.info.shape)), str(list(before.info.shape))))
        elif not _equal(before, after, _caster(before.info.dtype, expected)):
            changed.append(name)
    return Differences(
        len(common) + (apart in base and apart in served),
        tuple(sorted(base.keys() - served.keys())),
        tuple(sorted(served.keys() - base.keys())),
        tuple(dtypes),
        tuple(shapes),
        tuple(changed),
    )


def _collect(paths: Iterable[Path]) -> dict[str, Stored]:
    found: dict[str, Stored] = {}
    for path in paths:
        file = map_file(path)
        for name, info in ({} if is_moved(file) else file.header).items():
            if name in found:
                raise InvalidInputError(
                    f"{path}: {quote(name)} is also in {quote(found[name].file.path.name)}",
                    code="CHECKPOINT_AMBIGUOUS",
                )
            found[name] = Stored(file, info)
    return found


def _is_longer(before: TensorInfo, after: TensorInfo, longer: tuple[int, int] | None) -> bool:
    return (
        longer is not None
        and (before.shape[:1], after.shape[:1]) == (longer[:1], longer[1:])
        and before.shape[1:] == after.shape[1:]
    )


def _caster(stored: str, expected: str) -> Callable[[np.ndarray], np.ndarray] | None:
    """What turns bytes of type ``stored`` into bytes of type ``expected``; None if they are equal."""
    if stored == expected:
        return None
    source = next(name for name in DTYPES if name == stored)
    target = next(name for name in DTYPES if name == expected)
    return lambda block: cast(block.view(DTYPES[source]), source, target).view(np.uint8)


def _equal(before: Stored, after: Stored, caster: Callable[[np.ndarray], np.ndarray] | None) -> bool:
    position = after.info.start
    for block in _blocks(before):
        expected = block if caster is None else caster(block)
        if not np.array_equal(expected, after.file.bytes[position : position + expected.size]):
            return False
        position += expected.size
    return True


def _blocks(stored: Stored) -> Iterator[np.ndarray]:
    for start in range(stored.info.start, stored.info.stop, _BLOCK_BYTES):
        yield np.array(stored.file.bytes[start : min(start + _BLOCK_BYTES, stored.info.stop)])
