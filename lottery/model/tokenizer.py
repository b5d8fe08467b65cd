"""The one way to a tokenizer for whatever runs a model, and from ids back to text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from certify.base.errors import UsageError


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer in a local checkpoint folder as engines do, with its ``tokenizer_config.json``.

    Raises:
        UsageError: none can be loaded.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the libraries raise plain Exception for malformed files
        raise UsageError(
            f"cannot load a tokenizer from {folder}: {first_line(error)}", code="NO_TOKENIZER"
        ) from error


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of ``ids``, special tokens included, with every space as the tokens have it.

    Some tokenizers flag line breaks as special, and some configurations drop spaces before punctuation.
    """
    text = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return str(text)


def first_line(error: BaseException) -> str:
    """First line of another library's message, for a one-line error."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
