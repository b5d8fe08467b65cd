"""The central claim: does the published guarantee hold on this evidence? (theory §3, §5)"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Final, get_args

from certify.base.enclosure import rational
from certify.claims.calibrated import calibrated
from certify.claims.claim import DELTA, Claim, Finding, missing, not_evaluated, settings, unit_assumptions
from certify.claims.criteria import MAX_NEEDED, Guarantee, guarantee
from certify.claims.kind import PROMISE, Kind, Variant
from certify.evidence.distances import QUANTILES, Margins, Units, margins, measure
from certify.evidence.load import Evidence, Subject, ticket_arm
from certify.evidence.read import UNIT, Arm
from certify.stats.limits import Limit
from certify.stats.resampling import cluster_rate
from certify.stats.theorem import CRITERIA, DEFAULT_VARIATION, Criterion
from certify.ticket.declared import USUAL_LAW


def guarantee_claims(
    evidence: Evidence,
    subject: Subject,
    *,
    delta: Fraction = DELTA,
    v: int = DEFAULT_VARIATION,
    criteria: Sequence[Criterion] = CRITERIA,
) -> tuple[Claim, ...]:
    """Does the guarantee hold at the ticket's level? One claim for each criterion (theory §3, §5)."""
    arm = ticket_arm(evidence, subject)
    if arm is None:
        return tuple(not_evaluated("guarantee", evidence, comparator=criterion) for criterion in criteria)
    steps = measure(evidence.units, arm.name, subject.distances)
    compared = margins(steps, subject.distances.d, v=v)
    lacking = path_lacking("guarantee", evidence, subject, arm, "path")
    return tuple(
        lacking
        if lacking is not None and criterion == "path"
        else _guarantee(evidence, subject, arm, steps, criterion, delta, v, compared)
        for criterion in criteria
    )


def path_lacking(
    kind: str, evidence: Evidence, subject: Subject, arm: Arm, comparator: str | None = None
) -> Claim | None:
    """The claim that cannot be made for want of labels along the ticket's path; None if they are there."""
    laws = [claim.law for claim in subject.ticket.declared if claim.law] or [USUAL_LAW]
    wanted, found, code = laws[0], evidence.manifest.path if arm.released else None, "PATH_NOT_EVALUATED"
    if all(law == found for law in laws):
        return None
    said = "no labels along a path"
    if found is not None:
        said, code = f"labels along the path n = {found.n}, g = {found.g}", "PATH_DIFFERS"
    text = f"the evidence has {said}: certify evaluate --evidence ... --path {wanted.n},{wanted.g}"
    return missing(kind, code, text, comparator=comparator, evidence=(evidence.sha256,))


def _guarantee(
    evidence: Evidence,
    subject: Subject,
    arm: Arm,
    steps: Units,
    criterion: Criterion,
    delta: Fraction,
    v: int,
    compared: Margins,
) -> Claim:
    found = guarantee(
        steps,
        subject.distances,
        alpha=subject.ticket.selection.alpha,
        criterion=criterion,
        delta=delta,
        design=evidence.design,
        v=v,
        law=evidence.manifest.path,
    )
    law = evidence.manifest.path if criterion == "path" else None
    procedure = found.lower.procedure if found.lower else ""
    assumptions = unit_assumptions(evidence)
    if subject.ticket.base.tied is not False and law is None:
        assumptions = (*assumptions, "A-UNTIED")
    return Claim(
        kind="guarantee",
        comparator=criterion,
        extraction=None,
        finding=found.finding,
        code=f"GUARANTEE_{found.finding.name}",
        text=_guarantee_text(found),
        estimate=Fraction(found.disagreements, found.drawn) if found.drawn else None,
        lower=found.lower.value if found.lower else None,
        upper=found.upper.value if found.upper else None,
        delta=delta,
        n=found.drawn,
        unit=evidence.manifest.text.unit,
        procedure=procedure,
        assumptions=assumptions,
        signature=settings(
            f"guarantee:{criterion}",
            evidence,
            arm=arm,
            procedure=procedure,
            delta=delta,
            alpha=found.alpha,
            object=subject.ticket.released.object,
            d=subject.distances.d,
            V=v if criterion == "additive" else None,
            path=None if law is None else f"{law.n},{law.g}",
        ),
        evidence=(evidence.sha256,),
        detail=guarantee_detail(found)
        | {"plain_rate": _plain(found, delta), "margins": _margins(compared)}
        | ({} if law is None else {"path": {"n": law.n, "g": law.g, "violations": found.broken}}),
        witness=(found.witness,) if found.witness else (),
        critical=found.critical,
    )


