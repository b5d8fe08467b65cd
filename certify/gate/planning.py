"""How many units a claim needs: ``certify power`` as a function (theory §5). For planning; decides nothing.

A claim is written as its goal: ``agreement:0.95`` (share of units that agree entirely),
``token-agreement:0.95``, ``guarantee:0.05`` (rate of disagreement at drawn certified steps),
``non-inferiority:1.0`` and ``gain:0`` (mean difference of sentence chrF to embed tuning and to the base,
first line). What must be assumed about the truth is given, or taken from earlier evidence, which then must
not be the evidence of the claim.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal

from certify.base.errors import NothingToDoError, UsageError
from certify.claims.agreement import equal_shares
from certify.claims.criteria import drawn_index
from certify.claims.quality import unit_scores
from certify.evidence.distances import Distances, measure
from certify.evidence.load import Evidence
from certify.evidence.read import BASE_ARM, REFERENCE_ARM, UNIT, Arm
from certify.stats.power import clean_units_needed, units_for_agreement, units_for_mean, units_for_rate
from certify.stats.theorem import critical_margin

ClaimKind = Literal["agreement", "token-agreement", "guarantee", "non-inferiority", "gain"]

KINDS: Final[tuple[ClaimKind, ...]] = (
    *("agreement", "token-agreement", "guarantee"),
    *("non-inferiority", "gain"),
)

_CLAIM = re.compile(r"([a-z-]+):(-?(?:[0-9]{0,3}\.[0-9]{1,12}|[0-9]{1,3}))")


@dataclass(frozen=True, slots=True)
class Planned:
    """A claim to plan for.

    Attributes:
        kind: see the module.
        value: the rate, level, margin (points that may be lost) or gain that is to be shown.
    """

    kind: ClaimKind
    value: Fraction

    @property
    def is_rate(self) -> bool:
        """A share of units, planned for with exact binomial laws."""
        return self.kind in ("agreement", "guarantee")


@dataclass(frozen=True, slots=True)
class Truth:
    """What is assumed to be true.

    Attributes:
        value: the rate, mean agreement or mean difference; None where it is not known.
        sd: standard deviation of a unit, for means; None where it is not known.
        source: where both come from, in words.
    """

    value: Fraction | None
    sd: Fraction | None
    source: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer.

    Attributes:
        claim: the claim.
        truth: what was assumed.
        delta: error probability of the limit.
        power: wanted probability of showing the claim.
        units: units needed; None if the truth is not known, or leaves nothing to show.
        clean: units needed if not one of them speaks against the claim; for rates only.
        exact: the units are of an exact law; otherwise of simulated normal units.
        obstacle: why ``units`` is None.
    """

    claim: Planned
    truth: Truth
    delta: Fraction
    power: Fraction
    units: int | None
    clean: int | None
    exact: bool
    obstacle: str


def parse_claim(text: str) -> Planned:
    """Read ``agreement:0.95``, ``guarantee:0.05``, ``non-inferiority:1.0``, ``gain:0`` and the like.

    Raises:
        UsageError: another kind, or a value out of range (``CLAIM``).
    """
    found = _CLAIM.fullmatch(text)
    for kind in KINDS:
        if found and found[1] == kind:
            value = Fraction(found[2])
            low, high = {"non-inferiority": (0, 100), "gain": (-100, 100)}.get(kind, (0, 1))
            if low < value < high:
                return Planned(kind, value)
    raise UsageError(
        "a claim is agreement:A, token-agreement:A or guarantee:ALPHA with a value between 0 and 1, or"
        f" non-inferiority:POINTS or gain:POINTS, not {text!r}",
        code="CLAIM",
    )


def plan(claim: Planned, truth: Truth, *, delta: Fraction, power: Fraction) -> Plan:
    """Units needed to show ``claim`` with probability ``power``, if ``truth`` is true.

    Raises:
        UsageError: a number out of range, or too many units (:mod:`certify.stats.power`).
    """
    clean = None
    if claim.is_rate:
        clean = clean_units_needed(claim.value if claim.kind == "guarantee" else 1 - claim.value, delta)
    obstacle = _obstacle(claim, truth)
    units = None if obstacle else _units(claim, truth, delta, power)
    return Plan(claim, truth, delta, power, units, clean, claim.is_rate, obstacle)


