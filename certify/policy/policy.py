"""Policies: what a verdict rests on. TOML in, :class:`Policy` out; :func:`certify.base.verdict.decide`
decides.

A policy requires *items* (checks of the ticket, the certificate and the evidence, by name) and *claims* (by
name, with a threshold or a finding; :mod:`certify.policy.requirement` has the rules). ``design`` and
``accept`` are the assumptions that it takes as given: conditions of the sampling design, without which no
limit says anything about more than the evaluated text, and assumptions about the model. Everything is
deny-unless-shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final, Literal, get_args

from pydantic import Field

from certify.base.assumptions import ASSUMPTIONS
from certify.base.errors import CertifyError, UsageError
from certify.base.jsonio import read_bytes, sha256_bytes
from certify.base.model import (
    Document,
    Level,
    Model,
    Refusal,
    Sha256,
    Slug,
    Text,
    parse_toml,
    validate_toml,
)
from certify.base.text import counted, looks_like
from certify.claims.kind import Test
from certify.claims.registry import KINDS
from certify.policy.requirement import TESTS, Requirement

SCHEMA_NAME: Final = "certify.policy"
SCHEMA_VERSION: Final = 1
DEFAULT_POLICY: Final = "release"
_REFUSAL: Final = Refusal("POLICY_MALFORMED")

Shipped = Literal["selection", "paper", "release", "drop-in", "science", "strict"]
SHIPPED: Final[tuple[Shipped, ...]] = get_args(Shipped)
"""Names of the policies of the package; each extends none, or one before it."""

INTEGRITY_ITEMS: Final = (
    *("integrity.base", "integrity.reference", "integrity.tokenizer", "integrity.template"),
    *("integrity.rows", "released.rows"),
)
EVIDENCE_ITEMS: Final = (
    *("certificate.present", "certificate.content", "certificate.claims"),
    *("evidence.integrity", "evidence.split"),
)
CHECKER: Final = "checker.agrees"
"""Item of the independent checker, of every ticket under every policy; a difference makes an ERROR."""

TEXTS: Final = "evidence.texts"
"""Item of a policy that pins texts."""

ITEMS: Final = (
    *INTEGRITY_ITEMS,
    *("selection.content", "selection.parameters", "selection.ids", "selection.figures"),
    *("blind-spots.order", "blind-spots.direction", "premise.published"),
    *EVIDENCE_ITEMS,
    CHECKER,
)
"""Every item that a policy can require by name; those of claims follow from the claims."""

DESIGN: Final = frozenset({"A-UNITS", "A-BLOCKS", "A-DOCUMENTS", "A-EVIDENCE", "A-ENGINE"})
"""Assumptions about how the evidence was sampled and made, which ``design`` can name."""

INFORMATIVE: Final = frozenset({"A-ASYMPTOTIC"})
"""Assumptions that no policy can take: what rests on them has no finite-sample error probability."""

MAX_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Policy:
    """A named set of requirements.

    Attributes:
        name: what ``--policy`` takes.
        question: what a CERTIFIED under this policy answers with yes.
        items: names of checks that must pass.
        claims: what is asked of claims.
        delta: largest error probability of a claim, over all its texts; None if no claim is asked for.
        design: conditions of the sampling design that are taken as given.
        accept: assumptions about the model that are accepted.
        non_claims: what a CERTIFIED under this policy does not say.
        texts: digests of texts by name: they must be evaluated, and be these (item ``evidence.texts``).
        sha256: digest of the policy's file, followed by those of the policies that it extends, nearest first.
        shipped: the policy is one of the package.
        file: where a policy of one's own lies; empty for one of the package.
        loosens: in what it asks for less than the policy that it extends, in words.
    """

    name: str
    question: str
    items: tuple[str, ...]
    claims: tuple[Requirement, ...]
    delta: Fraction | None
    design: tuple[str, ...]
    accept: tuple[str, ...]
    non_claims: tuple[str, ...]
    sha256: str
    shipped: bool
    texts: Mapping[str, str] = field(default_factory=dict)
    file: str = ""
    loosens: tuple[str, ...] = ()

    @property
    def requires(self) -> tuple[str, ...]:
        """Names of all items that must pass."""
        pinned = (TEXTS,) if self.texts else ()
        return (*self.items, *pinned, *(requirement.item for requirement in self.claims))

    @property
    def taken(self) -> frozenset[str]:
        """Ids of the assumptions that the policy takes as given."""
        return frozenset(self.design) | frozenset(self.accept)

    @property
    def reads_evidence(self) -> bool:
        """Whether a verdict under this policy rests on a certificate or evidence at all."""
        return bool(self.claims or self.texts) or any(name in EVIDENCE_ITEMS for name in self.items)


_Threshold = Annotated[str, Field(pattern=r"^-?[0-9]{1,9}(\.[0-9]{1,12})?$")]


class PolicyClaim(Model):
    """What is asked of one kind of claim: one threshold or one finding."""

    name: Annotated[str, Field(max_length=128)]
    at_least: _Threshold | None = None
    above: _Threshold | None = None
    at_most: _Threshold | None = None
    below: _Threshold | None = None
    finding: Literal["held", "not refuted"] | None = None
    texts: Annotated[tuple[Text, ...], Field(min_length=1, max_length=64)] | None = None


class PolicyFile(Document):
    """The whole file; see the module's text and :class:`Policy`."""

    schema_: Literal["certify.policy"] = Field(alias="schema", default=SCHEMA_NAME)
    schema_version: Literal[1] = SCHEMA_VERSION
    name: Slug
    question: Text
    extends: Shipped | None = Field(
        default=None,
        description="policy of the package: items and claims are added, other fields replace",
    )
    delta: Level | None = None
    items: Annotated[tuple[str, ...], Field(max_length=64)] = ()
    design: tuple[str, ...] = ()
    accept: tuple[str, ...] = ()
    non_claims: Annotated[tuple[Text, ...], Field(max_length=64)] = ()
    claim: Annotated[tuple[PolicyClaim, ...], Field(max_length=64)] = ()
    texts: Annotated[dict[Text, Sha256], Field(default_factory=dict, max_length=64)]


