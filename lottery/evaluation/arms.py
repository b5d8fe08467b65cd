"""The arms of an evaluation from files: base, embed tuning, tickets, and null tickets beside them.

Null tickets of a ticket are those of :func:`certify.selection.nulls.null_tickets`, and random directions of
its rows, as an experiment makes them. Null tickets of tuned rows must be trained: they need an experiment.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from certify.base.errors import InvalidInputError, UsageError
from certify.base.jsonio import sha256_file
from certify.base.records import Dtype
from certify.evidence.read import Arm, BaseModelRef
from certify.scan.scan import scan
from certify.selection.frequency import read_counts
from certify.selection.nulls import DRAWS, named, null_tickets
from certify.tables.modeldigest import checkpoint_digest
from certify.tables.rowfile import transferred_rows
from certify.tables.table import Table, check_compatible, check_finite, open_table
from certify.tables.vocabulary import open_vocabulary
from certify.ticket.released import Source, open_base, open_reference, open_rows, open_source
from certify.ticket.schema import Ticket
from lottery.controls.direction import random_direction
from lottery.model.backbone import find_base, load_backbone
from lottery.model.row_swap import (
    Placement,
    base_placement,
    reference_placement,
    rows_placement,
    serve_base,
)
from lottery.model.tokenizer import load_tokenizer
from lottery.text.usedtext import UsedText


@dataclass(frozen=True, slots=True)
class Nulls:
    """Which null tickets to evaluate beside each ticket.

    Attributes:
        counts: how often each id was fed in tuning, ``.npy`` (``counts.npy`` of a tuning run).
        draws: number of draws of each random kind, and of random directions.
        seed: seed of the first draw; the following draws count up.
    """

    counts: Path
    draws: int = DRAWS
    seed: int = 0


@dataclass(frozen=True)
class Opened:
    """Base, embed tuning and tickets, opened once for every text that they are evaluated on.

    Attributes:
        folder: checkpoint folder of the base.
        base: E⁰ as served.
        reference: E* as served.
        sources: the tickets.
        placements: the arms, the reference first.
        used: sentences used before.
        dtype: dtype that the models compute in.
    """

    folder: Path
    base: Table
    reference: Table
    sources: tuple[Source, ...]
    placements: tuple[Placement, ...]
    used: tuple[UsedText, ...]
    dtype: Dtype

    @property
    def arms(self) -> list[Arm]:
        """The arms as evidence lists them, the base first."""
        return sorted((placement.arm for placement in self.placements), key=lambda arm: arm.kind != "base")

    def margins(self, every: bool) -> dict[str, str | None]:
        """Arms to follow along their own outputs, with the t that the ticket of each declares.

        They are those of all tickets, or only of tickets that declare ``guarantee:calibrated``.
        """
        found = {arm_name(source.ticket): source.ticket.calibration for source in self.sources}
        return {name: one.t if one else None for name, one in found.items() if every or one}

    @property
    def tokenizer_sha256(self) -> str:
        """Digest of ``tokenizer.json``."""
        return sha256_file(self.folder / "tokenizer.json")

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer; it makes the ids that the tickets state."""
        return load_tokenizer(self.folder, *(source.ticket.probe_sha256 for source in self.sources))

    @cached_property
    def model_ref(self) -> BaseModelRef:
        """Digests of the base's table, and of all weights around it."""
        rest = checkpoint_digest(self.folder, without=self.base.tensor)
        return BaseModelRef(tensor_sha256=self.base.digest(), model_sha256=rest)

    @cached_property
    def model(self) -> PreTrainedModel:
        """The base with its table as served, in eval mode."""
        model = load_backbone(self.folder, self.dtype).eval()
        serve_base(model, self.base)
        return model


