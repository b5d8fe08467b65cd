"""The command ``certify``: registers the commands and turns every outcome into one exit code.

Commands are imported with their signatures only; numpy, torch and the like load inside the command that runs.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from certify.base.errors import CertifyError, ExitCode
from certify.base.text import escape
from certify.base.version import __version__
from certify.cli.registry import COMMANDS, load
from certify.cli.shell import discard_output

_PATIENCE = 60.0  # seconds: on a busy machine, processes that start together reach an error far apart


class Commands(TyperGroup):
    """The commands of the registry, each loaded when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 (its signature)
        """Names in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 (its signature)
        """The command of that name; None if there is none."""
        if cmd_name not in COMMANDS:
            return None
        one = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        one.command(cmd_name)(load(COMMANDS[cmd_name]))
        return typer.main.get_command(one)


app = typer.Typer(
    name="certify",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"certify {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Certify lottery tickets: KS scans of embedding tables, tickets, checks, verdicts.

    Exit codes: 0 certified or done, 1 refuted, 2 usage, 3 inconclusive or vacuous, 4 invalid input,
    5 nothing to check, 70 internal error, 130 interrupted.
    """


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; nothing escapes as a traceback.

    Args:
        arguments: words after ``certify``; None means the process's own.
    """
    try:
        # Not through Typer's main, which turns a closed pipe into exit 1 and a stray EOFError into an abort.
        command = typer.main.get_command(app)
        words = list(sys.argv[1:] if arguments is None else arguments)
        with command.make_context("certify", words) as context:
            result = command.invoke(context)
        return int(result) if isinstance(result, int) else int(ExitCode.CERTIFIED)
    except CertifyError as error:
        return _fail(str(error), error.code, error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted", "INTERRUPTED", ExitCode.INTERRUPTED)
    except typer.Exit as error:
        return error.exit_code
    except (SystemExit, BrokenPipeError):
        # Rich exits with 1, which would say "refuted", when its reader goes away.
        discard_output()
        return _fail("the output was closed", "OUTPUT_CLOSED", ExitCode.INTERNAL)
    except MemoryError:
        return _fail("out of memory", "MEMORY", ExitCode.INTERNAL)
    except Exception as error:
        # Typer's own usage errors carry their text in format_message.
        message = getattr(error, "format_message", None)
        if callable(message):
            # No arguments at all: Typer printed the help already.
            return _fail(message(), "USAGE", ExitCode.USAGE) if message() else int(ExitCode.USAGE)
        if os.environ.get("CERTIFY_TRACEBACK"):
            raise
        return _fail(
            f"internal error: {type(error).__name__}: {error} (CERTIFY_TRACEBACK=1 shows where)",
            "INTERNAL",
            ExitCode.INTERNAL,
        )


def _fail(message: str, code: str, exit_code: ExitCode) -> int:
    if os.environ.get("LOCAL_RANK", "0") != "0":
        # A launcher started this process beside a first one, which mostly fails in the same way. The launcher
        # then ends this one while it waits, and what happened is told once.
        time.sleep(_PATIENCE)
    line = escape(" ".join(message.split()))
    with suppress(OSError):  # nobody listens; the exit code still tells
        print(f"certify: {line} [{code}]", file=sys.stderr)
    return int(exit_code)


def main() -> None:
    """Entry point of the console script."""
    # Started with a stream closed, Python has none; and a report must not fail for want of a letter.
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    code = run()
    try:
        sys.stdout.flush()
    except OSError:
        discard_output()
    sys.exit(code)
