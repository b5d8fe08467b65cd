"""Small tables, tokenizers and ticket folders, and an adversary's tools for changing them.

Files are written with the ``safetensors`` library and digests are made with ``hashlib`` alone, so that a
fault of the package cannot hide itself. Only :func:`make_ticket` calls the package, because an honest ticket
is what the package makes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

import lottery

ROWS, WIDTH, PIECES = 64, 32, 60
SPECIAL = (0, 1, 2)
MOVED = (5, 9, 17, 33, 40)
NUDGED = (50, 51, 52)
TENSOR = "model.embed_tokens.weight"

Half = NDArray[np.float16]


def base_table() -> Half:
    """fp16 ``[64, 32]``, every entry of the scale of a small model's table."""
    return np.random.default_rng(20240205).normal(0.0, 0.02, (ROWS, WIDTH)).astype(np.float16)


def tuned_table() -> Half:
    """The base with the rows ``MOVED`` shifted far, ``NUDGED`` a little, all others equal bit for bit."""
    table = base_table()
    for i in MOVED:
        table[i] += np.float16(0.06)
    for i in NUDGED:
        table[i] += np.float16(0.001)
    return table


def pieces() -> dict[str, int]:
    """Piece -> id for ``PIECES`` ids, three of them special, one per kind of ordinary piece that occurs."""
    names = ["<unk>", "<s>", "</s>", "<0x0A>", "▁the", "▁of", "."]
    return {name: i for i, name in enumerate(names + [f"▁w{i}" for i in range(len(names), PIECES)])}


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return path


def write_tokenizer(folder: Path, vocab: dict[str, int]) -> None:
    """A tokenizer.json with ids 0, 1, 2 special, and the file that gives them their roles."""
    by_id = {i: piece for piece, i in vocab.items()}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": i, "content": by_id[i], **flags} for i in SPECIAL]
    parts = dict.fromkeys(
        ("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder")
    )
    model = {"type": "BPE", "vocab": vocab, "merges": []}
    write_json(folder / "tokenizer.json", {"version": "1.0", **parts, "added_tokens": added, "model": model})
    roles = {"unk_token": by_id[0], "bos_token": by_id[1], "eos_token": by_id[2]}
    write_json(folder / "tokenizer_config.json", roles)


def write_sources(
    folder: Path, base: NDArray[Any], tuned: NDArray[Any], vocab: dict[str, int] | None
) -> tuple[Path, Path]:
    """A checkpoint folder and a bare table after tuning, as a user would have them."""
    checkpoint, reference = folder / "checkpoint", folder / "tuned.safetensors"
    checkpoint.mkdir(parents=True)
    config = {
        "model_type": "llama",
        "vocab_size": base.shape[0],
        "hidden_size": base.shape[1],
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    write_json(checkpoint / "config.json", config)
    head = np.zeros((base.shape[0], 2), base.dtype)
    save_file({TENSOR: base, "lm_head.weight": head}, checkpoint / "model.safetensors")
    save_file({TENSOR: tuned}, reference)
    if vocab is not None:
        write_tokenizer(checkpoint, vocab)
    return checkpoint, reference


def tied_sources(folder: Path) -> tuple[Path, Path]:
    """The sources of :func:`write_sources` with a tied head."""
    checkpoint, reference = write_sources(folder, base_table(), tuned_table(), pieces())
    config = json.loads((checkpoint / "config.json").read_text())
    write_json(checkpoint / "config.json", config | {"tie_word_embeddings": True})
    save_file({TENSOR: base_table()}, checkpoint / "model.safetensors")
    return checkpoint, reference


def make_ticket(
    root: Path,
    *,
    base: NDArray[Any] | None = None,
    tuned: NDArray[Any] | None = None,
    vocab: dict[str, int] | None = None,
    bundle: bool = True,
    ticket_id: str = "tiny",
    **options: Any,
) -> Path:
    """An honest ticket for two tables; returns ``tickets.json``, with sources in ``root/sources``."""
    sources = root / "sources"
    if not sources.exists():
        write_sources(
            sources,
            base_table() if base is None else base,
            tuned_table() if tuned is None else tuned,
            pieces() if vocab is None else vocab,
        )
    out = root / "ticket" / "tickets.json"
    lottery.find(
        sources / "checkpoint",
        sources / "tuned.safetensors",
        out=out,
        ticket_id=ticket_id,
        bundle=bundle,
        engine="numpy",
        workers=1,
        **options,
    )
    return out


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Let ``change`` alter the first ticket of the file in place; the file is written back as plain JSON."""
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content["tickets"][0])
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def assert_one_line(error: Exception) -> None:
    """An error on purpose is one line that nothing in the input can make drive a terminal."""
    assert str(error).isprintable(), repr(error)


def file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tensor_sha256(array: NDArray[Any]) -> str:
    """Tensor digest by the definition: canonical JSON of dtype and shape, a newline, little-endian bytes."""
    name = {"float16": "F16", "float32": "F32", "int64": "I64"}[array.dtype.name]
    shape = ",".join(str(extent) for extent in array.shape)
    head = '{"dtype":"' + name + '","shape":[' + shape + "]}\n"
    little = array.astype(array.dtype.newbyteorder("<"))
    return hashlib.sha256(head.encode("ascii") + little.tobytes()).hexdigest()


def rebind(path: Path) -> None:
    """What an adversary does after changing files: make every digest in the first ticket true again."""
    folder = path.parent

    def refresh(ticket: dict[str, Any]) -> None:
        for table in (ticket["base"], ticket["reference"]):
            for file in table["files"]:
                file["sha256"] = file_sha256(folder / file["path"])
            (tensors,) = [folder / f["path"] for f in table["files"] if f["path"].endswith(".safetensors")]
            table["tensor_sha256"] = tensor_sha256(load_file(tensors)[table["tensor"]])
        tokenizer = ticket["tokenizer"]
        for file in tokenizer["files"] if tokenizer else ():
            file["sha256"] = file_sha256(folder / file["path"])
            if file["path"].endswith("tokenizer.json"):
                tokenizer["sha256"] = file["sha256"]
        rows = ticket["released"]["rows"]
        tensors = load_file(folder / rows["path"])
        rows["sha256"] = file_sha256(folder / rows["path"])
        rows["fp32_sha256"] = tensor_sha256(tensors["rows.fp32"])
        rows["served_sha256"] = tensor_sha256(tensors["rows.served"])

    edit(path, refresh)


def rewrite_rows(path: Path, change: Callable[[dict[str, NDArray[Any]]], None]) -> None:
    """Let ``change`` alter the tensors of the first ticket's rows file in place."""
    ticket = json.loads(path.read_text(encoding="utf-8"))["tickets"][0]
    file = path.parent / ticket["released"]["rows"]["path"]
    tensors = {name: array.copy() for name, array in load_file(file).items()}
    change(tensors)
    save_file(tensors, file)


def bound_files(path: Path) -> list[Path]:
    """Every file that the first ticket binds by digest, found by looking for ``path`` beside ``sha256``."""
    found: list[str] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if (
                isinstance(value.get("path"), str)
                and isinstance(value.get("sha256"), str)
                and "files" not in value
            ):
                found.append(value["path"])
            for entry in value.values():
                walk(entry)
        elif isinstance(value, list):
            for entry in value:
                walk(entry)

    walk(json.loads(path.read_text(encoding="utf-8"))["tickets"][0])
    return [path.parent / name for name in sorted(set(found))]
