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
from certify.base.jsonio import read_json, tensor_digest
from certify.base.records import Dtype
from certify.tables.dtypes import DTYPES, cast, to_float32
from certify.tables.safefile import MappedFile, map_file, quote
from certify.tables.table import BLOCK_BYTES, DEFAULT_TENSOR, Table
from certify.ticket.adapters import CONFIG, PREFIX, WEIGHTS, check_fingerprint, token_ids

_KINDS: Final = frozenset({"TRAINABLE_TOKENS", "LORA"})
_WHOLE: Final = (
    ".weight",
    ".modules_to_save.weight",
    ".base_layer.weight",
)
_TOKENS: Final = (".trainable_tokens_delta", ".token_adapter.trainable_tokens_delta")
_LORA: Final = (".lora_embedding_A", ".lora_embedding_B")
# Settings of LoRA that change the product; their plain values.
_PLAIN: Final[Mapping[str, tuple[Any, ...]]] = {
    "use_dora": (None, False),
    "use_qalora": (None, False),
    "lora_bias": (None, False),
    "bias": (None, "none"),
    "init_lora_weights": (None, True, False, "gaussian"),
    "rank_pattern": (None, {}),
    "alpha_pattern": (None, {}),
    "alora_invocation_tokens": (None,),
    "arrow_config": (None,),
    "corda_config": (None,),
    "eva_config": (None,),
    "layer_replication": (None,),
    "target_parameters": (None, []),
}
_LISTS: Final = ("target_modules", "modules_to_save")

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
        tokens: what replaces them, in the served dtype.
    """

    base: Table
    tensor: str
    shape: tuple[int, int]
    whole: Values | None
    product: tuple[NDArray[np.float32], NDArray[np.float32]] | None
    ids: NDArray[np.int64]
    tokens: NDArray[Any]

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
            added = left[:, start + moved].T @ right.T
            block[moved] = cast(to_float32(block[moved], self.dtype) + added, "F32", self.dtype)
        first, last = np.searchsorted(self.ids, (start, stop))
        block[self.ids[first:last] - start] = self.tokens[first:last]
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
    path = folder / CONFIG
    config = read_json(path, what=f"{path}")
    if not isinstance(config, dict):
        raise InvalidInputError(f"{path} is not a JSON object", code="ADAPTER_MALFORMED")
    kind = config.get("peft_type")
    if kind not in _KINDS:
        raise InvalidInputError(
            f"{path}: peft_type is {quote(str(kind))}; the table that it serves cannot be computed",
            code="ADAPTER_UNSUPPORTED",
        )
    if not (folder / WEIGHTS).exists() and (folder / "adapter_model.bin").exists():
        raise InvalidInputError(
            f"{folder} has only pickled weights (adapter_model.bin), which are never opened",
            code="PICKLE_REFUSED",
        )
    file = map_file(folder / WEIGHTS)
    check_fingerprint(folder / WEIGHTS, base)
    tensor = base.tensor or DEFAULT_TENSOR
    module = tensor.removesuffix(".weight")
    parts = _Parts(file, f"{PREFIX}{module}")
    whole = parts.take(_WHOLE)
    shape = base.shape if whole is None else (whole[0].shape[0], whole[0].shape[1])
    _check_width(shape[1], base, file.path)
    product = _product(parts, config, shape, path)
    listed = parts.take(_TOKENS)
    ids, tokens = _tokens(listed, config, path, shape, base.dtype)
    if whole is None and product is None and listed is None:
        raise InvalidInputError(
            f"{folder} has no rows of {quote(tensor)}, the base's input table", code="ADAPTER_UNSUPPORTED"
        )
    others = sorted(parts.left | _other_targets(config, module))
    return Adapted(AdaptedTable(base, tensor, shape, whole, product, ids, tokens), tuple(others))


class _Parts:
    """The tensors of an adapter's file, of which those of one module are taken out."""

    def __init__(self, file: MappedFile, module: str) -> None:
        self.left = set(file.header)
        self._file, self._module = file, module

    def take(self, endings: tuple[str, ...]) -> Values | None:
        """The one tensor of the module with one of these endings, two-dimensional; None if there is none."""
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
    unusual = [key for key, plain in _PLAIN.items() if config.get(key) not in plain]
    if unusual:
        raise InvalidInputError(
            f"{path}: LoRA with {', '.join(unusual)} is not computed here", code="ADAPTER_UNSUPPORTED"
        )
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if type(rank) is not int or rank < 1 or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise InvalidInputError(f"{path}: r and lora_alpha are not numbers", code="ADAPTER_MALFORMED")
    if (
        first is None
        or second is None
        or (first[0].shape, second[0].shape) != ((rank, shape[0]), (shape[1], rank))
    ):
        raise InvalidInputError(
            f"{path}: the matrices of LoRA do not fit r and the table", code="ADAPTER_MALFORMED"
        )
    scale = np.float32(alpha / (math.sqrt(rank) if config.get("use_rslora") is True else rank))
    return to_float32(np.array(first[0]), first[1]), to_float32(np.array(second[0]), second[1]) * scale


def _tokens(
    listed: Values | None, config: Mapping[str, Any], path: Path, shape: tuple[int, int], dtype: Dtype
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    if listed is None:
        return np.zeros(0, np.int64), np.zeros((0, shape[1]), DTYPES[dtype])
    alone = config["peft_type"] == "TRAINABLE_TOKENS"
    named = config.get("token_indices" if alone else "trainable_token_indices")
    if isinstance(named, dict) and len(named) == 1:
        named = next(iter(named.values()))
    ids = token_ids(named, path, shape[0])
    values, stored = listed
    if values.shape != (ids.size, shape[1]):
        raise InvalidInputError(
            f"{path} names {ids.size} tokens of width {shape[1]}, but the rows are {list(values.shape)}",
            code="ADAPTER_WIDTH" if values.shape[0] == ids.size else "ADAPTER_MALFORMED",
        )
    order = np.argsort(ids)
    return ids[order], cast(np.array(values), stored, dtype)[order]


def _other_targets(config: Mapping[str, Any], module: str) -> set[str]:
    """Modules other than the table's that the configuration names; peft wraps those as well."""
    leaf = module.rpartition(".")[2]
    found: set[str] = set()
    for key in _LISTS:
        value = config.get(key)
        names = value if isinstance(value, list) else [] if value is None else [value]
        found |= {f"{key}: {name}" for name in names if name not in (module, leaf)}
    tokens = config.get("trainable_token_indices")
    if isinstance(tokens, dict):
        found |= {f"trainable_token_indices: {name}" for name in tokens if name not in (module, leaf)}
    return found


def _check_width(width: int, base: Table, path: Path) -> None:
    if width != base.shape[1]:
        raise InvalidInputError(
            f"{path}: the rows have width {width}, the base's {base.shape[1]}", code="ADAPTER_WIDTH"
        )
