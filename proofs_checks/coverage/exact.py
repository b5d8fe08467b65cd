"""How often limits and decisions are wrong, exactly: every outcome of a small sample, weighed by its law.

Where a sample can be enumerated nothing is left to chance: the probability of a miss is a rational number,
and the error probability that was promised is an upper bound on it, without tolerance. Every judge takes the
module that it judges, so that a faulty copy can be put in its place
(:mod:`proofs_checks.mutations.bug`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import product
from math import comb, log, log2, prod
from typing import Any

from certify.stats import betting, power
from certify.stats import budget as sharing
from certify.stats import rates as bounds
from proofs_checks.check import Budget, Check, CheckFinding, Facts, check, decided

LEVELS = (Fraction(1, 20), Fraction(1, 3))
"""Error probabilities that are tried."""

_STEP = Fraction(1, 2**33)  # half a step of the grid of limits


@dataclass(frozen=True)
class Units:
    """A law of a unit in [0, 1]: finitely many exact values, with positive integers as relative weights."""

    name: str
    values: tuple[Fraction, ...]
    weights: tuple[int, ...]

    def moment(self, power: int) -> Fraction:
        """The mean of a power of a unit."""
        return (
            Fraction(sum(v**power * w for v, w in zip(self.values, self.weights, strict=True))) / self.total
        )

    @cached_property
    def mean(self) -> Fraction:
        """The mean, exactly."""
        return self.moment(1)

    @property
    def variance(self) -> Fraction:
        """The variance, exactly."""
        return self.moment(2) - self.mean**2

    @cached_property
    def total(self) -> int:
        """Sum of the weights."""
        return sum(self.weights)

    def sequences(self, n: int) -> Iterator[tuple[list[Fraction], Fraction]]:
        """Samples of ``n`` units in order, with their probabilities."""
        for chosen in product(range(len(self.values)), repeat=n):
            weight = prod(self.weights[i] for i in chosen)
            yield [self.values[i] for i in chosen], Fraction(weight, self.total**n)


def two_point(p: Fraction, low: Fraction = Fraction(0), high: Fraction = Fraction(1)) -> Units:
    """``high`` with probability ``p``, else ``low``."""
    name = f"{high} with probability {p}, else {low}"
    return Units(name, (low, high), (p.denominator - p.numerator, p.numerator))


HARD = (
    two_point(Fraction(1, 50)),
    two_point(Fraction(49, 50)),
    two_point(Fraction(1, 2)),
    two_point(Fraction(9, 10), Fraction(1, 5), Fraction(2, 5)),
    two_point(Fraction(19, 20), Fraction(0), Fraction(1, 10)),
    two_point(Fraction(49, 50), Fraction(1, 40), Fraction(101, 200)),  # one in fifty loses 95 points
    Units("a rare zero among ties", (Fraction(0), Fraction(9, 10), Fraction(1)), (1, 18, 1)),
    Units("heavy ties", (Fraction(0), Fraction(1, 2), Fraction(1)), (1, 8, 1)),
)
"""Laws that are hard on limits: near 0, near 1, rare extremes, heavy ties, low spread."""


# --- counts ------------------------------------------------------------------------------------------------


def tail(n: int, p: Fraction, counts: Sequence[int]) -> Fraction:
    """Probability that ``B(n, p)`` is one of ``counts``, term by term."""
    a, b = p.numerator, p.denominator
    return Fraction(sum(comb(n, k) * a**k * (b - a) ** (n - k) for k in counts), b**n)


@decided
def judge_counts(module: Any, sizes: Sequence[int]) -> Facts:
    """Clopper-Pearson limits: at the worst probabilities the miss rate is ``delta``, never more.

    The miss rate of an upper limit is largest just above one of its values. There it must be at most
    ``delta``; and within one step of the grid of it, or the limit is weaker than it need be. Only one count
    on each side has nothing to say: no success from below, no failure from above. A two-sided limit is two
    one-sided ones, each with half of the error.
    """
    one_sided: dict[tuple[str, int, Fraction], list[Fraction]] = {}
    for n, delta, side in product(sizes, LEVELS, ("lower", "upper")):
        limits = [module.rate_limit(k, n, delta, side).value for k in range(n + 1)]
        one_sided[side, n, delta] = limits
        nothing, trivial, sign = (0, 0, -1) if side == "lower" else (n, 1, 1)
        for k, limit in enumerate(limits):
            if limit == trivial and k == nothing:
                continue
            where = f"{side} limit of {k}/{n} at {delta}"
            yield f"{where} is {limit}: silent", limit not in (0, 1)
            worst, inside = limit + sign * _STEP, limit - 3 * sign * _STEP
            missed = [j for j, other in enumerate(limits) if sign * (worst - other) > 0]
            rate = tail(n, worst, missed)
            yield f"{where} is missed with rate {float(rate)}", rate <= delta
            yield f"{where} is weaker than needed", tail(n, inside, missed) > delta
        for p in (Fraction(1, 2), Fraction(1, 50), Fraction(96, 97)):
            pair = [module.clopper_pearson(k, n, delta) for k in range(n + 1)]
            missed = [k for k, (low, high) in enumerate(pair) if not low <= p <= high]
            yield f"two-sided limits of {n} trials at {delta} miss {p}", tail(n, p, missed) <= delta
    for n, delta in product(sizes, LEVELS):
        if 2 * delta < 1:
            pair = [module.clopper_pearson(k, n, 2 * delta) for k in range(n + 1)]
            two = list(zip(one_sided["lower", n, delta], one_sided["upper", n, delta], strict=True))
            yield f"two-sided limits of {n} trials are not two one-sided ones", pair == two
    return "at the worst probabilities missed with rate delta, to one grid step"


@decided
def judge_decisions(module: Any, sizes: Sequence[int]) -> Facts:
    """Decisions on rates at the threshold itself: wrong with probability ``delta`` at most, and no weaker.

    One more success in the decision's favour must exceed ``delta``. Levels include tails that are met
    exactly, where only the right side of an equality is right.
    """
    for n, alpha in product(sizes, (Fraction(1, 20), Fraction(1, 2), Fraction(2, 3))):
        every = range(n + 1)
        exact = tail(n, alpha, range(n // 3 + 1))
        for delta in (*LEVELS, exact):
            if not 0 < delta < 1:
                continue
            at_most = [k for k in every if module.rate_at_most(k, n, alpha, delta)]
            above = [k for k in every if module.rate_above(k, n, alpha, delta)]
            at_least = [k for k in every if module.rate_at_least(k, n, alpha, delta)]
            rates = [tail(n, alpha, found) for found in (at_most, above, at_least)]
            more = (every[: len(at_most) + 1], every[n - len(above) :], every[n - len(at_least) :])
            fewer, beyond, least = (tail(n, alpha, found) for found in more)
            where = f"{n} trials against {alpha} at {delta}"
            right = rates[0] <= delta and rates[1] < delta and rates[2] <= delta
            yield f"{where}: wrong too often, {list(map(float, rates))}", right
            yield f"{where}: weaker than needed", fewer > delta and beyond >= delta and least > delta
            monotone = at_most == [*every[: len(at_most)]] and above == [*every[n + 1 - len(above) :]]
            yield f"{where}: not monotone in the count", monotone
        for k in (-1, 0, n // 2, n):
            below = module.binomial_tail_at_most(k, n, alpha) == tail(n, alpha, range(k + 1))
            over = module.binomial_tail_at_least(k, n, alpha) == tail(n, alpha, range(max(k, 0), n + 1))
            yield f"the tail at {k} of {n} is wrong", below and over
    return "wrong with probability delta at most, one count more would be too many"


# --- betting -----------------------------------------------------------------------------------------------


@decided
def judge_betting(module: Any, length: int) -> Facts:
    """Betting: all sequences of hard laws; at its own mean every p-value is a p-value, at every level.

    And it is of use: somewhere a level is nearly reached, and units that leave no doubt are no doubt to it.
    """
    for x in (Fraction(1), Fraction(5, 4), Fraction(3), Fraction(20), Fraction(10**6)):
        found = module.plog(x)
        yield f"plog({x}) is {float(found)}, far from the logarithm", log2(x) - 0.0861 < found <= log2(x)
    settings = tuple(product(("fixed", "sequential"), (Fraction(1, 20), Fraction(2, 5))))
    for design, delta in settings:
        p = module.betting_p_value([1] * 40, Fraction(1, 2), delta, design)
        yield f"forty ones, {design}: p = {float(p)} against a mean of 1/2", p <= delta
    sharpest = 0.0
    for units, (design, delta) in product(HARD, settings):
        n = length if len(units.values) == 2 else round(length * log(2) / log(3))
        where = f"{units.name}, {design}"
        law: dict[Fraction, Fraction] = {}
        for sequence, probability in units.sequences(n):
            p = module.betting_p_value(sequence, units.mean, delta, design)
            law[p] = law.get(p, Fraction(0)) + probability
            shown = module.betting_exceeds(sequence, units.mean, delta, design)
            yield f"p-value and decision disagree at {where}", (p <= delta) == shown
            first = _first_decision(module, sequence, units.mean, delta, design, p <= delta)
            yield f"decided after another unit: {where}", first
        reached = Fraction(0)
        for p in sorted(law):
            reached += law[p]
            sharpest = max(sharpest, float(reached / p) if p < 1 else 0.0)
            yield f"{where}: a p-value of {float(p)} or less has probability {float(reached)}", reached <= p
    yield f"no level is reached to more than {sharpest:.3f}: timid bets", sharpest >= 0.9
    return f"no level is exceeded; the nearest is reached to {sharpest:.3f}"


def _first_decision(
    module: Any, sequence: Sequence[Fraction], mean: Fraction, delta: Fraction, design: str, shown: bool
) -> bool:
    """Whether ``decided_after`` names the first unit after which the p-value is at most ``delta``."""
    after = module.decided_after(sequence, mean, delta, design)
    if not shown or after is None:
        return not shown and after is None
    if design == "fixed":  # its bets depend on the number of units: a shorter sample is another one
        return bool(1 <= after <= len(sequence))
    p = [module.betting_p_value(sequence[:n], mean, delta, design) if n else 1 for n in (after - 1, after)]
    return bool(p[1] <= delta < p[0])


# --- several claims, planning ------------------------------------------------------------------------------


@decided
def judge_budget(module: Any, grid: int) -> Facts:
    """The fixed sequence: all p-values on a grid; it stops where it must, and errs as often as one test."""
    delta = Fraction(1, 4)
    values = [Fraction(i, grid) for i in range(1, grid + 1)]
    wrong = 0
    for p in product(values, repeat=3):  # all three hypotheses are true
        rejected = module.fixed_sequence(value <= delta for value in p)
        wrong += rejected > 0
        stop = next((i for i, value in enumerate(p) if value > delta), 3)
        yield f"the fixed sequence went on after {p}", rejected == stop
    rate = Fraction(wrong, grid**3)
    yield f"a true hypothesis is rejected with rate {rate}", rate == Fraction(int(delta * grid), grid)
    return "exactly the family-wise error of one test"


@decided
def judge_power(module: Any) -> Facts:
    """Numbers of units for rates are the smallest ones, by trying every smaller one."""
    for alpha, delta in product((Fraction(1, 20), Fraction(1, 7), Fraction(1, 2)), LEVELS):
        n = module.clean_units_needed(alpha, delta)
        smallest = (1 - alpha) ** n <= delta < (1 - alpha) ** (n - 1)
        yield f"{n} clean units are not the smallest number for {alpha}", smallest
    delta, power_ = Fraction(1, 20), Fraction(4, 5)
    for target, truth in ((Fraction(1, 2), Fraction(3, 4)), (Fraction(9, 10), Fraction(1))):
        found = module.units_for_agreement(target, truth, delta, power_)
        mirrored = module.units_for_rate(1 - target, 1 - truth, delta, power_)
        least = next(n for n in range(1, 200) if _power(n, target, truth, delta) >= power_)
        yield f"{found} or {mirrored} units for {target}, not {least}", found == mirrored == least
    one, share = Fraction(1), Fraction(9, 10)
    n = module.units_for_share(share, {one: one}, delta, power_)
    shown = [betting.betting_exceeds([one] * some, share, delta, "fixed") for some in (n - 1, n)]
    yield f"{n} units of 1 do not show {share}, or fewer do", shown == [False, True]
    margin, sd = Fraction(2), Fraction(8)
    n = module.units_for_mean(margin, sd, delta, power_)
    reached = module.simulated_power(n, margin, sd, delta, seed=0, draws=200)
    # A normal approximation, checked by simulation: five standard errors of 200 draws around 0.8.
    near = Fraction(13, 20) <= reached <= Fraction(19, 20)
    yield f"{n} units reach a power of {reached}, not about {power_}", near
    return f"smallest numbers; {n} units for a mean reach {float(reached):.2f} of 0.8"


def _power(n: int, target: Fraction, truth: Fraction, delta: Fraction) -> Fraction:
    enough = [k for k in range(n + 1) if tail(n, target, range(k, n + 1)) <= delta]
    return tail(n, truth, enough)


# --- clusters ----------------------------------------------------------------------------------------------


def cluster_misses(limits: Sequence[Fraction], groups: int, p: Fraction) -> Fraction:
    """How often a lower limit that takes each unit of a cluster for an independent one is wrong.

    There are ``groups`` clusters of 3 units and as many of 4; all units of a cluster are equal, 1 with rate
    ``p``. ``limits`` has the lower limit for k of the ``7 groups`` units, for each k.
    """
    weights = [tail(groups, p, [i]) for i in range(groups + 1)]
    pairs = product(range(groups + 1), repeat=2)
    return sum((weights[i] * weights[j] for i, j in pairs if limits[3 * i + 4 * j] > p), Fraction(0))


# --- checks ------------------------------------------------------------------------------------------------


@check("coverage.counts", "§5: Clopper-Pearson limits and decisions, coverage at the worst rates", ("iid",))
def counts(budget: Budget) -> CheckFinding:
    """All counts of up to 20 trials (60 in a full run)."""
    sizes = (*range(1, 25), 60) if budget.full else (1, 2, 3, 7, 12, 20)
    found, other = judge_counts(bounds, sizes), judge_decisions(bounds, sizes)
    worse = found if found.outcome == "failed" else other
    return CheckFinding(worse.outcome, found.cases + other.cases, worse.detail)


@check("coverage.betting", "§5: betting limits, all sequences", ("iid",))
def bets(budget: Budget) -> CheckFinding:
    """All sequences of 8 units (12 in a full run) of hard laws, both designs."""
    return judge_betting(betting, 12 if budget.full else 8)


@check("coverage.budget", "§5: several claims share the error budget")
def families(budget: Budget) -> CheckFinding:
    """All p-values on a grid of 12 (24 in a full run)."""
    return judge_budget(sharing, 24 if budget.full else 12)


@check("coverage.planning", "§5: units needed", ("iid",))
def planning(_: Budget) -> CheckFinding:
    """Every smaller number of units."""
    return judge_power(power)


@check("coverage.clusters", "§5: ignoring clusters of 3-4 equal sentences: a nominal 5 % misses about 20 %")
def clusters(budget: Budget) -> CheckFinding:
    """Exact miss rates with clusters ignored, and with one unit for each cluster."""
    delta = Fraction(1, 20)
    rates, honest = [], []
    cases = 0
    for groups in (20, 40, 60) if budget.full else (20, 40):
        known = [bounds.rate_limit(k, 7 * groups, delta, "lower").value for k in range(7 * groups + 1)]
        alone = [bounds.rate_limit(k, 2 * groups, delta, "lower").value for k in range(2 * groups + 1)]
        for p in (Fraction(7, 10), Fraction(4, 5), Fraction(9, 10)):
            cases += (groups + 1) ** 2 + 2 * groups + 1
            rates.append(cluster_misses(known, groups, p))
            honest.append(tail(2 * groups, p, [k for k, limit in enumerate(alone) if limit > p]))
    shown = ", ".join(f"{float(rate):.1%}" for rate in rates)
    detail = f"clusters ignored: {shown}; one unit for each: at most {float(max(honest)):.1%}"
    right = all(Fraction(3, 20) < rate < Fraction(1, 4) for rate in rates) and max(honest) <= delta
    return CheckFinding("passed" if right else "failed", cases, detail)


CHECKS: tuple[Check, ...] = (counts, bets, families, planning, clusters)
