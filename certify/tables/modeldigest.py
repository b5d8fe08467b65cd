"""Digests of whole models, independent of file names: they identify the weights of an evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from certify.base.errors import InvalidInputError, UsageError
from certify.base.files import opened
from certify.base.jsonio import canonical_json, read_json, sha256_bytes, sha256_file, tensor_digest
from certify.tables.checkpoint import CONFIG, INDEX, SINGLE
from certify.tables.safefile import TensorInfo, is_file, read_header
from certify.tables.table import BLOCK_BYTES

_ADAPTER = ("adapter_config.json", "adapter_model.safetensors")

_NOT_THE_ADAPTER = ("base_model_name_or_path", "revision", "peft_version")
_SETS = {"target_modules", "exclude_modules", "modules_to_save"}

_BESIDE_TOKENIZER = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
"""Files that ``transformers`` reads for special tokens and settings of a tokenizer."""

_NO_SETTING = ("name_or_path", "tokenizer_file", "special_tokens_map_file", "transformers_version")
"""Entries of these files that do not affect ids: the origin of the tokenizer."""


def checkpoint_digest(folder: Path, *, without: str | None = None) -> str:
    """Compute the digest of a checkpoint folder: its configuration and every tensor, however sharded.

    It is the SHA-256 of the canonical JSON of ``{"config": ..., "tensors": {name: tensor digest}}``. The
    library version and path in ``config.json`` are left out, because they do not affect outputs.

    Args:
        folder: a checkpoint folder (``config.json``, safetensors).
        without: name of a tensor to leave out, such as the input table for a digest of everything else.

    Raises:
        UsageError: a file is missing or cannot be read.
        InvalidInputError: a file is malformed.
    """
    kept = model_settings(folder)
    tensors: dict[str, str] = {}
    for shard in _shards(folder):
        for name, info in read_header(shard).items():
            if name != without:
                tensors[name] = tensor_digest(info.dtype, info.shape, _blocks(shard, info))
    return sha256_bytes(canonical_json({"config": kept, "tensors": tensors}))


def model_settings(folder: Path) -> dict[str, Any]:
    """Read the configuration of a checkpoint folder, without the library version and the path in it.

    Raises:
        UsageError: there is none, or it cannot be read.
        InvalidInputError: it is not a JSON object (``CONFIG_MALFORMED``).
    """
    config = read_json(folder / CONFIG, what=f"{CONFIG} of the model")
    if not isinstance(config, dict):
        raise InvalidInputError(f"{folder / CONFIG} is not an object", code="CONFIG_MALFORMED")
    return {
        key: value for key, value in config.items() if key not in ("transformers_version", "_name_or_path")
    }


def settings(path: Path) -> Any:
    """Read a JSON file of settings, without the paths and the library version in it.

    Raises:
        UsageError: there is none, or it cannot be read.
        InvalidInputError: it is not JSON (``JSON_*``).
    """
    content = read_json(path, what=path.name)
    if not isinstance(content, dict):
        return content
    return {key: value for key, value in content.items() if key not in _NO_SETTING}


def tokenizer_digest(folder: Path) -> str:
    """Compute the digest of the tokenizer of a checkpoint folder: SHA-256 of a canonical JSON.

    ``tokenizer.json`` alone does not determine which tokens begin and end a sequence. The files beside it do,
    so their content counts as well, without the paths in it.

    Raises:
        UsageError: ``tokenizer.json`` is missing, or a file cannot be read.
        InvalidInputError: a file beside it is not JSON.
    """
    beside: dict[str, Any] = {}
    for name in _BESIDE_TOKENIZER:
        if (folder / name).is_file():
            beside[name] = settings(folder / name)
    return sha256_bytes(canonical_json({"tokenizer": sha256_file(folder / "tokenizer.json"), **beside}))


def adapter_digest(folder: Path) -> str:
    """Compute the digest of a PEFT adapter folder: its settings and every tensor.

    It is the SHA-256 of the canonical JSON of ``{"config": ..., "tensors": {name: tensor digest}}``. The same
    weights with the same settings have the same digest on every machine and with every library version; see
    :func:`adapter_settings`.

    Raises:
        UsageError: a file is missing.
        InvalidInputError: a file is malformed.
    """
    config, weights = (folder / name for name in _ADAPTER)
    settings = read_json(config, what="adapter configuration")
    if not isinstance(settings, dict):
        raise InvalidInputError(f"{config} is not an object", code="ADAPTER_MALFORMED")
    tensors = {
        name: tensor_digest(info.dtype, info.shape, _blocks(weights, info))
        for name, info in read_header(weights).items()
    }
    return sha256_bytes(canonical_json({"config": adapter_settings(settings), "tensors": tensors}))


def adapter_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Extract from an ``adapter_config.json`` the settings of the adapter, without the path of its base.

    Module names, which PEFT writes in arbitrary order, are sorted. The library version is left out.
    """
    kept = {key: value for key, value in config.items() if key not in _NOT_THE_ADAPTER}
    for key in _SETS & kept.keys():
        if isinstance(kept[key], list):
            kept[key] = sorted(kept[key], key=str)
    return kept


def _shards(folder: Path) -> list[Path]:
    # Where both are, loaders of models take the single file.
    if is_file(folder / SINGLE) or not is_file(folder / INDEX):
        return [folder / SINGLE]
    index = read_json(folder / INDEX, what="the checkpoint index")
    names = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(names, dict) or not all(
        isinstance(name, str) and Path(name).name == name for name in names.values()
    ):
        raise InvalidInputError(f"{folder / INDEX} has no weight_map of file names", code="INDEX_MALFORMED")
    paths = [folder / name for name in sorted(set(names.values()))]
    missing = [path for path in paths if not is_file(path)]
    if missing:
        raise UsageError(f"{missing[0]} is missing", code="FILE_UNREADABLE")
    return paths


def _blocks(path: Path, info: TensorInfo) -> Iterator[bytes]:
    # Straight from the file: weights may have types that arrays here do not support (FP8, packed integers).
    with opened(path) as stream:
        stream.seek(info.start)
        left = info.stop - info.start
        while left:
            block = stream.read(min(left, BLOCK_BYTES))
            if not block:
                raise InvalidInputError(
                    f"{path} became shorter while it was read", code="SAFETENSORS_MALFORMED"
                )
            left -= len(block)
            yield block
