"""The checkpoint with random weights: what loaders make of it, and what it leaves behind."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import geometry as module
import numpy as np
import pytest
from geometry import LLAMA_7B, Geometry, write_random_checkpoint
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest
from standin_tokenizer import standin_pieces

from certify.base.errors import UsageError
from certify.scan.scan import scan
from certify.selection.rules import published, select
from certify.tables.table import check_finite, open_table
from certify.tables.vocabulary import open_vocabulary

ROOT = Path(__file__).resolve().parents[2]
TINY = Geometry(width=16, layers=2, heads=2, intermediate=24)
TABLE_BYTES = 32_000 * 16 * 2


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("geometry") / "base"
    write_random_checkpoint(folder, TINY, seed=5, shard_bytes=4_000)
    return folder


def tensors_of(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor of the folder, read by the safetensors package; each name must lie in one shard only."""
    from safetensors.numpy import load_file

    found: dict[str, np.ndarray] = {}
    for file in sorted(folder.glob("*.safetensors")):
        content = load_file(file)
        assert not content.keys() & found.keys()
        found |= content
    return found


@pytest.mark.parametrize("geometry", [TINY, LLAMA_7B, Geometry(64, 1, 4, 100)])
def test_names_and_shapes_are_those_of_transformers(geometry: Geometry) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = geometry.config()
    with torch.device("meta"):
        config = AutoConfig.for_model(settings.pop("model_type"), **settings)
        model = AutoModelForCausalLM.from_config(config)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert geometry.tensors() == shapes
    assert geometry.parameters == model.num_parameters()


def test_the_papers_model() -> None:
    assert LLAMA_7B.parameters == 6_738_415_616
    assert LLAMA_7B.tensors()["model.embed_tokens.weight"] == (32_000, 4_096)


