"""A whole experiment on a tiny random model: what it leaves, what it repeats, and what a SIGKILL costs."""

from __future__ import annotations

import fcntl
import hashlib
import json
import lzma
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the extra tune")
pytest.importorskip("peft", reason="needs the extra tune")

from command import environment  # noqa: E402

import certify  # noqa: E402
from certify.base.errors import UsageError  # noqa: E402
from certify.cli.use.inspect import inspect  # noqa: E402
from certify.evidence.load import load  # noqa: E402
from certify.evidence.read import check_files, iter_records, read_manifest  # noqa: E402
from certify.evidence.sentence_scores import mean_score  # noqa: E402
from certify.gate import calibrate  # noqa: E402
from certify.gate.issue import issue  # noqa: E402
from lottery.experiment.driver import dry_run, is_running, run, status  # noqa: E402
from lottery.experiment.plan.arms import planned_tickets  # noqa: E402
from lottery.experiment.plan.plan import ExperimentPlan, read_experiment  # noqa: E402

SMALL = """
name = "small"
seed = 3
base = "synthetic"
template = "explicit"
served_dtype = "fp16"
threads = 1
[[pair]]
source = "en"
target = "ca"
data = ["synthetic:train"]
[tuning]
limit = 48
max_length = 128
micro_batch = 16
save_every = 1
[embed]
lr = 0.15
epochs = 2
batch = 16
[partial]
lr = 0.05
epochs = 2
batch = 16
[[ticket]]
id = "share"
share = "10/482"
[[comparator]]
method = "lora"
lr = 1e-3
epochs = 1
batch = 16
size = 2
[[text]]
name = "test"
data = "synthetic:test"
limit = 6
max_new_tokens = 6
attribution = "toy text made by the package"
[evaluation]
batch = 2
[geometry]
vocabulary = 482
width = 64
layers = 2
intermediate = 96
heads = 4
kv_heads = 2
"""


def finished_steps(out: Path) -> list[str]:
    """Names of steps as the journal tells their ends, in order; the last line may be torn."""
    names = []
    for line in (out / "journal.jsonl").read_text().splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if entry["event"] == "finished":
            names.append(entry["step"])
    return names