def truth_of(claim: Planned, evidence: Evidence, arm: Arm, *, width: int | None = None) -> Truth:
    """What ``evidence`` suggests about the truth behind ``claim``: estimates, no limits.

    Args:
        claim: the claim.
        evidence: translations.
        arm: the ticket's arm.
        width: entries of a row, d, for ``guarantee``: its steps are those that the published criterion
            certifies at the claim's level, one drawn from each unit.

    Raises:
        UsageError: ``width`` is needed (``TICKET_NEEDED``).
        NothingToDoError: no certified step, or fewer than two units (``NO_UNITS``).
    """
    source = f"estimated from {evidence.manifest.text.name}, arm {arm.name}"
    if claim.kind == "guarantee":
        if width is None:
            raise UsageError("the rate of a guarantee needs --ticket: its width", code="TICKET_NEEDED")
        drawn = _drawn(claim.value, evidence, arm, width)
        return Truth(Fraction(sum(drawn), len(drawn)), None, f"{source}, {len(drawn)} drawn steps")
    shares = equal_shares(evidence, arm.name)
    if claim.kind == "agreement":
        agreeing = sum(share == 1 for share in shares)
        return Truth(Fraction(agreeing, len(shares)), None, f"{source}, {len(shares)} units")
    if claim.kind == "token-agreement":
        values: Sequence[Fraction] = shares
    else:
        other = BASE_ARM if claim.kind == "gain" else REFERENCE_ARM
        ours, theirs = (unit_scores(evidence, name, "first-line") for name in (arm.name, other))
        values = [mine - its for mine, its in zip(ours, theirs, strict=True)]
    return Truth(sum(values, Fraction(0)) / len(values), _deviation(values), f"{source}, {len(values)} units")


def _drawn(alpha: Fraction, evidence: Evidence, arm: Arm, width: int) -> list[bool]:
    evidence.check_steps()
    least = critical_margin(width, alpha, UNIT)
    drawn = []
    for unit, steps in measure(evidence.units, arm.name, Distances(width, {})).items():
        certified = [step for step in steps if step.margin >= least]
        if certified:
            drawn.append(certified[drawn_index(unit, len(certified))].disagrees)
    if not drawn:
        raise NothingToDoError("the evidence holds no certified step at this level", code="NO_UNITS")
    return drawn


def _deviation(values: Sequence[Fraction]) -> Fraction:
    """Sample standard deviation over units, rounded up to six decimals."""
    if len(values) < 2:
        raise NothingToDoError("a standard deviation needs at least two units", code="NO_UNITS")
    mean = sum(values, Fraction(0)) / len(values)
    variance = sum(((value - mean) ** 2 for value in values), Fraction(0)) / (len(values) - 1)
    scaled = variance * 10**12
    return Fraction(math.isqrt(-(-scaled.numerator // scaled.denominator)) + 1, 10**6)


def _obstacle(claim: Planned, truth: Truth) -> str:
    if truth.value is None:
        return "the true value is not known: name it with --truth, or take it from --evidence"
    if not claim.is_rate and truth.sd is None:
        return "the standard deviation of a unit is not known: --sd, or --evidence"
    shown = -claim.value if claim.kind == "non-inferiority" else claim.value
    if truth.value >= shown if claim.kind == "guarantee" else truth.value <= shown:
        return f"what is true ({float(truth.value):g}) is not better than what is to be shown"
    return ""


def _units(claim: Planned, truth: Truth, delta: Fraction, power: Fraction) -> int:
    value, sd = truth.value, truth.sd
    if value is None:
        raise ValueError("units are worked out for a known truth")
    if claim.kind == "agreement":
        return units_for_agreement(claim.value, value, delta, power)
    if claim.kind == "guarantee":
        return units_for_rate(claim.value, value, delta, power)
    if sd is None:
        raise ValueError("units for a mean are worked out for a known standard deviation")
    if claim.kind == "token-agreement":
        # Shares in [0, 1] as differences to one half, of which the range is 1 wide.
        half = Fraction(1, 2)
        return units_for_mean(half - claim.value, sd, delta, power, truth=value - half, scale=1)
    margin = claim.value if claim.kind == "non-inferiority" else -claim.value
    return units_for_mean(margin, sd, delta, power, truth=value)
