"""Outputs of another engine: as evidence they score like our own, and what does not fit is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra tune")
pytest.importorskip("transformers", reason="needs the extra tune")

from command import in_process  # noqa: E402
from tiny_llama import PIECES, save_checkpoint, write_pairs  # noqa: E402

import lottery  # noqa: E402
from certify.evidence.read import TranslationRecord, iter_records, read_manifest  # noqa: E402
from certify.tables.safefile import open_tensor, write_tensors  # noqa: E402
from lottery.text.pairsource import read_pairs  # noqa: E402

TABLE = "model.embed_tokens.weight"
ROW = PIECES.index(":")
HEADER = {
    "schema": "certify.outputs",
    "schema_version": 1,
    "engine": "vllm",
    "version": "0.6.3",
    "settings": "temperature 0",
    "decoding": {"beams": 1, "max_new_tokens": 6, "dtype": "F32"},
    "weights": {"base": "0" * 64},
}
Json = Any


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Base, tuned table, a ticket, a text, and our own evidence on it."""
    folder = tmp_path_factory.mktemp("world")
    save_checkpoint(folder / "base")
    write_pairs(folder / "dev", 8)
    table = np.array(open_tensor(folder / "base/model.safetensors", TABLE))
    table[ROW] += np.random.default_rng(0).standard_normal(table.shape[1])
    write_tensors(folder / "tuned.safetensors", {TABLE: ("F32", table)}, None)
    lottery.find(
        folder / "base",
        folder / "tuned.safetensors",
        out=folder / "tickets.json",
        ticket_id="one",
        rule=f"ids:{ROW}",
        template="labels",
    )
    (folder / "used.txt").write_text("")
    assert run(folder, "ours.json", capsys=None) == 0
    return folder


def run(folder: Path, name: str, *more: object, capsys: Any) -> Any:
    words = ["evaluate", "--base", folder / "base", "--data", folder / "dev", "--source", "en"]
    words += ["--target", "ca", "--template", "labels", "--ticket", folder / "tickets.json"]
    words += ["--reference", folder / "tuned.safetensors", "--evidence", folder / name]
    words += ["--unit", "sentence", "--max-new-tokens", 6, *more]
    if capsys is None:
        from certify.cli.main import run as command

        return command([str(word) for word in words])
    return in_process(words, capsys)


def records(path: Path) -> list[TranslationRecord]:
    found = iter_records(read_manifest(path), path.parent)
    return [record for record in found if isinstance(record, TranslationRecord)]


def outputs(world: Path) -> list[Json]:
    """What the arms said, as another engine would write it, arm by arm."""
    pairs = {pair.id: pair for pair in read_pairs(str(world / "dev"), "en", "ca")}
    ours = records(world / "ours.json")
    return [
        {"arm": arm, "id": one.id, "source": pairs[one.id].source, "text": one.arms[arm].text}
        for arm in ("base", "reference", "one.transfer")
        for one in ours
    ]


def write(path: Path, header: Json, lines: list[Json]) -> Path:
    path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in (header, *lines)), "utf-8")
    return path


