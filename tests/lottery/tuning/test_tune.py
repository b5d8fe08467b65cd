"""Tuning from files to files: against a plain loop written here, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra tune")
pytest.importorskip("transformers", reason="needs the extra tune")
pytest.importorskip("accelerate", reason="needs the extra tune")

from command import following, in_process  # noqa: E402
from tiny_llama import PIECES, save_checkpoint, tiny_llama, write_pairs  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

from certify.base.errors import CertifyError, InvalidInputError, NothingToDoError, UsageError  # noqa: E402
from certify.tables.rowfile import read_rows  # noqa: E402
from certify.tables.safefile import open_tensor  # noqa: E402
from certify.ticket.schema import read_ticket_file  # noqa: E402
from lottery.cli.tune import tune as tune_command  # noqa: E402
from lottery.model.device import bf16_slowdown, lone_launch  # noqa: E402
from lottery.text.tunedata import Data  # noqa: E402
from lottery.text.usedtext import read_used_list  # noqa: E402
from lottery.tuning import trainer as trainer_module  # noqa: E402
from lottery.tuning.batching import plan_batches  # noqa: E402
from lottery.tuning.recipe import Recipe  # noqa: E402
from lottery.tuning.trainer import Limits, StepReport  # noqa: E402
from lottery.tuning.tune import Settings, tune  # noqa: E402

ROWS = len(PIECES) + 1  # one row beyond the tokenizer
NEWLINE, SPACE, COLON = PIECES.index("\n"), PIECES.index(" "), PIECES.index(":")
TABLE = "model.embed_tokens.weight"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("base"), vocab_size=ROWS)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    write_pairs(folder / "dev", 6, first=100)
    return write_pairs(folder / "train", 21)


def settings_for(text: Path, **changes: object) -> Settings:
    recipe = Recipe(learning_rate=1e-2, epochs=2, batch_size=8, schedule="linear", warmup=0.2, clip=0.5)
    data = Data((str(text),), "en", "ca", "labels", max_length=120)
    return Settings(**({"data": data, "recipe": recipe, "limits": Limits(8), "seed": 3} | changes))


def run(base: Path, settings: Settings, out: Path, **options: object) -> object:
    return tune(str(base), settings, out, device="cpu", **options)


def characters(text: str) -> list[int]:
    return [PIECES.index(character) for character in text]


def assert_public(folder: Path) -> None:
    """Every file has the permissions that open() gives."""
    plain = folder.with_name("plain")
    plain.write_text("")
    modes = {path.name: path.stat().st_mode for path in folder.rglob("*") if path.is_file()}
    assert len(modes) > 2
    assert modes == dict.fromkeys(modes, plain.stat().st_mode)


def plain_loop(base: Path, text: Path, ids: list[int] | None) -> tuple[np.ndarray, list[dict[str, float]]]:
    """Embed or partial tuning in plain PyTorch: full table, masked gradient, the model's own loss.

    Gives the table and, for every step, what the metrics should say.
    """
    english, catalan = (text.with_suffix(f".{code}").read_text().splitlines() for code in ("en", "ca"))
    examples = []
    for source, target in zip(english, catalan, strict=True):
        prompt = [1, *characters(f"English: {source}\nCatalan:")]
        answer = [*characters(f" {target}"), 2]
        examples.append((prompt + answer, [-100] * len(prompt) + answer))
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model.requires_grad_(False)
    table = model.model.embed_tokens.weight.requires_grad_(True)
    mask = torch.ones(ROWS, 1)
    if ids is not None:
        mask = torch.zeros(ROWS, 1)
        mask[ids] = 1
    optimiser = torch.optim.AdamW([table], lr=1e-2, weight_decay=0.0)
    metrics: list[dict[str, float]] = []
    steps, taken = 2 * math.ceil(len(examples) / 8), 0
    warm = math.ceil(0.2 * steps)
    for epoch in range(2):
        for batch in plan_batches([len(x) for x, _ in examples], seed=3, epoch=epoch, size=8):
            width = max(len(examples[i][0]) for i in batch)
            inputs = torch.tensor([examples[i][0] + [0] * (width - len(examples[i][0])) for i in batch])
            labels = torch.tensor([examples[i][1] + [-100] * (width - len(examples[i][1])) for i in batch])
            seen = torch.tensor(
                [[1] * len(examples[i][0]) + [0] * (width - len(examples[i][0])) for i in batch]
            )
            loss = model(input_ids=inputs, attention_mask=seen, labels=labels).loss
            loss.backward()
            table.grad *= mask
            # Adam and clipping both hide the scale of a gradient: its norm is compared on its own.
            norm = torch.nn.utils.clip_grad_norm_([table], 0.5)
            metrics.append({"loss": loss.item(), "gradient_norm": norm.item()})
            falling = 1 - (taken - warm) / (steps - warm)
            optimiser.param_groups[0]["lr"] = 1e-2 * ((taken + 1) / warm if taken < warm else falling)
            optimiser.step()
            optimiser.zero_grad()
            taken += 1
    return table.detach().numpy(), metrics


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("rows", ["all", f"ids:{SPACE},{ROWS - 1}"])
def test_rows_that_are_never_fed_end_as_the_base_has_them(
    text: Path, tmp_path: Path, dtype: str, rows: str
) -> None:
    # Whatever the backbone is rounded to in memory: otherwise every row would seem to have moved.
    base = save_checkpoint(tmp_path / "base", torch.float16, vocab_size=ROWS)
    stored = np.asarray(open_tensor(base / "model.safetensors", TABLE)).astype(np.float32)
    run(base, settings_for(text, dtype=dtype, rows=rows, allow_beyond=True), tmp_path / "out")
    unfed = ROWS - 1
    if rows == "all":
        table = np.asarray(open_tensor(tmp_path / "out" / "embed_tokens.safetensors", TABLE))
        assert np.array_equal(table[unfed], stored[unfed])
        assert not np.array_equal(table[SPACE], stored[SPACE])
    else:
        trained = read_rows(tmp_path / "out" / "rows.safetensors")
        assert np.array_equal(trained.fp32[1], stored[unfed])


def assert_metrics(folder: Path, expected: list[dict[str, float]]) -> None:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line, values in zip(lines, expected, strict=True):
        assert {name: line[name] for name in values} == pytest.approx(values, rel=1e-4)


@pytest.mark.parametrize("micro_batch", [8, 3])
def test_embed_tuning_equals_a_plain_loop(base: Path, text: Path, tmp_path: Path, micro_batch: int) -> None:
    run(base, settings_for(text, limits=Limits(micro_batch)), tmp_path / "run")
    table = open_tensor(tmp_path / "run" / "embed_tokens.safetensors", TABLE)
    expected, metrics = plain_loop(base, text, None)
    start = open_tensor(base / "model.safetensors", TABLE)
    assert np.abs(expected - start).max() > 1e-2
    np.testing.assert_allclose(table, expected, rtol=0, atol=1e-5)
    assert_metrics(tmp_path / "run", metrics)


@pytest.mark.parametrize("micro_batch", [8, 1])
def test_partial_tuning_equals_a_plain_loop(base: Path, text: Path, tmp_path: Path, micro_batch: int) -> None:
    ids = sorted([NEWLINE, SPACE, COLON])
    spec = "ids:" + ",".join(str(i) for i in ids)
    run(base, settings_for(text, rows=spec, limits=Limits(micro_batch)), tmp_path / "run")
    rows = read_rows(tmp_path / "run" / "rows.safetensors")
    assert rows.ids.tolist() == ids
    expected, metrics = plain_loop(base, text, ids)
    np.testing.assert_allclose(rows.fp32, expected[ids], rtol=0, atol=1e-5)
    assert_metrics(tmp_path / "run", metrics)


def test_gradient_checkpointing_and_the_order_of_sources_change_nothing(
    base: Path, text: Path, tmp_path: Path
) -> None:
    settings = settings_for(text, rows="frequency:3")
    run(base, settings, tmp_path / "plain")
    run(base, replace(settings, gradient_checkpointing=True), tmp_path / "checkpointed")
    first, second = (read_rows(tmp_path / name / "rows.safetensors") for name in ("plain", "checkpointed"))
    np.testing.assert_allclose(first.fp32, second.fp32, rtol=0, atol=1e-6)


def test_autocast_computes_in_bf16_and_stays_close(base: Path, text: Path, tmp_path: Path) -> None:
    settings = settings_for(text, rows="frequency:3")
    plain = run(base, settings, tmp_path / "plain")
    cast = run(base, replace(settings, limits=Limits(8, autocast=True)), tmp_path / "cast")
    assert cast.loss != plain.loss
    assert cast.loss == pytest.approx(plain.loss, rel=0.02)


@pytest.mark.parametrize(("stored", "name"), [(torch.float16, "F16"), (torch.bfloat16, "BF16")])
def test_rows_are_served_in_the_dtype_of_the_base(
    text: Path, tmp_path: Path, stored: torch.dtype, name: str
) -> None:
    base = save_checkpoint(tmp_path / "base", stored, vocab_size=ROWS)
    for dtype in ("F32", "BF16"):
        save_memory = dtype == "BF16"
        settings = settings_for(text, rows="random:4", dtype=dtype, gradient_checkpointing=save_memory)
        run(base, settings, tmp_path / dtype)
        rows = read_rows(tmp_path / dtype / "rows.safetensors")
        assert rows.dtype == name
        expected = torch.from_numpy(rows.fp32).to(stored).view(torch.int16).numpy()
        assert rows.served.view(np.int16).tolist() == expected.tolist()


def test_the_command_named_last_takes_what_was_made(
    base: Path,
    text: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A table is compared; rows tuned on their own become a ticket, which releases them."""
    monkeypatch.chdir(tmp_path)
    tuned = ["tune", "--base", base, "--data", text, "--source", "en", "--target", "ca", "--seed", 0]
    tuned += ["--template", "labels", "--max-length", 120, "--epochs", 1, "--device", "cpu"]
    whole = in_process([*tuned, "--out", "all"], capsys)
    assert in_process(following(whole.out), capsys).code == 0
    table = tmp_path / "all" / "embed_tokens.safetensors"
    rows = in_process([*tuned, "--rows", "norm:2", "--reference", table, "--out", "two"], capsys)
    assert in_process(following(rows.out), capsys).code == 0
    (released,) = read_ticket_file(tmp_path / "tickets.json").tickets
    wanted = read_rows(tmp_path / "two" / "rows.safetensors")
    assert (released.released.object, released.ids) == ("tuned", tuple(wanted.ids))


