"""Blocks of code of every page run, or parse as what they are; so do commands in sentences. With controls."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
import yaml
from command import ROOT, in_process
from documents import PAGES
from markdown_it import MarkdownIt

from certify.base.jsonio import parse_json
from certify.base.model import Document, Refusal, validate
from certify.cli.main import app
from certify.cli.registry import SCHEMAS, load

FORMULAS = {"docs/theory.md": "its indented blocks are mathematics"}
HISTORY = {"CHANGELOG.md": "its sentences name what earlier versions had"}
COSTLY = {
    "experiment": "trains and evaluates; tests/lottery/cli/test_experiment.py runs the smallest",
    "tune": "needs text; tests/lottery/tuning/ runs it",
    "evaluate": "needs text; tests/lottery/evaluation/ runs it",
    "mechanism": "needs text and a model; tests/lottery/controls/ runs it",
    "pretrain": "an hour; tests/lottery/pretrain/ runs the smallest",
    "model": "needs a model; tests/certify/models/ imports small ones",
    "prove": "minutes; tests/proofs_checks/test_prove.py runs it",
    "issue": "needs what an experiment leaves; tests/certify/gate/test_issue.py runs it",
}
CHECKER = "-S certify/checker"  # seconds on what is published: blocks with it run in the slow tier


class Block(NamedTuple):
    """A block of a page: the line that it begins on, its info string (empty if it is indented), its text."""

    page: str
    line: int
    info: str
    text: str


class Command(NamedTuple):
    """A command of a session: its words, whether it can be copied as it stands, the exit code it states."""

    words: list[str]
    whole: bool
    code: int


def blocks(page: str, text: str) -> Iterator[Block]:
    """Fenced and indented blocks, as CommonMark has them."""
    for token in MarkdownIt("commonmark").parse(text):
        if token.type in ("fence", "code_block") and token.map:
            yield Block(page, token.map[0] + 1, token.info.strip(), token.content)


def session(text: str) -> Iterator[Command]:
    """Commands of a shell session: continued lines joined, comments and settings of variables taken off."""
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        code, _, comment = re.sub(r"(^|\s)#(?=\s)", "\0", line).partition("\0")
        words = shlex.split(code)
        while words and re.match(r"[A-Z_]+=", words[0]):
            del words[0]
        if words:
            stated = re.search(r"exit (\d+)", comment)
            yield Command(words, not re.search("[…$]", code), int(stated[1]) if stated else 0)


def sentences(text: str) -> Iterator[Command]:
    """Commands in backticks, which say no more than their sentence needs."""
    for token in MarkdownIt("commonmark").parse(text):
        for one in token.children or ():
            if one.type == "code_inline" and re.match("certify [a-z]", one.content):
                yield Command(shlex.split(one.content), False, 0)


def parse_page(page: str, text: str) -> None:
    """Parse all blocks of a page, and the commands in its sentences."""
    for block in blocks(page, text):
        parse(block)
    for command in sentences(text) if page not in HISTORY else ():
        parse_command(command)


def parse(block: Block) -> None:
    """Parse a block by its language; fails with what its reader raises, or if nothing handles it."""
    language, _, kind = block.info.partition(" ")
    match language:
        case "" if block.page in FORMULAS:
            pass
        case "" | "sh":
            for command in session(block.text):
                parse_command(command)
        case "python":
            compile(block.text, block.page, "exec")
        case "json":
            parse_file(parse_json(block.text.encode(), what=block.page), kind)
        case "yaml":
            assert yaml.safe_load(block.text)
        case "toml":
            value = tomllib.loads(block.text)
            assert kind or "schema" in value, (
                "a reader cannot use it: name its schema, or what it is a part of"
            )
            parse_file(value, kind)
        case _:
            pytest.fail(f"nothing handles a block of {language}")


def parse_file(value: Any, kind: str) -> None:
    """Validate a file as its own schema, or as the kind that the info string names (``toml plan``)."""
    models = {one.schema_name(): one for one in map(load, SCHEMAS.values()) if issubclass(one, Document)}
    model = load(SCHEMAS[kind]) if kind else models.get(isinstance(value, dict) and value.get("schema"))
    if model:
        validate(model, value, what="the block", refusal=Refusal("SCHEMA"))


def parse_command(command: Command) -> None:
    """Parse a command with what reads it: the real app, the Makefile, the source of the script."""
    words = command.words
    if words[0] == "accelerate":
        words = words[words.index("certify") :]
    match words:
        case ["certify" | ".venv/bin/certify", name, *rest]:
            parse_certify(name, rest, command.whole)
        case ["make", target]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        case ["python" | "python3", *rest]:
            path = ROOT / next(word for word in rest if not word.startswith("-"))
            files = path.glob("*.py") if path.is_dir() else [path]
            source = "".join(file.read_text(encoding="utf-8") for file in files)
            assert [word for word in rest if word.startswith("--") and word not in source] == []
        case _:
            pytest.fail(f"nothing handles {words[0]}")


def parse_certify(name: str, words: list[str], whole: bool) -> None:
    """Parse the words after ``certify NAME`` with the real app; unless whole, some may be missing."""
    command: Any = typer.main.get_command(app)
    assert name in command.list_commands(None)
    # An ellipsis stands for words left out, unless it is the value of an option.
    pairs = zip(["", *words], words, strict=False)
    given = [word for before, word in pairs if word != "…" or before.startswith("--")]
    try:
        one = command.get_command(None, name)
        while given and hasattr(one, "list_commands"):  # a group: the next word is one of its commands
            name, *given = given
            one = one.get_command(None, name)
        one.make_context(name, given)
    except Exception as error:
        if whole or type(error).__name__ not in ("MissingParameter", "BadOptionUsage", "NoArgsIsHelpError"):
            raise


def runs(block: Block) -> bool:
    """Can the block be copied as it stands, and is it cheap?"""
    if block.info == "python":
        return True
    if block.info not in ("", "sh") or block.page in FORMULAS:
        return False
    return all(
        one.whole and one.words[0] != "make" and one.words[1] not in COSTLY for one in session(block.text)
    )


def run(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    """Run a block here: exit codes are 0 or what a comment states, and so is what Python prints."""
    if block.info == "python":
        exec(block.text, {})
        stated = re.findall(r"^print\(.*\)  # (.+)$", block.text, re.MULTILINE)
        assert capsys.readouterr().out.splitlines() == stated
        return
    for command in session(block.text):
        program, *words = command.words
        if program == "python3":
            code = subprocess.run([sys.executable, *words], capture_output=True, check=False).returncode
        else:
            code = in_process([STANDS_FOR.get(word, word) for word in words], capsys).code
        assert code == command.code, command


STANDS_FOR = {"BASE": "base", "TUNED": "tuned/embed_tokens.safetensors"}
BLOCKS = [block for page, text in PAGES.items() for block in blocks(page, text)]
FIND = next(block for block in BLOCKS if block.page == "docs/guide.md" and "certify find" in block.text)


def named(block: Block) -> Any:
    """The block as a parameter of a test."""
    slow = [pytest.mark.slow] if CHECKER in block.text else []
    return pytest.param(block, id=f"{block.page}:{block.line}", marks=slow)


def test_sessions_are_found() -> None:
    running = {block.page for block in BLOCKS if runs(block)}
    assert {"docs/guide.md", "lottery/README.md", "docs/formats.md"} <= running
    assert "proofs_checks/README.md" in {block.page for block in BLOCKS} - running


@pytest.mark.parametrize("page", PAGES)
def test_a_page_parses(page: str) -> None:
    parse_page(page, PAGES[page])


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder in which blocks can run: a base, a tuned table, what is published, the checker."""
    published = ROOT / "reports/published"
    (tmp_path / "base").symlink_to(published / "base-small")
    (tmp_path / "tuned").symlink_to(published / "en-ca-experiment/tickets/reference")
    for package in ("reports", "certify"):
        (tmp_path / package).symlink_to(ROOT / package)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("block", [named(block) for block in BLOCKS if runs(block)])
