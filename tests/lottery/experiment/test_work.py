"""The work that estimates count is what a run feeds: positions through the layers and through the head."""

from __future__ import annotations

from collections import defaultdict
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the extra tune")
pytest.importorskip("peft", reason="needs the extra tune")

from transformers import LlamaForCausalLM  # noqa: E402

from certify.ticket.templates import encode, load_template  # noqa: E402
from lottery.experiment import driver as library  # noqa: E402
from lottery.experiment.engine.context import RunContext  # noqa: E402
from lottery.experiment.engine.inputs import InputDigests  # noqa: E402
from lottery.experiment.engine.speed import measure_speed  # noqa: E402
from lottery.experiment.layout.builder import SYNTHETIC_SIZES  # noqa: E402
from lottery.experiment.layout.layout import layout  # noqa: E402
from lottery.experiment.plan.estimate import ASSUMED, PROCESS, model_of  # noqa: E402
from lottery.experiment.plan.plan import ExperimentPlan, read_experiment  # noqa: E402
from lottery.model.tokenizer import load_tokenizer  # noqa: E402
from lottery.pretrain.synthetic import write_checkpoint, write_text  # noqa: E402
from lottery.text.pairsource import read_pairs  # noqa: E402
from lottery.text.textfile import locate, read_lines  # noqa: E402

# Rates are tiny: a model that learned to end its outputs would feed less than the plan says.
PLAN = """
name = "work"
seed = 0
base = "synthetic"
template = "explicit"
served_dtype = "fp32"
threads = 1
[[pair]]
source = "en"
target = "ca"
data = ["synthetic:train"]
choice = "synthetic:choice"
[tuning]
max_length = 256
micro_batch = 16
[embed]
lr = 1e-5
epochs = 2
batch = 32
[[ticket]]
id = "share"
share = "10/482"
objects = ["transfer"]
[[comparator]]
method = "lora"
lr = 1e-6
epochs = 1
batch = 32
[[text]]
name = "test"
data = "synthetic:test"
max_new_tokens = 7
attribution = "toy text made by the package"
[[text]]
name = "beams"
data = "synthetic:test"
max_new_tokens = 7
beams = 2
role = "report"
attribution = "toy text made by the package"
[unrelated]
data = "synthetic:unrelated.en"
limit = 10
block = 3
attribution = "toy text made by the package"
[evaluation]
batch = 5
margins = true
path = { n = 4, g = 1 }
[geometry]
vocabulary = 482
width = 64
layers = 2
intermediate = 96
heads = 4
kv_heads = 2
[estimate]
"""


def _sized(folder: Path) -> ExperimentPlan:
    """The plan, with the sizes of its text as they are."""
    write_checkpoint(folder / "base", seed=0)
    write_text(folder / "text", seed=0, **SYNTHETIC_SIZES)
    tokenizer, template = load_tokenizer(folder / "base"), load_template("explicit")

    def mean(name: str, *, response: bool) -> int:
        pairs = read_pairs(str(folder / "text" / name), "en", "ca")
        lengths = [len(one) for one in encode(template, pairs, tokenizer, "en", "ca", response=response)]
        return round(sum(lengths) / len(lengths))

    lines = [tokenizer(line)["input_ids"] for line in read_lines(locate(folder / "text" / "unrelated.en"))]
    sizes = {
        "tokens_per_pair": mean("train", response=True),
        "tuning_pairs": SYNTHETIC_SIZES["train"],
        "choice_pairs": SYNTHETIC_SIZES["choice"],
        "sentences": SYNTHETIC_SIZES["test"],
        "prompt_tokens": mean("test", response=False),
        "new_tokens": 7,
        "line_tokens": round(sum(map(len, lines)) / len(lines)),
    }
    path = folder / "plan.toml"
    path.write_text(PLAN + "".join(f"{name} = {value}\n" for name, value in sizes.items()))
    return read_experiment(path)


def test_counted_work_is_what_a_run_feeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fed: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    running = [""]
    forward = LlamaForCausalLM.forward

    @wraps(forward)  # transformers looks at its arguments
    def counting(model: Any, *args: Any, **given: Any) -> Any:
        output = forward(model, *args, **given)
        inputs = args[0] if args else given["input_ids"]
        width, mask = inputs.shape[1], given.get("attention_mask")
        positions = inputs.numel() if mask is None else int((mask[:, -width:] != 0).sum())
        what = "train" if torch.is_grad_enabled() else "decode" if width == 1 else "read"
        found = fed[running[0]]
        found[what] += positions
        found[f"{what} head"] += output.logits[..., 0].numel()
        found["steps"] += what == "decode"
        return output

    monkeypatch.setattr(LlamaForCausalLM, "forward", counting)
    plan = _sized(tmp_path)

    def report(line: Any) -> None:
        running[0] = line.step

    library.run(plan, tmp_path / "out", device="cpu", report=report)
    works = {
        step.name: step.work
        for step in layout(plan, RunContext(None, None), InputDigests("", None, required=False)).steps
    }
    assert {name for name, found in fed.items() if found} == {
        name for name, work in works.items() if work.kind in ("tune", "decode", "loss")
    }
    for name, found in fed.items():
        work = works[name]
        # That half of a prompt is fed once is a guess; all else is exact but for rounded means. An arm
        # decodes less where its answers begin as the reference's.
        most = "/measure/test/" in name and not name.endswith("/reference")
        for what, passes in (("train", work.train), ("read", work.read), ("decode", work.decode)):
            rough = 0.15 if work.kind == "decode" and what == "read" else 0.04
            for counted, key in ((passes.layers, what), (passes.head, f"{what} head")):
                if most:
                    assert found[key] <= (1 + rough) * counted, (name, key)
                else:
                    assert counted == pytest.approx(found[key], rel=max(rough, 0.1 * (key != what))), (
                        name,
                        key,
                    )
        assert found["steps"] <= work.steps if most else found["steps"] == work.steps, name
        if most:  # these arms hardly moved: nearly all of their answers are the reference's
            assert found["decode"] <= work.decode.layers // 10, name


def test_rates_are_measured_with_a_model_that_is_at_hand_and_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = _sized(tmp_path)
    model = model_of(tmp_path / "base", None)
    speed = measure_speed(plan, tmp_path / "base", model, "cpu")
    assert speed.measured
    assert speed.rates.keys() == ASSUMED["cpu"].keys()
    assert all(rate >= 0 for rate in speed.rates.values())
    there = plan.model_copy(update={"base": str(tmp_path / "base")})

    def bases(plan: ExperimentPlan) -> set[str]:
        rows = library.dry_run(plan, device="cpu", measure=True)
        return {one.basis for one in (row.estimate for row in rows) if one and one.memory > PROCESS}

    assert bases(there) == {"measured"}
    assert bases(plan) == {"assumed"}  # a base that a step makes is not there yet
    monkeypatch.setattr(library, "machine_memory", lambda _: PROCESS)
    assert bases(there) == {"assumed"}
