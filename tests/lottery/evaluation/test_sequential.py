"""Drawing units until everything is decided: order, stopping, and evidence that anyone can read again."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

torch = pytest.importorskip("torch", reason="needs the extra tune")
pytest.importorskip("transformers", reason="needs the extra tune")

from evaluations import evaluate_tickets  # noqa: E402
from tiny_llama import PIECES, save_checkpoint, write_pairs  # noqa: E402

import lottery  # noqa: E402
import lottery.evaluation.measure  # noqa: E402
from certify.base.errors import InvalidInputError, NothingToDoError, UsageError  # noqa: E402
from certify.cli.main import run  # noqa: E402
from certify.evidence.load import load  # noqa: E402
from certify.evidence.parser import RecordParser  # noqa: E402
from certify.evidence.read import Manifest, TranslationRecord, iter_records, read_manifest  # noqa: E402
from certify.gate.watch import Watch, open_subjects, rehearse  # noqa: E402
from certify.policy.policy import parse_policy  # noqa: E402
from certify.tables.safefile import open_tensor, write_tensors  # noqa: E402
from lottery.evaluation.sequential import looks  # noqa: E402
from lottery.text.pairsource import read_pairs  # noqa: E402
from lottery.text.usedtext import used_sentences  # noqa: E402

TABLE = "model.embed_tokens.weight"
LANGUAGES = ("en", "ca")
SENTENCES = 40
IDS = sorted(PIECES.index(piece) for piece in (":", "\n", " ", "a"))
# With the largest bet allowed, 11 agreeing units multiply the wealth by 1.1676^11 > 5: no fewer can show it.
LEAST = 11
POLICY = """
schema = "certify.policy"
schema_version = 1
name = "agrees"
question = "Does it agree?"
delta = "0.2"
items = [
    "integrity.base", "integrity.reference", "integrity.tokenizer", "integrity.template", "integrity.rows",
    "released.rows", "certificate.present", "certificate.content", "certificate.claims",
    "evidence.integrity", "evidence.split",
]
design = ["A-UNITS", "A-BLOCKS", "A-EVIDENCE"]

