"""Digests of whole models: which weights an evaluation ran on, whatever the files are called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from certify.base.errors import InvalidInputError, UsageError
from certify.base.jsonio import canonical_json, read_json, sha256_bytes, sha256_file, tensor_digest
from certify.tables.checkpoint import CONFIG, INDEX, SINGLE
from certify.tables.safefile import TensorInfo, is_file, opened, read_header
from certify.tables.table import BLOCK_BYTES

_ADAPTER = ("adapter_config.json", "adapter_model.safetensors")

_NOT_THE_ADAPTER = ("base_model_name_or_path", "revision", "peft_version")
_SETS = {"target_modules", "exclude_modules", "modules_to_save"}

_BESIDE_TOKENIZER = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
"""Files in which ``transformers`` looks for special tokens and settings of a tokenizer."""

_NO_SETTING = ("name_or_path", "tokenizer_file", "special_tokens_map_file", "transformers_version")
"""Entries of these files that change no id: where the tokenizer came from."""


def checkpoint_digest(folder: Path, *, without: str | None = None) -> str:
    """Digest of a checkpoint folder: its configuration and every tensor, however sharded.

    SHA-256 of the canonical JSON of ``{"config": ..., "tensors": {name: tensor digest}}``. The library
    version and the path that ``config.json`` may mention take no part: they change no output.

    Args:
        folder: a checkpoint folder (``config.json``, safetensors).
        without: name of a tensor to leave out: the input table, when the digest is of "everything else".

    Raises:
        UsageError: something is missing or cannot be read.
        InvalidInputError: a file is refused.
    """
    config = read_json(folder / CONFIG, what=f"{CONFIG} of the model")
    if not isinstance(config, dict):
        raise InvalidInputError(f"{folder / CONFIG} is not an object", code="CONFIG_MALFORMED")
    kept = {
        key: value for key, value in config.items() if key not in ("transformers_version", "_name_or_path")
    }
    tensors: dict[str, str] = {}
    for shard in _shards(folder):
        for name, info in read_header(shard).items():
            if name != without:
                tensors[name] = tensor_digest(info.dtype, info.shape, _blocks(shard, info))
    return sha256_bytes(canonical_json({"config": kept, "tensors": tensors}))


def tokenizer_digest(folder: Path) -> str:
    """Digest of all that makes the tokenizer of a checkpoint folder: SHA-256 of a canonical JSON.

    ``tokenizer.json`` alone does not say which token begins and ends a sequence, or is fed as such: that
    stands in files beside it, which count by content. Paths that they may mention take no part.

    Raises:
        UsageError: ``tokenizer.json`` is missing, or a file cannot be read.
        InvalidInputError: a file beside it is not JSON.
    """
    beside: dict[str, Any] = {}
    for name in _BESIDE_TOKENIZER:
        if (folder / name).is_file():
            content = read_json(folder / name, what=name)
            if isinstance(content, dict):
                content = {key: value for key, value in content.items() if key not in _NO_SETTING}
            beside[name] = content
    return sha256_bytes(canonical_json({"tokenizer": sha256_file(folder / "tokenizer.json"), **beside}))


def adapter_digest(folder: Path) -> str:
    """Digest of a PEFT adapter folder: its settings and every tensor.

    SHA-256 of the canonical JSON of ``{"config": ..., "tensors": {name: tensor digest}}``. The same weights
    under the same settings have the same digest wherever and with whichever library they were written: see
    :func:`adapter_settings`.

    Raises:
        UsageError: a file is missing.
        InvalidInputError: one is refused.
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
    """What an ``adapter_config.json`` says about the adapter, without where its base lay.

    Names of modules, which PEFT keeps as sets and writes in any order, are sorted. The version of the library
    takes no part.
    """
    kept = {key: value for key, value in config.items() if key not in _NOT_THE_ADAPTER}
    for key in _SETS & kept.keys():
        if isinstance(kept[key], list):
            kept[key] = sorted(kept[key], key=str)
    return kept


def _shards(folder: Path) -> list[Path]:
    if not is_file(folder / INDEX):
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
    # Straight from the file: weights may be of types that no array here has (FP8, packed integers).
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
