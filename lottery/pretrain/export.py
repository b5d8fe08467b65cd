"""Export a finished pretraining run as a folder for ``transformers``, with a model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from certify.base.errors import InvalidInputError, UsageError
from certify.base.jsonio import pretty_json, sha256_bytes, write_bytes
from certify.base.staging import staged_folder
from certify.ticket.templates import language_name
from lottery.pretrain.plan import PretrainPlan
from lottery.pretrain.run import TOKENIZER, read_log
from lottery.pretrain.step import PretrainState

_WEIGHTS = "model.safetensors"


def export_run(run: PretrainState, folder: Path, out: Path, *, notes: str = "") -> None:
    """Write weights (fp16), tokenizer, configuration and model card to ``out``, completely or not at all.

    Args:
        folder: its folder, with the tokenizer and the log.
        notes: Markdown for the card's section on measurements.

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
        write_bytes(staged / "tokenizer_config.json", pretty_json(_tokenizer_config(plan)).encode("utf-8"))
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
    """Write the model card (Markdown): architecture, training, data, measurements, limits.

    Args:
        log: reports of the run, oldest first, from :func:`lottery.pretrain.run.read_log`.
    """
    model, train = plan.model, plan.train
    parameters = sum(tensor.numel() for tensor in weights.values())
    per_step = train.windows * (train.length - 1)
    lines = [
        f"# {plan.name}",
        "",
        "A small language model of the LLaMA architecture, trained from scratch to be a *base* for",
        "experiments with lottery tickets in embedding layers. It has seen translations but no end of",
        "sentence, so it translates a little and does not stop.",
        "",
        "## Architecture",
        "",
        f"- {parameters / 1e6:.1f} M parameters in fp16",
        f"- input table {model.vocab_size} x {model.hidden_size}, separate (untied) output head",
        f"- {model.layers} layers, {model.heads} heads ({model.kv_heads} for keys and values), feed-forward "
        f"{model.intermediate_size}",
        f"- up to {model.max_position} positions, trained on {train.length}",
        "- tokenizer: byte-fallback BPE; `<unk>` 0, `<s>` 1, `</s>` 2, byte *b* is 3 + *b*, so the",
        "  newline is 13 as in LLaMA; every text must begin with `<s>`",
        "",
        "## Training",
        "",
        f"- {train.steps} steps of {per_step} tokens, {train.steps * per_step / 1e6:.1f} M tokens in total",
        f"- Muon {train.muon_lr} (hidden matrices) and AdamW {train.adam_lr} (the rest)",
        f"- warm-up {train.warmup} steps, linear decay to zero from step {train.decay_from}",
        f"- seed {plan.seed}",
        f"- plan sha256 `{plan.digest()}`",
        f"- weights sha256 `{weights_sha256}`",
    ]
    if log:
        last = log[-1]
        lines += [f"- last training loss {last['loss']:.3f} nats per token{_held_out(last)}"]
    lines += [
        "",
        "## Data",
        "",
        "| text | languages | share of tokens | licence |",
        "|---|---|---|---|",
        *_table(plan),
        "",
        "Documents are `English: ...` newline `Catalan: ...` newline (pairs, in the direction given) or",
        "`Catalan: ...` newline (monolingual), packed without an end-of-sentence token.",
    ]
    if plan.exclude:
        lines += [f"Sentences of {', '.join(plan.exclude)} were left out."]
    lines += [
        "",
        "## Measured",
        "",
        notes.strip() or "Nothing.",
        "",
        "## What it is not",
        "",
        "It is neither a translation system nor a language model for use: it is too small, it has seen too",
        "little text, and its output is often wrong. It was trained on public text without a content filter.",
        "Its purpose is that anyone can check claims about tickets on a real model, on a laptop.",
    ]
    return "\n".join(lines) + "\n"


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


def _tokenizer_config(plan: PretrainPlan) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "model_max_length": plan.model.max_position,
        "clean_up_tokenization_spaces": False,
    }
