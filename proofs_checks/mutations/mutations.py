"""One check for each subject: its judges notice all of its bugs."""

from __future__ import annotations

from typing import Final

from proofs_checks.check import Check, check
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

_MODULES = (theorem, limits, law, rows, tickets, claims, evidence, policy, choices, checker)

SUBJECTS: Final = [one for module in _MODULES for one in vars(module).values() if isinstance(one, Judged)]
"""All of them; names are unique."""


def _check(subject: Judged) -> Check:
    clause = f"§7: {len(subject.bugs)} historic bugs are noticed: {subject.about}"
    return check(f"mutations.{subject.name}", clause, needs=subject.needs)(lambda _: hunt(subject))


CHECKS: tuple[Check, ...] = tuple(map(_check, SUBJECTS))
