"""Merge a ticket into a Hugging Face checkpoint: the base with the ticket's rows (``certify apply``).

Serving engines without row adapters load the result like any other checkpoint. Only the shard with the table
is rewritten, and in it only the bytes of the ticket's rows; everything else is copied byte for byte.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Final

from certify.base.errors import InternalError, InvalidInputError, UsageError
from certify.base.files import opened
from certify.base.jsonio import read_json
from certify.base.staging import staged_folder
from certify.models.record import RECORD
from certify.tables.checkpoint import INDEX, SINGLE
from certify.tables.rowfile import Rows
from certify.tables.safefile import TensorInfo, quote, read_header
from certify.tables.table import Table, open_table
from certify.tables.weights import is_weights
from certify.ticket.transfer import Parts, TransferReport, report

_HEADS: Final = frozenset({"lm_head.weight", "embed_out.weight"})
_TEMPLATES: Final = "additional_chat_templates"
_BLOCK_BYTES: Final = 8 << 20


@dataclass(frozen=True, slots=True)
class MergeReport:
    """Result of :func:`apply`.

    Attributes:
        transfer: report on the table; its ``file_sha256`` is that of the rewritten shard.
        certified: the check that the ticket passed before; see :class:`certify.ticket.transfer.Parts`.
        rewritten: name of the shard with the table.
        copied: names of the files copied byte for byte.
        linked: names of the shards that are hard links to the base's.
        left_out: names in the base folder that a merged checkpoint must not have: folders, weights in other
            formats, which have the base's rows, and the record of where the base came from.
    """

    transfer: TransferReport
    certified: Mapping[str, str]
    rewritten: str
    copied: tuple[str, ...]
    linked: tuple[str, ...]
    left_out: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Convert the report to plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Plan:
    shard: str
    shards: tuple[str, ...]
    others: tuple[str, ...]
    left_out: tuple[str, ...]


def apply(parts: Parts, out: Path, *, link: bool = False) -> MergeReport:
    """Write the checkpoint folder ``out``, the base with the ticket's rows, completely or not at all.

    Args:
        parts: base and rows; the base must be a safetensors checkpoint folder that stores the served dtype.
        out: a new or empty folder, neither inside the base folder nor around it.
        link: hard-link the untouched shards instead of copying them. This saves space, but writing into a
            shard in place then changes both checkpoints.

    Raises:
        UsageError: the base is not a checkpoint folder, ``out`` exists or cannot be written, or the disk is
            full.
        InvalidInputError: the checkpoint stores a dtype other than the served one (``DTYPE_MISMATCH``), has
            an adapter in its folder (``ADAPTER_IN_FOLDER``) or a separate tensor for a tied head
            (``TIED_HEAD``), or its index or a shard is malformed.
        InternalError: the file read back differs from what should have been written (``WRITE_DAMAGED``).
    """
    base = parts.base
    folder = base.path
    _check_base(base, parts)
    _check_apart(folder, out)
    plan = _plan(folder, base)
    info = read_header(folder / plan.shard)[base.tensor]
    with staged_folder(out) as staged:
        shutil.copyfile(folder / plan.shard, staged / plan.shard)
        _patch(staged / plan.shard, info, parts.rows)
        linked = []
        for name in plan.shards:
            if name == plan.shard:
                continue
            if link:
                linked.append(name)
                os.link((folder / name).resolve(), staged / name)
            else:
                shutil.copyfile(folder / name, staged / name)
        for name in plan.others:
            (staged / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(folder / name, staged / name)
        _check_shard(folder / plan.shard, staged / plan.shard, info, parts.rows)
        written = open_table(staged, tensor=base.tensor, allow_tied=True)
        proof = report(parts, written, out, staged / plan.shard)
    copied = (*(name for name in plan.shards if name not in {plan.shard, *linked}), *plan.others)
    return MergeReport(
        proof, parts.certified, plan.shard, tuple(sorted(copied)), tuple(linked), plan.left_out
    )


def _check_base(base: Table, parts: Parts) -> None:
    folder = base.path
    if not folder.is_dir():
        raise UsageError(
            f"{folder} is a file; apply needs the base's checkpoint folder (certify transfer takes a table)",
            code="NOT_A_CHECKPOINT",
        )
    if base.stored_dtype != base.dtype:
        named = {"F32": "fp32", "F16": "fp16", "BF16": "bf16"}[base.dtype]
        raise InvalidInputError(
            f"{folder} stores {base.stored_dtype}, but the ticket's rows are served in {base.dtype}: convert"
            f" the checkpoint (certify model import {folder} --out DIR --dtype {named}), or make the ticket"
            f" in {base.stored_dtype} (certify find --served-dtype {base.stored_dtype})",
            code="DTYPE_MISMATCH",
        )
    if (folder / "adapter_config.json").exists():
        raise InvalidInputError(
            f"{folder} has an adapter_config.json, which loaders apply on top of the rows: move it away",
            code="ADAPTER_IN_FOLDER",
        )
    if parts.source.ticket.base.tied and _HEADS & set(_weight_map(folder, base)):
        raise InvalidInputError(
            f"{folder} has a tied head but a separate tensor for it: rewriting the table would untie them",
            code="TIED_HEAD",
        )


def _check_apart(folder: Path, out: Path) -> None:
    inner, outer = out.resolve(), folder.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise UsageError(
            f"{out} and the base {folder} overlap: the base is never written to", code="OUT_IS_BASE"
        )


def _weight_map(folder: Path, base: Table) -> dict[str, str]:
    """Map tensors to shards. Opening the table verified the index; here the shards must exist."""
    index = folder / INDEX
    if index not in base.files:
        return dict.fromkeys(read_header(folder / SINGLE), SINGLE)
    entries: dict[str, str] = read_json(index, what="the checkpoint index")["weight_map"]
    for shard in sorted(set(entries.values())):
        if not (folder / shard).is_file():
            raise InvalidInputError(f"{index} names {quote(shard)}, which is missing", code="SHARD_MISSING")
    return entries


def _plan(folder: Path, base: Table) -> _Plan:
    entries = _weight_map(folder, base)
    shards = tuple(sorted(set(entries.values())))
    others: list[str] = []
    left_out: list[str] = []
    for path in sorted(folder.iterdir()):
        if path.name in shards:
            continue
        if path.is_file() and not is_weights(path.name) and path.name != RECORD:
            others.append(path.name)
        elif path.is_dir() and path.name == _TEMPLATES:
            others += [
                f"{_TEMPLATES}/{inner.name}" for inner in sorted(path.glob("*.jinja")) if inner.is_file()
            ]
        elif folder / INDEX in base.files and path.name == INDEX:
            others.append(path.name)
        else:
            left_out.append(path.name)
    return _Plan(entries[base.tensor], shards, tuple(others), tuple(left_out))


def _patch(path: Path, info: TensorInfo, rows: Rows) -> None:
    """Overwrite the ticket's rows in a copy of the shard, in place."""
    width = rows.served.shape[1] * rows.served.dtype.itemsize
    with path.open("r+b") as stream:
        for position, row in zip(rows.ids.tolist(), rows.served, strict=True):
            stream.seek(info.start + position * width)
            stream.write(row.tobytes())


