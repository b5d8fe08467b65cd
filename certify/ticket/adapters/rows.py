"""Export tickets as PEFT adapters of type ``TRAINABLE_TOKENS``, without torch and peft.

An adapter folder contains ``adapter_config.json`` (``token_indices``: the rows) and
``adapter_model.safetensors`` with one tensor ``base_model.model.MODULE.trainable_tokens_delta`` ``[k, d]``.
Despite its name the tensor contains *absolute* rows: peft replaces row ``token_indices[j]`` by row j, cast to
the table's dtype. Exported adapters contain the certified rows in the served dtype, so the adapter equals the
merged checkpoint in any dtype that the model is loaded in.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from certify.base.errors import InternalError, InvalidInputError, NothingToDoError, UsageError
from certify.base.jsonio import pretty_json, read_json, write_bytes
from certify.base.staging import staged_folder
from certify.tables.dtypes import DTYPES
from certify.tables.movedrows import BASE_KEY, DTYPE_KEY
from certify.tables.safefile import map_file, quote, read_metadata, write_tensors
from certify.tables.table import DEFAULT_TENSOR, Table
from certify.ticket.released import shown
from certify.ticket.transfer import Parts

CONFIG: Final = "adapter_config.json"
WEIGHTS: Final = "adapter_model.safetensors"
PREFIX: Final = "base_model.model."
SUFFIX: Final = ".trainable_tokens_delta"
PEFT_TYPE: Final = "TRAINABLE_TOKENS"
TICKET_KEY: Final = "certify.ticket_sha256"
PROBE_KEY: Final = "certify.tokenizer_probe_sha256"


def export_peft(parts: Parts, out: Path, *, base_name: str | None = None) -> Path:
    """Write the ticket's rows as an adapter folder that ``PeftModel.from_pretrained(model, out)`` loads.

    Args:
        parts: base and rows of the ticket.
        out: a new or empty folder.
        base_name: hub name or path for ``base_model_name_or_path``; None leaves it open. The metadata of the
            weights always contain the base's tensor digest.

    Returns:
        ``out``.

    Raises:
        UsageError: ``out`` exists or cannot be written, or the base's tensor is not the weight of a module.
    """
    rows = parts.rows
    config = {"init_weights": True, "peft_type": PEFT_TYPE, "token_indices": rows.ids.tolist()}
    tensors = {f"{PREFIX}{adapted_module(parts.base)}{SUFFIX}": (rows.dtype, rows.served)}
    write_adapter(parts, out, config, tensors, base_name=base_name)
    return out


def write_adapter(
    parts: Parts,
    out: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, tuple[str, NDArray[Any]]],
    *,
    base_name: str | None,
) -> None:
    """Write an adapter folder: what its kind needs, and what all adapters of a ticket have.

    Raises:
        UsageError: ``out`` exists or cannot be written, or the base's tensor is not the weight of a module.
        InternalError: what is read back is something else (``WRITE_DAMAGED``).
    """
    common = {
        "auto_mapping": None,
        "base_model_name_or_path": base_name,
        "inference_mode": True,
        "revision": None,
        "target_modules": [adapted_module(parts.base)],
        "task_type": "CAUSAL_LM",
    }
    settings, metadata = dict(sorted({**common, **config}.items())), {"format": "pt", **fingerprint(parts)}
    with staged_folder(out) as staged:
        write_tensors(staged / WEIGHTS, tensors, metadata)
        write_bytes(staged / CONFIG, pretty_json(settings).encode("utf-8"))
        file = map_file(staged / WEIGHTS)
        found = {
            name: (one.dtype, one.shape, file.bytes[one.start : one.stop])
            for name, one in file.header.items()
        }
        check_written(out, tensors, found, (settings, metadata) == (read_config(staged), file.metadata))


def check_written(
    out: Path,
    tensors: Mapping[str, tuple[str, NDArray[Any]]],
    found: Mapping[str, tuple[str, tuple[int, ...], NDArray[np.uint8]]],
    settings: bool,
) -> None:
    """Refuse an adapter that is not, bit for bit, what was to be written.

    Args:
        out: the adapter, for the message.
        tensors: dtype and array of each tensor.
        found: dtype, shape and bytes of each tensor as they were read back.
        settings: whether everything else was read back as it was written.

    Raises:
        InternalError: it is something else (``WRITE_DAMAGED``).
    """
    if (
        not settings
        or tensors.keys() != found.keys()
        or any(
            (dtype, array.shape) != found[name][:2]
            or not np.array_equal(found[name][2].reshape(-1), array.reshape(-1).view(np.uint8))
            for name, (dtype, array) in tensors.items()
        )
    ):
        raise InternalError(f"{out}: what was read back is not what was written", code="WRITE_DAMAGED")


def fingerprint(parts: Parts) -> dict[str, str]:
    """What an adapter says of the ticket that it is made of: base, dtype, ticket, tokenisation, its check."""
    ticket, base = parts.source.ticket, parts.base
    stated = {} if ticket.probe_sha256 is None else {PROBE_KEY: ticket.probe_sha256}
    stated |= {f"certify.{name}": value for name, value in parts.certified.items()}
    return {BASE_KEY: base.digest(), DTYPE_KEY: base.dtype, TICKET_KEY: ticket.digest(), **stated}


def adapted_module(base: Table) -> str:
    """Name of the module whose weight the base's table is.

    Raises:
        UsageError: it is none (``TENSOR_NOT_A_MODULE``).
    """
    name = base.tensor or DEFAULT_TENSOR
    module, dot, leaf = name.rpartition(".")
    if not dot or leaf != "weight":
        raise UsageError(
            f"the table {quote(name)} is not the weight of a module: export needs the base's checkpoint",
            code="TENSOR_NOT_A_MODULE",
        )
    return module


def read_config(folder: Path) -> Mapping[str, Any]:
    """Read the configuration of an adapter folder.

    Raises:
        UsageError: there is none (``FILE_UNREADABLE``).
        InvalidInputError: it is not a JSON object (``ADAPTER_MALFORMED``).
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not an adapter folder", code="FILE_UNREADABLE")
    path = folder / CONFIG
    config = read_json(path, what=f"{path}")
    if not isinstance(config, dict):
        raise InvalidInputError(f"{path} is not a JSON object", code="ADAPTER_MALFORMED")
    return config


