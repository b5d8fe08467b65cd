"""Batches: every example once, limits kept, the order a function of seed and epoch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from certify.base.errors import UsageError
from certify.ticket.templates import IGNORED, Example, Span

torch = pytest.importorskip("torch")

from lottery.tuning.batching import collate, plan_batches  # noqa: E402

LENGTHS = st.lists(st.integers(1, 50), max_size=80)


@given(LENGTHS, st.integers(0, 3), st.integers(0, 2), st.integers(1, 9))
def test_every_example_once_within_the_limits(lengths: list[int], seed: int, epoch: int, size: int) -> None:
    batches = plan_batches(lengths, seed=seed, epoch=epoch, size=size)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert all(0 < len(batch) <= size for batch in batches)
    assert sum(len(batch) < size for batch in batches) == bool(len(lengths) % size)
    assert batches == plan_batches(lengths, seed=seed, epoch=epoch, size=size)


def test_seed_and_epoch_change_the_order() -> None:
    lengths = [5] * 60

    def order(seed: int, epoch: int) -> list[int]:
        return [i for batch in plan_batches(lengths, seed=seed, epoch=epoch, size=4) for i in batch]

    assert len({tuple(order(seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4


def test_batches_are_full_but_for_the_rest_and_not_in_order_of_length() -> None:
    rng = np.random.default_rng(3)
    lengths = [int(length) for length in rng.integers(5, 60, size=1000)]
    batches = plan_batches(lengths, seed=1, epoch=0, size=16)
    assert sum(len(batch) == 16 for batch in batches) == 62
    padded = sum(len(batch) * max(lengths[index] for index in batch) for batch in batches)
    assert sum(lengths) / padded > 0.95
    unsorted = [list(range(start, min(start + 16, 1000))) for start in range(0, 1000, 16)]
    plain = sum(len(batch) * max(lengths[index] for index in batch) for batch in unsorted)
    assert padded < 0.7 * plain
    means = [np.mean([lengths[index] for index in batch]) for batch in batches]
    assert abs(np.corrcoef(np.arange(len(means)), means)[0, 1]) < 0.5


def test_impossible_limits() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        plan_batches([1], seed=0, epoch=0, size=0)
    assert plan_batches([], seed=0, epoch=0, size=8) == []


def test_padding_is_on_the_right_masked_and_without_label() -> None:
    nowhere = Span(0, 0)
    examples = [
        Example("a", (1, 7, 8, 2), 2, nowhere, nowhere, Span(2, 3)),
        Example("b", (1, 2), 1, nowhere, nowhere, Span(1, 1)),
    ]
    batch = {name: value.tolist() for name, value in collate(examples, torch.device("cpu")).items()}
    assert batch["input_ids"] == [[1, 7, 8, 2], [1, 2, 0, 0]]
    assert batch["attention_mask"] == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch["labels"] == [[IGNORED, IGNORED, 8, 2], [IGNORED, 2, IGNORED, IGNORED]]
    assert batch["positions"] == [1, 2, 4]
