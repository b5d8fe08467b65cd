"""Token counts over text, for rule ``frequency:k`` and frequency-matched null tickets."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certify.base.errors import InvalidInputError
from certify.base.files import check_output
from certify.base.jsonio import atomic_writer, read_bytes

_MAX_BYTES = 1 << 30

# Magic and version -> size of the field with the length of the header.
_LENGTH_BYTES = {b"\x93NUMPY\x01\x00": 2, b"\x93NUMPY\x02\x00": 4, b"\x93NUMPY\x03\x00": 4}

# The header is a Python literal that NumPy writes in this form; it is matched, not evaluated.
_HEADER = re.compile(
    rb"\{'descr': '(?P<descr>[<>|][iu][1248])', 'fortran_order': (?:True|False),"
    rb" 'shape': \((?P<rows>[0-9]{1,9}),\), \} *\n"
)


def read_counts(path: Path, rows: int | None = None) -> NDArray[np.int64]:
    """Read token counts from a ``.npy`` file of integers ``[V]``.

    Args:
        path: the file; never unpickled.
        rows: number of rows V of the table; None takes as many as there are.

    Raises:
        UsageError: the file cannot be read.
        InvalidInputError: it is not a ``.npy`` file of ``rows`` non-negative integers.
    """
    data = read_bytes(path, what="token counts", limit=_MAX_BYTES)
    width = _LENGTH_BYTES.get(data[:8], 0)
    origin = 8 + width + int.from_bytes(data[8 : 8 + width], "little")
    header = _HEADER.fullmatch(data, 8 + width, origin) if width else None
    if header is None:
        raise InvalidInputError(f"{path} is not a .npy file of integers", code="COUNTS_MALFORMED")
    # The header is verified before anything is allocated from it.
    dtype = np.dtype(header["descr"].decode("ascii"))
    rows = int(header["rows"]) if rows is None else rows
    if int(header["rows"]) != rows or len(data) - origin != rows * dtype.itemsize:
        raise InvalidInputError(
            f"{path}: expected {rows} integers, one per row of the table", code="COUNTS_MALFORMED"
        )
    counts = np.frombuffer(data, dtype, count=rows, offset=origin)
    if counts.size and (int(counts.min()) < 0 or int(counts.max()) >= 1 << 62):
        raise InvalidInputError(
            f"{path} has a count that is negative or far too large", code="COUNTS_MALFORMED"
        )
    return counts.astype(np.int64)


def write_counts(path: Path, counts: NDArray[np.int64]) -> None:
    """Write token counts ``[V]`` as ``.npy``, atomically."""
    check_output(path)
    with atomic_writer(path) as stream:
        np.lib.format.write_array(stream, np.ascontiguousarray(counts, np.int64), allow_pickle=False)


def count_tokens(tokenizer: Any, lines: Iterable[str], rows: int) -> NDArray[np.int64]:
    """Count how often each token id occurs in ``lines``, tokenised in context, without special tokens.

    Args:
        tokenizer: a tokenizer of ``transformers``.
        lines: sentences.
        rows: number of rows V of the table.

    Returns:
        Counts ``[V]``.

    Raises:
        InvalidInputError: the tokenizer produces an id outside the table (``TOKENIZER_TABLE_SIZE``).
    """
    counts = np.zeros(rows, np.int64)
    remaining = iter(lines)
    while batch := list(islice(remaining, 1024)):
        encoded = tokenizer(batch, add_special_tokens=False, verbose=False)["input_ids"]
        ids = np.fromiter((i for line in encoded for i in line), np.int64)
        if ids.size and int(ids.max()) >= rows:
            raise InvalidInputError(
                f"the tokenizer produces id {int(ids.max())}, but the table has {rows} rows",
                code="TOKENIZER_TABLE_SIZE",
            )
        counts += np.bincount(ids, minlength=rows)
    return counts
