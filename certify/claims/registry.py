"""Every kind of claim, once. Whatever else knows kinds of claims derives it from here.

How to add a claim:

1. Write ``certify/claims/NAME.py``: a function that computes the claim from evidence, and, if a policy can
   test it by a threshold, one that computes the limit on the other side (what shows that it is false).
2. End the file with its entry, a :class:`certify.claims.kind.Kind`, and name the entry in :data:`KINDS`.
   The order there is the order of certificates and reports.
3. Add a case to ``proofs_checks/coverage``, whose answer is known: to ``claims.py`` if a policy can require
   the claim, else to ``informing.py``. A test fails until then.
4. If a policy can require it, teach it to the independent checker, which shares no code: a test asks for it.
5. Name it in ``docs/theory.md`` §5, and its reason codes in ``certify/policy/codes.toml``.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import Final

from certify.claims.agreement import AGREEMENT_RATE, TEMPLATE_AGREEMENT, TOKEN_AGREEMENT
from certify.claims.claim import Claim
from certify.claims.corpus import CORPUS_BLEU, CORPUS_CHRF
from certify.claims.counts import DATA_SPLIT, INTERVAL_SHARE, NON_INTERFERENCE, OPPORTUNITY, TERMINATION
from certify.claims.kind import Kind, Role
from certify.claims.loss import UNRELATED_EXCESS, UNRELATED_LOSS
from certify.claims.promise import GUARANTEE
from certify.claims.quality import BETTER_THAN_NULLS, GAIN, NON_INFERIORITY, RETENTION, TEMPLATE_GAIN
from certify.evidence.load import Evidence, Subject

KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            DATA_SPLIT,
            AGREEMENT_RATE,
            TOKEN_AGREEMENT,
            GUARANTEE,
            INTERVAL_SHARE,
            NON_INFERIORITY,
            GAIN,
            RETENTION,
            BETTER_THAN_NULLS,
            CORPUS_BLEU,
            CORPUS_CHRF,
            TERMINATION,
            OPPORTUNITY,
            NON_INTERFERENCE,
            UNRELATED_LOSS,
            UNRELATED_EXCESS,
            TEMPLATE_AGREEMENT,
            TEMPLATE_GAIN,
        )
    }
)
"""Every kind of claim, by name."""


def stated_kinds(role: Role) -> tuple[str, ...]:
    """Kinds that certificates state about a text of that role: those that a policy can require."""
    return tuple(kind.name for kind in KINDS.values() if kind.tests and role in kind.roles)


def claim_named(name: str, evidence: Evidence, subject: Subject, delta: Fraction) -> Claim:
    """The one claim of that name, as policies spell it, on one text of its role.

    Raises:
        ValueError: no claim has that name.
    """
    kind = KINDS.get(name.partition(":")[0])
    for variant, spelled in zip(kind.variants, kind.names, strict=True) if kind else ():
        if kind and spelled == name:
            (claim,) = kind.claims(evidence, subject, delta, (variant,))
            return claim
    raise ValueError(f"there is no claim {name}")


def opposite_limit(claim: Claim) -> Fraction | None:
    """The limit on the other side of a claim, at the same ``delta``, from the same units.

    It shows that a claim is false (rule 7 of :mod:`certify.policy.requirement`). None if there is none.

    Raises:
        ValueError: a kind of claim without one.
    """
    kind = KINDS[claim.kind]
    if kind.reverse is None:
        raise ValueError(f"no opposite limit of {claim.name}")
    return kind.reverse(claim)
