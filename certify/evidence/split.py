"""Are scan, tuning, choice and evaluation data disjoint, sentence by sentence? (theory §5, §7)

Two sentences are the same when their normalised forms are, whatever the files are called. Both sides of a
pair are evaluated, or the lines of the passage that a window of unrelated text was cut from: windows of
one unit share lines, those of two units do not. Evidence lists the first 64 bits of the digests of what was
used: a chance collision can make a valid split INVALID, never an invalid one valid.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from certify.base.errors import InvalidInputError
from certify.evidence.load import DISJOINT_ROLES, Evidence
from certify.evidence.read import LossRecord, Record


@dataclass(frozen=True, slots=True)
class SplitReport:
    """What was compared, once nothing was found wrong.

    Attributes:
        sentences: evaluated pairs, or lines.
        used: number of listed sentences by role; pretraining is listed, not compared.
        pretraining: how many of them were seen in pretraining (a pair: on a side), or None if that is
            unknown.
    """

    sentences: int
    used: Mapping[str, int]
    pretraining: int | None


def check_split(records: Iterable[Record], used: Mapping[str, frozenset[str]]) -> SplitReport | None:
    """Refuse evaluation on sentences that were used before, or that occur twice.

    Args:
        records: what was evaluated, of one kind.
        used: sentence digests by role.

    Returns:
        The report; None if no list says which sentences were used for tuning, so that nothing is shown.

    Raises:
        InvalidInputError: a sentence occurs in two records on the same side, or a line in two units
            (``EVALUATION_DUPLICATES``), or one stands in a list of one of the roles tuning, scan, choice,
            order (``DATA_OVERLAP``). Names the first witness and how many there are.
    """
    evaluated = list(records)
    pairs = [record for record in evaluated if not isinstance(record, LossRecord)]
    lines = [
        (line, record.unit, record.id)
        for record in evaluated
        if isinstance(record, LossRecord)
        for line in record.lines
    ]
    for side, sentences in (
        ("source", [(pair.source, pair.id, pair.id) for pair in pairs]),
        ("target", [(pair.target, pair.id, pair.id) for pair in pairs]),
    ):
        _check_distinct(sentences, f"evaluated pairs repeat the {side} sentence of another")
    _check_distinct(lines, "lines of unrelated text stand in a second unit")
    for role in DISJOINT_ROLES:
        banned = used.get(role, frozenset())
        shared = [record.id for record in evaluated if not banned.isdisjoint(_sentences(record))]
        if shared:
            raise InvalidInputError(
                f"{len(shared)} of {len(evaluated)} evaluated {'pairs' if pairs else 'windows'} hold a"
                f" sentence that was used for {role}, the first is {shared[0]}: the data must be disjoint",
                code="DATA_OVERLAP",
            )
    if not used.get("tuning"):
        return None
    # Windows of a passage share its lines: these are counted, not windows.
    counted = [_sentences(pair) for pair in pairs] or [(line,) for line in {line for line, _, _ in lines}]
    seen = used.get("pretraining")
    return SplitReport(
        sentences=len(counted),
        used={role: len(digests) for role, digests in sorted(used.items())},
        pretraining=None if seen is None else sum(not seen.isdisjoint(one) for one in counted),
    )


def check_choice_data(evidence: Evidence) -> None:
    """Refuse evidence that may overlap the tuning sentences, so that no choice may rest on it.

    Raises:
        InvalidInputError: as for :func:`check_split`, or nothing says which sentences were used for tuning
            (``USED_NOT_LISTED``).
    """
    if check_split(evidence.sentences, evidence.used) is None:
        raise InvalidInputError(
            f"evidence {evidence.manifest.text.name} does not list the sentences used for tuning: nothing"
            " shows that the choice is made on other data (certify evaluate --used tuning=DATA)",
            code="USED_NOT_LISTED",
        )


def chosen_on(evidence: Evidence) -> list[str]:
    """Digests of both sides of all sentences, ascending: what is chosen there is not evaluated there."""
    return sorted({digest for record in evidence.sentences for digest in _sentences(record)})


def _sentences(record: Record) -> tuple[str, ...]:
    return record.lines if isinstance(record, LossRecord) else (record.source, record.target)


def _check_distinct(named: Iterable[tuple[str, str, str]], problem: str) -> None:
    """Refuse a sentence of two owners; each is given as (digest, owner, id of the record)."""
    first: dict[str, tuple[str, str]] = {}
    twice: dict[tuple[str, str], tuple[str, str]] = {}
    for digest, owner, record in named:
        known, before = first.setdefault(digest, (owner, record))
        if known != owner:
            twice.setdefault((digest, owner), (before, record))
    if twice:
        left, right = next(iter(twice.values()))
        raise InvalidInputError(
            f"{len(twice)} {problem}, the first are {left} and {right}: repeated sentences are not"
            " independent, remove them before evaluating",
            code="EVALUATION_DUPLICATES",
        )
