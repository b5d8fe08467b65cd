"""Tables: the layouts that are understood, and each refusal under its own code.

Checkpoints are laid out by hand, never by the code under test, and read back by the safetensors library.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors
import table_strategies as strategies
from hypothesis import given, settings
from hypothesis import strategies as st
from profiles import examples

from certify.base.errors import CertifyError, InvalidInputError, UsageError
from certify.tables.dtypes import DTYPES, cast
from certify.tables.table import Table, check_compatible, check_finite, open_table

EMBED = "model.embed_tokens.weight"
HEAD = "lm_head.weight"


def storage(dtype="F32", rows=5, width=4, seed=0) -> np.ndarray:
    """Finite storage, different in every row."""
    values = np.random.default_rng(seed).standard_normal((rows, width)).astype("<f4")
    if dtype == "BF16":
        return (values.view("<u4") >> 16).astype("<u2")
    return values.astype(DTYPES[dtype])


def save(path: Path, tensors: dict[str, tuple[str, np.ndarray]]) -> Path:
    """A safetensors file, laid out by hand and accepted by the safetensors library."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, (dtype, array) in tensors.items():
        end = len(body) + array.nbytes
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [len(body), end]}
        body += array.tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    data = len(text).to_bytes(8, "little") + text + body
    assert {name for name, _ in safetensors.deserialize(data)} == set(tensors)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def write_json(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def layer() -> dict[str, tuple[str, np.ndarray]]:
    return {"model.layers.0.mlp.up_proj.weight": ("F32", np.zeros((8, 4), "<f4"))}


def checkpoint(
    folder: Path,
    table: np.ndarray,
    *,
    dtype="F32",
    name=EMBED,
    head: str | None = HEAD,
    others=None,
    **config: object,
) -> Path:
    """A single-file checkpoint folder."""
    tensors = {name: (dtype, table), **layer(), **(others or {})}
    if head:
        tensors[head] = (dtype, table)
    save(folder / "model.safetensors", tensors)
    write_json(folder / "config.json", {"model_type": "llama", **config})
    return folder


def sharded(folder: Path, table: np.ndarray, *, dtype="F32", **config: object) -> Path:
    """A checkpoint folder of three shards; the table is in the second."""
    shards = {
        "model-00001-of-00003.safetensors": layer(),
        "model-00002-of-00003.safetensors": {EMBED: (dtype, table), "model.norm.weight": ("F32", table[0])},
        "model-00003-of-00003.safetensors": {HEAD: (dtype, table)},
    }
    shards["model-00002-of-00003.safetensors"]["model.norm.weight"] = ("F32", np.ones(4, "<f4"))
    weight_map = {}
    for file, tensors in shards.items():
        save(folder / file, tensors)
        weight_map.update(dict.fromkeys(tensors, file))
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})
    write_json(folder / "config.json", {"model_type": "llama", **config})
    return folder


def edit_index(folder: Path, **changes: str) -> Path:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"].update(changes)
    write_json(path, index)
    return folder


def refusal(path: Path, **options) -> CertifyError:
    with pytest.raises(CertifyError) as caught:
        open_table(path, **options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) * 3 + 600
    return caught.value


# --------------------------------------------------------------------------------------------------- layouts


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", [checkpoint, sharded])
@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2", "qwen3"])
def test_checkpoints_of_the_three_families(tmp_path, model_type, make, dtype):
    raw = storage(dtype)
    folder = make(tmp_path / "m", raw, dtype=dtype, model_type=model_type, tie_word_embeddings=False)
    write_json(
        folder / "config.json",
        {"model_type": model_type, "tie_word_embeddings": False, "vocab_size": 5, "hidden_size": 4},
    )
    table = open_table(folder)
    assert (table.tensor, table.dtype, table.stored_dtype, table.shape) == (EMBED, dtype, dtype, (5, 4))
    assert table.tied is False
    assert table.path == folder
    assert table.rows(0, 5).tobytes() == raw.tobytes()
    expected = {
        checkpoint: ["config.json", "model.safetensors"],
        sharded: ["config.json", "model.safetensors.index.json", "model-00002-of-00003.safetensors"],
    }
    assert [file.name for file in table.files] == expected[make]
    assert table.file == table.files[-1]


@pytest.mark.parametrize(
    ("model_type", "name", "head"),
    [
        ("gpt_neox", "gpt_neox.embed_in.weight", "embed_out.weight"),
        ("gpt2", "transformer.wte.weight", HEAD),
        ("gpt2", "wte.weight", HEAD),
        ("llama", "embed_tokens.weight", HEAD),
        ("bloom", "word_embeddings.weight", HEAD),
        ("opt", "model.decoder.embed_tokens.weight", HEAD),
        ("unheard_of", EMBED, HEAD),
    ],
)
def test_other_layouts_by_architecture(tmp_path, model_type, name, head):
    folder = checkpoint(
        tmp_path / "m", storage(), name=name, head=head, model_type=model_type, tie_word_embeddings=False
    )
    assert open_table(folder).tensor == name


