"""One requirement of a policy on one claim, and what a claim computed from evidence makes of it.

The rules, for one text; ``delta`` is the text's share (:mod:`certify.certificate.schema`). The first that
applies decides:

1. A declared claim that nothing can test (no such claim, or no margin where it needs one): INCONCLUSIVE,
   DECLARED_UNTESTABLE.
2. The requirement's ``delta``, that of the policy or of the declaration, is smaller than the certificate's:
   INCONCLUSIVE, DELTA_TOO_LARGE.
3. The evidence does not support the claim: MISSING, with the claim's own code.
4. The certificate does not state the claim: MISSING, CLAIM_NOT_STATED.
5. An assumption of the claim is neither in ``design`` nor in ``accept`` of the policy:
   INCONCLUSIVE, ASSUMPTION_NOT_ACCEPTED.
6. Finding ``vacuous``: VACUOUS, with the claim's own code. But see 8.
7. A threshold t on a limit. PASS, SHOWN, if the limit meets it; FAIL, CLAIM_REFUTED, if the opposite limit at
   the same ``delta`` shows that the quantity does not; else INCONCLUSIVE, NOT_SHOWN:

   ==============  ====================  ==================================
   ``at_least t``  PASS if lower >= t    FAIL if upper < t
   ``above t``     PASS if lower > t     FAIL if upper <= t
   ``at_most t``   PASS if upper <= t    FAIL if lower > t
   ``below t``     PASS if upper < t     FAIL if lower >= t
   ==============  ====================  ==================================

   The opposite limit of a kind is the ``reverse`` of its entry (:mod:`certify.claims.registry`).
8. A guarantee that must be ``held``: finding ``held`` PASS (GUARANTEE_HELD), but INCONCLUSIVE
   (GUARANTEE_DESCRIPTIVE) at a level above 1/10; ``refuted`` FAIL (GUARANTEE_REFUTED); ``premise failed``
   FAIL (GUARANTEE_PREMISE_FAILED); ``vacuous`` VACUOUS (GUARANTEE_VACUOUS); ``inconclusive`` INCONCLUSIVE
   (GUARANTEE_INCONCLUSIVE). One that must be ``not refuted``: ``refuted`` FAIL, any other finding PASS
   (NOT_REFUTED). Either way, ``violated`` is INVALID (GUARANTEE_VIOLATED).

Whatever a ticket *declares* is required of it, too (:func:`declared`), under every policy that reads
evidence: at its own margin, extraction rule, ``delta`` and texts; a declared guarantee must be held.

A requirement speaks of every text of its role, or of the texts that it names: there must be one, and each
named one must be there, else MISSING (NO_TEXT); over texts the gravest outcome counts, in the order INVALID,
FAIL, MISSING, INCONCLUSIVE, VACUOUS, PASS; MISSING and INCONCLUSIVE give the same verdict.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Final

from certify.base.verdict import Outcome
from certify.claims.claim import Claim, Finding
from certify.claims.criteria import DESCRIPTIVE_ABOVE
from certify.claims.kind import LOWER, PROMISE, UPPER, Kind, Role, Test
from certify.claims.registry import KINDS
from certify.ticket.declared import DeclaredClaim
from certify.ticket.schema import Ticket

DECLARED: Final = ":declared"
"""How the name of a claim ends that is asked for under the extraction rule that the ticket declares."""

TESTS: Final[Mapping[str, frozenset[Test]]] = MappingProxyType(
    {name: kind.tests for kind in KINDS.values() if kind.tests for name in kind.names}
    | {
        f"{kind.name}:{variant.comparator}{DECLARED}": kind.tests
        for kind in KINDS.values()
        if kind.tests
        for variant in kind.variants
        if variant.extraction
    }
)
"""Every claim that a policy can require, and how it can be tested."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """What a policy asks of one claim.

    Attributes:
        claim: name of the claim, a key of :data:`TESTS`; :meth:`about` says which one of a ticket it is.
        test: how it is tested.
        threshold: what the limit is compared with; None for a guarantee.
        texts: names of the texts on which it is asked; empty: all of the role.
        delta: largest error probability of the claim over its texts; None if nothing limits it.
        declared: which of the ticket's own declarations asks it, from 1 on; 0: the policy does.
    """

    claim: str
    test: Test
    threshold: Fraction | None = None
    texts: tuple[str, ...] = ()
    delta: Fraction | None = None
    declared: int = 0

    def about(self, ticket: Ticket) -> str:
        """Name of the claim about that ticket: ``declared`` is the rule that the ticket declares."""
        plain = self.claim.removesuffix(DECLARED)
        return plain if plain == self.claim else f"{plain}:{ticket.rule}"

    def level(self, ticket: Ticket) -> str:
        """Level of the promise about that ticket: the declared one of a calibrated margin."""
        own = ticket.calibration if self.comparator == "calibrated" else None
        return ticket.selection.alpha if own is None else own.alpha

    @property
    def kind(self) -> str:
        """Kind of the claim."""
        return self.claim.partition(":")[0]

    @property
    def comparator(self) -> str:
        """What the ticket is compared with, or the criterion."""
        return self.claim.split(":")[1]

    @property
    def item(self) -> str:
        """Name of the item that answers it: ``guarantee.CRITERION`` or ``claim.KIND.COMPARATOR[.RULE]``.

        If the ticket declares it, ``declared.NUMBER.`` and the claim: one can be declared more than once.
        """
        name = self.claim.replace(":", ".")
        if self.declared:
            return f"declared.{self.declared}.{name}"
        return name if KINDS[self.kind].by_finding else f"claim.{name}"

    @property
    def role(self) -> Role:
        """Role of the evidence that it is asked of."""
        (role,) = KINDS[self.kind].roles
        return role

    def __str__(self) -> str:
        """The requirement in words."""
        if self.threshold is None:
            return self.test
        sign = {"at_least": ">=", "above": ">", "at_most": "<=", "below": "<"}[self.test]
        return f"{sign} {float(self.threshold):g}"


def declared(ticket: Ticket) -> tuple[tuple[Requirement, ...], tuple[str, ...]]:
    """What a ticket declares, as requirements; and the names of the items of what nothing can test.

    Of non-inferiority, the margin says how much may be lost; of any other claim with a limit, what must be
    reached, by default more than 0 for a gain, its retention and null tickets. Without a comparator every
    one is meant that needs no naming (``path`` does), without an extraction rule that of the ticket is.
    """
    found: list[Requirement] = []
    untestable: list[str] = []
    for number, one in enumerate(ticket.declared, 1):
        kind = KINDS.get(one.kind)
        test, threshold = _declared_test(kind, one.margin) if kind else (None, None)
        names = _declared_names(kind, one, ticket) if kind and kind.tests else []
        if not names or test is None:
            spelled = ".".join(filter(None, (one.kind, one.comparator, one.extraction)))
            untestable.append(f"declared.{number}.{spelled}")
            continue
        delta = None if one.delta is None else Fraction(one.delta)
        found += [Requirement(name, test, threshold, one.texts, delta, number) for name in names]
    return tuple(found), tuple(untestable)


def _declared_names(kind: Kind, one: DeclaredClaim, ticket: Ticket) -> list[str]:
    rule = one.extraction or (ticket.rule if kind.variants[0].extraction else None)
    return [
        name
        for variant, name in zip(kind.variants, kind.names, strict=True)
        if one.comparator in ({variant.comparator} if variant.by_name else {None, variant.comparator})
        and rule == variant.extraction
    ]


def _declared_test(kind: Kind, margin: str | None) -> tuple[Test | None, Fraction | None]:
    value = None if margin is None else Fraction(margin)
    if kind.tests == PROMISE:
        return ("held", None) if value is None else (None, None)
    if value is None:
        return ("above", Fraction(0)) if kind.tests == LOWER and kind.gains else (None, None)
    return ("at_most", value) if kind.tests == UPPER else ("at_least", -value if kind.tolerance else value)


@dataclass(frozen=True, slots=True)
class RequirementAnswer:
    """What one text makes of a requirement.

    Attributes:
        outcome: the outcome.
        code: stable reason code.
        text: one sentence with the figures.
        open: more units of the same text could decide it.
    """

    outcome: Outcome
    code: str
    text: str
    open: bool = False


def judge(
    requirement: Requirement,
    claim: Claim,
    *,
    alpha: str,
    taken: frozenset[str],
    opposite: Callable[[], Fraction | None],
) -> RequirementAnswer:
    """Rules 3 and 5 to 8 for a claim that the certificate states, or that the evidence does not support.

    Args:
        requirement: what is asked.
        claim: the claim of that name, computed from the evidence.
        alpha: level of the promise (:meth:`Requirement.level`).
        taken: assumptions that the policy takes as given.
        opposite: computes the limit on the other side (:func:`certify.claims.registry.opposite_limit`);
            called only where needed.
    """
    if claim.finding in (Finding.MISSING, Finding.NOT_APPLICABLE):
        return RequirementAnswer(Outcome.MISSING, claim.code, claim.text)
    lacking = [name for name in claim.assumptions if name not in taken]
    if lacking:
        text = f"it rests on {', '.join(lacking)}, which the policy does not accept ({claim.text})"
        return RequirementAnswer(Outcome.INCONCLUSIVE, "ASSUMPTION_NOT_ACCEPTED", text)
    if requirement.test in PROMISE:
        return _guarantee(requirement, claim, alpha)
    if claim.finding is Finding.VACUOUS:
        return RequirementAnswer(Outcome.VACUOUS, claim.code, claim.text)
    return _threshold(requirement, claim, opposite)


def _guarantee(requirement: Requirement, claim: Claim, alpha: str) -> RequirementAnswer:
    if claim.finding is Finding.VIOLATED:
        return RequirementAnswer(Outcome.INVALID, claim.code, claim.text)
    if requirement.test == "not refuted":
        if claim.finding is Finding.REFUTED:
            return RequirementAnswer(Outcome.FAIL, claim.code, claim.text)
        return RequirementAnswer(Outcome.PASS, "NOT_REFUTED", f"{claim.finding}: {claim.text}")
    if claim.finding is Finding.HELD and Fraction(alpha) > DESCRIPTIVE_ABOVE:
        text = f"at level {alpha} the promise is only descriptive: {claim.text}"
        return RequirementAnswer(Outcome.INCONCLUSIVE, "GUARANTEE_DESCRIPTIVE", text)
    outcome = {
        Finding.HELD: Outcome.PASS,
        Finding.REFUTED: Outcome.FAIL,
        Finding.PREMISE_FAILED: Outcome.FAIL,
        Finding.VACUOUS: Outcome.VACUOUS,
        Finding.INCONCLUSIVE: Outcome.INCONCLUSIVE,
    }[claim.finding]
    undecided = claim.finding in (Finding.INCONCLUSIVE, Finding.VACUOUS)
    return RequirementAnswer(outcome, claim.code, claim.text, open=undecided)


def _threshold(
    requirement: Requirement, claim: Claim, opposite: Callable[[], Fraction | None]
) -> RequirementAnswer:
    threshold = requirement.threshold
    limit = claim.lower if requirement.test in LOWER else claim.upper
    if threshold is None or limit is None:
        raise ValueError(f"{claim.name} has no limit to compare")
    # An upper limit is a lower limit of the opposite quantity.
    sign = 1 if requirement.test in LOWER else -1
    strict = requirement.test in ("above", "below")
    limit, threshold = sign * limit, sign * threshold
    if limit > threshold or (limit == threshold and not strict):
        return RequirementAnswer(Outcome.PASS, "SHOWN", claim.text)
    other = opposite()
    if other is not None and (sign * other < threshold or (strict and sign * other == threshold)):
        side = "at most" if sign > 0 else "at least"
        text = f"{claim.text}; shown to be {side} {float(other):+.4f}"
        return RequirementAnswer(Outcome.FAIL, "CLAIM_REFUTED", text)
    text = f"{claim.text}; {_needed(claim, limit, threshold, sign)}"
    return RequirementAnswer(Outcome.INCONCLUSIVE, "NOT_SHOWN", text, open=True)


def _needed(claim: Claim, limit: Fraction, threshold: Fraction, sign: int) -> str:
    """How many units would do if the estimate is right, and if it is off by about a standard error.

    That is half its distance from the limit, which is taken to shrink with the root of the units. Of such
    numbers every second evaluation falls short; ``certify power`` plans for more.
    """
    estimate = threshold if claim.estimate is None else sign * claim.estimate
    if estimate <= threshold:
        return "the estimate itself does not meet the threshold: more units alone will not show it"

    def units(excess: Fraction) -> int:
        return max(claim.n + 1, math.ceil(claim.n * (estimate - limit) ** 2 / excess**2))

    excess, error = estimate - threshold, (estimate - limit) / 2
    most = f"to {units(excess - error)}" if excess > error else "or more"
    return (
        f"{claim.n} units do not decide: about {units(excess)} would if the estimate is right,"
        f" {units(excess + error)} {most} as it can err"
    )
