"""Every claim that a policy can require, from records to the answer: wrong answers, and power.

For each claim four populations of units (:mod:`proofs_checks.worlds.populations`): the quantity a hair on
the wrong side of the threshold (an answer SHOWN is false), at the threshold or a hair on the right side (an
answer CLAIM_REFUTED is false), and clearly good and clearly bad ones, where the right answer must come
often. The thresholds are those of the shipped policies ``strict``, which has all of ``release``
and ``drop-in``, and ``science``; ``agreement-rate``, which none of them asks for, is asked for here. Units
weigh equally whatever their size (theory §5), and large ones are better than small ones: pooling their
sentences, windows or decisions would show what is false.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Final

import numpy as np

from certify.claims import registry
from certify.evidence.distances import Distances
from certify.evidence.load import Evidence, Subject
from certify.evidence.null_labels import GROUPS
from certify.gate import watch as sequential
from certify.policy import requirement
from certify.policy.policy import DESIGN, POLICIES
from certify.policy.requirement import Requirement, RequirementAnswer
from certify.ticket.schema import Ticket
from proofs_checks.coverage.trials import DELTA, Trial, clear
from proofs_checks.worlds import synthetic
from proofs_checks.worlds.populations import (
    Population,
    UnitKind,
    advantage,
    agreement,
    decided,
    excess,
    loss_rise,
    scored,
    windows,
)

ARMS: Final = [*synthetic.plain_arms(), *synthetic.null_arms()]
NAMES: Final = [str(arm["name"]) for arm in ARMS]
NULLS: Final = NAMES[3:]
GROUPED: Final = {
    group: [str(arm["name"]) for arm in ARMS if arm.get("control") in controls]
    for group, controls in GROUPS.items()
}
PLAIN: Final = NAMES[:3]

REQUIRED: Final = {
    one.claim: one
    for one in (*POLICIES["strict"].claims, *POLICIES["science"].claims)
    if one.threshold is not None
} | {
    "agreement-rate:reference": Requirement("agreement-rate:reference", "at_least", Fraction(9, 10)),
}
"""What is asked, by name of the claim."""


@dataclass(frozen=True)
class Case:
    """One claim, its quantity ``truth`` from the plain records, and four truths, ``n`` units of each.

    ``wrong`` is a hair on the wrong side of the threshold; ``right`` is at it, or a hair on the right side if
    it must be exceeded; ``good`` and ``bad`` are clear.
    """

    claim: str
    truth: Callable[[Population], Fraction]
    wrong: Population
    right: Population
    good: Population
    bad: Population
    n: int

    @property
    def kind(self) -> str:
        """Kind of the claim."""
        return self.claim.partition(":")[0]

    def __post_init__(self) -> None:
        asked = REQUIRED[self.claim]
        met = [meets(asked, self.truth(one)) for one in (self.wrong, self.right, self.good, self.bad)]
        if met != [False, True, True, False]:
            raise ValueError(f"{self.claim}: the populations are not on their sides: {met}")


def meets(asked: Requirement, truth: Fraction) -> bool:
    """Whether a quantity is as a requirement asks."""
    threshold = asked.threshold
    if threshold is None:
        raise ValueError(f"{asked.claim} has no threshold")
    return {
        "at_least": truth >= threshold,
        "above": truth > threshold,
        "at_most": truth <= threshold,
        "below": truth < threshold,
    }[asked.test]


# --- populations -------------------------------------------------------------------------------------------


def duel(name: str, short: int, long: int, gap: tuple[int, int], rival: str) -> Population:
    """Units in which the ticket is worse (one sentence) or better (four) than an arm, with these weights.

    ``gap``: by how many matches it is better there; a match is five points. The rival does 11 matches in
    short, 5 in long units, the other arm nothing.
    """
    one, four = ({rival: level, "t": level + by} for level, by in zip((11, 5), gap, strict=True))
    kinds = (scored(short, one, names=PLAIN), scored(long, *[four] * 4, names=PLAIN))
    return Population(name, kinds, ARMS[:3])


def reworded(population: Population) -> Population:
    """The same units under another template than the ticket's."""
    template = {"name": "reworded", "sha256": synthetic.digest("another template")}
    return replace(population, fields={"template": template})


