"""Learn then Test: the smallest ticket that evidence shows to be good enough (theory §5).

Candidates are the transferred tickets of one evidence manifest. They are tested from the largest to the
smallest, an order that their sizes fix and the evaluation cannot change; each null hypothesis "this ticket is
not good enough" is tested at the full ``delta``, and testing stops at the first that is not rejected
(:func:`certify.stats.budget.fixed_sequence`). The smallest ticket before that is chosen; it is not good
enough with probability at most ``delta``, however many candidates there are and however they depend on each
other.

What *good enough* means (:class:`Goal`), always against embed tuning:

===================  =============================================  ==========================================
goal                 quantity of a ticket                           test
===================  =============================================  ==========================================
``agreement:A``      share of units in which every decision is      exact binomial tail (fixed design),
                     E*'s, at least A                               betting (sequential)
``token-agreement:A``  mean over units of the share of equal        betting
                     decisions, at least A
``non-inferiority:POINTS``  mean difference of sentence chrF to embed    betting
                     tuning, at least -POINTS, under the extraction
                     rule that the ticket will declare
===================  =============================================  ==========================================

No ticket is trained here. The limit shown beside each test is for the reader; the test decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, Literal

from certify.base.enclosure import rational
from certify.base.errors import NothingToDoError, UsageError
from certify.base.records import Rule
from certify.base.version import __version__
from certify.claims.agreement import equal_shares
from certify.claims.claim import unit_assumptions
from certify.evidence.choice_record import SCHEMA_NAME, SCHEMA_VERSION
from certify.evidence.load import Evidence
from certify.evidence.read import REFERENCE_ARM, Arm
from certify.evidence.sentence_scores import POINT, unit_scores
from certify.evidence.split import check_choice_data, chosen_on
from certify.stats.betting import betting_exceeds, betting_lower, difference_lower, noninferior
from certify.stats.budget import fixed_sequence
from certify.stats.limits import Limit, check_level
from certify.stats.rates import rate_at_least, rate_limit

PROCEDURE: Final = "learn-then-test/fixed-sequence/1"

GoalKind = Literal["agreement", "token-agreement", "non-inferiority"]

_KINDS: Final[tuple[GoalKind, ...]] = ("agreement", "token-agreement", "non-inferiority")
_GOAL = re.compile(r"([a-z-]+):([0-9]{0,3}\.[0-9]{1,12}|[0-9]{1,3})")


@dataclass(frozen=True, slots=True)
class Goal:
    """When a ticket is good enough.

    Attributes:
        kind: see the table of the module.
        value: A, strictly between 0 and 1, or E, strictly between 0 and 100 chrF points.
    """

    kind: GoalKind
    value: Fraction

    def __str__(self) -> str:
        """As :func:`parse_goal` takes it."""
        return f"{self.kind}:{float(self.value):g}"


@dataclass(frozen=True, slots=True)
class Tested:
    """One candidate that was tested.

    Attributes:
        arm: the arm that served it.
        limit: lower limit of its quantity, for the reader.
        good: its test at the full ``delta`` rejected "not good enough".
    """

    arm: Arm
    limit: Limit
    good: bool


@dataclass(frozen=True, slots=True)
class Choice:
    """The record of the procedure.

    Attributes:
        goal: what is good enough.
        rule: extraction rule of quality.
        delta: largest probability that the chosen ticket is not good enough.
        evidence: the evidence.
        candidates: all candidates, in the order of testing.
        tested: those that were tested: all but the last are good enough.
    """

    goal: Goal
    rule: Rule
    delta: Fraction
    evidence: Evidence
    candidates: tuple[Arm, ...]
    tested: tuple[Tested, ...]

    @property
    def chosen(self) -> Tested | None:
        """The smallest ticket shown to be good enough, or None."""
        good = [one for one in self.tested if one.good]
        return good[-1] if good else None

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON values, without floats; same evidence, same record."""
        results = {one.arm.name: one for one in self.tested}
        manifest = self.evidence.manifest
        return {
            "schema": SCHEMA_NAME,
            "schema_version": SCHEMA_VERSION,
            "created_by": f"certify {__version__}",
            "procedure": PROCEDURE,
            "goal": {"kind": self.goal.kind, "value": rational(self.goal.value)}
            | ({"extraction": self.rule} if self.goal.kind == "non-inferiority" else {}),
            "delta": rational(self.delta),
            "evidence": {
                "sha256": self.evidence.sha256,
                "text": manifest.text.name,
                "text_sha256": manifest.text.sha256,
                "unit": manifest.text.unit,
                "design": manifest.design,
                "order_seed": manifest.order_seed,
            },
            "assumptions": list(unit_assumptions(self.evidence)),
            "candidates": [_described(arm, results.get(arm.name)) for arm in self.candidates],
            "chosen": None if self.chosen is None else self.chosen.arm.name,
            "sentences": chosen_on(self.evidence),
        }


