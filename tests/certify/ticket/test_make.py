"""Making tickets: what ``lottery.find`` writes, what it refuses, and that it writes all or nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from ticket_folders import (
    MOVED,
    PIECES,
    TENSOR,
    base_table,
    file_sha256,
    make_ticket,
    pieces,
    tensor_sha256,
    tuned_table,
    write_json,
    write_sources,
    write_tokenizer,
)

import certify
import lottery
from certify.base.errors import CertifyError, InvalidInputError, UsageError
from certify.ticket.schema import read_ticket_file


def tree(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def exit_code(path: Path, **options: Any) -> int:
    return int(certify.check(path, policy="selection", engine="numpy", **options).exit_code)


def test_what_a_ticket_says_is_true(tmp_path: Path) -> None:
    path = make_ticket(tmp_path)
    ticket = json.loads(path.read_text(encoding="utf-8"))["tickets"][0]
    base, tuned = base_table(), tuned_table()
    assert [token["id"] for token in ticket["tokens"]] == list(MOVED)
    assert ticket["base"]["tensor_sha256"] == tensor_sha256(base)
    assert ticket["reference"]["tensor_sha256"] == tensor_sha256(tuned)
    assert (ticket["base"]["dtype"], ticket["base"]["shape"], ticket["base"]["tied"]) == (
        "F16",
        [64, 32],
        False,
    )
    for part in (ticket["base"], ticket["reference"], ticket["tokenizer"]):
        for file in part["files"]:
            assert file["sha256"] == file_sha256(path.parent / file["path"])
    assert ticket["tokenizer"]["size"] == PIECES
    assert ticket["tokenizer"]["sha256"] == file_sha256(path.parent / "base" / "tokenizer.json")
    rows = load_file(path.parent / ticket["released"]["rows"]["path"])
    assert rows["rows.served"].tobytes() == tuned[list(MOVED)].tobytes()
    names = {i: piece for piece, i in pieces().items()}
    for token in ticket["tokens"]:
        i = token["id"]
        assert token["piece"] == names[i]
        assert 10 ** token["log10_p"] == pytest.approx(token["p"], rel=1e-9)
        shift = np.linalg.norm(tuned[i].astype(np.float64) - base[i].astype(np.float64))
        assert token["shift_norm"] == pytest.approx(shift, rel=1e-9)
    chosen = ticket["selection"]
    assert (chosen["n"], chosen["tests"], chosen["alpha"], chosen["correction"]) == (32, 57, "0.05", "none")
    assert chosen["tau"] == pytest.approx(np.sqrt(np.log(2 / 0.05) / 32), rel=1e-12)
    assert {tuple(group["ids"]) for group in chosen["excluded"]} == {(0,), (1,), (2,), (60, 61, 62, 63)}


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = make_ticket(tmp_path / "a"), make_ticket(tmp_path / "b")
    assert tree(first.parent) == tree(second.parent)


def test_only_the_table_is_bundled(tmp_path: Path) -> None:
    path = make_ticket(tmp_path)
    (name,) = [
        f.path for f in read_ticket_file(path).tickets[0].base.files if f.path.endswith(".safetensors")
    ]
    assert set(load_file(path.parent / name)) == {TENSOR}


def test_a_ticket_inside_the_checkpoint_folder_needs_no_bundle(tmp_path: Path) -> None:
    checkpoint, reference = write_sources(tmp_path / "s", base_table(), tuned_table(), pieces())
    inside = checkpoint / "tuned.safetensors"
    reference.rename(inside)
    lottery.find(checkpoint, inside, out=checkpoint / "tickets.json", ticket_id="x", engine="numpy")
    assert exit_code(checkpoint / "tickets.json") == 0


def test_tables_elsewhere_are_bound_by_digest_only(tmp_path: Path) -> None:
    (ticket,) = read_ticket_file(make_ticket(tmp_path, bundle=False)).tickets
    assert (ticket.base.path, ticket.base.files, ticket.reference.path) == (None, (), None)
    assert ticket.base.tensor_sha256 == tensor_sha256(base_table())


def test_fp32_rows_keep_what_the_served_dtype_drops(tmp_path: Path) -> None:
    base, tuned = base_table().astype(np.float32), tuned_table().astype(np.float32) + np.float32(1e-6)
    path = make_ticket(tmp_path, base=base, tuned=tuned, dtype="F16")
    rows = load_file(path.parent / "rows" / "tiny.safetensors")["rows.fp32"]
    ids = list(read_ticket_file(path).tickets[0].ids)
    assert rows.tobytes() == tuned[ids].tobytes()
    assert exit_code(path) == 0


def test_stored_dtypes_that_differ_need_a_served_dtype(tmp_path: Path) -> None:
    options: dict[str, Any] = {"base": base_table().astype(np.float32), "tuned": tuned_table()}
    with pytest.raises(UsageError, match="--served-dtype"):
        make_ticket(tmp_path, **options)
    assert exit_code(make_ticket(tmp_path, dtype="F16")) == 0


@pytest.mark.parametrize("ticket_id", ["", "..", "../x", "/x", "a/b", "a b", "-x", "a\n", "é", "x" * 65])
def test_a_name_cannot_reach_outside(tmp_path: Path, ticket_id: str) -> None:
    make_ticket(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(UsageError):
        make_ticket(tmp_path, ticket_id=ticket_id)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("alpha", ["5e-2", "0.050", ".05", "00.05", "5E-2"])
def test_every_spelling_of_a_level_makes_a_ticket_that_checks(tmp_path: Path, alpha: str) -> None:
    path = make_ticket(tmp_path, alpha=alpha)
    assert read_ticket_file(path).tickets[0].ids == MOVED
    assert exit_code(path) == 0


def test_a_special_row_by_name_is_a_ticket_and_not_an_exclusion(tmp_path: Path) -> None:
    path = make_ticket(tmp_path, rule="ids:1")
    (ticket,) = read_ticket_file(path).tickets
    assert ticket.ids == (1,)
    assert not any(1 in group.ids for group in ticket.selection.excluded)
    assert exit_code(path) == 0


def test_many_ids_by_name_make_a_ticket_that_checks(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    base = rng.normal(0, 0.02, (3000, 8)).astype(np.float16)
    vocab = {f"w{i}": i for i in range(3000)}
    path = make_ticket(
        tmp_path, base=base, tuned=base, vocab=vocab, rule="ids:" + ",".join(map(str, range(100, 2500)))
    )
    assert len(read_ticket_file(path).tickets[0].ids) == 2400
    assert exit_code(path) == 0


def test_hundreds_of_special_ids_make_a_ticket_that_checks(tmp_path: Path) -> None:
    checkpoint, reference = write_sources(tmp_path / "s", base_table(), tuned_table(), None)
    vocab = {f"<special_{i}>" * (400 if i == 3 else 1): i for i in range(64)}
    added = [{"id": i, "content": piece, "special": True} for piece, i in vocab.items() if i not in MOVED]
    model = {"type": "BPE", "vocab": vocab, "merges": []}
    write_json(checkpoint / "tokenizer.json", {"added_tokens": added, "model": model})
    out = tmp_path / "t" / "tickets.json"
    if len(next(piece for piece, i in vocab.items() if i == 3)) > 4096:
        with pytest.raises(InvalidInputError):
            lottery.find(checkpoint, reference, out=out, ticket_id="x", bundle=True, engine="numpy")
        return
    lottery.find(checkpoint, reference, out=out, ticket_id="x", bundle=True, engine="numpy")
    assert exit_code(out) == 0


@pytest.mark.parametrize("length", [4096, 4097])
def test_a_piece_as_long_as_any_text(tmp_path: Path, length: int) -> None:
    vocab = {(piece if i != MOVED[0] else "x" * length): i for piece, i in pieces().items()}
    try:
        path = make_ticket(tmp_path, vocab=vocab)
    except InvalidInputError:
        assert length > 4096
        return
    assert exit_code(path) == 0


def test_a_tokenizer_larger_than_the_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError) as caught:
        make_ticket(tmp_path, vocab=pieces() | {"a": 60, "b": 64})
    assert caught.value.code == "TOKENIZER_TABLE_SIZE"


def test_swapped_tables_are_told(tmp_path: Path) -> None:
    checkpoint, tuned = write_sources(tmp_path, base_table(), tuned_table(), pieces())
    out = tmp_path / "ticket" / "tickets.json"
    with pytest.raises(UsageError) as caught:
        lottery.find(tuned, checkpoint, out=out, ticket_id="t", engine="numpy", workers=1)
    assert caught.value.code == "TABLES_SWAPPED"
    assert not out.exists()


def test_a_tokenizer_of_another_base_is_refused(tmp_path: Path) -> None:
    checkpoint, tuned = write_sources(tmp_path, base_table(), tuned_table(), pieces())
    (tmp_path / "other").mkdir()
    write_tokenizer(tmp_path / "other", pieces() | {"a": 60})
    with pytest.raises(UsageError) as caught:
        lottery.find(
            checkpoint, tuned, out=tmp_path / "t.json", ticket_id="t", tokenizer=tmp_path / "other", workers=1
        )
    assert caught.value.code == "WRONG_TOKENIZER"


# --- all or nothing --------------------------------------------------------------------------------------


def test_a_second_ticket_of_the_same_name_needs_replace(tmp_path: Path) -> None:
    path = make_ticket(tmp_path)
    before = tree(path.parent)
    with pytest.raises(UsageError, match="--replace"):
        make_ticket(tmp_path, alpha="0.5")
    assert tree(path.parent) == before
    make_ticket(tmp_path, alpha="0.95", replace=True)
    assert exit_code(path) == 0
    assert read_ticket_file(path).tickets[0].selection.alpha == "0.95"


def test_a_replacement_that_fails_leaves_the_old_ticket_whole(tmp_path: Path) -> None:
    path = make_ticket(tmp_path)
    before = tree(path.parent)
    # Another base under the same folder: the bundle's place is taken.
    other = tmp_path / "other"
    checkpoint, reference = write_sources(other, base_table() * np.float16(2), tuned_table(), pieces())
    with pytest.raises(CertifyError) as caught:
        lottery.find(
            checkpoint, reference, out=path, ticket_id="tiny", bundle=True, replace=True, engine="numpy"
        )
    assert caught.value.code == "BUNDLE_TAKEN"
    assert exit_code(path) == 0
    assert tree(path.parent) == before


def test_a_damaged_ticket_file_is_not_extended(tmp_path: Path) -> None:
    path = make_ticket(tmp_path)
    path.write_text(path.read_text(encoding="utf-8")[:-40], encoding="utf-8")
    before = tree(path.parent)
    with pytest.raises(InvalidInputError):
        make_ticket(tmp_path, ticket_id="second")
    assert tree(path.parent) == before


@pytest.mark.parametrize(
    "options",
    [
        {"rule": "ids:7", "exclude": [7]},
        {"rule": "random:3"},
        {"alpha": "1.5"},
        {"rule": "published:en-ca"},
        {"exclude": [99]},
        {"rule": "frequency:2"},
    ],
    ids=str,
)
def test_unusable_options_write_nothing(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        make_ticket(tmp_path, **options)
    assert not (tmp_path / "ticket").exists()


def test_rows_that_overflow_the_served_dtype_write_nothing(tmp_path: Path) -> None:
    tuned = tuned_table().astype(np.float32)
    tuned[5, 0] = 1e6
    with pytest.raises(InvalidInputError) as caught:
        make_ticket(tmp_path, base=base_table().astype(np.float32), tuned=tuned, dtype="F16")
    assert caught.value.code == "NON_FINITE"
    assert not (tmp_path / "ticket").exists()


# --- bundles ---------------------------------------------------------------------------------------------


def test_a_bare_base_with_a_tokenizer_that_brings_a_config_bundles(tmp_path: Path) -> None:
    # The tokenizer's config.json comes to lie beside the bundled table, which had none of its own.
    checkpoint, reference = write_sources(tmp_path / "s", base_table(), tuned_table(), pieces())
    bare = tmp_path / "bare" / "base.safetensors"
    bare.parent.mkdir()
    save_file({TENSOR: base_table()}, bare)
    out = tmp_path / "t" / "tickets.json"
    lottery.find(bare, reference, out=out, ticket_id="x", tokenizer=checkpoint, bundle=True, engine="numpy")
    assert exit_code(out) == 0


def test_npy_tables_bundle(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", base_table())
    np.save(tmp_path / "b.npy", tuned_table())
    out = tmp_path / "t" / "tickets.json"
    lottery.find(tmp_path / "a.npy", tmp_path / "b.npy", out=out, ticket_id="x", bundle=True, engine="numpy")
    assert exit_code(out) == 0


def test_a_tied_model_stays_tied_in_its_bundle(tmp_path: Path) -> None:
    checkpoint, reference = write_sources(tmp_path / "s", base_table(), tuned_table(), pieces())
    config = json.loads((checkpoint / "config.json").read_text())
    # A whole model without a head is tied, whatever its configuration leaves unsaid.
    del config["tie_word_embeddings"]
    write_json(checkpoint / "config.json", config)
    save_file(
        {TENSOR: base_table(), "model.norm.weight": np.ones(32, np.float16)}, checkpoint / "model.safetensors"
    )
    out = tmp_path / "t" / "tickets.json"
    with pytest.raises(InvalidInputError) as caught:
        lottery.find(checkpoint, reference, out=out, ticket_id="x", engine="numpy")
    assert caught.value.code == "TIED_HEAD"
    lottery.find(checkpoint, reference, out=out, ticket_id="x", allow_tied=True, engine="numpy")
    assert read_ticket_file(out).tickets[0].base.tied is True
    bundled = tmp_path / "b" / "tickets.json"
    try:
        lottery.find(
            checkpoint, reference, out=bundled, ticket_id="x", allow_tied=True, bundle=True, engine="numpy"
        )
    except CertifyError:
        return
    assert read_ticket_file(bundled).tickets[0].base.tied is True


def test_counts_travel_with_the_ticket(tmp_path: Path) -> None:
    counts = np.zeros(64, np.int64)
    counts[[9, 11]] = 1
    np.save(tmp_path / "counts.npy", counts)
    path = make_ticket(tmp_path, rule="frequency:2", counts=tmp_path / "counts.npy")
    (tmp_path / "counts.npy").unlink()
    assert exit_code(path) == 0