[[claim]]
name = "agreement-rate:reference"
at_least = "0.85"
"""


def rank(seed: int, unit: str) -> str:
    """The order that the specification gives, worked out without the package."""
    return hashlib.sha256(f"{seed}:{unit}".encode()).hexdigest()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("text") / "dev", SENTENCES)


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
        rule = "ids:" + ",".join(map(str, ids))
        lottery.find(base, tuned, out=path, ticket_id=name, rule=rule, template="labels")
    return path


@pytest.fixture(scope="module")
def policy_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("policy") / "agrees.toml"
    path.write_text(POLICY)
    return path


@pytest.fixture
def draw(base: Path, text: Path, tuned: Path, tickets: Path, tmp_path: Path) -> Any:
    def evaluate(ids: Sequence[str], **changes: Any) -> tuple[Manifest, Watch]:
        specs = [f"{tickets}#{name}" for name in ids]
        watch = Watch(parse_policy(POLICY.encode()), open_subjects(specs, base, tuned))
        settings: dict[str, Any] = {
            "template": "labels",
            "reference": tuned,
            "tickets": specs,
            "out": tmp_path / "dev.json",
            "unit": "sentence",
            "max_new_tokens": 4,
            "batch_size": 4,
            "order_seed": 3,
            "used": [used_sentences("tuning", ["another sentence"])],
            "decided": watch,
        }
        return evaluate_tickets(str(base), str(text), LANGUAGES, **(settings | changes)), watch

    return evaluate


def records_of(folder: Path) -> list[TranslationRecord]:
    found = list(iter_records(read_manifest(folder / "dev.json"), folder))
    assert all(isinstance(record, TranslationRecord) for record in found)
    return found  # type: ignore[return-value]


@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=20),
    seed=st.integers(0, 9),
    batch=st.integers(1, 9),
    most=st.none() | st.integers(1, 25),
)
def test_looks_are_growing_heads_of_the_seeded_order(
    sizes: list[int], seed: int, batch: int, most: int | None
) -> None:
    units = [str(unit) for unit, size in enumerate(sizes) for _ in range(size)]
    order = sorted(set(units), key=lambda unit: rank(seed, unit))[:most]
    found = list(looks(units, order_seed=seed, batch=batch, max_units=most))
    before = 0
    for number, known in enumerate(found):
        drawn = {units[i] for i in known}
        assert drawn == set(order[: len(drawn)])
        assert known == [i for i, unit in enumerate(units) if unit in drawn], "whole units, in text order"
        assert len(known) - before >= batch or number == len(found) - 1
        before = len(known)
    assert {units[i] for i in found[-1]} == set(order)


def test_drawing_stops_when_all_is_decided(draw: Any, tmp_path: Path) -> None:
    manifest, watch = draw(["all"])
    records = records_of(tmp_path)
    assert manifest.design == "sequential"
    assert manifest.text.sentences == SENTENCES
    assert watch.looks[-1].decided
    assert not any(look.decided for look in watch.looks[:-1])
    assert LEAST <= len(records) < SENTENCES, "fewer than the bound needs, or nothing was saved"
    assert [look.units for look in watch.looks] == list(range(4, len(records) + 1, 4))
    drawn = sorted(map(str, range(SENTENCES)), key=lambda unit: rank(3, unit))[: len(records)]
    assert {record.unit for record in records} == set(drawn)
    (standing,) = watch.looks[-1].standings
    assert (standing.answer.code, standing.ticket) == ("SHOWN", "all")


def test_each_record_is_written_and_read_once(
    draw: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After all batches every line was parsed by its writer and by the watch, every part file opened once."""
    lines: list[bytes] = []
    opened: list[Path] = []
    parse, start = RecordParser.read, lottery.evaluation.measure.open_part

    def counted(self: RecordParser, line: bytes, what: str) -> Any:
        lines.append(line)
        return parse(self, line, what)

    def started(path: Path, *arguments: Any, **options: Any) -> Any:
        opened.append(path)
        return start(path, *arguments, **options)

    monkeypatch.setattr(RecordParser, "read", counted)
    monkeypatch.setattr(lottery.evaluation.measure, "open_part", started)
    _, watch = draw(["all"])
    monkeypatch.undo()
    written = (tmp_path / "dev.records.jsonl").read_bytes().splitlines()
    assert len(watch.looks) > 2
    assert Counter(lines) == Counter(2 * written)
    assert len(opened) == len(set(opened)) == 3


def test_the_records_are_those_of_the_whole_text(draw: Any, tmp_path: Path) -> None:
    draw(["all"], out=tmp_path / "drawn" / "dev.json")
    draw(["all"], out=tmp_path / "whole" / "dev.json", decided=None)
    whole = {record.id: record for record in records_of(tmp_path / "whole")}
    drawn = records_of(tmp_path / "drawn")
    assert 0 < len(drawn) < len(whole)
    for record in drawn:
        other = whole[record.id]
        # Other batches round otherwise in fp32: probabilities may move, nothing else.
        pairs = zip(record.reference.p_a, other.reference.p_a, strict=True)
        assert max(abs(mine - its) for mine, its in pairs) < 10_000
        assert replace(record, reference=other.reference) == other
        assert record.reference.tokens == other.reference.tokens


def test_a_rehearsal_on_the_whole_text_stops_where_drawing_does(
    draw: Any, base: Path, tuned: Path, tickets: Path, tmp_path: Path
) -> None:
    _, drawn = draw(["all"], out=tmp_path / "drawn" / "dev.json")
    draw(["all"], out=tmp_path / "whole" / "dev.json", decided=None)
    watch = Watch(parse_policy(POLICY.encode()), open_subjects([f"{tickets}#all"], base, tuned))
    found = rehearse(watch, load(tmp_path / "whole" / "dev.json"), 4)
    assert [look.units for look in found] == [look.units for look in drawn.looks]
    assert [look.standings for look in found] == [look.standings for look in drawn.looks]


def test_the_budget_ends_what_cannot_be_decided(draw: Any) -> None:
    manifest, watch = draw(["all"], max_units=6)
    assert manifest.records.count == 6
    assert [look.units for look in watch.looks] == [4, 6]
    assert not watch.looks[-1].decided
    with pytest.raises(UsageError) as error:
        list(looks(["0"], order_seed=0, batch=1, max_units=0))
    assert error.value.code == "UNITS_RANGE"


