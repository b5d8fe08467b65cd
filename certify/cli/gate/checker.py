"""``certify checker``: the independent checker alone, or as one file to carry to a bare machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from certify.cli import options


def checker(
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Folder of tickets.json: check it.")
    ] = None,
    policy: options.OnePolicy = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing about progress.")] = False,
    write: Annotated[
        Path | None, typer.Option("--write", help="Write the checker to this file, such as checker.pyz.")
    ] = None,
) -> int:
    """Run the independent checker, or write it to one file.

    The checker needs nothing but Python. Alone it derives everything again from the files, tables
    included if they lie in the folder: python3 -I -S checker.pyz DIR.
    """
    from certify.base.errors import ExitCode, UsageError
    from certify.checker import main
    from certify.cli import archive
    from certify.cli.shell import next_line

    if (folder is None) == (write is None):
        raise UsageError("name a folder to check, or --write FILE", code="USAGE")
    if write is not None:
        typer.echo(f"{write}: sha256 {archive.write(write)}")
        typer.echo(next_line("python3", "-I", "-S", write, "DIR"))
        return int(ExitCode.CERTIFIED)
    words = [str(folder), *(["--policy", policy] if policy else []), *(["--json"] if as_json else [])]
    return main([*words, *(["--quiet"] if quiet else [])])
