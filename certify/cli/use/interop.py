"""What the commands that use a ticket share: the options that name it and its base, and how they print."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from certify.cli import options

if TYPE_CHECKING:
    from certify.ticket.released import Source

TicketSpec = Annotated[
    str, typer.Option("--ticket", metavar="FILE[#ID]", help="Ticket file; #ID if it holds several tickets.")
]
TravellingBase = Annotated[
    Path | None,
    typer.Option("--base", help="Base table or checkpoint folder; default: the one beside the ticket."),
]
ComparedTable = Annotated[
    Path | None,
    typer.Option("--tuned", "--reference", help="Table after embed tuning, to compare the rows with."),
]

TOKENISATION: Final = {
    "as stated": "tokenizer: makes the ids of the probe texts that are stated",
    "not bound": "tokenizer: not bound, nothing is stated about its ids",
    "not compared": "tokenizer: not compared, the base has none or the extra tune is missing",
}
"""What to tell of each :data:`certify.tables.tokenisation.Tokenisation`."""


def evaluation(
    ticket: object,
    base: object = "BASE",
    data: str = "DATA",
    source: str = "SOURCE",
    target: str = "TARGET",
    template: str = "TEMPLATE",
) -> tuple[object, ...]:
    """Words of the command that evaluates a ticket, for those that prepare it."""
    text = ("--data", data, "--source", source, "--target", target, "--template", template)
    unit = ("--unit", "UNIT", "--evidence", "NAME.json")
    return "certify", "evaluate", "--base", base, *text, "--ticket", ticket, *unit


def issuing(
    source: Source, ticket: str, evidence: Path, base: str, reference: Path | None
) -> tuple[object, ...]:
    """Words of the command that makes a certificate of ``evidence``, inside the ticket's folder."""
    one, out = source.ticket, source.folder / "certificates" / f"{source.ticket.id}.json"
    elsewhere = one.tokenizer is not None and one.tokenizer.path is None
    named = options.beside(
        base if one.base.path is None else None,
        reference if one.reference.path is None else None,
        base if elsewhere else None,
    )
    words = ("certify", "issue", "--ticket", ticket, "--evidence", evidence, *named)
    return *words, "--out", out, "--attach"


def show(
    lines: Iterable[str], data: dict[str, Any], report_format: options.FormatName, *following: object
) -> None:
    """Print ``lines``, each escaped to one line without control characters, or ``data`` as JSON.

    ``following`` are the words of the command that comes next, if one does.
    """
    from certify.base.jsonio import pretty_json
    from certify.base.text import escape
    from certify.cli.shell import emit, next_line

    if report_format == "json":
        emit(pretty_json(data, flat=True), None)
    else:
        said = [*map(escape, lines), *([next_line(*following)] if following else [])]
        emit("".join(line + "\n" for line in said), None)
