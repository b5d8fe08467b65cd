"""``certify export`` and ``certify import``: write tickets as PEFT adapters, and read them back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from certify.base.text import counted
from certify.cli import options
from certify.cli.registry import PROBE, load
from certify.cli.use import interop
from certify.cli.use.certified import Uncertified, open_certified, tell


def export(
    context: typer.Context,
    ticket: interop.TicketSpec,
    out: Annotated[Path, typer.Option("--out", help="Adapter folder to create; for gguf a file.")],
    base: interop.TravellingBase = None,
    adapter_format: Annotated[
        Literal["peft", "lora", "gguf"],
        typer.Option(
            "--format",
            help="peft: rows (TrainableTokens); lora: the same as a LoRA of rank k, for PEFT and llama.cpp's"
            " converter; gguf: an adapter for llama.cpp.",
        ),
    ] = "peft",
    base_name: Annotated[
        str | None, typer.Option("--base-name", help="Name of the base model to record in the adapter.")
    ] = None,
    onto: Annotated[
        Path | None,
        typer.Option("--onto", metavar="MODEL.gguf", help="For gguf: the model that the engine loads."),
    ] = None,
    tensor: options.Tensor = None,
    reference: interop.ComparedTable = None,
    policy: options.Policy = "release",
    uncertified: Uncertified = False,
) -> None:
    """Write the ticket's rows as an adapter that serves them on top of the base.

    The ticket must be CERTIFIED, as for certify apply.
    """
    from certify.base.errors import UsageError
    from certify.cli.shell import needs_extra
    from certify.ticket.adapters.lora import export_gguf, export_lora
    from certify.ticket.adapters.rows import export_peft

    if (onto is not None) != (adapter_format == "gguf"):
        raise UsageError(
            "--format gguf requires --onto MODEL.gguf, and no other format takes it", code="USAGE"
        )
    parts = open_certified(
        context, ticket, base, reference, tensor=tensor, policy=policy, uncertified=uncertified
    )
    off = 0.0
    if adapter_format == "peft":
        export_peft(parts, out, base_name=base_name)
    elif adapter_format == "lora":
        off = export_lora(parts, out, base_name=base_name)
    elif onto is not None:
        with needs_extra("writing a GGUF file", "gguf"):
            off = export_gguf(parts, out, onto)
    rows = parts.rows
    exact = "the ticket's rows bit for bit" if not off else f"the ticket's rows, off by {off:.1e} at most"
    text = [
        f"wrote {out}: {adapter_format} adapter of {counted(rows.ids.size, 'row')} in {rows.dtype}",
        f"what it serves: {exact}",
        "engines do not check the base model; the adapter names it by tensor digest",
        interop.TOKENISATION[parts.tokenisation],
        tell(parts),
    ]
    if adapter_format == "lora" and rows.dtype != "F32":
        text.insert(
            2,
            f"do not merge it in {rows.dtype}: merge_and_unload rounds the difference first, which makes"
            " other rows; certify apply writes the merged checkpoint",
        )
    following = (
        "certify",
        "verify",
        "--ticket",
        ticket,
        *(("--base", base) if base else ()),
        "--served",
        out,
    )
    interop.show(text, {}, "terminal", *(following if adapter_format != "gguf" else ()))


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
    adapter_format: Annotated[
        Literal["peft"], typer.Option("--format", help="Format of the adapter: PEFT.")
    ] = "peft",
    served_dtype: options.ServedDtype = None,
    tensor: options.Tensor = None,
    allow_tied: options.AllowTied = False,
) -> None:
    """Read the rows of an adapter and write them as a rows file; with --id, also as a ticket.

    An adapter that replaces the whole table (modules_to_save) or adds a LoRA to it
    becomes moved_rows.safetensors, a tuned table for certify find.
    """
    from certify.base.errors import UsageError
    from certify.tables.dtypes import parse_dtype
    from certify.ticket.adapters.imported import import_folder, import_table
    from certify.ticket.adapters.rows import PEFT_TYPE, read_config

    dtype = None if served_dtype is None else parse_dtype(served_dtype)
    if read_config(adapter).get("peft_type") != PEFT_TYPE:
        if ticket_id is not None:
            raise UsageError("only rows become a ticket by --id: use certify find", code="USAGE")
        count, others = import_table(adapter, base, out, dtype=dtype, tensor=tensor, allow_tied=allow_tied)
        file = out / "moved_rows.safetensors"
        text = [f"wrote {file}: {counted(count, 'row')} that differ from the base's"]
        if others:
            listed = ", ".join(others[:3]) + (" …" if len(others) > 3 else "")
            text.append(f"the adapter changes more than the input table, which stays behind: {listed}")
        interop.show(text, {}, "terminal", "certify", "scan", "--base", base, "--tuned", file)
        return
    imported = import_folder(
        adapter,
        base,
        out,
        ticket_id=ticket_id,
        dtype=dtype,
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
