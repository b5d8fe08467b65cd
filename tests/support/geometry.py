"""A checkpoint of a LLaMA's geometry with random weights: what a machine can do, before 13 GB are downloaded.

Time and memory of a scan, a transfer or a tuning step depend on shapes and dtypes, not on what the weights
say. The folder has the layout of LLaMA-1 on the hub: sharded fp16 safetensors with an index, an untied head,
the configuration, and a tokenizer in which the published tickets have their pieces.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from standin_tokenizer import write_standin_tokenizer

from certify.base.errors import UsageError
from certify.base.jsonio import atomic_writer, pretty_json, write_bytes
from certify.base.staging import staged_folder
from certify.selection.rules import published
from certify.tables.checkpoint import CONFIG, INDEX
from certify.tables.dtypes import DTYPES

DEVIATION = 0.02
"""Standard deviation of the weights: LLaMA's ``initializer_range``."""

_DTYPE = DTYPES["F16"]
_POSITIONS = 2048
_BLOCK = 1 << 20  # numbers drawn at a time
_GRADES = 1 << 16


@dataclass(frozen=True, slots=True)
class Geometry:
    """Shape of a LLaMA-1 model; its vocabulary always has the 32,000 ids of the published tickets.

    Attributes:
        width: d, numbers in an embedding row.
        layers: decoder layers.
        heads: attention heads; each has as many keys and values of its own.
        intermediate: width inside the feed-forward blocks.
    """

    width: int
    layers: int
    heads: int
    intermediate: int

    def __post_init__(self) -> None:
        """Refuse what no LLaMA can have.

        Raises:
            UsageError: an extent is not positive, or ``width / heads`` is no even number (``GEOMETRY``).
        """
        if min(self.width, self.layers, self.heads, self.intermediate) < 1:
            raise UsageError("width, layers, heads and intermediate must be at least 1", code="GEOMETRY")
        if self.width % (2 * self.heads):
            raise UsageError(
                f"{self.heads} heads must divide the width {self.width} into even parts", code="GEOMETRY"
            )

    @property
    def vocabulary(self) -> int:
        """V, rows of the embedding table."""
        return published().rows

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(math.prod(shape) for shape in self.tensors().values())

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every tensor, in the order of the model."""
        d, wide = self.width, self.intermediate
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocabulary, d)}
        for layer in range(self.layers):
            prefix = f"model.layers.{layer}"
            shapes |= {f"{prefix}.self_attn.{name}_proj.weight": (d, d) for name in "qkvo"}
            shapes |= {
                f"{prefix}.mlp.gate_proj.weight": (wide, d),
                f"{prefix}.mlp.up_proj.weight": (wide, d),
                f"{prefix}.mlp.down_proj.weight": (d, wide),
                f"{prefix}.input_layernorm.weight": (d,),
                f"{prefix}.post_attention_layernorm.weight": (d,),
            }
        return shapes | {"model.norm.weight": (d,), "lm_head.weight": (self.vocabulary, d)}

    def config(self) -> dict[str, Any]:
        """Content of ``config.json``."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocabulary,
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads,
            "intermediate_size": self.intermediate,
            "max_position_embeddings": _POSITIONS,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-6,
            "initializer_range": DEVIATION,
            "tie_word_embeddings": False,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "torch_dtype": "float16",
        }


LLAMA_7B = Geometry(width=4096, layers=32, heads=32, intermediate=11008)
"""LLaMA-7B, the paper's model: 6,738,415,616 weights, 13.5 GB in fp16."""


def write_random_checkpoint(
    out: Path, geometry: Geometry, *, seed: int, shard_bytes: int = 3_000_000_000
) -> None:
    """Write a checkpoint folder with normal random weights in fp16; whole or not at all.

    Every matrix is drawn on its own, from ``seed`` and its position in the model, so that the weights do not
    depend on ``shard_bytes``; norms are one. A block of a tensor is in memory at a time. Equal arguments give
    equal weights. Numbers are drawn from 65,536 quantiles of the normal law, which takes a fraction of the
    time that the law itself would.

    Args:
        out: a new or empty folder.
        geometry: shapes.
        seed: a non-negative integer.
        shard_bytes: largest shard in bytes of tensors; a larger tensor has a shard of its own.

    Raises:
        UsageError: ``out`` is taken or cannot be written, the disk is full, or ``seed`` is negative
            (``SEED``).
    """
    if seed < 0:
        raise UsageError(f"the seed must be a non-negative integer, not {seed}", code="SEED")
    tensors = geometry.tensors()
    position = {name: number for number, name in enumerate(tensors)}
    shards = _shards(tensors, shard_bytes)
    with staged_folder(out) as folder:
        weight_map: dict[str, str] = {}
        for number, shapes in enumerate(shards, 1):
            file = f"model-{number:05}-of-{len(shards):05}.safetensors"
            weight_map |= dict.fromkeys(shapes, file)
            with atomic_writer(folder / file) as stream:
                stream.write(_header(shapes))
                for name, shape in shapes.items():
                    for block in _draw(shape, np.random.default_rng([seed, position[name]])):
                        stream.write(block.data)
        total = sum(map(_bytes, tensors.values()))
        _write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})
        _write_json(folder / CONFIG, geometry.config())
        _write_json(folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2})
        write_standin_tokenizer(folder)


def _shards(tensors: Mapping[str, tuple[int, ...]], limit: int) -> list[dict[str, tuple[int, ...]]]:
    """The tensors in order, in as few shards as the order allows."""
    shards: list[dict[str, tuple[int, ...]]] = []
    room = 0
    for name, shape in tensors.items():
        if not shards or _bytes(shape) > room:
            shards.append({})
            room = limit
        shards[-1][name] = shape
        room -= _bytes(shape)
    return shards


def _header(shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    """Length and JSON of a safetensors header for fp16 tensors that follow in this order."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, shape in shapes.items():
        stop = position + _bytes(shape)
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [position, stop]}
        position = stop
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)  # so that the tensors are aligned in the file
    return len(text).to_bytes(8, "little") + text


def _draw(shape: tuple[int, ...], generator: np.random.Generator) -> Iterator[NDArray[np.float16]]:
    """The numbers of a tensor in order, a block at a time."""
    if len(shape) == 1:
        yield np.ones(shape, _DTYPE)
        return
    left = math.prod(shape)
    while left:
        count = min(left, _BLOCK)
        yield _quantiles()[np.frombuffer(generator.bytes(2 * count), "<u2")]
        left -= count


@cache
def _quantiles() -> NDArray[np.float16]:
    """Normal numbers of equal probability, ``[65536]``."""
    levels = (np.arange(_GRADES) + 0.5) / _GRADES
    return (DEVIATION * ndtri(levels)).astype(_DTYPE)


def _bytes(shape: tuple[int, ...]) -> int:
    return math.prod(shape) * _DTYPE.itemsize


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_bytes(path, pretty_json(content).encode("utf-8"))
