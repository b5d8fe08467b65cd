"""Which rows a ticket takes, and what becomes of a table that they are put into."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, Final, get_args

import numpy as np

from certify.base.records import Correction, Excluded, KSResult, Method
from certify.gate import recheck
from certify.scan.multiplicity import rejected
from certify.scan.smirnov import critical_count
from certify.selection import rules
from certify.ticket import transfer
from proofs_checks.check import Fact
from proofs_checks.mutations.bug import Judged
from proofs_checks.theory.finite import smirnov

F = Fraction

SELECTION: Final = Judged("selection", "which rows a rule selects")


@SELECTION.bug("certify.selection.rules:select")
def _seed_zero(original: Any, *scans: Any, seed: int | None = None, **more: Any) -> Any:
    """`seed or default`, an idiom of Python: seed 0 is a seed like any other."""
    found = original(*scans, seed=None if seed is None else seed or 1, **more)
    return replace(found, seed=seed)


@SELECTION.bug("certify.selection.rules:select")
def _all_tests(
    original: Any, scan: Any, *, correction: str = "none", alpha: str = "0.05", **more: Any
) -> Any:
    """Corrections over padding and special tokens, too: only rows that could be selected are tests."""
    found = original(scan, correction=correction, alpha=alpha, **more)
    hits = rejected(scan.h, scan.n, alpha, correction, scan.method)  # type: ignore[arg-type]
    out = {i for group in found.excluded for i in group.ids}
    kept = tuple(i for i in np.flatnonzero(hits).tolist() if i not in out)
    return found if correction == "none" else replace(found, ids=kept)


@SELECTION.bug("certify.selection.rules:select")
def _specials(original: Any, scan: Any, **more: Any) -> Any:
    """Random draws with BOS in them had .97 of the gain: special tokens, fed everywhere, are left out."""
    return original(scan, **more | {"exclude": ()})


@SELECTION.judge
def judge_selection() -> Iterator[Fact]:
    """Seeds, exclusions and labels of a selection from a small scan."""
    n, h = 64, np.array([64, 22, 21, 20, 19, 0, 30, 30], dtype=np.int32)
    p = np.array([float(smirnov(int(count), n)) for count in h])
    moved = h > 0
    norms = np.array([1.0, 8, 3, 4, 5, 0, 7, 6])

    def result(method: Method) -> KSResult:
        return KSResult(
            n=n, h=h, p=p, log10_p=np.log10(p), method=method, dtype="F32", equal=~moved,
            permuted=~moved & False, ties=~moved & False, shift_norm=norms, cosine=norms, max_abs=norms,
            engine="numpy",
        )  # fmt: skip

    exact = result("exact")
    for seed in (0, 0, 1, 2, 3):
        order = sorted(range(8), key=lambda i: hashlib.sha256(f"{seed}:{i}".encode()).digest())
        found = rules.select(exact, rule="random:3", seed=seed)
        yield f"seed {seed} is a seed", (found.ids, found.seed) == (tuple(sorted(order[:3])), seed)
    yield "largest shifts", rules.select(exact, rule="norm:2").ids == (1, 6)
    without = [Excluded("special", (0, 6, 7))]
    family: tuple[tuple[str, Correction, int], ...] = (("0.05", "none", 1), ("0.005", "bonferroni", 5))
    for alpha, correction, tests in family:
        found = rules.select(exact, alpha=alpha, correction=correction, exclude=without)
        kept = tuple(i for i in (1, 2, 3, 4) if smirnov(int(h[i]), n) * tests <= F(alpha))
        yield f"{correction}, some rows excluded", (found.ids, found.tests) == (kept, 5)
    for method in get_args(Method):
        found = rules.select(result(method), alpha="0.95")
        limit = n * math.log(2 / 0.95)
        law = [smirnov(c, n) <= F(19, 20) if method == "exact" else c * c > limit for c in h.tolist()]
        same = found.method == method and [*found.ids] == np.flatnonzero(law).tolist()
        yield f"decided by the {method} law", same


TRANSFER: Final = Judged("transfer", "the table that a ticket is put into")


@TRANSFER.bug("certify.ticket.transfer:transferred_blocks")
def _in_place(_: Any, base: Any, rows: Any) -> Iterator[memoryview]:
    """Assignment through a view of a memory map: the base is an input and never written to."""
    for start, block in base.blocks():
        first, last = np.searchsorted(rows.ids, (start, start + len(block)))
        block[rows.ids[first:last] - start] = rows.served[first:last]
        yield memoryview(block.tobytes())


@TRANSFER.bug("certify.ticket.transfer:transferred_blocks")
def _first_block(original: Any, base: Any, rows: Any) -> Iterator[Any]:
    """Tests on tables that fit into one block: every block has ticket rows of its own."""
    yield from list(original(base, rows))[:1]
    yield from (memoryview(block.tobytes()) for _, block in list(base.blocks())[1:])


@TRANSFER.judge
def judge_transfer() -> Iterator[Fact]:
    """The bytes of a transferred table, over several blocks."""
    base = np.arange(40, dtype=np.float32).reshape(10, 4)
    untouched = base.copy()
    ids = np.array([1, 4, 9])
    served = np.full((3, 4), -1, dtype=np.float32) * np.array([[1], [2], [3]], dtype=np.float32)
    table: Any = SimpleNamespace(blocks=lambda: ((start, base[start : start + 4]) for start in (0, 4, 8)))
    rows: Any = SimpleNamespace(ids=ids, served=served)
    data = b"".join(bytes(block) for block in transfer.transferred_blocks(table, rows))
    written = np.frombuffer(data, dtype=np.float32).reshape(10, 4)
    yield "ticket rows", bool((written[ids] == served).all())
    others = [i for i in range(10) if i not in ids]
    yield "other rows", bool((written[others] == untouched[others]).all())
    yield "the base stays as it is", bool((base == untouched).all())


PREMISE: Final = Judged("premise", "the published premise")


@PREMISE.bug("certify.gate.recheck:find_premise")
def _exact_law(original: Any, scan: Any, ids: Any, alpha: str) -> Any:
    """Taking h_alpha of the exact law for d tau: the published premise has the published threshold."""
    found = original(scan, ids, alpha)
    above = np.flatnonzero(scan.h >= critical_count(alpha, scan.n))
    rows = tuple(i for i in above.tolist() if i not in ids)
    return replace(found, holds=not rows, ids=rows)


@PREMISE.bug("certify.gate.recheck:find_premise")
def _every_row(original: Any, scan: Any, _: Any, alpha: str) -> Any:
    """The largest D of the table, as scans print it: the premise is about rows outside the ticket."""
    return original(scan, (), alpha)


@PREMISE.judge
def judge_premise() -> Iterator[Fact]:
    """The premise over rows outside the ticket."""
    scan: Any = SimpleNamespace(rows=5, n=4096, h=np.array([0, 122, 123, 130, 50]))
    found = recheck.find_premise(scan, (3,), "0.05")
    seen = (found.holds, found.h_max, found.id_max, found.ids)
    yield "a row at the critical count", seen == (False, 123, 2, (2,))
    yield "rows of the ticket do not count", recheck.find_premise(scan, (2, 3), "0.05").holds
    # 48 rejects by the exact law, 56 in the limit.
    yield "the published threshold decides", recheck.find_premise(scan, (1, 2, 3), "0.95").holds
