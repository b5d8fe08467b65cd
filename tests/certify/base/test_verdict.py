"""From items to verdicts to exit codes. The oracle is a table written from the rules, not from the code."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certify.base.errors import ExitCode, InternalError, UsageError
from certify.base.verdict import Item, Outcome, Status, decide, exit_code
from certify.policy.policy import DEFAULT_POLICY, POLICIES, get_policy

NAMES = ("a", "b", "c", "d")
# How bad an outcome is, by hand: the larger, the worse. Only 0 may open a gate.
BADNESS = {
    Outcome.PASS: 0,
    Outcome.UNBOUND: 0,  # a ticket of bare tables; what rests on evidence asks for more (NOT_BOUND)
    Outcome.VACUOUS: 1,
    Outcome.NOT_RUN: 2,
    Outcome.MISSING: 2,
    Outcome.INCONCLUSIVE: 2,
    Outcome.FAIL: 3,
    Outcome.INVALID: 4,
    Outcome.ERROR: 5,
}
VERDICT = {
    0: Status.CERTIFIED,
    1: Status.VACUOUS,
    2: Status.INCONCLUSIVE,
    3: Status.REFUTED,
    4: Status.INVALID,
    5: Status.ERROR,
}
OUTCOMES = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(Outcome), max_size=4)


def _items(outcomes: dict[str, Outcome]) -> list[Item]:
    return [Item(name, outcome, "CODE", "text") for name, outcome in outcomes.items()]


def test_every_outcome_has_its_verdict() -> None:
    assert set(BADNESS) == set(Outcome)
    for outcome in Outcome:
        assert decide(["a"], _items({"a": outcome})) is VERDICT[BADNESS[outcome]]


def test_the_worst_of_two_decides() -> None:
    for first, second in product(Outcome, repeat=2):
        expected = VERDICT[max(BADNESS[first], BADNESS[second])]
        assert decide(["a", "b"], _items({"a": first, "b": second})) is expected


@given(OUTCOMES, st.sets(st.sampled_from(NAMES), min_size=1))
def test_certified_exactly_if_every_required_item_passed(
    outcomes: dict[str, Outcome], requires: set[str]
) -> None:
    certified = decide(requires, _items(outcomes)) is Status.CERTIFIED
    assert certified == all(outcomes.get(name) in (Outcome.PASS, Outcome.UNBOUND) for name in requires)


@given(
    OUTCOMES, st.sets(st.sampled_from(NAMES), min_size=1), st.sampled_from(NAMES), st.sampled_from(Outcome)
)
def test_removing_or_worsening_evidence_never_certifies(
    outcomes: dict[str, Outcome], requires: set[str], name: str, other: Outcome
) -> None:
    before = decide(requires, _items(outcomes))
    without = decide(requires, _items({key: value for key, value in outcomes.items() if key != name}))
    assert without is not Status.CERTIFIED or before is Status.CERTIFIED
    if name in outcomes and BADNESS[other] >= BADNESS[outcomes[name]]:
        worse = decide(requires, _items(outcomes | {name: other}))
        assert worse is not Status.CERTIFIED or before is Status.CERTIFIED


@given(OUTCOMES, st.sets(st.sampled_from(NAMES), min_size=1), st.sampled_from(NAMES))
def test_asking_for_more_never_certifies(outcomes: dict[str, Outcome], requires: set[str], more: str) -> None:
    if decide(requires | {more}, _items(outcomes)) is Status.CERTIFIED:
        assert decide(requires, _items(outcomes)) is Status.CERTIFIED


def test_a_check_that_reports_twice_is_an_internal_error() -> None:
    twice = [*_items({"a": Outcome.FAIL}), *_items({"a": Outcome.PASS})]
    with pytest.raises(InternalError, match="reported twice"):
        decide(["a"], twice)


def test_a_policy_that_requires_nothing_certifies_nothing() -> None:
    with pytest.raises(InternalError):
        decide([], _items({"a": Outcome.PASS}))


# --- exit codes ------------------------------------------------------------------------------------------

CODES = {
    Status.CERTIFIED: 0,
    Status.REFUTED: 1,
    Status.INCONCLUSIVE: 3,
    Status.VACUOUS: 3,
    Status.INVALID: 4,
    Status.ERROR: 70,
}
PRECEDENCE = (70, 4, 1, 3, 5, 0)


def test_the_numbers_are_those_of_the_contract() -> None:
    assert {code.name: int(code) for code in ExitCode} == {
        "CERTIFIED": 0,
        "REFUTED": 1,
        "USAGE": 2,
        "INCONCLUSIVE": 3,
        "INVALID": 4,
        "NOTHING": 5,
        "INTERNAL": 70,
        "INTERRUPTED": 130,
        "TERMINATED": 143,
    }


def test_no_verdict_at_all_is_nothing_to_check() -> None:
    assert exit_code([]) == 5


@given(st.lists(st.sampled_from(Status), min_size=1, max_size=5))
def test_the_gravest_of_several_verdicts_decides(statuses: list[Status]) -> None:
    codes = {CODES[status] for status in statuses}
    assert exit_code(statuses) == next(code for code in PRECEDENCE if code in codes)
    assert (exit_code(statuses) == 0) == (set(statuses) == {Status.CERTIFIED})


# --- policies --------------------------------------------------------------------------------------------


def test_release_is_the_default_and_asks_for_everything_that_selection_asks_for() -> None:
    assert DEFAULT_POLICY == "release"
    selection, release = set(POLICIES["selection"].requires), set(POLICIES["release"].requires)
    assert selection < release
    assert release - selection >= {"certificate.claims", "evidence.split", "claim.gain.base.declared"}
    assert release < set(POLICIES["strict"].requires)
    for policy in POLICIES.values():
        assert policy.non_claims
        assert len(set(policy.requires)) == len(policy.requires)


@pytest.mark.parametrize("name", ["", "Release", "none", "selection "])
def test_an_unknown_policy_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageError, match="there are: selection, paper, release, drop-in, science, strict"):
        get_policy(name)
