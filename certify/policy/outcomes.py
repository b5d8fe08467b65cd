"""What a policy asks of claims, answered from the claims that evidence supports: one item a requirement.

The rules are those of :mod:`certify.policy.requirement`; here are the ones that need the ticket, the
certificate and all texts together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from certify.base.verdict import Item, Outcome
from certify.certificate.build import TextClaims
from certify.certificate.schema import UNSTATED, Certificate
from certify.claims.registry import opposite_limit
from certify.evidence.load import Subject
from certify.policy.policy import Policy
from certify.policy.requirement import Requirement, RequirementAnswer, judge
from certify.ticket.schema import Ticket

REMEDY = "evaluate the ticket on held-out text (certify evaluate), then certify issue --attach"

_GRAVEST = (
    *(Outcome.FAIL, Outcome.MISSING, Outcome.INCONCLUSIVE, Outcome.NOT_RUN, Outcome.VACUOUS),
    Outcome.PASS,
)


def unasked(ticket: Ticket, requirement: Requirement) -> RequirementAnswer | None:
    """Rule 1: PASS for what is asked only of tickets that declare the claim, where this one does not."""
    if not requirement.when_declared or any(
        one.kind == requirement.kind and one.comparator in (None, requirement.comparator)
        for one in ticket.declared
    ):
        return None
    return RequirementAnswer(Outcome.PASS, "NOT_CLAIMED", "the ticket does not claim it")


def not_run(ticket: Ticket, policy: Policy, why: str) -> list[Item]:
    """The items of all requirements where the evidence could not be used."""
    items = []
    for requirement in policy.claims:
        answer = unasked(ticket, requirement) or RequirementAnswer(
            Outcome.NOT_RUN, "NOT_RUN", f"not run: {why}"
        )
        items.append(Item(requirement.item, answer.outcome, answer.code, answer.text))
    return items


def answer_all(
    policy: Policy, certificate: Certificate, subject: Subject, texts: Sequence[TextClaims]
) -> dict[tuple[str, str], RequirementAnswer]:
    """By requirement's claim and path of the manifest: what each text of the role makes of it."""
    stated = {(claim.evidence, claim.name) for claim in certificate.claims}
    return {
        (requirement.claim, text.path): _answer(requirement, policy, certificate, subject, text, stated)
        for requirement in policy.claims
        for text in texts
        if text.role == requirement.role and (not requirement.texts or text.name in requirement.texts)
    }


def items(
    ticket: Ticket,
    policy: Policy,
    texts: Sequence[TextClaims],
    answers: Mapping[tuple[str, str], RequirementAnswer],
) -> list[Item]:
    """One item for each requirement: the gravest answer of its texts."""
    return [_item(ticket, requirement, texts, answers) for requirement in policy.claims]


def _item(
    ticket: Ticket,
    requirement: Requirement,
    texts: Sequence[TextClaims],
    answers: Mapping[tuple[str, str], RequirementAnswer],
) -> Item:
    name = requirement.item
    undeclared = unasked(ticket, requirement)
    if undeclared is not None:
        return Item(name, undeclared.outcome, undeclared.code, undeclared.text)
    # Texts of several templates may have one name: each has its answer.
    keys = [(text.name, (requirement.claim, text.path)) for text in texts]
    found = [(text, answers[key]) for text, key in keys if key in answers]
    lacking = set(requirement.texts) - {text for text, _ in found}
    if lacking or not found:
        which = f"on {', '.join(sorted(lacking))}" if lacking else f"of the role {requirement.role}"
        text = f"the certificate names no evidence {which}"
        found.append(("", RequirementAnswer(Outcome.MISSING, "NO_TEXT", text)))
    gravest = min((answer for _, answer in found), key=lambda answer: _GRAVEST.index(answer.outcome))
    said = "; ".join(f"{text}: {answer.text}" if text else answer.text for text, answer in found)
    remedy = REMEDY if gravest.outcome is Outcome.MISSING else None
    return Item(name, gravest.outcome, gravest.code, f"must be {requirement}. {said}", remedy)


def _answer(
    requirement: Requirement,
    policy: Policy,
    certificate: Certificate,
    subject: Subject,
    text: TextClaims,
    stated: set[tuple[str, str]],
) -> RequirementAnswer:
    undeclared = unasked(subject.ticket, requirement)
    if undeclared is not None:
        return undeclared
    delta = certificate.parameters.delta
    if policy.delta is not None and Fraction(delta) > policy.delta:
        said = f"the certificate is made at delta = {delta}, the policy asks for {float(policy.delta):g}"
        return RequirementAnswer(Outcome.INCONCLUSIVE, "DELTA_TOO_LARGE", said)
    claim = next(one for one in text.claims if one.name == requirement.claim)
    if claim.finding not in UNSTATED and (text.evidence.sha256, claim.name) not in stated:
        return RequirementAnswer(Outcome.MISSING, "CLAIM_NOT_STATED", "the certificate does not state it")
    return judge(
        requirement,
        claim,
        alpha=subject.ticket.selection.alpha,
        taken=policy.taken,
        opposite=lambda: opposite_limit(claim),
    )
