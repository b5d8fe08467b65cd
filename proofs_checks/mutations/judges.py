"""Named checks with known answers, one generator of facts for each module that has mutants.

A judge gets a module, the real one or a copy with a bug in it, and yields facts with their truth. Expected
values are written down or counted again by the definitions, and checks of the theory, such as exact coverage,
are run on the copy itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import accumulate, product
from types import SimpleNamespace
from typing import Any, Final

import numpy as np

from certify.evidence.distances import Distances, Step
from proofs_checks.mutations.judges_bounds import BOUND_JUDGES
from proofs_checks.mutations.judges_claims import CLAIM_JUDGES
from proofs_checks.mutations.judges_evidence import EVIDENCE_JUDGES, judge_quality
from proofs_checks.mutations.judges_gate import GATE_JUDGES
from proofs_checks.mutations.judges_lottery import LOTTERY_JUDGES
from proofs_checks.mutations.judges_split import SPLIT_JUDGES
from proofs_checks.theory.enumeration import compositions
from proofs_checks.theory.finite import CERTIFIED, Change, law, lead, restricted_strings, variation

Fact = tuple[str, bool]
Judge = Callable[[Any], Iterator[Fact]]

F = Fraction
TINY: Final = Fraction(1, 10**12)
HALF: Final = Fraction(1, 2)


# --- the theorem -------------------------------------------------------------------------------------------


def judge_criteria(m: Any) -> Iterator[Fact]:
    """The three criteria at and beside their thresholds; d = 4096 has tau(.05) = .0300101."""
    yield "r between D and 2D is not enough", not m.measured_max(F(3, 16), [1], 8)
    yield "r = 2D is not enough", not m.measured_max(F(2, 8), [0, 1], 8)
    yield "r above 2D is", m.measured_max(F(2, 8) + TINY, [0, 1], 8)
    yield "r = V D is not enough", not m.additive(HALF, [1], 8, 4)
    yield "r above V D is", m.additive(HALF + TINY, [1], 8, 4)
    yield "C5: r = 1 against 2/3 + 2/3", not m.additive(F(1), [1, 1], 3, 2)
    yield (
        "V 3 asks for more than V 2",
        not m.additive(F(5, 16), [1], 8, 3) and m.additive(F(5, 16), [1], 8, 2),
    )
    yield "V sum D = 1 is vacuous", m.is_vacuous([2], 8, 4) and not m.is_vacuous([1], 8, 4)
    yield "the loss adds", m.loss([1, 1, 2], 8, 4) == 2
    level = F(1, 20)
    yield "r = .04 is above tau only", not m.published(F(4, 100), 4096, level)
    yield "r = .0600 and .0601 about 2 tau", not m.published(F(600, 10**4), 4096, level)
    yield "r = .0601", m.published(F(601, 10**4), 4096, level)
    yield "a negative gap", not m.published(F(-1, 2), 4096, level)
    yield "h = 122 and 123 about tau", not m.above_tau(122, 4096, level) and m.above_tau(123, 4096, level)
    yield "the premise is about every row", not m.premise_holds([0, 123, 5], 4096, level)
    yield "and holds below tau", m.premise_holds([0, 122, 5], 4096, level)
    least = m.critical_margin(4096, level, 10**9)
    yield "the critical margin is the smallest", least == 60_020_175


def judge_variation(m: Any) -> Iterator[Fact]:
    """V of every label string of up to five atoms, by the definition."""
    for labels in (s for length in range(2, 6) for s in restricted_strings(length, length)):
        yield f"V of {labels}", m.variation(labels, CERTIFIED) == variation(labels)


def judge_models(m: Any) -> Iterator[Fact]:
    """The criterion ``additive`` on every pair of small laws: a certified lead stays a lead."""
    for labels, n in (("AB", 8), ("ACB", 6), ("BAB", 6), ("DCAB", 5)):
        laws_ = [law(counts) for counts in compositions(n, len(labels))]
        v = max(2, m.variation(labels, CERTIFIED))
        for p, q in product(laws_, laws_):
            h = max(abs(a - b) for a, b in zip(accumulate(p), accumulate(q), strict=True)) * n
            r = lead(labels, p)
            if h and r > 0 and m.additive(r, [int(h)], n, v):
                yield f"{labels}: {p} to {q}", lead(labels, q) > 0
    sides = [law(counts) for counts in compositions(3, 2)]
    for labels in ("ABBB", "AABB", "BBBA"):
        for before in product(sides, sides):
            for after in product(sides, sides):
                change = Change(labels, before, after)
                counts = [int(3 * distance) for distance in change.distances]
                if any(counts) and change.lead_before > 0 and m.additive(change.lead_before, counts, 3, 2):
                    yield str(change), change.lead_after > 0


# --- steps and the guarantee -------------------------------------------------------------------------------


def judge_steps(m: Any) -> Iterator[Fact]:
    """A record with repeated, unchanged and generated tokens, each step by hand."""
    reference = SimpleNamespace(
        tokens=(7, 5, 7, 9), argmaxes=lambda: (7, 5, 7, 9), margin=lambda t: (5, 4, 3, 2)[t]
    )
    record = SimpleNamespace(
        prompt=(1, 5, 5, 2), reference=reference, arms={"t": SimpleNamespace(differs=((2, 8),))}
    )
    found = m.measure({"u": (record,)}, "t", m.Distances(10, {5: 3, 7: 4, 9: 9, 1: 0}))["u"]
    yield "largest h over N", [step.largest for step in found] == [3, 4, 4, 4]
    yield "sum of h over N", [step.total for step in found] == [3, 7, 7, 7]
    yield "size of N", [step.changed for step in found] == [2, 3, 3, 3]
    yield "margins", [step.margin for step in found] == [5, 4, 3, 2]
    yield "disagreements", [step.disagrees for step in found] == [False, False, True, False]
    yield "decisions", [step.actual for step in found] == [7, 5, 8, 9]
    tau = m.Distances(4096, {3: 123, 4: 122, 6: 0})
    yield "the premise at its critical count", tau.premise(F(1, 20)) == (3,)
    moved = dict(enumerate((3, 9, 1, 9, 4, 7, 2), start=1))
    many: Any = SimpleNamespace(prompt=tuple(moved), reference=SimpleNamespace(tokens=(1,)))
    rows = m.violation(SimpleNamespace(record=many, t=0), m.Distances(10, moved)).rows
    yield "the rows that moved most bear witness", rows == ((2, 9), (4, 9), (6, 7), (5, 4), (1, 3))


def _units(steps: Mapping[str, Sequence[tuple[int, int, bool]]]) -> dict[str, tuple[Step, ...]]:
    """Units of steps given as (margin in 1e-9, sum of h, disagrees)."""
    record: Any = SimpleNamespace(prompt=(3,), reference=SimpleNamespace(tokens=(5,)))
    return {
        unit: tuple(
            Step(record, t, r, h, h, 1, 1, 2 if wrong else 1) for t, (r, h, wrong) in enumerate(found)
        )
        for unit, found in steps.items()
    }


def judge_guarantee(m: Any) -> Iterator[Fact]:
    """Units with and without certified steps, few and many of them, at known limits."""
    unit = 10**9
    certified, not_certified = (unit, 1, False), (unit // 2, 1, False)  # V sum D = 4/8 at d = 8
    distances = Distances(8, {3: 1})

    def run(units: Mapping[str, Sequence[tuple[int, int, bool]]], **more: Any) -> Any:
        settings = {"alpha": "0.05", "criterion": "additive"} | more
        return m.guarantee(_units(units), settings.pop("distances", distances), **settings)

    clean = {f"u{i}": [certified] for i in range(59)}
    idle = {f"v{i}": [not_certified] for i in range(100)}
    held = run(clean)
    yield "59 clean units are enough at .05", (held.finding, held.drawn, held.certified) == ("held", 59, 59)
    few = {name: clean[name] for name in list(clean)[:50]}
    yield "50 are not", run(few).finding == "inconclusive"
    mixed = run({**few, **idle})
    yield (
        "units without certified steps count for nothing",
        (mixed.finding, mixed.drawn) == ("inconclusive", 50),
    )
    many = {name: [certified] * 5 for name in list(clean)[:20]}
    yield "steps of one unit are one draw", run(many).finding == "inconclusive"
    yield "nothing certified is vacuous", run(idle).finding == "vacuous"
    bad = {f"w{i}": [(unit, 1, True)] for i in range(20)}
    broken = run({**few, **bad})
    yield "20 of 70 refute", (broken.finding, broken.disagreements, broken.violations) == ("refuted", 20, 20)
    yield from _judge_rules(run)
    far = Distances(4096, {3: 123})
    yield (
        "the premise of published",
        run(clean, criterion="published", distances=far).finding == "premise failed",
    )
    near = Distances(4096, {3: 122})
    yield "published with its premise", run(clean, criterion="published", distances=near).finding == "held"
    draws = [m.drawn_index(f"u{i}", 5) for i in range(40)]
    yield "the unit decides the draw", set(draws) == set(range(5))


def _judge_rules(run: Callable[..., Any]) -> Iterator[Fact]:
    """Criteria of whole texts at their thresholds (d = 8), vacuous steps, levels that are met exactly."""
    unit = 10**9
    for criterion, threshold in (("measured-max", unit // 4), ("additive", unit // 2)):
        for r, certified in ((threshold // 2 + 1, 0), (threshold, 0), (threshold + 1, 1)):
            found = run({"u": [(r, 1, False)]}, criterion=criterion)
            yield f"{criterion}: r = {r}e-9 against {threshold}e-9", found.certified == certified
    found = run({"u": [(unit, 1, False), (unit, 2, False), (unit, 3, False)]})
    yield "V sum D = 1 and more is vacuous", (found.vacuous, found.least_loss) == (2, HALF)
    for alpha, descriptive in (
        ("0.1", False),
        (".1", False),
        ("0.10", False),
        ("0.1000001", True),
        ("0.05", False),
    ):
        yield f"{alpha} is descriptive: {descriptive}", run({}, alpha=alpha).descriptive == descriptive
    # Anytime limits are multiples of 2^-20, which decimals spell exactly.
    for wrong, side in ((90, "lower"), (2, "upper")):
        units = {f"u{i}": [(unit, 1, i < wrong)] for i in range(100)}
        limit = getattr(run(units, design="sequential"), side).value
        steps = (0, -1 if side == "lower" else 1)
        at, beside = (f"0.{int((limit + step * F(1, 2**20)) * 10**20):020d}" for step in steps)
        yield f"{at} is the {side} limit", F(at) == limit
        findings = [run(units, alpha=alpha, design="sequential").finding for alpha in (at, beside)]
        expected = ["inconclusive", "refuted"] if side == "lower" else ["held", "held"]
        yield f"sequential, alpha at and beside the {side} limit", findings == expected


# --- verdicts, files, claims -------------------------------------------------------------------------------


def judge_verdict(m: Any) -> Iterator[Fact]:
    """What is absent, not run or vacuous opens no gate."""

    def decide(*outcomes: str) -> str:
        items = [m.Item(f"i{n}", m.Outcome(outcome), "CODE", "text") for n, outcome in enumerate(outcomes)]
        return str(m.decide([f"i{n}" for n in range(len(items) or 1)], items))

    expected = {"pass": "CERTIFIED", "fail": "REFUTED", "missing": "INCONCLUSIVE", "vacuous": "VACUOUS"}
    expected |= {"not run": "INCONCLUSIVE", "invalid": "INVALID", "error": "ERROR"}
    for outcome, status in expected.items():
        yield f"{outcome} beside a pass", decide("pass", outcome) == status
        yield f"exit code of {status}", (int(m.exit_code([m.Status(status)])) == 0) == (status == "CERTIFIED")
    yield "nothing shown", decide() == "INCONCLUSIVE"


def judge_schema(m: Any) -> Iterator[Fact]:
    """Strict parsing."""
    from certify.base.errors import InvalidInputError

    yield "plain JSON", m.parse_json(b'{"a": [1, 0.5]}', what="it") == {"a": [1, 0.5]}
    for text in (b"NaN", b"-Infinity", b'{"a": 1, "a": 2}', b"1e999", b'"\\ud800"', b"[" * 100 + b"]" * 100):
        try:
            m.parse_json(text, what="it")
            refused = False
        except InvalidInputError:
            refused = True
        yield f"{text[:20]!r} is refused", refused


def judge_interference(m: Any) -> Iterator[Fact]:
    """A run feeds the prompt and all generated tokens but the last."""
    base = SimpleNamespace(tokens=(4, 5, 6))
    record = SimpleNamespace(prompt=(1, 2), arms={"base": base})
    yield "ids that a run feeds", m._run(record) == {1, 2, 4, 5}


def judge_score(m: Any) -> Iterator[Fact]:
    """Sentence chrF by hand: precision 1/2, recall 1/4 over the orders that have n-grams on both sides."""
    vector = [0] * 10 + [4, 8, 2] * 3 + [0, 3, 0] * 5
    precision, recall = F(1, 2), F(1, 4)
    yield "F2", m.sentence_chrf(vector) == 100 * 5 * precision * recall / (4 * precision + recall)
    yield "nothing in common", m.sentence_chrf([0] * 10 + [4, 8, 0] * 8) == 0


def judge_corpus(m: Any) -> Iterator[Fact]:
    """Corpus scores by hand, and sums of units."""

    def bleu(ours: int, theirs: int, matches: Sequence[int], totals: Sequence[int]) -> float:
        return float(m.corpus_bleu(np.array([[ours, theirs, *matches, *totals]]))[0])

    # Precisions 1/2, then 1/(2 * 4) and 1/(4 * 4) for the orders without a match, then 1/4.
    smoothed = 100 * (F(1, 2) * F(1, 8) * F(1, 16) * F(1, 4)) ** 0.25
    yield "smoothing doubles", abs(bleu(8, 8, (4, 0, 0, 1), (8, 4, 4, 4)) - smoothed) < 1e-9
    yield "no match at all", bleu(8, 8, (0, 0, 0, 0), (8, 7, 6, 5)) == 0
    yield "an order without n-grams", bleu(3, 3, (3, 2, 1, 0), (3, 2, 1, 0)) == 0
    short = 100 * math.exp(-1)
    yield "half as long", abs(bleu(5, 10, (5, 4, 3, 2), (5, 4, 3, 2)) - short) < 1e-9
    yield "longer is no merit", abs(bleu(10, 5, (10, 9, 8, 7), (10, 9, 8, 7)) - 100) < 1e-9
    vector = np.array([[4, 8, 2] * 3 + [0, 3, 0] * 5])
    precision, recall = F(1, 2), F(1, 4)
    score = 100 * 5 * precision * recall / (4 * precision + recall)
    yield "F2 over the orders that have n-grams", abs(float(m.corpus_chrf(vector)[0]) - float(score)) < 1e-9
    yield "nothing in common", float(m.corpus_chrf(np.array([[4, 8, 0] * 8]))[0]) == 0

    def record(first: int) -> Any:
        answer = SimpleNamespace(stats=((first,) * 34, (7,) * 34), rules=(0, 1, 1))
        return SimpleNamespace(arms={"t": answer})

    sums = m._by_unit([[record(1), record(2)], [record(5)]], "t")
    yield "units are sums of their sentences", sums[:, [0, 34, 68]].tolist() == [[3, 14, 14], [5, 7, 7]]


def joined(*tables: Mapping[str, Sequence[Judge]]) -> dict[str, tuple[Judge, ...]]:
    """Judges of each module from several tables; a module in two of them has the judges of both."""
    found: dict[str, tuple[Judge, ...]] = {}
    for table in tables:
        for module, judges in table.items():
            found[module] = (*found.get(module, ()), *judges)
    return found


_HERE: Mapping[str, tuple[Judge, ...]] = {
    "certify.stats.theorem": (judge_models, judge_variation, judge_criteria),
    "certify.evidence.distances": (judge_steps,),
    "certify.claims.criteria": (judge_guarantee,),
    "certify.base.verdict": (judge_verdict,),
    "certify.base.jsonio": (judge_schema,),
    "certify.claims.exact": (judge_interference,),
    "certify.claims.quality": (judge_score, judge_quality),
    "certify.evidence.corpus_scores": (judge_corpus,),
}

JUDGES: Mapping[str, tuple[Judge, ...]] = joined(
    _HERE, EVIDENCE_JUDGES, CLAIM_JUDGES, SPLIT_JUDGES, GATE_JUDGES, BOUND_JUDGES, LOTTERY_JUDGES
)
"""Judges of each module, in the order in which they are asked."""
