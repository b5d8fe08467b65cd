"""The numbers behind the p-values, recomputed another way (theory §2).

Judged is :mod:`certify.scan.smirnov`. The judges are enumeration of lattice paths, a count of paths inside
a band, and intervals with rigorous radii (python-flint ``arb``, where a check says that it needs
``flint``); they share no code with what they judge. Where the asymptotic bound holds is the business of
:mod:`proofs_checks.numbers.dominance`, limits of rates are that of :mod:`proofs_checks.numbers.rates`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from itertools import accumulate, combinations, product
from math import comb, nextafter

from certify.scan.smirnov import critical_count, p_exact, p_values, rejects, threshold
from proofs_checks.check import Budget, Check, CheckFinding, Facts, check, decided
from proofs_checks.numbers import dominance, rates
from proofs_checks.numbers.dominance import Tails

Tail = Callable[[int, int], Fraction]
"""``P(D >= h/n)`` as a function of ``(h, n)``."""

LEVELS = (Fraction(1, 20), Fraction(1, 2), Fraction(19, 20), Fraction(1, 1000))

# theory §2, n = 4096: level, smallest rejecting count, D and p to the digits given there.
GOLDEN = (
    (Fraction(1, 20), 123, ".03003", ".049758"),
    (Fraction(1, 100), 148, ".03613", ".009514"),
    (Fraction(1, 1000), 177, ".04321", ".000952"),
    (Fraction(1, 20) / 32_000, 240, ".05859", ".000001552"),
    (Fraction(1, 100) / 32_000, 254, ".06201", ".000000286"),
)

_BITS = 192

# --- Smirnov's law ------------------------------------------------------------------------------------------


def paths(n: int) -> Iterable[tuple[int, ...]]:
    """Every order of n values of each sample, as n times the difference of the CDFs after each value."""
    for first in combinations(range(2 * n), n):
        steps = [-1] * (2 * n)
        for place in first:
            steps[place] = 1
        yield tuple(accumulate(steps))


def inside_band(h: int, n: int) -> int:
    """Orders of the two samples whose CDFs never differ by ``h/n`` or more: paths inside a band."""
    # ways[i] counts the paths that end at height i - (h - 1); one guard cell on each side stays empty.
    ways = [0] * (2 * h + 1)
    ways[h] = 1
    for _ in range(2 * n):
        ways = [0, *(ways[i - 1] + ways[i + 1] for i in range(1, 2 * h)), 0]
    return ways[h]


@decided
def compare_with_paths(sizes: Iterable[int], tail: Tail) -> Facts:
    """Two-sided law, and both one-sided laws with their closed form, on every path."""
    cases = 0
    for n in sizes:
        total = comb(2 * n, n)
        largest, highest, lowest = [0] * (n + 1), [0] * (n + 1), [0] * (n + 1)
        for path in paths(n):
            top, bottom = max(0, *path), max(0, -min(path))
            largest[max(top, bottom)] += 1
            highest[top] += 1
            lowest[bottom] += 1
        cases += total
        for h in range(n + 1):
            yield f"the law differs at h = {h}, n = {n}", tail(h, n) == Fraction(sum(largest[h:]), total)
            one_sided = sum(highest[h:]) == sum(lowest[h:]) == comb(2 * n, n - h)
            yield f"the one-sided law differs at h = {h}, n = {n}", one_sided
    return CheckFinding("passed", cases, "equal on every path, two-sided and one-sided; both sides alike")


@decided
def compare_with_bands(sizes: Iterable[int], tail: Tail) -> Facts:
    """Two-sided law against the number of paths inside a band, for each count."""
    for n in sizes:
        for h in range(1, n + 1):
            equal = tail(h, n) == 1 - Fraction(inside_band(h, n), comb(2 * n, n))
            yield f"the law differs at h = {h}, n = {n}", equal
    return "equal at every count"


@decided
def compare_ties(sizes: Iterable[int], tail: Tail) -> Facts:
    """With tied values, compared only where all equal values are passed, p is never below the exact share."""
    smaller = 0
    for n in sizes:
        every = list(paths(n))
        for ends in product((False, True), repeat=2 * n - 1):
            places = [i for i, end in enumerate((*ends, True)) if end]
            found = [0] * (n + 1)
            for path in every:
                found[max(abs(path[i]) for i in places)] += 1
            for h in range(n + 1):
                share, p = Fraction(sum(found[h:]), len(every)), tail(h, n)
                smaller += share < p
                yield f"p is too small at h = {h}, n = {n}, ties {places}", share <= p
    yield "no pattern of ties made a difference, so nothing was tried", smaller > 0
    return f"never too small, strictly conservative in {smaller:,} cases"


@decided
def compare_with_intervals(sizes: Iterable[int], tail: Tail) -> Facts:
    """Law against rigorous enclosures of the series, at every count."""
    from flint import arb, ctx, fmpq

    accuracy = _BITS
    with ctx.workprec(_BITS):
        for n in sizes:
            tails = Tails(n)
            for h in range(1, n + 1):
                p, enclosure = tail(h, n), tails.p(h)
                accuracy = min(accuracy, enclosure.rel_accuracy_bits())
                inside = enclosure.overlaps(arb(fmpq(p.numerator, p.denominator)))
                yield f"outside the enclosure at h = {h}, n = {n}", inside
    yield f"the enclosures have only {accuracy} bits", accuracy >= 64
    return f"inside every enclosure ({accuracy} bits or more)"


@decided
def judge_table(n: int, table: Sequence[float], tail: Tail) -> Facts:
    """The table of p-values starts at 1, never rises, and is the law rounded upward, to the next float."""
    for h, p in enumerate(table[: n + 1]):
        exact = tail(h, n)
        good = exact <= Fraction(p) <= 1 and (not h or p <= table[h - 1])
        yield f"p-value too small, above 1, or rising at h = {h}, n = {n}", good
        below = nextafter(p, 0.0)
        yield f"p-value rounded too far at h = {h}, n = {n}", not below or Fraction(below) < exact
    yield f"not n + 1 values from 1 downward, n = {n}", len(table) == n + 1 and table[0] == 1
    return "monotone, rounded upward to the next float"


@decided
def judge_golden(rows: Sequence[tuple[Fraction, int, str, str]]) -> Facts:
    """Critical counts, distances and p-values of the theory's table, to the digits printed."""
    n = 4096
    for level, h, distance, p in rows:
        yield f"the critical count at {level} is not {h}", critical_count(level, n) == h
        for value, digits in ((Fraction(h, n), distance), (p_exact(h, n), p)):
            half = Fraction(1, 2 * 10 ** (len(digits) - 1))
            yield (
                f"{float(value):.9g} is not {digits} rounded, h = {h}",
                abs(value - Fraction(digits)) <= half,
            )
    found = critical_count("0.95", n), critical_count("0.95", n, "asymptotic")
    yield f"at .95 the counts are {found}, not 48 and 56", found == (48, 56)
    return "all as printed"


