"""From records of evidence to units and limits of their means (theory §5).

A limit is a multiple of a grid. Where a certificate states which one, two evaluations show whether it is the
limit, so that a stated limit is checked, never believed; a wrong one is searched for by bisection.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, localcontext
from fractions import Fraction
from itertools import chain, compress, pairwise, repeat
from operator import floordiv, le, mul, sub
from pathlib import Path
from typing import Any

from .scan import exceeds_log
from .shapes import consistent, digests, fits
from .steps import along, changed, decisions, law, nanos
from .tables import (
    Folder,
    Json,
    canonical,
    fetch,
    increasing,
    level,
    naturals,
    need,
    parse,
    sha,
)

ONE = 1 << 32  # units are counted in 2^-32
CRITERIA = ("published", "measured-max", "additive", "path")
MEANS, RATES = 1 << 20, 1 << 32  # grids of the limits of means and of rates


def tail(k: int, n: int, p: Fraction) -> Fraction:
    """``P(B(n, p) <= k)``, exactly, for 0 < p < 1."""
    a, c = p.numerator, p.denominator - p.numerator
    term: int = c**n
    total = term
    for i in range(min(k, n)):
        term = term * (n - i) * a // ((i + 1) * c)
        total += term
    return Fraction(total, p.denominator**n)


def compared(k: int, n: int, p: Fraction, delta: Fraction) -> int:
    """Sign of ``P(B(n, p) <= k) - delta``, for 0 < p < 1 and 0 < delta < 1.

    Sixty digits decide: only positive numbers are multiplied and added, so that for n below 10^8 the sum is
    off by less than a part in 10^50. What is closer is decided by :func:`tail`.
    """
    if not 0 <= 2 * k <= n:
        return -1 if k < 0 else 1 if k >= n else -compared(n - k - 1, n, 1 - p, 1 - delta)
    with localcontext(Context(prec=60, Emin=MIN_EMIN, Emax=MAX_EMAX)):
        miss = Decimal(p.denominator - p.numerator)
        odds, total = p.numerator / miss, (miss / p.denominator) ** n
        term = total
        for i in range(k):
            term = term * (n - i) / (i + 1) * odds
            total += term
        gap = total * delta.denominator - delta.numerator
        if abs(gap) > delta.numerator * Decimal("1e-45"):
            return 1 if gap > 0 else -1
    exact = tail(k, n, p)
    return (exact > delta) - (exact < delta)


def largest(holds: Callable[[int], bool], size: int, hint: Any = None) -> int:
    """Largest ``0 < j < size`` with ``holds(j)``, which holds up to some j and not beyond; 0 if none.

    A right hint costs two evaluations, a wrong one nothing but these.
    """
    if type(hint) is int and 0 <= hint < size:
        inside = hint == 0 or holds(hint)
        if inside and (hint + 1 == size or not holds(hint + 1)):
            return hint
    return bisect_left(range(1, size), True, key=lambda j: not holds(j))


def rate_upper(k: int, n: int, delta: Fraction, hint: Any = None) -> int:
    """Clopper-Pearson: the smallest multiple of 2^-32 at or above the upper limit of a rate."""
    before = hint - 1 if type(hint) is int else None
    return 1 + largest(lambda j: compared(k, n, Fraction(j, RATES), delta) > 0, RATES, before)


def plog(x: Fraction) -> Fraction:
    """Binary logarithm, linear between powers of two."""
    e = math.floor(x).bit_length() - 1
    return e + x / (1 << e) - 1


def player(a: int, b: int) -> Callable[[int, int, int], int]:
    """betting/2 at the threshold a/b: from wealth, unit and bet to the wealth after the unit."""
    most, full, over, under = -(-(19 * b << 20) // (20 * a)), b << 52, a << 32, 20 * a << 32
    shift = 0 if full & (full - 1) else full.bit_length() - 1  # three times as fast as a division

    def step(wealth: int, unit: int, bet: int) -> int:
        if bet >= most:
            return wealth * (19 * b * unit + over) // under
        grown = wealth * (full + bet * (b * unit - over))
        return grown >> shift if shift else grown // full

    return step


def betting_lower(units: Sequence[int], delta: Fraction, design: str, aim: Fraction, hint: Any = None) -> int:
    """betting/2: the largest multiple of 2^-20 that the mean of units / 2^32 is shown to exceed, or 0."""
    need(units and min(units) >= 0 and max(units) <= ONE)
    bets, log, n, fixed = list[int](), plog(1 / delta), len(units), design == "fixed"
    goal, first = -(-(delta.denominator << 512) // delta.numerator), (log.numerator, log.denominator * n)
    weight, scale = (5, 20) if fixed else (1, 4)
    total, squares, wealth, step = 0, 0, 1 << 512, player(*aim.as_integer_ratio())
    for k, unit in enumerate(units):
        over, under = first
        if not fixed:
            over, under = (log / ((k + 1) * plog(Fraction(k + 2)))).as_integer_ratio()
        elif 0 < wealth < goal:
            e = (goal // wealth).bit_length() - 1
            over, under = goal + ((e - 1) * wealth << e), (n - k) * wealth << e
        some = k or 1  # the variance is (1/scale + spread / k^2) / (k + weight), in units of 2^64
        over *= 2 * 45426 * scale * some * (k + weight)
        under *= 65536 * ((some << 64) + scale * (k * squares - total**2))
        bets.append(math.isqrt((over << 104) // under))
        wealth = step(wealth, unit, bets[-1]) if fixed else wealth
        total, squares = total + unit, squares + unit**2

    def exceeds(j: int) -> bool:
        wealth, step = 1 << 512, player(j, MEANS)
        played = zip(units, bets, strict=True)
        return any((wealth := step(wealth, unit, bet)) >= goal for unit, bet in played)

    return largest(exceeds, MEANS, hint)


def chrf(v: Sequence[int]) -> int:
    """Sentence chrF, beta 2: precision and recall, each a mean over the orders of both sides; in 2^-32."""
    orders = [order for order in zip(v[10::3], v[11::3], v[12::3], strict=True) if order[0] and order[1]]
    if not any(v[12::3]):
        return 0
    said, meant, matched = zip(*orders, strict=True)
    h, r = math.lcm(*said), math.lcm(*meant)
    p, q = (sum(map(floordiv, map(mul, matched, repeat(x)), y)) for x, y in ((h, said), (r, meant)))
    return int(500 * p * q * ONE // (len(orders) * (4 * p * r + q * h)))


def rank(seed: int, unit: str) -> str:
    """Where a unit of a sequential design stands in the order in which units are drawn."""
    return sha(f"{seed}:{unit}".encode())


def sentences(records: Sequence[Json]) -> list[str]:
    """What a unit holds: pairs in their order, or the distinct lines of its windows."""
    if "lines" in records[0]:
        return sorted({line for record in records for line in record["lines"]})
    return [f"{record['source']} {record['target']}" for record in records]


def content(record: Json) -> str:
    """What a record is about, apart from names."""
    return str(record["source" if "source" in record else "window"])


def renamed(units: dict[str, list[Json]]) -> dict[str, list[Json]]:
    """Units under the digest of their content; equal ones are numbered."""
    named, seen = dict[str, list[Json]](), Counter[str]()
    for records in units.values():
        key = sha(",".join(map(content, records)).encode())
        named[f"{key}:{seen[key]}" if seen[key] else key] = records
        seen[key] += 1
    return named


class Evidence:
    """A manifest and its records: what every arm said and decided, sentence by sentence."""

    def __init__(self, path: Path) -> None:
        here = Folder(path.parent)
        data = fetch(path)
        m = parse(data)
        self.m, self.arms, self.sha256 = m, {arm["name"]: arm for arm in m["arms"]}, sha(data)
        need(fits(m, "manifest"))
        about = ("certify.evidence", 1, {"translation": "translation/1", "loss": "loss/2"}[m["kind"]])
        need((m["schema"], m["schema_version"], m["procedure"]) == about)
        need(len(self.arms) == len(m["arms"]))
        need(len({m["records"]["path"], *(one["path"] for one in m["used"])}) == len(m["used"]) + 1)
        self.most = m["decoding"]["max_new_tokens"]
        need(m["kind"] == "loss" or (m["template"] and m["languages"] and self.most))
        need(m["languages"] is None or len(m["languages"]) == 2)
        settings = m["signatures"].items()
        need(len(settings) <= 16 and all(fits(key, "slug") and fits(one, "text") for key, one in settings))
        need(all(map(consistent, m["arms"])))
        for name in ("base", "reference"):
            ours = [arm["name"] for arm in m["arms"] if name in (arm["kind"], arm["name"])]
            need(ours == [name] or (name == "reference" and m["kind"] == "loss" and not ours))
            need(not ours or self.arms[name]["table_sha256"] == m[name]["tensor_sha256"])
        self.law, self.label, self.broken = m.get("path") and law(m["path"]), 0, set[str]()
        self.margins: Json = m.get("margins") or {}
        made = m.get("produced_by") or {}  # by another engine, which records no steps
        self.ours, weights = not made, made.get("weights", {})
        need(self.ours or made["version"])
        need(weights.keys() <= self.arms.keys() and all(fits(one, "sha") for one in weights.values()))
        extras = (m.get("path"), m.get("margins"))
        need((m["kind"] == "translation" and self.ours) or extras == (None, None))
        need(m["kind"] == "translation" or self.ours)
        need(all(self.on_path(name) and (t is None or nanos(t)) for name, t in self.margins.items()))
        lines = here.read(m["records"]["path"], m["records"]["sha256"], packed=True).split(b"\n")
        need(lines.pop() == b"" and len(lines) == m["records"]["count"] > 0, "EVIDENCE_TRUNCATED")
        need(max(map(len, lines)) < 1 << 20, "FILE_TOO_LARGE")
        self.fixed, self.scored = m["design"] == "fixed", dict[tuple[str, int], list[int]]()
        self.limits = dict[tuple[str, Fraction, Fraction], int]()
        self.records = [parse(line) for line in lines]
        for name in ("id", "window")[: 1 + (m["kind"] == "loss")]:
            need(len({record[name] for record in self.records}) == len(lines), "EVIDENCE_DUPLICATE")
        units: dict[str, list[Json]] = {}
        need(sum("witness" in record for record in self.records) <= 50)
        for record in self.records:
            need(fits(record, m["kind"]))
            (self.window if m["kind"] == "loss" else self.sentence)(record)
            units.setdefault(record["unit"], []).append(record)
        held, (kind, _, size) = [*map(sentences, units.values())], m["text"]["unit"].partition(":")
        sizes, most = [*map(len, held)], int(size or 1)
        documents = kind == "document"
        self.largest = Fraction(max(sizes), sum(sizes)) if documents else Fraction(0)
        runs = sum(a["unit"] != b["unit"] for a, b in pairwise(self.records))
        full = all(one == most for one in sizes[:-1]) and sizes[-1] <= most
        need(documents or (runs + 1 == len(units) and (full or not self.fixed)), "EVIDENCE_UNITS")
        text = [*chain(*held)] if m["kind"] == "loss" else sentences(self.records)
        digest = sha("".join(f"{line}\n" for line in text).encode())
        same = (sum(sizes), digest) == (m["text"]["sentences"], m["text"]["sha256"])
        need(not self.fixed or same, "EVIDENCE_TEXT")
        for records in units.values():
            records.sort(key=content)
        if self.fixed:  # what a unit is called, and a seed, decide nothing
            units = renamed(units)
        ranks = {unit: unit if self.fixed else rank(m["order_seed"], unit) for unit in units}
        self.units = {unit: units[unit] for unit in sorted(units, key=ranks.__getitem__)}
        if not self.fixed:  # the first units of the seeded order, each complete, or they were picked
            total = m["text"]["sentences"]
            need(m["kind"] == "translation" and kind != "document" and total <= 1 << 18, "EVIDENCE_DRAWN")
            known = map(str, range(-(-total // most)))
            for unit in heapq.nsmallest(len(units), known, key=lambda unit: rank(m["order_seed"], unit)):
                complete = min(most, total - int(unit) * most)
                need(len(units.get(unit, ())) == complete, "EVIDENCE_DRAWN")
        self.used: dict[str, set[str]] = {}
        for one in m["used"]:
            found = here.read(one["path"], one["sha256"], packed=True).decode("ascii").split("\n")
            need(found.pop() == "" and len(found) == one["count"] and increasing(found))
            need(one.get("table_sha256") in {None, *(arm["table_sha256"] for arm in m["arms"])})
            self.used.setdefault(one["role"], set()).update(found)

    def window(self, record: Json) -> None:
        need(record["nats"].keys() == self.arms.keys() and record["tokens"] > 0)
        naturals([record["tokens"], *record["nats"].values()], 1 << 63)
        need(digests(record["lines"]) and digests([record["window"]]) and "source" not in record)

    def sentence(self, record: Json) -> None:
        arms, target = record["arms"], record["arms"]["base"]["stats"][0]
        need(arms.keys() == self.arms.keys() and increasing(naturals(record["prompt"], 1 << 24)))
        need(all(digests([record[one]]) for one in ("source", "target")) and record["prompt"])
        need(("reference" in record) == self.ours)
        best = decisions(record["reference"], arms["reference"]["length"]) if self.ours else []
        need(all(changed(one["differs"], best) for one in arms.values() if "differs" in one))
        naturals([*chain(*(v for one in arms.values() for v in one["stats"]))])
        translation = [target[1], *target[11::3]]
        for name, one in arms.items():
            place = (self.ours and name != "reference", self.ours and name == "base")
            need(fits(one, "answer") and ("differs" in one, "tokens" in one) == place)
            length = one.get("length", 0)
            need(not self.ours or (length and "ended" in one))
            need(len(naturals(one.get("tokens", []), 1 << 24)) == length * ("tokens" in one))
            need(length <= self.most and len({*map(str, one["stats"])}) == len(one["stats"]))
            for v in one["stats"]:
                need(len(v) == 34 and [v[1], *v[11::3]] == translation and v[6] == v[0])
                need(all(map(le, [*v[2:6], *v[12::3]], [*v[6:10], *map(min, v[10::3], v[11::3])])))
            need(len(naturals(one["rules"])) == 3 and {*one["rules"]} == {*range(len(one["stats"]))})
            need(("path" in one) == (self.law is not None and self.on_path(name)))
            if self.law:
                said, at = dict(one.get("differs", ())), self.law[0] // 2
                steps = [along(text, *self.law) for text in one.get("path", [])]
                need("path" not in one or len(steps) == len(best))
                for t, (labels, _, broken) in enumerate(steps):
                    need((labels[at], labels[at + self.law[1]]) == (said.get(t, best[t]), best[t]))
                    self.label = max(self.label, *labels)
                    self.broken |= {name} if broken else set()
            need(("own" in one) == (name in self.margins))
            own = one.get("own")
            need(own is None or changed(own["differs"], decisions(own, one["length"])))

    def on_path(self, name: str) -> bool:
        """The arm serves a ticket, as released."""
        one = self.arms[name]
        rows = one["kind"] in ("transfer", "tuned", "direction")
        return rows and one.get("control") is None and one.get("gate") is None

    def disjoint(self, everywhere: Sequence[Evidence], chosen: frozenset[str] = frozenset()) -> None:
        """No evaluated sentence occurs twice, or line in two units, or stands in any list of those used."""
        if self.m["kind"] == "loss":  # a line that windows of one unit share counts once
            pairs = {(record["unit"], line) for record in self.records for line in record["lines"]}
            lists = [[line for _, line in pairs]]
        else:
            lists = [[record[side] for record in self.records] for side in ("source", "target")]
        for lines in lists:
            need(len(set(lines)) == len(lines), "EVALUATION_DUPLICATES")
            need(chosen.isdisjoint([*lines, self.m["text"]["sha256"]]), "DATA_OVERLAP")
            for role in ("tuning", "scan", "choice", "order"):
                need(all(e.used.get(role, set()).isdisjoint(lines) for e in everywhere), "DATA_OVERLAP")
        need(self.used.get("tuning"), "USED_NOT_LISTED", "INCONCLUSIVE")

    def lower(self, units: list[int], delta: Fraction, aim: Fraction, hint: Any = None) -> int:
        """Grid index of the lower limit of a mean; computed once for equal units."""
        key = (sha(canonical(units)), delta, aim)
        if key not in self.limits:
            self.limits[key] = betting_lower(units, delta, self.m["design"], aim, hint)
        return self.limits[key]

    def drawn(self, arm: str, alpha: str, h: dict[int, int], d: int) -> dict[str, list[bool]]:
        """By criterion: of each unit with certified steps one is drawn, and whether it disagrees."""
        tau, found = 2 / level(alpha), dict[str, list[bool]]()
        grid = range(10**9 + 2)  # of margins
        least = bisect_left(grid, 1, key=lambda r: exceeds_log(Fraction(d * r * r, 4 * 10**18), tau))
        for unit, records in self.units.items():
            certified: dict[str, list[bool]] = {name: [] for name in CRITERIA}
            for record in records:
                e, wrong = record["reference"], {t for t, _ in record["arms"][arm]["differs"]}
                fed = {*record["prompt"]}
                moved = [h.get(i, 0) for i in fed]
                largest, total = max(moved, default=0), sum(moved)
                path = record["arms"][arm].get("path")
                for t, (token, a, b) in enumerate(zip(e["tokens"], e["p_a"], e["p_b"], strict=True)):
                    margin = max(0, a - b)
                    bounds = (
                        margin >= least,
                        margin * d > largest * 2 * 10**9,
                        margin * d > total * 4 * 10**9,
                        path and self.law and along(path[t], *self.law)[1],
                    )
                    for name in compress(CRITERIA, bounds):
                        certified[name].append(t in wrong)
                    if token not in fed:
                        fed.add(token)
                        total += h.get(token, 0)
                        largest = max(largest, h.get(token, 0))
            number = int(sha(f"drawn:{unit}".encode()), 16)
            for name, steps in certified.items():
                if steps:
                    found.setdefault(name, []).append(steps[number % len(steps)])
        return found

    def rate(self, hits: list[bool], delta: Fraction, hint: Json) -> tuple[int, int, int]:
        """Grid indices of the lower and the upper limit of a rate, and the grid."""
        k, n, low, high = sum(hits), len(hits), hint.get("lower"), hint.get("upper")
        if self.fixed:
            flipped = RATES - low if type(low) is int else None
            return RATES - rate_upper(n - k, n, delta, flipped), rate_upper(k, n, delta, high), RATES
        units, misses = [ONE * hit for hit in hits], [ONE * (not hit) for hit in hits]
        flipped = MEANS - high if type(high) is int else None
        half = Fraction(1, 2)  # of no account while units are drawn
        low, high = self.lower(units, delta, half, low), self.lower(misses, delta, half, flipped)
        return low, MEANS - high, MEANS

    def means(self, value: Callable[[Json], tuple[Any, int]]) -> list[Fraction]:
        """Sum of values over sum of sizes of each unit, in their order."""
        pairs = [[value(record) for record in records] for records in self.units.values()]
        return [Fraction(sum(v for v, _ in one), sum(size for _, size in one)) for one in pairs]

    def sure(self, arm: str, t: int) -> list[int]:
        """Of each unit with own margins of at least t: the share of these steps at which E* differs."""
        found = []
        for records in self.units.values():
            wrong = list[bool]()
            for own in (record["arms"][arm]["own"] for record in records):
                differs = {at for at, _ in own["differs"]}
                gaps = map(sub, own["p_a"], own["p_b"])
                wrong += [at in differs for at, gap in enumerate(gaps) if max(0, gap) >= t]
            found += [sum(wrong) * ONE // len(wrong)] if wrong else []
        return found

    def scores(self, name: str, rule: int) -> list[int]:
        """Mean chrF of one arm under the rule whole (0), first-line (1) or cut (2), by unit, in 2^-32."""
        if (name, rule) not in self.scored:
            arms = [[record["arms"][name] for record in records] for records in self.units.values()]
            scored = [[chrf(arm["stats"][arm["rules"][rule]]) for arm in one] for one in arms]
            self.scored[name, rule] = [sum(one) // len(one) for one in scored]
        return self.scored[name, rule]

    def holds(self, drawn: list[bool], alpha: Fraction, delta: Fraction, limits: tuple[int, int, int]) -> str:
        """Finding on a promise with confidence 1 - alpha: exact tails decide, not rounded limits."""
        k, n = sum(drawn), len(drawn)
        if self.fixed:
            held, refuted = compared(k, n, alpha, delta) <= 0, compared(n - k, n, 1 - alpha, delta) < 0
        else:
            held, refuted = limits[1] <= alpha * MEANS, limits[0] > alpha * MEANS
        return "held" if held else "refuted" if refuted else "inconclusive"
