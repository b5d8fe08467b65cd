"""``certify export`` and ``certify import``: write tickets as PEFT adapters, and read them back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from certify.base.text import counted
from certify.cli import options
from certify.cli.registry import PROBE, load
from certify.cli.use import interop

Adapter = Annotated[
    Literal["peft"], typer.Option("--format", help="Format of the adapter: PEFT TrainableTokens.")
]


def export(
    ticket: interop.TicketSpec,
    out: Annotated[Path, typer.Option("--out", help="Adapter folder to create.")],
    base: interop.TravellingBase = None,
    adapter_format: Adapter = "peft",
    base_name: Annotated[
        str | None, typer.Option("--base-name", help="Name of the base model to record in the adapter.")
    ] = None,
    tensor: options.Tensor = None,
) -> None:
    """Write the ticket's rows as a PEFT adapter. Its logits equal those of the merged checkpoint."""
    from certify.ticket.adapters import export_peft
    from certify.ticket.released import open_source
    from certify.ticket.transfer import open_parts

    parts = open_parts(open_source(ticket), base, tensor=tensor, probe=load(PROBE))
    export_peft(parts, out, base_name=base_name)
    rows = parts.rows
    text = [
        f"wrote {out}: {adapter_format} adapter of {counted(rows.ids.size, 'row')} in {rows.dtype}",
        "peft does not check the base model; the adapter's metadata names it by tensor digest",
        interop.TOKENISATION[parts.tokenisation],
    ]
    following = ("certify", "verify", "--ticket", ticket, *(("--base", base) if base else ()))
    interop.show(text, {}, "terminal", *following, "--served", out)


def import_adapter(
    adapter: Annotated[
        Path, typer.Argument(metavar="ADAPTER", help="Adapter folder to read (safetensors only).")
    ],
    base: options.Base,
    out: Annotated[Path, typer.Option("--out", help="Folder to create, for rows.safetensors.")],
    ticket_id: Annotated[
        str | None,
        typer.Option(
            "--id", help="Also make a ticket of this name; its tuned table is the base with these rows."
        ),
    ] = None,
    adapter_format: Adapter = "peft",
    served_dtype: options.ServedDtype = None,
    tensor: options.Tensor = None,
    allow_tied: options.AllowTied = False,
) -> None:
    """Read the rows of an adapter and write them as a rows file; with --id, also as a ticket."""
    from certify.tables.dtypes import parse_dtype
    from certify.ticket.adapters import import_folder

    imported = import_folder(
        adapter,
        base,
        out,
        ticket_id=ticket_id,
        dtype=None if served_dtype is None else parse_dtype(served_dtype),
        tensor=tensor,
        allow_tied=allow_tied,
        probe=load(PROBE),
    )
    rows = imported.rows
    text = [
        f"wrote {out}: {counted(rows.ids.size, 'row')} in {rows.dtype}, read from {adapter_format} {adapter}"
    ]
    if imported.inert:
        text.append(f"{len(imported.inert)} of them equal the base's rows and have no effect")
    if not imported.fingerprint:
        text.append(
            "the adapter does not name its base by digest: whether this is the right base was not checked"
        )
    made = f"{out / 'tickets.json'}#{ticket_id}"
    following = ("certify", "check", made, "--policy", "selection") if ticket_id else ()
    interop.show([*text, interop.TOKENISATION[imported.tokenisation]], {}, "terminal", *following)
