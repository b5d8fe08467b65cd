"""GGUF files of tiny models, written by the package gguf as converters write them. Not a test file."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from tiny_llama import tiny_llama
from transformers import PreTrainedModel

NAMES = {
    "llama": {"post_attention_layernorm": "ffn_norm"},
    "gemma3": {
        "post_attention_layernorm": "post_attention_norm",
        "pre_feedforward_layernorm": "ffn_norm",
        "post_feedforward_layernorm": "post_ffw_norm",
        "self_attn.q_norm": "attn_q_norm",
        "self_attn.k_norm": "attn_k_norm",
    },
}
COMMON = {
    "input_layernorm": "attn_norm",
    **{f"self_attn.{one}_proj": f"attn_{one}" for one in "qkv"},
    "self_attn.o_proj": "attn_output",
    **{f"mlp.{one}_proj": f"ffn_{one}" for one in ("gate", "up", "down")},
}
BYTES = [f"<0x{i:02X}>" for i in range(256)]


def tied_llama(**overrides: object) -> PreTrainedModel:
    """A LLaMA of 320 rows with a tied head."""
    sizes: dict[str, object] = {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 64}
    return tiny_llama(**({"tie_word_embeddings": True} | sizes | overrides)).eval()


def write_gguf(path: Path, model: PreTrainedModel, kind: str = "F32", **changes: Any) -> Path:
    """Write a model as llama.cpp's converter would, matrices in type ``kind``.

    Args:
        changes: metadata to set otherwise (``.`` written as ``__``), or to leave out if None.
    """
    config = model.config
    arch = "gemma3" if config.model_type == "gemma3_text" else "llama"
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rows = config.vocab_size
    pieces = ["<unk>", "<s>", "</s>", *BYTES, *(chr(0x4E00 + i) for i in range(rows - 259))]
    plain: dict[str, Any] = {
        f"{arch}.block_count": config.num_hidden_layers,
        f"{arch}.context_length": config.max_position_embeddings,
        f"{arch}.embedding_length": config.hidden_size,
        f"{arch}.feed_forward_length": config.intermediate_size,
        f"{arch}.attention.head_count": config.num_attention_heads,
        f"{arch}.attention.head_count_kv": config.num_key_value_heads,
        f"{arch}.attention.key_length": head,
        f"{arch}.attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        f"{arch}.rope.freq_base": 1e6 if arch == "gemma3" else 1e4,
        "general.name": "Tiny",
        "general.license": "mit",
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.scores": [float(-i) for i in range(rows)],
        "tokenizer.ggml.token_type": [2, 3, 3, *[6] * 256, *[1] * (rows - 259)],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }
    if arch == "gemma3":
        plain["gemma3.attention.sliding_window"] = config.sliding_window
    writer = gguf.GGUFWriter(path, arch)
    for key, value in (plain | {key.replace("__", "."): one for key, one in changes.items()}).items():
        if isinstance(value, list):
            writer.add_array(key, value)
        elif value is not None:
            {
                int: writer.add_uint32,
                float: writer.add_float32,
                str: writer.add_string,
                bool: writer.add_bool,
            }[type(value)](key, value)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        array = tensor.float().numpy()
        if arch == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            # llama.cpp, conversion of LLaMA: permute()
            heads = array.shape[0] // head
            array = array.reshape(heads, 2, head // 2, -1).swapaxes(1, 2).reshape(array.shape)
        if arch == "gemma3" and name.endswith("norm.weight"):
            array = array + 1
        _add(writer, _named(name, NAMES[arch]), np.ascontiguousarray(array), kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: gguf.GGUFWriter, name: str, array: np.ndarray[Any, Any], kind: str) -> None:
    number = gguf.GGMLQuantizationType[kind if array.ndim > 1 else "F32"]
    writer.add_tensor(name, gguf.quants.quantize(array, number), raw_dtype=number)


def _named(name: str, own: dict[str, str]) -> str:
    whole = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    if name in whole:
        return whole[name]
    _, _, layer, *rest = name.removesuffix(".weight").split(".")
    return f"blk.{layer}.{(COMMON | own)['.'.join(rest)]}.weight"


def write_wheel(path: Path, members: dict[str, bytes]) -> Path:
    """A zip with these members, as they are named."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path
