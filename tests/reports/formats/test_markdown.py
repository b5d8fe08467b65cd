"""Markdown as another program reads it: what stands in files is text there, never markup."""

from __future__ import annotations

import re
from typing import Any

import pytest
from formats_world import HOSTILE, denied_run, hostile_text, with_text
from hypothesis import example, given
from markdown_it import MarkdownIt

from certify.base.text import escape
from reports.formats import markdown

READER = MarkdownIt("gfm-like", {"linkify": True})
# What GitHub and GitLab look for in the text of the finished page, outside code.
REFERENCE = re.compile(r"[@#!~$%&^:][\w/]|\bwww\.", re.IGNORECASE)


def inline(source: str) -> list[Any]:
    """Inline parts of the only block of ``source``."""
    blocks = [token.type for token in READER.parse(source)]
    assert blocks == ["paragraph_open", "inline", "paragraph_close"]
    return READER.parse(source)[1].children or []


@given(hostile_text)
@example("2. a\\|b")
@example("-")
def test_prose_is_text_and_nothing_else(text: str) -> None:
    source = markdown.prose(text)
    if not source:
        return
    (part,) = inline(source)
    assert part.type == "text"
    assert part.content.replace("\u200b", "") == escape(text).strip()
    assert REFERENCE.search(part.content) is None


@given(hostile_text)
def test_code_is_code_and_nothing_else(text: str) -> None:
    first, *more = inline(markdown.code(text))
    if first.type == "code_inline":
        assert (more, first.content) == ([], escape(text).strip())
        return
    shown = [part.content for part in more[:-1]]
    assert [first.content, more[-1].content] == ["<code>", "</code>"]
    assert [part.type for part in more[:-1]] in ([], ["text"])
    assert "".join(shown).replace("\u200b", "") == escape(text).strip()


@given(hostile_text)
def test_a_report_has_the_same_markup_whatever_stands_in_it(text: str) -> None:
    def skeleton(words: str) -> list[str]:
        found = []
        for block in READER.parse(markdown.render(with_text(words))):
            found.append(block.type if block.type != "html_block" else block.content)
            for part in block.children or ():
                if part.type not in ("text", "code_inline", "html_inline", "softbreak"):
                    found.append(part.type)
                if part.type == "html_inline":
                    assert part.content in ("<code>", "</code>")
        return found

    assert skeleton(f"x{text}") == skeleton("word")
    assert "link_open" not in skeleton("word")


def test_the_reader_sees_what_the_tests_look_for() -> None:
    """The control: unescaped, the hostile texts are links, markup and references."""
    seen = {part.type for text in HOSTILE for part in READER.parse(f"x{text}")[1].children or ()}
    assert {"link_open", "code_inline", "html_inline", "strong_open", "em_open", "image"} <= seen
    assert any(REFERENCE.search(text) for text in HOSTILE)


@pytest.mark.parametrize("tickets", [1, 30])
def test_what_is_shared_is_said_once(tickets: int) -> None:
    text = markdown.render(denied_run(tickets))
    assert text.count("Not claimed:") == 1
    assert len(re.findall(r"^## INCONCLUSIVE ", text, re.MULTILINE)) == tickets
