"""Moved rows: a table as the digest of its base and the rows in which it differs from it.

A safetensors file with two tensors: ``moved.ids`` I64 ``[k]``, strictly increasing, and ``moved.bits`` U8: a
zlib stream of the exclusive or of the rows' bits with the base's, the lowest byte of every entry first, then
the next. Upper bytes hardly differ, so they compress well. The metadata name the base by tensor digest, and
the element type. The table is the base, seen in that type, with these bits flipped.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from certify.base.errors import InvalidInputError, NothingToDoError, UsageError
from certify.base.records import Dtype
from certify.tables.dtypes import DTYPES, storage_bits
from certify.tables.safefile import MappedFile, write_tensors

if TYPE_CHECKING:
    from certify.tables.table import Table

IDS: Final = "moved.ids"
BITS: Final = "moved.bits"
BASE_KEY: Final = "certify.base_tensor_sha256"
DTYPE_KEY: Final = "certify.base_dtype"


@dataclass(frozen=True, eq=False)
class MovedRows:
    """The entries of a table ``[V, d]`` that is a base with other rows, cut out of it as out of an array.

    Attributes:
        base: in the element type of the rows.
        ids: rows that differ, strictly increasing ``[k]``, k >= 1.
        rows: what they are, in storage ``[k, d]``.
    """

    base: Table
    ids: NDArray[np.int64]
    rows: NDArray[Any]

    def __getitem__(self, part: slice | NDArray[np.intp]) -> NDArray[Any]:
        """Rows ``part``, a range or ids: the base's own view where none of them differs, otherwise a copy."""
        if isinstance(part, slice):
            start, stop, _ = part.indices(self.base.shape[0])
            found, wanted = self.base.rows(start, stop), np.arange(start, stop)
        else:
            found, wanted = self.base.take(part.tolist()), part
        places = np.minimum(np.searchsorted(self.ids, wanted), self.ids.size - 1)
        moved = np.flatnonzero(self.ids[places] == wanted)
        if moved.size:
            found = np.array(found)
            found[moved] = self.rows[places[moved]]
        return found


class TunedTable(Protocol):
    """A table as far as writing what differs from its base needs."""

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """Rows ``start`` to ``stop`` (exclusive), in the base's dtype."""


def write_moved(path: Path, base: Table, tuned: TunedTable) -> int:
    """Write the rows in which ``tuned`` differs from ``base``, bit for bit, atomically; returns their number.

    Args:
        path: the file to write or replace.
        base: E⁰ ``[V, d]``.
        tuned: E*, of the same shape and dtype.

    Raises:
        NothingToDoError: none differs (``NOTHING_MOVES``).
        UsageError: the file cannot be written.
    """
    ids, bits = list[NDArray[np.int64]](), list[NDArray[Any]]()
    for start, block in base.blocks():
        flipped = storage_bits(block) ^ storage_bits(tuned.rows(start, start + len(block)))
        moved = np.flatnonzero(flipped.any(axis=1))
        ids.append(moved + start)
        bits.append(flipped[moved])
    listed = np.concatenate(ids)
    if not listed.size:
        raise NothingToDoError(f"no row differs from those of {base.path}, bit for bit", code="NOTHING_MOVES")
    planes = np.concatenate(bits).reshape(-1, 1).view(np.uint8).T
    packed = np.frombuffer(zlib.compress(planes.tobytes(), 9), np.uint8)
    metadata = {BASE_KEY: base.digest(), DTYPE_KEY: base.dtype}
    write_tensors(path, {IDS: ("I64", listed), BITS: ("U8", packed)}, metadata)
    return int(listed.size)


def is_moved(file: MappedFile) -> bool:
    """Whether a file holds moved rows, not a table."""
    return {*file.header} == {IDS, BITS}


def open_moved(file: MappedFile, base: Table | None) -> MovedRows:
    """The table that moved rows from an untrusted source make of ``base``.

    Raises:
        UsageError: no base is at hand (``BASE_NEEDED``).
        InvalidInputError: the rows were made for another base (``WRONG_BASE``), or ids or bits are malformed
            (``MOVED_MALFORMED``).
    """
    if base is None:
        raise UsageError(f"{file.path} holds the rows that differ from a base: name it", code="BASE_NEEDED")
    dtype: Dtype | None = next((name for name in DTYPES if name == file.metadata.get(DTYPE_KEY)), None)
    if dtype is None or file.metadata.get(BASE_KEY) != base.as_dtype(dtype).digest():
        raise InvalidInputError(f"{file.path} was made for another base than {base.path}", code="WRONG_BASE")
    base, ids = base.as_dtype(dtype), np.array(file.tensor(IDS))
    count, width = base.shape
    increasing = ids.ndim == 1 and ids.dtype == np.int64 and ids.size and bool((ids[1:] > ids[:-1]).all())
    if not increasing or ids[0] < 0 or ids[-1] >= count:
        raise InvalidInputError(
            f"{file.path}: {IDS} is not an increasing list of rows of a table of {count}",
            code="MOVED_MALFORMED",
        )
    size = ids.size * width * DTYPES[dtype].itemsize
    try:
        unpacker = zlib.decompressobj()
        planes = unpacker.decompress(file.tensor(BITS).tobytes(), size + 1)
    except zlib.error:
        planes = b""
    if len(planes) != size or not unpacker.eof or unpacker.unused_data:
        raise InvalidInputError(
            f"{file.path}: {BITS} do not unpack to {ids.size} rows of width {width} in {dtype}",
            code="MOVED_MALFORMED",
        )
    flipped = np.frombuffer(planes, np.uint8).reshape(DTYPES[dtype].itemsize, -1).T.copy()
    rows = storage_bits(base.take(ids.tolist()))
    rows ^= flipped.view(rows.dtype).reshape(rows.shape)
    return MovedRows(base, ids, rows.view(DTYPES[dtype]))
