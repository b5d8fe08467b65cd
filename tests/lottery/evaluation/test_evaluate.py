"""Decoding, extraction and scoring: batches against one by one, rules by hand, rows put where they belong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra tune")
pytest.importorskip("transformers", reason="needs the extra tune")

import sacrebleu  # noqa: E402
from tiny_llama import PIECES, save_checkpoint, write_pairs  # noqa: E402

import lottery  # noqa: E402
from certify.base.errors import CertifyError, InvalidInputError, UsageError  # noqa: E402
from certify.base.records import RULES  # noqa: E402
from certify.cli.main import run  # noqa: E402
from certify.tables.safefile import open_tensor, write_tensors  # noqa: E402
from certify.ticket.templates import encode, load_template  # noqa: E402
from lottery.evaluation.evaluate import evaluate  # noqa: E402
from lottery.evaluation.generate import generate  # noqa: E402
from lottery.model.backbone import load_backbone  # noqa: E402
from lottery.model.row_swap import Placed  # noqa: E402
from lottery.model.tokenizer import load_tokenizer  # noqa: E402
from lottery.text.pairsource import read_pairs  # noqa: E402
from lottery.text.score import Scorer, extract  # noqa: E402

ROWS = len(PIECES)
TABLE = "model.embed_tokens.weight"
LANGUAGES = ("en", "ca")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("text") / "dev", 9)


@pytest.fixture(scope="module")
def tuned(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base's table with other values in a few rows that every prompt feeds."""
    table = np.array(open_tensor(base / "model.safetensors", TABLE))
    for i in (PIECES.index(":"), PIECES.index("\n"), PIECES.index(" ")):
        table[i] = np.random.default_rng(i).standard_normal(table.shape[1])
    path = tmp_path_factory.mktemp("tuned") / "table.safetensors"
    write_tensors(path, {TABLE: ("F32", table)}, None)
    return path


def test_batches_give_what_one_by_one_gives(base: Path, text: Path) -> None:
    model, tokenizer = load_backbone(base, "F32").eval(), load_tokenizer(base)
    prompts = encode(
        load_template("labels"), read_pairs(str(text), *LANGUAGES), tokenizer, *LANGUAGES, response=False
    )
    assert len({len(prompt) for prompt in prompts}) > 1, "padding must take part"
    together = generate(Placed(model), tokenizer, prompts, max_new_tokens=8, batch_size=4)
    alone = []
    for prompt in prompts:
        with torch.inference_mode():
            row = model.generate(
                torch.tensor([prompt.ids]), max_new_tokens=8, do_sample=False, eos_token_id=2, pad_token_id=2
            )[0, len(prompt) :].tolist()
        alone.append((prompt.id, tokenizer.decode(row[: row.index(2)] if 2 in row else row), 2 in row))
    assert [(output.id, output.text, output.ended) for output in together] == alone


def test_prompts_that_do_not_fit_are_refused(base: Path, text: Path) -> None:
    with pytest.raises(UsageError) as error:
        evaluate(str(base), str(text), LANGUAGES, template="labels", max_new_tokens=100_000)
    assert error.value.code == "MAX_LENGTH"


def test_a_pair_that_a_limit_drops_holds_no_control_token(base: Path, text: Path) -> None:
    result = evaluate(str(base), str(text), LANGUAGES, template="labels", max_new_tokens=1, limit=2)
    assert (result.sentences, result.control) == (2, 0)


@pytest.mark.parametrize(
    ("output", "whole", "first", "cut"),
    [
        ("Hola.", "Hola.", "Hola.", "Hola."),
        (" Hola.\nEnglish: Bye.\n", "Hola.\nEnglish: Bye.", "Hola.", "Hola."),
        ("\n\n Hola.\nAdéu.\nCatalan: x", "Hola.\nAdéu.\nCatalan: x", "Hola.", "Hola.\nAdéu."),
        ("Catalan: x\nEnglish: y", "Catalan: x\nEnglish: y", "Catalan: x", ""),
        ("", "", "", ""),
        ("\n \n", "", "", ""),
    ],
)
def test_extraction_rules(output: str, whole: str, first: str, cut: str) -> None:
    labels = ("English:", "Catalan:")
    assert [extract(output, rule, labels) for rule in RULES] == [whole, first, cut]


def test_scores_are_sacrebleus() -> None:
    texts, references = (
        ["el gat dorm aquí ara", "bon dia a tothom"],
        ["el gat dorm aquí avui", "bon dia a tots"],
    )
    scorer = Scorer()
    score = scorer.scores(map(scorer.statistics, texts, references), "whole")
    assert score.bleu == sacrebleu.corpus_bleu(texts, [references]).score
    assert score.chrf == sacrebleu.corpus_chrf(texts, [references], word_order=2).score
    assert "tok:13a" in score.bleu_signature
    assert "nw:2" in score.chrf_signature
    with pytest.raises(ValueError, match="no statistics"):
        scorer.scores([], "whole")


def test_a_table_and_a_ticket_of_all_its_moved_rows_say_the_same(
    base: Path, text: Path, tuned: Path, tmp_path: Path
) -> None:
    def said(**rows: object) -> list[str]:
        result = evaluate(str(base), str(text), LANGUAGES, template="labels", max_new_tokens=8, **rows)
        return [output.text for output in result.outputs]

    ids = sorted(PIECES.index(piece) for piece in (":", "\n", " "))
    out = tmp_path / "tickets.json"
    lottery.find(base, tuned, out=out, ticket_id="all", rule="ids:" + ",".join(map(str, ids)))
    lottery.find(base, tuned, out=out, ticket_id="one", rule=f"ids:{ids[0]}")
    with_table = said(table=tuned)
    assert with_table != said()
    assert said(ticket=f"{out}#all") == with_table
    assert said(ticket=f"{out}#one") != with_table


def test_rows_of_another_base_are_refused(base: Path, text: Path, tuned: Path, tmp_path: Path) -> None:
    other = save_checkpoint(tmp_path / "other", seed=1)
    out = tmp_path / "tickets.json"
    lottery.find(base, tuned, out=out, ticket_id="t", rule="ids:5")
    with pytest.raises(InvalidInputError) as error:
        evaluate(str(other), str(text), LANGUAGES, template="labels", ticket=str(out))
    assert error.value.code == "WRONG_BASE"
    with pytest.raises(CertifyError) as both:
        evaluate(str(base), str(text), LANGUAGES, template="labels", ticket=str(out), table=tuned)
    assert both.value.code == "USAGE"


def test_the_command_reports_every_rule(
    base: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "outputs.jsonl"
    words = ["evaluate", "--base", base, "--data", text, "--source", "en", "--target", "ca"]
    words += ["--template", "labels", "--limit", 4, "--max-new-tokens", 5, "--out", out, "--format", "json"]
    assert run([str(word) for word in words]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["sentences"] == 4
    assert [score["rule"] for score in report["scores"]] == list(RULES)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == 4
    assert report["ended"] == sum(line["ended"] for line in lines) / 4
    assert all(1 <= len(line["tokens"]) <= 5 for line in lines)