def get_policy(name: str) -> Policy:
    """The shipped policy of that name, or the one in a ``.toml`` file.

    Raises:
        UsageError: there is none, the file cannot be read, or its policy has a name that looks like that of
            one of the package (``POLICY_NAME``).
        InvalidInputError: the file is refused; see :func:`parse_policy`.
    """
    if name in POLICIES:
        return POLICIES[name]
    if not name.endswith(".toml"):
        known = ", ".join(POLICIES)
        raise UsageError(
            f"no policy {name!r}; there are: {known}, or the path of a .toml file", code="POLICY_UNKNOWN"
        )
    data = read_bytes(Path(name), what="policy", limit=MAX_BYTES)
    called = parse_toml(data, what=f"policy {name}", refusal=_REFUSAL).get("name")
    taken = {looks_like(known): known for known in POLICIES}
    if isinstance(called, str) and looks_like(called) in taken:
        raise UsageError(
            f"policy {name} calls itself {called[:64]!r}, which is easily taken for the policy"
            f" {taken[looks_like(called)]!r} of the package: give it a name of its own",
            code="POLICY_NAME",
        )
    return replace(parse_policy(data, what=f"policy {name}"), file=name)


def parse_policy(data: bytes, *, what: str = "policy", shipped: bool = False) -> Policy:
    """Read a policy strictly.

    Raises:
        InvalidInputError: not TOML, an unknown field, item, claim, threshold or assumption
            (``POLICY_MALFORMED``); nothing is required (``POLICY_EMPTY``); claims are required without what
            they rest on, or without ``delta`` (``POLICY_INCOMPLETE``); a claim is required that is only
            asymptotic (``POLICY_ASYMPTOTIC``).
    """
    value = parse_toml(data, what=what, refusal=_REFUSAL)
    nothing = value.get("items") in (None, [], [CHECKER]) and "extends" not in value
    if value.get("schema") == SCHEMA_NAME and nothing:
        raise _REFUSAL(f"{what} requires nothing: name what must pass in items", "POLICY_EMPTY")
    content, files, loosens = _extended(data, what)
    _check_names(content, what)
    return Policy(
        name=content.name,
        question=content.question,
        items=content.items,
        claims=tuple(_requirement(claim, what) for claim in content.claim),
        delta=None if content.delta is None else Fraction(content.delta),
        design=content.design,
        accept=content.accept,
        non_claims=content.non_claims,
        texts=MappingProxyType(dict(content.texts)),
        sha256=sha256_bytes(files),
        shipped=shipped,
        loosens=loosens,
    )


