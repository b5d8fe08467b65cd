"""The record of the theory's checks (``certify prove --out``), and what a certificate restates of it.

A record is what whoever ran the checks says of them. Nothing here runs a check, and nobody signs a record:
what can be verified is that it is this file, that its sums follow from its own checks, and that a certificate
restates it rightly. Only running ``certify prove`` again can show that it is true.

The file is JSON of the format :data:`FORMAT`, read as hostile input. Beyond its fields it has to add up:

* no check and no clause has the same name as another one;
* ``counts`` counts the outcomes of ``checks``;
* the outcome of a clause follows from its checks (:func:`clause_outcome`), one that is not in the record
  counting as ``not run``;
* every check belongs to a clause, and unless only some were asked for (``selected``), every check of every
  clause is there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import Field, model_validator

from certify.base.jsonio import parse_json, read_bytes, sha256_bytes
from certify.base.model import Model, Refusal, validate
from certify.ticket.schema import RelativePath, Sha256, Text

FORMAT: Final = "certify-proofs/1"
"""Name and version of the record."""

MAX_BYTES: Final = 1 << 22
"""A record of all checks has some 40 KiB; witnesses are the only texts that may be long."""

ProofOutcome = Literal["passed", "failed", "not run", "timeout"]
"""How a check ended, and what a clause waits for; only ``passed`` is a pass."""

Tier = Literal["fast", "full"]

_REFUSAL: Final = Refusal("PROOFS_MALFORMED", schema="PROOFS_FORMAT", newer="PROOFS_NEWER")

_GRAVEST: Final[tuple[ProofOutcome, ...]] = ("failed", "timeout", "not run", "passed")

_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
_Long = Annotated[str, Field(max_length=1 << 16)]
_Count = Annotated[int, Field(ge=0, lt=1 << 63)]


class Counts(Model):
    """Number of checks by outcome."""

    passed: _Count
    failed: _Count
    not_run: _Count = Field(alias="not run")
    timeout: _Count

    def __str__(self) -> str:
        """The outcomes that occur, in words; whatever is no pass in capitals."""
        others = [(self.failed, "failed"), (self.timeout, "timeout"), (self.not_run, "not run")]
        words = [f"{count} {outcome.upper()}" for count, outcome in others if count]
        return ", ".join([f"{self.passed} passed", *words])


class ClauseState(Model):
    """A clause of the theory and what its checks found together."""

    clause: Annotated[Text, Field(min_length=1)]
    outcome: ProofOutcome


class ClauseRecord(ClauseState):
    """The same with the names of all its checks, whether they are in the record or not."""

    checks: Annotated[tuple[_Name, ...], Field(min_length=1, max_length=1024)]


class CheckRecord(Model):
    """One check: what it tries to break, what it assumes, and how it ended."""

    name: _Name
    clause: Text
    assumptions: Annotated[tuple[Text, ...], Field(max_length=32)]
    outcome: ProofOutcome
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
    """The whole record; see the module's text for what has to add up."""

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

    def named(self, outcome: ProofOutcome) -> list[str]:
        """Names of the checks that ended so, in the order of the record."""
        return [check.name for check in self.checks if check.outcome == outcome]


class ProofsRef(Model):
    """What a certificate restates of a record of the theory's checks.

    ``partial``: only some checks were asked for. Everything but the path follows from the file.
    """

    path: RelativePath
    sha256: Sha256 = Field(description="file digest of the record")
    version: Annotated[Text, Field(min_length=1)]
    tier: Tier
    seed: _Count
    partial: bool
    counts: Counts
    clauses: Annotated[tuple[ClauseState, ...], Field(min_length=1, max_length=1024)]

    def __str__(self) -> str:
        """The settings and the counts in words."""
        some = ", SELECTED CHECKS ONLY" if self.partial else ""
        return f"certify {self.version}, {self.tier}, seed {self.seed}{some}: {self.counts}"


