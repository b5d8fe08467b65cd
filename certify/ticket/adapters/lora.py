"""Export a ticket as a LoRA of rank k on the embedding, for engines that know no rows: PEFT, llama.cpp.

A ``[k, V]`` is one-hot, and B ``[d, k]`` holds what the certified rows differ from the base's by, in fp32;
with alpha = r = k the scale is 1. An engine then serves the base's row plus the difference. Rounded to the
served dtype this is the certified row wherever fp32 has room for both; each export says how far it is off.
"""

from __future__ import annotations

import math
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from certify.base.errors import InvalidInputError, UsageError
from certify.base.records import Dtype
from certify.base.staging import staged_file
from certify.base.text import counted
from certify.models.gguf import PLAIN, Blocks, open_gguf
from certify.tables.dtypes import cast, to_float32
from certify.ticket.adapters.rows import PREFIX, adapted_module, check_written, fingerprint, write_adapter
from certify.ticket.transfer import Parts, check_out

PEFT_TYPE: Final = "LORA"
LORA_A: Final = ".lora_embedding_A"
LORA_B: Final = ".lora_embedding_B"
MOST_BYTES: Final = 256 << 20
"""Largest one-hot matrix that is written: 2 bytes for each row of the ticket and row of the table."""

MOST_OFF: Final = 2.0**-20
"""Largest error of an entry that is served, as a part of the largest entry of these rows, before or after."""

_GGUF_TABLE: Final = "token_embd.weight"

Matrix = NDArray[np.float32]


def export_lora(parts: Parts, out: Path, *, base_name: str | None = None) -> float:
    """Write the adapter folder ``out`` for PEFT, with the names that llama.cpp's converter takes.

    Args:
        parts: base and rows of the ticket.
        out: a new or empty folder.
        base_name: see :func:`certify.ticket.adapters.rows.export_peft`.

    Returns:
        The largest error of an entry that is served: 0 if the rows are the certified ones bit for bit.

    Raises:
        UsageError: ``out`` exists or cannot be written, the base's tensor is not the weight of a module, or
            the ticket has too many rows (``ADAPTER_TOO_LARGE``).
        InvalidInputError: fp32 has no room for a difference (``NON_FINITE``).
    """
    base, rank = parts.base, parts.rows.ids.size
    difference, off = _differences(_base_rows(parts), parts, base.path, base.dtype)
    module, one_hot = adapted_module(base), _one_hot(parts)
    config = {
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": PEFT_TYPE,
        "r": rank,
    }
    tensors: dict[str, tuple[str, NDArray[Any]]] = {
        f"{PREFIX}{module}{LORA_A}": ("F16", one_hot),
        f"{PREFIX}{module}{LORA_B}": ("F32", np.ascontiguousarray(difference.T)),
    }
    write_adapter(parts, out, config, tensors, base_name=base_name)
    return off


def export_gguf(parts: Parts, out: Path, onto: Path) -> float:
    """Write the adapter file ``out`` that llama.cpp puts on top of the model ``onto``.

    The differences are those from the rows of ``onto`` as the engine dequantises them, so that its
    quantisation does not touch the ticket's rows. The engine adds in fp32.

    Args:
        parts: base and rows of the ticket.
        out: the ``.gguf`` file to write.
        onto: GGUF file of the base, quantised or not.

    Returns:
        The largest error of an entry that is served.

    Raises:
        UsageError: ``onto`` cannot be read, ``out`` cannot be written, or the ticket has too many rows
            (``ADAPTER_TOO_LARGE``).
        InternalError: what is read back is something else than was written (``WRITE_DAMAGED``).
        InvalidInputError: ``onto`` is malformed (``GGUF_MALFORMED``, ``GGUF_QUANTISATION``), has a table of
            another shape (``SHAPE_MISMATCH``), NaN or infinity (``NON_FINITE``) or rows that no quantisation
            makes of the base's (``WRONG_BASE``), or ties its head to the table (``TIED_HEAD``), where
            llama.cpp aborts on an adapter of the table.
    """
    from gguf import GGUFWriter

    model = open_gguf(onto)
    table, arch = model.tensors.get(_GGUF_TABLE), model.settings.get("general.architecture")
    if table is None or not isinstance(arch, str):
        raise InvalidInputError(
            f"{onto} has no {_GGUF_TABLE} or names no architecture", code="GGUF_MALFORMED"
        )
    if table.shape != parts.base.shape:
        raise InvalidInputError(
            f"{onto} has a table {' x '.join(map(str, table.shape))}, the ticket's base"
            f" {parts.base.shape[0]} x {parts.base.shape[1]}",
            code="SHAPE_MISMATCH",
        )
    if "output.weight" not in model.tensors:
        raise InvalidInputError(
            f"{onto} ties the output head to the table, where llama.cpp takes no adapter of the table:"
            " convert an untied checkpoint (certify model untie), or what certify apply writes",
            code="TIED_HEAD",
        )
    check_out(out, parts.base, ".gguf")
    ids, rank = parts.rows.ids, parts.rows.ids.size
    one_hot = np.ascontiguousarray(_one_hot(parts).T)  # transposed: the engine looks its rows up
    _check_onto(onto, table, parts)
    difference, off = _differences(table.values(ids), parts, onto, "F32")
    tensors: dict[str, tuple[str, NDArray[Any]]] = {
        f"{_GGUF_TABLE}.lora_a": ("F16", one_hot),
        f"{_GGUF_TABLE}.lora_b": ("F32", np.ascontiguousarray(difference.T)),
    }
    texts = {"adapter.type": "lora", **fingerprint(parts)}
    with staged_file(out) as file:
        with closing(GGUFWriter(file, arch)) as writer:
            writer.add_type("adapter")
            writer.add_float32("adapter.lora.alpha", float(rank))
            for key, value in texts.items():
                writer.add_string(key, value)
            for name, (_, array) in tensors.items():
                writer.add_tensor(name, array)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        written = open_gguf(file)
        found = {name: (one.kind, one.shape, one.raw) for name, one in written.tensors.items()}
        check_written(out, tensors, found, texts.items() <= written.settings.items())
    return off


