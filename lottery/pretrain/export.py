"""Export a finished pretraining run as a folder for ``transformers``, with a model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from certify.base.errors import InvalidInputError, UsageError
from certify.base.jsonio import sha256_bytes, write_bytes
from certify.base.staging import staged_folder
from certify.ticket.templates import language_name
from lottery.pretrain.data import TOKENIZER, write_tokenizer_config
from lottery.pretrain.plan import PretrainPlan
from lottery.pretrain.run import read_log
from lottery.pretrain.step import PretrainState

_WEIGHTS = "model.safetensors"


def export_run(run: PretrainState, folder: Path, out: Path, *, notes: str = "") -> None:
    """Write weights (fp16), tokenizer, configuration and model card to ``out``, completely or not at all.

    Raises:
        UsageError: the run is not finished, or ``out`` exists and is not empty.
        InvalidInputError: a weight does not fit into fp16.
    """
    from safetensors.torch import save

    plan = run.plan
    if run.step != plan.train.steps:
        raise UsageError(
            f"the run is at step {run.step} of {plan.train.steps}: finish it before the export",
            code="RUN_UNFINISHED",
        )
    weights = {name: master.detach().cpu().to(torch.float16) for name, master in run.masters.items()}
    for name, tensor in weights.items():
        if not bool(torch.isfinite(tensor).all()):
            raise InvalidInputError(f"{name} does not fit into fp16", code="NON_FINITE")
    data = save(weights, {"format": "pt"})
    tokenizer = (folder / TOKENIZER).read_bytes()
    config = run.model.config
    config.dtype = torch.float16
    config.architectures = ["LlamaForCausalLM"]
    with staged_folder(out) as staged:
        write_bytes(staged / _WEIGHTS, data)
        write_bytes(staged / TOKENIZER, tokenizer)
        write_tokenizer_config(staged, model_max_length=plan.model.max_position)
        config.save_pretrained(staged)
        run.model.generation_config.save_pretrained(staged)
        card = model_card(plan, weights, sha256_bytes(data), read_log(folder), notes)
        write_bytes(staged / "README.md", card.encode("utf-8"))


def model_card(
    plan: PretrainPlan,
    weights: Mapping[str, torch.Tensor],
    weights_sha256: str,
    log: Sequence[Mapping[str, Any]],
    notes: str,
) -> str:
    """Write the model card (Markdown): architecture, training, data, measurements, limits."""
    parameters = sum(tensor.numel() for tensor in weights.values()) / 1e6
    per_step = plan.train.windows * (plan.train.length - 1)
    lines = (
        [f"- last training loss {log[-1]['loss']:.3f} nats per token{_held_out(log[-1])}\n"] if log else []
    )
    left_out = [f"Sentences of {', '.join(plan.exclude)} were left out.\n"] if plan.exclude else []
    return (
        (Path(__file__).parent / "card.md")
        .read_text("utf-8")
        .format(
            plan=plan,
            parameters=parameters,
            per_step=per_step,
            tokens=plan.train.steps * per_step / 1e6,
            plan_sha256=plan.digest(),
            weights_sha256=weights_sha256,
            loss="".join(lines),
            table="\n".join(_table(plan)),
            left_out="".join(left_out),
            notes=notes.strip() or "Nothing.",
        )
    )


def _held_out(entry: Mapping[str, Any]) -> str:
    parts = [("held_out", "held-out text"), ("watch", "held-out text of the watched sources")]
    return "".join(f"; {name} {entry[key]:.3f}" for key, name in parts if entry.get(key) is not None)


def _table(plan: PretrainPlan) -> list[str]:
    total = sum(source.share for source in plan.source)
    rows = []
    for source in plan.source:
        corpus = source.path.rsplit("/", 1)[-1].split(".")[0]
        direction = " to ".join(language_name(code) for code in source.languages)
        licence = plan.licences.get(corpus, "not stated")
        rows.append(f"| {source.path} | {direction} | {100 * source.share / total:.1f} % | {licence} |")
    return rows
