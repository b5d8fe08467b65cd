"""Tuning from settings to files: embed tuning, partial tuning, and the comparison arms.

A run writes ``run.json`` and ``metrics.jsonl`` (:mod:`lottery.tuning.journal`), ``used.txt`` with digests of
the training sentences (:func:`lottery.text.usedtext.write_used_list`), ``counts.npy`` with how often each id
was fed (:func:`certify.selection.frequency.write_counts`), and one of:

===================  ========================================================================================
all rows             ``embed_tokens.safetensors``: the fp32 table
some rows            ``rows.safetensors``: ids, fp32 rows, served rows (:mod:`certify.tables.rowfile`)
full                 ``model/``: a checkpoint in the dtype of the base
lora, prefix         ``adapter/``: a PEFT adapter
===================  ========================================================================================

Under ``accelerate launch`` every process runs :func:`tune`; the first one writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certify.base.errors import InvalidInputError, UsageError
from certify.base.jsonio import sha256_file
from certify.base.records import Dtype
from certify.base.staging import clear_leftovers
from certify.selection.frequency import write_counts
from certify.selection.rules import languages
from certify.tables.table import Table, open_table
from certify.tables.tokenisation import check_probe, probe_digest
from certify.tables.vocabulary import Vocabulary, open_vocabulary
from certify.ticket.templates import fed_counts, load_template
from lottery.model.backbone import find_base, load_backbone, load_positions
from lottery.model.device import SLOW_BF16, Device, bf16_slowdown, lone_launch, open_accelerator
from lottery.model.tokenizer import load_tokenizer
from lottery.text.tunedata import COUNTS_FILE, MAX_LENGTH, Data, Prepared, feed_counts, prepare
from lottery.text.usedtext import USED_FILE, write_used_list
from lottery.tuning.arms import TrainableArm, checkpoint_activations, full_arm, peft_arm, rows_arm
from lottery.tuning.journal import METRICS_FILE, RUN_FILE, STATES_FOLDER, Journal
from lottery.tuning.recipe import Method, Recipe
from lottery.tuning.rowspec import Chosen, choose_rows
from lottery.tuning.runstate import clear_states, latest_state, load_state, save_state
from lottery.tuning.trainer import Limits, StepReport, Trainer, one_line_memory

_LARGE = 1_000_000_000  # bytes of weights from which on a digest takes long enough to announce it


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that determines the weights.

    Attributes:
        recipe: optimisation; :data:`lottery.tuning.recipe.RECIPES` holds the defaults.
        seed: seed for the order of the data, initial adapters, dropout and rule ``random``.
        rows: rows to train for method ``rows``; see :mod:`lottery.tuning.rowspec`.
        dtype: dtype of the backbone's weights in memory.
        adapter_size: rank of LoRA, or length of the prefix.
        allow_beyond: accept rows beyond the tokenizer.
    """

    data: Data
    recipe: Recipe
    limits: Limits
    seed: int
    method: Method = "rows"
    rows: str = "all"
    reference: Path | None = None
    dtype: Dtype = "F32"
    gradient_checkpointing: bool = False
    adapter_size: int = 8
    allow_beyond: bool = False


@dataclass(frozen=True, slots=True)
class TuningOutcome:
    """Result of a tuning run.

    Attributes:
        main: whether this is the first process, which wrote the result.
        resumed: step that this call started from; 0 for a fresh run.
        left_out: numbers of pairs left out, by reason.
        loss: training loss of the last step, nats per token; None if this call only wrote the result.
        held_out: held-out loss at the end; None without held-out text.
    """

    main: bool
    path: Path
    steps: int
    resumed: int
    trainable: int
    examples: int
    left_out: dict[str, int]
    loss: float | None
    held_out: float | None


