"""Mutants of ticket files and of the files that they bind: the gate denies in order, or nothing changed.

The rule, for every mutant:

* never exit 70, never a traceback, never a warning;
* a file that is no ticket file any more: exit 4 and exactly one line on standard error;
* a ticket file that still parses: exit 0 only if it asserts the same as the original (:func:`essence`, the
  allow-list of what may change under a certified ticket); otherwise its false claims or broken bindings give
  1, 3, 4 or 5;
* a bound file whose bytes changed: exit 4. If the adversary makes its file digest true again, a safetensors
  file certifies only if an independent reader finds the same tensors in it.

Mutants are seeded by their number: a failure names the number, and the number repeats it.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from command import Ran, as_process, in_process
from safetensors.numpy import load
from ticket_folders import bound_files, edit, file_sha256
from ticket_strategies import damage

from certify.base.errors import CertifyError
from certify.ticket.schema import parse_ticket_file
from certify.ticket.templates import load_template

FAST, SLOW = 150, 7000
Capture = pytest.CaptureFixture[str]

# What may differ while a ticket stays certified under the policy "selection": the ticket's name, and what is
# only announced and judged by evidence, not by this check. (And who wrote the file.)
UNBOUND_FIELDS = ("id", "declared", "evidence", "certificate")

TEMPLATE = {"name": "alpaca", "sha256": load_template("alpaca").digest(), "path": None}


def essence(content: Any) -> Any:
    """What a ticket file asserts under the policy "selection": equal essences deserve equal verdicts."""
    tickets = []
    for ticket in json.loads(parse_ticket_file(content).to_json())["tickets"]:
        kept = {key: value for key, value in ticket.items() if key not in UNBOUND_FIELDS}
        # A ticket may bind no template: it then claims less than the one that was mutated.
        kept["template"] = kept["template"] or TEMPLATE
        for name in ("base", "reference", "tokenizer"):
            # Which files are bound matters, not in which order or how often they are listed.
            kept[name]["files"] = sorted({(f["path"], f["sha256"]) for f in kept[name]["files"]})
        for name in ("base", "reference"):
            # Without a name the only table of the file is meant.
            kept[name]["tensor"] = kept[name]["tensor"] or "model.embed_tokens.weight"
        kept["selection"]["alpha"] = Fraction(kept["selection"]["alpha"])
        kept["selection"]["tau"] = round(kept["selection"]["tau"], 10)
        for token in kept["tokens"]:
            token |= {name: f"{token[name]:.4e}" for name in ("log10_p", "shift_norm")}
        tickets.append(kept)
    return tickets


def check(path: Path, capsys: Capture, number: int) -> Ran:
    words = ["check", "--ticket", path, "--policy", "selection", "--engine", "numpy", "--workers", "1"]
    return in_process([*words, "--format", ("json", "terminal")[number % 2]], capsys)


def judge(ran: Ran, mutant: bytes, original: Any, what: str) -> None:
    """Hold one run against the rule."""
    assert ran.code in {0, 1, 3, 4, 5}, f"{what}: {ran}"
    assert "Traceback" not in ran.out + ran.err, what
    try:
        content = json.loads(mutant)
        asserted = essence(content)
    except (CertifyError, ValueError, RecursionError):
        assert ran.code == 4, f"{what}: {ran}"
        said = json.loads(ran.out) if ran.out.startswith("{") else {"errors": ran.out == ""}
        assert said["errors"], what  # nothing, or the error as data
        ran.one_line()
        return
    if ran.code in {4, 5} and ran.err:
        # Stricter than the oracle's parser (a key twice, for example), or nothing to check.
        ran.one_line()
    else:
        assert ran.err == "", what
    assert ran.code != 0 or asserted == essence(original), f"{what}: still certified"


def structural(original: bytes, rng: random.Random) -> tuple[bytes, str]:
    value, texts = json.loads(original), []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        done = damage(value, rng.choice)
        value = done.apply(value)
        texts.append(done.text)
    return json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass"), "; ".join(
        texts
    )


def bytewise(original: bytes, rng: random.Random, limit: int | None = None) -> tuple[bytes, str]:
    """Flip a bit, set a byte, cut, insert, remove or repeat, within the first ``limit`` bytes."""
    data = bytearray(original)
    at = rng.randrange(min(len(data), limit or len(data)))
    kind = rng.choice(("flip", "set", "cut", "insert", "remove", "repeat"))
    if kind == "flip":
        data[at] ^= 1 << rng.randrange(8)
    elif kind == "set":
        data[at] = rng.choice(b'\x00\xff"{}[],:0-9e.\\\n')
    elif kind == "cut":
        del data[at:]
    elif kind == "insert":
        data[at:at] = rng.choice(
            (b"\x00", b'"', b"[", b"{", b"9", b"-", b"e9", b"\xff\xfe", b"1e999", b"NaN")
        )
    elif kind == "remove":
        del data[at : at + rng.randrange(1, 20)]
    else:
        data[at:at] = data[at : at + rng.randrange(1, 200)]
    return bytes(data), f"{kind} at {at}"


def header(original: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Damage the header of a safetensors file: its length, its JSON as text, or its entries one by one."""
    (length,) = struct.unpack("<Q", original[:8])
    kind = rng.choice(("length", "bytes", "bytes", "entry", "entry"))
    if kind == "length":
        other = rng.choice((0, 1, length - 1, length + 1, length + 8, len(original), 2**32, 2**63, 2**64 - 1))
        return struct.pack("<Q", other) + original[8:], f"header length {other}"
    if kind == "bytes":
        return bytewise(original, rng, 8 + length)
    done = damage(json.loads(original[8 : 8 + length]), rng.choice)
    value = done.apply(json.loads(original[8 : 8 + length]))
    text = json.dumps(value).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + original[8 + length :], done.text