def open_evaluation(
    base: str,
    *,
    reference: Path | None,
    tickets: Sequence[str],
    used: Sequence[UsedText] = (),
    nulls: Nulls | None = None,
    dtype: Dtype = "F32",
) -> Opened:
    """Open base and reference as served, tickets, and null tickets beside them.

    Args:
        base: checkpoint folder, or name of a model on the hub.
        reference: the table after embed tuning; None takes the one beside the tickets.
        tickets: ``FILE#ID`` of each ticket; all must have the same base and reference.
        used: sentences used before.
        nulls: null tickets to evaluate beside each ticket; None for none.
        dtype: dtype that the models compute in.

    Raises:
        UsageError: a named file does not exist, no reference is at hand (``REFERENCE_NEEDED``), two tickets
            have the same id (``TICKET_AMBIGUOUS``), or null tickets are asked for tuned rows
            (``NULLS_TUNED``).
        InvalidInputError: tables, tickets or counts are malformed or do not belong together, or a list of
            used sentences is that of another run (``USED_OTHER_RUN``).
    """
    folder, sources = find_base(base), tuple(open_source(spec) for spec in tickets)
    if sources:
        stored = open_base(sources[0], folder)
        opened = open_reference(sources[0], reference, stored)
        if opened is None:
            raise UsageError(
                "the reference table does not lie beside the ticket: name it", code="REFERENCE_NEEDED"
            )
        tuned = opened
    else:
        if reference is None:
            raise UsageError("name the reference table if there is no ticket", code="REFERENCE_NEEDED")
        stored = open_table(folder)
        tuned = open_like(reference, stored)
    made = [reference_placement(tuned), base_placement(stored)]
    for source in sources:
        ticket = source.ticket
        if (ticket.base.tensor_sha256, ticket.reference.tensor_sha256) != (stored.digest(), tuned.digest()):
            raise InvalidInputError(
                f"ticket {ticket.id!r} has another base or reference than ticket {sources[0].ticket.id!r}",
                code="WRONG_BASE",
            )
        made.append(
            rows_placement(arm_name(ticket), ticket.released.object, stored, open_rows(source, tuned))
        )
    names = [placement.arm.name for placement in made]
    if len(set(names)) != len(names):
        raise UsageError("two tickets have the same id", code="TICKET_AMBIGUOUS")
    if nulls is not None:
        made += _null_placements(folder, stored, tuned, sources, nulls)
    return Opened(folder, stored, tuned, sources, tuple(made), _bound(used, made), dtype)


def arm_name(ticket: Ticket) -> str:
    """Name of the arm that serves a ticket."""
    return f"{ticket.id}.{ticket.released.object}"


def _bound(used: Sequence[UsedText], placements: Sequence[Placement]) -> tuple[UsedText, ...]:
    """Lists of used sentences, each with the table of its run as evaluated; refuse that of another run."""
    evaluated = {placement.arm.table_sha256 for placement in placements}
    for text in used:
        if text.tables and text.tables.isdisjoint(evaluated):
            raise InvalidInputError(
                f"a list of sentences used for {text.role} is that of another run: its table"
                f" {min(text.tables)[:12]} is none of those evaluated",
                code="USED_OTHER_RUN",
            )
    return tuple(replace(text, tables=text.tables & evaluated) for text in used)


def _null_placements(
    folder: Path, base: Table, reference: Table, sources: Sequence[Source], asked: Nulls
) -> Iterator[Placement]:
    counts, vocabulary = read_counts(asked.counts, base.shape[0]), open_vocabulary(folder)
    moved = scan(base, reference)
    for ticket in (source.ticket for source in sources):
        if ticket.released.object != "transfer":
            raise UsageError(
                f"ticket {ticket.id!r} has tuned rows: its null tickets must be trained as well, which"
                " certify experiment does",
                code="NULLS_TUNED",
            )
        drawn = null_tickets(
            ticket.ids, moved, vocabulary=vocabulary, counts=counts, seed=asked.seed, draws=asked.draws
        )
        for name, null in named(drawn).items():
            yield rows_placement(
                f"{ticket.id}.{name}.transfer",
                "transfer",
                base,
                transferred_rows(null.ids, reference),
                control=null.kind,
                of=ticket.id,
                seed=null.seed,
            )
        for seed in range(asked.seed, asked.seed + asked.draws):
            rows = random_direction(ticket.ids, base, reference, seed=seed).rows
            name = f"{ticket.id}.direction-{seed}"
            yield rows_placement(name, "direction", base, rows, control="direction", of=ticket.id, seed=seed)


def open_like(path: Path, base: Table) -> Table:
    """Open a table as it would be served in place of ``base``: in its dtype, and with its shape."""
    table = open_table(path, allow_tied=base.tied is True, base=base).as_dtype(base.dtype)
    check_compatible(base, table)
    check_finite(table)
    return table
