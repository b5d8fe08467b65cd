"""The table of theory §4 and its sums, tried on every small case in integers (standard library only).

Each check has two halves. The true half enumerates every pair of laws that meets the criterion and must find
no violation. The false half, the same criterion with its constant lowered or its sum replaced, must find
some: it shows that the search could have seen a violation, and that the constant is not merely cautious.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from math import prod

from proofs_checks.check import Budget, Check, CheckFinding, Facts, check
from proofs_checks.theory.enumeration import Tally, scan_inequality, scan_line, scan_product
from proofs_checks.theory.finite import (
    CERTIFIED,
    Combine,
    alternating,
    intervals,
    restricted_strings,
    rivals,
    runs,
    variation,
)

ROW_LAW = ("A-LAW", "A-SCALAR", "A-POINT")
"""Assumptions behind every reading of a label string as a model's decision."""


def try_lines(strings: Iterable[str], sizes: Iterable[int], factor: int, *, strict: bool = True) -> Tally:
    """Sum of :func:`~proofs_checks.theory.enumeration.scan_line` over strings and sample sizes."""
    cases = product(strings, sizes)
    return sum((scan_line(labels, n, factor, strict=strict) for labels, n in cases), Tally())


def judge(holds: Tally, breaks: Tally, *, true: str, false: str) -> CheckFinding:
    """Passed if the ``true`` variant was tried and never violated, and the ``false`` one was violated."""
    cases = holds.cases + breaks.cases
    text = (
        f"{true}: {holds.cases:,} cases, {holds.violations:,} violations;"
        f" {false}: {breaks.cases:,} cases, {breaks.violations:,} violations"
    )
    if holds.violations:
        return CheckFinding("failed", cases, f"{text}; the theorem is violated", str(holds.witness))
    if not holds.cases:
        return CheckFinding("failed", cases, f"{text}; no case met the criterion, so nothing was tried")
    if not breaks.violations:
        return CheckFinding("failed", cases, f"{text}; no wrong variant was punished, the search is blind")
    return CheckFinding("passed", cases, text, str(breaks.witness))


def judge_factors(strings: Sequence[str], sizes: Sequence[int], right: int, wrong: int) -> CheckFinding:
    """:func:`judge` on these strings, with ``right`` and with ``wrong`` as the factor of D."""
    tallies = (try_lines(strings, sizes, factor) for factor in (right, wrong))
    return judge(*tallies, true=f"{right}D", false=f"{wrong}D")


def strings_of(lengths: Iterable[int], classes: int | None = None) -> list[str]:
    """All label strings of these lengths, up to the names of the rivals."""
    return [s for length in lengths for s in restricted_strings(length, classes or length)]


def padded(word: str, length: int) -> list[str]:
    """Strings of ``length`` atoms whose runs spell ``word``."""
    return [s for s in restricted_strings(length, length) if runs(s) == word]


@check("exact.half-lines", "§4 table, row 1: two half-lines need r > 2D", ROW_LAW)
def half_lines(budget: Budget) -> CheckFinding:
    """``A B``: never violated at 2D, violated at D."""
    strings = [word for length in (2, 3, 4) for shape in ("AB", "BA") for word in padded(shape, length)]
    return judge_factors(strings, range(2, 17 if budget.full else 11), 2, 1)


@check("exact.one-end", "§4 table, row 2: A at one end, classes intervals: r > 3D", ROW_LAW)
def one_end(budget: Budget) -> CheckFinding:
    """Every class an interval and A at an end: never violated at 3D, violated at 2D with three classes."""
    sizes = range(4, 14 if budget.full else 11)
    strings = [s for s in strings_of((3, 4)) if intervals(s) and CERTIFIED in (s[0], s[-1])]
    breaks = try_lines([s for s in strings if len(rivals(s)) > 1], sizes, 2)
    return judge(try_lines(strings, sizes, 3), breaks, true="3D", false="2D with three classes")


@check("exact.interval", "§4 table: A an interval between two pieces of B needs r > 4D, not 2D", ROW_LAW)
def interval(budget: Budget) -> CheckFinding:
    """``B A B``, the published constant on an interval: never violated at 4D, violated at 2D and at 3D."""
    sizes = range(4, 17 if budget.full else 13)
    strings = [word for length in (3, 4) for word in padded("BAB", length)]
    finding, less = judge_factors(strings, sizes, 4, 3), try_lines(strings, sizes, 2)
    cases = finding.cases + less.cases
    if not less.violations:
        return CheckFinding("failed", cases, "2D on an interval went unpunished")
    detail = f"{finding.detail}; 2D: {less.cases:,} cases, {less.violations:,} violations"
    return CheckFinding(finding.outcome, cases, detail, finding.witness)


