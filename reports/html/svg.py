"""Scales, axes and marks: what every plot is drawn with. A plot is inline SVG and scales with the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from reports.html.markup import Child, Markup, join, tag

WIDTH, HEIGHT = 440.0, 300.0
"""Of a plot, in units of its own: about pixels on a large screen."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 58.0, 14.0, 14.0, 42.0
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

_SHAPES: Final = {
    "ticket": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "tuned": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "reference": "M0-5.5 5.5 0 0 5.5-5.5 0z",
    "base": "M-4-4h8v8h-8z",
    "null": "M0-4.6 4.4 3.4h-8.8z",
    "blind": "M-4-4 4 4M-4 4 4-4",
    "asked": "M0-6.5v13",
    "path": "M-4.5 0h9M0-4.5v9",
    "other": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "row": "M-2 0a2 2 0 1 0 4 0a2 2 0 1 0-4 0z",
    "level": "M-7 0h14",
    "chance": "M-7 0h14",
}
"""Marks by what they stand for: told apart by shape, so that colour is not needed."""


def _as_it_is(value: float) -> float:
    return value


@dataclass(frozen=True, slots=True)
class Scale:
    """From values to places between 0 and 1.

    Attributes:
        low, high: values at 0 and at 1, as ``turn`` has them.
        ticks: values and their labels.
        turn: what is done to a value first, such as a logarithm.
    """

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    turn: Callable[[float], float] = _as_it_is

    def at(self, value: float) -> float:
        """Where ``value`` stands; values beyond the ends stand at them."""
        return min(1.0, max(0.0, (self.turn(value) - self.low) / (self.high - self.low)))


def linear(values: Iterable[float], *, pad: float = 0.04, percent: bool = False, count: int = 5) -> Scale:
    """A scale over all ``values``, with about ``count`` round ticks."""
    found = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(found), max(found)
    room = (high - low or abs(high) or 1.0) * pad
    low, high = low - (room if low else 0), high + (room or 1.0)
    step = _round((high - low) / count)
    first = math.ceil(low / step - 1e-9)
    at = [step * i for i in range(first, math.floor(high / step + 1e-9) + 1)]
    digits = max(0, -math.floor(math.log10(100 * step if percent else step) + 1e-9))
    labels = (f"{100 * v:.{digits}f} %" if percent else f"{v:.{digits}f}" for v in at)
    return Scale(low, high, tuple((v, label.replace("-", "−")) for v, label in zip(at, labels, strict=True)))


def counting(most: float) -> Scale:
    """A logarithmic scale of counts from 0 on: by ``log10(1 + value)``."""
    top = max(1, math.ceil(math.log10(1 + most)))
    ticks = [0, *(10**i for i in range(0 if top < 4 else 1, top + 1))]
    ticks = [tick for tick in ticks if tick <= 1.3 * most or tick <= 1]
    return Scale(-0.03 * top, math.log10(1 + most) * 1.05 or 1.0, tuple((t, short(t)) for t in ticks), _log1p)


def powers(low: float, high: float, count: int = 5) -> Scale:
    """A scale of powers of ten, from exponent ``low`` to ``high``; values are exponents."""
    step = max(1, math.ceil((high - low) / count))
    at = range(step * math.ceil(low / step), math.floor(high) + 1, step)
    return Scale(low, high if high > low else low + 1, tuple((float(e), power(e)) for e in at))


def power(exponent: int) -> str:
    """A power of ten as a label."""
    return str(10**exponent) if 0 <= exponent <= 2 else f"10{str(exponent).translate(_SUPERSCRIPTS)}"


def short(value: float) -> str:
    """A count as a label: thousands are set apart, by a narrow space that does not break."""
    return f"{value:,.0f}".replace(",", "\u202f")


