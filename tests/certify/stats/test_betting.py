"""Betting: against a second implementation of the written algorithm, and exact error rates by enumeration."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from profiles import examples

from certify.base.errors import CertifyError, InvalidInputError, NothingToDoError, UsageError
from certify.stats import betting
from certify.stats.betting import Design

DELTA = Fraction(1, 20)
DESIGNS: tuple[Design, ...] = ("fixed", "sequential")
STEP = Fraction(1, 1 << 20)

UNITS = st.one_of(
    st.integers(0, 1),
    st.fractions(min_value=0, max_value=1, max_denominator=1000),
    st.integers(0, 1 << 40).map(lambda j: Fraction(j, 1 << 40)),
)
THRESHOLDS = st.one_of(
    st.fractions(min_value=Fraction(1, 100), max_value=Fraction(99, 100)),
    st.sampled_from([Fraction(1, 2), Fraction(19, 20), STEP, 1 - STEP]),
)
DELTAS = st.fractions(min_value=Fraction(1, 1000), max_value=Fraction(9, 10))


# --- a second implementation, in fractions and from the words alone --------------------------------------


def floor_to(x: Fraction, bits: int) -> Fraction:
    return Fraction(math.floor(x * 2**bits), 2**bits)


def interpolated_log2(x: Fraction) -> Fraction:
    exponent = 0
    while x >= 2 ** (exponent + 1):
        exponent += 1
    return exponent + (x - 2**exponent) / 2**exponent


def bet_by_the_words(
    seen: list[Fraction], n: int, delta: Fraction, design: Design, wealth: Fraction
) -> Fraction:
    """The next bet, after the units ``seen``, with so much wealth in the game at the aim."""
    i, k = len(seen) + 1, len(seen)
    squared = sum(x * x for x in seen) - Fraction(sum(seen)) ** 2 / k if k else Fraction(0)
    prior, weight = (Fraction(1, 100), 5) if design == "fixed" else (Fraction(1, 4), 1)
    variance = (weight * prior + squared) / (weight + k)
    goal = math.ceil(2**512 / delta) / Fraction(2**512)
    if design == "sequential":
        ratio = interpolated_log2(1 / delta) / (i * interpolated_log2(Fraction(i + 1)))
    elif 0 < wealth < goal:
        ratio = interpolated_log2(goal / wealth) / (n - i + 1)
    else:
        ratio = interpolated_log2(1 / delta) / n
    square = 2 * Fraction(45426, 65536) * ratio / variance
    return Fraction(math.isqrt(math.floor(square * 2**40)), 2**20)


def wealth_by_the_words(
    values: list[Fraction],
    m: Fraction,
    delta: Fraction,
    design: Design,
    *,
    aim: Fraction | None = None,
    peek: bool = False,
) -> Iterator[Fraction]:
    """Wealth after each unit. ``peek`` plants the fault of betting on a unit that was already seen."""
    units = [floor_to(Fraction(value), 32) for value in values]
    aim = m if aim is None else aim
    wealth = {m: Fraction(1), aim: Fraction(1)}
    for i, unit in enumerate(units):
        bet = bet_by_the_words(units[:i], len(units), delta, design, wealth[aim])
        if peek and unit < Fraction(1, 2):
            bet = Fraction(0)
        for at in wealth:
            factor = 1 + min(bet, Fraction(19, 20) / at) * (unit - at)
            wealth[at] = floor_to(wealth[at] * factor, 512)
        yield wealth[m]


def exceeds(
    values: list[Fraction], m: Fraction, delta: Fraction, design: Design, aim: Fraction = Fraction(1, 2)
) -> bool:
    """Step 5 with bets that are tuned to another threshold."""
    return any(wealth >= 1 / delta for wealth in wealth_by_the_words(values, m, delta, design, aim=aim))


@given(
    values=st.lists(UNITS, min_size=1, max_size=12),
    m=THRESHOLDS,
    delta=DELTAS,
    design=st.sampled_from(DESIGNS),
)
@settings(max_examples=examples(80), deadline=None)
def test_wealth_is_the_same_to_the_last_bit(
    values: list[Fraction], m: Fraction, delta: Fraction, design: Design
) -> None:
    path = list(wealth_by_the_words(values, m, delta, design))
    assert betting.betting_p_value(values, m, delta, design) == 1 / max(1, *path)
    wins = [i for i, wealth in enumerate(path, 1) if wealth >= 1 / delta]
    assert betting.decided_after(values, m, delta, design) == (wins[0] if wins else None)
    assert betting.betting_exceeds(values, m, delta, design) is bool(wins)


@pytest.mark.parametrize("design", DESIGNS)
def test_a_long_run_is_the_same_too(design: Design) -> None:
    generator = random.Random(3)
    values = [Fraction(generator.randrange(90, 101), 100) for _ in range(150)]
    path = list(wealth_by_the_words(values, Fraction(7, 8), DELTA, design))
    p = betting.betting_p_value(values, Fraction(7, 8), DELTA, design)
    assert p == 1 / max(1, *path)
    assert p < Fraction(1, 1000)


# --- the error probability, exactly ----------------------------------------------------------------------

Law = Callable[[tuple[Fraction, ...]], list[tuple[Fraction, Fraction]]]
"""Past units -> (value, probability) of the next."""


def bernoulli(p: Fraction) -> Law:
    return lambda _: [(Fraction(0), 1 - p), (Fraction(1), p)]


def three_points(_: tuple[Fraction, ...]) -> list[tuple[Fraction, Fraction]]:
    return [(Fraction(0), Fraction(1, 4)), (Fraction(1, 2), Fraction(1, 4)), (Fraction(1), Fraction(1, 2))]


def skewed(_: tuple[Fraction, ...]) -> list[tuple[Fraction, Fraction]]:
    return [(Fraction(0), Fraction(1, 8)), (Fraction(15, 16), Fraction(7, 8))]


def dependent(past: tuple[Fraction, ...]) -> list[tuple[Fraction, Fraction]]:
    """The spread depends on what came before, the conditional mean is always 1/2."""
    half = Fraction(1, 2)
    if past and past[-1] > half:
        return [(Fraction(0), half), (Fraction(1), half)]
    return [(Fraction(1, 4), half), (Fraction(3, 4), half)]


def paths(law: Law, n: int) -> Iterator[tuple[tuple[Fraction, ...], Fraction]]:
    for choice in itertools.product(range(len(law(()))), repeat=n):
        past: tuple[Fraction, ...] = ()
        mass = Fraction(1)
        for index in choice:
            value, probability = law(past)[index]
            past, mass = (*past, value), mass * probability
        yield past, mass


CASES = {
    "fair coin": (bernoulli(Fraction(1, 2)), Fraction(1, 2), 10),
    "rare": (bernoulli(Fraction(1, 10)), Fraction(1, 10), 8),
    "common": (bernoulli(Fraction(4, 5)), Fraction(4, 5), 8),
    "three points": (three_points, Fraction(5, 8), 6),
    "skewed": (skewed, Fraction(105, 128), 8),
    "dependent": (dependent, Fraction(1, 2), 9),
}


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("case", CASES)
def test_false_decisions_have_at_most_the_stated_probability(case: str, design: Design) -> None:
    law, mean, n = CASES[case]
    total = {delta: Fraction(0) for delta in (Fraction(1, 2), Fraction(1, 4), Fraction(1, 10))}
    for values, mass in paths(law, n):
        for delta in total:
            total[delta] += mass * betting.betting_exceeds(values, mean, delta, design)
    assert all(wrong <= delta for delta, wrong in total.items())
    assert total[Fraction(1, 2)] > 0, "never deciding would pass this test too"


def test_the_enumeration_sees_a_bet_that_peeks() -> None:
    mean, delta = Fraction(1, 2), Fraction(1, 4)
    wrong = sum(
        mass
        for values, mass in paths(bernoulli(mean), 6)
        if max(wealth_by_the_words(list(values), mean, delta, "fixed", peek=True)) >= 1 / delta
    )
    assert wrong > delta


@pytest.mark.parametrize("design", DESIGNS)
def test_lower_limits_cover(design: Design) -> None:
    delta = Fraction(1, 4)
    limits = {
        values: betting.betting_lower(values, delta, design).value
        for values in itertools.product((0, 1), repeat=9)
    }
    for p in (Fraction(i, 20) for i in range(1, 20)):
        missed = sum(p ** sum(v) * (1 - p) ** (9 - sum(v)) for v, limit in limits.items() if limit >= p)
        assert missed <= delta
    assert max(limits.values()) > Fraction(3, 4)


# --- limits and monotonicity -----------------------------------------------------------------------------


@given(
    values=st.lists(UNITS, min_size=1, max_size=40),
    delta=DELTAS,
    design=st.sampled_from(DESIGNS),
    m=THRESHOLDS,
    aim=THRESHOLDS,
)
@settings(max_examples=examples(40), deadline=None)
def test_the_limit_separates_the_thresholds(
    values: list[Fraction], delta: Fraction, design: Design, m: Fraction, aim: Fraction
) -> None:
    limit = betting.betting_lower(values, delta, design, aim=aim)
    assert limit.value.denominator <= 1 << 20
    assert limit.value + STEP == 1 or not exceeds(values, limit.value + STEP, delta, design, aim)
    assert limit.value == 0 or exceeds(values, limit.value, delta, design, aim)
    if m <= limit.value:
        assert exceeds(values, m, delta, design, aim)
    if m >= limit.value + STEP:
        assert not exceeds(values, m, delta, design, aim)
    # At the aim itself the limit says what the decision there says.
    if betting.betting_exceeds(values, aim, delta, design):
        assert limit.value > aim - STEP
    else:
        assert limit.value < aim
    assert 0 <= Fraction(sum(values)) / len(values) - limit.estimate < Fraction(1, 1 << 32)
    assert (limit.side, limit.n, limit.procedure) == ("lower", len(values), "betting/2")
    assert limit.assumptions == ("constant-conditional-mean",)


@given(
    values=st.lists(UNITS, min_size=1, max_size=15),
    delta=DELTAS,
    design=st.sampled_from(DESIGNS),
    aim=THRESHOLDS,
    pair=st.tuples(THRESHOLDS, THRESHOLDS),
)
@settings(max_examples=examples(50), deadline=None)
def test_wealth_never_rises_with_the_threshold(
    values: list[Fraction], delta: Fraction, design: Design, aim: Fraction, pair: tuple[Fraction, Fraction]
) -> None:
    low, high = (wealth_by_the_words(values, m, delta, design, aim=aim) for m in sorted(pair))
    assert all(more >= less for more, less in zip(low, high, strict=True))


@given(values=st.lists(UNITS, min_size=1, max_size=25), delta=DELTAS, design=st.sampled_from(DESIGNS))
@settings(max_examples=examples(40), deadline=None)
def test_the_upper_limit_mirrors_the_lower(values: list[Fraction], delta: Fraction, design: Design) -> None:
    upper = betting.betting_upper(values, delta, design)
    mirrored = betting.betting_lower([1 - Fraction(value) for value in values], delta, design)
    assert upper.value == 1 - mirrored.value
    assert upper.side == "upper"
    assert 0 <= upper.estimate - Fraction(sum(values)) / len(values) < Fraction(1, 1 << 32)


def test_a_sequential_decision_stands_when_more_units_come() -> None:
    values = [1] * 90 + [0] * 200
    count = betting.decided_after(values, Fraction(19, 20), DELTA, "sequential")
    assert count is not None
    for seen in (count, count + 1, 100, 290):
        assert betting.decided_after(values[:seen], Fraction(19, 20), DELTA, "sequential") == count
    assert betting.decided_after(values[: count - 1], Fraction(19, 20), DELTA, "sequential") is None


def test_wealth_that_meets_the_goal_exactly() -> None:
    # The largest bet on one unit of 1 multiplies wealth by 1/20 + 19/(20 m): by 2 at m = 19/39.
    assert betting.betting_exceeds([1], Fraction(19, 39), Fraction(1, 2), "fixed")
    assert not betting.betting_exceeds([1], Fraction(19, 39) + Fraction(1, 10**40), Fraction(1, 2), "fixed")
    # At m = 57/137 by 7/3. 2^512 * 7/3 is no integer; rounded down it stays below the goal of delta = 3/7.
    assert not betting.betting_exceeds([1], Fraction(57, 137), Fraction(3, 7), "fixed")
    assert betting.betting_exceeds([1], Fraction(57, 137) - Fraction(1, 10**40), Fraction(3, 7), "fixed")


def test_a_unit_is_rounded_down() -> None:
    tiny = Fraction(1, 1 << 33)
    values = [Fraction(3, 4), Fraction(1, 2)] * 20
    above = [value + tiny for value in values]
    below = [value - tiny for value in values]
    for design in DESIGNS:
        p = betting.betting_p_value(values, Fraction(1, 2), DELTA, design)
        assert betting.betting_p_value(above, Fraction(1, 2), DELTA, design) == p
        assert betting.betting_p_value(below, Fraction(1, 2), DELTA, design) > p


# --- power: a certifier that never certifies fails too ---------------------------------------------------


@pytest.mark.parametrize("design", DESIGNS)
def test_perfect_agreement_is_decided_soon(design: Design) -> None:
    # ln 20 / ln(1 + (19/20)(1/19)) = 61.4 units at the largest bet; an exact count needs 59.
    assert betting.decided_after([1] * 100, Fraction(19, 20), DELTA, design) in range(62, 90)
    assert betting.betting_lower([1] * 2000, DELTA, design).value > Fraction(997, 1000)


@pytest.mark.parametrize("design", DESIGNS)
def test_limits_of_noisy_data_are_near_the_normal_one(design: Design) -> None:
    generator = random.Random(1)
    values = [Fraction(generator.randrange(0, 101), 100) for _ in range(2000)]
    mean = sum(values) / len(values)
    normal = 1.645 * math.sqrt(1 / 12 / len(values))
    slack = {"fixed": 1.7, "sequential": 2.6}[design] * normal
    assert float(mean) - slack < betting.betting_lower(values, DELTA, design).value < mean


# --- paired differences ----------------------------------------------------------------------------------


@given(
    differences=st.lists(
        st.fractions(min_value=-100, max_value=100, max_denominator=997), min_size=1, max_size=30
    ),
    copies=st.integers(1, 5),
    margin=st.fractions(min_value=-99, max_value=99, max_denominator=50),
    design=st.sampled_from(DESIGNS),
)
@settings(max_examples=examples(30), deadline=None)
def test_noninferiority_is_betting_on_rescaled_differences(
    differences: list[Fraction], copies: int, margin: Fraction, design: Design
) -> None:
    differences = differences * copies
    units = [(difference + 100) / 200 for difference in differences]
    shown = betting.noninferior(differences, margin, DELTA, design)
    assert shown == betting.betting_exceeds(units, (100 - margin) / 200, DELTA, design)
    limit = betting.difference_lower(differences, DELTA, design, aim=-margin)
    rescaled = betting.betting_lower(units, DELTA, design, aim=(100 - margin) / 200)
    assert limit.value == 200 * rescaled.value - 100
    assert abs(limit.estimate - sum(differences) / len(differences)) < Fraction(1, 10**7)
    if limit.value >= -margin:
        assert shown
    if limit.value <= -margin - 200 * STEP:
        assert not shown


def test_identical_outputs_are_not_inferior_and_show_no_gain() -> None:
    same = [0] * 600
    for design in DESIGNS:
        assert betting.noninferior(same, Fraction(1), DELTA, design)
        assert not betting.noninferior(same, Fraction(0), DELTA, design)
        assert -1 < betting.difference_lower(same, DELTA, design).value < 0
        assert betting.difference_lower([-100], DELTA, design).value == -100


def test_another_scale() -> None:
    falls = [Fraction(1, 100), Fraction(-1, 50)] * 200
    units = [Fraction(1, 2) + fall / 4 for fall in falls]
    assert betting.noninferior(falls, Fraction(1, 10), DELTA, "fixed", scale=4) == betting.betting_exceeds(
        units, Fraction(1, 2) - Fraction(1, 40), DELTA, "fixed"
    )


# --- the logarithm that tunes the bets, refusals ---------------------------------------------------------


@given(x=st.fractions(min_value=1, max_value=10**9))
def test_plog_is_a_logarithm_from_below(x: Fraction) -> None:
    assert -1e-9 < math.log2(x) - float(betting.plog(x)) < 0.0861
    assert betting.plog(x) == interpolated_log2(x)
    assert betting.plog(2 * x) == betting.plog(x) + 1


@pytest.mark.parametrize(
    ("values", "error", "code"),
    [
        ([], NothingToDoError, "NO_UNITS"),
        ([0.5], InvalidInputError, "UNIT_TYPE"),
        ([float("nan")], InvalidInputError, "UNIT_TYPE"),
        ([True], InvalidInputError, "UNIT_TYPE"),
        ([Fraction(101)], InvalidInputError, "UNIT_RANGE"),
        ([Fraction(-101)], InvalidInputError, "UNIT_RANGE"),
    ],
)
def test_units_that_are_refused(values: list[Fraction], error: type[CertifyError], code: str) -> None:
    half = Fraction(1, 2)
    for call in (
        lambda: betting.betting_exceeds(values, half, DELTA, "fixed"),
        lambda: betting.betting_p_value(values, half, DELTA, "fixed"),
        lambda: betting.betting_lower(values, DELTA, "fixed"),
        lambda: betting.betting_upper(values, DELTA, "fixed"),
        lambda: betting.noninferior(values, half, DELTA, "fixed"),
        lambda: betting.difference_lower(values, DELTA, "fixed"),
    ):
        with pytest.raises(error) as caught:
            call()
        assert caught.value.code == code


@pytest.mark.parametrize(
    ("code", "call"),
    [
        ("MEAN_RANGE", lambda: betting.betting_exceeds([1], Fraction(0), DELTA, "fixed")),
        ("MEAN_RANGE", lambda: betting.betting_exceeds([1], Fraction(1), DELTA, "fixed")),
        ("MEAN_RANGE", lambda: betting.betting_exceeds([1], 0.5, DELTA, "fixed")),
        ("DELTA_RANGE", lambda: betting.betting_exceeds([1], Fraction(1, 2), Fraction(1), "fixed")),
        ("DELTA_TYPE", lambda: betting.betting_exceeds([1], Fraction(1, 2), 0.05, "fixed")),
        ("DESIGN_UNKNOWN", lambda: betting.betting_exceeds([1], Fraction(1, 2), DELTA, "anytime")),
        ("DELTA_RANGE", lambda: betting.betting_lower([1], Fraction(0), "fixed")),
        ("MEAN_RANGE", lambda: betting.noninferior([1], Fraction(100), DELTA, "fixed")),
        ("MEAN_RANGE", lambda: betting.noninferior([1], Fraction(-100), DELTA, "fixed")),
        ("MEAN_RANGE", lambda: betting.betting_lower([1], DELTA, "fixed", aim=Fraction(1))),
        ("MEAN_RANGE", lambda: betting.difference_lower([0], DELTA, "fixed", aim=Fraction(100))),
        ("SCALE_RANGE", lambda: betting.noninferior([0], Fraction(0), DELTA, "fixed", scale=0)),
    ],
)
def test_settings_that_are_refused(code: str, call: Callable[[], object]) -> None:
    with pytest.raises(UsageError) as caught:
        call()
    assert caught.value.code == code


# --- the search for a limit, against playing every game in integers --------------------------------------


def lower_in_integers(units: list[int], delta: Fraction, design: Design, aim: Fraction) -> Fraction:
    """The limit as it was found before floats were asked: every threshold of the bisection is played."""
    bets, goal = betting._bets(units, delta, design, aim), betting._goal(delta)
    low, high = 0, 1 << 20
    while high - low > 1:
        middle = (low + high) // 2
        if betting._first_win(units, bets, Fraction(middle, 1 << 20), goal) is None:
            high = middle
        else:
            low = middle
    return Fraction(low, 1 << 20)


GRIDDED = st.one_of(
    st.lists(st.integers(0, 1 << 32), min_size=1, max_size=300),
    st.lists(st.sampled_from([0, 1, 1 << 31, (1 << 32) - 1, 1 << 32]), min_size=1, max_size=300),
    st.builds(lambda unit, n: [unit] * n, st.integers(0, 1 << 32), st.integers(1, 2000)),
)


@settings(max_examples=examples(60), deadline=None)
@given(GRIDDED, st.one_of(DELTAS, st.sampled_from([Fraction(1, 10**30), Fraction(1, 10**400)])), THRESHOLDS)
def test_limits_are_those_of_integers_to_the_last_bit(
    units: list[int], delta: Fraction, aim: Fraction
) -> None:
    for design in DESIGNS:
        index = betting._lower_index(units, delta, design, aim, None)
        assert index * STEP == lower_in_integers(units, delta, design, aim)


@settings(max_examples=examples(60), deadline=None)
@given(GRIDDED, DELTAS, st.integers(1, (1 << 20) - 1), THRESHOLDS)
def test_floats_say_nothing_false(units: list[int], delta: Fraction, j: int, aim: Fraction) -> None:
    m = Fraction(j, 1 << 20)
    for design in DESIGNS:
        bets, goal = betting._bets(units, delta, design, aim), betting._goal(delta)
        said = betting._Sketch(units, bets, goal).wins(m)
        assert said in (None, betting._first_win(units, bets, m, goal) is not None)


def test_floats_abstain_where_rounding_decides() -> None:
    """A goal that the wealth meets exactly, or misses by the last bit; and a wealth that is all but lost."""
    units, m, delta = [1 << 32] * 40, Fraction(1, 2), Fraction(1, 20)
    bets = betting._bets(units, delta, "fixed", m)
    last = list(betting._wealth(units, bets, m))[-1]
    for goal in (last, last + 1):
        assert betting._Sketch(units, bets, goal).wins(m) is None
        assert (betting._first_win(units, bets, m, goal) is None) == (goal > last)
    # Wealth that fell below one of its units is lost for good, though a product of floats would recover.
    fallen = [0] * 400 + [1 << 32] * 4000
    large = [3 << 19] * len(fallen)
    goal = betting._goal(delta)
    assert betting._first_win(fallen, large, m, goal) is None
    assert betting._Sketch(fallen, large, goal).wins(m) is None
