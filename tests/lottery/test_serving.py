"""The gate of margins: marks of greedy generation against a slow loop, and what it refuses."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the extra tune")
pytest.importorskip("transformers", reason="needs the extra tune")

from slow_decoding import forced, greedy, plainly  # noqa: E402
from tiny_llama import save_checkpoint  # noqa: E402
from transformers import LogitsProcessorList  # noqa: E402

from certify.base.errors import UsageError  # noqa: E402
from lottery.evaluation.forced_decoding import two_largest  # noqa: E402
from lottery.model.backbone import load_backbone  # noqa: E402
from lottery.serving import MarginGate, least, unsure  # noqa: E402

PROMPTS = ((1, 5, 9, 12), (1, 7), (1, 11, 6, 13, 8, 10))
END, NEW = 2, 8


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_backbone(save_checkpoint(tmp_path_factory.mktemp("base")), "F32").eval()


def generate(model: Any, gate: MarginGate, ends: int = END, **settings: Any) -> Any:
    """All prompts in one batch, padded on the left with the end token."""
    width = max(map(len, PROMPTS))
    ids = torch.tensor([[END] * (width - len(prompt)) + list(prompt) for prompt in PROMPTS])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in PROMPTS])
    options = {"do_sample": False, "eos_token_id": ends, "pad_token_id": END} | settings
    options["max_new_tokens"] = NEW
    processors = LogitsProcessorList([gate, *options.pop("later", [])])
    made = model.generate(input_ids=ids, attention_mask=mask, logits_processor=processors, **options)
    return made[:, width:].tolist()


def slow(model: Any, ends: int) -> list[list[Fraction]]:
    """Margins of each prompt by itself, without padding, up to the end token."""
    logits = plainly(model)
    found = []
    for prompt in PROMPTS:
        answer = greedy(logits, prompt, NEW, ends)
        tops = [step.double().softmax(0).topk(2).values.tolist() for step in forced(logits, prompt, answer)]
        found.append([Fraction(first - second) for first, second in tops])
    return found


def test_marks_are_those_of_a_slow_loop(model: Any) -> None:
    ends = greedy(plainly(model), PROMPTS[1], NEW, END)[2]  # so that sequences end at different steps
    margins = slow(model, ends)
    assert len({len(one) for one in margins}) > 1
    every = sorted(margin for one in margins for margin in one)
    # Between two neighbours, so that rounding in batches decides nothing.
    low, high = max(pairwise(every), key=lambda pair: pair[1] - pair[0])
    for t in (f"{float((low + high) / 2):.9f}", "0.000000001", "0.999999999"):
        gate = MarginGate(t, end=ends)
        generate(model, gate, ends)
        wanted = [[step for step, one in enumerate(steps) if one < Fraction(t)] for steps in margins]
        assert gate.unsure() == wanted
    assert wanted == [list(range(len(steps))) for steps in margins]


@pytest.mark.parametrize(
    "settings",
    [{"num_beams": 2}, {"do_sample": True, "temperature": 50.0}, {"later": [lambda _, logits: -logits]}],
    ids=["beams", "sampling", "a processor behind it"],
)
def test_other_decoding_is_refused(model: Any, settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    with pytest.raises(UsageError) as error:
        generate(model, MarginGate("0.5", end=END), **settings)
    assert error.value.code == "GREEDY_ONLY"


def test_a_gate_serves_one_call(model: Any) -> None:
    gate = MarginGate("0.5", end=END)
    assert gate.unsure() == []
    generate(model, gate)
    with pytest.raises(UsageError):
        generate(model, gate)


def test_logarithms_of_another_engine_decide_alike() -> None:
    logits = torch.randn(200, 7, generator=torch.Generator().manual_seed(3)) * 4
    p_a, p_b = two_largest(logits)
    tops = logits.double().log_softmax(-1).topk(2).values.tolist()
    t = "0.5"
    margins = (p_a - p_b).clamp(min=0).tolist()
    assert unsure(t, tops) == [step for step, margin in enumerate(margins) if margin < least(t)]
    assert 50 < len(unsure(t, tops)) < 150
    exact = [(math.log(0.95), math.log(0.05)), (math.log(0.96), math.log(0.04))]
    assert unsure("0.91", exact) == [0]


@pytest.mark.parametrize(
    "top",
    [(-2.0, -1.0), (0.1, -3.0), (math.nan, -1.0), (-1.0, math.nan)],
    ids=["order", "above", "nan", "second"],
)
def test_malformed_logarithms_are_refused(top: tuple[float, float]) -> None:
    with pytest.raises(UsageError) as error:
        unsure("0.5", [top])
    assert error.value.code == "LOGPROBS"


@pytest.mark.parametrize("t", ["0", "1", "1.5", "-0.5", "0.1234567891", "half", "nan"])
def test_a_margin_out_of_range_is_refused(t: str) -> None:
    with pytest.raises(UsageError) as error:
        MarginGate(t, end=END)
    assert error.value.code == "MARGIN_RANGE"
