"""Load a model with ``transformers``: local files, safetensors, no code from a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedModel

from certify.base.errors import InvalidInputError, UsageError
from certify.base.records import Dtype
from certify.tables.checkpoint import CONFIG
from certify.tables.modelconfig import read_config
from lottery.model.tokenizer import first_line
from lottery.text.hub import quiet_hub

TORCH_DTYPES: Final[dict[Dtype, torch.dtype]] = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
"""PyTorch element types by the names used in this project."""

_LISTED = 3
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)


def find_base(name: str, *, download: bool = True) -> Path:
    """Find a local checkpoint folder: ``name`` itself, or the downloaded model of that name on the hub.

    Args:
        download: fetch a hub model that is not here yet; otherwise only earlier downloads are found.

    Raises:
        UsageError: neither exists, or the hub cannot be reached.
    """
    folder = Path(name)
    try:
        if folder.is_dir():
            return folder
        taken = folder.exists()
    except OSError:  # too long for the name of a file
        taken = True
    if taken or not _HUB_NAME.fullmatch(name):
        raise UsageError(f"no checkpoint folder {name}", code="MODEL_UNKNOWN")
    from huggingface_hub import snapshot_download

    try:
        with quiet_hub():
            found = snapshot_download(
                name, allow_patterns=["*.json", "*.safetensors", "tokenizer*"], local_files_only=not download
            )
        return Path(found)
    except (OSError, ValueError) as error:  # all failures of the hub: offline, unknown, gated
        raise UsageError(
            f"{name} is neither a local folder nor a model that the hub provides: {first_line(error)}",
            code="MODEL_UNKNOWN",
        ) from error


def load_backbone(folder: Path, dtype: Dtype) -> PreTrainedModel:
    """Load a causal language model from a local checkpoint (safetensors only), with weights in ``dtype``.

    The weights are exactly those that :func:`certify.tables.modeldigest.checkpoint_digest` covers: nothing is
    filled with random numbers, dropped or read from elsewhere.

    Raises:
        UsageError: files are missing or cannot be read.
        InvalidInputError: the architecture is unknown, the weights are not those of the configuration
            (``MODEL_WEIGHTS``), or the configuration is refused
            (:func:`certify.tables.modelconfig.read_config`).
    """
    from transformers import AutoModelForCausalLM

    if (folder / CONFIG).is_file():
        read_config(folder / CONFIG)
    if (folder / "adapter_config.json").exists():
        raise InvalidInputError(
            f"{folder} has an adapter_config.json, and the loader would add the adapter to the model: move it"
            " elsewhere",
            code="MODEL_WEIGHTS",
        )
    model: PreTrainedModel
    with _loading(folder), quiet():
        model, found = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=TORCH_DTYPES[dtype],
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported, then refused
        )
    mismatched = {name for name, *_ in found["mismatched_keys"]}
    refuse_other_weights(
        f"the weights of {folder} are not those of its config.json",
        {
            "missing": found["missing_keys"],
            "unexpected": found["unexpected_keys"],
            "of another shape": mismatched,
        },
    )
    return model


def refuse_other_weights(what: str, faults: Mapping[str, Collection[str]]) -> None:
    """Refuse weights that a model does not have as it needs them, which a library would only warn about.

    Args:
        what: beginning of the message.
        faults: names of tensors by what is wrong with them.

    Raises:
        InvalidInputError: there are any (``MODEL_WEIGHTS``).
    """
    told = [
        f"{len(names)} {fault} ({', '.join(sorted(names)[:_LISTED])}{', …' if len(names) > _LISTED else ''})"
        for fault, names in faults.items()
        if names
    ]
    if told:
        raise InvalidInputError(f"{what}: {'; '.join(told)}", code="MODEL_WEIGHTS")


def load_positions(folder: Path) -> int | None:
    """Read the number of positions of a local checkpoint's model; None if its configuration does not say.

    Raises:
        UsageError: there is no configuration.
        InvalidInputError: the configuration is malformed.
    """
    from transformers import AutoConfig

    with _loading(folder):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    positions = getattr(config, "max_position_embeddings", None)
    return positions if isinstance(positions, int) else None


@contextmanager
def _loading(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"cannot load a model from {folder}: {first_line(error)}", code="MODEL_UNREADABLE"
        ) from error
    except (ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise InvalidInputError(
            f"{folder} is not a model: {first_line(error)}", code="MODEL_MALFORMED"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep ``transformers`` from drawing progress bars, and from warnings that are errors here."""
    from transformers.utils import logging

    enabled, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if enabled:
            logging.enable_progress_bar()


def output_head(model: PreTrainedModel) -> nn.Module:
    """Return the module that turns hidden states into logits.

    Raises:
        InvalidInputError: the model has none.
    """
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Module):
        raise InvalidInputError("the model has no output head: it is not a language model", code="NO_HEAD")
    return head