def go(plan: ExperimentPlan, out: Path, **options: Any) -> list[str]:
    """Run and say which steps were not skipped."""
    ran: list[str] = []

    def report(line: Any) -> None:
        if line.event == "finished":
            ran.append(line.step)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run(plan, out, device="cpu", report=report, **options)
    finally:
        torch.set_num_threads(threads)
    return ran


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped plan ``smoke``, run once."""
    out = tmp_path_factory.mktemp("smoke")
    go(read_experiment("smoke"), out)
    return out


@pytest.fixture
def copy(smoke: Path, tmp_path: Path) -> Path:
    """A copy of the finished experiment that a test may change."""
    return Path(shutil.copytree(smoke, tmp_path / "copy"))


def test_smoke_makes_tickets_that_certify(smoke: Path) -> None:
    report = certify.check(smoke / "tickets" / "tickets.json", policy="selection")
    assert int(report.exit_code) == 0
    tickets = json.loads((smoke / "tickets" / "tickets.json").read_text())["tickets"]
    objects = {ticket["id"]: ticket["released"]["object"] for ticket in tickets}
    assert objects["a05"] == "transfer"
    assert objects["a05-tuned"] == objects["a05-limited"] == "tuned"
    for ticket in tickets:
        assert ticket["template"]["name"] == "explicit"
        assert [(c["kind"], c["comparator"], c["margin"]) for c in ticket["declared"]] == [
            ("non-inferiority", "reference", "1.0")
        ]


def test_every_kind_of_step_did_something(smoke: Path) -> None:
    plan = read_experiment("smoke")
    rows = status(plan, smoke)
    states = {row.step: row.state for row in rows}
    assert set(states.values()) <= {"done", "void"}
    # The level of Bonferroni rejects no row of so narrow a table; nothing else may come to nothing.
    assert {name for name, state in states.items() if state == "void"} <= {
        name for name in states if "bonferroni" in name
    }
    done = {name.split("/", 1)[-1].split("/")[0] for name, state in states.items() if state == "done"}
    assert done >= {"base", "embed", "select", "partial", "comparator", "nulls", "null", "null-partial"}
    assert done >= {"tickets", "text", "measure", "evidence", "loss", "opportunity", "overlap", "publish"}
    assert all(row.seconds is not None for row in rows)


def test_evidence_is_whole_and_names_its_arms(smoke: Path) -> None:
    folder = smoke / "tickets" / "evidence"
    names = sorted(path.stem for path in folder.glob("*.json"))
    assert names == ["choice", "test", "test.explicit-paraphrase-wording", "unrelated"]
    for name in names:
        check_files(read_manifest(folder / f"{name}.json"), folder)
    manifest = read_manifest(folder / "test.json")
    kinds = {arm.kind for arm in manifest.arms}
    assert kinds == {"base", "reference", "transfer", "tuned", "direction", "full", "lora", "prefix"}
    assert {arm.control for arm in manifest.arms if arm.control} >= {
        *("random", "frequency-matched", "top-frequency", "top-norm", "direction", "gate"),
        *("one-row:bos", "one-row:newline"),
    }
    assert {entry.role for entry in manifest.used} == {"tuning", "choice"}
    assert manifest.text.unit == "block:3"
    assert len(list(iter_records(manifest, folder))) == 12
    assert {arm.kind for arm in read_manifest(folder / "unrelated.json").arms} >= {
        "base",
        "reference",
        "full",
    }
    # The controls hold as many rows as the ticket, and of it none at random.
    ticket = next(arm for arm in manifest.arms if arm.name == "a05.transfer")
    drawn = next(arm for arm in manifest.arms if arm.name == "a05.random-0.transfer")
    assert ticket.ids is not None
    assert drawn.ids is not None
    assert len(drawn.ids) == len(ticket.ids)
    assert not set(drawn.ids) & {*ticket.ids, 0, 1, 2}
    # A second ticket has controls of its own.
    other = next(arm for arm in manifest.arms if arm.name == "share.random-0.transfer")
    assert (other.of, drawn.of) == ("share", "a05")


def test_tickets_point_at_their_evidence_by_digest(smoke: Path) -> None:
    folder = smoke / "tickets"
    for ticket in json.loads((folder / "tickets.json").read_text())["tickets"]:
        located = {entry["path"]: entry["sha256"] for entry in ticket["evidence"]}
        assert {"evidence/test.json", "evidence/unrelated.json"} <= set(located)
        assert "evidence/choice.json" not in located  # that text is for choosing
        for path, digest in located.items():
            assert hashlib.sha256((folder / path).read_bytes()).hexdigest() == digest


def test_the_manifest_binds_all_that_is_handed_on(smoke: Path) -> None:
    manifest = json.loads((smoke / "manifest.json").read_text())
    listed = dict(manifest["files"])
    for path in [*(smoke / "tickets").rglob("*"), smoke / "summary.json", smoke / "summary.md"]:
        if path.is_file():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            assert listed.pop(path.relative_to(smoke).as_posix()) == digest
    assert listed == {}
    assert manifest["plan"]["name"] == "smoke"
    for name in ("manifest.json", "summary.json"):
        inspect(str(smoke / name), "json")  # raises what it refuses


def test_the_summary_repeats_the_evidence(smoke: Path) -> None:
    summary = json.loads((smoke / "summary.json").read_text())
    arms = summary["texts"]["en-ca/test"]["arms"]
    packed = smoke / "tickets" / "evidence" / "test.records.jsonl.xz"
    lines = lzma.decompress(packed.read_bytes()).splitlines()
    records = [json.loads(line) for line in lines]
    for name, figures in arms.items():
        answers = [record["arms"][name] for record in records]
        assert figures["ended"] == sum(answer["ended"] for answer in answers)
        for number, rule in enumerate(("whole", "first-line", "cut")):
            vectors = [answer["stats"][answer["rules"][number]] for answer in answers]
            assert figures["rules"][rule]["statistics"] == [
                sum(column) for column in zip(*vectors, strict=True)
            ]
        if name != "reference":
            steps = sum(len(record["reference"]["tokens"]) for record in records)
            differing = sum(len(answer["differs"]) for answer in answers)
            assert (figures["steps"], figures["steps_as_reference"]) == (steps, steps - differing)
    assert arms["base"]["rows"] == 0
    text = (smoke / "summary.md").read_text()
    for name, figures in arms.items():
        assert f"| {name} |" in text
        assert figures["rules"]["whole"]["chrf"] in text


def test_the_summary_says_what_learning_to_stop_is_worth(smoke: Path) -> None:
    arms = json.loads((smoke / "summary.json").read_text())["texts"]["en-ca/test"]["arms"]
    evidence = load(smoke / "tickets" / "evidence" / "test.json")
    assert "termination" not in arms["base"]
    for name in ("reference", "a05.transfer", "lora"):
        gains = {
            rule: mean_score(evidence, name, rule) - mean_score(evidence, "base", rule)
            for rule in ("whole", "first-line", "cut")
        }
        found = arms[name]["termination"]
        assert found["gain"] == {rule: f"{float(gain):+.2f}" for rule, gain in gains.items()}
        for rule in ("first-line", "cut"):
            expected = f"{float(1 - gains[rule] / gains['whole']):.3f}" if gains["whole"] >= 0.1 else None
            assert found["share"][rule] == expected


def test_the_summary_holds_tickets_against_their_nulls(smoke: Path) -> None:
    arms = json.loads((smoke / "summary.json").read_text())["texts"]["en-ca/test"]["arms"]
    text = (smoke / "summary.md").read_text()
    assert "Tickets against their null tickets: en-ca/test" in text
    table = text.split("Tickets against their null tickets: en-ca/test")[1].split("##")[0]
    nulls = [f for f in arms.values() if f.get("control") == "top-norm" and f["kind"] == "transfer"]
    scores = [f["rules"]["first-line"]["chrf"] for f in nulls]
    own = arms["a05.transfer"]["rules"]["first-line"]["chrf"]
    assert f"| a05.transfer | top-norm | 1 | {own} | {scores[0]} | {scores[0]} |" in table
    assert "| a05-limited.tuned | random | 1 |" in table
    assert "Estimates" in table
    assert "Note: controls of a05: draws = 1; with fewer than three draws" in text
    assert "instruction with labels | of that, labels" in text


def test_time_and_place_are_in_the_journal_only(smoke: Path) -> None:
    entries = [json.loads(line) for line in (smoke / "journal.jsonl").read_text().splitlines()]
    assert all("time" in entry for entry in entries)
    assert {"torch", "python", "cores"} <= set(entries[0])
    facts = json.loads((smoke / "steps/en-ca+evidence+unrelated/done.json").read_text())["facts"]
    assert {"empty", "repeated", "used_before", "control_token"} < facts.keys()
    year = entries[0]["time"][:5]
    for name in ("manifest.json", "summary.json", "summary.md", "tickets/tickets.json"):
        text = (smoke / name).read_text()
        assert str(smoke) not in text
        assert year not in text


# --- what is repeated -------------------------------------------------------------------------------------


def test_a_finished_experiment_repeats_nothing(copy: Path) -> None:
    before = files_of(copy / "steps") | files_of(copy / "tickets")
    assert go(read_experiment("smoke"), copy) == []
    assert files_of(copy / "steps") | files_of(copy / "tickets") == before


def changed(change: Callable[[dict[str, Any]], None]) -> ExperimentPlan:
    content = read_experiment("smoke").model_dump(mode="json")
    # A default that the plan did not state must not look stated.
    for ticket in content["ticket"]:
        if ticket["share"] is not None:
            del ticket["alpha"]
    change(content)
    return ExperimentPlan.model_validate_json(json.dumps(content), strict=True)


def test_the_same_plan_spelled_out_changes_nothing(copy: Path) -> None:
    assert go(changed(lambda _: None), copy) == []


def test_an_order_seed_repeats_evidence_only(copy: Path) -> None:
    plan = changed(lambda plan: plan["evaluation"].update(order_seed=5))
    evidence = ["test", "test.explicit-paraphrase-wording", "choice", "unrelated"]
    assert go(plan, copy) == [*(f"en-ca/evidence/{name}" for name in evidence), "publish"]
    assert read_manifest(copy / "tickets" / "evidence" / "test.json").order_seed == 5


@pytest.mark.parametrize(
    ("asked", "field"), [({"path": {"n": 2, "g": 1}}, "path"), ({"margins": True}, "own")]
)
def test_a_path_or_margins_repeat_the_arms_of_tickets_only(
    copy: Path, asked: dict[str, Any], field: str
) -> None:
    plan = changed(lambda plan: plan["evaluation"].update(asked))
    arms = {ticket.arm for ticket in planned_tickets(plan)}
    done = {*go(plan, copy)}
    expected = {"publish"}
    for text in ("test", "choice"):
        expected |= {f"en-ca/evidence/{text}", *(f"en-ca/measure/{text}/{arm}" for arm in arms)}
    assert done == expected
    folder = copy / "tickets" / "evidence"
    for record in iter_records(read_manifest(folder / "test.json"), folder):
        assert set() < {name for name, answer in record.arms.items() if getattr(answer, field)} <= arms


def test_a_margin_is_chosen_before_any_other_text_is_evaluated(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate, "GRID", ("0.000000001",))  # a random model is sure of nothing
    asked = {"text": "choice", "alpha": "0.9", "delta": "0.5"}
    ran = go(changed(lambda plan: plan.update(calibration=asked)), copy)
    late = min(ran.index(step) for step in ran if step.startswith("en-ca/measure/test/"))
    assert ran.index("en-ca/evidence/choice") < ran.index("en-ca/calibrate") < late
    folder = copy / "tickets"
    tickets = json.loads((folder / "tickets.json").read_text())["tickets"]
    declared = {one["id"]: claim["calibration"] for one in tickets for claim in one["declared"][1:]}
    assert declared
    margins = read_manifest(folder / "evidence" / "test.json").margins or {}
    chosen = {one.arm: declared[one.id]["t"] for one in planned_tickets(changed(dict)) if one.id in declared}
    assert {arm: t for arm, t in margins.items() if t} == {a: t for a, t in chosen.items() if a in margins}
    choice = load(folder / "evidence" / "choice.json")
    assert set((choice.manifest.margins or {}).values()) == {None}
    for one in declared.values():
        record = (folder / one["record"]["path"]).read_bytes()
        assert hashlib.sha256(record).hexdigest() == one["record"]["sha256"]
        assert {line.source for line in choice.sentences} <= {*json.loads(record)["sentences"]}
    name, data = next(iter(declared)), folder / "evidence" / "test.json"
    issue(folder / "tickets.json", [data], out=folder / "own.json", ticket_id=name)
    claims = json.loads((folder / "own.json").read_text())["claims"]
    assert "calibrated" in {claim["comparator"] for claim in claims}


def test_a_rate_repeats_exactly_what_depends_on_it(copy: Path) -> None:
    plan = changed(lambda plan: plan["comparator"][1].update(lr=0.02))
    assert go(plan, copy) == [
        "en-ca/comparator/prefix",
        "en-ca/measure/test/prefix",
        "en-ca/evidence/test",
        "en-ca/measure/choice/prefix",
        "en-ca/evidence/choice",
        "en-ca/loss/prefix",
        "en-ca/evidence/unrelated",
        "publish",
    ]


def test_a_declared_margin_repeats_tickets_and_no_evaluation(copy: Path) -> None:
    plan = changed(lambda plan: plan["declared"][0].update(margin="2.0"))
    assert go(plan, copy) == ["en-ca/tickets", "publish"]


def test_the_base_can_stay_elsewhere(copy: Path) -> None:
    assert go(changed(lambda plan: plan.update(bundle="base-elsewhere")), copy) == [
        "en-ca/tickets",
        "publish",
    ]
    tables = {
        path.relative_to(copy / "tickets").as_posix() for path in (copy / "tickets").rglob("*.safetensors")
    }
    assert {name for name in tables if not name.startswith("rows/")} == {"reference/moved_rows.safetensors"}
    tickets = copy / "tickets" / "tickets.json"
    assert int(certify.check(tickets, policy="selection").exit_code) == 3
    base = copy / "steps" / "base" / "base"
    assert int(certify.check(tickets, policy="selection", base=base).exit_code) == 0


def test_a_text_that_is_left_out_leaves_no_file(copy: Path) -> None:
    plan = changed(lambda plan: plan["text"].pop(1))
    assert go(plan, copy) == ["publish"]
    assert not (copy / "tickets" / "evidence" / "choice.json").exists()
    assert (copy / "tickets" / "evidence" / "test.json").exists()


@pytest.mark.parametrize(
    ("output", "step"),
    [
        ("en-ca+select+share/rows.safetensors", "en-ca/select/share"),
        ("en-ca+measure+choice+base/part.jsonl", "en-ca/measure/choice/base"),
        ("en-ca+used/used.json", "en-ca/used"),
    ],
)
def test_an_edited_output_is_found_and_made_again(output: str, step: str, copy: Path) -> None:
    path = copy / "steps" / output
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    row = next(row for row in status(read_experiment("smoke"), copy) if row.step == step)
    assert (row.state, row.reason) == ("stale", f"{path.name} is damaged")
    # Made again it is the same, so that nothing after it runs.
    assert go(read_experiment("smoke"), copy) == [step]
    assert path.read_bytes() == good


def test_a_delivered_file_that_was_edited_is_put_right(copy: Path) -> None:
    path = copy / "tickets" / "tickets.json"
    good = path.read_bytes()
    path.write_bytes(good.replace(b"a05", b"a06"))
    (copy / "tickets" / "stray.txt").write_text("nothing of ours")
    assert go(read_experiment("smoke"), copy) == []
    assert path.read_bytes() == good
    assert not (copy / "tickets" / "stray.txt").exists()


def test_only_some_steps(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(SMALL)
    plan = read_experiment(tmp_path / "plan.toml")
    out = tmp_path / "out"
    assert go(plan, out, only=["*/select/*"]) == ["base", "en-ca/embed", "en-ca/select/share"]
    assert not (out / "tickets").exists()
    with pytest.raises(UsageError, match="no step"):
        go(plan, out, only=["selekt"])
    estimates = {row.step: row.estimate for row in dry_run(plan, out)}
    known = {step for step, one in estimates.items() if one is not None and one.basis == "finished"}
    assert known >= {"en-ca/embed", "en-ca/partial/share"}


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(SMALL)
    with (tmp_path / "lock").open("ab") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert is_running(tmp_path)
        with pytest.raises(UsageError) as caught:
            go(read_experiment(tmp_path / "plan.toml"), tmp_path)
    assert caught.value.code == "EXPERIMENT_LOCKED"
    assert not is_running(tmp_path)


# --- SIGKILL ----------------------------------------------------------------------------------------------


# A process that runs an experiment and kills itself, as nothing else can, within a named step.
SUICIDE = """
import os, signal, sys
from pathlib import Path
import torch
from lottery.experiment.driver import run
from lottery.experiment.plan.plan import read_experiment

