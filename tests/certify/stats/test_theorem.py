"""The three criteria and the variation of a decision, against decimals of many digits and by brute force."""

from __future__ import annotations

import decimal
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise, product

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from certify.stats.theorem import (
    above_tau,
    additive,
    critical_margin,
    is_vacuous,
    loss,
    measured_max,
    premise_holds,
    published,
    remaining_margin,
    variation,
)

LEVELS = st.sampled_from([Fraction(text) for text in ("0.05", "0.5", "0.95", "0.001", "0.0000015", "0.999")])
WIDTHS = st.integers(1, 5000)
MARGINS = st.fractions(min_value=-1, max_value=2, max_denominator=10**9)


@st.composite
def counts(draw: st.DrawFn) -> tuple[int, list[int]]:
    """Width and counts of some rows."""
    d = draw(st.integers(1, 400))
    return d, draw(st.lists(st.integers(0, d), max_size=5))


def decimal_of(value: Fraction) -> decimal.Decimal:
    return decimal.Decimal(value.numerator) / decimal.Decimal(value.denominator)


def tau(d: int, alpha: Fraction) -> decimal.Decimal:
    """The published threshold to 80 digits, by the decimal module."""
    return ((2 / decimal_of(alpha)).ln() / d).sqrt()


@pytest.fixture(autouse=True)
def _digits() -> None:
    decimal.getcontext().prec = 80


# --- published -------------------------------------------------------------------------------------------


@given(MARGINS, WIDTHS, LEVELS)
@example(Fraction(60020175, 10**9), 4096, Fraction("0.05"))
@example(Fraction(60020174, 10**9), 4096, Fraction("0.05"))
def test_published_compares_with_twice_tau(r: Fraction, d: int, alpha: Fraction) -> None:
    assert published(r, d, alpha) == (decimal_of(r) > 2 * tau(d, alpha))


@given(st.integers(0, 400), st.integers(1, 400), LEVELS)
def test_a_row_is_above_tau_where_its_distance_is(h: int, d: int, alpha: Fraction) -> None:
    assume(h <= d)
    assert above_tau(h, d, alpha) == (decimal.Decimal(h) / d > tau(d, alpha))


@pytest.mark.parametrize(("alpha", "smallest"), [("0.05", 123), ("0.95", 56)])
def test_golden_counts_above_tau(alpha: str, smallest: int) -> None:
    level = Fraction(alpha)
    assert [above_tau(h, 4096, level) for h in (smallest - 1, smallest)] == [False, True]


def test_a_negative_margin_is_never_certified_although_its_square_is_large() -> None:
    assert published(Fraction(9, 10), 4096, Fraction(1, 20))
    assert not published(Fraction(-9, 10), 4096, Fraction(1, 20))


@given(counts(), LEVELS)
def test_the_premise_is_about_the_largest_count(rows: tuple[int, list[int]], alpha: Fraction) -> None:
    d, h = rows
    assert premise_holds(h, d, alpha) == all(decimal.Decimal(one) / d <= tau(d, alpha) for one in h)


@given(WIDTHS, LEVELS, st.sampled_from([1, 1000, 10**9]))
def test_the_critical_margin_is_the_smallest_certified(d: int, alpha: Fraction, scale: int) -> None:
    found = critical_margin(d, alpha, scale)
    assert published(Fraction(found, scale), d, alpha)
    assert not published(Fraction(found - 1, scale), d, alpha)


# --- measured-max and additive ---------------------------------------------------------------------------


@given(MARGINS, counts(), st.integers(2, 8))
def test_criteria_are_the_stated_inequalities(r: Fraction, rows: tuple[int, list[int]], v: int) -> None:
    d, h = rows
    distances = [Fraction(one, d) for one in h]
    assert measured_max(r, h, d) == (r > 2 * max(distances, default=0))
    assert additive(r, h, d, v) == (r > v * sum(distances))
    assert remaining_margin(r, h, d, v) == r - v * sum(distances)
    assert is_vacuous(h, d, v) == (v * sum(distances) >= 1)
    assert not (is_vacuous(h, d, v) and additive(min(r, Fraction(1)), h, d, v))