def test_transformers_loads_every_weight_and_generates(checkpoint: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, facts = AutoModelForCausalLM.from_pretrained(
        checkpoint, dtype=torch.float16, use_safetensors=True, output_loading_info=True
    )
    assert not any(facts[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    stored = tensors_of(checkpoint)
    for name, value in model.state_dict().items():
        assert np.array_equal(value.numpy(), stored[name]), name
    assert model.get_output_embeddings().weight.data_ptr() != model.get_input_embeddings().weight.data_ptr()
    inputs = AutoTokenizer.from_pretrained(checkpoint)("the cat", return_tensors="pt")
    made = model.float().generate(**inputs, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    assert made.shape[1] == inputs["input_ids"].shape[1] + 4


def test_index_names_every_tensor_where_it_is(checkpoint: Path) -> None:
    from safetensors import safe_open

    index = json.loads((checkpoint / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in checkpoint.glob("*.safetensors"))
    where = {}
    for file in files:
        with safe_open(checkpoint / file, "np") as shard:
            where |= dict.fromkeys(shard.keys(), file)
    assert index["weight_map"] == where
    assert set(where) == set(TINY.tensors())
    assert files == [f"model-{i:05}-of-{len(files):05}.safetensors" for i in range(1, len(files) + 1)]
    sizes = {name: value.nbytes for name, value in tensors_of(checkpoint).items()}
    assert index["metadata"]["total_size"] == sum(sizes.values()) == 2 * TINY.parameters


@pytest.mark.parametrize("limit", [1, 512, 4_000, TABLE_BYTES, 10 * TABLE_BYTES])
def test_no_shard_is_larger_than_asked_unless_its_only_tensor_is(tmp_path: Path, limit: int) -> None:
    write_random_checkpoint(tmp_path / "m", TINY, seed=0, shard_bytes=limit)
    from safetensors.numpy import load_file

    shards = [load_file(file) for file in sorted((tmp_path / "m").glob("*.safetensors"))]
    for shard in shards:
        assert len(shard) == 1 or sum(value.nbytes for value in shard.values()) <= limit
    assert (len(shards) == 1) == (limit == 10 * TABLE_BYTES)
    assert (len(shards) == len(TINY.tensors())) == (limit == 1)


def test_weights_follow_from_the_seed_alone(checkpoint: Path, tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path / "same", TINY, seed=5)
    write_random_checkpoint(tmp_path / "other", TINY, seed=6)
    first, same, other = map(tensors_of, (checkpoint, tmp_path / "same", tmp_path / "other"))
    matrices = [name for name, value in first.items() if value.ndim == 2]
    assert all(np.array_equal(first[name], same[name]) for name in first)
    assert not any(np.array_equal(first[name], other[name]) for name in matrices)
    digests = {hashlib.sha256(first[name].tobytes()).digest() for name in matrices}
    assert len(digests) == len(matrices), "two matrices hold the same numbers"
    assert all((first[name] == 1).all() for name in set(first) - set(matrices))


def test_equal_arguments_give_equal_files(checkpoint: Path, tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path / "again", TINY, seed=5, shard_bytes=4_000)
    names = sorted(path.name for path in checkpoint.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "again").iterdir())
    assert all((checkpoint / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in names)


def test_the_table_is_normal(checkpoint: Path) -> None:
    table = tensors_of(checkpoint)["model.embed_tokens.weight"].astype(np.float64)
    # 512,000 draws: D is of the order of 1.4e-3 by chance; rounding to fp16 adds at most 2e-4 near zero.
    assert kstest(table.ravel() / 0.02, "norm").statistic < 3e-3
    # The quantiles are symmetric, and 512,000 draws meet the outermost of 65,536 on either side.
    assert table.max() == -table.min()
    # Rows are independent: a mean correlation of neighbours of width 16 has a deviation of 1.4e-3.
    unit = (table - table.mean(1, keepdims=True)) / table.std(1, keepdims=True)
    assert abs((unit[:-1] * unit[1:]).mean()) < 6e-3


def test_this_project_reads_it(checkpoint: Path) -> None:
    table = open_table(checkpoint)
    assert (table.shape, table.dtype, table.tied) == ((32_000, 16), "F16", False)
    check_finite(table)
    vocabulary = open_vocabulary(checkpoint)
    assert vocabulary.size == 32_000
    assert sorted(vocabulary.special) == [0, 1, 2]
    for pair, ids in published().tickets.items():
        assert select(scan(table, table), rule=f"published:{pair}", vocabulary=vocabulary).ids == ids


def test_pieces_are_a_llama_vocabulary() -> None:
    pieces = standin_pieces()
    assert len(pieces) == len(set(pieces)) == 32_000
    assert pieces[:5] == ["<unk>", "<s>", "</s>", "<0x00>", "<0x01>"]
    assert [pieces[i] for i in (13, 258, 278, 29_871, 29_901)] == ["<0x0A>", "<0xFF>", "▁the", "▁", ":"]


def test_text_is_encoded_with_the_published_ids(checkpoint: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    # The ids are written out here from the paper's tickets: newline, the, of, ",", and, ".", ":", "1", "0".
    assert tokenizer("the of, and.\n:10 in").input_ids == [
        *(1, 278, 310, 29_892, 322, 29_889, 13, 29_901, 29_896, 29_900, 297)
    ]
    # Of equally many pieces, those with a published one: not "▁th", "ey".
    assert tokenizer("they").input_ids == [1, 278, tokenizer.convert_tokens_to_ids("y")]
    assert tokenizer("日").input_ids == [1, 29_871, 3 + 0xE6, 3 + 0x97, 3 + 0xA5]
    assert tokenizer.convert_ids_to_tokens([0, 1, 2]) == ["<unk>", "<s>", "</s>"]
    assert (tokenizer.is_fast, len(tokenizer), tokenizer.eos_token_id) == (True, 32_000, 2)


@pytest.fixture(scope="module")
def fast_tokenizer(checkpoint: Path) -> object:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(checkpoint / "tokenizer.json"))


# "▁" is how the tokenizer writes a space, and "<" begins the names of special tokens and bytes.
@given(
    text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁<"), min_size=1, max_size=40)
)
def test_text_survives_encoding(fast_tokenizer: object, text: str) -> None:
    ids = fast_tokenizer.encode(text).ids  # type: ignore[attr-defined]
    assert ids[0] == 1
    assert 0 not in ids
    assert fast_tokenizer.decode(ids) == text  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "shape", [(0, 1, 1, 1), (16, 0, 1, 1), (16, 1, 0, 1), (16, 1, 1, 0), (16, 1, 3, 8), (12, 1, 4, 8)]
)
def test_impossible_geometries_are_refused(shape: tuple[int, int, int, int]) -> None:
    with pytest.raises(UsageError) as caught:
        Geometry(*shape)
    assert caught.value.code == "GEOMETRY"


def test_a_taken_folder_and_a_negative_seed_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    before = (checkpoint / "config.json").stat().st_mtime_ns
    with pytest.raises(UsageError) as taken:
        write_random_checkpoint(checkpoint, TINY, seed=0)
    assert taken.value.code == "OUT_EXISTS"
    assert (checkpoint / "config.json").stat().st_mtime_ns == before
    with pytest.raises(UsageError) as negative:
        write_random_checkpoint(tmp_path / "m", TINY, seed=-1)
    assert negative.value.code == "SEED"
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path) -> None:
        assert any(folder.glob("*.safetensors"))  # the weights were there
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "write_standin_tokenizer", full)
    with pytest.raises(UsageError, match="No space left") as caught:
        write_random_checkpoint(tmp_path / "m", TINY, seed=0)
    assert caught.value.code == "FILE_UNWRITABLE"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_whole_way_on_a_small_geometry(tmp_path: Path) -> None:
    """The benchmark of LLaMA-7B, 512 wide: every command by its exit code, two steps of partial tuning."""
    if not os.environ.get("CERTIFY_DATA"):
        pytest.skip("CERTIFY_DATA is not set: no text to tune on")
    report_file, scratch = tmp_path / "report.json", tmp_path / "scratch"
    command = [sys.executable, str(ROOT / "tests" / "benchmarks" / "bench_llama7b.py"), "--full-copy"]
    command += ["--folder", str(scratch), "--json", str(report_file)]
    command += ["--width", "512", "--layers", "4", "--heads", "8", "--intermediate", "1376"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(report_file.read_text())
    codes = {step["name"]: step["exit_code"] for step in report["steps"]}
    assert len(codes) == 11
    assert {name for name, code in codes.items() if code} == {"verify, base"}
    assert all(0 < step["anonymous_bytes"] <= step["peak_bytes"] for step in report["steps"])
    tune = report["tune"]
    assert (tune["trainable"], len(tune["steps"])) == (18 * 512, 2)
    # Random weights know nothing: the loss begins near that of guessing, log(32000) = 10.4.
    assert 10 < tune["steps"][0]["loss"] < 11.5
    assert list(scratch.iterdir()) == [], "the benchmark cleans up"
