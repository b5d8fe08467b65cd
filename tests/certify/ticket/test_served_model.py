"""What else is served: every tensor, setting, adapted module and file that is not the base's is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import in_process
from fake_checkpoint import (
    EMBED,
    HEAD,
    IDS,
    PATTERNS,
    VOCABULARY,
    WIDTH,
    Bits,
    Release,
    make_ticket,
    random_bits,
    read_bits,
    write_checkpoint,
    write_file,
)

from certify.base.errors import CertifyError
from certify.tables import weights
from certify.ticket.adapters.rows import export_peft
from certify.ticket.merge import apply
from certify.ticket.released import open_source
from certify.ticket.serving import ServedReport, verify
from certify.ticket.transfer import open_parts

NORM, MLP = "model.norm.weight", "model.a.weight"
NORM_SHARD, HEAD_SHARD = "model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors"
MODULE = "base_model.model.model.embed_tokens"


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return Release(tmp_path)


@pytest.fixture
def served(release: Release) -> Path:
    """An honest merged checkpoint."""
    out = release.folder / "merged"
    apply(open_parts(open_source(release.spec), release.base), out)
    return out


def judge(release: Release, served: Path, **options: bool) -> ServedReport:
    return verify(open_source(release.spec), served, base=release.base, **options)


def named(report: ServedReport) -> dict[str, tuple[str, ...]]:
    assert report.verified == (not report.findings)
    for finding in report.findings:
        assert all(name in finding.message for name in finding.names[:6])
    return {finding.code: finding.names for finding in report.findings}


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(CertifyError) as error:
        call()
    return error.value.code


def test_every_tensor_of_an_honest_checkpoint_is_compared(release: Release, served: Path) -> None:
    report = judge(release, served)
    assert (report.verified, report.compared, report.tensors) == (True, "model", 5)


def test_a_multiplied_layer_refutes(
    release: Release, served: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    norm = read_bits(served / NORM_SHARD, NORM)
    write_file(served / NORM_SHARD, {NORM: ("F16", (norm.view("<f2") * 5).view("<u2"))})
    assert named(judge(release, served)) == {"TENSORS_DIFFER": (NORM,)}
    words = ["verify", "--ticket", release.spec, "--base", release.base, "--served", served]
    ran = in_process(words, capsys)
    assert ran.code == 1
    assert ran.out.splitlines()[0] == "REFUTED; 5 tensors compared with the base checkpoint's"
    alone = in_process([*words, "--rows-only"], capsys)
    assert alone.code == 0
    assert alone.out.splitlines()[0] == "ROWS VERIFIED; the rest of the model was not compared"
    as_json = in_process([*words, "--rows-only", "--format", "json"], capsys)
    assert json.loads(as_json.out)["status"] == "rows verified"


@pytest.mark.parametrize("block", [1, 3, 64, 8 << 20])
def test_one_flipped_bit_in_any_tensor_is_found(
    release: Release, served: Path, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "_BLOCK_BYTES", block)
    assert named(judge(release, served)) == {}
    for position in (0, 30, VOCABULARY * WIDTH * 2 - 1):
        head = read_bits(release.base / HEAD_SHARD, HEAD).copy()
        head.reshape(-1).view(np.uint8)[position] ^= 1
        write_file(served / HEAD_SHARD, {HEAD: ("F16", head)})
        assert named(judge(release, served)) == {"TENSORS_DIFFER": (HEAD,)}


def reindex(folder: Path, **entries: str | None) -> None:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"] |= entries
    index["weight_map"] = {name: shard for name, shard in index["weight_map"].items() if shard}
    path.write_text(json.dumps(index))


def test_missing_and_extra_tensors_are_named(release: Release, served: Path) -> None:
    write_file(served / NORM_SHARD, {"model.hook.weight": ("F16", random_bits("F16", 5, 2))})
    reindex(served, **{NORM: None, "model.hook.weight": NORM_SHARD})
    assert named(judge(release, served)) == {
        "MISSING_TENSORS": (NORM,),
        "EXTRA_TENSORS": ("model.hook.weight",),
    }


def test_a_tensor_that_no_index_names_is_there_all_the_same(release: Release, served: Path) -> None:
    norm = read_bits(served / NORM_SHARD, NORM)
    extra = random_bits("F16", 5, 2)
    write_file(served / NORM_SHARD, {NORM: ("F16", norm), "model.hook.weight": ("F16", extra)})
    assert named(judge(release, served)) == {"EXTRA_TENSORS": ("model.hook.weight",)}


def test_a_tensor_in_two_shards_is_refused(release: Release, served: Path) -> None:
    norm = read_bits(served / NORM_SHARD, NORM)
    head = read_bits(served / HEAD_SHARD, HEAD)
    write_file(served / HEAD_SHARD, {NORM: ("F16", norm), HEAD: ("F16", head)})
    assert code_of(lambda: judge(release, served)) == "CHECKPOINT_AMBIGUOUS"


def test_type_and_shape_are_judged_per_tensor(release: Release, served: Path) -> None:
    norm = read_bits(served / NORM_SHARD, NORM)
    write_file(served / NORM_SHARD, {NORM: ("BF16", norm)})
    write_file(served / HEAD_SHARD, {HEAD: ("F16", random_bits("F16", 93, VOCABULARY - 1))})
    report = judge(release, served)
    assert named(report) == {"TENSOR_DTYPE": (NORM,), "TENSOR_SHAPE": (HEAD,)}
    assert "BF16, not F16" in report.findings[0].message
    assert "other than that in which the ticket is served" in report.findings[0].message, "not the base's"


def test_a_setting_of_the_model_counts(release: Release, served: Path) -> None:
    config = json.loads((served / "config.json").read_text())
    (served / "config.json").write_text(json.dumps(config | {"transformers_version": "9"}))
    assert named(judge(release, served)) == {}
    (served / "config.json").write_text(json.dumps(config | {"rope_theta": 5.0}))
    assert named(judge(release, served)) == {"CONFIG_DIFFERS": ("rope_theta",)}


def test_a_setting_of_generation_counts(release: Release, served: Path) -> None:
    file = served / "generation_config.json"
    file.write_text('{"transformers_version": "9", "top_p": null}')
    assert judge(release, served).verified
    file.write_text('{"suppress_tokens": [3], "do_sample": true}')
    expected = {"GENERATION_DIFFERS": ("do_sample", "suppress_tokens")}
    assert named(judge(release, served)) == expected
    assert judge(release, served, rows_only=True).verified
    (tokens(release) / file.name).write_bytes(file.read_bytes())
    assert named(judge(release, release.folder / "a")) == expected
    file.unlink()
    assert named(judge(release, served)) == {"GENERATION_DIFFERS": (file.name,)}
    file.write_text("[]")
    assert named(judge(release, served)) == {"GENERATION_DIFFERS": (file.name,)}


def test_a_tokenizer_that_the_ticket_does_not_bind_is_a_finding(tmp_path: Path) -> None:
    bare = Release(tmp_path / "bare")
    assert "the ticket binds none" in judge(bare, bare.base, rows_only=False).notes[-1]
    release = Release(tmp_path / "with")
    ours, config = "tokenizer.json", "tokenizer_config.json"
    (release.base / ours).write_text(json.dumps({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}))
    release.spec = make_ticket(release.folder / "bound.json", release.base, release.tuned, IDS)
    served = release.folder / "merged"
    apply(open_parts(open_source(release.spec), release.base), served)
    report = judge(release, served)
    assert report.verified
    assert report.notes[-1].endswith("of the tokenizer, all files compared")
    (served / config).write_text('{"name_or_path": "elsewhere", "model_max_length": 8}')
    assert judge(release, served).verified
    (served / config).write_text('{"add_bos_token": false, "model_max_length": 8}')
    (served / "chat_template.jinja").write_text("{{ bos_token }}")
    assert named(judge(release, served)) == {"TOKENIZER_DIFFERS": (config, "chat_template.jinja")}
    (served / ours).write_text((release.base / ours).read_text() + " ")
    for name in (config, "chat_template.jinja"):
        (served / name).unlink()
    assert named(judge(release, served)) == {"TOKENIZER_DIFFERS": (ours, config)}
    (served / ours).unlink()
    assert judge(release, served).verified
    assert judge(release, served).notes[-1].endswith("no tokenizer was compared: the folder has none")
    (served / "tokenizer.model").write_bytes(b"another")
    assert named(judge(release, served)) == {"TOKENIZER_DIFFERS": (ours, config)}
    out = tokens(release)
    (out / ours).write_text("{}")
    assert "TOKENIZER_DIFFERS" in named(judge(release, out))


def test_a_resized_vocabulary_resizes_the_head_too(release: Release) -> None:
    longer = np.concatenate([release.expected, random_bits("F16", 7, 3)])
    out = write_checkpoint(release.folder / "longer", longer, "F16")
    head = read_bits(release.base / HEAD_SHARD, HEAD)
    write_file(out / HEAD_SHARD, {HEAD: ("F16", np.concatenate([head, random_bits("F16", 8, 3)]))})
    assert set(named(judge(release, out))) == {"EXTRA_ROWS", "TENSOR_SHAPE", "CONFIG_DIFFERS"}
    assert named(judge(release, out, allow_extra_rows=True)) == {}
    head = head.copy()
    head[-1, -1] ^= 1
    write_file(out / HEAD_SHARD, {HEAD: ("F16", np.concatenate([head, random_bits("F16", 8, 3)]))})
    assert named(judge(release, out, allow_extra_rows=True)) == {"TENSORS_DIFFER": (HEAD,)}


def test_a_checkpoint_served_in_another_type_is_compared_after_one_rounding(tmp_path: Path) -> None:
    base_bits = random_bits("F32", 1)
    tuned_bits = base_bits.copy()
    tuned_bits[list(IDS)] = random_bits("F32", 2)[list(IDS)]
    base = write_checkpoint(tmp_path / "base", base_bits, "F32", sharded=False)
    tuned = write_file(tmp_path / "tuned.safetensors", {EMBED: ("F32", tuned_bits)})
    source = open_source(make_ticket(tmp_path / "t.json", base, tuned, IDS, dtype="F16"))

    def rounded(bits: Bits) -> Bits:
        return bits.view("<f4").astype("<f2").view("<u2")

    names = ["model.a.weight", "model.b.weight", NORM, HEAD]
    tensors = {name: rounded(read_bits(base / "model.safetensors", name)) for name in names}
    tensors[EMBED] = rounded(tuned_bits)
    served = write_checkpoint(tmp_path / "served", tensors[EMBED], "F16", sharded=False)
    write_file(served / "model.safetensors", {name: ("F16", bits) for name, bits in tensors.items()})
    assert verify(source, served, base=base).verified
    tensors[MLP] = tensors[MLP] ^ np.uint16(1)
    write_file(served / "model.safetensors", {name: ("F16", bits) for name, bits in tensors.items()})
    assert named(verify(source, served, base=base)) == {"TENSORS_DIFFER": (MLP,)}


@pytest.mark.parametrize(
    "name",
    [
        "consolidated.safetensors",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
        "model-00004-of-00004.safetensors",
        "ggml-model-q4.GGUF",
        "consolidated.00.pth",
        "original/consolidated.00.pth",
        "tf_model.h5",
        "weights.pt",
    ],
)
@pytest.mark.parametrize("rows_only", [False, True])
def test_stray_weights_are_named(release: Release, served: Path, name: str, rows_only: bool) -> None:
    (served / name).parent.mkdir(exist_ok=True)
    (served / name).write_bytes(b"x")
    assert named(judge(release, served, rows_only=rows_only)) == {"STRAY_WEIGHTS": (name,)}


def test_a_linked_folder_of_weights_is_a_finding_if_named_so(release: Release, served: Path) -> None:
    (served / "old.ckpt").symlink_to(release.base)
    assert named(judge(release, served)) == {"STRAY_WEIGHTS": ("old.ckpt",)}


def test_a_table_alone_says_nothing_about_a_model(release: Release) -> None:
    alone = write_file(release.folder / "alone.safetensors", {EMBED: ("F16", release.expected)})
    assert code_of(lambda: judge(release, alone)) == "MODEL_NEEDED"
    assert judge(release, alone, rows_only=True).verified


# Adapters.


def adapter(folder: Path, tensors: dict[str, tuple[str, Any]], **config: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    write_file(folder / "adapter_model.safetensors", tensors)
    return folder


def tokens(release: Release, **more: tuple[str, Any]) -> Path:
    rows = {f"{MODULE}.trainable_tokens_delta": ("F16", release.tuned_bits[list(IDS)])}
    return adapter(release.folder / "a", rows | more, peft_type="TRAINABLE_TOKENS", token_indices=list(IDS))


def test_an_exported_adapter_is_verified(release: Release, capsys: pytest.CaptureFixture[str]) -> None:
    out = export_peft(open_parts(open_source(release.spec), release.base), release.folder / "adapter")
    ran = in_process(["verify", "--ticket", release.spec, "--base", release.base, "--served", out], capsys)
    assert ran.code == 0
    assert ran.out.startswith("VERIFIED; the table of base and adapter compared")
    assert f"ticket rows served: 4 of 4; other rows equal to the base's: {VOCABULARY - 4} of" in ran.out


def test_rows_of_an_adapter_are_named(release: Release) -> None:
    served = release.tuned_bits.copy()
    served[3, 0] ^= 1
    ids = [*IDS[1:], 5]
    rows = {f"{MODULE}.trainable_tokens_delta": ("F16", served[ids])}
    out = adapter(release.folder / "a", rows, peft_type="TRAINABLE_TOKENS", token_indices=ids)
    report = judge(release, out)
    # Row 5 is the reference's, which is the base's: the reference moved only the ticket's rows.
    assert {one.code: one.ids for one in report.findings} == {"NOT_SERVED": (0,), "ALTERED": (3,)}


def test_other_adapted_modules_are_findings(release: Release) -> None:
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    out = tokens(release, **{name: ("F16", random_bits("F16", 4, 2))})
    assert named(judge(release, out)) == {"OTHER_MODULES": (name,)}
    assert named(judge(release, out, rows_only=True)) == {}


@pytest.mark.parametrize(
    ("config", "other"),
    [
        ({"target_modules": ["embed_tokens", "q_proj"]}, "target_modules: q_proj"),
        ({"target_modules": "all-linear"}, "target_modules: all-linear"),
        ({"target_modules": None}, "target_modules: of the architecture"),
        ({"target_modules": [], "modules_to_save": ["q_proj"]}, "modules_to_save: q_proj"),
        ({"target_modules": [], "modules_to_save": "embed_tokens"}, "modules_to_save: embed_tokens"),
    ],
)
def test_modules_named_in_the_configuration_are_findings(
    release: Release, config: dict[str, Any], other: str
) -> None:
    lone = "embed_tokens" in (config["target_modules"] or ())
    out = lora(release, **config) if lone else whole(release, ".weight", **config)
    assert named(judge(release, out)) == {"OTHER_MODULES": (other,)}


def test_stray_weights_beside_an_adapter(release: Release) -> None:
    out = tokens(release)
    (out / "adapter_model.bin").write_bytes(b"x")
    assert named(judge(release, out)) == {"STRAY_WEIGHTS": ("adapter_model.bin",)}


def whole(release: Release, ending: str, **config: object) -> Path:
    tensors = {f"{MODULE}{ending}": ("F16", release.expected)}
    return adapter(
        release.folder / "whole", tensors, **({"peft_type": "LORA", "target_modules": []} | config)
    )


@pytest.mark.parametrize(
    ("ending", "config"),
    [
        (".weight", {}),
        (".weight", {"modules_to_save": ["embed_tokens"]}),
        (".modules_to_save.weight", {"modules_to_save": ["model.embed_tokens"]}),
    ],
)
def test_a_saved_embedding_is_compared_whole(release: Release, ending: str, config: dict[str, Any]) -> None:
    assert judge(release, whole(release, ending, **config)).verified
    release.expected[7, 7] ^= 1
    report = judge(release, whole(release, ending, **config))
    assert {one.code: one.ids for one in report.findings} == {"FOREIGN": (7,)}


ROWS = {"peft_type": "TRAINABLE_TOKENS", "target_modules": ["embed_tokens"]}


@pytest.mark.parametrize(
    ("ending", "config"),
    [
        # What peft makes of these is not the table in the file: the base, or noise, or more layers.
        (".base_layer.weight", ROWS | {"token_indices": list(IDS)}),
        (".base_layer.weight", ROWS | {"token_indices": [1, 2], "init_weights": False}),
        (".base_layer.weight", {"target_modules": ["embed_tokens"]}),
        (".base_layer.weight", {"target_modules": ["embed_tokens"], "init_lora_weights": False}),
        (".base_layer.weight", {"modules_to_save": ["embed_tokens"]}),
        (".base_layer.weight", {"trainable_token_indices": {"embed_tokens": list(IDS)}}),
        (".base_layer.weight", {}),
        (".modules_to_save.weight", {}),
        (".weight", {"target_modules": ["embed_tokens"]}),
        (".weight", {"trainable_token_indices": [1, 2]}),
        (".weight", {"layer_replication": [[0, 2], [0, 2]]}),
        (".weight", {"target_parameters": ["mlp.up_proj.weight"], "init_lora_weights": False}),
        (".weight", {"exclude_modules": ["embed_tokens"]}),
        (".weight", {"bias": "all"}),
        (".weight", {"a_later_setting": True}),
        (".weight", {"a_later_setting": False}),
    ],
)
@pytest.mark.parametrize("rows_only", [False, True])
def test_a_table_that_peft_does_not_serve_is_an_error(
    release: Release, ending: str, config: dict[str, Any], rows_only: bool
) -> None:
    out = whole(release, ending, **config)
    assert code_of(lambda: judge(release, out, rows_only=rows_only)) == "ADAPTER_UNSUPPORTED"


def test_tensors_without_a_place_are_an_error(release: Release) -> None:
    rows = {f"{MODULE}.token_adapter.trainable_tokens_delta": ("F16", release.tuned_bits[list(IDS)])}
    for tensors, config in (
        (rows, ROWS | {"token_indices": list(IDS)}),
        (rows, {"peft_type": "LORA", "trainable_token_indices": {"lm_head": list(IDS)}}),
        (rows | {f"{MODULE}.weight": ("F16", release.expected)}, {"peft_type": "LORA"}),
    ):
        out = adapter(release.folder / "a", tensors, **({"target_modules": ["embed_tokens"]} | config))
        assert code_of(lambda out=out: judge(release, out)) == "ADAPTER_UNSUPPORTED"
    for targets in ([], ["q_proj"]):  # the matrices of LoRA, for which there is no place
        out = lora(release, target_modules=targets)
        assert code_of(lambda out=out: judge(release, out)) == "ADAPTER_UNSUPPORTED"


def lora(release: Release, *, spill: float = 0.0, **config: object) -> Path:
    """LoRA whose A picks the ticket's rows and whose B holds their halved shifts, exactly in fp32."""
    ids = list(IDS)
    shift = release.tuned_bits.view("<f2").astype("<f4") - release.base_bits.view("<f2").astype("<f4")
    left = np.zeros((len(ids), VOCABULARY), "<f4")
    left[range(len(ids)), ids] = 1
    left[0, 11] = spill
    right = np.ascontiguousarray(shift[ids].T / 2).astype("<f4")
    tensors = {
        f"{MODULE}.lora_embedding_A": ("F32", left.view("<u4")),
        f"{MODULE}.lora_embedding_B": ("F32", right.view("<u4")),
    }
    plain = {
        "peft_type": "LORA",
        "r": len(ids),
        "lora_alpha": 2 * len(ids),
        "target_modules": ["embed_tokens"],
    }
    return adapter(release.folder / "lora", tensors, **(plain | config))