def rivals(name: str, ticket: int, coins: Sequence[str], hair: int = 0, tilt: int = 0) -> Population:
    """Units on which the arms ``coins`` match all or nothing, any two independent, and the others nothing.

    Args:
        name: of the text.
        ticket: matches of the ticket; 10 is the mean of these arms.
        coins: these arms.
        hair: weight, out of 16,000, of units in which they match nothing.
        tilt: weight, out of 16,000, that moves from units in which the first of them wins to the others.
    """
    kinds = []
    for code in range(16):
        bits = {arm: (code & mask).bit_count() % 2 for mask, arm in enumerate(coins, 1)}
        weight = 1000 + (-(tilt // 8) if bits[coins[0]] else tilt // 8)
        matches = {arm: 20 * bit for arm, bit in bits.items()}
        kinds.append(scored(weight, matches | {"t": ticket}, names=NAMES))
    if hair:
        kinds.append(scored(hair, {"t": ticket}, names=NAMES))
    return Population(name, tuple(kinds), ARMS)


def kept(name: str, lost: int, held: int, matches: int) -> Population:
    """Units in which the ticket keeps nothing (one sentence), half of the gain, or ``matches`` (four).

    ``lost`` is also the weight of those where it keeps exactly half. Skewed: it loses ten matches there, and
    keeps ``matches - 14`` more than half, of a gain of 12, in units of weight ``held``.
    """
    kinds = (
        scored(lost, {"reference": 20, "t": 0}, names=PLAIN),
        scored(lost, {"reference": 20, "t": 10}, names=PLAIN),
        scored(held, *[{"reference": 20, "base": 8, "t": matches}] * 4, names=PLAIN),
    )
    return Population(name, kinds, ARMS[:3])


def drift(name: str, up: int, down: int, *more: UnitKind) -> Population:
    """Units of one window that rise by 1.5 nats, and units of two that fall by 1.3, with these weights."""
    falls = ((100, Fraction(-1, 10)), (300, Fraction(-17, 10)))
    kinds = (windows(up, (100, Fraction(3, 2)), names=PLAIN), windows(down, *falls, names=PLAIN))
    return Population(name, kinds + more, ARMS[:3])


def beyond(name: str, above: int, below: int) -> Population:
    """Units of one window that rise by three nats, and units of two that rise by two on the whole."""
    rises = ((100, Fraction(4)), (100, Fraction(0)))
    kinds = (windows(above, (100, Fraction(3)), names=PLAIN), windows(below, *rises, names=PLAIN))
    return Population(name, kinds, ARMS[:3])


def least_advantage(population: Population, others: Sequence[str]) -> Fraction:
    """Mean difference of sentence chrF to the best of several arms."""
    return min(advantage(population, arm) for arm in others)


_CLEAN = "aaaa|aaaa|aaaa"

CASES: Final = (
    Case(
        "agreement-rate:reference",
        lambda population: agreement(population)[0],
        wrong=decided("899 in 1000 agree", (899, "a"), (101, "a|" * 15 + "aD")),
        right=decided("900 in 1000 agree", (900, _CLEAN), (100, "D")),
        good=decided("99 in 100 agree", (99, _CLEAN), (1, "D")),
        bad=decided("7 in 10 agree", (7, "a"), (3, "aaaa|aaDa")),
        n=100,
    ),
    Case(
        "token-agreement:reference",
        lambda population: agreement(population)[1],
        wrong=decided("949 in 1000 decisions", (949, _CLEAN), (51, "D")),
        right=decided("950 in 1000 decisions", (900, "a"), (100, "aaaDDD|aaaDDD")),
        good=decided("999 in 1000 decisions", (999, _CLEAN), (1, "D")),
        bad=decided("8 in 10 decisions", (6, "a"), (4, "aDaD")),
        n=120,
    ),
    Case(
        "non-inferiority:reference:declared",
        partial(advantage, other="reference"),
        wrong=duel("1.01 points worse", 5101, 5399, (-11, 10), "reference"),
        right=duel("1 point worse", 5100, 5400, (-11, 10), "reference"),
        good=duel("35 points better", 1, 3, (4, 8), "reference"),
        bad=duel("40 points worse", 4, 1, (-11, 4), "reference"),
        n=60,
    ),
    Case(
        "gain:base:declared",
        partial(advantage, other="base"),
        wrong=duel("no gain", 1, 1, (-10, 10), "base"),
        right=duel("a gain of .1", 499, 501, (-10, 10), "base"),
        good=duel("a gain of 30", 1, 2, (2, 8), "base"),
        bad=duel("a loss of 30", 3, 1, (-9, 3), "base"),
        n=60,
    ),
    Case(
        "template-gain:base:first-line",
        partial(advantage, other="base"),
        wrong=reworded(duel("no gain", 1, 1, (-10, 10), "base")),
        right=reworded(duel("a gain of .1", 499, 501, (-10, 10), "base")),
        good=reworded(duel("a gain of 30", 1, 2, (2, 8), "base")),
        bad=reworded(duel("a loss of 30", 3, 1, (-9, 3), "base")),
        n=60,
    ),
    Case(
        "retention:0.5:declared",
        lambda population: (advantage(population, "reference") + advantage(population, "base")) / 2,
        wrong=kept("half of the gain", 1, 10, 15),
        right=kept("half of the gain, and a hair", 200, 2001, 15),
        good=kept("23 points above half of the gain", 1, 20, 20),
        bad=kept("22 points below half of the gain", 4, 1, 15),
        n=60,
    ),
    *(
        Case(
            f"better-than-nulls:{group}:first-line",
            partial(least_advantage, others=arms),
            wrong=rivals("one null ticket as good", 10, arms[:1]),
            right=rivals("all null tickets a hair worse", 10, arms, hair=10),
            good=rivals("50 points better than all", 20, arms),
            bad=rivals("50 points worse than one null ticket", 0, arms[:1]),
            n=48,
        )
        for group, arms in GROUPED.items()
    ),
    Case(
        "unrelated-loss:base",
        loss_rise,
        wrong=drift("up by .1028 nats", 501, 499),
        right=drift("up by .1 nats", 1, 1),
        good=drift("down by 1.02 nats", 1, 9),
        bad=drift("up by 1.22 nats", 9, 1),
        n=60,
    ),
    Case(
        "unrelated-excess:base",
        excess,
        wrong=beyond("51 units in 1000 up by three nats", 51, 949),
        right=beyond("50 units in 1000 up by three nats", 50, 950),
        good=beyond("no unit up by more than two nats", 0, 1),
        bad=beyond("every second unit up by three nats", 1, 1),
        n=100,
    ),
)

EDGES: Final = tuple(
    edge
    for claim in ("agreement-rate:reference", "token-agreement:reference")
    for edge in (
        (Requirement(claim, "above", Fraction(0)), decided("never", (1, "D")), "SHOWN"),
        (Requirement(claim, "at_least", Fraction(1)), decided("always", (1, _CLEAN)), "CLAIM_REFUTED"),
    )
)
"""Requirements at the end of the scale, populations and answers that are false there, limits being equal."""


# --- answers -----------------------------------------------------------------------------------------------


def subject() -> Subject:
    """The ticket that the evidence is about; one row that differs from E*'s is in every prompt."""
    declared = synthetic.ticket() | {"extraction": "first-line"}
    ticket = Ticket.model_validate_json(synthetic.canonical(declared), strict=True)
    return Subject(ticket, synthetic.TICKET_TABLE, Distances(synthetic.WIDTH, {20: 20}))


def answer(asked: Requirement, evidence: Evidence, about: Subject, delta: Fraction) -> RequirementAnswer:
    """What the program makes of a requirement on one evidence."""
    claim = registry.claim_named(asked.about(about.ticket), evidence, about, delta)
    return requirement.judge(
        asked,
        claim,
        alpha=about.ticket.selection.alpha,
        taken=DESIGN,
        opposite=lambda: registry.opposite_limit(claim),
    )


def count(
    asked: Requirement,
    population: Population,
    n: int,
    draws: int,
    random: np.random.Generator,
    delta: Fraction,
    code: str,
) -> int:
    """In how many draws of ``n`` units the answer has this code."""
    about = subject()
    samples = population.samples(n, draws, random)
    return sum(answer(asked, evidence, about, delta).code == code for evidence in samples)


def try_claim(case: Case, draws: int, random: np.random.Generator, delta: Fraction = DELTA) -> list[Trial]:
    """False answers on both sides of the threshold, and clear truths that are not found out."""
    few = max(20, draws // 6)
    tell = partial(count, REQUIRED[case.claim], n=case.n, random=random, delta=delta)
    trials = []
    for population, code in ((case.wrong, "SHOWN"), (case.right, "CLAIM_REFUTED")):
        found = tell(population, draws=draws, code=code)
        trials.append(Trial(f"{case.claim}, {population.name}: {code}", found, draws, float(delta)))
    for population, code in ((case.good, "SHOWN"), (case.bad, "CLAIM_REFUTED")):
        found = tell(population, draws=few, code=code)
        trials.append(clear(f"{case.claim}, {population.name}: not {code}", found, few))
    return trials


def try_stopping(
    draws: int, random: np.random.Generator, delta: Fraction = DELTA, batch: int = 40
) -> list[Trial]:
    """False answers where units are drawn until the claim is decided, looked at after every ``batch``.

    The looks are those of ``certify evaluate --until-decided`` (:mod:`certify.gate.watch`).
    """
    case = next(case for case in CASES if case.claim == "token-agreement:reference")
    policy = replace(POLICIES["strict"], claims=(REQUIRED[case.claim],), design=tuple(DESIGN))
    trials = []
    for population, code in ((case.wrong, "SHOWN"), (case.right, "CLAIM_REFUTED")):
        found = 0
        for evidence in population.samples(case.n, draws, random):
            last = sequential.rehearse(sequential.Watch(policy, (subject(),), delta), evidence, batch)[-1]
            found += last.standings[0].answer.code == code
        what = f"{case.claim} until decided, {population.name}: {code}"
        trials.append(Trial(what, found, draws, float(delta)))
    return trials


def try_edges(random: np.random.Generator, draws: int = 12, delta: Fraction = DELTA) -> list[Trial]:
    """Where a limit equals a threshold for certain: which of >= and > is meant decides every draw."""
    trials = []
    for asked, population, code in EDGES:
        found = count(asked, population, 20, draws, random, delta, code)
        trials.append(Trial(f"{asked.claim} {asked}, {population.name}: {code}", found, draws, float(delta)))
    return trials
