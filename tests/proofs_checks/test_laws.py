"""The judges of laws and limits: each passes on the real code and catches a planted fault."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from certify.scan.smirnov import p_exact, p_values, rejects, threshold
from certify.stats.rates import clopper_pearson
from proofs_checks import check as records
from proofs_checks.check import Budget
from proofs_checks.numbers import dominance, laws, rates

pytest.importorskip("flint", reason="needs the extra proofs")


@pytest.mark.parametrize("item", laws.CHECKS, ids=lambda item: item.name)
def test_every_check_passes(item: records.Check) -> None:
    result = item.run(Budget())
    assert result.passed, result


def test_names_are_unique() -> None:
    names = [item.name for item in laws.CHECKS]
    assert len(set(names)) == len(names) >= 11


@pytest.mark.parametrize("item", [i for i in laws.CHECKS if i.needs], ids=lambda item: item.name)
def test_no_check_passes_without_flint(item: records.Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "missing", lambda modules: modules)
    assert item.run(Budget()).outcome == "not run"


# --- faults planted in the law ------------------------------------------------------------------------------


def one_off(h: int, n: int) -> Fraction:
    return p_exact(min(h + 1, n), n)


def strictly_above(h: int, n: int) -> Fraction:
    """P(D > h/n) where P(D >= h/n) is asked for."""
    return p_exact(h + 1, n) if h < n else Fraction(0)


def doubled_one_sided(h: int, n: int) -> Fraction:
    """The first term of the series alone, an upper bound."""
    return min(Fraction(1), Fraction(2 * math.comb(2 * n, n - h), math.comb(2 * n, n)))


def one_sided(h: int, n: int) -> Fraction:
    return Fraction(math.comb(2 * n, n - h), math.comb(2 * n, n))


FAULTS = [one_off, strictly_above, doubled_one_sided, one_sided]


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_laws_are_caught(fault: Callable[[int, int], Fraction]) -> None:
    assert laws.compare_with_paths(range(1, 6), fault).outcome == "failed"
    assert laws.compare_with_bands(range(1, 6), fault).outcome == "failed"
    assert laws.compare_with_intervals((6, 30), fault).outcome == "failed"


@pytest.mark.parametrize("fault", [one_off, strictly_above, one_sided])
def test_laws_that_reject_too_easily_are_caught_on_ties(fault: Callable[[int, int], Fraction]) -> None:
    assert laws.compare_ties((3,), fault).outcome == "failed"


def test_enclosures_catch_what_no_float_would_show() -> None:
    def nudged(h: int, n: int) -> Fraction:
        return p_exact(h, n) * (1 + Fraction(1, 10**40))

    assert laws.compare_with_intervals((30,), nudged).outcome == "failed"


def test_paths_are_all_orders_and_end_level() -> None:
    found = list(laws.paths(3))
    assert len(set(found)) == math.comb(6, 3)
    assert all(path[-1] == 0 and len(path) == 6 for path in found)


@pytest.mark.parametrize(("n", "h"), [(1, 1), (4, 2), (5, 3), (6, 6)])
def test_bands_count_paths(n: int, h: int) -> None:
    assert laws.inside_band(h, n) == sum(max(map(abs, path)) < h for path in laws.paths(n))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda table: [table[0], table[0] / 2, *table[2:]],  # too small
        lambda table: [math.nextafter(p, 2) for p in table],  # above 1
        lambda table: [*table[:9], table[9] * 1.5, *table[10:]],  # too large
        lambda table: table[:-1],  # one too few
        lambda table: [*table[:5], *table[6:], table[-1]],  # shifted by one
    ],
)
def test_spoiled_tables_are_caught(spoil: Callable[[list[float]], list[float]]) -> None:
    table = p_values(20)[0].tolist()
    assert laws.judge_table(20, table, p_exact).outcome == "passed"
    assert laws.judge_table(20, spoil(table), p_exact).outcome == "failed"


@pytest.mark.parametrize("row", range(len(laws.GOLDEN)))
def test_a_wrong_golden_value_is_caught(row: int) -> None:
    level, h, distance, p = laws.GOLDEN[row]
    for wrong in ((level, h + 1, distance, p), (level, h, ".5", p), (level, h, distance, p[:-1] + "0")):
        assert laws.judge_golden([wrong]).outcome == "failed"


def test_faulty_thresholds_are_caught() -> None:
    def asymptotic(h: int, n: int, level: Fraction) -> bool:
        return rejects(h, n, level, "asymptotic")

    assert laws.judge_threshold((256,), asymptotic, threshold).outcome == "passed"
    faults: list[Callable[[int, int, Fraction], bool]] = [
        lambda h, n, level: rejects(h, n, level / 2, "asymptotic"),
        lambda h, n, level: h > 0 and asymptotic(h - 1, n, level),
        lambda h, n, level: rejects(h, n, level, "exact"),
    ]
    for fault in faults:
        assert laws.judge_threshold((256,), fault, threshold).outcome == "failed"
    off = laws.judge_threshold((256,), asymptotic, lambda level, n: threshold(level, n) * (1 + 1e-14))
    assert off.outcome == "failed"


# --- where the asymptotic bound holds -----------------------------------------------------------------------


@pytest.mark.parametrize("first", [457, 459, 1])
def test_a_wrong_boundary_is_caught(first: int) -> None:
    assert dominance.judge_boundary(470, first=first).outcome == "failed"


@pytest.mark.parametrize("n", [*range(1, 25), 100, 457, 458])
def test_far_counts_need_no_look(n: int) -> None:
    near, every = dominance.scan(n), dominance.scan(n, every_count=True)
    assert near.failing == every.failing
    assert near.undecided == every.undecided == ()
    assert every.cases == n
    assert near.settled


@pytest.mark.parametrize("n", [8, 9, 50, 457, 458, 1000])
def test_the_three_comparisons_are_what_every_far_count_says(n: int) -> None:
    """R falls from the first far count on, and is at most 1 there: in exact logarithms, count by count."""
    first = dominance.first_far(n)
    assert first**2 >= 3 * n + 5 > (first - 1) ** 2

    def log_r(h: int) -> float:
        return math.fsum(math.log((n - j + 1) / (n + j)) for j in range(1, h + 1)) + h * h / n

    far = [log_r(h) for h in range(first, n + 1)]
    assert all(value < 0 for value in far)
    assert all(a > b for a, b in pairwise(far))


def test_far_counts_that_are_not_settled_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dominance, "first_far", lambda n: math.isqrt(n) // 2 + 1)
    found = dominance.judge_boundary(470)
    assert found.outcome == "failed"
    assert "not settled" in found.detail


@pytest.mark.parametrize("n", [1, 2, 3, 10, 40])
def test_scan_agrees_with_floating_point(n: int) -> None:
    expected = tuple(h for h in range(1, n + 1) if float(p_exact(h, n)) > 2 * math.exp(-h * h / n))
    assert dominance.scan(n).failing == expected


def test_the_proof_beyond_fails_where_the_claim_does() -> None:
    assert not dominance.beyond(dominance.FIRST - 1)
    assert dominance.beyond(dominance.PROVED)
    with pytest.raises(ValueError, match="100"):
        dominance.beyond(99)


def test_proof_and_computation_overlap() -> None:
    assert dominance.FIRST < dominance.PROVED < 1000 <= dominance.COMPUTED


def test_the_estimates_of_the_proof_hold_at_real_counts() -> None:
    """Both estimates of ln q in floating point, where they are needed: h^2 up to 3n + 5."""

    def log_q(h: int, n: int) -> float:
        return sum(math.log((n - j + 1) / (n + j)) for j in range(1, h + 1))

    for n in (600, 4096):
        e = 1 / n
        for h in range(20, math.isqrt(3 * n + 5)):
            u = h * h / n
            rho = e * u * (1 / (2 * (1 + e / 2)) - (2 * u - e) / (12 * (1 + e / 2) ** 3))
            assert log_q(h, n) <= -u + rho + 1e-12
            assert log_q(2 * h, n) >= -4 * u - 8 / 3 * u * u * e / (1 - 4 * u * e) - 1e-12
            assert log_q(3 * h, n) <= -9 * u / (1 + e / 2) + 1e-12


def test_an_undecided_comparison_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dominance, "_BITS", 4)
    assert dominance.scan(457).undecided
    assert dominance.judge_boundary(470).outcome == "failed"


# --- Clopper-Pearson ----------------------------------------------------------------------------------------

LEVELS = (Fraction(1, 10),)
SMALL = [(k, n) for n in range(1, 9) for k in range(n + 1)]
STEP = Fraction(1, 2**32)


@pytest.mark.parametrize(
    "fault",
    [
        lambda lower, upper: (lower + STEP, upper),
        lambda lower, upper: (lower, upper - STEP),
        lambda lower, upper: (max(lower - STEP, Fraction(0)), upper),
        lambda lower, upper: (lower, min(upper + STEP, Fraction(1))),
        lambda lower, upper: (1 - upper, 1 - lower),
    ],
)
def test_limits_one_step_off_are_caught(fault: Callable[..., tuple[Fraction, Fraction]]) -> None:
    assert rates.judge_limits(SMALL, LEVELS, clopper_pearson).outcome == "passed"
    wrong = rates.judge_limits(SMALL, LEVELS, lambda k, n, level: fault(*clopper_pearson(k, n, level)))
    assert wrong.outcome == "failed"


def test_one_sided_level_used_twice_is_caught() -> None:
    finding = rates.judge_limits(SMALL, LEVELS, lambda k, n, level: clopper_pearson(k, n, 2 * level))
    assert finding.outcome == "failed"


def test_wrong_numbers_of_clean_units_are_caught() -> None:
    level = Fraction(1, 20)
    assert rates.judge_rates([(0, 59, level, level, True), (0, 58, level, level, False)]).outcome == "passed"
    assert rates.judge_rates([(0, 58, level, level, True)]).outcome == "failed"
    assert rates.judge_rates([(0, 59, level, level, False)]).outcome == "failed"


@given(st.integers(1, 80), st.data())
def test_enclosed_tail_is_the_sum(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, n))
    p = Fraction(data.draw(st.integers(1, 99)), 100)
    exact = sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))
    enclosure = rates.upper_tail(k, n, p)
    assert float(enclosure) == pytest.approx(float(exact), rel=1e-12)
    assert float(enclosure) == pytest.approx(binom.sf(k - 1, n, float(p)), rel=1e-9)


def test_small_limits_by_hand() -> None:
    """k = 0 of n: the upper limit is 1 - (delta/2)^(1/n); every grid neighbour is on its side of it."""
    for n, (k, level) in product((1, 2, 5), [(0, Fraction(1, 10))]):
        upper = clopper_pearson(k, n, level)[1]
        assert (1 - upper) ** n <= level / 2 < (1 - upper + STEP) ** n
