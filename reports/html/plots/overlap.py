"""Jaccard index of the tickets of a report, with tickets of other seeds as the ceiling."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from reports.html.figure import figure, left_out, percent
from reports.html.markup import Markup, join, tag
from reports.html.material import Material
from reports.html.svg import WIDTH, drawing, words

_LABELS = 150.0
_MOST = 40


def overlap(tickets: Sequence[Material], key: str) -> Markup:
    """The matrix of a report's tickets; the last column compares each with its tickets of other seeds."""
    name = "Overlap of tickets"
    ceilings = [_ceiling(given) for given in tickets]
    if len(tickets) < 2 and ceilings == [None]:
        return left_out(name, "there is one ticket only, and no ticket of another seed was evaluated.")
    tickets = tickets[:_MOST]
    names = [given.one.ticket.id for given in tickets]
    rows = [[jaccard(one.one.ticket.ids, other.one.ticket.ids) for other in tickets] for one in tickets]
    known = [value for value in ceilings if value is not None]
    head = [str(i) for i in range(1, len(names) + 1)] + (["seeds"] if known else [])
    cells = [[*row, *([ceiling] if known else [])] for row, ceiling in zip(rows, ceilings, strict=False)]
    others = [value for i, row in enumerate(rows) for value in row[:i]]
    title = "Tickets of other seeds share as much of its rows with this one"
    if others:
        title = f"Two tickets share {percent(min(others))} to {percent(max(others))} of their rows"
    said = (
        f" Tickets that differ in the seed of tuning alone, the ceiling, share {percent(min(known))} to"
        f" {percent(max(known))}."
        if known
        else " No ticket of another seed was evaluated: the ceiling is not known."
    )
    read = (
        "Jaccard index: rows in both tickets over rows in either; the darker, the more they share."
        + said
        + ("" if len(tickets) < _MOST else f" The first {_MOST} tickets are compared.")
    )
    numbers = ((f"{i} {name}", *row) for i, (name, row) in enumerate(zip(names, cells, strict=True), 1))
    return figure(key, title, _matrix(names, head, cells, title, key), read, ("ticket", *head), numbers)


def jaccard(first: Collection[int], second: Collection[int]) -> float:
    """Rows in both over rows in either; 1 for two empty tickets."""
    either = {*first} | {*second}
    return len({*first} & {*second}) / len(either) if either else 1.0


def _ceiling(given: Material) -> float | None:
    """Mean index with the arms that are this ticket under another seed of tuning; None without any."""
    arms = given.main.evidence.manifest.arms if given.main else ()
    ticket = given.one.ticket
    seeds = [arm.ids for arm in arms if arm.control == "seed" and arm.of == ticket.id and arm.ids is not None]
    return sum(jaccard(ticket.ids, ids) for ids in seeds) / len(seeds) if seeds else None


def _matrix(
    names: Sequence[str], head: Sequence[str], rows: Sequence[Sequence[float | None]], title: str, key: str
) -> Markup:
    size = min(34.0, (WIDTH - _LABELS - 4) / len(head))

    def cell(i: int, j: int, value: float | None) -> Markup:
        x, y = _LABELS + j * size, 22 + i * size
        if value is None:
            return words(x + size / 2, y + size / 2 + 4, "–", "middle", "tick")
        shade = min(5, int(5 * value + 0.999))
        label = f"{value:.2f}".removeprefix("0") if value < 1 else "1"
        return join(
            tag("rect", x=x + 0.5, y=y + 0.5, width=size - 1, height=size - 1, class_=f"cell shade-{shade}"),
            words(x + size / 2, y + size / 2 + 4, label, "middle", f"tick on-{shade}") if size > 22 else None,
        )

    cut = [name if len(name) <= 20 else f"{name[:19]}…" for name in names]
    return drawing(
        title,
        f"{key}-read",
        26 + size * len(rows),
        (words(_LABELS + (j + 0.5) * size, 15, name, "middle", "tick") for j, name in enumerate(head)),
        (
            words(0, 22 + (i + 0.5) * size + 4, f"{i + 1} {name}", "start", "tick")
            for i, name in enumerate(cut)
        ),
        (cell(i, j, value) for i, row in enumerate(rows) for j, value in enumerate(row)),
    )
