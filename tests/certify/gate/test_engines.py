"""Outputs of another engine: quality is judged, decisions are missing, and nobody takes them unawares."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import in_process
from evidence_folders import Bundle, make_bundle

import certify.checker
from certify.base.errors import InvalidInputError
from certify.base.verdict import Outcome, Status
from certify.evidence.load import load
from certify.gate.check import check
from certify.gate.planning import parse_claim, truth_of
from certify.policy.policy import POLICIES

ENGINE = {"engine": "vllm", "version": "0.6.3", "settings": "temperature 0", "weights": {}}
STEPS = ("agreement-rate", "token-agreement", "guarantee", "interval-share", "opportunity")


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("ours") / "tickets", calibrated=False)


@pytest.fixture
def bundle(ours: Bundle, tmp_path: Path) -> Bundle:
    """The same outputs, made by another engine."""
    bundle = by_engine(ours.copy(tmp_path / "engine"))
    bundle.issue()
    return bundle


def by_engine(bundle: Bundle) -> Bundle:
    """Leave out of the records of a bundle whatever another engine does not say."""
    bundle.fields["produced_by"] = copy.deepcopy(ENGINE)
    for record in bundle.records:
        del record["reference"]
        for answer in record["arms"].values():
            for name in ("differs", "tokens", "ended", "length"):
                answer.pop(name, None)
    return bundle


def named(bundle: Bundle) -> dict[str, Any]:
    (report,) = check(bundle.path, policy="release", engine="numpy").tickets
    assert report.examined is not None
    return {claim.name: claim for text in report.examined.texts for claim in text.claims}


def test_quality_is_judged_as_if_the_outputs_were_ours(ours: Bundle, bundle: Bundle) -> None:
    before, after = named(ours), named(bundle)
    assert before.keys() == after.keys()
    for name, claim in after.items():
        if claim.kind in STEPS or claim.kind == "non-interference":
            assert (str(claim.finding), claim.code) == ("missing", "STEPS_NOT_RECORDED"), name
            assert "certify evaluate --evidence" in claim.text
            continue
        if str(claim.finding) == "missing":
            assert claim.code == before[name].code == "COMPARATOR_NOT_EVALUATED"
            continue
        limits = [(one.finding, one.estimate, one.lower, one.upper) for one in (before[name], claim)]
        assert limits[0] == limits[1], name
        assert ("A-ENGINE" in claim.assumptions) == (
            claim.kind.split("-")[0] not in ("unrelated", "data", "template")
        )
        if "A-ENGINE" in claim.assumptions:
            assert "|engine:vllm 0.6.3|" in claim.signature, name


@pytest.mark.parametrize("policy", POLICIES)
def test_policies_take_them_or_not(bundle: Bundle, policy: str) -> None:
    (report,) = check(bundle.path, policy=policy, engine="numpy").tickets
    taken = policy in ("selection", "release", "science")
    assert report.status is (Status.CERTIFIED if taken else Status.INCONCLUSIVE)
    codes = {item.code for item in report.items if item.outcome is Outcome.INCONCLUSIVE}
    assert ("ASSUMPTION_NOT_ACCEPTED" in codes) == (policy == "strict")
    alone = certify.checker.verify(bundle.folder, policies=(policy,))["tiny"][policy]
    assert alone.status == report.status.value


def test_the_first_lines_say_who_made_them(
    ours: Bundle, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "made by vllm 0.6.3"
    words = ["check", bundle.path, "--policy", "release"]
    assert said in " ".join(in_process(words, capsys).out.split()[:80])
    assert said not in " ".join(in_process(["check", ours.path, *words[2:]], capsys).out.split())
    assert b'"A-ENGINE"' in bundle.certificate.read_bytes()
    for one, made in ((ours, False), (bundle, True)):
        for form in ("terminal", "markdown"):
            text = in_process(["check", one.path, *words[2:], "--format", form], capsys).out
            assert ("A-ENGINE" in text, "A-EVIDENCE" in text) == (made, True), "what is taken as given"


def steps(record: Any) -> None:
    record["reference"] = {"tokens": [2], "top": [], "p_a": [10**9], "p_b": [0]}


def no_steps(record: Any) -> None:
    del record["reference"]


PLANTED: dict[str, tuple[bool, Callable[[Any], None]]] = {
    "steps of another engine": (True, steps),
    "decisions of another engine": (True, lambda r: r["arms"]["tiny.transfer"].update(differs=[])),
    "tokens of another engine": (True, lambda r: r["arms"]["base"].update(tokens=[2], length=1)),
    "no steps of ours": (False, no_steps),
    "no end of ours": (False, lambda r: r["arms"]["base"].pop("ended")),
    "no length of ours": (False, lambda r: r["arms"]["top-norm"].pop("length")),
    "an arm left out": (True, lambda r: r["arms"].pop("bos")),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_what_does_not_belong_together_is_refused(ours: Bundle, tmp_path: Path, fault: str) -> None:
    engine, change = PLANTED[fault]
    bundle = ours.copy(tmp_path / "planted")
    if engine:
        by_engine(bundle).issue()
    assert check(bundle.path, engine="numpy").exit_code == 0, "control"
    change(bundle.records[3])
    bundle.forge()
    with pytest.raises(InvalidInputError, match=r"expected|required"):
        load(bundle.translated)
    assert check(bundle.path, engine="numpy").exit_code == 4
    assert certify.checker.verify(bundle.folder)["tiny"]["release"].status == "INVALID"


@pytest.mark.parametrize(
    "made",
    [
        {"engine": "vllm"},
        {"engine": "", "version": "1"},
        {"engine": "vllm", "version": ""},
        {"engine": "vllm", "version": "1", "weights": {"nobody": "0" * 64}},
        {"engine": "vllm", "version": "1", "weights": {"base": "0"}},
        {"engine": "vllm", "version": "1", "path": 1},
    ],
)
def test_what_made_them_is_read_strictly(bundle: Bundle, made: dict[str, Any]) -> None:
    bundle.fields["produced_by"] = made
    bundle.forge()
    with pytest.raises(InvalidInputError):
        load(bundle.translated)
    assert certify.checker.verify(bundle.folder)["tiny"]["release"].status == "INVALID"


def test_plans_take_quality_from_them_and_no_decision(bundle: Bundle) -> None:
    evidence = load(bundle.translated)
    arm = evidence.manifest.arm("tiny.transfer")
    assert truth_of(parse_claim("gain:0"), evidence, arm).value == 70
    for claim in ("agreement:0.9", "token-agreement:0.9", "guarantee:0.05"):
        with pytest.raises(InvalidInputError) as caught:
            truth_of(parse_claim(claim), evidence, arm, width=4)
        assert caught.value.code == "STEPS_NOT_RECORDED"
