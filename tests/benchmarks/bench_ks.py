"""Benchmark of the KS scan against ``scipy.stats.ks_2samp``, as a script; pytest does not collect it.

    python tests/benchmarks/bench_ks.py [--rows 32000 --width 4096 --dtype F16] [--json FILE]

Ratios are of wall time within one run on one machine. The two tables are random and have no equal rows
(``dense``), or differ in 5 % of their rows (``sparse``). scipy takes the rows one at a time, as its users
do; it is timed on a sample of rows, half before and half after the scans, and extrapolated per row. Counts
are compared with scipy's on the sample, and between the engines on every row.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table as View
from scipy.stats import ks_2samp

from certify.base.records import KSResult
from certify.scan.scan import scan
from certify.tables.dtypes import DTYPES, cast, to_float32
from certify.tables.safefile import write_tensors
from certify.tables.table import Table, open_table

ENGINES = ("numba", "numpy")
SPARSE = 0.05
NAME = "model.embed_tokens.weight"


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        report = measure(options, Path(folder))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    show(report)


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Make the tables, time everything, compare all counts; returns what ``--json`` writes."""
    base, dense, sparse = _tables(options, folder)
    ids = np.linspace(0, options.rows - 1, options.sample).astype(np.int64)
    halves = [_scipy(base, dense, ids[0::2])]
    times: dict[str, float] = {}
    results: dict[str, KSResult] = {}
    for engine in options.engines:
        scan(base, sparse, engine=engine, workers=options.workers)  # compiles, and warms the page cache
        for label, reference in (("dense", dense), ("sparse", sparse)):
            name = f"{engine} {label}"
            times[name], results[name] = _best(
                lambda reference=reference, engine=engine: scan(
                    base, reference, engine=engine, workers=options.workers
                ),
                options.repeat,
            )
    halves.append(_scipy(base, dense, ids[1::2]))
    scipy_row = sum(seconds for seconds, _ in halves) / options.sample
    for half, (_, counts) in zip((ids[0::2], ids[1::2]), halves, strict=True):
        for engine in options.engines:
            if results[f"{engine} dense"].h[half].tolist() != counts:
                raise AssertionError(f"{engine} and scipy disagree")
    for label in ("dense", "sparse"):
        columns = [results[f"{engine} {label}"] for engine in options.engines]
        for field in ("h", "p", "equal", "permuted", "ties", "shift_norm", "cosine", "max_abs"):
            if any(not np.array_equal(getattr(columns[0], field), getattr(c, field)) for c in columns):
                raise AssertionError(f"engines disagree on {field}")
    return {
        "rows": options.rows,
        "width": options.width,
        "dtype": options.dtype,
        "seed": options.seed,
        "repeat": options.repeat,
        "workers": options.workers or len(os.sched_getaffinity(0)),
        "scipy": {"sample": options.sample, "ms_per_row": 1e3 * scipy_row},
        "scans": {
            name: {
                "seconds": seconds,
                "us_per_row": 1e6 * seconds / options.rows,
                "times_scipy": scipy_row * options.rows / seconds,
                "times_dense": times[f"{name.split()[0]} dense"] / seconds,
            }
            for name, seconds in times.items()
        },
        "machine": _machine(),
    }


def show(report: dict[str, Any]) -> None:
    """Print a report for people."""
    machine, scipy = report["machine"], report["scipy"]
    title = f"KS scan, {report['rows']} x {report['width']} {report['dtype']}, {report['workers']} threads"
    view = View(title=title)
    for heading in ("scan", "seconds", "µs per row", "x scipy", "x dense"):
        view.add_column(heading, justify="left" if heading == "scan" else "right")
    view.add_row("scipy, row by row", "", f"{1e3 * scipy['ms_per_row']:.0f}", "1", "")
    for name, scan_times in report["scans"].items():
        view.add_row(
            name,
            f"{scan_times['seconds']:.3f}",
            f"{scan_times['us_per_row']:.1f}",
            f"{scan_times['times_scipy']:.0f}",
            f"{scan_times['times_dense']:.1f}",
        )
    console = Console()
    console.print(view)
    console.print(
        f"{machine['cpu']}, {machine['cores']} cores, load {machine['load']}; Python {machine['python']}; "
        + ", ".join(f"{name} {number}" for name, number in machine["versions"].items()),
        f"best of {report['repeat']}; scipy: {scipy['sample']} rows, same h; engines identical on all rows",
        sep="\n",
        highlight=False,
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=32_000)
    parser.add_argument("--width", type=int, default=4_096)
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="F16")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--sample", type=int, default=200, help="rows that scipy is timed on")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--workers", type=int, help="threads of the scan; all cores by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the report to this file")
    return parser.parse_args()


def _tables(options: argparse.Namespace, folder: Path) -> tuple[Table, Table, Table]:
    """Base, a reference without an equal row, and one in which 5 % of the rows are other rows."""
    generator = np.random.default_rng(options.seed)
    shape = (options.rows, options.width)
    paths = []
    storage = np.empty(shape, DTYPES[options.dtype])
    first = np.empty_like(storage)
    for name in ("base", "dense", "sparse"):
        if name == "sparse":
            moved = generator.permutation(options.rows)[: round(SPARSE * options.rows)]
            first[moved] = storage[moved]
            storage = first
        else:
            for row in range(options.rows):
                values = generator.standard_normal(options.width, dtype=np.float32) * np.float32(0.02)
                storage[row] = cast(values, "F32", options.dtype)
            if name == "base":
                first[:] = storage
        paths.append(folder / f"{name}.safetensors")
        write_tensors(paths[-1], {NAME: (options.dtype, storage)}, None)
    base, dense, sparse = (open_table(path) for path in paths)
    return base, dense, sparse


def _scipy(base: Table, reference: Table, ids: np.ndarray[Any, Any]) -> tuple[float, list[int]]:
    # Half precision is what the tables hold; scipy sorts float32 faster, so that is what it gets.
    x = to_float32(base.take(ids.tolist()), base.dtype)
    y = to_float32(reference.take(ids.tolist()), reference.dtype)
    n = x.shape[1]
    start = time.perf_counter()
    distances = [ks_2samp(a, b, method="exact").statistic for a, b in zip(x, y, strict=True)]
    return time.perf_counter() - start, [round(float(d) * n) for d in distances]


def _best(run: Callable[[], KSResult], repeat: int) -> tuple[float, KSResult]:
    best = float("inf")
    for _ in range(repeat):
        start = time.perf_counter()
        result = run()
        best = min(best, time.perf_counter() - start)
    return best, result


def _machine() -> dict[str, Any]:
    versions = {}
    for name in ("numpy", "scipy", "numba"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "absent"
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "versions": versions,
    }


if __name__ == "__main__":
    main()
