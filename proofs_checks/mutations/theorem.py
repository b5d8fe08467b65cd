"""The theorem, the steps that it certifies, and the promise that is tested on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, Final

from certify.base.enclosure import exceeds_log
from certify.claims import criteria
from certify.claims.claim import Finding
from certify.evidence import distances
from certify.evidence.distances import Distances, Step
from certify.stats import theorem
from certify.stats.rates import rate_at_most
from proofs_checks.check import Fact
from proofs_checks.mutations.bug import Judged
from proofs_checks.theory.finite import CERTIFIED, restricted_strings, variation
from proofs_checks.theory.path import facts_of

F = Fraction
TINY: Final = F(1, 10**12)
HALF: Final = F(1, 2)

THEOREM: Final = Judged("theorem", "the three criteria and the variation of a decision")


@THEOREM.bug("certify.stats.theorem:published")
def _tau(_: Any, r: Fraction, d: int, alpha: Fraction) -> bool:
    """The published shape of the theorem, read carelessly: tau decides on distances, 2 tau on margins."""
    return r > 0 and exceeds_log(d * r * r, 2 / alpha)


@THEOREM.bug("certify.stats.theorem:published")
def _squared(original: Any, r: Fraction, d: int, alpha: Fraction) -> bool:
    """The published shape of the theorem, read carelessly: squaring an inequality loses the sign."""
    return bool(original(abs(r), d, alpha))


@THEOREM.bug("certify.stats.theorem:additive")
def _tie(original: Any, r: Fraction, h: Collection[int], d: int, v: int = 4) -> bool:
    """The non-strict inequality (C6): equality is a tie."""
    return bool(original(r + TINY, h, d, v))


@THEOREM.bug("certify.stats.theorem:loss")
def _largest(original: Any, h: Collection[int], d: int, v: int = 4) -> Fraction:
    """The published theorem on several changed rows (A-ONE, C5): their deviations add up."""
    return Fraction(original([max(h, default=0)], d, v))


@THEOREM.bug("certify.stats.theorem:loss")
def _half_lines(original: Any, h: Collection[int], d: int, _: int = 4) -> Fraction:
    """The published theorem on more than two classes (A-ORDER, C8): V is 2 for two half-lines only."""
    return Fraction(original(h, d, 2))


@THEOREM.bug("certify.stats.theorem:variation")
def _easiest_rival(original: Any, labels: Sequence[str], winner: str) -> Any:
    """The published shape of the theorem, read carelessly: V is of the worst rival, not of the nearest."""
    others = set(labels) - {winner} or {winner}
    return min(original([one if one in (winner, c) else "-" for one in labels], winner) for c in others)


@THEOREM.judge
def judge_criteria() -> Iterator[Fact]:
    """The three criteria at and beside their thresholds; d = 4096 has tau(.05) = .0300101."""
    yield "r between D and 2D is not enough", not theorem.measured_max(F(3, 16), [1], 8)
    yield "r = 2D is not enough", not theorem.measured_max(F(2, 8), [0, 1], 8)
    yield "r above 2D is", theorem.measured_max(F(2, 8) + TINY, [0, 1], 8)
    yield "r = V D is not enough", not theorem.additive(HALF, [1], 8, 4)
    yield "r above V D is", theorem.additive(HALF + TINY, [1], 8, 4)
    yield "C5: r = 1 against 2/3 + 2/3", not theorem.additive(F(1), [1, 1], 3, 2)
    wide, narrow = (theorem.additive(F(5, 16), [1], 8, v) for v in (3, 2))
    yield "V 3 asks for more than V 2", narrow and not wide
    yield "V sum D = 1 is vacuous", theorem.is_vacuous([2], 8, 4) and not theorem.is_vacuous([1], 8, 4)
    yield "the loss adds", theorem.loss([1, 1, 2], 8, 4) == 2
    level = F(1, 20)
    yield "r = .04 is above tau only", not theorem.published(F(4, 100), 4096, level)
    yield "r = .0600 is not above 2 tau", not theorem.published(F(600, 10**4), 4096, level)
    yield "r = .0601 is", theorem.published(F(601, 10**4), 4096, level)
    yield "a negative gap", not theorem.published(F(-1, 2), 4096, level)
    above = [theorem.above_tau(h, 4096, level) for h in (122, 123)]
    yield "h = 122 and 123 about tau", above == [False, True]
    yield "the premise is about every row", not theorem.premise_holds([0, 123, 5], 4096, level)
    yield "and holds below tau", theorem.premise_holds([0, 122, 5], 4096, level)
    least = theorem.critical_margin(4096, level, 10**9)
    yield "the critical margin is the smallest", least == 60_020_175


@THEOREM.judge
def judge_variation() -> Iterator[Fact]:
    """V of every label string of up to five atoms, by the definition."""
    for labels in (s for length in range(2, 6) for s in restricted_strings(length, length)):
        yield f"V of {labels}", theorem.variation(labels, CERTIFIED) == variation(labels)


STEPS: Final = Judged("steps", "the steps of a text, and which rows were fed")


@STEPS.bug("certify.evidence.distances:measure")
def _generated(original: Any, units: Any, arm: str, moved: Distances) -> Any:
    """Taking N for the rows of the source sentence: generated tokens are fed, and N grows with them."""
    found = original(units, arm, moved)
    return {
        unit: tuple(step._replace(total=steps[0].total, changed=steps[0].changed) for step in steps)
        for unit, steps in found.items()
    }


@STEPS.bug("certify.evidence.distances:measure")
def _repeated(original: Any, units: Any, arm: str, moved: Distances) -> Any:
    """Counting occurrences, as frequency tables do: a token that is fed again adds no deviation."""

    def again(step: Step) -> Step:
        fed = [*step.record.prompt, *step.record.reference.tokens[: step.t]]
        return step._replace(total=sum(moved.h.get(token, 0) for token in fed))

    return {unit: tuple(map(again, steps)) for unit, steps in original(units, arm, moved).items()}


@STEPS.judge
def judge_steps() -> Iterator[Fact]:
    """A record with repeated, unchanged and generated tokens, each step by hand."""
    said = (7, 5, 7, 9)
    reference = SimpleNamespace(tokens=said, argmaxes=lambda: said, margin=lambda t: 5 - t)
    arms = {"t": SimpleNamespace(differs=((2, 8),), path=None)}
    record: Any = SimpleNamespace(prompt=(1, 5, 5, 2), reference=reference, arms=arms)
    found = distances.measure({"u": (record,)}, "t", Distances(10, {5: 3, 7: 4, 9: 9, 1: 0}))["u"]
    yield "largest h over N", [step.largest for step in found] == [3, 4, 4, 4]
    yield "sum of h over N", [step.total for step in found] == [3, 7, 7, 7]
    yield "size of N", [step.changed for step in found] == [2, 3, 3, 3]
    yield "margins", [step.margin for step in found] == [5, 4, 3, 2]
    yield "disagreements", [step.disagrees for step in found] == [False, False, True, False]
    yield "decisions", [step.actual for step in found] == [7, 5, 8, 9]


GUARANTEE: Final = Judged("guarantee", "the promise of a criterion, over units")


@GUARANTEE.bug("certify.claims.criteria:guarantee")
def _idle_units(original: Any, units: Any, *rest: Any, **more: Any) -> Any:
    """Abstentions counted as correct: units without a certified step say nothing about certified steps."""
    found = original(units, *rest, **more)
    held = found.drawn and rate_at_most(found.disagreements, len(units), F(found.alpha), found.delta)
    return replace(found, finding=Finding.HELD, drawn=len(units)) if held else found


@GUARANTEE.bug("certify.claims.criteria:guarantee")
def _pooled(original: Any, units: Any, *rest: Any, **more: Any) -> Any:
    """Tokens taken for independent draws (Miller 2024): steps of one unit are one draw."""
    single = {f"{unit}.{t}": (step,) for unit, steps in units.items() for t, step in enumerate(steps)}
    return original(single, *rest, **more)


@GUARANTEE.bug("certify.claims.criteria:drawn_index")
def _first_step(*_: Any) -> int:
    """Taking the first step, for simplicity: it is no random one, because errors come late."""
    return 0


@GUARANTEE.bug("certify.claims.criteria:guarantee")
def _silence_holds(original: Any, *rest: Any, **more: Any) -> Any:
    """Vacuous truth, as no violation was found: nothing certified is VACUOUS, never HELD."""
    found = original(*rest, **more)
    return found if found.drawn else replace(found, finding=Finding.HELD)


@GUARANTEE.bug("certify.claims.criteria:guarantee")
def _premise(original: Any, units: Any, moved: Distances, **more: Any) -> Any:
    """Tickets whose published premise was taken for granted: if it fails, the theorem promises nothing."""
    return original(units, Distances(moved.d, {}), **more)


def _judged(
    units: Mapping[str, Sequence[tuple[int, int, bool]]], criterion: str = "additive", h: int = 1, d: int = 8
) -> Any:
    """The finding on units of steps (margin in 1e-9, sum of h, disagrees), where one row has moved by h."""
    record: Any = SimpleNamespace(prompt=(3,), reference=SimpleNamespace(tokens=(5,)))
    made = {
        unit: tuple(Step(record, t, r, h, h, 1, 1, 1 + wrong) for t, (r, h, wrong) in enumerate(found))
        for unit, found in units.items()
    }
    return criteria.guarantee(made, Distances(d, {3: h}), alpha="0.05", criterion=criterion)  # type: ignore[arg-type]


@GUARANTEE.judge
def judge_guarantee() -> Iterator[Fact]:
    """Units with and without certified steps, few and many of them, at known limits."""
    unit = 10**9
    certified, not_certified = (unit, 1, False), (unit // 2, 1, False)  # V sum D = 4/8 at d = 8
    clean = {f"u{i}": [certified] for i in range(59)}
    idle = {f"v{i}": [not_certified] for i in range(100)}
    held = _judged(clean)
    yield "59 clean units are enough at .05", (held.finding, held.drawn, held.certified) == ("held", 59, 59)
    few = {name: clean[name] for name in list(clean)[:50]}
    yield "50 are not", _judged(few).finding == "inconclusive"
    mixed = _judged({**few, **idle})
    yield "idle units count for nothing", (mixed.finding, mixed.drawn) == ("inconclusive", 50)
    many = {name: [certified] * 5 for name in list(clean)[:20]}
    yield "steps of one unit are one draw", _judged(many).finding == "inconclusive"
    yield "nothing certified is vacuous", _judged(idle).finding == "vacuous"
    bad = {f"w{i}": [(unit, 1, True)] for i in range(20)}
    broken = _judged({**few, **bad})
    yield "20 of 70 refute", (broken.finding, broken.disagreements, broken.violations) == ("refuted", 20, 20)
    for count, finding in ((123, "premise failed"), (122, "held")):
        found = _judged(clean, "published", count, 4096)
        yield f"published where h = {count} of 4096", found.finding == finding
    draws = [criteria.drawn_index(f"u{i}", 5) for i in range(40)]
    yield "the unit decides the draw", set(draws) == set(range(5))


PATH: Final = Judged("path", "the path theorem, from labels to the decision")


@PATH.bug("certify.stats.path:PathLaw.decide")
def _reached(original: Any, law: Any, labels: Sequence[int]) -> Any:
    """The non-strict inequality: L(Q1(A)) = U(Q1(c)) leaves room for a tie."""
    found = original(law, labels)
    masses = Counter[int]()
    for label, mass in zip(labels, law.q1, strict=True):
        masses[label] += mass
    rival = max((mass for label, mass in masses.items() if label != found.label), default=0)
    return replace(found, certified=law.least(masses[found.label]) >= law.greatest(rival))


@PATH.bug("certify.stats.path:PathLaw.greatest")
def _unseen(original: Any, law: Any, mass: int) -> Fraction:
    """What Q1 never sees taken for nothing: Q0 gives it the mass U(0)."""
    return Fraction(original(law, mass)) if mass else F(0)


@PATH.bug("certify.stats.path:PathLaw.decide")
def _backwards(original: Any, law: Any, labels: Sequence[int]) -> Any:
    """The lattice of Q0 shifted the wrong way: strengths beyond E* instead of those toward the release."""
    return original(law, labels[::-1])


@PATH.bug("certify.stats.path:PathLaw.decide")
def _highest(original: Any, law: Any, labels: Sequence[int]) -> Any:
    """Ties to the highest id: argmax takes the first, and so must whoever counts its labels."""
    found = original(law, [-label for label in labels])
    return replace(found, label=-found.label)


@PATH.judge
def judge_path() -> Iterator[Fact]:
    """Every label string of small lattices, by the definitions."""
    for n, g in ((2, 1), (2, 2), (3, 1), (3, 2), (4, 1)):
        yield from facts_of(n, g)
