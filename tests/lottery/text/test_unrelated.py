"""Choosing passages of unrelated text, against plain loops; windows that lose nothing."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_tokenizer import framed, tiny_tokenizer

from certify.base.errors import CertifyError
from certify.ticket.corpus import Take
from lottery.text.unrelated import Passage, choose_passages, passage_windows

# Lines that differ, lines that are the same once normalised, and lines without a letter.
LINES = st.lists(
    st.sampled_from(
        ["one", "One!", " one ", "two", "TWO", "three", "four", "five", "six", "", " ", "…", "7"]
    ),
    max_size=30,
)


def digest(line: str) -> str:
    """Of lines like those above: letters and digits, lower case."""
    return hashlib.sha256("".join(c for c in line.lower() if c.isalnum()).encode()).hexdigest()


@given(
    lines=LINES,
    block=st.integers(1, 4),
    every=st.integers(1, 3),
    limit=st.sampled_from([None, 1, 2]),
    used=st.sets(st.sampled_from(["one", "three", "seven"])),
    digits=st.sampled_from([16, 64]),
    take=st.sampled_from(["sample", "first"]),
)
def test_passages_are_those_of_a_plain_loop(
    lines: list[str], block: int, every: int, limit: int | None, used: set[str], digits: int, take: Take
) -> None:
    banned = {digest(word)[:digits] for word in used}
    kept: list[tuple[int, str]] = []
    seen: set[str] = set()
    for number, line in enumerate(lines, start=1):
        known = digest(line) in seen or digest(line)[:digits] in banned
        if any(c.isalnum() for c in line) and not known:
            kept.append((number, line.strip()))
        seen.add(digest(line))
    whole = [kept[i : i + block] for i in range(0, len(kept), block)]
    whole = [part for part in whole if len(part) == block]
    expected = [
        Passage(str(i), f"t:{part[0][0]}-{part[-1][0]}", tuple(line for _, line in part))
        for i, part in enumerate(whole)
        if i % every == 0
    ]
    if take == "sample":
        by_digest = sorted(expected, key=lambda one: sorted(digest(line)[:16] for line in one.lines))
        expected = [passage for passage in expected if passage in by_digest[:limit]]
    expected = expected[:limit]
    options: dict[str, Any] = {"name": "t", "block": block, "every": every, "limit": limit, "used": banned}
    options["take"] = take
    if not expected:
        with pytest.raises(CertifyError) as caught:
            choose_passages(lines, **options)
        assert caught.value.code == "NO_TEXT"
        return
    found = choose_passages(iter(lines), **options)
    assert list(found.passages) == expected
    assert found.unit == f"block:{block}"
    digests = sorted({one for passage in found.passages for one in passage.digests})
    assert digests == sorted({digest(line)[:16] for passage in expected for line in passage.lines})
    assert not set(digests) & {each[:16] for each in banned}
    assert found == choose_passages(lines, **options)
    # No sentence occurs twice in what was chosen.
    assert len(digests) == block * len(expected)


def test_the_digest_is_that_of_the_text() -> None:
    texts = [["a", "b", "c", "d"], ["c", "d", "a", "b"], ["a", "b", "c", "e"], ["a", "b c", "c", "d"]]
    found = [choose_passages(lines, name="t", block=2).digest() for lines in texts]
    assert len(set(found)) == 4
    digests = [[hashlib.sha256(line.encode()).hexdigest()[:16] for line in unit] for unit in ("ab", "cd")]
    lines = "".join(f"{digest}\n" for unit in digests for digest in sorted(unit))
    expected = hashlib.sha256(lines.encode()).hexdigest()
    assert found[0] == expected == choose_passages(["a", "b", "!", "c", "d"], name="u", block=2).digest()


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"block": 0}, "LIMITS"),
        ({"block": 1, "every": 0}, "LIMITS"),
        ({"block": 1, "limit": 0}, "LIMITS"),
        ({"block": 1, "used": {"abc"}}, "DIGEST"),
        ({"block": 3}, "NO_TEXT"),
        ({"block": 1, "used": {digest("a"), digest("b")}}, "NO_TEXT"),
    ],
)
def test_refused(options: dict[str, Any], code: str) -> None:
    with pytest.raises(CertifyError) as caught:
        choose_passages(["a", "b"], name="t", **options)
    assert caught.value.code == code


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer()


@pytest.mark.parametrize("most", [2, 3, 7, 1000])
def test_windows_lose_nothing(tokenizer: Any, most: int) -> None:
    lines = ["Where is the house?", "The dog is in the garden.", "I do not know.", "On és la casa?"]
    passages = choose_passages(lines, name="t", block=2).passages
    windows = passage_windows(passages, tokenizer, max_tokens=most)
    assert len({window.id for window in windows}) == len(windows)
    for passage in passages:
        mine = [window for window in windows if window.unit == passage.unit]
        assert [window.id for window in mine] == [f"{passage.id}/{j}" for j in range(len(mine))]
        assert all(window.ids[0] == tokenizer.bos_token_id for window in mine)
        assert all(2 <= len(window.ids) <= most for window in mine)
        assert all(len(window.ids) == most for window in mine[:-1])
        assert tokenizer.decode([i for window in mine for i in window.ids[1:]]) == passage.text
        assert {window.lines for window in mine} == {
            tuple(sorted(digest(line)[:16] for line in passage.lines))
        }


def test_lines_with_a_control_token_are_left_out(tokenizer: Any) -> None:
    lines = ["Where is the house?", "The </s> dog.", "I do not know.", "On és la casa?"]
    found = choose_passages(lines, name="t", block=1, tokenizer=tokenizer)
    assert [passage.text for passage in found.passages] == [lines[0], *lines[2:]]
    assert found.left_out() == {"empty": 0, "repeated": 0, "used_before": 0, "control_token": 1}


def test_windows_that_cannot_be(tokenizer: Any) -> None:
    passages = choose_passages(["a"], name="t", block=1).passages
    with pytest.raises(CertifyError) as caught:
        passage_windows(passages, tokenizer, max_tokens=1)
    assert caught.value.code == "LIMITS"
    bare = framed(tiny_tokenizer(), "$A")
    assert passage_windows(passages, bare, max_tokens=8)[0].ids[0] == bare.bos_token_id
    bare.bos_token = None
    with pytest.raises(CertifyError) as caught:
        passage_windows(passages, bare, max_tokens=8)
    assert caught.value.code == "TOKENIZER_NO_BOS"
