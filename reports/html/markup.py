"""HTML and SVG by construction: whatever is put into markup is escaped, unless it was built here."""

from __future__ import annotations

import html
from collections.abc import Iterable

from certify.base.text import escape

Child = object
"""A piece of content: markup, an iterable of pieces, None for nothing, or anything else as text."""

_VOID = frozenset({"br", "input", "meta"})


class Markup(str):
    """Text that is markup; made by :func:`tag` and :func:`join`, and of files of this package."""

    __slots__ = ()


def join(*children: Child) -> Markup:
    """Pieces of content one after the other.

    Text has every invisible or controlling character replaced by a visible escape
    (:func:`certify.base.text.escape`), and then the characters that HTML gives a meaning.
    """
    return Markup("".join(_pieces(children)))


def tag(name: str, /, *children: Child, **attributes: object) -> Markup:
    """One element with its content.

    Args:
        name: of the element.
        children: its content.
        attributes: by name, ``_`` for ``-`` and a trailing one dropped (``class_``); None and False leave one
            out, True gives it no value, numbers have two decimals at most.
    """
    given = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{_value(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    return Markup(f"<{name}{given}>" if name in _VOID else f"<{name}{given}>{join(*children)}</{name}>")


def _pieces(children: Iterable[Child]) -> Iterable[str]:
    for child in children:
        if isinstance(child, Markup):
            yield child
        elif isinstance(child, Iterable) and not isinstance(child, str):
            yield from _pieces(child)
        elif child is not None:
            yield _safe(str(child))


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return _safe(str(value))


def _safe(text: str) -> str:
    plain = text.isascii() and text.isprintable()  # the usual one, and fast
    return html.escape(text if plain else escape(text))
