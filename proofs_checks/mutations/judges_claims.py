"""Judges of what turns claims into answers (see :mod:`proofs_checks.mutations.judges`): requirements,
texts, shares."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, Final

from certify.base.verdict import Outcome
from certify.claims.claim import Claim, Finding

Fact = tuple[str, bool]

F = Fraction

_TAKEN: Final = frozenset({"A-UNITS"})


def _claim(kind: str = "gain", finding: Finding = Finding.MEASURED, **figures: Any) -> Claim:
    settings: dict[str, Any] = {"assumptions": ("A-UNITS",), "n": 10, "estimate": F(0)} | figures
    return Claim(kind, "base", None, finding, "CODE", "text", **settings)


def judge_requirement(m: Any) -> Iterator[Fact]:
    """Limits below, at and above a threshold of 1, for every test; findings that are no limits."""

    def code(test: str, limit: int, other: int | None = None, **more: Any) -> str:
        side = "lower" if test in ("at_least", "above") else "upper"
        asked = m.Requirement("gain:base:whole", test, F(1))
        opposite = None if other is None else F(other)
        figures: dict[str, Any] = {side: F(limit)} | more
        claim = _claim(**figures)
        found = m.judge(asked, claim, alpha="0.05", taken=_TAKEN, opposite=lambda: opposite)
        return f"{found.code}, open" if found.open else str(found.code)

    for test, at, beyond in (
        ("at_least", True, 2),
        ("above", False, 2),
        ("at_most", True, 0),
        ("below", False, 0),
    ):
        short = 2 - beyond
        yield f"{test}: beyond the threshold", code(test, beyond) == "SHOWN"
        yield f"{test}: at the threshold", (code(test, 1) == "SHOWN") == at
        yield f"{test}: short of it", code(test, short) == "NOT_SHOWN, open"
        yield f"{test}: refuted by the other limit", code(test, short, short) == "CLAIM_REFUTED"
        yield f"{test}: the other limit at it", (code(test, short, 1) == "CLAIM_REFUTED") != at
        yield f"{test}: the other limit beyond it", code(test, short, beyond) == "NOT_SHOWN, open"
    lacking = code("above", 2, assumptions=("A-UNITS", "A-BLOCKS"))
    yield "an assumption that is not taken as given", lacking == "ASSUMPTION_NOT_ACCEPTED"
    failed = m.judge(
        m.Requirement("unrelated-loss:base", "at_most", F(1)),
        _claim("unrelated-loss", Finding.FAILED),
        alpha="0.05",
        taken=_TAKEN,
        opposite=lambda: None,
    )
    yield "a claim whose own assumption is refuted fails", failed.outcome == "fail"

    def promise(test: str, finding: Finding, alpha: str = "0.05") -> str:
        asked, claim = m.Requirement("guarantee:published", test), _claim("guarantee", finding)
        answer = m.judge(asked, claim, alpha=alpha, taken=_TAKEN, opposite=lambda: None)
        return f"{answer.outcome}, open" if answer.open else str(answer.outcome)

    held = {Finding.HELD: "pass", Finding.REFUTED: "fail", Finding.PREMISE_FAILED: "fail"}
    held |= {Finding.VACUOUS: "vacuous, open", Finding.INCONCLUSIVE: "inconclusive, open"}
    for finding, outcome in held.items():
        yield f"must be held: {finding}", promise("held", finding) == outcome
        outcome = "fail" if finding is Finding.REFUTED else "pass"
        yield f"must not be refuted: {finding}", promise("not refuted", finding) == outcome
    yield "a promise at .2 is only descriptive", promise("held", Finding.HELD, "0.2") == "inconclusive"


def judge_answers(m: Any) -> Iterator[Fact]:
    """Two texts with an answer each, a text that is missing, a claim that nobody declared."""
    asked = m.Requirement("gain:base:whole", "above", F(0))
    named = m.Requirement("gain:base:whole", "above", F(0), texts=("one", "three"))
    only = m.Requirement("guarantee:published", "not refuted", when_declared=True)
    texts = [SimpleNamespace(name=name, path=f"{name}.json") for name in ("one", "two")]

    def outcome(requirement: Any, *found: Outcome, declared: tuple[Any, ...] = ()) -> str:
        ticket = SimpleNamespace(declared=declared)
        pairs = zip(texts, found, strict=False)
        given = {(requirement.claim, text.path): m.Answer(one, "CODE", "text") for text, one in pairs}
        (item,) = m.items(ticket, SimpleNamespace(claims=(requirement,)), texts, given)
        return str(item.outcome)

    good, bad, open_ = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
    yield "shown on both texts", outcome(asked, good, good) == "pass"
    for first, second, expected in ((good, open_, "inconclusive"), (bad, good, "fail"), (open_, bad, "fail")):
        yield f"{first} on one text, {second} on the other", outcome(asked, first, second) == expected
    yield "no text at all", outcome(asked) == "missing"
    yield "a text that is asked for and not there", outcome(named, good) == "missing"
    yield "what is not declared is not asked", outcome(only) == "pass"
    other = SimpleNamespace(kind="guarantee", comparator="additive")
    yield "nor if another promise is", outcome(only, bad, declared=(other,)) == "pass"
    any_ = SimpleNamespace(kind="guarantee", comparator=None)
    yield "what is declared is", outcome(only, bad, declared=(any_,)) == "fail"
    yield "what is always asked needs no declaration", outcome(asked, bad) == "fail"


def judge_opposite(m: Any) -> Iterator[Fact]:
    """Which limits are asked for, at which error: the program around the claim is replaced."""
    arm, asked = SimpleNamespace(name="t"), list[tuple[list[int], Fraction]]()

    def lower(values: list[int], delta: Fraction, *_: Any, **__: Any) -> Any:
        asked.append((values, delta))
        return SimpleNamespace(value=F(values[0]))

    scores = {"t": 7, "a": 5, "b": 1}
    m.difference_lower = lower
    m.ticket_arm = lambda *_: arm
    m.unit_scores = lambda _, name, __: [scores[name]]
    m.NULLS = {"random": 1, "top-norm": 1}
    m.null_arms = lambda _, __, control: (SimpleNamespace(name="a" if control == "random" else "b"),)
    m.arms_of_kind = lambda *_: (SimpleNamespace(name="a"),)
    evidence: Any = SimpleNamespace(design="fixed", manifest=SimpleNamespace(arms=()))
    about: Any = SimpleNamespace(ticket=None)
    nulls = Claim("better-than-nulls", "nulls", "whole", Finding.MEASURED, "CODE", "text", delta=F(1, 20))
    limit = m.nulls_upper(nulls, evidence, about)
    yield "the null ticket that is hardest to beat", limit == 2
    yield "null tickets share the error", [delta for _, delta in asked] == [F(1, 40)] * 2
    yield "its scores minus ours", [values for values, _ in asked] == [[-2], [-6]]
    asked.clear()
    limit = m.difference_upper(
        Claim("gain", "base", "whole", Finding.MEASURED, "CODE", "text", delta=F(1, 20)), evidence, about
    )
    yield "one arm has the whole error", (limit, asked) == (2, [([-2], F(1, 20))])


def judge_share(m: Any) -> Iterator[Fact]:
    """The error probability of a claim over one and several texts."""
    for texts in (1, 2, 3, 7):
        yield f"{texts} texts have the error together", m.share("0.05", texts) * texts == F(1, 20)


CLAIM_JUDGES: Mapping[str, tuple[Callable[[Any], Iterator[Fact]], ...]] = {
    "certify.policy.requirement": (judge_requirement,),
    "certify.policy.outcomes": (judge_answers,),
    "certify.claims.quality": (judge_opposite,),
    "certify.certificate.schema": (judge_share,),
}
"""Judges of each module."""
