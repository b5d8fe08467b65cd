"""Explanations for ``certify explain``: reason codes, assumptions, kinds of claims, policies of the package.

Meaning and remedy of each code are data, in ``codes.toml``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

from certify.base.assumptions import ASSUMPTIONS
from certify.base.errors import UsageError
from certify.claims.kind import Kind
from certify.claims.registry import KINDS
from certify.policy.policy import POLICIES, Policy


@dataclass(frozen=True, slots=True)
class Code:
    """A reason code.

    Attributes:
        code: the stable name.
        topic: the subject it belongs to.
        meaning: what it says.
        remedy: what to do about it.
    """

    code: str
    topic: str
    meaning: str
    remedy: str


@cache
def codes() -> Mapping[str, Code]:
    """Load every reason code by name, in the order of the topics."""
    content = tomllib.loads((Path(__file__).parent / "codes.toml").read_text(encoding="utf-8"))
    return MappingProxyType(
        {
            code: Code(code, topic, meaning, remedy)
            for topic, entries in content.items()
            for code, (meaning, remedy) in entries.items()
        }
    )


def names() -> dict[str, tuple[str, ...]]:
    """List everything that can be explained, by topic."""
    found: dict[str, list[str]] = {}
    for code in codes().values():
        found.setdefault(code.topic, []).append(code.code)
    found["assumptions"] = list(ASSUMPTIONS)
    found["claims"] = [f"claim:{name}" for name in KINDS]
    found["policies of the package"] = [f"policy:{name}" for name in POLICIES]
    return {topic: tuple(entries) for topic, entries in found.items()}


def explain(name: str) -> tuple[str, ...]:
    """Explain a code, an assumption, ``claim:KIND`` or ``policy:NAME``, in lines.

    Raises:
        UsageError: the name is unknown (``CODE_UNKNOWN``).
    """
    code = codes().get(name.upper())
    if code is not None:
        return (code.code, f"  means: {code.meaning}", f"  do: {code.remedy}")
    assumption = ASSUMPTIONS.get(name.upper())
    if assumption is not None:
        return (assumption.id, f"  assumes: {assumption.statement}", f"  status: {assumption.status}")
    kind = KINDS.get(name.removeprefix("claim:"))
    if kind is not None and name.startswith("claim:"):
        return _kind(kind)
    policy = POLICIES.get(name.removeprefix("policy:"))
    if policy is not None and name.startswith("policy:"):
        return _policy(policy)
    raise UsageError(
        f"unknown name {name[:80]!r}: certify explain lists every code, assumption, claim and policy",
        code="CODE_UNKNOWN",
    )


def _kind(kind: Kind) -> tuple[str, ...]:
    lines = [f"claim {kind.name}", f"  means: {kind.meaning}", f"  made on evidence: {', '.join(kind.roles)}"]
    if kind.tests:
        lines.append(f"  a policy can require, {' or '.join(sorted(kind.tests))}:")
        lines += [f"    {name}" for name in kind.names]
    else:
        lines.append("  informs: no policy can require it")
    return tuple(lines)


def _policy(policy: Policy) -> tuple[str, ...]:
    lines = [f"policy {policy.name}", f"  {policy.question}", "  requires, each to pass:"]
    lines += [f"    {name}" for name in policy.items]
    if policy.claims:
        lines.append(f"  and of claims, each with error probability at most {float(policy.delta or 0):g}:")
    for requirement in policy.claims:
        lines.append(f"    {requirement.claim} {requirement}")
    if policy.reads_evidence:
        lines.append("  and whatever the ticket declares, as it declares it")
    lines.append(f"  takes as given: {', '.join((*policy.design, *policy.accept)) or 'nothing'}")
    lines += ["  does not say:", *(f"    {text}" for text in policy.non_claims)]
    return tuple(lines)
