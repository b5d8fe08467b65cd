"""What the arms of an evidence are: null tickets and their labels, and the tickets to choose among.

The rules are those of :mod:`certify.evidence.null_labels`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from .claims import NULLS
from .tables import PASS, Json, Moved, answer, need, sha
from .vocabulary import Vocabulary

SEEDS: Final = (0, 1, 2)  # of the draws that count
DRAWN: Final = ("random", "frequency-matched", "direction")


def tickets_of(null: Json, arms: Sequence[Json], ticket: Json) -> list[tuple[str, list[int]]]:
    """Kind and rows of what a null says it is a null of: this ticket, or the arms of another one, by name."""
    of = null.get("of")
    if of == ticket["id"]:
        return [(ticket["released"]["object"], [row["id"] for row in ticket["tokens"]])]
    names = (of, str(of).removesuffix("-tuned"))
    plain = [one for one in arms if not one.get("control") and not one.get("gate") and one.get("ids")]
    return [
        (one["kind"], one["ids"]) for one in plain if one["name"] in [f"{of}.{one['kind']}" for of in names]
    ]


def choices(ticket: Json, listed: Sequence[list[int]], arms: Sequence[Json]) -> int:
    """Among how many tickets a text could have served to choose; those listed were chosen on other text."""
    rows = [one for one in arms if one["kind"] in ("transfer", "tuned", "direction")]
    plain = [(one["kind"], one["table_sha256"]) for one in rows if not one.get("gate")]
    rows = [one for one in rows if not one.get("gate") or (one["kind"], one["table_sha256"]) not in plain]

    def beside(one: Json) -> bool:  # a null of a ticket here, or a random direction of its rows
        theirs, control = tickets_of(one, rows, ticket), str(one.get("control"))
        if one.get("gate") or (control in DRAWN and one.get("seed") not in SEEDS):
            return False
        if control == "direction":
            return one["kind"] == control and any(one["ids"] == ids for _, ids in theirs)
        sizes = [(kind, 1 if control.startswith("one-row") else len(ids)) for kind, ids in theirs]
        return control in NULLS and (one["kind"], len(one["ids"])) in sizes

    paid = sum(not beside(one) and one["ids"] not in listed for one in rows)
    return max(1, paid + bool(listed))


def own_table(null: Json, arms: Sequence[Json]) -> bool:
    """Rows that were tuned on their own make a table that no other arm of this ticket has."""
    same = [null["of"], "tuned", None]
    others = [
        one["table_sha256"]
        for one in arms
        if one["name"] != null["name"]
        and one.get("table_sha256")
        and (one.get("control") not in NULLS or [*map(one.get, ("of", "kind", "gate"))] == same)
    ]
    return null["table_sha256"] not in others


def named_once(arms: Sequence[Json], ticket: Json) -> None:
    """No null or random direction of a ticket of the text has the label of another."""
    labels = [
        str([sorted({str(ids) for _, ids in theirs}), *map(one.get, keys)])
        for one in arms
        for keys in [("control", "kind", "gate", "seed")[: 3 + (one.get("control") in DRAWN)]]
        if one.get("control") in (*NULLS, "direction") and (theirs := tickets_of(one, arms, ticket))
    ]
    need(len({*labels}) == len(labels), "NULL_LABEL")


def labelled(
    one: Json, arms: Sequence[Json], ticket: Json, rows: int, vocabulary: Vocabulary, moved: Moved
) -> None:
    """A null of a ticket of the text holds the rows of its label."""
    theirs = tickets_of(one, arms, ticket) if one.get("control") in NULLS else []
    found = [answer(rightly, one, {*ids}, rows, vocabulary, moved)[1] for _, ids in theirs]
    need(not theirs or PASS in found, "NULL_LABEL")


@lru_cache(maxsize=4)  # tickets of a text share seeds
def marks(rows: int, seed: int) -> list[str]:
    """What each id is ranked by in the order of a seed."""
    return [sha(f"{seed}:{i}".encode()) for i in range(rows)]


def rightly(one: Json, ours: set[int], rows: int, vocabulary: Vocabulary, moved: Moved) -> None:
    """The rows of a null are those that its label stands for, of a ticket with these rows."""
    control, seed = one["control"], one.get("seed")
    (pieces, special, size), ids = vocabulary, {*(one.get("ids") or ())}
    if control.startswith("one-row"):
        bos = {i for i, said in special.items() if "bos" in said.split(" ")[0].split("/")}
        newline = {i for i, piece in pieces.items() if piece in ("\n", "<0x0A>", "Ċ")}
        need(len(ids) == 1 and ids <= (bos if control == "one-row:bos" else newline), "NULL_LABEL")
        return
    pool = {i for i in range(rows) if size is None or (i in pieces and i not in special)}
    drawn = NULLS[control] == 1 or seed is not None
    need(len(ids) == len(ours) and ids <= pool and drawn, "NULL_LABEL")
    if control == "random":
        mark = marks(rows, seed)
        order = sorted(pool, key=lambda i: (i in ours, mark[i]))
        need(ids == {*order[: len(ours)]}, "NULL_LABEL")
    elif control == "frequency-matched":
        need(len(ids & ours) == max(0, len(ours) - len(pool - ours)), "NULL_LABEL")
    elif control == "top-norm":
        norm = {i: moved[i][1] if i in moved else 0 for i in pool}
        most = max((norm[i] for i in pool - ids), default=0)
        need(min(norm[i] for i in ids) >= most * (1 - 1e-9), "NULL_LABEL")
