"""Run one arm over one text and write its part file: translations, or losses on unrelated text.

The reference is measured first. Every other arm is then asked what it would have said at each step of the
reference's outputs. That is also how its own greedy output begins; only the rest is decoded. Memory holds one
batch at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from certify.base.errors import UsageError
from certify.evidence.read import BASE_ARM, REFERENCE_ARM, UNIT
from certify.stats.path import encode, path_law
from certify.tables.table import Table
from certify.ticket.declared import StrengthLaw
from certify.ticket.templates import Example, Span
from lottery.evaluation.assemble import LossTask, along
from lottery.evaluation.forced_decoding import Certainty, argmaxes, certainties, log_likelihoods
from lottery.evaluation.generate import Output, batches, check_fits, decode
from lottery.evaluation.prompts import Task
from lottery.evaluation.shards import Part, open_part
from lottery.model.row_swap import Placed, Placement, along_path, placed, values_of

Progress = Callable[[int, int], None]


def measure(
    model: PreTrainedModel,
    tokenizer: Any,
    task: Task,
    placement: Placement,
    out: Path,
    *,
    reference: Part | None,
    tuned: Table | None = None,
    resume: bool,
    opened: Part | None = None,
    indices: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> Part:
    """Translate a text with one arm and decode it along the reference's outputs; skip sentences in ``out``.

    Args:
        model: the base with its table as served (:func:`lottery.model.row_swap.serve_base`), in eval mode;
            it is restored bit for bit.
        reference: the reference's part, with every sentence of ``indices``; None for the reference itself.
        tuned: E* as served; needed if the task has a path or margins.
        resume: continue with ``out`` if it exists, instead of starting over.
        opened: the part that an earlier call for this arm returned: ``out`` is not read again.
        indices: sentences to measure; None means all.
        progress: called with (sentences done, sentences in all).

    Raises:
        UsageError: ``out`` was made with other settings or inputs (``PART_MISMATCH``), or the reference's
            part is missing or lacks a sentence (``REFERENCE_NEEDED``); see also
            :func:`lottery.evaluation.generate.generate`.
        InvalidInputError: logits are not finite, or ``out`` is damaged (``PART_MALFORMED``).
    """
    arm = placement.arm
    if (reference is None) != (arm.name == REFERENCE_ARM):
        raise UsageError(
            "measure the reference first: every other arm follows its outputs", code="REFERENCE_NEEDED"
        )
    wanted = list(range(len(task.pairs))) if indices is None else list(indices)
    part = open_part(out, task.key(arm), resume=resume) if opened is None else opened
    missing = [index for index in wanted if index not in part]
    if reference is not None and any(index not in reference for index in wanted):
        raise UsageError(f"{reference.path} is incomplete: finish it first", code="REFERENCE_NEEDED")
    if not missing:
        return part
    law, end = task.path if arm.released else None, None
    if law is not None or arm.name in (task.margins or ()):
        if tuned is None:
            text = "a path, and margins, need the table after embed tuning"
            raise UsageError(text, code="REFERENCE_NEEDED")
        end = values_of(tuned, model.device)
    with placed(model, placement, task.decoding.dtype) as ready:
        check_fits(ready, [task.prompts[index] for index in missing], task.decoding.max_new_tokens)
        most, beams = task.decoding.max_new_tokens, task.decoding.beams
        say = partial(decode, ready, tokenizer, max_new_tokens=most, beams=beams)
        done = len(wanted) - len(missing)
        for positions in batches([task.prompts[index] for index in missing], task.batch_size):
            chosen = [missing[position] for position in positions]
            prompts = [task.prompts[index] for index in chosen]
            if reference is None:
                outputs = say(prompts)
                steps = _reference_steps(ready, prompts, outputs)
            else:
                along = [reference.read(index) for index in chosen]
                found = argmaxes(ready, prompts, [one["tokens"] for one in along])
                outputs = say(prompts, begun=_beginnings(along, found))
                steps = _steps_along(ready, prompts, along, found, law, end)
                if end is not None and arm.name in (task.margins or ()):
                    answers = [output.tokens for output in outputs]
                    own = own_steps(ready, prompts, answers, certainties(ready, prompts, answers), end)
                    steps = [step | {"own": one} for step, one in zip(steps, own, strict=True)]
            part.append(
                [
                    _answer(task, index, output, arm.name) | step
                    for index, output, step in zip(chosen, outputs, steps, strict=True)
                ]
            )
            done += len(chosen)
            if progress is not None:
                progress(done, len(wanted))
    return part


def measure_arms(
    model: PreTrainedModel,
    tokenizer: Any,
    task: Task,
    placements: Sequence[Placement],
    folder: Path,
    *,
    resume: bool,
    opened: Mapping[str, Part] | None = None,
    indices: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> dict[str, Part]:
    """Call :func:`measure` for several arms, the reference first; part files lie in ``folder``.

    ``opened`` holds the parts that an earlier call returned; ``progress`` counts the sentences of all arms.
    """
    parts: dict[str, Part] = {}
    tuned = next((one.table for one in placements if one.arm.name == REFERENCE_ARM), None)
    for placement, within in _in_turn(placements, progress):
        name = placement.arm.name
        parts[name] = measure(
            model,
            tokenizer,
            task,
            placement,
            folder / f"{name}.jsonl",
            reference=parts.get(REFERENCE_ARM),
            tuned=tuned,
            resume=resume,
            opened=(opened or {}).get(name),
            indices=indices,
            progress=within,
        )
    return parts


def _in_turn(
    placements: Sequence[Placement], progress: Progress | None
) -> Iterator[tuple[Placement, Progress]]:
    """Every arm with what to call about its progress, so that ``progress`` counts all arms."""
    for number, placement in enumerate(placements):

        def within(done: int, total: int, number: int = number) -> None:
            if progress is not None:
                progress(number * total + done, len(placements) * total)

        yield placement, within


def measure_losses(
    model: PreTrainedModel,
    task: LossTask,
    placements: Sequence[Placement],
    folder: Path,
    *,
    batch_size: int = 64,
    resume: bool,
    progress: Progress | None = None,
) -> dict[str, Part]:
    """Call :func:`measure_loss` for several arms; part files lie in ``folder``."""
    return {
        placement.arm.name: measure_loss(
            model,
            task,
            placement,
            folder / f"{placement.arm.name}.jsonl",
            batch_size=batch_size,
            resume=resume,
            progress=within,
        )
        for placement, within in _in_turn(placements, progress)
    }


def measure_loss(
    model: PreTrainedModel,
    task: LossTask,
    placement: Placement,
    out: Path,
    *,
    batch_size: int = 64,
    resume: bool,
    progress: Progress | None = None,
) -> Part:
    """Measure the total negative log-likelihood of each window under one arm, in units of 1e-9 nats.

    Model, ``out`` and ``resume`` are those of :func:`measure`; ``progress`` is called with (windows done,
    windows in all).

    Raises:
        UsageError: the arm is gated, or ``out`` was made with other settings or inputs
            (``PART_MISMATCH``).
        InvalidInputError: logits are not finite, or ``out`` is damaged.
    """
    windows = task.windows
    if placement.arm.gate is not None:
        raise UsageError("gated rows need segments, which this text does not have", code="GATE_LOSS")
    part = open_part(out, task.key(placement.arm), resume=resume)
    missing = [index for index in range(len(windows)) if index not in part]
    if not missing:
        return part
    # A window is treated as a prompt of one token and an answer.
    empty = Span(0, 0)
    prompts = {i: Example(windows[i].id, windows[i].ids[:1], 1, empty, empty, empty) for i in missing}
    with placed(model, placement, task.dtype) as ready:
        for start in range(0, len(missing), batch_size):
            chosen = missing[start : start + batch_size]
            nats = log_likelihoods(ready, [prompts[i] for i in chosen], [windows[i].ids[1:] for i in chosen])
            part.append(
                [{"i": i, "nats": round(-value * UNIT)} for i, value in zip(chosen, nats, strict=True)]
            )
            if progress is not None:
                progress(len(part), len(windows))
    return part


def _answer(task: Task, index: int, output: Output, name: str) -> dict[str, Any]:
    stats, rules = task.scorer.rules(output.text, task.labels, task.pairs[index].target)
    record: dict[str, Any] = {
        "i": index,
        "text": output.text,
        "ended": output.ended,
        "length": len(output.tokens),
        "stats": [list(vector) for vector in stats],
        "rules": list(rules),
    }
    return record | ({"tokens": list(output.tokens)} if name in (BASE_ARM, REFERENCE_ARM) else {})


def _beginnings(references: Sequence[Mapping[str, Any]], found: Sequence[Sequence[int]]) -> list[list[int]]:
    """How an arm's own greedy answers begin: as the reference's, up to the first step it decides otherwise.

    Args:
        found: what the arm decides along the reference's answers.
    """
    begun = []
    for record, said in zip(references, found, strict=True):
        others = _differences(record["tokens"], said)
        begun.append(list(said[: others[0][0] + 1] if others else said))
    return begun


def _reference_steps(
    ready: Placed, prompts: Sequence[Example], outputs: Sequence[Output]
) -> list[dict[str, Any]]:
    answers = [output.tokens for output in outputs]
    return [*map(_steps, answers, certainties(ready, prompts, answers))]


def _steps(answer: Sequence[int], sure: Certainty) -> dict[str, Any]:
    return {"top": _differences(answer, sure.argmax), "p_a": list(sure.p_a), "p_b": list(sure.p_b)}


def own_steps(
    ready: Placed,
    prompts: Sequence[Example],
    answers: Sequence[Sequence[int]],
    sure: Sequence[Certainty],
    end: Tensor,
) -> list[dict[str, Any]]:
    """An arm's steps along its own outputs, and where E* decides otherwise there (theory §5).

    Args:
        ready: the model with the arm in it.
        answers: what the arm generated.
        sure: its decisions and probabilities there.
        end: E* (:func:`lottery.model.row_swap.values_of`).
    """
    (best,) = [argmaxes(ready, prompts, answers) for _ in along_path(ready, end, [Fraction(1)])]
    return [
        {"tokens": list(answer), **_steps(answer, one), "differs": _differences(one.argmax, tuned)}
        for answer, one, tuned in zip(answers, sure, best, strict=True)
    ]


def _steps_along(
    ready: Placed,
    prompts: Sequence[Example],
    references: Sequence[Mapping[str, Any]],
    found: Sequence[Sequence[int]],
    law: StrengthLaw | None,
    end: Tensor | None,
) -> list[dict[str, Any]]:
    answers = [record["tokens"] for record in references]
    expected = [list(answer) for answer in answers]
    for record, said in zip(references, expected, strict=True):
        for step, token in record["top"]:
            said[step] = token
    steps: list[dict[str, Any]] = [
        {"along": along(record), "differs": _differences(wanted, said)}
        for record, wanted, said in zip(references, expected, found, strict=True)
    ]
    if law is not None and end is not None:
        labels = labels_along(ready, prompts, answers, found, expected, law, end)
        for step, texts in zip(steps, labels, strict=True):
            step["path"] = texts
    return steps


def labels_along(
    ready: Placed,
    prompts: Sequence[Example],
    answers: Sequence[Sequence[int]],
    released: Sequence[Sequence[int]],
    tuned: Sequence[Sequence[int]],
    law: StrengthLaw,
    end: Tensor,
    decide: Callable[[Placed, Sequence[Example], Sequence[Sequence[int]]], Any] = argmaxes,
) -> list[list[str]]:
    """Labels along the path at every step of every answer (:func:`certify.stats.path.encode`).

    Args:
        released: what the arm in the model decides: strength 0.
        tuned: what the reference decides: strength 1.
        end: E* (:func:`lottery.model.row_swap.values_of`).
        decide: called at every other strength, in their order; returns decisions as :func:`argmaxes` does.
    """
    known = {Fraction(0): released, Fraction(1): tuned}
    strengths = path_law(law.n, law.g).strengths
    for t in along_path(ready, end, [t for t in strengths if t not in known]):
        known[t] = decide(ready, prompts, answers)
    return [
        [encode(labels) for labels in zip(*(known[t][number] for t in strengths), strict=True)]
        for number in range(len(answers))
    ]


def _differences(expected: Sequence[int], said: Sequence[int]) -> list[list[int]]:
    pairs = zip(expected, said, strict=True)
    return [[step, token] for step, (wanted, token) in enumerate(pairs) if token != wanted]
