"""Issuing: which files it takes, what it writes, and that limits on the other side are what they say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
from claims_world import evidence_of, subject_of
from command import in_process
from evidence_folders import TICKET_ARM, Bundle, make_bundle, sentences
from ticket_folders import make_ticket

import certify
from certify.base.errors import InvalidInputError, UsageError
from certify.base.jsonio import sha256_file
from certify.certificate.build import claims_of
from certify.claims.claim import Claim
from certify.claims.registry import opposite_limit
from certify.evidence.load import Evidence
from certify.gate.issue import issue
from certify.stats.betting import betting_exceeds, noninferior
from proofs_checks.worlds import synthetic

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def bundle(pristine: Bundle, tmp_path: Path) -> Bundle:
    return pristine.copy(tmp_path / "bundle")


# --- files -------------------------------------------------------------------------------------------------


def test_the_command_issues_attaches_and_check_certifies(bundle: Bundle, capsys: Capture) -> None:
    bundle.certificate.unlink()
    bundle.edit_ticket(lambda ticket: ticket.update(certificate=None, evidence=[]))
    digest = bundle.ticket()
    words: list[object] = ["issue", "--ticket", f"{bundle.path}#tiny", "--evidence", bundle.translated]
    words += [
        "--evidence",
        bundle.unrelated,
        "--out",
        bundle.folder / "certificates" / "tiny.json",
        "--attach",
    ]
    ran = in_process(words, capsys)
    assert (ran.code, ran.err) == (0, "")
    claims = json.loads((bundle.folder / "certificates" / "tiny.json").read_bytes())["claims"]
    assert f"{len(claims)} claims about tiny" in ran.out
    ticket = bundle.ticket()
    assert ticket["certificate"]["path"] == "certificates/tiny.json"
    assert ticket["evidence"] == [
        {"path": f"evidence/{one.name}", "sha256": sha256_file(one)}
        for one in (bundle.translated, bundle.unrelated)
    ]
    assert {key: value for key, value in ticket.items() if key not in ("certificate", "evidence")} == {
        key: value for key, value in digest.items() if key not in ("certificate", "evidence")
    }
    assert in_process(["check", "--ticket", bundle.path], capsys).code == 0


def test_another_look_at_a_text_is_told_and_paid_for(bundle: Bundle) -> None:
    def again(matches: int, name: str | None = None) -> list[str]:
        bundle.records = sentences(bundle.names, len(bundle.records), **{TICKET_ARM: matches})
        paths = bundle.write_evidence()
        if name:
            manifest = json.loads(bundle.translated.read_bytes())
            manifest["text"]["name"] = name
            bundle.translated.write_bytes(synthetic.canonical(manifest) + b"\n")
        made = issue(bundle.path, paths, out=bundle.certificate, attach=True, engine="numpy", workers=1)
        assert {one.delta for one in made.evidence} == {f"1/{20 * (1 + len(made.earlier))}"}
        return list(made.earlier)

    first = hashlib.sha256(bundle.certificate.read_bytes()).hexdigest()
    assert again(18) == [], "the same records are no new look"
    assert again(19) == [first]
    second = hashlib.sha256(bundle.certificate.read_bytes()).hexdigest()
    assert again(19) == [first]
    third = [first, second]
    assert again(17, "renamed") == third, "another name is no other text"
    assert again(17, "renamed") == third
    assert certify.check(bundle.path, policy="release", workers=1).tickets[0].status == "INCONCLUSIVE"
    bundle.edit_certificate(lambda value: value.update(earlier=[]))
    hidden = certify.check(bundle.path, policy="release", workers=1).tickets[0]
    assert hidden.status == "REFUTED"
    assert {item.outcome for item in hidden.items if item.name == "checker.agrees"} == {"pass"}


def _lost(bundle: Bundle) -> None:
    bundle.certificate.unlink()


def _replaced(bundle: Bundle) -> None:
    bundle.certificate.write_bytes(b"junk\n")


def _older(bundle: Bundle) -> None:
    first = bundle.certificate.read_bytes()
    bundle.records = sentences(bundle.names, len(bundle.records), **{TICKET_ARM: 19})
    issue(
        bundle.path, bundle.write_evidence(), out=bundle.certificate, attach=True, engine="numpy", workers=1
    )
    bundle.certificate.write_bytes(first)


@pytest.mark.parametrize("change", [_lost, _replaced, _older])
def test_earlier_looks_are_not_forgotten(bundle: Bundle, change: Callable[[Bundle], None]) -> None:
    """Without the certificate that the ticket names, nobody knows how often a text was looked at."""
    change(bundle)
    before = bundle.path.read_bytes()
    with pytest.raises(InvalidInputError) as caught:
        issue(bundle.path, [bundle.translated], out=bundle.folder / "new.json", attach=True, engine="numpy")
    assert caught.value.code == "CERTIFICATE_EARLIER"
    assert bundle.path.read_bytes() == before
    assert not (bundle.folder / "new.json").exists()


def test_nothing_but_a_certificate_of_the_ticket_is_replaced(bundle: Bundle, tmp_path: Path) -> None:
    evidence = [bundle.translated, bundle.unrelated]
    rows = bundle.folder / bundle.ticket()["released"]["rows"]["path"]
    other = tmp_path / "other.json"
    issue(bundle.path, evidence, out=other, engine="numpy")
    content = json.loads(other.read_bytes())
    content["ticket"]["id"] = "another"
    other.write_bytes(synthetic.canonical(content) + b"\n")
    for out in (bundle.path, bundle.translated, rows, other):
        before = out.read_bytes()
        for attach in (False, True)[: 1 + out.is_relative_to(bundle.folder)]:
            with pytest.raises(UsageError) as caught:
                issue(bundle.path, evidence, out=out, attach=attach, engine="numpy")
            assert caught.value.code == "OUT_EXISTS"
        assert out.read_bytes() == before


def test_a_report_is_not_written_over_what_it_is_about(bundle: Bundle, capsys: Capture) -> None:
    tables = list((bundle.folder / "base").glob("*.safetensors"))
    for out in (bundle.path, bundle.certificate, bundle.translated, *tables):
        before = out.read_bytes()
        ran = in_process(["check", bundle.path, "--out", out], capsys)
        assert (ran.code, "[OUT_IS_INPUT]" in ran.err) == (2, True), ran.err
        assert out.read_bytes() == before
    rows = bundle.folder / bundle.ticket()["released"]["rows"]["path"]
    before = rows.read_bytes()
    ran = in_process(["transfer", "--ticket", f"{bundle.path}#tiny", "--out", rows], capsys)
    assert (ran.code, "[OUT_IS_INPUT]" in ran.err) == (2, True), ran.err
    assert rows.read_bytes() == before


def test_a_tiny_delta_is_a_level_like_any_other(bundle: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "c.json"
    delta = f"0.{'0' * 58}1"
    made = issue(bundle.path, [bundle.translated, bundle.unrelated], out=out, delta=delta, engine="numpy")
    assert made.parameters.delta == delta
    assert int(certify.check(bundle.path, policy="release", certificate=out, workers=1).exit_code) == 3


def test_without_attach_the_ticket_file_is_not_touched(bundle: Bundle, tmp_path: Path) -> None:
    before = bundle.path.read_bytes()
    out = tmp_path / "elsewhere.json"
    evidence = [bundle.translated, bundle.unrelated, bundle.paraphrased]
    issue(bundle.path, evidence, out=out, engine="numpy")
    assert bundle.path.read_bytes() == before
    assert out.read_bytes() == bundle.certificate.read_bytes()


def test_evidence_and_an_attached_certificate_lie_in_the_folder(bundle: Bundle, tmp_path: Path) -> None:
    outside = tmp_path / "translated.json"
    outside.write_bytes(bundle.translated.read_bytes())
    for evidence, out in (([outside], bundle.certificate), ([bundle.translated], tmp_path / "c.json")):
        with pytest.raises(UsageError) as caught:
            issue(bundle.path, evidence, out=out, attach=True, engine="numpy")
        assert caught.value.code == "OUTSIDE_FOLDER"


def test_one_ticket_must_be_named(tmp_path: Path) -> None:
    path = make_ticket(tmp_path, ticket_id="one")
    make_ticket(tmp_path, ticket_id="two", alpha="0.5")
    for name in (None, "three"):
        with pytest.raises(UsageError) as caught:
            issue(path, [path], out=tmp_path / "c.json", ticket_id=name)
        assert caught.value.code == "TICKET_UNKNOWN"


def test_no_evidence_no_certificate(bundle: Bundle) -> None:
    with pytest.raises(UsageError) as caught:
        issue(bundle.path, [], out=bundle.certificate)
    assert caught.value.code == "NO_EVIDENCE"


@pytest.mark.parametrize("delta", ["0", "1", "1.5", "-0.05", "5e-2", "1/20", "nan", ""])
def test_delta_is_a_decimal_between_0_and_1(bundle: Bundle, delta: str) -> None:
    with pytest.raises(UsageError) as caught:
        issue(bundle.path, [bundle.translated], out=bundle.certificate, delta=delta)
    assert caught.value.code == "DELTA_RANGE"


def test_tables_that_do_not_travel_must_be_named(tmp_path: Path) -> None:
    path = make_ticket(tmp_path, bundle=False)
    evidence = path.parent / "evidence.json"
    evidence.write_text("{}", encoding="utf-8")
    with pytest.raises(UsageError, match="--base"):
        issue(path, [evidence], out=path.parent / "c.json")


def test_a_ticket_that_is_not_what_it_says_gets_none(bundle: Bundle) -> None:
    bundle.edit_ticket(lambda ticket: ticket["released"]["rows"].update(served_sha256="0" * 64))
    with pytest.raises(InvalidInputError) as caught:
        issue(bundle.path, [bundle.translated], out=bundle.certificate, engine="numpy")
    assert caught.value.code == "ROWS_DIGEST"


def test_a_certificate_can_state_what_every_policy_finds_wanting(bundle: Bundle) -> None:
    bundle.arms = [arm for arm in bundle.arms if arm["control"] is None]
    bundle.records = [
        synthetic.sentence(i, {name: synthetic.Behaviour() for name in bundle.names}) for i in range(5)
    ]
    bundle.losses = bundle.losses[:1]
    for window in bundle.losses:
        window["nats"] = {name: window["nats"][name] for name in bundle.names}
    bundle.issue()
    kinds = {claim["kind"] for claim in json.loads(bundle.certificate.read_bytes())["claims"]}
    assert "gain" in kinds
    assert "better-than-nulls" not in kinds


# --- limits on the other side ------------------------------------------------------------------------------


def world(design: str = "fixed", **score: int) -> Evidence:
    arms = synthetic.plain_arms() + synthetic.null_arms()
    names = [arm["name"] for arm in arms]
    records = []
    for i in range(40):
        matches = {name: (score.get(name, 6) + i % 2,) * 3 for name in names}
        behaviours = {
            name: synthetic.Behaviour(matches[name], ((0, 99),) if name == "t" and i % 4 == 0 else ())
            for name in names
        }
        records.append(synthetic.sentence(i, behaviours))
    return evidence_of(records, arms, design=design)


def made(evidence: Evidence, name: str) -> Claim:
    (text,) = claims_of([("e.json", evidence)], subject_of(), "0.05")
    return next(claim for claim in text.claims if claim.name == name)


@pytest.mark.parametrize("design", ["fixed", "sequential"])
@pytest.mark.parametrize("name", ["gain:base:first-line", "non-inferiority:reference:cut"])
def test_the_opposite_limit_of_a_difference_is_that_of_the_negated_ones(name: str, design: str) -> None:
    evidence = world(design, t=8, base=6, reference=10)
    claim = made(evidence, name)
    upper = opposite_limit(claim)
    assert upper is not None
    assert claim.lower is not None
    assert claim.estimate is not None
    assert claim.lower < claim.estimate < upper
    # Exactly there, on the grid of the limit, the decision turns.
    negated = [Fraction(-10)] * 40 if "gain" in name else [Fraction(10)] * 40
    grid = Fraction(200, 1 << 20)
    assert noninferior(negated, upper, claim.delta, evidence.design)
    assert not noninferior(negated, upper - grid, claim.delta, evidence.design)


def test_one_null_ticket_that_does_better_refutes() -> None:
    evidence = world(t=8, **{"null-9": 16})
    claim = made(evidence, "better-than-nulls:one-row:first-line")
    upper = opposite_limit(claim)
    assert upper is not None
    assert upper < 0
    # Two were compared: each at half of the error probability, which is a weaker limit.
    alone = [Fraction(40)] * 40
    assert not noninferior(alone, upper - Fraction(200, 1 << 20), claim.delta / 2, "fixed")
    assert noninferior(alone, upper - Fraction(1, 2), claim.delta, "fixed")


@pytest.mark.parametrize("design", ["fixed", "sequential"])
@pytest.mark.parametrize("name", ["agreement-rate:reference", "token-agreement:reference"])
def test_rates_have_an_upper_limit(name: str, design: str) -> None:
    evidence = world(design)
    claim = made(evidence, name)
    upper = opposite_limit(claim)
    assert upper is not None
    assert claim.lower is not None
    assert claim.estimate is not None
    assert claim.lower < claim.estimate < upper < 1


def loss_world(rises: list[Fraction]) -> Evidence:
    records = [
        synthetic.window(i, {"base": 500 * 10**9, "reference": 0, "t": 500 * 10**9 + int(rise * 100 * 10**9)})
        for i, rise in enumerate(rises)
    ]
    return evidence_of(records, synthetic.plain_arms())


def test_the_loss_has_a_lower_limit_unless_a_unit_falls_too_far() -> None:
    rises = [Fraction(1, 2)] * 40
    evidence = loss_world(rises)
    claim = made(evidence, "unrelated-loss:base")
    lower = opposite_limit(claim)
    assert lower is not None
    assert claim.upper is not None
    assert 0 < lower < Fraction(1, 2) < claim.upper
    units = [Fraction(1, 2) + rise / 4 for rise in rises]
    assert betting_exceeds(units, Fraction(1, 2) + lower / 4, claim.delta, "fixed")
    evidence = loss_world([*rises, Fraction(-3)])
    assert opposite_limit(made(evidence, "unrelated-loss:base")) is None


def test_a_claim_without_an_opposite_limit_is_a_mistake_of_the_caller() -> None:
    evidence = world()
    with pytest.raises(ValueError, match="no opposite limit"):
        opposite_limit(made(evidence, "guarantee:published"))


def test_the_arm_of_the_bundle_is_the_ticket(pristine: Bundle) -> None:
    assert pristine.arm(TICKET_ARM)["table_sha256"] == pristine.table_of(pristine.ids)
