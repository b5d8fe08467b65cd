"""The GGUF container, read as hostile input: settings, tensors, values as the package gguf dequantises them.

Layout, little-endian: ``GGUF``, the version (2 or 3), the numbers of tensors and of settings, the settings,
the description of every tensor, then their blocks from an aligned position on. Nothing is allocated that the
file is not long enough for, and what stands in front of the blocks has limits of its own, since a hole in a
file costs nothing. A tensor is described with its fastest dimension first; here it comes last.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from certify.base.errors import InvalidInputError
from certify.base.files import opened
from certify.tables.safefile import quote

MAGIC: Final = b"GGUF"

# Number of the type, values per block, bytes per block.
_KINDS: Final = {
    "F32": (0, 1, 4),
    "F16": (1, 1, 2),
    "Q4_0": (2, 32, 18),
    "Q4_1": (3, 32, 20),
    "Q5_0": (6, 32, 22),
    "Q5_1": (7, 32, 24),
    "Q8_0": (8, 32, 34),
    "Q4_K": (12, 256, 144),
    "Q5_K": (13, 256, 176),
    "Q6_K": (14, 256, 210),
    "BF16": (30, 1, 2),
}
PLAIN: Final = frozenset({"F32", "F16", "BF16"})
"""Types whose blocks are single values: they are not dequantised."""

_NAMES: Final = {number: name for name, (number, _, _) in _KINDS.items()}
_SCALARS: Final = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
_TEXT, _ARRAY = 8, 9
_MOST_DIMENSIONS, _LARGEST = 4, 1 << 48
_LONGEST_HEADER: Final = 64 << 20  # bytes; a quarter of a million pieces with their merges have 10 million
_MOST_ENTRIES: Final = 1 << 16  # settings, tensors


@dataclass(frozen=True, slots=True)
class Blocks:
    """A tensor in its file.

    Attributes:
        kind: type of its values, such as ``F16`` or ``Q4_K``.
        shape: extents, each at least 1, slowest first.
        raw: ``[rows, bytes per row]`` uint8, memory-mapped and read-only; one row per last dimension.
    """

    kind: str
    shape: tuple[int, ...]
    raw: NDArray[np.uint8]

    def values(self, rows: Sequence[int] | NDArray[np.intp] | slice) -> NDArray[np.float32]:
        """The rows as the package gguf dequantises them, fp32 ``[rows, n]``."""
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize

        raw, kind = np.ascontiguousarray(self.raw[rows]), GGMLQuantizationType[self.kind]
        with np.errstate(all="ignore"):  # who writes them looks for NaN and infinity
            found: NDArray[np.float32] = dequantize(raw, kind).astype(np.float32, copy=False)
        return found


@dataclass(frozen=True, slots=True)
class Container:
    """An opened file: its settings by key, and its tensors by name.

    Texts of a list are a list; numbers of one are an array, memory-mapped and read-only.
    """

    path: Path
    settings: Mapping[str, Any]
    tensors: Mapping[str, Blocks]

    def refuse_others(self, prefix: str, read: Collection[str], inert: Mapping[str, Collection[Any]]) -> None:
        """Refuse a setting that nobody understood: with it, the model may be another one.

        Args:
            prefix: with what the keys in question begin, such as ``llama.``; below they are without it.
            read: keys that were read, or whose value never matters.
            inert: of other keys, the values with which they change nothing.

        Raises:
            InvalidInputError: ``GGUF_UNSUPPORTED``.
        """
        for whole, value in self.settings.items():
            key = whole.removeprefix(prefix)
            if isinstance(value, np.ndarray):
                value = value[: _MOST_ENTRIES + 1].tolist()  # no list that is known is longer
            if whole.startswith(prefix) and key not in read and value not in inert.get(key, ()):
                raise unsupported(
                    self, f"its setting {quote(whole)} is {shown(value)}, which is not supported"
                )


def open_gguf(path: Path) -> Container:
    """Read the header of a file, check it against the file's size, and map the tensors.

    Raises:
        UsageError: it cannot be read.
        InvalidInputError: it is no GGUF file of version 2 or 3, ends early, describes something impossible or
            tensors that overlap (``GGUF_MALFORMED``), or has a tensor of another type
            (``GGUF_QUANTISATION``).
    """
    with opened(path) as stream:
        if stream.read(len(MAGIC)) != MAGIC:
            raise _malformed(path, "it does not begin with GGUF")
        whole = np.memmap(stream, np.uint8, mode="r").view(np.ndarray)
    header = _Header(whole, path)
    version, tensors, settings = header.numbers("IQQ")
    if version not in (2, 3):
        raise _malformed(path, f"its version is {version}, not 2 or 3")
    found: dict[str, Any] = {}
    for _ in header.times(settings, 13, _MOST_ENTRIES):
        header.put(found, header.text(), header.value(*header.numbers("I")))
    described: dict[str, tuple[str, tuple[int, ...], int, int]] = {}
    for _ in header.times(tensors, 24, _MOST_ENTRIES):
        name = header.text()
        header.put(described, name, header.tensor(name))
    step = found.get("general.alignment", 32)
    if type(step) is not int or not 8 <= step <= 1 << 16 or step % 8:
        raise _malformed(path, "its alignment is not a small multiple of 8")
    origin = -(-header.position // step) * step
    end = 0
    for name, (_, _, start, size) in sorted(described.items(), key=lambda one: one[1][2]):
        if start < end or start % step or origin + start + size > whole.size:
            raise _malformed(path, f"tensor {quote(name)} does not lie in the file, or in another one")
        end = start + size
    placed = {
        name: Blocks(
            kind,
            shape,
            whole[origin + start : origin + start + size].reshape(math.prod(shape[:-1]), -1),
        )
        for name, (kind, shape, start, size) in described.items()
    }
    return Container(path, MappingProxyType(found), MappingProxyType(placed))


class _Header:
    """What stands in front of the tensors, read from its beginning on."""

    def __init__(self, whole: NDArray[np.uint8], path: Path) -> None:
        self.position = len(MAGIC)
        self._whole, self._path = whole.data, path

    def times(self, count: int, least: int, most: int = _LONGEST_HEADER) -> Iterator[int]:
        """Count to ``count``, if it is at most ``most`` and as many entries of ``least`` bytes still fit."""
        if count > most:
            raise _malformed(self._path, f"it announces {count} entries, more than {most}")
        self._fits(count * least)
        return iter(range(count))

    def numbers(self, form: str) -> tuple[Any, ...]:
        return struct.unpack(f"<{form}", self._take(struct.calcsize(f"<{form}")))

    def text(self) -> str:
        length = int.from_bytes(self._take(8), "little")  # there may be millions
        try:
            return str(self._take(length), "utf-8")
        except UnicodeDecodeError as error:
            raise _malformed(self._path, "a text in it is not UTF-8") from error

    def value(self, kind: int, *, nested: bool = False) -> Any:
        if kind == _TEXT:
            return self.text()
        if kind in _SCALARS:
            return self.numbers(_SCALARS[kind])[0]
        if kind != _ARRAY or nested:
            raise _malformed(self._path, f"a setting has type {kind}")
        inner, count = self.numbers("IQ")
        if inner in _SCALARS:
            form = np.dtype(f"<{_SCALARS[inner]}")
            return np.frombuffer(self._take(count * form.itemsize), form)
        return [self.value(inner, nested=True) for _ in self.times(count, 8)]

    def tensor(self, name: str) -> tuple[str, tuple[int, ...], int, int]:
        """Type, shape, position in the data, and size in bytes of the tensor described next."""
        (dimensions,) = self.numbers("I")
        if not 1 <= dimensions <= _MOST_DIMENSIONS:
            raise _malformed(self._path, f"tensor {quote(name)} has {dimensions} dimensions")
        shape = self.numbers(f"{dimensions}Q")[::-1]
        number, start = self.numbers("IQ")
        if number not in _NAMES:
            raise InvalidInputError(
                f"{self._path}: tensor {quote(name)} has the quantisation type {number}; read are"
                f" {', '.join(_KINDS)}",
                code="GGUF_QUANTISATION",
            )
        kind = _NAMES[number]
        _, values, size = _KINDS[kind]
        if not all(1 <= extent <= _LARGEST for extent in shape) or shape[-1] % values:
            raise _malformed(self._path, f"tensor {quote(name)} has an impossible shape")
        return kind, shape, start, math.prod(shape) // values * size

    def put(self, into: dict[str, Any], key: str, value: Any) -> None:
        if key in into:
            raise _malformed(self._path, f"{quote(key)} is there twice")
        into[key] = value

    def _take(self, count: int) -> memoryview:
        self._fits(count)
        self.position += count
        return self._whole[self.position - count : self.position]

    def _fits(self, count: int) -> None:
        end = self.position + count
        if end > self._whole.nbytes:
            raise _malformed(self._path, "it ends within its header")
        if end > _LONGEST_HEADER:
            raise _malformed(self._path, f"its header is longer than {_LONGEST_HEADER} bytes")


def shown(value: Any) -> str:
    """The value of a setting for a one-line message; a list of any length is ``a list``."""
    return "a list" if isinstance(value, list | np.ndarray) else quote(str(value))


def unsupported(file: Container, what: str) -> InvalidInputError:
    """The error for a file that is well-formed, but not a model that can be converted."""
    return InvalidInputError(f"{file.path} cannot be converted: {what}", code="GGUF_UNSUPPORTED")


def _malformed(path: Path, what: str) -> InvalidInputError:
    return InvalidInputError(f"{path} is not a valid GGUF file: {what}", code="GGUF_MALFORMED")
