"""Canonical JSON, digests and atomic files, so that a claim refers to exactly one sequence of bytes.

Definitions (all hexadecimal, lower case):

* *file digest*: SHA-256 of the file's bytes;
* *tensor digest*: SHA-256 of ``<canonical JSON of {"dtype", "shape"}>\\n`` followed by the tensor's
  little-endian, C-ordered bytes, so a reshaped or re-typed tensor has another digest;
* *canonical JSON*: UTF-8, keys sorted, no white space, no NaN or infinity.

Everything read here is treated as hostile: duplicate keys, non-finite numbers, deep nesting and
oversized files are refused, never repaired.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NoReturn, Protocol

from certify.base.errors import InvalidInputError, UsageError
from certify.base.files import check_target, opened
from certify.base.locks import temporary_neighbour
from certify.base.text import hidden

MAX_JSON_BYTES = 64 * 1024 * 1024
MAX_JSON_DEPTH = 64

# An unterminated string stays, including its brackets; such a document is refused either way.
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_INTEGERS = re.compile(r"\[\n *(-?\d+(?:,\n *-?\d+)*)\n *\]")
_BRACKET = re.compile(rb"[\[\]{}]")


def canonical_json(value: Any) -> bytes:
    """Encode ``value`` so that equal values have equal bytes.

    Raises:
        ValueError: a number in ``value`` is NaN or infinite.
        TypeError: ``value`` contains something that is not JSON.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return text.encode("utf-8")


def pretty_json(value: Any, *, flat: bool = False) -> str:
    """Encode ``value`` for people: two-space indent, visible non-ASCII kept, trailing newline.

    Characters that are invisible or could control a terminal become JSON escapes; the value stays the same.

    Args:
        value: what to encode.
        flat: write a list of integers on one line, however long, as reports do.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2)
    if flat:  # a line break never stands inside a JSON string
        text = _INTEGERS.sub(lambda found: "[" + ", ".join(found[1].replace(",", " ").split()) + "]", text)
    return text.translate(_ESCAPED) + "\n"


def sha256_bytes(data: bytes | memoryview) -> str:
    """Compute the SHA-256 of ``data`` as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Compute the file digest of ``path``, read in blocks.

    Raises:
        UsageError: the file does not exist or cannot be read.
    """
    try:
        with opened(path) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", code="FILE_UNREADABLE") from error


def tensor_digest(dtype: str, shape: Iterable[int], blocks: Iterable[bytes | memoryview]) -> str:
    """Compute the tensor digest of a tensor given as consecutive blocks of little-endian C-ordered bytes.

    Args:
        dtype: safetensors name of the type (``F32``, ``F16``, ``BF16``, ``I64``).
        shape: the full shape.
        blocks: the bytes in order, in blocks of any size.
    """
    state = tensor_state(dtype, shape)
    for block in blocks:
        state.update(block)
    return state.hexdigest()


def tensor_state(dtype: str, shape: Iterable[int]) -> hashlib._Hash:
    """State of a tensor digest before the first byte of the tensor; see :func:`tensor_digest`."""
    return hashlib.sha256(canonical_json({"dtype": dtype, "shape": list(shape)}) + b"\n")


def parse_json(data: bytes, *, what: str) -> Any:
    """Parse untrusted JSON strictly.

    Args:
        data: the bytes of the document.
        what: name of the document, for the error message.

    Raises:
        InvalidInputError: the data are not UTF-8 or not JSON, have a duplicate key, NaN or infinity, a lone
            surrogate or an overlong integer, nest deeper than ``MAX_JSON_DEPTH``, or exceed
            ``MAX_JSON_BYTES``.
    """
    if len(data) > MAX_JSON_BYTES:
        raise InvalidInputError(f"{what} is larger than {MAX_JSON_BYTES} bytes", code="JSON_TOO_LARGE")
    _check_depth(data, what)
    try:
        text = data.decode("utf-8")
        value = json.loads(
            text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_float=_finite_float
        )
        if _SURROGATE.search(data):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        return value
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"{what} is refused: it contains a lone surrogate, which is not text", code="JSON_MALFORMED"
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidInputError(
            f"{what} is not UTF-8 at byte {error.start}", code="JSON_MALFORMED"
        ) from error
    except json.JSONDecodeError as error:
        raise InvalidInputError(
            f"{what} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}",
            code="JSON_MALFORMED",
        ) from error
    except (ValueError, RecursionError) as error:
        why = str(error).partition(";")[0]  # of a long number; the rest is advice to programmers
        raise InvalidInputError(f"{what} is refused: {why}", code="JSON_MALFORMED") from error


def states(key: str, value: str) -> Callable[[bytes], bool]:
    """Make the question whether a document is a JSON object of which ``key`` is ``value``."""

    def ask(data: bytes) -> bool:
        with suppress(InvalidInputError):
            content = parse_json(data, what="the file")
            return isinstance(content, dict) and content.get(key) == value
        return False

    return ask


class JsonReader(Protocol):
    """:func:`read_json`, or one that remembers what it read."""

    def __call__(self, path: Path, *, what: str) -> Any:
        """Content of ``path``; callers must not modify it."""


def read_json(path: Path, *, what: str) -> Any:
    """Read and strictly parse ``path``; see :func:`parse_json`.

    Raises:
        UsageError: the file does not exist or cannot be read.
        InvalidInputError: the content is refused.
    """
    return parse_json(read_bytes(path, what=what, limit=MAX_JSON_BYTES), what=what)


def read_bytes(path: Path, *, what: str, limit: int) -> bytes:
    """Read a regular file of at most ``limit`` bytes.

    Raises:
        UsageError: the file does not exist, is a folder or no regular file, or cannot be read.
        InvalidInputError: the file is larger than ``limit``.
    """
    try:
        with opened(path, what=what) as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        raise UsageError(f"cannot read {what} {path}: {error.strerror}", code="FILE_UNREADABLE") from error
    if len(data) > limit:
        raise InvalidInputError(f"{what} {path} is larger than {limit} bytes", code="FILE_TOO_LARGE")
    return data


@contextmanager
def atomic_writer(path: Path) -> Iterator[IO[bytes]]:
    """Write ``path`` completely or not at all: to a temporary neighbour, flushed to disk, then renamed.

    Raises:
        UsageError: a folder, pipe or device lies there, the folder cannot be written, or the disk is full
            (``FILE_UNWRITABLE``).
    """
    check_target(path)
    try:
        with temporary_neighbour(path) as (temporary, descriptor):
            with os.fdopen(descriptor, "wb", closefd=False) as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            # Temporary files are private; give this one the permissions that open() would have given.
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            temporary.replace(path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}", code="FILE_UNWRITABLE") from error


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically; see :func:`atomic_writer`."""
    with atomic_writer(path) as stream:
        stream.write(data)


class _Escaped(dict[int, str]):
    def __missing__(self, code: int) -> str:
        # Hidden characters other than line breaks occur only inside strings, where JSON allows \uXXXX.
        char = chr(code)
        shown = char if char == "\n" or not hidden(char) else json.dumps(char)[1:-1]
        return self.setdefault(code, shown)


_ESCAPED = _Escaped()


def _check_depth(data: bytes, what: str) -> None:
    # json.loads recurses in C. The depth is limited beforehand, so that no input exhausts the stack.
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub(b"", data)):
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_JSON_DEPTH:
            raise InvalidInputError(f"{what} nests deeper than {MAX_JSON_DEPTH} levels", code="JSON_TOO_DEEP")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {key!r} appears twice")
        result[key] = value
    return result


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _finite_float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:20]} is out of range")
    return value
