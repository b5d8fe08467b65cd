"""What opens a gate: verdicts, requirements, certificates, choices and looks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, Final

from certify.base import jsonio, verdict
from certify.base.errors import ExitCode
from certify.base.verdict import Item, Outcome, Status
from certify.certificate import schema
from certify.claims.claim import Claim, Finding
from certify.policy import outcomes, requirement
from certify.policy.requirement import Requirement, RequirementAnswer
from certify.ticket.declared import DeclaredClaim
from proofs_checks.check import Fact
from proofs_checks.mutations.bug import Judged
from proofs_checks.mutations.evidence import code_of

F = Fraction
DELTA: Final = F(1, 20)

VERDICT: Final = Judged("verdict", "verdicts")


@VERDICT.bug("certify.base.verdict:decide")
def _all_of_nothing(original: Any, requires: Any, items: Any) -> Status:
    """``all(... for item in found)`` is true of nothing: taking evidence away must never certify."""
    found = list(items)
    names = {item.name for item in found} & {*requires}
    return Status(original(names, found)) if names else Status.CERTIFIED


@VERDICT.bug("certify.base.verdict:decide")
def _skipped(original: Any, requires: Any, items: Any) -> Any:
    """Continuous integration, where a skipped job is green: a check that did not run has not passed."""
    green = {Outcome.NOT_RUN: Outcome.PASS}
    return original(requires, [replace(one, outcome=green.get(one.outcome, one.outcome)) for one in items])


@VERDICT.bug("certify.base.verdict:exit_code")
def _vacuous(original: Any, statuses: Any) -> Any:
    """Model checkers that call a vacuous formula true (Beer et al. 1997): it opens no gate."""
    return original([Status.CERTIFIED if one is Status.VACUOUS else one for one in statuses])


@VERDICT.judge
def judge_verdict() -> Iterator[Fact]:
    """What is absent, not run or vacuous opens no gate."""

    def decide(*found: str) -> str:
        items = [Item(f"i{n}", Outcome(outcome), "CODE", "text") for n, outcome in enumerate(found)]
        return str(verdict.decide([f"i{n}" for n in range(len(items) or 1)], items))

    expected = {"pass": "CERTIFIED", "fail": "REFUTED", "missing": "INCONCLUSIVE", "vacuous": "VACUOUS"}
    expected |= {"not run": "INCONCLUSIVE", "invalid": "INVALID", "error": "ERROR"}
    for outcome, status in expected.items():
        yield f"{outcome} beside a pass", decide("pass", outcome) == status
        opened = verdict.exit_code([Status(status)]) is ExitCode.CERTIFIED
        yield f"exit code of {status}", opened == (status == "CERTIFIED")
    yield "nothing shown", decide() == "INCONCLUSIVE"


JSON: Final = Judged("json", "files of others")


@JSON.bug("certify.base.jsonio:parse_json")
def _last_key(original: Any, data: bytes, *, what: str) -> Any:
    """The json module, and CouchDB (CVE-2017-12635): every parser reads a double key differently."""
    return json.loads(data) if data.count(b'"a"') > 1 else original(data, what=what)


@JSON.bug("certify.base.jsonio:parse_json")
def _nan(original: Any, data: bytes, *, what: str) -> Any:
    """The json module, which takes NaN and Infinity: NaN passes every comparison that should stop it."""
    return json.loads(data) if data in (b"NaN", b"-Infinity") else original(data, what=what)


@JSON.judge
def judge_json() -> Iterator[Fact]:
    """Strict parsing."""
    yield "plain JSON", jsonio.parse_json(b'{"a": [1, 0.5]}', what="it") == {"a": [1, 0.5]}
    for text in (b"NaN", b"-Infinity", b'{"a": 1, "a": 2}', b"1e999", b'"\\ud800"', b"[" * 100 + b"]" * 100):
        yield f"{text[:20]!r} is refused", code_of(lambda text=text: jsonio.parse_json(text, what="it")) != ""  # type: ignore[misc]


REQUIREMENT: Final = Judged("requirement", "what a policy makes of a claim")


@REQUIREMENT.bug("certify.policy.requirement:judge")
def _estimate(original: Any, asked: Requirement, claim: Claim, **more: Any) -> Any:
    """Tables of means, without limits: the limit decides, not the estimate."""
    return original(asked, replace(claim, lower=claim.estimate, upper=claim.estimate), **more)


@REQUIREMENT.bug("certify.policy.requirement:judge")
def _absence(original: Any, *rest: Any, **more: Any) -> Any:
    """Absence of evidence as evidence of absence (Altman 1995): what is not shown is not refuted."""
    found = original(*rest, **more)
    return replace(found, code="CLAIM_REFUTED", outcome=Outcome.FAIL) if found.code == "NOT_SHOWN" else found


@REQUIREMENT.bug("certify.policy.requirement:judge")
def _footnotes(original: Any, asked: Any, claim: Claim, **more: Any) -> Any:
    """Assumptions in footnotes, read by nobody: what a policy does not accept does not count."""
    return original(asked, claim, **more | {"taken": frozenset(claim.assumptions)})


@REQUIREMENT.bug("certify.policy.requirement:judge")
def _any_level(original: Any, *rest: Any, alpha: str, **more: Any) -> Any:
    """The published levels up to .95: a promise with confidence .2 is only descriptive."""
    return original(*rest, alpha=min(alpha, "0.05"), **more)


def _claim(kind: str = "gain", finding: Finding = Finding.MEASURED, **figures: Any) -> Claim:
    settings: dict[str, Any] = {"assumptions": ("A-UNITS",), "n": 10, "estimate": F(5, 4)} | figures
    return Claim(kind, "base", None, finding, "CODE", "text", **settings)


@REQUIREMENT.judge
def judge_requirement() -> Iterator[Fact]:
    """Limits below, at and above a threshold of 1, for every test; findings that are no limits."""
    taken = frozenset({"A-UNITS"})

    def code(test: Any, limit: int, other: int | None = None, **more: Any) -> str:
        side = "lower" if test in ("at_least", "above") else "upper"
        opposite = None if other is None else F(other)
        claim = _claim(**({side: F(limit)} | more))
        asked = Requirement("gain:base:whole", test, F(1))
        return requirement.judge(asked, claim, alpha="0.05", taken=taken, opposite=lambda: opposite).code

    for test, at, beyond in (
        *(("at_least", True, 2), ("above", False, 2)),
        *(("at_most", True, 0), ("below", False, 0)),
    ):
        short = 2 - beyond
        yield f"{test}: beyond the threshold", code(test, beyond) == "SHOWN"
        yield f"{test}: at the threshold", (code(test, 1) == "SHOWN") == at
        yield f"{test}: short of it", code(test, short) == "NOT_SHOWN"
        yield f"{test}: refuted by the other limit", code(test, short, short) == "CLAIM_REFUTED"
        yield f"{test}: the other limit at it", (code(test, short, 1) == "CLAIM_REFUTED") != at
        yield f"{test}: the other limit beyond it", code(test, short, beyond) == "NOT_SHOWN"
    lacking = code("above", 2, assumptions=("A-UNITS", "A-BLOCKS"))
    yield "an assumption that is not taken as given", lacking == "ASSUMPTION_NOT_ACCEPTED"

    def outcome(name: str, test: Any, finding: Finding, alpha: str = "0.05") -> str:
        claim = _claim(name.partition(":")[0], finding)
        asked = Requirement(name, test, None if test in ("held", "not refuted") else F(1))
        answer = requirement.judge(asked, claim, alpha=alpha, taken=taken, opposite=lambda: None)
        return str(answer.outcome)

    yield "a claim without evidence", outcome("gain:base:cut", "above", Finding.MISSING) == "missing"
    promise = "guarantee:published"
    held = {Finding.HELD: "pass", Finding.REFUTED: "fail", Finding.PREMISE_FAILED: "fail"}
    held |= {Finding.VACUOUS: "vacuous", Finding.INCONCLUSIVE: "inconclusive"}
    for finding, expected in held.items():
        yield f"must be held: {finding}", outcome(promise, "held", finding) == expected
        mild = "fail" if finding is Finding.REFUTED else "pass"
        yield f"must not be refuted: {finding}", outcome(promise, "not refuted", finding) == mild
    for alpha, expected in (("0.1", "pass"), (".10", "pass"), ("0.11", "inconclusive")):
        yield f"held at {alpha}", outcome(promise, "held", Finding.HELD, alpha) == expected


TEXTS: Final = Judged("texts", "what a policy makes of several texts")


@TEXTS.bug("certify.policy.outcomes:items")
def _best_text(
    original: Any, ticket: Any, policy: Any, texts: Any, found: Mapping[Any, RequirementAnswer]
) -> Any:
    """The best of several test sets, in the abstract: a claim about several texts is shown on each."""
    good = {key: answer for key, answer in found.items() if answer.outcome is Outcome.PASS}
    return original(ticket, policy, texts, good or found)


@TEXTS.bug("certify.policy.outcomes:items")
def _what_is_there(original: Any, ticket: Any, policy: Any, *rest: Any) -> Any:
    """Evaluation scripts that take the files that are there: a text that is asked for is missing."""
    claims = tuple(replace(one, texts=()) for one in policy.claims)
    return original(ticket, SimpleNamespace(claims=claims, reads_evidence=policy.reads_evidence), *rest)


@TEXTS.judge
def judge_items() -> Iterator[Fact]:
    """Two texts with an answer each, a text that is missing, a claim that nobody declared."""
    asked = Requirement("gain:base:whole", "above", F(0))
    named = Requirement("gain:base:whole", "above", F(0), texts=("one", "three"))
    texts: Any = [SimpleNamespace(name=name, path=f"{name}.json") for name in ("one", "two")]

    def outcome(one: Any, *found: Outcome, declared: tuple[Any, ...] = ()) -> str:
        ticket: Any = SimpleNamespace(declared=declared)
        policy: Any = SimpleNamespace(claims=(one,), reads_evidence=True)
        pairs = zip(texts, found, strict=False)
        given = {
            (name, text.path): RequirementAnswer(answer, "CODE", "text")
            for text, answer in pairs
            for name in (one.item, "declared.1.guarantee.published")
        }
        *_, item = outcomes.items(ticket, policy, texts, given)
        return str(item.outcome)

    good, bad, open_ = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
    yield "shown on both texts", outcome(asked, good, good) == "pass"
    for first, second, expected in ((good, open_, "inconclusive"), (bad, good, "fail"), (open_, bad, "fail")):
        yield f"{first} on one text, {second} on the other", outcome(asked, first, second) == expected
    yield "no text at all", outcome(asked) == "missing"
    yield "a text that is asked for and not there", outcome(named, good) == "missing"
    own = DeclaredClaim(kind="guarantee", comparator="published")
    yield "what a ticket declares is asked of it", outcome(asked, bad, declared=(own,)) == "fail"
    unknown = DeclaredClaim(kind="beauty")
    yield "what nothing can test is not shown", outcome(asked, good, declared=(unknown,)) == "inconclusive"


CERTIFICATE: Final = Judged("certificate", "numbers of a certificate")


@CERTIFICATE.bug("certify.certificate.schema:share")
def _each_text(original: Any, delta: str, _: int) -> Any:
    """Several test sets at .05 each, and one conclusion: texts share the error of what they show together."""
    return original(delta, 1)


@CERTIFICATE.bug("certify.certificate.schema:decimal")
def _toward_zero(original: Any, value: Fraction, *, up: bool = False) -> str:
    """Int(), which rounds toward zero: below zero, cutting off claims more than was shown."""
    return str(original(value, up=up if value >= 0 else not up))


@CERTIFICATE.judge
def judge_certificate() -> Iterator[Fact]:
    """Decimals never claim more than the numbers; the error probability is split."""
    for value in (F(1, 3), F(-1, 3), F(2, 3), F(-2, 3), F(5), F(-1, 10**9), F(1, 10**9)):
        low, high = F(schema.decimal(value)), F(schema.decimal(value, up=True))
        yield f"{value} in decimals", low <= value <= high and high - low <= F(1, 10**6)
        yield f"{value} to the last digit", value - low < F(1, 10**6) and high - value < F(1, 10**6)
    for texts in (1, 2, 3, 7):
        yield f"{texts} texts have the error together", schema.share("0.05", texts) * texts == DELTA
