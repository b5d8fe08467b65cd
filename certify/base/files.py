"""The one door through which files are read: regular files pass, and nothing waits for a pipe or a device.

Paths that a file of others names go through :func:`inside` first.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import lru_cache, partial
from io import BufferedReader
from pathlib import Path
from typing import Final

from certify.base.errors import CertifyError, InvalidInputError, UsageError

_KINDS: Final = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_LONGEST_TEXT: Final = 256 << 20
# Opening a pipe without a writer would wait for one. On Windows, text mode would change bytes.
_FLAGS: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


_inputs: ContextVar[set[tuple[int, int]] | None] = ContextVar("inputs", default=None)


@contextmanager
def noting_inputs() -> Iterator[None]:
    """Note which files are read from here on, so that :func:`check_output` knows them."""
    token = _inputs.set(set())
    try:
        yield
    finally:
        _inputs.reset(token)


def check_output(path: Path, *, like: Callable[[bytes], bool] | None = None) -> None:
    """Refuse to write over a file that the same command has read, or over another kind of file.

    Args:
        path: where a file is to be written.
        like: whether the content of a file that lies there is of the kind to be written; None is not asked.

    Raises:
        UsageError: ``path`` was read (``OUT_IS_INPUT``), is no file (``FILE_UNWRITABLE``) or holds something
            else (``OUT_EXISTS``).
    """
    with suppress(OSError, ValueError):
        entry = path.stat()
        if (entry.st_dev, entry.st_ino) in (_inputs.get() or ()):
            raise UsageError(
                f"{path} was read as input: writing there would destroy it; choose another file",
                code="OUT_IS_INPUT",
            )
        if like is not None:
            check_target(path)
            with opened(path) as stream:
                if not like(stream.read(_LONGEST_TEXT)):
                    raise UsageError(
                        f"{path} holds something else: choose another file, or remove it", code="OUT_EXISTS"
                    )


def check_target(path: Path) -> None:
    """Refuse to put a file in the place of a folder, a pipe or a device.

    Raises:
        UsageError: one of them lies there (``FILE_UNWRITABLE``).
    """
    with suppress(OSError, ValueError):
        if kind := _kind(path.stat().st_mode):
            raise UsageError(f"cannot write {path}: it is {kind}, not a file", code="FILE_UNWRITABLE")


@contextmanager
def opened(path: Path, *, what: str = "file") -> Iterator[BufferedReader]:
    """Open a regular file for reading; links are followed.

    What lies there is asked before opening, because opening a device can have effects, and again afterwards,
    because something else may lie there by then.

    Args:
        path: the file.
        what: what it is to be, for messages.

    Raises:
        UsageError: it does not exist, is something other than a file, or cannot be opened
            (``FILE_UNREADABLE``).
    """
    try:
        _check(path.stat().st_mode, path, what)
        descriptor = os.open(path, _FLAGS)
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL byte
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"cannot read {what} {path}: {reason}", code="FILE_UNREADABLE") from error
    try:
        entry = os.fstat(descriptor)
        _check(entry.st_mode, path, what)
        if (noted := _inputs.get()) is not None:
            noted.add((entry.st_dev, entry.st_ino))
        stream = os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise
    with stream:
        yield stream


def blocks_of(path: Path) -> Iterator[bytes]:
    """Read a regular file block by block.

    Raises:
        UsageError: it cannot be read (``FILE_UNREADABLE``).
    """
    with opened(path) as stream:
        try:
            yield from iter(partial(stream.read, 1 << 20), b"")
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}", code="FILE_UNREADABLE") from error


def entries_of(folder: Path) -> list[Path]:
    """What lies in a folder that is not trusted, sorted; every link leads to a file that belongs to it.

    Such a file lies in the folder, or among the blobs of the store that it is a snapshot of, as in the cache
    of the hub (``STORE/snapshots/NAME``, ``STORE/blobs``).

    Raises:
        UsageError: the folder cannot be read (``FILE_UNREADABLE``).
        InvalidInputError: a link leads elsewhere (``PATH_ESCAPES``) or to no file (``PATH_UNUSABLE``).
    """
    root = folder.resolve()
    store = next((up.parent / "blobs" for up in root.parents if up.name == "snapshots"), root)
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise UsageError(f"cannot read {folder}: {error.strerror}", code="FILE_UNREADABLE") from error
    for path in filter(Path.is_symlink, entries):
        try:
            target = path.resolve()
            there = target.is_file()
        except (OSError, RuntimeError):  # links that run in a circle
            there = False
        if not there:
            raise InvalidInputError(f"{path} is a link that leads to no file", code="PATH_UNUSABLE")
        if not target.is_relative_to(root) and not target.is_relative_to(store):
            raise InvalidInputError(f"{path} is a link that leads out of its folder", code="PATH_ESCAPES")
    return entries


def inside(
    folder: Path,
    relative: str,
    sha256: str | None = None,
    *,
    like: Callable[[Path], bool] | None = None,
    endings: bool = True,
) -> Path:
    """Where ``relative``, a path that a file of ``folder`` names, lies: in ``folder``, as it is written.

    A link may lead out of the folder, as in a store of blobs, but only to the very file that is stated.
    Nothing else out there is read, because messages about it could show what it holds.

    Args:
        folder: what the path is relative to.
        relative: the path.
        sha256: the stated file digest, or of what the file unpacks to if its name ends in ``.xz``.
        like: whether a file is the stated one, where its content but not its bytes are stated.
        endings: look for changed ends of lines beforehand. False: the caller compares digests, and then asks
            :func:`check_endings` why they differ.

    Raises:
        InvalidInputError: the path leaves the folder, or a link leads out to another file (``PATH_ESCAPES``);
            no file system takes it (``PATH_UNUSABLE``); only the ends of its lines are not as stated
            (``LINE_ENDINGS``).
    """
    root = folder.resolve()
    target = root / relative
    try:
        resolved = target.resolve()
        there = target.is_file()
    except (OSError, RuntimeError) as error:  # a name too long; links that run in a circle
        raise InvalidInputError(
            f"the path {relative!r} in the ticket cannot be used", code="PATH_UNUSABLE"
        ) from error
    if Path(relative).is_absolute() or ".." in Path(relative).parts:
        raise InvalidInputError(f"the path {relative!r} in the ticket leaves its folder", code="PATH_ESCAPES")
    if endings and sha256 is not None and there:
        check_endings(target, relative, sha256)
    if not resolved.is_relative_to(root) and not (there and _is_stated(target, sha256, like)):
        raise InvalidInputError(
            f"the path {relative!r} in the ticket leads out of its folder, not to the file that is stated",
            code="PATH_ESCAPES",
        )
    return target


def check_endings(path: Path, relative: str, sha256: str) -> None:
    """Refuse a text of which only the ends of its lines are not as stated.

    Raises:
        InvalidInputError: it is one (``LINE_ENDINGS``).
    """
    entry = path.stat()
    if _converted(path, sha256, entry.st_mtime_ns, entry.st_size):
        raise InvalidInputError(
            f"{relative}: line endings were changed by the checkout (CRLF instead of LF): put '* -text' into"
            " .gitattributes and check it out again",
            code="LINE_ENDINGS",
        )


def _is_stated(path: Path, sha256: str | None, like: Callable[[Path], bool] | None) -> bool:
    try:
        if like is not None:
            return like(path)
        with opened(path) as raw, _unpacked(raw, path) as stream:
            return sha256 == hashlib.file_digest(stream, "sha256").hexdigest()
    except (CertifyError, OSError, EOFError, lzma.LZMAError):  # whatever is wrong with it, nobody is told
        return False


def _unpacked(stream: BufferedReader, path: Path) -> BufferedReader | lzma.LZMAFile:
    return lzma.open(stream) if path.suffix == ".xz" else stream


@lru_cache(maxsize=256)
def _converted(path: Path, sha256: str, *_version: int) -> bool:
    """Whether a text has the stated digest once its lines end in LF; asked once, as tickets share files."""
    with opened(path) as stream:
        if stream.seek(0, os.SEEK_END) > _LONGEST_TEXT:
            return False
        stream.seek(max(0, stream.tell() - 2))
        end = stream.read()
        stream.seek(0)
        start = stream.read(1 << 16)
        if b"\0" in start or b"\r\n" not in (end, start[start.find(b"\r\n") :][:2]):
            return False
        stream.seek(0)
        return hashlib.sha256(stream.read().replace(b"\r\n", b"\n")).hexdigest() == sha256


def _check(mode: int, path: Path, what: str) -> None:
    if kind := _kind(mode):
        raise UsageError(f"{what} {path} is {kind}, not a file", code="FILE_UNREADABLE")


def _kind(mode: int) -> str:
    """What lies there if it is no file; empty if it is one."""
    if stat.S_ISREG(mode):
        return ""
    return next((name for test, name in _KINDS if test(mode)), "something else")
