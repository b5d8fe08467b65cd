"""LLaMA-7B within reach: the whole way from two tables to tuned rows, by the command line alone.

    python tests/benchmarks/bench_llama7b.py --folder SCRATCH [--data PREFIX] [--json FILE] [--full-copy]

Makes a checkpoint of LLaMA-7B's geometry with random weights in SCRATCH/base (13.5 GB, sharded fp16; made
once; as much again is needed for --full-copy), and a table as embed tuning would leave it: ordinary
rows moved by tiny noise, the rows of the published ticket by a common shift. Then every command runs as a
process of its own: scan, find, check, transfer, apply, verify, two steps of partial tuning.

Per command: wall time; processor time; the largest resident set, which counts pages of mapped files that can
be dropped at any time; and the largest anonymous memory, which cannot. Both are sampled 20 times a second.
The exit code of each command is compared with the one it must have. ``--data`` is needed for tuning: the
prefix of aligned .en and .ca files; default: Global Voices under ``CERTIFY_DATA``. Needs the extra ``tune``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from geometry import LLAMA_7B, Geometry, write_random_checkpoint
from rich.console import Console
from rich.table import Table as View

from certify.selection.rules import published
from certify.tables.dtypes import cast, to_float32
from certify.tables.table import open_table, write_table

ROOT = Path(__file__).resolve().parents[2]
PAIR = "en-ca"
NOISE = 2e-4
"""Standard deviation of what embed tuning does to an ordinary row: a hundredth of the row's own."""
SHIFT = 1e-2
"""What it adds to every entry of a ticket row: half a standard deviation of the row."""
STATUS_PERIOD = 0.05


@dataclass(frozen=True)
class Step:
    """One command, and the exit code that it must have."""

    name: str
    words: tuple[str, ...]
    code: int = 0


def main() -> None:
    options = _options()
    geometry = Geometry(options.width, options.layers, options.heads, options.intermediate)
    folder: Path = options.folder
    made = make_inputs(folder, geometry, options.seed)
    shutil.rmtree(folder / "out", ignore_errors=True)
    measured = []
    for step in steps(options):
        measured.append(run(step))
        if step.name.startswith("apply, full copy"):
            shutil.rmtree(folder / "out" / "copied")  # the disk is needed again
    report = {
        "geometry": {"vocabulary": geometry.vocabulary} | {k: getattr(options, k) for k in _SHAPE},
        "parameters": geometry.parameters,
        "settings": {k: getattr(options, k) for k in ("seed", "pairs", "batch_size", "micro_batch")},
        "made": made,
        "steps": measured,
        "machine": machine(),
    }
    if not options.skip_tune:
        report["tune"] = tuning(folder / "out" / "run")
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    show(report)
    if not options.keep:
        for name in ("base", "out"):
            shutil.rmtree(folder / name)
        (folder / "tuned.safetensors").unlink()


def make_inputs(folder: Path, geometry: Geometry, seed: int) -> dict[str, float]:
    """Seconds taken by what was missing in ``folder``: the checkpoint ``base``, ``tuned.safetensors``."""
    seconds = {}
    start = time.perf_counter()
    if not (folder / "base").exists():
        write_random_checkpoint(folder / "base", geometry, seed=seed)
        seconds["checkpoint"] = time.perf_counter() - start
    if json.loads((folder / "base" / "config.json").read_text(encoding="utf-8")) != geometry.config():
        raise SystemExit(f"{folder / 'base'} has another geometry: name another --folder")
    start = time.perf_counter()
    if not (folder / "tuned.safetensors").exists():
        base = open_table(folder / "base")
        write_table(folder / "tuned.safetensors", base, _tuned_blocks(folder / "base", seed))
        seconds["tuned table"] = time.perf_counter() - start
    return seconds


