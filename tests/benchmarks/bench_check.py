"""What a check costs: shipped tickets, a bundle of two large tables, a thousand tickets over one base.

    python tests/benchmarks/bench_check.py [--only shipped large many] [--rows 128256 --width 4096]

Each case runs in a fresh process: wall-clock and processor seconds, start-up included, and the most memory
held beyond the pages of mapped files. ``large`` moves every row of a table of rows x width and checks under
policy selection; ``many`` checks a thousand tickets over one base of 32000 rows. Both leave out the
independent checker, which is timed with the shipped tickets. Tables are random and written to a temporary
folder (``TMPDIR``): 6 GB for the default size.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ROOT / "reports" / "published" / "en-ca-experiment" / "tickets" / "tickets.json"
CASES = ("shipped", "large", "many")
SPECIAL = 3
TENSOR = "model.embed_tokens.weight"

# Run in a fresh process, so that imports count and peaks of memory do not add up.
CHECK = """
import resource, sys, threading, time
import certify, certify.gate.check
if {bare}:
    certify.gate.check._confirm = lambda path, policy, name, reports, *more, **options: list(reports)
own = 0
def watch():
    global own
    while True:
        with open("/proc/self/status") as status:
            found = [int(line.split()[1]) for line in status if line.startswith("RssAnon")]
        own = max(own, *found)
        time.sleep(0.01)
threading.Thread(target=watch, daemon=True).start()
report = certify.check({path!r}, policy={policy!r}, ids={ids!r})
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime, own / 1024, *sorted({{one.status.value for one in report.tickets}}))
"""


def timed(path: Path, policy: str, *, ids: Sequence[str] = (), bare: bool) -> dict[str, Any]:
    """Seconds and MiB of one check in a process of its own."""
    code = CHECK.format(path=str(path), policy=policy, ids=tuple(ids), bare=bare)
    start = time.perf_counter()
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ, check=True, capture_output=True, text=True
    )
    processor, memory, *verdicts = run.stdout.split()
    return {
        "wall": round(time.perf_counter() - start, 2),
        "processor": round(float(processor), 2),
        "own MiB": round(float(memory)),
        "verdicts": verdicts,
    }


def write_pair(folder: Path, rows: int, width: int) -> tuple[Path, Path]:
    """A base checkpoint with a tokenizer, and a reference in which every ordinary row has moved."""
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    checkpoint, reference = folder / "checkpoint", folder / "tuned.safetensors"
    checkpoint.mkdir(parents=True)
    base = np.empty((rows, width), np.float16)
    for start in range(0, rows, 1024):
        part = base[start : start + 1024]
        part[:] = rng.standard_normal(part.shape, np.float32) * np.float32(0.02)
    save_file({TENSOR: base}, checkpoint / "model.safetensors")
    base[SPECIAL:] += np.float16(0.02)
    save_file({TENSOR: base}, reference)
    config = {"model_type": "llama", "vocab_size": rows, "hidden_size": width, "tie_word_embeddings": False}
    (checkpoint / "config.json").write_text(json.dumps(config), encoding="utf-8")
    vocab = {f"▁piece{i}": i for i in range(rows)}
    added = [{"id": i, "content": f"▁piece{i}", "special": True} for i in range(SPECIAL)]
    tokenizer = {"model": {"type": "BPE", "vocab": vocab, "merges": []}, "added_tokens": added}
    (checkpoint / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    return checkpoint, reference


def write_large(folder: Path, rows: int, width: int) -> Path:
    """A bundle whose ticket holds every ordinary row."""
    from lottery import find

    checkpoint, reference = write_pair(folder / "sources", rows, width)
    out = folder / "tickets.json"
    find(checkpoint, reference, out=out, ticket_id="large", bundle=True)
    (checkpoint / "model.safetensors").unlink()
    reference.unlink()
    return out


def write_many(folder: Path, rows: int, width: int, tickets: int) -> Path:
    """A bundle with many tickets of rule ``random:18`` over one pair of tables."""
    from certify.tables.rowfile import transferred_rows, write_rows
    from certify.tables.table import open_table
    from certify.tables.vocabulary import open_vocabulary
    from certify.ticket.make import find, selection_ref, tokens
    from certify.ticket.schema import TicketFile, write_ticket_file
    from lottery import scan, select

    checkpoint, reference = write_pair(folder / "sources", rows, width)
    out = folder / "tickets.json"
    first = find(checkpoint, reference, out=out, ticket_id="first", rule="random:18", seed=0, bundle=True)
    moved = open_table(folder / "reference" / "embed_tokens.safetensors")
    vocabulary = open_vocabulary(folder / "base")
    result = scan(open_table(folder / "base" / "embed_tokens.safetensors"), moved)
    made = []
    for seed in range(tickets):
        chosen = select(result, rule="random:18", seed=seed, vocabulary=vocabulary)
        path = f"rows/t{seed}.safetensors"
        digests = write_rows(folder / path, transferred_rows(chosen.ids, moved))
        bound = {
            "path": path,
            "sha256": digests.sha256,
            "fp32_sha256": digests.fp32_sha256,
            "served_sha256": digests.served_sha256,
        }
        rows_ref = first.ticket.released.rows
        assert rows_ref is not None
        changed = {
            "id": f"t{seed}",
            "selection": selection_ref(chosen, None),
            "released": first.ticket.released.model_copy(update={"rows": rows_ref.model_copy(update=bound)}),
            "tokens": tokens(chosen.ids, result, vocabulary),
        }
        made.append(first.ticket.model_copy(update=changed))
    write_ticket_file(out, TicketFile(created_by="bench", tickets=tuple(made)))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--rows", type=int, default=128_256)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--tickets", type=int, default=1000)
    options = parser.parse_args()
    if "shipped" in options.only:
        for policy in ("selection", "release"):
            for ids in (["a05"], []):
                for bare in (True, False):
                    who = "alone" if bare else "with the independent checker"
                    print(f"shipped, {policy}, {'one ticket' if ids else 'eight tickets'}, {who}:")
                    print(f"    {timed(PUBLISHED, policy, ids=ids, bare=bare)}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        if "large" in options.only:
            path = write_large(Path(temporary) / "large", options.rows, options.width)
            print(f"large, {options.rows} x {options.width}, every row moved:")
            print(f"    {timed(path, 'selection', bare=True)}", flush=True)
        if "many" in options.only:
            path = write_many(Path(temporary) / "many", 32_000, options.width, options.tickets)
            print(f"many, {options.tickets} tickets, 32000 x {options.width}:")
            print(f"    {timed(path, 'selection', bare=True)}", flush=True)


if __name__ == "__main__":
    main()
