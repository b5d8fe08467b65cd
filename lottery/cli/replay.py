"""``certify check --replay``: rerun on the model the violations that a verdict counts, and a drawn sample.

``certify check`` calls :func:`run_again` after the verdict and shows the result. If a decision does not
recur, the evidence claims something that was not observed: the check then fails, whatever the verdict. If one
differs by no more than rounding explains, or cannot be run, or there is nothing to run, nothing is certified.
Nor is it where another engine made outputs, which can only be compared with those decoded here.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from certify.base.errors import ExitCode

SAMPLE: Final = 16
"""Records of each text that a replay draws: a forged one among ten is then missed in one of five."""

_GRAVEST: Final = ("NOT_REPRODUCED", "WITHIN_ROUNDING", "OTHER", "SAME", "NOT_RUN", "REPRODUCED")

if TYPE_CHECKING:
    from certify.gate.check import CheckReport, TicketReport
    from lottery.evaluation.recurrence import Replayed


@dataclass(frozen=True, slots=True)
class Rerun:
    """The rerun cases of one ticket and one manifest.

    Attributes:
        evidence: path of the manifest, relative to the ticket's folder.
        results: the violations first, then the drawn records.
        drawn: number of drawn records.
        seed: seed of the draw.
    """

    ticket: str
    evidence: str
    results: tuple[Replayed, ...]
    drawn: int
    seed: int

    def count(self, result: str) -> int:
        """Number of cases with that result."""
        return sum(one.result == result for one in self.results)


def run_again(
    report: CheckReport,
    *,
    model: str,
    texts: Sequence[str] = (),
    reference: Path | None = None,
    seed: int | None = None,
) -> tuple[Rerun, ...]:
    """Rerun every violation that the claims of a report list, and :data:`SAMPLE` drawn records of each text.

    Args:
        seed: seed of the draw; None takes one that nobody could know beforehand.
        model: checkpoint folder of the base, or its name on the hub.
        texts: evaluated texts, as given to ``certify evaluate --data``; each is found by its name.
        reference: table E*, if it does not lie beside the ticket.

    Raises:
        UsageError: torch or transformers is not installed (``EXTRA_MISSING``), or a named file does not
            exist.
        InvalidInputError: the evidence was made with another model; see
            :func:`lottery.evaluation.replay.replay`.
    """
    from certify.cli.shell import needs_extra

    with needs_extra("replaying"):
        from lottery.evaluation.replay import replay
    from certify.ticket.released import Source

    seed = secrets.randbits(32) if seed is None else seed
    named = {Path(text).name: text for text in texts}
    found = []
    for ticket in report.tickets:
        for path, text, cases in _cases(ticket):
            results = replay(
                Source(ticket.ticket, report.path.parent),
                report.path.parent / path,
                cases,
                base=model,
                reference=reference,
                text=named.get(text),
                sample=SAMPLE,
                seed=seed,
            )
            found.append(Rerun(ticket.ticket.id, path, results, len(results) - len(cases), seed))
    return tuple(found)


def exit_code(verdict: int, reruns: Sequence[Rerun]) -> int:
    """Exit code of a check with replay: evidence with a case that is not reproduced is invalid."""
    worst = _worst(reruns)
    if worst == "NOT_REPRODUCED" and verdict != ExitCode.INTERNAL:
        return int(ExitCode.INVALID)
    if worst != "REPRODUCED" and verdict == ExitCode.CERTIFIED:
        return int(ExitCode.INCONCLUSIVE)
    return verdict


def lines(reruns: Sequence[Rerun]) -> list[str]:
    """Format the reruns for a terminal."""
    if not reruns:
        return ["replay: there are no translations to run again, so nothing was shown"]
    shown = []
    for rerun in reruns:
        if other := rerun.count("OTHER") + rerun.count("SAME"):
            shown.append(
                f"replay of {rerun.ticket} in {rerun.evidence}: another engine made the outputs, which cannot"
                f" be run again exactly; of {other} drawn (seed {rerun.seed}) and decoded here,"
                f" {rerun.count('OTHER')} differ, {rerun.count('NOT_RUN')} were not run"
            )
            continue
        shown.append(
            f"replay of {len(rerun.results) - rerun.drawn} violations and {rerun.drawn} drawn sentences"
            f" (seed {rerun.seed}) of {rerun.ticket} in {rerun.evidence}: {rerun.count('REPRODUCED')}"
            f" reproduced, {rerun.count('WITHIN_ROUNDING')} as far as rounding allows,"
            f" {rerun.count('NOT_REPRODUCED')} not reproduced, {rerun.count('NOT_RUN')} not run"
        )
        shown += [
            f"  {one.record}, step {one.step}: {one.result}: {one.text}"
            for one in rerun.results
            if one.result == "NOT_REPRODUCED"
        ]
        near = [one for one in rerun.results if one.result == "WITHIN_ROUNDING"]
        shown += [f"  WITHIN_ROUNDING, such as {one.record}, step {one.step}: {one.text}" for one in near[:1]]
        reasons = Counter(one.text for one in rerun.results if one.result == "NOT_RUN")
        shown += [f"  {number} NOT_RUN: {text}" for text, number in reasons.items()]
    worst = _worst(reruns)
    if worst == "NOT_REPRODUCED":
        shown.append("replay: evidence that is not reproduced is invalid, whatever the verdict: exit code 4")
    elif worst != "REPRODUCED":
        shown.append("replay: not all was reproduced, so that nothing is certified: exit code 3, not 0")
    return shown


def gravest(run: Mapping[str, Any]) -> str:
    """The gravest result of any replay in the data of a run, as a reason code; NOT_RUN if there is none."""
    reruns = [rerun for report in run["reports"] for rerun in report.get("replay", ())]
    return _gravest(one["result"] for rerun in reruns for one in rerun["results"])


def _worst(reruns: Sequence[Rerun]) -> str:
    return _gravest(one.result for rerun in reruns for one in rerun.results)


def _gravest(results: Iterable[str]) -> str:
    """NOT_RUN where there is nothing to run."""
    return min(results, key=_GRAVEST.index, default="NOT_RUN")


def data(reruns: Sequence[Rerun]) -> list[dict[str, Any]]:
    """Convert the reruns to plain JSON values."""
    return [
        {
            "ticket": one.ticket,
            "evidence": one.evidence,
            "results": list(map(asdict, one.results)),
            "drawn": one.drawn,
            "seed": one.seed,
        }
        for one in reruns
    ]


def _cases(ticket: TicketReport) -> list[tuple[str, str, list[tuple[str, int]]]]:
    """(path of the manifest, name of its text, violations) for each translated text."""
    found = []
    for text in ticket.examined.texts if ticket.examined else ():
        witnesses = (case for claim in text.claims for case in claim.detail.get("witnesses", ()))
        cases = sorted({(str(case["record"]), int(case["step"])) for case in witnesses})
        if text.role != "loss":
            found.append((text.path, text.name, cases))
    return found
