"""Make a ticket: scan two tables, select rows, write the rows and the ticket file (``certify find``)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from certify.base.errors import InvalidInputError, UsageError
from certify.base.jsonio import sha256_bytes, sha256_file, write_bytes
from certify.base.model import SLUG, BoundFile
from certify.base.records import Correction, Dtype, Engine, Excluded, KSResult, Method, Rule, Selection
from certify.base.staging import changing
from certify.base.version import __version__
from certify.scan.scan import scan
from certify.scan.smirnov import parse_alpha
from certify.selection.frequency import read_counts, write_counts
from certify.selection.rules import languages, select
from certify.tables.rowfile import Rows, make_rows, read_rows, transferred_rows, write_rows
from certify.tables.table import Table, check_compatible, open_table
from certify.tables.tokenisation import Probe
from certify.tables.vocabulary import Vocabulary, open_vocabulary
from certify.ticket.bundle import (
    bundle_counts,
    bundle_tables,
    source_ref,
    table_ref,
    template_ref,
    tokenizer_ref,
)
from certify.ticket.declared import DeclaredClaim
from certify.ticket.released import OpenTable
from certify.ticket.schema import (
    ExcludedRef,
    Released,
    RowsRef,
    SelectionRef,
    Ticket,
    TicketFile,
    Token,
    read_ticket_file,
)
from certify.ticket.templates import Fed, load_template

AUTHOR_EXCLUSION = "named by the author"
"""Reason for ids that the author of a ticket excluded; the check recomputes every other group."""


@dataclass(frozen=True, slots=True)
class Found:
    """Result of :func:`find`: the ticket, its file, and the scan behind it."""

    ticket: Ticket
    path: Path
    selection: Selection
    result: KSResult


def open_pair(
    base: Path | str,
    reference: Path | str,
    *,
    dtype: Dtype | None = None,
    tensor: str | None = None,
    tuned_tensor: str | None = None,
    allow_tied: bool = False,
    opened: OpenTable = open_table,
) -> tuple[Table, Table]:
    """Open a base table and a reference table in one served dtype.

    Args:
        base: file or checkpoint folder with E⁰.
        reference: file or checkpoint folder with E*, or rows that moved from ``base``.
        dtype: dtype to serve and compare rows in; None requires that both are stored in the same dtype.
        tensor: name of the table's tensor, if the architecture does not imply it.
        tuned_tensor: its name in ``reference``, where that is another.
        allow_tied: accept a table that is tied to the output head.
        opened: opens tables.

    Raises:
        UsageError: a path does not exist, the stored dtypes differ and ``dtype`` is None, or moved rows are
            to have a name of their own (``TENSOR_MISSING``).
        InvalidInputError: a table is malformed, or shapes differ.
    """
    first = opened(Path(base), tensor=tensor, allow_tied=allow_tied)
    try:
        second = opened(Path(reference), tensor=tuned_tensor or tensor, allow_tied=allow_tied, base=first)
    except (UsageError, InvalidInputError) as error:
        if not error.code.startswith("TENSOR_") or (tensor and not tuned_tensor):
            raise
        error.rename("--tensor", "--tuned-tensor")  # whoever opens one table knows one option
        raise
    if tuned_tensor not in (None, second.tensor):
        raise UsageError(
            f"{reference} holds moved rows and no tensor names: leave out --tuned-tensor",
            code="TENSOR_MISSING",
        )
    if dtype is None and first.dtype != second.dtype:
        raise UsageError(
            f"base is stored as {first.dtype}, reference as {second.dtype}: choose the served dtype"
            f" (--served-dtype {first.dtype})",
            code="DTYPE_MISMATCH",
        )
    if dtype is not None:
        first, second = first.as_dtype(dtype), second.as_dtype(dtype)
    check_compatible(first, second)
    return first, second


def find(
    base: Path,
    tuned: Path,
    *,
    out: Path,
    ticket_id: str,
    rule: str = "ks",
    alpha: str = "0.05",
    correction: Correction = "none",
    method: Method = "exact",
    dtype: Dtype | None = None,
    tensor: str | None = None,
    tuned_tensor: str | None = None,
    tokenizer: Path | None = None,
    exclude: Sequence[int] = (),
    counts: Path | None = None,
    seed: int | None = None,
    template: str | None = None,
    declared: Sequence[DeclaredClaim] = (),
    extraction: Rule | None = None,
    tuned_rows: Path | None = None,
    bundle: bool = False,
    base_elsewhere: bool = False,
    replace: bool = False,
    allow_tied: bool = False,
    engine: Engine = "auto",
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    choice: bytes | None = None,
    opened: OpenTable = open_table,
    probe: Probe | None = None,
    fed: Fed | None = None,
) -> Found:
    """Select a ticket from two tables and write it, the ticket file last (theory §2).

    Args:
        base: E⁰, a ``.safetensors`` or ``.npy`` file or a checkpoint folder.
        tuned: E*, of the same shape.
        out: the ticket file; the ticket is added to an existing one. Rows go to ``rows/ID.safetensors``
            beside it.
        ticket_id: name of the ticket, unique in the file.
        rule: see :func:`certify.selection.rules.select`.
        alpha: level as a decimal string.
        correction: correction for testing many rows.
        method: distribution of the p-values.
        dtype: served dtype; None requires that both tables are stored in the same dtype.
        tensor: tensor name, if the architecture does not imply it.
        tuned_tensor: its name in ``tuned``, where that is another.
        tokenizer: ``tokenizer.json`` or its folder; by default that of the base folder, if any.
        exclude: ids that the author excludes, reported as such.
        counts: token counts for rule ``frequency:k`` (``.npy`` integers ``[V]``), copied beside the ticket;
            those of rule ``template:PAIR`` are made by ``fed`` and written there.
        seed: seed for rule ``random:k``.
        template: prompt template used in tuning: the name of a shipped one, or the path of a ``.toml`` file,
            which is copied beside the ticket.
        declared: claims and margins fixed before evaluation.
        extraction: rule under which quality is to be judged, fixed before evaluation; None: whole outputs.
        tuned_rows: rows file of partial tuning, to release instead of the reference's rows; its ids must be
            the selected ones. The ticket then is about Êᵀ (theory §1), not about Eᵀ.
        bundle: copy tables (in the served dtype) and tokenizer beside the ticket, to make it self-contained;
            the reference as moved rows where that saves a megabyte.
        base_elsewhere: with ``bundle``, leave out the base, which whoever checks the ticket names.
        replace: overwrite a ticket of the same id.
        allow_tied: accept a table tied to the output head.
        engine: implementation of the scan.
        workers: number of threads of the scan; None means all cores.
        progress: called with (rows done, rows in all).
        choice: record of choosing these rows by their evaluation (:mod:`certify.gate.choose`), written to
            ``choices/ID.json`` beside the ticket file and bound by its digest.
        opened: opens tables.
        probe: digest of what the tokenizer in a folder makes of the probe texts, None if that is unknown.
        fed: how often a template feeds each id, for rule ``template:PAIR``.

    Returns:
        The ticket and the scan behind it.

    Raises:
        UsageError: options are invalid, or a ticket of that id exists and ``replace`` is false.
        InvalidInputError: a table, the tokenizer or an existing ticket file is malformed.
    """
    if not re.fullmatch(SLUG, ticket_id):
        raise UsageError(
            f"a ticket id has at most 64 letters, digits, '.', '_' and '-', unlike {ticket_id!r}",
            code="TICKET_ID",
        )
    # A ticket writes a level as a plain decimal, so 5e-2 and 0.05 give the same digest.
    parse_alpha(alpha)
    alpha = format(Decimal(alpha), "f")
    _existing(out, ticket_id, replace)  # refuses before the work, not after it
    e0, e_star = open_pair(
        base,
        tuned,
        dtype=dtype,
        tensor=tensor,
        tuned_tensor=tuned_tensor,
        allow_tied=allow_tied,
        opened=opened,
    )
    vocabulary = find_vocabulary(tokenizer, base, tuned)
    probe_sha256 = None if vocabulary is None or probe is None else probe(vocabulary.path.parent)
    result = scan(e0, e_star, method=method, engine=engine, workers=workers, progress=progress)
    weights = read_counts(counts, result.rows) if counts else None
    if rule.partition(":")[0] == "template":
        if counts or template is None or vocabulary is None or fed is None:
            raise UsageError(
                "rule template needs a template and a tokenizer, which make its counts", code="RULE_OPTION"
            )
        asked = load_template(template), *languages(rule), result.rows
        weights = fed(vocabulary.path.parent, *asked, probe_sha256)
    selection = select(
        result,
        rule=rule,
        alpha=alpha,
        correction=correction,
        vocabulary=vocabulary,
        exclude=[Excluded(AUTHOR_EXCLUSION, tuple(sorted(set(exclude))))] if exclude else (),
        counts=weights,
        seed=seed,
    )
    if tuned_rows is None:
        rows = transferred_rows(selection.ids, e_star)
    else:
        rows = _tuned_rows(tuned_rows, selection.ids, e0)
    folder, source = out.parent, source_ref(e0)
    with changing(out) as write:
        existing = _existing(out, ticket_id, replace)  # others may have written meanwhile
        if bundle:
            moved = int((~result.equal).sum())
            e0, e_star, vocabulary = bundle_tables(
                e0, e_star, vocabulary, folder, moved=moved, base_elsewhere=base_elsewhere
            )
        bound_counts = bundle_counts(counts, folder, ticket_id) if counts else None
        if weights is not None and counts is None:
            own = f"counts/{ticket_id}.npy"
            write_counts(folder / own, weights)
            bound_counts = BoundFile(path=own, sha256=sha256_file(folder / own))
        # Only now, so that a failed bundle does not replace the rows of a ticket that is still in the file.
        relative_rows = f"rows/{ticket_id}.safetensors"
        digests = write_rows(folder / relative_rows, rows)
        ticket = Ticket(
            id=ticket_id,
            base=table_ref(e0, folder, source),
            reference=table_ref(e_star, folder),
            tokenizer=tokenizer_ref(vocabulary, folder, probe_sha256) if vocabulary else None,
            template=template_ref(template, folder) if template else None,
            selection=selection_ref(selection, bound_counts),
            released=Released(
                object="transfer" if tuned_rows is None else "tuned",
                rows=RowsRef(
                    path=relative_rows,
                    sha256=digests.sha256,
                    fp32_sha256=digests.fp32_sha256,
                    served_sha256=digests.served_sha256,
                ),
            ),
            tokens=tokens(selection.ids, result, vocabulary),
            declared=tuple(declared),
        )
        if extraction is not None:
            ticket = ticket.model_copy(update={"extraction": extraction})
        if choice is not None:
            write_bytes(folder / choice_path(ticket_id), choice)
            bound = BoundFile(path=choice_path(ticket_id), sha256=sha256_bytes(choice))
            ticket = ticket.model_copy(update={"choice": bound})
        kept = tuple(other for other in existing if other.id != ticket_id)
        content = TicketFile(created_by=f"certify {__version__}", tickets=(*kept, ticket))
        write(content.to_json().encode("utf-8"))
    return Found(ticket, out, selection, result)


def choice_path(ticket_id: str) -> str:
    """Path of the record of choosing a ticket, relative to the ticket's folder."""
    return f"choices/{ticket_id}.json"


