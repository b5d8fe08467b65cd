"""Element types against oracles that decode bit patterns by hand; every 16-bit pattern is tried."""

from __future__ import annotations

import math
from bisect import bisect_left
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import table_strategies as strategies
from hypothesis import given
from hypothesis import strategies as st

from certify.base.errors import UsageError
from certify.tables.dtypes import DTYPES, cast, finite_mask, ordered_keys, parse_dtype, to_float32

# (exponent bits, mantissa bits) of each type: all that the oracle needs to know about it.
FORMATS = {"F32": (8, 23), "F16": (5, 10), "BF16": (8, 7)}
NARROW = ("F16", "BF16")


def decode(bits: int, dtype: str) -> float:
    """Value of an IEEE pattern from its fields; exact, since every value of these types is a double."""
    exponent_bits, mantissa_bits = FORMATS[dtype]
    sign = -1.0 if bits >> (exponent_bits + mantissa_bits) else 1.0
    exponent = (bits >> mantissa_bits) & ((1 << exponent_bits) - 1)
    mantissa = bits & ((1 << mantissa_bits) - 1)
    bias = (1 << (exponent_bits - 1)) - 1
    if exponent == (1 << exponent_bits) - 1:
        return math.nan if mantissa else sign * math.inf
    if exponent == 0:
        return sign * math.ldexp(mantissa, 1 - bias - mantissa_bits)
    return sign * math.ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits)


def every_pattern(dtype: str) -> np.ndarray:
    return np.arange(1 << 16, dtype="<u2").view(DTYPES[dtype])


def values(dtype: str) -> np.ndarray:
    return np.array([decode(bits, dtype) for bits in range(1 << 16)])


# Finite magnitudes of the 16-bit types are the patterns below that of infinity, in increasing order.
MAGNITUDES = {
    dtype: [Fraction(decode(bits, dtype)) for bits in range(strategies.INFINITY[dtype])] for dtype in NARROW
}


def nearest(value: Fraction, dtype: str) -> int:
    """Pattern of ``value`` rounded to nearest, ties to even, as IEEE 754 defines it, by search."""
    ladder, infinity = MAGNITUDES[dtype], strategies.INFINITY[dtype]
    sign = 1 << 15 if value < 0 else 0
    magnitude = abs(value)
    # For rounding, infinity stands where the next finite number would be.
    beyond = ladder[-1] + (ladder[-1] - ladder[-2])
    above = bisect_left(ladder, magnitude)
    if above == 0:
        return sign
    high = ladder[above] if above < infinity else beyond
    low = ladder[above - 1]
    if magnitude - low == high - magnitude:
        chosen = above if above % 2 == 0 else above - 1
    else:
        chosen = above if high - magnitude < magnitude - low else above - 1
    return sign | min(chosen, infinity)


@pytest.mark.parametrize("dtype", NARROW)
def test_every_16_bit_pattern_widens_to_its_exact_value(dtype):
    wide = to_float32(every_pattern(dtype), dtype)
    expected = values(dtype)
    assert wide.dtype == np.float32
    np.testing.assert_array_equal(wide, expected.astype(np.float32))
    real = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(wide[real]), np.signbit(expected[real]))


@pytest.mark.parametrize("dtype", NARROW)
def test_every_16_bit_pattern_is_finite_or_not(dtype):
    np.testing.assert_array_equal(finite_mask(every_pattern(dtype), dtype), np.isfinite(values(dtype)))


@pytest.mark.parametrize("dtype", NARROW)
def test_keys_of_every_finite_16_bit_pattern_have_the_order_of_the_values(dtype):
    finite = np.isfinite(values(dtype))
    keys = ordered_keys(every_pattern(dtype)[finite], dtype)
    assert keys.dtype == np.uint16
    # Equal dense ranks say everything: same order, and equal keys exactly for equal values (-0 and +0).
    _, expected = np.unique(values(dtype)[finite], return_inverse=True)
    _, ranks = np.unique(keys, return_inverse=True)
    np.testing.assert_array_equal(ranks, expected)


@given(strategies.rows("F32"))
def test_keys_of_float32_have_the_order_of_the_values(row):
    keys = ordered_keys(row, "F32")
    assert keys.dtype == np.uint32
    exact = [Fraction(decode(int(bits), "F32")) for bits in row.view("<u4")]
    _, expected = np.unique(np.array(exact, dtype=object), return_inverse=True)
    _, ranks = np.unique(keys, return_inverse=True)
    np.testing.assert_array_equal(ranks, expected)


@given(strategies.raw_rows("F32"))
def test_finite_mask_of_float32(row):
    expected = [math.isfinite(decode(int(bits), "F32")) for bits in row.view("<u4")]
    assert finite_mask(row, "F32").tolist() == expected


