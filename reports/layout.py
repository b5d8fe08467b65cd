"""Lines for a terminal: wrapped between words, aligned in columns; widths are in cells, not characters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.cells import cell_len, set_cell_size
from rich.text import Text

STYLES: Final = {
    "CERTIFIED": "bold green",
    "REFUTED": "bold red",
    "INVALID": "bold red",
    "ERROR": "bold red",
    "INCONCLUSIVE": "bold yellow",
    "VACUOUS": "bold yellow",
    "NOT JUDGED": "bold red",
    "pass": "green",
    "not bound": "yellow",
    "fail": "red",
    "invalid": "red",
    "error": "red",
    "missing": "yellow",
    "inconclusive": "yellow",
    "vacuous": "yellow",
    "not run": "yellow",
}
"""Styles of verdicts and outcomes."""

LONGEST: Final = 160
"""Cells of a word that is shown whole, such as a path, however narrow the terminal."""

_GAP = "  "


def clip(text: str, width: int) -> str:
    """The text, or as much of it as fits into ``width`` cells with ``…`` at its end."""
    return text if cell_len(text) <= width else set_cell_size(text, width - 1).rstrip() + "…"


def wrap(text: str, width: int, *, first: str = "", indent: str = "", most: int | None = None) -> list[str]:
    """Break ``text`` between words into lines of ``width`` cells; a longer word is a line by itself.

    Args:
        text: what to say.
        width: cells of a line, what it begins with included.
        first: what the first line begins with.
        indent: what the others begin with.
        most: largest number of lines; the last one then ends in ``…``.
    """
    lines: list[str] = []
    line, start = first, True
    for word in text.split():
        if line.strip() and cell_len(line) + (not start) + cell_len(word) > width:
            if most is not None and len(lines) + 1 >= most:
                fits = cell_len(line) + 2 <= width
                return [*lines, f"{line if fits else line.rpartition(' ')[0]} …"]
            lines.append(line.rstrip())
            line, start = indent, True
        line += ("" if start else " ") + clip(word, LONGEST)
        start = False
    return [*lines, line]


def columns(rows: Sequence[Sequence[str]], width: int, right: Sequence[int] = ()) -> list[list[Text]]:
    """Align cells under each other: the lines of each row, which are two where one would be too wide.

    Args:
        rows: cells; a row may have fewer than others. The first cell may be an outcome, which has its style;
            the second one is a name, which is never broken.
        width: cells of a line, of which two indent it.
        right: positions of columns that are aligned on the right.
    """
    count = max(map(len, rows), default=0)
    widths = [max(cell_len(row[i]) for row in rows if i < len(row)) for i in range(count)]
    beside = sum(widths) - sum(widths[1:2]) + len(_GAP) * count
    names = [cell_len(row[1]) for row in rows if len(row) > 2]
    widths[1:2] = [max((one for one in names if one + beside <= width), default=0)]
    start = sum(widths[:2]) + len(_GAP)
    found = []
    for row in rows:
        padded = [_pad(cell, widths[i], i in right) for i, cell in enumerate(row)]
        figures = _GAP.join(padded[2:]).rstrip()
        for left in (_GAP.join(padded[:2]), _GAP.join(row[:2])):
            line = f"{_GAP}{_pad(left, start)}{_GAP}{figures}".rstrip()
            if cell_len(line) <= width:
                break
        fits = cell_len(line) <= width or not figures
        made = [
            Text(one) for one in ([line] if fits else [_GAP + left, f"{_GAP}{' ' * start}{_GAP}{figures}"])
        ]
        made[0].stylize(STYLES.get(row[0], ""), len(_GAP), len(_GAP) + len(row[0]))
        found.append(made)
    return found


def _pad(cell: str, width: int, right: bool = False) -> str:
    space = " " * (width - cell_len(cell))
    return space + cell if right else cell + space
