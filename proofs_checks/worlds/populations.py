"""Populations of units whose truth is a fraction, and evidence drawn from them.

A population is a finite list of kinds of units with whole weights. Every kind is a few records as plain JSON
(:mod:`proofs_checks.worlds.synthetic`), read by the real parser once; a sample draws kinds
independently and gives each unit names and digests of its own. What a claim speaks about is then a mean
over kinds, counted here from the plain records alone, so that a hair above a threshold is a hair and not a
matter of luck.

The units are those of theory §5: several sentences and several certified steps in one, all alike or not, and
large ones behaving otherwise than small ones, so that pooling sentences or steps gives another number.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from msgspec.structs import replace

from certify.evidence.load import Evidence
from certify.evidence.parser import RecordParser
from certify.evidence.read import Manifest, Record, TranslationRecord, parse_manifest
from proofs_checks.worlds import synthetic

Json = Any

SURE: Final = 900_000_000
"""Margin of a step that every criterion certifies on the tables of these simulations."""

UNSURE: Final = 100_000_000
"""Margin of a step that none does."""

USED: Final = {"tuning": ("0" * 16,)}
"""Sentences used before: a digest that no sentence has."""

_RULES: Final = ("whole", "first-line", "cut")


@dataclass(frozen=True)
class UnitKind:
    """One kind of unit: how often it comes up, relatively, and the records of one such unit."""

    weight: int
    records: tuple[Json, ...]


@dataclass(frozen=True)
class Population:
    """What units are drawn from: the name of the text, the kinds of units, and what the manifest says."""

    name: str
    kinds: tuple[UnitKind, ...]
    arms: Sequence[Json] = field(default_factory=synthetic.plain_arms)
    fields: Mapping[str, Json] = field(default_factory=dict)

    @cached_property
    def total(self) -> int:
        """Sum of the weights."""
        return sum(kind.weight for kind in self.kinds)

    def mean(self, values: Sequence[Fraction]) -> Fraction:
        """Mean of one value for each kind, exactly."""
        weighed = (kind.weight * value for kind, value in zip(self.kinds, values, strict=True))
        return sum(weighed, Fraction(0)) / self.total

    def draw(self, n: int, random: np.random.Generator) -> list[int]:
        """Kinds of ``n`` independent units."""
        edges = np.cumsum([kind.weight for kind in self.kinds])
        found: list[int] = np.searchsorted(edges, random.integers(0, self.total, size=n), "right").tolist()
        return found

    def samples(self, n: int, draws: int, random: np.random.Generator) -> Iterator[Evidence]:
        """Evidence on ``n`` independent units, so many times, in memory."""
        for _ in range(draws):
            yield self.evidence(self.draw(n, random), f"{random.integers(1 << 62)}")

    def evidence(self, places: Sequence[int], tag: str) -> Evidence:
        """Evidence in memory on units of these kinds; units of another ``tag`` have other names."""
        records: list[Record] = []
        for number, place in enumerate(places):
            unit = f"{tag}.{number}"
            for part, record in enumerate(self._parsed[place]):
                name = f"{unit}.{part}"
                first, second = _digests(name)
                if isinstance(record, TranslationRecord):
                    records.append(replace(record, id=name, unit=unit, source=first, target=second))
                else:
                    records.append(replace(record, id=name, unit=unit, window=first, lines=(second,)))
        used = {role: frozenset(digests) for role, digests in USED.items()}
        return Evidence(self._manifest, synthetic.digest(f"{self.name} {tag}"), tuple(records), used)

    def write(self, folder: Path, places: Sequence[int], tag: str) -> Path:
        """The same as files in an existing folder; returns the path of the manifest."""
        records = [
            _named(record, f"{tag}.{number}.{part}", f"{tag}.{number}")
            for number, place in enumerate(places)
            for part, record in enumerate(self.kinds[place].records)
        ]
        fields = self._fields(records)
        return synthetic.write(folder, records, self.arms, used=USED, name=self.name, **fields)

    @cached_property
    def _parsed(self) -> tuple[tuple[Record, ...], ...]:
        """The records of every kind through the real parser."""
        parse = RecordParser(self._manifest)
        return tuple(
            tuple(
                parse(_named(record, f"{number}.{part}", str(number)), f"kind {number}")
                for part, record in enumerate(kind.records)
            )
            for number, kind in enumerate(self.kinds)
        )

    @cached_property
    def _manifest(self) -> Manifest:
        records = [record for kind in self.kinds for record in kind.records]
        return parse_manifest(synthetic.manifest(records, self.arms, **self._fields(records)))

    def _fields(self, records: Sequence[Json]) -> dict[str, Json]:
        text = {"name": self.name, "unit": "document", "attribution": "", **synthetic.text_of(records)}
        return {"text": text, **self.fields}


# --- units -------------------------------------------------------------------------------------------------


def steps(weight: int, text: str) -> UnitKind:
    """A unit of which only decisions matter: a letter for each step, a bar between sentences.

    ``a``: certified, agrees. ``D``: certified, disagrees. ``u``: not certified, agrees. ``x``: not certified,
    disagrees.
    """
    matches = dict.fromkeys(("base", "reference", "t"), (0, 0, 0))
    sentences = (_sentence(number, matches, letters) for number, letters in enumerate(text.split("|")))
    return UnitKind(weight, tuple(sentences))


def decided(name: str, *kinds: tuple[int, str]) -> Population:
    """A population of such units: the weight and the letters of each kind."""
    return Population(name, tuple(steps(weight, text) for weight, text in kinds))


def scored(
    weight: int, *sentences: Mapping[str, int], names: Iterable[str], rest: int = 0, letters: str = "a"
) -> UnitKind:
    """A unit of which quality matters: for each sentence matches by arm under the rule ``first-line``.

    Matches are 0 to :data:`proofs_checks.worlds.synthetic.FULL`; arms of ``names`` that a sentence does not
    name have ``rest``. Under ``whole`` the ticket ``t`` is perfect and every other arm useless, under ``cut``
    the other way round: whoever scores a rule other than the one asked for has another answer. The letters
    are the decisions along each sentence, as for :func:`steps`.
    """
    best = synthetic.FULL
    records = []
    for number, matches in enumerate(sentences):
        found = {name: (0, matches.get(name, rest), best) for name in names}
        found["t"] = (best, matches["t"], 0)
        records.append(_sentence(number, found, letters))
    return UnitKind(weight, tuple(records))


def follow(population: Population, t: str) -> Population:
    """The population, arm ``t`` followed along an output that is that of E*; ``t`` is the declared margin."""
    kinds = tuple(UnitKind(kind.weight, tuple(map(_followed, kind.records))) for kind in population.kinds)
    return dataclasses.replace(population, kinds=kinds, fields={**population.fields, "margins": {"t": t}})


def _followed(record: Json) -> Json:
    ours, steps = record["arms"]["t"], record["reference"]
    own = {key: steps[key] for key in ("tokens", "top", "p_a", "p_b")} | {"differs": ours["differs"]}
    arms = record["arms"] | {"t": ours | {"own": own, "length": len(steps["tokens"])}}
    return record | {"arms": arms}


def windows(weight: int, *rises: tuple[int, Fraction], names: Iterable[str]) -> UnitKind:
    """A unit of unrelated text: (tokens, rise of the ticket's loss a token in nats) for each window.

    Every arm but ``t`` loses five nats a token.
    """
    records = []
    for number, (tokens, rise) in enumerate(rises):
        nats = dict.fromkeys(names, 5 * tokens * synthetic.UNIT)
        nats["t"] += int(tokens * rise * synthetic.UNIT)
        records.append(synthetic.window(number, nats, tokens=tokens))
    return UnitKind(weight, tuple(records))


def _sentence(number: int, matches: Mapping[str, tuple[int, int, int]], letters: str) -> Json:
    wrong = tuple((t, 99) for t, letter in enumerate(letters) if letter in "Dx")
    return synthetic.sentence(
        number,
        {name: synthetic.Behaviour(found, wrong if name == "t" else ()) for name, found in matches.items()},
        tokens=[30 + t for t in range(len(letters))],
        margins=[SURE if letter in "aD" else UNSURE for letter in letters],
    )


# --- the truth, from plain records -------------------------------------------------------------------------


def drawn_rate(population: Population) -> tuple[Fraction, Fraction]:
    """Share of units with a certified step, and the rate at which a step drawn evenly in one disagrees."""
    certified, rate = Fraction(0), Fraction(0)
    for kind in population.kinds:
        found = [wrong for record in kind.records for sure, wrong in _decisions(record) if sure]
        if found:
            certified += Fraction(kind.weight, population.total)
            rate += Fraction(kind.weight * sum(found), population.total * len(found))
    return certified, rate / certified


def agreement(population: Population) -> tuple[Fraction, Fraction]:
    """Share of units in which every decision agrees, and the mean share of decisions that do."""
    kinds = population.kinds
    wrong = [[wrong for record in kind.records for _, wrong in _decisions(record)] for kind in kinds]
    whole = population.mean([Fraction(not any(one)) for one in wrong])
    return whole, population.mean([1 - Fraction(sum(one), len(one)) for one in wrong])


def advantage(population: Population, other: str, rule: str = "first-line") -> Fraction:
    """Mean over units of the mean difference of sentence chrF, ``t`` minus ``other``."""
    found = []
    for kind in population.kinds:
        scores = [_score(record, "t", rule) - _score(record, other, rule) for record in kind.records]
        found.append(Fraction(sum(scores), len(scores)))
    return population.mean(found)


def loss_rise(population: Population) -> Fraction:
    """Mean over units of the rise of the loss a token, in nats."""
    found = []
    for kind in population.kinds:
        nats = sum(record["nats"]["t"] - record["nats"]["base"] for record in kind.records)
        found.append(Fraction(nats, synthetic.UNIT * sum(record["tokens"] for record in kind.records)))
    return population.mean(found)


def excess(population: Population) -> Fraction:
    """Share of units whose loss a token rises by more than two nats."""
    found = []
    for kind in population.kinds:
        nats = sum(record["nats"]["t"] - record["nats"]["base"] for record in kind.records)
        tokens = sum(record["tokens"] for record in kind.records)
        found.append(Fraction(nats > 2 * synthetic.UNIT * tokens))
    return population.mean(found)


def _decisions(record: Json) -> list[tuple[bool, bool]]:
    """(certified, disagrees) of every step."""
    reference = record["reference"]
    wrong = {t for t, _ in record["arms"]["t"]["differs"]}
    gaps = [a - b for a, b in zip(reference["p_a"], reference["p_b"], strict=True)]
    return [(gap > synthetic.UNIT // 2, t in wrong) for t, gap in enumerate(gaps)]


def _score(record: Json, arm: str, rule: str) -> int:
    """Sentence chrF of a vector of :func:`proofs_checks.worlds.synthetic.vector`."""
    answer = record["arms"][arm]
    matches: int = answer["stats"][answer["rules"][_RULES.index(rule)]][-1]
    return 100 // synthetic.FULL * matches


def _named(record: Json, name: str, unit: str) -> Json:
    """The record under other names, about another sentence or window."""
    first, second = _digests(name)
    about = {"source": first, "target": second} if "arms" in record else {"window": first, "lines": [second]}
    return record | {"id": name, "unit": unit} | about


def _digests(name: str) -> tuple[str, str]:
    digest = hashlib.sha256(name.encode()).hexdigest()
    return digest[:16], digest[16:32]
