"""Every value of ``--rows``, against ids worked out here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from certify.base.errors import CertifyError, InvalidInputError, UsageError
from certify.tables.safefile import write_tensors
from certify.tables.table import Table, open_table
from certify.tables.vocabulary import Vocabulary, open_vocabulary
from certify.ticket.make import find
from lottery.tuning.rowspec import choose_rows

ROWS, WIDTH = 24, 8
SPECIAL, BEYOND = {0, 1, 2}, {22, 23}  # the tokenizer below has 22 tokens


def write_table(path: Path, values: NDArray[np.float32]) -> Path:
    write_tensors(path, {"model.embed_tokens.weight": ("F32", values)}, None)
    return path


@pytest.fixture
def values() -> NDArray[np.float32]:
    return np.random.default_rng(5).normal(size=(ROWS, WIDTH)).astype(np.float32)


@pytest.fixture
def base(tmp_path: Path, values: NDArray[np.float32]) -> Table:
    return open_table(write_table(tmp_path / "base.safetensors", values))


@pytest.fixture
def vocabulary(tmp_path: Path) -> Vocabulary:
    pieces = ["<unk>", "<s>", "</s>", *(f"piece{i}" for i in range(3, 22))]
    added = [{"id": i, "content": pieces[i], "special": True} for i in sorted(SPECIAL)]
    model = {"type": "BPE", "vocab": {piece: i for i, piece in enumerate(pieces)}, "merges": []}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model, "added_tokens": added}))
    return open_vocabulary(tmp_path)


def never(_: str) -> NDArray[np.int64]:
    raise AssertionError("counts are only needed for frequency:k")


def test_all_means_embed_tuning(base: Table, vocabulary: Vocabulary) -> None:
    chosen = choose_rows("all", base, vocabulary=vocabulary, counts=never)
    assert (chosen.rule, chosen.ids, chosen.excluded) == ("all", None, ())


def test_ids_are_taken_as_named_specials_too(base: Table, vocabulary: Vocabulary) -> None:
    chosen = choose_rows("ids:9,1,4", base, vocabulary=vocabulary, counts=never)
    assert chosen.ids == (1, 4, 9)
    assert chosen.rule == "ids:1,4,9"


@pytest.mark.parametrize("seed", [0, 1, 20])
def test_random_is_the_documented_ranking_without_specials(
    base: Table, vocabulary: Vocabulary, seed: int
) -> None:
    chosen = choose_rows("random:5", base, vocabulary=vocabulary, counts=never, seed=seed)
    allowed = set(range(ROWS)) - SPECIAL - BEYOND
    ranked = sorted(allowed, key=lambda i: hashlib.sha256(f"{seed}:{i}".encode()).hexdigest())
    assert chosen.ids == tuple(sorted(ranked[:5]))
    named = {i for group in chosen.excluded for i in group.ids}
    assert named == SPECIAL | BEYOND


def test_frequency_counts_what_is_fed(base: Table, vocabulary: Vocabulary) -> None:
    counts = np.zeros(ROWS, np.int64)
    counts[[1, 5, 6, 7, 23]] = [90, 3, 8, 3, 50]
    chosen = choose_rows("frequency:2", base, vocabulary=vocabulary, counts=lambda _: counts)
    assert chosen.ids == (5, 6)  # 1 is special, 23 no token; 5 before 7 on equal counts


def test_norm_takes_the_rows_that_moved_most(
    tmp_path: Path, base: Table, values: NDArray[np.float32], vocabulary: Vocabulary
) -> None:
    tuned = values.copy()
    for row, size in {1: 9.0, 4: 0.5, 11: 2.0, 12: 1.0}.items():
        tuned[row, 0] += size
    path = write_table(tmp_path / "tuned.safetensors", tuned)
    chosen = choose_rows("norm:2", base, vocabulary=vocabulary, counts=never, reference=path)
    assert chosen.ids == (11, 12)
    assert chosen.reference == open_table(path).digest()


def test_distance_takes_the_rows_whose_distribution_moved_most(
    tmp_path: Path, base: Table, values: NDArray[np.float32], vocabulary: Vocabulary
) -> None:
    tuned = values.copy()
    tuned[1] += 9  # special
    tuned[4, 0] += 1000  # far, but a single entry: h = 1
    tuned[11] += 9  # beyond every entry: h = n
    tuned[12, :4] += 9
    path = write_table(tmp_path / "tuned.safetensors", tuned)
    chosen = choose_rows("distance:2", base, vocabulary=vocabulary, counts=never, reference=path)
    assert chosen.ids == (11, 12)
    assert chosen.reference == open_table(path).digest()


def test_norm_compares_in_the_dtype_of_the_base(tmp_path: Path, values: NDArray[np.float32]) -> None:
    half = tmp_path / "half.safetensors"
    write_tensors(half, {"model.embed_tokens.weight": ("F16", values.astype(np.float16))}, None)
    tuned = values.astype(np.float16).astype(np.float32)
    tuned[3, 0] += 1e-6  # lost in fp16: this row has not moved as it would be served
    tuned[7, 0] += 0.5
    path = write_table(tmp_path / "tuned.safetensors", tuned)
    chosen = choose_rows("norm:1", open_table(half), vocabulary=None, counts=never, reference=path)
    assert chosen.ids == (7,)
    with pytest.raises(UsageError, match="only 1 moved"):
        choose_rows("norm:2", open_table(half), vocabulary=None, counts=never, reference=path)


@pytest.fixture
def ticket(tmp_path: Path, values: NDArray[np.float32]) -> Path:
    tuned = values.copy()
    tuned[[4, 9]] += 1.0
    write_table(tmp_path / "base.safetensors", values)
    reference = write_table(tmp_path / "reference.safetensors", tuned)
    out = tmp_path / "tickets.json"
    find(tmp_path / "base.safetensors", reference, out=out, ticket_id="two", rule="ids:4,9")
    find(tmp_path / "base.safetensors", reference, out=out, ticket_id="one", rule="ids:9")
    return out


def test_ticket_gives_its_ids_and_its_digest(base: Table, ticket: Path) -> None:
    chosen = choose_rows(f"ticket:{ticket}#two", base, vocabulary=None, counts=never)
    assert chosen.ids == (4, 9)
    assert chosen.rule == "ticket:two"
    assert chosen.ticket is not None
    assert len(chosen.ticket) == 64
    other = choose_rows(f"ticket:{ticket}#one", base, vocabulary=None, counts=never)
    assert other.ticket != chosen.ticket


def test_ticket_of_another_base_is_refused(tmp_path: Path, ticket: Path, values: NDArray[np.float32]) -> None:
    values[17, 3] += 1e-3
    other = open_table(write_table(tmp_path / "other.safetensors", values))
    with pytest.raises(InvalidInputError) as caught:
        choose_rows(f"ticket:{ticket}#two", other, vocabulary=None, counts=never)
    assert caught.value.code == "WRONG_BASE"


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        ("", "ROWS_UNKNOWN"),
        ("ALL", "ROWS_UNKNOWN"),
        ("all:", "ROWS_UNKNOWN"),
        ("ks", "ROWS_UNKNOWN"),
        ("random", "RULE_MALFORMED"),
        ("random:0", "RULE_MALFORMED"),
        ("random:-3", "RULE_MALFORMED"),
        ("random:25", "RULE_SIZE"),
        ("ids:", "RULE_MALFORMED"),
        ("ids:-1", "RULE_MALFORMED"),
        ("ids:4,4", "ID_DUPLICATE"),
        ("ids:24", "ID_RANGE"),
        ("norm:3", "ROWS_OPTION"),
        ("distance:3", "ROWS_OPTION"),
        ("published:en-ca", "PUBLISHED_MISMATCH"),
        ("published:en-xx", "PUBLISHED_UNKNOWN"),
        ("ticket:", "FILE_UNREADABLE"),
        ("ticket:/nowhere/tickets.json#x", "FILE_UNREADABLE"),
    ],
)
def test_refused_with_one_line(base: Table, spec: str, code: str) -> None:
    with pytest.raises(CertifyError) as caught:
        choose_rows(spec, base, vocabulary=None, counts=never, seed=0)
    assert caught.value.code == code
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "attempt",
    [
        lambda base: choose_rows("random:3", base, vocabulary=None, counts=never),
        lambda base: choose_rows("all", base, vocabulary=None, counts=never, reference=Path("x")),
    ],
)
def test_missing_and_unused_options_are_refused(base: Table, attempt: Callable[[Table], object]) -> None:
    with pytest.raises(UsageError) as caught:
        attempt(base)
    assert caught.value.code == "ROWS_OPTION"


def test_published_rows_are_those_that_ship(tmp_path: Path) -> None:
    table = tmp_path / "llama1.npy"
    np.save(table, np.zeros((32000, 1), np.float32))
    chosen = choose_rows("published:en-da", open_table(table), vocabulary=None, counts=never)
    assert chosen.ids == (13, 263, 278, 297, 304, 310, 322, 29871, 29889, 29892, 29896, 29900)
