"""Claims about corpus scores: corpus BLEU and chrF++ of the ticket's arm against other arms. They inform.

No finite-sample limit is known for a corpus score (theory §5). What is given here is asymptotic and marked
so: percentile limits by the paired bootstrap, and the p-value of a paired randomisation, whose hypothesis is
that the two arms are exchangeable within each unit. No certificate states them, no policy can ask for them.

Units are those of the evidence, in its order, and are drawn whole: blocks and documents stay together. Draws
(:data:`certify.evidence.corpus_scores.DRAWS`) and seed (``order_seed`` of the manifest) stand in the
signature. Numbers are binary floats until the end, then multiples of ``2**-32``, rounded toward the weaker
claim.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from certify.base.errors import InvalidInputError
from certify.base.exact import rational, round_down, round_up
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
from certify.evidence.corpus_scores import BLEU, CHRF, DRAWS, Metric
from certify.evidence.extraction import RULES, Rule
from certify.evidence.load import Evidence, Subject, arms_of_kind, ticket_arm
from certify.evidence.read import Arm
from certify.stats.limits import GRID_BITS
from certify.stats.resampling import bootstrap_limit, swap_p_value

METRICS: Final = {"corpus-bleu": BLEU, "corpus-chrf": CHRF}
"""The score behind each kind of claim."""

MARK: Final = "paired-bootstrap/1, asymptotic"
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
    """Corpus score of the ticket's arm minus that of ``reference``, ``full`` or ``base``; asymptotic.

    ``detail`` holds the scores of both arms, the one-sided p-value of "the ticket is no better",
    ``(1 + #{>= observed}) / (draws + 1)``, draws and seed. Several arms of kind ``full``: the one with the
    smallest difference counts, all are listed. There are no limits and no p-value for a sequential design,
    where evaluation stopped because of what it found, and no limits for a single unit or where ``delta``
    asks for more draws than are made.

    Args:
        evidence: translations.
        subject: the ticket.
        kind: ``corpus-bleu`` or ``corpus-chrf``.
        comparator: a kind of arm.
        rule: extraction rule.
        delta: error probability of each limit.
    """
    arm = ticket_arm(evidence, subject)
    others = arms_of_kind(evidence, comparator)
    if arm is None:
        return not_evaluated(kind, evidence, comparator=comparator, extraction=rule)
    if not others:
        return not_compared(kind, evidence, comparator, rule)
    metric = METRICS[kind]
    try:
        found = [_compare(evidence, arm, other, metric, rule, delta) for other in others]
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
            test="paired-swap/1",
            vs=arm_digest(least.other),
            rule=rule,
            score=metric.score,
            counted=evidence.manifest.signatures.get(metric.signature),
        ),
        evidence=(evidence.sha256,),
        detail={
            **least.to_json(),
            "draws": DRAWS,
            "seed": evidence.manifest.order_seed,
            "compared": [one.to_json() for one in found],
        },
    )


def _compare(
    evidence: Evidence, arm: Arm, other: Arm, metric: Metric, rule: Rule, delta: Fraction
) -> _Comparison:
    index, n = RULES.index(rule), len(evidence.units)
    ours, theirs = (evidence.corpus.arm(one.name, index, metric) for one in (arm, other))
    fixed = evidence.design == "fixed"
    lower = upper = p_value = None
    if fixed and n > 1 and delta * (DRAWS + 1) >= 1:
        gaps, observed = ours.resampled - theirs.resampled, ours.score - theirs.score
        lower = round_down(bootstrap_limit(gaps, observed, n, delta, "lower").value, GRID_BITS)
        upper = round_up(bootstrap_limit(gaps, observed, n, delta, "upper").value, GRID_BITS)
    if fixed:
        p_value = swap_p_value(ours.swaps, theirs.swaps, metric.statistic).p_value
    left, right = (round_down(Fraction(one.score), GRID_BITS) for one in (ours, theirs))
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
