"""Judges of the gate, the independent checker and the compiled engine; see
:mod:`proofs_checks.mutations.judges`."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from certify.claims.claim import Finding
from certify.scan.columns import Columns
from certify.stats.betting import betting_lower
from proofs_checks.coverage.exact import tail
from proofs_checks.coverage.selection import smirnov
from proofs_checks.mutations.judges_evidence import DELTA, STEP, refused
from proofs_checks.mutations.judges_lottery import judge_engine, textbook
from proofs_checks.theory.finite import sample_distance

Fact = tuple[str, bool]
F = Fraction


def judge_drawn(m: Any) -> Iterator[Fact]:
    """Blocks of two sentences of a text of 19: the first ones of the seeded order, each complete."""
    order = sorted(map(str, range(10)), key=lambda u: hashlib.sha256(f"3:{u}".encode()).hexdigest())

    def accepted(units: Sequence[str], *, less: str = "", **fields: Any) -> bool:
        text = SimpleNamespace(name="text", unit=fields.pop("unit", "block:2"), sentences=19)
        plain = {"design": "sequential", "kind": "translation", "order_seed": 3, "text": text}
        sizes = {unit: (1 if unit == "9" else 2) - (unit == less) for unit in units}
        records = [SimpleNamespace(unit=unit) for unit, size in sizes.items() for _ in range(size)]
        return not refused(lambda: m.check_drawn(SimpleNamespace(**(plain | fields)), records))

    for count in (1, 4, 9, 10):
        yield f"the first {count} units", accepted(order[:count])
    yield "the last ones", not accepted(order[-4:])
    yield "one was left out", not accepted([*order[:3], *order[4:6]])
    yield "one was replaced", not accepted([*order[:3], order[-1]])
    full = next(unit for unit in order if unit != "9")
    yield "a unit is not complete", not accepted(order[:10], less=full)
    yield "documents are not known beforehand", not accepted(order[:4], unit="document")
    yield "a fixed design may hold any", accepted(order[-4:], design="fixed")
    yield "in units of the stated size", not accepted(order, less=full, design="fixed")


def judge_split(m: Any) -> Iterator[Fact]:
    """Sentences that repeat or were used, on either side and in each role."""

    def pair(number: int, source: str = "", target: str = "") -> Any:
        return SimpleNamespace(id=f"r{number}", source=source or f"s{number}", target=target or f"t{number}")

    records, used = [pair(i) for i in range(4)], {"tuning": frozenset({"x"})}
    found = m.check_split(records, used)
    yield "disjoint data", (found.sentences, found.pretraining) == (4, None)
    yield "a source twice", refused(lambda: m.check_split([*records, pair(9, source="s1")], used))
    yield "a target twice", refused(lambda: m.check_split([*records, pair(9, target="t1")], used))
    for role in ("tuning", "scan", "choice", "order"):
        for digest in ("s2", "t2"):
            shared = used | {role: frozenset({digest})}
            yield f"{digest} was used for {role}", refused(partial(m.check_split, records, shared))
    seen = m.check_split(records, used | {"pretraining": frozenset({"s2", "t2", "t3"})})
    yield "pretraining is counted", seen.pretraining == 2
    yield "nothing says what tuning used", m.check_split(records, {"scan": frozenset()}) is None


def judge_certificate(m: Any) -> Iterator[Fact]:
    """Decimals never claim more than the numbers; the error probability is split; what is stated."""
    for value in (F(1, 3), F(-1, 3), F(2, 3), F(-2, 3), F(5), F(-1, 10**9), F(1, 10**9)):
        low, high = F(m.decimal(value)), F(m.decimal(value, up=True))
        yield f"{value} in decimals", low <= value <= high and high - low <= F(1, 10**6)
        yield f"{value} to the last digit", value - low < F(1, 10**6) and high - value < F(1, 10**6)
    for texts in (1, 2, 3):
        yield f"shares of {texts} texts", m.share("0.05", texts) * texts == F(1, 20)
    for finding, role, stated in (
        *((Finding.MEASURED, "evaluation", True), (Finding.FAILED, "evaluation", True)),
        *((Finding.MISSING, "evaluation", False), (Finding.NOT_APPLICABLE, "evaluation", False)),
        *((Finding.MEASURED, "loss", False), (Finding.MEASURED, "other-template", False)),
    ):
        claim = SimpleNamespace(kind="gain", finding=finding)
        yield f"{finding} on {role} is stated: {stated}", m.is_stated(claim, role) == stated


def judge_recheck(m: Any) -> Iterator[Fact]:
    """The premise over rows outside the ticket; rotated and permuted rows that KS cannot see."""
    h = np.array([0, 122, 123, 130, 50])
    still = np.zeros(5, dtype=bool)
    result = SimpleNamespace(rows=5, n=4096, h=h, cosine=np.array([1.0, 0.1, 0.1, 1.0, 0.9]), permuted=still)
    found = m.find_premise(result, (3,), "0.05")
    yield (
        "a row at the critical count",
        (found.holds, found.h_max, found.id_max, found.ids) == (False, 123, 2, (2,)),
    )
    yield "rows of the ticket do not count", m.find_premise(result, (2, 3), "0.05").holds
    loose = m.find_premise(result, (1, 2, 3), "0.95")  # 48 rejects by the exact law, 56 in the limit
    yield "the premise is about the published threshold", loose.holds
    selection = SimpleNamespace(alpha="0.05")
    for ids, seen in (((), (1,)), ((1,), ()), ((3,), (1,))):
        item = m._direction(SimpleNamespace(ids=ids, selection=selection), result)
        yield (
            f"rotated rows outside {ids}",
            (item.ids, str(item.outcome)) == (seen, "fail" if seen else "pass"),
        )
    result.permuted = np.array([False, True, False, False, True])
    item = m._order(SimpleNamespace(ids=(4,), selection=selection), result)
    yield "a permuted row", (item.ids, str(item.outcome)) == ((1,), "fail")


def judge_checker(m: Any) -> Iterator[Fact]:
    """The independent checker against the definitions, its laws and limits against other ways to them."""
    random = np.random.Generator(np.random.PCG64(13))
    for n in (1, 5, 12):
        yield f"the exact law, n = {n}", all(m.p_exact(h, n) == smirnov(h, n) for h in range(n + 1))
    for x, y in (
        *random.integers(-3, 4, size=(8, 2, 9)).tolist(),
        ([0, 0, 2], [0, 1, 1]),
        ([0.0] * 3, [-0.0] * 3),
    ):
        rows = [struct.pack(f"<{len(row)}f", *row) for row in (x, y)]
        h = len(x) * sample_distance([F(v) for v in x], [F(v) for v in y])
        yield f"h of {x} and {y}", m.compare(*rows, "F32")[0] == m.compare(*rows[::-1], "F32")[0] == h
    for k, n in ((0, 7), (3, 7), (6, 7), (1, 40)):
        counts, limit = range(k + 1), m.rate_upper(k, n, DELTA)
        yield f"upper limit of {k}/{n}", tail(n, limit, counts) <= DELTA < tail(n, limit - STEP, counts)
    for design in ("fixed", "sequential"):
        units = random.integers(0, 2**32, size=30).tolist()
        expected = betting_lower([F(unit, 2**32) for unit in units], DELTA, design).value
        yield f"betting, {design}", m.betting_lower(units, DELTA, design) == expected
    for correction in ("none", "bonferroni", "holm", "bh", "by"):
        for ranked in ([20, 12, 11, 10, 10, 9, 3], [11, 11, 11, 11], [13, 12, 11, 10, 9, 8, 7, 6]):
            p = [smirnov(h, 20) for h in ranked]
            kept = sum(textbook(p, F(1, 5), correction))
            yield f"{correction} of {ranked}", m.rejected(ranked, 20, F(1, 5), correction, "exact") == kept
    fixed = SimpleNamespace(fixed=True)
    for k, n, finding in ((0, 59, "held"), (0, 58, "inconclusive"), (20, 70, "refuted"), (0, 0, "vacuous")):
        drawn = [True] * k + [False] * (n - k)
        yield f"{k} of {n} is {finding}", m.Evidence.holds(fixed, drawn, DELTA, DELTA) == finding
    yield from _judge_checker_evidence(m)


def _judge_checker_evidence(m: Any) -> Iterator[Fact]:
    def stops(records: Sequence[Mapping[str, str]], used: Mapping[str, set[str]]) -> bool:
        try:
            one = SimpleNamespace(records=records, used=used, m={"kind": "translation"})
            m.Evidence.disjoint(one, [one])
        except m.Stop:
            return True
        return False

    pairs = [{"source": f"s{i}", "target": f"t{i}"} for i in range(3)]
    yield "disjoint data", not stops(pairs, {"tuning": {"x"}})
    yield "a target twice", stops([*pairs, {"source": "s9", "target": "t1"}], {"tuning": {"x"}})
    yield "a source twice", stops([*pairs, {"source": "s1", "target": "t9"}], {"tuning": {"x"}})
    yield "a target that was used", stops(pairs, {"tuning": {"x"}, "order": {"t2"}})
    yield "nothing says what tuning used", stops(pairs, {})
    # Row 5 is fed three times and counts once: V sum D is 4/64 at every step, and .1 is more, .0625 is not.
    reference = {"tokens": [5, 5, 9], "p_a": [10**8, 10**8, 62_500_000], "p_b": [0, 0, 0]}
    record = {"prompt": [5], "reference": reference, "arms": {"t": {"differs": [[1, 8]]}}}
    stub = SimpleNamespace(units={f"u{i}": [record] for i in range(40)}, m={})
    drawn = m.Evidence.drawn(stub, "t", "additive", "0.05", {5: 1}, 64)
    half = [int(hashlib.sha256(f"drawn:u{i}".encode()).hexdigest(), 16) % 2 == 1 for i in range(40)]
    yield "two of three steps are certified, and one is drawn", drawn == half


def judge_compiled(m: Any) -> Iterator[Fact]:
    """The compiled engine as plain Python, kernel by kernel: facts of the other engine, zeros, long rows."""
    for name, kernel in list(vars(m).items()):
        if name.endswith("_kernel"):
            setattr(m, name.removesuffix("_kernel"), kernel)
    with np.errstate(over="ignore"):  # hashing wraps around, as it does when it is compiled
        yield from judge_engine(m)
        zeros = np.array([[0.0, 0.0, 1.0, -1.0]], dtype=np.float32)
        columns = Columns.zeros(1)
        m.compare(zeros, np.copysign(zeros, [[-1, -1, 1, -1]]).astype(np.float32), "F32", columns)
        yield "-0 = +0", (columns.h.tolist(), columns.equal.tolist()) == ([0], [False])
        random = np.random.Generator(np.random.PCG64(14))
        x, y = random.standard_normal((2, 6, 150), dtype=np.float32)
        y[3:] += np.float32(0.5)
        columns = Columns.zeros(6)
        m.compare(x, y, "F32", columns)
        for i in range(6):
            h = 150 * sample_distance([F(float(v)) for v in x[i]], [F(float(v)) for v in y[i]])
            yield f"h of long row {i}", int(columns.h[i]) == h
            shift = np.asarray(y[i], dtype=np.float64) - x[i]
            yield (
                f"norm of long row {i}",
                bool(np.isclose(columns.squared_shift[i], shift @ shift, rtol=1e-12)),
            )
            yield f"no ties in long row {i}", not columns.ties[i]
        # Below the middle: the largest difference is one that y has over x, often within a bucket.
        x, y = random.standard_normal((2, 32, 40), dtype=np.float32)
        y -= np.float32(0.5)
        columns = Columns.zeros(32)
        m.compare(x, y, "F32", columns)
        for i in range(32):
            h = 40 * sample_distance([F(float(v)) for v in x[i]], [F(float(v)) for v in y[i]])
            yield f"h of row {i}, moved down", int(columns.h[i]) == h


GATE_JUDGES: Mapping[str, tuple[Callable[[Any], Iterator[Fact]], ...]] = {
    "certify.evidence.sampling": (judge_drawn,),
    "certify.evidence.split": (judge_split,),
    "certify.certificate.schema": (judge_certificate,),
    "certify.gate.recheck": (judge_recheck,),
    "certify.checker": (judge_checker,),
    "certify.scan.engine_numba": (judge_compiled,),
}
"""Judges of each module."""