def find_vocabulary(tokenizer: Path | None, base: Path, tuned: Path | None = None) -> Vocabulary | None:
    """Open the named tokenizer, or that of the base folder; None if there is neither.

    Args:
        tokenizer: ``tokenizer.json`` or its folder, or None.
        base: path that the base table was opened from.
        tuned: path that the tuned table was opened from.

    Raises:
        UsageError: the named tokenizer cannot be read, or is not the one of the base (``WRONG_TOKENIZER``);
            only the tuned table comes with a tokenizer (``TABLES_SWAPPED``).
        InvalidInputError: it is malformed.
    """
    own = base / "tokenizer.json"
    if tokenizer is None and own.is_file():
        return open_vocabulary(base)
    if tokenizer is None:
        if tuned is not None and (tuned / "tokenizer.json").is_file():
            raise UsageError(
                f"{tuned} has a tokenizer and {base} none: they are swapped, or --tokenizer is missing",
                code="TABLES_SWAPPED",
            )
        return None
    vocabulary = open_vocabulary(tokenizer)
    if own.is_file() and sha256_file(own) != sha256_file(vocabulary.path):
        raise UsageError(
            f"{vocabulary.path} is not the tokenizer of {base}: its ids mean other tokens",
            code="WRONG_TOKENIZER",
        )
    return vocabulary


