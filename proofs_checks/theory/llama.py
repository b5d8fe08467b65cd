"""C1 on a real model: permute the entries of one row of a LLaMA's input table, and its greedy output changes.

The permuted row has the same empirical law, so D = 0 and p = 1, and every Kolmogorov-Smirnov criterion,
whatever its margin, says that nothing can change (theory §3, A-LAW; §4, C1). Needs the extra ``tune`` and a
checkpoint; everything else in this package does without.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from certify.base.errors import UsageError
from certify.base.text import escape
from proofs_checks.check import Budget, Check, CheckFinding, Facts, check, decided

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

PROMPT = "English: The old house stands near the river.\nCatalan:"
"""A prompt of the kind that the shipped base model has seen; any model can be given it."""

NEW_TOKENS = 8


def permuted_row(folder: Path, *, prompt: str = PROMPT) -> Check:
    """The check of C1 on the checkpoint in ``folder``: a local LLaMA with its tokenizer, untied.

    It is ``not run``, with the reason, without torch and transformers, without a checkpoint, or where the
    input table is tied to the output head (there the same rows would act twice).
    """

    @check(
        "counterexamples.C1-llama",
        "§4 C1 on a real LLaMA: a permuted row has D = 0 and changes the greedy output",
        ("A-LAW",),
        needs=("torch", "transformers"),
    )
    def run(budget: Budget) -> CheckFinding:
        if not (folder / "config.json").is_file():
            return CheckFinding("not run", 0, f"no checkpoint in {escape(str(folder))}")
        return search(folder, prompt, budget)

    return run


@decided
def search(folder: Path, prompt: str, budget: Budget) -> Facts:
    """Permute the rows of the prompt's tokens, one at a time, until the greedy output changes."""
    from lottery.model.backbone import load_backbone
    from lottery.model.tokenizer import decode, load_tokenizer

    try:
        model, tokenizer = load_backbone(folder, "F32").eval(), load_tokenizer(folder)
    except UsageError as error:
        return CheckFinding("not run", 0, str(error))
    if model.config.tie_word_embeddings:
        tied = "the input table is tied to the output head: C1 is about the input alone"
        return CheckFinding("not run", 0, tied)
    ids = list(tokenizer(prompt)["input_ids"])
    table = model.get_input_embeddings().weight.data
    expected = greedy(model, ids)
    draw = np.random.default_rng(budget.seed)
    cases = 0
    # A full run does not stop at the first: it counts how many of the prompt's tokens can be used. Words come
    # before special tokens, because a word shows better what happens.
    found: list[str] = []
    special = set(tokenizer.all_special_ids)
    for token in sorted(dict.fromkeys(ids), key=special.__contains__):
        original = table[token].clone()
        table[token] = original[draw.permutation(original.numel()).tolist()]
        cases += 1
        produced, same_law = greedy(model, ids), same_distribution(original, table[token])
        table[token] = original
        yield f"permuting row {token} changed its entries", same_law
        if produced != expected:
            words = [escape(decode(tokenizer, tokens)) for tokens in (expected, produced)]
            piece = escape(str(tokenizer.convert_ids_to_tokens(token)))
            found.append(f"row {token} ({piece}) permuted, h = 0: «{words[0]}» becomes «{words[1]}»")
            if not budget.full:
                break
    repeated = greedy(model, ids) == expected
    yield "the model does not repeat its own output: the comparison means nothing", repeated
    yield "no permuted row of the prompt changed the greedy output", bool(found)
    detail = f"{len(found)} of {cases} permuted rows change the greedy output of {model.config.model_type}"
    return CheckFinding("passed", cases, detail, found[0])


def greedy(model: PreTrainedModel, ids: Sequence[int]) -> list[int]:
    """The next :data:`NEW_TOKENS` tokens by plain argmax, one prompt, no padding, no processors."""
    import torch

    fed = list(ids)
    with torch.inference_mode():
        for _ in range(NEW_TOKENS):
            logits: Any = model(input_ids=torch.tensor([fed])).logits
            fed.append(int(logits[0, -1].argmax()))
    return fed[len(ids) :]


def same_distribution(row: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two rows hold the same values in another order, so that all empirical CDFs agree: h = 0."""
    return bool((row.sort().values == other.sort().values).all()) and not bool((row == other).all())