def test_a_bare_file_with_a_known_name_among_others(tmp_path):
    path = save(tmp_path / "x.safetensors", {EMBED: ("F16", storage("F16")), "other": ("F32", storage())})
    table = open_table(path)
    assert (table.tensor, table.tied, table.files) == (EMBED, None, (path,))


def test_a_bare_file_with_one_two_dimensional_tensor(tmp_path):
    path = save(tmp_path / "x.safetensors", {"rows": ("F32", storage()), "ids": ("F32", np.zeros(3, "<f4"))})
    assert open_table(path).tensor == "rows"


def test_a_bare_file_with_several_candidates_needs_a_name(tmp_path):
    path = save(tmp_path / "x.safetensors", {"a": ("F32", storage()), "b": ("F32", storage(seed=1))})
    error = refusal(path)
    assert (type(error), error.code) == (UsageError, "TENSOR_AMBIGUOUS")
    assert "'a', 'b'" in str(error)
    assert "--tensor" in str(error)
    assert open_table(path, tensor="b").rows(0, 5).tobytes() == storage(seed=1).tobytes()
    assert refusal(path, tensor="c").code == "TENSOR_MISSING"


def test_two_known_names_are_ambiguous(tmp_path):
    tensors = {EMBED: ("F32", storage()), "transformer.wte.weight": ("F32", storage(seed=1))}
    assert refusal(save(tmp_path / "x.safetensors", tensors)).code == "TENSOR_AMBIGUOUS"


def test_a_long_list_of_candidates_is_cut_and_escaped(tmp_path):
    tensors = {f"{'x' * 300}\x1b[2J{i}": ("F32", storage()) for i in range(50)}
    error = refusal(save(tmp_path / "x.safetensors", tensors))
    assert "and 44 more" in str(error)
    assert "\x1b" not in str(error)


@pytest.mark.parametrize("dtype", ["F32", "F16"])
@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_npy(tmp_path, dtype, version):
    raw = storage(dtype)
    path = tmp_path / "table.npy"
    with path.open("wb") as stream:
        np.lib.format.write_array(stream, raw, version=version)
    table = open_table(path)
    assert (table.tensor, table.dtype, table.shape, table.tied, table.files) == (
        "",
        dtype,
        (5, 4),
        None,
        (path,),
    )
    assert table.rows(0, 5).tobytes() == raw.tobytes()


def test_links_are_followed_where_the_user_points(tmp_path):
    real = sharded(tmp_path / "blobs", storage(), tie_word_embeddings=False)
    linked = tmp_path / "snapshot"
    linked.mkdir()
    for file in real.iterdir():
        (linked / file.name).symlink_to(Path("..") / "blobs" / file.name)
    assert open_table(linked).digest() == open_table(real).digest()


def test_only_the_shard_with_the_table_need_be_there(tmp_path):
    folder = sharded(tmp_path / "m", storage(), tie_word_embeddings=False)
    (folder / "model-00001-of-00003.safetensors").unlink()
    (folder / "model-00003-of-00003.safetensors").unlink()
    assert open_table(folder).shape == (5, 4)


def test_an_index_that_names_the_single_file_is_no_contradiction(tmp_path):
    folder = checkpoint(tmp_path / "m", storage(), tie_word_embeddings=False)
    names = (EMBED, HEAD, *layer())
    write_json(
        folder / "model.safetensors.index.json", {"weight_map": dict.fromkeys(names, "model.safetensors")}
    )
    assert open_table(folder).tensor == EMBED


def test_the_real_model(real_tables):
    base = open_table(real_tables.base)
    reference = open_table(real_tables.reference / "embed_tokens.safetensors")
    assert (base.tensor, base.shape, base.dtype, base.tied) == (EMBED, (8000, 256), "F32", False)
    check_compatible(base, reference)
    check_finite(base)
    with safetensors.safe_open(real_tables.base / "model.safetensors", framework="numpy") as library:
        np.testing.assert_array_equal(base.rows(0, 8000), library.get_tensor(EMBED))


# ------------------------------------------------------------------------------------------------ tied heads


