"""Reading parallel text: every kind of source gives the same pairs, every fault is one clear line."""

from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Callable
from logging import Handler, getLogger
from pathlib import Path
from typing import Any

import pytest

from certify.base.errors import CertifyError, InvalidInputError, NothingToDoError, UsageError
from certify.ticket.corpus import deduplicate
from lottery.text import textfile
from lottery.text.pairsource import read_pairs, read_sentences
from lottery.text.textfile import locate

ROWS = [
    {"en": "Hello.", "ca": "Hola."},
    {"en": "Odd\u2028line\x85end", "ca": "  Estrany "},
    {"en": "é", "ca": "l·l"},
]
EXPECTED = [(row["en"], row["ca"].strip()) for row in ROWS]


def _text(folder: Path) -> Path:
    (folder / "t.en.xz").write_bytes(lzma.compress("".join(row["en"] + "\n" for row in ROWS).encode()))
    (folder / "t.ca").write_bytes("\r\n".join(row["ca"] for row in ROWS).encode())
    return folder / "t"


def _jsonl(folder: Path) -> Path:
    lines = [json.dumps({"translation": row}) for row in ROWS[:2]] + [json.dumps({**ROWS[2], "n": 1})]
    path = folder / "t.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path


def _flat_parquet(folder: Path) -> Path:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.Table.from_pylist([{**row, "n": 1} for row in ROWS]), folder / "f.parquet")
    return folder / "f.parquet"


def _nested_parquet(folder: Path) -> Path:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{"id": 3, "translation": row} for row in ROWS]
    parquet.write_table(arrow.Table.from_pylist(rows), folder / "n.parquet")
    return folder / "n.parquet"


@pytest.mark.parametrize("make", [_text, _jsonl, _flat_parquet, _nested_parquet])
def test_every_local_kind_gives_the_same_pairs(make: Callable[[Path], Path], tmp_path: Path) -> None:
    source = make(tmp_path)
    pairs = read_pairs(source, "en", "ca")
    assert [(pair.source, pair.target) for pair in pairs] == EXPECTED
    assert len({pair.id for pair in pairs}) == 3
    assert pairs[1].id.endswith(":2")
    swapped = read_pairs(str(source), "ca", "en")
    assert [(pair.target, pair.source) for pair in swapped] == EXPECTED


