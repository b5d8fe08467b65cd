"""Statistics and scores against sacreBLEU, extraction by rules written out again, what must be refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from certify.base.errors import UsageError
from certify.base.records import RULES
from certify.evidence.record import STATISTICS
from certify.evidence.sentence_scores import POINT, sentence_chrf
from lottery.text.score import (
    Scorer,
    add,
    bleu_score,
    chrf_score,
    extract,
    signatures,
)

# What scorers stumble over: punctuation at both ends, numbers, entities, no-break spaces, nothing at all.
WORDS = (
    *("el", "gat", "dorm", "(hi)", "x.", "!", ".", "1,000", "don't", "é", "…", "\u00a0q", "&quot;", "''"),
    *("-", "a-b", "", "\n", "“", "¿què?", "3.5", "GAT", "\t", "日本", "e\u0301"),
)
TEXTS = st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join)
PAIRS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=6)


def statistics(pairs: list[tuple[str, str]]) -> list[tuple[int, ...]]:
    scorer = Scorer()
    return [scorer.statistics(text, reference) for text, reference in pairs]


@given(PAIRS)
def test_corpus_scores_are_sacrebleus_bit_for_bit(pairs: list[tuple[str, str]]) -> None:
    texts, references = [text for text, _ in pairs], [reference for _, reference in pairs]
    total = add(statistics(pairs))
    assert bleu_score(total) == BLEU(force=True).corpus_score(texts, [references]).score
    assert chrf_score(total) == CHRF(word_order=2).corpus_score(texts, [references]).score


@given(TEXTS, TEXTS)
def test_sentence_chrf_is_sacrebleus(text: str, reference: str) -> None:
    (vector,) = statistics([(text, reference)])
    score = sentence_chrf(vector)
    assert 0 <= score <= 100 * POINT
    assert score / POINT == pytest.approx(
        CHRF(word_order=2).sentence_score(text, [reference]).score, abs=1e-9
    )


@given(PAIRS)
def test_statistics_add_up_and_stay_possible(pairs: list[tuple[str, str]]) -> None:
    vectors = statistics(pairs)
    assert add(vectors) == tuple(sum(column) for column in zip(*vectors, strict=True))
    for vector in vectors:
        assert len(vector) == STATISTICS == 34
        assert vector[6] == vector[0]
        assert all(correct <= total for correct, total in zip(vector[2:6], vector[6:10], strict=True))
        triples = zip(vector[10::3], vector[11::3], vector[12::3], strict=True)
        assert all(match <= min(ours, theirs) for ours, theirs, match in triples)


def test_perfect_and_empty_outputs() -> None:
    same, nothing = statistics([("el gat dorm aquí", "el gat dorm aquí"), ("", "el gat")])
    assert sentence_chrf(same) == 100 * POINT
    assert bleu_score(same) == pytest.approx(100)
    assert sentence_chrf(nothing) == 0
    assert bleu_score(nothing) == chrf_score(nothing) == 0
    (blank,) = statistics([("", "")])
    assert blank == (0,) * 34
    assert sentence_chrf(blank) == 0


def test_nothing_to_add_is_an_error() -> None:
    with pytest.raises(ValueError, match="no statistics"):
        add([])
    with pytest.raises(ValueError, match="3 numbers"):
        add([(1, 2, 3)])


def test_the_signatures_are_sacrebleus() -> None:
    scorer = Scorer()
    bleu, chrf = BLEU(), CHRF(word_order=2)
    bleu.corpus_score(["a b"], [["a b"]])
    chrf.corpus_score(["a b"], [["a b"]])
    assert scorer.bleu_signature == str(bleu.get_signature())
    assert scorer.chrf_signature == str(chrf.get_signature())
    score = scorer.scores([scorer.statistics("el gat", "el gos")], "cut")
    assert (score.rule, score.bleu_signature) == ("cut", scorer.bleu_signature)
    assert score.length_ratio == 1


# --- extraction ------------------------------------------------------------------------------------------

LABELS = ("English:", "Catalan:")
OUTPUTS = st.lists(
    st.sampled_from(["Hola.", " ", "\n", "\t", "English:", "Catalan:", "Adéu", "english:", "\r"]), max_size=9
).map("".join)


@given(OUTPUTS)
def test_extraction_says_what_its_rules_say(output: str) -> None:
    whole, first, cut = (extract(output, rule, LABELS) for rule in RULES)
    assert whole == output.strip()
    lines = [line.strip() for line in output.split("\n")]
    assert first == ([line for line in lines if line] + [""])[0]
    before = output
    for label in LABELS:
        before = before.split(label)[0]
    assert cut == before.strip()


@given(OUTPUTS, TEXTS)
def test_rules_share_vectors_only_where_they_agree(output: str, reference: str) -> None:
    scorer = Scorer()
    vectors, which = scorer.rules(output, LABELS, reference)
    assert len(set(vectors)) == len(vectors) <= 3
    assert set(which) == set(range(len(vectors)))
    for rule, index in zip(RULES, which, strict=True):
        assert vectors[index] == scorer.statistics(extract(output, rule, LABELS), reference)


# --- spBLEU ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokenizer", ["flores101", "flores200"])
def test_spbleu_is_never_replaced_by_something_else(
    tokenizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its model on this machine it is refused, and nothing is fetched."""
    monkeypatch.setattr("sacrebleu.utils.SACREBLEU_DIR", str(tmp_path))
    monkeypatch.setattr("lottery.text.score.find_spec", lambda _: object())
    with pytest.raises(UsageError) as error:
        Scorer(tokenizer)
    assert error.value.code == "SPBLEU_UNAVAILABLE"
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr("lottery.text.score.find_spec", lambda _: None)
    with pytest.raises(UsageError, match="spbleu"):
        Scorer(tokenizer)


def test_the_signature_of_an_absent_tokenizer_names_it() -> None:
    scorer = Scorer()
    assert signatures("13a") == (scorer.bleu_signature, scorer.chrf_signature)
    assert signatures("flores101")[0] == scorer.bleu_signature.replace("tok:13a", "tok:flores101")
    assert signatures("flores101")[1] == scorer.chrf_signature


def test_spbleu_with_a_model_at_hand_is_sacrebleus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small model of our own in the place of the published one: what counts is that it is used."""
    sentencepiece = pytest.importorskip("sentencepiece", reason="needs the extra spbleu")
    lines = tmp_path / "text"
    lines.write_text("\n".join(f"the house number {i} is near the old sea wall" for i in range(60)))
    (tmp_path / "models").mkdir()
    sentencepiece.SentencePieceTrainer.train(
        input=str(lines),
        model_prefix=str(tmp_path / "models" / "sacrebleu_tokenizer_spm"),
        vocab_size=36,
        minloglevel=2,
    )
    for module in ("sacrebleu.utils", "sacrebleu.tokenizers.tokenizer_spm"):
        monkeypatch.setattr(f"{module}.SACREBLEU_DIR", str(tmp_path))
    output, reference = "the house is near the wall", "the old house is near a wall"
    oracle = BLEU(tokenize="flores101")
    expected = oracle.corpus_score([output], [[reference]])
    scorer = Scorer("flores101")
    found = scorer.statistics(output, reference)
    assert (list(found[2:6]), list(found[6:10])) == (expected.counts, expected.totals)
    assert found[:10] != Scorer().statistics(output, reference)[:10]
    assert scorer.bleu_signature == str(oracle.get_signature())
