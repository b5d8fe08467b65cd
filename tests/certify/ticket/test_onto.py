"""Adapters for llama.cpp: the model that they are put on is the base, in any of the types that are read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Ran, in_process
from disks import full_disk
from fake_checkpoint import EMBED, IDS, make_ticket, random_bits, tuned_bits, write_checkpoint, write_file

from certify.ticket.adapters import lora, rows

gguf = pytest.importorskip("gguf", reason="needs the extra gguf")

WIDTH = 512
SIMPLE = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
CODES = {"Q4_K": slice(16, None), "Q5_K": slice(48, None), "Q6_K": slice(0, 128)}
"""Where the low bits of the codes lie in a block; the package quantises none of these."""

Export = Callable[..., Ran]


def write_onto(path: Path, kind: str, raw: Any) -> Path:
    """A GGUF file with a table of these blocks, and a head of its own."""
    number = gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("token_embd.weight", raw, raw_dtype=number)
    writer.add_tensor("output.weight", np.zeros((len(raw), WIDTH), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def release(folder: Path, base: Any) -> tuple[str, Path]:
    """A ticket on a base of these rows, in F16, and the base."""
    bits = base.astype("<f2").view("<u2")
    tuned = write_file(folder / "tuned.safetensors", {EMBED: ("F16", tuned_bits(bits, "F16", IDS, 2))})
    checkpoint = write_checkpoint(folder / "base", bits, "F16")
    return make_ticket(folder / "release" / "tickets.json", checkpoint, tuned, IDS), checkpoint


@pytest.fixture
def export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Export:
    """``certify export`` of a ticket: onto a model, unless another format is asked for."""

    def run(ticket: tuple[str, Path], onto: Path, out: Path = tmp_path / "a.gguf", kind: str = "gguf") -> Ran:
        words = ["--ticket", ticket[0], "--base", ticket[1], "--format", kind, "--uncertified", "--out", out]
        return in_process(["export", *words, *(["--onto", onto] if kind == "gguf" else [])], capsys)

    return run


def plain(seed: int) -> Any:
    return random_bits("F16", seed, 40, WIDTH).view("<f2").astype(np.float32)


def blocks(kind: str) -> tuple[Any, Any]:
    """Random blocks of a kind, and a table that lies anywhere between the values next to theirs."""
    number, draw = gguf.GGMLQuantizationType[kind], np.random.default_rng(7)
    if kind in SIMPLE:
        base = plain(1)
        return gguf.quants.quantize(base, number), base
    raw = draw.integers(0, 256, (40, WIDTH // 256, gguf.GGML_QUANT_SIZES[number][1]), dtype=np.uint8)
    scales = [raw[..., -2:]] if kind == "Q6_K" else [raw[..., 0:2], raw[..., 2:4]]
    for where, scale in zip(scales, (0.01, 0.08), strict=False):
        where[:] = np.array([scale], "<f2").view(np.uint8)
    codes = [raw.copy(), raw.copy()]
    codes[0][..., CODES[kind]], codes[1][..., CODES[kind]] = 0, 0x11
    first, second, found = (gguf.quants.dequantize(one.reshape(40, -1), number) for one in (*codes, raw))
    return raw.reshape(40, -1), found + draw.uniform(-0.5, 0.5, found.shape) * np.abs(second - first)


@pytest.mark.parametrize("kind", [*SIMPLE, *CODES])
def test_the_base_in_any_type_and_nothing_else(kind: str, tmp_path: Path, export: Export) -> None:
    raw, base = blocks(kind)
    ticket, out = release(tmp_path, base), tmp_path / "a.gguf"
    assert export(ticket, write_onto(tmp_path / "right.gguf", kind, raw)).code == 0
    out.unlink()
    other = raw[np.random.default_rng(3).permutation(40)]
    for name, wrong in (("reversed", raw[::-1].copy()), ("shuffled", other)):
        ran = export(ticket, write_onto(tmp_path / f"{name}.gguf", kind, wrong))
        assert (ran.code, "[WRONG_BASE]" in ran.one_line(), out.exists()) == (4, True, False)


def test_another_model_or_broken_rows(tmp_path: Path, export: Export) -> None:
    base, out = plain(1), tmp_path / "a.gguf"
    ticket = release(tmp_path, base)
    merged, elsewhere = base.copy(), plain(2)
    merged[[*IDS]] = elsewhere[[*IDS]]
    assert export(ticket, write_onto(tmp_path / "merged.gguf", "F32", merged)).code == 0
    out.unlink()
    cases = [(elsewhere, "WRONG_BASE"), (base * 0, "WRONG_BASE"), (base * 1.1, "WRONG_BASE")]
    for row in (3, 5):  # of the ticket, and another one
        for value in (np.nan, np.inf, 3e38):
            broken = base.copy()
            broken[row, 5] = value
            cases.append((broken, "WRONG_BASE" if value == 3e38 else "NON_FINITE"))
    for number, (table, code) in enumerate(cases):
        ran = export(ticket, write_onto(tmp_path / f"{number}.gguf", "F32", table))
        assert (ran.code, f"[{code}]" in ran.one_line(), out.exists()) == (4, True, False), number


def test_where_no_file_can_be_written(tmp_path: Path, export: Export) -> None:
    raw = plain(1)
    ticket, onto = release(tmp_path, raw), write_onto(tmp_path / "base.gguf", "F32", raw)
    (tmp_path / "file").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe.gguf")
    before = sorted(tmp_path.rglob("*"))
    places = [tmp_path / "file" / "a.gguf", *(tmp_path / f"{'n' * size}.gguf" for size in (240, 300))]
    for out in places:
        ran = export(ticket, onto, out)
        assert (ran.code, ran.one_line().endswith("[FILE_UNWRITABLE]")) == (2, True), ran.err
        assert f"cannot make {out}: " in ran.err
    ran = export(ticket, onto, tmp_path / "pipe.gguf")
    assert (ran.code, "it is a pipe, not a file" in ran.one_line()) == (2, True)
    assert (tmp_path / "pipe.gguf").is_fifo()
    for size in (0, 3000):  # nothing of it; not all of it
        with full_disk(size):
            ran = export(ticket, onto)
        assert (ran.code, ran.one_line().endswith("[FILE_UNWRITABLE]")) == (2, True), ran.err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("kind", ["peft", "lora", "gguf", "settings"])
def test_what_is_written_is_read_back(
    tmp_path: Path, export: Export, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A disk that changes a bit of what it is given."""
    raw = plain(1)
    ticket, onto = release(tmp_path, raw), write_onto(tmp_path / "base.gguf", "F32", raw)
    out, real, add = tmp_path / "a.gguf", rows.write_tensors, gguf.GGUFWriter.add_tensor

    def damaged(path: Path, *rest: Any) -> None:
        real(path, *rest)
        path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))

    if kind == "gguf":
        monkeypatch.setattr(gguf.GGUFWriter, "add_tensor", lambda self, name, one: add(self, name, one * 2))
    elif kind == "settings":
        monkeypatch.setattr(rows, "write_bytes", lambda path, _: path.write_bytes(b"{}"))
    else:
        monkeypatch.setattr(rows, "write_tensors", damaged)
    ran = export(ticket, onto, kind="peft" if kind == "settings" else kind)
    assert (ran.code, ran.one_line().endswith("[WRITE_DAMAGED]"), out.exists()) == (70, True, False)


@pytest.mark.parametrize("kind", ["lora", "gguf"])
def test_a_matrix_of_zeros_has_a_bound(
    tmp_path: Path, export: Export, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    raw = plain(1)
    ticket, onto = release(tmp_path, raw), write_onto(tmp_path / "base.gguf", "F32", raw)
    for bound, code in ((2 * 4 * 40 - 1, 2), (2 * 4 * 40, 0)):
        monkeypatch.setattr(lora, "MOST_BYTES", bound)
        ran = export(ticket, onto, kind=kind)
        assert (ran.code, (tmp_path / "a.gguf").exists()) == (code, not code)
        assert code == 0 or ("[ADAPTER_TOO_LARGE]" in ran.one_line() and "--format peft" in ran.err)
