"""How many units a claim needs: ``certify power`` as a function (theory §5). For planning; decides nothing.

A claim is written as its goal: ``agreement:0.95`` (share of units that agree entirely),
``token-agreement:0.95``, ``guarantee:0.05`` (rate of disagreement at drawn certified steps) or, with a
ticket, ``guarantee:published`` at its level and ``guarantee:calibrated`` at its margin;
``non-inferiority:1.0``, ``gain:0`` and ``retention:0.5`` (differences of mean sentence chrF, under an
extraction rule); ``unrelated-loss:0.1`` and ``unrelated-excess:0.05``. The assumed truth is
given or estimated from earlier evidence, which must not also support the claim.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Final, Literal, get_args

from certify.base.errors import NothingToDoError, UsageError
from certify.base.records import RULES, Rule
from certify.claims.agreement import equal_shares
from certify.claims.calibrated import COMMAND, disagreement_shares, own_steps, sure_steps
from certify.claims.criteria import drawn_index
from certify.claims.kind import Role
from certify.claims.loss import CAP, unit_rises
from certify.evidence.distances import Distances, measure
from certify.evidence.load import Evidence
from certify.evidence.read import BASE_ARM, REFERENCE_ARM, UNIT, Arm
from certify.evidence.sentence_scores import POINT, unit_scores
from certify.policy.outcomes import asked
from certify.policy.policy import Policy
from certify.policy.requirement import Requirement, declared
from certify.stats.power import (
    clean_units_needed,
    units_for_agreement,
    units_for_mean,
    units_for_rate,
    units_for_share,
)
from certify.stats.theorem import Criterion, critical_margin
from certify.ticket.schema import Ticket

ClaimKind = Literal[
    "agreement",
    "token-agreement",
    "guarantee",
    "non-inferiority",
    "gain",
    "retention",
    "unrelated-loss",
    "unrelated-excess",
]

KINDS: Final[tuple[ClaimKind, ...]] = get_args(ClaimKind)

_UPPER: Final = ("guarantee", "unrelated-loss", "unrelated-excess")
"""Kinds for which smaller is better, so that their upper limits are tested."""

_NAMES: Final[Mapping[str, ClaimKind]] = {
    "agreement-rate": "agreement",
    "template-agreement": "agreement",
    "template-gain": "gain",
    **{kind: kind for kind in KINDS},
}
"""Kinds of claims that can be planned for, as policies call them."""

_SCORED: Final = ("non-inferiority", "gain", "retention")
"""Kinds about quality, under an extraction rule."""

_RANGES: Final = {"non-inferiority": (0, 100), "gain": (-100, 100), "unrelated-loss": (0, CAP)}
"""Open range of the value of a kind where it is not (0, 1)."""

_CLAIM = re.compile(r"([a-z-]+):(-?(?:[0-9]{0,3}\.[0-9]{1,12}|[0-9]{1,3}))")


@dataclass(frozen=True, slots=True)
class Planned:
    """A claim to plan for.

    Attributes:
        kind: see the module.
        value: the rate, level, margin (points that may be lost), gain or share that is to be shown.
        criterion: of a guarantee; evidence tells the rates of ``published`` and ``calibrated`` alone.
        t: the margin of ``calibrated``.
        rule: extraction rule of quality that a policy names; None: the ticket's.
        role: of the evidence that tells about it.
        delta: largest error probability that the policy or the ticket allows; None if nothing limits it.
    """

    kind: ClaimKind
    value: Fraction
    criterion: str = "published"
    t: str = ""
    rule: Rule | None = None
    role: Role = "evaluation"
    delta: Fraction | None = None

    @property
    def is_rate(self) -> bool:
        """A share of units, planned for with exact binomial laws."""
        return self.kind in ("agreement", "guarantee", "unrelated-excess") and not self.t

    @property
    def on_loss(self) -> bool:
        """About unrelated text, of which the units are passages."""
        return self.role == "loss"


@dataclass(frozen=True, slots=True)
class Truth:
    """What is assumed to be true.

    Attributes:
        value: the rate, mean agreement or mean difference; None where it is not known.
        sd: standard deviation of a unit, for means; None where it is not known.
        source: where both come from, in words.
        law: probability of each value of a unit, for a calibrated margin; empty where only its mean is known.
    """

    value: Fraction | None
    sd: Fraction | None
    source: str
    law: Mapping[Fraction, Fraction] = field(default_factory=dict)


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
        exact: the units are of an exact law; otherwise of simulated ones.
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


def parse_claim(text: str, ticket: Ticket | None = None) -> Planned:
    """Read ``agreement:0.95``, ``guarantee:0.05``, ``non-inferiority:1.0``, ``gain:0`` and the like.

    A criterion in place of the rate, as in ``guarantee:published``, means the level of the ticket: what any
    criterion certifies is sampled alike, one step per unit that has one. Premise and theorem are not sampled:
    they hold or are violated. Of ``guarantee:calibrated`` a unit is the share of its sure steps.

    Raises:
        UsageError: another kind, or a value out of range (``CLAIM``); a criterion without a ticket
            (``TICKET_NEEDED``); the ticket declares no margin (``CALIBRATION_NOT_DECLARED``).
    """
    kind, _, criterion = text.partition(":")
    if kind == "guarantee" and criterion in (*get_args(Criterion), "calibrated"):
        if ticket is None:
            raise UsageError(f"{text} is held against the level of a ticket: --ticket", code="TICKET_NEEDED")
        if criterion != "calibrated":
            return Planned("guarantee", Fraction(ticket.selection.alpha), criterion)
        if ticket.calibration is None:
            raise UsageError(f"the ticket declares no margin t: {COMMAND}", code="CALIBRATION_NOT_DECLARED")
        return Planned("guarantee", Fraction(ticket.calibration.alpha), criterion, ticket.calibration.t)
    found = _CLAIM.fullmatch(text)
    for kind in KINDS:
        if found and found[1] == kind:
            value = Fraction(found[2])
            low, high = _RANGES.get(kind, (0, 1))
            if low < value < high:
                return Planned(kind, value, role="loss" if kind.startswith("unrelated") else "evaluation")
    raise UsageError(
        "a claim is agreement:A, token-agreement:A, guarantee:ALPHA, retention:SHARE or unrelated-excess:RATE"
        " with a value between 0 and 1, guarantee:CRITERION, non-inferiority:POINTS, gain:POINTS or"
        f" unrelated-loss:NATS, not {text!r}",
        code="CLAIM",
    )


def planned_for(policy: Policy, ticket: Ticket | None) -> tuple[list[tuple[str, Planned]], list[str]]:
    """All that a verdict under ``policy`` asks of claims, with what ``ticket`` declares: what to plan for,
    each with its words, and the names of what cannot be planned.

    Raises:
        UsageError: a guarantee without a ticket (``TICKET_NEEDED``).
    """
    found: list[tuple[str, Planned]] = []
    left: list[str] = []
    for one in asked(ticket, policy) if ticket else policy.claims:
        claim = planned(one, ticket)
        if claim is None:
            left.append(one.claim)
        else:
            allowed = [most for most in (policy.delta, one.delta) if most is not None]
            found.append((f"{one.claim} {one}", replace(claim, delta=min(allowed, default=None))))
    if ticket and policy.reads_evidence:
        left += declared(ticket)[1]
    return list(dict.fromkeys(found)), left


def planned(requirement: Requirement, ticket: Ticket | None) -> Planned | None:
    """What is asked of a claim, to plan for; None for nulls, "not refuted", a margin not declared, the arm
    ``full``, which the evidence names, and another threshold of retention than 0."""
    kind, threshold = _NAMES.get(requirement.kind), requirement.threshold
    undeclared = requirement.comparator == "calibrated" and not (ticket and ticket.calibration)
    if kind is None or requirement.test == "not refuted" or undeclared:
        return None
    if kind == "guarantee":
        return parse_claim(requirement.claim, ticket)
    rule = next((one for one in RULES if requirement.claim.endswith(f":{one}")), None)
    if kind == "retention" and threshold == 0:
        return Planned(kind, Fraction(requirement.comparator), rule=rule, role=requirement.role)
    if threshold is None or kind == "retention" or requirement.comparator == "full":
        return None
    if requirement.comparator == "base" and kind == "non-inferiority":
        kind = "gain"  # at least a negative one
    value = -threshold if kind == "non-inferiority" else threshold
    return Planned(kind, value, rule=rule, role=requirement.role)


def plan(claim: Planned, truth: Truth, *, delta: Fraction, power: Fraction) -> Plan:
    """Units needed to show ``claim`` with probability ``power``, if ``truth`` is true.

    At ``delta``, or at what the claim allows if that is less.

    Raises:
        UsageError: a number out of range, or too many units (:mod:`certify.stats.power`).
    """
    delta = delta if claim.delta is None else min(delta, claim.delta)
    clean = None
    if claim.is_rate:
        clean = clean_units_needed(claim.value if claim.kind in _UPPER else 1 - claim.value, delta)
    obstacle = _obstacle(claim, truth)
    units = None if obstacle else _units(claim, truth, delta, power)
    return Plan(claim, truth, delta, power, units, clean, claim.is_rate, obstacle)


def truth_of(
    claim: Planned, evidence: Evidence, arm: Arm, *, width: int | None = None, rule: Rule = "whole"
) -> Truth:
    """What ``evidence`` suggests about the truth behind ``claim``: estimates, no limits.

    Args:
        claim: the claim.
        evidence: translations, or losses for a claim about unrelated text.
        arm: the ticket's arm.
        rule: extraction rule under which quality is judged.
        width: entries of a row, d, for ``guarantee``: its steps are those that the published criterion
            certifies at the claim's level, one drawn from each unit.

    Raises:
        UsageError: ``width`` is needed (``TICKET_NEEDED``).
        InvalidInputError: the evidence does not follow the arm along its own outputs
            (``MARGINS_NOT_EVALUATED``).
        NothingToDoError: no certified or sure step, or fewer than two units (``NO_UNITS``).
    """
    source = f"estimated from {evidence.manifest.text.name}, arm {arm.name}"
    if claim.t:
        shares = disagreement_shares(sure_steps(own_steps(evidence, arm.name), claim.t))
        if not shares:
            raise NothingToDoError(f"the evidence holds no step with a margin of {claim.t}", code="NO_UNITS")
        law = {share: Fraction(count, len(shares)) for share, count in Counter(shares).items()}
        said = f"{source}, {len(shares)} units with a sure step"
        return Truth(sum(shares, Fraction(0)) / len(shares), None, said, law)
    if claim.kind == "guarantee":
        if width is None:
            raise UsageError("the rate of a guarantee needs --ticket: its width", code="TICKET_NEEDED")
        drawn = _drawn(claim.value, evidence, arm, width)
        return Truth(Fraction(sum(drawn), len(drawn)), None, f"{source}, {len(drawn)} drawn steps")
    values = _unit_values(claim, evidence, arm, rule)
    said = f"{source}, {len(values)} units" + (f", {rule}" if claim.kind in _SCORED else "")
    mean = sum(values, Fraction(0)) / len(values)
    return Truth(mean, None if claim.is_rate else _deviation(values), said)


def _unit_values(claim: Planned, evidence: Evidence, arm: Arm, rule: Rule) -> Sequence[Fraction]:
    """What the claim is the mean of, unit by unit."""
    if claim.on_loss:
        rises = unit_rises(evidence, arm).values()
        if claim.kind == "unrelated-excess":
            return [Fraction(rise > CAP) for rise in rises]
        return [max(-Fraction(CAP), min(Fraction(CAP), rise)) for rise in rises]
    if claim.kind not in _SCORED:
        evidence.check_steps()
        shares = equal_shares(evidence, arm.name)
        return shares if claim.kind == "token-agreement" else [Fraction(share == 1) for share in shares]
    # Of embed tuning's gain over the base, the share that the ticket is compared with.
    share = {"gain": Fraction(0), "retention": claim.value}.get(claim.kind, Fraction(1))
    scores = [unit_scores(evidence, name, rule) for name in (arm.name, REFERENCE_ARM, BASE_ARM)]
    return [(x - share * best - (1 - share) * base) / POINT for x, best, base in zip(*scores, strict=True)]


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
        raise NothingToDoError("a standard deviation needs at least two units", code="TOO_FEW_UNITS")
    mean = sum(values, Fraction(0)) / len(values)
    variance = sum(((value - mean) ** 2 for value in values), Fraction(0)) / (len(values) - 1)
    scaled = variance * 10**12
    return Fraction(math.isqrt(-(-scaled.numerator // scaled.denominator)) + 1, 10**6)


def _obstacle(claim: Planned, truth: Truth) -> str:
    if truth.value is None:
        return "the true value is not known: name it with --truth, or take it from --evidence"
    if not claim.is_rate and truth.sd is None and not claim.t:
        return "the standard deviation of a unit is not known: --sd, or --evidence"
    shown = {"non-inferiority": -claim.value, "retention": Fraction(0)}.get(claim.kind, claim.value)
    if truth.value >= shown if claim.kind in _UPPER else truth.value <= shown:
        return f"what is true ({float(truth.value):g}) is not better than what is to be shown"
    return ""


def _units(claim: Planned, truth: Truth, delta: Fraction, power: Fraction) -> int:
    value, sd = truth.value, truth.sd
    if value is None:
        raise ValueError("units are worked out for a known truth")
    if claim.kind == "agreement":
        return units_for_agreement(claim.value, value, delta, power)
    if claim.t:
        # Without a law the worst one: a unit disagrees at all of its steps or at none.
        law = truth.law or {
            one: some for one, some in ((Fraction(0), 1 - value), (Fraction(1), value)) if some
        }
        agreeing = {1 - share: weight for share, weight in law.items()}
        return units_for_share(1 - claim.value, agreeing, delta, power)
    if claim.is_rate:
        return units_for_rate(claim.value, value, delta, power)
    if sd is None:
        raise ValueError("units for a mean are worked out for a known standard deviation")
    if claim.kind == "token-agreement":
        # Shares in [0, 1] as differences to one half, of which the range is 1 wide.
        half = Fraction(1, 2)
        return units_for_mean(half - claim.value, sd, delta, power, truth=value - half, scale=1)
    if claim.kind == "unrelated-loss":
        return units_for_mean(claim.value, sd, delta, power, truth=-value, scale=2 * CAP)
    margin = {"gain": -claim.value, "retention": Fraction(0)}.get(claim.kind, claim.value)
    return units_for_mean(margin, sd, delta, power, truth=value)
