"""Null tickets: against a drawing by plain loops, and by what each of them must never be."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from profiles import examples

from certify.base.errors import CertifyError
from certify.base.records import Excluded, KSResult
from certify.scan.scan import scan
from certify.selection.nulls import NullTicket, bos_ids, newline_ids, null_tickets
from certify.selection.rules import select
from certify.tables.safefile import write_tensors
from certify.tables.table import open_table
from certify.tables.vocabulary import Vocabulary

SPECIAL = {0: "unk <unk>", 1: "bos <s>", 2: "eos </s>"}
NEWLINE = 3
FIRST = 4  # the first id that is an ordinary word


def scanned(norms: Sequence[float]) -> KSResult:
    """A scan in which rows moved by these norms."""
    norm = np.array(norms, np.float64)
    ones, zeros = np.ones(norm.size), np.zeros(norm.size, np.bool_)
    return KSResult(
        n=8,
        h=(norm > 0).astype(np.int32),
        p=ones,
        log10_p=0 * ones,
        method="exact",
        dtype="F32",
        equal=norm == 0,
        permuted=zeros,
        ties=zeros,
        shift_norm=norm,
        cosine=ones,
        max_abs=norm,
        engine="numpy",
    )


def words(size: int) -> Vocabulary:
    pieces = {i: f"w{i}" for i in range(FIRST, size)} | {0: "<unk>", 1: "<s>", 2: "</s>", NEWLINE: "\n"}
    path = Path("tokenizer.json")
    return Vocabulary(path, size, pieces, SPECIAL, (path,))


def rank(seed: int, i: int) -> str:
    return hashlib.sha256(f"{seed}:{i}".encode()).hexdigest()


def octave(count: int) -> int:
    return 0 if count == 0 else 1 + math.floor(math.log2(count))


def matched_by_loops(
    ticket: Collection[int], pool: Collection[int], counts: Sequence[int], seed: int
) -> tuple[int, ...]:
    """The documented drawing, one comparison after the other."""
    free = sorted(set(pool) - set(ticket), key=lambda i: rank(seed, i))
    own = sorted(set(pool) & set(ticket), key=lambda i: rank(seed, i))
    chosen, waiting = [], []
    for wanted in sorted((octave(counts[i]) for i in ticket), reverse=True):
        same = [i for i in free if octave(counts[i]) == wanted]
        if same:
            chosen.append(same[0])
            free.remove(same[0])
        else:
            waiting.append(wanted)
    for wanted in waiting:
        stock = free or own
        best = min(stock, key=lambda i: (abs(octave(counts[i]) - wanted), -octave(counts[i]), rank(seed, i)))
        chosen.append(best)
        stock.remove(best)
    return tuple(sorted(chosen))


def faults(null: NullTicket, ticket: Collection[int], pool: Collection[int]) -> set[str]:
    """What is wrong with a random null ticket."""
    found = set()
    if len(null.ids) != len(ticket):
        found.add("size")
    if list(null.ids) != sorted(set(null.ids)):
        found.add("order")
    if not set(null.ids) <= set(pool):
        found.add("excluded")
    room = len(set(pool) - set(ticket))
    if len(set(null.ids) & set(ticket)) != max(0, len(ticket) - room):
        found.add("shared")
    if bool(null.shared) != bool(null.note and "ticket itself" in null.note):
        found.add("silent")
    return found


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[int], list[int], list[float], int]:
    """A ticket, counts, norms and a seed for a small vocabulary; the ticket can be most of it."""
    size = draw(st.integers(10, 40))
    rows = range(size)
    counts = draw(st.lists(st.sampled_from([1, 2, 3, 5, 8, 100, 2000]), min_size=size, max_size=size))
    norms = [float(draw(st.sampled_from([0.25, 1.0, 2.0]))) for _ in rows]
    # NEWLINE is an ordinary token, specials are not: k of the top lists must exist.
    ticket = draw(st.lists(st.integers(NEWLINE, size - 1), min_size=1, max_size=size - 3, unique=True))
    return ticket, counts, norms, draw(st.integers(0, 2**40))


@settings(deadline=None, max_examples=examples(60))
@given(case=cases())
def test_every_null_ticket_is_what_it_says(case: tuple[list[int], list[int], list[float], int]) -> None:
    ticket, counts, norms, seed = case
    size, k = len(counts), len(ticket)
    pool = range(NEWLINE, size)
    nulls = null_tickets(ticket, scanned(norms), vocabulary=words(size), counts=np.array(counts), seed=seed)
    by_kind = Counter(null.kind for null in nulls)
    assert by_kind == {
        "random": 3, "frequency-matched": 3, "top-frequency": 1, "top-norm": 1,
        "one-row:bos": 1, "one-row:newline": 1,
    }  # fmt: skip
    for null in nulls:
        assert null.shared == len(set(null.ids) & set(ticket))
        assert null.fed == sum(counts[i] > 0 for i in null.ids)
        assert null.moved == sum(norms[i] > 0 for i in null.ids)
        if null.seed is not None:
            assert faults(null, ticket, pool) == set()
    for draw in range(3):
        random, matched = nulls[draw], nulls[3 + draw]
        assert random.seed == matched.seed == seed + draw
        order = sorted(pool, key=lambda i: (i in ticket, rank(seed + draw, i)))
        assert random.ids == tuple(sorted(order[:k]))
        assert matched.ids == matched_by_loops(ticket, pool, counts, seed + draw)
    top_frequency, top_norm, bos, newline = nulls[6:]
    assert top_frequency.ids == tuple(sorted(sorted(pool, key=lambda i: (-counts[i], i))[:k]))
    assert top_norm.ids == tuple(sorted(sorted(pool, key=lambda i: (-norms[i], i))[:k]))
    assert (bos.ids, newline.ids) == ((1,), (NEWLINE,))


@settings(deadline=None, max_examples=examples(30))
@given(case=cases())
def test_equal_arguments_give_equal_nulls_and_their_specs_are_rules(
    case: tuple[list[int], list[int], list[float], int],
) -> None:
    ticket, counts, norms, seed = case
    options: dict[str, Any] = {"vocabulary": words(len(counts)), "counts": np.array(counts), "seed": seed}
    nulls = null_tickets(ticket, scanned(norms), **options)
    assert nulls == null_tickets(ticket[::-1], scanned(norms), **options)
    assert nulls[1:3] == null_tickets(ticket, scanned(norms), **options | {"seed": seed + 1}, draws=2)[:2]
    for null in nulls:
        assert select(scanned(norms), rule=null.spec, vocabulary=words(len(counts))).ids == null.ids


@settings(deadline=None, max_examples=examples(40))
@given(case=cases(), cut=st.integers(1, 40))
def test_random_null_tickets_nested_tickets_are_nested(
    case: tuple[list[int], list[int], list[float], int], cut: int
) -> None:
    """Outside the larger ticket: its own rows cannot be in its null ticket."""
    ticket, counts, norms, seed = case
    options: dict[str, Any] = {"vocabulary": words(len(counts)), "counts": np.array(counts), "seed": seed}
    large = null_tickets(ticket, scanned(norms), **options)[0]
    small = null_tickets(ticket[: min(cut, len(ticket))], scanned(norms), **options)[0]
    assert set(small.ids) - set(ticket) <= set(large.ids)


@settings(deadline=None, max_examples=examples(40))
@given(data=st.data(), seed=st.integers(0, 1000))
def test_frequencies_match_wherever_they_can(data: st.DataObject, seed: int) -> None:
    """With as many other rows in each octave as the ticket has, no row comes from elsewhere."""
    levels = data.draw(st.lists(st.integers(0, 12), min_size=1, max_size=10))
    mine = [data.draw(st.integers(2**level, 2 ** (level + 1) - 1)) for level in levels]
    other = [data.draw(st.integers(2**level, 2 ** (level + 1) - 1)) for level in levels]
    extra = data.draw(st.lists(st.integers(0, 5000), max_size=20))
    counts = [0, 9, 9, 0, *mine, *other, *extra]
    ticket = range(FIRST, FIRST + len(mine))
    nulls = null_tickets(
        ticket,
        scanned([1.0] * len(counts)),
        vocabulary=words(len(counts)),
        counts=np.array(counts),
        seed=seed,
    )
    for null in nulls[3:6]:
        assert Counter(octave(counts[i]) for i in null.ids) == Counter(octave(c) for c in mine)
        assert (null.shared, null.note) == (0, "")


def test_departures_are_told() -> None:
    counts = np.array([0, 9, 9, 0, 900, 1, 5, 6, 0, 0])
    options: dict[str, Any] = {"vocabulary": words(10), "counts": counts, "seed": 0, "draws": 1}
    scan = scanned([1.0] * 10)
    matched = null_tickets([4], scan, **options)[1]
    assert (matched.kind, matched.ids) in {("frequency-matched", (6,)), ("frequency-matched", (7,))}
    assert matched.note == "1 of 1 row from another stratum, at most 7 away"
    # 5, 6 and 7 are fed and 4 is outside: three others are needed, and only 3, 8 and 9 are never fed.
    random, matched = null_tickets([4, 5, 6, 7], scan, **options)[:2]
    assert random.note == "1 row of the ticket itself: no other row is left"
    assert random.shared == matched.shared == 1
    assert set(random.ids) >= {3, 8, 9}
    assert "1 row of the ticket itself" in matched.note
    assert "another stratum" in matched.note


def test_excluded_groups_are_in_no_pool() -> None:
    counts = np.arange(20)
    banned = Excluded("mine", (10, 19))
    nulls = null_tickets(
        [5, 6], scanned([float(i) for i in range(20)]), vocabulary=words(20), counts=counts, seed=0,
        draws=20, exclude=[banned],
    )  # fmt: skip
    assert not {i for null in nulls for i in null.ids} & {0, 2, 10, 19}
    assert [null.ids for null in nulls if null.kind.startswith("top")] == [(17, 18), (17, 18)]


def test_a_random_null_is_the_rule_random_without_the_ticket() -> None:
    ticket = (5, 9, 11)
    scan = scanned([1.0] * 40)
    null = null_tickets(ticket, scan, vocabulary=words(40), counts=np.ones(40, np.int64), seed=7)[0]
    chosen = select(
        scan,
        rule="random:3",
        seed=7,
        vocabulary=words(40),
        exclude=[Excluded("excluded by the user", ticket)],
    )
    assert chosen.ids == null.ids


PLANTED: dict[str, tuple[Callable[[NullTicket], NullTicket], str]] = {
    "BOS": (lambda null: replace(null, ids=(1, *null.ids[1:])), "excluded"),
    "a row of the ticket": (lambda null: replace(null, ids=tuple(sorted((5, *null.ids[1:])))), "shared"),
    "a row too few": (lambda null: replace(null, ids=null.ids[1:]), "size"),
    "a row twice": (lambda null: replace(null, ids=(null.ids[0], *null.ids[:-1])), "order"),
    "overlap not told": (lambda null: replace(null, shared=1), "silent"),
}


@pytest.mark.parametrize(("plant", "fault"), PLANTED.values(), ids=PLANTED.keys())
def test_the_judge_of_nulls_sees_a_planted_fault(
    plant: Callable[[NullTicket], NullTicket], fault: str
) -> None:
    ticket, pool = (5, 6, 8), range(NEWLINE, 30)
    null = null_tickets(
        ticket, scanned([1.0] * 30), vocabulary=words(30), counts=np.ones(30, np.int64), seed=0
    )[0]
    assert faults(null, ticket, pool) == set()
    assert fault in faults(plant(null), ticket, pool)


def test_single_rows_by_the_vocabulary() -> None:
    def of(pieces: dict[int, str], special: dict[int, str]) -> Vocabulary:
        return Vocabulary(Path("x"), 10, pieces, special, (Path("x"),))

    llama = of({1: "<s>", 4: "\n", 9: "<0x0A>", 5: "<0x0D>", 6: ".\n", 7: "▁"}, {1: "bos <s>"})
    assert (bos_ids(llama), newline_ids(llama)) == ((1,), (4, 9))
    gpt2 = of({2: "Ċ", 3: "ĊĊ", 8: "<|endoftext|>"}, {8: "bos/eos <|endoftext|>"})
    assert (bos_ids(gpt2), newline_ids(gpt2)) == ((8,), (2,))
    # A piece that looks like a role is none.
    neither = of({1: "bos", 2: "a"}, {1: "special bos"})
    assert (bos_ids(neither), newline_ids(neither)) == ((), ())


@pytest.mark.parametrize(
    ("ids", "options", "code"),
    [
        ([], {}, "TICKET_EMPTY"),
        ([5, 5], {}, "ID_DUPLICATE"),
        ([40], {}, "ID_RANGE"),
        ([-1], {}, "ID_RANGE"),
        ([5], {"draws": 0}, "DRAWS"),
        ([5], {"seed": -1}, "SEED"),
        ([5], {"counts": np.ones(39, np.int64)}, "COUNTS_MALFORMED"),
        ([5], {"vocabulary": words(41)}, "TOKENIZER_TABLE_SIZE"),
        # More rows than there are ordinary tokens: BOS and two others belong to the ticket.
        (list(range(1, 40)), {}, "RULE_SIZE"),
        ([5], {"exclude": [Excluded("x", (40,))]}, "ID_RANGE"),
    ],
)
def test_refused_with_one_line(ids: list[int], options: dict[str, Any], code: str) -> None:
    usual: dict[str, Any] = {"vocabulary": words(40), "counts": np.ones(40, np.int64), "seed": 0}
    with pytest.raises(CertifyError) as caught:
        null_tickets(ids, scanned([1.0] * 40), **usual | options)
    assert caught.value.code == code
    assert "\n" not in str(caught.value)


def test_from_two_tables(tmp_path: Path) -> None:
    base = np.random.default_rng(3).normal(size=(20, 8)).astype(np.float32)
    tuned = base.copy()
    tuned[[6, 9, 12]] += np.array([[1.0], [3.0], [2.0]], np.float32)
    for name, values in (("base", base), ("tuned", tuned)):
        write_tensors(tmp_path / f"{name}.safetensors", {"embed_tokens.weight": ("F32", values)}, None)
    tables = [open_table(tmp_path / f"{name}.safetensors") for name in ("base", "tuned")]
    counts = np.arange(20, dtype=np.int64)
    nulls = null_tickets([6, 12], scan(*tables), vocabulary=words(20), counts=counts, seed=1, draws=1)
    top = {null.kind: null.ids for null in nulls}
    assert top["top-norm"] == (9, 12)
    assert top["top-frequency"] == (18, 19)
    assert [null.moved for null in nulls if null.kind == "top-norm"] == [2]
    assert [null.moved for null in nulls if null.kind == "top-frequency"] == [0]
