"""Hypothesis strategies for rows, tables and small safetensors files, shared by all tests.

Everything is drawn as *storage* (``certify.tables.dtypes``): float32, float16, or the uint16 bit patterns of
bfloat16, little-endian. Nothing of the package is imported, so that what is drawn cannot inherit a fault of
what is judged.

============================  ==========================================================================
strategy                      what it draws
============================  ==========================================================================
:func:`dtypes`                ``"F32"``, ``"F16"`` or ``"BF16"``
:func:`rows`                  a finite row: any values, few values (ties), or edge values (±0, subnormals,
                              the largest finite numbers)
:func:`raw_rows`              any bit patterns, so also NaN with any payload and ±inf
:func:`row_pairs`             two rows of one type and length: unrelated, equal, permuted, negated, with
                              some entries changed, or drawn from the same few values
:func:`tables`                finite ``[V, d]`` storage
:func:`table_pairs`           two such tables; each row of the second relates to the first as in row_pairs
:func:`nonfinite_tables`      a table with NaN or ±inf in known rows
:func:`safetensors_files`     the bytes of a small valid safetensors file, with what it holds
:func:`mutants`               the bytes, damaged: flipped, cut, extended, spliced, header edited
============================  ==========================================================================
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

Dtype = Literal["F32", "F16", "BF16"]
Storage = NDArray[Any]

STORAGE: dict[str, str] = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
# Bit pattern of +inf: the magnitudes below it are exactly the finite ones, in order.
INFINITY: dict[str, int] = {"F32": 0x7F80_0000, "F16": 0x7C00, "BF16": 0x7F80}
# Bit pattern of the smallest normal number: the magnitudes 1 .. this - 1 are the subnormals.
SMALLEST_NORMAL: dict[str, int] = {"F32": 0x0080_0000, "F16": 0x0400, "BF16": 0x0080}


@dataclass(frozen=True)
class RowPair:
    """Two finite rows ``a`` and ``b`` (storage, same length n >= 1) of element type ``dtype``."""

    dtype: Dtype
    a: Storage
    b: Storage


@dataclass(frozen=True)
class TablePair:
    """Two finite tables (storage, ``[V, d]``) of element type ``dtype``."""

    dtype: Dtype
    base: Storage
    reference: Storage


@dataclass(frozen=True)
class SafetensorsFile:
    """The bytes of a valid file and its content: name -> (safetensors dtype, storage array)."""

    data: bytes
    tensors: dict[str, tuple[str, Storage]]


def dtypes() -> st.SearchStrategy[Dtype]:
    """One of the three element types of a table."""
    return st.sampled_from(("F32", "F16", "BF16"))


def _unsigned(dtype: str) -> np.dtype[Any]:
    return np.dtype(f"<u{np.dtype(STORAGE[dtype]).itemsize}")


def _sign_bit(dtype: str) -> int:
    return 1 << (8 * _unsigned(dtype).itemsize - 1)


def _edges(dtype: str) -> list[int]:
    infinity, normal = INFINITY[dtype], SMALLEST_NORMAL[dtype]
    magnitudes = (0, 1, 2, normal - 1, normal, normal + 1, infinity - 2, infinity - 1)
    return [sign | magnitude for magnitude in magnitudes for sign in (0, _sign_bit(dtype))]


def _finite_bits(dtype: str) -> st.SearchStrategy[int]:
    infinity, sign = INFINITY[dtype], _sign_bit(dtype)
    anywhere = st.integers(0, 2 * infinity - 1).map(lambda k: k if k < infinity else sign | (k - infinity))
    return st.one_of(anywhere, st.sampled_from(_edges(dtype)))


def _array(bits: Storage, dtype: str) -> Storage:
    return bits.view(STORAGE[dtype])


@st.composite
def _finite(draw: st.DrawFn, dtype: str, shape: tuple[int, ...]) -> Storage:
    kind = draw(st.sampled_from(("free", "ties", "edges")))
    if kind == "free":
        elements = _finite_bits(dtype)
    elif kind == "ties":
        elements = st.sampled_from(draw(st.lists(_finite_bits(dtype), min_size=1, max_size=4)))
    else:
        elements = st.sampled_from(_edges(dtype))
    return _array(draw(hnp.arrays(_unsigned(dtype), shape, elements=elements)), dtype)


@st.composite
def rows(draw: st.DrawFn, dtype: Dtype, n: int | None = None, *, max_n: int = 64) -> Storage:
    """A finite row of ``n`` entries (1 to ``max_n`` if not given); ties, ±0 and subnormals are frequent."""
    return draw(_finite(dtype, (n if n is not None else draw(st.integers(1, max_n)),)))


@st.composite
def raw_rows(draw: st.DrawFn, dtype: Dtype, n: int | None = None, *, max_n: int = 64) -> Storage:
    """A row of ``n`` arbitrary bit patterns: NaN of every payload and ±inf included."""
    size = n if n is not None else draw(st.integers(1, max_n))
    specials = st.sampled_from(
        [*_edges(dtype), INFINITY[dtype], INFINITY[dtype] + 1, 2 * _sign_bit(dtype) - 1]
    )
    elements = st.one_of(st.integers(0, 2 * _sign_bit(dtype) - 1), specials)
    return _array(draw(hnp.arrays(_unsigned(dtype), (size,), elements=elements)), dtype)


@st.composite
def _relative(draw: st.DrawFn, dtype: str, row: Storage) -> Storage:
    """A row of the length of ``row``, related to it in one of six ways."""
    bits = row.view(_unsigned(dtype))
    kind = draw(st.sampled_from(("unrelated", "equal", "permuted", "negated", "edited", "same values")))
    if kind == "unrelated":
        return draw(_finite(dtype, row.shape))
    if kind == "equal":
        return row.copy()
    if kind == "permuted":
        return row[np.array(draw(st.permutations(range(row.size))), dtype=np.intp)]
    if kind == "negated":
        return _array(bits ^ bits.dtype.type(_sign_bit(dtype)), dtype)
    if kind == "same values":
        elements = st.sampled_from([int(value) for value in bits])
        return _array(draw(hnp.arrays(bits.dtype, bits.shape, elements=elements)), dtype)
    edited = bits.copy()
    for index in draw(st.lists(st.integers(0, row.size - 1), min_size=1, max_size=3)):
        edited[index] = draw(_finite_bits(dtype))
    return _array(edited, dtype)


@st.composite
def row_pairs(
    draw: st.DrawFn, dtype: Dtype | None = None, *, n: int | None = None, max_n: int = 64
) -> RowPair:
    """Two finite rows of one type and one length; see the table above for how they relate."""
    chosen = dtype if dtype is not None else draw(dtypes())
    a = draw(rows(chosen, n, max_n=max_n))
    return RowPair(chosen, a, draw(_relative(chosen, a)))


@st.composite
def tables(
    draw: st.DrawFn, dtype: Dtype, *, min_rows: int = 1, max_rows: int = 12, max_width: int = 24
) -> Storage:
    """A finite table ``[V, d]`` with ``min_rows <= V <= max_rows`` and ``1 <= d <= max_width``."""
    shape = (draw(st.integers(min_rows, max_rows)), draw(st.integers(1, max_width)))
    return draw(_finite(dtype, shape))


@st.composite
def table_pairs(
    draw: st.DrawFn,
    dtype: Dtype | None = None,
    *,
    min_rows: int = 1,
    max_rows: int = 12,
    max_width: int = 24,
) -> TablePair:
    """Two finite tables of one type and shape; row i of the second relates to row i of the first."""
    chosen = dtype if dtype is not None else draw(dtypes())
    base = draw(tables(chosen, min_rows=min_rows, max_rows=max_rows, max_width=max_width))
    reference = np.stack([draw(_relative(chosen, row)) for row in base])
    return TablePair(chosen, base, reference)


@st.composite
def nonfinite_tables(draw: st.DrawFn, dtype: Dtype) -> tuple[Storage, tuple[int, ...]]:
    """A table with NaN or ±inf planted, and the indices of the rows that hold one, increasing."""
    table = draw(tables(dtype, max_rows=20)).copy()
    bits = table.view(_unsigned(dtype))
    bad = sorted(draw(st.sets(st.integers(0, len(table) - 1), min_size=1)))
    for row in bad:
        magnitude = draw(st.integers(INFINITY[dtype], _sign_bit(dtype) - 1))
        bits[row, draw(st.integers(0, table.shape[1] - 1))] = magnitude | draw(
            st.sampled_from((0, _sign_bit(dtype)))
        )
    return table, tuple(bad)


@st.composite
def safetensors_files(draw: st.DrawFn, *, table: str = "model.embed_tokens.weight") -> SafetensorsFile:
    """A small valid file: ``table`` is a finite ``[V, d]`` tensor, other tensors may surround it."""
    tensors: dict[str, tuple[str, Storage]] = {}
    dtype = draw(dtypes())
    tensors[table] = (dtype, draw(tables(dtype, max_rows=5, max_width=5)))
    for name in draw(st.lists(st.sampled_from(("a", "lm_head.weight", "norm", "é")), unique=True)):
        other = draw(dtypes())
        tensors[name] = (other, draw(_finite(other, (draw(st.integers(0, 3)),))))
    order = draw(st.permutations(sorted(tensors)))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}} if draw(st.booleans()) else {}
    blob, body = b"", []
    for name in order:
        kind, values = tensors[name]
        raw = values.tobytes()
        header[name] = {
            "dtype": kind,
            "shape": list(values.shape),
            "data_offsets": [len(blob), len(blob) + len(raw)],
        }
        blob += raw
        body.append(raw)
    text = json.dumps(header, ensure_ascii=draw(st.booleans())).encode()
    text += b" " * (-len(text) % 8 if draw(st.booleans()) else draw(st.integers(0, 9)))
    return SafetensorsFile(struct.pack("<Q", len(text)) + text + b"".join(body), tensors)


_NUMBERS = (b"0", b"1", b"7", b"-1", b"1e9", b"99999999999999999999", b"NaN", b"[0,0]", b"[2,3]", b"[]")
_WORDS = (b'"F32"', b'"F16"', b'"BF16"', b'"I8"', b'"U8"', b'""', b"{}", b"null", b"true")
_TOKENS = (*_NUMBERS, *_WORDS, *(bytes([byte]) for byte in b',:[]{}" \\\t'))


@st.composite
def mutants(draw: st.DrawFn, data: bytes) -> bytes:
    """``data`` after one to three edits; may by chance equal ``data`` or be another valid file.

    Edits: a bit flipped, a byte set, the end cut, bytes appended, a slice removed or repeated, a JSON token
    written over a place, and, where the first eight bytes count a header, another count.
    """
    damaged = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        if not damaged:
            break
        at = draw(st.integers(0, len(damaged) - 1))
        edit = draw(st.sampled_from(("flip", "set", "cut", "append", "remove", "repeat", "token", "count")))
        if edit == "flip":
            damaged[at] ^= 1 << draw(st.integers(0, 7))
        elif edit == "set":
            damaged[at] = draw(st.integers(0, 255))
        elif edit == "cut":
            del damaged[at:]
        elif edit == "append":
            damaged += draw(st.binary(min_size=1, max_size=16))
        elif edit == "remove":
            del damaged[at : at + draw(st.integers(1, 8))]
        elif edit == "repeat":
            damaged[at:at] = damaged[at : at + draw(st.integers(1, 32))]
        elif edit == "token":
            token = draw(st.sampled_from(_TOKENS))
            damaged[at : at + draw(st.integers(0, len(token)))] = token
        elif len(damaged) >= 8:
            count = draw(st.one_of(st.integers(0, 2 * len(damaged)), st.integers(0, 2**64 - 1)))
            damaged[:8] = struct.pack("<Q", count)
    return bytes(damaged)
