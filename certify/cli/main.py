"""The command ``certify``: looks up the command to run and turns every outcome into one exit code.

Importing a command loads its signature only. Heavy packages such as numpy and torch load when it runs.
"""

from __future__ import annotations

import gc
import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from certify.base.errors import CertifyError, ExitCode, UsageError
from certify.base.files import noting_inputs
from certify.base.version import __version__
from certify.cli.registry import COMMANDS, DEFAULTS, GROUPS, load
from certify.cli.shell import complain, discard_output, needs_extra

_PATIENCE = 60.0  # seconds: on a busy machine, processes started together may reach an error far apart


def _refuse_twice(command: Any, context: Any, words: Sequence[str]) -> None:
    """Refuse an option that is given twice but has one value: the last would win, whatever the first said.

    Raises:
        UsageError: ``OPTION_TWICE``.
    """
    _, _, order = command.make_parser(context).parse_args(args=list(words))
    single = [one for one in order if one.param_type_name == "option" and not one.multiple]
    for one in single:
        if single.count(one) > 1:
            raise UsageError(f"{' / '.join(one.opts)} is given twice, but has one value", code="OPTION_TWICE")


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a run like an interrupt: what was begun is cleaned up."""


def _terminate(number: int, _: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second one does not interrupt the cleaning up
    raise _Terminated


_TYPES = {"path": "PATH", "str": "TEXT", "int": "N", "float": "X"}


def _plain(names: str) -> str:
    """Names of an option, and in a word that people use what it takes: ``<int range>`` is N."""
    plain = re.sub(
        r"<(?:list\[)?(\w+)\]?(?: range)?>", lambda kind: _TYPES.get(kind[1].lower(), kind[1]), names
    )
    plain = re.sub(r"<([\w-]+(?:\|[\w-]+)+)>", r"\1", plain)
    return plain if plain.startswith("-") else plain.partition(" ")[0]  # arguments say it in their name


class _Command(TyperCommand):
    """A command that refuses repeated options, takes a project's defaults, and shows options by subject."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:  # a shell completes what is not whole yet
            return super().parse_args(ctx, args)
        _refuse_twice(self, ctx, args)
        name = ctx.command_path.removeprefix("certify ")  # "table apply" is another command than "apply"
        if name in DEFAULTS and not {"-h", "--help"} & {*args}:
            ctx.default_map, ctx.meta["defaults"] = load(DEFAULTS[name])(Path())
        return super().parse_args(ctx, args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        for subject, records in sections(self, ctx).items():
            with formatter.section(subject):
                formatter.write_dl(records)


def sections(command: Any, context: Any) -> dict[str, list[tuple[str, str]]]:
    """What a command takes, by subject: the names of each parameter, and its help."""
    found: dict[str, list[tuple[str, str]]] = {}
    for param in command.get_params(context):
        subject = "Arguments" if param.param_type_name == "argument" else "Options"
        if (record := param.get_help_record(context)) is not None:
            subject = getattr(param, "rich_help_panel", None) or subject
            found.setdefault(subject, []).append((_plain(record[0]), record[1]))
    return found


class _Group(TyperGroup):
    """Commands whose help says the first sentence about each of them, whole."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        commands: dict[str, Any] = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        with formatter.section("Commands"):
            formatter.write_dl([(name, one.get_short_help_str(200)) for name, one in commands.items()])


class Commands(_Group):
    """The registered commands, each loaded on demand."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 (its signature)
        """List commands and groups in the order in which the help shows them."""
        return list(dict.fromkeys(name.partition(" ")[0] for name in COMMANDS))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 (its signature)
        """Load the command of that name, or the group whose commands begin with it; None if there is none."""
        names = [name for name in COMMANDS if f"{name} ".startswith(f"{cmd_name} ")]
        if not names:
            return None
        one = typer.Typer(
            cls=_Group,
            help=GROUPS.get(cmd_name),
            no_args_is_help=True,
            add_completion=False,
            rich_markup_mode=None,
            pretty_exceptions_enable=False,
        )
        for name in names:
            one.command(name.rpartition(" ")[2], cls=_Command)(load(COMMANDS[name]))
        return typer.main.get_command(one)


app = typer.Typer(
    name="certify",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,  # no boxes: the help is text of 80 columns
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
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

    Exit codes: 0 certified or done, 1 refuted, 2 usage, 3 inconclusive or
    vacuous, 4 invalid input, 5 nothing to check, 70 internal error,
    130 interrupted, 143 terminated.
    """


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code. No exception escapes as a traceback.

    Args:
        arguments: the words after ``certify``; None takes those of the process.
    """
    try:
        # Typer's own main would turn a closed pipe into exit code 1 and a stray EOFError into an abort.
        command = typer.main.get_command(app)
        words = list(sys.argv[1:] if arguments is None else arguments)
        try:
            made = command.make_context("certify", words)
        except SystemExit as end:  # of --install-completion and --show-completion
            return int(end.code or 0)
        with noting_inputs(), made as context, needs_extra("this command"):
            result = command.invoke(context)
        return int(result) if isinstance(result, int) else int(ExitCode.CERTIFIED)
    except CertifyError as error:
        return _fail(str(error), error.code, error.exit_code)
    except _Terminated:
        complain("terminated", "TERMINATED")
        return int(ExitCode.TERMINATED)
    except KeyboardInterrupt:
        return _fail("interrupted", "INTERRUPTED", ExitCode.INTERRUPTED)
    except typer.Exit as error:
        return error.exit_code
    except (SystemExit, BrokenPipeError):
        # When the reader of a pipe goes away, Rich exits with code 1, which would mean "refuted".
        discard_output()
        return _fail("the output was closed", "OUTPUT_CLOSED", ExitCode.INTERNAL)
    except MemoryError:
        return _fail("out of memory", "MEMORY", ExitCode.INTERNAL)
    except Exception as error:
        # Typer's usage errors carry their text in format_message.
        message = getattr(error, "format_message", None)
        if callable(message):
            if type(error).__name__ != "NoArgsIsHelpError":
                return _fail(message(), "USAGE", ExitCode.USAGE)
            typer.echo(message())  # without any words, the message is the help
            return int(ExitCode.USAGE)
        if not _temporary_files():  # whatever a library makes of that
            text = (
                "no folder can be used for temporary files: set TMPDIR to one with space that can be written"
            )
            return _fail(text, "NO_TEMPORARY_FILES", ExitCode.USAGE)
        if os.environ.get("CERTIFY_TRACEBACK"):
            raise
        return _fail(
            f"internal error: {type(error).__name__}: {error} (set CERTIFY_TRACEBACK=1 for a traceback)",
            "INTERNAL",
            ExitCode.INTERNAL,
        )


def _temporary_files() -> bool:
    import tempfile

    try:
        return bool(tempfile.gettempdir())
    except OSError:
        return False


def _fail(message: str, code: str, exit_code: ExitCode) -> int:
    if os.environ.get("LOCAL_RANK", "0") != "0":
        # A launcher started this process beside process 0, which usually fails in the same way. The launcher
        # then stops this one while it waits, so that the error is printed once.
        time.sleep(_PATIENCE)
    complain(message, code)
    return int(exit_code)


def main() -> None:
    """Entry point of the console script."""
    # Python sets a stream that was closed at the start to None.
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    # A character that the terminal cannot encode must not stop a report.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, _terminate)
    # Evidence becomes millions of small objects without cycles: looking for some takes a tenth of a check.
    gc.set_threshold(50_000)
    if "_CERTIFY_COMPLETE" in os.environ:  # a shell asks what could come next
        typer.main.get_command(app).main(prog_name="certify")
    code = run()
    try:
        sys.stdout.flush()
    except OSError:
        discard_output()
    sys.exit(code)
