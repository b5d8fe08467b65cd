"""``certify tune``: train embedding rows of a model, or a comparison arm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lottery.cli import options
from lottery.tuning.recipe import RECIPES, Method, Schedule, adjusted, mode

if TYPE_CHECKING:
    from lottery.tuning.trainer import StepReport


_data = partial(typer.Option, rich_help_panel="Data")
_memory = partial(typer.Option, rich_help_panel="Memory and speed")


def _recipe(text: str, field: str, *names: str) -> Any:
    """Option for a field of the recipe, whose default depends on what is tuned."""
    values = {name: getattr(recipe, field) for name, recipe in RECIPES.items()}
    default = ", ".join(f"{name} {value}" for name, value in values.items())
    if len(set(values.values())) == 1:
        default = str(values["embed"])
    return typer.Option(*names, help=f"{text} Default: {default}.", rich_help_panel="Optimisation")


def tune(
    base: Annotated[str, typer.Option(help="Checkpoint folder, or a model on the hub (ORG/NAME).")],
    data: Annotated[
        list[str],
        _data(
            help="Training text: PREFIX of aligned files PREFIX.en and PREFIX.ca (also .xz, .gz), a .jsonl or"
            " .parquet file, or hub:NAME; repeatable."
        ),
    ],
    source: Annotated[str, _data(help="Source language, such as en.")],
    target: Annotated[str, _data(help="Target language, such as ca.")],
    out: Annotated[Path, typer.Option(help="Folder of the run: new or empty, unless --resume.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed for the data order and everything random.")],
    rows: Annotated[
        str | None,
        typer.Option(
            help="all (embed tuning), ticket:FILE#ID, published:PAIR, template:PAIR, random:K, frequency:K,"
            " norm:K, distance:K or ids:1,2,3. Default: all."
        ),
    ] = None,
    method: Annotated[Method, typer.Option(help="What to train: rows, or a comparison arm.")] = "rows",
    reference: Annotated[
        Path | None, typer.Option(help="For norm:K and distance:K: tuned table to compare the base with.")
    ] = None,
    template: Annotated[str, _data(help="Prompt template: a shipped name or a .toml file.")] = "alpaca",
    dev: Annotated[str | None, _data(help="Held-out text, to measure the loss after each epoch.")] = None,
    limit: Annotated[int | None, _data(min=1, help="Draw at most this many pairs, by digest.")] = None,
    max_length: Annotated[
        int | None,
        _data(
            min=2,
            help="Longest example in tokens; longer ones are left out and counted. Default: 512, or the"
            " model's number of positions if smaller.",
        ),
    ] = None,
    learning_rate: Annotated[
        float | None, _recipe("Peak learning rate.", "learning_rate", "--learning-rate", "--lr")
    ] = None,
    epochs: Annotated[int | None, _recipe("Passes over the data.", "epochs")] = None,
    batch_size: Annotated[int | None, _recipe("Examples per step, over all processes.", "batch_size")] = None,
    schedule: Annotated[Schedule | None, _recipe("Learning rate after warm-up.", "schedule")] = None,
    warmup: Annotated[float | None, _recipe("Fraction of steps for warm-up.", "warmup")] = None,
    weight_decay: Annotated[float | None, _recipe("Weight decay of AdamW.", "weight_decay")] = None,
    clip: Annotated[float | None, _recipe("Largest gradient norm; 0 disables clipping.", "clip")] = None,
    adapter_size: Annotated[int, typer.Option(min=1, help="Rank for lora, length for prefix.")] = 8,
    micro_batch: Annotated[
        int, _memory(min=1, help="Examples per forward pass; gradients accumulate over a batch.")
    ] = 8,
    dtype: Annotated[str, _memory(help="Dtype of the backbone in memory: fp32, bf16 or fp16.")] = "fp32",
    autocast: Annotated[bool, _memory("--autocast", help="Compute matrix products in bf16.")] = False,
    gradient_checkpointing: Annotated[
        bool, _memory("--gradient-checkpointing", help="Recompute activations to save memory.")
    ] = False,
    device: Annotated[
        options.DeviceName, _memory(help="Where to compute; auto takes a GPU if there is one.")
    ] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    save_every: Annotated[int, typer.Option(min=1, help="Number of steps per saved state.")] = 100,
    keep: Annotated[int, typer.Option(min=1, help="Number of saved states to keep.")] = 2,
    log_every: Annotated[
        int, typer.Option(min=1, help="Number of steps per line of progress off a terminal.")
    ] = 10,
    allow_beyond: Annotated[
        bool,
        typer.Option("--allow-beyond-tokenizer", help="Accept rows whose id the tokenizer never produces."),
    ] = False,
) -> None:
    """Train embedding rows, or an arm to compare with. Embed tuning trains all rows.

    The backbone stays frozen; rows are trained in fp32. A run that was killed
    continues with --resume. For several GPUs or machines use
    accelerate launch -m certify tune.
    """
    from certify.base.errors import UsageError
    from certify.cli.shell import needs_extra, next_line

    if method != "rows" and (rows is not None or reference is not None):
        raise UsageError(f"--method {method} does not train rows: leave out --rows and --reference")
    with needs_extra("tuning"):
        from lottery.tuning.tune import Settings
        from lottery.tuning.tune import tune as run_tune
    from certify.tables.dtypes import parse_dtype
    from lottery.text.tunedata import Data
    from lottery.tuning.trainer import Limits

    chosen_rows = "all" if rows is None else rows
    recipe = adjusted(
        RECIPES[mode(method, all_rows=chosen_rows == "all")],
        learning_rate=learning_rate,
        epochs=epochs,
        batch_size=batch_size,
        schedule=schedule,
        warmup=warmup,
        weight_decay=weight_decay,
        clip=clip,
    )
    settings = Settings(
        data=Data(tuple(data), source, target, template, held_out=dev, limit=limit, max_length=max_length),
        recipe=recipe,
        limits=Limits(micro_batch, autocast),
        seed=seed,
        method=method,
        rows=chosen_rows,
        reference=reference,
        dtype=parse_dtype(dtype),
        gradient_checkpointing=gradient_checkpointing,
        adapter_size=adapter_size,
        allow_beyond=allow_beyond,
    )
    with _reporting(log_every) as report:
        outcome = run_tune(
            base,
            settings,
            out,
            device=device,
            resume=resume,
            save_every=save_every,
            keep=keep,
            report=report,
            notice=lambda text: typer.echo(text, err=True) if _first_process() else None,
        )
    if not outcome.main:
        return
    from lottery.text.tunedata import told

    held_out = "" if outcome.held_out is None else f", held-out loss {outcome.held_out:.4f}"
    loss = "" if outcome.loss is None else f", last training loss {outcome.loss:.4f}"
    started = f" (resumed at step {outcome.resumed})" if outcome.resumed else ""
    typer.echo(
        f"wrote {outcome.path}: {outcome.trainable} parameters trained on {outcome.examples} examples"
        f" (pairs left out: {told(outcome.left_out)}) in {outcome.steps} steps{started}{loss}{held_out}"
    )
    if method == "rows" and chosen_rows == "all":
        typer.echo(next_line("certify", "scan", "--base", base, "--tuned", outcome.path))
    elif method == "rows":
        # A ticket compares with the table after embed tuning, whose rows these are not.
        rule = "RULE" if chosen_rows.startswith("ticket:") else chosen_rows
        words = ["--base", base, "--tuned", reference or "TUNED", "--tuned-rows", outcome.path]
        typer.echo(
            next_line("certify", "find", *words, "--rule", rule, "--id", "NAME", "--out", "tickets.json")
        )


@contextmanager
def _reporting(every: int) -> Iterator[Callable[[StepReport], None]]:
    """Show a progress bar on a terminal, otherwise a line per ``every`` steps, on standard error."""
    import sys

    # Only the first of several processes reports, so that their bars do not overlap.
    if not sys.stderr.isatty() or not _first_process():
        yield _lines(every)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from certify.cli.shell import console

    columns = (TextColumn("tuning"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[facts]}"))
    with Progress(*columns, TimeRemainingColumn(), console=console(stderr=True), transient=True) as bar:
        task = bar.add_task("tuning", total=None, facts="")

        def show(step: StepReport) -> None:
            facts = f"loss {step.loss:.3f}, {step.speed:,.0f} tokens/s"
            bar.update(task, total=step.steps, completed=step.step, facts=facts)
            if step.held_out is not None:
                bar.console.print(f"epoch {step.epoch}: held-out loss {step.held_out:.4f}")

        yield show


def _first_process() -> bool:
    """Whether this is the only process, or the first of those that a launcher started."""
    import os

    return os.environ.get("RANK", "0") == "0"


def _lines(every: int) -> Callable[[StepReport], None]:
    """Make a reporter that prints a line per ``every`` steps and estimates the time left."""
    import time
    from datetime import timedelta

    first: list[tuple[int, float]] = []

    def show(step: StepReport) -> None:
        now = time.monotonic()
        first[:] = first or [(step.step, now)]
        if step.step % every and step.step not in (1, step.steps) and step.held_out is None:
            return
        held_out = "" if step.held_out is None else f" held-out {step.held_out:.4f}"
        taken, passed = step.step - first[0][0], now - first[0][1]
        ahead = step.steps - step.step
        left = f" {timedelta(seconds=round(passed / taken * ahead))} left" if taken and ahead else ""
        typer.echo(
            f"step {step.step}/{step.steps} epoch {step.epoch} loss {step.loss:.4f}"
            f" rate {step.learning_rate:.3g} norm {step.gradient_norm:.3g} {step.speed:.0f} tokens/s"
            f"{left}{held_out}",
            err=True,
        )

    return show