def test_run_record_and_metrics(base: Path, text: Path, tmp_path: Path) -> None:
    steps: list[StepReport] = []
    held_out = Data((str(text),), "en", "ca", "labels", held_out=str(text.with_name("dev")), max_length=120)
    outcome = run(
        base, settings_for(text, rows="ids:1,3", data=held_out), tmp_path / "run", report=steps.append
    )
    assert (outcome.trainable, outcome.steps, outcome.examples) == (2 * 32, 6, 21)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "complete"
    assert record["outcome"]["trainable"] == 2 * 32
    assert record["identity"]["rows"]["ids"] == [1, 3]
    assert len(record["identity"]["inputs"]["weights"]["model.safetensors"]) == 64
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6] == [step.step for step in steps]
    assert [line["step"] for line in lines if "held_out" in line] == [3, 6]
    assert lines[-1]["held_out"] < lines[2]["held_out"]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "counts.npy",
        "metrics.jsonl",
        "rows.safetensors",
        "run.json",
        "used.txt",
    ]


def test_held_out_loss_is_the_models_own(base: Path, text: Path, tmp_path: Path) -> None:
    data = Data((str(text),), "en", "ca", "labels", held_out=str(text.with_name("dev")), max_length=120)
    recipe = Recipe(learning_rate=1e-30, epochs=1, batch_size=64)  # nothing moves
    outcome = run(base, settings_for(text, data=data, recipe=recipe, rows="ids:5"), tmp_path / "run")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    total, count = 0.0, 0
    lines = [text.with_name(f"dev.{code}").read_text().splitlines() for code in ("en", "ca")]
    for source, target in zip(*lines, strict=True):
        prompt, answer = [1, *characters(f"English: {source}\nCatalan:")], [*characters(f" {target}"), 2]
        labels = torch.tensor([[-100] * len(prompt) + answer])
        loss = model(input_ids=torch.tensor([prompt + answer]), labels=labels).loss
        total, count = total + loss.item() * len(answer), count + len(answer)
    assert outcome.held_out == pytest.approx(total / count, rel=1e-5)


