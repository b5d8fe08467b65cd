"""The input table that a base and a PEFT adapter serve together, computed block by block without torch.

An adapter can reach the table in three ways, and peft applies them in this order: the whole table is replaced
(``modules_to_save``), a product of two small matrices is added (LoRA), single rows are replaced (trainable
tokens). The result is computed in fp32 and rounded once to the served dtype.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from certify.base.errors import InvalidInputError
from certify.base.jsonio import tensor_digest
from certify.base.records import Dtype
from certify.tables.dtypes import DTYPES, cast, to_float32
from certify.tables.safefile import MappedFile, map_file, quote
from certify.tables.table import BLOCK_BYTES, DEFAULT_TENSOR, Table
from certify.ticket.adapters.rows import CONFIG, PREFIX, WEIGHTS, check_fingerprint, read_config, token_ids

# By the setting that puts something in place of the table's module: the names of a whole table, of rows.
_WHOLE: Final[Mapping[str, tuple[str, ...]]] = {
    "": (".weight",),
    "modules_to_save": (".weight", ".modules_to_save.weight"),
    "target_modules": (".base_layer.weight",),
    "token_indices": (".base_layer.weight",),
    "trainable_token_indices": (),
}
_TOKENS: Final = {
    "token_indices": (".trainable_tokens_delta",),
    "trainable_token_indices": (".token_adapter.trainable_tokens_delta",),
}
_LORA: Final = (".lora_embedding_A", ".lora_embedding_B")
_COMMON: Final = (
    *("auto_mapping", "base_model_name_or_path", "inference_mode", "peft_type", "peft_version"),
    *("revision", "target_modules", "task_type"),
)
# By kind of adapter the settings that may be set, and to what; None: to anything, because it is read below
# or leaves what is served as it is. Whatever else is set is refused.
_SETTINGS: Final[Mapping[str, Mapping[str, tuple[Any, ...] | None]]] = {
    "TRAINABLE_TOKENS": dict.fromkeys((*_COMMON, "init_weights", "token_indices")),
    "LORA": {
        **dict.fromkeys((*_COMMON, "lora_alpha", "lora_dropout", "megatron_core", "modules_to_save")),
        **dict.fromkeys(("qalora_group_size", "r", "trainable_token_indices")),
        **dict.fromkeys(("ensure_weight_tying", "fan_in_fan_out", "lora_bias"), (False,)),
        **dict.fromkeys(("use_bdlora", "use_dora", "use_qalora"), (False,)),
        **dict.fromkeys(("alpha_pattern", "loftq_config", "rank_pattern"), ({},)),
        **dict.fromkeys(("exclude_modules", "layers_pattern", "target_parameters"), ([], "")),
        "bias": ("none",),
        "init_lora_weights": (True, False, "gaussian"),
        "use_rslora": (True, False),
    },
}

_LARGEST: Final = float(np.finfo(np.float32).max)

Values = tuple[NDArray[Any], Dtype]


@dataclass(frozen=True, eq=False)
class AdaptedTable:
    """The input table ``[V', d]`` that base and adapter serve together, in the dtype of ``base``.

    Attributes:
        base: E⁰ in the served dtype.
        tensor: name of the table.
        shape: ``(V', d)``.
        whole: what replaces the base's table, if anything.
        product: A ``[r, V']`` and scaled B ``[d, r]`` in fp32, whose product is added, if any.
        ids: rows that are replaced, increasing.
        tokens: what replaces them, and its dtype.
    """

    base: Table
    tensor: str
    shape: tuple[int, int]
    whole: Values | None
    product: tuple[NDArray[np.float32], NDArray[np.float32]] | None
    ids: NDArray[np.int64]
    tokens: Values

    @property
    def dtype(self) -> Dtype:
        """Element type in which the table is served."""
        return self.base.dtype

    @property
    def tied(self) -> bool | None:
        """Whether the output head shares the table; None if unknown."""
        return self.base.tied

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """Rows ``start`` to ``stop`` (exclusive), in the storage of ``dtype``."""
        if self.whole is None:
            block = np.array(self.base.rows(start, stop))
        else:
            values, dtype = self.whole
            block = np.array(cast(np.require(values[start:stop], requirements="A"), dtype, self.dtype))
        if self.product is not None:
            left, right = self.product
            moved = np.flatnonzero(left[:, start:stop].any(axis=0))
            with np.errstate(all="ignore"):  # whoever takes the rows looks for NaN and infinity
                sums = to_float32(block[moved], self.dtype) + left[:, start + moved].T @ right.T
            block[moved] = cast(sums, "F32", self.dtype)
        first, last = np.searchsorted(self.ids, (start, stop))
        values, dtype = self.tokens
        block[self.ids[first:last] - start] = cast(values[first:last], dtype, self.dtype)
        return block

    def digest(self) -> str:
        """Tensor digest of the table."""
        step = max(1, BLOCK_BYTES // (self.shape[1] * DTYPES[self.dtype].itemsize))
        starts = range(0, self.shape[0], step)
        blocks = (self.rows(start, min(start + step, self.shape[0])).tobytes() for start in starts)
        return tensor_digest(self.dtype, self.shape, blocks)


@dataclass(frozen=True, slots=True)
class Adapted:
    """The table that base and adapter serve, and names of whatever else the adapter changes or may change."""

    table: AdaptedTable
    others: tuple[str, ...]


def open_adapted(folder: Path, base: Table) -> Adapted:
    """Open an adapter folder from an untrusted source, for ``base`` in the served dtype.

    Raises:
        UsageError: a file is missing or cannot be read.
        InvalidInputError: the adapter is of a kind, or has settings, that are not computed here
            (``ADAPTER_UNSUPPORTED``), is malformed (``ADAPTER_MALFORMED``, ``ADAPTER_INDICES``,
            ``ADAPTER_WIDTH``, ``PICKLE_REFUSED``) or was made for another base (``WRONG_BASE``).
    """
    config, path = read_config(folder), folder / CONFIG
    kind = config.get("peft_type")
    if not isinstance(kind, str) or kind not in _SETTINGS:
        raise _unsupported(path, f"peft_type is {quote(str(kind))}")
    if not (folder / WEIGHTS).exists() and (folder / "adapter_model.bin").exists():
        raise InvalidInputError(
            f"{folder} has only pickled weights (adapter_model.bin), which are never opened: save the"
            " adapter with safetensors",
            code="PICKLE_REFUSED",
        )
    known = {key: (None, *(plain or (config.get(key),))) for key, plain in _SETTINGS[kind].items()}
    unusual = sorted(key for key, value in config.items() if value not in known.get(key, (None,)))
    if unusual:
        raise _unsupported(path, f"{kind} has settings that may change it: {', '.join(map(quote, unusual))}")
    file = map_file(folder / WEIGHTS)
    check_fingerprint(folder / WEIGHTS, base)
    tensor = base.tensor or DEFAULT_TENSOR
    module = tensor.removesuffix(".weight")
    parts = _Parts(file, f"{PREFIX}{module}")
    places, others = _places(config, module)
    if len(places) > 1:
        raise _unsupported(path, f"{quote(module)} is adapted more than once")
    place, named = places[0] if places else ("", None)
    whole = parts.take(_WHOLE[place])
    shape = base.shape if whole is None else (whole[0].shape[0], whole[0].shape[1])
    _check_width(shape[1], base, file.path)
    product = _product(parts, config, shape, path) if place == "target_modules" else None
    listed = parts.take(_TOKENS.get(place, ()))
    # peft passes over a tensor that has no place in the model, and fills a place without one by itself.
    filled = product if place == "target_modules" else listed if place in _TOKENS else whole
    if filled is None or any(name.startswith(f"{PREFIX}{module}.") for name in parts.left):
        expected = f", which the entry {place} needs" if place else ""
        raise _unsupported(folder, f"it has not just the tensors of {quote(tensor)}{expected}")
    ids, tokens = _tokens(listed, named, path, shape, base.dtype)
    others |= parts.left
    return Adapted(AdaptedTable(base, tensor, shape, whole, product, ids, tokens), tuple(sorted(others)))


def _unsupported(path: Path, why: str) -> InvalidInputError:
    return InvalidInputError(
        f"{path}: {why}; the table that it serves cannot be computed", code="ADAPTER_UNSUPPORTED"
    )


class _Parts:
    """The tensors of an adapter's file, of which those of one module are taken out."""

    def __init__(self, file: MappedFile, module: str) -> None:
        self.left = set(file.header)
        self._file, self._module = file, module

    def take(self, endings: tuple[str, ...]) -> Values | None:
        """The tensor of the module with one of these endings, two-dimensional; None if there is none."""
        names = [self._module + ending for ending in endings if self._module + ending in self.left]
        if not names:
            return None
        info = self._file.header[names[0]]
        dtype = next((name for name in DTYPES if name == info.dtype), None)
        if len(names) > 1 or dtype is None or len(info.shape) != 2:
            raise InvalidInputError(
                f"{self._file.path}: {quote(names[0])} is {info.dtype} {list(info.shape)}, or there twice",
                code="ADAPTER_MALFORMED",
            )
        self.left.discard(names[0])
        return self._file.tensor(names[0]), dtype


def _product(
    parts: _Parts, config: Mapping[str, Any], shape: tuple[int, int], path: Path
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    first, second = (parts.take((ending,)) for ending in _LORA)
    if first is None and second is None:
        return None
    rank, alpha = config.get("r"), config.get("lora_alpha")
    # An integer of any length can be compared with a float, but not made one.
    if type(rank) is not int or rank < 1 or not isinstance(alpha, int | float) or abs(alpha) > _LARGEST:
        raise InvalidInputError(
            f"{path}: r and lora_alpha are not numbers that fp32 holds", code="ADAPTER_MALFORMED"
        )
    if (
        first is None
        or second is None
        or (first[0].shape, second[0].shape) != ((rank, shape[0]), (shape[1], rank))
    ):
        raise InvalidInputError(
            f"{path}: the matrices of LoRA do not fit r and the table", code="ADAPTER_MALFORMED"
        )
    scale = np.float32(alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))
    left, right = (to_float32(np.array(values), dtype) for values, dtype in (first, second))
    with np.errstate(all="ignore"):
        return left, right * scale


def _tokens(
    listed: Values | None, named: object, path: Path, shape: tuple[int, int], dtype: Dtype
) -> tuple[NDArray[np.int64], Values]:
    if listed is None:
        return np.zeros(0, np.int64), (np.zeros((0, shape[1]), DTYPES[dtype]), dtype)
    ids = token_ids(named, path, shape[0])
    values, stored = listed
    if values.shape != (ids.size, shape[1]):
        raise InvalidInputError(
            f"{path} names {ids.size} tokens of width {shape[1]}, but the rows are {list(values.shape)}",
            code="ADAPTER_WIDTH" if values.shape[0] == ids.size else "ADAPTER_MALFORMED",
        )
    order = np.argsort(ids)
    return ids[order], (np.array(values)[order], stored)


def _places(config: Mapping[str, Any], module: str) -> tuple[list[tuple[str, Any]], set[str]]:
    """Settings that put something in place of ``module``, each with the rows that it names; other modules.

    LoRA without targets has those of the architecture. A string is a pattern, or a word such as "all-linear".
    """
    alone, found, others = config["peft_type"] == "TRAINABLE_TOKENS", list[tuple[str, Any]](), set[str]()
    for key in ("target_modules", "modules_to_save", "trainable_token_indices"):
        value = config.get(key)
        if value is None and key == "target_modules":
            value = [module if alone else "of the architecture"]
        elif isinstance(value, list) and key == "trainable_token_indices":
            value = {module: value}
        elif value == module and key == "target_modules":
            value = [value]
        if not isinstance(value, list | dict):
            others |= set() if value is None else {f"{key}: {value}"}
            continue
        mine = [name for name in value if name in (module, module.rpartition(".")[2])]
        others |= {f"{key}: {name}" for name in value if name not in mine}
        place = "token_indices" if alone else key
        rows = value if isinstance(value, dict) else dict.fromkeys(mine, config.get("token_indices"))
        found += [(place, rows[name]) for name in mine]
    return found, others


def _check_width(width: int, base: Table, path: Path) -> None:
    if width != base.shape[1]:
        raise InvalidInputError(
            f"{path}: the rows have width {width}, the base's {base.shape[1]}", code="ADAPTER_WIDTH"
        )
