"""Random directions of equal norm, against sums in exact order and by what they must not be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from certify.base.errors import CertifyError
from certify.base.records import Dtype
from certify.tables.dtypes import to_float32
from certify.tables.rowfile import make_rows, read_rows, write_rows
from certify.tables.safefile import write_tensors
from certify.tables.table import Table, open_table
from lottery.controls.direction import Direction, random_direction

ROWS, WIDTH = 12, 64
UNMOVED = 4

# Half the spacing of numbers near 4, times the square root of the width: how far rounding can move a row.
ROUNDING = {"F32": 2.0**-22 * 8, "F16": 2.0**-9 * 8, "BF16": 2.0**-6 * 8}


def tables(folder: Path, dtype: Dtype, scale: float = 1.0) -> tuple[Table, Table]:
    rng = np.random.default_rng(11)
    base = rng.normal(size=(ROWS, WIDTH)).astype(np.float32)
    base[UNMOVED, :3] = -0.0
    tuned = base + scale * rng.normal(size=(ROWS, WIDTH)).astype(np.float32)
    tuned[UNMOVED] = base[UNMOVED]
    opened = []
    for name, values in (("base", base), ("tuned", tuned)):
        path = folder / f"{name}.safetensors"
        write_tensors(path, {"embed_tokens.weight": ("F32", values)}, None)
        opened.append(open_table(path).as_dtype(dtype))
    return opened[0], opened[1]


def rows_of(table: Table, ids: Sequence[int]) -> NDArray[np.float32]:
    return to_float32(table.take(ids), table.dtype)


def distance(a: Sequence[float], b: Sequence[float]) -> float:
    return math.sqrt(math.fsum((float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True)))


def mismatched(direction: Direction, base: Table, reference: Table, slack: float) -> list[int]:
    """Ids whose served shift is not as long as the reference's, measured here."""
    ids = direction.rows.ids.tolist()
    served = to_float32(direction.rows.served, direction.rows.dtype)
    starts, ends = rows_of(base, ids), rows_of(reference, ids)
    return [
        i
        for i, row, start, end in zip(ids, served, starts, ends, strict=True)
        if abs(distance(row, start) - distance(end, start)) > slack
    ]


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_shifts_are_as_long_as_in_the_reference(tmp_path: Path, dtype: Dtype) -> None:
    base, reference = tables(tmp_path, dtype)
    ids = [9, 0, UNMOVED, 7]
    direction = random_direction(ids, base, reference, seed=3)
    assert direction.rows.ids.tolist() == [0, UNMOVED, 7, 9]
    assert direction.rows.dtype == dtype
    assert mismatched(direction, base, reference, ROUNDING[dtype]) == []
    starts, ends = rows_of(base, [0, UNMOVED, 7, 9]), rows_of(reference, [0, UNMOVED, 7, 9])
    served = to_float32(direction.rows.served, dtype)
    for index, (start, end, row) in enumerate(zip(starts, ends, served, strict=True)):
        assert direction.wanted[index] == pytest.approx(distance(end, start), rel=1e-12)
        assert direction.achieved[index] == pytest.approx(distance(row, start), rel=1e-12)
    # What did not move stays, signs of zeros too.
    assert direction.rows.served[1].tobytes() == base.take([UNMOVED])[0].tobytes()
    moved = [0, 2, 3]
    relative = [abs(direction.achieved[i] / direction.wanted[i] - 1) for i in moved]
    assert direction.deviation == pytest.approx(max(relative))
    assert direction.deviation < ROUNDING[dtype] / min(direction.wanted[moved])


def test_the_judge_of_norms_sees_planted_faults(tmp_path: Path) -> None:
    base, reference = tables(tmp_path, "F32")
    direction = random_direction([2, 5], base, reference, seed=0)
    start = rows_of(base, [2, 5])
    for factor, wrong in ((1.01, [5]), (0.0, [5]), (1.0, [])):
        rows = direction.rows.fp32.copy()
        rows[1] = start[1] + np.float32(factor) * (rows[1] - start[1])
        planted = replace(direction, rows=make_rows(np.array([2, 5]), rows, "F32"))
        assert mismatched(planted, base, reference, ROUNDING["F32"]) == wrong


