"""Pretraining: the order of the text, the tokenizer, resumption bit for bit, export, errors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import typer
from command import following
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from certify.base.errors import ExitCode, InvalidInputError, UsageError
from certify.ticket.corpus import normalise
from lottery.cli.pretrain import pretrain as command
from lottery.pretrain import run as pretrain_module
from lottery.pretrain.data import TOKENIZER, prepare_text, read_documents
from lottery.pretrain.export import export_run
from lottery.pretrain.linear_loss import linear_cross_entropy
from lottery.pretrain.plan import ModelPlan, PretrainPlan, TextSource, TrainPlan, read_plan, shipped_plans
from lottery.pretrain.run import CHECKPOINT, Progress, pretrain, read_log
from lottery.pretrain.step import PretrainState
from lottery.pretrain.windows import BOS, Documents, Windows, mix

NOUNS = ["dog", "cat", "house", "tree", "river", "book", "road", "window", "garden", "friend"]
NOMS = ["gos", "gat", "casa", "arbre", "riu", "llibre", "camí", "finestra", "jardí", "amic"]
PLACES = ["here", "there", "behind me", "in town", "by the sea", "on the hill", "far away", "at home"]
LLOCS = ["aquí", "allà", "darrere meu", "al poble", "vora el mar", "al turó", "lluny", "a casa"]
COUNT = len(NOUNS) * len(PLACES) * 5


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of synthetic text: aligned English and Catalan, and monolingual Catalan."""
    folder = tmp_path_factory.mktemp("data")
    en, ca = [], []
    for number in range(5):
        for noun, nom in zip(NOUNS, NOMS, strict=True):
            for place, lloc in zip(PLACES, LLOCS, strict=True):
                en.append(f"The {noun} number {number} is {place}.")
                ca.append(f"El {nom} número {number} és {lloc}.")
    (folder / "p.en").write_text("\n".join(en) + "\n")
    (folder / "p.ca").write_text("\n".join(ca) + "\n")
    (folder / "m.ca").write_text("\n".join(f"Diuen que {line.lower()}" for line in ca) + "\n")
    (folder / "choice.en").write_text(en[7].upper() + "\n")
    return folder


@pytest.fixture
def plan() -> PretrainPlan:
    return PretrainPlan(
        name="tiny",
        seed=3,
        model=ModelPlan(
            vocab_size=340,
            hidden_size=16,
            intermediate_size=24,
            layers=2,
            heads=2,
            kv_heads=1,
            max_position=64,
            rope_theta=1e4,
        ),
        train=TrainPlan(
            steps=7,
            decay_from=5,
            warmup=2,
            windows=4,
            slice=2,
            length=33,
            muon_lr=0.02,
            adam_lr=0.01,
            weight_decay=0.1,
            momentum=0.9,
            clip=1.0,
        ),
        source=(
            TextSource(path="p", languages=("en", "ca"), share=3, watch=True),
            TextSource(path="p", languages=("ca", "en"), share=1),
            TextSource(path="m.ca", languages=("ca",), share=1),
        ),
        exclude=("choice.en",),
        licences={"p": "CC0"},
    )


def modified(model: Any, /, **fields: Any) -> Any:
    """The same with other fields, validated."""
    return type(model)(**(dict(model) | fields))


def _bits(run: PretrainState) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in run.state().items()}


def _stop_at(step: int) -> Callable[[Progress], None]:
    def report(progress: Progress) -> None:
        if progress.step == step:
            raise KeyboardInterrupt

    return report


def test_a_run_that_was_stopped_resumes_to_the_same_bits(
    plan: PretrainPlan, data: Path, tmp_path: Path
) -> None:
    whole = pretrain(plan, data, tmp_path / "whole", report_every=1, save_every=2)
    # Stopped after step 5, so that step 5 lies behind the last checkpoint and is done again.
    with pytest.raises(KeyboardInterrupt):
        pretrain(plan, data, tmp_path / "parts", report=_stop_at(5), report_every=1, save_every=2)
    assert _bits(whole) == _bits(
        pretrain(plan, data, tmp_path / "parts", resume=True, report_every=1, save_every=2)
    )

    def comparable(folder: str) -> list[dict[str, Any]]:
        return [{**entry, "tokens_per_second": 0} for entry in read_log(tmp_path / folder)]

    assert [entry["step"] for entry in comparable("parts")] == list(range(1, 8))
    assert comparable("parts") == comparable("whole")
    # Loading a finished run changes nothing, and needs no text.
    assert _bits(pretrain(plan, tmp_path / "none", tmp_path / "parts", resume=True)) == _bits(whole)


