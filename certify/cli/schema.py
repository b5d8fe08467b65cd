"""``certify schema``: the JSON Schema of the ticket file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def schema(
    out: Annotated[Path | None, typer.Option("--out", help="Write to a file instead of printing.")] = None,
) -> None:
    """Print the JSON Schema of tickets.json."""
    from certify.cli.shell import emit
    from certify.schema import pretty_json
    from certify.tickets import json_schema

    emit(pretty_json(json_schema()), out)
