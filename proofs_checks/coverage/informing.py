"""Every claim that no policy can require: counts against the plain records, limits against the truth.

Counts must be those of the records that were drawn, always. A limit must not lie on the wrong side of the
truth of the population (:mod:`proofs_checks.worlds.populations`) more often than it says; those of corpus
scores hold for many units only, and come near to what they say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np

from certify.claims import registry
from certify.claims.claim import Claim
from certify.claims.corpus import resampled
from certify.claims.kind import Variant
from proofs_checks.coverage.claims import subject
from proofs_checks.coverage.trials import DELTA, Trial
from proofs_checks.worlds import synthetic
from proofs_checks.worlds.populations import Population, UnitKind, advantage, agreement

Json = Any

ASYMPTOTIC: Final = Fraction(3, 100)
"""By how much limits for many units may miss more often than they say, at :data:`UNITS` units."""

UNITS: Final = 60
"""Units that are drawn."""


@dataclass(frozen=True)
class Known:
    """One claim whose right answer is known.

    It is false, given the plain records of each unit that was drawn, in a share ``most`` of draws at most.
    """

    kind: str
    variant: Variant
    population: Population
    false: Callable[[Claim, Sequence[Sequence[Json]]], bool]
    most: Fraction = Fraction(0)


# --- populations -------------------------------------------------------------------------------------------


def _unit(weight: int, *sentences: tuple[tuple[int, int], str, tuple[int, ...], tuple[int, ...]]) -> UnitKind:
    """For each sentence matches of ticket and base, letters of decisions, ids of prompt and base's output."""
    records = []
    for number, ((ours, base), letters, prompt, output) in enumerate(sentences):
        wrong = tuple((t, 99) for t, letter in enumerate(letters) if letter == "D")
        arms = {
            "base": synthetic.Behaviour((base, base, 20 - base)),
            "reference": synthetic.Behaviour((12,) * 3),
            "t": synthetic.Behaviour((ours, ours, 20 - ours), wrong),
        }
        tokens = [30 + t for t in range(len(letters))]
        record = synthetic.sentence(number, arms, prompt=prompt, tokens=tokens, base_tokens=output)
        gap = {t for t, _ in wrong}  # where the arm decides otherwise, E* wins on both sides of it
        labels = [f"{i}*8,99*2,{i}*9" if t in gap else f"{i}*19" for t, i in enumerate(tokens)]
        record["arms"]["t"]["path"] = labels
        records.append(record)
    return UnitKind(weight, tuple(records))


FED, FREE, SAID = (1, 5, 20), (1, 20), (40, 7, 2)
"""A prompt with a row of the ticket, one without, and an output with one."""

_KINDS: Final = (
    _unit(4, ((14, 8), "aaa", FREE, (40, 2)), ((12, 9), "aa", FED, (40, 2))),
    _unit(3, ((9, 12), "aDa", FREE, SAID)),
    _unit(2, ((16, 7), "a", FREE, (40, 7)), ((15, 5), "aaaa", FREE, SAID), ((18, 4), "a", FED, SAID)),
)
_PATH: Final = {"path": {"n": 16, "g": 2}}
TASK: Final = Population("units of one to three sentences", _KINDS, fields=_PATH)
OTHER: Final = Population(
    "the same under another template",
    _KINDS,
    fields={"template": {"name": "reworded", "sha256": synthetic.digest("another template")}, **_PATH},
)


# --- the truth, from plain records -------------------------------------------------------------------------


def _share(units: Sequence[Sequence[Json]], *, run: bool) -> Fraction:
    """Share of sentences whose prompt, or whose whole run of the base, feeds a row of the ticket."""
    records = [record for unit in units for record in unit]
    fed = [{*one["prompt"], *(one["arms"]["base"]["tokens"][:-1] if run else ())} for one in records]
    return Fraction(sum(not ids.isdisjoint(synthetic.TICKET_IDS) for ids in fed), len(records))


def _without_gap(units: Sequence[Sequence[Json]]) -> Fraction:
    """Share of steps at which the arm decides as E* does."""
    records = [record for unit in units for record in unit]
    wrong = sum(len(record["arms"]["t"]["differs"]) for record in records)
    return 1 - Fraction(wrong, sum(len(record["reference"]["tokens"]) for record in records))


def corpus_gain(population: Population, bleu: bool) -> float:
    """Corpus BLEU or chrF++ of ``t`` minus that of ``base``, first line, over the whole population."""

    def score(arm: str) -> float:
        sums = np.zeros(34)
        for kind in population.kinds:
            for answer in (record["arms"][arm] for record in kind.records):
                sums += kind.weight * np.array(answer["stats"][answer["rules"][1]], dtype=float)
        if bleu:  # as long as the reference: no penalty
            return 100 * math.exp(np.mean(np.log(sums[2:6] / sums[6:10])))
        return 100 * float(np.mean(sums[12::3] / sums[10::3]))  # as many n-grams on both sides

    return score("t") - score("base")


def _above(truth: Fraction | float) -> Callable[[Claim, Sequence[Sequence[Json]]], bool]:
    """The lower limit is missing, or above the truth."""
    return lambda claim, _: claim.lower is None or claim.lower > truth


def _gains_differ(claim: Claim, units: Sequence[Sequence[Json]]) -> bool:
    """A mean gain is not that of the units that were drawn, each as often as it was."""
    drawn = Population("the sample", tuple(UnitKind(1, tuple(unit)) for unit in units))
    # Scores of units are rounded down to 2**-32.
    gains = claim.detail["gain"].items()
    return any(abs(Fraction(gain) - advantage(drawn, "base", rule)) > 1e-6 for rule, gain in gains)


_NONE, _BASE = Variant(), Variant("base", "first-line")

KNOWN: Final = (
    Known("data-split", _NONE, TASK, lambda claim, units: claim.n != sum(map(len, units))),
    Known("opportunity", _NONE, TASK, lambda claim, units: claim.estimate != _share(units, run=False)),
    Known(
        "non-interference", _NONE, TASK, lambda claim, units: claim.estimate != 1 - _share(units, run=True)
    ),
    Known("interval-share", _NONE, TASK, lambda claim, units: claim.estimate != _without_gap(units)),
    Known("termination", Variant("base"), TASK, _gains_differ),
    Known("corpus-bleu", _BASE, TASK, _above(corpus_gain(TASK, bleu=True)), DELTA + ASYMPTOTIC),
    Known("corpus-chrf", _BASE, TASK, _above(corpus_gain(TASK, bleu=False)), DELTA + ASYMPTOTIC),
    Known("template-agreement", Variant("reference"), OTHER, _above(agreement(OTHER)[0]), DELTA),
)


def try_known(case: Known, draws: int, random: np.random.Generator) -> Trial:
    """How often the claim is false."""
    about, kind, found = subject(), registry.KINDS[case.kind], 0
    for _ in range(draws):
        places = case.population.draw(UNITS, random)
        evidence = case.population.evidence(places, f"{random.integers(1 << 62)}")
        (claim,) = kind.compute(evidence, about, (case.variant,), DELTA)
        if kind.asymptotic:
            claim = resampled(claim, evidence)
        found += case.false(claim, [case.population.kinds[place].records for place in places])
    return Trial(f"{case.kind}, {case.population.name}", found, draws, float(case.most))
