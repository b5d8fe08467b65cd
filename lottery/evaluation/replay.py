"""Rerun recorded decisions, so that evidence can be verified (theory §7).

A case is a step of a record: one where a claim says that the ticket's arm decided differently from embed
tuning (a witness), or the last one of a record that was drawn. A replay builds the prompt from the sentence,
puts E* and then the ticket's rows into the base, feeds what embed tuning had generated, and compares the
decisions and the two largest probabilities with the record.

REPRODUCED: E* (so greedy decoding would have come here) and the ticket's arm decide as recorded at this step
and at all earlier steps, both probabilities of E* are within the tolerance, the labels along the path certify
the step if the recorded ones do, and along the arm's own output, where the record follows it, E* and the arm
decide as recorded with both probabilities of the arm within the tolerance; base, E* and the arm, decoded
here, say what is recorded, and every recorded output has the recorded chrF. NOT_REPRODUCED: anything else.
NOT_RUN: the sentence is not available; the text says why.

Outputs of another engine cannot be run again: its kernels round otherwise, and what it served is its author's
word. The ticket's outputs of drawn records are decoded here instead, and compared: SAME or OTHER, of which
neither shows anything for sure.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from certify.base.errors import InvalidInputError, UsageError
from certify.base.files import inside
from certify.base.jsonio import sha256_file
from certify.evidence.read import UNIT, Manifest, TranslationRecord, iter_records, read_manifest
from certify.evidence.record import OwnSteps
from certify.stats.path import decision
from certify.tables.modeldigest import checkpoint_digest
from certify.tables.table import Table
from certify.ticket.corpus import Pair, sentence_digest
from certify.ticket.declared import StrengthLaw
from certify.ticket.released import Source, open_base, open_reference, open_rows
from certify.ticket.templates import Example, Template, encode, load_template
from lottery.evaluation.forced_decoding import Certainty, argmaxes, certainties
from lottery.evaluation.generate import generate
from lottery.evaluation.measure import labels_along, own_steps
from lottery.model.backbone import find_base, load_backbone
from lottery.model.row_swap import (
    Placement,
    base_placement,
    placed,
    reference_placement,
    rows_placement,
    serve_base,
    values_of,
)
from lottery.model.tokenizer import load_tokenizer
from lottery.text.pairsource import read_pairs
from lottery.text.score import Scorer, Statistics, chrf_score
from lottery.text.usedtext import DIGITS

TOLERANCE: Final = 10**5
"""Tolerance for probabilities, in units of 1e-9: other batches and processors round differently."""

Result = Literal["REPRODUCED", "NOT_REPRODUCED", "NOT_RUN", "SAME", "OTHER"]

Case = tuple[str, int]
"""Id of a record and one of its steps, counted from 0."""


_Run = tuple[Certainty, tuple[int, ...], list[str], list[str]]
"""What E* and the arm decide at each step, the labels along the path, if there is one, and what else of the
record is not as recorded."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision, as recorded or as found.

    Attributes:
        reference: most probable token under E*.
        p_a: largest probability under E*, in units of 1e-9.
        p_b: second largest probability, likewise.
    """

    reference: int
    arm: int
    p_a: int
    p_b: int


@dataclass(frozen=True, slots=True)
class Replayed:
    """Result of rerunning one case.

    Attributes:
        result: see the module's docstring.
        recorded: the decision in the record; None if there is no such step.
        found: the decision found; None if the case was not run.
    """

    record: str
    step: int
    result: Result
    text: str
    recorded: Decision | None = None
    found: Decision | None = None


def replay(
    source: Source,
    evidence: Path,
    cases: Sequence[Case],
    *,
    base: str,
    reference: Path | None = None,
    text: str | None = None,
    template: str | None = None,
    tolerance: int = TOLERANCE,
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
        tolerance: largest difference of a probability, in units of 1e-9.
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
    if tolerance < 0:
        raise UsageError("the tolerance must not be negative", code="TOLERANCE_RANGE")
    manifest = read_manifest(evidence)
    if manifest.kind != "translation" or manifest.template is None or manifest.languages is None:
        raise InvalidInputError("only evidence with translations can be replayed", code="EVIDENCE_KIND")
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
    wrong: dict[str, list[str]] = {}
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
        wrong[record.id] = _misscored(record, pair, scorer, labels)
    if manifest.produced_by is not None:
        model = load_backbone(folder, manifest.decoding.dtype).eval()
        serve_base(model, stored)
        outputs = _outputs(model, arm, manifest, tokenizer, ready)
        return tuple(_same(case, records, refused, outputs, name) for case in cases)
    found = _run(manifest, folder, stored, tuned, arm, tokenizer, ready, name, tolerance, wrong)
    return tuple(_compare(case, records, refused, found, name, manifest.path, tolerance) for case in cases)


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
        return "the evidence does not include the sentence: name the text"
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
    wrong: Mapping[str, list[str]],
) -> dict[str, _Run]:
    """Decisions of E* and the arm, up to the last requested step; ``wrong`` by record is added to."""
    if not ready:
        return {}
    dtype = manifest.decoding.dtype
    model = load_backbone(folder, dtype).eval()
    serve_base(model, base)
    prompts = [prompt for _, prompt, _ in ready]
    answers = [record.reference.tokens[:count] for record, _, count in ready]
    with placed(model, tuned, dtype) as served:
        sure = certainties(served, prompts, answers)
    with placed(model, arm, dtype) as served:
        said = argmaxes(served, prompts, answers)
        labels: list[list[str]] = [[] for _ in answers]
        end = None if tuned.table is None else values_of(tuned.table, model.device)
        if manifest.path is not None and end is not None:
            best = [one.argmax for one in sure]
            labels = labels_along(served, prompts, answers, said, best, manifest.path, end)
        along = [(one.id, prompt, own) for one, prompt, _ in ready if (own := one.arms[name].own) is not None]
        if along and end is not None:
            ids, prompts, recorded = (list(column) for column in zip(*along, strict=True))
            answers = [own.tokens for own in recorded]
            again = certainties(served, prompts, answers)
            steps = own_steps(served, prompts, answers, again, end)
            for id_, own, one, step in zip(ids, recorded, again, steps, strict=True):
                wrong[id_].extend(_own_differs(own, one, step["differs"], tolerance))
    for who, placement in (("base", base_placement(base)), ("reference", tuned), (name, arm)):
        outputs = _outputs(model, placement, manifest, tokenizer, ready)
        for record, _, _ in ready:
            if outputs[record.id] != record.arms[who].text:
                wrong[record.id].append(f"decoded here, {who} says something other than recorded")
    return {one.id: (sure[i], said[i], labels[i], wrong[one.id]) for i, (one, _, _) in enumerate(ready)}


def _own_differs(own: OwnSteps, again: Certainty, differs: Any, tolerance: int) -> list[str]:
    """What is not as recorded along an arm's own output."""
    if again.argmax != own.argmaxes():
        return ["along its own output the ticket decides otherwise than recorded"]
    if [*map(tuple, differs)] != list(own.differs):
        return ["along the ticket's own output embed tuning decides otherwise than recorded"]
    pairs = [*zip(again.p_a, own.p_a, strict=True), *zip(again.p_b, own.p_b, strict=True)]
    off = max(abs(found - stated) for found, stated in pairs)
    return [f"a probability along its own output is off by {off / UNIT:.2e}"] if off > tolerance else []


