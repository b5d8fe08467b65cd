"""Canonical JSON, digests, strict parsing and atomic files."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certify.base import jsonio
from certify.base.errors import CertifyError, InvalidInputError, UsageError

FINITE = st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63),
    FINITE,
    st.text(st.characters(exclude_categories=["Cs"])),
)
KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4)
)


# --- canonical JSON and digests -------------------------------------------------------------------------


def test_canonical_json_is_pinned() -> None:
    value = {"b": [1, 2.5, None, True], "a": "é\n", "é": {}}
    assert jsonio.canonical_json(value) == '{"a":"é\\n","b":[1,2.5,null,true],"é":{}}'.encode()


@given(VALUES)
def test_canonical_json_survives_a_round_trip(value: Any) -> None:
    data = jsonio.canonical_json(value)
    again = jsonio.parse_json(data, what="value")
    assert again == value
    assert jsonio.canonical_json(again) == data


@given(st.dictionaries(KEYS, SCALARS, min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_order_of_keys_does_not_matter(value: dict[str, Any], rng: Any) -> None:
    items = list(value.items())
    rng.shuffle(items)
    assert jsonio.canonical_json(dict(items)) == jsonio.canonical_json(value)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_canonical_and_pretty_json_refuse_what_is_not_a_number(bad: float) -> None:
    for encode in (jsonio.canonical_json, jsonio.pretty_json):
        with pytest.raises(ValueError, match="JSON compliant"):
            encode({"x": [bad]})


@given(st.text(st.one_of(st.characters(), st.sampled_from("\x1b\x7f\x9b\u202e\u200b\ufe0f\ud800\U000e0100"))))
def test_pretty_json_is_safe_to_print_and_means_the_same(text: str) -> None:
    shown = jsonio.pretty_json({"piece": text})
    assert json.loads(shown) == {"piece": text}
    assert not set(shown) & set("\x1b\x7f\x85\x9b\u202e\u2066\u200b\u2028\u2029\ufeff\ufe0f\U000e0100")
    shown.encode("utf-8")


def test_file_digest_is_sha256_of_the_bytes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 8192  # longer than one block of reading
    path = tmp_path / "x.bin"
    path.write_bytes(data)
    assert jsonio.sha256_file(path) == hashlib.sha256(data).hexdigest() == jsonio.sha256_bytes(data)
    assert jsonio.sha256_bytes(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_tensor_digest_is_pinned_and_its_blocks_are_free() -> None:
    # sha256sum of: {"dtype":"F16","shape":[2,3]}<newline><bytes 00..0b>
    body = bytes(range(12))
    pinned = hashlib.sha256(b'{"dtype":"F16","shape":[2,3]}\n' + body).hexdigest()
    assert pinned == "aa02d25c0b439450f59bf59e36b078e222c0a856f630b76a374be8e7f80fa02d"
    assert jsonio.tensor_digest("F16", (2, 3), [body]) == pinned
    for cut in range(13):
        assert jsonio.tensor_digest("F16", [2, 3], [body[:cut], memoryview(body)[cut:]]) == pinned


@pytest.mark.parametrize(
    ("dtype", "shape"), [("BF16", (2, 3)), ("F16", (3, 2)), ("F16", (6,)), ("F16", (2, 3, 1))]
)
def test_tensor_digest_tells_types_and_shapes_apart(dtype: str, shape: tuple[int, ...]) -> None:
    body = bytes(12)
    assert jsonio.tensor_digest(dtype, shape, [body]) != jsonio.tensor_digest("F16", (2, 3), [body])


def test_digest_of_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        jsonio.sha256_file(tmp_path / "none")


# --- strict parsing --------------------------------------------------------------------------------------

REFUSED = {
    "empty": b"",
    "not UTF-8": b'{"a": "\xff"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf{}",
    "trailing comma": b'{"a": 1,}',
    "second document": b"{} {}",
    "single quotes": b"{'a': 1}",
    "duplicate key": b'{"a": 1, "a": 1}',
    "duplicate key spelled differently": b'{"a": 1, "\\u0061": 2}',
    "duplicate key inside": b'[{"b": {"a": 1, "a": 2}}]',
    "NaN": b"[NaN]",
    "Infinity": b"[Infinity]",
    "minus Infinity": b"[-Infinity]",
    "overflowing float": b"[1e400]",
    "overflowing negative float": b"[-1e400]",
    "leading zero": b"[01]",
    "plus sign": b"[+1]",
    "hexadecimal": b"[0x10]",
    "control in string": b'["\x00"]',
    "absurd integer": b"[" + b"9" * 5000 + b"]",
    "unclosed": b"[" * 10,
    "closing only": b"]",
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_malformed_json_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInputError) as caught:
        jsonio.parse_json(data, what="the file")
    assert caught.value.code == "JSON_MALFORMED"
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_depth_is_bounded(opening: bytes, closing: bytes) -> None:
    depth = jsonio.MAX_JSON_DEPTH
    jsonio.parse_json(opening * depth + b"1" + closing * depth, what="the file")
    for deep in (depth + 1, 100_000):
        with pytest.raises(InvalidInputError) as caught:
            jsonio.parse_json(opening * deep + b"1" + closing * deep, what="the file")
        assert caught.value.code == "JSON_TOO_DEEP"


def test_brackets_in_strings_are_no_depth() -> None:
    text = "[" * 1000 + '\\"' + "{" * 1000
    assert jsonio.parse_json(json.dumps([text]).encode(), what="the file") == [text]


@given(st.binary(max_size=200))
def test_any_bytes_parse_or_are_refused_in_one_line(data: bytes) -> None:
    try:
        jsonio.parse_json(data, what="the file")
    except InvalidInputError as error:
        message = str(error)
    else:
        message = ""
    assert message.isprintable()


def test_size_is_bounded_before_anything_is_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonio, "MAX_JSON_BYTES", 10)
    path = tmp_path / "x.json"
    path.write_bytes(b"[" + b" " * 8 + b"]")
    assert jsonio.read_json(path, what="the file") == []
    path.write_bytes(b"[" + b" " * 9 + b"]")
    with pytest.raises(InvalidInputError, match="larger than 10 bytes"):
        jsonio.read_json(path, what="the file")


def test_unreadable_files_are_usage_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(UsageError) as caught:
            jsonio.read_bytes(path, what="the file", limit=10)
        assert caught.value.code == "FILE_UNREADABLE"


def test_a_file_is_read_up_to_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(InvalidInputError, match="larger"):
        jsonio.read_bytes(path, what="the file", limit=1000)


# --- atomic files ----------------------------------------------------------------------------------------


def test_written_bytes_arrive_with_ordinary_permissions(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "x.bin"
    jsonio.write_bytes(path, b"one")
    jsonio.write_bytes(path, b"two")
    plain = path.with_name("plain")
    plain.write_bytes(b"")
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode == plain.stat().st_mode
    assert sorted(p.name for p in path.parent.iterdir()) == ["plain", "x.bin"]


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")

    def half() -> None:
        with jsonio.atomic_writer(path) as stream:
            stream.write(b"half of the ne")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.bin"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*((os, "fsync", full) if step == "fsync" else (Path, "replace", full)))
    with pytest.raises(UsageError, match="No space left") as caught:
        jsonio.write_bytes(path, b"new")
    assert caught.value.code == "FILE_UNWRITABLE"
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.bin"]


def test_an_error_of_the_caller_is_not_mistaken_for_a_full_disk(tmp_path: Path) -> None:
    # What the body of the with-statement raises is its own business, even when it is our own kind of error.
    with pytest.raises(InvalidInputError), jsonio.atomic_writer(tmp_path / "x"):
        raise InvalidInputError("bad row")
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_way_of_a_folder_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file" / "x", tmp_path):
        with pytest.raises(UsageError):
            jsonio.write_bytes(path, b"data")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_errors_are_one_printable_line() -> None:
    error = CertifyError("two\nlines and \x1b[31m an escape", code="X")
    assert str(error) == "two lines and \\x1b[31m an escape"


def test_half_of_a_surrogate_pair_is_refused_and_a_whole_one_is_not() -> None:
    assert jsonio.parse_json(rb'{"a": "\ud83d\ude00"}', what="x") == {"a": "\U0001f600"}
    for half in (rb'{"a": "\ud83d"}', rb'{"\uDE00": 1}', rb'["\ude00\ud83d"]'):
        with pytest.raises(InvalidInputError) as error:
            jsonio.parse_json(half, what="x")
        assert error.value.code == "JSON_MALFORMED"


# --- reports ---------------------------------------------------------------------------------------------


def test_a_report_writes_thousands_of_ids_on_one_line() -> None:
    value = {"ids": list(range(6250)), "none": [], "text": "[\n 1,\n 2\n]", "mixed": [1, "2"], "minus": [-1]}
    flat = jsonio.pretty_json(value, flat=True)
    assert json.loads(flat) == value
    assert [line for line in flat.splitlines() if "6249" in line and "0, 1, 2" in line]
    assert len(flat.splitlines()) == 10
    assert len(jsonio.pretty_json(value).splitlines()) > 6250