def clause_outcome(outcomes: Iterable[ProofOutcome]) -> ProofOutcome:
    """What checks found together: ``failed`` if one did, else what they wait for; ``passed`` if all did.

    Raises:
        ValueError: there is no check.
    """
    found = set(outcomes)
    for outcome in _GRAVEST:
        if outcome in found:
            return outcome
    raise ValueError("a clause without a check has no outcome")


def restate(record: ProofRecord, path: str, sha256: str) -> ProofsRef:
    """What a certificate says of ``record``, which lies at ``path`` in the ticket's folder."""
    return ProofsRef(
        path=path,
        sha256=sha256,
        version=record.version,
        tier=record.tier,
        seed=record.seed,
        partial=record.selected,
        counts=record.counts,
        clauses=tuple(ClauseState(clause=one.clause, outcome=one.outcome) for one in record.clauses),
    )


def parse_record(value: Any, *, what: str = "record of checks") -> ProofRecord:
    """Validate parsed JSON as a record.

    Raises:
        InvalidInputError: another format (``PROOFS_FORMAT``), a newer one (``PROOFS_NEWER``), a field that
            breaks a rule (``PROOFS_MALFORMED``), or sums that do not follow from the checks
            (``PROOFS_INCONSISTENT``).
    """
    name, _, version = FORMAT.partition("/")
    stated = value.get("format") if isinstance(value, dict) else None
    if not isinstance(stated, str) or stated.partition("/")[0] != name:
        text = f'{what}: expected the field "format" to be "{FORMAT}", as certify prove --out writes it'
        raise _REFUSAL(text, _REFUSAL.schema)
    number = stated.partition("/")[2]
    if number.isascii() and number.isdigit() and len(number) < 10 and int(number) > int(version):
        text = f"{what} was written by a newer version of the program; this one reads {FORMAT}: upgrade it"
        raise _REFUSAL(text, _REFUSAL.newer)
    record = validate(ProofRecord, value, what=what, refusal=_REFUSAL)
    wrong = _inconsistency(record)
    if wrong is not None:
        raise _REFUSAL(f"{what} does not add up: {wrong}", "PROOFS_INCONSISTENT")
    return record


def read_record(path: Path) -> tuple[ProofRecord, str]:
    """Read a record; returns it with the digest of its file.

    Raises:
        UsageError: the file cannot be read.
        InvalidInputError: it is too large, no strict JSON, or refused; see :func:`parse_record`.
    """
    data = read_bytes(path, what="record of checks", limit=MAX_BYTES)
    what = f"record of checks {path.name}"
    return parse_record(parse_json(data, what=what), what=what), sha256_bytes(data)


def _inconsistency(record: ProofRecord) -> str | None:
    """The first thing in ``record`` that does not follow from its checks; None if all does."""
    names = [check.name for check in record.checks]
    twice = _repeated(names) or _repeated([one.clause for one in record.clauses])
    if twice is not None:
        return f"{twice} is there twice"
    found = {check.name: check.outcome for check in record.checks}
    counted = Counter(found.values())
    again = {outcome: counted[outcome] for outcome in get_args(ProofOutcome)}
    if record.counts.model_dump(by_alias=True) != again:
        return "counts are not those of its checks"
    owned = {name for one in record.clauses for name in one.checks}
    stray = next((name for name in names if name not in owned), None)
    if stray is not None:
        return f"{stray} is a check of no clause"
    lacking = next((name for one in record.clauses for name in one.checks if name not in found), None)
    if lacking is not None and not record.selected:
        return f"{lacking} is left out, though all checks were asked for"
    for one in record.clauses:
        if one.outcome != clause_outcome(found.get(name, "not run") for name in one.checks):
            return f"the outcome of the clause {one.clause[:80]!r} does not follow from its checks"
    return None


def _repeated(names: Sequence[str]) -> str | None:
    return next((name[:80] for name, count in Counter(names).items() if count > 1), None)
