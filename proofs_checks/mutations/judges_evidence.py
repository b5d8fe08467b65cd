"""Judges of what rests on evidence: claims, answers to policies, choices; see
:mod:`proofs_checks.mutations.judges`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

from certify.base.errors import CertifyError
from certify.claims.claim import Finding
from certify.evidence.null_labels import NULLS
from certify.stats.betting import difference_lower
from proofs_checks.coverage.exact import tail
from proofs_checks.worlds.outlines import RIGHT, WRONG, answer, arm, evidence, subject, windows

Fact = tuple[str, bool]
F = Fraction
DELTA = F(1, 20)
STEP = F(1, 2**32)


def refused(action: Callable[[], Any]) -> bool:
    """Whether an action ends in an error for the user."""
    try:
        action()
    except CertifyError:
        return True
    return False


def judge_agreement(m: Any) -> Iterator[Fact]:
    """Units of two sentences, some of which disagree in one: exact limits by binomial tails."""
    arms = [arm("t")]
    answers = {"t": [WRONG if i in (0, 7, 10) else RIGHT for i in range(120)]}
    found = m.agreement_rate(evidence(arms, answers, per_unit=2), subject(), delta=DELTA)
    yield "a unit agrees if all its sentences do", (found.estimate, found.n) == (F(57, 60), 60)
    lower = found.lower
    tight = tail(60, lower, range(57, 61)) <= DELTA < tail(60, lower + STEP, range(57, 61))
    yield "the lower limit of 57 of 60, to a grid step", tight
    anytime = m.agreement_rate(
        evidence(arms, answers, per_unit=2, design="sequential"), subject(), delta=DELTA
    )
    yield "a sequential limit is lower and says something", F(3, 5) < anytime.lower < lower
    share = m.token_agreement(evidence(arms, answers, steps=4, per_unit=2), subject(), delta=DELTA)
    yield "mean share of equal decisions", 0 <= F(477, 480) - share.estimate < F(1, 2**30)
    yield "and its lower limit", F(9, 10) < share.lower < share.estimate
    strict = m.token_agreement(evidence(arms, answers, steps=4, per_unit=2), subject(), delta=DELTA / 10)
    yield "less error, lower limit", strict.lower < share.lower


def judge_loss(m: Any) -> Iterator[Fact]:
    """Rises and falls of the loss, in nats per token, against the cap."""
    nat = 10**9
    found = m.unrelated_loss(windows([(5 * nat, 100), (10 * nat, 100)] * 100), subject(), delta=DELTA)
    yield "mean rise per token", abs(found.estimate - F(3, 40)) < F(1, 10**8)
    yield "an upper limit above it", found.estimate < found.upper < F(1, 4)
    yield "a measured claim", found.finding == "measured"
    worse = m.unrelated_loss(windows([(5 * nat, 100)] * 50 + [(300 * nat, 100)]), subject(), delta=DELTA)
    yield "one unit above the cap fails the claim", (worse.finding, worse.upper) == ("failed", None)
    better = m.unrelated_loss(windows([(5 * nat, 100)] * 50 + [(-900 * nat, 100)]), subject(), delta=DELTA)
    yield "a large fall counts as the cap", abs(better.estimate - (F(5, 2) - 2) / 51) < F(1, 10**8)


def _quality_world() -> Any:
    """A ticket, its base, embed tuning, two fully tuned models, all null tickets, one nearly as good."""
    scores: dict[str, tuple[int, ...]] = {"base": (2,), "reference": (12,), "full-a": (6,), "full-b": (14,)}
    scores["t"] = (20, 12, 4)
    arms = [arm("t"), arm("base", kind="base"), arm("reference", kind="reference")]
    arms += [arm("full-a", kind="full"), arm("full-b", kind="full")]
    for control, count in NULLS.items():
        for number in range(count):
            name = f"{control}-{number}"
            rows = 1 if control.startswith("one-row") else 3
            arms.append(arm(name, rows, control=control, of="t", seed=number))
            scores[name] = (11,) if name == "top-norm-0" else (3,)
    return evidence(arms, {name: [answer(*score)] * 80 for name, score in scores.items()})


def judge_quality(m: Any) -> Iterator[Fact]:
    """Which arm a ticket is held against, and under which extraction rule."""
    world, about = _quality_world(), subject()
    for rule, score in (("whole", 100), ("first-line", 60), ("cut", 20)):
        yield f"score under {rule}", set(m.unit_scores(world, "t", rule)) == {score}
    nulls = m.better_than_nulls(world, about, delta=DELTA)
    yield "held against the best null ticket", nulls.detail["weakest"] == "top-norm-0"
    yield "by 5 points", abs(nulls.estimate - 5) < F(1, 10**6) and nulls.lower < 5
    full = m.non_inferiority(world, about, "full", delta=DELTA)
    yield "held against the better of two models", abs(full.estimate + 10) < F(1, 10**6)
    gain = m.gain(world, about, rule="cut", delta=DELTA)
    yield "gain under another rule", abs(gain.estimate - 10) < F(1, 10**6) and 0 < gain.lower < 10


def asked(kind: str, comparator: str | None = None, rule: str | None = None) -> Any:
    """A claim of which the limit on the other side is asked for."""
    return SimpleNamespace(kind=kind, comparator=comparator, extraction=rule, delta=DELTA, name=kind)


def judge_agreement_upper(m: Any) -> Iterator[Fact]:
    """The limit on the other side of an agreement lies beyond the estimate."""
    half = evidence([arm("t")], {"t": [WRONG, RIGHT] * 30}, steps=1)
    for design in ("fixed", "sequential"):
        half.design = half.manifest.design = design
        for upper in (m.agreement_rate_upper, m.token_agreement_upper):
            limit = upper(asked("it"), half, subject())
            yield f"{upper.__name__}, {design}: above a half, no more than needed", F(1, 2) < limit < F(4, 5)


def judge_difference_upper(m: Any) -> Iterator[Fact]:
    """The limit on the other side of a difference lies beyond the estimate; comparisons share its error."""
    world, about = _quality_world(), subject()
    gain = m.difference_upper(asked("gain", "base", "cut"), world, about)
    yield "a gain of 10 points", 10 < gain < 40
    found = m.nulls_upper(asked("better-than-nulls", "nulls", "first-line"), world, about)
    count = sum(NULLS.values())
    shared = -difference_lower([F(-5)] * 80, DELTA / count, "fixed").value
    yield "the strongest null ticket, at its share of the error", found == shared


def judge_loss_lower(m: Any) -> Iterator[Fact]:
    """The limit on the other side of a rise of the loss lies below the estimate."""
    rises = windows([(5 * 10**9, 100)] * 100)
    limit = m.unrelated_loss_lower(asked("unrelated-loss", "base"), rises, subject())
    yield "the loss rises by at least", limit is not None and F(-1, 2) < limit < F(1, 20)


def judge_requirement(m: Any) -> Iterator[Fact]:
    """The table of the rules, at the thresholds and beside them."""

    def ask(
        test: str, threshold: int | None, *, alpha: str = "0.05", other: int | None = None, **fields: Any
    ) -> str:
        name = "guarantee:additive" if threshold is None else "gain:base:whole"
        plain = {"finding": Finding.MEASURED, "lower": None, "upper": None, "assumptions": ("A-UNITS",)}
        claim = SimpleNamespace(name=name, code="CODE", text="it", estimate=F(1), n=9, **(plain | fields))
        requirement = m.Requirement(name, test, None if threshold is None else F(threshold))
        taken = frozenset({"A-UNITS"})
        return str(m.judge(requirement, claim, alpha=alpha, taken=taken, opposite=lambda: other).outcome)

    for test, limit, shown in (
        *(("at_least", 0, True), ("at_least", -1, False), ("at_least", 1, True)),
        *(("above", 0, False), ("above", 1, True), ("above", -1, False)),
        *(("at_most", 0, True), ("at_most", 1, False), ("at_most", -1, True)),
        *(("below", 0, False), ("below", -1, True), ("below", 1, False)),
    ):
        side = "lower" if test in ("at_least", "above") else "upper"
        stated: dict[str, Any] = {side: F(limit)}
        yield f"{test} 0 with a limit of {limit}", (ask(test, 0, **stated) == "pass") == shown
    for test, other, refuted in (
        *(("at_least", -1, True), ("at_least", 0, False), ("above", 0, True), ("above", 1, False)),
        *(("at_most", 1, True), ("at_most", 0, False), ("below", 0, True), ("below", -1, False)),
    ):
        limits: dict[str, Any] = {"lower": F(-9)} if test in ("at_least", "above") else {"upper": F(9)}
        outcome = ask(test, 0, other=other, **limits)
        yield (
            f"{test} 0 with an opposite limit of {other}",
            outcome == ("fail" if refuted else "inconclusive"),
        )
    yield "an assumption not accepted", ask("at_least", 0, lower=F(1), assumptions=("A-LAW",)) != "pass"
    yield "a failed claim", ask("at_most", 0, finding=Finding.FAILED) == "fail"
    yield "a missing claim", ask("at_least", 0, finding=Finding.MISSING) == "missing"
    for finding, outcome in (
        ("held", "pass"),
        ("refuted", "fail"),
        ("vacuous", "vacuous"),
        ("premise failed", "fail"),
    ):
        yield f"a guarantee that is {finding}", ask("held", None, finding=Finding(finding)) == outcome
    for alpha, outcome in (("0.1", "pass"), (".10", "pass"), ("0.11", "inconclusive")):
        yield f"held at {alpha}", ask("held", None, finding=Finding.HELD, alpha=alpha) == outcome


def judge_choice(m: Any) -> Iterator[Fact]:
    """Three tickets of known agreement: who is a candidate, in which order, and where testing stops."""
    arms = [arm("small", 2), arm("large", 9), arm("null", 3, control="random"), arm("middle", 5)]
    arms += [arm("same", 9, table_sha256="table of large"), arm("tuned", 7, kind="tuned")]

    def choose(wrong: Mapping[str, int], **more: Any) -> Any:
        answers = {one.name: [WRONG] * wrong.get(one.name, 0) for one in arms}
        answers = {name: some + [RIGHT] * (80 - len(some)) for name, some in answers.items()}
        return m.choose(evidence(arms, answers, **more), m.parse_goal("agreement:0.95"), DELTA)

    def name(choice: Any) -> str | None:
        return None if choice.chosen is None else choice.chosen.arm.name

    every = choose({})
    order = [one.name for one in every.candidates]
    yield (
        "transfers that control nothing, the largest first, each table once",
        order == ["large", "middle", "small"],
    )
    yield "all good: the smallest", name(every) == "small"
    some = choose({"middle": 9})
    yield "testing stops at the first that is not shown", (name(some), len(some.tested)) == ("large", 2)
    yield "the largest fails: none", name(choose({"large": 9})) is None
    # Of 80 units 59 clean ones would do: P(B(80, .95) = 80) = .0165, with one wrong unit .086.
    yield "one wrong unit of 80 is too many", name(choose({"large": 1})) is None
    yield "data of unknown use are refused", refused(lambda: choose({}, used={}))
    shown = next(one for one in every.tested).limit.value
    yield "the limit beside it is the exact one", shown**80 <= DELTA < (shown + STEP) ** 80


@dataclass(frozen=True)
class _Growing:
    """Evidence of which heads can be made, as the rehearsal does."""

    manifest: Any
    records: tuple[Any, ...]

    @property
    def units(self) -> dict[str, Any]:
        return {record.unit: (record,) for record in self.records}


def judge_sequential(m: Any) -> Iterator[Fact]:
    """When drawing stops: what is open, what a look sees, which error is allowed."""
    standings = [SimpleNamespace(open=False), SimpleNamespace(open=True), SimpleNamespace(open=False)]
    yield "one open requirement keeps drawing", not m.Look(3, tuple(standings)).decided
    yield "none does not", m.Look(3, (standings[0], standings[2])).decided
    about = subject()
    requirement = SimpleNamespace(claim="gain:base:whole", role="evaluation")
    policy = SimpleNamespace(name="p", claims=(requirement,), delta=DELTA, taken=frozenset())
    yield "no more error than the policy allows", refused(lambda: m.Watch(policy, (about,), 2 * DELTA))
    yield "a share of it is fine", m.Watch(policy, (about,), DELTA / 2).left_out == ()
    order = [f"u{i}" for i in range(7)]
    manifest = SimpleNamespace(model_copy=lambda update: SimpleNamespace(**update))
    world = _Growing(manifest, tuple(SimpleNamespace(unit=unit) for unit in order))
    for enough, heads in ((5, [2, 4, 6]), (9, [2, 4, 6, 7]), (1, [2])):
        seen: list[list[str]] = []

        def look(one: Any, seen: list[list[str]] = seen, enough: int = enough) -> Any:
            seen.append([record.unit for record in one.records])
            return SimpleNamespace(decided=len(one.records) >= enough and one.manifest.design == "sequential")

        m.rehearse(SimpleNamespace(look=look), world, 2)
        yield f"heads of the order until {enough} units decide", seen == [order[:head] for head in heads]


EVIDENCE_JUDGES: Mapping[str, tuple[Callable[[Any], Iterator[Fact]], ...]] = {
    "certify.claims.agreement": (judge_agreement, judge_agreement_upper),
    "certify.claims.loss": (judge_loss, judge_loss_lower),
    "certify.claims.quality": (judge_difference_upper,),
    "certify.policy.requirement": (judge_requirement,),
    "certify.gate.choose": (judge_choice,),
    "certify.gate.watch": (judge_sequential,),
}
"""Judges of each module."""
