"""Evidence sampled from a predictor of known behaviour, and Hypothesis strategies over small evidence."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from proofs_checks.worlds.synthetic import FULL, UNIT, WIDTH, Behaviour, plain_arms, sentence

Json = Any


@dataclass(frozen=True)
class Truth:
    """A predictor whose behaviour is known: what evidence about it should show.

    Attributes:
        disagreement: probability that a decision of the ticket's arm is not the reference's, step by step.
        certified: probability that a step has a margin that the criteria accept; others have margin 0.
        steps: decisions a sentence.
        quality: expected sentence chrF by arm (0 to 100), or one number for arms that are not named.
        per_unit: sentences a unit.
        correlated: all sentences of a unit behave alike.
    """

    disagreement: float = 0.0
    certified: float = 1.0
    steps: int = 4
    quality: Mapping[str, float] = field(default_factory=dict)
    per_unit: int = 1
    correlated: bool = False

    def world(
        self, seed: int, units: int, arms: Sequence[Json] | None = None
    ) -> tuple[list[Json], list[Json]]:
        """Sample so many units for ``arms`` (base, reference and t by default): (records, arms)."""
        generator = random.Random(seed)
        arms = plain_arms() if arms is None else list(arms)
        names = [str(one["name"]) for one in arms]
        records = []
        for unit in range(units):
            state = generator.getstate()
            for place in range(self.per_unit):
                if self.correlated:
                    generator.setstate(state)
                number = unit * self.per_unit + place
                records.append(self._sentence(generator, number, str(unit), names))
        return records, arms

    def _sentence(self, generator: random.Random, number: int, unit: str, names: Sequence[str]) -> Json:
        tokens = [30 + t for t in range(self.steps)]
        margins = [900_000_000 if generator.random() < self.certified else 0 for _ in tokens]
        wrong = tuple((t, 99) for t in range(self.steps) if generator.random() < self.disagreement)
        behaviours = {}
        for name in names:
            rate = self.quality.get(name, 50.0) / 100
            matches = sum(generator.random() < rate for _ in range(FULL))
            behaviours[name] = Behaviour((matches,) * 3, wrong if name == "t" else ())
        return sentence(number, behaviours, unit=unit, tokens=tokens, margins=margins)


@st.composite
def worlds(
    draw: st.DrawFn,
    *,
    max_units: int = 3,
    arms: Sequence[str] = ("base", "reference", "t"),
    heights: Mapping[int, int] | None = None,
    width: int = WIDTH,
) -> list[Json]:
    """Records in which prompts, outputs, margins, decisions and scores are drawn, in up to so many units.

    Ids are small, so that prompts and outputs often meet the rows of tickets. Half of the margins lie at a
    threshold of a criterion or 1e-9 beside it: ``2 h/d`` of the largest h that is fed, ``4`` times their sum,
    ``2 tau`` of a level that tests use.

    Args:
        max_units: units.
        arms: names of the arms.
        heights: h of the rows of N by id; none by default.
        width: d.
    """
    ids = st.integers(3, 15)
    quarters = st.integers(0, UNIT // 4)
    taus = [int(UNIT * 2 * math.sqrt(math.log(2 / level) / width)) for level in (0.05, 0.5, 0.95, 0.001)]

    def margin(fed: Iterable[int]) -> int:
        h = [(heights or {}).get(token, 0) for token in set(fed)]
        edges = [2 * max(h) * UNIT // width, 4 * sum(h) * UNIT // width, *taus]
        near = draw(st.sampled_from([None, *edges[:2], draw(st.sampled_from(edges))]))
        if near is None or near > UNIT:
            return 4 * draw(quarters)
        return min(UNIT, max(0, near + draw(st.integers(-1, 2))))

    records = []
    for number in range(draw(st.integers(1, max_units * 2))):
        tokens = draw(st.lists(ids, min_size=1, max_size=4))
        steps = range(len(tokens))
        behaviours = {}
        for name in arms:
            places = sorted(draw(st.sets(st.sampled_from(steps)))) if name not in ("reference",) else []
            behaviours[name] = Behaviour(
                matches=draw(st.tuples(*[st.integers(0, FULL)] * 3)),
                differs=tuple((t, 99) for t in places),
                ended=draw(st.booleans()),
                length=draw(st.integers(1, 9)),
            )
        prompt = draw(st.lists(ids, min_size=1, max_size=5))
        records.append(
            sentence(
                number,
                behaviours,
                unit=str(draw(st.integers(0, max_units - 1))),
                prompt=prompt,
                tokens=tokens,
                margins=[margin([*prompt, *tokens[:t]]) for t in steps],
                base_tokens=draw(st.lists(ids, min_size=1, max_size=4)),
            )
        )
    return records
