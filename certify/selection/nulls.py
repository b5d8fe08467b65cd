"""Null tickets: rows that a ticket must beat before its choice of rows means anything (theory §6.3).

=====================  ==================================================================  ==============
kind                   rows                                                                as a rule
=====================  ==================================================================  ==============
``random``             k at random, outside the ticket                                     ``random:k``
``frequency-matched``  k at random, outside the ticket, one per ticket row, from the       --
                       rows that are fed about as often
``top-frequency``      the k that are fed most often                                       ``frequency:k``
``top-norm``           the k with the largest shift                                        ``norm:k``
``one-row:bos``        only the token that begins every prompt                             ``ids:ID``
``one-row:newline``    only a token that spells one line break                             ``ids:ID``
=====================  ==================================================================  ==============

Special tokens and rows without a token are excluded from random pools and top lists. The random order is that
of :func:`certify.selection.rules.seeded_order`, so a draw can be reproduced without this package. A random
null differs from rule ``random:k`` in one point: its pool excludes the ticket's rows (``certify find
--exclude-ids``). All commands accept any null ticket as ``ids:…`` (:attr:`NullTicket.spec`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from certify.base.errors import UsageError
from certify.base.records import Excluded, KSResult
from certify.base.text import counted
from certify.selection.rules import candidates, seeded_order, select
from certify.tables.vocabulary import Vocabulary

NullKind = Literal[
    "random", "frequency-matched", "top-frequency", "top-norm", "one-row:bos", "one-row:newline"
]

DRAWS = 3
"""Smallest number of draws of each random kind, by theory §6."""

NEWLINES = ("\n", "<0x0A>", "Ċ")
"""Pieces for one line break: plain, as a byte (LLaMA), in GPT-2's byte alphabet."""