def test_held_out_and_repeated_sentences_leave_the_training_text(
    base: Path, text: Path, tmp_path: Path
) -> None:
    data = Data((str(text), str(text)), "en", "ca", "labels", held_out=str(text), max_length=120)
    with pytest.raises(NothingToDoError) as caught:
        run(base, settings_for(text, data=data), tmp_path / "run")
    assert caught.value.code == "NO_EXAMPLES"
    assert "21 repeated, 21 held out" in str(caught.value)
    outcome = run(base, settings_for(text, data=replace(data, held_out=None)), tmp_path / "run")
    assert (outcome.examples, outcome.left_out) == (21, {"repeated": 21})


def test_a_target_that_would_end_itself_is_not_trained_on(base: Path, text: Path, tmp_path: Path) -> None:
    for code, line in (("en", "one two\n"), ("ca", "u</s> dos\n")):
        lines = text.with_name(f"train.{code}").read_text()
        (tmp_path / f"more.{code}").write_text(line + lines)
    outcome = run(base, settings_for(tmp_path / "more", rows="ids:5"), tmp_path / "run")
    assert (outcome.examples, outcome.left_out) == (21, {"holding a control token": 1})


def test_the_sentences_that_were_trained_on_are_listed(base: Path, text: Path, tmp_path: Path) -> None:
    """As certify evaluate --used takes them; sentences that are too long were not trained on."""
    from lottery.cli.evaluate import _used

    lines = [text.with_name(f"train.{code}").read_text().splitlines() for code in ("en", "ca")]
    lengths = [
        1 + len(characters(f"English: {en}\nCatalan: {ca}")) + 1 for en, ca in zip(*lines, strict=True)
    ]
    limit = sorted(set(lengths))[-2]
    data = Data((str(text), str(text)), "en", "ca", "labels", max_length=limit)
    outcome = run(base, settings_for(text, data=data, rows="ids:5"), tmp_path / "run")
    kept = [side[i] for i, length in enumerate(lengths) if length <= limit for side in lines]
    assert outcome.examples == len(kept) / 2 < len(lengths)
    short = len(kept) // 2
    assert outcome.left_out == {
        "repeated": len(lengths),
        "longer than --max-length": len(lengths) - short,
    }
    plain = ["".join(c for c in sentence.casefold() if c.isalnum()).encode() for sentence in kept]
    wanted = sorted({hashlib.sha256(sentence).hexdigest()[:16] for sentence in plain})
    path = tmp_path / "run" / "used.txt"
    assert path.read_text() == "".join(f"{digest}\n" for digest in wanted)
    recorded = json.loads((tmp_path / "run" / "run.json").read_text())["outcome"]["used"]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert recorded == {"path": "used.txt", "sha256": digest, "count": len(wanted)}
    found = _used(f"tuning={path}", ("en", "ca"))
    assert (found.role, found.digests) == ("tuning", frozenset(wanted))
    table = np.array(open_tensor(base / "model.safetensors", "model.embed_tokens.weight"))
    table[5] = read_rows(tmp_path / "run" / "rows.safetensors").fp32[0]
    served = {
        "F32": table.tobytes(),
        "F16": table.astype("<f2").tobytes(),
        "BF16": torch.from_numpy(table).bfloat16().view(torch.int16).numpy().tobytes(),
    }
    shape = list(table.shape)
    heads = {dtype: json.dumps({"dtype": dtype, "shape": shape}, separators=(",", ":")) for dtype in served}
    assert found.tables == {
        hashlib.sha256(heads[dtype].encode() + b"\n" + values).hexdigest() for dtype, values in served.items()
    }


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"0123456789abcdef",
        b"0123456789abcdeF\n",
        b"1123456789abcdef\n0123456789abcdef\n",
        b"0123456789abcdef\n0123456789abcdef\n",
        b"a sentence\n",
    ],
)
def test_another_file_is_no_list_of_used_sentences(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "used.txt"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError) as caught:
        read_used_list(path)
    assert caught.value.code == "EVIDENCE_MALFORMED"


