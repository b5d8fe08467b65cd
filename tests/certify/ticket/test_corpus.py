"""Cleaning, order, parts and disjointness of parallel text."""

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

from certify.base.errors import InvalidInputError, UsageError
from certify.ticket import corpus
from certify.ticket.corpus import Pair, deduplicate, normalise, overlap, shuffle, split
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


@given(pair_lists(), st.integers(0, 3))
def test_shuffling_depends_on_the_text_and_not_on_the_order(pairs: list[Pair], seed: int) -> None:
    shuffled = shuffle(pairs, seed=seed)
    assert sorted(shuffled, key=repr) == sorted(pairs, key=repr)
    assert shuffle(reversed(pairs), seed=seed) == shuffled


def test_another_seed_is_another_order_and_the_order_is_pinned() -> None:
    pairs = [Pair(f"s{index}", f"t{index}", f"x:{index}") for index in range(6)]
    ranks = {f"s{i}": sha256(f'[1,"s{i}","t{i}"]'.encode()).digest() for i in range(6)}
    first = [pair.source for pair in shuffle(pairs, seed=1)]
    assert first == sorted(ranks, key=ranks.__getitem__)
    assert first != [pair.source for pair in shuffle(pairs, seed=2)]


@given(pair_lists(), st.integers(0, 5), st.integers(0, 5))
def test_parts_are_disjoint_per_sentence(pairs: list[Pair], first: int, second: int) -> None:
    unique = deduplicate(pairs)
    if first + second > len(unique):
        with pytest.raises(InvalidInputError, match="are asked for"):
            split(unique, {"a": first, "b": second}, seed=0)
        return
    parts = split(unique, {"a": first, "b": second}, seed=0)
    assert [len(parts["a"]), len(parts["b"])] == [first, second]
    assert not overlap(parts["a"], parts["b"])
    corpus.require_disjoint(parts)
    # A longer first part begins with the shorter one: sizes do not reshuffle.
    assert split(unique, {"a": first}, seed=0)["a"] == parts["a"]


def test_parts_of_repeated_sentences_are_refused() -> None:
    pairs = [Pair("One.", "a", "x:1"), Pair("one", "b", "x:2")]
    with pytest.raises(InvalidInputError, match="twice") as caught:
        split(pairs, {"a": 1}, seed=0)
    assert caught.value.code == "DUPLICATES"


def test_overlap_names_a_witness_on_each_side() -> None:
    first = [Pair("Hello!", "Hola", "a:1"), Pair("Yes", "Sí", "a:2")]
    second = [Pair("hello", "Bon dia", "b:7"), Pair("Aye", "SÍ.", "b:8"), Pair("Sí", "Hello", "b:9")]
    found = overlap(first, second)
    assert found.source == (("a:1", "b:7"),)
    assert found.target == (("a:2", "b:8"),)  # b:9 has both sentences, on the other sides
    with pytest.raises(InvalidInputError, match=r"tuning and dev share 2 sentence.*a:1 = b:7") as caught:
        corpus.require_disjoint({"tuning": first, "scan": [], "dev": second})
    assert caught.value.code == "DATA_OVERLAP"


@given(pair_lists(), pair_lists())
def test_excluding_leaves_nothing_shared(pairs: list[Pair], others: list[Pair]) -> None:
    rest = corpus.exclude(pairs, others)
    assert not overlap(rest, others)
    for pair in pairs:
        assert (pair in rest) == (not overlap([pair], others))


@given(pair_lists(), pair_lists())
def test_overlap_agrees_with_the_digests(first: list[Pair], second: list[Pair]) -> None:
    for side in ("source", "target"):
        left, right = (set(corpus.sentence_digests(pairs, side)) for pairs in (first, second))
        assert len(getattr(overlap(first, second), side)) == len(left & right)


def test_lengths_are_in_characters_and_on_both_sides() -> None:
    pairs = [Pair("ab", "àé", "1"), Pair("a", "abc", "2"), Pair("abcd", "abc", "3"), Pair("abc", "ab", "4")]

    def ids(**limits: float) -> list[str]:
        limits = {"max_characters": 3, **limits}
        return [pair.id for pair in corpus.within_length(pairs, **limits)]  # type: ignore[arg-type]

    assert ids() == ["1", "2", "4"]
    assert ids(min_characters=2) == ["1", "4"]
    assert ids(max_ratio=1.5) == ["1", "4"]
    assert ids(max_ratio=1.0) == ["1"]
    with pytest.raises(UsageError, match="limits"):
        ids(min_characters=9)


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
    corpus.require_disjoint({"tuning": tuning, "choice": choice})
    planted = [*choice, Pair(tuning[3].source.upper() + " !", "x", "planted")]
    with pytest.raises(InvalidInputError, match="planted"):
        corpus.require_disjoint({"tuning": tuning, "choice": planted})


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
    assert overlap(first, second)
    monkeypatch.setattr(corpus, "normalise", broken)
    assert not overlap(first, second)
