"""Policies at random: what a well-formed file says is what is read, and no damage breaks the reader."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from policy_strategies import (
    EVIDENCE,
    INTEGRITY,
    AskedClaim,
    PolicyFile,
    asked_claims,
    exact,
    policies,
)
from table_strategies import mutants

from certify.base.errors import InvalidInputError
from certify.policy.policy import Policy, parse_policy


def check_meaning(policy: Policy, file: PolicyFile) -> None:
    assert (policy.name, policy.items) == (file.name, file.items)
    assert (policy.design, policy.accept) == (file.design, file.accept)
    assert policy.delta == exact(file.delta)
    asked = [(one.claim, one.test, one.threshold, one.texts) for one in policy.claims]
    assert asked == [(one.name, one.test, exact(one.threshold), one.texts) for one in file.claims]
    assert not policy.shipped


@given(policies())
def test_a_well_formed_policy_is_read_as_it_was_meant(file: PolicyFile) -> None:
    policy = parse_policy(file.toml())
    check_meaning(policy, file)
    assert len(policy.requires) == len(file.items) + len(file.claims)


@given(st.data(), policies())
def test_damaged_bytes_are_refused_or_read_and_never_break_the_reader(
    data: st.DataObject, file: PolicyFile
) -> None:
    damaged = data.draw(mutants(file.toml()))
    codes = {"POLICY_MALFORMED", "POLICY_EMPTY", "POLICY_INCOMPLETE"}
    try:
        assert parse_policy(damaged).requires
    except InvalidInputError as error:
        refusal = error.code
    else:
        return
    assert refusal in codes


@given(st.data(), policies())
def test_claims_need_everything_they_rest_on(data: st.DataObject, file: PolicyFile) -> None:
    assume(file.claims)
    dropped = data.draw(st.sampled_from([*INTEGRITY, *EVIDENCE]))
    kept = tuple(item for item in file.items if item != dropped)
    with pytest.raises(InvalidInputError) as caught:
        parse_policy(replace(file, items=kept).toml())
    assert caught.value.code == "POLICY_INCOMPLETE"
    with pytest.raises(InvalidInputError) as caught:
        parse_policy(replace(file, delta=None).toml())
    assert caught.value.code == "POLICY_INCOMPLETE"


@given(asked_claims(), st.sampled_from(["at_least", "above", "at_most", "below", "held"]))
def test_a_test_that_does_not_fit_the_claim_is_refused(claim: AskedClaim, test: str) -> None:
    families = ({"at_least", "above"}, {"at_most", "below"}, {"held", "not refuted"})
    assume(not any({claim.test, test} <= family for family in families))
    wrong = replace(claim, test=test, threshold=None if test == "held" else "1")
    file = PolicyFile("p", (*INTEGRITY, *EVIDENCE), (wrong,), "0.05", (), ())
    with pytest.raises(InvalidInputError) as caught:
        parse_policy(file.toml())
    assert caught.value.code == "POLICY_MALFORMED"
