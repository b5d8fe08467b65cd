"""How a GGUF file of an architecture becomes a configuration and tensors as ``transformers`` names them.

Converters to GGUF change three things besides names, which are undone here: LLaMA's rows of queries and keys
stand in another order (pairs that rotate together lie side by side there), Gemma's norms have 1 added, and
settings that never vary are left out. As every tensor must be one that the architecture has, every setting
must be one that is read, or have a value with which it changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from certify.base.errors import InvalidInputError
from certify.base.records import Dtype
from certify.models.gguf import Blocks, Container, shown, unsupported
from certify.models.pieces import Pieces, pieces_of_gguf
from certify.tables.safefile import quote
from certify.tables.table import DEFAULT_TENSOR

HEAD: Final = "lm_head.weight"
_MOST = 1 << 24  # of any extent in a configuration


@dataclass(frozen=True, slots=True)
class _Architecture:
    """What is particular to one.

    Attributes:
        dtype: type to store in unless another is asked for: the narrow one in which it is run.
        norms: norms of a layer, by their name in GGUF.
        config: the entries of config.json that are its own.
        rotated: queries and keys are stored in the order of pairs.
        offset: what was added to its norms.
        inert: for settings of its own that are not read, from its configuration: the values with which they
            change nothing.
    """

    dtype: Dtype
    norms: Mapping[str, str]
    config: Callable[[_Settings], dict[str, Any]]
    rotated: bool = False
    offset: float = 0.0
    inert: Callable[[Mapping[str, Any]], dict[str, tuple[Any, ...]]] = lambda _: {}


@dataclass(frozen=True, slots=True)
class Converted:
    """A tensor as ``transformers`` has it, made from blocks: duck-typed as an fp32 array of that shape.

    Attributes:
        blocks: where its values come from.
        shape: its extents; those of ``blocks``.
        order: which row of the blocks is which row here; None: the same.
        offset: what is taken from every value.
    """

    blocks: Blocks
    order: NDArray[np.intp] | None = None
    offset: float = 0.0

    def values(self, start: int, stop: int) -> NDArray[np.float32]:
        """Rows ``start`` to ``stop`` in fp32; of a vector, it is one row."""
        found = self.blocks.values(slice(start, stop) if self.order is None else self.order[start:stop])
        with np.errstate(invalid="ignore"):  # who writes them looks for NaN and infinity
            return found - np.float32(self.offset) if self.offset else found


@dataclass(frozen=True, slots=True)
class Layout:
    """A model in a GGUF file.

    Attributes:
        config: config.json without the type it is stored in.
        tensors: its tensors by their names in ``transformers``.
        dtype: type to store in unless another is asked for.
        pieces: its vocabulary.
    """

    config: Mapping[str, Any]
    tensors: Mapping[str, Converted]
    dtype: Dtype
    pieces: Pieces


class _Settings:
    """Settings of the architecture in a file, checked as they are read; ``seen`` are the keys of those."""

    def __init__(self, file: Container, architecture: str) -> None:
        self._file, self._architecture = file, architecture
        self.seen: set[str] = set()

    def integer(self, key: str, default: int | None = None) -> int:
        value = self._read(key, default)
        if type(value) is not int or not 1 <= value <= _MOST:
            raise self._wrong(key, value)
        return value

    def real(self, key: str, default: float | None = None) -> float:
        value = self._read(key, default)
        if not isinstance(value, float) or not 0 < value < 1e12:
            raise self._wrong(key, value)
        return float(str(np.float32(value)))  # as it was written before it was put into 32 bits

    def _read(self, key: str, default: Any) -> Any:
        self.seen.add(key)
        value = self._file.settings.get(f"{self._architecture}.{key}", default)
        if value is None:
            raise unsupported(self._file, f"it lacks the setting {self._architecture}.{key}")
        return value

    def _wrong(self, key: str, value: Any) -> InvalidInputError:
        return unsupported(self._file, f"its setting {self._architecture}.{key} is {shown(value)}")


def _llama(_: _Settings) -> dict[str, Any]:
    return {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu"}


def _gemma3(settings: _Settings) -> dict[str, Any]:
    head = settings.integer("attention.key_length")
    # The largest alone, with 62 layers, scales attention as if its heads shared the width of the model.
    largest = settings.integer("block_count") == 62
    shared = settings.integer("embedding_length") // settings.integer("attention.head_count")
    return {
        "model_type": "gemma3_text",
        "architectures": ["Gemma3ForCausalLM"],
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": shared if largest else head,
        "sliding_window": settings.integer("attention.sliding_window"),
        "rope_local_base_freq": settings.real("rope.freq_base_swa", 10000.0),
    }


def _gemma3_inert(config: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    slides = [(layer + 1) % 6 != 0 for layer in range(config["num_hidden_layers"])]
    return {"attention.sliding_window_pattern": (6, slides)}


def _inert(config: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Settings of every architecture that are not read, and the values with which they change nothing."""
    return {
        "vocab_size": (config["vocab_size"],),
        "attention.value_length": (config["head_dim"],),
        "attention.causal": (True,),
        "rope.dimension_count": (config["head_dim"],),
        "rope.scaling.type": ("none", "linear"),  # linear is llama.cpp's default, with a factor of 1
        "rope.scaling.factor": (1.0,),
        "rope.scale_linear": (1.0,),
        "expert_count": (0,),
        "expert_used_count": (0,),
    }