def rebind_file(ticket_path: Path, file: Path) -> None:
    """Make the file digest of one bound file true again, wherever the ticket states it."""
    name, sha = file.relative_to(ticket_path.parent).as_posix(), file_sha256(file)

    def refresh(ticket: dict[str, Any]) -> None:
        bound = [*ticket["base"]["files"], *ticket["reference"]["files"], *ticket["tokenizer"]["files"]]
        for entry in (*bound, ticket["released"]["rows"]):
            if entry["path"] == name:
                entry["sha256"] = sha
        if ticket["tokenizer"]["path"] == name:
            ticket["tokenizer"]["sha256"] = sha

    edit(ticket_path, refresh)


Mutate = Callable[[bytes, random.Random], tuple[bytes, str]]


def fuzz_tickets(path: Path, capsys: Capture, mutate: Mutate, count: int) -> None:
    original = path.read_bytes()
    codes = set()
    for number in range(count):
        mutant, text = mutate(original, random.Random(f"{mutate.__name__}:{number}"))
        path.write_bytes(mutant)
        ran = check(path, capsys, number)
        judge(ran, mutant, json.loads(original), f"mutant {number} ({text})")
        codes.add(ran.code)
    assert {1, 4} <= codes, "the mutants must reach beyond the parser"


def fuzz_files(path: Path, capsys: Capture, count: int) -> None:
    ticket = path.read_bytes()
    files = bound_files(path)
    codes = set()
    for number in range(count):
        rng = random.Random(f"files:{number}")
        file = files[number % len(files)]
        original = file.read_bytes()
        tensors = file.suffix == ".safetensors"
        mutant, text = (header if tensors else bytewise)(original, rng)
        what = f"mutant {number} ({file.name}: {text})"
        file.write_bytes(mutant)
        if mutant != original:
            assert check(path, capsys, number).code == 4, f"{what}: the digest does not hold it"
        rebind_file(path, file)
        ran = check(path, capsys, number)
        assert ran.code in {0, 1, 3, 4}, f"{what}: {ran}"
        assert ran.err == "", what
        if tensors:
            assert ran.code == 4 or (ran.code == 0 and same_tensors(mutant, original)), f"{what}: {ran.code}"
        codes.add(ran.code)
        file.write_bytes(original)
        path.write_bytes(ticket)
    assert check(path, capsys, 0).code == 0
    assert 4 in codes


