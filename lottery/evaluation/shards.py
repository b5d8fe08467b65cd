"""Part files: results of one arm on one text, one line per sentence, written to disk at once.

The first line is the key: every digest and setting that determines the outputs. A part is continued only
under the same key. Each line carries a checksum over itself and all lines before. This distinguishes a last
line cut by a crash, which is dropped and redone, from an edited line, which is refused.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from certify.base.errors import InvalidInputError, UsageError
from certify.base.jsonio import canonical_json, parse_json, sha256_bytes, write_bytes

SCHEMA: Final = "lottery.part"
SCHEMA_VERSION: Final = 1

MAX_LINE_BYTES: Final = 1 << 21


class Part:
    """An opened part file; see :func:`open_part` and :func:`read_part`."""

    def __init__(self, path: Path, key: Mapping[str, Any]) -> None:
        """Create an empty part; only :func:`open_part` and :func:`read_part` call this."""
        self.path, self.key = path, key
        self._offsets: dict[int, int] = {}
        self._check = ""
        self._size = 0

    def __contains__(self, index: object) -> bool:
        return index in self._offsets

    def __len__(self) -> int:
        return len(self._offsets)

    def append(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Add records, each with its sentence's index ``i``. They are on disk when this returns.

        Raises:
            UsageError: the file cannot be written.
            ValueError: a sentence is already in the part.
        """
        lines, offsets, check, size = [], {}, self._check, self._size
        for record in records:
            index = int(record["i"])
            if index in self._offsets or index in offsets:
                raise ValueError(f"sentence {index} is already in {self.path}")
            check = _chained(check, record)
            line = canonical_json({"check": check, "record": dict(record)}) + b"\n"
            offsets[index] = size
            size += len(line)
            lines.append(line)
        write_at(self.path, b"".join(lines), self._size)
        self._offsets |= offsets
        self._check, self._size = check, size

    def read(self, index: int) -> dict[str, Any]:
        """Read the record of one sentence.

        Raises:
            KeyError: the sentence is not in the part.
            UsageError: the file cannot be read.
            InvalidInputError: the file was changed since it was opened.
        """
        offset = self._offsets[index]
        try:
            with self.path.open("rb") as stream:
                stream.seek(offset)
                line = stream.readline(MAX_LINE_BYTES)
        except OSError as error:
            raise UsageError(f"cannot read {self.path}: {error.strerror}", code="FILE_UNREADABLE") from error
        record = _record(line, f"{self.path} at byte {offset}")[1]
        if record["i"] != index:
            raise _malformed(f"{self.path} at byte {offset}")
        return record


def free_folder(out: Path, *, resume: bool) -> Path:
    """Folder of the part files of evidence ``NAME.json``: ``NAME.parts`` beside it.

    Raises:
        UsageError: it exists and ``resume`` is false (``OUT_EXISTS``).
    """
    folder = out.with_suffix(".parts")
    if not resume and folder.exists():
        raise UsageError(f"{folder} exists already: continue with --resume, or remove it", code="OUT_EXISTS")
    return folder


def open_part(path: Path, key: Mapping[str, Any], *, resume: bool) -> Part:
    """Start a part file, or continue it.

    Args:
        key: everything that determines the outputs, as JSON.
        resume: continue an existing file and drop a last line that was cut off; otherwise start over.

    Raises:
        UsageError: the file has another key (``PART_MISMATCH``, naming what differs), or cannot be read or
            written.
        InvalidInputError: the file was damaged or edited (``PART_MALFORMED``).
    """
    header = _header(key)
    if resume and path.is_file() and path.stat().st_size:
        part, torn = _scan(path)
        if part is not None:
            if canonical_json(part.key) != canonical_json(key):
                differing = sorted(
                    name
                    for name in part.key.keys() | key.keys()
                    if part.key.get(name) != _json(key.get(name))
                )
                raise UsageError(
                    f"{path} was made with other settings or inputs: {', '.join(differing) or 'its key'}"
                    " differ; remove it, or do not resume",
                    code="PART_MISMATCH",
                )
            if torn:
                write_at(path, b"", part._size)
            return part
    write_bytes(path, header)
    part = Part(path, _json(key))
    part._check, part._size = sha256_bytes(header)[:16], len(header)
    return part


def read_part(path: Path) -> Part:
    """Open a finished part file for reading.

    Raises:
        UsageError: it cannot be read.
        InvalidInputError: it is not a part file, is damaged or edited, or its last line is cut off
            (``PART_MALFORMED``).
    """
    part, torn = _scan(path)
    if part is None or torn:
        raise InvalidInputError(f"{path} is cut off: resume the evaluation", code="PART_MALFORMED")
    return part


def _scan(path: Path) -> tuple[Part | None, bool]:
    """Read a part up to its last good line (None if the key is incomplete), and whether a line was cut."""
    part: Part | None = None
    try:
        with path.open("rb") as stream:
            while line := stream.readline(MAX_LINE_BYTES):
                where = f"{path} at byte {stream.tell() - len(line)}"
                try:
                    if part is None:
                        part = _begun(path, line, where)
                        continue
                    check, record = _record(line, where)
                    if check != _chained(part._check, record) or record["i"] in part._offsets:
                        raise _malformed(where)
                except InvalidInputError:
                    # A crash can only cut the last line.
                    if stream.read(1):
                        raise
                    return part, True
                part._offsets[record["i"]] = part._size
                part._check = check
                part._size += len(line)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", code="FILE_UNREADABLE") from error
    return part, False


def _begun(path: Path, line: bytes, where: str) -> Part:
    header = parse_json(line, what=where)
    if (
        not isinstance(header, dict)
        or header.get("schema") != SCHEMA
        or header.get("schema_version") != SCHEMA_VERSION
        or not isinstance(header.get("key"), dict)
        or line != _header(header["key"])
    ):
        raise _malformed(where)
    part = Part(path, header["key"])
    part._check, part._size = sha256_bytes(line)[:16], len(line)
    return part


def _record(line: bytes, where: str) -> tuple[str, dict[str, Any]]:
    value = parse_json(line, what=where) if line.endswith(b"\n") else None
    if (
        not isinstance(value, dict)
        or set(value) != {"check", "record"}
        or not isinstance(value["check"], str)
        or not isinstance(value["record"], dict)
        or type(value["record"].get("i")) is not int
    ):
        raise _malformed(where)
    return value["check"], value["record"]


def _header(key: Mapping[str, Any]) -> bytes:
    return canonical_json({"schema": SCHEMA, "schema_version": SCHEMA_VERSION, "key": dict(key)}) + b"\n"


def _chained(check: str, record: Mapping[str, Any]) -> str:
    return sha256_bytes(check.encode() + canonical_json(dict(record)))[:16]


def _json(value: Any) -> Any:
    return parse_json(canonical_json(value), what="key")


def write_at(path: Path, data: bytes, offset: int) -> None:
    """Write ``data`` at ``offset``, drop everything after it, and wait for the disk.

    Raises:
        UsageError: the file does not exist or cannot be written.
    """
    try:
        with path.open("r+b") as stream:
            stream.truncate(offset)
            stream.seek(offset)
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}", code="FILE_UNWRITABLE") from error


def _malformed(where: str) -> InvalidInputError:
    return InvalidInputError(
        f"{where}: damaged or edited; remove the file to start over", code="PART_MALFORMED"
    )
