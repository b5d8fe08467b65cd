"""The exhaustive checks: that they pass, that they count what they say, and that planted faults are found.

The oracles here expand counts into samples and go through all pairs, with nothing of ``proofs_checks``.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from fractions import Fraction
from itertools import product
from math import comb
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certify.base.errors import InternalError
from certify.stats import theorem
from proofs_checks.check import Budget, execute
from proofs_checks.theory import enumeration, exact, finite
from proofs_checks.theory.enumeration import Tally, compositions, scan_inequality, scan_line, scan_product
from proofs_checks.theory.finite import Change, law, restricted_strings, rivals, runs, variation

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("item", exact.CHECKS, ids=lambda item: item.name)
def test_the_theory_holds(item: exact.Check) -> None:
    found = execute(item, Budget())
    assert found.outcome == "passed", found.detail
    assert found.cases >= 20


def test_names_are_unique() -> None:
    assert max(Counter(item.name for item in exact.CHECKS).values()) == 1


def test_only_the_standard_library_is_loaded() -> None:
    code = (
        "import sys; before = set(sys.modules)\n"
        "import proofs_checks.theory.exact, proofs_checks.theory.counterexamples\n"
        "import proofs_checks.theory.search, proofs_checks.theory.tightness\n"
        "print(*{m.split('.')[0] for m in set(sys.modules) - before} - set(sys.stdlib_module_names))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(done.stdout.split()) == {"certify", "proofs_checks"}


# --- independent oracles --------------------------------------------------------------------------------


def pairs_of_samples(atoms: int, n: int) -> list[tuple[int, ...]]:
    """All sorted samples of size n on ``atoms`` values, as occupation counts."""
    found = set()
    for sample in product(range(atoms), repeat=n):
        found.add(tuple(sample.count(v) for v in range(atoms)))
    return sorted(found)


def ks_count(x: tuple[int, ...], y: tuple[int, ...]) -> int:
    return max(abs(sum(x[: i + 1]) - sum(y[: i + 1])) for i in range(len(x)))


def brute_line(labels: str, n: int, multiplier: int, strict: bool) -> tuple[int, int]:
    def margin(counts: tuple[int, ...]) -> int:
        votes = {
            label: sum(c for c, own in zip(counts, labels, strict=True) if own == label) for label in labels
        }
        return votes["A"] - max(votes[label] for label in votes if label != "A")

    laws = pairs_of_samples(len(labels), n)
    cases = violations = 0
    for x, y in product(laws, repeat=2):
        need = multiplier * ks_count(x, y)
        if x != y and margin(x) > 0 and (margin(x) > need or (not strict and margin(x) == need)):
            cases += 1
            violations += margin(y) <= 0
    return cases, violations


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("labels", "n", "multiplier"),
    [("AB", 7, 1), ("AB", 7, 2), ("BAB", 6, 2), ("BAB", 6, 4), ("CAB", 6, 1), ("DCAB", 5, 2), ("ABBA", 5, 1)],
)
def test_a_line_scan_counts_what_going_through_all_pairs_counts(
    labels: str, n: int, multiplier: int, strict: bool
) -> None:
    tally = scan_line(labels, n, multiplier, strict=strict)
    assert (tally.cases, tally.violations) == brute_line(labels, n, multiplier, strict)
    assert (tally.witness is None) == (tally.violations == 0)


def brute_square(labels: str, n: int, combine: str) -> tuple[int, int]:
    """Two coordinates with two atoms each; two classes, A and B; masses multiplied out cell by cell."""
    score = [{"A": 1, "B": -1}[label] for label in labels]
    v1 = max(abs(score[0] - score[2]), abs(score[1] - score[3]))
    v2 = max(abs(score[0] - score[1]), abs(score[2] - score[3]))

    def mean(a: int, b: int) -> Fraction:
        p, q = Fraction(a, n), Fraction(b, n)
        cells = (p * q, p * (1 - q), (1 - p) * q, (1 - p) * (1 - q))
        return sum((s * cell for s, cell in zip(score, cells, strict=True)), Fraction(0))

    cases = violations = 0
    for a, b, c, d in product(range(n + 1), repeat=4):
        parts = [v1 * Fraction(abs(a - c), n), v2 * Fraction(abs(b - d), n)]
        bound = sum(parts) if combine == "sum" else max(parts)
        if (a, b) != (c, d) and mean(a, b) > 0 and mean(a, b) > bound:
            cases += 1
            violations += mean(c, d) <= 0
    return cases, violations


@pytest.mark.parametrize("combine", ["sum", "max"])
def test_a_product_scan_counts_what_going_through_all_pairs_counts(combine: finite.Combine) -> None:
    for labels in restricted_strings(4, 2):
        tally = scan_product((2, 2), labels, 4, combine=combine)
        assert (tally.cases, tally.violations) == brute_square(labels, 4, combine), labels


def test_one_coordinate_is_a_product_of_one() -> None:
    for labels in restricted_strings(3, 3):
        # Per-rival constants are never larger than their maximum: the product scan admits no fewer cases.
        line, grid = scan_line(labels, 6, variation(labels)), scan_product((3,), labels, 6)
        assert grid.cases >= line.cases
        assert grid.violations == 0


def test_the_inequality_scan_counts_every_ordered_pair_of_different_laws() -> None:
    tally, guilty = scan_inequality((3,), 4, (0, 1))
    laws = comb(6, 2)
    assert tally.cases == laws * (laws - 1) * 2**3
    assert guilty is None


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=8).flatmap(
        lambda x: st.tuples(st.just(x), st.lists(st.integers(0, 5), min_size=len(x), max_size=len(x)))
    )
)
def test_the_distance_of_samples_is_that_of_their_laws(samples: tuple[list[int], list[int]]) -> None:
    x, y = samples
    counts = [[s.count(v) for v in range(6)] for s in samples]
    expected = Fraction(ks_count(tuple(counts[0]), tuple(counts[1])), len(x))
    assert finite.distance(law(counts[0]), law(counts[1])) == expected
    assert finite.sample_distance([Fraction(v) for v in x], [Fraction(v) for v in y]) == expected


def test_label_strings_are_complete_and_without_repetition() -> None:
    """Each string over four letters with A and a rival is exactly one of them, renamed by arrival."""
    for length in (2, 3, 4, 5):
        arrived = set()
        for word in product("ABCD", repeat=length):
            names: dict[str, str] = {"A": "A"}
            for letter in word:
                names.setdefault(letter, "BCD"[len(names) - 1] if len(names) < 4 else "?")
            if "A" in word and len(set(word)) > 1:
                arrived.add("".join(names[letter] for letter in word))
        listed = list(restricted_strings(length, 4))
        assert len(listed) == len(set(listed))
        assert set(listed) == arrived


def test_compositions_are_complete() -> None:
    for n, parts in ((0, 3), (4, 1), (5, 3), (6, 4)):
        listed = list(compositions(n, parts))
        assert len(listed) == len(set(listed)) == comb(n + parts - 1, parts - 1)
        assert all(sum(counts) == n and min(counts) >= 0 for counts in listed)


# --- V, against the table and against the other implementation -------------------------------------------


@pytest.mark.parametrize(
    ("labels", "v"),
    [
        ("AB", 2),
        ("BA", 2),
        ("ACB", 3),
        ("BCA", 3),
        ("BAB", 4),
        ("DCAB", 4),
        ("DCABE", 4),
        ("BABAB", 8),
        ("BABABAB", 12),
        ("CBABC", 6),
        ("AABBB", 2),
    ],
)
def test_variation_is_what_the_table_says(labels: str, v: int) -> None:
    assert variation(labels) == v
    assert variation(labels[::-1]) == v


def test_both_implementations_of_v_agree() -> None:
    for length in range(2, 8):
        for labels in restricted_strings(length, 4):
            assert variation(labels) == theorem.variation(labels, "A"), labels


@given(st.text("ABCDE", min_size=2, max_size=12))
def test_both_implementations_agree_on_longer_strings(labels: str) -> None:
    if "A" in labels and rivals(labels):
        assert variation(labels) == theorem.variation(labels, "A") == variation(runs(labels))


def test_the_criteria_of_the_package_decide_as_the_models_do() -> None:
    """theorem.additive on (r, h, d, V) is the criterion that the enumeration tried."""
    for labels, n in (("AB", 6), ("BAB", 6), ("ACB", 7)):
        factor = variation(labels)
        laws = [law(counts) for counts in compositions(n, len(labels))]
        for p, q in product(laws, repeat=2):
            change = Change(labels, (p,), (q,))
            h = int(n * change.distances[0])
            r = change.lead_before
            if r >= 0 and p != q:
                assert theorem.additive(r, [h], n, factor) == (change.slack(multiplier=factor) > 0)
                assert theorem.measured_max(r, [h], n) == (change.slack(multiplier=2) > 0)
                if theorem.additive(r, [h], n, factor):
                    assert change.lead_after > 0


# --- planted faults -------------------------------------------------------------------------------------


def outcome(name: str) -> str:
    return execute(next(item for item in exact.CHECKS if item.name == name), Budget()).outcome


def test_non_strict_criterion_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "scan_line", lambda s, n, v, **_: scan_line(s, n, v, strict=False))
    assert outcome("exact.half-lines") == "failed"
    assert outcome("exact.strict") == "failed"


def test_maximum_in_place_of_the_sum_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finite, "joined", lambda deviations, _: max(deviations))
    monkeypatch.setattr(enumeration, "joined", lambda deviations, _: max(deviations))
    assert outcome("exact.two-coordinates") == "failed"
    assert outcome("exact.inequality") == "failed"


def test_a_sum_that_never_fails_its_wrong_variant_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A blind search, for which "max" is the sum in disguise, must not pass."""
    monkeypatch.setattr(finite, "joined", lambda deviations, _: sum(deviations))
    monkeypatch.setattr(enumeration, "joined", lambda deviations, _: sum(deviations))
    assert outcome("exact.two-coordinates") == "failed"


