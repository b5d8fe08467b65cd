"""The check report as plain data: the input of every renderer and the output of ``--format json``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, Final

import numpy as np

from certify.base.assumptions import ASSUMPTIONS, PUBLISHED_ASSUMPTIONS
from certify.base.enclosure import rational
from certify.base.jsonio import sha256_bytes
from certify.base.records import KSResult
from certify.base.verdict import Item
from certify.base.version import __version__
from certify.certificate.build import TextClaims
from certify.claims.claim import Claim
from certify.claims.corpus import resampled
from certify.claims.registry import KINDS
from certify.gate.check import CheckReport, TicketReport
from certify.policy.outcomes import GRAVEST, asked, required
from certify.scan.smirnov import critical_count
from certify.ticket.schema import SCHEMA_VERSION as TICKET_SCHEMA_VERSION
from certify.ticket.schema import Ticket

SCHEMA_NAME: Final = "certify.report"
SCHEMA_VERSION: Final = 1
_BINS = 12
_WHERE = {"file", "policy_file", "policy_set_by", "line"}  # where files lie on this machine


def view(report: CheckReport, *, resample: bool = True, set_by: str | None = None) -> dict[str, Any]:
    """Convert the report to JSON-able data, verdicts first. Strings from tickets are not escaped yet.

    Args:
        report: the report.
        resample: give corpus scores their limits and p-values, which take a second.
        set_by: the file of defaults that chose the policy; None if whoever ran the check did.
    """
    return {
        "schema": SCHEMA_NAME,
        "schema_version": SCHEMA_VERSION,
        "file": str(report.path),
        "policy": report.policy.name,
        "policy_file": report.policy.file or None,
        "policy_set_by": set_by,
        "policy_sha256": report.policy.sha256,
        "policy_loosens": list(report.policy.loosens) if report.policy.file else [],
        "question": report.policy.question,
        "exit_code": int(report.exit_code),
        "tickets": [
            {"line": report.lines.get(one.ticket.id, 1)} | _ticket(one, report, resample)
            for one in report.tickets
        ],
    }


def together(
    exit_code: int, reports: Sequence[Mapping[str, Any]], errors: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """The data of a run over several files, schema ``certify.reports``, and the digest of what it found.

    Args:
        exit_code: the gravest.
        reports: what :func:`view` returned, by file.
        errors: ``file``, ``code`` and ``text`` of each file that could not be judged.
    """
    run = {"schema": "certify.reports", "schema_version": 1, "exit_code": int(exit_code)}
    run |= {"reports": [*reports], "errors": [*errors]}
    return run | {"digest": digest(run)}


def digest(run: Mapping[str, Any]) -> str:
    """Digest of what a run found: the same in every format, and when the same files are checked again.

    It covers the canonical JSON (in ASCII) of ``run`` without where files lie, and without corpus scores,
    which decide nothing and are resampled in some formats only.

    Args:
        run: ``certify.reports``, see :mod:`reports.schema`.

    Returns:
        SHA-256, 64 hexadecimal digits.
    """
    content = {
        "exit_code": run["exit_code"],
        "reports": [_stable(report) for report in run["reports"]],
        "errors": [error["code"] for error in run["errors"]],
    }
    # Paths that are not UTF-8 hold lone surrogates, which only ASCII can express.
    return sha256_bytes(json.dumps(content, sort_keys=True, separators=(",", ":")).encode("ascii"))


def _stable(report: Mapping[str, Any]) -> dict[str, Any]:
    tickets = [
        {key: value for key, value in one.items() if key not in _WHERE}
        | {"claims": [claim for claim in one["claims"] if not claim["asymptotic"]]}
        for one in report["tickets"]
    ]
    return {key: value for key, value in report.items() if key not in _WHERE} | {"tickets": tickets}


def signature(ticket: Ticket, policy: str) -> str:
    """Write every setting that a figure of the report depends on, in one line."""
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
    """Count D over the rows that are not bit-identical, in bins of whole counts h.

    Bins have equal width. One of them starts at ``h_tau``, the smallest count with D > tau, so no bin
    straddles the published threshold.

    Returns:
        The number of ``equal`` rows left out, of moved rows with ``ties``, ``h_tau``, and per bin the first
        and last h, the number of rows and how many of them are in the ticket.
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


