"""Scores of every arm of a text, computed from the statistics in evidence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from certify.base.errors import InvalidInputError
from certify.evidence.read import Manifest, TranslationRecord, iter_records
from lottery.text.score import LENGTH, RULES, Rule, Scores, Statistics, bleu_score, chrf_score


@dataclass(frozen=True, slots=True)
class ArmScores:
    """Scores of one arm on the whole text.

    Attributes:
        arm: name of the arm.
        sentences: number of sentences.
        ended: share of outputs that the arm ended itself.
        tokens: mean number of generated tokens per sentence.
        scores: one entry per extraction rule.
    """

    arm: str
    sentences: int
    ended: float
    tokens: float
    scores: tuple[Scores, ...]


def arm_scores(manifest: Manifest, folder: Path) -> tuple[ArmScores, ...]:
    """Compute corpus scores of every arm, in the manifest's order. Records are read once, one at a time.

    Args:
        manifest: evidence of kind ``translation``.
        folder: the folder that it lies in.

    Raises:
        InvalidInputError: the evidence has another kind (``EVIDENCE_KIND``) or is refused by
            :func:`certify.evidence.read.iter_records`.
        UsageError: a file cannot be read.
    """
    names = [arm.name for arm in manifest.arms]
    sums = {name: [[0] * LENGTH for _ in RULES] for name in names}
    ended, tokens = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    sentences = 0
    for record in iter_records(manifest, folder):
        if not isinstance(record, TranslationRecord):
            raise InvalidInputError("expected evidence with translations, found losses", code="EVIDENCE_KIND")
        sentences += 1
        for name, answer in record.arms.items():
            ended[name] += answer.ended
            tokens[name] += answer.length
            for total, which in zip(sums[name], answer.rules, strict=True):
                for index, value in enumerate(answer.stats[which]):
                    total[index] += value
    return tuple(
        ArmScores(
            arm=name,
            sentences=sentences,
            ended=ended[name] / sentences,
            tokens=tokens[name] / sentences,
            scores=tuple(
                _scores(manifest, rule, tuple(total)) for rule, total in zip(RULES, sums[name], strict=True)
            ),
        )
        for name in names
    )


def _scores(manifest: Manifest, rule: Rule, total: Statistics) -> Scores:
    return Scores(
        rule=rule,
        bleu=bleu_score(total),
        chrf=chrf_score(total),
        length_ratio=total[0] / max(1, total[1]),
        bleu_signature=manifest.signatures.get("bleu", ""),
        chrf_signature=manifest.signatures.get("chrf", ""),
    )