@pytest.mark.parametrize("fault", [-1, 1])
def test_a_wrong_v_is_caught(monkeypatch: pytest.MonkeyPatch, fault: int) -> None:
    monkeypatch.setattr(exact, "variation", lambda labels: variation(labels) + fault)
    assert outcome("exact.runs") == "failed"
    if fault < 0:
        assert outcome("exact.strict") == "failed"


def test_a_distance_that_misses_an_atom_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search reports a violation that the definitions refuse: an internal error, so a failed check."""
    monkeypatch.setattr(finite, "distance", lambda *_: Fraction(1))
    with pytest.raises(InternalError, match="disagree"):
        scan_line("BAB", 6, 2)
    assert outcome("exact.interval") == "failed"


def test_verdicts_of_the_two_halves() -> None:
    good, bad, none = Tally(5, 0), Tally(5, 2), Tally(0, 0)
    names = {"true": "4D", "false": "3D"}
    assert exact.judge(good, bad, **names).outcome == "passed"
    assert exact.judge(bad, bad, **names).outcome == "failed"
    assert exact.judge(good, good, **names).outcome == "failed"
    assert exact.judge(none, bad, **names).outcome == "failed"


@pytest.mark.parametrize(
    ("labels", "n", "multiplier"), [("AAA", 3, 2), ("BC", 3, 2), ("AB", 0, 2), ("AB", 3, 0)]
)
def test_a_scan_without_a_question_is_refused(labels: str, n: int, multiplier: int) -> None:
    with pytest.raises(ValueError, match="needs A, a rival"):
        scan_line(labels, n, multiplier)


def test_a_change_must_be_one() -> None:
    half = law([1, 1])
    for wrong in (
        ("AB", (half,), (law([1, 1, 1]),)),
        ("ABA", (half,), (half,)),
        ("AB", (half,), ((Fraction(1, 2), Fraction(1, 3)),)),
        ("AB", (half,), ((Fraction(3, 2), Fraction(-1, 2)),)),
    ):
        with pytest.raises(ValueError, match=r"atoms|label|masses"):
            Change(*wrong)
