"""Element types of embedding tables: storage, exact widening, one correct rounding, order.

Tables are kept as *storage* arrays, little-endian on every host: ``F32`` and ``F16`` as IEEE floats,
``BF16`` as 16-bit patterns in ``uint16``, because NumPy has no bfloat16. All functions work elementwise on
storage arrays of any shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certify.base.errors import UsageError
from certify.base.records import Dtype

DTYPES: Mapping[Dtype, np.dtype[Any]] = MappingProxyType(
    {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
)
"""Storage type of each element type."""

_SPELLINGS: Mapping[str, Dtype] = MappingProxyType(
    {
        "f32": "F32",
        "float32": "F32",
        "fp32": "F32",
        "f16": "F16",
        "float16": "F16",
        "fp16": "F16",
        "half": "F16",
        "bf16": "BF16",
        "bfloat16": "BF16",
    }
)
# Bits of the exponent field; if all are set, the value is infinity or NaN.
_EXPONENT: Mapping[Dtype, int] = MappingProxyType({"F32": 0x7F80_0000, "F16": 0x7C00, "BF16": 0x7F80})


def parse_dtype(name: str) -> Dtype:
    """Parse the name of an element type as in safetensors, PyTorch or NumPy, in upper or lower case.

    Raises:
        UsageError: ``name`` is not F32, F16 or BF16 (``DTYPE_UNKNOWN``).
    """
    try:
        return _SPELLINGS[name.lower().removeprefix("torch.")]
    except KeyError:
        raise UsageError(
            f"unknown dtype {name[:40]!r}: choose F32, F16 or BF16", code="DTYPE_UNKNOWN"
        ) from None


def to_float32(raw: NDArray[Any], dtype: Dtype) -> NDArray[np.float32]:
    """Convert the storage array ``raw`` to float32, exactly: every F16 and BF16 value is a float32.

    The result may share memory with ``raw`` if ``dtype`` is F32.
    """
    _check_storage(raw, dtype)
    if dtype == "BF16":
        return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)
    # Widening a signalling NaN raises the "invalid" flag; it stays NaN, which finite_mask finds.
    with np.errstate(invalid="ignore"):
        return raw.astype(np.float32, copy=False)


def cast(raw: NDArray[Any], source: Dtype, target: Dtype) -> NDArray[Any]:
    """Convert ``raw`` from type ``source`` to type ``target``, rounded once: to nearest, ties to even.

    As in IEEE 754, values too large for ``target`` become infinite and NaN stays NaN. The caller must check
    finiteness afterwards. The result is ``raw`` itself if the types are equal.
    """
    _check_storage(raw, source)
    if source == target:
        return raw
    # F16 <-> BF16 goes through float32. The first step is exact, so there is only one rounding.
    wide = to_float32(raw, source)
    if target == "F32":
        return wide.astype(DTYPES["F32"], copy=False)
    if target == "F16":
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            return wide.astype(DTYPES["F16"])
    return _round_to_bf16(wide)


def storage_bits(raw: NDArray[Any]) -> NDArray[Any]:
    """The bit patterns of a storage array (shape kept, no copy): NaN equals itself, -0 is not +0."""
    return raw.view(np.dtype(f"<u{raw.dtype.itemsize}"))


def finite_mask(raw: NDArray[Any], dtype: Dtype) -> NDArray[np.bool_]:
    """Mark the entries of the storage array ``raw`` that are neither NaN nor infinite; same shape."""
    exponent = _EXPONENT[dtype]
    bits = _bits(raw, dtype)
    mask: NDArray[np.bool_] = (bits & bits.dtype.type(exponent)) != exponent
    return mask


def ordered_keys(raw: NDArray[Any], dtype: Dtype) -> NDArray[Any]:
    """Map ``raw`` to unsigned integers in the same order: ``a < b`` exactly if ``key(a) < key(b)``.

    The key is the middle of the range plus or minus the magnitude's bit pattern. Hence -0 and +0 have the
    same key, as the empirical distribution function requires (theory §2).

    Args:
        raw: storage array of finite entries; for others the order is undefined.
        dtype: its element type.

    Returns:
        ``uint32`` keys for F32, ``uint16`` keys for F16 and BF16; same shape as ``raw``.
    """
    bits = _bits(raw, dtype)
    unsigned = bits.dtype.type
    sign = 8 * bits.dtype.itemsize - 1
    middle = unsigned(1 << sign)
    # All ones if the sign is set; xor and minus then negate in two's complement. Choosing between two arrays
    # by a mask takes ten times as long, and this is the inner loop of the numpy scan.
    negative = unsigned(0) - (bits >> unsigned(sign))
    magnitude = bits & (middle - unsigned(1))
    keys: NDArray[Any] = ((magnitude ^ negative) - negative) + middle
    return keys


def _bits(raw: NDArray[Any], dtype: Dtype) -> NDArray[Any]:
    _check_storage(raw, dtype)
    return storage_bits(raw)


def _check_storage(raw: NDArray[Any], dtype: Dtype) -> None:
    # uint16 patterns read as another type would give plausible numbers, so a wrong pairing is refused.
    if raw.dtype != DTYPES[dtype]:
        raise UsageError(f"{dtype} is stored as {DTYPES[dtype]}, not as {raw.dtype}", code="DTYPE_MISMATCH")


def _round_to_bf16(wide: NDArray[np.float32]) -> NDArray[np.uint16]:
    bits = wide.view(np.uint32)
    # Adding half a unit of the last kept bit, less one when that bit is even, rounds ties to even; the carry
    # runs into the exponent as it should, up to infinity. In place: temporary arrays cost more than the sums.
    with np.errstate(over="ignore"):
        rounded = bits >> np.uint32(16)
        rounded &= np.uint32(1)
        rounded += np.uint32(0x7FFF)
        rounded += bits
        rounded >>= np.uint32(16)
    narrow: NDArray[np.uint16] = rounded.astype(DTYPES["BF16"])
    nan = np.isnan(wide)
    if not nan.any():
        return narrow
    # The carry could turn a NaN into infinity or zero, so NaNs are quieted instead of rounded.
    quiet = (bits >> np.uint32(16)) | np.uint32(0x0040)
    return np.where(nan, quiet.astype(DTYPES["BF16"]), narrow)
