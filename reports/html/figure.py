"""A figure: what it shows as its title, the drawing, how to read it, and the numbers as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from certify.base.text import counted
from reports.html.markup import Child, Markup, tag
from reports.html.svg import Axes, mark, short

_LONG = 40
"""Characters from which on a cell may break its lines."""


def figure(
    key: str,
    title: str,
    drawn: Axes | Markup,
    read: str,
    head: Sequence[str],
    rows: Iterable[Sequence[object]],
    legend: Sequence[tuple[str, str]] = (),
    cloud: str | None = None,
) -> Markup:
    """One figure.

    Args:
        key: what its ids in the page begin with.
        title: what it shows, as a sentence.
        drawn: the plot, or a drawing already made.
        read: how to read it.
        head: titles of the columns of its numbers; empty if a table beside it has them.
        rows: its numbers.
        legend: kinds of marks and what they stand for.
        cloud: id of the points that a script draws beneath it (:mod:`reports.html.cloud`).
    """
    numbers = (
        tag("details", tag("summary", "Numbers"), table(f"Numbers: {title}", head, rows)) if head else None
    )
    plot = drawn.svg(title, f"{key}-read") if isinstance(drawn, Axes) else drawn
    frame = " ".join(f"{share:.4f}" for share in drawn.frame) if isinstance(drawn, Axes) else None
    return tag(
        "figure",
        tag("h4", title),
        _legend(legend) if legend else None,
        tag("div", plot, class_="plot", data_cloud=cloud, data_frame=cloud and frame),
        tag("figcaption", tag("p", read, id=f"{key}-read"), numbers),
        id=key,
    )


def left_out(title: str, why: str) -> Markup:
    """What stands in the place of a figure whose data are not there."""
    return tag("p", tag("strong", f"{title}: "), why, class_="left-out")


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[object]], kind: str = "") -> Markup:
    """A table whose rows are named by their first cell; it scrolls sideways where there is no room."""
    shown = tag(
        "table",
        tag("caption", caption),
        tag("thead", tag("tr", (tag("th", name, scope="col") for name in head))),
        tag("tbody", (_row(row) for row in rows)),
        class_=kind or None,
    )
    return tag("div", shown, class_="scroll", tabindex="0", role="region", aria_label=caption)


def _row(cells: Sequence[object]) -> Markup:
    first, *others = cells
    return tag("tr", tag("th", first, scope="row"), (_cell(cell) for cell in others))


def _cell(value: Child) -> Markup:
    if isinstance(value, float | int):
        return tag("td", decimal(value) if isinstance(value, float) else value, class_="number")
    return tag("td", value, class_="long" if isinstance(value, str) and len(value) > _LONG else None)


def decimal(value: float) -> str:
    """A figure with four significant digits and a true minus sign."""
    return f"{value:.4g}".replace("-", "−")


def signed(value: float) -> str:
    """A difference with its sign and one digit after the point."""
    return f"{value:+.1f}".replace("-", "−")


def many(number: int, noun: str) -> str:
    """A number and what it counts, thousands set apart."""
    return counted(number, noun).replace(str(number), short(number), 1)


def percent(share: float) -> str:
    """A share in whole percent."""
    return f"{100 * share:.0f} %".replace("-", "−")


def _legend(entries: Sequence[tuple[str, str]]) -> Markup:
    def item(kind: str, said: str) -> Markup:
        drawn = tag("svg", mark(kind, 8, 8), viewBox="0 0 16 16", aria_hidden="true")
        return tag("li", drawn, said)

    return tag("ul", (item(kind, said) for kind, said in entries), class_="legend")
