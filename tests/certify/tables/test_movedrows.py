"""Tables as the rows that moved from a base: written and read, judged by a reader and a writer of its own."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import in_process
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from profiles import examples
from safetensors.numpy import load_file, save_file
from ticket_folders import assert_one_line, file_sha256, tensor_sha256

from certify.base.errors import CertifyError
from certify.tables.movedrows import write_moved
from certify.tables.table import Reader, Table, open_table

NAME = "model.embed_tokens.weight"
Bits = NDArray[Any]


def pair(seed: int, dtype: Any, rows: int, width: int, moved: int) -> tuple[Bits, Bits, list[int]]:
    """A table, the same with ``moved`` rows changed in some entries, and the ids of these."""
    random = np.random.default_rng(seed)
    base = random.normal(0, 0.1, (rows, width)).astype(dtype)
    tuned, ids = base.copy(), sorted(random.choice(rows, moved, replace=False).tolist())
    for i in ids:
        tuned[i, random.integers(width) :] *= dtype(1.25)
    return base, tuned, [i for i in ids if base[i].tobytes() != tuned[i].tobytes()]


def save(path: Path, table: Bits) -> Path:
    save_file({NAME: table}, path)
    return path


def packed(base: Bits, tuned: Bits, ids: list[int]) -> bytes:
    """The bits as the format defines them, entry by entry."""
    flipped = [bytes(a ^ b for a, b in zip(base[i].tobytes(), tuned[i].tobytes(), strict=True)) for i in ids]
    entries = b"".join(flipped)
    return b"".join(entries[byte :: base.itemsize] for byte in range(base.itemsize))


def moved_file(path: Path, base: Bits, ids: list[int], bits: bytes, **other: str) -> Path:
    """A file of moved rows, written byte by byte."""
    listed = struct.pack(f"<{len(ids)}q", *ids)
    name = {2: "F16", 4: "F32"}[base.itemsize]
    metadata = {"certify.base_tensor_sha256": tensor_sha256(base), "certify.base_dtype": name} | other
    header = {
        "__metadata__": metadata,
        "moved.ids": {"dtype": "I64", "shape": [len(ids)], "data_offsets": [0, len(listed)]},
        "moved.bits": {
            "dtype": "U8",
            "shape": [len(bits)],
            "data_offsets": [len(listed), len(listed) + len(bits)],
        },
    }
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + listed + bits)
    return path


def same(table: Table, whole: Bits) -> None:
    """A table is ``whole``, however it is asked."""
    rows, width = whole.shape
    assert (table.shape, table.digest()) == ((rows, width), tensor_sha256(whole))
    for start, stop in ((0, rows), (0, 0), (rows // 3, rows // 2 + 1), (rows - 1, rows)):
        assert table.rows(start, stop).tobytes() == whole[start:stop].tobytes()
    order = [rows - 1, 0, rows // 2, 0]
    assert table.take(order).tobytes() == whole[order].tobytes()
    assert b"".join(block.tobytes() for _, block in table.blocks(width * 6)) == whole.tobytes()
    reader = Reader(table)
    reader.feed(0, table.rows(0, rows))
    assert table.digest() == tensor_sha256(whole)
    assert table.file_digest() == file_sha256(table.path)


@given(st.integers(0, 1 << 30), st.sampled_from([np.float16, np.float32]), st.integers(1, 40), st.data())
@settings(max_examples=examples(30), deadline=None)
def test_the_table_comes_back(
    tmp_path_factory: pytest.TempPathFactory, seed: int, dtype: Any, rows: int, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("moved")
    base, tuned, ids = pair(seed, dtype, rows, data.draw(st.integers(1, 9)), data.draw(st.integers(1, rows)))
    if not ids:
        return
    before, after = (
        open_table(save(folder / name, t)) for name, t in (("b.safetensors", base), ("t.safetensors", tuned))
    )
    assert write_moved(folder / "m.safetensors", before, after) == len(ids)
    tensors = load_file(folder / "m.safetensors")
    assert tensors["moved.ids"].tolist() == ids
    assert zlib.decompress(tensors["moved.bits"].tobytes()) == packed(base, tuned, ids)
    same(open_table(folder / "m.safetensors", base=before), tuned)
    own = moved_file(folder / "own.safetensors", base, ids, zlib.compress(packed(base, tuned, ids), 1))
    same(open_table(own, base=before), tuned)


def test_rows_are_seen_in_the_type_that_they_were_written_in(tmp_path: Path) -> None:
    """A base in F32, of which rows moved as F16: the table is in F16, and seen as F32 it is rounded."""
    base, tuned, ids = pair(4, np.float32, 9, 5, 3)
    stored = open_table(save(tmp_path / "b.safetensors", base))
    half, moved = base.astype(np.float16), tuned.astype(np.float16)
    path = moved_file(tmp_path / "m.safetensors", half, ids, zlib.compress(packed(half, moved, ids)))
    table = open_table(path, base=stored)
    assert (table.dtype, table.tied, table.tensor) == ("F16", None, NAME)
    same(table, moved)
    assert table.as_dtype("F32").digest() == tensor_sha256(moved.astype(np.float32))


BASE, TUNED, IDS = pair(7, np.float16, 12, 6, 4)
GOOD = packed(BASE, TUNED, IDS)
FAULTS: dict[str, tuple[str, list[int], bytes, dict[str, str]]] = {
    "another base": ("WRONG_BASE", IDS, zlib.compress(GOOD), {"certify.base_tensor_sha256": "0" * 64}),
    "no such type": ("WRONG_BASE", IDS, zlib.compress(GOOD), {"certify.base_dtype": "F64"}),
    "not increasing": ("MOVED_MALFORMED", IDS[::-1], zlib.compress(GOOD), {}),
    "twice": ("MOVED_MALFORMED", [IDS[0], *IDS[:-1]], zlib.compress(GOOD), {}),
    "negative": ("MOVED_MALFORMED", [-1, *IDS[1:]], zlib.compress(GOOD), {}),
    "beyond": ("MOVED_MALFORMED", [*IDS[:-1], 12], zlib.compress(GOOD), {}),
    "none": ("MOVED_MALFORMED", [], zlib.compress(b""), {}),
    "too few bits": ("MOVED_MALFORMED", IDS, zlib.compress(GOOD[:-1]), {}),
    "a bomb": ("MOVED_MALFORMED", IDS, zlib.compress(bytes(1 << 22)), {}),
    "cut off": ("MOVED_MALFORMED", IDS, zlib.compress(GOOD)[:-4], {}),
    "more behind": ("MOVED_MALFORMED", IDS, zlib.compress(GOOD) + b"x", {}),
    "no stream": ("MOVED_MALFORMED", IDS, b"\0" * 9, {}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_malformed_is_refused(tmp_path: Path, fault: str) -> None:
    code, ids, bits, other = FAULTS[fault]
    base = open_table(save(tmp_path / "b.safetensors", BASE))
    with pytest.raises(CertifyError) as refused:
        open_table(moved_file(tmp_path / "m.safetensors", BASE, ids, bits, **other), base=base)
    assert refused.value.code == code
    assert_one_line(refused.value)


def test_the_table_of_a_language_model_is_small(tmp_path: Path) -> None:
    """4,700 of 49,152 rows of 576 in fp16, each moved by a tenth of its norm: under 6 MB."""
    random = np.random.default_rng(1)
    base = random.normal(0, 0.1, (49152, 576)).astype(np.float16)
    tuned, ids = base.copy(), random.choice(49152, 4700, replace=False)
    tuned[ids] += random.normal(0, 0.01, (4700, 576)).astype(np.float16)
    before, after = (open_table(save(tmp_path / f"{t.sum()}.safetensors", t)) for t in (base, tuned))
    assert write_moved(tmp_path / "m.safetensors", before, after) == 4700
    assert (tmp_path / "m.safetensors").stat().st_size < 6_000_000
    assert open_table(tmp_path / "m.safetensors", base=before).digest() == tensor_sha256(tuned)


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, moved, out = (tmp_path / f"{name}.safetensors" for name in ("base", "moved", "out"))
    save(base, BASE)
    save_file({"wte": TUNED, "other": np.zeros((2, 2), np.float16)}, tmp_path / "tuned.safetensors")
    diff = ["table", "diff", str(base), str(tmp_path / "tuned.safetensors"), "--out", str(moved)]
    said = in_process(diff, capsys).one_line()
    assert ("name it with --tuned-tensor" in said, said.endswith("[TENSOR_AMBIGUOUS]")) == (True, True)
    ran = in_process([*diff, "--tuned-tensor", "wte"], capsys)
    assert (ran.code, tensor_sha256(TUNED) in ran.out) == (0, True)
    ran = in_process(["table", "apply", str(base), str(moved), "--out", str(out)], capsys)
    assert (ran.code, tensor_sha256(TUNED) in ran.out) == (0, True)
    assert load_file(out)[NAME].tobytes() == TUNED.tobytes()
    scans = [
        in_process(
            ["scan", "--base", str(base), "--tuned", str(one), "--out", str(tmp_path / "s.npz")], capsys
        )
        for one in (moved, out)
    ]
    assert [ran.code for ran in scans] == [0, 0]
    assert scans[0].out.replace(str(moved), "") == scans[1].out.replace(str(out), "")
    refused: list[tuple[list[str], int, str]] = [
        (
            ["table", "diff", str(base), str(base), "--out", str(tmp_path / "n.safetensors")],
            5,
            "NOTHING_MOVES",
        ),
        (["table", "apply", str(out), str(moved), "--out", str(tmp_path / "n.safetensors")], 4, "WRONG_BASE"),
        (["table", "apply", str(base), str(moved), "--out", str(moved)], 2, "OUT_IS_INPUT"),
        (["table", "apply", str(base), str(moved), "--out", str(base)], 2, "OUT_IS_BASE"),
        (["scan", "--base", str(moved), "--tuned", str(out)], 2, "BASE_NEEDED"),
        (["scan", "--base", str(base), "--tuned", str(moved), "--tuned-tensor", "wte"], 2, "TENSOR_MISSING"),
    ]
    np.save(tmp_path / "t.npy", TUNED)
    whole = (
        (base, "MOVED_MALFORMED"),
        (out, "MOVED_MALFORMED"),
        (tmp_path / "t.npy", "SAFETENSORS_TRUNCATED"),
    )
    for rows, code in whole:
        words = ["table", "apply", str(base), str(rows), "--out", str(tmp_path / "n.safetensors")]
        refused.append((words, 4, code))
    for words, exit_code, code in refused:
        ran = in_process(words, capsys)
        assert (ran.code, f"[{code}]" in ran.one_line()) == (exit_code, True), words
    assert not (tmp_path / "n.safetensors").exists()
