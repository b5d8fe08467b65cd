"""Opportunity counts, against a walk over positions and by hand on a real tokenizer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from command import following
from hypothesis import given
from hypothesis import strategies as st
from tiny_tokenizer import tiny_tokenizer

from certify.base.errors import InvalidInputError, NothingToDoError, UsageError
from certify.tables.safefile import write_tensors
from certify.ticket.corpus import Pair
from certify.ticket.make import find
from certify.ticket.templates import Example, Span, encode, load_template
from lottery.cli.opportunity import opportunity
from lottery.controls.opportunity import SEGMENTS, of_examples
from lottery.text.segments import SEGMENTS as GATES
from lottery.text.segments import segments_of

BOS, EOS = 1, 2


@st.composite
def examples(draw: st.DrawFn) -> Example:
    """Ids in front, an instruction, a source that may share a token with it, a response; each may lack."""
    ids = draw(st.lists(st.integers(1, 12), min_size=2, max_size=14))
    length = draw(st.integers(1, len(ids)))
    marks = sorted(draw(st.lists(st.integers(0, length), min_size=4, max_size=4)))
    source = draw(st.sampled_from([Span(marks[2], marks[3]), Span(max(0, marks[1] - 1), marks[3])]))
    target = Span(length, max(length, len(ids) - 1))
    front = draw(st.integers(0, min(2, length)))
    return Example("x", tuple(ids), length, Span(marks[0], marks[1]), source, target, front)


def walked(ids: Sequence[int], prompts: Sequence[Example]) -> dict[str, list[set[int]]]:
    """For every segment, the ids that each prompt feeds there: position by position."""
    found: dict[str, list[set[int]]] = {segment: [] for segment in SEGMENTS}
    for prompt in prompts:
        here: dict[str, set[int]] = {segment: set() for segment in SEGMENTS}
        for position, token in enumerate(prompt.ids):
            if token not in ids:
                continue
            places = []
            if position < prompt.prompt_length:
                places.append("prompt")
                begins = position < prompt.front
                if prompt.source.start <= position < prompt.source.stop:
                    places.append("source")
                else:
                    places.append("instruction")
                    if not begins and not prompt.instruction.start <= position < prompt.instruction.stop:
                        places.append("frame")
            elif position < len(prompt.ids) - 1:
                places.append("target")
            for place in [*places, "anywhere"] if places else []:
                here[place].add(token)
        for segment in SEGMENTS:
            found[segment].append(here[segment])
    return found


@given(
    prompts=st.lists(examples(), min_size=1, max_size=6),
    ids=st.lists(st.integers(1, 14), min_size=1, max_size=8, unique=True),
)
def test_counts_are_those_of_a_walk(prompts: list[Example], ids: list[int]) -> None:
    found = of_examples(ids, iter(prompts))
    expected = walked(ids, prompts)
    assert (found.ids, found.prompts) == (tuple(sorted(ids)), len(prompts))
    assert tuple(found.fed) == tuple(found.touched) == SEGMENTS
    for segment in SEGMENTS:
        counts = {i: sum(i in met for met in expected[segment]) for i in sorted(ids)}
        assert found.fed[segment] == tuple(counts.values())
        assert found.shares(segment) == {i: Fraction(n, len(prompts)) for i, n in counts.items()}
        assert found.unsupported(segment) == tuple(i for i, n in counts.items() if n == 0)
        touched = sum(bool(met) for met in expected[segment])
        assert found.touched[segment] == touched
    # A segment of the prompt is never fed more often than the prompt.
    for part in ("instruction", "source", "frame"):
        assert all(a <= b for a, b in zip(found.fed[part], found.fed["prompt"], strict=True))


@given(prompt=examples())
def test_what_is_counted_is_what_a_gate_opens(prompt: Example) -> None:
    """Of every segment a count knows exactly the ids at positions at which a gate of it lets rows act."""
    codes = segments_of(prompt)
    assert len(codes) == len(prompt)
    found = of_examples(sorted(set(prompt.ids)), [prompt])
    for segment in GATES:
        places = list(zip(prompt.ids, codes, strict=True))
        if segment == "target":
            places = places[prompt.prompt_length : -1]  # the last token of a response is never fed
        gated = {i for i, code in places if GATES[code] == segment}
        assert {i for i, n in zip(found.ids, found.fed[segment], strict=True) if n} == gated


def test_in_context_and_not_in_isolation() -> None:
    tokenizer: Any = tiny_tokenizer()
    pairs = [Pair("Where is the house?", "On és la casa?", "x:1"), Pair("The dog.", "El gos.", "x:2")]
    prompts = encode(load_template("explicit"), pairs, tokenizer, "en", "ca")
    newline = tokenizer.convert_tokens_to_ids("<0x0A>")
    (house,) = set(prompts[0].ids[prompts[0].source.start : prompts[0].source.stop][-2:-1])
    found = of_examples([BOS, EOS, newline, house], prompts)
    assert found.shares("instruction")[BOS] == 1
    assert found.shares("frame")[newline] == found.shares("instruction")[newline] == 1
    assert EOS in found.unsupported()  # taught, never fed
    assert found.shares("source")[house] == Fraction(1, 2)
    assert found.touched["anywhere"] == found.prompts
    bare = encode(load_template("explicit"), pairs, tokenizer, "en", "ca", response=False)
    without = of_examples([BOS, EOS, newline, house], bare)
    assert {s: without.fed[s] for s in ("prompt", "source", "frame")} == {
        s: found.fed[s] for s in ("prompt", "source", "frame")
    }
    assert set(without.fed["target"]) == {0}


# --- the command -------------------------------------------------------------------


@pytest.fixture
def workshop(tmp_path: Path) -> Path:
    """A base with the tiny tokenizer, a text, and a ticket of a newline, a word and a token never fed."""
    tokenizer = tiny_tokenizer()
    base = tmp_path / "base"
    tokenizer.save_pretrained(base)
    (base / "config.json").write_text('{"model_type": "llama", "tie_word_embeddings": false}')
    table = np.random.default_rng(0).normal(size=(len(tokenizer), 4)).astype(np.float32)
    write_tensors(base / "model.safetensors", {"model.embed_tokens.weight": ("F32", table)}, None)
    write_tensors(tmp_path / "tuned.safetensors", {"model.embed_tokens.weight": ("F32", table + 1)}, None)
    ids = sorted(tokenizer.convert_tokens_to_ids(["<0x0A>", "▁dog", "<0xFF>"]))
    (tmp_path / "t.en").write_text("The dog is here.\nThe house.\n")
    (tmp_path / "t.ca").write_text("El gos\nLa casa\n")
    find(
        base, tmp_path / "tuned.safetensors", out=tmp_path / "tickets.json", ticket_id="three",
        rule="ids:" + ",".join(map(str, ids)),
    )  # fmt: skip
    return tmp_path


def run(folder: Path, *more: str) -> None:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(opportunity)
    words = ["--ticket", f"{folder}/tickets.json", "--base", f"{folder}/base", "--data", f"{folder}/t"]
    words += ["--source", "en", "--target", "ca", "--template", "explicit", *more]
    app(args=words, standalone_mode=False)


def test_the_command_counts_what_the_library_counts(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(workshop, "--format", "json")
    told = json.loads(capsys.readouterr().out)
    tokenizer = tiny_tokenizer()
    newline, dog, never = tokenizer.convert_tokens_to_ids(["<0x0A>", "▁dog", "<0xFF>"])
    prompt = dict(zip(told["ids"], told["fed"]["prompt"], strict=True))
    assert (told["prompts"], prompt) == (2, {newline: 2, dog: 1, never: 0})
    assert told["never_fed"] == [never]
    assert told["touched"]["anywhere"] == 2
    run(workshop)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].endswith(f"without effect here: {never}")
    assert str(workshop / "base") in following(lines[-1])
    assert next(line for line in lines if "▁dog" in line).split()[2:] == [
        "50.0%", "0.0%", "0.0%", "50.0%", "0.0%", "50.0%"
    ]  # fmt: skip


def test_the_command_leaves_out_control_tokens_and_says_so(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(workshop, "--format", "json")
    plain = json.loads(capsys.readouterr().out)
    for side in ("en", "ca"):
        path = workshop / f"t.{side}"
        path.write_text(path.read_text() + "One </s> more dog.\n")
    run(workshop, "--format", "json")
    assert json.loads(capsys.readouterr().out) == plain | {"control": 1}
    run(workshop)
    assert capsys.readouterr().out.startswith("2 prompts (1 left out, holding a control token); share")


def test_the_command_refuses_another_tokenizer(workshop: Path) -> None:
    path = workshop / "base" / "tokenizer.json"
    path.write_text(path.read_text().replace("▁dog", "▁god"))
    with pytest.raises(InvalidInputError) as caught:
        run(workshop)
    assert caught.value.code == "WRONG_TOKENIZER"


def test_refused() -> None:
    example = Example("x", (1, 5), 2, Span(0, 0), Span(1, 2), Span(2, 2))
    for ids in ([], [5, 5]):
        with pytest.raises(UsageError):
            of_examples(ids, [example])
    with pytest.raises(NothingToDoError):
        of_examples([5], [])
