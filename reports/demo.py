"""``make demo``: the shipped ticket, checked three times, as a newcomer should see it.

Each step prints its command and runs it as its own process; an exit code other than the announced one fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from certify.errors import ExitCode

EXAMPLE = Path(__file__).parent / "published" / "en-ca-small"


def main() -> int:
    """Run the demo; 0 if every step ended as announced."""
    if not (EXAMPLE / "tickets.json").is_file():
        print(f"demo: no example at {EXAMPLE}: run it from a clone of the repository", file=sys.stderr)
        return int(ExitCode.USAGE)
    ticket = EXAMPLE / "tickets.json"
    shown = ticket.relative_to(Path.cwd()) if ticket.is_relative_to(Path.cwd()) else ticket
    as_expected = [
        _step(
            "1. Are these the rows that the KS test selects from these very tables?",
            ["check", "--ticket", str(shown), "--policy", "selection", "--id", "en-ca-a05"],
            ExitCode.CERTIFIED,
        ),
        _step(
            "2. May it be released? The default policy wants evidence, and says what is missing.",
            ["check", "--ticket", str(shown), "--id", "en-ca-a05"],
            ExitCode.INCONCLUSIVE,
            lines=12,
        ),
        _tampered(),
    ]
    return 0 if all(as_expected) else 1


def _tampered() -> bool:
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / "en-ca-small"
        shutil.copytree(EXAMPLE, copy)
        rows = copy / "rows" / "en-ca-a05.safetensors"
        content = bytearray(rows.read_bytes())
        content[-1] ^= 1
        rows.write_bytes(content)
        return _step(
            "3. One bit of one released row is changed in a copy: the gate closes.",
            ["check", "--ticket", str(copy / "tickets.json"), "--policy", "selection", "--id", "en-ca-a05"],
            ExitCode.INVALID,
            lines=8,
        )


def _step(title: str, arguments: Sequence[str], expected: ExitCode, *, lines: int | None = None) -> bool:
    print(f"\n{'=' * 80}\n{title}\n$ certify {' '.join(arguments)}", flush=True)
    # The steps write to pipes; where a person is watching, they may colour all the same.
    colour = {"FORCE_COLOR": "1"} if sys.stdout.isatty() and "NO_COLOR" not in os.environ else {}
    run = subprocess.run(
        [sys.executable, "-m", "certify", *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=os.environ | colour,
        check=False,
    )
    output = run.stdout.splitlines()
    print("\n".join(output[:lines]))
    if lines is not None and len(output) > lines:
        print(f"  … ({len(output) - lines} more lines)")
    if run.stderr:
        print(run.stderr, end="")
    print(f"exit code {run.returncode}", flush=True)
    if run.returncode != expected:
        print(f"demo: expected exit code {int(expected)}", file=sys.stderr)
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
