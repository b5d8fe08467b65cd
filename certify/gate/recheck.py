"""Re-checking one ticket: the scan, the selection, the released rows, the premise, the blind spots.

Each function answers one question with one :class:`~certify.base.verdict.Item`. Nothing in the ticket is
believed: what it states is recomputed from the tables and compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from certify.base.errors import CertifyError, InvalidInputError
from certify.base.files import inside
from certify.base.records import BoolColumn, FloatColumn, KSResult, Selection
from certify.base.text import counted
from certify.base.verdict import Item, Outcome
from certify.gate import integrity
from certify.gate.session import Session
from certify.scan.smirnov import critical_count
from certify.selection.frequency import read_counts
from certify.selection.rules import TOGETHER, languages, select
from certify.tables.dtypes import to_float32
from certify.tables.rowfile import Rows
from certify.tables.table import Table, check_compatible
from certify.tables.vocabulary import Vocabulary
from certify.ticket.make import AUTHOR_EXCLUSION, selection_ref
from certify.ticket.released import Source, check_files, equal_rows, shown
from certify.ticket.schema import SelectionRef, Ticket
from certify.ticket.templates import Fed

COSINE_FLOOR = 0.2
"""A row outside the ticket whose cosine is below this counts as a blind spot (theory §2)."""

STILL, FAR = 64, 0.5
"""A row with D at most 1/64 (or h = 1) that moved by half its norm is treated as permuted.

At the widths of language models, noise that moves a row so far moves D further. No level of the ticket has a
say in either: an author could set it so that a row is not looked at.
"""

_TOLERANCE = 1e-9
"""How far a stated float may lie from the recomputed one; h is exact, and so is p under the exact law.

