"""Learn then Test: order, stopping, exact tests, and how often a ticket is chosen that is not good enough."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from claims_world import evidence_of
from hypothesis import given
from hypothesis import strategies as st

from certify.base.errors import CertifyError
from certify.base.jsonio import tensor_digest
from certify.base.records import RULES
from certify.cli.main import run
from certify.evidence.choice_record import read_choice
from certify.evidence.load import Evidence
from certify.gate.choose import Goal, candidates, choose, parse_goal
from certify.gate.find import find_guaranteed
from certify.ticket.schema import read_ticket_file
from proofs_checks.worlds import synthetic

DELTA = Fraction(1, 20)
USED = {"tuning": ["0" * 16]}


def world(
    wrong: Mapping[str, Sequence[bool]],
    sizes: Mapping[str, int],
    *,
    quality: Mapping[str, int] | None = None,
    used: Mapping[str, Sequence[str]] | None = USED,
    **fields: Any,
) -> Evidence:
    """Evidence of single-sentence units: ``wrong[arm][unit]`` says whether the arm disagrees somewhere."""
    units, scores = len(next(iter(wrong.values()))), quality or {}
    arms = [
        *synthetic.plain_arms()[:2],
        *(synthetic.arm(name, "transfer", range(3, 3 + size)) for name, size in sizes.items()),
    ]
    records = []
    for unit in range(units):
        behaviours = {
            name: synthetic.Behaviour(
                matches=(scores.get(name, synthetic.FULL // 2),) * 3,
                differs=((1, 99),) if name in wrong and wrong[name][unit] else (),
            )
            for name in ("base", "reference", *sizes)
        }
        records.append(synthetic.sentence(unit, behaviours))
    return evidence_of(records, arms, used=used, **fields)


def agreeing(counts: Mapping[str, int], units: int) -> dict[str, list[bool]]:
    """So many disagreeing units for each arm, the first ones."""
    return {name: [unit < count for unit in range(units)] for name, count in counts.items()}


def tail_at_most(k: int, n: int, p: Fraction) -> Fraction:
    return sum((math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1)), Fraction(0))


def test_testing_goes_from_the_largest_and_stops_at_the_first_that_is_not_shown() -> None:
    sizes = {"small": 2, "middle": 5, "large": 9, "tiny": 1}
    # 59 clean units show .95; three disagreements in 80 do not. ``tiny`` is clean, but its turn never comes.
    evidence = world(agreeing({"small": 3, "middle": 0, "large": 0, "tiny": 0}, 80), sizes)
    choice = choose(evidence, parse_goal("agreement:0.95"), DELTA)
    assert [arm.name for arm in choice.candidates] == ["large", "middle", "small", "tiny"]
    assert [(one.arm.name, one.good) for one in choice.tested] == [
        ("large", True),
        ("middle", True),
        ("small", False),
    ]
    assert choice.chosen is not None
    assert choice.chosen.arm.name == "middle"
    record = choice.to_json()
    assert record["chosen"] == "middle"
    assert [entry["tested"] for entry in record["candidates"]] == [True, True, True, False]
    assert record["goal"] == {"kind": "agreement", "value": "19/20"}
    assert record["delta"] == "1/20"
    manifest = choice.evidence.manifest
    assert record["evidence"]["order_seed"] == manifest.order_seed
    assert record["evidence"]["text_sha256"] == manifest.text.sha256


def test_a_large_ticket_that_fails_ends_everything() -> None:
    evidence = world(agreeing({"large": 40, "small": 0}, 80), {"large": 9, "small": 2})
    choice = choose(evidence, parse_goal("agreement:0.95"), DELTA)
    assert choice.chosen is None
    assert len(choice.tested) == 1


@given(
    units=st.integers(1, 70),
    wrong=st.integers(0, 6),
    target=st.sampled_from([Fraction(1, 2), Fraction(9, 10), Fraction(19, 20)]),
)
def test_the_test_of_agreement_is_the_exact_binomial_one(units: int, wrong: int, target: Fraction) -> None:
    wrong = min(wrong, units)
    evidence = world(agreeing({"t": wrong}, units), {"t": 2})
    choice = choose(evidence, Goal("agreement", target), DELTA)
    assert (choice.chosen is not None) == (tail_at_most(wrong, units, 1 - target) <= DELTA)


def test_other_goals_and_the_sequential_design() -> None:
    wrong = agreeing({"t": 0}, 120)
    quality = {"reference": synthetic.FULL, "t": synthetic.FULL}
    for design in ("fixed", "sequential"):
        evidence = world(wrong, {"t": 2}, quality=quality, design=design)
        for goal in ("token-agreement:0.9", "non-inferiority:10", "agreement:0.8"):
            choice = choose(evidence, parse_goal(goal), DELTA)
            assert choice.chosen is not None, (design, goal)
            expected = "clopper-pearson/1" if (design, goal[:5]) == ("fixed", "agree") else "betting/2"
            assert choice.chosen.limit.procedure == expected
    bad = world(wrong, {"t": 2}, quality={"reference": synthetic.FULL, "t": 1})
    assert choose(bad, parse_goal("non-inferiority:10"), DELTA).chosen is None


def test_quality_is_judged_under_the_rule_that_is_asked_for() -> None:
    full, arms = synthetic.FULL, [*synthetic.plain_arms()[:2], synthetic.arm("t", "transfer", (3, 4))]
    ours = {"base": synthetic.Behaviour(), "reference": synthetic.Behaviour((full,) * 3)}
    ours["t"] = synthetic.Behaviour((full, 1, 1))
    evidence = evidence_of([synthetic.sentence(unit, ours) for unit in range(120)], arms, used=USED)
    for rule in RULES:
        choice = choose(evidence, parse_goal("non-inferiority:10"), DELTA, rule)
        assert (choice.chosen is not None) == (rule == "whole")
        assert choice.to_json()["goal"]["extraction"] == rule


def test_candidates_are_transfers_that_control_nothing() -> None:
    arms = [
        *synthetic.plain_arms()[:2],
        synthetic.arm("b", "transfer", [3, 4, 5]),
        synthetic.arm("same", "transfer", [3, 4, 5], table_sha256=synthetic.digest("table of b")),
        synthetic.arm("a", "transfer", [3, 4]),
        synthetic.arm("other", "transfer", [5, 6]),
        synthetic.arm("tuned", "tuned", [3, 4, 5, 6]),
        synthetic.arm("null", "transfer", [7, 8, 9, 10, 11], control="random", of="b", seed=0),
        synthetic.arm("gated", "transfer", [3, 4, 5, 6, 7], gate=["source"]),
    ]
    record = synthetic.sentence(0, {str(arm["name"]): synthetic.Behaviour() for arm in arms})
    found = candidates(evidence_of([record], arms))
    ties = sorted(["a", "other"], key=lambda name: synthetic.digest(f"table of {name}"))
    assert [arm.name for arm in found] == ["b", *ties]
    with pytest.raises(CertifyError) as error:
        candidates(
            evidence_of(
                [synthetic.sentence(0, dict.fromkeys(("base", "reference"), synthetic.Behaviour()))], arms[:2]
            )
        )
    assert error.value.code == "NO_CANDIDATES"


def test_choosing_needs_data_that_nothing_else_has_used() -> None:
    wrong = agreeing({"t": 0}, 80)
    goal = parse_goal("agreement:0.95")
    for used, code in (
        (None, "USED_NOT_LISTED"),
        ({"scan": ["0" * 16]}, "USED_NOT_LISTED"),
        ({"tuning": [synthetic.digest("source 7")[:16]]}, "DATA_OVERLAP"),
        (USED | {"order": [synthetic.digest("target 3")[:16]]}, "DATA_OVERLAP"),
    ):
        with pytest.raises(CertifyError) as error:
            choose(world(wrong, {"t": 2}, used=used), goal, DELTA)
        assert error.value.code == code


@pytest.mark.parametrize(
    "text",
    [
        "agreement:1",
        "agreement:0",
        "agreement:",
        "agreement",
        "non-inferiority:100",
        "quality:0.5",
        "agreement:-0.5",
    ],
)
def test_goals_are_read_strictly(text: str) -> None:
    with pytest.raises(CertifyError) as error:
        parse_goal(text)
    assert error.value.code == "GOAL"


def test_a_ticket_that_is_not_good_enough_is_rarely_chosen() -> None:
    """Agreement .99, .97, .949, .90, asked for .95: the last two are chosen with probability <= delta."""
    generator = random.Random(5)
    rates = {"a": (40, 0.99), "b": (30, 0.97), "c": (20, 0.949), "d": (10, 0.90)}
    sizes = {name: size for name, (size, _) in rates.items()}
    delta, goal = Fraction(1, 10), Goal("agreement", Fraction(19, 20))
    runs, wrong, right = 60, 0, 0
    for _ in range(runs):
        draws = [generator.random() for _ in range(200)]  # one model: nested tickets err together
        evidence = world({name: [u > rate for u in draws] for name, (_, rate) in rates.items()}, sizes)
        chosen = choose(evidence, goal, delta).chosen
        wrong += chosen is not None and chosen.arm.name in "cd"
        right += chosen is not None and chosen.arm.name in "ab"
    # P(B(60, 1/10) >= 15) < .001: a procedure that keeps its promise is accused so seldom.
    assert wrong < 15
    assert right > runs // 2, "a procedure that never chooses is of no use"


# --- on tables ---------------------------------------------------------------------------------------------


class Tables(NamedTuple):
    """Two tables, evidence about two tickets of them, and the means to write it otherwise."""

    base: Path
    tuned: Path
    evidence: Path
    arms: list[dict[str, Any]]
    records: list[Any]
    settings: dict[str, Any]


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    generator = np.random.default_rng(0)
    before = generator.standard_normal((12, 8)).astype("<f4")
    after = before + np.float32(1)
    made = {"base": before, "tuned": after}
    for name, ids in (("large", [3, 4, 5]), ("small", [4])):
        table = before.copy()
        table[ids] = after[ids]
        made[name] = table
    digests = {name: tensor_digest("F32", (12, 8), [table.tobytes()]) for name, table in made.items()}
    for name in ("base", "tuned"):
        np.save(tmp_path / f"{name}.npy", made[name])
    arms = [
        synthetic.arm("base", "base", table_sha256=digests["base"]),
        synthetic.arm("reference", "reference", table_sha256=digests["tuned"]),
        synthetic.arm("large", "transfer", [3, 4, 5], table_sha256=digests["large"]),
        synthetic.arm("small", "transfer", [4], table_sha256=digests["small"]),
    ]
    names = [str(arm["name"]) for arm in arms]
    records = [
        synthetic.sentence(
            unit,
            {
                name: synthetic.Behaviour(differs=((1, 99),) if name == "small" and unit < 9 else ())
                for name in names
            },
        )
        for unit in range(70)
    ]
    (tmp_path / "evidence").mkdir()
    settings = {
        "base": {"tensor_sha256": digests["base"], "model_sha256": synthetic.digest("model")},
        "reference": {"tensor_sha256": digests["tuned"]},
    }
    evidence = synthetic.write(tmp_path / "evidence", records, arms, used=USED, **settings)
    return Tables(tmp_path / "base.npy", tmp_path / "tuned.npy", evidence, arms, records, settings)


def test_the_chosen_ticket_is_written_with_its_record(tables: Tables, tmp_path: Path) -> None:
    paths, path = (tables.base, tables.tuned), tables.evidence
    out = tmp_path / "tickets.json"
    goal = parse_goal("agreement:0.95")
    result = find_guaranteed(*paths, path, goal, delta=DELTA, out=out, ticket_id="chosen")
    assert result.found is not None
    (ticket,) = read_ticket_file(out).tickets
    assert (ticket.id, ticket.ids, ticket.selection.rule) == ("chosen", (3, 4, 5), "ids:3,4,5")
    assert '"chosen": "large"' in result.record.read_text()
    assert ticket.choice is not None
    assert ticket.choice.path == "choices/chosen.json"
    on = {one[side] for one in tables.records for side in ("source", "target")}
    record = read_choice(ticket, tmp_path)
    assert record is not None
    assert set(record.sentences) == on
    assert {one.ids for one in record.candidates} == {tuple(arm["ids"]) for arm in tables.arms if arm["ids"]}
    none = find_guaranteed(*paths, path, parse_goal("agreement:0.99"), delta=DELTA, out=out, ticket_id="none")
    assert none.found is None
    assert '"chosen": null' in none.record.read_text()
    assert len(read_ticket_file(out).tickets) == 1
    # Rows that are not the reference's, and evidence about other tables.
    tables.arms[2]["ids"] = [3, 4, 6]
    wrong = synthetic.write(
        path.parent, tables.records, tables.arms, used=USED, name="wrong", **tables.settings
    )
    for evidence, tuned, code in ((wrong, paths[1], "ARM_TABLE"), (path, paths[0], "EVIDENCE_REFERENCE")):
        with pytest.raises(CertifyError) as error:
            find_guaranteed(paths[0], tuned, evidence, goal, delta=DELTA, out=out, ticket_id="x")
        assert error.value.code == code


def test_the_command_says_what_it_tested(
    tables: Tables, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tickets.json"
    words = ["find", "--base", tables.base, "--tuned", tables.tuned, "--id", "t", "--out", out]
    words += ["--evidence", tables.evidence, "--guarantee"]
    assert run([*map(str, words), "agreement:0.95"]) == 0
    shown = capsys.readouterr().out
    assert "large (3 rows): estimate 1.0000" in shown
    assert "small (1 row)" in shown
    assert "testing stops here" in shown
    assert read_ticket_file(out).tickets[0].ids == (3, 4, 5)
    assert run([*map(str, words), "agreement:0.99", "--replace"]) == 3
    assert "small (1 row): not tested" in capsys.readouterr().out
    for more in (["agreement:2"], ["agreement:0.9", "--rule", "ids:3"], ["agreement:0.9", "--delta", "1"]):
        assert run([*map(str, words), *more]) == 2
    assert run([*map(str, words[:-1])]) == 2
