"""Partial-tuning step: the project's trainable rows beside peft TrainableTokens, in one run.

    python tests/benchmarks/bench_rows.py [--json] [--hidden 1024 --vocab 32000 --layers 8 --rows 18]

Arms, on the same random weights and the same batches, alternating, medians:

* ``rows``: trainable rows and the loss on target positions, the step that tuning takes;
* ``rows, full logits``: trainable rows and the model's own loss, to show what the look-up alone brings;
* ``peft``: TrainableTokens and the model's own loss, as its users run it.

A step is forward, backward, AdamW and zeroing the gradients. Peak memory is measured in a fresh process per
arm. Ratios are ``peft / arm``, medians over rounds: above 1, the arm is faster or smaller. On a busy machine
use ``--threads 1`` and read CPU seconds. Needs the extra ``tune``.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

ARMS = ("rows", "rows, full logits", "peft")


def build(arm: str, options: argparse.Namespace) -> tuple[Callable[[int], float], object]:
    """A function that runs step number i and returns its loss, and the optimiser behind it."""
    import torch
    from peft import TrainableTokensConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    from lottery.model.loss import target_loss, target_positions
    from lottery.model.rows import install

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=options.vocab,
        hidden_size=options.hidden,
        intermediate_size=options.hidden * 11 // 4,
        num_hidden_layers=options.layers,
        num_attention_heads=options.hidden // 64,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    model.train()
    # Small ids are frequent in the batches below, as a ticket's tokens are in text.
    ids = list(range(3, 3 + options.rows))
    if arm == "peft":
        model.requires_grad_(False)
        trained = get_peft_model(
            model, TrainableTokensConfig(token_indices=ids, target_modules=["embed_tokens"])
        )
    else:
        install(model, ids)
        trained = model
    parameters = [p for p in trained.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.0)

    generator = torch.Generator().manual_seed(1)
    batches = []
    for _ in range(4):
        shape = (options.batch, options.length)
        common = torch.randint(3, 3 + options.rows, shape, generator=generator)
        rare = torch.randint(100, options.vocab, shape, generator=generator)
        inputs = torch.where(torch.rand(shape, generator=generator) < 0.3, common, rare)
        labels = inputs.clone()
        labels[:, : options.length - options.targets] = -100
        batch = {"input_ids": inputs, "attention_mask": torch.ones_like(inputs), "labels": labels}
        batches.append(batch | {"positions": target_positions(labels)})

    def step(index: int) -> float:
        batch = batches[index % len(batches)]
        if arm == "rows":
            loss = target_loss(trained, model.lm_head, batch) / batch["positions"].numel()
        else:
            inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
            loss = trained(**inputs, use_cache=False).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return loss.item()

    return step, optimiser


def state_numbers(optimiser: object) -> int:
    """Numbers that the optimiser keeps, without its step counters."""
    states = optimiser.state.values()  # type: ignore[attr-defined]
    return sum(v.numel() for state in states for name, v in state.items() if name != "step")


def measure_memory(arm: str, options: argparse.Namespace) -> None:
    """Child process: three steps of one arm; prints peak and steady memory in bytes, losses, state size."""
    step, optimiser = build(arm, options)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    losses = [step(i) for i in range(3)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"built": before, "peak": peak, "losses": losses, "state": state_numbers(optimiser)}))


def measure_time(options: argparse.Namespace) -> dict[str, list[tuple[float, float]]]:
    """Wall-clock and CPU seconds of each step: one process, a warm-up step each, arms taking turns."""
    steps = {arm: build(arm, options)[0] for arm in ARMS}
    for step in steps.values():
        step(0)
    seconds: dict[str, list[tuple[float, float]]] = {arm: [] for arm in ARMS}
    for index in range(options.steps):
        turn = index % len(ARMS)  # no arm always runs after the same other one
        for arm in ARMS[turn:] + ARMS[:turn]:
            wall, cpu = time.perf_counter(), time.process_time()
            steps[arm](index)
            seconds[arm].append((time.perf_counter() - wall, time.process_time() - cpu))
    return seconds


def profile(options: argparse.Namespace) -> None:
    """Print where an arm's step spends its time (``--profile ARM``)."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    step, _ = build(options.profile, options)
    step(0)
    with record(activities=[ProfilerActivity.CPU]) as recorded:
        step(1)
    print(recorded.key_averages().table(sort_by="self_cpu_time_total", row_limit=15))


def ratio(reference: list[float], arm: list[float]) -> float:
    """Median over the rounds of the ratio within a round, which a change of load between rounds spares."""
    return statistics.median(r / a for r, a in zip(reference, arm, strict=True))


def main() -> None:
    """Run the benchmark and print a table, or JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in {
        "hidden": 1024,
        "vocab": 32000,
        "layers": 8,
        "rows": 18,
        "batch": 8,
        "length": 96,
        "targets": 36,
        "steps": 7,
        "threads": 0,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--profile", choices=ARMS)
    parser.add_argument("--memory-of", choices=ARMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.threads:
        import torch

        torch.set_num_threads(options.threads)
    if options.memory_of:
        measure_memory(options.memory_of, options)
        return
    if options.profile:
        profile(options)
        return

    import torch

    memory = {}
    for arm in ARMS:
        command = [sys.executable, __file__, *sys.argv[1:], "--memory-of", arm]
        memory[arm] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    seconds = measure_time(options)
    expected = 2 * options.rows * options.hidden
    assert memory["rows"]["state"] == expected, "the optimiser must keep exactly k * d numbers per moment"
    wall, cpu = ({arm: [step[i] for step in seconds[arm]] for arm in ARMS} for i in (0, 1))
    result = {
        "machine": platform.platform(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "settings": {
            k: v for k, v in vars(options).items() if isinstance(v, int) and not isinstance(v, bool)
        },
        "wall_seconds": {arm: statistics.median(wall[arm]) for arm in ARMS},
        "cpu_seconds": {arm: statistics.median(cpu[arm]) for arm in ARMS},
        "wall_ratio": {arm: ratio(wall["peft"], wall[arm]) for arm in ARMS},
        "cpu_ratio": {arm: ratio(cpu["peft"], cpu[arm]) for arm in ARMS},
        "peak_bytes": {arm: memory[arm]["peak"] for arm in ARMS},
        "memory_ratio": {arm: memory["peft"]["peak"] / memory[arm]["peak"] for arm in ARMS},
        "optimiser_numbers": {arm: memory[arm]["state"] for arm in ARMS},
        "losses": {arm: memory[arm]["losses"] for arm in ARMS},
    }
    if options.json:
        print(json.dumps(result, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("arm", "s/step", "x peft", "CPU s/step", "x peft", "peak MB", "x peft", "moments")
    for arm in ARMS:
        table.add_row(
            arm,
            f"{result['wall_seconds'][arm]:.3f}",
            f"{result['wall_ratio'][arm]:.2f}",
            f"{result['cpu_seconds'][arm]:.3f}",
            f"{result['cpu_ratio'][arm]:.2f}",
            f"{memory[arm]['peak'] / 1e6:.0f}",
            f"{result['memory_ratio'][arm]:.2f}",
            f"{memory[arm]['state']:,}",
        )
    console = Console()
    console.print(table)
    console.print(
        f"{result['machine']}, {result['threads']} threads, torch {result['torch']}", highlight=False
    )
    console.print(f"first losses: {[round(memory[arm]['losses'][0], 4) for arm in ARMS]}", highlight=False)


if __name__ == "__main__":
    main()
