"""Arms of an evaluation: changes to the base model that are undone bit for bit (theory §1, §6).

One loaded model serves every arm. Rows and whole tables are written into its input table, and the old rows
are written back. A LoRA adapter is injected and removed, a prefix is kept in the cache. Only full tuning
loads a model of its own.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from certify.base.errors import InvalidInputError, UsageError
from certify.base.jsonio import read_json
from certify.base.records import Dtype
from certify.cli.shell import needs_extra
from certify.evidence.manifest import ArmKind, Control, Segment
from certify.evidence.read import Arm
from certify.tables.dtypes import to_float32
from certify.tables.modeldigest import adapter_digest, checkpoint_digest
from certify.tables.rowfile import Rows
from certify.tables.safefile import read_header
from certify.tables.table import Table
from certify.ticket.transfer import table_digest
from lottery.model.backbone import load_backbone, output_head, refuse_other_weights
from lottery.model.tokenizer import first_line
from lottery.text.segments import SEGMENTS

_PEFT_TYPES: Final = {"lora": "LORA", "prefix": "PREFIX_TUNING"}


@dataclass(frozen=True, slots=True)
class Placement:
    """What to put into the base, and its entry in the manifest; made by the functions below.

    Attributes:
        rows: rows of an arm of rows, in the served dtype.
        table: the whole table of the reference, in the served dtype.
        folder: checkpoint (full) or adapter folder (lora, prefix).
    """

    arm: Arm
    rows: Rows | None = None
    table: Table | None = None
    folder: Path | None = None


def base_placement(base: Table) -> Placement:
    """Describe the base as it is; ``base`` is E⁰ in the served dtype."""
    return Placement(Arm(name="base", kind="base", table_sha256=base.digest(), parameters=0))


def reference_placement(reference: Table) -> Placement:
    """Describe embed tuning: the whole table E* in the served dtype."""
    rows, width = reference.shape
    arm = Arm(name="reference", kind="reference", table_sha256=reference.digest(), parameters=rows * width)
    return Placement(arm, table=reference)


def rows_placement(
    name: str,
    kind: ArmKind,
    base: Table,
    rows: Rows,
    *,
    control: Control | None = None,
    of: str | None = None,
    seed: int | None = None,
    gate: Sequence[Segment] | None = None,
    note: str = "",
) -> Placement:
    """Describe rows to put into the base: partial transfer, partial tuning, random direction, null ticket.

    Args:
        kind: ``transfer``, ``tuned`` or ``direction``.
        base: E⁰ in the served dtype.
        rows: absolute rows in the same dtype, ids below V.
        gate: segments (:mod:`lottery.text.segments`) in which the rows act; None is everywhere.

    Raises:
        InvalidInputError: dtype, width or ids of the rows do not fit the table (``ROWS_DISAGREE``).
    """
    if (
        rows.dtype != base.dtype
        or rows.served.shape != (rows.ids.size, base.shape[1])
        or not rows.ids.size
        or int(rows.ids[-1]) >= base.shape[0]
    ):
        raise InvalidInputError(
            f"{name}: {rows.ids.size} rows in {rows.dtype} do not fit a table of {base.shape[0]} x"
            f" {base.shape[1]} in {base.dtype}",
            code="ROWS_DISAGREE",
        )
    arm = Arm(
        name=name,
        kind=kind,
        ids=tuple(rows.ids.tolist()),
        table_sha256=table_digest(base, rows),
        parameters=rows.ids.size * base.shape[1],
        control=control,
        of=of,
        seed=seed,
        gate=None if gate is None else tuple(gate),
        note=note,
    )
    return Placement(arm, rows=rows)


def weights_placement(
    name: str, kind: ArmKind, folder: Path, *, parameters: int, seed: int | None = None, note: str = ""
) -> Placement:
    """Describe other weights: a checkpoint folder of full tuning, or a PEFT adapter folder (lora, prefix).

    Raises:
        UsageError: files are missing.
        InvalidInputError: the adapter is pickled (``PICKLE_REFUSED``) or of another kind
            (``ADAPTER_UNSUPPORTED``).
    """
    if kind != "full":
        _check_adapter(folder, kind)
    digest = checkpoint_digest(folder) if kind == "full" else adapter_digest(folder)
    arm = Arm(name=name, kind=kind, model_sha256=digest, parameters=parameters, seed=seed, note=note)
    return Placement(arm, folder=folder)


class Placed:
    """A model with an arm in it, for decoding and measuring.

    Attributes:
        prefix_length: number of cached positions before every prompt.
        gated: whether rows act in some segments only.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        gate: Sequence[Segment] | None = None,
        plain: Tensor | None = None,
        prefix: Any = None,
    ) -> None:
        """Wrap a model.

        Args:
            gate: segments in which the rows in the table act; requires ``plain``.
            plain: the table ``[V, d]`` that acts elsewhere.
            prefix: a PEFT model of prefix tuning around ``model``.
        """
        self.model = model
        self.gated = gate is not None
        self.prefix_length = 0 if prefix is None else int(prefix.active_peft_config.num_virtual_tokens)
        self._plain, self._prefix = plain, prefix
        active = [gate is None or segment in gate for segment in SEGMENTS]
        self._active = torch.tensor(active, device=model.device)

    def inputs(self, ids: Tensor, segments: Tensor) -> dict[str, Tensor]:
        """Model inputs for token ids ``[B, T]`` at positions with segment codes ``[B, T]``."""
        if not self.gated:
            return {"input_ids": ids}
        table: Any = self.model.get_input_embeddings()
        with_rows = table(ids)
        without = torch.func.functional_call(table, {"weight": self._plain}, (ids,))
        return {"inputs_embeds": torch.where(self._active[segments][..., None], with_rows, without)}

    def cache(self, batch: int) -> Any:
        """Make a cache with the prefix for ``batch`` sequences; None without a prefix."""
        return None if self._prefix is None else self._prefix.get_prompt(batch_size=batch)