def test_full_tuning_writes_a_checkpoint_that_loads(base: Path, text: Path, tmp_path: Path) -> None:
    outcome = run(base, settings_for(text, method="full"), tmp_path / "run")
    before = AutoModelForCausalLM.from_pretrained(base)
    after = AutoModelForCausalLM.from_pretrained(outcome.path)
    assert outcome.trainable == sum(p.numel() for p in before.parameters())
    moved = [
        name
        for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True)
        if not torch.equal(old, new)
    ]
    assert "lm_head.weight" in moved
    assert "model.layers.0.mlp.up_proj.weight" in moved
    assert (outcome.path / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    assert_public(tmp_path / "run")


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize(("method", "size"), [("lora", 2), ("prefix", 3)])
def test_adapters_load_and_leave_the_base_alone(
    base: Path, text: Path, tmp_path: Path, method: str, size: int
) -> None:
    peft = pytest.importorskip("peft", reason="needs the extra tune")
    outcome = run(base, settings_for(text, method=method, adapter_size=size), tmp_path / "run")
    # What is handed on says nothing about where it was made, and the same thing every time.
    assert {path.name for path in outcome.path.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    config = json.loads((outcome.path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] is None
    assert str(base) not in json.dumps(config)
    if method == "lora":
        assert config["target_modules"] == sorted(config["target_modules"])
    model = AutoModelForCausalLM.from_pretrained(base)
    prompt = torch.tensor([[1, 7, 8, 9]])
    original = model(prompt).logits.detach()
    adapted = peft.PeftModel.from_pretrained(model, outcome.path)
    assert (adapted(prompt).logits - original).abs().max() > 1e-3
    assert outcome.trainable < 2000
    assert_public(tmp_path / "run")


def test_the_longest_example_defaults_to_what_the_model_has_positions_for(
    base: Path, text: Path, tmp_path: Path
) -> None:
    positions = json.loads((base / "config.json").read_text())["max_position_embeddings"]
    run(base, settings_for(text, data=Data((str(text),), "en", "ca", "labels")), tmp_path / "run")
    recorded = json.loads((tmp_path / "run" / "run.json").read_text())
    assert positions < 512
    assert recorded["identity"]["settings"]["data"]["max_length"] == positions


def test_a_launcher_that_started_one_process_of_several_is_told(
    base: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    for name, value in {"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    tune(str(base), settings_for(text, rows="ids:5"), tmp_path / "run", device="cpu", notice=said.append)
    assert [line.split(":")[0] for line in said] == ["accelerate launch --cpu starts one process"]
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not lone_launch()


@pytest.mark.parametrize(
    ("slower", "autocast", "told"), [(50.0, True, True), (1.0, True, False), (50.0, False, False)]
)
def test_bf16_in_software_is_announced(
    slower: float,
    autocast: bool,
    told: bool,
    base: Path,
    text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    monkeypatch.setattr("lottery.tuning.tune.bf16_slowdown", lambda: slower)
    settings = settings_for(text, limits=Limits(8, autocast))
    tune(str(base), settings, tmp_path / "run", device="cpu", notice=said.append)
    assert [line.split(":")[0] for line in said] == (
        ["this processor takes 50 times as long in bf16 as in fp32"] if told else []
    )


def test_the_slowdown_of_bf16_is_a_ratio_of_two_measured_times(monkeypatch: pytest.MonkeyPatch) -> None:
    # Begin and end of five products in fp32, then of five in bf16; most of them are disturbed by other work.
    durations = [2.0, 900.0, 3.0, 2.0, 50.0, 5000.0, 5.0, 7.0, 6000.0, 5.5]
    times = iter([moment for i, taken in enumerate(durations) for moment in (1e5 * i, 1e5 * i + taken)])
    monkeypatch.setattr("lottery.model.device.time.perf_counter", lambda: next(times))
    assert bf16_slowdown() == 2.5


def test_a_large_digest_is_announced(
    base: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    tune(str(base), settings_for(text), tmp_path / "small", device="cpu", notice=said.append)
    assert said == []
    monkeypatch.setattr("lottery.tuning.tune._LARGE", 1)
    tune(str(base), settings_for(text), tmp_path / "large", device="cpu", notice=said.append)
    assert len(said) == 1
    assert "digest of" in said[0]


def refused() -> list[tuple[str, type[CertifyError], dict[str, object]]]:
    data = Data(("{text}",), "en", "ca", "labels", max_length=120)
    return [
        ("FILE_UNREADABLE", UsageError, {"data": replace(data, sources=("/nowhere/train",))}),
        ("FILE_UNREADABLE", UsageError, {"data": replace(data, target_language="fr")}),
        ("TEMPLATE_UNKNOWN", UsageError, {"data": replace(data, template="alpakka")}),
        ("NO_EXAMPLES", NothingToDoError, {"data": replace(data, max_length=3)}),
        ("MAX_LENGTH", UsageError, {"data": replace(data, max_length=129)}),
        ("ID_BEYOND_TOKENIZER", UsageError, {"data": data, "rows": f"ids:{ROWS - 1}"}),
        ("ROWS_UNKNOWN", UsageError, {"data": data, "rows": "some"}),
        ("NOT_TRAINABLE", UsageError, {"data": data, "method": "full", "dtype": "BF16"}),
        ("ARM_OPTION", UsageError, {"data": data, "method": "prefix", "gradient_checkpointing": True}),
        ("USAGE", UsageError, {"data": data, "seed": -1}),
    ]


@pytest.mark.parametrize(("code", "kind", "changes"), refused())
def test_refused_with_one_line_and_nothing_written(
    base: Path, text: Path, tmp_path: Path, code: str, kind: type[CertifyError], changes: dict[str, object]
) -> None:
    data = changes.get("data")
    if isinstance(data, Data):
        changes = changes | {"data": replace(data, sources=tuple(s.format(text=text) for s in data.sources))}
    with pytest.raises(kind) as caught:
        run(base, settings_for(text, **changes), tmp_path / "run")
    assert caught.value.code == code
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_rows_beyond_the_tokenizer_when_allowed(base: Path, text: Path, tmp_path: Path) -> None:
    settings = settings_for(text, rows=f"ids:{ROWS - 1}", allow_beyond=True)
    run(base, settings, tmp_path / "run")
    rows = read_rows(tmp_path / "run" / "rows.safetensors")
    np.testing.assert_array_equal(rows.fp32, open_tensor(base / "model.safetensors", TABLE)[[ROWS - 1]])


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("code", "spoil"),
    [
        ("TIED_HEAD", lambda folder: change_config(folder, tie_word_embeddings=True)),
        (
            "QUANTISED_TABLE",
            lambda folder: change_config(folder, quantization_config={"quant_method": "gptq"}),
        ),
        ("TOKENIZER_TABLE_SIZE", lambda folder: save_small(folder)),
        ("FILE_UNREADABLE", lambda folder: (folder / "tokenizer.json").unlink()),
        ("CHECKPOINT_MISSING", lambda folder: (folder / "model.safetensors").unlink()),
    ],
)
def test_unusable_bases(text: Path, tmp_path: Path, code: str, spoil: Callable[[Path], object]) -> None:
    base = save_checkpoint(tmp_path / "base", vocab_size=ROWS)
    spoil(base)
    with pytest.raises(CertifyError) as caught:
        run(base, settings_for(text), tmp_path / "run")
    assert caught.value.code == code
    assert "--allow-tied" not in str(caught.value)  # tune has no such option
    assert not (tmp_path / "run").exists()


def save_small(folder: Path) -> None:
    tiny_llama(vocab_size=len(PIECES) - 1).save_pretrained(folder)


@pytest.mark.parametrize("name", ["/nowhere/model", "no-such-model", "certify-tests/no-such-model"])
def test_unknown_model(text: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError) as caught:
        tune(name, settings_for(text), tmp_path / "run", device="cpu")
    assert caught.value.code == "MODEL_UNKNOWN"
    assert "\n" not in str(caught.value)


def test_loss_that_is_not_finite_stops_and_keeps_the_last_state(
    base: Path, text: Path, tmp_path: Path
) -> None:
    recipe = Recipe(learning_rate=1e30, epochs=3, batch_size=8, schedule="constant", warmup=0.0)
    with pytest.raises(InvalidInputError, match=r"step \d+ of 9, learning rate 1e\+30") as caught:
        run(base, settings_for(text, recipe=recipe, method="full"), tmp_path / "run", save_every=1)
    assert caught.value.code == "LOSS_NOT_FINITE"
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["status"], record["outcome"]["reason"]) == ("failed", str(caught.value))
    with pytest.raises(
        InvalidInputError, match=r"failed and would fail again: the \S+ is not finite"
    ) as again:
        run(base, settings_for(text, recipe=recipe, method="full"), tmp_path / "run", resume=True)
    assert again.value.code == "RUN_FAILED"
    assert "\n" not in str(again.value)
    states = sorted(path.name for path in (tmp_path / "run" / "states").iterdir())
    taken = len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert states[-1] == f"step-{taken:08d}"
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_lack_of_memory_says_what_to_lower(
    base: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_arguments: object) -> None:
        raise error

    monkeypatch.setattr(trainer_module, "target_loss", fail)
    with pytest.raises(UsageError, match=r"--micro-batch \(now 8\)") as caught:
        run(base, settings_for(text), tmp_path / "run")
    assert caught.value.code == "OUT_OF_MEMORY"


def test_other_errors_are_not_taken_for_a_lack_of_memory(
    base: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(trainer_module, "target_loss", fail)
    with pytest.raises(RuntimeError, match="multiplied"):
        run(base, settings_for(text), tmp_path / "run")


def test_gpu_that_is_not_there(
    base: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError) as caught:
        tune(str(base), settings_for(text), tmp_path / "run", device="cuda")
    assert caught.value.code == "NO_GPU"


def command(arguments: list[str]) -> tuple[int, str, str]:
    import typer
    from typer.testing import CliRunner

    app = typer.Typer()
    app.command()(tune_command)
    result = CliRunner().invoke(app, arguments)
    if isinstance(result.exception, CertifyError):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_command_line(base: Path, text: Path, tmp_path: Path) -> None:
    common = ["--base", str(base), "--data", str(text), "--source", "en", "--target", "ca", "--seed", "0"]
    common += [
        "--template",
        "labels",
        "--max-length",
        "100",
        "--device",
        "cpu",
        "--out",
        str(tmp_path / "run"),
    ]
    options = ["--rows", "random:2", "--epochs", "1", "--batch-size", "4", "--clip", "0", "--lr", "0.1"]
    code, out, err = command([*common, *options, "--log-every", "3"])
    assert code == 0
    assert out.startswith(
        f"wrote {tmp_path / 'run' / 'rows.safetensors'}: 64 parameters trained on 21 examples"
    )
    steps = [line for line in err.splitlines() if line.startswith("step ")]
    assert [line.split()[1] for line in steps] == ["1/6", "3/6", "6/6"]
    assert [bool(re.search(r" tokens/s \d+:\d\d:\d\d left$", line)) for line in steps] == [False, True, False]
    recipe = json.loads((tmp_path / "run" / "run.json").read_text())["identity"]["settings"]["recipe"]
    assert (recipe["learning_rate"], recipe["clip"], recipe["schedule"]) == (0.1, None, "constant")
    with pytest.raises(NothingToDoError):
        command([*common, *options, "--resume"])
    with pytest.raises(UsageError):
        command([*common, "--method", "lora", "--rows", "all"])


def test_what_a_shell_left_empty_or_mistyped_is_refused(base: Path, text: Path, tmp_path: Path) -> None:
    common = ["--base", str(base), "--data", str(text), "--source", "en", "--target", "ca", "--seed", "0"]
    common += ["--template", "labels", "--device", "cpu", "--out", str(tmp_path / "run")]
    for options, code in ((["--rows", ""], "ROWS_UNKNOWN"), (["--lr", "1e38"], "RECIPE_RANGE")):
        with pytest.raises(UsageError) as caught:
            command([*common, *options])
        assert caught.value.code == code
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_help_does_not_load_torch() -> None:
    import subprocess
    import sys

    code = "import sys; import lottery.cli.tune; print('torch' in sys.modules, 'numpy' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.split() == ["False", "False"]