torch.set_num_threads(1)
plan, out, doomed, after = sys.argv[1:]
now = [""]

def progress(done, total):
    if now[0] == doomed and int(after) <= done < total:
        os.kill(os.getpid(), signal.SIGKILL)

run(read_experiment(plan), Path(out), device="cpu", report=lambda line: now.__setitem__(0, line.step),
    progress=progress)
"""


@pytest.mark.parametrize(
    ("step", "left"),
    [
        # After the second of its optimiser steps, each of which saved a state ...
        ("en-ca/partial/share", "run/states/step-00000002/state.json"),
        # ... and after the first batches of an evaluation.
        pytest.param("en-ca/measure/test/reference", "part.jsonl", marks=pytest.mark.slow),
    ],
)
def test_a_killed_experiment_repeats_no_finished_step(step: str, left: str, tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(SMALL)
    out, straight = tmp_path / "killed", tmp_path / "straight"
    command = [sys.executable, "-c", SUICIDE, str(plan), str(out), step, "2"]
    killed = subprocess.run(command, env=environment(OMP_NUM_THREADS="1"), capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    before = finished_steps(out)
    assert "en-ca/embed" in before
    assert step not in before
    assert (out / "steps" / step.replace("/", "+") / left).is_file()
    assert next(row for row in status(read_experiment(plan), out) if row.step == step).state == "started"

    go(read_experiment(plan), out)
    ended = finished_steps(out)
    assert len(set(ended)) == len(ended)
    assert {*before, step, "publish"} <= set(ended)
    # What came out is what an undisturbed run gives, bit for bit.
    go(read_experiment(plan), straight)
    assert files_of(out / "tickets") == files_of(straight / "tickets")
    for name in ("summary.json", "summary.md", "manifest.json"):
        assert (out / name).read_bytes() == (straight / name).read_bytes()
