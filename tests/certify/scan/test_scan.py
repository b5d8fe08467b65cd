"""The scan: both engines against exact oracles, scipy and each other; blocks, threads, errors, memory."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import oracles_ks as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from profiles import examples
from scipy.stats import ks_2samp
from table_strategies import (
    RowPair,
    TablePair,
    nonfinite_tables,
    row_pairs,
    table_pairs,
    tables,
)

from certify.base.errors import InvalidInputError, UsageError
from certify.base.records import Dtype, KSResult
from certify.scan import engine_numpy
from certify.scan import scan as ks
from certify.scan.columns import LANES, Columns
from certify.scan.scan import scan
from certify.scan.smirnov import p_values
from certify.tables.dtypes import DTYPES, cast, to_float32
from certify.tables.safefile import write_tensors
from certify.tables.table import Table, open_table

needs_numba = pytest.mark.skipif(
    find_spec("numba") is None, reason="the extra 'fast' (numba) is not installed"
)
ENGINES = [pytest.param("numba", marks=needs_numba), "numpy"]
ALL_DTYPES = ("F32", "F16", "BF16")
COLUMNS = ("h", "p", "log10_p", "equal", "permuted", "ties", "shift_norm", "cosine", "max_abs")

Rows = NDArray[Any]


def compare(engine: str, x: Rows, y: Rows, dtype: Dtype) -> Columns:
    """Run an engine on storage arrays ``[rows, n]``."""
    out = Columns.zeros(len(x))
    if engine == "numpy":
        engine_numpy.compare(x, y, dtype, out)
    else:
        from certify.scan import engine_numba

        engine_numba.compare(x, y, dtype, out)
    return out


def one(engine: str, x: Rows, y: Rows, dtype: Dtype) -> Columns:
    return compare(engine, x[np.newaxis], y[np.newaxis], dtype)


def normal(seed: int, shape: tuple[int, ...], dtype: Dtype, scale: float = 0.02) -> Rows:
    values = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32) * np.float32(scale)
    return cast(values, "F32", dtype)


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Table]:
    """Write storage to a file and open it as a table."""
    count = iter(range(1000))

    def make(storage: Rows, dtype: Dtype) -> Table:
        path = tmp_path / f"t{next(count)}.safetensors"
        write_tensors(path, {"model.embed_tokens.weight": (dtype, storage)}, None)
        return open_table(path)

    return make


# --- against the oracles -------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@given(pair=row_pairs())
@settings(deadline=None)
def test_counts_flags_and_ties_are_exact(engine: str, pair: RowPair) -> None:
    found = one(engine, pair.a, pair.b, pair.dtype)
    x, y = oracle.values(pair.a.tobytes(), pair.dtype), oracle.values(pair.b.tobytes(), pair.dtype)
    assert found.h[0] == oracle.distance(x, y)
    assert found.ties[0] == oracle.has_ties(x, y)
    assert found.equal[0] == (pair.a.tobytes() == pair.b.tobytes())
    assert found.finite[0]
    assert (found.h[0] == 0) == oracle.same_multiset(x, y)


def _cases() -> Iterator[tuple[Dtype, Rows, Rows]]:
    """Small seeded pairs, half of them full of ties, in every type."""
    generator = np.random.default_rng(7)
    for dtype in ALL_DTYPES:
        for n in (1, 2, 5, 11, 24):
            for pool in (3, 1000):
                values = cast(generator.standard_normal(pool).astype(np.float32), "F32", dtype)
                yield dtype, generator.choice(values, n), generator.choice(values, n)


def _agrees_on_all_cases(distance: Callable[[Dtype, Rows, Rows], int]) -> bool:
    return all(
        distance(dtype, x, y)
        == oracle.distance(oracle.values(x.tobytes(), dtype), oracle.values(y.tobytes(), dtype))
        for dtype, x, y in _cases()
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_the_judge_accepts_the_engines(engine: str) -> None:
    assert _agrees_on_all_cases(lambda dtype, x, y: int(one(engine, x, y, dtype).h[0]))


@pytest.mark.parametrize("fault", oracle.FAULTS)
def test_the_judge_catches_planted_faults(fault: str) -> None:
    wrong = oracle.FAULTS[fault]
    assert not _agrees_on_all_cases(
        lambda dtype, x, y: wrong(oracle.values(x.tobytes(), dtype), oracle.values(y.tobytes(), dtype))
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_the_judge_catches_rows_read_in_another_type(engine: str) -> None:
    def misread(dtype: Dtype, x: Rows, y: Rows) -> int:
        if dtype == "F32":
            return int(one(engine, x, y, dtype).h[0])
        # Patterns compared as unsigned numbers put all negatives above all positives.
        a, b = (bits.view(np.uint16).astype(np.float32) for bits in (x, y))
        return int(one(engine, a, b, "F32").h[0])

    assert not _agrees_on_all_cases(misread)


@pytest.mark.parametrize("dtype", ALL_DTYPES)
@pytest.mark.parametrize("engine", ENGINES)
def test_scipy_agrees_on_wide_rows(engine: str, dtype: Dtype) -> None:
    x, y = normal(1, (12, 1500), dtype), normal(2, (12, 1500), dtype)
    y[3] = cast(to_float32(x[3], dtype) + np.float32(0.004), "F32", dtype)
    y[4] = -x[4] if dtype != "BF16" else x[4] ^ np.uint16(0x8000)
    found = compare(engine, x, y, dtype)
    p, _ = p_values(1500)
    for i in range(12):
        expected = ks_2samp(to_float32(x[i], dtype), to_float32(y[i], dtype), method="exact")
        assert found.h[i] == round(expected.statistic * 1500)
        assert p[found.h[i]] == pytest.approx(expected.pvalue, rel=1e-9)


@pytest.mark.parametrize("dtype", ALL_DTYPES)
@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 130, 1000])
def test_sums_against_exact_rationals(n: int, dtype: Dtype) -> None:
    x, y = normal(3, (n,), dtype), normal(4, (n,), dtype)
    found = one("numpy", x, y, dtype)
    a, b = oracle.values(x.tobytes(), dtype), oracle.values(y.tobytes(), dtype)
    shift2 = sum((v - u) ** 2 for u, v in zip(a, b, strict=True))
    product = sum(u * v for u, v in zip(a, b, strict=True))
    norms = math.sqrt(sum(u * u for u in a)) * math.sqrt(sum(v * v for v in b))
    assert found.shift_norm()[0] == pytest.approx(math.sqrt(shift2), rel=1e-13)
    assert found.cosine()[0] == pytest.approx(float(product) / norms, rel=1e-12, abs=1e-13)
    assert Fraction(found.max_abs[0]) == max(abs(v - u) for u, v in zip(a, b, strict=True))


# --- laws ----------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@given(pair=row_pairs(), data=st.data())
@settings(deadline=None, max_examples=examples(50))
def test_symmetry_and_order_do_not_matter(engine: str, pair: RowPair, data: st.DataObject) -> None:
    h = one(engine, pair.a, pair.b, pair.dtype).h[0]
    order = np.array(data.draw(st.permutations(range(pair.a.size))), dtype=np.intp)
    assert one(engine, pair.b, pair.a, pair.dtype).h[0] == h
    assert one(engine, pair.a[order], pair.b, pair.dtype).h[0] == h


@pytest.mark.parametrize("engine", ENGINES)
@given(pair=row_pairs())
@settings(deadline=None, max_examples=examples(50))
def test_strictly_monotone_maps_do_not_matter(engine: str, pair: RowPair) -> None:
    h = one(engine, pair.a, pair.b, pair.dtype).h[0]
    values = np.concatenate([to_float32(pair.a, pair.dtype), to_float32(pair.b, pair.dtype)])
    ranks = np.unique(values, return_inverse=True)[1].astype(np.float32)
    for image, kept in ((ranks - 20, h), (ranks**3, h), (-ranks, h)):
        a, b = np.split(image.astype(np.float32), 2)
        assert one(engine, a, b, "F32").h[0] == kept


@pytest.mark.parametrize("engine", ENGINES)
@given(pair=row_pairs())
@settings(deadline=None, max_examples=examples(50))
def test_range_of_h_and_of_the_cosine(engine: str, pair: RowPair) -> None:
    found = one(engine, pair.a, pair.b, pair.dtype)
    assert 0 <= found.h[0] <= pair.a.size
    assert -1.0 <= found.cosine()[0] <= 1.0
    assert found.shift_norm()[0] >= found.max_abs[0] * (1 - 1e-12) >= 0


@needs_numba
@given(pair=table_pairs(max_width=80))
@settings(deadline=None)
def test_engines_agree_bit_for_bit(pair: TablePair) -> None:
    for left, right in zip(
        compare("numba", pair.base, pair.reference, pair.dtype),
        compare("numpy", pair.base, pair.reference, pair.dtype),
        strict=True,
    ):
        assert left.tobytes() == right.tobytes()


@needs_numba
@pytest.mark.parametrize("dtype", ALL_DTYPES)
@pytest.mark.parametrize("n", [1, 63, 65, 500, 4096])
def test_engines_agree_on_wide_tables(n: int, dtype: Dtype) -> None:
    x = normal(5, (40, n), dtype)
    y = np.concatenate([normal(6, (20, n), dtype), x[20:30], normal(7, (10, n), dtype, scale=1.0)])
    y[25:30] = y[25:30, ::-1]
    y[38] = y[38, 0]  # constant rows: everything in one bucket
    x[38:] = x[38, 0]
    for left, right in zip(compare("numba", x, y, dtype), compare("numpy", x, y, dtype), strict=True):
        assert left.tobytes() == right.tobytes()


@needs_numba
@given(pair=row_pairs(), data=st.data())
@settings(deadline=None, max_examples=examples(60))
def test_buckets_decide_speed_never_results(pair: RowPair, data: st.DataObject) -> None:
    from certify.scan.engine_numba import compare as compare_in
    from certify.scan.engine_numba import fit_buckets

    sample = data.draw(st.one_of(st.just(()), tables(pair.dtype).map(lambda rows: (rows,))))
    buckets = fit_buckets(sample, pair.dtype, data.draw(st.sampled_from([1, 100, 5000])))
    out = Columns.zeros(1)
    compare_in(pair.a[np.newaxis], pair.b[np.newaxis], pair.dtype, out, buckets)
    for left, right in zip(out, one("numpy", pair.a, pair.b, pair.dtype), strict=True):
        assert left.tobytes() == right.tobytes()


@needs_numba
@pytest.mark.parametrize("dtype", ALL_DTYPES)
def test_buckets_are_a_partition_in_order(dtype: Dtype) -> None:
    from certify.scan.engine_numba import fit_buckets

    buckets = fit_buckets((normal(1, (8, 512), dtype),), dtype, 512)
    assert np.all(np.diff(buckets.of.astype(int)) >= 0)
    assert buckets.first[0] == 0
    assert buckets.last[-1] == (2**32 - 1 if dtype == "F32" else 2**16 - 1)
    assert np.array_equal(buckets.first[1:].astype(int), buckets.last[:-1].astype(int) + 1)
    for keys in (buckets.first, buckets.last):
        assert np.array_equal(buckets.of[keys >> np.uint32(buckets.low_bits)], np.arange(len(keys)))
    assert buckets.of[-1] == len(buckets.capacity) - 1
    assert 100 < len(buckets.capacity) <= 4096


# --- special rows --------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ALL_DTYPES)
@pytest.mark.parametrize("engine", ENGINES)
def test_what_ks_is_blind_to_is_flagged(engine: str, dtype: Dtype, table: Callable[..., Table]) -> None:
    x = normal(8, (5, 100), dtype)
    x[4, :7] = 0
    y = x.copy()
    y[1] = x[1, ::-1]
    y[2, 0] = x[2, 1]
    y[3] = -x[3] if dtype != "BF16" else x[3] ^ np.uint16(0x8000)
    y[4, :7] = cast(np.float32([-0.0]), "F32", dtype)
    found = scan(table(x, dtype), table(y, dtype), engine=engine, workers=1)
    assert found.equal.tolist() == [True, False, False, False, False]
    assert found.permuted.tolist() == [False, True, False, False, False]
    assert found.h[:2].tolist() == [0, 0]
    assert found.h[2] == 1
    assert found.p[:2].tolist() == [1.0, 1.0]
    assert found.cosine[3] == pytest.approx(-1, abs=1e-12)
    # Only signs of zeros changed: other bits, the same values in the same places.
    assert (found.h[4], found.max_abs[4], found.shift_norm[4]) == (0, 0.0, 0.0)
    assert found.ties[[0, 1, 4]].all()


@pytest.mark.parametrize("engine", ENGINES)
def test_cosine_of_zero_rows(engine: str) -> None:
    zero, unit = np.zeros((1, 3), np.float32), np.ones((1, 3), np.float32)
    minus = -zero
    assert compare(engine, zero, zero, "F32").cosine().tolist() == [1.0]
    assert compare(engine, zero, minus, "F32").cosine().tolist() == [1.0]
    assert compare(engine, zero, unit, "F32").cosine().tolist() == [0.0]
    assert compare(engine, unit, 3 * unit, "F32").cosine().tolist() == [1.0]


@pytest.mark.parametrize("engine", ENGINES)
def test_extreme_values_neither_overflow_nor_vanish(engine: str) -> None:
    x = np.array([[np.finfo(np.float32).max, 0], [1e-45, 0]], np.float32)
    y = np.array([[np.finfo(np.float32).min, 0], [-1e-45, 0]], np.float32)
    found = compare(engine, x, y, "F32")
    assert found.h.tolist() == [1, 1]
    assert np.isfinite(found.shift_norm()).all()
    assert found.shift_norm()[1] > 0
    assert found.cosine().tolist() == [-1.0, -1.0]


# --- the shell -----------------------------------------------------------------------


def _same(a: KSResult, b: KSResult) -> bool:
    return all(getattr(a, name).tobytes() == getattr(b, name).tobytes() for name in COLUMNS)


@pytest.mark.parametrize("engine", ENGINES)
def test_blocks_and_threads_do_not_matter(
    engine: str, table: Callable[..., Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = normal(9, (37, 70), "F16")
    y = np.where(np.arange(37)[:, np.newaxis] % 3, normal(10, (37, 70), "F16"), x)
    base, reference = table(x, "F16"), table(y, "F16")
    whole = scan(base, reference, engine=engine, workers=1)
    for budget, workers in ((1, 1), (60_000, 2), (200_000, 3)):
        monkeypatch.setattr(ks, "BUDGET", budget)
        assert _same(whole, scan(base, reference, engine=engine, workers=workers))
    assert whole.engine == engine
    assert whole.n == 70


@pytest.mark.parametrize("engine", ENGINES)
def test_casts_are_scanned_in_the_served_type(engine: str, table: Callable[..., Table]) -> None:
    x, y = normal(11, (6, 200), "F32"), normal(12, (6, 200), "F32")
    y[0] = np.nextafter(x[0], np.float32(1))  # moves in F32, not in BF16
    served = scan(table(x, "F32").as_dtype("BF16"), table(y, "F32").as_dtype("BF16"), engine=engine)
    stored = scan(table(cast(x, "F32", "BF16"), "BF16"), table(cast(y, "F32", "BF16"), "BF16"), engine=engine)
    assert _same(served, stored)
    assert served.dtype == "BF16"
    assert served.equal.tolist() == [True] + 5 * [False]


def test_p_values_follow_the_method(table: Callable[..., Table]) -> None:
    base, reference = table(normal(1, (9, 64), "F32"), "F32"), table(normal(2, (9, 64), "F32", 0.03), "F32")
    for method in ("exact", "asymptotic"):
        found = scan(base, reference, method=method)
        p, log10_p = p_values(64, method)
        assert found.method == method
        assert np.array_equal(found.p, p[found.h])
        assert np.array_equal(found.log10_p, log10_p[found.h])
    with pytest.raises(UsageError, match="unknown method"):
        scan(base, reference, method="approximate")  # type: ignore[arg-type]


def test_progress_counts_rows_in_the_calling_thread(
    table: Callable[..., Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ks, "_BLOCK_ENTRIES", 64)
    calls: list[tuple[int, int, int]] = []
    base = table(normal(1, (50, 16), "F32"), "F32")
    scan(
        base, base, workers=2, progress=lambda done, total: calls.append((done, total, threading.get_ident()))
    )
    done = [call[0] for call in calls]
    assert done[0] == 0
    assert done[-1] == 50
    assert done == sorted(set(done))
    assert len(done) > 5
    assert {call[1:] for call in calls} == {(50, threading.get_ident())}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", ALL_DTYPES)
@given(data=st.data())
@settings(deadline=None, max_examples=examples(25))
def test_engines_find_every_non_finite_row(engine: str, dtype: Dtype, data: st.DataObject) -> None:
    x, bad = data.draw(nonfinite_tables(dtype))
    good = np.zeros_like(x)
    expected = [i not in bad for i in range(len(x))]
    for left, right in ((x, good), (good, x), (x, x)):
        assert compare(engine, left, right, dtype).finite.tolist() == expected


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("side", ["base", "reference", "both"])
def test_non_finite_tables_are_refused_by_row(engine: str, side: str, table: Callable[..., Table]) -> None:
    x = normal(1, (30, 20), "F16")
    y = x.copy()
    for values in (x, y):
        if side == "both" or (side == "base") == (values is x):
            values[17, 3] = np.inf
    with pytest.raises(InvalidInputError, match="17") as caught:
        scan(table(x, "F16"), table(y, "F16"), engine=engine)
    assert caught.value.code == "NON_FINITE"


def test_tables_that_cannot_be_compared(table: Callable[..., Table]) -> None:
    base = table(normal(1, (4, 8), "F16"), "F16")
    for other in (table(normal(1, (4, 9), "F16"), "F16"), base.as_dtype("F32")):
        with pytest.raises(InvalidInputError) as caught:
            scan(base, other)
        assert caught.value.code in ("SHAPE_MISMATCH", "DTYPE_MISMATCH")


def test_options_are_checked(table: Callable[..., Table], monkeypatch: pytest.MonkeyPatch) -> None:
    base = table(normal(1, (4, 8), "F16"), "F16")
    for options, code in (({"engine": "gpu"}, "ENGINE_UNKNOWN"), ({"workers": 0}, "WORKERS")):
        with pytest.raises(UsageError) as caught:
            scan(base, base, **options)
        assert caught.value.code == code
    monkeypatch.setattr(ks, "find_spec", lambda _: None)
    assert scan(base, base, engine="auto").engine == "numpy"
    with pytest.raises(UsageError, match="fast") as caught:
        scan(base, base, engine="numba")
    assert caught.value.code == "EXTRA_MISSING"


def test_rows_wider_than_the_law_are_refused(table: Callable[..., Table]) -> None:
    wide = table(np.zeros((1, 20_001), np.float16), "F16")
    with pytest.raises(UsageError, match="20001") as caught:
        scan(wide, wide)
    assert caught.value.code == "SAMPLE_SIZE"


@needs_numba
def test_auto_takes_numba_only_where_it_pays() -> None:
    assert ks._choose("auto", 8_000 * 256) == "numpy"
    assert ks._choose("auto", 32_000 * 4_096) == "numba"


@needs_numba
def test_auto_counts_the_bytes_of_rows_that_moved(
    table: Callable[..., Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = normal(1, (200, 64), "F16")
    y = x.copy()
    y[:100] += np.float16(1)
    base, reference = table(x, "F16"), table(y, "F16")
    assert ks._moved_bytes(base, reference) == 100 * 64 * 2
    assert ks._moved_bytes(base, base) == 0
    assert ks._moved_bytes(base.as_dtype("F32"), reference.as_dtype("F32")) == 100 * 64 * 4
    monkeypatch.setattr(ks, "AUTO_BYTES", 100 * 64 * 2)
    assert scan(base, reference, workers=1).engine == "numba"
    assert scan(base, reference, workers=2).engine == "numpy"
    assert scan(base, base, workers=1).engine == "numpy"


def test_importing_the_scan_loads_nothing_heavy() -> None:
    code = (
        "import sys, certify.scan.scan, certify.selection.rules;"
        "print([m for m in ('numba', 'torch', 'transformers', 'datasets') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


# --- memory --------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 256, 4096, 20_000])
@pytest.mark.parametrize("threads", [1, 2, 64])
def test_blocks_keep_within_the_budget(n: int, threads: int) -> None:
    for extra in (engine_numpy.bytes_per_row(n), 64):
        rows = ks.block_rows(n, extra, threads)
        assert rows >= 1
        in_work = threads * rows * (16 * n + extra)
        assert in_work <= ks.BUDGET or (rows == 1 and in_work < 2 * ks.BUDGET)
    assert ks.BUDGET <= 128 * 1024 * 1024


@pytest.mark.parametrize("dtype", ALL_DTYPES)
@pytest.mark.parametrize("n", [LANES - 1, 1000, 4096])
def test_numpy_engine_needs_what_it_says(n: int, dtype: Dtype) -> None:
    rows = 60
    x, y = normal(1, (rows, n), dtype), normal(2, (rows, n), dtype)
    out = Columns.zeros(rows)
    tracemalloc.start()
    try:
        engine_numpy.compare(x, y, dtype, out)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= rows * engine_numpy.bytes_per_row(n)
    assert (
        peak >= rows * engine_numpy.bytes_per_row(n) / 8
    )  # a bound that nothing comes near would test nothing


def _anonymous_bytes() -> int:
    """Resident memory that is not backed by a file, so without the pages of memory maps."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon in /proc/self/status")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc/self/status")
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("rows", [4_000, pytest.param(32_000, marks=pytest.mark.slow)])
def test_memory_beyond_the_maps(engine: str, rows: int, table: Callable[..., Table]) -> None:
    block = normal(1, (100, 4096), "F16")
    base = table(np.tile(block, (rows // 100, 1)), "F16")
    reference = table(np.tile(block[:, ::-1], (rows // 100, 1)), "F16")
    scan(base, base, engine=engine)  # compiles, fills caches
    before = _anonymous_bytes()
    peaks: list[int] = []
    found = scan(base, reference, engine=engine, progress=lambda *_: peaks.append(_anonymous_bytes()))
    assert found.permuted.all()
    assert max(peaks) - before < 256 * 1024 * 1024


# --- real tables ---------------------------------------------------------------------


def test_real_tables_against_scipy() -> None:
    if "CERTIFY_DATA" not in os.environ:
        pytest.skip("CERTIFY_DATA is not set: the folder with the real tables")
    folder = Path(os.environ["CERTIFY_DATA"]) / "models" / "en-ca-small"
    base = open_table(folder / "base")
    reference = open_table(folder / "embed-tuned" / "embed_tokens.safetensors")
    found = scan(base, reference)
    assert int((~found.equal).sum()) == 5_321  # as the README of the tables says
    for i in np.flatnonzero(~found.equal)[::100].tolist():
        x, y = base.take([i])[0], reference.take([i])[0]
        expected = ks_2samp(x, y, method="exact")
        assert found.h[i] == round(expected.statistic * 256)
        assert found.shift_norm[i] == pytest.approx(np.linalg.norm(y.astype(float) - x), rel=1e-12)
    if find_spec("numba") is not None:
        assert _same(found, scan(base, reference, engine="numba"))


def test_storage_types_are_those_of_the_tables() -> None:
    assert set(DTYPES) == set(ALL_DTYPES)