@check("exact.intervals", "§4 table, row 3: every class an interval: r > 4D", ROW_LAW)
def every_class_an_interval(budget: Budget) -> CheckFinding:
    """Never violated at 4D; violated at 3D from four classes on (``D C A B``)."""
    sizes = range(5, 12 if budget.full else 9)
    strings = [s for s in strings_of((3, 4, 5)) if intervals(s)]
    breaks = try_lines([s for s in strings if variation(s) == 4], sizes, 3)
    return judge(try_lines(strings, sizes, 4), breaks, true="4D", false="3D with four classes")


@check("exact.pieces", "§4 table, row 4: A in k pieces between pieces of B: r > 4kD", ROW_LAW)
def pieces(budget: Budget) -> CheckFinding:
    """k = 1, 2 (and 3 in a full run): never violated at 4kD, each violated at (4k - 1)D."""
    holds = breaks = Tally()
    # With fewer than 4k + 2(k + 1) samples, or so, no violation of 4k - 1 fits.
    for k, sizes in ((1, range(4, 11)), (2, range(10, 14)), (3, range(17, 19)))[: 3 if budget.full else 2]:
        words = ["BA" * k + "B"]
        own = try_lines(words, sizes, 4 * k - 1)
        if not own.violations:
            return CheckFinding("failed", own.cases, f"{4 * k - 1}D went unpunished for {words[0]}")
        holds += try_lines(words, sizes, 4 * k)
        breaks += own
    return judge(holds, breaks, true="4kD", false="(4k - 1)D")


@check("exact.c-b-a-b-c", "§4 table, row 5: C B A B C needs r > 6D", ROW_LAW)
def nested(budget: Budget) -> CheckFinding:
    """Never violated at 6D, violated at 5D and so at the 4D of intervals."""
    return judge_factors(["CBABC"], range(10, 16 if budget.full else 14), 6, 5)


@check("exact.every-string", "§4: V from the string of winning labels, r > V D", ROW_LAW)
def every_string(budget: Budget) -> CheckFinding:
    """Every label string, up to the names of the rivals: never violated at V, and many are at V - 1.

    From five atoms on, only strings without equal neighbours: merging neighbours keeps r and never raises D,
    so that a violation of the longer string would be one of the shorter.
    """
    plan = [(2, 8), (3, 10), (4, 8), (5, 7)]
    if budget.full:
        plan = [(2, 16), (3, 14), (4, 12), (5, 10), (6, 8)]
    holds = breaks = Tally()
    sharp = number = 0
    for length, largest in plan:
        for labels in strings_of([length]):
            if length > 4 and runs(labels) != labels:
                continue
            number += 1
            sizes, factor = range(3, largest + 1), variation(labels)
            holds += try_lines([labels], sizes, factor)
            lower = try_lines([labels], sizes, factor - 1)
            sharp += lower.violations > 0
            breaks += lower
    finding = judge(holds, breaks, true=f"V over {number:,} strings", false="V - 1")
    detail = f"{finding.detail}; {sharp:,} strings break at V - 1 with so few samples"
    return CheckFinding(finding.outcome, finding.cases, detail, finding.witness)


@check("exact.unbounded", "§4 table, last row: for arbitrary sets no constant times D suffices", ("A-ORDER",))
def unbounded(budget: Budget) -> Facts:
    """Alternating labels: for each multiplier v, r = 1 > v D, and then B has everything (C2)."""
    largest = 60 if budget.full else 20
    changes = [alternating(n) for n in range(2, largest + 2)]
    for factor, change in enumerate(changes, 1):
        lost = change.slack(multiplier=factor) > 0 and change.lead_after == -1
        yield f"no violation of {factor}D on {change.labels}", lost
    detail = f"alternating labels break every multiple up to {largest}D"
    return CheckFinding("passed", largest, detail, f"3D: {changes[2]}")


@check("exact.strict", "§4 corollary: strictly greater, with >= there is a tie (C6)", ROW_LAW)
def strictness(budget: Budget) -> CheckFinding:
    """With >= every label string admits a tie at V D; with > none does."""
    holds = breaks = Tally()
    for length, largest in ((2, 10), (3, 9), (4, 8 if budget.full else 7)):
        for labels in strings_of([length]):
            sizes, factor = range(2, largest + 1), variation(labels)
            holds += try_lines([labels], sizes, factor)
            breaks += try_lines([labels], sizes, factor, strict=False)
    return judge(holds, breaks, true="r > V D", false="r >= V D")


