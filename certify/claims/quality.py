"""Claims about translations: sentence chrF of the ticket's arm against other arms, sentence by sentence.

The value of a unit is the difference of scores (:mod:`certify.evidence.sentence_scores`), ticket minus
comparator, in [-100, 100]; units have equal weight and are taken in the order of the evidence. Limits and
estimates are those of :func:`certify.stats.betting.difference_lower`, which rounds units down first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from certify.base.enclosure import rational
from certify.base.records import RULES, Rule
from certify.claims.claim import (
    DELTA,
    Claim,
    Finding,
    arm_digest,
    missing,
    not_compared,
    not_evaluated,
    settings,
    unit_assumptions,
)
from certify.claims.kind import LOWER, Compute, Kind, Variant, one_by_one, under_template
from certify.evidence.load import Evidence, Subject, arms_of_kind, ticket_arm
from certify.evidence.null_labels import GROUPS, NULLS, null_arms
from certify.evidence.read import BASE_ARM, REFERENCE_ARM, Arm
from certify.evidence.sentence_scores import POINT, SCORE, unit_scores
from certify.stats.betting import difference_lower
from certify.stats.limits import Limit, witnesses
from certify.stats.witness import upper_value

COMPARATORS: Final = ("reference", "full", "base")
"""What quality can be declared not to be worse than."""

DEFAULT_RULE: Final[Rule] = "first-line"

RETAINED: Final = ("0.5", "0.75", "0.9")
"""Shares of embed tuning's gain that retention can be asked for; all of it is non-inferiority at 0."""

AIMS: Final[Mapping[str, Fraction]] = {"non-inferiority": Fraction(-1)}
"""Differences at which limits are sharp, by kind (:mod:`certify.stats.betting`, step 3); 0 for the others."""


@dataclass(frozen=True, slots=True)
class _Comparison:
    """The ticket's arm against one other: differences of the units in points / grid, limit of their mean."""

    other: Arm
    differences: Sequence[int]
    grid: int
    limit: Limit

    def to_json(self) -> dict[str, Any]:
        return {
            "arm": self.other.name,
            "digest": arm_digest(self.other),
            "control": self.other.control,
            "estimate": rational(self.limit.estimate),
            "lower": rational(self.limit.value),
        }


def non_inferiority(
    evidence: Evidence,
    subject: Subject,
    comparator: str,
    *,
    rule: Rule = DEFAULT_RULE,
    delta: Fraction = DELTA,
) -> Claim:
    """Quality not worse than ``reference``, ``full`` or ``base``: limit of the mean difference (theory §5).

    The claim "not worse by more than eps" is shown if ``lower >= -eps``. ``detail["declared_margin"]`` is
    the eps that the ticket declared for this comparator before the evaluation, ``detail["smallest_margin"]``
    the smallest that these data could have shown, ``max(0, -lower)``. Several arms of kind ``full``: the
    smallest limit counts.

    Raises:
        ValueError: another comparator.
    """
    kind = "non-inferiority"
    if comparator not in COMPARATORS:
        raise ValueError(f"quality is compared with {', '.join(COMPARATORS)}, not {comparator!r}")
    arm = ticket_arm(evidence, subject)
    others = arms_of_kind(evidence, comparator)
    if arm is None:
        return not_evaluated(kind, evidence, comparator=comparator, extraction=rule)
    if not others:
        return not_compared(kind, evidence, comparator, rule)
    declared = subject.declared(kind, comparator)
    margin = None if declared is None else declared.margin
    found = _compare(kind, evidence, arm, others, rule, delta)
    least = min(found, key=lambda one: one.limit.value)
    detail = {
        "declared_margin": None if margin is None else rational(Fraction(margin)),
        "smallest_margin": rational(max(Fraction(0), -least.limit.value)),
        "compared": [one.to_json() for one in found],
    }
    return _claim(kind, comparator, evidence, arm, rule, delta, found, detail)


def gain(evidence: Evidence, subject: Subject, *, rule: Rule, delta: Fraction = DELTA) -> Claim:
    """Mean gain of sentence chrF over the base under one rule; shown if ``lower > 0`` (theory §6.1)."""
    arm = ticket_arm(evidence, subject)
    if arm is None:
        return not_evaluated("gain", evidence, comparator="base", extraction=rule)
    found = _compare("gain", evidence, arm, (evidence.manifest.arm(BASE_ARM),), rule, delta)
    return _claim("gain", "base", evidence, arm, rule, delta, found, {})


