"""The command reference, made of what the commands say of themselves.

``python -m certify.cli.reference > docs/commands.md`` writes it again.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from typing import Any

import typer

from certify.cli.main import app, sections
from certify.cli.registry import COMMANDS

_HEAD = """# Commands

Made by `python -m certify.cli.reference`; `certify NAME -h` prints the same for one command. Every command
exits with the codes of `certify -h`. On an error it prints one line that ends in a code, which
`certify explain CODE` explains. `certify --install-completion` teaches the commands to your shell.
"""


def page() -> str:
    """The reference as Markdown."""
    return _HEAD + "".join(_command(*found) for found in _commands())


def _commands() -> Iterator[tuple[str, Any, Any]]:
    """Name, command and its context, in the order of the help; groups are left out."""
    root: Any = typer.main.get_command(app)
    top = root.make_context("certify", [], resilient_parsing=True)
    for name in COMMANDS:
        command, context = root, top
        for word in name.split():
            command = command.get_command(context, word)
            context = command.make_context(word, [], parent=context, resilient_parsing=True)
        yield name, command, context


def _command(name: str, command: Any, context: Any) -> str:
    usage = " ".join(command.collect_usage_pieces(context))
    said = "\n\n".join(" ".join(part.split()) for part in inspect.cleandoc(command.help).split("\n\n"))
    text = f"\n## certify {name}\n\n**certify {name}** {usage}\n\n{said}\n"
    for subject, records in sections(command, context).items():
        rows = [f"| `{_cell(names)}` | {_cell(about)} |\n" for names, about in records]
        text += f"\n| {subject.lower()} | |\n|---|---|\n{''.join(rows)}"
    return text


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(page())
