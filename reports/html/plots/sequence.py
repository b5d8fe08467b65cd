"""Axes of a watched run: the anytime-valid limits as units came in."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Final

from certify.claims.claim import Claim
from certify.claims.registry import claim_named
from certify.evidence.load import Evidence
from certify.policy.outcomes import asked
from certify.policy.requirement import Requirement
from reports.html.figure import figure, left_out
from reports.html.markup import Markup, join
from reports.html.material import Material, both_limits, wanted
from reports.html.svg import Axes, linear

_LOOKS: Final = 24


def sequences(given: Material) -> Markup:
    """One confidence sequence for each claim that is asked of a text of sequential design."""
    name = "Confidence sequence"
    if given.main is None or given.arm is None:
        return left_out(name, given.without_evidence)
    if given.main.evidence.design != "sequential":
        return left_out(name, "the text was evaluated as a whole, and says nothing before its last unit.")
    required = [one for one in asked(given.one.ticket, given.report.policy) if one.role == "evaluation"]
    return join(_sequence(given, given.main.evidence, number, one) for number, one in enumerate(required))


def _sequence(given: Material, evidence: Evidence, number: int, requirement: Requirement) -> Markup:
    ticket, total = given.one.ticket, len(evidence.units)
    name = requirement.about(ticket)
    looks = sorted({max(1, total * i // _LOOKS) for i in range(1, _LOOKS + 1)})
    seen = [(units, _after(given, evidence, units, name)) for units in looks]
    known = [(units, claim, *both_limits(claim)) for units, claim in seen if claim.estimate is not None]
    if not known:
        return left_out(f"Confidence sequence of {name}", seen[-1][1].text + ".")
    target = float(wanted(requirement, ticket))
    # A limit that is not there is drawn at the end of what is seen.
    # So are the wide ones of the first looks, which would flatten everything else.
    ends = [float(v) for _, _, *pair in known[len(known) // 4 :] for v in pair if v is not None]
    y = linear([target, *ends, *(float(claim.estimate or 0) for _, claim, _, _ in known)])
    plot = Axes(linear([0, total], pad=0), y, "units drawn", name)
    drawn = [
        (float(n), y.low if low is None else float(low), y.high if high is None else float(high))
        for n, _, low, high in known
    ]
    plot.area(drawn, "ticket")
    plot.line([(float(n), float(claim.estimate or 0)) for n, claim, _, _ in known], "ticket")
    plot.across(target, f"asked: {requirement}")
    return figure(
        f"{given.key}-sequence-{number}",
        f"{name} after each look: {total} units were drawn",
        plot,
        "The line is the estimate after so many units, in the order in which they were drawn; the band"
        " holds the true value at all looks together, with the error probability of the claim for each"
        " side. Drawing may stop as soon as the band lies on one side of the red line.",
        ("units", "estimate", "lower", "upper"),
        (
            (n, float(claim.estimate or 0), *(None if value is None else float(value) for value in pair))
            for n, claim, *pair in known
        ),
        [("ticket", "estimate, with its limits shaded")],
    )


def _after(given: Material, evidence: Evidence, units: int, name: str) -> Claim:
    """The claim as it stood after the first ``units`` units."""
    records = tuple(record for one in list(evidence.units.values())[:units] for record in one)
    delta = given.main.delta if given.main else Fraction(1)
    return claim_named(name, replace(evidence, records=records), given.subject, delta)
