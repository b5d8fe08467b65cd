"""A run that is stopped at any moment goes on to the same bytes; one that was asked otherwise does not."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra tune")
pytest.importorskip("transformers", reason="needs the extra tune")
pytest.importorskip("accelerate", reason="needs the extra tune")

import tiny_llama  # noqa: E402
from tiny_llama import PIECES, save_checkpoint, write_pairs  # noqa: E402

from certify.base.errors import CertifyError, InvalidInputError, NothingToDoError, UsageError  # noqa: E402
from certify.tables.rowfile import read_rows  # noqa: E402
from certify.tables.safefile import open_tensor  # noqa: E402
from lottery.text.tunedata import Data  # noqa: E402
from lottery.tuning.recipe import Recipe  # noqa: E402
from lottery.tuning.runstate import latest_state  # noqa: E402
from lottery.tuning.trainer import Limits, StepReport  # noqa: E402
from lottery.tuning.tune import Settings, TuningOutcome, tune  # noqa: E402

RESULTS = {"rows": "rows.safetensors", "lora": "adapter/adapter_model.safetensors"}
PEFT_WARNING = "ignore:`is_gradient_checkpointing`:FutureWarning"


class Stopped(Exception):
    """Stands for a kill between two steps."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Dropout makes the weights depend on random numbers, which a resumed run must draw again.
    folder = tmp_path_factory.mktemp("base")
    return save_checkpoint(folder, vocab_size=len(PIECES) + 1, attention_dropout=0.2)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    write_pairs(folder / "dev", 4, first=100)
    return write_pairs(folder / "train", 22)


def settings_for(text: Path, **changes: object) -> Settings:
    recipe = Recipe(learning_rate=1e-2, epochs=3, batch_size=8, schedule="cosine", warmup=0.2)
    data = Data((str(text),), "en", "ca", "labels", held_out=str(text.with_name("dev")), max_length=120)
    values = {"data": data, "recipe": recipe, "limits": Limits(3), "seed": 3, "rows": "frequency:4"}
    return Settings(**(values | changes))


def run(base: Path, settings: Settings, out: Path, **options: object) -> TuningOutcome:
    return tune(str(base), settings, out, device="cpu", save_every=2, **options)


def stop_at(step: int) -> object:
    def report(done: StepReport) -> None:
        if done.step == step:
            raise Stopped

    return report


def without_speed(path: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "speed"} for line in lines]


