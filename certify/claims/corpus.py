"""Corpus BLEU and chrF++ of the ticket's arm against other arms, for information only.

No finite-sample limit is known for a corpus score (theory §5). What is given here is asymptotic and marked
so: percentile limits by the paired bootstrap, and the p-value of a paired randomisation, whose hypothesis is
that the two arms are exchangeable within each unit. No certificate states them, no policy can ask for them.
So a check computes scores and differences only (:func:`corpus_difference`), and what shows limits and
p-values asks for them (:func:`resampled`).

Units are those of the evidence, in its order, and are drawn whole: blocks and documents stay together. Draws
(:data:`certify.evidence.corpus_scores.DRAWS`) and seed (``order_seed`` of the manifest) stand in the
signature. Numbers are binary floats until the end, then multiples of ``2**-32``, rounded toward the weaker
claim.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from certify.base.enclosure import rational, round_down, round_up
from certify.base.errors import InvalidInputError
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
from certify.claims.kind import Kind, Variant, one_by_one
from certify.claims.quality import COMPARATORS
from certify.evidence.corpus_scores import BLEU, CHRF, DRAWS, place
from certify.evidence.load import Evidence, Subject, arms_of_kind, ticket_arm
from certify.evidence.read import Arm
from certify.stats.limits import GRID_BITS
from certify.stats.resampling import BOOTSTRAP, SWAP

METRICS: Final = {"corpus-bleu": BLEU, "corpus-chrf": CHRF}
"""The score behind each kind of claim."""

MARK: Final = f"{BOOTSTRAP}, asymptotic"
"""What the claims name as their procedure."""


@dataclass(frozen=True, slots=True)
class _Comparison:
    """The ticket's arm against one other; what the design does not allow is None."""

    other: Arm
    ours: Fraction
    theirs: Fraction
    lower: Fraction | None
    upper: Fraction | None
    p_value: Fraction | None

    @property
    def estimate(self) -> Fraction:
        return self.ours - self.theirs

    def to_json(self) -> dict[str, Any]:
        return {
            "arm": self.other.name,
            "digest": arm_digest(self.other),
            "ticket": rational(self.ours),
            "other": rational(self.theirs),
            "lower": rational(self.lower),
            "upper": rational(self.upper),
            "p_value": rational(self.p_value),
        }


def corpus_difference(
    evidence: Evidence,
    subject: Subject,
    kind: str,
    comparator: str,
    *,
    rule: Rule,
    delta: Fraction = DELTA,
) -> Claim:
    """Corpus score of the ticket's arm minus that of ``reference``, ``full`` or ``base``.

    ``detail`` holds the scores of both arms, draws and seed. Several arms of kind ``full``: the one with the
    smallest difference counts, all are listed. :func:`resampled` adds limits and p-values.

    Args:
        evidence: translations.
        subject: the ticket.
        kind: ``corpus-bleu`` or ``corpus-chrf``.
        comparator: a kind of arm.
        rule: extraction rule.
        delta: error probability of each limit.
    """
    arm = ticket_arm(evidence, subject)
    if arm is None:
        return not_evaluated(kind, evidence, comparator=comparator, extraction=rule)
    if not arms_of_kind(evidence, comparator):
        return not_compared(kind, evidence, comparator, rule)
    try:
        return _difference(evidence, arm, kind, comparator, rule, delta, resample=False)
    except InvalidInputError as error:
        # What only informs must not stop a check.
        return missing(
            kind,
            error.code,
            str(error),
            comparator=comparator,
            extraction=rule,
            evidence=(evidence.sha256,),
            finding=Finding.NOT_APPLICABLE,
        )


