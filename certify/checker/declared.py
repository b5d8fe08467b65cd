"""What a ticket asserts, and what it declares, as requirements."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Final, NamedTuple

from .shapes import digests, fits
from .steps import law, nanos
from .tables import Folder, Json, level, need, parse
from .units import CRITERIA

GROUPS: Final = {  # what a ticket can be better than
    "chance": ("random", "frequency-matched"),
    "rivals": ("top-frequency", "top-norm"),
    "one-row": ("one-row:bos", "one-row:newline"),
}
RULES: Final = ("whole", "first-line", "cut")
RETAINED: Final = ("0.5", "0.75", "0.9")  # shares of embed tuning's gain
NAMED: Final = ("path", "calibrated")  # a declaration without a criterion does not mean them
GAINS: Final = ("gain", "template-gain", "retention", "better-than-nulls")  # above 0 without a margin
COMPARED: Final = {  # what a ticket can declare: comparators, and extraction rules if there are any
    "agreement-rate": (("reference",), ()),
    "token-agreement": (("reference",), ()),
    "guarantee": ((*CRITERIA, *NAMED[1:]), ()),
    "non-inferiority": (("reference", "full", "base"), RULES),
    "gain": (("base",), RULES),
    "template-gain": (("base",), RULES),
    "retention": (RETAINED, RULES),
    "better-than-nulls": ((*GROUPS,), RULES),
    "unrelated-loss": (("base",), ()),
    "unrelated-excess": (("base",), ()),
}


class Requirement(NamedTuple):
    """What a policy asks of a claim: larger than a threshold, or a finding."""

    name: str
    threshold: Fraction | None
    strict: bool
    finding: str
    texts: tuple[str, ...]
    delta: Fraction | None = None


def promised(one: Json) -> tuple[int, int] | None:
    """The path that a declared claim needs."""
    needs = (one["kind"], one.get("comparator")) == ("guarantee", "path")
    need(needs or one.get("path") is None, "TICKET_MALFORMED")
    return law(one.get("path") or {"n": 16, "g": 2}) if needs else None


def margin(ticket: Json) -> tuple[int, Fraction] | None:
    """The calibrated margin t that a ticket declares, in units of 1e-9, and its level."""
    found = [one for one in ticket.get("declared", []) if one.get("calibration") is not None]
    need(
        len(found) <= 1 and all(fits(one["calibration"], "calibration") for one in found), "TICKET_MALFORMED"
    )
    about = {(one["kind"], one.get("comparator")) for one in found}
    need(about <= {("guarantee", "calibrated")}, "TICKET_MALFORMED")
    return (nanos(found[0]["calibration"]["t"]), level(found[0]["calibration"]["alpha"])) if found else None


def scored_under(ticket: Json) -> str:
    """The extraction rule that a ticket declares; whole outputs unless it says."""
    rule: str | None = ticket.get("extraction")
    need(rule in (None, *RULES), "TICKET_MALFORMED")
    return rule or RULES[0]


def declared(ticket: Json) -> list[Requirement | None]:
    """What a ticket declares, as requirements; None where nothing can test it."""
    found: list[Requirement | None] = []
    for one in ticket.get("declared", []):
        against, rule, margin = (one.get(key) for key in ("comparator", "extraction", "margin"))
        comparators, rules = COMPARED.get(one["kind"], ((), ()))
        rule = rule or (scored_under(ticket) if rules else None)
        names = [
            ":".join(filter(None, (one["kind"], name, rule)))
            for name in comparators
            if against in ((name,) if name in NAMED else (None, name))
            and (rule in rules if rules else rule is None)
        ]
        promised(one)
        need(fits(margin, "~threshold"), "TICKET_MALFORMED")
        value = None if margin is None else Fraction(margin)
        gains, promise = one["kind"] in GAINS, one["kind"] == "guarantee"
        if value is not None and one["kind"].startswith(("unrelated", "non-inferiority")):
            value = -value
        if not names or ((value is not None) if promise else (value is None and not gains)):
            found.append(None)
            continue
        delta = None if one.get("delta") is None else level(one["delta"])
        texts = tuple(one.get("texts", ()))
        held, threshold = ("held", None) if promise else ("", value or Fraction(0))
        found += [Requirement(name, threshold, value is None, held, texts, delta) for name in names]
    return found


def asked_of(ticket: Json, claims: Sequence[Requirement]) -> list[Requirement | None]:
    """What a policy asks, under the rule of the ticket where it says so, and what the ticket declares."""
    rule = scored_under(ticket)
    return [one._replace(name=re.sub(":declared$", f":{rule}", one.name)) for one in claims] + declared(
        ticket
    )


def asserted(ticket: Json) -> Json:
    """What a ticket asserts, without places of evidence; what may be left out or be an integer, in full."""

    def reals(part: Json, *names: str) -> Json:
        return part | {name: float(part[name]) for name in names if type(part[name]) is int}

    optional = dict.fromkeys(("comparator", "margin", "delta", "extraction"))
    declared = [optional | one for one in ticket.get("declared", [])]
    full = ticket | {
        "declared": [
            {k: v for k, v in one.items() if k not in ("texts", "path", "calibration") or v}
            for one in declared
        ]
    }
    full["template"] = ticket["template"] and {"path": None} | ticket["template"]
    full["selection"] = reals(ticket["selection"], "tau")
    full["tokens"] = [reals(row, "p", "log10_p", "shift_norm") for row in ticket["tokens"]]
    return {name: one for name, one in full.items() if name not in ("evidence", "certificate")}


def calibrated_on(folder: Folder, ticket: Json) -> set[str]:
    """Sentences and text on which the declared margin was chosen, from the record that the ticket binds."""
    if margin(ticket) is None:
        return set()
    (one,) = filter(None, (one.get("calibration") for one in ticket["declared"]))
    record = parse(folder.read(one["record"]["path"], one["record"]["sha256"]))
    need(fits(record, "chosen-margin") and digests(record["sentences"]), "CHOICE_MALFORMED")
    need(all(record[key] == one[key] for key in ("t", "alpha", "text_sha256")), "CALIBRATION_DIFFERS")
    return {*record["sentences"], record["text_sha256"]}
