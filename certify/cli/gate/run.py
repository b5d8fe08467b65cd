"""One run over ticket files: for every command that judges them and shows what was found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from certify.cli.registry import FED, RENDERERS, load

if TYPE_CHECKING:
    from certify.gate.check import CheckReport


def chosen_tickets(specs: Sequence[str], only: Sequence[str] = ()) -> dict[Path, list[str]]:
    """Ids to check by file, in the order in which the files were named; no ids: all tickets of the file."""
    from certify.base.errors import UsageError
    from certify.ticket.released import split_spec

    split = [split_spec(spec) for spec in specs]
    if only and (len(split) > 1 or split[0][1]):
        raise UsageError("--id chooses from one ticket file: write FILE#ID", code="TICKET_UNKNOWN")
    found: dict[Path, list[str]] = {}
    for path, _ in split:
        ids = [*only, *(name for other, name in split if other == path)]
        found[path] = list(dict.fromkeys(ids)) if all(ids) else list(only)
    return found


def from_defaults(context: typer.Context, parameter: str) -> str | None:
    """The file of defaults that set a parameter; None if the command line or nothing did."""
    source = context.get_parameter_source(parameter)
    found: str | None = context.meta["defaults"] if source and source.name == "DEFAULT_MAP" else None
    return found


def in_words(context: typer.Context, parameter: str) -> bool:
    """Whether the command line itself names a parameter."""
    source = context.get_parameter_source(parameter)
    return source is not None and source.name == "COMMANDLINE"


def judge_files(
    chosen: Mapping[Path, list[str]],
    look: Callable[[CheckReport], dict[str, Any]],
    *,
    raises: bool = True,
    **settings: Any,
) -> dict[str, Any]:
    """Judge file by file. A fault with one of several files is told, and does not hide the others.

    Args:
        chosen: ids by file, from :func:`chosen_tickets`.
        look: makes the data of a report; what goes wrong there counts as a fault with its file.
        raises: raise the fault with the only file, too; otherwise the run holds it.
        settings: of :func:`certify.gate.check.check`.

    Returns:
        The run as data, schema ``certify.reports``.

    Raises:
        CertifyError: the only file cannot be judged, and ``raises``.
    """
    from functools import partial

    from certify.base.errors import CertifyError, ExitCode, InternalError
    from certify.base.verdict import gravest
    from certify.cli.shell import complain, progress_bar
    from certify.gate.check import check

    shown: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    codes = []
    for path, ids in chosen.items():
        try:
            with progress_bar(f"checking {path}") as progress:
                told = partial(progress, of="tickets")
                report = check(path, ids=ids, progress=progress, fed=load(FED), judged=told, **settings)
            shown.append(look(report))
            codes.append(ExitCode(shown[-1]["exit_code"]))
        except Exception as error:  # a fault of this program with one file is no reason to hide the others
            if raises and len(chosen) == 1:
                raise
            if not isinstance(error, CertifyError):
                what = f"{path}: internal error: {type(error).__name__}: {error}"
                error = InternalError(what, code="INTERNAL")
            complain(str(error), error.code)
            codes.append(error.exit_code)
            failed.append({"file": str(path), "code": error.code, "text": str(error)})
    run: dict[str, Any] = load(RENDERERS["check.run"])(gravest(codes), shown, failed)
    return run
