"""Rule ``template``: the rows that a prompt template itself feeds, judged by ids counted by hand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import in_process
from numpy.typing import NDArray
from ticket_folders import edit, file_sha256, make_ticket
from tiny_tokenizer import framed, tiny_tokenizer

import certify
import certify.checker
from certify.base.errors import InvalidInputError, UsageError
from certify.ticket.templates import Template, fed_counts, load_template
from lottery.model.tokenizer import serving_fed

ROWS = 400
TEMPLATE = "explicit"


def by_hand(tokenizer: Any, template: Template, *languages: str) -> NDArray[np.int64]:
    """Ids of the tokens of a prompt that end before the sentence or begin behind it."""
    counts = np.zeros(ROWS, np.int64)
    for sentence in ("The house is old.", "the house is old"):
        text = template.fill(sentence, *languages).text
        start = text.rindex(sentence)
        encoded = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
        for token_id, (first, last) in zip(encoded.ids, encoded.offsets, strict=True):
            counts[token_id] += last <= start or first >= start + len(sentence)
    return counts


@pytest.mark.parametrize("name", ["explicit", "alpaca", "labels"])
@pytest.mark.parametrize("framing", ["$A", "<s> $A", "<s> $A </s>"])
def test_the_template_is_counted_in_context(name: str, framing: str) -> None:
    tokenizer, template = framed(tiny_tokenizer(ROWS), framing), load_template(name)
    counts = fed_counts(template, tokenizer, "en", "ca", ROWS)
    assert counts.tolist() == by_hand(tokenizer, template, "en", "ca").tolist()
    assert counts[tokenizer.bos_token_id] == 0
    assert 0 < (counts > 0).sum() < ROWS / 2
    other = fed_counts(template, tokenizer, "en", "es", ROWS)
    assert other.tolist() != counts.tolist(), "languages are in the text"
    with pytest.raises(InvalidInputError) as refused:
        fed_counts(template, tokenizer, "en", "ca", int(np.flatnonzero(counts)[-1]))
    assert refused.value.code == "TOKENIZER_TABLE_SIZE"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ticket of rule template, over a table in which these rows and no others moved."""
    root = tmp_path_factory.mktemp("template")
    tokenizer = tiny_tokenizer(ROWS)
    tokenizer.save_pretrained(root / "made")
    vocab = json.loads((root / "made" / "tokenizer.json").read_text())["model"]["vocab"]
    base = np.random.default_rng(3).normal(0, 0.02, (ROWS, 32)).astype(np.float16)
    tuned = base.copy()
    tuned[by_hand(tokenizer, load_template(TEMPLATE), "en", "ca") > 0] += np.float16(0.06)
    make_ticket(root, base=base, tuned=tuned, vocab=vocab, bundle=False)
    checkpoint = root / "sources" / "checkpoint"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (checkpoint / name).write_bytes((root / "made" / name).read_bytes())
    (root / "ticket" / "tickets.json").unlink()
    make_ticket(root, rule="template:en-ca", template=TEMPLATE, fed=serving_fed)
    return root


@pytest.fixture
def path(root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(root / "ticket", tmp_path / "ticket")) / "tickets.json"


def judged(path: Path, **options: Any) -> tuple[int, str]:
    """Exit code of the gate, and the verdict of the checker alone."""
    report = certify.check(path, policy="selection", engine="numpy", workers=1, **options)
    (opinion,) = certify.checker.verify(path.parent, path.name, ("selection",))["tiny"].values()
    return int(report.exit_code), opinion.status


def test_both_programs_choose_them_again(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ticket = json.loads(path.read_text())["tickets"][0]
    tokenizer = tiny_tokenizer(ROWS)
    expected = {*np.flatnonzero(by_hand(tokenizer, load_template(TEMPLATE), "en", "ca")).tolist()}
    assert {row["id"] for row in ticket["tokens"]} == expected - {*tokenizer.all_special_ids}
    assert judged(path) == judged(path, fed=serving_fed) == (0, "CERTIFIED")
    assert in_process(["check", str(path), "--policy", "selection"], capsys).code == 0


def count_more(path: Path) -> None:
    """Counts of the author's own, bound, with the row that they name in the place of the honest ones."""
    file = path.parent / "counts" / "tiny.npy"
    counts = np.load(file)
    counts[:] = np.where(counts > 0, counts + 1, 0)
    np.save(file, counts)
    edit(path, lambda ticket: ticket["selection"]["counts"].update(sha256=file_sha256(file)))


def test_counts_of_ones_own_are_seen_where_a_tokenizer_is_at_hand(path: Path) -> None:
    count_more(path)
    assert judged(path, fed=serving_fed)[0] == 4
    report = certify.check(path, policy="selection", engine="numpy", workers=1, fed=serving_fed)
    assert "TEMPLATE_COUNTS" in {item.code for item in report.tickets[0].items}
    assert judged(path) == (0, "CERTIFIED"), "believed where none is, as counts over text are"


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (lambda ticket: ticket["tokens"].pop(), (4, "INVALID")),
        (lambda ticket: ticket["selection"].update(rule="template:en"), (4, "INVALID")),
        (lambda ticket: ticket["selection"].update(counts=None), (4, "INVALID")),
        (lambda ticket: ticket["selection"].update(alpha="0.5"), (4, "INVALID")),
        (lambda ticket: ticket["selection"].update(rule="frequency:1"), (1, "REFUTED")),
    ],
    ids=["a row less", "no pair", "no counts", "a level of ones own", "another rule"],
)
def test_planted(path: Path, fault: Callable[[dict[str, Any]], None], expected: tuple[int, str]) -> None:
    edit(path, fault)
    assert judged(path) == expected


def test_a_ticket_without_a_template_has_no_such_rule(path: Path) -> None:
    edit(path, lambda ticket: ticket.update(template=None))
    with pytest.raises(InvalidInputError):
        judged(path)
    (opinion,) = certify.checker.verify(path.parent, path.name, ("selection",))["tiny"].values()
    assert opinion.status == "INVALID"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"template": None}, "RULE_OPTION"),
        ({"fed": None}, "RULE_OPTION"),
        ({"rule": "template:english"}, "RULE_MALFORMED"),
        ({"rule": "template"}, "RULE_MALFORMED"),
        ({"rule": "template:en-xx"}, "LANGUAGE_UNKNOWN"),
        ({"correction": "holm"}, "RULE_OPTION"),
    ],
)
def test_what_find_refuses(root: Path, options: dict[str, Any], code: str) -> None:
    asked = {"rule": "template:en-ca", "template": TEMPLATE, "fed": serving_fed, "ticket_id": "x"} | options
    with pytest.raises(UsageError) as refused:
        make_ticket(root, **asked)
    assert refused.value.code == code
