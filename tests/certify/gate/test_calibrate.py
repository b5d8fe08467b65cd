"""``certify calibrate``: which margin is chosen, what it writes, and what it refuses."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from command import following, in_process
from evidence_folders import TICKET_ARM, UNITS, Bundle, make_bundle, own_steps

import certify
from certify.base.errors import CertifyError
from certify.gate.calibrate import GRID, calibrate
from certify.ticket.schema import read_ticket_file
from proofs_checks.worlds import synthetic


def choice(folder: Path, wrong: int = 33, units: int = UNITS) -> Bundle:
    """A ticket that declares nothing, and choice data: E* differs at margins of .85 in so many units."""
    bundle = make_bundle(folder, issued=False, units=units)
    bundle.edit_ticket(lambda ticket: ticket.update(declared=[]))
    bundle.margin = None
    (bundle.folder / "calibrations" / "tiny.json").unlink()
    for number, record in enumerate(bundle.records):
        p_a, p_b = [995_000_000, 925_000_000, 550_000_000], [5_000_000, 75_000_000, 450_000_000]
        own = own_steps([50, 51, 52], p_a=p_a, p_b=p_b, differs=[[1, 7]] if number < wrong else [])
        record["arms"][TICKET_ARM] |= {"own": own, "length": 3}
    bundle.fields = {"margins": {TICKET_ARM: None}}
    bundle.write_evidence()
    return bundle


def chosen(bundle: Bundle, **options: Any) -> Any:
    return calibrate(bundle.path, bundle.translated, alpha="0.1", engine="numpy", workers=1, **options)


@pytest.mark.parametrize(("wrong", "t"), [(33, "0.86"), (0, "0.01")])
def test_the_lowest_good_margin_is_declared(tmp_path: Path, wrong: int, t: str) -> None:
    bundle = choice(tmp_path, wrong)
    result = chosen(bundle)
    assert (result.chosen, [one.t for one in result.tested]) == (t, list(GRID[: len(result.tested)]))
    assert [one.good for one in result.tested] == [Fraction(one.t) >= Fraction(t) for one in result.tested]
    (ticket,) = read_ticket_file(bundle.path).tickets
    (claim,) = ticket.declared
    record = json.loads(result.record.read_text(encoding="utf-8"))
    about = (claim.comparator, claim.delta, ticket.calibration.t, ticket.calibration.alpha)  # type: ignore[union-attr]
    assert about == ("calibrated", "0.05", t, "0.1")
    digest = json.loads(bundle.translated.read_text(encoding="utf-8"))["text"]["sha256"]
    assert record["text_sha256"] == ticket.calibration.text_sha256 == digest  # type: ignore[union-attr]
    sides = {record[side] for record in bundle.records for side in ("source", "target")}
    assert record["sentences"] == sorted(sides)


def test_too_few_units_declare_nothing(tmp_path: Path) -> None:
    bundle = choice(tmp_path, 0, units=20)
    before = [*bundle.folder.rglob("*.json")], bundle.path.read_bytes()
    result = chosen(bundle)
    assert (result.chosen, len(result.tested)) == (None, 1)
    assert ([*bundle.folder.rglob("*.json")], bundle.path.read_bytes()) == before


def test_a_ticket_is_certified_on_other_text_and_not_on_its_choice(tmp_path: Path) -> None:
    bundle = choice(tmp_path)
    t = chosen(bundle).chosen
    bundle.fields = {"margins": {TICKET_ARM: t}}
    with pytest.raises(CertifyError) as error:
        bundle.issue()
    assert error.value.code == "DATA_OVERLAP"
    for number, record in enumerate(bundle.records):
        record |= {
            side: synthetic.digest(f"{side} of other text {number}")[:16] for side in ("source", "target")
        }
    bundle.issue()
    report = certify.check(bundle.path, policy="release", engine="numpy", workers=1)
    found = {item.name: item.code for item in report.tickets[0].items}
    assert (int(report.exit_code), found["declared.1.guarantee.calibrated"]) == (0, "GUARANTEE_HELD")


def test_what_is_refused(tmp_path: Path) -> None:
    bundle = choice(tmp_path)

    def code(**options: Any) -> str:
        with pytest.raises(CertifyError) as error:
            chosen(bundle, **options)
        return error.value.code

    assert code(delta="1") == "DELTA_RANGE"
    bundle.fields = {}
    for record in bundle.records:
        own = record["arms"][TICKET_ARM].pop("own")
    bundle.write_evidence()
    assert code() == "MARGINS_NOT_EVALUATED"
    for record in bundle.records:
        record["arms"][TICKET_ARM]["own"] = own
    bundle.fields = {"margins": {TICKET_ARM: None}}
    used, bundle.used = bundle.used, None
    bundle.write_evidence()
    assert code() == "USED_NOT_LISTED"
    bundle.used = used
    bundle.write_evidence()
    first = chosen(bundle)
    assert code() == "CALIBRATION_LATE"
    assert chosen(bundle, replace=True) == first


def test_a_ticket_that_was_evaluated_is_late(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    bundle.edit_ticket(lambda ticket: ticket.update(declared=[]))
    with pytest.raises(CertifyError, match="was evaluated already") as error:
        chosen(bundle)
    assert error.value.code == "CALIBRATION_LATE"


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = choice(tmp_path)
    words = ["calibrate", "--ticket", str(bundle.path), "--data", str(bundle.translated), "--alpha"]
    assert in_process([*words, "0.001"], capsys).code == 3
    shown = in_process([*words, "0.1", "--format", "json"], capsys)
    assert (shown.code, json.loads(shown.out)["t"]) == (0, "0.86")
    assert in_process([*words, "0.1"], capsys).code == 2
    again = in_process([*words, "0.1", "--replace"], capsys)
    command = following(again.out)
    assert (command[0], f"{bundle.path}#tiny" in command) == ("evaluate", True)
