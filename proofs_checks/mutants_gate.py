"""Bugs in the gate, the checker, and the compiled engine; see :mod:`proofs_checks.mutants`."""

from __future__ import annotations

from proofs_checks.mutant import Mutant, of

_DRAWN = of(
    "certify.drawn",
    (
        "check_drawn",
        "incomplete",
        "a part of a unit is enough",
        "if found[unit] != complete:",
        "if not found[unit]:",
    ),
    (
        "_check_sizes",
        "split",
        "one block counts as several units",
        "sorted(found.values(), reverse=True) != wanted",
        "max(found.values()) > block",
    ),
    ("check_drawn", "last", "the last units of the order for the first", "heapq.nsmallest", "heapq.nlargest"),
    (
        "check_drawn",
        "short",
        "the last block of a text must be as long as the others",
        "min(block, text.sentences - int(unit) * block)",
        "block",
    ),
)
_SPLIT = of(
    "certify.dataset_split",
    ("check_split", "sides", "targets may repeat", '("source", "target")', '("source",)'),
    (
        "check_split",
        "target",
        "only sources are compared with what was used",
        "if record.source in banned or record.target in banned]",
        "if record.source in banned]",
    ),
    ("check_split", "unlisted", "nothing listed is nothing used", 'if not used.get("tuning"):', "if False:"),
)
_ANSWERS = of(
    "certify.answers",
    ("_item", "mildest", "one text that shows it is enough", "gravest = min(", "gravest = max("),
    (
        "_item",
        "named",
        "a text that is asked for may be missing",
        "if lacking or not found:",
        "if not found:",
    ),
    ("unasked", "always", "what is not declared is never asked", "not requirement.when_declared or ", ""),
    (
        "unasked",
        "comparator",
        "one promise declared, all asked",
        " and one.comparator in (None, requirement.comparator)",
        "",
    ),
)
_CERTIFICATE = of(
    "certify.certificate",
    (
        "decimal",
        "nearest",
        "upper limits are rounded to nearest",
        "-(-scaled.numerator // scaled.denominator) if up",
        "round(scaled) if up",
    ),
    (
        "decimal",
        "zero",
        "lower limits are rounded toward zero",
        "else scaled.numerator // scaled.denominator",
        "else int(scaled)",
    ),
    (
        "share",
        "whole",
        "each text gets the whole error probability",
        "Fraction(delta) / texts",
        "Fraction(delta)",
    ),
    (
        "is_stated",
        "missing",
        "claims without evidence are stated",
        " and claim.finding not in UNSTATED",
        "",
    ),
)
_RECHECK = of(
    "certify.recheck",
    ("find_premise", "law", "the premise by the exact law", '"asymptotic"', '"exact"'),
    ("find_premise", "strict", "> for >= at the critical count", "h >= critical_count", "h > critical_count"),
    ("find_premise", "inside", "rows of the ticket count as outside", "outside[list(ids)] = False", "pass"),
    (
        "_direction",
        "cosine",
        "only a reversed row is a rotated one",
        "result.cosine < COSINE_FLOOR",
        "result.cosine < 0",
    ),
    ("_outside", "inside", "rows of the ticket count as outside", " if int(i) not in inside_ticket", ""),
)
_CHECKER = of(
    "certify.checker",
    (
        "compare",
        "sides",
        "one-sided for two-sided",
        "max(map(abs, accumulate(counts[value] for value in sorted(counts))))",
        "max(accumulate(counts[value] for value in sorted(counts)))",
    ),
    ("p_exact", "one-sided", "one-sided for two-sided", "Fraction(2 * alternating,", "Fraction(alternating,"),
    ("rate_upper", "off-by-one", "a limit on the wrong side", "1 + bisect_left(grid", "bisect_left(grid"),
    ("rejected", "by", "no harmonic number", "alpha * (j + 1) / m / harmonic", "alpha * (j + 1) / m"),
    (
        "Evidence.holds",
        "vacuous",
        "no certified step, no violation: held",
        'return "vacuous"',
        'return "held"',
    ),
    ("Evidence.disjoint", "sides", "targets may repeat", '("source", "target")', '("source",)'),
    (
        "Evidence.drawn",
        "repeated",
        "a token counts again each time it is fed",
        "for i in set(new) - fed)",
        "for i in new)",
    ),
)
_NUMBA = of(
    "lottery.ks_numba",
    (
        "_distance_kernel",
        "ties",
        "a tie is compared before both CDFs advanced",
        "if i + 1 == length or (values[i] >> np.uint64(1)) != (values[i + 1] >> np.uint64(1)):",
        "if True:",
    ),
    (
        "_distance_kernel",
        "sides",
        "one-sided for two-sided",
        "best = max(best, abs(level))\n        ties |=",
        "best = max(best, level)\n        ties |=",
    ),
    (
        "_distance_kernel",
        "shut",
        "buckets that fall below the middle stay shut",
        "max(work.before[b] + left, right - work.before[b])",
        "work.before[b] + left",
    ),
    ("_keys_kernel", "zero", "-0 lies below +0", "2 * middle - word if", "2 * middle - 1 - word if"),
    ("_look_kernel", "nan", "a NaN after tuning passes", "if different != 0:", "if False:"),
    (
        "_sums_kernel",
        "tail",
        "the last entries of a row are left out of the sums",
        "for i in range(n - n % LANES, n):",
        "for i in range(0):",
    ),
)

GATE_MUTANTS: tuple[Mutant, ...] = (
    *(*_DRAWN, *_SPLIT, *_ANSWERS, *_CERTIFICATE, *_RECHECK, *_CHECKER, *_NUMBA),
)
"""All of them, grouped by module."""
