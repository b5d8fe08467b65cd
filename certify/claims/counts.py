"""Claims without a bound: exact counts on the text; how much of the gain comes from learning to stop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, Final

from certify.base.enclosure import rational
from certify.base.errors import InvalidInputError
from certify.base.records import RULES
from certify.claims.claim import Claim, Finding, missing, not_evaluated, record_assumptions, settings
from certify.claims.criteria import decided
from certify.claims.kind import Compute, Kind, Variant, one_by_one
from certify.claims.promise import path_lacking
from certify.evidence.distances import measure
from certify.evidence.load import Evidence, Subject, ticket_arm
from certify.evidence.read import BASE_ARM, REFERENCE_ARM, TranslationRecord
from certify.evidence.sentence_scores import SCORE, mean_score, share_gone
from certify.evidence.split import check_split


def opportunity(evidence: Evidence, subject: Subject) -> Claim:
    """In how many prompts each ticket id is fed, and in how many runs of the base model; exact (theory §6.5).

    A run feeds the prompt and every token that the base generated but the last. ``detail["ids"]`` holds
    ``[id, prompts, runs]`` for each id; ``detail["never"]`` the ids that no run feeds: they cannot have
    acted.
    """
    kind = "opportunity"
    ids = subject.ticket.ids
    if not ids:
        return missing(
            kind,
            "EMPTY_TICKET",
            "the ticket is empty",
            evidence=(evidence.sha256,),
            finding=Finding.VACUOUS,
        )
    records = evidence.sentences
    prompts: Counter[int] = Counter()
    runs: Counter[int] = Counter()
    for record in records:
        prompts.update(record.prompt)
        runs.update(_run(record))
    never = [token for token in ids if not runs[token]]
    some = sum(any(token in prompts_of for token in ids) for prompts_of in (set(r.prompt) for r in records))
    return _counted(
        kind,
        evidence,
        f"{some} of {len(records)} prompts feed a row of the ticket; {len(never)} of {len(ids)} rows are"
        " never fed",
        Fraction(some, len(records)),
        len(records),
        {"ids": [[token, prompts[token], runs[token]] for token in ids], "never": never},
    )


def non_interference(evidence: Evidence, subject: Subject) -> Claim:
    """Share of sentences whose run of the base model feeds no row of the ticket; exact (theory §5).

    There the base and the ticketed model compute the same run. Only for a head that is known to be untied
    and for greedy decoding: beam search feeds hypotheses that evidence does not list.
    ``detail["contradictions"]`` counts such sentences in which the two models answered differently all the
    same: numerics, since they were computed in batches of another shape, or evidence that is not what it
    says.
    """
    kind = "non-interference"

    def refuse(code: str, text: str) -> Claim:
        return missing(kind, code, text, evidence=(evidence.sha256,), finding=Finding.NOT_APPLICABLE)

    if subject.ticket.base.tied is not False:
        return refuse("HEAD_NOT_UNTIED", "the output head is tied or may be: every logit can move")
    if evidence.manifest.decoding.beams != 1:
        return refuse("BEAM_SEARCH", "beam search feeds hypotheses that the evidence does not list")
    arm = ticket_arm(evidence, subject)
    ticket = frozenset(subject.ticket.ids)
    records = evidence.sentences
    free = [record for record in records if ticket.isdisjoint(_run(record))]
    contradictions = 0
    if arm is not None:
        contradictions = sum(_differs(record, arm.name) for record in free)
    return _counted(
        kind,
        evidence,
        f"the ticket cannot touch {len(free)} of {len(records)} sentences",
        Fraction(len(free), len(records)),
        len(records),
        {"free": len(free), "contradictions": contradictions},
    )


def interval_share(evidence: Evidence, subject: Subject) -> Claim:
    """Share of steps at which E*'s smoothed winner is the argmax on one unbroken run of strengths; exact.

    How often the assumption that decision regions are intervals is met on the line of theory §4b.
    """
    kind = "interval-share"
    arm = ticket_arm(evidence, subject)
    if arm is None:
        return not_evaluated(kind, evidence)
    if (lacking := path_lacking(kind, evidence, subject, arm)) is not None:
        return lacking
    units, law = measure(evidence.units, arm.name, subject.distances), evidence.manifest.path
    found = [decided(step, law).interval for steps in units.values() for step in steps]
    return _counted(
        kind,
        evidence,
        f"the winner of embed tuning is an interval along the path at {sum(found)} of {len(found)} steps",
        Fraction(sum(found), len(found)),
        len(found),
        {"intervals": sum(found)},
        unit="step",
        arm=arm,
        path=law and f"{law.n},{law.g}",
    )


def termination(evidence: Evidence, subject: Subject) -> Claim:
    """How much of the raw gain is learning to stop: descriptive, under the three rules (theory §6.1).

    ``detail["arms"]``: for the arms base, ticket and reference mean sentence chrF under each rule, the share
    of outputs that ended, and tokens generated over tokens of the reference arm (None where another engine
    does not say). ``detail["share"]``: for
    each rule but ``whole``, the part of the gain under ``whole`` that is gone under it,
    :func:`certify.evidence.sentence_scores.share_gone`; None if that gain is below a tenth of a point.
    """
    kind = "termination"
    arm = ticket_arm(evidence, subject)
    if arm is None:
        return not_evaluated(kind, evidence, comparator="base")
    means = {
        name: {rule: mean_score(evidence, name, rule) for rule in RULES}
        for name in (BASE_ARM, arm.name, REFERENCE_ARM)
    }
    gains = {rule: means[arm.name][rule] - means[BASE_ARM][rule] for rule in RULES}
    share = {rule: share_gone(gains[rule], gains["whole"]) for rule in RULES[1:]}
    roles = {"base": BASE_ARM, "ticket": arm.name, "reference": REFERENCE_ARM}
    return Claim(
        kind=kind,
        comparator="base",
        extraction=None,
        finding=Finding.MEASURED,
        code="DESCRIBED",
        text="gain in mean sentence chrF: "
        + ", ".join(f"{rule} {float(value):+.2f}" for rule, value in gains.items()),
        n=len(evidence.units),
        unit=evidence.manifest.text.unit,
        procedure="descriptive",
        assumptions=record_assumptions(evidence),
        signature=settings(kind, evidence, arm=arm, score=SCORE),
        evidence=(evidence.sha256,),
        detail={
            "gain": {rule: rational(value) for rule, value in gains.items()},
            "share": {rule: None if gone is None else rational(gone) for rule, gone in share.items()},
            "arms": {
                role: {
                    **{rule: rational(value) for rule, value in means[name].items()},
                    **_ending(evidence, name),
                }
                for role, name in roles.items()
            },
        },
    )


def split_claim(evidence: Evidence, subject: Subject) -> Claim:
    """No evaluated sentence or line was used for tuning, scan, choice or order, and none occurs twice; exact.

    Sentences used for choice are those listed in the evidence or in the records that the ticket binds.

    Raises:
        InvalidInputError: one was, or does; see :func:`certify.evidence.split.check_split`. The declared
            margin was chosen on this very text (``DATA_OVERLAP``).
    """
    used, margin, evaluated = dict(evidence.used), subject.ticket.calibration, evidence.manifest.text
    if margin is not None and margin.text_sha256 == evaluated.sha256:
        what = f"the margin was chosen on the evaluated text {evaluated.name}"
        raise InvalidInputError(what, code="DATA_OVERLAP")
    chosen_on = subject.calibrated_on.union(() if subject.choice is None else subject.choice.sentences)
    if chosen_on:
        used["choice"] = used.get("choice", frozenset()) | chosen_on
    found = check_split(evidence.records, used)
    if found is None:
        text = "nothing says which sentences were used for tuning"
        return missing("data-split", "USED_NOT_LISTED", text, evidence=(evidence.sha256,))
    listed = ", ".join(f"{count} for {role}" for role, count in found.used.items())
    what = "pairs, distinct" if evidence.manifest.kind == "translation" else "lines, each in one unit"
    return Claim(
        kind="data-split",
        comparator=None,
        extraction=None,
        finding=Finding.MEASURED,
        code="DISJOINT",
        text=f"{found.sentences} evaluated {what}, none of them among the sentences used: {listed}",
        n=found.sentences,
        unit="sentence",
        procedure="exact",
        assumptions=("A-EVIDENCE",),
        signature=settings("data-split", evidence),
        evidence=(evidence.sha256,),
        detail={"used": dict(found.used), "seen_in_pretraining": found.pretraining},
    )


def _counted(
    kind: str,
    evidence: Evidence,
    text: str,
    share: Fraction,
    n: int,
    detail: Mapping[str, Any],
    *,
    unit: str = "sentence",
    **signed: Any,
) -> Claim:
    """A share that was counted, without a limit; ``signed`` goes into the signature."""
    return Claim(
        kind=kind,
        comparator=None,
        extraction=None,
        finding=Finding.MEASURED,
        code="COUNTED",
        text=text,
        estimate=share,
        n=n,
        unit=unit,
        procedure="exact",
        assumptions=("A-EVIDENCE",),
        signature=settings(kind, evidence, **signed),
        evidence=(evidence.sha256,),
        detail=detail,
    )


def _run(record: TranslationRecord) -> set[int]:
    generated = record.arms[BASE_ARM].tokens or ()
    return {*record.prompt, *generated[:-1]}


def _differs(record: TranslationRecord, arm: str) -> bool:
    base, other = record.arms[BASE_ARM], record.arms[arm]
    return (base.text, base.ended, base.length) != (other.text, other.ended, other.length)


def _ending(evidence: Evidence, arm: str) -> dict[str, str | None]:
    answers = [record.arms[arm] for record in evidence.sentences]
    others = [record.arms[REFERENCE_ARM] for record in evidence.sentences]
    ended = [one.ended for one in answers if one.ended is not None]
    ratio = None
    if all(one.length for one in (*answers, *others)):
        ratio = Fraction(sum(one.length for one in answers), sum(one.length for one in others))
    share = Fraction(sum(ended), len(ended)) if len(ended) == len(answers) else None
    return {"ended": rational(share), "length_ratio": rational(ratio)}


def _exact(claim: Callable[[Evidence, Subject], Claim]) -> Compute:
    """Compute a kind that has no error probability."""
    return one_by_one(lambda evidence, subject, _variant, _delta: claim(evidence, subject))


DATA_SPLIT: Final = Kind(
    name="data-split",
    meaning="evaluated sentences, all distinct and used for nothing before; exact",
    roles=("evaluation", "other-template", "loss"),
    compute=_exact(split_claim),
)
OPPORTUNITY: Final = Kind(
    name="opportunity",
    meaning="share of prompts in which a row of the ticket is fed; exact",
    roles=("evaluation",),
    steps=True,
    compute=_exact(opportunity),
)
INTERVAL_SHARE: Final = Kind(
    name="interval-share",
    meaning="share of steps at which E*'s smoothed winner is an interval along the path; exact",
    roles=("evaluation",),
    steps=True,
    compute=_exact(interval_share),
)
NON_INTERFERENCE: Final = Kind(
    name="non-interference",
    meaning="share of sentences that the ticket cannot touch; exact",
    roles=("evaluation",),
    steps=True,
    compute=_exact(non_interference),
)
TERMINATION: Final = Kind(
    name="termination",
    meaning="share of the whole-output gain that disappears under each other extraction rule; descriptive",
    roles=("evaluation",),
    variants=(Variant("base"),),
    compute=_exact(termination),
)
