"""Scores of every arm of a text, computed from the statistics in evidence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from certify.base.errors import InvalidInputError
from certify.base.records import RULES, Rule
from certify.evidence.read import Answer, Manifest, TranslationRecord, iter_records
from certify.evidence.record import STATISTICS
from lottery.text.score import Scores, Statistics, scored


@dataclass(frozen=True, slots=True)
class ArmScores:
    """Scores of one arm on the whole text.

    Attributes:
        ended: share of outputs that the arm ended itself, of those that say; None if none does.
        tokens: mean number of generated tokens per sentence; 0 if the evidence does not say.
        scores: one entry per extraction rule.
    """

    arm: str
    sentences: int
    ended: float | None
    tokens: float
    scores: tuple[Scores, ...]


class ArmTally:
    """Sums over the sentences of one arm.

    Attributes:
        ended: outputs that the arm ended itself.
        told: outputs that say whether it did.
        differing: steps along the reference's outputs at which the arm would have said something else.
        equal: sentences without such a step.
    """

    def __init__(self) -> None:
        """Nothing is counted yet."""
        self.ended = self.told = self.tokens = self.differing = self.equal = 0
        self._sums = [[0] * STATISTICS for _ in RULES]

    def add(self, answer: Answer) -> None:
        """Count the answer to one sentence."""
        self.ended += answer.ended is True
        self.told += answer.ended is not None
        self.tokens += answer.length
        self.differing += len(answer.differs)
        self.equal += not answer.differs
        for total, which in zip(self._sums, answer.rules, strict=True):
            for index, value in enumerate(answer.stats[which]):
                total[index] += value

    @property
    def totals(self) -> dict[Rule, Statistics]:
        """Summed statistics under every rule."""
        return {rule: tuple(total) for rule, total in zip(RULES, self._sums, strict=True)}


def arm_scores(manifest: Manifest, folder: Path) -> tuple[ArmScores, ...]:
    """Compute corpus scores of every arm, in the manifest's order. Records are read once, one at a time.

    Args:
        manifest: evidence of kind ``translation``.

    Raises:
        InvalidInputError: the evidence has another kind (``EVIDENCE_KIND``) or is refused by
            :func:`certify.evidence.read.iter_records`.
        UsageError: a file cannot be read.
    """
    tallies = {arm.name: ArmTally() for arm in manifest.arms}
    signatures = [manifest.signatures.get(name, "") for name in ("bleu", "chrf")]
    sentences = 0
    for record in iter_records(manifest, folder):
        if not isinstance(record, TranslationRecord):
            raise InvalidInputError("expected evidence with translations, found losses", code="EVIDENCE_KIND")
        sentences += 1
        for name, answer in record.arms.items():
            tallies[name].add(answer)
    return tuple(
        ArmScores(
            arm=name,
            sentences=sentences,
            ended=tally.ended / tally.told if tally.told else None,
            tokens=tally.tokens / sentences,
            scores=tuple(scored(rule, total, *signatures) for rule, total in tally.totals.items()),
        )
        for name, tally in tallies.items()
    )
