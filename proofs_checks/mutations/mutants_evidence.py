"""Bugs in what claims say and how policies judge them; see :mod:`proofs_checks.mutations.mutants`."""

from __future__ import annotations

from proofs_checks.mutations.mutant import Mutant, of

_AGREEMENT = of(
    "certify.claims.agreement",
    ("agreement_rate", "all", "a unit disagrees only if all its sentences do", "not any(", "not all("),
    ("agreement_rate", "side", "the upper limit for the lower one", 'delta, "lower")', 'delta, "upper")'),
    (
        "agreement_rate",
        "2delta",
        "2 delta for delta",
        "len(equal), delta,",
        "len(equal), 2 * delta,",
    ),
    ("_share", "inverted", "disagreement for agreement", "1 - Fraction(", "Fraction("),
    (
        "agreement_rate_upper",
        "opposite-side",
        "the same limit on both sides",
        'claim.delta, "upper")',
        'claim.delta, "lower")',
    ),
)
_LOSS = of(
    "certify.claims.loss",
    (
        "unrelated_loss",
        "sign",
        "a fall of the loss for a rise",
        "min(Fraction(CAP), -rise)",
        "min(Fraction(CAP), rise)",
    ),
    ("unrelated_loss", "cap", "a unit may rise by twice the cap", "if rise > CAP]", "if rise > 2 * CAP]"),
    (
        "unrelated_loss",
        "limit",
        "a limit although the values are not bounded",
        "upper=None if beyond else -limit.value",
        "upper=-limit.value",
    ),
    (
        "_rises",
        "tokens",
        "loss of a window for loss per token",
        "UNIT * sum(record.tokens for record in records)",
        "UNIT * len(records)",
    ),
)
_QUALITY = of(
    "certify.claims.quality",
    (
        "_least_upper",
        "whole",
        "each of several comparisons gets the whole error probability",
        "claim.delta / len(others)",
        "claim.delta",
    ),
    (
        "_least_upper",
        "mildest",
        "the best comparison refutes",
        "return min(",
        "return max(",
    ),
    (
        "_difference_upper",
        "direction",
        "what shows the claim is taken to refute it",
        "its - mine for",
        "mine - its for",
    ),
)
_REQUIREMENT = of(
    "certify.policy.requirement",
    (
        "_threshold",
        "strict",
        "a limit of 0 shows a gain above 0",
        "(limit == threshold and not strict)",
        "limit == threshold",
    ),
    (
        "_threshold",
        "refutes-tie",
        "a limit at the threshold refutes what is at least that",
        "sign * other < threshold or",
        "sign * other <= threshold or",
    ),
    (
        "_threshold",
        "one-sign",
        "upper limits are read like lower ones",
        "1 if requirement.test in LOWER else -1",
        "1",
    ),
    (
        "judge",
        "unaccepted",
        "assumptions that the policy does not accept do not matter",
        "if lacking:",
        "if False:",
    ),
    ("judge", "failed-passes", "a failed claim passes", "Answer(Outcome.FAIL,", "Answer(Outcome.PASS,"),
    (
        "_guarantee",
        "descriptive-tie",
        "alpha = .1 is called descriptive",
        "Fraction(alpha) > DESCRIPTIVE_ABOVE",
        "Fraction(alpha) >= DESCRIPTIVE_ABOVE",
    ),
    (
        "_threshold",
        "tie-refuted",
        "a claim that is true by equality is refuted",
        "(strict and sign * other == threshold)",
        "sign * other == threshold",
    ),
    (
        "_threshold",
        "estimate",
        "the estimate for its limit",
        "claim.lower if requirement.test in LOWER else claim.upper",
        "claim.estimate",
    ),
    (
        "_threshold",
        "sign",
        "upper limits are compared like lower ones",
        "in LOWER else -1",
        "in LOWER else 1",
    ),
    (
        "judge",
        "failed",
        "a failed claim is undecided",
        "return Answer(Outcome.FAIL, claim.code, claim.text)",
        "return Answer(Outcome.INCONCLUSIVE, claim.code, claim.text)",
    ),
    ("_threshold", "open", "what more units could show counts as decided", "open=True", "open=False"),
    (
        "_guarantee",
        "open",
        "what is decided counts as open",
        "open=undecided",
        "open=not undecided",
    ),
    ("_guarantee", "descriptive", "any level is good enough", "Fraction(alpha) > DESCRIPTIVE_ABOVE", "False"),
    (
        "_guarantee",
        "premise",
        "the promise holds without its premise",
        "Finding.PREMISE_FAILED: Outcome.FAIL",
        "Finding.PREMISE_FAILED: Outcome.PASS",
    ),
)
_LTT = of(
    "certify.gate.choose",
    (
        "candidates",
        "order",
        "the smallest ticket is tested first",
        "-len(arm.ids or ())",
        "len(arm.ids or ())",
    ),
    ("candidates", "controls", "null tickets are candidates", "arm.control is None and ", ""),
    (
        "Choice.chosen",
        "first",
        "the largest good ticket for the smallest",
        "good[-1] if good",
        "good[0] if good",
    ),
    (
        "_test",
        "2delta",
        "2 delta for delta",
        "goal.value, delta))\n    limit",
        "goal.value, 2 * delta))\n    limit",
    ),
    (
        "choose",
        "goes-on",
        "testing goes on after a failure",
        "fixed_sequence(rejections())",
        "sum(rejections())",
    ),
    (
        "choose",
        "used",
        "data of unknown use are good enough to choose on",
        "if check_split(evidence.sentences, evidence.used) is None:",
        "if False:",
    ),
)
_SEQUENTIAL = of(
    "certify.gate.watch",
    ("Look.decided", "any", "drawing stops when one requirement is decided", "not any(", "not all("),
    (
        "Watch.__init__",
        "delta",
        "more error than the policy allows",
        "0 < delta <= policy.delta",
        "0 < delta",
    ),
    (
        "rehearse",
        "forgets",
        "a look sees the last batch alone",
        "order[: start + batch]",
        "order[start : start + batch]",
    ),
    ("rehearse", "on", "drawing goes on after everything is decided", "if found[-1].decided:", "if False:"),
)

EVIDENCE_MUTANTS: tuple[Mutant, ...] = (
    *(*_AGREEMENT, *_LOSS, *_QUALITY, *_REQUIREMENT, *_LTT, *_SEQUENTIAL),
)
"""All of them, grouped by module."""
