"""A model and its tokenizer through ``transformers``: local files, safetensors, no code from a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn
from transformers import PreTrainedModel

from certify.base.errors import InvalidInputError, UsageError
from certify.base.records import Dtype
from lottery.text.hub import quiet_hub

TORCH_DTYPES: Final[dict[Dtype, torch.dtype]] = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
"""Element types by their names here."""

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)


def find_base(name: str, *, download: bool = True) -> Path:
    """A local checkpoint folder: ``name`` itself, or the hub's model of that name once downloaded.

    Args:
        name: the folder, or the hub's name of a model.
        download: fetch a model of the hub that is not here; otherwise only what was fetched before is found.

    Raises:
        UsageError: neither exists, or the hub cannot be reached.
    """
    folder = Path(name)
    if folder.is_dir():
        return folder
    if folder.exists() or not _HUB_NAME.fullmatch(name):
        raise UsageError(f"no checkpoint folder {name}", code="MODEL_UNKNOWN")
    from huggingface_hub import snapshot_download

    try:
        with quiet_hub():
            found = snapshot_download(
                name,
                allow_patterns=["*.json", "*.safetensors", "tokenizer*"],
                local_files_only=not download,
            )
        return Path(found)
    except (
        OSError,
        ValueError,
    ) as error:  # every failure of the hub is one of these: offline, unknown, gated
        raise UsageError(
            f"{name} is neither a folder here nor a model that the hub would give: {first_line(error)}",
            code="MODEL_UNKNOWN",
        ) from error


def load_backbone(folder: Path, dtype: Dtype) -> PreTrainedModel:
    """Load a causal language model from a local checkpoint, weights in ``dtype``; safetensors only.

    Raises:
        UsageError: files are missing or cannot be read.
        InvalidInputError: the architecture is unknown, or the weights do not fit it.
    """
    from transformers import AutoModelForCausalLM

    try:
        with quiet():
            model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=TORCH_DTYPES[dtype],
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
            )
    except OSError as error:
        raise UsageError(
            f"cannot load a model from {folder}: {first_line(error)}", code="MODEL_UNREADABLE"
        ) from error
    except (ValueError, KeyError, RuntimeError) as error:
        raise InvalidInputError(
            f"{folder} is not a model: {first_line(error)}", code="MODEL_MALFORMED"
        ) from error
    return model


def load_positions(folder: Path) -> int | None:
    """Number of positions that a local checkpoint's model has; None if its configuration does not say.

    Raises:
        UsageError: there is no configuration.
        InvalidInputError: it is refused.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except OSError as error:
        raise UsageError(
            f"cannot load a model from {folder}: {first_line(error)}", code="MODEL_UNREADABLE"
        ) from error
    except (ValueError, KeyError) as error:
        raise InvalidInputError(
            f"{folder} is not a model: {first_line(error)}", code="MODEL_MALFORMED"
        ) from error
    positions = getattr(config, "max_position_embeddings", None)
    return positions if isinstance(positions, int) else None


@contextmanager
def quiet() -> Iterator[None]:
    """Keep ``transformers`` from drawing progress bars of its own into our output."""
    from transformers.utils import logging

    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in a local checkpoint folder.

    Raises:
        UsageError: there is none that can be loaded.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            f"cannot load a tokenizer from {folder}: {first_line(error)}", code="NO_TOKENIZER"
        ) from error


def first_line(error: BaseException) -> str:
    """The first sentence of another library's message, for a one-line error."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def output_head(model: PreTrainedModel) -> nn.Module:
    """The module that turns hidden states into logits.

    Raises:
        InvalidInputError: the model has none.
    """
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Module):
        raise InvalidInputError("the model has no output head: it is not a language model", code="NO_HEAD")
    return head