def test_a_forgotten_piece_of_state_would_be_seen(
    plan: PretrainPlan, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pretrain(plan, data, tmp_path / "whole", save_every=2)
    restore = PretrainState.restore

    def forgetful(self: PretrainState, tensors: dict[str, torch.Tensor], *, step: int) -> None:
        kept = {name: tensor for name, tensor in tensors.items() if "momentum" not in name}
        restore(self, kept, step=step)

    with pytest.raises(KeyboardInterrupt):
        pretrain(plan, data, tmp_path / "parts", report=_stop_at(4), report_every=1, save_every=2)
    monkeypatch.setattr(PretrainState, "restore", forgetful)
    assert _bits(pretrain(plan, data, tmp_path / "parts", resume=True)) != _bits(whole)


def test_workers_and_reports_do_not_change_a_bit(plan: PretrainPlan, data: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    one = pretrain(plan, data, tmp_path / "one", workers=1, report_every=1)
    three = pretrain(plan, data, tmp_path / "three", workers=3, report_every=100)
    assert _bits(one) == _bits(three)
    assert torch.get_num_threads() == before


def test_a_schedule_changed_in_the_constant_phase_gives_the_weights_of_the_changed_plan(
    plan: PretrainPlan, data: Path, tmp_path: Path
) -> None:
    long = modified(plan, train=modified(plan.train, steps=50, decay_from=50))
    with pytest.raises(KeyboardInterrupt):
        pretrain(long, data, tmp_path / "cut", report=_stop_at(4), report_every=1, save_every=4)
    cut = pretrain(plan, data, tmp_path / "cut", resume=True)
    assert _bits(cut) == _bits(pretrain(plan, data, tmp_path / "whole"))


def test_a_schedule_cannot_change_inside_its_decay(plan: PretrainPlan, data: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        pretrain(plan, data, tmp_path / "run", report=_stop_at(6), report_every=1, save_every=6)
    for changes in ({"steps": 9}, {"decay_from": 7}, {"steps": 5}):
        other = modified(plan, train=modified(plan.train, **changes))
        with pytest.raises(UsageError, match="step 6") as caught:
            pretrain(other, data, tmp_path / "run", resume=True)
        assert caught.value.code == "PLAN_MISMATCH"


def test_a_run_belongs_to_its_plan_and_is_not_overwritten(
    plan: PretrainPlan, data: Path, tmp_path: Path
) -> None:
    pretrain(plan, data, tmp_path)
    with pytest.raises(UsageError, match="already contains a run"):
        pretrain(plan, data, tmp_path)
    for changed in (
        modified(plan, seed=4),
        modified(plan, exclude=()),
        modified(plan, train=modified(plan.train, clip=2.0)),
    ):
        with pytest.raises(UsageError, match="another plan"):
            pretrain(changed, data, tmp_path, resume=True)
    renamed = modified(plan, name="other", licences={})
    assert renamed.digest() == plan.digest()
    (tmp_path / CHECKPOINT).write_bytes((tmp_path / CHECKPOINT).read_bytes()[:1000])
    with pytest.raises(InvalidInputError, match="not a checkpoint"):
        pretrain(plan, data, tmp_path, resume=True)


def test_the_loss_falls_and_a_diverging_run_says_so(plan: PretrainPlan, data: Path, tmp_path: Path) -> None:
    longer = modified(plan, train=modified(plan.train, steps=40, decay_from=30))
    reports: list[Progress] = []
    pretrain(longer, data, tmp_path / "a", report=reports.append, report_every=10)
    assert [report.step for report in reports] == [10, 20, 30, 40]
    assert reports[-1].loss < 0.75 * reports[0].loss
    assert reports[-1].tokens == 40 * 4 * 32
    assert reports[-1].held_out is not None
    assert reports[-1].held_out < reports[0].held_out  # type: ignore[operator]
    broken = modified(longer, train=modified(longer.train, adam_lr=1e30))
    with pytest.raises(InvalidInputError, match="loss is nan at step") as caught:
        pretrain(broken, data, tmp_path / "b")
    assert caught.value.code == "LOSS_NOT_FINITE"


@pytest.mark.slow
def test_a_killed_process_resumes_to_the_same_bits(plan: PretrainPlan, data: Path, tmp_path: Path) -> None:
    longer = modified(plan, train=modified(plan.train, steps=100, decay_from=60))
    script = textwrap.dedent(
        f"""
        from pathlib import Path
        from lottery.pretrain.run import pretrain
        from lottery.pretrain.plan import ModelPlan, Plan, Source, TrainPlan
        pretrain({longer!r}, Path({str(data)!r}), Path({str(tmp_path / "killed")!r}), save_every=1)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", script])
    checkpoint = tmp_path / "killed" / CHECKPOINT
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    killed = pretrain(longer, data, tmp_path / "killed", resume=True)
    assert _bits(killed) == _bits(pretrain(longer, data, tmp_path / "whole"))


# ---- text ----


def _documents(lengths: list[int], first: int) -> Documents:
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Documents(np.arange(first, first + int(starts[-1])).astype(np.uint16), starts)


GROUPS = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=3)


@given(GROUPS, st.integers(0, 5), st.integers(0, 20), st.integers(1, 7))
def test_the_order_is_a_function_of_seed_and_position(
    groups: list[list[int]], seed: int, skipped: int, size: int
) -> None:
    sources = [_documents(lengths, 100 * index + 3) for index, lengths in enumerate(groups)]

    def windows() -> Windows:
        return Windows(sources, [1.0] * len(sources), length=8, seed=seed)

    straight = windows().batch(40)
    jumped, stepped = windows(), windows()
    jumped.skip(skipped)
    assert np.array_equal(jumped.batch(size), straight[skipped : skipped + size])
    parts = np.concatenate([stepped.batch(size) for _ in range(5)])[:40]
    assert np.array_equal(parts, straight[: len(parts)])
    # Each window is the start token, then whole documents, the last one cut.
    known = {
        tuple(int(token) for token in source[index]) for source in sources for index in range(len(source))
    }
    for window in straight.tolist():
        assert window[0] == BOS
        rest = tuple(window[1:])
        while rest:
            match = [document for document in known if document[0] == rest[0]]
            assert len(match) == 1
            assert match[0][: len(rest)] == rest[: len(match[0])]
            rest = rest[len(match[0]) :]


def test_every_document_is_used_once_a_pass_and_each_pass_has_its_own_order() -> None:
    source = _documents([3] * 50, 3)
    windows = Windows([source], [1.0], length=4, seed=1)
    firsts = windows.batch(100)[:, 1]
    passes = [firsts[:50].tolist(), firsts[50:].tolist()]
    assert sorted(passes[0]) == sorted(passes[1]) == [3 + 3 * index for index in range(50)]
    assert passes[0] != passes[1]
    assert passes[0] != sorted(passes[0])


def test_shares_are_shares_of_tokens() -> None:
    sources = [_documents([3] * 40, 3), _documents([12] * 40, 1000)]
    block = Windows(sources, [3.0, 1.0], length=129, seed=0).batch(300)
    share = float(np.mean(block[:, 1:] < 1000))
    assert abs(share - 0.75) < 0.02


def test_mixing_is_splitmix64() -> None:
    # First outputs of SplitMix64 for the state 0, a published test vector of that generator.
    assert int(mix(0)[0]) == 0xE220A8397B1DCDAF
    assert len(set(mix(1, np.arange(10_000, dtype=np.uint64)).tolist())) == 10_000


def test_held_out_and_excluded_sentences_are_not_trained_on(plan: PretrainPlan, data: Path) -> None:
    banned = frozenset({normalise((data / "choice.en").read_text())})
    both = [read_documents(data, source, banned=banned) for source in plan.source]
    (forward, forward_out), (backward, backward_out), (alone, _) = both
    assert len(forward) + len(forward_out) == COUNT - 1
    assert not any("dog number 0 is at home" in document for document in forward + forward_out + backward)
    # A pair held out in one direction is held out in the other.
    assert {frozenset(document.split("\n")) for document in forward_out} == {
        frozenset(document.split("\n")) for document in backward_out
    }
    assert forward_out
    assert not set(forward) & set(forward_out)
    assert forward[0].startswith("English: The dog number 0 is here.\nCatalan: El gos")
    assert alone[0] == "Catalan: Diuen que el gos número 0 és aquí.\n"


def test_limits_on_a_source(data: Path) -> None:
    everything, _ = read_documents(data, TextSource(path="p", languages=("en", "ca"), share=1))
    some, _ = read_documents(data, TextSource(path="p", languages=("en", "ca"), share=1, lines=20))
    assert len(some) == 20
    assert set(some) < set(everything)
    rest, held = read_documents(data, TextSource(path="p", languages=("en", "ca"), share=1, skip=COUNT - 5))
    assert 1 <= len(rest) == 5 - len(held)
    assert rest[-1].startswith("English: The friend number 4")
    with pytest.raises(InvalidInputError, match="no document"):
        read_documents(data, TextSource(path="p", languages=("en", "ca"), share=1, skip=COUNT))


def test_the_tokenizer_has_the_ids_of_llama_and_keeps_newlines(
    plan: PretrainPlan, data: Path, tmp_path: Path
) -> None:
    from tokenizers import Tokenizer

    text = prepare_text(plan, data, tmp_path)
    tokenizer = Tokenizer.from_file(str(tmp_path / TOKENIZER))
    assert tokenizer.get_vocab_size() == 340
    assert [tokenizer.id_to_token(i) for i in (0, 1, 2, 3, 13, 258)] == [
        "<unk>",
        "<s>",
        "</s>",
        "<0x00>",
        "<0x0A>",
        "<0xFF>",
    ]
    assert [token.content for token in tokenizer.get_added_tokens_decoder().values()] == [
        "<unk>",
        "<s>",
        "</s>",
    ]
    sample = "English: Tabs\tand  snow ☃, l'àvia.\nCatalan:"
    encoding = tokenizer.encode(sample)
    assert encoding.ids[0] == BOS
    assert 13 in encoding.ids
    assert tokenizer.decode(encoding.ids, skip_special_tokens=True) == sample
    assert tokenizer.encode("x", add_special_tokens=False).ids == tokenizer.encode("x").ids[1:]
    counts = Counter(int(token) for source in text.training for token in source.ids)
    assert counts[1] == counts[2] == counts[0] == 0  # no control token inside a document, above all no end
    first, _ = read_documents(
        data, plan.source[0], banned=frozenset({normalise((data / "choice.en").read_text())})
    )
    bare = [tokenizer.encode(document, add_special_tokens=False).ids for document in first]
    assert text.training[0].ids.tolist() == [token for ids in bare for token in ids]
    again = prepare_text(plan, data, tmp_path / "second")
    assert (tmp_path / "second" / TOKENIZER).read_bytes() == (tmp_path / TOKENIZER).read_bytes()
    assert all(
        np.array_equal(one.ids, two.ids) for one, two in zip(text.training, again.training, strict=True)
    )


def test_a_damaged_tokenizer_of_a_run_is_one_line(plan: PretrainPlan, data: Path, tmp_path: Path) -> None:
    (tmp_path / TOKENIZER).write_text("{}")
    with pytest.raises(UsageError, match="cannot load a tokenizer") as caught:
        prepare_text(plan, data, tmp_path)
    assert caught.value.code == "NO_TOKENIZER"


def test_text_faults_are_one_line(plan: PretrainPlan, data: Path, tmp_path: Path) -> None:
    def prepare(*sources: TextSource, **changes: Any) -> None:
        prepare_text(modified(plan, source=sources, **changes), data, tmp_path)

    with pytest.raises(UsageError, match=r"no file .*q\.en"):
        prepare(TextSource(path="q", languages=("en", "ca"), share=1))
    (data / "bad.en").write_text("one\n")
    (data / "bad.ca").write_text("one\ntwo\n")
    with pytest.raises(InvalidInputError, match="1 and 2 lines"):
        prepare(TextSource(path="bad", languages=("en", "ca"), share=1))
    with pytest.raises(InvalidInputError, match="lower vocab_size"):
        prepare(*plan.source, model=modified(plan.model, vocab_size=60_000))
    assert not (tmp_path / TOKENIZER).exists()


# ---- loss ----


@pytest.mark.parametrize("rows", [1, 256, 300])
def test_the_blockwise_loss_is_cross_entropy(rows: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    hidden = torch.randn(rows, 8, generator=generator, requires_grad=True)
    weight = torch.randn(31, 8, generator=generator, requires_grad=True)
    targets = torch.randint(31, (rows,), generator=generator)
    ours = torch.autograd.grad(3 * linear_cross_entropy(hidden, weight, targets), (hidden, weight))
    plain = torch.autograd.grad(3 * F.cross_entropy(hidden @ weight.T, targets), (hidden, weight))
    torch.testing.assert_close(
        linear_cross_entropy(hidden, weight, targets), F.cross_entropy(hidden @ weight.T, targets)
    )
    for mine, theirs in zip(ours, plain, strict=True):
        # fp32 sums in another order over at most 300 terms of size 1/300.
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_a_step_follows_the_gradient_of_the_whole_batch(
    plan: PretrainPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    clipped: list[Any] = []
    clip = torch.nn.utils.clip_grad_norm_

    def spy(parameters: Any, limit: float) -> torch.Tensor:
        parameters = list(parameters)
        clipped.append((limit, [parameter.grad.clone() for parameter in parameters]))
        return clip(parameters, limit)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", spy)
    windows = np.random.default_rng(0).integers(3, 340, size=(4, 33))
    with PretrainState(plan) as run:
        before = {name: master.detach().clone() for name, master in run.masters.items()}
        model = run.model.float()
        tokens = torch.from_numpy(windows)
        logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].reshape(-1))
        loss.backward()
        gradient = model.lm_head.weight.grad.clone()
        run.model.bfloat16().zero_grad()
        assert run.advance(windows) == pytest.approx(float(loss.detach()), abs=0.02)
        ((limit, gradients),) = clipped
        assert limit == plan.train.clip
        ours = dict(zip(run.masters, gradients, strict=True))["lm_head.weight"]
        # bf16 keeps 8 bits; the average over slices and positions is a mean, not a sum.
        assert float((ours - gradient).norm() / gradient.norm()) < 0.02
        moved = run.masters["lm_head.weight"].detach() - before["lm_head.weight"]
    # The first step of Adam is -lr * sign(gradient); warm-up halves it. bf16 may turn the sign of tiny ones.
    large = gradient.abs() > gradient.abs().quantile(0.5)
    expected = -0.5 * plan.train.adam_lr * gradient.sign()
    agree = torch.isclose(moved, expected, rtol=0.01)[large]
    assert float(agree.float().mean()) > 0.99


def test_the_rate_warms_up_stays_and_decays(plan: PretrainPlan) -> None:
    rates = [plan.train.rate(step) for step in range(plan.train.steps)]
    assert rates == [0.5, 1, 1, 1, 1, 1, 0.5]


# ---- export ----


def test_an_exported_model_loads_and_computes_the_same(
    plan: PretrainPlan, data: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run = pretrain(plan, data, tmp_path / "run")
    export_run(run, tmp_path / "run", tmp_path / "out", notes="BLEU 1.0")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        TOKENIZER,
        "tokenizer_config.json",
    }
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert model.dtype == torch.float16
    assert model.lm_head.weight.data_ptr() != model.model.embed_tokens.weight.data_ptr()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.detach(), run.masters[name].detach().half())
    ids = tokenizer("English: The dog\nCatalan:", return_tensors="pt").input_ids
    assert int(ids[0, 0]) == BOS == model.config.bos_token_id
    run.model.load_state_dict(run.masters)
    with torch.no_grad():
        ours, theirs = run.model.float()(ids).logits, model.float()(ids).logits
    assert torch.allclose(ours, theirs, atol=0.05)
    card = (tmp_path / "out" / "README.md").read_text()
    for wanted in (plan.digest(), "BLEU 1.0", "| p | English to Catalan | 60.0 % | CC0 |", "not stated"):
        assert wanted in card
    assert "held-out text" in card
    with pytest.raises(UsageError, match="empty"):
        export_run(run, tmp_path / "run", tmp_path / "out")


def test_an_unfinished_or_unfit_run_is_not_exported(plan: PretrainPlan, data: Path, tmp_path: Path) -> None:
    with PretrainState(plan) as run:
        with pytest.raises(UsageError, match="step 0 of 7"):
            export_run(run, tmp_path, tmp_path / "out")
        run.step = 7
        with torch.no_grad():
            run.masters["lm_head.weight"][3, 3] = 7e4
        with pytest.raises(InvalidInputError, match=r"lm_head\.weight does not fit"):
            export_run(run, tmp_path, tmp_path / "out")
    assert data.exists()
    assert not (tmp_path / "out").exists()


# ---- plans and the command ----


def test_the_plan_that_ships_keeps_away_from_choice_and_test_data() -> None:
    assert shipped_plans("model") == ["base-small"]
    plan = read_plan("base-small")
    for source in plan.source:
        assert not source.path.startswith("test/")
        assert "dev" not in source.path
        assert source.path != "en-ca/gv.train10k"
        if source.path == "en-ca/gv.train_all":
            assert source.skip == 10_000
        assert source.path.rsplit("/", 1)[-1].split(".")[0] in plan.licences
    assert {"en-ca/gv.train10k.ca", "en-ca/gv.dev.ca"} <= set(plan.exclude)
    assert plan.model.hidden_size >= 512


def _shipped_text() -> str:
    path = Path(pretrain_module.__file__).parents[1] / "plans" / "base-small.toml"
    return path.read_text()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("seed = 7", "seed = -1", "seed"),
        ("clip =", "clop =", "missing field train.clip (and 1 more)"),
        ("[model]", "surprise = 1\n[model]", "surprise"),
        ("vocab_size = 6000", "vocab_size = 6e9", "vocab_size"),
        ("heads = 8", "heads = 7", "multiple"),
        ("slice = 8", "slice = 7", "multiple of slice"),
        ("momentum = 0.95", "momentum = 1.0", "momentum"),
        ("muon_lr = 0.02", "muon_lr = nan", "muon_lr"),
        ("length = 129", "length = 513", "max_position"),
        ('languages = ["en", "ca"]', 'languages = ["en", "xx"]', "unknown language xx"),
        ('languages = ["en", "ca"]', 'languages = ["en", "ca", "es"]', "languages"),
        ('name = "base-small"', 'name = "../x"', "name"),
        ("[train]", "[train", "not TOML"),
    ],
)
def test_bad_plans_are_one_line(old: str, new: str, says: str, tmp_path: Path) -> None:
    text = _shipped_text()
    assert old in text
    path = tmp_path / "plan.toml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(UsageError, match="plan") as caught:
        read_plan(path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def _invoke(*arguments: str) -> Any:
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, list(arguments))


def _tiny_toml(plan: PretrainPlan) -> str:
    import json

    def table(fields: dict[str, Any]) -> str:
        return "".join(f"{key} = {json.dumps(value)}\n" for key, value in fields.items())

    state = plan.model_dump()
    sources, model, train = state.pop("source"), state.pop("model"), state.pop("train")
    licences = state.pop("licences")
    text = table(state)
    for name, fields in (("model", model), ("train", train), ("licences", licences)):
        text += f"[{name}]\n{table(fields)}"
    return text + "".join(f"[[source]]\n{table(source)}" for source in sources)


def test_the_command_trains_reports_resumes_and_exports(
    plan: PretrainPlan, data: Path, tmp_path: Path
) -> None:
    (tmp_path / "tiny.toml").write_text(_tiny_toml(plan))
    (tmp_path / "notes.md").write_text("chrF 2.0\n")
    assert read_plan(tmp_path / "tiny.toml") == plan
    words = [str(tmp_path / "tiny.toml"), "--out", str(tmp_path / "run"), "--data", str(data)]
    done = _invoke(*words, "--workers", "2", "--report-every", "4")
    assert done.exception is None
    assert [line.split(" · ")[0] for line in done.stdout.splitlines()[:-1]] == ["step 4/7", "step 7/7"]
    assert following(done.stdout) == ["pretrain", *words, "--export", "MODEL"]
    again = _invoke(*words)
    assert isinstance(again.exception, UsageError)
    exported = _invoke(*words, "--export", str(tmp_path / "out"), "--notes", str(tmp_path / "notes.md"))
    assert exported.exception is None
    assert following(exported.stdout)[:3] == ["tune", "--base", str(tmp_path / "out")]
    assert "chrF 2.0" in (tmp_path / "out" / "README.md").read_text()
    assert _bits(pretrain(plan, data, tmp_path / "whole")) == _bits(
        pretrain(plan, data, tmp_path / "run", resume=True)
    )


@pytest.mark.parametrize(
    ("words", "root", "says"),
    [
        (["base-large"], "", "base-small"),
        (["nothing.toml"], "", "nothing.toml"),
        (["base-small"], None, "CERTIFY_DATA"),
        (["base-small"], "no-such-folder", "no folder"),
        (["base-small"], ".", "no file"),
        (["base-small", "--notes", "x.md"], ".", "x.md"),
        (["base-small", "--notes", "here.md"], ".", "--export"),
        (["base-small", "--device", "abacus"], ".", "abacus"),
    ],
)
def test_misuse_of_the_command_is_a_usage_error(
    words: list[str], root: str | None, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "here.md").write_text("notes")
    monkeypatch.delenv("CERTIFY_DATA", raising=False)
    if root is not None:
        monkeypatch.setenv("CERTIFY_DATA", os.fspath(tmp_path / root))
    error = _invoke(*words, "--out", str(tmp_path / "out")).exception
    assert isinstance(error, UsageError)
    assert error.exit_code == ExitCode.USAGE
    assert says in str(error)
    assert not (tmp_path / "out").exists()
