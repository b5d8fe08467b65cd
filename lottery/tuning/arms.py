"""What is trained and written: embedding rows, or one of the comparison arms."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from certify.base.errors import UsageError
from certify.base.jsonio import pretty_json, read_json, write_bytes
from certify.base.records import Dtype
from certify.base.staging import staged_folder, written_by_safetensors
from certify.cli.shell import needs_extra
from certify.tables.dtypes import DTYPES, cast, to_float32
from certify.tables.modeldigest import adapter_settings
from certify.tables.rowfile import make_rows, write_rows
from certify.tables.safefile import write_tensors
from certify.tables.table import DEFAULT_TENSOR, Table, open_table
from certify.ticket.transfer import table_digest
from lottery.model.backbone import TORCH_DTYPES, output_head, quiet
from lottery.model.rows import extract, install
from lottery.model.tokenizer import first_line
from lottery.tuning.recipe import Method

TABLE_FILE, ROWS_FILE = "embed_tokens.safetensors", "rows.safetensors"
MODEL_FOLDER, ADAPTER_FOLDER = "model", "adapter"


@dataclass(frozen=True, slots=True)
class TrainableArm:
    """A model that is ready to be trained.

    Attributes:
        model: the model to run; only trained parameters require a gradient.
        output: name of the file or folder that :attr:`save` writes.
        save: write the result into a folder, completely or not at all. Returns the tensor digest of the
            input table that it serves, in each dtype that a ticket can serve; None for other weights.
    """

    model: nn.Module
    head: nn.Module
    output: str
    save: Callable[[Path], dict[Dtype, str] | None]


def rows_arm(
    model: PreTrainedModel, ids: Sequence[int] | None, table: Table, *, tokens: int, allow_beyond: bool
) -> TrainableArm:
    """Prepare embed tuning (``ids`` None) or partial tuning of rows of ``table``.

    Embed tuning writes the fp32 table, partial tuning the rows in fp32 and in the dtype of the stored table.
    Rows start from that table: a backbone loaded in a narrower dtype has rounded them, but a row that is
    never fed must end with the base's value.

    Raises:
        CertifyError: see :func:`lottery.model.rows.install`.
    """
    raw = table.rows(0, table.shape[0]) if ids is None else table.take(ids)
    start = np.array(to_float32(raw, table.dtype))  # a copy, so that nothing writes through the memory map
    module = install(model, ids, init=start, tokens=tokens, allow_beyond=allow_beyond)

    def save(out: Path) -> dict[Dtype, str]:
        values = extract(module)
        if ids is None:
            write_tensors(out / TABLE_FILE, {DEFAULT_TENSOR: ("F32", values)}, None)
            written = open_table(out / TABLE_FILE)
            return {dtype: written.as_dtype(dtype).digest() for dtype in DTYPES}
        rows = make_rows(np.asarray(ids, np.int64), values, table.stored_dtype)
        write_rows(out / ROWS_FILE, rows)
        return {
            dtype: table_digest(
                table.as_dtype(dtype), replace(rows, served=cast(rows.fp32, "F32", dtype), dtype=dtype)
            )
            for dtype in DTYPES
        }

    return TrainableArm(model, output_head(model), TABLE_FILE if ids is None else ROWS_FILE, save)


def full_arm(model: PreTrainedModel, *, served: Dtype, beside: Sequence[Path]) -> TrainableArm:
    """Prepare to train every weight; writes a checkpoint folder in the served dtype, with ``beside``."""
    model.requires_grad_(True)

    def save(out: Path) -> None:
        with _replaced_folder(out / MODEL_FOLDER) as folder:
            with quiet(), written_by_safetensors(folder):
                model.to(TORCH_DTYPES[served]).save_pretrained(folder)
            for path in beside:
                (folder / path.name).write_bytes(path.read_bytes())

    return TrainableArm(model, output_head(model), MODEL_FOLDER, save)


def peft_arm(model: PreTrainedModel, method: Method, *, size: int, seed: int) -> TrainableArm:
    """Prepare LoRA of rank ``size`` or a prefix of ``size`` positions; writes a PEFT adapter folder.

    Raises:
        UsageError: peft is not installed, or has no default targets for this architecture.
    """
    with needs_extra(f"--method {method}"):
        from peft import LoraConfig, PeftConfig, PrefixTuningConfig, TaskType, get_peft_model
    head = output_head(model)
    config: PeftConfig
    if method == "lora":
        config = LoraConfig(task_type=TaskType.CAUSAL_LM, r=size, lora_alpha=2 * size, lora_dropout=0.0)
    else:
        config = PrefixTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=size)
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # initial values are drawn here
        try:
            # Libraries warn here about their own calls of one another.
            with warnings.catch_warnings(action="ignore", category=FutureWarning):
                adapted: Any = get_peft_model(model, config)
        except ValueError as error:
            raise UsageError(
                f"--method {method} cannot be used: {first_line(error)}", code="PEFT_REFUSED"
            ) from error

    def save(out: Path) -> None:
        with _replaced_folder(out / ADAPTER_FOLDER) as folder, written_by_safetensors(folder):
            adapted.save_pretrained(folder)
            _without_origin(folder)

    return TrainableArm(adapted, head, ADAPTER_FOLDER, save)


def _without_origin(folder: Path) -> None:
    """Remove from an adapter folder the traces of where it was made, so that equal adapters are equal files.

    PEFT writes the path of the base into the settings and a model card, and module names in the order of a
    set.
    """
    path = folder / "adapter_config.json"
    written = read_json(path, what="adapter configuration")
    # PEFT requires these entries; None leaves the place of the base open.
    written |= adapter_settings(written) | {"base_model_name_or_path": None, "revision": None}
    write_bytes(path, pretty_json(written).encode("utf-8"))
    (folder / "README.md").unlink(missing_ok=True)


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Recompute activations in the backward pass instead of keeping them.

    Raises:
        UsageError: the architecture does not support it.
    """
    # transformers 5 renamed the method; both take the arguments of torch.utils.checkpoint.
    switch = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    try:
        switch({"use_reentrant": False})
    except ValueError as error:
        raise UsageError(f"gradient checkpointing: {first_line(error)}", code="NO_CHECKPOINTING") from error


def _replaced_folder(path: Path) -> AbstractContextManager[Path]:
    # A run that was killed after its result but before its record writes the result again.
    shutil.rmtree(path, ignore_errors=True)
    return staged_folder(path)
