"""Two tickets compared: rows, what is bound, what is declared, and what their certificates state.

A claim is stronger if more requirements are met by it: a higher lower limit where policies test that one, a
lower upper limit, of a guarantee ``held`` before ``inconclusive`` before ``refuted`` (and of two alike, a
lower limit of the rate); of equal ones, that of the smaller error probability. Any other finding is about
another question, so it is neither. Where files lie, and what tickets are called, is no difference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from fractions import Fraction
from typing import Annotated, Any, Final, Literal

from pydantic import Field, JsonValue

from certify.base.model import Document, Model, TokenId
from certify.certificate.schema import Certificate, StatedClaim, TicketRef
from certify.claims.kind import LOWER, UPPER
from certify.claims.registry import KINDS
from certify.policy.requirement import Requirement, declared
from certify.ticket.schema import Ticket

Turn = Literal["added", "removed", "changed", "stronger", "weaker"]
Strength = tuple[Any, ...]
"""Compares: the greater one is the stronger. Of some pairs none is: a set is greater than a part of it."""

_BETTER: Final = {"held": {"inconclusive", "refuted"}, "inconclusive": {"refuted"}}  # than which findings
_PLACES: Final = {"path", "files"}
_OWN: Final = {"id", "tokens", "declared", "evidence", "certificate"}  # compared apart, or not asserted


class Changed(Model):
    """One difference: in what, by name, and what both say; null on the side that has none."""

    what: Literal["bound", "declared", "certificate", "text", "claim"]
    name: str
    change: Turn
    before: JsonValue
    after: JsonValue


class Difference(Document):
    """What differs from ticket A to ticket B; empty lists if nothing does."""

    schema_: Literal["certify.diff"] = Field(alias="schema", default="certify.diff")
    schema_version: Literal[1] = 1
    a: TicketRef
    b: TicketRef
    ids_added: tuple[TokenId, ...]
    ids_removed: tuple[TokenId, ...]
    ids_changed: Annotated[
        tuple[TokenId, ...], Field(description="rows of both, with another piece, distance or shift")
    ]
    changes: tuple[Changed, ...]

    @property
    def empty(self) -> bool:
        """Nothing differs."""
        return not (self.ids_added or self.ids_removed or self.ids_changed or self.changes)


def compare(
    a: Ticket, b: Ticket, certificates: tuple[Certificate | None, Certificate | None] = (None, None)
) -> Difference:
    """Compare ticket ``a`` with ticket ``b``, and their certificates where both have one."""
    before, after = ({token.id: token for token in one.tokens} for one in (a, b))
    common = before.keys() & after.keys()
    changes = [*_changes("bound", _bound(a), _bound(b)), *_changes("declared", _declared(a), _declared(b))]
    first, second = certificates
    if first is not None and second is not None:
        changes += _changes("text", _texts(first), _texts(second))
        shared = _texts(first).keys() & _texts(second).keys()
        changes += _changes("claim", _claims(first, shared), _claims(second, shared))
    else:
        stated = [{"certificate": ((), one.signature)} if one else {} for one in certificates]
        changes += _changes("certificate", *stated)
    return Difference(
        a=TicketRef(id=a.id, sha256=a.digest()),
        b=TicketRef(id=b.id, sha256=b.digest()),
        ids_added=tuple(sorted(after.keys() - common)),
        ids_removed=tuple(sorted(before.keys() - common)),
        ids_changed=tuple(sorted(i for i in common if before[i] != after[i])),
        changes=tuple(changes),
    )


_Said = Mapping[str, tuple[Strength, Any]]


def _changes(what: Any, before: _Said, after: _Said) -> Iterable[Changed]:
    for name in dict.fromkeys((*before, *after)):
        (weight, old), (other, new) = before.get(name, ((), None)), after.get(name, ((), None))
        if name not in before or name not in after:
            turn: Turn = "removed" if name in before else "added"
        elif weight == other and old == new:
            continue
        else:
            turn = "stronger" if other > weight else "weaker" if other < weight else "changed"
        yield Changed(what=what, name=name, change=turn, before=old, after=new)


def _bound(ticket: Ticket) -> dict[str, tuple[Strength, Any]]:
    """What the ticket asserts besides its rows and its claims, field by field."""
    content = ticket.model_dump(mode="json", exclude=_OWN)
    if ticket.calibration is not None:
        content["calibration"] = ticket.calibration.model_dump(mode="json")
    content["path"] = [one.law.model_dump(mode="json") for one in ticket.declared if one.law] or None
    content["extraction"] = ticket.rule
    return {name: ((), value) for name, value in _leaves(content)}


def _leaves(content: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        elif value is not None and not (prefix and key in _PLACES):
            yield f"{prefix}{key}", value


def _counted(named: Iterable[tuple[str, Strength, Any]]) -> dict[str, tuple[Strength, Any]]:
    """By name; the second of one name is ``NAME (2)``."""
    seen: Counter[Hashable] = Counter()
    found = {}
    for name, strength, said in named:
        seen[name] += 1
        found[name if seen[name] == 1 else f"{name} ({seen[name]})"] = (strength, said)
    return found


def _declared(ticket: Ticket) -> dict[str, tuple[Strength, Any]]:
    requirements, untestable = declared(ticket)
    return _counted(
        [
            *((one.about(ticket) + _on(one.texts), _asked(one), _spelled(one)) for one in requirements),
            *((name.split(".", 2)[2].replace(".", ":"), (), "untestable") for name in untestable),
        ]
    )


def _on(texts: tuple[str, ...]) -> str:
    return f" on {', '.join(texts)}" if texts else ""


def _asked(one: Requirement) -> Strength:
    strict = one.test in ("above", "below")
    threshold = one.threshold or Fraction(0)
    # Where nothing limits the error probability, it may be as large as it likes.
    return (-threshold if one.test in UPPER else threshold, strict, -(one.delta or Fraction(1)))


def _spelled(one: Requirement) -> str:
    return str(one) + (f" at delta {float(one.delta):g}" if one.delta else "")


def _texts(certificate: Certificate) -> dict[str, tuple[Strength, Any]]:
    """Texts by name and role; another manifest of one text makes claims of its own, and is no difference."""
    return _counted((f"{one.text} ({one.role})", (), None) for one in certificate.evidence)


def _claims(certificate: Certificate, texts: Iterable[str]) -> dict[str, tuple[Strength, Any]]:
    called = dict(zip((one.sha256 for one in certificate.evidence), _texts(certificate), strict=True))
    return {
        f"{claim.name} on {called[claim.evidence]}": (_shown(claim), _figures(claim))
        for claim in certificate.claims
        if called[claim.evidence] in texts
    }


def _shown(claim: StatedClaim) -> Strength:
    tests = KINDS[claim.kind].tests
    lower, upper = (None if one is None else one.value for one in (claim.lower, claim.upper))
    limit = lower if tests == LOWER else None if upper is None else -upper
    findings = frozenset({claim.finding, *_BETTER.get(claim.finding, ())})
    return (findings, limit is not None, limit or Fraction(0), -Fraction(claim.delta))


def _figures(claim: StatedClaim) -> dict[str, Any]:
    limits = {name: one and one.decimal for name, one in (("lower", claim.lower), ("upper", claim.upper))}
    return {"finding": claim.finding, **limits, "delta": claim.delta, "n": claim.n}