def tune(
    base: str,
    settings: Settings,
    out: Path,
    *,
    device: Device = "auto",
    resume: bool = False,
    save_every: int = 100,
    keep: int = 2,
    report: Callable[[StepReport], None] | None = None,
    notice: Callable[[str], None] = lambda _: None,
) -> TuningOutcome:
    """Run tuning to its end, from the start or from the last saved state.

    Args:
        base: checkpoint folder, or name of a model on the hub.
        out: folder of the run; new or empty unless ``resume``.
        device: device to compute on; ``auto`` means a GPU if there is one.
        resume: continue the run in ``out``, from the start if it has no saved state.
        save_every: number of optimiser steps between saved states; the last step is saved as well.
        notice: called with one line about what will take long, such as digests of a large model.

    Raises:
        UsageError: a named file does not exist, options do not combine, ``out`` is not empty, memory or disk
            is too small, or an extra is missing.
        InvalidInputError: base, tokenizer, data, ticket or template is malformed, or the loss is not finite.
        NothingToDoError: there is no data, or the run in ``out`` is complete.
    """
    if settings.seed < 0 or save_every < 1 or keep < 1:
        raise UsageError(
            "the seed must be at least 0, the numbers of steps and states at least 1", code="USAGE"
        )
    if settings.method == "prefix" and settings.gradient_checkpointing:
        raise UsageError("prefix tuning and gradient checkpointing exclude each other", code="ARM_OPTION")
    folder = find_base(base)
    table = open_table(folder, allow_tied=True)
    if table.tied and settings.method == "rows":
        raise InvalidInputError(
            f"{folder}: the output head is tied to the input table, so rows cannot be tuned alone; use"
            " a copy with a head of its own (certify model untie), or --method full, lora or prefix",
            code="TIED_HEAD",
        )
    vocabulary = open_vocabulary(folder)
    if vocabulary.size > table.shape[0]:
        raise InvalidInputError(
            f"{folder}: the tokenizer has {vocabulary.size} tokens, but the table only {table.shape[0]} rows",
            code="TOKENIZER_TABLE_SIZE",
        )
    settings = _within_positions(settings, folder)
    tokenizer = load_tokenizer(folder)
    prepared = prepare(settings.data, tokenizer)
    fed = feed_counts(prepared.train, table.shape[0])
    chosen = None
    if settings.method == "rows":
        chosen = choose_rows(
            settings.rows,
            table,
            vocabulary=vocabulary,
            counts=lambda rule: (
                fed_counts(load_template(settings.data.template), tokenizer, *languages(rule), fed.size)
                if rule.startswith("template:")
                else fed
            ),
            reference=settings.reference,
            seed=settings.seed,
        )
        check_probe(probe_digest(tokenizer), chosen.probe)
    weights = sorted({*table.files, *table.path.glob("*.safetensors")})
    size = sum(path.stat().st_size for path in weights)
    if size >= _LARGE:
        notice(f"computing the digest of {size / 1e9:.1f} GB of weights")
    inputs = {path.name: sha256_file(path) for path in weights}
    details: dict[str, Any] = {"examples": len(prepared.train), "left_out": prepared.left_out}
    if chosen is not None:
        details["ticket"] = chosen.ticket
        details["excluded"] = {group.reason: len(group.ids) for group in chosen.excluded}
    journal = Journal(out, _identity(settings, inputs, vocabulary, prepared, chosen), details)
    journal.check_free(resume=resume)
    if lone_launch():
        notice(
            "accelerate launch --cpu starts one process: for several use --multi_gpu and tune's --device cpu"
        )
    accelerator = open_accelerator(device)
    in_bf16 = settings.limits.autocast or settings.dtype == "BF16"
    if in_bf16 and accelerator.device.type == "cpu" and (slower := bf16_slowdown()) >= SLOW_BF16:
        notice(f"this processor takes {slower:.0f} times as long in bf16 as in fp32: fp32 may be faster")
    # Every process has checked the folder before the first one writes into it.
    accelerator.wait_for_everyone()
    with one_line_memory(settings.limits):
        arm = _arm(settings, folder, table, vocabulary, chosen)
        trainer = Trainer(
            arm.model,
            arm.head,
            prepared.train,
            recipe=settings.recipe,
            limits=settings.limits,
            seed=settings.seed,
            accelerator=accelerator,
            held_out=prepared.held_out,
        )
        return _run(
            trainer, arm, journal, out, prepared, fed, save_every=save_every, keep=keep, report=report
        )


