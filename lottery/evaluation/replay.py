"""Rerun recorded decisions, so that evidence can be verified (theory §7).

A case is a step of a record: one where a claim says that the ticket's arm decided differently from embed
tuning (a witness), or the last one of a record that was drawn. A replay builds the prompt from the sentence,
puts E* and then the ticket's rows into the base, feeds what embed tuning had generated, and compares the
decisions and the two largest probabilities with the record.

REPRODUCED: E* (so greedy decoding would have come here) and the ticket's arm decide as recorded at this step
and at all earlier steps, both probabilities of E* are within the tolerance, the labels along the path certify
the step if the recorded ones do, and along the arm's own output, where the record follows it, E* and the arm
decide as recorded with both probabilities of the arm within the tolerance; base, E* and the arm, decoded
here, say what is recorded, and every recorded output has the recorded chrF. WITHIN_ROUNDING: something else
was found, and rounding explains it (:mod:`lottery.evaluation.recurrence`). NOT_REPRODUCED: anything else.
NOT_RUN: the sentence is not available; the text says why.

Outputs of another engine cannot be run again: its kernels round otherwise, and what it served is its author's
word. The ticket's outputs of drawn records are decoded here instead, and compared: SAME or OTHER, of which
neither shows anything for sure.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import takewhile
from pathlib import Path
from typing import Any

from certify.base.errors import InvalidInputError, UsageError
from certify.base.files import inside
from certify.base.jsonio import sha256_file
from certify.evidence.read import Manifest, TranslationRecord, iter_records, read_manifest
from certify.tables.modeldigest import checkpoint_digest
from certify.tables.table import Table
from certify.ticket.corpus import Pair, sentence_digest
from certify.ticket.released import Source, open_base, open_reference, open_rows
from certify.ticket.templates import Example, Template, encode, load_template
from lottery.evaluation.forced_decoding import certainties
from lottery.evaluation.generate import generate
from lottery.evaluation.measure import labels_along
from lottery.evaluation.recurrence import (
    Case,
    Comparison,
    Deviation,
    Redecided,
    Replayed,
    margins,
    own_deviations,
    tolerance_of,
)
from lottery.model.backbone import find_base, load_backbone
from lottery.model.row_swap import (
    Placement,
    along_path,
    base_placement,
    placed,
    reference_placement,
    rows_placement,
    serve_base,
    values_of,
)
from lottery.model.tokenizer import decode, load_tokenizer
from lottery.text.pairsource import read_pairs
from lottery.text.score import Scorer, Statistics, chrf_score
from lottery.text.usedtext import DIGITS


def replay(
    source: Source,
    evidence: Path,
    cases: Sequence[Case],
    *,
    base: str,
    reference: Path | None = None,
    text: str | None = None,
    template: str | None = None,
    tolerance: int | None = None,
    sample: int = 0,
    seed: int = 0,
) -> tuple[Replayed, ...]:
    """Rerun ``cases`` of ``evidence`` about a ticket, in the given order, and some that are drawn.

    Args:
        cases: cases to run, as listed by guarantee claims (``detail["witnesses"]``: record and step).
        base: checkpoint folder of the base model, or its name on the hub.
        reference: table E*; None takes the one beside the ticket.
        text: the evaluated text (:func:`lottery.text.pairsource.read_pairs`). If None, only sentences that
            the evidence includes in words can be run.
        template: name or path of the template that the evidence names. None takes the ticket's if it is the
            same, otherwise the shipped one of that name.
        tolerance: largest difference of a probability, in units of 1e-9; None is that of the dtype in which
            the outputs were decoded (:func:`lottery.evaluation.recurrence.tolerance_of`).
        sample: number of further records, drawn among those whose sentence is available. If there is none,
            they are drawn among all, and not run.
        seed: seed of the draw; whoever wrote the evidence must not know it beforehand.

    Raises:
        UsageError: a named file does not exist, a required one is not named, or ``tolerance`` is negative.
        InvalidInputError: evidence, ticket, tables or model is malformed; the evidence was made with another
            model, tokenizer or template (``EVIDENCE_MODEL``, ``EVIDENCE_TOKENIZER``,
            ``TOKENISATION_DIFFERS``, ``EVIDENCE_TEMPLATE``); no arm of the evidence served the ticket
            (``ARM_NOT_EVALUATED``).
    """
    if tolerance is not None and tolerance < 0:
        raise UsageError("the tolerance must not be negative", code="TOLERANCE_RANGE")
    manifest = read_manifest(evidence)
    if manifest.kind != "translation" or manifest.template is None or manifest.languages is None:
        raise InvalidInputError("only evidence with translations can be replayed", code="EVIDENCE_KIND")
    tolerance = tolerance_of(manifest.decoding.dtype) if tolerance is None else tolerance
    every = iter_records(manifest, evidence.parent)
    records = {record.id: record for record in every if isinstance(record, TranslationRecord)}
    folder = find_base(base)
    stored, arm, tuned = _arms(source, folder, reference, manifest)
    name = _served(manifest, arm)
    tokenizer = load_tokenizer(folder, source.ticket.probe_sha256, manifest.tokenizer_probe_sha256)
    spoken = _template(source, manifest, template)
    pairs: Mapping[str, Pair] | None = None
    if text is not None:
        pairs = {pair.id: pair for pair in read_pairs(text, *manifest.languages, drop_empty=True)}
    available = [id_ for id_, record in records.items() if isinstance(_sentence(record, pairs), Pair)]
    pool = sorted(available or records)
    drawn = random.Random(seed).sample(pool, min(sample, len(pool)))
    steps = {id_: max(0, len(records[id_].reference.tokens) - 1) for id_ in drawn}
    cases = [*cases, *steps.items()]
    ready: list[tuple[TranslationRecord, Example, int]] = []
    refused: dict[str, str] = {}
    found: dict[str, Redecided] = {}
    scorer, labels = Scorer(), spoken.field_labels(*manifest.languages)
    for record in (records[id_] for id_ in dict.fromkeys(id_ for id_, _ in cases) if id_ in records):
        pair = _sentence(record, pairs)
        if isinstance(pair, str):
            refused[record.id] = pair
            continue
        (prompt,) = encode(spoken, [pair], tokenizer, *manifest.languages, response=False)
        if tuple(sorted(set(prompt.ids))) != record.prompt:
            refused[record.id] = "the prompt built from the sentence differs from the recorded one"
            continue
        last = max((step for id_, step in cases if id_ == record.id), default=0)
        ready.append((record, prompt, min(last + 1, len(record.reference.tokens))))
        found[record.id] = Redecided(deviations=_misscored(record, pair, scorer, labels))
    if manifest.produced_by is not None:
        model = load_backbone(folder, manifest.decoding.dtype).eval()
        serve_base(model, stored)
        other = _said_otherwise(model, arm, name, manifest, tokenizer, ready)
        return tuple(_same(case, refused, other) for case in cases)
    if ready:
        _run(manifest, folder, stored, tuned, arm, tokenizer, ready, name, tolerance, found)
    made = Comparison(name, manifest.path, tolerance)
    return tuple(made.compare(case, records.get(case[0]), refused, found) for case in cases)


def _arms(
    source: Source, folder: Path, reference: Path | None, manifest: Manifest
) -> tuple[Table, Placement, Placement]:
    stored = open_base(source, folder)
    tuned = open_reference(source, reference, stored)
    if tuned is None:
        what = "the reference table does not lie beside the ticket: name it"
        raise UsageError(what, code="REFERENCE_NEEDED")
    if checkpoint_digest(folder, without=stored.tensor) != manifest.base.model_sha256:
        raise InvalidInputError(
            f"{folder} differs outside the embedding table from the model of the evidence",
            code="EVIDENCE_MODEL",
        )
    if sha256_file(folder / "tokenizer.json") != manifest.tokenizer_sha256:
        raise InvalidInputError(
            f"the tokenizer in {folder} differs from that of the evidence", code="EVIDENCE_TOKENIZER"
        )
    rows = open_rows(source, tuned)
    arm = rows_placement("ticket", source.ticket.released.object, stored, rows)
    if manifest.reference is None or tuned.digest() != manifest.reference.tensor_sha256:
        raise InvalidInputError(
            "the evidence was made with another reference table", code="EVIDENCE_REFERENCE"
        )
    return stored, arm, reference_placement(tuned)


def _served(manifest: Manifest, ticket: Placement) -> str:
    """Find the name of the arm that served the ticket."""
    ours = (ticket.arm.table_sha256, ticket.arm.kind, None)
    fitting = [arm for arm in manifest.arms if (arm.table_sha256, arm.kind, arm.gate) == ours]
    best = [arm for arm in fitting if arm.control is None] or fitting
    if not best:
        raise InvalidInputError(
            f"evidence {manifest.text.name}: no arm served the ticket's table", code="ARM_NOT_EVALUATED"
        )
    return best[0].name


def _template(source: Source, manifest: Manifest, named: str | None) -> Template:
    wanted, ours = manifest.template, source.ticket.template
    if wanted is None:
        raise InvalidInputError("the evidence does not name a template", code="EVIDENCE_TEMPLATE")
    if named is None and ours is not None and ours.sha256 == wanted.sha256 and ours.path is not None:
        named = str(
            inside(source.folder, ours.path, like=lambda path: load_template(path).digest() == wanted.sha256)
        )
    loaded = load_template(named or wanted.name)
    if loaded.digest() != wanted.sha256:
        raise InvalidInputError(
            f"template {loaded.name} differs from that of the evidence", code="EVIDENCE_TEMPLATE"
        )
    return loaded


def _sentence(record: TranslationRecord, pairs: Mapping[str, Pair] | None) -> Pair | str:
    """Find the sentence of a record, or say why it is not available."""
    if pairs is not None:
        pair = pairs.get(record.id)
        if pair is None:
            return f"the text has no pair {record.id}"
    elif record.witness is not None:
        pair = Pair(record.witness.source, record.witness.target, record.id)
    else:
        return "the evidence does not include the sentence: name the text (--text DATA)"
    if sentence_digest(pair.source)[:DIGITS] != record.source:
        return "the text has another sentence under this id"
    return pair


def _run(
    manifest: Manifest,
    folder: Path,
    base: Table,
    tuned: Placement,
    arm: Placement,
    tokenizer: Any,
    ready: Sequence[tuple[TranslationRecord, Example, int]],
    name: str,
    tolerance: int,
    found: Mapping[str, Redecided],
) -> None:
    """Decisions of E* and the arm up to the last requested step, and what else differs, into ``found``."""
    dtype = manifest.decoding.dtype
    model = load_backbone(folder, dtype).eval()
    serve_base(model, base)
    prompts = [prompt for _, prompt, _ in ready]
    answers = [record.reference.tokens[:count] for record, _, count in ready]
    with placed(model, tuned, dtype) as served:
        sure = certainties(served, prompts, answers)
    with placed(model, arm, dtype) as served:
        said = certainties(served, prompts, answers)
        for (record, _, _), wanted, one in zip(ready, sure, said, strict=True):
            found[record.id].reference, found[record.id].arm = wanted, one
        end = None if tuned.table is None else values_of(tuned.table, model.device)
        if manifest.path is not None and end is not None:
            decided, best = ([one.argmax for one in each] for each in (said, sure))
            between: list[list[list[int]]] = []

            def decide(*asked: Any) -> list[tuple[int, ...]]:
                each = certainties(*asked)
                between.append([margins(one) for one in each])
                return [one.argmax for one in each]

            labels = labels_along(served, prompts, answers, decided, best, manifest.path, end, decide)
            for (record, _, _), along, *apart in zip(ready, labels, *between, strict=True):
                found[record.id].labels, found[record.id].between = along, apart
        owning = [
            (one.id, prompt, own) for one, prompt, _ in ready if (own := one.arms[name].own) is not None
        ]
        if owning and end is not None:
            ids, prompts, recorded = (list(column) for column in zip(*owning, strict=True))
            answers = [own.tokens for own in recorded]
            again = certainties(served, prompts, answers)
            (there,) = [certainties(served, prompts, answers) for _ in along_path(served, end, [Fraction(1)])]
            for id_, own, here, tuned_there in zip(ids, recorded, again, there, strict=True):
                found[id_].deviations += own_deviations(own, here, tuned_there, tolerance)
    for who, placement in (("base", base_placement(base)), ("reference", tuned), (name, arm)):
        for id_, deviation in _said_otherwise(model, placement, who, manifest, tokenizer, ready).items():
            found[id_].deviations.append(deviation)


def _misscored(
    record: TranslationRecord, pair: Pair, scorer: Scorer, labels: Sequence[str]
) -> list[Deviation]:
    """Arms whose recorded output has another chrF than recorded; counts of BLEU decide nothing."""

    def chrf(stats: Sequence[Statistics], rules: Sequence[int]) -> list[float]:
        return [chrf_score(stats[i]) for i in rules]

    again = {arm: scorer.rules(one.text, labels, pair.target) for arm, one in record.arms.items()}
    wrong = [arm for arm, one in record.arms.items() if chrf(*again[arm]) != chrf(one.stats, one.rules)]
    return [Deviation(f"the recorded output of {arm} is scored otherwise") for arm in wrong]


def _said_otherwise(
    model: Any,
    arm: Placement,
    who: str,
    manifest: Manifest,
    tokenizer: Any,
    ready: Sequence[tuple[TranslationRecord, Example, int]],
) -> dict[str, Deviation]:
    """By record, that the arm decoded here says something other than recorded."""
    decoding = manifest.decoding
    spelled = str if manifest.produced_by is None else str.strip
    with placed(model, arm, decoding.dtype) as served:
        prompts, most, count = [prompt for _, prompt, _ in ready], decoding.max_new_tokens, max(1, len(ready))
        said = generate(
            served, tokenizer, prompts, max_new_tokens=most, batch_size=count, beams=decoding.beams
        )
        other = [
            (prompt, output, record.arms[who].text)
            for (record, prompt, _), output in zip(ready, said, strict=True)
            if spelled(output.text) != spelled(record.arms[who].text)
        ]
        along = certainties(served, [prompt for prompt, _, _ in other], [one.tokens for _, one, _ in other])
    found = {}
    for (_, output, recorded), sure in zip(other, along, strict=True):
        spelt = (_begins(recorded, tokenizer, output.tokens[: t + 1]) for t in range(len(output.tokens)))
        steps = 1 + sum(takewhile(bool, spelt))  # the first decision that is not as recorded is among them
        text = f"decoded here, {who} says something other than recorded"
        found[output.id] = Deviation(text, min(margins(sure)[:steps]) if decoding.beams == 1 else None)
    return found


def _begins(text: str, tokenizer: Any, tokens: Sequence[int]) -> bool:
    """Whether ``text`` begins with what ``tokens`` spell, but for a character that is not complete."""
    return text.startswith(decode(tokenizer, tokens).rstrip("\ufffd"))


def _same(case: Case, refused: Mapping[str, str], other: Mapping[str, Deviation]) -> Replayed:
    id_, step = case
    if id_ in refused:
        return Replayed(id_, step, "NOT_RUN", refused[id_])
    if id_ in other:
        return Replayed(id_, step, "OTHER", "decoded here, the ticket says something else")
    return Replayed(id_, step, "SAME", "decoded here, the ticket says the same")