def token_ids(listed: object, path: Path, vocabulary: int) -> NDArray[np.int64]:
    """Check the list of rows that the configuration ``path`` of an adapter names, and keep its order.

    Raises:
        InvalidInputError: not integers (``ADAPTER_MALFORMED``), outside ``vocabulary`` or there twice
            (``ADAPTER_INDICES``).
        NothingToDoError: no row is named (``NOTHING_MOVES``).
    """
    # bool is an int in Python, not in JSON.
    if not isinstance(listed, list) or not all(type(item) is int for item in listed):
        raise InvalidInputError(f"{path}: token_indices is not a list of integers", code="ADAPTER_MALFORMED")
    if not listed:
        raise NothingToDoError(f"{path} names no tokens", code="NOTHING_MOVES")
    outside = next((i for i in listed if not 0 <= i < vocabulary), None)
    if outside is not None:
        raise InvalidInputError(
            f"{path}: token_indices contains {quote(str(outside))}, outside the base's 0..{vocabulary - 1}",
            code="ADAPTER_INDICES",
        )
    ids = np.asarray(listed, np.int64)
    values, counts = np.unique(ids, return_counts=True)
    if values.size != ids.size:
        raise InvalidInputError(
            f"{path}: token_indices contains {shown(values[counts > 1].tolist())} more than once",
            code="ADAPTER_INDICES",
        )
    return ids


def check_fingerprint(path: Path, base: Table) -> None:
    """Check the base named in the metadata, if one is, as in adapters written here.

    Raises:
        InvalidInputError: it is another base (``WRONG_BASE``).
    """
    metadata = read_metadata(path)
    named, dtype = metadata.get(BASE_KEY), metadata.get(DTYPE_KEY)
    if named is None:
        return
    known = next((name for name in DTYPES if name == dtype), None)
    if known is None or base.as_dtype(known).digest() != named:
        raise InvalidInputError(
            f"{path} was made for another base: the tensor digests differ", code="WRONG_BASE"
        )