class Axes:
    """Axes and what is drawn on them."""

    def __init__(
        self,
        x: Scale,
        y: Scale,
        x_label: str,
        y_label: str,
        *,
        height: float = HEIGHT,
        left: float = _LEFT,
    ) -> None:
        """Draw the axes.

        Args:
            x: horizontal scale.
            y: vertical scale, upward.
            x_label: name and unit of the horizontal axis.
            y_label: of the vertical one.
            height: of the whole plot; its width is :data:`WIDTH`.
            left: room for the labels of the vertical axis.
        """
        self._x, self._y, self._height, self._left = x, y, height, left
        self._marks: list[Markup] = []
        self._over: list[Markup] = []
        right, bottom = WIDTH - _RIGHT, height - _BOTTOM
        grid = [(self.x(v), label, True) for v, label in x.ticks]
        self._axes = join(
            (tag("path", d=f"M{at:.1f} {_TOP}V{bottom}", class_="grid") for at, _, _ in grid),
            (tag("path", d=f"M{self._left} {self.y(v):.1f}H{right}", class_="grid") for v, _ in y.ticks),
            (_text(at, bottom + 16, label, "middle", "tick") for at, label, _ in grid),
            (_text(self._left - 6, self.y(v) + 4, label, "end", "tick") for v, label in y.ticks),
            tag("path", d=f"M{self._left} {_TOP}V{bottom}H{right}", class_="axis"),
            _text((self._left + right) / 2, height - 6, x_label, "middle", "label"),
            tag(
                "g",
                _text(0, 0, y_label, "middle", "label"),
                transform=f"translate(12 {(_TOP + bottom) / 2:.1f}) rotate(-90)",
            ),
        )

    def x(self, value: float) -> float:
        """Where a value lies horizontally."""
        return self._left + self._x.at(value) * (WIDTH - self._left - _RIGHT)

    def y(self, value: float) -> float:
        """Where a value lies vertically."""
        return self._height - _BOTTOM - self._y.at(value) * (self._height - _TOP - _BOTTOM)

    def put(self, *children: Child) -> None:
        """Add markup, in the coordinates of the plot."""
        self._marks.append(join(*children))

    def dot(self, x: float, y: float, kind: str, said: str) -> None:
        """Mark a point; ``said`` is what a pointer that rests on it is told."""
        self._over.append(mark(kind, self.x(x), self.y(y), said))

    def bar(self, x: float, low: float, high: float, kind: str) -> None:
        """An interval on the vertical scale."""
        at, bottom, top = self.x(x), self.y(low), self.y(high)
        ends = f"M{at:.1f} {bottom:.1f}V{top:.1f}M{at - 4:.1f} {bottom:.1f}h8M{at - 4:.1f} {top:.1f}h8"
        self._marks.append(tag("path", d=ends, class_=f"bar {kind}"))

    def line(self, points: Sequence[tuple[float, float]], kind: str) -> None:
        """A line through points."""
        path = "L".join(f"{self.x(x):.1f} {self.y(y):.1f}" for x, y in points)
        self._marks.append(tag("path", d=f"M{path}", class_=f"line {kind}"))

    def area(self, points: Sequence[tuple[float, float, float]], kind: str) -> None:
        """What lies between two lines, given as (x, low, high)."""
        there = [f"{self.x(x):.1f} {self.y(high):.1f}" for x, _, high in points]
        back = [f"{self.x(x):.1f} {self.y(low):.1f}" for x, low, _ in reversed(points)]
        self._marks.append(tag("path", d=f"M{'L'.join(there + back)}z", class_=f"area {kind}"))

    def across(self, y: float, said: str, kind: str = "asked", *, place: float = 1.0) -> None:
        """A horizontal line with its name, which stands at a place from 0 (left) to 1 (right)."""
        at = self.y(y)
        self._marks.append(tag("path", d=f"M{self._left} {at:.1f}H{WIDTH - _RIGHT}", class_=f"rule {kind}"))
        x = self._left + 4 + place * (WIDTH - _RIGHT - self._left - 8)
        anchor = {0.0: "start", 1.0: "end"}.get(place, "middle")
        self._over.append(_text(x, at - 5 if at > 30 else at + 14, said, anchor, "said"))

    def down(self, x: float, said: str, kind: str = "asked", *, low: bool = False) -> None:
        """A vertical line with its name, at its top or ``low`` at its foot."""
        at, bottom = self.x(x), self._height - _BOTTOM
        late = at > WIDTH * 0.6
        self._marks.append(tag("path", d=f"M{at:.1f} {_TOP}V{bottom}", class_=f"rule {kind}"))
        place = at - 5 if late else at + 5
        self._over.append(
            _text(place, bottom - 8 if low else _TOP + 11, said, "end" if late else "start", "said")
        )

    def svg(self, title: str, described_by: str) -> Markup:
        """The drawing as an image with a name, and the id of the text that describes it."""
        return drawing(title, described_by, self._height, self._axes, self._marks, self._over)

    @property
    def inner(self) -> tuple[float, float, float, float]:
        """Left, top, width and height of the inner area."""
        return self._left, _TOP, WIDTH - self._left - _RIGHT, self._height - _TOP - _BOTTOM

    @property
    def frame(self) -> tuple[float, float, float, float]:
        """The same as shares of the whole."""
        left, top, width, height = self.inner
        return left / WIDTH, top / self._height, width / WIDTH, height / self._height


def drawing(title: str, described_by: str, height: float, *children: Child) -> Markup:
    """An inline SVG that is an image to assistive technology."""
    return tag(
        "svg",
        *children,
        viewBox=f"0 0 {WIDTH:g} {height:g}",
        role="img",
        aria_label=title,
        aria_describedby=described_by,
    )


def mark(kind: str, x: float, y: float, said: str | None = None) -> Markup:
    """One mark of :data:`_SHAPES` at a place."""
    name = None if said is None else tag("title", said)
    place = f"translate({x:.1f} {y:.1f})"
    return tag("path", name, d=_SHAPES[kind], transform=place, class_=f"mark {kind}")


def words(x: float, y: float, said: str, anchor: str = "start", kind: str = "said") -> Markup:
    """Text in a drawing."""
    return _text(x, y, said, anchor, kind)


def _text(x: float, y: float, said: str, anchor: str, kind: str) -> Markup:
    return tag("text", said, x=x, y=y, text_anchor=None if anchor == "start" else anchor, class_=kind)


def _log1p(value: float) -> float:
    return math.log10(1 + value)


def _round(step: float) -> float:
    """The least of 1, 2, 5 times a power of ten that is not below ``step``."""
    scale = 10.0 ** math.floor(math.log10(step))
    return next(size * scale for size in (1, 2, 5, 10) if size * scale >= step * (1 - 1e-9))