@given(MARGINS, counts(), st.integers(2, 8), LEVELS)
def test_what_implies_what(r: Fraction, rows: tuple[int, list[int]], v: int, alpha: Fraction) -> None:
    d, h = rows
    if additive(r, h, d, v):
        assert measured_max(r, h, d)
        assert additive(r, h[1:], d, v), "fewer changed rows cannot hurt"
        assert v == 2 or additive(r, h, d, v - 1)
    if published(r, d, alpha) and premise_holds([*h, 0], d, alpha):
        assert measured_max(r, h, d)


def test_neither_published_nor_additive_implies_the_other() -> None:
    alpha, d = Fraction(1, 20), 4096
    many = [100] * 50  # each below tau, together far too much
    assert premise_holds(many, d, alpha)
    assert published(Fraction(1, 2), d, alpha)
    assert not additive(Fraction(1, 2), many, d)
    assert additive(Fraction(1, 100), [10], d)
    assert not published(Fraction(1, 100), d, alpha)


def test_inequalities_are_strict() -> None:
    assert not measured_max(Fraction(1, 4), [1], 8)
    assert not additive(Fraction(1, 2), [1], 8)
    assert not measured_max(Fraction(0), [], 8)
    assert not additive(Fraction(0), [], 8)
    assert additive(Fraction(1, 10**9), [], 8)
    assert measured_max(Fraction(1, 10**9), [0, 0], 8)


