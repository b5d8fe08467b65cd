"""Batched greedy decoding beside ``model.generate`` one sentence at a time, in one run, with the same text.

    python tests/benchmarks/bench_evaluate.py BASE DATA [--template explicit --sentences 64 --batch-size 64]

BASE is a checkpoint folder, DATA parallel text as ``certify evaluate`` takes it. Both decode the same prompts
in fp32; the outputs must be equal, or the script fails. Rounds alternate; ratios are one-by-one / batched in
wall and in processor time, medians. On a busy machine use ``--threads 1`` and read processor time. Shown too:
what teacher forcing along the same outputs costs. Needs the extra ``tune``.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def timed(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """Result, wall seconds, processor seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def main() -> int:
    """Run the benchmark and print its ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("base", type=Path)
    parser.add_argument("data")
    parser.add_argument("--source", default="en")
    parser.add_argument("--target", default="ca")
    parser.add_argument("--template", default="explicit")
    parser.add_argument("--sentences", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--max-new-tokens", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    import torch
    import transformers

    from certify.ticket.templates import encode, load_template
    from lottery.evaluation.forced_decoding import certainties
    from lottery.evaluation.generate import generate
    from lottery.model.backbone import load_backbone
    from lottery.model.row_swap import Placed
    from lottery.model.tokenizer import load_tokenizer
    from lottery.text.pairsource import read_pairs

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    model, tokenizer = load_backbone(options.base, "F32").eval(), load_tokenizer(options.base)
    languages = (options.source, options.target)
    pairs = read_pairs(options.data, *languages)[: options.sentences]
    prompts = encode(load_template(options.template), pairs, tokenizer, *languages, response=False)
    end = tokenizer.eos_token_id

    def one_by_one() -> list[tuple[int, ...]]:
        answers = []
        for prompt in prompts:
            with torch.inference_mode():
                row = model.generate(
                    torch.tensor([prompt.ids]),
                    attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                    max_new_tokens=options.max_new_tokens,
                    do_sample=False,
                    eos_token_id=end,
                    pad_token_id=end,
                )[0, len(prompt) :].tolist()
            answers.append(tuple(row))
        return answers

    def batched() -> list[tuple[int, ...]]:
        settings = {"max_new_tokens": options.max_new_tokens, "batch_size": options.batch_size}
        return [output.tokens for output in generate(Placed(model), tokenizer, prompts, **settings)]

    walls, cpus, forced = [], [], []
    tokens = 0
    for _ in range(options.rounds):
        alone, alone_wall, alone_cpu = timed(one_by_one)
        together, wall, cpu = timed(batched)
        if alone != together:
            differing = sum(a != b for a, b in zip(alone, together, strict=True))
            print(f"{differing} of {len(alone)} outputs differ", file=sys.stderr)
            return 1
        _, _, teacher = timed(lambda made=together: certainties(Placed(model), prompts, made))
        walls.append(alone_wall / wall)
        cpus.append(alone_cpu / cpu)
        forced.append(teacher / cpu)
        tokens = sum(map(len, together))
    report = {
        "sentences": len(prompts),
        "generated_tokens": tokens,
        "equal_outputs": True,
        "ratio_wall": round(statistics.median(walls), 2),
        "ratio_processor": round(statistics.median(cpus), 2),
        "teacher_forcing_over_decoding": round(statistics.median(forced), 3),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "machine": platform.processor() or platform.machine(),
    }
    print(json.dumps(report) if options.json else "\n".join(f"{k}: {v}" for k, v in report.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
