"""Evidence that grows while it is watched: each look reads what was appended, and nothing else.

A run that draws units appends their records and writes the manifest anew. :class:`Growing` keeps what it has
read: the records, the digest of their bytes, the place where they end, and the scores of units. It returns
what :func:`certify.evidence.load.load` returns for the same files. If the files are anything but the
earlier content with records appended, everything is read again. Only a beginning that was changed under an
unchanged digest goes unnoticed here; a gate reads all of it.
"""

from __future__ import annotations

from pathlib import Path

from certify.base.errors import InvalidInputError
from certify.evidence.load import Evidence, read_head, read_used_lists
from certify.evidence.manifest import Manifest
from certify.evidence.read import Record, RecordFile
from certify.evidence.sampling import check_drawn


class Growing:
    """The evidence of one manifest, look by look."""

    def __init__(self, path: Path) -> None:
        """Watch the manifest at ``path``; nothing is read yet."""
        self._path = path
        self._file: RecordFile | None = None
        self._records: list[Record] = []
        self._last: Evidence | None = None

    def read(self) -> Evidence:
        """The evidence as it is now.

        Raises:
            UsageError, InvalidInputError: see :func:`certify.evidence.load.load`.
        """
        manifest, sha256 = read_head(self._path)
        if self._last is not None and _continues(manifest, self._last.manifest):
            try:
                return self._more(manifest, sha256)
            except InvalidInputError:
                pass  # not appended to, but changed: what is wrong with it, reading it all will say
        self._file, self._records, self._last = None, [], None
        return self._more(manifest, sha256)

    def _more(self, manifest: Manifest, sha256: str) -> Evidence:
        last, self._last = self._last, None
        self._file = self._file or RecordFile(manifest, self._path.parent)
        self._records += self._file.rest(manifest.records)
        check_drawn(manifest, self._records)
        used = last.used if last else read_used_lists(manifest, self._path.parent)
        found = Evidence(manifest, sha256, tuple(self._records), used)
        if last is not None and manifest.design == "sequential":
            # Units that were drawn are complete and come first: their scores stay as they are.
            found.scores.update(last.scores)
        self._last = found
        return found


def _continues(manifest: Manifest, last: Manifest) -> bool:
    """Whether the two say the same but for the number of records and their digest."""
    same = manifest.model_copy(update={"records": last.records})
    return same == last and manifest.records.path == last.records.path
