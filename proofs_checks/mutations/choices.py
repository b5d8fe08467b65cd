"""Choosing a ticket, and looking at evidence that grows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, Final

from certify.gate import choose, watch
from proofs_checks.check import Fact
from proofs_checks.mutations.bug import Judged
from proofs_checks.mutations.evidence import code_of
from proofs_checks.worlds.outlines import RIGHT, WRONG, arm, evidence, subject

F = Fraction
DELTA: Final = F(1, 20)

CHOICE: Final = Judged("choice", "choosing a ticket")


@CHOICE.bug("certify.gate.choose:candidates")
def _smallest_first(original: Any, found: Any) -> Any:
    """Starting with the ticket that one hopes for: the order of tests is fixed beforehand."""
    return original(found)[::-1]


@CHOICE.bug("certify.stats.budget:fixed_sequence")
def _goes_on(_: Any, rejections: Any) -> int:
    """Shipping the best of many tickets, at .10 to .14 for .05: testing ends with the first failure."""
    return sum(rejections)


@CHOICE.bug("certify.gate.choose:choose")
def _unknown_data(original: Any, found: Any, *rest: Any) -> Any:
    """Choosing on the development set that tuning looked at: data of unknown use are no data to choose on."""
    used = found.used if found.used.get("tuning") else {**found.used, "tuning": frozenset({"-"})}
    return original(SimpleNamespace(**vars(found) | {"used": used}), *rest)


@CHOICE.judge
def judge_choice() -> Iterator[Fact]:
    """Three tickets of known agreement: who is a candidate, in which order, and where testing stops."""
    arms = [arm("small", 2), arm("large", 9), arm("null", 3, control="random"), arm("middle", 5)]
    arms += [arm("same", 9, table_sha256="table of large"), arm("tuned", 7, kind="tuned")]

    def chosen(wrong: Mapping[str, int], **more: Any) -> Any:
        answers = {one.name: [WRONG] * wrong.get(one.name, 0) for one in arms}
        answers = {name: some + [RIGHT] * (80 - len(some)) for name, some in answers.items()}
        return choose.choose(evidence(arms, answers, **more), choose.parse_goal("agreement:0.95"), DELTA)

    def name(choice: Any) -> str | None:
        return None if choice.chosen is None else choice.chosen.arm.name

    every = chosen({})
    order = [one.name for one in every.candidates]
    yield "no controls, the largest first, each table once", order == ["large", "middle", "small"]
    yield "all good: the smallest", name(every) == "small"
    some = chosen({"middle": 9})
    yield "testing stops at the first that is not shown", (name(some), len(some.tested)) == ("large", 2)
    yield "the largest fails: none", name(chosen({"large": 9})) is None
    # Of 80 units 59 clean ones would do: P(B(80, .95) = 80) = .0165, with one wrong unit .086.
    yield "one wrong unit of 80 is too many", name(chosen({"large": 1})) is None
    yield "data of unknown use are refused", code_of(lambda: chosen({}, used={})) != ""
    shown = every.tested[0].limit.value
    tight = shown**80 <= DELTA < (shown + F(1, 2**32)) ** 80
    yield "the limit beside it is the exact one", tight


LOOKS: Final = Judged("looks", "evidence that grows")


@LOOKS.bug("certify.gate.watch:Look.decided")
def _first_decided(original: Any, look: Any) -> bool:
    """Stopping at the first metric that is good enough: drawing ends when nothing is open."""
    return bool(original(look) or not all(one.open for one in look.standings))


@LOOKS.bug("certify.gate.watch:rehearse")
def _last_batch(original: Any, watching: Any, found: Any, batch: int) -> Any:
    """Moving averages of the last batch: a look sees everything that was drawn."""

    def look(one: Any) -> Any:
        return watching.look(replace(one, records=one.records[-batch:]))

    return original(SimpleNamespace(look=look), found, batch)


@dataclass(frozen=True)
class _Growing:
    """Evidence of which heads can be made, as the rehearsal does."""

    manifest: Any
    records: tuple[Any, ...]

    @property
    def units(self) -> dict[str, Any]:
        return {record.unit: (record,) for record in self.records}


@LOOKS.judge
def judge_looks() -> Iterator[Fact]:
    """When drawing stops: what is open, what a look sees, which error is allowed."""
    closed, open_ = (SimpleNamespace(open=state) for state in (False, True))
    for standings, decided in (((closed, open_, closed), False), ((closed, closed), True)):
        look = watch.Look(3, standings)  # type: ignore[arg-type]
        yield f"decided with {len(standings)} requirements: {decided}", look.decided == decided
    asked = SimpleNamespace(claim="gain:base:whole", role="evaluation")
    policy: Any = SimpleNamespace(name="p", claims=(asked,), delta=DELTA, taken=frozenset())
    about: Any = subject()
    refused = code_of(lambda: watch.Watch(policy, (about,), 2 * DELTA))
    yield "no more error than the policy allows", refused != ""
    yield "a share of it is fine", watch.Watch(policy, (about,), DELTA / 2).left_out == ()
    order = [f"u{i}" for i in range(7)]
    manifest = SimpleNamespace(model_copy=lambda update: SimpleNamespace(**update))
    world: Any = _Growing(manifest, tuple(SimpleNamespace(unit=unit) for unit in order))
    for enough, heads in ((5, [2, 4, 6]), (9, [2, 4, 6, 7]), (1, [2])):
        seen: list[list[str]] = []

        def look_at(one: Any, seen: list[list[str]] = seen, enough: int = enough) -> Any:
            seen.append([record.unit for record in one.records])
            return SimpleNamespace(decided=len(one.records) >= enough and one.manifest.design == "sequential")

        stub: Any = SimpleNamespace(look=look_at)
        watch.rehearse(stub, world, 2)
        yield f"heads of the order until {enough} units decide", seen == [order[:head] for head in heads]
