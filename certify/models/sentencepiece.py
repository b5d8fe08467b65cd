"""The tokenizer of a checkpoint that has ``tokenizer.model`` alone, as a fast one.

Files beside it may add tokens, give them roles and say how text is cut. Nothing of that is dropped: what the
fast form does not have in the same way is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from certify.base.errors import InvalidInputError
from certify.base.jsonio import MAX_JSON_BYTES, canonical_json, pretty_json, read_json
from certify.models.pieces import ROLES, Pieces, pieces_of_model
from certify.models.tokenizer import tokenizer_config, tokenizer_json
from certify.tables.safefile import is_file, quote

FAST: Final = "tokenizer.json"
SLOW: Final = "tokenizer.model"
_SETTINGS, _ROLES, _ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
REPLACED: Final = frozenset({SLOW, _SETTINGS, _ROLES, _ADDED})
"""Files that the fast form takes the place of."""


def fast_files(pieces: Pieces, positions: int) -> dict[str, bytes]:
    """The files of a fast tokenizer, by name, for a model with so many positions.

    Raises:
        InvalidInputError: one would be larger than readers take (``TOKENIZER_UNSUPPORTED``).
    """
    made = {
        FAST: canonical_json(tokenizer_json(pieces)),
        _SETTINGS: pretty_json(tokenizer_config(pieces, positions)).encode("utf-8"),
    }
    for name, data in made.items():
        if len(data) > MAX_JSON_BYTES:
            raise InvalidInputError(
                f"the tokenizer cannot be converted: {name} of {len(data)} bytes is more than readers take",
                code="TOKENIZER_UNSUPPORTED",
            )
    return made


def pieces_of_checkpoint(folder: Path) -> Pieces:
    """The vocabulary of a checkpoint folder with ``tokenizer.model``, as the files beside it describe it.

    A role that ``tokenizer.model`` leaves open is taken from them, if they give it to a special token.

    Raises:
        UsageError: a file cannot be read.
        InvalidInputError: they name a token that is none in the fast form, give it another id, role or
            meaning, or cut text in another way (``TOKENIZER_UNSUPPORTED``); or a file is malformed
            (``JSON_*``, and :func:`certify.models.pieces.pieces_of_model`).
    """
    settings, named, added = (_object(folder / name) for name in (_SETTINGS, _ROLES, _ADDED))
    around = settings.get("add_bos_token", True) is True, settings.get("add_eos_token", False) is True
    pieces = pieces_of_model(folder / SLOW, around=around)
    if settings.get("add_prefix_space") not in (None, pieces.prefix):
        raise _unsupported(folder, f"its settings put a space in front of a text otherwise than {SLOW}")
    template = settings.get("chat_template") or ""
    if not isinstance(template, str):
        raise _unsupported(folder, "it has several templates of a chat")
    made = {token["content"]: token for token in tokenizer_json(pieces)["added_tokens"]}
    roles = dict(pieces.roles)
    for key, token in (*_named(settings), *_named(named), *_added(settings, added)):
        text, plain = str(token.get("content")), token | {"normalized": False}
        found = made.get(text, {})
        alike = all(found.get(field, value) == value for field, value in plain.items())
        role = key.removesuffix("_token")
        if not found or not alike or (role in ROLES and roles.setdefault(role, found["id"]) != found["id"]):
            raise _unsupported(
                folder, f"its settings name {quote(text)} ({quote(key)}) otherwise than {SLOW}"
            )
    return replace(pieces, roles=roles, template=template)


def _object(path: Path) -> Mapping[str, Any]:
    content = read_json(path, what="the tokenizer") if is_file(path) else {}
    if not isinstance(content, dict):
        raise _unsupported(path.parent, f"{path.name} is not a JSON object")
    return content


def _named(settings: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(entry, token) of special tokens; an entry without one, or with a switch, is none."""
    for key, value in settings.items():
        if key.endswith(("_token", "special_tokens")) and value and not isinstance(value, bool):
            listed = list(value.values()) if isinstance(value, dict) else value
            for token in listed if key.endswith("s") and isinstance(listed, list) else [value]:
                yield key, {"special": True} | _object_of(token)


def _added(settings: Mapping[str, Any], added: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    decoder = settings.get(key := "added_tokens_decoder") or {}
    for number, token in decoder.items() if isinstance(decoder, dict) else [("", decoder)]:
        yield key, _object_of(token) | {"id": int(number) if number.isdecimal() else number}
    for text, token_id in added.items():
        yield _ADDED, {"content": text, "id": token_id}


def _object_of(token: Any) -> dict[str, Any]:
    return token if isinstance(token, dict) else {"content": token}


def _unsupported(folder: Path, what: str) -> InvalidInputError:
    return InvalidInputError(
        f"the tokenizer of {folder} cannot be converted: {what}", code="TOKENIZER_UNSUPPORTED"
    )
