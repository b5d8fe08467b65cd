"""Does the guarantee hold? Certified steps, drawn steps, disagreements, exact limits (theory §5).

The published theorem promises with confidence ``1 - alpha`` that a certified step keeps its prediction. Read
as a frequency over inputs it can be tested: in each unit that has certified steps one of them is drawn, and
the rate at which drawn steps disagree with E* is compared with ``alpha``.

Definitions, exact to the last digit:

* *Steps*, their margins, N and disagreement: :mod:`certify.evidence.distances`.
* *Certified*: the criterion of :mod:`certify.stats.theorem` holds, on ``r = margin / 10**9``; ``path``
  (:mod:`certify.stats.path`) on the labels along it. The drawn step does not depend on the premise of
  ``published``; the finding does.
* *Drawn step* of a unit with m > 0 certified steps, pooled in the order of
  :attr:`certify.evidence.load.Evidence.units`: ``int(SHA-256(f"drawn:{unit}"), 16) mod m``, ``unit`` as it
  is named there. Nothing that could be chosen after the results has a part in it.
* *Limits*, each with error ``delta``: Clopper-Pearson for a fixed design; for a sequential one the
  anytime-valid betting bound over drawn steps (1 = disagrees), units in the order drawn.
* *Finding*: VIOLATED if the label of a step that ``path`` certifies is not the unique argmax of Q0, which
  its theorem excludes; else PREMISE_FAILED if the criterion is ``published`` and a row has D > tau(alpha);
  else VACUOUS if no unit has a certified step; else HELD if upper <= alpha, REFUTED if lower > alpha, else
  INCONCLUSIVE. For a fixed design both comparisons are of exact binomial tails, not of rounded limits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from certify.claims.claim import DELTA, Critical, Finding
from certify.evidence.distances import Distances, Step, Units, Violation, violation
from certify.evidence.read import UNIT
from certify.stats.betting import Design
from certify.stats.limits import Limit
from certify.stats.path import PathDecision, decision
from certify.stats.rates import rate_above, rate_at_most, rate_limits
from certify.stats.theorem import DEFAULT_VARIATION, Criterion, critical_margin
from certify.stats.witness import Witness, largest
from certify.ticket.declared import StrengthLaw

MAX_WITNESSES: Final = 50
"""Violations that are listed; all of them are counted."""

MAX_NEEDED: Final = 20_000
"""Largest number of drawn steps that is worked out as needed; exact tails of more take long."""

DESCRIPTIVE_ABOVE: Final = Fraction(1, 10)
"""Above this level a promise with confidence 1 - alpha is shown, but says little."""


@dataclass(frozen=True, slots=True)
class Guarantee:
    """The answer for one criterion, level and arm.

    Attributes:
        criterion: the criterion.
        alpha: the level, as the ticket spells it.
        delta: error probability of each limit.
        finding: HELD, REFUTED, INCONCLUSIVE, VACUOUS, PREMISE_FAILED or VIOLATED.
        descriptive: ``alpha`` is above :data:`DESCRIPTIVE_ABOVE`.
        steps: all steps.
        certified: certified steps.
        violations: certified steps that disagree.
        broken: steps at which the theorem behind ``path`` is violated; 0 for the others.
        units: all units.
        drawn: units with a certified step, one drawn step each: n of the limits.
        disagreements: drawn steps that disagree.
        lower: lower limit of their rate, or None without drawn steps.
        upper: upper limit, likewise.
        needed: number of drawn steps at which the guarantee would be HELD if no further one disagreed; None
            if it is HELD, or if that is more than :data:`MAX_NEEDED`.
        above: ids of rows with D > tau(alpha), for every criterion; the premise of ``published`` if empty.
        vacuous: steps at which ``V sum D >= 1`` (criterion ``additive``; 0 for the others).
        least_loss: smallest ``V sum D`` of all steps, or None without steps (``additive`` only).
        witnesses: violations, at most :data:`MAX_WITNESSES`: in the order of units.
        by_unit: (certified steps, of these disagreeing) of each unit with certified steps, in the order of
            units: what the plain rate with units as clusters needs.
        witness: whether each drawn step disagrees, and both limits; None without drawn steps.
        critical: the counts that decide; None for a sequential design.
    """

    criterion: Criterion
    alpha: str
    delta: Fraction
    finding: Finding
    descriptive: bool
    steps: int
    certified: int
    violations: int
    broken: int
    units: int
    drawn: int
    disagreements: int
    lower: Limit | None
    upper: Limit | None
    needed: int | None
    above: tuple[int, ...]
    vacuous: int
    least_loss: Fraction | None
    witnesses: tuple[Violation, ...]
    by_unit: tuple[tuple[int, int], ...]
    witness: Witness | None = None
    critical: Critical | None = None


def guarantee(
    units: Units,
    distances: Distances,
    *,
    alpha: str,
    criterion: Criterion,
    delta: Fraction = DELTA,
    design: Design = "fixed",
    v: int = DEFAULT_VARIATION,
    law: StrengthLaw | None = None,
) -> Guarantee:
    """Judge the guarantee at one level under one criterion; see the module for every definition.

    Args:
        units: from :func:`measure`.
        distances: the same as for :func:`measure`.
        alpha: decimal level as the ticket spells it; a corrected ticket is judged at its family-wise level.
        criterion: which criterion certifies steps.
        delta: error probability of each limit.
        design: of the evidence.
        v: V of the criterion ``additive``, at least 2.
        law: strengths of the criterion ``path``.

    Raises:
        ValueError: ``alpha`` is not strictly between 0 and 1, ``v`` is below 2, or there are no labels for
            ``path``.
    """
    level = Fraction(alpha)
    certifies = _rule(criterion, distances.d, level, v, law)
    found = {unit: tuple(filter(certifies, steps)) for unit, steps in units.items()}
    certified = {unit: steps for unit, steps in found.items() if steps}
    drawn = [steps[drawn_index(unit, len(steps))].disagrees for unit, steps in certified.items()]
    everything = [step for steps in units.values() for step in steps]
    wrong = [step for steps in certified.values() for step in steps if step.disagrees]
    above = distances.premise(level)
    judged = _judge(drawn, level, delta, design)
    premise = criterion != "published" or not above
    broken = sum(decided(step, law).violation for step in everything) if criterion == "path" else 0
    losses = [v * step.total for step in everything] if criterion == "additive" else []
    return Guarantee(
        criterion=criterion,
        alpha=alpha,
        delta=delta,
        finding=Finding.VIOLATED if broken else judged.finding if premise else Finding.PREMISE_FAILED,
        descriptive=level > DESCRIPTIVE_ABOVE,
        steps=len(everything),
        certified=sum(map(len, certified.values())),
        violations=len(wrong),
        broken=broken,
        units=len(units),
        drawn=len(drawn),
        disagreements=sum(drawn),
        lower=judged.lower,
        upper=judged.upper,
        needed=None if judged.finding is Finding.HELD else units_needed(sum(drawn), len(drawn), level, delta),
        above=above,
        vacuous=sum(loss >= distances.d for loss in losses),
        least_loss=Fraction(min(losses), distances.d) if losses else None,
        witnesses=tuple(violation(step, distances) for step in wrong[:MAX_WITNESSES]),
        by_unit=tuple((len(steps), sum(step.disagrees for step in steps)) for steps in certified.values()),
        witness=judged.witness,
        critical=critical_counts(len(drawn), level, delta) if drawn and design == "fixed" else None,
    )


def drawn_index(unit: str, certified: int) -> int:
    """Which of the ``certified`` steps of a unit is drawn: an index from 0, fixed by the arguments alone."""
    return int(hashlib.sha256(f"drawn:{unit}".encode()).hexdigest(), 16) % certified


def units_needed(disagreements: int, drawn: int, alpha: Fraction, delta: Fraction) -> int | None:
    """Smallest number of drawn steps, at least ``drawn``, that gives HELD with these disagreements.

    The smallest n with ``P(B(n, alpha) <= k) <= delta``: what is needed if no further drawn step disagrees.
    None if that is more than :data:`MAX_NEEDED`.
    """
    low = max(drawn, disagreements + 1) - 1
    high = MAX_NEEDED
    if low >= high or not rate_at_most(disagreements, high, alpha, delta):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if rate_at_most(disagreements, middle, alpha, delta):
            high = middle
        else:
            low = middle
    return high


def critical_counts(n: int, alpha: Fraction, delta: Fraction) -> Critical:
    """How many of n drawn steps may disagree for HELD, and from how many on the promise is REFUTED."""
    held = largest(lambda j: rate_at_most(j - 1, n, alpha, delta), n + 2) - 1
    refuted = largest(lambda j: not rate_above(j - 1, n, alpha, delta), n + 2)
    return Critical(held, refuted)


@dataclass(frozen=True, slots=True)
class _Judged:
    finding: Finding
    lower: Limit | None
    upper: Limit | None
    witness: Witness | None


def _judge(drawn: Sequence[bool], alpha: Fraction, delta: Fraction, design: Design) -> _Judged:
    if not drawn:
        return _Judged(Finding.VACUOUS, None, None, None)
    lower, upper, witness = rate_limits([int(wrong) for wrong in drawn], delta, design)
    if design == "fixed":
        k, n = sum(drawn), len(drawn)
        held, refuted = rate_at_most(k, n, alpha, delta), rate_above(k, n, alpha, delta)
    else:
        held, refuted = upper.value <= alpha, lower.value > alpha
    finding = Finding.HELD if held else Finding.REFUTED if refuted else Finding.INCONCLUSIVE
    return _Judged(finding, lower, upper, witness)


def decided(step: Step, law: StrengthLaw | None) -> PathDecision:
    """What the labels of a step along the path show.

    Raises:
        ValueError: it has none.
    """
    if law is None or step.labels is None:
        raise ValueError("the step has no labels along a path")
    return decision(step.labels, law.n, law.g)


def _rule(
    criterion: Criterion, d: int, alpha: Fraction, v: int, law: StrengthLaw | None
) -> Callable[[Step], bool]:
    # The criteria of certify.stats.theorem multiplied out: a text has many steps. Tests compare the two.
    if v < 2:
        raise ValueError(f"a decision that can change has variation 2 at least, not {v}")
    if criterion == "published":
        least = critical_margin(d, alpha, UNIT)
        return lambda step: step.margin >= least
    if criterion == "path":
        return lambda step: decided(step, law).certified
    if criterion == "measured-max":
        return lambda step: step.margin * d > 2 * step.largest * UNIT
    return lambda step: step.margin * d > v * step.total * UNIT
