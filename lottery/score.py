"""Scores of translations under three ways to cut an output, with the signatures behind them (theory §6).

A model that does not stop is scored very differently by each rule: all three are always reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

Rule = Literal["whole", "first-line", "cut"]
"""``whole``: the whole output; ``first-line``: its first non-empty line; ``cut``: up to a field label."""

RULES: tuple[Rule, ...] = get_args(Rule)


@dataclass(frozen=True, slots=True)
class Scores:
    """Corpus scores of one extraction rule.

    Attributes:
        rule: how outputs were cut.
        bleu: sacreBLEU BLEU, 0 to 100.
        chrf: sacreBLEU chrF++ (word order 2), 0 to 100.
        length_ratio: tokens of the outputs over tokens of the references, as BLEU counts them.
        bleu_signature: settings and version behind ``bleu``.
        chrf_signature: settings and version behind ``chrf``.
    """

    rule: Rule
    bleu: float
    chrf: float
    length_ratio: float
    bleu_signature: str
    chrf_signature: str


def extract(text: str, rule: Rule, labels: Sequence[str]) -> str:
    """Cut one output by ``rule``; white space at both ends is dropped.

    Args:
        text: the output.
        rule: how to cut.
        labels: field labels of the template, for rule ``cut``.
    """
    if rule == "first-line":
        return next((line.strip() for line in text.split("\n") if line.strip()), "")
    if rule == "cut":
        places = [place for label in labels if (place := text.find(label)) >= 0]
        text = text[: min(places)] if places else text
    return text.strip()


def corpus_scores(texts: Sequence[str], references: Sequence[str], rule: Rule) -> Scores:
    """BLEU and chrF++ of extracted ``texts`` against one reference each.

    Raises:
        ValueError: different numbers of texts and references, or none.
    """
    if len(texts) != len(references) or not texts:
        raise ValueError("as many texts as references are needed, and at least one")
    bleu, chrf = BLEU(), CHRF(word_order=2)
    result = bleu.corpus_score(list(texts), [list(references)])
    return Scores(
        rule=rule,
        bleu=float(result.score),
        chrf=float(chrf.corpus_score(list(texts), [list(references)]).score),
        length_ratio=result.sys_len / max(1, result.ref_len),
        bleu_signature=str(bleu.get_signature()),
        chrf_signature=str(chrf.get_signature()),
    )
