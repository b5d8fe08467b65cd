"""Tickets as LoRA on the embedding, out and in: what peft and llama.cpp make of them."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import in_process
from fake_checkpoint import IDS, Release, make_ticket
from safetensors.numpy import load_file

from certify.tables.table import open_table
from certify.ticket.adapters.lora import export_gguf, export_lora
from certify.ticket.merge import apply
from certify.ticket.released import open_source
from certify.ticket.transfer import Parts, open_parts

ENGINE = "xllamacpp==2026.10.11549"  # llama.cpp, compiled
MODULE = "base_model.model.model.embed_tokens"
MOVED = (70, 81, 300)


def released(tmp_path: Path, dtype: str, **options: Any) -> tuple[Any, Parts]:
    """An untied tiny LLaMA in ``tmp_path/base``, and a ticket of three rows that moved at random."""
    torch = pytest.importorskip("torch", reason="needs the extra tune")
    from tiny_gguf import tied_llama

    torch.manual_seed(5)
    model = tied_llama(tie_word_embeddings=False, **options).to(getattr(torch, dtype))
    model.save_pretrained(tmp_path / "base")
    with torch.no_grad():
        table = model.get_input_embeddings().weight
        table[[*MOVED]] = torch.randn(3, table.shape[1]).to(table.dtype)
    model.save_pretrained(tmp_path / "tuned")
    spec = make_ticket(tmp_path / "release" / "tickets.json", tmp_path / "base", tmp_path / "tuned", MOVED)
    return torch, open_parts(open_source(spec), tmp_path / "base")


@pytest.mark.parametrize(("dtype", "bound"), [("float16", 0), ("bfloat16", 0), ("float32", 2.4e-7)])
@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft calls a deprecated name of transformers
def test_peft_serves_the_certified_rows(tmp_path: Path, dtype: str, bound: float) -> None:
    peft = pytest.importorskip("peft", reason="needs the extra tune")
    torch, parts = released(tmp_path, dtype)
    off = export_lora(parts, tmp_path / "adapter")
    apply(parts, tmp_path / "merged")
    from transformers import LlamaForCausalLM

    base, merged = (
        LlamaForCausalLM.from_pretrained(tmp_path / name, dtype=getattr(torch, dtype)).eval()
        for name in ("base", "merged")
    )
    adapted = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    ids = torch.arange(320)[None]
    wanted = merged.get_input_embeddings().weight
    with torch.no_grad():
        served = adapted.get_input_embeddings()(ids)[0]
        assert float((served.double() - wanted.double()).abs().max()) == off <= bound
        others = [i for i in range(320) if i not in MOVED]
        assert torch.equal(served[others], wanted[others])
        if not off:
            assert torch.equal(adapted(ids[:, :50]).logits, merged(ids[:, :50]).logits)
        unloaded = adapted.merge_and_unload().get_input_embeddings().weight
    assert torch.equal(unloaded, wanted) == (dtype == "float32" and not off), "what the warning warns of"


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
def test_what_is_written(tmp_path: Path, dtype: str, capsys: pytest.CaptureFixture[str]) -> None:
    case = Release(tmp_path, dtype)
    out = tmp_path / "adapter"
    words = ["--ticket", case.spec, "--base", str(case.base)]
    ran = in_process(["export", *words, "--format", "lora", "--out", str(out), "--uncertified"], capsys)
    assert ran.code == 0
    assert ("merge_and_unload" in ran.out) is (dtype != "F32")
    config = json.loads((out / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", len(IDS), len(IDS))
    assert config["target_modules"] == ["model.embed_tokens"]
    matrices = load_file(out / "adapter_model.safetensors")
    assert {*matrices} == {f"{MODULE}.lora_embedding_A", f"{MODULE}.lora_embedding_B"}
    one_hot = matrices[f"{MODULE}.lora_embedding_A"]
    assert np.argwhere(one_hot).tolist() == [[j, i] for j, i in enumerate(IDS)]
    assert {*one_hot[one_hot != 0].tolist()} == {1.0}
    verified = in_process(["verify", *words, "--served", str(out)], capsys).code
    assert verified == (0 if "bit for bit" in ran.out else 1), "export says what verify finds"


def quantised(tmp_path: Path, parts: Parts, kind: str, **options: Any) -> Path:
    """The base as a GGUF file whose matrices are of a type."""
    from tiny_gguf import write_gguf
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(parts.base.path)
    model.config.tie_word_embeddings = options.get("tied", False)
    return write_gguf(tmp_path / f"{kind}.gguf", model, kind)


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_0"])
def test_the_gguf_adapter_undoes_the_quantisation_of_its_rows(tmp_path: Path, kind: str) -> None:
    gguf = pytest.importorskip("gguf", reason="needs the extra gguf")
    _, parts = released(tmp_path, "float16")
    onto = quantised(tmp_path, parts, kind)
    off = export_gguf(parts, tmp_path / "a.gguf", onto)
    file = gguf.GGUFReader(tmp_path / "a.gguf")
    text = {key: field.contents() for key, field in file.fields.items()}
    kind = [text[f"{key}.type"] for key in ("general", "adapter")]
    assert (kind, text["general.architecture"]) == (["adapter", "lora"], "llama")
    assert text["adapter.lora.alpha"] == 3
    assert text["certify.base_tensor_sha256"] == parts.base.digest()
    tensors = {one.name: one.data for one in file.tensors}
    first, second = (tensors[f"token_embd.weight.lora_{part}"] for part in "ab")
    stored = next(one for one in gguf.GGUFReader(onto).tensors if one.name == "token_embd.weight")
    table = gguf.quants.dequantize(stored.data, stored.tensor_type).reshape(320, 64)
    served = table + first.astype(np.float32) @ second.T
    wanted = parts.rows.served.astype(np.float32)
    assert float(np.abs(served[[*MOVED]].astype(np.float64) - wanted).max()) == off < 3e-7
    others = [i for i in range(320) if i not in MOVED]
    assert np.array_equal(served[others], table[others])
    coarse = np.abs(table[[*MOVED]] - wanted).max()
    assert coarse > 0.5, "the rows moved"


def test_gguf_files_that_no_ticket_fits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gguf", reason="needs the extra gguf")
    _, parts = released(tmp_path, "float16")
    tied = quantised(tmp_path, parts, "F16", tied=True)
    other = Release(tmp_path / "other", "F16")
    (tmp_path / "broken.gguf").write_bytes(tied.read_bytes()[:200])
    spec = f"{tmp_path / 'release' / 'tickets.json'}#t"
    for ticket, base, onto, code in (
        (spec, tmp_path / "base", tied, "TIED_HEAD"),
        (other.spec, other.base, tied, "SHAPE_MISMATCH"),
        (spec, tmp_path / "base", tmp_path / "broken.gguf", "GGUF_MALFORMED"),
        (spec, tmp_path / "base", None, "USAGE"),
    ):
        words = ["export", "--ticket", ticket, "--base", str(base), "--format", "gguf", "--uncertified"]
        words += ["--out", str(tmp_path / "a.gguf"), *(["--onto", str(onto)] if onto else [])]
        ran = in_process(words, capsys)
        assert (ran.code, f"[{code}]" in ran.one_line()) == (2 if code == "USAGE" else 4, True)
    assert not (tmp_path / "a.gguf").exists()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:Setting .save_embedding_layers.:UserWarning")
@pytest.mark.parametrize("how", ["lora", "saved"])
def test_tables_that_peft_trained_come_in(
    tmp_path: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    peft = pytest.importorskip("peft", reason="needs the extra tune")
    torch, parts = released(tmp_path, "float16")
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float16)
    config = (
        peft.LoraConfig(r=2, lora_alpha=3, target_modules=["embed_tokens"])
        if how == "lora"
        else peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens"])
    )
    adapted = peft.get_peft_model(model, config)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if weight.requires_grad:
                torch.manual_seed(len(name))
                weight.add_(torch.randn_like(weight) * 0.1)
        table = adapted.get_input_embeddings()(torch.arange(320)[None])[0]
    adapted.save_pretrained(tmp_path / "adapter")
    words = ["import", str(tmp_path / "adapter"), "--base", str(tmp_path / "base"), "--out"]
    ran = in_process([*words, str(tmp_path / "in")], capsys)
    assert (ran.code, "stays behind" in ran.out) == (0, how == "saved")
    opened = open_table(tmp_path / "in" / "moved_rows.safetensors", base=parts.base)
    served = opened.rows(0, 320)
    # Sums of two products in fp32, of which the order is the library's; rounded to fp16 once.
    assert np.abs(served.astype(np.float64) - table.double().numpy()).max() <= (0 if how == "saved" else 1e-3)
    assert (served != parts.base.rows(0, 320)).any(axis=1).sum() > 300
    ran = in_process([*words, str(tmp_path / "x"), "--id", "x"], capsys)
    assert (ran.code, (tmp_path / "x").exists()) == (2, False)


PROGRAM = """
import json, sys
import xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.warmup = sys.argv[1], 64, False
params.n_parallel, params.verbosity = 1, -1
if len(sys.argv) > 2:
    adapter = xllamacpp.CommonAdapterLoraInfo()
    adapter.path, adapter.scale = sys.argv[2], 1.0
    params.lora_adapters = [adapter]
