"""Token counts: a hostile ``.npy``, counts against a plain loop."""

from __future__ import annotations

import io
import pickle
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from table_strategies import mutants
from ticket_folders import assert_one_line, pieces, write_tokenizer

from certify.base.errors import CertifyError, InvalidInputError, UsageError
from certify.selection.frequency import count_tokens, read_counts, write_counts

COUNTS = np.array([5, 0, 2**40, 7], np.int64)


def npy(array: Any, version: tuple[int, int] | None = None, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array), version=version, **options)
    return buffer.getvalue()


def raw(header: str, body: bytes = bytes(32)) -> bytes:
    text = header.encode("latin1")
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


def test_round_trip(tmp_path: Path) -> None:
    write_counts(tmp_path / "c.npy", COUNTS)
    assert np.load(tmp_path / "c.npy", allow_pickle=False).tolist() == COUNTS.tolist()
    read = read_counts(tmp_path / "c.npy", 4)
    assert (read.dtype, read.tolist()) == (np.int64, COUNTS.tolist())


@pytest.mark.parametrize("dtype", ["<i4", ">i8", "u1", "<u8", "<i8"])
@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_integers_of_any_width_and_order_are_read(
    tmp_path: Path, dtype: str, version: tuple[int, int]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy warns that old readers know no version 2
        (tmp_path / "c.npy").write_bytes(npy(np.array([1, 200, 3, 4], dtype), version))
    assert read_counts(tmp_path / "c.npy", 4).tolist() == [1, 200, 3, 4]


HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "not npy": b"1 2 3 4",
    "magic only": b"\x93NUMPY",
    "unknown version": b"\x93NUMPY\x09\x09" + npy(COUNTS)[8:],
    "too few": npy(COUNTS[:3]),
    "too many": npy(np.arange(5)),
    "a table": npy(COUNTS.reshape(2, 2)),
    "a scalar": npy(np.int64(4)),
    "floats": npy(COUNTS.astype(float)),
    "truth values": npy(np.ones(4, bool)),
    "text": npy(np.array(["a", "b", "c", "d"])),
    "negative": npy(np.array([1, -1, 0, 0])),
    "absurd": npy(np.array([1, 2**62, 0, 0])),
    "unsigned absurd": npy(np.array([1, 2**64 - 1, 0, 0], np.uint64)),
    "pickled": npy(np.array([1, None, 2, 3], object), allow_pickle=True),
    "plain pickle": pickle.dumps([1, 2, 3, 4]),
    "truncated": npy(COUNTS)[:-1],
    "extended": npy(COUNTS) + b"\x00",
    "huge shape": raw("{'descr': '<i8', 'fortran_order': False, 'shape': (1000000000000,), }"),
    "negative shape": raw("{'descr': '<i8', 'fortran_order': False, 'shape': (-4,), }"),
    "shape of truth values": raw("{'descr': '<i8', 'fortran_order': False, 'shape': (True,), }"),
    "code": raw("{'descr': __import__('os').getcwd(), 'fortran_order': False, 'shape': (4,), }"),
    "empty tuple as type": raw("{'descr': (), 'fortran_order': False, 'shape': (4,), }"),
    "list as type": raw("{'descr': [()], 'fortran_order': False, 'shape': (4,), }"),
    "dictionary as type": raw("{'descr': {}, 'fortran_order': False, 'shape': (4,), }"),
    "number as type": raw("{'descr': 3, 'fortran_order': False, 'shape': (4,), }"),
    "nested type": raw(
        "{'descr': " + "(" * 90 + "'<i8'" + ",)" * 90 + ", 'fortran_order': False, 'shape': (4,), }"
    ),
    "record": npy(np.zeros(4, [("a", "<i8")])),
    "many signs": raw("{'descr': '<i8', 'fortran_order': False, 'shape': (" + "-" * 9000 + "4,), }"),
    "many brackets": raw("(" * 9000 + ")" * 900),
    "no dictionary": raw("4"),
    "null bytes": raw("\x00" * 20),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_counts_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "c.npy").write_bytes(data)
    with pytest.raises(InvalidInputError) as caught:
        read_counts(tmp_path / "c.npy", 4)
    assert caught.value.code == "COUNTS_MALFORMED"


@given(st.data())
def test_damaged_counts_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("counts") / "c.npy"
    path.write_bytes(data.draw(mutants(npy(COUNTS))))
    try:
        counts = read_counts(path, 4)
    except CertifyError as error:
        assert_one_line(error)
        return
    assert counts.shape == (4,)
    assert counts.dtype == np.int64
    assert int(counts.min()) >= 0


def test_missing_counts_are_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        read_counts(tmp_path / "none.npy", 4)


def test_counting_agrees_with_a_plain_loop(tmp_path: Path) -> None:
    tokenizers, transformers = pytest.importorskip("tokenizers"), pytest.importorskip("transformers")
    vocab = pieces() | {"a": 60, "b": 61}
    write_tokenizer(tmp_path, vocab)
    lines = ["ab", "ba.", "", "b" * 2000] * 600  # more than one batch
    encoder = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    expected = Counter(i for line in lines for i in encoder.encode(line, add_special_tokens=False).ids)
    loaded = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    counts = count_tokens(loaded, iter(lines), 64)
    assert {i: int(c) for i, c in enumerate(counts) if c} == expected
    assert counts[60] == 1200
    with pytest.raises(InvalidInputError) as caught:
        count_tokens(loaded, iter(lines), 61)
    assert caught.value.code == "TOKENIZER_TABLE_SIZE"
