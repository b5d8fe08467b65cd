"""A Gemma 3 small enough for unit tests: it multiplies what it looks up. Not a test file."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig


def tiny_gemma3(seed: int = 0, dtype: torch.dtype = torch.float32, **overrides: object) -> Gemma3ForCausalLM:
    """Seven layers, so that both kinds of attention are in it; norms away from zero; 320 rows, tied."""
    settings: dict[str, Any] = {
        "vocab_size": 320,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 7,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
        "sliding_window": 8,
        "max_position_embeddings": 64,
        "rope_theta": 1e6,
        "rope_local_base_freq": 1e4,
        "initializer_range": 0.2,
        "tie_word_embeddings": True,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Gemma3ForCausalLM(Gemma3TextConfig(**(settings | overrides)))
        for name, value in model.named_parameters():
            if "norm" in name:
                torch.nn.init.normal_(value, std=0.3)
    return model.to(dtype).eval()