asked = {"prompt": [1, 70, 75, 300, 81, 90], "n_predict": 1, "n_probs": 320, "temperature": -1.0}
asked["logit_bias"] = [[310, 1000.0]]  # a whole character, so that there is something to report
found = xllamacpp.Server(params).handle_completions(asked)
found = json.loads(found) if isinstance(found, (str, bytes)) else found
(first,) = found["choices"][0]["logprobs"]["content"]
print(json.dumps({one["id"]: one["logprob"] for one in first["top_logprobs"]}))
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has llama.cpp."""
    folder = tmp_path_factory.mktemp("engine")
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--only-binary", ":all:", ENGINE]
    ran = subprocess.run(install, capture_output=True, text=True, check=False)
    if ran.returncode:
        pytest.skip(f"NOT RUN: {ENGINE} cannot be installed: {(ran.stderr.splitlines() or ['?'])[-1]}")
    return python


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "bound"), [("F32", 1e-5), ("Q8_0", None)])
def test_llama_cpp_serves_the_certified_rows(
    tmp_path: Path, engine: Path, kind: str, bound: float | None
) -> None:
    """Base and adapter against the merged model; of a quantised one, that the adapter moves it as far."""
    _, parts = released(tmp_path, "float32", max_position_embeddings=512)
    onto = quantised(tmp_path, parts, kind)
    export_gguf(parts, tmp_path / "a.gguf", onto)
    apply(parts, tmp_path / "merged")
    merged = quantised(tmp_path / "merged", parts_of(tmp_path / "merged", parts), kind)

    def ask(*files: Path) -> dict[str, float]:
        words = [str(engine), "-c", PROGRAM, *map(str, files)]
        ran = subprocess.run(words, capture_output=True, text=True, check=True, timeout=300)
        found: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
        return found

    base, adapted, wanted = ask(onto), ask(onto, tmp_path / "a.gguf"), ask(merged)
    common = adapted.keys() & wanted.keys()
    assert len(common) > 200
    apart = max(abs(adapted[i] - wanted[i]) for i in common)
    moved = max(abs(base[i] - wanted[i]) for i in common & base.keys())
    assert apart < (moved / 5 if bound is None else bound)


def parts_of(folder: Path, parts: Parts) -> Parts:
    """The same ticket, with a merged checkpoint in the place of its base."""
    return Parts(parts.source, open_table(folder), parts.rows, parts.reference_checked, parts.tokenisation)
