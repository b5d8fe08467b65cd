"""All checks of the theory: which there are, one run of them, and the record of what came out.

The record is plain JSON; :mod:`proofs_checks.run.record` says what is in it.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from certify.base.errors import UsageError
from certify.base.version import __version__
from proofs_checks.check import OUTCOMES, Budget, Check, CheckResult, Tier
from proofs_checks.coverage import means, pipeline
from proofs_checks.mutations import mutations
from proofs_checks.numbers import laws
from proofs_checks.run import workers
from proofs_checks.run.clauses import CLAUSES, checks_of
from proofs_checks.run.record import FORMAT, LONGEST, ProofRecord, clause_outcome, parse_record
from proofs_checks.theory import counterexamples, exact, llama, path, search, smt, tightness

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
        *path.CHECKS,
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


def record(budget: Budget, results: Sequence[CheckResult], *, selected: bool) -> ProofRecord:
    """The record of one run: results are in the order of the table; times are rounded to milliseconds."""
    found = {result.name: result.outcome for result in results}
    names = [check.name for check in checks()]
    counts = Counter(found.values())
    value = {
        "format": FORMAT,
        "version": __version__,
        "tier": budget.tier,
        "seed": budget.seed,
        "selected": selected,
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "counts": {outcome: counts[outcome] for outcome in OUTCOMES},
        "clauses": [
            {
                "clause": clause,
                "checks": owned,
                "outcome": clause_outcome(found.get(name, "not run") for name in owned),
            }
            for clause, owned in ((clause, checks_of(clause, names)) for clause in CLAUSES)
        ],
        "checks": [_plain(result) for result in results],
    }
    return parse_record(value)


def _plain(result: CheckResult) -> dict[str, Any]:
    witness = None if result.witness is None else result.witness[:LONGEST]
    shorter = {"seconds": round(result.seconds, 3), "detail": result.detail[:LONGEST], "witness": witness}
    return asdict(result) | shorter


def prove(
    budget: Budget,
    *,
    only: Sequence[str] = (),
    model: Path | None = None,
    processes: int = 2,
    report: Callable[[CheckResult, int, int], None] | None = None,
) -> ProofRecord:
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
    return record(budget, [found[name] for name in names], selected=bool(only))


def chosen(names: Sequence[str], only: Sequence[str]) -> list[str]:
    """Those of ``names`` that fit a pattern of ``only``; all of them if ``only`` is empty.

    Raises:
        UsageError: a pattern fits none.
    """
    for pattern in only:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UsageError(f"no check is called {pattern!r}: certify prove --list", code="CHECK_UNKNOWN")
    return [name for name in names if not only or any(fnmatchcase(name, pattern) for pattern in only)]


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None
