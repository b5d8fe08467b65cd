"""Attention mass against plain loops and planted attention; the panel of rows whose figures are known."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from command import following, in_process
from tiny_llama import PIECES, VOCABULARY, save_checkpoint, tiny_llama, write_pairs
from transformers import LlamaForCausalLM, MambaConfig, MambaForCausalLM

from certify.base.errors import InvalidInputError, UsageError
from certify.cli.main import run
from certify.tables.safefile import open_tensor, write_tensors
from certify.ticket.schema import read_ticket_file
from lottery.controls.mechanism import attention_mass, mean_by_row, uniform_mass

TABLE = "model.embed_tokens.weight"
TEXT = [[1, 5, 9, 5, 40, 7, 7], [1, 5], [1], [1, 8, 12, 60], [3, 5, 5, 5, 2, 1, 90, 33, 4]]


def looped(model: LlamaForCausalLM, ids: Sequence[int]) -> list[float]:
    """m(p) of one sequence, without padding: one probability at a time."""
    with torch.no_grad():
        layers = model(torch.tensor([ids]), output_attentions=True).attentions
    masses = []
    for p in range(len(ids) - 1):
        shares = [
            float(layer[0, head, q, p])
            for layer in layers
            for head in range(layer.shape[1])
            for q in range(p + 1, len(ids))
        ]
        masses.append(sum(shares) / len(shares))
    return masses


@pytest.mark.parametrize("probabilities", [1, 8 * 2 * 49, 1 << 26], ids=["alone", "two", "all"])
def test_mass_is_that_of_plain_loops_in_any_batch(probabilities: int) -> None:
    model = tiny_llama().eval()
    model.set_attn_implementation("eager")
    expected = [looped(model, ids) for ids in TEXT]
    model.set_attn_implementation("sdpa")
    seen: list[tuple[int, int]] = []
    found = attention_mass(
        model, TEXT, probabilities=probabilities, progress=lambda done, total: seen.append((done, total))
    )
    assert model.config._attn_implementation == "sdpa"
    assert (seen[-1], len(seen)) == ((5, 5), {1: 5, 784: 3, 1 << 26: 1}[probabilities])
    for mine, slow in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, slow, rtol=0, atol=1e-6)  # fp32, other kernels for other batches


def test_planted_attention() -> None:
    """Without queries every position is attended to alike."""
    model = tiny_llama().eval()
    for layer in model.model.layers:
        layer.self_attn.q_proj.weight.data.zero_()
    for mass, ids in zip(attention_mass(model, TEXT), TEXT, strict=True):
        by_hand = [
            sum(1 / (q + 1) for q in range(p + 1, len(ids))) / (len(ids) - 1 - p) for p in range(len(ids) - 1)
        ]
        np.testing.assert_allclose(mass, by_hand, rtol=0, atol=1e-6)
        np.testing.assert_allclose(uniform_mass(len(ids)), by_hand, rtol=0, atol=1e-12)


def test_mean_by_row_is_over_positions_with_a_later_one() -> None:
    masses = [np.arange(len(ids) - 1) / 10 for ids in TEXT]
    found = mean_by_row(TEXT, masses, VOCABULARY)
    assert found[5] == pytest.approx((0.1 + 0.3 + 0.1 + 0.2 + 0.3) / 5)
    assert found[7] == pytest.approx(0.5), "the last 7 has no later position"
    assert np.isnan(found[[60, 4, 11]]).all(), "last positions only, or never fed"


def test_refused() -> None:
    model = tiny_llama(max_position_embeddings=8).eval()
    with pytest.raises(UsageError) as long:
        attention_mass(model, TEXT)
    model.model.embed_tokens.weight.data[90] = float("nan")
    with pytest.raises(InvalidInputError) as infinite:
        attention_mass(model, [[1, 90, 2]])
    recurrent = MambaForCausalLM(MambaConfig(vocab_size=VOCABULARY, hidden_size=8, num_hidden_layers=1))
    with pytest.raises(InvalidInputError) as without:
        attention_mass(recurrent.eval(), [[1, 2]])
    found = [caught.value.code for caught in (long, infinite, without)]
    assert found == ["MAX_LENGTH", "NON_FINITE", "NO_ATTENTION"]


# --- the command -------------------------------------------------------------------


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, a table whose ``:`` is turned round and ``q`` a little longer, tickets of both and by rule."""
    folder = tmp_path_factory.mktemp("workshop")
    base = save_checkpoint(folder / "base")
    table = open_tensor(base / "model.safetensors", TABLE).copy()
    table[PIECES.index(":")] *= -4
    table[PIECES.index("q")] *= 1.01
    write_tensors(folder / "tuned.safetensors", {TABLE: ("F32", table)}, {})
    write_pairs(folder / "dev", 6)
    ids = ",".join(str(PIECES.index(piece)) for piece in ("<s>", ":", "q"))
    made = [
        "find",
        "--base",
        base,
        "--tuned",
        folder / "tuned.safetensors",
        "--out",
        folder / "t" / "tickets.json",
    ]
    for name, rule in (("three", f"ids:{ids}"), ("fed", "template:en-ca")):
        assert run(list(map(str, [*made, "--id", name, "--rule", rule, "--template", "labels"]))) == 0
    return folder


