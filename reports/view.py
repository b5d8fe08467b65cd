"""The check report as plain data: what every renderer shows, and what ``--format json`` prints."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from certify import __version__
from certify.assumptions import PUBLISHED_ASSUMPTIONS
from certify.gate import CheckReport, TicketReport
from certify.records import KSResult
from certify.tickets import SCHEMA_VERSION as TICKET_SCHEMA_VERSION
from certify.tickets import Ticket
from certify.verdict import Item
from lottery.smirnov import critical_count

SCHEMA_NAME: Final = "certify.report"
SCHEMA_VERSION: Final = 1
_BINS = 12


def view(report: CheckReport) -> dict[str, Any]:
    """The report as JSON-able data, verdicts first. Strings from tickets are raw: renderers escape them."""
    return {
        "schema": SCHEMA_NAME,
        "schema_version": SCHEMA_VERSION,
        "file": str(report.path),
        "policy": report.policy.name,
        "question": report.policy.question,
        "exit_code": int(report.exit_code),
        "tickets": [_ticket(one, report) for one in report.tickets],
    }


def signature(ticket: Ticket, policy: str) -> str:
    """One line with every setting that a figure of the report depends on."""
    chosen = ticket.selection
    fields = {
        "ks": chosen.method,
        "n": chosen.n,
        "dtype": ticket.base.dtype,
        "rule": chosen.rule,
        "alpha": chosen.alpha,
        "correction": chosen.correction,
        "seed": chosen.seed,
        "policy": policy,
        "schema": TICKET_SCHEMA_VERSION,
        "tool": __version__,
    }
    return "|".join(f"{key}:{value}" for key, value in fields.items() if value is not None)


def histogram(result: KSResult, ticket: Ticket) -> dict[str, Any]:
    """Counts of D over the rows that are not bit-identical, in bins of whole counts h.

    Bins are of equal width, and one of them starts at ``h_tau``, the smallest count with D > tau, so that
    no bin mixes both sides of the published threshold.

    Returns:
        ``equal`` rows left out, moved rows with ``ties``, ``h_tau``, and per bin the first and last h, the
        rows in it and how many of them are in the ticket.
    """
    moved = ~result.equal
    h = result.h[moved]
    chosen = np.zeros(result.rows, dtype=bool)
    chosen[list(ticket.ids)] = True
    h_tau = critical_count(ticket.selection.alpha, result.n, "asymptotic")
    top = int(h.max()) if h.size else 0
    width = max(1, -(-(top + 1) // _BINS))
    bins = []
    for start in range(h_tau % width - width, top + 1, width):
        first, last = max(start, 0), min(start + width - 1, result.n)
        if last < 0:
            continue
        inside = (h >= first) & (h <= last)
        bins.append(
            {
                "h_first": first,
                "h_last": last,
                "rows": int(np.count_nonzero(inside)),
                "in_ticket": int(np.count_nonzero(chosen[moved][inside])),
            }
        )
    return {
        "equal": int(np.count_nonzero(result.equal)),
        "ties": int(np.count_nonzero(result.ties & moved)),
        "h_tau": h_tau,
        "bins": bins if h.size else [],
    }


def _ticket(one: TicketReport, report: CheckReport) -> dict[str, Any]:
    ticket, result = one.ticket, one.result
    required = set(report.policy.requires)
    return {
        "id": ticket.id,
        "verdict": one.status.value,
        "digest": one.digest,
        "items": [_item(item, item.name in required) for item in one.items],
        "selection": ticket.selection.model_dump(mode="json"),
        "table": {"shape": list(ticket.base.shape), "dtype": ticket.base.dtype, "tied": ticket.base.tied},
        "released": ticket.released.object,
        "tokens": [_token(token.model_dump(mode="json"), ticket.selection.n) for token in ticket.tokens],
        "premise": None
        if one.premise is None
        else {
            "holds": one.premise.holds,
            "h_max": one.premise.h_max,
            "id_max": one.premise.id_max,
            "ids": list(one.premise.ids),
        },
        "histogram": None if result is None else histogram(result, ticket),
        "assumptions": [
            {"id": entry.id, "statement": entry.statement, "status": entry.status}
            for entry in PUBLISHED_ASSUMPTIONS
        ],
        "non_claims": list(report.policy.non_claims),
        "signature": signature(ticket, report.policy.name),
    }


def _token(token: dict[str, Any], n: int) -> dict[str, Any]:
    return {**token, "D": token["h"] / n}


def _item(item: Item, required: bool) -> dict[str, Any]:
    return {
        "name": item.name,
        "required": required,
        "outcome": item.outcome.value,
        "code": item.code,
        "text": item.text,
        "remedy": item.remedy,
        "ids": list(item.ids),
    }
