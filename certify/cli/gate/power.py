"""``certify power``: the number of units that a claim needs, before anything is evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certify.cli import options
from certify.cli.use import interop

if TYPE_CHECKING:
    from certify.evidence.load import Evidence
    from certify.evidence.read import Arm
    from certify.gate.planning import Plan, Planned, Truth
    from certify.ticket.schema import Ticket


def power(
    claim: Annotated[
        str,
        typer.Option(
            "--claim",
            help="agreement:A, token-agreement:A, guarantee:ALPHA, non-inferiority:POINTS or gain:POINTS.",
        ),
    ],
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
        Path | None,
        typer.Option(
            "--evidence", metavar="NAME.json", help="Estimate --truth and --sd from earlier evidence."
        ),
    ] = None,
    ticket: Annotated[
        str | None,
        typer.Option(
            "--ticket",
            metavar="FILE[#ID]",
            help="With --evidence: the ticket whose arm to use; default: the only arm.",
        ),
    ] = None,
    report_format: options.Format = "terminal",
) -> None:
    """Compute how many units a claim needs under an assumed truth. For planning only.

    Do not test a claim on the evidence that you planned it with.
    """
    from certify.base.errors import UsageError
    from certify.cli.numbers import level
    from certify.gate.planning import parse_claim, plan

    planned = parse_claim(claim)
    if evidence is None and ticket is not None:
        raise UsageError("--ticket requires --evidence", code="USAGE")
    assumed = _assumed(planned, truth, sd, evidence, ticket)
    found = plan(planned, assumed, delta=level("--delta", delta), power=level("--power", power_))
    interop.show(_lines(claim, found), _summary(claim, found), report_format)


def _assumed(
    claim: Planned, truth: str | None, sd: str | None, evidence: Path | None, ticket: str | None
) -> Truth:
    from fractions import Fraction

    from certify.base.errors import UsageError
    from certify.cli.numbers import decimal
    from certify.gate.planning import Truth, truth_of

    if claim.is_rate and sd is not None:
        raise UsageError("--sd does not apply to a rate: its distribution is binomial", code="USAGE")
    value = None if truth is None else decimal("--truth", truth)
    spread = None if sd is None else decimal("--sd", sd)
    if spread is not None and spread <= 0:
        raise UsageError("--sd must be positive", code="NUMBER")
    if evidence is None:
        # By default the ticket is assumed to lose nothing, or never to disagree.
        if value is None and claim.kind in ("non-inferiority", "guarantee"):
            value = Fraction(0)
        return Truth(value, spread, "assumed")
    # Given values take precedence over estimates.
    from certify.evidence.load import load

    loaded = load(evidence)
    named = _ticket(ticket)
    width = None if named is None else named.selection.n
    found = truth_of(claim, loaded, _arm(loaded, named), width=width)
    return Truth(
        found.value if value is None else value, found.sd if spread is None else spread, found.source
    )


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
        law = "exact binomial distribution" if found.exact else "simulated bets on normal units"
        lines.append(
            f"{claim} at delta {delta:g} is shown with probability {wanted:g} by"
            f" {'' if found.exact else 'about '}{found.units} units ({law})"
        )
        true = f"true value {_number(found.truth.value)}"
        if found.truth.sd is not None:
            true += f", standard deviation per unit {_number(found.truth.sd)}"
        lines.append(f"if: {true} ({found.truth.source})")
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
