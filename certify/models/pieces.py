"""Pieces of a vocabulary with what an encoder needs, from a GGUF file or a ``tokenizer.model``.

SentencePiece numbers the kinds of pieces, and GGUF took its numbers over: 1 normal, 2 unknown, 3 control,
4 user-defined, 5 unused, 6 byte. ``tokenizer.model`` is a protocol buffer (``sentencepiece_model.proto``) of
which the fields below are read; it is treated as hostile.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from certify.base.errors import InvalidInputError
from certify.base.jsonio import MAX_JSON_BYTES, read_bytes
from certify.models.gguf import Container
from certify.tables.vocabulary import MAX_PIECE_CHARS

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
ROLES: Final = ("bos", "eos", "unk", "pad")
_GGUF: Final = "tokenizer.ggml."
_GGUF_ROLES: Final = dict(zip(ROLES, ("bos", "eos", "unknown", "padding"), strict=True))
_GGUF_INERT: Final = frozenset(
    {
        *("pre", "scores", "add_space_prefix", "remove_extra_whitespaces"),  # read where they matter
        *("seperator_token_id", "cls_token_id", "mask_token_id", "token_type_count"),
        *("prefix_token_id", "suffix_token_id", "middle_token_id"),
        *(f"fim_{part}_token_id" for part in ("pre", "suf", "mid", "pad", "rep", "sep")),
    }
)
"""Settings of a tokenizer that change no ids of a text, whatever their value."""

# What llama.cpp takes where a file does not say: ids of SentencePiece; cuts whose texts begin with bos.
_DEFAULT_IDS: Final = {"unk": 0, "bos": 1, "eos": 2}
_BEGIN: Final = frozenset({"llama-bpe"})


@dataclass(frozen=True, slots=True)
class Pieces:
    """A vocabulary and how text is cut into it.

    Attributes:
        texts: pieces by id; a space is ``▁`` in SentencePiece and ``Ġ`` in pieces of bytes.
        kinds: kind of each.
        roles: ids of ``bos``, ``eos``, ``unk`` and ``pad``, as far as there are any.
        scores: SentencePiece: the higher, the earlier a piece is merged; empty for pieces of bytes.
        merges: pieces of bytes: pairs to merge, the first first.
        split: pieces of bytes: how text is cut beforehand, by its name in GGUF; empty for SentencePiece.
        prefix: SentencePiece: a space is put in front of a text.
        around: what is put in front of a text and behind it, of ``bos`` and ``eos``.
        template: template of a chat, in Jinja; empty if there is none.
    """

    texts: Sequence[str]
    kinds: Sequence[int]
    roles: Mapping[str, int]
    scores: Sequence[float] = ()
    merges: Sequence[str] = ()
    split: str = ""
    prefix: bool = False
    around: tuple[bool, bool] = (False, False)
    template: str = ""

    def spelled(self, text: str) -> str:
        """A piece as merges make it: GGUF writes the spaces of user-defined pieces as they are."""
        return text if self.split else text.replace(" ", "▁")


def pieces_of_gguf(file: Container) -> Pieces:
    """Read the vocabulary in the settings of a file.

    Raises:
        InvalidInputError: it is incomplete, or of another kind than SentencePiece and BPE on bytes
            (``TOKENIZER_UNSUPPORTED``), does not fit together (``TOKENIZER_MALFORMED``), or has a setting
            that is not known (``GGUF_UNSUPPORTED``).
    """
    settings, path = file.settings, file.path
    seen = set(_GGUF_INERT)

    def entry(key: str, kind: type, default: Any = None) -> Any:
        seen.add(key)
        value = settings.get(_GGUF + key, default)
        if type(value) is not kind:  # a bool is no id
            raise _unsupported(path, f"its entry {key} is missing or malformed")
        return value

    def numbers(key: str, kinds: str) -> list[Any]:
        found = entry(key, np.ndarray)[: len(texts) + 1]
        if found.dtype.kind not in kinds:
            raise _unsupported(path, f"its entry {key} is malformed")
        return list(found.tolist())

    model = entry("model", str)
    if model not in ("llama", "gpt2"):
        raise _unsupported(
            path, f"its kind is {model[:40]!r}; converted are SentencePiece BPE and BPE on bytes"
        )
    bytewise = model == "gpt2"
    if not bytewise and (entry("remove_extra_whitespaces", bool, False) or f"{_GGUF}merges" in settings):
        raise _unsupported(path, "it normalises text, or lists merges beside scores")
    template = settings.get("tokenizer.chat_template", "")
    split = entry("pre", str) if bytewise else ""
    roles = {
        role: entry(f"{name}_token_id", int)
        for role, name in _GGUF_ROLES.items()
        if f"{_GGUF}{name}_token_id" in settings
    }
    begin = entry("add_bos_token", bool, not bytewise or split in _BEGIN)
    end = entry("add_eos_token", bool, False)
    texts = entry("tokens", list)
    made = Pieces(
        texts=texts,
        kinds=numbers("token_type", "iu"),
        roles=roles if bytewise else _DEFAULT_IDS | roles,
        scores=[] if bytewise else numbers("scores", "f"),
        merges=entry("merges", list) if bytewise else [],
        split=split,
        prefix=not bytewise and entry("add_space_prefix", bool, True),
        around=(begin, end),
        template=template if isinstance(template, str) else "",
    )
    if (begin and "bos" not in made.roles) or (end and "eos" not in made.roles):
        raise _unsupported(path, "texts begin or end with a token that it does not name")
    # What ends a turn must be what ends a text: nothing that generates text here knows of a second one.
    ends = (made.roles["eos"],) if "eos" in made.roles else ()
    inert = {"eot_token_id": ends, "eom_token_id": ends, "add_sep_token": (False,)}
    file.refuse_others(_GGUF, seen, inert)
    return _checked(made, path)


def pieces_of_model(path: Path, *, around: tuple[bool, bool]) -> Pieces:
    """Read a ``tokenizer.model`` of SentencePiece.

    Args:
        path: the file.
        around: whether engines put ``bos`` in front of a text and ``eos`` behind it, which it does not say.

    Raises:
        UsageError: it cannot be read.
        InvalidInputError: it is not one (``TOKENIZER_MALFORMED``), or is not BPE, or changes text beforehand
            (``TOKENIZER_UNSUPPORTED``).
    """
    data = read_bytes(path, what="the tokenizer", limit=MAX_JSON_BYTES)
    try:
        texts, scores, kinds = [], [], []
        trainer: dict[int, Any] = {}
        normaliser: dict[int, Any] = {}
        for field, value in _fields(data):
            if field == 1:
                piece = dict(_fields(value, _PIECE_NUMBERS))
                texts.append(piece[1].decode("utf-8"))
                scores.append(struct.unpack("<f", piece.get(2, bytes(4)))[0])
                kinds.append(piece.get(3, NORMAL))
            elif field in (2, 3):
                (trainer if field == 2 else normaliser).update(_fields(value, _NUMBERS[field]))
    except (ValueError, KeyError, AttributeError, TypeError, struct.error) as error:
        raise InvalidInputError(
            f"{path} is refused: it is not a model of SentencePiece", code="TOKENIZER_MALFORMED"
        ) from error
    if trainer.get(3, 1) != 2:
        raise _unsupported(path, "it is not BPE, as SentencePiece's default is not")
    if normaliser.get(2) or normaliser.get(4, 1):
        raise _unsupported(path, "it normalises text")
    # Ids are signed there: -1 is none.
    defaults = (_DEFAULT_IDS | {"pad": 1 << 64}).items()
    numbers = {role: trainer.get(40 + i, default) for i, (role, default) in enumerate(defaults)}
    roles = {role: number for role, number in numbers.items() if number < 1 << 31}
    made = Pieces(texts, kinds, roles, scores, prefix=bool(normaliser.get(3, 1)), around=around)
    return _checked(made, path)


def _checked(made: Pieces, path: Path) -> Pieces:
    """Refuse columns of different lengths, pieces that are no text or there twice, ids and merges outside."""
    count = len(made.texts)
    fits = (
        count == len(made.kinds)
        and len(made.scores) == (0 if made.split else count)
        and all(isinstance(text, str) and 0 < len(text) <= MAX_PIECE_CHARS for text in made.texts)
        and all(isinstance(pair, str) and pair.count(" ") == 1 for pair in made.merges)
        and all(kind in range(1, 7) for kind in made.kinds)
        and all(map(math.isfinite, made.scores))
        and all(0 <= token_id < count for token_id in made.roles.values())
        and len(known := {made.spelled(text) for text in made.texts}) == count
        and all({*pair.split(" "), pair.replace(" ", "")} <= known for pair in made.merges)
    )
    if not fits:
        raise InvalidInputError(
            f"{path} is refused: its pieces, kinds, scores, merges and special ids do not fit together",
            code="TOKENIZER_MALFORMED",
        )
    return made


# Fields of a piece, of the trainer (2) and of the normaliser (3) that are numbers.
_PIECE_NUMBERS: Final = frozenset({3})
_NUMBERS: Final = {2: frozenset({3, 40, 41, 42, 43}), 3: frozenset({3, 4})}


def _fields(data: bytes, numbers: Collection[int] = ()) -> Iterator[tuple[int, Any]]:
    """(number, value) of every field of a message: an integer, or the bytes of anything else.

    Raises:
        ValueError: it is not a message, or a field in ``numbers`` is not an integer.
    """
    position = 0

    def varint() -> int:
        nonlocal position
        value = 0
        for shift in range(0, 70, 7):
            if position == len(data):
                break
            byte = data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError("a number does not end")

    while position < len(data):
        key = varint()
        form = key & 7
        if form == 0:
            yield key >> 3, varint()
            continue
        if key >> 3 in numbers:
            raise ValueError("a field is not a number")
        length = {1: 8, 2: varint() if form == 2 else 0, 5: 4}.get(form, len(data))
        if length > len(data) - position:
            raise ValueError("a field is longer than the message")
        yield key >> 3, data[position : position + length]
        position += length


def _unsupported(path: Path, what: str) -> InvalidInputError:
    return InvalidInputError(
        f"the tokenizer of {path} cannot be converted: {what}", code="TOKENIZER_UNSUPPORTED"
    )
