"""``certify mechanism``: why these rows? What feeds them, how far they moved, the attention they get."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from certify.cli import options
from certify.cli.use import interop
from lottery.cli.options import ParallelText, PromptTemplate, SentenceLimit, SourceLanguage, TargetLanguage


def mechanism(
    ticket: interop.TicketSpec,
    base: Annotated[Path, typer.Option(help="Checkpoint folder of the base.")],
    data: ParallelText,
    source: SourceLanguage,
    target: TargetLanguage,
    template: PromptTemplate,
    reference: options.BesideReference = None,
    limit: SentenceLimit = 100,
    report_format: Annotated[
        Literal["terminal", "json", "csv"], typer.Option("--format", help="Output format.")
    ] = "terminal",
) -> None:
    """Show why a ticket has its rows: what feeds them, how far they moved, the attention they get.

    Beside them, the means of the other rows that the text feeds: special tokens, those of the template, and
    the rest. Attention mass is the share of attention that later positions give to a position of the row:
    with the base, with the released rows, and if attention were uniform.
    """
    import numpy as np

    from certify.base.errors import NothingToDoError
    from certify.cli.shell import emit, needs_extra, progress_bar
    from certify.scan.scan import scan
    from certify.selection.rules import candidates
    from certify.tables.vocabulary import open_vocabulary
    from certify.ticket.released import open_source
    from certify.ticket.templates import fed_counts, load_template
    from lottery.cli.opportunity import read_text

    with needs_extra("measuring attention"):
        from lottery.controls.mechanism import (
            attention_mass,
            comparison,
            distances,
            mean_by_row,
            mean_known,
            uniform_mass,
        )
        from lottery.evaluation.arms import open_evaluation
        from lottery.model.row_swap import placed

    named = open_source(ticket).ticket
    opened = open_evaluation(str(base), reference=reference, tickets=[ticket])
    rows, vocabulary = opened.base.shape[0], open_vocabulary(base)
    special = ~candidates(rows, vocabulary)
    tokenizer, examples, control = read_text(named, base, data, (source, target), template, limit)
    if not examples:
        raise NothingToDoError(f"{data}: every sentence holds a control token", code="NO_PROMPTS")
    sequences = [example.ids[:-1] for example in examples]  # the last token of a response is never fed
    fed = np.bincount([i for ids in sequences for i in ids], minlength=rows)
    by_template = fed_counts(load_template(template), tokenizer, source, target, rows)
    masses = {"uniform": [uniform_mass(len(ids)) for ids in sequences]}
    for name, placement in zip(("base", "released"), opened.placements[1:], strict=True):
        with (
            placed(opened.model, placement, opened.dtype) as ready,
            progress_bar(f"attention, {name}", "sentences") as progress,
        ):
            masses[name] = attention_mass(ready.model, sequences, progress=progress)
    columns = {"fed": fed / len(sequences)} | distances(scan(opened.base, opened.reference), opened.base)
    columns |= {f"mass_{name}": mean_by_row(sequences, mass, rows) for name, mass in masses.items()}
    facts: dict[str, Any] = {
        "ticket": named.id,
        "sentences": len(sequences),
        "control": control,
        "rows": [
            {
                "id": i,
                "piece": vocabulary.piece(i) or "",
                "special": i in vocabulary.special,
                "template": bool(by_template[i] > 0),
            }
            | {name: mean_known(column[[i]]) for name, column in columns.items()}
            for i in named.ids
        ],
        "comparison": [
            {"name": name, "rows": int(group.sum())}
            | {column: mean_known(values[group]) for column, values in columns.items()}
            for name, group in comparison(named.ids, fed, by_template, special).items()
        ],
    }
    if report_format == "csv":
        emit(_csv(facts["rows"]), None)
        return
    following = interop.evaluation(ticket, base, data, source, target, template)
    interop.show(_lines(facts), facts, report_format, *following)


def _csv(rows: list[dict[str, Any]]) -> str:
    """The ticket's rows alone; pieces as in the file of a scan."""
    import csv
    import io

    from certify.scan.scanfile import cell

    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, [*rows[0]], lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writeheader()
    writer.writerows(row | {"piece": cell(row["piece"])} for row in rows)
    return buffer.getvalue()


_COLUMNS = {
    "fed": "{:.2f}",
    "D": "{:.4f}",
    "rank": "{:.0f}",
    "shift": "{:.4f}",
    "cosine": "{:.4f}",
    "mass_uniform": "{:.2%}",
    "mass_base": "{:.2%}",
    "mass_released": "{:.2%}",
}


def _lines(facts: dict[str, Any]) -> list[str]:
    from certify.base.text import escape

    control = f" ({facts['control']} left out, holding a control token)" if facts["control"] else ""
    heads = "".join(f"{name.replace('mass_', ''):>10}" for name in _COLUMNS)
    lines = [
        f"{facts['sentences']} sentences{control}; fed: times per sentence; shift: in norms of the row;"
        " uniform, base, released: attention mass",
        f"{'id':>8}  {'piece':<16} {'fed by':<8}{heads}",
    ]
    for row in facts["rows"]:
        origin = next(
            (name for name in ("special", "template") if row[name]), "text" if row["fed"] else "none"
        )
        lines.append(f"{row['id']:>8}  {escape(row['piece'], limit=16):<16} {origin:<8}{_cells(row)}")
    for group in facts["comparison"]:
        lines.append(f"{group['rows']:>8}  {group['name']:<25}{_cells(group)}")
    return lines


def _cells(row: dict[str, Any]) -> str:
    return "".join(
        f"{'–' if row[name] is None else shape.format(row[name]):>10}" for name, shape in _COLUMNS.items()
    )
