"""A LLaMA small enough for unit tests, its checkpoint folder, and batches for it. Not a test file."""

from __future__ import annotations

import json
import string
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

VOCABULARY = 97
WIDTH = 32
PIECES = ("<unk>", "<s>", "</s>", "\n", *string.digits, *string.ascii_letters, *" .,:;'?!#-[]()")
"""A tokenizer of single characters: the tokens of a prompt are always the first tokens of the whole."""


def tiny_llama(seed: int = 0, dtype: torch.dtype = torch.float32, **overrides: object) -> LlamaForCausalLM:
    """Two layers, width 32, 97 rows, untied; weights drawn from ``seed``."""
    settings: dict[str, object] = {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": None,
        # The default of .02 makes logits so flat that greedy decoding repeats one token.
        "initializer_range": 0.2,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(LlamaConfig(**(settings | overrides)))
    return model.to(dtype)


def save_checkpoint(folder: Path, dtype: torch.dtype = torch.float32, **overrides: object) -> Path:
    """A checkpoint folder with tokenizer; its table has more rows than the tokenizer has tokens."""
    from tokenizers import Tokenizer, models, processors

    tiny_llama(dtype=dtype, **overrides).save_pretrained(folder)
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(PIECES)}, [], unk_token="<unk>"))
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    roles = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **roles}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def write_pairs(prefix: Path, count: int, first: int = 0) -> Path:
    """``count`` short aligned sentences of varied length, ``PREFIX.en`` and ``PREFIX.ca``."""
    words = ["one", "two", "blue", "house", "sea", "long", "old", "tree"]
    for language, ending in (("en", ""), ("ca", "a")):
        lines = [
            " ".join(words[(i * 5 + j * j) % 8] + ending for j in range(1 + i % 4)) + f" {i}"
            for i in range(first, first + count)
        ]
        prefix.with_name(f"{prefix.name}.{language}").write_text("\n".join(lines) + "\n")
    return prefix


def batch_of(seed: int, rows: int = 3, length: int = 11) -> dict[str, Tensor]:
    """Random ids, the last third of each row as targets, the last row padded by two on the right."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, VOCABULARY, (rows, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[-1, -2:] = 0
    labels = ids.clone()
    labels[:, : length - length // 3] = -100
    labels[mask == 0] = -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
