"""``certify experiment`` as a command: what it says, and one line for whatever is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra tune")

import torch
from command import as_process, in_process

from lottery.experiment.driver import dry_run
from lottery.experiment.plan.plan import read_experiment

PLAN = """
name = "tiny"
seed = 1
base = "synthetic"
template = "labels"
served_dtype = "fp16"
threads = 1
[[pair]]
source = "en"
target = "ca"
data = ["synthetic:train"]
[tuning]
limit = 16
max_length = 128
[embed]
lr = 0.1
epochs = 1
batch = 8
[[ticket]]
id = "top"
rule = "norm:5"
objects = ["transfer"]
[geometry]
vocabulary = 482
width = 64
layers = 2
intermediate = 96
heads = 4
kv_heads = 2
"""


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(PLAN)
    return path


@pytest.fixture(autouse=True)
def _own_threads() -> object:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_no_name_is_broken_in_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    ran = in_process(["experiment", "smollm2-es-en", "--dry-run", "--no-measure"], capsys)
    steps = [row.step for row in dry_run(read_experiment("smollm2-es-en"), measure=False)]
    assert [line.split()[0] for line in ran.out.splitlines()[1 : len(steps) + 1]] == steps


def test_from_dry_run_to_status(plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    dry = in_process(["experiment", plan, "--dry-run"], capsys)
    assert dry.code == 0
    assert "en-ca/embed" in dry.out
    assert "30,848" in dry.out  # 482 rows of width 64
    assert "Estimates, from assumed rough rates" in dry.out
    assert not out.exists()

    ran = in_process(["experiment", plan, "--out", out, "--device", "cpu"], capsys)
    assert ran.code == 0
    lines = ran.err.splitlines()
    assert any(line.startswith("[3/6] en-ca/embed finished in ") for line in lines)
    assert "trainable 30848" in ran.err
    assert str(out) in ran.out
    tickets = json.loads((out / "tickets" / "tickets.json").read_text())["tickets"]
    assert [len(ticket["tokens"]) for ticket in tickets] == [5]

    again = in_process(["experiment", plan, "--out", out, "--device", "cpu"], capsys)
    assert again.code == 0
    assert again.err.count("finished before") == 6

    status = in_process(["experiment", plan, "--out", out, "--status"], capsys)
    assert status.code == 0
    assert status.out.rstrip().endswith("6 done")

    plan.write_text(PLAN.replace("norm:5", "norm:6"))
    status = in_process(["experiment", plan, "--out", out, "--status"], capsys)
    assert "its plan or its inputs changed" in status.out.replace("\n", " ")
    assert status.out.rstrip().splitlines()[-1] == "3 done, 3 stale"

    (out / "steps" / "en-ca+embed" / "done.json").write_text("{}")
    broken = in_process(["experiment", plan, "--out", out, "--status"], capsys)
    assert broken.code == 4
    assert "STEP_MALFORMED" in broken.one_line()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["nothing-like-it", "--dry-run"], 2, "PLAN_UNKNOWN"),
        (["no/such.toml", "--dry-run"], 2, "FILE_UNREADABLE"),
        (["smoke"], 2, "--out"),
        (["smoke", "--out", "{tmp}/x", "--dry-run", "--status"], 2, "exclude each other"),
        (["smoke", "--out", "{tmp}/x", "--status"], 2, "nothing was run there"),
        (["smoke", "--out", "{tmp}/x", "--only", "embedd"], 2, "STEP_UNKNOWN"),
        (["smoke", "--out", "{tmp}/x", "--base", "{tmp}"], 2, "makes its own base"),
        (["smoke", "--out", "{tmp}/file/x"], 2, "FILE_UNWRITABLE"),
        (["smoke", "--out", "{tmp}/x", "--threads", "0"], 2, "USAGE"),
        (["en-ca-small", "--out", "{tmp}/x", "--base", "{tmp}/none"], 2, "MODEL_UNKNOWN"),
        (["en-ca-small", "--out", "{tmp}/x", "--data", "{tmp}/none"], 2, "DATA_MISSING"),
        (["en-ca-small", "--out", "{tmp}/x"], 2, "CERTIFY_DATA"),
    ],
)
def test_whatever_is_wrong_is_one_line(
    arguments: list[str],
    code: int,
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CERTIFY_DATA", raising=False)
    if arguments[0] == "en-ca-small" and not Path("reports/published/base-small").is_dir():
        pytest.skip("the small base does not ship here")
    (tmp_path / "file").write_text("")
    words = [word.replace("{tmp}", str(tmp_path)) for word in arguments]
    ran = in_process(["experiment", *words], capsys)
    assert ran.code == code
    assert says in ran.one_line()


def test_help() -> None:
    ran = as_process(["experiment", "--help"])
    assert ran.code == 0
    assert "--dry-run" in ran.out
