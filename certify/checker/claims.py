"""From units to the claims that a certificate states, and what a policy makes of one (theory §5).

The rules are those of :mod:`certify.policy.requirement`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, Final, NamedTuple

from .declared import COMPARED, GROUPS, RETAINED, RULES, Requirement, margin, promised
from .scan import critical
from .steps import nanos
from .tables import PASS, Item, Json, Stop, canonical, level, need, sha
from .units import CRITERIA, MEANS, ONE, RATES, Evidence, compared, largest

NULLS: Final = {
    "random": 3,
    "frequency-matched": 3,
    "top-frequency": 1,
    "top-norm": 1,
    "one-row:bos": 1,
    "one-row:newline": 1,
}
UNITS: Final = {"sentence": "A-UNITS", "block": "A-BLOCKS", "document": "A-DOCUMENTS"}
CAP: Final = 2  # nats per token
AIMS: Final = {  # where limits of means are to be sharp, larger being better; 0 for the others
    "non-inferiority": Fraction(-1),
    "token-agreement": Fraction(19, 20),
    "unrelated-loss": Fraction(-1, 10),
}
LARGEST: Final = Fraction(1, 20)  # share of one document
STATUS: Final = {  # of a guarantee that must be held, by finding
    "held": "",
    "refuted": "REFUTED",
    "premise failed": "REFUTED",
    "vacuous": "VACUOUS",
    "inconclusive": "INCONCLUSIVE",
    "violated": "INVALID",
}


class Ends(NamedTuple):
    """Limits of a quantity; one of them may be missing."""

    lower: Fraction | None
    upper: Fraction | None


class Policy(NamedTuple):
    """What a verdict rests on."""

    name: str
    items: tuple[str, ...]
    claims: tuple[Requirement, ...]
    taken: frozenset[str]
    delta: Fraction
    texts: Mapping[str, str]
    sha256: str


class Claim(NamedTuple):
    """What a certificate states of a claim."""

    finding: str
    estimate: Fraction | None
    lower: Fraction | None
    upper: Fraction | None
    n: int
    procedure: str
    assumptions: list[str]
    witness: list[Json]
    critical: Json | None = None


class Quantity(NamedTuple):
    """Values of the units against each arm compared, in multiples of 1 / grid, and the range of a value."""

    values: Sequence[Sequence[Fraction | int]]
    low: int
    high: int
    grid: int = 1


def witness(units: list[int], lower: int | None, upper: int | None) -> Json:
    """Units by their digest, and the limits of their mean as indices of the grid."""
    return {"units": sha(canonical(units)), "lower": lower, "upper": upper}


class Text:
    """One evaluated text: evidence about one ticket, and the claims that it supports."""

    def __init__(self, evidence: Evidence, role: str, arm: str | None, ticket: Json) -> None:
        self.e, self.role, self.arm, self.ticket = evidence, role, arm, ticket
        self.share, self.claims = Fraction(1), dict[str, Claim]()
        self.quantities: dict[str, Quantity] = {}
        self.hints: Mapping[str, Any] = {}
        m = evidence.m
        need(evidence.label < ticket["base"]["shape"][0], "EVIDENCE_IDS")
        self.name, self.unit = m["text"]["name"], m["text"]["unit"]
        self.taken = [UNITS[self.unit.split(":")[0]], "A-EVIDENCE", *["A-ENGINE"] * (not evidence.ours)]

    def measured(self, arm: str) -> dict[str, Quantity]:
        """What claims about means are about, larger being better."""
        e, ticket = self.e, self.ticket
        if self.role == "loss":
            falls = e.means(lambda r: (r["nats"]["base"] - r["nats"][arm], r["tokens"] * 10**9))
            return {"unrelated-loss:base": Quantity([falls], -CAP, CAP)}
        if self.role == "other-template":
            return self.differences(arm, {"template-gain:base": ["base"]})
        found = dict[str, Quantity]()
        if e.ours:
            wrong = e.means(lambda r: (len(r["arms"][arm]["differs"]), len(r["reference"]["tokens"])))
            found["token-agreement:reference"] = Quantity([[1 - share for share in wrong]], 0, 1)
        nulls, against = dict[Any, Json](), {"gain:base": ["base"]}
        arms = [one for one in e.arms.values() if not one.get("gate")]
        for one in arms:
            if (one.get("of"), one["kind"]) == (ticket["id"], ticket["released"]["object"]):
                control = one.get("control")
                nulls[control, one.get("seed") if NULLS.get(control) == 3 else 0] = one
        for group, controls in GROUPS.items():
            wanted = [(control, seed) for control in controls for seed in range(NULLS[control])]
            found_nulls = [nulls[label] for label in wanted if label in nulls]
            # Draws that cannot be made again must at least differ.
            matched = [one["table_sha256"] for one in found_nulls if one["control"] == "frequency-matched"]
            if len(found_nulls) == len(wanted) and len({*matched}) == len(matched):
                against[f"better-than-nulls:{group}"] = [one["name"] for one in found_nulls]
        for kind in ("reference", "full", "base"):
            plain = [one["name"] for one in arms if one["kind"] == kind and not one.get("control")]
            against[f"non-inferiority:{kind}"] = plain
        found |= self.differences(arm, against)
        for i, rule in enumerate(RULES):
            scores = [e.scores(name, i) for name in (arm, "reference", "base")]
            for share in RETAINED:
                a, b = Fraction(share).as_integer_ratio()
                kept = [b * x - a * y - (b - a) * z for x, y, z in zip(*scores, strict=True)]
                found[f"retention:{share}:{rule}"] = Quantity([kept], -100, 100, b * ONE)
        return found

    def differences(self, arm: str, against: Mapping[str, list[str]]) -> dict[str, Quantity]:
        """Scores of an arm minus those of others, by claim, under each extraction rule."""
        found, scores = dict[str, Quantity](), self.e.scores
        for claim, names in against.items():
            for i, rule in enumerate(RULES) if names else ():
                pairs = [zip(scores(arm, i), scores(name, i), strict=True) for name in names]
                found[f"{claim}:{rule}"] = Quantity([[x - y for x, y in p] for p in pairs], -100, 100, ONE)
        return found

    def bets(self, name: str, *, both: bool) -> tuple[list[Json], Fraction, int]:
        """Witnesses of a claim, its estimate and the grid index of its limit, from the weakest comparison.

        ``both``: with the limit on the other side; over m comparisons each of these has a share of 1/m.
        """
        hints = self.hints.get(name, ())
        lists, low, high, grid = self.quantities[name]
        aim = (AIMS.get(name.split(":")[0], Fraction(0)) - low) / (high - low)
        found: list[tuple[int, Fraction, Json]] = []
        for i, values in enumerate(lists):
            hint = hints[i] if i < len(hints) else {}
            ratios = [(value.numerator, value.denominator) for value in values]
            floors = [(a - low * grid * b) * ONE // (grid * b * (high - low)) for a, b in ratios]
            units = [max(0, min(ONE, unit)) for unit in floors]
            lower: int = self.e.lower(units, self.share, aim, hint.get("lower"))
            upper: int | None = None
            if both and max(values) <= high * grid:
                mirrored = [max(0, ONE - 1 - unit) for unit in units]
                flipped = MEANS - hint["upper"] if type(hint.get("upper")) is int else None
                upper = MEANS - self.e.lower(mirrored, self.share / len(lists), 1 - aim, flipped)
            found.append((lower, Fraction(sum(units), len(units) * ONE), witness(units, lower, upper)))
        index, mean, _ = min(found, key=lambda one: one[0])
        return [one for _, _, one in found], low + mean * (high - low), index

    def compute(self, share: Fraction, h: dict[int, int], hints: Mapping[str, Any]) -> None:
        """Every claim that a certificate states, each limit with error ``share``; h by id of rows in N.

        ``hints``: the witnesses that the certificate states, by claim.
        """
        e, arm, taken, spelled = self.e, self.arm, self.taken, self.ticket["selection"]["alpha"]
        alpha = level(spelled)
        self.share, self.hints, n, d = share, hints, len(e.units), self.ticket["base"]["shape"][1]
        if arm is None or e.largest > LARGEST:
            return
        self.quantities = self.measured(arm)
        for name, (_, low, high, _) in self.quantities.items():
            found, estimate, index = self.bets(name, both=True)
            limit = low + Fraction(index, MEANS) * (high - low)
            ends = Ends(limit, None)
            if self.role == "loss":
                estimate, ends = -estimate, Ends(None, -limit)
            self.claims[name] = Claim("measured", estimate, *ends, n, "betting/2", taken, found)
        if self.role == "loss":
            name, ((falls,), least, _, _) = "unrelated-excess:base", self.quantities["unrelated-loss:base"]
            hits = [fall < least for fall in falls]
        elif not e.ours or self.role == "other-template":
            return
        else:
            name = "agreement-rate:reference"
            hits = [not any(r["arms"][arm]["differs"] for r in records) for records in e.units.values()]
        exact = "clopper-pearson/1" if e.fixed else "betting/2"
        first, last, grid = e.rate(hits, share, *(self.hints.get(name) or [{}])[:1])
        found, mean = [witness([*map(int, hits)], first, last)], Fraction(sum(hits), n)
        ends = Ends(Fraction(first, grid), None) if self.role != "loss" else Ends(None, Fraction(last, grid))
        self.claims[name] = Claim("measured", mean, *ends, n, exact, taken, found)
        if self.role == "loss":
            return
        above = max(h.values(), default=0) >= critical(d, alpha, "asymptotic")
        tied = [] if self.ticket["base"]["tied"] is False else ["A-UNTIED"]
        draws = e.drawn(arm, spelled, h, d)
        laws = {promised(one) for one in self.ticket.get("declared", [])} - {None} or {(16, 2)}
        for criterion in CRITERIA if e.on_path(arm) and laws == {e.law} else CRITERIA[:3]:
            drawn, name = draws.get(criterion), f"guarantee:{criterion}"
            rests = [*taken, *(tied if criterion != "path" else ())]
            claim = Claim("vacuous", None, None, None, 0, "", rests, [])
            if drawn:
                first, last, grid = limits = e.rate(drawn, share, *(self.hints.get(name) or [{}])[:1])
                claim = Claim(
                    e.holds(drawn, alpha, share, limits),
                    Fraction(sum(drawn), len(drawn)),
                    Fraction(first, grid),
                    Fraction(last, grid),
                    len(drawn),
                    exact,
                    claim.assumptions,
                    [witness([*map(int, drawn)], first, last)],
                    counts(len(drawn), alpha, share) if e.fixed else None,
                )
            if above and criterion == "published":
                claim = claim._replace(finding="premise failed")
            if criterion == "path" and arm in e.broken:
                claim = claim._replace(finding="violated")
            self.claims[name] = claim
        self.calibrated(arm, share)

    def calibrated(self, arm: str, share: Fraction) -> None:
        """The claim about decisions whose own margin is at least the declared one, if it can be made."""
        e, declared, name = self.e, margin(self.ticket), "guarantee:calibrated"
        t = e.margins.get(arm)
        if declared is None or t is None or nanos(t) != declared[0]:
            return
        units, values = e.sure(arm, declared[0]), [0, 0]
        self.claims[name] = Claim("vacuous", None, None, None, 0, "", self.taken, [])
        if not units:
            return
        alpha, hint = declared[1], (self.hints.get(name) or [{}])[0]
        flipped = MEANS - hint["upper"] if type(hint.get("upper")) is int else None
        values[0] = e.lower(units, share, alpha, hint.get("lower"))
        mirrored = [max(0, ONE - 1 - unit) for unit in units]
        values[1] = MEANS - e.lower(mirrored, share, 1 - alpha, flipped)
        low, high = (Fraction(value, MEANS) for value in values)
        finding = "held" if high <= alpha else "refuted" if low > alpha else "inconclusive"
        mean, shown = Fraction(sum(units), len(units) * ONE), [witness(units, *values)]
        self.claims[name] = Claim(finding, mean, low, high, len(units), "betting/2", self.taken, shown)

    def judge(self, asked: Requirement, taken: frozenset[str]) -> Item:
        """What this text makes of a claim that the certificate states and a policy requires."""
        claim, alpha = self.claims[asked.name], level(self.ticket["selection"]["alpha"])
        if asked.name == "guarantee:calibrated":
            alpha = (margin(self.ticket) or (0, alpha))[1]
        if set(claim.assumptions) - taken:
            return "INCONCLUSIVE", "ASSUMPTION_NOT_ACCEPTED"
        if asked.finding == "held" and (claim.finding, alpha > Fraction(1, 10)) == ("held", True):
            return "INCONCLUSIVE", "GUARANTEE_DESCRIPTIVE"
        if claim.finding == "violated":
            return "INVALID", "GUARANTEE_VIOLATED"
        if asked.finding == "not refuted":
            return ("REFUTED", "GUARANTEE_REFUTED") if claim.finding == "refuted" else PASS
        if asked.finding == "held":
            return STATUS[claim.finding], f"GUARANTEE_{claim.finding}".upper().replace(" ", "_")
        limit, threshold = claim.lower if claim.upper is None else -claim.upper, asked.threshold
        if limit is None or threshold is None:
            raise Stop("INVALID", "MALFORMED")
        if limit > threshold or (limit == threshold and not asked.strict):
            return PASS
        opposite = self.opposite(asked.name, claim)
        if opposite is not None and (opposite < threshold or (asked.strict and opposite == threshold)):
            return "REFUTED", "CLAIM_REFUTED"
        return "INCONCLUSIVE", "NOT_SHOWN"

    def opposite(self, name: str, claim: Claim) -> Fraction | None:
        """The limit on the other side of a claim, larger being better."""
        if name in self.quantities:
            _, low, high, _ = self.quantities[name]
            ends = [one["upper"] for one in self.bets(name, both=True)[0]]
            return None if None in ends else low + Fraction(min(ends), MEANS) * (high - low)
        grid = RATES if self.e.fixed else MEANS
        (one,) = claim.witness
        return Fraction(one["upper"], grid) if claim.upper is None else -Fraction(one["lower"], grid)


def counts(n: int, alpha: Fraction, delta: Fraction) -> Json:
    """Of n decisions: how many may be wrong for HELD (-1: not even none), from how many on it is REFUTED."""
    held = largest(lambda k: compared(k - 1, n, alpha, delta) <= 0, n + 2) - 1
    refuted = largest(lambda k: compared(n - k + 1, n, 1 - alpha, delta) >= 0, n + 2)
    return {"held": held, "refuted": refuted}


def claim_name(stated: Json) -> str:
    """Kind, comparator and extraction rule of a stated claim."""
    return ":".join(filter(None, (stated["kind"], stated["comparator"], stated["extraction"])))


def ratio(value: Fraction | None) -> str | None:
    """A rational number as a certificate spells it."""
    return None if value is None else f"{value.numerator}/{value.denominator}"


def shown(claims: Sequence[Json]) -> bool:
    """Whether no claim is stated twice, and each decimal is its number, rounded toward the weaker claim."""
    for one in claims:
        if one["kind"] not in COMPARED or ratio(Fraction(one["delta"])) != one["delta"]:
            return False
        for key, sign in (("estimate", 1), ("lower", 1), ("upper", -1)):
            value = Fraction(one[key]["exact"]) if one[key] else None
            units = 0 if value is None else sign * (sign * value * 10**6 // 1)
            whole, rest = divmod(abs(units), 10**6)
            decimal = f"{'-' * (units < 0)}{whole}.{rest:06d}"
            if one[key] not in (None, {"exact": ratio(value), "decimal": decimal}):
                return False
    return len({(one["evidence"], claim_name(one)) for one in claims}) == len(claims)


def repeated(c: Json, ticket: Json) -> bool:
    """Whether a certificate repeats settings and assumptions as ticket and claims have them."""
    chosen, used = ticket["selection"], {name for one in c["claims"] for name in one["assumptions"]}
    p = {key: chosen[key] for key in ("alpha", "correction", "method", "n")} | {"rule": chosen["rule"][:4096]}
    p |= {"object": ticket["released"]["object"], "dtype": ticket["base"]["dtype"], "variation": 4}
    p["delta"] = c["parameters"]["delta"]
    line = "ks:{method}|n:{n}|dtype:{dtype}|agg:sum|V:4|alpha:{alpha}|correction:{correction}|object:{object}"
    line = f"{line.format(**p)}|delta:{p['delta']}|schema:3|tool:{c['created_by'].removeprefix('certify ')}"
    same = canonical([c["parameters"], c["signature"]]) == canonical([p, line])
    return same and {one["id"] for one in c["assumptions"]} == used
