"""The registry is the only list of kinds of claims: whatever else knows them agrees with it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from claims_world import evidence_of, subject_of

import certify
from certify.base.errors import InvalidInputError
from certify.base.model import json_schema
from certify.certificate.schema import Certificate
from certify.claims import registry
from certify.claims.kind import LOWER, PROMISE, UPPER, Kind, Role, Variant
from certify.claims.registry import KINDS, claim_named, opposite_limit, stated_kinds
from certify.evidence.load import Evidence
from certify.policy.codes import explain, names
from certify.policy.policy import EVIDENCE_ITEMS, INTEGRITY_ITEMS, Policy, parse_policy
from certify.policy.requirement import DECLARED, TESTS, Requirement
from proofs_checks.worlds import synthetic

DELTA = Fraction(1, 20)
REQUIRABLE = {kind.name for kind in KINDS.values() if kind.tests}


def asking(name: str, test: str) -> Policy:
    value = 'finding = "not refuted"' if test in PROMISE else f'{test} = "0"'
    items = ", ".join(f'"{item}"' for item in (*INTEGRITY_ITEMS, *EVIDENCE_ITEMS))
    head = 'schema = "certify.policy"\nschema_version = 1\nname = "own"\nquestion = "Is it?"\ndelta = "0.05"'
    return parse_policy(f'{head}\nitems = [{items}]\n[[claim]]\nname = "{name}"\n{value}\n'.encode())


def evidence(role: Role) -> Evidence:
    if role == "loss":
        nats = {"base": 500 * 10**9, "reference": 0, "t": 501 * 10**9}
        return evidence_of([synthetic.window(i, nats) for i in range(6)], synthetic.plain_arms())
    arms = [*synthetic.plain_arms(), *synthetic.null_arms()]
    arms.append(synthetic.arm("full", "full", table_sha256=None, model_sha256=synthetic.digest("weights")))
    behaviours = {arm["name"]: synthetic.Behaviour((4, 8, 12)) for arm in arms}
    template = {"name": "explicit" if role == "evaluation" else "reworded"}
    template["sha256"] = synthetic.digest("template" if role == "evaluation" else "another")
    records = [synthetic.sentence(i, behaviours) for i in range(6)]
    return evidence_of(records, arms, template=template, used={"tuning": []})


# --- entries -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_an_entry_computes_its_own_claims(kind: Kind) -> None:
    for role in kind.roles:
        found = kind.claims(evidence(role), subject_of(), DELTA)
        assert {claim.kind for claim in found} == {kind.name}
        assert len(found) == len(kind.variants)
        assert [claim.extraction for claim in found] == [one.extraction for one in kind.variants]
        assert tuple(claim.name for claim in found) == kind.names
        assert all(("A-ASYMPTOTIC" in claim.assumptions) == kind.asymptotic for claim in found)


@pytest.mark.parametrize("name", sorted(name for name in TESTS if not name.endswith(DECLARED)))
def test_a_requirable_claim_is_computed_by_name_and_has_an_opposite_limit_or_a_finding(name: str) -> None:
    kind = KINDS[name.partition(":")[0]]
    (role,) = kind.roles
    claim = claim_named(name, evidence(role), subject_of(), DELTA)
    assert claim.name == name
    if kind.by_finding:
        with pytest.raises(ValueError, match="no opposite limit"):
            opposite_limit(claim)
    else:
        limit = claim.lower if kind.tests == LOWER else claim.upper
        other = opposite_limit(claim)
        assert limit is not None
        assert other is not None
        assert limit <= other if kind.tests == LOWER else other <= limit


@pytest.mark.parametrize(
    "fault",
    [
        {"tests": frozenset({"above"})},
        {"tests": LOWER | UPPER},
        {"roles": ("evaluation", "loss")},
        {"roles": ()},
        {"asymptotic": True},
        {"reverse": None},
        {"tests": PROMISE},
        {"tests": frozenset()},
    ],
    ids=range(8),
)
def test_an_entry_that_contradicts_itself_is_refused(fault: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="gain"):
        replace(KINDS["gain"], **fault)


def test_a_variant_without_comparator_or_rule_says_so() -> None:
    for part in ("against", "rule"):
        with pytest.raises(ValueError, match="this claim"):
            getattr(Variant(), part)


# --- what derives from it ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_policies_can_name_what_can_be_required_and_nothing_else(kind: Kind) -> None:
    assert set(kind.names) <= TESTS.keys() if kind.tests else not set(kind.names) & TESTS.keys()
    for name in kind.names:
        for test in kind.tests or {"above"}:
            if kind.tests:
                (asked,) = asking(name, test).claims
                assert (asked.kind, asked.role, TESTS[name]) == (kind.name, kind.roles[0], kind.tests)
            else:
                with pytest.raises(InvalidInputError):
                    asking(name, test)


def test_items_of_requirements_differ() -> None:
    items = [Requirement(name, sorted(TESTS[name])[0]).item for name in TESTS]
    assert len(set(items)) == len(items)


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_every_kind_is_explained(kind: Kind) -> None:
    assert f"claim:{kind.name}" in names()["claims"]
    text = "\n".join(explain(f"claim:{kind.name}"))
    assert kind.meaning in text
    assert all(name in text for name in kind.names) == bool(kind.tests) or len(kind.names) == 1


def test_certificates_state_what_can_be_required() -> None:
    listed = json_schema(Certificate)["$defs"]["StatedClaim"]["properties"]["kind"]["enum"]
    assert set(listed) == REQUIRABLE
    assert {kind for role in get_args(Role) for kind in stated_kinds(role)} == REQUIRABLE
    assert stated_kinds("other-template") == ("template-gain",)


# --- the independent checker -------------------------------------------------------------------------------


def strings(folder: Path) -> Iterator[str]:
    """Every string in the source of the checker, pieces of formatted ones too."""
    for path in sorted(folder.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def differing(kinds: Mapping[str, Any]) -> set[str]:
    """Kinds that the checker should know and does not, or knows and need not.

    It shares no code and imports nothing, so its names are read from its source.
    """
    spoken = {text.partition(":")[0] for text in strings(Path(certify.__file__).parent / "checker")}
    return {name for name, kind in kinds.items() if (name in spoken) != bool(kind.tests)}


def test_the_checker_knows_what_can_be_required_and_nothing_else() -> None:
    assert differing(KINDS) == set()


def test_a_kind_that_the_checker_does_not_know_is_seen() -> None:
    planted = SimpleNamespace(tests=LOWER)
    assert differing({**registry.KINDS, "planted": planted}) == {"planted"}
    assert differing({**registry.KINDS, "gain": SimpleNamespace(tests=frozenset())}) == {"gain"}