def test_lora_on_the_embedding(release: Release) -> None:
    assert named(judge(release, lora(release))) == {}
    report = judge(release, lora(release, spill=0.5))
    assert {one.code: one.ids for one in report.findings} == {"FOREIGN": (11,)}
    assert judge(release, lora(release, lora_alpha=4)).findings[0].code == "ALTERED"
    assert judge(release, lora(release, use_rslora=True, lora_alpha=4)).verified  # 4 / sqrt(4)


@pytest.mark.parametrize(
    "config",
    [
        {"use_dora": True},
        {"modules_to_save": ["embed_tokens"]},
        {"alpha_pattern": {"embed_tokens": 3}},
        {"init_lora_weights": "pissa"},
        {"peft_type": "PREFIX_TUNING"},
        {"peft_type": None},
    ],
)
def test_what_cannot_be_computed_is_an_error(release: Release, config: dict[str, object]) -> None:
    assert code_of(lambda: judge(release, lora(release, **config))) == "ADAPTER_UNSUPPORTED"


@pytest.mark.parametrize(
    "config",
    [
        *({"r": 3}, {"r": "4"}, {"r": 0}, {"r": 10**400}),
        *({"lora_alpha": alpha} for alpha in (None, "4", 10**400, -(10**400), 1e308)),
    ],
)
def test_matrices_that_do_not_fit(release: Release, config: dict[str, object]) -> None:
    assert code_of(lambda: judge(release, lora(release, **config))) == "ADAPTER_MALFORMED"


