"""Write a folder or a file completely or not at all, and change a file without losing what others wrote."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from certify.base.errors import CertifyError, UsageError
from certify.base.files import check_target
from certify.base.jsonio import sha256_file, write_bytes
from certify.base.locks import locked, temporary_neighbour


@contextmanager
def staged_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary neighbour of ``out``; flush it and rename it to ``out`` if the block succeeds.

    If the block fails, the neighbour is removed and ``out`` is unchanged. A killed process leaves only the
    neighbour, which the next one for the same ``out`` removes (:mod:`certify.base.locks`).

    Raises:
        UsageError: ``out`` exists and is not an empty folder (``OUT_EXISTS``), or the file system refuses or
            is full (``FILE_UNWRITABLE``).
    """
    check_free(out)
    target = Path(os.path.normpath(out.absolute()))
    with _neighbour(target, out) as temporary:
        yield temporary
        _flush(temporary)
        # Temporary folders are private; give this one the permissions that mkdir() would have given.
        temporary.chmod(0o777 & ~_umask())
        temporary.replace(target)
        _flush_entry(target.parent)


@contextmanager
def staged_file(out: Path) -> Iterator[Path]:
    """Yield where to write the file ``out``; flush what lies there and rename it if the block succeeds.

    For writers that ask for a path, and for what is read back before it gets its name: the yielded path has
    the name of ``out``, in a temporary folder of its own. If the block fails, ``out`` is unchanged.

    Raises:
        UsageError: a pipe or a device lies there, the file system refuses, or is full (``FILE_UNWRITABLE``).
    """
    check_target(out)
    with _neighbour(out, out) as temporary:
        yield temporary / out.name
        _flush(temporary)
        (temporary / out.name).replace(out)


@contextmanager
def _neighbour(target: Path, out: Path) -> Iterator[Path]:
    """A temporary folder beside ``target``. What the file system refuses is said of ``out``."""
    temporary = target
    try:
        with temporary_neighbour(target, folder=True) as (temporary, _):
            yield temporary
    except CertifyError as error:
        # An error may name a file in the neighbour, which the caller does not know.
        before = str(error)
        error.rename(temporary, out)
        if str(error) != before and isinstance(error, UsageError) and isinstance(error.__cause__, OSError):
            raise _unwritable(out, error.__cause__) from error
        raise
    except OSError as error:
        raise _unwritable(out, error) from error


@contextmanager
def changing(path: Path) -> Iterator[Callable[[bytes], None]]:
    """Let one process at a time read, change and write ``path`` and what lies beside it.

    Another one that changes a file of the same folder waits. Yields what writes the file, atomically. Writers
    that hold no lock (other programs; systems without locks) are noticed: what they wrote is never replaced
    by what was made from an older content.

    Raises:
        UsageError: the file was changed since the block was entered (``FILE_CHANGED``), or cannot be written.
    """
    with locked(path.parent):
        before = _content(path)

        def write(data: bytes) -> None:
            if _content(path) != before:
                raise UsageError(
                    f"{path} was changed by another program meanwhile: nothing was written; run this again",
                    code="FILE_CHANGED",
                )
            write_bytes(path, data)

        yield write


@contextmanager
def written_by_safetensors(folder: Path) -> Iterator[None]:
    """Let the safetensors library write into the staged ``folder``, with our errors and permissions.

    The library makes private files. Afterwards every file in ``folder`` has the permissions of open().

    Raises:
        OSError: the library reported an error of its own, such as a full disk, with the system's text.
    """
    from safetensors import SafetensorError

    try:
        yield
        for root, _, names in os.walk(folder):
            for name in names:
                (Path(root) / name).chmod(0o666 & ~_umask())
    except SafetensorError as error:
        raise OSError(None, str(error)) from error


def check_free(out: Path) -> None:
    """Refuse to make a folder where something lies already.

    Raises:
        UsageError: ``out`` exists and is not an empty folder (``OUT_EXISTS``), or the file system does not
            take its name or let it be read (``FILE_UNWRITABLE``).
    """
    target = Path(os.path.normpath(out.absolute()))
    try:
        if target.is_symlink() or (target.exists() and not target.is_dir()):
            raise UsageError(f"{out} exists and is not a folder: name a new folder", code="OUT_EXISTS")
        if target.is_dir() and any(target.iterdir()):
            raise UsageError(f"{out} is not empty: name a new folder", code="OUT_EXISTS")
    except OSError as error:
        raise _unwritable(out, error) from error


def clear_leftovers(folder: Path, names: Iterable[str]) -> None:
    """Remove the temporary neighbours of ``names`` in ``folder`` that killed processes left behind.

    No other process may be writing there. Files that cannot be removed stay.
    """
    for name in names:
        for path in (*folder.glob(f".{glob.escape(name)}.*.part"), folder / f".{name}.part"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):
                    path.unlink()


def _unwritable(out: Path, error: OSError) -> UsageError:
    reason = error.strerror or str(error)
    return UsageError(f"cannot make {out}: {reason}; nothing was written", code="FILE_UNWRITABLE")


def _content(path: Path) -> str | None:
    return sha256_file(path) if path.exists() else None


def _umask() -> int:
    umask = os.umask(0)  # there is no other way to ask
    os.umask(umask)
    return umask


def _flush(folder: Path) -> None:
    for root, _, names in os.walk(folder):
        for name in names:
            with (Path(root) / name).open("rb") as stream:
                os.fsync(stream.fileno())
        _flush_entry(Path(root))


def _flush_entry(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
