"""All checks of the theory: which there are, one run of them, and the record of what came out.

The record is plain JSON; :mod:`proofs_checks.run.record` says what is in it.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from certify.base.errors import ExitCode, UsageError
from certify.base.version import __version__
from proofs_checks.check import OUTCOMES, Budget, Check, CheckResult, Outcome, Tier
from proofs_checks.coverage import means, pipeline
from proofs_checks.mutations import mutations
from proofs_checks.numbers import laws
from proofs_checks.run import workers
from proofs_checks.run.clauses import CLAUSES, checks_of
from proofs_checks.run.record import FORMAT, clause_outcome
from proofs_checks.theory import counterexamples, exact, llama, search, smt, tightness

SECONDS: Final[dict[Tier, float]] = {"fast": 120.0, "full": 600.0}
"""Default budget of one check; twice as much, and it is stopped."""

_LIBRARIES = ("numpy", "scipy", "z3-solver", "python-flint", "torch", "transformers")


def checks(model: Path | None = None) -> tuple[Check, ...]:
    """Every check, in the order of the table; names are unique.

    Args:
        model: LLaMA checkpoint for C1 on a real model; by default the one that is published with this
            project, see :func:`published_model`.
    """
    return (
        *exact.CHECKS,
        *tightness.CHECKS,
        *smt.CHECKS,
        *counterexamples.CHECKS,
        llama.permuted_row(published_model() if model is None else model),
        *search.CHECKS,
        *laws.CHECKS,
        *means.CHECKS,
        *pipeline.CHECKS,
        *mutations.CHECKS,
    )


def published_model() -> Path:
    """Folder of the base model that the repository publishes; it need not exist in an installation."""
    spec = find_spec("reports")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "published" / "base-small"


@dataclass(frozen=True, slots=True)
class ClauseResult:
    """A clause of the theory and what its checks found together.

    Attributes:
        clause: the clause, see :data:`proofs_checks.run.clauses.CLAUSES`.
        checks: names of all its checks.
        outcome: ``passed`` only if every one of them passed; ``failed`` if one did; else what it waits for.
    """

    clause: str
    checks: tuple[str, ...]
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Record:
    """One run of checks.

    Attributes:
        budget: tier, seconds and seed.
        results: one for each check that was asked for, in the order of the table.
        selected: whether only some checks were asked for.
    """

    budget: Budget
    results: tuple[CheckResult, ...]
    selected: bool

    @property
    def counts(self) -> dict[str, int]:
        """Number of results by outcome, every outcome listed."""
        found = Counter(result.outcome for result in self.results)
        return {outcome: found[outcome] for outcome in OUTCOMES}

    @property
    def clauses(self) -> tuple[ClauseResult, ...]:
        """What became of every clause of the theory, as far as these results say."""
        found = {result.name: result for result in self.results}
        names = [check.name for check in checks()]
        return tuple(_clause(clause, checks_of(clause, names), found) for clause in CLAUSES)

    def exit_code(self, *, require_all: bool = False) -> ExitCode:
        """REFUTED if a check failed; INCONCLUSIVE if none passed, or not all and all are required.

        Args:
            require_all: whether a check that did not run or ran out of time denies.
        """
        counts = self.counts
        if counts["failed"]:
            return ExitCode.REFUTED
        if not counts["passed"] or (require_all and counts["passed"] < len(self.results)):
            return ExitCode.INCONCLUSIVE
        return ExitCode.CERTIFIED

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON values; times are rounded to milliseconds."""
        return {
            "format": FORMAT,
            "version": __version__,
            "tier": self.budget.tier,
            "seed": self.budget.seed,
            "selected": self.selected,
            "python": platform.python_version(),
            "libraries": _versions(),
            "counts": self.counts,
            "clauses": [{**asdict(clause), "checks": list(clause.checks)} for clause in self.clauses],
            "checks": [
                {
                    **asdict(result),
                    "assumptions": list(result.assumptions),
                    "seconds": round(result.seconds, 3),
                }
                for result in self.results
            ],
        }


def prove(
    budget: Budget,
    *,
    only: Sequence[str] = (),
    model: Path | None = None,
    processes: int = 2,
    report: Callable[[CheckResult, int, int], None] | None = None,
) -> Record:
    """Run the checks.

    Args:
        budget: tier, seconds for each check, seed.
        only: names, ``*`` stands for anything; all checks if empty.
        model: see :func:`checks`.
        processes: how many run at a time.
        report: called as each check ends with its result, how many have ended, and of how many.

    Raises:
        UsageError: a name of ``only`` fits no check.
    """
    source = partial(checks, model)
    names = chosen([check.name for check in source()], only)
    found: dict[str, CheckResult] = {}
    for result in workers.run(source, names, budget, workers=processes, limit=2 * budget.seconds):
        found[result.name] = result
        if report is not None:
            report(result, len(found), len(names))
    return Record(budget, tuple(found[name] for name in names), bool(only))


def chosen(names: Sequence[str], only: Sequence[str]) -> list[str]:
    """Those of ``names`` that fit a pattern of ``only``; all of them if ``only`` is empty.

    Raises:
        UsageError: a pattern fits none.
    """
    for pattern in only:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UsageError(f"no check is called {pattern!r}: certify prove --list", code="CHECK_UNKNOWN")
    return [name for name in names if not only or any(fnmatchcase(name, pattern) for pattern in only)]


def _clause(clause: str, names: Sequence[str], found: Mapping[str, CheckResult]) -> ClauseResult:
    outcomes: list[Outcome] = [found[name].outcome if name in found else "not run" for name in names]
    return ClauseResult(clause, tuple(names), clause_outcome(outcomes))


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found
