"""What a check of the theory is, and what it reports; shared by every check in this package.

A check is a function from a :class:`Budget` to a :class:`CheckFinding`, or to facts that are to hold
(:func:`decided`), registered with :func:`check`. Its result is a :class:`CheckResult`: the finding with the
clause, the assumptions and the time it took. Only ``passed`` counts as a pass: a check that could not run,
ran out of time or crashed says so.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import wraps
from typing import Literal, ParamSpec

Outcome = Literal["passed", "failed", "not run", "timeout"]
"""How a check ended. ``timeout`` is a search that did not finish; it proves nothing."""

Tier = Literal["fast", "full"]
"""How deep checks look: ``full`` where minutes are allowed."""

OUTCOMES: tuple[Outcome, ...] = ("passed", "failed", "not run", "timeout")

P = ParamSpec("P")

Fact = tuple[str, bool]
"""A fact in words, and whether it holds."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What a check may spend.

    Checks look deeper where the ``tier`` is ``full``. Searches stop after so many ``seconds``, and
    report ``timeout`` if what they had to show is still open. Checks that draw at random have the ``seed``.
    """

    tier: Tier = "fast"
    seconds: float = 60.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.tier not in ("fast", "full"):
            raise ValueError(f"tier is fast or full, not {self.tier!r}")
        if not 0 < self.seconds < float("inf"):
            raise ValueError("seconds must be positive and finite")

    @property
    def full(self) -> bool:
        """Whether minutes are allowed."""
        return self.tier == "full"


@dataclass(frozen=True, slots=True)
class CheckFinding:
    """What the function behind a check returns; see :class:`CheckResult` for the attributes."""

    outcome: Outcome
    cases: int
    detail: str
    witness: str | None = None

    @property
    def fact(self) -> Fact:
        """The finding as a fact, which holds if it is a pass."""
        return self.detail, self.outcome == "passed"


Facts = Generator[Fact, None, str | CheckFinding]
"""Facts that are to hold, and at the end what to say of a pass; or a finding that says more."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One line of the table that ``certify prove`` prints.

    Attributes:
        name: unique, such as ``exact.half-lines``.
        clause: clause of the theory that it tries to break.
        assumptions: those that the clause needs (``A-ONE``, ...), or that the check drops on purpose.
        outcome: how it ended.
        cases: cases tried (models enumerated, queries solved); 0 if it did not run.
        seconds: wall time, for information only.
        detail: one line: what was found, or why nothing was.
        witness: a counterexample or attaining case, exact, in words.
    """

    name: str
    clause: str
    assumptions: tuple[str, ...]
    outcome: Outcome
    cases: int
    seconds: float
    detail: str
    witness: str | None = None

    def __post_init__(self) -> None:
        if self.outcome not in OUTCOMES:
            raise ValueError(f"outcome must be one of {', '.join(OUTCOMES)}, not {self.outcome!r}")
        if self.cases < 0:
            raise ValueError("the number of cases is negative")
        if self.outcome == "passed" and self.cases < 1:
            raise ValueError(f"{self.name}: a check that tried no case has not passed")
        if self.outcome != "passed" and not self.detail:
            raise ValueError(f"{self.name}: {self.outcome} needs a reason")

    @property
    def passed(self) -> bool:
        """Whether the check ran and found what the theory says."""
        return self.outcome == "passed"


@dataclass(frozen=True, slots=True)
class Check:
    """A registered check: ``run`` stays within a budget, and an exception of it is a defect of the check.

    Without the importable modules ``needs`` (``scipy``, ``z3``, ``flint``) it is ``not run``.
    """

    name: str
    clause: str
    assumptions: tuple[str, ...]
    run: Callable[[Budget], CheckResult]
    needs: tuple[str, ...]

    def result(self, finding: CheckFinding, seconds: float = 0.0) -> CheckResult:
        """The finding as a result of this check."""
        about = (self.name, self.clause, self.assumptions, finding.outcome, finding.cases, seconds)
        return CheckResult(*about, finding.detail, finding.witness)


def check(
    name: str, clause: str, assumptions: tuple[str, ...] = (), *, needs: tuple[str, ...] = ()
) -> Callable[[Callable[[Budget], CheckFinding | Facts]], Check]:
    """Decorator that turns a function from a budget to a finding, or to facts, into a :class:`Check`.

    The check times the function, is ``not run`` if one of ``needs`` cannot be imported, and lets
    exceptions through: see :func:`execute` for a runner that reports them.
    """

    def register(function: Callable[[Budget], CheckFinding | Facts]) -> Check:
        def run(budget: Budget) -> CheckResult:
            absent = missing(needs)
            started = time.perf_counter()
            if absent:
                hint = "python -m pip install -e '.[all]'"
                finding = CheckFinding("not run", 0, f"needs {', '.join(absent)}: {hint}")
            else:
                found = function(budget)
                finding = found if isinstance(found, CheckFinding) else finding_of(found)
            return made.result(finding, time.perf_counter() - started)

        made = Check(name, clause, assumptions, run, needs)
        return made

    return register


def finding_of(facts: Facts) -> CheckFinding:
    """Passed if every fact holds; the first that does not is what failed. Facts are the cases."""
    cases = 0
    while True:
        try:
            words, holds = next(facts)
        except StopIteration as end:
            return (
                end.value if isinstance(end.value, CheckFinding) else CheckFinding("passed", cases, end.value)
            )
        cases += 1
        if not holds:
            return CheckFinding("failed", cases, words)


def decided(judge: Callable[P, Facts]) -> Callable[P, CheckFinding]:
    """Decorator of a judge that yields facts: it returns what :func:`finding_of` makes of them."""

    @wraps(judge)
    def decide(*args: P.args, **kwargs: P.kwargs) -> CheckFinding:
        return finding_of(judge(*args, **kwargs))

    return decide


def missing(modules: tuple[str, ...]) -> tuple[str, ...]:
    """Those of ``modules`` (top-level names) that cannot be imported, with a reason where installed.

    They are imported, as the check would: a package whose shared library is gone or belongs to another
    machine is there for a look at the path and for nothing else.
    """
    found = []
    for name in modules:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            found.append(name if error.name == name else f"{name} (installed without {error.name})")
        # Whatever keeps a package from being imported (z3 raises an exception of its own), it cannot be used.
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            found.append(f"{name} (installed, but cannot be imported: {reason})")
    return tuple(found)


def execute(item: Check, budget: Budget) -> CheckResult:
    """Run ``item``; a crash is ``failed``, with the exception's text."""
    started = time.perf_counter()
    try:
        return item.run(budget)
    # One broken check must not hide the results of the others, and must not look like a pass.
    except Exception as error:
        detail = f"crashed: {type(error).__name__}: {' '.join(str(error).split())}"
        return item.result(CheckFinding("failed", 0, detail), time.perf_counter() - started)
