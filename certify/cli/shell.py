"""Consoles, progress bars, and output that survives a closed pipe, for all commands."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from certify.base.text import escape

if TYPE_CHECKING:
    from rich.console import Console


def console(*, stderr: bool = False) -> Console:
    """Open a console on standard output or error: no markup, no highlighting, 80 columns off a terminal."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else 80
    # With NO_COLOR, Rich drops colours but keeps bold and reverse, which a log does not want either.
    colours: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"
    return Console(
        stderr=stderr, markup=False, highlight=False, emoji=False, width=width, color_system=colours
    )


@contextmanager
def progress_bar(title: str, unit: str = "rows") -> Iterator[Callable[[int, int], None] | None]:
    """Show a progress bar on standard error once progress is first reported; only on a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn(f"{{task.completed}}/{{task.total}} {unit}"),
    )
    with Progress(*columns, TimeRemainingColumn(), console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None, visible=False)

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, visible=True)

        yield advance


@contextmanager
def surviving_closed_pipe() -> Iterator[None]:
    """Let a reader that leaves early (``| head``) end the output without changing the exit code.

    Raises:
        UsageError: standard output cannot be written for another reason, such as a full disk.
    """
    from certify.base.errors import UsageError

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


@contextmanager
def needs_extra(doing: str) -> Iterator[None]:
    """Turn a missing package of the extra ``tune`` into one line.

    Raises:
        UsageError: something imported inside is not installed (``EXTRA_MISSING``).
    """
    from certify.base.errors import UsageError

    try:
        yield
    except ImportError as error:
        raise UsageError(
            f"{doing} needs the package {error.name}: pip install 'certify-lottery[tune]'",
            code="EXTRA_MISSING",
        ) from error


def discard_output() -> None:
    """Discard what is still buffered for standard output: Python would fail on it again at shutdown."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def emit(text: str, out: Path | None) -> None:
    """Write ``text`` to ``out`` atomically, or to standard output."""
    from certify.base.jsonio import write_bytes

    if out is not None:
        write_bytes(out, text.encode("utf-8"))
        return
    with surviving_closed_pipe():
        sys.stdout.write(text)
