"""Read parallel text from two aligned files, JSON lines, Parquet, or a saved or hub dataset.

====================================  ==================================================================
``PREFIX`` (a path without language)  ``PREFIX.en`` and ``PREFIX.ca``, line by line, plain, ``.xz`` or ``.gz``
``FILE.jsonl[.xz|.gz]``               one object per line, ``{"translation": {"en": .., "ca": ..}}`` or flat
``FILE.parquet``                      columns ``translation`` (struct) or one per language
``FOLDER``                            what ``datasets.Dataset.save_to_disk`` wrote
``hub:NAME[:CONFIG]``                 a script-free dataset of the Hugging Face hub
``…@FIRST:LAST``                      of any of these, one part (:func:`certify.ticket.corpus.part`)
====================================  ==================================================================

If documents are the unit of an evaluation, every line must name its document in 1 to 256 characters. The ids
stand in ``PREFIX.doc`` (plain, ``.xz`` or ``.gz``), one per line, or in a field or column ``document`` beside
the text, as strings or integers. The lines of a document need not be adjacent. Evidence includes the ids.

The name determines the kind of source. A missing file is never replaced by a download.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from certify.base.errors import InvalidInputError, NothingToDoError, UsageError
from certify.base.jsonio import parse_json
from certify.cli.shell import needs_extra
from certify.ticket.corpus import Pair, part
from lottery.text.hub import quiet_hub
from lottery.text.textfile import locate, read_lines

_HUB = "hub:"
_DOCUMENTS, _COLUMN = ".doc", "document"
_LONGEST_ID = 256  # what a record of evidence holds


def read_pairs(
    source: str | Path,
    source_language: str,
    target_language: str,
    *,
    split: str = "train",
    drop_empty: bool = False,
    documents: bool = False,
) -> list[Pair]:
    """Read parallel text.

    Args:
        source: see the table above.
        drop_empty: leave out pairs with an empty side instead of refusing them.
        documents: also read the document of every pair; refuse a text that does not name them all.

    Returns:
        Pairs in the order of the source, with outer white space stripped from sentences.

    Raises:
        UsageError: the source does not exist, a package is missing, the hub cannot be reached, or there is no
            file of document ids (``DOCUMENTS_MISSING``).
        InvalidInputError: files of different length, not UTF-8, an empty line, a missing language, a line
            that does not name its document (``DOCUMENT_ID``).
        NothingToDoError: the source has no pairs.
    """
    if source_language == target_language:
        raise UsageError(f"source and target language are both {source_language}", code="LANGUAGES")
    languages = (source_language, target_language)
    name, ranks = _part(str(source))
    pairs: list[Pair] = []
    for id_, where, left, right, document in _rows(name, languages, split, documents):
        left, right = left.strip(), right.strip()
        if left and right:
            pairs.append(Pair(left, right, id_, document))
        elif not drop_empty:
            raise InvalidInputError(
                f"{where}: the {languages[0] if not left else languages[1]} side is empty", code="EMPTY_LINE"
            )
    if ranks:
        pairs = part(pairs, *ranks)
    if not pairs:
        raise NothingToDoError(f"{source} holds no pairs", code="NO_PAIRS")
    return pairs


def _part(name: str) -> tuple[str, tuple[int, int] | None]:
    """Take the ranks of a part off the name of its text. A file of just that name wins."""
    found = re.fullmatch(r"(.+)@([0-9]{1,9}):([0-9]{1,9})", name)
    if found is None or Path(name).exists():
        return name, None
    return found[1], (int(found[2]), int(found[3]))


def read_sentences(source: str | Path, source_language: str, target_language: str) -> list[str]:
    """Read both sides of parallel text, whether or not the other side of a pair is empty.

    Raises:
        UsageError, InvalidInputError, NothingToDoError: see :func:`read_pairs`; a text without sentences.
    """
    name, ranks = _part(str(source))
    if ranks:
        pairs = read_pairs(source, source_language, target_language, drop_empty=True)
        return [side for pair in pairs for side in (pair.source, pair.target)]
    rows = _rows(name, (source_language, target_language), "train", documents=False)
    found = [side.strip() for _, _, left, right, _ in rows for side in (left, right) if side.strip()]
    if not found:
        raise NothingToDoError(f"{source} holds no sentences", code="NO_PAIRS")
    return found


_Row = tuple[str, str, str, str, str | None]  # id, place for messages, source, target, document


def _rows(name: str, languages: tuple[str, str], split: str, documents: bool) -> Iterator[_Row]:
    if name.startswith(_HUB):
        return _from_dataset(_load_hub(name, split), name, languages, documents)
    path = Path(name)
    if path.is_dir():
        return _from_dataset(_load_saved(path, split), name, languages, documents)
    if _bare(path).endswith(".jsonl"):
        return _from_jsonl(path, languages, documents)
    if path.suffix == ".parquet":
        return _from_dataset(_load_parquet(path, languages), name, languages, documents)
    return _from_text(path, languages, documents)


def _bare(path: Path) -> str:
    return path.name.removesuffix(".xz").removesuffix(".gz")


def _from_text(prefix: Path, languages: tuple[str, str], documents: bool) -> Iterator[_Row]:
    paths = [locate(prefix.with_name(f"{prefix.name}.{language}")) for language in languages]
    left, right = (read_lines(path) for path in paths)
    if len(left) != len(right):
        raise InvalidInputError(
            f"{paths[0]} has {len(left)} lines and {paths[1]} has {len(right)}: they are not aligned",
            code="LINES_MISMATCHED",
        )
    known = _document_lines(prefix, len(left)) if documents else [None] * len(left)
    for number, row in enumerate(zip(left, right, known, strict=True), start=1):
        empty = 0 if not row[0].strip() else 1
        yield f"{prefix.name}:{number}", f"{paths[empty]}, line {number}", *row


def _document_lines(prefix: Path, lines: int) -> list[str | None]:
    sidecar = prefix.with_name(f"{prefix.name}{_DOCUMENTS}")
    try:
        path = locate(sidecar)
    except UsageError as error:
        raise UsageError(
            f"no file {sidecar} (nor with .xz or .gz): expected the document of every line of {prefix},"
            " one id per line",
            code="DOCUMENTS_MISSING",
        ) from error
    found = read_lines(path)
    if len(found) != lines:
        raise InvalidInputError(
            f"{path} has {len(found)} lines and the text has {lines}: they are not aligned",
            code="LINES_MISMATCHED",
        )
    return [_document(line, f"{path}, line {number}") for number, line in enumerate(found, start=1)]


def _document(value: Any, where: str) -> str:
    whole = isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
    named = str(value).strip() if whole or isinstance(value, str) else ""
    if not 1 <= len(named) <= _LONGEST_ID or any("\ud800" <= character <= "\udfff" for character in named):
        raise InvalidInputError(
            f"{where}: no document id of 1 to {_LONGEST_ID} characters; every line must name its document",
            code="DOCUMENT_ID",
        )
    return named


def _from_jsonl(path: Path, languages: tuple[str, str], documents: bool) -> Iterator[_Row]:
    stem = _bare(path).removesuffix(".jsonl")
    for number, line in enumerate(read_lines(path), start=1):
        where = f"{path}, line {number}"
        if not line.strip():
            raise InvalidInputError(f"{where}: the line is empty", code="EMPTY_LINE")
        yield _row(f"{stem}:{number}", where, parse_json(line.encode(), what=where), languages, documents)


def _from_dataset(
    rows: Iterable[Any], name: str, languages: tuple[str, str], documents: bool
) -> Iterator[_Row]:
    stem = name if name.startswith(_HUB) else Path(name).name
    for number, row in enumerate(rows, start=1):
        yield _row(f"{stem}:{number}", f"{name}, row {number}", row, languages, documents)


def _row(id_: str, where: str, row: Any, languages: tuple[str, str], documents: bool) -> _Row:
    sides = _sides(row, languages, where)
    return id_, where, *sides, _document(row.get(_COLUMN), where) if documents else None


def _sides(row: Any, languages: tuple[str, str], where: str) -> tuple[str, str]:
    sides = row.get("translation", row) if isinstance(row, Mapping) else None
    if not isinstance(sides, Mapping):
        raise InvalidInputError(
            f"{where}: expected an object with one text per language", code="ROW_MALFORMED"
        )
    for language in languages:
        text = sides.get(language)
        if isinstance(text, str) and any("\ud800" <= character <= "\udfff" for character in text):
            raise InvalidInputError(f"{where}: the {language} side is not Unicode", code="TEXT_MALFORMED")
        if not isinstance(text, str):
            known = ", ".join(str(key) for key in list(sides)[:10]) or "nothing"
            raise InvalidInputError(
                f"{where}: no text in language {language}; found {known}", code="LANGUAGE_MISSING"
            )
    return sides[languages[0]], sides[languages[1]]


def _load_parquet(path: Path, languages: tuple[str, str]) -> Iterator[Any]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise UsageError(
            "reading Parquet needs pyarrow: python -m pip install -e '.[parquet]'", code="EXTRA_MISSING"
        ) from error
    if not path.is_file():
        raise UsageError(f"no file {path}", code="FILE_UNREADABLE")
    try:
        with parquet.ParquetFile(path) as file:
            wanted = ("translation", _COLUMN, *languages)
            found = file.schema_arrow.names
            leaves = [file.schema.column(i).path for i in range(len(file.schema))]
            for name in (*wanted, *(f"translation.{language}" for language in languages)):
                if found.count(name) > 1 or leaves.count(name) > 1:
                    column = name.rpartition(".")[2]
                    raise InvalidInputError(f"{path} has a column {column!r} twice", code="PARQUET_MALFORMED")
            columns = [name for name in wanted if name in found]
            for batch in file.iter_batches(batch_size=1024, columns=columns):
                yield from batch.to_pylist()
    except (ArrowException, OSError) as error:
        raise InvalidInputError(
            f"{path} is not readable Parquet: {error}", code="PARQUET_MALFORMED"
        ) from error


def _load_saved(path: Path, split: str) -> Iterable[Any]:
    with needs_extra("this source"):
        import datasets

    try:
        saved = datasets.load_from_disk(str(path))
    except (FileNotFoundError, ValueError, OSError) as error:
        raise InvalidInputError(
            f"{path} is not a saved dataset: {error}", code="DATASET_MALFORMED"
        ) from error
    if not hasattr(saved, "keys"):
        return saved  # type: ignore[no-any-return]
    if split not in saved:
        raise UsageError(f"{path} has no split {split}; found {', '.join(saved)}", code="DATASET_UNKNOWN")
    return saved[split]  # type: ignore[no-any-return]


def _load_hub(name: str, split: str) -> Iterable[Any]:
    with needs_extra("this source"):
        import datasets

    repository, _, config = name.removeprefix(_HUB).partition(":")
    if not repository:
        raise UsageError("a hub dataset is written hub:NAME or hub:NAME:CONFIG", code="DATASET_UNKNOWN")
    try:
        with quiet_hub():
            loaded = datasets.load_dataset(repository, config or None, split=split)
    except (OSError, ValueError, RuntimeError) as error:
        # These three types cover every cause in datasets: offline, no such name, configuration or split, a
        # loading script.
        raise UsageError(
            f"dataset {name} (split {split}) cannot be loaded: {type(error).__name__}: {error}",
            code="DATASET_UNKNOWN",
        ) from error
    return loaded  # type: ignore[no-any-return]
