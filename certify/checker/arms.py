"""What the arms of an evidence are: null tickets and their labels, and the tickets to choose among.

Eighth of ten files. The rules are those of :mod:`certify.evidence.null_labels`.
"""

from __future__ import annotations

from collections.abc import Sequence

from .claims import NULLS
from .tables import Json, Moved, Vocabulary, need, sha


def choices(ticket: str, listed: Sequence[list[int]], arms: Sequence[Json]) -> int:
    """Among how many tickets a text could have served to choose; those listed were chosen on other text."""
    rows = [one for one in arms if one["kind"] in ("transfer", "tuned", "direction")]
    plain = [(one["kind"], one["table_sha256"]) for one in rows if not one.get("gate")]
    rows = [one for one in rows if not one.get("gate") or (one["kind"], one["table_sha256"]) not in plain]
    nulls = [one for one in rows if one.get("control") in (*NULLS, "direction")]
    tickets = [one for one in rows if one not in nulls]

    def beside(null: Json) -> bool:  # of this ticket, or of another with as many rows
        if null["control"] == "direction":  # of the rows of a ticket
            return any(one["ids"] == null["ids"] for one in tickets)
        of = str(null.get("of"))
        names = (f"{of}.", f"{of.removesuffix('-tuned')}.")
        sizes = {len(one["ids"]) for one in tickets if one["name"].startswith(names)}
        one_row = sizes and null["control"].startswith("one-row") and len(null["ids"]) == 1
        return bool(of == ticket or one_row or len(null["ids"]) in sizes)

    paid = [*tickets, *(null for null in nulls if not beside(null))]
    return max(1, sum(one["ids"] not in listed for one in paid) + bool(listed))


def own_table(null: Json, arms: Sequence[Json]) -> bool:
    """Rows that were tuned on their own make a table that no other arm of this ticket has."""
    others = [
        one["table_sha256"]
        for one in arms
        if one["name"] != null["name"]
        and one.get("table_sha256")
        and (one.get("control") not in NULLS or (one.get("of"), one["kind"]) == (null["of"], "tuned"))
    ]
    return null["table_sha256"] not in others


def labelled(
    one: Json, arms: Sequence[Json], ticket: Json, rows: int, vocabulary: Vocabulary, moved: Moved
) -> None:
    """A null ticket of this ticket holds the rows of its label, and is the only one of it."""
    control, seed, ours = one.get("control"), one.get("seed"), {row["id"] for row in ticket["tokens"]}
    if control not in NULLS or one.get("of") != ticket["id"]:
        return
    keys = ["control", "of", "kind", "gate"] + ["seed"] * (NULLS[control] == 3)
    need(sum(all(one.get(key) == arm.get(key) for key in keys) for arm in arms) == 1, "NULL_LABEL")
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
        order = sorted(pool, key=lambda i: (i in ours, sha(f"{seed}:{i}".encode())))
        need(ids == {*order[: len(ours)]}, "NULL_LABEL")
    elif control == "frequency-matched":
        need(len(ids & ours) == max(0, len(ours) - len(pool - ours)), "NULL_LABEL")
    elif control == "top-norm":
        norm = {i: moved[i][1] if i in moved else 0 for i in pool}
        most = max((norm[i] for i in pool - ids), default=0)
        need(min(norm[i] for i in ids) >= most * (1 - 1e-9), "NULL_LABEL")