def _misscored(record: TranslationRecord, pair: Pair, scorer: Scorer, labels: Sequence[str]) -> list[str]:
    """Arms whose recorded output has another chrF than recorded; counts of BLEU decide nothing."""

    def chrf(stats: Sequence[Statistics], rules: Sequence[int]) -> list[float]:
        return [chrf_score(stats[i]) for i in rules]

    again = {arm: scorer.rules(one.text, labels, pair.target) for arm, one in record.arms.items()}
    wrong = [arm for arm, one in record.arms.items() if chrf(*again[arm]) != chrf(one.stats, one.rules)]
    return [f"the recorded output of {arm} is scored otherwise" for arm in wrong]


def _outputs(
    model: Any,
    arm: Placement,
    manifest: Manifest,
    tokenizer: Any,
    ready: Sequence[tuple[TranslationRecord, Example, int]],
) -> dict[str, str]:
    """What the arm says here, by record."""
    decoding = manifest.decoding
    with placed(model, arm, decoding.dtype) as served:
        prompts, most, count = [prompt for _, prompt, _ in ready], decoding.max_new_tokens, max(1, len(ready))
        said = generate(
            served, tokenizer, prompts, max_new_tokens=most, batch_size=count, beams=decoding.beams
        )
    return {record.id: output.text for (record, _, _), output in zip(ready, said, strict=True)}