def test_a_saved_dataset_and_its_splits(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    whole = datasets.Dataset.from_list([{"translation": row} for row in ROWS])
    whole.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": whole, "dev": whole.select([1])}).save_to_disk(str(tmp_path / "two"))
    assert [(p.source, p.target) for p in read_pairs(tmp_path / "one", "en", "ca")] == EXPECTED
    assert len(read_pairs(tmp_path / "two", "en", "ca", split="dev")) == 1
    with pytest.raises(UsageError, match=r"no split test; found train, dev"):
        read_pairs(tmp_path / "two", "en", "ca", split="test")


def test_a_hub_dataset_is_asked_for_by_name_configuration_and_split(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    asked: list[Any] = []

    def load(*arguments: Any, **options: Any) -> list[Any]:
        asked.append((arguments, options))
        return [{"translation": row} for row in ROWS]

    monkeypatch.setattr(datasets, "load_dataset", load)
    pairs = read_pairs("hub:org/name:ca-en", "en", "ca", split="validation")
    assert [(pair.source, pair.target) for pair in pairs] == EXPECTED
    assert asked == [(("org/name", "ca-en"), {"split": "validation"})]


def test_a_hub_dataset_offline_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UsageError, match="hub:no-one/no-such-set") as caught:
        read_pairs("hub:no-one/no-such-set", "en", "ca")
    assert caught.value.code == "DATASET_UNKNOWN"
    assert "\n" not in str(caught.value)


def test_the_hubs_client_does_not_tell_every_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    from huggingface_hub.utils import logging

    told: list[str] = []
    handler = Handler()
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    client = logging.get_logger("huggingface_hub.utils._http")

    def load(*_arguments: Any, **_options: Any) -> None:
        client.warning("Retrying in 1s [Retry 1/5].")
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(getLogger("huggingface_hub"), "handlers", [handler])
    with pytest.raises(UsageError, match="no route to the hub") as caught:
        read_pairs("hub:no-one/no-such-set", "en", "ca")
    assert caught.value.code == "DATASET_UNKNOWN"
    assert told == []
    client.warning("other warnings are told as before")
    assert len(told) == 1


def _write(folder: Path, en: bytes, ca: bytes) -> Path:
    (folder / "t.en").write_bytes(en)
    (folder / "t.ca").write_bytes(ca)
    return folder / "t"


@pytest.mark.parametrize(
    ("en", "ca", "code", "says"),
    [
        (b"a\nb\n", b"a\n", "LINES_MISMATCHED", r"t\.en has 2 lines and .*t\.ca has 1"),
        (b"a\n\nc\n", b"a\nb\nc\n", "EMPTY_LINE", r"t\.en, line 2: the en side is empty"),
        (b"a\nb\n", b"a\n \t\n", "EMPTY_LINE", r"t\.ca, line 2: the ca side is empty"),
        (b"a\nb\n\xff\n", b"a\nb\nc\n", "TEXT_MALFORMED", r"t\.en, line 3: not UTF-8"),
        (b"", b"", "NO_PAIRS", r"holds no pairs"),
    ],
)
def test_faults_of_text_files_name_file_and_line(
    en: bytes, ca: bytes, code: str, says: str, tmp_path: Path
) -> None:
    prefix = _write(tmp_path, en, ca)
    with pytest.raises(CertifyError, match=says) as caught:
        read_pairs(prefix, "en", "ca")
    assert caught.value.code == code
    assert "\n" not in str(caught.value)


def test_empty_sides_can_be_dropped(tmp_path: Path) -> None:
    prefix = _write(tmp_path, b"a\n\nc\n", b"a\nb\nc\n")
    pairs = read_pairs(prefix, "en", "ca", drop_empty=True)
    assert [pair.id for pair in pairs] == ["t:1", "t:3"]
    with pytest.raises(NothingToDoError):
        read_pairs(_write(tmp_path, b"\n", b"\n"), "en", "ca", drop_empty=True)


def test_a_sentence_was_used_even_if_its_other_side_is_empty(tmp_path: Path) -> None:
    assert read_sentences(_write(tmp_path, b"a\n\nc\n", b"d\ne\n\n"), "en", "ca") == ["a", "d", "e", "c"]
    with pytest.raises(NothingToDoError):
        read_sentences(_write(tmp_path, b"\n", b"\n"), "en", "ca")


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ('{"en": "a"}', "LANGUAGE_MISSING", r"t\.jsonl, line 2: no text in language ca; found en"),
        ('{"en": "a", "ca": null}', "LANGUAGE_MISSING", "line 2"),
        ('{"en": "a", "ca": 3}', "LANGUAGE_MISSING", "line 2"),
        ('{"en": "", "ca": "b"}', "EMPTY_LINE", "line 2: the en side"),
        (r'{"en": "a", "ca": "\ud800"}', "JSON_MALFORMED", "line 2.*lone surrogate"),
        ("[1]", "ROW_MALFORMED", "line 2"),
        ('{"translation": 5}', "ROW_MALFORMED", "line 2"),
        ('{"en": "a", "en": "b", "ca": "c"}', "JSON_MALFORMED", "line 2.*twice"),
        ("{", "JSON_MALFORMED", "line 2"),
        ("", "EMPTY_LINE", "line 2"),
    ],
)
def test_faults_of_json_lines_name_file_and_line(line: str, code: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(ROWS[0]) + "\n" + line + "\n" + json.dumps(ROWS[1]) + "\n")
    with pytest.raises(InvalidInputError, match=says) as caught:
        read_pairs(path, "en", "ca")
    assert caught.value.code == code


@pytest.mark.parametrize("name", ["missing", "missing.jsonl", "missing.parquet"])
def test_a_missing_file_is_a_usage_error_and_never_a_download(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("went to the hub"))
    with pytest.raises(UsageError, match="missing") as caught:
        read_pairs(tmp_path / name, "en", "ca")
    assert caught.value.code == "FILE_UNREADABLE"


def test_damaged_containers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.en.xz").write_bytes(lzma.compress(b"a\n" * 999)[:-9])
    (tmp_path / "t.ca").write_bytes(b"a\n" * 999)
    with pytest.raises(InvalidInputError, match="damaged"):
        read_pairs(tmp_path / "t", "en", "ca")
    (tmp_path / "u.en.gz").write_bytes(b"not gzip")
    (tmp_path / "u.ca").write_bytes(b"a\n")
    with pytest.raises(InvalidInputError, match="damaged"):
        read_pairs(tmp_path / "u", "en", "ca")
    (tmp_path / "p.parquet").write_bytes(b"PAR1 nothing")
    pytest.importorskip("pyarrow")
    with pytest.raises(InvalidInputError, match="not readable Parquet"):
        read_pairs(tmp_path / "p.parquet", "en", "ca")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InvalidInputError, match="not a saved dataset"):
        read_pairs(tmp_path / "folder", "en", "ca")