def serve_base(model: PreTrainedModel, base: Table) -> None:
    """Write E⁰ as served into the model, once after loading. Changes nothing unless the dtype differs."""
    _fill(model.get_input_embeddings().weight, base)


@contextmanager
def placed(model: PreTrainedModel, placement: Placement, dtype: Dtype) -> Iterator[Placed]:
    """Put an arm into the model; on leaving, the base is restored bit for bit.

    Args:
        model: the base with its table as served (:func:`serve_base`), in eval mode.

    Raises:
        UsageError: files or packages are missing, or the head is tied under a gate (``GATE_TIED``).
        InvalidInputError: files are malformed.
    """
    kind, folder = placement.arm.kind, placement.folder
    if placement.rows is not None:
        rows = placement.rows
        with _rows_in(
            model, rows.ids.tolist(), to_float32(rows.served, rows.dtype), placement.arm.gate
        ) as ready:
            yield ready
    elif placement.table is not None:
        with _table_in(model, placement.table) as ready:
            yield ready
    elif folder is None:
        yield Placed(model)
    elif kind == "full":
        other = load_backbone(folder, dtype).eval()
        yield Placed(other.to(model.device))
    else:
        with _adapted(model, folder, kind) as adapted:
            inner = adapted.get_base_model()
            yield Placed(inner, prefix=adapted if kind == "prefix" else None)


def values_of(table: Table, device: torch.device) -> Tensor:
    """The whole table in fp32, ``[V, d]``."""
    values = torch.empty(table.shape, device=device)
    _fill(values, table)
    return values


def along_path(ready: Placed, reference: Tensor, strengths: Iterable[Fraction]) -> Iterator[Fraction]:
    """Put ``R + t (E* - R)`` into the model at each strength t in turn, R being the table that it holds.

    On leaving, R is restored bit for bit.

    Args:
        ready: a model with an arm in it, not gated.
        reference: E* as served (:func:`values_of`), on the device of the model.
    """
    weight = ready.model.get_input_embeddings().weight
    with _restored(weight, slice(None)) as released:
        wide = released.float()
        for t in strengths:
            with torch.no_grad():
                weight.copy_(torch.lerp(wide, reference, float(t)))
            yield t