@pytest.mark.parametrize(
    "call",
    [
        lambda: additive(Fraction(1, 2), [9], 8),
        lambda: additive(Fraction(1, 2), [-1], 8),
        lambda: measured_max(Fraction(1, 2), [9], 8),
        lambda: premise_holds([9], 8, Fraction(1, 2)),
        lambda: loss([1], 0),
        lambda: additive(Fraction(1, 2), [1], 8, 1),
        lambda: published(Fraction(1, 2), 8, Fraction(1)),
        lambda: published(Fraction(1, 2), 8, Fraction(0)),
        lambda: published(Fraction(1, 2), 0, Fraction(1, 2)),
    ],
)
def test_impossible_arguments_are_refused(call: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        call()  # type: ignore[operator]


# --- variation -------------------------------------------------------------------------------------------


def variation_by_weights(labels: str, winner: str) -> int:
    """Another way to count: for each c, a step between A and c weighs 2, from A or c to a third label 1."""
    best = 0
    for c in set(labels) - {winner}:
        total = 0
        for one, two in pairwise(labels):
            if one != two:
                total += sum(label in (winner, c) for label in (one, two))
        best = max(best, total)
    return best


@pytest.mark.parametrize(
    ("labels", "v"),
    [
        ("AB", 2),
        ("ACB", 3),
        ("CAB", 3),
        ("DBAC", 4),
        ("DCBAEF", 4),
        ("BAB", 4),
        ("BABAB", 8),
        ("BABABAB", 12),
        ("CBABC", 6),
        ("A", 0),
        ("AAAA", 0),
        ("", 0),
    ],
)
def test_variation_of_the_table(labels: str, v: int) -> None:
    assert variation(labels, "A") == v
    assert variation(labels[::-1], "A") == v


@given(st.text("ABCD", max_size=8))
def test_variation_by_another_count(labels: str) -> None:
    doubled = "".join(label * 2 for label in labels)
    if "A" in labels:
        assert variation(labels, "A") == variation_by_weights(labels, "A")
    assert variation(doubled, "A") == variation(labels, "A")
    assert variation(labels + "A", "A") >= variation(labels, "A")


@given(st.permutations("ABCDE").map("".join), st.lists(st.integers(1, 3), min_size=5, max_size=5))
def test_intervals_never_vary_more_than_the_default(order: str, lengths: list[int]) -> None:
    line = "".join(label * length for label, length in zip(order, lengths, strict=True))
    assert variation(line, "A") <= 4


# --- the theorem itself ----------------------------------------------------------------------------------


def laws(n: int, atoms: int) -> list[tuple[int, ...]]:
    """Every way to put n samples on the atoms of a line."""
    return [counts for counts in product(range(n + 1), repeat=atoms) if sum(counts) == n]


def distance(p: Sequence[int], q: Sequence[int]) -> int:
    """h between two samples, by their definition as cumulative counts."""
    return max(abs(sum(p[:i]) - sum(q[:i])) for i in range(len(p)))


def plane() -> Iterator[tuple[int, int, list[int], int, int]]:
    """Every labelling of a 2 x 2 grid by A, B, C; every two product laws of n = 3 samples a coordinate.

    Yields the margins of A before and after in units of 1/n², the counts h, V and n.
    """
    n, places = 3, list(product(range(2), repeat=2))
    for labels in product("ABC", repeat=4):
        lines = [labels[0] + labels[1], labels[2] + labels[3], labels[0] + labels[2], labels[1] + labels[3]]
        v = max(2, *(variation(line, "A") for line in lines))

        def margin(x: Sequence[int], y: Sequence[int], labels: tuple[str, ...] = labels) -> int:
            weight = dict.fromkeys("ABC", 0)
            for (i, j), label in zip(places, labels, strict=True):
                weight[label] += x[i] * y[j]
            return weight["A"] - max(weight["B"], weight["C"])

        for (x, y), (z, w) in product(product(laws(n, 2), repeat=2), repeat=2):
            yield margin(x, y), margin(z, w), [distance(x, z), distance(y, w)], v, n


def line() -> Iterator[tuple[int, int, list[int], int, int]]:
    """The same for every labelling of a line of three atoms; margins in units of 1/n."""
    n = 6
    for labels in product("ABC", repeat=3):
        v = max(2, variation(labels, "A"))
        for p, q in product(laws(n, 3), repeat=2):
            found = []
            for law in (p, q):
                weight = dict.fromkeys("ABC", 0)
                for label, count in zip(labels, law, strict=True):
                    weight[label] += count
                found.append(weight["A"] - max(weight["B"], weight["C"]))
            yield found[0], found[1], [distance(p, q)], v, n


@pytest.mark.parametrize("world", ["plane", "line"])
def test_an_additive_certificate_is_true_and_weaker_ones_are_not(world: str) -> None:
    cases, power = (plane(), 2) if world == "plane" else (line(), 1)
    certified = false = weaker_false = 0
    for before, after, h, v, n in cases:
        r = Fraction(before, n**power)
        if additive(r, h, n, v):
            certified += 1
            false += Fraction(after, n**power) < remaining_margin(r, h, n, v)
        # In the plane the largest distance alone, on the line the variation of two half-lines.
        weaker = additive(r, [max(h)], n, v) if world == "plane" else additive(r, h, n, 2)
        weaker_false += weaker and after < 0
    assert false == 0
    assert certified > 100, "the criterion must certify something, too"
    assert weaker_false > 0, "this enumeration must be able to refute"


def test_the_maximum_would_not_be_enough() -> None:
    """C5: two coordinates, D = 1/3 each, r = 1 > 2/3, and the prediction is lost all the same."""
    p, q, n = [3, 0], [2, 1], 3
    r = Fraction(1)
    h = [1, 1]
    after = Fraction(q[0] * q[0], n * n)
    assert measured_max(r, h, n)
    assert after < 1 - after
    assert not additive(r, h, n, 2)
    assert p != q


def test_the_published_variation_is_not_enough_for_three_classes() -> None:
    """C8: A C B on a line, counts (7, 2, 2) of 11 become (5, 6, 0)."""
    h = max(abs(7 - 5), abs(9 - 11))
    r = Fraction(7 - 2, 11)
    assert measured_max(r, [h], 11)
    assert additive(r, [h], 11, 2)
    assert variation("ACB", "A") == 3
    assert not additive(r, [h], 11, 3)
