"""Corrections for many tests: against textbook loops over Fractions, scipy, and their own laws."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

import numpy as np
import oracles_ks as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from profiles import examples
from scipy.stats import false_discovery_control

from certify.base.errors import UsageError
from certify.base.records import Correction, Method
from certify.scan.multiplicity import harmonic, rejected
from certify.scan.smirnov import p_exact, p_values

CORRECTIONS: tuple[Correction, ...] = ("none", "bonferroni", "holm", "bh", "by")
METHODS: tuple[Method, ...] = ("exact", "asymptotic")
ALPHAS = st.one_of(
    st.sampled_from([Fraction(1, 20), Fraction(1, 2), Fraction(19, 20), Fraction(1, 1000)]),
    st.fractions(min_value=Fraction(1, 10**9), max_value=Fraction(999, 1000)),
)


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[int], int]:
    """Counts of some tests, often equal and often extreme, and n."""
    n = draw(st.integers(1, 30))
    values = draw(st.lists(st.integers(0, n), min_size=1, max_size=5))
    return draw(st.lists(st.sampled_from(values), min_size=1, max_size=25)), n


def p_of(h: list[int], n: int, method: Method) -> list[Fraction]:
    law = oracle.p_by_formula if method == "exact" else oracle.p_asymptotic
    return [law(value, n) for value in h]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("correction", CORRECTIONS)
@given(problem=problems(), alpha=ALPHAS)
@settings(deadline=None, max_examples=examples(60))
def test_textbook_procedures(
    correction: Correction, method: Method, problem: tuple[list[int], int], alpha: Fraction
) -> None:
    h, n = problem
    expected = oracle.rejections(p_of(h, n, method), alpha, correction)
    assert rejected(np.array(h), n, alpha, correction, method).tolist() == expected


@pytest.mark.parametrize("correction", CORRECTIONS)
@given(problem=problems(), data=st.data())
@settings(deadline=None, max_examples=examples(60))
def test_levels_that_a_p_value_meets_exactly(
    correction: Correction, problem: tuple[list[int], int], data: st.DataObject
) -> None:
    # The level at which some p-value meets some threshold with equality: floats would toss a coin.
    h, n = problem
    p, m = p_of(h, n, "exact"), len(h)
    k = data.draw(st.integers(1, m))
    factor = {"none": Fraction(1), "bonferroni": Fraction(m), "holm": Fraction(k)}.get(
        correction, Fraction(m, k)
    )
    if correction == "by":
        factor *= sum(Fraction(1, i) for i in range(1, m + 1))
    alpha = data.draw(st.sampled_from(p)) * factor
    if alpha < 1:
        for level in (alpha, alpha * (1 - Fraction(1, 10**60))):
            assert rejected(np.array(h), n, level, correction).tolist() == oracle.rejections(
                p, level, correction
            )


def _holm_without_stop(p: list[Fraction], alpha: Fraction) -> list[bool]:
    order = sorted(range(len(p)), key=lambda i: p[i])
    rank = {i: j for j, i in enumerate(order)}
    return [p[i] <= alpha / (len(p) - rank[i]) for i in range(len(p))]


def _bh_that_stops_early(p: list[Fraction], alpha: Fraction) -> list[bool]:
    order = sorted(range(len(p)), key=lambda i: p[i])
    result = [False] * len(p)
    for k, i in enumerate(order, start=1):
        if p[i] > alpha * k / len(p):
            break
        result[i] = True
    return result


@pytest.mark.parametrize(
    ("correction", "fault"), [("holm", _holm_without_stop), ("bh", _bh_that_stops_early)]
)
def test_the_judge_catches_planted_faults(
    correction: Correction, fault: Callable[[list[Fraction], Fraction], list[bool]]
) -> None:
    generator = np.random.default_rng(3)
    caught = False
    for _ in range(400):
        n = 20
        h, alpha = generator.integers(4, 14, 12), Fraction(int(generator.integers(1, 60)), 100)
        p = p_of(h.tolist(), n, "exact")
        expected = oracle.rejections(p, alpha, correction)
        assert rejected(h, n, alpha, correction).tolist() == expected
        caught |= fault(p, alpha) != expected
    assert caught


@pytest.mark.parametrize("correction", ["bh", "by"])
def test_scipy_agrees(correction: Correction) -> None:
    generator = np.random.default_rng(11)
    for _ in range(40):
        h = generator.integers(0, 60, 300)
        p, _ = p_values(400)
        adjusted = false_discovery_control(p[h], method=correction)
        for alpha in ("0.05", "0.37", "0.9"):
            clear = np.abs(adjusted - float(alpha)) > 1e-9
            found = rejected(h, 400, alpha, correction)
            assert np.array_equal(found[clear], adjusted[clear] <= float(alpha))


@given(problem=problems(), alphas=st.tuples(ALPHAS, ALPHAS), method=st.sampled_from(METHODS))
@settings(deadline=None, max_examples=examples(60))
def test_nested_in_alpha_and_dominance(
    problem: tuple[list[int], int], alphas: tuple[Fraction, Fraction], method: Method
) -> None:
    h, n = np.array(problem[0]), problem[1]
    small, large = ({c: rejected(h, n, a, c, method) for c in CORRECTIONS} for a in sorted(alphas))
    for correction in CORRECTIONS:
        assert not np.any(small[correction] & ~large[correction])
    for inner, outer in (*pairwise(("bonferroni", "holm", "bh", "none")), ("by", "bh")):
        assert not np.any(small[inner] & ~small[outer])


@pytest.mark.parametrize("correction", CORRECTIONS)
@given(problem=problems(), alpha=ALPHAS, data=st.data())
@settings(deadline=None, max_examples=examples(30))
def test_order_does_not_matter_and_equals_are_treated_equally(
    correction: Correction, problem: tuple[list[int], int], alpha: Fraction, data: st.DataObject
) -> None:
    h, n = np.array(problem[0]), problem[1]
    found = rejected(h, n, alpha, correction)
    order = np.array(data.draw(st.permutations(range(h.size))), dtype=np.intp)
    assert np.array_equal(rejected(h[order], n, alpha, correction), found[order])
    for value in np.unique(h):
        assert len(set(found[h == value].tolist())) == 1


def test_a_whole_vocabulary() -> None:
    h = np.random.default_rng(5).integers(0, 400, 32_000)
    sizes = {c: int(rejected(h, 4096, "0.05", c).sum()) for c in CORRECTIONS}
    assert sizes["none"] == int((h >= 123).sum())
    assert sizes["bonferroni"] == int((h >= 240).sum())  # theory §2: .05 / 32000
    assert sizes["bonferroni"] <= sizes["holm"] <= sizes["bh"] <= sizes["none"]
    assert sizes["by"] <= sizes["bh"]


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_no_tests_and_no_evidence(correction: Correction) -> None:
    assert rejected(np.array([], dtype=np.int32), 10, "0.05", correction).tolist() == []
    assert not rejected(np.zeros(50, dtype=np.int32), 10, "0.99", correction).any()


@pytest.mark.parametrize("m", [1, 2, 3, 10, 100])
def test_harmonic_numbers(m: int) -> None:
    assert harmonic(m) == sum(Fraction(1, i) for i in range(1, m + 1))


def test_benjamini_yekutieli_at_an_exact_tie() -> None:
    # Three equal p-values of alpha / (1 + 1/2 + 1/3): no binary fraction of the sum can decide it.
    h = np.array([9, 9, 9])
    alpha = p_exact(9, 20) * Fraction(11, 6)
    assert rejected(h, 20, alpha, "by").all()
    assert not rejected(h, 20, alpha - Fraction(1, 10**45), "by").any()


def test_bad_input() -> None:
    good = np.array([1, 2])
    for alpha, correction, method, code in (
        ("1.5", "none", "exact", "ALPHA_RANGE"),
        ("x", "none", "exact", "ALPHA_MALFORMED"),
        ("0.05", "sidak", "exact", "CORRECTION_UNKNOWN"),
        ("0.05", "bh", "guess", "METHOD_UNKNOWN"),
    ):
        with pytest.raises(UsageError) as caught:
            rejected(good, 5, alpha, correction, method)  # type: ignore[arg-type]
        assert caught.value.code == code
    for h in (np.array([6]), np.array([-1]), np.array([0.5]), np.array([[1]])):
        with pytest.raises(ValueError, match="h must"):
            rejected(h, 5, "0.05")
