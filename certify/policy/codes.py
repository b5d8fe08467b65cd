"""Explanations for ``certify explain``: reason codes, assumptions, kinds of claims, policies of the package,
and words.

Meaning and remedy of each code are data, in ``codes.toml``; words are those of ``glossary.md``.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
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
from certify.policy.requirement import TESTS


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


@cache
def words() -> Mapping[str, Mapping[str, str]]:
    """Meanings of the names in reports that are no codes, by topic and name."""
    return tomllib.loads((Path(__file__).parent / "words.toml").read_text(encoding="utf-8"))


@cache
def glossary() -> tuple[tuple[str, str, str], ...]:
    """Rows of the glossary: its words, what they mean, the topic; as plain text but for the meaning's
    backticks."""
    found = []
    for part in (Path(__file__).parent / "glossary.md").read_text(encoding="utf-8").split("\n## ")[1:]:
        for head, meaning in re.findall(r"^\| (\*\*.+?) \| (.+?) \| ", part, re.MULTILINE):
            heads = re.sub(r"\\(.)", r"\1", head.replace("**", ""))
            found.append((heads, re.sub(r"\[(.+?)\]\(.+?\)", r"\1", meaning), part.partition("\n")[0]))
    return tuple(found)


def names() -> dict[str, tuple[str, ...]]:
    """List everything that can be explained, by topic."""
    found: dict[str, list[str]] = {}
    for code in codes().values():
        found.setdefault(code.topic, []).append(code.code)
    found["assumptions"] = list(ASSUMPTIONS)
    found["claims"] = [f"claim:{name}" for name in KINDS]
    found["policies of the package"] = [f"policy:{name}" for name in POLICIES]
    found |= {topic: list(entries) for topic, entries in words().items()}
    for heads, _, topic in glossary():
        found.setdefault(f"glossary, {topic}", []).extend(heads.split(", "))
    return {topic: tuple(entries) for topic, entries in found.items()}


def explain(name: str) -> tuple[str, ...]:
    """Explain any name that a report, a policy, a certificate or an exit can print, in lines.

    Case and separators do not count: ``claim.gain.base.first-line`` is ``gain:base:first-line``.

    Raises:
        UsageError: the name is unknown (``CODE_UNKNOWN``).
    """
    known = _index()
    found = known.get(name) or known.get(_spelling(name))
    if found is None and not name.startswith(("claim:", "policy:")):
        # Claims, rules, units and procedures can end in what a file gives.
        found = known.get(re.split("[:./]", name.removeprefix("claim."))[0])
    if found is not None:
        return found
    raise UsageError(
        f"unknown name {name[:80]!r}: certify explain lists all that there are",
        code="CODE_UNKNOWN",
    )


def _spelling(name: str) -> str:
    folded = re.sub(r"[\s:._-]+", "-", unicodedata.normalize("NFKC", name).casefold())
    return re.sub(r"^declared-[0-9]+-", "", folded)


@cache
def _index() -> Mapping[str, tuple[str, ...]]:
    """Explanations by name and by normalised spelling; where two share a spelling, the first has it."""
    found: dict[str, tuple[str, ...]] = {}
    for code in codes().values():
        found[code.code] = (code.code, f"  means: {code.meaning}", f"  do: {code.remedy}")
    for one in ASSUMPTIONS.values():
        found[one.id] = found[one.id.partition("(")[0]] = (
            one.id,
            f"  assumes: {one.statement}",
            f"  status: {one.status}",
        )
    for name in (*KINDS, *(name for kind in KINDS.values() for name in kind.names), *TESTS):
        found[name] = found[f"claim:{name}"] = _kind(KINDS[name.partition(":")[0]])
    for policy in POLICIES.values():
        found[policy.name] = found[f"policy:{policy.name}"] = _policy(policy)
    for topic, entries in words().items():
        for name, meaning in entries.items():
            found.setdefault(name, (name, f"  means: {meaning} ({topic})"))
    for heads, meaning, topic in glossary():
        said = (heads, f"  means: {meaning} ({topic})")
        for name in heads.split(", "):
            found.setdefault(name, said)
            found.setdefault(name.partition(" of a ")[0], said)  # margin of a claim
    for heads, meaning, topic in glossary():
        for name in re.findall("`(.+?)`", meaning):
            found.setdefault(name, (name, f"  see {heads}: {meaning} ({topic})"))
    for name, lines in tuple(found.items()):
        found.setdefault(_spelling(name), lines)
    return MappingProxyType(found)


def _kind(kind: Kind) -> tuple[str, ...]:
    lines = [f"claim {kind.name}", f"  means: {kind.meaning}", f"  made on evidence: {', '.join(kind.roles)}"]
    if kind.tests:
        lines.append(f"  a policy can require, {' or '.join(sorted(kind.tests))}:")
        lines += [f"    {name}" for name in TESTS if name.partition(":")[0] == kind.name]
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