def test_they_score_like_our_own(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shutil.copytree(world, tmp_path / "world")
    lines = outputs(folder)
    for line in lines[:8]:
        line |= {"tokens": [5, 2], "ended": True}
    one = write(tmp_path / "one.jsonl", HEADER, lines)
    assert run(folder, "one.json", "--outputs", one, capsys=capsys).code == 0
    # A file for each arm, whose sentences have no ids.
    several: list[Path | str] = []
    for arm in ("base", "reference", "one.transfer"):
        own = [{"source": line["source"], "text": line["text"]} for line in lines if line["arm"] == arm]
        several += ["--outputs", write(tmp_path / f"{arm}.jsonl", HEADER | {"arm": arm, "weights": {}}, own)]
    assert run(folder, "several.json", *several, capsys=capsys).code == 0
    ours = records(folder / "ours.json")
    for name in ("one.json", "several.json"):
        manifest = read_manifest(folder / name)
        assert str(manifest.produced_by) == "vllm 0.6.3"
        assert (manifest.text, manifest.template) == (
            read_manifest(folder / "ours.json").text,
            manifest.template,
        )
        for record, own in zip(records(folder / name), ours, strict=True):
            assert (record.id, record.source, record.target, record.prompt) == (
                *(own.id, own.source, own.target),
                own.prompt,
            )
            for arm, answer in record.arms.items():
                assert (answer.text, answer.stats, answer.rules) == (
                    *(own.arms[arm].text, own.arms[arm].stats),
                    own.arms[arm].rules,
                )
                given = (2, True) if (arm, name) == ("base", "one.json") else (0, None)
                assert (answer.length, answer.ended) == given


def test_left_out_sentences_may_be_translated_too(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(world, tmp_path / "world")
    path = write(tmp_path / "all.jsonl", HEADER, outputs(folder))
    assert run(folder, "few.json", "--outputs", path, "--limit", 3, capsys=capsys).code == 0
    assert len(records(folder / "few.json")) == 3


def swap(lines: list[Json]) -> None:
    lines[2], lines[3] = lines[3], lines[2]


REFUSED: dict[str, tuple[Callable[[list[Json]], Any], str, str]] = {
    "no header": (lambda x: x.pop(0), "OUTPUTS_MALFORMED", "line 1"),
    "another version": (lambda x: x[0].update(schema_version=2), "OUTPUTS_MALFORMED", "line 1"),
    "no engine": (lambda x: x[0].pop("engine"), "OUTPUTS_MALFORMED", "engine"),
    "no longest output": (
        lambda x: x[0]["decoding"].update(max_new_tokens=0),
        "OUTPUTS_MALFORMED",
        "line 1",
    ),
    "no text": (lambda x: x[3].pop("text"), "OUTPUTS_MALFORMED", "line 4"),
    "a key of its own": (lambda x: x[3].update(logprobs=[]), "OUTPUTS_MALFORMED", "logprobs"),
    "no arm": (lambda x: x[3].pop("arm"), "OUTPUTS_MALFORMED", "line 4"),
    "too many tokens": (lambda x: x[3].update(tokens=[5] * 7), "OUTPUTS_MALFORMED", "line 4"),
    "another arm": (lambda x: x[3].update(arm="two.transfer"), "OUTPUTS_ARM", "line 4"),
    "weights of no arm": (lambda x: x[0]["weights"].update(two="1" * 64), "OUTPUTS_ARM", "two"),
    "another text": (lambda x: x[3].update(source="Not there."), "OUTPUTS_UNKNOWN", "line 4"),
    "another id": (lambda x: x[3].update(id="dev:99"), "OUTPUTS_UNKNOWN", "line 4"),
    "another sentence": (lambda x: x[3].update(id=x[2]["id"]), "OUTPUTS_SENTENCE", "line 4"),
    "twice": (lambda x: x.insert(3, x[2]), "OUTPUTS_REPEATED", "line 4"),
    "another order": (swap, "OUTPUTS_ORDER", "line 4"),
    "left out": (lambda x: x.pop(3), "OUTPUTS_MISSING", "dev:3"),
    "an arm left out": (lambda x: x.__delitem__(slice(9, 17)), "OUTPUTS_MISSING", "arm reference"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_does_not_fit_the_text_is_refused(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    change, code, named = REFUSED[fault]
    lines = [json.loads(json.dumps(one)) for one in (HEADER, *outputs(world))]
    change(lines)
    path = write(tmp_path / "faulty.jsonl", lines[0], lines[1:])
    ran = run(world, "faulty.json", "--outputs", path, capsys=capsys)
    assert ran.code == 4
    assert f"[{code}]" in ran.one_line()
    assert named in ran.one_line()
    assert not (world / "faulty.json").exists()


def test_two_engines_are_not_compared(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = outputs(world)
    first = write(tmp_path / "first.jsonl", HEADER, lines[:8])
    second = write(tmp_path / "second.jsonl", HEADER | {"version": "0.6.4"}, lines[8:])
    ran = run(world, "two.json", "--outputs", first, "--outputs", second, capsys=capsys)
    assert (ran.code, "[OUTPUTS_ENGINE]" in ran.one_line()) == (4, True)
    words = ("--outputs", first, "--path", "2,1")
    assert "[USAGE]" in run(world, "two.json", *words, capsys=capsys).one_line()


def test_a_replay_counts_what_differs(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(world, tmp_path / "world", ignore=shutil.ignore_patterns("*.parts"))
    lines = outputs(folder)
    for line in lines[-8:-5]:
        line["text"] += " x"
    made = write(tmp_path / "one.jsonl", HEADER, lines)
    used = tmp_path / "tuning.jsonl"
    used.write_text(json.dumps({"en": "zz", "ca": "yy"}) + "\n", encoding="utf-8")
    more = ("--outputs", made, "--used", f"tuning={used}")
    assert run(folder, "engine.json", *more, capsys=capsys).code == 0
    tables = ["--ticket", folder / "tickets.json", "--base", folder / "base", "--tokenizer", folder / "base"]
    tables += ["--reference", folder / "tuned.safetensors"]
    words = ["issue", *tables, "--evidence", folder / "engine.json", "--out", folder / "c.json", "--attach"]
    assert in_process(words, capsys).code == 0
    words = ["check", *tables, "--policy", "release", "--replay", folder / "base", "--text", folder / "dev"]
    ran = in_process(words, capsys)
    assert ran.code == 3
    assert "cannot be run again exactly" in ran.out
    said = " ".join(ran.out.split())
    assert "of 8 drawn" in said
    assert "decoded here, 3 differ, 0 were not run" in said