def _tuned_blocks(base: Path, seed: int) -> Iterator[memoryview]:
    table = open_table(base)
    generator = np.random.default_rng([seed, 1])
    strong = np.zeros((table.shape[0], 1), np.float32)
    strong[list(published().tickets[PAIR])] = SHIFT
    for start, block in table.blocks():
        rows = to_float32(block, table.dtype)
        noise = generator.standard_normal(rows.shape, dtype=np.float32) * np.float32(NOISE)
        moved = cast(rows + noise + strong[start : start + len(rows)], "F32", table.dtype)
        yield np.ascontiguousarray(moved).reshape(-1).view(np.uint8).data


def steps(options: argparse.Namespace) -> Iterator[Step]:
    """The commands in order."""
    base, tuned, out = options.folder / "base", options.folder / "tuned.safetensors", options.folder / "out"
    ticket = out / "tickets.json"
    pair = ("--base", base, "--tuned", tuned)
    named = ("--ticket", f"{ticket}#published", *pair)

    def step(name: str, *words: object, code: int = 0) -> Step:
        return Step(name, tuple(str(word) for word in words), code)

    for engine in ("numba", "numpy"):
        yield step(f"scan, {engine}", "scan", *pair, "--engine", engine, "--out", out / f"{engine}.npz")
    find = ("find", *pair, "--out", ticket)
    yield step("find, published", *find, "--rule", f"published:{PAIR}", "--id", "published")
    yield step("find, KS at .05", *find, "--alpha", "0.05", "--id", "ks")
    yield step("check, selection", "check", "--ticket", ticket, *pair, "--tokenizer", base, *_SELECTION)
    yield step("transfer", "transfer", *named, "--out", out / "transferred.safetensors")
    yield step("apply, linked", "apply", *named, "--out", out / "served", "--link", "--uncertified")
    if options.full_copy:
        yield step("apply, full copy", "apply", *named, "--out", out / "copied", "--uncertified")
    served = ("--ticket", f"{ticket}#published", "--base", base)
    yield step("verify --served", "verify", *served, "--served", out / "served")
    # The control: the untouched base does not serve the ticket.
    yield step("verify, base", "verify", *served, "--served", base, code=1)
    if not options.skip_tune:
        tune = ["tune", "--base", base, "--rows", f"published:{PAIR}", "--data", _data(options)]
        tune += ["--source", "en", "--target", "ca", "--limit", options.pairs, "--epochs", 1]
        tune += ["--batch-size", options.batch_size, "--micro-batch", options.micro_batch, "--dtype", "bf16"]
        tune += ["--gradient-checkpointing", "--device", "cpu", "--seed", options.seed, "--log-every", 1]
        yield step("tune, 2 steps", *tune, "--out", out / "run")


_SHAPE = ("width", "layers", "heads", "intermediate")
_SELECTION = ("--policy", "selection")
_MEMORY = ("VmHWM", "RssAnon", "RssShmem")


def run(step: Step) -> dict[str, Any]:
    """Run one command; its words, time and memory.

    Raises:
        SystemExit: an exit code other than the step must have.
    """
    command = [sys.executable, "-m", "certify", *step.words]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    start = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        output: list[str] = []
        assert process.stdout is not None
        reader = threading.Thread(target=lambda: output.extend(process.stdout or ()))
        reader.start()
        peak = anonymous = 0
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            now = _memory(process.pid)
            peak, anonymous = max(peak, now[0]), max(anonymous, now[1])
            time.sleep(STATUS_PERIOD)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        reader.join()
    if process.returncode != step.code:
        raise SystemExit(f"{step.name}: exit code {process.returncode}, not {step.code}\n{''.join(output)}")
    return {
        "name": step.name,
        "command": " ".join(["certify", *step.words]),
        "exit_code": process.returncode,
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_bytes": peak,
        "anonymous_bytes": anonymous,
        "last_lines": [line.rstrip() for line in output[-3:]],
    }


def _memory(pid: int) -> tuple[int, int]:
    """Bytes of a process: the largest resident set so far, and what no file backs now; 0 once it has ended.

    The ``ru_maxrss`` of a child will not do: it starts from what this process held when it forked.
    """
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0, 0
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    sizes = {name: 1024 * int(fields[name].split()[0]) for name in _MEMORY if name in fields}
    return sizes.get("VmHWM", 0), sizes.get("RssAnon", 0) + sizes.get("RssShmem", 0)


