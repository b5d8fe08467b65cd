"""The whole pipeline, from records to the verdict under shipped policies: false certificates, and power.

Each case is a ticket whose truth is known on every text: good in every respect, or false in one by a hair, on
one text of several, or false in all. ``CERTIFIED`` is wrong with probability ``delta`` at most, whichever
claim is false, because a verdict asks for all of them on all texts. ``REFUTED`` is another matter: each claim
can be refuted wrongly, so that four claims that are true by a hair are refuted with probability up to
``4 delta``; what the split over texts promises is ``delta`` for one claim, however many texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

import numpy as np

from certify.base.verdict import Status
from certify.certificate import build
from certify.policy import outcomes
from certify.policy.policy import POLICIES
from proofs_checks.coverage.claims import CASES, NAMES, REQUIRED, drift, subject
from proofs_checks.coverage.trials import Trial
from proofs_checks.worlds.populations import (
    Population,
    scored,
    steps,
)
from proofs_checks.worlds.testbed import DELTA, SampledText, Stage

POWER: Final = Fraction(9, 10)
"""How often a ticket that is good in every respect is certified at least."""

NULLS: Final = tuple(name for name in NAMES if name.startswith("null"))

MANY_DELTA: Final = "0.2"
"""Error probability of the claim on many texts."""


@dataclass(frozen=True)
class Plot:
    """A ticket with a known truth.

    Attributes:
        name: what is true of it.
        policy: the policy that is asked.
        texts: its populations.
        n: units of each text.
        expected: the verdict that is right (CERTIFIED) or wrong (CERTIFIED of a false ticket, REFUTED of a
            true one).
        right: whether ``expected`` is the right verdict.
        most: largest probability of a wrong verdict, in units of ``delta``.
    """

    name: str
    policy: str
    texts: tuple[Population, ...]
    n: int
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


def rivals(name: str, ticket: int, coins: Sequence[str], hair: int = 0, tilt: int = 0) -> Population:
    """Units on which some arms match all or nothing, any two of them independent, and the others nothing.

    Args:
        name: of the text.
        ticket: matches of the ticket; 10 is the mean of the others.
        coins: these arms.
        hair: weight, out of 16,000, of units in which they match nothing.
        tilt: weight, out of 16,000, that moves from units in which the first of them wins to the others.
    """
    kinds = []
    for code in range(16):
        bits = {arm: (code & mask).bit_count() % 2 for mask, arm in enumerate(coins, 1)}
        weight = 1000 + (tilt // 8 if not bits[coins[0]] else -(tilt // 8))
        matches = {arm: 20 * bit for arm, bit in bits.items()} | {"t": ticket}
        kinds.append(scored(weight, matches, names=NAMES))
    if hair:
        kinds.append(scored(hair, {"t": ticket}, names=NAMES))
    return Population(name, tuple(kinds))


def slips(name: str, per_mille: int) -> Population:
    """As :func:`good`; but in so many of 1000 units no decision agrees."""
    first, *rest = good(name).kinds
    bad = scored(3 * per_mille, {"t": 20, "reference": 6}, names=NAMES, rest=2, letters="D")
    kept = [replace(kind, weight=1000 - per_mille) for kind in (first, *rest)]
    return Population(name, (*kept, bad))


def loss(population: Population) -> Population:
    """The same units of unrelated text with a loss for every arm."""
    kinds = []
    for kind in population.kinds:
        records = []
        for record in kind.records:
            nats = dict.fromkeys(NAMES, record["nats"]["base"]) | record["nats"]
            records.append(record | {"nats": nats})
        kinds.append(replace(kind, records=tuple(records)))
    return replace(population, name="unrelated", kinds=tuple(kinds))


_QUIET = loss(drift("down", 1, 19))
_HELD = ((999, "aaa|a"), (1, "D"))
_BROKEN = ((400, "ux"), (501, "uD"), (6499, "aaaaa"), (3000, "a"))


def promised(name: str, kinds: Iterable[tuple[int, str]]) -> Population:
    """Units of which only the promise of the published theorem matters."""
    return Population(name, tuple(steps(weight, letters) for weight, letters in kinds))


PLOTS: Final = (
    Plot("good", "release", (good("one"), good("two"), _QUIET), 24, right=True),
    Plot(
        "1.05 points worse than the reference on one text",
        "release",
        (rivals("one", 9, ["reference"], tilt=632), good("two"), _QUIET),
        24,
    ),
    Plot("no gain on one text", "release", (good("one"), rivals("two", 10, ["base"]), _QUIET), 24),
    Plot(
        "no better than one null ticket on one text",
        "release",
        (rivals("one", 10, ["null-4"]), good("two"), _QUIET),
        24,
    ),
    Plot(
        "unrelated loss up by .1028 nats",
        "release",
        (good("one"), good("two"), loss(drift("up", 501, 499))),
        24,
    ),
    Plot(
        "false in every respect",
        "release",
        (
            rivals("one", 9, ["reference", "base", "null-0"]),
            rivals("two", 9, ["base", "reference", "null-9"]),
            loss(drift("up", 501, 499)),
        ),
        24,
    ),
    Plot(
        "true by a hair in every respect",
        "release",
        (
            rivals("one", 10, ["reference", "base", *NULLS], hair=10),
            rivals("two", 10, ["reference", "base", *NULLS], hair=10),
            loss(drift("at", 1, 1)),
        ),
        24,
        expected=Status.REFUTED,
        most=4,
    ),
    Plot("good", "strict", (good("one", "aaa"), _QUIET), 110, right=True),
    Plot("949 in 1000 decisions agree", "strict", (slips("one", 51), _QUIET), 110),
    Plot("held", "paper", (promised("one", _HELD),), 120, right=True),
    Plot("a rate of .0501", "paper", (promised("one", _BROKEN),), 120),
)
"""Tickets, and what is true of them."""


def try_plot(
    plot: Plot, stage: Stage, draws: int, random: np.random.Generator, files: int = 0
) -> tuple[Trial, str | None]:
    """Verdicts on samples of a plot, and in words where files came to another one than memory.

    Args:
        plot: the ticket.
        stage: where it lies.
        draws: samples.
        random: for the samples.
        files: of how many of them files are written and put through the gate.
    """
    arms = None if plot.policy != "paper" else 3
    texts = [stage.bound(population, arms) for population in plot.texts]
    found = 0
    for number in range(draws):
        tag = f"{random.integers(1 << 62)}"
        drawn = [SampledText(text, text.draw(plot.n, random), tag) for text in texts]
        ruling = stage.rule(drawn, [plot.policy])[plot.policy]
        found += ruling.status is plot.expected
        if number < files:
            again = stage.check(drawn, [plot.policy])[plot.policy]
            if (again.status, again.items) != (ruling.status, ruling.items):
                return _trial(plot, found, draws), (
                    f"{plot.name}, {plot.policy}: {ruling.status} in memory, {again.status} from files"
                )
            if again.second != again.status.value:
                return _trial(plot, found, draws), (
                    f"{plot.name}, {plot.policy}: {again.status}, the independent checker says {again.second}"
                )
    return _trial(plot, found, draws), None


def _trial(plot: Plot, found: int, draws: int) -> Trial:
    if plot.right:
        what = f"{plot.policy}, {plot.name}: not {plot.expected}"
        return Trial(what, draws - found, draws, float(1 - POWER), silent=True)
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
    policy = replace(POLICIES["release"], claims=(asked,), delta=Fraction(MANY_DELTA))
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
