"""Text files of one sentence per line: plain, ``.gz`` or ``.xz``, strictly UTF-8, bounded in size."""

from __future__ import annotations

import gzip
import lzma
import zlib
from pathlib import Path
from typing import IO, cast

from certify.base.errors import InvalidInputError, UsageError
from certify.base.files import opened

SUFFIXES = ("", ".xz", ".gz")
"""Suffixes that :func:`locate` tries."""

MAX_BYTES = 1 << 31
"""Largest uncompressed size in bytes, so that a compressed file cannot exhaust the memory."""


def locate(path: Path) -> Path:
    """Find ``path``, or ``path`` with the suffix of a compressed file, whichever exists.

    Raises:
        UsageError: none of them exists, or several do, of which one may be stale (``TEXT_AMBIGUOUS``).
    """
    found = [one for suffix in SUFFIXES if (one := path.with_name(path.name + suffix)).is_file()]
    if len(found) > 1:
        names = ", ".join(one.name for one in found)
        raise UsageError(
            f"{path} could be any of {names}: name one, or remove the others", code="TEXT_AMBIGUOUS"
        )
    if found:
        return found[0]
    raise UsageError(f"no file {path} (nor with .xz or .gz)", code="FILE_UNREADABLE")


def read_lines(path: Path, *, limit: int = MAX_BYTES) -> list[str]:
    """Read the lines of a text file without their ends, ``\\n`` or ``\\r\\n``.

    A ``\\r`` elsewhere is refused: programs differ about whether it ends a line.

    Args:
        path: the file; ``.xz`` and ``.gz`` are decompressed.
        limit: largest uncompressed size in bytes.

    Raises:
        UsageError: the file cannot be read.
        InvalidInputError: it is not UTF-8 or has a lone ``\\r`` (the message names the line), is not in the
            compressed format of its suffix, or larger than ``limit``.
    """
    data = _read(path, limit)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidInputError(f"{path}, line {line}: not UTF-8", code="TEXT_MALFORMED") from error
    lines = text.removeprefix("\ufeff").split("\n")
    if not lines[-1]:
        lines.pop()
    lines = [line.removesuffix("\r") for line in lines]
    for number, one in enumerate(lines, start=1):
        if "\r" in one:
            raise InvalidInputError(
                f"{path}, line {number}: a carriage return without a line feed; end lines with \\n or \\r\\n",
                code="TEXT_MALFORMED",
            )
    return lines


def _read(path: Path, limit: int) -> bytes:
    try:
        with opened(path, what="text") as raw, _unpacked(raw, path.suffix) as stream:
            data = stream.read(limit + 1)
    except (lzma.LZMAError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InvalidInputError(
            f"{path} is damaged or not in {path.suffix} format", code="TEXT_MALFORMED"
        ) from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", code="FILE_UNREADABLE") from error
    if len(data) > limit:
        raise InvalidInputError(f"{path} contains more than {limit} bytes of text", code="FILE_TOO_LARGE")
    return data


def _unpacked(stream: IO[bytes], suffix: str) -> IO[bytes]:
    if suffix == ".xz":
        return lzma.open(stream, "rb")
    if suffix == ".gz":
        return cast(IO[bytes], gzip.open(stream, "rb"))
    return stream
