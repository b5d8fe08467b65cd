"""``certify count``: token counts over text, for rule ``frequency:K``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from certify.cli import options


def count(
    text: Annotated[
        list[Path],
        typer.Argument(metavar="TEXT", help="Text files, one sentence per line; plain, .xz or .gz."),
    ],
    base: options.Base,
    out: Annotated[Path, typer.Option(help="File of counts to write (.npy).")],
    tokenizer: options.Tokenizer = None,
    tensor: options.Tensor = None,
    allow_tied: options.AllowTied = False,
) -> None:
    """Count how often each token id occurs in text, tokenised in context (needs the extra tune)."""
    from certify.base.errors import UsageError
    from certify.cli.shell import needs_extra, next_line, surviving_closed_pipe
    from certify.selection.frequency import count_tokens, write_counts
    from certify.tables.table import open_table
    from certify.ticket.make import find_vocabulary
    from lottery.model.tokenizer import load_tokenizer
    from lottery.text.textfile import locate, read_lines

    rows = open_table(base, tensor=tensor, allow_tied=allow_tied).shape[0]
    vocabulary = find_vocabulary(tokenizer, base)
    if vocabulary is None:
        raise UsageError("no tokenizer.json beside the base; name one with --tokenizer")
    lines = [line for path in text for line in read_lines(locate(path))]
    empty = sum(not line.strip() for line in lines)
    with needs_extra("counting tokens", "transformers"):
        counts = count_tokens(load_tokenizer(vocabulary.path.parent), lines, rows)
    write_counts(out, counts)
    with surviving_closed_pipe():
        typer.echo(
            f"{int(counts.sum())} tokens, {int((counts > 0).sum())} of {rows} ids occur in {len(lines)} lines"
            f" ({empty} empty, repeated ones counted each time): {out}"
        )
        rule = ("--rule", "frequency:K", "--counts", out)
        typer.echo(next_line("certify", "find", "--base", base, "--tuned", "TUNED", *rule, "--id", "NAME"))
