"""``make demo``: check shipped tickets for a newcomer to see: certified, refuted, merely assumed.

Each step prints its command and runs it in a process of its own. The demo fails on an unexpected exit code.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from certify.base.errors import ExitCode

PUBLISHED = Path(__file__).parent / "published"
EXAMPLE = PUBLISHED / "en-ca-second" / "tickets"
EXPERIMENT = PUBLISHED / "en-ca-experiment" / "tickets"
RELEASE = PUBLISHED / "en-ca-whole" / "tickets"


def main() -> int:
    """Run the demo and return 0 if every step ended with the expected exit code."""
    if not all((folder / "tickets.json").is_file() for folder in (EXAMPLE, EXPERIMENT, RELEASE)):
        print(f"demo: no examples in {PUBLISHED}: run it in a clone of the repository", file=sys.stderr)
        return int(ExitCode.USAGE)
    ticket = str(_shown(EXAMPLE / "tickets.json"))
    tested = str(_shown(EXPERIMENT / "tickets.json"))
    released = str(_shown(RELEASE / "tickets.json"))
    checker = str(_shown(Path(__file__).parent.parent / "certify" / "checker"))
    as_expected = [
        _step(
            "1. Are these the rows that the KS test selects from these tables?",
            ["certify", "check", "--ticket", ticket, "--policy", "selection", "--id", "a05"],
            ExitCode.CERTIFIED,
        ),
        _step(
            "2. Does the published guarantee hold for the rows selected at 0.05, English to Catalan?",
            ["certify", "check", "--ticket", tested, "--policy", "paper", "--id", "a05"],
            ExitCode.REFUTED,
        ),
        _step(
            "3. May these 431 rows, tuned on their own, be released?",
            ["certify", "check", "--ticket", released, "--id", "a50-tuned"],
            ExitCode.CERTIFIED,
        ),
        _step(
            "4. And fifteen rows of another run? What is shown, and what is not.",
            ["certify", "check", "--ticket", tested, "--id", "share-tuned"],
            ExitCode.INCONCLUSIVE,
        ),
        _step(
            "5. The same verdicts from a second program that uses only the standard library.",
            ["python3", "-I", "-S", checker, str(_shown(EXPERIMENT)), "--policy", "paper", "--quiet"],
            ExitCode.REFUTED,
        ),
        _tampered(),
        _permuted(),
    ]
    return 0 if all(as_expected) else 1


def _shown(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _tampered() -> bool:
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / "ticket"
        shutil.copytree(EXAMPLE, copy)
        rows = copy / "rows" / "a05.safetensors"
        content = bytearray(rows.read_bytes())
        content[-1] ^= 1
        rows.write_bytes(content)
        return _step(
            "6. One bit of one released row is changed in a copy: the gate closes.",
            [
                *("certify", "check", "--ticket", str(copy / "tickets.json")),
                *("--policy", "selection", "--id", "a05"),
            ],
            ExitCode.INVALID,
        )


def _permuted() -> bool:
    with tempfile.TemporaryDirectory() as name:
        tuned, ticket = Path(name) / "permuted.safetensors", Path(name) / "ticket" / "tickets.json"
        row = permute_row(EXPERIMENT / "reference" / "embed_tokens.safetensors", tuned)
        base = _shown(EXPERIMENT / "base")
        chosen = ["--base", str(base / "embed_tokens.safetensors"), "--tokenizer", str(base)]
        chosen += ["--tuned", str(tuned), "--template", "explicit", "--id", "a05", "--bundle"]
        found = _step(
            f"7. The entries of row {row} of the tuned table are put in another order. The KS test\n"
            "   sees no change: D = 0, p = 1, and it selects the same five rows.",
            ["certify", "find", *chosen, "--alpha", "0.05", "--out", str(ticket)],
            ExitCode.CERTIFIED,
        )
        return found & _step(
            "   The gate looks at more than distances.",
            ["certify", "check", "--ticket", str(ticket), "--policy", "selection"],
            ExitCode.REFUTED,
        )


def permute_row(source: Path, out: Path) -> int:
    """Write ``source`` with one row in reversed order, the last that tuning did not move; return that row."""
    table = load_file(source)
    ((name, rows),) = table.items()
    before = load_file(source.parents[1] / "base" / source.name)[name]
    shift = np.linalg.norm((rows - before).astype(np.float64), axis=1)
    row = int(np.flatnonzero(shift == 0)[-1])
    rows[row] = rows[row][::-1]
    save_file({name: rows}, out)
    return row


def _step(title: str, arguments: Sequence[str], expected: ExitCode) -> bool:
    print(f"\n{'=' * 80}\n{title}\n$ {' '.join(arguments)}", flush=True)
    # The steps write to pipes, but may use colour where a person is watching.
    colour = {"FORCE_COLOR": "1"} if sys.stdout.isatty() and "NO_COLOR" not in os.environ else {}
    run = subprocess.run(
        [sys.executable, *(["-m", "certify"] if arguments[0] == "certify" else []), *arguments[1:]],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=os.environ | colour,
        check=False,
    )
    print(run.stdout + run.stderr, end="")
    print(f"exit code {run.returncode}", flush=True)
    if run.returncode != expected:
        print(f"demo: expected exit code {int(expected)}", file=sys.stderr)
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
