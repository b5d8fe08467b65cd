"""Reading evidence: the manifest, its records one at a time, and the lists of used sentences.

Everything is read as hostile: bounded lines, strict types, digests of the very bytes that were parsed. A file
may travel packed, as ``NAME.xz``; digests are of what it unpacks to. This module is the public interface;
the manifest's schema is :mod:`certify.evidence.manifest`, a record's :mod:`certify.evidence.record`.
"""

from __future__ import annotations

import hashlib
import lzma
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from operator import lt
from pathlib import Path
from typing import IO

from certify.base.errors import InvalidInputError, UsageError
from certify.base.files import inside, opened
from certify.base.jsonio import read_json, sha256_bytes, write_bytes
from certify.evidence.manifest import (
    BASE_ARM,
    REFERENCE_ARM,
    ROW_KINDS,
    Arm,
    BaseModelRef,
    Decoding,
    EvidenceTemplateRef,
    Manifest,
    Producer,
    RecordsRef,
    ReferenceRef,
    TextRef,
    Used,
    parse_manifest,
)
from certify.evidence.parser import RecordParser, parse_record
from certify.evidence.record import (
    MAX_LINE_BYTES,
    MAX_WITNESSES,
    STATISTICS,
    UNIT,
    Answer,
    LossRecord,
    Record,
    Steps,
    TranslationRecord,
)

__all__ = [
    "BASE_ARM",
    "MAX_LINE_BYTES",
    "MAX_WITNESSES",
    "REFERENCE_ARM",
    "ROW_KINDS",
    "STATISTICS",
    "UNIT",
    "Answer",
    "Arm",
    "BaseModelRef",
    "Decoding",
    "EvidenceTemplateRef",
    "LossRecord",
    "Manifest",
    "Producer",
    "Record",
    "RecordFile",
    "RecordsRef",
    "ReferenceRef",
    "Steps",
    "TextRef",
    "TranslationRecord",
    "Used",
    "check_files",
    "iter_records",
    "parse_manifest",
    "parse_record",
    "read_manifest",
    "read_used",
    "record_content",
    "unit_key",
    "unit_rank",
    "write_manifest",
]

_USED = re.compile(rb"(?:[0-9a-f]{16}\n)*")


