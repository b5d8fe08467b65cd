"""The Hypothesis profile ``long`` goes deeper in every property test, those with numbers of their own too."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from profiles import DEEPER, examples

TESTS = Path(__file__).resolve().parents[1]
PINNED = re.compile(r"settings\([^)]*max_examples=\d")


def test_a_pinned_number_grows_with_the_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPOTHESIS_PROFILE", "ci")
    assert examples(40) == 40
    monkeypatch.delenv("HYPOTHESIS_PROFILE")
    assert examples(40) == 40
    monkeypatch.setenv("HYPOTHESIS_PROFILE", "long")
    assert examples(40) == 40 * DEEPER


def test_no_property_test_pins_its_number_whatever_the_profile() -> None:
    pinned = [
        path.name
        for path in sorted(TESTS.rglob("test_*.py"))
        if path != Path(__file__).resolve() and PINNED.search(path.read_text(encoding="utf-8"))
    ]
    assert pinned == []


@pytest.mark.parametrize("text", ["@settings(max_examples=4)", "settings(deadline=None, max_examples=60)"])
def test_a_pinned_number_is_found(text: str) -> None:
    assert PINNED.search(text)
    assert not PINNED.search(text.replace("4)", "examples(4))").replace("60)", "examples(60))"))