def test_a_block_runs(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    if "--ticket tickets/" in block.text and "certify find" not in block.text:
        run(FIND, capsys)
    run(block, capsys)


@pytest.mark.parametrize(
    ("page", "seen"),
    [
        ("    certify scan --base a --tuned b --gone c", "No such option: --gone"),
        ("    certify scan --base a", "Missing parameter: tuned"),
        ("    certify scan … --engine gone", "gone"),
        ("    accelerate launch --cpu -m certify tune … --seed x", "valid integer"),
        ("1. a list\n\n   ```sh\n   certify gone --base a\n   ```", "gone"),
        ("    make gone", "gone"),
        ("    python3 certify/checker --gone a", "--gone"),
        ("    rm -r a", "nothing handles rm"),
        ("```\n.\n└── a\n```", "nothing handles"),
        ("```mermaid\na\n```", "nothing handles a block of mermaid"),
        ("```python\nprint(\n```", "never closed"),
        ('```json\n{"a": 1, "a": 2}\n```', "twice"),
        ('```json\n{"schema": "certify.policy", "schema_version": 1}\n```', "missing field"),
        ("```toml\na = \n```", "Invalid value"),
        ('```toml\nextends = "release"\n```', "a reader cannot use it"),
        ('```toml plan\nname = "a"\n```', "missing field"),
        ("`certify scan --gone`", "No such option: --gone"),
        ("`certify gone`", "gone"),
    ],
)
def test_a_block_that_does_not_parse_is_seen(page: str, seen: str) -> None:
    with pytest.raises((Exception, pytest.fail.Exception), match=re.escape(seen)):
        parse_page("page.md", page)


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(
    "page",
    [
        "```python\nraise ValueError\n```",
        "```python\nprint(1)  # 2\n```",
        "```python\nprint(1)\n```",
        "    certify explain gone",
        "    certify explain policy:paper   # exit 1",
        "    python3 -c pass   # exit 1",
    ],
)
def test_a_block_that_does_not_do_what_it_says_is_seen(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = blocks("page.md", page)
    assert runs(block)
    with pytest.raises((AssertionError, ValueError)):
        run(block, capsys)
