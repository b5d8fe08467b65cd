"""Find lottery tickets and use them: tables → scan → selection → ticket.

What needs only numpy (tables, scan, selection, tickets, transfer) works with the core install. Tuning needs
the extra ``tune``. ``README.md`` beside this file says what lives where.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from certify.scan.scan import scan
    from certify.selection.rules import select
    from certify.tables.table import Table, open_table
    from certify.tables.vocabulary import Vocabulary, open_vocabulary
    from certify.ticket.make import Found, find, open_pair

__all__ = [
    "Found",
    "Table",
    "Vocabulary",
    "find",
    "open_pair",
    "open_table",
    "open_vocabulary",
    "scan",
    "select",
]

_HOMES = {
    "scan": "certify.scan.scan",
    "select": "certify.selection.rules",
    "Table": "certify.tables.table",
    "open_table": "certify.tables.table",
    "Found": "certify.ticket.make",
    "find": "certify.ticket.make",
    "open_pair": "certify.ticket.make",
    "Vocabulary": "certify.tables.vocabulary",
    "open_vocabulary": "certify.tables.vocabulary",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
