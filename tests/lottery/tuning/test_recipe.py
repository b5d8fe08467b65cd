"""Recipes and the learning rate, against values worked out by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certify.base.errors import UsageError
from lottery.tuning.recipe import RECIPES, Recipe, learning_rate, mode


def recipe(**changes: object) -> Recipe:
    return Recipe(**({"learning_rate": 2.0, "epochs": 1, "batch_size": 1} | changes))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        # Ten steps, two of them warm-up (ceil of .15 * 10); the eight that follow start at the peak.
        ("constant", [1.0, 2.0] + [2.0] * 8),
        ("linear", [1.0, 2.0, 2.0, 1.75, 1.5, 1.25, 1.0, 0.75, 0.5, 0.25]),
        ("cosine", [1.0, 2.0] + [1 + math.cos(math.pi * k / 8) for k in range(8)]),
    ],
)
def test_schedules(schedule: str, expected: list[float]) -> None:
    chosen = recipe(schedule=schedule, warmup=0.15)
    assert [learning_rate(chosen, step, 10) for step in range(10)] == pytest.approx(expected)


@given(
    steps=st.integers(1, 400),
    warmup=st.floats(0, 0.99),
    schedule=st.sampled_from(["cosine", "linear", "constant"]),
)
def test_rate_stays_in_range_rises_then_never_rises_again(steps: int, warmup: float, schedule: str) -> None:
    chosen = recipe(schedule=schedule, warmup=warmup)
    rates = [learning_rate(chosen, step, steps) for step in range(steps)]
    assert all(0 < rate <= 2.0 for rate in rates)
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_defaults_are_those_reported_for_the_paper() -> None:
    embed, partial = RECIPES["embed"], RECIPES["partial"]
    assert (embed.learning_rate, embed.epochs, embed.batch_size) == (2e-5, 3, 128)
    assert (embed.schedule, embed.warmup, embed.weight_decay) == ("cosine", 0.03, 0.0)
    assert (partial.learning_rate, partial.epochs, partial.weight_decay) == (1e-2, 5, 0.0)
    assert (partial.schedule, partial.batch_size, partial.clip) == ("constant", 64, 1.0)


def test_every_mode_has_a_recipe() -> None:
    modes = [mode("rows", all_rows=True), mode("rows", all_rows=False)]
    modes += [mode(method, all_rows=False) for method in ("full", "lora", "prefix")]
    assert sorted(modes) == sorted(RECIPES)
    assert modes[:2] == ["embed", "partial"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"learning_rate": math.inf},
        {"learning_rate": 1e38},
        {"epochs": 0},
        {"batch_size": 0},
        {"schedule": "cosinus"},
        {"warmup": 1.0},
        {"warmup": -0.1},
        {"weight_decay": -1.0},
        {"weight_decay": math.nan},
        {"weight_decay": 1e9},
        {"clip": 0.0},
        {"clip": math.nan},
        {"beta1": 1.0},
        {"beta2": -0.1},
        {"epsilon": 0.0},
        {"epsilon": 1e39},
    ],
)
def test_out_of_range_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError) as caught:
        recipe(**wrong)
    assert caught.value.code == "RECIPE_RANGE"
