"""Type I errors of selection: how often rows that did not move are selected (theory §2).

Rule ``ks`` with each correction and both laws, on rows drawn under nulls that hold (two independent samples)
and nulls as they come in practice (the same row with small noise, rounded to bf16, full of ties). The other
rules choose as many rows as they are asked for: they have no level, and nothing to hold.
"""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise, product
from typing import Any, Final, get_args

import numpy as np
from numpy.typing import NDArray

from certify.base.records import Correction, Dtype, Method
from certify.scan import engine_numpy, multiplicity
from certify.scan.columns import Columns
from certify.tables.dtypes import cast
from proofs_checks.check import Budget, Check, CheckFinding, Facts, check
from proofs_checks.coverage.trials import Trial, generator, judge
from proofs_checks.theory.finite import smirnov

Rows = NDArray[np.float32]

ALPHA: Final = Fraction(1, 5)
"""Level of the tests; large, so that few draws show a defect."""

WIDTH: Final = 64
"""Entries per row."""

METHODS: Final[tuple[Method, ...]] = ("exact", "asymptotic")
"""Both laws."""

ROWS: Final = 8
"""Rows that are tested together."""


def attained(level: Fraction, n: int, method: Method = "exact") -> float:
    """True rate of a single test at ``level``: the exact p-value of the first count that is rejected."""
    bound = n * math.log(2 / level)
    for h in range(n + 1):
        p = smirnov(h, n)
        if p <= level if method == "exact" else h * h > bound:
            return float(p)
    return 0.0


def excess(n: int) -> float:
    """How many times larger than ``2 exp(-h^2/n)``, at most, the exact law is, where the former is below 1.

    A p-value of the limit law times this is a valid one: false discovery rates have this factor.
    """
    ratios = [float(smirnov(h, n)) * math.exp(h * h / n) / 2 for h in range(1, n + 1)]
    return max(1.0, *(r for h, r in enumerate(ratios, 1) if 2 * math.exp(-h * h / n) < 1))


def counts_of(x: Rows, y: Rows, dtype: Dtype = "F32") -> NDArray[Any]:
    """KS counts ``h`` of the rows of ``x`` against those of ``y``, served in ``dtype``, by the engine."""
    columns = Columns.zeros(len(x))
    engine_numpy.compare(cast(x, "F32", dtype), cast(y, "F32", dtype), dtype, columns)
    return columns.h


def independent(random: np.random.Generator, rows: int) -> tuple[Rows, Rows]:
    """Two independent normal samples for each row: the null hypothesis of the test."""
    x, y = random.standard_normal((2, rows, WIDTH), dtype=np.float32)
    return x, y


def paired(random: np.random.Generator, rows: int) -> tuple[Rows, Rows]:
    """The same row with noise of a fifth of its standard deviation: what tuning does to a row at random."""
    x, noise = random.standard_normal((2, rows, WIDTH), dtype=np.float32)
    return x, x + np.float32(0.2) * noise


def tied(random: np.random.Generator, rows: int) -> tuple[Rows, Rows]:
    """Two independent samples from five values."""
    x, y = random.integers(-2, 3, size=(2, rows, WIDTH)).astype(np.float32)
    return x, y


