"""Cleaning parallel text, and leaving out what another text holds."""

from __future__ import annotations

import os
import string
import unicodedata
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certify.base.errors import UsageError
from certify.ticket import corpus
from certify.ticket.corpus import Pair, deduplicate, drawn, normalise, pair_digests
from lottery.text.pairsource import read_pairs

SENTENCES = st.text(alphabet="aAbB ,.!é", max_size=6)


@st.composite
def pair_lists(draw: st.DrawFn) -> list[Pair]:
    rows = draw(st.lists(st.tuples(SENTENCES, SENTENCES), max_size=12))
    return [Pair(source, target, f"x:{index}") for index, (source, target) in enumerate(rows)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Where is it?", "where is it"),
        ("l’home", "L'HOME"),
        ("ﬁn", "FIN"),
        ("Straße", "STRASSE"),
        ("caf\u00e9", "cafe\u0301"),
        ("intel·ligent", "intelligent"),
        ("a\u00a0b\u200b c\u2028", "ABC"),
        ("２", "2"),
    ],
)
def test_equal_up_to_case_punctuation_space_and_form(one: str, other: str) -> None:
    assert normalise(one) == normalise(other)
    assert corpus.sentence_digest(one) == corpus.sentence_digest(other)


@pytest.mark.parametrize(("one", "other"), [("cafe", "café"), ("a1", "a2"), ("té", "te"), ("ab", "ba")])
def test_different_letters_stay_different(one: str, other: str) -> None:
    assert normalise(one) != normalise(other)


@given(st.text(max_size=30))
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert not any(character.isspace() or character in string.punctuation for character in once)


@given(st.text(max_size=20))
def test_normal_form_ignores_the_unicode_form(text: str) -> None:
    assert normalise(unicodedata.normalize("NFD", text)) == normalise(unicodedata.normalize("NFC", text))


def test_digest_is_the_sha256_of_the_normal_form() -> None:
    assert corpus.sentence_digest("It's 5!") == sha256(b"its5").hexdigest()


@given(pair_lists())
def test_deduplication_against_a_quadratic_oracle(pairs: list[Pair]) -> None:
    kept: list[Pair] = []
    for index, pair in enumerate(pairs):
        clash = [
            other
            for other in kept
            if normalise(other.source) == normalise(pair.source)
            or normalise(other.target) == normalise(pair.target)
        ]
        if not clash:
            kept.append(pairs[index])
    assert deduplicate(pairs) == kept


def shared(pair: Pair, others: list[Pair]) -> bool:
    return any(
        normalise(pair.source) == normalise(other.source) or normalise(pair.target) == normalise(other.target)
        for other in others
    )


@given(pair_lists(), pair_lists())
def test_excluding_leaves_nothing_shared(pairs: list[Pair], others: list[Pair]) -> None:
    rest = corpus.exclude(pairs, others)
    assert rest == [pair for pair in pairs if not shared(pair, others)]


def test_the_digest_of_a_corpus_sees_text_and_order_but_not_ids() -> None:
    one, two = Pair("a", "b", "x:1"), Pair("c", "d", "x:2")
    digest = corpus.corpus_digest([one, two])
    assert digest == corpus.corpus_digest([Pair("a", "b", "y:1"), Pair("c", "d", "y:2")])
    assert digest != corpus.corpus_digest([two, one])
    assert corpus.corpus_digest([Pair("a", "bc", "")]) != corpus.corpus_digest([Pair("ab", "c", "")])


def _real(name: str) -> list[Pair]:
    root = os.environ.get("CERTIFY_DATA")
    if not root:
        pytest.skip("CERTIFY_DATA is not set: no real text")
    return read_pairs(Path(root) / "data" / name, "en", "ca")


def test_real_tuning_choice_and_test_data_are_disjoint() -> None:
    tuning, choice = _real("en-ca/gv.train10k"), _real("en-ca/gv.dev")
    assert (len(tuning), len(choice)) == (10_000, 500)
    planted = [*choice, Pair(tuning[3].source.upper() + " !", "x", "planted")]
    assert corpus.exclude(planted, tuning) == choice


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(lambda text: text.casefold(), id="case-only"),
        pytest.param(lambda text: text.replace(" ", ""), id="space-only"),
    ],
)
def test_a_weaker_normal_form_would_be_caught(
    broken: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = [Pair("It is, so", "a", "a:1")], [Pair("it is so", "b", "b:1")]
    assert not corpus.exclude(second, first)
    monkeypatch.setattr(corpus, "normalise", broken)
    assert corpus.exclude(second, first)


@given(st.permutations(range(30)), st.integers(1, 31))
def test_a_drawn_sample_depends_on_the_sentences_alone(order: list[int], count: int) -> None:
    pairs = [Pair(f"sentence {i}", f"frase {i}", f"t:{i}") for i in range(30)]
    shuffled = [pairs[i] for i in order]
    kept = drawn(shuffled, count, pair_digests)
    assert {pair.id for pair in kept} == {pair.id for pair in drawn(pairs, count, pair_digests)}
    assert kept == [pair for pair in shuffled if pair in kept], "in the order of the text"
    assert len(kept) == min(count, 30)
    assert drawn(shuffled, count, pair_digests, "first") == shuffled[:count]
    assert drawn(shuffled, None, pair_digests) == shuffled
    for none in (0, -1):
        with pytest.raises(UsageError) as caught:
            drawn(shuffled, none, pair_digests)
        assert caught.value.code == "LIMITS"
    assert drawn(pairs, 10, pair_digests) != pairs[:10], "not the first ones"
