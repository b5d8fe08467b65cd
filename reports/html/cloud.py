"""A cloud of points, one for each row of a table: a binned picture for everyone, and the points for a canvas.

Tickets of one pair of tables share a cloud: the picture is defined once in the page and used in each plot.
"""

from __future__ import annotations

import base64

import numpy as np
from numpy.typing import NDArray

from reports.html.markup import Markup, join, tag
from reports.html.svg import Axes

_CELLS = (72, 48)
_FINE = 1 << 10
_SHADES = 5

Places = NDArray[np.float64]


def binned(name: str, plot: Axes, x: Places, y: Places) -> Markup:
    """The picture and the points, both as a definition of the page.

    Points that fall on one another on a grid of 1024 by 1024 are one: a table of any size makes a page of a
    bounded one.

    Args:
        name: id of the picture; the points have the id ``NAME-points``.
        plot: the plot in whose coordinates the picture is drawn.
        x: places of the points, from 0 to 1; ``[V]``.
        y: likewise.
    """
    fine = np.unique(
        np.stack([np.rint(x * (_FINE - 1)), np.rint(y * (_FINE - 1))], axis=1).astype("<u2"), axis=0
    )
    points = base64.b64encode(fine.tobytes()).decode("ascii")
    wide, high = _CELLS
    cells = np.minimum((x * wide).astype(int), wide - 1) * high + np.minimum((y * high).astype(int), high - 1)
    counts = np.bincount(cells, minlength=wide * high)
    shades = np.ceil(_SHADES * np.log1p(counts) / np.log1p(max(1, counts.max()))).astype(int)
    left, top, width, height = plot.inner
    across, down = width / wide, height / high

    def shade(level: int) -> Markup:
        spots = "".join(
            f"M{left + (cell // high) * across:.1f} {top + height - (cell % high + 1) * down:.1f}"
            f"h{across:.1f}v{down:.1f}h-{across:.1f}z"
            for cell in np.flatnonzero(shades == level).tolist()
        )
        return tag("path", d=spots, class_=f"shade-{level}") if spots else join()

    drawn = tag("g", (shade(level) for level in range(1, _SHADES + 1)), id=name, class_="cloud")
    hidden = tag("svg", tag("defs", drawn), class_="definitions", aria_hidden="true", width="0", height="0")
    return join(hidden, tag("script", Markup(points), type="application/octet-stream", id=f"{name}-points"))
