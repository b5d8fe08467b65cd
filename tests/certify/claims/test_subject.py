"""The table a ticket makes and its distances to E*, recounted from plain arrays; arms with wrong tables."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from claims_world import evidence_of
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from profiles import examples
from ticket_folders import (
    MOVED,
    NUDGED,
    ROWS,
    WIDTH,
    base_table,
    make_ticket,
    tensor_sha256,
    tuned_table,
)

import lottery
from certify.base.errors import InvalidInputError
from certify.claims.subject import check_transfers, make_subject
from certify.evidence.load import Subject
from certify.tables.rowfile import make_rows
from certify.ticket.released import Source, open_base, open_reference, open_rows
from certify.ticket.schema import read_ticket_file
from proofs_checks.worlds.synthetic import Behaviour, arm, plain_arms, sentence

Half = NDArray[np.float16]


def count(x: Half, y: Half) -> int:
    """n times the largest distance of the two empirical CDFs, value by value."""
    return max(abs(int((x <= t).sum()) - int((y <= t).sum())) for t in np.concatenate((x, y)))


def build(
    folder: Path, base: Half, tuned: Half, rows: Half | None = None, **options: Any
) -> tuple[Subject, Any, Any]:
    """The subject of a ticket over two tables; ``rows`` replace the released ones (tuned on their own)."""
    path = make_ticket(folder, base=base, tuned=tuned, **options)
    ticket = read_ticket_file(path).tickets[0]
    source = Source(ticket, path.parent)
    before = open_base(source, None)
    after = open_reference(source, None, before)
    assert after is not None
    released = open_rows(source)
    if rows is not None:
        released = make_rows(released.ids, rows.astype(np.float32), "F16")
    return make_subject(ticket, before, after, released, lottery.scan(before, after)), before, after


def test_a_transfer_differs_from_the_reference_outside_the_ticket(tmp_path: Path) -> None:
    base, tuned = base_table(), tuned_table()
    subject, *_ = build(tmp_path, base, tuned)
    assert subject.ticket.ids == MOVED
    table = base.copy()
    table[list(MOVED)] = tuned[list(MOVED)]
    assert subject.table_sha256 == tensor_sha256(table)
    assert subject.distances.d == WIDTH
    assert subject.distances.h == {i: count(base[i], tuned[i]) for i in NUDGED}


def test_tuned_rows_differ_from_the_reference_inside_the_ticket_too(tmp_path: Path) -> None:
    base, tuned = base_table(), tuned_table()
    own = (base[list(MOVED)] + np.float16(0.04)).astype(np.float16)
    own[1] = tuned[MOVED[1]]  # one of them happens to equal the reference
    subject, *_ = build(tmp_path, base, tuned, own)
    table = base.copy()
    table[list(MOVED)] = own
    assert subject.table_sha256 == tensor_sha256(table)
    expected = {i: count(table[i], tuned[i]) for i in (*MOVED, *NUDGED) if i != MOVED[1]}
    assert subject.distances.h == expected


def test_rows_tuned_far_from_the_reference_fail_the_premise_that_a_transfer_meets(tmp_path: Path) -> None:
    base, tuned = base_table(), tuned_table()
    level = Fraction("0.05")
    subject, *_ = build(tmp_path / "a", base, tuned)
    assert subject.distances.premise(level) == ()
    subject, *_ = build(
        tmp_path / "b", base, tuned, (tuned[list(MOVED)] + np.float16(0.1)).astype(np.float16)
    )
    assert subject.distances.premise(level) == MOVED


def test_a_permuted_row_passes_ks_and_is_in_n_and_in_the_digest(tmp_path: Path) -> None:
    base, tuned = base_table(), tuned_table()
    tuned[20] = base[20][::-1]
    subject, *_ = build(tmp_path, base, tuned)
    assert 20 not in subject.ticket.ids
    assert subject.distances.h[20] == 0
    assert subject.distances.premise(Fraction("0.05")) == ()


@settings(max_examples=examples(6))
@given(st.integers(0, 2**32), st.integers(0, 6))
def test_distances_of_any_tables_by_brute_force(
    tmp_path_factory: pytest.TempPathFactory, seed: int, k: int
) -> None:
    generator = np.random.default_rng(seed)
    base = base_table()
    tuned = base.copy()
    moved = generator.choice(np.arange(3, 60), size=12, replace=False)
    tuned[moved] += generator.choice([0.001, 0.02, 0.1], size=(12, 1)).astype(np.float16)
    chosen = sorted(int(i) for i in generator.choice(moved, size=k, replace=False)) or [4]
    own = (base[chosen] + generator.normal(0, 0.01, (len(chosen), WIDTH))).astype(np.float16)
    rule = "ids:" + ",".join(map(str, chosen))
    subject, *_ = build(tmp_path_factory.mktemp("t"), base, tuned, own, rule=rule)
    table = base.copy()
    table[chosen] = own
    differing = [i for i in range(ROWS) if (table[i].view(np.uint16) != tuned[i].view(np.uint16)).any()]
    assert subject.distances.h == {i: count(table[i], tuned[i]) for i in differing}
    assert subject.table_sha256 == tensor_sha256(table)


# --- tables of other arms ----------------------------------------------------------------------------------


def evidence_with(arms: list[Any], base: Half, tuned: Half) -> Any:
    whole = plain_arms()[:2]
    whole[0]["table_sha256"], whole[1]["table_sha256"] = tensor_sha256(base), tensor_sha256(tuned)
    arms = [*whole, *arms]
    record = sentence(0, {one["name"]: Behaviour() for one in arms})
    return evidence_of(
        [record],
        arms,
        base={"tensor_sha256": tensor_sha256(base), "model_sha256": "0" * 64},
        reference={"tensor_sha256": tensor_sha256(tuned)},
    )


def transfer(name: str, ids: list[int], into: Half, rows: Half) -> dict[str, Any]:
    table = into.copy()
    table[ids] = rows[ids]
    return arm(name, "transfer", ids, table_sha256=tensor_sha256(table))


def test_tables_of_transfers_are_recomputed(tmp_path: Path) -> None:
    base, tuned = base_table(), tuned_table()
    _, before, after = build(tmp_path, base, tuned)
    arms = [transfer("t", list(MOVED), base, tuned), transfer("null", [3, 4, 50], base, tuned)]
    assert check_transfers([evidence_with(arms, base, tuned)], before, after) == 2


@pytest.mark.parametrize("fault", ["wrong direction", "a permuted row", "one row more", "rows not moved"])
def test_an_arm_with_another_table_is_refused(tmp_path: Path, fault: str) -> None:
    base, tuned = base_table(), tuned_table()
    _, before, after = build(tmp_path, base, tuned)
    ids, rows = list(MOVED), tuned.copy()
    wrong = {
        "wrong direction": lambda: transfer("null", ids, tuned, base),
        "rows not moved": lambda: transfer("null", ids, base, base),
        "one row more": lambda: transfer("null", [*ids, 50], base, tuned) | {"ids": ids},
        "a permuted row": lambda: transfer("null", ids, base, rows),
    }
    rows[9] = tuned[9][::-1]
    with pytest.raises(InvalidInputError, match="arm null") as caught:
        check_transfers([evidence_with([wrong[fault]()], base, tuned)], before, after)
    assert caught.value.code == "ARM_TABLE"


def test_a_ticket_served_in_the_wrong_direction_is_not_the_arm_of_the_ticket(tmp_path: Path) -> None:
    base, tuned = base_table(), tuned_table()
    subject, *_ = build(tmp_path, base, tuned)
    inverted = transfer("t", list(MOVED), tuned, base)
    assert inverted["table_sha256"] != subject.table_sha256
    assert transfer("t", list(MOVED), base, tuned)["table_sha256"] == subject.table_sha256
