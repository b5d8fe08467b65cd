"""Two descriptive tables per text for the summary: gain from learning to stop, and tickets beside nulls.

They are estimates without intervals, computed from evidence in the same way as for claims. Only claims with
limits support conclusions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from certify.base.records import RULES
from certify.evidence.read import BASE_ARM, Answer
from certify.evidence.sentence_scores import POINT, sentence_chrf, share_gone

NULLS_RULE = "first-line"


class UnitMeans:
    """Mean sentence chrF of every arm under every rule, with equal weight per unit, from records one by one.

    Equals :func:`certify.evidence.sentence_scores.mean_score`, without keeping the records in memory.
    """

    def __init__(self) -> None:
        """Start without answers."""
        self._sums: dict[tuple[str, str], dict[str, list[Any]]] = {}

    def add(self, unit: str, arm: str, answer: Answer) -> None:
        """Count the answer of one arm to a sentence of ``unit``."""
        for rule, which in zip(RULES, answer.rules, strict=True):
            found = self._sums.setdefault((arm, rule), {}).setdefault(unit, [0, 0])
            found[0] += sentence_chrf(answer.stats[which])
            found[1] += 1

    def mean(self, arm: str, rule: str) -> Fraction:
        """Mean over units, in [0, 100].

        Raises:
            KeyError: the arm was never counted.
        """
        units = self._sums[arm, rule].values()
        return Fraction(sum(total // count for total, count in units), len(units) * POINT)

    def termination(self, arm: str) -> dict[str, Any]:
        """Compute how much of an arm's gain over the base comes from learning to stop.

        The definition is that of :func:`certify.claims.counts.termination` for tickets.

        Returns:
            ``gain``: by rule, the gain in mean sentence chrF. ``share``: by rule except ``whole``, the part
            of the gain under ``whole`` that this rule removes; None if that gain is below a tenth of a point.
        """
        gains = {rule: self.mean(arm, rule) - self.mean(BASE_ARM, rule) for rule in RULES}
        gone = {rule: share_gone(gains[rule], gains["whole"]) for rule in RULES[1:]}
        return {
            "gain": {rule: f"{float(value):+.2f}" for rule, value in gains.items()},
            "share": {rule: None if share is None else f"{float(share):.3f}" for rule, share in gone.items()},
        }


def termination_rows(arms: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Build the head and rows of the table of :meth:`UnitMeans.termination`, by arm."""
    head = ["arm", *(f"gain {rule}" for rule in RULES), *(f"gone under {rule}" for rule in RULES[1:])]
    rows = []
    for name, figures in arms.items():
        if found := figures.get("termination"):
            gone = [_percent(found["share"][rule]) for rule in RULES[1:]]
            rows.append([name, *(found["gain"][rule] for rule in RULES), *gone])
    return head, rows


def null_rows(arms: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Build the head and rows of a table of tickets beside their null tickets, by kind of null ticket."""
    head = ["ticket", "null tickets", "number", "chrF++ of the ticket", "mean of nulls", "best null"]
    rows = []
    for ticket, kind, scores in _compared(arms):
        own = arms[ticket]["rules"][NULLS_RULE]["chrf"]
        mean = sum(map(float, scores)) / len(scores)
        rows.append([ticket, kind, str(len(scores)), own, f"{mean:.2f}", max(scores, key=float)])
    return head, rows


def _compared(arms: Mapping[str, Any]) -> Iterator[tuple[str, str, list[str]]]:
    """Yield the arm of a ticket, a kind of its null tickets, and their scores."""
    found: dict[tuple[str, str], list[str]] = {}
    for figures in arms.values():
        kind = figures.get("control")
        if kind in (None, "gate"):
            continue
        thing = "transfer" if figures["kind"] == "direction" else figures["kind"]
        ticket = _arm_of(arms, f"{figures['of'].removesuffix('-tuned')}.{thing}")
        if ticket is not None:
            found.setdefault((ticket, kind), []).append(figures["rules"][NULLS_RULE]["chrf"])
    for (ticket, kind), scores in found.items():
        yield ticket, kind, scores


def _arm_of(arms: Mapping[str, Any], name: str) -> str | None:
    """Find the arm of that name, or the one that represents it because it has the same rows."""
    if name in arms:
        return name
    for other, figures in arms.items():
        same = figures.get("note", "").removeprefix("the same rows as ").split(", ")
        if name in same and "control" not in figures:
            return other
    return None


def _percent(share: str | None) -> str:
    return "-" if share is None else f"{100 * float(share):.0f} %"