@pytest.mark.parametrize(
    ("model_type", "config", "head", "tied"),
    [
        ("llama", {"tie_word_embeddings": True}, HEAD, True),
        ("llama", {"tie_word_embeddings": True}, None, True),
        ("llama", {"tie_word_embeddings": False}, HEAD, False),
        ("llama", {}, HEAD, False),
        ("mistral", {}, HEAD, False),
        ("qwen2", {}, HEAD, False),
        ("qwen3", {}, HEAD, False),
        ("llama", {}, None, True),  # a whole model without a head
        ("qwen2", {}, None, True),
        ("gemma", {}, None, True),
        ("gemma2", {}, HEAD, True),
        ("gemma2", {"tie_word_embeddings": False}, HEAD, False),
        ("unheard_of", {}, HEAD, None),
        ("unheard_of", {}, None, True),
        ("unheard_of", {"text_config": {"tie_word_embeddings": True}}, HEAD, True),
        (
            "unheard_of",
            {"tie_word_embeddings": False, "text_config": {"tie_word_embeddings": True}},
            HEAD,
            True,
        ),
    ],
)
def test_tied_heads_are_refused_unless_allowed(tmp_path, model_type, config, head, tied):
    folder = checkpoint(tmp_path / "m", storage(), head=head, model_type=model_type, **config)
    if tied:
        assert refusal(folder).code == "TIED_HEAD"
    else:
        assert open_table(folder).tied is tied
    assert open_table(folder, allow_tied=True).tied is tied


@pytest.mark.parametrize("model_type", ["llama", "gemma", "unheard_of"])
@pytest.mark.parametrize("around", [lambda inner: inner, lambda inner: {"llm_config": inner}])
@pytest.mark.parametrize("make", [checkpoint, sharded])
def test_an_untied_model_without_its_head_is_refused(tmp_path, make, around, model_type):
    stated = around({"tie_word_embeddings": False})
    folder = make(tmp_path / "m", storage(), **stated)
    write_json(folder / "config.json", {"model_type": model_type, **stated})
    assert open_table(folder).tied is False
    if make is sharded:
        index = folder / "model.safetensors.index.json"
        weight_map = json.loads(index.read_text())["weight_map"]
        del weight_map[HEAD]
        write_json(index, {"weight_map": weight_map})
    else:
        save(folder / "model.safetensors", {EMBED: ("F32", storage()), **layer()})
        assert refusal(folder / "model.safetensors").code == "HEAD_MISSING"
    for allow_tied in (False, True):
        error = refusal(folder, allow_tied=allow_tied)
        assert (error.code, error.exit_code) == ("HEAD_MISSING", 4)
    save(folder / "table.safetensors", {EMBED: ("F32", storage())})
    assert open_table(folder / "table.safetensors").tied is False


NESTS = {
    "text": lambda inner: {"text_config": inner},
    "llm": lambda inner: {"llm_config": inner},
    "named model": lambda inner: {"language_model": inner},
    "three deep": lambda inner: {"thinker_config": {"text_config": {"any": inner}}},
}


@pytest.mark.parametrize("nest", NESTS)
def test_a_nested_configuration_is_asked(tmp_path, nest):
    around = NESTS[nest]
    tied = checkpoint(
        tmp_path / "a", storage(), model_type="unheard_of", **around({"tie_word_embeddings": True})
    )
    assert refusal(tied).code == "TIED_HEAD"
    for size, right in ((5, True), (6, False)):
        config = around({"vocab_size": size, "tie_word_embeddings": False})
        folder = checkpoint(tmp_path / f"{size}", storage(), model_type="unheard_of", **config)
        if right:
            assert open_table(folder).tied is False
        else:
            assert refusal(folder).code == "CONFIG_MISMATCH"
    packed = around({"quantization_config": {"bits": 4}})
    assert refusal(checkpoint(tmp_path / "q", storage(), **packed)).code == "QUANTISED_TABLE"


def test_models_of_other_inputs_are_not_asked(tmp_path):
    other = {"vocab_size": 9, "tie_word_embeddings": True}
    config = {"vision_config": other, "audio_config": {"text_config": other}, "tie_word_embeddings": False}
    folder = checkpoint(tmp_path / "m", storage(), model_type="unheard_of", **config)
    assert open_table(folder).tied is False


def test_the_vocabulary_of_an_unknown_model_is_compared(tmp_path):
    folder = checkpoint(tmp_path / "m", storage(), model_type="unheard_of", vocab_size=6)
    assert refusal(folder).code == "CONFIG_MISMATCH"


def test_gpt2_is_tied_by_default(tmp_path):
    folder = checkpoint(tmp_path / "m", storage(), name="wte.weight", head=None, model_type="gpt2")
    assert refusal(folder).code == "TIED_HEAD"


def test_a_sharded_model_without_a_head_is_tied(tmp_path):
    folder = sharded(tmp_path / "m", storage())
    assert open_table(folder).tied is False
    index = folder / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    del weight_map[HEAD]
    write_json(index, {"weight_map": weight_map})
    assert refusal(folder).code == "TIED_HEAD"


def test_a_folder_with_nothing_but_the_table_shows_nothing_about_a_head(tmp_path):
    folder = tmp_path / "m"
    save(folder / "model.safetensors", {EMBED: ("F32", storage())})
    write_json(folder / "config.json", {"model_type": "llama"})
    assert open_table(folder).tied is False


