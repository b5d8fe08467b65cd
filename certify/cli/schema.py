"""``certify schema``: the JSON Schema of the files that the program writes."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class FileKind(StrEnum):
    """Which file."""

    tickets = "tickets"
    evidence = "evidence"
    certificate = "certificate"


def schema(
    kind: Annotated[
        FileKind, typer.Argument(help="tickets.json, an evidence manifest, or a certificate.")
    ] = FileKind.tickets,
    out: Annotated[Path | None, typer.Option("--out", help="Write to a file instead of printing.")] = None,
) -> None:
    """Print the JSON Schema of tickets.json, of an evidence manifest or of a certificate."""
    from certify import certificate, evidence_schema, tickets
    from certify.cli.shell import emit
    from certify.schema import pretty_json

    module = {"tickets": tickets, "evidence": evidence_schema, "certificate": certificate}[kind.value]
    emit(pretty_json(module.json_schema()), out)
