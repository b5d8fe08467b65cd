"""Showing untrusted text: nothing that a piece, a path or a field contains may drive the terminal."""

from __future__ import annotations

import unicodedata

# Format characters (bidirectional overrides, zero-width joiners), controls, surrogates, private use,
# unassigned, and the line and paragraph separators.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def escape(text: str, *, limit: int | None = None) -> str:
    """Return ``text`` with every invisible or terminal-driving character as a visible escape.

    Args:
        text: any string, lone surrogates included.
        limit: greatest number of characters returned; a longer text ends in ``…``.
    """
    shown = "".join(_visible(char) for char in text)
    if limit is not None and len(shown) > limit:
        return shown[: limit - 1] + "…"
    return shown


def _visible(char: str) -> str:
    if char == "\\":
        return char
    if unicodedata.category(char) not in _HIDDEN:
        # A combining mark on its own would attach to whatever stands before it.
        return f"\\u{ord(char):04x}" if unicodedata.combining(char) else char
    simple = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(char)
    if simple is not None:
        return simple
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
