"""Read two-dimensional ``.npy`` tables as hostile input: strict parser, no pickle, no evaluation."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certify.base.errors import InvalidInputError
from certify.base.files import opened
from certify.base.records import Dtype
from certify.tables.dtypes import DTYPES
from certify.tables.safefile import MAX_EXTENT, refuse_pickle

MAGIC = b"\x93NUMPY"
_MAX_HEADER_BYTES = 4096
_DTYPES: dict[str, Dtype] = {"<f4": "F32", "<f2": "F16"}
# The header is a Python literal whose three keys NumPy writes in this order; it is matched, not evaluated.
_HEADER = re.compile(
    rb"\{\s*'descr':\s*(?P<descr>'[^'\\]*'|\[.*\]),\s*'fortran_order':\s*(?P<fortran>True|False),"
    rb"\s*'shape':\s*\((?P<shape>[0-9, ]*)\),?\s*\}\s*",
    re.DOTALL,
)


def open_npy(path: Path) -> tuple[NDArray[Any], Dtype, NDArray[np.uint8]]:
    """Map the ``[V, d]`` storage of an ``.npy`` file read-only, with its element type and the bytes before.

    Raises:
        UsageError: the file cannot be read (``FILE_UNREADABLE``).
        InvalidInputError: an array of Python objects or another pickle (``PICKLE_REFUSED``); not ``.npy``, or
            a header that NumPy would not write (``NPY_MALFORMED``); an element type other than little-endian
            float32 and float16 (``DTYPE_UNSUPPORTED``); Fortran order (``FORTRAN_ORDER``); not
            two-dimensional (``NOT_A_TABLE``); fewer bytes than the shape needs (``NPY_TRUNCATED``), or more
            (``NPY_MALFORMED``).
    """
    with opened(path) as stream:
        start = stream.read(16)
        refuse_pickle(start, path)
        if not start.startswith(MAGIC) or start[6:8] not in {b"\x01\x00", b"\x02\x00", b"\x03\x00"}:
            raise InvalidInputError(f"{path} is not an .npy file", code="NPY_MALFORMED")
        width = 2 if start[6] == 1 else 4
        length = int.from_bytes(start[8 : 8 + width], "little")
        if length > _MAX_HEADER_BYTES:
            raise InvalidInputError(f"{path}: the header claims {length} bytes", code="NPY_MALFORMED")
        stream.seek(8 + width)
        dtype, shape = _header(stream.read(length), path)
        origin = 8 + width + length
        size = os.fstat(stream.fileno()).st_size
        needed = origin + shape[0] * shape[1] * DTYPES[dtype].itemsize
        if size < needed:
            raise InvalidInputError(f"{path} is truncated: {size} bytes of {needed}", code="NPY_TRUNCATED")
        if size > needed:
            raise InvalidInputError(f"{path} has {size - needed} bytes too many", code="NPY_MALFORMED")
        mapped = np.memmap(stream, np.uint8, mode="r", shape=(size,)).view(np.ndarray)
    return mapped[origin:].view(DTYPES[dtype]).reshape(shape), dtype, mapped[:origin]


def _header(text: bytes, path: Path) -> tuple[Dtype, tuple[int, int]]:
    match = _HEADER.fullmatch(text)
    if match is None:
        raise InvalidInputError(f"{path} has no valid .npy header", code="NPY_MALFORMED")
    descr = match["descr"].strip(b"'").decode("ascii", "replace")
    if "O" in descr:
        raise InvalidInputError(f"{path} contains pickled Python objects", code="PICKLE_REFUSED")
    if descr not in _DTYPES:
        raise InvalidInputError(
            f"{path} has an element type other than little-endian float32 or float16",
            code="DTYPE_UNSUPPORTED",
        )
    if match["fortran"] == b"True":
        raise InvalidInputError(f"{path} is in Fortran order: save it again in C order", code="FORTRAN_ORDER")
    extents = [part.strip() for part in match["shape"].removesuffix(b",").split(b",")]
    if len(extents) != 2:
        raise InvalidInputError(f"{path} is not a two-dimensional table", code="NOT_A_TABLE")
    if not all(part.isdigit() and len(part) < 19 for part in extents):
        raise InvalidInputError(f"{path} has no valid shape", code="NPY_MALFORMED")
    rows, columns = (int(part) for part in extents)
    if max(rows, columns) > MAX_EXTENT:
        raise InvalidInputError(f"{path} has no valid shape", code="NPY_MALFORMED")
    return _DTYPES[descr], (rows, columns)
