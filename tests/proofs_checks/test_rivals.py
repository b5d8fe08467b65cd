"""Gates that lie: this project's gate keeps its promise where the usual ones do not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from proofs_checks.rivals.gates import DELTA, GATES
from proofs_checks.rivals.situations import MARGIN, SITUATIONS, Attempt
from proofs_checks.rivals.table import releases, table

DRAWS = 60
OURS, USUAL = "certify", "paired t limit"


@pytest.fixture(scope="module")
def found():
    return releases({name: GATES[name] for name in (OURS, USUAL)}, DRAWS, seed=1)


def test_wrong_releases_are_within_the_promise(found):
    for situation in SITUATIONS[:-1]:
        wrong = found[situation.name][OURS]
        assert stats.binom.sf(wrong - 1, DRAWS, float(DELTA)) > 1e-4, situation.name


def test_every_situation_deceives_the_usual_limit(found):
    """Else the situation is no attack, and the gate's success in it says nothing."""
    for situation in SITUATIONS[:-1]:
        wrong = found[situation.name][USUAL]
        assert stats.binom.sf(wrong - 1, DRAWS, float(DELTA)) < 0.01, situation.name


def test_an_equal_candidate_is_released(found):
    """A gate that releases nothing would pass the first test."""
    assert found["an equal one"][OURS] >= 0.6 * DRAWS


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda one: one.name)
def test_the_truth_is_what_the_name_says(situation):
    random = np.random.default_rng(0)
    drawn = [situation.draw(random).candidates.mean(1).mean() for _ in range(600)]
    low, high = stats.norm.interval(0.9999, np.mean(drawn), stats.sem(drawn))
    assert low < situation.truth < high
    assert (situation.truth < -MARGIN) == (situation is not SITUATIONS[-1])


def test_twenty_equal_pairs_show_nothing():
    """Another gate ships here: a sample without variance has a standard error of zero."""
    attempt = Attempt(np.zeros((1, 20), dtype=np.int64), (20,))
    assert not GATES[OURS](attempt)
    assert GATES["percentile bootstrap limit"](attempt)


def test_the_table_has_a_row_for_each_situation(found):
    lines = table(found, DRAWS).splitlines()
    assert len(lines) == 2 + len(SITUATIONS)
    assert all(situation.name in line for situation, line in zip(SITUATIONS, lines[2:], strict=True))
