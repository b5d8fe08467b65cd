"""The one way to a tokenizer for whatever runs a model, and from ids back to text."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certify.base.errors import UsageError
from certify.tables.tokenisation import check_probe, probe_digest
from certify.ticket.templates import Template, fed_counts


def load_tokenizer(folder: Path, *stated: str | None) -> Any:
    """Load the tokenizer in a local checkpoint folder as engines do, with its ``tokenizer_config.json``.

    Args:
        folder: the folder.
        stated: digests of its probe (:func:`probe_digest`) in tickets and evidence; None is not asked.

    Raises:
        UsageError: none can be loaded (``NO_TOKENIZER``).
        InvalidInputError: it makes other ids of the probe (``TOKENISATION_DIFFERS``).
    """
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the libraries raise plain Exception for malformed files
        raise UsageError(
            f"cannot load a tokenizer from {folder}: {first_line(error)}", code="NO_TOKENIZER"
        ) from error
    for sha256 in {*stated} - {None}:  # tickets of one model state the same
        check_probe(probe_digest(loaded), sha256)
    return loaded


def serving_probe(folder: Path) -> str | None:
    """Digest of the probe for the tokenizer in a folder; None if ``transformers`` cannot load it."""
    if find_spec("transformers") is None:
        return None
    try:
        return probe_digest(load_tokenizer(folder))
    except UsageError:
        return None


def serving_fed(
    folder: Path,
    template: Template,
    source_language: str,
    target_language: str,
    rows: int,
    stated: str | None,
) -> NDArray[np.int64] | None:
    """:func:`fed_counts` with the tokenizer in a folder; None where ``transformers`` is not installed.

    Args:
        stated: digest of its probe, if a ticket states one.
    """
    if find_spec("transformers") is None:
        return None
    tokenizer = _plain(folder, stated) or load_tokenizer(folder)
    return fed_counts(template, tokenizer, source_language, target_language, rows)


def _plain(folder: Path, stated: str | None) -> Any:
    """The tokenizer of a folder without its model's class, if it makes the ids of the probe that are stated.

    The class is looked up among all models, which imports torch and takes longer than checking a ticket.
    """
    from transformers import PreTrainedTokenizerFast

    try:
        loaded = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
        return loaded if probe_digest(loaded) == stated else None
    except Exception:  # the libraries raise plain Exception for malformed files
        return None


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of ``ids``, special tokens included, with every space as the tokens have it.

    Some tokenizers flag line breaks as special, and some configurations drop spaces before punctuation.
    """
    text = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return str(text)


def first_line(error: BaseException) -> str:
    """First line of another library's message, for a one-line error."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