def _ticket(one: TicketReport, report: CheckReport, resample: bool) -> dict[str, Any]:
    ticket, result = one.ticket, one.result
    needed = set(required(ticket, report.policy))
    subject = None if one.examined is None else one.examined.subject
    claims = _claims(one, report, resample)
    used = {id_ for claim in claims if claim["asked"] for id_ in claim["assumptions"]}
    taken = report.policy.taken & used
    return {
        "id": ticket.id,
        "verdict": one.status.value,
        "digest": one.digest,
        "items": [_item(item, item.name in needed) for item in one.items],
        "selection": ticket.selection.model_dump(mode="json"),
        "table": {
            "shape": list(ticket.base.shape),
            "dtype": ticket.base.dtype,
            "tied": ticket.base.tied,
            "source": None if ticket.base.source is None else ticket.base.source.line,
        },
        "released": ticket.released.object,
        "rows": None
        if ticket.released.rows is None
        else ticket.released.rows.model_dump(mode="json", include={"path", "sha256"}),
        "tokens": [_token(token.model_dump(mode="json"), ticket.selection.n) for token in ticket.tokens],
        "engines": [] if one.examined is None else _engines(one.examined.texts),
        "chosen_among": None if subject is None or subject.choice is None else len(subject.choice.candidates),
        "certificate": None if one.examined is None else _certificate(one),
        "claims": claims,
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
        "taken": [
            {"id": entry.id, "statement": entry.statement, "status": entry.status}
            for entry in ASSUMPTIONS.values()
            if entry.id in taken
        ],
        "non_claims": list(report.policy.non_claims),
        "signature": signature(ticket, report.policy.name),
    }


def _engines(texts: Sequence[TextClaims]) -> list[dict[str, str]]:
    """Texts of which another engine made the outputs."""
    made = [(text.name, text.evidence.manifest.produced_by) for text in texts]
    return [{"text": name, "engine": str(engine)} for name, engine in made if engine is not None]


def _certificate(one: TicketReport) -> dict[str, Any] | None:
    examined = one.examined
    if examined is None or examined.certificate is None:
        return None
    return {
        "sha256": examined.sha256,
        "created_by": examined.certificate.created_by,
        "delta": examined.certificate.parameters.delta,
        "signature": examined.certificate.signature,
        "evidence": [ref.model_dump(mode="json") for ref in examined.certificate.evidence],
    }


def _claims(one: TicketReport, report: CheckReport, resample: bool) -> list[dict[str, Any]]:
    """Every claim computed from the evidence, by text, and what policy and ticket ask of it."""
    if one.examined is None:
        return []
    requirements = asked(one.ticket, report.policy)
    stated = set()
    if one.examined.certificate is not None:
        stated = {(claim.evidence, claim.name) for claim in one.examined.certificate.claims}
    found = []
    for text in one.examined.texts:
        for claim in text.claims:
            answers = {
                requirement: answer
                for requirement in requirements
                if requirement.about(one.ticket) == claim.name
                and (answer := one.examined.answers.get((requirement.item, text.path)))
            }
            answer = min(answers.values(), key=lambda one: GRAVEST.index(one.outcome), default=None)
            found.append(
                _claim(claim, text, resample)
                | {
                    "stated": (text.evidence.sha256, claim.name) in stated,
                    "items": [requirement.item for requirement in answers],
                    "asked": ", ".join(dict.fromkeys(map(str, answers))) or None,
                    "outcome": answer.outcome.value if answer else None,
                    "code": answer.code if answer else claim.code,
                }
            )
    return found


def _claim(claim: Claim, text: TextClaims, resample: bool) -> dict[str, Any]:
    asymptotic = KINDS[claim.kind].asymptotic
    if asymptotic and resample:
        claim = resampled(claim, text.evidence)

    def figure(value: Fraction | None) -> dict[str, Any] | None:
        return None if value is None else {"exact": rational(value), "decimal": float(value)}

    return {
        "name": claim.name,
        "text": text.name,
        "role": text.role,
        "finding": str(claim.finding),
        "said": claim.text,
        "estimate": figure(claim.estimate),
        "lower": figure(claim.lower),
        "upper": figure(claim.upper),
        "delta": rational(claim.delta),
        "n": claim.n,
        "unit": claim.unit,
        "procedure": claim.procedure,
        "asymptotic": asymptotic,
        "assumptions": list(claim.assumptions),
        "signature": claim.signature,
        "detail": dict(claim.detail),
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
