"""A table of sentences on which the ticket answers otherwise than embed tuning, to browse."""

from __future__ import annotations

from certify.base.records import RULES
from certify.evidence.read import BASE_ARM, REFERENCE_ARM, TranslationRecord
from certify.evidence.sentence_scores import POINT, sentence_chrf
from reports.html.figure import left_out, many, table
from reports.html.markup import Markup, join, tag
from reports.html.material import Material

_SHOWN = 60
_LONGEST = 240


def sentences(given: Material) -> Markup:
    """Those with the largest difference of scores, with what each arm said."""
    name = "Sentences where the arms differ"
    if given.main is None or given.arm is None:
        return left_out(name, given.without_evidence)
    arm, rule = given.arm.name, RULES.index(given.one.ticket.rule)

    def score(record: TranslationRecord, name: str) -> float:
        answer = record.arms[name]
        return sentence_chrf(answer.stats[answer.rules[rule]]) / POINT

    records = given.main.evidence.sentences
    differing = [one for one in records if one.arms[arm].text != one.arms[REFERENCE_ARM].text]
    if not differing:
        return left_out(name, "ticket and embed tuning gave the same outputs.")
    ranked = sorted(differing, key=lambda one: (-abs(score(one, arm) - score(one, REFERENCE_ARM)), one.id))
    rows = [
        (
            record.id,
            _source(record),
            *(_answer(record, one) for one in (BASE_ARM, arm, REFERENCE_ARM)),
            *(round(score(record, one), 1) for one in (BASE_ARM, arm, REFERENCE_ARM)),
        )
        for record in ranked[:_SHOWN]
    ]
    head = ("sentence", "source and reference", "base", "ticket", "embed tuning")
    scores = ("chrF base", "chrF ticket", "chrF embed tuning")
    said = f"{len(differing)} of {many(len(records), 'sentence')} of {given.main.name} are answered otherwise"
    said += " than by embed tuning"
    if len(ranked) > _SHOWN:
        said += f"; here are the {_SHOWN} on which the scores differ most"
    return tag("details", tag("summary", said), table(said, (*head, *scores), rows, "browse"))


def _answer(record: TranslationRecord, arm: str) -> str:
    return _cut(record.arms[arm].text.strip().replace("\n", " ↵ "))


def _source(record: TranslationRecord) -> Markup | str:
    """The sentence in words where the record carries it."""
    if record.witness is None:
        return "not recorded"
    return join(_cut(record.witness.source), tag("br"), tag("i", _cut(record.witness.target)))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
