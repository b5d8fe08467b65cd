"""The vocabulary of a tokenizer: the piece of each id, and which ids are special.

``tokenizer.json`` is read as hostile input, without the tokenizers library. Pieces are kept as in the file
(``▁the``, ``Ġthe``, ``<0x0A>``); the caller must escape them for display.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from certify.base.errors import InvalidInputError, UsageError
from certify.base.jsonio import JsonReader, read_json
from certify.tables.safefile import is_file, is_folder

MAX_ID = 1 << 24
"""Ids from here on are refused: no vocabulary has 16 million pieces."""

MAX_PIECE_CHARS = 4096

_FILE = "tokenizer.json"
_TOKEN_FILES = ("tokenizer_config.json", "special_tokens_map.json")
_ID_FILES = ("config.json", "generation_config.json")
TOKENIZER_FILES = (_FILE, *_TOKEN_FILES, *_ID_FILES)
"""Files that are read with a tokenizer."""
_ROLES = ("bos", "eos", "unk", "pad", "cls", "sep", "mask")
_MORE_SPECIAL = ("additional_special_tokens", "extra_special_tokens")
_BYTE_PIECE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Pieces of a tokenizer.

    Attributes:
        path: the ``tokenizer.json``.
        size: one more than the largest id; ids from here on are beyond the tokenizer.
        pieces: id -> piece as in the file; there may be gaps below ``size``.
        special: id -> roles and piece, such as ``bos <s>``, ``bos/eos <|endoftext|>`` or
            ``special <|im_end|>``; always below ``size``.
        files: every file that determined this, ``path`` first.
    """

    path: Path
    size: int
    pieces: Mapping[int, str] = field(repr=False)
    special: Mapping[int, str]
    files: tuple[Path, ...]

    def piece(self, token_id: int) -> str | None:
        """Piece of ``token_id``; None for a gap or beyond the tokenizer."""
        return self.pieces.get(token_id)


def open_vocabulary(path: Path | str, read: JsonReader = read_json) -> Vocabulary:
    """Read a ``tokenizer.json`` (BPE, WordPiece, WordLevel or Unigram) and the files beside it with roles.

    An id is special if it has a role (begin or end of sequence, unknown, padding, class, separator, mask) in
    tokenizer_config.json, special_tokens_map.json, config.json, generation_config.json or the tokenizer's own
    model. It is also special if it is an added token that is flagged special or listed as additional, unless
    it is ordinary text: byte pieces ``<0xNN>`` and white space, which models read and write like any other
    piece.

    A role for a text that the tokenizer lacks, or for a negative id (how old files write "none"), is ignored.

    Args:
        path: ``tokenizer.json``, or its folder.
        read: reads the files.

    Raises:
        UsageError: there is no such file (``FILE_UNREADABLE``).
        InvalidInputError: ids are negative, huge, duplicate or not integers, pieces are not text or overlong,
            a text has two ids, or the structure is unknown (``TOKENIZER_MALFORMED``); a file is not strict
            JSON of at most 64 MB (``JSON_*``, ``FILE_TOO_LARGE``).
    """
    path = Path(path)
    file = path / _FILE if is_folder(path) else path
    if file != path and not is_file(file):
        how = "certify model import makes" if is_file(path / "tokenizer.model") else "save the tokenizer in"
        raise UsageError(f"{path} has no {_FILE}: {how} its fast form", code="FILE_UNREADABLE")
    tokenizer = _object(read(file, what="the tokenizer"), file)
    model = _object(tokenizer.get("model"), file)
    ids = _model_ids(model.get("vocab"), file)
    added = _added_tokens(tokenizer.get("added_tokens"), file)
    pieces = {token_id: piece for piece, token_id in ids}
    if len(pieces) != len(ids):
        raise _malformed(file, "two pieces of its model have one id")
    id_of = _unique_ids(ids, added, file)
    pieces.update((token.id, token.content) for token in added)
    if not pieces:
        raise _malformed(file, "it has no pieces")
    size = 1 + max(pieces)
    beside = [file.parent / name for name in (*_TOKEN_FILES, *_ID_FILES)]
    present = [path for path in beside if is_file(path)]
    roles: dict[int, list[str]] = {}
    for role, token in (
        *_model_roles(model),
        *(pair for path in present for pair in _file_roles(path, read)),
    ):
        token_id = id_of.get(token) if isinstance(token, str) else token
        if token_id is not None and 0 <= token_id < size and role not in roles.setdefault(token_id, []):
            roles[token_id].append(role)
    for added_token in added:
        if added_token.special and added_token.id not in roles and not ordinary(added_token.content):
            roles[added_token.id] = ["special"]
    special = {i: f"{'/'.join(roles[i])} {pieces.get(i, '')}".rstrip() for i in sorted(roles)}
    return Vocabulary(file, size, MappingProxyType(pieces), MappingProxyType(special), (file, *present))


