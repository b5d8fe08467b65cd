"""The record of one run (``certify prove --out``): its fields, what has to add up, its JSON Schema.

A record is what whoever ran the checks says of them, and nobody signs it: only running ``certify prove``
again can show that it is true. What can be asked of a record is that it adds up:

* no check and no clause has the same name as another one;
* ``counts`` counts the outcomes of ``checks``;
* the outcome of a clause follows from its checks (:func:`clause_outcome`), one that is not in the record
  counting as ``not run``;
* every check belongs to a clause, and unless only some were asked for (``selected``), every check of every
  clause is there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal

from pydantic import Field, model_validator

from certify.base.errors import ExitCode
from certify.base.model import Model, Refusal, Text, validate
from proofs_checks.check import OUTCOMES, Outcome, Tier

FORMAT: Final = "certify-proofs/1"
"""Name and version of the record."""

_GRAVEST: Final[tuple[Outcome, ...]] = ("failed", "timeout", "not run", "passed")

_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
LONGEST: Final = 1 << 16
"""Most characters of a detail or a witness."""

_Long = Annotated[str, Field(max_length=LONGEST)]
_Count = Annotated[int, Field(ge=0, lt=1 << 63)]


class Counts(Model):
    """Number of checks by outcome."""

    passed: _Count
    failed: _Count
    not_run: _Count = Field(alias="not run")
    timeout: _Count


class ClauseRecord(Model):
    """A clause of the theory, the names of all its checks, and what they found together."""

    clause: Annotated[Text, Field(min_length=1)]
    checks: Annotated[tuple[_Name, ...], Field(min_length=1, max_length=1024)]
    outcome: Outcome


class CheckRecord(Model):
    """One check: what it tries to break, what it assumes, and how it ended."""

    name: _Name
    clause: Text
    assumptions: Annotated[tuple[Text, ...], Field(max_length=32)]
    outcome: Outcome
    cases: _Count
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    detail: _Long
    witness: _Long | None

    @model_validator(mode="after")
    def _sensible(self) -> CheckRecord:
        if self.outcome == "passed" and not self.cases:
            raise ValueError("a check that tried no case has not passed")
        if self.outcome != "passed" and not self.detail:
            raise ValueError(f"{self.outcome} needs a reason")
        return self


class ProofRecord(Model):
    """The whole record; see the module for what has to add up."""

    format: Literal["certify-proofs/1"]
    version: Annotated[Text, Field(min_length=1)] = Field(description="of the program whose checks ran")
    tier: Tier
    seed: _Count
    selected: bool = Field(description="whether only some checks were asked for")
    python: Text
    libraries: Annotated[dict[Text, Text | None], Field(max_length=64)]
    counts: Counts
    clauses: Annotated[tuple[ClauseRecord, ...], Field(min_length=1, max_length=1024)]
    checks: Annotated[tuple[CheckRecord, ...], Field(min_length=1, max_length=4096)]

    def exit_code(self, *, require_all: bool = False) -> ExitCode:
        """REFUTED if a check failed; INCONCLUSIVE if none passed, or not all and all are required."""
        if self.counts.failed:
            return ExitCode.REFUTED
        if not self.counts.passed or (require_all and self.counts.passed < len(self.checks)):
            return ExitCode.INCONCLUSIVE
        return ExitCode.CERTIFIED

    @model_validator(mode="after")
    def _adds_up(self) -> ProofRecord:
        found = {check.name: check.outcome for check in self.checks}
        names = [*(check.name for check in self.checks), *(one.clause for one in self.clauses)]
        owned = {name for one in self.clauses for name in one.checks}
        for name, times in Counter(names).items():
            if times > 1:
                raise ValueError(f"{name[:80]} is there twice")
        counted = Counter(found.values())
        if self.counts.model_dump(by_alias=True) != {outcome: counted[outcome] for outcome in OUTCOMES}:
            raise ValueError("counts are not those of its checks")
        for name in found.keys() - owned:
            raise ValueError(f"{name} is a check of no clause")
        for name in () if self.selected else sorted(owned - found.keys()):
            raise ValueError(f"{name} is left out, though all checks were asked for")
        for one in self.clauses:
            if one.outcome != clause_outcome(found.get(name, "not run") for name in one.checks):
                raise ValueError(f"the outcome of {one.clause[:80]!r} does not follow from its checks")
        return self


def clause_outcome(outcomes: Iterable[Outcome]) -> Outcome:
    """What checks found together: ``failed`` if one did, else what they wait for; ``passed`` if all did.

    Raises:
        ValueError: there is no check.
    """
    found = set(outcomes)
    if not found:
        raise ValueError("a clause without a check has no outcome")
    return min(found, key=_GRAVEST.index)


def parse_record(value: Any) -> ProofRecord:
    """Validate parsed JSON as a record.

    Raises:
        InvalidInputError: a field that breaks a rule, or sums that do not add up (``PROOFS_MALFORMED``).
    """
    return validate(ProofRecord, value, what="record of checks", refusal=Refusal("PROOFS_MALFORMED"))
