"""The tokenizer that is served: its probe in tickets and evidence, and text as the tokens have it."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra tune")
pytest.importorskip("transformers", reason="needs the extra tune")

from tiny_llama import PIECES, save_checkpoint, write_pairs

import certify
from certify.base.errors import InvalidInputError, UsageError
from certify.cli.main import run
from certify.tables.safefile import open_tensor, write_tensors
from certify.tables.tokenisation import PROBES
from certify.ticket.make import find
from certify.ticket.schema import read_ticket_file
from lottery.model.tokenizer import decode, load_tokenizer, serving_probe

PUBLISHED = Path(__file__).parents[3] / "reports" / "published" / "base-small"
TABLE = "model.embed_tokens.weight"
INSISTED = "for_bpe_even_though_it_will_corrupt_output"
LANGUAGE = ["--source", "en", "--target", "ca", "--template", "labels"]


def reconfigured(folder: Path, copy: Path, **settings: object) -> Path:
    """The checkpoint with the same ``tokenizer.json`` and other settings beside it."""
    path = shutil.copytree(folder, copy) / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return copy


@pytest.fixture
def slim(tmp_path: Path) -> Path:
    """The tokenizer of the published base, alone."""
    folder = tmp_path / "slim"
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(PUBLISHED / name, folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("model") / "base")


@pytest.fixture(scope="module")
def tuned(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = open_tensor(base / "model.safetensors", TABLE).copy()
    rows[PIECES.index(":")] *= -4
    path = tmp_path_factory.mktemp("tuned") / "tuned.safetensors"
    write_tensors(path, {TABLE: ("F32", rows)}, {})
    return path


def test_the_probe_is_what_the_loaded_tokenizer_makes(base: Path, tmp_path: Path) -> None:
    loaded = load_tokenizer(base)
    ids = [loaded(text)["input_ids"] for text in PROBES]
    assert serving_probe(base) == hashlib.sha256(json.dumps(ids, separators=(",", ":")).encode()).hexdigest()
    assert len(set(PROBES)) == len(PROBES)
    assert len({tuple(one) for one in ids}) > 1
    shutil.copy(base / "config.json", tmp_path)
    assert serving_probe(tmp_path) is None


def test_other_settings_beside_the_same_file_are_another_tokenisation(slim: Path, tmp_path: Path) -> None:
    """LLaMA's own class puts a space in front, whatever ``tokenizer.json`` says."""
    other = reconfigured(slim, tmp_path / "other", tokenizer_class="LlamaTokenizer")
    stated = serving_probe(slim)
    right, wrong = (load_tokenizer(folder)("a")["input_ids"] for folder in (PUBLISHED, other))
    assert right != wrong
    assert load_tokenizer(PUBLISHED, None, stated)("a")["input_ids"] == right
    with pytest.raises(InvalidInputError) as caught:
        load_tokenizer(other, None, stated)
    assert caught.value.code == "TOKENISATION_DIFFERS"
    named = reconfigured(slim, tmp_path / "named", name_or_path="elsewhere")
    assert load_tokenizer(named, stated)