def test_the_direction_is_the_documented_one(tmp_path: Path) -> None:
    base, reference = tables(tmp_path, "F32")
    direction = random_direction([7], base, reference, seed=41)
    drawn = np.random.Generator(np.random.PCG64([41, 7])).standard_normal(WIDTH).tolist()
    start, end = rows_of(base, [7])[0], rows_of(reference, [7])[0]
    factor = distance(end, start) / distance(drawn, [0.0] * WIDTH)
    expected = [float(x) + factor * g for x, g in zip(start, drawn, strict=True)]
    np.testing.assert_allclose(direction.rows.fp32[0], expected, rtol=1e-6, atol=1e-6)


def test_it_is_not_the_direction_of_tuning(tmp_path: Path) -> None:
    base, reference = tables(tmp_path, "F32")
    ids = [i for i in range(ROWS) if i != UNMOVED]
    shift = rows_of(reference, ids) - rows_of(base, ids)
    for seed in range(5):
        random = random_direction(ids, base, reference, seed=seed).rows.fp32 - rows_of(base, ids)
        cosine = (shift * random).sum(axis=1) / np.linalg.norm(shift, axis=1) / np.linalg.norm(random, axis=1)
        # Standard deviation 1/8 at width 64; the draws are fixed by their seeds.
        assert float(np.abs(cosine).max()) < 0.5


def test_a_row_depends_on_seed_and_id_alone(tmp_path: Path) -> None:
    base, reference = tables(tmp_path, "BF16")
    small, large = (random_direction(ids, base, reference, seed=1) for ids in ([3, 8], [8, 0, 3, 11]))
    assert large.rows.served[[1, 2]].tobytes() == small.rows.served.tobytes()
    again = random_direction([8, 3], base, reference, seed=1)
    assert again.rows.fp32.tobytes() == small.rows.fp32.tobytes()
    other = random_direction([3, 8], base, reference, seed=2)
    assert not np.any(np.all(other.rows.fp32 == small.rows.fp32, axis=1))


def test_what_the_dtype_cannot_hold_is_told(tmp_path: Path) -> None:
    """Shifts far below the spacing of bfloat16 vanish for most entries: no silent pass."""
    base, fine = tables(tmp_path, "F32", scale=1e-4)
    assert random_direction([1, 2, 3], base, fine, seed=0).deviation < 1e-2
    coarse = random_direction([1, 2, 3], base.as_dtype("BF16"), fine.as_dtype("BF16"), seed=0)
    assert coarse.deviation > 0.05
    still = random_direction([UNMOVED], base, fine, seed=0)
    assert (still.deviation, still.wanted.tolist()) == (0.0, [0.0])


def test_rows_survive_a_file(tmp_path: Path) -> None:
    base, reference = tables(tmp_path, "F16")
    direction = random_direction([1, UNMOVED], base, reference, seed=5)
    write_rows(tmp_path / "rows.safetensors", direction.rows)
    read = read_rows(tmp_path / "rows.safetensors")
    assert read.served.tobytes() == direction.rows.served.tobytes()


def test_refused(tmp_path: Path) -> None:
    base, reference = tables(tmp_path, "F32")

    def code(ids: Sequence[int], other: Table = reference, seed: int = 0) -> str:
        with pytest.raises(CertifyError) as caught:
            random_direction(ids, base, other, seed=seed)
        return caught.value.code

    assert code([1], seed=-1) == "SEED"
    assert code([1, 1]) == "ID_DUPLICATE"
    assert code([ROWS]) == "ROWS_OUT_OF_RANGE"
    assert code([1], reference.as_dtype("F16")) == "DTYPE_MISMATCH"
    broken = rows_of(base, range(ROWS)).copy()
    broken[3, 0], broken[4, 0] = np.nan, np.inf
    write_tensors(tmp_path / "broken.safetensors", {"embed_tokens.weight": ("F32", broken)}, None)
    bad = open_table(tmp_path / "broken.safetensors")
    assert code([3], bad) == code([4], bad) == "NON_FINITE"


def test_a_shift_that_leaves_the_dtype_is_refused(tmp_path: Path) -> None:
    opened = []
    for name, value in (("low", -60000.0), ("high", 60000.0)):
        path = tmp_path / f"{name}.safetensors"
        write_tensors(path, {"embed_tokens.weight": ("F16", np.full((2, WIDTH), value, "<f2"))}, None)
        opened.append(open_table(path))
    with pytest.raises(CertifyError) as caught:
        random_direction([1], *opened, seed=0)
    assert caught.value.code == "NON_FINITE"
