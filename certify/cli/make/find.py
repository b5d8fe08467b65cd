"""``certify find``: select rows and write them as a ticket."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certify.cli import options
from certify.cli.registry import FED, PROBE, RENDERERS, load

if TYPE_CHECKING:
    from certify.ticket.make import Found


def find(
    base: options.Base,
    tuned: options.Tuned,
    ticket_id: Annotated[str, typer.Option("--id", help="Name of the ticket within the file.")],
    out: Annotated[
        Path, typer.Option("--out", help="Ticket file to create or extend; rows are written beside it.")
    ] = Path("tickets.json"),
    rule: Annotated[
        str,
        typer.Option(
            "--rule",
            help="ks, distance:K, norm:K, frequency:K, template:PAIR (as en-ca), random:K, ids:1,2,3,"
            " published:PAIR.",
        ),
    ] = "ks",
    alpha: Annotated[str, typer.Option("--alpha", help="Level of the test, as a decimal.")] = "0.05",
    correction: options.Correction = "none",
    method: options.Method = "exact",
    served_dtype: options.ServedDtype = None,
    tensor: options.Tensor = None,
    tuned_tensor: options.TunedTensor = None,
    tokenizer: options.Tokenizer = None,
    exclude_ids: Annotated[
        str,
        typer.Option(
            "--exclude-ids", help="Token ids never to select, comma-separated; reported as your choice."
        ),
    ] = "",
    counts: Annotated[
        Path | None,
        typer.Option("--counts", help="For frequency:K: token counts (.npy, from certify count)."),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="For random:K: seed of the draw.")] = None,
    template: Annotated[
        str | None,
        typer.Option("--template", help="Prompt template used in tuning: a shipped name or a .toml file."),
    ] = None,
    extraction: Annotated[
        str | None,
        typer.Option(
            "--extraction",
            help="Rule under which quality is judged, for the ticket to declare: whole (default), first-line"
            " or cut.",
        ),
    ] = None,
    tuned_rows: Annotated[
        Path | None,
        typer.Option(
            "--tuned-rows", help="Rows to release instead of the tuned table's, from partial tuning."
        ),
    ] = None,
    bundle: Annotated[
        bool,
        typer.Option(
            "--bundle", help="Copy the tables and the tokenizer beside the ticket, to ship together."
        ),
    ] = False,
    base_elsewhere: Annotated[
        bool,
        typer.Option(
            "--base-elsewhere", help="With --bundle: leave out the base; whoever checks names it with --base."
        ),
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite a ticket of the same name.")] = False,
    guarantee: Annotated[
        str | None,
        typer.Option(
            "--guarantee",
            metavar="GOAL",
            help="Choose among evaluated tickets: agreement:A, token-agreement:A or non-inferiority:POINTS.",
        ),
    ] = None,
    evidence: Annotated[
        Path | None,
        typer.Option(
            "--evidence", metavar="NAME.json", help="With --guarantee: evidence about the candidates."
        ),
    ] = None,
    delta: Annotated[
        str, typer.Option("--delta", help="With --guarantee: error probability of the choice.")
    ] = "0.05",
    allow_tied: options.AllowTied = False,
    engine: options.Engine = "auto",
    workers: options.Workers = None,
) -> int:
    """Select the rows that moved and write them as a ticket that anyone can check.

    With --guarantee, choose the smallest ticket in the evidence that is shown to
    be good enough (Learn then Test). The exit code is 3 if none is.
    """
    from certify.base.errors import ExitCode, UsageError
    from certify.base.records import RULES
    from certify.cli.shell import console, progress_bar, surviving_closed_pipe
    from certify.tables.dtypes import parse_dtype
    from certify.ticket.make import find as run_find

    render = load(RENDERERS["find"])
    if extraction not in (None, *RULES):
        raise UsageError(f"--extraction is {', '.join(RULES)}, not {extraction!r}", code="USAGE")
    if base_elsewhere and not bundle:
        raise UsageError("--base-elsewhere requires --bundle", code="USAGE")
    try:
        exclude = [int(word) for word in exclude_ids.split(",") if word.strip()]
    except ValueError as error:
        raise UsageError(f"--exclude-ids takes integers, not {exclude_ids!r}") from error
    settings: dict[str, Any] = {
        "out": out,
        "ticket_id": ticket_id,
        "alpha": alpha,
        "correction": correction,
        "method": method,
        "dtype": None if served_dtype is None else parse_dtype(served_dtype),
        "tensor": tensor,
        "tuned_tensor": tuned_tensor,
        "tokenizer": tokenizer,
        "template": template,
        "extraction": extraction,
        "bundle": bundle,
        "base_elsewhere": base_elsewhere,
        "replace": replace,
        "allow_tied": allow_tied,
        "engine": engine,
        "workers": workers,
        "probe": load(PROBE),
    }
    found: Found | None
    if guarantee is None:
        if evidence is not None:
            raise UsageError("--evidence requires --guarantee", code="USAGE")
        with progress_bar("scanning") as progress:
            found = run_find(
                base,
                tuned,
                rule=rule,
                exclude=exclude,
                counts=counts,
                seed=seed,
                tuned_rows=tuned_rows,
                progress=progress,
                fed=load(FED),
                **settings,
            )
    else:
        if rule != "ks" or exclude or counts or seed is not None or tuned_rows:
            raise UsageError(
                "--guarantee chooses among evaluated tickets: --rule, --exclude-ids, --counts, --seed and"
                " --tuned-rows do not combine with it",
                code="USAGE",
            )
        found = _guaranteed(base, tuned, evidence, guarantee, delta, settings)
        if found is None:
            return int(ExitCode.INCONCLUSIVE)
    with surviving_closed_pipe():
        bound = (tokenizer or base) if found.ticket.tokenizer else None
        render(found, console(), inputs=options.beside(base, tuned, bound))
    return int(ExitCode.CERTIFIED)


def _guaranteed(
    base: Path, tuned: Path, evidence: Path | None, goal: str, delta: str, settings: dict[str, Any]
) -> Found | None:
    from certify.base.errors import UsageError
    from certify.base.text import counted, escape
    from certify.cli.numbers import level
    from certify.cli.shell import emit, progress_bar
    from certify.gate.choose import parse_goal
    from certify.gate.find import find_guaranteed

    if evidence is None:
        raise UsageError("--guarantee requires --evidence NAME.json", code="USAGE")
    with progress_bar("scanning") as progress:
        result = find_guaranteed(
            base,
            tuned,
            evidence,
            parse_goal(goal),
            delta=level("--delta", delta),
            progress=progress,
            **settings,
        )
    lines = [f"{goal} with error probability {delta}, from the largest ticket to the smallest:"]
    for one in result.choice.tested:
        shown = f"estimate {float(one.limit.estimate):.4f}, at least {float(one.limit.value):.4f}"
        answer = "good enough" if one.good else "not shown to be good enough, testing stops here"
        lines.append(f"  {one.arm.name} ({counted(len(one.arm.ids or ()), 'row')}): {shown}: {answer}")
    for arm in result.choice.candidates[len(result.choice.tested) :]:
        lines.append(f"  {arm.name} ({counted(len(arm.ids or ()), 'row')}): not tested")
    if result.found is None:
        lines.append("no ticket is shown to be good enough; none is written")
    lines.append(f"record of the choice: {result.record}")
    emit("".join(escape(line) + "\n" for line in lines), None)
    return result.found
