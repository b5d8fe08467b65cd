"""A claim: one quantity, what evidence says about it, and everything that this rests on.

Claims hold no verdict. A claim gives limits; a policy compares them with thresholds. The kinds of claims are
listed in :mod:`certify.claims.registry`. Whatever a certificate states is recomputable from the evidence with
integers and rationals alone; asymptotic claims inform and are stated nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from typing import Any, Final

from certify.base.enclosure import rational
from certify.base.records import Rule
from certify.evidence.load import Evidence
from certify.evidence.read import Arm
from certify.stats.witness import Witness

DELTA: Final = Fraction(1, 20)
"""Error probability of each limit unless the caller splits a budget."""

SHORT: Final = 12
"""Hexadecimal digits of a digest in a signature."""

SCHEMA: Final = 1
"""Version of the definitions behind the claims; part of every signature."""


class Finding(StrEnum):
    """What came of a claim."""

    MEASURED = "measured"  # a limit was computed; a policy compares it with its threshold
    HELD = "held"  # guarantee: the upper limit is not above alpha
    REFUTED = "refuted"  # guarantee: the lower limit is above alpha
    INCONCLUSIVE = "inconclusive"  # guarantee: neither
    VACUOUS = "vacuous"  # the claim speaks about nothing: no certified step, no row
    PREMISE_FAILED = "premise failed"  # the published criterion does not apply
    VIOLATED = "violated"  # guarantee: a theorem is broken, so the program is
    MISSING = "missing"  # the evidence needed is not there
    NOT_APPLICABLE = "not applicable"  # the claim has no meaning here, and the text says why


@dataclass(frozen=True, slots=True)
class Critical:
    """Of n drawn decisions, the counts of wrong ones that decide (Clopper-Pearson, fixed design).

    Attributes:
        held: HELD up to so many; -1 if n is too small for any.
        refuted: REFUTED from so many on; n + 1 if n is too small.
    """

    held: int
    refuted: int


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim.

    Attributes:
        kind: name of an entry of :data:`certify.claims.registry.KINDS`.
        comparator: what the ticket is compared with (``reference``, ``base``, ``full``, a group of null
            tickets), the criterion for ``guarantee``; None if nothing.
        extraction: extraction rule, where outputs are scored.
        finding: what came of it.
        code: stable reason code.
        text: one sentence with the figures.
        estimate: the plain estimate from the sample.
        lower: with confidence ``1 - delta`` the quantity is at least this; rounded down.
        upper: with confidence ``1 - delta`` the quantity is at most this; rounded up.
        delta: error probability of each limit by itself.
        n: number of units behind the limits.
        unit: what a unit is: ``sentence``, ``block:N``, ``document``.
        procedure: name and version of the bound; ``exact`` or ``descriptive`` where there is none.
        assumptions: ids of :mod:`certify.base.assumptions`.
        signature: every setting behind the number, in one line.
        evidence: file digests of the manifests behind it.
        detail: further figures as plain JSON values; rationals as strings ``p/q``.
        witness: units and limits of each comparison behind a stated claim.
        critical: of a rate held against a level, the counts that decide.
    """

    kind: str
    comparator: str | None
    extraction: Rule | None
    finding: Finding
    code: str
    text: str
    estimate: Fraction | None = None
    lower: Fraction | None = None
    upper: Fraction | None = None
    delta: Fraction = DELTA
    n: int = 0
    unit: str = ""
    procedure: str = ""
    assumptions: tuple[str, ...] = ()
    signature: str = ""
    evidence: tuple[str, ...] = ()
    detail: Mapping[str, Any] = field(default_factory=dict)
    witness: tuple[Witness, ...] = field(default=(), compare=False, repr=False)
    critical: Critical | None = None

    @property
    def name(self) -> str:
        """``kind``, comparator and extraction rule joined by colons, for policies and reports."""
        return ":".join(part for part in (self.kind, self.comparator, self.extraction) if part)

    def to_json(self) -> dict[str, Any]:
        """The claim as plain JSON values without floats."""
        return {
            "kind": self.kind,
            "comparator": self.comparator,
            "extraction": self.extraction,
            "finding": str(self.finding),
            "code": self.code,
            "text": self.text,
            "estimate": rational(self.estimate),
            "lower": rational(self.lower),
            "upper": rational(self.upper),
            "delta": rational(self.delta),
            "n": self.n,
            "unit": self.unit,
            "procedure": self.procedure,
            "assumptions": list(self.assumptions),
            "signature": self.signature,
            "evidence": list(self.evidence),
            "detail": dict(self.detail),
        }