def tuning(run_folder: Path) -> dict[str, Any]:
    """What the run's own metrics say: tokens and speed of every optimiser step."""
    lines = (run_folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    taken = [json.loads(line) for line in lines]
    outcome = json.loads((run_folder / "run.json").read_text(encoding="utf-8"))["outcome"]
    spent = sum(
        (later - earlier) / step["speed"]
        for step, earlier, later in zip(
            taken, [0, *(s["tokens"] for s in taken)], [s["tokens"] for s in taken], strict=False
        )
    )
    return {
        "trainable": outcome["trainable"],
        "tokens": taken[-1]["tokens"],
        "step_seconds": spent,
        "tokens_per_second": taken[-1]["tokens"] / spent,
        "steps": [{k: step[k] for k in ("step", "loss", "tokens", "speed")} for step in taken],
    }


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    from importlib.metadata import version

    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    memory = Path("/proc/meminfo").read_text(encoding="utf-8").split()[1]
    return {
        "cpu": next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), ""),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": 1024 * int(memory),
        "load": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("numpy", "numba", "torch", "transformers")},
    }


def show(report: dict[str, Any]) -> None:
    """Print a report for people."""
    shape, facts = report["geometry"], report["machine"]
    extents = f"{shape['vocabulary']} x {shape['width']}, {shape['layers']} layers"
    view = View(title=f"{extents}, {report['parameters'] / 1e9:.2f} billion weights")
    for heading in ("step", "exit", "seconds", "CPU s", "peak RSS GB", "anonymous GB"):
        view.add_column(heading, justify="left" if heading == "step" else "right")
    for name, seconds in report["made"].items():
        view.add_row(f"make {name}", "", f"{seconds:.1f}", "", "", "")
    for step in report["steps"]:
        view.add_row(
            step["name"],
            str(step["exit_code"]),
            f"{step['seconds']:.1f}",
            f"{step['cpu_seconds']:.1f}",
            f"{step['peak_bytes'] / 1e9:.2f}",
            f"{step['anonymous_bytes'] / 1e9:.2f}",
        )
    console = Console()
    console.print(view)
    if "tune" in report:
        tune = report["tune"]
        console.print(
            f"tuning: {tune['trainable']:,} parameters, {len(tune['steps'])} steps, {tune['tokens']} tokens"
            f" in {tune['step_seconds']:.1f} s: {tune['tokens_per_second']:.2f} tokens/s",
            highlight=False,
        )
    console.print(
        f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_bytes'] / 1e9:.1f} GB, load {facts['load']};"
        f" Python {facts['python']}; " + ", ".join(f"{n} {v}" for n, v in facts["versions"].items()),
        highlight=False,
    )


def _data(options: argparse.Namespace) -> str:
    if options.data:
        return str(options.data)
    root = os.environ.get("CERTIFY_DATA")
    if not root:
        raise SystemExit("name aligned text with --data PREFIX, set CERTIFY_DATA, or --skip-tune")
    return str(Path(root) / "data" / "en-ca" / "gv.train10k")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="scratch folder on a large disk")
    for name in _SHAPE:
        parser.add_argument(f"--{name}", type=int, default=getattr(LLAMA_7B, name))
    parser.add_argument("--data", help="prefix of aligned .en and .ca files")
    parser.add_argument("--pairs", type=int, default=8, help="sentence pairs to tune on")
    parser.add_argument("--batch-size", type=int, default=4, help="pairs per optimiser step")
    parser.add_argument("--micro-batch", type=int, default=2, help="pairs per forward pass")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--full-copy", action="store_true", help="also time apply without --link")
    parser.add_argument("--skip-tune", action="store_true")
    parser.add_argument("--keep", action="store_true", help="leave the checkpoint and the outcome")
    parser.add_argument("--json", type=Path, help="also write the report to this file")
    options = parser.parse_args()
    if not options.skip_tune:
        _data(options)  # a missing folder must not show only after an hour
    return options


if __name__ == "__main__":
    main()
