"""Memory-mapped input embedding tables, from any supported file or checkpoint, or as moved rows of a base.

:func:`open_table` verifies the file before it returns any row, with one code per reason to refuse. Only the
table is mapped, not the rest of a checkpoint, and at most one block at a time is copied.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certify.base.errors import InvalidInputError, UsageError
from certify.base.files import opened
from certify.base.jsonio import (
    JsonReader,
    atomic_writer,
    canonical_json,
    read_json,
    sha256_bytes,
    tensor_digest,
    tensor_state,
)
from certify.base.records import Dtype
from certify.base.text import counted
from certify.tables.checkpoint import PICKLE_SUFFIXES, locate, table_shape
from certify.tables.dtypes import DTYPES, cast, finite_mask
from certify.tables.movedrows import MovedRows, is_moved, open_moved
from certify.tables.npyfile import open_npy
from certify.tables.safefile import MappedFile, TensorInfo, is_folder, map_file, quote, refuse_pickle

BLOCK_BYTES = 8 * 1024 * 1024
"""Size of blocks when reading a whole table, in bytes."""

DEFAULT_TENSOR = "model.embed_tokens.weight"
"""Name for a table without one (``.npy``) when written; used by LLaMA, Mistral and Qwen."""

_LISTED = 10
_NONE = np.zeros(0, np.uint8)
_FLOATS = frozenset({"F64", "C64"})


@dataclass(slots=True)
class _Known:
    """What reading a table showed, by element type; shared by all views of it."""

    file: str | None = None
    digests: dict[Dtype, str] = field(default_factory=dict)
    finite: set[Dtype] = field(default_factory=set)


@dataclass(frozen=True, eq=False)
class Table:
    """An input embedding table ``[V, d]`` with V, d >= 1, in one element type.

    Files must not change while a table is open: rows come from the map, and digests are cached.

    Attributes:
        path: the file or checkpoint folder that the caller named.
        tensor: name of the tensor in its file; empty for ``.npy``.
        dtype: element type of the rows returned.
        stored_dtype: element type in the file.
        shape: ``(V, d)``.
        tied: whether the output head shares the table; None if unknown.
        files: every file that determined the table (config.json and index if any); the file with the tensor
            is last.
    """

    path: Path
    tensor: str
    dtype: Dtype
    stored_dtype: Dtype
    shape: tuple[int, int]
    tied: bool | None
    files: tuple[Path, ...]
    _stored: NDArray[Any] | MovedRows = field(repr=False)
    _around: tuple[NDArray[np.uint8], NDArray[np.uint8]] = field(default=(_NONE, _NONE), repr=False)
    _known: _Known = field(default_factory=_Known, repr=False)

    @property
    def file(self) -> Path:
        """The file with the tensor."""
        return self.files[-1]

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """Return rows ``start`` to ``stop`` (exclusive): storage ``[stop - start, d]`` in ``dtype``.

        It is a read-only view of the map if no cast is needed and the file is aligned, otherwise a copy.

        Raises:
            UsageError: not ``0 <= start <= stop <= V`` (``ROWS_OUT_OF_RANGE``).
        """
        if not 0 <= start <= stop <= self.shape[0]:
            raise UsageError(
                f"rows {start}..{stop} are not in a table of {self.shape[0]}", code="ROWS_OUT_OF_RANGE"
            )
        # An odd header length leaves a tensor unaligned in its file; compiled kernels then need a copy.
        block = np.require(self._stored[start:stop], requirements="A")
        return cast(block, self.stored_dtype, self.dtype)

    def take(self, ids: Sequence[int]) -> NDArray[Any]:
        """Copy the rows ``ids``: storage ``[k, d]`` in ``dtype``, in the given order.

        Raises:
            UsageError: an id is not an integer from 0 to V - 1 (``ROWS_OUT_OF_RANGE``).
        """
        chosen = [_checked_id(token_id, self.shape[0]) for token_id in ids]
        return cast(self._stored[np.array(chosen, dtype=np.intp)], self.stored_dtype, self.dtype)

    def blocks(self, block_bytes: int = BLOCK_BYTES) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield all rows in order as ``(first row, storage [b, d])``, at most ``block_bytes`` or one row."""
        step = max(1, block_bytes // (self.shape[1] * DTYPES[self.dtype].itemsize))
        for start in range(0, self.shape[0], step):
            yield start, self.rows(start, min(start + step, self.shape[0]))

    def digest(self) -> str:
        """Tensor digest (:func:`certify.base.jsonio.tensor_digest`) of the table in ``dtype``; computed
        once."""
        if self.dtype not in self._known.digests:
            blocks = (_memory(rows) for _, rows in self.blocks())
            self._known.digests[self.dtype] = tensor_digest(self.dtype, self.shape, blocks)
        return self._known.digests[self.dtype]

    def file_digest(self) -> str:
        """File digest of :attr:`file` as it was opened; computed once."""
        if self._known.file is None:
            state = hashlib.sha256(_memory(self._around[0]))
            state.update(_memory(self._stored[:]))
            state.update(_memory(self._around[1]))
            self._known.file = state.hexdigest()
        return self._known.file

    @property
    def known(self) -> bool:
        """Both digests were computed."""
        return self._known.file is not None and self.dtype in self._known.digests

    def as_dtype(self, dtype: Dtype) -> Table:
        """View the table in another element type, cast from the stored values with a single rounding.

        Values that overflow ``dtype`` become infinite; :func:`check_finite` detects them.
        """
        return self if dtype == self.dtype else replace(self, dtype=dtype)


class Reader:
    """Digests of a table and of its file, from its rows in order: so that one pass serves other ends, too."""

    def __init__(self, table: Table) -> None:
        """Read ``table``; what came of it the table itself knows afterwards."""
        self._table = table
        self._tensor = tensor_state(table.dtype, table.shape)
        self._file = hashlib.sha256(_memory(table._around[0]))
        self._stop = 0

    def feed(self, start: int, block: NDArray[Any]) -> None:
        """Take the next rows: ``block`` is what :meth:`Table.rows` gives from ``start`` on."""
        table, stop = self._table, start + len(block)
        if start != self._stop:
            raise ValueError(f"rows from {start} on, but {self._stop} are next")
        self._stop = stop
        self._tensor.update(_memory(block))
        if table._known.file is None:
            self._file.update(_memory(table._stored[start:stop]))
        if stop == table.shape[0]:
            self._file.update(_memory(table._around[1]))
            table._known.digests[table.dtype] = self._tensor.hexdigest()
            table._known.file = table._known.file or self._file.hexdigest()


def read_whole(table: Table) -> None:
    """Read all rows once, so that both digests are known, and :func:`check_finite` unless it must refuse."""
    reader, finite = Reader(table), True
    for start, block in table.blocks():
        reader.feed(start, block)
        finite = finite and bool(finite_mask(block, table.dtype).all())
    if finite:
        table._known.finite.add(table.dtype)


def note_finite(table: Table) -> None:
    """Whoever has seen every entry says that none is NaN or infinite."""
    table._known.finite.add(table.dtype)


def open_table(
    path: Path | str,
    *,
    tensor: str | None = None,
    allow_tied: bool = False,
    read: JsonReader = read_json,
    base: Table | None = None,
) -> Table:
    """Open the input embedding table of a ``.safetensors`` file, a checkpoint folder, or an ``.npy`` file.

    Only headers and configuration are read; of moved rows (:mod:`certify.tables.movedrows`) also these, and
    the base to compute its digest. To check the entries, see :func:`check_finite`.

    Args:
        path: the file or folder; symbolic links are followed, because the caller named it.
        tensor: name of the table; None to find it (:func:`certify.tables.checkpoint.locate`).
        allow_tied: accept a table that the output head shares.
        read: reads config.json and the index.
        base: what moved rows differ from, which also determines name and head of their table.

    Raises:
        UsageError: the path does not exist or cannot be read, the table cannot be determined without
            ``tensor``, or moved rows lack a ``base`` (``BASE_NEEDED``).
        InvalidInputError: a pickle, whatever its name (``PICKLE_REFUSED``); another format
            (``FORMAT_UNKNOWN``); tied (``TIED_HEAD``); quantised (``QUANTISED_TABLE``); an element type that
            is not F32, F16 or BF16 (``DTYPE_UNSUPPORTED``); not two-dimensional (``NOT_A_TABLE``); no rows or
            no columns (``TABLE_EMPTY``); moved rows of another base (``WRONG_BASE``) or malformed
            (``MOVED_MALFORMED``); and the errors of :mod:`certify.tables.safefile`,
            :mod:`certify.tables.npyfile` and :mod:`certify.tables.checkpoint`.
    """
    path = Path(path)
    if not is_folder(path) and path.suffix.lower() != ".safetensors":
        return _open_other(path, tensor)
    place = path if is_folder(path) else map_file(path)
    if not isinstance(place, Path) and is_moved(place):
        return _open_moved(place, base, allow_tied)
    found = locate(place, tensor, read)
    dtype = _table_dtype(found.info, found.tensor, found.file.path)
    shape = table_shape(found.info.shape, found.file.path)
    _check_tied(path, found.tied, allow_tied)
    stored, info, whole = found.file.tensor(found.tensor), found.info, found.file.bytes
    around = whole[: info.start], whole[info.stop :]
    return Table(path, found.tensor, dtype, dtype, shape, found.tied, found.files, stored, around)


def write_table(path: Path, table: Table, blocks: Iterable[memoryview] | None = None) -> None:
    """Write a table as the only tensor of a safetensors file, atomically and block by block.

    Equal content gives equal bytes. The tensor keeps its name, or gets :data:`DEFAULT_TENSOR` if it has none.

    Args:
        path: the file to write or replace.
        table: provides name, shape and dtype.
        blocks: the bytes in order, ``V * d`` elements in ``table.dtype``; None takes the table's own.

    Raises:
        UsageError: the file cannot be written.
    """
    size = table.shape[0] * table.shape[1] * DTYPES[table.dtype].itemsize
    entry = {"dtype": table.dtype, "shape": list(table.shape), "data_offsets": [0, size]}
    header = canonical_json({"__metadata__": {"format": "pt"}, table.tensor or DEFAULT_TENSOR: entry})
    header += b" " * (-len(header) % 8)  # aligns the table in the file
    with atomic_writer(path) as stream:
        stream.write(len(header).to_bytes(8, "little") + header)
        for block in (_memory(rows) for _, rows in table.blocks()) if blocks is None else blocks:
            stream.write(block)


def check_finite(table: Table) -> None:
    """Read the whole table, in its ``dtype``, and refuse NaN and infinity; only once if there are none.

    Raises:
        InvalidInputError: ``NON_FINITE``, naming the first affected rows and their number.
    """
    if table.dtype in table._known.finite:
        return
    bad: list[int] = []
    count = 0
    for start, block in table.blocks():
        rows = np.flatnonzero(~finite_mask(block, table.dtype).all(axis=1)) + start
        bad.extend(int(row) for row in rows[: _LISTED - len(bad)])
        count += rows.size
    if count:
        named = ", ".join(map(str, bad)) + (", …" if count > len(bad) else "")
        seen = "" if table.dtype == table.stored_dtype else f" in {table.dtype}"
        raise InvalidInputError(
            f"{table.path}: NaN or infinity{seen} in {counted(count, 'row')}: {named}",
            code="NON_FINITE",
        )
    table._known.finite.add(table.dtype)


def check_compatible(base: Table, reference: Table) -> None:
    """Refuse two tables that cannot be compared row by row.

    Raises:
        InvalidInputError: shapes (``SHAPE_MISMATCH``) or element types (``DTYPE_MISMATCH``) differ.
    """
    if base.shape != reference.shape:
        raise InvalidInputError(
            f"shapes differ: {base.path} is {base.shape[0]} x {base.shape[1]},"
            f" {reference.path} is {reference.shape[0]} x {reference.shape[1]}",
            code="SHAPE_MISMATCH",
        )
    if base.dtype != reference.dtype:
        raise InvalidInputError(
            f"element types differ: {base.path} is {base.dtype}, {reference.path} is {reference.dtype}:"
            " compare them in the served dtype",
            code="DTYPE_MISMATCH",
        )


def _check_tied(path: Path, tied: bool | None, allowed: bool) -> None:
    if tied and not allowed:
        raise InvalidInputError(
            f"{path}: the output head is tied to the input table, so every logit changes with it; use a"
            " copy with a head of its own (certify model untie), or --allow-tied for such a ticket",
            code="TIED_HEAD",
        )


def _open_moved(file: MappedFile, base: Table | None, allow_tied: bool) -> Table:
    moved, known = open_moved(file, base), _Known(file=sha256_bytes(file.bytes.data))
    dtype, tied = moved.base.dtype, moved.base.tied
    _check_tied(file.path, tied, allow_tied)
    files = (file.path,)
    return Table(
        file.path, moved.base.tensor, dtype, dtype, moved.base.shape, tied, files, moved, _known=known
    )


def _open_other(path: Path, tensor: str | None) -> Table:
    with opened(path) as stream:
        start = stream.read(16)
    refuse_pickle(start, path)
    suffix = path.suffix.lower()
    if suffix in PICKLE_SUFFIXES:
        raise InvalidInputError(
            f"{path}: {suffix} files are pickles, which can run code when loaded: convert to safetensors",
            code="PICKLE_REFUSED",
        )
    if suffix != ".npy":
        raise InvalidInputError(
            f"{path} is not a .safetensors file, a .npy file or a checkpoint folder", code="FORMAT_UNKNOWN"
        )
    if tensor is not None:
        raise UsageError(
            f"{path} has one array and no tensor names: leave out --tensor", code="TENSOR_MISSING"
        )
    stored, dtype, before = open_npy(path)
    shape = table_shape(stored.shape, path)
    return Table(path, "", dtype, dtype, shape, None, (path,), stored, (before, _NONE))


def _table_dtype(info: TensorInfo, tensor: str, path: Path) -> Dtype:
    for dtype in DTYPES:
        if info.dtype == dtype:
            return dtype
    code = "DTYPE_UNSUPPORTED" if info.dtype in _FLOATS else "QUANTISED_TABLE"
    raise InvalidInputError(
        f"{path}: {quote(tensor)} has dtype {info.dtype}: only F32, F16 and BF16 tables can be compared",
        code=code,
    )


def _memory(block: NDArray[Any]) -> memoryview:
    """The bytes of a block in C order."""
    return np.ascontiguousarray(block).reshape(-1).view(np.uint8).data


def _checked_id(token_id: int, rows: int) -> int:
    try:
        index = -1 if isinstance(token_id, bool) else operator.index(token_id)
    except TypeError:
        index = -1
    if not 0 <= index < rows:
        raise UsageError(f"{token_id!r} is not a row of a table of {rows}", code="ROWS_OUT_OF_RANGE")
    return index
