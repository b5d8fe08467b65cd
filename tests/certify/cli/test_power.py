"""``certify power``: figures against laws worked out here, and against the procedures that they plan for."""

from __future__ import annotations

import hashlib
import json
import math
import random
import statistics
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from claims_world import evidence_of, subject_of
from command import following
from evidence_folders import fill, make_bundle

from certify.base.errors import CertifyError
from certify.base.records import RULES
from certify.cli.main import run
from certify.gate.planning import Truth, parse_claim, plan, truth_of
from certify.policy.outcomes import required
from certify.policy.policy import POLICIES
from certify.stats.betting import betting_exceeds, noninferior
from certify.ticket.declared import DeclaredClaim
from certify.ticket.schema import read_ticket_file
from proofs_checks.coverage.calibrated import T, declares
from proofs_checks.worlds import synthetic
from proofs_checks.worlds.populations import decided, follow

DELTA, POWER = Fraction(1, 20), Fraction(4, 5)


def answer(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    assert run(["power", *map(str, words), "--format", "json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def at_least(k: int, n: int, p: float) -> float:
    return sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))


def test_units_for_a_rate_are_the_first_that_reach_the_power(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "--claim", "agreement:0.95", "--truth", "0.99", "--power", "0.6")

    def reached(n: int) -> bool:
        needed = next((k for k in range(n + 1) if at_least(k, n, 0.95) <= 0.05), None)
        return needed is not None and at_least(needed, n, 0.99) >= 0.6

    assert found["units"] == next(n for n in range(1, 200) if reached(n))
    assert found["clean_units"] == 59
    assert found["exact"] is True


def test_a_guarantee_supposes_no_disagreement_unless_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "--claim", "guarantee:0.05")["units"] == 59
    found = answer(capsys, "--claim", "guarantee:.001")
    assert (found["units"], found["clean_units"]) == (2995, 2995)
    assert answer(capsys, "--claim", "guarantee:0.05", "--truth", "0.01")["units"] > 59
    assert run(["power", "--claim", "guarantee:0.05"]) == 0
    assert "FILE#ID" in following(capsys.readouterr().out)
    hopeless = answer(capsys, "--claim", "guarantee:0.05", "--truth", "0.2")
    assert hopeless["units"] is None
    assert "not better" in hopeless["obstacle"]


def test_what_is_not_known_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--truth" in answer(capsys, "--claim", "agreement:0.95")["obstacle"]
    assert "--sd" in answer(capsys, "--claim", "non-inferiority:1.0")["obstacle"]
    found = answer(capsys, "--claim", "non-inferiority:1.0", "--sd", "15")
    assert found["truth"] == "0"
    assert found["clean_units"] is None
    assert found["units"] > answer(capsys, "--claim", "non-inferiority:2", "--sd", "15")["units"]
    assert (
        found["units"] > answer(capsys, "--claim", "non-inferiority:1", "--sd", "15", "--truth", "1")["units"]
    )
    assert run(["power", "--claim", "agreement:0.95", "--sd", "3"]) == 2
    assert run(["power", "--claim", "non-inferiority:1", "--sd", "-3"]) == 2
    assert run(["power", "--claim", "gain:1", "--sd", "1e1"]) == 2


def test_probabilities_are_decimals_or_fractions(capsys: pytest.CaptureFixture[str]) -> None:
    """A report writes the error probability of a limit as 1/180."""
    goal = ("--claim", "agreement:0.95")
    found = answer(capsys, *goal, "--truth", "99/100", "--delta", "1/180", "--power", "4/5")
    assert found["clean_units"] == next(n for n in range(1, 200) if 180 * 19**n <= 20**n)
    assert (found["truth"], found["power"]) == ("0.99", "0.8")
    for text in ("1/0", "1/", "/2", "1/-2", "-1/180", "180/1", "3/2", "0/5", "1.0/2", "1/2/3", ".", "-", ""):
        assert run(["power", *goal, "--truth", "1", f"--delta={text}"]) == 2
        assert capsys.readouterr().err.endswith("[NUMBER]\n"), text


