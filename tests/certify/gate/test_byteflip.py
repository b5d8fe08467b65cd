"""One flipped bit in any file that a ticket binds is caught: exit 4, whichever file, whichever byte."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from command import in_process
from ticket_folders import bound_files

# The files of a self-contained ticket; a new kind of bound file must be added here, and then is flipped too.
BOUND = (
    "base/config.json",
    "base/embed_tokens.safetensors",
    "base/tokenizer.json",
    "base/tokenizer_config.json",
    "reference/embed_tokens.safetensors",
    "rows/tiny.safetensors",
)
Capture = pytest.CaptureFixture[str]


def check(path: Path, capsys: Capture) -> int:
    words = ["check", "--ticket", path, "--policy", "selection", "--engine", "numpy", "--workers", "1"]
    ran = in_process([*words, "--format", "json"], capsys)
    assert ran.err == ""
    return ran.code


def test_the_ticket_binds_every_file_of_its_folder(ticket_path: Path) -> None:
    folder = ticket_path.parent
    present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {
        ticket_path.name
    }
    assert present == set(BOUND) == {p.relative_to(folder).as_posix() for p in bound_files(ticket_path)}


@pytest.mark.parametrize("name", BOUND)
@pytest.mark.parametrize("count", [10, pytest.param(500, marks=pytest.mark.slow)])
def test_a_flipped_bit_is_caught(ticket_path: Path, capsys: Capture, name: str, count: int) -> None:
    file = ticket_path.parent / name
    original = file.read_bytes()
    rng = random.Random(f"{name}:{count}")
    # First, last and header bytes always; the rest at random.
    places = [
        0,
        len(original) - 1,
        min(8, len(original) - 1),
        *(rng.randrange(len(original)) for _ in range(count)),
    ]
    for place in places[:count]:
        data = bytearray(original)
        data[place] ^= 1 << rng.randrange(8)
        file.write_bytes(data)
        assert check(ticket_path, capsys) == 4, f"byte {place} of {name}"
    file.write_bytes(original)
    assert check(ticket_path, capsys) == 0, "the control: the intact file certifies"


@pytest.mark.parametrize("name", BOUND)
def test_an_appended_or_missing_byte_is_caught(ticket_path: Path, capsys: Capture, name: str) -> None:
    file = ticket_path.parent / name
    original = file.read_bytes()
    for data in (original + b"\n", original[:-1], b""):
        file.write_bytes(data)
        assert check(ticket_path, capsys) == 4
