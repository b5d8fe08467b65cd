"""Evaluate the loss of base, embed tuning and tickets on text outside the task (theory §6.6)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from certify.evidence.read import Manifest
from lottery.evaluation.arms import Opened
from lottery.evaluation.assemble import assemble_loss, check_out, make_loss_task
from lottery.evaluation.measure import measure_losses
from lottery.evaluation.shards import free_folder
from lottery.text.textfile import locate, read_lines
from lottery.text.unrelated import choose_passages


def evaluate_unrelated(
    opened: Opened,
    data: Path,
    *,
    out: Path,
    attribution: str = "",
    limit: int | None = None,
    block: int = 5,
    window: int = 128,
    batch_size: int = 64,
    order_seed: int = 0,
    resume: bool = False,
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
    text = choose_passages(
        read_lines(locate(data)),
        name=data.name,
        block=block,
        limit=limit,
        used=frozenset().union(*(entry.digests for entry in opened.used)),
        tokenizer=opened.tokenizer,
    )
    counted = ", ".join(f"{count} {reason}" for reason, count in text.left_out().items() if count)
    if counted:
        notice(f"lines of {data.name} left out: {counted}")
    task = make_loss_task(
        text,
        opened.tokenizer,
        window=window,
        attribution=attribution,
        base=opened.model_ref,
        tokenizer_sha256=opened.tokenizer_sha256,
        dtype=opened.dtype,
    )
    parts = measure_losses(
        opened.model,
        task,
        opened.placements,
        free_folder(out, resume=resume),
        batch_size=batch_size,
        resume=resume,
        progress=progress,
    )
    return assemble_loss(
        task,
        opened.arms,
        parts,
        out,
        reference_sha256=opened.reference.digest(),
        used=opened.used,
        order_seed=order_seed,
    )
