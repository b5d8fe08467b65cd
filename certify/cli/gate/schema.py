"""``certify schema``: the JSON Schema of the files that the program writes."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class FileKind(StrEnum):
    """Kind of file to describe."""

    tickets = "tickets"
    evidence = "evidence"
    certificate = "certificate"
    proofs = "proofs"


def schema(
    kind: Annotated[
        FileKind,
        typer.Argument(
            help="tickets.json, an evidence manifest, a certificate, or a record of certify prove."
        ),
    ] = FileKind.tickets,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the schema to a file instead of printing it.")
    ] = None,
) -> None:
    """Print the JSON Schema of a file format."""
    from certify.base.jsonio import pretty_json
    from certify.certificate import proofs
    from certify.certificate import schema as certificate
    from certify.cli.shell import emit
    from certify.evidence import manifest
    from certify.ticket import schema as tickets

    schemas = {
        "tickets": tickets.json_schema,
        "evidence": manifest.json_schema,
        "certificate": certificate.json_schema,
        "proofs": proofs.json_schema,
    }
    emit(pretty_json(schemas[kind.value]()), out)
