"""What is still open after a look: every outcome by hand, and how often a look decides wrongly."""

from __future__ import annotations

import random
from fractions import Fraction
from typing import Any

import pytest
from claims_world import evidence_of, subject_of

from certify.base.errors import UsageError
from certify.claims.registry import claim_named
from certify.evidence.load import Evidence
from certify.gate.watch import Standing, Watch
from certify.policy.policy import Policy, parse_policy
from certify.policy.requirement import DECLARED, TESTS
from proofs_checks.worlds import synthetic

ITEMS = """
items = [
    "integrity.base", "integrity.reference", "integrity.tokenizer", "integrity.template", "integrity.rows",
    "released.rows", "certificate.present", "certificate.content", "certificate.claims",
    "evidence.integrity", "evidence.split",
]
"""
USED = {"tuning": ["0" * 16]}


def policy(
    *claims: str, design: str = '["A-UNITS", "A-BLOCKS", "A-EVIDENCE"]', delta: str = "0.05"
) -> Policy:
    head = f"""
schema = "certify.policy"
schema_version = 1
name = "mine"
question = "?"
delta = "{delta}"
{ITEMS}
design = {design}
"""
    return parse_policy((head + "".join(f"[[claim]]\n{claim}\n" for claim in claims)).encode())


AGREES = 'name = "agreement-rate:reference"\nat_least = "0.95"'


def drawn(units: int, *, wrong: int = 0, scores: tuple[int, int] = (10, 10), **fields: Any) -> Evidence:
    """So many units, the first ``wrong`` of the order of ranks disagree; scores of reference and ticket."""
    order = sorted(range(units), key=lambda unit: synthetic.digest(f"0:{unit}"))
    records = [
        synthetic.sentence(
            unit,
            {
                "base": synthetic.Behaviour((2,) * 3),
                "reference": synthetic.Behaviour((scores[0],) * 3),
                "t": synthetic.Behaviour((scores[1],) * 3, ((0, 99),) if unit in order[:wrong] else ()),
            },
        )
        for unit in range(units)
    ]
    return evidence_of(records, used=USED, design="sequential", **fields)


def stands(evidence: Evidence, *claims: str, **fields: Any) -> list[Standing]:
    watch = Watch(
        policy(*claims, **{name: fields.pop(name) for name in ("design",) if name in fields}),
        [subject_of(**fields)],
    )
    return list(watch.look(evidence).standings)


def test_shown_refuted_and_open() -> None:
    cases = ((120, 0, "SHOWN", False), (20, 0, "NOT_SHOWN", True), (40, 30, "CLAIM_REFUTED", False))
    for units, wrong, code, still in cases:
        (one,) = stands(drawn(units, wrong=wrong), AGREES)
        assert (one.answer.code, one.open, one.ticket) == (code, still, "t")


def test_what_no_unit_can_change_is_not_open() -> None:
    evidence = drawn(20)
    (nulls,) = stands(evidence, 'name = "better-than-nulls:chance:first-line"\nabove = "0"')
    assert (nulls.answer.code, nulls.open) == ("NULLS_MISSING", False)
    (full,) = stands(evidence, 'name = "non-inferiority:full:whole"\nat_least = "-1"')
    assert (full.answer.code, full.open) == ("COMPARATOR_NOT_EVALUATED", False)
    (block,) = stands(evidence, AGREES, design='["A-UNITS", "A-EVIDENCE"]')
    assert (block.answer.code, block.open) == ("ASSUMPTION_NOT_ACCEPTED", False)
    (other,) = stands(evidence, AGREES + '\ntexts = ["elsewhere"]')
    assert (other.answer.code, other.open) == ("OTHER_TEXT", False)


def test_a_guarantee_is_open_until_it_holds_or_not() -> None:
    held = 'name = "guarantee:measured-max"\nfinding = "held"'
    for units, wrong, code, still in (
        (20, 0, "GUARANTEE_INCONCLUSIVE", True),
        (150, 0, "GUARANTEE_HELD", False),
        (60, 60, "GUARANTEE_REFUTED", False),
    ):
        (one,) = stands(drawn(units, wrong=wrong), held, h={})
        assert (one.answer.code, one.open) == (code, still)
    # Rows that moved far leave no step certified: the next unit may be another matter.
    (vacuous,) = stands(drawn(20), held, h={20: 256})
    assert (vacuous.answer.code, vacuous.open) == ("GUARANTEE_VACUOUS", True)


