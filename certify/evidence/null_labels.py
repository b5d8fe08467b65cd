"""Is a null ticket what its label says? And which ones a ticket is compared with (theory §6.3).

Whoever issues a certificate writes the labels, so a label is trusted only as far as it can be recomputed
from the tables, the tokenizer and the ids of the ticket (:mod:`certify.selection.nulls` draws by
these rules):

=====================  ====================================================================================
control                ids that the label stands for
=====================  ====================================================================================
``random``             exactly those that ``seed`` draws: the first k of the pool by SHA-256 of ``SEED:ID``,
                       rows outside the ticket first
``top-norm``           the k rows of the pool whose shift is largest; ties to within 1e-9 in any order
``one-row:bos``        the token with the role of beginning a sequence
``one-row:newline``    a token that spells one line break
``frequency-matched``  k rows of the pool, none of the ticket's as long as others are left
``top-frequency``      k rows of the pool
=====================  ====================================================================================

k is the size of the ticket. The pool holds every row with a token that is not special. Evidence does not
record how often a token was fed in tuning, so for the last two kinds the choice of rows is taken on trust
(A-EVIDENCE); matched draws must at least differ from each other.

Of the random kinds the draws with :data:`SEEDS` are compared, of the others the only one there is. No other
is, so that neither adding, dropping, relabelling nor picking draws can help a ticket; it is paid for as a
ticket is (:func:`stands_beside`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice
from typing import Final

from certify.base.errors import InvalidInputError
from certify.evidence.read import Arm
from certify.selection.rules import seeded_order
from certify.ticket.schema import Ticket

NULLS: Final = {
    "random": 3,
    "frequency-matched": 3,
    "top-frequency": 1,
    "top-norm": 1,
    "one-row:bos": 1,
    "one-row:newline": 1,
}
"""Null tickets that a ticket must be compared with, and how many of each (theory §6.3)."""

GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "chance": ("random", "frequency-matched"),
    "rivals": ("top-frequency", "top-norm"),
    "one-row": ("one-row:bos", "one-row:newline"),
}
"""What a ticket is shown to be better than, each by itself: chance, rival selections, one row alone."""

SEEDS: Final = (0, 1, 2)
"""Seeds of the draws that count."""

_DRAWN: Final = ("random", "frequency-matched")

# Norms are floating-point sums: rows that differ by less are tied.
_TIED: Final = 1 - 1e-9


_order = lru_cache(maxsize=4)(seeded_order)  # tickets of a text share pool and seeds


@dataclass(frozen=True, slots=True)
class Labels:
    """What labels are judged by.

    Attributes:
        pool: ids that random draws and top lists may hold.
        norms: norm of the shift by id; an id that is not there did not move.
        bos: ids with the role of beginning a sequence.
        newline: ids that spell one line break.
    """

    pool: frozenset[int]
    norms: Mapping[int, float]
    bos: tuple[int, ...]
    newline: tuple[int, ...]

    def right(self, arm: Arm, ticket: frozenset[int]) -> bool:
        """Whether the ids of a null ticket are those of its label; see the module."""
        ids = frozenset(arm.ids or ())
        if arm.control in ("one-row:bos", "one-row:newline"):
            return len(ids) == 1 and ids <= {*(self.bos if arm.control == "one-row:bos" else self.newline)}
        if len(ids) != len(ticket) or not ids <= self.pool or (arm.control in _DRAWN and arm.seed is None):
            return False
        if arm.control == "random" and arm.seed is not None:
            return ids == self._drawn(ticket, arm.seed)
        if arm.control == "frequency-matched":
            return len(ids & ticket) == max(0, len(ticket) - len(self.pool - ticket))
        if arm.control == "top-norm":
            inside = min((self.norms.get(i, 0.0) for i in ids), default=0.0)
            return inside >= _TIED * max((self.norms.get(i, 0.0) for i in self.pool - ids), default=0.0)
        return True

    def _drawn(self, ticket: frozenset[int], seed: int) -> frozenset[int]:
        """The first in the order of the seed; rows of the ticket only where the pool has too few others."""
        order = _order(self.pool, seed)
        apart = chain((i for i in order if i not in ticket), (i for i in order if i in ticket))
        return frozenset(islice(apart, len(ticket)))


def tickets_of(null: Arm, arms: Iterable[Arm], ticket: Ticket) -> list[tuple[str, tuple[int, ...]]]:
    """Kind and rows of what a null says it is a null of: ``ticket``, or the arms of another one, by name."""
    if null.of == ticket.id:
        return [(ticket.released.object, ticket.ids)]
    names = (null.of, str(null.of).removesuffix("-tuned"))
    plain = [arm for arm in arms if arm.control is None and arm.gate is None and arm.ids]
    return [(arm.kind, arm.ids or ()) for arm in plain if arm.name in [f"{of}.{arm.kind}" for of in names]]


def stands_beside(null: Arm, arms: Iterable[Arm], ticket: Ticket) -> bool:
    """Whether a null or random direction belongs to a ticket of the text, and is no choice by itself.

    Any ticket could be labelled so. Therefore labels are checked (:func:`check_labels`), and of what is
    drawn, of which an author can draw more, only :data:`SEEDS` count; a gate would make a label of its own.
    """
    theirs = tickets_of(null, arms, ticket)
    if null.gate is not None or (null.control in (*_DRAWN, "direction") and null.seed not in SEEDS):
        return False
    if null.control == "direction":
        return null.kind == "direction" and any(null.ids == ids for _, ids in theirs)
    one = str(null.control).startswith("one-row")
    return (null.kind, len(null.ids or ())) in [(kind, 1 if one else len(ids)) for kind, ids in theirs]


def check_labels(arms: Sequence[Arm], ticket: Ticket, labels: Labels) -> None:
    """Refuse a null of a ticket of the text that is not what its label says, or a second one of a label.

    Raises:
        InvalidInputError: ``NULL_LABEL``, or ``NULL_TABLE``: rows tuned on their own make a table of their
            own, neither the base's nor any other arm's. Names the arm.
    """
    seen: set[tuple[object, ...]] = set()
    for arm in arms:
        theirs = tickets_of(arm, arms, ticket) if arm.control in (*NULLS, "direction") else ()
        if not theirs:
            continue
        if arm.control in NULLS and not any(labels.right(arm, frozenset(ids)) for _, ids in theirs):
            what = arm.control if arm.seed is None else f"{arm.control} with seed {arm.seed}"
            raise InvalidInputError(f"the rows of arm {arm.name} are not {what}", code="NULL_LABEL")
        seed = arm.seed if arm.control in (*_DRAWN, "direction") else None
        label = (frozenset(ids for _, ids in theirs), arm.control, arm.kind, arm.gate, seed)
        if label in seen:
            raise InvalidInputError(
                f"arm {arm.name} is a second {arm.control} of its ticket, with the same seed if it has one",
                code="NULL_LABEL",
            )
        seen.add(label)
    _check_moved([arm for arm in arms if arm.control in NULLS and arm.of == ticket.id], arms)


def _check_moved(nulls: Sequence[Arm], arms: Sequence[Arm]) -> None:
    """Rows that were tuned on their own cannot be derived; whether they were tuned at all can be checked."""
    taken = {arm.table_sha256 for arm in arms if arm.control not in NULLS}
    for arm in nulls:
        if arm.kind == "tuned" and arm.gate is None:
            if arm.table_sha256 in taken:
                raise InvalidInputError(
                    f"arm {arm.name} has the table of another arm: its rows were not tuned on their own",
                    code="NULL_TABLE",
                )
            taken.add(arm.table_sha256)


def null_arms(arms: Sequence[Arm], ticket: Ticket, control: str) -> tuple[Arm, ...]:
    """The null tickets of that control that ``ticket`` is compared with, those of :data:`SEEDS` in order.

    They are of this ticket, of its object, without a gate, and as large (one row for one-row). Matched draws
    with equal tables count once, the first of them: their rows cannot be drawn again. Fewer than
    :data:`NULLS` says: some are missing.
    """
    rows = 1 if control.startswith("one-row") else len(ticket.tokens)
    fitting = [
        arm
        for arm in arms
        if (arm.control, arm.of, arm.kind, arm.gate) == (control, ticket.id, ticket.released.object, None)
        and len(arm.ids or ()) == rows
    ]
    if control not in _DRAWN:
        return tuple(fitting[:1])
    first: dict[object, Arm] = {}
    for seed in SEEDS:
        for arm in [arm for arm in fitting if arm.seed == seed][:1]:
            first.setdefault(arm.table_sha256 if control == "frequency-matched" else seed, arm)
    return tuple(first.values())
