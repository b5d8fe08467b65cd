"""Records of the theory's checks as plain JSON, honest by construction; nothing of the package makes them.

:func:`record` gives a small one whose checks end as asked; :func:`records` draws some at random. What a
clause and the counts must be is worked out here once more, from the words of ``proofs_checks/README.md``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

Json = Any

OUTCOMES = ("passed", "failed", "not run", "timeout")

CLAUSES = {
    "§4 the criterion keeps the argmax": ("exact.strings", "smt.labels"),
    "§4 deviations add": ("smt.labels",),
    "§5 exact limits": ("laws.tails",),
}


def outcome_of(names: Sequence[str], ended: Mapping[str, str]) -> str:
    """Passed only if all checks passed, failed if one failed; else a timeout goes before what did not run."""
    found = [ended.get(name, "not run") for name in names]
    if "failed" in found:
        return "failed"
    if "timeout" in found:
        return "timeout"
    return "not run" if "not run" in found else "passed"


def check(name: str, outcome: str, **fields: Json) -> Json:
    """One check of a record."""
    return {
        "name": name,
        "clause": f"§4: what {name} says",
        "assumptions": ["A-LAW", "A-ONE"],
        "outcome": outcome,
        "cases": 7 if outcome == "passed" else 0,
        "seconds": 0.25,
        "detail": f"why it is {outcome}",
        "witness": "x = 1/3" if outcome == "failed" else None,
        **fields,
    }


def assemble(checks: Sequence[Json], clauses: Mapping[str, Sequence[str]], **fields: Json) -> Json:
    """The record of these checks; its sums follow from them."""
    ended = {one["name"]: one["outcome"] for one in checks}
    return {
        "format": "certify-proofs/1",
        "version": "0.1.0",
        "tier": "fast",
        "seed": 3,
        "selected": False,
        "python": "3.12.1",
        "libraries": {"numpy": "2.0", "z3-solver": None},
        "counts": {outcome: list(ended.values()).count(outcome) for outcome in OUTCOMES},
        "clauses": [
            {"clause": clause, "checks": list(names), "outcome": outcome_of(names, ended)}
            for clause, names in clauses.items()
        ],
        "checks": list(checks),
        **fields,
    }


def record(
    strings: str = "passed", labels: str = "passed", tails: str | None = "passed", **fields: Json
) -> Json:
    """A record of three checks; of two, as of a run with ``--only``, where ``tails`` is None."""
    ended = {"exact.strings": strings, "smt.labels": labels, "laws.tails": tails}
    checks = [check(name, outcome) for name, outcome in ended.items() if outcome is not None]
    return assemble(checks, CLAUSES, **{"selected": tails is None, **fields})


def restated(value: Json, path: str, sha256: str) -> Json:
    """What a certificate must say of a record."""
    return {
        "path": path,
        "sha256": sha256,
        **{name: value[name] for name in ("version", "tier", "seed", "counts")},
        "partial": value["selected"],
        "clauses": [{key: one[key] for key in ("clause", "outcome")} for one in value["clauses"]],
    }


def write(path: Path, value: Json) -> Path:
    """Write a record as ``certify prove --out`` does; returns the path."""
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return path


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@st.composite
def records(draw: st.DrawFn) -> Json:
    """Honest records: up to six checks in up to five clauses, ended in any way, all or some asked for."""
    names = [f"part.{letter}" for letter in "abcdef"[: draw(st.integers(1, 6))]]
    groups = draw(st.lists(st.lists(st.sampled_from(names), min_size=1, unique=True), min_size=1, max_size=4))
    groups = [*groups, sorted(set(names) - {name for group in groups for name in group})]
    clauses = {f"§{i} clause": group for i, group in enumerate(groups) if group}
    selected = draw(st.booleans())
    kept = draw(st.lists(st.sampled_from(names), min_size=1, unique=True)) if selected else names
    checks = [
        check(
            name,
            draw(st.sampled_from(OUTCOMES)),
            cases=draw(st.integers(1, 10**9)),
            seconds=draw(st.floats(0, 1e6)),
            assumptions=draw(st.lists(st.text(max_size=5), max_size=3)),
            witness=draw(st.none() | st.text(max_size=20)),
        )
        for name in kept
    ]
    tier, seed = draw(st.sampled_from(["fast", "full"])), draw(st.integers(0, 2**62))
    return assemble(checks, clauses, selected=selected, tier=tier, seed=seed)