def test_the_configuration_beside_a_single_file_counts(tmp_path):
    folder = checkpoint(tmp_path / "m", storage(), tie_word_embeddings=True)
    file = folder / "model.safetensors"
    assert refusal(file).code == "TIED_HEAD"
    assert open_table(file, allow_tied=True).files == (folder / "config.json", file)


# ------------------------------------------------------------------------------------------ refused contents


@pytest.mark.parametrize("name", ["m.bin", "m.pt", "m.pth", "m.ckpt", "m.PKL", "m.npy", "m.safetensors", "m"])
@pytest.mark.parametrize("kind", ["zip", "pickle"])
def test_pickles_are_refused_whatever_their_name(tmp_path, name, kind):
    path = tmp_path / name
    data = pickle.dumps({"w": [0.0] * 100}, protocol=2)
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", data)
    else:
        path.write_bytes(data)
    error = refusal(path)
    assert (type(error), error.code) == (InvalidInputError, "PICKLE_REFUSED")


def test_pickle_suffixes_are_refused_whatever_they_hold(tmp_path):
    file = checkpoint(tmp_path / "m", storage()) / "model.safetensors"
    assert refusal(file.rename(tmp_path / "model.bin")).code == "PICKLE_REFUSED"


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt"])
def test_a_folder_of_pickles_says_convert(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    write_json(tmp_path / "config.json", {})
    error = refusal(tmp_path)
    assert error.code == "PICKLE_REFUSED"
    assert "convert" in str(error)


@pytest.mark.parametrize("dtype", ["I8", "U8", "F8_E4M3", "I32"])
def test_integer_and_8_bit_tables_are_quantised(tmp_path, dtype):
    raw = np.zeros((5, 4), "<i4" if dtype == "I32" else "i1")
    assert refusal(save(tmp_path / "x.safetensors", {EMBED: (dtype, raw)})).code == "QUANTISED_TABLE"


@pytest.mark.parametrize(
    "companion",
    [
        "weight.absmax",
        "weight.quant_state.nf4",
        "weight_scale_inv",
        "weight_scale",
        "scales",
        "SCB",
        "lora_A",
    ],
)
def test_companions_of_the_table_mean_that_it_is_not_whole(tmp_path, companion):
    others = {f"model.embed_tokens.{companion}": ("F32", np.zeros(3, "<f4"))}
    assert refusal(checkpoint(tmp_path / "m", storage(), others=others)).code == "QUANTISED_TABLE"


def test_a_packed_table_is_quantised_not_missing(tmp_path):
    tensors = {"model.embed_tokens.qweight": ("I32", np.zeros((5, 4), "<i4")), **layer()}
    save(tmp_path / "model.safetensors", tensors)
    write_json(tmp_path / "config.json", {"model_type": "llama"})
    assert refusal(tmp_path).code == "QUANTISED_TABLE"
    assert refusal(tmp_path, tensor=EMBED).code == "QUANTISED_TABLE"


@pytest.mark.parametrize("nest", [False, True])
def test_a_quantisation_config_is_refused(tmp_path, nest):
    config = {"quantization_config": {"bits": 4}}
    folder = checkpoint(tmp_path / "m", storage(), **({"text_config": config} if nest else config))
    assert refusal(folder).code == "QUANTISED_TABLE"
    assert refusal(folder / "model.safetensors").code == "QUANTISED_TABLE"


def test_doubles_are_unsupported(tmp_path):
    path = save(tmp_path / "x.safetensors", {EMBED: ("F64", np.zeros((5, 4)))})
    assert refusal(path).code == "DTYPE_UNSUPPORTED"


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0)])
def test_empty_tables(tmp_path, shape):
    path = save(tmp_path / "x.safetensors", {EMBED: ("F32", np.zeros(shape, "<f4"))})
    assert refusal(path).code == "TABLE_EMPTY"
    np.save(tmp_path / "x.npy", np.zeros(shape, "<f4"))
    assert refusal(tmp_path / "x.npy").code == "TABLE_EMPTY"