@pytest.mark.parametrize("dtype", NARROW)
def test_midpoints_round_to_even_and_their_neighbours_to_the_nearer_side(dtype):
    infinity = strategies.INFINITY[dtype]
    ladder = [*map(float, MAGNITUDES[dtype]), float(2 * MAGNITUDES[dtype][-1] - MAGNITUDES[dtype][-2])]
    # Every midpoint of two neighbours, the last one being the border to infinity, is a float32.
    middles = np.array([(low + high) / 2 for low, high in pairwise(ladder)])
    middle32 = middles.astype("<f4")
    np.testing.assert_array_equal(middle32, middles)
    below = np.arange(infinity)
    even = below + below % 2
    for sign, bit in ((1, 0), (-1, 1 << 15)):
        for start, towards, expected in ((0, 0, even), (0, -np.inf, below), (0, np.inf, below + 1)):
            magnitude = middle32 if towards == start else np.nextafter(middle32, np.float32(towards))
            got = cast((sign * magnitude).astype("<f4"), "F32", dtype).view("<u2")
            np.testing.assert_array_equal(got, expected | bit)


@given(strategies.rows("F32", max_n=32), st.sampled_from(NARROW))
def test_float32_rounds_as_the_definition_says(row, dtype):
    got = cast(row, "F32", dtype)
    assert got.dtype == DTYPES[dtype]
    for source, bits in zip(row.view("<u4"), got.view("<u2"), strict=True):
        value = Fraction(decode(int(source), "F32"))
        expected = nearest(value, dtype) | (
            int(source) >> 31 << 15
        )  # -0, and what rounds to it, keeps its sign
        assert int(bits) == expected


@pytest.mark.parametrize(("source", "target"), [("F16", "BF16"), ("BF16", "F16")])
def test_every_16_bit_pattern_goes_to_the_other_type_with_one_rounding(source, target):
    got = cast(every_pattern(source), source, target).view("<u2")
    for bits, value in enumerate(values(source)):
        if math.isfinite(value):
            assert int(got[bits]) == nearest(Fraction(value), target) | (bits >> 15 << 15), hex(bits)
        else:
            back = decode(int(got[bits]), target)
            assert math.isnan(back) if math.isnan(value) else back == value


@pytest.mark.parametrize("dtype", NARROW)
def test_widening_and_rounding_back_is_the_identity(dtype):
    raw = every_pattern(dtype)
    real = ~np.isnan(values(dtype))
    back = cast(cast(raw, dtype, "F32"), "F32", dtype)
    np.testing.assert_array_equal(back.view("<u2")[real], raw.view("<u2")[real])
    assert not finite_mask(back[~real], dtype).any()


@given(strategies.raw_rows("F32"), st.sampled_from(NARROW))
def test_nan_stays_nan_and_infinity_stays_infinite(row, dtype):
    got = [decode(int(bits), dtype) for bits in cast(row, "F32", dtype).view("<u2")]
    for source, value in zip(row.view("<u4"), got, strict=True):
        original = decode(int(source), "F32")
        assert math.isnan(value) == math.isnan(original)
        if math.isinf(original):
            assert value == original


@pytest.mark.parametrize("pattern", [0x7FFF_FFFF, 0xFFFF_FFFF, 0x7F80_0001, 0xFF80_0001])
@pytest.mark.parametrize("shape", [(), (1,), (2, 2)])
def test_no_nan_payload_carries_into_infinity_or_zero_in_any_shape(pattern, shape):
    raw = np.full(shape, pattern, dtype="<u4").view("<f4")
    assert not finite_mask(cast(raw, "F32", "BF16"), "BF16").any()
    assert np.isnan(to_float32(cast(raw, "F32", "BF16"), "BF16")).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_casting_to_the_same_type_keeps_the_array(dtype):
    raw = np.zeros(3, DTYPES[dtype])
    assert cast(raw, dtype, dtype) is raw


def test_torch_rounds_alike():
    torch = pytest.importorskip("torch")
    bits = np.random.default_rng(1).integers(0, 2**32, 200_000, dtype="<u4")
    raw = bits.view("<f4")[np.isfinite(bits.view("<f4"))]
    tensor = torch.from_numpy(raw.copy())
    for dtype, kind in (("F16", torch.float16), ("BF16", torch.bfloat16)):
        theirs = tensor.to(kind).view(torch.int16).numpy().view("<u2")
        np.testing.assert_array_equal(cast(raw, "F32", dtype).view("<u2"), theirs)


@pytest.mark.parametrize(
    ("spelling", "dtype"),
    [
        ("F32", "F32"),
        ("float32", "F32"),
        ("fp32", "F32"),
        ("torch.float32", "F32"),
        ("F16", "F16"),
        ("float16", "F16"),
        ("FP16", "F16"),
        ("half", "F16"),
        ("BF16", "BF16"),
        ("bfloat16", "BF16"),
        ("torch.bfloat16", "BF16"),
    ],
)
def test_spellings(spelling, dtype):
    assert parse_dtype(spelling) == dtype


@pytest.mark.parametrize("spelling", ["", "f64", "int8", "float", "F16 ", "x" * 1000])
def test_unknown_spellings_are_refused_in_one_short_line(spelling):
    with pytest.raises(UsageError) as caught:
        parse_dtype(spelling)
    assert caught.value.code == "DTYPE_UNKNOWN"
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize(
    "function",
    [to_float32, finite_mask, ordered_keys, lambda raw, dtype: cast(raw, dtype, "F32")],
)
def test_storage_of_another_type_is_refused(function):
    with pytest.raises(UsageError, match="BF16 is stored as uint16") as caught:
        function(np.zeros(2, np.float16), "BF16")
    assert caught.value.code == "DTYPE_MISMATCH"
