"""``certify diff``: what differs between two tickets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certify.cli import options
from certify.cli.use import interop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from certify.certificate.schema import Certificate
    from certify.policy.difference import Difference
    from certify.ticket.released import Source

_SHOWN = 16  # ids named in a line


def diff(
    before: Annotated[str, typer.Argument(metavar="A[#ID]", help="Ticket file; #ID if it holds several.")],
    after: Annotated[str, typer.Argument(metavar="B[#ID]", help="The ticket to compare it with.")],
    report_format: options.Format = "terminal",
) -> int:
    """Compare two tickets: rows, what they bind and declare, and what their certificates state.

    Claims of certificates are compared on texts of one name. Nothing is verified here: certify check does
    that. The exit code is 0 if nothing differs and 1 if something does.
    """
    from certify.base.errors import ExitCode
    from certify.policy.difference import compare
    from certify.ticket.released import open_source

    sources = open_source(before), open_source(after)
    first, second = map(_certificate, sources)
    found = compare(sources[0].ticket, sources[1].ticket, (first, second))
    data = found.model_dump(mode="json", by_alias=True)
    interop.show(_lines(found), data, report_format, "certify", "check", after)
    return ExitCode.CERTIFIED if found.empty else ExitCode.REFUTED


def _certificate(source: Source) -> Certificate | None:
    """The certificate of a ticket, None if it names none or it did not travel.

    Raises:
        InvalidInputError: it is malformed, another file, or about another ticket.
    """
    from certify.base.errors import NothingToDoError
    from certify.gate.examination import bound_certificate

    try:
        return bound_certificate(source.ticket, source.folder)[0]
    except NothingToDoError:
        return None


def _lines(found: Difference) -> Iterator[str]:
    from certify.base.text import counted

    yield f"{found.a.id} {found.a.sha256[:12]} -> {found.b.id} {found.b.sha256[:12]}"
    if found.empty:
        yield "nothing differs"
    for verb in ("added", "removed", "changed"):
        ids = getattr(found, f"ids_{verb}")
        if ids:
            more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
            yield f"{counted(len(ids), 'row')} {verb}: {', '.join(map(str, ids[:_SHOWN]))}{more}"
    for one in found.changes:
        sides = [_said(one.before, one.after), _said(one.after, one.before)]
        yield (
            f"{one.what} {one.change}: {one.name}"
            + (": " if any(sides) else "")
            + " -> ".join(filter(None, sides))
        )


def _said(value: Any, other: Any) -> str:
    """One side of a change, without what the other side says as well; digests are cut."""
    from certify.base.text import escape

    if isinstance(value, dict):
        there = other or {}
        return ", ".join(f"{key} {part}" for key, part in value.items() if part not in (None, there.get(key)))
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value):
        return value[:12]
    return "" if value is None else escape(str(value), limit=100)
