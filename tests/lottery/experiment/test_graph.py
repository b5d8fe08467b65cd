"""Cached steps: which ones run after any history of edits, crashes and damage; a model of contents judges."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from profiles import examples

from certify.base.errors import InvalidInputError, UsageError
from lottery.experiment.engine.cache import Cache
from lottery.experiment.engine.graph import Graph, GraphStep, Result, Void, Work

NEEDS: dict[str, tuple[str, ...]] = {
    "a": (),
    "b": ("a",),
    "c/one": ("a",),
    "c/two": ("b", "c/one"),
    "all": ("a", "b", "c/two"),  # collects: goes on where something came to nothing
    "last": ("all",),
    "apart": (),
}
COLLECTS = {"all"}
VOID = 3  # from this value on there is nothing to do, and the reason says the value


class Killed(BaseException):
    """The process ends here."""


def outcome(name: str, parameter: int, inputs: Mapping[str, str]) -> str:
    """What a fake step writes. Coarse, so that different causes can have equal effects."""
    text = json.dumps([name, parameter // 2, sorted(inputs.items())])
    return str(hashlib.sha256(text.encode()).digest()[0] % 3)


class FakeSteps:
    """A graph whose actions write their outcome, and can be told to end the process halfway."""

    def __init__(self) -> None:
        self.parameters = dict.fromkeys(NEEDS, 0)
        self.ran: list[str] = []
        self.resumed: list[str] = []
        self.crash_at = ""

    def graph(self) -> Graph:
        return Graph(
            GraphStep(
                name=name,
                kind="fake",
                version=1,
                parameters={"value": self.parameters[name]},
                action=lambda work, name=name: self._act(name, work),
                needs={need: need for need in needs},
                after=("a",) if name == "apart" else (),
                collects=name in COLLECTS,
            )
            for name, needs in NEEDS.items()
        )

    def _act(self, name: str, work: Work) -> Result:
        self.ran.append(name)
        if (work.folder / "half").exists():
            self.resumed.append(name)
        (work.folder / "half").write_text("done so far")
        if self.crash_at == name:
            raise Killed
        if work.parameters["value"] >= VOID:
            raise Void(f"nothing to do at {work.parameters['value']}")
        inputs = {
            role: given.void or (given.path("result").read_text()) for role, given in work.inputs.items()
        }
        (work.folder / "result").write_text(outcome(name, work.parameters["value"], inputs))
        return Result(("result",))


class History(RuleBasedStateMachine):
    """Any order of edits, runs, crashes and damage; the model remembers contents, not keys."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.cache = Cache(self.folder)
        self.steps = FakeSteps()
        # name -> (parameter, contents of inputs) that it was last finished for, and what it left
        self.finished: dict[str, tuple[tuple[int, tuple[tuple[str, str], ...]], str]] = {}
        self.half: dict[str, tuple[int, tuple[tuple[str, str], ...]]] = {}
        self.damaged: set[str] = set()

    def teardown(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    @rule(name=st.sampled_from(sorted(NEEDS)), value=st.integers(0, VOID + 1))
    def edit_plan(self, name: str, value: int) -> None:
        self.steps.parameters[name] = value

    @rule(name=st.sampled_from(sorted(NEEDS)), how=st.sampled_from(["edit", "remove"]))
    def damage(self, name: str, how: str) -> None:
        path = self.cache.folder(name) / "result"
        if name in self.finished and not self.finished[name][1].startswith("void") and path.exists():
            path.unlink() if how == "remove" else path.write_text("something else")
            self.damaged.add(name)

    @rule(crash=st.sampled_from(["", *NEEDS]), only=st.sampled_from(["", *NEEDS]))
    def run(self, crash: str, only: str) -> None:
        self.steps.ran, self.steps.resumed, self.steps.crash_at = [], [], crash
        ran, resumed, killed = self.predict(crash, self.wanted(only))
        try:
            standings = self.steps.graph().run(self.cache, only=[only] if only else [])
            assert not killed
            assert {s.state for s in standings} <= {"done", "void"}
            assert {s.step.name for s in standings} == self.wanted(only)
        except Killed:
            assert killed
        assert self.steps.ran == ran
        assert self.steps.resumed == resumed

    def wanted(self, only: str) -> set[str]:
        if not only:
            return set(NEEDS)
        found, todo = set(), [only]
        while todo:
            name = todo.pop()
            found.add(name)
            todo += [*NEEDS[name], *(["a"] if name == "apart" else [])]
        return found

    def predict(self, crash: str, wanted: set[str]) -> tuple[list[str], list[str], bool]:
        ran, resumed = [], []
        for name, needs in NEEDS.items():
            if name not in wanted:
                continue
            inputs = tuple((need, self.finished[need][1]) for need in needs)
            cause = (self.steps.parameters[name], inputs)
            known = self.finished.get(name)
            if known is not None and known[0] == cause and name not in self.damaged:
                continue
            passed_on = [left for _, left in inputs if left.startswith("void")]
            self.finished.pop(name, None)
            if passed_on and name not in COLLECTS:
                self.half.pop(name, None)
                left = f"void:{passed_on[0].removeprefix('void:')}"
            else:
                ran.append(name)
                if known is None and self.half.get(name) == cause:
                    resumed.append(name)
                self.damaged.discard(name)
                if name == crash:
                    self.half[name] = cause
                    return ran, resumed, True
                self.half.pop(name, None)
                left = f"void:nothing to do at {cause[0]}"
                if cause[0] < VOID:
                    seen = {need: was.removeprefix("void:") for need, was in inputs}
                    left = outcome(name, cause[0], seen)
            self.damaged.discard(name)
            self.finished[name] = (cause, left)
        return ran, resumed, False

    @rule()
    def look(self) -> None:
        """Standings agree with what a run would do, and looking changes nothing."""
        before = sorted(path for path in self.folder.rglob("*"))
        states = {s.step.name: s.state for s in self.steps.graph().standings(self.cache)}
        assert sorted(path for path in self.folder.rglob("*")) == before
        for name, needs in NEEDS.items():
            if any(states[need] not in ("done", "void") for need in needs):
                assert states[name] in ("stale", "pending")
                continue
            cause = (
                self.steps.parameters[name],
                tuple((need, self.finished[need][1]) for need in needs),
            )
            known = self.finished.get(name)
            fresh = known is not None and known[0] == cause and name not in self.damaged
            assert (states[name] in ("done", "void")) == fresh


TestHistory = History.TestCase
TestHistory.settings = settings(max_examples=examples(40), stateful_step_count=25, deadline=None)


# --- what the machine above cannot say --------------------------------------------------------------------


def one(action: object, name: str = "s", **parameters: object) -> Graph:
    return Graph([GraphStep(name, "fake", 1, parameters, action)])  # type: ignore[arg-type]


def writes(text: str) -> object:
    def act(work: Work) -> Result:
        (work.folder / "out.txt").write_text(text)
        return Result(("out.txt",), {"length": len(text)})

    return act


def test_everything_that_decides_is_in_the_key(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    variants = [
        GraphStep("s", "kind", 1, {"x": 1}, writes("1")),  # type: ignore[arg-type]
        GraphStep("s", "kind", 2, {"x": 1}, writes("1")),  # type: ignore[arg-type]
        GraphStep("s", "other", 1, {"x": 1}, writes("1")),  # type: ignore[arg-type]
        GraphStep("s", "kind", 1, {"x": 2}, writes("1")),  # type: ignore[arg-type]
        GraphStep("s", "kind", 1, {"y": 1}, writes("1")),  # type: ignore[arg-type]
    ]
    keys = [Graph([step]).run(cache)[0].key for step in variants]
    assert len(set(keys)) == len(keys)


def test_a_number_that_is_no_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        one(writes(""), rate=float("nan")).run(Cache(tmp_path))


def test_outputs_are_digested_as_they_lie_on_disk(tmp_path: Path) -> None:
    def act(work: Work) -> Result:
        (work.folder / "tree" / "deep").mkdir(parents=True)
        (work.folder / "tree" / "a.bin").write_bytes(b"\x00\x01")
        (work.folder / "tree" / "deep" / "b.txt").write_text("b")
        (work.folder / "scratch").write_text("no output")
        return Result(("tree",))

    cache = Cache(tmp_path)
    one(act).run(cache)
    done = json.loads((cache.folder("s") / "done.json").read_text())
    assert done["outputs"] == {
        "tree/a.bin": hashlib.sha256(b"\x00\x01").hexdigest(),
        "tree/deep/b.txt": hashlib.sha256(b"b").hexdigest(),
    }
    (cache.folder("s") / "scratch").write_text("changed")
    assert one(act).standings(cache)[0].state == "done"


def test_an_action_without_its_output_fails(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"out\.txt"):
        one(lambda _: Result(("out.txt",))).run(Cache(tmp_path))
    assert one(writes("")).standings(Cache(tmp_path))[0].state == "started"


def test_what_a_kill_after_the_record_left_behind_is_not_resumed(tmp_path: Path) -> None:
    def act(work: Work) -> Result:
        assert not (work.folder / "out.txt").exists()
        (work.folder / "out.txt").write_text("x")
        return Result(("out.txt",))

    cache = Cache(tmp_path)
    key = one(act).run(cache)[0].key
    # Killed between the two last writes, the record of the attempt stays; the step is finished all the same.
    (cache.folder("s") / "started.json").write_text(json.dumps({"key": key}))
    assert one(act).standings(cache)[0].state == "done"
    (cache.folder("s") / "out.txt").write_text("damaged")
    assert one(act).run(cache)[0].state == "done"


@pytest.mark.parametrize(
    "record",
    [
        "{",
        "[]",
        '{"key": "k"}',
        '{"key": "k", "outputs": {"../x": "%s"}, "void": "", "facts": {}}',
        '{"key": "k", "outputs": {"x": "zz"}, "void": "", "facts": {}}',
        '{"key": 1, "outputs": {}, "void": "", "facts": {}}',
        '{"key": "k", "outputs": {}, "void": "", "facts": {}, "more": 1}',
    ],
)
def test_a_malformed_record_is_refused(record: str, tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    one(writes("x")).run(cache)
    (cache.folder("s") / "done.json").write_text(record.replace("%s", "0" * 64))
    with pytest.raises(InvalidInputError):
        one(writes("x")).run(cache)


@pytest.mark.parametrize("name", ["", "/", "a//b", "../a", "a/..", "a b", ".a", "a+b"])
def test_names_of_steps_stay_inside(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not the name of a step"):
        Cache(tmp_path).folder(name)


def test_a_graph_without_order_is_refused() -> None:
    first = GraphStep("a", "fake", 1, {}, writes("a"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="repeated"):
        Graph([first, first])
    with pytest.raises(ValueError, match="after"):
        Graph([GraphStep("b", "fake", 1, {}, writes("b"), needs={"x": "a"}), first])  # type: ignore[arg-type]


def test_only_takes_patterns_and_refuses_strangers() -> None:
    graph = FakeSteps().graph()
    assert graph.chosen(["c/*"]) == {"a", "b", "c/one", "c/two"}
    assert graph.chosen(["apart"]) == {"a", "apart"}
    with pytest.raises(UsageError, match="no step"):
        graph.chosen(["d*"])


def test_why_an_input_came_to_nothing_is_part_of_what_a_collector_saw(tmp_path: Path) -> None:
    steps, cache = FakeSteps(), Cache(tmp_path)
    ran = []
    for value in (VOID, VOID + 1, VOID + 1, 0):
        steps.parameters["a"], steps.ran = value, []
        steps.graph().run(cache)
        ran.append(steps.ran)
    assert ran[0] == ["a", "all", "last", "apart"]
    assert ran[1][:2] == ["a", "all"]
    assert ran[2] == []
    assert ran[3][:5] == ["a", "b", "c/one", "c/two", "all"]


def test_events_are_told_in_order_and_a_failure_goes_on_its_way(tmp_path: Path) -> None:
    steps = FakeSteps()
    told: list[tuple[str, str]] = []
    steps.crash_at = "c/one"
    with pytest.raises(Killed):
        steps.graph().run(Cache(tmp_path), watch=lambda event, step, _: told.append((event, step.name)))
    assert told == [
        *((event, name) for name in ("a", "b") for event in ("started", "finished")),
        ("started", "c/one"),
        ("failed", "c/one"),
    ]
