"""Judges certify.stats.path: masses by scipy, bounds by linear programmes, the theorem by enumeration."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.stats import binom

from certify.base.errors import InvalidInputError, UsageError
from certify.stats.path import PathLaw, decide, decode, encode

LAWS = st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n)))


@pytest.mark.parametrize(
    ("g", "distance", "suffices"), [(4, 0.6677, 0.9755), (2, 0.3709, 0.8338), (1, 0.1964, 0.6855)]
)
def test_table_of_the_theory(g: int, distance: float, suffices: float) -> None:
    law = PathLaw(16, g)
    assert law.distance / law.total == pytest.approx(distance, abs=5e-5)
    enough = next(p for p in range(law.total) if 2 * law.least(p) > law.total)
    assert enough / law.total == pytest.approx(suffices, abs=7e-5)


@given(LAWS)
def test_laws_are_shifted_binomials_and_d_is_kolmogorov(law: tuple[int, int]) -> None:
    n, g = law
    path, points = PathLaw(n, g), np.arange(n + g + 1)
    assert np.allclose(np.array(path.q0) / path.total, binom.pmf(points, n, 0.5))
    assert np.allclose(np.array(path.q1) / path.total, binom.pmf(points - g, n, 0.5))
    gaps = np.abs(binom.cdf(points, n, 0.5) - binom.cdf(points - g, n, 0.5))
    assert path.distance / path.total == pytest.approx(gaps.max())
    mean0, mean1 = (sum(w * t for w, t in zip(q, path.strengths, strict=True)) for q in (path.q0, path.q1))
    assert (mean0, mean1) == (0, path.total)


@given(LAWS, st.fractions(0, 1))
def test_bounds_are_the_optima_of_linear_programmes(law: tuple[int, int], share: Fraction) -> None:
    path = PathLaw(*law)
    mass = int(share * path.total)
    q0, q1 = np.array(path.q0) / path.total, np.array(path.q1) / path.total
    for sign, bound in ((1, path.least(mass)), (-1, path.greatest(mass))):
        best = linprog(sign * q0, A_eq=[q1], b_eq=[mass / path.total], bounds=(0, 1))
        assert best.fun is not None
        assert float(bound / path.total) == pytest.approx(sign * best.fun, abs=1e-7)


@pytest.mark.parametrize(("n", "g"), [(4, 1), (5, 1), (6, 1), (4, 2), (5, 2), (3, 3)])
def test_no_certified_label_is_lost(n: int, g: int) -> None:
    certified = published = 0
    path = PathLaw(n, g)
    for labels in product(range(3), repeat=n + g + 1):
        found = path.decide(labels)
        q1 = [sum(w for w, c in zip(path.q1, labels, strict=True) if c == label) for label in range(3)]
        q0 = [sum(w for w, c in zip(path.q0, labels, strict=True) if c == label) for label in range(3)]
        assert found.label == q1.index(max(q1))
        assert found.kept == (q0.index(max(q0)) == found.label and q0.count(max(q0)) == 1)
        assert found.certified >= found.published
        assert not found.violation
        certified, published = certified + found.certified, published + found.published
    assert certified >= published
    assert (certified > 0) == (path.least(path.total) > path.greatest(0))


def test_a_label_that_q1_never_saw_can_win() -> None:
    # n = g = 3: Q1 sees one label only; three quarters and more of Q0 lie below.
    found = decide((1, 1, 1, 0, 0, 0, 0), 3, 3)
    assert (found.label, found.certified, found.kept) == (0, False, False)
    assert PathLaw(3, 3).greatest(0) == 7


def test_an_interval_has_no_gap() -> None:
    assert decide((1, 0, 0, 2), 2, 1).interval
    assert not decide((0, 1, 0, 0), 2, 1).interval


@given(LAWS, st.data())
def test_labels_are_read_as_written(law: tuple[int, int], data: st.DataObject) -> None:
    size = sum(law) + 1
    labels = tuple(
        data.draw(st.lists(st.integers(0, 3) | st.integers(0, 10**9), min_size=size, max_size=size))
    )
    assert decode(encode(labels), *law) == labels


@pytest.mark.parametrize(
    "text",
    [
        "",
        "4",
        "4*3",
        "4*5",
        "4*0,5*4",
        "4*2,4*2",
        "04*4",
        "4*04",
        "4*4,",
        "-4*4",
        "4*4\n",
        "٤*4",
        " 4*4",
        "4*999",
        "4*9999999",
        "99999999999*4",
        "4*1," * 10**6,
        "4*2;5*2",
    ],
)
def test_hostile_labels_are_refused(text: str) -> None:
    assert decode("4*4", 2, 1) == (4, 4, 4, 4)
    with pytest.raises(InvalidInputError) as caught:
        decode(text, 2, 1)
    assert caught.value.code == "PATH_LABELS"


@pytest.mark.parametrize(("n", "g"), [(0, 0), (4, 0), (4, 5), (4, -1), (257, 1)])
def test_laws_out_of_range_are_refused(n: int, g: int) -> None:
    with pytest.raises(UsageError) as caught:
        decide((0,), n, g)
    assert caught.value.code == "PATH_LAW"


def test_another_number_of_labels_is_refused() -> None:
    with pytest.raises(InvalidInputError):
        decide((0, 0, 0), 2, 1)