def resampled(claim: Claim, evidence: Evidence) -> Claim:
    """A claim of :func:`corpus_difference` from ``evidence`` with its limits and p-value; asymptotic.

    The p-value in ``detail`` is that of "the ticket is no better", one-sided. There are neither limits nor a
    p-value for a sequential design, where evaluation stopped because of what it found, and no limits for a
    single unit or where ``delta`` asks for more draws than are made. A claim that is missing stays as it is.
    """
    served = [arm for arm in evidence.manifest.arms if arm.name == claim.detail.get("served")]
    if not served or claim.comparator is None or claim.extraction is None:
        return claim
    about = (claim.kind, claim.comparator, claim.extraction, claim.delta)
    return _difference(evidence, served[0], *about, resample=True)


def _difference(
    evidence: Evidence, arm: Arm, kind: str, comparator: str, rule: Rule, delta: Fraction, *, resample: bool
) -> Claim:
    metric = METRICS[kind]
    where = place(metric, RULES.index(rule))
    others = arms_of_kind(evidence, comparator)
    found = [_compare(evidence, arm, other, where, delta, resample=resample) for other in others]
    least = min(found, key=lambda one: one.estimate)
    n = len(evidence.units)
    return Claim(
        kind=kind,
        comparator=comparator,
        extraction=rule,
        finding=Finding.MEASURED,
        code="ASYMPTOTIC",
        text=f"corpus {metric.name} {float(least.ours):.2f} against {float(least.theirs):.2f} of"
        f" {least.other.name}: {float(least.estimate):+.2f}{_uncertainty(least)} ({rule}, {n} units)",
        estimate=least.estimate,
        lower=least.lower,
        upper=least.upper,
        delta=delta,
        n=n,
        unit=evidence.manifest.text.unit,
        procedure=MARK,
        assumptions=(*unit_assumptions(evidence), "A-ASYMPTOTIC"),
        signature=settings(
            kind,
            evidence,
            arm=arm,
            procedure=MARK,
            delta=delta,
            draws=DRAWS,
            test=SWAP,
            vs=arm_digest(least.other),
            rule=rule,
            score=metric.score,
            counted=evidence.manifest.signatures.get(metric.signature),
        ),
        evidence=(evidence.sha256,),
        detail={
            **least.to_json(),
            "served": arm.name,
            "draws": DRAWS,
            "seed": evidence.manifest.order_seed,
            "compared": [one.to_json() for one in found],
        },
    )


def _compare(
    evidence: Evidence, arm: Arm, other: Arm, where: int, delta: Fraction, *, resample: bool
) -> _Comparison:
    sums, names = evidence.corpus, (arm.name, other.name)
    lower = upper = p_value = None
    if resample and evidence.design == "fixed":
        p_value = sums.p_values(*names)[where]
        if len(evidence.units) > 1 and Fraction(1, DRAWS + 1) <= delta < Fraction(1, 2):
            low, high = (Fraction(float(limits[where])) for limits in sums.limits(*names, delta))
            lower, upper = round_down(low, GRID_BITS), round_up(high, GRID_BITS)
    left, right = (round_down(Fraction(float(sums.scores(name)[where])), GRID_BITS) for name in names)
    return _Comparison(other, left, right, lower, upper, p_value)


def _uncertainty(found: _Comparison) -> str:
    said = ""
    if found.lower is not None and found.upper is not None:
        said += f", between {float(found.lower):+.2f} and {float(found.upper):+.2f}"
    if found.p_value is not None:
        said += f", one-sided p = {float(found.p_value):.3f}"
    return said


def _kind(name: str) -> Kind:
    metric = METRICS[name].name
    return Kind(
        name=name,
        meaning=f"difference of corpus {metric} to an arm; both limits, asymptotic",
        roles=("evaluation",),
        variants=tuple(Variant(comparator, rule) for comparator in COMPARATORS for rule in RULES),
        compute=one_by_one(
            lambda evidence, subject, variant, delta: corpus_difference(
                evidence, subject, name, variant.against, rule=variant.rule, delta=delta
            )
        ),
        asymptotic=True,
        label=metric,
    )


CORPUS_BLEU: Final = _kind("corpus-bleu")
CORPUS_CHRF: Final = _kind("corpus-chrf")