def same_tensors(one: bytes, other: bytes) -> bool:
    a, b = load(one), load(other)
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype and a[k].tobytes() == b[k].tobytes() for k in a
    )


def test_mutants_of_the_parsed_ticket_file(ticket_path: Path, capsys: Capture) -> None:
    fuzz_tickets(ticket_path, capsys, structural, FAST)


def test_mutants_of_the_bytes_of_the_ticket_file(ticket_path: Path, capsys: Capture) -> None:
    fuzz_tickets(ticket_path, capsys, bytewise, FAST)


def test_mutants_of_bound_files(ticket_path: Path, capsys: Capture) -> None:
    fuzz_files(ticket_path, capsys, FAST // 2)


@pytest.mark.slow
def test_many_mutants_of_the_parsed_ticket_file(ticket_path: Path, capsys: Capture) -> None:
    fuzz_tickets(ticket_path, capsys, structural, SLOW)


@pytest.mark.slow
def test_many_mutants_of_the_bytes_of_the_ticket_file(ticket_path: Path, capsys: Capture) -> None:
    fuzz_tickets(ticket_path, capsys, bytewise, SLOW)


@pytest.mark.slow
def test_many_mutants_of_bound_files(ticket_path: Path, capsys: Capture) -> None:
    fuzz_files(ticket_path, capsys, SLOW)


@pytest.mark.parametrize("count", [5, pytest.param(100, marks=pytest.mark.slow)])
def test_mutants_as_processes(ticket_path: Path, count: int) -> None:
    original = ticket_path.read_bytes()
    for number in range(count):
        mutate = (structural, bytewise)[number % 2]
        mutant, text = mutate(original, random.Random(f"process:{number}"))
        ticket_path.write_bytes(mutant)
        ran = as_process(["check", "--ticket", ticket_path, "--policy", "selection"])
        judge(ran, mutant, json.loads(original), f"mutant {number} ({text})")


# --- the fields that no check can hold, and the rest -------------------------------------------------------


def test_the_allow_list_is_what_the_check_does_not_hold(ticket_path: Path, capsys: Capture) -> None:
    original = ticket_path.read_bytes()
    sha = "0" * 64
    changes: dict[str, Any] = {
        "id": "renamed",
        "declared": [{"kind": "quality", "margin": "1"}],
        "evidence": [{"path": "none.json", "sha256": sha}],
        "certificate": {"path": "none.json", "sha256": sha},
    }
    assert set(changes) == set(UNBOUND_FIELDS)
    for name, value in changes.items():
        edit(ticket_path, lambda ticket, name=name, value=value: ticket.update({name: value}))
        assert check(ticket_path, capsys, 0).code == 0, name
        ticket_path.write_bytes(original)


def test_the_judge_catches_a_gate_that_lets_a_mutant_through() -> None:
    # The control: a run that certifies a false claim, a traceback, a second line, an internal error.
    ticket = {"schema": "certify.tickets", "schema_version": 1, "created_by": "x", "tickets": []}
    good = json.dumps(ticket).encode()
    for ran, mutant in (
        (Ran(0, "", ""), b"{"),
        (Ran(70, "", "certify: x\n"), good),
        (Ran(4, "", "certify: x\nmore\n"), b"{"),
        (Ran(4, "", "Traceback (most recent call last):\n"), b"{"),
        (Ran(4, "text", "certify: x\n"), b"{"),
    ):
        with pytest.raises(AssertionError):
            judge(ran, mutant, ticket, "control")