def test_a_ticket_states_it_and_no_run_serves_another(
    base: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "ticket" / "tickets.json"
    made = ["find", "--base", base, "--tuned", tuned, "--id", "t", "--out", out, "--rule", "distance:1"]
    assert run([str(word) for word in made]) == 0
    (ticket,) = read_ticket_file(out).tickets
    assert ticket.probe_sha256 == serving_probe(base)
    text = write_pairs(tmp_path / "dev", 6)
    other = reconfigured(base, tmp_path / "other", tokenizer_class="LlamaTokenizer")
    evaluation = ["--max-new-tokens", 4, *LANGUAGE]
    training = ["--seed", 1, "--epochs", 1, "--batch-size", 4, "--device", "cpu", *LANGUAGE]

    adapter, use = tmp_path / "adapter", ["--ticket", out, "--base"]
    assert run([str(word) for word in ["export", *use, base, "--out", adapter, "--uncertified"]]) == 0

    def commands(folder: Path) -> list[list[Any]]:
        name = folder.name
        evidence = ["--evidence", tmp_path / name / "e.json", "--unit", "sentence", "--reference", tuned]
        start = ["--base", folder, "--data", text]
        return [
            ["evaluate", *start, "--ticket", out, *evaluation],
            ["evaluate", *start, "--ticket", out, *evidence, *evaluation],
            ["tune", *start, "--rows", f"ticket:{out}#t", "--out", tmp_path / f"{name}-run", *training],
            ["opportunity", "--ticket", out, *start, *LANGUAGE],
            ["transfer", *use, folder, "--out", tmp_path / f"{name}.safetensors"],
            ["apply", *use, folder, "--out", tmp_path / f"{name}-merged", "--uncertified"],
            ["export", *use, folder, "--out", tmp_path / f"{name}-adapter", "--uncertified"],
            ["import", adapter, "--base", folder, "--out", tmp_path / f"{name}-rows", "--id", "again"],
        ]

    for good, bad in zip(commands(base), commands(other), strict=True):
        assert run([str(word) for word in good]) == 0, capsys.readouterr().err
        assert run([str(word) for word in bad]) == 4
        assert "TOKENISATION_DIFFERS" in capsys.readouterr().err
    manifest = json.loads((tmp_path / "base" / "e.json").read_text())
    assert manifest["tokenizer_probe_sha256"] == ticket.probe_sha256
    assert certify.read_ticket_file(out).to_json() == out.read_text()
    (again,) = read_ticket_file(tmp_path / "base-rows" / "tickets.json").tickets
    assert again.probe_sha256 == ticket.probe_sha256
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("other") and path != other]


@pytest.mark.parametrize(
    ("bound", "tokenizer", "told"),
    [(True, True, "that are stated"), (True, False, "not compared"), (False, True, "not bound")],
)
def test_what_uses_a_ticket_tells_whether_its_tokenizer_was_compared(
    base: Path, tuned: Path, tmp_path: Path, bound: bool, tokenizer: bool, told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out, folder = tmp_path / "tickets.json", Path(shutil.copytree(base, tmp_path / "base"))
    find(base, tuned, out=out, ticket_id="t", rule="distance:1", probe=serving_probe if bound else None)
    if not tokenizer:
        (folder / "tokenizer.json").unlink()
    use = ["--ticket", out, "--base", folder, "--out"]
    for words in (
        ["transfer", *use, tmp_path / "table.safetensors"],
        ["apply", *use, tmp_path / "merged", "--uncertified"],
        ["export", *use, tmp_path / "adapter", "--uncertified"],
        ["import", tmp_path / "adapter", "--base", folder, "--out", tmp_path / "imported"],
    ):
        assert run([str(word) for word in words]) == 0, capsys.readouterr().err
        (line,) = [one for one in capsys.readouterr().out.splitlines() if one.startswith("tokenizer: ")]
        assert told in line


def test_a_bundle_brings_the_tokenizer_that_is_compared(
    base: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bundle" / "tickets.json"
    find(base, tuned, out=out, ticket_id="t", rule="distance:1", bundle=True, probe=serving_probe)
    use = ["transfer", "--ticket", str(out), "--out"]
    assert run([*use, str(tmp_path / "good.safetensors")]) == 0
    assert "that are stated" in capsys.readouterr().out
    other = reconfigured(out.parent / "base", tmp_path / "other", tokenizer_class="LlamaTokenizer")
    shutil.copy(other / "tokenizer_config.json", out.parent / "base")
    assert run([*use, str(tmp_path / "bad.safetensors")]) == 4
    assert "TOKENISATION_DIFFERS" in capsys.readouterr().err


def test_decoding_keeps_every_space(slim: Path, tmp_path: Path) -> None:
    # Newer versions of the library ask twice.
    asked = ("clean_up_tokenization_spaces", f"clean_up_tokenization_spaces_{INSISTED}")
    tidy = load_tokenizer(reconfigured(slim, tmp_path / "tidy", **dict.fromkeys(asked, True)))
    ids = tidy("a , b .", add_special_tokens=False)["input_ids"]
    assert decode(tidy, ids) == "a , b ." != tidy.decode(ids)


def test_a_folder_without_a_tokenizer_has_none(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UsageError) as caught:
        load_tokenizer(tmp_path)
    assert caught.value.code == "NO_TOKENIZER"
