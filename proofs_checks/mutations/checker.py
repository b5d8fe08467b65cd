"""The independent checker: the same lessons, in code that shares nothing with the program."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, Final

import numpy as np

from certify.checker import scan, units
from certify.checker.tables import Stop
from proofs_checks.check import Fact
from proofs_checks.mutations.bug import Judged
from proofs_checks.mutations.evidence import COPIED, MALFORMED, TEXT, TUNED, window, write
from proofs_checks.mutations.law import textbook
from proofs_checks.theory.finite import sample_distance, smirnov

F = Fraction


CHECKER: Final = Judged("checker", "the independent checker")


@CHECKER.bug("certify.checker.scan:compare")
def _upward(original: Any, before: bytes, after: bytes, dtype: str) -> Any:
    """One author, twice: a distance looks both ways in the second program, too."""
    x, y = (sorted(struct.unpack(f"<{len(row) // 4}f", row)) for row in (before, after))
    level = [np.searchsorted(x, v, "right") - np.searchsorted(y, v, "right") for v in (*x, *y)]
    return max(0, *map(int, level)), *original(before, after, dtype)[1:]


@CHECKER.bug("certify.checker.units:Evidence.drawn")
def _repeated(original: Any, found: Any, arm: str, alpha: str, h: Any, d: int) -> Any:
    """One author, twice: in the second program, too, a row that is fed again adds no deviation."""
    # At every step of the judge's record the row was fed once more.
    return original(found, arm, alpha, {token: 2 * count for token, count in h.items()}, d)


@CHECKER.bug("certify.checker.units:Evidence.window")
def _trusted(*_: Any) -> None:
    """One author, twice: a second reader reads every field again."""
    return


@CHECKER.judge
def judge_rows() -> Iterator[Fact]:
    """Distances against the definition, the law and the corrections against other ways to them."""
    random = np.random.Generator(np.random.PCG64(13))
    for n in (1, 5, 12):
        yield f"the exact law, n = {n}", all(scan.p_exact(h, n) == smirnov(h, n) for h in range(n + 1))
    drawn = random.integers(-3, 4, size=(8, 2, 9)).tolist()
    for x, y in (*drawn, ([0, 0, 2], [0, 1, 1]), ([0.0] * 3, [-0.0] * 3)):
        rows = [struct.pack(f"<{len(row)}f", *row) for row in (x, y)]
        h = len(x) * sample_distance(x, y)
        both = {scan.compare(rows[0], rows[1], "F32")[0], scan.compare(rows[1], rows[0], "F32")[0]}
        yield f"h of {x} and {y}", both == {h}
    for correction in ("none", "bonferroni", "holm", "bh", "by"):
        for ranked in ([20, 12, 11, 10, 10, 9, 3], [11, 11, 11, 11], [13, 12, 11, 10, 9, 8, 7, 6]):
            kept = sum(textbook([smirnov(h, 20) for h in ranked], F(1, 5), correction))
            found = scan.rejected(ranked, 20, F(1, 5), correction, "exact")
            yield f"{correction} of {ranked}", found == kept


@CHECKER.judge
def judge_steps() -> Iterator[Fact]:
    """Row 5 is fed three times and counts once: V sum D is 4/64 at every step; .1 is more, .0625 is not."""
    reference = {"tokens": [5, 5, 9], "p_a": [10**8, 10**8, 62_500_000], "p_b": [0, 0, 0]}
    record = {"prompt": [5], "reference": reference, "arms": {"t": {"differs": [[1, 8]]}}}
    stub: Any = SimpleNamespace(units={f"u{i}": [record] for i in range(40)}, m={})
    drawn = units.Evidence.drawn(stub, "t", "0.05", {5: 1}, 64).get("additive")
    half = [int(hashlib.sha256(f"drawn:u{i}".encode()).hexdigest(), 16) % 2 == 1 for i in range(40)]
    yield "two of three steps are certified, and one is drawn", drawn == half


@CHECKER.judge
def judge_text() -> Iterator[Fact]:
    """Windows of unrelated text and lists of used lines, from files."""

    def ends(
        records: Sequence[Any], used: Sequence[str] = (TUNED,), *, chosen: str = "", other: Sequence[str] = ()
    ) -> str:
        # What somebody who would have evidence accepted writes: whatever is asked for, and all in one folder.
        with TemporaryDirectory() as folder:
            try:
                path = write(Path(folder), records, used={"tuning": used})
                found = units.Evidence(path)
                second: Any = SimpleNamespace(used={"tuning": {*other}})
                found.disjoint([found, second], frozenset({chosen}))
            except Stop as stop:
                return str(stop.args[1])
        return ""

    yield "windows of two units", ends(TEXT) == ""
    for fault, fields in MALFORMED.items():
        yield fault, ends([TEXT[0] | fields]) == "MALFORMED"
    yield "a field of translations", ends([TEXT[0] | {"source": "0" * 16}]) == "MALFORMED"
    yield "a copy under another name", ends([*TEXT, COPIED]) == "EVIDENCE_DUPLICATE"
    stray = window(3, 7, lines=TEXT[0]["lines"])
    yield "a line in a second unit", ends([*TEXT, stray]) == "EVALUATION_DUPLICATES"
    line = TEXT[2]["lines"][0]
    yield "a line that was tuned on", ends(TEXT, sorted((line, TUNED))) == "DATA_OVERLAP"
    yield "a line that another text was tuned on", ends(TEXT, other=[line]) == "DATA_OVERLAP"
    yield "a line that the ticket was chosen on", ends(TEXT, chosen=line) == "DATA_OVERLAP"
    yield "nothing says what tuning used", ends(TEXT, ()) == "USED_NOT_LISTED"
