"""Show untrusted text, so that no piece, path or field can control the terminal."""

from __future__ import annotations

import unicodedata

# Format characters (bidirectional overrides, zero-width joiners), controls, surrogates, private use,
# unassigned, and the line and paragraph separators.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})

# Letters or marks that are invisible by Unicode's Default_Ignorable_Code_Point: fillers, inherent vowels,
# joiners and variation selectors.
_INVISIBLE = frozenset(
    chr(code)
    for first, last in (
        (0x034F, 0x034F),
        (0x115F, 0x1160),
        (0x17B4, 0x17B5),
        (0x180B, 0x180F),
        (0x3164, 0x3164),
        (0xFE00, 0xFE0F),
        (0xFFA0, 0xFFA0),
        (0xE0100, 0xE01EF),
    )
    for code in range(first, last + 1)
)


# Digits, Cyrillic and Greek letters by the Latin letter that they look like; 1 and i look like l.
_ALIKE = {
    "a": "4\u0430\u03b1\u0251",
    "b": "\u0432\u03b2",
    "c": "\u0441",
    "d": "\u0501",
    "e": "3\u0435\u03b5",
    "g": "\u0261",
    "h": "\u043d\u04bb",
    "j": "\u0458",
    "k": "\u043a\u03ba",
    "l": "1i|\u0456\u0457\u03b9\u0131\u0269",
    "m": "\u043c",
    "n": "\u03b7",
    "o": "0\u043e\u03bf",
    "p": "\u0440\u03c1",
    "q": "\u051b",
    "s": "5\u0455",
    "t": "7\u0442\u03c4",
    "u": "\u03c5",
    "v": "\u03bd",
    "w": "\u051d\u03c9",
    "x": "\u0445\u03c7",
    "y": "\u0443\u03b3",
}
_LOOKS = str.maketrans({char: letter for letter, chars in _ALIKE.items() for char in chars})


def looks_like(text: str) -> str:
    """What ``text`` looks like at a glance: texts that are easily taken for each other have the same result.

    Compatibility forms, case, separators and marks do not count; 0 is o, 1 and i are l, rn is m, and Cyrillic
    and Greek letters are the Latin ones that they resemble.
    """
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
    letters = "".join(char for char in folded if char.isalnum() or char == "|").translate(_LOOKS)
    return letters.replace("rn", "m").replace("vv", "w")


def counted(number: int, noun: str) -> str:
    """``1 row``, ``2 rows``: a number and what it counts; nouns that take an s only."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def hidden(char: str) -> bool:
    """Whether ``char`` is invisible or could control a terminal, as line breaks and tabs do."""
    return char in _INVISIBLE or unicodedata.category(char) in _HIDDEN


def escape(text: str, *, limit: int | None = None) -> str:
    """Replace every invisible or terminal-controlling character of ``text`` by a visible escape.

    Args:
        text: any string, including lone surrogates.
        limit: largest number of characters to return; a longer text ends in ``…``.
    """
    shown = text.translate(_VISIBLE)
    if limit is not None and len(shown) > limit:
        return shown[: limit - 1] + "…"
    return shown


class _Visible(dict[int, str]):
    def __missing__(self, code: int) -> str:
        return self.setdefault(code, _visible(chr(code)))


_VISIBLE = _Visible()


def _visible(char: str) -> str:
    if char == "\\":
        return char
    if not hidden(char):
        # A lone combining mark would attach to the character before it.
        return f"\\u{ord(char):04x}" if unicodedata.combining(char) else char
    simple = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(char)
    if simple is not None:
        return simple
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
