"""Bugs in the gate, the checker, and the compiled engine; see :mod:`proofs_checks.mutations.mutants`."""

from __future__ import annotations

from proofs_checks.mutations.mutant import Mutant, of

_DRAWN = of(
    "certify.evidence.sampling",
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
    "certify.evidence.split",
    (
        "check_split",
        "sides",
        "targets may repeat",
        '("target", [(pair.target, pair.id, pair.id) for pair in pairs]),',
        "",
    ),
    (
        "_sentences",
        "target",
        "only sources are compared with what was used",
        "(record.source, record.target)",
        "(record.source,)",
    ),
    (
        "check_split",
        "passage",
        "windows of one passage may count as units",
        '_check_distinct(lines, "lines of unrelated text stand in a second unit")',
        "pass",
    ),
    (
        "check_split",
        "shared",
        "windows of one unit may not share a line",
        "(line, record.unit, record.id)",
        "(line, record.id, record.id)",
    ),
    ("_sentences", "lines", "unrelated text may be what was tuned on", "record.lines if", "() if"),
    (
        "check_split",
        "counted",
        "a line counts again in every window",
        "for line in {line for line, _, _ in lines}]",
        "for line, _, _ in lines]",
    ),
    ("check_split", "unlisted", "nothing listed is nothing used", 'if not used.get("tuning"):', "if False:"),
)
_RECORDS = of(
    "certify.evidence.record",
    (
        "RecordParser._checked",
        "copies",
        "a window of text is a new one under another name",
        "if first != record.id:",
        "if False:",
    ),
    (
        "",
        "nothing",
        "a window need not say what it was cut from",
        "lines: Annotated[tuple[Digest, ...], Meta(min_length=1)]",
        "lines: tuple[Digest, ...]",
    ),
    (
        "_ascending",
        "twice",
        "a line may be listed twice",
        "map(lt, values, values[1:])",
        "map(lambda a, b: a <= b, values, values[1:])",
    ),
    (
        "",
        "words",
        "anything is a digest",
        "lines: Annotated[tuple[Digest, ...]",
        "lines: Annotated[tuple[Name, ...]",
    ),
    ("", "window", "anything is a window", "window: Digest", "window: Name"),
)
_CONTENT = of(
    "certify.evidence.read",
    (
        "record_content",
        "results",
        "units of a loss stand in the order of results",
        "record.window if",
        "str(sorted(record.nats.values())) if",
    ),
    (
        "unit_key",
        "order",
        "the order of records names a unit",
        "sorted(map(record_content, records))",
        "map(record_content, records)",
    ),
)
_REPORT = of(
    "certify.claims.every",
    (
        "check_splits",
        "own",
        "what another text says was used does not count",
        "check_split(one.records, used)",
        "check_split(one.records, one.used)",
    ),
    (
        "check_splits",
        "kinds",
        "unrelated text may be what another says was used",
        "check_split(one.records, used)",
        'one.manifest.kind == "loss" or check_split(one.records, used)',
    ),
    (
        "_claims",
        "losses",
        "nothing is asked of the lines of unrelated text",
        "if role in kind.roles",
        "if (role,) == kind.roles",
    ),
)
_SPLIT_CLAIM = of(
    "certify.claims.exact",
    (
        "split_claim",
        "choice",
        "the text that a ticket was chosen on is new",
        "if subject.chosen_on:",
        "if False:",
    ),
)
_EXAMINATION = of(
    "certify.gate.evidence",
    ("_split", "unlisted", "a text need not list what was used", "if lacking:", "if False:"),
    (
        "_split",
        "kinds",
        "unrelated text need not list what was used",
        "for evidence in found:",
        'for evidence in (one for one in found if one.manifest.kind != "loss"):',
    ),
    ("_split", "alone", "each text is held against its own lists", "check_splits(found)", "pass"),
)
_ANSWERS = of(
    "certify.policy.outcomes",
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
    "certify.certificate.schema",
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
    "certify.gate.recheck",
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
        "Evidence.disjoint",
        "passage",
        "windows of one passage may count as units",
        "[[line for _, line in lines]]",
        "[[*{line for _, line in lines}]]",
    ),
    (
        "Evidence.disjoint",
        "shared",
        "windows of one unit may not share a line",
        '{(record["unit"], line)',
        '{(record["id"], line)',
    ),
    (
        "Evidence.__init__",
        "copies",
        "a window of text is a new one under another name",
        '("id", "window")[: 1 + (m["kind"] == "loss")]',
        '("id",)',
    ),
    ("digests", "nothing", "a window need not say what it was cut from", " and values and", " and"),
    ("digests", "twice", "a line may be listed twice", " and increasing(values)", ""),
    ("Evidence.window", "words", "anything is a window", ' and digests([record["window"]])', ""),
    (
        "Evidence.window",
        "source",
        "a field of translations orders units of a loss",
        ' and "source" not in record',
        "",
    ),
    (
        "content",
        "results",
        "units of a loss stand in the order of results",
        'record["source" if "source" in record else "window"]',
        'record.get("source", record.get("nats"))',
    ),
    (
        "Audit.examine",
        "kinds",
        "unrelated text may be what was tuned on",
        "for text in texts or ()]\n        self.items",
        'for text in texts or () if text.role != "loss"]\n        self.items',
    ),
    (
        "Evidence.drawn",
        "repeated",
        "a token counts again each time it is fed",
        "for i in set(new) - fed)",
        "for i in new)",
    ),
)
_NUMBA = of(
    "certify.scan.engine_numba",
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
    *(*_DRAWN, *_RECORDS, *_CONTENT, *_SPLIT, *_REPORT, *_SPLIT_CLAIM, *_EXAMINATION, *_ANSWERS),
    *(*_CERTIFICATE, *_RECHECK, *_CHECKER, *_NUMBA),
)
"""All of them, grouped by module."""
