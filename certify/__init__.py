"""Certify lottery tickets in embedding layers: what was shown, what was refuted, what is only assumed.

The public door: :func:`check` re-verifies a ticket file and decides under a policy. Finding tickets is in
:mod:`lottery`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from certify.gate import CheckReport, check
    from certify.tickets import Ticket, TicketFile, read_ticket_file

__all__ = ["CheckReport", "Ticket", "TicketFile", "__version__", "check", "read_ticket_file"]

# Loaded on first use, so that `certify --help` does not wait for numpy and pydantic.
_HOMES = {
    "check": "certify.gate",
    "CheckReport": "certify.gate",
    "Ticket": "certify.tickets",
    "TicketFile": "certify.tickets",
    "read_ticket_file": "certify.tickets",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
