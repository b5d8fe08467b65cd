"""Limits from counts: textbook sums, scipy, exact coverage by enumeration."""

from __future__ import annotations

import dataclasses
import itertools
import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from profiles import examples
from scipy.stats import binom, binomtest

from certify.base.errors import CertifyError, InvalidInputError, NothingToDoError, UsageError
from certify.stats import rates
from certify.stats.limits import Limit

DELTA = Fraction(1, 20)
DELTAS = st.fractions(min_value=Fraction(1, 1000), max_value=Fraction(9, 10))
STEP = Fraction(1, 1 << 32)


def at_most(k: int, n: int, p: Fraction) -> Fraction:
    """P(B(n, p) <= k), term by term."""
    return sum((math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1)), Fraction(0))


def probability(outcome: tuple[int, ...], p: Fraction) -> Fraction:
    return p ** sum(outcome) * (1 - p) ** (len(outcome) - sum(outcome))


@st.composite
def counts(draw: st.DrawFn, largest: int = 40) -> tuple[int, int]:
    n = draw(st.integers(1, largest))
    return draw(st.integers(0, n)), n


# --- binomial tails ----------------------------------------------------------------------------------------


@given(n=st.integers(1, 7), p=st.fractions(min_value=0, max_value=1, max_denominator=50))
@settings(max_examples=examples(25))
def test_tails_count_all_outcomes(n: int, p: Fraction) -> None:
    outcomes = [(sum(o), probability(o, p)) for o in itertools.product((0, 1), repeat=n)]
    for k in range(-1, n + 2):
        assert rates.binomial_tail_at_most(k, n, p) == sum(q for s, q in outcomes if s <= k)
        assert rates.binomial_tail_at_least(k, n, p) == sum(q for s, q in outcomes if s >= k)


@pytest.mark.parametrize(
    ("k", "n", "p"), [(3, 100, "1/20"), (970, 1000, "19/20"), (400, 1000, "2/5"), (0, 3000, "1/1000")]
)
def test_tails_against_scipy(k: int, n: int, p: str) -> None:
    assert float(rates.binomial_tail_at_most(k, n, Fraction(p))) == pytest.approx(
        binom.cdf(k, n, float(Fraction(p))), rel=1e-10
    )


def test_tails_refuse_what_is_no_law() -> None:
    for n, p in ((0, Fraction(1, 2)), (3, Fraction(-1, 2)), (3, Fraction(3, 2))):
        with pytest.raises(ValueError, match="binomial distribution"):
            rates.binomial_tail_at_most(0, n, p)


# --- Clopper and Pearson -----------------------------------------------------------------------------------


@given(case=counts(), delta=DELTAS)
@settings(max_examples=examples(60), deadline=None)
def test_limits_are_the_nearest_safe_grid_points(case: tuple[int, int], delta: Fraction) -> None:
    k, n = case
    lower = rates.clopper_pearson(k, n, delta, "lower")[0]
    upper = rates.clopper_pearson(k, n, delta, "upper")[1]
    if k < n:
        assert at_most(k, n, upper) <= delta < at_most(k, n, upper - STEP)
    else:
        assert upper == 1
    if k > 0:
        assert 1 - at_most(k - 1, n, lower) <= delta < 1 - at_most(k - 1, n, lower + STEP)
    else:
        assert lower == 0


@given(case=counts(3000), delta=st.sampled_from([DELTA, Fraction(1, 1000), Fraction(1, 2)]))
@settings(max_examples=examples(25), deadline=None)
def test_limits_against_scipy(case: tuple[int, int], delta: Fraction) -> None:
    k, n = case
    interval = binomtest(k, n).proportion_ci(float(1 - delta), method="exact")
    lower, upper = rates.clopper_pearson(k, n, delta)
    # The grid is 2.4e-10 wide; scipy's own error is a root finder's.
    assert float(lower) == pytest.approx(interval.low, abs=1e-9)
    assert float(upper) == pytest.approx(interval.high, abs=1e-9)


