"""Translate a text with a model, as it is or with other embedding rows, and score the outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from certify.base.errors import NothingToDoError, UsageError
from certify.base.records import RULES, Dtype
from certify.evidence.read import Decoding, Manifest
from certify.evidence.sampling import MOST_DRAWN
from certify.tables.table import open_table
from certify.ticket.corpus import corpus_digest, deduplicate, drawn, pair_digests
from certify.ticket.declared import StrengthLaw, common_law
from certify.ticket.released import open_base, open_rows, open_source
from certify.ticket.templates import encodable, encode, load_template
from lottery.evaluation.arms import Opened, open_like
from lottery.evaluation.assemble import Assembly, check_out
from lottery.evaluation.generate import Output, generate
from lottery.evaluation.measure import measure_arms
from lottery.evaluation.prompts import DOCUMENT, make_task
from lottery.evaluation.sequential import Decided, evaluate_until
from lottery.evaluation.shards import free_folder
from lottery.model.backbone import find_base, load_backbone
from lottery.model.row_swap import (
    base_placement,
    placed,
    reference_placement,
    rows_placement,
    serve_base,
)
from lottery.model.tokenizer import load_tokenizer
from lottery.text.outputs import read_outputs
from lottery.text.pairsource import read_pairs
from lottery.text.score import BleuTokenizer, Scorer, Scores
from lottery.text.usedtext import unused


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Outcome of :func:`evaluate`.

    Attributes:
        ended: share of outputs that the model ended itself.
        control: pairs left out because they hold a control token of the tokenizer.
    """

    sentences: int
    control: int
    ended: float
    scores: tuple[Scores, ...]
    outputs: tuple[Output, ...]
    data_sha256: str
    template_sha256: str

    def summary(self) -> dict[str, Any]:
        """Everything but the outputs, as plain JSON values."""
        return {key: value for key, value in asdict(self).items() if key != "outputs"}


