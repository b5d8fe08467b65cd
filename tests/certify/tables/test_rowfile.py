"""The released rows file: written exactly, read as hostile input, bound by digests anyone can recompute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from table_strategies import mutants
from ticket_folders import assert_one_line, file_sha256, tensor_sha256

from certify.base.errors import CertifyError, InvalidInputError, UsageError
from certify.tables.rowfile import make_rows, read_rows, write_rows

IDS = np.array([3, 7, 40], np.int64)
FP32 = np.random.default_rng(3).normal(0, 0.02, (3, 5)).astype(np.float32)


def test_round_trip_and_digests(tmp_path: Path) -> None:
    path = tmp_path / "r.safetensors"
    rows = make_rows(IDS, FP32, "F16")
    digests = write_rows(path, rows)
    # Judged by another reader and by hashlib alone.
    tensors = load_file(path)
    assert set(tensors) == {"ids", "rows.fp32", "rows.served"}
    assert tensors["ids"].dtype == np.int64
    assert tensors["rows.fp32"].tobytes() == FP32.tobytes()
    assert tensors["rows.served"].tobytes() == FP32.astype(np.float16).tobytes()
    assert digests.sha256 == file_sha256(path)
    assert digests.fp32_sha256 == tensor_sha256(tensors["rows.fp32"])
    assert digests.served_sha256 == tensor_sha256(tensors["rows.served"])
    again = read_rows(path)
    assert (again.ids.tolist(), again.dtype) == (IDS.tolist(), "F16")
    assert again.fp32.tobytes() == rows.fp32.tobytes()
    assert again.served.tobytes() == rows.served.tobytes()


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_equal_rows_give_equal_bytes(tmp_path: Path, dtype: Any) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    write_rows(first, make_rows(IDS, FP32, dtype))
    write_rows(second, make_rows(IDS.copy(), np.asfortranarray(FP32), dtype))
    assert first.read_bytes() == second.read_bytes()
    assert read_rows(first).dtype == dtype


def test_bf16_is_rounded_to_nearest_even(tmp_path: Path) -> None:
    # 1 + 2^-8 lies half way between 1 and 1 + 2^-7: even is 1. 1 + 3 * 2^-8: even is 1 + 2^-6.
    fp32 = np.array([[1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20]], np.float32)
    write_rows(tmp_path / "r", make_rows(np.array([0]), fp32, "BF16"))
    served = read_rows(tmp_path / "r").served
    assert (served.astype(np.uint32) << 16).view(np.float32).tolist() == [[1.0, 1 + 2**-6, 1 + 2**-7]]


def test_no_rows_are_a_file_too(tmp_path: Path) -> None:
    write_rows(tmp_path / "r", make_rows(np.array([], np.int64), np.zeros((0, 4), np.float32), "F16"))
    assert read_rows(tmp_path / "r").served.shape == (0, 4)


@pytest.mark.parametrize(
    ("ids", "fp32", "code"),
    [
        ([7, 3, 40], FP32, "ROWS_MALFORMED"),
        ([3, 3, 40], FP32, "ROWS_MALFORMED"),
        ([-1, 3, 40], FP32, "ROWS_MALFORMED"),
        ([3, 7], FP32, "ROWS_MALFORMED"),
        ([[3, 7, 40]], FP32, "ROWS_MALFORMED"),
        ([3, 7, 40], FP32[0], "ROWS_MALFORMED"),
        ([3, 7, 40], np.where(FP32[1, 1] == FP32, np.nan, FP32), "NON_FINITE"),
        ([3, 7, 40], np.where(FP32[1, 1] == FP32, -np.inf, FP32), "NON_FINITE"),
        ([3, 7, 40], np.where(FP32[1, 1] == FP32, 70000.0, FP32), "NON_FINITE"),  # too large for fp16
    ],
    ids=range(9),
)
def test_rows_that_nobody_may_serve_are_not_made(tmp_path: Path, ids: Any, fp32: Any, code: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        write_rows(tmp_path / "r", make_rows(np.array(ids), fp32.astype(np.float32), "F16"))
    assert caught.value.code == code
    if code == "NON_FINITE":
        assert "row 7" in str(caught.value)
    assert not list(tmp_path.iterdir())


def _good() -> dict[str, Any]:
    return {"ids": IDS.copy(), "rows.fp32": FP32.copy(), "rows.served": FP32.astype(np.float16)}


FAULTS: dict[str, dict[str, Any]] = {
    "no ids": {"ids": None},
    "no served rows": {"rows.served": None},
    "another tensor": {"x": np.zeros(1, np.float32)},
    "ids of another type": {"ids": IDS.astype(np.int32)},
    "ids as floats": {"ids": IDS.astype(np.float64)},
    "ids in a table": {"ids": IDS.reshape(3, 1)},
    "fp32 that is not": {"rows.fp32": FP32.astype(np.float64)},
    "served as integers": {"rows.served": FP32.astype(np.int8)},
    "other widths": {"rows.served": FP32.astype(np.float16)[:, :4].copy()},
    "other counts": {"rows.fp32": FP32[:2].copy(), "rows.served": FP32[:2].astype(np.float16)},
    "duplicate ids": {"ids": np.array([3, 3, 40])},
    "negative ids": {"ids": np.array([-3, 3, 40])},
    "wrong rounding": {"rows.served": np.nextafter(FP32.astype(np.float16), np.float16(1))},
    "zero with another sign": {
        "rows.fp32": FP32 * 0,
        "rows.served": (FP32 * 0 - 0.0).astype(np.float16) * -1,
    },
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_file_that_lies_is_refused(tmp_path: Path, fault: dict[str, Any]) -> None:
    save_file(_good(), tmp_path / "r")
    read_rows(tmp_path / "r")
    save_file({k: v for k, v in (_good() | fault).items() if v is not None}, tmp_path / "r")
    with pytest.raises(InvalidInputError) as caught:
        read_rows(tmp_path / "r")
    assert caught.value.code in {"ROWS_MALFORMED", "ROWS_DISAGREE"}


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        read_rows(tmp_path / "none")


@given(st.data())
def test_damaged_files_are_read_right_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("rows") / "r"
    write_rows(path, make_rows(IDS, FP32, "F16"))
    path.write_bytes(data.draw(mutants(path.read_bytes())))
    try:
        rows = read_rows(path)
    except CertifyError as error:
        assert_one_line(error)
        return
    assert rows.fp32.astype(np.float16).tobytes() == rows.served.tobytes()
    assert np.isfinite(rows.fp32).all()
    assert (np.diff(rows.ids) > 0).all()


def test_what_was_read_does_not_change_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "r"
    write_rows(path, make_rows(IDS, FP32, "F16"))
    rows = read_rows(path)
    data = bytearray(path.read_bytes())
    data[-60:] = bytes(60)
    with path.open("r+b") as stream:
        stream.write(data)
    assert rows.fp32.tobytes() == FP32.tobytes()