_ARCHITECTURES: Final[Mapping[str, _Architecture]] = MappingProxyType(
    {
        "llama": _Architecture(
            "F16",
            {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"},
            _llama,
            rotated=True,
            inert=lambda _: {"tensor_data_layout": ("Meta AI original pth",)},  # the order of pairs
        ),
        "gemma3": _Architecture(
            "BF16",
            {
                "attn_norm": "input_layernorm",
                "post_attention_norm": "post_attention_layernorm",
                "ffn_norm": "pre_feedforward_layernorm",
                "post_ffw_norm": "post_feedforward_layernorm",
                "attn_q_norm": "self_attn.q_norm",
                "attn_k_norm": "self_attn.k_norm",
            },
            _gemma3,
            offset=1.0,
            inert=_gemma3_inert,
        ),
    }
)


def lay_out(file: Container) -> Layout:
    """Read the configuration and find every tensor; a model with too few, too many or others is refused.

    Raises:
        InvalidInputError: the architecture or a setting is not supported, or tensors are not those of the
            settings (``GGUF_UNSUPPORTED``); the vocabulary is not (:mod:`certify.models.pieces`).
    """
    name = file.settings.get("general.architecture")
    if not isinstance(name, str) or name not in _ARCHITECTURES:
        known = " and ".join(_ARCHITECTURES)
        raise unsupported(file, f"its architecture is {shown(name)}; converted are {known}")
    own, settings = _ARCHITECTURES[name], _Settings(file, name)
    pieces = pieces_of_gguf(file)
    width, heads = settings.integer("embedding_length"), settings.integer("attention.head_count")
    config = own.config(settings) | {
        "vocab_size": len(pieces.texts),
        "hidden_size": width,
        "intermediate_size": settings.integer("feed_forward_length"),
        "num_hidden_layers": settings.integer("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": settings.integer("attention.head_count_kv", heads),
        "head_dim": settings.integer("attention.key_length", width // heads),
        "max_position_embeddings": settings.integer("context_length"),
        "rms_norm_eps": settings.real("attention.layer_norm_rms_epsilon"),
        "rope_theta": settings.real("rope.freq_base", 10000.0),
        "tie_word_embeddings": "output.weight" not in file.tensors,
    }
    config |= {f"{role}_token_id": pieces.roles.get(role) for role in ("bos", "eos", "pad")}
    tensors = _find(file, own, config)
    file.refuse_others(f"{name}.", settings.seen, _inert(config) | own.inert(config))
    return Layout(MappingProxyType(config), MappingProxyType(tensors), own.dtype, pieces)


def _find(file: Container, own: _Architecture, config: Mapping[str, Any]) -> dict[str, Converted]:
    if config["num_hidden_layers"] > len(file.tensors) or (own.rotated and config["head_dim"] % 2):
        raise unsupported(file, "it has more layers than tensors, or heads of an odd width")
    expected = {source: (target, shape) for source, target, shape in _expected(own, config)}
    for name in sorted({*file.tensors} ^ {*expected}):
        what = "lacks the tensor" if name in expected else "has another tensor than its architecture:"
        raise unsupported(file, f"it {what} {quote(name)}")
    found = {}
    for source, (target, shape) in expected.items():
        blocks = file.tensors[source]
        if blocks.shape != shape:
            raise unsupported(
                file, f"{quote(source)} has shape {blocks.shape}, not {shape} as in its settings"
            )
        order = None
        if own.rotated and source.endswith(("attn_q.weight", "attn_k.weight")):
            pairs = np.arange(shape[0]).reshape(-1, config["head_dim"] // 2, 2)
            order = pairs.swapaxes(1, 2).reshape(-1)
        found[target] = Converted(blocks, order, own.offset if source.endswith("norm.weight") else 0.0)
    return found


def _expected(own: _Architecture, config: Mapping[str, Any]) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """(name in GGUF, name in ``transformers``, shape) of every tensor."""
    width, inner, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    yield "token_embd.weight", DEFAULT_TENSOR, (config["vocab_size"], width)
    yield "output_norm.weight", "model.norm.weight", (width,)
    if not config["tie_word_embeddings"]:
        yield "output.weight", HEAD, (config["vocab_size"], width)
    matrices = {
        "attn_q": ("self_attn.q_proj", (queries, width)),
        "attn_k": ("self_attn.k_proj", (keys, width)),
        "attn_v": ("self_attn.v_proj", (keys, width)),
        "attn_output": ("self_attn.o_proj", (width, queries)),
        "ffn_gate": ("mlp.gate_proj", (inner, width)),
        "ffn_up": ("mlp.up_proj", (inner, width)),
        "ffn_down": ("mlp.down_proj", (width, inner)),
    }
    norms = {name: (target, (head if "attn." in target else width,)) for name, target in own.norms.items()}
    for layer in range(config["num_hidden_layers"]):
        for name, (target, shape) in (matrices | norms).items():
            yield f"blk.{layer}.{name}.weight", f"model.layers.{layer}.{target}.weight", shape
