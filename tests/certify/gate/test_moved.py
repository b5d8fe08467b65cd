"""Tickets of which the reference travels as moved rows: both programs judge them as with whole tables."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import in_process
from safetensors.numpy import load_file, save_file
from ticket_folders import TENSOR, base_table, edit, file_sha256, make_ticket, tensor_sha256, tuned_table

import certify
import certify.checker
from certify.tables.movedrows import write_moved
from certify.tables.table import open_table
from certify.ticket import bundle

ROWS = "reference/moved_rows.safetensors"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundle, "_WORTH", 1)
        return make_ticket(tmp_path_factory.mktemp("moved"))


@pytest.fixture
def path(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made.parent, tmp_path / "ticket")) / made.name


def judged(path: Path, **options: Any) -> tuple[int, str]:
    """Exit code of the gate, and the verdict of the checker alone."""
    report = certify.check(path, policy="selection", engine="numpy", workers=1, **options)
    (opinion,) = certify.checker.verify(path.parent, path.name, ("selection",))["tiny"].values()
    return int(report.exit_code), opinion.status


def test_it_is_certified_and_small(path: Path) -> None:
    reference = json.loads(path.read_text())["tickets"][0]["reference"]
    assert reference["path"] == ROWS
    assert reference["tensor_sha256"] == tensor_sha256(tuned_table())
    assert {one.name for one in (path.parent / "reference").iterdir()} == {"moved_rows.safetensors"}
    assert judged(path) == (0, "CERTIFIED")


@pytest.mark.parametrize("whole", [False, True])
def test_a_second_ticket_takes_the_table_that_is_there(made: Path, tmp_path: Path, whole: bool) -> None:
    root = Path(shutil.copytree(made.parent.parent, tmp_path / "root"))
    if whole:
        shutil.rmtree(root / "ticket")
        make_ticket(root)  # so small a table is copied whole
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundle, "_WORTH", 1)
        path = make_ticket(root, ticket_id="again", rule="norm:2")
    (name,) = {ticket["reference"]["path"] for ticket in json.loads(path.read_text())["tickets"]}
    assert (name != ROWS) is whole
    assert int(certify.check(path, policy="selection", engine="numpy", workers=1).exit_code) == 0


def rewrite(path: Path, base: np.ndarray[Any, Any], tuned: np.ndarray[Any, Any]) -> None:
    """Other moved rows in the place of the honest ones, bound as an adversary would bind them."""
    save_file({TENSOR: base}, path.parent / "b.safetensors")
    save_file({TENSOR: tuned}, path.parent / "t.safetensors")
    tables = (open_table(path.parent / name) for name in ("b.safetensors", "t.safetensors"))
    write_moved(path.parent / ROWS, *tables)

    def bind(ticket: dict[str, Any]) -> None:
        ticket["reference"]["files"] = [{"path": ROWS, "sha256": file_sha256(path.parent / ROWS)}]

    edit(path, bind)


def another_row(path: Path) -> None:
    tuned = tuned_table()
    tuned[5, 0] += np.float16(0.5)
    rewrite(path, base_table(), tuned)


def another_base(path: Path) -> None:
    base = base_table()
    base[60, 0] += np.float16(0.5)
    rewrite(path, base, tuned_table())


def a_flipped_bit(path: Path) -> None:
    data = bytearray((path.parent / ROWS).read_bytes())
    data[-9] ^= 1
    (path.parent / ROWS).write_bytes(data)


def not_finite(path: Path) -> None:
    tuned = tuned_table()
    tuned[50, 0] = np.inf
    rewrite(path, base_table(), tuned)
    edit(path, lambda ticket: ticket["reference"].update(tensor_sha256=tensor_sha256(tuned)))


def in_the_place_of_the_base(path: Path) -> None:
    edit(
        path,
        lambda ticket: ticket["base"].update({key: ticket["reference"][key] for key in ("path", "files")}),
    )


def nudged_more(path: Path) -> None:
    """A reference of its own, bound as such: the figures of the ticket are no longer its."""
    tuned = tuned_table()
    tuned[20] += np.float16(0.06)
    rewrite(path, base_table(), tuned)
    edit(path, lambda ticket: ticket["reference"].update(tensor_sha256=tensor_sha256(tuned)))


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (another_row, (4, "INVALID")),
        (another_base, (4, "INVALID")),
        (a_flipped_bit, (4, "INVALID")),
        (not_finite, (4, "INVALID")),
        (in_the_place_of_the_base, (3, "INCONCLUSIVE")),
        (nudged_more, (1, "REFUTED")),
    ],
)
def test_planted(path: Path, fault: Callable[[Path], None], expected: tuple[int, str]) -> None:
    fault(path)
    assert judged(path) == expected


def test_without_its_base_nothing_is_shown(path: Path, tmp_path: Path) -> None:
    base = shutil.move(path.parent / "base" / "embed_tokens.safetensors", tmp_path / "elsewhere.safetensors")
    edit(path, lambda ticket: ticket["base"].update(path=None, files=[], tied=None))
    edit(path, lambda ticket: ticket["reference"].update(tied=None))
    assert judged(path) == (3, "INCONCLUSIVE")
    assert judged(path, base=Path(base)) == (0, "INCONCLUSIVE"), "the checker alone has no base"


def test_a_bundle_without_its_base(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_ticket(tmp_path, base_elsewhere=True)
    assert not (made.parent / "base" / "embed_tokens.safetensors").exists()
    checkpoint = str(tmp_path / "sources" / "checkpoint")
    assert (made.parent / ROWS).is_file()
    words = ["check", str(made), "--policy", "selection"]
    assert in_process(words, capsys).code == 3
    assert in_process([*words, "--base", checkpoint], capsys).code == 0
    ticket = ["--ticket", f"{made}#tiny", "--base", checkpoint, "--out"]
    assert in_process(["transfer", *ticket, str(tmp_path / "et.safetensors")], capsys).code == 0
    table = load_file(tmp_path / "et.safetensors")[TENSOR]
    ids = [row["id"] for row in json.loads(made.read_text())["tickets"][0]["tokens"]]
    assert table[ids].tobytes() == tuned_table()[ids].tobytes()
