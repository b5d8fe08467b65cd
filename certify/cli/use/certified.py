"""A ticket that is put to use: what ``certify check`` says of it first, or that nobody asked."""

from __future__ import annotations

import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certify.cli import options
from certify.cli.gate.run import in_words, judge_files
from certify.cli.registry import PROBE, RENDERERS, load
from certify.cli.shell import complain

if TYPE_CHECKING:
    from certify.ticket.released import Source
    from certify.ticket.schema import TableRef
    from certify.ticket.transfer import Parts

Uncertified = Annotated[
    bool, typer.Option("--uncertified", help="Go on without a check; what is written says so.")
]


def open_certified(
    context: typer.Context,
    spec: str,
    base: Path | None,
    reference: Path | None,
    *,
    tensor: str | None,
    policy: str,
    uncertified: bool,
) -> Parts:
    """Open base and rows of a ticket that is CERTIFIED under ``policy``, with what the check found.

    The check is that of ``certify check``, with what lies beside the ticket. What does not is taken from
    ``base`` (also the tokenizer) and ``reference``, if their digests are the ticket's.

    Args:
        context: of the command, to see whether its words name a policy.
        spec: ``FILE`` or ``FILE#ID``.
        base: see :func:`certify.ticket.transfer.open_parts`, as for ``reference`` and ``tensor``.
        reference: see there.
        tensor: see there.
        policy: name or file, with the default of ``certify check``.
        uncertified: make no check.

    Raises:
        UsageError: a policy for no check.
        UncertifiedError: the verdict is another one (``TICKET_UNCERTIFIED``).
        CertifyError: the ticket cannot be judged; see also :func:`certify.ticket.transfer.open_parts`.
    """
    from certify.base.errors import ExitCode, UncertifiedError, UsageError
    from certify.ticket.released import open_source, split_spec
    from certify.ticket.transfer import open_parts

    if uncertified and in_words(context, "policy"):
        raise UsageError("--policy and --uncertified do not combine", code="USAGE")
    parts = open_parts(open_source(spec), base, reference, tensor=tensor, probe=load(PROBE))
    ticket = parts.source.ticket
    if uncertified:
        return parts
    bound, file = ticket.tokenizer, split_spec(spec)[0]
    named: dict[str, Any] = {
        "base": None if _beside(parts.source, ticket.base) else base,
        "reference": None if _beside(parts.source, ticket.reference) else reference,
        "tokenizer": base if base and base.is_dir() and bound and not bound.path else None,
    }
    view = partial(load(RENDERERS["check.view"]), resample=False)
    run = judge_files({file: [ticket.id]}, view, policy=policy, **named)
    if code := ExitCode(run["exit_code"]):
        (first,) = load(RENDERERS["check.summary"])(run)
        again = ["certify", "check", f"{file}#{ticket.id}", "--policy", policy, *options.beside(**named)]
        more = shlex.join(again)
        raise UncertifiedError(
            f"ticket {ticket.id!r} is {first.verdict} under {policy}: {first.code}, {first.reason};"
            f" {more} says more, and --uncertified goes on",
            exit_code=code,
        )
    (report,) = run["reports"]
    found = {"certified_under": report["policy"], "policy_sha256": report["policy_sha256"]}
    return replace(parts, certified=found | {"report_sha256": run["digest"]})


def _beside(source: Source, ref: TableRef) -> bool:
    from certify.tables.safefile import is_file, is_folder

    path = source.folder / (ref.path or "")
    return ref.path is not None and (is_file(path) or is_folder(path))


def tell(parts: Parts) -> str:
    """A line about the check of a used ticket; standard error says so, too, if none was made."""
    if why := parts.certified.get("uncertified"):
        complain(f"ticket {parts.source.ticket.id!r} was put to use without a check", "TICKET_UNCERTIFIED")
        return f"not certified: {why}"
    return "certified under {certified_under}, report sha256 {report_sha256}".format(**parts.certified)