def better_than_nulls(
    evidence: Evidence, subject: Subject, group: str, *, rule: Rule = DEFAULT_RULE, delta: Fraction = DELTA
) -> Claim:
    """Better than every null ticket of a group: the least lower limit of the mean differences (theory §6.3).

    An intersection-union test: each comparison has the full error probability, and the claim, shown if
    ``lower > 0``, is wrong with probability at most ``delta``. Every control of
    :data:`certify.evidence.null_labels.GROUPS` must be there as often as ``NULLS`` says; which ones these are
    is fixed (:func:`certify.evidence.null_labels.null_arms`). ``detail["further"]`` names other null tickets
    of the group, which are not compared.
    """
    kind = "better-than-nulls"
    arm = ticket_arm(evidence, subject)
    nulls = {control: null_arms(evidence.manifest.arms, subject.ticket, control) for control in GROUPS[group]}
    lacking = [
        f"{control} ({len(arms)} of {NULLS[control]})"
        for control, arms in nulls.items()
        if len(arms) < NULLS[control]
    ]
    if arm is None:
        return not_evaluated(kind, evidence, comparator=group, extraction=rule)
    if lacking:
        return missing(
            kind,
            "NULLS_MISSING",
            f"null tickets are missing: {', '.join(lacking)}",
            comparator=group,
            extraction=rule,
            evidence=(evidence.sha256,),
            detail={"lacking": lacking},
        )
    others = tuple(other for arms in nulls.values() for other in arms)
    found = _compare(kind, evidence, arm, others, rule, delta)
    weakest = min(found, key=lambda one: one.limit.value).other.name
    further = [
        other.name
        for other in evidence.manifest.arms
        if other.control in nulls and other.of == subject.ticket.id and other not in others
    ]
    detail = {"compared": [one.to_json() for one in found], "weakest": weakest, "further": further}
    return _claim(kind, group, evidence, arm, rule, delta, found, detail)


def retention(
    evidence: Evidence, subject: Subject, share: str, *, rule: Rule, delta: Fraction = DELTA
) -> Claim:
    """The ticket keeps more than the share rho of embed tuning's gain over the base (theory §5).

    A unit is X_T - rho X* - (1 - rho) X_0, with X its mean sentence chrF for ticket, E* and base, in
    [-100, 100]; shown if ``lower > 0``. Where embed tuning gains nothing, keeping a share of it says little:
    ask for a gain beside it.

    Args:
        evidence: translations.
        subject: the ticket.
        share: rho, one of :data:`RETAINED`.
        rule: extraction rule.
        delta: error probability of the limit.
    """
    kind, rho = "retention", Fraction(share)
    arm = ticket_arm(evidence, subject)
    if arm is None:
        return not_evaluated(kind, evidence, comparator=share, extraction=rule)
    kept, whole = rho.as_integer_ratio()
    best, base = (unit_scores(evidence, name, rule) for name in (REFERENCE_ARM, BASE_ARM))
    mixed = [kept * x + (whole - kept) * y for x, y in zip(best, base, strict=True)]
    reference = evidence.manifest.arm(REFERENCE_ARM)
    found = _difference(kind, evidence, arm, reference, mixed, rule, delta, whole=whole)
    return _claim(kind, share, evidence, arm, rule, delta, [found], {})


def difference_upper(claim: Claim) -> Fraction | None:
    """The opposite limit: the smallest upper limit of the mean differences, each at ``delta / m``.

    m is the number of arms compared: one null ticket that is shown to be as good refutes the claim.
    """
    return upper_value(claim.witness, -100, 100)


def template_gain(evidence: Evidence, subject: Subject, *, rule: Rule, delta: Fraction = DELTA) -> Claim:
    """:func:`gain` under a template other than the ticket's (theory §6.2)."""
    return under_template(gain(evidence, subject, rule=rule, delta=delta), "template-gain", evidence)


def _aim(kind: str) -> Fraction:
    return AIMS.get(kind, Fraction(0))


def _compare(
    kind: str, evidence: Evidence, arm: Arm, others: Sequence[Arm], rule: Rule, delta: Fraction
) -> list[_Comparison]:
    return [
        _difference(
            kind,
            evidence,
            arm,
            other,
            unit_scores(evidence, other.name, rule),
            rule,
            delta,
            comparisons=len(others),
        )
        for other in others
    ]


def _difference(
    kind: str,
    evidence: Evidence,
    arm: Arm,
    other: Arm,
    theirs: Sequence[int],
    rule: Rule,
    delta: Fraction,
    *,
    comparisons: int = 1,
    whole: int = 1,
) -> _Comparison:
    """The ticket's arm against ``theirs / whole``."""
    ours, grid = unit_scores(evidence, arm.name, rule), whole * POINT
    paired = [whole * mine - its for mine, its in zip(ours, theirs, strict=True)]
    design, aim = evidence.design, _aim(kind)
    limit = difference_lower(paired, delta, design, grid=grid, aim=aim, comparisons=comparisons)
    return _Comparison(other, paired, grid, limit)


