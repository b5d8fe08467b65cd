"""From synthetic evidence as plain JSON to what claims take: evidence in memory, and a subject."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from certify.base.jsonio import canonical_json
from certify.evidence.distances import Distances
from certify.evidence.load import Evidence, Subject
from certify.evidence.parser import RecordParser
from certify.evidence.read import parse_manifest
from certify.ticket.schema import Ticket
from proofs_checks.worlds import synthetic


def subject_of(
    h: Mapping[int, int] | None = None,
    *,
    d: int = synthetic.WIDTH,
    table: str = synthetic.TICKET_TABLE,
    **fields: Any,
) -> Subject:
    """A subject whose table differs from E* in the rows ``h``; ``fields`` go to the ticket."""
    ticket = Ticket.model_validate_json(canonical_json(synthetic.ticket(**fields)), strict=True)
    return Subject(ticket, table, Distances(d, dict(h or {})))


def evidence_of(
    records: Sequence[Any],
    arms: Sequence[Any] | None = None,
    *,
    used: Mapping[str, Iterable[str]] | None = None,
    **fields: Any,
) -> Evidence:
    """Evidence through the real parsers, without files; units are blocks of up to 1000 unless told."""
    text = {"name": "synthetic", "attribution": ""} | synthetic.text_of(records)
    fields.setdefault("text", text | {"unit": "block:1000"})
    value = synthetic.manifest(records, synthetic.plain_arms() if arms is None else arms, **fields)
    manifest = parse_manifest(value)
    parse = RecordParser(manifest)
    return Evidence(
        manifest=manifest,
        sha256=synthetic.digest(repr(value)),
        records=tuple(parse(record, f"record {number}") for number, record in enumerate(records)),
        used={role: frozenset(digests) for role, digests in (used or {}).items()},
    )
