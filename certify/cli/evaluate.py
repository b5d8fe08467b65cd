"""``certify evaluate``: translate a text and score it under every extraction rule."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from certify.cli import interop, options

if TYPE_CHECKING:
    from lottery.evaluation import Evaluation


def evaluate(
    base: Annotated[str, typer.Option("--base", help="Checkpoint folder, or a model of the hub (ORG/NAME).")],
    data: Annotated[str, typer.Option("--data", help="Parallel text, as certify tune takes it.")],
    source: Annotated[str, typer.Option("--source", help="Source language, as in en.")],
    target: Annotated[str, typer.Option("--target", help="Target language, as in ca.")],
    template: Annotated[str, typer.Option("--template", help="Prompt template by name, or a .toml file.")],
    table: Annotated[
        Path | None, typer.Option("--table", help="Use this embedding table instead of the base's.")
    ] = None,
    ticket: Annotated[
        str | None,
        typer.Option("--ticket", metavar="FILE[#ID]", help="Use this ticket's released rows."),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="First so many sentences.")] = None,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longest answer.")] = 128,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Sentences at a time.")] = 32,
    beams: Annotated[int, typer.Option("--beams", min=1, help="Beam width; 1 is greedy.")] = 1,
    dtype: Annotated[str, typer.Option("--dtype", help="Compute in fp32, bf16 or fp16.")] = "fp32",
    out: Annotated[
        Path | None, typer.Option("--out", help="Write every output, one JSON object a line.")
    ] = None,
    report_format: options.Format = options.FormatName.terminal,
) -> None:
    """Translate a text with a model, or with other embedding rows in it, and score the outputs."""
    from certify.cli.shell import progress_bar
    from certify.errors import UsageError

    try:
        from lottery.evaluation import evaluate as run_evaluate
    except ImportError as error:
        raise UsageError(
            f"evaluating needs the package {error.name}: pip install 'certify-lottery[tune]'",
            code="EXTRA_MISSING",
        ) from error
    from lottery.dtypes import parse_dtype

    with progress_bar("translating", "sentences") as progress:
        result = run_evaluate(
            base,
            data,
            (source, target),
            template=template,
            table=table,
            ticket=ticket,
            limit=limit,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            beams=beams,
            dtype=parse_dtype(dtype),
            progress=progress,
        )
    if out is not None:
        _write(out, result)
    interop.show(_lines(result), result.summary(), report_format)


def _write(out: Path, result: Evaluation) -> None:
    from dataclasses import asdict

    from certify.schema import canonical_json, write_bytes

    write_bytes(out, b"".join(canonical_json(asdict(output)) + b"\n" for output in result.outputs))


def _lines(result: Evaluation) -> list[str]:
    lines = [f"{result.sentences} sentences, {result.ended:.1%} of the outputs ended by the model"]
    for score in result.scores:
        lines.append(
            f"  {score.rule:<11} BLEU {score.bleu:6.2f}  chrF++ {score.chrf:6.2f}"
            f"  length ratio {score.length_ratio:.2f}"
        )
    first = result.scores[0]
    return [*lines, f"BLEU {first.bleu_signature}", f"chrF++ {first.chrf_signature}"]
