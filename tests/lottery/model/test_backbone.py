"""Loading: a checkpoint whose weights are not those of its configuration is no model, whoever asks for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the extra tune")
pytest.importorskip("transformers", reason="needs the extra tune")

from safetensors.torch import load_file, save_file  # noqa: E402
from tiny_llama import save_checkpoint, write_pairs  # noqa: E402

from certify.base.errors import InvalidInputError  # noqa: E402
from certify.cli.main import run  # noqa: E402
from certify.tables.modeldigest import checkpoint_digest  # noqa: E402
from lottery.model.backbone import load_backbone  # noqa: E402

NORM, HEAD = "model.norm.weight", "lm_head.weight"
QUERY = "model.layers.1.self_attn.q_proj.weight"


def edit(folder: Path, *, drop: str = "", add: dict[str, object] | None = None, **config: object) -> Path:
    """The checkpoint without the tensors that end in ``drop``, with others, under an edited configuration."""
    path = folder / "model.safetensors"
    tensors = {name: tensor for name, tensor in load_file(path).items() if not (drop and name.endswith(drop))}
    save_file(tensors | (add or {}), path, {"format": "pt"})
    written = json.loads((folder / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps(written))
    return folder


def adapter_beside(folder: Path) -> Path:
    (folder / "adapter_config.json").write_text("{}")
    return folder


FAULTS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a missing norm": (lambda f: edit(f, drop=NORM), f"1 missing ({NORM})"),
    "a missing head": (lambda f: edit(f, drop=HEAD), f"1 missing ({HEAD})"),
    "missing projections": (
        lambda f: edit(f, drop="proj.weight"),
        "14 missing (model.layers.0.mlp.",
    ),
    "more layers than weights": (lambda f: edit(f, num_hidden_layers=3), "9 missing (model.layers.2."),
    "fewer layers than weights": (lambda f: edit(f, num_hidden_layers=1), "9 unexpected (model.layers.1."),
    "a tensor of no layer": (lambda f: edit(f, add={"bias": torch.zeros(3)}), "1 unexpected (bias)"),
    "another shape": (lambda f: edit(f, add={QUERY: torch.zeros(8, 32)}), f"1 of another shape ({QUERY})"),
    "biases without weights": (lambda f: edit(f, attention_bias=True), "8 missing (model.layers.0.self_attn"),
    "a renamed tensor": (
        lambda f: edit(f, drop=NORM, add={"model.Norm.weight": torch.ones(32)}),
        f"1 missing ({NORM}); 1 unexpected (model.Norm.weight)",
    ),
    "an adapter beside it": (adapter_beside, "adapter_config.json"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_weights_other_than_configured_are_refused(
    fault: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plant, told = FAULTS[fault]
    with pytest.raises(InvalidInputError) as caught:
        load_backbone(plant(save_checkpoint(tmp_path / "m")), "F32")
    assert (caught.value.code, caught.value.exit_code) == ("MODEL_WEIGHTS", 4)
    assert told in str(caught.value)
    assert caplog.text == "", "one line is enough"


def test_many_names_are_cut(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"14 missing .*, …\)$") as caught:
        load_backbone(edit(save_checkpoint(tmp_path / "m"), drop="proj.weight"), "F32")
    assert str(caught.value).count("_proj") == 3


def test_what_the_architecture_documents_as_superfluous_is_accepted(tmp_path: Path) -> None:
    plain = load_backbone(save_checkpoint(tmp_path / "plain"), "F32")
    buffers = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(4) for i in range(2)}
    older = load_backbone(edit(save_checkpoint(tmp_path / "older"), add=buffers), "F32")
    for name, tensor in plain.state_dict().items():
        assert torch.equal(older.state_dict()[name], tensor)


def test_a_tied_head_need_not_be_there(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "m", tie_word_embeddings=True)
    assert HEAD not in load_file(folder / "model.safetensors")
    model = load_backbone(folder, "F32")
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_weights_elsewhere_are_refused(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "m")
    other = load_file(folder / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in other.items()}, folder / "other.safetensors")
    with pytest.raises(InvalidInputError) as caught:
        load_backbone(edit(folder, transformers_weights="other.safetensors"), "F32")
    assert caught.value.code == "CHECKPOINT_AMBIGUOUS"


@pytest.mark.parametrize("command", ["evaluate", "tune"])
def test_commands_refuse_them_with_one_line(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = edit(save_checkpoint(tmp_path / "m"), drop=NORM)
    text = write_pairs(tmp_path / "text", 6)
    words = [
        command,
        "--base",
        base,
        "--data",
        text,
        "--source",
        "en",
        "--target",
        "ca",
        "--template",
        "labels",
    ]
    words += ["--seed", "0", "--out", tmp_path / "run"] if command == "tune" else ["--max-new-tokens", "4"]
    assert run([str(word) for word in words]) == 4
    told = capsys.readouterr().err.splitlines()
    assert [line for line in told if "missing" in line] == [
        f"certify: the weights of {base} are not those of its config.json: 1 missing ({NORM}) [MODEL_WEIGHTS]"
    ]
    assert not any("MISSING" in line for line in told), "no report of the library"


def test_the_digest_covers_what_is_loaded(tmp_path: Path) -> None:
    """Configuration and every tensor count, and of two sets of weights the one that the loader takes."""
    folder = save_checkpoint(tmp_path / "m")
    digest = checkpoint_digest(folder)
    names = list(load_file(folder / "model.safetensors"))
    index = folder / "model.safetensors.index.json"
    save_file({name: torch.zeros(1) for name in names}, folder / "stale.safetensors")
    index.write_text(json.dumps({"weight_map": dict.fromkeys(names, "stale.safetensors")}))
    assert checkpoint_digest(folder) == digest
    index.unlink()
    seen = {digest, checkpoint_digest(edit(save_checkpoint(tmp_path / "c"), rms_norm_eps=0.5))}
    for number, name in enumerate(names):
        tensor = load_file(folder / "model.safetensors")[name]
        tensor.view(-1)[0] += 1
        seen.add(checkpoint_digest(edit(save_checkpoint(tmp_path / f"{number}"), add={name: tensor})))
    assert len(seen) == 2 + len(names)
