"""What is claimed of evidence: agreement, quality, loss, and what no run can touch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, Final

import numpy as np

from certify.claims import agreement, counts, loss, quality, registry
from certify.evidence import corpus_scores, sentence_scores
from certify.evidence.null_labels import NULLS
from certify.evidence.sentence_scores import POINT
from certify.stats.betting import difference_lower
from proofs_checks.check import Fact
from proofs_checks.coverage.exact import tail
from proofs_checks.mutations.bug import Judged
from proofs_checks.worlds.outlines import RIGHT, WRONG, answer, arm, evidence, subject, windows

F = Fraction
DELTA: Final = F(1, 20)
STEP: Final = F(1, 2**32)


def _with(whole: Any, **fields: Any) -> Any:
    """An outline with other attributes."""
    return SimpleNamespace(**vars(whole) | fields)


AGREEMENT: Final = Judged("agreement", "agreement with embed tuning")


@AGREEMENT.bug("certify.claims.agreement:agreement_rate")
def _sentences(original: Any, found: Any, about: Any, **more: Any) -> Any:
    """Sentences of one article, counted as independent: pooled, a nominal 5 % is 20 %."""
    single = {f"{unit}.{i}": (one,) for unit in found.units for i, one in enumerate(found.units[unit])}
    return original(_with(found, units=single), about, **more)


@AGREEMENT.bug("certify.claims.agreement:agreement_rate")
def _fixed_limit(original: Any, found: Any, about: Any, **more: Any) -> Any:
    """Stopping when the interval looks good: whoever looks again and again needs limits for that."""
    return original(_with(found, design="fixed"), about, **more)


@AGREEMENT.judge
def judge_agreement() -> Iterator[Fact]:
    """Units of two sentences, some of which disagree in one: exact limits by binomial tails."""
    arms = [arm("t")]
    answers = {"t": [WRONG if i in (0, 7, 10) else RIGHT for i in range(120)]}
    found = agreement.agreement_rate(evidence(arms, answers, per_unit=2), subject(), delta=DELTA)
    yield "a unit agrees if all its sentences do", (found.estimate, found.n) == (F(57, 60), 60)
    lower = found.lower or F(0)
    tight = tail(60, lower, range(57, 61)) <= DELTA < tail(60, lower + STEP, range(57, 61))
    yield "the lower limit of 57 of 60, to a grid step", tight
    growing = evidence(arms, answers, per_unit=2, design="sequential")
    anytime = agreement.agreement_rate(growing, subject(), delta=DELTA).lower or F(0)
    yield "a sequential limit is lower and says something", F(3, 5) < anytime < lower
    steps = evidence(arms, answers, steps=4, per_unit=2)
    share, strict = (agreement.token_agreement(steps, subject(), delta=d) for d in (DELTA, DELTA / 10))
    yield "mean share of equal decisions", 0 <= F(477, 480) - (share.estimate or 0) < F(1, 2**30)
    limits = [one.lower or F(0) for one in (strict, share)]
    yield "less error, lower limit", limits[0] < limits[1]
    yield "a limit below the share, and near it", F(9, 10) < limits[1] < (share.estimate or 0)


QUALITY: Final = Judged("quality", "differences of quality")


def _f_score(vector: Sequence[int], beta2: int, *, every: bool) -> int:
    """Sentence F score of n-gram counts, averaged over all eight orders, or over those of both sides."""
    orders = list(zip(vector[10::3], vector[11::3], vector[12::3], strict=True))
    used = [one for one in orders if one[0] and one[1]]
    k = len(orders) if every else len(used)
    p, q = (sum((F(one[2], one[side]) for one in used), F(0)) for side in (0, 1))
    return int(100 * POINT * (1 + beta2) * p * q / (k * (beta2 * p + q))) if p else 0


@QUALITY.bug("certify.evidence.sentence_scores:sentence_chrf")
def _chrf1(_: Any, vector: Sequence[int]) -> int:
    """ChrF1, the default of the first chrF paper, reported as chrF: a score is named with its beta."""
    return _f_score(vector, 1, every=False)


@QUALITY.bug("certify.evidence.sentence_scores:sentence_chrf")
def _all_orders(_: Any, vector: Sequence[int]) -> int:
    """NLTK and chrF++.py, which average over all orders: a short sentence has no 6-grams to miss."""
    return _f_score(vector, 4, every=True)


@QUALITY.bug("certify.evidence.sentence_scores:unit_scores")
def _whole_output(original: Any, found: Any, name: str, _: str) -> Any:
    """Lived through our first judges: the rule decides how much of a gain is learning to stop."""
    return original(found, name, "whole")


@QUALITY.bug("certify.claims.quality:better_than_nulls")
def _easiest_null(original: Any, *world: Any, **more: Any) -> Any:
    """Comparing with one random draw of rows, or with a mean: the null ticket to beat is the best."""
    found = original(*world, **more)
    easiest = max(found.detail["compared"], key=lambda one: F(one["lower"]))
    detail = found.detail | {"weakest": easiest["arm"]}
    return replace(found, lower=F(easiest["lower"]), estimate=F(easiest["estimate"]), detail=detail)


@QUALITY.bug("certify.claims.quality:retention")
def _share_of_the_score(original: Any, found: Any, about: Any, share: str, **more: Any) -> Any:
    """A share of embed tuning's score instead of its gain: the base alone has most of that."""
    base = (1 - F(share)) * sentence_scores.mean_score(found, "base", more["rule"])
    claim = original(found, about, share, **more)
    return replace(claim, estimate=claim.estimate + base, lower=claim.lower + base)


