"""Export a ticket as a LoRA of rank k on the embedding, for engines that know no rows: PEFT, llama.cpp.

A ``[k, V]`` is one-hot, and B ``[d, k]`` holds what the certified rows differ from the base's by, in fp32;
with alpha = r = k the scale is 1. An engine then serves the base's row plus the difference. Rounded to the
served dtype this is the certified row wherever fp32 has room for both; each export says how far it is off.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from certify.base.errors import InvalidInputError
from certify.base.locks import temporary_neighbour
from certify.models.gguf import open_gguf
from certify.tables.dtypes import cast, to_float32
from certify.ticket.adapters.rows import PREFIX, adapted_module, fingerprint, write_adapter
from certify.ticket.transfer import Parts, check_out

PEFT_TYPE: Final = "LORA"
LORA_A: Final = ".lora_embedding_A"
LORA_B: Final = ".lora_embedding_B"
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
        UsageError: ``out`` exists or cannot be written, or the base's tensor is not the weight of a module.
    """
    base, rank = parts.base, parts.rows.ids.size
    before = to_float32(base.take(parts.rows.ids.tolist()), base.dtype)
    difference = _difference(parts, before)
    module = adapted_module(base)
    one_hot = np.zeros((rank, base.shape[0]), np.float16)
    one_hot[np.arange(rank), parts.rows.ids] = 1
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
    served = to_float32(cast(before + difference, "F32", base.dtype), base.dtype)
    return _largest(served, parts)


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
        UsageError: ``onto`` cannot be read, or ``out`` cannot be written.
        InvalidInputError: ``onto`` is malformed (``GGUF_MALFORMED``, ``GGUF_QUANTISATION``), has a table of
            another shape (``SHAPE_MISMATCH``), or ties its head to the table (``TIED_HEAD``), where
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
    before = table.values(ids)
    difference = _difference(parts, before)
    one_hot = np.zeros((table.shape[0], rank), np.float16)  # transposed: the engine looks its rows up
    one_hot[ids, np.arange(rank)] = 1
    with temporary_neighbour(out, folder=True) as (folder, _):
        writer = GGUFWriter(folder / out.name, arch)
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", float(rank))
        for key, value in fingerprint(parts).items():
            writer.add_string(key, value)
        writer.add_tensor(f"{_GGUF_TABLE}.lora_a", one_hot)
        writer.add_tensor(f"{_GGUF_TABLE}.lora_b", np.ascontiguousarray(difference.T))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        (folder / out.name).replace(out)
    return _largest(before + difference, parts)


def _difference(parts: Parts, before: Matrix) -> Matrix:
    """``[k, d]``, rounded once: differences of floats fit into float64."""
    after = to_float32(parts.rows.served, parts.rows.dtype).astype(np.float64)
    return (after - before).astype(np.float32)


def _largest(served: Matrix, parts: Parts) -> float:
    wanted = to_float32(parts.rows.served, parts.rows.dtype)
    return float(np.abs(served.astype(np.float64) - wanted).max())