def _check_shard(original: Path, written: Path, info: TensorInfo, rows: Rows) -> None:
    """Read both shards back: only the ticket's rows may differ, and they must have the certified bytes."""
    width = rows.served.shape[1] * rows.served.dtype.itemsize
    if original.stat().st_size != written.stat().st_size:
        raise _damaged(written)
    with opened(original) as before, opened(written) as after:
        position = 0
        for row_id, row in zip(rows.ids.tolist(), rows.served, strict=True):
            start = info.start + row_id * width
            if not _equal(before, after, position, start):
                raise _damaged(written)
            after.seek(start)
            if after.read(width) != row.tobytes():
                raise _damaged(written)
            position = start + width
        if not _equal(before, after, position, original.stat().st_size):
            raise _damaged(written)


def _equal(before: IO[bytes], after: IO[bytes], start: int, stop: int) -> bool:
    before.seek(start)
    after.seek(start)
    while start < stop:
        size = min(_BLOCK_BYTES, stop - start)
        block = before.read(size)
        if len(block) != size or after.read(size) != block:
            return False
        start += size
    return True


def _damaged(path: Path) -> InternalError:
    return InternalError(
        f"{path.name}: the written shard is not the base's with the ticket's rows; did the base change?",
        code="WRITE_DAMAGED",
    )
