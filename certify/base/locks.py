"""Which process may write: locks that the system releases however a process ends, and what dead ones left.

A file or folder that is being written has a temporary name beside its target (``.NAME.xxxxxxxx.part``) and is
held by the process that writes it. One that nobody holds was left behind by a killed process; whoever writes
the same target next removes it. Where the system has no such locks, nothing is removed.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from certify.base.errors import UsageError

fcntl: Any = import_module("fcntl") if find_spec("fcntl") else None  # only POSIX systems have it

_HELD: set[tuple[int, int]] = set()
"""Device and inode of what this process holds."""

_made: ContextVar[list[Path] | None] = ContextVar("made", default=None)


@contextmanager
def undone_if_failed() -> Iterator[None]:
    """Remove the files and folders that were newly made inside if the block fails, say on a full disk.

    Those are known that :func:`make_folder` made and that :func:`note_made` named. Folders with other files
    stay.
    """
    made: list[Path] = []
    token = _made.set(made)
    try:
        yield
    except BaseException:
        for path in reversed(made):
            with suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()
        raise
    finally:
        _made.reset(token)
    note_made(*made)


def note_made(*paths: Path) -> None:
    """Say what was newly made, parents first, to the :func:`undone_if_failed` around."""
    if (made := _made.get()) is not None:
        made.extend(paths)


def make_folder(folder: Path) -> None:
    """Make ``folder`` and its parents where they are missing.

    Raises:
        OSError: it cannot be made.
    """
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    note_made(*reversed(missing))


@contextmanager
def temporary_neighbour(target: Path, *, folder: bool = False) -> Iterator[tuple[Path, int]]:
    """Yield a new, private file or folder beside ``target`` and its descriptor; remove what is left of it.

    Folders above it are made where they are missing, and removed again if the block fails.

    Raises:
        OSError: it cannot be made.
    """
    new = not target.exists()
    with undone_if_failed():
        make_folder(target.parent)
        _remove_leftovers(target)
        path, descriptor = _make(target, folder)
        try:
            with _held(descriptor):
                yield path, descriptor
        finally:
            _remove(path)
            with suppress(OSError):
                os.close(descriptor)
        if new:
            note_made(target)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make ``folder`` if needed, and wait until no other process is in here for the same one.

    Without locks in the system, it does not wait. If the block fails, what was newly made in it is removed.

    Raises:
        UsageError: the folder cannot be made or opened (``FILE_UNWRITABLE``).
    """
    descriptor = None
    try:
        with undone_if_failed():  # undone before others are let in
            while descriptor is None:
                descriptor = _enter(folder)
            with _held(descriptor):
                yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _enter(folder: Path) -> int | None:
    """Open and hold ``folder``; None if whoever held it before removed it."""
    try:
        make_folder(folder)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror}", code="FILE_UNWRITABLE") from error
    if _key(descriptor) not in _HELD:  # by this very process: it must not wait for itself
        _hold(descriptor, wait=True)
    with suppress(FileNotFoundError):
        if os.path.samestat(folder.stat(), os.fstat(descriptor)):
            return descriptor
    os.close(descriptor)
    return None


@contextmanager
def _held(descriptor: int) -> Iterator[None]:
    new = {_key(descriptor)} - _HELD
    _HELD.update(new)
    try:
        yield
    finally:
        _HELD.difference_update(new)


def _key(descriptor: int) -> tuple[int, int]:
    entry = os.fstat(descriptor)
    return entry.st_dev, entry.st_ino


def _make(target: Path, folder: bool) -> tuple[Path, int]:
    prefix = f".{target.name}."
    while True:
        if folder:
            path = Path(tempfile.mkdtemp(prefix=prefix, suffix=".part", dir=target.parent))
            descriptor = _open(path)
        else:
            descriptor, name = tempfile.mkstemp(prefix=prefix, suffix=".part", dir=target.parent)
            path = Path(name)
        # Before it is held, another process may take it for a leftover: then make another one.
        if descriptor is not None:
            _hold(descriptor, wait=True)
            with suppress(FileNotFoundError):
                if os.path.samestat(path.stat(), os.fstat(descriptor)):
                    return path, descriptor
            os.close(descriptor)


def _open(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None


def _remove_leftovers(target: Path) -> None:
    pattern = re.compile(rf"\.{re.escape(target.name)}\.[a-z0-9_]{{8}}\.part")
    for path in target.parent.glob(f".{glob.escape(target.name)}.*.part"):
        if not pattern.fullmatch(path.name) or path.is_symlink() or not (path.is_file() or path.is_dir()):
            continue
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                if _hold(descriptor, wait=False):
                    _remove(path)
            finally:
                os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _hold(descriptor: int, *, wait: bool) -> bool:
    """Hold what is open as ``descriptor`` until it is closed; whether that is so."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # held by another process, or a file system without locks
        return False
    return True
