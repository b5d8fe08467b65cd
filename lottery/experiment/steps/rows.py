"""Steps that choose rows and write tickets: selections, null tickets, random directions, the ticket file."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certify.base.records import Excluded
from certify.gate.calibrate import calibrate
from certify.scan.scan import scan
from certify.selection.frequency import read_counts, write_counts
from certify.selection.nulls import named, null_tickets
from certify.selection.rules import languages, select
from certify.tables.rowfile import transferred_rows, write_rows
from certify.tables.table import open_table
from certify.ticket.declared import DeclaredClaim
from certify.ticket.make import AUTHOR_EXCLUSION, find
from certify.ticket.schema import read_ticket_file
from certify.ticket.templates import load_template
from lottery.controls.direction import random_direction
from lottery.experiment.engine.context import (
    ROWS,
    SELECTION,
    RunContext,
    procedure,
    reference_file,
    tuned_result,
)
from lottery.experiment.engine.graph import Result, Void, Work
from lottery.experiment.plan.fields import rows_of_share
from lottery.experiment.steps.tuning import data_of
from lottery.model.tokenizer import load_tokenizer, serving_fed, serving_probe
from lottery.text.tunedata import feed_counts, prepare

COUNTS, NULLS = "counts.npy", "nulls.json"
TICKETS = "bundle/tickets.json"


@procedure("select")
def choose(context: RunContext, work: Work) -> Result:
    """Select the rows of a ticket: ``selection.json``, and the rows of E* if there are any."""
    p = work.parameters
    base, reference, vocabulary = context.tables(work)
    rule = _rule(p, base.shape[0])
    selection = select(
        scan(base, reference),
        rule=rule,
        alpha=p["alpha"],
        correction=p["correction"],
        vocabulary=vocabulary,
        exclude=[Excluded(AUTHOR_EXCLUSION, tuple(p["exclude"]))] if p["exclude"] else (),
        counts=_counts(context, work, rule, base.shape[0]),
        seed=p["seed"] if rule.startswith("random:") else None,
    )
    record: dict[str, Any] = {"ids": list(selection.ids), "rule": selection.rule, "alpha": selection.alpha}
    record |= {"correction": selection.correction, "h_alpha": selection.h_alpha, "rows": base.shape[0]}
    work.write(SELECTION, record)
    outputs = [SELECTION]
    if selection.ids:
        write_rows(work.folder / ROWS, transferred_rows(selection.ids, reference))
        outputs.append(ROWS)
    return Result(tuple(outputs), {"rows": len(selection.ids)})


def _counts(context: RunContext, work: Work, rule: str, rows: int) -> NDArray[np.int64] | None:
    """Token counts for a rule that needs them: of the tuning text, or of what the template feeds."""
    if rule.startswith("frequency:"):
        return read_counts(work.inputs["counts"].path(COUNTS), rows)
    if rule.startswith("template:"):
        template = load_template(work.parameters["template"])
        return serving_fed(context.base_folder(work), template, *languages(rule), rows, None)
    return None


@procedure("counts")
def count_fed(context: RunContext, work: Work) -> Result:
    """Count how often each id is fed in the tuning examples: ``counts.npy``."""
    folder = context.base_folder(work)
    examples = prepare(data_of(context, work), load_tokenizer(folder)).train
    write_counts(work.folder / COUNTS, feed_counts(examples, open_table(folder).shape[0]))
    return Result((COUNTS,), {"examples": len(examples), "tokens": sum(map(len, examples))})


@procedure("nulls")
def draw_nulls(context: RunContext, work: Work) -> Result:
    """Draw the null tickets of the selection in role ``select``: ``nulls.json``.

    Raises:
        Void: the selection has no rows.
    """
    p = work.parameters
    ids = work.inputs["select"].json(SELECTION)["ids"]
    if not ids:
        raise Void("no row was selected: there is nothing to draw null tickets for")
    base, reference, vocabulary = context.tables(work)
    counts = read_counts(work.inputs["counts"].path(COUNTS), base.shape[0])
    moved = scan(base, reference)
    drawing = {"seed": p["null_seed"], "draws": p["draws"]}
    nulls = null_tickets(ids, moved, vocabulary=vocabulary, counts=counts, **drawing)
    found = {name: asdict(null) | {"ids": list(null.ids)} for name, null in named(nulls).items()}
    work.write(NULLS, found)
    return Result((NULLS,), {"nulls": len(found)})


@procedure("null")
def take_null(context: RunContext, work: Work) -> Result:
    """Turn one of the drawn null tickets into a selection with the rows of E*.

    Raises:
        Void: this tokenizer has no such null ticket.
    """
    drawn = work.inputs["nulls"].json(NULLS)
    name = work.parameters["name"]
    if name not in drawn:
        raise Void(f"the tokenizer has no token for {name}")
    _, reference, _ = context.tables(work)
    work.write(SELECTION, drawn[name])
    write_rows(work.folder / ROWS, transferred_rows(drawn[name]["ids"], reference))
    return Result((SELECTION, ROWS), {"rows": len(drawn[name]["ids"])})


@procedure("direction")
def turn_rows(context: RunContext, work: Work) -> Result:
    """Shift the rows of a selection as far as in E*, in a random direction.

    Raises:
        Void: the selection has no rows.
    """
    ids = work.inputs["select"].json(SELECTION)["ids"]
    if not ids:
        raise Void("no row was selected: nothing can be shifted")
    base, reference, _ = context.tables(work)
    direction = random_direction(ids, base, reference, seed=work.parameters["seed"])
    record = {"ids": list(ids), "rule": "direction", "seed": direction.seed}
    work.write(SELECTION, record | {"deviation": f"{direction.deviation:.3g}"})
    write_rows(work.folder / ROWS, direction.rows)
    return Result((SELECTION, ROWS), {"rows": len(ids)})


@procedure("tickets", collects=True)
def write_tickets(context: RunContext, work: Work) -> Result:
    """Write the ticket file with tables, tokenizer, rows and declared claims: one ticket per id and object.

    The parameter ``tickets`` lists ``{id, role, tuned, ...}``: ``role`` names the input that selected the
    rows, ``tuned`` the one that trained them; it is None for a transfer. Tickets without rows are left out.

    Raises:
        Void: no ticket has rows.
    """
    p = work.parameters
    out = work.folder / TICKETS
    shutil.rmtree(out.parent, ignore_errors=True)
    base = context.base_folder(work)
    written = []
    for entry in p["tickets"]:
        chosen = work.inputs[entry["role"]]
        tuned = None if entry["tuned"] is None else work.inputs[entry["tuned"]]
        if chosen.void or (tuned is not None and tuned.void):
            continue
        record = chosen.json(SELECTION)
        if not record["ids"]:
            continue
        rule = _rule(entry, record["rows"])
        find(
            base,
            reference_file(work),
            out=out,
            ticket_id=entry["id"],
            rule=rule,
            alpha=entry["alpha"],
            correction=entry["correction"],
            dtype=p["served_dtype"],
            exclude=entry["exclude"],
            counts=work.inputs["counts"].path(COUNTS) if rule.startswith("frequency:") else None,
            seed=entry["seed"] if rule.startswith("random:") else None,
            template=p["template"],
            declared=[DeclaredClaim.model_validate(claim) for claim in entry["declared"]],
            extraction=entry.get("extraction"),
            tuned_rows=None if tuned is None else tuned_result(tuned)[0],
            bundle=bool(p["bundle"]),
            base_elsewhere=p["bundle"] == "base-elsewhere",
            probe=serving_probe,
            fed=serving_fed,
        )
        written.append(entry["id"])
    if not written:
        raise Void("no ticket of the plan has rows")
    return Result((out.parent.name,), {"tickets": written})


@procedure("calibrate")
def calibrate_tickets(context: RunContext, work: Work) -> Result:
    """Write the tickets again, each declaring the lowest margin that the choice text supports, if any."""
    asked = work.parameters["asked"]
    out, data = work.folder / TICKETS, work.inputs["evidence"].path(f"{asked['text']}.json")
    shutil.rmtree(out.parent, ignore_errors=True)
    shutil.copytree(work.inputs["tickets"].path(out.parent.name), out.parent)
    bundled = work.parameters["bundle"]
    base = None if bundled is True else context.base_folder(work)
    reference = None if bundled else reference_file(work)
    chosen = {
        ticket.id: calibrate(
            out,
            data,
            alpha=asked["alpha"],
            delta=asked["delta"],
            ticket_id=ticket.id,
            base=base,
            reference=reference,
            tokenizer=base,
        ).chosen
        for ticket in read_ticket_file(out).tickets
    }
    return Result((out.parent.name,), {"margins": chosen})


def _rule(entry: Any, rows: int) -> str:
    """Return the rule of a ticket; a share becomes ``distance:K``."""
    if entry["share"] is None:
        return str(entry["rule"])
    return f"distance:{rows_of_share(rows, entry['share'])}"
