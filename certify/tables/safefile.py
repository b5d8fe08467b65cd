"""The safetensors container, read as hostile input and written deterministically.

Layout: eight bytes, the little-endian length N of the header; N bytes of JSON, an object that maps each
tensor name to its dtype, shape and byte offsets; then the tensors' bytes. A header is accepted only if it
describes the file exactly: every byte after it belongs to exactly one tensor, and the number of bytes of a
tensor follows from dtype and shape. No memory is allocated based on a header alone, and nothing in the file
is executed.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from certify.base.errors import InvalidInputError, UsageError
from certify.base.files import opened
from certify.base.jsonio import atomic_writer, parse_json
from certify.base.text import escape
from certify.tables.dtypes import DTYPES

MAX_HEADER_BYTES = 16 * 1024 * 1024
"""Longest header that is read: room for about 100,000 tensors. (The format itself allows 100 MB.)"""

MAX_DIMENSIONS = 32
MAX_EXTENT = 1 << 48

STORAGE: Mapping[str, np.dtype[Any]] = MappingProxyType(
    {**{str(name): storage for name, storage in DTYPES.items()}, "I64": np.dtype("<i8"), "U8": np.dtype("u1")}
)
"""Element types that can be opened and written: those of tables, I64 for token ids, U8 for packed bytes."""

# Bits per element of every type in the format. Other tensors of a checkpoint may have any of them, and their
# sizes must add up as well.
_BITS: Mapping[str, int] = MappingProxyType(
    {
        **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
        **dict.fromkeys(("F32", "I32", "U32"), 32),
        **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
        **dict.fromkeys(("BOOL", "I8", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
        **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
        **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
        "F4": 4,
    }
)

_LENGTH_BYTES = 8
_ZIP_MAGIC = b"PK\x03\x04"
_WRITE_BLOCK = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Verified description of a tensor from a header.

    Attributes:
        dtype: element type as in safetensors; not limited to :data:`STORAGE`.
        shape: extents, each at least 0; ``()`` for a scalar.
        start: position of the first byte in the file.
        stop: position after the last byte.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True, slots=True, eq=False)
class MappedFile:
    """A safetensors file, opened once: header and bytes belong together, whatever lies at the path later.

    Attributes:
        path: the file.
        header: verified description of every tensor.
        bytes: the whole file, ``uint8``, memory-mapped and read-only; nothing is read before it is used.
        metadata: its ``__metadata__`` strings.
    """

    path: Path
    header: Mapping[str, TensorInfo]
    bytes: NDArray[np.uint8]
    metadata: Mapping[str, str]

    def tensor(self, name: str) -> NDArray[Any]:
        """Memory-mapped, read-only storage of one tensor, in its shape.

        Raises:
            InvalidInputError: ``TENSOR_MISSING``, or an element type outside :data:`STORAGE`
                (``DTYPE_UNSUPPORTED``).
        """
        info = self.header.get(name)
        if info is None:
            raise InvalidInputError(f"{self.path} has no tensor {quote(name)}", code="TENSOR_MISSING")
        if info.dtype not in STORAGE:
            raise InvalidInputError(
                f"{self.path}: tensor {quote(name)} has dtype {info.dtype}, not one of {', '.join(STORAGE)}",
                code="DTYPE_UNSUPPORTED",
            )
        return self.bytes[info.start : info.stop].view(STORAGE[info.dtype]).reshape(info.shape)


class Streamed(Protocol):
    """A tensor that is made while it is written, so that it never lies in memory as a whole."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its extents."""

    def blocks(self) -> Iterator[bytes]:
        """Its bytes in C order, little-endian."""


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Read and verify the description of every tensor in the file; the tensors themselves are not read.

    Raises:
        UsageError: the file does not exist or is not a regular file (``FILE_UNREADABLE``).
        InvalidInputError: a pickle (``PICKLE_REFUSED``); a length field beyond the file
            (``SAFETENSORS_TRUNCATED``) or beyond :data:`MAX_HEADER_BYTES` (``HEADER_TOO_LARGE``); a header
            that is not a strict JSON object of tensors (``SAFETENSORS_MALFORMED``, or a ``JSON_*`` code);
            offsets that overlap, leave holes, pass the end or contradict dtype and shape
            (``SAFETENSORS_OFFSETS``; missing bytes at the end: ``SAFETENSORS_TRUNCATED``).
    """
    with opened(path) as stream:
        return _read(stream, path)[0]


def read_metadata(path: Path) -> dict[str, str]:
    """Read the ``__metadata__`` strings of the file, if any; errors as in :func:`read_header`."""
    with opened(path) as stream:
        return _read(stream, path)[1]


def map_file(path: Path) -> MappedFile:
    """Open a file, verify its header and map it; errors as in :func:`read_header`."""
    with opened(path) as stream:
        header, metadata = _read(stream, path)
        size = max((info.stop for info in header.values()), default=stream.tell())
        mapped = np.memmap(stream, np.uint8, mode="r", shape=(size,))
    return MappedFile(path, MappingProxyType(header), mapped.view(np.ndarray), MappingProxyType(metadata))


def open_tensor(path: Path, name: str) -> NDArray[Any]:
    """Map one tensor of a file; see :func:`map_file` and :meth:`MappedFile.tensor`."""
    return map_file(path).tensor(name)


def write_tensors(
    path: Path,
    tensors: Mapping[str, tuple[str, NDArray[Any] | Streamed]],
    metadata: Mapping[str, str] | None,
) -> None:
    """Write a safetensors file, atomically and deterministically: equal content gives equal bytes.

    Tensors are ordered by descending element size, then by name. The header is padded with spaces to a
    multiple of eight bytes, so every tensor is aligned.

    Args:
        path: the file to write or replace.
        tensors: name -> (dtype, array in the storage of that dtype; see :data:`STORAGE`), or what makes one.
        metadata: strings for ``__metadata__``; None writes none.

    Raises:
        UsageError: a name is reserved or empty, an array is not in the storage of its dtype
            (``TENSOR_UNWRITABLE``), or the file cannot be written.
    """
    header: dict[str, Any] = {}
    if metadata is not None:
        header["__metadata__"] = dict(sorted(metadata.items()))
    for name, (dtype, array) in tensors.items():
        stored = array.dtype if isinstance(array, np.ndarray) else STORAGE.get(dtype)
        if name in {"", "__metadata__"} or dtype not in STORAGE or stored != STORAGE[dtype]:
            raise UsageError(
                f"cannot write tensor {quote(name)}: {dtype} from an array of {stored}",
                code="TENSOR_UNWRITABLE",
            )
    order = sorted(tensors, key=lambda name: (-STORAGE[tensors[name][0]].itemsize, name))
    position = 0
    for name in order:
        dtype, array = tensors[name]
        end = position + math.prod(array.shape) * STORAGE[dtype].itemsize
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % _LENGTH_BYTES)
    with atomic_writer(path) as stream:
        stream.write(len(text).to_bytes(_LENGTH_BYTES, "little"))
        stream.write(text)
        for name in order:
            array = tensors[name][1]
            for block in _blocks(array) if isinstance(array, np.ndarray) else array.blocks():
                stream.write(block)


def quote(name: str) -> str:
    """Quote and escape an untrusted name for a one-line message, cut to 80 characters."""
    return f"'{escape(name[:81], limit=80)}'"


def is_file(path: Path) -> bool:
    """Whether ``path`` is a file; False if this cannot be determined (overlong name, closed folder)."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """Whether ``path`` is a folder; False if this cannot be determined."""
    try:
        return path.is_dir()
    except OSError:
        return False


def refuse_pickle(start: bytes, path: Path) -> None:
    """Refuse a file that starts like a pickle or a zip of pickles; sixteen bytes of ``start`` suffice.

    Raises:
        InvalidInputError: ``PICKLE_REFUSED``.
    """
    # A safetensors file with a header of 640, 896, ... bytes also begins with 0x80 and a protocol number, but
    # then six zero bytes and a brace follow, which no pickle has there.
    length = int.from_bytes(start[:_LENGTH_BYTES], "little")
    safetensors = length <= MAX_HEADER_BYTES and start[_LENGTH_BYTES : _LENGTH_BYTES + 1] == b"{"
    pickled = start[:1] == b"\x80" and start[1:2] in {b"\x02", b"\x03", b"\x04", b"\x05"} and not safetensors
    if pickled or start.startswith(_ZIP_MAGIC):
        raise InvalidInputError(
            f"{path} is a pickle, which can run code when loaded: convert it to safetensors on a machine that"
            " may run it",
            code="PICKLE_REFUSED",
        )


def _read(stream: IO[bytes], path: Path) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    size = os.fstat(stream.fileno()).st_size
    start = stream.read(2 * _LENGTH_BYTES)
    refuse_pickle(start, path)
    length = int.from_bytes(start[:_LENGTH_BYTES], "little")
    if size < _LENGTH_BYTES or length > size - _LENGTH_BYTES:
        raise InvalidInputError(
            f"{path} is truncated or not safetensors: it has {size} bytes, its header claims {length}",
            code="SAFETENSORS_TRUNCATED",
        )
    if length > MAX_HEADER_BYTES:
        raise InvalidInputError(
            f"{path}: the header claims {length} bytes, more than {MAX_HEADER_BYTES}", code="HEADER_TOO_LARGE"
        )
    stream.seek(_LENGTH_BYTES)
    text = stream.read(length)
    if len(text) != length:
        raise InvalidInputError(f"{path} shrank while it was read", code="SAFETENSORS_TRUNCATED")
    if text[:1] != b"{":
        raise _malformed(path, "the header is not a JSON object")
    header = parse_json(text, what=f"the header of {path}")
    metadata = _metadata(header.pop("__metadata__", {}), path)
    tensors = {name: _tensor(name, entry, path, _LENGTH_BYTES + length) for name, entry in header.items()}
    _check_cover(tensors, path, _LENGTH_BYTES + length, size)
    return tensors, metadata


def _metadata(value: Any, path: Path) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise _malformed(path, "__metadata__ is not an object of strings")
    return value


def _tensor(name: str, entry: Any, path: Path, origin: int) -> TensorInfo:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _malformed(path, f"{quote(name)} is not described by dtype, shape and data_offsets alone")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise _malformed(path, f"{quote(name)} has an unknown dtype")
    if not _naturals(shape) or len(shape) > MAX_DIMENSIONS or any(extent > MAX_EXTENT for extent in shape):
        raise _malformed(path, f"{quote(name)} has no valid shape")
    if not _naturals(offsets) or len(offsets) != 2:
        raise _malformed(path, f"{quote(name)} has no valid data_offsets")
    begin, end = offsets
    if 8 * (end - begin) != math.prod(shape) * _BITS[dtype]:
        raise InvalidInputError(
            f"{path}: the offsets of {quote(name)} do not hold {dtype} of shape {shape}",
            code="SAFETENSORS_OFFSETS",
        )
    return TensorInfo(dtype, tuple(shape), origin + begin, origin + end)


def _check_cover(tensors: Mapping[str, TensorInfo], path: Path, origin: int, size: int) -> None:
    """Check that the tensors cover the bytes from ``origin`` to ``size`` exactly once."""
    position = origin
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].stop)):
        if info.start != position:
            fault = "overlaps another tensor" if info.start < position else "leaves a hole before it"
            raise InvalidInputError(f"{path}: tensor {quote(name)} {fault}", code="SAFETENSORS_OFFSETS")
        position = info.stop
    if position > size:
        raise InvalidInputError(
            f"{path} is truncated: {size} bytes of {position}", code="SAFETENSORS_TRUNCATED"
        )
    if position < size:
        raise InvalidInputError(
            f"{path} has {size - position} bytes outside all tensors", code="SAFETENSORS_OFFSETS"
        )


def _naturals(value: Any) -> bool:
    # bool is an int in Python, not in JSON.
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _malformed(path: Path, what: str) -> InvalidInputError:
    return InvalidInputError(f"{path} is not valid safetensors: {what}", code="SAFETENSORS_MALFORMED")


def _blocks(array: NDArray[Any]) -> Iterator[bytes]:
    """Yield the bytes of ``array`` in C order, one copied block at a time, so a mapped table stays mapped."""
    if array.ndim == 0 or array.nbytes <= _WRITE_BLOCK:
        yield array.tobytes()
        return
    step = max(1, _WRITE_BLOCK * len(array) // array.nbytes)
    for first in range(0, len(array), step):
        yield array[first : first + step].tobytes()
