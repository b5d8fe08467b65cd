"""The GGUF container: against the package gguf's own reader, and as hostile input."""

from __future__ import annotations

import struct
import tracemalloc
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

gguf = pytest.importorskip("gguf")

from certify.base.errors import CertifyError  # noqa: E402
from certify.models.gguf import open_gguf  # noqa: E402

KINDS = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K")


def small(path: Path, *names: str, kind: str = "F32") -> Path:
    """A file of 3 x 512 tensors of random blocks."""
    number = gguf.GGMLQuantizationType[kind]
    values, size = gguf.GGML_QUANT_SIZES[number]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("llama.block_count", 3)
    writer.add_array("tokenizer.ggml.tokens", ["a", "▁b", "\n"])
    writer.add_array("tokenizer.ggml.scores", [0.0, -1.5, 2.0])
    for i, name in enumerate(names):
        blocks = np.random.default_rng(i).integers(0, 256, (3, 512 // values * size), dtype=np.uint8)
        blocks &= 0xBB  # no exponent of all ones: neither infinite nor NaN
        writer.add_tensor(name, blocks, raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_every_type_is_read_as_the_package_reads_it(kind: str, tmp_path: Path) -> None:
    path = small(tmp_path / "m.gguf", "one", "two", kind=kind)
    opened = open_gguf(path)
    for tensor in gguf.GGUFReader(path).tensors:
        mine = opened.tensors[tensor.name]
        wanted = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        assert (mine.kind, mine.shape) == (kind, (3, 512))
        assert np.array_equal(mine.values(slice(0, 3)), wanted)
        assert np.array_equal(mine.values([2, 0]), wanted[[2, 0]])
        assert wanted.std() > 0
    assert opened.settings["llama.block_count"] == 3
    assert opened.settings["tokenizer.ggml.tokens"] == ["a", "▁b", "\n"]
    assert opened.settings["tokenizer.ggml.scores"].tolist() == [0.0, -1.5, 2.0]


@pytest.mark.parametrize("kind", KINDS)
def test_scales_that_are_not_numbers_give_no_warning(kind: str, tmp_path: Path) -> None:
    path = small(tmp_path / "m.gguf", "one", kind=kind)
    data = path.read_bytes()
    path.write_bytes(data[: -len(data) // 2] + b"\xff\x7f\xff\x7c" * (len(data) // 8))
    open_gguf(path).tensors["one"].values(slice(0, 3))  # warnings are errors here; who writes them refuses


def test_no_cut_and_no_changed_byte_is_more_than_an_error(tmp_path: Path) -> None:
    data = small(tmp_path / "m.gguf", "one", "two").read_bytes()
    header = data.index(b"two") + 40
    path = tmp_path / "bad.gguf"
    outcomes = set()
    for position in range(header):
        for bad in (
            data[:position],
            *(data[:position] + bytes([b]) + data[position + 1 :] for b in (0, 1, 255)),
        ):
            path.write_bytes(bad)
            try:
                open_gguf(path)
                outcomes.add("opened")
                assert len(bad) == len(data)
            except CertifyError as error:
                outcomes.add(error.code)
    assert outcomes == {"opened", "GGUF_MALFORMED", "GGUF_QUANTISATION"}


def lies(data: bytes) -> dict[str, bytes]:
    """Headers that say something untrue."""
    at = data.index(b"two") + 3  # dimensions, extents, type, position
    huge = struct.pack("<Q", 1 << 60)
    return {
        "version": data[:4] + struct.pack("<I", 4) + data[8:],
        "number of tensors": data[:8] + huge + data[16:],
        "number of settings": data[:16] + huge + data[24:],
        "dimensions": data[:at] + struct.pack("<I", 5) + data[at + 4 :],
        "extent": data[: at + 4] + huge + data[at + 12 :],
        "on another": data[: at + 24] + struct.pack("<Q", 0) + data[at + 32 :],
        "beyond the end": data[: at + 24] + struct.pack("<Q", 1 << 20) + data[at + 32 :],
        "not aligned": data[: at + 24] + struct.pack("<Q", 3 * 512 * 4 + 1) + data[at + 32 :],
        "the same name": data.replace(b"two", b"one"),
    }


def test_lies_are_refused(tmp_path: Path) -> None:
    data = small(tmp_path / "m.gguf", "one", "two").read_bytes()
    path = tmp_path / "bad.gguf"
    for name, bad in lies(data).items():
        path.write_bytes(bad)
        with pytest.raises(CertifyError) as caught:
            open_gguf(path)
        assert (name, caught.value.code, int(caught.value.exit_code)) == (name, "GGUF_MALFORMED", 4)
    at = data.index(b"two") + 23
    path.write_bytes(data[:at] + struct.pack("<I", 19) + data[at + 4 :])
    with pytest.raises(CertifyError, match="'two' has the quantisation type 19"):
        open_gguf(path)


def with_list(path: Path, inner: int, count: int, size: int) -> Path:
    """A file whose first setting is a list of ``count`` numbers or texts; its ``size`` bytes are a hole."""
    data = small(path, "one").read_bytes()
    head = data[:16] + struct.pack("<Q", struct.unpack("<Q", data[16:24])[0] + 1)
    with path.open("wb") as stream:
        stream.write(head + struct.pack("<Q1sIIQ", 1, b"x", 9, inner, count))
        stream.seek(size, 1)
        stream.write(data[24:] + bytes(64))  # aligned otherwise
    return path


def test_a_list_of_numbers_costs_no_more_than_the_file(tmp_path: Path) -> None:
    path = with_list(tmp_path / "m.gguf", 0, 48 << 20, 48 << 20)
    tracemalloc.start()
    try:
        with suppress(CertifyError):
            open_gguf(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("inner", "each"), [(0, 1), (8, 8)], ids=["numbers", "empty texts"])
def test_a_header_of_any_length_is_refused_before_it_is_read(inner: int, each: int, tmp_path: Path) -> None:
    path = with_list(tmp_path / "m.gguf", inner, (128 << 20) // each, 128 << 20)
    with pytest.raises(CertifyError, match="its header is longer than 67108864 bytes"):
        open_gguf(path)


@pytest.mark.parametrize("position", [8, 16], ids=["tensors", "settings"])
def test_entries_of_any_number_are_refused_before_they_are_read(position: int, tmp_path: Path) -> None:
    path = small(tmp_path / "m.gguf", "one")
    data = path.read_bytes()
    with path.open("wb") as stream:
        stream.write(data[:position] + struct.pack("<Q", 1 << 20) + data[position + 8 :])
        stream.seek(48 << 20)
        stream.write(b"x")
    with pytest.raises(CertifyError, match="announces 1048576 entries, more than 65536"):
        open_gguf(path)
