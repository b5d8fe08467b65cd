"""Untrusted text never drives the terminal: ``certify.base.text.escape``."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from certify.base.text import counted, escape

# Invisible code points by Unicode's Default_Ignorable_Code_Point that are neither controls nor format
# characters, so that the general category alone would let them through.
IGNORABLE = "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180f\u3164\ufe00\ufe0f\uffa0\U000e0100\U000e01ef"
RUNS = st.text(st.one_of(st.characters(), st.sampled_from("\x1b\x9b\u202e\u200b\u2028\ud800" + IGNORABLE)))


@pytest.mark.parametrize("char", [chr(code) for code in (*range(32), *range(0x7F, 0xA0))])
def test_every_control_is_shown_as_an_escape(char: str) -> None:
    shown = escape(f"a{char}b")
    assert char not in shown
    assert shown.startswith("a\\")
    assert shown.isprintable()


@pytest.mark.parametrize(
    "char", ["\u202e", "\u2066", "\u200b", "\u200d", "\ufeff", "\u2028", "\u00ad", *IGNORABLE]
)
def test_marks_that_nobody_sees_are_shown(char: str) -> None:
    code = ord(char)
    digits = f"x{code:02x}" if code < 0x100 else f"u{code:04x}" if code < 0x10000 else f"U{code:08x}"
    assert escape(f"a{char}b") == f"a\\{digits}b"


def test_what_people_read_stays() -> None:
    text = "▁the café ñ 日本語 «x» 🙂 C:\\dir [red]"
    assert escape(text) == text


@given(RUNS)
@example("\x1b]0;title\x07\x1b[31mred\x1b[0m")
@example("\ud800")
def test_nothing_hidden_survives(text: str) -> None:
    shown = escape(text)
    shown.encode("utf-8")
    for char in shown:
        assert unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
        assert char not in IGNORABLE


@given(RUNS, st.integers(1, 40))
def test_limit_bounds_the_result_and_marks_the_cut(text: str, limit: int) -> None:
    whole, cut = escape(text), escape(text, limit=limit)
    assert len(cut) <= limit
    assert cut == whole if len(whole) <= limit else cut == whole[: limit - 1] + "…"


@given(RUNS)
def test_escaping_twice_changes_nothing(text: str) -> None:
    # Errors are escaped when they are made and again when they are printed.
    assert escape(escape(text)) == escape(text)


def test_one_is_no_plural() -> None:
    assert [counted(number, "row") for number in (0, 1, 2)] == ["0 rows", "1 row", "2 rows"]