def test_parts_of_a_text_share_no_sentence_and_are_all_of_it(tmp_path: Path) -> None:
    """Repeated sides, and the other direction, too."""
    for language in ("en", "ca"):
        lines = "".join(
            f"{language} {number % 30 if language == 'en' else number // 2}\n" for number in range(50)
        )
        (tmp_path / f"t.{language}").write_text(lines, encoding="utf-8")
    whole = deduplicate(read_pairs(tmp_path / "t", "en", "ca"))
    parts = [read_pairs(f"{tmp_path}/t@{ranks}", "en", "ca") for ranks in ("0:9", "9:20", "20:1000")]
    assert [len(part) for part in parts] == [9, 11, len(whole) - 20]
    assert sorted(pair.id for part in parts for pair in part) == sorted(pair.id for pair in whole)
    assert [pair.id for pair in parts[0]] != [pair.id for pair in whole[:9]]  # a sample, not the beginning
    sides = [{side for pair in part for side in (pair.source, pair.target)} for part in parts]
    assert sum(map(len, sides)) == len(set.union(*sides))
    back = read_pairs(f"{tmp_path}/t@0:9", "ca", "en")
    assert [(pair.target, pair.source) for pair in back] == [(pair.source, pair.target) for pair in parts[0]]
    assert set(read_sentences(f"{tmp_path}/t@0:9", "en", "ca")) == sides[0]


def test_a_part_beyond_the_end_is_refused_and_a_file_of_that_name_wins(tmp_path: Path) -> None:
    path = _jsonl(tmp_path)
    with pytest.raises(NothingToDoError, match="@7:9 holds no pairs"):
        read_pairs(f"{path}@7:9", "en", "ca")
    (tmp_path / "odd.jsonl.gz@0:1").write_bytes(path.read_bytes())
    with pytest.raises(CertifyError):  # its name says no kind, so it is not read as a part of another file
        read_pairs(tmp_path / "odd.jsonl.gz@0:1", "en", "ca")


def test_a_text_that_is_there_twice_is_not_guessed(tmp_path: Path) -> None:
    (tmp_path / "t.en").write_bytes(b"a\n")
    assert locate(tmp_path / "t.en") == tmp_path / "t.en"
    (tmp_path / "t.en.xz").write_bytes(lzma.compress(b"stale\n"))
    with pytest.raises(UsageError) as caught:
        locate(tmp_path / "t.en")
    assert caught.value.code == "TEXT_AMBIGUOUS"
    assert locate(tmp_path / "t.en.xz") == tmp_path / "t.en.xz"


def test_a_decompression_bomb_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "bomb.xz"
    path.write_bytes(lzma.compress(bytes(1 << 20)))
    with pytest.raises(InvalidInputError, match="more than 1000 bytes"):
        textfile.read_lines(path, limit=1000)


