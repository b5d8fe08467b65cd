"""Where ``2 exp(-h^2/n)`` bounds Smirnov's exact law: for every h if and only if n >= 458 (theory §2).

Published by Wei and Dudley (2012, "Two-sample Dvoretzky-Kiefer-Wolfowitz inequalities"). Here, for n up to
:data:`COMPUTED` (1000 in a fast run), the *near* counts, those with ``h^2 < 3n + 5``, are computed one by
one; the *far* ones are settled by three comparisons for each n (:func:`far_settled`); and an inequality in
two real variables settles all n from :data:`PROVED` on at once. Numbers are integers, or balls with rigorous
radii (python-flint ``arb``); a comparison that the balls do not decide is reported, never guessed.

Notation: ``q(h) = C(2n, n-h) / C(2n, n)``, so that ``P(D >= h/n) / 2 = q(h) - q(2h) + q(3h) - ...``, a series
of falling terms whose partial sums bracket its value; ``N = n + 1/2``, ``u = h^2/n``.

*Far counts.* ``P <= 2 q(h)``, so that ``R(h) = q(h) exp(h^2/n) <= 1`` settles a count. From h - 1 to h

    R(h) / R(h-1) = ((n-h+1) / (n+h)) exp((2h-1)/n),

and with ``y = (h - 1/2)/N`` this ratio is ``exp(2 (y N/n - atanh(y)))``, whose exponent has the derivative
``2 (N/n - 1/(1 - y^2))`` in y: negative, and falling, once ``y^2 > 1 - n/N``, that is ``(2h-1)^2 > 2n + 1``.
So for each n three comparisons settle all far counts: that one and ``R <= 1`` at the first far count, and a
ratio of at most 1 at the next; from there on R only falls.

*In the proof for all n* ``ln q(h) = -2 sum_{j<=h} atanh((j - 1/2)/N)`` and ``atanh(y) >= y + y^3/3`` give

    ln q(h) <= -h^2/N - h^2 (2h^2 - 1) / (12 N^3),

which is at most ``-h^2/n`` once ``h^2 >= 3n + 7/2 + 3/(4n)``, so that far counts need no look there either.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from math import isqrt
from typing import Any, NamedTuple

from proofs_checks.check import Budget, Check, CheckFinding, Facts, check, decided

COMPUTED = 4096
"""Largest n for which near counts are computed and far ones settled, in a full run."""

PROVED = 600
"""Sample size from which on :func:`beyond` proves the bound; what is computed reaches well past it."""

FIRST = 458
"""Smallest n from which on the bound holds for every count."""

_BITS = 160


class Tails:
    """Enclosures of the exact law at one sample size, computed term by term."""

    def __init__(self, n: int) -> None:
        from flint import arb

        self.n = n
        self._ratios = [arb(1)]

    def ratio(self, h: int) -> Any:
        """``q(h)``, by ``q(h) = q(h-1) (n-h+1)/(n+h)``."""
        while len(self._ratios) <= h:
            j = len(self._ratios)
            self._ratios.append(self._ratios[-1] * (self.n - j + 1) / (self.n + j))
        return self._ratios[h]

    def partial_sums(self, h: int) -> Iterator[Any]:
        """Partial sums of the series for P/2: above it, below it, above it ...; the last is the value."""
        total = 0
        for k in range(1, self.n // h + 1):
            total = total + self.ratio(k * h) if k % 2 else total - self.ratio(k * h)
            yield total

    def p(self, h: int) -> Any:
        """``P(D >= h/n)``."""
        *_, value = self.partial_sums(h)
        return 2 * value


def bounded(tails: Tails, h: int) -> bool | None:
    """Whether ``P(D >= h/n) <= 2 exp(-h^2/n)``; None if the balls overlap to the end."""
    from flint import arb

    bound = (arb(-h * h) / tails.n).exp()
    total: Any = None
    for k, total in enumerate(tails.partial_sums(h), 1):
        if k % 2 and total < bound:
            return True
        if not k % 2 and total > bound:
            return False
    # The series has ended: the last sum is the value itself, whichever side it came from.
    if total < bound:
        return True
    return False if total > bound else None


class Scan(NamedTuple):
    """What was found at one sample size: counts at which the bound fails, and that were not decided, of how
    many ``cases`` that were computed; and whether the three comparisons settle all others, if there are any.
    """

    failing: tuple[int, ...]
    undecided: tuple[int, ...]
    cases: int
    settled: bool


def first_far(n: int) -> int:
    """Smallest count with ``h^2 >= 3n + 5``; above n if no count is that large."""
    return isqrt(3 * n + 4) + 1


def far_settled(tails: Tails) -> bool:
    """Whether three comparisons settle every count from :func:`first_far` on; see the module."""
    from flint import arb

    n, h = tails.n, first_far(tails.n)
    if h > n:
        return True
    falls = (2 * h - 1) ** 2 > 2 * n + 1
    start = bool(tails.ratio(h) * (arb(h * h) / n).exp() < 1)
    step = h == n or bool(arb(n - h) / (n + h + 1) * (arb(2 * h + 1) / n).exp() < 1)
    return falls and start and step


def scan(n: int, *, every_count: bool = False) -> Scan:
    """Compare law and bound at each near count, or at every count, and settle the far ones."""
    from flint import ctx

    with ctx.workprec(_BITS):
        tails = Tails(n)
        counts = range(1, n + 1 if every_count else min(n + 1, first_far(n)))
        answers = {h: bounded(tails, h) for h in counts}
        settled = far_settled(tails)
    return Scan(
        tuple(h for h, answer in answers.items() if answer is False),
        tuple(h for h, answer in answers.items() if answer is None),
        len(counts),
        settled,
    )


@decided
def judge_boundary(last: int, *, first: int = FIRST) -> Facts:
    """Passed if the bound fails somewhere for each n < ``first`` and nowhere for ``first <= n <= last``."""
    cases = 0
    failing: tuple[int, ...] = ()
    for n in range(1, last + 1):
        found = scan(n)
        cases += found.cases
        yield f"n = {n}: counts from {first_far(n)} on are not settled", found.settled
        yield f"undecided at n = {n}: h = {found.undecided}", not found.undecided
        state = f"fails at h = {found.failing}" if found.failing else "holds for every h"
        yield f"n = {n}: the bound {state}", bool(found.failing) == (n < first)
        failing = found.failing or failing
    text = (
        f"n = 1..{last}: fails for each n < {first} and holds from there on; {cases:,} near counts computed,"
        " all with h^2 >= 3n + 5 settled by three comparisons for each n"
    )
    return CheckFinding("passed", cases, text, f"n = {min(first - 1, last)} fails at h = {failing}")


def beyond(first: int, pieces: int = 300) -> bool:
    """Prove ``P(D >= h/n) <= 2 exp(-h^2/n)`` for every ``n >= first`` and every h, or return False.

    Below ``u = ln 2`` the bound exceeds 1, and far counts are settled (module docstring). In between,
    ``P/2 <= q(h) - q(2h) + q(3h)``. With ``e = 1/n``, the upper bound of the module docstring for ``q(h)``,
    its first term for ``q(3h)``, and ``atanh(y) <= y + y^3 / (3 (1 - y^2))`` with ``y^2 <= 4ue`` for
    ``q(2h)``,

        (P/2) exp(u) <= exp(rho) - exp(-3u - (8/3) u^2 e / (1 - 4ue)) + exp(u - 9u / (1 + e/2)),
        rho = e u / (2 (1 + e/2)) - e u (2u - e) / (12 (1 + e/2)^3),

    and the right side is enclosed on ``pieces`` boxes that cover ``ln 2 <= u <= 3 + 5e`` and
    ``0 <= e <= 1/first``.

    Args:
        first: smallest sample size, at least 100 (so that ``2h <= n`` in the middle range).
        pieces: boxes along u.
    """
    from flint import arb, ctx, fmpq

    if first < 100:
        raise ValueError("the estimates need n >= 100")
    with ctx.workprec(_BITS):
        e = arb(0).union(arb(fmpq(1, first)))
        start, stop = Fraction(69, 100), 3 + Fraction(5, first)  # 0.69 < ln 2
        width = (stop - start) / pieces
        edges = [start + i * width for i in range(pieces + 1)]
        points = [arb(fmpq(x.numerator, x.denominator)) for x in edges]
        for low, high in pairwise(points):
            u = low.union(high)
            rho = e * u * (1 / (2 * (1 + e / 2)) - (2 * u - e) / (12 * (1 + e / 2) ** 3))
            second = (-3 * u - arb(fmpq(8, 3)) * u * u * e / (1 - 4 * u * e)).exp()
            third = (u - 9 * u / (1 + e / 2)).exp()
            if not rho.exp() - second + third < 1:
                return False
    return True


@check("laws.dominance", "§2: 2 exp(-h^2/n) dominates the exact law only for n >= 458", needs=("flint",))
def dominance(budget: Budget) -> CheckFinding:
    """n up to 1000 (4096 in a full run): near counts by intervals, far ones by three comparisons."""
    return judge_boundary(COMPUTED if budget.full else 1000)


@check("laws.dominance-beyond", "§2: and it does so for every larger n", needs=("flint",))
def dominance_beyond(_: Budget) -> Facts:
    """Every n from 600 on at once: an inequality in two real variables, on boxes."""
    yield f"the enclosures do not settle n >= {PROVED}", beyond(PROVED)
    return f"every n >= {PROVED}; published by Wei and Dudley (2012)"


CHECKS: tuple[Check, ...] = (dominance, dominance_beyond)