@QUALITY.judge
def judge_score() -> Iterator[Fact]:
    """Sentence chrF by hand: precision 1/2, recall 1/4 over the orders that have n-grams on both sides."""
    vector = [0] * 10 + [4, 8, 2] * 3 + [0, 3, 0] * 5
    p, q = F(1, 2), F(1, 4)
    yield "F2", sentence_scores.sentence_chrf(vector) == 100 * 5 * p * q * POINT // (4 * p + q)
    yield "nothing in common", sentence_scores.sentence_chrf([0] * 10 + [4, 8, 0] * 8) == 0


def _world() -> Any:
    """A ticket, its base, embed tuning, two fully tuned models, all null tickets, one nearly as good."""
    scores: dict[str, tuple[int, ...]] = {"base": (2,), "reference": (12,), "full-a": (6,), "full-b": (14,)}
    scores["t"] = (20, 12, 4)
    arms = [arm("t"), arm("base", kind="base"), arm("reference", kind="reference")]
    arms += [arm("full-a", kind="full"), arm("full-b", kind="full")]
    for control, count in NULLS.items():
        for number in range(count):
            name, rows = f"{control}-{number}", 1 if control.startswith("one-row") else 3
            arms.append(arm(name, rows, control=control, of="t", seed=number))
            scores[name] = (11,) if name == "top-norm-0" else (3,)
    return evidence(arms, {name: [answer(*score)] * 80 for name, score in scores.items()})


@QUALITY.judge
def judge_quality() -> Iterator[Fact]:
    """Which arm a ticket is held against, and under which extraction rule."""
    world, about = _world(), subject()
    for rule, score in (("whole", 100), ("first-line", 60), ("cut", 20)):
        yield f"score under {rule}", set(sentence_scores.unit_scores(world, "t", rule)) == {score * POINT}  # type: ignore[arg-type]
    nulls = quality.better_than_nulls(world, about, "rivals", delta=DELTA)
    yield "held against the best null ticket", nulls.detail["weakest"] == "top-norm-0"
    full = quality.non_inferiority(world, about, "full", delta=DELTA)
    gain = quality.gain(world, about, rule="cut", delta=DELTA)
    kept = quality.retention(world, about, "0.75", rule="first-line", delta=DELTA)
    for claim, points in ((nulls, 5), (full, -10), (gain, 10), (kept, F(25, 2))):
        estimate, lower = claim.estimate or F(0), claim.lower or F(0)
        yield f"{claim.name}: {points} points", abs(estimate - points) < F(1, 10**6) and lower < points
    yield "a gain that is shown", (gain.lower or F(0)) > 0


CORPUS: Final = Judged("corpus", "corpus scores")


@CORPUS.bug("certify.evidence.corpus_scores:corpus_bleu")
def _constant(original: Any, sums: Any) -> Any:
    """NLTK's smoothing by a constant, not by doubling: one name of a score hides several."""
    empty = (sums[:, 2:6] == 0).sum(axis=1)
    return original(sums) * 2 ** ((empty * (empty + 1) / 2 - empty) / 4)


@CORPUS.judge
def judge_corpus() -> Iterator[Fact]:
    """Corpus scores by hand."""

    def bleu(ours: int, theirs: int, matches: Sequence[int], totals: Sequence[int]) -> float:
        return float(corpus_scores.corpus_bleu(np.array([[ours, theirs, *matches, *totals]]))[0])

    # Precisions 1/2, then 1/(2 * 4) and 1/(4 * 4) for the orders without a match, then 1/4.
    smoothed = 100 * (F(1, 2) * F(1, 8) * F(1, 16) * F(1, 4)) ** 0.25
    yield "smoothing doubles", abs(bleu(8, 8, (4, 0, 0, 1), (8, 4, 4, 4)) - smoothed) < 1e-9


LOSS: Final = Judged("loss", "the loss on unrelated text")


def _changed(found: Any, change: Any) -> Any:
    return _with(found, windows={unit: tuple(map(change, found.windows[unit])) for unit in found.windows})


