"""Plots of quality: gain by extraction rule, and rows kept against gain."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from certify.base.records import RULES, Rule
from certify.evidence.load import Evidence
from certify.evidence.null_labels import NULLS
from certify.evidence.read import BASE_ARM, REFERENCE_ARM, ROW_KINDS, Arm
from certify.evidence.sentence_scores import mean_score, share_gone
from reports.html.figure import figure, left_out, many, percent, signed
from reports.html.markup import Markup
from reports.html.material import Material, both_limits
from reports.html.svg import Axes, Scale, counting, linear, short

_SHOWN: dict[Rule, str] = {"whole": "whole output", "first-line": "first line", "cut": "cut to length"}
_GAIN = "gain over the base, chrF points"


def by_rule(given: Material) -> Markup:
    """The gain under each extraction rule, and how much of it is learning to stop."""
    name = "Gain by extraction rule"
    if given.main is None or given.arm is None:
        return left_out(name, given.without_evidence)
    evidence, arm = given.main.evidence, given.arm
    ours, theirs = ({rule: _gain(evidence, one, rule) for rule in RULES} for one in (arm.name, REFERENCE_ARM))
    claims = {rule: given.claim(f"gain:base:{rule}") for rule in RULES}
    limits = {rule: both_limits(claim) if claim else (None, None) for rule, claim in claims.items()}
    ends = [float(value) for pair in limits.values() for value in pair if value is not None]
    y = linear([0.0, *ends, *map(float, (*ours.values(), *theirs.values()))])
    x = Scale(-0.8, len(RULES) - 0.4, tuple((float(i), _SHOWN[rule]) for i, rule in enumerate(RULES)))
    plot = Axes(x, y, "what is scored", _GAIN)
    plot.across(0.0, "the base", "base", place=0.0)
    for i, rule in enumerate(RULES):
        _bar(plot, i - 0.12, limits[rule])
        plot.dot(i - 0.12, float(ours[rule]), "ticket", f"ticket, {_SHOWN[rule]}: {float(ours[rule]):+.2f}")
        said = f"embed tuning, {_SHOWN[rule]}: {float(theirs[rule]):+.2f}"
        plot.dot(i + 0.12, float(theirs[rule]), "reference", said)
    title = f"The gain on {given.main.name} is {signed(float(ours['whole']))} on whole outputs"
    title += f" and {signed(float(ours['first-line']))} on first lines"
    if (share := share_gone(ours["first-line"], ours["whole"])) is not None:
        title += f": {percent(float(share)) if share < 1 else 'all'} of it is learning to stop"
    read = (
        "Mean difference of sentence chrF to the base model. A model that runs on after its translation"
        " loses chrF on whole outputs; scored on the first line it does not. What is left there is"
        " translation; what is gone is learning to stop. Bars are the limits, where they are claimed."
    )
    rows = (
        (_SHOWN[rule], float(ours[rule]), *map(_float, limits[rule]), float(theirs[rule])) for rule in RULES
    )
    head = ("scored", "ticket", "lower", "upper", "embed tuning")
    legend = [("ticket", "this ticket"), ("reference", "embed tuning, all rows")]
    return figure(f"{given.key}-rule", title, plot, read, head, rows, legend)


def by_rows(given: Material) -> Markup:
    """Gain against the number of rows: this ticket, the others on the same text, its nulls, embed tuning."""
    name = "Rows kept against quality"
    if given.main is None or given.arm is None:
        return left_out(name, given.without_evidence)
    evidence, ticket, rule = given.main.evidence, given.one.ticket, given.one.ticket.rule
    known = dict(_claimed(given, evidence.sha256, f"gain:base:{rule}"))
    shown = [
        (
            kind,
            arm,
            float(_gain(evidence, arm.name, rule)),
            known.get((arm.kind, arm.table_sha256), (None, None)),
        )
        for arm in evidence.manifest.arms
        if (kind := _kind(arm, given.arm, ticket.id))
    ]
    best = float(_gain(evidence, REFERENCE_ARM, rule))
    ends = [float(value) for *_, pair in shown for value in pair if value is not None]
    y = linear([0.0, best, *ends, *(gain for _, _, gain, _ in shown)])
    plot = Axes(counting(float(ticket.base.shape[0])), y, "rows put into the base", _GAIN)
    plot.across(0.0, "the base", "base", place=0.7)
    plot.across(best, "embed tuning", "reference", place=0.0)
    for kind, arm, gain, pair in shown:
        _bar(plot, float(len(arm.ids or ())), pair, "" if kind == "ticket" else "faint")
        plot.dot(
            float(len(arm.ids or ())),
            gain,
            kind,
            f"{arm.name}: {many(len(arm.ids or ()), 'row')}, {gain:+.2f}",
        )
    every = float(ticket.base.shape[0])
    plot.dot(every, best, "reference", f"embed tuning: {short(every)} rows, {signed(best)}")
    ours = next(gain for kind, _, gain, _ in shown if kind == "ticket")
    nulls = [gain for kind, _, gain, _ in shown if kind == "null"]
    title = f"With {many(len(ticket.ids), 'row')} this ticket gains {signed(ours)}"
    title += f" of embed tuning's {signed(best)}"
    if nulls:
        title += f"; its best null ticket {signed(max(nulls))}"
    read = (
        f"Mean gain of sentence chrF ({_SHOWN[rule]}) on {given.main.name}. Null tickets hold as many rows,"
        " chosen at random, by frequency or by size of the shift; a ticket that means something lies above"
        " all of its own. Bars are the limits of tickets that this page judges."
    )
    return figure(
        f"{given.key}-rows",
        title,
        plot,
        read,
        ("arm", "kind", "rows", "gain", "lower", "upper"),
        (
            (arm.name, arm.control or arm.kind, len(arm.ids or ()), gain, *map(_float, pair))
            for _, arm, gain, pair in shown
        ),
        [
            ("ticket", "this ticket"),
            ("other", "other tickets"),
            ("reference", "embed tuning, all rows"),
            *([("null", "null tickets of this one")] if nulls else []),
        ],
    )


def _kind(arm: Arm, ours: Arm, ticket: str) -> str | None:
    """The mark of an arm; None for one that holds no rows, or belongs to another comparison."""
    if arm.name == ours.name:
        return "ticket"
    if arm.kind not in ROW_KINDS or arm.gate is not None or arm.ids is None:
        return None
    return "other" if arm.control is None else "null" if arm.control in NULLS and arm.of == ticket else None


def _claimed(
    given: Material, sha256: str, name: str
) -> Iterator[tuple[tuple[str, str | None], tuple[Fraction | None, Fraction | None]]]:
    """By kind and table of an arm, the limits of that claim about every ticket of the report on that text."""
    for one in given.report.tickets:
        examined = one.examined
        for text in examined.texts if examined else ():
            if examined and examined.subject and text.evidence.sha256 == sha256:
                key = one.ticket.released.object, examined.subject.table_sha256
                yield from ((key, both_limits(claim)) for claim in text.claims if claim.name == name)


def _bar(plot: Axes, x: float, pair: tuple[Fraction | None, Fraction | None], kind: str = "") -> None:
    lower, upper = pair
    if lower is not None and upper is not None:
        plot.bar(x, float(lower), float(upper), f"ticket {kind}".strip())


def _gain(evidence: Evidence, arm: str, rule: Rule) -> Fraction:
    return mean_score(evidence, arm, rule) - mean_score(evidence, BASE_ARM, rule)


def _float(value: Fraction | None) -> float | None:
    return None if value is None else float(value)
