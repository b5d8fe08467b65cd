"""Null tickets: rows that a ticket must beat before its choice of rows explains anything (theory §6).

=====================  ==================================================================  ==============
kind                   rows                                                                as a rule
=====================  ==================================================================  ==============
``random``             k at random, none of the ticket's                                   ``random:k``
``frequency-matched``  k at random, none of the ticket's, one for each ticket row out of   --
                       the rows that are fed about as often
``top-frequency``      the k that are fed most often                                       ``frequency:k``
``top-norm``           the k whose shift is largest                                        ``norm:k``
``one-row:bos``        the token that begins every prompt, alone                           ``ids:ID``
``one-row:newline``    a token that spells one line break, alone                           ``ids:ID``
=====================  ==================================================================  ==============

Special tokens and rows without a token are in no random pool and in no top list. Randomness is the order of
:func:`certify.selection.rules.seeded_order`, so that a draw can be worked out again without this package. A
random null differs from rule ``random:k`` in one point: the ticket's rows are left out of its pool
(``certify find --exclude-ids``). All commands take any of them as ``ids:…`` (:attr:`NullTicket.spec`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from certify.base.errors import UsageError
from certify.base.records import Excluded, KSResult
from certify.scan.scan import scan
from certify.selection.rules import candidates, seeded_order, select
from certify.tables.table import Table
from certify.tables.vocabulary import Vocabulary

NullKind = Literal[
    "random", "frequency-matched", "top-frequency", "top-norm", "one-row:bos", "one-row:newline"
]

DRAWS = 3
"""Draws of each random kind that theory §6 asks for at least."""

NEWLINES = ("\n", "<0x0A>", "Ċ")
"""Pieces that stand for one line break: plain, as a byte (LLaMA), in the byte alphabet of GPT-2."""


@dataclass(frozen=True, slots=True)
class NullTicket:
    """Rows to hold against a ticket.

    Attributes:
        kind: see the table above; the names of ``control`` in evidence.
        ids: token ids, strictly increasing.
        seed: seed of a random kind, otherwise None.
        rule: how the rows were drawn: ``random-outside:k``, ``frequency-matched:k``, ``frequency:k``,
            ``norm:k`` or ``ids:ID``.
        shared: how many of ``ids`` belong to the ticket too.
        fed: how many of ``ids`` occur in the counted text; the others cannot act on text like it.
        moved: how many of ``ids`` differ between base and reference; the others cannot act in a transfer.
        note: where the draw had to depart from its rule, in words; empty otherwise.
    """

    kind: NullKind
    ids: tuple[int, ...]
    seed: int | None
    rule: str
    shared: int
    fed: int
    moved: int
    note: str = ""

    @property
    def spec(self) -> str:
        """The rows as ``certify find --rule`` and ``certify tune --rows`` take them."""
        return "ids:" + ",".join(map(str, self.ids))


def null_tickets(
    ids: Sequence[int],
    base: Table,
    reference: Table,
    *,
    vocabulary: Vocabulary,
    counts: NDArray[Any],
    seed: int,
    draws: int = DRAWS,
    exclude: Sequence[Excluded] = (),
) -> list[NullTicket]:
    """Every null ticket of a ticket: scans the two tables, then :func:`nulls_of`.

    Args:
        ids: the ticket's token ids.
        base: E⁰ ``[V, d]``.
        reference: E* in the same dtype.
        vocabulary: names special tokens, rows without a token, and line breaks.
        counts: how often each id is fed in the tuning examples, template included, int64 ``[V]``
            (:func:`lottery.text.tunedata.feed_counts`).
        seed: seed of the first draw; the next ones have the seeds that follow.
        draws: draws of each random kind.
        exclude: further groups of ids that no pool may hold.

    Raises:
        UsageError, InvalidInputError: see :func:`nulls_of` and :func:`certify.scan.scan.scan`.
    """
    result = scan(base, reference)
    return nulls_of(
        ids, result, vocabulary=vocabulary, counts=counts, seed=seed, draws=draws, exclude=exclude
    )


def nulls_of(
    ids: Sequence[int],
    result: KSResult,
    *,
    vocabulary: Vocabulary,
    counts: NDArray[Any],
    seed: int,
    draws: int = DRAWS,
    exclude: Sequence[Excluded] = (),
) -> list[NullTicket]:
    """Every null ticket of a ticket, from a scan; see :func:`null_tickets` for the arguments.

    Where fewer rows than k are left outside the ticket, the random kinds take all of them and fill up with
    rows of the ticket; ``shared`` and ``note`` tell.

    Returns:
        ``draws`` random ones, as many frequency-matched ones, top frequency, top norm (k rows each), and the
        single rows that the vocabulary has.

    Raises:
        UsageError: no ids, an id twice or outside the table, no draw, a negative seed, or fewer than k rows
            to choose from (``RULE_SIZE``).
        InvalidInputError: counts or vocabulary do not belong to the table.
    """
    ticket = _ticket(ids, result.rows)
    if draws < 1:
        raise UsageError("random null tickets need at least one draw", code="DRAWS")
    k = len(ticket)
    options: dict[str, Any] = {"vocabulary": vocabulary, "exclude": exclude}
    # First, because it checks counts and vocabulary.
    frequent = select(result, rule=f"frequency:{k}", counts=counts, **options)
    largest = select(result, rule=f"norm:{k}", **options)
    pool = np.flatnonzero(candidates(result.rows, vocabulary, exclude)).tolist()

    def made(
        kind: NullKind, chosen: Iterable[int], draw: int | None, rule: str, note: str = ""
    ) -> NullTicket:
        members = sorted(chosen)
        return NullTicket(
            kind=kind,
            ids=tuple(members),
            seed=draw,
            rule=rule,
            shared=len(ticket.intersection(members)),
            fed=int(np.count_nonzero(counts[members])),
            moved=int(np.count_nonzero(~result.equal[members])),
            note=note,
        )

    drawn: list[NullTicket] = []
    for draw in range(seed, seed + draws):
        chosen, note = _random(ticket, seeded_order(pool, draw))
        drawn.append(made("random", chosen, draw, f"random-outside:{k}", note))
    strata = frequency_strata(counts)
    for draw in range(seed, seed + draws):
        chosen, note = _matched(ticket, seeded_order(pool, draw), strata)
        drawn.append(made("frequency-matched", chosen, draw, f"frequency-matched:{k}", note))
    drawn.append(made("top-frequency", frequent.ids, None, frequent.rule))
    drawn.append(made("top-norm", largest.ids, None, largest.rule))
    drawn += [made("one-row:bos", (i,), None, f"ids:{i}") for i in bos_ids(vocabulary)]
    drawn += [made("one-row:newline", (i,), None, f"ids:{i}") for i in newline_ids(vocabulary)]
    return drawn


def frequency_strata(counts: NDArray[Any]) -> list[int]:
    """Stratum of each id by its count: how many binary digits it has, so that 4 to 7 fall together."""
    return [int(count).bit_length() for count in counts]


def bos_ids(vocabulary: Vocabulary) -> tuple[int, ...]:
    """Ids with the role of beginning a sequence: one, or none if the tokenizer has no such token."""
    return tuple(
        i for i, roles in sorted(vocabulary.special.items()) if "bos" in roles.split(" ")[0].split("/")
    )


def newline_ids(vocabulary: Vocabulary) -> tuple[int, ...]:
    """Ids whose piece is one line break and nothing else; a tokenizer can have several (see ``fed``)."""
    return tuple(sorted(i for i, piece in vocabulary.pieces.items() if piece in NEWLINES))


def _ticket(ids: Sequence[int], rows: int) -> frozenset[int]:
    ticket = frozenset(ids)
    if not ticket:
        raise UsageError("a ticket without rows has no null tickets", code="TICKET_EMPTY")
    if len(ticket) != len(ids):
        raise UsageError("the ticket names an id twice", code="ID_DUPLICATE")
    if not 0 <= min(ticket) <= max(ticket) < rows:
        raise UsageError(f"the ticket names an id that is no row of a table of {rows}", code="ID_RANGE")
    return ticket


def _random(ticket: frozenset[int], order: Sequence[int]) -> tuple[list[int], str]:
    """The first k of ``order`` outside the ticket, then the first ones of the ticket if these are too few."""
    outside = [i for i in order if i not in ticket]
    own = [i for i in order if i in ticket]
    _enough(order, len(ticket))
    return [*outside, *own][: len(ticket)], _own_note(len(ticket) - len(outside))


def _matched(ticket: frozenset[int], order: Sequence[int], strata: Sequence[int]) -> tuple[list[int], str]:
    """For each ticket row a row of its stratum, in the order given; see the module's text.

    Rows that their own stratum cannot serve take, the most frequent stratum first, from the nearest stratum
    that still has rows outside the ticket, of two equally near the more frequent one; and only when no row
    outside the ticket is left, rows of the ticket.
    """
    _enough(order, len(ticket))
    outside: defaultdict[int, list[int]] = defaultdict(list)
    own: defaultdict[int, list[int]] = defaultdict(list)
    for i in reversed(order):  # so that the first is popped first
        (own if i in ticket else outside)[strata[i]].append(i)
    chosen: list[int] = []
    unserved: list[int] = []
    for stratum, wanted in sorted(Counter(strata[i] for i in ticket).items(), reverse=True):
        served = min(wanted, len(outside[stratum]))
        chosen += [outside[stratum].pop() for _ in range(served)]
        unserved += [stratum] * (wanted - served)
    away: list[int] = []
    repeated = 0
    for stratum in unserved:
        left = _nearest(outside, stratum)
        if left is None:
            left = _nearest(own, stratum)
            assert left is not None  # _enough rows were offered
            chosen.append(own[left].pop())
            repeated += 1
        else:
            chosen.append(outside[left].pop())
        away += [abs(left - stratum)] if left != stratum else []
    notes = [_own_note(repeated)]
    if away:
        notes.append(f"{len(away)} of {len(ticket)} rows from another stratum, at most {max(away)} away")
    return chosen, "; ".join(filter(None, notes))


def _nearest(left: dict[int, list[int]], stratum: int) -> int | None:
    """The stratum nearest to ``stratum`` with rows left, the more frequent of two; None if there is none."""
    return min((s for s, ids in left.items() if ids), key=lambda s: (abs(s - stratum), -s), default=None)


def _enough(order: Sequence[int], k: int) -> None:
    if len(order) < k:
        raise UsageError(
            f"a null ticket of {k} rows cannot be drawn: only {len(order)} rows are not excluded",
            code="RULE_SIZE",
        )


def _own_note(count: int) -> str:
    return f"{count} rows of the ticket itself: no other row is left" if count > 0 else ""
