"""Policies: which checks a verdict rests on. A policy names items; :func:`certify.verdict.decide` decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from certify.errors import UsageError


@dataclass(frozen=True, slots=True)
class Policy:
    """A named set of required items.

    Attributes:
        name: what ``--policy`` takes.
        question: what a CERTIFIED under this policy answers with yes.
        requires: names of the items that must all pass.
        non_claims: what a CERTIFIED under this policy does not say.
    """

    name: str
    question: str
    requires: tuple[str, ...]
    non_claims: tuple[str, ...]


_SELECTION_ITEMS = (
    "integrity.base",
    "integrity.reference",
    "integrity.tokenizer",
    "integrity.template",
    "integrity.rows",
    "selection.content",
    "selection.parameters",
    "selection.ids",
    "selection.figures",
    "released.rows",
    "blind-spots.order",
    "blind-spots.direction",
)

_NON_CLAIMS = (
    "that a model with this ticket translates as well as any other model",
    "that it agrees with embed tuning on any input (the published theorem was not applied)",
    "that rows outside the ticket did not move: not rejecting is not equivalence",
    "that the p-values are calibrated: before and after are the same row, not independent samples",
)

_POLICIES = (
    Policy(
        name="selection",
        question="Are these the rows that the stated rule selects from these very tables?",
        requires=_SELECTION_ITEMS,
        non_claims=_NON_CLAIMS,
    ),
    Policy(
        name="release",
        question="May this ticket be released: is it what it says, and is the model as good with it?",
        requires=(*_SELECTION_ITEMS, "evidence.quality", "evidence.agreement"),
        non_claims=_NON_CLAIMS,
    ),
)

POLICIES: Mapping[str, Policy] = MappingProxyType({policy.name: policy for policy in _POLICIES})
DEFAULT_POLICY = "release"


def get_policy(name: str) -> Policy:
    """The shipped policy of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in POLICIES:
        raise UsageError(f"no policy {name!r}; there are: {', '.join(POLICIES)}", code="POLICY_UNKNOWN")
    return POLICIES[name]
