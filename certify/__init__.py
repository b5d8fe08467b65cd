"""Certify lottery tickets in embedding layers: what is shown, what is refuted, what is only assumed.

The public entry point is :func:`check`, which verifies a ticket file and decides under a policy. To find
tickets, see :mod:`lottery`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from certify.base.version import __version__

if TYPE_CHECKING:
    from certify.gate.check import CheckReport, check
    from certify.ticket.schema import Ticket, TicketFile, read_ticket_file

__all__ = ["CheckReport", "Ticket", "TicketFile", "__version__", "check", "read_ticket_file"]

# Loaded on first use, so that `certify --help` does not wait for numpy and pydantic.
_HOMES = {
    "check": "certify.gate.check",
    "CheckReport": "certify.gate.check",
    "Ticket": "certify.ticket.schema",
    "TicketFile": "certify.ticket.schema",
    "read_ticket_file": "certify.ticket.schema",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
