"""``certify pretrain``: train a small base model from scratch by a plan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from certify.cli import options

if TYPE_CHECKING:
    from lottery.pretrain.run import Progress


def pretrain(
    plan: Annotated[
        str, typer.Argument(metavar="PLAN", help="Plan: a TOML file or a shipped name, such as base-small.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run, for tokenizer and checkpoint.")],
    data: options.DataFolder = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    device: Annotated[str, typer.Option(help="cpu, or another PyTorch device such as cuda.")] = "cpu",
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Number of threads; default: all cores. Does not change the result."),
    ] = None,
    report_every: Annotated[int, typer.Option(min=1, help="Number of steps per line of progress.")] = 50,
    save_every: Annotated[int, typer.Option(min=1, help="Number of steps per checkpoint.")] = 100,
    export: Annotated[
        Path | None, typer.Option(help="Folder to export the finished model to, in fp16 for transformers.")
    ] = None,
    notes: Annotated[
        Path | None, typer.Option(help="With --export: Markdown file of measured scores, for the model card.")
    ] = None,
) -> None:
    """Train a small LLaMA from scratch on the text of a plan (needs the extra tune).

    A run that was killed continues with --resume and ends with the same weights.
    With --export, a finished run is only exported.
    """
    import os

    from certify.base.errors import UsageError
    from lottery.pretrain.plan import data_folder, read_plan
    from lottery.text.textfile import read_lines

    wanted = read_plan(plan)
    folder = data_folder(data)
    text = "" if notes is None else "\n".join(read_lines(notes, limit=1 << 20))
    if notes is not None and export is None:
        raise UsageError("--notes requires --export", code="USAGE")
    from certify.cli.shell import needs_extra, next_line

    with needs_extra("pretraining"):
        import torch  # noqa: F401
        import transformers  # noqa: F401
    from lottery.pretrain.export import export_run
    from lottery.pretrain.run import pretrain as train

    run = train(
        wanted,
        folder,
        out,
        resume=resume or export is not None,
        device=device,
        workers=workers or (len(os.sched_getaffinity(0)) if device == "cpu" else 1),
        report=_print,
        report_every=report_every,
        save_every=save_every,
    )
    if export is not None:
        export_run(run, out, export, notes=text)
        typer.echo(f"exported to {export}")
        text_of = ("--data", "DATA", "--source", "SOURCE", "--target", "TARGET")
        typer.echo(next_line("certify", "tune", "--base", export, *text_of, "--seed", 0, "--out", "RUN"))
    else:
        folders = ("--out", out, *(("--data", data) if data else ()), "--export", "MODEL")
        typer.echo(next_line("certify", "pretrain", plan, *folders))


def _print(progress: Progress) -> None:
    def show(loss: float | None) -> str:
        return "-" if loss is None else f"{loss:.4f}"

    remaining = (
        (progress.steps - progress.step) * progress.tokens / progress.step / progress.tokens_per_second
    )
    typer.echo(
        f"step {progress.step}/{progress.steps} · loss {progress.loss:.4f} · held-out "
        f"{show(progress.held_out)} · watched {show(progress.watch)} · rate {progress.rate:.3f} · "
        f"{progress.tokens / 1e6:.2f} M tokens · {progress.tokens_per_second:.0f} tokens/s · "
        f"{remaining / 60:.0f} min left"
    )