def read_manifest(path: Path) -> Manifest:
    """Read ``NAME.json``; the files that it names are not opened.

    Raises:
        UsageError: the file cannot be read.
        InvalidInputError: the content is refused; see :func:`certify.evidence.manifest.parse_manifest`.
    """
    return parse_manifest(read_json(path, what="evidence manifest"), what=f"evidence manifest {path}")


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write ``NAME.json`` atomically."""
    write_bytes(path, manifest.to_json().encode("utf-8"))


def check_files(manifest: Manifest, folder: Path) -> None:
    """Verify every file that the manifest names: digests, record by record, list by list.

    Raises:
        InvalidInputError: see :func:`iter_records` and :func:`read_used`.
        UsageError: a file cannot be read.
    """
    for _ in iter_records(manifest, folder):
        pass
    for entry in manifest.used:
        read_used(entry, folder)


def read_used(entry: Used, folder: Path) -> frozenset[str]:
    """The sentence digests (16 hexadecimal digits each) that one ``used`` file lists.

    Raises:
        InvalidInputError: the file is missing or another one (``FILE_MISSING``, ``EVIDENCE_DIGEST``), or not
            sorted, distinct and ``count`` lines long (``EVIDENCE_MALFORMED``).
        UsageError: it cannot be read.
    """
    with _opened(folder, entry.path, entry.sha256) as stream:
        data = stream.read(17 * (entry.count + 1))
    whole = _USED.match(data)
    lines = data[: whole.end()].decode("ascii").split() if whole else []
    if len(lines) > entry.count or 17 * len(lines) < len(data):
        line = min(len(lines), entry.count) + 1
        raise InvalidInputError(
            f"{entry.path}, line {line}: not one of {entry.count} sentence digests", code="EVIDENCE_MALFORMED"
        )
    if not all(map(lt, lines, lines[1:])):
        raise InvalidInputError(f"{entry.path}: not sorted and distinct", code="EVIDENCE_MALFORMED")
    if len(lines) != entry.count:
        raise InvalidInputError(
            f"{entry.path} holds {len(lines)} digests, not {entry.count}", code="EVIDENCE_TRUNCATED"
        )
    if sha256_bytes(data) != entry.sha256:
        raise InvalidInputError(f"{entry.path} is not the file of the evidence", code="EVIDENCE_DIGEST")
    return frozenset(lines)


def iter_records(manifest: Manifest, folder: Path) -> Iterator[Record]:
    """Records in file order, each validated; memory for one at a time (and for the ids).

    The digest of the file is compared when the last record has been handed out: a consumer must not decide
    before the iteration ends.

    Args:
        manifest: the manifest.
        folder: the folder that the manifest lies in.

    Raises:
        InvalidInputError: a record is refused (``EVIDENCE_MALFORMED``, ``EVIDENCE_DUPLICATE``, and the codes
            of :func:`certify.base.jsonio.parse_json`); there are fewer or more than the manifest says
            (``EVIDENCE_TRUNCATED``); the file is missing or another one (``FILE_MISSING``,
            ``EVIDENCE_DIGEST``).
        UsageError: the file cannot be read.
    """
    return RecordFile(manifest, folder).rest(manifest.records)


class RecordFile:
    """A file of records that is read once, however often it grows in between."""

    def __init__(self, manifest: Manifest, folder: Path) -> None:
        """Start at the first record; ``manifest`` lies in ``folder``."""
        self._folder = folder
        self._parser = RecordParser(manifest)
        self._state = hashlib.sha256()
        self._count = self._offset = 0

    def rest(self, stated: RecordsRef) -> Iterator[Record]:
        """Every record that was not handed out yet; ``stated`` is what the manifest says of the file now.

        The digest is of all records, in the bytes that were parsed. After an error, start with a new one.

        Raises:
            InvalidInputError, UsageError: see :func:`iter_records`.
        """
        with _opened(self._folder, stated.path, stated.sha256) as stream:
            stream.seek(self._offset)
            while line := stream.readline(MAX_LINE_BYTES + 1):
                self._count += 1
                where = f"{stated.path}, line {self._count}"
                if len(line) > MAX_LINE_BYTES:
                    raise InvalidInputError(
                        f"{where} is longer than {MAX_LINE_BYTES} bytes", code="FILE_TOO_LARGE"
                    )
                if not line.endswith(b"\n") or self._count > stated.count:
                    raise InvalidInputError(
                        f"{where}: cut off, or beyond the {stated.count} records of the manifest",
                        code="EVIDENCE_TRUNCATED",
                    )
                self._state.update(line)
                self._offset += len(line)
                yield self._parser.read(line[:-1], where)
        if self._count != stated.count:
            raise InvalidInputError(
                f"{stated.path} holds {self._count} records, the manifest says {stated.count}",
                code="EVIDENCE_TRUNCATED",
            )
        if self._state.hexdigest() != stated.sha256:
            raise InvalidInputError(f"{stated.path} is not the file of the evidence", code="EVIDENCE_DIGEST")


def unit_rank(order_seed: int, unit: str) -> str:
    """Where a unit of a sequential design stands in the order in which units are drawn: ascending by this."""
    return sha256_bytes(f"{order_seed}:{unit}".encode())


def record_content(record: Record) -> str:
    """What a record is about, apart from names and results: its source sentence, or its window of tokens."""
    return record.window if isinstance(record, LossRecord) else record.source


def unit_key(records: Iterable[Record]) -> str:
    """What identifies a unit of a fixed design: the digest of its records' content, ascending.

    Whatever depends on chance once a text is evaluated (the order in which bounds by betting take the units,
    the step that is drawn from a unit) follows from this alone. A seed, a name or an order that the author of
    evidence chooses could be chosen after the results, until a limit comes out well.
    """
    return sha256_bytes(",".join(sorted(map(record_content, records))).encode())


@contextmanager
def _opened(folder: Path, relative: str, sha256: str) -> Iterator[IO[bytes]]:
    """The file, or, where only ``relative.xz`` is there, what that unpacks to, as it is read."""
    path, packed = (inside(folder, name, sha256) for name in (relative, f"{relative}.xz"))
    if not path.exists() and not packed.exists():
        raise InvalidInputError(f"neither {relative} nor {relative}.xz is there", code="FILE_MISSING")
    try:
        if path.exists():
            with opened(path) as stream:
                yield stream
        else:
            with opened(packed) as raw, lzma.open(raw) as stream:
                yield stream
    except (lzma.LZMAError, EOFError) as error:
        raise InvalidInputError(f"{relative}.xz is damaged: {error}", code="EVIDENCE_DIGEST") from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", code="FILE_UNREADABLE") from error