@pytest.mark.parametrize("value", [3e38, np.inf, np.nan])
def test_products_that_are_not_finite(
    release: Release, capsys: pytest.CaptureFixture[str], value: float
) -> None:
    out = lora(release, spill=value)
    assert [finding.code for finding in judge(release, out).findings] == ["FOREIGN"]  # no warning either
    ran = in_process(["import", out, "--base", release.base, "--out", release.folder / "in"], capsys)
    assert (ran.code, ran.one_line().split()[1], "[NON_FINITE]" in ran.err) == (4, f"{out}:", True)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    ("how", "whole"),
    [("tokens", 0), ("tokens", 1), ("lora", 0), ("lora", 1), ("saved", 0), ("tokens of LoRA", 0)],
)
def test_the_table_is_the_one_that_peft_serves(tmp_path: Path, how: str, whole: int) -> None:
    torch = pytest.importorskip("torch", reason="needs the extra tune")
    peft = pytest.importorskip("peft", reason="needs the extra tune")
    import tiny_llama

    from certify.tables.table import open_table
    from certify.ticket.adapters.adapted import open_adapted

    model = tiny_llama.tiny_llama(dtype=torch.float32)
    model.save_pretrained(tmp_path / "base")
    config = {
        "tokens": lambda: peft.TrainableTokensConfig(token_indices=[57, 3, 72]),
        "lora": lambda: peft.LoraConfig(r=2, lora_alpha=3, target_modules=["embed_tokens"]),
        "saved": lambda: peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens"]),
        "tokens of LoRA": lambda: peft.LoraConfig(
            r=2, target_modules=["q_proj"], trainable_token_indices={"embed_tokens": [57, 3]}
        ),
    }[how]()
    adapted = peft.get_peft_model(model, config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter += torch.randn(parameter.shape, generator=generator)
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=bool(whole))
    found = open_adapted(tmp_path / "adapter", open_table(tmp_path / "base"))
    served = adapted.merge_and_unload().get_input_embeddings().weight.detach().numpy()
    bits = found.table.rows(0, len(served)).view(PATTERNS["F32"])
    if how == "lora":  # sums of two products, in an order of the library's own
        np.testing.assert_allclose(bits.view("<f4"), served, rtol=1e-6, atol=1e-6)
    else:
        np.testing.assert_array_equal(bits, served.view(PATTERNS["F32"]))
    assert bool(found.others) == (how in ("saved", "tokens of LoRA"))