@pytest.mark.filterwarnings(PEFT_WARNING)
@pytest.mark.parametrize("method", RESULTS)
@pytest.mark.parametrize("stops", [(1,), (3,), (2, 5, 8), (9,)], ids=str)
def test_stopped_runs_reach_the_same_bytes(
    base: Path, text: Path, tmp_path: Path, method: str, stops: tuple[int, ...]
) -> None:
    if method == "lora":
        pytest.importorskip("peft", reason="needs the extra tune")
    settings = settings_for(text, method=method)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(base, settings, whole).steps == 9
    for stop in stops:
        with pytest.raises(Stopped):
            run(base, settings, parts, resume=True, report=stop_at(stop))
    outcome = run(base, settings, parts, resume=True)
    assert outcome.resumed == (stops[-1] if stops[-1] == 9 else stops[-1] // 2 * 2)
    assert (parts / RESULTS[method]).read_bytes() == (whole / RESULTS[method]).read_bytes()
    assert without_speed(parts / "metrics.jsonl") == without_speed(whole / "metrics.jsonl")
    assert not (parts / "states").exists()


def test_dropout_acts_so_that_the_test_above_can_fail(base: Path, text: Path, tmp_path: Path) -> None:
    """Control: without the same random numbers, the bytes differ."""
    outputs = []
    for seed in (3, 4):
        settings = settings_for(text, seed=seed, rows="ids:3,14")
        settings = replace(settings, recipe=replace(settings.recipe, batch_size=64))  # one batch: one order
        run(base, settings, tmp_path / str(seed))
        outputs.append(read_rows(tmp_path / str(seed) / "rows.safetensors").fp32)
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-6


FOLDERS = [str(Path(__file__).parent), str(Path(tiny_llama.__file__).parent)]
"""Where a process finds this module and its helpers."""

SCRIPT = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    sys.path[:0] = {tests!r}
    import test_resume as here

    def report(step):
        print(step.step, flush=True)

    here.run(Path({base!r}), here.settings_for(Path({text!r})), Path({out!r}), resume=True, report=report)
    """
)


def start(base: Path, text: Path, out: Path) -> subprocess.Popen[str]:
    names = {
        "tests": FOLDERS,
        "base": str(base),
        "text": str(text),
        "out": str(out),
    }
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(**names)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parents[3],
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
    )


def test_killed_process(base: Path, text: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(base, settings_for(text), whole)
    process = start(base, text, killed)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) == 5:
            process.send_signal(signal.SIGKILL)
            break
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    saved = latest_state(killed / "states")
    assert saved is not None
    assert saved.step >= 4
    run(base, settings_for(text), killed, resume=True)
    assert (killed / RESULTS["rows"]).read_bytes() == (whole / RESULTS["rows"]).read_bytes()


@pytest.mark.slow
def test_killed_again_and_again(base: Path, text: Path, tmp_path: Path) -> None:
    """Kills at moments that have nothing to do with steps or saving."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(base, settings_for(text), whole)
    for attempt in range(8):
        process = start(base, text, killed)
        assert process.stdout is not None
        if not process.stdout.readline():  # an earlier one came to the end before it was killed
            process.communicate()
            break
        time.sleep(0.037 * attempt)
        process.kill()
        process.communicate()
    if json.loads((killed / "run.json").read_text())["status"] != "complete":
        run(base, settings_for(text), killed, resume=True)
    assert (killed / RESULTS["rows"]).read_bytes() == (whole / RESULTS["rows"]).read_bytes()


@pytest.fixture
def file_limit() -> Iterator[list[int]]:
    """Call with a size to let the system refuse every write beyond it, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield [soft, hard]
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [0, 300, 1800])
def test_disk_that_fills_up(base: Path, text: Path, tmp_path: Path, file_limit: list[int], size: int) -> None:
    settings, whole, full = settings_for(text), tmp_path / "whole", tmp_path / "full"
    run(base, settings, whole)
    hard = file_limit[1]

    def report(done: StepReport) -> None:
        if done.step == 5:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

    with pytest.raises(UsageError) as caught:
        run(base, settings, full, report=report)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit[0], hard))
    assert caught.value.code == "FILE_UNWRITABLE"
    assert "\n" not in str(caught.value)
    assert not (full / RESULTS["rows"]).exists()
    saved = latest_state(full / "states")
    assert saved is not None
    assert saved.step >= 4
    assert not list((full / "states").glob("*.part"))
    run(base, settings, full, resume=True)
    assert (full / RESULTS["rows"]).read_bytes() == (whole / RESULTS["rows"]).read_bytes()
    assert without_speed(full / "metrics.jsonl") == without_speed(whole / "metrics.jsonl")


@pytest.mark.filterwarnings(PEFT_WARNING)
@pytest.mark.parametrize(
    ("method", "folder"), [("full", "model"), ("lora", "adapter"), ("prefix", "adapter")]
)
def test_disk_that_fills_up_while_the_result_is_saved(
    base: Path, text: Path, tmp_path: Path, file_limit: list[int], method: str, folder: str
) -> None:
    if method != "full":
        pytest.importorskip("peft", reason="needs the extra tune")
    out = tmp_path / "run"

    def report(done: StepReport) -> None:
        if done.step == 9:  # its state is saved already
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, file_limit[1]))

    with pytest.raises(UsageError, match=rf"cannot make \S*/{folder}: .*; nothing was written") as caught:
        run(base, settings_for(text, method=method), out, report=report)
    resource.setrlimit(resource.RLIMIT_FSIZE, tuple(file_limit))
    assert caught.value.code == "FILE_UNWRITABLE"
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in out.iterdir()) == ["metrics.jsonl", "run.json", "states"]
    assert run(base, settings_for(text, method=method), out, resume=True).resumed == 9
    assert (out / folder).is_dir()


def test_number_of_states_is_bounded_and_leftovers_go(base: Path, text: Path, tmp_path: Path) -> None:
    left_behind = tmp_path / "run" / "states" / ".step-00000002.abcdef.part"
    seen: list[int] = []

    def report(done: StepReport) -> None:
        if done.step == 1:
            left_behind.mkdir(parents=True)
            (left_behind / "tensors.safetensors").write_bytes(b"half")
        states = tmp_path / "run" / "states"
        seen.append(len(list(states.iterdir())) if states.exists() else 0)

    run(base, settings_for(text), tmp_path / "run", keep=2, report=report)
    assert seen == [1, 1, 1, 2, 2, 2, 2, 2, 2]


@pytest.fixture
def stopped(base: Path, text: Path, tmp_path: Path) -> Path:
    out = tmp_path / "stopped"
    with pytest.raises(Stopped):
        run(base, settings_for(text), out, report=stop_at(5))
    return out


@pytest.mark.parametrize(
    ("field", "changed"),
    [
        ("settings.seed", lambda s: replace(s, seed=4)),
        ("settings.recipe.learning_rate", lambda s: replace(s, recipe=replace(s.recipe, learning_rate=2e-2))),
        ("settings.recipe.epochs", lambda s: replace(s, recipe=replace(s.recipe, epochs=4))),
        ("settings.limits.micro_batch", lambda s: replace(s, limits=Limits(4))),
        ("settings.dtype", lambda s: replace(s, dtype="BF16")),
        ("rows.ids", lambda s: replace(s, rows="ids:3,4")),
        ("inputs.template", lambda s: replace(s, data=replace(s.data, template="explicit"))),
        ("inputs.held_out", lambda s: replace(s, data=replace(s.data, held_out=None))),
        ("inputs.train", lambda s: replace(s, data=replace(s.data, limit=20))),
    ],
)
def test_another_run_is_not_resumed(
    base: Path, text: Path, stopped: Path, field: str, changed: object
) -> None:
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match=field) as caught:
        run(base, changed(settings_for(text)), stopped, resume=True)
    assert caught.value.code == "RESUME_MISMATCH"
    assert {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()} == before


def test_changed_files_under_the_same_names_are_noticed(
    base: Path, text: Path, stopped: Path, tmp_path: Path
) -> None:
    other = save_checkpoint(tmp_path / "other", seed=1, vocab_size=len(PIECES) + 1, attention_dropout=0.2)
    with pytest.raises(UsageError, match=r"inputs\.weights\.model\.safetensors"):
        run(other, settings_for(text), stopped, resume=True)
    sentences = write_pairs(tmp_path / "train", 22, first=1)
    write_pairs(tmp_path / "dev", 4, first=100)
    with pytest.raises(UsageError, match=r"inputs\.train"):
        run(base, settings_for(sentences), stopped, resume=True)


def test_folder_of_a_run_is_not_used_twice(base: Path, text: Path, stopped: Path) -> None:
    with pytest.raises(UsageError) as caught:
        run(base, settings_for(text), stopped)
    assert caught.value.code == "OUT_EXISTS"
    run(base, settings_for(text), stopped, resume=True)
    with pytest.raises(NothingToDoError) as done:
        run(base, settings_for(text), stopped, resume=True)
    assert done.value.code == "RUN_COMPLETE"


def test_leftover_of_a_killed_process_is_not_a_run(base: Path, text: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for name in ("run.json", "rows.safetensors", "used.txt"):
        (tmp_path / "run" / f".{name}.x7.part").write_text("{")
    (tmp_path / "run" / ".notes.x7.part").write_text("not ours")
    (tmp_path / "run" / ".states.part" / "step-00000002").mkdir(parents=True)
    run(base, settings_for(text), tmp_path / "run", resume=True)
    assert sorted(path.name for path in (tmp_path / "run").glob(".*")) == [".notes.x7.part"]
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError) as caught:
        run(base, settings_for(text), tmp_path / "file")
    assert caught.value.code == "OUT_EXISTS"


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("name", "spoil", "code"),
    [
        ("states/step-00000004/tensors.safetensors", flip, "STATE_CORRUPT"),
        ("states/step-00000004/state.json", lambda path: path.write_text("{}"), "STATE_CORRUPT"),
        ("states/step-00000004/state.json", lambda path: path.write_text("{"), "JSON_MALFORMED"),
        ("run.json", lambda path: path.write_text("[]"), "RUN_MALFORMED"),
        ("run.json", lambda path: path.unlink(), "FILE_UNREADABLE"),
    ],
)
def test_damaged_states_are_refused(
    base: Path, text: Path, stopped: Path, name: str, spoil: object, code: str
) -> None:
    spoil(stopped / name)
    with pytest.raises(CertifyError) as caught:
        run(base, settings_for(text), stopped, resume=True)
    assert caught.value.code == code
    assert isinstance(caught.value, InvalidInputError | UsageError)


def test_result_that_was_written_before_the_kill_is_written_again(
    base: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lottery.tuning.journal import Journal

    original = Journal.write

    def write(self: Journal, status: str, outcome: dict[str, object]) -> None:
        if status == "complete":
            raise Stopped
        original(self, status, outcome)

    for method, name in {"rows": "rows.safetensors", "full": "model"}.items():
        out = tmp_path / method
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "write", write)
            with pytest.raises(Stopped):
                run(base, settings_for(text, method=method), out)
        assert (out / name).exists()
        outcome = run(base, settings_for(text, method=method), out, resume=True)
        assert (outcome.resumed, outcome.loss) == (9, None)
        assert outcome.held_out is not None
        assert json.loads((out / "run.json").read_text())["status"] == "complete"


def uneven(text: Path) -> Settings:
    """22 examples in batches of 7: uneven shares, and a last batch with an example for one process only."""
    settings = settings_for(text, rows="all")
    return replace(settings, recipe=replace(settings.recipe, batch_size=7))


LAUNCHED = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    sys.path[:0] = [*{tests!r}, {root!r}]
    import test_resume as here

    here.run(Path({base!r}), here.uneven(Path({text!r})), Path({out!r}))
    """
)