def _same(
    case: Case,
    records: Mapping[str, TranslationRecord],
    refused: Mapping[str, str],
    outputs: Mapping[str, str],
    arm: str,
) -> Replayed:
    id_, step = case
    if id_ in refused:
        return Replayed(id_, step, "NOT_RUN", refused[id_])
    if outputs[id_].strip() == records[id_].arms[arm].text.strip():
        return Replayed(id_, step, "SAME", "decoded here, the ticket says the same")
    return Replayed(id_, step, "OTHER", "decoded here, the ticket says something else")


def _compare(
    case: Case,
    records: Mapping[str, TranslationRecord],
    refused: Mapping[str, str],
    runs: Mapping[str, _Run],
    arm: str,
    law: StrengthLaw | None,
    tolerance: int,
) -> Replayed:
    id_, step = case
    record = records.get(id_)
    if record is None or not 0 <= step < len(record.reference.tokens):
        return Replayed(id_, step, "NOT_RUN", "the evidence has no such step")
    steps = record.reference
    expected = steps.argmaxes()
    differs = dict(record.arms[arm].differs)
    actual = differs.get(step, expected[step])
    recorded = Decision(expected[step], actual, steps.p_a[step], steps.p_b[step])
    if id_ in refused:
        return Replayed(id_, step, "NOT_RUN", refused[id_], recorded)
    sure, said, labels, others = runs[id_]
    found = Decision(sure.argmax[step], said[step], sure.p_a[step], sure.p_b[step])
    wrong = [*others]
    if sure.argmax[:step] != expected[:step]:
        at = next(t for t in range(step) if sure.argmax[t] != expected[t])
        wrong.append(f"embed tuning decides differently already at step {at}")
    if found.reference != recorded.reference:
        wrong.append(f"embed tuning says {found.reference}, recorded is {recorded.reference}")
    at = next((t for t in range(step) if said[t] != differs.get(t, expected[t])), step)
    if at < step:
        wrong.append(f"the ticket decides differently already at step {at}")
    if found.arm != recorded.arm:
        wrong.append(f"the ticket says {found.arm}, recorded is {recorded.arm}")
    if law is not None and (path := record.arms[arm].path) is not None:
        before, after = (decision(one[step], law.n, law.g) for one in (path, labels))
        if before.certified and not after.certified:
            wrong.append(f"the labels along the path are {labels[step]} and do not certify the step")
    off = max(abs(found.p_a - recorded.p_a), abs(found.p_b - recorded.p_b))
    if off > tolerance:
        wrong.append(f"a probability is off by {off / UNIT:.2e}")
    if wrong:
        return Replayed(id_, step, "NOT_REPRODUCED", "; ".join(wrong), recorded, found)
    text = (
        f"embed tuning says {found.reference}, the ticket {found.arm}, as recorded; probabilities within"
        f" {off / UNIT:.1e}"
    )
    return Replayed(id_, step, "REPRODUCED", text, recorded, found)
