"""Translating a text with a model, as it is or with other embedding rows, and scoring what came out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from certify.errors import InvalidInputError, NothingToDoError, UsageError
from certify.records import Dtype
from lottery.backbone import find_base, load_backbone, load_tokenizer
from lottery.corpus import corpus_digest
from lottery.dtypes import to_float32
from lottery.generate import Output, generate
from lottery.pairsource import read_pairs
from lottery.released import open_base, open_rows, open_source
from lottery.score import RULES, Scores, corpus_scores, extract
from lottery.tables import check_finite, open_table
from lottery.templates import encode, load_template


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Outcome of :func:`evaluate`.

    Attributes:
        sentences: number of sentences.
        ended: share of outputs that the model ended itself.
        scores: one entry per extraction rule.
        outputs: what the model said, in the order of the text.
        data_sha256: digest of the text.
        template_sha256: digest of the template.
    """

    sentences: int
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
    batch_size: int = 32,
    beams: int = 1,
    dtype: Dtype = "F32",
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Translate ``data`` and score it under every extraction rule.

    Args:
        base: checkpoint folder, or the hub's name of a model.
        data: parallel text (:func:`lottery.pairsource.read_pairs`).
        languages: codes of source and target.
        template: prompt template, by name or path.
        table: put this table (E* for instance) into the model, in the dtype in which the base is stored.
        ticket: ``FILE#ID``; put the released rows of this ticket into the model. Base and rows must be the
            ticket's.
        limit: first so many sentences only.
        max_new_tokens: longest answer.
        batch_size: prompts decoded together.
        beams: hypotheses kept; 1 is greedy.
        dtype: in which the model computes.
        progress: called with (sentences done, sentences in all).

    Raises:
        UsageError: both ``table`` and ``ticket``; something named does not exist; prompts are too long.
        InvalidInputError: model, table, ticket, text or template are refused.
        NothingToDoError: there is no sentence.
    """
    if table is not None and ticket is not None:
        raise UsageError("--table and --ticket exclude each other", code="USAGE")
    folder = find_base(base)
    loaded = load_template(template)
    pairs = read_pairs(data, *languages, limit=limit)
    if not pairs:
        raise NothingToDoError(f"{data} holds no sentence", code="NO_EXAMPLES")
    tokenizer = load_tokenizer(folder)
    prompts = encode(loaded, pairs, tokenizer, *languages, response=False)
    model = load_backbone(folder, dtype).eval()
    if table is not None:
        _put_table(model, folder, table)
    if ticket is not None:
        _put_ticket(model, folder, ticket)
    outputs = generate(
        model,
        tokenizer,
        prompts,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        beams=beams,
        progress=progress,
    )
    labels = loaded.field_labels(*languages)
    references = [pair.target for pair in pairs]
    scores = tuple(
        corpus_scores([extract(output.text, rule, labels) for output in outputs], references, rule)
        for rule in RULES
    )
    return Evaluation(
        sentences=len(pairs),
        ended=sum(output.ended for output in outputs) / len(outputs),
        scores=scores,
        outputs=tuple(outputs),
        data_sha256=corpus_digest(pairs),
        template_sha256=loaded.digest(),
    )


def _put_table(model: PreTrainedModel, folder: Path, path: Path) -> None:
    stored = open_table(folder)
    # Seen as it would be served: in the dtype of the base.
    table = open_table(path).as_dtype(stored.dtype)
    if table.shape != stored.shape:
        raise InvalidInputError(
            f"{path} is {table.shape[0]} x {table.shape[1]}, the base {stored.shape[0]} x {stored.shape[1]}",
            code="SHAPE_MISMATCH",
        )
    check_finite(table)
    _put(model, range(table.shape[0]), to_float32(table.rows(0, table.shape[0]), table.dtype))


def _put_ticket(model: PreTrainedModel, folder: Path, spec: str) -> None:
    source = open_source(spec)
    open_base(source, folder)
    rows = open_rows(source)
    _put(model, rows.ids.tolist(), to_float32(rows.served, rows.dtype))


def _put(model: PreTrainedModel, ids: Sequence[int], values: NDArray[np.float32]) -> None:
    weight = model.get_input_embeddings().weight
    with torch.no_grad():
        weight[torch.as_tensor(list(ids))] = torch.from_numpy(np.array(values)).to(weight.dtype)
