"""Overlap of tickets: every set of the same size is drawn, or the law is summed in exact fractions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations, product
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from profiles import examples

from certify.base.errors import CertifyError
from certify.selection.rules import published
from lottery.controls.overlap import compare, study


def enumerated(first: set[int], second: set[int], strata: dict[int, int]) -> tuple[Fraction, Fraction]:
    """(mean, upper tail) of the shared rows when ``second`` is drawn anew within each stratum."""
    wanted = Counter(strata[i] for i in second)
    pools = {s: [i for i in strata if strata[i] == s] for s in wanted}
    draws = [
        sum(len(first & set(part)) for part in parts)
        for parts in product(*(combinations(pools[s], n) for s, n in wanted.items()))
    ]
    shared = len(first & second)
    return Fraction(sum(draws), len(draws)), Fraction(sum(d >= shared for d in draws), len(draws))


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[int], list[int], dict[int, int]]:
    pool = draw(st.lists(st.integers(0, 30), min_size=2, max_size=9, unique=True))
    strata = {i: draw(st.integers(0, 2)) for i in pool}
    tickets = [draw(st.lists(st.sampled_from(pool), min_size=1, unique=True)) for _ in range(2)]
    return tickets[0], tickets[1], strata


@settings(deadline=None, max_examples=examples(80))
@given(case=cases())
def test_against_every_possible_draw(case: tuple[list[int], list[int], dict[int, int]]) -> None:
    first, second, strata = case
    column = [strata.get(i, 0) for i in range(31)]
    plain = compare(first, second, strata)
    within = compare(first, second, strata, strata=column)
    for found, law in ((plain, dict.fromkeys(strata, 0)), (within, strata)):
        mean, tail = enumerated(set(first), set(second), law)
        assert found.expected == mean
        assert found.p == pytest.approx(float(tail), rel=1e-9)
        assert 0 < found.p <= 1
    union, both = set(first) | set(second), set(first) & set(second)
    assert plain.shared == within.shared == len(both)
    assert plain.jaccard == Fraction(len(both), len(union))
    assert plain.coefficient == Fraction(len(both), min(len(first), len(second)))
    assert (plain.sizes, plain.candidates) == ((len(first), len(second)), len(strata))


@settings(deadline=None, max_examples=examples(40))
@given(case=cases())
def test_the_order_of_two_tickets_does_not_matter(
    case: tuple[list[int], list[int], dict[int, int]],
) -> None:
    first, second, strata = case
    one, other = compare(first, second, strata), compare(second, first, strata)
    assert (one.jaccard, one.coefficient, one.expected) == (other.jaccard, other.coefficient, other.expected)
    assert one.p == pytest.approx(other.p, rel=1e-9)
    assert compare(first, first, strata).jaccard == 1


@pytest.mark.parametrize(
    ("size", "a", "b", "shared"), [(32000, 18, 18, 12), (6000, 636, 600, 90), (300, 3, 290, 3)]
)
def test_at_real_sizes_against_exact_fractions(size: int, a: int, b: int, shared: int) -> None:
    second = [*range(shared), *range(a, a + b - shared)]
    found = compare(range(a), second, range(size))
    tail = sum(comb(a, x) * comb(size - a, b - x) for x in range(shared, min(a, b) + 1))
    assert found.expected == Fraction(a * b, size)
    assert found.p == pytest.approx(float(Fraction(tail, comb(size, b))), rel=1e-7)


def test_a_p_value_never_vanishes() -> None:
    found = compare(range(3000), range(3000), range(32000))
    assert found.p == np.nextafter(0.0, 1.0)


def test_strata_explain_what_frequency_explains() -> None:
    """Two tickets of the ten frequent rows: astonishing among 1,000 rows, nothing among the frequent ones."""
    strata = [9] * 10 + [1] * 990
    ticket = range(10)
    assert compare(ticket, ticket, range(1000)).p < 1e-20
    assert compare(ticket, ticket, range(1000), strata=strata).p == pytest.approx(1)
    assert compare(ticket, ticket, range(1000), strata=np.array(strata)).expected == 10


def test_the_published_tickets_overlap_as_reported() -> None:
    known = published()
    ticket = known.tickets
    found = compare(ticket["en-de"], ticket["en-pt"], range(known.rows))
    assert round(float(found.jaccard), 2) == 0.88
    assert found.p < 1e-30


def test_seeds_are_the_ceiling() -> None:
    tickets = {
        "ca": {0: [1, 2, 3, 4], 1: [1, 2, 3, 5], 2: [1, 2, 3, 4]},
        "de": {0: [1, 2, 6, 7], 1: [1, 2, 6, 8]},
        "es": {0: [1, 9]},
    }
    found = study(tickets, range(20))
    within = {(c.first, c.second): c.overlap.jaccard for c in found.within}
    assert within == {
        (("ca", 0), ("ca", 1)): Fraction(3, 5),
        (("ca", 0), ("ca", 2)): 1,
        (("ca", 1), ("ca", 2)): Fraction(3, 5),
        (("de", 0), ("de", 1)): Fraction(3, 5),
    }
    # Each language counts once, however many seeds it has.
    assert found.ceiling == (Fraction(11, 15) + Fraction(3, 5)) / 2
    assert len(found.across) == 3 * 2 + 3 + 2
    pairs = {("ca", "de"): Fraction(2, 6), ("ca", "es"): Fraction(1, 5), ("de", "es"): Fraction(1, 5)}
    assert {(c.first[0], c.second[0]): c.overlap.jaccard for c in found.across} == pairs
    assert found.agreement == sum(pairs.values()) / 3
    assert found.ratio == found.agreement / found.ceiling
    single = study({"ca": {0: [1]}, "de": {0: [2]}}, range(5))
    assert (single.ceiling, single.agreement, single.ratio) == (None, 0, None)
    alone = study({"ca": {0: [1], 7: [2]}}, range(5))
    assert (alone.ceiling, alone.agreement, alone.ratio) == (0, None, None)


@pytest.mark.parametrize(
    ("first", "second", "pool", "code"),
    [
        ([], [1], [1, 2], "TICKET_EMPTY"),
        ([1], [], [1, 2], "TICKET_EMPTY"),
        ([1], [1], [], "TICKET_EMPTY"),
        ([1, 1], [1], [1, 2], "ID_DUPLICATE"),
        ([1], [1], [1, 1], "ID_DUPLICATE"),
        ([1], [3], [1, 2], "ID_EXCLUDED"),
    ],
)
def test_refused(first: Sequence[int], second: Sequence[int], pool: Sequence[int], code: str) -> None:
    with pytest.raises(CertifyError) as caught:
        compare(first, second, pool)
    assert caught.value.code == code


def test_a_study_needs_two_tickets() -> None:
    with pytest.raises(CertifyError) as caught:
        study({"ca": {0: [1]}}, range(5))
    assert caught.value.code == "NO_TICKETS"
