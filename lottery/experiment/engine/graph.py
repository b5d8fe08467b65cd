"""A graph of cached steps, and the loop that runs it: finished steps are skipped, changed ones run again.

Nothing here depends on what a step does. :mod:`lottery.experiment.layout.layout` builds the graph of an
experiment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from certify.base.errors import UsageError
from certify.base.jsonio import pretty_json, read_json, write_bytes
from lottery.experiment.engine.cache import Cache, Done, step_key

State = Literal["done", "void", "stale", "started", "pending"]
"""State of a step: finished; finished with nothing to do; finished for other inputs, or damaged; started but
not finished; not started."""


class Void(Exception):
    """Raised by an action if there is nothing to do, with the reason. This is a valid outcome."""


@dataclass(frozen=True, slots=True)
class Input:
    """The outputs of an earlier step, as read by a step.

    Attributes:
        void: why it has none; empty otherwise.
    """

    folder: Path
    outputs: tuple[str, ...]
    void: str = ""

    def path(self, relative: str) -> Path:
        """Path of one output."""
        return self.folder / relative

    def json(self, relative: str) -> Any:
        """Content of one output, a JSON file."""
        return read_json(self.folder / relative, what="output of a step")


@dataclass(frozen=True, slots=True)
class Work:
    """The arguments of an action.

    Attributes:
        folder: folder to work in, with the files of a killed attempt with the same key.
        parameters: parameters of the step; only these and ``inputs`` may determine the outcome.
        inputs: role -> outputs of an earlier step.
    """

    folder: Path
    parameters: Mapping[str, Any]
    inputs: Mapping[str, Input]

    def write(self, relative: str, value: Mapping[str, Any]) -> None:
        """Write a JSON file, for people and later steps."""
        write_bytes(self.folder / relative, pretty_json(dict(value)).encode("utf-8"))


@dataclass(frozen=True, slots=True)
class Result:
    """The result of an action: relative paths of its outputs (files or folders), and facts for people."""

    outputs: tuple[str, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GraphStep:
    """One step of the graph.

    Attributes:
        name: unique name: words separated by ``/``.
        parameters: JSON values that determine the outcome, together with the inputs.
        needs: role -> name of an earlier step whose outputs are read.
        after: names of earlier steps that must be finished first, though their outputs are not read.
        collects: whether the step accepts void inputs; otherwise a void input makes it void.
        work: amount of computation, for estimates; not used here.
    """

    name: str
    kind: str
    version: int
    parameters: Mapping[str, Any]
    action: Callable[[Work], Result]
    needs: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    collects: bool = False
    work: Any = None


@dataclass(frozen=True, slots=True)
class StepStanding:
    """State of a step, with its key (empty while an input is missing) and, if finished, its record."""

    step: GraphStep
    state: State
    key: str
    done: Done | None
    reason: str = ""


class Graph:
    """Steps in an order in which they can run."""

    def __init__(self, steps: Iterable[GraphStep]) -> None:
        """Take the steps in order.

        Raises:
            ValueError: two steps have the same name, or a step needs one that does not come before it.
        """
        self.steps: tuple[GraphStep, ...] = tuple(steps)
        known: set[str] = set()
        for step in self.steps:
            missing = ({*step.needs.values(), *step.after}) - known
            if step.name in known or missing:
                raise ValueError(f"step {step.name} is repeated, or does not come after {sorted(missing)}")
            known.add(step.name)

    def standings(self, cache: Cache) -> list[StepStanding]:
        """Determine the state of every step; reads and digests every output of a finished step."""
        found: dict[str, StepStanding] = {}
        for step in self.steps:
            found[step.name] = _standing(step, found, cache)
        return list(found.values())

    def chosen(self, only: Sequence[str]) -> set[str]:
        """Names that match a pattern of ``only`` (``*`` and ``?`` as in file names), and all they need.

        Raises:
            UsageError: a pattern matches nothing (``STEP_UNKNOWN``).
        """
        wanted: set[str] = set()
        for pattern in only:
            matched = {step.name for step in self.steps if fnmatchcase(step.name, pattern)}
            if not matched:
                listed = ", ".join(sorted({step.name.split("/")[0] for step in self.steps}))
                raise UsageError(
                    f"no step {pattern!r}: names of steps begin with {listed}, and * matches anything",
                    code="STEP_UNKNOWN",
                )
            wanted |= matched
        for step in reversed(self.steps):
            if step.name in wanted:
                wanted |= {*step.needs.values(), *step.after}
        return wanted

    def run(
        self,
        cache: Cache,
        *,
        only: Sequence[str] = (),
        watch: Callable[[str, GraphStep, StepStanding | None], None] | None = None,
    ) -> list[StepStanding]:
        """Finish every step, or those that ``only`` names and what they need; return their standings.

        Args:
            only: patterns of names; empty means all.
            watch: called as ``(event, step, standing)``: ``skipped`` for a finished step; ``started`` before
                an action (the standing says why it must run); ``finished`` after it, with the new standing;
                or ``failed``, after which the error propagates.
        """
        tell = watch or (lambda _event, _step, _standing: None)
        wanted = self.chosen(only) if only else {step.name for step in self.steps}
        found: dict[str, StepStanding] = {}
        for step in self.steps:
            if step.name not in wanted:
                continue
            standing = _standing(step, found, cache)
            if standing.done is not None and standing.state in ("done", "void"):
                tell("skipped", step, standing)
            else:
                tell("started", step, standing)
                try:
                    standing = _perform(step, standing.key, found, cache)
                except BaseException:
                    tell("failed", step, None)
                    raise
                tell("finished", step, standing)
            found[step.name] = standing
        return list(found.values())


def _standing(step: GraphStep, found: Mapping[str, StepStanding], cache: Cache) -> StepStanding:
    done = cache.done(step.name)
    inputs: dict[str, Mapping[str, str]] = {}
    for role, name in step.needs.items():
        before = found[name]
        if before.done is None or before.state not in ("done", "void"):
            state: State = "pending" if done is None else "stale"
            return StepStanding(step, state, "", done, f"{name} comes first")
        # A collecting step also sees that an input is void.
        inputs[role] = {"": before.done.void} if before.done.void else before.done.outputs
    key = step_key(step.kind, step.version, step.parameters, inputs)
    if done is None:
        begun = cache.started(step.name)
        return StepStanding(step, "started" if begun == key else "pending", key, None)
    if done.key != key:
        return StepStanding(step, "stale", key, done, "its plan or its inputs changed")
    if damaged := cache.damage(step.name, done):
        return StepStanding(step, "stale", key, done, f"{damaged} is damaged")
    return StepStanding(step, "void" if done.void else "done", key, done, done.void)


def _perform(step: GraphStep, key: str, found: Mapping[str, StepStanding], cache: Cache) -> StepStanding:
    inputs = {role: _input(found[name], cache) for role, name in step.needs.items()}
    void = "" if step.collects else next((given.void for given in inputs.values() if given.void), "")
    folder = cache.begin(step.name, key)
    result = Result(())
    if not void:
        try:
            result = step.action(Work(folder, step.parameters, inputs))
        except Void as nothing:
            void = str(nothing)
    done = cache.finish(step.name, key, result.outputs, void=void, facts=result.facts)
    return StepStanding(step, "void" if void else "done", key, done, void)


def _input(standing: StepStanding, cache: Cache) -> Input:
    done = standing.done
    outputs = () if done is None else tuple(done.outputs)
    return Input(cache.folder(standing.step.name), outputs, "" if done is None else done.void)
