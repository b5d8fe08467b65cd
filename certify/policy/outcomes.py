"""What a policy asks of claims, answered from the claims that evidence supports: one item a requirement.

The rules are those of :mod:`certify.policy.requirement`; here are the ones that need the ticket, the
certificate and all texts together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Final

from certify.base.verdict import Item, Outcome
from certify.certificate.build import TextClaims
from certify.certificate.schema import UNSTATED, Certificate
from certify.claims.kind import Role
from certify.claims.registry import opposite_limit
from certify.evidence.load import Subject
from certify.policy.policy import Policy
from certify.policy.requirement import Requirement, RequirementAnswer, declared, judge
from certify.ticket.schema import Ticket

_DECLARED_FALSE = "the ticket declares what is false: find it again with a claim that holds, or without it"
_ASKED_FALSE = "the ticket does not do what this policy asks, and more text will not change that"

_WHERE: Mapping[Role, str] = {
    "evaluation": "of a translated text",
    "other-template": "under another template (certify evaluate --evidence ... --paraphrase TEMPLATE)",
    "loss": "of unrelated text (certify evaluate --evidence ... --unrelated FILE)",
}

GRAVEST: Final = (
    *(Outcome.INVALID, Outcome.FAIL, Outcome.MISSING, Outcome.INCONCLUSIVE, Outcome.NOT_RUN, Outcome.VACUOUS),
    Outcome.PASS,
)
"""Outcomes of answers about several texts: the first that occurs counts."""


def asked(ticket: Ticket, policy: Policy) -> tuple[Requirement, ...]:
    """What is asked of claims: by the policy, and by the ticket itself where the policy reads evidence."""
    return (*policy.claims, *(declared(ticket)[0] if policy.reads_evidence else ()))


def required(ticket: Ticket, policy: Policy) -> tuple[str, ...]:
    """Names of all items that must pass."""
    if not policy.reads_evidence:
        return policy.requires
    own, untestable = declared(ticket)
    return (*policy.requires, *(one.item for one in own), *untestable)


def not_run(ticket: Ticket, policy: Policy, why: str) -> list[Item]:
    """The items of all requirements where the evidence could not be used."""
    return [
        Item(requirement.item, Outcome.NOT_RUN, "NOT_RUN", f"not run: {why}")
        for requirement in asked(ticket, policy)
    ] + _untestable(ticket, policy)


def answer_all(
    policy: Policy, certificate: Certificate, subject: Subject, texts: Sequence[TextClaims]
) -> dict[tuple[str, str], RequirementAnswer]:
    """By requirement's item and path of the manifest: what each text of the role makes of it."""
    stated = {(claim.evidence, claim.name) for claim in certificate.claims}
    return {
        (requirement.item, text.path): _answer(requirement, policy, certificate, subject, text, stated)
        for requirement in asked(subject.ticket, policy)
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
    return [_item(requirement, texts, answers) for requirement in asked(ticket, policy)] + _untestable(
        ticket, policy
    )


def _untestable(ticket: Ticket, policy: Policy) -> list[Item]:
    text = "there is no such claim, or it needs a margin: what the ticket declares cannot be tested"
    return [
        Item(name, Outcome.INCONCLUSIVE, "DECLARED_UNTESTABLE", text)
        for name in (declared(ticket)[1] if policy.reads_evidence else ())
    ]


def _item(
    requirement: Requirement,
    texts: Sequence[TextClaims],
    answers: Mapping[tuple[str, str], RequirementAnswer],
) -> Item:
    name = requirement.item
    # Texts of several templates may have one name: each has its answer.
    keys = [(text.name, (requirement.item, text.path)) for text in texts]
    found = [(text, answers[key]) for text, key in keys if key in answers]
    lacking = set(requirement.texts) - {text for text, _ in found}
    if lacking or not found:
        which = f"on {', '.join(sorted(lacking))}" if lacking else _WHERE[requirement.role]
        text = f"the certificate names no evidence {which}"
        found.append(("", RequirementAnswer(Outcome.MISSING, "NO_TEXT", text)))
    gravest = min((answer for _, answer in found), key=lambda answer: GRAVEST.index(answer.outcome))
    said = "; ".join(f"{text}: {answer.text}" if text else answer.text for text, answer in found)
    remedy = None
    if gravest.code == "CLAIM_REFUTED":
        remedy = _DECLARED_FALSE if requirement.declared else _ASKED_FALSE
    return Item(name, gravest.outcome, gravest.code, f"must be {requirement}. {said}", remedy)


def _answer(
    requirement: Requirement,
    policy: Policy,
    certificate: Certificate,
    subject: Subject,
    text: TextClaims,
    stated: set[tuple[str, str]],
) -> RequirementAnswer:
    delta = certificate.parameters.delta
    allowed = [most for most in (policy.delta, requirement.delta) if most is not None]
    if any(Fraction(delta) > most for most in allowed):
        said = f"the certificate is made at delta = {delta}, asked for is {float(min(allowed)):g}"
        return RequirementAnswer(Outcome.INCONCLUSIVE, "DELTA_TOO_LARGE", said)
    name = requirement.about(subject.ticket)
    claim = next(one for one in text.claims if one.name == name)
    if claim.finding not in UNSTATED and (text.evidence.sha256, claim.name) not in stated:
        return RequirementAnswer(Outcome.MISSING, "CLAIM_NOT_STATED", "the certificate does not state it")
    return judge(
        requirement,
        claim,
        alpha=requirement.level(subject.ticket),
        taken=policy.taken,
        opposite=lambda: opposite_limit(claim),
    )
