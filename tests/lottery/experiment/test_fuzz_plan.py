"""Mutants of plans: a dry run refuses in one line, or accepts what reads back to the same steps.

For every mutant: exit 0, 2, 3 or 4, no traceback, no warning, under 10 s of processor time; an unknown key is
never accepted. Mutants are seeded by their number: a failure names the number, and the number repeats it.
"""

from __future__ import annotations

import random
import time
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra tune")

from command import in_process
from ticket_strategies import damage

from certify.base.model import Refusal, validate
from lottery.experiment.engine.cache import step_key
from lottery.experiment.engine.context import RunContext
from lottery.experiment.engine.inputs import InputDigests
from lottery.experiment.layout.layout import layout
from lottery.experiment.plan.plan import ExperimentPlan, read_experiment

PLANS = Path(__file__).resolve().parents[3] / "lottery" / "plans"
NAMES = ("smoke", "three-pairs-small", "en-ca-small")
NUMBERS = ("0", "-1", "nan", "inf", "-inf", "1e400", "0.5", "9" * 300, "9" * 5000, str(2**63), "1979-05-27")
TEXTS = (
    "",
    "../x",
    "/etc/passwd",
    "\\u0000",
    "\\u001b[31m",
    "\\u202e",
    "\u0435n",
    "a" * 5000,
    "norm:" + "9" * 5000,
)
BYTES = (b"\xff", b"\r", b"\r\n", b"\xef\xbb\xbf", b"\x00", b"[[ticket]]\n", b"a.a = 1\n")
DEEP = ("x = " + "[" * 2000 + "]" * 2000, "x." * 5000 + "x = 1", "x = [" + "1," * 50_000 + "]")
Capture = pytest.CaptureFixture[str]


def toml(value: Any) -> str:
    """Write parsed TOML as inline values, one top-level key a line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(key)} = {toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if value is None:
        return '""'
    return str(value).lower() if isinstance(value, (bool, int, float)) else quoted(value)


def quoted(text: str) -> str:
    return '"' + "".join(c if c.isalnum() else f"\\U{ord(c):08x}" for c in text) + '"'


def mutant_of(text: str, rng: random.Random) -> tuple[bytes, str]:
    kind = rng.choice(("damage", "damage", "line", "value", "value", "bytes", "deep"))
    lines = text.splitlines()
    at = rng.choice([i for i, line in enumerate(lines) if line and not line.startswith("#")])
    if kind == "damage":
        done = damage(tomllib.loads(text), rng.choice)
        content = done.apply(tomllib.loads(text))
        lines = [f"{quoted(key)} = {toml(one)}" for key, one in content.items()]
        return "\n".join(lines).encode("utf-8", "surrogatepass"), done.text
    if kind == "bytes":
        data, odd = bytearray(text.encode()), rng.choice(BYTES)
        place = rng.randrange(len(data))
        data[place:place] = odd
        return bytes(data), f"{odd!r} at {place}"
    key = lines[at].partition("=")[0]
    if kind == "value":
        new = rng.choice((*NUMBERS, *(f'"{one}"' for one in TEXTS)))
        lines[at] = f"{key}= {rng.choice((new, f'[{new}]'))}"
    elif kind == "deep":
        lines.insert(at, rng.choice(DEEP))
    else:
        change = rng.choice(("drop", "repeat", "rename"))
        lines[at : at + 1] = {"drop": [], "repeat": [lines[at]] * 2, "rename": ["x" + lines[at]]}[change]
    return "\n".join(lines).encode(), f"{kind} at line {at}: {lines[min(at, len(lines) - 1)]:.60}"


def keys_of(plan: ExperimentPlan) -> list[tuple[str, str]]:
    graph = layout(plan, RunContext(None, None), InputDigests("", None, required=False))
    needs = [{role: {"": name} for role, name in step.needs.items()} for step in graph.steps]
    return [
        (step.name, step_key(step.kind, step.version, step.parameters, inputs))
        for step, inputs in zip(graph.steps, needs, strict=True)
    ]


def fuzz(tmp_path: Path, capsys: Capture, numbers: range) -> Counter[int]:
    path, codes = tmp_path / "plan.toml", Counter[int]()
    texts = [(PLANS / f"{name}.toml").read_text(encoding="utf-8") for name in NAMES]
    for number in numbers:
        data, text = mutant_of(texts[number % len(texts)], random.Random(f"plan:{number}"))
        path.write_bytes(data)
        what, began = f"mutant {number} ({text})", time.process_time()
        ran = in_process(["experiment", path, "--dry-run"], capsys)
        assert time.process_time() - began < 10, what
        assert ran.code in {0, 2, 3, 4}, f"{what}: {ran}"
        assert "Traceback" not in ran.out + ran.err, what
        codes[ran.code] += 1
        if ran.code:
            ran.one_line()
            continue
        assert ran.err == "", what
        plan = read_experiment(path)
        content = plan.model_dump(mode="json", exclude_unset=True)
        again = validate(ExperimentPlan, content, what="plan", refusal=Refusal("PLAN_INVALID"))
        assert keys_of(again) == keys_of(plan), what
        assert known(tomllib.loads(data.decode()), content), what
    return codes


def known(given: Any, kept: Any) -> bool:
    """Whether no key of what was given was ignored."""
    if isinstance(given, dict):
        return isinstance(kept, dict) and all(key in kept and known(given[key], kept[key]) for key in given)
    if isinstance(given, list):
        return len(given) == len(kept) and all(map(known, given, kept))
    return True


def test_mutants_of_plans(tmp_path: Path, capsys: Capture) -> None:
    assert {0, 2} <= fuzz(tmp_path, capsys, range(40)).keys()


@pytest.mark.slow
def test_many_mutants_of_plans(tmp_path: Path, capsys: Capture) -> None:
    assert {0, 2} <= fuzz(tmp_path, capsys, range(40, 2540)).keys()
