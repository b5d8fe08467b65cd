"""Write the results of a ticket file as Markdown tables: ``python -m reports.results TICKETS [BASE]``.

Every number comes from ``certify check``. The READMEs of shipped results contain the output.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from certify.base.errors import CertifyError, ExitCode
from certify.base.records import RULES
from certify.claims.registry import KINDS
from certify.cli.shell import complain
from certify.gate.check import check
from certify.policy.policy import POLICIES
from reports.details import p_value_text
from reports.summary import worst_first
from reports.view import together, view

_GUARANTEE = "guarantee:"
_RELEASE = "release"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables of one ticket file. Return 0 for any verdicts, 2 for wrong usage.

    ``BASE`` is the checkpoint folder of the base, if it does not lie beside the tickets. Where the file is
    refused, or no claim of any ticket could be computed, a line says why, and the code is that of ``check``.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if len(words) not in (1, 2):
        print("usage: python -m reports.results TICKETS [BASE]", file=sys.stderr)
        return int(ExitCode.USAGE)
    base = Path(words[1]) if words[1:] else None
    try:
        release = view(check(words[0], policy=_RELEASE, base=base))
        if not any(one["claims"] for one in release["tickets"]):
            first = worst_first(together(release["exit_code"], [release]))[0]
            complain(f"no claim to show: {first.id}: {first.reason}", first.code)
            return int(release["exit_code"])
        views = {
            policy: release if policy == _RELEASE else view(check(words[0], policy=policy, base=base))
            for policy in POLICIES
        }
    except CertifyError as error:
        complain(str(error), error.code)
        return int(error.exit_code)
    print("\n".join(tables(views)))
    return 0


def tables(views: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of the Markdown.

    Args:
        views: policy name -> :func:`reports.view.view` of the same ticket file; must include ``release``.
    """
    tickets = views[_RELEASE]["tickets"]
    yield from _verdicts(views)
    for part in (_guarantees, _margins, _asked, _corpus):
        yield ""
        yield from part(tickets)


def _verdicts(views: dict[str, dict[str, Any]]) -> Iterator[str]:
    yield from _head("Verdicts", "ticket", "rows", "released", *views)
    for position, one in enumerate(views[_RELEASE]["tickets"]):
        verdicts = [shown["tickets"][position]["verdict"] for shown in views.values()]
        yield _row([one["id"], len(one["tokens"]), one["released"], *verdicts])


def _guarantees(tickets: Sequence[dict[str, Any]]) -> Iterator[str]:
    names = "criterion", "steps certified", "of these disagree", "drawn, disagree", "rate", "finding"
    yield from _head("Does the guarantee hold?", "ticket", "α", *names, "plain rate over steps")
    for one in tickets:
        for claim in _promises(one):
            yield _row(_guarantee(one["id"], claim))


def _promises(ticket: dict[str, Any]) -> list[dict[str, Any]]:
    """Claims about the guarantee, on the texts that decide."""
    return [
        claim
        for claim in ticket["claims"] or ()
        if claim["name"].startswith(_GUARANTEE)
        and claim["role"] == "evaluation"
        and claim["finding"] != "missing"
        and "drawn" in claim["detail"]  # a calibrated margin draws no steps
    ]


def _guarantee(ticket: str, claim: dict[str, Any]) -> list[Any]:
    detail = claim["detail"]
    rate = "" if claim["lower"] is None else f"{_decimal(claim['lower'])} to {_decimal(claim['upper'])}"
    finding = claim["finding"].upper().replace(" ", "_")
    return [
        ticket,
        detail["alpha"],
        claim["name"].removeprefix(_GUARANTEE),
        f"{detail['certified']} of {detail['steps']}",
        detail["violations"],
        f"{detail['drawn']}, {detail['disagreements']}",
        rate,
        f"{finding} (descriptive)" if detail["descriptive"] else finding,
        _plain(detail["plain_rate"]),
    ]


def _plain(rate: dict[str, str] | None) -> str:
    """Format the rate over all certified steps with its asymptotic limits; units are clusters."""
    if rate is None:
        return ""
    return "{} ({} to {})".format(*(_fraction(rate[name]) for name in ("estimate", "lower", "upper")))


def _margins(tickets: Sequence[dict[str, Any]]) -> Iterator[str]:
    margins = "r: median", "published 2τ", "2 max D: median", "V ΣD: least", "V ΣD: median"
    yield from _head("How the margins compare", "ticket", *margins, "vacuous steps")
    for one in tickets:
        for claim in _promises(one):
            if claim["name"] != f"{_GUARANTEE}additive":
                continue
            found, detail = claim["detail"]["margins"], claim["detail"]
            middle = found["percentiles"].index("50")
            at = [_fraction(found[name][middle]) for name in ("r", "twice_largest", "v_total")]
            threshold = f"{2 * one['selection']['tau']:.4g}"
            vacuous = f"{detail['vacuous_steps']} of {detail['steps']}"
            yield _row([one["id"], at[0], threshold, at[1], _fraction(found["v_total"][0]), at[2], vacuous])


def _asked(tickets: Sequence[dict[str, Any]]) -> Iterator[str]:
    columns = "ticket", "claim", "text", "n", "estimate", "limit", "asked", "outcome"
    yield from _head("What the policy `release` asks", *columns)
    for one in tickets:
        for claim in one["claims"] or ():
            if claim["asked"] and not claim["name"].startswith(_GUARANTEE):
                estimate, lower, upper = (_decimal(claim[name]) for name in ("estimate", "lower", "upper"))
                limit = f"≥ {lower}" if lower else f"≤ {upper}" if upper else ""
                about = one["id"], claim["name"], claim["text"], claim["n"]
                yield _row([*about, estimate, limit, claim["asked"], claim["outcome"]])


def _corpus(tickets: Sequence[dict[str, Any]]) -> Iterator[str]:
    """One row per ticket, text, compared arm and score; the extraction rules are columns."""
    title = """Corpus scores (asymptotic: they decide nothing)

Score of the ticket, difference to the other arm, limits by the paired bootstrap, one-sided p by a
paired randomisation."""
    yield from _head(title, "ticket", "text", "against", "score", *RULES)
    for one in tickets:
        cells: dict[tuple[str, str, str], dict[str, str]] = {}
        for claim in one["claims"] or ():
            if claim["asymptotic"] and claim["estimate"]:
                kind, against, rule = claim["name"].split(":")
                cells.setdefault((claim["text"], against, KINDS[kind].label), {})[rule] = _difference(claim)
        for (text, against, score), by_rule in sorted(cells.items()):
            yield _row([one["id"], text, against, score, *(by_rule.get(rule) for rule in RULES)])


def _difference(claim: dict[str, Any]) -> str:
    said = f"{float(Fraction(claim['detail']['ticket'])):.2f}, {claim['estimate']['decimal']:+.2f}"
    if claim["lower"] and claim["upper"]:
        said += f" ({claim['lower']['decimal']:+.2f} to {claim['upper']['decimal']:+.2f})"
    p = p_value_text(claim["detail"]["p_value"])
    return f"{said}, p {p}" if p else said


def _fraction(value: str) -> str:
    return f"{float(Fraction(value)):.4g}"


def _decimal(figure: dict[str, Any] | None) -> str:
    return "" if figure is None else f"{figure['decimal']:.4g}"


def _head(title: str, *names: str) -> list[str]:
    return [f"### {title}", "", _row(names), "|" + "---|" * len(names)]


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join("" if cell is None else str(cell).replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