@pytest.mark.parametrize("shape", [(), (20,), (5, 2, 2)])
def test_tables_have_two_dimensions(tmp_path, shape):
    path = save(tmp_path / "x.safetensors", {EMBED: ("F32", np.zeros(shape, "<f4"))})
    assert refusal(path).code == "NOT_A_TABLE"
    folder = tmp_path / "m"
    save(folder / "model.safetensors", {EMBED: ("F32", np.zeros(shape, "<f4"))})
    write_json(folder / "config.json", {"model_type": "llama", "vocab_size": 5})
    assert refusal(folder).code == "NOT_A_TABLE"


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"vocab_size": 6}, "CONFIG_MISMATCH"),
        ({"vocab_size": 4}, "CONFIG_MISMATCH"),
        ({"hidden_size": 5}, "CONFIG_MISMATCH"),
        ({"hidden_size": 3}, "CONFIG_MISMATCH"),
        ({"vocab_size": "5"}, "CONFIG_MALFORMED"),
        ({"vocab_size": True}, "CONFIG_MALFORMED"),
        ({"tie_word_embeddings": "false"}, "CONFIG_MALFORMED"),
        ({"tie_word_embeddings": None}, "CONFIG_MALFORMED"),
    ],
)
def test_a_configuration_that_contradicts_the_table(tmp_path, config, code):
    assert refusal(checkpoint(tmp_path / "m", storage(), **config)).code == code


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("[]", "CONFIG_MALFORMED"),
        ("{", "JSON_MALFORMED"),
        ('{"a":1,"a":2}', "JSON_MALFORMED"),
        ("", "JSON_MALFORMED"),
    ],
)
def test_a_corrupt_configuration(tmp_path, text, code):
    folder = checkpoint(tmp_path / "m", storage())
    (folder / "config.json").write_text(text)
    assert refusal(folder).code == code


# -------------------------------------------------------------------------------------- missing and ambiguous


def test_a_table_that_the_architecture_promises_is_missing(tmp_path):
    folder = checkpoint(tmp_path / "m", storage(), name="model.tok.weight", tie_word_embeddings=False)
    assert refusal(folder).code == "TENSOR_MISSING"
    assert open_table(folder, tensor="model.tok.weight").shape == (5, 4)


def test_paths_that_are_not_there(tmp_path):
    for path in (tmp_path / "no.safetensors", tmp_path / "no.npy", tmp_path / "no", tmp_path / ("x" * 5000)):
        error = refusal(path)
        assert (type(error), error.code) == (UsageError, "FILE_UNREADABLE")


def test_folders_that_are_no_checkpoints(tmp_path):
    assert refusal(tmp_path).code == "CHECKPOINT_MISSING"
    save(tmp_path / "embed_tokens.safetensors", {EMBED: ("F32", storage())})
    error = refusal(tmp_path)
    assert error.code == "CHECKPOINT_MISSING"
    assert "'embed_tokens.safetensors'" in str(error)
    (tmp_path / "embed_tokens.safetensors").rename(tmp_path / "model.safetensors")
    assert refusal(tmp_path).code == "CHECKPOINT_MISSING"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_closed_folder(tmp_path):
    folder = checkpoint(tmp_path / "m", storage())
    folder.chmod(0)
    try:
        assert refusal(folder).code == "FILE_UNREADABLE"
        assert refusal(folder / "model.safetensors").code == "FILE_UNREADABLE"
    finally:
        folder.chmod(0o700)


def test_other_formats(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(100))
    assert refusal(tmp_path / "model.gguf").code == "FORMAT_UNKNOWN"


def test_single_file_and_index_together_are_ambiguous(tmp_path):
    folder = sharded(tmp_path / "m", storage())
    save(folder / "model.safetensors", {EMBED: ("F32", storage(seed=1)), HEAD: ("F32", storage())})
    assert refusal(folder).code == "CHECKPOINT_AMBIGUOUS"


def test_the_table_in_two_shards_is_ambiguous(tmp_path):
    folder = sharded(tmp_path / "m", storage())
    save(folder / "model-00001-of-00003.safetensors", {EMBED: ("F32", storage(seed=1)), **layer()})
    assert refusal(folder).code == "CHECKPOINT_AMBIGUOUS"


def test_a_shard_is_missing_or_lacks_the_table(tmp_path):
    folder = sharded(tmp_path / "m", storage())
    assert refusal(edit_index(folder, **{EMBED: "gone.safetensors"})).code == "SHARD_MISSING"
    edit_index(folder, **{EMBED: "model-00003-of-00003.safetensors"})
    # It is elsewhere: a loader that goes by the files, not by the index, would find it.
    assert refusal(folder).code == "CHECKPOINT_AMBIGUOUS"
    (folder / "model-00002-of-00003.safetensors").unlink()
    assert refusal(folder).code == "TENSOR_MISSING"


@pytest.mark.parametrize(
    ("shard", "code"),
    [
        ("../outside.safetensors", "INDEX_UNSAFE"),
        ("/etc/outside.safetensors", "INDEX_UNSAFE"),
        ("sub/inside.safetensors", "INDEX_UNSAFE"),
        ("sub\\inside.safetensors", "INDEX_UNSAFE"),
        ("C:outside.safetensors", "INDEX_UNSAFE"),
        ("..", "INDEX_UNSAFE"),
        ("", "INDEX_MALFORMED"),
        ("nul\0.safetensors", "INDEX_UNSAFE"),
        ("\ud800.safetensors", "JSON_MALFORMED"),
        ("x" * 5000 + ".safetensors", "INDEX_UNSAFE"),
        ("pytorch_model.bin", "PICKLE_REFUSED"),
        ("shard.gguf", "INDEX_MALFORMED"),
    ],
)
def test_an_index_cannot_reach_outside_the_folder(tmp_path, shard, code):
    outside = sharded(tmp_path / "m", storage())
    save(tmp_path / "outside.safetensors", {EMBED: ("F32", storage())})
    # Not even through an entry that has nothing to do with the table.
    assert refusal(edit_index(outside, **{"model.norm.weight": shard})).code == code


