"""Find lottery tickets and use them: tables → scan → selection → ticket.

The numpy half (tables, scan, selection, tickets, transfer) needs only the core install; tuning needs the
extra ``tune``. ``README.md`` beside this file tells what lives where.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lottery.ks import scan
    from lottery.selection import select
    from lottery.tables import Table, open_table
    from lottery.ticketing import Found, find, open_pair
    from lottery.vocabulary import Vocabulary, open_vocabulary

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
    "scan": "lottery.ks",
    "select": "lottery.selection",
    "Table": "lottery.tables",
    "open_table": "lottery.tables",
    "Found": "lottery.ticketing",
    "find": "lottery.ticketing",
    "open_pair": "lottery.ticketing",
    "Vocabulary": "lottery.vocabulary",
    "open_vocabulary": "lottery.vocabulary",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