@pytest.mark.parametrize("delta", [DELTA, Fraction(1, 3)])
@pytest.mark.parametrize("n", [1, 2, 7, 12])
def test_coverage_is_exact(n: int, delta: Fraction) -> None:
    both = [rates.clopper_pearson(k, n, delta) for k in range(n + 1)]
    upper = [rates.clopper_pearson(k, n, delta, "upper")[1] for k in range(n + 1)]
    lower = [rates.clopper_pearson(k, n, delta, "lower")[0] for k in range(n + 1)]
    # Coverage jumps where the truth passes a limit: these are the hardest truths.
    hard = {limit + shift for limit in (*upper, *lower) for shift in (-STEP, Fraction(0), STEP)}
    tightest = Fraction(1)
    for p in sorted({Fraction(i, 40) for i in range(41)} | {p for p in hard if 0 <= p <= 1}):
        mass = [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
        assert sum(mass[k] for k in range(n + 1) if both[k][0] <= p <= both[k][1]) >= 1 - delta
        coverage = sum(mass[k] for k in range(n + 1) if p <= upper[k])
        assert coverage >= 1 - delta
        tightest = min(tightest, coverage)
        assert sum(mass[k] for k in range(n + 1) if p >= lower[k]) >= 1 - delta
    assert tightest < 1 - delta + Fraction(1, 10**6), "no slack is left at the hardest truth"


@given(case=counts(), delta=DELTAS)
@settings(max_examples=examples(60), deadline=None)
def test_monotone(case: tuple[int, int], delta: Fraction) -> None:
    k, n = case
    lower, upper = rates.clopper_pearson(k, n, delta)
    assert lower <= Fraction(k, n) or delta > Fraction(1, 2)
    assert lower >= 0
    assert upper <= 1
    if k < n:
        more = rates.clopper_pearson(k + 1, n, delta)
        assert lower < more[0]
        assert upper < more[1]
    safer = rates.clopper_pearson(k, n, delta / 2)
    assert safer[0] <= lower
    assert upper <= safer[1]
    assert rates.clopper_pearson(n - k, n, delta) == (1 - upper, 1 - lower)


@given(case=counts(), a=st.fractions(min_value=Fraction(1, 60), max_value=Fraction(59, 60)), delta=DELTAS)
@settings(max_examples=examples(100), deadline=None)
def test_decisions_agree_with_the_definition_and_the_limits(
    case: tuple[int, int], a: Fraction, delta: Fraction
) -> None:
    k, n = case
    held = rates.rate_at_most(k, n, a, delta)
    refuted = rates.rate_above(k, n, a, delta)
    assert held == (at_most(k, n, a) <= delta)
    assert refuted == (1 - at_most(k - 1, n, a) < delta)
    assert rates.rate_at_least(k, n, a, delta) == (1 - at_most(k - 1, n, a) <= delta)
    # A rounded limit can only be weaker than the decision, and by no more than a step.
    upper, lower = (
        rates.clopper_pearson(k, n, delta, "upper")[1],
        rates.clopper_pearson(k, n, delta, "lower")[0],
    )
    assert held or upper > a
    assert not held or upper < a + STEP
    assert refuted or lower <= a
    assert not refuted or lower > a - STEP


@given(case=counts(), a=st.fractions(min_value=Fraction(1, 20), max_value=Fraction(19, 20)))
@settings(max_examples=examples(40), deadline=None)
def test_decisions_at_equality(case: tuple[int, int], a: Fraction) -> None:
    k, n = case
    below, above = at_most(k, n, a), 1 - at_most(k - 1, n, a)
    if 0 < below < 1:
        assert rates.rate_at_most(k, n, a, below)
        assert not rates.rate_at_most(k, n, a, below * Fraction(10**30 - 1, 10**30))
    if 0 < above < 1:
        assert rates.rate_at_least(k, n, a, above)
        assert not rates.rate_above(k, n, a, above)


def test_clean_runs() -> None:
    assert rates.rate_at_most(0, 59, DELTA, DELTA)
    assert not rates.rate_at_most(0, 58, DELTA, DELTA)
    assert rates.rate_at_most(0, 2995, Fraction(1, 1000), DELTA)
    assert not rates.rate_at_most(0, 2994, Fraction(1, 1000), DELTA)


def test_the_record_of_a_rate() -> None:
    limit = rates.rate_limit(97, 100, DELTA, "lower")
    assert limit.value == rates.clopper_pearson(97, 100, DELTA, "lower")[0]
    assert (limit.side, limit.estimate, limit.n) == ("lower", Fraction(97, 100), 100)
    assert (limit.procedure, limit.assumptions, limit.asymptotic) == ("clopper-pearson/1", ("iid",), False)
    assert rates.rate_limit(97, 100, DELTA, "upper").value > limit.value


# --- means -------------------------------------------------------------------------------------------------


# --- refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("k", "n", "error", "code"),
    [
        (0, 0, NothingToDoError, "NO_UNITS"),
        (-1, 5, InvalidInputError, "COUNT_RANGE"),
        (6, 5, InvalidInputError, "COUNT_RANGE"),
        (0, -1, InvalidInputError, "COUNT_RANGE"),
    ],
)
def test_counts_that_are_refused(k: int, n: int, error: type[CertifyError], code: str) -> None:
    for decide in (rates.rate_at_most, rates.rate_at_least, rates.rate_above):
        with pytest.raises(error) as caught:
            decide(k, n, DELTA, DELTA)
        assert caught.value.code == code
    with pytest.raises(error) as caught:
        rates.clopper_pearson(k, n, DELTA)
    assert caught.value.code == code


