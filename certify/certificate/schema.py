"""The certificate, schema ``certify.certificate`` version 3: what evidence shows about one ticket.

A certificate holds no verdict, no time and no machine. Whoever checks it computes everything in it again from
the ticket's tables and the evidence, compares, and applies a policy (:mod:`certify.policy.policy`). Its
file is canonical JSON and a newline, so that equal inputs give equal bytes.

Fields, and what a checker compares them with:

* ``ticket``: id and digest (:meth:`certify.ticket.schema.Ticket.digest`) of the ticket.
* ``subjects``: digests of what the claims are about: ``base``, ``reference`` (tensor digests, as the ticket
  binds them), ``table`` (the base with the released rows put in), ``rows`` (as served), ``tokenizer`` and
  ``template`` (absent where the ticket binds none), ``model`` (of the base around its table, as the evidence
  says; absent without evidence).
* ``parameters``: settings of the ticket, ``delta`` (as a decimal) and ``variation`` (V, always 4).
* ``evidence``: for every manifest its path relative to the ticket's folder, its file digest, its text's name,
  its role and its share of ``delta``. The role is ``loss`` for that kind, ``other-template`` for
  translations with a template other than the ticket's, else ``evaluation``. **A claim is made on every
  text of its role, and its error probability is split evenly over them,** and over the tickets that were
  evaluated on the text, of which the best could have been taken (:func:`certify.claims.every.choices`): the
  share is ``delta`` divided by the number of manifests of the same role, by that number, and by one more than
  the number of ``earlier`` certificates, exactly. Two texts of one role have different names.
* ``earlier``: file digests of certificates that this one replaces on a text that was looked at before, with
  other records or for a ticket that changed since: the error probability is shared with them, too.
* ``claims``: for every manifest the claims of its role that a policy can require
  (:func:`certify.claims.registry.stated_kinds`), all at the manifest's share (:mod:`certify.claims.every`),
  in their order; claims that the evidence does not support (finding ``missing`` or ``not applicable``) are
  left out. A claim is named by its manifest's digest, kind, comparator and extraction rule, and compared in
  ``finding``, ``estimate``, ``lower``, ``upper``, ``delta``, ``n``, ``unit``, ``procedure`` and
  ``assumptions``. What counts or describes without an error probability (opportunity, non-interference,
  termination) is not stated here: ``certify check`` shows it, computed from the evidence.
* ``claims[].witness``: what makes a claim quick to check, one entry per comparison: the digest of its units
  (integers, in the order of units), and its lower and upper limit as indices of the grid
  (:mod:`certify.stats.witness`). The upper limits of m comparisons have a share of 1/m each. Null in
  certificates of version 1. Certificates of versions 1 and 2 are read, but decide nothing: they did not pay
  for the choice among the tickets of a text. ``claims[].critical``: for a guarantee, how many of the drawn
  steps may disagree for HELD, and from how many on it is REFUTED; null for a sequential design.
* ``assumptions``: every assumption that a claim names, and what is known about it; ``non_claims``; and
  ``signature``: the settings in one line.

A number is ``{"exact": "p/q", "decimal": "-0.123457"}``: lowest terms with q > 0, and six decimals, rounded
down for ``estimate`` and ``lower``, up for ``upper``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, get_args

from pydantic import AfterValidator, Field, model_validator

from certify.base.enclosure import rational
from certify.base.errors import InvalidInputError
from certify.base.jsonio import MAX_JSON_BYTES, canonical_json, parse_json, read_bytes
from certify.base.model import (
    Document,
    Level,
    Migration,
    Model,
    Refusal,
    RelativePath,
    Sha256,
    Slug,
    Text,
    validate,
)
from certify.base.records import Correction, Dtype, Method, Rule
from certify.claims.claim import Claim, Finding
from certify.claims.kind import Role
from certify.claims.registry import stated_kinds
from certify.stats.theorem import DEFAULT_VARIATION
from certify.stats.witness import Key

SCHEMA_NAME: Final = "certify.certificate"
SCHEMA_VERSION: Final = 3

_REFUSAL: Final = Refusal("CERTIFICATE_MALFORMED", schema="CERTIFICATE_SCHEMA", newer="CERTIFICATE_NEWER")

UNSTATED: Final = frozenset({Finding.MISSING, Finding.NOT_APPLICABLE})
"""Findings of claims that evidence does not support."""

if TYPE_CHECKING:
    StatedKind = str
else:
    StatedKind = Literal[tuple(kind for role in get_args(Role) for kind in stated_kinds(role))]

NON_CLAIMS: Final = (
    "that the ticket may be released: a certificate holds no verdict, a policy decides on it",
    "anything about text of another kind than the texts named here",
    "that the theorem behind a criterion is true of a deployed network: rates are measured, not derived",
    "that the records are what the named models produced: only running the models again can show that",
    "that rows outside the ticket did not move: not rejecting is not equivalence",
    "that the p-values of the scan are calibrated: before and after are the same row, not two samples",
)


def _ratio(value: str) -> str:
    if value != _spelled(value):
        raise ValueError("a rational number is p/q in lowest terms")
    return value


def _spelled(value: str) -> str | None:
    numerator, _, denominator = value.partition("/")
    digits = numerator.removeprefix("-") + denominator
    if not (numerator and denominator and digits.isascii() and digits.isdigit() and int(denominator)):
        return None
    return rational(Fraction(int(numerator), int(denominator)))


Ratio = Annotated[str, Field(pattern=r"^-?[0-9]{1,400}/[0-9]{1,400}$"), AfterValidator(_ratio)]


class Number(Model):
    """A rational number and its rounded decimal."""

    exact: Ratio
    decimal: Annotated[str, Field(pattern=r"^-?[0-9]{1,40}\.[0-9]{6}$")]

    @property
    def value(self) -> Fraction:
        """The exact number."""
        return Fraction(self.exact)


class TicketRef(Model):
    """The ticket that the certificate is about."""

    id: Slug
    sha256: Sha256


class SubjectRef(Model):
    """One thing that the claims are about, by digest."""

    name: Literal["base", "reference", "table", "rows", "tokenizer", "template", "model"]
    sha256: Sha256


class Parameters(Model):
    """Settings behind the claims; those of the ticket are repeated for the reader."""

    rule: Text
    alpha: Level
    correction: Correction
    method: Method
    object: Literal["transfer", "tuned"]
    n: Annotated[int, Field(ge=1)]
    dtype: Dtype
    variation: Literal[4] = DEFAULT_VARIATION
    delta: Level


class EvidenceRef(Model):
    """One manifest: where it lies, what it is, and the error probability of each limit from it."""

    path: RelativePath
    sha256: Sha256
    text: Text
    role: Role
    delta: Ratio


class StatedWitness(Model):
    """One comparison: its units by digest, and both limits as indices of the grid."""

    units: Sha256
    lower: Annotated[int, Field(ge=0, le=1 << 32)]
    upper: Annotated[int, Field(ge=0, le=1 << 32)] | None


class StatedCritical(Model):
    """Counts of wrong decisions that decide on a guarantee (:class:`certify.stats.claim.Critical`)."""

    held: Annotated[int, Field(ge=-1)]
    refuted: Annotated[int, Field(ge=0)]


class StatedClaim(Model):
    """One claim, as :class:`certify.claims.claim.Claim` without prose and details."""

    evidence: Sha256
    kind: StatedKind
    comparator: Slug | None
    extraction: Rule | None
    finding: Literal[
        "measured", "held", "refuted", "inconclusive", "vacuous", "premise failed", "violated", "failed"
    ]
    estimate: Number | None
    lower: Number | None
    upper: Number | None
    delta: Ratio
    n: Annotated[int, Field(ge=0)]
    unit: Text
    procedure: Text
    assumptions: Annotated[tuple[Slug, ...], Field(max_length=16)]
    signature: Text
    witness: Annotated[tuple[StatedWitness, ...], Field(max_length=256)] | None
    critical: StatedCritical | None

    @model_validator(mode="after")
    def _rounded(self) -> StatedClaim:
        for number, up in ((self.estimate, False), (self.lower, False), (self.upper, True)):
            if number is not None and number.decimal != decimal(number.value, up=up):
                raise ValueError(f"{number.exact} is not {number.decimal}")
        return self

    @property
    def name(self) -> str:
        """``kind``, comparator and extraction rule joined by colons."""
        return ":".join(part for part in (self.kind, self.comparator, self.extraction) if part)

    @property
    def figures(self) -> dict[str, Any]:
        """What is compared with the claim computed again."""
        return self.model_dump(mode="json", exclude={"signature"})


class AssumptionRef(Model):
    """An assumption that a claim names."""

    id: Slug
    statement: Text
    status: Text


def _from_version_1(content: dict[str, Any]) -> dict[str, Any]:
    """Version 1 stated no witnesses, and could restate a record of checks of the theory."""
    claims = content.get("claims")
    if not isinstance(claims, list) or not all(isinstance(one, dict) for one in claims):
        return content
    found = {name: value for name, value in content.items() if name != "proofs"}
    found["claims"] = [{**one, "witness": None, "critical": None} for one in claims]
    if "proofs" in content and isinstance(content.get("non_claims"), list):
        found["non_claims"] = [one for one in content["non_claims"] if one in NON_CLAIMS]
    return found


def _signed(content: dict[str, Any]) -> dict[str, Any]:
    """Version 2 did not pay for the choice among tickets; that it is older is said by whoever checks it."""
    content = {**content, "earlier": []}
    signature = content.get("signature")
    if not isinstance(signature, str):
        return content
    return {**content, "signature": re.sub(r"\|schema:[12]\|", f"|schema:{SCHEMA_VERSION}|", signature)}


class Certificate(Document):
    """The whole file; see the module's text."""

    migrations: ClassVar[Mapping[int, Migration]] = {1: _from_version_1, 2: _signed}

    schema_: Literal["certify.certificate"] = Field(alias="schema", default=SCHEMA_NAME)
    schema_version: Literal[3] = SCHEMA_VERSION
    created_by: Text
    ticket: TicketRef
    subjects: Annotated[tuple[SubjectRef, ...], Field(max_length=7)]
    parameters: Parameters
    evidence: Annotated[tuple[EvidenceRef, ...], Field(max_length=64)]
    earlier: Annotated[tuple[Sha256, ...], Field(max_length=64)]
    claims: Annotated[tuple[StatedClaim, ...], Field(max_length=4096)]
    assumptions: Annotated[tuple[AssumptionRef, ...], Field(max_length=64)]
    non_claims: Annotated[tuple[Text, ...], Field(max_length=64)]
    signature: Text

    @model_validator(mode="after")
    def _distinct(self) -> Certificate:
        # One text may be evaluated with several other templates; each is known by its digest.
        texts = [(one.role, one.text) for one in self.evidence if one.role != "other-template"]
        for what, found in (
            ("claims", [(claim.evidence, claim.name) for claim in self.claims]),
            ("paths of evidence", [one.path for one in self.evidence]),
            ("digests of evidence", [one.sha256 for one in self.evidence]),
            ("texts of one role", texts),
        ):
            if len(set(found)) != len(found):
                raise ValueError(f"two {what} are the same")
        return self

    def hints(self) -> dict[Key, int]:
        """Where the limits of the claims may be, for :func:`certify.stats.witness.hints`."""
        found: dict[Key, int] = {}
        for claim in self.claims:
            delta, stated = Fraction(claim.delta), claim.witness or ()
            for one in stated:
                found[one.units, delta, "lower"] = one.lower
                if one.upper is not None:
                    found[one.units, delta / len(stated), "upper"] = one.upper
        return found

    def to_bytes(self) -> bytes:
        """The file: canonical JSON and a newline."""
        return canonical_json(self.model_dump(mode="json", by_alias=True)) + b"\n"