def test_all_claims_of_all_tickets_must_be_decided() -> None:
    close = 'name = "non-inferiority:reference:first-line"\nat_least = "-50"'
    evidence = drawn(60)
    decided = Watch(policy(close), [subject_of()])
    assert decided.look(evidence).decided
    both = Watch(policy(close, AGREES), [subject_of()])
    assert not both.look(evidence).decided
    assert [one.open for one in both.looks[0].standings] == [False, True]
    two = Watch(policy(close), [subject_of(), subject_of(table=synthetic.digest("table of nobody"))])
    assert [one.answer.code for one in two.look(evidence).standings] == ["SHOWN", "ARM_NOT_EVALUATED"]


def test_a_share_of_the_error_probability_asks_for_more_units() -> None:
    evidence = drawn(90)
    assert Watch(policy(AGREES), [subject_of()]).look(evidence).decided
    assert not Watch(policy(AGREES), [subject_of()], Fraction(1, 10**6)).look(evidence).decided


def test_a_declared_error_probability_is_that_of_the_certificate() -> None:
    # The gate takes no certificate whose error probability is above a declared one.
    evidence, claim = drawn(90), {"kind": "agreement-rate", "comparator": "reference", "margin": "0.95"}
    for delta, code in (("0.05", "SHOWN"), ("0.000001", "NOT_SHOWN")):
        subject = subject_of(declared=[claim | {"delta": delta}])
        standings = Watch(policy(AGREES), [subject]).look(evidence).standings
        assert [one.answer.code for one in standings] == [code, code]


def test_a_policy_that_asks_nothing_of_translations_decides_nothing() -> None:
    loss = policy('name = "unrelated-loss:base"\nat_most = "0.1"')
    with pytest.raises(UsageError) as error:
        Watch(loss, [subject_of()])
    assert error.value.code == "POLICY_NO_CLAIMS"
    both = Watch(policy(AGREES, 'name = "unrelated-loss:base"\nat_most = "0.1"'), [subject_of()])
    assert both.left_out == ("unrelated-loss:base",)


def test_every_claim_is_computed_by_its_name() -> None:
    nats = {"base": 500 * 10**9, "reference": 0, "t": 501 * 10**9}
    windows = [synthetic.window(i, nats) for i in range(3)]
    unrelated = evidence_of(windows, synthetic.plain_arms(), design="sequential")
    for name in TESTS:
        if name.endswith(DECLARED):
            continue
        evidence = unrelated if name.startswith("unrelated") else drawn(3)
        claim = claim_named(name, evidence, subject_of(), Fraction(1, 20))
        assert claim.name == name
        assert claim.procedure in ("betting/2", ""), "anytime-valid limits only"
        with pytest.raises(ValueError, match="there is no claim"):
            claim_named(name + ":more", evidence, subject_of(), Fraction(1, 20))


def test_looking_after_every_batch_decides_wrongly_as_seldom_as_promised() -> None:
    """Agreement is .9, asked for are .9 and a little: SHOWN at any of ten looks is an error."""
    generator = random.Random(3)
    asked = policy('name = "agreement-rate:reference"\nat_least = "0.905"', delta="0.2")
    wrong = 0
    for _ in range(60):
        states = [generator.random() >= 0.9 for _ in range(80)]
        order = sorted(range(80), key=lambda unit: synthetic.digest(f"0:{unit}"))
        errors = {unit for unit, state in zip(order, states, strict=True) if state}
        watch = Watch(asked, [subject_of()])
        for count in range(8, 81, 8):
            records = [
                synthetic.sentence(
                    unit,
                    {
                        "base": synthetic.Behaviour(),
                        "reference": synthetic.Behaviour(),
                        "t": synthetic.Behaviour(differs=((0, 99),) if unit in errors else ()),
                    },
                )
                for unit in sorted(order[:count])
            ]
            if watch.look(evidence_of(records, used=USED, design="sequential")).decided:
                break
        wrong += watch.looks[-1].standings[0].answer.code == "SHOWN"
    # P(B(60, 1/5) >= 24) < .001.
    assert wrong < 24
