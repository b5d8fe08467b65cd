"""The exact and the asymptotic law: against enumeration, another closed form, scipy, and golden values."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import oracles_ks as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from certify.base.errors import UsageError
from certify.scan import smirnov
from certify.scan.smirnov import critical_count, p_exact, p_values, parse_alpha, rejects, threshold

LEVELS = st.fractions(min_value=Fraction(1, 10**6), max_value=Fraction(999, 1000))


@pytest.mark.parametrize("n", range(1, 7))
def test_exact_law_is_the_share_of_lattice_paths(n: int) -> None:
    assert [p_exact(h, n) for h in range(n + 1)] == oracle.p_by_paths(n)


@pytest.mark.parametrize("n", [1, 2, 7, 50, 333])
def test_exact_law_is_the_closed_form(n: int) -> None:
    assert [p_exact(h, n) for h in range(n + 1)] == [oracle.p_by_formula(h, n) for h in range(n + 1)]


def test_scipy_agrees() -> None:
    n = 60
    for h in range(3, n + 1):  # at h = 2 scipy's own sum exceeds 1 by rounding, and it gives up
        x = np.arange(n, dtype=float)
        # The first n - h values interleave, the rest of y lies above all of x: the CDFs part by h.
        y = np.where(x < n - h, x + 0.5, x + 2 * n)
        found = ks_2samp(x, y, method="exact")
        assert round(found.statistic * n) == h
        assert found.pvalue == pytest.approx(float(p_exact(h, n)), rel=1e-10)


# theory §2, n = 4096: level, smallest rejecting count, D and p to the digits given there.
GOLDEN = [
    (Fraction(5, 100), 123, ".03003", ".049758"),
    (Fraction(1, 100), 148, ".03613", ".009514"),
    (Fraction(1, 1000), 177, ".04321", ".000952"),
    (Fraction(5, 100) / 32_000, 240, ".05859", "1.552e-6"),
    (Fraction(1, 100) / 32_000, 254, ".06201", "2.86e-7"),
]


@pytest.mark.parametrize(("level", "h", "distance", "p"), GOLDEN)
def test_golden_values(level: Fraction, h: int, distance: str, p: str) -> None:
    assert critical_count(level, 4096) == h
    assert Decimal(h) / 4096 == pytest.approx(Decimal(distance), abs=Decimal("5e-6"))
    digits = len(Decimal(p).as_tuple().digits)
    table, _ = p_values(4096)
    assert Decimal(f"{table[h]:.{digits - 1}e}") == Decimal(p)
    assert p_exact(h, 4096) <= level < p_exact(h - 1, 4096)


def test_exact_and_asymptotic_counts_differ_as_the_theory_says() -> None:
    assert critical_count("0.95", 4096) == 48
    assert critical_count("0.95", 4096, "asymptotic") == 56
    assert critical_count("0.05", 256) == 31


def test_limit_law_dominates_only_from_458_on() -> None:
    # Wei and Dudley (2012), as theory §2 cites them.
    assert oracle.p_asymptotic(35, 457) < p_exact(35, 457)
    assert all(oracle.p_asymptotic(h, 458) >= p_exact(h, 458) for h in range(459))


@pytest.mark.parametrize("n", [1, 2, 10, 256, 600, 4096])
def test_p_is_the_next_float_above(n: int) -> None:
    table, logs = p_values(n)
    assert table[0] == 1.0
    assert logs[0] == 0.0
    assert not table.flags.writeable
    tiny = math.ulp(0.0)
    for h in range(0, n + 1, 1 + n // 300):
        exact = p_exact(h, n)
        assert Fraction(table[h]) >= exact > 0
        if table[h] > tiny:
            assert Fraction(math.nextafter(table[h], 0.0)) < exact
        assert abs(Fraction(logs[h]) - oracle.log10(exact)) <= Fraction(1, 10**12) * (1 - Fraction(logs[h]))
    assert np.all(np.diff(table) <= 0)
    assert np.all(np.isfinite(logs))


def test_p_is_never_zero() -> None:
    for method in ("exact", "asymptotic"):
        table, logs = p_values(4096, method)
        assert table[4096] == math.ulp(0.0)
        assert logs[4096] < -1700


@pytest.mark.parametrize("n", [1, 3, 256, 4096])
def test_asymptotic_p_is_above_and_close(n: int) -> None:
    table, logs = p_values(n, "asymptotic")
    assert np.all(np.diff(table) <= 0)
    for h in range(0, n + 1, 1 + n // 300):
        exact = oracle.p_asymptotic(h, n)
        assert Fraction(table[h]) >= exact
        if table[h] > 1e-300:
            assert Fraction(table[h]) <= exact * (1 + Fraction(1, 10**11))
        error = Fraction(logs[h]) - min(Fraction(0), oracle.log10(exact))
        assert abs(error) <= Fraction(1, 10**12) * (1 - Fraction(logs[h]))


@given(st.integers(1, 60), LEVELS, st.sampled_from(["exact", "asymptotic"]))
@settings(deadline=None)
def test_critical_count_is_the_smallest(n: int, level: Fraction, method: smirnov.Method) -> None:
    p = oracle.p_by_formula if method == "exact" else oracle.p_asymptotic
    smallest = next((h for h in range(n + 1) if p(h, n) <= level), n + 1)
    assert critical_count(level, n, method) == smallest


@given(st.integers(1, 40), st.integers(0, 40))
def test_a_p_value_rejects_at_its_own_level_and_not_below(n: int, h: int) -> None:
    h = min(h, n)
    p = oracle.p_by_formula(h, n)
    assert rejects(h, n, p)
    assert not rejects(h, n, p - Fraction(1, 10**50))


@given(st.integers(1, 200), st.integers(1, 10**9))
@settings(deadline=None)
def test_asymptotic_decision_survives_levels_next_to_the_boundary(h: int, noise: int) -> None:
    n = 211
    boundary = oracle.p_asymptotic(h, n, digits=150)
    if boundary < 1:
        margin = boundary * Fraction(noise, 10**120)
        assert rejects(h, n, boundary + margin, "asymptotic")
        assert not rejects(h, n, boundary - margin, "asymptotic")


def test_rejects_outside_the_unit_interval() -> None:
    assert not rejects(5, 5, Fraction(0))
    assert not rejects(5, 5, Fraction(-1))
    assert rejects(0, 5, Fraction(1))
    assert rejects(0, 5, Fraction(7, 2), "asymptotic")


def test_threshold_is_the_published_formula() -> None:
    with localcontext() as context:
        context.prec = 40
        tau = ((Decimal(2) / Decimal("0.05")).ln() / 4096).sqrt()
    assert threshold("0.05", 4096) == pytest.approx(float(tau), rel=1e-15)
    c = math.sqrt(-math.log(0.05 / 2) / 2)
    assert threshold("0.05", 4096) == pytest.approx(c * math.sqrt(2 / 4096), rel=1e-14)


@given(st.integers(1, 5000), LEVELS)
@settings(deadline=None)
def test_counts_above_tau_are_the_asymptotic_rejections(n: int, level: Fraction) -> None:
    h = critical_count(level, n, "asymptotic")
    tau = threshold(level, n)
    # The float tau is good to a few units in the last place; the counts next to it must lie on its two sides.
    assert (h - 1) / n <= tau * (1 + 1e-14)
    assert h == n + 1 or h / n >= tau * (1 - 1e-14)


@pytest.mark.parametrize("text", ["0.05", ".05", "5e-2", "0.050", "5E-2", "00.05"])
def test_alpha_is_read_as_decimal(text: str) -> None:
    assert parse_alpha(text) == Fraction(1, 20)


@pytest.mark.parametrize(
    "alpha",
    [
        "",
        "x",
        "0,05",
        "nan",
        "inf",
        "1/20",
        " 0.05",
        "0.05\n",
        "-0.05",
        "+0.05",
        "0x1",
        "1_0",
        "1e-9999",
        "٠.٠٥",
        "0." + "0" * 99 + "1",
        0.05,
        None,
        b"0.05",
    ],
)
def test_malformed_alpha_is_a_usage_error(alpha: object) -> None:
    with pytest.raises(UsageError) as caught:
        parse_alpha(alpha)  # type: ignore[arg-type]
    assert caught.value.code == "ALPHA_MALFORMED"
    assert "\n" not in str(caught.value)
    assert f"not {type(alpha).__name__}" in str(caught.value), "0.05 and '0.05' look alike"


@pytest.mark.parametrize("alpha", ["0", "0.0", "1", "1.0", "2", "1e3", Fraction(0), Fraction(3, 2)])
def test_alpha_outside_the_open_interval(alpha: Fraction | str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_alpha(alpha)
    assert caught.value.code == "ALPHA_RANGE"


@pytest.mark.parametrize("n", [0, -1, smirnov.MAX_N + 1])
def test_sample_size_is_limited(n: int) -> None:
    for call in (p_values, lambda n: critical_count("0.05", n), lambda n: threshold("0.05", n)):
        with pytest.raises(UsageError) as caught:
            call(n)
        assert caught.value.code == "SAMPLE_SIZE"


def test_unknown_method_and_impossible_counts() -> None:
    for call in (lambda: p_values(5, "fast"), lambda: critical_count("0.05", 5, "fast")):  # type: ignore[arg-type]
        with pytest.raises(UsageError) as caught:
            call()
        assert caught.value.code == "METHOD_UNKNOWN"
    with pytest.raises(ValueError, match=r"outside 0\.\.5"):
        p_exact(6, 5)


@pytest.mark.slow
def test_widest_tables_are_served() -> None:
    n = smirnov.MAX_N
    table, _ = p_values(n)
    for h in (1500, 7000, n):
        exact = oracle.p_by_formula(h, n)
        assert Fraction(table[h]) >= exact
        assert rejects(h, n, exact)
