"""What drawing units until everything is decided saves, on simulated effects of stated size.

    python tests/benchmarks/bench_sequential.py [--json] [--runs 200] [--budget 3000] [--look 16] [--seed 0]

For each claim and each truth, many texts are simulated.

* *fixed*: units that a fixed design needs to show the claim with probability .8 at delta .05, planned with
  the truth known (``certify power``); ``-`` where there is nothing to show.
* *mean*, *median*, *80 %*: units at the stop of a sequential design, which looks after every ``--look`` units
  with the anytime-valid bound by betting and stops at the first look that shows or refutes the claim, or at
  the budget.
* *shown*, *refuted*, *open*: shares of runs.
* *saving*: ``1 - mean / fixed``; negative where the freedom to stop costs more than it saves.
* *against smallest*: the same against the largest plan in the table for that claim: what has to be planned
  for when the truth is not known.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction

from certify.gate.planning import Planned, Truth, parse_claim, plan
from certify.stats.betting import decided_after

DELTA, POWER = Fraction(1, 20), Fraction(4, 5)
SCALE = 200


@dataclass(frozen=True)
class Row:
    """One claim at one truth."""

    claim: str
    truth: float
    fixed: int | None
    mean: float
    median: float
    q80: float
    shown: float
    refuted: float
    open: float
    saving: float | None
    against_smallest: float | None = None


def sequential(values: Sequence[Fraction], threshold: Fraction, look: int) -> tuple[int, str]:
    """Units at the stop and the outcome; both sides at the full delta, as in a gate."""
    shown = decided_after(values, threshold, DELTA, "sequential")
    refuted = decided_after([1 - value for value in values], 1 - threshold, DELTA, "sequential")
    ends = [(at, what) for at, what in ((shown, "shown"), (refuted, "refuted")) if at is not None]
    if not ends:
        return len(values), "open"
    at, what = min(ends)
    return min(-(-at // look) * look, len(values)), what


def simulate(
    claim: str,
    truth: float,
    sd: float | None,
    threshold: Fraction,
    draw: Callable[[random.Random], Fraction],
    options: argparse.Namespace,
) -> Row:
    """One row of the table."""
    generator = random.Random(f"{options.seed}:{claim}:{truth}")
    ends = [
        sequential([draw(generator) for _ in range(options.budget)], threshold, options.look)
        for _ in range(options.runs)
    ]
    units = sorted(at for at, _ in ends)
    planned: Planned = parse_claim(claim)
    spread = None if sd is None else Fraction(str(sd))
    fixed = plan(planned, Truth(Fraction(str(truth)), spread, "simulated"), delta=DELTA, power=POWER).units
    mean = statistics.fmean(units)
    share = {what: sum(end == what for _, end in ends) / len(ends) for what in ("shown", "refuted", "open")}
    return Row(
        claim=claim,
        truth=truth,
        fixed=fixed,
        mean=mean,
        median=statistics.median(units),
        q80=units[-(-len(units) * 4 // 5) - 1],
        shown=share["shown"],
        refuted=share["refuted"],
        open=share["open"],
        saving=None if fixed is None else 1 - mean / fixed,
    )


def table(options: argparse.Namespace) -> list[Row]:
    """All rows."""
    rows: list[Row] = []
    for truth in (1.0, 0.995, 0.99, 0.98, 0.95, 0.92, 0.90, 0.80):
        rows.append(
            simulate(
                "agreement:0.95",
                truth,
                None,
                Fraction(19, 20),
                lambda generator, rate=truth: Fraction(generator.random() < rate),
                options,
            )
        )
    for claim, sd, threshold, truths in (
        ("non-inferiority:1", 15, Fraction(1, 2) - Fraction(1, SCALE), (4, 2, 1, 0, -1, -3, -6)),
        ("gain:0", 15, Fraction(1, 2), (20, 10, 5, 2, 0, -5)),
    ):
        for truth in truths:
            rows.append(
                simulate(
                    claim,
                    truth,
                    sd,
                    threshold,
                    lambda generator, mean=truth, sd=sd: _difference(generator, mean, sd),
                    options,
                )
            )
    found = []
    for row in rows:
        planned = [other.fixed for other in rows if other.claim == row.claim and other.fixed is not None]
        saved = 1 - row.mean / max(planned)
        found.append(Row(**(asdict(row) | {"against_smallest": saved})))
    return found


def _difference(generator: random.Random, mean: float, sd: float) -> Fraction:
    """A unit 1/2 + d/200 with d normal, clipped to the range, on a grid of 2**-32."""
    clipped = min(max(generator.gauss(mean, sd), -SCALE / 2), SCALE / 2)
    return Fraction(round((0.5 + clipped / SCALE) * 2**32), 2**32)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--budget", type=int, default=3000)
    parser.add_argument("--look", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = table(options)
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return
    print(
        f"{'claim':<17}{'truth':>7}{'fixed':>7}{'mean':>7}{'median':>8}{'80 %':>7}"
        f"{'shown':>8}{'refuted':>9}{'open':>7}{'saving':>8}{'against smallest':>18}"
    )
    for row in rows:
        saving = "-" if row.saving is None else f"{row.saving:.0%}"
        print(
            f"{row.claim:<17}{row.truth:>7g}{row.fixed or '-':>7}{row.mean:>7.0f}{row.median:>8.0f}"
            f"{row.q80:>7.0f}{row.shown:>8.0%}{row.refuted:>9.0%}{row.open:>7.0%}{saving:>8}"
            f"{row.against_smallest or 0:>18.0%}"
        )


if __name__ == "__main__":
    main()