@pytest.mark.parametrize(
    "index", [[], {}, {"weight_map": {}}, {"weight_map": [EMBED]}, {"weight_map": {EMBED: 1}}]
)
def test_an_index_of_another_shape(tmp_path, index):
    folder = sharded(tmp_path / "m", storage())
    write_json(folder / "model.safetensors.index.json", index)
    assert refusal(folder).code == "INDEX_MALFORMED"


# ------------------------------------------------------------------------------------------------------- npy


def npy(header: bytes, body: bytes = b"", version=b"\x01\x00") -> bytes:
    return b"\x93NUMPY" + version + len(header).to_bytes(2, "little") + header + body


FLOAT_HEADER = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "NPY_MALFORMED"),
        (b"\x93NUMPY", "NPY_MALFORMED"),
        (npy(FLOAT_HEADER, bytes(24), b"\x04\x00"), "NPY_MALFORMED"),
        (npy(FLOAT_HEADER, bytes(23)), "NPY_TRUNCATED"),
        (npy(FLOAT_HEADER, bytes(25)), "NPY_MALFORMED"),
        (npy(FLOAT_HEADER[:-10]), "NPY_MALFORMED"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{", "NPY_MALFORMED"),
        (npy(FLOAT_HEADER.replace(b"(2, 3)", b"(6,)"), bytes(24)), "NOT_A_TABLE"),
        (npy(FLOAT_HEADER.replace(b"(2, 3)", b"()"), bytes(4)), "NOT_A_TABLE"),
        (npy(FLOAT_HEADER.replace(b"(2, 3)", b"(-2, -3)"), bytes(24)), "NPY_MALFORMED"),
        (npy(FLOAT_HEADER.replace(b"(2, 3)", b"(2, 3, 1)"), bytes(24)), "NOT_A_TABLE"),
        (npy(FLOAT_HEADER.replace(b"(2, 3)", b"(2 2, 3)"), bytes(24)), "NPY_MALFORMED"),
        (npy(FLOAT_HEADER.replace(b"(2, 3)", b"(9" + b"9" * 30 + b", 3)"), bytes(24)), "NPY_MALFORMED"),
        (npy(FLOAT_HEADER.replace(b"(2, 3)", b"(999999999999999999, 3)"), bytes(24)), "NPY_MALFORMED"),
        (npy(FLOAT_HEADER.replace(b"(2, 3)", b"(9999999999, 9999)"), bytes(24)), "NPY_TRUNCATED"),
        (npy(FLOAT_HEADER.replace(b"False", b"True"), bytes(24)), "FORTRAN_ORDER"),
        (npy(FLOAT_HEADER.replace(b"<f4", b">f4"), bytes(24)), "DTYPE_UNSUPPORTED"),
        (npy(FLOAT_HEADER.replace(b"<f4", b"<f8"), bytes(48)), "DTYPE_UNSUPPORTED"),
        (npy(FLOAT_HEADER.replace(b"<f4", b"|V2"), bytes(12)), "DTYPE_UNSUPPORTED"),
        (npy(FLOAT_HEADER.replace(b"<f4", b"|O"), bytes(24)), "PICKLE_REFUSED"),
        (npy(FLOAT_HEADER.replace(b"'<f4'", b"[('a', '|O')]"), bytes(24)), "PICKLE_REFUSED"),
        (npy(FLOAT_HEADER.replace(b"False", b"__import__('os')"), bytes(24)), "NPY_MALFORMED"),
    ],
)
def test_lying_npy_files(tmp_path, data, code):
    path = tmp_path / "x.npy"
    path.write_bytes(data)
    error = refusal(path)
    assert (type(error), error.code) == (InvalidInputError, code)


def test_the_npy_behind_the_lies_is_accepted_and_takes_no_tensor_name(tmp_path):
    path = tmp_path / "x.npy"
    path.write_bytes(npy(FLOAT_HEADER, bytes(24)))
    assert open_table(path).shape == (2, 3)
    assert refusal(path, tensor=EMBED).code == "TENSOR_MISSING"


def test_arrays_of_objects_are_pickles(tmp_path):
    np.save(tmp_path / "x.npy", np.array([[1, "a"]], dtype=object), allow_pickle=True)
    assert refusal(tmp_path / "x.npy").code == "PICKLE_REFUSED"


