"""The information in config.json about the input embedding table: name, shape, whether it is tied."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from certify.base.errors import InvalidInputError
from certify.base.jsonio import JsonReader, read_json

# Name of the table with the prefix of the whole model, and without it (a checkpoint of the backbone).
_EMBED_TOKENS = ("model.embed_tokens.weight", "embed_tokens.weight")
_WTE = ("transformer.wte.weight", "wte.weight")
_EMBED_IN = ("gpt_neox.embed_in.weight", "embed_in.weight")
_WORD_EMBEDDINGS = ("transformer.word_embeddings.weight", "word_embeddings.weight")
_DECODER = ("model.decoder.embed_tokens.weight", "decoder.embed_tokens.weight")
_LANGUAGE_MODEL = ("model.language_model.embed_tokens.weight", "language_model.model.embed_tokens.weight")
KNOWN_NAMES = (*_EMBED_TOKENS, *_WTE, *_EMBED_IN, *_WORD_EMBEDDINGS, *_DECODER, *_LANGUAGE_MODEL)
"""All known names of input embedding tables."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """Properties implied by a ``model_type``.

    Attributes:
        names: possible names of the table, that in a whole model first.
        tied: default of tie_word_embeddings.
        head: name of an output head of its own; empty if it depends on the version of ``transformers``.
    """

    names: tuple[str, ...]
    tied: bool
    head: str = "lm_head.weight"


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        **dict.fromkeys(
            ("llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen2_moe", "qwen3_moe", "phi", "phi3"),
            Architecture(_EMBED_TOKENS, tied=False),
        ),
        **dict.fromkeys(
            ("olmo", "olmo2", "stablelm", "granite"),
            Architecture(_EMBED_TOKENS, tied=False),
        ),
        **dict.fromkeys(
            ("gemma", "gemma2", "gemma3_text", "cohere", "cohere2", "smollm3", "starcoder2"),
            Architecture(_EMBED_TOKENS, tied=True),
        ),
        "gpt2": Architecture(_WTE, tied=True),
        "gpt_neox": Architecture(_EMBED_IN, tied=False, head=""),  # embed_out, lm_head since version 5
        "bloom": Architecture(_WORD_EMBEDDINGS, tied=True),
        "falcon": Architecture(_WORD_EMBEDDINGS, tied=True),
        "opt": Architecture(_DECODER, tied=True),
    }
)
"""Architectures whose layout is known, by ``model_type``."""

# Modules that project to the vocabulary, in the architectures above and their relatives.
_HEADS = frozenset(
    {"lm_head", "embed_out", "output", "output_layer", "output_projection", "head", "proj_out", "unembed"}
)
# Entries with these in their names hold configurations of models that do not read this table.
_OTHER_INPUTS = ("vision", "audio", "speech", "image", "video", "talker", "qformer", "quantization")
_TIED = "tie_word_embeddings"
_WIDTH_KEYS = ("word_embed_proj_dim", "hidden_size", "n_embd")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A parsed config.json. ``parts`` are the configuration and, at any depth, those of its text model."""

    path: Path
    parts: tuple[Mapping[str, Any], ...]

    @property
    def architecture(self) -> Architecture | None:
        """Architecture of ``model_type``; None if it is unknown."""
        kind = self.parts[0].get("model_type")
        return ARCHITECTURES.get(kind) if isinstance(kind, str) else None

    def tied(self, names: Collection[str] | None) -> bool | None:
        """Whether the output head shares the table; None if unknown.

        ``tie_word_embeddings`` decides. Without it, a whole model without a head must use the table as its
        head; otherwise the default of the architecture applies.

        Args:
            names: all tensors of a whole checkpoint; None if only a part of it is known.

        Raises:
            InvalidInputError: ``tie_word_embeddings`` is neither true nor false (``CONFIG_MALFORMED``), or
                false although there is no head (``HEAD_MISSING``).
        """
        key = _TIED
        stated = [part[key] for part in self.parts if key in part]
        if not all(isinstance(value, bool) for value in stated):
            raise InvalidInputError(f"{self.path}: {key} is neither true nor false", code="CONFIG_MALFORMED")
        # A file with only the table says nothing about a head.
        headless = names is not None and len(names) > 1 and not any(_is_head(name) for name in names)
        if headless and stated and not any(stated):
            raise InvalidInputError(
                f"{self.path} states {key} false, but the checkpoint has no output head, which a loader would"
                " fill with random numbers",
                code="HEAD_MISSING",
            )
        if stated:
            return any(stated)
        if headless:
            return True
        return None if self.architecture is None else self.architecture.tied

    def check_shape(self, shape: tuple[int, int]) -> None:
        """Compare the table's ``(V, d)`` with the configuration; a loader would refuse another shape.

        Raises:
            InvalidInputError: they differ (``CONFIG_MISMATCH``), or a stated size is not an integer
                (``CONFIG_MALFORMED``).
        """
        known = self.architecture is not None
        for part in self.parts:
            width_key = next((key for key in _WIDTH_KEYS if key in part), _WIDTH_KEYS[0])
            # Which width is the table's is known for known architectures only.
            for key, actual in zip(("vocab_size", width_key)[: 1 + known], shape, strict=False):
                stated = part.get(key, actual)
                if type(stated) is not int:
                    raise InvalidInputError(f"{self.path}: {key} is not an integer", code="CONFIG_MALFORMED")
                if stated == actual:
                    continue
                raise InvalidInputError(
                    f"{self.path} states a {key} of {stated}, but the table has {actual}",
                    code="CONFIG_MISMATCH",
                )


def untied(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of the model with a head of its own: no part states that it is tied."""

    def stated(part: Mapping[str, Any]) -> dict[str, Any]:
        inner = {key: stated(value) for key, value in _inner(part)}
        return {**part, **inner, **({_TIED: False} if _TIED in part else {})}

    return stated(config) | {_TIED: False}


def _inner(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The configurations in it by their names, apart from those of models of other inputs."""
    for key, inner in config.items():
        if isinstance(inner, dict) and not any(other in key for other in _OTHER_INPUTS):
            yield key, inner


def _parts(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The configuration and those inside it, at any depth."""
    yield config
    for _, inner in _inner(config):
        yield from _parts(inner)


def read_config(path: Path, read: JsonReader = read_json) -> ModelConfig:
    """Read a config.json and refuse models that are quantised, or whose weights it puts elsewhere.

    Raises:
        UsageError: the file cannot be read.
        InvalidInputError: it is not a JSON object (``CONFIG_MALFORMED``, ``JSON_*``), has a
            ``quantization_config`` (``QUANTISED_TABLE``), or names a file of weights
            (``CHECKPOINT_AMBIGUOUS``).
    """
    config = read(path, what="the model configuration")
    if not isinstance(config, dict):
        raise InvalidInputError(f"{path} is not a JSON object", code="CONFIG_MALFORMED")
    parts = tuple(_parts(config))
    if any(part.get("quantization_config") is not None for part in parts):
        raise InvalidInputError(
            f"{path} has a quantization_config: quantised checkpoints are refused", code="QUANTISED_TABLE"
        )
    if any(part.get("transformers_weights") is not None for part in parts):
        raise InvalidInputError(
            f"{path} names another file of weights (transformers_weights): remove the entry",
            code="CHECKPOINT_AMBIGUOUS",
        )
    return ModelConfig(path, parts)


def _is_head(name: str) -> bool:
    parts = name.split(".")
    return len(parts) > 1 and parts[-2] in _HEADS
