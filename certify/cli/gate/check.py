"""``certify check``: the gate."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certify.cli import options
from certify.cli.gate.run import chosen_tickets, from_defaults, in_words, judge_files
from certify.cli.registry import APPENDED, FORMATS, RENDERERS, load

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from certify.gate.check import CheckReport


def check(
    context: typer.Context,
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE[#ID]", help="Tickets to check; default: tickets.json."),
    ] = None,
    ticket: Annotated[
        list[str] | None,
        typer.Option("--ticket", metavar="FILE[#ID]", help="The same as an option; repeatable."),
    ] = None,
    policy: options.Policy = "release",
    only: Annotated[
        list[str] | None,
        typer.Option("--id", metavar="ID", help="Check only this ticket of the file; repeatable."),
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option("--certificate", help="Certificate, if not the one named in the ticket.")
    ] = None,
    base: options.BesideBase = None,
    reference: options.BesideReference = None,
    tokenizer: options.BesideTokenizer = None,
    formats: options.Formats = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Write the report to this file; the verdict is printed all the same."),
    ] = None,
    engine: options.Engine = "auto",
    workers: options.Workers = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print everything that was found out.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the summary alone.")] = False,
    replay: Annotated[
        str | None,
        typer.Option("--replay", metavar="MODEL", help="Rerun every listed violation on this base model."),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option("--text", metavar="DATA", help="With --replay: a text that was evaluated; repeatable."),
    ] = None,
) -> int:
    """Verify tickets from scratch and decide. What stands in the way is printed, the verdicts last.

    The exit code is the gravest verdict. Several formats are written in one run:
    --format junit=report.xml --format json=report.json.
    """
    from certify.base.errors import UsageError
    from certify.policy.policy import get_policy

    if ticket and from_defaults(context, "files"):
        files = None
    chosen = chosen_tickets([*(files or ()), *(ticket or ())] or ["tickets.json"], only or ())
    targets = _targets(formats, out)
    if text and replay is None:
        raise UsageError("--text requires --replay", code="USAGE")
    if verbose and quiet:
        raise UsageError("--verbose and --quiet do not combine", code="USAGE")
    if certificate is not None and len(chosen) > 1:
        raise UsageError("--certificate is about one ticket: name one", code="TICKET_UNKNOWN")
    get_policy(policy)  # wrong for one file is wrong for all
    notes: list[str] = []
    resample, set_by = verbose or "json" in dict(targets), from_defaults(context, "policy")

    def look(report: CheckReport) -> dict[str, Any]:
        data: dict[str, Any] = load(RENDERERS["check.view"])(report, resample=resample, set_by=set_by)
        if replay is not None:
            replaying = load(RENDERERS["replay"])
            reruns = replaying.run_again(report, model=replay, texts=text or (), reference=reference)
            notes.extend(replaying.lines(reruns))
            code = replaying.exit_code(int(report.exit_code), reruns)
            data |= {"exit_code": code, "replay": replaying.data(reruns)}
        return data

    run = judge_files(
        chosen,
        look,
        raises={name for name, _ in targets} == {"terminal"},  # other formats say it themselves
        policy=policy,
        certificate=certificate,
        base=base,
        reference=reference,
        tokenizer=tokenizer,
        engine=engine,
        workers=workers,
    )
    again = ["--policy", policy] if in_words(context, "policy") else []
    again += ["--tuned", str(reference)] if in_words(context, "reference") else []
    _write(run, targets, {"verbose": verbose, "quiet": quiet, "notes": notes}, [str(base or "BASE"), *again])
    return int(run["exit_code"])


def _targets(formats: Sequence[str] | None, out: Path | None) -> list[tuple[str, Path | None]]:
    """Which format goes to which file; at most one that is named goes to standard output, None.

    Raises:
        UsageError: an unknown format, two to one place, or a file that cannot be written.
    """
    from certify.base.errors import UsageError
    from certify.base.files import check_output, check_target

    found: list[tuple[str, Path | None]] = []
    if not formats and out is None and os.environ.get("GITHUB_ACTIONS") == "true":
        return [("terminal", None), ("github", None)]
    for spelled in formats or ("terminal",):
        name, given, place = spelled.partition("=")
        if name not in FORMATS or (given and not place):
            known = ", ".join(FORMATS)
            raise UsageError(f"--format takes NAME or NAME=FILE, NAME one of {known}; not {spelled!r}")
        found.append((name, Path(place) if given else None))
    if out is not None:
        printed = [position for position, (_, place) in enumerate(found) if place is None]
        if len(printed) != 1:
            raise UsageError("--out is the file of one format: write --format NAME=FILE")
        found[printed[0]] = (found[printed[0]][0], out)
    places = [place and place.resolve() for _, place in found]
    if len(set(places)) < len(places):
        raise UsageError("two formats go to one place: write --format NAME=FILE for each but one")
    for written in filter(None, places):
        check_output(written)
        check_target(written)
    return found


def _write(
    run: dict[str, Any],
    targets: Sequence[tuple[str, Path | None]],
    settings: Mapping[str, Any],
    again: Sequence[str],
) -> None:
    """Write every format; the verdict is printed where no format is."""
    from io import StringIO

    from rich.console import Console

    from certify.cli.shell import append, console, emit, next_line, surviving_closed_pipe

    terminal = load(FORMATS["terminal"])
    for name, place in targets:
        for variable, make in load(APPENDED[name]).items() if name in APPENDED else ():
            if named := os.environ.get(variable):
                append(Path(named), make(run))
        if name != "terminal":
            emit(load(FORMATS[name])(run), place)
        elif place is not None:
            buffer = StringIO()
            terminal(run, Console(file=buffer, width=80, color_system=None, force_terminal=False), **settings)
            emit(buffer.getvalue(), place)
    printed = [name for name, place in targets if place is None]
    if printed and "terminal" not in printed:
        return
    with surviving_closed_pipe(), _no_commands(run):
        terminal(run, console(), **dict(settings) | ({} if printed else {"verbose": False, "quiet": True}))
        print(next_line(*_next(run, targets, again)))


@contextmanager
def _no_commands(run: Mapping[str, Any]) -> Iterator[None]:
    """Let GitHub Actions take nothing that is printed for a command; no text holds the digest over itself."""
    if os.environ.get("GITHUB_ACTIONS") != "true":
        yield
        return
    print(f"::stop-commands::{run['digest']}")
    yield
    print(f"::{run['digest']}::")


def _next(
    run: Mapping[str, Any], targets: Sequence[tuple[str, Path | None]], again: Sequence[str]
) -> Sequence[str]:
    """The command that helps on: what the gravest reason means, how to sign or to use what was certified.

    ``again``: the base, and options with which that use comes to the same verdict.
    """
    first = load(RENDERERS["check.summary"])(run)[0]
    if first.code == "NOT_SHOWN":
        return _power(run, first)
    if first.verdict != first.code:
        return "certify", "explain", first.code
    if run["exit_code"]:  # of a replay alone
        return "certify", "explain", load(RENDERERS["replay"]).gravest(run)
    for name, place in targets:
        if FORMATS[name].startswith("reports.formats.intoto:") and place is not None:
            signed = str(place.with_suffix(".sigstore.json"))
            return "cosign", "attest-blob", "--statement", str(place), "--bundle", signed
    return _use(run, first, again)


def _use(run: Mapping[str, Any], first: Any, again: Sequence[str]) -> Sequence[str]:
    """The command that puts a ticket to use; first one for a base of the dtype that it is served in."""
    from certify.tables.table import open_table

    base, ticket = Path(again[0]), ("--ticket", f"{first.file}#{first.id}", "--base")
    if base.is_file():  # a table without the checkpoint around it
        return "certify", "transfer", *ticket, again[0], "--out", "TABLE.safetensors"
    served = _ticket(run, first)["table"]["dtype"]
    if base.is_dir() and open_table(base).dtype != served:
        return "certify", "model", "import", again[0], "--dtype", served.lower(), "--out", "MODEL"
    return "certify", "apply", *ticket, *again, "--out", "MERGED"


def _ticket(run: Mapping[str, Any], first: Any) -> Mapping[str, Any]:
    report = next(one for one in run["reports"] if one["file"] == first.file)
    ticket: Mapping[str, Any] = next(one for one in report["tickets"] if one["id"] == first.id)
    return ticket


def _power(run: Mapping[str, Any], first: Any) -> Sequence[str]:
    """The command that plans for what was not shown: at the same error probability, from its text and one of
    each other role."""
    report = next(one for one in run["reports"] if one["file"] == first.file)
    ticket = _ticket(run, first)
    asked = (one for one in ticket["claims"] if first.item in one["items"])
    claim = max(asked, key=lambda one: one["code"] == first.code)
    manifests = sorted(ticket["certificate"]["evidence"], key=lambda one: one["text"] == claim["text"])
    paths = {one["role"]: str(Path(first.file).parent / one["path"]) for one in manifests}
    named = ("--policy", report["policy_file"] or report["policy"], "--ticket", f"{first.file}#{first.id}")
    evidence = (word for path in paths.values() for word in ("--evidence", path))
    return "certify", "power", *named, "--delta", claim["delta"], *evidence
