"""Are scan, tuning, choice and evaluation data disjoint, sentence by sentence? (theory §5, §7)

Two sentences are the same when their normalised forms are, whatever the files are called. Evidence lists the
first 64 bits of the digests of what was used: a chance collision can make a split INVALID that is not, never
the other way round.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from certify.claims_evidence import DISJOINT_ROLES
from certify.errors import InvalidInputError
from certify.evidence import TranslationRecord


@dataclass(frozen=True, slots=True)
class SplitReport:
    """What was compared, once nothing was found wrong.

    Attributes:
        sentences: evaluated sentences.
        used: number of listed sentences by role; pretraining is listed, not compared.
        pretraining: evaluated pairs with a side that was seen in pretraining, or None if that is unknown.
    """

    sentences: int
    used: Mapping[str, int]
    pretraining: int | None


def check_split(
    records: Iterable[TranslationRecord], used: Mapping[str, frozenset[str]]
) -> SplitReport | None:
    """Refuse evaluation on sentences that were used before, or that occur twice.

    Args:
        records: what was evaluated.
        used: sentence digests by role.

    Returns:
        The report; None if no list says which sentences were used for tuning, so that nothing is shown.

    Raises:
        InvalidInputError: a sentence occurs in two records on the same side (``EVALUATION_DUPLICATES``), or
            in a list of one of the roles tuning, scan, choice, order (``DATA_OVERLAP``). Names the first
            witness and how many there are.
    """
    evaluated = list(records)
    for side in ("source", "target"):
        _check_distinct(evaluated, side)
    for role in DISJOINT_ROLES:
        banned = used.get(role, frozenset())
        shared = [record.id for record in evaluated if record.source in banned or record.target in banned]
        if shared:
            raise InvalidInputError(
                f"{len(shared)} of {len(evaluated)} evaluated pairs hold a sentence that was used for {role},"
                f" the first is {shared[0]}: the data must be disjoint",
                code="DATA_OVERLAP",
            )
    if not used.get("tuning"):
        return None
    seen = used.get("pretraining")
    return SplitReport(
        sentences=len(evaluated),
        used={role: len(digests) for role, digests in sorted(used.items())},
        pretraining=None
        if seen is None
        else sum(record.source in seen or record.target in seen for record in evaluated),
    )


def _check_distinct(records: list[TranslationRecord], side: str) -> None:
    first: dict[str, str] = {}
    twice: list[tuple[str, str]] = []
    for record in records:
        digest = record.source if side == "source" else record.target
        if digest in first:
            twice.append((first[digest], record.id))
        first.setdefault(digest, record.id)
    if twice:
        left, right = twice[0]
        raise InvalidInputError(
            f"{len(twice)} evaluated pairs repeat the {side} sentence of another, the first are {left} and"
            f" {right}: repeated sentences are not independent, remove them before evaluating",
            code="EVALUATION_DUPLICATES",
        )