def signature(**parts: object) -> str:
    """Settings in the order given as ``name:value`` joined by bars; None is left out, ``_`` becomes ``-``.

    Bars and line breaks inside values become spaces, so that a value cannot add a setting.
    """
    named = [
        f"{name.replace('_', '-')}:{_plain(value)}" for name, value in parts.items() if value is not None
    ]
    return "|".join([*named, f"schema:{SCHEMA}"])


def missing(
    kind: str,
    code: str,
    text: str,
    *,
    comparator: str | None = None,
    extraction: Rule | None = None,
    evidence: tuple[str, ...] = (),
    finding: Finding = Finding.MISSING,
    detail: Mapping[str, Any] | None = None,
) -> Claim:
    """A claim without figures: the evidence for it is missing, or the question does not apply."""
    return Claim(kind, comparator, extraction, finding, code, text, evidence=evidence, detail=detail or {})


def settings(
    claim: str,
    evidence: Evidence,
    *,
    arm: Arm | None = None,
    procedure: str | None = None,
    delta: Fraction | None = None,
    **more: object,
) -> str:
    """The signature line of a claim from ``evidence``: settings of the claim, then of the evaluation."""
    manifest = evidence.manifest
    template = manifest.template
    return signature(
        claim=claim,
        bound=procedure,
        delta=delta,
        **more,
        arm=None if arm is None else arm_digest(arm),
        text=manifest.text.sha256[:SHORT],
        unit=manifest.text.unit,
        records=len(evidence.records),
        design=manifest.design,
        seed=manifest.order_seed,
        template=None if template is None else f"{template.name}@{template.sha256[:SHORT]}",
        beams=manifest.decoding.beams,
        tokens=manifest.decoding.max_new_tokens,
        dtype=manifest.decoding.dtype,
        engine=manifest.produced_by,
    )


def text_of(line: str) -> str:
    """First :data:`SHORT` digits of the text that a line of :func:`settings` is about; empty if none."""
    return dict(part.partition(":")[::2] for part in line.split("|")).get("text", "")


def unit_assumptions(evidence: Evidence) -> tuple[str, ...]:
    """Assumptions that the units are independent draws and that the evidence is genuine."""
    kind = evidence.manifest.text.unit.partition(":")[0]
    units = {"sentence": "A-UNITS", "block": "A-BLOCKS", "document": "A-DOCUMENTS"}[kind]
    return units, *record_assumptions(evidence)


def record_assumptions(evidence: Evidence) -> tuple[str, ...]:
    """Assumptions that the records come from the named models."""
    return ("A-EVIDENCE",) if evidence.manifest.produced_by is None else ("A-EVIDENCE", "A-ENGINE")


def not_evaluated(
    kind: str, evidence: Evidence, *, comparator: str | None = None, extraction: Rule | None = None
) -> Claim:
    """The claim that cannot be made, because no arm of the evidence served the ticket."""
    return missing(
        kind,
        "ARM_NOT_EVALUATED",
        "no arm of the evidence served the ticket's table",
        comparator=comparator,
        extraction=extraction,
        evidence=(evidence.sha256,),
    )


def not_compared(kind: str, evidence: Evidence, comparator: str, extraction: Rule) -> Claim:
    """The claim that cannot be made, because no arm of the evidence is of the kind ``comparator``."""
    return missing(
        kind,
        "COMPARATOR_NOT_EVALUATED",
        f"no arm of the evidence is of kind {comparator}",
        comparator=comparator,
        extraction=extraction,
        evidence=(evidence.sha256,),
    )


def arm_digest(arm: Arm) -> str:
    """An arm in a signature: the first 12 digits of the digest of its table, or of its weights."""
    return (arm.table_sha256 or arm.model_sha256 or "none")[:SHORT]


def _plain(value: object) -> str:
    text = rational(value) if isinstance(value, Fraction) else str(value)
    return " ".join(str(text).replace("|", " ").split())