@LOSS.bug("certify.claims.loss:unrelated_excess")
def _clipped(original: Any, found: Any, about: Any, **more: Any) -> Any:
    """Clipping, so that a bound for bounded values applies: what was clipped is counted beside it."""

    def clip(one: Any) -> Any:
        most = one.nats["base"] + loss.CAP * 10**9 * one.tokens
        return _with(one, nats=one.nats | {"t": min(one.nats["t"], most)})

    return original(_changed(found, clip), about, **more)


@LOSS.bug("certify.claims.loss:unrelated_loss")
def _per_window(original: Any, found: Any, about: Any, **more: Any) -> Any:
    """Losses summed over windows of unequal length: a loss is one per token."""
    return original(_changed(found, lambda one: _with(one, tokens=1)), about, **more)


@LOSS.judge
def judge_loss() -> Iterator[Fact]:
    """Rises and falls of the loss, in nats per token, against the cap."""
    nat = 10**9
    found = loss.unrelated_loss(windows([(5 * nat, 100), (10 * nat, 100)] * 100), subject(), delta=DELTA)
    mean = found.estimate or F(0)
    yield "mean rise per token", abs(mean - F(3, 40)) < F(1, 10**8)
    yield "an upper limit above it", mean < (found.upper or 0) < F(1, 4)
    yield "a measured claim", found.finding == "measured"
    worse = loss.unrelated_loss(windows([(5 * nat, 100)] * 50 + [(300 * nat, 100)]), subject(), delta=DELTA)
    rise = abs((worse.estimate or 0) - (F(5, 2) + 2) / 51)
    yield "a large rise counts as the cap, too", rise < F(1, 10**8)
    above = loss.unrelated_excess(windows([(5 * nat, 100)] * 50 + [(300 * nat, 100)]), subject(), delta=DELTA)
    yield "and is counted", above.estimate == F(1, 51)
    better = loss.unrelated_loss(windows([(5 * nat, 100)] * 50 + [(-900 * nat, 100)]), subject(), delta=DELTA)
    fall = abs((better.estimate or 0) - (F(5, 2) - 2) / 51)
    yield "a large fall counts as the cap", fall < F(1, 10**8)


OPPOSITE: Final = Judged("opposite", "limits that refute")


@OPPOSITE.bug("certify.stats.betting:difference_lower")
def _whole_error(original: Any, *about: Any, comparisons: int = 1, **more: Any) -> Any:
    """Tables of ablations, each line at the full error: every null ticket that may refute has a share."""
    return original(*about, comparisons=min(1, comparisons), **more)


@OPPOSITE.judge
def judge_opposite() -> Iterator[Fact]:
    """The limit on the other side lies beyond the estimate, and several comparisons share its error."""

    def opposite(name: str, world: Any) -> Fraction:
        found = registry.opposite_limit(registry.claim_named(name, world, subject(), DELTA))
        return F(-9) if found is None else found

    half = evidence([arm("t")], {"t": [WRONG, RIGHT] * 30}, steps=1)
    for design in ("fixed", "sequential"):
        half.design = half.manifest.design = design
        for kind in ("agreement-rate", "token-agreement"):
            near = F(1, 2) < opposite(f"{kind}:reference", half) < F(4, 5)
            yield f"{kind}, {design}: above a half, no more than needed", near
    world = _world()
    yield "a gain of 10 points", 10 < opposite("gain:base:cut", world) < 40
    shared = -difference_lower([F(-5)] * 80, DELTA / 2, "fixed").value
    found = opposite("better-than-nulls:rivals:first-line", world)
    yield "the strongest null ticket, at its share of the error", 0 <= found - shared < F(1, 1000)
    rises = windows([(5 * 10**9, 100)] * 100)
    yield "the loss rises by at least", F(-1, 2) < opposite("unrelated-loss:base", rises) < F(1, 20)


OPPORTUNITY: Final = Judged("opportunity", "what a run feeds")


@OPPORTUNITY.bug("certify.claims.counts:opportunity")
def _prompts_only(original: Any, found: Any, about: Any) -> Any:
    """Counting tokens in prompts, as corpus statistics do: a generated token is fed, too."""

    def silent(record: Any) -> Any:
        return _with(record, arms={"base": SimpleNamespace(tokens=record.arms["base"].tokens[-1:])})

    return original(_with(found, sentences=tuple(map(silent, found.sentences))), about)


@OPPORTUNITY.judge
def judge_opportunity() -> Iterator[Fact]:
    """A run feeds the prompt and all generated tokens but the last."""
    base = SimpleNamespace(tokens=(1, 5, 2))
    world = evidence([arm("t")], {"t": [RIGHT]})
    world.sentences = (SimpleNamespace(prompt=(0, 7), arms={"base": base}),)
    found = counts.opportunity(world, subject()).detail
    yield "in how many prompts and runs each id is fed", found["ids"] == [[0, 1, 1], [1, 0, 1], [2, 0, 0]]
    yield "what no run feeds", found["never"] == [2]
