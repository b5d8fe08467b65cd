"""From a model to evidence on disk: records are recounted, interruptions change nothing, faults stop it."""

from __future__ import annotations

import hashlib
import json
import lzma
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra tune")
pytest.importorskip("transformers", reason="needs the extra tune")

from evaluations import evaluate_tickets  # noqa: E402
from slow_decoding import forced, greedy, plainly  # noqa: E402
from tiny_llama import PIECES, save_checkpoint, write_pairs  # noqa: E402

import certify.ticket.templates  # noqa: E402
import lottery  # noqa: E402
import lottery.evaluation.evaluate  # noqa: E402
import lottery.evaluation.measure  # noqa: E402
from certify.base.errors import CertifyError, InvalidInputError, UsageError  # noqa: E402
from certify.base.records import RULES  # noqa: E402
from certify.cli.main import run  # noqa: E402
from certify.evidence.read import (  # noqa: E402
    Arm,
    BaseModelRef,
    Manifest,
    TextRef,
    TranslationRecord,
    check_files,
    iter_records,
    read_manifest,
    read_used,
)
from certify.selection.frequency import write_counts  # noqa: E402
from certify.stats.path import decode  # noqa: E402
from certify.tables.rowfile import make_rows, write_rows  # noqa: E402
from certify.tables.safefile import open_tensor, write_tensors  # noqa: E402
from certify.tables.table import open_table  # noqa: E402
from certify.ticket.corpus import sentence_digest  # noqa: E402
from certify.ticket.declared import USUAL_LAW, DeclaredClaim, StrengthLaw  # noqa: E402
from certify.ticket.templates import encode, load_template  # noqa: E402
from lottery.evaluation.armscores import arm_scores  # noqa: E402
from lottery.evaluation.assemble import LossTask, assemble_loss  # noqa: E402
from lottery.evaluation.evaluate import evaluate  # noqa: E402
from lottery.evaluation.measure import measure_loss  # noqa: E402
from lottery.evaluation.prompts import units_of  # noqa: E402
from lottery.experiment.engine.inputs import base_digest  # noqa: E402
from lottery.model.backbone import load_backbone  # noqa: E402
from lottery.model.row_swap import Placement, base_placement, reference_placement  # noqa: E402
from lottery.model.tokenizer import load_tokenizer  # noqa: E402
from lottery.text.pairsource import read_pairs  # noqa: E402
from lottery.text.score import extract  # noqa: E402
from lottery.text.tunedata import Data  # noqa: E402
from lottery.text.unrelated import Window  # noqa: E402
from lottery.text.usedtext import used_pairs, used_sentences  # noqa: E402
from lottery.tuning.recipe import Recipe  # noqa: E402
from lottery.tuning.trainer import Limits  # noqa: E402
from lottery.tuning.tune import Settings, tune  # noqa: E402

TABLE = "model.embed_tokens.weight"
LANGUAGES = ("en", "ca")
NEW = 6
IDS = sorted(PIECES.index(piece) for piece in (":", "\n", " ", "a"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("text") / "dev", 10)


@pytest.fixture(scope="module")
def tuned(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    table = np.array(open_tensor(base / "model.safetensors", TABLE))
    for i in IDS:
        table[i] += np.random.default_rng(i).standard_normal(table.shape[1]) * 0.3
    path = tmp_path_factory.mktemp("tuned") / "table.safetensors"
    write_tensors(path, {TABLE: ("F32", table)}, None)
    return path


@pytest.fixture(scope="module")
def tickets(base: Path, tuned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tickets") / "tickets.json"
    for name, ids in (("all", IDS), ("one", IDS[:1])):
        lottery.find(base, tuned, out=path, ticket_id=name, rule="ids:" + ",".join(map(str, ids)))
    return path


@pytest.fixture
def evaluated(base: Path, text: Path, tuned: Path, tickets: Path, tmp_path: Path) -> Any:
    def run_it(folder: str = "evidence", **changes: Any) -> Manifest:
        settings: dict[str, Any] = {
            "template": "labels",
            "reference": tuned,
            "tickets": [f"{tickets}#all", f"{tickets}#one"],
            "out": tmp_path / folder / "dev.json",
            "unit": "block:3",
            "max_new_tokens": NEW,
            "batch_size": 4,
        }
        return evaluate_tickets(str(base), str(text), LANGUAGES, **(settings | changes))

    return run_it


def read(folder: Path) -> tuple[Manifest, list[TranslationRecord]]:
    manifest = read_manifest(folder / "dev.json")
    check_files(manifest, folder)
    return manifest, list(iter_records(manifest, folder))


@pytest.mark.parametrize(
    ("role", "token"), [("eos_token", "."), ("bos_token", "#")], ids=["end", "beginning"]
)
def test_another_special_token_is_another_run(
    base: Path, text: Path, tuned: Path, tickets: Path, tmp_path: Path, role: str, token: str
) -> None:
    """``tokenizer.json`` does not say which token begins or ends a sequence; the file beside it does."""
    folder = shutil.copytree(base, tmp_path / "base")
    settings: dict[str, Any] = {"template": "labels", "reference": tuned, "tickets": [f"{tickets}#all"]}
    settings |= {"out": tmp_path / "dev.json", "unit": "sentence", "max_new_tokens": 2, "limit": 2}
    evaluate_tickets(str(folder), str(text), LANGUAGES, **settings)
    before = (base_digest(folder), (folder / "tokenizer.json").read_bytes())
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"name_or_path": "/somewhere/else"}))
    assert base_digest(folder) == before[0], "a path is no setting"
    evaluate_tickets(str(folder), str(text), LANGUAGES, **settings, resume=True)
    path.write_text(json.dumps(json.loads(path.read_text()) | {role: token}))
    assert (folder / "tokenizer.json").read_bytes() == before[1]
    assert base_digest(folder) != before[0]
    with pytest.raises(UsageError, match="special_tokens") as error:
        evaluate_tickets(str(folder), str(text), LANGUAGES, **settings, resume=True)
    assert error.value.code == "PART_MISMATCH"


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".parts" not in path.parent.name
    }