def decimal(value: Fraction, *, up: bool = False) -> str:
    """``value`` with six decimals, rounded down, or up."""
    scaled = value * 10**6
    units = -(-scaled.numerator // scaled.denominator) if up else scaled.numerator // scaled.denominator
    whole, rest = divmod(abs(units), 10**6)
    return f"{'-' if units < 0 else ''}{whole}.{rest:06d}"


def number(value: Fraction | None, *, up: bool = False) -> Number | None:
    """A number for a certificate; None stays None."""
    if value is None:
        return None
    return Number(exact=f"{value.numerator}/{value.denominator}", decimal=decimal(value, up=up))


def state(claim: Claim, evidence: str) -> StatedClaim:
    """The part of ``claim`` that a certificate states, under the digest of its manifest."""
    return StatedClaim.model_validate(
        {
            "evidence": evidence,
            "kind": claim.kind,
            "comparator": claim.comparator,
            "extraction": claim.extraction,
            "finding": str(claim.finding),
            "estimate": number(claim.estimate),
            "lower": number(claim.lower),
            "upper": number(claim.upper, up=True),
            "delta": rational(claim.delta),
            "n": claim.n,
            "unit": claim.unit,
            "procedure": claim.procedure,
            "assumptions": claim.assumptions,
            "signature": claim.signature,
            "witness": tuple(one.to_json() for one in claim.witness),
            "critical": claim.critical and {"held": claim.critical.held, "refuted": claim.critical.refuted},
        }
    )


def is_stated(claim: Claim, role: Role) -> bool:
    """Whether a certificate states ``claim`` about a text of that role."""
    return claim.kind in stated_kinds(role) and claim.finding not in UNSTATED


def share(delta: str, texts: int, choices: int = 1, looks: int = 1) -> Fraction:
    """Error probability of each limit on one of so many texts of a role, tickets, and looks at the text."""
    return Fraction(delta) / (texts * choices * looks)


def parse_certificate(value: Any, *, what: str = "certificate") -> Certificate:
    """Validate parsed JSON as a certificate.

    Raises:
        InvalidInputError: wrong schema (``CERTIFICATE_SCHEMA``), newer version (``CERTIFICATE_NEWER``), or a
            field that breaks a rule (``CERTIFICATE_MALFORMED``).
    """
    return validate(Certificate, value, what=what, refusal=_REFUSAL)


def read_certificate(path: Path) -> tuple[Certificate, bytes, int]:
    """Read a certificate; returns it, the bytes of its file and the schema version that it was written in.

    Raises:
        UsageError: the file cannot be read.
        InvalidInputError: see :func:`canonical_certificate`.
    """
    data = read_bytes(path, what="certificate", limit=MAX_JSON_BYTES)
    what = f"certificate {path}"
    content = parse_json(data, what=what)
    return canonical_certificate(content, data, what=what), data, content["schema_version"]


def canonical_certificate(content: Any, data: bytes, *, what: str) -> Certificate:
    """The certificate with this ``content``, as which ``data`` was parsed.

    Raises:
        InvalidInputError: see :func:`parse_certificate`; or the file is not the canonical form of its content
            (``CERTIFICATE_NOT_CANONICAL``).
    """
    certificate = parse_certificate(content, what=what)
    newest = content["schema_version"] == SCHEMA_VERSION  # nothing may be read as another value than written
    if (certificate.to_bytes() if newest else canonical_json(content) + b"\n") != data:
        raise InvalidInputError(
            f"{what} is not the canonical form of its content: it was changed by hand or by another program",
            code="CERTIFICATE_NOT_CANONICAL",
        )
    return certificate
