"""One check for each subject: its judges notice all of its bugs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final

from proofs_checks.check import Budget, Check, CheckFinding, check
from proofs_checks.mutations import (
    checker,
    choices,
    claims,
    evidence,
    law,
    limits,
    policy,
    rows,
    theorem,
    tickets,
)  # fmt: skip
from proofs_checks.mutations.bug import Judged, hunt

SUBJECTS: Final[tuple[Judged, ...]] = (
    *(*theorem.SUBJECTS, *limits.SUBJECTS, *law.SUBJECTS, *rows.SUBJECTS, *tickets.SUBJECTS),
    *(*claims.SUBJECTS, *evidence.SUBJECTS, *policy.SUBJECTS, *choices.SUBJECTS, *checker.SUBJECTS),
)
"""All of them; names are unique."""


def _checks() -> Iterator[Check]:
    for subject in SUBJECTS:

        def run(_: Budget, subject: Judged) -> CheckFinding:
            return hunt(subject)

        clause = f"§7: {len(subject.bugs)} historic bugs are noticed: {subject.about}"
        yield check(f"mutations.{subject.name}", clause, needs=subject.needs)(partial(run, subject=subject))


CHECKS: tuple[Check, ...] = tuple(_checks())
"""One check for each subject."""