# --------------------------------------------------------------------------------------------- rows and views


def make(tmp_path: Path, raw: np.ndarray, dtype: str, name="t.safetensors") -> Table:
    return open_table(save(tmp_path / name, {EMBED: (dtype, raw)}))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


@given(st.data(), strategies.dtypes(), strategies.dtypes())
def test_rows_and_take_are_slices_of_the_cast_table(scratch, data, stored, served):
    raw = data.draw(strategies.tables(stored))
    table = make(scratch, raw, stored).as_dtype(served)
    assert (table.dtype, table.stored_dtype) == (served, stored)
    expected = cast(raw, stored, served)
    start = data.draw(st.integers(0, len(raw)))
    stop = data.draw(st.integers(start, len(raw)))
    assert table.rows(start, stop).tobytes() == expected[start:stop].tobytes()
    assert table.rows(start, stop).dtype == DTYPES[served]
    ids = data.draw(st.lists(st.integers(0, len(raw) - 1), max_size=5))
    assert table.take(ids).tobytes() == expected[ids].tobytes()
    assert table.take(ids).shape == (len(ids), raw.shape[1])
    blocks = list(table.blocks(data.draw(st.integers(1, 200))))
    assert b"".join(block.tobytes() for _, block in blocks) == expected.tobytes()
    assert [first for first, _ in blocks] == np.cumsum([0] + [len(b) for _, b in blocks])[:-1].tolist()


def test_bfloat16_rows_are_bit_patterns(tmp_path):
    rows = make(tmp_path, storage("BF16"), "BF16").rows(1, 3)
    assert rows.dtype == np.uint16
    np.testing.assert_array_equal(rows, storage("BF16")[1:3])


def test_rows_without_a_cast_are_a_read_only_view_of_the_map(tmp_path):
    table = make(tmp_path, storage(), "F32")
    assert np.shares_memory(table.rows(0, 3), table.rows(2, 5))
    assert not table.rows(0, 3).flags.writeable


def test_an_unaligned_file_gives_aligned_rows(tmp_path):
    raw = storage()
    header = {EMBED: {"dtype": "F32", "shape": [5, 4], "data_offsets": [0, 80]}}
    text = json.dumps(header).encode()
    text += b" " * (3 - len(text) % 8 + 8)
    path = tmp_path / "odd.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw.tobytes())
    rows = open_table(path).rows(0, 5)
    assert rows.flags.aligned
    assert rows.tobytes() == raw.tobytes()


@pytest.mark.parametrize("ids", [[-1], [5], [0, 5], [2**70], [1.0], ["1"], [True], [None]])
def test_ids_outside_the_table_are_refused(tmp_path, ids):
    with pytest.raises(UsageError) as caught:
        make(tmp_path, storage(), "F32").take(ids)
    assert caught.value.code == "ROWS_OUT_OF_RANGE"


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (0, 6), (3, 2), (6, 6)])
def test_ranges_outside_the_table_are_refused(tmp_path, start, stop):
    with pytest.raises(UsageError) as caught:
        make(tmp_path, storage(), "F32").rows(start, stop)
    assert caught.value.code == "ROWS_OUT_OF_RANGE"


def test_numpy_integers_are_ids(tmp_path):
    assert make(tmp_path, storage(), "F32").take(np.array([4, 0])).tobytes() == storage()[[4, 0]].tobytes()


def test_a_view_back_to_the_stored_type_is_what_is_stored(tmp_path):
    table = make(tmp_path, storage(), "F32")
    assert table.as_dtype("BF16").as_dtype("F32").rows(0, 5).tobytes() == storage().tobytes()


# ---------------------------------------------------------------------------------------------------- digests


def independent_digest(dtype: str, raw: np.ndarray) -> str:
    shape = ",".join(map(str, raw.shape))
    return hashlib.sha256(f'{{"dtype":"{dtype}","shape":[{shape}]}}\n'.encode() + raw.tobytes()).hexdigest()


@given(st.data(), strategies.dtypes(), strategies.dtypes())
def test_digests_are_of_the_served_bytes(scratch, data, stored, served):
    raw = data.draw(strategies.tables(stored))
    table = make(scratch, raw, stored)
    assert table.as_dtype(served).digest() == independent_digest(served, cast(raw, stored, served))


def test_digests_do_not_depend_on_where_the_table_lies(tmp_path):
    raw = storage("F16")
    np.save(tmp_path / "t.npy", raw)
    tables = [
        open_table(checkpoint(tmp_path / "a", raw, dtype="F16")),
        open_table(sharded(tmp_path / "b", raw, dtype="F16")),
        open_table(tmp_path / "t.npy"),
    ]
    assert {table.digest() for table in tables} == {independent_digest("F16", raw)}


