"""``certify opportunity``: the share of real prompts that feed a ticket's tokens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certify.cli import options
from certify.cli.use import interop
from lottery.cli.options import ParallelText, PromptTemplate, SentenceLimit, SourceLanguage, TargetLanguage

if TYPE_CHECKING:
    from certify.ticket.schema import Ticket
    from certify.ticket.templates import Example
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
    from certify.ticket.released import open_source
    from lottery.controls.opportunity import of_examples

    named = open_source(ticket).ticket
    _, examples, control = read_text(named, base, data, (source, target), template, limit)
    found = of_examples(named.ids, examples)
    pieces = {token.id: token.piece or "" for token in named.tokens}
    facts = {
        "ticket": named.id,
        "prompts": found.prompts,
        "control": control,
        "ids": list(found.ids),
        "fed": {segment: list(counts) for segment, counts in found.fed.items()},
        "touched": dict(found.touched),
        "never_fed": list(found.unsupported()),
    }
    lines = _lines(found, pieces, control)
    following = interop.evaluation(ticket, base, data, source, target, template)
    interop.show(lines, facts, report_format, *(following if found.touched["anywhere"] else ()))


def read_text(
    ticket: Ticket, base: Path, data: str, languages: tuple[str, str], template: str, limit: int | None
) -> tuple[Any, list[Example], int]:
    """Tokenizer of a base, examples of a text under a template, and the number of pairs left out.

    Pairs that hold a control token are left out. Of the others at most ``limit`` are drawn, by their digests.

    Raises:
        UsageError, InvalidInputError, NothingToDoError: a file is missing, malformed or empty, or the
            tokenizer is not that of the ticket (``WRONG_TOKENIZER``, ``TOKENISATION_DIFFERS``).
    """
    from certify.base.errors import InvalidInputError
    from certify.base.jsonio import sha256_file
    from certify.cli.shell import needs_extra

    with needs_extra("reading prompts"):
        from lottery.model.tokenizer import load_tokenizer
    from certify.ticket.corpus import drawn, pair_digests
    from certify.ticket.templates import encodable, encode, load_template
    from lottery.text.pairsource import read_pairs

    if ticket.tokenizer is not None and sha256_file(base / "tokenizer.json") != ticket.tokenizer.sha256:
        raise InvalidInputError(
            f"the tokenizer of {base} differs from that of ticket {ticket.id}: its ids mean other tokens",
            code="WRONG_TOKENIZER",
        )
    tokenizer = load_tokenizer(base, ticket.probe_sha256)
    read = read_pairs(data, *languages)
    plain = encodable(read, tokenizer)
    pairs = drawn(plain, limit, pair_digests)
    examples = encode(load_template(template), pairs, tokenizer, *languages)
    return tokenizer, examples, len(read) - len(plain)


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
