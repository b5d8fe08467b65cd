"""How often gates release in each situation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from proofs_checks.rivals.gates import Gate
from proofs_checks.rivals.situations import SITUATIONS


def releases(gates: Mapping[str, Gate], draws: int, seed: int) -> dict[str, dict[str, int]]:
    """Count the attempts, of ``draws``, that each gate releases; by situation, then by gate.

    All gates see the same attempts.
    """
    found = {}
    for number, situation in enumerate(SITUATIONS):
        random = np.random.default_rng([seed, number])
        attempts = [situation.draw(random) for _ in range(draws)]
        found[situation.name] = {name: sum(map(gate, attempts)) for name, gate in gates.items()}
    return found


def table(found: Mapping[str, Mapping[str, int]], draws: int) -> str:
    """Lay out the counts of :func:`releases` as a Markdown table of percentages."""
    names = list(next(iter(found.values())))
    lines = [f"| situation | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for situation in SITUATIONS:
        cells = (f"{100 * found[situation.name][name] / draws:.3g} %" for name in names)
        lines.append(f"| **{situation.name}**: {situation.says} | {' | '.join(cells)} |")
    return "\n".join(lines)