def _run(
    trainer: Trainer,
    arm: TrainableArm,
    journal: Journal,
    out: Path,
    prepared: Prepared,
    fed: NDArray[np.int64],
    *,
    save_every: int,
    keep: int,
    report: Callable[[StepReport], None] | None,
) -> TuningOutcome:
    accelerator, main = trainer.accelerator, bool(trainer.accelerator.is_main_process)
    states = out / STATES_FOLDER
    saved = latest_state(states)
    if saved is not None:
        load_state(saved, trainer.parameters, trainer.optimiser)
        trainer.step, trainer.tokens = saved.step, saved.tokens
    resumed = trainer.step
    trainable = sum(parameter.numel() for parameter in trainer.parameters.values())
    plan = {"trainable": trainable, "steps": trainer.steps, "processes": accelerator.num_processes}
    if main:
        clear_leftovers(out, (arm.output, COUNTS_FILE, USED_FILE, RUN_FILE, METRICS_FILE, STATES_FOLDER))
        journal.write("running", plan)
        journal.rewind(resumed)
    last: list[StepReport] = []

    def after(step: StepReport) -> None:
        last[:] = [step]
        if not main:
            return
        journal.append(step)
        if step.step % save_every == 0 or step.step == step.steps:
            save_state(
                states, trainer.parameters, trainer.optimiser, step=step.step, tokens=step.tokens, keep=keep
            )
        if report is not None:
            report(step)

    try:
        trainer.run(after)
    except InvalidInputError as error:
        if main and error.code == "LOSS_NOT_FINITE":  # the same settings would fail again
            journal.write("failed", plan | {"step": trainer.step, "reason": str(error)})
        raise
    held_out = last[0].held_out if last else trainer.held_out_loss()
    loss = last[0].loss if last else None
    if main:
        tables = arm.save(out)
        write_counts(out / COUNTS_FILE, fed)
        used = write_used_list(out / USED_FILE, prepared.used)
        outcome = plan | {"output": arm.output, "tokens": trainer.tokens, "loss": loss, "held_out": held_out}
        outcome |= {"used": {"path": USED_FILE, "sha256": used, "count": len(prepared.used)}}
        outcome |= {"table_sha256": tables}
        journal.write("complete", outcome)
        clear_states(states)
    accelerator.wait_for_everyone()
    return TuningOutcome(
        main=main,
        path=out / arm.output,
        steps=trainer.steps,
        resumed=resumed,
        trainable=trainable,
        examples=len(prepared.train),
        left_out=prepared.left_out,
        loss=loss,
        held_out=held_out,
    )


def _identity(
    settings: Settings,
    weights: Mapping[str, str],
    vocabulary: Vocabulary,
    prepared: Prepared,
    chosen: Chosen | None,
) -> dict[str, Any]:
    asked = asdict(settings)
    # File names may change when a run is resumed, file contents may not.
    for name in ("sources", "held_out", "template"):
        del asked["data"][name]
    del asked["reference"], asked["rows"]
    inputs = {"weights": dict(weights), "tokenizer": sha256_file(vocabulary.path), **prepared.digests}
    rows = None if chosen is None else {"rule": chosen.rule, "ids": chosen.ids, "reference": chosen.reference}
    return {"settings": asked, "inputs": inputs, "rows": rows}


def _within_positions(settings: Settings, folder: Path) -> Settings:
    positions, asked = load_positions(folder), settings.data.max_length
    if asked is None:
        length = MAX_LENGTH if positions is None else min(MAX_LENGTH, positions)
        return replace(settings, data=replace(settings.data, max_length=length))
    if positions is not None and asked > positions:
        raise UsageError(
            f"--max-length {asked} is more than the {positions} positions of the model", code="MAX_LENGTH"
        )
    return settings


def _arm(
    settings: Settings, folder: Path, table: Table, vocabulary: Vocabulary, chosen: Chosen | None
) -> TrainableArm:
    model = load_backbone(folder, settings.dtype)
    if settings.gradient_checkpointing:
        checkpoint_activations(model)
    if chosen is not None:
        tokens, allow_beyond = vocabulary.size, settings.allow_beyond
        return rows_arm(model, chosen.ids, table, tokens=tokens, allow_beyond=allow_beyond)
    model.requires_grad_(False)
    if settings.method == "full":
        names = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.model")
        beside = [folder / name for name in names if (folder / name).is_file()]
        return full_arm(model, served=table.stored_dtype, beside=beside)
    return peft_arm(model, settings.method, size=settings.adapter_size, seed=settings.seed)