def test_digests_over_several_blocks_and_small_memory(tmp_path):
    raw = np.random.default_rng(3).standard_normal((9000, 1024)).astype("<f4")
    path = save(tmp_path / "big.safetensors", {EMBED: ("F32", raw)})
    expected = independent_digest("F32", raw), independent_digest("F16", raw.astype("<f2"))
    del raw
    tracemalloc.start()
    try:
        table = open_table(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        table.rows(4000, 4001)
        assert (table.digest(), table.as_dtype("F16").digest()) == expected
        check_finite(table)
        # 37 MB in the file; a block and its casts are all that may be in memory.
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()


# --------------------------------------------------------------------------------- finiteness, compatibility


@given(st.data(), strategies.dtypes())
def test_rows_with_nan_or_infinity_are_named(scratch, data, dtype):
    raw, bad = data.draw(strategies.nonfinite_tables(dtype))
    with pytest.raises(InvalidInputError) as caught:
        check_finite(make(scratch, raw, dtype))
    assert caught.value.code == "NON_FINITE"
    listed = ", ".join(map(str, bad[:10])) + (", …" if len(bad) > 10 else "")
    assert str(caught.value).endswith(f"in {len(bad)} {'row' if len(bad) == 1 else 'rows'}: {listed}")


@given(st.data(), strategies.dtypes())
def test_finite_tables_pass(scratch, data, dtype):
    check_finite(make(scratch, data.draw(strategies.tables(dtype)), dtype))


def test_overflow_in_the_served_type_is_found(tmp_path):
    raw = storage()
    raw[3, 1] = 70_000
    table = make(tmp_path, raw, "F32")
    check_finite(table)
    with pytest.raises(InvalidInputError, match="infinity in F16 in 1 row: 3"):
        check_finite(table.as_dtype("F16"))


def test_non_finite_rows_in_later_blocks_are_found(tmp_path):
    raw = np.zeros((9000, 512), "<f4")
    raw[8999, 511] = np.nan
    with pytest.raises(InvalidInputError, match="in 1 row: 8999"):
        check_finite(make(tmp_path, raw, "F32"))


def test_tables_that_cannot_be_compared(tmp_path):
    base = make(tmp_path, storage(), "F32", "a.safetensors")
    check_compatible(base, base)
    other_dtype = make(tmp_path, storage("F16"), "F16", "b.safetensors")
    for reference, code in (
        (make(tmp_path, storage(rows=6), "F32", "c.safetensors"), "SHAPE_MISMATCH"),
        (make(tmp_path, storage(width=3), "F32", "d.safetensors"), "SHAPE_MISMATCH"),
        (other_dtype, "DTYPE_MISMATCH"),
    ):
        with pytest.raises(InvalidInputError) as caught:
            check_compatible(base, reference)
        assert caught.value.code == code
    check_compatible(base, other_dtype.as_dtype("F32"))


# -------------------------------------------------------------------------------------------------- mutations


def open_or_refuse(path: Path) -> Table | None:
    """The table, or None where it is refused; any other exception fails the test."""
    try:
        table = open_table(path)
        check_finite(table)
    except CertifyError as error:
        message = str(error)
        return None if message and error.code and "\n" not in message else pytest.fail(message)
    return table


@settings(max_examples=examples(200))
@given(st.data())
def test_a_damaged_file_is_refused_or_is_the_table_that_the_library_reads(scratch, data):
    file = data.draw(strategies.safetensors_files())
    damaged = data.draw(strategies.mutants(file.data))
    path = scratch / "damaged.safetensors"
    path.write_bytes(damaged)
    table = open_or_refuse(path)
    if table is not None:
        theirs = dict(safetensors.deserialize(damaged))[table.tensor]
        assert (theirs["dtype"], tuple(theirs["shape"])) == (table.dtype, table.shape)
        assert table.rows(0, table.shape[0]).tobytes() == bytes(theirs["data"])


@settings(max_examples=examples(200))
@given(st.data())
def test_damaged_configurations_indices_and_npy_files_raise_nothing_unforeseen(scratch, data):
    folder = scratch / "checkpoint"
    if not folder.exists():
        sharded(folder, storage(), tie_word_embeddings=False, vocab_size=5, hidden_size=4)
        np.save(scratch / "t.npy", storage())
    victim = data.draw(
        st.sampled_from([folder / "config.json", folder / "model.safetensors.index.json", scratch / "t.npy"])
    )
    original = victim.read_bytes()
    victim.write_bytes(data.draw(strategies.mutants(original)))
    try:
        table = open_or_refuse(victim if victim.suffix == ".npy" else folder)
    finally:
        victim.write_bytes(original)
    if table is not None and victim.suffix != ".npy":
        assert table.rows(0, 5).tobytes() == storage().tobytes()
