"""Axes of the promise: how often decisions differ from embed tuning's where the margin is large."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Final

from certify.base.enclosure import rational
from certify.certificate.build import TextClaims
from certify.claims.calibrated import own_steps
from certify.claims.criteria import drawn_index
from certify.evidence.distances import measure
from certify.evidence.read import UNIT
from certify.stats.betting import Design
from certify.stats.budget import fixed_sequence
from certify.stats.rates import rate_limits
from reports.html.figure import figure, left_out
from reports.html.markup import Markup
from reports.html.material import Material
from reports.html.svg import Axes, Scale, linear

_THRESHOLDS: Final = tuple(Fraction(i, 20) for i in range(20))
_LANE: Final = 1.12
"""Where the criterion ``path`` is drawn, which asks for no margin."""

Decisions = Sequence[tuple[str, Sequence[tuple[int, bool]]]]
"""By unit: margin in units of 1e-9 and whether the decision differs, step by step."""

_Rate = tuple[Fraction, int, int, Fraction, Fraction]
"""Threshold, drawn steps, how many of them differ, and both limits of the rate."""


def violations(given: Material) -> Markup:
    """The rate of disagreement at steps with a margin of at least t, by t."""
    name = "Violation rate by margin"
    if given.main is None or given.arm is None:
        return left_out(name, given.without_evidence)
    evidence, ticket = given.main.evidence, given.one.ticket
    units = measure(evidence.units, given.arm.name, given.subject.distances)
    steps = [(unit, [(step.margin, step.disagrees) for step in found]) for unit, found in units.items()]
    rates = _rates(steps, given.main.delta, evidence.design)
    if not rates:
        return left_out(name, "no step of the outputs is recorded.")
    own: list[_Rate] = []
    if given.arm.name in (evidence.manifest.margins or {}):
        own = _rates(
            list(zip(units, own_steps(evidence, given.arm.name), strict=True)),
            given.main.delta,
            evidence.design,
        )
    calibrated, path = (given.claim(f"guarantee:{criterion}") for criterion in ("calibrated", "path"))
    alpha, tau = Fraction(ticket.selection.alpha), ticket.selection.tau
    tops = [float(one[4]) for one in (*rates, *own)] + [float(alpha)]
    tops += [float(one.upper or 0) for one in (calibrated, path) if one]
    ticks = tuple((i / 5, f"{i / 5:.1f}") for i in range(6)) + (((_LANE, "path"),) if path else ())
    plot = Axes(
        Scale(-0.02, 1.18 if path else 1.02, ticks),
        linear([0.0, *tops], percent=True),
        "least margin of embed tuning's decision",
        "decisions that differ",
    )
    plot.area([(float(t), float(low), float(high)) for t, _, _, low, high in rates], "ticket")
    plot.line([(float(t), wrong / n) for t, n, wrong, _, _ in rates], "ticket")
    if own:
        plot.line([(float(t), wrong / n) for t, n, wrong, _, _ in own], "tuned")
    plot.across(float(alpha), f"α = {ticket.selection.alpha}")
    if 2 * tau <= 1:
        plot.down(2 * tau, f"published: 2τ = {2 * tau:.3f}")
    bars = [(path, _LANE, "path")]
    if (declared := ticket.calibration) is not None:
        t = float(Fraction(declared.t))
        plot.down(t, f"calibrated: t = {declared.t}", "tuned", low=True)
        bars.append((calibrated, t, "tuned"))
    for one, x, kind in bars:
        if one is not None and one.lower is not None and one.upper is not None:
            plot.bar(x, float(one.lower), float(one.upper), kind)
            plot.dot(x, float(one.estimate or 0), kind, one.text)
    return figure(
        f"{given.key}-violations",
        _title(shown_from([(t, high) for t, *_, high in rates], alpha), alpha),
        plot,
        _read(given.main, bool(own), path is not None),
        ("whose margin", "at least", "drawn", "differ", "rate", "lower", "upper"),
        (
            (whose, float(t), n, wrong, wrong / n, float(low), float(high))
            for whose, found in (("embed tuning", rates), ("the ticket's own", own))
            for t, n, wrong, low, high in found
        ),
        [
            ("ticket", "rate, with its limits shaded"),
            *([("tuned", "by the ticket's own margin")] if own else []),
            *([("path", "steps that the path criterion certifies")] if path else []),
        ],
    )


def _rates(steps: Decisions, delta: Fraction, design: Design) -> list[_Rate]:
    """By threshold: of each unit with such steps one is drawn, so that limits for rates are exact."""
    found: list[_Rate] = []
    for t in _THRESHOLDS:
        least = int(t * UNIT)
        sure = [(unit, [wrong for margin, wrong in one if margin >= least]) for unit, one in steps]
        drawn = [int(one[drawn_index(unit, len(one))]) for unit, one in sure if one]
        if drawn:
            lower, upper, _ = rate_limits(drawn, delta, design)
            found.append((t, len(drawn), sum(drawn), lower.value, upper.value))
    return found


def shown_from(uppers: Sequence[tuple[Fraction, Fraction]], alpha: Fraction) -> Fraction | None:
    """The least threshold from which on the rate is shown to be at most ``alpha``; None if there is none.

    Tested from the largest threshold down, each at the full error probability, up to the first that fails.

    Args:
        uppers: thresholds, ascending, each with the upper limit of the rate.
        alpha: the level.
    """
    good = fixed_sequence(upper <= alpha for _, upper in reversed(uppers))
    return uppers[-good][0] if good else None


def _title(least: Fraction | None, alpha: Fraction) -> str:
    said = f"the rate of differing decisions is shown to be at most α = {float(alpha):.3g}"
    if least is None:
        return f"At no margin {said}"
    return f"From a margin of {float(least):.2f} on, {said}" if least else f"Over all decisions {said}"


def _read(text: TextClaims, own: bool, path: bool) -> str:
    read = (
        f"Decisions along the output of embed tuning on {text.name} at which its two most probable tokens are"
        " at least that far apart; one of them is drawn per unit. The shaded limits, each with error"
        f" probability δ = {rational(text.delta)}, hold for one threshold by itself. The title says what"
        " testing from the largest threshold down shows, at δ in all. The published theorem promises that"
        " from 2τ on the curve lies below α."
    )
    if own:
        read += " The second line takes the margin of the ticket's own output instead."
    return read + (" At the right: the steps that the path criterion certifies." if path else "")