def evaluate(
    base: str,
    data: str,
    languages: tuple[str, str],
    *,
    template: str,
    table: Path | None = None,
    ticket: str | None = None,
    limit: int | None = None,
    max_new_tokens: int = 128,
    batch_size: int = 64,
    beams: int = 1,
    dtype: Dtype = "F32",
    bleu_tokenizer: BleuTokenizer = "13a",
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Translate ``data`` and score it under every extraction rule.

    Args:
        base: checkpoint folder, or name of a model on the hub.
        data: parallel text (:func:`lottery.text.pairsource.read_pairs`).
        table: table to put into the model, such as E*, in the dtype that the base is stored in.
        ticket: ``FILE#ID`` of a ticket whose released rows to put into the model. The base must be the
            ticket's.
        beams: hypotheses kept; 1 is greedy.
        progress: called with (sentences done, sentences in all).

    Raises:
        UsageError: both ``table`` and ``ticket`` are given, a named file does not exist, or prompts are too
            long.
        InvalidInputError: model, table, ticket, text or template is malformed.
        NothingToDoError: the text has no sentences.
    """
    if table is not None and ticket is not None:
        raise UsageError("--table and --ticket exclude each other", code="USAGE")
    scorer = Scorer(bleu_tokenizer)
    folder = find_base(base)
    loaded = load_template(template)
    read = read_pairs(data, *languages)
    source = None if ticket is None else open_source(ticket)
    tokenizer = load_tokenizer(folder, None if source is None else source.ticket.probe_sha256)
    plain = encodable(read, tokenizer)
    pairs = drawn(plain, limit, pair_digests)
    if not pairs:
        raise NothingToDoError(f"no sentence of {data} is left", code="NO_EXAMPLES")
    prompts = encode(loaded, pairs, tokenizer, *languages, response=False)
    stored = open_table(folder, allow_tied=True)
    placement = base_placement(stored)
    if table is not None:
        placement = reference_placement(open_like(table, stored))
    if source is not None:
        stored = open_base(source, folder)
        placement = rows_placement("ticket", source.ticket.released.object, stored, open_rows(source))
    model = load_backbone(folder, dtype).eval()
    serve_base(model, stored)
    with placed(model, placement, dtype) as ready:
        outputs = generate(
            ready,
            tokenizer,
            prompts,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            beams=beams,
            progress=progress,
        )
    labels = loaded.field_labels(*languages)
    made = [
        scorer.rules(output.text, labels, pair.target) for output, pair in zip(outputs, pairs, strict=True)
    ]
    scores = tuple(
        scorer.scores((vectors[which[number]] for vectors, which in made), rule)
        for number, rule in enumerate(RULES)
    )
    return Evaluation(
        sentences=len(pairs),
        control=len(read) - len(plain),
        ended=sum(output.ended for output in outputs) / len(outputs),
        scores=scores,
        outputs=tuple(outputs),
        data_sha256=corpus_digest(pairs),
        template_sha256=loaded.digest(),
    )


def evaluate_tickets(
    opened: Opened,
    data: str,
    languages: tuple[str, str],
    *,
    template: str,
    out: Path,
    unit: str,
    attribution: str = "",
    limit: int | None = None,
    max_new_tokens: int = 128,
    batch_size: int = 64,
    beams: int = 1,
    bleu_tokenizer: BleuTokenizer = "13a",
    order_seed: int = 0,
    resume: bool = False,
    path: StrengthLaw | None = None,
    margins: bool = False,
    outputs: Sequence[Path] = (),
    paraphrase: bool = False,
    decided: Decided | None = None,
    max_units: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    notice: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Evaluate base, embed tuning and tickets on one text, and write the evidence.

    Part files in ``NAME.parts`` beside the evidence make the run resumable. They are not needed afterwards.
    Arguments that are not listed are those of :func:`evaluate`.

    Args:
        opened: the arms; pairs that hold a sentence which they list as used are left out.
        unit: unit of sampling, ``sentence``, ``block:N`` or ``document``. For documents, the text must name
            the document of each line (:mod:`lottery.text.pairsource`).
        attribution: owner of the text; if given, the evidence includes up to 50 sentences in words.
        path: strengths between each ticket's table and E* at which to record labels, too (theory §4b); None
            means those that a ticket declares, if any.
        margins: follow the arms of all tickets along their own outputs, too (theory §5); otherwise those of
            tickets that declare ``guarantee:calibrated``.
        outputs: files with the outputs of every arm, made by another engine: nothing is decoded, its decoding
            is recorded, and path, margins and ``decided`` do not apply (:mod:`lottery.text.outputs`).
        paraphrase: the template is another than the tickets' (theory §6.2): only base, reference and tickets
            are evaluated, and neither path nor margins are recorded.
        notice: called with one line about pairs that are left out, if any are.
        decided: stopping rule. Units are drawn in the order of ``order_seed``, and the run stops once this
            returns True after a batch (:mod:`lottery.evaluation.sequential`). None evaluates the whole text.
        progress: called with (sentences done, sentences in all), counted over all arms unless ``decided``.

    Raises:
        UsageError: a named file does not exist; part files exist and ``resume`` is false (``OUT_EXISTS``),
            or belong to another run (``PART_MISMATCH``); the tickets and ``path`` do not name the same
            strengths (``PATH_DIFFERS``); the unit is the document, with ``decided`` (``UNIT``).
        InvalidInputError: model, text or template is malformed, or the outputs are refused
            (:func:`lottery.text.outputs.read_outputs`).
        NothingToDoError: the text has no sentences.
    """
    check_out(out)
    if decided is not None and unit == DOCUMENT:
        raise UsageError(
            "documents cannot be drawn one by one: evidence does not list all documents of a text, so drawn"
            " ones cannot be distinguished from picked ones; evaluate the whole text",
            code="UNIT",
        )
    scorer = Scorer(bleu_tokenizer)
    loaded, tokenizer = load_template(template), opened.tokenizer
    law = common_law((claim for source in opened.sources for claim in source.ticket.declared), path)
    placements = [one for one in opened.placements if not paraphrase or one.arm.control is None]
    read = read_pairs(data, *languages, documents=unit == DOCUMENT)
    distinct = deduplicate(read)
    fresh = unused(distinct, opened.used)
    plain = encodable(fresh, tokenizer)
    kept = drawn(plain, limit, pair_digests)
    if len(plain) < len(read):
        held = len(fresh) - len(plain)
        notice(
            f"{len(read)} pairs read, left out: {len(read) - len(distinct)} repeated,"
            f" {len(distinct) - len(fresh)} used before{f', {held} holding a control token' if held else ''}"
        )
    if not kept:
        raise NothingToDoError(f"no sentence of {data} is left", code="NO_EXAMPLES")
    if decided is not None and len(kept) > MOST_DRAWN:
        raise UsageError(f"units are drawn from at most {MOST_DRAWN} sentences: set --limit", code="LIMITS")
    made, followed = None, not outputs and not paraphrase
    if outputs:
        names = [arm.name for arm in opened.arms]
        made = read_outputs(outputs, names, read, kept, name=Path(data).name)
    decoding = Decoding(beams=beams, max_new_tokens=max_new_tokens, dtype=opened.dtype)
    task = make_task(
        kept,
        languages,
        loaded,
        tokenizer,
        name=Path(data).name,
        unit=unit,
        attribution=attribution,
        tokenizer_sha256=opened.tokenizer_sha256,
        base=opened.model_ref,
        reference_sha256=opened.reference.digest(),
        decoding=decoding if made is None else made.decoding,
        batch_size=batch_size,
        scorer=scorer,
        path=law if followed else None,
        margins=opened.margins(margins) if followed else None,
        produced_by=None if made is None else made.producer,
    )
    design: Literal["fixed", "sequential"] = "fixed" if decided is None else "sequential"
    arms = [arm for arm in opened.arms if not paraphrase or arm.control is None]
    evidence = Assembly(task, arms, out, used=opened.used, order_seed=order_seed, design=design)
    if made is not None:
        return evidence.add_outputs(made)
    parts = free_folder(out, resume=resume)
    measured = partial(measure_arms, opened.model, tokenizer, task, placements, parts, resume=resume)
    if decided is None:
        return evidence.add(measured(progress=progress))
    return evaluate_until(
        task,
        evidence,
        out,
        lambda opened, indices: measured(opened=opened, indices=indices),
        decided=decided,
        order_seed=order_seed,
        max_units=max_units,
        progress=progress,
    )
