"""Rows to tune: resolve the values of ``--rows`` to token ids.

====================  =======================================================================================
value                 rows
====================  =======================================================================================
``all``               every row: embed tuning
``ticket:FILE#ID``    the ticket's rows; the base must be the ticket's
``published:PAIR``    the ticket reported for a language pair of the paper
``template:en-ca``    the rows that the template itself feeds, for a pair of languages
``random:k``          k rows at random, from a seed
``frequency:k``       the k tokens that the training examples feed most often, template included
``norm:k``            the k rows that moved farthest from the base to a reference table
``distance:k``        the k rows with the largest D, whose distribution moved most
``ids:1,2,3``         these rows, including special tokens if named
====================  =======================================================================================

``random``, ``frequency``, ``template``, ``norm`` and ``distance`` never choose special tokens or rows without
a token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from certify.base.errors import UsageError
from certify.base.records import Excluded
from certify.scan.scan import scan
from certify.selection.rules import COUNTED, select
from certify.tables.table import Table, check_compatible, open_table
from certify.tables.vocabulary import Vocabulary
from certify.ticket.released import open_base, open_source

SPECS = (
    "all, ticket:FILE#ID, published:PAIR, template:PAIR, random:K, frequency:K, norm:K, distance:K or"
    " ids:1,2,3"
)

_COMPARING = ("norm", "distance")


@dataclass(frozen=True, slots=True)
class Chosen:
    """Rows to train.

    Attributes:
        rule: the value in canonical form.
        ids: token ids, strictly increasing; None means all rows.
        excluded: rows that the rule did not consider, with reasons.
    """

    rule: str
    ids: tuple[int, ...] | None
    excluded: tuple[Excluded, ...] = ()
    ticket: str | None = None
    reference: str | None = None
    probe: str | None = None


def choose_rows(
    spec: str,
    base: Table,
    *,
    vocabulary: Vocabulary | None,
    counts: Callable[[str], NDArray[Any]],
    reference: Path | None = None,
    seed: int | None = None,
) -> Chosen:
    """Resolve ``spec`` for a base table.

    Args:
        spec: a value of the table above.
        vocabulary: names special tokens and rows without a token; None excludes nothing.
        counts: returns for ``frequency:k`` how often each id is fed in training, for ``template:PAIR`` how
            often by the template itself, int64 ``[V]``.
        reference: table E* for ``norm:k`` and ``distance:k``.

    Raises:
        UsageError: the value is unknown or malformed, or an option is missing or not used by the value.
        InvalidInputError: the ticket or a table is malformed, or they do not belong together.
        NothingToDoError: the ticket has no rows.
    """
    name, _, argument = spec.partition(":")
    if reference is not None and name not in _COMPARING:
        raise UsageError(
            f"--rows {spec} does not use a tuned table: leave out --reference", code="ROWS_OPTION"
        )
    if name in _COMPARING and reference is None:
        raise UsageError(f"--rows {spec} needs the tuned table: name it with --reference", code="ROWS_OPTION")
    if name == "random" and seed is None:
        raise UsageError(f"--rows {spec} needs a seed", code="ROWS_OPTION")
    if spec == "all":
        return Chosen("all", None)
    if name == "ticket":
        source = open_source(argument)
        open_base(source, base.path, tensor=base.tensor or None)
        ticket = source.ticket
        return Chosen(f"ticket:{ticket.id}", ticket.ids, ticket=ticket.digest(), probe=ticket.probe_sha256)
    if name not in ("published", "random", "ids", *COUNTED, *_COMPARING):
        raise UsageError(f"unknown rows {spec[:60]!r}: choose {SPECS}", code="ROWS_UNKNOWN")
    # Rules without comparison get a scan of the base against itself, which is cheap: every row is equal.
    tuned = base
    if reference is not None:
        # Rows are compared as they would be served.
        tuned = open_table(reference, base=base).as_dtype(base.dtype)
        check_compatible(base, tuned)
    selection = select(
        scan(base, tuned),
        rule=spec,
        # Special ids that are named are kept: single special rows are important null tickets.
        vocabulary=None if name == "ids" else vocabulary,
        counts=counts(spec) if name in COUNTED else None,
        seed=seed if name == "random" else None,
    )
    return Chosen(
        selection.rule,
        selection.ids,
        excluded=selection.excluded,
        reference=None if reference is None else tuned.digest(),
    )
