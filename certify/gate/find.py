"""``certify find --guarantee`` as a function: evidence in, the smallest ticket shown to be good enough out.

The choice is :func:`certify.gate.choose.choose`; here candidates are compared with the tables at hand, and
the chosen one becomes a ticket of rule ``ids:``, with the record of the choice beside it, bound by its
digest: what the choice was made on cannot be evidence for the ticket again
(:mod:`certify.evidence.choice_record`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from certify.base.errors import InvalidInputError
from certify.base.jsonio import pretty_json, sha256_file, write_bytes
from certify.base.records import Dtype
from certify.claims.subject import check_transfers
from certify.evidence.load import load
from certify.evidence.read import Manifest
from certify.gate.choose import Choice, Goal, choose
from certify.gate.session import Session
from certify.tables.table import Table
from certify.tables.tokenisation import Probe
from certify.ticket.make import Found, choice_path, find, find_vocabulary, open_pair


@dataclass(frozen=True, slots=True)
class Guaranteed:
    """What :func:`find_guaranteed` did.

    Attributes:
        choice: the record of the procedure.
        record: where it was written.
        found: the ticket; None if no candidate was shown to be good enough.
    """

    choice: Choice
    record: Path
    found: Found | None


def find_guaranteed(
    base: Path,
    tuned: Path,
    evidence: Path,
    goal: Goal,
    *,
    delta: Fraction,
    out: Path,
    ticket_id: str,
    dtype: Dtype | None = None,
    tensor: str | None = None,
    tuned_tensor: str | None = None,
    tokenizer: Path | None = None,
    allow_tied: bool = False,
    progress: Callable[[int, int], None] | None = None,
    probe: Probe | None = None,
    **settings: Any,
) -> Guaranteed:
    """Choose among the tickets of ``evidence`` and write the smallest that was shown to be good enough.

    The record of the choice goes to ``choices/ID.json`` beside the ticket file, also when nothing was shown;
    then no ticket is written.

    Args:
        base: E⁰.
        tuned: E*.
        evidence: manifest of evidence about candidates of this base and reference.
        goal: what is good enough.
        delta: error probability of the choice.
        out: the ticket file.
        ticket_id: name of the ticket.
        dtype: served dtype; None as stored.
        tensor: name of the table's tensor.
        tuned_tensor: its name in ``tuned``, where that is another.
        tokenizer: ``tokenizer.json`` or its folder.
        allow_tied: accept a table tied to the output head.
        progress: called with (rows done, rows in all).
        probe: see :func:`certify.ticket.make.find`.
        settings: passed on to :func:`certify.ticket.make.find` (alpha, correction, template, bundle ...); the
            rule ``extraction`` is also that of the choice.

    Raises:
        UsageError, InvalidInputError, NothingToDoError: see :func:`certify.gate.choose.choose` and
            :func:`certify.ticket.make.find`; evidence about other tables (``EVIDENCE_BASE``,
            ``EVIDENCE_REFERENCE``), another tokenizer (``EVIDENCE_TOKENIZER``,
            ``TOKENISATION_DIFFERS``), or an arm that is not the base with rows of the reference
            (``ARM_TABLE``).
    """
    loaded, session = load(evidence), Session()
    e0, e_star = open_pair(
        base,
        tuned,
        dtype=dtype,
        tensor=tensor,
        tuned_tensor=tuned_tensor,
        allow_tied=allow_tied,
        opened=session.table,
    )
    _check_tables(loaded.manifest, e0, e_star)
    vocabulary = find_vocabulary(tokenizer, base, tuned)
    if vocabulary is not None and sha256_file(vocabulary.path) != loaded.manifest.tokenizer_sha256:
        raise InvalidInputError(
            f"evidence {loaded.manifest.text.name}: another tokenizer was used", code="EVIDENCE_TOKENIZER"
        )
    made = None if vocabulary is None or probe is None else probe(vocabulary.path.parent)
    if len({made, loaded.manifest.tokenizer_probe_sha256} - {None}) > 1:
        raise InvalidInputError(
            f"evidence {loaded.manifest.text.name}: its tokenizer makes other ids",
            code="TOKENISATION_DIFFERS",
        )
    check_transfers([loaded], e0, e_star, session.table_digest)
    if goal.kind != "non-inferiority":
        loaded.check_steps()
    choice = choose(loaded, goal, delta, settings.get("extraction") or "whole")
    record = out.parent / choice_path(ticket_id)
    data = pretty_json(choice.to_json()).encode("utf-8")
    found = None
    if choice.chosen is None:
        write_bytes(record, data)
    else:
        found = find(
            base,
            tuned,
            out=out,
            ticket_id=ticket_id,
            rule="ids:" + ",".join(map(str, choice.chosen.arm.ids or ())),
            dtype=dtype,
            tensor=tensor,
            tuned_tensor=tuned_tensor,
            tokenizer=tokenizer,
            allow_tied=allow_tied,
            progress=progress,
            choice=data,
            probe=lambda _: made,
            opened=session.table,
            **settings,
        )
    return Guaranteed(choice, record, found)


def _check_tables(manifest: Manifest, base: Table, reference: Table) -> None:
    wanted = None if manifest.reference is None else manifest.reference.tensor_sha256
    for table, sha256, role in (
        (base, manifest.base.tensor_sha256, "base"),
        (reference, wanted, "reference"),
    ):
        if table.digest() != sha256:
            raise InvalidInputError(
                f"evidence {manifest.text.name}: it is about another {role} table than {table.path}",
                code=f"EVIDENCE_{role.upper()}",
            )
