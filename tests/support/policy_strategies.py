"""Hypothesis strategies for policy files: TOML that must be read, and what was meant by it.

Written from the rules for policies, not from the parser: which claims can be asked for, by which test, and
what claims rest on. :func:`~table_strategies.mutants` damages the bytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from hypothesis import strategies as st

INTEGRITY: Final = (
    *("integrity.base", "integrity.reference", "integrity.tokenizer", "integrity.template"),
    *("integrity.rows", "released.rows"),
)
EVIDENCE: Final = (
    *("certificate.present", "certificate.content", "certificate.claims"),
    *("evidence.integrity", "evidence.split"),
)
OTHERS: Final = (
    *("selection.content", "selection.parameters", "selection.ids", "selection.figures"),
    *("blind-spots.order", "blind-spots.direction", "premise.published"),
    "checker.agrees",
)
RULES: Final = ("whole", "first-line", "cut", "declared")
LOWER_CLAIMS: Final = (
    *("agreement-rate:reference", "token-agreement:reference"),
    *(f"non-inferiority:{other}:{rule}" for other in ("reference", "full", "base") for rule in RULES),
    *(f"retention:{share}:{rule}" for share in ("0.5", "0.75", "0.9") for rule in RULES),
    *(f"gain:base:{rule}" for rule in RULES),
    *(f"better-than-nulls:{group}:{rule}" for group in ("chance", "rivals", "one-row") for rule in RULES),
)
UPPER_CLAIMS: Final = ("unrelated-loss:base",)
GUARANTEES: Final = tuple(f"guarantee:{name}" for name in ("published", "measured-max", "additive"))
ACCEPTED: Final = ("A-LAW", "A-SCALAR", "A-POINT", "A-ORDER(V)", "A-ONE", "A-NULL", "A-UNTIED")
"""Assumptions about a model that a policy can accept."""


@dataclass(frozen=True, slots=True)
class AskedClaim:
    """One claim as a policy asks for it: claim, test, threshold, named texts."""

    name: str
    test: str
    threshold: str | None
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """A policy in words and as TOML.

    Attributes:
        name: its name.
        items: checks that must pass.
        claims: claims that are asked for.
        delta: error probability, or None if there is no claim.
        design: conditions of the sampling design that are taken as given.
        accept: assumptions that are accepted.
    """

    name: str
    items: tuple[str, ...]
    claims: tuple[AskedClaim, ...]
    delta: str | None
    design: tuple[str, ...]
    accept: tuple[str, ...]

    def toml(self) -> bytes:
        """The file."""
        fields: dict[str, object] = {
            "schema": "certify.policy",
            "schema_version": 1,
            "name": self.name,
        }
        fields |= {"question": "Is it?", "items": self.items, "design": self.design, "accept": self.accept}
        if self.delta is not None:
            fields["delta"] = self.delta
        lines = [f"{key} = {_toml(value)}" for key, value in fields.items()]
        for claim in self.claims:
            lines += ["[[claim]]", f"name = {_toml(claim.name)}"]
            key, value = (claim.test, claim.threshold) if claim.threshold else ("finding", claim.test)
            lines.append(f"{key} = {_toml(value)}")
            lines += [f"texts = {_toml(claim.texts)}"] if claim.texts else []
        return ("\n".join(lines) + "\n").encode()


def thresholds() -> st.SearchStrategy[str]:
    """Decimal numbers as policies write them."""
    parts = st.tuples(
        st.sampled_from(["", "-"]), st.integers(0, 999), st.sampled_from(["", ".0", ".05", ".125"])
    )
    return parts.map(lambda part: f"{part[0]}{part[1]}{part[2]}")


@st.composite
def asked_claims(draw: st.DrawFn) -> AskedClaim:
    """One claim with a test that fits it."""
    name = draw(st.sampled_from([*LOWER_CLAIMS, *UPPER_CLAIMS, *GUARANTEES]))
    tests = (
        ("held", "not refuted")
        if name in GUARANTEES
        else ("at_most", "below")
        if name in UPPER_CLAIMS
        else ("at_least", "above")
    )
    threshold = None if name in GUARANTEES else draw(thresholds())
    texts = draw(st.lists(st.sampled_from(["flores", "news", "a-b"]), unique=True, max_size=2))
    return AskedClaim(name, draw(st.sampled_from(tests)), threshold, tuple(texts))


@st.composite
def policies(draw: st.DrawFn) -> PolicyFile:
    """A policy that must be read; with claims it names everything that claims rest on."""
    claims = draw(st.lists(asked_claims(), max_size=4, unique_by=lambda claim: claim.name))
    needed = [*INTEGRITY, *EVIDENCE] if claims else []
    pool = [item for item in (*INTEGRITY, *EVIDENCE, *OTHERS) if item not in needed]
    more = draw(st.lists(st.sampled_from(pool), unique=True, min_size=0 if needed else 1, max_size=5))
    delta = st.sampled_from(["0.05", ".01", "0.001"])
    return PolicyFile(
        name=draw(st.from_regex(r"[a-z][a-z0-9-]{0,11}", fullmatch=True)),
        items=tuple(draw(st.permutations([*needed, *more]))),
        claims=tuple(claims),
        delta=draw(delta) if claims else draw(st.none() | delta),
        design=tuple(draw(st.lists(st.sampled_from(["A-UNITS", "A-BLOCKS", "A-EVIDENCE"]), unique=True))),
        accept=tuple(draw(st.lists(st.sampled_from(ACCEPTED), unique=True, max_size=3))),
    )


def exact(text: str | None) -> Fraction | None:
    """A decimal number as a fraction; None stays None."""
    return None if text is None else Fraction(text)


def _toml(value: object) -> str:
    # TOML's strings, integers and arrays of them are JSON's.
    return json.dumps(list(value) if isinstance(value, tuple) else value)
