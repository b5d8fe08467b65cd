"""No bound without a check: which functions are bounds, and which checks try each of them.

What belongs here is found by rules, not remembered. A module of ``certify`` *handles error probabilities* if
it imports from a module that defines limits or tests (:data:`MACHINERY`), or if a public function or method
of it takes an argument ``delta``. Each such module is either in :data:`MODULES`, and then every public name
in it that can be called has an entry of its own, or in :data:`ELSEWHERE`, with the checks that judge the
module as a whole. The command line is left out: it passes on what it is given.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Final, get_origin

import certify
from certify.gate import choose
from certify.stats import betting, power, rates, resampling
from certify.stats import budget as sharing
from proofs_checks.check import Budget, Check, CheckFinding, check

_STATS = ("limits", "rates", "betting", "resampling", "budget", "power")
MACHINERY: Final = frozenset({*(f"certify.stats.{name}" for name in _STATS), "certify.gate.choose"})
"""Modules that define limits, tests and what shares an error probability."""

MODULES: Final[tuple[ModuleType, ...]] = (rates, betting, resampling, sharing, power, choose)
"""Modules of which everything public has an entry."""

_COUNTS = "coverage.counts laws.clopper-pearson"


def _table(*rows: tuple[str, str]) -> dict[str, tuple[str, ...]]:
    """Names and their checks, from rows of checks and the names that they try."""
    return {name: tuple(checks.split()) for checks, names in rows for name in names.split()}


ENTRIES: Final = _table(
    (_COUNTS, "rates.binomial_tail_at_least rates.binomial_tail_at_most rates.clopper_pearson"),
    (_COUNTS, "rates.rate_above rates.rate_at_least rates.rate_at_most"),
    (f"{_COUNTS} coverage.clusters", "rates.rate_limit"),
    ("coverage.claims coverage.guarantee", "rates.rate_limits"),  # one of two bounds, by the design
    ("coverage.betting coverage.betting-many", "betting.betting_exceeds betting.betting_p_value"),
    # plog tunes the bets; validity must not depend on it, usefulness does
    ("coverage.betting coverage.betting-many", "betting.decided_after betting.plog"),
    ("coverage.betting-limits", "betting.betting_lower betting.betting_upper betting.difference_lower"),
    ("coverage.betting-limits", "betting.noninferior"),
    ("coverage.asymptotic", "resampling.cluster_rate resampling.paired_bootstrap"),
    ("coverage.randomisation", "resampling.paired_swap"),
    ("coverage.budget", "budget.fixed_sequence"),
    ("coverage.planning laws.clean-units", "power.clean_units_needed"),
    ("coverage.planning", "power.simulated_power power.units_for_agreement"),
    ("coverage.planning", "power.units_for_mean power.units_for_rate power.units_for_share"),
    ("coverage.ltt", "choose.Choice choose.Goal choose.Tested"),
    ("coverage.ltt", "choose.candidates choose.choose choose.parse_goal"),
)
"""Checks of everything public in :data:`MODULES`, by module and name."""

ELSEWHERE: Final = _table(
    ("coverage.betting-limits", "stats.limits"),
    ("coverage.claims", "stats.witness evidence.load claims.agreement claims.kind claims.loss"),
    ("coverage.claims", "claims.claim claims.quality claims.registry evidence.sentence_scores"),
    ("coverage.asymptotic", "evidence.corpus_scores"),
    ("coverage.claims coverage.asymptotic", "claims.corpus"),
    ("coverage.guarantee coverage.drawn-steps", "claims.criteria"),
    ("coverage.claims coverage.texts", "claims.every"),
    ("coverage.guarantee coverage.asymptotic", "claims.promise"),
    ("coverage.guarantee", "claims.calibrated gate.calibrate"),
    ("coverage.texts", "certificate.build certificate.schema"),
    ("coverage.verdict", "checker gate.issue"),
    ("coverage.ltt", "gate.find"),
    ("coverage.planning", "gate.planning"),
)
"""Checks of the other modules, or folders, that handle error probabilities with bounds of :data:`MODULES`."""


def public_names(module: ModuleType) -> list[str]:
    """What others can call in a module: functions, cached or partial ones too, and classes; no type aliases.

    Names that the module imports are another module's; they are told by its source, because not everything
    that can be called knows where it was made.
    """
    tree = ast.parse(Path(module.__file__ or "").read_text(encoding="utf-8"))
    imported = {
        (alias.asname or alias.name).partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    return sorted(
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and name not in imported and callable(value) and get_origin(value) is None
    )


def handles_errors(source: str) -> bool:
    """Whether a module with this source handles error probabilities; see the text of this module."""
    tree = ast.parse(source)
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    bodies = [tree.body, *(node.body for node in ast.walk(tree) if isinstance(node, ast.ClassDef))]
    return bool(names & MACHINERY) or any(_takes_delta(node) for body in bodies for node in body)


def _takes_delta(node: ast.stmt) -> bool:
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or node.name.startswith("_"):
        return False
    arguments = node.args
    return any(one.arg == "delta" for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs))


def folder() -> Path:
    """Where the modules of ``certify`` lie."""
    return Path(certify.__file__).parent


def named(folder: Path) -> dict[str, str]:
    """Source text of every module below a folder, by dotted name; without the command line."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        name = ".".join(path.relative_to(folder).with_suffix("").parts)
        if not name.startswith("cli."):
            found[name] = path.read_text(encoding="utf-8")
    return found


def unlisted(
    modules: Sequence[ModuleType], sources: Mapping[str, str], names: Callable[[ModuleType], Sequence[str]]
) -> list[str]:
    """What has no entry, or has one and is gone, in words; empty if nothing.

    Everything that is among the ``names`` of one of ``modules`` has an entry. ``sources`` are those of every
    module of the package, by name without the package's.
    """
    short = {module.__name__.rpartition(".")[2]: module for module in modules}
    found = {f"{name}.{public}" for name, module in short.items() for public in names(module)}
    wrong = [f"no entry for {name}" for name in sorted(found - set(ENTRIES))]
    wrong += [f"an entry for {name}, which is gone" for name in sorted(set(ENTRIES) - found)]
    handling = {name for name, source in sources.items() if handles_errors(source)}
    handling -= {module.__name__.removeprefix("certify.") for module in modules}
    covered = {name: {name, name.rpartition(".")[0]} & set(ELSEWHERE) for name in handling}
    wrong += [f"no entry for the module {name}" for name in sorted(covered) if not covered[name]]
    needless = set(ELSEWHERE) - set().union(*covered.values())
    wrong += [f"an entry for the module {name}, without need" for name in sorted(needless)]
    return wrong


@check("coverage.entries", "§5: no bound without a check")
def entries(_: Budget) -> CheckFinding:
    """The table of entries against the modules, the public names in them, and every other module."""
    sources = named(folder())
    wrong = unlisted(MODULES, sources, public_names)
    detail = f"{len(ENTRIES)} names in {len(MODULES)} modules, and {len(ELSEWHERE)} modules that use them"
    return CheckFinding("failed" if wrong else "passed", len(sources), "; ".join(wrong) or detail)


CHECKS: tuple[Check, ...] = (entries,)