def _one_hot(parts: Parts) -> NDArray[np.float16]:
    """A ``[k, V]``, which picks the rows of the ticket.

    Raises:
        UsageError: it takes more than :data:`MOST_BYTES` (``ADAPTER_TOO_LARGE``).
    """
    rank, vocabulary = parts.rows.ids.size, parts.base.shape[0]
    size = 2 * rank * vocabulary
    if size > MOST_BYTES:
        raise UsageError(
            f"as a LoRA, {counted(rank, 'row')} of {vocabulary} are {size:,} bytes of zeros and ones, above"
            f" the {MOST_BYTES:,} that are written: --format peft and certify apply take any number",
            code="ADAPTER_TOO_LARGE",
        )
    one_hot = np.zeros((rank, vocabulary), np.float16)
    one_hot[np.arange(rank), parts.rows.ids] = 1
    return one_hot


def _base_rows(parts: Parts) -> Matrix:
    return to_float32(parts.base.take(parts.rows.ids.tolist()), parts.base.dtype)


def _differences(before: Matrix, parts: Parts, path: Path, served: Dtype) -> tuple[Matrix, float]:
    """What the ticket's rows have more than ``before``, the rows of ``path``: ``[k, d]``, rounded once.

    Returns:
        The differences, and the largest error of an entry of their sum, rounded to ``served``.

    Raises:
        InvalidInputError: the sum is not finite (``NON_FINITE``), or is off by more than :data:`MOST_OFF`
            (``WRONG_BASE``).
    """
    after = to_float32(parts.rows.served, parts.rows.dtype).astype(np.float64)
    with np.errstate(all="ignore"):  # differences of floats fit into float64
        difference = (after - before).astype(np.float32)
        found = to_float32(cast(before + difference, "F32", served), served)
        off = float(np.abs(found - after).max())
    if not off <= MOST_OFF * max(np.abs(after).max(), np.abs(_base_rows(parts)).max()):
        raise InvalidInputError(
            f"{path}: with a difference in fp32 added, its rows are off from the ticket's by {off:.1e}",
            code="WRONG_BASE" if math.isfinite(off) else "NON_FINITE",
        )
    return difference, off


def _check_onto(onto: Path, table: Blocks, parts: Parts) -> None:
    """Refuse a table whose rows outside the ticket no quantisation of its type makes of the base's.

    They may be off by ``8 / 2**bits`` of how far the base's rows lie from their mean (roots of sums of
    squares): half of it for four bits. Rounding normal entries takes a fifth of that. Rows of another model
    are off by all of it or more, the base's own in another order by its root of two. Plain types count as
    eight bits: both files may come from bf16, or one of them.

    Raises:
        InvalidInputError: see above (``WRONG_BASE``); NaN or infinity in any row (``NON_FINITE``).
    """
    base, ids, apart, square = parts.base, parts.rows.ids, 0.0, 0.0
    total = np.zeros(base.shape[1])
    for start, block in base.blocks():
        stop = start + len(block)
        rows, found = to_float32(block, base.dtype).astype(np.float64), table.values(slice(start, stop))
        if not np.isfinite(found).all():
            raise InvalidInputError(f"{onto}: {_GGUF_TABLE} has NaN or infinity", code="NON_FINITE")
        error = found - rows
        error[ids[(start <= ids) & (ids < stop)] - start] = 0
        apart += float(np.square(error).sum())
        square += float(np.square(rows).sum())
        total += rows.sum(axis=0)
    bits = 8 if table.kind in PLAIN else int(table.kind[1])
    spread = max(0.0, square - float(np.square(total).sum()) / base.shape[0])
    off, most = math.sqrt(apart), 8 / 2**bits * math.sqrt(spread)
    if off > most:
        raise InvalidInputError(
            f"{onto} is no {table.kind} of the ticket's base: the rows outside the ticket are off by"
            f" {off:.1e} in all, where rounding is by less than {most:.1e}",
            code="WRONG_BASE",
        )