@check("exact.inequality", "§4 theorem: |E s(X) - E s(Y)| <= sum of V_j D_j", ("independence",))
def inequality(budget: Budget) -> CheckFinding:
    """Every integer function on small grids of one, two and three coordinates, every pair of product laws."""
    three = (-1, 0, 1)
    plan: list[tuple[tuple[int, ...], int, tuple[int, ...]]] = [
        *(((3,), 8, (-2, -1, 0, 1, 2)), ((4,), 5, three)),
        *(((2, 2), 5, three), ((2, 3), 3, three), ((2, 2, 2), 2, (0, 1))),
    ]
    if budget.full:
        plan += [((5,), 5, three), ((2, 3), 4, three), ((3, 3), 2, three), ((2, 2, 2), 3, (0, 1))]
    total = Tally()
    joint_equality = 0
    for shape, n, values in plan:
        tally, guilty = scan_inequality(shape, n, values)
        if guilty is not None:
            return CheckFinding("failed", tally.cases, f"violated on {shape} with n = {n}", f"s = {guilty}")
        total += tally
        joint_equality += tally.attained if len(shape) > 1 else 0
    wrong, guilty = scan_inequality((2, 2), 4, three, combine="max")
    cases = total.cases + wrong.cases
    if guilty is None or not joint_equality:
        return CheckFinding("failed", cases, "the sum is never attained, or the maximum went unpunished")
    detail = (
        f"{total.cases:,} cases, none above the sum; equality with every D_j > 0 in several coordinates:"
        f" {joint_equality:,} times; the maximum in place of the sum: {wrong.violations:,} violations"
    )
    return CheckFinding("passed", cases, detail, f"the maximum fails for s = {guilty} on 2x2, n = 4")


def judge_sums(plan: Sequence[tuple[tuple[int, ...], int, int]]) -> CheckFinding:
    """Shape, samples and classes: the sum is never violated on any labelling, the maximum is on one."""

    def tried(combine: Combine) -> Tally:
        found = Tally()
        for shape, n, classes in plan:
            for labels in restricted_strings(prod(shape), classes):
                found += scan_product(shape, labels, n, combine=combine)
        return found

    return judge(tried("sum"), tried("max"), true="sum", false="max (A-ONE dropped)")


@check("exact.two-coordinates", "§4 corollary with two changed rows: deviations add (C5)", ROW_LAW)
def two_coordinates(budget: Budget) -> CheckFinding:
    """Every labelling of small grids: the sum is never violated, the maximum is."""
    if budget.full:
        return judge_sums([((2, 2), 9, 4), ((2, 3), 4, 6), ((3, 3), 3, 2), ((2, 4), 3, 3)])
    return judge_sums([((2, 2), 5, 4), ((2, 3), 3, 4)])


@check("exact.three-coordinates", "§4 corollary with three changed rows: deviations add", ROW_LAW)
def three_coordinates(budget: Budget) -> CheckFinding:
    """Every labelling of a 2x2x2 grid by two classes (three in a full run)."""
    return judge_sums([((2, 2, 2), 4, 2), ((2, 2, 2), 2, 3)] if budget.full else [((2, 2, 2), 3, 2)])


@check("exact.runs", "§4: V depends on the runs of the label string only")
def merged_runs(_: Budget) -> Facts:
    """Repeating a label changes no V; the table's constants are what the definition gives."""
    table = {"AB": 2, "ACB": 3, "BAC": 3, "BAB": 4, "DCAB": 4, "BABAB": 8, "BABABAB": 12, "CBABC": 6}
    for labels, constant in table.items():
        found = variation(labels)
        yield f"wrong constant of {labels}: {found} instead of {constant}", found == constant
    strings = strings_of(range(2, 8), 4)
    for labels in strings:
        v = variation(labels)
        yield f"wrong constant of {labels}: merged it has another", v == variation(runs(labels))
        most = 3 if CERTIFIED in (labels[0], labels[-1]) else 4
        yield f"wrong constant of {labels}: {v} is above {most}", v <= most or not intervals(labels)
    return f"{len(table)} constants of the table; {len(strings):,} strings against their merged runs"


CHECKS: tuple[Check, ...] = (
    *(merged_runs, inequality, half_lines, interval, one_end, every_class_an_interval, pieces, nested),
    *(every_string, unbounded, strictness, two_coordinates, three_coordinates),
)
