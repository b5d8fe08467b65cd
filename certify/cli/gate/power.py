"""``certify power``: the number of units that a claim needs, before anything is evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certify.cli import options
from certify.cli.use import interop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from certify.base.records import Rule
    from certify.evidence.load import Evidence
    from certify.evidence.read import Arm
    from certify.gate.planning import Plan, Planned, Truth
    from certify.ticket.schema import Ticket


def power(
    claim: Annotated[
        list[str] | None,
        typer.Option(
            "--claim",
            help="agreement:A, token-agreement:A, guarantee:ALPHA or (with --ticket) guarantee:CRITERION,"
            " non-inferiority:POINTS, gain:POINTS, retention:SHARE, unrelated-loss:NATS or"
            " unrelated-excess:RATE. Repeatable.",
        ),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy",
            metavar="NAME|FILE.toml",
            help="Plan for all claims that a policy asks, and that the ticket declares.",
        ),
    ] = None,
    truth: Annotated[
        str | None,
        typer.Option("--truth", help="Assumed true value: a rate, or a mean difference (default 0)."),
    ] = None,
    sd: Annotated[
        str | None, typer.Option("--sd", help="Standard deviation per unit, for claims about means.")
    ] = None,
    delta: Annotated[str, typer.Option("--delta", help="Error probability of the limit.")] = "0.05",
    power_: Annotated[
        str, typer.Option("--power", help="Probability with which the claim should be shown.")
    ] = "0.8",
    evidence: Annotated[
        list[Path] | None,
        typer.Option(
            "--evidence",
            metavar="NAME.json",
            help="Estimate --truth and --sd from earlier evidence, of translations or losses. Repeatable.",
        ),
    ] = None,
    ticket: Annotated[
        str | None,
        typer.Option(
            "--ticket",
            metavar="FILE[#ID]",
            help="The ticket whose level, extraction rule and arm to use; default: the only arm.",
        ),
    ] = None,
    extraction: Annotated[
        str | None,
        typer.Option(
            "--extraction", help="Rule of quality: whole, first-line or cut; default: the ticket's."
        ),
    ] = None,
    report_format: options.Format = "terminal",
) -> None:
    """Compute how many units claims need under an assumed truth. For planning only.

    Do not test a claim on the evidence that you planned it with.
    """
    from certify.base.errors import CertifyError, UsageError
    from certify.base.records import RULES
    from certify.cli.numbers import level
    from certify.evidence.load import load
    from certify.gate.planning import parse_claim, plan, planned_for
    from certify.policy.policy import get_policy

    named = _ticket(ticket)
    rule = extraction or (named.rule if named else "whole")
    if rule not in RULES:
        raise UsageError(f"--extraction is {', '.join(RULES)}, not {rule!r}", code="USAGE")
    if bool(claim) == bool(policy):
        raise UsageError("name claims with --claim, or a policy with --policy", code="USAGE")
    if policy and (truth is not None or sd is not None):
        raise UsageError("--truth and --sd are of one claim: they do not combine with --policy", code="USAGE")
    asked = [(text, parse_claim(text, named)) for text in dict.fromkeys(claim or ())]
    left: list[str] = []
    if policy:
        asked, left = planned_for(get_policy(policy), named)
    lines: list[str] = []
    plans: list[dict[str, Any]] = []
    loaded = [load(path) for path in evidence or ()]
    settings = {"delta": level("--delta", delta), "power": level("--power", power_)}
    for text, one in asked:
        try:
            made = plan(one, _assumed(one, truth, sd, loaded, named, rule), **settings)
        except CertifyError as error:
            if not policy or error.code == "TICKET_NEEDED":
                raise
            left.append(f"{text} ({error})")  # one claim hides no other
            continue
        lines += _lines(text, made)
        plans.append(_summary(text, made))
    if left:
        lines.append(f"not planned: {', '.join(left)}")
    if not plans and not left:
        lines.append(f"policy {policy} asks nothing of claims")
    whole = {"claims": plans, "not_planned": left} if policy or len(plans) > 1 else plans[0]
    following = interop.evaluation(ticket or "FILE#ID") if any(one["units"] for one in plans) else ()
    interop.show(lines, whole, report_format, *following)


def _assumed(
    claim: Planned,
    truth: str | None,
    sd: str | None,
    evidence: Sequence[Evidence],
    ticket: Ticket | None,
    rule: Rule,
) -> Truth:
    from dataclasses import replace
    from fractions import Fraction

    from certify.base.errors import UsageError
    from certify.claims.every import role_of
    from certify.cli.numbers import number
    from certify.gate.planning import Truth, truth_of

    if (claim.is_rate or claim.t) and sd is not None:
        raise UsageError("--sd does not apply to a rate: its mean says how it spreads", code="USAGE")
    value = None if truth is None else number("--truth", truth)
    spread = None if sd is None else number("--sd", sd)
    if spread is not None and spread <= 0:
        raise UsageError("--sd must be positive", code="NUMBER")
    loaded = next((one for one in evidence if role_of(one, ticket) == claim.role), None)
    if loaded is None or claim.criterion not in ("published", "calibrated"):
        # By default the ticket is assumed to lose nothing, or never to disagree or to do harm.
        if value is None and (claim.kind in ("non-inferiority", "guarantee") or claim.on_loss):
            value = Fraction(0)
        return Truth(value, spread, "assumed")
    # Given values take precedence over estimates.
    width = None if ticket is None else ticket.selection.n
    found = truth_of(claim, loaded, _arm(loaded, ticket), width=width, rule=claim.rule or rule)
    if value is None:
        return replace(found, sd=spread or found.sd)
    return Truth(value, spread or found.sd, found.source)


def _ticket(spec: str | None) -> Ticket | None:
    if spec is None:
        return None
    from certify.ticket.released import open_source

    return open_source(spec).ticket


def _arm(evidence: Evidence, ticket: Ticket | None) -> Arm:
    from certify.base.errors import UsageError
    from certify.evidence.read import ROW_KINDS

    arms = [
        arm
        for arm in evidence.manifest.arms
        if arm.kind in ROW_KINDS and arm.control is None and arm.gate is None
    ]
    if ticket is not None:
        arms = [arm for arm in arms if arm.ids == ticket.ids and arm.kind == ticket.released.object]
    if len(arms) != 1:
        names = ", ".join(arm.name for arm in arms) or "none"
        raise UsageError(
            f"the evidence must hold exactly one arm to plan for; found: {names} (choose one with --ticket)",
            code="TICKET_NEEDED",
        )
    return arms[0]


def _lines(claim: str, found: Plan) -> list[str]:
    delta, wanted = float(found.delta), float(found.power)
    lines = []
    if found.units is None:
        lines.append(f"{claim}: {found.obstacle}")
    else:
        units = "units that agree wholly or not at all" if found.claim.t else "normal units"
        units = "units as in the evidence" if found.truth.law else units
        law = "exact binomial distribution" if found.exact else f"simulated bets on {units}"
        lines.append(
            f"{claim} at delta {delta:g} is shown with probability {wanted:g} by"
            f" {'' if found.exact else 'about '}{found.units} units ({law})"
        )
        true = f"true value {_number(found.truth.value)}"
        if found.truth.sd is not None:
            true += f", standard deviation per unit {_number(found.truth.sd)}"
        lines.append(f"if: {true} ({found.truth.source})")
    if found.claim.t:
        lines.append(f"units are those with a step whose own margin is at least {found.claim.t}")
    elif found.claim.kind == "guarantee":
        lines.append("units are those with a certified step; premise and theorem are not sampled")
    if found.clean is not None:
        lines.append(f"at the very least {found.clean} units, none of them against the claim")
    return lines


def _summary(claim: str, found: Plan) -> dict[str, Any]:
    return {
        "claim": claim,
        "delta": _number(found.delta),
        "power": _number(found.power),
        "truth": _number(found.truth.value),
        "sd": _number(found.truth.sd),
        "source": found.truth.source,
        "units": found.units,
        "clean_units": found.clean,
        "exact": found.exact,
        "obstacle": found.obstacle or None,
    }


def _number(value: Any) -> str | None:
    return None if value is None else f"{float(value):g}"