@dataclass(frozen=True, slots=True)
class NullTicket:
    """Rows to compare a ticket with.

    Attributes:
        kind: see the table above; the names are those of ``control`` in evidence.
        ids: token ids, strictly increasing.
        seed: seed of a random kind; None for the others.
        rule: how the rows were drawn: ``random-outside:k``, ``frequency-matched:k``, ``frequency:k``,
            ``norm:k`` or ``ids:ID``.
        shared: number of ``ids`` that also belong to the ticket.
        fed: number of ``ids`` that occur in the counted text; the others have no effect on similar text.
        moved: number of ``ids`` that differ between base and reference; the others have no effect in a
            transfer.
        note: how the draw had to deviate from its rule; empty if it did not.
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
        """The rows in the form of ``certify find --rule`` and ``certify tune --rows``."""
        return "ids:" + ",".join(map(str, self.ids))


def null_tickets(
    ids: Sequence[int],
    result: KSResult,
    *,
    vocabulary: Vocabulary,
    counts: NDArray[Any],
    seed: int,
    draws: int = DRAWS,
    exclude: Sequence[Excluded] = (),
) -> list[NullTicket]:
    """Make every null ticket of a ticket from a scan of E⁰ against E*.

    If fewer than k rows are left outside the ticket, the random kinds take all of them and fill up with rows
    of the ticket; ``shared`` and ``note`` say so.

    Args:
        ids: the ticket's token ids.
        result: the scan.
        vocabulary: names special tokens, rows without a token, and line breaks.
        counts: how often each id is fed in the tuning examples, template included, int64 ``[V]``
            (:func:`lottery.text.tunedata.feed_counts`).
        seed: seed of the first draw; following draws count up.
        draws: number of draws of each random kind.
        exclude: further groups of ids to exclude from all pools.

    Returns:
        ``draws`` random ones, equally many frequency-matched ones, top frequency, top norm (k rows each), and
        the single rows that the vocabulary has.

    Raises:
        UsageError: there are no ids, an id is repeated or outside the table, there are no draws, the seed is
            negative, or there are fewer than k rows to choose from (``RULE_SIZE``).
        InvalidInputError: counts or vocabulary do not belong to the table.
    """
    ticket = _ticket(ids, result.rows)
    if draws < 1:
        raise UsageError("random null tickets need at least one draw", code="DRAWS")
    k = len(ticket)
    options: dict[str, Any] = {"vocabulary": vocabulary, "exclude": exclude}
    # This comes first, because it checks counts and vocabulary.
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


def named(nulls: Iterable[NullTicket]) -> dict[str, NullTicket]:
    """Null tickets by name, such as ``random-0`` or ``one-row-bos``, in the order of the table above.

    If several ids spell a line break, the one is taken that is fed, of several the first.
    """
    kinds = list(get_args(NullKind))

    def order(null: NullTicket) -> tuple[int, int]:
        return kinds.index(null.kind), -null.fed if null.seed is None else 0

    found: dict[str, NullTicket] = {}
    for null in sorted(nulls, key=order):
        name = null.kind.replace(":", "-") if null.seed is None else f"{null.kind}-{null.seed}"
        found.setdefault(name, null)
    return found


def frequency_strata(counts: NDArray[Any]) -> list[int]:
    """Stratum of each id: the number of binary digits of its count, so 4 to 7 share a stratum."""
    return [int(count).bit_length() for count in counts]


def bos_ids(vocabulary: Vocabulary) -> tuple[int, ...]:
    """Ids that begin a sequence: one, or none if the tokenizer has no such token."""
    return tuple(
        i for i, roles in sorted(vocabulary.special.items()) if "bos" in roles.split(" ")[0].split("/")
    )


def newline_ids(vocabulary: Vocabulary) -> tuple[int, ...]:
    """Ids whose piece is exactly one line break; a tokenizer can have several (see ``fed``)."""
    return tuple(sorted(i for i, piece in vocabulary.pieces.items() if piece in NEWLINES))


def _ticket(ids: Sequence[int], rows: int) -> frozenset[int]:
    ticket = frozenset(ids)
    if not ticket:
        raise UsageError("a ticket without rows has no null tickets", code="TICKET_EMPTY")
    if len(ticket) != len(ids):
        raise UsageError("the ticket names an id twice", code="ID_DUPLICATE")
    if not 0 <= min(ticket) <= max(ticket) < rows:
        raise UsageError(f"the ticket names an id that is not a row of a table of {rows}", code="ID_RANGE")
    return ticket


def _random(ticket: frozenset[int], order: Sequence[int]) -> tuple[list[int], str]:
    """Take the first k of ``order`` outside the ticket, then rows of the ticket if these are too few."""
    outside = [i for i in order if i not in ticket]
    own = [i for i in order if i in ticket]
    _enough(order, len(ticket))
    return [*outside, *own][: len(ticket)], _own_note(len(ticket) - len(outside))


def _matched(ticket: frozenset[int], order: Sequence[int], strata: Sequence[int]) -> tuple[list[int], str]:
    """Take a row of the same stratum for each ticket row, in the given order; see the module's docstring.

    If a stratum has too few rows, its ticket rows take from the nearest stratum that has rows outside the
    ticket left; of two equally near, from the more frequent one. More frequent strata take first. If no row
    outside the ticket is left, they take rows of the ticket.
    """
    _enough(order, len(ticket))
    outside: defaultdict[int, list[int]] = defaultdict(list)
    own: defaultdict[int, list[int]] = defaultdict(list)
    for i in reversed(order):  # the first is popped first
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
        notes.append(
            f"{len(away)} of {counted(len(ticket), 'row')} from another stratum, at most {max(away)} away"
        )
    return chosen, "; ".join(filter(None, notes))


def _nearest(left: dict[int, list[int]], stratum: int) -> int | None:
    """Find the stratum nearest to ``stratum`` with rows left, the more frequent of two; None without any."""
    return min((s for s, ids in left.items() if ids), key=lambda s: (abs(s - stratum), -s), default=None)


def _enough(order: Sequence[int], k: int) -> None:
    if len(order) < k:
        raise UsageError(
            f"a null ticket of {counted(k, 'row')} cannot be drawn: only {len(order)} can be chosen",
            code="RULE_SIZE",
        )


def _own_note(count: int) -> str:
    return f"{counted(count, 'row')} of the ticket itself: no other row is left" if count > 0 else ""
