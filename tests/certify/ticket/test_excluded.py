"""What a ticket of a large vocabulary leaves out: few entries, read as the ids that they stand for."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import in_process
from hypothesis import given
from hypothesis import strategies as st
from ticket_folders import edit, make_ticket, write_json, write_sources

import certify
import certify.checker
from certify.base.errors import InvalidInputError
from certify.base.records import Excluded
from certify.checker.scan import spelled
from certify.ticket.schema import ExcludedRef, ends, read_ticket_file

WIDTH = 8


@given(st.sets(st.integers(0, 60), min_size=1))
def test_entries_stand_for_the_ids(ids: set[int]) -> None:
    listed = sorted(ids)
    entries = ExcludedRef.of(Excluded("x", tuple(listed))).ids
    assert [i for a, b in map(ends, entries) for i in range(a, b + 1)] == listed
    assert spelled([{"reason": "x", "ids": [*entries]}], 61) == [{"reason": "x", "ids": listed}]
    runs = [ends(entry) for entry in entries if isinstance(entry, str)]
    assert all(b - a >= 7 and {a - 1, b + 1}.isdisjoint(ids) for a, b in runs)
    alone = {entry for entry in entries if isinstance(entry, int)}
    assert not any({*range(i, i + 8)} <= alone for i in alone)


def vocabulary_of(root: Path, pieces: int, unused: int) -> Path:
    """A ticket of 18 rows over so many pieces, of which ``unused`` are special without a role."""
    random = np.random.default_rng(5)
    base = random.normal(0, 0.02, (pieces + 64, WIDTH)).astype(np.float16)
    tuned = base.copy()
    tuned[random.choice(np.arange(unused + 3, pieces), 18, replace=False)] += np.float16(0.5)
    names = ["<pad>", "<eos>", "<bos>", *(f"<unused{i}>" for i in range(unused))]
    vocab = {name: i for i, name in enumerate(names)} | {f"w{i}": i for i in range(len(names), pieces)}
    checkpoint, _ = write_sources(root / "sources", base, tuned, vocab)
    content = json.loads((checkpoint / "tokenizer.json").read_text())
    flags = content["added_tokens"][0]
    content["added_tokens"] = [flags | {"id": i, "content": name} for i, name in enumerate(names)]
    write_json(checkpoint / "tokenizer.json", content)
    return make_ticket(root, rule="norm:18")


@pytest.mark.slow
def test_a_ticket_over_many_pieces_is_a_small_file(tmp_path: Path) -> None:
    assert vocabulary_of(tmp_path, 262_144, 6_250).stat().st_size < 80_000


def judged(path: Path) -> tuple[int, str]:
    report = certify.check(path, policy="selection", engine="numpy", workers=1)
    opinions = certify.checker.verify(path.parent, path.name, ("selection",))
    return int(report.exit_code), opinions["tiny"]["selection"].status


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return vocabulary_of(tmp_path_factory.mktemp("many"), 300, 40)


@pytest.fixture
def path(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made.parent, tmp_path / "ticket")) / made.name


def test_many_special_tokens_are_one_entry_and_one_line(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    *few, many, beyond = json.loads(path.read_text())["tickets"][0]["selection"]["excluded"]
    assert [one["ids"] for one in few] == [[0], [1], [2]]
    assert many == {"reason": "special tokens", "ids": ["3-42"]}
    assert beyond["ids"] == ["300-363"]
    assert judged(path) == (0, "CERTIFIED")
    printed = in_process(["check", str(path), "--policy", "selection"], capsys).out
    assert printed.count("left out, ") <= 5


def apart(ticket: dict[str, Any]) -> None:
    """The form of schema version 1: a group for every special token, and every id by itself."""
    *few, _, beyond = ticket["selection"]["excluded"]
    spread = [{"reason": f"special: <unused{i}>", "ids": [3 + i]} for i in range(40)]
    ticket["selection"]["excluded"] = [*few, *spread, beyond | {"ids": [*range(300, 364)]}]


def test_an_older_file_is_read_as_it_is(path: Path) -> None:
    edit(path, apart)
    path.write_text(path.read_text().replace('"schema_version": 2', '"schema_version": 1'))
    asserted = json.loads(path.read_text())["tickets"][0]
    del asserted["evidence"], asserted["certificate"]
    text = json.dumps(asserted, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    assert read_ticket_file(path).tickets[0].digest() == hashlib.sha256(text.encode()).hexdigest()
    assert judged(path) == (0, "CERTIFIED")
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 3'))
    with pytest.raises(InvalidInputError) as refused:
        read_ticket_file(path)
    assert refused.value.code == "TICKET_NEWER"


@pytest.mark.parametrize(
    "ids", [["3-41"], ["4-42"], ["3-43"], ["3-20", "22-42"], [*range(3, 42)], ["3-42", 299]], ids=str
)
def test_other_ids_than_the_tokenizer_says_are_refuted(path: Path, ids: list[Any]) -> None:
    edit(path, lambda ticket: ticket["selection"]["excluded"][-2].update(ids=ids))
    assert judged(path) == (1, "REFUTED")


@pytest.mark.parametrize(
    "entries",
    [["5-3"], ["3-9", 9], ["3-9", "8-20"], ["03-9"], ["3"], ["3-"], ["-3"], ["3-x"], [True], [[3]], [3.0]],
)
def test_malformed_runs(tmp_path: Path, entries: list[Any]) -> None:
    path = make_ticket(tmp_path)
    edit(path, lambda ticket: ticket["selection"]["excluded"][-1].update(ids=entries))
    with pytest.raises(InvalidInputError) as refused:
        read_ticket_file(path)
    assert refused.value.code == "TICKET_MALFORMED"
    verdicts = certify.checker.verify(path.parent, path.name, ("selection",))
    assert verdicts["tiny"]["selection"].status == "INVALID"


def test_more_ids_than_a_table_has(tmp_path: Path) -> None:
    path = make_ticket(tmp_path)
    groups = [{"reason": reason, "ids": ["0-63"]} for reason in "xyz"]
    edit(path, lambda ticket: ticket["selection"].update(excluded=groups))
    with pytest.raises(InvalidInputError):
        read_ticket_file(path)
    verdicts = certify.checker.verify(path.parent, path.name, ("selection",))
    assert verdicts["tiny"]["selection"].status == "INVALID"
