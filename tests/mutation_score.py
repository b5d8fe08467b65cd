"""Mutation score of the rooms that decide: mutmut plants operators, the tests of those rooms look for them.

    python tests/mutation_score.py --sample 60 --seed 0
    python tests/mutation_score.py --sample 30 --rooms stats policy

What is only an operator is tried here; bugs with a lesson of their own are in ``proofs_checks/mutations``.
There are thousands of mutants, so a seeded sample of them is tried, in a copy of the checkout. First mutmut
makes all of them and runs the tests of all four rooms once, to learn which test runs which function: that
takes its time, whatever the sample. Exit code 1 if not all could be tried, or the score is below
``--least``.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("stats", "claims", "policy", "gate")
LEFT_OUT = shutil.ignore_patterns(".*", "mutants", "__pycache__", "*.egg-info", "build", "dist")
CAUGHT = ("killed", "timeout", "segfault")
READERS = (
    "tests/certify/policy/test_codes.py",
    "tests/certify/claims/test_registry.py",
)  # of the source, in which mutmut puts all mutants at once

SETTINGS = """
[tool.mutmut]
source_paths = ["certify"]
only_mutate = {sources}
also_copy = ["lottery", "reports", "proofs_checks", "docs", "README.md", "constraints.txt"]
pytest_add_cli_args_test_selection = {tests}
pytest_add_cli_args = {options}
timeout_constant = 30.0
"""


def mutmut(folder: Path, *words: str) -> str:
    """What mutmut says in a copy of the checkout."""
    command = [sys.executable, "-m", "mutmut", *words]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return ran.stdout + ran.stderr


def outcomes(folder: Path) -> dict[str, str]:
    """What became of every mutant, by name; ``not checked`` of those that were not tried."""
    listed = mutmut(folder, "results", "--all", "true")
    return dict(re.findall(r"^ +(\S+__mutmut_\d+): (.+)$", listed, re.MULTILINE))


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Mutation score of a seeded sample of mutants.")
    parser.add_argument("--sample", type=int, default=60, help="how many mutants are tried")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument(
        "--rooms", nargs="+", choices=ROOMS, default=ROOMS, help="folders of certify that are mutated"
    )
    parser.add_argument("--least", type=float, default=0.0, help="smallest share to be caught")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "checkout")
        shutil.copytree(ROOT, folder, ignore=LEFT_OUT)
        sources = json.dumps([f"certify/{room}/*" for room in asked.rooms])
        tests = json.dumps([f"tests/certify/{room}" for room in ROOMS])
        options = json.dumps([f"--ignore={path}" for path in READERS])
        with (folder / "pyproject.toml").open("a", encoding="utf-8") as stream:
            stream.write(SETTINGS.format(sources=sources, tests=tests, options=options))
        # The name fits no mutant: all are made, and the tests run once, but none is tried.
        said = mutmut(folder, "run", "none")
        names = sorted(outcomes(folder))
        if not names or not (folder / "mutants" / "mutmut-stats.json").is_file():
            sys.stderr.write(f"{said[-4000:]}\nnothing could be tried\n")
            return 1
        chosen = sorted(random.Random(asked.seed).sample(names, min(asked.sample, len(names))))
        said = mutmut(folder, "run", *chosen)
        every = outcomes(folder)
        ended = {name: every[name] for name in chosen}
        for name, status in ended.items():
            if status not in CAUGHT:
                print(f"--- {status}\n{mutmut(folder, 'show', name)}")
    if "not checked" in ended.values():
        sys.stderr.write(f"{said[-4000:]}\nnot all could be tried\n")
    caught = sum(status in CAUGHT for status in ended.values())
    counted = ", ".join(f"{count} {status}" for status, count in sorted(Counter(ended.values()).items()))
    where = f"{len(names):,} mutants in {', '.join(asked.rooms)}"
    print(f"mutation score {caught}/{len(chosen)}, seed {asked.seed}, of {where} ({counted})")
    return int("not checked" in ended.values() or caught < asked.least * len(chosen))


if __name__ == "__main__":
    raise SystemExit(main())
