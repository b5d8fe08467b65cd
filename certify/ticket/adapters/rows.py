"""Export and import tickets as PEFT adapters of type ``TRAINABLE_TOKENS``, without torch and peft.

An adapter folder contains ``adapter_config.json`` (``token_indices``: the rows) and
``adapter_model.safetensors`` with one tensor ``base_model.model.MODULE.trainable_tokens_delta`` ``[k, d]``.
Despite its name the tensor contains *absolute* rows: peft replaces row ``token_indices[j]`` by row j, cast to
the table's dtype. Exported adapters contain the certified rows in the served dtype, so the adapter equals the
merged checkpoint in any dtype that the model is loaded in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from certify.base.errors import InvalidInputError, NothingToDoError, UsageError
from certify.base.jsonio import pretty_json, read_json, write_bytes
from certify.base.records import Dtype
from certify.base.staging import staged_folder
from certify.tables.dtypes import DTYPES, storage_bits, to_float32
from certify.tables.movedrows import BASE_KEY, DTYPE_KEY
from certify.tables.rowfile import Rows, make_rows, write_rows
from certify.tables.safefile import open_tensor, quote, read_header, read_metadata, write_tensors
from certify.tables.table import DEFAULT_TENSOR, Table, open_table
from certify.tables.tokenisation import Probe, Tokenisation, compare_tokenizer
from certify.ticket.released import shown
from certify.ticket.transfer import Parts, write_transferred

CONFIG: Final = "adapter_config.json"
WEIGHTS: Final = "adapter_model.safetensors"
PREFIX: Final = "base_model.model."
SUFFIX: Final = ".trainable_tokens_delta"
PEFT_TYPE: Final = "TRAINABLE_TOKENS"
TICKET_KEY: Final = "certify.ticket_sha256"
PROBE_KEY: Final = "certify.tokenizer_probe_sha256"


@dataclass(frozen=True, slots=True)
class ImportedAdapter:
    """Rows of an adapter, read for a base.

    Attributes:
        rows: absolute rows; fp32 from the adapter, served in the base's dtype.
        stored_dtype: dtype of the adapter's tensor.
        inert: ids whose rows in the served dtype equal the base's, whether trained or not.
        fingerprint: whether the adapter names its base by tensor digest, and it is this base.
        tokenisation: how the base's tokenizer compares with the one that the adapter states.
    """

    rows: Rows
    stored_dtype: Dtype
    inert: tuple[int, ...]
    fingerprint: bool
    tokenisation: Tokenisation


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
    """
    common = {
        "auto_mapping": None,
        "base_model_name_or_path": base_name,
        "inference_mode": True,
        "revision": None,
        "target_modules": [adapted_module(parts.base)],
        "task_type": "CAUSAL_LM",
    }
    text = pretty_json(dict(sorted({**common, **config}.items())))
    with staged_folder(out) as staged:
        write_tensors(staged / WEIGHTS, tensors, {"format": "pt", **fingerprint(parts)})
        write_bytes(staged / CONFIG, text.encode("utf-8"))


def fingerprint(parts: Parts) -> dict[str, str]:
    """What an adapter says of the ticket that it is made of: base, dtype, ticket, tokenisation, its check."""
    ticket, base = parts.source.ticket, parts.base
    stated = {} if ticket.probe_sha256 is None else {PROBE_KEY: ticket.probe_sha256}
    stated |= {f"certify.{name}": value for name, value in parts.certified.items()}
    return {BASE_KEY: base.digest(), DTYPE_KEY: base.dtype, TICKET_KEY: ticket.digest(), **stated}


def import_peft(folder: Path, base: Table, probe: Probe | None = None) -> ImportedAdapter:
    """Read the rows of an adapter folder from an untrusted source, for ``base``.

    Args:
        folder: adapter folder with ``adapter_config.json`` and ``adapter_model.safetensors``.
        base: the table that the adapter was trained on, in the dtype to serve it in.
        probe: what compares the tokenizer in the base's folder with the adapter's; None compares none.

    Returns:
        The rows, sorted by id.

    Raises:
        UsageError: a file is missing or cannot be read.
        InvalidInputError: the weights are only pickled (``PICKLE_REFUSED``); the adapter is of another kind
            (``ADAPTER_UNSUPPORTED``); config or tensors are malformed (``ADAPTER_MALFORMED``); indices are
            duplicate, negative or too large (``ADAPTER_INDICES``); the width differs from the base's
            (``ADAPTER_WIDTH``); values are not finite (``NON_FINITE``); the adapter was made for another base
            (``WRONG_BASE``) or another tokenisation (``TOKENISATION_DIFFERS``).
        NothingToDoError: no row differs from the base's (``NOTHING_MOVES``).
    """
    config = read_config(folder)
    if config.get("peft_type") != PEFT_TYPE:
        raise InvalidInputError(
            f"{folder / CONFIG}: peft_type is {quote(str(config.get('peft_type')))}; only {PEFT_TYPE}"
            " adapters are rows of the input table",
            code="ADAPTER_UNSUPPORTED",
        )
    ids = token_ids(config.get("token_indices"), folder / CONFIG, base.shape[0])
    stored, dtype = _weights(folder, base, len(ids))
    fingerprint = check_fingerprint(folder / WEIGHTS, base)
    tokenisation = compare_tokenizer(read_metadata(folder / WEIGHTS).get(PROBE_KEY), base.path, probe)
    order = np.argsort(ids)
    rows = make_rows(ids[order], to_float32(stored, dtype)[order], base.dtype)
    original = base.take(rows.ids.tolist())
    inert = rows.ids[(storage_bits(original) == storage_bits(rows.served)).all(axis=1)]
    if inert.size == rows.ids.size:
        raise NothingToDoError(
            f"every row of the adapter {folder} equals the base's row, so it has no effect",
            code="NOTHING_MOVES",
        )
    return ImportedAdapter(rows, dtype, tuple(inert.tolist()), fingerprint, tokenisation)


