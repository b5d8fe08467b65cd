"""``certify schema``: the JSON Schema of the files that the program reads and writes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from certify.base.errors import UsageError
from certify.cli.registry import SCHEMAS, load

_OLDER = {"tickets": "ticket"}  # spellings that stay


def schema(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=f"One of: {', '.join(SCHEMAS)}.")] = "ticket",
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the schema to a file instead of printing it.")
    ] = None,
) -> None:
    """Print the JSON Schema of a file format.

    ticket describes tickets.json, evidence a manifest, outputs the first line of outputs of another engine,
    certificate a certificate, proofs the record that certify prove --out writes, report what certify check
    --format json prints of one file and reports of several, diff what certify diff does. policy, plan (of an
    experiment) and defaults (of certify check, in certify.toml or pyproject.toml) are TOML; the schema
    describes their content as JSON.
    """
    from certify.base.jsonio import pretty_json, states
    from certify.base.model import json_schema
    from certify.cli.shell import emit

    name = _OLDER.get(kind, kind)
    if name not in SCHEMAS:
        raise UsageError(
            f"no schema of {kind[:60]!r}; there is one of: {', '.join(SCHEMAS)}", code="SCHEMA_UNKNOWN"
        )
    content = json_schema(load(SCHEMAS[name]))
    emit(pretty_json(content), out, like=states("title", content["title"]))
