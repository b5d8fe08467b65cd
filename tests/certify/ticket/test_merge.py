"""Merged checkpoints: one shard rewritten, the rest copied; the base untouched; whole or not at all."""

from __future__ import annotations

import errno
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_checkpoint import (
    EMBED,
    HEAD,
    IDS,
    Release,
    digests,
    make_ticket,
    random_bits,
    read_bits,
    write_checkpoint,
    write_file,
)

from certify.base.errors import CertifyError, InternalError, InvalidInputError, UsageError
from certify.cli.main import run
from certify.ticket import merge as merge_module
from certify.ticket.merge import MergeReport, apply
from certify.ticket.released import open_source
from certify.ticket.serving import verify
from certify.ticket.transfer import open_parts

TABLE_SHARD = "model-00002-of-00003.safetensors"


class Case(Release):
    def __init__(self, folder: Path, dtype: str = "F16", *, sharded: bool = True, tied: bool = False) -> None:
        ticket = {"allow_tied": tied}
        super().__init__(folder, dtype, ticket=ticket, sharded=sharded, tied=tied, head=not tied)
        self.out = folder / "merged" / "model"

    def run(self, *, link: bool = False) -> MergeReport:
        return apply(open_parts(open_source(self.spec), self.base), self.out, link=link)

    def nothing_left(self) -> bool:
        return not self.out.parent.exists() or not any(self.out.parent.iterdir())


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_only_the_shard_with_the_table_changes(tmp_path: Path, dtype: str) -> None:
    case = Case(tmp_path, dtype)
    before = digests(case.base)
    report = case.run()
    assert digests(case.base) == before
    after = digests(case.out)
    assert after.keys() == before.keys()
    assert {name for name in before if after[name] != before[name]} == {TABLE_SHARD}
    np.testing.assert_array_equal(read_bits(case.out / TABLE_SHARD), case.expected)
    for name in ("model.a.weight", "model.b.weight"):
        original = read_bits(case.base / TABLE_SHARD, name)
        np.testing.assert_array_equal(read_bits(case.out / TABLE_SHARD, name), original)
    assert report.rewritten == TABLE_SHARD
    assert set(report.copied) == before.keys() - {TABLE_SHARD}
    assert report.linked == report.left_out == ()
    assert report.transfer.file_sha256 == after[TABLE_SHARD]


