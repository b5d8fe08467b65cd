"""A tokenizer with LLaMA-1's frame and the pieces of the published tickets at their ids.

LLaMA-1's own tokenizer does not travel with this package. What the published tickets need of it does: 32,000
ids, special tokens and bytes first, and the reported pieces. Every other id has a made-up piece: a character,
or one of the strings of two and three letters, so that text takes two to three characters a token. Random
weights need no better one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from certify.base.jsonio import pretty_json, write_bytes
from certify.selection.rules import published

SPECIAL = ("<unk>", "<s>", "</s>")
"""Pieces of the ids 0, 1 and 2: unknown, begin and end of sequence."""

_SPACE = "▁"
# By frequency in English: the strings of three letters do not all fit, and the rarest come last.
_LETTERS = "etaoinshrdlucmwfgypbvkjxqz"
# Fewest pieces win; of equally many, those with a published one.
_SCORE, _PUBLISHED_SCORE = -10.0, -9.0


def standin_pieces() -> list[str]:
    """The pieces by id, 32,000 different ones."""
    known = published()
    taken = {*SPECIAL, *known.pieces.values()}
    fill = (piece for piece in _made_up() if piece not in taken)
    start = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    # The published newline is one of the byte pieces: both lists must agree on it.
    return start + [known.pieces.get(i) or next(fill) for i in range(len(start), known.rows)]


def write_standin_tokenizer(folder: Path) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json`` (equal bytes on every call) into ``folder``.

    It loads with ``AutoTokenizer``, puts ``<s>`` before a text, turns spaces into ``▁`` as LLaMA-1 does, and
    falls back to bytes.

    Raises:
        UsageError: the folder cannot be written.
    """
    roles = {"unk_token": SPECIAL[0], "bos_token": SPECIAL[1], "eos_token": SPECIAL[2]}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **roles}
    write_bytes(folder / "tokenizer.json", json.dumps(_tokenizer(), ensure_ascii=False).encode("utf-8"))
    write_bytes(folder / "tokenizer_config.json", pretty_json(settings).encode("utf-8"))


def _made_up() -> Iterator[str]:
    """More pieces than there are ids, each once, the useful ones first."""
    yield from (chr(code) for code in (*range(0x21, 0x7F), *range(0xA1, 0x180)))
    yield from (_SPACE + letter for letter in _LETTERS)
    for length in (2, 3):
        for letters in product(_LETTERS, repeat=length):
            piece = "".join(letters)
            yield piece
            yield _SPACE + piece


def _tokenizer() -> dict[str, Any]:
    known = set(published().pieces.values())
    pieces = standin_pieces()
    begin = SPECIAL[1]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    sequence = {"Sequence": {"id": "A", "type_id": 0}}
    second = {"Sequence": {"id": "B", "type_id": 1}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": piece, **flags} for i, piece in enumerate(SPECIAL)],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": _SPACE},
                {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": begin, "type_id": 0}}, sequence],
            "pair": [
                {"SpecialToken": {"id": begin, "type_id": 0}},
                sequence,
                {"SpecialToken": {"id": begin, "type_id": 1}},
                second,
            ],
            "special_tokens": {begin: {"id": begin, "ids": [SPECIAL.index(begin)], "tokens": [begin]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "Unigram",
            "unk_id": 0,
            "byte_fallback": True,
            "vocab": [[piece, _PUBLISHED_SCORE if piece in known else _SCORE] for piece in pieces],
        },
    }
