"""``certify.claims.criteria.guarantee`` on predictors of known disagreement: wrong findings, and power.

The populations have what makes the question hard (theory §5). Steps of a unit disagree together, the number
of certified steps goes with the rate, the steps that disagree come last, and some units have no certified
step at all. So the rate at which a *drawn* step disagrees is not the rate over all certified steps, nor over
first steps, nor over all units: whoever takes one for the other is far on the wrong side.
"""

from __future__ import annotations

from fractions import Fraction
from functools import partial
from itertools import islice
from typing import Any, Final

import numpy as np
from scipy.stats import binom

from certify.evidence.distances import Distances, measure
from certify.stats.theorem import CRITERIA
from proofs_checks.coverage.trials import DELTA, Trial, clear
from proofs_checks.worlds.populations import Population, decided, drawn_rate

ALPHA: Final = "0.1"
"""Level of the tickets; not the error probability, so that one cannot stand for the other."""

DISTANCES: Final = Distances(256, {20: 20})
"""One changed row, in every prompt: margins above .3125 are certified by every criterion, .1 by none."""

UNITS: Final = 120

ABOVE: Final = decided(
    "a hair above alpha, short units disagree",
    *((5000, "uux"), (602, "aD"), (600, "aaaD|aD"), (798, "a"), (3000, "aaaaaaaaaaaa")),
)
"""Drawn steps disagree at rate .1002, certified steps taken together at .043, the first ones never."""

AT: Final = decided(
    "at alpha, long units disagree",
    *((5000, "xu"), (1000, "aaaaaa|uDDDDDD"), (2000, "au"), (2000, "a|u")),
)
"""Drawn steps disagree at rate alpha; of all certified steps 3/8, any step of a unit in 1/5 of them."""

GOOD: Final = decided("one in a hundred", (10, "u"), (80, "aaa"), (9, "a|aa"), (2, "aD"))
BAD: Final = decided("three in ten", (10, "u"), (20, "aaDD"), (20, "D"), (60, "aa"))
IDLE: Final = decided("no certified step", (1, "u"), (1, "ux|u"))


def attained(population: Population, n: int, alpha: Fraction, delta: Fraction, finding: str) -> float:
    """Probability of a finding from ``n`` units of a fixed design, by the law of counts.

    The number of units with a certified step is binomial, and so is that of disagreements given the former.
    """
    certified, rate = map(float, drawn_rate(population))
    found = 0.0
    for drawn in range(1, n + 1):
        counts = np.arange(drawn + 1)
        if finding == "held":
            sure = binom.cdf(counts, drawn, float(alpha)) <= float(delta)
        else:
            sure = binom.sf(counts - 1, drawn, float(alpha)) < float(delta)
        found += binom.pmf(drawn, n, certified) * binom.pmf(counts[sure], drawn, rate).sum()
    return float(found)


def try_guarantee(
    module: Any, n: int, draws: int, random: np.random.Generator, delta: Fraction = DELTA, looks: int = 4
) -> list[Trial]:
    """False HELD just above ``alpha``, false REFUTED at it; HELD where nothing is certified.

    A fixed design is judged once; there the law of counts gives the rate exactly. A sequential one is looked
    at several times, evenly spaced, and stops at the first finding: that is what it is for. It takes ten
    times as long and gets a quarter of the draws.
    """
    trials = []
    for population, finding in ((ABOVE, "held"), (AT, "refuted"), (IDLE, "held")):
        for design, share in (("fixed", 1), ("sequential", 4)):
            some = 12 if population is IDLE else draws // share
            seen = looks if design == "sequential" else 1
            misses = _count(module, population, n, some, random, delta, design, finding, seen)
            known = 0.0
            if design == "fixed" and population is not IDLE:
                known = attained(population, n, Fraction(ALPHA), delta, finding)
            what = f"{finding}, {design}, {population.name}"
            trials.append(Trial(what, misses, some, float(delta), known))
    return trials


def try_power(
    module: Any, n: int, draws: int, random: np.random.Generator, delta: Fraction = DELTA
) -> list[Trial]:
    """How often a clear truth is not found out."""
    trials = []
    for population, finding in ((GOOD, "held"), (BAD, "refuted")):
        for design in ("fixed", "sequential"):
            found = _count(module, population, n, draws, random, delta, design, finding, 1)
            what = f"not {finding}, {design}, {population.name}"
            trials.append(clear(what, found, draws))
    return trials


def _count(
    module: Any,
    population: Population,
    n: int,
    draws: int,
    random: np.random.Generator,
    delta: Fraction,
    design: str,
    finding: str,
    looks: int,
) -> int:
    """In how many draws the finding is the first one, at so many looks."""
    judge = partial(module.guarantee, alpha=ALPHA, delta=delta, design=design)
    found = 0
    for number, evidence in enumerate(population.samples(n, draws, random)):
        units = measure(evidence.units, "t", DISTANCES)
        heads = (dict(islice(units.items(), n * look // looks)) for look in range(1, looks + 1))
        criterion = CRITERIA[number % len(CRITERIA)]
        made = (judge(head, DISTANCES, criterion=criterion).finding for head in heads)
        # Drawing stops when something was decided, whatever it is.
        found += next((one for one in made if one in ("held", "refuted")), None) == finding
    return found
