"""The one door through which files are read: regular files pass, and nothing waits for a pipe or a device."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Final

from certify.base.errors import UsageError

_KINDS: Final = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
# Opening a pipe without a writer would wait for one. On Windows, text mode would change bytes.
_FLAGS: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


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
        _check(os.fstat(descriptor).st_mode, path, what)
        stream = os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise
    with stream:
        yield stream


def _check(mode: int, path: Path, what: str) -> None:
    if not stat.S_ISREG(mode):
        kind = next((name for test, name in _KINDS if test(mode)), "something else")
        raise UsageError(f"{what} {path} is {kind}, not a file", code="FILE_UNREADABLE")
