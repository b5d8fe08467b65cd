"""Checkpoints, tickets and an oracle for transfers, all independent of the readers and writers under test.

Files are made from the definition of the format and tables are kept as raw bit patterns. Not a test file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from certify.tables.dtypes import parse_dtype
from certify.ticket.make import find

VOCABULARY, WIDTH = 40, 16
EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
IDS = (0, 3, 17, 39)
"""Rows of a ticket."""
PATTERNS = {"F32": np.dtype("<u4"), "F16": np.dtype("<u2"), "BF16": np.dtype("<u2")}

Bits = NDArray[np.unsignedinteger]


def random_bits(dtype: str, seed: int, rows: int = VOCABULARY, width: int = WIDTH) -> Bits:
    """Bit patterns of finite numbers between about 1/8 and 2 in absolute value, of either sign."""
    values = np.random.default_rng(seed).uniform(0.125, 2, (rows, width)).astype("<f4")
    signs = np.random.default_rng(seed + 1).integers(0, 2, (rows, width))
    if dtype == "F32":
        return values.view("<u4") | (signs.astype("<u4") << 31)
    if dtype == "F16":
        return values.astype("<f2").view("<u2") | (signs.astype("<u2") << 15)
    return (values.view("<u4") >> 16).astype("<u2") | (signs.astype("<u2") << 15)


def tuned_bits(base: Bits, dtype: str, moved: Sequence[int], seed: int) -> Bits:
    """The table after a tuning that moved exactly the rows ``moved``."""
    tuned = base.copy()
    tuned[list(moved)] = random_bits(dtype, seed, *base.shape)[list(moved)]
    return tuned


def expected_transfer(base: Bits, reference: Bits, ids: Sequence[int]) -> Bits:
    """Eᵀ by its definition, one row at a time."""
    return np.stack([reference[i] if i in set(ids) else base[i] for i in range(len(base))])


def write_file(path: Path, tensors: dict[str, tuple[str, Bits]]) -> Path:
    """A safetensors file by the format's definition, without padding: tables may lie unaligned in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, (dtype, array) in tensors.items():
        content = array.tobytes()
        header[name] = {
            "dtype": dtype,
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + len(content)],
        }
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def write_checkpoint(
    folder: Path, table: Bits, dtype: str, *, sharded: bool = True, tied: bool = False, head: bool = True
) -> Path:
    """A LLaMA-like folder; ``sharded``: three shards, the table in the second, between other tensors."""
    folder.mkdir(parents=True)
    rows, width = table.shape
    config = {"model_type": "llama", "vocab_size": rows, "hidden_size": width, "tie_word_embeddings": tied}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 8}')
    tensors = {
        "model.a.weight": (dtype, random_bits(dtype, 90, 8, width)),
        EMBED: (dtype, table),
        "model.b.weight": (dtype, random_bits(dtype, 91, 8, width)),
        "model.norm.weight": (dtype, random_bits(dtype, 92, 1, width)),
    }
    if head:
        tensors[HEAD] = (dtype, random_bits(dtype, 93, rows, width))
    if not sharded:
        write_file(folder / "model.safetensors", tensors)
        return folder
    shards = [["model.norm.weight"], ["model.a.weight", EMBED, "model.b.weight"], [HEAD] if head else []]
    weight_map = {}
    for number, names in enumerate(shards, 1):
        if names:
            file = f"model-{number:05}-of-{len(shards):05}.safetensors"
            write_file(folder / file, {name: tensors[name] for name in names})
            weight_map |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def read_bits(path: Path, name: str = EMBED) -> Bits:
    """The tensor's bits, found through nothing but the format's eight bytes and JSON."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    entry = json.loads(data[8 : 8 + length])[name]
    begin, end = entry["data_offsets"]
    pattern = PATTERNS[entry["dtype"]]
    return np.frombuffer(data[8 + length + begin : 8 + length + end], pattern).reshape(entry["shape"])


def make_ticket(
    out: Path,
    base: Path,
    tuned: Path,
    ids: Sequence[int],
    *,
    name: str = "t",
    dtype: str | None = None,
    **options: bool,
) -> str:
    """A ticket for ``ids`` made by the real `find`; returns ``FILE#ID``."""
    rule = "ids:" + ",".join(map(str, ids))
    served = None if dtype is None else parse_dtype(dtype)
    find(base, tuned, out=out, ticket_id=name, rule=rule, dtype=served, **options)
    return f"{out}#{name}"


def digests(folder: Path) -> dict[str, str]:
    """Name -> SHA-256 of every file below ``folder``."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


class Release:
    """A base checkpoint, the reference's table, a ticket between them, and the table that transfer must give.

    Args:
        folder: an empty one; everything lies in it.
        dtype: of both tables.
        moved: rows that the reference changes; those of the ticket are :data:`IDS`.
        ticket: options of the ticket.
        base: options of the checkpoint.
    """

    def __init__(
        self,
        folder: Path,
        dtype: str = "F16",
        *,
        moved: Sequence[int] = IDS,
        ticket: Mapping[str, bool] | None = None,
        **base: bool,
    ) -> None:
        self.folder, self.dtype = folder, dtype
        self.base_bits = random_bits(dtype, 1)
        self.tuned_bits = tuned_bits(self.base_bits, dtype, moved, 2)
        self.base = write_checkpoint(folder / "base", self.base_bits, dtype, **base)
        self.tuned = write_file(folder / "tuned.safetensors", {EMBED: (dtype, self.tuned_bits)})
        self.tickets = folder / "release" / "tickets.json"
        self.spec = make_ticket(self.tickets, self.base, self.tuned, IDS, **(ticket or {}))
        self.expected = expected_transfer(self.base_bits, self.tuned_bits, IDS)
