"""Consoles, progress bars, and output that survives a closed pipe, for all commands."""

from __future__ import annotations

import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO, cast

from certify.base.errors import UsageError
from certify.base.text import escape

if TYPE_CHECKING:
    from rich.console import Console

Advance = Callable[..., None]
EVERY: Final = 5.0
"""Seconds between two lines of progress where there is no terminal."""


class _Trimmed:
    """A stream without the spaces with which Rich fills the lines of a table."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(re.sub(r" +(?=\n)", "", text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def console(*, stderr: bool = False) -> Console:
    """Open a console on standard output or error: no markup, no highlighting.

    Off a terminal it has 80 columns, and no line ends in spaces.
    """
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else 80
    # With NO_COLOR, Rich drops colours but keeps bold and reverse, which a log does not want either.
    colours: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"
    return Console(
        stderr=stderr,
        file=None if stream.isatty() else cast("TextIO", _Trimmed(stream)),
        markup=False,
        highlight=False,
        emoji=False,
        width=width,
        color_system=colours,
    )


@contextmanager
def progress_bar(title: str, unit: str = "rows") -> Iterator[Advance]:
    """Show progress on standard error once it is first reported: a bar on a terminal, elsewhere lines.

    What is yielded takes how much is done and how much there is, in ``unit`` or in another one that is given.
    """
    if not sys.stderr.isatty():
        yield _lines(title, unit)
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} {task.fields[unit]}"),
    )
    with Progress(*columns, TimeRemainingColumn(), console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(title), total=None, visible=False, unit=unit)

        def advance(done: int, total: int, of: str = unit) -> None:
            bar.update(task, completed=done, total=total, visible=True, unit=of)

        yield advance


def _lines(title: str, unit: str) -> Advance:
    """Progress where there is no terminal: a line every few seconds, none for what is done sooner."""
    told: list[float] = []

    def advance(done: int, total: int, of: str = unit) -> None:
        now = time.monotonic()
        told[:] = told or [now]
        if now - told[0] >= EVERY:
            told[0] = now
            with suppress(OSError):
                print(f"{escape(title)}: {done}/{total} {of}".rstrip(), file=sys.stderr, flush=True)

    return advance


def next_line(*words: object) -> str:
    """The command that helps on, as the last line of another one; words in capitals stand for values."""
    return f"next: {escape(shlex.join(map(str, words)))}"


@contextmanager
def surviving_closed_pipe() -> Iterator[None]:
    """Let a reader that leaves early (``| head``) end the output without changing the exit code.

    Raises:
        UsageError: standard output cannot be written for another reason, such as a full disk.
    """
    try:
        yield
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):
        # Rich turns a broken pipe into SystemExit(1), which would mean "refuted".
        discard_output()
    except OSError as error:
        discard_output()
        raise UsageError(f"cannot write the output: {error.strerror}", code="FILE_UNWRITABLE") from error


def complain(message: str, code: str) -> None:
    """Print one line about an error to standard error."""
    line = escape(" ".join(message.split()))
    with suppress(OSError):  # if nobody reads the message, the exit code still tells
        print(f"certify: {line} [{code}]", file=sys.stderr)


EXTRAS: Final = {
    **dict.fromkeys(("torch", "transformers", "datasets", "accelerate", "tokenizers", "peft"), "tune"),
    **dict.fromkeys(("z3", "flint"), "proofs"),
    "numba": "fast",
    "pyarrow": "parquet",
    "sentencepiece": "spbleu",
    "gguf": "gguf",
}
"""Packages that the light core lacks, as they are imported, and the extras that install them."""


def missing_extra(doing: str, package: str) -> UsageError:
    """The error for a package of an extra that is not installed, with the command that installs it."""
    install = f"python -m pip install -e '.[{EXTRAS[package]}]'"
    return UsageError(
        f"{doing} needs the package {package}: in the checkout, {install}", code="EXTRA_MISSING"
    )


@contextmanager
def needs_extra(doing: str, *packages: str) -> Iterator[None]:
    """Turn a missing package of an extra into one line; ``packages`` are asked for beforehand.

    Raises:
        UsageError: one of them, or one imported inside, is not installed (``EXTRA_MISSING``).
    """
    for package in packages:
        if find_spec(package) is None:
            raise missing_extra(doing, package)
    try:
        yield
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        raise missing_extra(doing, package) from error


def discard_output() -> None:
    """Discard what is still buffered for standard output: Python would fail on it again at shutdown."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def append(path: Path, text: str) -> None:
    """Add ``text`` to a file that others write to as well, as a step of a pipeline does to its summary.

    Raises:
        UsageError: it cannot be written (``FILE_UNWRITABLE``).
    """
    try:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}", code="FILE_UNWRITABLE") from error


def emit(text: str, out: Path | None, *, like: Callable[[bytes], bool] | None = None) -> None:
    """Write ``text`` to ``out`` atomically, or to standard output.

    Raises:
        UsageError: ``out`` cannot be written or is not to be written over; see
            :func:`certify.base.files.check_output`.
    """
    from certify.base.files import check_output
    from certify.base.jsonio import write_bytes

    if out is not None:
        check_output(out, like=like)
        write_bytes(out, text.encode("utf-8"))
        return
    with surviving_closed_pipe():
        sys.stdout.write(text)