@pytest.mark.parametrize("delta", [Fraction(0), Fraction(1), Fraction(-1, 2), Fraction(3, 2), 0.05, 1])
def test_error_probabilities_that_are_refused(delta: Fraction) -> None:
    for call in (
        lambda: rates.clopper_pearson(1, 2, delta),
        lambda: rates.rate_at_most(1, 2, DELTA, delta),
        lambda: rates.rate_above(1, 2, DELTA, delta),
    ):
        with pytest.raises(UsageError):
            call()


def test_other_refusals() -> None:
    for alpha in (Fraction(0), Fraction(1), 0.05):
        for decide in (rates.rate_at_most, rates.rate_above):
            with pytest.raises(UsageError) as caught:
                decide(1, 2, alpha, DELTA)
            assert caught.value.code == "RATE_RANGE"
    with pytest.raises(UsageError):
        rates.clopper_pearson(1, 2, DELTA, "both")


@pytest.mark.parametrize(
    "change",
    [
        {"side": "both"},
        {"n": 0},
        {"assumptions": ()},
        {"assumptions": ("unheard-of",)},
        {"asymptotic": True},
        {"assumptions": ("iid", "asymptotic")},
    ],
)
def test_records_that_are_refused(change: dict[str, object]) -> None:
    good = rates.rate_limit(1, 2, DELTA, "lower")
    fields = {field.name: getattr(good, field.name) for field in dataclasses.fields(good)}
    assert Limit(**fields) == good
    with pytest.raises(ValueError, match=r"limit|assumption"):
        Limit(**fields | change)


# --- enclosed tails: they decide what is not close, and never otherwise than the exact ones --------------


@settings(max_examples=examples(200), deadline=None)
@given(counts(600), st.fractions(min_value=0, max_value=1), DELTAS)
def test_an_enclosure_holds_the_tail_and_decides_as_it_does(
    case: tuple[int, int], p: Fraction, delta: Fraction
) -> None:
    k, n = case
    a, b = p.numerator, p.denominator
    exact = rates.binomial_tail_at_most(k, n, p)
    if 0 < a < b and k * b <= n * a:
        low, high = rates._enclosed(k, n, a, b)
        assert low <= exact <= high
        assert high - low <= exact / 2**90
    assert rates._below(k, n, a, b, delta) in (None, exact < delta)
    if 0 < exact < 1:
        assert rates._below(k, n, a, b, exact) is None, "only the exact tail tells a tie"


def test_limits_of_many_trials_are_those_of_exact_tails() -> None:
    for k, n in ((0, 3000), (700, 3000), (1500, 3000), (2999, 3000)):
        limit = rates._upper(k, n, DELTA)
        tails = [rates._tail(k, n, int(p * 2**32), 2**32) for p in (limit, limit - STEP)]
        assert Fraction(tails[0], 2 ** (32 * n)) <= DELTA < Fraction(tails[1], 2 ** (32 * n))


def test_limits_of_a_large_text_take_no_exact_tail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "_tail", None)
    limit = rates.rate_limit(40_000, 50_000, DELTA, "lower")
    assert float(limit.value) == pytest.approx(0.8 - 1.645 * math.sqrt(0.16 / 50_000), abs=1e-4)
