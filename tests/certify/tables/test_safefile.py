"""The safetensors container: both directions against the safetensors library, and every lie in a header."""

from __future__ import annotations

import json
import os
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import table_strategies as strategies
from hypothesis import example, given, settings
from hypothesis import strategies as st
from profiles import examples

from certify.base.errors import CertifyError, InvalidInputError, UsageError
from certify.tables.safefile import (
    MAX_HEADER_BYTES,
    TensorInfo,
    open_tensor,
    read_header,
    read_metadata,
    write_tensors,
)

NAME = "model.embed_tokens.weight"


def build(header: object, body: bytes = b"", *, length: int | None = None) -> bytes:
    """A file with any header whatever, written without the code under test."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def entry(dtype="F32", shape=(2, 3), offsets=(0, 24), **more) -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}


def put(folder: Path, data: bytes, name: str = "t.safetensors") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def refusal(path: Path) -> CertifyError:
    with pytest.raises(CertifyError) as caught:
        read_header(path)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """One folder for all examples of a property; each example overwrites its file."""
    return tmp_path_factory.mktemp("safefile")


# ------------------------------------------------------------------------------------------ both directions


@given(strategies.safetensors_files())
def test_reads_what_an_independent_writer_wrote(scratch, file):
    path = put(scratch, file.data)
    header = read_header(path)
    assert set(header) == set(file.tensors)
    for name, (dtype, array) in file.tensors.items():
        assert (header[name].dtype, header[name].shape) == (dtype, array.shape)
        got = open_tensor(path, name)
        assert got.shape == array.shape
        assert got.tobytes() == array.tobytes()


@given(
    strategies.safetensors_files(), st.none() | st.dictionaries(st.sampled_from("zab"), st.text(max_size=3))
)
def test_the_library_reads_what_we_write_bit_for_bit(scratch, file, metadata):
    path = scratch / "written.safetensors"
    write_tensors(path, file.tensors, metadata)
    theirs = dict(safetensors.deserialize(path.read_bytes()))
    assert set(theirs) == set(file.tensors)
    for name, (dtype, array) in file.tensors.items():
        assert theirs[name]["dtype"] == dtype
        assert tuple(theirs[name]["shape"]) == array.shape
        assert bytes(theirs[name]["data"]) == array.tobytes()
    with safetensors.safe_open(path, framework="numpy") as opened:
        assert (opened.metadata() or {}) == (metadata or {})
    assert read_metadata(path) == (metadata or {})


def test_we_read_what_the_library_writes(tmp_path):
    tensors = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.arange(4, dtype=np.float16),
        "ids": np.array([1, 2**40, -1]),
        "scalar": np.array(1.5, dtype=np.float32),
        "empty": np.zeros((0, 4), np.float32),
    }
    path = tmp_path / "library.safetensors"
    safetensors.numpy.save_file(tensors, path, metadata={"format": "pt"})
    assert read_metadata(path) == {"format": "pt"}
    for name, array in tensors.items():
        got = open_tensor(path, name)
        assert got.dtype == array.dtype
        np.testing.assert_array_equal(got, array)


def test_bfloat16_through_torch_both_ways(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    bits = np.arange(1 << 16, dtype="<u2").reshape(256, 256)
    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors"
    write_tensors(ours, {NAME: ("BF16", bits)}, None)
    tensor = load_file(ours)[NAME]
    assert tensor.dtype == torch.bfloat16
    np.testing.assert_array_equal(tensor.view(torch.int16).numpy().view("<u2"), bits)
    save_file({NAME: tensor}, theirs)
    np.testing.assert_array_equal(open_tensor(theirs, NAME), bits)


# --------------------------------------------------------------------------------------------------- writing


def test_equal_content_gives_equal_bytes_in_any_order_of_insertion(tmp_path):
    tensors = {
        "served": ("BF16", np.ones((2, 3), "<u2")),
        "rows": ("F32", np.ones((2, 3), "<f4")),
        "ids": ("I64", np.arange(2, dtype="<i8")),
    }
    one, two = tmp_path / "one", tmp_path / "two"
    write_tensors(one, tensors, {"b": "1", "a": "2"})
    write_tensors(two, dict(reversed(tensors.items())), {"a": "2", "b": "1"})
    assert one.read_bytes() == two.read_bytes()
    header = read_header(one)
    # Every tensor starts at a multiple of its element size, so that it can be mapped as it is.
    assert all(header[name].start % array.itemsize == 0 for name, (_, array) in tensors.items())


def test_strided_and_big_arrays_are_written_in_c_order(tmp_path):
    big = np.arange(5_000_000, dtype="<f4").reshape(1000, 5000)
    for name, array in {"transposed": big[:7].T, "skipping": big[::3], "big": big}.items():
        write_tensors(tmp_path / name, {"x": ("F32", array)}, None)
        np.testing.assert_array_equal(open_tensor(tmp_path / name, "x"), array)


@pytest.mark.parametrize(
    ("name", "dtype", "array"),
    [
        ("", "F32", np.zeros(1, "<f4")),
        ("__metadata__", "F32", np.zeros(1, "<f4")),
        ("x", "F64", np.zeros(1)),
        ("x", "BF16", np.zeros(1, "<f2")),
        ("x", "F16", np.zeros(1, "<f4")),
        ("x", "F32", np.zeros(1, ">f4")),
    ],
)
def test_what_is_not_storage_is_not_written(tmp_path, name, dtype, array):
    path = tmp_path / "out"
    with pytest.raises(UsageError) as caught:
        write_tensors(path, {name: (dtype, array)}, None)
    assert caught.value.code == "TENSOR_UNWRITABLE"
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------------------------------- refusals

GOOD = build({NAME: entry()}, bytes(24))

LIES = {
    "empty file": (b"", "SAFETENSORS_TRUNCATED"),
    "seven bytes": (b"\0" * 7, "SAFETENSORS_TRUNCATED"),
    "length beyond the file": (build({NAME: entry()}, bytes(24), length=10**6), "SAFETENSORS_TRUNCATED"),
    "length of 2^64 - 1": (build({NAME: entry()}, bytes(24), length=2**64 - 1), "SAFETENSORS_TRUNCATED"),
    "length of zero": (build(b"", bytes(24)), "SAFETENSORS_MALFORMED"),
    "cut in the tensor": (GOOD[:-1], "SAFETENSORS_TRUNCATED"),
    "cut in the header": (GOOD[:40], "SAFETENSORS_TRUNCATED"),
    "a byte too many": (GOOD + b"\0", "SAFETENSORS_OFFSETS"),
    "not JSON": (build(b"{nonsense}"), "JSON_MALFORMED"),
    "not UTF-8": (build(b'{"\xff":1}'), "JSON_MALFORMED"),
    "nested too deep": (build(b"{" * 10_000), "JSON_TOO_DEEP"),
    "a list": (build([]), "SAFETENSORS_MALFORMED"),
    "leading space": (build(b" " + json.dumps({NAME: entry()}).encode(), bytes(24)), "SAFETENSORS_MALFORMED"),
    "duplicate name": (
        build(b'{"a":%b,"a":%b}' % ((json.dumps(entry()).encode(),) * 2), bytes(24)),
        "JSON_MALFORMED",
    ),
    "duplicate key in an entry": (
        build(b'{"a":{"dtype":"F32","dtype":"F16","shape":[2,3],"data_offsets":[0,24]}}', bytes(24)),
        "JSON_MALFORMED",
    ),
    "metadata of numbers": (build({"__metadata__": {"a": 1}}), "SAFETENSORS_MALFORMED"),
    "metadata no object": (build({"__metadata__": "a"}), "SAFETENSORS_MALFORMED"),
    "entry no object": (build({"a": 5}), "SAFETENSORS_MALFORMED"),
    "entry lacks the shape": (
        build({"a": {"dtype": "F32", "data_offsets": [0, 24]}}, bytes(24)),
        "SAFETENSORS_MALFORMED",
    ),
    "entry says more": (build({"a": entry(extra=1)}, bytes(24)), "SAFETENSORS_MALFORMED"),
    "unknown dtype": (build({"a": entry("F33")}, bytes(24)), "SAFETENSORS_MALFORMED"),
    "dtype no text": (build({"a": entry(["F32"])}, bytes(24)), "SAFETENSORS_MALFORMED"),
    "negative extent": (build({"a": entry(shape=(-2, -3))}, bytes(24)), "SAFETENSORS_MALFORMED"),
    "extent no integer": (build({"a": entry(shape=(2.0, 3))}, bytes(24)), "SAFETENSORS_MALFORMED"),
    "extent true": (build({"a": entry("F32", (True, 6))}, bytes(24)), "SAFETENSORS_MALFORMED"),
    "huge extent": (build({"a": entry(shape=(2**60, 2**60))}, bytes(24)), "SAFETENSORS_MALFORMED"),
    "huge extent times zero": (
        build({"a": entry(shape=(2**60, 0), offsets=(0, 0))}),
        "SAFETENSORS_MALFORMED",
    ),
    "many dimensions": (
        build({"a": entry(shape=[1] * 1000, offsets=(0, 4))}, bytes(4)),
        "SAFETENSORS_MALFORMED",
    ),
    "shape larger than offsets": (build({"a": entry(shape=(3, 3))}, bytes(24)), "SAFETENSORS_OFFSETS"),
    "dtype wider than offsets": (build({"a": entry("F64")}, bytes(24)), "SAFETENSORS_OFFSETS"),
    "offsets backwards": (build({"a": entry(offsets=(24, 0))}, bytes(24)), "SAFETENSORS_OFFSETS"),
    "negative offset": (build({"a": entry(offsets=(-24, 0))}, bytes(24)), "SAFETENSORS_MALFORMED"),
    "three offsets": (build({"a": entry(offsets=(0, 24, 24))}, bytes(24)), "SAFETENSORS_MALFORMED"),
    "offsets past the end": (build({"a": entry(offsets=(8, 32))}, bytes(24)), "SAFETENSORS_OFFSETS"),
    "overlap": (build({"a": entry(), "b": entry()}, bytes(24)), "SAFETENSORS_OFFSETS"),
    "partial overlap": (
        build({"a": entry(), "b": entry(offsets=(12, 36))}, bytes(36)),
        "SAFETENSORS_OFFSETS",
    ),
    "hole": (build({"a": entry(), "b": entry(offsets=(32, 56))}, bytes(56)), "SAFETENSORS_OFFSETS"),
    "hole at the start": (build({"a": entry(offsets=(8, 32))}, bytes(32)), "SAFETENSORS_OFFSETS"),
    "no tensors, but bytes": (build({}, bytes(8)), "SAFETENSORS_OFFSETS"),
    "pickle": (pickle.dumps([1.0] * 100, protocol=4), "PICKLE_REFUSED"),
    "pickle of protocol 2": (pickle.dumps({"a": 1}, protocol=2), "PICKLE_REFUSED"),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_are_refused(tmp_path, lie):
    data, code = LIES[lie]
    error = refusal(put(tmp_path, data))
    assert isinstance(error, InvalidInputError)
    assert error.code == code


def test_the_file_behind_the_lies_is_accepted(tmp_path):
    assert read_header(put(tmp_path, GOOD))[NAME].shape == (2, 3)


def test_zip_is_refused_as_a_pickle_whatever_its_name(tmp_path):
    path = tmp_path / "model.safetensors"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"x")
    assert refusal(path).code == "PICKLE_REFUSED"


@pytest.mark.parametrize("length", [640, 896, 1152, 1408])
def test_header_lengths_that_look_like_a_pickle_are_accepted(tmp_path, length):
    text = json.dumps({NAME: entry()}).encode().ljust(length)
    data = build(text, bytes(24))
    assert data[0] == 0x80
    assert data[1] in (2, 3, 4, 5)
    assert NAME in read_header(put(tmp_path, data))


def test_a_length_over_the_limit_is_refused_without_reading_it(tmp_path):
    path = tmp_path / "sparse.safetensors"
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", MAX_HEADER_BYTES + 1))
        stream.truncate(MAX_HEADER_BYTES + 100)
    tracemalloc.start()
    try:
        assert refusal(path).code == "HEADER_TOO_LARGE"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_other_tensors_may_have_any_type_of_the_format(tmp_path):
    header = {
        "f4": entry("F4", (2,), (0, 1)),
        "f8": entry("F8_E4M3", (3,), (1, 4)),
        NAME: entry(offsets=(4, 28)),
    }
    path = put(tmp_path, build(header, bytes(28)))
    assert read_header(path)["f4"].dtype == "F4"
    with pytest.raises(InvalidInputError) as caught:
        open_tensor(path, "f8")
    assert caught.value.code == "DTYPE_UNSUPPORTED"


def test_a_missing_tensor_is_named_escaped(tmp_path):
    with pytest.raises(InvalidInputError, match=r"\\x1b\[31m") as caught:
        open_tensor(put(tmp_path, GOOD), "\x1b[31mred\u202e" + "x" * 10_000)
    assert caught.value.code == "TENSOR_MISSING"
    assert "\x1b" not in str(caught.value)
    assert "\u202e" not in str(caught.value)
    assert len(str(caught.value)) < len(str(tmp_path)) + 200


def test_what_cannot_be_opened_is_a_usage_error(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (
        tmp_path / "absent",
        tmp_path,
        tmp_path / "pipe",
        tmp_path / "nul\0byte",
        tmp_path / ("x" * 5000),
        Path("/dev/zero"),
    ):
        error = refusal(path)
        assert isinstance(error, UsageError)
        assert error.code == "FILE_UNREADABLE"


def test_an_opened_tensor_is_a_read_only_map_and_needs_no_memory(tmp_path):
    path = tmp_path / "big.safetensors"
    header = json.dumps({NAME: entry("F16", (32000, 1024), (0, 65_536_000))}).encode()
    with path.open("wb") as stream:
        stream.write(build(header))
        stream.truncate(8 + len(header) + 65_536_000)
    tracemalloc.start()
    try:
        tensor = open_tensor(path, NAME)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert not tensor.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        tensor[0, 0] = 1


# ------------------------------------------------------------------------------------------------- mutations


def read_or_refuse(path: Path) -> dict[str, TensorInfo] | None:
    """The header, or None where it is refused; any other exception fails the test."""
    try:
        return read_header(path)
    except InvalidInputError:
        return None


@settings(max_examples=examples(300))
@given(st.data())
def test_a_damaged_file_is_refused_or_means_what_the_library_says(scratch, data):
    file = data.draw(strategies.safetensors_files())
    damaged = data.draw(strategies.mutants(file.data))
    path = put(scratch, damaged)
    header = read_or_refuse(path)
    if header is None:
        return
    theirs = dict(safetensors.deserialize(damaged))
    assert set(theirs) == set(header)
    for name, info in header.items():
        assert (theirs[name]["dtype"], tuple(theirs[name]["shape"])) == (info.dtype, info.shape)
        assert bytes(theirs[name]["data"]) == damaged[info.start : info.stop]


@given(st.binary(max_size=200))
@example(b"\x93NUMPY\x01\x00")
def test_arbitrary_bytes_are_refused(scratch, data):
    assert isinstance(refusal(put(scratch, data)), InvalidInputError)
