"""Gates on paired differences: this project's, the usual ones, and another project's where it is installed.

A gate is told what it asks to be told: this project's hears of the number of candidates, of looks and of
documents, because its manifest states them and its checks compare them. The usual gates have no place for it.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from certify.stats.betting import noninferior
from proofs_checks.rivals.situations import MARGIN, Attempt

DELTA: Final = Fraction(1, 20)

Gate = Callable[[Attempt], bool]
"""Whether any candidate is released."""


def certified(attempt: Attempt) -> bool:
    """Betting on units: mean of a document, anytime-valid if looked at often, delta shared by candidates."""
    size, design = attempt.document, "fixed" if len(attempt.looks) == 1 else "sequential"
    delta = DELTA / len(attempt.candidates)
    sums = attempt.candidates.reshape(len(attempt.candidates), -1, size).sum(2)
    return any(
        noninferior(row.tolist(), Fraction(MARGIN), delta, design, grid=size)  # type: ignore[arg-type]
        for row in sums
    )


def _at_any_look(one: Callable[[NDArray[np.int64]], bool], attempt: Attempt) -> bool:
    return any(one(row[:look]) for row in attempt.candidates for look in attempt.looks)


def _threshold(values: NDArray[np.int64]) -> bool:
    return bool(values.mean() >= -MARGIN)


def _t_limit(values: NDArray[np.int64]) -> bool:
    limit = values.mean() - stats.t.ppf(1 - float(DELTA), len(values) - 1) * stats.sem(values)
    return bool(limit > -MARGIN)


def _bootstrap_limit(values: NDArray[np.int64]) -> bool:
    found = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=999,
        confidence_level=1 - float(DELTA),
        alternative="greater",
        method="percentile",
        rng=0,
    )
    return bool(found.confidence_interval.low > -MARGIN)


def statgate(attempt: Attempt) -> bool:
    """The package statgate: ``compare``, or ``sequential`` where the author looks often.

    Raises:
        ImportError: it is not installed.
    """
    import statgate as other
    from statgate.sequential_runner import run_replay

    def records(values: NDArray[np.int64]) -> list[Any]:
        return [other.EvalRecord(case_id=f"{i:05}", score=float(value)) for i, value in enumerate(values)]

    settings = other.GateSettings(alpha=float(DELTA), margin=MARGIN, seed=0, resamples=2000, permutations=100)
    for row in attempt.candidates:
        pair = records(np.zeros_like(row)), records(row)
        if len(attempt.looks) == 1:
            report = other.evaluate_gate(*pair, settings)
        else:
            batches = other.SequentialSettings(batch_size=attempt.looks[0], max_cases=attempt.looks[-1])
            report = run_replay(*pair, settings, batches)
        if report.verdict.value == "SHIP":
            return True
    return False


GATES: Final[dict[str, Gate]] = {
    "certify": certified,
    "mean against a threshold": partial(_at_any_look, _threshold),
    "paired t limit": partial(_at_any_look, _t_limit),
    "percentile bootstrap limit": partial(_at_any_look, _bootstrap_limit),
    "statgate": statgate,
}