def test_exactly_the_bytes_of_the_rows_change(case: Case) -> None:
    case.run()
    before, after = ((folder / TABLE_SHARD).read_bytes() for folder in (case.base, case.out))
    changed = np.flatnonzero(np.frombuffer(before, np.uint8) != np.frombuffer(after, np.uint8))
    length = int.from_bytes(before[:8], "little")
    start = 8 + length + json.loads(before[8 : 8 + length])[EMBED]["data_offsets"][0]
    row_bytes = case.base_bits[0].nbytes
    assert {int(position - start) // row_bytes for position in changed} == set(IDS)


def test_single_file_checkpoint(tmp_path: Path) -> None:
    case = Case(tmp_path, sharded=False)
    report = case.run()
    assert report.rewritten == "model.safetensors"
    np.testing.assert_array_equal(read_bits(case.out / "model.safetensors"), case.expected)


def test_merged_checkpoint_is_verified(case: Case) -> None:
    case.run()
    assert verify(open_source(case.spec), case.out, base=case.base).verified


def test_links_share_only_what_was_not_rewritten(case: Case) -> None:
    before = digests(case.base)
    report = case.run(link=True)
    assert set(report.linked) == {"model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors"}
    for name in before:
        assert (case.out / name).samefile(case.base / name) == (name in report.linked)
    assert digests(case.base) == before
    np.testing.assert_array_equal(read_bits(case.out / TABLE_SHARD), case.expected)


def test_base_of_symbolic_links_as_in_a_hub_cache(case: Case) -> None:
    blobs = case.folder / "blobs"
    blobs.mkdir()
    for path in list(case.base.iterdir()):
        path.rename(blobs / path.name)
        path.symlink_to(Path("..") / "blobs" / path.name)
    before = digests(blobs)
    case.run(link=True)
    assert digests(blobs) == before
    assert not any(path.is_symlink() for path in case.out.iterdir())
    np.testing.assert_array_equal(read_bits(case.out / TABLE_SHARD), case.expected)


def test_other_copies_of_the_weights_are_left_out(case: Case) -> None:
    for name in ("pytorch_model.bin", "model.fp16.safetensors", "model.gguf", "pytorch_model.bin.index.json"):
        (case.base / name).write_bytes(b"stale")
    (case.base / ".git").mkdir()
    (case.base / "additional_chat_templates").mkdir()
    (case.base / "additional_chat_templates" / "tool.jinja").write_text("x")
    (case.base / "README.md").write_text("x")
    report = case.run()
    left = {
        ".git",
        "model.fp16.safetensors",
        "model.gguf",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
    }
    assert set(report.left_out) == left
    assert digests(case.out).keys() == digests(case.base).keys() - left
    assert (case.out / "additional_chat_templates" / "tool.jinja").read_text() == "x"


# Three shards and four other files are copied; with links, one shard and four files.
@pytest.mark.parametrize(
    ("link", "fails_at"), [(False, copy) for copy in range(7)] + [(True, copy) for copy in range(5)]
)
def test_full_disk_leaves_nothing(
    case: Case, link: bool, fails_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digests(case.base)
    calls = 0
    real = shutil.copyfile

    def copyfile(source: Path, target: Path) -> None:
        nonlocal calls
        if calls == fails_at:
            target.write_bytes(source.read_bytes()[:10])
            raise OSError(errno.ENOSPC, "No space left on device")
        calls += 1
        real(source, target)

    monkeypatch.setattr(merge_module.shutil, "copyfile", copyfile)
    with pytest.raises(UsageError, match="No space left") as error:
        case.run(link=link)
    assert error.value.code == "FILE_UNWRITABLE"
    assert case.nothing_left()
    assert digests(case.base) == before


def test_interruption_leaves_nothing(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(merge_module, "_patch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        case.run()
    assert case.nothing_left()


def test_killed_process_leaves_no_checkpoint(case: Case) -> None:
    program = f"""
import os, signal
from pathlib import Path
from certify.ticket import merge
from certify.ticket.released import open_source
from certify.ticket.transfer import open_parts
merge._patch = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
parts = open_parts(open_source({case.spec!r}), Path({str(case.base)!r}))
merge.apply(parts, Path({str(case.out)!r}))
"""
    before = digests(case.base)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert [path.suffix for path in case.out.parent.iterdir()] == [".part"]
    assert digests(case.base) == before
    case.run()
    np.testing.assert_array_equal(read_bits(case.out / TABLE_SHARD), case.expected)


@pytest.mark.parametrize("offset", [-1, 0, 9, 40 * 32])
def test_damage_outside_the_rows_is_caught(case: Case, offset: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Before the table, in its first row, in that row again, and behind the table: the reader of tables sees
    # only two of these.
    real = merge_module._patch

    def damaging(path: Path, info: merge_module.TensorInfo, rows: merge_module.Rows) -> None:
        real(path, info, rows)
        data = bytearray(path.read_bytes())
        data[info.start + offset] ^= 1
        path.write_bytes(data)

    monkeypatch.setattr(merge_module, "_patch", damaging)
    with pytest.raises(InternalError) as error:
        case.run()
    assert error.value.code == "WRITE_DAMAGED"
    assert case.nothing_left()


def test_unpatched_copy_is_caught(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge_module, "_patch", lambda *_: None)
    with pytest.raises(InternalError) as error:
        case.run()
    assert error.value.code == "WRITE_DAMAGED"
    assert case.nothing_left()


def test_taken_folder_is_left_alone(case: Case) -> None:
    case.out.mkdir(parents=True)
    (case.out / "keep").write_text("mine")
    with pytest.raises(UsageError) as error:
        case.run()
    assert error.value.code == "OUT_EXISTS"
    assert digests(case.out).keys() == {"keep"}


def test_empty_folder_is_used(case: Case) -> None:
    case.out.mkdir(parents=True)
    case.run()
    np.testing.assert_array_equal(read_bits(case.out / TABLE_SHARD), case.expected)


@pytest.mark.parametrize("where", [".", "sub/model", ".."])
def test_out_and_base_must_be_apart(case: Case, where: str) -> None:
    before = digests(case.base)
    case.out = case.base / where
    with pytest.raises(UsageError) as error:
        case.run()
    assert error.value.code == "OUT_IS_BASE"
    assert digests(case.base) == before


def refused(case: Case) -> str:
    with pytest.raises(CertifyError) as error:
        case.run()
    assert case.nothing_left()
    assert "\n" not in str(error.value)
    return error.value.code


def test_bare_table_is_no_checkpoint(case: Case) -> None:
    case.base = write_file(case.folder / "bare.safetensors", {EMBED: ("F16", case.base_bits)})
    assert refused(case) == "NOT_A_CHECKPOINT"


def test_checkpoint_in_another_dtype(tmp_path: Path) -> None:
    case = Case(tmp_path, "F32")
    case.spec = make_ticket(tmp_path / "r" / "t.json", case.base, case.tuned, IDS, dtype="BF16")
    with pytest.raises(InvalidInputError, match="DIR --dtype bf16") as error:
        case.run()
    assert error.value.code == "DTYPE_MISMATCH"
    assert run(["model", "import", str(case.base), "--out", str(tmp_path / "b16"), "--dtype", "bf16"]) == 0
    case.base = tmp_path / "b16"
    case.run()


def test_checkpoint_with_an_adapter(case: Case) -> None:
    (case.base / "adapter_config.json").write_text("{}")
    assert refused(case) == "ADAPTER_IN_FOLDER"


def test_missing_shard(case: Case) -> None:
    (case.base / "model-00003-of-00003.safetensors").unlink()
    assert refused(case) == "SHARD_MISSING"


def test_wrong_base(case: Case) -> None:
    shutil.rmtree(case.base)
    write_checkpoint(case.base, random_bits("F16", 77), "F16")
    assert refused(case) == "WRONG_BASE"


def test_pickled_base(case: Case) -> None:
    for path in case.base.glob("*.safetensors*"):
        path.unlink()
    (case.base / "pytorch_model.bin").write_bytes(b"\x80\x02")
    assert refused(case) == "PICKLE_REFUSED"


def test_tied_base_needs_a_tied_ticket(case: Case) -> None:
    config = json.loads((case.base / "config.json").read_text())
    (case.base / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    assert refused(case) == "TIED_HEAD"


def test_quantised_base(case: Case) -> None:
    config = json.loads((case.base / "config.json").read_text())
    (case.base / "config.json").write_text(json.dumps(config | {"quantization_config": {}}))
    assert refused(case) == "QUANTISED_TABLE"


def test_tied_ticket(tmp_path: Path) -> None:
    case = Case(tmp_path, tied=True)
    case.run()
    np.testing.assert_array_equal(read_bits(case.out / TABLE_SHARD), case.expected)


def test_tied_head_stored_apart(tmp_path: Path) -> None:
    case = Case(tmp_path, sharded=False, tied=True)
    tensors = {EMBED: ("F16", case.base_bits), HEAD: ("F16", case.base_bits)}
    write_file(case.base / "model.safetensors", tensors)
    assert refused(case) == "TIED_HEAD"


def test_transformers_loads_the_merged_checkpoint(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs the extra tune")
    pytest.importorskip("transformers", reason="needs the extra tune")
    from tiny_llama import batch_of, tiny_llama
    from transformers import LlamaForCausalLM

    model = tiny_llama(dtype=torch.bfloat16)
    base, tuned = tmp_path / "base", tmp_path / "tuned"
    # Small enough a limit to give several shards.
    model.save_pretrained(base, max_shard_size="20KB")
    assert (base / "model.safetensors.index.json").exists()
    with torch.no_grad():
        model.get_input_embeddings().weight[[0, 3, 17, 39, 57, 72]] += 0.5
    model.save_pretrained(tuned, max_shard_size="20KB")
    spec = make_ticket(tmp_path / "release" / "tickets.json", base, tuned, (0, 3, 17, 39, 57, 72))
    apply(open_parts(open_source(spec), base, tuned), tmp_path / "merged")
    ids = batch_of(0)["input_ids"]
    with torch.no_grad():
        before, after, merged = (
            LlamaForCausalLM.from_pretrained(tmp_path / name, dtype=torch.bfloat16)(ids).logits
            for name in ("base", "tuned", "merged")
        )
    assert torch.equal(merged, after)
    assert not torch.equal(merged, before)
