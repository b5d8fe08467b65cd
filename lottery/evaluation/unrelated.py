"""Evaluate the loss of base, embed tuning and tickets on text outside the task (theory §6, point 6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from certify.base.jsonio import sha256_file
from certify.base.records import Dtype
from certify.evidence.read import BaseModelRef, Manifest, TextRef
from certify.tables.modeldigest import checkpoint_digest
from certify.tables.tokenisation import probe_digest
from certify.ticket.released import open_source
from lottery.evaluation.arms import Nulls, check_used, open_arms
from lottery.evaluation.assemble import LossTask, assemble_loss, check_out
from lottery.evaluation.measure import measure_loss
from lottery.evaluation.shards import Part, free_folder
from lottery.model.backbone import find_base, load_backbone
from lottery.model.row_swap import serve_base
from lottery.model.tokenizer import load_tokenizer
from lottery.text.textfile import locate, read_lines
from lottery.text.unrelated import choose_passages, passage_windows
from lottery.text.usedtext import UsedText


def evaluate_unrelated(
    base: str,
    data: Path,
    *,
    reference: Path | None,
    tickets: Sequence[str],
    out: Path,
    attribution: str = "",
    used: Sequence[UsedText] = (),
    limit: int | None = None,
    block: int = 5,
    window: int = 128,
    batch_size: int = 64,
    dtype: Dtype = "F32",
    order_seed: int = 0,
    resume: bool = False,
    nulls: Nulls | None = None,
    progress: Callable[[int, int], None] | None = None,
    notice: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Measure the loss of every arm on passages of a text outside the task, and write the evidence.

    Arguments that are not listed are those of :func:`lottery.evaluation.evaluate.evaluate_tickets`.

    Args:
        data: lines of text, UTF-8.
        limit: largest number of passages, drawn by digest; None takes all.
        block: number of lines per passage; a passage is a unit.
        window: largest number of tokens per forward pass.
        progress: called with (windows done, windows in all), counted over all arms.

    Raises:
        UsageError: as there; a limit below 1 (``LIMITS``).
        InvalidInputError: as there.
        NothingToDoError: no passage is left (``NO_TEXT``).
    """
    check_out(out)
    folder = find_base(base)
    sources = [open_source(spec) for spec in tickets]
    stored, tuned, placements = open_arms(folder, reference, sources, nulls)
    check_used(used, placements)
    tokenizer = load_tokenizer(folder, *(source.ticket.probe_sha256 for source in sources))
    text = choose_passages(
        read_lines(locate(data)),
        name=data.name,
        block=block,
        limit=limit,
        used=frozenset().union(*(entry.digests for entry in used)),
        tokenizer=tokenizer,
    )
    counted = ", ".join(f"{count} {reason}" for reason, count in text.left_out().items() if count)
    if counted:
        notice(f"lines of {data.name} left out: {counted}")
    task = LossTask(
        passage_windows(text.passages, tokenizer, max_tokens=window),
        TextRef(
            name=text.name,
            sha256=text.digest(),
            sentences=sum(len(passage.lines) for passage in text.passages),
            unit=text.unit,
            attribution=attribution,
        ),
        BaseModelRef(
            tensor_sha256=stored.digest(), model_sha256=checkpoint_digest(folder, without=stored.tensor)
        ),
        sha256_file(folder / "tokenizer.json"),
        probe_digest(tokenizer),
        dtype,
    )
    parts_folder = free_folder(out, resume=resume)
    model = load_backbone(folder, dtype).eval()
    serve_base(model, stored)
    parts: dict[str, Part] = {}
    for number, placement in enumerate(placements):

        def within(done: int, total: int, number: int = number) -> None:
            if progress is not None:
                progress(number * total + done, len(placements) * total)

        name = placement.arm.name
        parts[name] = measure_loss(
            model,
            task,
            placement,
            parts_folder / f"{name}.jsonl",
            batch_size=batch_size,
            resume=resume,
            progress=within,
        )
    arms = sorted((placement.arm for placement in placements), key=lambda arm: arm.kind != "base")
    return assemble_loss(
        task, arms, parts, out, reference_sha256=tuned.digest(), used=used, order_seed=order_seed
    )
