"""Learn then Test by simulation: how often a ticket that is not good enough is chosen, and a good one.

Judged is the whole of :func:`certify.gate.choose.choose` (theory §5): which arms are candidates, their
order, each test at the full ``delta``, the stop at the first that is not shown. The evidence is
synthetic, with known truth; for goals of agreement under a fixed design every probability is known exactly,
because a test is a count.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Final

import numpy as np

from certify.gate import choose
from certify.stats.betting import Design
from proofs_checks.check import Budget, Check, CheckFinding, check
from proofs_checks.coverage.exact import tail
from proofs_checks.coverage.trials import DELTA, Trial, generator, judge
from proofs_checks.worlds.outlines import RIGHT, WRONG, answer, arm, evidence

UNITS: Final = 100
"""Units of each evaluation."""


def shown_with(rate: Fraction, target: Fraction) -> Fraction:
    """Probability that :data:`UNITS` units that agree at ``rate`` show an agreement of ``target``."""
    every = range(UNITS + 1)
    enough = next(k for k in every if tail(UNITS, target, range(k, UNITS + 1)) <= DELTA)
    return tail(UNITS, rate, range(enough, UNITS + 1))


def try_agreement(module: Any, draws: int, random: np.random.Generator) -> list[Trial]:
    """Goal ``agreement:0.9``, fixed design; the rates of all outcomes are known, and must be met both ways.

    *Nested:* four tickets err on the same units, the smaller the more, so that the counts fall with the size
    and the outcomes are those of one binomial count. *Apart:* five tickets that are not good enough, each
    with units of its own: testing all of them would choose one about five times as often. A control that
    agrees everywhere is no candidate.
    """
    goal, target = module.Goal("agreement", Fraction(9, 10)), Fraction(9, 10)
    rates = {40: Fraction(99, 100), 30: Fraction(97, 100), 20: Fraction(899, 1000), 10: Fraction(4, 5)}
    arms = [arm(f"t{rows}", rows) for rows in (20, 40, 10, 30)]
    arms.append(arm("null", 25, control="random"))
    perfect = [RIGHT] * UNITS
    bad = smallest = chosen_apart = 0
    for _ in range(draws):
        latent = random.random(UNITS)
        answers: dict[str, list[Any]] = {
            f"t{rows}": [WRONG if u > float(rate) else RIGHT for u in latent] for rows, rate in rates.items()
        }
        chosen = module.choose(evidence(arms, answers | {"null": perfect}), goal, DELTA).chosen
        name = None if chosen is None else chosen.arm.name
        bad += name in ("t20", "t10", "null")
        smallest += name == "t30"
        apart = random.random((5, UNITS)) > float(rates[20])
        alone = {f"a{i}": [WRONG if w else RIGHT for w in row] for i, row in enumerate(apart.tolist())}
        five = [arm(f"a{i}", 50 - i) for i in range(5)]
        chosen_apart += module.choose(evidence(five, alone), goal, DELTA).chosen is not None
    wrongly = float(shown_with(rates[20], target))
    rightly = float(shown_with(rates[30], target)) - wrongly
    return [
        Trial("a nested ticket that is not good enough is chosen", bad, draws, wrongly, wrongly),
        Trial("the smallest good ticket is chosen", smallest, draws, rightly, rightly),
        Trial("one of five tickets, none good enough, is chosen", chosen_apart, draws, wrongly, wrongly),
    ]


def try_goals(module: Any, draws: int, random: np.random.Generator) -> list[Trial]:
    """The other goals and the sequential design: a ticket just below its goal, a good one above it.

    The good one, larger, is far enough from its goal to be shown, and so chosen, in four draws of five.
    """
    trials = []
    cases: tuple[tuple[str, str, Design], ...] = (
        ("agreement", "0.8", "sequential"),
        ("token-agreement", "0.8", "fixed"),
        ("token-agreement", "0.8", "sequential"),
        ("non-inferiority", "20", "fixed"),
        ("non-inferiority", "20", "sequential"),
    )
    arms = [arm("bad", 3), arm("good", 8), arm("reference", 0, kind="reference")]
    reference = [answer()] * UNITS
    for kind, value, design in cases:
        goal = module.parse_goal(f"{kind}:{value}")
        bad = idle = 0
        for _ in range(draws):
            answers = {"reference": reference} | _answers(kind, random)
            found = module.choose(evidence(arms, answers, design=design, steps=2), goal, DELTA).chosen
            bad += found is not None and found.arm.name == "bad"
            idle += found is None
        what = f"{goal}, {design}"
        trials.append(Trial(f"not good enough and chosen: {what}", bad, draws, float(DELTA)))
        trials.append(Trial(f"good and not chosen: {what}", idle, draws, 0.2))
    return trials


def _answers(kind: str, random: np.random.Generator) -> dict[str, list[Any]]:
    """Units of a ticket just below the goal of :func:`try_goals`, and of one that is good."""
    bad, good = random.random((2, UNITS)).tolist()
    if kind == "non-inferiority":  # embed tuning has 50 points; on average 20.5 below it, and as good
        below, above = (
            [answer(5 if u < 0.55 else 7) for u in bad],
            [answer(9 if u < 0.5 else 11) for u in good],
        )
    elif kind == "token-agreement":  # shares of two decisions: mean .79, and .975
        below = [answer(wrong=(u >= 0.60) + (u >= 0.98)) for u in bad]
        above = [answer(wrong=u >= 0.95) for u in good]
    else:
        below, above = [answer(wrong=u >= 0.79) for u in bad], [answer(wrong=u >= 0.99) for u in good]
    return {"bad": below, "good": above}


@check("coverage.ltt", "§5: Learn then Test chooses a ticket that is good enough", ("iid", "A-EVIDENCE"))
def choice(budget: Budget) -> CheckFinding:
    """100 units; nested and independent tickets, every goal, both designs."""
    random = generator(budget, 8)
    trials = try_agreement(choose, 4000 if budget.full else 300, random)
    return judge([*trials, *try_goals(choose, 400 if budget.full else 30, random)])


CHECKS: tuple[Check, ...] = (choice,)
