"""A fast ``tokenizer.json`` and its ``tokenizer_config.json`` from the pieces of a vocabulary.

SentencePiece merges, again and again, the neighbours whose common piece has the highest score. As a list of
merges, that is every way to cut a piece into two, the highest score first. User-defined pieces come before
all others, as SentencePiece never cuts them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from certify.base.errors import InvalidInputError
from certify.base.jsonio import MAX_JSON_BYTES
from certify.models.pieces import CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, Pieces

_LLAMA3: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPLITS: Final[dict[str, list[dict[str, Any]]]] = {
    "gpt-2": [],
    "smollm": [{"type": "Digits", "individual_digits": True}],
    "llama-bpe": [{"type": "Split", "pattern": {"Regex": _LLAMA3}, "behavior": "Isolated", "invert": False}],
}
"""What cuts text before its bytes are merged, by the name that GGUF has for it."""


def tokenizer_json(pieces: Pieces) -> dict[str, Any]:
    """Make the content of ``tokenizer.json``.

    Raises:
        InvalidInputError: how text is cut beforehand is not known here, or pieces are so long that merges are
            far too many (``TOKENIZER_UNSUPPORTED``).
    """
    if pieces.split and pieces.split not in _SPLITS:
        raise InvalidInputError(
            f"the tokenizer cuts text by {pieces.split[:40]!r}; known are {', '.join(_SPLITS)}",
            code="TOKENIZER_UNSUPPORTED",
        )
    own = _of_bytes(pieces) if pieces.split else _of_text(pieces)
    model = {
        "type": "BPE",
        "dropout": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "unk_token": pieces.texts[pieces.roles["unk"]]
        if "unk" in pieces.roles and not pieces.split
        else None,
        "fuse_unk": not pieces.split,
        "byte_fallback": not pieces.split,
        "ignore_merges": pieces.split == "llama-bpe",
        "vocab": {pieces.spelled(text): i for i, text in enumerate(pieces.texts)},
        "merges": list(pieces.merges if pieces.split else _merges(pieces)),
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": list(_added(pieces)),
        **own,
        "post_processor": _around(pieces),
        "model": model,
    }


def tokenizer_config(pieces: Pieces, positions: int) -> dict[str, Any]:
    """Make the content of ``tokenizer_config.json`` for a model with so many positions."""
    named = {f"{role}_token": pieces.texts[token_id] for role, token_id in sorted(pieces.roles.items())}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": positions,
        **named,
        **({"chat_template": pieces.template} if pieces.template else {}),
    }


def _of_bytes(pieces: Pieces) -> dict[str, Any]:
    bytewise = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    before = _SPLITS[pieces.split]
    cut = [*before, {**bytewise, "use_regex": all(one["type"] != "Split" for one in before)}]
    return {
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": cut},
        "decoder": {**bytewise, "use_regex": True},
    }


def _of_text(pieces: Pieces) -> dict[str, Any]:
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    front = [{"type": "Prepend", "prepend": "▁"}] if pieces.prefix else []
    back = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if pieces.prefix else []
    decoders = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        *back,
    ]
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*front, spaces]},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
    }


def _merges(pieces: Pieces) -> Iterator[str]:
    usable = {NORMAL, USER_DEFINED, UNUSED}
    made = [pieces.spelled(text) for text in pieces.texts]
    known = {text for text, kind in zip(made, pieces.kinds, strict=True) if kind in usable}
    ranked = sorted(
        (i for i, kind in enumerate(pieces.kinds) if kind in usable),
        key=lambda i: (pieces.kinds[i] != USER_DEFINED, -pieces.scores[i]),
    )
    # Every way to cut a piece may be a merge, as long as the piece: Gemma's 262,144 pieces make 11 million.
    if sum(len(made[i]) ** 2 for i in ranked) > MAX_JSON_BYTES:
        raise InvalidInputError(
            "the tokenizer has so many long pieces that its merges are more than readers take",
            code="TOKENIZER_UNSUPPORTED",
        )
    for text in (made[i] for i in ranked):
        for cut in range(1, len(text)):
            if text[:cut] in known and text[cut:] in known:
                yield f"{text[:cut]} {text[cut:]}"


def _added(pieces: Pieces) -> Iterator[dict[str, Any]]:
    """Control tokens, and what is matched before text is cut, but for runs of spaces, which merges make."""
    for token_id, (text, kind) in enumerate(zip(pieces.texts, pieces.kinds, strict=True)):
        special = kind in (CONTROL, UNKNOWN)
        if special or (kind == USER_DEFINED and text.replace("▁", " ").strip(" ")):
            yield {
                "id": token_id,
                "content": text,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": special,
            }


def _around(pieces: Pieces) -> dict[str, Any] | None:
    """What puts ``bos`` and ``eos`` around a text; None if nothing does."""
    front, back = (
        [pieces.roles[role]] if on and role in pieces.roles else []
        for role, on in zip(("bos", "eos"), pieces.around, strict=True)
    )
    if not front and not back:
        return None

    def part(text: str, kind: int) -> list[dict[str, Any]]:
        before, behind = (
            [{"SpecialToken": {"id": pieces.texts[i], "type_id": kind}} for i in ids] for ids in (front, back)
        )
        return [*before, {"Sequence": {"id": text, "type_id": kind}}, *behind]

    named = {pieces.texts[i]: i for i in front + back}
    return {
        "type": "TemplateProcessing",
        "single": part("A", 0),
        "pair": [*part("A", 0), *part("B", 1)],
        "special_tokens": {text: {"id": text, "ids": [i], "tokens": [text]} for text, i in named.items()},
    }
