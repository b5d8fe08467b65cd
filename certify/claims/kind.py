"""What a kind of claim is. The kinds themselves are listed in :mod:`certify.claims.registry`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final, Literal

from certify.base.records import Rule
from certify.claims.claim import Claim, missing
from certify.evidence.load import Evidence, Subject

Role = Literal["evaluation", "other-template", "loss"]
"""What a manifest is evidence of: the task, the task under another template, unrelated text."""

Test = Literal["at_least", "above", "at_most", "below", "held", "not refuted"]
"""How a policy tests a claim: by a threshold on a limit, or by its finding."""

LOWER: Final[frozenset[Test]] = frozenset({"at_least", "above"})
"""Tests of a lower limit."""

UPPER: Final[frozenset[Test]] = frozenset({"at_most", "below"})
"""Tests of an upper limit."""

PROMISE: Final[frozenset[Test]] = frozenset({"held", "not refuted"})
"""Tests of a finding."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One claim of a kind: what the ticket is compared with, under which extraction rule.

    Attributes:
        comparator: as in :class:`certify.claims.claim.Claim`; None if nothing, or if the evidence says.
        extraction: extraction rule, where outputs are scored.
        by_name: applies only to declarations that name it.
    """

    comparator: str | None = None
    extraction: Rule | None = None
    by_name: bool = False

    @property
    def against(self) -> str:
        """The comparator.

        Raises:
            ValueError: there is none.
        """
        if self.comparator is None:
            raise ValueError("this claim compares with nothing")
        return self.comparator

    @property
    def rule(self) -> Rule:
        """The extraction rule.

        Raises:
            ValueError: there is none.
        """
        if self.extraction is None:
            raise ValueError("this claim has no extraction rule")
        return self.extraction


Compute = Callable[[Evidence, Subject, tuple[Variant, ...], Fraction], Iterable[Claim]]
"""From evidence, ticket, variants and the error probability of each limit to one claim per variant."""

Reverse = Callable[[Claim], Fraction | None]
"""From a claim to its opposite limit at the same ``delta``, by its witness; None if there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of claim.

    A kind with ``tests`` can be required by a policy; certificates state such kinds. A kind without tests
    informs: ``certify check`` shows it, computed from the evidence.

    Attributes:
        name: stable name, the first part of the name of a claim.
        meaning: the quantity and its limits, in one phrase.
        roles: evidence on which it is made; one role if policies can require it.
        variants: its claims on one text, in the order of reports.
        steps: about single decisions, of which outputs of another engine say nothing.
        compute: computes the claims of some variants.
        tests: how a policy can test it; all of :data:`LOWER`, :data:`UPPER` or :data:`PROMISE`, or none.
        reverse: the limit on the other side, which can refute a claim with a threshold.
        tolerance: a declared margin says how much may be lost, not what must be reached.
        gains: declared without a margin, it must be above 0.
        asymptotic: its limits hold for many units only, so that nothing can rest on them.
        label: short name for the columns of reports.
    """

    name: str
    meaning: str
    roles: tuple[Role, ...]
    variants: tuple[Variant, ...] = (Variant(),)
    steps: bool = False
    compute: Compute
    tests: frozenset[Test] = frozenset()
    reverse: Reverse | None = None
    tolerance: bool = False
    gains: bool = False
    asymptotic: bool = False
    label: str = ""

    def __post_init__(self) -> None:
        """Refuse an entry that contradicts itself.

        Raises:
            ValueError: it does.
        """
        if self.tests not in (LOWER, UPPER, PROMISE, frozenset()):
            raise ValueError(f"{self.name} is tested on one side, by its finding, or not at all")
        if self.tests and (len(self.roles) != 1 or self.asymptotic):
            raise ValueError(f"{self.name} can be required: it has one role and finite-sample limits")
        if (self.reverse is None) == (self.tests in (LOWER, UPPER)):
            raise ValueError(f"{self.name} has an opposite limit if a threshold tests it, and only then")

    @property
    def by_finding(self) -> bool:
        """A policy tests the finding, not a limit."""
        return self.tests == PROMISE

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its claims, as policies spell them."""
        return tuple(
            ":".join(part for part in (self.name, one.comparator, one.extraction) if part)
            for one in self.variants
        )

    def claims(
        self,
        evidence: Evidence,
        subject: Subject,
        delta: Fraction,
        variants: tuple[Variant, ...] | None = None,
    ) -> tuple[Claim, ...]:
        """Its claims on one text; all of them, unless ``variants`` names some."""
        variants = self.variants if variants is None else variants
        if not self.steps or evidence.manifest.produced_by is None:
            return tuple(self.compute(evidence, subject, variants, delta))
        return self.lacking(evidence, "STEPS_NOT_RECORDED", evidence.without_steps, variants)

    def lacking(
        self, evidence: Evidence, code: str, text: str, variants: tuple[Variant, ...]
    ) -> tuple[Claim, ...]:
        """Its claims without figures, and why."""
        return tuple(
            missing(
                self.name,
                code,
                text,
                comparator=variant.comparator,
                extraction=variant.extraction,
                evidence=(evidence.sha256,),
            )
            for variant in variants
        )


def one_by_one(claim: Callable[[Evidence, Subject, Variant, Fraction], Claim]) -> Compute:
    """Compute each claim of a kind independently, from its own variant."""
    return lambda evidence, subject, variants, delta: (
        claim(evidence, subject, variant, delta) for variant in variants
    )


def under_template(claim: Claim, kind: str, evidence: Evidence) -> Claim:
    """The claim as it is called under a template other than the ticket's, whose name its text says."""
    template = evidence.manifest.template
    said = f"under the template {template.name}: {claim.text}" if template else claim.text
    line = claim.signature and f"claim:{kind}" + claim.signature.removeprefix(f"claim:{claim.kind}")
    return replace(claim, kind=kind, text=said, signature=line)