def test_records_say_what_a_slow_loop_finds(
    base: Path, text: Path, tuned: Path, evaluated: Any, tmp_path: Path
) -> None:
    evaluated()
    manifest, records = read(tmp_path / "evidence")
    assert [arm.name for arm in manifest.arms] == ["base", "reference", "all.transfer", "one.transfer"]
    assert manifest.arm("all.transfer").table_sha256 == manifest.reference.tensor_sha256
    assert manifest.arm("one.transfer").ids == tuple(IDS[:1])
    tokenizer = load_tokenizer(base)
    pairs = read_pairs(str(text), *LANGUAGES)
    prompts = encode(load_template("labels"), pairs, tokenizer, *LANGUAGES, response=False)
    models = {}
    table = np.array(open_tensor(tuned, TABLE))
    for name, ids in (("base", []), ("reference", IDS), ("all.transfer", IDS), ("one.transfer", IDS[:1])):
        model = load_backbone(base, "F32").eval()
        with torch.no_grad():
            model.model.embed_tokens.weight[ids] = torch.from_numpy(table[ids])
        models[name] = plainly(model)
    assert [record.unit for record in records] == [str(i // 3) for i in range(10)]
    disagreements = 0
    for record, pair, prompt in zip(records, pairs, prompts, strict=True):
        assert record.id == pair.id
        assert record.source == sentence_digest(pair.source)[:16]
        assert record.target == sentence_digest(pair.target)[:16]
        assert record.prompt == tuple(sorted(set(prompt.ids)))
        tokens = greedy(models["reference"], prompt.ids, NEW, 2)
        assert list(record.reference.tokens) == tokens
        for name, logits in models.items():
            answer = record.arms[name]
            said = greedy(logits, prompt.ids, NEW, 2)
            assert (answer.length, answer.ended) == (len(said), said[-1] == 2)
            assert answer.text == tokenizer.decode(said[:-1] if answer.ended else said)
            steps = [int(each.argmax()) for each in forced(logits, prompt.ids, tokens)]
            wanted = record.reference.argmaxes()
            assert answer.differs == tuple((t, token) for t, token in enumerate(steps) if token != wanted[t])
            assert (answer.tokens is None) == (name != "base")
            disagreements += len(answer.differs)
        assert record.arms["base"].tokens == tuple(greedy(models["base"], prompt.ids, NEW, 2))
        for field in ("text", "ended", "length", "stats", "rules", "differs", "tokens"):
            ours, theirs = (getattr(record.arms[name], field) for name in ("all.transfer", "reference"))
            assert ours == theirs
    assert disagreements, "a test in which all arms agree would test little"


def test_beam_search_says_what_greedy_would_not(
    base: Path, text: Path, tuned: Path, evaluated: Any, tmp_path: Path
) -> None:
    """Along an output of beam search the reference's argmax is not always its token; arms answer to it."""
    evaluated(beams=3)
    records = read(tmp_path / "evidence")[1]
    tokenizer = load_tokenizer(base)
    pairs = read_pairs(str(text), *LANGUAGES)
    prompts = encode(load_template("labels"), pairs, tokenizer, *LANGUAGES, response=False)
    model, other = (load_backbone(base, "F32").eval() for _ in range(2))
    with torch.no_grad():
        other.model.embed_tokens.weight.copy_(torch.from_numpy(np.array(open_tensor(tuned, TABLE))))
    tops = 0
    for record, prompt in zip(records, prompts, strict=True):
        tokens = record.reference.tokens
        sure = [int(each.argmax()) for each in forced(plainly(other), prompt.ids, tokens)]
        said = [int(each.argmax()) for each in forced(plainly(model), prompt.ids, tokens)]
        assert list(record.reference.argmaxes()) == sure
        differing = [(t, b) for t, (a, b) in enumerate(zip(sure, said, strict=True)) if a != b]
        assert list(record.arms["base"].differs) == differing
        tops += len(record.reference.top)
    assert tops, "no step at which beam search left the argmax: nothing tested"


def test_scores_of_evidence_are_those_of_a_plain_evaluation(
    base: Path, text: Path, tuned: Path, tickets: Path, evaluated: Any, tmp_path: Path
) -> None:
    manifest = evaluated()
    found = {scores.arm: scores for scores in arm_scores(manifest, tmp_path / "evidence")}
    plain = {"base": {}, "reference": {"table": tuned}, "one.transfer": {"ticket": f"{tickets}#one"}}
    for name, rows in plain.items():
        wanted = evaluate(str(base), str(text), LANGUAGES, template="labels", max_new_tokens=NEW, **rows)
        assert found[name].scores == wanted.scores
        assert found[name].ended == wanted.ended
        assert found[name].tokens == sum(len(output.tokens) for output in wanted.outputs) / 10


def test_statistics_belong_to_their_rules(text: Path, evaluated: Any, tmp_path: Path) -> None:
    from lottery.text.score import Scorer

    evaluated()
    scorer = Scorer()
    labels = load_template("labels").field_labels(*LANGUAGES)
    for record, pair in zip(read(tmp_path / "evidence")[1], read_pairs(str(text), *LANGUAGES), strict=True):
        for answer in record.arms.values():
            for rule, index in zip(RULES, answer.rules, strict=True):
                cut = extract(answer.text, rule, labels)
                assert answer.stats[index] == scorer.statistics(cut, pair.target)


def test_labels_along_a_path_are_those_of_interpolated_tables(
    base: Path, text: Path, tuned: Path, evaluated: Any, tmp_path: Path
) -> None:
    """Nine tables made by hand, one loop a table; without the labels, the bytes are those of before."""
    evaluated("plain")
    manifest = evaluated("path", path=StrengthLaw(n=6, g=2))
    assert (manifest.path.n, manifest.path.g) == (6, 2)
    before = np.array(open_tensor(base / "model.safetensors", TABLE), dtype=np.float64)
    after = np.array(open_tensor(tuned, TABLE), dtype=np.float64)
    moves = dict.fromkeys(("all.transfer", "one.transfer"), 0)
    tokenizer = load_tokenizer(base)
    pairs = read_pairs(str(text), *LANGUAGES)
    prompts = encode(load_template("labels"), pairs, tokenizer, *LANGUAGES, response=False)
    for name, ids in (("all.transfer", IDS), ("one.transfer", IDS[:1])):
        released = before.copy()
        released[ids] = after[ids]
        slow = []
        for strength in (-1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 2.5):
            model = load_backbone(base, "F32").eval()
            table = torch.from_numpy(released + strength * (after - released)).float()
            with torch.no_grad():
                model.model.embed_tokens.weight.copy_(table)
            slow.append(plainly(model))
        for record, prompt in zip(read(tmp_path / "path")[1], prompts, strict=True):
            said = [
                [int(each.argmax()) for each in forced(logits, prompt.ids, record.reference.tokens)]
                for logits in slow
            ]
            labels = [decode(step, 6, 2) for step in record.arms[name].path]
            assert labels == list(zip(*said, strict=True))
            moves[name] += sum(len(set(step)) > 1 for step in labels)
    assert moves["all.transfer"] == 0, "R is E*: all tables are the same"
    assert moves["one.transfer"] > 5
    lines = contents(tmp_path / "path")["dev.records.jsonl"].splitlines(keepends=True)
    without = [re.sub(rb'"path":\[[^]]*\],', b"", line) for line in lines]
    assert b"".join(without) == contents(tmp_path / "plain")["dev.records.jsonl"]
    assert b'"path": null' not in contents(tmp_path / "plain")["dev.json"]


def test_a_path_is_the_one_that_tickets_declare(
    base: Path, tuned: Path, evaluated: Any, tmp_path: Path
) -> None:
    for name, law in (("usual", None), ("other", StrengthLaw(n=4, g=1))):
        declared = [DeclaredClaim(kind="guarantee", comparator="path", path=law)]
        out = tmp_path / f"{name}.json"
        lottery.find(base, tuned, out=out, ticket_id=name, rule="ids:3", declared=declared)
    usual, other = (f"{tmp_path / name}.json#{name}" for name in ("usual", "other"))
    assert evaluated("found", tickets=[usual], limit=1).path == USUAL_LAW
    with pytest.raises(UsageError, match="n = 4, g = 1 and n = 16, g = 2") as error:
        evaluated("both", tickets=[usual, other], limit=1)
    assert error.value.code == "PATH_DIFFERS"
    with pytest.raises(UsageError) as error:
        evaluated("given", tickets=[other], path=USUAL_LAW, limit=1)
    assert error.value.code == "PATH_DIFFERS"


@pytest.mark.parametrize("beams", [1, 3])
def test_steps_along_own_outputs_are_those_of_a_slow_loop(
    base: Path, text: Path, tuned: Path, evaluated: Any, tmp_path: Path, beams: int
) -> None:
    """Two models by hand, one forced decoding each; without the steps, the bytes are those of before."""
    evaluated("plain", beams=beams)
    manifest = evaluated("margins", margins=True, beams=beams)
    assert manifest.margins == {"all.transfer": None, "one.transfer": None}
    table = torch.from_numpy(np.array(open_tensor(tuned, TABLE)))
    one, best = (load_backbone(base, "F32").eval() for _ in range(2))
    with torch.no_grad():
        one.model.embed_tokens.weight[IDS[:1]] = table[IDS[:1]]
        best.model.embed_tokens.weight.copy_(table)
    tokenizer = load_tokenizer(base)
    pairs = read_pairs(str(text), *LANGUAGES)
    prompts = encode(load_template("labels"), pairs, tokenizer, *LANGUAGES, response=False)
    disagreements = tops = 0
    for record, prompt in zip(read(tmp_path / "margins")[1], prompts, strict=True):
        assert record.arms["base"].own is record.arms["reference"].own is None
        assert not record.arms["all.transfer"].own.differs, "its table is E*"
        answer, own = record.arms["one.transfer"], record.arms["one.transfer"].own
        said = list(own.tokens[:-1] if answer.ended else own.tokens)
        assert (tokenizer.decode(said), len(own.tokens)) == (answer.text, answer.length)
        ours = forced(plainly(one), prompt.ids, own.tokens)
        theirs = [int(each.argmax()) for each in forced(plainly(best), prompt.ids, own.tokens)]
        decided = [int(each.argmax()) for each in ours]
        assert list(own.argmaxes()) == decided
        assert own.differs == tuple(
            (t, b) for t, (a, b) in enumerate(zip(decided, theirs, strict=True)) if a != b
        )
        for t, logits in enumerate(ours):
            first, second = logits.double().softmax(0).topk(2).values.tolist()
            # Batches round in fp32; down and up by less than two units beyond that.
            assert own.p_a[t] == pytest.approx(first * 1e9, abs=1000)
            assert own.p_b[t] == pytest.approx(second * 1e9, abs=1000)
            assert own.p_a[t] + own.p_b[t] <= 10**9 + 1
        disagreements, tops = disagreements + len(own.differs), tops + len(own.top)
    assert disagreements, "a test in which E* agrees throughout would test little"
    assert bool(tops) == (beams > 1)
    lines = contents(tmp_path / "margins")["dev.records.jsonl"].splitlines(keepends=True)
    without = [re.sub(rb'"own":{[^}]*},', b"", line) for line in lines]
    assert b"".join(without) == contents(tmp_path / "plain")["dev.records.jsonl"]
    assert b'"margins"' not in contents(tmp_path / "plain")["dev.json"]


def test_margins_are_recorded_of_tickets_that_declare_one(
    base: Path, tuned: Path, tickets: Path, evaluated: Any, tmp_path: Path
) -> None:
    calibration = {"t": "0.9", "alpha": "0.05", "text_sha256": "0" * 64}
    record = {"path": "calibrations/declares.json", "sha256": "0" * 64}
    claim = {"kind": "guarantee", "comparator": "calibrated", "calibration": calibration | {"record": record}}
    declared = [DeclaredClaim.model_validate(claim)]
    out = tmp_path / "declares.json"
    lottery.find(base, tuned, out=out, ticket_id="declares", rule="ids:3", declared=declared)
    both = [f"{tickets}#one", f"{out}#declares"]
    assert evaluated("found", tickets=both, limit=1).margins == {"declares.transfer": "0.9"}
    asked = evaluated("asked", tickets=both, limit=1, margins=True).margins
    assert asked == {"one.transfer": None, "declares.transfer": "0.9"}


# --- interruption ----------------------------------------------------------------------------------------


class Killed(Exception):
    """Stands for a signal that nobody catches."""


def test_a_run_killed_at_any_batch_resumes_to_the_same_bytes(evaluated: Any, tmp_path: Path) -> None:
    evaluated("whole")
    total = 12  # four arms of three batches
    for stop in range(1, total, 3):
        calls = iter(range(total))

        def die(_done: int, _all: int, calls: Iterator[int] = calls, stop: int = stop) -> None:
            if next(calls) == stop:
                raise Killed

        folder = f"killed-{stop}"
        with pytest.raises(Killed):
            evaluated(folder, progress=die)
        assert not (tmp_path / folder / "dev.json").exists()
        # A line that was being written when the power failed.
        latest = max((tmp_path / folder / "dev.parts").iterdir(), key=lambda path: path.stat().st_mtime_ns)
        with latest.open("ab") as stream:
            stream.write(b'{"check":"0123')
        evaluated(folder, resume=True)
        assert contents(tmp_path / folder) == contents(tmp_path / "whole")


def test_a_finished_arm_is_not_run_again(
    evaluated: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated()
    before = contents(tmp_path / "evidence")

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(lottery.evaluation.measure, "decode", fail)
    evaluated(resume=True)
    assert contents(tmp_path / "evidence") == before


def test_the_size_of_a_batch_changes_nothing(evaluated: Any, tmp_path: Path) -> None:
    evaluated("four", batch_size=4)
    evaluated("one", batch_size=1)
    four, one = read(tmp_path / "four")[1], read(tmp_path / "one")[1]
    for a, b in zip(four, one, strict=True):
        assert a.arms == b.arms
        assert a.reference.tokens == b.reference.tokens
        # Probabilities come from fp32 logits, which differ in their last bits.
        for left, right in ((a.reference.p_a, b.reference.p_a), (a.reference.p_b, b.reference.p_b)):
            assert max(abs(x - y) for x, y in zip(left, right, strict=True)) < 20_000


# --- faults ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "code", "named"),
    [
        ({}, "OUT_EXISTS", "--resume"),
        ({"resume": True, "template": "alpaca"}, "PART_MISMATCH", "template"),
        ({"resume": True, "max_new_tokens": 5}, "PART_MISMATCH", "decoding"),
        ({"resume": True, "limit": 9}, "PART_MISMATCH", "text"),
        ({"resume": True, "dtype": "BF16"}, "PART_MISMATCH", "decoding"),
        ({"resume": True, "path": USUAL_LAW}, "PART_MISMATCH", "path"),
        ({"resume": True, "margins": True}, "PART_MISMATCH", "margins"),
    ],
)
def test_parts_of_another_run_are_refused(
    evaluated: Any, tmp_path: Path, changes: dict[str, Any], code: str, named: str
) -> None:
    evaluated()
    before = contents(tmp_path / "evidence")
    with pytest.raises(UsageError) as error:
        evaluated(**changes)
    assert error.value.code == code
    assert named in str(error.value)
    assert contents(tmp_path / "evidence") == before


def test_parts_of_another_model_are_refused(evaluated: Any, tuned: Path, text: Path, tmp_path: Path) -> None:
    """The key holds the digests of the weights: another model under the old name gets no old answers."""
    evaluated(tickets=[])
    other = save_checkpoint(tmp_path / "other", seed=4)
    with pytest.raises(UsageError) as error:
        evaluate_tickets(
            str(other),
            str(text),
            LANGUAGES,
            template="labels",
            reference=tuned,
            tickets=[],
            out=tmp_path / "evidence" / "dev.json",
            unit="block:3",
            max_new_tokens=NEW,
            resume=True,
        )
    assert error.value.code == "PART_MISMATCH"
    assert "base differ" in str(error.value)


def test_arms_that_followed_another_reference_are_stale(evaluated: Any, tmp_path: Path) -> None:
    """The reference's part made anew, with other outputs: old arms cannot be joined to it."""
    evaluated()
    path = tmp_path / "evidence" / "dev.parts" / "reference.jsonl"
    from lottery.evaluation.shards import open_part, read_part

    old = read_part(path)
    kept = [old.read(index) for index in range(10)]
    kept[4]["tokens"] = [9, *kept[4]["tokens"][1:]]
    open_part(path, old.key, resume=False).append(kept)
    with pytest.raises(InvalidInputError) as error:
        evaluated(resume=True)
    assert error.value.code == "PART_STALE"


def test_an_edited_part_is_refused(evaluated: Any, tmp_path: Path) -> None:
    evaluated()
    path = tmp_path / "evidence" / "dev.parts" / "one.transfer.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    lines[2] = lines[2].replace('"ended":false', '"ended":true')
    path.write_text("".join(lines), encoding="utf-8")
    with pytest.raises(InvalidInputError) as error:
        evaluated(resume=True)
    assert error.value.code == "PART_MALFORMED"


def test_tickets_of_different_bases_are_refused(evaluated: Any, tickets: Path, tmp_path: Path) -> None:
    other = save_checkpoint(tmp_path / "other", seed=4)
    table = np.array(open_tensor(other / "model.safetensors", TABLE))
    table[5] += 1
    write_tensors(tmp_path / "t.safetensors", {TABLE: ("F32", table)}, None)
    lottery.find(other, tmp_path / "t.safetensors", out=tmp_path / "t.json", ticket_id="t", rule="ids:5")
    with pytest.raises(InvalidInputError) as error:
        evaluated(tickets=[f"{tickets}#all", str(tmp_path / "t.json")])
    assert error.value.code == "WRONG_BASE"
    with pytest.raises(UsageError):
        evaluated(tickets=[f"{tickets}#all", f"{tickets}#all"])
    with pytest.raises(UsageError) as error:
        evaluated(tickets=[], reference=None)
    assert error.value.code == "REFERENCE_NEEDED"


@pytest.mark.parametrize("unit", ["documents", "block:0", "block:", "word"])
def test_units_that_cannot_be_numbered_are_refused(evaluated: Any, unit: str) -> None:
    with pytest.raises(UsageError) as error:
        evaluated(unit=unit)
    assert error.value.code == "UNIT"


# --- what travels ----------------------------------------------------------------------------------------


def test_sentences_travel_only_with_attribution(evaluated: Any, text: Path, tmp_path: Path) -> None:
    evaluated("silent")
    assert all(record.witness is None for record in read(tmp_path / "silent")[1])
    assert b"house" not in (tmp_path / "silent" / "dev.records.jsonl").read_bytes()
    evaluated("named", attribution="Nobody, CC0")
    manifest, records = read(tmp_path / "named")
    assert manifest.text.attribution == "Nobody, CC0"
    pairs = read_pairs(str(text), *LANGUAGES)
    assert [record.witness.source for record in records] == [pair.source for pair in pairs]


def test_used_sentences_are_listed_by_digest(evaluated: Any, tmp_path: Path) -> None:
    other = read_pairs(str(write_pairs(tmp_path / "train", 5, first=50)), *LANGUAGES)
    used = [used_pairs("tuning", other), used_sentences("scan", ["U.", "u!"]), used_pairs("tuning", other)]
    manifest = evaluated(used=used)
    assert [(entry.role, entry.count) for entry in manifest.used] == [("tuning", 10), ("scan", 1)]
    wanted = {hashlib.sha256(b"u").hexdigest()[:16]}
    assert read_used(manifest.used[1], tmp_path / "evidence") == wanted
    check_files(manifest, tmp_path / "evidence")


def test_a_list_of_used_sentences_is_that_of_the_run_that_made_the_table(
    base: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``used.txt`` beside another table says nothing about this one, in whatever dtype it is served."""
    train = write_pairs(tmp_path / "train", 6, first=50)
    for name, rate in (("run", 0.01), ("other", 0.02)):
        data = Data((str(train),), *LANGUAGES, template="labels", max_length=120)
        recipe = Recipe(learning_rate=rate, epochs=1, batch_size=6)
        tune(
            str(base),
            Settings(data=data, recipe=recipe, limits=Limits(8), seed=0),
            tmp_path / name,
            device="cpu",
        )
    command = ["evaluate", "--base", base, "--reference", tmp_path / "run" / "embed_tokens.safetensors"]
    command += ["--data", text, "--source", "en", "--target", "ca", "--template", "labels", "--limit", 2]
    command += ["--max-new-tokens", 2, "--unit", "sentence", "--evidence", tmp_path / "dev.json"]
    other = tmp_path / "other" / "used.txt"
    assert run([*command, "--used", f"tuning={other}"]) == 4
    assert "is that of another run" in capsys.readouterr().err
    assert not (tmp_path / "dev.json").exists()
    for dtype in ("fp32", "bf16"):
        found = ["find", "--base", base, "--tuned", tmp_path / "run" / "embed_tokens.safetensors"]
        found += [
            "--rule",
            "norm:2",
            "--served-dtype",
            dtype,
            "--id",
            "two",
            "--out",
            tmp_path / dtype / "t.json",
        ]
        assert run(found) == 0
        command[-1] = tmp_path / dtype / "dev.json"
        used = ["--ticket", found[-1], "--used", f"tuning={tmp_path / 'run' / 'used.txt'}"]
        assert run([*command, *used]) == 0
        manifest = read_manifest(command[-1])
        assert manifest.reference is not None
        assert [entry.table_sha256 for entry in manifest.used] == [manifest.reference.tensor_sha256]
    other.write_text("0123456789abcdef\n")
    capsys.readouterr()
    assert run([*command, "--used", f"tuning={other}"]) == 4
    assert "is not the list that the run beside it wrote" in capsys.readouterr().err


def test_repeated_sentences_count_once(base: Path, tuned: Path, tmp_path: Path) -> None:
    prefix = write_pairs(tmp_path / "twice", 4)
    for language in LANGUAGES:
        path = prefix.with_name(f"twice.{language}")
        path.write_text(path.read_text() + path.read_text().upper())
    manifest = evaluate_tickets(
        str(base), str(prefix), LANGUAGES, template="labels", reference=tuned, tickets=[], unit="sentence",
        out=tmp_path / "evidence" / "dev.json", max_new_tokens=2,
    )  # fmt: skip
    assert manifest.records.count == manifest.text.sentences == 4


# --- documents -------------------------------------------------------------------------------------------


def test_documents_are_units_and_stay_with_their_lines(
    base: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Repeated lines are dropped in the middle: every line that stays keeps its own document."""
    prefix = write_pairs(tmp_path / "docs", 6)
    documents = ["news/1", "news/1", "Σ two", "news/1", "3", "3"]
    for language in LANGUAGES:
        path = prefix.with_name(f"docs.{language}")
        lines = path.read_text().splitlines()
        path.write_text("\n".join([*lines[:2], lines[0].upper(), lines[1], *lines[2:]]) + "\n")
    with_repeats = [*documents[:2], "repeats", "repeats", *documents[2:]]
    prefix.with_name("docs.doc.xz").write_bytes(lzma.compress("\n".join(with_repeats).encode()))
    arguments = [
        *("evaluate", "--base", str(base), "--data", str(prefix), "--source", "en", "--target", "ca"),
        *("--template", "labels", "--reference", str(tuned), "--max-new-tokens", "2"),
        *("--evidence", str(tmp_path / "evidence" / "dev.json"), "--unit", "document"),
    ]
    assert run(arguments) == 0, capsys.readouterr().err
    manifest, records = read(tmp_path / "evidence")
    assert (manifest.text.unit, manifest.design) == ("document", "fixed")
    assert [record.unit for record in records] == documents
    assert [record.id for record in records] == [f"docs:{line}" for line in (1, 2, 5, 6, 7, 8)]


def test_without_document_ids_there_is_no_unit_of_documents(evaluated: Any, text: Path) -> None:
    with pytest.raises(UsageError, match=r"dev\.doc") as error:
        evaluated(unit="document")
    assert error.value.code == "DOCUMENTS_MISSING"
    pairs = read_pairs(str(text), *LANGUAGES)
    with pytest.raises(UsageError, match="dev:1 does not name its document") as error:
        units_of(pairs, "document")
    assert error.value.code == "DOCUMENT_ID"


def test_documents_are_not_drawn_one_by_one(evaluated: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="evaluate the whole text") as error:
        evaluated(unit="document", decided=lambda _: True)
    assert error.value.code == "UNIT"
    assert not (tmp_path / "evidence").exists(), "refused before anything is computed"


# --- losses ----------------------------------------------------------------------------------------------


def test_losses_become_evidence(base: Path, tuned: Path, tmp_path: Path) -> None:
    model = load_backbone(base, "F32").eval()
    stored, reference = open_table(base), open_table(tuned)
    # The last one holds what the first one does: a copy is no new text.
    ids = [(1, *IDS[: 1 + i % 4]) for i in range(5)]
    windows = [Window(f"w/{i}", str(i // 2), ids[i], (f"{i // 2:016x}",)) for i in range(5)]
    text = TextRef(name="other", sha256="a" * 64, sentences=5, unit="block:2", attribution="")
    ref = BaseModelRef(tensor_sha256=stored.digest(), model_sha256="b" * 64)
    task = LossTask(windows, text, ref, "c" * 64, "d" * 64)
    placements: list[Placement] = [base_placement(stored), reference_placement(reference)]
    arms: list[Arm] = [placement.arm for placement in placements]
    parts = {
        placement.arm.name: measure_loss(model, task, placement, tmp_path / placement.arm.name, resume=False)
        for placement in placements
    }
    tensor = reference.digest()
    assemble_loss(task, arms, parts, tmp_path / "dev.json", reference_sha256=tensor)
    manifest, records = read(tmp_path)
    assert manifest.kind == "loss"
    assert manifest.records.count == 4
    assert [record.id for record in records] == ["w/0", "w/1", "w/2", "w/3"]
    assert [record.unit for record in records] == ["0", "0", "1", "1"]
    assert [record.tokens for record in records] == [1, 2, 3, 4]
    spelled = [json.dumps(list(one), separators=(",", ":")).encode() for one in ids[:4]]
    assert [record.window for record in records] == [hashlib.sha256(one).hexdigest()[:16] for one in spelled]
    assert [record.lines for record in records] == [window.lines for window in windows[:4]]
    for index, record in enumerate(records):
        assert record.nats == {name: part.read(index)["nats"] for name, part in parts.items()}
    other = replace(task, tokenizer_sha256="d" * 64)
    with pytest.raises(UsageError) as error:
        assemble_loss(other, arms, parts, tmp_path / "x.json", reference_sha256=tensor)
    assert error.value.code == "PART_MISMATCH"
    with pytest.raises(UsageError) as error:
        assemble_loss(task, arms, {}, tmp_path / "x.json", reference_sha256=tensor)
    assert error.value.code == "PART_INCOMPLETE"


# --- the command -----------------------------------------------------------------------------------------


def words(base: Path, text: Path, *more: object) -> list[str]:
    fixed = ["evaluate", "--base", base, "--data", text, "--source", "en", "--target", "ca"]
    return [str(word) for word in (*fixed, "--template", "labels", "--max-new-tokens", NEW, *more)]


def test_the_command_leaves_evidence(
    base: Path, text: Path, tuned: Path, tickets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "evidence" / "dev.json"
    train = write_pairs(tmp_path / "train", 3, first=40)
    command = words(base, text, "--evidence", out, "--unit", "sentence", "--reference", tuned)
    command += ["--ticket", f"{tickets}#all", "--ticket", f"{tickets}#one", "--used", f"tuning={train}"]
    assert run([*command, "--format", "json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [arm["arm"] for arm in report["arms"]] == ["base", "reference", "all.transfer", "one.transfer"]
    manifest, records = read(out.parent)
    assert len(records) == 10
    assert [entry.count for entry in manifest.used] == [6]
    assert run([*command, "--resume"]) == 0
    assert "evidence" in capsys.readouterr().out
    assert run(command) == 2
    assert "--resume" in capsys.readouterr().err


def test_the_command_leaves_evidence_for_every_claim_of_a_release(
    base: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From tuning to a verdict without an experiment: nothing that the gate asks for is missing."""
    data = Data((str(write_pairs(tmp_path / "train", 8, first=50)),), *LANGUAGES, "labels", max_length=120)
    recipe = Recipe(learning_rate=0.05, epochs=2, batch_size=4)
    made = tmp_path / "run"
    tune(str(base), Settings(data=data, recipe=recipe, limits=Limits(8), seed=0), made, device="cpu")
    tuned, folder = made / "embed_tokens.safetensors", tmp_path / "release"
    ids = ",".join(map(str, IDS))
    lottery.find(
        base, tuned, out=folder / "tickets.json", ticket_id="t", rule=f"ids:{ids}", template="labels"
    )
    (tmp_path / "other.txt").write_text("".join(f"line {word} of it\n" for word in "abcdefghijklmnopqrst"))
    ticket = f"{folder / 'tickets.json'}#t"
    command = words(base, text, "--evidence", folder / "dev.json", "--unit", "sentence", "--ticket", ticket)
    command += ["--reference", str(tuned), "--used", f"tuning={made / 'used.txt'}"]
    command += ["--nulls", str(made / "counts.npy"), "--unrelated", str(tmp_path / "other.txt")]
    wording = tmp_path / "wording.toml"
    shipped = Path(certify.ticket.templates.__file__).parent / "prompts/labels.toml"
    wording.write_text(shipped.read_text("utf-8").replace(" {source}", "  {source}"), "utf-8")
    command += ["--paraphrase", str(wording)]
    assert run([*command, "--passages", "3"]) == 0
    shown = capsys.readouterr().out
    assert "unrelated.json" in shown
    assert "dev.wording.json" in shown
    other = read_manifest(folder / "dev.wording.json")
    assert (other.template.name, other.text.sha256) == (
        "wording",
        read_manifest(folder / "dev.json").text.sha256,
    )
    assert [arm.name for arm in other.arms] == ["base", "reference", "t.transfer"]
    loss = read_manifest(folder / "unrelated.json")
    assert (loss.kind, loss.text.unit, loss.text.sentences) == ("loss", "block:5", 15)
    manifest = read_manifest(folder / "dev.json")
    kinds = Counter(arm.control for arm in manifest.arms if arm.control)
    assert kinds["random"] == kinds["frequency-matched"] == kinds["direction"] == 3
    assert [arm.name for arm in loss.arms] == [arm.name for arm in manifest.arms]
    files = ["--base", str(base), "--reference", str(tuned), "--tokenizer", str(base)]
    issue = ["issue", "--ticket", ticket, "--evidence", str(folder / "dev.json"), *files]
    issue += ["--evidence", str(folder / "dev.wording.json")]
    issue += ["--evidence", str(folder / "unrelated.json"), "--out", str(folder / "c.json"), "--attach"]
    assert run(issue) == 0
    capsys.readouterr()
    run(["check", ticket, *files, "--policy", "strict", "--format", "json"])
    (report,) = json.loads(capsys.readouterr().out)["tickets"]
    found = {one["name"]: one for one in report["claims"] if one["role"] == "other-template"}
    assert found["template-gain:base:first-line"]["finding"] == "measured"
    assert found["template-agreement:reference"]["finding"] == "measured"
    asked = {item["name"]: item for item in report["items"] if item["required"]}
    missing = {name for name, item in asked.items() if item["outcome"] in ("missing", "not run")}
    assert missing == {"guarantee.calibrated"}, "a margin is declared by certify calibrate, on other text"
    assert asked["evidence.split"]["code"] == "DISJOINT"
    (checker,) = (item for item in report["items"] if item["name"] == "checker.agrees")
    assert checker["code"] == "CHECKER_AGREES"


def test_null_tickets_of_tuned_rows_need_an_experiment(
    base: Path, tuned: Path, tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = make_rows(np.array(IDS), np.full((len(IDS), open_table(base).shape[1]), 0.5, np.float32), "F32")
    write_rows(tmp_path / "rows.safetensors", rows)
    out = tmp_path / "tickets.json"
    ids = ",".join(map(str, IDS))
    lottery.find(
        base, tuned, out=out, ticket_id="t", rule=f"ids:{ids}", tuned_rows=tmp_path / "rows.safetensors"
    )
    write_counts(tmp_path / "counts.npy", np.ones(open_table(base).shape[0], np.int64))
    command = words(
        base, text, "--evidence", tmp_path / "dev.json", "--unit", "sentence", "--ticket", f"{out}#t"
    )
    assert run([*command, "--reference", str(tuned), "--nulls", str(tmp_path / "counts.npy")]) == 2
    assert "[NULLS_TUNED]" in capsys.readouterr().err


def test_used_sentences_are_left_out_before_anything_is_computed(
    base: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Told with their number; on either side, and in any role. What is left is evidence that holds."""
    text, train = write_pairs(tmp_path / "dev", 7), write_pairs(tmp_path / "train", 3)
    for code, other in (("en", "Wholly another."), ("ca", "Una altra.")):  # each pair shares one side at most
        path, number = train.with_name(f"train.{code}"), 0 if code == "en" else 1
        lines = path.read_text().splitlines()
        lines[number] = other
        path.write_text("\n".join(lines) + "\n")
    with text.with_name("dev.en").open("a") as en, text.with_name("dev.ca").open("a") as ca:
        en.write(text.with_name("dev.en").read_text().splitlines()[6] + "\nended\n")
        ca.write("Repetida.\nacabada</s> massa aviat\n")
    out = tmp_path / "evidence" / "dev.json"
    command = words(base, text, "--evidence", out, "--unit", "sentence", "--reference", tuned)
    assert run([*command, "--used", f"choice={train}"]) == 0
    assert (
        "9 pairs read, left out: 1 repeated, 3 used before, 1 holding a control token"
        in capsys.readouterr().err.splitlines()
    )
    _, records = read(out.parent)
    assert [record.id for record in records] == [f"dev:{number}" for number in (4, 5, 6, 7)]

    none = tmp_path / "none" / "dev.json"
    command[command.index(str(out))] = str(none)
    assert run([*command, "--used", f"tuning={text}"]) == 5
    assert "[NO_EXAMPLES]" in capsys.readouterr().err
    assert not none.parent.exists()


@pytest.mark.parametrize(
    "more",
    [
        ["--unit", "sentence"],
        ["--resume"],
        ["--used", "tuning=x"],
        ["--reference", "x"],
        ["--ticket", "a", "--ticket", "b"],
        ["--evidence", "e.json"],
        ["--nulls", "x"],
        ["--unrelated", "x"],
        ["--paraphrase", "alpaca"],
        ["--evidence", "e.json", "--unit", "sentence", "--paraphrase", "labels"],
        ["--evidence", "e.json", "--unit", "sentence", "--paraphrase", "alpaca", "--paraphrase", "alpaca"],
        ["--evidence", "e.json", "--unit", "sentence", "--paraphrase", "alpaca", "--outputs", "x"],
        ["--evidence", "unrelated.json", "--unit", "sentence", "--unrelated", "x"],
        ["--evidence", "e.json", "--unit", "sentence", "--table", "x"],
        ["--evidence", "e.json", "--unit", "sentence", "--out", "x"],
        ["--evidence", "e.json", "--unit", "sentence", "--used", "lunch=x"],
        ["--bleu-tokenizer", "flores200"],
    ],
)
def test_options_that_do_not_go_together_are_refused(
    base: Path,
    text: Path,
    more: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sacrebleu.utils.SACREBLEU_DIR", "nowhere")
    assert run(words(base, text, *more)) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_evidence_is_a_json_file_and_that_is_said_first(evaluated: Any, tmp_path: Path) -> None:
    with pytest.raises(CertifyError) as error:
        evaluated(out=tmp_path / "dev.txt")
    assert error.value.code == "OUT_SUFFIX"
    assert not list(tmp_path.iterdir())