Roots, exponentials and logarithms differ in the last digits between machines. The independent checker has the
same tolerance, and does not contradict this program at its edge.
"""

_SHOWN_IDS = 8


# What needs both tables, in the order of the report.
_ON_TABLES = (
    "selection.parameters",
    "selection.ids",
    "selection.figures",
    "released.rows",
    "blind-spots.order",
    "blind-spots.direction",
    "premise.published",
)


@dataclass(frozen=True, slots=True)
class Premise:
    """The published premise: every row outside the ticket has D <= tau (theory §3).

    Attributes:
        holds: whether it does, decided exactly.
        h_max: largest count outside the ticket.
        id_max: row where it occurs (smallest id), or None if every row is in the ticket.
        ids: rows outside the ticket with D > tau.
    """

    holds: bool
    h_max: int
    id_max: int | None
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Inputs:
    """Where to read what a ticket does not carry, and what this run has read already."""

    folder: Path
    base: Path | None = None
    reference: Path | None = None
    tokenizer: Path | None = None
    session: Session = field(default_factory=Session)
    fed: Fed | None = None


@dataclass(frozen=True, slots=True)
class Rechecked:
    """All items of one ticket, and what was recomputed on the way (None where it could not be).

    ``base``, ``reference``, ``rows`` and ``vocabulary`` (None too if the ticket binds no tokenizer) come only
    with a ``result``: they are what the ticket says.
    """

    items: tuple[Item, ...]
    result: KSResult | None
    premise: Premise | None
    base: Table | None = None
    reference: Table | None = None
    rows: Rows | None = None
    vocabulary: Vocabulary | None = None


def recheck(ticket: Ticket, inputs: Inputs) -> Rechecked:
    """Run every check that needs no evidence on ``ticket``."""
    source, session = Source(ticket, inputs.folder), inputs.session
    integrity.read_ahead(source, inputs.base, inputs.reference, session)
    base, base_item = integrity.table(source, "base", inputs.base, session)
    reference, reference_item = integrity.table(source, "reference", inputs.reference, session, base)
    vocabulary, tokenizer_item = integrity.tokenizer(source, inputs.tokenizer, session)
    rows, rows_item = integrity.rows(source)
    template_item = integrity.template(source, session)
    items = [base_item, reference_item, tokenizer_item, template_item, rows_item, _content(ticket)]
    if base is None or reference is None or tokenizer_item.outcome not in (Outcome.PASS, Outcome.UNBOUND):
        items += _not_run(_ON_TABLES, "an input is missing or invalid")
        return Rechecked(tuple(items), None, None)
    try:
        check_compatible(base, reference)
        result = session.scan(base, reference, ticket.selection.method)
        chosen = _select_again(ticket, result, vocabulary, inputs)
    except CertifyError as error:
        items.append(integrity.refused("selection.parameters", error))
        items += _not_run(_ON_TABLES[1:], "the selection is invalid")
        return Rechecked(tuple(items), None, None)
    premise = find_premise(result, ticket.ids, ticket.selection.alpha)
    items += [
        _parameters(ticket.selection, chosen),
        _ids(ticket, chosen),
        _figures(ticket, result, vocabulary),
        _released(ticket, rows, base, reference),
        _order(ticket, result, base),
        _direction(ticket, result),
        _premise(premise, result),
    ]
    return Rechecked(tuple(items), result, premise, base, reference, rows, vocabulary)


def _not_run(names: Sequence[str], why: str) -> list[Item]:
    return [Item(name, Outcome.NOT_RUN, "NOT_RUN", f"not run: {why}") for name in names]


def find_premise(result: KSResult, ids: Sequence[int], alpha: str) -> Premise:
    """Evaluate the published premise max_{i not in T} D_i <= tau(alpha), specials included (theory §3).

    Decided on integers: ``D > tau`` holds exactly for the counts from the asymptotic critical count on.
    """
    outside = np.ones(result.rows, dtype=bool)
    outside[list(ids)] = False
    if not outside.any():
        return Premise(True, 0, None, ())
    h = np.where(outside, result.h, -1)
    top = int(np.argmax(h))
    above = np.flatnonzero(h >= critical_count(alpha, result.n, "asymptotic"))
    return Premise(above.size == 0, int(h[top]), top, tuple(above.tolist()))


def _content(ticket: Ticket) -> Item:
    if not ticket.tokens:
        return Item(
            "selection.content",
            Outcome.VACUOUS,
            "EMPTY_TICKET",
            "the ticket holds no row: it is the base model",
        )
    share = len(ticket.tokens) / ticket.base.shape[0]
    return Item(
        "selection.content",
        Outcome.PASS,
        "NON_EMPTY",
        f"{counted(len(ticket.tokens), 'row')}, {share:.2%} of the table",
    )


def _select_again(
    ticket: Ticket, result: KSResult, vocabulary: Vocabulary | None, inputs: Inputs
) -> Selection:
    ref = ticket.selection
    counts = None
    if ref.counts is not None:
        check_files(inputs.folder, (ref.counts,), inputs.session.file_digest)
        counts = read_counts(inside(inputs.folder, ref.counts.path, ref.counts.sha256), result.rows)
        _check_fed(ticket, counts, vocabulary, inputs)
    author = [group for group in ref.groups if group.reason == AUTHOR_EXCLUSION]
    return select(
        result,
        rule=ref.rule,
        alpha=ref.alpha,
        correction=ref.correction,
        vocabulary=vocabulary,
        exclude=author,
        counts=counts,
        seed=ref.seed,
        together=any(group.reason.startswith(TOGETHER) for group in ref.excluded),
    )


def _check_fed(
    ticket: Ticket, counts: NDArray[np.int64], vocabulary: Vocabulary | None, inputs: Inputs
) -> None:
    """Make the counts of rule ``template`` again, where a tokenizer can be loaded, and compare."""
    rule, ref = ticket.selection.rule, ticket.template
    if not rule.startswith("template:") or ref is None or vocabulary is None or inputs.fed is None:
        return
    session, fed, home = inputs.session, inputs.fed, vocabulary.path.parent
    template = session.template(ref.name if ref.path is None else inside(inputs.folder, ref.path))
    stated = None if ticket.tokenizer is None else ticket.tokenizer.probe_sha256
    asked = *languages(rule), counts.size, stated
    made = session.once(("fed", home, template.digest(), asked), lambda: fed(home, template, *asked))
    if made is not None and not np.array_equal(made, counts):
        raise InvalidInputError(
            "the counts are not those of what the tokenizer makes of the template", code="TEMPLATE_COUNTS"
        )


def _parameters(stated: SelectionRef, chosen: Selection) -> Item:
    name = "selection.parameters"
    again = selection_ref(chosen, stated.counts)
    # tau is for display: it may differ in the last digit between mathematical libraries.
    close = math.isclose(stated.tau, again.tau, rel_tol=_TOLERANCE)
    if close:
        again = again.model_copy(update={"tau": stated.tau})
    if stated.groups == again.groups:  # version 1 has no runs
        again = again.model_copy(update={"excluded": stated.excluded})
    wrong = [key for key in SelectionRef.model_fields if getattr(stated, key) != getattr(again, key)]
    if wrong:
        return Item(
            name,
            Outcome.FAIL,
            "SELECTION_PARAMETERS",
            "recomputed differently from what the ticket states: " + ", ".join(wrong),
        )
    tested = counted(stated.tests, "row")
    text = f"n = {stated.n}, {tested} tested, h_alpha = {stated.h_alpha}, tau = {stated.tau:.5f}"
    return Item(name, Outcome.PASS, "RECOMPUTED", text)


def _ids(ticket: Ticket, chosen: Selection) -> Item:
    stated, again = set(ticket.ids), set(chosen.ids)
    if stated == again:
        text = f"the rule {ticket.selection.rule} selects exactly {counted(len(again), 'row')}, these"
        left_out = sum(len(g.ids) for g in ticket.selection.groups if g.reason == AUTHOR_EXCLUSION)
        if left_out:
            text += f", after {left_out} that the author left out"
        return Item("selection.ids", Outcome.PASS, "RECOMPUTED", text)
    extra, lacking = sorted(stated - again), sorted(again - stated)
    parts = []
    if extra:
        parts.append(f"in the ticket but not selected: {_ids_text(extra)}")
    if lacking:
        parts.append(f"selected but not in the ticket: {_ids_text(lacking)}")
    return Item("selection.ids", Outcome.FAIL, "SELECTION_IDS", "; ".join(parts), ids=tuple(extra + lacking))


def _figures(ticket: Ticket, result: KSResult, vocabulary: Vocabulary | None) -> Item:
    stated, ids = ticket.tokens, np.array(ticket.ids, np.intp)
    pieces = [vocabulary.piece(token.id) if vocabulary else None for token in stated]
    p, again = np.array([token.p for token in stated]), result.p[ids]
    # The exact law is integer arithmetic with one rounding; the asymptotic one goes through exp.
    same = p == again if result.method == "exact" else _close(p, again)
    same &= np.array([token.piece for token in stated], object) == np.array(pieces, object)
    same &= np.array([token.h for token in stated], np.int64) == result.h[ids]
    same &= _close(np.array([token.log10_p for token in stated]), result.log10_p[ids], _TOLERANCE)
    same &= _close(np.array([token.shift_norm for token in stated]), result.shift_norm[ids])
    wrong = ids[~same].tolist()
    if wrong:
        return Item(
            "selection.figures",
            Outcome.FAIL,
            "TOKEN_FIGURES",
            f"piece, h, p or shift differ from the recomputed ones for {_ids_text(wrong)}",
            ids=tuple(wrong),
        )
    return Item(
        "selection.figures", Outcome.PASS, "RECOMPUTED", "piece, h, p and shift of every row as stated"
    )


def _close(a: FloatColumn, b: FloatColumn, absolute: float = 1e-300) -> BoolColumn:
    """As :func:`math.isclose`, elementwise; with a relative tolerance of :data:`_TOLERANCE`."""
    bound = np.maximum(_TOLERANCE * np.maximum(np.abs(a), np.abs(b)), absolute)
    close: BoolColumn = np.abs(a - b) <= bound
    return close


def _released(ticket: Ticket, rows: Rows | None, base: Table, reference: Table) -> Item:
    name = "released.rows"
    if rows is None:
        return Item(name, Outcome.NOT_RUN, "NOT_RUN", "not run: there are no valid rows")
    ids = ticket.ids
    if ticket.released.object == "tuned":
        if ids and equal_rows(rows, base).all():
            text = "released as tuned, but every row is the base's, bit for bit"
            return Item(name, Outcome.FAIL, "ROWS_UNMOVED", text, ids=ids)
        if ids and equal_rows(rows, reference).all():
            text = "released as tuned, but every row is the reference's, bit for bit: it is a transfer"
            return Item(name, Outcome.PASS, "ROWS_ARE_REFERENCE", text)
        text = "rows tuned on their own: bound by digest, not derivable from the tables"
        return Item(name, Outcome.PASS, "TUNED_ROWS", text)
    differs = ~equal_rows(rows, reference)
    wrong = rows.ids[differs].tolist()
    if not wrong:
        text = "every released row is the reference's row, bit for bit"
        return Item(name, Outcome.PASS, "ROWS_ARE_REFERENCE", text)
    inverted = rows.ids[differs & equal_rows(rows, base)].tolist()
    if inverted:
        return Item(
            name,
            Outcome.FAIL,
            "DIRECTION_INVERTED",
            f"the released rows are the base's, not the reference's: {_ids_text(inverted)}",
            "the transfer ran in the wrong direction",
            ids=tuple(inverted),
        )
    text = f"released rows differ from the reference: {_ids_text(wrong)}"
    return Item(name, Outcome.FAIL, "ROWS_NOT_REFERENCE", text, ids=tuple(wrong))


def _order(ticket: Ticket, result: KSResult, base: Table) -> Item:
    # One nudged entry hides a permutation from a test for D = 0, but not that the row moved far.
    far = ~result.equal & (result.h <= max(1, result.n // STILL))
    ids = np.flatnonzero(far)
    for some in np.array_split(ids, 1 + ids.size // 1024):
        rows = to_float32(base.take(some.tolist()), base.dtype).astype(np.float64)
        far[some] = result.shift_norm[some] >= FAR * np.linalg.norm(rows, axis=1)
    found = _outside(ticket, result.permuted | far)
    if found:
        return Item(
            "blind-spots.order",
            Outcome.FAIL,
            "PERMUTED_ROW",
            f"moved far, but with D at most 1/{STILL}, as if entries had changed places: {_ids_text(found)}",
            ids=found,
        )
    text = "no row outside the ticket was merely permuted"
    return Item("blind-spots.order", Outcome.PASS, "NO_PERMUTED_ROW", text)


def _direction(ticket: Ticket, result: KSResult) -> Item:
    # A permuted row is already named by the check of the order.
    found = _outside(ticket, (result.cosine < COSINE_FLOOR) & ~result.permuted)
    if found:
        return Item(
            "blind-spots.direction",
            Outcome.FAIL,
            "ROTATED_ROW",
            f"left out although its cosine is below {COSINE_FLOOR}: {_ids_text(found)}",
            ids=found,
        )
    text = f"no row outside the ticket has a cosine below {COSINE_FLOOR}"
    return Item("blind-spots.direction", Outcome.PASS, "NO_ROTATED_ROW", text)


def _premise(premise: Premise, result: KSResult) -> Item:
    name = "premise.published"
    if premise.id_max is None:
        return Item(name, Outcome.PASS, "PREMISE_HOLDS", "every row is in the ticket")
    largest = f"largest D outside the ticket {premise.h_max}/{result.n} = {premise.h_max / result.n:.4f}"
    if premise.holds:
        return Item(name, Outcome.PASS, "PREMISE_HOLDS", f"{largest} (id {premise.id_max}) is not above tau")
    text = f"{largest}; rows outside the ticket with D > tau: {_ids_text(premise.ids)}"
    return Item(
        name, Outcome.FAIL, "PREMISE_FAILED", text, "the published criterion does not apply", ids=premise.ids
    )


def _outside(ticket: Ticket, mask: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> tuple[int, ...]:
    outside = mask.copy()
    outside[list(ticket.ids)] = False
    return tuple(np.flatnonzero(outside).tolist())


def _ids_text(ids: Sequence[int]) -> str:
    return f"id{'s' if len(ids) > 1 else ''} {shown(list(ids), _SHOWN_IDS)}"