def import_folder(
    adapter: Path,
    base: Path,
    out: Path,
    *,
    ticket_id: str | None = None,
    dtype: Dtype | None = None,
    tensor: str | None = None,
    allow_tied: bool = False,
    probe: Probe | None = None,
) -> ImportedAdapter:
    """Read an adapter and write the folder ``out`` from it, completely or not at all.

    ``out/rows.safetensors`` contains the rows (:mod:`certify.tables.rowfile`). With a ``ticket_id``, ``out``
    also contains ``tickets.json`` with a ticket of rule ``ids:…``, and ``reference/`` with its reference: the
    base with the adapter's rows. Such a reference was not embed-tuned as a whole, so the ticket can show what
    moved, but not agreement with embed tuning.

    Args:
        adapter: the adapter folder.
        base: E⁰, file or checkpoint folder.
        out: a new or empty folder.
        ticket_id: name of the ticket to make; None makes none.
        dtype: served dtype; None means the base's.
        tensor: name of the table's tensor in ``base``, if the architecture does not imply it.
        allow_tied: accept a base whose head is tied to the table.
        probe: see :func:`import_peft`; the ticket states the same.

    Raises:
        UsageError, InvalidInputError, NothingToDoError: see :func:`import_peft`, and
            :func:`certify.ticket.make.find` with a ``ticket_id``.
    """
    table = open_table(base, tensor=tensor, allow_tied=allow_tied)
    table = table.as_dtype(dtype or table.dtype)
    imported = import_peft(adapter, table, probe)
    with staged_folder(out) as staged:
        write_rows(staged / "rows.safetensors", imported.rows)
        if ticket_id is not None:
            from certify.ticket.make import find  # only a ticket needs the scan

            reference = staged / "reference" / "embed_tokens.safetensors"
            write_transferred(reference, table, imported.rows)
            find(
                base,
                reference,
                out=staged / "tickets.json",
                ticket_id=ticket_id,
                rule="ids:" + ",".join(str(i) for i in imported.rows.ids.tolist()),
                dtype=table.dtype,
                tensor=tensor,
                allow_tied=allow_tied,
                probe=probe,
            )
    return imported


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


def _weights(folder: Path, base: Table, count: int) -> tuple[NDArray[Any], Dtype]:
    path = folder / WEIGHTS
    if not path.exists() and (folder / "adapter_model.bin").exists():
        raise InvalidInputError(
            f"{folder} has only pickled weights (adapter_model.bin), which are never opened: save the"
            " adapter with safetensors",
            code="PICKLE_REFUSED",
        )
    header = read_header(path)
    expected = f"{PREFIX}{adapted_module(base)}{SUFFIX}"
    if set(header) != {expected}:
        held = ", ".join(quote(name) for name in sorted(header)[:3]) or "nothing"
        raise InvalidInputError(
            f"{path}: expected only {expected}, the rows of the base's input table; found {held}",
            code="ADAPTER_UNSUPPORTED",
        )
    info = header[expected]
    dtype = next((name for name in DTYPES if name == info.dtype), None)
    if dtype is None or len(info.shape) != 2 or info.shape[0] != count:
        raise InvalidInputError(
            f"{path}: the rows are {info.dtype} {list(info.shape)}, but the config names {count} tokens",
            code="ADAPTER_MALFORMED",
        )
    if info.shape[1] != base.shape[1]:
        raise InvalidInputError(
            f"{path}: the rows have width {info.shape[1]}, the base's {base.shape[1]}", code="ADAPTER_WIDTH"
        )
    return np.array(open_tensor(path, expected)), dtype


def check_fingerprint(path: Path, base: Table) -> bool:
    """Check the base named in the metadata; False if none is named, as in adapters not written here.

    Raises:
        InvalidInputError: it is another base (``WRONG_BASE``).
    """
    metadata = read_metadata(path)
    named, dtype = metadata.get(BASE_KEY), metadata.get(DTYPE_KEY)
    if named is None:
        return False
    known = next((name for name in DTYPES if name == dtype), None)
    if known is None or base.as_dtype(known).digest() != named:
        raise InvalidInputError(
            f"{path} was made for another base: the tensor digests differ", code="WRONG_BASE"
        )
    return True