def guarantee_detail(found: Guarantee) -> dict[str, object]:
    """The counts and the list of cases behind a guarantee claim, as plain JSON values."""
    return {
        "alpha": found.alpha,
        "descriptive": found.descriptive,
        "steps": found.steps,
        "certified": found.certified,
        "violations": found.violations,
        "units": found.units,
        "drawn": found.drawn,
        "disagreements": found.disagreements,
        "needed": found.needed,
        "rows_above_tau": len(found.above),
        "first_rows_above_tau": list(found.above[:8]),
        "vacuous_steps": found.vacuous,
        "least_loss": rational(found.least_loss),
        "witnesses": [
            {
                "record": case.step.record.id,
                "step": case.step.t,
                "expected": case.step.expected,
                "actual": case.step.actual,
                "margin": case.step.margin,
                "changed": case.step.changed,
                "rows": [list(row) for row in case.rows],
            }
            for case in found.witnesses
        ],
    }


def plain_rate(found: Guarantee, *, delta: Fraction = DELTA) -> tuple[Limit, Limit] | None:
    """Lower and upper limit of the rate over *all* certified steps, units as clusters; asymptotic.

    For reports: no certificate holds it. None with fewer than two units that have a certified step.
    """
    if len(found.by_unit) < 2:
        return None
    sizes, wrong = zip(*found.by_unit, strict=True)
    return cluster_rate(wrong, sizes, delta, "lower"), cluster_rate(wrong, sizes, delta, "upper")


def _plain(found: Guarantee, delta: Fraction) -> dict[str, str | None] | None:
    limits = plain_rate(found, delta=delta)
    if limits is None:
        return None
    lower, upper = limits
    named = {"estimate": lower.estimate, "lower": lower.value, "upper": upper.value}
    return {"procedure": lower.procedure, **{name: rational(value) for name, value in named.items()}}


def _margins(compared: Margins) -> dict[str, list[str | None]]:
    """Margins and what the criteria ask of them, by percentile of the steps; all for reports."""
    return {
        "percentiles": [str(q) for q in QUANTILES],
        "r": [rational(Fraction(margin, UNIT)) for margin in compared.r],
        "twice_largest": [rational(value) for value in compared.twice_largest],
        "v_total": [rational(value) for value in compared.v_total],
    }


def _guarantee_text(found: Guarantee) -> str:
    counts = f"{found.certified} of {found.steps} steps certified, {found.violations} of them disagree"
    if found.finding is Finding.VIOLATED:
        return f"{counts}: {found.broken} violate the theorem, so this program is wrong"
    if found.finding is Finding.VACUOUS:
        return f"{counts}: no step is certified, nothing is promised"
    drawn = f"{found.disagreements} of {found.drawn} drawn steps disagree"
    limits = ""
    if found.lower and found.upper:
        limits = f"rate between {float(found.lower.value):.4f} and {float(found.upper.value):.4f}"
    if found.finding is Finding.PREMISE_FAILED:
        above = f"{len(found.above)} of the rows that differ from E*"
        return f"{counts}; {drawn}; not applicable: D > tau for {above}"
    if found.finding is Finding.INCONCLUSIVE:
        needed = f"at least {found.needed}" if found.needed else f"more than {MAX_NEEDED}"
        return f"{counts}; {drawn}: {limits}, alpha = {found.alpha}; {needed} drawn steps are needed"
    return f"{counts}; {drawn}: {limits}, alpha = {found.alpha}"


def _compute(
    evidence: Evidence, subject: Subject, variants: tuple[Variant, ...], delta: Fraction
) -> tuple[Claim, ...]:
    # Together, because the criteria share the steps.
    asked = {variant.comparator for variant in variants}
    criteria = [criterion for criterion in get_args(Criterion) if criterion in asked]
    found = guarantee_claims(evidence, subject, delta=delta, criteria=criteria) if criteria else ()
    return (*found, calibrated(evidence, subject, delta)) if "calibrated" in asked else found


GUARANTEE: Final = Kind(
    name="guarantee",
    meaning="rate of disagreement at certified steps, held against alpha; lower and upper limit",
    roles=("evaluation",),
    steps=True,
    variants=(*map(Variant, CRITERIA), Variant("path", by_name=True), Variant("calibrated", by_name=True)),
    compute=_compute,
    tests=PROMISE,
)