@decided
def judge_threshold(
    sizes: Iterable[int],
    rejected: Callable[[int, int, Fraction], bool],
    tau: Callable[[Fraction, int], float],
) -> Facts:
    """``n D^2 > ln(2/alpha)`` decided like intervals decide it, at every count; tau near its enclosure."""
    from flint import arb, ctx, fmpq

    with ctx.workprec(_BITS):
        for n, level in product(sizes, LEVELS):
            limit = arb(fmpq(2 * level.denominator, level.numerator)).log()
            close = abs(arb(tau(level, n)) / (limit / n).sqrt() - 1) < 1e-15
            yield f"tau is off at alpha = {level}, n = {n}", close
            for h in range(n + 1):
                statistic = arb(h * h) / n
                above, below = bool(statistic > limit), bool(statistic < limit)
                where = f"at h = {h}, alpha = {level}, n = {n}"
                yield f"undecided {where}", above != below
                yield f"wrong decision {where}", rejected(h, n, level) == above
    return "every decision the same"


# --- The checks ---------------------------------------------------------------------------------------------


@check("laws.paths", "§2: exact null law, two- and one-sided")
def smirnov_paths(budget: Budget) -> CheckFinding:
    """All C(2n, n) orders of two samples, n up to 8 (10 in a full run)."""
    return compare_with_paths(range(1, 11 if budget.full else 9), p_exact)


@check("laws.bands", "§2: exact null law, larger n")
def smirnov_bands(budget: Budget) -> CheckFinding:
    """Paths inside a band, n up to 30 and 64 (every n up to 80, and 150, in a full run)."""
    return compare_with_bands((*range(1, 81), 150) if budget.full else (*range(1, 31), 64), p_exact)


@check("laws.enclosures", "§2: exact null law at the widths of real models", needs=("flint",))
def smirnov_intervals(budget: Budget) -> CheckFinding:
    """Every count at n = 457, 458, 768 and 4096 (more widths in a full run)."""
    more = (1024, 2048, 3072, 5120, 8192) if budget.full else ()
    return compare_with_intervals((1, 2, 3, 457, 458, 768, 4096, *more), p_exact)


@check("laws.ties", "§2: with ties p is conservative")
def smirnov_ties(budget: Budget) -> CheckFinding:
    """Every pattern of ties of two samples of up to 4 values (5 in a full run), every order."""
    return compare_ties(range(1, 6 if budget.full else 5), p_exact)


@check("laws.table", "§2: one table of n + 1 p-values serves all rows")
def smirnov_table(budget: Budget) -> Facts:
    """The tables that scans use, n = 64, 457 and 1024 (4096 too in a full run)."""
    for n in (1, 2, 64, 457, 1024, *((4096,) if budget.full else ())):
        yield judge_table(n, p_values(n)[0].tolist(), p_exact).fact
    return "monotone, rounded upward to the next float"


@check("laws.golden", "§2: golden values for n = 4096")
def golden(_: Budget) -> CheckFinding:
    """Critical counts, distances and p-values as printed in the theory."""
    return judge_golden(GOLDEN)


@check("laws.published-threshold", "§2: D > tau(alpha) iff n D^2 > ln(2/alpha)", needs=("flint",))
def published_threshold(budget: Budget) -> CheckFinding:
    """Every count at n = 4096 (more widths in a full run), alpha = .05, .5, .95, .001."""
    sizes = (64, 256, 768, 2048, 4096, 8192) if budget.full else (256, 4096)
    return judge_threshold(sizes, lambda h, n, level: rejects(h, n, level, "asymptotic"), threshold)


CHECKS: tuple[Check, ...] = (
    *(smirnov_paths, smirnov_bands, smirnov_intervals, smirnov_ties, smirnov_table),
    *(golden, published_threshold),
    *dominance.CHECKS,
    *rates.CHECKS,
)