def parse_goal(text: str) -> Goal:
    """Read ``agreement:0.95``, ``token-agreement:0.99`` or ``non-inferiority:1.0``.

    Raises:
        UsageError: something else, or a value out of range (``GOAL``).
    """
    found = _GOAL.fullmatch(text)
    for kind in _KINDS:
        if found and found[1] == kind and 0 < Fraction(found[2]) < (100 if kind == "non-inferiority" else 1):
            return Goal(kind, Fraction(found[2]))
    raise UsageError(
        "a guarantee is agreement:A or token-agreement:A with 0 < A < 1, or non-inferiority:POINTS with"
        f" 0 < POINTS < 100, not {text!r}",
        code="GOAL",
    )


def candidates(evidence: Evidence) -> tuple[Arm, ...]:
    """Transferred tickets without gate that are no controls, from the largest to the smallest.

    Equal sizes are ordered by the digest of the table; equal tables count once.

    Raises:
        NothingToDoError: there is none (``NO_CANDIDATES``).
    """
    found: dict[str | None, Arm] = {}
    for arm in evidence.manifest.arms:
        if arm.kind == "transfer" and arm.control is None and arm.gate is None:
            found.setdefault(arm.table_sha256, arm)
    if not found:
        raise NothingToDoError(
            f"evidence {evidence.manifest.text.name} holds no transferred ticket to choose from",
            code="NO_CANDIDATES",
        )
    return tuple(sorted(found.values(), key=lambda arm: (-len(arm.ids or ()), arm.table_sha256 or "")))


def choose(evidence: Evidence, goal: Goal, delta: Fraction, rule: Rule = "whole") -> Choice:
    """Test the candidates of ``evidence`` from the largest on; see the module.

    Args:
        evidence: loaded evidence of kind ``translation``.
        goal: what is good enough.
        delta: error probability of the choice.
        rule: extraction rule under which quality is judged: the one that the ticket will declare.

    Raises:
        UsageError: ``delta`` out of range.
        InvalidInputError: no translations (``EVIDENCE_KIND``); sentences that were used for tuning, scan or
            order, or that occur twice (:func:`certify.evidence.split.check_split`); nothing says which were
            used for tuning (``USED_NOT_LISTED``).
        NothingToDoError: no candidate.
    """
    check_level(delta)
    check_choice_data(evidence)
    ordered = candidates(evidence)
    tested: list[Tested] = []

    def rejections() -> Iterator[bool]:
        for arm in ordered:
            tested.append(_test(evidence, arm, goal, delta, rule))
            yield tested[-1].good

    fixed_sequence(rejections())
    return Choice(goal, rule, delta, evidence, ordered, tuple(tested))


def _test(evidence: Evidence, arm: Arm, goal: Goal, delta: Fraction, rule: Rule) -> Tested:
    design = evidence.design
    if goal.kind == "non-inferiority":
        ours, theirs = (unit_scores(evidence, name, rule) for name in (arm.name, REFERENCE_ARM))
        paired = [mine - its for mine, its in zip(ours, theirs, strict=True)]
        limit = difference_lower(paired, delta, design, grid=POINT, aim=-goal.value)
        return Tested(arm, limit, noninferior(paired, goal.value, delta, design, grid=POINT))
    shares = equal_shares(evidence, arm.name)
    if goal.kind == "token-agreement":
        limit = betting_lower(shares, delta, design, aim=goal.value)
        return Tested(arm, limit, betting_exceeds(shares, goal.value, delta, design))
    equal = [int(share == 1) for share in shares]
    if design == "fixed":
        limit = rate_limit(sum(equal), len(equal), delta, "lower")
        return Tested(arm, limit, rate_at_least(sum(equal), len(equal), goal.value, delta))
    limit = betting_lower(equal, delta, design)
    return Tested(arm, limit, betting_exceeds(equal, goal.value, delta, design))


def _described(arm: Arm, tested: Tested | None) -> dict[str, Any]:
    return {
        "arm": arm.name,
        "rows": len(arm.ids or ()),
        "ids": list(arm.ids or ()),
        "table_sha256": arm.table_sha256,
        "tested": tested is not None,
        "good_enough": tested is not None and tested.good,
        "estimate": None if tested is None else rational(tested.limit.estimate),
        "lower": None if tested is None else rational(tested.limit.value),
        "n": 0 if tested is None else tested.limit.n,
        "bound": None if tested is None else tested.limit.procedure,
    }