def test_lines_end_at_newlines_only(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes("\ufeffa\x0bb\x0c\u2029c\r\nd\n\nf".encode())
    assert textfile.read_lines(path) == ["a\x0bb\x0c\u2029c", "d", "", "f"]


@pytest.mark.parametrize(
    ("data", "line"), [(b"a\rb\r", 1), (b"a\nb\rc\n", 2), (b"a\r\nb\r\r\n", 2), (b"a\n\rb", 2)]
)
def test_a_lone_carriage_return_is_refused(data: bytes, line: int, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(data)
    with pytest.raises(InvalidInputError, match=f"line {line}: a carriage return") as caught:
        textfile.read_lines(path)
    assert caught.value.code == "TEXT_MALFORMED"


@pytest.mark.parametrize("nested", [False, True])
def test_a_parquet_column_twice_is_refused(nested: bool, tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    sides = [arrow.array([text]) for text in ("one", "un", "dos")]
    names = ["en", "ca", "ca"]
    table = arrow.Table.from_arrays(sides, names=names)
    if nested:
        struct = arrow.StructArray.from_arrays(sides, names=names)
        table = arrow.Table.from_arrays([struct], names=["translation"])
    parquet.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(InvalidInputError, match="'ca' twice") as caught:
        read_pairs(tmp_path / "t.parquet", "en", "ca")
    assert caught.value.code == "PARQUET_MALFORMED"


# --- documents -------------------------------------------------------------------------------------------

DOCUMENTS = ["a", "17", "a"]


def _text_with_documents(folder: Path) -> Path:
    (folder / "t.doc.xz").write_bytes(lzma.compress(b"a\r\n 17 \na\n"))
    return _text(folder)


def _jsonl_with_documents(folder: Path) -> Path:
    lines = [
        json.dumps({"translation": ROWS[0], "document": "a"}),
        json.dumps({**ROWS[1], "document": 17}),
        json.dumps({**ROWS[2], "document": " a"}),
    ]
    (folder / "t.jsonl").write_text("\n".join(lines))
    return folder / "t.jsonl"


def _parquet_with_documents(folder: Path) -> Path:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{"translation": row, "document": name} for row, name in zip(ROWS, DOCUMENTS, strict=True)]
    parquet.write_table(arrow.Table.from_pylist(rows), folder / "d.parquet")
    return folder / "d.parquet"


@pytest.mark.parametrize("make", [_text_with_documents, _jsonl_with_documents, _parquet_with_documents])
def test_every_kind_of_source_names_documents(make: Callable[[Path], Path], tmp_path: Path) -> None:
    source = make(tmp_path)
    pairs = read_pairs(source, "en", "ca", documents=True)
    assert [(pair.source, pair.target) for pair in pairs] == EXPECTED
    assert [pair.document for pair in pairs] == DOCUMENTS
    assert [pair.document for pair in read_pairs(source, "en", "ca")] == [None] * 3, "nobody asked"


def test_a_dropped_line_takes_its_document_along(tmp_path: Path) -> None:
    prefix = _write(tmp_path, b"a\n\nc\nA\n", b"x\ny\nz\nw\n")
    (tmp_path / "t.doc").write_bytes(b"one\ntwo\nthree\nfour\n")
    pairs = read_pairs(prefix, "en", "ca", drop_empty=True, documents=True)
    assert [(pair.source, pair.document) for pair in pairs] == [("a", "one"), ("c", "three"), ("A", "four")]
    assert [(pair.source, pair.document) for pair in deduplicate(pairs)] == [("a", "one"), ("c", "three")]


@pytest.mark.parametrize(
    ("ids", "error", "code", "says"),
    [
        (None, UsageError, "DOCUMENTS_MISSING", r"no file .*t\.doc .*one id per line"),
        (b"a\nb\n", InvalidInputError, "LINES_MISMATCHED", r"t\.doc has 2 lines and the text has 3"),
        (b"a\nb\nc\nd\n", InvalidInputError, "LINES_MISMATCHED", r"t\.doc has 4 lines and the text has 3"),
        (b"a\n  \nc\n", InvalidInputError, "DOCUMENT_ID", r"t\.doc, line 2: no document id"),
        (
            b"a\nb\n" + b"c" * 257,
            InvalidInputError,
            "DOCUMENT_ID",
            r"t\.doc, line 3: no document id of 1 to 256",
        ),
        (b"a\nb\n\xff", InvalidInputError, "TEXT_MALFORMED", r"t\.doc, line 3: not UTF-8"),
    ],
)
def test_faults_of_document_ids_name_file_and_line(
    ids: bytes | None, error: type[CertifyError], code: str, says: str, tmp_path: Path
) -> None:
    prefix = _write(tmp_path, b"a\nb\nc\n", b"x\ny\nz\n")
    if ids is not None:
        (tmp_path / "t.doc").write_bytes(ids)
    with pytest.raises(error, match=says) as caught:
        read_pairs(prefix, "en", "ca", documents=True)
    assert caught.value.code == code
    assert "\n" not in str(caught.value)
    assert len(read_pairs(prefix, "en", "ca")) == 3, "where nobody asks, nothing is wrong"


@pytest.mark.parametrize("value", ["null", "true", "1.5", '""', '["a"]', str(10**30)])
def test_a_field_that_names_no_document_is_refused(value: str, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(
        f'{{"en": "a", "ca": "b", "document": "x"}}\n{{"en": "c", "ca": "d", "document": {value}}}\n'
    )
    with pytest.raises(InvalidInputError, match=r"t\.jsonl, line 2: no document id") as caught:
        read_pairs(path, "en", "ca", documents=True)
    assert caught.value.code == "DOCUMENT_ID"


def test_a_language_is_not_translated_into_itself(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        read_pairs(tmp_path, "en", "en")
