"""Part files: what a crash tears is done again, what was edited is refused, another key is another part."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certify.base.errors import InvalidInputError, UsageError
from lottery.evaluation.shards import Part, open_part, read_part

KEY = {"arm": {"kind": "transfer", "table_sha256": "a" * 64}, "text": "b" * 64, "beams": 1}


def records(first: int, stop: int) -> list[dict[str, object]]:
    return [{"i": i, "text": f"línia {i}\n…", "tokens": list(range(i))} for i in range(first, stop)]


def filled(path: Path) -> Part:
    part = open_part(path, KEY, resume=False)
    part.append(records(3, 6))
    part.append(records(0, 2))
    return part


def test_what_is_appended_is_read_in_any_order(tmp_path: Path) -> None:
    part = filled(tmp_path / "deep" / "arm.jsonl")
    again = read_part(part.path)
    for opened in (part, again):
        assert len(opened) == 5
        assert 4 in opened
        assert 2 not in opened
        assert [opened.read(i) for i in (1, 5, 0)] == [records(i, i + 1)[0] for i in (1, 5, 0)]
    assert again.key == KEY
    with pytest.raises(KeyError):
        part.read(2)
    with pytest.raises(ValueError, match="already"):
        part.append(records(0, 1))
    with pytest.raises(ValueError, match="already"):
        part.append(records(8, 9) * 2)
    assert len(read_part(part.path)) == 5


def test_a_part_goes_on_where_it_stopped_and_begins_anew_if_asked(tmp_path: Path) -> None:
    path = filled(tmp_path / "arm.jsonl").path
    part = open_part(path, KEY, resume=True)
    part.append(records(6, 8))
    assert len(read_part(path)) == 7
    assert len(open_part(path, KEY, resume=False)) == 0
    assert len(read_part(path)) == 0


@given(cut=st.integers(min_value=1, max_value=10_000))
def test_a_part_cut_anywhere_resumes_to_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    """Killed while it wrote: whatever is left of the file, the finished part is the one never interrupted."""
    folder = tmp_path_factory.mktemp("cut")
    path = filled(folder / "arm.jsonl").path
    whole = path.read_bytes()
    path.write_bytes(whole[: max(0, len(whole) - cut)])
    part = open_part(path, KEY, resume=True)
    for record in (*records(3, 6), *records(0, 2)):
        if record["i"] not in part:
            part.append([record])
    assert path.read_bytes() == whole
    assert [part.read(i) for i in (0, 1, 3, 4, 5)] == [*records(0, 2), *records(3, 6)]


def test_a_torn_part_is_not_read_as_finished(tmp_path: Path) -> None:
    path = filled(tmp_path / "arm.jsonl").path
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(InvalidInputError) as error:
        read_part(path)
    assert error.value.code == "PART_MALFORMED"


def _line(number: int, change: Callable[[str], str]) -> Callable[[list[str]], list[str]]:
    return lambda lines: [*lines[:number], change(lines[number]), *lines[number + 1 :]]


def _drop(number: int) -> Callable[[list[str]], list[str]]:
    return lambda lines: lines[:number] + lines[number + 1 :]


EDITS: dict[str, Callable[[list[str]], list[str]]] = {
    "an edited text": _line(2, lambda line: line.replace("línia", "linia")),
    "an edited number": _line(2, lambda line: line.replace('"i":4', '"i":9')),
    "a line less": _drop(2),
    "a line twice": lambda lines: [*lines[:3], lines[2], *lines[3:]],
    "lines exchanged": lambda lines: [lines[0], lines[2], lines[1], *lines[3:]],
    "no JSON": _line(2, lambda _: "{"),
    "a list": _line(2, lambda _: "[]"),
    "no check": _line(2, lambda line: json.dumps({"record": json.loads(line)["record"]})),
    "no key": _drop(0),
    "an edited key": _line(0, lambda line: line.replace('"beams":1', '"beams":4')),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
@pytest.mark.parametrize("resume", [True, False])
def test_an_edited_part_is_refused(
    tmp_path: Path, edit: Callable[[list[str]], list[str]], resume: bool
) -> None:
    path = filled(tmp_path / "arm.jsonl").path
    lines = edit(path.read_text(encoding="utf-8").splitlines())
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    key = json.loads(lines[0]).get("key", KEY)
    with pytest.raises(InvalidInputError) as error:
        _ = open_part(path, key, resume=True) if resume else read_part(path)
    assert error.value.code in {"PART_MALFORMED", "JSON_MALFORMED"}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"text": "c" * 64}, "text"),
        ({"arm": {"kind": "tuned", "table_sha256": "a" * 64}}, "arm"),
        ({"seed": 1}, "seed"),
    ],
)
def test_another_key_is_refused_by_name(tmp_path: Path, changes: dict[str, object], named: str) -> None:
    path = filled(tmp_path / "arm.jsonl").path
    before = path.read_bytes()
    with pytest.raises(UsageError) as error:
        open_part(path, KEY | changes, resume=True)
    assert error.value.code == "PART_MISMATCH"
    assert f" {named} " in str(error.value)
    assert path.read_bytes() == before


def test_a_file_changed_under_an_open_part_is_noticed(tmp_path: Path) -> None:
    part = filled(tmp_path / "arm.jsonl")
    lines = part.path.read_bytes().splitlines(keepends=True)
    part.path.write_bytes(b"".join([lines[0], *lines[2:]]))
    with pytest.raises(InvalidInputError):
        part.read(4)
    part.path.unlink()
    with pytest.raises(UsageError):
        part.read(4)
    with pytest.raises(UsageError):
        read_part(part.path)