@pytest.mark.slow
def test_two_processes_train_as_one(text: Path, tmp_path: Path) -> None:
    base = save_checkpoint(tmp_path / "base", vocab_size=len(PIECES) + 1)  # without dropout
    run(base, uneven(text), tmp_path / "one")
    script = tmp_path / "launched.py"
    names = {"tests": FOLDERS, "root": str(Path(__file__).parents[3])}
    names |= {"base": str(base), "text": str(text), "out": str(tmp_path / "two")}
    script.write_text(LAUNCHED.format(**names))
    # --multi_gpu starts one process per worker (--cpu would start one); the script asks for the CPU.
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    launch += ["--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
    launch += ["--dynamo_backend", "no"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, str(script)], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads((tmp_path / "two" / "run.json").read_text())
    assert record["outcome"]["processes"] == 2
    one, two = (without_speed(tmp_path / name / "metrics.jsonl") for name in ("one", "two"))
    for first, second in zip(one, two, strict=True):
        # fp32 sums in another order, amplified by nine steps of Adam.
        assert first == pytest.approx(second, rel=1e-4)
    first, second = (
        open_tensor(tmp_path / name / "embed_tokens.safetensors", "model.embed_tokens.weight")
        for name in ("one", "two")
    )
    np.testing.assert_allclose(first, second, rtol=0, atol=1e-4)


def launched(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """``accelerate launch`` with two processes on the CPU, as lottery/README.md says."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    launch += ["-m", "certify", "tune", "--device", "cpu", *arguments]
    root = str(Path(__file__).parents[3])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    return subprocess.run(
        launch, env=environment, capture_output=True, text=True, timeout=900, check=False, cwd=root
    )


@pytest.mark.slow
def test_the_command_under_a_launcher(text: Path, tmp_path: Path) -> None:
    base = save_checkpoint(tmp_path / "base", vocab_size=len(PIECES) + 1)  # without dropout
    settings = settings_for(text, rows="ids:3,14")
    run(base, settings, tmp_path / "one")
    arguments = ["--base", str(base), "--data", str(text), "--dev", str(text.with_name("dev")), "--seed", "3"]
    arguments += ["--source", "en", "--target", "ca", "--template", "labels", "--max-length", "120"]
    arguments += ["--lr", "1e-2", "--epochs", "3", "--batch-size", "8", "--schedule", "cosine"]
    arguments += ["--warmup", "0.2", "--micro-batch", "3", "--out", str(tmp_path / "two"), "--rows"]
    done = launched([*arguments, "ids:3,14"])
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Warning" not in done.stderr
    assert done.stdout.count("wrote ") == 1
    one, two = (json.loads((tmp_path / name / "run.json").read_text()) for name in ("one", "two"))
    assert (one["outcome"]["processes"], two["outcome"]["processes"]) == (1, 2)
    assert two["outcome"]["loss"] == pytest.approx(one["outcome"]["loss"], rel=1e-4)
    assert one["identity"]["inputs"] == two["identity"]["inputs"]
    # An error is told once, and the launcher has an exit code of its own.
    done = launched([*arguments, "some"])
    assert done.returncode == 1
    assert [line[-14:] for line in done.stderr.splitlines() if line.startswith("certify:")] == [
        "[ROWS_UNKNOWN]"
    ]
