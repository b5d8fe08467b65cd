"""What a path costs: evidence of some tickets with labels along it, beside the same without, in one run.

    python tests/benchmarks/bench_path.py BASE DATA FILE#ID... [--sentences 48 --law 16,2 --threads 1 --json]

BASE is the checkpoint of the tickets, DATA parallel text as ``certify evaluate`` takes it. Processor time,
with and without by turns, and the ratio of the medians. ``--profile`` prints where the time along the path
goes.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any


def main() -> int:
    """Run the benchmark and print its ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("base", type=Path)
    parser.add_argument("data")
    parser.add_argument("tickets", nargs="+")
    parser.add_argument("--sentences", type=int, default=48)
    parser.add_argument("--law", default="16,2")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    import torch

    from certify.ticket.declared import strength_law
    from certify.ticket.released import open_source
    from lottery.evaluation.arms import open_evaluation
    from lottery.evaluation.evaluate import evaluate_tickets

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    template = open_source(options.tickets[0]).ticket.template
    opened = open_evaluation(str(options.base), reference=None, tickets=options.tickets)
    _ = (
        opened.model,
        opened.tokenizer,
        opened.model_ref,
        opened.tokenizer_sha256,
    )  # before the clock runs
    seconds: dict[str, list[float]] = {"without": [], "with": []}
    profile = cProfile.Profile()
    for _ in range(options.rounds):
        for name, law in (("without", None), ("with", strength_law(options.law))):
            with TemporaryDirectory() as folder:
                begun = time.process_time()
                if options.profile and law is not None:
                    profile.enable()
                evaluate_tickets(
                    opened,
                    options.data,
                    ("en", "ca"),
                    template=template.name if template else "explicit",
                    out=Path(folder) / "it.json",
                    unit="sentence",
                    limit=options.sentences,
                    path=law,
                )
                profile.disable()
                seconds[name].append(time.process_time() - begun)
    found: dict[str, Any] = {name: statistics.median(times) for name, times in seconds.items()}
    found |= {"ratio": found["with"] / found["without"], "tickets": len(options.tickets)}
    sys.stdout.write(json.dumps(found) + "\n" if options.json else f"{found}\n")
    if options.profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(15)
    return 0


if __name__ == "__main__":
    sys.exit(main())