def test_blocks_are_drawn_whole(draw: Any, tmp_path: Path) -> None:
    manifest, watch = draw(["all"], unit="block:3", max_units=4)
    sizes = Counter(record.unit for record in records_of(tmp_path))
    assert manifest.text.unit == "block:3"
    # Forty sentences: the last of fourteen blocks has one.
    order = sorted(map(str, range(14)), key=lambda unit: rank(3, unit))[:4]
    assert sizes == {unit: 1 if unit == "13" else 3 for unit in order}
    assert [look.units for look in watch.looks] == [2, 4]


def test_an_interrupted_run_goes_on_to_the_same_bytes(
    draw: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(["all"], out=tmp_path / "once" / "dev.json")
    answer = lottery.evaluation.measure.decode
    calls = []

    def dies(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return answer(*arguments, **options)

    out = tmp_path / "again" / "dev.json"
    monkeypatch.setattr(lottery.evaluation.measure, "decode", dies)
    with pytest.raises(KeyboardInterrupt):
        draw(["all"], out=out)
    monkeypatch.setattr(lottery.evaluation.measure, "decode", answer)
    with pytest.raises(UsageError) as error:
        draw(["all"], out=out)
    assert error.value.code == "OUT_EXISTS"
    draw(["all"], out=out, resume=True)
    for name in ("dev.json", "dev.records.jsonl"):
        assert (tmp_path / "once" / name).read_bytes() == (out.parent / name).read_bytes()


def test_a_text_of_used_sentences_is_refused_before_the_first_look(draw: Any, text: Path) -> None:
    pairs = read_pairs(str(text), *LANGUAGES)
    used = used_sentences("tuning", (pair.source for pair in pairs))
    with pytest.raises(NothingToDoError) as error:
        draw(["all"], used=[used])
    assert error.value.code == "NO_EXAMPLES"


def test_evidence_of_a_fixed_design_is_not_looked_at(draw: Any, tmp_path: Path) -> None:
    _, watch = draw(["all"])
    draw(["all"], out=tmp_path / "whole" / "dev.json", decided=None)
    with pytest.raises(InvalidInputError) as error:
        watch(tmp_path / "whole" / "dev.json")
    assert error.value.code == "EVIDENCE_DESIGN"


def test_the_command(
    base: Path,
    text: Path,
    tuned: Path,
    tickets: Path,
    policy_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words: list[Any] = ["evaluate", "--base", base, "--reference", tuned, "--ticket", f"{tickets}#all"]
    words += ["--data", text, "--source", "en", "--target", "ca", "--template", "labels", "--batch-size", 4]
    words += ["--max-new-tokens", 4, "--unit", "sentence", "--used", f"tuning={text}x"]
    write_pairs(text.with_name("devx"), 3, first=100)
    words += ["--evidence", tmp_path / "dev.json", "--until-decided", policy_file, "--format", "json"]
    assert run([str(word) for word in words]) == 0
    report = json.loads(capsys.readouterr().out)["until_decided"]
    assert report["decided"] is True
    assert report["units"] == len(records_of(tmp_path)) < SENTENCES
    assert report["standings"][0]["code"] == "SHOWN"
    assert run([*map(str, words), "--resume", "--delta", "0.3"]) == 2
    assert "DELTA_TOO_LARGE" in capsys.readouterr().err
    assert run([*map(str, words[: words.index("--until-decided")]), "--max-units", "3"]) == 2


def test_delta_is_at_most_the_policys(base: Path, tuned: Path, tickets: Path) -> None:
    policy = parse_policy(POLICY.encode())
    subjects = open_subjects([f"{tickets}#all"], base, tuned)
    Watch(policy, subjects, Fraction(1, 5))
    with pytest.raises(UsageError) as error:
        Watch(policy, subjects, Fraction(1, 4))
    assert error.value.code == "DELTA_TOO_LARGE"
    with pytest.raises(UsageError) as error:
        Watch(policy, ())
    assert error.value.code == "TICKET_NEEDED"
