"""The clauses of the theory, and the checks that try to break each of them.

A clause is a statement that the project relies on or warns about, by section. :func:`gaps` finds clauses
without a check and checks without a clause; either fails the build.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Final

_TABLE: Final = {
    # §2 the scan
    "§2 D: both CDFs advance past equal values; -0 = +0; NaN is an error": (
        "mutations.distances mutations.compiled mutations.dtypes laws.ties"
    ),
    "§2 exact null law, two-sided and one-sided": "laws.paths laws.bands laws.enclosures mutations.law",
    "§2 one table of n + 1 p-values serves all rows": "laws.table mutations.law",
    "§2 with ties p is conservative": "laws.ties coverage.selection",
    "§2 published threshold: D > tau(alpha) iff d D^2 > ln(2/alpha)": (
        "laws.published-threshold mutations.law mutations.theorem"
    ),
    "§2 golden values at n = 4096": "laws.golden",
    "§2 2 exp(-h^2/n) dominates the exact law only for n >= 458": "laws.dominance laws.dominance-beyond",
    "§2 selection T(alpha) is nested in alpha": "coverage.selection-nested",
    "§2 corrections: Bonferroni, Holm, BH, BY": (
        "coverage.selection coverage.selection-mixed mutations.corrections mutations.selection"
    ),
    "§2 the p-value is a screening score: paired rows, bf16, blind spots": (
        "coverage.selection counterexamples.C1"
    ),
    # §3 the published theorem and its assumptions
    "§3 published criterion r > 2 tau with its premise": (
        "mutations.theorem mutations.guarantee mutations.premise"
    ),
    "§3 A-LAW": "counterexamples.C1 counterexamples.C1-llama",
    "§3 A-SCALAR": "counterexamples.C7",
    "§3 A-POINT": "search.A-POINT",
    "§3 A-ORDER(V)": "counterexamples.C4 counterexamples.C8",
    "§3 A-ONE": "counterexamples.C5",
    "§3 A-NULL": "counterexamples.A-NULL",
    # §4 the theorem
    "§4 theorem, one coordinate": "smt.one-coordinate smt.any-scores exact.inequality",
    "§4 theorem, several coordinates: deviations add": (
        "smt.two-coordinates smt.three-coordinates exact.inequality tightness.sum"
    ),
    "§4 independence is essential": "smt.wrong.dependent search.independence",
    "§4 corollary: the criterion keeps the argmax": (
        "exact.every-string exact.two-coordinates exact.three-coordinates search.random smt.one-coordinate "
        "mutations.theorem"
    ),
    "§4 corollary: strictly greater": "exact.strict smt.wrong.not-strict",
    "§4 V from the label string": "exact.runs exact.every-string tightness.constants mutations.theorem",
    "§4 table: two half-lines, 2D": "exact.half-lines smt.wrong.d-for-2d",
    "§4 table: A at one end or A C B, 3D": "exact.one-end smt.wrong.2d-three-classes",
    "§4 table: every class an interval, 4D": (
        "exact.intervals exact.interval smt.wrong.3d-intervals smt.wrong.2d-interval"
    ),
    "§4 table: A in k pieces, 4kD": "exact.pieces",
    "§4 table: C B A B C, 6D": "exact.c-b-a-b-c smt.wrong.4d-nested",
    "§4 table: arbitrary sets, no bound": "exact.unbounded",
    "§4 the maximum over coordinates is wrong": "smt.wrong.maximum* counterexamples.C5",
    "§4 N and the sum over it; VACUOUS": "mutations.steps mutations.theorem",
    "§4 C1": "counterexamples.C1 counterexamples.C1-llama",
    "§4 C2": "counterexamples.C2",
    "§4 C3": "counterexamples.C3",
    "§4 C4": "counterexamples.C4 smt.wrong.2d-interval",
    "§4 C5": "counterexamples.C5 smt.wrong.maximum",
    "§4 C6": "counterexamples.C6 smt.wrong.not-strict",
    "§4 C7": "counterexamples.C7",
    "§4 C8": "counterexamples.C8 smt.wrong.2d-three-classes",
    # §4b the path theorem
    "§4b theorem: certified labels are kept, for all decision regions": "path.every-string mutations.path",
    "§4b D is the Kolmogorov distance, as the laws are log-concave": "path.kolmogorov",
    "§4b L and U by Neyman and Pearson": "path.bounds mutations.path",
    "§4b strictly greater; the ratio must be monotone": "path.counterexamples mutations.path",
    # §5 certificates without these assumptions
    "§5 structural: rows act only where they are fed": "mutations.opportunity mutations.transfer",
    "§5 agreement: Clopper-Pearson by exact binomial tails": (
        "coverage.counts laws.clopper-pearson mutations.rates mutations.agreement mutations.opposite"
    ),
    "§5 means: betting": "coverage.betting coverage.betting-many coverage.betting-limits mutations.betting",
    "§5 quality: paired differences of sentence chrF": "coverage.betting-limits mutations.quality",
    "§5 anytime-valid limits for early stopping; units are drawn, not picked": (
        "coverage.betting-many mutations.looks mutations.sampling"
    ),
    "§6 unrelated text: the loss before and after": "mutations.loss mutations.records",
    "§5 the published guarantee: one certified step for each unit, exact limits": (
        "coverage.drawn-steps coverage.counts laws.clean-units mutations.guarantee coverage.guarantee"
    ),
    "§5 every claim, from records to the answer": "coverage.claims mutations.requirement mutations.opposite",
    "§5 units that are not independent": "coverage.clusters coverage.asymptotic",
    "§5 several claims share the error budget; Learn then Test": (
        "coverage.budget coverage.texts coverage.ltt mutations.choice mutations.certificate"
    ),
    "§5 randomisation p-values count ties": "coverage.randomisation",
    "§5 bootstrap and clustered rates are asymptotic": "coverage.asymptotic",
    "§5 corpus BLEU and chrF from sufficient statistics": "mutations.corpus",
    "§5 units needed: 59 and 2,995": "laws.clean-units coverage.planning mutations.planning",
    "§5 no bound without a check": "coverage.entries",
    # §7 honest numbers
    "§7 bounds are rounded toward the weaker claim": (
        "laws.clopper-pearson laws.table coverage.counts mutations.rounding mutations.rates"
    ),
    "§7 verdicts: false ones at most with probability delta, good ones mostly": (
        "coverage.verdict coverage.texts mutations.texts"
    ),
    "§7 what is missing or did not run is no pass": "mutations.verdict mutations.json mutations.requirement",
    "§7 scan, tuning, choice and evaluation data are disjoint": "mutations.split mutations.checker",
    "§7 nothing is believed that can be computed again": (
        "mutations.checker mutations.certificate mutations.premise"
    ),
}

CLAUSES: Final = {clause: tuple(names.split()) for clause, names in _TABLE.items()}
"""Checks of each clause; ``*`` stands for anything in a name."""


def checks_of(clause: str, names: Iterable[str]) -> list[str]:
    """Those of ``names`` that the table lists for ``clause``."""
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in CLAUSES[clause])]


def gaps(names: Iterable[str]) -> list[str]:
    """What is wrong between the table and the checks called ``names``, in words; empty if nothing."""
    names = list(names)
    found = []
    listed = {pattern for patterns in CLAUSES.values() for pattern in patterns}
    for pattern in sorted(listed):
        if not any(fnmatchcase(name, pattern) for name in names):
            found.append(f"the table lists {pattern}, but there is no such check")
    found += [f"no check for: {clause}" for clause in CLAUSES if not checks_of(clause, names)]
    for name in names:
        if not any(fnmatchcase(name, pattern) for pattern in listed):
            found.append(f"{name} is a check of no clause")
    return found