def try_nulls(module: Any, draws: int, random: np.random.Generator) -> list[Trial]:
    """Single rows and families of :data:`ROWS` rows, none of which moved.

    With independent continuous rows the rates are known: ``attained(ALPHA)`` for one row, and for the
    family-wise procedures ``1 - (1 - attained(ALPHA / m))^m``; a false discovery procedure rejects at least
    as often, and at most at ``ALPHA``. The asymptotic law has no promise at this width: its level follows
    from its critical counts. Corrections under it are tried on a fifth of the draws.
    """
    trials = []
    nulls: tuple[tuple[str, tuple[Rows, Rows], Dtype], ...] = (
        ("independent rows", independent(random, draws * ROWS), "F32"),
        ("independent rows in bf16", independent(random, draws * ROWS), "BF16"),
        ("rows with ties", tied(random, draws * ROWS), "F32"),
        ("the same rows with noise", paired(random, draws * ROWS), "F32"),
        ("the same rows with noise in bf16", paired(random, draws * ROWS), "BF16"),
    )
    for name, (x, y), dtype in nulls:
        h = counts_of(x, y, dtype)
        sharp = name == "independent rows"
        for method in METHODS:
            hits = int(module.rejected(h, WIDTH, ALPHA, "none", method).sum())
            most = attained(ALPHA, WIDTH, method)
            trials.append(Trial(f"none, {method}, {name}", hits, len(h), most, 0.98 * most if sharp else 0.0))
        for method, correction in product(METHODS, ("bonferroni", "holm", "bh", "by")):
            family = 1 - (1 - attained(ALPHA / ROWS, WIDTH, method)) ** ROWS
            rate = float(ALPHA) * (1 if method == "exact" else excess(WIDTH))
            tried = draws if method == "exact" else max(1, draws // 5)
            groups = h.reshape(draws, ROWS)[:tried]
            found = (module.rejected(group, WIDTH, ALPHA, correction, method) for group in groups)
            hits = sum(bool(rows.any()) for rows in found)
            most = family if correction in ("bonferroni", "holm") else rate
            least = 0.0 if not sharp or correction == "by" else 0.98 * family
            trials.append(Trial(f"{correction}, {method}, {name}", hits, tried, most, least))
    return trials


def try_mixtures(module: Any, draws: int, random: np.random.Generator) -> list[Trial]:
    """Half of the rows moved far: errors among the others, where step-wise procedures spend what is left.

    Holm then works at ``ALPHA`` over the m/2 others, and its family-wise rate is known. For BH and BY one
    rejected row is drawn at random: it did not move with probability equal to the false discovery rate, at
    most ``ALPHA / 2``, and for BY that over the harmonic number. Under the asymptotic law the rates follow
    from its critical counts; a fifth of the draws are tried.
    """
    return [trial for method in METHODS for trial in _mixture(module, draws, random, method)]


def _mixture(module: Any, draws: int, random: np.random.Generator, method: Method) -> list[Trial]:
    true = ROWS // 2
    draws = draws if method == "exact" else max(1, draws // 5)
    x, y = independent(random, draws * ROWS)
    y.reshape(draws, ROWS, WIDTH)[:, true:] += 5
    groups = counts_of(x, y).reshape(draws, ROWS)
    holm = 1 - (1 - attained(ALPHA / true, WIDTH, method)) ** true
    bonferroni = 1 - (1 - attained(ALPHA / ROWS, WIDTH, method)) ** true
    rate = float(ALPHA) * true / ROWS * (1 if method == "exact" else excess(WIDTH))
    harmonic = sum(1 / i for i in range(1, ROWS + 1))
    known: dict[Correction, tuple[float, float]] = {
        "bonferroni": (bonferroni, 0.98 * bonferroni),
        "holm": (holm, 0.98 * holm),
        "bh": (rate, 0.5 * rate),
        "by": (rate / harmonic, 0.3 * rate / harmonic),
    }
    trials = []
    for correction, (most, least) in known.items():
        wrong = 0
        for group in groups:
            hits = module.rejected(group, WIDTH, ALPHA, correction, method)
            if correction in ("bh", "by"):
                found = np.flatnonzero(hits)
                wrong += bool(found.size) and bool(random.choice(found) < true)
            else:
                wrong += bool(hits[:true].any())
        trials.append(Trial(f"{correction}, {method}, half of the rows moved", wrong, draws, most, least))
    return trials


@check("coverage.selection", "§2: type I error of selection, every correction, rows that did not move")
def nulls(budget: Budget) -> CheckFinding:
    """Five kinds of rows that did not move, alone and in families of 8."""
    return judge(try_nulls(multiplicity, 10_000 if budget.full else 700, generator(budget, 5)))


@check("coverage.selection-mixed", "§2: type I error of selection where half of the rows moved")
def mixtures(budget: Budget) -> CheckFinding:
    """Families of 8 rows, 4 of which moved."""
    return judge(try_mixtures(multiplicity, 20_000 if budget.full else 3000, generator(budget, 6)))


@check("coverage.selection-nested", "§2: T(alpha) is nested in alpha, under every correction")
def nested(budget: Budget) -> Facts:
    """Families of counts at rising levels: nothing that is selected is lost at a larger alpha."""
    random = generator(budget, 7)
    levels = [Fraction(k, 40) for k in (1, 2, 4, 8, 16, 24, 38)]
    for _ in range(200 if budget.full else 40):
        h = random.integers(0, 33, size=ROWS)
        for correction, method in product(get_args(Correction), METHODS):
            chosen = [multiplicity.rejected(h, 32, level, correction, method) for level in levels]
            kept = not any((small & ~large).any() for small, large in pairwise(chosen))
            yield f"{correction}, {method}: a larger alpha loses rows of {h}", kept
    return "every selection is contained in the next"


CHECKS: tuple[Check, ...] = (nulls, mixtures, nested)