def _claim(
    kind: str,
    comparator: str,
    evidence: Evidence,
    arm: Arm,
    rule: Rule,
    delta: Fraction,
    found: Sequence[_Comparison],
    detail: dict[str, Any],
) -> Claim:
    least = min(found, key=lambda one: one.limit.value)
    limit = least.limit
    rho = comparator if kind == "retention" else None
    share, beside = f"base + {rho} of the gain of " if rho else "", ""
    if evidence.manifest.text.unit == "document":
        # Equal weights of documents can hide what the difference is if every sentence weighs the same.
        sizes = [len(records) for records in evidence.units.values()]
        total = sum(one * n for one, n in zip(least.differences, sizes, strict=True))
        weighted = Fraction(total, sum(sizes) * least.grid)
        beside = f"; {float(weighted):+.3f} if sentences weigh equally"
        detail = detail | {"by_sentence": rational(weighted)}
    return Claim(
        kind=kind,
        comparator=comparator,
        extraction=rule,
        finding=Finding.MEASURED,
        code="MEASURED",
        text=f"mean difference of sentence chrF to {share}{least.other.name} {float(limit.estimate):+.3f},"
        f" at least {float(limit.value):+.3f} ({rule}, {limit.n} units){beside}",
        estimate=limit.estimate,
        lower=limit.value,
        delta=delta,
        n=limit.n,
        unit=evidence.manifest.text.unit,
        procedure=limit.procedure,
        assumptions=unit_assumptions(evidence),
        signature=settings(
            kind,
            evidence,
            arm=arm,
            procedure=limit.procedure,
            delta=delta,
            aim=_aim(kind),
            rho=rho,
            vs=arm_digest(least.other),
            rule=rule,
            score=SCORE,
        ),
        evidence=(evidence.sha256,),
        detail=detail,
        witness=witnesses(*(one.limit for one in found)),
    )


def _against(claim: Callable[..., Claim]) -> Compute:
    """Compute a kind by a function of evidence, subject, comparator, rule and error probability."""
    return one_by_one(
        lambda evidence, subject, variant, delta: claim(
            evidence, subject, variant.against, rule=variant.rule, delta=delta
        )
    )


NON_INFERIORITY: Final = Kind(
    name="non-inferiority",
    meaning="mean difference of sentence chrF to an arm; lower limit, in chrF points",
    roles=("evaluation",),
    variants=tuple(Variant(comparator, rule) for comparator in COMPARATORS for rule in RULES),
    compute=_against(non_inferiority),
    tests=LOWER,
    reverse=difference_upper,
    tolerance=True,
)
GAIN: Final = Kind(
    name="gain",
    meaning="mean difference of sentence chrF to the base; lower limit, in chrF points",
    roles=("evaluation",),
    variants=tuple(Variant("base", rule) for rule in RULES),
    compute=one_by_one(
        lambda evidence, subject, variant, delta: gain(evidence, subject, rule=variant.rule, delta=delta)
    ),
    tests=LOWER,
    reverse=difference_upper,
    gains=True,
)
RETENTION: Final = Kind(
    name="retention",
    meaning="mean of sentence chrF above the base's plus a share of embed tuning's gain; lower limit, in"
    " chrF points",
    roles=("evaluation",),
    variants=tuple(Variant(share, rule) for share in RETAINED for rule in RULES),
    compute=_against(retention),
    tests=LOWER,
    reverse=difference_upper,
    gains=True,
)
BETTER_THAN_NULLS: Final = Kind(
    name="better-than-nulls",
    meaning="least mean difference of sentence chrF to null tickets of a group; lower limit, in chrF points",
    roles=("evaluation",),
    variants=tuple(Variant(group, rule) for group in GROUPS for rule in RULES),
    compute=_against(better_than_nulls),
    tests=LOWER,
    reverse=difference_upper,
    gains=True,
)
TEMPLATE_GAIN: Final = Kind(
    name="template-gain",
    meaning="gain over the base under another template; lower limit, in chrF points",
    roles=("other-template",),
    variants=GAIN.variants,
    compute=one_by_one(
        lambda evidence, subject, variant, delta: template_gain(
            evidence, subject, rule=variant.rule, delta=delta
        )
    ),
    tests=LOWER,
    reverse=difference_upper,
    gains=True,
)
