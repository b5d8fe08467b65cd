"""What one run has opened and computed, so that nothing is read or computed twice.

``check``, ``issue``, watching and choosing each hold one session. Files must not change while it lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from certify.base.errors import CertifyError
from certify.base.jsonio import MAX_JSON_BYTES, parse_json, read_bytes, sha256_bytes, sha256_file
from certify.base.records import Engine, KSResult, Method
from certify.scan.scan import scan, under
from certify.tables.rowfile import Rows
from certify.tables.table import Table, open_table, read_whole
from certify.tables.vocabulary import Vocabulary, open_vocabulary
from certify.ticket.released import Role, Source, open_role
from certify.ticket.templates import Template, load_template
from certify.ticket.transfer import table_digest

T = TypeVar("T")


class Session:
    """Opened tables, tokenizers and templates by path; scans and digests of tables by digest."""

    def __init__(
        self,
        engine: Engine = "auto",
        workers: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Start with nothing opened.

        Args:
            engine: implementation of the scans.
            workers: threads of a scan; None means all cores.
            progress: called with (rows done, rows in all) during scans.
        """
        self._engine, self._workers, self._progress = engine, workers, progress
        self._made: dict[Hashable, Any] = {}
        self._of_file: dict[Path, Table] = {}

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What ``make`` returned when it was first called for ``key``; a failure is not remembered."""
        if key not in self._made:
            self._made[key] = make()
        made: T = self._made[key]
        return made

    def json(self, path: Path, *, what: str) -> Any:
        """:func:`certify.base.jsonio.read_json`, of a file that is opened once."""
        return parse_json(self._document(path, what), what=what)

    def file_digest(self, path: Path) -> str:
        """:func:`certify.base.jsonio.sha256_file`; a table that is open, or JSON, is not opened again."""
        path = path.resolve()
        if path in self._of_file:
            return self._of_file[path].file_digest()
        if path.suffix == ".json":
            with suppress(CertifyError):
                return self.once(("digest", path), lambda: sha256_bytes(self._document(path, "file")))
        return self.once(("digest", path), lambda: sha256_file(path))

    def table(
        self, path: Path, *, tensor: str | None = None, allow_tied: bool = False, base: Table | None = None
    ) -> Table:
        """:func:`certify.tables.table.open_table`, once."""

        def opened() -> Table:
            table = open_table(path, tensor=tensor, allow_tied=allow_tied, read=self.json, base=base)
            self._of_file[table.file.resolve()] = table
            return table

        made_of = None if base is None else base.path
        return self.once(("table", path, tensor, allow_tied, made_of), opened)

    def role(self, source: Source, role: Role, given: Path | None, base: Table | None = None) -> Table:
        """:func:`certify.ticket.released.open_role`, with files opened and hashed once."""
        ref = source.ticket.base if role == "base" else source.ticket.reference
        tensor = ref.tensor or None
        return open_role(
            source, role, given, tensor=tensor, opened=self.table, digest=self.file_digest, base=base
        )

    def vocabulary(self, path: Path) -> Vocabulary:
        """:func:`certify.tables.vocabulary.open_vocabulary`, once."""
        return self.once(("vocabulary", path), lambda: open_vocabulary(path, self.json))

    def template(self, name: str | Path) -> Template:
        """:func:`certify.ticket.templates.load_template`, once."""
        return self.once(("template", name), lambda: load_template(name))

    def read_ahead(self, base: Table | None, reference: Table | None, method: Method) -> None:
        """Read tables once, in one pass where they can be scanned, for all later questions.

        Nothing is refused here: errors are left to the later check, which can report them properly.
        """
        if base is not None and reference is not None:
            with suppress(CertifyError):
                self.scan(base, reference, method)
        for table in (base, reference):
            if table is not None and not table.known:
                read_whole(table)

    def scan(self, base: Table, reference: Table, method: Method) -> KSResult:
        """:func:`certify.scan.scan.scan`, once per pair of tables; it leaves both with their digests known.

        Raises:
            InvalidInputError, UsageError: see there.
        """
        if not (base.known and reference.known and self._pair(base, reference) in self._made):
            result = scan(
                base,
                reference,
                method=method,
                engine=self._engine,
                workers=self._workers,
                progress=self._progress,
                digests=True,
            )
            self._made[self._pair(base, reference)] = result
        found: KSResult = self._made[self._pair(base, reference)]
        key = (*self._pair(base, reference), method)
        return found if found.method == method else self.once(key, lambda: under(found, method))

    def table_digest(self, base: Table, rows: Rows) -> str:
        """:func:`certify.ticket.transfer.table_digest`, once per table and rows.

        A table that is served in another dtype than its file's is converted once and kept: every ticket and
        every arm is the same table but for a few rows.
        """
        put_in = sha256_bytes(rows.ids.tobytes()), sha256_bytes(rows.served.tobytes())
        blocks = None
        if base.dtype != base.stored_dtype:
            blocks = self.once(("served", base.digest()), lambda: list(base.blocks()))
        return self.once(("arm", base.digest(), *put_in), lambda: table_digest(base, rows, blocks))

    def _pair(self, base: Table, reference: Table) -> tuple[str, ...]:
        return "scan", base.digest(), reference.digest()

    def _document(self, path: Path, what: str) -> bytes:
        path = path.resolve()
        return self.once(("document", path), lambda: read_bytes(path, what=what, limit=MAX_JSON_BYTES))
