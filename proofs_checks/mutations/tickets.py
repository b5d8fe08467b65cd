"""Which rows a ticket takes, and what becomes of a table that they are put into."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np

from certify.base.records import Correction, Excluded, KSResult, Method
from certify.gate import recheck
from certify.scan.multiplicity import rejected
from certify.scan.smirnov import critical_count
from certify.selection import rules
from certify.ticket import transfer
from proofs_checks.coverage.selection import smirnov
from proofs_checks.mutations.bug import Fact, Judged, bug

F = Fraction

# --- selection ---------------------------------------------------------------------------------------------


@bug(
    "certify.selection.rules:select",
    origin="`seed or default`, an idiom of Python",
    lesson="seed 0 is a seed like any other",
)
def _seed_zero(original: Any, *scans: Any, seed: int | None = None, **more: Any) -> Any:
    found = original(*scans, seed=None if seed is None else seed or 1, **more)
    return replace(found, seed=seed)


@bug(
    "certify.selection.rules:select",
    origin="corrections over the whole table, padding and special tokens included",
    lesson="only rows that could be selected are tests",
)
def _all_tests(
    original: Any, scan: Any, *, correction: str = "none", alpha: str = "0.05", **more: Any
) -> Any:
    found = original(scan, correction=correction, alpha=alpha, **more)
    hits = rejected(scan.h, scan.n, alpha, correction, scan.method)  # type: ignore[arg-type]
    out = {i for group in found.excluded for i in group.ids}
    kept = tuple(i for i in np.flatnonzero(hits).tolist() if i not in out)
    return found if correction == "none" else replace(found, ids=kept)


@bug(
    "certify.selection.rules:select",
    origin="a replication whose random draws held BOS, and had .97 of the gain by it",
    lesson="a row that is fed in every prompt is a confound: special tokens are left out",
)
def _specials(original: Any, scan: Any, **more: Any) -> Any:
    return original(scan, **more | {"exclude": ()})


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
        yield (
            f"decided by the {method} law",
            found.method == method and [*found.ids] == np.flatnonzero(law).tolist(),
        )


# --- transfer ----------------------------------------------------------------------------------------------


@bug(
    "certify.ticket.transfer:transferred_blocks",
    origin="assignment through a view of a memory map",
    lesson="the base is an input: it is never written to",
)
def _in_place(_: Any, base: Any, rows: Any) -> Iterator[memoryview]:
    for start, block in base.blocks():
        first, last = np.searchsorted(rows.ids, (start, start + len(block)))
        block[rows.ids[first:last] - start] = rows.served[first:last]
        yield memoryview(block.tobytes())


@bug(
    "certify.ticket.transfer:transferred_blocks",
    origin="tests on tables that fit into one block",
    lesson="every block has ticket rows of its own",
)
def _first_block(original: Any, base: Any, rows: Any) -> Iterator[Any]:
    yield from list(original(base, rows))[:1]
    yield from (memoryview(block.tobytes()) for _, block in list(base.blocks())[1:])


def judge_transfer() -> Iterator[Fact]:
    """The bytes of a transferred table, over several blocks."""
    base = np.arange(40, dtype=np.float32).reshape(10, 4)
    untouched = base.copy()
    ids = np.array([1, 4, 9])
    served = np.full((3, 4), -1, dtype=np.float32) * np.array([[1], [2], [3]], dtype=np.float32)
    table: Any = SimpleNamespace(
        blocks=lambda: iter([(start, base[start : start + 4]) for start in (0, 4, 8)])
    )
    rows: Any = SimpleNamespace(ids=ids, served=served)
    data = b"".join(bytes(block) for block in transfer.transferred_blocks(table, rows))
    written = np.frombuffer(data, dtype=np.float32).reshape(10, 4)
    yield "ticket rows", bool((written[ids] == served).all())
    others = [i for i in range(10) if i not in ids]
    yield "other rows", bool((written[others] == untouched[others]).all())
    yield "the base stays as it is", bool((base == untouched).all())


# --- the premise -------------------------------------------------------------------------------------------


@bug(
    "certify.gate.recheck:find_premise",
    origin="taking h_alpha, the critical count of the exact law, for d tau",
    lesson="the published premise is about the published threshold",
)
def _exact_law(original: Any, scan: Any, ids: Any, alpha: str) -> Any:
    found = original(scan, ids, alpha)
    above = np.flatnonzero(scan.h >= critical_count(alpha, scan.n))
    rows = tuple(i for i in above.tolist() if i not in ids)
    return replace(found, holds=not rows, ids=rows)


@bug(
    "certify.gate.recheck:find_premise",
    origin="the largest D of the table, as scans print it",
    lesson="rows of the ticket are transferred: the premise is about all others",
)
def _every_row(original: Any, scan: Any, _: Any, alpha: str) -> Any:
    return original(scan, (), alpha)


def judge_premise() -> Iterator[Fact]:
    """The premise over rows outside the ticket."""
    scan: Any = SimpleNamespace(rows=5, n=4096, h=np.array([0, 122, 123, 130, 50]))
    found = recheck.find_premise(scan, (3,), "0.05")
    seen = (found.holds, found.h_max, found.id_max, found.ids)
    yield "a row at the critical count", seen == (False, 123, 2, (2,))
    yield "rows of the ticket do not count", recheck.find_premise(scan, (2, 3), "0.05").holds
    # 48 rejects by the exact law, 56 in the limit.
    yield "the published threshold decides", recheck.find_premise(scan, (1, 2, 3), "0.95").holds


SUBJECTS = (
    Judged(
        "selection",
        "which rows a rule selects",
        (judge_selection,),
        (_seed_zero, _all_tests, _specials),
    ),
    Judged("transfer", "the table that a ticket is put into", (judge_transfer,), (_in_place, _first_block)),
    Judged("premise", "the published premise", (judge_premise,), (_exact_law, _every_row)),
)
"""What tickets rest on."""