@dataclass(frozen=True, slots=True)
class _AddedToken:
    id: int
    content: str
    special: bool


def _model_ids(vocab: Any, file: Path) -> list[tuple[str, int]]:
    """List (piece, id) of the model: from an object, or for Unigram from a list of (piece, score)."""
    if isinstance(vocab, dict):
        return [(_piece(piece, file), _id(token_id, file)) for piece, token_id in vocab.items()]
    if isinstance(vocab, list) and all(isinstance(entry, list) and len(entry) == 2 for entry in vocab):
        return [(_piece(entry[0], file), _id(i, file)) for i, entry in enumerate(vocab)]
    raise _malformed(file, "its model has no vocabulary")


def _added_tokens(value: Any, file: Path) -> list[_AddedToken]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise _malformed(file, "added_tokens is not a list")
    tokens = []
    for entry in value:
        token = _object(entry, file)
        special = token.get("special", False)
        if not isinstance(special, bool):
            raise _malformed(file, "an added token is special neither true nor false")
        tokens.append(_AddedToken(_id(token.get("id"), file), _piece(token.get("content"), file), special))
    if len({token.id for token in tokens}) != len(tokens):
        raise _malformed(file, "two added tokens have one id")
    return tokens


def _unique_ids(ids: list[tuple[str, int]], added: list[_AddedToken], file: Path) -> dict[str, int]:
    """Map text to id. The tokenizers library would silently move an added token to the id of its text."""
    result: dict[str, int] = {}
    for piece, token_id in ids:
        result.setdefault(piece, token_id)
    for token in added:
        if result.setdefault(token.content, token.id) != token.id:
            raise _malformed(file, f"the text of added token {token.id} also has id {result[token.content]}")
    return result


def _model_roles(model: dict[str, Any]) -> Iterator[tuple[str, str | int]]:
    """Yield the unknown token of the tokenizer's model, by text or by id."""
    for key, kind in (("unk_token", str), ("unk_id", int)):
        if type(model.get(key)) is kind:
            yield "unk", model[key]


def _file_roles(file: Path, read: JsonReader) -> Iterator[tuple[str, str | int]]:
    """Yield (role, text or id) of every special token named in ``file``."""
    content = _object(read(file, what="the token roles"), file)
    if file.name in _ID_FILES:
        for role in _ROLES:
            yield from ((role, token_id) for token_id in _ids(content.get(f"{role}_token_id"), file))
        return
    for role in _ROLES:
        if (text := _text(content.get(f"{role}_token"), file)) is not None:
            yield role, text
    for key in _MORE_SPECIAL:
        value = content.get(key)
        entries = list(value.values()) if isinstance(value, dict) else [] if value is None else value
        if not isinstance(entries, list):
            raise _malformed(file, f"{key} is not a list")
        for text in (_text(entry, file) for entry in entries):
            if text is not None and not ordinary(text):
                yield "additional", text


def ordinary(text: str) -> bool:
    """Whether a piece is a byte or white space: ordinary text, whatever its flags say."""
    return _BYTE_PIECE.fullmatch(text) is not None or text.replace("▁", " ").isspace()


def _text(value: Any, file: Path) -> str | None:
    """Get the text of a token given as text or as an added token; None if there is none."""
    text = value.get("content") if isinstance(value, dict) else value
    if text is not None and not isinstance(text, str):
        raise _malformed(file, "a special token is not text")
    return text


def _ids(value: Any, file: Path) -> list[int]:
    """Get the ids of a key with no value, one id, or a list."""
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(token_id) is int for token_id in ids):
        raise _malformed(file, "the id of a special token is not an integer")
    return ids


def _id(value: Any, file: Path) -> int:
    if type(value) is not int or not 0 <= value < MAX_ID:
        raise _malformed(file, f"an id is not an integer from 0 to {MAX_ID - 1}")
    return value


def _piece(value: Any, file: Path) -> str:
    if not isinstance(value, str) or len(value) > MAX_PIECE_CHARS:
        raise _malformed(file, f"a piece is not text of at most {MAX_PIECE_CHARS} characters")
    return value


def _object(value: Any, file: Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _malformed(file, "expected a JSON object")
    return value


def _malformed(file: Path, what: str) -> InvalidInputError:
    return InvalidInputError(f"{file} is refused: {what}", code="TOKENIZER_MALFORMED")