def tokens(ids: Sequence[int], result: KSResult, vocabulary: Vocabulary | None) -> tuple[Token, ...]:
    """Make the per-token entries of a ticket from the scan."""
    return tuple(
        Token(
            id=i,
            piece=vocabulary.piece(i) if vocabulary else None,
            h=int(result.h[i]),
            p=float(result.p[i]),
            log10_p=float(result.log10_p[i]),
            shift_norm=float(result.shift_norm[i]),
        )
        for i in ids
    )


def selection_ref(selection: Selection, counts: BoundFile | None) -> SelectionRef:
    """Convert the selection to the form recorded in a ticket."""
    return SelectionRef(
        rule=selection.rule,
        alpha=selection.alpha,
        correction=selection.correction,
        method=selection.method,
        n=selection.n,
        tests=selection.tests,
        h_alpha=selection.h_alpha,
        tau=selection.tau,
        seed=selection.seed,
        counts=counts,
        excluded=tuple(map(ExcludedRef.of, selection.excluded)),
    )


def _tuned_rows(path: Path, ids: Sequence[int], base: Table) -> Rows:
    rows = read_rows(path)
    if tuple(rows.ids.tolist()) != tuple(ids) or rows.fp32.shape[1] != base.shape[1]:
        raise UsageError(
            f"{path} has {rows.ids.size} rows of width {rows.fp32.shape[1]}, which are not the"
            f" {len(ids)} selected rows of width {base.shape[1]}",
            code="ROWS_NOT_SELECTED",
        )
    return make_rows(rows.ids, rows.fp32, base.dtype)


def _existing(out: Path, ticket_id: str, replace: bool) -> tuple[Ticket, ...]:
    if not out.exists():
        return ()
    tickets = read_ticket_file(out).tickets
    if not replace and any(ticket.id == ticket_id for ticket in tickets):
        raise UsageError(
            f"{out} already has a ticket {ticket_id!r}: choose another --id or use --replace",
            code="TICKET_EXISTS",
        )
    return tickets