def words(folder: Path, name: str, *more: object) -> list[object]:
    language = ["--source", "en", "--target", "ca", "--template", "labels"]
    ticket = ["--ticket", f"{folder}/t/tickets.json#{name}", "--base", folder / "base"]
    return ["mechanism", *ticket, *language, *more]


def test_the_panel_says_why(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tuned = ["--data", workshop / "dev", "--reference", workshop / "tuned.safetensors"]
    ran = in_process(words(workshop, "three", *tuned, "--format", "json"), capsys)
    assert (ran.code, ran.err) == (0, "")
    told = json.loads(ran.out)
    start, never, colon = told["rows"]
    assert [row["piece"] for row in told["rows"]] == ["<s>", "q", ":"]
    assert [row["special"] for row in told["rows"]] == [True, False, False]
    assert (colon["shift"], colon["cosine"]) == (pytest.approx(5), pytest.approx(-1))
    assert never["shift"] == pytest.approx(0.01, rel=1e-4)
    assert (colon["rank"], never["rank"], start["rank"]) == (1, 2, 3)
    assert (never["fed"], never["mass_base"], never["mass_released"]) == (0, None, None)
    assert (start["fed"], start["D"]) == (1, 0)
    assert colon["mass_base"] != pytest.approx(colon["mass_released"], rel=1e-3), "the released row acts"
    assert colon["mass_uniform"] < start["mass_uniform"], "the first position has the fewest rivals"
    # Membership is that of rule template, which names the same rows without the panel.
    by_rule = {t.id: t for t in read_ticket_file(workshop / "t" / "tickets.json").tickets}["fed"]
    of_template = set(by_rule.ids)
    assert [row["template"] for row in told["rows"]] == [row["id"] in of_template for row in told["rows"]]
    groups = {group["name"]: group for group in told["comparison"]}
    assert groups["others of the template"]["rows"] == len(of_template - {colon["id"]})
    assert groups["others of the text"]["D"] == 0
    assert (groups["other special tokens"]["rows"], groups["other special tokens"]["D"]) == (0, None)
    ran = in_process(words(workshop, "three", *tuned, "--format", "csv"), capsys)
    for cells, row in zip(csv.DictReader(ran.out.splitlines()), told["rows"], strict=True):
        assert cells == {name: "" if value is None else str(value) for name, value in row.items()}
    ran = in_process(words(workshop, "fed", *tuned), capsys)
    lines = ran.out.splitlines()
    assert all(line[27:35] == "template" for line in lines[2 : 2 + len(of_template)])
    assert next(line for line in lines if "others of the template" in line).split()[0] == "0"
    assert str(workshop / "base") in following(ran.out)


def test_one_line_for_bad_input(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tuned = ["--reference", workshop / "tuned.safetensors"]
    assert (
        in_process(words(workshop, "three", "--data", workshop / "dev"), capsys)
        .one_line()
        .endswith("[REFERENCE_NEEDED]")
    )
    for text, code in (("", "NO_PAIRS"), ("a </s> b\n", "NO_PROMPTS")):
        for side in ("en", "ca"):
            (workshop / f"bad.{side}").write_text(text)
        ran = in_process(words(workshop, "three", *tuned, "--data", workshop / "bad"), capsys)
        assert ran.one_line().endswith(f"[{code}]")
