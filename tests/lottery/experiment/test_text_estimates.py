"""The descriptive tables of a summary."""

from __future__ import annotations

from fractions import Fraction

import pytest

from lottery.experiment.steps.text_estimates import UnitMeans, termination_rows


@pytest.mark.parametrize(("whole", "shown"), [("0.1", "200 %"), ("0.0999", "-"), ("0", "-"), ("-3", "-")])
def test_no_share_of_next_to_no_gain(whole: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gains = {"whole": Fraction(whole), "first-line": Fraction("-0.1"), "cut": Fraction("-0.1")}
    monkeypatch.setattr(UnitMeans, "mean", lambda _, arm, rule: gains[rule] if arm == "t" else Fraction(0))
    _, ((name, *cells),) = termination_rows({"t": {"termination": UnitMeans().termination("t")}})
    assert (name, cells[3:]) == ("t", [shown, shown])
