"""The whole pipeline, from records to the verdict under shipped policies: false certificates, and power.

Each case is a ticket whose truth is known on every text: good in every respect, or false in one by a hair, on
one text of several, or false in all. ``CERTIFIED`` is wrong with probability ``delta`` at most, whichever
claim is false, because a verdict asks for all of them on all texts. ``REFUTED`` is another matter: each claim
can be refuted wrongly, so that four claims that are true by a hair are refuted with probability up to
``4 delta``; what the split over texts promises is ``delta`` for one claim, however many texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final

import numpy as np

from certify.base.verdict import Status
from certify.certificate import build
from certify.policy import outcomes
from proofs_checks.coverage.claims import CASES, NAMES, NULLS, REQUIRED, drift, rivals, subject
from proofs_checks.coverage.trials import Trial, clear
from proofs_checks.worlds.populations import Population, decided, scored
from proofs_checks.worlds.testbed import DELTA, DOCUMENTED, SampledText, Stage

UNITS: Final = {"release": 64, "strict": 110, "paper": 120}
"""Units of each text, by policy."""

MANY_DELTA: Final = "0.2"
"""Error probability of the claim on many texts."""


@dataclass(frozen=True)
class Plot:
    """A ticket with a known truth, which its name tells, under a policy.

    ``expected`` is the verdict that is ``right`` (CERTIFIED), or that is wrong: CERTIFIED of a false ticket,
    REFUTED of a true one. A wrong one has probability ``most`` at most, in units of ``delta``.
    """

    name: str
    policy: str
    texts: tuple[Population, ...]
    expected: Status = Status.CERTIFIED
    right: bool = False
    most: int = 1


def good(name: str, letters: str = "a") -> Population:
    """Units on which the ticket is best by far and always decides as the reference."""
    kinds = (
        scored(1, {"t": own, "reference": other}, names=NAMES, rest=2, letters=letters)
        for own, other in ((20, 6), (17, 5), (17, 2))
    )
    return Population(name, tuple(kinds))


def slips(name: str, per_mille: int) -> Population:
    """As :func:`good`; but in so many of 1000 units no decision agrees, and the ticket is sure of none."""
    return amid(name, 3 * per_mille, 1000 - per_mille, "x")


def amid(name: str, bad: int, weight: int, letters: str) -> Population:
    """As :func:`good`, each kind of this weight; beside it units as good that decide so."""
    kept = [replace(kind, weight=weight) for kind in good(name).kinds]
    best = {"t": 20, "reference": 6}
    return Population(name, (*kept, scored(bad, best, names=NAMES, rest=2, letters=letters)))


def loss(population: Population) -> Population:
    """The same units of unrelated text with a loss for every arm."""

    def full(record: Any) -> Any:
        return record | {"nats": dict.fromkeys(NAMES, record["nats"]["base"]) | record["nats"]}

    kinds = (replace(kind, records=tuple(map(full, kind.records))) for kind in population.kinds)
    return replace(population, name="unrelated", kinds=tuple(kinds))


_QUIET = loss(drift("down", 1, 19))
_UP = loss(drift("up", 501, 499))


PLOTS: Final = (
    Plot("good", "release", (good("one"), good("two"), _QUIET), right=True),
    Plot(
        "1.05 points worse than the reference on one text",
        "release",
        (rivals("one", 9, ["reference"], tilt=632), good("two"), _QUIET),
    ),
    Plot("no gain on one text", "release", (good("one"), rivals("two", 10, ["base"]), _QUIET)),
    Plot(
        "no better than one null ticket on one text",
        "release",
        (rivals("one", 10, ["null-4"]), good("two"), _QUIET),
    ),
    Plot("unrelated loss up by .1028 nats", "release", (good("one"), good("two"), _UP)),
    Plot(
        "false in every respect",
        "release",
        (
            rivals("one", 9, ["reference", "base", "null-0"]),
            rivals("two", 9, ["base", "reference", "null-9"]),
            _UP,
        ),
    ),
    Plot(
        "true by a hair in every respect",
        "release",
        (
            *(rivals(name, 10, ["reference", "base", *NULLS], hair=10) for name in ("one", "two")),
            loss(drift("at", 1, 1)),
        ),
        expected=Status.REFUTED,
        most=4,
    ),
    Plot("good", "strict", (good("one", "aaa"), _QUIET), right=True),
    Plot("949 in 1000 decisions agree", "strict", (slips("one", 51), _QUIET)),
    Plot("a rate of .1001 where it is sure", "strict", (amid("one", 3003, 8999, "D" + 19 * "u"), _QUIET)),
    Plot("held", "paper", (decided("one", (999, "aaa|a"), (1, "D")),), right=True),
    Plot(
        "a rate of .0501",
        "paper",
        (decided("one", (400, "ux"), (501, "uD"), (6499, "aaaaa"), (3000, "a")),),
    ),
)
"""Tickets, and what is true of them."""


def try_plot(
    plot: Plot, stage: Stage, draws: int, random: np.random.Generator, files: int = 0
) -> tuple[Trial, str | None]:
    """Verdicts on samples of a plot, and in words where files came to one other than memory.

    ``files``: of how many of them files are written and put through the gate.
    """
    arms = None if plot.policy != "paper" else 3
    texts = [stage.bound(population, arms) for population in plot.texts]
    found, difference = 0, None
    for number in range(draws):
        tag = f"{random.integers(1 << 62)}"
        drawn = [SampledText(text, text.draw(UNITS[plot.policy], random), tag) for text in texts]
        ruling = stage.rule(drawn, [plot.policy])[plot.policy]
        found += ruling.status is plot.expected
        if number < files and difference is None:
            again = stage.check(drawn, [plot.policy])[plot.policy]
            if again != replace(ruling, second=ruling.status.value):
                difference = (
                    f"{plot.name}, {plot.policy}: {ruling.status} in memory, {again.status} from files,"
                    f" the independent checker says {again.second}"
                )
    return _trial(plot, found, draws), difference


def _trial(plot: Plot, found: int, draws: int) -> Trial:
    if plot.right:
        what = f"{plot.policy}, {plot.name}: not {plot.expected}"
        return clear(what, found, draws)
    most = plot.most * Fraction(DELTA)
    return Trial(f"{plot.policy}, {plot.name}: {plot.expected}", found, draws, float(most))


def pooled(trials: Sequence[Trial]) -> Trial:
    """False certificates of all false tickets together, which sees smaller defects than each alone."""
    wrong = [trial for trial in trials if not trial.silent and trial.most == float(Fraction(DELTA))]
    misses, draws = sum(trial.misses for trial in wrong), sum(trial.draws for trial in wrong)
    return Trial("all false tickets: CERTIFIED", misses, draws, float(Fraction(DELTA)))


# --- several texts -----------------------------------------------------------------------------------------


def try_texts(draws: int, random: np.random.Generator, texts: int = 8, n: int = 40) -> list[Trial]:
    """One claim on many texts: that any of them shows what is false, or refutes what is true, is rare.

    The claim is that of ``release`` about unrelated loss, at an error probability at which sharing it out or
    not makes the difference between a fifth and most of the draws.
    """
    case = next(case for case in CASES if case.claim == "unrelated-loss:base")
    asked = REQUIRED[case.claim]
    policy = replace(DOCUMENTED["release"], claims=(asked,), delta=Fraction(MANY_DELTA))
    about = subject()
    trials = []
    for population, code in ((case.wrong, "SHOWN"), (case.right, "CLAIM_REFUTED")):
        named = [replace(population, name=f"text {number}") for number in range(texts)]
        found = 0
        for _ in range(draws):
            tag = f"{random.integers(1 << 62)}"
            drawn = [(text.name, text.evidence(text.draw(n, random), tag)) for text in named]
            claims = build.claims_of(drawn, about, MANY_DELTA)
            certificate = build.build(claims, about, delta=MANY_DELTA)
            answered = outcomes.answer_all(policy, certificate, about, claims)
            found += any(one.code == code for one in answered.values())
        what = f"{texts} texts, {population.name}: {code}"
        trials.append(Trial(what, found, draws, float(Fraction(MANY_DELTA))))
    return trials