@contextmanager
def _rows_in(
    model: PreTrainedModel, ids: Sequence[int], values: np.ndarray[Any, Any], gate: Sequence[Segment] | None
) -> Iterator[Placed]:
    weight = model.get_input_embeddings().weight
    _check_fit(weight, max(ids), values.shape[1])
    if gate is not None and output_head(model).weight is weight:
        raise UsageError(
            "the output head is tied to the input table: rows cannot be gated by position", code="GATE_TIED"
        )
    index = torch.as_tensor(list(ids), device=weight.device)
    plain = None if gate is None else weight.detach().clone()
    with _restored(weight, index):
        with torch.no_grad():
            weight[index] = torch.from_numpy(np.array(values)).to(weight.device, weight.dtype)
        yield Placed(model, gate=gate, plain=plain)


@contextmanager
def _table_in(model: PreTrainedModel, table: Table) -> Iterator[Placed]:
    weight = model.get_input_embeddings().weight
    _check_fit(weight, table.shape[0] - 1, table.shape[1])
    with _restored(weight, slice(table.shape[0])):
        _fill(weight, table)
        yield Placed(model)


@contextmanager
def _restored(weight: Tensor, index: Tensor | slice) -> Iterator[Tensor]:
    """Rows as they are, a copy; on leaving, they are written back bit for bit."""
    before = weight.detach()[index].clone()
    try:
        yield before
    finally:
        with torch.no_grad():
            weight[index] = before


def _fill(weight: Tensor, table: Table) -> None:
    """Write all rows of a table, block by block: in fp32 a table may be larger than the model around it."""
    with torch.no_grad():
        for start, block in table.blocks():
            values = torch.from_numpy(np.array(to_float32(block, table.dtype)))
            weight[start : start + block.shape[0]] = values.to(weight.device, weight.dtype)


def _check_fit(weight: Tensor, last: int, width: int) -> None:
    if weight.shape[1] != width or last >= weight.shape[0]:
        raise InvalidInputError(
            f"rows up to {last} of width {width} do not fit a model with a table of"
            f" {weight.shape[0]} x {weight.shape[1]}",
            code="SHAPE_MISMATCH",
        )


@contextmanager
def _adapted(model: PreTrainedModel, folder: Path, kind: str) -> Iterator[Any]:
    with needs_extra("an adapter"):
        from peft import PeftModel, get_peft_model_state_dict

    _check_adapter(folder, kind)
    try:
        # Libraries warn here about their own calls of one another, and about weights that are refused below.
        with warnings.catch_warnings(action="ignore"):
            adapted = PeftModel.from_pretrained(model, folder).eval()
            own = get_peft_model_state_dict(adapted, save_embedding_layers=False).keys()
    except (ValueError, RuntimeError, KeyError) as error:
        raise InvalidInputError(
            f"the adapter {folder} does not fit the base: {first_line(error)}", code="ADAPTER_MALFORMED"
        ) from error
    try:
        stored = read_header(folder / "adapter_model.safetensors").keys()
        refuse_other_weights(
            f"the weights of the adapter {folder} are not those of its adapter_config.json",
            {"missing": own - stored, "unexpected": stored - own},
        )
        yield adapted
    finally:
        if kind == "lora":
            adapted.unload()


def _check_adapter(folder: Path, kind: str) -> None:
    config = read_json(folder / "adapter_config.json", what="adapter configuration")
    found = config.get("peft_type") if isinstance(config, dict) else None
    if found != _PEFT_TYPES[kind]:
        raise InvalidInputError(
            f"{folder} is an adapter of type {found!r}, not {_PEFT_TYPES[kind]}", code="ADAPTER_UNSUPPORTED"
        )
    # Without a safetensors file, peft would load a pickle.
    if not (folder / "adapter_model.safetensors").is_file():
        raise InvalidInputError(f"{folder} has no adapter_model.safetensors", code="PICKLE_REFUSED")