def _extended(data: bytes, what: str) -> tuple[PolicyFile, bytes, tuple[str, ...]]:
    """What a file says together with all that it extends, the bytes of these files, its own first, and in
    what it asks for less than the one that it extends."""
    own = validate_toml(PolicyFile, data, what=what, refusal=_REFUSAL)
    if own.extends is None:
        return own, data, ()
    other, files, _ = _extended(_file(own.extends), f"policy {own.extends}")
    given = {name: getattr(own, name) for name in own.model_fields_set}
    added = {"items": (*other.items, *own.items), "claim": (*other.claim, *own.claim)}
    whole = other.model_copy(update=given | added)
    return whole, data + files, tuple(_loosened(whole, other, own.extends))


def _loosened(policy: PolicyFile, other: PolicyFile, name: str) -> Iterator[str]:
    """In what a policy asks for less than another one, which it extends: items and claims are only added."""
    more = {*policy.design, *policy.accept} - {*other.design, *other.accept}
    if more:
        yield f"it takes {', '.join(sorted(more))} as given, {name} does not"
    if policy.delta and other.delta and Fraction(policy.delta) > Fraction(other.delta):
        yield f"its delta is {policy.delta}, that of {name} {other.delta}"
    if dropped := len({*other.non_claims} - {*policy.non_claims}):
        yield f"it leaves out {counted(dropped, 'thing')} that {name} does not claim"


def _check_names(content: PolicyFile, what: str) -> None:
    def refuse(text: str, code: str = "") -> CertifyError:
        return _REFUSAL(f"{what}: {text}", code)

    claims = [claim.name for claim in content.claim]
    informing = [kind.name for kind in KINDS.values() if kind.asymptotic]
    asymptotic = [name for name in claims if name.partition(":")[0] in informing]
    if asymptotic:
        raise refuse(
            f"the claim {asymptotic[0]!r} is asymptotic: it informs, and a policy cannot rest on it;"
            " gain and non-inferiority have finite-sample limits",
            "POLICY_ASYMPTOTIC",
        )
    for names, known, sort in (
        (content.items, frozenset(ITEMS), "item"),
        (claims, TESTS.keys(), "claim"),
        (content.design, DESIGN, "condition of the design"),
        (content.accept, ASSUMPTIONS.keys() - DESIGN - INFORMATIVE, "assumption about the model"),
    ):
        unknown = [name for name in names if name not in known]
        if unknown:
            raise refuse(f"unknown {sort} {unknown[0]!r}; there are: {', '.join(sorted(known))}")
        if len(set(names)) != len(names):
            raise refuse(f"one {sort} is named twice")
    if claims:
        lacking = [name for name in (*INTEGRITY_ITEMS, *EVIDENCE_ITEMS) if name not in content.items]
        if lacking:
            raise refuse(f"claims rest on {lacking[0]}, which items must name", "POLICY_INCOMPLETE")
        if content.delta is None:
            raise refuse("claims need delta, their error probability", "POLICY_INCOMPLETE")


def _requirement(claim: PolicyClaim, what: str) -> Requirement:
    given: dict[Test, str] = {
        test: value
        for test in ("at_least", "above", "at_most", "below")
        if (value := getattr(claim, test)) is not None
    }
    tests: list[Test] = [*given, *([claim.finding] if claim.finding else [])]
    allowed = TESTS[claim.name]
    if len(tests) != 1 or tests[0] not in allowed:
        choice = " or ".join(sorted(allowed))
        raise _REFUSAL(f"{what}: the claim {claim.name} is tested by one of: {choice}")
    (test,) = tests
    return Requirement(
        claim=claim.name,
        test=test,
        threshold=Fraction(given[test]) if given else None,
        texts=claim.texts or (),
    )


def _shipped(name: str) -> Policy:
    return parse_policy(_file(name), what=f"policy {name}", shipped=True)


def _file(name: str) -> bytes:
    return read_bytes(Path(__file__).parent / f"{name}.toml", what="policy", limit=MAX_BYTES)


POLICIES: Mapping[str, Policy] = MappingProxyType({name: _shipped(name) for name in SHIPPED})
"""The policies of the package, by name."""
