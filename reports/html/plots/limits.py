"""Forest plots: the limits of every claim that is asked for, against what is asked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from certify.base.enclosure import rational
from certify.base.text import counted
from certify.base.verdict import Outcome
from certify.claims.claim import Claim
from certify.claims.registry import KINDS
from certify.policy.outcomes import asked
from certify.policy.requirement import Requirement, RequirementAnswer
from reports.html.figure import figure, left_out, table
from reports.html.markup import Markup, join, tag
from reports.html.material import Material, both_limits, wanted
from reports.html.svg import Axes, Scale, linear, mark, words

_ROW = 44.0
_SIGNS = {Outcome.PASS: ("✓", "good"), Outcome.FAIL: ("✗", "bad"), Outcome.INVALID: ("✗", "bad")}
_LONGEST = 50
_MEASURE = re.compile(r", in (.+)$")


@dataclass(frozen=True, slots=True)
class _Asked:
    """One requirement on one text, and the claim that answers it."""

    requirement: Requirement
    answer: RequirementAnswer
    claim: Claim
    text: str
    wanted: Fraction

    @property
    def measure(self) -> str:
        """Unit of the quantity; a rate if its kind names none."""
        named = _MEASURE.search(KINDS[self.claim.kind].meaning)
        return named[1] if named else "rate"


def forest(given: Material) -> tuple[Markup, Markup | None]:
    """Every claim that is asked for: a panel for each unit of measurement, and the table of its numbers."""
    name = "Limits against what was asked"
    found = [(one, *both_limits(one.claim)) for one in _found(given)]
    if not found:
        return left_out(name, given.without_evidence), None
    drawn = [one for one in found if one[0].claim.estimate is not None]
    measures = dict.fromkeys(one.measure for one, *_ in drawn)
    met = sum(one.answer.outcome is Outcome.PASS for one, *_ in found)
    key, title = f"{given.key}-limits", f"{met} of {counted(len(found), 'limit')} meet what is asked"
    panels = (
        _panel([one for one in drawn if one[0].measure == m], m).svg(f"{title}, in {m}", f"{key}-read")
        for m in measures
    )
    read = (
        "The dot is the estimate, the bar goes from the lower to the upper limit, each with error"
        " probability δ; the red line is what is asked. A claim is shown if the whole bar lies"
        " on the asked side of the line, refuted if it lies beyond it, and undecided if it crosses (✓, ✗, ?)."
    )
    head = ("claim", "text", "estimate", "lower", "upper", "asked", "outcome", "n", "δ", "rests on")
    rows = (
        (
            one.claim.name,
            one.text,
            *(None if value is None else float(value) for value in (one.claim.estimate, lower, upper)),
            str(one.requirement),
            str(one.answer.outcome),
            one.claim.n,
            rational(one.claim.delta),
            ", ".join(one.claim.assumptions),
        )
        for one, lower, upper in found
    )
    legend = [("ticket", "estimate"), ("asked", "asked")]
    shown = figure(key, title, join(*panels), read, (), (), legend)
    if not drawn:
        shown = left_out(name, "the evidence gives no figure for anything that is asked.")
    return shown, table("What is asked", head, rows)


def _found(given: Material) -> Iterator[_Asked]:
    examined, ticket = given.one.examined, given.one.ticket
    for requirement in asked(ticket, given.report.policy):
        for text in examined.texts if examined else ():
            answer = examined.answers.get((requirement.item, text.path)) if examined else None
            if answer is not None:
                claim = next(one for one in text.claims if one.name == requirement.about(ticket))
                yield _Asked(requirement, answer, claim, text.name, wanted(requirement, ticket))


def _panel(rows: list[tuple[_Asked, Fraction | None, Fraction | None]], measure: str) -> Axes:
    values = [float(value) for _, *pair in rows for value in pair if value is not None]
    values += [float(value) for one, *_ in rows for value in (one.wanted, one.claim.estimate or 0)]
    x = linear(values, percent=measure == "rate")
    plot = Axes(x, Scale(0.0, 1.0, ()), measure, "", height=56 + _ROW * len(rows), left=14.0)
    for i, (one, lower, upper) in enumerate(rows):
        top = 28 + _ROW * i
        at, line = top + 17, plot.x(float(one.wanted))
        left = plot.x(x.low if lower is None else float(lower))
        right = plot.x(x.high if upper is None else float(upper))
        sign, tone = _SIGNS.get(one.answer.outcome, ("?", "open"))
        name = f"{one.claim.name} · {one.text}"
        plot.put(
            words(18, top, sign, kind=f"said strong {tone}"),
            words(34, top, name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…", kind="said strong"),
            tag("path", d=f"M{left:.1f} {at:.1f}H{right:.1f}", class_="bar ticket"),
            *(_end(left, at, -1, lower is None), _end(right, at, 1, upper is None)),
            tag("path", d=f"M{line:.1f} {at - 11:.1f}v22", class_="rule asked"),
            mark("ticket", plot.x(float(one.claim.estimate or 0)), at, one.claim.text),
        )
    return plot


def _end(x: float, y: float, side: int, beyond: bool) -> Markup:
    """The end of a bar: a stop, or an arrow where there is no limit."""
    arrow = f"M{x - side * 5:.1f} {y - 4:.1f}l{side * 5} 4l{-side * 5} 4"
    return tag("path", d=arrow if beyond else f"M{x:.1f} {y - 4:.1f}v8", class_="bar ticket")