@pytest.mark.parametrize(
    "text",
    ["agreement:1", "guarantee:0", "guarantee:calibrate", "non-inferiority:-1", "gain", "bleu:1", "gain:"],
)
def test_claims_are_read_strictly(text: str) -> None:
    with pytest.raises(CertifyError) as error:
        parse_claim(text)
    assert error.value.code == "CLAIM"


def test_so_many_units_show_a_mean_about_as_often_as_promised() -> None:
    claim = parse_claim("token-agreement:0.9")
    values = [Fraction(4, 5), Fraction(1), Fraction(1)]
    mean, sd = Fraction(14, 15), Fraction(str(round(statistics.pstdev(map(float, values)), 6)))
    units = plan(claim, Truth(mean, sd, "known"), delta=DELTA, power=POWER).units
    assert units is not None
    generator = random.Random(1)

    def shown(n: int) -> int:
        drawn = (generator.choices(values, k=n) for _ in range(200))
        return sum(betting_exceeds(one, claim.value, DELTA, "fixed") for one in drawn)

    # Planned for normal units; with half of the units less than the power is left.
    assert shown(units // 2) < 160 <= shown(units)


def small_world() -> Any:
    """Eight units: two disagree, one of these at its certified step; scores 10 and 30 points apart."""
    arms = [*synthetic.plain_arms(), synthetic.arm("null", "transfer", [9], control="random", of="t", seed=0)]
    records = []
    for unit in range(8):
        wrong = {0: ((0, 99),), 1: ((1, 99),)}.get(unit, ())
        behaviours = {
            "base": synthetic.Behaviour((4,) * 3),
            "reference": synthetic.Behaviour((12,) * 3),
            "t": synthetic.Behaviour((10 if unit % 2 else 6,) * 3, wrong),
            "null": synthetic.Behaviour(),
        }
        records.append(synthetic.sentence(unit, behaviours, margins=[900_000_000, 0, 0]))
    return records, arms


def test_the_truth_from_evidence_is_that_of_its_records() -> None:
    records, arms = small_world()
    evidence = evidence_of(records, arms)
    arm = evidence.manifest.arm("t")
    rate = truth_of(parse_claim("agreement:0.5"), evidence, arm)
    assert (rate.value, rate.sd) == (Fraction(6, 8), None)
    tokens = truth_of(parse_claim("token-agreement:0.5"), evidence, arm)
    assert tokens.value == 1 - Fraction(2, 24)
    shares = [2 / 3, 2 / 3, 1, 1, 1, 1, 1, 1]
    assert float(tokens.sd) == pytest.approx(statistics.stdev(shares), abs=2e-6)
    # Sentence chrF of synthetic outputs is matches / FULL: 6 and 10 against 12, and against 4, of 20.
    gain = truth_of(parse_claim("gain:0"), evidence, arm)
    assert gain.value == 20
    assert float(gain.sd) == pytest.approx(statistics.stdev([10, 30] * 4), abs=2e-6)
    lost = truth_of(parse_claim("non-inferiority:1"), evidence, arm)
    assert lost.value == -20
    # Every unit has one certified step, the first; unit 0 disagrees there.
    drawn = truth_of(parse_claim("guarantee:0.05"), evidence, arm, width=256)
    assert drawn.value == Fraction(1, 8)
    with pytest.raises(CertifyError) as error:
        truth_of(parse_claim("guarantee:0.05"), evidence, arm)
    assert error.value.code == "TICKET_NEEDED"
    with pytest.raises(CertifyError) as error:
        truth_of(parse_claim("guarantee:0.001"), evidence, arm, width=4)
    assert error.value.code == "NO_UNITS"


def test_the_command_reads_evidence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records, arms = small_world()
    path = synthetic.write(tmp_path, records, arms)
    found = answer(capsys, "--claim", "agreement:0.5", "--evidence", path)
    assert (found["truth"], found["units"]) == (
        "0.75",
        answer(capsys, "--claim", "agreement:0.5", "--truth", "0.75")["units"],
    )
    given = answer(capsys, "--claim", "gain:0", "--evidence", path, "--truth", "5")
    assert given["truth"] == "5"
    assert float(given["sd"]) == pytest.approx(10.69, abs=0.01)
    tickets = {
        "schema": "certify.tickets",
        "schema_version": 1,
        "created_by": "synthetic",
        "tickets": [synthetic.ticket()],
    }
    (tmp_path / "tickets.json").write_text(json.dumps(tickets))
    found = answer(
        capsys, "--claim", "guarantee:0.2", "--evidence", path, "--ticket", tmp_path / "tickets.json"
    )
    assert found["truth"] == "0.125"
    assert run(["power", "--claim", "guarantee:0.2", "--evidence", str(path)]) == 2
    assert "TICKET_NEEDED" in capsys.readouterr().err


def test_the_drawn_step_is_the_specified_one() -> None:
    """Three certified steps a unit, one of them disagreeing: which one is drawn is a matter of the hash."""
    tokens, expected = (30, 31, 2), 0
    records = []
    for unit in range(12):
        wrong = unit % 3
        behaviours = {name: synthetic.Behaviour() for name in ("base", "reference")}
        behaviours["t"] = synthetic.Behaviour(differs=((wrong, 99),))
        records.append(synthetic.sentence(unit, behaviours, tokens=tokens, margins=[900_000_000] * 3))
        digest = hashlib.sha256(f"0:0.05:published:{unit}".encode()).hexdigest()
        expected += int(digest, 16) % 3 == wrong
    evidence = evidence_of(records)
    found = truth_of(parse_claim("guarantee:0.05"), evidence, evidence.manifest.arm("t"), width=256)
    assert found.value == Fraction(expected, 12)
    assert 0 < expected < 12


def test_a_policy_is_planned_claim_by_claim(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records, arms = small_world()
    translated = synthetic.write(tmp_path, records, arms)
    found = answer(capsys, "--policy", "drop-in", "--evidence", translated)
    plans = {one["claim"].split()[0]: one for one in found["claims"]}
    assert [*plans, *found["not_planned"]] == [one.claim for one in POLICIES["drop-in"].claims]
    assert found["not_planned"] == ["guarantee:calibrated"]
    # Scores: base 20, reference 60, the ticket 30 and 50 by turns.
    assert plans["gain:base:declared"]["truth"] == "20"
    assert plans["retention:0.5:declared"]["truth"] == "0"
    assert "not better" in plans["retention:0.5:declared"]["obstacle"]
    assert plans["non-inferiority:reference:declared"]["truth"] == "-20"
    assert plans["unrelated-excess:base"]["units"] == 59
    assert "--sd" in plans["unrelated-loss:base"]["obstacle"]
    wanted = [one.claim for one in POLICIES["science"].claims]
    assert answer(capsys, "--policy", "science", "--evidence", translated)["not_planned"] == wanted[:-1]
    assert run(["power", "--policy", "release", "--claim", "gain:0"]) == 2
    assert run(["power"]) == 2
    assert run(["power", "--policy", "paper"]) == 2, "its level is that of a ticket"


def declaring(tmp_path: Path, *declared: dict[str, str]) -> Path:
    """A file with one ticket that declares claims."""
    head = {"schema": "certify.tickets", "schema_version": 1, "created_by": "synthetic"}
    path = tmp_path / "tickets.json"
    path.write_text(json.dumps(head | {"tickets": [synthetic.ticket(declared=declared)]}))
    return path


def test_what_a_ticket_declares_is_planned_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All that ``certify check`` requires, at the error probability that each may have."""
    records, arms = small_world()
    translated = synthetic.write(tmp_path, records, arms)
    lossless = {"kind": "non-inferiority", "margin": "25.0", "extraction": "whole", "delta": "0.01"}
    ticket = declaring(tmp_path, lossless, {"kind": "agreement-rate"})
    asked = ("--ticket", ticket, "--evidence", translated)
    found = answer(capsys, "--policy", "release", *asked)
    own = {one["claim"]: one for one in found["claims"]}
    content = read_ticket_file(ticket).tickets[0]
    wanted = required(content, POLICIES["release"])[len(POLICIES["release"].requires) :]
    names = [one.partition(" ")[0].replace(":", ".") for one in [*own][4:]]
    assert len(own) == 4 + 2, "release asks four; two arms of three can be planned for"
    assert {f"declared.1.{name}" for name in (*names, "non-inferiority.full.whole")} == {*wanted[:-1]}
    assert found["not_planned"] == ["non-inferiority:full:whole", wanted[-1]]
    # Scores: base 20, reference 60, the ticket 30 and 50 by turns.
    plan = own["non-inferiority:reference:whole >= -25"]
    assert (plan["truth"], plan["delta"], own["gain:base:declared > 0"]["delta"]) == ("-20", "0.01", "0.05")
    goal = ("--claim", "non-inferiority:25", "--delta", "0.01")
    assert plan["units"] == answer(capsys, *goal, *asked)["units"]
    base = own["non-inferiority:base:whole >= -25"]
    assert (base["truth"], base["units"] < plan["units"]) == ("20", True), (
        "against the base, not embed tuning"
    )
    assert len(answer(capsys, "--policy", "selection", *asked)["claims"]) == 0, "it reads no evidence"


def test_a_claim_that_cannot_be_planned_hides_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records, arms = small_world()
    translated = synthetic.write(tmp_path, records, arms)
    kept = {"kind": "retention", "comparator": "0.5", "margin": "2", "extraction": "whole"}
    ticket = declaring(tmp_path, kept, {"kind": "agreement-rate", "margin": "1"})
    found = answer(capsys, "--policy", "release", "--ticket", ticket, "--evidence", translated)
    assert [one["claim"].split()[0] for one in found["claims"]] == [
        one.claim for one in POLICIES["release"].claims
    ]
    retention, agreement = found["not_planned"]
    assert retention == "retention:0.5:whole", "planned for more than 0, it would be for too little"
    assert agreement.startswith("agreement-rate:reference >= 1 (")


def test_what_is_not_shown_is_planned_by_the_command_that_comes_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it is printed, at the error probability of the limit that did not show it."""
    bundle = fill(
        make_bundle(tmp_path, declared=[DeclaredClaim(kind="agreement-rate", margin="0.8")]), units=5
    )
    bundle.issue()
    assert run(["check", "--policy", "release", str(bundle.path)]) == 3
    words = following(capsys.readouterr().out)
    assert words[0] == "power"
    found = answer(capsys, *words[1:])
    (plan,) = (one for one in found["claims"] if one["claim"] == "agreement-rate:reference >= 0.8")
    certificate = json.loads(bundle.certificate.read_text())
    (delta,) = {one["delta"] for one in certificate["evidence"] if one["role"] == "evaluation"}
    assert float(plan["delta"]) == pytest.approx(float(Fraction(delta)), rel=1e-5)
    assert "estimated from" in plan["source"]
    assert all(one["units"] for one in found["claims"]), "evidence of both roles is named"


def test_a_gain_under_another_template_is_told_by_such_evidence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And under the policy's own rule: the first lines are five points above the base, whole outputs more."""
    records, arms = small_world()
    own = synthetic.write(tmp_path, records, arms, name="own")
    others = {arm["name"]: synthetic.Behaviour((4, 4, 4)) for arm in arms}
    again = [synthetic.sentence(unit, {**others, "t": synthetic.Behaviour((12, 5, 5))}) for unit in range(4)]
    template = {"name": "reworded", "sha256": synthetic.digest("reworded")}
    reworded = synthetic.write(tmp_path, again, arms, name="reworded", template=template)
    ticket = tmp_path / "tickets.json"
    head = {"schema": "certify.tickets", "schema_version": 1, "created_by": "synthetic"}
    ticket.write_text(json.dumps(head | {"tickets": [synthetic.ticket()]}))
    asked = ("--policy", "science", "--ticket", ticket, "--evidence", own)
    (plan,) = answer(capsys, *asked)["claims"]
    assert "--truth" in plan["obstacle"]
    (plan,) = answer(capsys, *asked, "--evidence", reworded)["claims"]
    assert (plan["claim"].split()[0], plan["truth"]) == ("template-gain:base:first-line", "5")


def test_quality_is_planned_under_the_rule_that_is_declared() -> None:
    arms, rng = synthetic.plain_arms(), random.Random(0)
    records = []
    for unit in range(40):
        whole = synthetic.Behaviour((8 + rng.randrange(4), 2, 2))
        others = {"base": synthetic.Behaviour((4, 4, 4)), "reference": synthetic.Behaviour((12, 12, 12))}
        records.append(synthetic.sentence(unit, {**others, "t": whole}))
    evidence = evidence_of(records, arms)
    arm = evidence.manifest.arm("t")
    for claim, rho in (("gain:0", 0), ("retention:0.5", 0.5), ("non-inferiority:1", 1)):
        for number, rule in enumerate(RULES):
            found = truth_of(parse_claim(claim), evidence, arm, rule=rule)
            scores = [5 * r["arms"]["t"]["stats"][r["arms"]["t"]["rules"][number]][12] for r in records]
            assert found.value == Fraction(sum(scores), 40) - Fraction(60 * rho) - Fraction(20 * (1 - rho))
            assert float(found.sd or 0) == pytest.approx(statistics.stdev(scores), abs=2e-6)


def test_so_many_passages_show_a_bounded_loss() -> None:
    claim, truth = parse_claim("unrelated-loss:0.1"), Truth(Fraction(0), Fraction(1, 5), "known")
    units = plan(claim, truth, delta=DELTA, power=POWER).units
    assert units is not None
    rng = random.Random(2)

    def shown(n: int) -> int:
        drawn = ([Fraction(rng.gauss(0, 0.2)) for _ in range(n)] for _ in range(100))
        return sum(noninferior(one, claim.value, DELTA, "fixed", 4) for one in drawn)

    assert shown(units // 2) < 70 <= shown(units)
    for text in ("unrelated-loss:0", "unrelated-loss:2", "retention:1", "guarantee:nobody"):
        with pytest.raises(CertifyError):
            parse_claim(text)
    assert parse_claim("guarantee:path", subject_of().ticket).value == DELTA


def test_a_margin_is_planned_with_units_as_they_were() -> None:
    ticket, rng = declares().ticket, random.Random(3)
    claim = parse_claim("guarantee:calibrated", ticket)
    assert (claim.value, claim.t) == (Fraction(1, 10), T)
    # Of each ten units with a sure step, one disagrees at half of two sure steps, seven at none.
    population = follow(decided("it", (1, "aD"), (7, "aau"), (4, "ux")), T)
    evidence = population.evidence([0, *[1] * 7, *[2] * 4] * 8, "it")
    found = truth_of(claim, evidence, evidence.manifest.arm("t"))
    assert (found.value, found.law) == (Fraction(1, 16), {Fraction(1, 2): Fraction(1, 8), 0: Fraction(7, 8)})
    assumed = Truth(Fraction(1, 16), None, "assumed")
    for truth, units in ((found, [0.5] + [0] * 7), (assumed, [1] + [0] * 15)):
        n = plan(claim, truth, delta=DELTA, power=POWER).units
        assert n is not None

        def shown(n: int, units: list[float] = units) -> int:
            drawn = ([Fraction(1 - rng.choice(units)) for _ in range(n)] for _ in range(100))
            return sum(betting_exceeds(one, 1 - claim.value, DELTA, "fixed") for one in drawn)

        assert shown(n // 2) < 70 <= shown(n) < 92
    assert plan(claim, Truth(Fraction(1, 10), None, "it"), delta=DELTA, power=POWER).units is None
    with pytest.raises(CertifyError) as caught:
        parse_claim("guarantee:calibrated", subject_of().ticket)
    assert caught.value.code == "CALIBRATION_NOT_DECLARED"
