"""``certify opportunity``: the share of real prompts that feed a ticket's tokens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from certify.cli import options
from certify.cli.use import interop
from lottery.cli.options import ParallelText, PromptTemplate, SentenceLimit, SourceLanguage, TargetLanguage

if TYPE_CHECKING:
    from lottery.controls.opportunity import Opportunity


def opportunity(
    ticket: interop.TicketSpec,
    base: Annotated[Path, typer.Option(help="Checkpoint folder with the tokenizer.")],
    data: ParallelText,
    source: SourceLanguage,
    target: TargetLanguage,
    template: PromptTemplate,
    limit: SentenceLimit = None,
    report_format: options.Format = "terminal",
) -> None:
    """Count the prompts that feed each row of a ticket, by segment. A row that is never fed has no effect."""
    from certify.base.errors import InvalidInputError
    from certify.base.jsonio import sha256_file
    from certify.cli.shell import needs_extra

    with needs_extra("counting prompts"):
        from lottery.model.tokenizer import load_tokenizer
    from certify.ticket.corpus import drawn, pair_digests
    from certify.ticket.released import open_source
    from certify.ticket.templates import encodable, encode, load_template
    from lottery.controls.opportunity import of_examples
    from lottery.text.pairsource import read_pairs

    named = open_source(ticket).ticket
    if named.tokenizer is not None and sha256_file(base / "tokenizer.json") != named.tokenizer.sha256:
        raise InvalidInputError(
            f"the tokenizer of {base} differs from that of ticket {named.id}: its ids mean other tokens",
            code="WRONG_TOKENIZER",
        )
    tokenizer = load_tokenizer(base, named.probe_sha256)
    read = read_pairs(data, source, target)
    plain = encodable(read, tokenizer)
    pairs = drawn(plain, limit, pair_digests)
    examples = encode(load_template(template), pairs, tokenizer, source, target)
    found = of_examples(named.ids, examples)
    pieces = {token.id: token.piece or "" for token in named.tokens}
    facts = {
        "ticket": named.id,
        "prompts": found.prompts,
        "control": len(read) - len(plain),
        "ids": list(found.ids),
        "fed": {segment: list(counts) for segment, counts in found.fed.items()},
        "touched": dict(found.touched),
        "never_fed": list(found.unsupported()),
    }
    lines = _lines(found, pieces, len(read) - len(plain))
    following = interop.evaluation(ticket, base, data, source, target, template)
    interop.show(lines, facts, report_format, *(following if found.touched["anywhere"] else ()))


def _lines(found: Opportunity, pieces: dict[int, str], control: int) -> list[str]:
    from certify.base.text import escape

    segments = list(found.fed)
    held = f" ({control} left out, holding a control token)" if control else ""
    lines = [f"{found.prompts} prompts{held}; share of them that feed each row"]
    lines.append(f"{'id':>8}  {'piece':<16}" + "".join(f"{segment:>13}" for segment in segments))
    shares = [found.shares(segment) for segment in segments]
    for i in found.ids:
        lines.append(
            f"{i:>8}  {escape(pieces[i], limit=16):<16}"
            + "".join(f"{float(share[i]):>13.1%}" for share in shares)
        )
    touched = "".join(f"{found.touched[segment] / found.prompts:>13.1%}" for segment in segments)
    lines.append(f"{'':>8}  {'any of them':<16}{touched}")
    never = found.unsupported()
    if never:
        lines.append(f"never fed, so without effect here: {', '.join(map(str, never))}")
    return lines
